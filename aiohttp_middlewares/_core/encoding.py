"""Send the body of any response through an encoder, such as a compressor.

Where ``sending`` changes headers, at the writer of the request: a body passes
its ``write`` and ``write_eof``, which are public methods as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import ClientConnectionResetError, HttpVersion11, hdrs

from aiohttp_middlewares._core.sending import (
    AnsweredAlready,
    Body,
    Bytes,
    Departure,
    Headers,
    has_sent,
)


class Encoder(Protocol):
    """Makes what is sent of what was written."""

    async def whole(self, body: Bytes) -> Bytes:
        """All of the body at once; the headers may still be changed."""
        ...

    async def more(self, data: memoryview) -> bytes:
        """The next part, which a client can decode when it gets it."""
        ...

    async def end(self) -> bytes:
        """What follows the last part."""
        ...

    def withdraw(self) -> None:
        """Have the headers say again what they said of the plain body."""
        ...


class NoBody(Body):
    """Takes a body that must not be sent, such as that to a ``HEAD``.

    aiohttp sends what a handler writes to a stream there, and the client
    takes it for its next answer.
    """

    async def write(
        self, departure: Departure, chunk: Bytes, **options: Any
    ) -> None:
        pass

    async def write_eof(self, departure: Departure, chunk: Bytes) -> None:
        await departure.send_eof(b"")


NO_BODY = NoBody()


class NotModified(NoBody):
    """Has 304 leave in place of the answer: RFC 9110 15.4.5."""

    status = HTTPStatus.NOT_MODIFIED


NOT_MODIFIED = NotModified()


class EncodedBody(Body):
    """Sends a body through an encoder: for a job to return.

    The headers announce it in chunks, or to HTTP/1.0 as one that ends with
    the connection. One that comes in one piece before they are out, as that
    of a ``web.Response`` does, gets its length instead.

    A file that aiohttp hands to the kernel does not pass here:
    ``FileResponse.enable_compression(ContentCoding.identity)`` prevents that.
    """

    def __init__(
        self, version: tuple[int, int], headers: Headers, encoder: Encoder
    ) -> None:
        self.headers = headers
        self.encoder = encoder
        #: Whether a body in one piece gets a Content-Length.
        self.sized = hdrs.TRANSFER_ENCODING not in headers
        self.announced = headers.popall(hdrs.CONTENT_LENGTH, None)
        #: How much of what the handler announced is still to be written.
        self.missing = None if not self.announced else int(self.announced[0])
        # RFC 9112 6.1: never to a client of an earlier version.
        self.chunked = version >= HttpVersion11
        if self.chunked:
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
        self.streamed = False
        # An encoder takes one part after the other, and a part of which the
        # result was lost cannot be made good.
        self.turn = asyncio.Lock()
        self.broken = False

    async def write(
        self, departure: Departure, chunk: Bytes, **options: Any
    ) -> None:
        async with self.turn:
            self.stream(departure)
            encoded = await self.encoded(
                departure, self.encoder.more, self.part(chunk)
            )
            await departure.send(encoded, **options)

    async def write_eof(self, departure: Departure, chunk: Bytes) -> None:
        async with self.turn:
            begun = self.streamed or has_sent(departure.writer)
            part = self.last_part if begun else self.only_part
            last = await part(departure, chunk)
            await departure.send_eof(last)
            self.complete()

    async def last_part(self, departure: Departure, chunk: Bytes) -> Bytes:
        self.stream(departure)
        last: bytes = await self.encoded(
            departure, self.encoder.more, self.part(chunk)
        )
        self.complete()  # else it would look so, in chunks
        last += await self.encoded(departure, self.encoder.end)
        return last

    async def only_part(self, departure: Departure, chunk: Bytes) -> Bytes:
        last: Bytes = self.part(chunk)
        if self.missing:
            # It goes out as it would without us, and then is cut.
            self.encoder.withdraw()
            size = int((self.announced or "0")[0])
        else:
            last = await self.encoded(departure, self.encoder.whole, last)
            size = len(last)
        if self.sized:
            self.headers.popall(hdrs.TRANSFER_ENCODING, None)
            self.headers[hdrs.CONTENT_LENGTH] = str(size)
        await departure.resend_headers(self.headers)
        return last

    def complete(self) -> None:
        if self.missing:
            raise ClientConnectionResetError(
                "The body is shorter than its Content-Length"
            )

    def stream(self, departure: Departure) -> None:
        if not self.streamed:
            self.streamed = True
            departure.writer.length = None
            if self.chunked:
                departure.writer.enable_chunking()
            departure.framing = self.chunked, None, None

    def part(self, chunk: Bytes) -> memoryview:
        part = memoryview(chunk).cast("B")
        if self.missing is not None:
            # As the writer has it: what was not announced is not sent.
            part = part[: self.missing]
            self.missing -= len(part)
        return part

    async def encoded(
        self,
        departure: Departure,
        step: Callable[..., Awaitable[Any]],
        *part: Bytes,
    ) -> Any:
        if self.broken:
            raise ClientConnectionResetError("A part of the body was lost")
        self.broken = True
        encoded = await step(*part)
        # Meanwhile another response may have taken its place.
        self.broken = departure.body is not self
        if self.broken:
            raise AnsweredAlready
        return encoded
