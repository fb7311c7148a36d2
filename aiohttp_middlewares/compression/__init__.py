"""
======================
Compression middleware
======================

Compresses responses with gzip, brotli or zstd for the clients that accept it:
for an application whose proxy does not do so already.

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
the two that are better; Python 3.14 has zstd built in. What a client accepts is
read as `RFC 9110 12.5.3
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
* types that are not in ``content_types``; ``text/event-stream`` must be listed
  by that name
* bodies smaller than ``minimum_size``, empty ones, and those that would not get
  smaller
* everything, when no encoding is acceptable; that is not an error

Order
=====

Outside of :mod:`aiohttp_middlewares.idempotency`, whose repeated answers it
then compresses, and inside of :mod:`aiohttp_middlewares.security_headers`. As
it works where an answer leaves, it also compresses what a middleware outside of
it answers instead, such as an error page. The response object is never changed:
whoever looks at its body sees it uncompressed.

Limits
======

A page that holds a secret, such as a token, together with something that the
visitor or an attacker chooses must not be compressed over TLS: the length
gives the secret away, letter by letter (BREACH). List such URLs in ``ignore``
or send ``Cache-Control: no-transform``.

A file that is compressed is read and sent by the process, not by the kernel.
Files that never change are better compressed once: aiohttp serves
``page.html.br`` and ``page.html.gz`` that lie beside ``page.html``. It looks
for the word in ``Accept-Encoding`` and ignores weights: ``gzip;q=0`` gets the
sibling as well.

A handler that sets a strong ``ETag`` gets it back as ``W/"..."`` in
``If-None-Match``; compare without the prefix. In ``If-Match`` a weak tag fits
nothing (RFC 9110 13.1.1): a client that reads with compression and writes back
with ``If-Match`` is answered 412. List such URLs in ``ignore``, files among
them, or compare there without the prefix as well. If the same client resumes a
download with ``If-Range``, it gets all of it again where the server compares
tags (13.1.5); aiohttp compares dates only, and sends a part of the plain file.

The answer to ``HEAD`` describes the body without compression, and what a
handler still writes to a stream is not sent. Nothing is compressed for HTTP/1.0
with keep-alive, where a body must state its length first.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.encoding import NO_BODY, EncodedBody
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.sending import RESPONSES, Body, before_sending
from aiohttp_middlewares._core.urls import url_matcher
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.compression._codecs import (
    LEVELS,
    CodecFactory,
    factories,
)
from aiohttp_middlewares.compression._encoder import CompressingEncoder
from aiohttp_middlewares.compression._plan import Asked, Plan, Types

__all__ = (
    "DEFAULT_CONTENT_TYPES",
    "DEFAULT_LEVELS",
    "compression_middleware",
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
#: Of one core at the level, the bytes saved for its time.
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
    # Not an exemption: to be compressed is no protection, but the danger.
    ignored = url_matcher(f"{what} ignore", ignore)
    plan = Plan(
        tuple(codecs),
        minimum_size,
        Types(f"{what} content_types", content_types),
    )
    # Its own, so that large bodies do not hold up files and name look-ups.
    # It starts a thread when there is something to do.
    threads = ThreadPoolExecutor(
        os.cpu_count() or 1, thread_name_prefix="compression"
    )

    @middleware
    async def compression(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        compressing = _Compressing(request, plan, codecs, threads)
        before_sending(request, compressing)
        response = await handler(request)
        compressing.passes(response)
        return response

    return compression


class _Compressing:
    """The job of one request. It does not hold the request."""

    __slots__ = (
        "asked",
        "codecs",
        "file",
        "fixed",
        "passed",
        "plan",
        "threads",
    )

    def __init__(
        self,
        request: web.Request,
        plan: Plan,
        codecs: Mapping[str, CodecFactory],
        threads: Executor,
    ) -> None:
        self.asked = Asked(request)
        self.plan = plan
        self.codecs = codecs
        self.threads = threads
        #: The headers of what was returned, which is not always what is sent.
        self.passed: CIMultiDict[str] | None = None
        self.file: web.FileResponse | None = None
        self.fixed = False

    def passes(self, response: web.StreamResponse) -> None:
        if type(response) is web.Response:
            self.passed = response.headers
            self.fixed = response.compression
        elif isinstance(response, RESPONSES) and not response.prepared:
            self.passed = response.headers
            self.fixed = response.compression
            if isinstance(response, web.FileResponse):
                self.file = response

    def __call__(self, status: int, headers: CIMultiDict[str]) -> Body | None:
        encoding = self.plan(self.asked, status, headers)
        if encoding is None:
            return NO_BODY if self.asked.head and status >= 200 else None
        if headers is not self.passed:
            # Prepared by the handler, raised, or made outside of here. A file
            # would not go through the encoder, and this is how one looks.
            if hdrs.CONTENT_LENGTH in headers and hdrs.ACCEPT_RANGES in headers:
                return None
        elif self.fixed:
            return None
        elif self.file is not None:
            # So that aiohttp does not have the kernel send it.
            self.file.enable_compression(web.ContentCoding.identity)
        self.file = None  # which refers to its request while it is sent
        encoder = CompressingEncoder(
            headers,
            encoding,
            self.codecs[encoding],
            self.plan.minimum_size,
            self.threads,
        )
        return EncodedBody(self.asked.version, headers, encoder)


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
