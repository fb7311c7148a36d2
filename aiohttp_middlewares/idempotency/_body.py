"""The body of a request, read before its handler reads it."""

import warnings
from collections.abc import Callable
from typing import Any

from aiohttp import web

#: As much as arrives at once: to unread a part of a body, as aiohttp does for
#: multipart, copies the rest of its piece.
_PIECE = 64 * 1024


async def read_ahead(
    request: web.Request, limit: int, too_late: Callable[[], None]
) -> bytes:
    """The body, which can be read as if nobody had.

    By whatever reads the stream of it: all clones of a request share that. If
    somebody has read the stream, and did not keep it, ``too_late`` is called.

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
            too_late()
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
    names = ("_buffer", "_size", "_cursor")
    if not all(hasattr(content, name) for name in names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            content.unread_data(body)
        return
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
