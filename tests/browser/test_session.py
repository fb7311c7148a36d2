"""The cookie of a session, as a browser keeps and sends it."""

import asyncio
import time
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from selenium import webdriver
from yarl import URL

from aiohttp_middlewares import (
    cors_middleware,
    error_middleware,
    session_middleware,
)
from aiohttp_middlewares.annotations import Middleware
from browser.conftest import Open, Page, Serve

KEY = "a key of the tests"
NOBODY = "nobody"
LOGIN = '<form method="post" action="/login"><button>log in</button></form>'
LOGOUT = '<form method="post" action="/logout"><button>log out</button></form>'


async def home(request: web.Request) -> web.StreamResponse:
    user = (await aiohttp_session.get_session(request)).get("user", NOBODY)
    form = LOGIN if user == NOBODY else LOGOUT
    return web.Response(text=f"<p>{user}</p>{form}", content_type="text/html")


async def who(request: web.Request) -> web.StreamResponse:
    session = await aiohttp_session.get_session(request)
    return web.Response(text=session.get("user", NOBODY))


async def login(request: web.Request) -> web.StreamResponse:
    session = await aiohttp_session.new_session(request)
    session["user"] = "ann"
    raise web.HTTPSeeOther("/")


async def logout(request: web.Request) -> web.StreamResponse:
    (await aiohttp_session.get_session(request)).invalidate()
    raise web.HTTPSeeOther("/")


async def stream(request: web.Request) -> web.StreamResponse:
    (await aiohttp_session.get_session(request))["user"] = "streamer"
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    return response


async def talk(request: web.Request) -> web.StreamResponse:
    (await aiohttp_session.get_session(request))["user"] = "talker"
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.close(code=4001)
    return socket


def site(*outside: Middleware, **options: Any) -> web.Application:
    app = web.Application(
        middlewares=[
            *outside,
            error_middleware(),
            session_middleware(KEY, **options),
        ]
    )
    for handler in (who, stream, talk):
        app.router.add_get(f"/{handler.__name__}", handler)
    for handler in (login, logout):
        app.router.add_post(f"/{handler.__name__}", handler)
    app.router.add_get("/", home)
    return app


async def kept(chromium: webdriver.Chrome) -> list[dict[str, Any]]:
    """The cookies that the browser would send to the page it shows."""
    cookies: list[dict[str, Any]] = await asyncio.to_thread(
        chromium.get_cookies
    )
    return cookies


async def log_in(url: URL, page: Page) -> None:
    """As visitors do: by a form, which ends in a redirect to a page."""
    await page.visit(url)
    assert (await page.text()).split() == [NOBODY, "log", "in"]
    await page.click("button")
    assert (await page.text()).split() == ["ann", "log", "out"]


@pytest.mark.parametrize(
    ("options", "tls", "attributes"),
    [
        ({}, False, {}),
        (
            {"same_site": "strict", "max_age": None},
            False,
            {"sameSite": "Strict", "expiry": None},
        ),
        (
            {"same_site": "none"},
            True,
            {"secure": True, "sameSite": "None"},
        ),
        (
            {"cookie_name": "__Host-session"},
            True,
            {"secure": True, "name": "__Host-session"},
        ),
        (
            {"domain": "site.example"},
            True,
            {"secure": True, "domain": ".site.example"},
        ),
    ],
    ids=str,
)
async def test_login_by_a_raised_redirect_is_kept_until_the_logout(
    options: dict[str, Any],
    tls: bool,
    attributes: dict[str, Any],
    chromium: webdriver.Chrome,
    page: Page,
    serve: Serve,
) -> None:
    await log_in(await serve(site(**options), "site.example", tls=tls), page)
    [cookie] = await kept(chromium)
    expiry = cookie.pop("expiry", None)
    assert cookie.pop("value").count(".") == 2
    assert cookie == {
        "domain": "site.example",
        "httpOnly": True,
        "name": "session",
        "path": "/",
        "sameSite": "Lax",
        "secure": False,
        **{k: v for k, v in attributes.items() if k != "expiry"},
    }
    if "expiry" in attributes:
        assert expiry is None
    else:
        age = expiry - time.time()
        assert 14 * 86400 - 600 < age <= 14 * 86400 + 1
    assert await page.run("return document.cookie") == ""

    await page.click("button")
    assert (await page.text()).split() == [NOBODY, "log", "in"]
    assert await kept(chromium) == []


async def test_cookie_goes_to_the_path_it_is_for(
    chromium: webdriver.Chrome, page: Page, serve: Serve
) -> None:
    app = web.Application()
    for name in ("shop", "blog"):
        app.add_subapp(f"/{name}", site(path=f"/{name}"))
    url = await serve(app, "site.example")
    await page.visit(url / "shop/who")
    await page.fetch(url / "shop/stream")
    assert (await page.fetch(url / "shop/who")).text == "streamer"
    assert (await page.fetch(url / "blog/who")).text == NOBODY
    assert [cookie["path"] for cookie in await kept(chromium)] == ["/shop"]


async def test_change_in_a_stream_or_a_websocket_is_kept(
    page: Page, serve: Serve
) -> None:
    url = await serve(site(), "site.example")
    await page.visit(url)
    assert (await page.fetch(url / "stream")).text == "begun"
    assert (await page.fetch(url / "who")).text == "streamer"
    code = await page.run(
        """
        return await new Promise(resolve => {
          const socket = new WebSocket(url);
          socket.onclose = event => resolve(event.code);
        });
        """,
        url=(url / "talk").with_scheme("ws"),
    )
    assert code == 4001
    assert (await page.fetch(url / "who")).text == "talker"


@pytest.mark.parametrize(
    ("same_site", "by_fetch", "by_link"),
    [
        ("lax", NOBODY, "ann"),
        ("strict", NOBODY, NOBODY),
        ("none", "ann", "ann"),
    ],
)
async def test_requests_of_another_site_bear_the_cookie_as_same_site_has_it(
    same_site: str,
    by_fetch: str,
    by_link: str,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    cors = cors_middleware(
        origins=["https://other.example:*"], allow_credentials=True
    )
    app = site(cors, same_site=same_site)
    url = await serve(app, "site.example", tls=True)
    await log_in(url, page)
    await open_page("other.example", tls=True)
    answer = await page.fetch(url / "who", credentials="include")
    assert answer.text == by_fetch
    answer = await page.fetch(url / "who")
    assert answer.text == NOBODY

    await page.run(
        "document.body.innerHTML = html", html=f'<a href="{url}">site</a>'
    )
    await page.click("a")
    assert (await page.text()).split()[0] == by_link
