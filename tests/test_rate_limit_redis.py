"""Rate limits in a real Redis, over two processes, and when it goes away."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import limits.aio.storage
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient
from conftest import RedisServer
from live import complaints, eventually, live
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import MaxConnectionsError, RedisError
from test_rate_limit import ODD, SLACK, TIMEOUT, fields, levels

from aiohttp_middlewares import check_rate_limit, rate_limit_middleware
from aiohttp_middlewares.annotations import Middleware
from aiohttp_middlewares.rate_limit._redis import RedisCounter
from aiohttp_middlewares.rate_limit._storage import STRATEGIES

pytestmark = pytest.mark.redis

Client = TestClient[web.Request, web.Application]
SERVER = Path(__file__).with_name("rate_limit_server.py")


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_lost() -> Iterator[None]:
    with complaints() as found:
        yield
    assert found == []


@pytest.fixture(autouse=True)
def _in_the_middle_of_every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    offset = 1_700_000_000 - real()
    monkeypatch.setattr(time, "time", lambda: real() + offset)


@pytest.fixture
def uri(redis_server: RedisServer) -> str:
    return f"async+redis+unix://{redis_server.socket}"


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    redis: Redis = Redis(unix_socket_path=str(redis_server.socket))
    try:
        yield redis
    finally:
        await redis.aclose()


def by_header(request: web.Request) -> str | None:
    return request.headers.get("X-Key")


def app_of(*middlewares: Middleware) -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response()

    async def checks(request: web.Request) -> web.Response:
        await check_rate_limit(request, "5/minute;9/hour", key="a")
        return web.Response()

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", hello)
    app.router.add_get("/checks", checks)
    return app


async def asked(client: Client, key: str = "a", path: str = "/") -> Any:
    return await client.get(path, headers={"X-Key": key})


async def statuses(client: Client, *keys: str) -> list[int]:
    return [(await asked(client, key)).status for key in keys]


@contextlib.asynccontextmanager
async def commands(redis: Redis) -> AsyncIterator[list[str]]:
    """What other clients send to Redis meanwhile."""
    found: list[str] = []
    async with redis.client() as other, redis.monitor() as monitor:
        await other.ping()
        yield found
        await other.ping()
        pings = 0
        while pings < 2:
            said = await monitor.next_command()
            name = said["command"].split()[0].upper()
            pings += name == "PING"
            if said["client_type"] != "lua" and name != "PING":
                found.append(name)


# How it counts
# =============


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_redis_counts_as_memory_does(
    aiohttp_client: AiohttpClient, uri: str, strategy: Any
) -> None:
    said = []
    for storage in (uri, "async+memory://"):
        client = await aiohttp_client(
            app_of(
                rate_limit_middleware(
                    "3/minute;9/hour",
                    key=by_header,
                    storage=storage,
                    strategy=strategy,
                )
            )
        )
        found = []
        for _ in range(5):
            response = await asked(client)
            states = fields(response)[1].values()
            assert all(
                1 <= state["t"] <= state_w
                for state, state_w in zip(states, (60, 3600), strict=True)
            )
            found.append((response.status, [state["r"] for state in states]))
            if response.status == 429:
                assert 1 <= int(response.headers["Retry-After"]) <= 61
        said.append(found)
    assert said[0] == said[1]
    assert [status for status, _ in said[0]] == [200, 200, 200, 429, 429]
    assert said[0][-1][1] == [0, 6]  # the second one is not consumed


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["5/minute", "5/minute;7/hour;9/day"])
async def test_it_takes_one_command_whatever_the_number_of_limits(
    aiohttp_client: AiohttpClient,
    uri: str,
    redis: Redis,
    strategy: Any,
    text: str,
) -> None:
    client = await aiohttp_client(
        app_of(rate_limit_middleware(text, storage=uri, strategy=strategy))
    )
    await asked(client)  # connects, and hands over the script
    async with commands(redis) as found:
        await asked(client)
    assert found == ["EVALSHA"]
    async with commands(redis) as found:
        codes = await statuses(client, *"abcd")
    assert codes == [200, 200, 200, 429]
    assert found == ["EVALSHA"] * 4
    async with commands(redis) as found:  # the middleware's and its own
        await asked(client, path="/checks")
    assert found.count("EVALSHA") >= 2
    async with commands(redis) as found:
        await asked(client, path="/checks")
    assert found == ["EVALSHA"] * 2


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_scripts_that_are_not_known_are_left_alone(
    aiohttp_client: AiohttpClient,
    uri: str,
    strategy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage: Any = limits.aio.storage.RedisStorage(
        uri, implementation="redispy"
    )
    assert RedisCounter.of(storage, strategy) is not None
    for name in (
        "INCR_EXPIRE",
        "ACQUIRE_MOVING_WINDOW",
        "ACQUIRE_SLIDING_WINDOW",
    ):
        source = getattr(storage.bridge, f"SCRIPT_{name}")
        monkeypatch.setattr(
            type(storage.bridge), f"SCRIPT_{name}", b"-- new\n" + source
        )
    assert RedisCounter.of(storage, strategy) is None
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/minute;9/hour", storage=storage, strategy=strategy
            )
        )
    )
    assert await statuses(client, *"abc") == [200, 200, 429]
    response = await asked(client)
    assert [s["r"] for s in fields(response)[1].values()] == [0, 7]
    assert 1 <= int(response.headers["Retry-After"]) <= 61
    await storage.bridge.storage.aclose()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_who_waits_so_long_gets_in(
    aiohttp_client: AiohttpClient,
    uri: str,
    redis: Redis,
    strategy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time passes where it is kept: in the keys, and in the entries."""
    offset = 0.0
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset)

    async def passes(seconds: float) -> None:
        nonlocal offset
        offset += seconds
        for name in await redis.keys("*"):
            left = await redis.pttl(name) - round(seconds * 1000)
            if left > 0:
                await redis.pexpire(name, left)
            else:
                await redis.delete(name)

    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "10/minute",
                storage=uri,
                strategy=strategy,
                cost=lambda request: int(request.headers["X-Key"]),
            )
        )
    )
    waits = []
    for cost in "7343942555681":
        response = await asked(client, cost)
        if response.status == 429:
            wait = int(response.headers["Retry-After"])
            waits.append(wait)
            if wait > 2:
                await passes(wait - 2)
                assert (await asked(client, cost)).status == 429
                await passes(2)
            else:
                await passes(wait)
            assert (await asked(client, cost)).status == 200
        await passes(3)
    assert len(waits) > 3


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_keys_of_clients_are_hashed(
    aiohttp_client: AiohttpClient,
    uri: str,
    redis: Redis,
    strategy: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/minute", key=by_header, storage=uri, strategy=strategy
            )
        )
    )
    for odd in ODD:
        for status in (200, 429):
            received = await raw(
                client.server,
                b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: %b\r\n"
                b"Connection: close\r\n\r\n" % odd,
            )
            assert head(received).status == status
    names: list[Any] = await redis.keys("*")
    assert len(names) >= len(ODD)
    for name in names:
        assert name.isascii()
        assert name.decode().isprintable()
        assert len(name) < 120
    assert levels(caplog) == []


