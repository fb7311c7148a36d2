"""URL rules: checked and compiled by the factory, looked up per request.

A rule is an exact path, a pattern or a ``yarl.URL`` of which the path counts.
The path that they are compared with is the one that aiohttp's router uses,
``request.rel_url.path_safe``: in it ``%2F`` stays what it is, so that no
request can reach another route than the one that its rule is about.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from aiohttp import web
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.annotations import Url, Urls

T = TypeVar("T")
D = TypeVar("D")

_OF = "paths (str), patterns (re.Pattern) or URLs (yarl.URL)"


def url_matcher(what: str, urls: Urls) -> Callable[..., bool]:
    """Whether any of the rules fits the method and the path of a request.

    Asked with another method than its own, it answers for that one.
    """
    rules: Iterable[tuple[Url, frozenset[str] | None]]
    if isinstance(urls, Mapping):
        rules = [
            (url, options.methods(f"{what}[{url!r}]", methods))
            for url, methods in urls.items()
        ]
    else:
        rules = [(url, None) for url in options.items(what, _OF, urls)]

    # None stands for every method.
    exact: dict[str, frozenset[str] | None] = {}
    patterns = []
    for url, methods in rules:
        rule = _compiled(what, url)
        if isinstance(rule, re.Pattern):
            patterns.append((rule, methods))
        else:
            known = exact.get(rule, methods)
            exact[rule] = (
                None if methods is None or known is None else known | methods
            )
    if not patterns and set(exact.values()) <= {None}:
        return lambda request, method=None: request.rel_url.path_safe in exact
    candidates = _candidates(patterns)

    def fits(request: web.Request, method: str | None = None) -> bool:
        method = method or request.method
        path = request.rel_url.path_safe
        if path in exact:
            methods = exact[path]
            if methods is None or method in methods:
                return True
        for match, methods in candidates(path):
            if (methods is None or method in methods) and match(path):
                return True
        return False

    return fits


class UrlMap(Generic[T]):
    """Values by rule: the first rule that fits the path gives its value."""

    __slots__ = ("_candidates", "_exact")

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
        self._candidates = _candidates(patterns)

    def first(self, request: web.Request, default: D) -> T | D:
        path = request.rel_url.path_safe
        exact = self._exact.get(path)
        for match, (position, value) in self._candidates(path):
            if exact is not None and exact[0] < position:
                break
            if match(path):
                return value
        return default if exact is None else exact[1]


#: What may match a path; whether it does, ``match`` has to tell.
_Candidates: TypeAlias = Callable[
    [str], Sequence[tuple[Callable[[str], re.Match[str] | None], T]]
]


def _candidates(rules: list[tuple[re.Pattern[str], T]]) -> _Candidates[T]:
    """Patterns in their order, after one quick look that mostly says no."""
    every = [(rule.match, value) for rule, value in rules]
    joined = [rule.pattern for rule, _ in rules if _can_be_joined(rule)]
    if not joined:
        return lambda path: every
    maybe = re.compile("|".join(joined)).match
    #: What the quick look knows nothing of.
    apart = [
        (rule.match, value) for rule, value in rules if not _can_be_joined(rule)
    ]
    return lambda path: every if maybe(path) else apart


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
