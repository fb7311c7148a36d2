"""Chromium, and what a page in it can read.

All the names below ``.example`` lead to this machine. A test serves its
applications under such names, opens a page, and looks at the answers of other
servers with the eyes of the page's JavaScript.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from aiohttp import web
from certificates import Certificate, self_signed
from pytest_aiohttp.plugin import AiohttpServer
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.support.wait import WebDriverWait
from yarl import URL

#: The commands that are needed, and Debian's packages for them.
NEEDED = {
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "openssl": "openssl",
}

ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # which root, in a container, cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # Nothing that is not asked for by a test.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    # A rule of Fetch that Chromium does not enforce unless told to: "*" in
    # Access-Control-Allow-Headers does not stand for Authorization.
    "--enable-features=CorsNonWildcardRequestHeadersSupport",
]


class Answer(NamedTuple):
    """What a page could read of an answer."""

    status: int = 0
    headers: dict[str, str] = {}  # noqa: RUF012 (a tuple, not a class variable)
    text: str = ""


#: As XMLHttpRequest has it: a page learns nothing but that it failed.
UNREADABLE = Answer()


class Serve(Protocol):
    def __call__(
        self, app: web.Application, host: str = ..., *, tls: bool = ...
    ) -> Awaitable[URL]: ...


class Open(Protocol):
    def __call__(
        self, host: str = ..., *, tls: bool = ...
    ) -> Awaitable[str]: ...


class Page:
    """The page that is open."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    async def visit(self, url: URL | str) -> None:
        await asyncio.to_thread(self.driver.get, str(url))

    async def run(self, body: str, **names: Any) -> Any:
        """Run the body of an asynchronous function, and have its result.

        The names are those that it may use, besides ``read``.
        """
        script = (
            "const done = arguments[arguments.length - 1];"
            f"const {{ {', '.join(names)} }} = arguments[0];{_READ}"
            f"(async () => {{ {body} }})().then("
            "value => done({value}), error => done({error: String(error)}))"
        )
        result = await asyncio.to_thread(
            self.driver.execute_async_script,
            script,
            {
                name: str(value) if isinstance(value, URL) else value
                for name, value in names.items()
            },
        )
        assert "error" not in result, result["error"]
        return result.get("value")

    async def fetch(self, url: URL, **options: Any) -> Answer:
        """What ``fetch(url, options)`` gives to the page."""
        found = await self.run(
            "return await read(url, options)", url=url, options=options
        )
        return Answer(**found)

    async def click(self, selector: str) -> None:
        """Click, and wait until another page is there."""

        def click() -> None:
            self.driver.execute_script("window.left = true")
            self.driver.find_element("css selector", selector).click()
            # Between two pages there is none to ask.
            WebDriverWait(
                self.driver,
                timeout=20,
                poll_frequency=0.01,
                ignored_exceptions=[WebDriverException],
            ).until(lambda driver: driver.execute_script(_ARRIVED))

        await asyncio.to_thread(click)

    async def text(self) -> str:
        """What the visitor reads."""
        found: str = await self.run("return document.body.innerText")
        return found


_ARRIVED = "return !window.left && document.readyState === 'complete'"

_READ = """
const read = async (url, options) => {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error instanceof TypeError) return {};
    throw error;
  }
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text: await response.text(),
  };
};
"""


def json_body(value: object) -> dict[str, Any]:
    """The options of a fetch that sends JSON, which takes a preflight."""
    return {
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(value),
    }


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests, with a profile of its own."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        packages = " ".join(NEEDED[name] for name in missing)
        pytest.skip(
            f"no {' and no '.join(missing)} on PATH: apt-get install {packages}"
        )
    options = webdriver.ChromeOptions()
    # Cookies of other sites are for the servers to allow here.
    options.add_experimental_option(
        "prefs", {"profile.cookie_controls_mode": 0}
    )
    options.binary_location = shutil.which("chromium") or ""
    profile: Path = tmp_path_factory.mktemp("profile")
    for argument in [*ARGUMENTS, f"--user-data-dir={profile}"]:
        options.add_argument(argument)
    service = webdriver.ChromeService(
        executable_path=shutil.which("chromedriver"),
        log_output=subprocess.DEVNULL,
    )
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(20)
    driver.set_page_load_timeout(20)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def certificate(
    chromium: object, tmp_path_factory: pytest.TempPathFactory
) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:*.example")


@pytest.fixture
async def serve(
    certificate: Certificate, aiohttp_server: AiohttpServer
) -> AsyncIterator[Serve]:
    """Serve an application under a name, at a port of its own."""
    servers: list[web.Server] = []

    async def serve(
        app: web.Application, host: str = "api.example", *, tls: bool = False
    ) -> URL:
        server = await aiohttp_server(
            app,
            ssl=certificate.server_context() if tls else None,
            shutdown_timeout=1,  # for what a failed test left open
        )
        assert server.runner is not None
        assert server.runner.server is not None
        servers.append(server.runner.server)
        scheme = "https" if tls else "http"
        return URL.build(scheme=scheme, host=host, port=server.port)

    yield serve
    # A browser takes its time to say goodbye by TLS: do not wait for it.
    for server in servers:
        for connection in server.connections:
            if connection.transport is not None:
                connection.transport.abort()


@pytest.fixture
async def page(chromium: webdriver.Chrome, serve: Serve) -> AsyncIterator[Page]:
    """The browser, without the cookies and answers of the last test."""
    page = Page(chromium)
    yield page
    # While the servers still run: this closes the connections to them.
    await page.visit("about:blank")
    for command in ("clearBrowserCookies", "clearBrowserCache"):
        await asyncio.to_thread(
            chromium.execute_cdp_cmd, f"Network.{command}", {}
        )


@pytest.fixture
def open_page(page: Page, serve: Serve) -> Open:
    """Open an empty page on a host, and have its origin."""

    async def empty(request: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>page</title>", content_type="text/html"
        )

    async def open_page(host: str = "app.example", *, tls: bool = False) -> str:
        app = web.Application()
        app.router.add_get("/{path:.*}", empty)
        url = await serve(app, host, tls=tls)
        await page.visit(url)
        return str(url.origin())

    return open_page
