"""How long it took, and for what: in a header, and to whom it may concern."""

import asyncio
import gc
import logging
import re
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from statistics import median
from time import perf_counter, sleep, thread_time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from answers import KINDS, Kind, serve
from garbage import no_more_than_without
from hypothesis import given
from hypothesis import strategies as st
from live import Live, complaints, eventually, live
from raw import Head
from test_core_outcome import NEIGHBOURS
from test_package import blocks_of, read

from aiohttp_middlewares import (
    Timing,
    error_middleware,
    get_request_id,
    https_middleware,
    request_id_middleware,
    server_timing,
    server_timing_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.fields import (
    elements,
    parameters,
    unquoted,
)
from aiohttp_middlewares._core.logs import shown
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.server_timing import ServerTiming

NAME = "aiohttp_middlewares.server_timing"
PAGE = Path(__file__).parents[1] / "docs/how-to/logs.rst"
NUMBER = re.compile(r"\d+\.\d")


async def page(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def app_of(*middlewares: Middleware, handler: Any = page) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/users/{name}", handler)
    return serve(app)


@asynccontextmanager
async def serving(
    *middlewares: Middleware, handler: Any = page, **options: Any
) -> AsyncIterator[Live]:
    async with live(app_of(*middlewares, handler=handler), **options) as site:
        yield site


async def ask(site: Live, line: str = "GET /users/ann") -> Head:
    connection = await site.connect()
    connection.send(line)
    answer = await connection.answer()
    connection.leave()
    return answer


def members(value: str) -> list[dict[str, str]]:
    """Those of the header, as a reader of RFC 9110 takes it apart."""
    found = []
    for element in elements([value]):
        name, _, rest = element.partition(";")
        pairs = parameters(rest)
        assert pairs is not None
        found.append({"": name, **{k: unquoted(v) for k, v in pairs}})
    return found


def members_of(answer: Head) -> list[dict[str, str]]:
    (line,) = answer.headers.getall("Server-Timing")
    return members(line)


# The header
# ==========


async def test_header_says_the_total_and_what_was_measured() -> None:
    async def handler(request: web.Request) -> web.Response:
        timing = server_timing(request)
        with timing.measure("sync"):
            pass
        async with timing.measure("async.one", 'it\'s; a, "test" \\'):
            await asyncio.sleep(0)
        timing.add("db", 0.0051, "desc")
        timing.add("cache", description="miss")
        timing.add("hit")
        return web.Response()

    async with serving(server_timing_middleware(), handler=handler) as site:
        answer = await ask(site)
    total, first, second, *others = members_of(answer)
    assert total[""] == "total"
    assert NUMBER.fullmatch(total["dur"])
    assert first[""] == "sync"
    assert NUMBER.fullmatch(first["dur"])
    assert second[""] == "async.one"
    assert second["desc"] == 'it\'s; a, "test" \\'
    assert others == [
        {"": "db", "dur": "5.1", "desc": "desc"},
        {"": "cache", "desc": "miss"},
        {"": "hit"},
    ]
    assert answer.headers["Server-Timing"].endswith(
        'db;dur=5.1;desc="desc", cache;desc="miss", hit'
    )


async def test_total_ends_with_the_first_byte_duration_with_the_last() -> None:
    told: list[Timing] = []
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        timing = server_timing(request)
        timing.add("before")
        response = web.StreamResponse()
        await response.prepare(request)
        with timing.measure("after"):
            await response.write(b"first")
            await go_on.wait()
        return response

    async with serving(
        server_timing_middleware(emit=told.append), handler=handler
    ) as site:
        connection = await site.connect()
        connection.send("GET /users/ann")
        answer = await connection.head()
        waited_from = perf_counter()
        await connection.until(b"first")
        assert told == []
        go_on.set()
        waited = perf_counter() - waited_from
        await eventually(lambda: told)
        connection.leave()
    # What is measured once the headers are out is only told.
    assert [member[""] for member in members_of(answer)] == ["total", "before"]
    (timing,) = told
    assert [name for name, _, _ in timing.measures] == ["before", "after"]
    after = timing.measures[1][1]
    assert after is not None
    assert timing.duration >= after >= waited > 0


async def test_measures_may_be_nested_concurrent_and_fail() -> None:
    told: list[Timing] = []

    async def handler(request: web.Request) -> web.Response:
        timing = server_timing(request)
        turn = asyncio.Event()

        async def one(number: int) -> None:
            async with timing.measure(f"one.{number}"):
                if number == 9:
                    turn.set()
                await turn.wait()

        def in_a_thread() -> None:
            with timing.measure("thread"):
                pass

        async with timing.measure("outer"):
            with timing.measure("inner"):
                await asyncio.gather(*(one(number) for number in range(10)))
        await asyncio.to_thread(in_a_thread)
        with pytest.raises(ZeroDivisionError), timing.measure("failed"):
            raise ZeroDivisionError
        return web.Response()

    async with serving(
        server_timing_middleware(emit=told.append), handler=handler
    ) as site:
        answer = await ask(site)
        await eventually(lambda: told)
    names = [name for name, _, _ in told[0].measures]
    assert sorted(names[:10]) == [f"one.{number}" for number in range(10)]
    assert names[10:] == ["inner", "outer", "thread", "failed"]
    seconds = {name: seconds for name, seconds, _ in told[0].measures}
    assert seconds["outer"] >= seconds["inner"] >= seconds["one.0"] > 0  # type: ignore[operator]
    assert [member[""] for member in members_of(answer)] == ["total", *names]


@pytest.mark.parametrize("raises", [True, False])
async def test_own_header_of_the_handler_is_merged(raises: bool) -> None:
    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("ours")
        answer = web.HTTPConflict if raises else web.Response
        response = answer(headers={"Server-Timing": 'up;desc="a, b"'})
        response.headers.add("Server-Timing", "total;dur=1")
        if raises:
            raise response  # type: ignore[misc]
        return response

    async with serving(server_timing_middleware(), handler=handler) as site:
        answer = await ask(site)
    names = [member[""] for member in members_of(answer)]
    assert names == ["total", "ours", "up", "total"]
    assert answer.headers["Server-Timing"].endswith(
        ', ours, up;desc="a, b", total;dur=1'
    )


async def test_error_page_bears_it_once() -> None:
    """Also where the page takes over the headers of what was raised."""

    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPConflict(headers={"Server-Timing": "up"})

    chain = [error_middleware(), server_timing_middleware()]
    for order in (chain, chain[::-1]):
        async with serving(*order, handler=handler) as site:
            answer = await ask(site)
        names = [member[""] for member in members_of(answer)]
        assert names in (["total"], ["total", "up"])


async def test_header_may_be_left_out() -> None:
    told: list[Timing] = []
    timing = server_timing_middleware(emit=told.append, header=False, cpu=True)
    async with serving(timing) as site:
        answer = await ask(site)
        await eventually(lambda: told)
    assert "Server-Timing" not in answer.headers


async def test_header_has_a_limit_that_no_proxy_minds() -> None:
    told: list[Timing] = []

    async def handler(request: web.Request) -> web.Response:
        for number in range(5000):
            server_timing(request).add(f"query.{number}", 0.1, "select")
        return web.Response()

    async with serving(
        server_timing_middleware(emit=told.append), handler=handler
    ) as site:
        answer = await ask(site)
        await eventually(lambda: told)
    assert 1900 < len(answer.headers["Server-Timing"]) <= 2000
    assert len(members_of(answer)) > 40
    assert len(told[0].measures) == 1000


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_every_kind_of_answer_bears_it_once(
    kind: Kind, neighbours: str, cpu: bool
) -> None:
    told: list[Timing] = []
    fields = "".join(f"{n}: {v}\r\n" for n, v in kind.fields.items())
    timing = server_timing_middleware(emit=told.append, cpu=cpu)
    async with serving(timing, *NEIGHBOURS[neighbours]()) as site:
        connection = await site.connect()
        connection.send(f"GET {kind.path}", fields=fields)
        answer = await connection.head()
        await eventually(lambda: told)
        connection.leave()
    expected = ["total", "cpu"] if cpu else ["total"]
    assert [member[""] for member in members_of(answer)] == expected
    route = "__unmatched__" if kind.handler is None else kind.path
    assert told[0][:3] == ("GET", route, answer.status)
    assert told[0].duration > 0
    assert (told[0].cpu is not None) == cpu


# emit
# ====


@pytest.mark.parametrize("is_async", [True, False])
async def test_emit_is_told_once_of_each_request(is_async: bool) -> None:
    told: list[tuple[Timing, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("a", 0.5, "b")
        return web.Response(status=201)

    def emit(timing: Timing) -> None:
        told.append((timing, get_request_id()))

    async def emit_later(timing: Timing) -> None:
        await asyncio.sleep(0)
        emit(timing)

    chain = [
        request_id_middleware(generator=lambda: "its-id"),
        server_timing_middleware(emit=emit_later if is_async else emit),
    ]
    async with serving(*chain, handler=handler) as site:
        await ask(site, "PROPFIND /users/ann")
        await ask(site, "GET /elsewhere")
        await eventually(lambda: len(told) == 2)
    (first, identity), (second, _) = told
    assert first == Timing(
        "_OTHER", "/users/{name}", 201, first.duration, None, (("a", 0.5, "b"),)
    )
    assert second[:3] == ("GET", "__unmatched__", 404)
    assert second.measures == ()
    assert identity == "its-id"


@pytest.mark.parametrize("is_async", [True, False])
async def test_emit_that_fails_is_logged_and_harms_nobody(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def emit(timing: Timing) -> None:
        raise ZeroDivisionError

    async def emit_later(timing: Timing) -> None:
        raise ZeroDivisionError

    timing = server_timing_middleware(emit=emit_later if is_async else emit)
    with complaints() as found:
        async with serving(timing) as site:
            connection = await site.connect()
            for _ in range(2):
                connection.send("GET /users/ann")
                assert (await connection.answer()).rest == b"hello"
            await eventually(
                lambda: [r.name for r in caplog.records].count(NAME) == 2
            )
            connection.leave()
    assert found == []
    (first, _) = [record for record in caplog.records if record.name == NAME]
    assert first.levelno == logging.ERROR
    assert first.exc_info is not None
    assert first.exc_info[0] is ZeroDivisionError


async def test_emits_that_hang_are_kept_and_do_not_pile_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[NAME], "_MOST_WAITING", 3)
    waiting: list[weakref.ref[asyncio.Future[None]]] = []

    async def hangs(timing: Timing) -> None:
        future = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        await future

    with complaints() as found:
        async with serving(server_timing_middleware(emit=hangs)) as site:
            for _ in range(6):
                assert (await ask(site)).status == 200
            await eventually(lambda: caplog.records[-1].name == NAME)
            gc.collect()
            futures = [each() for each in waiting]
            assert len(futures) == 3
            for future in futures:  # the loop alone would have lost them
                assert future is not None
                future.set_result(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await ask(site)
            await eventually(lambda: len(waiting) == 4)
            last = waiting[-1]()
            assert last is not None
            last.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert found == []
    warnings = [r for r in caplog.records if r.name == NAME]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert "3 calls of emit wait" in warnings[0].getMessage()


async def test_answer_does_not_wait_for_emit() -> None:
    go_on = asyncio.Event()
    done = []

    async def slow(timing: Timing) -> None:
        await go_on.wait()
        done.append(timing)

    async with serving(server_timing_middleware(emit=slow)) as site:
        connection = await site.connect()
        for _ in range(3):  # and the next on the connection neither
            connection.send("GET /users/ann")
            await connection.answer()
        assert done == []
        go_on.set()
        await eventually(lambda: len(done) == 3)
        connection.leave()


@pytest.mark.parametrize("cancelled", [True, False])
async def test_client_that_left_is_told_of(cancelled: bool) -> None:
    told: list[Timing] = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        server_timing(request).add("before")
        entered.set()
        await go_on.wait()
        return web.Response()

    async with serving(
        server_timing_middleware(emit=told.append, cpu=True),
        handler=slow,
        handler_cancellation=cancelled,
    ) as site:
        connection = await site.connect()
        connection.send("GET /users/ann")
        await entered.wait()
        connection.reset()
        if not cancelled:
            await asyncio.sleep(0.05)
            assert told == []
            go_on.set()
        await eventually(lambda: told)
    assert told[0].status == 499
    assert told[0].measures == (("before", None, None),)


async def test_what_is_slow_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("db", 1.5, "d\r\n")
        return web.Response()

    for slow, expected in ((1e-9, 1), (60, 0), (None, 0)):
        caplog.clear()
        timing = server_timing_middleware(slow=slow)
        async with serving(timing, timing, handler=handler) as site:
            await ask(site, "GET /users/ann%0a?secret")
        records = [r for r in caplog.records if r.name == NAME]
        assert len(records) == expected
        if records:
            (record,) = records
            assert record.levelno == logging.WARNING
            found = re.fullmatch(
                r"GET /users/ann%0a took \d+\.\d{3} s: total;dur=\d+\.\d, "
                r'db;dur=1500\.0;desc="d\\\\r\\\\n"',
                record.getMessage(),
            )
            assert found, record.getMessage()
            facts = vars(record)
            assert facts["route"] == "/users/{name}"
            assert facts["status"] == 200
            assert facts["duration"] > 0
            assert facts["remote"] == "127.0.0.1"
            assert "secret" not in str(facts)


async def test_websocket_is_never_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Timing] = []
    (kind,) = (kind for kind in KINDS if str(kind) == "websocket-101")
    fields = "".join(f"{n}: {v}\r\n" for n, v in kind.fields.items())
    timing = server_timing_middleware(slow=1e-9, emit=told.append)
    async with serving(timing) as site:
        connection = await site.connect()
        connection.send(f"GET {kind.path}", fields=fields)
        await connection.head()
        connection.leave()
        await eventually(lambda: told)
    assert [r for r in caplog.records if r.name == NAME] == []


# Processor time
# ==============


def compute(seconds: float) -> None:
    start = thread_time()
    while thread_time() - start < seconds:
        pass


async def test_cpu_is_that_of_the_request_and_not_of_its_neighbours() -> None:
    told: dict[int, Timing] = {}
    there = 0
    go_on, done = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        nonlocal there
        if request.match_info["name"] == "busy":
            await go_on.wait()
            for _ in range(10):
                compute(0.005)
                await asyncio.sleep(0)
            done.set()
            return web.Response(status=201)
        there += 1
        if there == 50:
            go_on.set()
        for _ in range(10):  # awake between the steps of the other
            await asyncio.sleep(0.001)
        await done.wait()
        return web.Response()

    def emit(timing: Timing) -> None:
        told[len(told)] = timing

    gc.disable()  # else it runs within whosever step it is
    try:
        async with serving(
            server_timing_middleware(emit=emit, cpu=True), handler=handler
        ) as site:
            answers = await asyncio.gather(
                ask(site, "GET /users/busy"),
                *(ask(site, f"GET /users/{number}") for number in range(50)),
            )
            await eventually(lambda: len(told) == 51)
    finally:
        gc.enable()
    (busy,) = [t.cpu or 0.0 for t in told.values() if t.status == 201]
    idle = [t.cpu or 0.0 for t in told.values() if t.status == 200]
    assert min(idle) > 0
    assert busy >= 0.05
    assert len(idle) == 50
    assert median(idle) * 10 < busy
    assert max(idle) < busy
    # Yet all the while they were there.
    durations = [t.duration for t in told.values()]
    assert min(durations) > 0.05
    (cpu,) = [m for m in members_of(answers[0]) if m[""] == "cpu"]
    assert float(cpu["dur"]) >= 50


async def test_cpu_in_the_header_of_a_stream_is_that_until_then() -> None:
    told: list[Timing] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        compute(0.02)
        response = web.StreamResponse()
        await response.prepare(request)  # within the first step
        await response.write(b"first")
        compute(0.04)
        return response

    async with serving(
        server_timing_middleware(emit=told.append, cpu=True), handler=handler
    ) as site:
        answer = await ask(site)
        await eventually(lambda: told)
    assert float(members_of(answer)[1]["dur"]) >= 20
    assert told[0].cpu is not None
    assert told[0].cpu >= 0.06


async def test_cpu_is_not_what_a_step_waits_for() -> None:
    told: list[Timing] = []

    async def handler(request: web.Request) -> web.Response:
        block(0.1)
        return web.Response()

    async with serving(
        server_timing_middleware(emit=told.append, cpu=True), handler=handler
    ) as site:
        await ask(site)
        await eventually(lambda: told)
    assert told[0].cpu is not None
    assert 0 < told[0].cpu < 0.1 <= told[0].duration


def block(seconds: float) -> None:
    sleep(seconds)


VAR: ContextVar[str] = ContextVar("var", default="none")


async def test_steps_change_nothing_for_the_handler() -> None:
    seen: dict[str, Any] = {}

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            seen["closed"] = True

    @middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen["task"] = asyncio.current_task()
        response = await handler(request)
        seen["var"] = VAR.get()
        return response

    async def handler(request: web.Request) -> web.Response:
        VAR.set("set inside")
        seen["same"] = asyncio.current_task() is seen["task"]
        async for number in numbers():
            if number == 1:
                break
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except asyncio.TimeoutError:
            seen["timeout"] = True
        try:
            await failing()
        except ZeroDivisionError:
            seen["error"] = True
        seen["thread"] = await asyncio.to_thread(VAR.get)
        return web.Response(text=(await request.text())[::-1])

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async with serving(
        outside, server_timing_middleware(cpu=True), handler=handler
    ) as site:
        connection = await site.connect()
        connection.send("POST /users/ann", length=6)
        await asyncio.sleep(0.01)
        connection.write("abc")
        await asyncio.sleep(0.01)
        connection.write("def")
        assert (await connection.answer()).rest == b"fedcba"
        connection.leave()
    del seen["task"]
    gc.collect()
    assert seen == {
        "same": True,
        "var": "set inside",
        "timeout": True,
        "error": True,
        "thread": "set inside",
        "closed": True,
    }


async def test_cancellation_passes_the_steps() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            raise
        finally:
            seen.append("cleaned up")
        return web.Response()

    chain = [error_middleware(), timeout_middleware(0.01)]
    timing = server_timing_middleware(cpu=True)
    async with serving(*chain, timing, handler=handler) as site:
        assert (await ask(site)).status == 504
    assert seen == ["cancelled", "cleaned up"]


async def test_cancellation_that_the_handler_swallows_is_swallowed() -> None:
    async def handler(request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return web.Response(text="anyway")

    chain = [timeout_middleware(0.01), server_timing_middleware(cpu=True)]
    async with serving(*chain, handler=handler) as site:
        assert (await ask(site)).rest == b"anyway"


def test_steps_may_be_closed() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        try:
            await Never()
        finally:
            seen.append("closed")
            raise ZeroDivisionError
        return web.Response()

    request = make_mocked_request("GET", "/")
    timing: Any = server_timing_middleware(cpu=True)
    running = timing(request, handler)
    assert running.send(None) is None
    with pytest.raises(ZeroDivisionError):
        running.close()
    assert seen == ["closed"]


class Never:
    def __await__(self) -> Generator[None, None, None]:
        while True:
            yield


class View(web.View):
    async def get(self) -> web.Response:
        server_timing(self.request).add("view")
        return web.Response(text="hello")


async def test_handler_may_be_a_view() -> None:
    timing = server_timing_middleware(cpu=True)
    async with serving(timing, handler=View) as site:
        answer = await ask(site)
    assert answer.rest == b"hello"
    names = [member[""] for member in members_of(answer)]
    assert names == ["total", "cpu", "view"]


async def test_handler_may_give_a_future() -> None:
    def calls(request: web.Request) -> Awaitable[web.StreamResponse]:
        return asyncio.ensure_future(page(request))

    @middleware
    async def before(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await timing(request, calls)

    timing = server_timing_middleware(cpu=True)
    async with serving(before) as site:
        answer = await ask(site)
    assert answer.rest == b"hello"


# What it leaves alone
# ====================


async def test_without_the_middleware_measures_go_nowhere() -> None:
    async def handler(request: web.Request) -> web.Response:
        timing = server_timing(request)
        async with timing.measure("db"):
            timing.add("cache", 1)
        with pytest.raises(ValueError, match="token"):
            timing.add("no token")
        return web.Response()

    told: list[Timing] = []
    ignoring = server_timing_middleware(
        emit=told.append, ignore={"/users/ann": "GET"}
    )
    for chain in ([], [ignoring]):
        async with serving(*chain, handler=handler) as site:
            answer = await ask(site)
        assert answer.status == 200
        assert "Server-Timing" not in answer.headers
    assert told == []
    async with serving(ignoring, handler=handler) as site:
        assert "Server-Timing" in (await ask(site, "POST /users/ann")).headers


@pytest.mark.parametrize("sub", [False, True])
@pytest.mark.parametrize("cloned", [False, True])
async def test_listed_twice_the_outer_one_counts(
    sub: bool, cloned: bool
) -> None:
    outer: list[Timing] = []
    inner: list[Timing] = []
    between = [https_middleware({"Host": "a.example"})] if cloned else []

    @middleware
    async def before(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        with server_timing(request).measure("outside"):
            return await handler(request)

    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("inside")
        return web.Response()

    middlewares = [
        server_timing_middleware(emit=outer.append),
        before,
        *between,
    ]
    twice = server_timing_middleware(emit=inner.append, cpu=True)
    inside = web.Application(middlewares=[twice])
    inside.router.add_get("/page", handler)
    app = web.Application(
        middlewares=middlewares if sub else [*middlewares, twice]
    )
    app.add_subapp("/inner", inside)
    app.router.add_get("/page", handler)
    path = "/inner/page" if sub else "/page"
    async with live(app) as site:
        answer = await ask(site, f"GET {path}")
        await eventually(lambda: outer)
    names = [member[""] for member in members_of(answer)]
    assert names == ["total", "inside", "outside"]
    assert outer[0].route == path
    assert [name for name, _, _ in outer[0].measures] == names[1:]
    assert inner == []


async def test_nothing_more_waits_for_the_garbage_collector() -> None:
    await no_more_than_without(
        server_timing_middleware(emit=len, cpu=True, slow=60)
    )


# Bad input
# =========


@given(st.text(max_size=60))
def test_any_description_is_quoted_as_it_can_be_read(text: str) -> None:
    timing = ServerTiming()
    timing.add("name", 1, text)
    value = timing._text(0.001)
    assert re.fullmatch("[ -~]*", value)
    total, member = members(value)
    assert total == {"": "total", "dur": "1.0"}
    assert member == {"": "name", "dur": "1000.0", "desc": shown(text)}


@given(st.text(max_size=10) | st.text("abc-._~!#$%&'*+^`|0 ,;\"", min_size=1))
def test_any_name_is_a_token_or_refused(name: str) -> None:
    timing = ServerTiming()
    if options.TOKEN.fullmatch(name):
        timing.add(name)
        with timing.measure(name):
            pass
        names = [member[""] for member in members(timing._text(0))]
        assert names == ["total", name, name]
    else:
        with pytest.raises(ValueError, match="should be a token"):
            timing.add(name)
        with pytest.raises(ValueError, match="should be a token"):
            timing.measure(name)


@given(
    st.lists(
        st.tuples(
            st.text("abc.-", min_size=1, max_size=9),
            st.none() | st.floats(0, 1e6),
            st.none() | st.text(max_size=20),
        ),
        max_size=10,
    )
)
def test_members_are_as_many_as_were_added(
    added: list[tuple[str, float | None, str | None]],
) -> None:
    timing = ServerTiming()
    for name, seconds, description in added:
        timing.add(name, seconds, description)
    assert len(members(timing._text(1))) == 1 + len(added)


async def test_description_of_a_client_splits_no_header() -> None:
    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("key", description=request.query["key"])
        return web.Response()

    async with serving(server_timing_middleware(), handler=handler) as site:
        answer = await ask(
            site, "GET /users/ann?key=%0d%0aSet-Cookie:%20a%22,%20b%00%ed%a0"
        )
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    assert len(members_of(answer)) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("",), ValueError),
        (("a b",), ValueError),
        (("a\n",), ValueError),
        (("é",), ValueError),
        ((1,), TypeError),
        (("a", "1"), TypeError),
        (("a", True), TypeError),
        (("a", -1), ValueError),
        (("a", float("nan")), ValueError),
        (("a", float("inf")), ValueError),
        (("a", 10**400), ValueError),
        (("a", 1, 2), TypeError),
    ],
)
def test_wrong_measure_is_refused(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match="server_timing"):
        ServerTiming().add(*arguments)


def test_wrong_measure_is_refused_before_it_begins() -> None:
    with pytest.raises(ValueError, match="server_timing name"):
        ServerTiming().measure("a b")
    with pytest.raises(TypeError, match="server_timing description"):
        ServerTiming().measure("a", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"emit": "statsd"}, TypeError),
        ({"header": "Server-Timing"}, TypeError),
        ({"slow": "1"}, TypeError),
        ({"slow": 0}, ValueError),
        ({"cpu": 1}, TypeError),
        ({"ignore": "/health"}, TypeError),
        ({"ignore": ["health"]}, ValueError),
    ],
)
def test_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="server_timing_middleware"):
        server_timing_middleware(**options)


