"""The API log: reports in the background that touch nobody."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from client_site import MEGABYTE, Site, accept, drop, serve, session_with
from live import eventually, soon
from yarl import URL

from aiohttp_middlewares.client import (
    CallRecord,
    _timeouts,
    api_log_middleware,
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    return caplog


def with_secrets(url: str) -> str:
    return f"{url}a/b?q=hush&token=hush&hush#hush".replace("://", "://me:hush@")


async def test_call_is_reported_with_its_facts(site: Site) -> None:
    reported: list[CallRecord] = []
    times = iter([1.0, 1.5])
    log = api_log_middleware(reported.append, clock=lambda: next(times))
    async with (
        session_with(log) as session,
        session.post(with_secrets(site.url)),
    ):
        pass
    await log.aclose()
    url = f"{site.url}a/b?q=***&token=***&***"
    assert reported == [CallRecord("POST", url, 200, None, 0.5)]


async def test_failed_call_is_reported_by_name(site: Site) -> None:
    reported: list[CallRecord] = []
    log = api_log_middleware(reported.append)
    site.answers = [drop]
    async with session_with(log) as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(site.url)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{unused_port()}/?t=hush")
    await log.aclose()
    found = [(record.status, record.error) for record in reported]
    assert found == [
        (None, "ServerDisconnectedError"),
        (None, "ClientConnectorError"),
    ]
    assert "hush" not in repr(reported)


async def hang_for_ever(record: CallRecord) -> None:
    await asyncio.sleep(30)


async def test_service_that_hangs_delays_nobody_and_is_bounded(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    middleware = api_log_middleware(hang_for_ever, backlog=5)
    async with session_with(middleware) as session:
        for _ in range(20):
            async with session.get(site.url) as response:
                assert response.status == 200
    assert len(middleware._waiting) == 5
    await middleware.aclose(timeout=0.01)
    assert log.messages == [
        "The backlog of 5 records is full, the oldest are dropped; send is"
        " too slow or hangs",
        "6 records were not sent before the end",
    ]


@pytest.mark.parametrize("backlog", [1, 5])
async def test_backlog_that_stays_full_is_warned_of_once(
    site: Site, log: pytest.LogCaptureFixture, backlog: int
) -> None:
    tickets = asyncio.Semaphore(0)
    sent = 0

    async def send(record: CallRecord) -> None:
        nonlocal sent
        await tickets.acquire()
        sent += 1

    middleware = api_log_middleware(send, backlog=backlog)
    async with session_with(middleware) as session:

        async def call(count: int) -> None:
            for _ in range(count):
                async with session.get(site.url):
                    pass

        await call(backlog + 2)
        for count in range(1, 5):
            tickets.release()
            await eventually(lambda: sent == count)  # noqa: B023
            await call(2)
        assert len(log.messages) == 1

        for _ in range(backlog + 1):
            tickets.release()
        await middleware.aclose()
        await call(backlog + 2)
        assert len(log.messages) == 2
        for _ in range(backlog + 1):
            tickets.release()
        await middleware.aclose()


async def fail_by_cancellation() -> None:
    task = asyncio.create_task(asyncio.sleep(30))
    task.cancel()
    await task


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 does not tell"
)
async def test_send_that_ends_in_a_cancellation_ends_no_other(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    sent: list[CallRecord] = []

    async def send(record: CallRecord) -> None:
        sent.append(record)
        if len(sent) <= 2:
            await fail_by_cancellation()

    middleware = api_log_middleware(send)
    async with session_with(middleware) as session:
        for _ in range(4):
            async with session.get(site.url):
                pass
    await middleware.aclose()
    assert len(sent) == 4
    assert log.messages == ["send failed: CancelledError"]


async def test_what_is_left_when_the_worker_was_cancelled_is_warned_of(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    middleware = api_log_middleware(hang_for_ever)
    async with session_with(middleware) as session:
        for _ in range(3):
            async with session.get(site.url):
                pass
    closing = asyncio.create_task(middleware.aclose(timeout=30))
    await asyncio.sleep(0)
    assert middleware._task is not None
    middleware._task.cancel()
    await soon(closing)
    assert log.messages == ["2 records were not sent before the end"]
    assert not middleware._waiting


async def test_send_that_cannot_be_cancelled_does_not_hold_up_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_timeouts, "CUT_TIMEOUT", 0.01)
    gate = asyncio.Event()

    async def send(record: CallRecord) -> None:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()

    middleware = api_log_middleware(send)
    async with (
        session_with(middleware) as session,
        session.get(site.url),
    ):
        pass
    await soon(middleware.aclose(timeout=0.01))
    gate.set()
    assert middleware._task is not None
    await soon(asyncio.wait([middleware._task]))


async def test_logger_that_raises_costs_no_response(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    site.answers = [(200, {}, MEGABYTE)]
    logger = logging.getLogger("aiohttp_middlewares.client.api_log")
    logger.addFilter(refuse)
    middleware = api_log_middleware(hang_for_ever, backlog=1)
    try:
        async with session_with(middleware) as session:
            for _ in range(3):  # the last is one too many
                async with session.get(site.url) as response:
                    assert await response.read() == MEGABYTE
        await middleware.aclose(timeout=0.01)
    finally:
        logger.removeFilter(refuse)
    assert "The backlog of %s" in capsys.readouterr().err


async def test_full_backlog_drops_the_oldest(site: Site) -> None:
    reported: list[str] = []
    gate = asyncio.Event()

    async def send(record: CallRecord) -> None:
        await gate.wait()
        reported.append(record.url.rpartition("/")[2])

    log = api_log_middleware(send, backlog=2)
    async with session_with(log) as session:
        for number in range(6):
            async with session.get(f"{site.url}{number}"):
                pass
    gate.set()
    await log.aclose()
    assert reported == ["0", "4", "5"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_service_that_fails_touches_nobody_and_warns_once(
    site: Site, log: pytest.LogCaptureFixture, kind: str
) -> None:
    broken = True
    reported: list[CallRecord] = []

    def send(record: CallRecord) -> None:
        if broken:
            raise ValueError("hush")
        reported.append(record)

    async def send_async(record: CallRecord) -> None:
        send(record)

    hook: Callable[[CallRecord], Any] = send if kind == "sync" else send_async
    middleware = api_log_middleware(hook)
    async with session_with(middleware) as session:
        for state in (True, True, False, True):
            broken = state
            async with session.get(site.url) as response:
                assert response.status == 200
            await asyncio.sleep(0)
            await middleware.aclose()
    assert len(reported) == 1
    assert log.messages == ["send failed: ValueError"] * 2


@pytest.mark.parametrize("limit", [0, 1])
async def test_calls_of_send_through_the_session_are_not_reported(
    site: Site, limit: int
) -> None:
    reported: list[str] = []

    async def send(record: CallRecord) -> None:
        reported.append(record.url)
        async with session.post(f"{site.url}log", data=record.url):
            pass

    # Two of them must not report each other either.
    first, second = api_log_middleware(send), api_log_middleware(send)
    connector = aiohttp.TCPConnector(limit=limit)
    async with aiohttp.ClientSession(
        middlewares=[first, second], connector=connector
    ) as session:
        async with session.get(site.url):
            pass
        await first.aclose()
        await second.aclose()
    assert reported == [site.url, site.url]
    assert site.methods == ["GET", "POST", "POST"]


async def test_calls_of_a_task_that_send_left_behind_are_reported(
    site: Site,
) -> None:
    reported: list[str] = []
    tasks: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        async with session.get(f"{site.url}later"):
            pass

    def send(record: CallRecord) -> None:
        reported.append(record.url.rpartition("/")[2])
        if not tasks:
            tasks.append(asyncio.create_task(later()))

    log = api_log_middleware(send)
    async with session_with(log) as session:
        async with session.get(f"{site.url}first"):
            pass
        await log.aclose()
        over.set()
        await tasks[0]
        await log.aclose()
    assert reported == ["first", "later"]


async def test_url_is_reported_as_the_user_wants(site: Site) -> None:
    reported: list[CallRecord] = []

    def without_token(url: URL) -> str:
        return str(url).replace("/a/", "/***/")

    log = api_log_middleware(reported.append, redact=without_token)
    async with (
        session_with(log) as session,
        session.post(with_secrets(site.url)),
    ):
        pass
    await log.aclose()
    assert reported[0].url == f"{site.url}***/b?q=***&token=***&***"


async def test_redact_that_fails_touches_nobody_and_shows_nothing(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    reported: list[CallRecord] = []

    def fail(url: URL) -> str:
        raise ValueError(str(url))

    middleware = api_log_middleware(reported.append, redact=fail)
    async with (
        session_with(middleware) as session,
        session.get(f"{site.url}hush") as response,
    ):
        assert response.status == 200
    await middleware.aclose()
    assert reported[0].url == f"{site.url}***"
    assert log.messages == ["The hook redact failed: ValueError"]


async def test_report_knows_nothing_of_the_request(site: Site) -> None:
    user: ContextVar[str] = ContextVar("user")
    seen: list[str | None] = []
    log = api_log_middleware(lambda _: seen.append(user.get(None)))
    user.set("the first one")
    async with session_with(log) as session:
        async with session.get(site.url):
            pass
        await log.aclose()
    assert seen == [None]


async def test_closing_sends_what_waits(site: Site) -> None:
    reported: list[CallRecord] = []

    async def send(record: CallRecord) -> None:
        await asyncio.sleep(0)
        reported.append(record)

    log = api_log_middleware(send)
    await log.aclose()
    async with session_with(log) as session:
        for _ in range(50):
            async with session.get(site.url):
                pass
    await log.aclose()
    assert len(reported) == 50
    await log.aclose()


async def test_websocket_is_reported(site: Site) -> None:
    reported: list[CallRecord] = []
    log = api_log_middleware(reported.append)
    site.answers = [accept]
    async with (
        session_with(log) as session,
        session.ws_connect(site.url),
    ):
        pass
    await log.aclose()
    assert [record.status for record in reported] == [101]


def test_log_serves_two_loops_and_is_hashable() -> None:
    reported: list[CallRecord] = []
    ends = False

    async def send(record: CallRecord) -> None:
        if not ends:
            await asyncio.sleep(30)
        reported.append(record)

    log = api_log_middleware(send)
    assert hash(log)

    async def main() -> None:
        async with serve() as site, session_with(log) as session:
            async with session.get(site.url):
                pass
            if ends:
                await log.aclose()

    asyncio.run(main())
    ends = True
    asyncio.run(main())
    assert len(reported) == 1


def test_report_of_a_loop_that_was_stopped_does_not_lock() -> None:
    reported: list[CallRecord] = []

    async def send(record: CallRecord) -> None:
        if not stopped:
            await asyncio.sleep(30)
        reported.append(record)

    async def add() -> None:
        log._add(CallRecord("GET", "/", 200, None, 0.1))
        await asyncio.sleep(0)

    async def add_and_close() -> None:
        await add()
        await log.aclose()

    log = api_log_middleware(send)
    stopped = False
    loop = asyncio.new_event_loop()
    loop.run_until_complete(add())
    stopped, first = True, log._task
    asyncio.run(add_and_close())
    assert len(reported) == 1
    assert first is not None
    first.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (["url"], {}, TypeError, "send should be a callable"),
        ([print], {"backlog": 0}, ValueError, "backlog should be a whole"),
        ([print], {"backlog": None}, TypeError, "backlog should be a whole"),
        ([print], {"redact": 1}, TypeError, "redact should be a callable"),
        ([print], {"clock": 1}, TypeError, "clock should be a callable"),
    ],
)
def test_wrong_option_of_the_api_log_is_refused_in_a_sentence(
    args: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^api_log_middleware {message}"):
        api_log_middleware(*args, **options)
