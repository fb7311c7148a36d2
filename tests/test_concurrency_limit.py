"""So many at a time, in the order in which they came, and no place is lost."""

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from answers import KINDS, UPGRADE, Kind, serve
from garbage import no_more_than_without
from live import Connection, Live, eventually, live

from aiohttp_middlewares import (
    compression_middleware,
    concurrency_limit,
    concurrency_limit_middleware,
    error_middleware,
    https_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler, Middleware

#: Nobody waits for so long here.
LONG = 60.0


class Door:
    """An application with a handler that is done when it is told so.

    ``entered`` are the names of the requests that it was called for.
    """

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.left: list[str] = []
        self.open: dict[str, asyncio.Event] = {}
        self.site: Live

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.entered.append(name)
        try:
            await self.event(name).wait()
        finally:
            self.left.append(name)
        return web.Response(text=name)

    def event(self, name: str) -> asyncio.Event:
        return self.open.setdefault(name, asyncio.Event())

    async def ask(self, name: str, fields: str = "") -> Connection:
        """Send a request; who is asked first has come first."""
        connection = await self.site.connect()
        connection.send(f"GET /wait/{name}", fields=fields)
        return connection

    async def enter(self, name: str, fields: str = "") -> Connection:
        """Send one that gets a place."""
        connection = await self.ask(name, fields)
        await eventually(lambda: name in self.entered)
        return connection

    async def is_free(self, path: str = "/returned") -> bool:
        """Whether there is a place, as a new client would find."""
        connection = await self.site.connect()
        connection.send(f"GET {path}")
        answer = await connection.answer()
        connection.leave()
        assert answer.status in (200, 503)
        return answer.status == 200

    async def becomes_free(self) -> None:
        while not await self.is_free():  # noqa: ASYNC110  (there is no event)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def door(
    *middlewares: Middleware, routes: Any = (), **options: Any
) -> AsyncIterator[Door]:
    it = Door()
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/wait/{name}", it.handle)
    for path, handler in dict(routes).items():
        app.router.add_route("*", path, handler)
    async with live(serve(app), **options) as it.site:
        yield it
        for event in it.open.values():
            event.set()


async def late(request: web.Request) -> str:
    return "not to be awaited"


def waiting(*middlewares: Middleware) -> int:
    """How many there are in the queues."""
    return sum(
        len(line.waiting)
        for each in middlewares
        for line in lines_of(each).values()
    )


async def in_queue(subject: Middleware, number: int) -> None:
    await eventually(lambda: waiting(subject) == number)


def lines_of(subject: Any) -> dict[Any, Any]:
    (cell,) = (
        cell
        for name, cell in zip(
            subject.__code__.co_freevars, subject.__closure__, strict=True
        )
        if name == "lines"
    )
    lines: dict[Any, Any] = cell.cell_contents
    return lines


# What it does
# ============


async def test_beyond_the_limit_there_is_503_at_once() -> None:
    async with door(concurrency_limit_middleware(2)) as it:
        clients = [await it.enter("a"), await it.enter("b")]
        late = await it.ask("c")
        answer = await late.answer()
        assert answer.status == 503
        assert answer.headers.getall("Retry-After") == ["1"]
        assert answer.headers.getall("Cache-Control") == ["no-store"]
        assert it.entered == ["a", "b"]
        it.event("a").set()
        assert (await clients[0].answer()).status == 200
        # On the same connection: it was no fault of the client.
        late.send("GET /returned")
        assert (await late.answer()).status == 200
        for client in (*clients, late):
            client.leave()


async def test_first_come_first_served() -> None:
    subject = concurrency_limit_middleware(1, backlog=9, backlog_timeout=LONG)
    async with door(subject) as it:
        names = [str(number) for number in range(10)]
        clients = [await it.enter(names[0])]
        for position, name in enumerate(names[1:], 1):
            clients.append(await it.ask(name))
            await in_queue(subject, position)
        for position, name in enumerate(names):
            await eventually(lambda: position < len(it.entered))  # noqa: B023
            assert it.entered == names[: position + 1]
            it.event(name).set()
            assert (await clients[position].answer()).status == 200
        for client in clients:
            client.leave()


