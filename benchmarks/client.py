"""Measure the client's middlewares; ``make bench-client`` runs it.

The same loopback server for all, in a process of its own: this package, a bare
session, libraries that others use, and the shapes of aiohttp's cookbook. They
take turns within one run. What is measured is the processor time of the client,
which does not depend on what else the machine does, and what counts are the
ratios within a round.
"""

import argparse
import asyncio
import base64
import gc
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web

from aiohttp_middlewares import client
from aiohttp_middlewares._core.deadline import DEADLINE
from aiohttp_middlewares._core.request_id import REQUEST_ID

#: Connections of a session, and how many workers share them.
LIMIT = 100

#: Sends one request and reads the answer.
Send = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Case:
    name: str
    #: What is compared with what.
    subject: str
    make: Callable[[AsyncExitStack, str], Awaitable[Send]]


# Sessions with middlewares
# =========================


def session_with(
    make: Callable[[str], list[Any]], **options: Any
) -> Callable[[AsyncExitStack, str], Awaitable[Send]]:
    async def enter(stack: AsyncExitStack, url: str) -> Send:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=LIMIT),
                middlewares=make(url),
                **options,
            )
        )

        async def send() -> None:
            async with session.get(url) as response:
                await response.read()

        return send

    return enter


async def empty(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    return await handler(req)


async def with_ssrf(stack: AsyncExitStack, url: str) -> Send:
    policy = client.SSRFPolicy(allow_networks=["127.0.0.0/8"], ports=None)
    session = await stack.enter_async_context(
        client.ssrf_session(
            policy,
            connector=client.SSRFConnector(policy, limit=LIMIT),
            middlewares=[client.ssrf_middleware(policy)],
        )
    )

    async def send() -> None:
        async with session.get(url) as response:
            await response.read()

    return send


def bearer(url: str) -> client.BearerTokenMiddleware:
    async def refresh(session: Any, old: Any) -> client.Token:
        return client.Token("token", time.time() + 3600)

    return client.BearerTokenMiddleware(refresh, origins=[url])


def throttle() -> aiohttp.ClientMiddlewareType:
    return client.throttle_middleware(1e6, burst=1000, concurrency=LIMIT)


def together(url: str) -> list[Any]:
    return [
        client.propagate_request_id_middleware(origins=[url]),
        client.request_log_middleware(),
        client.api_log_middleware(lambda record: None),
        client.retry_middleware(),
        client.deadline_middleware(origins=[url]),
        client.circuit_breaker_middleware(),
        bearer(url),
        throttle(),
    ]


# What others do
# ==============


async def with_aiohttp_retry(stack: AsyncExitStack, url: str) -> Send:
    from aiohttp_retry import (  # type: ignore[import-not-found, unused-ignore]
        ExponentialRetry,
        RetryClient,
    )

    session = await stack.enter_async_context(
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=LIMIT))
    )
    retrying = RetryClient(
        client_session=session, retry_options=ExponentialRetry(attempts=3)
    )

    async def send() -> None:
        async with retrying.get(url) as response:
            await response.read()

    return send


async def with_tenacity(stack: AsyncExitStack, url: str) -> Send:
    import tenacity  # type: ignore[import-not-found, unused-ignore]

    send = await session_with(lambda _: [])(stack, url)
    wait = tenacity.wait_random_exponential(multiplier=0.2, max=10)
    decorate = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=wait)
    decorated: Send = decorate(send)
    return decorated


async def with_aiolimiter(stack: AsyncExitStack, url: str) -> Send:
    from aiolimiter import (  # type: ignore[import-not-found, unused-ignore]
        AsyncLimiter,
    )

    send = await session_with(lambda _: [])(stack, url)
    limiter, room = AsyncLimiter(1000, 0.001), asyncio.Semaphore(LIMIT)

    async def limited() -> None:
        async with room, limiter:
            await send()

    return limited


