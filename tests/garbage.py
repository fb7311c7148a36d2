"""What is left of requests for the garbage collector to find."""

import asyncio
import gc
from weakref import ref

from aiohttp import web
from answers import KINDS, serve
from live import eventually, live

from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler, Middleware


async def no_more_than_without(*middlewares: Middleware) -> None:
    """Of none of the answers more requests live on than without them."""
    bare = await left_behind({})
    assert await left_behind(bare, *middlewares) == bare


async def left_behind(
    allowed: dict[str, int], *middlewares: Middleware
) -> dict[str, int]:
    """How many requests of each kind live on when their connection is closed.

    At least as many as allowed; it waits a little for those beyond that.
    """
    requests: list[ref[web.Request]] = []

    @middleware
    async def notes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        requests.append(ref(request))
        return await handler(request)

    found = {}
    app = serve(web.Application(middlewares=[notes, *middlewares]))
    async with live(app) as site:
        gc.collect()
        gc.disable()
        try:
            for kind in KINDS:
                requests.clear()
                fields = "".join(
                    f"{name}: {text}\r\n" for name, text in kind.fields.items()
                )
                for _ in range(3):
                    connection = await site.connect()
                    connection.send(
                        f"GET {kind.path}",
                        fields=f"{fields}Connection: close\r\n",
                    )
                    await connection.rest()
                    connection.leave()
                await eventually(lambda: not site.connections())
                least = allowed.get(str(kind), 0)
                for _ in range(50 if allowed else 1):
                    await asyncio.sleep(0.002)  # a thread may close a file
                    alive = sum(request() is not None for request in requests)
                    found[str(kind)] = max(least, alive)
                    if alive <= least:
                        break
        finally:
            gc.enable()
    assert len(found) == len(KINDS)
    return found
