"""Bodies that are too large: announced, sent in chunks, or inflated."""

import asyncio
import gc
import gzip
import logging
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import signature
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import Head, head, raw

from aiohttp_middlewares import (
    body_limit,
    body_limit_middleware,
    error_middleware,
    proxy_headers_middleware,
)
from aiohttp_middlewares.annotations import Handler

LIMIT = 1000
TOO_LARGE = b"The body is larger than 1000 bytes"
MEGABYTE = 1024**2


# The ways to read a body; each returns how much it read.
# =======================================================


async def read(request: web.Request) -> int:
    return len(await request.read())


async def text(request: web.Request) -> int:
    return len(await request.text())


async def json(request: web.Request) -> int:
    return len(await request.json()) + 2


async def lines(request: web.Request) -> int:
    return sum([len(line) async for line in request.content])


async def any_size(request: web.Request) -> int:
    return sum([len(found) async for found in request.content.iter_any()])


async def chunked(request: web.Request) -> int:
    return sum([len(found) async for found in request.content.iter_chunked(99)])


async def chunks(request: web.Request) -> int:
    return sum([len(found) async for found, _ in request.content.iter_chunks()])


async def content_read(request: web.Request) -> int:
    return len(await request.content.read())


async def exactly(request: web.Request) -> int:
    try:
        return len(await request.content.readexactly(MEGABYTE))
    except asyncio.IncompleteReadError as exc:
        return len(exc.partial)


async def nowait(request: web.Request) -> int:
    found = len(await request.content.read(1))
    while not request.content.at_eof():
        await asyncio.sleep(0)
        found += len(request.content.read_nowait())
    return found


async def until(request: web.Request) -> int:
    found = 0
    while not request.content.at_eof():
        found += len(await request.content.readuntil(b"\n"))
    return found


WAYS: list[Callable[[web.Request], Awaitable[int]]] = [
    read,
    text,
    json,
    lines,
    any_size,
    chunked,
    chunks,
    content_read,
    exactly,
    nowait,
    until,
]


def application(
    *outside: Any, max_size: int = LIMIT, **options: Any
) -> web.Application:
    app = web.Application(
        middlewares=[*outside, body_limit_middleware(max_size, **options)]
    )

    def answering(way: Callable[[web.Request], Awaitable[int]]) -> Handler:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(text=str(await way(request)))

        return handler

    for way in WAYS:
        app.router.add_route("*", f"/{way.__name__}", answering(way))
    return app


def sized(size: int, path: str = "/read", *fields: str) -> bytes:
    """A request with a JSON string of that size."""
    start = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Content-Length: {size}",
        *fields,
    ]
    body = '"' + "x" * (size - 2) + '"' if size > 1 else "x" * size
    return "\r\n".join([*start, "", body]).encode()


def in_chunks(body: bytes, path: str, *fields: str, size: int = 100) -> bytes:
    start = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        *fields,
    ]
    sent = "\r\n".join([*start, "", ""]).encode()
    for position in range(0, len(body), size):
        chunk = body[position : position + size]
        sent += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    return sent + b"0\r\n\r\n"


def assert_refused(received: bytes) -> None:
    """It is the one answer, and the connection is closed after it."""
    answer = head(received)
    assert answer.status == 413
    assert answer.headers.getall("Connection") == ["close"]
    assert answer.rest == TOO_LARGE


LAST = "Connection: close"


# What it does
# ============


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
async def test_body_up_to_the_limit_is_read(
    aiohttp_server: AiohttpServer, way: Any, size: int
) -> None:
    server = await aiohttp_server(application())
    path = f"/{way.__name__}"
    answer = head(await raw(server, sized(size, path, LAST)))
    assert (answer.status, answer.rest) == (200, str(size).encode())
    body = sized(size).partition(b"\r\n\r\n")[2]
    answer = head(await raw(server, in_chunks(body, path, LAST)))
    assert (answer.status, answer.rest) == (200, str(size).encode())


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_body_beyond_the_limit_is_refused_as_it_arrives(
    aiohttp_server: AiohttpServer, way: Any
) -> None:
    server = await aiohttp_server(application())
    body = sized(LIMIT + 1).partition(b"\r\n\r\n")[2]
    for size in (1, 100, 5000):
        sent = in_chunks(body, f"/{way.__name__}", size=size)
        # What follows is not answered: the connection is closed.
        assert_refused(await raw(server, sent + sized(1)))


