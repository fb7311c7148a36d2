"""The body of a request, read before its handler reads it."""

import logging
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core.requests import warn_once

logger: logging.Logger = logging.getLogger("aiohttp_middlewares.idempotency")

#: As much as arrives at once: to unread a part of a body, as aiohttp does for
#: multipart, copies the rest of its piece.
_PIECE = 64 * 1024

_read_elsewhere = warn_once(
    logger,
    "The body was read before idempotency_middleware could see it, so that "
    "two different ones look the same: move idempotency_middleware further "
    "out, or what reads it further in",
)


async def read_ahead(request: web.Request, limit: int) -> bytes:
    """The body, which can be read as if nobody had.

    By whatever reads the stream of it: all clones of a request share that.

    :raises aiohttp.web.HTTPRequestEntityTooLarge: it is larger than the limit.
    """
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > limit:
        raise TooLarge(limit)
    content = request.content
    if content.at_eof():
        body = await request.read()  # what somebody outside has read
        if len(body) > limit:
            raise TooLarge(limit)
        if not body and content.total_bytes:
            _read_elsewhere()
        return body
    arrived = bytearray()
    while chunk := await content.readany():
        arrived += chunk
        if len(arrived) > limit:
            raise TooLarge(limit)
    body = bytes(arrived)
    _put_back(content, body)
    return body


def _put_back(content: Any, body: bytes) -> None:
    """As ``content.unread_data()``, which warns whoever calls it."""
    for start in range(0, len(body), _PIECE):
        content._buffer.append(body[start : start + _PIECE])
    content._size += len(body)
    content._cursor -= len(body)


class TooLarge(web.HTTPRequestEntityTooLarge):
    def __init__(self, limit: int) -> None:
        # Past that of its parent, of which no two versions of aiohttp take the
        # same arguments.
        web.HTTPClientError.__init__(
            self,
            text=f"The body is larger than {limit} bytes",
            headers={"Cache-Control": "no-store"},
        )
