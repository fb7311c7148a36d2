"""Every middleware may be called with aiohttp's ``make_mocked_request``.

As unit tests of applications do: its writer, its task, its protocol and its
transport are mocks, and nothing is ever sent.
"""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from live import soon
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

import aiohttp_middlewares
from aiohttp_middlewares import (
    error_middleware,
    get_error_response,
    github,
)
from aiohttp_middlewares.annotations import Middleware
from aiohttp_middlewares.timeout import RequestTimeout

#: The arguments of every factory. A new one has to be added.
FACTORIES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "api_key_middleware": (({"me": "secret"},), {}),
    "access_log_middleware": ((), {}),
    "basic_auth_middleware": (({"me": "secret"},), {}),
    "bearer_auth_middleware": (({}.get,), {"required": False}),
    "body_limit_middleware": ((1000,), {}),
    "compression_middleware": ((), {"minimum_size": 0}),
    "concurrency_limit_middleware": ((1,), {}),
    "cors_middleware": ((), {"origins": ["https://app.example"]}),
    "csrf_middleware": ((), {}),
    "early_data_middleware": ((), {}),
    "error_middleware": ((), {}),
    "etag_middleware": ((), {}),
    "https_middleware": ((), {}),
    "https_redirect_middleware": ((), {}),
    "idempotency_middleware": ((), {}),
    "metrics_middleware": ((), {"registry": CollectorRegistry()}),
    "proxy_headers_middleware": ((), {"trusted": ["127.0.0.1"]}),
    "report_middleware": ((lambda err, request: None,), {}),
    "rate_limit_middleware": (("100/minute",), {}),
    "response_headers_middleware": ((lambda *args: None,), {}),
    "security_headers_middleware": ((), {}),
    "request_id_middleware": ((), {}),
    "server_timing_middleware": ((), {"emit": print, "cpu": True}),
    "session_middleware": (("0123456789abcdef0123456789abcdef",), {}),
    "shield_middleware": ((), {"methods": ["GET", "POST"]}),
    # Alone it can do no more: it needs sessions.
    "sign_in_middleware": (
        (github("the site", "its secret", users="*"),),
        {"ignore": ["/"]},
    ),
    "timeout_middleware": ((60,), {}),
    "tracing_middleware": (
        (),
        {
            "tracer_provider": TracerProvider(shutdown_on_exit=False),
            "meter_provider": MeterProvider(shutdown_on_exit=False),
        },
    ),
    "trusted_host_middleware": ((["example.com"],), {}),
}

#: What each of them would answer a bad request for, if it were left out.
HEADERS = {
    "Host": "example.com",
    "Origin": "https://app.example",
    "Sec-Fetch-Site": "same-origin",
    "Authorization": "Basic bWU6c2VjcmV0",
    "X-API-Key": "secret",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "192.0.2.1",
    "Accept-Encoding": "gzip",
    "Cookie": "session=none",
    "Idempotency-Key": "8e03978e",
}


def built(name: str) -> Middleware:
    positional, options = FACTORIES[name]
    middleware: Middleware = getattr(aiohttp_middlewares, name)(
        *positional, **options
    )
    return middleware


def mocked(method: str = "GET") -> web.Request:
    # Behind a proxy that took care of HTTPS.
    request = make_mocked_request(method, "/", headers=HEADERS)
    return request.clone(scheme="https")


def test_every_factory_is_tried() -> None:
    public = {
        name
        for name in aiohttp_middlewares.__all__
        if name.endswith("_middleware")
    }
    assert set(FACTORIES) == public


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("waits", [False, True])
async def test_answer_comes_through(
    name: str, method: str, waits: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if waits:
            await asyncio.sleep(0)
        assert await request.read() == b""
        return web.Response(text="hello")

    response = await soon(built(name)(mocked(method), handler))
    assert isinstance(response, web.Response)
    assert (response.status, response.text) == (200, "hello")


@pytest.mark.parametrize("name", FACTORIES)
async def test_raised_answer_comes_through(name: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPConflict(text="no")

    answer = built(name)(mocked(), handler)
    if name == "error_middleware":
        assert (await soon(answer)).status == 409
    else:
        with pytest.raises(web.HTTPConflict, match="Conflict"):
            await soon(answer)


@pytest.mark.parametrize("name", FACTORIES)
async def test_failure_comes_through(name: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise ZeroDivisionError

    answer = built(name)(mocked(), handler)
    if name == "error_middleware":
        assert (await soon(answer)).status == 500
    else:
        with pytest.raises(ZeroDivisionError):
            await soon(answer)


@pytest.mark.parametrize("name", FACTORIES)
async def test_stream_comes_through(name: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"hello")
        await response.write_eof()
        return response

    response = await soon(built(name)(mocked(), handler))
    assert response.status == 200


async def test_error_response_may_be_asked_for() -> None:
    response = await get_error_response(mocked(), ZeroDivisionError())
    assert response.status == 500


async def forever(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_limit_strikes() -> None:
    timeout = aiohttp_middlewares.timeout_middleware(0.01)
    with pytest.raises(RequestTimeout):
        await soon(timeout(mocked(), forever))
    error = error_middleware()
    response = await soon(
        error(mocked(), lambda request: timeout(request, forever))
    )
    assert response.status == 504


async def test_limit_strikes_a_shielded_handler_that_goes_on() -> None:
    timeout = aiohttp_middlewares.timeout_middleware(0.01)
    shield = built("shield_middleware")
    go_on = asyncio.Event()
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await go_on.wait()
        ended.set()
        return web.Response()

    with pytest.raises(RequestTimeout):
        await soon(timeout(mocked(), lambda request: shield(request, handler)))
    go_on.set()
    await soon(ended.wait())