async def test_strategies_do_not_meet_in_one_key(
    aiohttp_client: AiohttpClient, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    for strategy in (*STRATEGIES, *STRATEGIES):
        client = await aiohttp_client(
            app_of(
                rate_limit_middleware(
                    "9/minute",
                    storage=uri,
                    strategy=strategy,  # type: ignore[arg-type]
                    on_storage_error="deny",
                )
            )
        )
        assert await statuses(client, "a") == [200]
    assert levels(caplog) == []


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[int]:
    """A cluster of one, which is as strict as one of many."""
    program = shutil.which("redis-server")
    assert program is not None  # as the fixture has found it
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        port, bus = one.getsockname()[1], other.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(program, "--bind", "127.0.0.1", "--port", str(port)),
        *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
        *("--save", "", "--appendonly", "no", "--dir", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    redis: Any = Redis(port=port)
    deadline = time.monotonic() + 20
    try:
        while True:
            assert time.monotonic() < deadline
            with contextlib.suppress(RedisError):
                info = await redis.cluster("INFO")
                if info["cluster_state"] == "ok":
                    break
                await redis.cluster("ADDSLOTSRANGE", 0, 16383)
            await asyncio.sleep(0.05)
        yield port
    finally:
        await redis.aclose()
        process.kill()
        await process.wait()


@pytest.mark.parametrize("scheme", ["redis+cluster", "redis"])
async def test_all_keys_of_a_request_are_in_one_place_of_a_cluster(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    tmp_path: Path,
    scheme: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with cluster(tmp_path) as port:
        for strategy in STRATEGIES:
            client = await aiohttp_client(
                app_of(
                    rate_limit_middleware(
                        "2/minute;5/hour;9/day",
                        storage=f"async+{scheme}://127.0.0.1:{port}",
                        strategy=strategy,  # type: ignore[arg-type]
                        storage_timeout=20,
                    )
                )
            )
            assert await statuses(client, *"abc") == [200, 200, 429]
            await client.close()
    assert levels(caplog) == []


# Two processes
# =============


@contextlib.asynccontextmanager
async def server(uri: str) -> AsyncIterator[str]:
    root = SERVER.parent.parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SERVER), uri, *STRATEGIES),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 30))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_two_processes_let_in_no_more_than_the_limit(uri: str) -> None:
    async with (
        server(uri) as one,
        server(uri) as other,
        ClientSession() as session,
    ):

        async def ask(number: int, path: str) -> int:
            url = f"{(one, other)[number % 2]}/{path}?key={path}"
            async with session.get(url) as response:
                return response.status

        for strategy in STRATEGIES:
            for name in ("middleware_only", "decorated", "checked"):
                found = await asyncio.gather(
                    *(ask(n, f"{strategy}/{name}") for n in range(200))
                )
                assert Counter(found) == {200: 50, 429: 150}


