"""
=====================
Body limit middleware
=====================

Limits the size of request bodies, file uploads included, by what is announced
and by what really arrives: also while a handler streams the body.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import body_limit_middleware, error_middleware

    app = web.Application(
        middlewares=[
            error_middleware(),
            body_limit_middleware(
                64 * 1024,
                limits={
                    "/avatar": 5 * 1024**2,
                    re.compile(r"^/backups/"): None,  # no limit
                },
            ),
        ]
    )

What counts
===========

A ``Content-Length`` above the limit is refused before the handler is called.
Otherwise the bytes count as they arrive, after inflating a compressed body,
however the handler reads: ``request.read()``, ``text()``, ``json()``,
``post()``, ``multipart()`` or ``request.content``. So neither chunked bodies
nor compression get around it.

Beyond the limit ``web.HTTPRequestEntityTooLarge`` is raised: ``413``, and the
connection is closed. If the response has started, it is cut instead.

aiohttp has a limit of its own, ``client_max_size`` of the application: one
megabyte, for ``read()`` and those that use it; ``None`` and 0 are no limit. For
the requests covered here this limit replaces it, whether lower or higher. In a
multipart body it also holds for each single part that has a
``Content-Encoding`` of its own and is inflated by ``part.text()``,
``part.json()`` or ``part.read(decode=True)``.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, which renders the refusal; outside
of everything that reads the body, such as
:mod:`aiohttp_middlewares.idempotency`.

Limits
======

If nobody reads a body, only its ``Content-Length`` counts; it is not kept in
memory. A client that announces ``Expect: 100-continue`` is told to go on before
any middleware is called. aiohttp reads on for up to 10 seconds, so that the
client sees the answer, before it closes the connection.

Nested limits all hold: the smallest wins.

The messages of a WebSocket do not count: see its ``max_msg_size``.

aiohttp inflates at once what it has received, in older versions without a
bound: for a moment a compressed body may take more memory than the limit. Older
versions, such as 3.12, inflate a part that is compressed by itself without any
limit, and so does ``part.decode()`` in all versions; what all parts of one body
inflate to is not added up.

A form that was refused half-way leaves its temporary files to the garbage
collector.
"""

import logging
import math
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from aiohttp import StreamReader, hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import go_on, warn_once
from aiohttp_middlewares._core.sending import before_sending
from aiohttp_middlewares._core.urls import UrlMap, exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Url, Urls

__all__ = ("body_limit_middleware",)

logger: logging.Logger = logs.get_logger(__name__)


