"""Visitors by plain HTTP are sent to HTTPS."""

import logging
import re
from typing import Any

import answers
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import Head, head, raw
from yarl import URL

from aiohttp_middlewares import (
    https_middleware,
    https_redirect_middleware,
    proxy_headers_middleware,
)
from aiohttp_middlewares._core.grammar.authority import parse_authority


def application(**options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="in")

    app = web.Application(middlewares=[https_redirect_middleware(**options)])
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def ask(
    aiohttp_server: AiohttpServer,
    app: web.Application,
    host: str | None = "example.com",
    target: str = "/",
    method: str = "GET",
) -> Head:
    server = await aiohttp_server(app)
    field = "" if host is None else f"Host: {host}\r\n"
    version = "1.0" if host is None else "1.1"
    sent = (
        f"{method} {target} HTTP/{version}\r\n{field}Connection: close\r\n\r\n"
    )
    return head(await raw(server, sent.encode()))


# What it does
# ============


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_plain_http_is_sent_to_https(
    aiohttp_server: AiohttpServer, status: int
) -> None:
    answer = await ask(aiohttp_server, application(status=status))
    assert answer.status == status
    assert answer.headers.getall("Location") == ["https://example.com/"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
async def test_method_is_kept_by_default(
    aiohttp_server: AiohttpServer, method: str
) -> None:
    answer = await ask(aiohttp_server, application(), method=method)
    assert answer.status == 307


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        ("example.com", "/a/b?c=d", "https://example.com/a/b?c=d"),
        ("example.com:80", "/", "https://example.com/"),
        ("example.com:8080", "/", "https://example.com/"),
        ("example.com:000080", "/", "https://example.com/"),
        ("EXAMPLE.com.", "/", "https://example.com/"),
        ("[::1]:8080", "/", "https://[::1]/"),
        ("api_service", "/", "https://api_service/"),
        (
            "xn--bcher-kva.example",
            "/",
            "https://xn--bcher-kva.example/",
        ),
        # the target is what it was, escapes and all
        ("h", "/%2F%41%20?a=%2B+b&&", "https://h/%2F%41%20?a=%2B+b&&"),
        ("h", "/a|b", "https://h/a|b"),
        ("h", "//evil.example/x", "https://h//evil.example/x"),
        ("h", "/\\evil.example", "https://h/\\evil.example"),
        ("h", "/@evil.example", "https://h/@evil.example"),
        # that of an absolute target counts (RFC 9112 3.2.2)
        ("x", "http://example.com:8080/a?b", "https://example.com/a?b"),
        ("x", "http://example.com", "https://example.com/"),
    ],
)
async def test_location_is_the_same_resource(
    aiohttp_server: AiohttpServer, host: str, target: str, location: str
) -> None:
    answer = await ask(aiohttp_server, application(), host, target)
    assert answer.headers.getall("Location") == [location]


async def test_asterisk_has_no_path(aiohttp_server: AiohttpServer) -> None:
    answer = await ask(
        aiohttp_server, application(), target="*", method="OPTIONS"
    )
    assert answer.headers["Location"] == "https://example.com"


@pytest.mark.parametrize(
    ("https_port", "location"),
    [(443, "https://example.com/"), (8443, "https://example.com:8443/")],
)
async def test_port_of_https_is_set_if_it_is_another(
    aiohttp_server: AiohttpServer, https_port: int, location: str
) -> None:
    app = application(https_port=https_port)
    answer = await ask(aiohttp_server, app, "example.com:8080")
    assert answer.headers["Location"] == location


# What the log says
# =================


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"X-Forwarded-Proto": "https"}, True),
        ({"X-Forwarded-Proto": "http, HTTPS"}, True),
        ({"Forwarded": 'for="x, for=192.0.2.1;proto=https'}, True),
        ({"X-Forwarded-Proto": "https, http"}, False),
        ({"Forwarded": "proto=http"}, False),
        ({}, False),
    ],
)
async def test_redirect_that_may_never_end_is_warned_of_once(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, str],
    warned: bool,
) -> None:
    client = await aiohttp_client(application())
    for _ in range(2):
        response = await client.get("/", headers=fields, allow_redirects=False)
        assert response.status == 307
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned
    for message in said:
        assert "redirected for ever" in message
        assert "proxy_headers_middleware" in message
        assert "a stranger" in message


