"""The circuit breaker: when it opens, and how it closes again."""

import asyncio
import errno
import gc
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
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

from aiohttp_middlewares.client import (
    CircuitOpenError,
    RetryExhausted,
    circuit_breaker_middleware,
    retry_middleware,
)
from aiohttp_middlewares.client._errors import is_of_own_body
from aiohttp_middlewares.client._timeouts import TimeIsUp, time_limit


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
        url = f"http://127.0.0.1:{closed_port()}/"
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


class Resolver(AbstractResolver):
    """One that hangs, or knows nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        if self.kind == "hangs":
            await asyncio.sleep(30)
        raise OSError(None, "no name server")

    async def close(self) -> None:
        pass


async def be_silent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read()


@pytest.mark.parametrize("limit", ["total", "connect", "attempt", "deadline"])
@pytest.mark.parametrize("phase", ["DNS", "TLS", "answer"])
async def test_timeout_is_a_failure_whoever_set_it_and_wherever_it_strikes(
    limit: str, phase: str
) -> None:
    async def deadline(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            async with time_limit(0.05):
                return await handler(req)
        except TimeIsUp:
            raise aiohttp.ServerTimeoutError from None

    outside: dict[str, list[aiohttp.ClientMiddlewareType]] = {
        "attempt": [retry_middleware(1, attempt_timeout=0.05)],
        "deadline": [deadline],
    }
    timeout = {
        "total": aiohttp.ClientTimeout(total=0.05),
        "connect": aiohttp.ClientTimeout(connect=0.05, sock_read=0.05),
    }.get(limit, aiohttp.ClientTimeout(total=10))
    async with (
        raw_server(be_silent) as port,
        aiohttp.ClientSession(
            middlewares=[
                *outside.get(limit, ()),
                circuit_breaker_middleware(failures=3),
            ],
            timeout=timeout,
            connector=aiohttp.TCPConnector(resolver=Resolver("hangs")),
        ) as session,
    ):
        url = {
            "DNS": "http://a.example/",
            "TLS": f"https://127.0.0.1:{port}/",
            "answer": f"http://127.0.0.1:{port}/",
        }[phase]
        for _ in range(3):
            error = await ask(session, url)
            assert isinstance(error, asyncio.TimeoutError)
        assert isinstance(await ask(session, url), CircuitOpenError)


async def test_attempts_that_are_cut_open_the_circuit(site: Site) -> None:
    site.answers = [hang]
    middlewares = [
        retry_middleware(attempt_timeout=0.05, sleep=Naps()),
        circuit_breaker_middleware(failures=3),
    ]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        for _ in range(4):
            error = await ask(session, site.url)
    assert isinstance(error, CircuitOpenError)
    assert site.count == 3


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
async def test_caller_who_gives_up_is_no_failure(site: Site, how: str) -> None:
    site.answers = [hang]
    breaker = circuit_breaker_middleware(failures=1)
    async with session_with(breaker) as session:
        for count in (1, 2, 3):
            task = asyncio.ensure_future(ask(session, site.url))
            if how == "cancel":
                await site.until(count)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(task, 0.05)
        site.answers = [200]
        assert await ask(session, site.url) == 200


# What is no failure of the origin
# ================================


@pytest.mark.parametrize("retries", [True, False])
async def test_connections_that_were_closed_while_idle_are_no_failures(
    retries: bool,
) -> None:
    """Eight of the pool at once, and each new connection works."""
    live: set[asyncio.StreamWriter] = set()
    stale: set[asyncio.StreamWriter] = set()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        live.add(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            if writer in stale:
                writer.transport.abort()
                return
            await asyncio.sleep(0.05)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    middlewares = [circuit_breaker_middleware(failures=1)]
    if retries:
        middlewares.insert(0, retry_middleware(sleep=Naps()))
    async with (
        raw_server(answer) as port,
        aiohttp.ClientSession(middlewares=middlewares) as session,
    ):
        url = f"http://127.0.0.1:{port}/"
        for _ in range(2):
            found = await asyncio.gather(*(ask(session, url) for _ in range(8)))
            assert found == [200] * 8
            stale.update(live)
        # Nobody repeats these, and still they say nothing of the origin.
        for _ in range(3):
            with pytest.raises(aiohttp.ClientConnectionError) as caught:
                await session.post(url)
            assert not isinstance(caught.value, CircuitOpenError)


async def test_new_connection_that_breaks_after_a_stale_one_is_a_failure(
    site: Site,
) -> None:
    middlewares = [
        circuit_breaker_middleware(failures=1),
        retry_middleware(2, sleep=Naps()),
    ]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        assert await ask(session, site.url) == 200
        site.answers = [drop]
        assert isinstance(await ask(session, site.url), RetryExhausted)
        assert isinstance(await ask(session, site.url), CircuitOpenError)


@pytest.mark.parametrize(
    "timeout",
    [
        aiohttp.ClientTimeout(connect=0.05),
        aiohttp.ClientTimeout(total=0.05),
    ],
)
async def test_wait_for_the_own_pool_is_no_failure(
    site: Site, timeout: aiohttp.ClientTimeout
) -> None:
    gate = asyncio.Event()

    async def download(request: Any) -> Any:
        await gate.wait()
        return aiohttp.web.Response()

    site.answers = [download, 200]
    breaker = circuit_breaker_middleware(failures=1)
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(breaker, connector=connector) as session:
        long = asyncio.ensure_future(ask(session, site.url))
        await site.until(1)
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await session.get(site.url, timeout=timeout)
        gate.set()
        assert await long == 200
        assert await ask(session, site.url) == 200


@pytest.mark.parametrize("kind", ["dead", "hangs", "refuses"])
async def test_proxy_that_fails_is_no_failure_of_the_origin(
    site: Site, kind: str
) -> None:
    async def refuse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if kind == "hangs":
            await reader.read()
        writer.write(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    breaker = circuit_breaker_middleware(failures=1)
    timeout = aiohttp.ClientTimeout(total=0.1)
    async with raw_server(refuse) as port, session_with(breaker) as session:
        if kind == "dead":
            port = closed_port()
        url = site.url.replace("http:", "https:")
        for _ in range(3):
            with pytest.raises(
                (
                    aiohttp.ClientHttpProxyError,
                    aiohttp.ClientProxyConnectionError,
                    asyncio.TimeoutError,
                )
            ):
                await session.get(
                    url, proxy=f"http://127.0.0.1:{port}", timeout=timeout
                )


@pytest.mark.parametrize(
    ("tunnel", "end", "limit"),
    [
        ("asked for", "breaks", "total"),
        ("asked for", "hangs", "connect"),
        ("asked for", "hangs", "total"),
        ("made", "breaks", "total"),
        ("made", "hangs", "connect"),
        ("made", "hangs", "sock_connect"),
        ("made", "hangs", "total"),
    ],
)
async def test_tunnel_that_ends_is_no_failure_of_the_origin(
    site: Site, tunnel: str, end: str, limit: str
) -> None:
    async def talk(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if tunnel == "made":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.drain()
        if end == "hangs":
            await reader.read(1)
            await asyncio.sleep(30)

    breaker = circuit_breaker_middleware(failures=1)
    seconds = 0.05 if end == "hangs" else 5.0
    timeout = aiohttp.ClientTimeout(**{limit: seconds})
    url = site.url.replace("http:", "https:")
    async with raw_server(talk) as port, session_with(breaker) as session:
        for _ in range(2):
            with pytest.raises(
                (aiohttp.ClientConnectionError, asyncio.TimeoutError)
            ):
                await session.get(
                    url, proxy=f"http://127.0.0.1:{port}", timeout=timeout
                )


async def test_body_that_cannot_be_read_is_no_failure_of_the_origin(
    site: Site,
) -> None:
    site.answers = [hang]
    breaker = circuit_breaker_middleware(failures=1)
    async with session_with(breaker) as session:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.post(site.url, data=raises())
            with (
                Unreadable(__file__) as file,
                pytest.raises(aiohttp.ClientOSError),
            ):
                await session.post(site.url, data=file)
        site.answers = [200]
        assert await ask(session, site.url) == 200


async def test_connection_that_breaks_under_a_body_is_a_failure() -> None:
    async def leave(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(1)
        writer.transport.abort()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield MEGABYTE

    breaker = circuit_breaker_middleware(failures=1)
    async with raw_server(leave) as port, session_with(breaker) as session:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(url, data=endless())
        assert isinstance(await ask(session, url), CircuitOpenError)


@pytest.mark.parametrize(
    ("number", "text", "wire"),
    [
        # aiohttp repeats the words of what a transport ended with.
        (
            errno.EHOSTUNREACH,
            "No route to host",
            OSError(errno.EHOSTUNREACH, "No route to host"),
        ),
        # They are its own where writing has met the end.
        (None, "Can not write", ConnectionResetError("Connection lost")),
        (None, "Can not write", aiohttp.ClientOSError(errno.EIO, "lost")),
        (None, "Can not write", asyncio.TimeoutError()),
    ],
)
def test_what_a_transport_ends_with_is_told_from_a_body(
    number: int | None, text: str, wire: Exception
) -> None:
    error = aiohttp.ClientOSError(number, text)
    error.__cause__ = wire
    assert not is_of_own_body(error)


async def test_resolver_that_fails_is_no_failure_of_the_origin() -> None:
    breaker = circuit_breaker_middleware(failures=1)
    connector = aiohttp.TCPConnector(resolver=Resolver("fails"))
    async with session_with(breaker, connector=connector) as session:
        for _ in range(3):
            error = await ask(session, "http://a.example/")
            assert isinstance(error, aiohttp.ClientConnectorDNSError)


@pytest.mark.parametrize(
    ("number", "counts"),
    [
        (errno.EMFILE, False),
        (errno.EADDRNOTAVAIL, False),
        (errno.ENETUNREACH, False),
        (errno.EHOSTUNREACH, True),
        (errno.ETIMEDOUT, True),
    ],
)
async def test_what_this_machine_lacks_is_no_failure_of_the_origin(
    number: int, counts: bool
) -> None:
    def fail(info: Any) -> socket.socket:
        raise OSError(number, "no")

    breaker = circuit_breaker_middleware(failures=1)
    connector = aiohttp.TCPConnector(socket_factory=fail)
    async with session_with(breaker, connector=connector) as session:
        error = await ask(session, "http://127.0.0.1:9/")
        assert isinstance(error, aiohttp.ClientConnectorError)
        error = await ask(session, "http://127.0.0.1:9/")
        assert isinstance(error, CircuitOpenError) is counts


async def test_connector_that_was_closed_is_no_failure_of_the_origin(
    site: Site,
) -> None:
    breaker = circuit_breaker_middleware(failures=1)
    gate = asyncio.Event()

    async def wait(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await gate.wait()
        return await handler(req)

    session = aiohttp.ClientSession(middlewares=[breaker, wait])
    task = asyncio.ensure_future(session.get(site.url))
    await asyncio.sleep(0)
    connector = session.connector
    assert connector is not None
    await connector.close()
    gate.set()
    with pytest.raises(aiohttp.ClientConnectionError):
        await task
    await session.close()
    async with session_with(breaker) as session:
        assert await ask(session, site.url) == 200


async def test_timeout_of_a_middleware_that_sent_nothing_is_no_failure(
    site: Site,
) -> None:
    times = iter([1, 1, 1])

    async def wait(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if next(times, 0):
            raise asyncio.TimeoutError
        return await handler(req)

    breaker = circuit_breaker_middleware(failures=1)
    async with aiohttp.ClientSession(middlewares=[breaker, wait]) as session:
        for _ in range(3):
            assert isinstance(
                await ask(session, site.url), asyncio.TimeoutError
            )
        assert await ask(session, site.url) == 200


async def test_every_broken_connection_counts_where_aiohttp_does_not_tell(
    site: Site,
) -> None:
    async def hide(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        req._traces = ()  # type: ignore[assignment]
        return await handler(req)

    breaker = circuit_breaker_middleware(failures=1)
    async with aiohttp.ClientSession(middlewares=[hide, breaker]) as session:
        assert await ask(session, site.url) == 200
        site.answers = [drop]
        with pytest.raises(CircuitOpenError):
            await session.get(site.url)  # aiohttp tries twice


# What is one failure
# ===================


class Gates:
    """Requests that fail when they are told to."""

    def __init__(self) -> None:
        self.open: list[asyncio.Event] = []

    async def __call__(self, request: Any) -> Any:
        self.open.append(gate := asyncio.Event())
        await gate.wait()
        return aiohttp.web.Response(status=503)


@pytest.mark.parametrize(
    ("begin", "end", "opens"),
    [
        pytest.param(0, 0, False, id="together"),
        pytest.param(0, 1, False, id="begun together"),
        pytest.param(1, 0, False, id="cut together"),
        pytest.param(1, 1, True, id="apart"),
    ],
)
async def test_failures_of_one_event_are_one(
    site: Site, clock: Clock, begin: float, end: float, opens: bool
) -> None:
    gates = Gates()
    site.answers = [gates]
    breaker = circuit_breaker_middleware(failures=3, clock=clock)
    async with session_with(breaker) as session:
        tasks = []
        for count in range(1, 9):
            tasks.append(asyncio.ensure_future(ask(session, site.url)))
            await site.until(count)
            clock.now += begin
        for gate, task in zip(gates.open, tasks, strict=True):
            gate.set()
            assert await task == 503
            clock.now += end
        site.answers = [200]
        error = await ask(session, site.url)
        assert isinstance(error, CircuitOpenError) is opens


async def test_success_begins_anew_for_what_is_under_way(
    site: Site, clock: Clock
) -> None:
    gates = Gates()
    breaker = circuit_breaker_middleware(failures=2, clock=clock)
    async with session_with(breaker) as session:
        site.answers = [gates]
        late = asyncio.ensure_future(ask(session, site.url))
        await site.until(1)
        site.answers = [503, 200, 503]
        assert await ask(session, site.url) == 503
        assert await ask(session, site.url) == 200
        gates.open[0].set()
        assert await late == 503
        clock.now += 1
        assert await ask(session, site.url) == 503
        assert isinstance(await ask(session, site.url), CircuitOpenError)


async def test_success_of_before_does_not_close_the_circuit(
    site: Site, clock: Clock
) -> None:
    gate = asyncio.Event()

    async def succeed_late(request: Any) -> Any:
        await gate.wait()
        return aiohttp.web.Response()

    breaker = circuit_breaker_middleware(failures=3, clock=clock)
    async with session_with(breaker) as session:
        site.answers = [succeed_late]
        late = asyncio.ensure_future(ask(session, site.url))
        await site.until(1)
        site.answers = [503]
        for _ in range(3):
            await ask(session, site.url)
        gate.set()
        assert await late == 200
        assert isinstance(await ask(session, site.url), CircuitOpenError)
    assert site.count == 4


async def test_failure_of_before_says_nothing_once_the_circuit_has_closed(
    site: Site, clock: Clock
) -> None:
    gates = Gates()
    breaker = circuit_breaker_middleware(failures=2, clock=clock)
    async with session_with(breaker) as session:
        site.answers = [gates]
        late = []
        for count in (1, 2, 3):
            late.append(asyncio.ensure_future(ask(session, site.url)))
            await site.until(count)
            clock.now += 1
        site.answers = [503, 503, 200]
        await ask(session, site.url)
        await ask(session, site.url)
        clock.now += 30
        assert await ask(session, site.url) == 200
        for gate, task in zip(gates.open, late, strict=True):
            gate.set()
            assert await task == 503
            clock.now += 1
        assert await ask(session, site.url) == 200


# Origins and probes
# ==================


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
        for left in range(30, 20, -1):
            error = await ask(session, site.url)
            assert isinstance(error, CircuitOpenError)
            assert error.retry_after == left
            clock.now += 1
        assert site.count == 6
        gate.set()
        assert await probe == 200
        assert await ask(session, site.url) == 200


async def test_what_a_probe_sends_itself_is_a_part_of_it(
    site: Site, clock: Clock
) -> None:
    """Such as a token of the same origin; and a task that outlives it not."""
    later = asyncio.Event()
    tasks = []

    async def fetch_token(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        async def work() -> Any:
            await later.wait()
            return await ask(session, site.url)

        if not req.url.query:
            tasks.append(asyncio.ensure_future(work()))
            assert await ask(session, f"{site.url}?token") == 200
        return await handler(req)

    breaker = circuit_breaker_middleware(clock=clock)
    async with session_with(breaker) as session:
        await open_circuit(session, site)
        clock.now += 30
        site.answers = [200, 503]
        async with session.get(
            site.url, middlewares=[breaker, fetch_token]
        ) as response:
            assert response.status == 503
        later.set()
        assert isinstance(await tasks[0], CircuitOpenError)


async def test_circuit_of_a_breaker_that_is_listed_twice_closes(
    site: Site, clock: Clock
) -> None:
    breaker = circuit_breaker_middleware(clock=clock)
    async with aiohttp.ClientSession(middlewares=[breaker, breaker]) as session:
        await open_circuit(session, site)
        assert isinstance(await ask(session, site.url), CircuitOpenError)
        clock.now += 30
        site.answers = [200]
        for _ in range(2):
            assert await ask(session, site.url) == 200
    assert site.count == 7


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


@pytest.mark.parametrize(
    ("options", "wait"), [({}, 30), ({"probe_timeout": 3}, 3)]
)
@pytest.mark.parametrize("end", ["succeeds", "fails", "is cancelled"])
async def test_probe_that_hangs_gives_way_to_another(
    site: Site, clock: Clock, options: dict[str, Any], wait: float, end: str
) -> None:
    gate = asyncio.Event()

    async def answer(request: Any) -> Any:
        await gate.wait()
        return aiohttp.web.Response(status=200 if end == "succeeds" else 503)

    breaker = circuit_breaker_middleware(clock=clock, **options)
    async with session_with(breaker) as session:
        await open_circuit(session, site)
        clock.now += 30
        site.answers = [answer]
        probe = asyncio.ensure_future(ask(session, site.url))
        await site.until(6)
        clock.now += wait - 0.5
        error = await ask(session, site.url)
        assert isinstance(error, CircuitOpenError)
        assert error.retry_after == 0.5
        clock.now += 0.5
        site.answers = [hang, 200]
        second = asyncio.ensure_future(ask(session, site.url))
        await site.until(7)
        # The first is no probe any more; but it was sent, and may tell that
        # the origin is back.
        if end == "is cancelled":
            probe.cancel()
            await asyncio.wait([probe])
        else:
            gate.set()
            await probe
        outcome = await ask(session, site.url)
        second.cancel()
        await asyncio.wait([second])
    if end == "succeeds":
        assert outcome == 200
    else:
        assert isinstance(outcome, CircuitOpenError)
        assert outcome.retry_after == wait


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
        error = await ask(session, site.url)
        assert isinstance(error, CircuitOpenError)
        assert isinstance(error.__cause__, aiohttp.ClientResponseError)
        assert error.__cause__.status == 503
        assert not connector._acquired
    assert site.count == 3
    assert len(naps.taken) == 3


@pytest.mark.parametrize("failures", [2, 3])
async def test_origin_that_has_not_failed_for_long_begins_anew(
    site: Site, clock: Clock, failures: int
) -> None:
    site.answers = [503]
    breaker = circuit_breaker_middleware(failures=failures, clock=clock)
    async with session_with(breaker) as session:
        for _ in range(2):
            for _ in range(2):
                assert await ask(session, site.url) == 503
            clock.now += 300
        assert await ask(session, site.url) == 503
        clock.now += 299
        assert await ask(session, site.url) == 503
        assert isinstance(await ask(session, site.url), int) is (failures == 3)


async def test_origins_that_did_not_fail_again_are_forgotten(
    clock: Clock,
) -> None:
    breaker: Any = circuit_breaker_middleware(clock=clock)
    (circuits,) = (
        cell.cell_contents
        for cell in breaker.__closure__
        if isinstance(cell.cell_contents, Mapping)
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
    gc.collect()
    assert len(circuits) == 300


async def test_response_is_closed_when_the_clock_raises(site: Site) -> None:
    times = iter([1.0])
    site.answers = [(503, {}, MEGABYTE)]
    breaker = circuit_breaker_middleware(clock=times.__next__)
    connector = aiohttp.TCPConnector(limit=1)
    async with session_with(breaker, connector=connector) as session:
        with pytest.raises(RuntimeError):  # the StopIteration of a coroutine
            await session.get(site.url)
        assert not connector._acquired


def test_breaker_is_hashable_and_serves_two_loops(clock: Clock) -> None:
    breaker = circuit_breaker_middleware(failures=2, clock=clock)
    assert hash(breaker)
    url = f"http://127.0.0.1:{closed_port()}/"

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
        ({"probe_timeout": 0}, ValueError, "a positive, finite number"),
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
