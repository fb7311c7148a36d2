"""throttle_middleware: no more requests than are welcome."""

import asyncio
import gc
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from client_site import MEGABYTE, Site, accept, drop, hang, serve, session_with
from live import soon
from yarl import URL

from aiohttp_middlewares.client import (
    ThrottledError,
    retry_middleware,
    throttle_middleware,
)
from aiohttp_middlewares.client.throttle import _Line, _Pause

DAY = 86400.0


class Time:
    """A clock that goes when somebody sleeps, as far as the first wakes up."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.numbers = itertools.count()
        self.stands_still = False

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        future = asyncio.get_running_loop().create_future()
        entry = (self.now + seconds, next(self.numbers), future)
        heapq.heappush(self.sleepers, entry)
        if not self.stands_still:
            asyncio.get_running_loop().call_soon(self.wake)
        await future

    def go_on(self) -> None:
        self.stands_still = False
        # One after the other: there is time to go back to sleep.
        for number in range(len(self.sleepers)):
            asyncio.get_running_loop().call_later(0.01 * number, self.wake)

    def wake(self) -> None:
        """Let the first wake up who still sleeps."""
        while self.sleepers:
            when, _, future = heapq.heappop(self.sleepers)
            if not future.done():
                self.now = max(self.now, when)
                future.set_result(None)
                break


class Sent:
    """What was sent, and when: the innermost middleware."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.at: list[float] = []
        self.paths: list[str] = []

    async def __call__(
        self, req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self.at.append(round(self.time.now - 1000, 6))
        self.paths.append(req.url.path)
        return await handler(req)


class Throttled:
    def __init__(
        self, site: Site, session: aiohttp.ClientSession, time: Time, sent: Sent
    ) -> None:
        self.site, self.session, self.time = site, session, time
        self.sent = sent

    async def ask(self, path: object = "", base: str = "") -> int:
        url = f"{base or self.site.url}{path}"
        async with self.session.get(url) as response:
            await response.read()
            return response.status

    def start(self, *paths: object) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.ask(path)) for path in paths]


@asynccontextmanager
async def throttled(*args: Any, **options: Any) -> AsyncIterator[Throttled]:
    time = Time()
    sent = Sent(time)
    throttle = throttle_middleware(
        *args, clock=time.clock, sleep=time.sleep, **options
    )
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=[throttle, sent]) as session,
    ):
        yield Throttled(site, session, time, sent)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# The rate
# ========


@pytest.mark.parametrize(
    ("rate", "burst", "at"),
    [
        (10, 1, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.5, 1, [0, 2, 4, 6, 8, 10]),
        (10, 3, [0, 0, 0, 0.1, 0.2, 0.3]),
        (10, 100, [0] * 6),
    ],
)
async def test_requests_keep_their_distance_after_a_burst(
    rate: float, burst: int, at: list[float]
) -> None:
    async with throttled(rate, burst=burst) as at_hand:
        tasks = at_hand.start(*range(6))
        assert await soon(asyncio.gather(*tasks)) == [200] * 6
        assert at_hand.sent.at == at
        assert at_hand.sent.paths == [f"/{number}" for number in range(6)]


async def test_burst_comes_back_with_time() -> None:
    async with throttled(10, burst=3) as at_hand:
        for rest in (1.0, 0.2, 5.0):
            await soon(asyncio.gather(*at_hand.start(1, 2, 3, 4)))
            at_hand.time.now += rest
    assert at_hand.sent.at == [
        *(0, 0, 0, 0.1),
        *(1.1, 1.1, 1.1, 1.2),
        *(1.4, 1.4, 1.5, 1.6),  # only two had come back
    ]


async def test_one_who_comes_later_does_not_overtake() -> None:
    async with throttled(10) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start("a", "b", "c")
        await turns()
        at_hand.time.now += 0.1  # it is time, but b has not noticed
        tasks += at_hand.start("d")
        await turns()
        at_hand.time.go_on()
        await soon(asyncio.gather(*tasks))
        assert at_hand.sent.paths == ["/a", "/b", "/c", "/d"]


