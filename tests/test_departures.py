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
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from live import Connection, Live, complaints, eventually, live
from raw import Head

from aiohttp_middlewares import (
    body_limit_middleware,
    compression_middleware,
    cors_middleware,
    error_middleware,
    security_headers_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

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
    "security_headers": security_headers_middleware,
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
    documented = ["security_headers", "cors", "error", "body_limit"]
    return [
        *(TOUCH[name]() for name in [*documented, "compression"]),
        limit,
        shield,
        TOUCH["session"](),
    ]


class Conversation:
    """An application, and the requests of one connection to it."""

    def __init__(self, middlewares: list[Middleware]) -> None:
        self.late: Handler = returns
        self.answered = asyncio.Event()
        self.handled: list[object] = []
        self.app = app = web.Application(
            middlewares=middlewares, client_max_size=LARGE
        )
        app.router.add_post("/late", self.handle_late)
        app.router.add_get("/next", self.handle_next)
        app.router.add_post("/reads", self.reads)
        app.router.add_post("/breaks-off", self.breaks_off)

    async def handle_late(self, request: web.Request) -> web.StreamResponse:
        await use_session(request)
        try:
            return await self.late(request, self.answered.wait())  # type: ignore[call-arg]
        finally:
            self.handled.append("late")

    async def handle_next(self, request: web.Request) -> web.StreamResponse:
        await use_session(request)
        # What comes late comes while this one is at work, or before it.
        self.answered.set()
        if self.late is not never:
            await eventually(lambda: "late" in self.handled)
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


async def never(request: web.Request, answered: Any = None) -> web.Response:
    raise NotImplementedError


async def returns(request: web.Request, answered: Any = None) -> web.Response:
    await answered
    return web.Response(text="LATE")


async def raises(request: web.Request, answered: Any) -> web.Response:
    await answered
    raise web.HTTPConflict(text="LATE")


async def fails(request: web.Request, answered: Any) -> web.Response:
    await answered
    raise ZeroDivisionError("LATE")


async def streams(request: web.Request, answered: Any) -> web.StreamResponse:
    await answered
    return await stream(request, b"LATE")


async def sends_itself(
    request: web.Request, answered: Any
) -> web.StreamResponse:
    await answered
    response = web.Response(text="LATE")
    await response.prepare(request)
    await response.write_eof()
    return response


async def sends_file(request: web.Request, answered: Any) -> web.FileResponse:
    await answered
    response = web.FileResponse(__file__, headers={"X": "LATE"})
    await response.prepare(request)
    return response


async def ends_what_it_prepared(
    request: web.Request, answered: Any
) -> web.Response:
    response = web.Response(text="LATE")
    await response.prepare(request)  # of which no byte is sent yet
    await answered
    await response.write_eof()
    return response


async def writes_to_what_it_prepared(
    request: web.Request, answered: Any
) -> web.StreamResponse:
    response = web.Response(text="LATE")
    await response.prepare(request)
    await answered
    await response.write(b"LATE")
    return response


LATE: list[Any] = [
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


async def conversation(
    server: Live, line: str, body: bytes = b"", *, chunked: bool = False
) -> Connection:
    """Three requests at once, of which the last closes the connection."""
    coding = f"Content-Length: {len(body)}\r\n"
    if chunked:
        coding = "Transfer-Encoding: chunked\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client = await server.connect()
    # In one piece: nothing of it arrives after the connection was closed.
    client.writer.write(
        one_request(line, FIELDS + coding)
        + body
        + one_request("GET /next?number=1", FIELDS)
        + one_request("GET /next?number=2", FIELDS + CLOSE)
    )
    return client


def one_request(line: str, fields: str) -> bytes:
    return f"{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n".encode()


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
    talk = Conversation(middlewares)
    async with live(talk.app) as server:
        before = asyncio.all_tasks()
        for late in LATE:
            talk.late, talk.answered = late, asyncio.Event()
            talk.handled.clear()
            client = await conversation(server, "POST /late")
            answer = await client.answer()
            assert (answer.status, b"LATE" in answer.rest) == (504, False)
            if closes(answer):  # aiohttp's own, without an error middleware
                assert await client.rest() == b""
                talk.answered.set()
                await eventually(lambda: talk.handled)
            else:
                await next_ones_are_answered(client)
            client.leave()
            assert talk.handled == ["late"]
            assert errors(caplog) == [], late.__name__
        await eventually(lambda: asyncio.all_tasks() == before)
    assert errors(caplog) == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_is_too_large_is_refused_as_its_answer_says(
    middlewares: list[Middleware],
    caplog: pytest.LogCaptureFixture,
    chunked: bool,
) -> None:
    talk = Conversation(middlewares)
    talk.late = never
    async with live(talk.app) as server:
        client = await conversation(
            server, "POST /reads", b"x" * LARGE * 2, chunked=chunked
        )
        answer = await client.answer()
        assert answer.status == 413
        if closes(answer):
            assert await client.rest() == b""
        else:
            await next_ones_are_answered(client)
        client.leave()
        # And another connection knows nothing of it.
        client = await conversation(server, "POST /reads", b"x" * 9)
        answer = await client.answer()
        assert (answer.status, said(answer)) == (200, "read 9")
        assert not closes(answer)
        await next_ones_are_answered(client)
        client.leave()
    assert errors(caplog) == []


async def test_stream_that_broke_off_ends_the_connection_without_an_end(
    middlewares: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    talk = Conversation(middlewares)
    talk.late = never
    async with live(talk.app) as server:
        client = await conversation(server, "POST /breaks-off")
        answer = await client.head()
        assert answer.status == 200
        rest = await client.rest()
        assert rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert b"HTTP/1.1" not in rest
        client.leave()
        client = await conversation(server, "GET /next?number=0")
        assert said(await client.answer()) == "answer to 0"
        await next_ones_are_answered(client)
        client.leave()
    assert errors(caplog) == []


async def test_client_that_leaves_at_any_time_is_no_error(
    middlewares: list[Middleware], caplog: pytest.LogCaptureFixture
) -> None:
    talk = Conversation(middlewares)
    talk.late = returns
    async with live(talk.app) as server:
        before = asyncio.all_tasks()
        for leave in (Connection.leave, Connection.reset):
            talk.answered.clear()
            talk.handled.clear()
            client = await conversation(server, "POST /late")
            await client.head()
            leave(client)
            talk.answered.set()
            await eventually(lambda: talk.handled)
            await eventually(lambda: asyncio.all_tasks() == before)
    assert errors(caplog) == []
