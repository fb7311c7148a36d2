"""The five of the core and all of the edge, in the order that we recommend."""

import base64
import gc
import gzip
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import Head, head, raw
from telemetry import Told

from aiohttp_middlewares import (
    basic_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    cors_middleware,
    csp_nonce,
    csrf_middleware,
    early_data_middleware,
    error_middleware,
    etag_middleware,
    get_user,
    github,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    proxy_headers_middleware,
    rate_limit_middleware,
    request_id_middleware,
    response_headers_middleware,
    security_headers_middleware,
    session_middleware,
    shield_middleware,
    sign_in_middleware,
    timeout_middleware,
    tracing_middleware,
    trusted_host_middleware,
)

ORIGIN = "https://app.example.net"


def middlewares() -> list[Any]:
    return [
        request_id_middleware(),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
        https_middleware(trusted=["127.0.0.1"]),
        tracing_middleware(**Told().providers),
        trusted_host_middleware(["example.com"]),
        https_redirect_middleware(),
        security_headers_middleware(
            content_security_policy={"script-src": ["'nonce-{nonce}'"]}
        ),
        cors_middleware(origins=[ORIGIN], allow_credentials=True),
        error_middleware(),
        early_data_middleware(),
        rate_limit_middleware("1000000/second"),
        body_limit_middleware(2 * 1024**2),
        timeout_middleware(29.5),
        shield_middleware(methods=["POST"]),
        basic_auth_middleware({"me": "secret"}),
        csrf_middleware(trusted_origins=[ORIGIN]),
        idempotency_middleware(),
    ]


def facts(request: web.Request) -> str:
    return (
        f"{request.method} {request.remote} {request.url} "
        f"{get_user(request)} {len(csp_nonce(request))}"
    )


async def returned(request: web.Request) -> web.Response:
    size = len(await request.read())
    return web.Response(text=f"{facts(request)} {size}")


async def streamed(request: web.Request) -> web.StreamResponse:
    size = len(await request.read())
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(f"{facts(request)} {size}".encode())
    return response


async def raised(request: web.Request) -> web.Response:
    size = len(await request.read())
    raise web.HTTPConflict(text=f"{facts(request)} {size}")


async def failed(request: web.Request) -> web.Response:
    raise ValueError("no luck")


@pytest.fixture
async def server(aiohttp_server: AiohttpServer) -> TestServer:
    app = web.Application(middlewares=middlewares())
    for handler in (returned, streamed, raised, failed):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    return await aiohttp_server(app)


GOOD = {
    "Host": "example.com",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "Origin": ORIGIN,
    "Authorization": "Basic " + base64.b64encode(b"me:secret").decode(),
    "Connection": "close",
}


async def ask(
    server: TestServer,
    method: str,
    path: str,
    body: bytes = b"",
    **fields: str | None,
) -> Head:
    """With some of the good fields changed, or left out."""
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    headers = GOOD | {"Content-Length": str(len(body))} | changed
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    start = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
    return head(await raw(server, start.encode() + body))


KINDS = [
    ("/returned", 200),
    ("/streamed", 200),
    ("/raised", 409),
    ("/nowhere", 404),
    ("/failed", 500),
]


def assert_headers(answer: Head) -> None:
    """Each of them once, whoever has made the answer."""
    assert answer.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
    assert answer.headers.getall("Access-Control-Allow-Credentials") == ["true"]
    assert answer.headers.getall("Vary") == ["Origin"]
    assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.getall("Strict-Transport-Security") == [
        "max-age=31536000; includeSubDomains"
    ]
    (policy,) = answer.headers.getall("Content-Security-Policy")
    assert policy.startswith("script-src 'nonce-")
    assert "Server" not in answer.headers


