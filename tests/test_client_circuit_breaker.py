"""The circuit breaker: when it opens, and how it closes again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import unused_port
from client_site import MEGABYTE, Naps, Site, drop, hang, serve, session_with

from aiohttp_middlewares.client import (
    CircuitOpenError,
    circuit_breaker_middleware,
    retry_middleware,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


async def ask(session: aiohttp.ClientSession, url: str) -> Any:
    """The status, or the exception."""
    try:
        async with session.get(url) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
        return exc


async def open_circuit(session: aiohttp.ClientSession, site: Site) -> None:
    site.answers = [503]
    for _ in range(5):
        assert await ask(session, site.url) == 503


async def test_circuit_opens_after_failures_in_a_row(
    site: Site, clock: Clock
) -> None:
    breaker = circuit_breaker_middleware(clock=clock)
    async with session_with(breaker) as session:
        await open_circuit(session, site)
        clock.now += 10
        error = await ask(session, site.url)
    assert isinstance(error, CircuitOpenError)
    assert not isinstance(error, aiohttp.ClientConnectionError)
    assert error.retry_after == 20
    assert error.origin == site.url.rstrip("/")
    assert str(error) == (
        f"{error.origin} has failed too often; try again in 20.0 seconds"
    )
    assert site.count == 5


async def test_success_in_between_begins_anew(site: Site) -> None:
    site.answers = [503, 503, 503, 503, 200, 503, 503, 503, 503, 404, 503]
    async with session_with(circuit_breaker_middleware()) as session:
        for _ in range(11):
            assert isinstance(await ask(session, site.url), int)
    assert site.count == 11


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 501])
async def test_other_statuses_are_no_failures(site: Site, status: int) -> None:
    site.answers = [status]
    async with session_with(circuit_breaker_middleware()) as session:
        for _ in range(10):
            assert await ask(session, site.url) == status


@pytest.mark.parametrize("kind", ["refused", "dropped", "read", "total"])
async def test_connections_and_timeouts_are_failures(
    site: Site, kind: str
) -> None:
    url = site.url
    if kind == "refused":
        url = f"http://127.0.0.1:{unused_port()}/"
    site.answers = [drop if kind == "dropped" else hang]
    timeout = {
        "read": aiohttp.ClientTimeout(sock_read=0.01),
        "total": aiohttp.ClientTimeout(total=0.02),
    }.get(kind, aiohttp.ClientTimeout(total=5))
    breaker = circuit_breaker_middleware(failures=4)
    async with session_with(breaker, timeout=timeout) as session:
        for _ in range(6):
            error = await ask(session, url)
    assert isinstance(error, CircuitOpenError)


async def test_cancelled_request_is_no_failure(site: Site) -> None:
    site.answers = [hang]
    breaker = circuit_breaker_middleware(failures=1)
    async with session_with(breaker) as session:
        for count in (1, 2, 3):
            task = asyncio.ensure_future(ask(session, site.url))
            await site.until(count)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        site.answers = [200]
        assert await ask(session, site.url) == 200


async def test_origins_have_circuits_of_their_own(site: Site) -> None:
    breaker = circuit_breaker_middleware(failures=1)
    async with serve() as other, session_with(breaker) as session:
        site.answers = [503]
        await ask(session, site.url)
        assert isinstance(await ask(session, site.url), CircuitOpenError)
        assert await ask(session, other.url) == 200


async def test_one_probe_closes_the_circuit(site: Site, clock: Clock) -> None:
    breaker = circuit_breaker_middleware(clock=clock)
    async with session_with(breaker) as session:
        await open_circuit(session, site)
        gate = asyncio.Event()

        async def wait(request: Any) -> Any:
            await gate.wait()
            return aiohttp.web.Response()

        site.answers = [wait, 200]
        clock.now += 30
        probe = asyncio.ensure_future(ask(session, site.url))
        await site.until(6)
        for _ in range(10):
            error = await ask(session, site.url)
            assert isinstance(error, CircuitOpenError)
            assert error.retry_after == 30
        assert site.count == 6
        gate.set()
        assert await probe == 200
        assert await ask(session, site.url) == 200


async def test_probe_that_fails_opens_the_circuit_anew(
    site: Site, clock: Clock
) -> None:
    breaker = circuit_breaker_middleware(clock=clock)
    async with session_with(breaker) as session:
        await open_circuit(session, site)
        for count in (6, 7):
            clock.now += 30
            assert await ask(session, site.url) == 503
            error = await ask(session, site.url)
            assert isinstance(error, CircuitOpenError)
            assert error.retry_after == 30
            assert site.count == count


@pytest.mark.parametrize("end", ["cancelled", "another exception"])
async def test_probe_without_an_outcome_gives_way_to_another(
    site: Site, clock: Clock, end: str
) -> None:
    async def fail(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if end == "another exception" and clock.now == 1030:
            raise aiohttp.ClientPayloadError
        return await handler(req)

    middlewares = [circuit_breaker_middleware(clock=clock), fail]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        await open_circuit(session, site)
        clock.now = 1030
        site.answers = [hang]
        with pytest.raises((asyncio.TimeoutError, aiohttp.ClientPayloadError)):
            await asyncio.wait_for(session.get(site.url), 0.02)
        site.answers, clock.now = [200], 1031
        assert await ask(session, site.url) == 200


async def test_late_failures_do_not_prolong_the_wait(
    site: Site, clock: Clock
) -> None:
    gate = asyncio.Event()

    async def fail_late(request: Any) -> Any:
        await gate.wait()
        return aiohttp.web.Response(status=503)

    breaker = circuit_breaker_middleware(failures=2, clock=clock)
    async with session_with(breaker) as session:
        site.answers = [fail_late]
        late = [asyncio.ensure_future(ask(session, site.url)) for _ in "1234"]
        await site.until(4)
        site.answers = [503]
        await ask(session, site.url)
        await ask(session, site.url)
        clock.now += 29
        gate.set()
        assert await asyncio.gather(*late) == [503] * 4
        clock.now += 1
        site.answers = [200]
        assert await ask(session, site.url) == 200


async def test_websocket_handshakes_count_and_pass(site: Site) -> None:
    async def accept(request: Any) -> Any:
        ws = aiohttp.web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close()
        return ws

    breaker = circuit_breaker_middleware(failures=2)
    async with session_with(breaker) as session:
        for answer in (503, accept, 503, 503):
            site.answers = [answer]
            try:
                async with session.ws_connect(site.url):
                    assert answer is accept
            except aiohttp.WSServerHandshakeError:
                pass
        with pytest.raises(CircuitOpenError):
            await session.ws_connect(site.url)
        with pytest.raises(CircuitOpenError):
            await session.get(site.url)


async def test_retry_outside_does_not_repeat_what_was_not_sent(
    site: Site,
) -> None:
    naps = Naps()
    site.answers = [(503, {}, MEGABYTE)]
    middlewares = [
        retry_middleware(5, sleep=naps),
        circuit_breaker_middleware(failures=3),
    ]
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(
        middlewares=middlewares, connector=connector
    ) as session:
        assert isinstance(await ask(session, site.url), CircuitOpenError)
        assert not connector._acquired
    assert site.count == 3
    assert len(naps.taken) == 3


async def test_origins_that_did_not_fail_again_are_forgotten(
    clock: Clock,
) -> None:
    breaker: Any = circuit_breaker_middleware(clock=clock)
    (circuits,) = (
        cell.cell_contents
        for cell in breaker.__closure__
        if isinstance(cell.cell_contents, dict)
    )

    async def fail(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if "good" in str(req.url):
            raise aiohttp.ClientPayloadError
        raise aiohttp.ClientConnectionError

    async with aiohttp.ClientSession(middlewares=[breaker, fail]) as session:
        for number in range(1000):
            clock.now += 1
            await ask(session, f"http://host-{number}.example/")
            await ask(session, f"http://good-{number}.example/")
    assert len(circuits) == 300


def test_breaker_is_hashable_and_serves_two_loops(clock: Clock) -> None:
    breaker = circuit_breaker_middleware(failures=2, clock=clock)
    assert hash(breaker)
    url = f"http://127.0.0.1:{unused_port()}/"

    async def main() -> Any:
        async with session_with(breaker) as session:
            await ask(session, url)
            return await ask(session, url)

    assert isinstance(asyncio.run(main()), aiohttp.ClientConnectorError)
    assert isinstance(asyncio.run(main()), CircuitOpenError)


async def test_error_shows_no_secrets(site: Site) -> None:
    site.answers = [503]
    breaker = circuit_breaker_middleware(failures=1)
    url = f"{site.url}?token=hush".replace("://", "://me:hush@")
    async with session_with(breaker) as session:
        await ask(session, url)
        error = await ask(session, url)
    assert isinstance(error, CircuitOpenError)
    assert "hush" not in f"{error} {error!r}"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"failures": 0}, ValueError, "a whole number, 1 or more"),
        ({"failures": 1.5}, TypeError, "a whole number, 1 or more"),
        ({"reset": 0}, ValueError, "a positive, finite number"),
        ({"reset": None}, TypeError, "a number of seconds"),
        ({"statuses": 500}, TypeError, "HTTP status codes"),
        ({"clock": 1}, TypeError, "a callable"),
    ],
)
def test_wrong_option_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    name = next(iter(options))
    with pytest.raises(
        error, match=f"^circuit_breaker_middleware {name} .*{message}"
    ):
        circuit_breaker_middleware(**options)
