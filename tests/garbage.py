"""What is left of requests for the garbage collector to find."""

import asyncio
import gc

from aiohttp import web
from answers import KINDS, serve
from live import eventually, live

from aiohttp_middlewares.annotations import Middleware


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
    found = {}
    app = serve(web.Application(middlewares=middlewares))
    async with live(app) as site:
        gc.collect()
        gc.disable()
        try:
            for kind in KINDS:
                before = requests()
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
                left = max(least, requests() - before)
                for _ in range(50):
                    if left == least or not allowed:
                        break
                    await asyncio.sleep(0.01)  # a thread may close a file
                    left = max(least, requests() - before)
                found[str(kind)] = left
        finally:
            gc.enable()
    return found


def requests() -> int:
    return [type(thing) for thing in gc.get_objects()].count(web.Request)
