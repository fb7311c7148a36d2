"""A server of its own process whose limits are counted in Redis.

Run by test_rate_limit_redis.py, which reads the port from its output and ends
it with SIGTERM.
"""

import asyncio
import sys
from typing import Any

from aiohttp import web

from aiohttp_middlewares import check_rate_limit, rate_limit_middleware
from aiohttp_middlewares.rate_limit import rate_limit


def key(request: web.Request) -> str:
    return request.query["key"]


async def middleware_only(request: web.Request) -> web.Response:
    return web.Response()


@rate_limit("50/hour", key=key)
async def decorated(request: web.Request) -> web.Response:
    return web.Response()


async def checked(request: web.Request) -> web.Response:
    await check_rate_limit(request, "50/hour", key=key(request))
    return web.Response()


def app_of(storage: str, strategy: Any) -> web.Application:
    app = web.Application(
        middlewares=[
            rate_limit_middleware(
                "50/hour;1000/day",
                key=key,
                storage=storage,
                strategy=strategy,
                storage_timeout=20,
                urls=[f"/{strategy}/middleware_only"],
            )
        ]
    )
    for handler in (middleware_only, decorated, checked):
        app.router.add_get(f"/{handler.__name__}", handler)
    return app


async def main(storage: str, *strategies: str) -> None:
    app = web.Application()
    for strategy in strategies:
        app.add_subapp(f"/{strategy}", app_of(storage, strategy))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