async def test_newcomer_does_not_overtake_who_waits() -> None:
    subject = concurrency_limit_middleware(1, backlog=2, backlog_timeout=LONG)
    async with door(subject) as it:
        first = await it.enter("first")
        second = await it.ask("second")
        await eventually(lambda: waiting(subject) == 1)
        # Its last byte is out, and the next request on its heels.
        first.send("GET /wait/third")
        it.event("first").set()
        await eventually(lambda: len(it.entered) == 2)
        assert it.entered == ["first", "second"]
        it.event("second").set()
        await eventually(lambda: len(it.entered) == 3)
        first.leave()
        second.leave()


async def test_queue_is_no_longer_than_its_backlog() -> None:
    subject = concurrency_limit_middleware(1, backlog=2, backlog_timeout=LONG)
    async with door(subject) as it:
        clients = [await it.enter("a"), await it.ask("b"), await it.ask("c")]
        await eventually(lambda: waiting(subject) == 2)
        late = await it.ask("d")
        answer = await late.answer()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "60")
        assert waiting(subject) == 2
        for client in (*clients, late):
            client.leave()


async def test_who_has_waited_too_long_is_turned_away() -> None:
    subject = concurrency_limit_middleware(1, backlog=1, backlog_timeout=0.01)
    async with door(subject) as it:
        first = await it.enter("a")
        late = await it.ask("b")
        answer = await late.answer()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert waiting(subject) == 0
        assert it.entered == ["a"]
        it.event("a").set()
        assert (await first.answer()).status == 200
        assert await it.is_free()
        first.leave()
        late.leave()


async def test_each_key_has_places_and_a_queue_of_its_own() -> None:
    subject = concurrency_limit_middleware(
        1,
        backlog=1,
        backlog_timeout=LONG,
        key=lambda request: request.headers.get("X-Key"),
    )
    async with door(subject) as it:
        clients = []
        for key in "ab":
            fields = f"X-Key: {key}\r\n"
            clients.append(await it.enter(f"{key}1", fields))
            clients.append(await it.ask(f"{key}2", fields))
        await eventually(lambda: waiting(subject) == 2)
        late = await it.ask("a3", "X-Key: a\r\n")
        assert (await late.answer()).status == 503
        # Who has none has no limit.
        clients += [await it.enter("c"), await it.enter("d")]
        it.event("a1").set()
        await eventually(lambda: "a2" in it.entered)
        assert "b2" not in it.entered
        for client in (*clients, late):
            client.leave()


async def test_error_middleware_renders_the_refusal() -> None:
    subject = concurrency_limit_middleware(1)
    async with door(error_middleware(), subject) as it:
        client = await it.enter("a")
        late = await it.ask("b")
        answer = await late.answer()
        assert answer.status == 503
        assert answer.rest == b'{"detail": "Service Unavailable"}'
        assert answer.headers["Retry-After"] == "1"
        client.leave()
        late.leave()


async def test_refusal_is_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = concurrency_limit_middleware(1)
    async with door(error_middleware(), subject) as it:
        client = await it.enter("a")
        late = await it.ask("b")
        assert (await late.answer()).status == 503
        client.leave()
        late.leave()
    (record,) = caplog.records
    assert record.name == "aiohttp_middlewares.error"
    assert record.levelno == logging.WARNING


async def test_refusals_are_logged_without_what_the_client_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aiohttp_middlewares")
    subject = concurrency_limit_middleware(
        1, backlog=1, backlog_timeout=0.01, key=lambda request: "secret"
    )
    async with door(subject) as it:
        client = await it.enter("a")
        second, third = await it.ask("b"), await it.ask("c")
        for late in (second, third):
            assert (await late.answer()).status == 503
            late.leave()
        client.leave()
    reasons = sorted(str(vars(record)["reason"]) for record in caplog.records)
    assert reasons == [
        "all places are taken",
        "it waited too long for a place",
    ]
    assert "secret" not in caplog.text


