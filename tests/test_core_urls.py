"""URL rules: what fits, and that looking up is as good as comparing."""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpServer
from raw import head, raw
from yarl import URL

from aiohttp_middlewares._core.urls import UrlMap, url_matcher
from aiohttp_middlewares.annotations import Handler, Url, Urls

WHAT = "some_middleware urls"


def sent(target: str) -> str:
    """The path of a request, as the router and the middlewares see it."""
    path, _, query = target.partition("?")
    url = URL.build(path=path, query_string=query, encoded=True)
    return url.path_safe


def asking(path: str, method: str = "GET") -> Any:
    """As much of a request as there is to look at."""
    return SimpleNamespace(
        method=method, rel_url=SimpleNamespace(path_safe=path)
    )


def matching(urls: Urls) -> Callable[[str, str], bool]:
    """Whether the rules fit a method and a path."""
    fits = url_matcher(WHAT, urls)
    return lambda method, path: fits(asking(path, method))


# What fits
# =========


@pytest.mark.parametrize(
    ("rule", "fits", "does_not"),
    [
        ("/a", ["/a", "/%61", "/a?b=c"], ["/", "/a/", "/ab", "/A", "/b/a"]),
        ("/", ["/", "/?a"], ["", "/a", "*"]),
        ("/a b", ["/a%20b"], ["/a+b", "/a%2520b"]),
        ("/é", ["/%C3%A9", "/é"], ["/%E9", "/e"]),
        # M5: the router keeps an encoded slash apart, and so does a rule.
        ("/a/b", ["/a/b", "/%61/b"], ["/a%2Fb"]),
        ("/a%2Fb", ["/a%2Fb", "/a%2fb"], ["/a/b", "/a%252Fb"]),
        ("/a%2fb", ["/a%2Fb", "/a%2fb"], ["/a/b", "/a%252Fb"]),
        ("/100%", ["/100%25"], ["/100", "/100%2525"]),
        ("/100%25", ["/100%25"], ["/100%2525"]),
        ("/a%20b", ["/a%2520b"], ["/a%20b"]),
        ("/%zz", ["/%25zz"], ["/zz"]),
        # M3: of a URL the path counts.
        (URL("/a b"), ["/a%20b"], ["/a%2520b"]),
        (URL("/é"), ["/%C3%A9"], ["/e"]),
        (URL("/x?y=1"), ["/x", "/x?z=2"], ["/x/y"]),
        (URL("https://a.example/x#y"), ["/x"], ["/"]),
        (URL("https://a.example"), ["/"], ["/a.example"]),
        (URL("/a%2Fb"), ["/a%2Fb"], ["/a/b"]),
        # M4: patterns are anchored at the start only, as upstream's are.
        (re.compile("/admin"), ["/admin", "/administrator"], ["/the/admin"]),
        (re.compile("/admin$"), ["/admin"], ["/administrator"]),
        (re.compile("/A", re.IGNORECASE), ["/a", "/A"], ["/b"]),
        (re.compile("(?i)/A"), ["/a", "/A"], ["/b"]),
        (re.compile("(?u)/a"), ["/a"], ["/b"]),
        (re.compile(r"/(\w)\1$"), ["/aa"], ["/ab"]),
        (re.compile("/a/b"), ["/a/b"], ["/a%2Fb"]),
        (re.compile(""), ["/", "/a", "*"], []),
    ],
)
def test_rule_fits_what_it_says_alone_and_in_company(
    rule: Url, fits: list[str], does_not: list[str]
) -> None:
    others: list[Url] = [
        re.compile("/other$|/third$"),
        "/fourth",
        re.compile(r"/(fifth)/\1$"),
    ]
    for urls in ([rule], {rule: "GET"}, [*others, rule], [rule, *others]):
        matcher = matching(urls)
        assert [path for path in fits if not matcher("GET", sent(path))] == []
        assert [path for path in does_not if matcher("GET", sent(path))] == []
    values: UrlMap[int] = UrlMap(WHAT, {"/fourth": 4, rule: 1})
    assert [values.first(asking(sent(path)), 0) for path in fits] == [1] * len(
        fits
    )
    assert all(values.first(asking(sent(path)), 0) == 0 for path in does_not)


