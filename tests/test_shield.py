"""What a shielded handler raises at the moment in which its client leaves."""

import asyncio
import gc

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer

from aiohttp_middlewares import shield_middleware


async def test_failure_in_the_moment_of_the_cancellation_is_not_lost(
    aiohttp_server: AiohttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    started, over = asyncio.Event(), asyncio.Event()

    async def upload(request: web.Request) -> web.StreamResponse:
        started.set()
        try:
            await request.read()
        except ConnectionResetError:
            # aiohttp cancels the request in the same turn of the event loop.
            if request.path == "/fails":
                raise ValueError("not cleaned up") from None
            raise
        finally:
            over.set()
        raise AssertionError

    app = web.Application(middlewares=[shield_middleware(methods=["POST"])])
    app.router.add_post("/{path}", upload)
    server = await aiohttp_server(app)
    for path, expected in (("leaves", []), ("fails", [ValueError])):
        started.clear()
        over.clear()
        caplog.clear()
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST /%b HTTP/1.1\r\nHost: a\r\n" % path.encode())
        writer.write(b"Content-Length: 9\r\n\r\nhalf")
        await started.wait()
        writer.transport.abort()
        await asyncio.wait_for(over.wait(), 5)
        await asyncio.sleep(0.01)
        gc.collect()  # asyncio complains of exceptions that nobody retrieved
        logged = [record.exc_info for record in caplog.records]
        assert [info[0] for info in logged if info] == expected
