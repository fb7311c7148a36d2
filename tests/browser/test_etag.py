"""Answers that a browser has already, and asks for again."""

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    before_sending,
    compression_middleware,
    cors_middleware,
    csp_nonce,
    etag_middleware,
    security_headers_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from browser.conftest import Open, Page, Serve

ASK_FIRST = {"Cache-Control": "no-cache"}


class Statuses(list[int]):
    """Of what left."""

    def middleware(self) -> Middleware:
        @web.middleware
        async def notes(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            if request.path == "/":
                before_sending(request, lambda status, _: self.append(status))
            return await handler(request)

        return notes


@pytest.mark.parametrize("text", ["short", "long " * 1000], ids=len)
async def test_page_of_another_origin_reads_what_the_browser_has(
    page: Page, serve: Serve, open_page: Open, text: str
) -> None:
    async def show(request: web.Request) -> web.Response:
        return web.Response(text=text, headers=ASK_FIRST)

    origin = await open_page()
    statuses = Statuses()
    app = web.Application(
        middlewares=[
            statuses.middleware(),
            cors_middleware(origins=[origin], expose_headers=["ETag"]),
            compression_middleware(),
            etag_middleware(),
        ]
    )
    app.router.add_get("/", show)
    url = await serve(app)
    answers = [await page.fetch(url) for _ in range(3)]
    assert [(answer.status, answer.text) for answer in answers] == [
        (200, text)
    ] * 3
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert statuses == [200, 304, 304]


async def test_script_of_a_stored_page_runs_by_the_nonce_it_has(
    page: Page, serve: Serve
) -> None:
    async def show(request: web.Request) -> web.Response:
        return web.Response(
            text=f"<p>plain</p><script nonce={csp_nonce(request)}>"
            "document.querySelector('p').textContent = 'run'</script>",
            content_type="text/html",
            headers={**ASK_FIRST, "ETag": '"version 1"'},
        )

    statuses = Statuses()
    app = web.Application(
        middlewares=[
            statuses.middleware(),
            security_headers_middleware(
                content_security_policy={"script-src": ["'nonce-{nonce}'"]}
            ),
            etag_middleware(),
        ]
    )
    app.router.add_get("/", show)
    url = await serve(app, "app.example")
    for _ in range(3):
        await page.visit(url)
        assert await page.text() == "run"
    assert statuses == [200, 304, 304]
