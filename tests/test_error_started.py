"""Errors with nobody to answer: half-way, or with the client gone."""

import asyncio
import builtins
import errno
import logging
import sys
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from error_site import LOGGER, AnyClient, ask, cloning, page, raising, shown
from pytest_aiohttp import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import error_middleware, get_error_response
from aiohttp_middlewares.annotations import Handler

SERVER = "aiohttp.server"

# Once a response has started
# ===========================


async def in_chunks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"a,b\n")
    return response


async def with_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"a,b\n")
    return response


async def with_no_body_yet(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def complete(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="complete")
    await response.prepare(request)
    await response.write_eof()
    return response


async def websocket(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str("hi")
    return response


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    "start", [in_chunks, with_length, with_no_body_yet, complete, websocket]
)
@pytest.mark.parametrize(
    "raised",
    [
        ValueError("late"),
        web.HTTPBadRequest(text="late"),  # aiohttp itself would write that
        web.HTTPFound("/late"),
        asyncio.TimeoutError("late"),
        KeyError("ignored"),
        web.HTTPGone(text="ignored"),
    ],
    ids=lambda raised: type(raised).__name__,
)
@pytest.mark.parametrize("around", ["alone", "nested", "cloned"])
async def test_no_second_response_is_written_and_the_connection_is_cut(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    start: Handler,
    raised: Exception,
    around: str,
) -> None:
    handled = []

    async def handler(request: web.Request) -> web.StreamResponse:
        await start(request)
        raise raised

    async def answers(request: web.Request) -> web.StreamResponse:
        handled.append(request)
        return web.Response(text="second")

    errors = error_middleware(
        default_handler=answers, ignore_exceptions=(KeyError, web.HTTPGone)
    )
    client = await aiohttp_client(
        page(
            handler,
            *{
                "alone": [errors],
                "nested": [errors, error_middleware()],
                "cloned": [cloning, errors, cloning],
            }[around],
        )
    )
    # Without "Connection: close": it is the server that has to end it.
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\n"
        + (UPGRADE if start is websocket else b"")
        + b"\r\n",
    )
    answer = head(received)
    assert answer.status == (101 if start is websocket else 200)
    assert received.count(b"HTTP/1.") == 1
    assert handled == []
    if start is in_chunks:
        assert answer.rest == b"4\r\na,b\n\r\n"  # no last chunk: cut short
    elif start is with_length:
        assert answer.rest == b"a,b\n"
    elif start is with_no_body_yet:
        assert answer.rest == b""
    elif start is websocket:
        assert answer.rest[:4] == b"\x81\x02hi"
        assert b"late" not in answer.rest
    # The log has the error itself, once.
    logged = [
        (record.name, record.exc_info[1])
        for record in caplog.records
        if record.levelname == "ERROR" and record.exc_info is not None
    ]
    if isinstance(raised, web.HTTPException | asyncio.TimeoutError):
        # Which aiohttp would answer; as it is it logs only what stands in.
        assert logged[0] == (LOGGER, raised)
        (stand_in,) = logged[1:]
        assert stand_in[0] == "aiohttp.server"
        assert type(stand_in[1]) is ConnectionAbortedError
        assert stand_in[1].__cause__ is raised
    else:
        assert logged == [("aiohttp.server", raised)]


