"""Where a response begins and ends: interim ones, and those that are cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from live import Connection, Live, live
from raw import head

from aiohttp_middlewares import (
    body_limit_middleware,
    compression_middleware,
    cors_middleware,
    csrf_middleware,
    error_middleware,
    https_middleware,
    idempotency_middleware,
    security_headers_middleware,
    session_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Middleware


@asynccontextmanager
async def connected(site: Live) -> AsyncIterator[Connection]:
    client = await site.connect()
    try:
        yield client
    finally:
        client.leave()


# An interim response is none
# ===========================


async def goes_on(request: web.Request) -> None:
    """An ``expect_handler`` of the application's own."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


MIDDLEWARES: dict[str, Callable[[], list[Middleware]]] = {
    "cors": lambda: [cors_middleware(allow_all=True)],
    "security headers": lambda: [security_headers_middleware()],
    "compression": lambda: [compression_middleware()],
    "session": lambda: [session_middleware("a key of sixteen")],
    "body limit": lambda: [body_limit_middleware(3, limits={"/late": None})],
    "error": lambda: [error_middleware()],
    "csrf": lambda: [csrf_middleware()],
    "idempotency": lambda: [idempotency_middleware()],
    "timeout": lambda: [timeout_middleware(0.05)],
    "all": lambda: [
        https_middleware(),
        security_headers_middleware(),
        cors_middleware(allow_all=True),
        error_middleware(),
        body_limit_middleware(100),
        compression_middleware(),
        timeout_middleware(0.05),
        session_middleware("a key of sixteen"),
    ],
}


async def answers(app: web.Application, path: str, body: bytes) -> Any:
    async with live(app) as site, connected(site) as client:
        client.send(
            f"POST {path}",
            body,
            fields="Expect: 100-continue\r\nConnection: close\r\n"
            "Idempotency-Key: a\r\n",
        )
        interim = await client.until(b"\r\n\r\n")
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        return head(await client.rest())


@pytest.mark.parametrize("name", MIDDLEWARES)
async def test_what_an_expect_handler_sends_is_no_response(name: str) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def refuses(request: web.Request) -> web.Response:
        raise web.HTTPConflict(text="refused")

    def app() -> web.Application:
        app = web.Application(middlewares=MIDDLEWARES[name]())
        app.router.add_post("/", echo, expect_handler=goes_on)
        app.router.add_post("/no", refuses, expect_handler=goes_on)
        return app

    answer = await answers(app(), "/", b"abc")
    assert (answer.status, answer.rest) == (200, b"abc")
    answer = await answers(app(), "/no", b"abc")
    assert answer.status == 409
    assert b"refused" in answer.rest


@pytest.mark.parametrize("name", ["timeout", "all"])
async def test_limit_strikes_after_an_interim_response(name: str) -> None:
    async def late(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application(middlewares=MIDDLEWARES[name]())
    app.router.add_post("/late", late, expect_handler=goes_on)
    assert (await answers(app, "/late", b"abc")).status == 504


async def test_large_body_is_refused_after_an_interim_response() -> None:
    async def takes(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=MIDDLEWARES["body limit"]())
    app.router.add_post("/", takes, expect_handler=goes_on)
    assert (await answers(app, "/", b"abcd")).status == 413


# What is cut can be seen
# =======================


async def fails(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/csv"})
    await response.prepare(request)
    await response.write(b"id,name\n1,a\n")
    raise ZeroDivisionError


async def generates(request: web.Request) -> web.Response:
    async def lines() -> AsyncIterator[bytes]:
        yield b"id,name\n1,a\n"
        raise ZeroDivisionError

    return web.Response(body=lines())


async def refuses_late(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"id,name\n1,a\n")
    raise web.HTTPConflict


async def waits(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"id,name\n1,a\n")
    await asyncio.Event().wait()
    raise AssertionError


async def works(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"id,name\n1,a\n")
    return response


def exports(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=[*middlewares, error_middleware()])
    for handler in (fails, generates, refuses_late, waits, works):
        app.router.add_get(f"/{handler.__name__}", handler)
    return app


async def is_reset(client: Connection) -> bool:
    try:
        await client.rest()
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("path", ["/fails", "/generates", "/refuses_late"])
async def test_client_of_http_1_0_can_tell_that_a_body_was_cut(
    path: str, compressed: bool
) -> None:
    outside = [compression_middleware()] if compressed else []
    async with live(exports(*outside)) as site, connected(site) as client:
        client.write(
            f"GET {path} HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        assert await is_reset(client)


async def test_stream_that_the_shutdown_cancels_is_seen_to_be_cut() -> None:
    async with (
        live(exports(), shutdown_timeout=0.05) as site,
        connected(site) as client,
    ):
        client.write("GET /waits HTTP/1.0\r\nHost: a\r\n\r\n")
        await client.head()
        await site.runner.cleanup()
        assert await is_reset(client)


@pytest.mark.parametrize("path", ["/works", "/nowhere"])
async def test_connection_of_http_1_0_that_is_not_cut_is_closed_in_peace(
    path: str,
) -> None:
    async with live(exports()) as site, connected(site) as client:
        client.write(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.0")


async def test_large_answer_arrives_whole_where_a_cut_would_reset() -> None:
    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 3_000_000)

    app = exports()
    app.router.add_get("/large", large)
    async with live(app) as site, connected(site) as client:
        client.write("GET /large HTTP/1.0\r\nHost: a\r\n\r\n")
        answer = head(await client.rest())
        assert len(answer.rest) == 3_000_000
    # And where the connection is kept, it goes on.
    async with live(app) as site, connected(site) as client:
        for _ in range(2):
            client.write(
                "GET /large HTTP/1.0\r\nHost: a\r\n"
                "Connection: keep-alive\r\n\r\n"
            )
            assert len((await client.answer()).rest) == 3_000_000


async def test_http_1_1_is_cut_as_before() -> None:
    async with live(exports()) as site, connected(site) as client:
        client.send("GET /fails")
        await client.head()
        rest = await client.rest()
        assert b"1,a" in rest
        assert not rest.endswith(b"0\r\n\r\n")
