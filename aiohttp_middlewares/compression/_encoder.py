"""One body on its way through a codec, with the headers that go ahead."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from aiohttp import hdrs
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core.sending import Bytes
from aiohttp_middlewares.compression._codecs import Codec, CodecFactory

_DIGESTS = tuple(
    istr(name)
    for name in ("Content-Digest", "Content-MD5", "Digest", "Repr-Digest")
)
#: The headers that say something else of a body that is compressed.
_CHANGED = (
    hdrs.ACCEPT_RANGES,
    hdrs.CONTENT_ENCODING,
    hdrs.ETAG,
    *_DIGESTS,
)
#: From this many bytes on the event loop would notice.
_THREAD_SIZE = 65536


class CompressingEncoder:
    """The encoder of one body."""

    def __init__(
        self,
        headers: CIMultiDict[str],
        encoding: str,
        make: CodecFactory,
        minimum_size: int,
        threads: Executor,
    ) -> None:
        self.headers = headers
        self.minimum_size = minimum_size
        self.threads = threads
        self.make = make
        self.codec: Codec | None = None
        self.before = [
            (name, value)
            for name in _CHANGED
            for value in headers.getall(name, ())
        ]
        for name in (hdrs.ACCEPT_RANGES, *_DIGESTS):
            headers.popall(name, None)
        headers[hdrs.CONTENT_ENCODING] = encoding
        etag = headers.get(hdrs.ETAG)
        if etag is not None and etag.startswith('"'):
            # RFC 9110 8.8.1: two representations, which mean the same.
            headers[hdrs.ETAG] = f"W/{etag}"

    async def whole(self, body: Bytes) -> Bytes:
        if body and len(body) >= self.minimum_size:
            encoded = await self._run(self.make().whole, body)
            if len(encoded) < len(body):
                return encoded
        self.withdraw()
        return body

    def withdraw(self) -> None:
        for name in _CHANGED:
            self.headers.popall(name, None)
        self.headers.extend(self.before)

    async def more(self, data: memoryview) -> bytes:
        if not data:
            return b""  # a flush of nothing takes bytes, too
        if self.codec is None:
            self.codec = self.make()
        return await self._run(self.codec.more, data)

    async def end(self) -> bytes:
        return (self.codec or self.make()).end()

    async def _run(self, step: Callable[[Any], bytes], data: Bytes) -> bytes:
        if len(data) < _THREAD_SIZE:
            return step(data)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, step, data)
