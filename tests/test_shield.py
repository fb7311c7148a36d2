"""shield_middleware: what goes on, who hears of it, and when it ends."""

import asyncio
import contextlib
import gc
import json
import logging
import re
import signal
import socket
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.test_utils import make_mocked_request
from live import (
    Connection,
    Live,
    begin_tasks_at_once,
    complaints,
    eventually,
    live,
    soon,
)
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

import aiohttp_middlewares.shield
from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    drain_shielded,
    error_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

SHORT = 0.05
LONG = 60.0

POST = shield_middleware(methods=["POST"])


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_lost() -> Iterator[None]:
    """No test leaves an exception that asyncio complains of."""
    with complaints() as found:
        yield
    assert found == []


class Work:
    """A handler that writes in two stages, and waits between them."""

    def __init__(self) -> None:
        self.request: web.Request | None = None
        self.go_on = asyncio.Event()
        self.marks: list[str] = []

    async def handler(self, request: web.Request) -> web.StreamResponse:
        self.request = request
        self.marks.append("stage 1")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.marks.append("cancelled")
            raise
        response = await self.end(request)
        self.marks.append("stage 2")
        return response

    async def end(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="written")

    async def begun(self) -> None:
        await eventually(lambda: self.marks)

    async def client_is_gone(self) -> None:
        await eventually(
            lambda: self.request and self.request.transport is None
        )

    async def ended(self, *marks: str) -> None:
        await eventually(lambda: len(self.marks) >= 1 + len(marks))
        assert self.marks == ["stage 1", *marks]

    async def mark(self, app: web.Application) -> None:
        self.marks.append("on_cleanup")


def application(
    *middlewares: Middleware, work: Work | None = None, **handlers: Handler
) -> web.Application:
    app = web.Application(middlewares=middlewares)
    if work is not None:
        handlers["work"] = work.handler
        app.on_cleanup.append(work.mark)
    for name, handler in {"quick": quick, **handlers}.items():
        app.router.add_route("*", f"/{name}", handler)
    return app


