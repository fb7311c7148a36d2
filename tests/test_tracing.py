"""One span a request, and metrics, of what really left."""

import asyncio
import gzip
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import answers
import opentracing
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from garbage import no_more_than_without
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from live import Live, eventually, live, soon
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.aiohttp_server import (
    AioHttpServerInstrumentor,
    create_aiohttp_middleware,
)
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    Decision,
    Sampler,
    SamplingResult,
)
from opentelemetry.shim.opentracing_shim import create_tracer
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
    trace_of,
)
from test_core_outcome import NEIGHBOURS

from aiohttp_middlewares import (
    error_middleware,
    proxy_headers_middleware,
    shield_middleware,
    timeout_middleware,
    tracing_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import outcome_of
from aiohttp_middlewares._core.telemetry import DURATIONS
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.client import tracing_middleware as client_tracing

KINDS = answers.KINDS
GZIP = gzip.compress(b"x" * 1000, mtime=0)
ROOT = Path(__file__).parents[1]
DURATION = "http.server.request.duration"
ACTIVE = "http.server.active_requests"
REQUEST_SIZE = "http.server.request.body.size"
RESPONSE_SIZE = "http.server.response.body.size"


async def shows(request: web.Request) -> web.Response:
    """The span within which it runs."""
    context = trace.get_current_span().get_span_context()
    return web.Response(text=f"{context.trace_id:032x} {context.span_id:016x}")


@asynccontextmanager
async def serving(
    *middlewares: Middleware, routes: Any = (), **options: Any
) -> AsyncIterator[Live]:
    app = web.Application(middlewares=middlewares)
    for path, handler in dict(routes).items():
        app.router.add_route("*", path, handler)
    async with live(answers.serve(app), **options) as site:
        yield site


async def ask(
    site: Live, line: str, fields: str = "", body: bytes = b""
) -> Any:
    connection = await site.connect()
    connection.send(line, body, fields=fields)
    try:
        if line.startswith("HEAD"):
            return await connection.head()
        return await connection.answer()
    finally:
        connection.leave()


# What it does
# ============


async def test_span_of_a_request_says_what_was_asked_and_answered() -> None:
    told = Told()
    routes = {"/users/{name}": answers.returned}
    async with serving(
        tracing_middleware(**told.providers), routes=routes
    ) as site:
        await ask(site, "GET /users/ann%20b?q=1", "User-Agent: curl/8\r\n")
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert span.name == "GET /users/{name}"
    assert span.kind is SpanKind.SERVER
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    assert dict(told_of(span)) == {
        "http.request.method": "GET",
        "http.route": "/users/{name}",
        "url.scheme": "http",
        "url.path": "/users/ann%20b",
        "url.query": "q=1",
        "server.address": "a.example",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "http.response.status_code": 200,
    }
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.name == "aiohttp_middlewares.tracing"
    assert scope.schema_url


@pytest.mark.parametrize(
    ("line", "name", "method", "original"),
    [
        ("GET /nowhere", "GET", "GET", None),
        ("QUERY /returned", "QUERY /returned", "QUERY", None),
        ("PROPFIND /returned", "HTTP /returned", "_OTHER", "PROPFIND"),
        ("PROPFIND /nowhere", "HTTP", "_OTHER", "PROPFIND"),
        ("POST /not_allowed", "POST", "POST", None),
    ],
)
async def test_name_is_the_method_and_the_route(
    line: str, name: str, method: str, original: str | None
) -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        await ask(site, line)
        await eventually(lambda: told.spans)
    (span,) = told.spans
    original_method = told_of(span).get("http.request.method_original")
    if original_method == "<unknown>":
        pytest.skip("the parser of this aiohttp does not know the method")
    assert span.name == name
    attributes = told_of(span)
    assert attributes["http.request.method"] == method
    assert attributes.get("http.request.method_original") == original
    route = name.partition(" ")[2] or None
    assert attributes.get("http.route") == route
    for point in told.points(DURATION):
        assert point.attributes["http.request.method"] == method
        assert point.attributes.get("http.route") == route


async def test_known_methods_can_be_listed_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PROPFIND"
    )
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        for method in ("GET", "PROPFIND", "POST"):
            await ask(site, f"{method} /returned")
        await eventually(lambda: len(told.spans) == 3)
    assert [span.name for span in told.spans] == [
        "GET /returned",
        "PROPFIND /returned",
        "HTTP /returned",
    ]


async def test_address_and_host_are_those_that_proxy_headers_found() -> None:
    told = Told()
    async with serving(
        proxy_headers_middleware(trusted=["127.0.0.1"], host=True),
        tracing_middleware(**told.providers),
    ) as site:
        await ask(
            site,
            "GET /returned",
            "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"
            "X-Forwarded-Host: shop.example\r\n",
        )
        await eventually(lambda: told.spans)
    attributes = told_of(told.spans[0])
    assert attributes["client.address"] == "198.51.100.7"
    assert attributes["url.scheme"] == "https"
    assert attributes["server.address"] == "shop.example"
    assert attributes["server.port"] == 443


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("a.example:8443", "a.example", 8443),
        ("[::1]:8080", "::1", 8080),
        ("a b", None, None),
        ("evil@x", None, None),
    ],
)
async def test_host_that_is_none_is_not_told(
    host: str, address: str | None, port: int | None
) -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        connection = await site.connect()
        connection.write(f"GET /returned HTTP/1.1\r\nHost: {host}\r\n\r\n")
        await connection.answer()
        connection.leave()
        await eventually(lambda: told.spans)
    attributes = told_of(told.spans[0])
    assert attributes.get("server.address") == address
    assert attributes.get("server.port") == port


