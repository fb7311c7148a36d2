"""Visitors sign in by TLS, which nginx takes off before the application."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar, TCPConnector, web
from certificates import Certificate
from openid_provider import provider
from pytest_aiohttp.plugin import AiohttpServer
from yarl import URL

from aiohttp_middlewares import (
    error_middleware,
    get_user,
    openid_connect,
    proxy_headers_middleware,
    session_middleware,
    sign_in_middleware,
)
from proxy.conftest import Nginx

KEY = "a key of the tests, and of nobody else"
NAVIGATE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider() as issuer:
        yield issuer


async def show(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"{get_user(request)} at {request.url}")


def site(issuer: str, trusted: Any, **session: Any) -> web.Application:
    app = web.Application(
        middlewares=[
            proxy_headers_middleware(trusted=trusted),
            error_middleware(),
            session_middleware(KEY, **session),
            sign_in_middleware(openid_connect(issuer, "site", "secret")),
        ]
    )
    app.router.add_get("/{path:.*}", show)
    return app


class Visitor:
    """A browser as far as it matters here: cookies, by their attributes."""

    def __init__(self, certificate: Certificate) -> None:
        self.session = ClientSession(
            connector=TCPConnector(ssl=certificate.client_context()),
            cookie_jar=CookieJar(unsafe=True),
        )

    async def open(self, url: URL, method: str = "GET") -> ClientResponse:
        async with self.session.request(
            method, url, headers=NAVIGATE, allow_redirects=False
        ) as response:
            await response.read()
            return response

    async def fill_in(self, url: URL) -> URL:
        async with self.session.post(
            url, data={"sub": "jane"}, allow_redirects=False
        ) as response:
            return URL(response.headers["Location"])


@pytest.fixture
async def visitor(certificate: Certificate) -> Any:
    visitor = Visitor(certificate)
    async with visitor.session:
        yield visitor


@pytest.mark.parametrize("cookie_name", ["session", "__Host-session"])
async def test_visitor_comes_back_to_the_address_of_the_proxy(
    cookie_name: str,
    issuer: str,
    nginx: Nginx,
    visitor: Visitor,
    aiohttp_server: AiohttpServer,
) -> None:
    app = site(issuer, ["127.0.0.1"], cookie_name=cookie_name)
    server = await aiohttp_server(app)
    front = await nginx(server.make_url("/"))
    page = front.https / "notes" % {"sort": "new"}

    response = await visitor.open(page)
    assert response.status == 303
    [cookie] = response.headers.getall("Set-Cookie")
    assert cookie.startswith(f"{cookie_name}=")
    # Lax: the way back from the provider is a navigation of another site.
    for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert attribute in cookie.split("; ")
    url = URL(response.headers["Location"])
    assert url.query["redirect_uri"] == str(front.https / "-/auth/callback")

    callback = await visitor.fill_in(url)
    assert callback.origin() == front.https.origin()
    response = await visitor.open(callback)
    assert response.status == 303
    # A path, so that it stays where the visitor is.
    assert response.headers["Location"] == "/notes?sort=new"
    response = await visitor.open(page)
    assert await response.text() == f"jane at {page}"

    response = await visitor.open(front.https / "-/auth/logout", "POST")
    back = URL(response.headers["Location"]).query["post_logout_redirect_uri"]
    assert back == str(front.https / "-/auth/signed-out")
    assert (await visitor.open(URL(back))).status == 200
    assert (await visitor.open(page)).status == 303


async def test_proxy_that_is_not_trusted_leads_back_by_http(
    issuer: str,
    nginx: Nginx,
    visitor: Visitor,
    aiohttp_server: AiohttpServer,
) -> None:
    """Which a provider refuses, where https is registered: see Order."""
    server = await aiohttp_server(site(issuer, ["192.0.2.0/24"]))
    front = await nginx(server.make_url("/"))
    response = await visitor.open(front.https / "notes")
    url = URL(response.headers["Location"])
    assert URL(url.query["redirect_uri"]).scheme == "http"


async def test_strict_cookie_is_not_there_when_visitors_come_back(
    issuer: str,
    nginx: Nginx,
    visitor: Visitor,
    aiohttp_server: AiohttpServer,
) -> None:
    """It ends in a page with a way on, and in no loop."""
    app = site(issuer, ["127.0.0.1"], same_site="strict")
    server = await aiohttp_server(app)
    front = await nginx(server.make_url("/"))
    response = await visitor.open(front.https / "notes")
    callback = await visitor.fill_in(URL(response.headers["Location"]))
    visitor.session.cookie_jar.clear()  # as a browser does for this request
    response = await visitor.open(callback)
    assert response.status == 400
    assert re.findall('href="([^"]*)"', await response.text()) == [
        "/-/auth/sign-in?next=/"
    ]
