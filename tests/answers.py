"""Every kind of answer that an application can give, and what it looks like.

For the tests of all middlewares: ``serve(app)`` adds a page for each of
:data:`KINDS`, at its name and for every method but TRACE, and each kind knows
what to send for it and what comes back.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aiohttp import HttpVersion11, web

from aiohttp_middlewares import get_error_response
from aiohttp_middlewares.annotations import Handler, Middleware

NOTHING: Mapping[str, str] = MappingProxyType({})
UPGRADE: Mapping[str, str] = MappingProxyType(
    {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
)


class Failed(Exception):
    """What the handlers here fail with, so that it can be told in a log."""


class Kind(NamedTuple):
    name: str
    status: int
    #: None for a page that the application does not have.
    handler: Handler | None
    #: What it takes to be asked this way.
    fields: Mapping[str, str] = NOTHING

    @property
    def path(self) -> str:
        return f"/{self.name}"

    def __str__(self) -> str:
        return f"{self.name}-{self.status}"


async def returned(request: web.Request) -> web.StreamResponse:
    return web.Response(text="returned")


async def compressed(request: web.Request) -> web.StreamResponse:
    """By aiohttp itself."""
    response = web.Response(text="compressed" * 100)
    response.enable_compression()
    return response


async def empty(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def prepared(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="prepared")
    await response.prepare(request)
    return response


async def sent(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="sent")
    await response.prepare(request)
    await response.write_eof()
    return response


async def streamed(request: web.Request) -> web.StreamResponse:
    return await _stream(request, web.StreamResponse())


async def streamed_with_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 8
    return await _stream(request, response)


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    if request.version == HttpVersion11:
        response.enable_chunked_encoding()
    return await _stream(request, response)


async def _stream(
    request: web.Request, response: web.StreamResponse
) -> web.StreamResponse:
    await response.prepare(request)
    if request.method != "HEAD":  # aiohttp would send it
        await response.write(b"stre")
        await response.write(b"amed")
    return response


async def file(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(__file__)


async def raised(request: web.Request) -> web.StreamResponse:
    raise web.HTTPGone(text="raised")


async def redirected(request: web.Request) -> web.StreamResponse:
    redirect = web.HTTPFound("/returned")
    redirect.set_cookie("seen", "yes")
    raise redirect


async def not_modified(request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotModified


async def rendered(request: web.Request) -> web.StreamResponse:
    """By an error handler, for an exception that went no further."""
    return await get_error_response(request, web.HTTPConflict())


async def failed(request: web.Request) -> web.StreamResponse:
    raise Failed


async def none(request: web.Request) -> web.StreamResponse:
    return None  # type: ignore[return-value]


async def late(request: web.Request) -> web.StreamResponse:
    raise asyncio.TimeoutError


async def websocket(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse(timeout=0.001)
    await response.prepare(request)
    await response.close()
    return response


LATER = "Fri, 01 Jan 2100 00:00:00 GMT"
KINDS = [
    Kind("returned", 200, returned),
    Kind("compressed", 200, compressed, {"Accept-Encoding": "gzip"}),
    Kind("empty", 204, empty),
    Kind("prepared", 200, prepared),
    Kind("sent", 200, sent),
    Kind("streamed", 200, streamed),
    Kind("streamed_with_length", 200, streamed_with_length),
    Kind("events", 200, events),
    Kind("file", 200, file),
    Kind("file", 206, file, {"Range": "bytes=1-5"}),
    Kind("file", 304, file, {"If-Modified-Since": LATER}),
    Kind("file", 416, file, {"Range": "bytes=99999999-"}),
    Kind("websocket", 101, websocket, UPGRADE),
    Kind("websocket", 400, websocket),
    Kind("raised", 410, raised),
    Kind("redirected", 302, redirected),
    Kind("not_modified", 304, not_modified),
    Kind("rendered", 409, rendered),
    Kind("nowhere", 404, None),
    Kind("not_allowed", 405, None),
    Kind("failed", 500, failed),
    Kind("none", 500, none),
    Kind("late", 504, late),
]


def serve(app: web.Application) -> web.Application:
    """Add the pages of all kinds."""
    handlers = {kind.name: kind.handler for kind in KINDS}
    for name, handler in handlers.items():
        if handler is not None:
            app.router.add_route("*", f"/{name}", handler)
    app.router.add_route("TRACE", "/not_allowed", returned)
    return app


def application(*middlewares: Middleware) -> web.Application:
    return serve(web.Application(middlewares=middlewares))
