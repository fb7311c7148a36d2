"""
=================
Client request id
=================

Passes the id of the current request (correlation id) on to the services that it
calls: to find one user's request in the logs of all of them.

Usage
=====

.. code-block:: python

    import aiohttp

    from aiohttp_middlewares.client import propagate_request_id_middleware

    propagate = propagate_request_id_middleware(
        origins=["https://users.internal", "https://mail.internal"]
    )


    def make_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(middlewares=[propagate])

The id is the one that :mod:`aiohttp_middlewares.request_id`, the middleware of
the server side, has given to the request being served. Outside of a request
nothing is sent.

Order
=====

Anywhere; outermost, so that all the others see the header.

Limits
======

A task that was started for one request keeps its id for as long as it lives.
"""

from collections.abc import Collection

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares.client._headers import header_for_now
from aiohttp_middlewares.client._origins import origin_of, parse_origins

__all__ = ("DEFAULT_HEADER", "propagate_request_id_middleware")

DEFAULT_HEADER = "X-Request-ID"


def propagate_request_id_middleware(
    *,
    origins: Collection[str | URL],
    header: str = DEFAULT_HEADER,
) -> ClientMiddlewareType:
    """Send the id of the current request to these origins.

    :param origins: The origins that get it, such as
        ``"https://users.internal"``: an id tells strangers which of their
        requests belong together.
    :param header: The header that holds it; by default ``X-Request-ID``. One
        that the caller has set stays.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no origin or no header name.
    """
    what = "propagate_request_id_middleware"
    trusted = parse_origins(f"{what} origins", origins)
    options.header_name(f"{what} header", header)

    async def propagate_request_id(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        request_id = REQUEST_ID.get()
        if (
            request_id is None
            or header in req.headers
            or origin_of(req.url) not in trusted
        ):
            return await handler(req)
        with header_for_now(req, header, request_id):
            return await handler(req)

    return propagate_request_id
