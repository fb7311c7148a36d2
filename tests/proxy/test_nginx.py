"""All five middlewares behind nginx, which takes off the TLS."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession, FormData, web
from certificates import Certificate
from pytest_aiohttp.plugin import AiohttpServer
from yarl import URL

from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    error_middleware,
    https_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Middleware
from proxy.conftest import HEADERS, Nginx

ORIGIN = "https://app.example"
OURS = {"detail": "Request timed out"}


def api(
    *, trusted: Any = ("127.0.0.1",), limit: float | None = 5, **kwargs: Any
) -> web.Application:
    return application(
        https_middleware(**{"trusted": trusted, **kwargs}),
        cors_middleware(origins=[ORIGIN]),
        error_middleware(),
        timeout_middleware(limit),
        shield_middleware(methods=NON_IDEMPOTENT_METHODS),
    )


def application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/facts", facts)
    app.router.add_get("/here", here)
    return app


async def facts(request: web.Request) -> web.StreamResponse:
    """What the application knows of the request and its connection."""
    return web.json_response(
        {
            "scheme": request.scheme,
            "secure": request.secure,
            "url": str(request.url),
            "remote": request.remote,
            "connection": id(request.protocol),
        }
    )


async def here(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.url.with_path("/facts"))


# Who is believed
# ===============


async def test_application_knows_the_url_of_the_visitor(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api())
    front = await nginx(server.make_url("/"))
    for url in (front.https / "facts", front.http / "facts"):
        # What the visitor says itself, nginx does not pass on.
        lie = {"X-Forwarded-Proto": "https"}
        async with visitor.get(url, headers=lie) as response:
            known = await response.json()
        assert known["url"] == str(url)
        assert known["scheme"] == url.scheme
        assert known["secure"] is (url.scheme == "https")
        assert known["remote"] == "127.0.0.1"


async def test_redirect_from_the_url_of_the_request_stays_with_https(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api())
    front = await nginx(server.make_url("/"))
    url = front.https / "here"
    async with visitor.get(url, allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"] == str(front.https / "facts")
    async with visitor.get(url) as response:
        assert (await response.json())["url"] == str(front.https / "facts")


async def test_proxy_that_is_not_trusted_is_not_believed(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api(trusted=["192.0.2.0/24"]))
    front = await nginx(server.make_url("/"))
    async with visitor.get(front.https / "facts") as response:
        assert (await response.json())["scheme"] == "http"


async def test_proxy_on_a_unix_socket_is_believed_when_trusted(
    nginx: Nginx, visitor: ClientSession, tmp_path: Path
) -> None:
    for trusted, scheme in ((["unix"], "https"), (["127.0.0.1"], "http")):
        path = tmp_path / f"{scheme}.socket"
        runner = web.AppRunner(api(trusted=trusted))
        await runner.setup()
        await web.UnixSite(runner, path).start()
        front = await nginx(path)
        async with visitor.get(front.https / "facts") as response:
            url = (front.https / "facts").with_scheme(scheme)
            assert (await response.json())["url"] == str(url)
        await runner.cleanup()


async def test_scheme_comes_through_two_proxies(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api())
    inner = await nginx(
        server.make_url("/"),
        headers={**HEADERS, "X-Forwarded-Proto": "$http_x_forwarded_proto"},
    )
    outer = await nginx(inner.http)
    for url in (outer.https / "facts", outer.http / "facts"):
        async with visitor.get(url) as response:
            assert (await response.json())["url"] == str(url)


async def test_forwarded_of_rfc_7239_is_understood(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api(match_headers={"Forwarded": "https"}))
    front = await nginx(
        server.make_url("/"),
        headers={
            "Host": "$http_host",
            "Forwarded": '"for=$remote_addr;proto=$scheme;by=_front"',
        },
    )
    for url in (front.https / "facts", front.http / "facts"):
        async with visitor.get(url) as response:
            assert (await response.json())["url"] == str(url)


async def test_one_connection_serves_visitors_of_both_schemes(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    server = await aiohttp_server(api())
    front = await nginx(server.make_url("/"))
    connections = set()
    for number in range(20):
        url = (front.https, front.http)[number % 2] / "facts"
        async with visitor.get(url) as response:
            known = await response.json()
        assert known["url"] == str(url)
        connections.add(known["connection"])
    assert len(connections) == 1


# What passes through
# ===================


@pytest.mark.parametrize("options", ["", "proxy_request_buffering off;"])
@pytest.mark.parametrize("method", ["POST", "GET"])  # shielded, and not
@pytest.mark.parametrize("chunked", [True, False])
async def test_upload_arrives_whole(
    options: str,
    method: str,
    chunked: bool,
    nginx: Nginx,
    visitor: ClientSession,
    aiohttp_server: AiohttpServer,
) -> None:
    async def upload(request: web.Request) -> web.StreamResponse:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=f"{digest.hexdigest()} {request.scheme}")

    app = api()
    app.router.add_route(method, "/upload", upload)
    front = await nginx(
        (await aiohttp_server(app)).make_url("/"), options=options
    )
    body = os.urandom(5_000_000)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 300_000):
            yield body[start : start + 300_000]

    async with visitor.request(
        method,
        front.https / "upload",
        data=pieces() if chunked else io.BytesIO(body),
    ) as response:
        expected = f"{hashlib.sha256(body).hexdigest()} https"
        assert await response.text() == expected


async def test_form_with_a_file_arrives_whole(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    async def upload(request: web.Request) -> web.StreamResponse:
        part = (await request.post())["file"]
        assert isinstance(part, web.FileField)
        with part.file:
            return web.Response(text=f"{len(part.file.read())}")

    app = api()
    app.router.add_post("/upload", upload)
    front = await nginx((await aiohttp_server(app)).make_url("/"))
    form = FormData()
    form.add_field("file", io.BytesIO(bytes(900_000)), filename="zeros")
    async with visitor.post(front.https / "upload", data=form) as response:
        assert await response.text() == "900000"


# nginx speaks HTTP/1.0 to the application when it is not told otherwise.
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_events_arrive_one_by_one_and_beyond_the_limit(
    version: str,
    nginx: Nginx,
    visitor: ClientSession,
    aiohttp_server: AiohttpServer,
) -> None:
    heard = asyncio.Semaphore(0)

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        for number in range(3):
            await response.write(b"data: %d\n\n" % number)
            await asyncio.wait_for(heard.acquire(), 5)
            await asyncio.sleep(0.03)
        return response

    app = api(limit=0.05)
    app.router.add_get("/events", events)
    front = await nginx(
        (await aiohttp_server(app)).make_url("/"),
        options=f"proxy_http_version {version};",
    )
    async with visitor.get(
        front.https / "events", headers={"Origin": ORIGIN}
    ) as response:
        headers = response.headers
        assert headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
        assert headers.getall("Vary") == ["Origin"]
        for number in range(3):
            line = await response.content.readuntil(b"\n\n")
            assert line == b"data: %d\n\n" % number
            heard.release()
        assert await response.content.read() == b""


async def test_big_stream_and_file_arrive_whole(
    nginx: Nginx,
    visitor: ClientSession,
    aiohttp_server: AiohttpServer,
    tmp_path: Path,
) -> None:
    body = os.urandom(1_000_000)
    path = tmp_path / "file"
    path.write_bytes(body)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(body), 10_000):
            await response.write(body[start : start + 10_000])
        return response

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    app = api()
    app.router.add_get("/stream", stream)
    app.router.add_get("/file", file)
    front = await nginx((await aiohttp_server(app)).make_url("/"))
    for name in ("stream", "file"):
        async with visitor.get(front.https / name) as response:
            assert await response.read() == body
    headers = {"Range": "bytes=10-19"}
    async with visitor.get(front.https / "file", headers=headers) as response:
        assert response.status == 206
        assert await response.read() == body[10:20]


async def test_websocket_is_upgraded_and_lives_beyond_the_limit(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await asyncio.sleep(0.03)
            await socket.send_str(f"{message.data} {request.scheme}")
        return socket

    app = api(limit=0.05)
    app.router.add_get("/talk", talk)
    front = await nginx((await aiohttp_server(app)).make_url("/"))
    async with visitor.ws_connect(front.https / "talk") as socket:
        for number in range(3):
            await socket.send_str(str(number))
            assert await socket.receive_str(timeout=5) == f"{number} https"


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("length", [None, 1000], ids=["unknown", "length"])
async def test_stream_that_fails_is_not_taken_for_complete(
    version: str,
    length: int | None,
    nginx: Nginx,
    visitor: ClientSession,
    aiohttp_server: AiohttpServer,
) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        await response.write(b"half")
        raise ValueError("too late for a 500")

    app = api()
    app.router.add_get("/fails", fails)
    front = await nginx(
        (await aiohttp_server(app)).make_url("/"),
        options=f"proxy_http_version {version};",  # of its own it takes 1.0
    )
    async with visitor.get(front.http / "fails") as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            await response.read()
    # And nothing is wrong with the next.
    async with visitor.get(front.http / "facts") as response:
        assert response.status == 200


# When the application is too slow
# ================================

NGINX_GIVES_UP = "proxy_read_timeout 300ms;"


async def stuck(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_visitor_sees_our_504_before_that_of_nginx(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    app = api(limit=0.1)
    app.router.add_get("/stuck", stuck)
    server = await aiohttp_server(app)
    front = await nginx(server.make_url("/"), options="proxy_read_timeout 5s;")
    connections = set()
    for _ in range(2):
        headers = {"Origin": ORIGIN}
        url = front.https / "stuck"
        async with visitor.get(url, headers=headers) as response:
            assert response.status == 504
            assert response.content_type == "application/json"
            assert await response.json() == OURS
            allowed = response.headers["Access-Control-Allow-Origin"]
            assert allowed == ORIGIN
        async with visitor.get(front.https / "facts") as response:
            connections.add((await response.json())["connection"])
    assert len(connections) == 1  # it is as good as before


async def test_without_a_limit_the_visitor_sees_the_page_of_nginx(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    app = api(limit=None)
    app.router.add_get("/stuck", stuck)
    server = await aiohttp_server(app)
    front = await nginx(server.make_url("/"), options=NGINX_GIVES_UP)
    headers = {"Origin": ORIGIN}
    async with visitor.get(front.https / "stuck", headers=headers) as response:
        assert response.status == 504
        assert "nginx" in await response.text()
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("who", ["nginx gives up", "the visitor leaves"])
@pytest.mark.parametrize(
    ("method", "how_it_ends"), [("GET", "cancelled"), ("POST", "written")]
)
async def test_handler_that_nobody_waits_for_ends_unless_shielded(
    who: str,
    method: str,
    how_it_ends: str,
    nginx: Nginx,
    certificate: Certificate,
    aiohttp_server: AiohttpServer,
) -> None:
    started = asyncio.Event()
    ends: asyncio.Queue[str] = asyncio.Queue()

    async def write(request: web.Request) -> web.StreamResponse:
        started.set()
        try:
            while request.transport is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            ends.put_nowait("cancelled")
            raise
        ends.put_nowait("written")
        return web.Response()

    app = api(limit=None)
    app.router.add_route(method, "/write", write)
    server = await aiohttp_server(app)
    front = await nginx(
        server.make_url("/"),
        options=NGINX_GIVES_UP if who == "nginx gives up" else "",
    )

    # A raw client, as Python's TLS takes its time to close a connection.
    reader, writer = await asyncio.open_connection(
        front.https.host, front.https.port, ssl=certificate.client_context()
    )
    writer.write(f"{method} /write HTTP/1.1\r\nHost: a\r\n".encode())
    writer.write(b"Content-Length: 0\r\n\r\n")
    await started.wait()
    if who == "nginx gives up":
        assert b" 504 " in await reader.readline()
    writer.transport.abort()
    assert await asyncio.wait_for(ends.get(), 5) == how_it_ends


async def test_shielded_handler_goes_on_behind_our_504(
    nginx: Nginx, visitor: ClientSession, aiohttp_server: AiohttpServer
) -> None:
    answered, written = asyncio.Event(), asyncio.Event()

    async def write(request: web.Request) -> web.StreamResponse:
        assert await request.read() == b"x" * 100_000
        await answered.wait()
        with pytest.raises(ConnectionResetError):
            await web.StreamResponse().prepare(request)
        written.set()
        return web.Response(text="nobody reads this")

    # Without those that refuse a second answer as well.
    app = application(
        https_middleware(trusted=["127.0.0.1"]),
        error_middleware(),
        timeout_middleware(0.1),
        shield_middleware(methods=["POST"]),
    )
    app.router.add_post("/write", write)
    front = await nginx((await aiohttp_server(app)).make_url("/"))
    async with visitor.post(
        front.https / "write", data=b"x" * 100_000
    ) as response:
        assert (response.status, await response.json()) == (504, OURS)
    answered.set()
    await asyncio.wait_for(written.wait(), 5)
    # No late answer is in the way of the next, on the same connection.
    for _ in range(3):
        async with visitor.get(front.https / "facts") as response:
            known = await response.json()
        assert URL(known["url"]) == front.https / "facts"
