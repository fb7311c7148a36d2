"""
===========================
Response headers middleware
===========================

Adds custom headers of your own to every response, whatever kind of response it
is.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import response_headers_middleware

    app = web.Application(
        middlewares=[
            response_headers_middleware(
                {"Cache-Control": "no-store", "X-Robots-Tag": "noindex"}
            )
        ]
    )

They are on returned and raised answers, streams, files, WebSocket handshakes,
the 404 and 405 of the router, and the 500 and 504 that aiohttp makes by itself.

What wins
=========

The headers of a mapping are what an answer has unless the handler has set
them: one page can have a ``Cache-Control`` of its own. ``Vary`` is merged,
``Set-Cookie`` is added to the cookies there are, and ``Server`` takes the place
of aiohttp's. A ``MultiDict`` may hold several lines of one name.

A function decides for itself. It gets the request, the status and the headers
as they are about to leave, and may set, add and take off what it likes:

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import response_headers_middleware
    from multidict import CIMultiDict


    def not_for_caches(
        request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> None:
        if status >= 400 or request.path.startswith("/account/"):
            headers["Cache-Control"] = "no-store"
        headers.popall("Server", None)


    app = web.Application(
        middlewares=[response_headers_middleware(not_for_caches)]
    )

It should leave ``Connection`` alone. If it raises, changes what says how the
body is sent (``Content-Length``, ``Transfer-Encoding``), or leaves something
that no header can hold, that is logged, and the answer is sent without its
changes.

Order
=====

Inside of :mod:`aiohttp_middlewares.security_headers`, whose ``remove`` takes
off a ``Server`` of yours as well; outside of all others that answer, as what is
answered outside of it has none of the headers. Of two, the inner one wins with
mappings, the outer one with functions.

Limits
======

What no middleware sees, such as the 400 to what is not HTTP, has none of the
headers. A function cannot wait for anything.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from aiohttp import hdrs, web
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import options, sending
from aiohttp_middlewares._core.decoration import guarded
from aiohttp_middlewares._core.grammar.fields import (
    VARY,
    add_elements,
    elements,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import outcome_of
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("ChangeHeaders", "response_headers_middleware")

#: Gets the request, the status and the headers, and changes these.
ChangeHeaders: TypeAlias = Callable[
    [web.Request, int, CIMultiDict[str]], object
]


def response_headers_middleware(
    headers: Mapping[str, str] | ChangeHeaders, *, ignore: Urls | None = None
) -> Middleware:
    """Add headers to every answer, or change those that it has.

    :param headers:
        A mapping of names to values, for what the handler has not set. Or a
        function ``(request, status, headers)`` that changes the headers; it is
        called once for each response, and what it returns does not count.
    :param ignore:
        URLs whose answers are left alone: a collection of paths, patterns and
        URLs, or a mapping of them to methods. By default: none.
    :raises TypeError:
        An option is of the wrong type, or the function is ``async``.
    :raises ValueError:
        A name or a value is none that a header can have, or is of a header
        that differs from answer to answer: those of the body and of the
        connection (``Content-Type``, ``Content-Length``, ``Date`` ...).
    """
    what = "response_headers_middleware"
    decorate: Callable[[web.Request], None]
    if isinstance(headers, Mapping):
        fixed = _Fixed(f"{what} headers", headers)

        def add(request: web.Request) -> None:
            sending.before_sending(request, fixed)

        decorate = add
    else:
        if not callable(headers):
            should = "a mapping of names to values, or a function"
            options.refuse(TypeError, f"{what} headers", should, headers)
        change = options.function(f"{what} headers", headers, awaited=False)

        def call(request: web.Request) -> None:
            calling = _Calling(change, request)
            sending.before_sending(request, guarded(calling))
            if not outcome_of(request).observe(calling, calling.end):
                calling.request = None  # somebody else has answered

        decorate = call

    ignored = exemption(f"{what} ignore", ignore)

    @middleware
    async def response_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is None or not ignored(request):
            decorate(request)
        return await handler(request)

    return response_headers


class _Fixed:
    """The job that is the same for all requests."""

    def __init__(self, what: str, headers: Mapping[str, str]) -> None:
        fields = CIMultiDict[str]()
        for name, value in headers.items():
            known = options.header_name(what, name)
            if known.lower() in _OF_EACH_ANSWER:
                options.refuse(
                    ValueError,
                    what,
                    "headers that all answers can share",
                    name,
                    advice="it differs from one to the next",
                )
            fields.add(known, options.header_value(f"{what}[{name!r}]", value))
        if not fields:
            options.refuse(ValueError, what, "at least one header", headers)
        self.vary = elements(fields.popall(VARY, ()))
        self.cookies = fields.popall(hdrs.SET_COOKIE, [])
        self.has_server = hdrs.SERVER in fields
        self.lines = {
            istr(name): fields.getall(name)
            for name in {name.lower(): name for name in fields}.values()
        }

    def __call__(self, status: int, headers: CIMultiDict[str]) -> None:
        # aiohttp adds it when all else is done.
        if self.has_server and headers.get(hdrs.SERVER) == SERVER_SOFTWARE:
            del headers[hdrs.SERVER]
        for name, lines in self.lines.items():
            if name not in headers:
                for line in lines:
                    headers.add(name, line)
        if self.vary:
            add_elements(headers, VARY, self.vary)
        for cookie in self.cookies:
            headers.add(hdrs.SET_COOKIE, cookie)


#: RFC 9110 6.4 and 7.6.1, RFC 9112 6 and 7: of the body and the connection.
_OF_EACH_ANSWER = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class _Calling:
    """The function, for one request.

    It holds the request, which holds it: a clone of it may have nobody else
    when the headers leave. So it lets go when all is over.
    """

    def __init__(self, change: ChangeHeaders, request: web.Request) -> None:
        self.change = change
        self.request: web.Request | None = request

    def __call__(self, status: int, headers: CIMultiDict[str]) -> object:
        if self.request is None:
            return None
        return self.change(self.request, status, headers)

    def end(self, outcome: object) -> None:
        self.request = None
