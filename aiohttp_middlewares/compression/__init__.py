"""
======================
Compression middleware
======================

Sends answers compressed to the clients that accept it, with zstd, brotli or
gzip: for an application whose proxy does not do it already.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import compression_middleware, error_middleware


    async def notes(request: web.Request) -> web.Response:
        return web.json_response([{"id": number} for number in range(1000)])


    app = web.Application(
        middlewares=[
            error_middleware(),
            compression_middleware(ignore=["/login"]),
        ]
    )
    app.router.add_get("/notes", notes)

gzip is always there. ``pip install "aiohttp-middlewares[zstd,brotli]"`` adds
the two that are better; Python 3.14 has zstd of its own. What a client accepts
is read as `RFC 9110 12.5.3
<https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3>`_ has it, weights,
``identity`` and ``*`` included.

What is compressed
==================

Every kind of answer: returned and raised ones, errors that another middleware
or aiohttp makes, streams, payloads, files. Each ``write`` of a stream can be
decoded when it arrives. Bodies of 64 kB and more are compressed in a thread.

The headers stay true: ``Vary: Accept-Encoding`` whenever the type of the body
is one to compress, a weak ``ETag``, the right ``Content-Length`` or none, no
``Accept-Ranges`` and no digests of what is not sent.

These are sent as they are:

* 1xx, 204, 205, 304, and the answer to ``HEAD``
* ranges (206)
* ``Content-Encoding`` or ``Cache-Control: no-transform`` in the headers
* what the handler itself has called ``enable_compression`` on
* types that are not in ``content_types``; ``text/event-stream`` has to be
  listed by that name
* bodies smaller than ``minimum_size``, and those that would not get smaller
* anything when no encoding is acceptable; that is no error

Order
=====

Inside of :mod:`aiohttp_middlewares.error` and outside of
:mod:`aiohttp_middlewares.timeout`. As it works where an answer leaves, it also
compresses what a middleware outside of it answers instead, such as an error
page. What should see uncompressed bodies in a response object sees them: the
object is never changed.

Limits
======

A page that holds a secret, such as a token, together with something that the
visitor or an attacker chooses must not be compressed over TLS: the length
gives the secret away, letter by letter (BREACH). List such URLs in ``ignore``
or send ``Cache-Control: no-transform``.

A file that is compressed is read and sent by the process, not by the kernel.
Files that never change are better compressed once: aiohttp serves
``page.html.br`` and ``page.html.gz`` that lie beside ``page.html``.

A handler that sets a strong ``ETag`` gets it back as ``W/"..."`` in
``If-None-Match``; compare without the prefix. A ``HEAD`` describes the answer
without compression. To HTTP/1.0 with keep-alive nothing is compressed, as
there a body has to say its length first.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.encoding import Bytes, encode_body
from aiohttp_middlewares._core.grammar.fields import (
    VARY,
    add_elements,
    elements,
    weighted,
)
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.compression._codecs import (
    LEVELS,
    Codec,
    CodecFactory,
    factories,
)

#: What is worth compressing: ``*`` stands for every subtype, ``+json`` for
#: every type with that suffix.
DEFAULT_CONTENT_TYPES = (
    "+json",
    "+xml",
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/sfnt",
    "font/ttf",
    "image/svg+xml",
    "text/*",
)
DEFAULT_LEVELS: Mapping[str, int] = {"zstd": 3, "br": 4, "gzip": 6}


def compression_middleware(
    *,
    encodings: Sequence[str] | None = None,
    minimum_size: int = 500,
    levels: Mapping[str, int] | None = None,
    content_types: StrCollection = DEFAULT_CONTENT_TYPES,
    ignore: Urls | None = None,
) -> Middleware:
    """Compress what is sent, as the client accepts it.

    :param encodings:
        Of ``"zstd"``, ``"br"`` and ``"gzip"`` those to use. Where a client
        likes several the same, the first of them is taken. By default: all
        that are installed, in that order.
    :param minimum_size:
        The size in bytes below which a body is left alone. A stream whose
        size nobody knows is compressed. By default: 500.
    :param levels:
        A mapping of encodings to levels: the higher, the smaller and slower.
        zstd has 1 to 22, of which those above 19 get a window of 8 MB, the
        most that browsers read (RFC 9659); br 0 to 11; gzip 1 to 9. By
        default: 3, 4 and 6, also for an encoding that is not named.
    :param content_types:
        The types to compress: ``"application/json"``, ``"text/*"``, or
        ``"+json"`` for all with that suffix. They take the place of the
        default. ``"text/event-stream"`` is covered by its own name only. By
        default: :data:`DEFAULT_CONTENT_TYPES`.
    :param ignore:
        URLs whose answers are never compressed: a collection of paths,
        patterns and URLs, or a mapping of them to methods. By default: none.
    :raises ImportError: an encoding is named that is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option can never work.
    """
    what = "compression_middleware"
    codecs = factories(
        what,
        _encodings(f"{what} encodings", encodings),
        _levels(f"{what} levels", levels),
    )
    options.integer(f"{what} minimum_size", minimum_size)
    ignored = exemption(f"{what} ignore", ignore)
    plan = _Plan(
        tuple(codecs),
        minimum_size,
        _Types(f"{what} content_types", content_types),
    )
    # Its own, so that large bodies do not hold up files and name look-ups.
    # It starts a thread when there is something to do.
    threads = ThreadPoolExecutor(
        os.cpu_count() or 1, thread_name_prefix="compression"
    )

    @web.middleware
    async def compression(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        returned: web.StreamResponse | None = None

        def choose(status: int, headers: CIMultiDict[str]) -> _Encoder | None:
            encoding = plan(request, returned, status, headers)
            if encoding is None:
                return None
            make = codecs[encoding]
            return _Encoder(headers, encoding, make, minimum_size, threads)

        encode_body(request, choose)
        returned = await handler(request)
        return returned

    return compression


def _encodings(what: str, value: Sequence[str] | None) -> Sequence[str] | None:
    if value is None:
        return None
    of = "'zstd', 'br' and 'gzip'"
    found = options.items(what, of, value)
    if not found:
        options.refuse(ValueError, what, f"at least one of {of}", value)
    for item in found:
        if not isinstance(item, str):
            options.refuse(TypeError, what, f"a collection of {of}", item)
        if item not in LEVELS:
            meant = {"brotli": "'br'", "zst": "'zstd'", "x-gzip": "'gzip'"}
            options.refuse(
                ValueError,
                what,
                f"a collection of {of}",
                item,
                meant=meant.get(item.lower()),
            )
    return found


def _levels(what: str, value: Mapping[str, int] | None) -> Mapping[str, int]:
    if value is None:
        return DEFAULT_LEVELS
    if not isinstance(value, Mapping):
        options.refuse(TypeError, what, "a mapping of encodings", value)
    for encoding, level in value.items():
        if encoding not in LEVELS:
            options.refuse(
                ValueError, what, "a mapping of 'zstd', 'br', 'gzip'", encoding
            )
        known = LEVELS[encoding]
        should = f"a whole number from {known[0]} to {known[-1]}"
        if isinstance(level, bool) or not isinstance(level, int):
            options.refuse(TypeError, f"{what}[{encoding!r}]", should, level)
        if level not in known:
            options.refuse(ValueError, f"{what}[{encoding!r}]", should, level)
    return {**DEFAULT_LEVELS, **value}


class _Plan:
    """The encoding for an answer, or ``None``; ``Vary`` and what goes with it.

    The answer is known by its status and headers. What the handler returned
    is not always what is sent: see whether its headers are.
    """

    def __init__(
        self,
        encodings: tuple[str, ...],
        minimum_size: int,
        is_compressible: Callable[[str], bool],
    ) -> None:
        self.minimum_size = minimum_size
        self.is_compressible = is_compressible
        # Clients send few different values.
        self.accepted = lru_cache(maxsize=256)(_Negotiation(encodings))

    def __call__(
        self,
        request: web.Request,
        returned: object,
        status: int,
        headers: CIMultiDict[str],
    ) -> str | None:
        if status == _NOT_MODIFIED:
            _revalidate(request, headers)
            return None
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if (
            status < 200  # after 101 it is no HTTP
            or content_type is None
            or not self.is_compressible(content_type)
            or _is_fixed(headers)
        ):
            return None
        _vary(headers)
        if (
            status in _WITHOUT_WHOLE_BODY
            or request.method == hdrs.METH_HEAD
            or hdrs.CONTENT_ENCODING in headers
            or hdrs.CONTENT_RANGE in headers
        ):
            return None
        wanted = request.headers.getall(hdrs.ACCEPT_ENCODING, None)
        encoding = None if wanted is None else self.accepted(",".join(wanted))
        if encoding is None:
            return None
        size = headers.get(hdrs.CONTENT_LENGTH)
        if size is not None and int(size) < self.minimum_size:
            return None
        if request.version < HttpVersion11 and request.keep_alive:
            return None
        if (
            not isinstance(returned, web.StreamResponse)
            or returned.headers is not headers
        ):
            # Prepared by the handler, raised, or made outside of here. A file
            # would not go through the encoder, and this is how one looks.
            if size is not None and hdrs.ACCEPT_RANGES in headers:
                return None
        elif returned.compression:
            return None
        elif isinstance(returned, web.FileResponse):
            # So that aiohttp does not have the kernel send it.
            returned.enable_compression(web.ContentCoding.identity)
        return encoding


_NOT_MODIFIED = 304
_WITHOUT_WHOLE_BODY = {204, 205, 206}


class _Types:
    """Whether a ``Content-Type`` is one to compress."""

    def __init__(self, what: str, content_types: StrCollection) -> None:
        should = "content types such as 'text/*', 'text/html' or '+json'"
        self.exact: set[str] = set()
        self.majors: set[str] = set()
        suffixes = []
        for item in options.strings(what, content_types):
            rule = item.strip().lower()
            major, _, minor = rule.partition("/")
            if rule.startswith("+") and options.TOKEN.fullmatch(rule):
                suffixes.append(rule)
            elif not (
                options.TOKEN.fullmatch(major)
                and options.TOKEN.fullmatch(minor)
            ):
                meant = None
                if ";" in rule:
                    meant = repr(rule.partition(";")[0].strip())
                options.refuse(
                    ValueError,
                    what,
                    f"a collection of {should}",
                    item,
                    meant=meant,
                )
            elif minor == "*":
                self.majors.add(major)
            else:
                self.exact.add(rule)
        self.suffixes = tuple(suffixes)

    def __call__(self, content_type: str) -> bool:
        kind = content_type.partition(";")[0].strip().lower()
        if kind in self.exact:
            return True
        # Proxies and clients tend to hold back events that are compressed.
        if kind == "text/event-stream":
            return False
        return kind.partition("/")[0] in self.majors or (
            kind.endswith(self.suffixes)
        )


class _Negotiation:
    """The best of our encodings by ``Accept-Encoding``: RFC 9110 12.5.3."""

    def __init__(self, encodings: tuple[str, ...]) -> None:
        self.encodings = encodings

    def __call__(self, accept: str) -> str | None:
        weights = dict(weighted(accept))
        if "x-gzip" in weights:  # RFC 9110 8.4.1.3: the same
            weights.setdefault("gzip", weights["x-gzip"])
        others = weights.get("*", 0.0)
        # Of equals the first is taken. Unless it is named, no encoding at all
        # is the last choice, but always a choice.
        best, encoding = weights.get("identity", others), None
        for offer in reversed(self.encodings):
            weight = weights.get(offer, others)
            if weight > 0 and weight >= best:
                best, encoding = weight, offer
        return encoding


def _is_fixed(headers: CIMultiDict[str]) -> bool:
    # RFC 9111 5.2.2.6
    return hdrs.CACHE_CONTROL in headers and any(
        directive.lower() == "no-transform"
        for directive in elements(headers.getall(hdrs.CACHE_CONTROL))
    )


def _vary(headers: CIMultiDict[str]) -> None:
    if VARY in headers:
        add_elements(headers, VARY, ("Accept-Encoding",))
    else:
        headers[VARY] = "Accept-Encoding"


def _revalidate(request: web.Request, headers: CIMultiDict[str]) -> None:
    """A 304 names what the client has as the 200 had it: RFC 9110 15.4.5."""
    etag = headers.get(hdrs.ETAG)
    if etag is None:
        return
    known = elements(request.headers.getall(hdrs.IF_NONE_MATCH, ()))
    if f"W/{etag}" in known and etag not in known:
        headers[hdrs.ETAG] = f"W/{etag}"
        _vary(headers)


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


class _Encoder:
    """One body on its way through a codec, with the headers that go ahead."""

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
        if len(body) >= self.minimum_size:
            encoded = await self._run(self.make().whole, body)
            if len(encoded) < len(body):
                return encoded
        for name in _CHANGED:
            self.headers.popall(name, None)
        self.headers.extend(self.before)
        return body

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