# What it leaves alone
# ====================


async def test_ignored_urls_have_no_limit() -> None:
    subject = concurrency_limit_middleware(1, ignore=["/returned"])
    async with door(subject) as it:
        client = await it.enter("a")
        assert await it.is_free("/returned")
        assert not await it.is_free("/sent")
        client.leave()


async def test_request_has_one_place_where_it_is_listed_twice() -> None:
    subject = concurrency_limit_middleware(1)
    entered = []

    async def page(request: web.Request) -> web.Response:
        entered.append(request.path)
        return web.Response()

    inner = web.Application(middlewares=[subject, subject])
    inner.router.add_get("/page", page)
    app = web.Application(
        middlewares=[
            subject,
            https_middleware({"Host": "a.example"}),
            subject,
        ]
    )
    app.add_subapp("/inner", inner)
    async with live(app) as site:
        for _ in range(3):
            connection = await site.connect()
            connection.send("GET /inner/page")
            assert (await connection.answer()).status == 200
            connection.leave()
    assert len(entered) == 3
    assert lines_of(subject) == {}


async def test_two_limits_both_hold() -> None:
    outer, inner = (concurrency_limit_middleware(n) for n in (3, 1))
    async with door(outer, inner) as it:
        client = await it.enter("a")
        assert not await it.is_free()
        it.event("a").set()
        await client.answer()
        assert await it.is_free()
        client.leave()
    assert lines_of(outer) == lines_of(inner) == {}


# Places are held, and given back
# ===============================


async def test_place_is_held_until_the_last_byte_is_out() -> None:
    """By a client that reads slowly, too, when the handler is done."""
    big = b"x" * 30_000_000
    done = asyncio.Event()

    async def page(request: web.Request) -> web.Response:
        done.set()
        return web.Response(body=big)

    async with door(
        concurrency_limit_middleware(1), routes={"/big": page}
    ) as it:
        connection = await it.site.connect()
        connection.send("GET /big")
        await done.wait()
        await connection.head()
        assert not await it.is_free()
        await connection.reader.readexactly(len(big))
        await it.becomes_free()
        connection.leave()