@pytest.mark.parametrize("way", [lines, until])
async def test_line_too_long_for_aiohttp_is_refused_by_the_limit_it_breaks(
    aiohttp_server: AiohttpServer, caplog: pytest.LogCaptureFixture, way: Any
) -> None:
    line = b"x" * MEGABYTE
    sent = in_chunks(line, f"/{way.__name__}", LAST, size=len(line))
    server = await aiohttp_server(application())
    assert_refused(await raw(server, sent))
    assert caplog.records == []
    # One that is within the limit is aiohttp's business.
    server = await aiohttp_server(application(max_size=MEGABYTE))
    assert head(await raw(server, sent)).status == 500


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_bomb_is_refused_as_it_inflates(
    aiohttp_server: AiohttpServer, way: Any
) -> None:
    server = await aiohttp_server(application())
    bombs = {
        "gzip": gzip.compress(b"x" * 700_000),
        "deflate": zlib.compress(b"x" * 700_000),
    }
    for encoding, bomb in bombs.items():
        assert len(bomb) < LIMIT
        field = f"Content-Encoding: {encoding}"
        path = f"/{way.__name__}"
        assert_refused(await raw(server, in_chunks(bomb, path, field)))
        start = sized(len(bomb), path, field).partition(b"\r\n\r\n")[0]
        assert_refused(await raw(server, start + b"\r\n\r\n" + bomb))


async def test_compressed_body_within_the_limit_is_read(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application())
    body = gzip.compress(b"x" * LIMIT)
    sent = in_chunks(body, "/read", LAST, "Content-Encoding: gzip")
    assert head(await raw(server, sent)).rest == b"1000"


async def test_content_length_beyond_the_limit_is_refused_at_once(
    aiohttp_server: AiohttpServer,
) -> None:
    called = False

    async def handler(request: web.Request) -> web.Response:
        nonlocal called
        called = True
        return web.Response()

    app = application()
    app.router.add_post("/unread", handler)
    server = await aiohttp_server(app, lingering_time=0.05)
    for path in ("/unread", "/nowhere", "/read"):
        assert_refused(await raw(server, sized(LIMIT + 1, path) + sized(1)))
        # Nothing of the body has to arrive.
        start = sized(LIMIT + 1, path).partition(b"\r\n\r\n")[0]
        assert_refused(await raw(server, start + b"\r\n\r\n"))
    assert not called


async def test_content_length_that_lies_helps_nobody(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application())
    # Both together are refused by aiohttp or counted (RFC 9112 6.3).
    body = b"x" * 2000
    sent = in_chunks(body, "/read", "Content-Length: 10", LAST)
    assert head(await raw(server, sent)).status in (400, 413)


async def test_limits_by_url_count_before_the_other(
    aiohttp_server: AiohttpServer,
) -> None:
    limits = {"/text": 10, "/read": 5000, re.compile(r"/(lines|chunks)$"): None}
    for path, size, status in (
        ("/text", 10, 200),
        ("/text", 11, 413),
        ("/read", 5000, 200),
        ("/read", 5001, 413),
        ("/lines", 5001, 200),
        ("/any_size", LIMIT + 1, 413),
    ):
        server = await aiohttp_server(application(limits=limits))
        sent = sized(size, path, LAST)
        assert head(await raw(server, sent)).status == status
        body = sent.partition(b"\r\n\r\n")[2]
        sent = in_chunks(body, path, LAST)
        assert head(await raw(server, sent)).status == status


