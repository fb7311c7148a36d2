"""Time the cases with the middlewares that this interpreter finds.

Run by ``make bench``, in one environment after the other. As in a server, each
request is parsed and routed by aiohttp itself just before the middlewares get
it, and used once. The garbage collector runs between the rounds only.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_writer import StreamWriter
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
APP = web.Application()
APP.router.add_route("*", "/api/items", HANDLERS["answer"])
APP.freeze()


def chained(middlewares: list[Any], handler: Handler) -> Handler:
    for middleware in reversed(middlewares):
        handler = partial(middleware, handler=handler)
    return handler


async def arriving(case: Case, count: int) -> AsyncIterator[web.Request]:
    """Requests as ``Application._handle`` gives them to the middlewares."""
    loop = asyncio.get_running_loop()
    task: Any = asyncio.current_task()
    parser = HttpRequestParser(PROTOCOL, loop, 2**16)
    sent = case.request()
    for _ in range(count):
        ((message, payload),) = parser.feed_data(sent)[0]
        writer = StreamWriter(PROTOCOL, loop)
        request = APP._make_request(message, payload, PROTOCOL, writer, task)
        match_info = await APP.router.resolve(request)
        match_info.add_app(APP)
        request._match_info = match_info
        request.headers.get(hdrs.EXPECT)
        yield request


async def run(handler: Handler, case: Case, count: int) -> float:
    """Nanoseconds a request."""
    total = 0
    async for request in arriving(case, count):
        start = time.perf_counter_ns()
        try:
            await handler(request)
        except web.HTTPException:
            pass
        except ValueError:
            web.Response(status=500)  # as aiohttp makes one
        total += time.perf_counter_ns() - start
    return total / count


async def times(
    cases: list[Case], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """For each case what a round took, bare and with the middlewares."""
    found: dict[str, list[tuple[float, float]]] = {}
    made = {
        case.name: (
            case,
            HANDLERS[case.handler],
            chained(case.make(), HANDLERS[case.handler]),
        )
        for case in cases
    }
    for _ in range(rounds):
        for name, (case, bare, chain) in made.items():
            pair = []
            for handler in (bare, chain):
                gc.collect()
                gc.disable()
                # A task for each, as a connection has: no stale contexts.
                one = run(handler, case, REQUESTS)
                pair.append(await asyncio.create_task(one))
                gc.enable()
            found.setdefault(name, []).append((pair[0], pair[1]))
    return found


async def count(name: str, requests: int) -> None:
    """Only run: something else counts the instructions."""
    case = next(case for case in CASES if case.name == name)
    chain = chained(case.make(), HANDLERS[case.handler])
    gc.disable()
    await run(chain, case, requests)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--others", action="store_true")
    options.add_argument("--only")
    options.add_argument("--requests", type=int, default=0)
    given = options.parse_args()
    # Records are made as they are in production, and thrown away.
    logging.getLogger().addHandler(logging.NullHandler())
    if given.only:
        asyncio.run(count(given.only, given.requests))
    else:
        cases = [CASES[0], *others()] if given.others else CASES
        json.dump(asyncio.run(times(cases, given.rounds)), sys.stdout)


if __name__ == "__main__":
    main()
