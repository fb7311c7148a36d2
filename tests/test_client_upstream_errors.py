"""upstream_errors: what a visitor sees when a service could not be asked."""

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from client_site import drop, serve

from aiohttp_middlewares import error_middleware, problem_error_handler
from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    CircuitOpenError,
    DeadlineExceeded,
    RetryExhausted,
    ThrottledError,
    TokenRefreshError,
    circuit_breaker_middleware,
    retry_middleware,
    throttle_middleware,
    upstream_errors,
)

SECRET = "https://secret.internal"


async def answer_to(
    error: Exception, config: Any = upstream_errors
) -> tuple[int, Any, list[str]]:
    async def handle(request: web.Request) -> web.Response:
        raise error

    app = web.Application(middlewares=[error_middleware(config=config)])
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/")
        assert response.content_type == "application/json"
        text = await response.text()
        assert "secret" not in text + str(response.headers)
        fields = response.headers.getall("Retry-After", [])
        return response.status, await response.json(), list(fields)


@pytest.mark.parametrize(
    ("error", "status", "detail", "retry_after"),
    [
        (CircuitOpenError(2.1, SECRET), 503, "Service Unavailable", ["3"]),
        (CircuitOpenError(0.0, SECRET), 503, "Service Unavailable", ["1"]),
        (ThrottledError(61.5, SECRET), 503, "Service Unavailable", ["62"]),
        (ThrottledError(float("inf")), 503, "Service Unavailable", []),
        (TokenRefreshError(SECRET), 502, "Bad Gateway", []),
        (RetryExhausted(3, OSError(SECRET)), 502, "Bad Gateway", []),
        (DeadlineExceeded(SECRET), 504, "Request timed out", []),
        (aiohttp.ServerTimeoutError(SECRET), 504, "Gateway Timeout", []),
        (aiohttp.ServerDisconnectedError(SECRET), 502, "Bad Gateway", []),
        (aiohttp.ClientOSError(111, SECRET), 502, "Bad Gateway", []),
        (aiohttp.ClientPayloadError(SECRET), 502, "Bad Gateway", []),
    ],
)
async def test_visitor_learns_when_to_come_again_and_nothing_of_the_service(
    error: Exception, status: int, detail: str, retry_after: list[str]
) -> None:
    assert await answer_to(error) == (status, {"detail": detail}, retry_after)


async def test_token_that_will_be_there_later_says_when() -> None:
    error = TokenRefreshError("The token endpoint is away")
    error.retry_after = 4.2  # type: ignore[attr-defined, unused-ignore]
    assert await answer_to(error) == (502, {"detail": "Bad Gateway"}, ["5"])


async def test_own_entries_come_first_or_last() -> None:
    async def own(request: web.Request) -> web.Response:
        return web.json_response("own", status=418)

    error = ThrottledError(1)
    first: dict[Any, Any] = {aiohttp.ClientError: own, **upstream_errors}
    assert (await answer_to(error, first))[0] == 418
    replaced: dict[Any, Any] = {**upstream_errors, ThrottledError: own}
    assert (await answer_to(error, replaced))[0] == 418
    last: dict[Any, Any] = {
        **upstream_errors,
        aiohttp.ClientError: problem_error_handler,
    }
    assert (await answer_to(error, last))[0] == 503


async def test_every_error_is_answered_as_its_middleware_raises_it() -> None:
    async def no_token(session: Any, old: Any) -> Any:
        raise TokenRefreshError("no")

    async with serve() as site:
        bearer = BearerTokenMiddleware(no_token, origins=[site.url])
        breaker = circuit_breaker_middleware(failures=1)
        retry = retry_middleware(attempts=2, base_delay=0.001)
        throttle = throttle_middleware(0.01, max_wait=1)
        by_name: dict[str, Any] = {
            "token": bearer,
            "breaker": breaker,
            "retry": retry,
            "throttle": throttle,
        }

        async def handle(request: web.Request) -> web.Response:
            own = by_name[request.match_info["name"]]
            site.answers = [drop if own is retry else 503]
            async with aiohttp.ClientSession(middlewares=[own]) as session:
                for _ in range(2):
                    async with session.get(site.url):
                        pass
            return web.Response()

        errors = error_middleware(config=upstream_errors)
        app = web.Application(middlewares=[errors])
        app.router.add_get("/{name}", handle)
        async with TestClient(TestServer(app)) as client:
            found = {
                name: (await client.get(f"/{name}")).status for name in by_name
            }
        await bearer.aclose()
    assert found == {
        "token": 502,
        "breaker": 503,
        "retry": 502,
        "throttle": 503,
    }
