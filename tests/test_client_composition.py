"""All middlewares of the client: cut anywhere, and all of them together."""

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from client_site import MEGABYTE, Naps, Site, drop, hang, serve
from live import PATIENCE, complaints, eventually, soon
from opentelemetry.sdk.trace import TracerProvider

from aiohttp_middlewares import client

T = TypeVar("T")

TRACERS = TracerProvider(shutdown_on_exit=False)
POLICY = client.SSRFPolicy(allow_networks=["127.0.0.0/8"], ports=None)


def retry(**options: Any) -> aiohttp.ClientMiddlewareType:
    async def nap(event: client.RetryEvent) -> bool:
        await asyncio.sleep(0)
        return False

    options = {"attempt_timeout": 5, "retry_if": nap, **options}
    return client.retry_middleware(
        base_delay=0.001, on_retry=nap, sleep=Naps(), **options
    )


def bearer(site: Site) -> client.BearerTokenMiddleware:
    grant = client.client_credentials(f"{site.url}token", "me", "secret")
    return client.BearerTokenMiddleware(grant, origins=[site.url])


async def report(record: client.CallRecord) -> None:
    await asyncio.sleep(0)


#: A way to make each, by the name that it is made with.
MIDDLEWARES: dict[str, Callable[[Site], Any]] = {
    "BearerTokenMiddleware": bearer,
    "api_log_middleware": lambda _: client.api_log_middleware(report),
    "basic_auth_middleware": lambda site: client.basic_auth_middleware(
        "me", "secret", origins=["http://elsewhere.example"]
    ),
    "circuit_breaker_middleware": lambda _: client.circuit_breaker_middleware(
        failures=20, reset=0.01
    ),
    "deadline_middleware": lambda _: client.deadline_middleware(),
    "propagate_request_id_middleware": lambda site: (
        client.propagate_request_id_middleware(origins=[site.url])
    ),
    "request_log_middleware": lambda _: client.request_log_middleware(),
    "retry_middleware": lambda _: retry(),
    "ssrf_middleware": lambda _: client.ssrf_middleware(POLICY),
    "throttle_middleware": lambda _: client.throttle_middleware(
        rate=1e5, burst=100, concurrency=5
    ),
    "tracing_middleware": lambda _: client.tracing_middleware(
        tracer_provider=TRACERS
    ),
}


def test_no_middleware_is_forgotten_here() -> None:
    made = {name for name in client.__all__ if "middleware" in name.lower()}
    assert made == set(MIDDLEWARES)


async def close(*middlewares: Any) -> None:
    for middleware in middlewares:
        if hasattr(middleware, "aclose"):
            await middleware.aclose()


@pytest.mark.parametrize("name", ["retry", "throttle", "token", "token again"])
async def test_session_that_is_closed_during_a_wait_is_a_client_error(
    name: str,
) -> None:
    """Not an assertion of aiohttp, which looks at it in the beginning only."""
    waits, ends = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> client.Token:
        waits.set()
        await ends.wait()
        return client.Token("new")

    async with serve() as site:
        site.answers = [401 if name == "token again" else 503]
        old = client.Token("old") if name == "token again" else None
        middleware: Any = {
            "retry": client.retry_middleware(sleep=wait),
            "throttle": client.throttle_middleware(1, sleep=wait),
        }.get(name) or client.BearerTokenMiddleware(
            wait, origins=[site.url], token=old
        )
        session = aiohttp.ClientSession(middlewares=[middleware])
        if name == "throttle":
            await session.get(site.url)
        task = asyncio.ensure_future(session.get(site.url))
        await soon(waits.wait())
        await session.close()
        ends.set()
        with pytest.raises(aiohttp.ClientConnectionError, match="was closed"):
            await soon(task)


# Cut anywhere
# ============


