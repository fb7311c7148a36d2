"""Sending a request again: its body, and the answer it got before."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientResponse, hdrs, payload

from aiohttp_middlewares._core.payloads import value_of
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares.client._connectors import check_open
from aiohttp_middlewares.client._timeouts import (
    TimeIsUp,
    time_limit,
    total_has_struck,
)

#: A body up to this size is read, which keeps the connection alive and the
#: response readable. To read a larger one may take longer than to connect.
SMALL_BODY = 64 * 1024

#: What a server gets to deliver a small body, in seconds.
DRAIN_TIMEOUT = 1.0


def is_replayable(req: ClientRequest) -> bool:
    """Whether the body comes out the same when it is written once more.

    A list of what is known to: aiohttp's own ``Payload.consumed`` misses
    partly read generators and multipart bodies in some releases, and an
    exhausted generator is sent as an empty body, with success.
    """
    body = req.body
    return isinstance(body, bytes) or _can_rewind(body)


def _can_rewind(body: payload.Payload) -> bool:
    if getattr(body, "consumed", False):
        return False
    if isinstance(body, payload.BytesPayload):
        return True
    if isinstance(body, aiohttp.MultipartWriter):
        return all(_can_rewind(part) for part, _, _ in body)
    if isinstance(body, payload.IOBasePayload):
        # aiohttp rewinds files since 3.12.3; before, it closes them. One
        # without a size is sent in chunks: were it cut short, nobody would
        # notice.
        return (
            hasattr(body, "_set_or_restore_start_position")
            and body.size is not None
            and _is_seekable(value_of(body))
        )
    return False


def _is_seekable(file: object) -> bool:
    try:
        return bool(file.seekable())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # no file, or closed
        return False


def prepare_again(req: ClientRequest) -> None:
    """Make a request that was sent ready to be sent once more.

    Raises ``TimeoutError`` when the caller's time is over: aiohttp's total
    timeout strikes only once, and who was struck may have swallowed it or
    taken it for another. And ``ClientConnectionError`` when the session is.
    """
    if total_has_struck(req):
        raise asyncio.TimeoutError
    check_open(req)
    if hdrs.EXPECT in req.headers:
        # The wait for "100 Continue" ended with the first attempt.
        _method(req, "_update_expect_continue")()


def keep_cookies(req: ClientRequest, response: ClientResponse) -> None:
    """Store the cookies of an answer that the caller will not see.

    RFC 6265 3: any answer may set some. The next attempt bears them.
    """
    set_here = response.cookies
    if not set_here:
        return
    jar = req.session.cookie_jar
    before = jar.filter_cookies(req.url)
    # Of one name there may be several, for other paths. aiohttp tells them
    # apart since 3.12.7.
    update = getattr(jar, "update_cookies_from_headers", None)
    if update is None:
        jar.update_cookies(set_here, response.url)
    else:
        update(lines(response, hdrs.SET_COOKIE), response.url)
    kept = jar.filter_cookies(req.url)
    _leave_out(
        req,
        {
            f"{name}={before[name].coded_value}"
            for name in set_here
            if name in before and name not in kept
        },
    )
    # The others are there already, or the caller left them out.
    _method(req, "_update_cookies")(
        {name: kept[name] for name in set_here if name in kept}
    )


def _leave_out(req: ClientRequest, pairs: Collection[str]) -> None:
    """Send these cookies no more; those of the caller are not the jar's."""
    header = req.headers.get(hdrs.COOKIE)
    if not pairs or header is None:
        return
    # RFC 6265 4.2.1: no value has a semicolon.
    found = [pair.strip() for pair in header.split(";")]
    left = "; ".join(pair for pair in found if pair not in pairs)
    if left:
        req.headers[hdrs.COOKIE] = left
    else:
        del req.headers[hdrs.COOKIE]


def _method(req: ClientRequest, name: str) -> Any:
    """Public in aiohttp 3, private from 4 on."""
    return getattr(req, name[1:], None) or getattr(req, name)


@contextmanager
def held(response: ClientResponse | None) -> Iterator[None]:
    """Close a response that is not handed on, as something was raised.

    Nobody else can: it has not come out of the middlewares yet.
    """
    try:
        yield
    except BaseException:
        if response is not None:
            response.close()
        raise


async def discard(response: ClientResponse) -> None:
    """Give the connection of a response back to the pool.

    This has to come before anything else is sent, or waited for: what is
    sent next may need this very connection.
    """
    if response.closed:
        return  # all of it has been read
    length = response.content_length
    if (
        length is not None
        and length <= SMALL_BODY
        # A few kilobytes of gzip can be many megabytes.
        and hdrs.CONTENT_ENCODING not in response.headers
    ):
        try:
            async with time_limit(DRAIN_TIMEOUT):
                await response.read()
        except (TimeIsUp, aiohttp.ClientError):
            response.close()
    else:
        response.release()


def is_handshake(req: ClientRequest) -> bool:
    """Whether the request asks for another protocol: a WebSocket."""
    return hdrs.UPGRADE in req.headers
