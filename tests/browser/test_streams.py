"""Streams, files, WebSockets and pages that leave, behind all five."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    error_middleware,
    https_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler
from browser.conftest import Open, Page, Serve

LIMIT = 0.05


def api(origin: str, limit: float = 10, **handlers: Handler) -> web.Application:
    """All five middlewares, and a handler for each path."""
    app = web.Application(
        middlewares=[
            https_middleware(trusted=[]),
            cors_middleware(
                origins=[origin],
                allow_credentials=True,
                expose_headers=["Content-Range", "ETag"],
            ),
            error_middleware(),
            timeout_middleware(limit),
            shield_middleware(methods=NON_IDEMPOTENT_METHODS),
        ]
    )
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    return app


LISTEN = """
return await new Promise(resolve => {
  const source = new EventSource(url, {withCredentials: true});
  const heard = [];
  const hear = what => {
    heard.push(what);
    if (what === "error" || what === "last") {
      source.close();
      resolve(heard);
    }
  };
  source.onmessage = event => hear(event.data);
  source.onerror = () => hear("error");
});
"""


async def test_events_are_heard_beyond_the_limit_by_listed_pages_only(
    open_page: Open, page: Page, serve: Serve
) -> None:
    left = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream"}
        )
        await response.prepare(request)
        try:
            await response.write(b"data: first\n\n")
            await asyncio.sleep(LIMIT * 1.5)
            await response.write(b"data: last\n\n")
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    url = await serve(api(await open_page(), LIMIT, events=events))
    assert await page.run(LISTEN, url=url / "events") == ["first", "last"]
    await asyncio.wait_for(left.wait(), 5)  # nothing is left of it
    await open_page("evil.example")
    assert await page.run(LISTEN, url=url / "events") == ["error"]


READ_PIECES = """
const response = await fetch(url);
const reader = response.body.getReader();
const decoder = new TextDecoder();
const pieces = [];
try {
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return pieces;
    pieces.push(decoder.decode(value));
    await fetch(next);
  }
} catch (error) {
  pieces.push(error.name);
  return pieces;
}
"""


@pytest.mark.parametrize("failing", [False, True])
async def test_page_reads_a_stream_piece_by_piece(
    failing: bool, open_page: Open, page: Page, serve: Serve
) -> None:
    asked = asyncio.Semaphore(0)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(b"%d" % number)
            # The page has read it before the next is written.
            await asyncio.wait_for(asked.acquire(), 5)
        if failing:
            raise ValueError("too late for a 500")
        return response

    async def proceed(request: web.Request) -> web.StreamResponse:
        asked.release()
        return web.Response()

    app = api(await open_page(), LIMIT, stream=stream, proceed=proceed)
    url = await serve(app)
    pieces = await page.run(
        READ_PIECES, url=url / "stream", next=url / "proceed"
    )
    # One that fails is cut: the page does not take it for complete.
    assert pieces == ["0", "1", "2", *(["TypeError"] if failing else [])]


async def test_page_reads_a_file_and_parts_of_it(
    tmp_path: Path, open_page: Open, page: Page, serve: Serve
) -> None:
    size = 300_000
    path = tmp_path / "film.txt"
    path.write_text("0123456789" * (size // 10), encoding="ascii")

    async def film(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    url = await serve(api(await open_page(), film=film)) / "film"
    answer = await page.fetch(url)
    assert (answer.status, len(answer.text)) == (200, size)

    answer = await page.fetch(url, headers={"Range": "bytes=5-14"})
    assert (answer.status, answer.text) == (206, "5678901234")
    assert answer.headers["content-range"] == f"bytes 5-14/{size}"

    # The browser asks whether its copy is still good, and hears 304.
    answer = await page.fetch(url, cache="no-cache")
    assert (answer.status, len(answer.text)) == (200, size)
    assert "etag" in answer.headers


async def test_page_sends_a_form_with_a_file(
    open_page: Open, page: Page, serve: Serve
) -> None:
    async def upload(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        part = form["file"]
        assert isinstance(part, web.FileField)
        return web.Response(text=f"{part.filename} {len(part.file.read())}")

    url = await serve(api(await open_page(), upload=upload)) / "upload"
    text = await page.run(
        """
        const body = new FormData();
        body.append("file", new File(["x".repeat(500000)], "a.txt"));
        return (await read(url, {method: "POST", body})).text;
        """,
        url=url,
    )
    assert text == "a.txt 500000"


TALK = """
return await new Promise(resolve => {
  const socket = new WebSocket(url);
  const heard = [];
  socket.onopen = () => socket.send("hello");
  socket.onmessage = event => heard.push(event.data);
  socket.onclose = event => resolve([...heard, event.code]);
});
"""


async def test_websocket_talks_on_beyond_the_limit(
    open_page: Open, page: Page, serve: Serve
) -> None:
    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        said = await socket.receive_str(timeout=5)
        await asyncio.sleep(LIMIT * 1.5)
        await socket.send_str(f"{said} {request.headers['Origin']}")
        await socket.close(code=4001)
        return socket

    origin = await open_page()
    url = await serve(api(origin, LIMIT, talk=talk)) / "talk"
    url = url.with_scheme("ws")
    assert await page.run(TALK, url=url) == [f"hello {origin}", 4001]
    # CORS is not about WebSockets: such a handler asks for Origin itself.
    evil = await open_page("evil.example")
    assert await page.run(TALK, url=url) == [f"hello {evil}", 4001]


ABORT = """
const controller = new AbortController();
const answer = fetch(url, {method, signal: controller.signal});
await fetch(begun);
controller.abort();
return await answer.catch(error => error.name);
"""


@pytest.mark.parametrize(
    ("method", "how_it_ends"), [("GET", "cancelled"), ("POST", "written")]
)
async def test_page_that_aborts_stops_what_is_not_shielded(
    method: str,
    how_it_ends: str,
    open_page: Open,
    page: Page,
    serve: Serve,
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

    async def begun(request: web.Request) -> web.StreamResponse:
        await started.wait()
        return web.Response()

    app = web.Application(
        middlewares=[
            cors_middleware(origins=[await open_page()]),
            shield_middleware(methods=NON_IDEMPOTENT_METHODS),
        ]
    )
    app.router.add_route("*", "/write", write)
    app.router.add_route("*", "/begun", begun)
    url = await serve(app)
    names: dict[str, Any] = {"url": url / "write", "begun": url / "begun"}
    assert await page.run(ABORT, method=method, **names) == "AbortError"
    assert await asyncio.wait_for(ends.get(), 5) == how_it_ends
