"""Retry: how often a request arrives, and when."""

import asyncio
import contextlib
import errno
import gc
import gzip
import io
import itertools
import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from client_site import (
    MEGABYTE,
    Naps,
    Site,
    Unreadable,
    closed_port,
    drop,
    hang,
    raises,
    raw_server,
    serve,
    session_with,
)
from hypothesis import example, given
from hypothesis import strategies as st
from live import eventually
from yarl import URL

from aiohttp_middlewares.client import (
    CircuitOpenError,
    DeadlineExceeded,
    RetryBudget,
    RetryEvent,
    RetryExhausted,
    SSRFError,
    ThrottledError,
    _bodies,
    _timeouts,
    retry_middleware,
)
from aiohttp_middlewares.client._retry_after import parse_retry_after
from aiohttp_middlewares.client._timeouts import TimeLimit

REWINDS_FILES = hasattr(
    aiohttp.payload.IOBasePayload, "_set_or_restore_start_position"
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


def quick(*args: Any, **kwargs: Any) -> aiohttp.ClientMiddlewareType:
    return retry_middleware(*args, **{"sleep": Naps(), **kwargs})


# How often a request arrives
# ===========================


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_failing_request_arrives_three_times(
    site: Site, method: str
) -> None:
    site.answers = [503]
    async with (
        session_with(quick()) as session,
        session.request(method, site.url) as response,
    ):
        assert response.status == 503
        said = "" if method == "HEAD" else f"{method}!"
        assert await response.text() == said
    assert site.methods == [method] * 3


async def test_request_that_succeeds_is_not_repeated(site: Site) -> None:
    site.answers = [500, 200, 500]
    async with (
        session_with(quick()) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 200
    assert site.count == 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 501, 505])
async def test_answer_that_will_not_change_is_left_alone(
    site: Site, status: int
) -> None:
    site.answers = [status]
    async with (
        session_with(quick()) as session,
        session.get(site.url) as response,
    ):
        assert response.status == status
    assert site.count == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize("attempts", [1, 3])
async def test_dropped_connection_is_not_also_repeated_by_aiohttp(
    site: Site, method: str, attempts: int
) -> None:
    site.answers = [drop]
    async with session_with(quick(attempts)) as session:
        with pytest.raises(RetryExhausted) as caught:
            await session.request(method, site.url, data=b"12")
    assert site.count == attempts
    error = caught.value
    assert isinstance(error, aiohttp.ClientConnectionError)
    assert error.attempts == attempts
    assert isinstance(error.last_exception, aiohttp.ClientConnectionError)
    assert error.__cause__ is error.last_exception


async def test_dropped_post_keeps_its_exception(site: Site) -> None:
    site.answers = [drop]
    async with session_with(quick()) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(site.url)
    assert site.count == 1


async def test_connection_lost_in_the_pool_is_made_anew(site: Site) -> None:
    async with session_with(quick()) as session:
        for _ in range(2):
            async with session.get(site.url) as response:
                assert response.status == 200
            await asyncio.sleep(0)
            await site.hang_up()


async def dropped_while_idle(
    site: Site, retry: aiohttp.ClientMiddlewareType, **kwargs: Any
) -> int:
    """A request on a connection that the server forgot long ago."""
    site.answers = [200, drop, 200]
    async with session_with(retry) as session:
        assert await ask(session, site) == 200
        async with session.put(site.url, **kwargs) as response:
            return response.status


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"attempts": 1}, id="no attempt left"),
        pytest.param({"methods": ["GET"]}, id="another method"),
        pytest.param({"budget": RetryBudget(1, refund=1e-9)}, id="no budget"),
        pytest.param({"clock": itertools.count(0, 99).__next__}, id="too late"),
    ],
)
async def test_stale_connection_is_replaced_where_nothing_may_be_repeated(
    site: Site, options: dict[str, Any]
) -> None:
    """As without the middleware: that much aiohttp does by itself."""
    if isinstance(budget := options.get("budget"), RetryBudget):
        budget.withdraw()
    assert await dropped_while_idle(site, quick(**options)) == 200
    assert site.count == 3


async def test_stale_connection_is_not_replaced_for_a_body_that_is_gone(
    site: Site,
) -> None:
    with pytest.raises(RetryExhausted, match=r"^Sent 1 time,"):
        await dropped_while_idle(site, quick(1), data=generate())
    assert site.count == 2


