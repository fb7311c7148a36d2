"""Each sentence on the page for those in trouble is one that they meet."""

import asyncio
import importlib
import io
import re
import runpy
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session
from live import live, soon

from aiohttp_middlewares import (
    basic_auth_middleware,
    body_limit_middleware,
    cors_middleware,
    csrf_middleware,
    error_middleware,
    etag_middleware,
    https_redirect_middleware,
    metrics_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    request_id_middleware,
    security_headers_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.client import (
    basic_auth_middleware as client_basic_auth,
)
from aiohttp_middlewares.client import (
    request_log_middleware,
    retry_middleware,
)
from aiohttp_middlewares.rate_limit import rate_limit

PAGE = (Path(__file__).parents[1] / "docs/troubleshooting.rst").read_text(
    encoding="utf-8"
)
TEXT = " ".join(PAGE.split())

#: These are said by browsers; what they are about, tests/browser shows.
BROWSERS = re.compile("Access-Control|preflight|redirected you too many times")

#: These are said by nobody: what somebody sees who looks.
SEEN = {
    "401 for an OPTIONS request",
    "500 Internal Server Error as plain text",
    "A header is there, but the page cannot read it",
    "A write is cut off at shutdown, although it is shielded",
    "The session is lost",
    "request.remote is the address of the proxy",
}

MET: dict[str, Callable[[Any, Any], Awaitable[object]]] = {}

Met = Callable[
    [pytest.LogCaptureFixture, pytest.MonkeyPatch], Awaitable[object]
]


def met(*sentences: str) -> Callable[[Met], Met]:
    """Whatever the function returns or logs has these sentences in it."""

    def keep(function: Met) -> Met:
        for sentence in sentences:
            MET[sentence] = function
        return function

    return keep


async def read(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


async def ask(
    *middlewares: Any,
    handler: Handler = read,
    method: str = "POST",
    data: Any = None,
    headers: dict[str, str] | None = None,
) -> str:
    """What a request is answered."""
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", handler)
    async with TestClient(TestServer(app)) as client:
        got = await client.request(
            method, "/", data=data, headers=headers, allow_redirects=False
        )
        return f"{got.status} {got.reason} with {await got.text()}"


async def refused(build: Callable[[], object]) -> str:
    with pytest.raises((ImportError, TypeError)) as caught:
        build()
    return f"{caught.typename}: {caught.value}"


@met(
    "ModuleNotFoundError: No module named 'aiohttp_middlewares.csrf'",
    "'aiohttp_middlewares' is a package and cannot be directly executed",
)
async def import_from_3_0_0(log: Any, patch: pytest.MonkeyPatch) -> object:
    patch.delitem(sys.modules, "aiohttp_middlewares.csrf")
    patch.delitem(sys.modules, "aiohttp_middlewares.__main__", raising=False)
    patch.setattr("aiohttp_middlewares.__path__", [])
    one = await refused(
        lambda: importlib.import_module("aiohttp_middlewares.csrf")
    )
    two = await refused(lambda: runpy.run_module("aiohttp_middlewares"))
    return f"{one} {two}"


@met(
    "rate_limit_middleware needs limits; pip install"
    ' "aiohttp-middlewares[rate-limit]"'
)
async def lack_a_package(log: Any, patch: pytest.MonkeyPatch) -> object:
    for name in ["limits", "limits.aio", "limits.aio.strategies"]:
        patch.setitem(sys.modules, name, None)
    return await refused(lambda: rate_limit_middleware("1/minute"))


@met(
    "should be a collection of strings, patterns or URLs, got …; did you"
    " mean […]?"
)
async def give_a_string(log: Any, patch: Any) -> object:
    return await refused(lambda: cors_middleware(origins="https://a.example"))


@met(
    "old-style middleware … deprecated, see #2252",
    "takes 0 positional arguments but 2 were given",
    "TypeError: error_middleware() takes 0 positional arguments but 2 were"
    " given",
)
async def forget_to_call(log: Any, patch: Any) -> object:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = await ask(error_middleware)
    assert answer.startswith("500 ")
    return str(caught[0].message)


@met(
    "should be on a coroutine function, got <Request GET /search >",
    "metrics_handler registry should be a CollectorRegistry, got"
    " <Request GET /metrics >",
)
async def forget_to_call_what_serves(log: Any, patch: Any) -> object:
    async def search(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(middlewares=[rate_limit_middleware("9/minute")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handlers: dict[str, Any] = {
            "/search": rate_limit(search),  # type: ignore[arg-type]
            "/metrics": metrics_handler,
        }
        for path, handler in handlers.items():
            app.router.add_get(path, handler)
    async with TestClient(TestServer(app)) as client:
        for path in handlers:
            assert (await client.get(path)).status == 500
    return "The log says it"


@met("'module' object is not callable")
async def call_the_module(log: Any, patch: Any) -> object:
    module: Any = importlib.import_module("aiohttp_middlewares.rate_limit")
    return await refused(lambda: module("5/minute"))


@met("but 1 was given")
async def name_no_option(log: Any, patch: Any) -> object:
    factory: Any = error_middleware
    return await refused(lambda: factory(None))


@met("'list' object is not callable")
async def list_a_list(log: Any, patch: Any) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return await ask([error_middleware()])


@met("504 with Request timed out")
async def take_too_long(log: Any, patch: Any) -> object:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(10)
        return web.Response()

    error, limit = error_middleware(), timeout_middleware(0.01)
    for wrong in [(limit, error), (limit,)]:
        assert (await ask(*wrong, handler=slow)).endswith(" with ")  # empty
    return await ask(error, limit, handler=slow)


@met(
    "413 Request Entity Too Large",
    "Maximum request body size … exceeded",
    "The body is larger than … bytes",
)
async def send_too_much(log: Any, patch: Any) -> object:
    ours = await ask(body_limit_middleware(5), data=b"x" * 9)
    aiohttps = await ask(data=io.BytesIO(b"x" * (1024**2 + 1)))
    assert [ours[:3], aiohttps[:3]] == ["413", "413"]
    phrase = HTTPStatus(413).phrase  # Python 3.13 has that of RFC 9110
    assert f"413 {phrase}" in TEXT
    said = f"{ours} {aiohttps}"
    return said.replace(phrase, "Request Entity Too Large")


@met("403 with Cross-origin request refused")
async def come_from_elsewhere(log: Any, patch: Any) -> object:
    proxied = {"Sec-Fetch-Site": "cross-site", "Origin": "https://a.example"}
    return await ask(csrf_middleware(), headers=proxied)


@met("400 with Invalid host header")
async def name_another_host(log: Any, patch: Any) -> object:
    return await ask(trusted_host_middleware(["example.com"]))


@met(
    "TooManyRedirects",
    "A request that says to have come by HTTPS was redirected to HTTPS.",
)
async def run_in_circles(log: Any, patch: Any) -> object:
    # As a proxy asks that ends TLS: for HTTPS, by HTTP.
    proxied = {"Host": "example.com", "X-Forwarded-Proto": "https"}
    redirect = https_redirect_middleware()
    assert (await ask(redirect, headers=proxied)).startswith("307 ")
    trusted = proxy_headers_middleware(trusted=["127.0.0.1"])
    assert (await ask(trusted, redirect, headers=proxied)).startswith("200 ")
    return aiohttp.TooManyRedirects.__name__


@met("Install aiohttp_session middleware in your aiohttp.web.Application")
async def ask_for_no_session(log: Any, patch: Any) -> object:
    async def asks(request: web.Request) -> web.Response:
        return web.json_response(dict(await get_session(request)))

    return await ask(handler=asks)


@met("The session of … was not saved: its cookie has … bytes")
async def keep_too_much(log: Any, patch: Any) -> object:
    async def much(request: web.Request) -> web.Response:
        (await get_session(request))["much"] = "x" * 5000
        return web.Response()

    return await ask(session_middleware("key" * 20), handler=much)


@met("changed its session after the headers had left: that is lost")
async def change_it_too_late(log: Any, patch: Any) -> object:
    async def late(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session["user"] = "ann"
        return response

    return await ask(session_middleware("key" * 20), handler=late)


@met("ResourceWarning: unclosed file", "<_io.BufferedRandom …>")
async def clone_an_upload(log: Any, patch: Any) -> object:
    @middleware
    async def other(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone())

    files = []

    async def keep(request: web.Request) -> web.Response:
        field = (await request.post())["file"]
        assert isinstance(field, web.FileField)
        files.append(field.file)
        return web.Response()

    form = aiohttp.FormData()
    form.add_field("file", b"x", filename="x.txt")
    assert (await ask(other, handler=keep, data=form)).startswith("200 ")
    (file,) = files
    left_open = not file.closed
    file.close()
    assert left_open
    with tempfile.TemporaryFile() as one:
        return f"ResourceWarning: unclosed file {one!r}"


@met("The shielded handler of … was cancelled before it had finished")
async def stop_too_early(log: Any, patch: Any) -> object:
    begun = asyncio.Event()

    async def write(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.sleep(10)
        return web.Response()

    app = web.Application(middlewares=[shield_middleware(methods=["POST"])])
    app.router.add_post("/", write)
    async with live(app, shutdown_timeout=0.01) as server:
        connection = await server.connect()
        connection.send("POST /")
        await soon(begun.wait())
    connection.leave()
    return "The process ends"


@met("A request cannot be changed after its body was read")
async def stand_inside_of_what_reads(log: Any, patch: Any) -> object:
    @middleware
    async def reads(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await request.read()
        return await handler(request)

    trusting = proxy_headers_middleware(trusted=["127.0.0.1"])
    proxied = {"X-Forwarded-For": "192.0.2.1"}
    return await ask(reads, trusting, data=b"x", headers=proxied)


async def fail_a_session(listed: Any) -> str:
    async with (
        TestServer(web.Application()) as server,
        aiohttp.ClientSession(middlewares=[listed]) as session,
    ):
        with pytest.raises((AttributeError, TypeError)) as caught:
            await session.get(server.make_url("/"))
        return str(caught.value)


@met("'ClientRequest' object has no attribute 'writer'")
async def mix_up_the_server_s(log: Any, patch: Any) -> object:
    return await fail_a_session(error_middleware())


@pytest.mark.parametrize(
    ("listed", "lacks"),
    [
        (request_id_middleware(), ["get"]),
        (etag_middleware(), ["raw_headers"]),
        (security_headers_middleware(), ["scheme"]),
        # The first before Python 3.12.
        (shield_middleware(methods=["GET"]), ["task", "transport"]),
    ],
)
async def test_last_word_tells_another_of_the_server_s(
    listed: Any, lacks: list[str]
) -> None:
    said = await fail_a_session(listed)
    sentence = "'ClientRequest' object has no attribute '{}'"
    assert said in map(sentence.format, lacks)
    for word in lacks:
        assert f"``'{word}'``" in TEXT


@met(
    "retry_middleware() takes from 0 to 1 positional arguments but 2 were given"
)
async def forget_to_call_the_client_s(log: Any, patch: Any) -> object:
    return await fail_a_session(retry_middleware)


@met("'Application' object has no attribute 'headers'")
async def mix_up_the_client_s(log: Any, patch: Any) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return await ask(retry_middleware())


@pytest.mark.parametrize(
    ("listed", "lacks"),
    [
        (request_log_middleware(), "method"),
        (client_basic_auth("a", "b", origins=["https://a.example"]), "url"),
    ],
)
async def test_last_word_tells_another_of_the_client_s(
    listed: Any, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (await ask(listed)).startswith("500 ")
    said = f"'Application' object has no attribute '{lacks}'"
    assert said in caplog.text
    assert f"``'{lacks}'``" in TEXT


@pytest.mark.parametrize("sentence", MET)
async def test_sentence_is_met(
    sentence: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sentence in TEXT
    said = f"{await MET[sentence](caplog, monkeypatch)} {caplog.text}"
    words = map(re.escape, re.split(" with |…", sentence))
    assert re.search(".*".join(words), said.replace("\n", " "))


def test_every_heading_is_met_or_known_to_be_said_by_others() -> None:
    headings = re.findall(r"^(.+)\n-{3,}$", PAGE, re.M)
    rest = {text for text in headings if not BROWSERS.search(text)}
    assert rest - set(MET) == SEEN


async def test_login_outside_of_cors_refuses_preflights() -> None:
    cors = cors_middleware(origins=["https://a.example"])
    login = basic_auth_middleware({"ann": "secret"})
    preflight = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "GET",
    }
    answers = [
        await ask(*both, method="OPTIONS", headers=preflight)
        for both in [(login, cors), (cors, login)]
    ]
    assert [answer[:3] for answer in answers] == ["401", "200"]