async def quick(request: web.Request) -> web.Response:
    return web.Response(text="quick")


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged as an error, by whomever."""
    return [r for r in caplog.records if r.levelno >= logging.ERROR]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged(caplog)]


CANCELLED = (
    "The shielded handler of POST /work was cancelled before it had finished"
)
FAILED = "The shielded handler of POST /work failed after its request had ended"


# The client leaves
# =================


def post(client: Connection) -> None:
    client.send("POST /work", b"hello")


def post_nothing(client: Connection) -> None:
    client.send("POST /work")


def post_in_chunks(client: Connection) -> None:
    client.send("POST /work", fields="Transfer-Encoding: chunked\r\n")
    client.write("5\r\nhello\r\n0\r\n\r\n")


def get(client: Connection) -> None:
    client.send("GET /work")


Send = Callable[[Connection], None]


@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
@pytest.mark.parametrize("send", [post, post_nothing, post_in_chunks, get])
async def test_handler_goes_on_when_its_client_leaves(
    caplog: pytest.LogCaptureFixture,
    send: Send,
    leave: Callable[[Connection], None],
) -> None:
    work = Work()
    shield = shield_middleware(urls=["/work"])
    async with live(application(shield, work=work)) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        send(client)
        await work.begun()
        leave(client)
        await work.client_is_gone()
        work.go_on.set()
        await work.ended("stage 2")
        await eventually(lambda: asyncio.all_tasks() == before)
    assert logged(caplog) == []


async def test_handler_is_cancelled_without_shield() -> None:
    work = Work()
    async with live(application(work=work)) as server:
        client = await server.connect()
        post(client)
        await work.begun()
        client.leave()
        await work.ended("cancelled")


async def test_client_that_stays_gets_its_answer(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.Response(body=await request.read(), headers={"X-A": "b"})

    client = await aiohttp_client(application(POST, handler=handler))
    for body in b"one", b"two":
        response = await client.post("/handler", data=body)
        assert (response.status, await response.read()) == (200, body)
        assert response.headers.getall("X-A") == ["b"]


@pytest.mark.parametrize("send", [post, post_in_chunks])
async def test_body_that_arrived_whole_may_be_read_after_the_client_left(
    caplog: pytest.LogCaptureFixture, send: Send
) -> None:
    bodies: list[bytes] = []

    class Reads(Work):
        async def end(self, request: web.Request) -> web.Response:
            bodies.append(await request.read())
            return web.Response()

    work = Reads()
    async with live(application(POST, work=work)) as server:
        client = await server.connect()
        send(client)
        await work.begun()
        assert work.request is not None
        content = work.request.content
        await eventually(content.is_eof)
        client.leave()
        await work.client_is_gone()
        work.go_on.set()
        await work.ended("stage 2")
    assert bodies == [b"hello"]
    assert logged(caplog) == []


async def test_body_may_be_read_when_the_client_left_before_the_handler_began(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bodies: list[bytes] = []

    @web.middleware
    async def left(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await eventually(request.content.is_eof)
        # As asyncio does on a reset; aiohttp hears of it in the next turn.
        assert request.transport is not None
        request.transport.abort()
        return await handler(request)

    async def reads(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    async with live(application(left, POST, reads=reads)) as server:
        client = await server.connect()
        client.send("POST /reads", b"hello")
        await eventually(lambda: bodies or logged(caplog))
        client.leave()
    assert bodies == [b"hello"]
    assert logged(caplog) == []


async def test_body_may_be_read_when_the_client_left_before_the_shield_began(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bodies: list[bytes] = []
    waiting = asyncio.Event()
    go_on = asyncio.Event()
    requests: list[web.Request] = []

    @web.middleware
    async def waits(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await eventually(request.content.is_eof)
        requests.append(request)
        waiting.set()
        await go_on.wait()
        return await handler(request)

    async def reads(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    app = application(waits, POST, reads=reads)
    async with live(app, handler_cancellation=False) as server:
        client = await server.connect()
        client.send("POST /reads", b"hello")
        await waiting.wait()
        client.leave()
        await eventually(lambda: requests[0].transport is None)
        go_on.set()
        await eventually(lambda: bodies or logged(caplog))
    assert bodies == [b"hello"]
    assert logged(caplog) == []


async def test_handler_cancelled_before_its_first_turn_keeps_nobody_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(LONG)
        return web.Response()

    @web.middleware
    async def others_cancelled(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before = asyncio.all_tasks()

        def cancel() -> None:
            for task in asyncio.all_tasks() - before:
                task.cancel()

        asyncio.get_running_loop().call_soon(cancel)
        return await handler(request)

    async with live(application(others_cancelled, POST, slow=slow)) as server:
        client = await server.connect()
        client.send("POST /slow")
        assert await asyncio.wait_for(client.reader.read(), 5) == b""
        client.leave()
    assert len(logged(caplog)) == 1


async def left_waiting() -> None:
    """Leave a shielded handler at work, as none does that is served."""
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()

    async def waits(request: web.Request) -> web.Response:
        await waiting
        return web.Response()

    shield = shield_middleware(methods=["POST"])
    request = make_mocked_request("POST", "/")

    async def visit() -> None:
        await shield(request, waits)

    task = loop.create_task(visit())
    await asyncio.sleep(SHORT)
    assert not task.done()


def test_event_loop_may_be_closed_on_a_handler_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unraisable: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda found: unraisable.append(str(found))
    )
    # It tells of tasks that are lost, as these are.
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_waiting())
    loop.close()
    gc.collect()
    assert unraisable == []


# Which requests
# ==============


async def is_shielded(middleware: Middleware, line: str) -> bool:
    work = Work()
    app = web.Application(middlewares=[middleware])
    app.router.add_route("*", "/{path:.*}", work.handler)
    async with live(app) as server:
        client = await server.connect()
        client.send(line)
        await work.begun()
        client.reset()
        await work.client_is_gone()
        # Who is not shielded has been cancelled by the time it could go on.
        await asyncio.sleep(0)
        work.go_on.set()
        await eventually(lambda: len(work.marks) == 2)
    return work.marks[1] == "stage 2"


DOWNLOADS = {
    re.compile("^/downloads/.*$"): "GET",
    re.compile(".*"): NON_IDEMPOTENT_METHODS,
}


@pytest.mark.parametrize(
    ("options", "shielded", "left_alone"),
    [
        (
            {"methods": NON_IDEMPOTENT_METHODS},
            ["POST /a", "PUT /a", "PATCH /a", "DELETE /a"],
            ["GET /a", "OPTIONS /a"],
        ),
        ({"methods": ["post"]}, ["POST /a"], ["PUT /a"]),
        ({"methods": iter(["PUT"])}, ["PUT /a", "PUT /b"], ["POST /a"]),
        (
            {"methods": {"POST"}, "ignore": ["/a", re.compile("/b/")]},
            ["POST /b", "POST /a/", "POST /%61%2F"],
            ["POST /a", "POST /%61", "POST /b/c"],
        ),
        (
            {"methods": {"POST", "PUT"}, "ignore": {"/a": "post"}},
            ["PUT /a", "POST /b"],
            ["POST /a"],
        ),
        ({"urls": ["/a"]}, ["GET /a", "POST /a?b"], ["POST /b"]),
        ({"urls": [URL("/a")]}, ["GET /a"], ["POST /b"]),
        ({"urls": {"/a": ["PUT"]}}, ["PUT /a"], ["GET /a", "PUT /b"]),
        # %2F stays what it is.
        ({"urls": ["/a/b"]}, ["POST /a/b"], ["POST /a%2Fb"]),
        # Any rule counts, not the first alone.
        (
            {"urls": DOWNLOADS},
            ["GET /downloads/x", "POST /downloads/x", "POST /", "PUT /b"],
            ["GET /", "GET /b"],
        ),
    ],
)
async def test_methods_urls_and_ignore_say_what_is_shielded(
    options: Any, shielded: list[str], left_alone: list[str]
) -> None:
    middleware = shield_middleware(**options)
    found = await asyncio.gather(
        *(is_shielded(middleware, line) for line in shielded + left_alone)
    )
    assert found == [True] * len(shielded) + [False] * len(left_alone)


# Uploads that are not whole
# ==========================


class Upload(Work):
    """Cleans up when it is cancelled, and takes its time for that."""

    async def handler(self, request: web.Request) -> web.Response:
        self.request = request
        self.marks.append("stage 1")
        try:
            return web.Response(body=await request.read())
        except asyncio.CancelledError:
            self.marks.append("cancelled")
            await asyncio.sleep(0.01)
            raise
        finally:
            self.marks.append("cleaned up")


async def test_incomplete_upload_is_cancelled_at_a_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Upload()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    async with live(app, lingering_time=SHORT) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        client.send("POST /work", b"hello", length=100)
        answer = await client.answer()
        # The answer waits for it: aiohttp would read at the same time.
        assert work.marks == ["stage 1", "cancelled", "cleaned up"]
        assert answer.status == 504
        assert await client.rest() == b""
        await eventually(lambda: asyncio.all_tasks() == before)
        client.leave()
    assert logged(caplog) == []


@pytest.mark.parametrize("waits_for", ["upload", "anything else"])
@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
async def test_incomplete_upload_is_cancelled_when_its_client_leaves(
    caplog: pytest.LogCaptureFixture,
    leave: Callable[[Connection], None],
    waits_for: str,
) -> None:
    work = Upload() if waits_for == "upload" else Work()
    async with live(application(POST, work=work)) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        client.send("POST /work", b"hello", length=100)
        await work.begun()
        leave(client)
        await eventually(lambda: asyncio.all_tasks() == before)
        # What waits for the upload may hear of the broken connection first.
        assert len(work.marks) > 1
        assert "stage 2" not in work.marks
    assert logged(caplog) == []


async def test_incomplete_upload_is_no_error_at_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Upload()
    app = application(POST, work=work)
    async with live(app, shutdown_timeout=SHORT) as server:
        client = await server.connect()
        client.send("POST /work", b"hello", length=100)
        await work.begun()
    assert "cleaned up" in work.marks
    client.leave()
    assert logged(caplog) == []


async def test_incomplete_upload_may_answer_its_cancellation() -> None:
    class Answers(Work):
        async def handler(self, request: web.Request) -> web.Response:
            with contextlib.suppress(asyncio.CancelledError):
                await request.read()
            return web.Response(status=408)

    app = application(timeout_middleware(SHORT), POST, work=Answers())
    async with live(app, lingering_time=SHORT) as server:
        client = await server.connect()
        client.send("POST /work", b"hello", length=100)
        assert (await client.answer()).status == 408
        client.leave()


# A timeout outside
# =================


async def test_timeout_outside_answers_at_its_limit_and_the_handler_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    async with live(app) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        post(client)
        answer = await client.answer()
        assert answer.status == 504
        assert answer.rest == b'{"detail": "Request timed out"}'
        assert work.marks == ["stage 1"]
        work.go_on.set()
        await work.ended("stage 2")
        client.leave()
        await eventually(lambda: asyncio.all_tasks() == before)
    assert logged(caplog) == []


async def returns(request: web.Request) -> web.StreamResponse:
    return web.Response(text="LATE")


async def streams(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"LATE")
    return response


async def answers_itself(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="LATE")
    await response.prepare(request)
    await response.write_eof()
    return response


async def sends_file(request: web.Request) -> web.StreamResponse:
    response = web.FileResponse(__file__, headers={"X": "LATE"})
    await response.prepare(request)
    return response


async def opens_socket(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str("LATE")
    return response


async def raises(request: web.Request) -> web.StreamResponse:
    raise web.HTTPConflict(text="LATE")


@pytest.mark.parametrize(
    "end",
    [returns, streams, answers_itself, sends_file, opens_socket, raises],
)
async def test_late_answer_never_reaches_the_connection(end: Handler) -> None:
    class Late(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            try:
                return await end(request)
            finally:
                self.marks.append("tried")

    work = Late()
    shield = shield_middleware(urls=["/work"])
    app = application(
        error_middleware(), timeout_middleware(SHORT), shield, work=work
    )
    async with live(app) as server:
        client = await server.connect()
        upgrade = (
            "Connection: upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        client.send("GET /work", fields=upgrade if end is opens_socket else "")
        assert (await client.answer()).status == 504
        work.go_on.set()
        await eventually(lambda: "tried" in work.marks)
        # The same connection goes on to serve others.
        client.send("GET /quick", fields="Connection: close\r\n")
        answer = await client.answer()
        assert (answer.status, answer.rest) == (200, b"quick")
        assert await client.rest() == b""
        client.leave()


async def test_answer_that_was_prepared_in_time_is_not_written_late() -> None:
    class Prepares(Work):
        async def handler(self, request: web.Request) -> web.StreamResponse:
            self.response = web.Response(text="LATE")
            await self.response.prepare(request)  # nothing is sent yet
            return await super().handler(request)

        async def end(self, request: web.Request) -> web.StreamResponse:
            with pytest.raises(ClientConnectionResetError, match="already"):
                await self.response.write(b"LATE")
            await self.response.write_eof()
            return self.response

    work = Prepares()
    app = application(timeout_middleware(SHORT), POST, work=work)
    async with live(app) as server:
        client = await server.connect()
        post(client)
        assert (await client.answer()).status == 504
        work.go_on.set()
        await work.ended("stage 2")
        assert b"LATE" not in await client.rest()
        client.leave()


async def test_stream_that_was_given_up_is_not_followed_by_an_answer() -> None:
    """A middleware of somebody else's may not know that it has started."""
    given_up = asyncio.Event()

    @web.middleware
    async def gives_up(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        handling = asyncio.ensure_future(handler(request))
        await given_up.wait()
        handling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await handling
        return web.Response(text="given up")

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"hello")
        await asyncio.sleep(LONG)
        return response

    shield = shield_middleware(urls=["/stream"])
    app = application(gives_up, shield, stream=stream)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app) as server:
        client = await server.connect()
        client.send("GET /stream")
        await client.head()
        assert await client.until(b"hello\r\n") == b"5\r\nhello\r\n"
        given_up.set()
        assert await client.rest() == b""  # and the connection is closed
        client.leave()
        with_patience = aiohttp_middlewares.shield.DEFAULT_DRAIN_TIMEOUT
        try:
            aiohttp_middlewares.shield.DEFAULT_DRAIN_TIMEOUT = 0.01
            await server.runner.cleanup()
        finally:
            aiohttp_middlewares.shield.DEFAULT_DRAIN_TIMEOUT = with_patience