@pytest.mark.parametrize(("path", "status"), KINDS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_kind_of_response_comes_through(
    server: TestServer, method: str, path: str, status: int
) -> None:
    body = b"" if method == "GET" else b"x" * 10
    answer = await ask(server, method, path, body)
    assert answer.status == status
    assert_headers(answer)
    if path in ("/returned", "/streamed", "/raised"):
        seen = f"{method} 192.0.2.1 https://example.com{path} me 22 {len(body)}"
        assert seen in answer.rest.decode()
    if status >= 400:
        assert answer.rest.startswith(b'{"detail": ')


@pytest.mark.parametrize(("path", "_"), KINDS)
@pytest.mark.parametrize(
    ("method", "fields", "status", "text"),
    [
        ("GET", {"Host": "evil.example"}, 400, "Invalid host header"),
        ("GET", {"X_Forwarded_Proto": "http"}, 307, "307"),
        ("POST", {"Early_Data": "1"}, 425, "Too early"),
        ("POST", {"Content_Length": "9999999"}, 413, "The body is larger"),
        ("GET", {"Authorization": None}, 401, "A login is needed"),
        ("POST", {"Origin": "https://evil.example"}, 403, "Cross-origin"),
    ],
)
async def test_each_refusal_comes_through(
    aiohttp_server: AiohttpServer,
    path: str,
    _: int,
    method: str,
    fields: Any,
    status: int,
    text: str,
) -> None:
    app = web.Application(middlewares=middlewares())
    server = await aiohttp_server(app, lingering_time=0.01)
    answer = await ask(server, method, path, **fields)
    assert answer.status == status
    assert text in answer.rest.decode()
    if status in (400, 307):  # they stand before all that adds headers
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "Content-Security-Policy" not in answer.headers
    elif "Origin" not in fields:
        assert_headers(answer)
        assert answer.rest.startswith(b'{"detail": ')


@pytest.mark.parametrize(("path", "status"), KINDS)
async def test_repeated_request_is_answered_inside_of_all(
    server: TestServer, path: str, status: int
) -> None:
    again = {"/returned": 200, "/nowhere": 404, "/failed": 500}
    for expected in (status, again.get(path, 409)):
        answer = await ask(
            server, "POST", path, b"x" * 10, Idempotency_Key="8e03978e"
        )
        assert answer.status == expected
        assert_headers(answer)
    assert answer.headers.getall("Idempotent-Replayed", []) == (
        ["true"] if path in ("/returned", "/nowhere") else []
    )


async def test_preflight_needs_no_login(server: TestServer) -> None:
    answer = await ask(
        server,
        "OPTIONS",
        "/returned",
        Authorization=None,
        Access_Control_Request_Method="DELETE",
    )
    assert answer.status == 200
    assert answer.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
    assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]


async def test_large_body_is_read_through_all_clones(
    server: TestServer,
) -> None:
    body = b"x" * (2 * 1024**2)
    for path, status in KINDS[:3]:
        answer = await ask(server, "POST", path, body)
        assert answer.status == status
        assert str(len(body)) in answer.rest.decode()
        assert_headers(answer)


async def test_bomb_is_refused_inside_of_all(server: TestServer) -> None:
    bomb = gzip.compress(b"x" * (3 * 1024**2))
    for path in ("/returned", "/streamed", "/raised"):
        answer = await ask(server, "POST", path, bomb, Content_Encoding="gzip")
        assert answer.status == 413
        assert_headers(answer)
        assert answer.headers.getall("Connection") == ["close"]


@pytest.mark.parametrize(
    "middleware",
    [
        *(m for m in middlewares() if m.__name__ != "https_redirect"),
        https_redirect_middleware(ignore=["/"]),
        compression_middleware(minimum_size=0),
        etag_middleware(),
        response_headers_middleware({"X-Own": "yes"}),
        response_headers_middleware(
            lambda request, status, headers: headers.update(X=request.path)
        ),
        session_middleware("0123456789abcdef0123456789abcdef"),
        sign_in_middleware(
            github("the site", "its secret", users="*"), ignore=["/"]
        ),
    ],
    ids=lambda middleware: middleware.__name__,
)
async def test_nothing_is_left_to_the_garbage_collector(
    middleware: Any, aiohttp_client: AiohttpClient
) -> None:
    # A reference cycle would keep all that a request held for a while, and
    # every request would pay for collecting it.
    bare = await unreachable(aiohttp_client, [])
    assert await unreachable(aiohttp_client, [middleware]) <= bare


async def unreachable(
    aiohttp_client: AiohttpClient, middlewares: list[Any]
) -> int:
    """Objects in reference cycles after twenty requests."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello {len(await request.read())}")

    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", hello)
    client = await aiohttp_client(app)
    headers = {k: v for k, v in GOOD.items() if k != "Connection"}
    gc.collect()
    gc.disable()
    try:
        for number in range(22):
            async with client.post(
                "/", data=b"body", headers=headers
            ) as response:
                assert response.status == 200
                assert (await response.read()).startswith(b"hello")
            if number == 1:
                gc.collect()  # the first requests make what the rest uses
        return gc.collect()
    finally:
        gc.enable()
