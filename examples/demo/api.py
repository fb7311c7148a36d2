"""The API: all the middlewares, and handlers that need them."""

import asyncio
import logging

from aiohttp import web

from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    debug_error_handler,
    default_error_handler,
    drain_shielded,
    error_middleware,
    https_middleware,
    problem_error_handler,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.cors import DEFAULT_ALLOW_HEADERS

#: For how many seconds a handler may think before it begins to answer.
LIMIT = 1.0

logger = logging.getLogger(__name__)
routes = web.RouteTableDef()


def create_api(page: str) -> web.Application:
    """The application for the pages of one origin."""
    app = web.Application(
        middlewares=[
            https_middleware(trusted=["127.0.0.1"]),
            cors_middleware(
                origins=[page],
                allow_credentials=True,
                # The page plays the proxy that would send this one.
                allow_headers=[*DEFAULT_ALLOW_HEADERS, "X-Forwarded-Proto"],
                # Retry-After is of use to a page; the others are for show.
                expose_headers=[
                    "Access-Control-Allow-Origin",
                    "Retry-After",
                    "Vary",
                ],
                max_age=600,
            ),
            error_middleware(
                default_handler=default_error_handler,
                config={
                    "/errors/problem": problem_error_handler,
                    "/errors/debug": debug_error_handler,
                },
            ),
            timeout_middleware(LIMIT),
            shield_middleware(
                methods=NON_IDEMPOTENT_METHODS,
                ignore=["/transfers/unshielded"],
            ),
        ]
    )
    app[LEDGER] = {}
    app.add_routes(routes)
    app.cleanup_ctx.append(drain_shielded)
    return app


# Errors
# ======


class SoldOut(Exception):
    status = 409


@routes.get("/errors/json")
@routes.get("/errors/problem")
async def sold_out(request: web.Request) -> web.Response:
    raise SoldOut("Only 2 left, and you want 3")


@routes.get("/errors/debug")
@routes.get("/errors/bug")
async def bug(request: web.Request) -> web.Response:
    guests: list[str] = []
    return web.json_response({"share": 100 / len(guests)})


@routes.get("/errors/busy")
async def busy(request: web.Request) -> web.Response:
    raise web.HTTPTooManyRequests(
        text="Come back in half a minute", headers={"Retry-After": "30"}
    )


@routes.post("/login")
async def login(request: web.Request) -> web.Response:
    redirect = web.HTTPSeeOther("/account")
    redirect.set_cookie("visitor", "42", httponly=True, samesite="Lax")
    raise redirect


@routes.get("/account")
async def account(request: web.Request) -> web.Response:
    return web.json_response({"visitor": request.cookies.get("visitor")})


# Other origins
# =============


@routes.get("/hello")
async def hello(request: web.Request) -> web.Response:
    return web.json_response({"hello": request.headers.get("Origin")})


@routes.delete("/notes/1")
async def delete_note(request: web.Request) -> web.Response:
    return web.json_response({"deleted": 1})


@routes.get("/ticks/{count:[1-9]}")
async def ticks(request: web.Request) -> web.StreamResponse:
    """A stream of server-sent events, four in a second."""
    count = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for tick in range(1, count + 1):
        await response.write(f"data: {tick} of {count}\n\n".encode())
        await asyncio.sleep(0.25)
    return response


# Time
# ====


@routes.get("/slow")
async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.json_response({"answer": 42})


# Writes in two stages
# ====================

#: The transfers that there are, and the seconds between their stages.
TRANSFERS = {"shielded": 0.8, "unshielded": 0.8, "late": LIMIT + 0.5}
LEDGER = web.AppKey("LEDGER", dict[str, list[str]])
TRANSFER = f"/transfers/{{name:{'|'.join(TRANSFERS)}}}"


@routes.post(TRANSFER)
async def transfer(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    stages = request.app[LEDGER][name] = []

    def write(stage: str) -> None:
        stages.append(stage)
        logger.info("Transfer %s: %s", name, stage)

    write("taken from A")
    try:
        await asyncio.sleep(TRANSFERS[name])  # the bank at work
    except asyncio.CancelledError:
        write("cut off, B gets nothing")
        raise
    write("given to B")
    return web.json_response(stages)


@routes.get(TRANSFER)
async def ledger(request: web.Request) -> web.Response:
    """What has been written of the last transfer of that name."""
    stages = request.app[LEDGER].get(request.match_info["name"], [])
    return web.json_response({"stages": stages, "over": len(stages) == 2})


# The scheme
# ==========


@routes.get("/scheme")
async def scheme(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "scheme": request.scheme,
            "secure": request.secure,
            "url": str(request.url),
        }
    )
