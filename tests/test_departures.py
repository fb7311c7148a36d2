"""How answers leave, whichever middlewares touch the writer of the request.

Several of them change headers where these leave, one changes the body, and
one refuses whatever follows the answer. Each pair of them, in both orders,
inside and outside of timeout and shield, after the answers that put this to
the test: the 504 of a shielded handler that goes on and answers late, a 413,
and a stream that broke off.

Each conversation is one connection with pipelined requests: it lives on or is
closed as the answer said, those behind get their own answers in their order,
and nothing is logged as an error but what the handler itself did wrong.
"""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any, TypeAlias

import aiohttp_session
import pytest
from aiohttp import web
from live import Connection, Live, complaints, eventually, live, soon
from raw import Head

from aiohttp_middlewares import (
    body_limit_middleware,
    compression_middleware,
    cors_middleware,
    error_middleware,
    etag_middleware,
    rate_limit_middleware,
    response_headers_middleware,
    security_headers_middleware,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Middleware

ORIGIN = "https://app.example"
KEY = "0123456789abcdef0123456789abcdef"
#: Long enough to be compressed by any means, and of aiohttp's own limit.
LARGE = 5000

#: Whatever changes an answer, or stands in the way of one. A new one has to
#: be added.
TOUCH: dict[str, Callable[[], Middleware]] = {
    "body_limit": lambda: body_limit_middleware(LARGE // 2),
    "compression": lambda: compression_middleware(minimum_size=0),
    "cors": lambda: cors_middleware(origins=[ORIGIN]),
    "error": error_middleware,
    "etag": etag_middleware,
    "rate_limit": lambda: rate_limit_middleware("1000000/second"),
    "response_headers": lambda: response_headers_middleware(
        lambda request, status, headers: headers.update({"X-Own": "yes"})
    ),
    "security_headers": security_headers_middleware,
    "server_timing": lambda: server_timing_middleware(emit=len, cpu=True),
    "session": lambda: session_middleware(KEY),
}

#: Where the pair stands: outside of timeout and shield, around, and inside.
PLACES: dict[str, Callable[..., list[Middleware]]] = {
    "outside": lambda one, other, *limit: [one, other, *limit],
    "around": lambda one, other, *limit: [one, *limit, other],
    "inside": lambda one, other, *limit: [*limit, one, other],
    "between": lambda one, other, timeout, shield: [
        one,
        timeout,
        other,
        shield,
    ],
}

Stack = tuple[str, str, str]
STACKS: list[Stack] = [
    (place, *pair) for pair in permutations(TOUCH, 2) for place in PLACES
]
#: And the documented order, all at once.
ALL = ("all", "", "")


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_lost() -> Iterator[None]:
    """No test leaves an exception that asyncio complains of."""
    with complaints() as found:
        yield
    assert found == []


@pytest.fixture(params=[*STACKS, ALL], ids="-".join)
def middlewares(request: pytest.FixtureRequest) -> list[Middleware]:
    place, one, other = request.param
    limit = timeout_middleware(None, limits={"/late": 0.01})
    shield = shield_middleware(methods=["POST"])
    if place != "all":
        stack = PLACES[place](TOUCH[one](), TOUCH[other](), limit, shield)
        return stack
    documented = ["security_headers", "response_headers", "cors", "error"]
    documented += ["rate_limit", "body_limit", "compression", "etag"]
    return [
        *(TOUCH[name]() for name in documented),
        limit,
        shield,
        TOUCH["session"](),
    ]


#: Awaits what it is given, and does something with the request then.
Late: TypeAlias = Callable[
    [web.Request, Awaitable[Any]], Awaitable[web.StreamResponse]
]


class Talk:
    """An application, and the requests of one connection to it."""

    def __init__(self, middlewares: list[Middleware]) -> None:
        self.late: Late | None = None
        self.answered = asyncio.Event()
        self.handled: list[str] = []
        self.app = app = web.Application(
            middlewares=middlewares, client_max_size=LARGE
        )
        app.router.add_post("/late", self.handle_late)
        app.router.add_get("/next", self.handle_next)
        app.router.add_post("/reads", self.reads)
        app.router.add_post("/breaks-off", self.breaks_off)

    def begin(self, late: Late) -> None:
        self.late = late
        self.answered.clear()
        self.handled.clear()

    async def handle_late(self, request: web.Request) -> web.StreamResponse:
        await use_session(request)
        late = self.late or returns
        try:
            response: web.StreamResponse = await late(
                request, self.answered.wait()
            )
            return response
        finally:
            self.handled.append("late")

    async def handle_next(self, request: web.Request) -> web.StreamResponse:
        await use_session(request)
        if self.late is not None:
            # It comes while this one is at work, or before it.
            self.answered.set()
            await eventually(lambda: self.handled)
        text = f"answer to {request.query['number']}"
        if request.query["number"] == "1":
            return web.Response(text=text)
        return await stream(request, text.encode())

    async def reads(self, request: web.Request) -> web.Response:
        await use_session(request)
        return web.Response(text=f"read {len(await request.read())}")

    async def breaks_off(self, request: web.Request) -> web.Response:
        await use_session(request)
        await stream(request, b"begun", end=False)
        raise ZeroDivisionError("after the stream had begun")


async def use_session(request: web.Request) -> None:
    if aiohttp_session.STORAGE_KEY in request:
        session = await aiohttp_session.get_session(request)
        session["path"] = request.path_qs


async def stream(
    request: web.Request, data: bytes, *, end: bool = True
) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/plain"
    await response.prepare(request)
    await response.write(data)
    if end:
        await response.write_eof()
    return response


# What a handler does once its visitor has had a 504
# ==================================================


async def returns(
    request: web.Request, answered: Awaitable[Any]
) -> web.Response:
    await answered
    return web.Response(text="LATE")


async def raises(
    request: web.Request, answered: Awaitable[Any]
) -> web.Response:
    await answered
    raise web.HTTPConflict(text="LATE")


async def fails(request: web.Request, answered: Awaitable[Any]) -> web.Response:
    await answered
    raise ZeroDivisionError("LATE")


async def streams(
    request: web.Request, answered: Awaitable[Any]
) -> web.StreamResponse:
    await answered
    return await stream(request, b"LATE")


async def sends_itself(
    request: web.Request, answered: Awaitable[Any]
) -> web.StreamResponse:
    await answered
    response = web.Response(text="LATE")
    await response.prepare(request)
    await response.write_eof()
    return response


async def sends_file(
    request: web.Request, answered: Awaitable[Any]
) -> web.FileResponse:
    await answered
    response = web.FileResponse(__file__, headers={"X": "LATE"})
    await response.prepare(request)
    return response


async def ends_what_it_prepared(
    request: web.Request, answered: Awaitable[Any]
) -> web.Response:
    response = web.Response(text="LATE")
    await response.prepare(request)  # of which no byte is sent yet
    await answered
    await response.write_eof()
    return response


async def writes_to_what_it_prepared(
    request: web.Request, answered: Awaitable[Any]
) -> web.StreamResponse:
    response = web.Response(text="LATE")
    await response.prepare(request)
    await answered
    await response.write(b"LATE")
    return response


LATE: list[Late] = [
    returns,
    raises,
    fails,
    streams,
    sends_itself,
    sends_file,
    ends_what_it_prepared,
    writes_to_what_it_prepared,
]

# The conversations
# =================

FIELDS = f"Origin: {ORIGIN}\r\nAccept-Encoding: gzip\r\n"
CLOSE = "Connection: close\r\n"


@asynccontextmanager
async def conversation(
    server: Live, line: str, body: bytes = b"", *, chunked: bool = False
) -> AsyncIterator[Connection]:
    """Three requests at once, of which the last closes the connection."""
    coding = f"Content-Length: {len(body)}\r\n"
    if chunked:
        coding = "Transfer-Encoding: chunked\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client = await server.connect()
    try:
        # In one piece: nothing of it arrives after the connection was closed.
        client.writer.write(
            one_request(line, FIELDS + coding)
            + body
            + one_request("GET /next?number=1", FIELDS)
            + one_request("GET /next?number=2", FIELDS + CLOSE)
        )
        yield client
    finally:
        client.leave()


def one_request(line: str, fields: str) -> bytes:
    return f"{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n".encode()


def said(answer: Head) -> str:
    if answer.headers.get("Content-Encoding") == "gzip":
        return gzip.decompress(answer.rest).decode()
    return answer.rest.decode()


def closes(answer: Head) -> bool:
    return answer.headers.get("Connection", "").lower() == "close"


async def next_ones_are_answered(client: Connection) -> None:
    for number in (1, 2):
        answer = await client.answer()
        assert (answer.status, said(answer)) == (200, f"answer to {number}")
        assert closes(answer) == (number == 2)
    assert await client.rest() == b""


def is_to_be_logged(record: logging.LogRecord) -> bool:
    """What the handler did wrong, and each 504 that aiohttp makes by itself."""
    exc = record.exc_info[1] if record.exc_info else None
    if exc is None and record.name == "aiohttp.server":
        return record.getMessage().startswith("Error handling request")
    while exc is not None:
        if isinstance(exc, ZeroDivisionError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.name}: {record.getMessage()} {record.exc_info}"
        for record in caplog.records
        if record.levelno >= logging.ERROR and not is_to_be_logged(record)
    ]


async def test_late_answers_reach_nobody_and_cost_nobody_an_answer(
    middlewares: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    talk = Talk(middlewares)
    async with live(talk.app) as server:
        before = asyncio.all_tasks()
        for late in LATE:
            talk.begin(late)
            async with conversation(server, "POST /late") as client:
                answer = await client.answer()
                assert (answer.status, b"LATE" in answer.rest) == (504, False)
                if closes(answer):  # aiohttp's own, as nobody else made one
                    assert await client.rest() == b""
                    talk.answered.set()
                    await eventually(lambda: talk.handled)
                else:
                    await next_ones_are_answered(client)
            assert talk.handled == ["late"]
            assert errors(caplog) == [], late
        await eventually(lambda: asyncio.all_tasks() == before)
    assert errors(caplog) == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_is_too_large_is_refused_as_its_answer_says(
    middlewares: list[Middleware],
    caplog: pytest.LogCaptureFixture,
    chunked: bool,
) -> None:
    talk = Talk(middlewares)
    large, small = b"x" * LARGE * 2, b"x" * 9
    async with live(talk.app) as server:
        async with conversation(
            server, "POST /reads", large, chunked=chunked
        ) as client:
            answer = await client.answer()
            assert answer.status == 413
            if closes(answer):
                assert await client.rest() == b""
            else:
                await next_ones_are_answered(client)
        # And another connection knows nothing of it.
        async with conversation(
            server, "POST /reads", small, chunked=chunked
        ) as client:
            answer = await client.answer()
            assert (answer.status, said(answer)) == (200, "read 9")
            assert not closes(answer)
            await next_ones_are_answered(client)
    assert errors(caplog) == []


async def test_stream_that_broke_off_ends_the_connection_without_an_end(
    middlewares: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    talk = Talk(middlewares)
    async with live(talk.app) as server:
        async with conversation(server, "POST /breaks-off") as client:
            assert (await client.head()).status == 200
            rest = await client.rest()
            assert rest
            assert not rest.endswith(b"0\r\n\r\n")
            assert b"HTTP/1.1" not in rest
        async with conversation(server, "GET /next?number=0") as client:
            assert said(await client.answer()) == "answer to 0"
            await next_ones_are_answered(client)
    assert errors(caplog) == []


@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
async def test_client_that_leaves_after_its_504_is_no_error(
    middlewares: list[Middleware],
    caplog: pytest.LogCaptureFixture,
    leave: Callable[[Connection], None],
) -> None:
    talk = Talk(middlewares)
    talk.begin(streams)
    async with live(talk.app) as server:
        before = asyncio.all_tasks()
        async with conversation(server, "POST /late") as client:
            assert (await client.head()).status == 504
            leave(client)
            talk.answered.set()
            await eventually(lambda: talk.handled)
            await eventually(lambda: asyncio.all_tasks() == before)
    assert errors(caplog) == []


# What becomes of the session
# ===========================


class OnTheServer(aiohttp_session.AbstractStorage):
    """A storage that keeps all it was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[dict[str, Any]] = []

    async def load_session(
        self, request: web.Request
    ) -> aiohttp_session.Session:
        key = self.load_cookie(request)
        return aiohttp_session.Session(
            key, data=None, new=key is None, max_age=None
        )

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        self.saved.append(dict(session))
        self.save_cookie(response, "key")


class InTheCookie(aiohttp_session.SimpleCookieStorage):
    """As aiohttp-session has it, and it notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[dict[str, Any]] = []

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        self.saved.append(dict(session))
        await super().save_session(request, response, session)


FINAL = {"user": "me", "second factor": "good"}


@pytest.mark.parametrize("storage_of", [OnTheServer, InTheCookie])
@pytest.mark.parametrize("others", [[], ["cors", "error", "compression"]])
@pytest.mark.parametrize(
    ("end", "saved"),
    [(returns, [FINAL]), (raises, [FINAL]), (fails, [])],
)
async def test_only_what_the_handler_ends_with_is_saved_after_a_504(
    caplog: pytest.LogCaptureFixture,
    storage_of: type[OnTheServer | InTheCookie],
    others: list[str],
    end: Late,
    saved: list[dict[str, Any]],
) -> None:
    storage = storage_of()
    ended = asyncio.Event()
    answered = asyncio.Event()

    async def login(request: web.Request) -> web.StreamResponse:
        session = await aiohttp_session.get_session(request)
        session["user"] = "me"
        try:
            await answered.wait()
            session["second factor"] = "good"
            response: web.StreamResponse = await end(request, asyncio.sleep(0))
            return response
        finally:
            ended.set()

    app = web.Application(
        middlewares=[
            *(TOUCH[name]() for name in others),
            timeout_middleware(0.01),
            shield_middleware(methods=["POST"]),
            session_middleware(storage),
        ]
    )
    app.router.add_post("/login", login)
    async with live(app) as server:
        before = asyncio.all_tasks()
        client = await server.connect()
        client.send("POST /login", fields=FIELDS)
        answer = await client.answer()
        client.leave()
        assert answer.status == 504
        assert "Set-Cookie" not in answer.headers
        assert storage.saved == []
        answered.set()
        await eventually(ended.is_set)
        await eventually(lambda: asyncio.all_tasks() == before)
    if isinstance(storage, OnTheServer):  # the other has nowhere to save it
        assert storage.saved == saved
    assert errors(caplog) == []


# What is sent late, but before the answer in its place
# =====================================================


@pytest.mark.parametrize("large", [False, True], ids=["small", "compressed"])
@pytest.mark.parametrize("slow", ["error handler", "signal", "encoder"])
async def test_handler_that_is_given_up_does_not_answer_before_the_504(
    slow: str, large: bool
) -> None:
    given_up, tried = asyncio.Event(), asyncio.Event()
    page = "".join(f"<p>{n * 7919 % 100003}</p>" for n in range(40_000))
    text = page if large or slow == "encoder" else "sorry"

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/next":
            return web.Response(text="next")
        await given_up.wait()
        try:
            response = web.StreamResponse()
            response.enable_compression(web.ContentCoding.deflate)
            await response.prepare(request)
            await response.write(b"LATE")
        finally:
            tried.set()
        return response

    async def sorry(request: web.Request) -> web.Response:
        given_up.set()
        if slow == "error handler":
            await tried.wait()
        return web.Response(status=504, text=text, content_type="text/html")

    async def waits(request: web.Request, response: web.StreamResponse) -> None:
        if slow == "signal" and response.status == 504:
            await tried.wait()

    app = web.Application(
        middlewares=[
            error_middleware(default_handler=sorry),
            compression_middleware(encodings=["gzip"]),
            timeout_middleware(0.02),
            shield_middleware(methods=["GET"]),
        ]
    )
    app.on_response_prepare.append(waits)
    app.router.add_get("/{path}", handler)
    async with live(app) as server:
        client = await server.connect()
        fields = "Accept-Encoding: gzip\r\n" if large else ""
        client.send("GET /late", fields=fields)
        answer = await client.answer()
        assert answer.status == 504
        body = gzip.decompress(answer.rest) if large else answer.rest
        assert body == text.encode()
        await soon(tried.wait())
        client.send("GET /next")
        assert (await client.answer()).rest == b"next"
        client.leave()


async def test_limit_and_shield_inside_of_a_shield_go_on_after_the_504() -> (
    None
):
    going, done = asyncio.Event(), []

    async def handler(request: web.Request) -> web.Response:
        done.append(request.path)
        return web.Response()

    @web.middleware
    async def looks_up(
        request: web.Request, handler: Any
    ) -> web.StreamResponse:
        if request.path == "/slow":
            await going.wait()
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(
        middlewares=[
            error_middleware(),
            body_limit_middleware(1024**2),
            timeout_middleware(0.05),
            shield_middleware(methods=["POST"]),
            looks_up,
            timeout_middleware(5),
            shield_middleware(methods=["POST"]),
        ]
    )
    app.router.add_post("/{path}", handler)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /fast", b"body")
        assert (await client.answer()).status == 200
        client.send("POST /slow", b"body")
        assert (await client.answer()).status == 504
        going.set()
        await eventually(lambda: done == ["/fast", "/slow"])
        client.leave()
