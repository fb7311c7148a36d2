"""What the order of the client's middlewares is good for: harm and remedy."""

import asyncio
import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from client_site import Naps, hang, serve
from live import soon
from telemetry import Told, told_of
from yarl import URL

from aiohttp_middlewares import error_middleware, timeout_middleware
from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    CallRecord,
    CircuitOpenError,
    SSRFConnector,
    SSRFError,
    SSRFPolicy,
    Token,
    api_log_middleware,
    basic_auth_middleware,
    circuit_breaker_middleware,
    deadline_middleware,
    propagate_request_id_middleware,
    request_log_middleware,
    retry_middleware,
    ssrf_middleware,
    throttle_middleware,
    tracing_middleware,
    upstream_errors,
)
from aiohttp_middlewares.client.deadline import DEFAULT_HEADER

#: The recommended order, and the other.
RIGHT, WRONG = True, False


def ordered(order: bool, *middlewares: Any) -> list[Any]:
    return list(middlewares if order is RIGHT else middlewares[::-1])


async def outcome(session: aiohttp.ClientSession, url: Any) -> str:
    try:
        async with session.get(url) as response:
            return str(response.status)
    except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
        return type(exc).__name__


def retry(**options: Any) -> Any:
    return retry_middleware(base_delay=0.001, **options)


