"""Answers in a real Redis: many processes, and a Redis that goes away."""

import asyncio
import json
import logging
import random
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis as sync_redis
from aiohttp import ClientConnectionError, ClientSession, web
from conftest import RedisServer
from hypothesis import given
from hypothesis import strategies as st
from live import Live, complaints, eventually, live, soon
from redis.asyncio import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError

from aiohttp_middlewares import RedisStore, idempotency_middleware
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.idempotency._answer import Answer
from aiohttp_middlewares.idempotency._redis import _packed, _unpacked
from aiohttp_middlewares.idempotency._store import Found

pytestmark = pytest.mark.redis

TESTS = Path(__file__).parent
LOGGER = "aiohttp_middlewares.idempotency"


@pytest.fixture(autouse=True)
def _nothing_is_lost() -> Iterator[None]:
    """No test leaves an exception that asyncio complains of."""
    with complaints() as found:
        yield
    assert found == []


def client_of(server: RedisServer, **options: Any) -> Redis:
    return Redis(
        unix_socket_path=str(server.socket),
        retry=Retry(NoBackoff(), 1),
        **options,
    )


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """For the tests to look inside."""
    redis = client_of(redis_server)
    try:
        yield redis
    finally:
        await redis.aclose()


class Machine:
    """An application with a client and a store of its own."""

    def __init__(self, redis: Redis, **options: Any) -> None:
        self.redis = redis
        ttl = options.pop("ttl", 86400)
        self.store = RedisStore(redis, **options)
        self.calls = 0
        self.going, self.go_on = asyncio.Event(), asyncio.Event()
        self.handler: Handler = self.hello
        self.app = web.Application(
            middlewares=[idempotency_middleware(store=self.store, ttl=ttl)]
        )
        self.app.router.add_post("/{path:.*}", self.handle)
        self.session: ClientSession
        self.server: Live

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.going.set()
        if request.path == "/slow":
            await self.go_on.wait()
        return await self.handler(request)

    async def hello(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"answer {self.calls}")

    async def ask(
        self, path: str = "/", key: str = "a", body: bytes = b""
    ) -> tuple[int, str, bool]:
        """Its status, its body, and whether it was given before."""
        async with self.session.post(
            f"http://{self.server.host}:{self.server.port}{path}",
            headers={"Idempotency-Key": key},
            data=body,
        ) as response:
            if response.status in (409, 422, 503):
                assert response.headers["Cache-Control"] == "no-store"
            replayed = "Idempotent-Replayed" in response.headers
            return response.status, await response.text(), replayed

    async def idle(self) -> None:
        """Nothing is on the way to Redis, and nothing to be renewed."""
        store = self.store
        await eventually(lambda: not store._tasks and not store._runs)


FIRST = (200, "answer 1", False)
AGAIN = (200, "answer 1", True)


@pytest.fixture
async def machines(
    redis_server: RedisServer,
) -> AsyncIterator[Callable[..., Any]]:
    """Make machines, which are stopped in the end."""
    ends: list[Callable[[], Any]] = []

    async def make(
        redis: Redis | None = None,
        *,
        handler_cancellation: bool = True,
        **options: Any,
    ) -> Machine:
        machine = Machine(redis or client_of(redis_server), **options)
        serving = live(machine.app, handler_cancellation=handler_cancellation)
        machine.server = await serving.__aenter__()
        machine.session = ClientSession()
        ends.append(machine.redis.aclose)
        ends.append(lambda: serving.__aexit__(None, None, None))
        ends.append(machine.session.close)
        return machine

    yield make
    for end in reversed(ends):
        await end()