def body_limit_middleware(
    max_size: int,
    *,
    limits: Mapping[Url, int | None] | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Answer 413 to requests with a larger body.

    :param max_size: The limit in bytes.
    :param limits:
        A mapping of paths, patterns and URLs to bytes, or to ``None`` for no
        limit. The first that fits counts instead of ``max_size``. By default:
        none.
    :param ignore:
        URLs that are left to the ``client_max_size`` of aiohttp: a collection
        of paths, patterns and URLs, or a mapping of them to methods. By
        default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a limit is negative, or a URL rule can never fit.
    """
    what = "body_limit_middleware"
    by_size: dict[int, type[_LimitedReader]] = {}

    def reader(option: str, size: int | None) -> type[_LimitedReader] | None:
        if size is None:
            return None
        size = options.integer(f"{what} {option}", size)
        return by_size.setdefault(size, _limited_reader(size))

    options.integer(f"{what} max_size", max_size)
    default = reader("max_size", max_size)
    ignored = exemption(f"{what} ignore", ignore)
    special = None
    if limits is not None:
        if not isinstance(limits, Mapping):
            options.refuse(
                TypeError, f"{what} limits", "a mapping of URLs", limits
            )
        special = UrlMap(
            f"{what} limits",
            {url: reader(f"limits[{url!r}]", limits[url]) for url in limits},
            loosens=lambda limited: limited is None or limited.limit > max_size,
        )
    too_late = warn_once(
        logger,
        "The limit of a body cannot be set after it was read: move "
        "body_limit_middleware further out",
    )

    @middleware
    async def body_limit(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if not request.body_exists:
            return await handler(request)
        if ignored is not None and ignored(request):
            return await handler(request)
        limited = default
        if special is not None:
            limited = special.first(request, default)

        limit = sys.maxsize if limited is None else limited.limit
        if (request.content_length or 0) > limit:
            logs.refused(logger, request, "its Content-Length is too large")
            _close_afterwards(request)
            raise _TooLarge(limit)
        content = request.content
        if isinstance(content, _LimitedReader) and content.limit <= limit:
            return await handler(request)  # the smaller one, further out
        if limited is not None:
            handler = partial(_count, handler, limited)
        # None and 0 are no limit.
        size = request.client_max_size or math.inf
        if size <= limit or _has_parts(request):
            # Older versions of aiohttp refuse what is just as large.
            return await go_on(
                request, handler, too_late, client_max_size=limit + 1
            )
        return await handler(request)

    return body_limit


def _has_parts(request: web.Request) -> bool:
    """Whether aiohttp takes the body apart, and may inflate what is in it.

    A form does not inflate its fields, but a part of it may have parts again.
    """
    # As MultipartReader reads it, which takes more than request.content_type.
    content_type = request.headers.get(hdrs.CONTENT_TYPE, "")
    return content_type.lstrip()[:10].lower() == "multipart/"


class _LimitedReader(StreamReader):
    """Counts, in all the ways to read a body.

    It has the same slots: an object that is a StreamReader can become one,
    wherever aiohttp keeps it.
    """

    __slots__ = ()

    limit: ClassVar[int]

    def check(self) -> None:
        # All that has arrived, inflated, whether it was read or not.
        if self.total_bytes > self.limit:
            raise _TooLarge(self.limit)

    async def read(self, n: int = -1) -> bytes:
        found = await super().read(n)
        self.check()
        return found

    async def readany(self) -> bytes:
        found = await super().readany()
        self.check()
        return found

    async def readchunk(self) -> tuple[bytes, bool]:
        found = await super().readchunk()
        self.check()
        return found

    async def readuntil(self, *args: Any, **options: Any) -> bytes:
        try:
            found = await super().readuntil(*args, **options)
        except Exception:  # a line too long for aiohttp
            self.check()
            raise
        self.check()
        return found

    def read_nowait(self, n: int = -1) -> bytes:
        found = super().read_nowait(n)
        self.check()
        return found


def _limited_reader(limit: int) -> type[_LimitedReader]:
    """A class for each limit, as its objects have no room for it."""

    class LimitedReader(_LimitedReader):
        __slots__ = ()

    LimitedReader.limit = limit
    return LimitedReader


async def _count(
    handler: Handler, limited: type[_LimitedReader], request: web.Request
) -> web.StreamResponse:
    content = request.content
    before = content.__class__
    content.__class__ = limited
    refused = False
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        refused = True
        logs.refused(logger, request, "its body is too large")
        raise
    finally:
        # aiohttp reads the rest of it, and nobody is to be refused any more.
        content.__class__ = before
        if refused or content.total_bytes > limited.limit:
            _close_afterwards(request)


def _close_afterwards(request: web.Request) -> None:
    """Close the connection when this request was answered.

    Not before the rest of the body was received: a client that still sends
    might not see the answer. That is limited by aiohttp.
    """
    before_sending(request, _say_close)
    request.content.on_eof(request.protocol.close)


def _say_close(status: int, headers: CIMultiDict[str]) -> None:
    headers[hdrs.CONNECTION] = "close"


class _TooLarge(web.HTTPRequestEntityTooLarge):
    def __init__(self, limit: int) -> None:
        # Past that of its parent, of which no two versions of aiohttp take the
        # same arguments.
        web.HTTPClientError.__init__(
            self, text=f"The body is larger than {limit} bytes"
        )
