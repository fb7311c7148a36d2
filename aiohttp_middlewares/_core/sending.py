"""Change the headers of any response just before they leave.

aiohttp's own signal for this has to be connected before the application
starts, and a middleware list knows no application. What every answer passes,
though, is ``write_headers`` of the request's writer: returned responses,
raised ``web.HTTPException``, streams, files, WebSocket handshakes, and the
404, 405, 500 and 504 that aiohttp makes by itself. There is one writer for
each request, and every clone of the request shares it. Both the property and
the method are public (``BaseRequest.writer``, ``AbstractStreamWriter``).

The body of a response passes ``write`` and ``write_eof`` of the same writer.
No other module touches the writer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from aiohttp_middlewares.annotations import Handler

Headers: TypeAlias = CIMultiDict[str]
#: Changes headers; done again to the same headers, it changes nothing more.
Decorator: TypeAlias = Callable[[Headers], None]
#: Gets the status and the headers of what is really sent.
LastCall: TypeAlias = Callable[[int, Headers], Awaitable[None] | None]
Bytes: TypeAlias = bytes | bytearray | memoryview


class Encoder(Protocol):
    """Makes what is sent of what was written."""

    async def whole(self, body: Bytes) -> Bytes:
        """All of the body at once. The headers may still be changed."""

    async def more(self, data: memoryview) -> bytes:
        """The next part, which a client can decode when it gets it."""

    async def end(self) -> bytes:
        """What follows the last part."""


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


def encode_body(
    request: web.Request, headers: Headers, encoder: Encoder
) -> None:
    """Send the body that belongs to these headers through an encoder.

    To be called by a last call. The headers then announce a body in chunks,
    or for HTTP/1.0 one that ends with the connection. A body that comes as
    one piece before they are out gets its length instead.

    A file that aiohttp hands to the kernel never comes by here: that takes
    ``FileResponse.enable_compression(ContentCoding.identity)``.
    """
    sending = _sending(request.writer)
    chunked = request.version >= HttpVersion11
    sending.encoding = _Encoding(sending, headers, encoder, chunked)


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
        "encoding",
        "headers",
        "last_calls",
        "pending",
        "status_line",
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
        self.encoding: _Encoding | None = None
        self.status_line = ""

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
        if self.encoding is not None:
            # Of another response, which was given up before it was sent.
            self.encoding.withdraw()
            self.encoding = None
        self.status_line = status_line
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


class _Encoding:
    """Stands in for ``write`` and ``write_eof`` of one writer."""

    __slots__ = (
        "broken",
        "chunked",
        "encoder",
        "ended",
        "headers",
        "missing",
        "sending",
        "sized",
        "streamed",
        "turn",
        "write_eof_plain",
        "write_plain",
        "writer",
    )

    def __init__(
        self,
        sending: _Sending,
        headers: Headers,
        encoder: Encoder,
        chunked: bool,
    ) -> None:
        self.sending = sending
        self.writer = writer = sending.writer
        self.write_plain: Callable[..., Awaitable[None]] = writer.write
        self.write_eof_plain = writer.write_eof
        self.headers = headers
        self.encoder = encoder
        self.chunked = chunked
        #: Whether a body in one piece gets a Content-Length.
        self.sized = hdrs.TRANSFER_ENCODING not in headers
        length = headers.popall(hdrs.CONTENT_LENGTH, None)
        #: How much of what was announced is still to be written.
        self.missing = None if length is None else int(length[0])
        if chunked:
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
        self.streamed = False
        self.ended = False
        # An encoder takes one part after the other, and a part of which the
        # result was lost cannot be made good.
        self.turn = asyncio.Lock()
        self.broken = False
        writer.write = self.write  # type: ignore[method-assign]
        writer.write_eof = self.write_eof  # type: ignore[method-assign]

    def withdraw(self) -> None:
        self.writer.write = self.write_plain  # type: ignore[method-assign]
        self.writer.write_eof = self.write_eof_plain  # type: ignore[method-assign]

    async def write(self, chunk: Bytes, **options: Any) -> None:
        async with self.turn:
            self._stream()
            encoded = await self._encoded(self.encoder.more, self._part(chunk))
            await self.write_plain(encoded, **options)

    async def write_eof(self, chunk: Bytes = b"") -> None:
        async with self.turn:
            if self.ended:
                return
            if self.streamed or self.writer.output_size > 0:
                self._stream()
                encoded = b""
                if chunk:
                    part = self._part(chunk)
                    encoded = await self._encoded(self.encoder.more, part)
                if self.missing:
                    # In chunks it would look complete.
                    raise ClientConnectionResetError(
                        "The body is shorter than its Content-Length"
                    )
                encoded += await self._encoded(self.encoder.end)
                self.ended = True
                await self.write_eof_plain(encoded)
                return
            body = await self._encoded(self.encoder.whole, chunk)
            if self.sized:
                self.headers.popall(hdrs.TRANSFER_ENCODING, None)
                self.headers[hdrs.CONTENT_LENGTH] = str(len(body))
            # They were only buffered so far, and these take their place.
            await self.sending.write_headers(
                self.sending.status_line, self.headers
            )
            self.ended = True
            await self.write_eof_plain(body)  # type: ignore[arg-type]

    def _stream(self) -> None:
        if not self.streamed:
            self.streamed = True
            self.writer.length = None
            if self.chunked:
                self.writer.enable_chunking()

    def _part(self, chunk: Bytes) -> memoryview:
        part = memoryview(chunk).cast("B")
        if self.missing is not None:
            # As the writer has it: what was not announced is not sent.
            part = part[: self.missing]
            self.missing -= len(part)
        return part

    async def _encoded(
        self, step: Callable[..., Awaitable[Any]], *part: Bytes
    ) -> Any:
        if self.broken:
            raise ClientConnectionResetError("A part of the body was lost")
        self.broken = True
        encoded = await step(*part)
        self.broken = False
        return encoded
