"""
==============
Client tracing
==============

Traces every request that a client session sends, with OpenTelemetry: makes a
span of it, and sends the trace context along, so that the service called
continues the trace.

Usage
=====

.. code-block:: python

    import aiohttp

    from aiohttp_middlewares.client import retry_middleware, tracing_middleware


    def make_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            middlewares=[
                retry_middleware(),
                tracing_middleware(origins=["https://users.internal"]),
            ]
        )

It needs the extra ``tracing``. :doc:`/middlewares/tracing`, its counterpart on
the server side, says what both have in common, and how to set the providers. In
a handler the span is a child of the request's span.

What is told
============

By the stable semantic conventions for HTTP. The span is one of a client, named
``GET``, by the method. It has these attributes:

* ``http.request.method``, and ``http.request.method_original`` where that is
  ``_OTHER``
* ``url.full``, without userinfo and fragment; values of the query that may be
  secrets are ``REDACTED``
* ``server.address`` and ``server.port``; ``network.protocol.version``
* ``http.request.resend_count`` where the request was sent before: after a
  retry, after a redirect, or by aiohttp itself
* ``http.response.status_code``
* ``error.type``: the name of an exception, or the status from 400 up

Its status is an error from 400 up, and where there was no answer. A caller who
gave up is not an error: ``error.type`` is ``CancelledError``, and the status
unset. Exceptions are not recorded, as their text may quote the URL.

The metric is ``http.client.request.duration``, also of each attempt. The host
is one of its attributes: an application that calls countless hosts has as many
series.

The context
===========

It is sent by the global propagator, by default in the headers ``traceparent``
and ``baggage``; with ``origins``, only to those. A header that the caller has
set stays, and then only the baggage is added to it. Where no provider is set,
the context that came with a request of the server is passed on.

Order
=====

Inside of retry, so that each attempt has its span and its context; outside of
what may wait, as that is part of the time. Listed twice, the outer one counts.

Limits
======

The span and its duration end when the headers of the response are there, and
those of a WebSocket with the handshake; the conventions leave that open. What
happens while the body is read is not part of it.

Where ``opentelemetry-instrumentation-aiohttp-client`` traces the session as
well, this one steps aside and says so once in the log: that one has a span for
all attempts together, which is there before any middleware runs.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import ref

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)
from yarl import URL

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.grammar.fields import TOKEN
from aiohttp_middlewares._core.requests import lines, warn_once
from aiohttp_middlewares._core.telemetry import (
    ERROR,
    METHOD,
    PORT,
    REDACTED,
    SERVER,
    STATUS,
    VERSION,
    Captured,
    MeterProvider,
    Telemetry,
    TracerProvider,
    headers_told,
    storable,
    version_of,
)
from aiohttp_middlewares.annotations import StrCollection
from aiohttp_middlewares.client._origins import origin_of, parse_origins
from aiohttp_middlewares.client._redact import error_name, redact_url
from aiohttp_middlewares.client._timeouts import timer_of

__all__ = ("tracing_middleware",)

_OFFICIAL = "opentelemetry.instrumentation.aiohttp_client"

logger: logging.Logger = logs.get_logger(__name__)


def tracing_middleware(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    origins: Collection[str | URL] | None = None,
    capture_request_headers: StrCollection = (),
    capture_response_headers: StrCollection = (),
) -> ClientMiddlewareType:
    """Make a span of every request, and send the context of the trace.

    :param tracer_provider: The ``opentelemetry.trace.TracerProvider`` that
        gets the spans; by default the global one, also one that is set later.
    :param meter_provider: The ``opentelemetry.metrics.MeterProvider`` that
        gets the metrics; by default the global one, also one that is set
        later.
    :param origins: The origins that get the context, such as
        ``"https://users.internal"``: it tells strangers which of their
        requests belong together, and what is in the baggage. By default all
        do.
    :param capture_request_headers: The names of request headers to tell of,
        as ``http.request.header.<name>``, each line a value; by default none.
    :param capture_response_headers: The same for the response,
        ``http.response.header.<name>``.
    :raises ImportError: opentelemetry-api is not installed.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no origin or no header name, and for a
        header that holds secrets.
    """
    what = "client.tracing_middleware"
    telemetry = Telemetry(what, __name__, tracer_provider, meter_provider)
    trusted = (
        None if origins is None else parse_origins(f"{what} origins", origins)
    )
    client = _Client(
        telemetry,
        telemetry.captured("request", capture_request_headers),
        telemetry.captured("response", capture_response_headers),
    )
    get_current, attach, detach = (
        getattr(telemetry.api.context, name)
        for name in ("get_current", "attach", "detach")
    )
    say_so = warn_once(
        logger,
        "opentelemetry-instrumentation-aiohttp-client traces this session too, "
        "so that tracing_middleware does not: leave out one of them",
    )

    def is_sent_to(req: ClientRequest) -> bool:
        return trusted is None or origin_of(req.url) in trusted

    async def tracing(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        context = get_current()
        if telemetry.is_suppressed() or _is_traced(req, context):
            return await handler(req)
        if _OFFICIAL in sys.modules and _is_traced_otherwise(req):
            say_so()
            return await handler(req)
        traced = None
        if not telemetry.is_idle():
            try:
                traced = _Traced(client, req, context)
                context = traced.context
            except Exception:
                # A sampler or a processor, which are not ours.
                logger.exception("A span could not be started")
        sent = client.headers_for(req, context) if is_sent_to(req) else {}
        with _headers_for_now(req, sent):
            if traced is None:
                return await handler(req)
            token = attach(context)
            try:
                response = await handler(req)
            except BaseException as exc:
                traced.end(req, error=exc)
                raise
            finally:
                detach(token)
            traced.end(req, response)
            return response

    return tracing


#: In the context: the request for which there is a span. A reference that is
#: weak, as a connection that is made meanwhile keeps the context.
_KEY = "aiohttp_middlewares.client.tracing"


def _is_traced(req: ClientRequest, context: Mapping[str, Any]) -> bool:
    traced: Any = context.get(_KEY)
    return traced is not None and traced() is req


def _is_traced_otherwise(req: ClientRequest) -> bool:
    """Whether the official instrumentation watches the session."""
    return any(
        getattr(each, "__module__", None) == _OFFICIAL
        for config in req.session.trace_configs
        for each in config.on_request_start
    )


@contextmanager
def _headers_for_now(
    req: ClientRequest, headers: Mapping[str, str]
) -> Iterator[None]:
    """Send headers that were not there, and take them away in the end.

    A middleware outside may send the same request again, elsewhere.
    """
    req.headers.update(headers)
    try:
        yield
    finally:
        for name in headers:
            req.headers.popall(name, None)


#: The last calls of this context: by what belongs to a call alone, how often
#: it has sent a request.
_CALLS: ContextVar[tuple[tuple[object, int], ...]] = ContextVar(
    "calls", default=()
)
#: A call may make others in between, such as for a token.
_MOST_CALLS = 4


def _times_sent(req: ClientRequest) -> int:
    """How often the call has sent a request before, and count this one.

    By retries, redirects, and what aiohttp repeats by itself. The timer is the
    only thing that all of these share; it is private, and without it only
    what a middleware sends again is known.
    """
    timer = timer_of(req)
    call = req if timer is None else timer
    times = 0
    others = []
    for known in _CALLS.get():
        if known[0] is call:
            times = known[1]
        else:
            others.append(known)
    _CALLS.set((*others[1 - _MOST_CALLS :], (call, times + 1)))
    return times


class _Client:
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
        self.kind = telemetry.api.trace.SpanKind.CLIENT
        self.duration = telemetry.duration("client")

    def headers_for(self, req: ClientRequest, context: Any) -> dict[str, str]:
        """Those of the propagator that are not there yet."""
        found: dict[str, str] = {}
        try:
            self.telemetry.api.propagate.inject(found, context)
        except Exception as exc:
            # What it says may quote a baggage.
            logger.warning("A propagator failed: %s", type(exc).__name__)
        if not found:
            return found
        there = {name.lower() for name in req.headers}
        trace = {name for name in found if name.lower() != _BAGGAGE}
        if any(name.lower() in there for name in trace):
            there.update(name.lower() for name in trace)  # all, or none
        return {
            name: value
            for name, value in found.items()
            # What is in a baggage came from others, and may be anything. Some
            # propagators make names of it.
            if name.lower() not in there
            and TOKEN.fullmatch(name)
            and value.isascii()
            and value.isprintable()
        }


_BAGGAGE = "baggage"


class _Traced:
    """A request that is traced, until its response has begun."""

    __slots__ = ("_client", "_labels", "_start", "context", "span")

    def __init__(
        self, client: _Client, req: ClientRequest, context: Any
    ) -> None:
        self._client = client
        attributes, name = client.telemetry.method(req.method)
        self._labels = {METHOD: attributes[METHOD]}
        url = req.url
        if url.raw_host:
            self._labels[SERVER] = url.raw_host
        if url.port is not None:
            self._labels[PORT] = url.port
        attributes.update(self._labels)
        attributes["url.full"] = storable(
            redact_url(url, query=True, mark=REDACTED)
        )
        if times := _times_sent(req):
            attributes["http.request.resend_count"] = times
        if client.request_headers:
            attributes.update(
                headers_told(
                    client.request_headers,
                    partial(req.headers.getall, default=()),
                )
            )
        self.span = client.telemetry.tracer.start_span(
            name, context=context, kind=client.kind, attributes=attributes
        )
        api = client.telemetry.api
        self.context = api.trace.set_span_in_context(
            self.span, api.context.set_value(_KEY, ref(req), context)
        )
        self._start = time.perf_counter()

    def end(
        self,
        req: ClientRequest,
        response: ClientResponse | None = None,
        error: BaseException | None = None,
    ) -> None:
        try:
            self._end(req, response, error)
        except Exception:
            # A processor, which is not ours: the response is there.
            logger.exception("A span could not be ended")

    def _end(
        self,
        req: ClientRequest,
        response: ClientResponse | None,
        error: BaseException | None,
    ) -> None:
        duration = time.perf_counter() - self._start
        client, span = self._client, self.span
        told: dict[str, Any] = {}
        failed = False
        if error is not None:
            told[ERROR] = name = error_name(req, error)
            failed = name != asyncio.CancelledError.__name__
        elif response is not None:
            version = version_of(response.version)
            if version is not None:
                told[VERSION] = version
            told[STATUS] = status = response.status
            if failed := status >= 400:
                told[ERROR] = str(status)
        client.duration.record(duration, {**self._labels, **told}, self.context)
        if span.is_recording():
            span.set_attributes(told)
            if client.response_headers and response is not None:
                span.set_attributes(
                    headers_told(
                        client.response_headers, partial(lines, response)
                    )
                )
            if failed:
                span.set_status(client.telemetry.error_status)
        span.end()