@contextmanager
def hanging(server: RedisServer) -> Iterator[None]:
    """It takes connections, and says nothing."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def names(redis: Redis) -> list[str]:
    return sorted(name.decode() for name in await redis.keys())  # type: ignore[union-attr]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == LOGGER
    ]


# What it does
# ============


async def test_machines_share_answers(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(), await machines()
    assert await one.ask(body=b"x") == FIRST
    assert await other.ask(body=b"x") == AGAIN
    assert await one.ask(body=b"x") == AGAIN
    assert (await other.ask(body=b"y"))[0] == 422
    assert (one.calls, other.calls) == (1, 0)
    (key,) = await names(redis)
    assert re.fullmatch(r"idempotency:[0-9a-f]{64}", key)
    assert 86_390_000 < await redis.pttl(key) <= 86_400_000
    await one.idle()
    await other.idle()


async def test_request_that_comes_meanwhile_elsewhere_waits(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(), await machines()
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    assert (await other.ask("/slow"))[0] == 409
    assert (await one.ask("/slow"))[0] == 409
    assert (await other.ask("/slow", body=b"x"))[0] == 422
    (key,) = await redis.keys()
    assert 29_000 < await redis.pttl(key) <= 30_000
    one.go_on.set()
    assert await first == FIRST
    assert await other.ask("/slow") == AGAIN
    await one.idle()


async def test_failure_frees_the_key_everywhere(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(), await machines()

    async def fails(request: web.Request) -> web.StreamResponse:
        raise web.HTTPBadGateway

    one.handler = fails
    assert (await one.ask())[0] == 502
    assert await redis.keys() == []
    assert await other.ask(body=b"x") == FIRST
    await one.idle()


async def test_what_cannot_be_kept_is_done_everywhere(
    machines: Callable[..., Any],
) -> None:
    one, other = await machines(), await machines()

    async def streams(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"stream")
        return response

    one.handler = streams
    assert await one.ask() == (200, "stream", False)
    assert (await other.ask())[0] == 409
    assert (await one.ask())[0] == 409
    assert (one.calls, other.calls) == (1, 0)


async def test_bytes_headers_and_exceptions_survive(
    machines: Callable[..., Any],
) -> None:
    one, other = await machines(), await machines()

    async def odd(request: web.Request) -> web.StreamResponse:
        raise web.HTTPGone(
            body=None,
            text="ä\n\0",
            headers=[("X", "é"), ("X", "ß")],
            reason="Weg",
        )

    one.handler = odd
    shown = []
    for machine in (one, other):
        async with machine.session.post(
            f"http://{machine.server.host}:{machine.server.port}/",
            headers={"Idempotency-Key": "a"},
        ) as response:
            shown.append(
                (
                    response.status,
                    response.reason,
                    response.headers.getall("X"),
                    await response.read(),
                )
            )
    assert shown == [(410, "Weg", ["é", "ß"], "ä\n\0".encode())] * 2
    assert other.calls == 0


async def test_answer_that_nobody_can_send_locks_nothing(
    machines: Callable[..., Any],
) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        value: Any = b"no text"
        return web.Response(headers={"X": value})

    one, other = await machines(), await machines()
    one.handler = odd
    with suppress(ClientConnectionError):  # or it is answered 500
        await one.ask()
    assert not one.store._runs
    status, text, _ = await other.ask()
    assert (status, "cannot be given again" in text) == (409, True)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_client_that_decodes_works_as_well(
    machines: Callable[..., Any], redis_server: RedisServer, protocol: int
) -> None:
    one = await machines(
        client_of(redis_server, decode_responses=True, protocol=protocol)
    )
    other = await machines()
    assert await one.ask(key="a") == FIRST
    assert await one.ask(key="a") == AGAIN
    assert await other.ask(key="a") == AGAIN


async def test_prefixes_keep_stores_apart(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(prefix="one:"), await machines(prefix="")
    assert await one.ask() == FIRST
    assert await other.ask() == FIRST
    without, with_prefix = await names(redis)
    assert re.fullmatch("[0-9a-f]{64}", without)
    assert re.fullmatch("one:[0-9a-f]{64}", with_prefix)


async def test_nothing_that_a_client_sends_is_in_a_key(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    for key in ('"a\\"b"', "*", "x" * 255, "{a}"):
        assert (await one.ask(key=key))[0] == 200
    for name in await names(redis):
        assert re.fullmatch("idempotency:[0-9a-f]{64}", name)


async def test_first_request_takes_two_calls_and_the_next_takes_one(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    await one.ask(key="scripts-are-known")

    async def calls() -> int:
        stats = await redis.info("commandstats")
        assert "cmdstat_eval" not in stats
        return int(stats["cmdstat_evalsha"]["calls"])

    before = await calls()
    await one.ask()
    assert await calls() - before == 2
    await one.ask()
    assert await calls() - before == 3


async def test_scripts_that_redis_forgets_are_sent_again(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    for number in (1, 2, 3):
        await redis.script_flush()
        assert await one.ask(key=str(number)) == (
            200,
            f"answer {number}",
            False,
        )


class EarlierPool(ConnectionPool):
    """As that of redis-py 5 and 6."""

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        pool: Any = super()
        try:
            return await pool.get_connection(*args, **options)
        except MaxConnectionsError as exc:
            raise sync_redis.ConnectionError(*exc.args) from None


class ImpatientPool(BlockingConnectionPool):
    """It waits itself, but not for as long as a request may."""

    def __init__(self, **options: Any) -> None:
        super().__init__(timeout=0.01, **options)


@pytest.mark.parametrize("kind", [ConnectionPool, EarlierPool, ImpatientPool])
async def test_pool_that_runs_dry_is_waited_for(
    machines: Callable[..., Any],
    redis_server: RedisServer,
    kind: type[ConnectionPool],
) -> None:
    pool: Any = kind(
        connection_class=UnixDomainSocketConnection,
        path=str(redis_server.socket),
        max_connections=2,
    )
    one = await machines(Redis.from_pool(pool))
    got = await asyncio.gather(*(one.ask(key=str(n)) for n in range(40)))
    assert {status for status, _, _ in got} == {200}
    assert one.calls == 40
    # And one that somebody else has emptied.
    taken = [await pool.get_connection() for _ in range(2)]
    task = asyncio.create_task(one.ask(key="last"))
    await asyncio.sleep(0.05)
    assert not task.done()
    for connection in taken:
        await pool.release(connection)
    assert (await task)[0] == 200


# Locks
# =====


async def test_lock_is_renewed_while_the_handler_runs(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(), await machines()
    one.store.lock_ttl = 0.3
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert (await other.ask("/slow"))[0] == 409
    one.go_on.set()
    assert await first == FIRST
    await one.idle()
    (key,) = await redis.keys()
    assert await redis.pttl(key) > 10**6


async def test_renewal_on_its_way_does_not_lock_again_what_is_free(
    machines: Callable[..., Any],
    redis: Redis,
    redis_server: RedisServer,
) -> None:
    one = await machines()
    one.store.lock_ttl = 0.15

    async def fails(request: web.Request) -> web.StreamResponse:
        raise web.HTTPBadGateway

    one.handler = fails
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    with hanging(redis_server):
        await eventually(lambda: one.store._tasks)  # a renewal
        one.go_on.set()
        await asyncio.sleep(0.05)
    assert (await first)[0] == 502
    for _ in range(5):  # as long as some renewals would take
        assert await redis.keys() == []
        await asyncio.sleep(0.02)
    await one.idle()


async def fails_with_500(request: web.Request) -> web.StreamResponse:
    raise web.HTTPInternalServerError


async def lose_the_lock(
    one: Machine, other: Machine, redis: Redis
) -> tuple[asyncio.Task[Any], asyncio.Task[Any]]:
    """Both work on the same, as the lock of the one has lapsed."""
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    await redis.flushall()
    second = asyncio.create_task(other.ask("/slow"))
    await soon(other.going.wait())
    return first, second


async def test_lock_is_released_only_by_its_owner(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other, third = await machines(), await machines(), await machines()
    first, second = await lose_the_lock(one, other, redis)
    (key,) = await redis.keys()
    lock = await redis.get(key)
    one.handler = fails_with_500
    one.go_on.set()
    assert (await first)[0] == 500
    assert await redis.get(key) == lock
    assert (await third.ask("/slow"))[0] == 409
    other.go_on.set()
    assert await second == FIRST
    assert await third.ask("/slow") == AGAIN
    await one.idle()


def quick(text: str, way: str = "returned") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if way == "raised":
            raise web.HTTPGone(text=text)
        return web.Response(text=text)

    return handler


@pytest.mark.parametrize("way", ["returned", "raised"])
@pytest.mark.parametrize("quicker", ["one", "other"])
async def test_of_two_runs_only_the_first_is_reported_as_such(
    machines: Callable[..., Any],
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    quicker: str,
    way: str,
) -> None:
    one, other, third = await machines(), await machines(), await machines()
    one.handler, other.handler = quick("one", way), quick("other", way)
    first, second = await lose_the_lock(one, other, redis)
    if quicker == "other":
        one, other = other, one
        first, second = second, first
    status = 200 if way == "returned" else 410
    one.go_on.set()
    assert await first == (status, quicker, False)
    assert warnings(caplog) == []
    assert await third.ask("/slow") == (status, quicker, True)
    other.go_on.set()
    assert await second == (status, quicker, True)
    (text,) = warnings(caplog)
    assert text.startswith("POST /slow was handled more than once")
    assert await third.ask("/slow") == (status, quicker, True)
    assert (one.calls, other.calls, third.calls) == (1, 1, 0)
    await one.idle()
    await other.idle()


async def test_second_run_that_has_begun_to_answer_goes_on(
    machines: Callable[..., Any],
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = await machines(), await machines()

    async def streams(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"stream")
        return response

    other.handler = streams
    first, second = await lose_the_lock(one, other, redis)
    one.go_on.set()
    assert await first == FIRST
    other.go_on.set()
    assert await second == (200, "stream", False)
    assert len(warnings(caplog)) == 1
    assert await other.ask("/slow") == AGAIN


@pytest.mark.parametrize("way", ["returned", "raised"])
async def test_other_request_that_took_the_lock_keeps_it(
    machines: Callable[..., Any],
    redis: Redis,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    one, other = await machines(), await machines()
    one.handler = quick("one", way)
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    await redis.flushall()
    second = asyncio.create_task(other.ask("/slow", body=b"x"))
    await soon(other.going.wait())
    one.go_on.set()
    # Its own answer, as the lock is that of a request of another kind.
    status = 200 if way == "returned" else 410
    assert await first == (status, "one", False)
    assert len(warnings(caplog)) == 1
    other.go_on.set()
    assert await second == FIRST
    assert (await one.ask("/slow"))[0] == 422
    assert await one.ask("/slow", body=b"x") == AGAIN


async def test_lock_that_is_lost_is_not_taken_from_another(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    one.store.lock_ttl = 0.15
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    (key,) = await redis.keys()
    await redis.set(key, "another's", px=10_000)
    await asyncio.sleep(0.3)
    assert await redis.get(key) == b"another's"
    one.go_on.set()
    assert await first == FIRST
    assert await redis.get(key) == b"another's"
    await one.idle()


# Redis that goes away
# ====================


async def test_without_redis_nothing_runs(
    machines: Callable[..., Any],
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = await machines()
    assert await one.ask() == FIRST
    redis_server.stop()
    for key in ("a", "b"):
        status, text, _ = await one.ask(key=key)
        assert status == 503
        assert "please try again" in text
    assert one.calls == 1
    assert warnings(caplog) == []
    redis_server.start()
    assert await one.ask(key="b") == (200, "answer 2", False)
    await one.idle()


async def test_redis_that_hangs_is_waited_for_no_longer_than_the_timeout(
    machines: Callable[..., Any], redis_server: RedisServer, redis: Redis
) -> None:
    one = await machines(timeout=0.2)
    assert await one.ask() == FIRST
    loop = asyncio.get_running_loop()
    with hanging(redis_server):
        began = loop.time()
        got = [
            await one.ask(key="0"),
            *await asyncio.gather(*(one.ask(key=str(n)) for n in range(20))),
        ]
        assert loop.time() - began < 5
        assert {status for status, _, _ in got} == {503}
        await eventually(lambda: not one.store._tasks)
    assert one.calls == 1
    # What came too late has locked nothing for longer than the outage.
    assert (await one.ask(key="back"))[0] == 200
    await eventually(lambda: not one.store._tasks)
    for number in range(20):
        assert (await one.ask(key=str(number)))[0] == 200
    assert one.calls == 22
    await one.idle()


async def test_value_of_another_kind_is_an_outage(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    await one.ask()
    (key,) = await redis.keys()
    await redis.delete(key)
    await redis.lpush(key, "x")
    assert (await one.ask())[0] == 503
    assert one.calls == 1


async def test_record_that_nobody_can_read_is_done(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    await one.ask()
    (key,) = await redis.keys()
    value: Any = await redis.get(key)
    for record in (b"{}", b"[]", b"x", b"\xff", b'{"body": 1}'):
        await redis.set(key, bytes(value)[:96] + record)
        assert (await one.ask())[0] == 409
    assert one.calls == 1


@pytest.mark.parametrize("hangs", [False, True])
async def test_answer_goes_out_though_redis_went_away(
    machines: Callable[..., Any],
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    hangs: bool,
) -> None:
    one, other = await machines(timeout=0.2), await machines()
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    if hangs:
        with hanging(redis_server):
            one.go_on.set()
            assert await first == FIRST
            assert await one.ask("/slow") == AGAIN
    else:
        redis_server.stop()
        one.go_on.set()
        assert await first == FIRST
        # It knows by itself.
        assert await one.ask("/slow") == AGAIN
        assert (await one.ask("/slow", body=b"x"))[0] == 422
        redis_server.start()  # which has forgotten everything
    assert len(warnings(caplog)) == 1
    assert "POST /slow could not be remembered" in warnings(caplog)[0]
    await eventually(lambda: not one.store._runs)
    assert await other.ask("/slow") == AGAIN
    assert (one.calls, other.calls) == (1, 0)
    assert len(warnings(caplog)) == 1
    await one.idle()


async def test_failure_goes_out_though_redis_hangs_and_frees_the_key_later(
    machines: Callable[..., Any], redis: Redis, redis_server: RedisServer
) -> None:
    one, other = await machines(timeout=0.2), await machines()

    async def fails(request: web.Request) -> web.StreamResponse:
        raise web.HTTPBadGateway

    one.handler = fails
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    with hanging(redis_server):
        one.go_on.set()
        assert (await first)[0] == 502
        await one.idle()
    assert (await one.ask(key="b"))[0] == 502
    await one.idle()
    assert await redis.keys() == []
    assert await other.ask(body=b"x") == FIRST
    await other.idle()


async def test_redis_that_forgets_a_lock_has_it_back_when_it_is_renewed(
    machines: Callable[..., Any],
    redis: Redis,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = await machines(), await machines()
    one.store.lock_ttl = 0.6
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    redis_server.stop()
    await asyncio.sleep(0.3)
    redis_server.start()
    # The process itself knows all the time.
    assert (await one.ask("/slow"))[0] == 409
    for _ in range(100):
        if await redis.keys():
            break
        await asyncio.sleep(0.05)
    assert (await other.ask("/slow"))[0] == 409
    one.go_on.set()
    assert await first == FIRST
    assert await other.ask("/slow") == AGAIN
    assert (one.calls, other.calls) == (1, 0)
    assert warnings(caplog) == []
    await one.idle()


async def test_redis_that_was_flushed_meanwhile_learns_the_answer(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one, other = await machines(), await machines()
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    await redis.flushall()
    assert (await one.ask("/slow"))[0] == 409
    one.go_on.set()
    assert await first == FIRST
    assert await other.ask("/slow") == AGAIN


async def test_answer_that_is_told_of_too_late_is_let_go_of(
    redis_server: RedisServer, machines: Callable[..., Any]
) -> None:
    one = await machines(ttl=1e-9)
    first = asyncio.create_task(one.ask("/slow"))
    await soon(one.going.wait())
    redis_server.stop()
    one.go_on.set()
    assert await first == FIRST
    await one.idle()


# Clients that leave
# ==================


async def test_client_that_leaves_while_redis_hangs_locks_nothing(
    machines: Callable[..., Any], redis: Redis, redis_server: RedisServer
) -> None:
    one = await machines(timeout=5)
    await one.ask(key="warm")
    with hanging(redis_server):
        connection = await one.server.connect()
        connection.send("POST /", fields="Idempotency-Key: a\r\n")
        await eventually(lambda: one.store._tasks)
        await asyncio.sleep(0.05)
        connection.reset()
        await eventually(lambda: one.server.connections() <= 1)
    await eventually(lambda: not one.store._tasks)
    assert one.calls == 1
    assert len(await redis.keys()) == 1
    assert await one.ask() == (200, "answer 2", False)
    await one.idle()


async def test_client_that_leaves_while_redis_is_told_has_its_answer_kept(
    machines: Callable[..., Any], redis_server: RedisServer
) -> None:
    one, other = await machines(timeout=5), await machines()
    connection = await one.server.connect()
    connection.send("POST /slow", fields="Idempotency-Key: a\r\n")
    await soon(one.going.wait())
    with hanging(redis_server):
        one.go_on.set()
        await eventually(lambda: one.store._tasks)
        connection.reset()
        await eventually(lambda: not one.server.connections())
    await one.idle()
    assert await other.ask("/slow") == AGAIN
    assert one.calls == 1


async def test_client_that_leaves_the_handler_frees_the_key(
    machines: Callable[..., Any], redis: Redis
) -> None:
    one = await machines()
    connection = await one.server.connect()
    connection.send("POST /slow", fields="Idempotency-Key: a\r\n")
    await soon(one.going.wait())
    connection.reset()
    await eventually(lambda: not one.store._runs)
    assert await redis.keys() == []
    one.go_on.set()
    assert (await one.ask("/slow"))[0] == 200
    await one.idle()


async def test_no_answer_is_given_to_another_after_many_have_left(
    machines: Callable[..., Any],
) -> None:
    one = await machines()

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    one.handler = echo
    keys = [str(number) for number in range(150)]
    for key in keys:
        assert (await one.ask(key=key, body=key.encode()))[0] == 200
    chance = random.Random(6)
    # They leave at any moment of the question to Redis.
    for _ in range(4):
        tasks = [
            asyncio.create_task(one.ask(key=key, body=key.encode()))
            for key in keys
        ]
        for task in tasks:
            asyncio.get_running_loop().call_later(
                chance.uniform(0, 0.15), task.cancel
            )
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for key, got in zip(keys, done, strict=True):
            assert isinstance(got, asyncio.CancelledError) or got == (
                200,
                key,
                True,
            )
    for key in keys:
        assert await one.ask(key=key, body=key.encode()) == (200, key, True)
    assert one.calls == len(keys)
    await one.idle()


# Processes
# =========


class Process:
    """tests/idempotency_server.py"""

    def __init__(self, redis: RedisServer, lock_ttl: float) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            self.port = listening.getsockname()[1]
            options = {
                "redis": str(redis.socket),
                "socket": listening.fileno(),
                "lock_ttl": lock_ttl,
            }
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(TESTS / "idempotency_server.py"),
                    json.dumps(options),
                ],
                cwd=TESTS.parent,
                env={"PYTHONPATH": str(TESTS.parent), "PATH": ""},
                pass_fds=[listening.fileno()],
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ask(
        self, session: ClientSession, seconds: float, key: str = "a"
    ) -> tuple[int, str, bool]:
        async with session.post(
            f"http://127.0.0.1:{self.port}/pay?seconds={seconds}",
            headers={"Idempotency-Key": key},
        ) as response:
            if response.status == 409:
                assert response.headers["Retry-After"] == "1"
            replayed = "Idempotent-Replayed" in response.headers
            return response.status, await response.text(), replayed


@pytest.fixture
def processes(redis_server: RedisServer) -> Iterator[list[Process]]:
    both: list[Process] = []
    try:
        both += [Process(redis_server, 1.0) for _ in range(2)]
        yield both
    finally:
        for process in both:
            process.kill()


async def test_fifty_at_once_over_two_processes_are_handled_once(
    processes: list[Process], redis: Redis
) -> None:
    async with ClientSession() as session:
        for process in processes:  # both are there
            await process.ask(session, 0, key="ready")
        await redis.delete("calls")
        got = Counter(
            await asyncio.gather(
                *(
                    processes[number % 2].ask(session, 0.5)
                    for number in range(50)
                )
            )
        )
        first, again = (200, "payment 1", False), (200, "payment 1", True)
        assert await redis.get("calls") == b"1"
        assert got.pop(first) == 1
        got.pop(again, None)
        assert {status for status, _, _ in got} <= {409}
        for process in processes:
            assert await process.ask(session, 0.5) == again


async def test_lock_of_a_process_that_was_killed_lapses(
    processes: list[Process], redis: Redis
) -> None:
    one, other = processes
    async with ClientSession() as session:
        await other.ask(session, 0, key="ready")
        await redis.delete("calls")
        first = asyncio.create_task(one.ask(session, 1.5))
        for _ in range(400):
            if await redis.get("calls"):
                break
            await asyncio.sleep(0.05)
        # It is renewed for longer than it would last.
        await asyncio.sleep(1.1)
        assert (await other.ask(session, 1.5))[0] == 409
        one.kill()
        with pytest.raises(ClientConnectionError):
            await first
        assert (await other.ask(session, 1.5))[0] == 409
        for _ in range(400):
            got = await other.ask(session, 1.5)
            if got[0] != 409:
                break
            await asyncio.sleep(0.05)
        assert got == (200, "payment 2", False)
        assert await other.ask(session, 1.5) == (200, "payment 2", True)


# What is kept
# ============

TEXT = st.text()


@given(
    st.builds(
        Answer,
        st.integers(100, 499),
        TEXT,
        st.lists(st.tuples(TEXT, TEXT)).map(tuple),
        st.none() | st.binary(),
        st.none() | st.sampled_from(["", "gzip"]),
        st.none() | st.just("{}"),
    )
    | st.none()
)
def test_answers_are_read_as_they_were_written(answer: Answer | None) -> None:
    payload = "0" * 64
    value = "1" * 32 + payload + _packed(answer)
    assert value.isascii()
    expected = Found(payload, True, answer)
    assert _unpacked(value) == _unpacked(value.encode()) == expected


@given(st.binary() | st.text())
def test_whatever_is_in_redis_is_read(value: bytes | str) -> None:
    assert _unpacked(value).answer is None


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"redis": None}, TypeError, "redis should be a client of redis"),
        (
            {"redis": sync_redis.Redis()},
            TypeError,
            r"redis should be a client of redis.asyncio, got a redis\.client"
            r"\.Redis$",
        ),
        (
            {"redis": "redis://:secret@localhost"},
            TypeError,
            r"redis should be a client of redis.asyncio, got a str; did you "
            r"mean RedisStore\(Redis\.from_url\(\.\.\.\)\)\?$",
        ),
        ({"prefix": b"x"}, TypeError, "prefix should be a string"),
        ({"timeout": 0}, ValueError, "timeout should be a positive"),
        ({"timeout": None}, TypeError, "timeout should be a number of seconds"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_options_fail_at_build(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=f"^RedisStore {says}"):
        RedisStore(**{"redis": Redis(), **options})
