"""URL rules: what fits, and that looking up is as good as comparing."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpServer
from raw import Head, head, raw
from yarl import URL

import aiohttp_middlewares as m
from aiohttp_middlewares._core.urls import UrlMap, exemption, url_matcher
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
    assert fits is not None
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
        # The router keeps an encoded slash apart, and so does a rule.
        ("/a/b", ["/a/b", "/%61/b"], ["/a%2Fb"]),
        ("/a%2Fb", ["/a%2Fb", "/a%2fb"], ["/a/b", "/a%252Fb"]),
        ("/a%2fb", ["/a%2Fb", "/a%2fb"], ["/a/b", "/a%252Fb"]),
        ("/100%", ["/100%25"], ["/100", "/100%2525"]),
        ("/100%25", ["/100%25"], ["/100%2525"]),
        ("/a%20b", ["/a%2520b"], ["/a%20b"]),
        ("/%zz", ["/%25zz"], ["/zz"]),
        # Of a URL the path counts.
        (URL("/a b"), ["/a%20b"], ["/a%2520b"]),
        (URL("/é"), ["/%C3%A9"], ["/e"]),
        (URL("/x?y=1"), ["/x", "/x?z=2"], ["/x/y"]),
        (URL("https://a.example/x#y"), ["/x"], ["/"]),
        (URL("https://a.example"), ["/"], ["/a.example"]),
        (URL("/a%2Fb"), ["/a%2Fb"], ["/a/b"]),
        # Patterns are anchored at the start only, as upstream's are.
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
    # Upstream looked at the first entry that fits the path, and no further.
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
    # As upstream has it.
    matcher = matching({"/a": "get", re.compile("/b"): ("Post",)})
    assert matcher("GET", "/a")
    assert not matcher("HEAD", "/a")
    assert matcher("POST", "/b")
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


# Rules that exempt
# =================

#: Paths that may lead elsewhere than they read, once somebody resolves them.
MISLEADING = [
    "/open/../secret",
    "/open/./secret",
    "/open/..",
    "/open/.",
    "/open/%2e%2e/secret",
    "/open/%2E./secret",
    "/open/.%2e",
    "/open/%2e/secret",
    "/open/..%2fsecret",
    "/open%2F..%2Fsecret",
    "/open/x%2f%2e%2E",
    "/open/..%5csecret",
    "/open/x%5C.%5Csecret",
    "/open/..\\secret",
    # decoded once more by whoever the path is handed to
    "/open/%252e%252e/secret",
    "/open/..%252Fsecret",
    "/open/%25252e%2525252e%25255cx",
    "/open/%0A",
    "/open/x%0D%0Ay",
    "/open/%00",
    "/open/x%7f",
    "/open/%C2%85",
    "/open/x%250a",
    "/open/x%25007",
]
#: Much like them, and ordinary.
ORDINARY = [
    "/open/",
    "/open/a.b",
    "/open/.b",
    "/open/..b",
    "/open/a..",
    "/open/...",
    "/open/.well-known/x.y",
    "/open/%2Eb",
    "/open/a%2Fb",
    "/open/a%5Cb",
    "/open/100%25",
    "/open/a%20b",
    "/open/%C3%A9",
    "/open/%C2%A0",
]


@pytest.mark.parametrize("target", MISLEADING)
def test_misleading_path_fits_no_rule_that_exempts(target: str) -> None:
    path = sent(target)
    rules: list[Url] = [re.compile("/open"), re.compile("(?i)/OPEN"), "/other"]
    for urls in (rules, rules[:1], dict.fromkeys(rules, "GET")):
        exempt = exemption(WHAT, urls)
        assert exempt is not None
        assert not exempt(asking(path))
        # What selects goes on to select.
        assert matching(urls)("GET", path)


@pytest.mark.parametrize("target", ORDINARY)
def test_ordinary_path_fits_rules_that_exempt(target: str) -> None:
    for urls in ([re.compile("/open")], {re.compile("/open"): "GET"}):
        exempt = exemption(WHAT, urls)
        assert exempt is not None
        assert exempt(asking(sent(target)))
        assert not exempt(asking("/secret"))


def test_line_feed_does_not_slip_through_the_end_of_a_pattern() -> None:
    rule = re.compile("/open$")
    assert rule.match(sent("/open%0A"))
    exempt = exemption(WHAT, [rule])
    assert exempt is not None
    assert not exempt(asking(sent("/open%0A")))
    assert exempt(asking(sent("/open")))


@pytest.mark.parametrize("target", MISLEADING)
def test_misleading_path_fits_no_limit_that_loosens(target: str) -> None:
    rules = {
        re.compile("/open/"): 20,
        re.compile("(?i)/open/"): 30,
        re.compile("/ope"): 5,
        re.compile("/"): 1,
    }
    path = asking(sent(target))
    assert UrlMap(WHAT, rules).first(path, 10) in (20, 5)
    limits = UrlMap(WHAT, rules, loosens=lambda value: value > 10)
    assert limits.first(path, 10) == 5
    assert limits.first(asking("/open/a"), 10) == 20


def test_path_of_its_own_accord_misleading_is_refused_where_it_exempts() -> (
    None
):
    for rule in ("/open/../x", "/a\n", "/..", URL("/a%00b")):
        assert url_matcher(WHAT, [rule]) is not None
        with pytest.raises(ValueError, match="which nothing is let off"):
            exemption(WHAT, [rule])


def test_no_rules_at_all_are_no_matcher() -> None:
    assert url_matcher(WHAT, None) is None
    assert exemption(WHAT, None) is None
    nothing = exemption(WHAT, [])
    assert nothing is not None
    assert not nothing(asking("/"))


@given(st.text("/\\.%25eEfF0a\n", max_size=12))
def test_quick_look_at_a_path_says_what_a_thorough_one_says(text: str) -> None:
    path = sent("/" + text)
    decoded = path
    while (once := unquote(decoded)) != decoded:
        decoded = once
    segments = re.split(r"[/\\]", decoded)
    misleads = bool({".", ".."} & set(segments)) or not decoded.isprintable()
    exempt = exemption(WHAT, [re.compile("/")])
    assert exempt is not None
    assert exempt(asking(path)) is not misleads


def forbids(request: web.Request) -> None:
    raise web.HTTPForbidden


# Each with rules for "/open/", as one option of it has them.
ROOMS: dict[str, Callable[[Any], Any]] = {
    "api_key ignore": lambda urls: m.api_key_middleware(
        {"a": "b"}, ignore=urls
    ),
    "basic_auth ignore": lambda urls: m.basic_auth_middleware(
        {"a": "b"}, ignore=urls
    ),
    "bearer_auth ignore": lambda urls: m.bearer_auth_middleware(
        lambda token: None, ignore=urls
    ),
    "body_limit ignore": lambda urls: m.body_limit_middleware(1, ignore=urls),
    "body_limit limits": lambda urls: m.body_limit_middleware(
        1, limits=dict.fromkeys(urls)
    ),
    "concurrency_limit ignore": lambda urls: m.concurrency_limit_middleware(
        1, key=forbids, ignore=urls
    ),
    "csrf ignore": lambda urls: m.csrf_middleware(ignore=urls),
    "early_data allow": lambda urls: m.early_data_middleware(allow=urls),
    "https_redirect ignore": lambda urls: m.https_redirect_middleware(
        ignore=urls
    ),
    "idempotency ignore": lambda urls: m.idempotency_middleware(
        required=True, methods=["GET", "POST"], ignore=urls
    ),
    "rate_limit ignore": lambda urls: m.rate_limit_middleware(
        "0/minute", ignore=urls
    ),
    "response_headers ignore": lambda urls: m.response_headers_middleware(
        {"X-Frame-Options": "DENY"}, ignore=urls
    ),
    "security_headers ignore": lambda urls: m.security_headers_middleware(
        ignore=urls
    ),
    "server_timing ignore": lambda urls: m.server_timing_middleware(
        ignore=urls
    ),
    "shield ignore": lambda urls: m.shield_middleware(
        methods=["POST"], ignore=urls
    ),
    # Which fails for all others here, as it has no sessions.
    "sign_in ignore": lambda urls: m.sign_in_middleware(
        m.github("the site", "its secret", users="*"), ignore=urls
    ),
    "timeout ignore": lambda urls: m.timeout_middleware(1e-6, ignore=urls),
    "timeout limits": lambda urls: m.timeout_middleware(
        1e-6, limits=dict.fromkeys(urls, 1000)
    ),
    "trusted_host ignore": lambda urls: m.trusted_host_middleware(
        ["a.example"], ignore=urls
    ),
}


def test_every_option_that_exempts_is_tried() -> None:
    options = {
        f"{name.removesuffix('_middleware')} {option}"
        for name in m.__all__
        if name.endswith("_middleware")
        for option in signature(getattr(m, name)).parameters
        if option in ("ignore", "allow", "limits")
    }
    # What is listed there must not be compressed, or need not have a tag: no
    # exemption. Those are no rules. And no answer shows what was traced,
    # measured or logged: see their tests.
    others = {
        "access_log ignore",
        "compression ignore",
        "etag ignore",
        "metrics ignore",
        "rate_limit limits",
        "tracing ignore",
    }
    assert options - others == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
async def test_misleading_path_is_let_off_nothing(
    aiohttp_server: AiohttpServer, room: str
) -> None:
    tasks: list[object] = []

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.005)  # longer than the shortest timer
        await request.read()
        shielded = asyncio.current_task() is not tasks[-1]
        return web.json_response("x" * 2000, status=202 if shielded else 200)

    @web.middleware
    async def outermost(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        tasks.append(asyncio.current_task())
        return await handler(request)

    app = web.Application(
        middlewares=[outermost, ROOMS[room]([re.compile("/open/")])]
    )
    app.router.add_post("/{path:.*}", answer)
    server = await aiohttp_server(app)

    async def untouched(target: str) -> bool:
        """Whether the answer is that of an application without the room."""
        found = head(
            await raw(
                server,
                f"POST {target} HTTP/1.1\r\nHost: evil.example\r\n"
                "Early-Data: 1\r\nSec-Fetch-Site: cross-site\r\n"
                "Accept-Encoding: gzip\r\nContent-Length: 2\r\n"
                "Connection: close\r\n\r\n{}".encode(),
            )
        )
        return (
            found.status == 200
            and "Content-Encoding" not in found.headers
            and "X-Frame-Options" not in found.headers
            and "Server-Timing" not in found.headers
        )

    kinds = [
        "/open/../secret",
        "/open/%2E%2e/secret",
        "/open/x%2f..",
        "/open/x%5c..%5cy",
        "/open/%0A",
        "/open/%252e/secret",
        "http://evil.example/open/../secret",
    ]
    assert await untouched("/open/secret")
    assert not await untouched("/secret")
    assert [target for target in kinds if await untouched(target)] == []


async def test_files_behind_a_login_are_not_reached_through_open_ones(
    aiohttp_server: AiohttpServer, tmp_path: Path
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "style.css").write_text("open")
    (tmp_path / "salaries.txt").write_text("secret")
    login = m.basic_auth_middleware(
        {"a": "b"}, ignore=[re.compile("/static/public/")]
    )
    app = web.Application(middlewares=[login])
    app.router.add_static("/static", tmp_path)
    server = await aiohttp_server(app)

    async def get(target: str) -> Head:
        sent = f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        return head(await raw(server, sent.encode()))

    answer = await get("/static/public/style.css")
    assert (answer.status, answer.rest) == (200, b"open")
    for target in (
        "/static/salaries.txt",
        "/static/public/../salaries.txt",
        "/static/public/%2e%2e/salaries.txt",
        "/static/public/.%2E/salaries.txt",
        "/static/public/..%2fsalaries.txt",
        "/static/public/x%2F..%2F../salaries.txt",
        "/static/public/./../salaries.txt",
        "http://a/static/public/../salaries.txt",
    ):
        answer = await get(target)
        assert answer.status == 401
        assert b"secret" not in answer.rest


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

FOREIGN = (
    "a path, without query and as it is sent, or a pattern: "
    r"re.compile(re.escape(path) + r'\Z') for one with such characters"
)
TEMPLATE = (
    "a pattern where '*' or '{}' stand for something, and "
    r"re.compile(re.escape(path) + r'\Z') where they do not"
)
RULE = "paths (str), patterns (re.Pattern) or URLs (yarl.URL)"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        # Upstream matched nothing, or the characters of a string.
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
        (["/x?y=1"], f"{FOREIGN}, got '/x?y=1'"),
        (["/items/:id"], f"{FOREIGN}, got '/items/:id'"),
        (["/items/<id>"], f"{FOREIGN}, got '/items/<id>'"),
        ([r"/items/\d+"], f"{FOREIGN}, got '/items/\\\\d+'"),
        (
            ["/items/{id}"],
            f"{TEMPLATE}, got '/items/{{id}}';"
            r" did you mean re.compile(r'/items/[^/]+\Z')?",
        ),
        (
            [r"/{page:\d{2}}/a.b"],
            f"{TEMPLATE}, got '/{{page:\\\\d{{2}}}}/a.b';"
            r" did you mean re.compile(r'/(?:\d{2})/a\.b\Z')?",
        ),
        (
            [URL("/items/{id}")],
            f"{TEMPLATE}, got URL('/items/%7Bid%7D');"
            r" did you mean re.compile(r'/items/[^/]+\Z')?",
        ),
        (
            {"/x/*": "GET"},
            f"{TEMPLATE}, got '/x/*'; did you mean re.compile('/x/')?",
        ),
        (
            ["/x/**/y"],
            f"{TEMPLATE}, got '/x/**/y';"
            r" did you mean re.compile(r'/x/[^/]+/y\Z')?",
        ),
        (
            ["/x.*"],
            f"{TEMPLATE}, got '/x.*'; did you mean re.compile('/x.*')?",
        ),
    ],
)
def test_rule_that_can_never_fit_is_refused(urls: Urls, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        matching(urls)
    assert str(refused.value) == f"{WHAT} should be {message}"


def test_status_as_a_string_is_refused_with_the_number() -> None:
    with pytest.raises(TypeError, match="got '404'; did you mean 404"):
        m.error_middleware(config={"404": m.default_error_handler})


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
        ([], "at least one HTTP method, got []"),
    ],
)
def test_method_that_is_none_is_refused(methods: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        matching({"/a": methods})
    assert str(refused.value) == f"{WHAT}['/a'] should be {message}"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (
            lambda: m.shield_middleware(methods=["GET", "PSOT"]),
            "shield_middleware methods",
        ),
        (
            lambda: m.shield_middleware(urls={"/a": "psot"}),
            "shield_middleware urls['/a']",
        ),
        (
            lambda: m.csrf_middleware(ignore={"/a": ["PSOT"]}),
            "csrf_middleware ignore['/a']",
        ),
        (
            lambda: m.cors_middleware(
                origins=["https://a.example"], allow_methods=["PSOT"]
            ),
            "cors_middleware allow_methods",
        ),
    ],
)
def test_unknown_method_gets_one_warning_with_the_nearest_known(
    caplog: pytest.LogCaptureFixture, make: Callable[[], Any], what: str
) -> None:
    make()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{what} has 'PSOT', which is no known HTTP method; "
        "did you mean 'POST'?"
    )


def test_unknown_method_that_is_like_none_gets_a_warning_without_a_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    matching({"/a": ["FROBNICATE", "PROPFIND", "purge", "GET"]})
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{WHAT}['/a'] has 'FROBNICATE', which is no known HTTP method"
    )


def test_rules_are_frozen_when_the_middleware_is_made() -> None:
    rules = (path for path in ("/a", "/b"))  # gone after the first reading
    matcher = matching(rules)  # type: ignore[arg-type]
    assert matcher("GET", "/a")
    assert matcher("GET", "/b")
    assert not matcher("GET", "/c")