async def test_websocket_holds_its_place_until_it_is_closed() -> None:
    async def chat(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("hello")
        async for _ in response:
            pass
        return response

    async with door(
        concurrency_limit_middleware(1), routes={"/chat": chat}
    ) as it:
        connection = await it.site.connect()
        upgrade = "".join(f"{name}: {it}\r\n" for name, it in UPGRADE.items())
        connection.send("GET /chat", fields=upgrade)
        await connection.until(b"hello")
        assert not await it.is_free()
        connection.reset()
        await it.becomes_free()


NEIGHBOURS: dict[str, Callable[[Middleware], list[Middleware]]] = {
    "alone": lambda subject: [subject],
    "cloned": lambda subject: [
        https_middleware({"Host": "a.example"}),
        subject,
    ],
    "all": lambda subject: [
        error_middleware(),
        subject,
        compression_middleware(minimum_size=1),
        timeout_middleware(30),
        shield_middleware(methods={"GET", "POST"}),
    ],
    "inside": lambda subject: [
        error_middleware(),
        timeout_middleware(30),
        shield_middleware(methods={"GET", "POST"}),
        subject,
    ],
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("neighbours", NEIGHBOURS)
async def test_every_kind_of_answer_gives_its_place_back(
    neighbours: str, method: str
) -> None:
    subject = concurrency_limit_middleware(1)
    async with door(*NEIGHBOURS[neighbours](subject)) as it:
        for kind in KINDS:
            connection = await it.site.connect()
            connection.send(f"{method} {kind.path}", fields=fields(kind))
            head = await connection.head()
            assert head.status != 503, kind
            connection.leave()
            await eventually(lambda: lines_of(subject) == {})
            assert await it.is_free(), kind


def fields(kind: Kind) -> str:
    return "".join(f"{name}: {text}\r\n" for name, text in kind.fields.items())


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("path", ["/wait/a", "/stream"])
async def test_client_that_leaves_its_handler_frees_the_place(
    cancelled: bool, path: str
) -> None:
    """At once if that is cancelled, and else when it is done."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        entered.set()
        await go_on.wait()
        return response

    async with door(
        concurrency_limit_middleware(1),
        routes={"/stream": stream},
        handler_cancellation=cancelled,
    ) as it:
        connection = await it.site.connect()
        connection.send(f"GET {path}")
        await eventually(lambda: it.entered or entered.is_set())
        connection.reset()
        if not cancelled:
            await eventually(lambda: lost(it.site))
            assert not await it.is_free()
            go_on.set()
            it.event("a").set()
        await it.becomes_free()


def lost(site: Live, number: int = 1) -> bool:
    """Whether so many clients are gone whose handlers go on."""
    connections = site.runner.server.connections  # type: ignore[union-attr]
    return sum(each.transport is None for each in connections) == number


async def test_shielded_handler_has_its_place_when_its_client_is_gone() -> None:
    """Or else a client could start any number of them."""
    subject = concurrency_limit_middleware(1)
    async with door(subject, shield_middleware(methods={"GET"})) as it:
        client = await it.enter("a")
        client.reset()
        await eventually(lambda: lost(it.site))
        assert not await it.is_free()
        assert it.left == []
        it.event("a").set()
        await it.becomes_free()
        assert it.left == ["a"]


async def test_limit_that_is_reached_inside_frees_the_place() -> None:
    async with door(
        error_middleware(),
        concurrency_limit_middleware(1),
        timeout_middleware(None, limits={"/wait/a": 0.01}),
    ) as it:
        client = await it.enter("a")
        assert (await client.answer()).status == 504
        assert await it.is_free()
        client.leave()


async def test_limit_that_is_reached_in_the_queue_frees_it() -> None:
    subject = concurrency_limit_middleware(1, backlog=1, backlog_timeout=LONG)
    async with door(
        error_middleware(),
        timeout_middleware(None, limits={"/wait/b": 0.01}),
        subject,
    ) as it:
        first = await it.enter("a")
        second = await it.ask("b")
        assert (await second.answer()).status == 504
        assert waiting(subject) == 0
        it.event("a").set()
        assert (await first.answer()).status == 200
        assert await it.is_free()
        first.leave()
        second.leave()


# Clients that leave the queue
# ============================


async def test_client_that_is_cancelled_in_the_queue_frees_it() -> None:
    subject = concurrency_limit_middleware(1, backlog=1, backlog_timeout=LONG)
    async with door(subject) as it:
        first = await it.enter("a")
        second = await it.ask("b")
        await eventually(lambda: waiting(subject) == 1)
        second.reset()
        await eventually(lambda: waiting(subject) == 0)
        third = await it.ask("c")
        await eventually(lambda: waiting(subject) == 1)
        it.event("a").set()
        await eventually(lambda: len(it.entered) == 2)
        assert it.entered == ["a", "c"]
        first.leave()
        third.leave()


async def test_client_that_is_gone_in_the_queue_makes_room_for_another() -> (
    None
):
    """Also where aiohttp does not cancel."""
    subject = concurrency_limit_middleware(1, backlog=1, backlog_timeout=LONG)
    async with door(subject, handler_cancellation=False) as it:
        first = await it.enter("a")
        second = await it.ask("b")
        await eventually(lambda: waiting(subject) == 1)
        second.reset()
        await eventually(lambda: lost(it.site))
        third = await it.ask("c")
        # The task of the second is over.
        await eventually(lambda: lost(it.site, 0))
        assert waiting(subject) == 1
        it.event("a").set()
        await eventually(lambda: len(it.entered) == 2)
        assert it.entered == ["a", "c"]
        first.leave()
        third.leave()


async def test_each_that_is_gone_makes_room_in_a_long_queue() -> None:
    """Longer than what a few who are turned away have looked at."""
    length = 250
    subject = concurrency_limit_middleware(
        1, backlog=length, backlog_timeout=LONG
    )
    async with door(subject, handler_cancellation=False) as it:
        clients = [await it.enter("a")]
        clients += [await it.ask("b") for _ in range(length)]
        await in_queue(subject, length)
        for number in (60, 90):
            assert not await it.is_free()
            clients[number].reset()
            await eventually(lambda: lost(it.site))
            clients.append(await it.ask("c"))
            # The task of who has left is over, and another waits instead.
            await eventually(lambda: lost(it.site, 0))
            assert waiting(subject) == length
        for name in "abc":
            it.event(name).set()
        for client in clients:
            client.leave()


async def test_full_queue_is_looked_at_as_often_as_is_paid_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or each who is turned away would cost as much as all who wait."""
    looks = 0

    def is_gone(request: web.Request) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(concurrency_limit, "_is_gone", is_gone)
    line = concurrency_limit._Line({}, None, 1)
    entry: Any = None, None
    for _ in range(1000):
        line.waiting[asyncio.get_running_loop().create_future()] = entry
    for _ in range(200):
        assert not line.has_room(1000)
    assert looks == 200 * concurrency_limit._LOOKS


async def test_client_that_is_gone_has_no_turn() -> None:
    subject = concurrency_limit_middleware(1, backlog=3, backlog_timeout=LONG)
    async with door(subject, handler_cancellation=False) as it:
        first = await it.enter("a")
        gone = [await it.ask("b"), await it.ask("c")]
        await eventually(lambda: waiting(subject) == 2)
        last = await it.ask("d")
        await eventually(lambda: waiting(subject) == 3)
        for client in gone:
            client.reset()
        await eventually(lambda: lost(it.site, 2))
        it.event("a").set()
        await eventually(lambda: len(it.entered) == 2)
        assert it.entered == ["a", "d"]
        it.event("d").set()
        await it.becomes_free()
        first.leave()
        last.leave()


async def test_clients_that_are_gone_cost_a_refusal_next_to_nothing() -> None:
    """Each refusal looks at a hundred of those who wait, and no more."""
    from aiohttp_middlewares.concurrency_limit import _Line

    looked = 0

    class Request:
        @property
        def transport(self) -> None:
            nonlocal looked
            looked += 1

    line = _Line({}, None, 1)
    loop = asyncio.get_running_loop()
    for _ in range(10_000):
        line.waiting[loop.create_future()] = (None, Request())  # type: ignore[assignment]
    answers = [line.has_room(10_000) for _ in range(100)]
    assert answers == [False] * 99 + [True]
    assert looked == 10_000
    assert not line.waiting


async def test_turn_of_who_is_cancelled_in_that_moment_is_passed_on() -> None:
    subject = concurrency_limit_middleware(1, backlog=2, backlog_timeout=LONG)
    tasks: dict[str, asyncio.Task[Any]] = {}

    @middleware
    async def notes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        tasks[request.path] = task
        return await handler(request)

    @middleware
    async def cancels(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """The next one, in the step in which it gets its turn."""
        response = await handler(request)
        if request.path == "/wait/a":
            await response.prepare(request)
            await response.write_eof()
            tasks["/wait/b"].cancel()
        return response

    async with door(notes, cancels, subject) as it:
        clients = [await it.enter("a")]
        for position, name in enumerate("bc", 1):
            clients.append(await it.ask(name))
            await in_queue(subject, position)
        it.event("a").set()
        await eventually(lambda: "c" in it.entered)
        assert it.entered == ["a", "c"]
        it.event("c").set()
        await it.becomes_free()
        for client in clients:
            client.leave()
    assert lines_of(subject) == {}


async def test_handler_that_comes_late_to_a_gone_client_frees_its_place() -> (
    None
):
    """Shielded outside: all is over before the middleware is called."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    subject = concurrency_limit_middleware(1)

    @middleware
    async def slow(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.path == "/wait/a":
            entered.set()
            await go_on.wait()
        return await handler(request)

    async with door(
        concurrency_limit_middleware(9),
        shield_middleware(methods={"GET"}),
        slow,
        subject,
    ) as it:
        client = await it.ask("a")
        await entered.wait()
        client.reset()
        await eventually(lambda: lost(it.site))
        go_on.set()
        await eventually(lambda: it.entered)
        assert not await it.is_free()
        it.event("a").set()
        await it.becomes_free()
    assert lines_of(subject) == {}


# Load
# ====


async def test_never_more_at_a_time_and_no_place_is_lost() -> None:
    """Clients that stay, leave and vanish, in the queue and at work."""
    subject = concurrency_limit_middleware(5, backlog=20, backlog_timeout=LONG)
    at_work = most = served = 0

    async def page(request: web.Request) -> web.Response:
        nonlocal at_work, most, served
        at_work += 1
        most = max(most, at_work)
        try:
            await asyncio.sleep(0.001)
        finally:
            at_work -= 1
        served += 1
        if request.query["number"].endswith("7"):
            raise web.HTTPBadRequest
        return web.Response()

    async with door(subject, routes={"/page": page}) as it:

        async def ask(number: int) -> int:
            connection = await it.site.connect()
            connection.send(f"GET /page?number={number}")
            if number % 3 == 0:
                await asyncio.sleep(0)
                connection.reset()
                return 0
            answer = await connection.answer()
            connection.leave()
            return answer.status

        for start in range(0, 400, 40):
            statuses = await asyncio.gather(
                *(ask(start + number) for number in range(40))
            )
            assert set(statuses) <= {0, 200, 400, 503}
        await eventually(lambda: lines_of(subject) == {})
    assert most == 5
    assert served > 100


@pytest.mark.parametrize("with_key", [False, True])
async def test_keys_are_forgotten_with_their_last_request(
    with_key: bool,
) -> None:
    key = (lambda request: request.query_string) if with_key else None
    subject = concurrency_limit_middleware(1, key=key)
    async with door(subject) as it:
        connection = await it.site.connect()
        for number in range(200):
            connection.send(f"GET /returned?{number}")
        for _ in range(200):
            assert (await connection.answer()).status == 200
        connection.leave()
        await eventually(lambda: lines_of(subject) == {})


COUNT = 200


async def memory_of(*middlewares: Middleware) -> float:
    """What a request takes that waits, with its connection: bytes."""
    async with door(*middlewares) as it:
        held = await it.enter("held")
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        clients = [await it.ask("waits") for _ in range(COUNT)]
        await eventually(
            lambda: it.entered.count("waits") + waiting(*middlewares) == COUNT
        )
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] - before
        for client in (held, *clients):
            client.leave()
    return size / COUNT


async def test_waiting_costs_no_more_memory_than_the_connection() -> None:
    subject = concurrency_limit_middleware(
        1, backlog=COUNT, backlog_timeout=LONG
    )
    tracemalloc.start()
    try:
        await memory_of()  # to warm up
        bare = await memory_of()
        queued = await memory_of(subject)
    finally:
        tracemalloc.stop()
    assert queued < 1.5 * bare


async def test_nothing_more_waits_for_the_garbage_collector() -> None:
    subject = concurrency_limit_middleware(1)
    await no_more_than_without(subject)


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        ((0,), {}, ValueError, "limit should be a whole number, 1 or more"),
        ((True,), {}, TypeError, "limit should be a whole number"),
        (("1",), {}, TypeError, "limit should be a whole number"),
        ((1,), {"backlog": -1}, ValueError, "backlog should be a whole"),
        ((1,), {"backlog": None}, TypeError, "backlog should be a whole"),
        ((1,), {"backlog_timeout": 0}, ValueError, "backlog_timeout should"),
        ((1,), {"backlog_timeout": "1"}, TypeError, "backlog_timeout should"),
        ((1,), {"key": "ip"}, TypeError, "key should be a callable"),
        ((1,), {"key": late}, TypeError, "key should be .* not async"),
        ((1,), {"ignore": "/a"}, TypeError, "ignore should be a collection"),
    ],
)
def test_wrong_options_are_refused(
    arguments: Any, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"concurrency_limit_middleware {said}"):
        concurrency_limit_middleware(*arguments, **options)