class Steps:
    """Runs a coroutine, and cancels it at one of its suspension points."""

    def __init__(self, cancel_at: int, *, late: bool) -> None:
        self.cancel_at = cancel_at
        self.late = late
        self.taken = 0

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await self._run(work)

    @coroutine
    def _run(self, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        step = partial(work.send, None)
        while True:
            try:
                waited = step()
            except StopIteration as end:
                result: T = end.value
                return result
            self.taken += 1
            if self.taken == self.cancel_at:
                self._cancel(waited)
            try:
                yield waited
                step = partial(work.send, None)
            except BaseException as exc:
                step = partial(work.throw, exc)

    def _cancel(self, waited: "asyncio.Future[Any] | None") -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.late and waited is not None:
            # When what is waited for is there, but was not taken yet.
            waited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


ANSWERS: dict[str, list[Any]] = {
    "503": [503, (503, {}, MEGABYTE), 200],
    "401": [(401, {}, MEGABYTE), 200],
    "drop": [drop, 200],
    "404": [404],
}


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("name", [None, *MIDDLEWARES], ids=str)
async def test_request_that_is_cancelled_anywhere_leaves_its_connection_free(
    name: str | None, answers: list[Any], late: bool
) -> None:
    async with serve() as site:
        for point in range(1, 200):
            own = [] if name is None else [MIDDLEWARES[name](site)]
            if await is_over_before(site, own, answers, point, late):
                break
        else:
            raise AssertionError("there is no end of suspension points")
        assert point > 1


async def is_over_before(
    site: Site, own: list[Any], answers: list[Any], point: int, late: bool
) -> bool:
    queue = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response(
                {"access_token": "a", "token_type": "Bearer"}
            )
        current = queue.pop(0) if len(queue) > 1 else queue[0]
        if callable(current):
            found: web.StreamResponse = await current(request)
            return found
        status, body = (
            (current, b"") if isinstance(current, int) else current[::2]
        )
        return web.Response(status=status, body=body)

    site.answers = [answer]
    steps = Steps(point, late=late)
    connector = client.SSRFConnector(POLICY, limit=1)
    async with client.ssrf_session(
        POLICY, connector=connector, middlewares=own
    ) as session:
        task = asyncio.ensure_future(steps.run(session.get(site.url)))
        await asyncio.wait([task], timeout=PATIENCE)
        is_over = steps.taken < point
        # A middleware may swallow no cancellation but one of its own.
        assert task.cancelled() is not is_over
        if is_over:
            task.result().close()
        del task
        gc.collect(0)
        await close(*own)
        assert not connector._acquired
        queue[:] = [200]
        response = await soon(session.get(site.url, middlewares=()))
        response.close()
    return is_over


# All together
# ============


async def trickle(request: web.Request) -> web.StreamResponse:
    """Promise more than there is."""
    response = web.StreamResponse(status=random.choice([200, 503]))
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b"x" * 10)
    assert request.transport is not None
    request.transport.close()
    return response


async def refuse(request: web.Request) -> web.Response:
    return web.Response(status=401, body=b"x" * 1000)


async def overload(request: web.Request) -> web.Response:
    return web.Response(status=429, headers={"Retry-After": "0.001"})


async def fail(request: web.Request) -> web.Response:
    return web.Response(status=503)


async def fail_at_length(request: web.Request) -> web.Response:
    return web.Response(status=503, body=MEGABYTE)


FAILURES: list[Any] = [
    drop, fail, fail_at_length, hang, overload, refuse, trickle
]  # fmt: skip

#: As they are documented, the other way around, and two in between.
ORDERS = [
    [
        "propagate_request_id_middleware",
        "api_log_middleware",
        "request_log_middleware",
        "retry_middleware",
        "deadline_middleware",
        "circuit_breaker_middleware",
        "throttle_middleware",
        "BearerTokenMiddleware",
        "basic_auth_middleware",
        "ssrf_middleware",
    ],
]
ORDERS.append(ORDERS[0][::-1])
ORDERS.append(ORDERS[0][::2] + ORDERS[0][1::2])
ORDERS.append(ORDERS[1][::2] + ORDERS[1][1::2])


@pytest.mark.parametrize("order", ORDERS, ids=["documented", "back", "a", "b"])
@pytest.mark.parametrize("limit", [1, 3, 10, 100])
async def test_all_middlewares_together_leave_nothing_behind(
    order: list[str], limit: int
) -> None:
    chance = random.Random(limit)
    before = asyncio.all_tasks()
    with complaints() as found:
        async with serve() as site:
            await storm(site, order, limit, chance)
        await eventually(lambda: asyncio.all_tasks() == before)
        gc.collect()
    assert found == []


async def storm(
    site: Site, order: list[str], limit: int, chance: random.Random
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response(
                {"access_token": "a", "token_type": "Bearer"}
            )
        if chance.random() < 0.5:
            return web.Response(body=b"x" * chance.choice([0, 100, 100_000]))
        found: web.StreamResponse = await chance.choice(FAILURES)(request)
        return found

    site.answers = [answer]
    own = [MIDDLEWARES[name](site) for name in order]
    connector = client.SSRFConnector(POLICY, limit=limit)
    async with client.ssrf_session(
        POLICY,
        connector=connector,
        middlewares=own,
        timeout=aiohttp.ClientTimeout(total=PATIENCE, sock_read=0.05),
    ) as session:
        calls = [
            asyncio.ensure_future(call(session, site.url, chance))
            for _ in range(50)
        ]
        for task in calls:
            if chance.random() < 0.2:
                # Some of them soon, some when many are done.
                await asyncio.sleep(0)
                if chance.random() < 0.5:
                    await asyncio.wait(calls, timeout=0.01)
                task.cancel()
        await asyncio.wait(calls, timeout=PATIENCE)
        outcomes = [
            type(task.exception()) if not task.cancelled() else None
            for task in calls
        ]
        assert set(outcomes) <= {None, type(None)}
        await close(*own)
        assert not connector._acquired


async def call(
    session: aiohttp.ClientSession, url: str, chance: random.Random
) -> None:
    options: dict[str, Any] = {}
    if chance.random() < 0.2:
        options["timeout"] = aiohttp.ClientTimeout(total=0.02)
    with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
        async with session.request(
            chance.choice(["GET", "PUT", "POST"]), url, **options
        ) as response:
            if chance.random() < 0.8:
                await response.read()
