"""Compressed answers, as pages read them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from aiohttp_middlewares import (
    compression_middleware,
    cors_middleware,
    error_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from browser.conftest import Open, Page, Serve

ENCODINGS = ["gzip", "br", "zstd"]
PIECE = "0123456789" * 50


class Site:
    """It writes on when the page says that it has read what was written."""

    def __init__(self, *outside: Middleware, **options: Any) -> None:
        self.read = asyncio.Semaphore(0)
        self.statuses: list[int] = []
        self.app = web.Application(
            middlewares=[*outside, compression_middleware(**options)]
        )
        self.add("/", self.show)
        self.add("/read", self.note)

    def add(self, path: str, handler: Handler) -> None:
        self.app.router.add_get(path, handler)

    @staticmethod
    async def show(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<p>page</p>", content_type="text/html")

    async def note(self, request: web.Request) -> web.StreamResponse:
        self.read.release()
        return web.Response()

    def writes(self, content_type: str, *pieces: bytes) -> Handler:
        async def write(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(
                headers={"Content-Type": content_type}
            )
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece)
                await asyncio.wait_for(self.read.acquire(), 5)
            return response

        return write


Visit = Callable[[Site], Awaitable[URL]]


@pytest.fixture
def visit(page: Page, serve: Serve) -> Visit:
    """Browsers ask for brotli and zstd by HTTPS only."""

    async def visit(site: Site) -> URL:
        url = await serve(site.app, "app.example", tls=True)
        await page.visit(url)
        return url

    return visit


READ_PIECES = """
const response = await fetch(url);
const reader = response.body.getReader();
const decoder = new TextDecoder();
const pieces = [];
for (;;) {
  const {done, value} = await reader.read();
  if (done) return [response.headers.get("Content-Encoding"), pieces];
  pieces.push(decoder.decode(value));
  await fetch(next);
}
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_page_reads_a_compressed_stream_piece_by_piece(
    encoding: str, page: Page, visit: Visit
) -> None:
    site = Site(encodings=[encoding])
    pieces = ["first", PIECE, "last"]
    site.add(
        "/stream",
        site.writes("application/x-ndjson", *[p.encode() for p in pieces]),
    )
    url = await visit(site)
    found = await page.run(READ_PIECES, url=url / "stream", next=url / "read")
    assert found == [encoding, pieces]


@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        ({}, None),
        *(
            (
                {"content_types": ["text/event-stream"], "encodings": [each]},
                each,
            )
            for each in ENCODINGS
        ),
    ],
    ids=str,
)
async def test_events_are_compressed_only_if_asked_for_and_heard_at_once(
    options: dict[str, Any], encoding: str | None, page: Page, visit: Visit
) -> None:
    site = Site(**options)
    events = [b"data: %d\n\n" % number for number in range(3)]
    site.add("/events", site.writes("text/event-stream", *events))
    url = await visit(site)
    heard = await page.run(
        """
        return await new Promise(resolve => {
          const source = new EventSource(url);
          const heard = [];
          source.onmessage = event => {
            heard.push(event.data);
            fetch(next);
          };
          source.onerror = () => {
            source.close();
            resolve(heard);
          };
        });
        """,
        url=url / "events",
        next=url / "read",
    )
    assert heard == ["0", "1", "2"]
    found = await page.run(READ_PIECES, url=url / "events", next=url / "read")
    assert found == [encoding, [event.decode() for event in events]]


@pytest.mark.parametrize("outside", [True, False])
async def test_page_of_another_origin_reads_compressed_json(
    outside: bool, open_page: Open, page: Page, serve: Serve
) -> None:
    cors = cors_middleware(
        origins=[await open_page(tls=True)],
        expose_headers=["Content-Encoding", "Vary"],
    )
    site = Site(cors) if outside else Site()
    if not outside:
        site.app.middlewares.append(cors)
    answer = [{"id": number} for number in range(1000)]

    async def notes(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer)

    site.add("/notes", notes)
    url = await serve(site.app, tls=True) / "notes"
    found = await page.run(
        """
        const response = await fetch(url);
        return [await response.json(), Object.fromEntries(response.headers)];
        """,
        url=url,
    )
    assert found[0] == answer
    headers = found[1]
    assert headers["content-encoding"] == "zstd"
    assert int(headers["content-length"]) < 5000
    vary = {name.strip() for name in headers["vary"].split(",")}
    assert vary == {"Accept-Encoding", "Origin"}


@pytest.mark.parametrize(("tls", "encoding"), [(True, "zstd"), (False, "gzip")])
async def test_page_gets_the_best_that_the_browser_asks_for(
    tls: bool, encoding: str, page: Page, serve: Serve
) -> None:
    site = Site()

    async def text(request: web.Request) -> web.StreamResponse:
        return web.Response(text=PIECE * 400)  # compressed in a thread

    site.add("/text", text)
    url = await serve(site.app, "app.example", tls=tls)
    await page.visit(url)
    answer = await page.fetch(url / "text")
    assert answer.headers["content-encoding"] == encoding
    assert answer.text == PIECE * 400


async def test_browser_keeps_a_compressed_file_and_asks_for_parts_of_it(
    tmp_path: Path, page: Page, serve: Serve
) -> None:
    path = tmp_path / "film.txt"
    path.write_text(PIECE * 600, encoding="ascii")
    statuses = []

    @web.middleware
    async def note(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        if request.path == "/film":
            # What a file is answered is known when it is sent.
            await response.prepare(request)
            statuses.append(response.status)
        return response

    async def film(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    site = Site(note)
    site.add("/film", film)
    # By HTTP: a browser keeps nothing that came with a bad certificate.
    url = await serve(site.app, "app.example")
    await page.visit(url)
    for _ in range(2):
        answer = await page.fetch(url / "film", cache="no-cache")
        assert (answer.status, answer.text) == (200, PIECE * 600)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["etag"].startswith('W/"')
    assert statuses == [200, 304]

    answer = await page.fetch(
        url / "film", cache="no-store", headers={"Range": "bytes=5-14"}
    )
    assert (answer.status, answer.text) == (206, "5678901234")
    assert "content-encoding" not in answer.headers


async def test_error_page_is_compressed_and_read(
    page: Page, visit: Visit
) -> None:
    async def fails(request: web.Request) -> web.StreamResponse:
        raise web.HTTPConflict(text=PIECE)

    site = Site(error_middleware())
    site.add("/fails", fails)
    url = await visit(site)
    answer = await page.fetch(url / "fails")
    assert answer.status == 409
    assert PIECE in answer.text
    assert answer.headers["content-encoding"] == "zstd"
