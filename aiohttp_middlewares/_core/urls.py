"""URL rules: checked and compiled by the factory, looked up per request.

A rule is an exact path, a pattern or a ``yarl.URL`` of which the path counts.
The path that they are compared with is the one that aiohttp's router uses,
``request.rel_url.path_safe``: in it ``%2F`` stays what it is, so that no
request can reach another route than the one that its rule is about.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.annotations import Url, Urls

T = TypeVar("T")
D = TypeVar("D")

_OF = "paths (str), patterns (re.Pattern) or URLs (yarl.URL)"


class UrlMatcher:
    """Whether any of the rules fits the method and the path of a request."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, what: str, urls: Urls) -> None:
        rules: Iterable[tuple[Url, frozenset[str] | None]]
        if isinstance(urls, Mapping):
            rules = [
                (url, options.methods(f"{what}[{url!r}]", methods))
                for url, methods in urls.items()
            ]
        else:
            rules = [(url, None) for url in options.items(what, _OF, urls)]

        # None stands for every method.
        self._exact: dict[str, frozenset[str] | None] = {}
        patterns = []
        for url, methods in rules:
            rule = _compiled(what, url)
            if isinstance(rule, re.Pattern):
                patterns.append((rule, methods))
            else:
                known = self._exact.get(rule, methods)
                self._exact[rule] = (
                    None
                    if methods is None or known is None
                    else known | methods
                )
        self._patterns = _Patterns(patterns)

    def __call__(self, method: str, path: str) -> bool:
        if path in self._exact:
            methods = self._exact[path]
            if methods is None or method in methods:
                return True
        for match, methods in self._patterns.candidates(path):
            if (methods is None or method in methods) and match(path):
                return True
        return False


class UrlMap(Generic[T]):
    """Values by rule: the first rule that fits the path gives its value."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, what: str, rules: Mapping[Any, T]) -> None:
        # Each value goes with its position, as exact paths and patterns are
        # looked up apart.
        self._exact: dict[str, tuple[int, T]] = {}
        patterns = []
        for position, (url, value) in enumerate(rules.items()):
            rule = _compiled(what, url)
            if isinstance(rule, re.Pattern):
                patterns.append((rule, (position, value)))
            else:
                self._exact.setdefault(rule, (position, value))
        self._patterns = _Patterns(patterns)

    def first(self, path: str, default: D) -> T | D:
        exact = self._exact.get(path)
        for match, (position, value) in self._patterns.candidates(path):
            if exact is not None and exact[0] < position:
                break
            if match(path):
                return value
        return default if exact is None else exact[1]


class _Patterns(Generic[T]):
    """Patterns in their order, and one quick look that mostly says no."""

    __slots__ = ("_all", "_apart", "_maybe")

    def __init__(self, rules: list[tuple[re.Pattern[str], T]]) -> None:
        joined = [rule for rule, _ in rules if _can_be_joined(rule)]
        self._all = [(rule.match, value) for rule, value in rules]
        #: What the quick look knows nothing of.
        self._apart = [
            (rule.match, value)
            for rule, value in rules
            if not _can_be_joined(rule)
        ]
        self._maybe: Callable[[str], object] | None = (
            re.compile("|".join(rule.pattern for rule in joined)).match
            if joined
            else None
        )

    def candidates(
        self, path: str
    ) -> Sequence[tuple[Callable[[str], re.Match[str] | None], T]]:
        """What may match; whether it does, ``match`` has to tell."""
        if self._maybe is None or self._maybe(path):
            return self._all
        return self._apart


def _can_be_joined(pattern: re.Pattern[str]) -> bool:
    # Flags and groups count for a whole pattern, so neither survives a join;
    # of flags "(?u)", which changes nothing, is the one that does not show.
    return (
        pattern.flags == re.UNICODE
        and pattern.groups == 0
        and "(?u" not in pattern.pattern
    )


def _compiled(what: str, rule: object) -> str | re.Pattern[str]:
    should = f"a collection of {_OF}"
    if isinstance(rule, URL) and rule.path_safe.startswith("/"):
        return rule.path_safe
    if isinstance(rule, re.Pattern):
        if not isinstance(rule.pattern, str):
            options.refuse(TypeError, what, should, rule)
        return rule
    if not isinstance(rule, str | URL):
        options.refuse(TypeError, what, should, rule)
    text = str(rule)
    if not text.startswith("/"):
        # It fits no request: it was meant as a pattern, or the slash was
        # forgotten.
        meant = repr("/" + text)
        if re.search(r"[\\*+?^$()|\[]", text):
            meant = "any path" if text == "*" else f"re.compile({text!r})"
        options.refuse(
            ValueError, what, "a path that starts with '/'", rule, meant=meant
        )
    # `path_safe` keeps %2F and %25 as they are and decodes the rest.
    return re.sub("%(?!2F|25)", "%25", text.replace("%2f", "%2F"))


# -- What upstream's ``utils`` offers: no compiling, no complaint. ------------


def match_path(item: Url, path: str) -> bool:
    """Whether a path fits one rule.

    :param item:
        An exact path, a pattern (``.match``: from the start of the path, not
        to its end) or a URL of which the path counts. Anything else fits
        nothing.
    :param path: The path of a request, such as ``request.rel_url.path_safe``.
    """
    if isinstance(item, URL):
        return path in (item.path_safe, item.path)
    if isinstance(item, str):
        return item == path
    try:
        return bool(item.match(path))
    except (AttributeError, TypeError):
        return False


def match_request(urls: Urls, method: str, path: str) -> bool:
    """Whether a method and a path fit any of the rules.

    :param urls:
        A collection of rules as :func:`match_path` takes them, or a mapping
        of rules to the method or methods, in any case, that they are for.
    :param method: The method of a request. ``HEAD`` is not covered by ``GET``.
    :param path: The path of a request.
    """
    if isinstance(urls, str):
        urls = (urls,)  # and not the characters of it
    if not isinstance(urls, Mapping):
        return any(match_path(item, path) for item in urls)
    method = method.upper()
    return any(
        method in _upper(methods)
        for item, methods in urls.items()
        if match_path(item, path)
    )


def _upper(methods: object) -> set[str]:
    if isinstance(methods, str):
        return {methods.upper()}
    if not isinstance(methods, Iterable):
        return set()
    return {item.upper() for item in methods if isinstance(item, str)}