# When it goes away
# =================


def stop(redis_server: RedisServer) -> None:
    redis_server.stop()


def hang(redis_server: RedisServer) -> None:
    """From now on it accepts connections, and never answers."""
    assert redis_server.process is not None
    redis_server.process.send_signal(signal.SIGSTOP)


def come_back(redis_server: RedisServer) -> None:
    if redis_server.process is None:
        redis_server.start()
    else:
        redis_server.process.send_signal(signal.SIGCONT)


def counting() -> list[Any]:
    """The tasks that wait for Redis."""
    return [
        task
        for task in asyncio.all_tasks()
        if "_Attempt" in getattr(task.get_coro(), "__qualname__", "")
    ]


async def until_it_is_back(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    deadline = time.monotonic() + 20
    while levels(caplog)[-1:] != ["INFO"]:
        assert time.monotonic() < deadline
        await asked(client, "probe")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("go", [stop, hang])
@pytest.mark.parametrize(
    ("on_error", "expected"),
    [("allow", {200: 40}), ("deny", {503: 40}), ("memory", {200: 2, 429: 38})],
)
async def test_no_request_waits_longer_than_storage_timeout(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    redis: Redis,
    uri: str,
    caplog: pytest.LogCaptureFixture,
    go: Any,
    on_error: Any,
    expected: dict[int, int],
) -> None:
    caplog.set_level(logging.INFO)
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/hour",
                key=by_header,
                storage=uri,
                on_storage_error=on_error,
                storage_timeout=TIMEOUT,
            )
        )
    )
    assert await statuses(client, *"aaa") == [200, 200, 429]
    assert levels(caplog) == []
    for round_ in range(2):
        caplog.clear()
        go(redis_server)
        try:
            start = time.monotonic()
            found = await asyncio.gather(
                *(statuses(client, f"b{round_}") for _ in range(40))
            )
            taken = time.monotonic() - start
            assert Counter(code for (code,) in found) == expected
            assert taken < SLACK
            start = time.monotonic()
            for number in range(20):
                await asked(client, f"c{round_}{number}")
            assert time.monotonic() - start < SLACK
            assert levels(caplog) == ["WARNING"]
        finally:
            come_back(redis_server)
        await until_it_is_back(client, caplog)
        assert levels(caplog) == ["WARNING", "INFO"]
        # It counts again; one that was killed has forgotten all.
        assert await statuses(client, *["d"] * 3) == [200, 200, 429]
        await redis.flushall()
    await eventually(lambda: not counting())
    assert len(await redis.client_list()) <= 1 + 40


