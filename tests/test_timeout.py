"""timeout_middleware: which limit strikes whom, and what is left of it."""

import asyncio
import contextlib
import gc
import logging
import math
import re
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import make_mocked_request
from live import Live, begin_tasks_at_once, complaints, eventually, live, soon
from pytest_aiohttp.plugin import AiohttpClient
from yarl import URL

from aiohttp_middlewares import error_middleware, timeout_middleware
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.timeout import RequestTimeout, _Queue

#: The limit where one is to be reached, and where none is to be reached.
SHORT = 0.05
LONG = 60.0


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_lost() -> Iterator[None]:
    """No test leaves an exception that asyncio complains of."""
    with complaints() as found:
        yield
    assert found == []


async def forever(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def quick(request: web.Request) -> web.Response:
    return web.Response(text="quick")


def application(
    *middlewares: Middleware, **handlers: Handler
) -> web.Application:
    """``/slow``, ``/quick``, and other handlers by the name of their path."""
    app = web.Application(middlewares=middlewares)
    for name, handler in {"slow": forever, "quick": quick, **handlers}.items():
        app.router.add_route("*", f"/{name}", handler)
    return app


async def limit_strikes(server: Live) -> None:
    """Wait until the limit of all earlier requests has been reached.

    They expire in the order in which they came.
    """
    client = await server.connect()
    client.send("GET /slow")
    assert (await client.answer()).status == 504
    client.leave()


class Seen:
    """A middleware that keeps what passed it."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.returned: list[web.StreamResponse] = []
        self.cancelling: list[int] = []

    def middleware(self) -> Middleware:
        @web.middleware
        async def seen(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            try:
                response = await handler(request)
            except BaseException as exc:
                self.raised.append(exc)
                raise
            else:
                self.returned.append(response)
                return response
            finally:
                if sys.version_info >= (3, 11):
                    task = asyncio.current_task()
                    assert task is not None
                    self.cancelling.append(task.cancelling())

        return seen


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "aiohttp_middlewares.timeout"
    ]


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.name}: {record.getMessage()}"
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]


# What it does
# ============


async def test_error_middleware_answers_504_with_a_body(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application(error_middleware(), timeout_middleware(SHORT))
    client = await aiohttp_client(app)
    response = await client.get("/slow")
    assert response.status == 504
    assert await response.json() == {"detail": "Request timed out"}


async def test_without_error_middleware_aiohttp_answers_504(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(timeout_middleware(SHORT)))
    response = await client.get("/slow")
    assert response.status == 504
    assert await response.text() == ""


async def test_what_is_raised_can_be_told_from_other_timeouts(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = Seen()
    app = application(seen.middleware(), timeout_middleware(SHORT))
    client = await aiohttp_client(app)
    await client.get("/slow")
    [exc] = seen.raised
    assert isinstance(exc, RequestTimeout)
    assert isinstance(exc, asyncio.TimeoutError)
    assert exc.status == 504
    assert exc.message == str(exc) == "Request timed out"
    assert isinstance(exc.__cause__, asyncio.CancelledError)


async def test_handler_in_time_answers_as_ever(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    app = application(seen.middleware(), timeout_middleware(LONG))
    client = await aiohttp_client(app)
    response = await client.get("/quick")
    assert (response.status, await response.text()) == (200, "quick")
    assert not any(seen.cancelling)
    assert warnings_of(caplog) == []


async def test_handler_is_cancelled_and_cleans_up_before_the_answer(
    aiohttp_client: AiohttpClient,
) -> None:
    done: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        try:
            return await forever(request)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            done.append("cleaned up")

    app = application(timeout_middleware(SHORT), handler=handler)
    client = await aiohttp_client(app)
    assert (await client.get("/handler")).status == 504
    assert done == ["cancelled", "cleaned up"]


async def test_each_expiry_is_one_warning_that_names_the_request(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(
        error_middleware(), timeout_middleware(LONG, limits={"/slow": SHORT})
    )
    client = await aiohttp_client(app)
    await client.post("/slow?token=secret")
    [record] = warnings_of(caplog)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"POST /slow timed out after {SHORT} s"
    assert record.method == "POST"  # type: ignore[attr-defined]
    assert record.path == "/slow"  # type: ignore[attr-defined]
    assert record.limit == SHORT  # type: ignore[attr-defined]
    assert record.msg == "%(method)s %(path)s timed out after %(limit)s s"
    assert "secret" not in caplog.text


async def test_the_warning_is_logged_in_the_context_of_its_request(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    request_id: ContextVar[str] = ContextVar("request_id")
    seen: list[str] = []

    @web.middleware
    async def identify(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        request_id.set(request.query["id"])
        return await handler(request)

    def look(record: logging.LogRecord) -> bool:
        seen.append(request_id.get("none"))
        return True

    client = await aiohttp_client(
        application(identify, timeout_middleware(SHORT))
    )
    logger = logging.getLogger("aiohttp_middlewares.timeout")
    logger.addFilter(look)
    try:
        await asyncio.gather(
            *(client.get("/slow", params={"id": name}) for name in "abc")
        )
    finally:
        logger.removeFilter(look)
    assert sorted(seen) == ["a", "b", "c"]


async def test_a_logging_filter_that_fails_keeps_nobody_waiting(
    aiohttp_client: AiohttpClient, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    client = await aiohttp_client(application(timeout_middleware(SHORT)))
    logger = logging.getLogger("aiohttp_middlewares.timeout")
    logger.addFilter(fail)
    try:
        answers = await soon(
            asyncio.gather(*(client.get("/slow") for _ in range(5)))
        )
    finally:
        logger.removeFilter(fail)
    assert [answer.status for answer in answers] == [504] * 5
    assert capsys.readouterr().err.count("a filter raised") == 5


# Which limit
# ===========


@pytest.mark.parametrize("seconds", [None, LONG, 10**9])
async def test_none_and_long_limits_let_a_handler_take_its_time(
    aiohttp_client: AiohttpClient, seconds: float | None
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        return web.Response()

    app = application(timeout_middleware(seconds), handler=handler)
    client = await aiohttp_client(app)
    assert (await client.get("/handler")).status == 200


class Struck:
    """Requests that wait, and whether the limit strikes them."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.cancelled: list[str] = []

    async def handler(self, request: web.Request) -> web.Response:
        name = f"{request.method} {request.rel_url.raw_path_qs}"
        self.came.append(name)
        try:
            return await forever(request)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def among(self, middleware: Middleware, *lines: str) -> list[bool]:
        """Send them, and ``GET /last`` at last, which has to have a limit."""
        app = web.Application(middlewares=[middleware])
        app.router.add_route("*", "/{path:.*}", self.handler)
        async with live(app) as server:
            clients = []
            for line in [*lines, "GET /last"]:
                clients.append(await server.connect())
                clients[-1].send(line)
                await eventually(lambda: len(self.came) == len(clients))
            assert (await clients[-1].answer()).status == 504
            struck = [line in self.cancelled for line in lines]
            for client in clients:
                client.leave()
        return struck


@pytest.mark.parametrize(
    ("ignore", "limited", "free"),
    [
        ([], ["/slow"], []),
        (["/slow"], ["/slow/er", "/Slow"], ["/slow", "/%73low"]),
        ({URL("/slow")}, ["/a"], ["/slow?query"]),
        ([re.compile("/sl")], ["/a/sl"], ["/slow", "/slower"]),
        # Another route, to aiohttp's router as well.
        (["/a/b"], ["/a%2Fb"], ["/a/b"]),
        (["/a", re.compile("/b")], ["/c"], ["/a", "/b"]),
    ],
)
async def test_ignored_urls_have_no_limit(
    ignore: Any, limited: list[str], free: list[str]
) -> None:
    struck = await Struck().among(
        timeout_middleware(SHORT, ignore=ignore),
        *(f"GET {path}" for path in limited + free),
    )
    assert struck == [True] * len(limited) + [False] * len(free)


async def test_ignored_urls_may_be_so_for_some_methods() -> None:
    ignore: Any = {
        "/slow": "post",
        re.compile("/s"): ["PUT", "PATCH"],  # both rules fit: any counts
    }
    struck = await Struck().among(
        timeout_middleware(SHORT, ignore=ignore),
        "GET /slow",
        "POST /slow",
        "PUT /slow",
        "PATCH /slow",
        "DELETE /slow",
    )
    assert struck == [True, False, False, False, True]


async def test_first_limit_that_fits_counts_instead_of_seconds(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = web.Application(
        middlewares=[
            timeout_middleware(
                0.04,
                limits={
                    "/a": 0.01,
                    re.compile("/a"): 0.02,
                    "/ab": 0.03,  # the pattern fits first
                    URL("/b"): 0.03,
                },
            )
        ]
    )
    app.router.add_get("/{path}", forever)
    client = await aiohttp_client(app)
    paths = ["/a", "/ab", "/b", "/c"]
    await asyncio.gather(*(client.get(path) for path in paths))
    struck = {
        (record.__dict__["path"], record.__dict__["limit"])
        for record in warnings_of(caplog)
    }
    assert struck == {("/a", 0.01), ("/ab", 0.02), ("/b", 0.03), ("/c", 0.04)}


@pytest.mark.parametrize(
    ("seconds", "options", "struck"),
    [
        (SHORT, {"limits": {"/slow": None}}, False),
        (None, {"limits": {"/slow": SHORT, "/last": SHORT}}, True),
        (
            None,
            {"limits": {"/slow": SHORT, "/last": SHORT}, "ignore": ["/slow"]},
            False,
        ),
    ],
)
async def test_limits_may_lift_and_set_the_limit(
    seconds: float | None, options: Any, struck: bool
) -> None:
    middleware = timeout_middleware(seconds, **options)
    assert await Struck().among(middleware, "GET /slow") == [struck]


@pytest.mark.parametrize(
    ("outer", "inner"), [(SHORT, LONG), (LONG, SHORT), (SHORT, SHORT)]
)
async def test_of_nested_limits_the_smaller_wins(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    outer: float,
    inner: float,
) -> None:
    seen = Seen()
    app = application(
        seen.middleware(),
        error_middleware(),
        timeout_middleware(outer),
        timeout_middleware(inner),
    )
    client = await aiohttp_client(app)
    response = await client.get("/slow")
    assert response.status == 504
    assert {r.__dict__["limit"] for r in warnings_of(caplog)} == {SHORT}
    assert not any(seen.cancelling)
    assert (await client.get("/quick")).status == 200


async def test_one_middleware_may_stand_twice_in_the_way(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = Seen()
    timeout = timeout_middleware(SHORT)
    app = application(seen.middleware(), timeout)
    app.add_subapp("/sub", application(timeout))
    client = await aiohttp_client(app)
    assert (await client.get("/sub/slow")).status == 504
    assert not any(seen.cancelling)


async def test_limit_of_a_sub_application_is_its_own() -> None:
    struck = Struck()
    app = application(timeout_middleware(LONG), slow=struck.handler)
    subapp = application(timeout_middleware(SHORT), slow=struck.handler)
    app.add_subapp("/sub", subapp)
    async with live(app) as server:
        outside, inside = await server.connect(), await server.connect()
        outside.send("GET /slow")
        await eventually(lambda: struck.came)
        inside.send("GET /sub/slow")
        assert (await inside.answer()).status == 504
        assert struck.cancelled == ["GET /sub/slow"]
        inside.leave()
        outside.leave()


# What lives on after it has started
# ==================================


async def test_stream_lives_on_after_its_start() -> None:
    passed = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/event-stream"
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await passed.wait()
        await response.write(b"data: last\n\n")
        return response

    app = application(
        error_middleware(), timeout_middleware(SHORT), events=events
    )
    async with live(app) as server, ClientSession() as session:
        url = f"http://{server.host}:{server.port}/events"
        response = await session.get(url)
        await limit_strikes(server)
        passed.set()
        body = await soon(response.read())
        assert body == b"data: first\n\ndata: last\n\n"


async def test_stream_that_has_sent_its_headers_only_lives_on() -> None:
    passed = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await passed.wait()
        await response.write(b"at last")
        return response

    async with live(application(timeout_middleware(SHORT), stream=stream)) as s:
        client = await s.connect()
        client.send("GET /stream", fields="Connection: close\r\n")
        assert (await client.head()).status == 200
        await limit_strikes(s)
        passed.set()
        assert await client.rest() == b"7\r\nat last\r\n0\r\n\r\n"
        client.leave()


async def test_stream_lives_on_behind_middlewares_that_clone() -> None:
    passed = asyncio.Event()

    @web.middleware
    async def clones(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(scheme="https"))

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await passed.wait()
        return response

    middlewares = clones, timeout_middleware(SHORT), clones
    async with live(application(*middlewares, stream=stream)) as server:
        client = await server.connect()
        client.send("GET /stream", fields="Connection: close\r\n")
        assert (await client.head()).status == 200
        await limit_strikes(server)
        passed.set()
        assert await client.rest() == b"0\r\n\r\n"
        client.leave()


async def test_web_socket_lives_on_after_its_handshake() -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = application(error_middleware(), timeout_middleware(SHORT), echo=echo)
    async with live(app) as server, ClientSession() as session:
        url = f"ws://{server.host}:{server.port}/echo"
        async with session.ws_connect(url) as socket:
            await limit_strikes(server)
            await socket.send_str("still there?")
            assert await socket.receive_str(timeout=20) == "still there?"
            await socket.close()
            closing = await socket.receive()
            assert closing.type is WSMsgType.CLOSED
            assert socket.close_code == 1000


@pytest.mark.parametrize("by", ["handler", "aiohttp"])
async def test_download_to_a_slow_reader_lives_on(
    tmp_path: Path, by: str
) -> None:
    file = tmp_path / "download"
    file.write_bytes(bytes(8_000_000))

    async def download(request: web.Request) -> web.StreamResponse:
        response = web.FileResponse(file)
        if by == "handler":
            await response.prepare(request)
            # Returned, aiohttp would open the file once more, and not close it.
            raise ZeroDivisionError
        return response

    # To open it takes a thread, and that takes its time on a busy machine.
    seconds = 1 if by == "handler" else SHORT
    app = application(timeout_middleware(seconds), download=download)
    async with live(app) as server:
        client = await server.connect()
        client.send("GET /download")
        assert (await client.head()).status == 200
        await limit_strikes(server)
        await soon(client.reader.readexactly(8_000_000))
        client.leave()


async def test_response_in_one_piece_to_a_slow_reader_lives_on() -> None:
    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(8_000_000))

    async with live(application(timeout_middleware(SHORT), large=large)) as s:
        client = await s.connect()
        client.send("GET /large")
        assert (await client.head()).status == 200
        await limit_strikes(s)
        await soon(client.reader.readexactly(8_000_000))
        client.leave()


async def test_100_continue_does_not_stop_the_clock() -> None:
    app = application(error_middleware(), timeout_middleware(SHORT))
    async with live(app, lingering_time=0.01) as server:
        client = await server.connect()
        client.send("POST /slow", length=5, fields="Expect: 100-continue\r\n")
        assert (await client.head()).status == 100
        assert (await client.answer()).status == 504
        client.leave()


@web.middleware
async def answers_by_itself(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestTimeout as exc:
        return web.Response(status=exc.status, text=exc.message)


@pytest.mark.parametrize(
    ("middleware", "body"),
    [
        (error_middleware(), b'{"detail": "Request timed out"}'),
        (answers_by_itself, b"Request timed out"),
    ],
)
async def test_stream_that_never_left_does_not_garble_the_504(
    middleware: Middleware, body: bytes
) -> None:
    """It told the writer that its body would be chunked and compressed."""

    async def slowly(request: web.Request, response: Any) -> None:
        if request.path == "/stream" and response.status == 200:
            await asyncio.Event().wait()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression(web.ContentCoding.deflate)
        await response.prepare(request)
        return response

    app = application(middleware, timeout_middleware(SHORT), stream=stream)
    app.on_response_prepare.append(slowly)
    async with live(app) as server:
        client = await server.connect()
        for _ in range(2):
            client.send("GET /stream")
            answer = await client.answer()
            assert (answer.status, answer.rest) == (504, body)
        client.leave()


# What it leaves alone
# ====================


@pytest.mark.parametrize(
    ("middlewares", "status"),
    [
        ([error_middleware(), timeout_middleware(LONG)], 500),
        ([timeout_middleware(LONG)], 504),  # aiohttp's own rule
    ],
)
async def test_handlers_own_timeout_error_passes_as_it_is(
    aiohttp_client: AiohttpClient, middlewares: list[Middleware], status: int
) -> None:
    own = asyncio.TimeoutError("the cache does not answer")
    seen = Seen()

    async def handler(request: web.Request) -> web.Response:
        raise own

    app = application(*middlewares, seen.middleware(), handler=handler)
    client = await aiohttp_client(app)
    assert (await client.get("/handler")).status == status
    assert seen.raised == [own]


async def test_other_exceptions_pass_as_they_are(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = Seen()

    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere")

    app = application(
        seen.middleware(), timeout_middleware(LONG), handler=handler
    )
    client = await aiohttp_client(app)
    response = await client.get("/handler", allow_redirects=False)
    assert response.headers["Location"] == "/elsewhere"
    assert (await client.get("/nowhere")).status == 404
    assert (await client.get("/handler/")).status == 404
    assert [type(exc) for exc in seen.raised] == [
        web.HTTPFound,
        web.HTTPNotFound,
        web.HTTPNotFound,
    ]


async def test_handler_that_swallows_the_cancellation_has_its_answer_sent(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()

    async def handler(request: web.Request) -> web.Response:
        with contextlib.suppress(asyncio.CancelledError):
            await forever(request)
        await asyncio.sleep(0)
        return web.Response(text="all the same")

    app = application(
        seen.middleware(), timeout_middleware(SHORT), handler=handler
    )
    client = await aiohttp_client(app)
    response = await client.get("/handler")
    assert (response.status, await response.text()) == (200, "all the same")
    # Else the next `asyncio.timeout()` outside would not know its own.
    assert not any(seen.cancelling)
    assert len(warnings_of(caplog)) == 1


async def test_handler_may_make_another_error_of_the_cancellation(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = Seen()

    async def handler(request: web.Request) -> web.Response:
        try:
            return await forever(request)
        except asyncio.CancelledError:
            raise web.HTTPServiceUnavailable from None

    app = application(
        seen.middleware(), timeout_middleware(SHORT), handler=handler
    )
    client = await aiohttp_client(app)
    assert (await client.get("/handler")).status == 503
    assert not any(seen.cancelling)


async def test_client_that_leaves_is_no_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen, struck = Seen(), Struck()
    app = application(
        seen.middleware(), timeout_middleware(LONG), slow=struck.handler
    )
    async with live(app) as server:
        client = await server.connect()
        client.send("GET /slow")
        await eventually(lambda: struck.came)
        client.leave()
        await eventually(lambda: seen.raised)
    assert [type(exc) for exc in seen.raised] == [asyncio.CancelledError]
    assert warnings_of(caplog) == []


# Clients that send without end
# =============================


@pytest.mark.parametrize("coding", ["Content-Length: 100", "chunked"])
async def test_half_an_upload_is_answered_and_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture, coding: str
) -> None:
    async def upload(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = application(
        error_middleware(),
        timeout_middleware(SHORT),
        upload=upload,
    )
    async with live(app, lingering_time=SHORT) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        if coding == "chunked":
            client.send("POST /upload", fields="Transfer-Encoding: chunked\r\n")
            client.write("5\r\nhello\r\n")
        else:
            client.send("POST /upload", b"hello", length=100)
        answer = await client.answer()
        assert answer.status == 504
        assert await client.rest() == b""  # aiohttp has lingered, and closes
        await eventually(lambda: asyncio.all_tasks() == before)
        client.leave()
    assert errors_of(caplog) == []
    # It says where the handler was.
    [record] = [r for r in caplog.records if r.name.endswith(".error")]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "POST /upload failed with 504"
    assert "request.read()" in caplog.text


async def test_client_that_leaves_in_mid_upload_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiting = asyncio.Event()

    async def upload(request: web.Request) -> web.Response:
        waiting.set()
        return web.Response(body=await request.read())

    app = application(
        error_middleware(), timeout_middleware(LONG), upload=upload
    )
    async with live(app) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        client.send("POST /upload", b"hello", length=100)
        await soon(waiting.wait())
        client.reset()
        await eventually(lambda: asyncio.all_tasks() == before)
    assert errors_of(caplog) == []
    assert warnings_of(caplog) == []


# Cancelled by more than one
# ==========================


def run(
    middleware: Middleware, handler: Handler, path: str = "/"
) -> Awaitable[web.StreamResponse]:
    """Call it as aiohttp does, in the task that runs."""
    return middleware(mocked(path), handler)


def mocked(path: str = "/") -> web.Request:
    return make_mocked_request("GET", path)


def blocked(seconds: float) -> None:
    """Have all timers of the event loop that are due fire in one go."""
    time.sleep(seconds)


@pytest.mark.parametrize("first", ["expiry", "answer"])
async def test_expiring_exactly_while_finishing_is_a_timeout(
    first: str,
) -> None:
    seen = Seen()
    loop = asyncio.get_running_loop()

    def end(answer: asyncio.Future[web.Response]) -> None:
        if not answer.done():
            answer.set_result(OK)

    async def handler(request: web.Request) -> web.Response:
        answer: asyncio.Future[web.Response] = loop.create_future()
        delay = SHORT / 2 if first == "answer" else SHORT * 1.5
        loop.call_later(delay, end, answer)
        loop.call_soon(blocked, SHORT * 2)
        return await answer

    timeout = timeout_middleware(SHORT)
    watch = seen.middleware()
    with pytest.raises(RequestTimeout):
        await run(watch, lambda request: timeout(request, handler))
    assert not any(seen.cancelling)
    # The cancellation was for the handler, and it has come to an end.
    await asyncio.sleep(0)


OK = web.Response()


@pytest.mark.parametrize("first", ["expiry", "cancel"])
async def test_cancelled_from_outside_in_the_same_moment(first: str) -> None:
    loop = asyncio.get_running_loop()
    timeout = timeout_middleware(SHORT)
    counts: list[int] = []

    async def handle() -> None:
        task = asyncio.current_task()
        assert task is not None

        async def handler(request: web.Request) -> web.Response:
            delay = SHORT / 2 if first == "cancel" else SHORT * 1.5
            loop.call_later(delay, task.cancel)
            loop.call_soon(blocked, SHORT * 2)
            return await forever(request)

        try:
            await run(timeout, handler)
        finally:
            if sys.version_info >= (3, 11):
                counts.append(task.cancelling())

    task = asyncio.create_task(handle())
    if sys.version_info >= (3, 11):
        # The one outside asked for an end, not for an error.
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts == [1]
    else:
        with pytest.raises(RequestTimeout):
            await task


if sys.version_info >= (3, 11):

    @pytest.mark.parametrize(
        ("outer", "inner", "expected"),
        [
            # The handler's own limit is the handler's own business.
            (LONG, SHORT, "handled"),
            (SHORT, LONG, "timed out"),
        ],
    )
    async def test_asyncio_timeout_inside_keeps_to_its_own(
        outer: float, inner: float, expected: str
    ) -> None:
        async def handler(request: web.Request) -> web.Response:
            try:
                async with asyncio.timeout(inner):
                    return await forever(request)
            except TimeoutError:
                return web.Response(text="handled")

        try:
            response = await run(timeout_middleware(outer), handler)
        except RequestTimeout:
            found = "timed out"
        else:
            assert isinstance(response, web.Response)
            found = str(response.text)
        assert found == expected

    @pytest.mark.parametrize("inner", [SHORT * 0.9, SHORT, SHORT * 1.1])
    async def test_asyncio_timeout_inside_in_the_same_moment(
        inner: float,
    ) -> None:
        seen = Seen()
        loop = asyncio.get_running_loop()

        async def handler(request: web.Request) -> web.Response:
            loop.call_soon(blocked, SHORT * 2)
            async with asyncio.timeout(inner):
                return await forever(request)

        timeout, watch = timeout_middleware(SHORT), seen.middleware()
        with pytest.raises(RequestTimeout):
            await run(watch, lambda request: timeout(request, handler))
        assert seen.cancelling == [0]

    async def test_asyncio_timeout_outside_keeps_to_its_own(
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SHORT):
                await run(timeout_middleware(LONG), forever)
        assert not isinstance(caught.value, RequestTimeout)
        assert warnings_of(caplog) == []

    async def test_asyncio_timeout_outside_in_the_same_moment() -> None:
        loop = asyncio.get_running_loop()

        async def handler(request: web.Request) -> web.Response:
            loop.call_soon(blocked, SHORT * 2)
            return await forever(request)

        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SHORT):
                await run(timeout_middleware(SHORT), handler)
        assert not isinstance(caught.value, RequestTimeout)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_task_group_inside_is_cancelled_as_a_whole() -> None:
        seen, ended = Seen(), []

        async def part(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        async def handler(request: web.Request) -> web.Response:
            async with asyncio.TaskGroup() as group:
                group.create_task(part("one"))
                group.create_task(part("two"))
                await asyncio.Event().wait()
            return web.Response()

        timeout, watch = timeout_middleware(SHORT), seen.middleware()
        with pytest.raises(RequestTimeout):
            await run(watch, lambda request: timeout(request, handler))
        assert sorted(ended) == ["one", "two"]
        assert seen.cancelling == [0]

    async def test_task_group_that_fails_while_cancelled_tells_its_errors() -> (
        None
    ):
        seen = Seen()

        async def part() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

        async def handler(request: web.Request) -> web.Response:
            async with asyncio.TaskGroup() as group:
                group.create_task(part())
                await asyncio.Event().wait()
            return web.Response()

        timeout, watch = timeout_middleware(SHORT), seen.middleware()
        with pytest.raises(Exception, match="unhandled errors") as caught:
            await run(watch, lambda request: timeout(request, handler))
        [exc] = caught.value.exceptions  # type: ignore[attr-defined]
        assert type(exc) is ZeroDivisionError
        assert seen.cancelling == [0]
        await asyncio.sleep(0)  # nothing is left to be cancelled


async def test_wait_for_inside_keeps_to_its_own() -> None:
    async def handler(request: web.Request) -> web.Response:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), SHORT)
        return web.Response(text="handled")

    response = await run(timeout_middleware(LONG), handler)
    assert isinstance(response, web.Response)
    assert response.text == "handled"


async def test_eager_tasks_are_limited_as_well(
    aiohttp_client: AiohttpClient,
) -> None:
    begin_tasks_at_once()
    app = application(timeout_middleware(SHORT))
    client = await aiohttp_client(app)
    assert (await client.get("/slow")).status == 504
    assert (await client.get("/quick")).status == 200
    task: asyncio.Task[web.StreamResponse] = asyncio.create_task(
        run(timeout_middleware(SHORT), forever)  # type: ignore[arg-type]
    )
    with pytest.raises(RequestTimeout):
        await task


# What it costs
# =============


@pytest.fixture
async def timers(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], int]:
    """How many timers wait that were set from here on, on any event loop."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    waiting: list[asyncio.TimerHandle] = []

    def watched(
        when: float, callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        def ring(*args: Any) -> None:
            waiting.remove(handle)
            callback(*args)

        handle = call_at(when, ring, *args, **kwargs)
        waiting.append(handle)
        return handle

    monkeypatch.setattr(loop, "call_at", watched)
    return lambda: sum(not handle.cancelled() for handle in waiting)


async def test_a_thousand_requests_at_once_need_one_timer(
    timers: Callable[[], int],
) -> None:
    timeout = timeout_middleware(LONG)
    end = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await end.wait()
        return OK

    request = mocked()
    tasks = [
        asyncio.ensure_future(timeout(request, handler)) for _ in range(1000)
    ]
    await asyncio.sleep(0)
    assert timers() == 1
    end.set()
    assert await asyncio.gather(*tasks) == [OK] * 1000
    assert timers() == 1


async def test_once_idle_no_timer_is_left(
    timers: Callable[[], int],
) -> None:
    timeout = timeout_middleware(SHORT)

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return OK

    for _ in range(50):
        await run(timeout, handler)
    assert timers() <= 1
    await eventually(lambda: timers() == 0)
    # And it starts anew.
    with pytest.raises(RequestTimeout):
        await run(timeout, forever)
    assert timers() == 0


async def test_a_thousand_requests_expire_in_the_order_of_their_coming() -> (
    None
):
    timeout = timeout_middleware(SHORT)
    ended: list[int] = []
    request = mocked()

    async def handle(number: int) -> None:
        try:
            await timeout(request, forever)
        except RequestTimeout:
            ended.append(number)

    await soon(asyncio.gather(*(handle(number) for number in range(1000))))
    assert ended == list(range(1000))


async def test_limits_of_different_length_do_not_wait_for_each_other() -> None:
    timeout = timeout_middleware(
        0.06, limits={"/short": 0.01, "/middle": 0.03, "/long": LONG}
    )
    ended: list[str] = []

    async def handle(request: web.Request) -> None:
        try:
            await timeout(request, forever)
        finally:
            ended.append(request.path)

    paths = ["/long", "/default", "/middle", "/short"]
    requests = [mocked(path) for path in paths]
    tasks = [asyncio.create_task(handle(request)) for request in requests]
    await soon(asyncio.gather(*tasks[1:], return_exceptions=True))
    assert ended == ["/short", "/middle", "/default"]
    tasks[0].cancel()
    await asyncio.wait(tasks)


async def test_request_in_the_middle_of_the_queue_may_go() -> None:
    timeout = timeout_middleware(SHORT)
    ended: list[str] = []

    async def handle(name: str, handler: Handler) -> None:
        try:
            await run(timeout, handler)
        except RequestTimeout:
            ended.append(name)

    async def goes(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return OK

    await soon(
        asyncio.gather(
            handle("first", forever),
            handle("goes", goes),
            handle("last", forever),
        )
    )
    assert ended == ["first", "last"]


@pytest.mark.parametrize("path", ["/quick", "/slow", "/fails"])
@pytest.mark.parametrize("middlewares", [[], [error_middleware()]])
async def test_request_is_let_go_at_once(
    aiohttp_client: AiohttpClient, path: str, middlewares: list[Middleware]
) -> None:
    kept: list[weakref.ref[web.Request]] = []

    @web.middleware
    async def watch(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        kept.append(weakref.ref(request))
        return await handler(request)

    async def fails(request: web.Request) -> web.Response:
        raise ZeroDivisionError

    app = application(
        *middlewares,
        timeout_middleware(LONG, limits={"/slow": SHORT}),
        watch,
        fails=fails,
    )
    logging.disable()  # caplog would keep the exceptions
    client = await aiohttp_client(app)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            response = await client.get(path)
            await response.read()
        # aiohttp holds the last one while it waits for the next.
        await eventually(lambda: [ref() for ref in kept[:2]] == [None] * 2)
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


# One event loop after the other, and two at once
# ===============================================


def test_one_middleware_serves_one_event_loop_after_the_other() -> None:
    timeout = timeout_middleware(SHORT)

    async def main() -> None:
        with pytest.raises(RequestTimeout):
            await run(timeout, forever)

    async def is_ended_early() -> None:
        waiting = asyncio.ensure_future(run(timeout, forever))
        await asyncio.sleep(0)
        waiting.cancel()

    for _ in range(2):
        asyncio.run(main())
        asyncio.run(is_ended_early())


def test_one_middleware_serves_two_event_loops_at_once() -> None:
    timeout = timeout_middleware(SHORT)
    start = threading.Barrier(2)
    ended: list[type[BaseException]] = []

    async def main() -> None:
        start.wait(20)
        results = await asyncio.gather(
            *(one() for _ in range(50)), return_exceptions=True
        )
        ended.extend(map(type, filter(is_exception, results)))

    async def one() -> web.StreamResponse:
        await asyncio.sleep(0)
        return await run(timeout, forever)

    threads = [
        threading.Thread(target=asyncio.run, args=[main()]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ended == [RequestTimeout] * 100


def is_exception(result: object) -> bool:
    return isinstance(result, BaseException)


def test_clock_of_an_event_loop_does_not_keep_the_one_before() -> None:
    timeout = timeout_middleware(LONG)

    async def main() -> None:
        await run(timeout, quick)

    def queues() -> int:
        gc.collect()
        return sum(isinstance(thing, _Queue) for thing in gc.get_objects())

    before = queues()
    for _ in range(3):
        asyncio.run(main())
    assert queues() == before + 1


# Misconfiguration
# ================

NUMBER = "should be a number of seconds, got "
POSITIVE = "should be a positive, finite number of seconds, got "


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0, ValueError, POSITIVE + "0"),
        (0.0, ValueError, POSITIVE + "0.0"),
        (-1, ValueError, POSITIVE + "-1"),
        (math.nan, ValueError, POSITIVE + "nan"),
        (math.inf, ValueError, POSITIVE + "inf"),
        (-math.inf, ValueError, POSITIVE + "-inf"),
        (10**400, ValueError, POSITIVE + "10000"),
        ("1", TypeError, NUMBER + "'1'"),
        (b"1", TypeError, NUMBER + "b'1'"),
        (True, TypeError, NUMBER + "True"),
        (False, TypeError, NUMBER + "False"),
        ([1], TypeError, NUMBER + "[1]"),
        (1j, TypeError, NUMBER + "1j"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_limit_that_is_none_is_refused(
    value: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        timeout_middleware(value)
    assert str(caught.value).startswith(f"timeout_middleware seconds {said}")
    with pytest.raises(error) as caught:
        timeout_middleware(1, limits={"/": 1, "/a": value})
    assert str(caught.value).startswith(
        f"timeout_middleware limits['/a'] {said}"
    )


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"ignore": "/slow"}, TypeError, "did you mean ['/slow']?"),
        ({"ignore": 1}, TypeError, "timeout_middleware ignore should be"),
        ({"ignore": ["slow"]}, ValueError, "did you mean '/slow'?"),
        ({"ignore": ["/a.*"]}, ValueError, "did you mean re.compile"),
        ({"ignore": ["^/a"]}, ValueError, "did you mean re.compile('^/a')?"),
        ({"ignore": [re.compile(b"/a")]}, TypeError, "ignore should be"),
        ({"ignore": [1]}, TypeError, "timeout_middleware ignore should be"),
        ({"ignore": {"/a": 1}}, TypeError, "ignore['/a'] should be"),
        ({"ignore": {"/a": None}}, TypeError, "ignore['/a'] should be"),
        ({"ignore": {"/a": "G T"}}, ValueError, "ignore['/a'] should be"),
        ({"limits": "/slow"}, TypeError, "limits should be a mapping of URLs"),
        ({"limits": ["/slow"]}, TypeError, "limits should be a mapping"),
        ({"limits": 5}, TypeError, "limits should be a mapping of URLs, got 5"),
        ({"limits": {"slow": 1}}, ValueError, "did you mean '/slow'?"),
        ({"limits": {1: 1}}, TypeError, "timeout_middleware limits should be"),
    ],
)
def test_urls_that_cannot_fit_are_refused(
    options: Any, error: type[Exception] | None, said: str
) -> None:
    if error is None:
        timeout_middleware(1, **options)
        return
    with pytest.raises(error) as caught:
        timeout_middleware(1, **options)
    assert said in str(caught.value)
    assert str(caught.value).startswith("timeout_middleware ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"ignore": None}, {"limits": None}, {"limits": {}}]
)
def test_nothing_is_a_collection_as_well(options: Any) -> None:
    timeout_middleware(1, **options)


def test_what_was_given_may_change_afterwards() -> None:
    limits: dict[Any, float | None] = {"/slow": SHORT}
    ignore = ["/a"]
    timeout = timeout_middleware(None, limits=limits, ignore=ignore)
    limits.clear()
    ignore.append("/slow")

    async def main() -> None:
        with pytest.raises(RequestTimeout):
            await run(timeout, forever, "/slow")

    asyncio.run(main())


def test_options_have_the_names_and_places_they_had_upstream() -> None:
    assert callable(timeout_middleware(29.5, ignore=["/slow"]))
    assert callable(timeout_middleware(seconds=29))
    with pytest.raises(TypeError):
        timeout_middleware(29, ["/slow"])  # type: ignore[call-arg]
