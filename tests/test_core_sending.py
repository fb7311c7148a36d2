"""Headers at the last moment: what all header middlewares stand on."""

import asyncio
import gc
import gzip
import re
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import answers
import pytest
from aiohttp import ClientConnectionResetError, web
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import head, raw

from aiohttp_middlewares._core.grammar.fields import VARY, add_elements
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares._core.sending import (
    before_sending,
    departure_of,
    only_one_response,
    reset_when_cut,
    start_over,
    started,
)
from aiohttp_middlewares.annotations import Handler, Middleware

GET = b"GET %b HTTP/1.1\r\nHost: a.example\r\n%b\r\n"
LAST = b"Connection: close\r\n"


def marks(name: str) -> Middleware:
    """A middleware that leaves its mark on each answer, and says so last."""

    def mark(status: int, headers: CIMultiDict[str]) -> None:
        headers.add("X-Mark", name)  # seen twice if done twice
        headers["X-Word"] = name

    def last(status: int, headers: CIMultiDict[str]) -> None:
        # Its own decorator was there before.
        assert name in headers.getall("X-Mark")
        headers.add("X-Last", f"{name} {status}")

    @web.middleware
    async def marks(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before_sending(request, last)
        departure = departure_of(request)
        place = departure.add(mark)
        response = await handler(request)
        departure.passes(place, response)
        return response

    return marks


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


application = answers.application
#: Every kind of answer, asked for in two ways.
REQUESTS = [
    (method, kind) for kind in answers.KINDS for method in ("GET", "HEAD")
]


def nested(app: web.Application, *middlewares: Middleware) -> web.Application:
    root = web.Application(middlewares=middlewares)
    root.add_subapp("/sub", app)
    return root


OUTER, INNER = marks("outer"), marks("inner")
PLACES: dict[str, Callable[[], tuple[str, web.Application]]] = {
    "root": lambda: ("", application(OUTER, INNER)),
    "sub": lambda: ("/sub", nested(application(OUTER, INNER))),
    "both": lambda: ("/sub", nested(application(INNER), OUTER)),
    "clone outside": lambda: ("", application(clones, OUTER, INNER)),
    "clone inside": lambda: ("", application(OUTER, INNER, clones)),
    "clones": lambda: (
        "/sub",
        nested(application(clones, INNER, clones), clones, OUTER),
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("method", "kind"), REQUESTS, ids=str)
async def test_every_answer_is_decorated_inside_out_and_has_its_last_calls_once(
    aiohttp_client: AiohttpClient, method: str, kind: answers.Kind, place: str
) -> None:
    prefix, app = PLACES[place]()
    client = await aiohttp_client(app)
    async with client.request(
        method, prefix + kind.path, allow_redirects=False, headers=kind.fields
    ) as response:
        assert response.status == kind.status
        assert response.headers.getall("X-Mark") == ["inner", "outer"]
        assert response.headers.getall("X-Word") == ["outer"]
        assert response.headers.getall("X-Last") == [
            f"inner {kind.status}",
            f"outer {kind.status}",
        ]
        if kind.status == 101:
            response.close()


async def test_answer_is_as_it_was_but_for_the_decoration(
    aiohttp_server: AiohttpServer,
) -> None:
    bare = await aiohttp_server(application())
    marked = await aiohttp_server(application(marks("outer")))
    cookies = 0
    for method, kind in REQUESTS:
        fields = {"Connection": "close", **kind.fields}.items()
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        sent = GET.replace(b"GET", method.encode()) % (
            kind.path.encode(),
            lines.encode(),
        )
        expected = head(await raw(bare, sent))
        answer = head(await raw(marked, sent))
        assert answer.headers.popall("X-Mark") == ["outer"]
        assert answer.headers.popall("X-Word") == ["outer"]
        assert answer.headers.popall("X-Last") == [f"outer {kind.status}"]
        answer.headers["Date"] = expected.headers["Date"]
        assert list(answer.headers.items()) == list(expected.headers.items())
        assert answer == expected
        cookies += "Set-Cookie" in answer.headers
    assert cookies == 2  # of the redirect


async def test_middlewares_outside_see_the_headers_of_what_is_returned(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[tuple[bool, list[str]]] = []

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            # It may be one object for many requests.
            seen.append((exc.prepared, exc.headers.getall("X-Mark", [])))
            raise
        seen.append((response.prepared, response.headers.getall("X-Mark")))
        return response

    client = await aiohttp_client(application(outside, OUTER, INNER))
    for path in ("/returned", "/raised", "/nowhere", "/streamed"):
        await client.get(path, allow_redirects=False)
    marks = ["inner", "outer"]
    assert seen == [(False, marks), (False, []), (False, []), (True, marks)]


@pytest.mark.parametrize("path", ["/returned", "/raised", "/failed"])
async def test_answer_that_takes_the_place_of_another_is_decorated_by_all(
    aiohttp_client: AiohttpClient, path: str
) -> None:
    @web.middleware
    async def replaces(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            await handler(request)
        except Exception as exc:
            raise web.HTTPConflict from exc
        return web.Response(status=409)

    client = await aiohttp_client(
        application(marks("outer"), replaces, marks("inner"))
    )
    response = await client.get(path)
    assert response.status == 409
    assert response.headers.getall("X-Mark") == ["inner", "outer"]
    assert response.headers.getall("X-Word") == ["outer"]
    assert response.headers.getall("X-Last") == ["inner 409", "outer 409"]


async def test_answer_that_was_prepared_and_not_sent_gives_way_to_the_next(
    aiohttp_client: AiohttpClient,
) -> None:
    statuses: list[int] = []

    @web.middleware
    async def notes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before_sending(request, lambda status, headers: statuses.append(status))
        return await handler(request)

    async def gives_up(request: web.Request) -> web.Response:
        await answers.prepared(request)
        raise ZeroDivisionError

    app = application(notes, OUTER, INNER)
    app.router.add_get("/", gives_up)
    response = await (await aiohttp_client(app)).get("/")
    assert response.status == 500
    assert statuses == [200, 500]
    assert response.headers.getall("X-Mark") == ["inner", "outer"]
    assert response.headers.getall("X-Last") == ["inner 500", "outer 500"]


async def test_nothing_reaches_the_next_request_of_a_connection(
    aiohttp_server: AiohttpServer,
) -> None:
    marking = marks("outer")

    @web.middleware
    async def sometimes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if "mark" in request.query:
            return await marking(request, handler)
        return await handler(request)

    server = await aiohttp_server(application(sometimes))
    paths = [b"/streamed?mark", b"/returned", b"/raised?mark", b"/nowhere"]
    sent = [GET % (path, b"") for path in paths]
    received = await raw(server, b"".join([*sent, GET % (b"/events", LAST)]))
    assert re.findall(rb"HTTP/1.1 (\d+)|X-Mark: (\w+)", received) == [
        (b"200", b""),
        (b"", b"outer"),
        (b"200", b""),
        (b"410", b""),
        (b"", b"outer"),
        (b"404", b""),
        (b"200", b""),
    ]


async def test_vary_of_a_compressed_file_is_kept(
    aiohttp_client: AiohttpClient, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("plain")
    (tmp_path / "page.html.gz").write_bytes(gzip.compress(b"small"))

    async def show(request: web.Request) -> web.FileResponse:
        return web.FileResponse(page)

    def vary(status: int, headers: CIMultiDict[str]) -> None:
        add_elements(headers, VARY, ["Origin"])

    @web.middleware
    async def varies(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        departure = departure_of(request)
        place = departure.add(vary)
        response = await handler(request)
        departure.passes(place, response)
        return response

    app = web.Application(middlewares=[varies, varies])
    app.router.add_get("/", show)
    client = await aiohttp_client(app)
    response = await client.get("/", headers={"Accept-Encoding": "gzip"})
    assert await response.text() == "small"
    assert response.headers.getall("Vary") == ["Accept-Encoding, Origin"]
    response = await client.get("/", headers={"Accept-Encoding": "identity"})
    assert response.headers.getall("Vary") == ["Origin"]


# The last call
# =============


async def test_last_call_may_wait_and_has_the_last_word(
    aiohttp_client: AiohttpClient,
) -> None:
    calls: list[str] = []

    async def saves(status: int, headers: CIMultiDict[str]) -> None:
        await asyncio.sleep(0)
        assert "Server" in headers
        headers.add("Set-Cookie", "session=1")
        calls.append("saves")

    def removes(status: int, headers: CIMultiDict[str]) -> None:
        del headers["Server"]
        calls.append("removes")

    def calls_last(
        call: Callable[[int, CIMultiDict[str]], Awaitable[None] | None],
    ) -> Middleware:
        @web.middleware
        async def middleware(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            before_sending(request, call)
            return await handler(request)

        return middleware

    client = await aiohttp_client(
        application(calls_last(removes), calls_last(saves))
    )
    for method, kind in REQUESTS:
        calls.clear()
        async with client.request(
            method, kind.path, headers=kind.fields, allow_redirects=False
        ) as response:
            assert response.status == kind.status
            assert calls == ["saves", "removes"]
            assert "Server" not in response.headers
            assert "session=1" in response.headers.getall("Set-Cookie")
            if kind.status == 101:
                response.close()


# One response and no more
# ========================


async def two_responses(request: web.Request) -> web.StreamResponse:
    await answers.streamed(request)
    second = web.StreamResponse()
    await second.prepare(request)
    return second


async def stream_then_raise(request: web.Request) -> web.StreamResponse:
    await answers.streamed(request)
    raise web.HTTPConflict


async def socket_then_raise(request: web.Request) -> web.StreamResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    raise web.HTTPConflict


async def sized_then_raise(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    raise web.HTTPConflict


@web.middleware
async def guards(request: web.Request, handler: Handler) -> web.StreamResponse:
    only_one_response(request)
    return await handler(request)


@pytest.mark.parametrize("middleware", [guards, marks("outer")])
@pytest.mark.parametrize(
    "handler",
    [two_responses, stream_then_raise, socket_then_raise, sized_then_raise],
)
async def test_second_response_is_not_sent_and_the_connection_is_closed(
    aiohttp_server: AiohttpServer, handler: Handler, middleware: Middleware
) -> None:
    app = web.Application(middlewares=[middleware])
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    upgrade = "".join(
        f"{k}: {v}\r\n" for k, v in answers.UPGRADE.items()
    ).encode()
    socket = handler is socket_then_raise
    received = await raw(
        server,
        GET % (b"/", upgrade) if socket else GET % (b"/", b"") * 2,
    )
    assert received.count(b"HTTP/1.1") == 1
    assert b"Conflict" not in received
    # Somebody who reads a stream can tell that its end is missing.
    assert not received.endswith(b"\r\n0\r\n\r\n")


async def test_handler_is_told_that_its_second_response_was_refused(
    aiohttp_client: AiohttpClient,
) -> None:
    refused: list[Exception] = []

    @web.middleware
    async def listens(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except ClientConnectionResetError as exc:
            refused.append(exc)
            raise

    app = web.Application(middlewares=[guards, listens])
    app.router.add_get("/", two_responses)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert await response.content.read(8) == b"streamed"
    assert [str(exc) for exc in refused] == ["A response was sent already"]


async def test_answer_in_place_of_a_stream_that_never_left_is_framed_right(
    aiohttp_server: AiohttpServer,
) -> None:
    async def fail(request: web.Request, response: web.StreamResponse) -> None:
        if response.status == 200:
            raise ZeroDivisionError

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_compression(web.ContentCoding.deflate)
        await response.prepare(request)
        return response

    @web.middleware
    async def apologises(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except ZeroDivisionError:
            start_over(request.writer)
            return web.Response(status=500, text="sorry")

    app = web.Application(middlewares=[apologises])
    app.on_response_prepare.append(fail)
    app.router.add_get("/", stream)
    server = await aiohttp_server(app)
    answer = head(await raw(server, GET % (b"/", LAST)))
    assert (answer.status, answer.rest) == (500, b"sorry")
    assert answer.headers.getall("Content-Length") == ["5"]


async def test_late_bytes_of_a_prepared_response_are_refused(
    aiohttp_server: AiohttpServer,
) -> None:
    given_up, refused = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        response = web.Response(text="hello")
        await response.prepare(request)
        await given_up.wait()
        with pytest.raises(ClientConnectionResetError, match="already"):
            await response.write(b"late")
        await response.write_eof()
        refused.set()
        return response

    @web.middleware
    async def gives_up(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.path != "/":
            # A later request on the same connection.
            given_up.set()
            await refused.wait()
            return web.Response(text="later")
        abandoned.append(asyncio.ensure_future(handler(request)))
        await asyncio.sleep(0)
        only_one_response(request)
        return web.Response(text="given up")

    abandoned: list[asyncio.Future[web.StreamResponse]] = []
    app = web.Application(middlewares=[gives_up])
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    received = await raw(
        server, GET % (b"/", b"") + GET % (b"/later", LAST), limit=20
    )
    first = head(received)
    assert first.rest.startswith(b"given upHTTP/1.1 200 OK")
    assert head(first.rest[len("given up") :]).rest == b"later"
    await abandoned[0]


async def test_started_tells_when_there_is_no_way_back(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[tuple[str, bool]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(("before", started(request)))
        await web.Response(text="not sent").prepare(request)
        seen.append(("prepared response", started(request)))
        response = web.StreamResponse()
        await response.prepare(request)
        seen.append(("prepared stream", started(request)))
        return response

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    await client.get("/")
    assert seen == [
        ("before", False),
        ("prepared response", False),
        ("prepared stream", True),
    ]


async def test_100_continue_is_no_response(
    aiohttp_server: AiohttpServer,
) -> None:
    seen: list[bool] = []

    async def upload(request: web.Request) -> web.Response:
        seen.append(started(request))
        return web.Response(text=await request.text())

    app = web.Application(middlewares=[OUTER, INNER])
    app.router.add_post("/", upload)
    server = await aiohttp_server(app)
    received = await raw(
        server,
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\nbody",
    )
    interim, _, final = received.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert seen == [False]
    assert head(final).headers.getall("X-Mark") == ["inner", "outer"]
    assert head(final).rest == b"body"


# Where the writer cannot be wrapped, and what is left behind
# ===========================================================


class Refusing(StreamWriter):
    """A writer as it may come: it takes no new attribute."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "write_headers":
            raise AttributeError(name)
        super().__setattr__(name, value)


@web.middleware
async def refuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    request.writer.__class__ = Refusing
    return await handler(request)


@pytest.mark.parametrize(
    ("path", "status", "decoration"),
    [
        ("/returned", 200, ["inner", "outer"]),
        ("/raised", 410, []),
        ("/nowhere", 404, []),
        ("/streamed", 200, []),
        ("/failed", 500, []),
        ("/none", 500, []),
    ],
)
async def test_writer_that_cannot_be_wrapped_still_sends(
    aiohttp_client: AiohttpClient,
    path: str,
    status: int,
    decoration: list[str],
) -> None:
    client = await aiohttp_client(application(refuses, OUTER, INNER))
    response = await client.get(path, allow_redirects=False)
    assert response.status == status
    assert response.headers.getall("X-Mark", []) == decoration


async def counting(
    writer: Any, status_line: str, headers: CIMultiDict[str]
) -> None:
    headers["X-Counted"] = "yes"
    await type(writer).write_headers(writer, status_line, headers)


class Counter:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    async def write_headers(
        self, status_line: str, headers: CIMultiDict[str]
    ) -> None:
        await counting(self.writer, status_line, headers)


@pytest.mark.parametrize(
    "hook",
    [
        lambda writer: Counter(writer).write_headers,
        lambda writer: MethodType(counting, writer),
        lambda writer: partial(counting, writer),
    ],
)
async def test_hooks_of_others_stay_in_place(
    aiohttp_client: AiohttpClient, hook: Callable[[Any], Any]
) -> None:
    @web.middleware
    async def counts(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        writer: Any = request.writer
        writer.write_headers = hook(writer)
        return await handler(request)

    client = await aiohttp_client(application(counts, OUTER, INNER))
    for path in ("/returned", "/streamed", "/failed"):
        response = await client.get(path)
        assert response.headers["X-Counted"] == "yes"
        assert response.headers.getall("X-Mark") == ["inner", "outer"]


def test_writer_with_slots_is_left_alone() -> None:
    class Slotted:
        __slots__ = ("__weakref__", "output_size")

        def __init__(self) -> None:
            self.output_size = 0

        async def write_headers(self, line: str, headers: object) -> None:
            pass

        async def write_eof(self, chunk: bytes = b"") -> None:
            pass

    request: Any = SimpleNamespace(writer=Slotted(), transport=None)
    before_sending(request, lambda status, headers: None)
    reset_when_cut(request)
    only_one_response(request)


HELD = request_key("held", object)


async def test_what_a_request_held_is_free_without_the_garbage_collector(
    aiohttp_client: AiohttpClient,
) -> None:
    class Held:
        """What a handler loads."""

    held: list[weakref.ref[Held]] = []

    @web.middleware
    async def holds(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        thing = Held()
        held.append(weakref.ref(thing))
        request[HELD] = thing
        return await handler(request)

    client = await aiohttp_client(application(holds, OUTER, INNER))
    # What aiohttp catches where a loop has no sendfile, as uvloop, holds it.
    loop = asyncio.get_running_loop()
    file = ["/file"] if isinstance(loop, asyncio.BaseEventLoop) else []
    gc.disable()
    try:
        # aiohttp holds a request until its connection has the next one.
        for path in ("/returned", "/streamed", "/events", *file, "/returned"):
            await client.get(path)
        assert [thing() for thing in held[:-1]] == [None] * (len(held) - 1)
    finally:
        gc.enable()


async def test_chunked_answer_in_place_of_a_sized_one_arrives_whole(
    aiohttp_server: AiohttpServer,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await web.Response(body=b"12345").prepare(request)
        start_over(request.writer)
        response = web.StreamResponse(status=500)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"0123456789ABCDEF")
        return response

    app = web.Application()
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    answer = head(await raw(server, GET % (b"/", LAST)))
    assert answer.rest == b"10\r\n0123456789ABCDEF\r\n0\r\n\r\n"


async def test_status_of_one_digit_goes_out_as_it_is(
    aiohttp_client: AiohttpClient,
) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=7)

    app = web.Application(middlewares=[OUTER, INNER])
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    sent = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert (await raw(client.server, sent)).startswith(b"HTTP/1.1 7 ")
