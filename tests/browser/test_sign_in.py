"""Visitors sign in at a real provider, with all that a browser does to it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from openid_provider import provider
from selenium import webdriver
from yarl import URL

from aiohttp_middlewares import (
    error_middleware,
    get_user,
    openid_connect,
    security_headers_middleware,
    session_middleware,
    sign_in_middleware,
    sign_in_url,
)
from aiohttp_middlewares.annotations import Middleware
from browser.conftest import Open, Page, Serve

KEY = "a key of the tests, and of nobody else"
LOGOUT = (
    '<form method="post" action="/-/auth/logout"><button>log out</button>'
    "</form>"
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider() as issuer:
        yield issuer


async def show(request: web.Request) -> web.StreamResponse:
    text = f"<p>{get_user(request)} at {request.path_qs}</p>{LOGOUT}"
    return web.Response(text=text, content_type="text/html")


async def public(request: web.Request) -> web.StreamResponse:
    user = get_user(request)
    link = f'<a href="{sign_in_url(request)}">sign in</a>'
    text = f"<p>{user} here</p>{link}"
    return web.Response(text=text, content_type="text/html")


def site(issuer: str, *outside: Middleware, **options: Any) -> web.Application:
    allow = options.pop("allow", None)
    app = web.Application(
        middlewares=[
            *outside,
            error_middleware(),
            session_middleware(KEY),
            sign_in_middleware(
                openid_connect(issuer, "site", "secret", allow=allow),
                **options,
            ),
        ]
    )
    app.router.add_get("/public", public)
    app.router.add_get("/{path:.*}", show)
    return app


async def fill_in(page: Page, name: str) -> None:
    """The form of the provider."""
    assert "Authorize Client" in await page.text()
    await page.run(
        "document.querySelector('[name=sub]').value = name", name=name
    )
    await page.click("button")


async def address(page: Page) -> URL:
    return URL(await page.run("return location.href"))


@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
async def test_visitor_signs_in_and_comes_back_to_where_he_was(
    tls: bool,
    issuer: str,
    chromium: webdriver.Chrome,
    page: Page,
    serve: Serve,
) -> None:
    """By http browsers say nothing of what they are about to do."""
    url = await serve(site(issuer), "site.example", tls=tls)
    here = url / "notes" % {"sort": "new"}
    await page.visit(here)
    assert (await address(page)).origin() == URL(issuer).origin()
    await fill_in(page, "jane")
    assert await address(page) == here
    assert (await page.text()).splitlines()[0] == "jane at /notes?sort=new"
    assert await page.run("return document.cookie") == ""
    [cookie] = await asyncio.to_thread(chromium.get_cookies)
    assert cookie["secure"] is tls
    # And stays signed in.
    await page.visit(url / "other")
    assert (await page.text()).startswith("jane at /other")


async def test_link_signs_in_and_comes_back(
    issuer: str, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer, required=False), "site.example", tls=True)
    await page.visit(url / "public" % {"page": "2"})
    assert (await page.text()).startswith("None here")
    await page.click("a")
    await fill_in(page, "jane")
    assert await address(page) == url / "public" % {"page": "2"}
    assert (await page.text()).startswith("jane here")


async def test_two_tabs_at_once_come_back_each_to_its_place(
    issuer: str, chromium: webdriver.Chrome, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer), "site.example", tls=True)
    await page.visit(url / "one")
    one = chromium.current_window_handle
    await asyncio.to_thread(chromium.switch_to.new_window, "tab")
    try:
        await page.visit(url / "two")
        two = chromium.current_window_handle
        chromium.switch_to.window(one)
        await fill_in(page, "jane")
        assert (await page.text()).startswith("jane at /one")
        chromium.switch_to.window(two)
        await fill_in(page, "jane")
        assert (await page.text()).startswith("jane at /two")
    finally:
        await page.visit("about:blank")
        chromium.close()
        chromium.switch_to.window(one)


async def test_back_button_leads_nobody_astray(
    issuer: str, chromium: webdriver.Chrome, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer), "site.example", tls=True)
    await page.visit(url / "one")
    await fill_in(page, "jane")
    await asyncio.to_thread(chromium.back)
    # The form again, with the state that was used.
    await fill_in(page, "jane")
    assert await address(page) == url / ""
    assert (await page.text()).startswith("jane at /")


async def test_background_request_of_nobody_gets_a_401(
    issuer: str, page: Page, serve: Serve
) -> None:
    app = site(issuer, ignore=["/public"])
    url = await serve(app, "site.example", tls=True)
    await page.visit(url / "public")
    answer = await page.fetch(url / "api", headers={"Accept": "text/html"})
    assert answer.status == 401
    code = await page.run(
        """
        return await new Promise(resolve => {
          const socket = new WebSocket(url);
          socket.onclose = event => resolve(event.code);
        });
        """,
        url=(url / "chat").with_scheme("wss"),
    )
    assert code == 1006


async def test_logout_leaves_the_site_and_the_provider(
    issuer: str, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer), "site.example", tls=True)
    await page.visit(url / "one")
    await fill_in(page, "jane")
    await page.click("button")
    assert "End Session" in await page.text()
    await page.click("button")
    assert await address(page) == url / "-/auth/signed-out"
    assert "You have signed out." in await page.text()
    await page.visit(url / "one")
    assert (await address(page)).origin() == URL(issuer).origin()
    # And in again, by the link of that page.
    await page.visit(url / "-/auth/signed-out")
    await page.click("a")
    await fill_in(page, "joe")
    assert (await page.text()).startswith("joe at /")


@pytest.mark.parametrize("is_named", [True, False])
async def test_logout_goes_as_far_as_the_policy_of_the_site_lets_forms_go(
    is_named: bool, issuer: str, page: Page, serve: Serve
) -> None:
    policy = {"form-action": ["'self'", *([issuer] if is_named else [])]}
    security = security_headers_middleware(
        content_security_policy=policy, strict_transport_security=None
    )
    url = await serve(site(issuer, security), "site.example", tls=True)
    await page.visit(url / "one")
    await fill_in(page, "jane")
    if is_named:
        await page.click("button")
        assert "End Session" in await page.text()
        return
    # The visitor has signed out here, and is kept from going on.
    await page.run("document.querySelector('button').click()")
    for _ in range(500):
        if (answer := await page.fetch(url / "one")).status != 200:
            break
        await asyncio.sleep(0.01)
    assert answer.status == 401
    assert await address(page) == url / "one"


async def test_another_visitor_is_refused(
    issuer: str, page: Page, serve: Serve
) -> None:
    app = site(issuer, allow=lambda claims: claims["sub"] == "jane")
    url = await serve(app, "site.example", tls=True)
    await page.visit(url / "one")
    await fill_in(page, "<i>joe</i>")
    assert "<i>joe</i> is not let in here." in await page.text()
    await page.visit(url / "one")
    assert (await address(page)).origin() == URL(issuer).origin()
    await fill_in(page, "jane")
    assert (await page.text()).startswith("jane at /one")


async def test_visitor_who_denies_can_try_again(
    issuer: str, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer), "site.example", tls=True)
    await page.visit(url / "one")
    await page.click("[value=deny]")
    assert "has not signed you in" in await page.text()
    await page.click("a")
    await fill_in(page, "jane")
    assert (await page.text()).startswith("jane at /")


async def test_page_of_another_site_signs_nobody_out(
    issuer: str, open_page: Open, page: Page, serve: Serve
) -> None:
    url = await serve(site(issuer), "site.example", tls=True)
    await page.visit(url / "one")
    await fill_in(page, "jane")
    await open_page("evil.example", tls=True)
    await page.run(
        "document.body.innerHTML = html",
        html=f'<form method="post" action="{url / "-/auth/logout"}">'
        "<button>a prize</button></form>",
    )
    await page.click("button")
    assert "by a page of this site" in await page.text()
    await page.visit(url / "one")
    assert (await page.text()).startswith("jane at /one")


async def test_link_of_an_attacker_signs_nobody_in(
    issuer: str, open_page: Open, page: Page, serve: Serve
) -> None:
    """As the attacker, whose callback was not followed."""
    url = await serve(site(issuer), "site.example", tls=True)
    await open_page("evil.example", tls=True)
    callback = url / "-/auth/callback" % {"code": "his", "state": "his"}
    await page.run(
        "document.body.innerHTML = html", html=f'<a href="{callback}">look</a>'
    )
    await page.click("a")
    assert "Sign in again" in await page.text()
    await page.click("a")
    await fill_in(page, "jane")
    assert (await page.text()).startswith("jane at /")