async def test_zero_refuses_every_body_but_none(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application(max_size=0))
    assert head(await raw(server, sized(1, "/read", LAST))).status == 413
    assert head(await raw(server, sized(0, "/read", LAST))).status == 200
    assert head(await raw(server, in_chunks(b"x", "/read", LAST))).status == 413
    assert head(await raw(server, in_chunks(b"", "/read", LAST))).status == 200


# In place of client_max_size
# ===========================


@pytest.mark.parametrize("way", [read, text, json])
async def test_higher_limit_takes_the_place_of_client_max_size(
    aiohttp_server: AiohttpServer, way: Any
) -> None:
    size = 2 * MEGABYTE
    path = f"/{way.__name__}"
    for options in (
        {"max_size": size},
        {"max_size": 1, "limits": {path: size}},
        {"limits": {path: None}},
        {"max_size": MEGABYTE, "limits": {path: size}},
    ):
        server = await aiohttp_server(application(**options))
        answer = head(await raw(server, sized(size, path, LAST)))
        assert (answer.status, answer.rest) == (200, str(size).encode())


@pytest.mark.parametrize("size", [MEGABYTE - 1, MEGABYTE])
async def test_limit_as_high_as_client_max_size_is_exact(
    aiohttp_server: AiohttpServer, size: int
) -> None:
    server = await aiohttp_server(application(max_size=MEGABYTE))
    assert head(await raw(server, sized(size, "/read", LAST))).status == 200
    sent = sized(MEGABYTE + 1, "/read", LAST)
    assert head(await raw(server, sent)).status == 413


@pytest.mark.parametrize("unlimited", [None, 0])
@pytest.mark.parametrize("max_size", [LIMIT, 2 * MEGABYTE])
async def test_limit_holds_where_aiohttp_has_none(
    aiohttp_server: AiohttpServer, unlimited: Any, max_size: int
) -> None:
    app = web.Application(
        middlewares=[body_limit_middleware(max_size, limits={"/none": None})],
        client_max_size=unlimited,
    )

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(await read(request)))

    app.router.add_post("/{path}", answer)
    server = await aiohttp_server(app)
    for path, size, status in (
        ("/read", max_size, 200),
        ("/read", max_size + 1, 413),
        ("/none", 3 * MEGABYTE, 200),
    ):
        sent = sized(size, path, LAST)
        assert head(await raw(server, sent)).status == status
        body = sent.partition(b"\r\n\r\n")[2]
        sent = in_chunks(body, path, LAST, size=50_000)
        assert head(await raw(server, sent)).status == status


async def test_messages_of_a_websocket_do_not_count(
    aiohttp_client: AiohttpClient,
) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        await websocket.send_str(await websocket.receive_str())
        await websocket.close()
        return websocket

    app = application()
    app.router.add_get("/", echo)
    client = await aiohttp_client(app)
    async with client.ws_connect("/") as websocket:
        await websocket.send_str("x" * 5 * LIMIT)
        assert await websocket.receive_str() == "x" * 5 * LIMIT


def test_refusal_takes_no_arguments_that_versions_of_aiohttp_disagree_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def only_one(self: web.HTTPException, max_size: int) -> None:
        raise AssertionError

    monkeypatch.setattr(web.HTTPRequestEntityTooLarge, "__init__", only_one)
    refusal = body_limit._TooLarge(LIMIT)
    assert (refusal.status, refusal.text) == (413, TOO_LARGE.decode())
    assert isinstance(refusal, web.HTTPRequestEntityTooLarge)


async def form(request: web.Request) -> web.Response:
    sizes = []
    for value in (await request.post()).values():
        if isinstance(value, web.FileField):
            sizes.append(len(value.file.read()))
            value.file.close()
        else:
            sizes.append(len(value))
    return web.json_response(sizes)


async def parts(request: web.Request) -> web.Response:
    sizes = []
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        assert isinstance(part, aiohttp.BodyPartReader)
        sizes.append(len(await part.read()))
    return web.json_response(sizes)


