"""
================
HTTPS middleware
================

Sets the scheme of requests to ``https`` behind a reverse proxy that ends TLS,
so that ``request.scheme``, ``request.secure`` and ``request.url`` say what the
visitor sees.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import https_middleware

    # X-Forwarded-Proto: https, from the proxies of this network only
    app = web.Application(
        middlewares=[https_middleware(trusted=["10.0.0.0/8", "unix"])]
    )

    # Forwarded: for=192.0.2.1;proto=https (RFC 7239)
    app = web.Application(
        middlewares=[
            https_middleware({"Forwarded": "https"}, trusted=["127.0.0.1"])
        ]
    )

Order
=====

Outside of everything that builds URLs, sets cookies or asks for the scheme.
Middlewares further out see the request as it came.

Limits
======

Without ``trusted``, anybody who can reach the application without the proxy can
claim to have come by HTTPS: then secure cookies are set in clear text, and
there is no redirect to HTTPS.

The request that goes on is a clone: one that a middleware further out keeps
has the old scheme. What is stored in either (``request["user"]``) is seen in
both. A request whose body has been read cannot be cloned; it goes on
unchanged.
"""

import logging
from collections.abc import Mapping

from aiohttp import web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.forwarded import (
    forwarded_nearest_first,
    nearest_first,
)
from aiohttp_middlewares._core.grammar.networks import PeerCollection
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import Peers, go_on, lines, warn_once
from aiohttp_middlewares.annotations import (
    DictStrStr,
    Handler,
    Middleware,
)

__all__ = ("DEFAULT_MATCH_HEADERS", "https_middleware")

#: What nearly all proxies send.
DEFAULT_MATCH_HEADERS: DictStrStr = {"X-Forwarded-Proto": "https"}

logger: logging.Logger = logs.get_logger(__name__)


def https_middleware(
    match_headers: Mapping[str, str] | None = None,
    *,
    trusted: PeerCollection | None = None,
) -> Middleware:
    """Believe a proxy that says that the visitor came by HTTPS.

    :param match_headers:
        The headers that say so: names and the value that means HTTPS, without
        case. Any of them will do. Of a list the last element counts: the
        nearest proxy wrote it. ``{"Forwarded": "https"}`` reads ``proto`` of
        RFC 7239. By default: :data:`DEFAULT_MATCH_HEADERS`.
    :param trusted:
        The peers that may say so: IP addresses and networks, and ``"unix"``
        for those on a unix socket. What counts is who is at the other end of
        the socket. ``[]`` trusts nobody; by default everybody is believed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a header name or an address is none.
    """
    what = "https_middleware"
    wanted = _wanted(f"{what} match_headers", match_headers)
    peers = None if trusted is None else Peers(f"{what} trusted", trusted)
    names = [name for name, _ in wanted]
    too_late = warn_once(
        logger,
        "The scheme of requests cannot be set after their body was read: "
        "move https_middleware further out",
    )

    @middleware
    async def https(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        headers = request.headers
        for name in names:
            if name in headers:
                break
        else:
            return await handler(request)
        if request.scheme == "https" or not (peers is None or request in peers):
            return await handler(request)
        for name, value in wanted:
            if _says(lines(request, name), name, value):
                return await go_on(request, handler, too_late, scheme="https")
        return await handler(request)

    return https


def _wanted(
    what: str, match_headers: Mapping[str, str] | None
) -> list[tuple[istr, str]]:
    if match_headers is None:
        match_headers = DEFAULT_MATCH_HEADERS
    if not isinstance(match_headers, Mapping):
        options.refuse(
            TypeError,
            what,
            "a mapping of header names to values",
            match_headers,
        )
    options.tokens(what, "header names", match_headers.keys())
    for value in match_headers.values():
        if not isinstance(value, str):
            options.refuse(TypeError, what, "a mapping to strings", value)
    return [
        (istr(name), value.strip().lower())
        for name, value in match_headers.items()
    ]


def _says(said: list[str], name: istr, value: str) -> bool:
    if len(said) == 1 and said[0].lower() == value:
        return True  # as most proxies have it
    last = next(nearest_first(said), "").lower()
    if last != value and name.lower() == "forwarded":
        nearest = next(forwarded_nearest_first(said), {})
        last = nearest.get("proto", "").lower()
    # What some proxies say of a WebSocket that came by TLS.
    return last == value or (last == "wss" and value == "https")
