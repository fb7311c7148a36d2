"""
===============
CSRF middleware
===============

Refuses cross-site request forgeries, requests that a page of another origin
makes a browser send in its user's name, for applications that know their users
by a cookie or by basic authentication. It needs no tokens and keeps no state.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import csrf_middleware, error_middleware

    app = web.Application(
        middlewares=[
            error_middleware(),
            csrf_middleware(
                trusted_origins=[
                    "https://login.example.com",
                    "https://*.example.net",
                ],
                ignore={"/webhooks": "POST"},
            ),
        ]
    )

How it decides
==============

Like ``CrossOriginProtection`` of Go's ``net/http``, by the first that fits:

1. ``GET``, ``HEAD`` and ``OPTIONS`` pass: they must not change anything. But
   a WebSocket handshake, which is a ``GET``, is looked at like the rest.
2. ``Sec-Fetch-Site`` says ``same-origin``, or ``none`` (the user typed the
   address): it passes. Browsers send this header, pages cannot.
3. ``Origin`` is one of ``trusted_origins``: it passes.
4. ``Sec-Fetch-Site`` says anything else: 403.
5. There is neither header: it passes. This is not a browser.
6. ``Origin`` has the scheme, the host and the port of this request: it
   passes. Else: 403.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers`, which knows the scheme and
the host that ``Origin`` is compared with; inside of
:mod:`aiohttp_middlewares.error`, which renders the refusal, and of
:mod:`aiohttp_middlewares.cors`, which answers preflights.

Limits
======

A ``GET`` that changes something is not protected. Browsers older than 2023
send no ``Sec-Fetch-Site``, and all of them send it to HTTPS and localhost only:
without it ``Origin`` alone decides. It is ``null``, and refused, for the forms
of a page sent with ``Referrer-Policy: no-referrer``, the default of
:mod:`aiohttp_middlewares.security_headers`: a site that is served by plain HTTP
needs ``referrer_policy="same-origin"`` there. A cross-origin page that
:mod:`aiohttp_middlewares.cors` allows to write must be listed here as well.
"""

import logging

from aiohttp import web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.cross_origin import (
    SAME_ORIGIN,
    SEC_FETCH_SITE,
    is_cross_origin,
    said_origin,
    said_site,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import authority_text, is_handshake
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    UrlCollection,
    Urls,
)

__all__ = ("SEC_FETCH_SITE", "csrf_middleware")

logger: logging.Logger = logs.get_logger(__name__)


def csrf_middleware(
    *,
    trusted_origins: UrlCollection = (),
    ignore: Urls | None = None,
    allow_same_site: bool = False,
) -> Middleware:
    """Refuse what browsers send for the pages of other origins.

    :param trusted_origins:
        Whose pages may write all the same: origins such as
        ``"https://example.com"``, ``"https://*.example.com"`` and
        ``"http://localhost:*"``, URLs and patterns, by the rules of
        :func:`~aiohttp_middlewares.cors.cors_middleware`. By default: none.
    :param ignore:
        URLs that anybody may write to: a collection of paths, patterns and
        URLs, or a mapping of them to methods. By default: none.
    :param allow_same_site:
        Let the pages of other hosts of the same site (``shop.example.com``
        for ``example.com``) write. Only if all of them are as safe as this
        one. By default: ``False``.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an origin or a URL can never fit.
    """
    what = "csrf_middleware"
    listed = options.items(
        f"{what} trusted_origins", "origins", trusted_origins
    )
    # Any page can open a frame whose origin is null.
    for everybody in ("*", "null", "file://"):
        if everybody in listed:
            raise ValueError(
                f"{what} trusted_origins [{everybody!r}] would trust every "
                "page; list the origins"
            )
    trusted = options.origins(f"{what} trusted_origins", listed)
    options.flag(f"{what} allow_same_site", allow_same_site)
    ignored = exemption(f"{what} ignore", ignore)
    good_sites = SAME_ORIGIN
    if allow_same_site:
        good_sites |= {"same-site"}

    @middleware
    async def csrf(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        # TRACE would be safe for RFC 9110 9.2.1; no browser sends it.
        if request.method in _SAFE_METHODS and not is_handshake(request):
            return await handler(request)
        if not is_cross_origin(request, sites=good_sites, trusted=trusted):
            return await handler(request)
        if ignored is not None and ignored(request):
            return await handler(request)
        logs.refused(
            logger,
            request,
            "it comes from another origin",
            origin=said_origin(request),
            site=said_site(request),
            host=authority_text(request),
            trusted_origins=listed,
        )
        raise web.HTTPForbidden(text="Cross-origin request refused")

    return csrf


_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
