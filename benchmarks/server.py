"""One application to be put under load, on the first core of the machine."""

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web
from cases import ORIGIN, answer, documented, empty, five, public_api

import aiohttp_middlewares as package


def sessions() -> list[Any]:
    return [package.session_middleware("0123456789abcdef0123456789abcdef")]


def their_sessions() -> list[Any]:
    """aiohttp-session alone, with the least that it can do."""
    import aiohttp_session

    storage = aiohttp_session.SimpleCookieStorage()
    return [aiohttp_session.session_middleware(storage)]


def packages() -> list[Any]:
    """What three of the public API's do in other packages, by itself.

    One record, six calls of prometheus-client, one of limits: nobody who logs,
    measures and limits with these pays less.
    """
    import limits.aio.strategies
    from metrics import six_calls

    logger = logging.getLogger("aiohttp_middlewares.access_log")
    window = limits.aio.strategies.SlidingWindowCounterRateLimiter(
        limits.aio.storage.MemoryStorage()
    )
    limit = limits.parse("1000000/second")

    @web.middleware
    async def log(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        logger.info(
            "%s %s %d %d B %.3f s", request.method, request.path, 200, 2, 0.001
        )
        return response

    @web.middleware
    async def hit(request: web.Request, handler: Any) -> web.StreamResponse:
        await window.hit(limit, request.remote or "")
        response: web.StreamResponse = await handler(request)
        return response

    return [six_calls(), log, hit]


STACKS: dict[str, Callable[[], list[Any]]] = {
    "bare": list,
    "five empty": lambda: [empty] * 5,
    "five": five,
    "thirteen empty": lambda: [empty] * 13,
    "documented": documented,
    "fifteen empty": lambda: [empty] * 15,
    "public API": public_api,
    "packages": packages,
    "session": sessions,
    "aiohttp-session": their_sessions,
    "request id": lambda: [package.request_id_middleware()],
    "access log": lambda: [package.access_log_middleware()],
    "aiohttp's access log": list,
    "server timing": lambda: [package.server_timing_middleware()],
    "metrics": lambda: [package.metrics_middleware()],
    "rate limit": lambda: [package.rate_limit_middleware("1000000/second")],
    "idempotency": lambda: [package.idempotency_middleware()],
    "aiohttp-cors": list,
    "aiohttp-remotes": list,
}


ITEMS = [
    {"id": number, "name": f"item {number}", "tags": ["new", "red"]}
    for number in range(190)
]
LARGE = json.dumps(ITEMS).encode()  # 10 kB


async def large(request: web.Request) -> web.StreamResponse:
    return web.Response(body=LARGE, content_type="application/json")


async def read(request: web.Request) -> web.StreamResponse:
    import aiohttp_session

    session = await aiohttp_session.get_session(request)
    return web.json_response({"user": session.get("user")})


async def changed(request: web.Request) -> web.StreamResponse:
    import aiohttp_session

    session = await aiohttp_session.get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(session["visits"])


HANDLERS = {"answer": answer, "large": large, "read": read, "changed": changed}


async def application(
    stack: str, handler: str = "answer", without: Collection[str] = ()
) -> web.Application:
    if stack == "aiohttp-remotes":
        import aiohttp_remotes  # type: ignore[import-not-found,unused-ignore]

        app = web.Application()
        await aiohttp_remotes.setup(
            app, aiohttp_remotes.XForwardedRelaxed(), aiohttp_remotes.Secure()
        )
    else:
        middlewares = STACKS[stack]()
        for name in without:  # as its factory is called
            (gone,) = (each for each in middlewares if each.__name__ == name)
            middlewares.remove(gone)
        app = web.Application(middlewares=middlewares)
    routes = [
        app.router.add_route(way, "/api/items", HANDLERS[handler])
        for way in WAYS
    ]
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
    options.add_argument("--handler", choices=HANDLERS, default="answer")
    options.add_argument("--without", nargs="*", default=())
    given = options.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    logging.getLogger("aiohttp_middlewares").setLevel(logging.CRITICAL)
    app = await application(given.stack, given.handler, given.without)
    # What is logged is formatted, and thrown away.
    handler = logging.FileHandler(os.devnull)
    logger = logging.getLogger("aiohttp_middlewares.access_log")
    log = logging.getLogger("aiohttp.access")
    for each in (logger, log):
        each.setLevel(logging.INFO)
        each.addHandler(handler)
    theirs = given.stack == "aiohttp's access log"
    runner = web.AppRunner(app, access_log=log if theirs else None)
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