async def hide(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from telling how far the request came."""
    req._traces = ()  # type: ignore[assignment]
    return await handler(req)


async def test_stale_connection_is_like_any_where_aiohttp_does_not_tell(
    site: Site,
) -> None:
    site.answers = [200, drop, 200]
    retry = quick(1, attempt_timeout=5)
    async with aiohttp.ClientSession(middlewares=[hide, retry]) as session:
        assert await ask(session, site) == 200
        with pytest.raises(RetryExhausted):
            await ask(session, site)


async def test_refused_connection_is_tried_three_times_and_raised() -> None:
    events: list[RetryEvent] = []
    async with session_with(quick(on_retry=events.append)) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://127.0.0.1:{closed_port()}/")
    assert [event.attempt for event in events] == [1, 2]
    assert type(caught.value) is aiohttp.ClientConnectorError


@pytest.mark.parametrize("method", ["POST", "PATCH", "PROPFIND"])
async def test_unsafe_method_is_not_executed_twice(
    site: Site, method: str
) -> None:
    async with session_with(quick()) as session:
        site.answers = [503]
        async with session.request(method, site.url) as response:
            assert response.status == 503
        site.answers = [drop]
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.request(method, site.url)
    assert site.count == 2


async def test_unsafe_method_with_idempotency_key_is_repeated(
    site: Site,
) -> None:
    headers = {"idempotency-key": "a"}
    for answer in (503, drop):
        site.answers, site.methods = [answer, answer, 200], []
        async with (
            session_with(quick()) as session,
            session.post(site.url, headers=headers) as response,
        ):
            assert response.status == 200
        assert site.count == 3


@pytest.mark.parametrize(
    ("header", "count"), [("X-Once", 3), ("Idempotency-Key", 1), (None, 1)]
)
async def test_idempotency_header_has_the_name_it_was_given(
    site: Site, header: str | None, count: int
) -> None:
    site.answers = [503]
    async with (
        session_with(quick(idempotency_header=header)) as session,
        session.post(site.url, headers={"X-Once": "a"}),
    ):
        pass
    assert site.count == count


async def test_unsafe_method_is_repeated_when_nothing_was_sent(
    site: Site,
) -> None:
    port = closed_port()
    runners: list[TestServer] = []

    async def start(event: RetryEvent) -> None:
        app = web.Application()
        app.router.add_post("/", site.handle)
        runners.append(TestServer(app, port=port))
        await runners[0].start_server()

    async with (
        session_with(quick(on_retry=start)) as session,
        session.post(f"http://127.0.0.1:{port}/", data="order") as response,
    ):
        assert response.status == 200
    assert site.bodies == [b"order"]
    await runners[0].close()


async def test_method_in_the_list_is_repeated(site: Site) -> None:
    site.answers = [503]
    async with session_with(quick(methods=["post"])) as session:
        async with session.post(site.url):
            pass
        assert site.count == 3
        async with session.get(site.url):
            pass
        assert site.count == 4


async def test_statuses_in_the_list_are_failures(site: Site) -> None:
    site.answers = [404, 503]
    async with (
        session_with(quick(statuses=[404])) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 503
    assert site.count == 2


async def test_each_hop_of_a_redirect_has_its_own_attempts(site: Site) -> None:
    there = (302, {"Location": "/there"}, b"")
    site.answers = [503, 503, there, 503, 503, 200]
    async with (
        session_with(quick()) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 200
    assert site.count == 6


async def test_retry_inside_of_a_retry_does_not_multiply(site: Site) -> None:
    site.answers = [drop]
    async with aiohttp.ClientSession(middlewares=[quick(), quick()]) as session:
        with pytest.raises(RetryExhausted):
            await session.get(site.url)
    assert site.count == 3


# Timeouts and cancellation
# =========================


@pytest.mark.parametrize(
    "options", [{}, {"attempt_timeout": 5}, {"retry_if": lambda _: True}]
)
async def test_total_timeout_ends_it_after_one_request(
    site: Site, options: dict[str, Any]
) -> None:
    naps = Naps()
    site.answers = [hang]
    timeout = aiohttp.ClientTimeout(total=0.1)
    retry = retry_middleware(sleep=naps, **options)
    async with session_with(retry, timeout=timeout) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(site.url)
    assert site.count == 1
    assert naps.taken == []


async def test_total_timeout_ends_the_delay(site: Site) -> None:
    site.answers = [503]
    timeout = aiohttp.ClientTimeout(total=0.1)
    retry = retry_middleware(base_delay=9, rng=lambda: 1)
    async with session_with(retry, timeout=timeout) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(site.url)
    assert site.count == 1


async def test_total_timeout_ends_the_draining(site: Site) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        response.content_length = 10
        await response.prepare(request)
        return await hang(request)

    site.answers = [trickle]
    timeout = aiohttp.ClientTimeout(total=0.1)
    async with session_with(quick(), timeout=timeout) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(site.url)
    assert site.count == 1


async def test_total_timeout_that_a_neighbour_swallowed_ends_it_too(
    site: Site,
) -> None:
    async def swallow(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(req)
        except asyncio.TimeoutError:
            raise aiohttp.ClientConnectionError from None

    site.answers = [hang]
    async with aiohttp.ClientSession(
        middlewares=[quick(), swallow],
        timeout=aiohttp.ClientTimeout(total=0.1),
    ) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(site.url)
    assert site.count == 1


async def test_read_timeout_is_a_failure(site: Site) -> None:
    site.answers = [hang, 200]
    timeout = aiohttp.ClientTimeout(sock_read=0.1)
    async with (
        session_with(quick(), timeout=timeout) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 200
    assert site.count == 2


async def test_attempt_timeout_is_a_failure(site: Site) -> None:
    site.answers = [hang, 200]
    async with (
        session_with(quick(attempt_timeout=0.1)) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 200
    assert site.count == 2


async def test_attempt_timeout_of_the_last_attempt_is_raised(
    site: Site,
) -> None:
    site.answers = [hang]
    retry = quick(2, attempt_timeout=0.1)
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(retry, connector=connector) as session:
        with pytest.raises(aiohttp.ServerTimeoutError, match=r"0\.1 seconds"):
            await session.get(site.url)
        with pytest.raises(aiohttp.ServerTimeoutError):
            await session.post(site.url)
        assert not connector._acquired
    assert site.methods == ["GET", "GET", "POST"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_attempt_timeout_does_not_count_the_wait_for_the_pool(
    site: Site, method: str
) -> None:
    gate = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response()

    limits: list[TimeLimit] = []

    async def look_at_the_limit(request: web.Request) -> web.Response:
        return web.Response(status=500 if limits[0]._timer is None else 200)

    site.answers = [hold, look_at_the_limit]
    connector = aiohttp.TCPConnector(limit=1)

    async def look(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        limits.extend(_timeouts._LIMITS.get())
        return await handler(req)

    middlewares = [quick(attempt_timeout=5), look]
    async with aiohttp.ClientSession(
        middlewares=middlewares, connector=connector
    ) as session:
        first = asyncio.ensure_future(session.get(site.url, middlewares=()))
        await site.until(1)
        second = asyncio.ensure_future(session.request(method, site.url))
        await eventually(lambda: connector._waiters)
        assert limits[0]._timer is None
        assert 0 < limits[0]._left <= 5 + 1e-9  # two times were subtracted
        gate.set()
        async with await first, await second as response:
            assert response.status == 200
    assert site.count == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_attempt_timeout_before_there_is_a_connection_repeats_any_method(
    method: str,
) -> None:
    connections = 0

    async def be_silent(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal connections
        connections += 1
        await reader.read()

    retry = quick(attempt_timeout=0.05)
    async with raw_server(be_silent) as port, session_with(retry) as session:
        with pytest.raises(aiohttp.ConnectionTimeoutError, match=r"0\.05"):
            await session.request(method, f"https://127.0.0.1:{port}/")
    assert connections == 3


async def test_cancellation_ends_the_delay(site: Site) -> None:
    site.answers = [503]
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.sleep(30)

    async with session_with(quick(sleep=sleep)) as session:
        task = asyncio.ensure_future(session.get(site.url))
        await asleep.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert site.count == 1


async def test_deadline_stops_new_attempts(site: Site) -> None:
    now = 1000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    site.answers = [503]
    retry = quick(
        99, base_delay=4, rng=lambda: 1, sleep=sleep, clock=lambda: now
    )
    async with session_with(retry) as session, session.get(site.url):
        pass
    # 4 + 8 + 10 seconds; ten more would be too many.
    assert site.count == 4
    assert now == 1022


async def test_deadline_may_be_absent(site: Site) -> None:
    site.answers = [503]
    times = iter(range(0, 10**9, 10**6))
    retry = quick(deadline=None, clock=lambda: next(times))
    async with session_with(retry) as session, session.get(site.url):
        pass
    assert site.count == 3


# How long is waited
# ==================


async def waits(site: Site, answers: list[Any], **options: Any) -> list[float]:
    naps = Naps()
    site.answers = answers
    options = {"rng": lambda: 0.5, "sleep": naps, **options}
    async with (
        session_with(retry_middleware(**options)) as session,
        session.get(site.url),
    ):
        pass
    return naps.taken


async def test_delay_is_a_random_part_of_one_that_doubles(site: Site) -> None:
    found = await waits(site, [503], attempts=6, base_delay=1, max_delay=6)
    assert found == [0.5, 1, 2, 3, 3]


async def test_delay_of_many_attempts_is_the_longest(site: Site) -> None:
    attempts = 1100
    options = {"base_delay": 1e-9, "max_delay": 1e-3}
    found = await waits(site, [503], attempts=attempts, budget=None, **options)
    assert len(found) == attempts - 1
    assert max(found) == found[-1] == 5e-4


async def test_retry_after_in_seconds_is_waited(site: Site) -> None:
    answer = (429, {"Retry-After": "2"}, b"")
    assert await waits(site, [answer, answer, 200]) == [2.1, 2.1]


async def test_retry_after_in_fractions_of_seconds_is_waited(
    site: Site,
) -> None:
    answer = (429, {"Retry-After": "1.5"}, b"")
    assert await waits(site, [answer, 200]) == [1.6]


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_retry_after_as_a_date_is_one_of_the_clock_of_the_server(
    site: Site, ahead: float
) -> None:
    now = datetime.now(timezone.utc) + timedelta(seconds=ahead)
    headers = {
        "Date": format_datetime(now, usegmt=True),
        "Retry-After": format_datetime(now + timedelta(seconds=5), usegmt=True),
    }
    assert await waits(site, [(503, headers, b""), 200]) == [5.1]


async def test_retry_after_as_a_date_beside_a_date_that_is_none(
    site: Site,
) -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=20)
    retry_after = format_datetime(date, usegmt=True)
    headers = {"Date": "today", "Retry-After": retry_after}
    (found,) = await waits(site, [(503, headers, b""), 200])
    assert 17 < found <= 20.1


async def test_delay_may_be_nothing(site: Site) -> None:
    assert await waits(site, [503], base_delay=0) == [0, 0]
    assert await waits(site, [503], max_delay=0) == [0, 0]


@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
             "%a %b %d %H:%M:%S %Y"],
)  # fmt: skip
async def test_retry_after_as_a_date_is_waited(site: Site, form: str) -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=20)
    answer = (503, {"Retry-After": date.strftime(form)}, b"")
    (found,) = await waits(site, [answer, 200])
    assert 17 < found <= 20.1


@pytest.mark.parametrize("value", ["31", "9" * 5000, "1" * 400])
async def test_retry_after_that_is_too_long_ends_it_at_once(
    site: Site, value: str
) -> None:
    answer = (503, {"Retry-After": value}, b"later")
    assert await waits(site, [answer], deadline=None) == []
    assert site.count == 1


async def test_retry_after_a_date_too_far_ends_it_at_once(site: Site) -> None:
    date = datetime.now(timezone.utc) + timedelta(hours=1)
    answer = (503, {"Retry-After": format_datetime(date, usegmt=True)}, b"")
    assert await waits(site, [answer]) == []
    assert await waits(site, [answer], max_retry_after=4000, deadline=9999)


@pytest.mark.parametrize(
    "value", ["soon", "-5", "1.5s", ".5", "5.", "", "1, 2"]
)
async def test_retry_after_that_makes_no_sense_is_ignored(
    site: Site, value: str
) -> None:
    answer = (503, {"Retry-After": value}, b"")
    assert await waits(site, [answer, 200]) == [0.1]


async def test_retry_after_beyond_the_deadline_ends_it(site: Site) -> None:
    answer = (503, {"Retry-After": "20"}, b"")
    assert await waits(site, [answer], deadline=10) == []


@given(st.text(max_size=40) | st.from_regex(r"\A[0-9]{1,400}\Z"))
@example("Fri, 31 Dec 9999 23:59:59 GMT")
@example("Thu, 01 Jan 0001 00:00:00 +2300")
@example("Sun, 06 Nov 1994 08:49:37 -9999")
@example("\u0663")
def test_retry_after_is_nothing_or_not_negative(value: str) -> None:
    found = parse_retry_after(value, 10.0)
    assert found is None or found >= 0


@given(st.integers(0, 10**9), st.integers(0, 4 * 10**9))
def test_retry_after_reads_what_was_written(wait: int, now: int) -> None:
    assert parse_retry_after(str(wait), now) == wait
    date = datetime.fromtimestamp(now + wait, timezone.utc)
    text = format_datetime(date, usegmt=True)
    assert parse_retry_after(text, now) == wait
    assert parse_retry_after(text, now + wait + 5) == 0


# Many clients
# ============


async def test_clients_of_a_dead_server_do_not_come_back_in_waves(
    site: Site,
) -> None:
    site.answers = [503]
    naps = Naps()
    random_number = random.Random(1).random
    retry = retry_middleware(
        2, base_delay=1, budget=None, sleep=naps, rng=random_number
    )
    async with session_with(retry) as session:
        await asyncio.gather(*(ask(session, site) for _ in range(200)))
    tenths = Counter(int(delay * 10) for delay in naps.taken)
    assert len(naps.taken) == 200
    assert len(tenths) == 10
    assert max(tenths.values()) <= 40  # twenty each, more or less


@pytest.mark.parametrize(
    ("budget", "most"), [(RetryBudget(20), 220), (..., 300), (None, 600)]
)
async def test_budget_bounds_what_a_dead_server_gets(
    site: Site, budget: Any, most: int
) -> None:
    site.answers = [503]
    async with session_with(quick(budget=budget)) as session:
        await asyncio.gather(*(ask(session, site) for _ in range(200)))
    assert site.count == most


async def ask(session: aiohttp.ClientSession, site: Site) -> int:
    async with session.get(site.url) as response:
        await response.read()
        return response.status


def test_budget_is_refilled_by_successes_and_never_above_its_size() -> None:
    budget = RetryBudget(2, cost=1, refund=0.5)
    budget.deposit()
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()


async def test_success_refills_the_budget_and_failure_does_not(
    site: Site,
) -> None:
    retry = quick(2, budget=RetryBudget(1, refund=1))
    async with session_with(retry) as session:
        for answers, count in (
            ([503, 200], 2),
            ([503, 503], 2),
            ([503], 1),
            ([200], 1),
            ([503], 2),
        ):
            site.answers, site.methods = list(answers), []
            await ask(session, site)
            assert site.count == count


async def test_budget_may_be_all_that_there_is(site: Site) -> None:
    retry = quick(2, budget=RetryBudget(1, refund=0))
    async with session_with(retry) as session:
        for answers, count in (([503, 200], 2), ([200], 1), ([503], 1)):
            site.answers, site.methods = list(answers), []
            await ask(session, site)
            assert site.count == count


async def test_middlewares_do_not_share_a_budget_unless_told(
    site: Site,
) -> None:
    site.answers = [503]
    budget = RetryBudget(1)
    for retry, count in (
        (quick(budget=budget), 2),
        (quick(budget=budget), 1),
        (quick(), 3),
    ):
        site.methods = []
        async with session_with(retry) as session:
            await ask(session, site)
        assert site.count == count


# Connections
# ===========


async def slow_chunks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=503)
    await response.prepare(request)
    await response.write(b"x" * 1000)
    return await hang(request)


#: Error bodies for which nobody may wait.
LARGE = [
    pytest.param((503, {}, MEGABYTE), id="1 MB"),
    pytest.param(slow_chunks, id="slow chunks"),
    pytest.param(
        (503, {"Content-Encoding": "gzip"}, b"\x1f\x8b" * 500), id="gzip"
    ),
]


@pytest.mark.parametrize("answer", LARGE)
async def test_session_with_one_connection_does_not_hang(
    site: Site, answer: Any
) -> None:
    site.answers = [answer]
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(quick(), connector=connector) as session:
        async with session.get(site.url) as response:
            assert response.status == 503
        assert site.count == 3
        assert not connector._acquired


async def test_connection_is_free_before_the_delay_and_the_hook(
    site: Site,
) -> None:
    site.answers = [(503, {}, MEGABYTE)]
    connector = aiohttp.TCPConnector(limit=1)

    async def other(*_: object) -> None:
        assert not connector._acquired
        async with session.get(site.url, middlewares=()):
            pass

    retry = quick(on_retry=other, sleep=other)
    async with (
        session_with(retry, connector=connector) as session,
        session.get(site.url),
    ):
        pass
    assert site.count == 3 + 2 * 2


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=503)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"x" * 1000)
            await asyncio.sleep(0.02)
    return response


@pytest.mark.parametrize("end", ["cancelled", "total timeout", "a hook's own"])
async def test_response_is_closed_when_retry_if_does_not_come_back(
    site: Site, end: str
) -> None:
    asked = asyncio.Event()

    async def retry_if(event: RetryEvent) -> bool:
        asked.set()
        if end == "a hook's own":
            raise asyncio.CancelledError
        await asyncio.sleep(30)
        return False

    site.answers = [endless]
    retry = quick(retry_if=retry_if, statuses=[500])
    total = 0.1 if end == "total timeout" else 30
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(
        retry,
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=total),
    ) as session:
        task = asyncio.ensure_future(session.get(site.url))
        await asked.wait()
        if end == "cancelled":
            task.cancel()
        with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
            await task
        assert not connector._acquired


@pytest.mark.parametrize("option", ["clock", "rng"])
async def test_response_is_closed_when_an_option_raises(
    site: Site, option: str
) -> None:
    results = iter([0.0] if option == "clock" else [])

    def fail() -> float:
        for number in results:
            return number
        raise ZeroDivisionError

    site.answers = [endless]
    connector = aiohttp.TCPConnector(limit=1)
    retry = quick(**{option: fail})
    async with session_with(retry, connector=connector) as session:
        with pytest.raises(ZeroDivisionError):
            await session.get(site.url)
        assert not connector._acquired


async def test_cookie_of_an_answer_in_between_is_stored_and_borne(
    site: Site,
) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.cookies))
        if len(seen) == 2:
            return web.Response()
        response = web.Response(status=503)
        response.set_cookie("node", "b")
        response.set_cookie("elsewhere", "c", path="/elsewhere")
        return response

    site.answers = [answer]
    jar = aiohttp.CookieJar(unsafe=True)
    async with session_with(quick(), cookie_jar=jar) as session:
        own = {"own": "a", "node": "a"}
        async with session.get(site.url, cookies=own) as response:
            assert response.status == 200
    assert seen == [own, {"own": "a", "node": "b"}]
    assert {cookie.key for cookie in jar} == {"node", "elsewhere"}


async def test_cookies_of_an_answer_in_between_are_told_apart(
    site: Site,
) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.cookies))
        if len(seen) % 2 == 0:
            return web.Response()
        response = web.Response(status=503)
        response.headers.extend(
            ("Set-Cookie", cookie)
            for cookie in (
                "gone=; Max-Age=0",
                "twice=here; Path=/",
                "twice=there; Path=/there",
                "away=there; Path=/there",
            )
        )
        return response

    site.answers = [answer]
    jar = aiohttp.CookieJar(unsafe=True)
    jar.update_cookies({"gone": "a", "left": "b"}, URL(site.url))
    async with session_with(quick(), cookie_jar=jar) as session:
        async with session.get(site.url) as response:
            assert response.status == 200
        twice = {"left": "b"}
        if hasattr(jar, "update_cookies_from_headers"):
            twice["twice"] = "here"
        assert seen == [{"gone": "a", "left": "b"}, twice]

        # What the caller sends on his own is none of the jar's.
        seen.clear()
        jar.clear()
        jar.update_cookies({"gone": "a"}, URL(site.url))
        own = {"gone": "own", "away": "own"}
        async with session.get(site.url, cookies=own) as response:
            assert response.status == 200
        assert seen[0] == own
        twice.pop("left")
        assert seen[1] == {**own, **twice}


async def test_last_cookie_that_is_deleted_leaves_no_header(
    site: Site,
) -> None:
    seen: list[list[str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.getall("Cookie", []))
        response = web.Response(status=503 if len(seen) == 1 else 200)
        response.del_cookie("gone")
        return response

    site.answers = [answer]
    jar = aiohttp.CookieJar(unsafe=True)
    jar.update_cookies({"gone": "a"}, URL(site.url))
    async with (
        session_with(quick(), cookie_jar=jar) as session,
        session.get(site.url) as response,
    ):
        assert response.status == 200
    assert seen == [["gone=a"], []]


async def test_response_is_not_followed_to_its_end(site: Site) -> None:
    """Or each of its chunks would be told to somebody who does not listen."""
    seen: list[Any] = []

    async def look(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(req)
        finally:
            seen.append(list(req._traces))

    async with aiohttp.ClientSession(middlewares=[look, quick()]) as session:
        assert await ask(session, site) == 200
        site.answers = [drop]
        with pytest.raises(RetryExhausted):
            await ask(session, site)
    assert seen == [[], []]


async def test_twenty_requests_share_ten_connections(site: Site) -> None:
    site.answers = [(503, {}, MEGABYTE)]
    connector = aiohttp.TCPConnector(limit=10)
    async with session_with(quick(), connector=connector) as session:
        found = await asyncio.gather(*(ask(session, site) for _ in range(20)))
        assert found == [503] * 20
        assert not connector._acquired


async def test_compressed_body_is_not_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes may be many megabytes."""
    monkeypatch.setattr(_bodies, "DRAIN_TIMEOUT", 30)
    body = gzip.compress(MEGABYTE)

    async def begin(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip"}
        response = web.StreamResponse(status=503, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[:500])
        return await hang(request)

    site.answers = [begin, 200]
    async with session_with(quick()) as session:
        assert await asyncio.wait_for(ask(session, site), 5) == 200


async def test_small_error_bodies_keep_the_connection(site: Site) -> None:
    site.answers = [(503, {}, b"x" * 60_000)]
    async with session_with(quick()) as session:
        await ask(session, site)
    assert list(site.peers.values()) == [3]


async def test_small_body_that_does_not_come_is_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bodies, "DRAIN_TIMEOUT", 0.02)

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        response.content_length = 10
        await response.prepare(request)
        return await hang(request)

    site.answers = [trickle, 200]
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(quick(), connector=connector) as session:
        assert await ask(session, site) == 200


async def test_small_body_that_breaks_off_is_a_failure_like_any(
    site: Site,
) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        response.content_length = 10
        await response.prepare(request)
        await response.write(b"x")
        assert request.transport is not None
        request.transport.close()
        return response

    site.answers = [break_off, 200]
    async with session_with(quick()) as session:
        assert await ask(session, site) == 200


async def test_nothing_is_left_unclosed(
    site: Site, recwarn: pytest.WarningsRecorder
) -> None:
    asyncio.get_running_loop().set_debug(True)
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(context["message"])
    )
    answers: list[Any] = [(503, {}, MEGABYTE), slow_chunks, drop, 503]
    for answer in answers:
        site.answers = [answer]
        async with session_with(quick()) as session:
            try:
                async with session.get(site.url):
                    pass
            except RetryExhausted:
                assert answer is drop
            gc.collect()
    assert complaints == []
    assert list(recwarn) == []