class Seen:
    """Request headers as they are sent: the innermost middleware."""

    def __init__(self, header: str) -> None:
        self.header = header
        self.values: list[str | None] = []

    async def __call__(
        self, req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self.values.append(req.headers.get(self.header))
        return await handler(req)


def moved_to(url: str) -> aiohttp.ClientMiddlewareType:
    """What turns requests to another URL."""

    async def move(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        req.url = URL(url)
        return await handler(req)

    return move


# Once a request
# ==============


@pytest.mark.parametrize(("order", "shown"), [(RIGHT, True), (WRONG, False)])
async def test_log_inside_of_the_request_id_can_show_it(
    order: bool, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serve() as site:
        own = ordered(
            order,
            propagate_request_id_middleware(origins=[site.url]),
            request_log_middleware(headers=["X-Request-ID"]),
        )
        REQUEST_ID.set("one-of-many")
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
    [record] = [r for r in caplog.records if "request_log" in r.name]
    assert ("one-of-many" in str(vars(record))) is shown


@pytest.mark.parametrize(("order", "records"), [(RIGHT, 1), (WRONG, 3)])
async def test_logs_outside_of_retry_tell_of_requests_and_inside_of_attempts(
    order: bool, records: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reported: list[CallRecord] = []
    reports = api_log_middleware(reported.append)
    own = ordered(order, request_log_middleware(), reports, retry())
    async with serve() as site:
        site.answers = [503, 503, 200]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
        await reports.aclose()
    logged = [r for r in caplog.records if "request_log" in r.name]
    assert len(logged) == len(reported) == records


@pytest.mark.parametrize(
    ("order", "tokens"),
    [
        (RIGHT, ["Bearer t1", "Bearer t2"]),
        (WRONG, ["Bearer t1", "Bearer t1"]),
    ],
)
async def test_attempt_inside_of_retry_has_a_token_that_was_renewed(
    order: bool, tokens: list[str]
) -> None:
    made = 0

    async def refresh(session: Any, old: Token | None) -> Token:
        nonlocal made
        made += 1
        return Token(f"t{made}")

    async with serve() as site:
        bearer = BearerTokenMiddleware(refresh, origins=[site.url])

        async def renew(event: Any) -> None:
            bearer.invalidate()

        seen = Seen("Authorization")
        own = [*ordered(order, retry(on_retry=renew), bearer), seen]
        site.answers = [503, 200]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
        await bearer.aclose()
    assert seen.values == tokens


# Once an attempt
# ===============


async def within_a_request(
    own: list[Any], url: str, limit: float
) -> tuple[int, Any]:
    """What the visitor gets for whom this call is made."""
    async with aiohttp.ClientSession(middlewares=own) as session:

        async def handle(request: web.Request) -> web.Response:
            async with session.get(url) as response:
                return web.Response(status=response.status)

        seen: list[type[BaseException]] = []

        @web.middleware
        async def note(request: web.Request, handler: Any) -> Any:
            try:
                return await handler(request)
            except Exception as exc:
                seen.append(type(exc))
                raise

        app = web.Application(
            middlewares=[
                error_middleware(config=upstream_errors),
                note,
                timeout_middleware(limit),
            ]
        )
        app.router.add_get("/", handle)
        async with TestClient(TestServer(app)) as client:
            response = await soon(client.get("/"))
            return response.status, [kind.__name__ for kind in seen]


@pytest.mark.parametrize(("order", "spans"), [(RIGHT, 3), (WRONG, 1)])
async def test_tracing_inside_of_retry_has_a_span_for_each_attempt(
    order: bool, spans: int
) -> None:
    told = Told()
    seen = Seen("traceparent")
    own = ordered(order, retry(), tracing_middleware(**told.providers))
    async with serve() as site:
        site.answers = [503, 503, 200]
        async with aiohttp.ClientSession(middlewares=[*own, seen]) as session:
            assert await outcome(session, site.url) == "200"
    assert len(told.spans) == len(set(seen.values)) == spans


@pytest.mark.parametrize(
    ("order", "errors"),
    [(RIGHT, ["503", "CircuitOpenError"]), (WRONG, ["503"])],
)
async def test_tracing_outside_of_the_breaker_tells_of_what_it_refuses(
    order: bool, errors: list[str]
) -> None:
    told = Told()
    own = ordered(
        order,
        tracing_middleware(**told.providers),
        circuit_breaker_middleware(failures=1),
    )
    async with serve() as site:
        site.answers = [503]
        async with aiohttp.ClientSession(middlewares=own) as session:
            for _ in range(2):
                await outcome(session, site.url)
    assert [told_of(span)["error.type"] for span in told.spans] == errors


@pytest.mark.parametrize("order", [RIGHT, WRONG])
async def test_each_attempt_tells_the_service_what_is_left_then(
    order: bool,
) -> None:
    had: list[int] = []

    async def upstream(request: web.Request) -> web.Response:
        had.append(int(request.headers[DEFAULT_HEADER]))
        await asyncio.sleep(0.1)
        return web.Response(status=503 if len(had) == 1 else 200)

    async with serve() as site:
        site.answers = [upstream]
        own = ordered(order, retry(), deadline_middleware(origins=[site.url]))
        assert await within_a_request(own, site.url, 5) == (200, [])
    first, second = had
    if order is RIGHT:
        assert second <= first - 100
    else:
        assert second == first


@pytest.mark.parametrize(
    ("order", "error"), [(RIGHT, "DeadlineExceeded"), (WRONG, "RequestTimeout")]
)
async def test_token_that_does_not_come_does_not_use_up_the_margin(
    order: bool, error: str
) -> None:
    async def refresh(session: Any, old: Token | None) -> Token:
        await asyncio.sleep(30)
        return Token("late")

    async with serve() as site:
        bearer = BearerTokenMiddleware(
            refresh, origins=[site.url], refresh_timeout=0.3
        )
        own = ordered(order, deadline_middleware(), bearer)
        found = await within_a_request(own, site.url, 0.15)
        assert found == (504, [error])
        await bearer.aclose()


@pytest.mark.parametrize(("order", "asked"), [(RIGHT, 3), (WRONG, 9)])
async def test_breaker_inside_of_retry_counts_each_attempt(
    order: bool, asked: int
) -> None:
    naps = Naps()
    own = ordered(
        order, retry(sleep=naps), circuit_breaker_middleware(failures=3)
    )
    async with serve() as site:
        site.answers = [503]
        async with aiohttp.ClientSession(middlewares=own) as session:
            for _ in range(9):
                found = await outcome(session, site.url)
            assert found == CircuitOpenError.__name__
        assert site.count == asked
    if order is RIGHT:
        assert len(naps.taken) == 2  # none for what was refused


@pytest.mark.parametrize("order", [RIGHT, WRONG])
async def test_credentials_inside_go_where_they_are_meant_to(
    order: bool,
) -> None:
    async with serve() as site, serve() as stranger:
        basic = basic_auth_middleware("me", "secret", origins=[site.url])
        seen = Seen("Authorization")
        own = [*ordered(order, moved_to(stranger.url), basic), seen]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
        assert stranger.count == 1
    assert (seen.values == [None]) is (order is RIGHT)


class Paced:
    """A throttle, and when it let something pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[float] = []
        self.throttle = throttle_middleware(
            10, clock=lambda: self.now, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def note(
        self, req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self.at.append(round(self.now, 6))
        return await handler(req)


@pytest.mark.parametrize(
    ("order", "at"), [(RIGHT, [0, 0.1, 0.2]), (WRONG, [0, 0, 0])]
)
async def test_throttle_inside_of_retry_lets_attempts_take_their_turn(
    order: bool, at: list[float]
) -> None:
    paced = Paced()
    own = [*ordered(order, retry(), paced.throttle), paced.note]
    async with serve() as site:
        site.answers = [503, 503, 200]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
    assert paced.at == at


@pytest.mark.parametrize(("order", "at"), [(RIGHT, [0, 0.1]), (WRONG, [0, 0])])
async def test_throttle_inside_of_the_token_lets_what_is_sent_again_wait(
    order: bool, at: list[float]
) -> None:
    async def refresh(session: Any, old: Token | None) -> Token:
        return Token("new")

    paced = Paced()
    async with serve() as site:
        site.answers = [401, 200]
        bearer = BearerTokenMiddleware(
            refresh, origins=[site.url], token=Token("old")
        )
        own = [*ordered(order, bearer, paced.throttle), paced.note]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "200"
        await bearer.aclose()
    assert paced.at == at


@pytest.mark.parametrize("order", [RIGHT, WRONG])
async def test_throttle_inside_of_the_breaker_lets_nobody_wait_to_be_refused(
    order: bool,
) -> None:
    paced = Paced()
    own = ordered(order, circuit_breaker_middleware(failures=1), paced.throttle)
    async with serve() as site:
        site.answers = [503]
        async with aiohttp.ClientSession(middlewares=own) as session:
            assert await outcome(session, site.url) == "503"
            for _ in range(5):
                found = await outcome(session, site.url)
                assert found == CircuitOpenError.__name__
        assert site.count == 1
    assert (paced.now == 0) is (order is RIGHT)


@pytest.mark.parametrize(("order", "waited"), [(RIGHT, 0), (WRONG, 1)])
async def test_connector_refuses_what_a_middleware_inside_has_changed(
    order: bool, waited: int
) -> None:
    policy = SSRFPolicy()
    async with serve() as site:
        seen = Seen("Host")
        own = [
            *ordered(order, moved_to(site.url), ssrf_middleware(policy)),
            seen,
        ]
        async with aiohttp.ClientSession(
            connector=SSRFConnector(policy), middlewares=own
        ) as session:
            found = await outcome(session, "http://example.invalid/")
        assert found == SSRFError.__name__
        assert len(seen.values) == waited
        assert site.count == 0


async def test_without_middlewares_only_the_connector_is_left() -> None:
    policy = SSRFPolicy()
    seen = Seen("Host")
    async with (
        serve() as site,
        aiohttp.ClientSession(
            connector=SSRFConnector(policy), middlewares=[seen]
        ) as session,
    ):
        with pytest.raises(SSRFError):
            await session.get(site.url, middlewares=())
        assert site.count == 0
        assert seen.values == []


async def test_websockets_pass_the_middlewares_of_the_session() -> None:
    seen = Seen("Upgrade")
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=[seen]) as session,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(site.url)
    assert seen.values == ["websocket"]


# All of them, as the page has them
# =================================


async def test_all_of_them_in_the_order_of_the_page() -> None:
    async def refresh(session: Any, old: Token | None) -> Token:
        return Token("t")

    policy = SSRFPolicy(allow_networks=["127.0.0.0/8"], ports=None)
    async with serve() as site:
        api = [site.url]
        bearer = BearerTokenMiddleware(refresh, origins=api, token=Token("old"))
        reports = api_log_middleware(lambda record: None)
        own = [
            propagate_request_id_middleware(origins=api),
            request_log_middleware(),
            reports,
            retry(),
            deadline_middleware(origins=api),
            circuit_breaker_middleware(),
            bearer,
            throttle_middleware(1000, burst=5, concurrency=2),
            ssrf_middleware(policy),
        ]
        site.answers = [503, 401, 200, hang]
        connector = SSRFConnector(policy, limit=2)
        async with aiohttp.ClientSession(
            connector=connector, middlewares=own
        ) as session:
            assert await soon(outcome(session, site.url)) == "200"
            assert site.count == 3
            hanging = [
                asyncio.create_task(outcome(session, site.url))
                for _ in range(5)
            ]
            await site.until(5)
            for task in hanging:
                task.cancel()
            await asyncio.wait(hanging)
            site.answers = [200]
            assert await soon(outcome(session, site.url)) == "200"
        await bearer.aclose()
        await reports.aclose()
