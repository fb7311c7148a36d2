"""CORS, as a browser and as an attacker see it."""

import asyncio
import gc
import logging
import re
import weakref
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

import answers
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, make_mocked_request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from pytest_aiohttp import AiohttpClient
from raw import head, raw
from yarl import URL

from aiohttp_middlewares import (
    cors_middleware,
    error_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.cors import (
    DEFAULT_ALLOW_HEADERS,
    DEFAULT_ALLOW_METHODS,
    DEFAULT_URLS,
    match_items,
)

ORIGIN = "https://app.example"
EVIL = "https://evil.example"

ALLOW_CREDENTIALS = "Access-Control-Allow-Credentials"
ALLOW_HEADERS = "Access-Control-Allow-Headers"
ALLOW_METHODS = "Access-Control-Allow-Methods"
ALLOW_ORIGIN = "Access-Control-Allow-Origin"
EXPOSE_HEADERS = "Access-Control-Expose-Headers"
MAX_AGE = "Access-Control-Max-Age"
REQUEST_HEADERS = "Access-Control-Request-Headers"
REQUEST_METHOD = "Access-Control-Request-Method"
PREFLIGHT_VARY = f"Origin, {REQUEST_METHOD}, {REQUEST_HEADERS}"

#: What aiohttp itself adds to an answer.
OF_THE_SERVER = {"Connection", "Content-Length", "Date", "Server"}

Client = TestClient[web.Request, web.Application]


def said(answer: ClientResponse) -> dict[str, str]:
    """All that an answer says of CORS; doubled lines show as such."""
    return said_in(CIMultiDict(answer.headers))


def said_in(headers: CIMultiDict[str]) -> dict[str, str]:
    return {
        name: " || ".join(headers.getall(name))
        for name in map(str, headers)
        if name.lower().startswith("access-control-") or name.lower() == "vary"
    }


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(text="hello", headers={"X-Total": "1"})


async def own_options(request: web.Request) -> web.StreamResponse:
    return web.Response(text="own", headers={"Allow": "GET, OPTIONS"})


def application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", hello)
    app.router.add_post("/", hello)
    app.router.add_get("/options", hello)
    app.router.add_options("/options", own_options)
    return app


def page(handler: Handler, *middlewares: Middleware) -> web.Application:
    """An application of one page."""
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", handler)
    return app


async def ask(
    client: Client,
    origin: str | None = ORIGIN,
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> ClientResponse:
    sent = {} if origin is None else {"Origin": origin}
    answer = await client.request(
        method, path, headers={**sent, **(headers or {})}, allow_redirects=False
    )
    await answer.read()
    return answer


async def preflight(
    client: Client,
    origin: str | None = ORIGIN,
    path: str = "/",
    asked: str = "PUT",
    headers: str | None = None,
) -> ClientResponse:
    more = {} if headers is None else {REQUEST_HEADERS: headers}
    return await ask(
        client, origin, path, "OPTIONS", {REQUEST_METHOD: asked, **more}
    )


# What it does
# ============


async def test_listed_origin_may_read_the_answer(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (200, "hello")
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}


@pytest.mark.parametrize("origin", [EVIL, None], ids=["refused", "none"])
@pytest.mark.parametrize("allow_credentials", [False, True])
async def test_refused_and_missing_origin_get_vary_and_no_more(
    aiohttp_client: AiohttpClient, origin: str | None, allow_credentials: bool
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN],
                expose_headers=["X-Total"],
                allow_credentials=allow_credentials,
            )
        )
    )
    answer = await ask(client, origin)
    assert (answer.status, await answer.text()) == (200, "hello")
    assert said(answer) == {"Vary": "Origin"}


async def test_no_options_admit_nobody(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(application(cors_middleware()))
    assert said(await ask(client)) == {"Vary": "Origin"}


async def test_policy_goes_with_an_allowed_origin(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN],
                allow_credentials=True,
                expose_headers=["X-Total", "X-Page"],
                max_age=600,  # of preflights only
            )
        )
    )
    assert said(await ask(client)) == {
        ALLOW_ORIGIN: ORIGIN,
        ALLOW_CREDENTIALS: "true",
        EXPOSE_HEADERS: "X-Total, X-Page",
        "Vary": "Origin",
    }


@pytest.mark.parametrize("origin", [EVIL, "null", "\u20ac", "x"])
async def test_allow_all_answers_every_origin_with_a_star(
    aiohttp_client: AiohttpClient, origin: str
) -> None:
    client = await aiohttp_client(application(cors_middleware(allow_all=True)))
    assert said(await ask(client, origin)) == {
        ALLOW_ORIGIN: "*",
        "Vary": "Origin",
    }
    assert said(await ask(client, None)) == {"Vary": "Origin"}


async def test_allow_all_with_credentials_reflects_but_never_null(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(allow_all=True, allow_credentials=True))
    )
    assert said(await ask(client, EVIL)) == {
        ALLOW_ORIGIN: EVIL,
        ALLOW_CREDENTIALS: "true",
        "Vary": "Origin",
    }
    for origin in ("null", "\u20ac://x", "x", "https://a b", ""):
        assert said(await ask(client, origin)) == {"Vary": "Origin"}
    assert said(await preflight(client, "null")) == {"Vary": PREFLIGHT_VARY}


def test_allow_all_with_credentials_warns_once_when_it_is_built(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares.cors"):
        cors_middleware(allow_all=True)
        cors_middleware(origins=[ORIGIN], allow_credentials=True)
        assert caplog.records == []
        cors_middleware(allow_all=True, allow_credentials=True)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "list the origins" in record.getMessage()


@pytest.mark.parametrize("origins", [[ORIGIN], lambda origin, request: False])
async def test_allow_all_wins_over_origins(
    aiohttp_client: AiohttpClient, origins: Any
) -> None:
    # As upstream has it: `allow_all=DEBUG` stands beside the real list.
    client = await aiohttp_client(
        application(cors_middleware(allow_all=True, origins=origins))
    )
    assert (await ask(client, EVIL)).headers[ALLOW_ORIGIN] == "*"


async def test_nothing_is_logged_for_a_request(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(origins=[ORIGIN]),
        )
    )
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares"):
        for origin in (ORIGIN, None):
            await ask(client, origin)
            await preflight(client, origin)
    assert [r for r in caplog.records if r.name.startswith("aiohttp_m")] == []


