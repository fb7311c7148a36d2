"""
================
HTTPS middleware
================

Sets the scheme of requests to ``https`` where a proxy in front has taken off
the TLS, so that ``request.scheme``, ``request.secure`` and ``request.url``
say what the visitor sees.

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

Without ``trusted`` anybody who reaches the application past the proxy can
claim to have come by HTTPS: then secure cookies are set in clear text, and a
redirect to HTTPS does not happen.

The request that goes on is a clone. What the handler stores in it
(``request["user"]``) is not seen by middlewares outside, and aiohttp does not
close the temporary files of a multipart body that was read from it: they are
closed when they are collected. A request whose body has been read cannot be
cloned; it goes on unchanged.
"""

import logging
from collections.abc import Mapping

from aiohttp import hdrs, web
from multidict import istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.fields import elements, parameters
from aiohttp_middlewares._core.grammar.networks import PeerCollection, Peers
from aiohttp_middlewares._core.requests import cloned
from aiohttp_middlewares.annotations import (
    DictStrStr,
    Handler,
    Middleware,
)

DEFAULT_MATCH_HEADERS: DictStrStr = {"X-Forwarded-Proto": "https"}

logger = logging.getLogger(__name__)


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
    #: A quick no, where only one header can say so.
    only = wanted[0][0] if len(wanted) == 1 else None
    warned = False

    @web.middleware
    async def https(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        nonlocal warned
        headers = request.headers
        if only is not None and only not in headers:
            return await handler(request)
        for name, value in wanted:
            lines = headers.getall(name, None)
            if lines and _says(lines, name, value):
                break
        else:
            return await handler(request)
        if request.scheme == "https" or not (peers is None or request in peers):
            return await handler(request)
        try:
            request = cloned(request, scheme="https")
        except RuntimeError:  # its body has been read
            if not warned:
                warned = True
                logger.warning(
                    "The scheme of requests cannot be set after their body "
                    "was read: move https_middleware further out"
                )
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


def _says(lines: list[str], name: istr, value: str) -> bool:
    if len(lines) == 1 and lines[0].lower() == value:
        return True  # as most proxies have it
    said = elements(lines)
    if not said:
        return False
    last = said[-1].lower()
    if name == hdrs.FORWARDED and last != value:
        last = parameters(last).get("proto", "")
    # What some proxies say of a WebSocket that came by TLS.
    return last == value or (last == "wss" and value == "https")
