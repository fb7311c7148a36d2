"""What a log record says of a request."""

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import raw
from yarl import URL

from aiohttp_middlewares._core.logs import facts


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a", "/a"),
        (b"/a?token=secret", "/a"),
        (b"/a%0D%0Ab%20c", "/a%0D%0Ab%20c"),
        (b"/%C3%A9", "/%C3%A9"),
        (b"/%FF", "/%FF"),
        (b"*", "*"),
        (b"http://user:secret@b.example/a?b", "/a"),
    ],
)
async def test_path_is_safe_in_any_log_and_holds_no_secret(
    aiohttp_server: AiohttpServer, target: bytes, path: str
) -> None:
    seen: list[dict[str, object]] = []

    @web.middleware
    async def logs(request: web.Request, handler: object) -> web.Response:
        seen.append(facts(request, status=418))
        return web.Response(status=418)

    server = await aiohttp_server(web.Application(middlewares=[logs]))
    await raw(
        server,
        b"OPTIONS %b HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
        % target,
    )
    assert seen == [{"method": "OPTIONS", "path": path, "status": 418}]


async def test_path_that_no_log_file_could_hold_is_escaped(
    aiohttp_client: AiohttpClient,
) -> None:
    # As aiohttp's parser in Python lets it through, and as a clone may have it.
    target = b"/\xc3\xa9\xff".decode(errors="surrogateescape")
    seen: list[object] = []

    @web.middleware
    async def logs(request: web.Request, handler: object) -> web.Response:
        url = URL.build(path=target, encoded=True)
        seen.append(facts(request.clone(rel_url=url))["path"])
        return web.Response()

    client = await aiohttp_client(web.Application(middlewares=[logs]))
    await client.get("/")
    assert seen == ["/\\xe9\\udcff"]
