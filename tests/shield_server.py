"""A server of its own process that writes to a file in two stages.

Run by test_shield.py, which sends it SIGTERM. What happens is written to the
file as well, a line for each.
"""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from aiohttp_middlewares import (
    drain_shielded,
    shield,
    shield_middleware,
    timeout_middleware,
)


def main(options: dict[str, Any]) -> None:
    file = Path(options["file"])
    stopping = asyncio.Event()

    def mark(line: str) -> None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{line}\n")

    async def write(request: web.Request) -> web.Response:
        mark("stage 1")
        try:
            if options["client"] == "leaves":
                while request.transport is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                mark("client left")
            await stopping.wait()
            await asyncio.sleep(options["seconds"])
        except asyncio.CancelledError:
            mark("cancelled")
            raise
        mark("stage 2")
        return web.Response(text="written")

    async def database(app: web.Application) -> AsyncIterator[None]:
        yield
        mark("database closed")

    async def on_shutdown(app: web.Application) -> None:
        mark("on_shutdown")
        stopping.set()

    async def on_cleanup(app: web.Application) -> None:
        mark("on_cleanup")

    middlewares = [shield_middleware(methods=["POST"])]
    if options["timeout"] is not None:
        middlewares.insert(0, timeout_middleware(options["timeout"]))
    app = web.Application(middlewares=middlewares)
    app.router.add_post("/write", write)
    app.cleanup_ctx.append(database)
    if options["drain"] is not None:
        shield.DEFAULT_DRAIN_TIMEOUT = options["drain"]
        app.cleanup_ctx.append(drain_shielded)
    app.on_shutdown.append(on_shutdown)
    app.on_cleanup.append(on_cleanup)
    web.run_app(
        app,
        sock=socket.socket(fileno=options["socket"]),
        handler_cancellation=options["handler_cancellation"],
        shutdown_timeout=options["shutdown_timeout"],
        print=None,
    )


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    main(json.loads(sys.argv[1]))