async def test_values_of_secret_query_keys_are_struck_out() -> None:
    told = Told()
    query = (
        "AWSAccessKeyId=a1&Signature=a2&sig=a3&X-Goog-Signature=a4&token=a5"
        "&%74oken=a6&to%6ben=a7&page=2"
    )
    async with serving(tracing_middleware(**told.providers)) as site:
        await ask(site, f"GET /returned?{query}")
        await eventually(lambda: told.spans)
    assert told_of(told.spans[0])["url.query"] == (
        "AWSAccessKeyId=REDACTED&Signature=REDACTED&sig=REDACTED"
        "&X-Goog-Signature=REDACTED&token=REDACTED"
        "&%74oken=REDACTED&to%6ben=REDACTED&page=2"
    )


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_status_is_that_on_the_wire(
    kind: answers.Kind, neighbours: str
) -> None:
    told = Told()
    fields = {"Accept-Encoding": "gzip", **kind.fields}
    sent = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with serving(
        tracing_middleware(**told.providers), *NEIGHBOURS[neighbours]()
    ) as site:
        connection = await site.connect()
        connection.send(f"GET {kind.path}", fields=sent)
        answer = await connection.head()
        connection.leave()
        await eventually(lambda: told.spans)
    (span,) = told.spans
    attributes = told_of(span)
    assert attributes["http.response.status_code"] == answer.status
    is_error = answer.status >= 500
    assert (span.status.status_code is StatusCode.ERROR) is is_error
    assert ("error.type" in attributes) is is_error
    (active,) = told.points(ACTIVE)
    assert active.value == 0
    (duration,) = told.points(DURATION)
    assert duration.count == 1
    assert duration.attributes["http.response.status_code"] == answer.status


@pytest.mark.parametrize("inside", [[], [error_middleware()]])
async def test_unexpected_exception_is_recorded_once(
    inside: list[Middleware],
) -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers), *inside) as site:
        assert (await ask(site, "GET /failed")).status == 500
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert told_of(span)["error.type"] == "Failed"
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    assert event.name == "exception"
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "answers.Failed"
    (point,) = told.points(DURATION)
    assert point.attributes["error.type"] == "Failed"


async def test_exception_that_quotes_what_came_can_be_exported() -> None:
    async def handler(request: web.Request) -> web.Response:
        try:
            raise KeyError(request.headers["X-In"])
        except KeyError as exc:
            raise ValueError("\udcff") from exc

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": handler}
    ) as site:
        connection = await site.connect()
        connection.writer.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-In: \xff\r\n\r\n"
        )
        assert (await connection.answer()).status == 500
        connection.leave()
        await eventually(lambda: told.spans)
    (event,) = told.spans[0].events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "?"
    assert "KeyError" in str(event.attributes["exception.stacktrace"])
    for value in event.attributes.values():
        str(value).encode()


async def test_exception_without_a_text_is_recorded_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    async def handler(request: web.Request) -> web.Response:
        raise Mute

    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        error_middleware(),
        routes={"/": handler},
    ) as site:
        assert (await ask(site, "GET /")).status == 500
        await eventually(lambda: told.spans)
    (event,) = told.spans[0].events
    assert event.attributes is not None
    assert event.attributes["exception.message"] == ""
    assert "Mute" in str(event.attributes["exception.type"])


async def test_answer_of_503_is_an_error_without_an_exception() -> None:
    async def raises(request: web.Request) -> web.Response:
        raise web.HTTPServiceUnavailable

    async def returns(request: web.Request) -> web.Response:
        return web.Response(status=503)

    told = Told()
    routes = {"/raises": raises, "/returns": returns}
    async with serving(
        tracing_middleware(**told.providers), routes=routes
    ) as site:
        for path in routes:
            await ask(site, f"GET {path}")
        await eventually(lambda: len(told.spans) == 2)
    for span in told.spans:
        assert told_of(span)["error.type"] == "503"
        assert span.status.status_code is StatusCode.ERROR
        assert span.events == ()


async def test_exception_that_becomes_a_4xx_further_in_is_none() -> None:
    async def bad(request: web.Request) -> web.Response:
        return web.Response(status=422)

    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        error_middleware(config={answers.Failed: bad}),
    ) as site:
        assert (await ask(site, "GET /failed")).status == 422
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert "error.type" not in told_of(span)
    assert span.events == ()
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("error", [answers.Failed, asyncio.TimeoutError])
@pytest.mark.parametrize("inside", [[], [error_middleware()]])
async def test_stream_that_fails_is_an_error_though_its_status_was_200(
    inside: list[Middleware], error: type[Exception]
) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise error

    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        *inside,
        routes={"/broken": broken},
    ) as site:
        connection = await site.connect()
        connection.send("GET /broken")
        await connection.head()
        connection.leave()
        await eventually(lambda: told.spans)
    (span,) = told.spans
    attributes = told_of(span)
    assert attributes["http.response.status_code"] == 200
    assert attributes["error.type"] == error.__name__
    assert span.status.status_code is StatusCode.ERROR
    assert len(span.events) == 1


