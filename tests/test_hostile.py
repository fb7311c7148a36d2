"""What a client may send to all five at once.

Nothing of it makes a middleware answer 500 or write to the log at ERROR, and
every request that reaches the middlewares is answered.
"""

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from traceback import walk_tb

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st

import aiohttp_middlewares
from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    debug_error_handler,
    error_middleware,
    https_middleware,
    problem_error_handler,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

# The applications
# ================


async def plain(request: web.Request) -> web.Response:
    return web.Response(text="plain")


async def streamed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def refuses(request: web.Request) -> web.Response:
    raise web.HTTPUnprocessableEntity(text="no")


async def redirects(request: web.Request) -> web.Response:
    raise web.HTTPFound("/")


async def websocket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(timeout=0.1)
    await ws.prepare(request)
    await ws.close()
    return ws


def is_known(origin: str, request: web.Request) -> bool:
    return origin != "https://unknown.example"


def middlewares() -> Iterator[list[Middleware]]:
    """In the documented order, with options of every kind."""
    pattern = re.compile(r"^/p[a-z]+")
    yield [
        https_middleware(),
        cors_middleware(
            origins=[
                "https://a.example",
                "https://*.example.com",
                "http://localhost:*",
                re.compile(r"https?://[a-z]+\.example\.net"),
                re.compile(r".*odd.*"),
                "null",
            ],
            allow_credentials=True,
            allow_headers=["*"],
            allow_methods=["*"],
            expose_headers=["X-Total"],
            max_age=600,
        ),
        error_middleware(
            config={pattern: problem_error_handler, 404: debug_error_handler}
        ),
        timeout_middleware(
            5, ignore={pattern: "GET"}, limits={"/a/b": 2, "/a b": None}
        ),
        shield_middleware(methods=NON_IDEMPOTENT_METHODS, ignore=["/"]),
    ]
    yield [
        https_middleware(
            {"Forwarded": "https", "X-Forwarded-Proto": "https"},
            trusted=["127.0.0.0/8"],
        ),
        cors_middleware(allow_all=True, allow_credentials=True),
        error_middleware(default_handler=problem_error_handler),
        timeout_middleware(5),
        shield_middleware(urls={re.compile(""): ["POST", "OPTIONS"]}),
    ]
    yield [
        https_middleware(),
        cors_middleware(origins=is_known, urls={re.compile("/a"): "GET"}),
        cors_middleware(allow_all=True, allow_headers=["*", "authorization"]),
        error_middleware(default_handler=debug_error_handler),
        timeout_middleware(None, limits={pattern: 5}),
        shield_middleware(urls=["/", "/a/b"]),
    ]


class Servers:
    """The applications, each behind a probe that notes what comes out."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.outcomes: list[object] = []
        self.records: list[logging.LogRecord] = []
        self.servers: list[TestServer] = []

    async def start(self) -> None:
        @web.middleware
        async def probe(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            position = len(self.outcomes)
            self.outcomes.append("no end")
            try:
                response = await handler(request)
            except BaseException as exc:
                self.outcomes[position] = (
                    exc.status if isinstance(exc, web.HTTPException) else exc
                )
                raise
            self.outcomes[position] = response.status
            return response

        for chain in ([], *middlewares()):
            app = web.Application(middlewares=[probe, *chain])
            app.router.add_route("*", "/", plain)
            app.router.add_get("/a/b", plain)
            app.router.add_get("/a b", streamed)
            app.router.add_route("*", "/page", refuses)
            app.router.add_get("/r/{name}", redirects)
            app.router.add_get("/ws", websocket)
            server = TestServer(app)
            await server.start_server()
            self.servers.append(server)
        self.bare = self.servers.pop(0)

    async def stop(self) -> None:
        for server in (self.bare, *self.servers):
            await server.close()

    def ask(self, sent: bytes) -> None:
        for server in self.servers:
            self.outcomes.clear()
            self.records.clear()
            received = self.loop.run_until_complete(ask(server, sent))
            odd = [
                outcome
                for outcome in self.outcomes
                if not isinstance(outcome, int) or outcome >= 500
            ]
            assert odd == []
            assert [*filter(is_ours, self.records)] == []
            if self.outcomes and not FINAL.search(received):
                # An old aiohttp loses answers to what it had not read all of.
                received = self.loop.run_until_complete(ask(self.bare, sent))
                assert not FINAL.search(received)


# A response, and no 100 Continue.
FINAL = re.compile(rb"HTTP/1\.[01] (?:101|[2-9][0-9][0-9]) ")


async def ask(server: TestServer, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    received = b""

    async def read() -> None:
        nonlocal received
        while not FINAL.search(received) and (more := await reader.read(9999)):
            received += more

    try:
        writer.write(sent)
        with suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(read(), 1)
    finally:
        writer.close()
    return received


def is_ours(record: logging.LogRecord) -> bool:
    """Not aiohttp's own complaint of what is no HTTP, or no gzip."""
    trace = record.exc_info[2] if record.exc_info else None
    return record.name.startswith("aiohttp_middlewares") or any(
        Path(frame.f_code.co_filename).is_relative_to(PACKAGE)
        for frame, _ in walk_tb(trace)
    )