async def test_origin_that_is_not_admitted_is_told_when_debugging(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares"):
        await ask(client, EVIL)
        await ask(client, "https://" + "x" * 5000)
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 2
    first, second = map(vars, caplog.records)
    assert (first["origin"], first["origins"]) == (EVIL, ORIGIN)
    assert len(second["origin"]) < 250


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "lets no page of another origin read"),
        ({"origins": []}, "lets no page of another origin read"),
        ({"allow_all": True, "origins": [ORIGIN]}, "leave out one of them"),
        (
            {"allow_all": True, "origins": lambda origin, request: True},
            "leave out one of them",
        ),
    ],
)
def test_policy_that_can_hardly_be_meant_warns_when_it_is_built(
    options: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    cors_middleware(**options)
    (record,) = caplog.records
    assert (record.name, record.levelname) == (
        "aiohttp_middlewares.cors",
        "WARNING",
    )
    assert message in record.getMessage()


def test_policy_that_is_meant_is_built_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cors_middleware(origins=[ORIGIN])
    cors_middleware(allow_all=True)
    cors_middleware(origins=lambda origin, request: True)
    assert caplog.records == []


# Whose origins are admitted
# ==========================


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        ("https://app.example", "https://app.example"),
        # As browsers write them, whatever was written
        ("https://app.example/", "https://app.example"),
        ("HTTPS://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("https://app.example:0443", "https://app.example"),
        ("http://app.example:80/", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("https://b\xfccher.example", "https://xn--bcher-kva.example"),
        ("https://B\xdcCHER.example", "https://xn--bcher-kva.example"),
        ("https://fa\xdf.example", "https://xn--fa-hia.example"),
        ("https://\uff41pp.example", "https://app.example"),
        ("http://192.0.2.1:8080", "http://192.0.2.1:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[2001:DB8:0:0::1]", "http://[2001:db8::1]"),
        ("https://app_1.example", "https://app_1.example"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("app://x:443", "app://x:443"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("file://", "file://"),
        ("null", "null"),
        (URL("https://app.example/"), "https://app.example"),
        (URL("https://b\xfccher.example:443"), "https://xn--bcher-kva.example"),
        # patterns made of strings
        ("https://*.app.example", "https://a.app.example"),
        ("https://*.app.example", "https://a.b.app.example"),
        ("https://*.app.example", "https://xn--bcher-kva.app.example"),
        ("https://*.App.Example:443", "https://a_1.app.example"),
        ("https://*.b\xfccher.example", "https://a.xn--bcher-kva.example"),
        ("https://*.app.example:8443", "https://a.app.example:8443"),
        ("https://*.app.example:*", "https://a.app.example"),
        ("https://*.app.example:*", "https://a.app.example:8443"),
        ("http://localhost:*", "http://localhost"),
        ("http://localhost:*", "http://localhost:3000"),
        ("http://[::1]:*", "http://[::1]:3000"),
        ("app://*.x", "app://a.x"),
        # re.Pattern
        (
            re.compile(r"https://pr-\d+\.app\.example"),
            "https://pr-7.app.example",
        ),
        (re.compile(r"^https?\:\/\/localhost"), "http://localhost"),
        (re.compile(r"^https?\:\/\/localhost"), "http://localhost:3000"),
        (re.compile(r"^http\:\/\/localhost"), "http://localhost:8080"),
        (re.compile(r"http://\[::1\]"), "http://[::1]:3000"),
        (re.compile("https://APP.example", re.I), "https://app.example"),
        (re.compile(r"https://app\.example$"), "https://app.example"),
        (re.compile(r".*"), "moz-extension://5c1d"),
    ],
)
async def test_origin_that_fits_is_admitted(
    aiohttp_client: AiohttpClient, rule: Any, admitted: str
) -> None:
    client = await aiohttp_client(application(cors_middleware(origins=[rule])))
    answer = await ask(client, admitted)
    assert said(answer) == {ALLOW_ORIGIN: admitted, "Vary": "Origin"}
    answer = await preflight(client, admitted)
    assert answer.headers.getall(ALLOW_ORIGIN) == [admitted]


LIST: list[Any] = [
    "https://app.example",
    "https://*.wild.example",
    "https://*.port.example:8443",
    "http://local:*",
    re.compile(r"^https?\:\/\/localhost"),
    re.compile(r"https://[a-z]+\.example\.com"),
    re.compile(r"https://end\.example$"),
]


@pytest.mark.parametrize(
    "origin",
    [
        # Patterns count for the whole origin
        "http://localhost.evil.com",
        "http://localhost.evil.com:3000",
        "http://localhost:3000.evil.com",
        "http://localhost:evil",
        "http://localhost:",
        "http://localhost@evil.com",
        "https://a.example.com.evil.net",
        "https://a.example.com.evil.net:8443",
        "https://a.example.com:8443.evil.net",
        "evil://https://a.example.com",
        "https://a.b.example.com",
        "https://end.example.net",
        # exact ones
        "https://app.example.evil.com",
        "https://app.example:8443",
        "https://app.example:443",
        "https://app.example/",
        "https://app.example.",
        "https://APP.example",
        "http://app.example",
        "https://evil-app.example",
        "https://evil.com/https://app.example",
        "https://app.example, https://evil.com",
        "https://app.example https://evil.com",
        "https://\uff41pp.example",
        "app.example",
        "//app.example",
        # below
        "https://wild.example",
        "https://.wild.example",
        "https://a..wild.example",
        "https://*.wild.example",
        "https://a.wild.example:8443",
        "https://a.wild.example.evil.com",
        "https://awild.example",
        "https://evil.com/.wild.example",
        "https://evil.com?.wild.example",
        "https://evil.com#.wild.example",
        "https://evil.com:80.wild.example",
        "https://x@a.wild.example",
        "http://a.wild.example",
        "https://a.wildxexample",
        "https://a.port.example",
        "https://a.port.example:443",
        "https://a.port.example:84433",
        # every port
        "http://local:",
        "http://local:x",
        "http://local:80:80",
        "http://local.evil.com",
        "http://local:80.evil.com",
        "https://local",
        # what is no origin
        "null",
        "NULL",
        "*",
        "",
        "file://",
    ],
)
async def test_look_alike_is_refused(
    aiohttp_client: AiohttpClient, origin: str
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=LIST, allow_credentials=True))
    )
    assert said(await ask(client, origin)) == {"Vary": "Origin"}
    answer = await preflight(client, origin)
    assert answer.status == 405
    assert said(answer) == {"Vary": PREFLIGHT_VARY}


async def test_null_is_admitted_only_where_it_is_listed_by_name(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[re.compile(".*")]))
    )
    assert said(await ask(client, "null")) == {"Vary": "Origin"}
    client = await aiohttp_client(
        application(cors_middleware(origins=["null"]))
    )
    assert (await ask(client, "null")).headers[ALLOW_ORIGIN] == "null"


async def test_options_are_read_once(aiohttp_client: AiohttpClient) -> None:
    # A generator is empty the second time, and a list may change.
    changing = [ORIGIN]
    client = await aiohttp_client(
        application(
            cors_middleware(origins=changing, expose_headers=iter(["X-Total"]))  # type: ignore[arg-type]
        )
    )
    changing[:] = [EVIL]
    for _ in range(2):
        assert said(await ask(client)) == {
            ALLOW_ORIGIN: ORIGIN,
            EXPOSE_HEADERS: "X-Total",
            "Vary": "Origin",
        }
    assert said(await ask(client, EVIL)) == {"Vary": "Origin"}


