r"""
===============
CORS middleware
===============

Lets pages of the origins that you allow, and of no others, read your answers
(cross-origin resource sharing): for an API that browsers call. It follows the
`Fetch standard <https://fetch.spec.whatwg.org/#http-cors-protocol>`_.

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

If the allow-list lives elsewhere, give a function:

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
requests or needs a login: a preflight bears no credentials. Only those that say
who asks and where stand outside of it: proxy headers, host checks, redirects to
HTTPS.

Limits
======

It tells browsers what pages may read. It stops nobody from sending requests:
that takes authentication, and protection against cross-site request forgery.
Answers that no middleware sees, such as 400 to what is not HTTP, have no CORS
headers.

Because of ``Vary: Origin``, a cache in front keeps one copy of an answer for
each origin that asks, with ``allow_all`` too: a request without ``Origin`` is
answered without the header, and nobody else may be given that answer.
"""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.caching import remembered
from aiohttp_middlewares._core.grammar.fields import (
    TOKEN,
    VARY,
    add_elements,
    elements,
)
from aiohttp_middlewares._core.grammar.origins import is_origin
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.sending import (
    Headers,
    Job,
    before_sending,
    departure_of,
)
from aiohttp_middlewares._core.urls import match_path, url_matcher
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    UrlCollection,
    Urls,
)

