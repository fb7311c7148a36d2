"""Rollbar."""

from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core.who import get_user
from aiohttp_middlewares.report._sdk import (
    Reporter,
    SdkReporter,
    described,
    missing,
)


def rollbar_reporter() -> Reporter:
    """Report to Rollbar, as ``rollbar.init()`` has set it up.

    ``route`` and ``request_id`` are in the custom data.
    :func:`~aiohttp_middlewares.get_user` is told where ``capture_username``
    allows it. The handler ``"blocking"`` is called in a thread. Without
    ``init()`` nothing is sent, and Rollbar logs a warning.

    :raises ImportError: rollbar is not installed.
    """
    return RollbarReporter()


class RollbarReporter(SdkReporter):
    def __init__(self) -> None:
        super().__init__()
        try:
            import rollbar
            from rollbar.lib import events
        except ImportError as exc:
            raise missing("rollbar_reporter", "rollbar", "rollbar") from exc
        self._sdk = rollbar
        self._events = events

    def __call__(
        self, err: Exception, request: web.Request
    ) -> Awaitable[None] | None:
        rollbar = self._sdk
        said = described(request)
        custom = {"route": said.route}
        if said.request_id is not None:
            custom["request_id"] = said.request_id
        data: dict[str, Any] = {
            "context": said.name,
            "custom": custom,
            "framework": "aiohttp",
            "request": {"method": said.method, "url": said.url},
        }
        user = get_user(request)
        if user is not None and rollbar.SETTINGS.get("capture_username"):
            data["person"] = {"id": user, "username": user}

        def report() -> None:
            # Each time, as rollbar.init() throws away what was there before.
            self._events.add_payload_handler(_without_locals)
            token = _OURS.set(True)
            try:
                rollbar.report_exc_info(
                    (type(err), err, err.__traceback__), payload_data=data
                )
            finally:
                _OURS.reset(token)

        if rollbar.SETTINGS.get("handler") in ("blocking", "gae"):
            return self.aside(report)
        report()
        return None


#: Whether it is one of our reports that is being made.
_OURS: ContextVar[bool] = ContextVar("rollbar_report", default=False)


def _without_locals(payload: Any, **_: Any) -> Any:
    """Leave out the local variables, which may hold bodies and passwords.

    Rollbar's own setting is for all reports of the application.
    """
    if _OURS.get():
        body = payload["data"]["body"]
        for trace in body.get("trace_chain") or [body["trace"]]:
            for frame in trace["frames"]:
                for name in ("argspec", "keywordspec", "locals", "varargspec"):
                    frame.pop(name, None)
    return payload