@pytest.mark.parametrize("gives_up", [1, 2, 3])
async def test_one_who_gives_up_takes_nobodys_turn(gives_up: int) -> None:
    async with throttled(10) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start("a", "b", "c", "d")
        await turns()
        tasks.pop(gives_up).cancel()
        await turns()
        at_hand.time.go_on()
        assert await soon(asyncio.gather(*tasks)) == [200] * 3
        assert at_hand.sent.at == [0, 0.1, 0.2]


async def test_one_who_gives_up_when_the_turn_comes_passes_it_on() -> None:
    async with throttled(10) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start("a", "b", "c", "d")
        await turns()
        tasks[1].cancel()  # whose turn goes to c in the same moment
        asyncio.get_running_loop().call_soon(tasks[2].cancel)
        await turns()
        at_hand.time.go_on()
        assert await soon(tasks[3]) == 200
        assert at_hand.sent.paths == ["/a", "/d"]
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_timer_that_is_late_does_not_make_the_rate_lower() -> None:
    async with throttled(100) as at_hand:
        sleep = at_hand.time.sleep

        async def late(seconds: float) -> None:
            await sleep(seconds + 0.004)

        throttle = throttle_middleware(
            100, clock=at_hand.time.clock, sleep=late
        )
        sent = Sent(at_hand.time)
        async with aiohttp.ClientSession(middlewares=[throttle, sent]) as own:
            at_hand.session = own
            await soon(asyncio.gather(*at_hand.start(*range(11))))
        assert sent.at[-1] == pytest.approx(0.104)


async def test_what_a_long_stop_has_missed_is_not_made_up_for() -> None:
    async with throttled(10) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start(*range(4))
        await turns()
        at_hand.time.now += 5  # something blocked the event loop
        at_hand.time.go_on()
        await soon(asyncio.gather(*tasks))
        assert at_hand.sent.at == [0, 5, 5.1, 5.2]


async def test_turn_that_waited_for_room_is_not_ahead_of_the_next() -> None:
    async with throttled(1000, concurrency=3) as at_hand:
        at_hand.site.answers = [(200, {}, MEGABYTE)]
        held = [await at_hand.session.get(at_hand.site.url) for _ in range(3)]
        tasks = at_hand.start(*range(3))
        await turns()
        at_hand.time.now += 0.008
        for response in held:
            response.close()
        await soon(asyncio.gather(*tasks))
        assert at_hand.sent.at == [0, 0.001, 0.002, 0.01, 0.011, 0.012]


async def test_sleep_that_takes_no_time_is_believed() -> None:
    naps = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    throttle = throttle_middleware(0.1, sleep=nap)
    async with serve() as site, session_with(throttle) as session:
        for _ in range(2):
            async with session.get(site.url) as response:
                assert response.status == 200
    assert naps == [pytest.approx(10, abs=1)]


# What is under way
# =================


