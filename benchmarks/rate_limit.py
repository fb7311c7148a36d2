"""Rate limits beside aiohttp-ratelimiter, and beside ``limits`` alone.

``python benchmarks/rate_limit.py`` serves each over loopback, in memory and in
a redis-server of its own, one request after the other. What is measured is the
time between a request's coming to the stack and its answer's leaving it, less
that of a stack which has an empty middleware in its place. All take turns
within one run, and what counts are the ratios within a round.
"""

import argparse
import asyncio
import gc
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import limits
import limits.aio.storage
import limits.aio.strategies
from aiohttp import web

from aiohttp_middlewares import client_ip, rate_limit_middleware
from aiohttp_middlewares.annotations import Handler, Middleware

LIMIT = "1000000/hour"
STRATEGIES: dict[str, Any] = {
    "fixed-window": limits.aio.strategies.FixedWindowRateLimiter,
    "moving-window": limits.aio.strategies.MovingWindowRateLimiter,
    "sliding-window": limits.aio.strategies.SlidingWindowCounterRateLimiter,
}
EMPTY = "an empty middleware"


@dataclass
class Case:
    name: str
    middleware: Middleware
    #: What it is compared with.
    bare: str = ""
    decorate: Callable[[Handler], Handler] = lambda handler: handler
    nanoseconds: list[int] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


async def empty(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


empty.__middleware_version__ = 1  # type: ignore[attr-defined]


def hit_alone(storage: Any, strategy: str) -> Middleware:
    """Counts, and tells nobody anything."""
    limiter = STRATEGIES[strategy](storage)
    item = limits.parse(LIMIT)

    @web.middleware
    async def hit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not await limiter.hit(item, strategy, request.remote or ""):
            raise web.HTTPTooManyRequests
        return await handler(request)

    return hit


def aiohttp_ratelimiter(uri: str | None) -> Callable[[Handler], Handler]:
    import aiohttplimiter  # type: ignore[import-not-found, unused-ignore]

    if uri is None:
        limiter = aiohttplimiter.Limiter(keyfunc=client_ip)
    else:
        limiter = aiohttplimiter.RedisLimiter(
            keyfunc=client_ip, uri=uri, implementation="redispy"
        )
    decorate: Callable[[Handler], Handler] = limiter.limit(LIMIT)
    return decorate


def cases(uri: str | None) -> list[Case]:
    found = [Case(EMPTY, empty)]
    places = {"memory": "async+memory://"}
    if uri is not None:
        places["Redis"] = uri
    for place, storage in places.items():
        for strategy in STRATEGIES:
            bare = f"{place}, {strategy}: await limiter.hit()"
            its_own: Any = (
                limits.aio.storage.MemoryStorage()
                if place == "memory"
                else limits.aio.storage.RedisStorage(
                    storage, implementation="redispy"
                )
            )
            found.append(Case(bare, hit_alone(its_own, strategy)))
            ours = rate_limit_middleware(
                LIMIT,
                storage=storage,
                strategy=strategy,  # type: ignore[arg-type]
            )
            found.append(Case(f"{place}, {strategy}: ours", ours, bare))
        with_others = rate_limit_middleware(
            f"{LIMIT};2000000/day;3000000/7 days",
            storage=storage,
            strategy="moving-window",
        )
        bare = f"{place}, moving-window: await limiter.hit()"
        found.append(Case(f"{place}, three limits: ours", with_others, bare))
        try:
            decorate = aiohttp_ratelimiter(
                None if place == "memory" else storage
            )
        except ImportError:
            continue
        name = f"{place}, moving-window: aiohttp-ratelimiter"
        found.append(Case(name, empty, bare, decorate))
    return found


def application(case: Case) -> web.Application:
    @web.middleware
    async def clock(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        start = time.perf_counter_ns()
        response = await handler(request)
        case.nanoseconds.append(time.perf_counter_ns() - start)
        return response

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="answer")

    app = web.Application(middlewares=[clock, case.middleware])
    app.router.add_get("/", case.decorate(answer))
    return app


@asynccontextmanager
async def redis() -> AsyncIterator[str | None]:
    """A Redis of its own, if there is one, at a unix socket."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "redis.sock"
        process = await asyncio.create_subprocess_exec(
            *(program, "--port", "0", "--unixsocket", str(path)),
            *("--save", "", "--appendonly", "no", "--dir", folder),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            while not path.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield f"async+redis+unix://{path}"
        finally:
            process.terminate()
            await process.wait()


async def measure(found: list[Case], rounds: int, requests: int) -> None:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        urls = {}
        for case in found:
            runner = web.AppRunner(application(case), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            urls[case.name] = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        for number in range(rounds + 1):
            for case in random.sample(found, len(found)):
                case.nanoseconds.clear()
                gc.collect()
                for _ in range(requests):
                    async with session.get(urls[case.name]) as response:
                        assert response.status == 200, case.name
                        await response.read()
                if number:  # the first round connects, and warms up
                    case.rounds.append(median(case.nanoseconds) / 1000)


async def main(rounds: int, requests: int) -> None:
    async with redis() as uri:
        found = cases(uri)
        await measure(found, rounds, requests)
    by_name = {case.name: case for case in found}
    floor = by_name[EMPTY].rounds
    print(f"{requests:,} requests, one at a time, median of {rounds} rounds")
    print(f"{'over ' + EMPTY:52}{'µs':>8}{'/ bare':>8}")
    for case in found[1:]:
        over = differences(case.rounds, floor)
        line = f"{case.name:52}{median(over):>8.1f}"
        if case.bare:
            bare = differences(by_name[case.bare].rounds, floor)
            shares = (a / b for a, b in zip(over, bare, strict=True))
            line += f"{median(shares):>8.2f}"
        print(line)


def differences(some: list[float], others: list[float]) -> list[float]:
    return [a - b for a, b in zip(some, others, strict=True)]


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--requests", type=int, default=500)
    given = options.parse_args()
    asyncio.run(main(given.rounds, given.requests))
    sys.exit()
