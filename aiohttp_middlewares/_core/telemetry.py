"""What spans and metrics of HTTP have in common, on either side.

By OpenTelemetry's semantic conventions for HTTP, in their stable form. Its API
is imported here and nowhere else; without an SDK it does next to nothing.
"""

import logging
import os
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeAlias

from aiohttp import HttpVersion10, HttpVersion11
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.secrets import is_secret, strike_out
from aiohttp_middlewares._core.routes import METHODS, OTHER_METHOD
from aiohttp_middlewares.annotations import StrCollection

logger: logging.Logger = logs.get_logger(__name__)

SCHEMA = "https://opentelemetry.io/schemas/1.23.0"
#: What the conventions advise for durations, in seconds.
DURATIONS = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
REDACTED = "REDACTED"

METHOD = "http.request.method"
ORIGINAL_METHOD = "http.request.method_original"
ROUTE = "http.route"
STATUS = "http.response.status_code"
ERROR = "error.type"
SERVER = "server.address"
PORT = "server.port"
VERSION = "network.protocol.version"

#: A client may claim any version, of which there would be a series each.
_VERSIONS: dict[Any, str] = {HttpVersion10: "1.0", HttpVersion11: "1.1"}
_KNOWN_METHODS = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"


#: The name of a header, and that of its attribute.
Captured: TypeAlias = list[tuple[istr, str]]


class TracerProvider(Protocol):
    """One of ``opentelemetry.trace.TracerProvider``."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any: ...


class MeterProvider(Protocol):
    """One of ``opentelemetry.metrics.MeterProvider``."""

    def get_meter(self, *args: Any, **kwargs: Any) -> Any: ...


class Telemetry:
    """A tracer and a meter, and the API that belongs to them."""

    def __init__(
        self,
        what: str,
        name: str,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
    ) -> None:
        self.api = api = _api(what)
        self._what = what
        for option, value, kind in (
            ("tracer_provider", tracer_provider, api.trace.TracerProvider),
            ("meter_provider", meter_provider, api.metrics.MeterProvider),
        ):
            if value is not None and not isinstance(value, kind):
                should = f"one of OpenTelemetry, a {kind.__name__}"
                options.refuse(TypeError, f"{what} {option}", should, value)
        self._tracers, self._meters = tracer_provider, meter_provider
        self._has_tracers = self._has_meters = False
        self.tracer = api.trace.get_tracer(
            name, None, tracer_provider, schema_url=SCHEMA
        )
        self.meter = api.metrics.get_meter(
            name, "", meter_provider, schema_url=SCHEMA
        )
        self.error_status = api.trace.StatusCode.ERROR
        given = os.environ.get(_KNOWN_METHODS)
        self.methods = (
            frozenset(name.strip() for name in given.split(","))
            if given
            else METHODS | {"QUERY"}
        )
        # Those of exporters, so that they are not traced themselves. They
        # have no public name yet.
        self._suppressing = [
            key
            for key in (
                getattr(api.context, "_SUPPRESS_INSTRUMENTATION_KEY", None),
                getattr(
                    api.context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None
                ),
            )
            if key is not None
        ]

    def is_idle(self) -> bool:
        """Whether there is no provider, as none was set so far."""
        return not (self.has_tracers() or self.has_meters())

    def has_tracers(self) -> bool:
        if not self._has_tracers:
            provider = self._tracers or self.api.trace.get_tracer_provider()
            self._has_tracers = not _does_nothing(provider)
        return self._has_tracers

    def has_meters(self) -> bool:
        if not self._has_meters:
            provider = self._meters or self.api.metrics.get_meter_provider()
            self._has_meters = not _does_nothing(provider)
        return self._has_meters

    def is_suppressed(self) -> bool:
        context = self.api.context.get_current()
        return bool(context) and any(map(context.get, self._suppressing))

    def method(self, method: str) -> tuple[dict[str, Any], str]:
        """How a method is told of, and the name of a span for it."""
        if method in self.methods:
            return {METHOD: method}, method
        original = storable(method)
        return {METHOD: OTHER_METHOD, ORIGINAL_METHOD: original}, "HTTP"

    def captured(self, side: str, names: StrCollection) -> Captured:
        """The headers to tell of, and by which names of attributes.

        :raises TypeError: what is no collection of header names.
        :raises ValueError: a name that is none, or one of secrets.
        """
        what = f"{self._what} capture_{side}_headers"
        found = options.tokens(what, "header names", names)
        for name in found:
            if is_secret(name):
                should = "header names that hold no secrets"
                options.refuse(ValueError, what, should, name)
        return [
            (istr(name), f"http.{side}.header.{name.lower()}") for name in found
        ]

    def duration(self, side: str) -> Any:
        return self.meter.create_histogram(
            f"http.{side}.request.duration",
            unit="s",
            description=f"Duration of HTTP {side} requests.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )


def _api(what: str) -> ModuleType:
    try:
        import opentelemetry.context
        import opentelemetry.metrics
        import opentelemetry.propagate
        import opentelemetry.trace
    except ImportError as exc:
        raise ImportError(
            f"{what} needs opentelemetry-api; "
            'pip install "aiohttp-middlewares[tracing]"'
        ) from exc
    return opentelemetry


def _does_nothing(provider: object) -> bool:
    """Whether it is one of the API itself, which wait for one, or never do."""
    return type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )


def version_of(version: Any) -> str | None:
    """That of HTTP, if it is one of those that there are."""
    return _VERSIONS.get(version)


def storable(text: str) -> str:
    """A text as UTF-8 can hold it.

    An exporter that meets a surrogate loses all that it was to export.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def redacted(query: str) -> str:
    """A query without what may be a secret in it."""
    return storable(strike_out(query, REDACTED, show=True))


def headers_told(
    names: Captured, lines_of: Callable[[str], Sequence[str]]
) -> dict[str, list[str]]:
    return {
        attribute: [storable(line) for line in found]
        for name, attribute in names
        if (found := lines_of(name))
    }


def exception_told(exc: Exception) -> dict[str, str]:
    """An event of the conventions, of which nothing fails in an exporter."""
    kind = type(exc)
    try:
        message = storable(str(exc))
    except Exception:
        message = ""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception.type": f"{module}{kind.__qualname__}",
        "exception.message": message,
        "exception.stacktrace": storable(
            "".join(traceback.format_exception(exc))
        ),
    }
