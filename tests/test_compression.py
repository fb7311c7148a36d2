"""Compression: what is sent smaller, and what is left alone."""

import asyncio
import gc
import gzip
import io
import re
import sys
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import answers
import brotli
import pytest
from aiohttp import ClientPayloadError, ClientResponse, hdrs, web
from aiohttp.test_utils import TestClient
from hypothesis import given
from hypothesis import strategies as st
from live import PATIENCE
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    compression_middleware,
    cors_middleware,
    error_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.sending import before_sending
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.compression import (
    DEFAULT_CONTENT_TYPES,
    DEFAULT_LEVELS,
)
from aiohttp_middlewares.compression._codecs import factories
from aiohttp_middlewares.compression._plan import Negotiation

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = TypeVar("T")

TEXT = "".join(f"line {number % 97} of the text\n" for number in range(400))
BODY = TEXT.encode()
LARGE = BODY * 40  # compressed in a thread
# Words in no order: the harder a codec tries, the more it finds.
WORDS = " ".join(Random(7).choices(TEXT.split(), k=20_000))

FILE = web.AppKey("file", Path)

ENCODINGS = ["zstd", "br", "gzip"]
DECODE: dict[str | None, Callable[[bytes], bytes]] = {
    None: bytes,
    "br": brotli.decompress,
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
}


def decoder(encoding: str) -> Callable[[bytes], bytes]:
    """Decodes what arrives, as far as it can be decoded."""
    if encoding == "br":
        process = brotli.Decompressor().process
        # It gives one block at a time.
        return lambda data: b"".join(
            [process(data), *iter(lambda: process(b""), b"")]
        )
    if encoding == "zstd":
        decompress: Callable[[bytes], bytes] = (
            zstd.ZstdDecompressor().decompress
        )
        return decompress
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress


def app_of(
    handler: Handler | None = None,
    *middlewares: Middleware,
    **options: Any,
) -> web.Application:
    """An application that compresses inside of these middlewares."""
    app = web.Application(
        middlewares=[*middlewares, compression_middleware(**options)]
    )
    app.router.add_route("*", "/", handler or text)
    return app


async def text(request: web.Request) -> web.Response:
    return web.Response(text=TEXT)


def answer(**options: Any) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(**{"content_type": "text/plain", **options})

    return answer


def lines_of(response: ClientResponse, name: str) -> list[str]:
    return list(response.headers.getall(name, []))


class Ask:
    """A client that does not decode what it gets."""

    def __init__(self, aiohttp_client: AiohttpClient) -> None:
        self.aiohttp_client = aiohttp_client
        self.clients: dict[int, TestClient[Any, Any]] = {}

    async def __call__(
        self,
        app: web.Application,
        accept: str | None = "gzip",
        path: str = "/",
        method: str = "GET",
        **headers: str,
    ) -> ClientResponse:
        client = self.clients.get(id(app))
        if client is None:
            client = self.clients[id(app)] = await self.aiohttp_client(
                app, auto_decompress=False
            )
        sent = CIMultiDict(
            {name.replace("_", "-"): value for name, value in headers.items()}
        )
        if accept is not None:
            sent[hdrs.ACCEPT_ENCODING] = accept
        return await client.request(
            method,
            path,
            headers=sent,
            skip_auto_headers=[hdrs.ACCEPT_ENCODING],
            allow_redirects=False,
        )


@pytest.fixture
def ask(aiohttp_client: AiohttpClient) -> Ask:
    return Ask(aiohttp_client)


# Which encoding
# ==============


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", None),
        ("compress, deflate", None),
        ("gzip, deflate, br, zstd", "zstd"),
        ("br, gzip", "br"),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"),
        ("gzip;q=0.8,br;q=0.8", "br"),
        ("gzip ; q=0.2 , br ; q=0.1", "gzip"),
        ("gzip;Q=0.2, br;q=0.3", "br"),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000, br;q=0", None),
        ("*", "zstd"),
        ("*;q=0.1", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0.5, *;q=0", "gzip"),
        ("zstd;q=0, *", "br"),
        ("gzip, *;q=0.5", "gzip"),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0, br", "br"),
        ("identity;q=0", None),
        ("identity;q=0, *;q=0", None),
        ("gzip;q=0.2, br;q=0, zstd;q=0, *;q=0.8", None),
        ("gzip;q=2", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=high, br;q=0.1", "br"),
        ("gzip;q=-1", None),
        ("gzip;q=", None),
        ("gzip;level=9", "gzip"),
        (",, gzip ,,", "gzip"),
        ("gzipped, notbr", None),
        ('"gzip"', None),
        ("gzip\x80", None),
    ],
)
async def test_best_encoding_that_the_client_accepts(
    ask: Ask, accept: str | None, expected: str | None
) -> None:
    response = await ask(app_of(), accept)
    assert response.status == 200
    assert lines_of(response, "Content-Encoding") == (
        [] if expected is None else [expected]
    )
    assert DECODE[expected](await response.read()) == BODY
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_lines_of_accept_encoding_count_together(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of())
    request = (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n"
        b"Accept-Encoding: gzip;q=0.5\r\nAccept-Encoding: br\r\n\r\n"
    )
    answered = head(await raw(client.server, request))
    assert answered.headers["Content-Encoding"] == "br"


