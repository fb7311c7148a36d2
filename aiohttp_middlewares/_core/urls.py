"""URL rules: checked and compiled by the factory, looked up per request.

A rule is an exact path, a pattern or a ``yarl.URL`` of which the path counts.
The path that they are compared with is the one that aiohttp's router uses,
``request.rel_url.path_safe``: in it ``%2F`` stays what it is, so that no
request can reach another route than the one that its rule is about. Below a
route, a static file may still be another than the path says: a path that may
lead elsewhere fits no rule that exempts.
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

#: Takes a request, and may take a method in place of that of the request.
Matcher: TypeAlias = Callable[..., bool]

_OF = "paths (str), patterns (re.Pattern) or URLs (yarl.URL)"


def url_matcher(what: str, urls: Urls | None) -> Matcher | None:
    """Whether any of the rules fits the method and the path of a request.

    For rules that select what a middleware covers. Asked with another method
    than its own, it answers for that one. ``None`` for no rules at all.
    """
    return _matcher(what, urls, exempts=False)


def exemption(what: str, urls: Urls | None) -> Matcher | None:
    """As :func:`url_matcher`, for rules that let a request off something.

    They do not fit a path that may lead elsewhere than it reads: see
    :func:`_misleads`.
    """
    return _matcher(what, urls, exempts=True)


def _matcher(what: str, urls: Urls | None, *, exempts: bool) -> Matcher | None:
    if urls is None:
        return None
    rules: Iterable[tuple[Url, frozenset[str] | None]]
    if isinstance(urls, Mapping):
        rules = []
        for url, methods in urls.items():
            several = (methods,) if isinstance(methods, str) else methods
            found = options.methods(f"{what}[{url!r}]", several)
            if not found:
                should = "at least one HTTP method"
                options.refuse(ValueError, f"{what}[{url!r}]", should, methods)
            rules.append((url, found))
    else:
        rules = [(url, None) for url in options.items(what, _OF, urls)]

    # None stands for every method.
    exact: dict[str, frozenset[str] | None] = {}
    patterns: list[_Rule[frozenset[str] | None]] = []
    for url, methods in rules:
        rule = _compiled(what, url, exempts)
        if isinstance(rule, re.Pattern):
            patterns.append((rule, exempts, methods))
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
    """Values by rule: the first rule that fits the path gives its value.

    Where a value ``loosens`` what holds without it, its rule exempts: see
    :func:`exemption`.
    """

    __slots__ = ("_candidates", "_exact")

    def __init__(
        self,
        what: str,
        rules: Mapping[Any, T],
        *,
        loosens: Callable[[T], bool] | None = None,
    ) -> None:
        # Each value goes with its position, as exact paths and patterns are
        # looked up apart.
        self._exact: dict[str, tuple[int, T]] = {}
        patterns: list[_Rule[tuple[int, T]]] = []
        for position, (url, value) in enumerate(rules.items()):
            exempts = loosens is not None and loosens(value)
            rule = _compiled(what, url, exempts)
            if isinstance(rule, re.Pattern):
                patterns.append((rule, exempts, (position, value)))
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


#: A pattern, whether it exempts, and what it stands for.
_Rule: TypeAlias = tuple[re.Pattern[str], bool, T]
#: What may match a path; whether it does, its function has to tell.
_Candidates: TypeAlias = Callable[
    [str], Sequence[tuple[Callable[[str], object], T]]
]


def _candidates(rules: list[_Rule[T]]) -> _Candidates[T]:
    """Patterns in their order, after one quick look that mostly says no."""
    every = [
        (_unless_misled(rule.match) if exempts else rule.match, value)
        for rule, exempts, value in rules
    ]
    joined = [rule.pattern for rule, _, _ in rules if _can_be_joined(rule)]
    if not joined:
        return lambda path: every
    maybe = re.compile("|".join(joined)).match
    #: What the quick look knows nothing of.
    apart = [
        found
        for (rule, _, _), found in zip(rules, every, strict=True)
        if not _can_be_joined(rule)
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


# RFC 3986 5.2.4 and 6.2.2.3: a client has removed dot segments. One that comes
# in is resolved behind the middlewares, by static files or by whoever the rest
# of the path is handed to, and so is an encoded one ("%2e"), encoded as often
# as it may be, and one between backslashes. A control character ends a path
# for some, and "$" matches before a line feed at the end.
_SLASH = r"(?:[/\\]|%(?:25)*(?:2[Ff]|5[Cc]))"
_DOT = r"(?:\.|%(?:25)*2[Ee])"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]|%(?:25)*(?:[01][0-9A-Fa-f]|7[Ff])"
_MISLEADING = re.compile(
    rf"(?:\A|{_SLASH}){_DOT}{{1,2}}(?:{_SLASH}|\Z)|{_CONTROL}"
)


def _misleads(path: str) -> bool:
    """Whether a path has a dot segment or a control character."""
    # Nearly all paths are done with here.
    plain = (
        path[:1] == "/"
        and "/." not in path
        and "%" not in path
        and "\\" not in path
        and path.isprintable()
    )
    return not plain and _MISLEADING.search(path) is not None


def _unless_misled(
    match: Callable[[str], object],
) -> Callable[[str], object]:
    return lambda path: match(path) and not _misleads(path)


def _compiled(what: str, rule: object, exempts: bool) -> str | re.Pattern[str]:
    """A pattern, or the exact path as :attr:`yarl.URL.path_safe` has it."""
    should = f"a collection of {_OF}"
    if isinstance(rule, re.Pattern):
        if not isinstance(rule.pattern, str):
            options.refuse(TypeError, what, should, rule)
        return rule
    if not isinstance(rule, str | URL):
        options.refuse(TypeError, what, should, rule)
    if isinstance(rule, URL) and rule.path_safe.startswith("/"):
        path = rule.path_safe
    else:
        # `path_safe` keeps %2F and %25 as they are and decodes the rest.
        text = str(rule).replace("%2f", "%2F")
        path = re.sub("%(?!2F|25)", "%25", text)
    _check_path(what, rule, path)
    if exempts and _misleads(path):
        options.refuse(
            ValueError,
            what,
            "a path without '.' and '..' segments and control characters, "
            "which nothing is let off for",
            rule,
        )
    return path


def _check_path(what: str, rule: str | URL, path: str) -> None:
    """Refuse what fits no request, as it was meant as something else."""
    text = rule.path_safe if isinstance(rule, URL) else rule
    if not path.startswith("/"):
        # It was meant as a pattern, or the slash was forgotten.
        meant = repr("/" + text)
        if re.search(r"[\\*+?^$()|\[]", text):
            meant = "any path" if text == "*" else f"re.compile({text!r})"
        options.refuse(
            ValueError, what, "a path that starts with '/'", rule, meant=meant
        )
    if _VARIABLE.search(text):
        options.refuse(
            ValueError,
            what,
            "a pattern where '*' or '{}' stand for something, and "
            "re.compile(re.escape(path) + r'\\Z') where they do not",
            rule,
            meant=_pattern_meant(text),
        )
    if isinstance(rule, str) and _FOREIGN.search(text):
        options.refuse(
            ValueError,
            what,
            "a path, without query and as it is sent, or a pattern: "
            "re.compile(re.escape(path) + r'\\Z') for one with such characters",
            rule,
        )


# A query, an expression, and the variables of other routers.
_FOREIGN = re.compile(r"[?\\<>]|/:")
# A variable of the router, whose own pattern may hold braces, or the wildcard
# of a shell.
_VARIABLE = re.compile(r"(\{(?:[^{}]|\{[^{}]*\})*\}|\*+)")


def _pattern_meant(text: str) -> str:
    """Source text of the pattern that has what a path's variables stand for."""
    pattern = text
    if "{" in text or ".*" not in text:  # else it is a pattern as it is
        literals = iter(_VARIABLE.split(text.rstrip("*")))
        pattern = ""
        for literal in literals:
            pattern += re.sub(r"[\\.^$+?()\[\]|{}]", r"\\\g<0>", literal)
            variable = next(literals, "")
            _, colon, expression = variable[1:-1].partition(":")
            if variable:
                pattern += f"(?:{expression})" if colon else "[^/]+"
        if not text.endswith("*"):
            pattern += r"\Z"
    if "\\" in pattern and "'" not in pattern:
        return f"re.compile(r'{pattern}')"
    return f"re.compile({pattern!r})"


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