@pytest.mark.parametrize("number", [1, 10_000])
async def test_many_exact_origins_are_one_look_up(
    aiohttp_client: AiohttpClient, number: int
) -> None:
    listed = [f"https://customer-{i}.example" for i in range(number)]
    client = await aiohttp_client(application(cors_middleware(origins=listed)))
    assert (await ask(client, listed[-1])).headers[ALLOW_ORIGIN] == listed[-1]
    assert said(await ask(client, "https://customer.example")) == {
        "Vary": "Origin"
    }


# Origins that a function decides about
# =====================================


def at_once(origin: str, request: web.Request) -> bool:
    return origin == request.query.get("partner")


async def in_a_while(origin: str, request: web.Request) -> bool:
    await asyncio.sleep(0)
    return at_once(origin, request)


def in_a_future(origin: str, request: web.Request) -> Awaitable[bool]:
    future: asyncio.Future[bool] = asyncio.Future()
    future.set_result(at_once(origin, request))
    return future


class Table:
    async def __call__(self, origin: str, request: web.Request) -> bool:
        return at_once(origin, request)


@pytest.mark.parametrize("check", [at_once, in_a_while, in_a_future, Table()])
async def test_function_decides_alone(
    aiohttp_client: AiohttpClient, check: Any
) -> None:
    client = await aiohttp_client(application(cors_middleware(origins=check)))
    for origin in (ORIGIN, "null", "app://x", "HTTPS://ODD.example/path"):
        path = str(URL("/").with_query(partner=origin))
        assert said(await ask(client, origin, path)) == {
            ALLOW_ORIGIN: origin,
            "Vary": "Origin",
        }
        assert (await preflight(client, origin, path)).status == 200
        assert said(await ask(client, EVIL, path)) == {"Vary": "Origin"}
        assert said(await preflight(client, EVIL, path)) == {
            "Vary": PREFLIGHT_VARY
        }


async def test_function_is_asked_about_nothing_that_cannot_be_said_back(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []

    def check(origin: str, request: web.Request) -> bool:
        seen.append(origin)
        return True

    client = await aiohttp_client(application(cors_middleware(origins=check)))
    for origin in ("", "*", "\u20ac", "https://a b", "https://\xe4.example"):
        assert said(await ask(client, origin)) == {"Vary": "Origin"}
    assert seen == []


class DatabaseAway(Exception):
    pass


def fails(origin: str, request: web.Request) -> bool:
    raise DatabaseAway


async def fails_later(origin: str, request: web.Request) -> bool:
    raise DatabaseAway


async def forgets_to_await(origin: str, request: web.Request) -> Any:
    return asyncio.Future()  # true, whatever it will say


def gives_a_match(origin: str, request: web.Request) -> Any:
    return re.match("https://app", origin)


@pytest.mark.parametrize(
    "check", [fails, fails_later, forgets_to_await, gives_a_match]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_function_that_fails_admits_nobody(
    aiohttp_client: AiohttpClient, check: Any, method: str
) -> None:
    client = await aiohttp_client(application(cors_middleware(origins=check)))
    answer = await ask(client, method=method, headers={REQUEST_METHOD: "PUT"})
    assert answer.status == 500
    assert said(answer) == {"Vary": "Origin"}


async def test_function_that_answers_nothing_refuses(
    aiohttp_client: AiohttpClient,
) -> None:
    check: Any = lambda origin, request: None  # noqa: E731
    client = await aiohttp_client(application(cors_middleware(origins=check)))
    answer = await ask(client)
    assert (answer.status, said(answer)) == (200, {"Vary": "Origin"})


async def test_function_may_answer_by_itself(
    aiohttp_client: AiohttpClient,
) -> None:
    def check(origin: str, request: web.Request) -> bool:
        raise web.HTTPTooManyRequests

    client = await aiohttp_client(application(cors_middleware(origins=check)))
    answer = await ask(client)
    assert (answer.status, said(answer)) == (429, {"Vary": "Origin"})


# Preflights
# ==========


def preflight_bytes(origin: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join(
        [
            b"OPTIONS / HTTP/1.1",
            b"Host: localhost",
            b"Connection: close",
            b"Origin: " + origin,
            *lines,
            b"",
            b"",
        ]
    )


async def test_allowed_preflight_is_answered_exactly_so(
    aiohttp_client: AiohttpClient,
) -> None:
    # The browser compares, the lists are the answer
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN], max_age=600))
    )
    answer = head(
        await raw(
            client.server,
            preflight_bytes(
                ORIGIN.encode(),
                b"Access-Control-Request-Method: PURGE",
                b"Access-Control-Request-Headers: x-evil",
            ),
        )
    )
    assert (answer.status, answer.rest) == (200, b"")
    for name in ("Date", "Server"):
        answer.headers.pop(name)
    assert sorted(answer.headers.items()) == [
        (ALLOW_HEADERS, ", ".join(DEFAULT_ALLOW_HEADERS)),
        (ALLOW_METHODS, ", ".join(DEFAULT_ALLOW_METHODS)),
        (ALLOW_ORIGIN, ORIGIN),
        (MAX_AGE, "600"),
        ("Connection", "close"),
        ("Content-Length", "0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Vary", PREFLIGHT_VARY),
    ]


async def test_preflight_says_what_the_policy_has(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN],
                allow_credentials=True,
                allow_headers=["X-Client-UID"],
                allow_methods=("GET", "patch"),
                max_age=0,
            )
        )
    )
    assert said(await preflight(client)) == {
        ALLOW_CREDENTIALS: "true",
        ALLOW_HEADERS: "X-Client-UID",
        # Fetch compares by case, and PATCH is what it sends
        ALLOW_METHODS: "GET, PATCH",
        ALLOW_ORIGIN: ORIGIN,
        MAX_AGE: "0",
        "Vary": PREFLIGHT_VARY,
    }


async def test_empty_lists_say_nothing(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN], allow_headers=(), allow_methods=[]
            )
        )
    )
    assert said(await preflight(client)) == {
        ALLOW_ORIGIN: ORIGIN,
        "Vary": PREFLIGHT_VARY,
    }


async def test_connection_lives_on_after_a_preflight(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN], max_age=600))
    )
    first = preflight_bytes(
        ORIGIN.encode(), b"Access-Control-Request-Method: PUT"
    ).replace(b"Connection: close\r\n", b"")
    second = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = head(await raw(client.server, first + second))
    assert answer.status == 200
    # nothing leaks from one to the next
    answer = head(answer.rest)
    assert (answer.status, answer.rest) == (200, b"hello")
    assert said_in(answer.headers) == {"Vary": "Origin"}


async def test_preflight_is_answered_on_every_path(
    aiohttp_client: AiohttpClient,
) -> None:
    # For pages that 404 too, and before an OPTIONS route of the handler's
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    for path in ("/", "/nope", "/options"):
        answer = await preflight(client, path=path)
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers[ALLOW_ORIGIN] == ORIGIN