def multipart(sizes: list[int]) -> bytes:
    """Files and fields in turn."""
    sent = b""
    for number, size in enumerate(sizes):
        file = "" if number % 2 else '; filename="f.bin"'
        sent += (
            "--boundary\r\n"
            f'Content-Disposition: form-data; name="f{number}"{file}\r\n\r\n'
        ).encode()
        sent += b"x" * size + b"\r\n"
    return sent + b"--boundary--\r\n"


# aiohttp leaves the files of a form open that was not read to its end.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("handler", [form, parts])
@pytest.mark.parametrize("announced", [True, False])
async def test_all_parts_together_count(
    aiohttp_client: AiohttpClient, handler: Any, announced: bool
) -> None:
    async def ask(sizes: list[int], max_size: int) -> int:
        app = application(max_size=max_size)
        app.router.add_post("/form", handler)
        client = await aiohttp_client(app)
        body = multipart(sizes)

        async def generated() -> AsyncIterator[bytes]:
            for position in range(0, len(body), 50_000):
                yield body[position : position + 50_000]

        response = await client.post(
            "/form",
            data=body if announced else generated(),
            headers={"Content-Type": "multipart/form-data; boundary=boundary"},
        )
        if response.status == 200:
            assert await response.json() == sizes
        return response.status

    assert await ask([100, 100], 1000) == 200
    assert await ask([400, 400, 400], 1000) == 413
    assert await ask([100] * 20, 1000) == 413
    # above client_max_size
    assert await ask([700_000, 700_000], 3 * MEGABYTE) == 200
    assert await ask([700_000] * 5, 3 * MEGABYTE) == 413
    gc.collect()


def compressed_part(body: bytes, within: str = "") -> bytes:
    """A multipart body of one compressed part, or of one with that part."""
    sent = (
        b"--b\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n\r\n"
        + gzip.compress(body)
        + b"\r\n--b--\r\n"
    )
    if not within:
        return sent
    start = f"--a\r\nContent-Type: {within}; boundary=b\r\n\r\n"
    return start.encode() + sent + b"\r\n--a--\r\n"


async def inflated(request: web.Request) -> web.Response:
    part: Any = await (await request.multipart()).next()
    if isinstance(part, aiohttp.MultipartReader):
        part = await part.next()
    return web.Response(text=str(len(await part.text())))


@pytest.mark.skipif(
    "client_max_size" not in signature(aiohttp.BodyPartReader).parameters,
    reason="this version of aiohttp inflates parts without any limit",
)
@pytest.mark.parametrize(
    ("content_type", "within"),
    [
        ("multipart/mixed; boundary=b", ""),
        ("Multipart/Mixed; boundary=b", ""),
        # no type for request.content_type, but one for request.multipart()
        ("multipart/mixed/x; boundary=b", ""),
        ("multipart/form-data; boundary=a", "multipart/mixed"),
    ],
)
@pytest.mark.parametrize("client_max_size", [MEGABYTE, None, 0])
async def test_part_that_inflates_beyond_the_limit_is_refused(
    aiohttp_server: AiohttpServer,
    content_type: str,
    within: str,
    client_max_size: Any,
) -> None:
    app = web.Application(
        middlewares=[
            body_limit_middleware(LIMIT),
            body_limit_middleware(2 * MEGABYTE),
        ],
        client_max_size=client_max_size,
    )
    app.router.add_post("/", inflated)
    server = await aiohttp_server(app)

    async def ask(size: int) -> Head:
        body = compressed_part(b"x" * size, within)
        assert len(body) < LIMIT
        start = (
            f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
        )
        last = "" if size > LIMIT else "Connection: close\r\n"
        return head(await raw(server, f"{start}{last}\r\n".encode() + body))

    answer = await ask(LIMIT)
    assert (answer.status, answer.rest) == (200, b"1000")
    answer = await ask(100_000)
    assert answer.status == 413
    assert answer.headers.getall("Connection") == ["close"]


async def test_urlencoded_form_counts(aiohttp_client: AiohttpClient) -> None:
    app = application()
    app.router.add_post("/form", form)
    client = await aiohttp_client(app)
    for size, status in ((900, 200), (999, 413)):
        response = await client.post("/form", data={"ab": "x" * size})
        assert response.status == status