async def test_body_that_was_not_read_before_a_timeout_is_an_error_that_shows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the module says under Limits."""

    class Reads(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            try:
                return web.Response(body=await request.read())
            finally:
                self.marks.append("tried")

    work = Reads()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    async with live(app) as server:
        client = await server.connect()
        post(client)
        assert (await client.answer()).status == 504
        work.go_on.set()
        await work.ended("tried")
        await eventually(lambda: logged(caplog))
        client.leave()
    assert messages(caplog) == [FAILED]
    assert "PayloadAccessError" in caplog.text


async def test_timeout_inside_cancels_what_was_to_be_shielded() -> None:
    work = Work()
    app = application(POST, timeout_middleware(SHORT), work=work)
    async with live(app) as server:
        client = await server.connect()
        post(client)
        assert (await client.answer()).status == 504
        assert work.marks == ["stage 1", "cancelled"]
        client.leave()


@pytest.mark.parametrize("handler_cancellation", [True, False])
async def test_timeout_after_the_client_left_cancels_nothing(
    caplog: pytest.LogCaptureFixture, handler_cancellation: bool
) -> None:
    work = Work()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    options = {"handler_cancellation": handler_cancellation}
    async with live(app, **options) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        post(client)
        await work.begun()
        client.reset()
        await work.client_is_gone()
        await eventually(lambda: "timed out after" in caplog.text)
        await asyncio.sleep(0)
        assert server.connections() == 1  # aiohttp knows that it is at work
        work.go_on.set()
        await work.ended("stage 2")
        await eventually(lambda: asyncio.all_tasks() == before)
        await eventually(lambda: server.connections() == 0)
    assert logged(caplog) == []


# Handlers that nobody waits for
# ==============================


@pytest.mark.parametrize("why", ["client left", "timeout"])
async def test_handler_is_kept_while_it_waits_for_what_only_it_knows(
    why: str,
) -> None:
    waiting: list[weakref.ref[asyncio.Future[None]]] = []
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        future = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        try:
            await future
        finally:
            ended.set()
        return web.Response()

    seconds = SHORT if why == "timeout" else LONG
    app = application(timeout_middleware(seconds), POST, handler=handler)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /handler", fields="Connection: close\r\n")
        await eventually(lambda: waiting)
        if why == "timeout":
            await client.rest()
        client.leave()
        if why == "timeout":
            await eventually(lambda: not server.connections())
        gc.collect()
        assert not ended.is_set()
        future = waiting[0]()
        assert future is not None
        future.set_result(None)
        await soon(ended.wait())


async def after(why: str, work: Work, caplog: Any) -> None:
    """Let it end after its client left, or after a timeout."""
    seconds = SHORT if why == "timeout" else LONG
    app = application(
        error_middleware(), timeout_middleware(seconds), POST, work=work
    )
    async with live(app) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        post(client)
        await work.begun()
        if why == "timeout":
            assert (await client.answer()).status == 504
        client.leave()
        await work.client_is_gone()
        work.go_on.set()
        await eventually(lambda: asyncio.all_tasks() == before)
        await asyncio.sleep(0)


def fails_with(exc: BaseException) -> Work:
    class Fails(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            raise exc

    return Fails()


@pytest.mark.parametrize("why", ["client left", "timeout"])
@pytest.mark.parametrize(
    "exc",
    [
        ZeroDivisionError("by zero"),
        # Of the database, say; not of the client.
        ConnectionResetError("peer"),
        ClientConnectionResetError("Cannot write to closing transport"),
        web.HTTPInternalServerError(),
        web.HTTPBadGateway(),
        asyncio.TimeoutError(),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_failure_that_nobody_hears_of_is_logged_once(
    caplog: pytest.LogCaptureFixture, why: str, exc: Exception
) -> None:
    await after(why, fails_with(exc), caplog)
    [record] = logged(caplog)
    assert record.getMessage() == FAILED
    assert record.name == "aiohttp_middlewares.shield"
    assert record.exc_info is not None
    assert record.exc_info[1] is exc
    assert record.__dict__["method"] == "POST"
    assert record.__dict__["path"] == "/work"
    assert "in end" in caplog.text  # the traceback
    exc.__traceback__ = None


@pytest.mark.parametrize("why", ["client left", "timeout"])
@pytest.mark.parametrize(
    "exc", [web.HTTPBadRequest(), web.HTTPFound("/"), web.HTTPNotFound()]
)
async def test_answer_that_nobody_hears_of_is_not_logged(
    caplog: pytest.LogCaptureFixture, why: str, exc: Exception
) -> None:
    await after(why, fails_with(exc), caplog)
    assert logged(caplog) == []
    exc.__traceback__ = None


async def test_stream_to_a_client_that_left_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Streams(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            return await streams(request)

    await after("client left", Streams(), caplog)
    assert logged(caplog) == []


@pytest.mark.parametrize("handler_cancellation", [True, False])
@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
async def test_client_that_leaves_in_the_middle_of_a_stream_is_no_error(
    caplog: pytest.LogCaptureFixture,
    handler_cancellation: bool,
    leave: Callable[[Connection], None],
) -> None:
    """The writing handler hears of it in the same turn as the request."""
    ended: list[BaseException] = []

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(10_000):  # more than any buffer holds
                await response.write(b"x" * 10_000)
        except BaseException as exc:
            ended.append(exc)
            raise
        raise AssertionError

    app = application(error_middleware(), POST, endless=endless)
    options = {"handler_cancellation": handler_cancellation}
    async with live(app, **options) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        client.send("POST /endless")
        await client.head()
        leave(client)
        await eventually(lambda: asyncio.all_tasks() == before)
    assert len(ended) == 1
    assert logged(caplog) == []


@pytest.mark.parametrize(
    ("exc", "errors"),
    [
        (web.HTTPConflict(), []),
        (web.HTTPBadGateway(), [FAILED]),
        (ZeroDivisionError(), [FAILED]),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_error_middleware_inside_changes_nothing_of_what_is_logged(
    caplog: pytest.LogCaptureFixture, exc: Exception, errors: list[str]
) -> None:
    """It has no answer to give any more, and raises."""
    shielded = application(
        timeout_middleware(SHORT),
        POST,
        error_middleware(),
        work=(work := fails_with(exc)),
    )
    async with live(shielded) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        post(client)
        assert (await client.answer()).status == 504
        client.leave()
        work.go_on.set()
        await eventually(lambda: asyncio.all_tasks() == before)
    ours = [r for r in logged(caplog) if r.name != "aiohttp.server"]
    assert [record.getMessage() for record in ours] == errors
    exc.__traceback__ = None


@pytest.mark.parametrize("end", [streams, answers_itself, sends_file])
async def test_late_answer_that_is_refused_is_not_logged(
    caplog: pytest.LogCaptureFixture, end: Handler
) -> None:
    class Late(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            return await end(request)

    await after("timeout", Late(), caplog)
    assert logged(caplog) == []


async def test_failure_while_the_client_is_there_is_not_ours_to_log(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    app = application(error_middleware(), POST, handler=handler)
    client = await aiohttp_client(app)
    assert (await client.post("/handler")).status == 500
    assert {r.name for r in logged(caplog)} == {"aiohttp_middlewares.error"}


@pytest.mark.parametrize("fails", [False, True])
async def test_ending_in_the_moment_of_the_timeout_loses_no_exception(
    caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    """The handler has ended, and the shield has not yet heard of it."""

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(outer[0].cancel)
        if fails:
            raise ZeroDivisionError
        return web.Response()

    @web.middleware
    async def cancels(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outer.append(asyncio.ensure_future(handler(request)))
        await asyncio.wait(outer)
        assert outer[0].cancelled()
        return web.Response(text="cancelled")

    outer: list[asyncio.Future[web.StreamResponse]] = []
    app = application(cancels, POST, handler=handler)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /handler")
        assert (await client.answer()).rest == b"cancelled"
        client.leave()
    assert messages(caplog) == [FAILED.replace("work", "handler")] * fails


async def test_handler_that_was_cancelled_by_itself_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = fails_with(asyncio.CancelledError())
    async with live(application(POST, work=work)) as server:
        client = await server.connect()
        post(client)
        await work.begun()
        work.go_on.set()
        assert await client.rest() == b""
        client.leave()
    assert messages(caplog) == [CANCELLED]


# What the handler sets
# =====================

NAME: ContextVar[str] = ContextVar("NAME")
OTHER: ContextVar[str] = ContextVar("OTHER", default="default")


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_context_variables_set_inside_are_seen_outside(
    aiohttp_client: AiohttpClient, waits: bool, fails: bool
) -> None:
    seen: list[tuple[str, str]] = []

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        token = NAME.set("outside")
        try:
            return await handler(request)
        finally:
            seen.append((NAME.get(), OTHER.get()))
            NAME.reset(token)
            seen.append((NAME.get("unset"), OTHER.get()))

    async def handler(request: web.Request) -> web.Response:
        assert NAME.get() == "outside"
        NAME.set("inside")
        if waits:
            await asyncio.sleep(0)
        token = OTHER.set("for a moment")
        OTHER.reset(token)
        OTHER.set("inside as well")
        if fails:
            raise web.HTTPConflict
        return web.Response()

    client = await aiohttp_client(application(outside, POST, handler=handler))
    await client.post("/handler")
    assert seen == [
        ("inside", "inside as well"),
        ("unset", "inside as well"),
    ]


async def test_context_variables_of_one_request_are_not_seen_in_the_next(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(NAME.get("unset"))
        await asyncio.sleep(0)
        NAME.set("set")
        return web.Response()

    client = await aiohttp_client(application(POST, handler=handler))
    for _ in range(2):
        await client.post("/handler")
    assert seen == ["unset", "unset"]


# Kinds of handlers and of answers
# ================================


async def test_class_based_views_are_shielded(
    aiohttp_client: AiohttpClient,
) -> None:
    class View(web.View):
        async def post(self) -> web.Response:
            await asyncio.sleep(0)
            return web.Response(text="view")

    app = web.Application(middlewares=[POST])
    app.router.add_view("/view", View)
    client = await aiohttp_client(app)
    assert await (await client.post("/view")).text() == "view"
    assert (await client.put("/view")).status == 405


async def test_every_kind_of_answer_passes_as_it_is(
    aiohttp_client: AiohttpClient, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("file")

    async def found(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    async def send(request: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"stream")
        return response

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str(await ws.receive_str())
        await ws.close()
        return ws

    app = application(
        shield_middleware(urls=[re.compile("/")]),
        found=found,
        send=send,
        stream=stream,
        echo=echo,
    )
    client = await aiohttp_client(app)
    response = await client.get("/found", allow_redirects=False)
    assert response.headers[hdrs.LOCATION] == "/elsewhere"
    assert await (await client.get("/send")).text() == "file"
    assert await (await client.get("/stream")).text() == "stream"
    assert (await client.get("/nowhere")).status == 404
    async with client.ws_connect("/echo") as ws:
        await ws.send_str("hello")
        assert await ws.receive_str() == "hello"


async def test_eager_tasks_are_shielded_as_well() -> None:
    begin_tasks_at_once()
    work = Work()
    async with live(application(POST, work=work)) as server:
        connection = await gone(server, work)
        work.go_on.set()
        await work.ended("stage 2")
        connection.leave()


def test_one_middleware_serves_one_event_loop_after_the_other() -> None:
    shield = shield_middleware(methods=["POST"])

    async def main() -> None:
        assert await is_shielded(shield, "POST /")
        assert not await is_shielded(shield, "GET /")

    for _ in range(2):
        asyncio.run(main())


def test_one_middleware_serves_two_event_loops_at_once() -> None:
    shield = shield_middleware(methods=["POST"])
    found: list[bool] = []

    async def main() -> None:
        for _ in range(5):
            found.append(await is_shielded(shield, "POST /"))

    threads = [
        threading.Thread(target=asyncio.run, args=[main()]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 10


# The server shuts down
# =====================


async def gone(server: Live, work: Work) -> Connection:
    client = await server.connect()
    post(client)
    await work.begun()
    client.leave()
    await work.client_is_gone()
    return client


async def there(server: Live, work: Work) -> Connection:
    client = await server.connect()
    post(client)
    await work.begun()
    return client


async def timed_out(server: Live, work: Work) -> Connection:
    client = await server.connect()
    post(client)
    assert (await client.answer()).status == 504
    return client


Client = Callable[[Live, Work], Awaitable[Connection]]


@pytest.mark.parametrize("client", [gone, there])
async def test_shutdown_waits_for_the_handler(
    caplog: pytest.LogCaptureFixture, client: Client
) -> None:
    work = Work()
    app = application(POST, work=work)

    async def on_shutdown(app: web.Application) -> None:
        work.marks.append("on_shutdown")
        asyncio.get_running_loop().call_later(0.02, work.go_on.set)

    app.on_shutdown.append(on_shutdown)
    async with live(app) as server:
        connection = await client(server, work)
    assert work.marks == ["stage 1", "on_shutdown", "stage 2", "on_cleanup"]
    if client is there:
        assert (await connection.answer()).rest == b"written"
    connection.leave()
    assert logged(caplog) == []


@pytest.mark.parametrize("shields", [1, 2, 3])
@pytest.mark.parametrize("client", [gone, there])
async def test_shutdown_limit_cancels_the_handler_before_on_cleanup(
    caplog: pytest.LogCaptureFixture, client: Client, shields: int
) -> None:
    work = Work()
    middlewares = [shield_middleware(methods=["POST"]) for _ in range(shields)]
    app = application(*middlewares, work=work)
    # With shields in shields it takes some turns of the event loop.
    app.cleanup_ctx.append(drain_shielded)
    async with live(app, shutdown_timeout=SHORT) as server:
        connection = await client(server, work)
    assert work.marks == ["stage 1", "cancelled", "on_cleanup"]
    connection.leave()
    [record] = logged(caplog)
    assert record.getMessage() == CANCELLED
    assert record.__dict__["method"] == "POST"
    assert record.__dict__["path"] == "/work"


@pytest.mark.parametrize("client", [gone, there])
async def test_shutdown_limit_needs_no_drain(
    caplog: pytest.LogCaptureFixture, client: Client
) -> None:
    work = Work()
    app = application(POST, work=work)
    async with live(app, shutdown_timeout=SHORT) as server:
        connection = await client(server, work)
    assert work.marks == ["stage 1", "cancelled", "on_cleanup"]
    connection.leave()
    assert messages(caplog) == [CANCELLED]


async def test_handler_that_fails_at_the_limit_does_not_stop_the_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """aiohttp waits for what it takes for its own task, which never fails."""
    work = fails_with(ZeroDivisionError())
    app = application(POST, work=work)

    async def fail_in_the_second_half() -> None:
        assert work.request is not None
        content = work.request.content
        # aiohttp says by this that the first one is over.
        await eventually(
            lambda: isinstance(content.exception(), asyncio.CancelledError)
        )
        work.go_on.set()

    async with live(app, shutdown_timeout=0.5) as server:
        connection = await gone(server, work)
        failing = asyncio.create_task(fail_in_the_second_half())
    await failing
    connection.leave()
    assert work.marks == ["stage 1", "on_cleanup"]
    assert messages(caplog) == [FAILED]


async def test_handler_that_cleans_up_at_the_limit_is_waited_for_by_drain() -> (
    None
):
    class CleansUp(Work):
        async def handler(self, request: web.Request) -> web.StreamResponse:
            try:
                return await super().handler(request)
            finally:
                await asyncio.sleep(0.02)
                self.marks.append("cleaned up")

    work = CleansUp()
    app = application(POST, work=work)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app, shutdown_timeout=SHORT) as server:
        connection = await gone(server, work)
    connection.leave()
    assert work.marks == ["stage 1", "cancelled", "cleaned up", "on_cleanup"]


async def test_without_the_private_attribute_nothing_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A future aiohttp may have none: then the limit of the shutdown is not
    noticed, and drain_shielded is needed for that too."""
    monkeypatch.setattr(
        web.BaseRequest, "protocol", property(lambda request: object())
    )
    work = Work()
    app = application(POST, work=work)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app, shutdown_timeout=SHORT) as server:
        connection = await gone(server, work)
        loop = asyncio.get_running_loop()
        loop.call_later(SHORT * 3, work.go_on.set)
    connection.leave()
    assert work.marks == ["stage 1", "stage 2", "on_cleanup"]
    assert logged(caplog) == []