async def stream(request: web.Request) -> web.StreamResponse:
    """Headers, and a body that does not end by itself."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    await asyncio.sleep(30)
    return response


async def test_no_more_are_under_way_than_permitted() -> None:
    under_way, most = 0, 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return web.Response()

    async with throttled(concurrency=3) as at_hand:
        at_hand.site.answers = [handle]
        tasks = at_hand.start(*range(20))
        assert await soon(asyncio.gather(*tasks)) == [200] * 20
        assert most == 3
        assert at_hand.sent.paths == [f"/{number}" for number in range(20)]


async def read(response: aiohttp.ClientResponse) -> None:
    await response.read()


async def close(response: aiohttp.ClientResponse) -> None:
    response.close()


async def release(response: aiohttp.ClientResponse) -> None:
    response.release()


@pytest.mark.parametrize("end", [read, close, release])
async def test_request_is_under_way_until_its_response_is_done_with(
    end: Callable[[aiohttp.ClientResponse], Any],
) -> None:
    async with throttled(concurrency=1) as at_hand:
        at_hand.site.answers = [(200, {}, MEGABYTE), 200]
        response = await at_hand.session.get(at_hand.site.url)
        [task] = at_hand.start("next")
        await turns()
        assert at_hand.site.count == 1
        await end(response)
        assert await soon(task) == 200


async def forgotten(at_hand: Throttled) -> None:
    at_hand.site.answers = [(200, {}, b"x" * 1000), 200]
    response = await at_hand.session.get(at_hand.site.url)
    del response
    gc.collect()


async def nonsense(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.write(b"It is a dark and stormy night.\r\n\r\n")
    request.transport.close()
    return web.Response()


async def no_http(at_hand: Throttled) -> None:
    at_hand.site.answers = [nonsense, 200]
    with pytest.raises(aiohttp.ClientError):
        await at_hand.ask()


async def cancelled(at_hand: Throttled) -> None:
    at_hand.site.answers = [hang, 200]
    [task] = at_hand.start("")
    await at_hand.site.until(1)
    task.cancel()
    await asyncio.wait([task])


async def disconnected(at_hand: Throttled) -> None:
    at_hand.site.answers = [drop, drop, 200]
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await at_hand.ask()


async def not_connected(at_hand: Throttled) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await at_hand.ask(base="http://127.0.0.1:1/")


async def timed_out(at_hand: Throttled) -> None:
    at_hand.site.answers = [stream, 200]
    limit = aiohttp.ClientTimeout(total=0.05)
    with pytest.raises(asyncio.TimeoutError):
        async with at_hand.session.get(
            at_hand.site.url, timeout=limit
        ) as response:
            await response.read()


async def upgraded(at_hand: Throttled) -> None:
    at_hand.site.answers = [accept, 200]
    async with at_hand.session.ws_connect(at_hand.site.url) as ws:
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def no_handshake(at_hand: Throttled) -> None:
    at_hand.site.answers = [404, 200]
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await at_hand.session.ws_connect(at_hand.site.url)


async def redirected(at_hand: Throttled) -> None:
    headers = {"Location": "/elsewhere"}
    at_hand.site.answers = [(302, headers, b"x" * 100_000), 200]
    assert await at_hand.ask() == 200


@pytest.mark.parametrize(
    "end",
    [
        forgotten,
        no_http,
        cancelled,
        disconnected,
        not_connected,
        timed_out,
        upgraded,
        no_handshake,
        redirected,
    ],
)
async def test_however_a_request_ends_another_has_its_place(end: Any) -> None:
    async with throttled(concurrency=1, per="session") as at_hand:
        await soon(end(at_hand))
        assert await soon(at_hand.ask()) == 200


async def test_one_who_waits_for_room_and_gives_up_takes_nobodys() -> None:
    async with throttled(concurrency=1) as at_hand:
        at_hand.site.answers = [(200, {}, MEGABYTE), 200]
        response = await at_hand.session.get(at_hand.site.url)
        first, second, third = at_hand.start(1, 2, 3)
        await turns()
        first.cancel()
        second.cancel()
        await turns()
        response.close()
        assert await soon(third) == 200
        assert await soon(at_hand.ask()) == 200


async def test_attempts_of_a_retry_take_turns_without_waiting_for_another() -> (
    None
):
    time = Time()
    sent = Sent(time)
    middlewares: list[Any] = [
        retry_middleware(base_delay=0.001),
        throttle_middleware(
            10, concurrency=1, clock=time.clock, sleep=time.sleep
        ),
        sent,
    ]
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        serve() as site,
        aiohttp.ClientSession(
            middlewares=middlewares, connector=connector
        ) as session,
    ):
        site.answers = [(503, {}, MEGABYTE), (503, {}, MEGABYTE), 200]
        async with session.get(site.url) as response:
            assert response.status == 200
    assert sent.at == [0, 0.1, 0.2]


@pytest.mark.parametrize("limits", [{"rate": 5.0}, {"concurrency": 1}])
async def test_limit_of_an_attempt_does_not_count_the_wait_for_a_turn(
    limits: dict[str, Any],
) -> None:
    middlewares: list[Any] = [
        retry_middleware(1, attempt_timeout=0.8),
        throttle_middleware(**limits),
    ]

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response()

    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=middlewares) as session,
    ):
        site.answers = [answer]

        async def ask() -> int:
            async with session.get(site.url) as response:
                return response.status

        assert await soon(asyncio.gather(*(ask() for _ in range(6)))) == (
            [200] * 6
        )
        # It goes on afterwards.
        site.answers = [answer, hang]
        asking = asyncio.gather(ask(), ask(), return_exceptions=True)
        first, second = await soon(asking)
        assert first == 200
        assert isinstance(second, aiohttp.ServerTimeoutError)


# For each origin, or for all
# ===========================


@pytest.mark.parametrize(
    ("per", "at"), [("origin", [0, 0]), ("session", [0, 0.1])]
)
async def test_origins_have_their_own_turns_unless_told_otherwise(
    per: str, at: list[float]
) -> None:
    async with throttled(10, per=per) as at_hand, serve() as other:
        await at_hand.ask()
        await at_hand.ask(base=other.url)
        assert at_hand.sent.at == at


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (_Line, {"rate": 10, "concurrency": 2}),
        (_Pause, {"per": "session"}),
        (_Pause, {"per": "origin"}),
    ],
)
async def test_origins_that_nobody_uses_any_more_are_forgotten(
    kind: type, options: dict[str, Any]
) -> None:
    async with serve() as site:
        site.answers = [(503, {"Retry-After": "5"}, b"")]
        time = Time()
        throttle = throttle_middleware(
            clock=time.clock, sleep=time.sleep, **options
        )

        async def elsewhere(
            req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            req.url = URL(site.url)
            return await handler(req)

        async with aiohttp.ClientSession(
            middlewares=[throttle, elsewhere]
        ) as session:
            for number in range(50):
                async with session.get(f"http://{number}.example/"):
                    time.now += 10
        gc.collect()
        kept = [thing for thing in gc.get_objects() if type(thing) is kind]
        assert len(kept) < 10


# For how long
# ============


async def test_wait_that_is_known_to_be_too_long_is_none() -> None:
    async with throttled(10, max_wait=0.25) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start("a", "b", "c")
        await turns()
        with pytest.raises(ThrottledError) as info:
            await at_hand.ask()
        assert info.value.wait == pytest.approx(0.3)
        assert info.value.origin == at_hand.site.url.rstrip("/")
        assert "have to wait for 0.3 seconds" in str(info.value)
        assert isinstance(info.value, aiohttp.ClientError)
        assert not isinstance(info.value, aiohttp.ClientConnectionError)
        at_hand.time.go_on()
        await soon(asyncio.gather(*tasks))
        assert at_hand.sent.at == [0, 0.1, 0.2]


async def test_those_who_gave_up_make_no_wait_longer() -> None:
    async with throttled(10, max_wait=0.25) as at_hand:
        at_hand.time.stands_still = True
        tasks = at_hand.start("a", "b", "c")
        await turns()
        tasks.pop().cancel()
        await turns()
        tasks += at_hand.start("d")
        await turns()
        at_hand.time.go_on()
        assert await soon(asyncio.gather(*tasks)) == [200] * 3


async def test_wait_that_is_just_long_enough_is_waited() -> None:
    async with throttled(10, max_wait=0.3) as at_hand:
        assert await soon(asyncio.gather(*at_hand.start(1, 2, 3, 4)))


@pytest.mark.parametrize("limit", [0, 0.02])
async def test_wait_for_room_ends_with_the_longest_wait(limit: float) -> None:
    async with throttled(concurrency=1, max_wait=limit) as at_hand:
        at_hand.site.answers = [(200, {}, MEGABYTE), 200]
        response = await at_hand.session.get(at_hand.site.url)
        for _ in range(2):
            with pytest.raises(ThrottledError) as info:
                await at_hand.ask()
            assert info.value.wait >= limit
        response.close()
        assert await soon(at_hand.ask()) == 200
        assert at_hand.site.count == 2


async def test_retry_does_not_repeat_what_was_not_sent() -> None:
    asked = []

    async def note(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        asked.append(req.url)
        return await handler(req)

    middlewares = [
        retry_middleware(base_delay=0.001),
        note,
        throttle_middleware(0.01, max_wait=1),
    ]
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=middlewares) as session,
    ):
        async with session.get(site.url):
            pass
        with pytest.raises(ThrottledError):
            await session.get(site.url)
    assert len(asked) == 2


# Retry-After
# ===========


@pytest.mark.parametrize(
    ("status", "fields", "pause"),
    [
        (429, {"Retry-After": "7"}, 7),
        (503, {"Retry-After": "0.5"}, 0.5),
        (429, {"Retry-After": formatdate(DAY + 9), "Date": formatdate(DAY)}, 9),
        (503, {"Retry-After": "3600"}, 60),
        (429, {"Retry-After": "9" * 400}, 60),
        (429, {"Retry-After": formatdate(0)}, 0),
        (429, {"Retry-After": "soon"}, 0),
        (429, {"Retry-After": "-5"}, 0),
        (429, {}, 0),
        (200, {"Retry-After": "7"}, 0),
        (500, {"Retry-After": "7"}, 0),
    ],
)
@pytest.mark.parametrize("per", ["origin", "session"])
async def test_origin_is_left_alone_for_as_long_as_it_asks(
    status: int, fields: dict[str, str], pause: float, per: str
) -> None:
    async with throttled(per=per) as at_hand, serve() as other:
        at_hand.site.answers = [(status, fields, b""), 200]
        assert await at_hand.ask("a") == status
        assert await at_hand.ask(base=other.url) == 200
        assert await at_hand.ask("b") == 200
        assert at_hand.sent.at == [0, 0, pause]
        assert await at_hand.ask("c") == 200
        assert at_hand.sent.at[-1] == pause


@pytest.mark.parametrize("per", ["origin", "session"])
async def test_those_who_wait_already_leave_it_alone_as_well_in_order(
    per: str,
) -> None:
    async with throttled(10, per=per) as at_hand:
        at_hand.site.answers = [(429, {"Retry-After": "5"}, b""), 200]
        at_hand.time.stands_still = True
        tasks = at_hand.start(*range(4))
        await soon(tasks[0])
        tasks += at_hand.start(4)  # it comes while the origin is left alone
        await turns()
        at_hand.time.go_on()
        await soon(asyncio.gather(*tasks))
        assert at_hand.sent.paths == [f"/{number}" for number in range(5)]
        assert at_hand.sent.at == [0, 5, 5.1, 5.2, 5.3]


async def test_origin_that_is_left_alone_stops_no_other() -> None:
    async with (
        throttled(10, concurrency=1, per="session") as at_hand,
        serve() as other,
    ):
        at_hand.site.answers = [(503, {"Retry-After": "50"}, b""), 200]
        at_hand.time.stands_still = True
        await at_hand.ask("a")
        tasks = at_hand.start("b", "c")
        await turns()
        at_hand.time.now += 1
        assert await soon(at_hand.ask(base=other.url)) == 200
        at_hand.time.go_on()
        assert await soon(asyncio.gather(*tasks)) == [200, 200]
        assert at_hand.sent.at == [0, 1, 50, 50.1]


async def test_pause_that_is_too_long_is_none_for_those_who_wait_already() -> (
    None
):
    async with throttled(10, max_wait=2) as at_hand:
        at_hand.site.answers = [(429, {"Retry-After": "30"}, b""), 200]
        at_hand.time.stands_still = True
        tasks = at_hand.start(1, 2, 3)
        await soon(tasks[0])
        at_hand.time.go_on()
        found = await soon(asyncio.gather(*tasks, return_exceptions=True))
        assert found[0] == 429
        assert [type(error) for error in found[1:]] == [ThrottledError] * 2
        with pytest.raises(ThrottledError) as info:
            await at_hand.ask()
        assert 29 < info.value.wait <= 30
        assert at_hand.site.count == 1


@pytest.mark.parametrize("asked", [("5", "20"), ("20", "5")])
@pytest.mark.parametrize("when", ["FIRST_COMPLETED", "ALL_COMPLETED"])
async def test_pause_is_as_long_as_the_longest_that_was_asked_for(
    asked: tuple[str, str], when: str
) -> None:
    async with throttled(10, burst=2) as at_hand:
        seconds = iter(asked)

        async def busy(request: web.Request) -> web.Response:
            await asyncio.sleep(0.01 * at_hand.site.count)
            headers = {"Retry-After": next(seconds)}
            return web.Response(status=503, headers=headers)

        at_hand.site.answers = [busy, busy, 200]
        at_hand.time.stands_still = True
        first = at_hand.start("a", "b")
        await soon(asyncio.wait(first, return_when=when))
        [third] = at_hand.start("c")
        await soon(asyncio.gather(*first))
        at_hand.time.go_on()
        assert await soon(third) == 200
        assert at_hand.sent.at == [0, 0, 20]


# Where it is used
# ================


def test_one_middleware_serves_one_event_loop_after_the_other() -> None:
    time = Time()
    sent = Sent(time)
    throttle = throttle_middleware(
        10, concurrency=1, per="session", clock=time.clock, sleep=time.sleep
    )

    async def main() -> None:
        async with (
            serve() as site,
            aiohttp.ClientSession(middlewares=[throttle, sent]) as session,
        ):
            site.answers = [(200, {}, MEGABYTE), 200]
            async with session.get(site.url):
                waits = asyncio.create_task(session.get(site.url).__aenter__())
                await turns()
            # It is left waiting when the event loop ends.
            del waits

    for _ in range(3):
        asyncio.run(main())
    assert sent.at[:3] == [0, 0.1, 0.2]
    assert len({throttle}) == 1


async def test_event_loop_that_is_gone_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It tells of tasks that are lost, as these are.
    monkeypatch.setattr(logging.getLogger("asyncio"), "disabled", True)
    time = Time()
    time.stands_still = True
    throttle = throttle_middleware(10, clock=time.clock, sleep=time.sleep)
    async with serve() as site:
        tasks: list[asyncio.Task[Any]] = []

        def leave_waiting() -> None:
            loop = asyncio.new_event_loop()

            async def begin() -> None:
                session = session_with(throttle)
                async with session.get(site.url):
                    pass
                for _ in range(3):
                    tasks.append(
                        loop.create_task(session.get(site.url).__aenter__())
                    )
                await turns()
                assert [task.done() for task in tasks] == [False] * 3
                await session.close()

            loop.run_until_complete(begin())
            loop.close()

        await asyncio.to_thread(leave_waiting)
        # The first, whose turn it is, is collected before the others.
        time.sleepers.clear()
        while tasks:
            tasks.pop(0)
            gc.collect()
        time.go_on()
        async with (
            session_with(throttle) as session,
            session.get(site.url) as response,
        ):
            assert response.status == 200


async def test_middleware_without_limits_only_obeys() -> None:
    async with throttled() as at_hand:
        await soon(asyncio.gather(*at_hand.start(*range(20))))
        assert at_hand.sent.at == [0] * 20


# Options
# =======


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rate": "10"}, TypeError, "rate should be a positive number"),
        ({"rate": True}, TypeError, "rate should be"),
        ({"rate": 0}, ValueError, "rate should be"),
        ({"rate": -1}, ValueError, "rate should be"),
        ({"rate": float("nan")}, ValueError, "rate should be"),
        ({"rate": float("inf")}, ValueError, "rate should be"),
        ({"rate": 1e-320}, ValueError, "rate should be"),
        ({"rate": 1, "burst": 0}, ValueError, "burst should be"),
        ({"rate": 1, "burst": 1.5}, TypeError, "burst should be"),
        ({"burst": 5}, ValueError, "burst should be with a rate, got 5"),
        ({"concurrency": 0}, ValueError, "concurrency should be"),
        ({"concurrency": 2.0}, TypeError, "concurrency should be"),
        ({"per": "host"}, ValueError, "per should be 'origin' or 'session'"),
        ({"per": None}, TypeError, "per should be"),
        ({"max_wait": -1}, ValueError, "max_wait should be"),
        ({"max_wait": "1"}, TypeError, "max_wait should be"),
        ({"max_wait": False}, TypeError, "max_wait should be"),
        ({"clock": 0}, TypeError, "clock should be a callable"),
        ({"sleep": None}, TypeError, "sleep should be a callable"),
    ],
)
def test_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        throttle_middleware(**options)