async def test_websocket_that_fails_is_an_error() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        raise answers.Failed

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/ws": broken}
    ) as site:
        connection = await site.connect()
        fields = "".join(
            f"{name}: {value}\r\n" for name, value in answers.UPGRADE.items()
        )
        connection.send("GET /ws", fields=fields)
        await connection.rest()
        connection.leave()
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert told_of(span)["http.response.status_code"] == 101
    assert told_of(span)["error.type"] == "Failed"
    assert span.status.status_code is StatusCode.ERROR


async def test_span_ends_with_the_last_byte() -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await go_on.wait()
        return response

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/stream": stream}
    ) as site:
        connection = await site.connect()
        connection.send("GET /stream")
        await connection.head()
        assert told.spans == []
        assert [point.value for point in told.points(ACTIVE)] == [1]
        released = time.time_ns()
        go_on.set()
        await connection.until(b"0\r\n\r\n")
        await eventually(lambda: told.spans)
        connection.leave()
    (span,) = told.spans
    assert span.end_time is not None
    assert span.end_time >= released
    assert [point.value for point in told.points(ACTIVE)] == [0]


@pytest.mark.parametrize("shielded", [True, False])
@pytest.mark.parametrize("cancelled", [True, False])
async def test_client_that_left_has_no_status(
    cancelled: bool, shielded: bool
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response(text="too late")

    told = Told()
    inside = [shield_middleware(methods={"GET"})] if shielded else []
    async with serving(
        tracing_middleware(**told.providers),
        error_middleware(),
        *inside,
        routes={"/slow": slow},
        handler_cancellation=cancelled,
    ) as site:
        connection = await site.connect()
        connection.send("GET /slow")
        await entered.wait()
        assert [point.value for point in told.points(ACTIVE)] == [1]
        connection.reset()
        if not cancelled:
            await eventually(
                lambda: all(
                    each.transport is None
                    for each in site.runner.server.connections  # type: ignore[union-attr]
                )
            )
            go_on.set()
        await eventually(lambda: told.spans)
        go_on.set()
    (span,) = told.spans
    attributes = told_of(span)
    assert "http.response.status_code" not in attributes
    assert attributes["error.type"] == "499"
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    assert [point.value for point in told.points(ACTIVE)] == [0]
    (point,) = told.points(DURATION)
    assert "http.response.status_code" not in point.attributes
    assert point.attributes["error.type"] == "499"


async def test_shielded_handler_that_begins_too_late_is_not_counted() -> None:
    entered, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    outcomes: list[object] = []

    @middleware
    async def observes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outcome_of(request).observe("test", outcomes.append)
        return await handler(request)

    @middleware
    async def waits(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        entered.set()
        await go_on.wait()
        response = await handler(request)
        done.set()
        return response

    told = Told()
    async with serving(
        observes,
        shield_middleware(methods={"GET"}),
        waits,
        tracing_middleware(**told.providers),
    ) as site:
        connection = await site.connect()
        connection.send("GET /returned")
        await entered.wait()
        connection.reset()
        await eventually(lambda: outcomes)
        go_on.set()
        await soon(done.wait())
    assert told.spans == []
    assert told.points(ACTIVE) == []


async def test_client_that_left_in_the_middle_has_had_the_status() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)
            await asyncio.sleep(0)

    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        routes={"/endless": endless},
        handler_cancellation=False,
    ) as site:
        connection = await site.connect()
        connection.send("GET /endless")
        await connection.head()
        connection.reset()
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert told_of(span)["http.response.status_code"] == 200
    assert "error.type" not in told_of(span)
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


async def test_late_answer_is_an_error_of_504() -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        error_middleware(),
        timeout_middleware(0.01),
        routes={"/slow": slow},
    ) as site:
        assert (await ask(site, "GET /slow")).status == 504
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert told_of(span)["http.response.status_code"] == 504
    assert told_of(span)["error.type"] == "RequestTimeout"
    assert span.status.status_code is StatusCode.ERROR


async def test_headers_that_are_asked_for_are_told_line_by_line() -> None:
    async def handler(request: web.Request) -> web.Response:
        response = web.Response(headers={"X-Out": "1"})
        response.headers.add("X-Out", "2")
        return response

    told = Told()
    async with serving(
        tracing_middleware(
            **told.providers,
            capture_request_headers=["X-In", "X-Absent"],
            capture_response_headers=["X-Out", "Content-Length"],
        ),
        routes={"/": handler},
    ) as site:
        await ask(site, "GET /", "x-in: a\r\nX-IN: b, c\r\n")
        await eventually(lambda: told.spans)
    attributes = told_of(told.spans[0])
    assert attributes["http.request.header.x-in"] == ("a", "b, c")
    assert attributes["http.response.header.x-out"] == ("1", "2")
    assert attributes["http.response.header.content-length"] == ("0",)
    assert "http.request.header.x-absent" not in attributes


# Where it belongs
# ================


async def test_trace_that_a_request_names_is_continued() -> None:
    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": shows}
    ) as site:
        answer = await ask(
            site,
            "GET /",
            f"traceparent: {TRACEPARENT}\r\ntracestate: a=1\r\n"
            "Tracestate: b=2\r\n",
        )
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert (trace_of(span), parent_of(span)) == (TRACE, SPAN)
    assert span.parent is not None
    assert span.parent.is_remote
    assert span.context is not None
    # Two lines are one list.
    assert dict(span.context.trace_state) == {"a": "1", "b": "2"}
    assert answer.rest.decode() == f"{TRACE} {id_of(span)}"


