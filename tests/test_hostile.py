"""What a client may send: to all five at once, and to all that there are.

Nothing of it makes a middleware answer 500 or write to the log at ERROR, and
every request that reaches the middlewares is answered.
"""

import asyncio
import gc
import logging
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

import aiohttp_session
import answers
import fuzz
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from live import PATIENCE, Live, eventually, live
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from raw import head

import aiohttp_middlewares
from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    access_log_middleware,
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    concurrency_limit_middleware,
    cors_middleware,
    csrf_middleware,
    debug_error_handler,
    early_data_middleware,
    error_middleware,
    etag_middleware,
    github,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    jwt_verifier,
    metrics_middleware,
    problem_error_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    report_middleware,
    request_id_middleware,
    response_headers_middleware,
    security_headers_middleware,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    sign_in_middleware,
    timeout_middleware,
    tracing_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.report._sdk import described

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
            # What is not ASCII, and so no name of anything, is not said back.
            assert received.partition(b"\r\n\r\n")[0].isascii()
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
        [(ORIGIN, b"https://a.example"), (PREFLIGHT, b"\xc3\xa9")],
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


# All of them, and many requests at once
# ======================================

SEED = int(os.environ.get("FUZZ_SEED", "6"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "5000"))
#: The number of the only conversation to have, once it has failed.
ONLY = os.environ.get("FUZZ_ONLY")
METRICS = CollectorRegistry()
#: How many conversations there are at a time.
AT_ONCE = 16


def odd_key(request: web.Request) -> str:
    """Whatever a client may send."""
    return f"{request.method} {request.path_qs} {[*request.headers.items()]}"


def documented() -> list[Any]:
    """The documented order. A new middleware has to be added, in its place."""
    return [
        request_id_middleware(),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
        https_middleware({"Forwarded": "https"}),
        tracing_middleware(
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            meter_provider=MeterProvider(shutdown_on_exit=False),
        ),
        server_timing_middleware(emit=len, cpu=True),
        access_log_middleware(),
        metrics_middleware(registry=METRICS),
        trusted_host_middleware(["example.com", "*.example.com", "[::1]"]),
        https_redirect_middleware(ignore=["/empty"]),
        security_headers_middleware(),
        response_headers_middleware(
            lambda request, status, headers: headers.update(
                {"X-Echo": ascii(request.path_qs)}
            )
        ),
        cors_middleware(
            origins=["https://app.example.com"],
            allow_credentials=True,
            allow_headers=["*"],
        ),
        error_middleware(
            config={
                re.compile("/[a-m]"): problem_error_handler,
                re.compile("/[n-r]"): debug_error_handler,
            }
        ),
        # What the reporters of the SDKs ask of a request.
        report_middleware(lambda err, request: described(request)),
        early_data_middleware(),
        rate_limit_middleware("1000000/second", key=odd_key),
        concurrency_limit_middleware(
            100, key=lambda request: request.headers.get("Host")
        ),
        body_limit_middleware(1000, limits={"/chunks": 2000}),
        compression_middleware(minimum_size=0),
        etag_middleware(),
        timeout_middleware(29.5, limits={fuzz.SLOW: 0.01}),
        shield_middleware(methods=NON_IDEMPOTENT_METHODS),
        session_middleware("a key of the tests, and of nobody else"),
        api_key_middleware({"me": "secret"}, ignore=["/sent", "/late"]),
        bearer_auth_middleware(
            jwt_verifier(
                "a key of the tests, and of nobody else",
                algorithms=["HS256"],
                issuer=None,
                audience=None,
            ),
            required=False,
        ),
        basic_auth_middleware({"me": "secret"}, ignore=["/sent", "/late"]),
        csrf_middleware(trusted_origins=["https://app.example.com"]),
        sign_in_middleware(
            github("the site", "its secret", users="*"), required=False
        ),
        idempotency_middleware(max_body=900),
    ]