# drain_shielded
# ==============


def drained(app: web.Application, work: Work) -> web.Application:
    async def on_drain(app: web.Application) -> AsyncIterator[None]:
        yield
        work.marks.append("draining")
        asyncio.get_running_loop().call_later(0.02, work.go_on.set)

    app.cleanup_ctx.append(drain_shielded)
    app.cleanup_ctx.append(on_drain)
    return app


async def test_drain_waits_for_handlers_that_timed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aiohttp_middlewares.shield")
    work = Work()
    app = application(timeout_middleware(SHORT), POST, work=work)
    async with live(drained(app, work)) as server:
        connection = await timed_out(server, work)
    connection.leave()
    assert work.marks == ["stage 1", "draining", "stage 2", "on_cleanup"]
    assert "Waiting for 1 shielded handlers" in caplog.text


async def test_without_drain_they_are_lost_and_an_error_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    async with live(app) as server:
        before = asyncio.all_tasks()
        connection = await timed_out(server, work)
    connection.leave()
    assert work.marks == ["stage 1", "on_cleanup"]
    for task in asyncio.all_tasks() - before:  # as run_app does at last
        task.cancel()
    await work.ended("on_cleanup", "cancelled")
    await eventually(lambda: messages(caplog) == [CANCELLED])


async def test_drain_finds_handlers_in_sub_applications() -> None:
    found: dict[str, list[str]] = {}
    works: dict[str, Work] = {}
    app = web.Application(middlewares=[timeout_middleware(SHORT)])

    async def on_drain(app: web.Application) -> AsyncIterator[None]:
        yield
        for work in works.values():
            work.marks.append("draining")
            asyncio.get_running_loop().call_later(0.02, work.go_on.set)

    app.cleanup_ctx.append(drain_shielded)
    app.cleanup_ctx.append(on_drain)

    def subapp(name: str) -> web.Application:
        works[name] = Work()
        shield = shield_middleware(methods=["POST"])
        return application(shield, work=works[name])

    middle = web.Application()
    middle.add_subapp("/inner", subapp("/middle/inner"))
    app.add_domain("b.example", subapp("b.example"))
    app.add_subapp("/sub", subapp("/sub"))
    app.add_subapp("/middle", middle)
    app.router.add_static("/static", Path(__file__).parent)
    async with live(app) as server:
        for name in works:
            client = await server.connect()
            host, path = ("b.example", "") if "." in name else ("a", name)
            client.write(f"POST {path}/work HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert (await client.answer()).status == 504
            client.leave()
    for name, work in works.items():
        found[name] = work.marks
    expected = ["stage 1", "draining", "stage 2", "on_cleanup"]
    assert found == dict.fromkeys(
        ["/middle/inner", "b.example", "/sub"], expected
    )


async def test_drain_cancels_what_takes_too_long_before_on_cleanup(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        aiohttp_middlewares.shield, "DEFAULT_DRAIN_TIMEOUT", 0.01
    )
    work = Work()
    app = application(
        error_middleware(), timeout_middleware(SHORT), POST, work=work
    )
    app.cleanup_ctx.append(drain_shielded)
    async with live(app) as server:
        connection = await timed_out(server, work)
    connection.leave()
    assert work.marks == ["stage 1", "cancelled", "on_cleanup"]
    assert messages(caplog) == [CANCELLED]


async def test_drain_does_not_wait_for_ever_for_who_will_not_be_cancelled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As aiohttp does not: the database is closed, and the process ends."""
    monkeypatch.setattr(
        aiohttp_middlewares.shield, "DEFAULT_DRAIN_TIMEOUT", 0.01
    )
    enough, marks = asyncio.Event(), []

    async def stubborn(request: web.Request) -> web.Response:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        marks.append("stage 2")
        return web.Response()

    async def on_cleanup(app: web.Application) -> None:
        marks.append("on_cleanup")

    app = web.Application(middlewares=[timeout_middleware(SHORT), POST])
    app.router.add_post("/work", stubborn)
    app.on_cleanup.append(on_cleanup)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /work")
        assert (await client.answer()).status == 504
        client.leave()
    assert marks == ["on_cleanup"]
    assert CANCELLED in messages(caplog)
    enough.set()
    await eventually(lambda: "stage 2" in marks)


async def test_drain_waits_for_a_minute_as_aiohttp_does() -> None:
    assert aiohttp_middlewares.shield.DEFAULT_DRAIN_TIMEOUT == 60


async def test_drain_leaves_the_handlers_of_other_applications_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They may share the middleware, and go on being served."""
    monkeypatch.setattr(
        aiohttp_middlewares.shield, "DEFAULT_DRAIN_TIMEOUT", 0.01
    )
    work, other = Work(), Work()
    shared = timeout_middleware(SHORT), shield_middleware(methods=["POST"])
    app = application(*shared, work=work)
    app.cleanup_ctx.append(drain_shielded)
    async with live(application(*shared, work=other)) as stays:
        other_connection = await timed_out(stays, other)
        async with live(app):
            pass
        assert other.marks == ["stage 1"]
        other.go_on.set()
        await other.ended("stage 2")
        other_connection.leave()


async def test_drain_with_nothing_to_wait_for_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aiohttp_middlewares")
    app = application(POST)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /quick")
        assert (await client.answer()).status == 200
        client.leave()
    assert "shielded" not in caplog.text


# Nested shields
# ==============


async def test_shields_in_shields_do_as_one() -> None:
    work = Work()
    app = application(POST, shield_middleware(urls=["/work"]), work=work)
    async with live(app) as server:
        connection = await gone(server, work)
        work.go_on.set()
        await work.ended("stage 2")
        connection.leave()


async def test_timeout_between_shields_answers_and_the_handler_goes_on() -> (
    None
):
    work = Work()
    app = application(
        POST,
        timeout_middleware(SHORT),
        shield_middleware(methods=["POST"]),
        work=work,
    )
    async with live(app) as server:
        connection = await timed_out(server, work)
        work.go_on.set()
        await work.ended("stage 2")
        connection.leave()


async def test_timeout_between_shields_after_the_client_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()
    app = application(
        POST,
        timeout_middleware(SHORT),
        shield_middleware(methods=["POST"]),
        work=work,
    )
    async with live(app) as server:
        connection = await gone(server, work)
        await eventually(lambda: "timed out after" in caplog.text)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.go_on.set()
        await work.ended("stage 2")
        connection.leave()


# What it keeps
# =============


@pytest.mark.parametrize("how", ["answers", "fails", "HTTPException"])
@pytest.mark.parametrize("waits", [True, False])
async def test_request_is_let_go_at_once(
    aiohttp_client: AiohttpClient, how: str, waits: bool
) -> None:
    kept: list[weakref.ref[web.Request]] = []

    async def handler(request: web.Request) -> web.Response:
        kept.append(weakref.ref(request))
        if waits:
            await asyncio.sleep(0)
        if how == "fails":
            raise ZeroDivisionError
        if how == "HTTPException":
            raise web.HTTPConflict
        return web.Response()

    app = application(error_middleware(), POST, handler=handler)
    client = await aiohttp_client(app)
    logging.disable()  # caplog would keep the exceptions
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await (await client.post("/handler")).read()
        # aiohttp holds the last one while it waits for the next.
        await eventually(lambda: [ref() for ref in kept[:2]] == [None] * 2)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("client", [gone, timed_out])
async def test_request_that_was_outlived_is_let_go_at_once(
    client: Client, fails: bool
) -> None:
    seconds = LONG if client is gone else SHORT

    class Fails(Work):
        async def end(self, request: web.Request) -> web.StreamResponse:
            raise ZeroDivisionError

    work = Fails() if fails else Work()
    app = application(
        error_middleware(), timeout_middleware(seconds), POST, work=work
    )
    logging.disable()
    try:
        async with live(app) as server:
            before = asyncio.all_tasks()
            gc.collect()
            gc.disable()
            connection = await client(server, work)
            connection.leave()
            await work.client_is_gone()
            work.go_on.set()
            await eventually(lambda: asyncio.all_tasks() == before)
            assert work.request is not None
            kept = weakref.ref(work.request)
            work.request = None
            await eventually(lambda: kept() is None)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
    assert not getattr(POST, "shielded_handlers")  # noqa: B009


# For real: a process, SIGTERM
# ============================


class Process:
    """tests/shield_server.py, and what it wrote."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.file = path / "written"
        self.file.touch()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.options = {
            "client": "stays",
            "drain": None,
            "file": str(self.file),
            "handler_cancellation": True,
            "seconds": 0.05,
            "shutdown_timeout": 20,
            "socket": self.socket.fileno(),
            "timeout": None,
            **options,
        }

    @property
    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()

    async def run(self) -> tuple[list[str], str, bytes]:
        """Send a request, then SIGTERM; the lines, the log and the answer."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "error",
            str(Path(__file__).with_name("shield_server.py")),
            json.dumps(self.options),
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[self.socket.fileno()],
        )
        try:
            address = self.socket.getsockname()
            client = Connection(*await asyncio.open_connection(*address))
            client.send("POST /write", b"hello")
            await eventually(lambda: "stage 1" in self.lines)
            answer = b""
            if self.options["timeout"] is not None:
                assert (await client.answer()).status == 504
            if self.options["client"] == "leaves":
                client.leave()
                await eventually(lambda: "client left" in self.lines)
            process.send_signal(signal.SIGTERM)
            if self.options["client"] == "stays":
                answer = await client.rest()
                client.leave()
            _, log = await soon(process.communicate())
        except BaseException:
            process.kill()
            await process.wait()
            raise
        finally:
            self.socket.close()
        assert process.returncode == 0, log
        return self.lines, log.decode(), answer