async def test_encodings_that_are_named_are_used_in_their_order(
    ask: Ask,
) -> None:
    app = app_of(encodings=["gzip", "br"])
    response = await ask(app, "zstd, br, gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    response = await ask(app, "zstd, br;q=0.9")
    assert response.headers["Content-Encoding"] == "br"
    response = await ask(app, "zstd")
    assert "Content-Encoding" not in response.headers


@given(st.text(st.sampled_from('gzipbrstd*;q=01.5, identy"x-\t'), max_size=60))
def test_any_accept_encoding_gives_an_encoding_that_it_names(
    accept: str,
) -> None:
    encoding = Negotiation(("zstd", "br", "gzip"))(accept)
    assert encoding in {None, "zstd", "br", "gzip"}
    if encoding is not None:
        assert re.search(rf"{encoding}|\*", accept)


# Every kind of answer
# ====================


async def with_bytearray(request: web.Request) -> web.Response:
    return web.Response(body=bytearray(BODY), content_type="text/plain")


async def in_chunks(request: web.Request) -> web.Response:
    response = web.Response(text=TEXT)
    response.enable_chunked_encoding()
    return response


async def large(request: web.Request) -> web.Response:
    return web.Response(body=LARGE, content_type="text/plain")


async def payload(request: web.Request) -> web.Response:
    return web.Response(body=io.BytesIO(BODY), content_type="text/plain")


async def text_payload(request: web.Request) -> web.Response:
    return web.Response(body=io.StringIO(TEXT), content_type="text/plain")


async def generated(request: web.Request) -> web.Response:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(BODY), 1000):
            yield BODY[start : start + 1000]

    return web.Response(body=parts(), content_type="text/plain")


async def raised(request: web.Request) -> web.Response:
    raise web.HTTPConflict(text=TEXT)


async def file(request: web.Request) -> web.FileResponse:
    return web.FileResponse(request.app[FILE])


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    half = len(BODY) // 2
    await response.write(BODY[:half])
    await response.write(b"")
    await response.write(memoryview(BODY)[half:-1])
    await response.write_eof(BODY[-1:])
    return response


async def streamed_with_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.content_length = len(BODY)
    await response.prepare(request)
    await response.write(bytearray(BODY[:10]))
    await response.write(BODY[10:])
    return response


