r"""
===============
CORS middleware
===============

Lets the pages of other origins read your answers, and no others: for an API
that is called from a browser. It follows the `Fetch standard
<https://fetch.spec.whatwg.org/#http-cors-protocol>`_.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import cors_middleware, error_middleware

    app = web.Application(
        middlewares=[
            cors_middleware(
                origins=[
                    "https://example.com",
                    "https://*.example.com",  # any depth, not the apex
                    "http://localhost:*",  # any port
                    re.compile(r"https://pr-\d+\.example\.dev"),
                ],
                urls=[re.compile(r"^/api/")],
                allow_credentials=True,
                max_age=600,
            ),
            error_middleware(),
        ]
    )

An allow-list that lives elsewhere is a function:

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import cors_middleware

    PARTNERS = {"https://partner.example"}


    async def is_partner(origin: str, request: web.Request) -> bool:
        return origin in PARTNERS  # or ask a database


    app = web.Application(middlewares=[cors_middleware(origins=is_partner)])

What reaches the page
=====================

Every answer: returned and raised ones, streams, server-sent events, files,
WebSocket handshakes, the 404 and 405 of the router, and the 500 and 504 that
aiohttp makes by itself. ``Vary: Origin`` is on each of them, so that no cache
gives the answer for one origin to another.

A preflight (``OPTIONS`` with ``Origin`` and
``Access-Control-Request-Method``) from an allowed origin is answered here,
with 200. From any other it goes on to the application, where an inner policy
or a route for ``OPTIONS`` may answer.

Order
=====

Outside of :mod:`aiohttp_middlewares.error`, and outside of all that refuses
requests or needs a login: a preflight bears no credentials. Outside of it
stand only those that say who asks and where: proxy headers, host checks,
redirects to HTTPS.

Limits
======

It tells browsers what pages may read. It keeps nobody from sending requests:
that takes authentication, and protection against cross-site request forgery.
Answers that no middleware sees, such as 400 to what is no HTTP, bear no
headers of it.
"""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from aiohttp import web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.headers import VARY, add_elements
from aiohttp_middlewares._core.origins import ORIGIN, listed_origins
from aiohttp_middlewares._core.sending import Decorator, decorated
from aiohttp_middlewares._core.urls import UrlMatcher, match_path
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    UrlCollection,
    Urls,
)

ACCESS_CONTROL = "Access-Control"
ACCESS_CONTROL_ALLOW = "Access-Control-Allow"
ACCESS_CONTROL_ALLOW_CREDENTIALS = istr("Access-Control-Allow-Credentials")
ACCESS_CONTROL_ALLOW_HEADERS = istr("Access-Control-Allow-Headers")
ACCESS_CONTROL_ALLOW_METHODS = istr("Access-Control-Allow-Methods")
ACCESS_CONTROL_ALLOW_ORIGIN = istr("Access-Control-Allow-Origin")
ACCESS_CONTROL_EXPOSE_HEADERS = istr("Access-Control-Expose-Headers")
ACCESS_CONTROL_MAX_AGE = istr("Access-Control-Max-Age")
ACCESS_CONTROL_REQUEST_HEADERS = istr("Access-Control-Request-Headers")
ACCESS_CONTROL_REQUEST_METHOD = istr("Access-Control-Request-Method")

DEFAULT_ALLOW_HEADERS = (
    "accept",
    "accept-encoding",
    "authorization",
    "content-type",
    "dnt",
    "origin",
    "user-agent",
    "x-csrftoken",
    "x-requested-with",
)
DEFAULT_ALLOW_METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
DEFAULT_URLS: tuple[re.Pattern[str]] = (re.compile(r".*"),)

#: Decides about an origin, ``"null"`` included; may be a coroutine function.
OriginCheck: TypeAlias = Callable[[str, web.Request], bool | Awaitable[bool]]

logger = logging.getLogger(__name__)

_ORIGIN_FIELD = istr("Origin")