async def test_late_error_that_aiohttp_does_not_name_is_logged_with_its_facts(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await in_chunks(request)
        raise web.HTTPConflict

    client = await aiohttp_client(page(handler))
    await raw(client.server, b"GET /?secret HTTP/1.1\r\nHost: a\r\n\r\n")
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.getMessage() == "GET / failed after its response had started"
    extra: Any = record
    assert (extra.method, extra.path, extra.remote) == ("GET", "/", "127.0.0.1")


async def test_late_error_is_logged_once_however_many_would_answer_it(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    raised = web.HTTPConflict()

    async def late(request: web.Request) -> web.StreamResponse:
        await in_chunks(request)
        raise raised

    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            return await get_error_response(request, err)

    client = await aiohttp_client(
        page(late, own, error_middleware(), error_middleware())
    )
    received = await raw(client.server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head(received).rest == b"4\r\na,b\n\r\n"
    ours = [r.exc_info[1] for r in caplog.records if r.name == LOGGER]  # type: ignore[index]
    assert ours == [raised]
    (its,) = [r.exc_info[1] for r in caplog.records if r.name == SERVER]  # type: ignore[index]
    assert its is not None
    assert its.__cause__ is raised


@pytest.mark.parametrize("log", [True, False])
async def test_late_error_of_get_error_response_is_logged_as_what_it_is(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture, log: bool
) -> None:
    raised = ValueError("late")

    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        await handler(request)
        return await get_error_response(request, raised, log=log)

    client = await aiohttp_client(page(in_chunks, own))
    received = await raw(client.server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head(received).rest == b"4\r\na,b\n\r\n"
    ours = [r.exc_info[1] for r in caplog.records if r.name == LOGGER]  # type: ignore[index]
    assert ours == ([raised] if log else [])


async def test_prepared_answer_of_which_nothing_left_may_be_replaced(
    aiohttp_client: AiohttpClient,
) -> None:
    # aiohttp sends the headers of a plain Response together with its body.
    async def handler(request: web.Request) -> web.StreamResponse:
        first = web.Response(text="first", headers={"X-First": "1"})
        first.enable_chunked_encoding()
        await first.prepare(request)
        raise ValueError("second")

    client = await aiohttp_client(page(handler))
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    assert received.count(b"HTTP/1.") == 1
    answer = head(received)
    assert (answer.status, answer.rest) == (500, b'{"detail": "second"}')
    assert "X-First" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers


async def test_error_handler_that_fails_in_the_middle_is_cut_too(
    aiohttp_client: AiohttpClient,
) -> None:
    for raised in (ValueError("late"), web.HTTPFound("/late")):

        async def handler(
            request: web.Request, raised: Exception = raised
        ) -> web.StreamResponse:
            await in_chunks(request)
            raise raised

        client = await aiohttp_client(
            page(raising(KeyError), error_middleware(default_handler=handler))
        )
        received = await raw(
            client.server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert received.count(b"HTTP/1.") == 1
        assert head(received).rest == b"4\r\na,b\n\r\n"


async def test_get_error_response_says_that_it_is_too_late(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []
    raised = web.HTTPBadRequest()

    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        try:
            return await get_error_response(request, raised)
        except ConnectionAbortedError as err:
            seen.append(err)
            return response

    client = await aiohttp_client(page(in_chunks, own))
    answer = await ask(client)
    assert await answer.text() == "a,b\n"
    (err,) = seen
    assert err.__cause__ is raised


async def test_websocket_is_cut_for_a_real_client(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await websocket(request)
        raise ValueError("ws blew up")

    client = await aiohttp_client(page(handler))
    async with client.ws_connect("/") as ws:
        assert await ws.receive_str() == "hi"
        message = await ws.receive(timeout=5)
        assert message.type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSING,
        )
    assert ws.close_code == 1006


# A client that went away
# =======================


class PatientServer(TestServer):
    """Does not cancel a handler when its client leaves: aiohttp's default."""

    async def _make_runner(self, **kwargs: Any) -> web.BaseRunner:
        kwargs["handler_cancellation"] = False
        return web.AppRunner(self.app, **kwargs)


UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
MULTIPART = UPLOAD + b"Content-Type: multipart/form-data; boundary=b\r\n"


async def reads(request: web.Request) -> web.StreamResponse:
    await request.read()
    return web.Response()


async def reads_in_pieces(request: web.Request) -> web.StreamResponse:
    async for _ in request.content.iter_any():
        pass
    return web.Response()


async def reads_a_form(request: web.Request) -> web.StreamResponse:
    await request.post()
    return web.Response()


async def reads_until_the_network_fails(
    request: web.Request,
) -> web.StreamResponse:
    # What the event loop does when nobody acknowledges for long.
    assert request.transport is not None
    asyncio.get_running_loop().call_soon(
        request.protocol.connection_lost, OSError(errno.ETIMEDOUT, "gone")
    )
    await request.read()
    return web.Response()


async def streams(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.001)


async def streams_much(request: web.Request) -> web.StreamResponse:
    # More than the socket takes: the write waits for the client to read.
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 2**20)


async def streams_once_too_often(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    assert request.transport is not None
    request.transport.abort()  # what a write that fails does
    await response.write(b"x")
    return response


async def sends_frames(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    while True:
        await response.send_bytes(b"x" * 2**16)
        await asyncio.sleep(0)


async def streams_from_two_tasks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)

    async def write() -> None:
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.001)

    tasks = [asyncio.ensure_future(write()) for _ in range(2)]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    # As a task group has them.
    raise vars(builtins)["ExceptionGroup"]("both", done)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("handler", "sent"),
    [
        (reads, UPLOAD + b"Content-Length: 10\r\n\r\nabc"),
        (reads, UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        (reads_in_pieces, UPLOAD + b"Content-Length: 10\r\n\r\nabc"),
        (
            reads_until_the_network_fails,
            UPLOAD + b"Content-Length: 10\r\n\r\nabc",
        ),
        (reads_a_form, MULTIPART + b"Content-Length: 99\r\n\r\n--b\r\nabc"),
        (streams, GET + b"\r\n"),
        (streams_much, GET + b"\r\n"),
        (streams_once_too_often, GET + b"\r\n"),
        pytest.param(
            *(streams_from_two_tasks, GET + b"\r\n"),
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="no groups before 3.11"
            ),
        ),
        (sends_frames, GET + UPGRADE + b"\r\n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_client_that_went_away_is_no_error(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
    sent: bytes,
) -> None:
    seen = []
    running, done = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        running.set()
        try:
            response = await handler(request)
            seen.append(response.status)
            return response
        finally:
            done.set()

    client: AnyClient = await aiohttp_client(
        PatientServer(page(handler, seeing, error_middleware()))
    )
    caplog.set_level(logging.INFO)
    _, writer = await asyncio.open_connection(
        client.server.host, client.server.port
    )
    writer.write(sent)
    await asyncio.wait_for(running.wait(), 5)
    await asyncio.sleep(0.01)  # until it is in the middle of it
    writer.transport.abort()
    await asyncio.wait_for(done.wait(), 5)
    await client.close()
    assert seen == [499]
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


async def test_error_after_the_client_left_is_still_logged(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()
    raised = ValueError("a bug")

    async def handler(request: web.Request) -> web.StreamResponse:
        with pytest.raises(ConnectionResetError):
            await request.read()
        done.set()
        raise raised

    client: AnyClient = await aiohttp_client(PatientServer(page(handler)))
    _, writer = await asyncio.open_connection(
        client.server.host, client.server.port
    )
    writer.write(UPLOAD + b"Content-Length: 10\r\n\r\nabc")
    await asyncio.sleep(0.01)
    writer.transport.abort()
    await asyncio.wait_for(done.wait(), 5)
    await client.close()
    (record,) = [r for r in caplog.records if r.levelno > logging.INFO]
    assert (record.name, record.exc_info[1]) == (LOGGER, raised)  # type: ignore[index]


async def test_connection_that_the_handler_lost_is_an_error(
    aiohttp_client: AiohttpClient,
) -> None:
    assert await shown(aiohttp_client, ConnectionResetError("redis")) == (
        500,
        {"detail": "redis"},
    )