async def test_redis_that_refuses_connections_is_not_tried_for_long(
    aiohttp_client: AiohttpClient, redis_server: RedisServer, uri: str
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/hour",
                storage=uri,
                on_storage_error="deny",
                storage_timeout=60,
            )
        )
    )
    redis_server.stop()
    start = time.monotonic()
    assert await statuses(client, *"ab") == [503, 503]
    assert time.monotonic() - start < SLACK


async def test_script_and_counts_may_be_flushed(
    aiohttp_client: AiohttpClient,
    uri: str,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/hour", storage=uri, on_storage_error="deny"
            )
        )
    )
    assert await statuses(client, *"aaa") == [200, 200, 429]
    await redis.script_flush()
    assert await statuses(client, "a") == [429]
    await redis.flushall()
    assert await statuses(client, *"aaa") == [200, 200, 429]
    assert levels(caplog) == []


async def test_restart_between_two_requests_is_no_outage(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    uri: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/hour", storage=uri, on_storage_error="deny"
            )
        )
    )
    await asyncio.gather(*(statuses(client, "a") for _ in range(10)))
    redis_server.stop()
    redis_server.start()
    found = await asyncio.gather(*(statuses(client, "a") for _ in range(10)))
    assert Counter(code for (code,) in found) == {200: 2, 429: 8}
    assert levels(caplog) == []


@pytest.mark.parametrize("on_error", ["allow", "deny", "memory"])
async def test_redis_killed_in_mid_flight(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    uri: str,
    caplog: pytest.LogCaptureFixture,
    on_error: Any,
) -> None:
    caplog.set_level(logging.INFO)
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1000/hour",
                storage=uri,
                on_storage_error=on_error,
                storage_timeout=TIMEOUT,
            )
        )
    )
    await asked(client)
    hang(redis_server)  # so that the commands are on their way
    tasks = [asyncio.ensure_future(asked(client)) for _ in range(30)]
    await asyncio.sleep(TIMEOUT / 4)
    redis_server.stop()
    responses = await asyncio.gather(*tasks)
    expected = 503 if on_error == "deny" else 200
    assert {response.status for response in responses} == {expected}
    assert levels(caplog) == ["WARNING"]
    redis_server.start()
    await until_it_is_back(client, caplog)
    assert levels(caplog) == ["WARNING", "INFO"]


async def test_server_that_accepts_and_never_answers_at_all(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    over = asyncio.Event()

    async def silent(reader: Any, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/hour",
                storage=f"async+redis://127.0.0.1:{port}",
                on_storage_error="memory",
                storage_timeout=TIMEOUT,
            )
        )
    )
    start = time.monotonic()
    found = await asyncio.gather(*(statuses(client, "a") for _ in range(20)))
    assert time.monotonic() - start < SLACK
    assert Counter(code for (code,) in found) == {200: 1, 429: 19}
    assert levels(caplog) == ["WARNING"]
    over.set()
    listener.close()
    await listener.wait_closed()


# Its connections
# ===============


class EarlierPool(ConnectionPool):
    """As that of redis-py 5 and 6."""

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        pool: Any = super()
        try:
            return await pool.get_connection(*args, **options)
        except MaxConnectionsError as exc:
            raise RedisConnectionError(*exc.args) from None


class ImpatientPool(BlockingConnectionPool):
    """It waits itself, but not for as long as a request may."""

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=0.01, **options)


POOLS: Any = {
    "pool": ConnectionPool,
    "earlier": EarlierPool,
    "blocking": BlockingConnectionPool,
    "impatient": ImpatientPool,
}


@pytest.mark.parametrize("kind", ["uri", *POOLS])
async def test_pool_that_runs_dry_is_waited_for_and_is_no_outage(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    uri: str,
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    caplog.set_level(logging.INFO)
    storage: Any = f"{uri}?max_connections=2"
    pool: Any = None
    if kind != "uri":
        pool = POOLS[kind].from_url(
            f"unix://{redis_server.socket}", max_connections=2
        )
        storage = limits.aio.storage.RedisStorage(
            uri, implementation="redispy", connection_pool=pool
        )
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "50/hour",
                storage=storage,
                on_storage_error="deny",
                storage_timeout=20,
            )
        )
    )
    found = await asyncio.gather(*(statuses(client, "a") for _ in range(100)))
    assert Counter(code for (code,) in found) == {200: 50, 429: 50}
    assert levels(caplog) == []
    if pool is not None:
        # And one that somebody else has emptied.
        taken = [await pool.get_connection() for _ in range(2)]
        task = asyncio.ensure_future(asked(client, "b"))
        await asyncio.sleep(0.05)
        assert not task.done()
        for connection in taken:
            await pool.release(connection)
        assert (await task).status == 429
        assert levels(caplog) == []
        await pool.aclose()