PACKAGE = Path(aiohttp_middlewares.__file__).parent


class Gathers(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    servers = Servers()
    gathers = Gathers(servers.records)
    logging.getLogger().addHandler(gathers)
    servers.loop.run_until_complete(servers.start())
    yield servers
    servers.loop.run_until_complete(servers.stop())
    servers.loop.close()
    logging.getLogger().removeHandler(gathers)


# What they are sent
# ==================

# First what aiohttp's parser lets through, so that it reaches the middlewares.
METHODS = st.sampled_from(
    b"GET GET POST OPTIONS OPTIONS OPTIONS HEAD PUT DELETE PATCH TRACE "
    b"PROPFIND M-SEARCH".split()
)
PATHS = st.lists(
    st.sampled_from(
        b"a b / // .. % %2F %2f %25 %zz %C3%A9 %E9 %FF %00 %0D%0A %20 "
        b"%ED%A0%80 ? ; = & + ~ p page ws r".split()
    ),
    max_size=6,
).map(lambda parts: b"/" + b"".join(parts))
# (A host that starts with "xn--" and is none, and a port that is none, make
# aiohttp fail before any middleware, and keep the connection open.)
HOSTS = st.sampled_from(
    b"a.example A.Example a.example:0 a.example:65535 [::1] [::1]:80 [::g] a% "
    b"%41 a_b user:secret@a.example .. - 1.2.3.4 127.1 xn--9ca :80".split()
)
TARGETS = st.one_of(
    st.sampled_from([b"/", b"/a/b", b"/a%20b", b"/page", b"/r/x", b"/ws"]),
    PATHS,
    st.builds(
        lambda scheme, host, path: scheme + b"://" + host + path,
        st.sampled_from([b"http", b"https", b"ws", b"ftp", b"HTTP", b"x"]),
        HOSTS,
        PATHS,
    ),
)
START_LINES = st.one_of(
    st.tuples(METHODS, TARGETS),
    st.tuples(METHODS, TARGETS),
    st.tuples(st.just(b"OPTIONS"), st.just(b"*")),
    st.tuples(st.just(b"CONNECT"), HOSTS),
)
NAMES = st.sampled_from(
    b"Origin Origin Origin Access-Control-Request-Method "
    b"Access-Control-Request-Method Access-Control-Request-Headers "
    b"X-Forwarded-Proto X-Forwarded-Proto Forwarded Accept Accept "
    b"Access-Control-Allow-Origin Connection Upgrade Sec-WebSocket-Key "
    b"Sec-WebSocket-Version Sec-WebSocket-Protocol Sec-WebSocket-Extensions "
    b"Vary Cookie Range If-None-Match If-Modified-Since Accept-Encoding "
    b"Content-Type X-Any".split()
)
KNOWN_VALUES = st.sampled_from(
    [
        b"https://a.example",
        b"HTTPS://A.EXAMPLE:443/",
        b"https://a.b.example.com",
        b"https://example.net",
        b"http://odd.example.net:8080",
        b"http://localhost:3000",
        b"https://odd\xff",
        b"https://odd\xc3\xa9",
        b"https://odd\t",
        b"https://unknown.example",
        b"null",
        b"*",
        b"GET",
        b"DELETE",
        b"x-a, authorization",
        b"x-a,, b c",
        b"https",
        b"https, http",
        b"wss",
        b"proto=https",
        b'for="[::1]";proto="https"',
        b'proto=https;for="',
        b'"\\',
        b"text/html",
        b"text/*;q=0.5, application/json;q=0.1",
        b"application/problem+json;q=1.000",
        b"*/*;q=x",
        b"gzip, deflate, br",
        b"close",
        b"keep-alive",
        b"websocket",
        b"13",
        b"MTIzNDU2Nzg5MDEyMzQ1Ng==",
        b"bytes=9-1",
        b"Sun, 99 Nov 1994 99:99:99 GMT",
        b"a.example:99999",
        b"[",
        b"a=b; c",
        b"",
        b'"' * 8000,
        b"a," * 4000,
        b'\\"' * 4000,
        b"a=" * 4000,
    ]
)
# RFC 9110 5.5: what a value may be made of.
VALUES = KNOWN_VALUES | st.lists(
    st.sampled_from([9, *range(32, 127), *range(128, 256)]), max_size=8
).map(bytes)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BODIES: st.SearchStrategy[tuple[list[tuple[bytes, bytes]], bytes]]
BODIES = st.sampled_from(
    [
        ([], b""),
        ([], b""),
        ([(b"Content-Length", b"4")], b"body"),
        ([(b"Content-Length", b"5")], b"body"),  # and no end
        ([(b"Transfer-Encoding", b"chunked")], b"4\r\nbody\r\n0\r\n\r\n"),
        ([(b"Transfer-Encoding", b"chunked")], b"4\r\nbody\r\nno chunk"),
        (
            [(b"Content-Length", b"4"), (b"Content-Encoding", b"gzip")],
            b"body",
        ),
        ([(b"Content-Length", b"4"), (b"Expect", b"100-continue")], b""),
    ]
)


def request(
    start: tuple[bytes, bytes],
    fields: list[tuple[bytes, bytes]],
    body: tuple[list[tuple[bytes, bytes]], bytes] = ([], b""),
) -> bytes:
    lines = [b" ".join([*start, b"HTTP/1.1"]), b"Host: a.example"]
    lines += [name + b": " + value for name, value in fields + body[0]]
    return b"\r\n".join([*lines, b"", body[1]])


ORIGIN = b"Origin"
PREFLIGHT = b"Access-Control-Request-Method"
PROTO = b"X-Forwarded-Proto"
GET = b"GET", b"/"


@example(request(GET, [(ORIGIN, b"https://odd\xff")]))
@example(request(GET, [(ORIGIN, b"https://odd\xc3\xa9")]))
@example(
    request(
        (b"OPTIONS", b"/"),
        [(ORIGIN, b"https://a.example"), (PREFLIGHT, b"\xff")],
    )
)
@example(
    request(
        (b"OPTIONS", b"*"),
        [(ORIGIN, b"https://a.example"), (PREFLIGHT, b"PUT")],
    )
)
@example(request((b"CONNECT", b"[::g]:443"), [(PROTO, b"https")]))
@example(request((b"GET", b"http://a%/"), [(PROTO, b"https")]))
@example(request((b"GET", b"/page"), [(b"Accept", b'"' * 8000)]))
@settings(max_examples=150)
@given(sent=st.builds(request, START_LINES, FIELDS, BODIES))
def test_no_request_makes_a_middleware_fail(
    servers: Servers, sent: bytes
) -> None:
    servers.ask(sent)


# And then anything, in places where it does not belong.
ANYTHING = st.one_of(
    KNOWN_VALUES,
    st.binary(max_size=6),
    st.sampled_from([b"\r\n", b" ", b":", b"GET / HTTP/1.1\r\n", b"HTTP/0.9"]),
)
HEADER_NAMES = ANYTHING | st.sampled_from(
    [b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", ORIGIN]
)


@settings(max_examples=75)
@given(
    start=st.tuples(
        st.sampled_from([b"GET", b"POST", b"get"]) | ANYTHING,
        st.sampled_from([b"/", b"/page"]) | ANYTHING,
    ),
    fields=st.lists(st.tuples(HEADER_NAMES, ANYTHING), max_size=4),
    body=st.binary(max_size=6),
)
def test_what_is_no_request_does_not_make_a_middleware_fail_either(
    servers: Servers,
    start: tuple[bytes, bytes],
    fields: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    servers.ask(request(start, fields, ([], body)) + b"\r\n\r\n")


def test_servers_answer_as_they_should(servers: Servers) -> None:
    """Or else the test above would say nothing."""
    said = [(PROTO, b"https"), (ORIGIN, b"https://a.example")]
    for method, target, status in (
        (b"GET", b"/", 200),
        (b"GET", b"/page", 422),
        (b"GET", b"/r/x", 302),
        (b"GET", b"/nothing", 404),
        (b"POST", b"/ws", 405),
        (b"GET", b"/ws", 400),
    ):
        servers.ask(request((method, target), said))
        assert servers.outcomes == [status]
    servers.ask(request((b"OPTIONS", b"/"), [*said, (PREFLIGHT, b"PUT")]))
    assert servers.outcomes == [200]


# Warnings
# ========

FULL_REQUEST = """
import asyncio, re
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_middlewares import *

async def show(request):
    return web.json_response({"scheme": request.scheme})

async def slow(request):
    await asyncio.Event().wait()

async def main():
    app = web.Application(
        middlewares=[
            https_middleware(),
            cors_middleware(origins=["https://a.example"]),
            error_middleware(),
            timeout_middleware(10, limits={"/slow": 0.01}),
            shield_middleware(methods=NON_IDEMPOTENT_METHODS),
        ]
    )
    app.router.add_route("*", "/", show)
    app.router.add_get("/slow", slow)
    app.cleanup_ctx.append(drain_shielded)
    headers = {"Origin": "https://a.example", "X-Forwarded-Proto": "https"}
    async with TestClient(TestServer(app)) as client:
        for method, path in (
            ("GET", "/"), ("POST", "/"), ("GET", "/nothing"), ("GET", "/slow")
        ):
            response = await client.request(method, path, headers=headers)
            print(response.status, await response.text())
        headers["Access-Control-Request-Method"] = "PUT"
        response = await client.options("/", headers=headers)
        print(response.status)

asyncio.run(main())
"""


def test_full_request_through_all_five_warns_of_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", FULL_REQUEST],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        text=True,
    )
    assert done.stdout.splitlines() == [
        '200 {"scheme": "https"}',
        '200 {"scheme": "https"}',
        '404 {"detail": "Not Found"}',
        '504 {"detail": "Request timed out"}',
        "200",
    ]
    assert "Warning" not in done.stderr
