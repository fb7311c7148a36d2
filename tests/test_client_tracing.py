"""One span for each request that is sent, and the context that goes with it."""

import asyncio
import gc
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from client_site import Naps, Site, closed_port, hang, serve
from hypothesis import given, settings
from hypothesis import strategies as st
from live import soon
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.aiohttp_client import (
    AioHttpClientInstrumentor,
    create_trace_config,
)
from opentelemetry.instrumentation.utils import suppress_http_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from telemetry import (
    SPAN,
    TRACE,
    TRACEPARENT,
    Broken,
    Told,
    id_of,
    parent_of,
    told_of,
)
from yarl import URL

from aiohttp_middlewares.client import (
    retry_middleware,
    tracing_middleware,
)

ROOT = Path(__file__).parents[1]
DURATION = "http.client.request.duration"


class Asked:
    """A site that keeps the headers of what it is asked."""

    def __init__(self, site: Site, *statuses: int) -> None:
        self.headers: list[Mapping[str, str]] = []
        self.statuses = list(statuses or (200,))
        site.answers = [self.answer]
        self.url = URL(site.url)

    async def answer(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.copy())
        status = (
            self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        )
        return web.Response(status=status, headers={"X-Out": "1"})


async def get(told: Told, url: Any, **options: Any) -> int:
    """The status; options are those of the factory."""
    tracing = tracing_middleware(**told.providers, **options)
    async with (
        aiohttp.ClientSession(middlewares=[tracing]) as session,
        session.get(url) as response,
    ):
        return response.status


# What it does
# ============


async def test_span_of_a_request_says_where_it_went_and_what_came() -> None:
    told = Told()
    async with serve() as site:
        url = URL(site.url)
        await get(told, url / "users" % {"page": "2"})
    (span,) = told.spans
    assert span.name == "GET"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert dict(told_of(span)) == {
        "http.request.method": "GET",
        "url.full": f"{url}users?page=2",
        "server.address": "127.0.0.1",
        "server.port": url.port,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }
    (point,) = told.points(DURATION)
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": url.port,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }
    assert 0 < point.sum < 20
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.name == "aiohttp_middlewares.client.tracing"


async def test_url_is_told_without_userinfo_and_secrets() -> None:
    told = Told()
    async with serve() as site:
        bare = site.url
        url = URL(bare).with_user("me").with_password("secret")
        await get(
            told,
            url.with_query(
                "AWSAccessKeyId=a1&Signature=a2&sig=a3&X-Goog-Signature=a4"
                "&access_token=a5&page=2"
            ).with_fragment("part"),
        )
    shown = told_of(told.spans[0])["url.full"]
    assert shown == (
        f"{bare}?AWSAccessKeyId=REDACTED&Signature=REDACTED&sig=REDACTED"
        "&X-Goog-Signature=REDACTED&access_token=REDACTED&page=2"
    )


@pytest.mark.parametrize("status", [204, 304, 400, 404, 500, 503])
async def test_status_is_an_error_from_400_up(status: int) -> None:
    told = Told()
    async with serve() as site:
        Asked(site, status)
        assert await get(told, site.url) == status
    (span,) = told.spans
    attributes = told_of(span)
    assert attributes["http.response.status_code"] == status
    failed = status >= 400
    assert (span.status.status_code is StatusCode.ERROR) is failed
    assert attributes.get("error.type") == (str(status) if failed else None)
    (point,) = told.points(DURATION)
    assert point.attributes.get("error.type") == attributes.get("error.type")


async def test_unknown_method_is_other() -> None:
    told = Told()
    tracing = tracing_middleware(**told.providers)
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=[tracing]) as session,
    ):
        for method in ("PROPFIND", "QUERY"):
            async with session.request(method, site.url):
                pass
    other, query = told.spans
    assert other.name == "HTTP"
    assert told_of(other)["http.request.method"] == "_OTHER"
    assert told_of(other)["http.request.method_original"] == "PROPFIND"
    assert query.name == "QUERY"