def test_any_entry_that_fits_path_and_method_counts() -> None:
    # M1: upstream looked at the first entry that fits the path, and no further.
    rules: list[tuple[Url, str]] = [
        (re.compile("/api"), "GET"),
        ("/api/docs", "POST"),
    ]
    for urls in (dict(rules), dict(reversed(rules))):
        matcher = matching(urls)
        assert matcher("GET", "/api/docs")
        assert matcher("POST", "/api/docs")
        assert not matcher("POST", "/api/other")
        assert not matcher("PUT", "/api/docs")


def test_the_same_path_in_two_spellings_has_the_methods_of_both() -> None:
    matcher = matching({"/a": "GET", URL("/a"): ["POST", "put"]})
    assert [m for m in ("GET", "POST", "PUT", "HEAD") if matcher(m, "/a")] == [
        "GET",
        "POST",
        "PUT",
    ]


def test_methods_are_in_any_case_and_head_is_not_get() -> None:
    # M6, as upstream has it.
    matcher = matching({"/a": "get", re.compile("/b"): ("Post",)})
    assert matcher("GET", "/a")
    assert not matcher("HEAD", "/a")
    assert matcher("POST", "/b")
    assert not matching({"/a": []})("GET", "/a")
    assert not matcher("GET", "/b")


def test_first_rule_that_fits_gives_the_value() -> None:
    rules = {
        re.compile("/a"): 1,
        "/ab": 2,
        "/b": 3,
        re.compile("/b"): 4,
        re.compile("(?i)/C"): 5,
        re.compile("/c"): 6,
        URL("/b"): 7,
    }
    values = UrlMap(WHAT, rules)
    paths = ("/ab", "/b", "/bc", "/c", "/d")
    found = [values.first(asking(path), 0) for path in paths]
    assert found == [1, 3, 4, 5, 0]


@pytest.mark.parametrize("rule", ["/a/b", "/a%2Fb", "/a b", "/é", "/100%25"])
async def test_rule_covers_the_requests_that_reach_a_route_spelled_alike(
    aiohttp_server: AiohttpServer, rule: str
) -> None:
    matcher = matching([rule])

    @web.middleware
    async def covers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        found = matcher(request.method, request.rel_url.path_safe)
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return web.Response(status=500 if found else 404)

    async def show(request: web.Request) -> web.Response:
        found = matcher(request.method, request.rel_url.path_safe)
        return web.Response(status=200 if found else 500)

    app = web.Application(middlewares=[covers])
    app.router.add_get(rule, show)
    server = await aiohttp_server(app)
    targets = [
        "/a/b",
        "/a%2Fb",
        "/a%2fb",
        "/a%20b",
        "/%C3%A9",
        "/%E9",
        "/100%25",
    ]
    statuses = {
        target: head(
            await raw(
                server,
                f"GET {target} HTTP/1.1\r\nHost: a.example\r\n"
                "Connection: close\r\n\r\n".encode(),
            )
        ).status
        for target in targets
    }
    assert 500 not in statuses.values()
    assert 200 in statuses.values()


# Looking up is as good as comparing
# ==================================

PATHS = st.text("abé%/2F5 ", max_size=6).map(lambda text: f"/{text}")
#: What a request may ask for, encoded as it comes in.
TARGETS = st.lists(
    st.sampled_from(["a", "b", "/", "%2F", "%2f", "%25", "%20", "%C3%A9", "é"]),
    max_size=6,
).map(lambda parts: "/" + "".join(parts))
METHODS = st.sampled_from(["GET", "POST", "PUT"])
PIECES = [
    "a",
    "b",
    "/",
    ".",
    "[ab]",
    "a|b",
    "(a)",
    "(?:b)",
    "é",
    "$",
    "%2F",
    "",
]
PATTERNS = st.builds(
    lambda flags, pieces: re.compile(flags + "/" + "".join(pieces)),
    st.sampled_from(["", "", "", "(?i)", "(?u)", "(?a)", "(?x)"]),
    st.lists(st.sampled_from(PIECES), max_size=4),
)
RULES: st.SearchStrategy[Url] = st.one_of(
    PATHS, PATTERNS, PATHS.map(lambda path: URL.build(path=path))
)
URLS: st.SearchStrategy[Urls] = st.one_of(
    st.lists(RULES, max_size=6),
    st.dictionaries(
        RULES, st.lists(METHODS, min_size=1, max_size=2), max_size=6
    ),
)