async def test_preflight_comes_through_middlewares_that_handle_exceptions(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    # It is returned, so nobody outside takes it for an error.
    @web.middleware
    async def rendering(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as exc:
            return web.Response(status=599, text=exc.reason)

    client = await aiohttp_client(
        application(
            rendering, error_middleware(), cors_middleware(origins=[ORIGIN])
        )
    )
    answer = await preflight(client)
    assert (answer.status, await answer.text()) == (200, "")
    assert answer.headers[ALLOW_METHODS] == ", ".join(DEFAULT_ALLOW_METHODS)
    assert not caplog.records


@pytest.mark.parametrize("allow_all", [False, True])
async def test_star_is_literal_without_credentials(
    aiohttp_client: AiohttpClient, allow_all: bool
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                allow_all=allow_all,
                origins=[ORIGIN],
                allow_headers=["*", "Authorization"],
                allow_methods=["*"],
                expose_headers=["*"],
            )
        )
    )
    assert said(await preflight(client, headers="x-a, x-b")) == {
        ALLOW_HEADERS: "*, Authorization",
        ALLOW_METHODS: "*",
        ALLOW_ORIGIN: "*" if allow_all else ORIGIN,
        EXPOSE_HEADERS: "*",
        "Vary": PREFLIGHT_VARY,
    }


async def test_star_is_mirrored_with_credentials(
    aiohttp_client: AiohttpClient,
) -> None:
    # With credentials Fetch takes it for a header of that name.
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN],
                allow_credentials=True,
                allow_headers=["*", "Authorization"],
                allow_methods=["*"],
            )
        )
    )
    assert said(await preflight(client, asked="PURGE", headers="x-a, x-b")) == {
        ALLOW_CREDENTIALS: "true",
        ALLOW_HEADERS: "x-a, x-b",
        ALLOW_METHODS: "PURGE",
        ALLOW_ORIGIN: ORIGIN,
        "Vary": PREFLIGHT_VARY,
    }
    # Who asked for no header is told of none.
    assert said(await preflight(client)) == {
        ALLOW_CREDENTIALS: "true",
        ALLOW_METHODS: "PUT",
        ALLOW_ORIGIN: ORIGIN,
        "Vary": PREFLIGHT_VARY,
    }


@pytest.mark.parametrize(
    "sent",
    [
        # As gateways split it, or leave elements empty: it is one list.
        ["x-a", "x-b"],
        ["x-a,,x-b"],
        [",x-a , x-b,"],
        ["", "x-a", "\t,", "x-b"],
    ],
)
async def test_all_that_was_asked_for_is_mirrored(
    aiohttp_client: AiohttpClient, sent: list[str]
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN], allow_credentials=True, allow_headers=["*"]
            )
        )
    )
    asked = [f"{REQUEST_HEADERS}: {line}".encode() for line in sent]
    answer = head(
        await raw(
            client.server,
            preflight_bytes(
                ORIGIN.encode(), b"Access-Control-Request-Method: PUT", *asked
            ),
        )
    )
    assert answer.headers.getall(ALLOW_HEADERS) == ["x-a, x-b"]


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b",",
        b"x a",
        b"x-a, <script>",
        b"x-\xe4\xff",
        b'"x-a"',
        b"x-a;b",
        b"x-a\tb",
        b"x-a," * 60 + b"x y",
        b",".join([b" x-a"] * 60) + b" (",
    ],
)
async def test_only_names_are_mirrored(
    aiohttp_client: AiohttpClient, asked: bytes
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(
                origins=[ORIGIN],
                allow_credentials=True,
                allow_headers=["*"],
                allow_methods=["*"],
            )
        )
    )
    for line, unsaid in (
        (b"Access-Control-Request-Headers: " + asked, ALLOW_HEADERS),
        (b"Access-Control-Request-Method: " + asked, ALLOW_METHODS),
    ):
        sent = [line]
        if unsaid == ALLOW_HEADERS:
            sent.append(b"Access-Control-Request-Method: PUT")
        answer = head(
            await raw(client.server, preflight_bytes(ORIGIN.encode(), *sent))
        )
        assert answer.status == 200
        assert answer.headers[ALLOW_ORIGIN] == ORIGIN
        assert unsaid not in answer.headers


async def test_there_is_no_private_network_access(
    aiohttp_client: AiohttpClient,
) -> None:
    # There is none, as browsers gave it up.
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(
        client,
        method="OPTIONS",
        headers={
            REQUEST_METHOD: "PUT",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert answer.status == 200
    assert not [name for name in answer.headers if "Private" in name]


# URLs
# ====


@pytest.mark.parametrize(
    "urls",
    [["/api"], {"/api"}, (re.compile("^/api"),), [URL("/api")], DEFAULT_URLS],
)
async def test_urls_say_what_is_covered(
    aiohttp_client: AiohttpClient, urls: Any
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN], urls=urls))
    )
    answer = await ask(client, path="/api")
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}
    assert (await preflight(client, path="/api")).status == 200
    if urls == DEFAULT_URLS:
        return
    for origin in (ORIGIN, EVIL, None):
        answer = await ask(client, origin)
        assert (answer.status, said(answer)) == (200, {})
        answer = await preflight(client, origin)
        assert (answer.status, said(answer)) == (405, {})


async def test_urls_are_compared_as_the_router_does(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(origins=[ORIGIN], urls=["/a/b", "/caf\xe9"])
        )
    )
    for path, covered in (
        ("/a/b", True),
        ("/%61/b", True),
        ("/a%2Fb", False),
        ("/a/b/", False),
        ("/a/b?x", True),
        ("/caf%C3%A9", True),
    ):
        answer = await client.get(
            URL(path, encoded=True), headers={"Origin": ORIGIN}
        )
        assert (ALLOW_ORIGIN in answer.headers) is covered, path


async def test_preflight_counts_as_the_method_that_it_asks_for(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(origins=[ORIGIN], urls={"/": ["POST", "PUT"]})
        )
    )
    assert said(await ask(client)) == {}
    assert said(await ask(client, method="POST")) == {
        ALLOW_ORIGIN: ORIGIN,
        "Vary": "Origin",
    }
    assert (await preflight(client, asked="PUT")).status == 200
    answer = await preflight(client, asked="DELETE")
    assert (answer.status, said(answer)) == (405, {})
    # An OPTIONS that is no preflight counts as what it is.
    answer = await ask(client, method="OPTIONS")
    assert (answer.status, said(answer)) == (405, {})
    answer = await preflight(client, None)
    assert (answer.status, said(answer)) == (405, {})