__all__ = (
    "ACCESS_CONTROL",
    "ACCESS_CONTROL_ALLOW",
    "ACCESS_CONTROL_ALLOW_CREDENTIALS",
    "ACCESS_CONTROL_ALLOW_HEADERS",
    "ACCESS_CONTROL_ALLOW_METHODS",
    "ACCESS_CONTROL_ALLOW_ORIGIN",
    "ACCESS_CONTROL_EXPOSE_HEADERS",
    "ACCESS_CONTROL_MAX_AGE",
    "ACCESS_CONTROL_REQUEST_HEADERS",
    "ACCESS_CONTROL_REQUEST_METHOD",
    "DEFAULT_ALLOW_HEADERS",
    "DEFAULT_ALLOW_METHODS",
    "DEFAULT_URLS",
    "OriginCheck",
    "cors_middleware",
    "match_items",
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

#: Those that most APIs need.
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
#: All that browsers send, but HEAD, which needs no permission.
DEFAULT_ALLOW_METHODS = ("DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT")
DEFAULT_URLS: tuple[re.Pattern[str]] = (re.compile(r".*"),)

#: Decides about an origin, ``"null"`` included; may be a coroutine function.
OriginCheck: TypeAlias = Callable[[str, web.Request], bool | Awaitable[bool]]

logger: logging.Logger = logs.get_logger(__name__)

_ORIGIN = istr("Origin")


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
        which may be a coroutine function and decides alone; what it returns
        has to be ``True`` or false, and what it raises is not caught here. By
        default: none.
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
        The methods that a page may use, sent in upper case; ``"*"`` stands
        for all. By default: :data:`DEFAULT_ALLOW_METHODS`.
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
    covers = url_matcher(f"{what} urls", urls)
    exposed = options.tokens(
        f"{what} expose_headers",
        "header names",
        () if expose_headers is None else expose_headers,
    )
    if allow_credentials and "*" in exposed:
        raise ValueError(
            f"{what} expose_headers '*' means nothing together with "
            "allow_credentials: list the names"
        )
    policy = _policy(credentials=allow_credentials, exposed=exposed)
    ask = _ask(origins, policy) if callable(origins) else None
    found = _listed(f"{what} origins", () if callable(origins) else origins)
    judge = _judge(f"{what} origins", found, policy)
    listed = origins if ask else found
    if allow_all and (ask or found):
        logger.warning(
            "cors_middleware(allow_all=True, origins=…) lets the pages of "
            "every origin read, and looks at no list: leave out one of them"
        )
    if not (allow_all or ask or found):
        logger.warning(
            "cors_middleware() without origins lets no page of another "
            "origin read: list the origins"
        )
    if allow_all:
        ask = None
        judge = _any_origin(policy) if allow_credentials else _anybody(policy)
    if allow_all and allow_credentials:
        logger.warning(
            "cors_middleware(allow_all=True, allow_credentials=True) lets "
            "every page on the web act in the name of a visitor who is "
            "logged in: list the origins"
        )
    # Fetch compares them by case, and aiohttp knows none in lower case.
    methods = tuple(
        method.upper()
        for method in options.tokens(
            f"{what} allow_methods", "HTTP methods", allow_methods
        )
    )
    options.warn_of_unknown_methods(f"{what} allow_methods", {*methods} - {"*"})
    preflight = _Preflight(
        options.tokens(f"{what} allow_headers", "header names", allow_headers),
        methods,
        None
        if max_age is None
        else str(options.integer(f"{what} max_age", max_age)),
        mirror=allow_credentials,
    )

    @middleware(allow_all=allow_all, allow_credentials=allow_credentials)
    async def cors(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        headers = request.headers
        origin = headers.get(_ORIGIN)
        asked = None
        if origin is not None and request.method == "OPTIONS":
            asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)
        # A preflight is about the request that it comes before.
        if covers is not None and not covers(request, asked):
            return await handler(request)

        decorator: Job = _vary_by_origin
        if origin is not None:
            admit = judge(origin) if ask is None else await ask(origin, request)
            if admit is None and logger.isEnabledFor(logging.DEBUG):
                said = logs.facts(request, origin=origin, origins=listed)
                logger.debug("An origin is not admitted", extra=said)
            if asked is None:
                decorator = admit or decorator
            elif admit is not None:
                return preflight.answer(request, admit)
            else:  # somebody further in may have another policy
                decorator = _vary_by_preflight
        departure = departure_of(request)
        place = departure.add(decorator)
        response = await handler(request)
        departure.passes(place, response)
        return response

    return cors


def match_items(items: UrlCollection, value: str) -> bool:
    """Whether any of the items fits the value, as ``utils.match_path`` says.

    Upstream's helper, kept for those who import it. Do not judge origins with
    it: its patterns are anchored at the start only.
    """
    return any(match_path(item, value) for item in items)


#: What an origin gets that is admitted.
Policy: TypeAlias = Callable[[str], Job]


def _policy(*, credentials: bool, exposed: tuple[str, ...]) -> Policy:
    """What an admitted origin gets on every answer."""
    exposed_line = ", ".join(exposed)

    def policy(origin: str) -> Job:
        def admit(status: int, headers: Headers) -> None:
            # As _vary_by_origin(), for which each answer would pay a call.
            if headers.setdefault(VARY, "Origin") != "Origin":
                add_elements(headers, VARY, ("Origin",))
            headers[ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            if credentials:
                headers[ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            elif ACCESS_CONTROL_ALLOW_CREDENTIALS in headers:
                del headers[ACCESS_CONTROL_ALLOW_CREDENTIALS]
            if exposed and exposed_line != headers.setdefault(
                ACCESS_CONTROL_EXPOSE_HEADERS, exposed_line
            ):
                add_elements(headers, ACCESS_CONTROL_EXPOSE_HEADERS, exposed)

        return admit

    return policy


class _Preflight:
    """The answer to an admitted preflight."""

    def __init__(
        self,
        allow_headers: tuple[str, ...],
        allow_methods: tuple[str, ...],
        max_age: str | None,
        *,
        mirror: bool,
    ) -> None:
        self.headers = CIMultiDict(
            {"Content-Type": "text/plain; charset=utf-8"}
        )
        if max_age is not None:
            self.headers[ACCESS_CONTROL_MAX_AGE] = max_age
        # Together with credentials Fetch takes "*" for the name of a header
        # or method: what was asked for stands in for it.
        self.mirrored: list[tuple[istr, istr]] = []
        for request_name, response_name, allowed in (
            (
                ACCESS_CONTROL_REQUEST_HEADERS,
                ACCESS_CONTROL_ALLOW_HEADERS,
                allow_headers,
            ),
            (
                ACCESS_CONTROL_REQUEST_METHOD,
                ACCESS_CONTROL_ALLOW_METHODS,
                allow_methods,
            ),
        ):
            if mirror and "*" in allowed:
                self.mirrored.append((request_name, response_name))
            elif allowed:
                self.headers[response_name] = ", ".join(allowed)

    def answer(self, request: web.Request, admit: Job) -> web.Response:
        headers = self.headers.copy()
        admit(200, headers)
        headers[VARY] = _PREFLIGHT_VARY
        for request_name, response_name in self.mirrored:
            asked = elements(lines(request, request_name))
            if asked and all(map(TOKEN.fullmatch, asked)):
                headers[response_name] = ", ".join(asked)
        return web.Response(body=b"", headers=headers)


_PREFLIGHT_VARY = (
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
)


def _vary_by_origin(status: int, headers: Headers) -> None:
    if headers.setdefault(VARY, "Origin") != "Origin":
        add_elements(headers, VARY, ("Origin",))


def _vary_by_preflight(status: int, headers: Headers) -> None:
    add_elements(headers, VARY, _PREFLIGHT_VARY.split(", "))


def _listed(what: str, origins: object) -> tuple[object, ...]:
    found = options.items(
        what, "strings, patterns or URLs", () if origins is None else origins
    )
    if "*" in found:
        raise ValueError(
            f"{what} ['*'] would allow nobody; did you mean allow_all=True?"
        )
    return found


Judge: TypeAlias = Callable[[str], Job | None]


def _judge(what: str, origins: object, policy: Policy) -> Judge:
    """What an origin gets, by the list of those that are allowed."""
    listed = options.origins(what, origins)
    exact = {origin: policy(origin) for origin in listed.exact}
    if not (listed.wildcards or listed.patterns):
        return exact.get

    def judge(origin: str) -> Job | None:
        admit = exact.get(origin)
        if admit is None and listed.fit(origin):
            return policy(origin)
        return admit

    # Anybody may send any number of origins.
    return remembered(judge, size=256)


def _anybody(policy: Policy) -> Judge:
    admit = policy("*")
    return lambda origin: admit


def _any_origin(policy: Policy) -> Judge:
    return lambda origin: policy(origin) if is_origin(origin) else None


def _ask(
    check: OriginCheck, policy: Policy
) -> Callable[[str, web.Request], Awaitable[Job | None]]:
    async def ask(origin: str, request: web.Request) -> Job | None:
        if not is_origin(origin) and origin != "null":
            return None
        try:
            verdict = check(origin, request)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            if verdict and verdict is not True:
                # Such as a function that nobody called: it is true for all.
                raise TypeError(
                    "cors_middleware origins should return True or False, "
                    f"got {verdict!r}"
                )
        except Exception:
            # Whatever is answered now, another origin may get another answer.
            before_sending(request, _vary_by_origin)
            raise
        return policy(origin) if verdict else None

    return ask
