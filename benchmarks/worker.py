"""Time the cases with the middlewares that this interpreter finds.

Run by ``make bench``, in one environment after the other. Requests
are parsed by aiohttp's own parser and used once, since a request keeps what
was once computed of it. The garbage collector runs between the rounds only.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import time
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_writer import StreamWriter
from aiohttp.web_urldispatcher import MatchInfoError
from cases import CASES, HANDLERS, Case, Handler, others

REQUESTS = 200  # in a round


class Transport(asyncio.Transport):
    """A connection to nobody."""

    def write(self, data: Any) -> None: ...

    def writelines(self, data: Any) -> None: ...

    def is_closing(self) -> bool:
        return False


class Protocol(asyncio.Protocol):
    transport = Transport()
    ssl_context = None
    peername = ("127.0.0.1", 50000)
    sockname = ("127.0.0.1", 8080)
    _paused = False


PROTOCOL: Any = Protocol()
UNMATCHED = MatchInfoError(web.HTTPNotFound())


def parsed(case: Case, count: int) -> list[web.Request]:
    loop = asyncio.get_running_loop()
    requests = []
    for _ in range(count):
        parser = HttpRequestParser(PROTOCOL, loop, 2**16)
        ((message, payload),) = parser.feed_data(case.request())[0]
        writer = StreamWriter(PROTOCOL, loop)
        task: Any = None
        request = web.Request(message, payload, PROTOCOL, writer, task, loop)
        request._match_info = UNMATCHED
        requests.append(request)
    return requests


def chained(middlewares: list[Any], handler: Handler) -> Handler:
    for middleware in reversed(middlewares):
        handler = partial(middleware, handler=handler)
    return caught(handler)


def caught(handler: Handler) -> Handler:
    """As aiohttp catches what comes out of the chain."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as exc:
            return exc
        except ValueError:
            return web.Response(status=500)

    return handle


async def run(handler: Handler, requests: list[web.Request]) -> float:
    """Nanoseconds a request."""
    start = time.perf_counter_ns()
    for request in requests:
        await handler(request)
    return (time.perf_counter_ns() - start) / len(requests)


async def times(
    cases: list[Case], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """For each case what a round took, bare and with the middlewares."""
    found: dict[str, list[tuple[float, float]]] = {}
    made = {
        case.name: (
            case,
            caught(HANDLERS[case.handler]),
            chained(case.make(), HANDLERS[case.handler]),
        )
        for case in cases
    }
    for _ in range(rounds):
        for name, (case, bare, chain) in made.items():
            pair = []
            for handler in (bare, chain):
                requests = parsed(case, REQUESTS)
                gc.collect()
                gc.disable()
                # A task for each, as a connection has: no stale contexts.
                pair.append(await asyncio.create_task(run(handler, requests)))
                gc.enable()
            found.setdefault(name, []).append((pair[0], pair[1]))
    return found


async def count(name: str, requests: int) -> None:
    """Only run: something else counts the instructions."""
    case = next(case for case in CASES if case.name == name)
    chain = chained(case.make(), HANDLERS[case.handler])
    gc.disable()
    await run(chain, parsed(case, requests))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--others", action="store_true")
    options.add_argument("--only")
    options.add_argument("--requests", type=int, default=0)
    given = options.parse_args()
    # What is logged, and where to, is the application's affair.
    logging.getLogger("aiohttp_middlewares").setLevel(logging.CRITICAL)
    if given.only:
        asyncio.run(count(given.only, given.requests))
    else:
        cases = [CASES[0], *others()] if given.others else CASES
        json.dump(asyncio.run(times(cases, given.rounds)), sys.stdout)


if __name__ == "__main__":
    main()