def cors_middleware(
    *,
    allow_all: bool = False,
    origins: UrlCollection | OriginCheck | None = None,
    urls: Urls | None = None,
    expose_headers: StrCollection | None = None,
    allow_headers: StrCollection = DEFAULT_ALLOW_HEADERS,
    allow_methods: StrCollection = DEFAULT_ALLOW_METHODS,
    allow_credentials: bool = False,
    max_age: int | None = None,
) -> Middleware:
    """Answer preflights, and tell browsers which pages may read an answer.

    :param allow_all:
        Let the pages of every origin read everything. Together with
        ``allow_credentials`` that is what the same-origin policy is there to
        prevent: it works, and warns. By default: ``False``.
    :param origins:
        Whose pages may read. A collection of origins such as
        ``"https://example.com"`` (case, default port, one trailing slash and
        Unicode hosts are normalised), of ``"https://*.example.com"`` (every
        name below, not the name itself; no port means the default one) and
        ``"http://localhost:*"`` (every port), of URLs, and of patterns. A
        pattern has to match the whole origin, or the whole origin but its
        port. ``"null"``, the origin of sandboxed frames and files, is allowed
        only when it is listed. Or a function ``(origin, request) -> bool``,
        which may be a coroutine function and decides alone. By default: none.
    :param urls:
        The URLs that are for other origins: a collection of paths, patterns
        and URLs, or a mapping of them to methods. By default: all.
    :param expose_headers:
        The names of response headers that a page may read besides the few
        that it always may. ``"*"`` stands for all, but not together with
        credentials. By default: none.
    :param allow_headers:
        The names of request headers that a page may send. ``"*"`` stands for
        all but ``Authorization``, which has to be listed beside it; with
        credentials, for all. By default: :data:`DEFAULT_ALLOW_HEADERS`.
    :param allow_methods:
        The methods that a page may use; ``"*"`` stands for all. By default:
        :data:`DEFAULT_ALLOW_METHODS`.
    :param allow_credentials:
        Let the browser send cookies along and the page read what comes back.
        By default: ``False``.
    :param max_age:
        For how many seconds a browser may remember a preflight. By default
        nothing is said, which means five seconds.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option, or two together, can never work.
    """
    what = "cors_middleware"
    options.flag(f"{what} allow_all", allow_all)
    options.flag(f"{what} allow_credentials", allow_credentials)
    covers = None if urls is None else UrlMatcher(f"{what} urls", urls)
    admits = _admission(f"{what} origins", origins)
    exposed = options.tokens(
        f"{what} expose_headers", "header names", expose_headers or ()
    )
    if allow_all:
        admits = _admits_every_origin if allow_credentials else _admits_all
    if allow_credentials and "*" in exposed:
        raise ValueError(
            f"{what} expose_headers '*' means nothing together with "
            "allow_credentials: list the names"
        )
    anybody = allow_all and not allow_credentials
    policy = _policy(credentials=allow_credentials, exposed=exposed)
    preflight = _Preflight(
        policy,
        options.tokens(f"{what} allow_headers", "header names", allow_headers),
        options.tokens(f"{what} allow_methods", "HTTP methods", allow_methods),
        None
        if max_age is None
        else str(options.integer(f"{what} max_age", max_age)),
        mirror=allow_credentials,
    )
    if allow_all and allow_credentials:
        logger.warning(
            "cors_middleware(allow_all=True, allow_credentials=True) lets "
            "every page on the web act in the name of a visitor who is "
            "logged in: list the origins"
        )

    @web.middleware
    async def cors(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        headers = request.headers
        origin = headers.get(_ORIGIN_FIELD)
        asked = None
        if origin is not None and request.method == "OPTIONS":
            asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)
        # A preflight is about the request that it comes before.
        if covers is not None and not covers(
            asked or request.method, request.rel_url.path_safe
        ):
            return await handler(request)
        if origin is None:
            return await decorated(request, handler, _vary_by_origin)

        admitted = admits(origin, request)
        if admitted is not True and admitted is not False:
            admitted = await admitted
        if not admitted:
            # Somebody further in may have another policy.
            return await decorated(
                request,
                handler,
                _vary_by_origin if asked is None else _vary_by_preflight,
            )
        if anybody:
            origin = "*"
        if asked is None:
            return await decorated(request, handler, policy(origin))
        return preflight.answer(request, origin)

    return cors


