"""Bugsnag."""

from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from aiohttp import web

from aiohttp_middlewares.report._sdk import (
    Reporter,
    SdkReporter,
    described,
    missing,
)


def bugsnag_reporter() -> Reporter:
    """Report to Bugsnag, as ``bugsnag.configure()`` has set it up.

    ``route`` and ``requestId`` are in the tab of the request. What was told of
    a request further out, by ``configure_request()``, is forgotten.
    Nothing is said of the user: Bugsnag has no setting that allows it. With
    ``asynchronous=False`` it is called in a thread. Without ``configure()``
    nothing is sent, and Bugsnag logs a warning.

    :raises ImportError: bugsnag is not installed.
    """
    return BugsnagReporter()


class BugsnagReporter(SdkReporter):
    def __init__(self) -> None:
        super().__init__()
        try:
            import bugsnag
            from bugsnag.context import create_new_context
        except ImportError as exc:
            raise missing("bugsnag_reporter", "bugsnag", "bugsnag") from exc
        self._sdk: Any = bugsnag
        self._new_context: Any = create_new_context

    def __call__(
        self, err: Exception, request: web.Request
    ) -> Awaitable[None] | None:
        said = described(request)
        tab = {
            "httpMethod": said.method,
            "route": said.route,
            "url": said.url,
        }
        if said.request_id is not None:
            tab["requestId"] = said.request_id

        def report() -> None:
            self._sdk.auto_notify(
                err,
                context=said.name,
                metadata={"request": tab},
                severity_reason={
                    "type": "unhandledExceptionMiddleware",
                    "attributes": {"framework": "aiohttp"},
                },
            )

        if not self._sdk.configuration.asynchronous:
            return self.aside(report)
        report()
        return None

    def scope(self) -> AbstractContextManager[Any]:
        # Each request has a context of its own; what is in it is not.
        configuration = self._sdk.configuration
        configuration.max_breadcrumbs = configuration.max_breadcrumbs  # copies
        self._sdk.clear_request_config()
        self._new_context()  # for feature flags
        return nullcontext()
