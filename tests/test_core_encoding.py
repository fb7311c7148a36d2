"""Bodies through an encoder: framing, whatever the encoder does."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import head, raw

from aiohttp_middlewares._core.encoding import EncodedBody
from aiohttp_middlewares._core.sending import (
    Bytes,
    before_sending,
    only_one_response,
)
from aiohttp_middlewares.annotations import Handler, Middleware

GET = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


class Brackets:
    """An encoder of which one sees what it was asked."""

    def __init__(self, headers: CIMultiDict[str]) -> None:
        self.headers = headers

    async def whole(self, body: Bytes) -> bytes:
        self.headers["X-Whole"] = "yes"
        return b"{" + bytes(body) + b"}"

    async def more(self, data: memoryview) -> bytes:
        return b"[" + bytes(data) + b"]" if data else b""

    async def end(self) -> bytes:
        return b"."

    def withdraw(self) -> None:
        self.headers["X-Withdrawn"] = "yes"


def encodes(calls: list[str], *, only: int | None = None) -> Middleware:
    @web.middleware
    async def encodes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        version = request.version

        def choose(
            status: int, headers: CIMultiDict[str]
        ) -> EncodedBody | None:
            calls.append(f"choose {status}")
            if only not in (None, status):
                return None
            return EncodedBody(version, headers, Brackets(headers))

        before_sending(request, choose)
        return await handler(request)

    return encodes


def says(calls: list[str], name: str) -> Middleware:
    @web.middleware
    async def says(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before_sending(request, lambda status, headers: calls.append(name))
        return await handler(request)

    return says


def app_of(handler: Handler, *middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", handler)
    return app


async def returned(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"one")
    await response.write(b"")
    await response.write(b"two")
    await response.write_eof(b"last")
    return response


async def test_body_in_one_piece_gets_its_length(
    aiohttp_server: AiohttpServer,
) -> None:
    calls: list[str] = []
    server = await aiohttp_server(app_of(returned, encodes(calls)))
    answer = head(await raw(server, GET))
    assert answer.rest == b"{hello}"
    assert answer.headers.getall("Content-Length") == ["7"]
    assert answer.headers.getall("X-Whole") == ["yes"]
    assert "Transfer-Encoding" not in answer.headers


async def test_body_in_parts_comes_in_chunks(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(app_of(streamed, encodes([])))
    answer = head(await raw(server, GET))
    chunks = b"5\r\n[one]\r\n5\r\n[two]\r\n7\r\n[last].\r\n0\r\n\r\n"
    assert answer.rest == chunks
    assert answer.headers.getall("Transfer-Encoding") == ["chunked"]
    assert "X-Whole" not in answer.headers


async def test_length_that_was_announced_is_not_that_of_what_is_sent(
    aiohttp_server: AiohttpServer,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 6
        await response.prepare(request)
        await response.write(b"one")
        await response.write(b"two")
        return response

    server = await aiohttp_server(app_of(handler, encodes([])))
    answer = head(await raw(server, GET))
    assert answer.rest == b"5\r\n[one]\r\n5\r\n[two]\r\n1\r\n.\r\n0\r\n\r\n"
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize(
    ("handler", "body"), [(returned, "hello"), (streamed, "onetwolast")]
)
async def test_without_an_encoder_the_body_stays(
    aiohttp_client: AiohttpClient, handler: Handler, body: str
) -> None:
    app = app_of(handler, encodes([], only=404))
    client = await aiohttp_client(app)
    assert await (await client.get("/")).text() == body
    response = await client.get("/nowhere")
    assert await response.text() == "{404: Not Found}"
    assert await (await client.get("/")).text() == body


async def test_last_calls_are_done_once_around_it(
    aiohttp_client: AiohttpClient,
) -> None:
    for handler in (returned, streamed):
        calls: list[str] = []
        client = await aiohttp_client(
            app_of(
                handler,
                says(calls, "outer"),
                encodes(calls),
                says(calls, "inner"),
            )
        )
        await client.get("/")
        assert calls == ["inner", "choose 200", "outer"]


async def test_response_that_was_given_up_takes_its_encoder_along(
    aiohttp_client: AiohttpClient,
) -> None:
    async def second(request: web.Request) -> web.Response:
        await web.Response(text="first").prepare(request)
        raise web.HTTPConflict(text="second")

    client = await aiohttp_client(app_of(second, encodes([], only=200)))
    response = await client.get("/")
    assert (response.status, await response.text()) == (409, "second")
    client = await aiohttp_client(app_of(second, encodes([])))
    response = await client.get("/")
    assert (response.status, await response.text()) == (409, "{second}")


async def test_encoder_that_fails_cuts_the_connection(
    aiohttp_server: AiohttpServer,
) -> None:
    class Fails(Brackets):
        async def more(self, data: memoryview) -> bytes:
            raise ZeroDivisionError

    @web.middleware
    async def fails(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        version = request.version
        before_sending(
            request,
            lambda status, headers: EncodedBody(
                version, headers, Fails(headers)
            ),
        )
        return await handler(request)

    server = await aiohttp_server(app_of(streamed, fails))
    answer = head(await raw(server, GET))
    assert answer.rest == b""


@pytest.mark.parametrize("compression", [False, True])
async def test_last_call_that_fails_leaves_no_chunks_behind(
    aiohttp_server: AiohttpServer, compression: bool
) -> None:
    @web.middleware
    async def fails(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        def call(status: int, headers: Any) -> None:
            if status == 200:
                raise ZeroDivisionError

        before_sending(request, call)
        return await handler(request)

    outside = [encodes([])] if compression else []
    server = await aiohttp_server(app_of(streamed, *outside, fails))
    answer = head(await raw(server, GET))
    assert answer.status == 500
    assert "Transfer-Encoding" not in answer.headers
    assert int(answer.headers["Content-Length"]) == len(answer.rest)
    assert b"500 Internal" in answer.rest


@pytest.mark.parametrize("late", ["whole", "more", "next"])
async def test_response_that_was_given_up_while_it_was_encoded_stays_away(
    aiohttp_server: AiohttpServer, late: str
) -> None:
    begun, given_up, refused = asyncio.Event(), asyncio.Event(), []

    class Slow(Brackets):
        async def whole(self, body: Bytes) -> bytes:
            return await self.more(memoryview(body))

        async def more(self, data: memoryview) -> bytes:
            if late != "next":
                begun.set()
                await given_up.wait()
            return bytes(data)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if late == "whole":
            response = web.Response(text="late")
        response._send_headers_immediately = False
        await response.prepare(request)
        try:
            if late == "next":
                begun.set()
                await given_up.wait()
            if late == "whole":
                await response.write_eof()
            else:
                await response.write(b"late")
        except ConnectionError as exc:
            refused.append(str(exc))
        return response

    @web.middleware
    async def gives_up(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        abandoned.append(asyncio.ensure_future(handler(request)))
        await begun.wait()
        only_one_response(request)
        return web.Response(text="given up")

    @web.middleware
    async def slowly(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        version = request.version

        def choose(
            status: int, headers: CIMultiDict[str]
        ) -> EncodedBody | None:
            if status == 200 and "X-Plain" not in headers:
                return EncodedBody(version, headers, Slow(headers))
            return None

        before_sending(request, choose)
        return await handler(request)

    @web.middleware
    async def plain(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        response.headers["X-Plain"] = "yes"
        return response

    abandoned: list[asyncio.Future[web.StreamResponse]] = []
    server = await aiohttp_server(app_of(handler, plain, gives_up, slowly))
    answer = head(await raw(server, GET))
    given_up.set()
    await abandoned[0]
    assert answer.rest == b"given up"
    assert refused == ["A response was sent already"]


class Waits(Brackets):
    """Takes as long as somebody wants."""

    begun: asyncio.Event
    go: asyncio.Event

    async def whole(self, body: Bytes) -> bytes:
        self.begun.set()
        await self.go.wait()
        return await super().whole(body)


def waits(begun: asyncio.Event, go: asyncio.Event) -> Middleware:
    @web.middleware
    async def waits(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        version = request.version

        def choose(
            status: int, headers: CIMultiDict[str]
        ) -> EncodedBody | None:
            if status != 200:
                return None
            encoder = Waits(headers)
            encoder.begun, encoder.go = begun, go
            return EncodedBody(version, headers, encoder)

        before_sending(request, choose)
        return await handler(request)

    return waits


async def test_response_whose_end_is_being_encoded_is_the_only_one(
    aiohttp_server: AiohttpServer,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        first = web.Response(text="first")
        await first.prepare(request)
        ending = asyncio.ensure_future(first.write_eof())
        await begun.wait()
        with pytest.raises(ConnectionError, match="already"):
            await web.Response(status=409).prepare(request)
        go.set()
        await ending
        return first

    server = await aiohttp_server(app_of(handler, waits(begun, go)))
    assert head(await raw(server, GET)).rest == b"{first}"


async def test_response_whose_end_was_cancelled_gives_way_to_another(
    aiohttp_server: AiohttpServer,
) -> None:
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        first = web.Response(text="first")
        await first.prepare(request)
        ending = asyncio.ensure_future(first.write_eof())
        await begun.wait()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        raise web.HTTPConflict(text="second")

    app = app_of(handler, waits(begun, asyncio.Event()))
    answer = head(await raw(await aiohttp_server(app), GET))
    assert (answer.status, answer.rest) == (409, b"second")
