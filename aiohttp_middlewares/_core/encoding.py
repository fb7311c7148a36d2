"""Send the body of any response through an encoder, such as a compressor.

Where ``sending`` changes headers, at the writer of the request: a body passes
its ``write`` and ``write_eof``, which are public methods as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from aiohttp_middlewares._core.sending import (
    Headers,
    Hook,
    before_sending,
    has_sent,
    release_at_end,
)

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


def encode_body(request: web.Request, choose: EncoderChoice) -> None:
    """Send the body through the encoder that ``choose(status, headers)`` gives.

    It is asked as a last call is, and gives ``None`` for a body to leave
    alone. Else the headers announce a body in chunks, or for HTTP/1.0 one that
    ends with the connection. A body that comes in one piece before they are
    out, as that of a ``web.Response`` does, gets its length instead.

    A file that aiohttp hands to the kernel does not go through the encoder:
    ``FileResponse.enable_compression(ContentCoding.identity)`` prevents that.
    """
    before_sending(request, choose, _EncodingHook)
    release_at_end(request.writer)


class _EncodingHook(Hook):
    __slots__ = ()

    async def __call__(  # type: ignore[override]
        self, status_line: str, headers: Headers
    ) -> None:
        writer = self.begin()
        earlier = getattr(writer.write, "__self__", None)
        if isinstance(earlier, _Encoding) and earlier.headers is not headers:
            earlier.withdraw()  # that response was given up before it was sent
        encoder = self.job(int(status_line.split(" ", 2)[1]), headers)
        if encoder is not None:
            _Encoding(writer, status_line, headers, encoder)
        await self.go_on(writer, status_line, headers)


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
            if self.streamed or has_sent(self.writer):
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
