"""Measure what sees requests; ``make bench-observability`` runs it.

Each request is parsed and routed by aiohttp, goes through one middleware and a
handler, and is answered to a connection to nobody. What is measured is the
processor time of all that is done from the first middleware to the last byte,
and of the access log. All cases take turns within one run, in one process;
what counts are ratios.

A case that needs a package that is not there is left out. To add one: a row in
``CASES``, and below a function that makes what it needs.
"""

import argparse
import asyncio
import gc
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.web_log import AccessLogger
from cases import HANDLERS, empty
from cases import Case as Request
from worker import arriving, chained

from aiohttp_middlewares import (
    access_log_middleware,
    request_id_middleware,
    server_timing_middleware,
)

REQUESTS = 200  # in a round
BARE = "a bare handler"

Middlewares = list[Any]


class Server(NamedTuple):
    middlewares: Middlewares
    #: That of aiohttp, or one that takes its place.
    access_logger: Any = None


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Server]
    #: The case that it is compared with.
    beside: str = "an empty middleware"


def only(*middlewares: Any) -> Callable[[], Server]:
    return lambda: Server([*middlewares])


# What others do
# ==============


def aiohttps_access_log() -> Server:
    return Server([], AccessLogger(kept("aiohttp.access")))


def aiohttp_request_id_logging() -> Server:
    import aiohttp_request_id_logging as peer  # type: ignore[import-not-found, unused-ignore]

    return Server([peer.RequestIdMiddleware()])


def aiohttp_request_id_logging_and_access_log() -> Server:
    import aiohttp_request_id_logging as peer  # type: ignore[import-not-found, unused-ignore]

    logger = peer.RequestIdAccessLogger(kept("aiohttp.access"))
    return Server([peer.RequestIdMiddleware()], logger)


# What we do
# ==========


def our_access_log() -> Server:
    kept("aiohttp_middlewares.access_log")
    return Server([access_log_middleware()])


def our_request_id_and_access_log() -> Server:
    kept("aiohttp_middlewares.access_log")
    return Server([request_id_middleware(), access_log_middleware()])


class Formats(logging.Handler):
    """Does all that a handler does, but for the writing."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def kept(name: str) -> logging.Logger:
    """A logger whose records are formatted, the same way for all."""
    logger = logging.getLogger(name)
    handler = Formats()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


CASES = [
    Case(BARE, only()),
    Case("an empty middleware", only(empty), BARE),
    # Access log
    Case("aiohttp's AccessLogger", aiohttps_access_log),
    Case("access_log", our_access_log, "aiohttp's AccessLogger"),
    # Server timing
    Case("server_timing", only(server_timing_middleware())),
    Case(
        "server_timing, cpu",
        only(server_timing_middleware(cpu=True)),
        "server_timing",
    ),
    Case(
        "server_timing, emit",
        only(server_timing_middleware(emit=lambda timing: None)),
        "server_timing",
    ),
    # Request id
    Case("aiohttp-request-id-logging", aiohttp_request_id_logging),
    Case(
        "request_id",
        only(request_id_middleware()),
        "aiohttp-request-id-logging",
    ),
    Case(
        "aiohttp-request-id-logging, and its access log",
        aiohttp_request_id_logging_and_access_log,
    ),
    Case(
        "request_id and access_log",
        our_request_id_and_access_log,
        "aiohttp-request-id-logging, and its access log",
    ),
    # Metrics
    # Tracing
]


# Measuring
# =========

SENT = Request("", list)


async def nanoseconds(server: Server, handler: Any) -> float:
    """The processor time that a request takes."""
    access_logger = server.access_logger
    requests = [request async for request in arriving(SENT, REQUESTS)]
    start = time.process_time_ns()
    for request in requests:
        response: web.StreamResponse = await handler(request)
        await response.prepare(request)
        await response.write_eof()
        if access_logger is not None:
            access_logger.log(request, response, 0.001)
    return (time.process_time_ns() - start) / REQUESTS


async def measured(rounds: int) -> dict[str, list[float]]:
    servers: dict[str, tuple[Server, Any]] = {}
    for case in CASES:
        with suppress(ImportError):
            server = case.make()
            chain = chained(server.middlewares, HANDLERS["answer"])
            servers[case.name] = server, chain
    found: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        names = list(servers)
        random.shuffle(names)
        for name in names:
            gc.collect()
            gc.disable()
            # A task for each, as a connection has: no stale contexts.
            one = nanoseconds(*servers[name])
            took = await asyncio.create_task(one)
            gc.enable()
            if number:  # the first is to warm up
                found[name].append(took)
    return found


def show(found: dict[str, list[float]], rounds: int) -> None:
    print(f"{REQUESTS} requests a round, median of {rounds} rounds, over bare")
    print(f"{'':50}{'ns':>8}{'±':>6}{'ratio':>8}  to")
    bare = found[BARE]
    over = {
        name: [mine - its for mine, its in zip(times, bare, strict=True)]
        for name, times in found.items()
    }
    for case in CASES:
        if case.name == BARE or case.name not in over:
            continue
        costs = sorted(over[case.name])
        quarter = len(costs) // 4
        spread = (costs[-1 - quarter] - costs[quarter]) / 2
        line = f"{case.name:50}{median(costs):>8,.0f}{spread:>6,.0f}"
        if case.beside in over and case.beside != BARE:
            ratio = median(costs) / median(over[case.beside])
            line += f"{ratio:>8.2f}  {case.beside}"
        print(line)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=100)
    given = options.parse_args()
    show(asyncio.run(measured(given.rounds)), given.rounds)


if __name__ == "__main__":
    main()