# What it leaves alone
# ====================


async def test_request_without_a_body_passes(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(max_size=0))
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert (await client.request(method, "/read")).status == 200


async def test_ignored_url_is_left_to_aiohttp(
    aiohttp_server: AiohttpServer,
) -> None:
    app = application(ignore={"/read": "POST"})
    server = await aiohttp_server(app)
    for size, status in ((5000, 200), (2 * MEGABYTE, 413)):
        sent = sized(size, "/read", LAST)
        assert head(await raw(server, sent)).status == status


async def test_connection_is_kept_after_a_good_request(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application())
    received = await raw(
        server, sized(10) + sized(20) + sized(5, "/read", LAST)
    )
    assert received.count(b"HTTP/1.1 200 OK") == 3


async def test_unread_body_does_not_keep_an_answer_back(
    aiohttp_server: AiohttpServer,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="unread")

    app = application()
    app.router.add_post("/unread", handler)
    server = await aiohttp_server(app)
    answer = head(await raw(server, in_chunks(b"x" * 5000, "/unread", LAST)))
    assert (answer.status, answer.rest) == (200, b"unread")


async def test_what_an_earlier_clone_has_set_is_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text=f"{request.remote} {request.url}")

    app = application(
        proxy_headers_middleware(trusted=1), max_size=2 * MEGABYTE
    )
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    headers = {
        "Host": "h.example",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
    }
    response = await client.post("/", headers=headers, data=b"x")
    assert await response.text() == "192.0.2.1 https://h.example/"


@web.middleware
async def reads(request: web.Request, handler: Handler) -> web.StreamResponse:
    await request.read()
    return await handler(request)


