"""Change the headers of any response just before they leave.

aiohttp's own signal for this has to be connected before the application
starts, and a middleware list knows no application. What every answer passes,
though, is ``write_headers`` of the request's writer: returned responses,
raised ``web.HTTPException``, streams, files, WebSocket handshakes, and the
404, 405, 500 and 504 that aiohttp makes by itself. There is one writer for
each request, and every clone of the request shares it. Both the property and
the method are public (``BaseRequest.writer``, ``AbstractStreamWriter``).

No other module touches the writer.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from aiohttp_middlewares.annotations import Handler

Headers: TypeAlias = CIMultiDict[str]
#: Changes headers; done again to the same headers, it changes nothing more.
Decorator: TypeAlias = Callable[[Headers], None]
#: Gets the status and the headers of what is really sent.
LastCall: TypeAlias = Callable[[int, Headers], Awaitable[None] | None]


def started(request: web.Request) -> bool:
    """Whether bytes of a response are out, so that no other can be sent."""
    return request.writer.output_size > 0


async def decorated(
    request: web.Request, handler: Handler, decorator: Decorator
) -> web.StreamResponse:
    """Await the handler; whatever answers the request gets decorated.

    An answer that passes by here unsent is decorated at once, so that the
    middlewares outside see its headers; any other when its headers leave.
    Each response is decorated once, by inner middlewares before outer ones.
    """
    sending = _sending(request.writer)
    position = len(sending.decorators)
    sending.decorators.append(decorator)
    try:
        response = await handler(request)
    except web.HTTPException as exc:
        sending.decorate(exc.headers, position)
        raise
    # A FileResponse composes its headers when it is sent. And what is no
    # response at all is left for aiohttp to complain of.
    if isinstance(response, web.Response) or (
        isinstance(response, web.StreamResponse)
        and not isinstance(response, web.FileResponse)
    ):
        sending.decorate(response.headers, position)
    return response


def on_last_call(request: web.Request, call: LastCall) -> None:
    """Have ``call(status, headers)`` done once, when the headers leave.

    After all decorating; the inner middleware's before the outer one's.
    """
    _sending(request.writer).last_calls.append(call)


def only_one_response(request: web.Request) -> None:
    """Have any further response to this request refused.

    aiohttp would send it, into the body of the first one or in place of the
    answer to the next request.
    """
    _sending(request.writer)


class _Sending:
    """Stands in for ``write_headers`` of one writer."""

    __slots__ = (
        "decorators",
        "headers",
        "last_calls",
        "pending",
        "write_headers",
        "writer",
    )

    def __init__(self, writer: AbstractStreamWriter) -> None:
        self.writer = writer
        self.write_headers = writer.write_headers
        self.decorators: list[Decorator] = []
        self.last_calls: list[LastCall] = []
        #: The headers that were decorated last, and by how many not yet.
        self.headers: Headers | None = None
        self.pending = 0

    def decorate(self, headers: Headers, position: int = 0) -> None:
        """Let all decorators from the innermost to ``position`` have it."""
        if headers is not self.headers:
            self.headers = headers
            self.pending = len(self.decorators)
        while self.pending > position:
            self.pending -= 1
            self.decorators[self.pending](headers)

    async def __call__(self, status_line: str, headers: Headers) -> None:
        if self.writer.output_size > 0:
            raise ClientConnectionResetError("A response was sent already")
        self.decorate(headers)
        if self.last_calls:
            status = int(status_line.split(" ", 2)[1])
            for call in reversed(self.last_calls):
                done = call(status, headers)
                if done is not None:
                    await done
        await self.write_headers(status_line, headers)


def _sending(writer: AbstractStreamWriter) -> _Sending:
    sending = writer.write_headers
    if type(sending) is _Sending:
        return sending
    sending = _Sending(writer)
    # A writer with slots would refuse it. Then what passes the middleware gets
    # decorated, streams and aiohttp's own errors do not.
    with suppress(AttributeError):
        writer.write_headers = sending  # type: ignore[method-assign]
    return sending