# Bodies
# ======


async def generate() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"chunk"


class Files:
    """Opens files, and closes them in the end."""

    def __init__(self, path: Path) -> None:
        self._stack = contextlib.ExitStack()
        self._path = path

    def write(self, content: bytes) -> None:
        self._path.write_bytes(content)

    def open(self, mode: str = "rb", start: int = 0) -> IO[Any]:
        file: IO[Any] = self._stack.enter_context(self._path.open(mode))
        file.seek(start)
        return file

    def pipe(self) -> IO[Any]:
        there, here = os.pipe()
        os.write(here, b"body" * 1000)
        os.close(here)
        return self._stack.enter_context(open(there, "rb"))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path / "file")
    files.write(b"0123456789" * 20_000)
    yield files
    files.close()


def form(value: Any) -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field("field", "value")
    data.add_field("file", value, filename="a.txt")
    return data


def nested() -> aiohttp.MultipartWriter:
    outer, inner = aiohttp.MultipartWriter(), aiohttp.MultipartWriter()
    inner.append("inner")
    outer.append(inner)
    outer.append_json({"a": 1})
    return outer


IN_MEMORY: dict[str, Callable[[Files], Any]] = {
    "nothing": lambda _: None,
    "bytes": lambda _: b"body" * 1000,
    "empty": lambda _: b"",
    "text": lambda _: "bödy",
    "urlencoded": lambda _: {"a": "b"},
    "StringIO": lambda _: io.StringIO("bödy"),
    "form of bytes": lambda _: form(b"body"),
    "multipart": lambda _: nested(),
    "bytearray": lambda _: bytearray(b"body"),
}
FILES: dict[str, Callable[[Files], Any]] = {
    "BytesIO": lambda _: io.BytesIO(b"body" * 1000),
    "file": lambda files: files.open(),
    "file from the middle": lambda files: files.open(start=1000),
    "text file": lambda files: files.open("r"),
    "form of a file": lambda files: form(files.open()),
}


