"""Metrics beside the bare calls of prometheus-client, and a peer.

``python benchmarks/metrics.py`` gives each the same requests, parsed and routed
by aiohttp, and lets it answer them to nobody. What is measured is the time from
a request's coming to the stack to the last byte of its answer, less that of an
empty middleware. What tells of the last byte is shared: "alone" has it to
itself, "beside" is what is added where another middleware observes as well,
such as an access log. All take turns within one run, and what counts are the
ratios within a round. A Python that has aiohttp-prometheus-exporter measures
it, too.
"""

import argparse
import asyncio
import gc
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from aiohttp import web
from cases import CASES, Handler, answer, empty
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from worker import arriving, chained

from aiohttp_middlewares import (
    concurrency_limit_middleware,
    metrics_middleware,
)
from aiohttp_middlewares._core.outcome import Outcome, outcome_of

REQUESTS = 200  # in a round
NAMES = "method", "route", "status"
LABELS = "GET", "/api/items", "200"
EMPTY = "an empty middleware"
OUTCOME = "outcome_of(request).observe"
TWO = "two bare calls: Counter.inc, Histogram.observe"
SIX = "six bare calls, of five metrics"


def two_calls() -> Any:
    requests = Counter("requests", "-", NAMES, registry=None).labels(*LABELS)
    duration = Histogram("duration", "-", NAMES, registry=None).labels(*LABELS)

    @web.middleware
    async def calls(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        start = time.perf_counter()
        response = await handler(request)
        requests.inc()
        duration.observe(time.perf_counter() - start)
        return response

    return calls


def six_calls() -> Any:
    requests = Counter("requests", "-", NAMES, registry=None).labels(*LABELS)
    duration, request_size, response_size = (
        Histogram(name, "-", NAMES, registry=None, **options).labels(*LABELS)
        for name, options in (
            ("duration", {}),
            ("request_size", SIZES),
            ("response_size", SIZES),
        )
    )
    in_progress = Gauge("in_progress", "-", registry=None)

    @web.middleware
    async def calls(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        start = time.perf_counter()
        in_progress.inc()
        response = await handler(request)
        requests.inc()
        duration.observe(time.perf_counter() - start)
        request_size.observe(0)
        response_size.observe(2)
        in_progress.dec()
        return response

    return calls


SIZES: dict[str, Any] = {"buckets": [100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8]}


def outcome_alone() -> Any:
    """What all that observe share: told of the last byte, and no more."""

    def told(outcome: Outcome) -> None: ...

    @web.middleware
    async def outcome(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outcome_of(request).observe(told, told)
        return await handler(request)

    return outcome


def exporter() -> Any:
    from aiohttp_prometheus_exporter.middleware import (  # type: ignore[import-not-found, unused-ignore]
        prometheus_middleware_factory,
    )

    return prometheus_middleware_factory(registry=CollectorRegistry())


MADE: dict[str, Callable[[], list[Any]]] = {
    EMPTY: lambda: [empty],
    OUTCOME: lambda: [outcome_alone()],
    TWO: lambda: [two_calls()],
    SIX: lambda: [six_calls()],
    "metrics_middleware, alone": lambda: [
        metrics_middleware(registry=CollectorRegistry())
    ],
    "metrics_middleware, beside": lambda: [
        outcome_alone(),
        metrics_middleware(registry=CollectorRegistry()),
    ],
    "metrics_middleware, alone, with a label": lambda: [
        metrics_middleware(
            registry=CollectorRegistry(),
            labels={"scheme": lambda request: request.scheme},
        )
    ],
    "concurrency_limit_middleware, alone": lambda: [
        concurrency_limit_middleware(9)
    ],
    "concurrency_limit_middleware, beside": lambda: [
        outcome_alone(),
        concurrency_limit_middleware(9),
    ],
    "aiohttp-prometheus-exporter": lambda: [exporter()],
}


async def run(handler: Handler, count: int) -> float:
    """Microseconds a request: the median, as others use the processor."""
    times: list[int] = []
    async for request in arriving(CASES[0], count):
        start = time.perf_counter_ns()
        response = await handler(request)
        await response.prepare(request)
        await response.write_eof()
        times.append(time.perf_counter_ns() - start)
    return median(times) / 1000


async def main(rounds: int) -> None:
    chains = {}
    for name, make in MADE.items():
        try:
            chains[name] = chained(make(), answer)
        except ImportError:
            print(f"{name} is not installed")
    found: dict[str, list[float]] = {name: [] for name in chains}
    for number in range(rounds + 1):
        for name in random.sample([*chains], len(chains)):
            gc.collect()
            gc.disable()
            one = await asyncio.create_task(run(chains[name], REQUESTS))
            gc.enable()
            if number:  # the first is to warm up
                found[name].append(one)
    over = {}
    for name, times in found.items():
        base = found[OUTCOME if name.endswith("beside") else EMPTY]
        over[name] = [a - b for a, b in zip(times, base, strict=True)]
    print(f"{'over ' + EMPTY:48}{'µs':>8}{'/ two':>8}{'/ six':>8}")
    for name in [*chains][1:]:
        line = f"{name:48}{median(over[name]):>8.2f}"
        for bare in (TWO, SIX):
            pairs = zip(over[name], over[bare], strict=True)
            line += f"{median(a / b for a, b in pairs):>8.2f}"
        print(line)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=40)
    asyncio.run(main(options.parse_args().rounds))
