"""What is told of an answer is what a client has seen of it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from aiohttp import web
from answers import KINDS, Kind, serve
from garbage import no_more_than_without
from live import Live, eventually, live, soon
from prometheus_client import CollectorRegistry

from aiohttp_middlewares import (
    access_log_middleware,
    compression_middleware,
    concurrency_limit_middleware,
    error_middleware,
    https_middleware,
    metrics_middleware,
    server_timing_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, outcome_of
from aiohttp_middlewares._core.who import set_user
from aiohttp_middlewares.annotations import Handler, Middleware

BIG = b"x" * 10_000_000


class Seen(list[Outcome]):
    """The outcomes of all requests, as a middleware was told of them."""

    def middleware(self) -> Middleware:
        @middleware
        async def observing(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            outcome = outcome_of(request)
            outcome.observe(Seen, self.append)
            return await handler(request)

        return observing


@asynccontextmanager
async def serving(
    *middlewares: Middleware, routes: Any = (), **options: Any
) -> AsyncIterator[tuple[Live, Seen]]:
    seen = Seen()
    app = web.Application(middlewares=[seen.middleware(), *middlewares])
    for path, handler in dict(routes).items():
        app.router.add_route("*", path, handler)
    async with live(serve(app), **options) as site:
        yield site, seen


NEIGHBOURS: dict[str, Callable[[], list[Middleware]]] = {
    "alone": list,
    "error": lambda: [error_middleware()],
    "compression": lambda: [compression_middleware(minimum_size=1)],
    "cloned": lambda: [https_middleware({"Host": "a.example"})],
    "all": lambda: [
        error_middleware(),
        compression_middleware(minimum_size=1),
        timeout_middleware(30),
        shield_middleware(methods={"GET", "POST"}),
    ],
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_status_and_size_are_those_on_the_wire(
    kind: Kind, neighbours: str, method: str
) -> None:
    fields = {"Accept-Encoding": "gzip", **kind.fields}
    sent = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with serving(*NEIGHBOURS[neighbours]()) as (site, seen):
        connection = await site.connect()
        connection.send(f"{method} {kind.path}", fields=sent)
        if method == "HEAD":
            answer = await connection.head()
        elif kind.status == 101 or answer_has_no_body(kind.status):
            answer = (await connection.head())._replace(rest=b"")
        else:
            answer = await connection.answer()
        await eventually(lambda: seen)
        connection.leave()
    (outcome,) = seen
    assert outcome.is_sent
    assert outcome.is_complete
    assert outcome.status == answer.status
    assert outcome.size == (0 if method == "HEAD" else len(answer.rest))
    assert outcome.headers is not None
    assert 0 < outcome.duration < 20


def answer_has_no_body(status: int) -> bool:
    return status in (204, 304)


async def test_nothing_more_waits_for_the_garbage_collector() -> None:
    await no_more_than_without(Seen().middleware())


OBSERVING: dict[str, Callable[[], Middleware]] = {
    "access_log": access_log_middleware,
    "concurrency_limit": lambda: concurrency_limit_middleware(9),
    "metrics": lambda: metrics_middleware(registry=CollectorRegistry()),
    "server_timing": lambda: server_timing_middleware(emit=len, cpu=True),
}


@pytest.mark.parametrize("name", OBSERVING)
async def test_nor_does_it_for_clients_that_leave(name: str) -> None:
    assert await left_by_who_left(OBSERVING[name]()) == await left_by_who_left()


async def left_by_who_left(*middlewares: Middleware) -> int:
    """How many requests live on that were cancelled."""
    entered: asyncio.Queue[None] = asyncio.Queue()

    async def slow(request: web.Request) -> web.Response:
        entered.put_nowait(None)
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/slow", slow)
    async with live(app) as site:
        gc.collect()
        gc.disable()
        before = requests()  # that a log record has kept
        try:
            for _ in range(3):
                connection = await site.connect()
                connection.send("GET /slow")
                await soon(entered.get())
                connection.reset()
            await eventually(lambda: not site.connections())
            for _ in range(5):  # until all is told
                await asyncio.sleep(0)
            return requests() - before
        finally:
            gc.enable()


def requests() -> int:
    return [type(thing) for thing in gc.get_objects()].count(web.Request)


async def test_route_and_method_have_no_more_names_than_the_server() -> None:
    async with serving() as (site, seen):
        for line in (
            "PROPFIND /returned",
            "GET /a",
            "GET /b",
            "POST /returned",
        ):
            connection = await site.connect()
            connection.send(line)
            await connection.answer()
            connection.leave()
        await eventually(lambda: len(seen) == 4)
    assert [(outcome.method, outcome.route) for outcome in seen] == [
        ("_OTHER", "/returned"),
        ("GET", "__unmatched__"),
        ("GET", "__unmatched__"),
        ("POST", "/returned"),
    ]


async def test_route_of_a_sub_application_has_its_prefix() -> None:
    seen = Seen()
    inner = web.Application(middlewares=[seen.middleware()])

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="inner")

    inner.router.add_get("/users/{name}", page)
    app = web.Application(middlewares=[seen.middleware()])
    app.add_subapp("/inner", inner)
    async with live(app) as site:
        connection = await site.connect()
        connection.send("GET /inner/users/ann")
        await connection.answer()
        connection.leave()
        await eventually(lambda: seen)
    # Listed in both, and told of once.
    assert [outcome.route for outcome in seen] == ["/inner/users/{name}"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_client_that_left_before_the_answer_is_499(
    cancelled: bool,
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="too late")

    routes = {"/slow": slow}
    async with serving(routes=routes, handler_cancellation=cancelled) as (
        site,
        seen,
    ):
        connection = await site.connect()
        connection.send("GET /slow")
        await entered.wait()
        connection.reset()
        await eventually(lambda: not site.connections() or not cancelled)
        if not cancelled:
            await eventually(
                lambda: all(
                    each.transport is None
                    for each in site.runner.server.connections  # type: ignore[union-attr]
                )
            )
            assert not seen
            go_on.set()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.is_sent) == (499, False)
    assert not outcome.is_complete
    assert outcome.size == 0


async def test_client_that_left_a_shielded_handler_is_told_of_at_once() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="too late")

    async with serving(
        shield_middleware(methods={"GET"}), routes={"/slow": slow}
    ) as (site, seen):
        connection = await site.connect()
        connection.send("GET /slow")
        await entered.wait()
        connection.reset()
        await eventually(lambda: seen)
        assert [outcome.status for outcome in seen] == [499]
        go_on.set()
    assert len(seen) == 1


async def test_handler_that_goes_on_after_its_504_is_not_told_of() -> None:
    """Shielded, and asked for when the request is over already."""
    answered, ran = asyncio.Event(), asyncio.Event()
    seen = Seen()

    @middleware
    async def slow(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await answered.wait()
        return await handler(request)

    async def page(request: web.Request) -> web.Response:
        assert outcome_of(request).ended
        ran.set()
        return web.Response()

    app = web.Application(
        middlewares=[
            timeout_middleware(0.01),
            shield_middleware(methods={"GET"}),
            slow,
            seen.middleware(),
        ]
    )
    app.router.add_get("/", page)
    async with live(app) as site:
        connection = await site.connect()
        connection.send("GET /")
        assert (await connection.answer()).status == 504
        answered.set()
        await soon(ran.wait())
        connection.leave()
    assert not seen


async def test_response_that_cannot_be_sent_has_no_status() -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(headers={"X-Odd": "a\r\nb"})

    async with serving(routes={"/page": page}) as (site, seen):
        connection = await site.connect()
        connection.send("GET /page")
        assert await connection.rest() == b""
        connection.leave()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.is_sent) == (499, False)
    assert not outcome.is_complete


@pytest.mark.parametrize("cancelled", [True, False])
async def test_client_that_left_in_the_middle_has_had_the_status(
    cancelled: bool,
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)
            await asyncio.sleep(0)

    async with serving(
        routes={"/endless": endless}, handler_cancellation=cancelled
    ) as (site, seen):
        connection = await site.connect()
        connection.send("GET /endless")
        await connection.head()
        connection.reset()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.is_sent) == (200, True)
    assert not outcome.is_complete
    assert outcome.size >= 1000


async def test_client_that_leaves_a_file_has_had_the_status(
    tmp_path: Any,
) -> None:
    path = tmp_path / "big"
    path.write_bytes(BIG)

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    async with serving(routes={"/big": file}) as (site, seen):
        connection = await site.connect()
        connection.send("GET /big")
        await connection.head()
        connection.reset()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.is_complete) == (200, False)


async def test_stream_that_fails_is_cut_and_told_of() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("the other half")

    async with serving(error_middleware(), routes={"/broken": broken}) as (
        site,
        seen,
    ):
        connection = await site.connect()
        connection.send("GET /broken")
        await connection.rest()
        connection.leave()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.size) == (200, 4)
    assert not outcome.is_complete


async def test_what_the_writer_cuts_off_does_not_count() -> None:
    async def too_long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 4
        await response.prepare(request)
        await response.write(b"12")
        await response.write(b"3456")
        await response.write(b"78")
        return response

    async with serving(routes={"/long": too_long}) as (site, seen):
        connection = await site.connect()
        connection.send("GET /long")
        assert (await connection.answer()).rest == b"1234"
        connection.leave()
        await eventually(lambda: seen)
    assert [outcome.size for outcome in seen] == [4]


async def test_what_takes_the_place_of_a_late_answer_is_told_of() -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(
        error_middleware(), timeout_middleware(0.01), routes={"/slow": slow}
    ) as (site, seen):
        connection = await site.connect()
        connection.send("GET /slow")
        answer = await connection.answer()
        connection.leave()
        await eventually(lambda: seen)
    (outcome,) = seen
    assert (outcome.status, outcome.size) == (504, len(answer.rest))


async def test_inside_of_a_limit_what_is_answered_outside_is_told_of() -> None:
    """Cancelled, but by somebody who answers in its place."""
    seen = Seen()

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application(
        middlewares=[
            error_middleware(),
            timeout_middleware(0.01),
            seen.middleware(),
        ]
    )
    app.router.add_get("/slow", slow)
    async with live(app) as site:
        connection = await site.connect()
        connection.send("GET /slow")
        assert (await connection.answer()).status == 504
        connection.leave()
        await eventually(lambda: seen)
    assert [outcome.status for outcome in seen] == [504]


async def test_requests_of_one_connection_are_told_apart() -> None:
    async with serving() as (site, seen):
        connection = await site.connect()
        connection.send("GET /returned")
        connection.send("GET /streamed")
        connection.send("GET /nowhere")
        for _ in range(3):
            await connection.answer()
        connection.leave()
        await eventually(lambda: len(seen) == 3)
    assert [outcome.status for outcome in seen] == [200, 200, 404]
    assert [outcome.size for outcome in seen][:2] == [8, 8]


async def test_observer_is_told_in_the_context_of_its_own_request() -> None:
    """Also if the handler of another one writes the last byte."""
    name: ContextVar[str] = ContextVar("name")
    told = []
    held: asyncio.Future[web.StreamResponse] = (
        asyncio.get_running_loop().create_future()
    )
    done = asyncio.Event()

    @middleware
    async def observing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        name.set(request.path)
        outcome_of(request).observe(
            "name", lambda outcome: told.append((outcome.route, name.get()))
        )
        return await handler(request)

    async def waits(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        held.set_result(response)
        await done.wait()
        return response

    async def ends(request: web.Request) -> web.StreamResponse:
        name.set("inside")
        await (await held).write_eof(b"end")
        done.set()
        return web.Response()

    app = web.Application(middlewares=[observing])
    app.router.add_get("/waits", waits)
    app.router.add_get("/ends", ends)
    async with live(app) as site:
        connections = [await site.connect(), await site.connect()]
        connections[0].send("GET /waits")
        await connections[0].head()
        connections[1].send("GET /ends")
        await connections[1].answer()
        await eventually(lambda: len(told) == 2)
        for connection in connections:
            connection.leave()
    assert told == [("/waits", "/waits"), ("/ends", "inside")]


async def test_caller_is_known_behind_a_clone_that_shares_nothing() -> None:
    """As middlewares of others make one."""

    @middleware
    async def foreign(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(scheme="https"))

    async def page(request: web.Request) -> web.Response:
        set_user(request, "ann")
        return web.Response()

    async with serving(foreign, routes={"/page": page}) as (site, seen):
        connection = await site.connect()
        connection.send("GET /page")
        await connection.answer()
        connection.leave()
        await eventually(lambda: seen)
    assert [outcome.caller.user for outcome in seen] == ["ann"]


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
async def test_observer_that_fails_harms_nobody(
    failure: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def broken(outcome: Outcome) -> None:
        raise failure  # as of the result of some future

    @middleware
    async def observing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outcome = outcome_of(request)
        outcome.observe("outer", lambda outcome: told.append(outcome.status))
        outcome.observe("broken", broken)
        return await handler(request)

    app = serve(web.Application(middlewares=[observing]))
    async with live(app) as site:
        connection = await site.connect()
        connection.send("GET /returned")
        assert (await connection.answer()).rest == b"returned"
        connection.leave()
        await eventually(lambda: told)
    assert told == [200]
    assert "What observes requests failed" in caplog.text


@pytest.mark.parametrize("size", [1, 15, 16, 4095, 65_536, 1_000_000])
async def test_stream_that_aiohttp_compresses_counts_as_compressed(
    size: int,
) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression()
        await response.prepare(request)
        for begin in range(0, size, 50_000):
            part = range(begin, min(size, begin + 50_000))
            await response.write(bytes(each * 7919 % 251 for each in part))
        return response

    async with serving(routes={"/page": page}) as (site, seen):
        connection = await site.connect()
        connection.send("GET /page", fields="Accept-Encoding: gzip\r\n")
        answer = await connection.answer()
        connection.leave()
        await eventually(lambda: seen)
    assert [outcome.size for outcome in seen] == [len(answer.rest)]