async def test_redirect_of_one_that_is_not_trusted_is_warned_of_too(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = application()
    app.middlewares.insert(0, proxy_headers_middleware(trusted=["10.0.0.1"]))
    client = await aiohttp_client(app)
    headers = {"X-Forwarded-Proto": "https"}
    response = await client.get("/", headers=headers, allow_redirects=False)
    assert response.status == 307
    assert "let it trust that proxy" in caplog.text


# What it leaves alone
# ====================


@pytest.mark.parametrize(
    "outside",
    [https_middleware(), proxy_headers_middleware(trusted=1)],
    ids=["https", "proxy_headers"],
)
async def test_visitor_by_https_is_answered(
    aiohttp_client: AiohttpClient, outside: Any
) -> None:
    app = application()
    app.middlewares.insert(0, outside)
    client = await aiohttp_client(app)
    for proto, status in (("https", 200), ("http", 307)):
        response = await client.get(
            "/", headers={"X-Forwarded-Proto": proto}, allow_redirects=False
        )
        assert response.status == status


async def test_ignored_url_is_answered_by_plain_http(
    aiohttp_server: AiohttpServer,
) -> None:
    options = {
        "ignore": {
            re.compile(r"^/\.well-known/acme-challenge/"): "GET",
            "/healthz": ["GET", "HEAD"],
        }
    }
    for target, method, status in (
        ("/healthz", "GET", 200),
        ("/.well-known/acme-challenge/x", "GET", 200),
        ("/healthz", "POST", 307),
        ("/healthz/", "GET", 307),
        ("/.well-known/x", "GET", 307),
    ):
        app = application(**options)
        answer = await ask(aiohttp_server, app, "a b", target, method)
        assert answer.status == (status if status == 200 else 400)
        app = application(**options)
        answer = await ask(aiohttp_server, app, "h", target, method)
        assert answer.status == status


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    app = answers.application(https_middleware(), https_redirect_middleware())
    client = await aiohttp_client(app)
    https = {"X-Forwarded-Proto": "https"}
    for more, status in (https, kind.status), ({}, 307):
        headers = {**kind.fields, **more}
        response = await client.get(
            kind.path, headers=headers, allow_redirects=False
        )
        assert response.status == status


# Hostile input
# =============


@pytest.mark.parametrize(
    "host",
    ["", "a b", "evil@x", "x/y", "x\\y", "h:", "h:x", "[::1", "h:65536", None],
)
async def test_nobody_is_sent_to_what_is_no_host(
    aiohttp_server: AiohttpServer,
    host: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        answer = await ask(aiohttp_server, application(), host)
    assert answer.status == 400
    assert answer.rest == b"Invalid host header"
    assert "Location" not in answer.headers
    (record,) = caplog.records
    assert record.name == "aiohttp_middlewares.https_redirect"
    assert record.getMessage() == (
        "Refused GET /: its host is missing or malformed"
    )


@settings(max_examples=200)
@given(st.text(), st.text(max_size=5))
def test_location_never_leaves_the_host(text: str, path: str) -> None:
    """By the reading of yarl, which is that of a client of aiohttp."""
    authority = parse_authority(text)
    if authority is not None and "[v" not in authority.host:
        url = URL(f"https://{authority}/{path}")
        assert url.scheme == "https"
        assert url.user is None
        assert url.host_subcomponent == authority.host
        assert url.explicit_port == authority.port


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"status": 303},
            ValueError,
            "https_redirect_middleware status should be 301, 302, 307 or 308, "
            "got 303",
        ),
        ({"status": "301"}, ValueError, "got '301'"),
        ({"status": None}, ValueError, "got None"),
        ({"status": [301]}, ValueError, "got [301]"),
        ({"status": 307.0}, ValueError, "got 307.0"),
        ({"https_port": 0}, ValueError, "https_port should be a whole number"),
        ({"https_port": 65536}, ValueError, "https_port should be 65535 or"),
        ({"https_port": "443"}, TypeError, "https_port should be a whole"),
        ({"https_port": True}, TypeError, "https_port should be a whole"),
        ({"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
        ({"ignore": ["x"]}, ValueError, "did you mean '/x'?"),
    ],
)
def test_wrong_option_is_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        https_redirect_middleware(**options)
