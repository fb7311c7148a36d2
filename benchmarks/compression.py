"""Compression beside aiohttp's own and Starlette's: same bodies, same run.

``python -m benchmarks.compression`` serves each body by each implementation
over loopback to a client in a process of its own, and prints how long an answer
takes, how large it is, and by how much a heartbeat on the server's event loop
was late at worst. Starlette is served by uvicorn; without these two packages
its lines are left out. The levels are those that each has by default.
"""

import asyncio
import json
import random
import socket
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from aiohttp_middlewares import compression_middleware

BEAT = 0.005  # seconds

#: Asks for a path so many times, and prints seconds and bytes of each answer.
CLIENT = """
import json, socket, sys, time
port, path, accept, times = sys.argv[1:]
found = []
for _ in range(int(times)):
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", int(port))) as server:
        server.sendall(
            f"GET {path} HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n"
            f"Accept-Encoding: {accept}\\r\\n\\r\\n".encode()
        )
        received = b"".join(iter(lambda: server.recv(1 << 20), b""))
    end = time.perf_counter()
    head, _, body = received.partition(b"\\r\\n\\r\\n")
    coding = [
        line.split(b": ")[1].decode()
        for line in head.split(b"\\r\\n")
        if line.lower().startswith(b"content-encoding")
    ]
    found.append((end - start, len(body), coding))
print(json.dumps(found))
"""


def items(size: int) -> bytes:
    """JSON as an API sends it, of about so many bytes."""
    chance = random.Random(size)
    words = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=length))
        for length in chance.choices(range(2, 12), k=2000)
    ]
    rows, length = [], 0
    while length < size:
        row = {
            "id": chance.randrange(10**9),
            "name": " ".join(chance.choices(words, k=3)),
            "text": " ".join(chance.choices(words, k=20)),
            "price": chance.randrange(10**5) / 100,
        }
        rows.append(json.dumps(row))
        length += len(rows[-1]) + 2
    return ("[" + ", ".join(rows) + "]").encode()


BODIES = {
    f"/{name}": items(size)
    for name, size in {
        "2 kB": 2_000,
        "50 kB": 50_000,
        "1 MB": 1_000_000,
        "20 MB": 20_000_000,
    }.items()
}
BODIES = {path.replace(" ", "-"): body for path, body in BODIES.items()}
TIMES = {"/2-kB": 200, "/50-kB": 100, "/1-MB": 20, "/20-MB": 3}


class Heartbeat:
    """How late the event loop was at worst."""

    def __init__(self) -> None:
        self.latest = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT
            await asyncio.sleep(BEAT)
            self.latest = max(self.latest, loop.time() - due)


async def plain(request: web.Request) -> web.Response:
    body = BODIES[request.path]
    return web.Response(body=body, content_type="application/json")


async def own(request: web.Request) -> web.Response:
    response = await plain(request)
    response.enable_compression()
    return response


Stop = Callable[[], Awaitable[None]]


async def aiohttp_server(
    handler: Callable[[web.Request], Awaitable[web.Response]], *middlewares: Any
) -> tuple[int, Stop]:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/{name}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    return listener.getsockname()[1], runner.cleanup


async def starlette_server() -> tuple[int, Stop]:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        body = BODIES[request.url.path]
        return Response(body, media_type="application/json")

    app = Starlette(
        routes=[Route("/{name}", answer)],
        middleware=[Middleware(GZipMiddleware)],
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110  (it has nothing to wait for)
        await asyncio.sleep(0.01)

    async def stop() -> None:
        server.should_exit = True
        await serving

    return listener.getsockname()[1], stop


async def ask(
    port: int, path: str, accept: str, times: int
) -> list[tuple[float, int, list[str]]]:
    command = (sys.executable, "-c", CLIENT, port, path, accept, times)
    client = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await client.communicate()
    found: list[tuple[float, int, list[str]]] = json.loads(out)
    return found


async def measure(
    name: str, port: int, accept: str, coding: str | None
) -> None:
    for path, body in BODIES.items():
        times = TIMES[path]
        await ask(port, path, accept, 2)  # to warm up
        heartbeat = Heartbeat()
        beating = asyncio.create_task(heartbeat.run())
        answers = await ask(port, path, accept, times)
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
        for _, _, codings in answers:
            if codings != ([] if coding is None else [coding]):
                raise RuntimeError(f"{name} answered with {codings}")
        median = statistics.median(seconds for seconds, _, _ in answers)
        size = answers[0][1]
        print(
            f"{name:34}{path[1:]:>7}{median * 1e3:10.2f} ms"
            f"{size:12,} B {size / len(body):5.0%}"
            f"{heartbeat.latest * 1e3:8.1f} ms late"
        )


async def main() -> None:
    servers: list[tuple[str, Any, str, str | None]] = [
        ("no compression", aiohttp_server(plain), "identity", None),
        ("aiohttp's own, deflate", aiohttp_server(own), "deflate", "deflate"),
        ("aiohttp's own, gzip", aiohttp_server(own), "gzip", "gzip"),
    ]
    with suppress(ImportError):
        import starlette
        import uvicorn  # noqa: F401

        version = starlette.__version__
        name = f"Starlette {version} GZip, level 9"
        servers.append((name, starlette_server(), "gzip", "gzip"))
    for coding, level in (("gzip", 6), ("br", 4), ("zstd", 3)):
        with suppress(ImportError):
            middleware = compression_middleware(encodings=[coding])
            server = aiohttp_server(plain, middleware)
            name = f"compression_middleware, {coding} {level}"
            servers.append((name, server, coding, coding))
    for name, server, accept, expected in servers:
        port, stop = await server
        await measure(name, port, accept, expected)
        await stop()


if __name__ == "__main__":
    asyncio.run(main())
