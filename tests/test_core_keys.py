"""Request keys that warn on no aiohttp."""

from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares._core.keys import request_key

KEY = request_key("thing", str)


async def test_key_works_without_a_warning_and_through_a_clone(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        request[KEY] = "stored"  # filterwarnings = error
        return web.Response(text=request.clone()[KEY])

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert await response.text() == "stored"


def test_key_is_typed_where_aiohttp_has_typed_keys() -> None:
    typed = getattr(web, "RequestKey", None)
    assert type(KEY) is (str if typed is None else typed)
    assert "thing" in str(KEY)