async def test_request_that_gets_no_connection_in_time_is_no_outage_either(
    aiohttp_client: AiohttpClient,
    redis_server: RedisServer,
    uri: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool: Any = ConnectionPool.from_url(
        f"unix://{redis_server.socket}", max_connections=1
    )
    storage: Any = limits.aio.storage.RedisStorage(
        uri, implementation="redispy", connection_pool=pool
    )
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "50/hour",
                storage=storage,
                on_storage_error="deny",
                storage_timeout=TIMEOUT,
            )
        )
    )
    connection = await pool.get_connection()
    assert await statuses(client, *"ab") == [503, 503]
    await pool.release(connection)
    assert await statuses(client, *"ab") == [200, 200]
    (record,) = caplog.records
    assert "before there was a free connection" in record.getMessage()
    await pool.aclose()


async def test_cancelled_and_late_commands_leave_nobody_anothers_answer(
    uri: str, redis: Redis
) -> None:
    """Each key has a count of its own, which no other key is told."""

    async def own(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(
        middlewares=[
            rate_limit_middleware(
                lambda request: f"{request.query['limit']}/hour",
                key=lambda request: request.query["limit"],
                storage=f"{uri}?max_connections=3",
                storage_timeout=TIMEOUT,
            )
        ]
    )
    app.router.add_get("/", own)
    async with live(app) as served, ClientSession() as session:
        url = f"http://{served.host}:{served.port}/"

        async def ask(limit: int) -> int | None:
            async with session.get(url, params={"limit": limit}) as response:
                if "RateLimit" not in response.headers:
                    return None
                policies, states = fields(response)
                (name,) = states
                assert policies[name]["q"] == limit
                assert 0 <= limit - states[name]["r"] <= 200
                return int(states[name]["r"])

        for _ in range(2):
            await ask(10_000)
            await redis.client_pause(round(TIMEOUT * 1000 * 1.3), all=True)
            leave = []
            for number in range(30):
                connection = await served.connect()
                connection.send(f"GET /?limit={1000 * (number + 1)}")
                leave.append(connection)
            await asyncio.sleep(TIMEOUT / 4)
            for connection in leave[::2]:
                connection.reset()
            await asyncio.gather(*(c.answer() for c in leave[1::2]))
            for connection in leave[1::2]:
                connection.leave()
            await asyncio.sleep(TIMEOUT)
        deadline = time.monotonic() + 20
        while await ask(10_000) is None:
            assert time.monotonic() < deadline, "it is never back"
        await redis.flushall()
        left = [await ask(1000 * number) for number in range(1, 31)]
        assert left == [1000 * number - 1 for number in range(1, 31)]
        again = await asyncio.gather(
            *(ask(1000 * number) for number in range(1, 31))
        )
        for number, found in enumerate(again, 1):
            # Nothing at all, if the machine was too busy for it.
            assert found in (1000 * number - 2, None)
        assert len(await redis.client_list()) <= 1 + 3


def test_connections_of_a_uri_are_closed_with_the_loop(
    redis_server: RedisServer, uri: str
) -> None:
    """Without a word to the application, and without a warning."""
    middleware = rate_limit_middleware("9/hour", storage=uri)

    async def serve() -> int:
        async with (
            live(app_of(middleware)) as served,
            ClientSession() as session,
            session.get(f"http://{served.host}:{served.port}/") as response,
        ):
            return int(fields(response)[1]["9-per-hour"]["r"])

    async def clients() -> int:
        redis: Redis = Redis(unix_socket_path=str(redis_server.socket))
        try:
            return len(await redis.client_list())
        finally:
            await redis.aclose()

    assert asyncio.run(serve()) == 8
    assert asyncio.run(clients()) == 1
    assert asyncio.run(serve()) == 7  # in another loop
    assert asyncio.run(clients()) == 1