async def streamed_at_once(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    await response.write_eof(BODY)
    return response


async def prepared(request: web.Request) -> web.Response:
    response = web.Response(text=TEXT)
    await response.prepare(request)
    return response


async def sent(request: web.Request) -> web.Response:
    response = web.Response(text=TEXT)
    await response.prepare(request)
    await response.write_eof()
    return response


# Apart from the kinds of tests/answers.py, whose bodies are too short to see
# that they are compressed, and how.
KINDS: dict[Handler, tuple[bytes, bool]] = {
    # what comes, and whether its length is known before
    text: (BODY, True),
    with_bytearray: (BODY, True),
    in_chunks: (BODY, False),
    large: (LARGE, True),
    payload: (BODY, False),
    text_payload: (BODY, False),
    generated: (BODY, False),
    raised: (BODY, True),
    file: (LARGE, False),
    streamed: (BODY, False),
    streamed_with_length: (BODY, False),
    streamed_at_once: (BODY, False),
    prepared: (BODY, True),
    sent: (BODY, True),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("handler", KINDS)
async def test_every_kind_of_answer_is_compressed(
    ask: Ask, handler: Handler, encoding: str, tmp_path: Path
) -> None:
    body, sized = KINDS[handler]
    app = app_of(handler)
    app[FILE] = tmp_path / "page.txt"
    app[FILE].write_bytes(body)
    for _ in range(2):  # the connection is good for another request
        response = await ask(app, encoding)
        got = await response.read()
        assert DECODE[encoding](got) == body
        assert len(got) < len(body) / 4
        assert lines_of(response, "Content-Encoding") == [encoding]
        assert lines_of(response, "Vary") == ["Accept-Encoding"]
        assert "Accept-Ranges" not in response.headers
        if sized:
            assert lines_of(response, "Content-Length") == [str(len(got))]
            assert "Transfer-Encoding" not in response.headers
        else:
            assert "Content-Length" not in response.headers
            assert lines_of(response, "Transfer-Encoding") == ["chunked"]


@pytest.mark.parametrize("handler", KINDS)
async def test_every_kind_of_answer_is_the_same_without_compression(
    ask: Ask, handler: Handler, tmp_path: Path
) -> None:
    body, _ = KINDS[handler]
    app = app_of(handler)
    app[FILE] = tmp_path / "page.txt"
    app[FILE].write_bytes(body)
    response = await ask(app, "identity")
    assert await response.read() == body
    assert "Content-Encoding" not in response.headers
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(
        answers.application(compression_middleware(minimum_size=0))
    )
    bodies: set[bytes] = set()
    for encoding in ("identity", "gzip", "br"):
        response = await client.get(
            kind.path,
            headers={**kind.fields, "Accept-Encoding": encoding},
            allow_redirects=False,
        )
        assert response.status == kind.status
        if kind.status == 101:
            response.close()
        else:
            bodies.add(await response.read())
    assert len(bodies) == (kind.status != 101)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_each_write_of_a_stream_can_be_decoded_when_it_arrives(
    ask: Ask, encoding: str
) -> None:
    read = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for part in (b"first", b"second", LARGE):
            read.clear()
            await response.write(part)
            await read.wait()
        return response

    response = await ask(app_of(handler), encoding)
    decode = decoder(encoding)
    for part in (b"first", b"second", LARGE):
        got = b""
        while len(got) < len(part):
            got += decode(await response.content.readany())
        assert got == part
        read.set()


async def test_write_of_nothing_sends_nothing(ask: Ask) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        for part in request.query.getall("part"):
            await response.write(part.encode())
        return response

    app = app_of(handler)
    plain = await (await ask(app, path="/?part=one&part=two")).read()
    more = await (await ask(app, path="/?part=one&part=&part=two&part=")).read()
    assert gzip.decompress(more) == b"onetwo"
    assert more == plain


async def test_headers_of_a_stream_leave_before_its_first_write(
    ask: Ask,
) -> None:
    seen = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await seen.wait()
        return response

    response = await ask(app_of(handler))
    seen.set()
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await response.read()) == b""


async def test_writes_of_two_tasks_do_not_mix(ask: Ask) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await asyncio.gather(
            *(response.write(part) for part in (LARGE, b"small", LARGE, b"x"))
        )
        return response

    response = await ask(app_of(handler))
    got = gzip.decompress(await response.read())
    assert got == LARGE + b"small" + LARGE + b"x"


async def test_only_large_bodies_are_compressed_in_a_thread(
    ask: Ask,
) -> None:
    def threads() -> set[int | None]:
        return {
            thread.ident
            for thread in threading.enumerate()
            if thread.name.startswith("compression")
        }

    before = threads()
    assert "Content-Encoding" in (await ask(app_of(text))).headers
    assert threads() <= before
    assert "Content-Encoding" in (await ask(app_of(large))).headers
    assert not threads() <= before


async def test_answer_that_aiohttp_makes_is_compressed(ask: Ask) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise ZeroDivisionError

    app = app_of(fails, minimum_size=1)
    response = await ask(app, path="/nowhere")
    assert (response.status, await response.read()) == (404, b"404: Not Found")
    assert "Content-Encoding" not in response.headers  # larger
    assert lines_of(response, "Content-Length") == ["14"]
    assert lines_of(response, "Vary") == ["Accept-Encoding"]
    response = await ask(app, "br")
    assert response.status == 500
    assert b"500 Internal" in brotli.decompress(await response.read())
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_what_is_no_response_is_left_for_aiohttp_to_complain_of(
    ask: Ask,
) -> None:
    for returned in (None, "text"):

        async def handler(
            request: web.Request, returned: Any = returned
        ) -> web.Response:
            return returned  # type: ignore[no-any-return]

        assert (await ask(app_of(handler))).status == 500


# Headers that stay true
# ======================


@pytest.mark.parametrize("handler", [text, in_chunks])
async def test_headers_say_what_is_sent(ask: Ask, handler: Handler) -> None:
    @web.middleware
    async def sets_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        response.headers.update(
            {
                "Accept-Ranges": "bytes",
                "Content-Digest": "sha-256=:AA==:",
                "Content-MD5": "AA==",
                "Digest": "sha-256=AA==",
                "ETag": '"v1"',
                "Last-Modified": "Sat, 21 Nov 2026 16:00:00 GMT",
                "Repr-Digest": "sha-256=:AA==:",
            }
        )
        response.headers.add("Vary", "Accept-Language")
        response.headers.add("Vary", "Cookie")
        return response

    app = app_of()
    app = web.Application(middlewares=[compression_middleware(), sets_headers])
    app.router.add_get("/", handler)

    response = await ask(app)
    assert response.headers["Content-Encoding"] == "gzip"
    assert lines_of(response, "ETag") == ['W/"v1"']
    assert lines_of(response, "Vary") == [
        "Accept-Language, Cookie, Accept-Encoding"
    ]
    assert response.headers["Last-Modified"].startswith("Sat")
    for name in (
        "Accept-Ranges",
        "Content-Digest",
        "Content-MD5",
        "Digest",
        "Repr-Digest",
    ):
        assert name not in response.headers

    response = await ask(app, None)
    assert lines_of(response, "ETag") == ['"v1"']
    assert lines_of(response, "Accept-Ranges") == ["bytes"]
    assert "Repr-Digest" in response.headers


@pytest.mark.parametrize("etag", ['W/"v1"', "*"])
async def test_etag_that_is_not_strong_stays(ask: Ask, etag: str) -> None:
    app = app_of(answer(text=TEXT, headers={"ETag": etag}))
    assert lines_of(await ask(app), "ETag") == [etag]


async def test_body_that_gets_larger_is_sent_as_it_is_with_its_headers(
    ask: Ask,
) -> None:
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Digest": "sha-256=:AA==:",
        "ETag": '"v1"',
    }
    body = bytes(range(256))
    for handler in (
        answer(body=body, headers=headers),
        answer(body=body * 300, headers=headers),  # in a thread
    ):
        app = app_of(handler, minimum_size=0, encodings=["gzip"])
        plain = await ask(app, None)
        response = await ask(app)
        got = await response.read()
        if len(got) > 256:
            assert DECODE["gzip"](got) == body * 300
            continue
        assert got == body
        assert sorted(response.headers.items()) == sorted(plain.headers.items())