async def test_no_connection_is_an_error_and_quotes_nothing() -> None:
    told = Told()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(told, f"http://127.0.0.1:{closed_port()}/?token=secret")
    (span,) = told.spans
    attributes = told_of(span)
    assert attributes["error.type"] == "ClientConnectorError"
    assert "http.response.status_code" not in attributes
    assert span.status.status_code is StatusCode.ERROR
    assert span.events == ()
    assert "secret" not in span.to_json()
    (point,) = told.points(DURATION)
    assert point.attributes["error.type"] == "ClientConnectorError"


@pytest.mark.parametrize("limit", ["total", "sock_read"])
async def test_time_limit_is_an_error(limit: str) -> None:
    told = Told()
    tracing = tracing_middleware(**told.providers)
    async with serve() as site:
        site.answers = [hang]
        async with aiohttp.ClientSession(
            middlewares=[tracing],
            timeout=aiohttp.ClientTimeout(**{limit: 0.05}),
        ) as session:
            with pytest.raises(asyncio.TimeoutError):
                await session.get(site.url)
    (span,) = told.spans
    assert "Timeout" in str(told_of(span)["error.type"])
    assert span.status.status_code is StatusCode.ERROR


async def test_caller_who_gives_up_is_no_error() -> None:
    told = Told()
    before = context.get_current()
    async with serve() as site:
        site.answers = [hang]
        asking = asyncio.create_task(get(told, site.url))
        await soon(site.until(1))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    (span,) = told.spans
    assert told_of(span)["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET
    assert context.get_current() is before


async def test_headers_that_are_asked_for_are_told() -> None:
    told = Told()
    tracing = tracing_middleware(
        **told.providers,
        capture_request_headers=["X-In"],
        capture_response_headers=["x-out"],
    )
    async with serve() as site:
        Asked(site)
        async with (
            aiohttp.ClientSession(middlewares=[tracing]) as session,
            session.get(site.url, headers=[("X-In", "a"), ("X-In", "b")]),
        ):
            pass
    attributes = told_of(told.spans[0])
    assert attributes["http.request.header.x-in"] == ("a", "b")
    assert attributes["http.response.header.x-out"] == ("1",)


# Attempts
# ========


async def test_each_attempt_has_a_span_and_its_own_context() -> None:
    told = Told()
    async with serve() as site:
        asked = Asked(site, 503, 503, 200)
        async with aiohttp.ClientSession(
            middlewares=[
                retry_middleware(sleep=Naps()),
                tracing_middleware(**told.providers),
            ]
        ) as session:
            for _ in range(2):
                async with session.get(site.url) as response:
                    assert response.status == 200
    assert [
        told_of(span).get("http.request.resend_count") for span in told.spans
    ] == [None, 1, 2, None]
    assert [headers["traceparent"][36:52] for headers in asked.headers] == [
        id_of(span) for span in told.spans
    ]


async def test_call_in_between_does_not_disturb_the_count() -> None:
    told = Told()
    async with serve() as site:
        Asked(site, 200, 503, 200, 200)

        async def asks_first(
            req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            async with session.get(site.url, middlewares=[tracing]):
                pass
            return await handler(req)

        tracing = tracing_middleware(**told.providers)
        async with (
            aiohttp.ClientSession(
                middlewares=[
                    retry_middleware(sleep=Naps()),
                    asks_first,
                    tracing,
                ]
            ) as session,
            session.put(site.url),
        ):
            pass
    counts = [
        (
            told_of(span)["http.request.method"],
            told_of(span).get("http.request.resend_count"),
        )
        for span in told.spans
    ]
    assert counts == [("GET", None), ("PUT", None), ("GET", None), ("PUT", 1)]


async def test_redirect_is_sent_again() -> None:
    told = Told()

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound("/there")

    async with serve() as site:
        site.answers = [moved, 200]
        url = site.url
        await get(told, url)
    first, second = told.spans
    assert told_of(first)["http.response.status_code"] == 302
    assert "http.request.resend_count" not in told_of(first)
    assert told_of(second)["url.full"] == f"{url}there"
    assert told_of(second)["http.request.resend_count"] == 1


async def test_what_aiohttp_repeats_by_itself_is_counted() -> None:
    told = Told()
    tracing = tracing_middleware(**told.providers)
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=[tracing]) as session,
    ):

        async def hangs_up(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.close()
            return web.Response()

        site.answers = [hangs_up, 200]
        async with session.get(site.url) as response:
            assert response.status == 200
    broken, sent = told.spans
    assert told_of(broken)["error.type"] == "ServerDisconnectedError"
    assert told_of(sent)["http.request.resend_count"] == 1


async def test_websocket_has_the_span_of_its_handshake() -> None:
    told = Told()

    async def echo(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data)
        return response

    tracing = tracing_middleware(**told.providers)
    async with serve() as site:
        site.answers = [echo]
        async with (
            aiohttp.ClientSession(middlewares=[tracing]) as session,
            session.ws_connect(site.url) as socket,
        ):
            await socket.send_str("x")
            assert await socket.receive_str() == "x"
            (span,) = told.spans
    assert told_of(span)["http.response.status_code"] == 101


# The context
# ===========


async def test_context_is_that_of_the_span_and_the_span_is_current() -> None:
    told = Told()
    seen: list[Any] = []

    async def inside(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(trace.get_current_span())
        return await handler(req)

    tracing = tracing_middleware(**told.providers)
    tracer = told.tracers.get_tracer("own")
    async with serve() as site:
        asked = Asked(site)
        async with aiohttp.ClientSession(
            middlewares=[tracing, inside]
        ) as session:
            with tracer.start_as_current_span("outer") as outer:
                async with session.get(site.url) as response:
                    assert trace.get_current_span() is outer
                assert "traceparent" not in response.request_info.headers
    span, around = told.spans
    assert parent_of(span) == id_of(around)
    assert [f"{each.get_span_context().span_id:016x}" for each in seen] == [
        id_of(span)
    ]
    assert asked.headers[0]["traceparent"][36:52] == id_of(span)
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_context_goes_only_where_it_may() -> None:
    told = Told()
    token = context.attach(baggage.set_baggage("user", "ann"))
    try:
        async with serve() as site, serve() as stranger:
            ours, theirs = Asked(site), Asked(stranger)

            async def leave(request: web.Request) -> web.Response:
                await ours.answer(request)
                raise web.HTTPFound(stranger.url)

            site.answers = [leave]
            assert await get(told, site.url, origins=[site.url]) == 200
    finally:
        context.detach(token)
    assert len(told.spans) == 2
    assert ours.headers[0]["traceparent"][36:52] == id_of(told.spans[0])
    assert ours.headers[0]["baggage"] == "user=ann"
    assert not {"traceparent", "baggage"} & {
        name.lower() for name in theirs.headers[0]
    }


async def test_header_that_the_caller_set_stays() -> None:
    told = Told()
    tracing = tracing_middleware(**told.providers)
    token = context.attach(baggage.set_baggage("user", "ann"))
    try:
        async with serve() as site:
            asked = Asked(site)
            async with aiohttp.ClientSession(middlewares=[tracing]) as session:
                for headers in (
                    {"TraceParent": TRACEPARENT},
                    {"Baggage": "mine=1"},
                ):
                    async with session.get(site.url, headers=headers):
                        pass
    finally:
        context.detach(token)
    first, second = asked.headers
    assert (first["traceparent"], first["baggage"]) == (TRACEPARENT, "user=ann")
    assert second["baggage"] == "mine=1"
    assert second["traceparent"][36:52] == id_of(told.spans[1])


async def test_state_of_another_trace_is_not_mixed_with_the_callers() -> None:
    told = Told()
    parent = trace.NonRecordingSpan(
        trace.SpanContext(
            int(TRACE, 16),
            int(SPAN, 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(1),
            trace_state=trace.TraceState([("vendor", "1")]),
        )
    )
    tracing = tracing_middleware(**told.providers)
    with trace.use_span(parent):
        async with serve() as site:
            asked = Asked(site)
            async with aiohttp.ClientSession(middlewares=[tracing]) as session:
                async with session.get(site.url):
                    pass
                async with session.get(
                    site.url, headers={"traceparent": TRACEPARENT}
                ):
                    pass
    assert [headers.get("tracestate") for headers in asked.headers] == [
        "vendor=1",
        None,
    ]


async def test_listed_twice_it_is_one_span() -> None:
    told = Told()
    own = [tracing_middleware(**told.providers) for _ in range(2)]
    async with serve() as site:
        asked = Asked(site)
        async with (
            aiohttp.ClientSession(middlewares=own) as session,
            session.get(site.url),
        ):
            pass
    (span,) = told.spans
    assert asked.headers[0]["traceparent"][36:52] == id_of(span)
    (point,) = told.points(DURATION)
    assert point.count == 1


async def test_connection_that_is_kept_does_not_keep_the_request() -> None:
    requests: list[weakref.ref[aiohttp.ClientRequest]] = []

    async def keeps(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        requests.append(weakref.ref(req))
        return await handler(req)

    tracing = tracing_middleware(**Told().providers)
    async with (
        serve() as site,
        aiohttp.ClientSession(middlewares=[tracing, keeps]) as session,
    ):
        async with session.post(site.url, data=b"x") as response:
            await response.read()
        del response
        gc.collect()
        assert requests[0]() is None


async def test_what_is_not_sampled_is_passed_on_as_such() -> None:
    told = Told(sampler=ALWAYS_OFF)
    async with serve() as site:
        asked = Asked(site)
        await get(told, site.url)
    assert told.spans == []
    flags = asked.headers[0]["traceparent"].rpartition("-")[2]
    assert int(flags, 16) & trace.TraceFlags.SAMPLED == 0
    (point,) = told.points(DURATION)
    assert point.count == 1


@pytest.mark.parametrize("at", ["start", "end"])
async def test_processor_that_fails_harms_no_request(
    at: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    told.tracers.add_span_processor(Broken(at))
    async with serve() as site:
        assert await get(told, Asked(site).url) == 200
    (record,) = caplog.records
    assert record.name == "aiohttp_middlewares.client.tracing"
    assert "ZeroDivisionError" in caplog.text


async def test_where_instrumentation_is_suppressed_there_is_no_span() -> None:
    """As exporters do for what they send themselves."""
    told = Told()
    async with serve() as site:
        asked = Asked(site)
        with suppress_http_instrumentation():
            await get(told, site.url)
    assert told.spans == []
    assert "traceparent" not in asked.headers[0]


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("installed", ["before", "after", "by hand"])
async def test_beside_the_official_instrumentation_there_is_one_span(
    installed: str, sampled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = Told(sampler=None if sampled else ALWAYS_OFF)
    ours = Told()
    official = AioHttpClientInstrumentor()
    tracing = tracing_middleware(**ours.providers)
    configs = []
    if installed == "before":
        official.instrument(**theirs.providers)
    if installed == "by hand":
        configs = [create_trace_config(**theirs.providers)]
    try:
        session = aiohttp.ClientSession(
            middlewares=[tracing], trace_configs=configs
        )
        if installed == "after":
            official.instrument(**theirs.providers)
        async with serve() as site, session:
            Asked(site)
            for _ in range(2):
                async with session.get(site.url):
                    pass
    finally:
        if installed != "by hand":
            official.uninstrument()
    steps_aside = installed != "after"
    assert len(theirs.spans) == (2 if steps_aside and sampled else 0)
    assert len(ours.spans) == (0 if steps_aside else 2)
    said = [r for r in caplog.records if "leave out one" in r.getMessage()]
    assert len(said) == steps_aside


# Bad input
# =========


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
@settings(deadline=None, max_examples=40)
def test_baggage_of_any_kind_lets_the_request_go(given: dict[str, str]) -> None:
    async def ask() -> None:
        told = Told()
        held = context.get_current()
        for name, value in given.items():
            held = baggage.set_baggage(name, value, held)
        async with serve() as site:
            token = context.attach(held)
            try:
                assert await get(told, site.url) == 200
            finally:
                context.detach(token)
        assert len(told.spans) == 1

    asyncio.run(ask())