STOPPED = ["database closed", "on_cleanup"]


@pytest.mark.parametrize("handler_cancellation", [True, False])
async def test_real_write_is_finished_after_the_client_left_and_sigterm(
    tmp_path: Path, handler_cancellation: bool
) -> None:
    process = Process(
        tmp_path, client="leaves", handler_cancellation=handler_cancellation
    )
    lines, log, _ = await process.run()
    assert lines == [
        "stage 1",
        "client left",
        "on_shutdown",
        "stage 2",
        *STOPPED,
    ]
    assert log == ""


@pytest.mark.parametrize("handler_cancellation", [True, False])
async def test_real_write_is_finished_and_answered_after_sigterm(
    tmp_path: Path, handler_cancellation: bool
) -> None:
    process = Process(tmp_path, handler_cancellation=handler_cancellation)
    lines, log, answer = await process.run()
    assert lines == ["stage 1", "on_shutdown", "stage 2", *STOPPED]
    assert answer.endswith(b"\r\n\r\nwritten")
    assert log == ""


@pytest.mark.parametrize(
    ("client", "handler_cancellation"),
    [("leaves", True), ("stays", True), ("stays", False)],
)
async def test_real_write_that_takes_too_long_is_cancelled_before_on_cleanup(
    tmp_path: Path, client: str, handler_cancellation: bool
) -> None:
    process = Process(
        tmp_path,
        client=client,
        handler_cancellation=handler_cancellation,
        seconds=LONG,
        shutdown_timeout=0.1,
    )
    lines, log, answer = await process.run()
    left = ["client left"] if client == "leaves" else []
    assert lines == ["stage 1", *left, "on_shutdown", "cancelled", *STOPPED]
    assert log.splitlines() == [
        "ERROR aiohttp_middlewares.shield: "
        + CANCELLED.replace("/work", "/write")
    ]
    assert answer == b""