async def test_body_that_was_read_already_is_no_error(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(application(reads, max_size=2 * MEGABYTE))
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        for _ in range(2):
            response = await client.post("/read", data=b"x")
            assert (response.status, await response.text()) == (200, "1")
    (record,) = caplog.records  # once, not for each request
    assert record.levelno == logging.WARNING
    assert record.name == "aiohttp_middlewares.body_limit"


async def test_of_nested_limits_the_smallest_wins(
    aiohttp_server: AiohttpServer,
) -> None:
    for outer, inner, status in (
        (1000, 100, 413),
        (100, 1000, 413),
        (200, 1000, 200),
    ):
        app = application(body_limit_middleware(outer), max_size=inner)
        server = await aiohttp_server(app)
        for size in (50, 500):
            sent = in_chunks(b"x" * 200, "/chunks", LAST, size=size)
            assert head(await raw(server, sent)).status == status


# Every kind of response
# ======================


async def test_response_that_started_is_cut(
    aiohttp_server: AiohttpServer,
) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        async for found in request.content.iter_chunked(100):
            await response.write(found)
        return response

    for outside in ([], [error_middleware()]):
        app = application(*outside)
        app.router.add_post("/echo", echo)
        server = await aiohttp_server(app, lingering_time=0.05)
        whole = await raw(server, in_chunks(b"x" * 500, "/echo", LAST))
        assert whole.endswith(b"0\r\n\r\n")
        received = await raw(server, in_chunks(b"x" * 5000, "/echo", LAST))
        assert received.count(b"HTTP/1.1") == 1
        assert not received.endswith(b"0\r\n\r\n")


async def test_refusal_that_is_swallowed_still_closes_the_connection(
    aiohttp_server: AiohttpServer,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        try:
            await request.read()
        except web.HTTPRequestEntityTooLarge:
            return web.Response(text="swallowed")
        raise AssertionError

    app = application()
    app.router.add_post("/swallows", handler)
    server = await aiohttp_server(app)
    sent = in_chunks(b"x" * 5000, "/swallows")
    answer: Head = head(await raw(server, sent + sized(1)))
    assert (answer.status, answer.rest) == (200, b"swallowed")
    assert answer.headers.getall("Connection") == ["close"]


async def test_refusal_is_rendered_by_the_error_middleware(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application(error_middleware()))
    for sent in (sized(2000), in_chunks(b"x" * 5000, "/read")):
        answer = head(await raw(server, sent + sized(1)))
        assert answer.status == 413
        assert answer.headers.getall("Connection") == ["close"]
        assert answer.rest == b'{"detail": "%b"}' % TOO_LARGE


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(answers.application(body_limit_middleware(9)))
    for body, status in (b"x" * 9, kind.status), (b"x" * 10, 413):
        if kind.fields and status == 413:
            # aiohttp 3.12 fails at a body behind an upgrade that is declined.
            continue
        response = await client.post(
            kind.path, data=body, headers=kind.fields, allow_redirects=False
        )
        assert response.status == status


async def test_nothing_is_logged_by_aiohttp(
    aiohttp_server: AiohttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = await aiohttp_server(application())
    with caplog.at_level(logging.INFO):
        await raw(server, sized(2000, "/read?secret"))
        await raw(server, in_chunks(b"x" * 5000, "/read"))
    ours = [
        record for record in caplog.records if record.name != "aiohttp.access"
    ]
    assert [record.getMessage() for record in ours] == [
        "Refused POST /read: its Content-Length is too large",
        "Refused POST /read: its body is too large",
    ]
    for record in ours:
        assert record.levelno == logging.INFO
        assert record.name == "aiohttp_middlewares.body_limit"


async def test_rest_of_the_body_is_received_in_peace(
    aiohttp_server: AiohttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that still sends must not lose the answer to a reset."""
    server = await aiohttp_server(application(), access_log=None)
    sent = in_chunks(b"x" * 5000, "/read")
    reader, writer = await asyncio.open_connection(server.host, server.port)
    with caplog.at_level(logging.WARNING):
        writer.write(sent[:2000])
        received = await reader.readuntil(TOO_LARGE)
        for position in range(2000, len(sent), 500):
            writer.write(sent[position : position + 500])
            await writer.drain()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    assert_refused(received)
    assert caplog.records == []


# Any body
# ========


@given(
    st.lists(st.binary(max_size=300), max_size=12),
    st.integers(0, 2000),
    st.sampled_from(WAYS),
    st.booleans(),
)
def test_any_body_is_refused_if_and_only_if_it_is_larger(
    pieces: list[bytes], limit: int, way: Any, compressed: bool
) -> None:
    if way in (text, json):
        return
    body = b"".join(pieces)
    fields = [LAST]
    if compressed:
        fields.append("Content-Encoding: gzip")

    async def ask() -> Head:
        app = application(max_size=limit)
        async with TestServer(app) as server:
            sent = gzip.compress(body) if compressed else body
            path = f"/{way.__name__}"
            return head(
                await raw(server, in_chunks(sent, path, *fields, size=70))
            )

    answer = asyncio.run(ask())
    assert answer.status == (413 if len(body) > limit else 200)
    if answer.status == 200:
        assert answer.rest == str(len(body)).encode()


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("max_size", "options", "error", "message"),
    [
        (
            "1MB",
            {},
            TypeError,
            "body_limit_middleware max_size should be a whole number, 0 or "
            "more, got '1MB'",
        ),
        (None, {}, TypeError, "max_size should be a whole number"),
        (True, {}, TypeError, "max_size should be a whole number"),
        (1.5, {}, TypeError, "max_size should be a whole number"),
        (-1, {}, ValueError, "max_size should be a whole number"),
        (1, {"limits": {"/x": "1MB"}}, TypeError, "limits['/x'] should be"),
        (1, {"limits": {"/x": -1}}, ValueError, "limits['/x'] should be"),
        (1, {"limits": {"x": 1}}, ValueError, "did you mean '/x'?"),
        (1, {"limits": ["/x"]}, TypeError, "limits should be a mapping"),
        (1, {"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
        (1, {"ignore": ["x"]}, ValueError, "did you mean '/x'?"),
    ],
)
def test_wrong_option_is_one_sentence(
    max_size: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        body_limit_middleware(max_size, **options)