class Unseekable(io.BytesIO):
    """It knows its size, and cannot go back."""

    def seekable(self) -> bool:
        return False

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation("seek")


ONCE: dict[str, Callable[[Files], Any]] = {
    "generator": lambda _: generate(),
    "pipe": lambda files: files.pipe(),
    "form of a pipe": lambda files: form(files.pipe()),
}


# Older releases of aiohttp seek to find out the size.
UNSEEKABLE: dict[str, Callable[[Files], Any]] = {
    "unseekable": lambda _: Unseekable(b"body" * 1000),
    "form of unseekable": lambda _: form(Unseekable(b"body" * 1000)),
}


def body_of(kinds: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", [
        pytest.param(make, id=name) for name, make in kinds.items()
    ])  # fmt: skip


@body_of(IN_MEMORY | (FILES if REWINDS_FILES else {}))
@pytest.mark.parametrize("options", [{}, {"compress": "gzip"}])
async def test_body_arrives_the_same_each_time(
    site: Site, files: Files, kind: Callable[[Files], Any], options: Any
) -> None:
    site.answers = [503]
    data = kind(files)
    if not data and options:
        options = {}
    async with (
        session_with(quick()) as session,
        session.put(site.url, data=data, **options),
    ):
        pass
    assert site.count == 3
    assert len(set(site.bodies)) == 1
    assert site.bodies[0] or not data


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("attempts", [1, 3])
async def test_file_that_cannot_be_read_is_sent_once(
    site: Site, method: str, attempts: int
) -> None:
    site.answers = [hang]
    retry = quick(attempts, methods=["PUT", "POST"])
    with Unreadable(__file__) as file:
        async with session_with(retry) as session:
            with pytest.raises(aiohttp.ClientOSError) as caught:
                await session.request(method, site.url, data=file)
    assert file.count == 1
    assert caught.value.errno == errno.EIO
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_generator_that_raises_keeps_its_exception(
    site: Site, method: str
) -> None:
    site.answers = [hang]
    retry = quick(methods=["PUT", "POST"], retry_if=lambda _: True)
    async with session_with(retry) as session:
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.request(method, site.url, data=raises())
    assert type(caught.value) is aiohttp.ClientConnectionError
    assert isinstance(caught.value.__cause__, ValueError)
    assert site.count <= 1