async def test_revalidated_page_keeps_the_name_that_the_client_knows(
    ask: Ask, tmp_path: Path
) -> None:
    page = tmp_path / "page.txt"
    page.write_bytes(BODY)

    async def handler(request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    app = app_of(handler)
    response = await ask(app)
    etag = response.headers["ETag"]
    assert etag.startswith("W/")
    response = await ask(app, If_None_Match=etag)
    assert response.status == 304
    assert lines_of(response, "ETag") == [etag]
    assert lines_of(response, "Vary") == ["Accept-Encoding"]
    assert "Content-Encoding" not in response.headers

    strong = etag.removeprefix("W/")
    for known in (strong, f"{etag}, {strong}", "*"):
        response = await ask(app, If_None_Match=known)
        assert response.status == 304
        assert lines_of(response, "ETag") == [strong]
        assert "Vary" not in response.headers


# What is left alone
# ==================


async def test_ignored_urls_are_left_alone(ask: Ask) -> None:
    app = app_of(ignore={"/": "POST"})
    response = await ask(app, method="POST")
    assert await response.read() == BODY
    assert "Vary" not in response.headers
    assert "Content-Encoding" in (await ask(app)).headers


@pytest.mark.parametrize(
    ("content_type", "compressed"),
    [
        ("text/html; charset=utf-8", True),
        ("Text/HTML ;charset=utf-8", True),
        ("application/json", True),
        ("application/problem+json", True),
        ("application/rss+xml", True),
        ("application/javascript", True),
        ("application/wasm", True),
        ("image/svg+xml", True),
        ("font/ttf", True),
        ("font/woff", False),
        ("font/woff2", False),
        ("image/png", False),
        ("video/mp4", False),
        ("application/zip", False),
        ("application/octet-stream", False),
        ("application/grpc", False),
        ("application/jsonish", False),
        ("text/event-stream", False),
        ("Text/Event-Stream; charset=utf-8", False),
        ("json", False),
        ("", False),
    ],
)
async def test_types_that_compress_are_compressed(
    ask: Ask, content_type: str, compressed: bool
) -> None:
    headers = {"Content-Type": content_type}
    app = app_of(answer(body=BODY, headers=headers, content_type=None))
    response = await ask(app)
    assert ("Content-Encoding" in response.headers) is compressed
    assert ("Vary" in response.headers) is compressed
    assert DECODE["gzip" if compressed else None](await response.read()) == BODY


async def test_types_that_are_named_take_the_place_of_the_default(
    ask: Ask,
) -> None:
    events = {"Content-Type": "text/event-stream"}
    handler = answer(body=BODY, headers=events, content_type=None)
    named = [*DEFAULT_CONTENT_TYPES, "Text/Event-Stream"]
    response = await ask(app_of(handler, content_types=named))
    assert "Content-Encoding" in response.headers
    for types in (["*/*"], ["text/*"], ["text/html"], ["+json"], []):
        response = await ask(app_of(handler, content_types=types))
        assert "Content-Encoding" not in response.headers
    response = await ask(app_of(content_types=["application/json"]))
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    "options",
    [
        {"status": 206, "headers": {"Content-Range": "bytes 0-9/99"}},
        {"status": 205},
        {"status": 206},
        {"status": 416, "headers": {"Content-Range": "bytes */99"}},
        {"headers": {"Content-Encoding": "br"}},
        {"headers": {"Content-Encoding": "identity"}},
    ],
    ids=str,
)
async def test_answers_that_are_no_plain_whole_vary_and_stay(
    ask: Ask, options: dict[str, Any]
) -> None:
    response = await ask(app_of(answer(body=BODY, **options)))
    assert await response.read() == BODY
    assert response.headers.get("Content-Encoding") == options.get(
        "headers", {}
    ).get("Content-Encoding")
    assert lines_of(response, "Content-Length") == [str(len(BODY))]
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_no_transform_is_respected(ask: Ask) -> None:
    for value in ("no-transform", "public, No-Transform"):
        headers = {"Cache-Control": value, "ETag": '"v1"'}
        response = await ask(app_of(answer(body=BODY, headers=headers)))
        assert await response.read() == BODY
        assert lines_of(response, "ETag") == ['"v1"']
        assert "Vary" not in response.headers
    headers = {"Cache-Control": "no-transformers"}
    response = await ask(app_of(answer(body=BODY, headers=headers)))
    assert "Content-Encoding" in response.headers


async def test_head_has_the_headers_of_the_plain_answer(ask: Ask) -> None:
    response = await ask(app_of(), method="HEAD")
    assert "Content-Encoding" not in response.headers
    assert lines_of(response, "Content-Length") == [str(len(BODY))]
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_answers_without_a_body_have_none(ask: Ask) -> None:
    for options in ({"status": 204}, {"status": 304}, {"status": 200}):
        for minimum_size in (0, 500):
            handler = answer(**options)
            app = app_of(handler, minimum_size=minimum_size)
            response = await ask(app)
            assert response.status == options["status"]
            assert await response.read() == b""
            assert "Content-Encoding" not in response.headers