async def test_real_limit_is_not_noticed_without_handler_cancellation(
    tmp_path: Path,
) -> None:
    """What the module says under Limits, and aiohttp itself does."""
    process = Process(
        tmp_path,
        client="leaves",
        handler_cancellation=False,
        seconds=LONG,
        shutdown_timeout=0.1,
    )
    lines, log, _ = await process.run()
    assert lines == [
        "stage 1",
        "client left",
        "on_shutdown",
        *STOPPED,
        "cancelled",
    ]
    assert log.count("ERROR") == 1
    assert "POST /write was cancelled" in log


async def test_real_drain_saves_that_write(tmp_path: Path) -> None:
    process = Process(
        tmp_path,
        client="leaves",
        handler_cancellation=False,
        seconds=0.5,
        shutdown_timeout=0.1,
        drain=20,
    )
    lines, log, _ = await process.run()
    assert lines == [
        "stage 1",
        "client left",
        "on_shutdown",
        "stage 2",
        *STOPPED,
    ]
    assert log == ""


@pytest.mark.parametrize("client", ["leaves", "stays"])
@pytest.mark.parametrize("handler_cancellation", [True, False])
async def test_real_write_that_timed_out_is_finished_by_drain(
    tmp_path: Path, client: str, handler_cancellation: bool
) -> None:
    process = Process(
        tmp_path,
        client=client,
        handler_cancellation=handler_cancellation,
        timeout=0.05,
        drain=20,
    )
    lines, log, answer = await process.run()
    left = ["client left"] if client == "leaves" else []
    assert lines == ["stage 1", *left, "on_shutdown", "stage 2", *STOPPED]
    assert b"written" not in answer
    assert "ERROR aiohttp_middlewares" not in log


