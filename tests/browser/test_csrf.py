"""What the pages of other sites can do in a visitor's name."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from aiohttp_middlewares import (
    cors_middleware,
    csrf_middleware,
    security_headers_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from browser.conftest import UNREADABLE, Open, Page, Serve

FORM = '<form method="post" action="{url}"><button>7</button></form>'


class Bank:
    """It knows its visitors by a cookie, and notes what they have done.

    And how it has answered to what would change something.
    """

    def __init__(self, *middlewares: Middleware) -> None:
        self.done: list[str] = []
        self.statuses: asyncio.Queue[int] = asyncio.Queue()
        self.app = web.Application(middlewares=[self.note, *middlewares])
        self.app.router.add_get("/", self.show)
        self.app.router.add_post("/pay", self.pay)
        self.app.router.add_get("/chat", self.chat)

    @staticmethod
    async def show(request: web.Request) -> web.StreamResponse:
        response = web.Response(
            text=FORM.format(url="/pay"), content_type="text/html"
        )
        # By HTTPS it goes with whatever any page sends. By HTTP that cannot
        # be had; there it goes with the forms of any page, while it is new.
        if request.secure:
            response.set_cookie("user", "ann", secure=True, samesite="None")
        else:
            response.set_cookie("user", "ann")
        return response

    async def pay(self, request: web.Request) -> web.StreamResponse:
        self.done.append(f"{request.cookies.get('user')} paid")
        return web.Response(text="Thank you")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.done.append(f"{request.cookies.get('user')} joined")
        await socket.close(code=4001)
        return socket

    @property
    def note(self) -> Middleware:
        @web.middleware
        async def note(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            if request.path not in ("/pay", "/chat"):
                return await handler(request)
            try:
                response = await handler(request)
            except web.HTTPException as exc:
                self.statuses.put_nowait(exc.status)
                raise
            self.statuses.put_nowait(response.status)
            return response

        return note

    async def status(self) -> int:
        """That of the only answer since this was asked last."""
        status = await asyncio.wait_for(self.statuses.get(), 5)
        assert self.statuses.empty()
        return status


async def visit(bank: Bank, page: Page, serve: Serve, *, tls: bool) -> URL:
    """Have its page open in the browser, and the cookie."""
    url = await serve(bank.app, "bank.example", tls=tls)
    await page.visit(url)
    return url


async def add_form(page: Page, url: URL) -> None:
    await page.run("document.body.innerHTML = html", html=FORM.format(url=url))


# Browsers send Sec-Fetch-Site by HTTPS; by HTTP there is Origin alone.
by_both = pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])

# Without the middleware the attack succeeds, or the test would show nothing.
guarded_or_not = pytest.mark.parametrize(
    ("tls", "middlewares", "refused"),
    [
        (True, [csrf_middleware()], True),
        (False, [csrf_middleware()], True),
        (True, [], False),
    ],
    ids=["https", "http", "not guarded"],
)


# Pages of other sites
# ====================


@guarded_or_not
async def test_form_of_another_site_is_refused(
    tls: bool,
    middlewares: list[Middleware],
    refused: bool,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    bank = Bank(*middlewares)
    url = await visit(bank, page, serve, tls=tls)
    await open_page("evil.example", tls=tls)
    await add_form(page, url / "pay")
    await page.click("button")
    if refused:
        assert await page.text() == "Cross-origin request refused"
        assert (await bank.status(), bank.done) == (403, [])
    else:
        assert (await bank.status(), bank.done) == (200, ["ann paid"])


@guarded_or_not
async def test_fetch_of_another_site_is_refused(
    tls: bool,
    middlewares: list[Middleware],
    refused: bool,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    bank = Bank(*middlewares)
    url = await visit(bank, page, serve, tls=tls)
    await open_page("evil.example", tls=tls)
    options = {"method": "POST", "credentials": "include"}
    assert await page.fetch(url / "pay", **options) == UNREADABLE
    if refused:
        assert (await bank.status(), bank.done) == (403, [])
    else:
        assert (await bank.status(), bank.done) == (200, ["ann paid"])


TALK = """
return await new Promise(resolve => {
  const socket = new WebSocket(url);
  socket.onclose = event => resolve(event.code);
});
"""


@guarded_or_not
async def test_websocket_of_another_site_is_refused(
    tls: bool,
    middlewares: list[Middleware],
    refused: bool,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    bank = Bank(*middlewares)
    url = await visit(bank, page, serve, tls=tls)
    chat = (url / "chat").with_scheme("wss" if tls else "ws")
    assert await page.run(TALK, url=chat) == 4001
    assert (await bank.status(), bank.done) == (101, ["ann joined"])
    bank.done.clear()

    await open_page("evil.example", tls=tls)
    code = await page.run(TALK, url=chat)
    if refused:
        assert (code, await bank.status(), bank.done) == (1006, 403, [])
    else:
        assert code == 4001
        assert (await bank.status(), bank.done) == (101, ["ann joined"])


@by_both
async def test_sandboxed_frame_is_refused(
    tls: bool, page: Page, serve: Serve
) -> None:
    bank = Bank(csrf_middleware())
    url = await visit(bank, page, serve, tls=tls)
    await page.run(
        """
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-forms allow-scripts";
        frame.srcdoc = form + "<script>document.forms[0].submit()</script>";
        document.body.append(frame);
        """,
        form=FORM.format(url=url / "pay"),
    )
    assert (await bank.status(), bank.done) == (403, [])


async def test_page_that_may_read_may_not_write_unless_trusted(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page(tls=True)
    cors = cors_middleware(origins=[origin], allow_credentials=True)
    options: dict[str, Any] = {
        "method": "POST",
        "credentials": "include",
        "headers": {"X-Requested-With": "fetch"},  # takes a preflight
    }
    for trusted, status in (([], 403), ([origin], 200)):
        bank = Bank(cors, csrf_middleware(trusted_origins=trusted))
        url = await serve(bank.app, tls=True)
        answer = await page.fetch(url / "pay", **options)
        assert answer.status == status
        assert len(bank.done) == (status == 200)


# Pages that may
# ==============


@by_both
async def test_page_of_the_same_origin_may_write(
    tls: bool, page: Page, serve: Serve
) -> None:
    bank = Bank(csrf_middleware())
    url = await visit(bank, page, serve, tls=tls)
    answer = await page.fetch(url / "pay", method="POST")
    assert (answer.status, answer.text) == (200, "Thank you")
    assert (await bank.status(), bank.done) == (200, ["ann paid"])
    await page.click("button")
    assert await page.text() == "Thank you"
    assert (await bank.status(), bank.done) == (200, ["ann paid"] * 2)


@by_both
async def test_page_of_a_trusted_origin_may_write(
    tls: bool, open_page: Open, page: Page, serve: Serve
) -> None:
    scheme = "https" if tls else "http"
    bank = Bank(csrf_middleware(trusted_origins=[f"{scheme}://shop.example:*"]))
    url = await visit(bank, page, serve, tls=tls)
    await open_page("shop.example", tls=tls)
    await add_form(page, url / "pay")
    await page.click("button")
    assert await page.text() == "Thank you"
    assert (await bank.status(), bank.done) == (200, ["ann paid"])

    await open_page("shop.example", tls=tls)
    chat = (url / "chat").with_scheme("wss" if tls else "ws")
    assert await page.run(TALK, url=chat) == 4001
    assert await bank.status() == 101


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        (True, "shop.bank.example", 200),
        (False, "shop.bank.example", 403),
        (True, "shop-bank.example", 403),
    ],
)
async def test_page_of_the_same_site_may_write_if_allowed(
    allowed: bool,
    host: str,
    status: int,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    bank = Bank(csrf_middleware(allow_same_site=allowed))
    url = await visit(bank, page, serve, tls=True)
    await open_page(host, tls=True)
    await add_form(page, url / "pay")
    await page.click("button")
    assert await bank.status() == status
    assert len(bank.done) == (status == 200)


async def test_link_from_another_site_leads_here(
    open_page: Open, page: Page, serve: Serve
) -> None:
    bank = Bank(csrf_middleware())
    url = await visit(bank, page, serve, tls=True)
    await open_page("evil.example", tls=True)
    await page.run(
        "document.body.innerHTML = html", html=f'<a href="{url}">bank</a>'
    )
    await page.click("a")
    assert await page.text() == "7"


# A page that tells nobody where it stands sends its own forms with
# "Origin: null"; by HTTP there is nothing else to tell them by.
@pytest.mark.parametrize(
    ("tls", "policy", "status"),
    [
        (True, "no-referrer", 200),
        (False, "no-referrer", 403),
        (False, "same-origin", 200),
    ],
)
async def test_own_form_under_a_referrer_policy(
    tls: bool, policy: str, status: int, page: Page, serve: Serve
) -> None:
    bank = Bank(
        security_headers_middleware(
            content_security_policy=None,
            referrer_policy=policy,
            strict_transport_security=None,
        ),
        csrf_middleware(),
    )
    await visit(bank, page, serve, tls=tls)
    await page.click("button")
    assert await bank.status() == status
