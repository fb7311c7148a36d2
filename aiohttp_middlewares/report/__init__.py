r"""
=================
Report middleware
=================

Reports every unexpected error to Sentry, Rollbar, Bugsnag or a function of
yours, including those that an error middleware answers.

Usage
=====

.. code-block:: python

    import asyncio

    import sentry_sdk
    from aiohttp import web
    from aiohttp_middlewares import (
        error_middleware,
        report_middleware,
        sentry_reporter,
    )


    async def flush(app: web.Application) -> None:
        await asyncio.to_thread(sentry_sdk.flush, timeout=2)


    app = web.Application(
        middlewares=[error_middleware(), report_middleware(sentry_reporter())]
    )
    app.on_cleanup.append(flush)

    if __name__ == "__main__":
        sentry_sdk.init()  # with what SENTRY_DSN says
        web.run_app(app)

The SDKs send in the background: what has not left when the server stops is
lost, unless ``on_cleanup`` waits for it. For Rollbar that is
``await asyncio.to_thread(rollbar.wait)``, for Bugsnag
``await asyncio.to_thread(bugsnag.legacy.default_client.flush, 2000)``.

What is reported
================

Exceptions that are answered with a status of 500 or more: unexpected ones,
``web.HTTPException``\ s of 5xx that are raised, the 504 of
:mod:`aiohttp_middlewares.timeout`, and handlers that return no response. Not
reported are the client's faults (4xx, or a body that cannot be read),
redirects, cancellation, and clients that went away. A 5xx response that is
*returned* is not an exception. The exception then goes on as it was.

With several of these middlewares, as in a sub-application, the outermost
counts: an error is reported once, where it is first seen.

Reporters
=========

:func:`sentry_reporter`, :func:`rollbar_reporter` and :func:`bugsnag_reporter`
hand on the exception with its traceback, method, URL, route and request id.
They leave out the query, the headers, the body, and the local variables in the
traceback, which may hold any of these. Breadcrumbs are those of the request
itself, from here on inwards. If you want all that the SDK collects, call it:
``report_middleware(lambda err, request: sentry_sdk.capture_exception(err))``.

A reporter of your own is a function of the error and the request. It is
``async`` if it has to wait for something:

.. code-block:: python

    from aiohttp import ClientSession, web
    from aiohttp_middlewares import error_middleware, report_middleware

    CHAT = web.AppKey("CHAT", ClientSession)


    async def tell_the_chat(err: Exception, request: web.Request) -> None:
        text = f"{type(err).__name__} at {request.rel_url.raw_path}"
        await request.app[CHAT].post("/errors", json={"text": text})


    app = web.Application(
        middlewares=[error_middleware(), report_middleware(tell_the_chat)]
    )

Refusals because the load is too high, or because something else is away (the
503 of ``concurrency_limit_middleware``, the 502 of a provider), are not
reported: they are in the log, and there may be thousands of them.

A reporter that fails is logged, and changes nothing. An ``async`` one that is
not done after 5 s is cancelled. All run at the same time, and the answer waits
for them, so never longer than that. If the request is cancelled meanwhile they
go on without it. One that is not ``async`` runs in the event loop, and must not
block it: use ``asyncio.to_thread``.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, which leaves no errors to those
outside of it, and so of :mod:`aiohttp_middlewares.cors`; outside of
:mod:`aiohttp_middlewares.timeout` and whatever else may fail.

Limits
======

A message may say anything, and so may breadcrumbs, which come from what your
application logs: strike out secrets there with ``before_send`` and its like.

Sentry itself makes events of what is logged as an error, for example by the
error middleware, and of what leaves the application. It knows that these are
about the exception already reported, and sends one. ``RollbarHandler`` and
``BugsnagHandler`` do not: keep the logger ``aiohttp_middlewares.error`` from
them, by a filter or by ``error_middleware(log=False)``.

More than a thousand reports at the same time are not waited for: they are
logged as failures.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from contextlib import ExitStack
from functools import partial
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware, no_response
from aiohttp_middlewares._core.statuses import (
    Foreseen,
    left,
    only_one,
    status_of,
)
from aiohttp_middlewares.annotations import ExceptionType, Handler, Middleware
from aiohttp_middlewares.report._bugsnag import bugsnag_reporter
from aiohttp_middlewares.report._rollbar import rollbar_reporter
from aiohttp_middlewares.report._sdk import BACKLOG, Reporter, SdkReporter
from aiohttp_middlewares.report._sentry import sentry_reporter

__all__ = (
    "Reporter",
    "bugsnag_reporter",
    "report_middleware",
    "rollbar_reporter",
    "sentry_reporter",
)

logger: logging.Logger = logs.get_logger(__name__)

#: How long a reporter may take: seconds.
PATIENCE = 5.0


def report_middleware(
    *reporters: Reporter,
    ignore_exceptions: ExceptionType | tuple[ExceptionType, ...] | None = None,
) -> Middleware:
    """Tell reporters of every unexpected error.

    :param reporters:
        Functions, ``async`` or not, that are called with the error and the
        request; at least one.
    :param ignore_exceptions:
        An exception class or several that are not reported. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: there is no reporter.
    """
    what = "report_middleware"
    if not reporters:
        options.refuse(
            ValueError, f"{what} reporters", "at least one", reporters
        )
    for reporter in reporters:
        _check(f"{what} reporters", reporter)
    desk = _Desk(
        reporters,
        options.exceptions(
            f"{what} ignore_exceptions",
            () if ignore_exceptions is None else ignore_exceptions,
        ),
    )
    scopes = [
        reporter.scope
        for reporter in reporters
        if isinstance(reporter, SdkReporter)
    ]

    @middleware
    async def report(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outer: _Watch | None = stored(request, _KEY)
        if outer is not None:
            return await outer.answer(request, handler)
        watch = request[_KEY] = _Watch(desk)
        try:
            if not scopes:
                return await watch.answer(request, handler)
            with ExitStack() as stack:
                for scope in scopes:
                    stack.enter_context(scope())
                return await watch.answer(request, handler)
        finally:
            # Its traceback refers to frames that refer to the request.
            watch.reported = None

    return report


def _check(what: str, reporter: object) -> None:
    """Refuse what cannot be called with the error and the request."""
    function = options.function(what, reporter)
    should = "functions of the error and the request"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # one in C, that does not tell
    if _takes(signature, None, None):
        return
    name = getattr(function, "__name__", "")
    meant = f"{name}()" if name and _takes(signature) else None
    options.refuse(TypeError, what, should, reporter, meant=meant)


def _takes(signature: inspect.Signature, *args: object) -> bool:
    try:
        signature.bind(*args)
    except TypeError:
        return False
    return True


class _Desk:
    """Where errors are reported: the reporters, and those at work."""

    def __init__(
        self,
        reporters: tuple[Reporter, ...],
        ignored: tuple[type[Exception], ...],
    ) -> None:
        self.reporters = reporters
        self.ignored = ignored
        #: Nobody else holds those whose request was cancelled.
        self.at_work: set[asyncio.Task[None]] = set()

    def wants(self, err: Exception, request: web.Request) -> bool:
        return (
            status_of(request, err) >= 500
            and not isinstance(err, Foreseen)
            and not isinstance(err, self.ignored)
            and not left(request, err)
        )

    async def report(self, err: Exception, request: web.Request) -> None:
        waiting = []
        for reporter in self.reporters:
            try:
                result = reporter(err, request)
                if inspect.isawaitable(result):
                    waiting.append(self.start(reporter, result, request))
            except Exception as exc:
                _failed(reporter, request, exc)
        if waiting:
            # If the request is cancelled, they are not.
            await asyncio.wait(waiting)

    def start(
        self, reporter: Reporter, result: Awaitable[Any], request: web.Request
    ) -> asyncio.Task[None]:
        if len(self.at_work) >= BACKLOG:
            if inspect.iscoroutine(result):
                result.close()
            raise RuntimeError(f"{BACKLOG} reports are not done yet")
        task = asyncio.create_task(_finish(reporter, result, request))
        self.at_work.add(task)
        task.add_done_callback(self.at_work.discard)
        return task


class _Watch:
    """The errors of one request, whichever middleware sees them."""

    __slots__ = ("desk", "reported")

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk
        #: The last one, while it is on its way out.
        self.reported: Exception | None = None

    async def answer(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
            if response.__class__ is web.Response or hasattr(
                response, "prepare"
            ):
                return response
            raise no_response(handler, response)
        except Exception as err:
            await self.see(err, request)
            raise

    # What it refers to, the traceback of the error does not.
    async def see(self, err: Exception, request: web.Request) -> None:
        told = self.reported
        # One that an error middleware in between has raised from it, too.
        if told is not None and (err is told or err.__cause__ is told):
            return
        only = only_one(err)
        if self.desk.wants(only, request):
            self.reported = err
            await self.desk.report(only, request)


_KEY = request_key("aiohttp_middlewares.report", _Watch)


async def _finish(
    reporter: Reporter, result: Awaitable[Any], request: web.Request
) -> None:
    task = asyncio.create_task(_wait_for(reporter, result, request))
    # Not wait_for(), which waits for what does not let itself be cancelled.
    _, late = await asyncio.wait([task], timeout=PATIENCE)
    if late:
        task.cancel()
        facts = _facts(reporter, request)
        logger.error(
            "The reporter %(reporter)s was not done with %(method)s %(path)s "
            "in time: it is cancelled",
            facts,
            extra=facts,
        )
    elif task.cancelled():
        _failed(reporter, request, RuntimeError("It was cancelled"))


async def _wait_for(
    reporter: Reporter, result: Awaitable[Any], request: web.Request
) -> None:
    try:
        await result
    except Exception as exc:
        # Not raised: its traceback may refer to the task, which would hold it.
        _failed(reporter, request, exc)


def _failed(
    reporter: Reporter, request: web.Request, exc: BaseException
) -> None:
    facts = _facts(reporter, request)
    logger.error(
        "The reporter %(reporter)s failed for %(method)s %(path)s",
        facts,
        exc_info=exc,
        extra=facts,
    )


def _facts(reporter: Any, request: web.Request) -> dict[str, Any]:
    while isinstance(reporter, partial):
        reporter = reporter.func
    name = getattr(reporter, "__qualname__", type(reporter).__qualname__)
    return logs.facts(request, reporter=name)
