from typing import Any

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    basic_auth_middleware,
    get_claims,
    get_user,
    proxy_headers_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.who import caller_of, set_user


async def test_user_found_inside_of_a_clone_is_seen_outside(
    aiohttp_client: Any,
) -> None:
    seen = []

    @middleware
    async def outside(request, handler):  # type: ignore[no-untyped-def]
        try:
            return await handler(request)
        finally:
            seen.append((get_user(request), caller_of(request).remote))

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"{get_user(request)}")

    app = web.Application(
        middlewares=[
            outside,
            proxy_headers_middleware(trusted=["127.0.0.1"]),
            basic_auth_middleware({"ann": "secret"}),
        ]
    )
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    answer = await client.get(
        "/",
        headers={
            "X-Forwarded-For": "203.0.113.7",
            "Authorization": "Basic YW5uOnNlY3JldA==",
        },
    )
    assert await answer.text() == "ann"
    assert seen == [("ann", "203.0.113.7")]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_user_is_seen_outside_of_clones_that_others_make(
    aiohttp_client: Any, known: bool
) -> None:
    seen = []

    @middleware
    async def outside(request, handler):  # type: ignore[no-untyped-def]
        assert get_user(request) is None
        try:
            return await handler(request)
        finally:
            seen.append((get_user(request), caller_of(request).user))

    @middleware
    async def clones(request, handler):  # type: ignore[no-untyped-def]
        return await handler(request.clone())

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=f"{get_user(request)}")

    app = web.Application(
        middlewares=[
            outside,
            clones,
            basic_auth_middleware({"ann": "secret"}),
            clones,
        ]
    )
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    fields = {"Authorization": "Basic YW5uOnNlY3JldA=="} if known else {}
    answer = await client.get("/", headers=fields)
    assert answer.status == (200 if known else 401)
    assert seen == [("ann", "ann") if known else (None, None)]
    # Another request of the same connection.
    await client.get("/")
    assert seen[1:] == [(None, None)]


async def test_nobody_is_known_without_a_middleware(
    aiohttp_client: Any,
) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.json_response([get_user(request), {**get_claims(request)}])

    app = web.Application()
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    assert await (await client.get("/")).json() == [None, {}]


async def test_claims_cannot_be_changed(aiohttp_client: Any) -> None:
    async def page(request: web.Request) -> web.Response:
        given = {"sub": "ann"}
        set_user(request, "ann", given)
        given["sub"] = "bob"
        assert get_claims(request) == {"sub": "ann"}
        with pytest.raises(TypeError):
            get_claims(request)["sub"] = "bob"  # type: ignore[index]
        return web.Response(text=f"{get_user(request)}")

    app = web.Application()
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    assert await (await client.get("/")).text() == "ann"
