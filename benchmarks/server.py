"""One application to be put under load, on the first core of the machine."""

import argparse
import asyncio
import logging
import os

from aiohttp import web
from cases import ORIGIN, answer, documented, empty, five

STACKS = {
    "bare": list,
    "five empty": lambda: [empty] * 5,
    "five": five,
    "thirteen empty": lambda: [empty] * 13,
    "documented": documented,
    "aiohttp-cors": list,
    "aiohttp-remotes": list,
}


async def application(stack: str) -> web.Application:
    if stack == "aiohttp-remotes":
        import aiohttp_remotes  # type: ignore[import-not-found,unused-ignore]

        app = web.Application()
        await aiohttp_remotes.setup(
            app, aiohttp_remotes.XForwardedRelaxed(), aiohttp_remotes.Secure()
        )
    else:
        app = web.Application(middlewares=STACKS[stack]())
    routes = [app.router.add_route(way, "/api/items", answer) for way in WAYS]
    if stack == "aiohttp-cors":
        import aiohttp_cors  # type: ignore[import-not-found,unused-ignore]

        options = aiohttp_cors.ResourceOptions()
        cors = aiohttp_cors.setup(app, defaults={ORIGIN: options})
        for route in routes:
            cors.add(route)
    return app


WAYS = ("GET", "POST")


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("stack", choices=STACKS)
    stack = options.parse_args().stack
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    logging.getLogger("aiohttp_middlewares").setLevel(logging.CRITICAL)
    runner = web.AppRunner(await application(stack), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
