"""Change the headers of any response just before they leave.

aiohttp's own signal for this has to be connected before the application
starts, and a middleware list knows no application. What every answer passes,
though, is ``write_headers`` of the request's writer: returned responses,
raised ``web.HTTPException``, streams, files, WebSocket handshakes, and the
404, 405, 500 and 504 that aiohttp makes by itself. There is one writer for
each request, and every clone of the request shares it. Both the property and
the method are public (``BaseRequest.writer``, ``AbstractStreamWriter``).

The body passes ``write`` and ``write_eof`` of the same writer. No other module
touches it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias

from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

Headers: TypeAlias = CIMultiDict[str]
#: Changes headers; done again to the same headers, it changes nothing more.
Decorator: TypeAlias = Callable[[Headers], None]
#: Gets the status and the headers of what is really sent.
LastCall: TypeAlias = Callable[[int, Headers], Awaitable[None] | None]
WriteHeaders: TypeAlias = Callable[[str, Headers], Awaitable[None]]
Bytes: TypeAlias = bytes | bytearray | memoryview


class Encoder(Protocol):
    """Makes what is sent of what was written."""

    async def whole(self, body: Bytes) -> Bytes:
        """All of the body at once; the headers may still be changed."""

    async def more(self, data: memoryview) -> bytes:
        """The next part, which a client can decode when it gets it."""

    async def end(self) -> bytes:
        """What follows the last part."""


#: Gets the status and the headers of what is really sent, may change these.
EncoderChoice: TypeAlias = Callable[[int, Headers], Encoder | None]

#: For isinstance(), which finds the very class of an object quickly.
RESPONSES = (web.Response, web.StreamResponse)


def started(request: web.Request) -> bool:
    """Whether bytes of a response are out, so that no other can be sent."""
    return request.writer.output_size > 0


def start_over(request: web.Request) -> None:
    """Let another response take the place of one that did not leave.

    One that was given up while its headers were composed, by a signal handler
    that failed or took too long, has told the writer already how its body
    would come. aiohttp does not take that back: the body of the next would be
    framed in another way than its headers say.
    """
    _start_over(request.writer)


def before_sending(request: web.Request, decorator: Decorator) -> None:
    """Have the headers of whatever answers the request decorated.

    When they leave: inner middlewares have their turn before outer ones, so
    that of two that differ the outer one has its way. A middleware should
    apply its decorator earlier as well, to what passes by: raised
    ``web.HTTPException`` and :data:`RESPONSES`. Then those outside see it.
    """
    _wrap(request.writer, _decorate_and_write, decorator)


def on_last_call(request: web.Request, call: LastCall) -> None:
    """Have ``call(status, headers)`` done when the headers leave.

    Once for a response, and only for the one that is sent; the inner
    middleware's before the outer one's.
    """
    _wrap(request.writer, _call_and_write, call)


def encode_body(request: web.Request, choose: EncoderChoice) -> None:
    """Send the body through the encoder that ``choose(status, headers)`` gives.

    It is asked as a last call is, and gives ``None`` for a body to leave
    alone. Else the headers announce a body in chunks, or for HTTP/1.0 one that
    ends with the connection. A body that comes in one piece before they are
    out, as that of a ``web.Response`` does, gets its length instead.

    A file that aiohttp hands to the kernel does not go through the encoder:
    ``FileResponse.enable_compression(ContentCoding.identity)`` prevents that.
    """
    _wrap(request.writer, _encode_and_write, choose)


def only_one_response(request: web.Request) -> None:
    """Have any further response to this request refused.

    aiohttp would send it, into the body of the first one or in place of the
    answer to the next request.
    """
    writer = request.writer
    _wrap(writer, _decorate_and_write, _nothing)
    end = writer.write_eof

    async def write_eof(chunk: bytes = b"") -> None:
        # Whoever has prepared another one meanwhile may only write_eof(),
        # which the writer ignores the second time.
        writer.write = _refuse  # type: ignore[method-assign]
        await end(chunk)

    with suppress(AttributeError):
        writer.write_eof = write_eof  # type: ignore[method-assign]


def _nothing(headers: Headers) -> None:
    pass


async def _refuse(*args: object, **kwargs: object) -> None:
    raise ClientConnectionResetError("A response was sent already")


def _wrap(
    writer: AbstractStreamWriter, write_headers: Callable[..., Any], job: Any
) -> None:
    """Have the writer write headers by ``write_headers`` from now on.

    What was wrapped last, by the innermost middleware, has the first turn.
    """
    try:
        writer.write_headers = partial(  # type: ignore[method-assign]
            write_headers, job, writer, writer.write_headers
        )
    except AttributeError:
        pass  # a writer with slots: only what passes by gets decorated


async def _decorate_and_write(
    decorator: Decorator,
    writer: AbstractStreamWriter,
    write_headers: WriteHeaders,
    status_line: str,
    headers: Headers,
) -> None:
    _refuse_a_second_response(writer)
    decorator(headers)
    await write_headers(status_line, headers)


async def _call_and_write(
    call: LastCall,
    writer: AbstractStreamWriter,
    write_headers: WriteHeaders,
    status_line: str,
    headers: Headers,
) -> None:
    _refuse_a_second_response(writer)
    try:
        done = call(int(status_line.split(" ", 2)[1]), headers)
        if done is not None:
            await done
    except BaseException:
        _start_over(writer)  # aiohttp may answer 500
        raise
    await write_headers(status_line, headers)


async def _encode_and_write(
    choose: EncoderChoice,
    writer: AbstractStreamWriter,
    write_headers: WriteHeaders,
    status_line: str,
    headers: Headers,
) -> None:
    _refuse_a_second_response(writer)
    earlier = getattr(writer.write, "__self__", None)
    if isinstance(earlier, _Encoding) and earlier.headers is not headers:
        earlier.withdraw()  # that response was given up before it was sent
    encoder = choose(int(status_line.split(" ", 2)[1]), headers)
    if encoder is not None:
        _Encoding(writer, status_line, headers, encoder)
    await write_headers(status_line, headers)


def _start_over(writer: Any) -> None:
    with suppress(AttributeError):
        writer.chunked = False
        writer._compress = None


def _refuse_a_second_response(writer: AbstractStreamWriter) -> None:
    """aiohttp would write it into the body of the first."""
    if writer.output_size > 0:
        raise ClientConnectionResetError("A response was sent already")


class _Encoding:
    """Stands in for ``write`` and ``write_eof`` of one writer."""

    def __init__(
        self,
        writer: AbstractStreamWriter,
        status_line: str,
        headers: Headers,
        encoder: Encoder,
    ) -> None:
        self.writer = writer
        self.status_line = status_line
        self.headers = headers
        self.encoder = encoder
        self.plain_write: Callable[..., Awaitable[None]] = writer.write
        self.plain_write_eof: Callable[..., Awaitable[None]] = writer.write_eof
        #: Whether a body in one piece gets a Content-Length.
        self.sized = hdrs.TRANSFER_ENCODING not in headers
        length = headers.popall(hdrs.CONTENT_LENGTH, None)
        #: How much of what the handler announced is still to be written.
        self.missing = None if length is None else int(length[0])
        self.chunked = not status_line.startswith("HTTP/1.0")
        if self.chunked:
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
        self.streamed = False
        self.ended = False
        # An encoder takes one part after the other, and a part of which the
        # result was lost cannot be made good.
        self.turn = asyncio.Lock()
        self.broken = False
        self.replace(self.write, self.write_eof)

    def withdraw(self) -> None:
        self.replace(self.plain_write, self.plain_write_eof)

    def replace(
        self,
        write: Callable[..., Awaitable[None]],
        write_eof: Callable[..., Awaitable[None]],
    ) -> None:
        self.writer.write = write  # type: ignore[method-assign, assignment]
        self.writer.write_eof = write_eof  # type: ignore[method-assign, assignment]

    async def write(self, chunk: Bytes, **options: Any) -> None:
        async with self.turn:
            self.stream()
            encoded = await self.encoded(self.encoder.more, self.part(chunk))
            await self.plain_write(encoded, **options)

    async def write_eof(self, chunk: Bytes = b"") -> None:
        async with self.turn:
            if self.ended:
                return
            if self.streamed or self.writer.output_size > 0:
                last = await self.last_part(chunk)
            else:
                last = await self.encoded(self.encoder.whole, chunk)
                await self.correct_headers(len(last))
            self.ended = True
            await self.plain_write_eof(last)

    async def last_part(self, chunk: Bytes) -> bytes:
        self.stream()
        last: bytes = await self.encoded(self.encoder.more, self.part(chunk))
        if self.missing:
            # In chunks it would look complete.
            raise ClientConnectionResetError(
                "The body is shorter than its Content-Length"
            )
        last += await self.encoded(self.encoder.end)
        return last

    async def correct_headers(self, size: int) -> None:
        if self.sized:
            self.headers.popall(hdrs.TRANSFER_ENCODING, None)
            self.headers[hdrs.CONTENT_LENGTH] = str(size)
        # They were only buffered so far, and these take their place. All that
        # is wrapped around the method of the class has been there.
        write_headers = type(self.writer).write_headers
        await write_headers(self.writer, self.status_line, self.headers)

    def stream(self) -> None:
        if not self.streamed:
            self.streamed = True
            self.writer.length = None
            if self.chunked:
                self.writer.enable_chunking()

    def part(self, chunk: Bytes) -> memoryview:
        part = memoryview(chunk).cast("B")
        if self.missing is not None:
            # As the writer has it: what was not announced is not sent.
            part = part[: self.missing]
            self.missing -= len(part)
        return part

    async def encoded(
        self, step: Callable[..., Awaitable[Any]], *part: Bytes
    ) -> Any:
        if self.broken:
            raise ClientConnectionResetError("A part of the body was lost")
        self.broken = True
        encoded = await step(*part)
        self.broken = False
        return encoded
