"""The codecs: what makes a body smaller, and where it comes from."""

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview


class Codec(Protocol):
    """Compresses one body: as a whole, or part by part."""

    def whole(self, body: Bytes) -> bytes: ...

    def more(self, data: Bytes) -> bytes:
        """The next part, flushed: it can be decoded without what follows."""
        ...

    def end(self) -> bytes: ...


#: Makes a codec for one body.
CodecFactory: TypeAlias = Callable[[], Codec]

#: Each encoding with the levels that it has, in the order of preference.
LEVELS: dict[str, range] = {
    "zstd": range(1, 23),
    "br": range(12),
    "gzip": range(1, 10),
}

# RFC 9659: no browser reads a window of more than 8 MB. Level 20 and above
# would take more.
_ZSTD_WINDOW_LOG = 23
_ZSTD_WIDE_LEVELS = 20


def factories(
    what: str, encodings: Sequence[str] | None, levels: Mapping[str, int]
) -> dict[str, CodecFactory]:
    """A factory for each of the encodings; ``None`` is all that there are."""
    makers = {"zstd": _zstd, "br": _brotli, "gzip": _gzip}
    found = {}
    for encoding in makers if encodings is None else encodings:
        try:
            found[encoding] = makers[encoding](levels[encoding])
        except ImportError as exc:
            if encodings is not None:
                package, extra = _EXTRAS[encoding]
                raise ImportError(
                    f"{what}: {encoding!r} needs {package}; "
                    f'pip install "aiohttp-middlewares[{extra}]"'
                ) from exc
    return found


_EXTRAS = {"zstd": ("backports.zstd", "zstd"), "br": ("brotli", "brotli")}


def _gzip(level: int) -> CodecFactory:
    def make() -> Codec:
        return _Gzip(level)

    return make


class _Gzip:
    def __init__(self, level: int) -> None:
        wbits = 16 + zlib.MAX_WBITS  # with the header of gzip
        self.codec = zlib.compressobj(level, zlib.DEFLATED, wbits)

    def whole(self, body: Bytes) -> bytes:
        return self.codec.compress(body) + self.codec.flush()

    def more(self, data: Bytes) -> bytes:
        return self.codec.compress(data) + self.codec.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self.codec.flush()


def _brotli(level: int) -> CodecFactory:
    try:
        import brotli
    except ImportError:
        # PyPy has this one.
        import brotlicffi as brotli  # pyright: ignore[reportMissingImports]

    def make() -> Codec:
        return _Brotli(brotli.Compressor(quality=level))

    return make


class _Brotli:
    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def whole(self, body: Bytes) -> bytes:
        encoded: bytes = self.codec.process(body) + self.codec.finish()
        return encoded

    def more(self, data: Bytes) -> bytes:
        encoded: bytes = self.codec.process(data) + self.codec.flush()
        return encoded

    def end(self) -> bytes:
        encoded: bytes = self.codec.finish()
        return encoded


def _zstd(level: int) -> CodecFactory:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    parameter = zstd.CompressionParameter
    options: dict[int, int] = {parameter.compression_level: level}
    if level >= _ZSTD_WIDE_LEVELS:
        options[parameter.window_log] = _ZSTD_WINDOW_LOG

    def make() -> Codec:
        return _Zstd(zstd.ZstdCompressor(options=options))

    return make


class _Zstd:
    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def whole(self, body: Bytes) -> bytes:
        # In one step, so that the size is known: less memory for small ones.
        encoded: bytes = self.codec.compress(body, self.codec.FLUSH_FRAME)
        return encoded

    def more(self, data: Bytes) -> bytes:
        encoded: bytes = self.codec.compress(data, self.codec.FLUSH_BLOCK)
        return encoded

    def end(self) -> bytes:
        encoded: bytes = self.codec.flush()  # FLUSH_FRAME
        return encoded