def match_items(items: UrlCollection, value: str) -> bool:
    """Whether any of the items fits the value, as ``utils.match_path`` says.

    Upstream's helper, kept for those who import it. Do not judge origins with
    it: its patterns are anchored at the start only.
    """
    return any(match_path(item, value) for item in items)


def _policy(
    *, credentials: bool, exposed: tuple[str, ...]
) -> Callable[[str], Decorator]:
    """What an admitted origin gets on every answer."""
    exposed_line = ", ".join(exposed)

    def policy(origin: str) -> Decorator:
        def admit(headers: CIMultiDict[str]) -> None:
            _vary_by_origin(headers)
            headers[ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            if credentials:
                headers[ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            elif ACCESS_CONTROL_ALLOW_CREDENTIALS in headers:
                del headers[ACCESS_CONTROL_ALLOW_CREDENTIALS]
            if exposed:
                found = headers.get(ACCESS_CONTROL_EXPOSE_HEADERS)
                if found is None:
                    headers[ACCESS_CONTROL_EXPOSE_HEADERS] = exposed_line
                elif found != exposed_line:
                    add_elements(
                        headers, ACCESS_CONTROL_EXPOSE_HEADERS, exposed
                    )

        return admit

    return policy


class _Preflight:
    """The answer to an admitted preflight."""

    def __init__(
        self,
        policy: Callable[[str], Decorator],
        allow_headers: tuple[str, ...],
        allow_methods: tuple[str, ...],
        max_age: str | None,
        *,
        mirror: bool,
    ) -> None:
        self.headers = CIMultiDict(
            {
                "Content-Type": "text/plain; charset=utf-8",
                VARY: ", ".join(_PREFLIGHT_VARY),
            }
        )
        if allow_headers:
            self.headers[ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join(
                allow_headers
            )
        if allow_methods:
            self.headers[ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(
                allow_methods
            )
        if max_age is not None:
            self.headers[ACCESS_CONTROL_MAX_AGE] = max_age
        policy("*")(self.headers)  # or another origin, when there is one
        # Together with credentials Fetch takes "*" for the name of a header
        # or method: what was asked for stands in for it.
        self.mirrored = []
        if mirror and "*" in allow_headers:
            self.mirrored.append(
                (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS)
            )
        if mirror and "*" in allow_methods:
            self.mirrored.append(
                (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS)
            )

    def answer(self, request: web.Request, origin: str) -> web.Response:
        headers = self.headers.copy()
        headers[ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        for request_name, response_name in self.mirrored:
            asked = request.headers.get(request_name, "")
            if _TOKENS.fullmatch(asked):
                headers[response_name] = asked
            else:
                del headers[response_name]
        return web.Response(body=b"", headers=headers)


_PREFLIGHT_VARY = (
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
)
_TOKENS = re.compile(
    rf"{options.TOKEN.pattern}(?:[ \t]*,[ \t]*{options.TOKEN.pattern})*"
)


def _vary_by_origin(headers: CIMultiDict[str]) -> None:
    found = headers.get(VARY)
    if found is None:
        headers[VARY] = "Origin"
    elif found != "Origin":
        add_elements(headers, VARY, ("Origin",))


def _vary_by_preflight(headers: CIMultiDict[str]) -> None:
    add_elements(headers, VARY, _PREFLIGHT_VARY)


def _admission(
    what: str, origins: UrlCollection | OriginCheck | None
) -> OriginCheck:
    """Whether an origin is admitted."""
    if callable(origins):
        return partial(_ask, origins)
    listed = options.items(
        what, "strings, patterns or URLs", () if origins is None else origins
    )
    if "*" in listed:
        raise ValueError(
            f"{what} ['*'] would allow nobody; did you mean allow_all=True?"
        )
    return listed_origins(what, listed)


def _admits_all(origin: str, request: web.Request) -> bool:
    return True


def _admits_every_origin(origin: str, request: web.Request) -> bool:
    """But not ``null``, nor what is no origin: it will be said back."""
    return ORIGIN.fullmatch(origin) is not None


def _ask(
    check: OriginCheck, origin: str, request: web.Request
) -> bool | Awaitable[bool]:
    if origin != "null" and not ORIGIN.fullmatch(origin):
        return False
    verdict = check(origin, request)
    return verdict if inspect.isawaitable(verdict) else bool(verdict)
