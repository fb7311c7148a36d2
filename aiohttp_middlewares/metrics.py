"""
==================
Metrics middleware
==================

Collects Prometheus metrics of requests: how many, how long, how large, how many
at once. Nothing that a client sends makes another series.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import metrics_handler, metrics_middleware


    async def user(request: web.Request) -> web.Response:
        return web.json_response({"name": request.match_info["name"]})


    app = web.Application(middlewares=[metrics_middleware(ignore=["/metrics"])])
    app.router.add_get("/users/{name}", user)
    app.router.add_get("/metrics", metrics_handler())

``pip install "aiohttp-middlewares[metrics]"`` brings prometheus-client. Who may
read ``/metrics`` is up to you: the page is public unless the proxy in front
refuses it, or it is in an application on a port of its own.

What is measured
================

``http_server_requests_total``
    Requests, by ``method``, ``route`` and ``status``.
``http_server_request_duration_seconds``
    A histogram of the time until the last byte was out; by the same.
``http_server_response_size_bytes``
    A histogram of the bytes of the bodies as they were sent, encoded; by the
    same.
``http_server_request_size_bytes``
    A histogram of the bytes of the bodies that arrived, by ``method`` and
    ``route``.
``http_server_requests_in_progress``
    A gauge, by ``method``; open streams and WebSockets are among them.

What counts is the answer that really left, whoever made it: the 404, 405, 500
and 504 of aiohttp, too. A client that left before it got any is a 499.

``method`` is one of the nine standard methods, or ``_OTHER``. ``route`` is the
path of the route, ``/users/{name}``, with the prefixes of its
sub-applications; ``__unmatched__`` for what is answered 404 or 405. ``status``
is 100 to 599, or ``_OTHER``. So the number of series depends on your routes,
and on nothing else.

Labels of your own
==================

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import get_user, metrics_middleware

    PLANS = {"ann": "gold", "bob": "free"}


    def plan(request: web.Request) -> str:
        return PLANS.get(get_user(request) or "", "none")


    metrics_middleware(
        namespace="shop", labels={"service": "cart", "plan": plan}
    )

They are on all but the gauge. The function is called when all is over, so that
it knows what the handler and the other middlewares found out. Each new value
that it returns makes new series that stay until the process ends. Keep the
values few: never a name, an address or a header as it was sent.

Traces
======

With ``exemplars=True`` the counter and the durations bear the ``trace_id`` of
a request that is traced and sampled, so that a slow bucket leads to one of its
traces. ``pip install "aiohttp-middlewares[metrics,tracing]"``. Prometheus gets
them in the OpenMetrics format only, and stores them if it is started with
``--enable-feature=exemplar-storage``.

Several processes, gunicorn
===========================

With several processes behind one port, as with gunicorn, a scrape reaches any
of them. Give them a directory that is empty when the server starts, and each
of them answers for all::

    PROMETHEUS_MULTIPROC_DIR=/run/metrics gunicorn ...

prometheus-client then writes to files there. Requests in progress are those of
the living processes; the configuration of gunicorn has to say when one has
died:

.. code-block:: python

    from prometheus_client import multiprocess


    def child_exit(server, worker):
        multiprocess.mark_process_dead(worker.pid)

Registries have no effect then: :func:`metrics_handler` shows all that was
measured with prometheus-client. There are no exemplars.

Order
=====

Inside of tracing, whose trace it names; outside of all that may answer.
Listed twice, also in a sub-application, the outer one counts. With another
registry or another namespace both do.

Limits
======

The size of a request is what had arrived when all was over: a body that nobody
waited for does not count. One that is compressed and sent in chunks counts as
inflated. If an answer breaks off, the part that was being sent does not count,
which may be all of it; nor do the messages of WebSockets.

What aiohttp answers before any middleware runs is not seen: requests that it
cannot parse, and an ``Expect`` that it does not know.
"""

