"""A client that leaves is no error."""

import pytest
from aiohttp import ClientPayloadError, web
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import error_middleware


async def test_write_to_a_connection_that_is_being_lost_is_no_error(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        # As asyncio does on a reset; aiohttp hears of it in the next turn.
        assert request.transport is not None
        request.transport.abort()
        await response.write(b"half")
        return response

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    response = await client.get("/")
    with pytest.raises(ClientPayloadError):
        await response.read()
    assert caplog.records == []
