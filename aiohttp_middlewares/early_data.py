"""
=====================
Early data middleware
=====================

Refuses requests that change something and came in the early data (0-RTT) of TLS
1.3, for applications behind a proxy that has it switched on (``ssl_early_data
on`` in nginx): whoever recorded such a request can replay it (RFC 8470).

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import early_data_middleware, error_middleware

    app = web.Application(
        middlewares=[
            error_middleware(),
            early_data_middleware(allow={"/search": "POST"}),
        ]
    )

The proxy adds ``Early-Data: 1`` to a request that it cannot be sure of. Unless
its method is safe (``GET``, ``HEAD``, ``OPTIONS``, ``TRACE``), the answer is
``425 Too Early``, and browsers and proxies send it again when the handshake is
over.

For nginx:

.. code-block:: nginx

    ssl_early_data on;
    proxy_set_header Early-Data $ssl_early_data;

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, outside of all that spends
something on a request or counts it.

Limits
======

A ``GET`` that changes something is not protected; raise :class:`HTTPTooEarly`
in its handler if the request has the header. aiohttp itself has no early
data, so without such a proxy this does nothing.
"""

import logging

from aiohttp import web
from multidict import istr

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls
from aiohttp_middlewares.constants import IDEMPOTENT_METHODS

__all__ = ("EARLY_DATA", "HTTPTooEarly", "early_data_middleware")

EARLY_DATA = istr("Early-Data")

logger: logging.Logger = logs.get_logger(__name__)


class HTTPTooEarly(web.HTTPClientError):
    """425, RFC 8470 section 5.2."""

    status_code = 425
    # aiohttp 4 looks up those of its own statuses only.
    default_reason = "Too Early"


def early_data_middleware(*, allow: Urls | None = None) -> Middleware:
    """Answer 425 to unsafe requests that somebody may have recorded.

    Any ``Early-Data`` field counts, whatever its value and however many there
    are (RFC 8470 section 5.1).

    :param allow:
        URLs for which being repeated does no harm: a collection of paths,
        patterns and URLs, or a mapping of them to methods. By default: none.
    :raises HTTPTooEarly: by the middleware.
    :raises TypeError: the option is of the wrong type.
    :raises ValueError: a URL rule can never fit.
    """
    what = "early_data_middleware"
    allowed = exemption(f"{what} allow", allow)

    @middleware
    async def early_data(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if (
            EARLY_DATA not in request.headers
            or request.method in _SAFE_METHODS
            or (allowed is not None and allowed(request))
        ):
            return await handler(request)
        logs.refused(logger, request, "it came in early data")
        raise HTTPTooEarly(text="Too early, please send it again")

    return early_data


# RFC 9110 9.2.1 has them under this name.
_SAFE_METHODS = frozenset(IDEMPOTENT_METHODS)
