r"""
==================
Tracing middleware
==================

Traces every request with OpenTelemetry, as a span and in metrics: to see where
the time of one request went, in this service and in those that it calls.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import error_middleware, tracing_middleware

    app = web.Application(
        middlewares=[
            tracing_middleware(ignore=["/health"]),
            error_middleware(),
        ]
    )

It needs the extra ``tracing``, which is OpenTelemetry's API. Its SDK decides
what becomes of spans and metrics: install ``opentelemetry-sdk`` and an
exporter, and set the providers, before or after the application is built. If
none is set, the context of a trace is passed on and nothing else happens.

.. code-block:: python

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        ConsoleSpanExporter,
    )


    def set_up_tracing() -> None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
        trace.set_tracer_provider(provider)

:doc:`/client/tracing` continues the trace in the requests that a handler makes.

Spans and metrics
=================

By the stable semantic conventions for HTTP. The span is one of a server, named
``GET /users/{name}``: by the method and the route, ``GET`` where no route fits,
and ``HTTP`` for a method that is not known. Known are those of RFC 9110, PATCH
and QUERY; the variable ``OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`` lists others
in their place. It has these attributes:

* ``http.request.method``, and ``http.request.method_original`` where that is
  ``_OTHER``; ``http.route``
* ``url.scheme``, ``url.path``, ``url.query``: as they were sent, but for values
  of the query that may be secrets, which become ``REDACTED``
* ``server.address`` and ``server.port``: what the client asked for;
  ``client.address``; ``network.protocol.version``; ``user_agent.original``
* ``http.response.status_code``: that of the answer that really left, whoever
  made it
* ``error.type``: the name of the exception, or the status

Its status is an error from 500 up, and where an answer broke off as the handler
failed. The exception is recorded, also one that an error middleware further in
has answered. Where the client left before the answer was out, there is no
status code, ``error.type`` is ``499``, and the status stays unset.

It continues the trace that the request names by the global propagator, which
is by default ``traceparent`` and ``baggage``; what is malformed in these is
left out. It is the current span in the handler, in everything further in, and
in what is logged for the request until it is over, aiohttp's access log
included. It ends when the last byte of the answer is out, that of a stream or a
WebSocket too, or when the client has left.

The metrics are ``http.server.request.duration`` and
``http.server.active_requests``, and the sizes of bodies on the wire,
``http.server.request.body.size`` and ``http.server.response.body.size``. So far
only the first is stable in the conventions. Nothing that a client makes up is
in their attributes.

One span a request
==================

Listed twice, or in a sub-application too, the outer one counts. Where
``opentelemetry-instrumentation-aiohttp-server`` traces the application as
well, this one steps aside and says so once in the log.

What ``ignore`` names has neither a span nor metrics. What is done for it begins
no traces of its own: it belongs to the trace that the request came with, or to
none, as its parent is not sampled. (A sampler that does not look at the parent
does not see that; the SDK's own default does.)

OpenTracing
===========

Code that was written for OpenTracing joins through OpenTelemetry's shim:

.. code-block:: python

    import opentracing
    from opentelemetry import trace
    from opentelemetry.shim.opentracing_shim import create_tracer


    def join_opentracing() -> None:
        tracer = create_tracer(trace.get_tracer_provider())
        opentracing.set_global_tracer(tracer)


    def query() -> None:
        tracer = opentracing.global_tracer()
        with tracer.start_active_span("query"):
            ...  # a child of the span of the request

Order
=====

Outermost but for the request id and :mod:`aiohttp_middlewares.proxy_headers`:
client, scheme and host are those that the request has where this stands.
Outside of all that answers, as what is answered outside of it is in no span.

Limits
======

A path may hold secrets, such as the token of a link: it is recorded as it is,
and so are headers that are to be captured. Those with a secret name are
refused. A request that aiohttp cannot parse has no span, nor has one with an
``Expect`` that it does not know. The parser of aiohttp 3.12 does not know
QUERY, and its name is lost there.
"""