async def retry_loop(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send it three times, if need be: no care for bodies or connections."""
    for _ in range(2):
        response = await handler(req)
        if response.status < 500:
            return response
    return await handler(req)


cookbook_logger = logging.getLogger("cookbook")


async def log_lines(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    start = time.monotonic()
    response = await handler(req)
    seconds = time.monotonic() - start
    cookbook_logger.info(
        "%s %s %s %.3f", req.method, req.url, response.status, seconds
    )
    return response


async def add_credentials(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    pair = base64.b64encode(b"me:secret").decode()
    req.headers["Authorization"] = f"Basic {pair}"
    return await handler(req)


def add_token() -> aiohttp.ClientMiddlewareType:
    lock = asyncio.Lock()
    expires_at = 0.0

    async def token(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        nonlocal expires_at
        if time.time() >= expires_at:
            async with lock:
                expires_at = time.time() + 3600
        req.headers["Authorization"] = "Bearer token"
        return await handler(req)

    return token


CASES = [
    Case("bare session", "", session_with(lambda _: [])),
    Case("an empty middleware", "", session_with(lambda _: [empty])),
    Case(
        "retry",
        "repeat",
        session_with(lambda _: [client.retry_middleware()]),
    ),
    Case("aiohttp-retry", "repeat", with_aiohttp_retry),
    Case("tenacity", "repeat", with_tenacity),
    Case("cookbook: a loop", "repeat", session_with(lambda _: [retry_loop])),
    Case("throttle", "pace", session_with(lambda _: [throttle()])),
    Case("aiolimiter and a semaphore", "pace", with_aiolimiter),
    Case(
        "request log",
        "log",
        session_with(lambda _: [client.request_log_middleware()]),
    ),
    Case(
        "API log",
        "log",
        session_with(
            lambda _: [client.api_log_middleware(lambda record: None)]
        ),
    ),
    Case("cookbook: a log line", "log", session_with(lambda _: [log_lines])),
    Case("bearer token", "credentials", session_with(lambda u: [bearer(u)])),
    Case(
        "cookbook: a token",
        "credentials",
        session_with(lambda _: [add_token()]),
    ),
    Case(
        "basic auth",
        "credentials",
        session_with(
            lambda url: [
                client.basic_auth_middleware("me", "secret", origins=[url])
            ]
        ),
    ),
    Case(
        "cookbook: basic auth",
        "credentials",
        session_with(lambda _: [add_credentials]),
    ),
    Case(
        "circuit breaker",
        "",
        session_with(lambda _: [client.circuit_breaker_middleware()]),
    ),
    Case(
        "deadline",
        "",
        session_with(lambda u: [client.deadline_middleware(origins=[u])]),
    ),
    Case(
        "request id",
        "",
        session_with(
            lambda u: [client.propagate_request_id_middleware(origins=[u])]
        ),
    ),
    Case("SSRF, middleware and connector", "", with_ssrf),
    Case("all of ours but SSRF", "", session_with(together)),
]


# Measuring
# =========


async def seconds(send: Send, requests: int) -> float:
    """The processor time that the client takes."""
    numbers = iter(range(requests))

    async def work() -> None:
        for _ in numbers:
            await send()

    gc.collect()
    start = time.process_time()
    await asyncio.gather(*(work() for _ in range(LIMIT)))
    return time.process_time() - start


async def measured(
    url: str, rounds: int, requests: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {case.name: [] for case in CASES}
    async with AsyncExitStack() as stack:
        sends = {case.name: await case.make(stack, url) for case in CASES}
        for send in sends.values():
            await seconds(send, requests)  # to connect, and to warm it up
        for _ in range(rounds):
            names = list(sends)
            random.shuffle(names)
            for name in names:
                found[name].append(await seconds(sends[name], requests))
    return found


async def serve() -> None:
    """The server: it says its port, and ends with its standard input."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"names": ["Ada", "Grace"]})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=10_000).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", __file__, "--serve"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(await server.stdout.readline())}/"
    finally:
        server.terminate()
        await server.wait()


def serve_a_visitor() -> None:
    """Let all that follows be done for a request, with an id and a limit."""
    loop = asyncio.get_running_loop()
    request = SimpleNamespace(writer=SimpleNamespace(output_size=0))
    waiting = {1: (loop.time() + 1e6, request)}
    queue = SimpleNamespace(loop=loop, waiting=waiting, expired={})
    DEADLINE.set((queue, 1, None))
    REQUEST_ID.set("0123456789abcdef")


async def run(rounds: int, requests: int) -> None:
    async with served() as url:
        serve_a_visitor()
        found = await measured(url, rounds, requests)
    print(f"{requests:,} requests, limit={LIMIT}, median of {rounds} rounds")
    heads = f"{'µs/request':>11}{'/ bare':>8}{'±':>6}{'/ empty':>9}"
    print(f"{'':45}{heads}")
    for case in CASES:
        times = found[case.name]
        to_bare = sorted(ratios(times, found["bare session"]))
        quarter = len(to_bare) // 4
        spread = (to_bare[-1 - quarter] - to_bare[quarter]) / 2
        to_empty = median(ratios(times, found["an empty middleware"]))
        print(
            f"{case.name:32}{case.subject:13}"
            f"{median(times) / requests * 1e6:>11.1f}"
            f"{median(to_bare):>8.2f}{spread:>6.2f}{to_empty:>9.2f}"
        )


def ratios(times: list[float], others: list[float]) -> list[float]:
    """Those within one round."""
    return [mine / theirs for mine, theirs in zip(times, others, strict=True)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--requests", type=int, default=1000)
    options.add_argument("--serve", action="store_true")
    given = options.parse_args()
    # Records are made as they are in production, and thrown away.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(logging.INFO)
    if given.serve:
        asyncio.run(serve())
    else:
        asyncio.run(run(given.rounds, given.requests))


if __name__ == "__main__":
    main()