@body_of(ONCE | (UNSEEKABLE if REWINDS_FILES else FILES))
@pytest.mark.parametrize("answer", [503, drop])
@pytest.mark.parametrize("attempts", [1, 3])
async def test_body_that_cannot_be_replayed_arrives_once(
    site: Site, files: Files, kind: Callable[[Files], Any], answer: Any,
    attempts: int,
) -> None:  # fmt: skip
    site.answers = [answer]
    async with session_with(quick(attempts)) as session:
        if answer is drop:
            with pytest.raises(RetryExhausted, match=r"^Sent 1 time,"):
                await session.put(site.url, data=kind(files))
        else:
            async with session.put(site.url, data=kind(files)) as response:
                assert await response.text() == "PUT!"
    assert site.count == 1


async def test_body_that_cannot_be_replayed_is_not_asked_about(
    site: Site,
) -> None:
    async with (
        session_with(quick(retry_if=lambda _: True)) as session,
        session.put(site.url, data=generate()),
    ):
        pass
    assert site.count == 1


async def test_json_and_expect_continue_are_replayed(site: Site) -> None:
    site.answers = [503, 503, 200]
    async with (
        session_with(quick()) as session,
        session.put(site.url, json={"a": 1}, expect100=True) as response,
    ):
        assert response.status == 200
    assert site.bodies == [b'{"a": 1}'] * 3