async def test_real_drain_cancels_what_takes_too_long(tmp_path: Path) -> None:
    process = Process(tmp_path, timeout=0.05, drain=0.1, seconds=LONG)
    lines, log, _ = await process.run()
    assert lines == ["stage 1", "on_shutdown", "cancelled", *STOPPED]
    assert log.count("ERROR aiohttp_middlewares.shield") == 1


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, ValueError, "takes methods or urls, got neither"),
        ({"methods": []}, ValueError, "got neither"),
        ({"urls": {}}, ValueError, "got neither"),
        ({"methods": [], "urls": []}, ValueError, "got neither"),
        ({"ignore": ["/a"]}, ValueError, "got neither"),
        ({"methods": ["POST"], "urls": ["/"]}, ValueError, "got both"),
        (
            {"urls": ["/"], "ignore": ["/a"]},
            ValueError,
            "takes ignore together with methods only",
        ),
        # These shielded nothing.
        ({"methods": "POST"}, TypeError, "did you mean ['POST']?"),
        ({"urls": "/x"}, TypeError, "did you mean ['/x']?"),
        (
            {"methods": ["POST"], "ignore": "/x"},
            TypeError,
            "did you mean ['/x']?",
        ),
        ({"methods": 5}, TypeError, "methods should be"),
        ({"methods": [5]}, TypeError, "methods should be"),
        ({"methods": ["POST PUT"]}, ValueError, "methods should be"),
        ({"methods": ["POST,PUT"]}, ValueError, "mean ['POST', 'PUT']?"),
        ({"methods": ["*"]}, ValueError, "methods should be"),
        ({"methods": {"POST": 1}}, TypeError, "methods should be"),
        ({"urls": 5}, TypeError, "urls should be"),
        ({"urls": [5]}, TypeError, "urls should be"),
        ({"urls": ["x"]}, ValueError, "did you mean '/x'?"),
        ({"urls": ["*"]}, ValueError, "urls should be"),
        (
            {"urls": [r"^/documents/\d+"]},
            ValueError,
            r"did you mean re.compile('^/documents/\\d+')?",
        ),
        ({"urls": [re.compile(b"/x")]}, TypeError, "urls should be"),
        ({"urls": {"/x": None}}, TypeError, "urls['/x'] should be"),
        ({"urls": {"/x": 5}}, TypeError, "urls['/x'] should be"),
        ({"urls": {"/x": "*"}}, ValueError, "urls['/x'] should be"),
        ({"urls": {"/x": ["GET,PUT"]}}, ValueError, "urls['/x'] should be"),
        (
            {"methods": ["POST"], "ignore": {"/x": 5}},
            TypeError,
            "ignore['/x'] should be",
        ),
    ],
    ids=str,
)
def test_wrong_options_are_refused(
    options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        shield_middleware(**options)
    assert said in str(caught.value)
    assert str(caught.value).startswith("shield_middleware ")
    assert "\n" not in str(caught.value)


def test_options_are_keywords_as_they_were_upstream() -> None:
    with pytest.raises(TypeError):
        shield_middleware(["POST"])  # type: ignore[call-arg]
    shield_middleware(methods=["POST"], urls=None, ignore=None)
    shield_middleware(methods=["POST"], urls=[], ignore=[])
    shield_middleware(urls=["/"], methods=frozenset())
