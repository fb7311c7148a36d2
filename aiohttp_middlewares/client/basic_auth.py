"""
=================
Client basic auth
=================

Sends a user name and a password (HTTP basic authentication, RFC 7617) to the
given origins and to no others: for clients of services that ask for them. An
application asks for them with :mod:`aiohttp_middlewares.basic_auth`.

Usage
=====

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import basic_auth_middleware


    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Authorization"])


    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handle)
        async with TestServer(app) as server:
            basic = basic_auth_middleware(
                "Aladdin", "open sesame", origins=[server.make_url("/")]
            )
            async with (
                aiohttp.ClientSession(middlewares=[basic]) as session,
                session.get(server.make_url("/")) as response,
            ):
                text = await response.text()
                assert text == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


    asyncio.run(main())

Order
=====

Inside of a retry middleware; inside of what turns requests to other URLs.

Limits
======

The credentials are sent without being asked for. Over plain http everybody on
the way can read them.
"""

import base64
import unicodedata
from collections.abc import Collection

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    hdrs,
)
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._headers import header_for_now
from aiohttp_middlewares.client._origins import origin_of, parse_origins

__all__ = ("basic_auth_middleware",)


def basic_auth_middleware(
    login: str,
    password: str,
    *,
    origins: Collection[str | URL],
    encoding: str = "utf-8",
) -> ClientMiddlewareType:
    """Send these credentials to these origins.

    :param login: The user name; it may not contain a colon.
    :param password: The password.
    :param origins: The origins that get them, such as
        ``"https://api.example.com"``. There any other ``Authorization`` is
        replaced; requests elsewhere, also after a redirect, are not touched.
    :param encoding: The encoding of both; by default UTF-8.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no origin, for a colon or a control
        character, and for an encoding that does not have all characters.
    """
    what = "basic_auth_middleware"
    trusted = parse_origins(f"{what} origins", origins)
    # No value is shown here: they are secrets.
    for name, value in (("login", login), ("password", password)):
        if not isinstance(value, str):
            raise TypeError(f"{what} {name} should be a string")
        if any(unicodedata.category(character) == "Cc" for character in value):
            raise ValueError(
                f"{what} {name} should be without control characters"
            )
    if ":" in login:
        raise ValueError(f"{what} login should be without a colon")
    if not isinstance(encoding, str):
        options.refuse(TypeError, f"{what} encoding", "a string", encoding)
    try:
        pair = f"{login}:{password}".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        raise ValueError(
            f"{what} encoding should be one that has all characters"
        ) from None
    credentials = f"Basic {base64.b64encode(pair).decode('ascii')}"

    async def basic_auth(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if origin_of(req.url) not in trusted:
            return await handler(req)
        with header_for_now(req, hdrs.AUTHORIZATION, credentials):
            return await handler(req)

    return basic_auth