def fits(rule: Url, path: str) -> bool:
    """The plain meaning of a rule; a path comes as ``path_safe`` gives it."""
    if isinstance(rule, re.Pattern):
        return rule.match(path) is not None
    if isinstance(rule, URL):
        return rule.path_safe == path
    # Every way to write the path of a request that decodes to the rule.
    literally = rule.replace("%2f", "%2F").replace("%25", "%")
    return path.replace("%25", "%") == literally and (
        path.count("%2F") == literally.count("%2F")
    )


@given(urls=URLS, method=METHODS, target=TARGETS)
def test_matcher_says_what_comparing_with_each_rule_says(
    urls: Urls, method: str, target: str
) -> None:
    path = sent(target)
    expected = (
        any(fits(url, path) and method in urls[url] for url in urls)
        if isinstance(urls, Mapping)
        else any(fits(url, path) for url in urls)
    )
    assert matching(urls)(method, path) is expected


@given(rules=st.lists(RULES, max_size=6, unique=True), target=TARGETS)
def test_map_says_what_comparing_with_each_rule_in_turn_says(
    rules: list[Url], target: str
) -> None:
    path = sent(target)
    expected = next((rule for rule in rules if fits(rule, path)), None)
    values = UrlMap(WHAT, {rule: rule for rule in rules})
    assert values.first(asking(path), None) == expected


class CountedPath(str):
    """A path that counts what it is compared with."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        type(self).compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("size", [1, 10_000])
def test_ten_thousand_exact_rules_cost_what_one_costs(size: int) -> None:
    rules = [f"/{number}" for number in range(size)]
    matcher, values = (
        matching(rules),
        UrlMap(WHAT, dict.fromkeys(rules)),
    )
    for path, most in (("/0", 3), ("/nothing", 3)):
        CountedPath.compared = 0
        assert matcher("GET", CountedPath(path)) is (path in rules)
        values.first(asking(CountedPath(path)), 0)
        assert CountedPath.compared <= most


# Misconfiguration
# ================

RULE = "paths (str), patterns (re.Pattern) or URLs (yarl.URL)"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        # M2, M4: upstream matched nothing, or the characters of a string.
        (
            "/slow",
            f"a collection of {RULE}, got '/slow'; did you mean ['/slow']?",
        ),
        (42, f"a collection of {RULE}, got 42"),
        (b"/slow", f"a collection of {RULE}, got b'/slow'"),
        ([42], f"a collection of {RULE}, got 42"),
        ([None], f"a collection of {RULE}, got None"),
        ([len], f"a collection of {RULE}, got <built-in function len>"),
        ({None: "GET"}, f"a collection of {RULE}, got None"),
        ([re.compile(b"/a")], f"a collection of {RULE}, got re.compile(b'/a')"),
        (
            ["slow"],
            "a path that starts with '/', got 'slow'; did you mean '/slow'?",
        ),
        ([""], "a path that starts with '/', got ''; did you mean '/'?"),
        (["*"], "a path that starts with '/', got '*'; did you mean any path?"),
        (
            ["^/api"],
            "a path that starts with '/', got '^/api';"
            " did you mean re.compile('^/api')?",
        ),
        (
            [URL("slow")],
            "a path that starts with '/', got URL('slow');"
            " did you mean '/slow'?",
        ),
        (
            [URL("")],
            "a path that starts with '/', got URL(''); did you mean '/'?",
        ),
    ],
)
def test_rule_that_can_never_fit_is_refused(urls: Urls, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        matching(urls)
    assert str(refused.value) == f"{WHAT} should be {message}"


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (None, "a collection of HTTP methods, got None"),
        (42, "a collection of HTTP methods, got 42"),
        ([42], "a collection of HTTP methods, got 42"),
        ("*", "a collection of HTTP methods, got '*'"),
        (
            "GET,POST",
            "a collection of HTTP methods, got 'GET,POST';"
            " did you mean ['GET', 'POST']?",
        ),
        ("", "a collection of HTTP methods, got ''"),
    ],
)
def test_method_that_is_none_is_refused(methods: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        matching({"/a": methods})
    assert str(refused.value) == f"{WHAT}['/a'] should be {message}"


def test_rules_are_frozen_when_the_middleware_is_made() -> None:
    rules = (path for path in ("/a", "/b"))  # gone after the first reading
    matcher = matching(rules)  # type: ignore[arg-type]
    assert matcher("GET", "/a")
    assert matcher("GET", "/b")
    assert not matcher("GET", "/c")