import logging
import random
import re
import sys
from collections.abc import ItemsView, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.failures import on_failure
from aiohttp_middlewares._core.grammar.authority import (
    DEFAULT_PORTS,
    parse_authority,
)
from aiohttp_middlewares._core.grammar.fields import TOKEN
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, is_over, outcome_of
from aiohttp_middlewares._core.requests import authority_text, lines, warn_once
from aiohttp_middlewares._core.routes import UNMATCHED, route_of
from aiohttp_middlewares._core.statuses import is_http
from aiohttp_middlewares._core.telemetry import (
    ERROR,
    METHOD,
    PORT,
    ROUTE,
    SERVER,
    STATUS,
    VERSION,
    Captured,
    MeterProvider,
    Telemetry,
    TracerProvider,
    exception_told,
    headers_told,
    redacted,
    storable,
    version_of,
)
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)

__all__ = ("tracing_middleware",)

#: For the sizes of bodies, in bytes: the conventions advise nothing.
_SIZES = (0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
_SCHEME = "url.scheme"
_OFFICIAL = "opentelemetry.instrumentation.aiohttp_server"

logger: logging.Logger = logs.get_logger(__name__)


def tracing_middleware(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    ignore: Urls | None = None,
    capture_request_headers: StrCollection = (),
    capture_response_headers: StrCollection = (),
) -> Middleware:
    """Make a span of every request, and metrics.

    :param tracer_provider:
        The ``opentelemetry.trace.TracerProvider`` that gets the spans. By
        default: the global one, also one that is set later.
    :param meter_provider:
        The ``opentelemetry.metrics.MeterProvider`` that gets the metrics. By
        default: the global one, also one that is set later.
    :param ignore:
        URLs that are not traced: a collection of paths, patterns and URLs, or
        a mapping of them to methods. By default: none.
    :param capture_request_headers:
        The names of request headers to tell of, as
        ``http.request.header.<name>``, each line a value. By default: none.
    :param capture_response_headers:
        The same for the response, ``http.response.header.<name>``.
    :raises ImportError: opentelemetry-api is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a header name is none, or one of secrets.
    """
    what = "tracing_middleware"
    telemetry = Telemetry(what, __name__, tracer_provider, meter_provider)
    server = _Server(
        telemetry,
        telemetry.captured("request", capture_request_headers),
        telemetry.captured("response", capture_response_headers),
    )
    is_ignored = exemption(f"{what} ignore", ignore)
    attach = telemetry.api.context.attach
    say_so = warn_once(
        logger,
        "opentelemetry-instrumentation-aiohttp-server traces this application "
        "too, so that tracing_middleware does not: leave out one of them",
    )

    @middleware
    async def tracing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if stored(request, _KEY) or telemetry.is_suppressed():
            return await handler(request)
        if _OFFICIAL in sys.modules and _is_traced_otherwise(request):
            say_so()
            return await handler(request)
        request[_KEY] = True
        context = server.context_of(request)
        # A shielded handler may begin when the client has left.
        if telemetry.is_idle() or is_over(request):
            attach(context)
            return await handler(request)
        if is_ignored is not None and is_ignored(request):
            attach(server.unsampled(context))
            return await handler(request)
        traced = None
        try:
            span, context = server.start_span(request, context)
            if telemetry.has_meters() or span.is_recording():
                traced = _Traced(server, request, span, context)
        except Exception:
            # A sampler or a processor, which are not ours.
            logger.exception("A span could not be started")
        # It stays: each request has a context of its own, and what is logged
        # for it in the end belongs to it as well.
        attach(context)
        if traced is None:
            return await handler(request)
        try:
            return await handler(request)
        except Exception as exc:
            traced.passes(request, exc)
            raise

    return tracing


_KEY = request_key("aiohttp_middlewares.tracing", bool)


def _is_traced_otherwise(request: web.Request) -> bool:
    """Whether the official instrumentation is in a list that it passes.

    It may stand further in, where it would not know of this one.
    """
    for app in request.match_info.apps:
        for each in app.middlewares:
            if getattr(each, "__module__", None) == _OFFICIAL:
                return True
    return False


class _Headers:
    """How a propagator reads the headers of a request: a ``Getter``."""

    def get(self, carrier: web.Request, key: str) -> list[str] | None:
        found = lines(carrier, key)
        if not found:
            return None
        # What names a trace is in ASCII. Some propagators raise at others,
        # some quote them in the log.
        found = [line for line in found if line.isascii()]
        if key == "baggage":
            found = [_members(line) for line in found]
        elif key == "tracestate" and not all(map(_is_state, found)):
            return None
        return found or None

    def keys(self, carrier: web.Request) -> list[str]:
        return list(carrier.headers)


def _members(baggage: str) -> str:
    """The members of a baggage that OpenTelemetry takes.

    It quotes the others in the log, one by one. And it looks for the commas in
    a time that grows with the square of a run of blanks.
    """
    members = (" ".join(member.split()) for member in baggage.split(","))
    return ",".join(
        member
        for member in members
        if len(member) <= _LONGEST_MEMBER and _MEMBER.fullmatch(member)
    )


def _is_state(tracestate: str) -> bool:
    """Whether OpenTelemetry takes it, or drops all and quotes it in the log."""
    members = (member.strip(" \t") for member in tracestate.split(","))
    return all(not member or _STATE.fullmatch(member) for member in members)


#: W3C Baggage 3.3.1, and as much as OpenTelemetry takes of it.
_LONGEST_MEMBER = 4096
_NAME, _TEXT = rf" ?{TOKEN.pattern} ?", r" ?[!#-+\--:<-\[\]-~]* ?"
_MEMBER = re.compile(f"{_NAME}={_TEXT}(?:;{_NAME}(?:={_TEXT})?)*")
#: W3C Trace Context 3.3.1.3.
_STATE = re.compile(
    r"(?:[a-z][_0-9a-z*/-]{0,255}"
    r"|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)


class _Server:
    """What spans of all requests have in common."""

    def __init__(
        self,
        telemetry: Telemetry,
        request_headers: Captured,
        response_headers: Captured,
    ) -> None:
        self.telemetry = telemetry
        self.request_headers = request_headers
        self.response_headers = response_headers
        self.kind = telemetry.api.trace.SpanKind.SERVER
        self.duration = telemetry.duration("server")
        meter = telemetry.meter
        self.active = meter.create_up_down_counter(
            "http.server.active_requests",
            unit="{request}",
            description="Number of active HTTP server requests.",
        )
        self.request_size, self.response_size = (
            meter.create_histogram(
                f"http.server.{side}.body.size",
                unit="By",
                description=f"Size of HTTP server {side} bodies.",
                explicit_bucket_boundaries_advisory=_SIZES,
            )
            for side in ("request", "response")
        )
        self._getter = _Headers()

    def context_of(self, request: web.Request) -> Any:
        """The context that a request comes with."""
        try:
            return self.telemetry.api.propagate.extract(
                request, getter=self._getter
            )
        except Exception as exc:
            # W3C Trace Context 4.3: what cannot be read names no trace. What
            # the exception says may quote it.
            logger.debug("A propagator failed: %s", type(exc).__name__)
            return self.telemetry.api.context.get_current()

    def unsampled(self, context: Any) -> Any:
        """With a parent, so that nothing becomes the root of a trace."""
        trace = self.telemetry.api.trace
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
        parent = trace.SpanContext(
            trace_id=random.getrandbits(128) or 1,
            span_id=random.getrandbits(64) or 1,
            is_remote=False,
        )
        return trace.set_span_in_context(
            trace.NonRecordingSpan(parent), context
        )

    def start_span(self, request: web.Request, context: Any) -> Any:
        """The span of a request, and the context in which it is the current."""
        telemetry = self.telemetry
        route = route_of(request)
        told, name = telemetry.method(request.method)
        if route != UNMATCHED:
            told[ROUTE] = route
            name = f"{name} {route}"
        span = telemetry.tracer.start_span(
            name,
            context=context,
            kind=self.kind,
            attributes=_Asked(told, request, self.request_headers),
        )
        return span, telemetry.api.trace.set_span_in_context(span, context)


class _Traced:
    """A request that is traced, until it is over."""

    __slots__ = (
        "_context",
        "_error",
        "_labels",
        "_request",
        "_server",
        "_span",
    )

    def __init__(
        self,
        server: _Server,
        request: web.Request,
        span: Any,
        context: Any,
    ) -> None:
        self._server = server
        self._request: web.Request | None = request
        self._span = span
        self._context = context
        #: The name of what was raised, if anything was.
        self._error: str | None = None
        #: Those of the metrics, if there are any.
        self._labels: dict[str, Any] | None = None
        if server.telemetry.has_meters():
            method, _ = server.telemetry.method(request.method)
            self._labels = {METHOD: method[METHOD], _SCHEME: _scheme(request)}
            server.active.add(1, self._labels, context)
        outcome_of(request).observe(_KEY, self.end)
        on_failure(request, self.fail)

    def passes(self, request: web.Request, exc: Exception) -> None:
        """An exception goes on outwards."""
        if not is_http(exc) and not (
            isinstance(exc, ConnectionError) and _is_gone(request)
        ):
            self.fail(exc)

    def fail(self, exc: Exception) -> None:
        """Record an exception, unless there was one further in."""
        if self._error is not None:
            return
        self._error = type(exc).__qualname__
        if self._span.is_recording():
            try:
                self._span.add_event("exception", exception_told(exc))
            except Exception:
                logger.exception("An exception could not be recorded")

    def end(self, outcome: Outcome) -> None:
        server, request = self._server, self._request
        self._request = None  # which refers to this
        told: dict[str, Any] = {}
        error = None
        if not outcome.is_sent or outcome.status >= 500:
            error = self._error or str(outcome.status)
        elif not outcome.is_complete or outcome.status == 101:
            error = self._error
        if outcome.is_sent:
            told[STATUS] = outcome.status
        if error is not None:
            told[ERROR] = error
        if self._labels is not None and request is not None:
            self._measure(self._labels, request, outcome, told)
        span = self._span
        if span.is_recording():
            span.set_attributes(told)
            if server.response_headers and outcome.headers is not None:
                span.set_attributes(
                    headers_told(
                        server.response_headers,
                        partial(outcome.headers.getall, default=()),
                    )
                )
            if error is not None and outcome.is_sent:
                span.set_status(server.telemetry.error_status)
        span.end()

    def _measure(
        self,
        labels: dict[str, Any],
        request: web.Request,
        outcome: Outcome,
        told: dict[str, Any],
    ) -> None:
        server, context = self._server, self._context
        server.active.add(-1, labels, context)
        labels = {**labels, **told}
        version = version_of(request.version)
        if version is not None:
            labels[VERSION] = version
        if outcome.route != UNMATCHED:
            labels[ROUTE] = outcome.route
        server.duration.record(outcome.duration, labels, context)
        server.response_size.record(outcome.size, labels, context)
        size = _size(request)
        if size is not None:
            server.request_size.record(size, labels, context)


class _Asked(Mapping[str, Any]):
    """What a request asks for, and who: put together when somebody looks.

    For a span that is not sampled nobody does, or only such a sampler as asks
    for it.
    """

    __slots__ = ("_headers", "_request", "_told")

    def __init__(
        self, told: dict[str, Any], request: web.Request, headers: Captured
    ) -> None:
        self._told = told
        self._request: web.Request | None = request
        self._headers = headers

    def _all(self) -> dict[str, Any]:
        request, told = self._request, self._told
        if request is None:
            return told
        self._request = None
        url = request.rel_url
        headers = request.headers
        told[_SCHEME] = scheme = _scheme(request)
        told["url.path"] = storable(url.raw_path) or "/"
        if query := url.raw_query_string:
            told["url.query"] = redacted(query)
        version = version_of(request.version)
        if version is not None:
            told[VERSION] = version
        host, port = _authority(authority_text(request))
        if host is not None:
            told[SERVER] = host
            port = port or DEFAULT_PORTS.get(scheme)
            if port is not None:
                told[PORT] = port
        if request.remote:
            told["client.address"] = storable(request.remote)
        agent = headers.get(hdrs.USER_AGENT)
        if agent is not None:
            told["user_agent.original"] = storable(agent)
        if self._headers:
            told.update(headers_told(self._headers, partial(lines, request)))
        return told

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, Any]:
        return self._all().items()


def _scheme(request: web.Request) -> str:
    return storable(request.scheme)


@lru_cache(maxsize=256)  # a server has few names
def _authority(text: str | None) -> tuple[str | None, int | None]:
    """Host and port, IPv6 without its brackets."""
    found = None if text is None else parse_authority(text)
    if found is None:
        return None, None
    return found.host.strip("[]"), found.port


def _is_gone(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()


def _size(request: web.Request) -> int | None:
    """The bytes of the body that came, as they were encoded.

    None where that is not known: aiohttp counts what it has decoded.
    """
    if hdrs.CONTENT_ENCODING not in request.headers:
        came: int = request.content.total_bytes
        return came
    length = request.headers.get(hdrs.CONTENT_LENGTH, "")
    if length.isdecimal() and request.content.is_eof():
        return int(length)
    return None