class Watched:
    """An application that notes what becomes of every request."""

    def __init__(self) -> None:
        self.app = answers.serve(
            web.Application(middlewares=[self.probe(), *documented()])
        )
        self.app.middlewares.append(self.innermost())
        self.app.on_response_prepare.append(self.echo)
        for path in fuzz.READERS:
            self.app.router.add_route("*", path, self.read)
        self.app.router.add_route("*", fuzz.SLOW, self.slow)
        #: Of each conversation: the requests at work, and those that ended.
        self.at_work: dict[str, list[web.Request]] = defaultdict(list)
        self.ended: dict[str, list[str]] = defaultdict(list)
        #: The requests whose handler asked for a 5xx, or was too slow.
        self.failed: set[str] = set()
        self.answered: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def probe(self) -> Middleware:
        @web.middleware
        async def probe(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            id = request.headers.get("X-Fuzz", ".")
            number = id.partition(".")[0]
            if request.path == fuzz.SLOW:  # as may be all that is on the way
                self.failed.add(id)
            self.at_work[number].append(request)
            try:
                return await handler(request)
            finally:
                self.at_work[number].remove(request)
                self.ended[number].append(id)

        return probe

    def innermost(self) -> Middleware:
        @web.middleware
        async def innermost(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            if request.match_info.handler in FAILING:
                self.failed.add(request.headers["X-Fuzz"])
            session = await aiohttp_session.get_session(request)
            session["path"] = request.path[:99]  # what a cookie holds
            return await handler(request)

        return innermost

    async def echo(
        self, request: web.Request, response: web.StreamResponse
    ) -> None:
        id = request.headers.get("X-Fuzz", ".")
        response.headers["X-Fuzz"] = id
        if id in self.answered:
            self.answered[id].set()

    async def read(self, request: web.Request) -> web.Response:
        reader = getattr(request, request.path.strip("/"), None)
        if request.path == "/chunks":
            async for _ in request.content.iter_chunked(10):
                pass
        elif reader is not None:
            read = await reader()
            if request.path == "/multipart":
                async for part in read:
                    await part.read(decode=True)
        return web.Response(text="read")

    async def slow(self, request: web.Request) -> web.Response:
        id = request.headers["X-Fuzz"]
        with suppress(asyncio.TimeoutError):  # when nobody hears the answer
            await asyncio.wait_for(self.answered[id].wait(), 0.05)
        return web.Response(text="LATE")


#: They fail as they should.
FAILING = (answers.failed, answers.none, answers.late)


class Answered(NamedTuple):
    status: int
    id: str | None


def split(received: bytes, methods: dict[str, str]) -> list[Answered]:
    """Take all answers apart that are there as a whole."""
    found: list[Answered] = []
    while received.startswith(b"HTTP/"[: len(received)]) and received:
        if b"\r\n\r\n" not in received:
            return found
        answer = head(received)
        received = answer.rest
        if 100 <= answer.status < 200 and answer.status != 101:
            continue
        id = answer.headers.get("X-Fuzz")
        end: int | None
        if answer.status == 101:
            end = len(received)  # another protocol
        elif answer.status in (204, 304) or methods.get(id or "") == "HEAD":
            end = 0
        elif answer.headers.get("Transfer-Encoding") == "chunked":
            end = end_of_chunks(received)
        elif "Content-Length" in answer.headers:
            end = int(answer.headers["Content-Length"])
        else:
            end = len(received)  # until the connection is closed
        if end is None or len(received) < end:
            return found  # it broke off
        received = received[end:]
        found.append(Answered(answer.status, id))
    assert not received, f"this is no answer: {received[:200]!r}"
    return found


def end_of_chunks(received: bytes) -> int | None:
    position = 0
    while (line := received.find(b"\r\n", position)) >= 0:
        size = int(received[position:line], 16)
        position = line + 2 + size + 2
        assert received[position - 2 : position] in (b"\r\n", b"\r", b"")
        if size == 0:
            return position if position <= len(received) else None
    return None


async def have(
    watched: Watched, server: Live, conversation: fuzz.Conversation
) -> None:
    """Have one conversation, and look at what came of it."""
    number = str(conversation.number)
    ids = [request.id for request in conversation.requests]
    methods = {request.id: request.method for request in conversation.requests}
    client = await server.connect()
    received, closed = b"", False
    try:
        for piece in conversation.pieces:
            client.write("", piece)
            await asyncio.sleep(0)
        if conversation.vanishes == "reset":
            client.reset()
        if conversation.vanishes:
            return

        answered: list[Answered] = []
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while len(answered) < len(ids):
            try:
                more = await asyncio.wait_for(client.reader.read(2**16), 0.05)
            except asyncio.TimeoutError:
                if not any(
                    request.content.is_eof()
                    for request in watched.at_work[number]
                ) and len(answered) >= len(watched.ended[number]):
                    break  # the server waits for more, of a body or a head
                assert asyncio.get_running_loop().time() < deadline, "it hangs"
                continue
            except ConnectionError:
                more = b""
            received += more
            answered = split(received, methods)
            if not more:
                closed = True
                break
    finally:
        client.leave()

    said = [answer.id for answer in answered if answer.id is not None]
    assert said == [id for id in ids if id in said], f"crossed: {said}"
    if not closed:
        assert {*watched.ended[number]} <= {*said, "."}, "an answer is lost"
    for answer in answered:
        if answer.status >= 500:
            assert answer.id in watched.failed, f"{answer}: nobody asked for it"


# A file that aiohttp is about to open when the handler is cancelled is left to
# the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("handler_cancellation", [True, False])
async def test_fuzzed_conversations_go_as_they_should(
    caplog: pytest.LogCaptureFixture, handler_cancellation: bool
) -> None:
    """No 5xx, error, hang or crossed answer that is ours, no task left over.

    ``FUZZ_REQUESTS`` says how many, ``FUZZ_SEED`` which. A conversation that
    fails is told, and can be had again alone.
    """
    watched = Watched()
    failures: list[str] = []
    records: list[logging.LogRecord] = []
    gathers = Gathers(records)
    logging.getLogger().addHandler(gathers)
    numbers = count() if ONLY is None else iter([int(ONLY)])
    left = REQUESTS // 2

    async def work(server: Live) -> None:
        nonlocal left
        for number in numbers:
            if left <= 0 or failures:
                return
            conversation = fuzz.conversation(SEED, number)
            left -= len(conversation.requests)
            try:
                await have(watched, server, conversation)
                ours = [*filter(is_unexpected, records)]
                assert not ours, [
                    logging.Formatter().format(record) for record in ours
                ]
            except (AssertionError, ValueError) as exc:
                failures.append(
                    f"FUZZ_SEED={SEED} FUZZ_ONLY={number}: {exc}\n"
                    f"{conversation.sent!r}"
                )
            caplog.clear()
            records.clear()

    try:
        async with live(
            watched.app,
            handler_cancellation=handler_cancellation,
            lingering_time=0.01,
        ) as server:
            before = asyncio.all_tasks()
            workers = 1 if ONLY else AT_ONCE
            await asyncio.gather(*(work(server) for _ in range(workers)))
            await eventually(lambda: asyncio.all_tasks() == before)
    finally:
        logging.getLogger().removeHandler(gathers)
    gc.collect()
    assert failures == [], "\n".join(failures)
    samples = [each for metric in METRICS.collect() for each in metric.samples]
    name = "http_server_requests_in_progress"
    assert {each.value for each in samples if each.name == name} == {0}


def is_unexpected(record: logging.LogRecord) -> bool:
    """An error of ours, but not the failure of a handler."""
    exc = record.exc_info[1] if record.exc_info else None
    if isinstance(exc, answers.Failed | asyncio.TimeoutError):
        return False
    if (
        isinstance(exc, web.RequestPayloadError)
        and record.name == "aiohttp.server"
    ):
        return False  # aiohttp itself reads the rest of a body: no gzip, say
    if record.__dict__.get("path") == "/none":  # which returns nothing
        return False
    return is_ours(record)


def test_fuzzed_stack_has_every_middleware() -> None:
    built = {getattr(middleware, "__name__", "") for middleware in documented()}
    assert {f"{name}_middleware" for name in built} == {
        name
        for name in aiohttp_middlewares.__all__
        if name.endswith("_middleware")
    }


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