async def test_urls_are_whole_paths_in_a_sub_application_too(
    aiohttp_client: AiohttpClient,
) -> None:
    api = application(cors_middleware(origins=[ORIGIN], urls=["/api/"]))
    app = application()
    app.add_subapp("/api", api)
    client = await aiohttp_client(app)
    assert said(await ask(client, path="/api/")) == {
        ALLOW_ORIGIN: ORIGIN,
        "Vary": "Origin",
    }
    assert (await preflight(client, path="/api/")).status == 200
    assert said(await ask(client)) == {}


# What it leaves alone
# ====================


async def test_options_without_origin_is_no_preflight(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN], allow_credentials=True))
    )
    answer = await preflight(client, None, "/options")
    assert (answer.status, await answer.text()) == (200, "own")
    assert said(answer) == {"Vary": "Origin"}
    answer = await preflight(client, None, "/nope")
    assert (answer.status, said(answer)) == (404, {"Vary": "Origin"})


async def test_plain_options_gets_no_preflight_headers(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN], max_age=600))
    )
    answer = await ask(client, path="/options", method="OPTIONS")
    assert (answer.status, await answer.text()) == (200, "own")
    assert answer.headers["Allow"] == "GET, OPTIONS"
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}


async def test_request_method_on_other_methods_is_no_preflight(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client, headers={REQUEST_METHOD: "PUT"})
    assert await answer.text() == "hello"
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/options", 200, "own"),
        ("/", 405, "405: Method Not Allowed"),
        ("/nope", 404, "404: Not Found"),
    ],
)
async def test_refused_preflight_goes_on_to_the_application(
    aiohttp_client: AiohttpClient, path: str, status: int, body: str
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(origins=[ORIGIN], allow_credentials=True, max_age=1)
        )
    )
    answer = await preflight(client, EVIL, path)
    assert (answer.status, await answer.text()) == (status, body)
    assert said(answer) == {"Vary": PREFLIGHT_VARY}


def nested(outer: Middleware, inner: Middleware) -> web.Application:
    app = application(outer)
    app.add_subapp("/sub", application(inner))
    return app


async def test_inner_policy_answers_for_whom_the_outer_one_refuses(
    aiohttp_client: AiohttpClient,
) -> None:
    inside = "https://inside.example"
    client = await aiohttp_client(
        nested(
            cors_middleware(origins=[ORIGIN]),
            cors_middleware(
                origins=[inside],
                allow_credentials=True,
                allow_headers=["x-a"],
                allow_methods=["GET"],
            ),
        )
    )
    assert said(await ask(client, inside, "/sub/")) == {
        ALLOW_ORIGIN: inside,
        ALLOW_CREDENTIALS: "true",
        "Vary": "Origin",
    }
    answer = await preflight(client, inside, "/sub/")
    assert (answer.status, await answer.read()) == (200, b"")
    assert said(answer) == {
        ALLOW_CREDENTIALS: "true",
        ALLOW_HEADERS: "x-a",
        ALLOW_METHODS: "GET",
        ALLOW_ORIGIN: inside,
        "Vary": PREFLIGHT_VARY,
    }
    # outside of the sub-application it is a stranger
    assert said(await ask(client, inside)) == {"Vary": "Origin"}
    # neither knows this one
    assert said(await ask(client, EVIL, "/sub/")) == {"Vary": "Origin"}
    answer = await preflight(client, EVIL, "/sub/")
    assert (answer.status, said(answer)) == (405, {"Vary": PREFLIGHT_VARY})


async def test_outer_policy_decides_for_whom_it_admits(
    aiohttp_client: AiohttpClient,
) -> None:
    # The preflight and the request after it get the same answer.
    client = await aiohttp_client(
        nested(
            cors_middleware(allow_all=True, expose_headers=["X-Outer"]),
            cors_middleware(
                origins=[ORIGIN],
                allow_credentials=True,
                expose_headers=["X-Inner"],
            ),
        )
    )
    assert said(await ask(client, path="/sub/")) == {
        ALLOW_ORIGIN: "*",
        EXPOSE_HEADERS: "X-Inner, X-Outer",
        "Vary": "Origin",
    }
    answer = await preflight(client, path="/sub/")
    assert (answer.headers[ALLOW_ORIGIN], answer.status) == ("*", 200)
    assert ALLOW_CREDENTIALS not in answer.headers


# Headers of the handler's own
# ============================


async def opinionated(request: web.Request) -> web.StreamResponse:
    response = web.Response(
        headers=[
            (ALLOW_ORIGIN, "https://special.example"),
            (ALLOW_CREDENTIALS, "true"),
            (EXPOSE_HEADERS, "X-Own, x-glob"),
            (EXPOSE_HEADERS, "X-Two"),
            ("Vary", "Accept-Encoding"),
            ("Vary", "origin"),
        ]
    )
    if request.query_string == "raised":
        raise web.HTTPForbidden(headers=response.headers)
    if request.query_string == "streamed":
        stream = web.StreamResponse(headers=response.headers)
        await stream.prepare(request)
        return stream
    return response


@pytest.mark.parametrize("path", ["/", "/?raised", "/?streamed"])
async def test_own_headers_are_merged_or_replaced_and_never_doubled(
    aiohttp_client: AiohttpClient, path: str
) -> None:
    client = await aiohttp_client(
        page(
            opinionated,
            cors_middleware(origins=[ORIGIN], expose_headers=["X-Glob", "X-C"]),
        )
    )
    assert said(await ask(client, path=path)) == {
        ALLOW_ORIGIN: ORIGIN,
        EXPOSE_HEADERS: "X-Own, x-glob, X-Two, X-C",
        "Vary": "Accept-Encoding || origin",
    }