import inspect
import logging
import math
import os
import re
from asyncio import get_running_loop
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import (
    elements,
    parameters,
    weighted,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, outcome_of
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.routes import method_of
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = (
    "DEFAULT_BUCKETS",
    "DEFAULT_NAMESPACE",
    "Label",
    "Registry",
    "metrics_handler",
    "metrics_middleware",
)

DEFAULT_NAMESPACE = "http_server"
#: Seconds, as the semantic conventions of OpenTelemetry have them.
DEFAULT_BUCKETS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
_SIZE_BUCKETS = (100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

#: A value, or a function that finds it when a request is over.
Label: TypeAlias = str | Callable[[web.Request], str]

logger: logging.Logger = logs.get_logger(__name__)


class Registry(Protocol):
    """A ``prometheus_client.CollectorRegistry``."""

    def register(self, collector: Any) -> None: ...

    def unregister(self, collector: Any) -> None: ...

    def collect(self) -> Iterable[Any]: ...

    def restricted_registry(self, names: Iterable[str]) -> Any: ...


def metrics_middleware(
    *,
    registry: Registry | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    buckets: Sequence[float] = DEFAULT_BUCKETS,
    labels: Mapping[str, Label] | None = None,
    exemplars: bool = False,
    ignore: Urls | None = None,
) -> Middleware:
    """Measure requests for Prometheus.

    :param registry:
        The ``CollectorRegistry`` that gets the metrics. By default:
        ``prometheus_client.REGISTRY``.
    :param namespace:
        What their names begin with. By default: :data:`DEFAULT_NAMESPACE`.
    :param buckets:
        The upper bounds of the durations, in seconds, in ascending order. By
        default: :data:`DEFAULT_BUCKETS`, from 5 ms to 10 s.
    :param labels:
        Labels of your own: a mapping of their names to strings, or to
        functions ``(request) -> str``. One that raises is logged, and its
        value is empty then. By default: none.
    :param exemplars:
        Whether a request that is traced and sampled leaves its trace id. By
        default: no.
    :param ignore:
        URLs that are not measured: a collection of paths, patterns and URLs,
        or a mapping of them to methods. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        A name or a bucket cannot be one, a URL rule can never fit, or the
        registry has such metrics already, with other labels or buckets.
    :raises ImportError:
        prometheus-client is not installed, or opentelemetry-api for
        ``exemplars``.
    """
    what = "metrics_middleware"
    target = _registry(what, registry)
    if not isinstance(namespace, str):
        options.refuse(TypeError, f"{what} namespace", "a string", namespace)
    if not _NAME.fullmatch(namespace):
        should = "a name of letters, digits and '_'"
        options.refuse(ValueError, f"{what} namespace", should, namespace)
    bounds = _bounds(f"{what} buckets", buckets)
    own = _labels(f"{what} labels", labels)
    options.flag(f"{what} exemplars", exemplars)
    exemplar = _sampled_trace(what) if exemplars else None
    ignored = exemption(f"{what} ignore", ignore)
    measures = _measures_in(target, namespace, bounds, tuple(own))
    values = tuple(own.values())

    @middleware(exemplars=exemplars)
    async def metrics(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        outcome = outcome_of(request)
        trace = None if exemplar is None else exemplar()

        def measure(outcome: Outcome) -> None:
            in_progress.dec()
            key: _Key = outcome.method, outcome.route, outcome.status
            if values:
                key += tuple([_text(value, request) for value in values])
            requests, duration, sent, arrived = measures.of(key)
            requests.inc(1, trace)
            duration.observe(outcome.duration, trace)
            sent.observe(outcome.size)
            arrived.observe(_arrived(request))

        if not outcome.observe(measures, measure):
            return await handler(request)  # another one further out measures
        in_progress = measures.in_progress_of(method_of(request))
        in_progress.inc()
        return await handler(request)

    return metrics


def metrics_handler(registry: Registry | None = None) -> Handler:
    """A handler that shows the metrics to Prometheus.

    In the text format or in OpenMetrics 1.0, as its ``Accept`` has it; only
    some of them for ``?name[]=...``. It is made in a thread, one at a time.

    :param registry:
        The ``CollectorRegistry`` to show; with ``PROMETHEUS_MULTIPROC_DIR``
        it does not count. By default: ``prometheus_client.REGISTRY``.
    :raises TypeError: it is none.
    :raises ValueError: ``PROMETHEUS_MULTIPROC_DIR`` is no directory.
    :raises ImportError: prometheus-client is not installed.
    """
    source = _registry("metrics_handler", registry)
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.multiprocess import MultiProcessCollector

    if any(name in os.environ for name in _MULTIPROCESS):
        # It cannot tell its names in advance, but name[] is to find them.
        source = CollectorRegistry(support_collectors_without_names=True)
        MultiProcessCollector(source)  # type: ignore[no-untyped-call]
    # Not one of the loop's own threads: these open files and look up names.
    threads = ThreadPoolExecutor(1, "aiohttp_middlewares.metrics")

    async def metrics(request: web.Request) -> web.StreamResponse:
        accepted = _accepted(lines(request, hdrs.ACCEPT))
        generate, content_type = choose_encoder(accepted)
        shown: Any = source
        names = [name for name in request.query.getall("name[]", ()) if name]
        if names:
            shown = source.restricted_registry(names)
        body = await get_running_loop().run_in_executor(
            threads, generate, shown
        )
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.VARY: hdrs.ACCEPT}
        return web.Response(body=body, headers=headers)

    return metrics


_MULTIPROCESS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


# Options
# =======


def _registry(what: str, registry: object) -> Registry:
    try:
        from prometheus_client import REGISTRY, CollectorRegistry
    except ImportError as exc:
        raise ImportError(
            f"{what} needs prometheus-client; "
            'pip install "aiohttp-middlewares[metrics]"'
        ) from exc
    if registry is None:
        return REGISTRY
    if not isinstance(registry, CollectorRegistry):
        options.refuse(
            TypeError, f"{what} registry", "a CollectorRegistry", registry
        )
    return registry


_NAME = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
#: Ours, and what histograms and processes are told apart by.
_RESERVED = {"method", "route", "status", "le", "pid", "quantile"}


def _bounds(what: str, value: object) -> tuple[float, ...]:
    bounds = options.items(what, "seconds", value)
    if bounds[-1:] == (math.inf,):
        bounds = bounds[:-1]  # it is always there
    found = tuple([float(options.seconds(what, bound)) for bound in bounds])
    if not found or [*found] != sorted({*found}):
        options.refuse(ValueError, what, "seconds in ascending order", value)
    return found


def _labels(what: str, value: object) -> dict[str, Label]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        options.refuse(TypeError, what, "a mapping of names", value)
    for name, label in value.items():
        if not isinstance(name, str):
            options.refuse(TypeError, what, "a mapping of names", name)
        if not _NAME.fullmatch(name) or name.startswith("__"):
            should = "a mapping of names of letters, digits and '_'"
            options.refuse(ValueError, what, should, name)
        if name in _RESERVED:
            should = "of other names than the metrics have already"
            options.refuse(ValueError, what, should, name)
        if not isinstance(label, str) and (
            not callable(label) or inspect.iscoroutinefunction(label)
        ):
            should = "a string or a function (request) -> str"
            options.refuse(TypeError, f"{what}[{name!r}]", should, label)
    return dict(value)


# What is measured
# ================


class _Measures:
    """The five metrics of a registry under one namespace."""

    def __init__(
        self, namespace: str, bounds: tuple[float, ...], own: tuple[str, ...]
    ) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.options = bounds, own
        by_route = "method", "route", *own
        by_status = "method", "route", "status", *own
        kept: dict[str, Any] = {"namespace": namespace, "registry": None}
        self.requests = Counter(
            "requests_total", "Requests that were answered.", by_status, **kept
        )
        self.duration = Histogram(
            "request_duration_seconds",
            "Time until the last byte was out.",
            by_status,
            unit="seconds",
            buckets=bounds,
            **kept,
        )
        self.response_size = Histogram(
            "response_size_bytes",
            "Bytes of the bodies that were sent.",
            by_status,
            unit="bytes",
            buckets=_SIZE_BUCKETS,
            **kept,
        )
        self.request_size = Histogram(
            "request_size_bytes",
            "Bytes of the bodies that arrived.",
            by_route,
            unit="bytes",
            buckets=_SIZE_BUCKETS,
            **kept,
        )
        self.in_progress = Gauge(
            "requests_in_progress",
            "Requests that are being answered.",
            ["method"],
            multiprocess_mode="livesum",
            **kept,
        )
        # To look one up takes longer than to count. There are no more of them
        # than series, which prometheus-client keeps anyway.
        self.children: dict[_Key, _Children] = {}
        self.gauges: dict[str, Any] = {}

    def register(self, registry: Registry) -> None:
        """All of them or, if one of the names is taken, none."""
        done: list[Any] = []
        try:
            for metric in self.metrics():
                registry.register(metric)
                done.append(metric)
        except ValueError:
            for metric in done:
                registry.unregister(metric)
            raise

    def metrics(self) -> list[Any]:
        return [
            self.requests,
            self.duration,
            self.response_size,
            self.request_size,
            self.in_progress,
        ]

    def in_progress_of(self, method: str) -> Any:
        gauge = self.gauges.get(method)
        if gauge is None:
            gauge = self.gauges[method] = self.in_progress.labels(method)
        return gauge

    def of(self, key: "_Key") -> "_Children":
        children = self.children.get(key)
        if children is None:
            method, route, status, *own = key
            # RFC 9110 15: there are no others.
            code = str(status) if 100 <= status <= 599 else "_OTHER"
            by_status = method, route, code, *own
            children = self.children[key] = (
                self.requests.labels(*by_status),
                self.duration.labels(*by_status),
                self.response_size.labels(*by_status),
                self.request_size.labels(method, route, *own),
            )
        return children


#: Method, route and status, and the values of one's own labels.
_Key: TypeAlias = tuple[Any, ...]
#: The metrics of one of these, in the order in which they are used.
_Children: TypeAlias = tuple[Any, Any, Any, Any]

#: A registry takes each name once, and does not say who has it.
_MEASURES: WeakKeyDictionary[Any, dict[str, _Measures]] = WeakKeyDictionary()


def _measures_in(
    registry: Registry,
    namespace: str,
    bounds: tuple[float, ...],
    own: tuple[str, ...],
) -> _Measures:
    by_namespace = _MEASURES.setdefault(registry, {})
    measures = by_namespace.get(namespace)
    if measures is None:
        measures = _Measures(namespace, bounds, own)
        measures.register(registry)
        by_namespace[namespace] = measures
        return measures
    if measures.options != (bounds, own):
        raise ValueError(
            f"metrics_middleware has {namespace!r} in this registry already, "
            "with other buckets or labels; give it a namespace of its own"
        )
    with suppress(ValueError):  # they are still there
        measures.register(registry)
    return measures


def _arrived(request: web.Request) -> int:
    """The bytes of its body: as they were sent, where that is known."""
    arrived = request.content.total_bytes  # and inflated
    if not arrived or (announced := request.content_length) is None:
        return arrived
    return min(arrived, announced)


def _text(label: Label, request: web.Request) -> str:
    if isinstance(label, str):
        return label
    try:
        # What is no Unicode would spoil the whole page.
        return label(request).encode("utf-8", "replace").decode()
    except Exception:
        logger.exception("A label of the metrics failed")
        return ""


# Exemplars
# =========


def _sampled_trace(what: str) -> Callable[[], dict[str, str] | None]:
    try:
        from opentelemetry.trace import get_current_span
    except ImportError as exc:
        raise ImportError(
            f"{what}: exemplars need opentelemetry-api; "
            'pip install "aiohttp-middlewares[tracing]"'
        ) from exc

    def exemplar() -> dict[str, str] | None:
        context = get_current_span().get_span_context()
        if not (context.is_valid and context.trace_flags.sampled):
            return None
        return {"trace_id": f"{context.trace_id:032x}"}

    return exemplar


# The page
# ========

#: The formats and versions of them that are known here, and with which of
#: them a request is answered that takes anything.
_VERSIONS = {
    "application/openmetrics-text": ("", "1.0.0"),
    "text/plain": ("", "0.0.4", "1.0.0"),
    "text/*": ("",),
    "*/*": ("",),
}
_ESCAPING = ("allow-utf-8", "underscores", "dots", "values")


def _accepted(accept: Iterable[str]) -> str:
    """The format that is wanted most, as prometheus-client would read it.

    It knows no weights, fails where a version is no number, and puts what was
    sent into its answer.
    """
    best, found = 0.0, ""
    for element in elements(accept):
        asked = dict(parameters(element.partition(";")[2]) or ())
        version = asked.get("version", "")
        for media, weight in weighted([element]):
            if weight > best and version in _VERSIONS.get(media, ()):
                best, found = weight, f"{media};version={version}"
                if asked.get("escaping") in _ESCAPING:
                    found += f";escaping={asked['escaping']}"
    return found
