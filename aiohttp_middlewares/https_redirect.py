r"""
=========================
HTTPS redirect middleware
=========================

Redirects visitors who come by plain HTTP to the same URL by HTTPS.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import (
        https_redirect_middleware,
        proxy_headers_middleware,
        trusted_host_middleware,
    )

    app = web.Application(
        middlewares=[
            proxy_headers_middleware(trusted=["10.0.0.0/8"]),
            trusted_host_middleware(["example.com"]),
            https_redirect_middleware(
                status=308,
                ignore=[
                    re.compile(r"^/\.well-known/acme-challenge/"),
                    "/healthz",
                ],
            ),
        ]
    )

The port of the request is dropped, as HTTPS has another one. If that is not
443, give ``https_port``. A request whose ``Host`` is missing or malformed is
answered ``400 Invalid host header``.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers` (or
:mod:`aiohttp_middlewares.https`), which know the visitor's scheme: without them
an application behind a proxy that ends TLS redirects for ever; the log warns of
a request that looks like that, once. Inside of
:mod:`aiohttp_middlewares.trusted_host` as well, outside of all others.

Limits
======

It redirects to any valid host that the visitor asked for;
:mod:`aiohttp_middlewares.trusted_host` says which hosts are yours. The request
that is redirected has gone over the wire in clear text:
``Strict-Transport-Security`` of :mod:`aiohttp_middlewares.security_headers`
prevents the next one. Browsers do not follow a redirect of a WebSocket.
"""

import logging
from typing import Literal, TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.forwarded import (
    forwarded_nearest_first,
    nearest_first,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import (
    authority_of,
    authority_text,
    lines,
    moved,
    warn_once,
)
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("DEFAULT_STATUS", "https_redirect_middleware")

Status: TypeAlias = Literal[301, 302, 307, 308]

#: With 307 the method and the body stay, and no browser keeps it in mind.
DEFAULT_STATUS: Status = 307

logger: logging.Logger = logs.get_logger(__name__)


def https_redirect_middleware(
    *,
    status: Status = DEFAULT_STATUS,
    https_port: int | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Redirect requests that did not come by HTTPS.

    :param status:
        301, 302, 307 or 308 (RFC 9110 15.4). The first two let browsers make
        a GET of a POST; 301 and 308 are permanent, and remembered. By
        default: 307.
    :param https_port:
        The port to redirect to, where it is not 443. By default: none.
    :param ignore:
        URLs that are answered by plain HTTP too: a collection of paths,
        patterns and URLs, or a mapping of them to methods. Health checks and
        the challenges of ACME, mostly. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: it is no status for this, or no port.
    """
    what = "https_redirect_middleware"
    if not isinstance(status, int) or status not in _REDIRECTS:
        options.refuse(
            ValueError, f"{what} status", "301, 302, 307 or 308", status
        )
    redirect = _REDIRECTS[status]
    if https_port is not None:
        options.integer(f"{what} https_port", https_port, minimum=1)
        if https_port > 65535:
            options.refuse(
                ValueError, f"{what} https_port", "65535 or less", https_port
            )
    ignored = exemption(f"{what} ignore", ignore)
    warn_of_loop = warn_once(
        logger,
        "A request that says to have come by HTTPS was redirected to HTTPS. "
        "If a proxy in front takes off the TLS, its visitors are redirected "
        "for ever: put proxy_headers_middleware or https_middleware outside "
        "of https_redirect_middleware, and let it trust that proxy. If there "
        "is none, a stranger has made it up",
    )

    @middleware
    async def https_redirect(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.scheme == "https":
            return await handler(request)
        if ignored is not None and ignored(request):
            return await handler(request)
        authority = authority_of(request)
        if authority is None:
            logs.refused(
                logger,
                request,
                "its host is missing or malformed",
                host=authority_text(request),
            )
            raise web.HTTPBadRequest(text="Invalid host header")
        if _says_https(request):
            warn_of_loop()
        raise redirect(moved(request, "https", authority.host, https_port))

    return https_redirect


_REDIRECTS: dict[int, type[web.HTTPMove]] = {
    301: web.HTTPMovedPermanently,
    302: web.HTTPFound,
    307: web.HTTPTemporaryRedirect,
    308: web.HTTPPermanentRedirect,
}


def _says_https(request: web.Request) -> bool:
    """Whether a proxy, or anybody else, says that the visitor came by it."""
    proto = next(nearest_first(lines(request, "X-Forwarded-Proto")), "")
    forwarded = next(
        forwarded_nearest_first(lines(request, hdrs.FORWARDED)), {}
    )
    return "https" in (proto.lower(), forwarded.get("proto", "").lower())