def test_request_is_made_ready_by_what_the_next_aiohttp_calls_private() -> None:
    calls: list[str] = []
    request: Any = SimpleNamespace(
        headers={"Expect": "100-continue"},
        session=SimpleNamespace(closed=False),
        _update_expect_continue=lambda: calls.append("expect"),
    )
    _bodies.prepare_again(request)
    assert calls == ["expect"]


async def test_body_is_replayed_after_expect_continue_was_refused(
    site: Site,
) -> None:
    refusals = [503, 503]

    async def expect(request: web.Request) -> web.StreamResponse | None:
        if refusals:
            return web.Response(status=refusals.pop())
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    app = web.Application()
    app.router.add_put("/", site.handle, expect_handler=expect)
    # aiohttp 3.12.0 itself uses the connection again, without the body.
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        TestServer(app) as server,
        session_with(quick(), connector=connector) as session,
        session.put(
            server.make_url("/"), data=b"body", expect100=True
        ) as response,
    ):
        assert response.status == 200
    assert site.bodies == [b"body"]


@pytest.mark.parametrize("kind", [
    "bytes", pytest.param("file", marks=pytest.mark.skipif(
        not REWINDS_FILES, reason="files are not replayed")),
])  # fmt: skip
async def test_upload_that_was_refused_early_arrives_whole(
    site: Site, files: Files, kind: str
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503)

    site.answers = [refuse, refuse, 200]
    # More than a megabyte of bytes makes aiohttp warn.
    content = bytes(range(256)) * 2 ** (12 if kind == "bytes" else 15)
    files.write(content)
    data: Any = content if kind == "bytes" else files.open()
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        session_with(quick(), connector=connector) as session,
        session.put(site.url, data=data) as response,
    ):
        assert response.status == 200
    assert site.bodies == [content]


# Hooks
# =====


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_retry_is_told_of_each_retry(site: Site, kind: str) -> None:
    events: list[RetryEvent] = []

    async def note(event: RetryEvent) -> None:
        await asyncio.sleep(0)
        events.append(event)

    site.answers = [503, drop, 200]
    hook = note if kind == "async" else events.append
    retry = quick(on_retry=hook, base_delay=1, rng=lambda: 0.5)
    async with session_with(retry) as session:
        await ask(session, site)
    first, second = events
    assert first.attempt == 1
    assert first.delay == 0.5
    assert first.request.method == "GET"
    assert first.response is not None
    assert first.response.status == 503
    assert first.exception is None
    assert await first.response.text() == "GET!"
    assert second.attempt == 2
    assert second.response is None
    assert isinstance(second.exception, aiohttp.ServerDisconnectedError)