async def test_caller_that_does_not_sample_is_followed() -> None:
    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": shows}
    ) as site:
        answer = await ask(
            site, "GET /", f"traceparent: 00-{TRACE}-{SPAN}-00\r\n"
        )
        await eventually(lambda: told.points(DURATION))
    assert told.spans == []
    assert answer.rest.decode().startswith(TRACE)
    assert SPAN not in answer.rest.decode()


async def test_requests_of_one_connection_do_not_mix() -> None:
    told = Told()
    async with serving(
        tracing_middleware(**told.providers),
        error_middleware(),
        routes={"/": shows},
    ) as site:
        connection = await site.connect()
        connection.send("GET /", fields=f"traceparent: {TRACEPARENT}\r\n")
        connection.send("GET /failed")
        connection.send("GET /")
        for _ in range(3):
            await connection.answer()
        connection.leave()
        await eventually(lambda: len(told.spans) == 3)
    first, second, third = told.spans
    assert trace_of(first) == TRACE
    assert second.parent is third.parent is None
    assert len({trace_of(span) for span in told.spans}) == 3
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_concurrent_requests_do_not_mix() -> None:
    told = Told()
    barrier = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await barrier.wait()
        return await shows(request)

    async with serving(
        tracing_middleware(**told.providers), routes={"/{n}": handler}
    ) as site:
        asking = [
            asyncio.create_task(ask(site, f"GET /{number}"))
            for number in range(20)
        ]
        await eventually(
            lambda: [point.value for point in told.points(ACTIVE)] == [20]
        )
        barrier.set()
        found = await asyncio.gather(*asking)
        await eventually(lambda: len(told.spans) == 20)
    assert {answer.rest.decode() for answer in found} == {
        f"{trace_of(span)} {id_of(span)}" for span in told.spans
    }


