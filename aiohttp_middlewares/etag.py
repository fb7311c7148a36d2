"""
===============
ETag middleware
===============

Gives answers an ``ETag`` and answers conditional requests (``If-None-Match``)
with 304 Not Modified: a page that has not changed is not sent again.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import compression_middleware, etag_middleware


    async def notes(request: web.Request) -> web.Response:
        return web.json_response(
            [{"id": number} for number in range(1000)],
            headers={"Cache-Control": "no-cache"},  # ask before you use it
        )


    app = web.Application(
        middlewares=[compression_middleware(), etag_middleware()]
    )
    app.router.add_get("/notes", notes)

What it does
============

A 200 answer to a ``GET`` or ``HEAD`` with its whole body in memory gets a weak
``ETag`` of it, unless it has one. A request whose ``If-None-Match`` names that
tag, or is ``*``, is answered 304 in its place, by weak comparison (RFC 9110
13.1.2): without the body and the headers that describe it, with all others
(15.4.5). The same goes for a tag that the handler has set, such as the version
of a record. What the client says in ``If-Modified-Since`` does not count then
(13.1.3).

It leaves alone streams, payloads such as open files, ``web.FileResponse``,
which has tags of aiohttp's own, empty bodies, other statuses, ``Cache-Control:
no-store``, raised answers, and those that set a cookie, even one that a session
sets when the answer leaves.

Order
=====

On either side of :mod:`aiohttp_middlewares.compression`. Outside of
:mod:`aiohttp_middlewares.session` and whatever else sets cookies, or these are
not seen. The decision falls when the answer leaves, so middlewares outside get
the response object with its body and 200, and a function that changes headers
gets 200 further in, 304 further out; ``access_log``, ``metrics`` and
``tracing`` count the 304.

Limits
======

The handler runs, and makes the body, to find out that it is the same: this
saves bandwidth, not work. A handler that knows the version of what it shows can
look at ``If-None-Match`` itself.

A body that differs each time has another tag each time: one with a nonce of
:func:`~aiohttp_middlewares.csp_nonce`, a token, the time of day. That costs,
and saves nothing: list such URLs in ``ignore``.

The tag is made in the event loop, some 1 ms for a body of 1 MiB. ``If-Match``
and ``If-Range`` are not looked at, and a weak tag fits neither. aiohttp's own
access log looks at the response object, and writes 200 for a 304.
"""

from collections.abc import Sequence
from hashlib import blake2b

from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.encoding import NOT_MODIFIED
from aiohttp_middlewares._core.grammar.etags import names_etag
from aiohttp_middlewares._core.grammar.fields import elements
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.sending import Body, before_sending
from aiohttp_middlewares._core.urls import url_matcher
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("DEFAULT_MAX_SIZE", "etag_middleware")

#: 1 MiB.
DEFAULT_MAX_SIZE = 1024**2


def etag_middleware(
    *, max_size: int = DEFAULT_MAX_SIZE, ignore: Urls | None = None
) -> Middleware:
    """Give answers a weak ``ETag``, and answer ``If-None-Match``.

    :param max_size:
        The size in bytes above which no tag is made of a body. By default:
        1 MiB.
    :param ignore:
        URLs whose answers are left alone: a collection of paths, patterns and
        URLs, or a mapping of them to methods. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: the size is less than 1, or a rule can never fit.
    """
    what = "etag_middleware"
    options.integer(f"{what} max_size", max_size, minimum=1)
    # Not an exemption: nobody is protected by a tag.
    ignored = url_matcher(f"{what} ignore", ignore)

    @middleware
    async def etag(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.method not in _METHODS or (
            ignored is not None and ignored(request)
        ):
            return await handler(request)
        tagging = _Tagging(lines(request, hdrs.IF_NONE_MATCH), max_size)
        before_sending(request, tagging)
        response = await handler(request)
        if isinstance(response, web.Response):
            tagging.response = response
        return response

    return etag


_METHODS = frozenset((hdrs.METH_GET, hdrs.METH_HEAD))
#: RFC 9110 15.4.5: what a 304 leaves to the answer that the client has.
_OF_THE_BODY = tuple(
    istr(name)
    for name in (
        "Accept-Ranges",
        "Content-Digest",
        "Content-Encoding",
        "Content-Language",
        "Content-Length",
        "Content-MD5",
        "Content-Range",
        "Content-Type",
        "Digest",
        "Last-Modified",
        "Repr-Digest",
        "Transfer-Encoding",
    )
)


class _Tagging:
    """The job of one request. It does not hold the request."""

    __slots__ = ("known", "max_size", "response")

    def __init__(self, known: Sequence[str], max_size: int) -> None:
        #: The lines of ``If-None-Match``.
        self.known = known
        self.max_size = max_size
        #: What the handler has returned, which is not always what is sent.
        self.response: web.Response | None = None

    def __call__(self, status: int, headers: CIMultiDict[str]) -> Body | None:
        # It refers to its request while it is sent.
        response, self.response = self.response, None
        if (
            response is None
            or response.headers is not headers
            or status != 200
            or hdrs.SET_COOKIE in headers
            or _is_not_stored(headers)
        ):
            return None
        etag = headers.get(hdrs.ETAG)
        if etag is None:
            etag = self.etag_of(response.body)
            if etag is None:
                return None
            headers[hdrs.ETAG] = etag
        if not self.known or not names_etag(self.known, etag):
            return None
        for name in _OF_THE_BODY:
            headers.popall(name, None)
        return NOT_MODIFIED

    def etag_of(self, body: object) -> str | None:
        # One that is empty may be a HEAD's, of which the GET has another.
        if (
            not isinstance(body, bytes | bytearray)
            or not 0 < len(body) <= self.max_size
        ):
            return None
        # Who writes a part of a page must find no two with the same tag: 128
        # bits of a hash that holds. This one is quick on every processor.
        return f'W/"{blake2b(body, digest_size=16).hexdigest()}"'


def _is_not_stored(headers: CIMultiDict[str]) -> bool:
    # RFC 9111 5.2.2.5
    return hdrs.CACHE_CONTROL in headers and any(
        directive.lower() == "no-store"
        for directive in elements(headers.getall(hdrs.CACHE_CONTROL))
    )
