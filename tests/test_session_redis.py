"""Sessions in a real Redis, also when it goes away."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from aiohttp_session.redis_storage import RedisStorage
from conftest import RedisServer
from pytest_aiohttp.plugin import AiohttpClient
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aiohttp_middlewares import error_middleware, session_middleware

pytestmark = pytest.mark.redis

Client = TestClient[web.Request, web.Application]
SERVER = web.AppKey("server", RedisServer)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[Redis]:
    redis: Redis = Redis(
        unix_socket_path=str(redis_server.socket),
        retry=Retry(NoBackoff(), 1),  # by default it tries for seconds
    )
    try:
        yield redis
    finally:
        await redis.aclose()


async def login(request: web.Request) -> web.Response:
    session = await aiohttp_session.new_session(request)
    session["user"] = request.query["user"]
    raise web.HTTPFound("/who")


async def who(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    return web.json_response(session.get("user"))


async def note(request: web.Request) -> web.StreamResponse:
    session = await aiohttp_session.get_session(request)
    session["notes"] = session.get("notes", 0) + 1
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(str(session["notes"]).encode())
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    session = await aiohttp_session.get_session(request)
    session["user"] = "by socket"
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.close()
    return ws


async def logout(request: web.Request) -> web.Response:
    (await aiohttp_session.get_session(request)).invalidate()
    return web.Response()


async def slow(request: web.Request) -> web.StreamResponse:
    session = await aiohttp_session.get_session(request)
    session["user"] = "lost"
    request.app[SERVER].stop()
    if "stream" in request.query:
        response = web.StreamResponse()
        await response.prepare(request)
        return response
    raise web.HTTPFound("/who")


async def ping(request: web.Request) -> web.Response:
    return web.Response(text="pong")


@pytest.fixture
async def client(
    redis: Redis, redis_server: RedisServer, aiohttp_client: AiohttpClient
) -> Client:
    storage = RedisStorage(redis, max_age=3600, samesite="Lax")
    app = web.Application(
        middlewares=[error_middleware(), session_middleware(storage)]
    )
    app[SERVER] = redis_server
    for handler in (login, who, note, socket, logout, slow, ping):
        app.router.add_get(f"/{handler.__name__}", handler)
    return await aiohttp_client(app)


async def asked(client: Client, path: str) -> Any:
    response = await client.get(path)
    assert response.status == 200
    return await response.json(content_type=None)


async def test_login_lasts_until_the_logout(
    client: Client, redis: Redis
) -> None:
    assert await asked(client, "/who") is None
    assert await redis.keys() == []
    assert await asked(client, "/login?user=zoe") == "zoe"
    (key,) = await redis.keys()
    assert 3590 < await redis.ttl(key) <= 3600
    assert await asked(client, "/who") == "zoe"
    await client.get("/logout")
    assert await asked(client, "/who") is None


async def test_streams_and_websockets_save_their_session(
    client: Client,
) -> None:
    assert await asked(client, "/note") == 1
    assert await asked(client, "/note") == 2
    async with client.ws_connect("/socket") as ws:
        await ws.receive()
    assert await asked(client, "/who") == "by socket"
    assert await asked(client, "/note") == 3


async def test_new_session_has_a_new_name(client: Client, redis: Redis) -> None:
    await asked(client, "/login?user=a")
    names = {cookie.value for cookie in client.session.cookie_jar}
    await asked(client, "/login?user=b")
    assert names.isdisjoint(
        {cookie.value for cookie in client.session.cookie_jar}
    )
    assert len(await redis.keys()) == 2


@pytest.mark.parametrize("path", ["/login?user=zoe", "/who", "/note"])
async def test_without_redis_requests_that_need_it_fail(
    client: Client, redis_server: RedisServer, path: str
) -> None:
    assert await asked(client, "/login?user=zoe") == "zoe"
    redis_server.stop()
    response = await client.get(path, allow_redirects=False)
    assert response.status == 500
    assert "Set-Cookie" not in response.headers
    assert (await client.get("/ping")).status == 200

    redis_server.start()
    response = await client.get(path)
    assert response.status == 200


@pytest.mark.parametrize("path", ["/slow", "/slow?stream"])
async def test_redis_that_goes_between_reading_and_saving_is_a_500(
    client: Client,
    redis_server: RedisServer,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await asked(client, "/login?user=zoe") == "zoe"
    response = await client.get(path, allow_redirects=False)
    assert response.status == 500
    assert "Set-Cookie" not in response.headers
    assert any(
        record.levelno == logging.ERROR and record.exc_info
        for record in caplog.records
    )
    redis_server.start()  # it has forgotten everything
    assert await asked(client, "/who") is None
