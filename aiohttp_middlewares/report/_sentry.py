"""Sentry."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from aiohttp import web
from aiohttp.log import server_logger

from aiohttp_middlewares._core.statuses import only_one
from aiohttp_middlewares._core.who import get_user
from aiohttp_middlewares.report._sdk import (
    Reporter,
    SdkReporter,
    described,
    missing,
)


def sentry_reporter() -> Reporter:
    """Report to Sentry, as ``sentry_sdk.init()`` has set it up.

    One event for each error, also beside the SDK's own integrations for
    aiohttp and logging, with the tags ``route`` and ``request_id``.
    :func:`~aiohttp_middlewares.get_user` is told where
    ``data_collection`` or ``send_default_pii`` allows it. Without ``init()``
    nothing is sent.

    :raises ImportError: sentry-sdk is not installed.
    """
    return SentryReporter()


class SentryReporter(SdkReporter):
    def __init__(self) -> None:
        super().__init__()
        try:
            import sentry_sdk
            from sentry_sdk.scope import add_global_event_processor
            from sentry_sdk.utils import event_from_exception
        except ImportError as exc:
            raise missing("sentry_reporter", "sentry-sdk", "sentry") from exc
        self._sdk = sentry_sdk
        self._event_from = event_from_exception
        add_global_event_processor(_unless_reported)

    def __call__(self, err: Exception, request: web.Request) -> None:
        client = self._sdk.get_client()
        if not client.is_active():
            return
        event, hint = self._event_from(
            err,
            # So that nothing is made that is thrown away below.
            client_options={**client.options, "include_local_variables": False},
            mechanism={"type": "aiohttp_middlewares", "handled": False},
        )
        user = get_user(request) if _may_tell_user(client) else None
        said = described(request)

        def describe(event: Any, hint: Any) -> Any:
            # Instead of what the SDK's own integration has written there.
            event["request"] = {"method": said.method, "url": said.url}
            event["transaction"] = said.name
            event["transaction_info"] = {"source": "route"}
            for value in event["exception"]["values"]:
                for frame in (value.get("stacktrace") or {}).get("frames", ()):
                    # They may hold bodies, cookies and passwords.
                    frame.pop("vars", None)
            crumbs = event.get("breadcrumbs")
            if isinstance(crumbs, dict):
                crumbs["values"] = [*map(_without_query, crumbs["values"])]
            tags = event.setdefault("tags", {})
            tags["route"] = said.route
            if said.request_id is not None:
                tags["request_id"] = said.request_id
            if user is not None:
                event.setdefault("user", {}).setdefault("id", user)
            return event

        with self._sdk.new_scope() as scope:
            # The processors of this scope come last.
            scope.add_event_processor(describe)
            _REPORTED.set(None)
            self._sdk.capture_event(event, hint)
        _REPORTED.set(id(err))

    def scope(self) -> AbstractContextManager[Any]:
        client = self._sdk.get_client()
        if not client.is_active() or client.get_integration("aiohttp"):
            return nullcontext()  # which has one for each request
        return self._isolated()

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        with self._sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            # Errors of one trace are shown as belonging together.
            scope.generate_propagation_context({})
            yield


def _without_query(crumb: Any) -> Any:
    """A breadcrumb of a call to another service, whose key may stand there."""
    data = crumb.get("data")
    if not (isinstance(data, dict) and "http.query" in data):
        return crumb
    rest = {name: data[name] for name in data if name != "http.query"}
    return {**crumb, "data": rest}


def _may_tell_user(client: Any) -> bool:
    """By ``data_collection``, of late, or by ``send_default_pii``."""
    collection = client.options.get("data_collection")
    if collection:
        return bool(collection["user_info"])
    return bool(client.should_send_default_pii())


#: The error that was reported in this context, by its id: to hold it would be
#: a reference cycle.
_REPORTED: ContextVar[int | None] = ContextVar("sentry_reported", default=None)


def _unless_reported(event: Any, hint: Any) -> Any:
    """Drop what the SDK makes of it later on: of a log, of what aiohttp gets.

    The SDK itself knows the very exception, but not the group that it came in,
    nor what the error middleware cuts the connection by. Of a timeout aiohttp
    logs no exception at all.
    """
    reported = _REPORTED.get()
    if reported is None or not hint:
        return event
    if hint.get("exc_info"):
        err = hint["exc_info"][1]
        if reported in (id(only_one(err)), id(getattr(err, "__cause__", None))):
            return None
    elif getattr(hint.get("log_record"), "name", None) == server_logger.name:
        return None
    return event