@pytest.mark.parametrize("option", ["on_retry", "retry_if"])
async def test_hook_that_raises_is_logged_and_changes_nothing(
    site: Site, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    async def fail(event: RetryEvent) -> bool:
        raise ValueError("broken")

    site.answers = [503, 404]
    async with session_with(quick(**{option: fail})) as session:
        assert await ask(session, site) == 404
    assert site.count == 2
    messages = {record.getMessage() for record in caplog.records}
    assert f"The hook {option} failed" in messages


async def test_hook_may_be_cancelled(site: Site) -> None:
    site.answers = [503]
    there = asyncio.Event()

    async def wait(event: RetryEvent) -> None:
        there.set()
        await asyncio.sleep(30)

    async with session_with(quick(on_retry=wait)) as session:
        task = asyncio.ensure_future(ask(session, site))
        await there.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_retry_if_makes_an_outcome_a_failure(
    site: Site, kind: str
) -> None:
    async def busy(event: RetryEvent) -> bool:
        assert event.response is not None
        return bool(await event.response.json() == {"state": "busy"})

    answer = (200, {"Content-Type": "application/json"}, b'{"state": "busy"}')
    done = (200, {"Content-Type": "application/json"}, b'{"state": "done"}')
    site.answers = [answer, answer, done]
    hook: Any = busy if kind == "async" else lambda e: e.attempt < 3
    async with (
        session_with(quick(retry_if=hook)) as session,
        session.get(site.url) as response,
    ):
        assert await response.json() == {"state": "done"}
    assert site.count == 3


async def test_retry_if_makes_an_exception_a_failure(site: Site) -> None:
    class Throttled(Exception):
        pass

    seen: list[Exception | None] = []

    def throttled(event: RetryEvent) -> bool:
        seen.append(event.exception)
        return isinstance(event.exception, Throttled)

    async def throttle(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if len(seen) < 2:
            raise Throttled
        return await handler(req)

    retry = quick(retry_if=throttled)
    async with aiohttp.ClientSession(middlewares=[retry, throttle]) as session:
        assert await ask(session, site) == 200
    assert [type(item) for item in seen] == [Throttled, Throttled]


async def test_retry_if_widens_neither_methods_nor_attempts(
    site: Site,
) -> None:
    async with session_with(quick(retry_if=lambda _: True)) as session:
        async with session.post(site.url):
            pass
        assert site.count == 1
        await ask(session, site)
        assert site.count == 4


async def test_retry_if_may_repeat_any_method_when_nothing_was_sent(
    site: Site,
) -> None:
    class NoToken(Exception):
        pass

    tokens = iter([NoToken, None, None, NoToken])

    async def fetch(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if (error := next(tokens)) is not None:
            raise error
        response = await handler(req)
        if response.status == 401:
            response.release()
            raise NoToken
        return response

    retry = quick(retry_if=lambda e: isinstance(e.exception, NoToken))
    async with aiohttp.ClientSession(middlewares=[retry, fetch]) as session:
        async with session.post(site.url) as response:
            assert response.status == 200
        assert site.count == 1
        site.answers = [401]
        with pytest.raises(NoToken):  # here it was sent
            await session.post(site.url)
        assert site.count == 2


async def test_retry_if_is_not_asked_about_what_is_a_failure_anyhow(
    site: Site,
) -> None:
    site.answers = [503]
    async with session_with(quick(retry_if=lambda _: False)) as session:
        await ask(session, site)
    assert site.count == 3


# What is final
# =============


@pytest.mark.parametrize("status", [503, 404])
async def test_websocket_handshake_is_not_repeated(
    site: Site, status: int
) -> None:
    site.answers = [status]
    async with session_with(quick(retry_if=lambda _: True)) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(site.url)
    assert site.count == 1


async def test_websocket_works(site: Site) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_str(await ws.receive_str())
        await ws.close()
        return ws

    site.answers = [echo]
    async with (
        session_with(quick(retry_if=lambda _: True)) as session,
        session.ws_connect(site.url) as ws,
    ):
        await ws.send_str("hello")
        assert await ws.receive_str() == "hello"
    assert site.count == 1


async def test_tls_that_fails_is_not_repeated() -> None:
    connections = 0

    async def answer_in_plain_text(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_in_plain_text, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with session_with(quick(retry_if=lambda _: True)) as session:
        with pytest.raises(aiohttp.ClientSSLError):
            await session.get(f"https://127.0.0.1:{port}/")
    server.close()
    assert connections == 1


async def test_answer_that_is_no_http_is_not_repeated() -> None:
    connections = 0

    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal connections
        connections += 1
        await reader.readline()
        writer.write(b"220 mail ready\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with session_with(quick()) as session:
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(f"http://127.0.0.1:{port}/")
    server.close()
    assert connections == 1


@pytest.mark.parametrize(
    "refusal",
    [
        CircuitOpenError(1.0),
        DeadlineExceeded(),
        SSRFError("address"),
        ThrottledError(1.0),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_refusal_of_a_middleware_inside_is_not_repeated(
    refusal: aiohttp.ClientError,
) -> None:
    refused = 0

    async def refuse(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        nonlocal refused
        refused += 1
        raise refusal

    own = quick(retry_if=lambda _: True)
    async with aiohttp.ClientSession(middlewares=[own, refuse]) as session:
        with pytest.raises(type(refusal)):
            await session.get("http://service.example/")
    assert refused == 1


# What is behind a proxy
# ======================


@contextlib.asynccontextmanager
async def proxy(status: int, fields: str = "") -> AsyncIterator[list[str]]:
    """One that cannot make a tunnel; what it was asked for."""
    asked: list[str] = []

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().split(" ")[0])
        writer.write(
            f"HTTP/1.1 {status} No\r\n{fields}"
            "Content-Length: 0\r\n\r\n".encode()
        )
        await writer.drain()

    async with raw_server(answer) as port:
        asked.append(f"http://127.0.0.1:{port}")
        yield asked


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("status", "count"), [(502, 3), (503, 3), (504, 3), (403, 1), (407, 1)]
)
async def test_tunnel_that_may_be_there_in_a_moment_is_asked_for_again(
    method: str, status: int, count: int
) -> None:
    async with proxy(status) as asked, session_with(quick()) as session:
        with pytest.raises(aiohttp.ClientHttpProxyError) as caught:
            await session.request(method, "https://a.example", proxy=asked[0])
    assert caught.value.status == status
    assert asked[1:] == ["CONNECT"] * count


async def test_tunnel_is_asked_for_again_where_aiohttp_does_not_tell() -> None:
    async with (
        proxy(503) as asked,
        aiohttp.ClientSession(middlewares=[hide, quick()]) as session,
    ):
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await session.post("https://a.example", proxy=asked[0])
    assert asked[1:] == ["CONNECT"] * 3


async def test_retry_after_of_a_proxy_is_waited() -> None:
    naps = Naps()
    retry = retry_middleware(2, sleep=naps, rng=lambda: 0)
    async with (
        proxy(503, "Retry-After: 7\r\n") as asked,
        session_with(retry) as session,
    ):
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await session.get("https://a.example", proxy=asked[0])
    assert naps.taken == [7]


# What is said
# ============


async def test_error_that_ends_it_tells_of_the_failures_before(
    site: Site,
) -> None:
    class Opened(aiohttp.ClientError):
        pass

    async def breaker(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if site.count == 2:
            raise Opened
        return await handler(req)

    for second, kind in (
        (503, aiohttp.ClientResponseError),
        (drop, aiohttp.ServerDisconnectedError),
    ):
        site.answers, site.methods = [503, second], []
        async with aiohttp.ClientSession(
            middlewares=[quick(5), breaker]
        ) as session:
            with pytest.raises(Opened) as caught:
                await session.get(
                    f"{site.url}?token=hush", headers={"X-Api-Key": "hush"}
                )
        cause = caught.value.__cause__
        assert isinstance(cause, kind)
        assert caught.value.__context__ is cause
        assert "hush" not in f"{cause} {cause!r}"
        if isinstance(cause, aiohttp.ClientResponseError):
            assert cause.status == 503
            assert f"{site.url}?token=***" in str(cause)


async def test_log_and_exception_hold_no_secrets(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    site.answers = [503, 503, drop]
    url = f"{site.url}path?token=hush#hush".replace("://", "://me:hush@")
    headers = {"X-Api-Key": "hush", "Cookie": "hush=hush"}
    async with session_with(quick()) as session:
        with pytest.raises(RetryExhausted) as caught:
            await session.get(url, headers=headers)
    assert "hush" not in f"{caught.value} {caught.value!r}"
    assert str(caught.value) == "Sent 3 times, at last: ServerDisconnectedError"
    records = [
        record
        for record in caplog.records
        if record.name == "aiohttp_middlewares.client.retry"
    ]
    assert len(records) == 2
    for record in records:
        assert "hush" not in f"{record.getMessage()} {record.__dict__}"
        assert "/path?token=*** failed (503)" in record.getMessage()


async def test_event_shows_no_secrets(site: Site) -> None:
    events: list[RetryEvent] = []
    site.answers = [503]
    async with (
        session_with(quick(on_retry=events.append)) as session,
        session.get(f"{site.url}?token=hush"),
    ):
        pass
    assert "hush" not in repr(events)


def test_middleware_is_hashable_and_serves_two_loops() -> None:
    retry = quick()
    assert hash(retry)

    async def main() -> None:
        async with serve() as site, session_with(retry) as session:
            site.answers = [503]
            await ask(session, site)
            assert site.count == 3

    asyncio.run(main())
    asyncio.run(main())


async def test_defaults_really_sleep(site: Site) -> None:
    site.answers = [503, 200]
    start = time.perf_counter()
    async with session_with(retry_middleware(base_delay=0.01)) as session:
        assert await ask(session, site) == 200
    assert time.perf_counter() - start < 5


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attempts": 0}, ValueError, "a whole number, 1 or more"),
        ({"attempts": "3"}, TypeError, "a whole number, 1 or more"),
        ({"methods": ["GET,PUT"]}, ValueError, r"did you mean \['GET', "),
        ({"methods": 5}, TypeError, "HTTP methods"),
        ({"methods": "POST"}, TypeError, r"did you mean \['POST'\]\?"),
        ({"statuses": 503}, TypeError, "a collection of HTTP status codes"),
        ({"statuses": ["503"]}, TypeError, "HTTP status codes"),
        ({"statuses": [True]}, TypeError, "HTTP status codes"),
        ({"statuses": [99]}, ValueError, "100 to 599"),
        ({"statuses": [600]}, ValueError, "100 to 599"),
        ({"base_delay": -1}, ValueError, "should be 0 or a positive, finite"),
        ({"max_delay": float("inf")}, ValueError, "a positive, finite number"),
        ({"max_retry_after": None}, TypeError, "a number of seconds"),
        ({"deadline": -1}, ValueError, "a positive, finite number"),
        ({"attempt_timeout": "1"}, TypeError, "a number of seconds"),
        ({"budget": 100}, TypeError, "a RetryBudget"),
        ({"retry_if": True}, TypeError, "a callable"),
        ({"on_retry": "log"}, TypeError, "a callable"),
        ({"idempotency_header": "a b"}, ValueError, "should be a header name,"),
        ({"idempotency_header": 5}, TypeError, "should be a header name,"),
        ({"sleep": 1}, TypeError, "a callable"),
        ({"rng": 0.5}, TypeError, "a callable"),
        ({"clock": None}, TypeError, "a callable"),
    ],
)  # fmt: skip
def test_wrong_option_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    name = next(iter(options))
    with pytest.raises(error, match=f"^retry_middleware {name} .*{message}"):
        retry_middleware(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens": 0}, ValueError, "a positive number"),
        ({"tokens": "1"}, TypeError, "a positive number"),
        ({"cost": float("nan")}, ValueError, "a positive number"),
        ({"refund": True}, TypeError, "a number, 0 or more"),
        ({"refund": -1}, ValueError, "a number, 0 or more"),
        ({"cost": 0}, ValueError, "a positive number"),
        ({"tokens": float("inf")}, ValueError, "a positive number"),
        ({"cost": 101}, ValueError, "no more than the tokens"),
    ],
)
def test_wrong_budget_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    name = next(iter(options))
    with pytest.raises(error, match=f"^RetryBudget {name} .*{message}"):
        RetryBudget(**options)
