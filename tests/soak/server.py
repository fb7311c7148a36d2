"""The server that is loaded: a process of its own.

It says its port on standard output; then, for each line on standard input,
its state; and when the input ends it stops, and says what it has written.
"""

import asyncio
import ctypes
import gc
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    MemoryStore,
    concurrency_limit_middleware,
    cors_middleware,
    drain_shielded,
    error_middleware,
    https_middleware,
    idempotency_middleware,
    metrics_middleware,
    rate_limit_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler

ORIGIN = "https://app.example"
#: What handlers may take, in seconds, on a machine that has other work too;
#: and those whose limit is to be reached.
LIMIT = 5.0
SHORT_LIMIT = 0.15
#: How many requests "/limited" answers, and how many "/narrow" at a time.
ADMITTED = 50
NARROW = 3
#: As many writes as there may be.
WRITES = 200_000

#: What has happened, by name.
counts: Counter[str] = Counter()
#: How often each write was begun, and how often it was completed; and how
#: often each payment was made.
begun = bytearray(WRITES)
written = bytearray(WRITES)
paid = bytearray(WRITES)
registry = CollectorRegistry()


class PlannedError(Exception):
    """What a handler raises here."""


class Errors(logging.Handler):
    """Tells the errors of the handlers from all others."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.others: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        while exc is not None and not isinstance(exc, PlannedError):
            exc = exc.__cause__ or exc.__context__
        # asyncio's own complaints are never planned.
        if exc is not None and record.name.startswith("aiohttp"):
            counts["logged"] += 1
        elif len(self.others) < 20:
            formatter = logging.Formatter("%(name)s: %(message)s")
            self.others.append(formatter.format(record))


errors = Errors()


# Handlers
# ========


async def plain(request: web.Request) -> web.StreamResponse:
    return web.Response(text="plain")


async def write(request: web.Request) -> web.StreamResponse:
    """Shielded: once it is begun, all of it has to be done."""
    number = int(request.match_info["number"])
    await request.read()
    begun[number] += 1
    counts["writes begun"] += 1
    for _ in range(3):
        await asyncio.sleep(float(request.query["seconds"]) / 3)
    written[number] += 1
    if request.transport is None:
        counts["written after the client left"] += 1
    if "fails" in request.query:
        counts["raised"] += 1
        raise PlannedError
    return web.Response(text=str(number))


async def pay(request: web.Request) -> web.StreamResponse:
    paid[int(request.match_info["number"])] += 1
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text=request.match_info["number"])


async def limited(request: web.Request) -> web.StreamResponse:
    counts["admitted"] += 1
    return web.Response(text="admitted")


async def narrow(request: web.Request) -> web.StreamResponse:
    counts["in the narrow"] += 1
    counts["most in the narrow"] = max(
        counts["most in the narrow"], counts["in the narrow"]
    )
    try:
        await asyncio.sleep(0.005)
        return web.Response(text="through")
    finally:
        counts["in the narrow"] -= 1


@middleware
async def counting(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    counts["requests"] += 1
    return await handler(request)


async def upload(request: web.Request) -> web.StreamResponse:
    size = 0
    try:
        async for piece in request.content.iter_any():
            size += len(piece)
    except asyncio.CancelledError:
        counts["uploads cancelled"] += 1
        raise
    return web.Response(text=str(size))


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        for _ in range(int(request.query["pieces"])):
            await response.write(bytes(4096))
            await asyncio.sleep(0)
    except (asyncio.CancelledError, ConnectionResetError):
        counts["streams cut"] += 1
        raise
    if "fails" in request.query:
        counts["raised"] += 1
        raise PlannedError
    return response


async def file(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(Path(__file__))


async def fails(request: web.Request) -> web.StreamResponse:
    counts["raised"] += 1
    raise PlannedError


async def slow(request: web.Request) -> web.StreamResponse:
    try:
        await asyncio.Event().wait()
    finally:
        counts["slow ended"] += 1
    raise AssertionError


async def talk(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data)
    return socket


# What it says
# ============


class InUse(ctypes.Structure):
    """What ``mallinfo2()`` of glibc tells: ten sizes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def allocated() -> int:
    """The bytes that malloc has given out; 0 where it is not glibc's.

    What is resident has holes too, so that it grows without a leak.
    """
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = InUse
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def state(server: web.Server, shield: Any) -> dict[str, Any]:
    gc.collect()
    objects = gc.get_objects()
    # There is no public way to ask a loop for its timers.
    timers = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return {
        "counts": counts,
        "objects": len(objects),
        "blocks": sys.getallocatedblocks(),
        "bytes": allocated(),
        "left": {
            "connections": len(server.connections),
            "requests": sum(type(each) is web.Request for each in objects),
            "shielded": len(shield.shielded_handlers),
            "tasks": sorted(
                getattr(task.get_coro(), "__qualname__", "")
                for task in asyncio.all_tasks()
            ),
            "timers": sum(not timer.cancelled() for timer in timers),
        },
    }


def sample(name: str) -> int:
    """The sum of a metric, whatever its labels."""
    return sum(
        int(each.value)
        for metric in registry.collect()
        for each in metric.samples
        if each.name == name
    )


def result() -> dict[str, Any]:
    return {
        "counts": counts,
        "paid twice": [number for number in range(WRITES) if paid[number] > 1],
        "measured": sample("http_server_requests_total"),
        "in progress": sample("http_server_requests_in_progress"),
        "errors": errors.others,
        "begun": [number for number in range(WRITES) if begun[number]],
        "incomplete": [
            number
            for number in range(WRITES)
            if begun[number] != written[number] or begun[number] > 1
        ],
    }


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


async def database(app: web.Application) -> AsyncIterator[None]:
    """Nothing that is written after this is kept."""
    yield
    say(result())


async def main() -> None:
    logging.getLogger().addHandler(errors)
    shield = shield_middleware(methods=NON_IDEMPOTENT_METHODS)
    app = web.Application(
        middlewares=[
            counting,
            https_middleware(trusted=["127.0.0.1"]),
            metrics_middleware(registry=registry),
            cors_middleware(origins=[ORIGIN], allow_credentials=True),
            error_middleware(),
            rate_limit_middleware(
                f"{ADMITTED}/day", key=lambda request: "all", urls=["/limited"]
            ),
            concurrency_limit_middleware(
                NARROW, backlog=5, ignore=[re.compile("/(?!narrow)")]
            ),
            timeout_middleware(
                LIMIT, limits={re.compile("/(slow|write)"): SHORT_LIMIT}
            ),
            shield,
            # Few are remembered, so that what is kept does not look lost.
            idempotency_middleware(store=MemoryStore(max_entries=200)),
        ]
    )
    app.router.add_get("/plain", plain)
    app.router.add_post("/write/{number}", write)
    app.router.add_post("/pay/{number}", pay)
    app.router.add_get("/limited", limited)
    app.router.add_get("/narrow", narrow)
    app.router.add_put("/upload", upload)
    app.router.add_get("/stream", stream)
    app.router.add_get("/file", file)
    app.router.add_get("/fails", fails)
    app.router.add_get("/slow", slow)
    app.router.add_get("/talk", talk)
    app.cleanup_ctx.extend([database, drain_shielded])

    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=10
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    # What is there now is there for good, and need not be looked at again.
    gc.collect()
    gc.freeze()
    say(runner.addresses[0][1])

    lines = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while await lines.readline():
        assert runner.server is not None
        say(state(runner.server, shield))
    await runner.cleanup()
    pipe.close()


if __name__ == "__main__":
    asyncio.run(main())