@pytest.mark.parametrize("path", ["/", "/?raised", "/?streamed"])
@pytest.mark.parametrize("origin", [EVIL, None])
async def test_own_headers_are_left_alone_for_others(
    aiohttp_client: AiohttpClient, path: str, origin: str | None
) -> None:
    client = await aiohttp_client(
        page(
            opinionated,
            cors_middleware(origins=[ORIGIN], expose_headers=["X-Glob"]),
        )
    )
    assert said(await ask(client, origin, path)) == {
        ALLOW_ORIGIN: "https://special.example",
        ALLOW_CREDENTIALS: "true",
        EXPOSE_HEADERS: "X-Own, x-glob || X-Two",
        "Vary": "Accept-Encoding || origin",
    }


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ("Accept-Encoding", "Accept-Encoding, Origin"),
        ("accept,ORIGIN", "accept,ORIGIN"),
        ("X-Origin", "X-Origin, Origin"),
        ("*", "*"),
        ("Accept, *", "Accept, *"),
        ("", "Origin"),
    ],
)
async def test_vary_is_merged(
    aiohttp_client: AiohttpClient, own: str, sent: str
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Vary": own})

    client = await aiohttp_client(
        page(handler, cors_middleware(origins=[ORIGIN]))
    )
    for origin in (ORIGIN, EVIL, None):
        assert said(await ask(client, origin))["Vary"] == sent


# Hostile input
# =============


@pytest.mark.parametrize(
    "origin",
    [
        b"https://app.example\x00",
        b"https://app.example\x0b",
        b"https://app.example\x7f",
        b"https://app.example\xa0",
        b"https://app.example\t.evil",
        b"\xff\xfe",
        "https://\uff41pp.example".encode(),
        b"https://app.example.wild.example\xff",
        b"https://" + b"a." * 3800 + b"wild.example.evil",
        b"http://localhost:" + b"1" * 7000 + b".evil",
        b"\xc3\x28://x",
    ],
)
@pytest.mark.parametrize("credentials", [False, True])
async def test_hostile_origin_is_refused_and_harms_nothing(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    origin: bytes,
    credentials: bool,
) -> None:
    client = await aiohttp_client(
        application(
            cors_middleware(origins=LIST, allow_credentials=credentials)
        )
    )
    for request in (
        preflight_bytes(origin, b"Access-Control-Request-Method: PUT"),
        preflight_bytes(origin).replace(b"OPTIONS", b"GET"),
    ):
        answer = head(await raw(client.server, request))
        # 400: the parser would have none of it.
        assert answer.status in (200, 400, 405)
        assert ALLOW_ORIGIN not in answer.headers
        assert ALLOW_CREDENTIALS not in answer.headers
        if answer.status != 400:
            assert answer.headers["Vary"].startswith("Origin")
    assert not [r for r in caplog.records if "middlewares" in r.name]


async def test_origins_of_strangers_do_not_pile_up() -> None:
    class Origin(str):
        """One that can be counted."""

    middleware = cors_middleware(origins=["https://*.wild.example"])
    seen: weakref.WeakSet[Origin] = weakref.WeakSet()
    for number in range(2000):
        kind = "wild" if number % 2 else "other"
        origin = Origin(f"https://{number}.{kind}.example")
        seen.add(origin)
        request = make_mocked_request(
            "GET", "/", headers=CIMultiDict(Origin=origin)
        )
        response = await middleware(request, hello)
        allowed = response.headers.get(ALLOW_ORIGIN)
        assert allowed == (origin if number % 2 else None)
    del origin, request, response, allowed
    gc.collect()
    assert len(seen) <= 256


async def test_header_lines_cannot_be_smuggled(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        page(hello, cors_middleware(origins=lambda origin, request: True))
    )
    for origin in (
        b"https://a\rX-Evil: 1",
        b"https://a\nX-Evil: 1",
        b"https://a\r\n X-Evil: 1",  # what once was a folded line
        b"https://a%0d%0aX-Evil: 1",
    ):
        request = preflight_bytes(origin).replace(b"OPTIONS", b"GET")
        answer = head(await raw(client.server, request))
        assert answer.status in (200, 400)
        assert "X-Evil" not in answer.headers


async def test_of_several_origins_no_other_is_said_back(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    request = preflight_bytes(EVIL.encode(), b"Origin: " + ORIGIN.encode())
    answer = head(await raw(client.server, request.replace(b"OPTIONS", b"GET")))
    assert said_in(answer.headers) == {"Vary": "Origin"}


def reads_as_below_example(origin: str) -> bool:
    """``https://*.wild.example`` by the standard library, in other words."""
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return (
        f"https://{host}" == origin
        and port is None
        and re.fullmatch(r"[a-z0-9_.-]+", host) is not None
        and host.endswith(".wild.example")
        and all(host.split("."))
    )


PIECES = st.sampled_from(
    ["https://", "http://", "wild.example", "evil.com", "wild", "443", "%2e"]
) | st.sampled_from("a.:/@*-_A#?\\[],\t \xe4")
FIELDS = st.sampled_from(
    f"Origin ORIGIN Vary Cookie {REQUEST_HEADERS} {REQUEST_METHOD}".split()
)
VALUES = st.binary(max_size=20) | st.sampled_from([ORIGIN.encode(), b"PUT"])


@pytest.fixture
async def guarded(aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(
        application(
            cors_middleware(
                origins=["https://*.wild.example", "https://app.example"],
                allow_credentials=True,
                allow_headers=["*"],
            )
        )
    )


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(origin=st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=30))
@example(origin="https://app.example")
@example(origin="https://a.wild.example")
@example(origin="https://a.b.wild.example")
@example(origin="https://a.wild.example.")
async def test_origin_is_admitted_if_and_only_if_it_fits(
    guarded: Client, origin: str
) -> None:
    sent = origin.translate({10: None, 13: None}).strip(" \t")
    admitted = reads_as_below_example(sent) or sent == "https://app.example"
    for request in (
        preflight_bytes(sent.encode(), b"Access-Control-Request-Method: PUT"),
        preflight_bytes(sent.encode()).replace(b"OPTIONS", b"GET"),
    ):
        answer = head(await raw(guarded.server, request))
        assert answer.status in ((200,) if admitted else (200, 400, 405))
        said_back = answer.headers.getall(ALLOW_ORIGIN, [])
        assert said_back == ([sent] if admitted else [])
        assert (ALLOW_CREDENTIALS in answer.headers) is admitted


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    method=st.sampled_from([b"GET", b"OPTIONS", b"HEAD", b"DELETE", b"PURGE"]),
    lines=st.lists(st.tuples(FIELDS, VALUES), max_size=6),
)
async def test_no_header_lines_make_it_fail(
    guarded: Client,
    caplog: pytest.LogCaptureFixture,
    method: bytes,
    lines: list[tuple[str, bytes]],
) -> None:
    caplog.clear()
    sent = b"".join(
        name.encode() + b": " + value.translate(None, b"\r\n") + b"\r\n"
        for name, value in lines
    )
    received = await raw(
        guarded.server,
        method
        + b" / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n%b\r\n" % sent,
    )
    answer = head(received)
    assert answer.status in (200, 400, 405)
    assert answer.headers.getall(ALLOW_ORIGIN, [ORIGIN]) == [ORIGIN]
    assert not [r for r in caplog.records if "middlewares" in r.name]


# Every kind of response
# ======================


@web.middleware
async def cloning(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())


@web.middleware
async def wrapping(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    """Reads what passes, as middlewares for compression and the like do."""
    response = await handler(request)
    if type(response) is web.Response:
        return web.Response(
            body=response.body, status=response.status, headers=response.headers
        )
    return response


def surrounded(neighbours: str, *middlewares: Middleware) -> list[Middleware]:
    return {
        "alone": [*middlewares],
        "behind a clone": [cloning, *middlewares],
        "before a clone": [*middlewares, cloning, wrapping],
    }[neighbours]


NEIGHBOURS = ["alone", "behind a clone", "before a clone"]


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_answer_bears_the_headers_once(
    aiohttp_client: AiohttpClient,
    kind: answers.Kind,
    method: str,
    neighbours: str,
) -> None:
    cors = cors_middleware(
        origins=[ORIGIN], allow_credentials=True, expose_headers=["X-Total"]
    )
    client = await aiohttp_client(
        answers.application(*surrounded(neighbours, cors))
    )
    for origin in (ORIGIN, EVIL, None):
        lines = "".join(
            f"{name}: {value}\r\n"
            for name, value in {"Connection": "close", **kind.fields}.items()
        )
        if origin:
            lines += f"Origin: {origin}\r\n"
        sent = (
            f"{method} {kind.path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        )
        answer = head(await raw(client.server, sent.encode()))
        assert answer.status == kind.status
        if origin != ORIGIN:
            assert said_in(answer.headers) == {"Vary": "Origin"}
            continue
        assert said_in(answer.headers) == {
            ALLOW_CREDENTIALS: "true",
            ALLOW_ORIGIN: ORIGIN,
            EXPOSE_HEADERS: "X-Total",
            "Vary": "Origin",
        }


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
async def test_answer_of_a_timeout_inside_bears_the_headers(
    aiohttp_client: AiohttpClient, neighbours: str
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError("never comes here")

    cors = surrounded(neighbours, cors_middleware(origins=[ORIGIN]))
    client = await aiohttp_client(page(slow, *cors, timeout_middleware(0.005)))
    answer = await ask(client)
    assert answer.status == 504
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}
    assert said(await ask(client, EVIL)) == {"Vary": "Origin"}


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("in_sub_application", [False, True])
async def test_answers_of_the_router_bear_the_headers(
    aiohttp_client: AiohttpClient, neighbours: str, in_sub_application: bool
) -> None:
    cors = cors_middleware(origins=[ORIGIN])
    app = application(*surrounded(neighbours, cors))
    prefix = ""
    if in_sub_application:
        root, prefix = application(), "/sub"
        root.add_subapp(prefix, app)
        app = root
    client = await aiohttp_client(app)
    for path, method, status in (
        (f"{prefix}/nope", "GET", 404),
        (f"{prefix}/", "DELETE", 405),
    ):
        answer = await ask(client, path=path, method=method)
        assert answer.status == status
        assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}
        assert said(await ask(client, EVIL, path, method)) == {"Vary": "Origin"}
    if in_sub_application:
        assert said(await ask(client)) == {}


async def test_expectations_that_fail_are_answered_before_any_middleware(
    aiohttp_client: AiohttpClient,
) -> None:
    # 417 and parse errors bear no headers: no middleware sees them.
    client = await aiohttp_client(
        application(cors_middleware(origins=[ORIGIN]))
    )
    request = preflight_bytes(ORIGIN.encode(), b"Expect: bogus")
    answer = head(await raw(client.server, request.replace(b"OPTIONS", b"GET")))
    assert (answer.status, said_in(answer.headers)) == (417, {})


@pytest.mark.parametrize("origin", [ORIGIN, EVIL, None])
async def test_raised_answer_stays_what_it_is(
    aiohttp_client: AiohttpClient, origin: str | None
) -> None:
    raised = []
    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as exc:
            raised.append(exc)
            seen.append(said_in(exc.headers))
            raise

    login = web.HTTPFound("/home", headers={"X-Own": "1"}, reason="Welcome")
    login.set_cookie("session", "secret", httponly=True)
    login.del_cookie("guest")
    login.force_close()

    async def handler(request: web.Request) -> web.StreamResponse:
        raise login

    client = await aiohttp_client(
        page(handler, seeing, cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client, origin)
    assert raised == [login]
    assert seen == [{}]  # it may be one object for many requests
    assert said(answer)["Vary"] == "Origin"
    assert (answer.status, answer.reason) == (302, "Welcome")
    assert answer.headers["Location"] == "/home"
    assert answer.headers["X-Own"] == "1"
    assert answer.headers["Connection"] == "close"
    assert answer.cookies["session"].value == "secret"
    assert answer.cookies["session"]["httponly"] is True
    assert answer.cookies["guest"]["max-age"] == "0"


async def test_raised_answer_keeps_its_binary_body(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        exc = web.HTTPBadRequest()
        exc.body = b"\x89PNG\xff\x00"
        exc.headers["Content-Type"] = "image/png"
        raise exc

    client = await aiohttp_client(
        page(handler, cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client)
    assert (answer.status, answer.content_type) == (400, "image/png")
    assert await answer.read() == b"\x89PNG\xff\x00"
    assert answer.headers[ALLOW_ORIGIN] == ORIGIN


async def test_raised_answer_keeps_its_compression(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        exc = web.HTTPBadRequest(text="x" * 2000)
        exc.enable_compression()
        raise exc

    client = await aiohttp_client(
        page(handler, cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert await answer.text() == "x" * 2000
    assert said(answer)[ALLOW_ORIGIN] == ORIGIN


async def test_error_middleware_inside_answers_pages_of_other_origins(
    aiohttp_client: AiohttpClient,
) -> None:
    async def boom(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("boom")

    client = await aiohttp_client(
        page(boom, cors_middleware(origins=[ORIGIN]), error_middleware())
    )
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (500, {"detail": "boom"})
    assert said(answer) == {ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}


async def test_middlewares_outside_see_the_headers(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append(said_in(response.headers))
        return response

    client = await aiohttp_client(
        application(seeing, cors_middleware(origins=[ORIGIN]))
    )
    answer = await ask(client)
    assert seen == [said(answer)] == [{ALLOW_ORIGIN: ORIGIN, "Vary": "Origin"}]


async def test_concurrent_requests_do_not_mix(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(cors_middleware(origins=["https://*.wild.example", ORIGIN]))
    )
    origins = [ORIGIN, *(f"https://a{i}.wild.example" for i in range(20))]
    received = await asyncio.gather(
        *(ask(client, origin) for origin in origins),
        *(preflight(client, origin) for origin in origins),
    )
    assert [answer.headers[ALLOW_ORIGIN] for answer in received] == origins * 2


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"allow_all": 1}, TypeError, ["allow_all", "True or False", "1"]),
        ({"allow_all": None}, TypeError, ["allow_all", "None"]),
        ({"allow_credentials": "yes"}, TypeError, ["allow_credentials", "yes"]),
        (
            {"origins": "https://app.example"},
            TypeError,
            ["origins", "did you mean ['https://app.example']?"],
        ),
        ({"origins": URL("https://a.example")}, TypeError, ["a collection"]),
        ({"origins": re.compile("x")}, TypeError, ["a collection"]),
        ({"origins": b"https://a.example"}, TypeError, ["a collection"]),
        ({"origins": {"https://a.example": 1}}, TypeError, ["a collection"]),
        ({"origins": 42}, TypeError, ["a collection", "42"]),
        ({"origins": False}, TypeError, ["a collection", "False"]),
        ({"origins": [None]}, TypeError, ["strings, patterns", "None"]),
        ({"origins": [b"https://a.example"]}, TypeError, ["b'https://a.ex"]),
        ({"origins": [["https://a.example"]]}, TypeError, ["['https://a.ex"]),
        ({"origins": [re.compile(b"x")]}, TypeError, ["patterns for str"]),
        ({"origins": ["*"]}, ValueError, ["did you mean allow_all=True?"]),
        (
            {"origins": ["app.example"]},
            ValueError,
            ["origins", "such as", "did you mean 'https://app.example'?"],
        ),
        (
            {"origins": ["*.app.example"]},
            ValueError,
            ["did you mean 'https://*.app.example'?"],
        ),
        (
            {"origins": ["localhost:3000"]},
            ValueError,
            ["did you mean 'https://localhost:3000'?"],
        ),
        (
            {"origins": ["https://app.example/path"]},
            ValueError,
            ["/path'; did you mean 'https://app.example'?"],
        ),
        (
            {"origins": ["https://app.example?x=1"]},
            ValueError,
            ["did you mean 'https://app.example'?"],
        ),
        (
            {"origins": [URL("https://app.example/path")]},
            ValueError,
            ["did you mean 'https://app.example'?"],
        ),
        ({"origins": [URL("/path")]}, ValueError, ["got '/path'"]),
        ({"origins": [""]}, ValueError, ["got ''"]),
        ({"origins": ["//app.example"]}, ValueError, ["got '//app"]),
        ({"origins": ["https://user@app.example"]}, ValueError, ["got"]),
        ({"origins": ["https://app.example:"]}, ValueError, ["got"]),
        ({"origins": ["https://app.example:x"]}, ValueError, ["got"]),
        ({"origins": ["https://app.example:65536"]}, ValueError, ["got"]),
        ({"origins": ["https://app.example:" + "9" * 9]}, ValueError, ["got"]),
        ({"origins": ["https://a.example, https://b.example"]}, ValueError, []),
        ({"origins": ["https://a.example,https://b.example"]}, ValueError, []),
        ({"origins": ["https://a b.example"]}, ValueError, ["got"]),
        ({"origins": ["https://a.example\n"]}, ValueError, ["got"]),
        ({"origins": ["https://[::1"]}, ValueError, ["got"]),
        ({"origins": ["https://[:::]"]}, ValueError, ["got"]),
        ({"origins": ["https://*.[::1]"]}, ValueError, ["got"]),
        ({"origins": ["https://*"]}, ValueError, ["https://*.example.com"]),
        ({"origins": ["https://*."]}, ValueError, ["got"]),
        ({"origins": ["https://*:*"]}, ValueError, ["got"]),
        ({"origins": ["https://a.*.example"]}, ValueError, ["got"]),
        ({"origins": ["https://a*.example"]}, ValueError, ["got"]),
        ({"origins": ["*://app.example"]}, ValueError, ["got"]),
        ({"origins": ["https://a\u2100b.example"]}, ValueError, ["got"]),
        ({"origins": ["https://\ud800.example"]}, ValueError, ["got"]),
        ({"origins": ["NULL"]}, ValueError, ["got 'NULL'"]),
        ({"urls": "/api"}, TypeError, ["urls", "did you mean ['/api']?"]),
        ({"urls": 42}, TypeError, ["urls", "42"]),
        ({"urls": [None]}, TypeError, ["urls", "None"]),
        ({"urls": [re.compile(b"/")]}, TypeError, ["urls"]),
        ({"urls": ["api"]}, ValueError, ["did you mean '/api'?"]),
        ({"urls": [r"^/api"]}, ValueError, ["re.compile('^/api')"]),
        ({"urls": {"/api": 1}}, TypeError, ["urls['/api']", "HTTP methods"]),
        ({"urls": {"/api": "*"}}, ValueError, ["urls['/api']"]),
        (
            {"expose_headers": "X-Total"},
            TypeError,
            ["expose_headers", "header names", "did you mean ['X-Total']?"],
        ),
        ({"expose_headers": ""}, TypeError, ["expose_headers"]),
        ({"expose_headers": 0}, TypeError, ["expose_headers"]),
        ({"expose_headers": False}, TypeError, ["expose_headers"]),
        ({"expose_headers": [1]}, TypeError, ["expose_headers", "1"]),
        (
            {"expose_headers": ["X-A, X-B"]},
            ValueError,
            ["did you mean ['X-A', 'X-B']?"],
        ),
        (
            {"expose_headers": ["*"], "allow_credentials": True},
            ValueError,
            ["expose_headers", "allow_credentials", "list the names"],
        ),
        (
            {"allow_headers": "X-A"},
            TypeError,
            ["allow_headers", "did you mean ['X-A']?"],
        ),
        ({"allow_headers": None}, TypeError, ["allow_headers", "None"]),
        ({"allow_headers": [b"X-A"]}, TypeError, ["allow_headers"]),
        ({"allow_headers": ["X A"]}, ValueError, ["allow_headers", "'X A'"]),
        ({"allow_headers": [""]}, ValueError, ["allow_headers", "''"]),
        ({"allow_headers": ["x\r\nSet-Cookie:a"]}, ValueError, ["headers"]),
        ({"allow_headers": ["x\u212a"]}, ValueError, ["allow_headers"]),
        (
            {"allow_methods": "GET"},
            TypeError,
            ["allow_methods", "HTTP methods", "did you mean ['GET']?"],
        ),
        ({"allow_methods": None}, TypeError, ["allow_methods", "None"]),
        ({"allow_methods": 5}, TypeError, ["allow_methods", "5"]),
        (
            {"allow_methods": ["GET,POST"]},
            ValueError,
            ["did you mean ['GET', 'POST']?"],
        ),
        ({"max_age": True}, TypeError, ["max_age", "whole number", "True"]),
        ({"max_age": 1.5}, TypeError, ["max_age", "whole number", "1.5"]),
        ({"max_age": "600"}, TypeError, ["max_age", "'600'"]),
        ({"max_age": -5}, ValueError, ["max_age", "0 or more", "-5"]),
        ({"max_age": float("nan")}, TypeError, ["max_age", "nan"]),
    ],
)
def test_wrong_option_is_refused_in_one_sentence(
    wrong: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        cors_middleware(**wrong)
    said_of_it = str(caught.value)
    assert type(caught.value) is error
    assert said_of_it.startswith("cors_middleware ")
    assert "\n" not in said_of_it
    assert [word for word in words if word not in said_of_it] == []


def test_options_have_to_be_named() -> None:
    with pytest.raises(TypeError):
        cors_middleware(True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        cors_middleware(origin=[ORIGIN])  # type: ignore[call-arg]


# The helper that upstream had
# ============================


@pytest.mark.parametrize(
    ("items", "value", "fits"),
    [
        (["/a", re.compile("^/b")], "/a", True),
        (["/a", re.compile("^/b")], "/bc", True),
        (["/a", re.compile("^/b")], "/c", False),
        ([URL("/a")], "/a", True),
        ([], "/a", False),
        ([42, None], "/a", False),
    ],
)
def test_match_items_is_as_lenient_as_it_was(
    items: Any, value: str, fits: bool
) -> None:
    assert match_items(items, value) is fits