async def test_span_is_current_in_what_is_logged_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Told()

    def note(record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace = f"{context.trace_id:032x}"
        return True

    caplog.set_level(logging.INFO, "aiohttp.access")
    caplog.handler.addFilter(note)
    async with serving(tracing_middleware(**told.providers)) as site:
        await ask(site, "GET /failed")
        await eventually(lambda: told.spans)
    (span,) = told.spans
    traces = {
        record.name: vars(record)["trace"]
        for record in caplog.records
        if record.name.startswith("aiohttp")
    }
    assert traces == {
        "aiohttp.access": trace_of(span),
        "aiohttp.server": trace_of(span),
    }


async def test_browser_two_servers_and_the_call_between_are_one_tree() -> None:
    told = Told()
    second = web.Application(middlewares=[tracing_middleware(**told.providers)])
    second.router.add_get("/second", answers.returned)
    async with TestServer(second) as inner:

        async def asks(request: web.Request) -> web.Response:
            async with (
                aiohttp.ClientSession(
                    middlewares=[client_tracing(**told.providers)]
                ) as session,
                session.get(inner.make_url("/second")) as answer,
            ):
                return web.Response(text=await answer.text())

        async with serving(
            tracing_middleware(**told.providers), routes={"/first": asks}
        ) as site:
            await ask(site, "GET /first", f"traceparent: {TRACEPARENT}\r\n")
            await eventually(lambda: len(told.spans) == 3)
    spans = {(span.name, span.kind): span for span in told.spans}
    first = spans["GET /first", SpanKind.SERVER]
    call = spans["GET", SpanKind.CLIENT]
    last = spans["GET /second", SpanKind.SERVER]
    assert {trace_of(span) for span in told.spans} == {TRACE}
    assert parent_of(first) == SPAN
    assert parent_of(call) == id_of(first)
    assert parent_of(last) == id_of(call)


async def test_opentracing_code_joins_through_the_shim() -> None:
    told = Told()
    shim = create_tracer(told.tracers)
    assert isinstance(shim, opentracing.Tracer)

    async def handler(request: web.Request) -> web.Response:
        with shim.start_active_span("query"):
            return web.Response()

    async with serving(
        tracing_middleware(**told.providers), routes={"/": handler}
    ) as site:
        await ask(site, "GET /", f"traceparent: {TRACEPARENT}\r\n")
        await eventually(lambda: len(told.spans) == 2)
    query, request = told.spans
    assert query.name == "query"
    assert parent_of(query) == id_of(request)
    assert trace_of(query) == TRACE


# One span a request
# ==================


async def test_listed_twice_and_in_a_sub_application_it_is_one() -> None:
    told = Told()

    def ours() -> Middleware:
        return tracing_middleware(**told.providers)

    inner = web.Application(middlewares=[ours()])
    inner.router.add_get("/users/{name}", shows)
    app = web.Application(middlewares=[ours(), *NEIGHBOURS["cloned"](), ours()])
    app.add_subapp("/inner", inner)
    async with live(app) as site:
        await ask(site, "GET /inner/users/ann")
        await eventually(lambda: told.spans)
    (span,) = told.spans
    assert span.name == "GET /inner/users/{name}"
    (duration,) = told.points(DURATION)
    assert duration.count == 1
    assert duration.attributes["http.route"] == "/inner/users/{name}"


async def test_only_in_a_sub_application_it_traces_that() -> None:
    told = Told()
    inner = web.Application(middlewares=[tracing_middleware(**told.providers)])
    inner.router.add_get("/{name}", shows)
    app = web.Application()
    app.add_subapp("/inner", inner)
    app.router.add_get("/outer", shows)
    async with live(app) as site:
        await ask(site, "GET /outer")
        await ask(site, "GET /inner/a")
        await eventually(lambda: told.spans)
    assert [span.name for span in told.spans] == ["GET /inner/{name}"]


@pytest.mark.filterwarnings("ignore:Inheritance class")
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("instrumented", ["before", "after", "inside"])
async def test_beside_the_official_instrumentation_there_is_one_span(
    instrumented: str, sampled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = Told(sampler=None if sampled else ALWAYS_OFF)
    ours = Told()
    official = AioHttpServerInstrumentor()
    listed: list[Any] = [tracing_middleware(**ours.providers)]
    if instrumented == "before":
        official.instrument(tracer_provider=theirs.tracers)
    try:
        app = web.Application(middlewares=listed)
    finally:
        if instrumented == "before":
            official.uninstrument()
    if instrumented == "after":
        # It reaches only applications that are made later.
        official.instrument(tracer_provider=theirs.tracers)
        official.uninstrument()
    if instrumented == "inside":
        official.instrument(tracer_provider=theirs.tracers)
        official.uninstrument()
        app = web.Application(
            middlewares=[
                *listed,
                create_aiohttp_middleware(tracer_provider=theirs.tracers),
            ]
        )
    app.router.add_get("/", shows)
    async with live(app) as site:
        for _ in range(2):
            await ask(site, "GET /")
        if instrumented == "after":
            await eventually(lambda: len(ours.spans) == 2)
    steps_aside = instrumented != "after"
    assert len(theirs.spans) == (2 if steps_aside and sampled else 0)
    assert len(ours.spans) == (0 if steps_aside else 2)
    said = [r for r in caplog.records if "leave out one" in r.getMessage()]
    assert len(said) == steps_aside
    if steps_aside:
        assert ours.points(DURATION) == []


async def test_what_is_ignored_has_no_span_and_begins_no_trace() -> None:
    told = Told()
    tracer = told.tracers.get_tracer("own")

    async def handler(request: web.Request) -> web.Response:
        with tracer.start_as_current_span("own"):
            return await shows(request)

    async with serving(
        tracing_middleware(**told.providers, ignore={"/health": "GET"}),
        tracing_middleware(**told.providers),
        routes={"/health": handler},
    ) as site:
        await ask(site, "GET /health")
        assert told.spans == []
        # It belongs to the trace that it came with.
        await ask(site, "GET /health", f"traceparent: {TRACEPARENT}\r\n")
        await eventually(lambda: told.spans)
        (own,) = told.spans
        assert (own.name, trace_of(own), parent_of(own)) == ("own", TRACE, SPAN)
        assert told.points(DURATION) == told.points(ACTIVE) == []
        await ask(site, "POST /health")
        await eventually(lambda: len(told.spans) == 3)


async def test_path_that_misleads_is_traced() -> None:
    told = Told()
    async with serving(
        tracing_middleware(**told.providers, ignore=[re.compile("/open/")])
    ) as site:
        for path in ("/open/a", "/open/../returned", "/open/%2e%2e/returned"):
            await ask(site, f"GET {path}")
        await eventually(lambda: len(told.spans) == 2)


async def test_where_instrumentation_is_suppressed_there_is_none() -> None:
    told = Told()

    @middleware
    async def suppress(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        with suppress_instrumentation():
            return await handler(request)

    async with serving(suppress, tracing_middleware(**told.providers)) as site:
        assert (await ask(site, "GET /returned")).status == 200
    assert told.spans == []
    assert told.points(DURATION) == []


# Metrics
# =======


async def test_metrics_tell_durations_and_sizes() -> None:
    async def reads(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="12345")

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/users/{n}": reads}
    ) as site:
        await ask(site, "POST /users/1", body=b"x" * 1000)
        await eventually(lambda: told.points(DURATION))
    labels = {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/users/{n}",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }
    (duration,) = told.points(DURATION)
    assert dict(duration.attributes) == labels
    assert 0 < duration.sum < 20
    assert tuple(duration.explicit_bounds) == DURATIONS
    (came,) = told.points(REQUEST_SIZE)
    assert (dict(came.attributes), came.sum) == (labels, 1000)
    (went,) = told.points(RESPONSE_SIZE)
    assert (dict(went.attributes), went.sum) == (labels, 5)
    (active,) = told.points(ACTIVE)
    assert dict(active.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "http",
    }


@pytest.mark.parametrize(
    ("path", "fields"), [("/returned", {}), ("/websocket", answers.UPGRADE)]
)
async def test_duration_is_linked_to_the_span(
    path: str, fields: dict[str, str]
) -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        connection = await site.connect()
        connection.send(
            f"GET {path}",
            fields="".join(f"{name}: {fields[name]}\r\n" for name in fields),
        )
        await connection.head()
        connection.leave()
        await eventually(lambda: told.spans)
    (point,) = told.points(DURATION)
    (exemplar,) = point.exemplars
    assert f"{exemplar.span_id:016x}" == id_of(told.spans[0])


async def test_what_clients_make_up_adds_no_series() -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        connection = await site.connect()
        for number in range(50):
            connection.write(
                f"PROPFIND /{number} HTTP/1.1\r\nHost: h{number}.example\r\n"
                f"User-Agent: {number}\r\n\r\n"
            )
            await connection.answer()
        connection.leave()
        await eventually(lambda: len(told.spans) == 50)
    for name in (DURATION, ACTIVE, REQUEST_SIZE, RESPONSE_SIZE):
        assert len(told.points(name)) == 1, name


@pytest.mark.parametrize(
    ("fields", "body", "size"),
    [
        ("Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n", 3),
        ("", b"", 0),
        (
            f"Content-Encoding: gzip\r\nContent-Length: {len(GZIP)}\r\n",
            GZIP,
            len(GZIP),
        ),
        # What aiohttp has decoded says nothing of that.
        (
            "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIP), GZIP),
            None,
        ),
    ],
    ids=["chunked", "empty", "gzip", "gzip-chunked"],
)
async def test_size_of_a_request_is_that_of_the_bytes_that_came(
    fields: str, body: bytes, size: int | None
) -> None:
    async def reads(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": reads}
    ) as site:
        connection = await site.connect()
        connection.write(f"POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n", body)
        assert (await connection.answer()).status == 200
        connection.leave()
        await eventually(lambda: told.spans)
    found = [point.sum for point in told.points(REQUEST_SIZE)]
    assert found == ([] if size is None else [size])


async def test_length_that_is_only_claimed_does_not_count() -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        connection = await site.connect()
        connection.send("POST /returned", b"abc", length=10**12)
        await connection.answer()
        connection.leave()
        await eventually(lambda: told.spans)
    (point,) = told.points(REQUEST_SIZE)
    assert point.sum == 3


# Without an SDK, and with one that comes late
# ============================================

LATE = """
import asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry import metrics, trace
from telemetry import Told, TRACE, TRACEPARENT
from aiohttp_middlewares import tracing_middleware
from aiohttp_middlewares.client import tracing_middleware as client_tracing

async def shows(request):
    return web.json_response(dict(request.headers))

async def asks(request):
    async with request.app["client"].get("/shows") as response:
        return web.json_response(await response.json())

async def sets(request):
    metrics.set_meter_provider(told.meters)
    return web.Response()

told = Told()

async def main():
    app = web.Application(middlewares=[tracing_middleware()])
    app.router.add_get("/sets", sets)
    app.router.add_get("/shows", shows)
    app.router.add_get("/asks", asks)
    server = TestServer(app)
    async with TestClient(server, middlewares=[client_tracing()]) as client:
        app._state["client"] = client
        # It passes on what comes.
        response = await client.get(
            "/asks", headers={"traceparent": TRACEPARENT, "baggage": "a=b"},
            middlewares=(),
        )
        sent = await response.json()
        assert sent["traceparent"] == TRACEPARENT, sent
        assert sent["baggage"] == "a=b", sent
        response = await client.get("/asks")
        assert "traceparent" not in await response.json()
        trace.set_tracer_provider(told.tracers)
        await client.get("/sets", middlewares=())
        await client.get("/asks", middlewares=())
        await asyncio.sleep(0)
        assert [span.name for span in told.spans] == [
            "GET /sets", "GET /shows", "GET", "GET /asks"
        ], told.spans
        # The request that was there before is counted neither up nor down.
        (active,) = told.points("http.server.active_requests")
        assert active.value == 0, active
        assert len(told.points("http.server.request.duration")) == 2
        assert len(told.points("http.client.request.duration")) == 1

asyncio.run(main())
"""


def test_provider_that_is_set_later_counts_and_without_one_traces_pass() -> (
    None
):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LATE],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        text=True,
    )
    assert done.returncode == 0, done.stderr


async def test_with_a_provider_of_one_kind_the_other_is_left_out() -> None:
    told = Told()
    async with serving(tracing_middleware(meter_provider=told.meters)) as site:
        await ask(site, "GET /returned")
        await eventually(lambda: told.points(DURATION))
    told = Told()
    async with serving(
        tracing_middleware(tracer_provider=told.tracers)
    ) as site:
        await ask(site, "GET /returned")
        await eventually(lambda: told.spans)
    assert told.points(DURATION) == []


async def test_what_is_not_sampled_is_measured_all_the_same() -> None:
    told = Told(sampler=ALWAYS_OFF)
    async with serving(tracing_middleware(**told.providers)) as site:
        await ask(site, "GET /failed")
        await eventually(lambda: told.points(DURATION))
    assert told.spans == []
    (point,) = told.points(DURATION)
    assert point.attributes["error.type"] == "Failed"
    assert [active.value for active in told.points(ACTIVE)] == [0]


class Curious(Sampler):
    """Keeps the attributes that it is asked by, and drops every span."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.asked.append(attributes)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "Curious"


async def test_sampler_may_ask_for_all_that_is_known_at_the_start() -> None:
    sampler = Curious()
    told = Told(sampler=sampler)
    async with serving(
        tracing_middleware(
            tracer_provider=told.tracers, capture_request_headers=["Accept"]
        )
    ) as site:
        connection = await site.connect()
        sent = "User-Agent: curl/8\r\nAccept: */*\r\n"
        connection.send("GET /returned?q=1", fields=sent)
        await connection.answer()
        (attributes,) = sampler.asked
        assert attributes["url.path"] == "/returned"
        assert len(attributes) == 11
        assert dict(attributes) == dict(attributes.items())
        assert dict(attributes) == {
            "http.request.method": "GET",
            "http.route": "/returned",
            "url.scheme": "http",
            "url.path": "/returned",
            "url.query": "q=1",
            "network.protocol.version": "1.1",
            "server.address": "a.example",
            "server.port": 80,
            "client.address": "127.0.0.1",
            "user_agent.original": "curl/8",
            "http.request.header.accept": ["*/*"],
        }
        connection.leave()
    assert told.spans == []


async def test_trace_goes_on_where_a_span_cannot_be_started() -> None:
    told = Told()
    told.tracers.add_span_processor(Broken("start"))
    async with serving(
        tracing_middleware(**told.providers), routes={"/shows": shows}
    ) as site:
        answer = await ask(
            site, "GET /shows", f"traceparent: {TRACEPARENT}\r\n"
        )
    assert answer.rest.decode() == f"{TRACE} {SPAN}"


@pytest.mark.parametrize("at", ["start", "end"])
async def test_processor_that_fails_harms_nobody(
    at: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    told.tracers.add_span_processor(Broken(at))
    async with serving(tracing_middleware(**told.providers)) as site:
        answer = await ask(site, "GET /returned")
        await eventually(lambda: "ZeroDivisionError" in caplog.text)
    assert (answer.status, answer.rest) == (200, b"returned")
    assert [point.value for point in told.points(ACTIVE)] in ([], [0])


async def test_nothing_more_waits_for_the_garbage_collector() -> None:
    told = Told(sampler=ALWAYS_OFF)
    await no_more_than_without(
        tracing_middleware(**told.providers), beside=(error_middleware(),)
    )


# Bad input
# =========


def header_values() -> st.SearchStrategy[bytes]:
    known = st.sampled_from(
        [
            TRACEPARENT.encode(),
            TRACEPARENT.upper().encode(),
            b"00-%b-%b-01" % (b"0" * 32, b"0" * 16),
            b"ff-" + TRACEPARENT[3:].encode(),
            TRACEPARENT.encode() + b"-extra",
            b"a=1",
            b"a=\xff",
            b"\xff",
            b"a%0d%0ax=b%0d%0ac",
            b"=",
            b",,,=;;",
            b"a=" + b"x" * 5000,
        ]
    )
    anything = st.binary(max_size=60).map(
        lambda value: bytes(
            byte
            for byte in value
            if byte in b"\t" or (byte >= 32 and byte != 127)
        ).strip()
    )
    return known | anything


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(
                [b"traceparent", b"tracestate", b"baggage", b"User-Agent"]
            ),
            header_values(),
        ),
        max_size=5,
    ),
    target=st.binary(max_size=40).map(
        lambda text: bytes(byte for byte in text if byte > 32 and byte != 127)
    ),
)
@example(fields=[(b"baggage", b"\xff")], target=b"")
@example(fields=[(b"baggage", b"a%0d%0ab=1")], target=b"")
@example(
    fields=[(b"User-Agent", b"\xff\xfe")], target=b"\xff?\xfe=\xfd&sig=\xfc"
)
@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_clients_send_never_fails(
    fields: list[tuple[bytes, bytes]], target: bytes
) -> None:
    asyncio.run(send_anything(fields, target))


async def send_anything(
    fields: list[tuple[bytes, bytes]], target: bytes
) -> None:
    told = Told()
    second = web.Application(middlewares=[tracing_middleware(**told.providers)])
    second.router.add_get("/", answers.returned)
    async with TestServer(second) as inner:

        async def asks(request: web.Request) -> web.Response:
            async with (
                aiohttp.ClientSession(
                    middlewares=[client_tracing(**told.providers)]
                ) as session,
                session.get(inner.make_url("/")) as answer,
            ):
                return web.Response(text=await answer.text())

        async with serving(
            tracing_middleware(
                **told.providers,
                capture_request_headers=["User-Agent", "baggage"],
            ),
            routes={"/{tail:.*}": asks},
        ) as site:
            connection = await site.connect()
            sent = b"".join(b"%b: %b\r\n" % pair for pair in fields)
            connection.writer.write(
                b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, sent)
            )
            answer = await connection.answer()
            connection.leave()
            assert answer.status in (200, 400)
            if answer.status == 200:
                await eventually(lambda: len(told.spans) == 3)
    for span in told.spans:
        for key, value in told_of(span).items():
            for text in value if isinstance(value, tuple) else [value]:
                str(text).encode()  # as an exporter does
                assert key != "url.query" or "\udcfc" not in str(text)
    if told.spans:
        assert len({trace_of(span) for span in told.spans}) == 1


async def test_baggage_reaches_the_handler() -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(dict(baggage.get_all()))
        return web.Response()

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": handler}
    ) as site:
        await ask(site, "GET /", "baggage: user=ann\r\n")
    assert seen == [{"user": "ann"}]


async def test_baggage_that_cannot_be_read_does_not_break_the_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = Told()
    async with serving(tracing_middleware(**told.providers)) as site:
        connection = await site.connect()
        connection.writer.write(
            b"GET /returned HTTP/1.1\r\nHost: a\r\nbaggage: a\xff=1\r\n"
            b"traceparent: %b\r\n\r\n" % TRACEPARENT.encode()
        )
        assert (await connection.answer()).status == 200
        connection.leave()
        await eventually(lambda: told.spans)
    assert trace_of(told.spans[0]) == TRACE
    assert [r for r in caplog.records if r.name.startswith("opentel")] == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('baggage: a=1,nonsense,b="2",c(=3,,d=4', {"a": "1", "d": "4"}),
        (f"baggage: a=1,b={'x' * 5000}", {"a": "1"}),
        ("tracestate: v=1,NONSENSE=1", {}),
    ],
)
async def test_what_is_malformed_is_not_quoted_in_the_log(
    sent: str, kept: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(dict(baggage.get_all()))
        return web.Response()

    told = Told()
    async with serving(
        tracing_middleware(**told.providers), routes={"/": handler}
    ) as site:
        await ask(site, "GET /", f"traceparent: {TRACEPARENT}\r\n{sent}\r\n")
        await eventually(lambda: told.spans)
    assert trace_of(told.spans[0]) == TRACE
    assert seen == [kept]
    assert [r for r in caplog.records if r.name.startswith("opentel")] == []


class Reader(TextMapPropagator):
    """Reads two fields, and that is all."""

    def __init__(self) -> None:
        self.read: list[Any] = []

    def extract(
        self, carrier: Any, context: Any = None, getter: Any = None
    ) -> Any:
        names = ("baggage", "tracestate")
        self.read = [getter.get(carrier, name) for name in names]
        return Context()

    def inject(
        self, carrier: Any, context: Any = None, setter: Any = None
    ) -> None: ...

    @property
    def fields(self) -> set[str]:
        return set()


async def test_no_run_of_blanks_in_a_baggage_is_searched_again_and_again() -> (
    None
):
    usual = propagate.get_global_textmap()
    propagate.set_global_textmap(reader := Reader())
    blanks = " \t" * 1000
    try:
        async with serving(tracing_middleware(**Told().providers)) as site:
            await ask(
                site,
                "GET /returned",
                f"baggage: a=1{blanks},b{blanks}={blanks}2{blanks};c\r\n"
                "tracestate: a=1 \t, b=2  3 ,,c@d=;\r\n",
            )
    finally:
        propagate.set_global_textmap(usual)
    # What stands in a trace state belongs to others, and is left alone.
    assert reader.read == [["a=1,b = 2 ;c"], ["a=1 \t, b=2  3 ,,c@d=;"]]


class Odd(TextMapPropagator):
    """Raises, or sends what no header may hold."""

    def __init__(self, sends: str | None) -> None:
        self.sends = sends

    def extract(
        self, carrier: Any, context: Any = None, getter: Any = None
    ) -> Any:
        # One that looks for a family of names.
        assert "host" in {name.lower() for name in getter.keys(carrier)}
        raise ZeroDivisionError

    def inject(
        self, carrier: Any, context: Any = None, setter: Any = None
    ) -> None:
        if self.sends is None:
            raise ZeroDivisionError
        carrier["X-Odd"] = self.sends
        carrier[f"X-{self.sends}"] = "1"  # as Jaeger's

    @property
    def fields(self) -> set[str]:
        return {"X-Odd"}


@pytest.mark.parametrize(
    ("sends", "sent"),
    [
        (None, None),
        ("a\r\nb: c", None),
        ("a b: c", "a b: c"),
        ("\udcff", None),
        ("fine", "fine"),
    ],
)
async def test_propagator_that_fails_harms_nobody(
    sends: str | None, sent: str | None
) -> None:
    told = Told()

    async def seen(request: web.Request) -> web.Response:
        return web.json_response(request.headers.get("X-Odd"))

    usual = propagate.get_global_textmap()
    propagate.set_global_textmap(Odd(sends))
    try:
        async with serving(
            tracing_middleware(**told.providers), routes={"/": seen}
        ) as site:
            async with (
                aiohttp.ClientSession(
                    middlewares=[client_tracing(**told.providers)]
                ) as session,
                session.get(f"http://{site.host}:{site.port}/") as answer,
            ):
                assert await answer.json() == sent
            await eventually(lambda: len(told.spans) == 2)
    finally:
        propagate.set_global_textmap(usual)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tracer_provider": "x"}, TypeError),
        ({"meter_provider": Told().tracers}, TypeError),
        ({"ignore": "/health"}, TypeError),
        ({"capture_request_headers": "X-In"}, TypeError),
        ({"capture_request_headers": ["a b"]}, ValueError),
        ({"capture_request_headers": ["Authorization"]}, ValueError),
        ({"capture_request_headers": ["Cookie"]}, ValueError),
        ({"capture_response_headers": ["Set-Cookie"]}, ValueError),
        ({"capture_response_headers": ["X-Api-Key"]}, ValueError),
        ({"capture_response_headers": [1]}, TypeError),
    ],
)
@pytest.mark.parametrize("factory", [tracing_middleware, client_tracing])
def test_wrong_option_is_refused(
    factory: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    if factory is client_tracing and "ignore" in options:
        options = {"origins": "https://a.example"}
    with pytest.raises(error, match="tracing_middleware"):
        factory(**options)


@pytest.mark.parametrize("factory", [tracing_middleware, client_tracing])
def test_missing_extra_is_named(
    factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ImportError) as caught:
        factory()
    assert "tracing_middleware needs opentelemetry-api; pip install" in str(
        caught.value
    )
    assert '"aiohttp-middlewares[tracing]"' in str(caught.value)