# What the documentation shows
# ============================


async def test_documented_statsd_gets_a_datagram_a_request() -> None:
    (block,) = (b for b in blocks_of(PAGE, read(PAGE)) if "Statsd" in b.code)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.code, str(PAGE), "exec"), names)

    async def handler(request: web.Request) -> web.Response:
        server_timing(request).add("db", 0.0125)
        server_timing(request).add("cache", description="miss")
        return web.Response()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(20)
        statsd = names["Statsd"](*listener.getsockname())
        app = app_of(
            server_timing_middleware(emit=statsd, cpu=True), handler=handler
        )
        app.cleanup_ctx.append(statsd.connected)
        async with live(app) as site:
            await ask(site)
            await ask(site, "GET /nowhere")
            received = [
                (await asyncio.to_thread(listener.recv, 9999)).decode()
                for _ in range(2)
            ]
            listener.close()
            await ask(site)  # nobody listens any more
            assert (await ask(site)).status == 200
    ms = r":\d+\.\d{3}\|ms"
    assert re.fullmatch(
        rf"web\.GET\.users_name\.200{ms}\nweb\.GET\.users_name\.cpu{ms}\n"
        r"web\.GET\.users_name\.db:12\.500\|ms",
        received[0],
    )
    assert received[1].startswith("web.GET.unmatched.404:")