async def test_minimum_size_is_that_of_the_body(ask: Ask) -> None:
    for size, compressed in ((499, False), (500, True)):
        for body in (b"a" * size, io.BytesIO(b"a" * size)):
            response = await ask(app_of(answer(body=body)))
            assert ("Content-Encoding" in response.headers) is compressed
            assert lines_of(response, "Vary") == ["Accept-Encoding"]

    async def in_chunks(request: web.Request) -> web.Response:
        response = web.Response(text="a" * 499)
        response.enable_chunked_encoding()
        return response

    response = await ask(app_of(in_chunks))
    assert await response.read() == b"a" * 499
    assert "Content-Encoding" not in response.headers
    assert lines_of(response, "Transfer-Encoding") == ["chunked"]


async def test_ranges_of_files_are_left_alone(ask: Ask, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_bytes(BODY)

    async def handler(request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    response = await ask(app_of(handler), Range="bytes=10-19")
    assert (response.status, await response.read()) == (206, BODY[10:20])
    assert response.headers["Content-Range"] == f"bytes 10-19/{len(BODY)}"
    assert lines_of(response, "Accept-Ranges") == ["bytes"]
    assert response.headers["ETag"].startswith('"')
    assert "Content-Encoding" not in response.headers
    response = await ask(app_of(handler), Range="bytes=99999-")
    assert response.status == 416


async def test_file_that_was_compressed_before_is_sent_as_it_is(
    ask: Ask, tmp_path: Path
) -> None:
    page = tmp_path / "page.txt"
    page.write_bytes(BODY)
    page.with_suffix(".txt.gz").write_bytes(gzip.compress(BODY))

    async def handler(request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    response = await ask(app_of(handler), "zstd, gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await response.read()) == BODY
    assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_file_that_the_handler_sends_itself_is_left_alone(
    ask: Ask, tmp_path: Path
) -> None:
    page = tmp_path / "page.txt"
    page.write_bytes(LARGE)

    async def handler(request: web.Request) -> web.FileResponse:
        await web.FileResponse(page).prepare(request)
        # Returned, aiohttp would open and send it once more.
        raise ZeroDivisionError

    response = await ask(app_of(handler))
    assert await response.read() == LARGE
    assert "Content-Encoding" not in response.headers


async def test_file_that_does_not_compress_goes_by_the_kernel(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(LARGE)
    loop = asyncio.get_running_loop()
    sendfile, by_kernel = loop.sendfile, []

    async def spy(*args: Any, **kwargs: Any) -> int:
        by_kernel.append(args)
        return await sendfile(*args, **kwargs)

    monkeypatch.setattr(loop, "sendfile", spy)

    async def handler(request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    response = await ask(app_of(handler))
    assert await response.read() == LARGE
    assert len(by_kernel) == 1


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        (web.ContentCoding.gzip, "gzip"),
        (web.ContentCoding.identity, None),
        (None, "gzip"),
    ],
)
async def test_compression_that_the_handler_chose_is_left_alone(
    ask: Ask, coding: web.ContentCoding | None, expected: str | None
) -> None:
    async def returns(request: web.Request) -> web.Response:
        response = web.Response(text=TEXT)
        response.enable_compression(coding)
        return response

    async def streams(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_compression(coding)
        await response.prepare(request)
        await response.write(BODY)
        return response

    handlers = [returns] if expected is None else [returns, streams]
    for handler in handlers:
        response = await ask(app_of(handler), "gzip, br")
        assert response.headers.get("Content-Encoding") == expected
        assert DECODE[expected](await response.read()) == BODY
        assert lines_of(response, "Vary") == ["Accept-Encoding"]


async def test_events_are_left_alone(ask: Ask) -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        return response

    response = await ask(app_of(events))
    assert await response.read() == b"data: 1\n\n"
    assert "Vary" not in response.headers
    types = ["text/event-stream"]
    response = await ask(app_of(events, content_types=types))
    assert gzip.decompress(await response.read()) == b"data: 1\n\n"


async def test_websocket_is_left_alone(aiohttp_client: AiohttpClient) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        ws.headers["Content-Type"] = "text/plain"
        await ws.prepare(request)
        await ws.send_str(await ws.receive_str())
        return ws

    client = await aiohttp_client(app_of(echo))
    headers = {"Accept-Encoding": "gzip"}
    async with client.ws_connect("/", headers=headers) as ws:
        assert "Content-Encoding" not in ws._response.headers
        assert "Vary" not in ws._response.headers
        await ws.send_str(TEXT)
        assert await ws.receive_str() == TEXT


# Bodies that do not keep their word
# ==================================


async def test_body_shorter_than_announced_does_not_look_complete(
    ask: Ask,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.content_length = len(BODY) + 1
        await response.prepare(request)
        await response.write(BODY)
        return response

    response = await ask(app_of(handler))
    with pytest.raises(ClientPayloadError):
        await response.read()


async def test_body_longer_than_announced_ends_where_it_should(
    ask: Ask,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(BODY[:900])
        await response.write(BODY[900:])
        await response.write(BODY)
        return response

    response = await ask(app_of(handler))
    assert gzip.decompress(await response.read()) == BODY[:1000]


async def test_stream_that_fails_does_not_look_complete(ask: Ask) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(BODY)
        raise ZeroDivisionError

    response = await ask(app_of(handler, error_middleware()))
    with pytest.raises(ClientPayloadError):
        await response.read()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What compresses in a thread of middlewares made now waits for it."""
    opened = threading.Event()

    class Gated(ThreadPoolExecutor):
        def submit(
            self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
        ) -> Future[T]:
            def pass_gate() -> T:
                assert opened.wait(PATIENCE)
                return fn(*args, **kwargs)

            return super().submit(pass_gate)

    monkeypatch.setattr(
        "aiohttp_middlewares.compression.ThreadPoolExecutor", Gated
    )
    yield opened
    opened.set()


async def test_write_that_was_cancelled_half_way_cuts_the_connection(
    ask: Ask, gate: threading.Event
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(b"before")
        write = asyncio.ensure_future(response.write(LARGE))
        await asyncio.sleep(0)  # now it is in the thread
        write.cancel()
        await asyncio.wait([write])
        gate.set()
        return response

    response = await ask(app_of(handler))
    with pytest.raises(ClientPayloadError):
        await response.read()


async def test_response_that_was_given_up_leaves_nothing_behind(
    ask: Ask,
) -> None:
    def after(body: bytes) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            await web.Response(text=TEXT).prepare(request)
            raise web.HTTPConflict(text=body.decode())

        return handler

    for body, encoding in ((b"small", None), (BODY[::-1], "gzip")):
        response = await ask(app_of(after(body)))
        assert response.status == 409
        assert response.headers.get("Content-Encoding") == encoding
        assert DECODE[encoding](await response.read()) == body


# HTTP/1.0
# ========

ONE_ZERO = (
    b"GET / HTTP/1.0\r\nHost: a.example\r\nAccept-Encoding: gzip\r\n%b\r\n"
)


@pytest.mark.parametrize("handler", [text, streamed, streamed_with_length])
async def test_http_1_0_gets_no_chunks(
    aiohttp_client: AiohttpClient, handler: Handler
) -> None:
    client = await aiohttp_client(app_of(handler))
    answered = head(await raw(client.server, ONE_ZERO % b""))
    assert "Transfer-Encoding" not in answered.headers
    assert answered.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answered.rest) == BODY
    length = answered.headers.get("Content-Length")
    assert length == (str(len(answered.rest)) if handler is text else None)


async def test_http_1_0_that_stays_connected_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(streamed_with_length))
    keep = ONE_ZERO % b"Connection: keep-alive\r\n"
    answered = head(await raw(client.server, keep + ONE_ZERO % b""))
    assert "Content-Encoding" not in answered.headers
    assert answered.headers["Content-Length"] == str(len(BODY))
    assert answered.headers["Vary"] == "Accept-Encoding"
    assert answered.rest.startswith(BODY + b"HTTP/1.0 200 OK\r\n")


# Among other middlewares
# =======================


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


@pytest.mark.parametrize("handler", [text, streamed, raised, file])
async def test_works_among_the_others_and_behind_clones(
    ask: Ask, handler: Handler, tmp_path: Path
) -> None:
    seen: list[tuple[int, bytes | None]] = []

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before_sending(
            request,
            lambda status, headers: headers.add("X-Last", "once"),
        )
        response = await handler(request)
        if type(response) is web.Response:
            body = response.body
            seen.append((response.status, bytes(body)))  # type: ignore[arg-type]
        return response

    app = web.Application(
        middlewares=[
            clones,
            outside,
            cors_middleware(origins=["https://a.example"]),
            error_middleware(),
            compression_middleware(),
            timeout_middleware(5),
            clones,
        ]
    )
    app[FILE] = tmp_path / "page.txt"
    app[FILE].write_bytes(BODY)
    app.router.add_get("/", handler)
    response = await ask(app, Origin="https://a.example")
    body = gzip.decompress(await response.read())
    if handler is raised:
        assert response.status == 409
        assert body == b'{"detail": "' + BODY.replace(b"\n", b"\\n") + b'"}'
    else:
        assert response.status == 200
        assert body == BODY
    # What stands outside sees it as the handler made it.
    assert all(plain == body for _, plain in seen)
    assert lines_of(response, "X-Last") == ["once"]
    assert lines_of(response, "Content-Encoding") == ["gzip"]
    assert lines_of(response, "Access-Control-Allow-Origin") == [
        "https://a.example"
    ]
    assert sorted(response.headers["Vary"].split(", ")) == [
        "Accept-Encoding",
        "Origin",
    ]


async def test_two_of_them_compress_once(ask: Ask) -> None:
    for handler in (text, streamed):
        app = app_of(handler, compression_middleware(encodings=["br"]))
        response = await ask(app, "br, gzip;q=0.9")
        assert lines_of(response, "Content-Encoding") == ["br"]
        assert brotli.decompress(await response.read()) == BODY


# Codecs and options
# ==================


@pytest.mark.parametrize("level", [1, 3, 19, 20, 22])
def test_zstd_asks_for_no_more_memory_than_browsers_give(level: int) -> None:
    make = factories("", ["zstd"], {"zstd": level})["zstd"]
    header = make().more(b"x")  # of a frame of which nobody knows the size
    # RFC 8878 3.1.1.1: the window descriptor follows the flags.
    assert header[:4] == b"\x28\xb5\x2f\xfd"
    exponent, mantissa = divmod(header[5], 8)
    base = 1 << (10 + exponent)
    assert base + base // 8 * mantissa <= 8 * 2**20  # RFC 9659


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_levels_make_a_difference(encoding: str) -> None:
    levels = {"zstd": (1, 19), "br": (1, 9), "gzip": (1, 9)}[encoding]
    body = WORDS.encode()
    sizes = []
    for level in levels:
        made = factories("", [encoding], {**DEFAULT_LEVELS, encoding: level})
        encoded = made[encoding]().whole(body)
        assert DECODE[encoding](encoded) == body
        sizes.append(len(encoded))
    assert sizes[0] > sizes[1]


async def test_levels_are_handed_on(ask: Ask) -> None:
    sizes = []
    for level in (1, 9):
        app = app_of(answer(text=WORDS), levels={"gzip": level})
        sizes.append(len(await (await ask(app)).read()))
    assert sizes[0] > sizes[1]


async def test_without_extras_there_is_gzip(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (
        "brotli",
        "brotlicffi",
        "backports",
        "backports.zstd",
        "compression",
    ):
        monkeypatch.setitem(sys.modules, module, None)
    response = await ask(app_of(), "zstd, br, gzip;q=0.1")
    assert response.headers["Content-Encoding"] == "gzip"

    with pytest.raises(ImportError) as caught:
        compression_middleware(encodings=["gzip", "br"])
    assert str(caught.value) == (
        "compression_middleware: 'br' needs brotli; pip install "
        '"aiohttp-middlewares[brotli]"'
    )
    with pytest.raises(ImportError, match=r"needs backports\.zstd; .*\[zstd\]"):
        compression_middleware(encodings=["zstd"])


async def test_brotlicffi_stands_in_for_brotli(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "brotlicffi", brotli)
    monkeypatch.setitem(sys.modules, "brotli", None)
    response = await ask(app_of(), "br")
    assert brotli.decompress(await response.read()) == BODY


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"encodings": "gzip"},
            TypeError,
            "encodings should be a collection of 'zstd', 'br' and 'gzip', "
            "got 'gzip'; did you mean ['gzip']?",
        ),
        ({"encodings": 1}, TypeError, "encodings should be a collection"),
        ({"encodings": [1]}, TypeError, "encodings should be a collection"),
        ({"encodings": []}, ValueError, "encodings should be at least one"),
        (
            {"encodings": ["brotli"]},
            ValueError,
            "got 'brotli'; did you mean 'br'?",
        ),
        ({"encodings": ["deflate"]}, ValueError, "got 'deflate'"),
        ({"encodings": ["identity"]}, ValueError, "got 'identity'"),
        ({"minimum_size": -1}, ValueError, "minimum_size should be a whole"),
        ({"minimum_size": "1k"}, TypeError, "minimum_size should be a whole"),
        ({"minimum_size": True}, TypeError, "minimum_size should be a whole"),
        ({"levels": 6}, TypeError, "levels should be a mapping of encodings"),
        ({"levels": {"deflate": 6}}, ValueError, "levels should be a mapping"),
        (
            {"levels": {"gzip": 10}},
            ValueError,
            "levels['gzip'] should be a whole number from 1 to 9, got 10",
        ),
        ({"levels": {"gzip": 0}}, ValueError, "from 1 to 9, got 0"),
        ({"levels": {"gzip": "6"}}, TypeError, "levels['gzip'] should be"),
        ({"levels": {"gzip": True}}, TypeError, "levels['gzip'] should be"),
        ({"levels": {"br": 12}}, ValueError, "from 0 to 11, got 12"),
        ({"levels": {"zstd": 23}}, ValueError, "from 1 to 22, got 23"),
        (
            {"content_types": "text/html"},
            TypeError,
            "did you mean ['text/html']?",
        ),
        ({"content_types": ["html"]}, ValueError, "content_types should be"),
        ({"content_types": ["text/"]}, ValueError, "content_types should be"),
        ({"content_types": [""]}, ValueError, "content_types should be"),
        (
            {"content_types": ["text/html; charset=utf-8"]},
            ValueError,
            "did you mean 'text/html'?",
        ),
        ({"ignore": "/"}, TypeError, "ignore should be a collection"),
        ({"ignore": ["api"]}, ValueError, "ignore should be a path"),
    ],
    ids=str,
)
def test_wrong_option_is_refused_in_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        compression_middleware(**options)
    assert str(caught.value).startswith("compression_middleware ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# What a faulty handler or client does
# ====================================


async def sized(request: web.Request) -> web.Response:
    """As of an upstream that broke off, or wrote too much."""
    response = web.Response(body=BODY, content_type="text/plain")
    response.headers["Content-Length"] = request.query["size"]
    return response


@pytest.mark.parametrize("accept", [b"gzip", b"identity"])
async def test_body_in_one_piece_that_is_too_short_does_not_look_complete(
    aiohttp_client: AiohttpClient, accept: bytes
) -> None:
    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", sized)
    client = await aiohttp_client(app)
    request = (
        b"GET /?size=100000 HTTP/1.1\r\nHost: a\r\nAccept-Encoding: %b\r\n"
        b"Connection: close\r\n\r\n" % accept
    )
    answer = head(await raw(client.server, request))
    assert answer.headers.getall("Content-Length") == ["100000"]
    assert "Content-Encoding" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers
    assert answer.rest == BODY
    with pytest.raises(ClientPayloadError):
        await (await client.get("/?size=100000")).read()


async def test_body_in_one_piece_that_is_too_long_ends_where_it_should(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", sized)
    client = await aiohttp_client(app)
    response = await client.get("/?size=1000")
    assert response.headers["Content-Encoding"]
    assert await response.read() == BODY[:1000]


@pytest.mark.parametrize("kind", ["file", "stream", "response"])
async def test_empty_body_stays_empty(
    aiohttp_client: AiohttpClient, tmp_path: Path, kind: str
) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()

    async def handler(request: web.Request) -> web.StreamResponse:
        if kind == "file":
            return web.FileResponse(empty)
        if kind == "response":
            return web.Response(text="")
        response = web.StreamResponse(
            headers={"Content-Type": "text/plain", "Content-Length": "0"}
        )
        await response.prepare(request)
        return response

    app = web.Application(middlewares=[compression_middleware(minimum_size=0)])
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert "Content-Encoding" not in response.headers
    assert response.headers["Content-Length"] == "0"
    assert await response.read() == b""


@pytest.mark.parametrize("accept", ["gzip", "identity"])
async def test_head_of_a_stream_gets_no_body(
    aiohttp_client: AiohttpClient, accept: str
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(BODY)
        await response.write_eof(BODY)
        return response

    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", stream)
    client = await aiohttp_client(app)
    asked = f"Host: a\r\nAccept-Encoding: {accept}\r\n"
    received = await raw(
        client.server,
        f"HEAD / HTTP/1.1\r\n{asked}\r\n"
        f"HEAD / HTTP/1.1\r\n{asked}Connection: close\r\n\r\n".encode(),
    )
    first = head(received)
    assert first.status == 200
    second = head(first.rest)
    assert (second.status, second.rest) == (200, b"")


async def test_earlier_versions_than_1_1_get_no_chunks(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", streamed)
    client = await aiohttp_client(app)
    for version in (b"HTTP/0.9", b"HTTP/1.0"):
        received = await raw(
            client.server,
            b"GET / %b\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n" % version,
        )
        answer = head(received)
        assert "Transfer-Encoding" not in answer.headers
        assert gzip.decompress(answer.rest) == BODY


async def test_write_that_waits_for_its_turn_is_refused_after_the_end(
    aiohttp_client: AiohttpClient, gate: threading.Event
) -> None:
    refused: list[str] = []

    async def late(response: web.StreamResponse, data: bytes) -> None:
        try:
            await response.write(data)
        except ConnectionError as exc:
            refused.append(str(exc))

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        first = asyncio.ensure_future(response.write(LARGE))  # in a thread
        await asyncio.sleep(0)
        end = asyncio.ensure_future(response.write_eof())
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(late(response, LARGE))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, end, waiting)
        return response

    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", stream)
    client = await aiohttp_client(app, auto_decompress=False)
    for encoding in ("zstd", "br", "gzip"):
        refused.clear()
        gate.clear()
        response = await client.get("/", headers={"Accept-Encoding": encoding})
        assert DECODE[encoding](await response.read()) == LARGE
        assert refused == ["A response was sent already"]


async def test_long_accept_encoding_is_not_remembered(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(middlewares=[compression_middleware()])
    app.router.add_get("/", text)
    client = await aiohttp_client(app)
    tracemalloc.start()
    try:
        for number in range(40):
            lines = [("Accept-Encoding", f"x{number}," * 900)] * 20
            await (await client.get("/", headers=CIMultiDict(lines))).read()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000  # 40 heads have 4 MB


@pytest.mark.parametrize("path", ["/login", "/login%01", "/login%2F..%2Fx"])
async def test_page_that_must_not_be_compressed_is_not_by_any_path(
    aiohttp_client: AiohttpClient, path: str
) -> None:
    ignore = [re.compile("/login")]
    app = web.Application(middlewares=[compression_middleware(ignore=ignore)])
    app.router.add_get("/{name}", text)
    client = await aiohttp_client(app)
    received = await raw(
        client.server,
        f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n"
        "Connection: close\r\n\r\n".encode(),
    )
    answer = head(received)
    assert answer.status == 200
    assert "Content-Encoding" not in answer.headers


async def test_hook_of_somebody_else_is_called_once_for_a_response(
    aiohttp_client: AiohttpClient,
) -> None:
    @web.middleware
    async def adds(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        writer: Any = request.writer
        own = writer.write_headers

        async def write_headers(line: str, headers: Any) -> None:
            headers.add("X-Seen", "yes")
            await own(line, headers)

        writer.write_headers = write_headers
        return await handler(request)

    app = web.Application(middlewares=[adds, compression_middleware()])
    app.router.add_get("/", text)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert response.headers["Content-Encoding"]
    assert response.headers.getall("X-Seen") == ["yes"]
