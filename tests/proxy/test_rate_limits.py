"""Whose requests are counted together, behind nginx."""

import pytest
from aiohttp import ClientSession, web
from certificates import Certificate
from pytest_aiohttp.plugin import AiohttpServer

from aiohttp_middlewares import (
    proxy_headers_middleware,
    rate_limit_middleware,
)
from aiohttp_middlewares.annotations import Middleware
from proxy.conftest import Front, Nginx
from proxy.test_hops import FORGED, OUTER, PROXIES, X_FORWARDED, from_address

ONE, OTHER = "127.0.1.1", "127.0.1.2"


async def front_of(
    nginx: Nginx, aiohttp_server: AiohttpServer, *middlewares: Middleware
) -> Front:
    async def hello(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", hello)
    server = await aiohttp_server(app)
    return await nginx(
        server.make_url("/"),
        headers=X_FORWARDED[0],
        options=f"proxy_bind {OUTER};",
    )


async def status(
    session: ClientSession, front: Front, forged: dict[str, str] | None = None
) -> int:
    async with session.get(front.https, headers=forged) as response:
        assert "RateLimit" in response.headers
        return response.status


async def test_each_visitor_has_a_bucket_whatever_it_says_of_itself(
    nginx: Nginx, aiohttp_server: AiohttpServer, certificate: Certificate
) -> None:
    front = await front_of(
        nginx,
        aiohttp_server,
        proxy_headers_middleware(trusted=PROXIES),
        rate_limit_middleware("2/hour"),
    )
    async with (
        from_address(ONE, certificate) as one,
        from_address(OTHER, certificate) as other,
    ):
        assert await status(one, front) == 200
        assert await status(one, front, FORGED) == 200
        for number in range(3):
            made_up = {"X-Forwarded-For": f"198.51.100.{number}"}
            assert await status(one, front, {**FORGED, **made_up}) == 429
        # Nor can it take what is another's.
        assert await status(one, front, {"X-Forwarded-For": OTHER}) == 429
        assert await status(other, front) == 200
        assert await status(other, front) == 200
        assert await status(other, front) == 429


@pytest.mark.parametrize("order", ["missing", "inside"])
async def test_without_proxy_headers_outside_all_visitors_share_one_bucket(
    nginx: Nginx,
    aiohttp_server: AiohttpServer,
    certificate: Certificate,
    order: str,
) -> None:
    stack = [rate_limit_middleware("1/hour")]
    if order == "inside":
        stack.append(proxy_headers_middleware(trusted=PROXIES))
    front = await front_of(nginx, aiohttp_server, *stack)
    async with (
        from_address(ONE, certificate) as one,
        from_address(OTHER, certificate) as other,
    ):
        assert await status(one, front) == 200
        assert await status(other, front) == 429
