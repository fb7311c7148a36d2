"""Headers of one's own, on every kind of answer."""

import gc
import logging
import weakref
from collections.abc import Mapping
from typing import Any

import answers
import pytest
from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict, MultiDict
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    https_middleware,
    response_headers_middleware,
    security_headers_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

NAME = "X-Robots-Tag"
LOGGER = "aiohttp_middlewares._core.decoration"


def mark(request: web.Request, status: int, headers: CIMultiDict[str]) -> None:
    headers.add(NAME, f"{request.path} {status}")


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def app_of(
    *middlewares: Middleware, handler: Handler = hello
) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", handler)
    app.router.add_route("*", "/other", handler)
    return app


def sets(headers: Mapping[str, str]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(headers=headers)

    return handler


# What it does
# ============


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
@pytest.mark.parametrize("cloned", [False, True])
async def test_every_kind_of_answer_has_them_once(
    aiohttp_client: AiohttpClient,
    kind: answers.Kind,
    method: str,
    cloned: bool,
) -> None:
    around = [https_middleware()] if cloned else []
    subject = [
        response_headers_middleware({"X-Fixed": "yes"}),
        response_headers_middleware(mark),
    ]
    client = await aiohttp_client(
        answers.application(*around, *subject, *around)
    )
    response = await client.request(
        method,
        kind.path,
        headers={"X-Forwarded-Proto": "https", **kind.fields},
        allow_redirects=False,
    )
    assert response.status == kind.status
    assert response.headers.getall("X-Fixed") == ["yes"]
    assert response.headers.getall(NAME) == [f"{kind.path} {kind.status}"]
    response.close()


async def test_handler_wins_over_a_mapping(
    aiohttp_client: AiohttpClient,
) -> None:
    subject = response_headers_middleware(
        {"Cache-Control": "no-store", NAME: "noindex"}
    )
    own = sets({"cache-control": "max-age=60"})
    client = await aiohttp_client(app_of(subject, handler=own))
    response = await client.get("/")
    assert response.headers.getall("Cache-Control") == ["max-age=60"]
    assert response.headers.getall(NAME) == ["noindex"]


async def test_vary_is_merged_and_cookies_are_added(
    aiohttp_client: AiohttpClient,
) -> None:
    async def own(request: web.Request) -> web.Response:
        response = web.Response(headers={"Vary": "Accept"})
        response.set_cookie("own", "1")
        return response

    subject = response_headers_middleware(
        {"Vary": "Origin, accept", "Set-Cookie": "seen=yes; Path=/"}
    )
    client = await aiohttp_client(app_of(subject, handler=own))
    response = await client.get("/")
    assert response.headers.getall("Vary") == ["Accept, Origin"]
    assert response.headers.getall("Set-Cookie") == [
        "own=1; Path=/",
        "seen=yes; Path=/",
    ]


async def test_server_takes_the_place_of_aiohttps_not_of_the_handlers(
    aiohttp_client: AiohttpClient,
) -> None:
    subject = response_headers_middleware({"server": "shop"})
    client = await aiohttp_client(app_of(subject))
    for path, status in (("/", 200), ("/nowhere", 404)):
        response = await client.get(path)
        assert response.status == status
        assert response.headers.getall("Server") == ["shop"]
    own = app_of(subject, handler=sets({"Server": "mine"}))
    response = await (await aiohttp_client(own)).get("/")
    assert response.headers.getall("Server") == ["mine"]
    # Whatever this one takes off is taken off, as it stands outside.
    outside = app_of(security_headers_middleware(), subject)
    response = await (await aiohttp_client(outside)).get("/")
    assert "Server" not in response.headers


async def test_multidict_may_hold_several_lines_of_a_name(
    aiohttp_client: AiohttpClient,
) -> None:
    lines = MultiDict([("Link", "</a>; rel=next"), ("link", "</b>; rel=prev")])
    subject = response_headers_middleware(lines)
    response = await (await aiohttp_client(app_of(subject))).get("/")
    assert response.headers.getall("Link") == list(lines.values())
    own = app_of(subject, handler=sets({"Link": "</c>; rel=up"}))
    response = await (await aiohttp_client(own)).get("/")
    assert response.headers.getall("Link") == ["</c>; rel=up"]


async def test_function_may_set_add_and_take_off(
    aiohttp_client: AiohttpClient,
) -> None:
    def change(
        request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> str:
        assert headers["Server"] == SERVER_SOFTWARE
        del headers["Server"]
        headers["X-Own"] = request.query["q"]
        headers.add("Set-Cookie", "b=2")
        return headers.setdefault("X-Other", "other")

    async def own(request: web.Request) -> web.Response:
        response = web.Response(headers={"X-Own": "handler's"})
        response.set_cookie("a", "1")
        return response

    subject = response_headers_middleware(change)
    client = await aiohttp_client(app_of(subject, handler=own))
    response = await client.get("/?q=asked")
    assert response.status == 200
    assert "Server" not in response.headers
    assert response.headers.getall("X-Own") == ["asked"]
    assert response.headers.getall("X-Other") == ["other"]
    assert len(response.headers.getall("Set-Cookie")) == 2


async def test_of_two_mappings_the_inner_wins_of_two_functions_the_outer(
    aiohttp_client: AiohttpClient,
) -> None:
    def says(what: str) -> Middleware:
        return response_headers_middleware(
            lambda request, status, headers: headers.update({NAME: what})
        )

    mappings = app_of(
        response_headers_middleware({NAME: "outer"}),
        response_headers_middleware({NAME: "inner"}),
    )
    response = await (await aiohttp_client(mappings)).get("/")
    assert response.headers.getall(NAME) == ["inner"]
    functions = app_of(says("outer"), says("inner"))
    response = await (await aiohttp_client(functions)).get("/")
    assert response.headers.getall(NAME) == ["outer"]


async def test_what_was_changed_in_the_mapping_later_does_not_count(
    aiohttp_client: AiohttpClient,
) -> None:
    given = {NAME: "first"}
    subject = response_headers_middleware(given)
    given[NAME] = "second"
    response = await (await aiohttp_client(app_of(subject))).get("/")
    assert response.headers.getall(NAME) == ["first"]


# What it leaves alone
# ====================


@pytest.mark.parametrize(
    "headers", [{NAME: "yes"}, mark], ids=["mapping", "function"]
)
async def test_ignored_answers_stay_as_they_are(
    aiohttp_client: AiohttpClient, headers: Any
) -> None:
    subject = response_headers_middleware(headers, ignore={"/other": "GET"})
    client = await aiohttp_client(app_of(subject))
    assert NAME in (await client.get("/")).headers
    assert NAME not in (await client.get("/other")).headers
    assert NAME in (await client.post("/other")).headers


async def test_function_has_its_request_to_the_end_and_no_longer(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[weakref.ref[web.Request]] = []

    @web.middleware
    async def clones(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        clone = request.clone(remote="192.0.2.1")
        seen.append(weakref.ref(clone))
        return await handler(clone)

    def change(
        request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> None:
        headers["X-Remote"] = str(request.remote)

    async def own(request: web.Request) -> web.Response:
        if request.path == "/other":
            raise ZeroDivisionError
        return web.Response()

    client = await aiohttp_client(
        app_of(clones, response_headers_middleware(change), handler=own)
    )
    await client.get("/")
    seen.clear()
    gc.collect()
    gc.disable()
    try:
        for path in ("/", "/other", "/nowhere"):
            response = await client.get(path)
            assert response.headers.getall("X-Remote") == ["192.0.2.1"]
            await response.read()
        await client.get("/")  # the last one before is over by then
        assert [ref() for ref in seen[:1]] == [None]
    finally:
        gc.enable()


# Mistakes in a function
# ======================


def odd(value: Any) -> Any:
    def change(
        request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> None:
        headers[NAME] = value
        del headers["Server"]

    return change


class Async:
    async def __call__(self, *args: object) -> None:
        raise AssertionError("nobody awaits it")


def fails(request: web.Request, status: int, headers: CIMultiDict[str]) -> None:
    headers.clear()
    raise ZeroDivisionError


ODD = ["a\r\nb: c", "a\nb", "a\x00", "a\x7f", "\udcff", 5, None]
MISTAKES = [
    pytest.param(fails, id="raises"),
    pytest.param(Async(), id="async"),
    *(pytest.param(odd(value), id=ascii(value)) for value in ODD),
]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("path", ["/", "/nowhere"])
async def test_function_that_fails_is_logged_and_changes_nothing(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    mistake: Any,
    path: str,
) -> None:
    client = await aiohttp_client(app_of())
    expected = await client.get(path)
    client = await aiohttp_client(app_of(response_headers_middleware(mistake)))
    response = await client.get(path)
    assert response.status == expected.status
    assert await response.read() == await expected.read()
    assert [*response.headers] == [*expected.headers]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert (record.name, record.exc_info is not None) == (LOGGER, True)


async def test_what_a_client_sends_splits_no_answer(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(
        request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> None:
        headers["X-Echo"] = request.query.get("q", request.headers["X-Any"])

    client = await aiohttp_client(app_of(response_headers_middleware(echo)))
    for target, value in (
        (b"/?q=a%0D%0ASet-Cookie:%20evil=1", b"x"),
        (b"/?q=%ED%B3%BF", b"x"),
        (b"/", b"\xff"),
    ):
        received = await raw(
            client.server,
            b"GET %b HTTP/1.1\r\nHost: a\r\nX-Any: %b\r\n"
            b"Connection: close\r\n\r\n" % (target, value),
        )
        answer = head(received)
        assert (answer.status, answer.rest) == (200, b"hello")
        assert "Set-Cookie" not in answer.headers


# Misconfiguration
# ================


async def slow(
    request: web.Request, status: int, headers: CIMultiDict[str]
) -> None:
    """Nobody can wait for it."""


@pytest.mark.parametrize(
    ("headers", "error", "words"),
    [
        (None, TypeError, "a mapping of names to values, or a function"),
        ("X-A: b", TypeError, "a mapping of names to values, or a function"),
        ([("X-A", "b")], TypeError, "a mapping of names to values"),
        (slow, TypeError, "a function that is not async"),
        ({}, ValueError, "at least one header"),
        ({"": "a"}, ValueError, "a header name"),
        ({"X A": "a"}, ValueError, "a header name"),
        ({"X-A:": "a"}, ValueError, "a header name"),
        ({1: "a"}, TypeError, "a header name"),
        ({"X-A": 1}, TypeError, r"headers\['X-A'\] should be the value"),
        ({"X-A": None}, TypeError, "the value of a header"),
        ({"X-A": ["a"]}, TypeError, "the value of a header"),
        ({"X-A": "a\r\nb: c"}, ValueError, "the value of a header"),
        ({"X-A": "ü"}, ValueError, "the value of a header"),
        ({"X-A": ""}, ValueError, "the value of a header"),
        ({"content-length": "0"}, ValueError, "differs from one to the next"),
        ({"Transfer-Encoding": "chunked"}, ValueError, "all answers can share"),
        ({"Connection": "close"}, ValueError, "all answers can share"),
        ({"Content-Type": "a/b"}, ValueError, "all answers can share"),
        ({"Date": "today"}, ValueError, "all answers can share"),
    ],
)
def test_wrong_headers_are_refused_when_it_is_built(
    headers: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"response_headers_middleware.*{words}"):
        response_headers_middleware(headers)


def test_wrong_rules_are_refused_when_it_is_built() -> None:
    with pytest.raises(TypeError, match="response_headers_middleware ignore"):
        response_headers_middleware(mark, ignore="/a")
