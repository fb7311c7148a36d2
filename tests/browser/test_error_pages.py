"""What a visitor sees, and what runs, when a page itself fails."""

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    debug_error_handler,
    error_middleware,
    problem_error_handler,
)
from aiohttp_middlewares.annotations import Handler
from browser.conftest import Page, Serve

ATTACK = '"><script>window.attacked = true</script><img src=x onerror=alert()>'


async def fails(request: web.Request) -> web.StreamResponse:
    raise ValueError(request.query["say"])


async def refuses(request: web.Request) -> web.StreamResponse:
    raise web.HTTPConflict(text=request.query["say"])


@pytest.mark.parametrize(
    ("error_handler", "handler", "title", "shown"),
    [
        (debug_error_handler, fails, "500 ValueError", True),
        (problem_error_handler, fails, "500 Internal Server Error", False),
        (problem_error_handler, refuses, "409 Conflict", True),
    ],
)
async def test_error_page_shows_the_message_and_runs_nothing_of_it(
    error_handler: Handler,
    handler: Handler,
    title: str,
    shown: bool,
    page: Page,
    serve: Serve,
) -> None:
    app = web.Application(
        middlewares=[error_middleware(default_handler=error_handler)]
    )
    app.router.add_get("/", handler)
    url = await serve(app, "app.example")
    await page.visit(url.with_query(say=ATTACK))
    found = await page.run(
        "return [document.title, window.attacked === true, document.images"
        ".length + document.scripts.length]"
    )
    assert found == [title, False, 0]
    assert (ATTACK in await page.text()) is shown
