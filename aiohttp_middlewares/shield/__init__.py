"""
=================
Shield middleware
=================

Lets a handler finish what it began, when the client leaves and when the
server shuts down: for writes that must not stop half-way.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import (
        NON_IDEMPOTENT_METHODS,
        drain_shielded,
        shield_middleware,
        timeout_middleware,
    )

    app = web.Application(
        middlewares=[
            timeout_middleware(29.5),
            shield_middleware(
                methods=NON_IDEMPOTENT_METHODS,
                ignore={"/search": "POST"},
            ),
        ]
    )
    # Needed with a timeout outside only. The last in the list is the first
    # to be torn down, before the database closes.
    app.cleanup_ctx.append(drain_shielded)

By URL, or by URL and method:

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import NON_IDEMPOTENT_METHODS, shield_middleware

    app = web.Application(
        middlewares=[
            shield_middleware(
                urls={
                    re.compile(r"^/downloads/.*$"): "GET",
                    re.compile(r".*"): NON_IDEMPOTENT_METHODS,
                }
            )
        ]
    )

What it protects from
=====================

*The client leaves.* aiohttp cancels the handler then if it was told to
(``web.run_app(app, handler_cancellation=True)``). The shielded handler goes
on; what it raises is logged, as nobody else will hear of it.

*The server shuts down.* aiohttp waits for the requests in progress, those of
clients that left included, for its ``shutdown_timeout``, and only then runs
``on_cleanup``. A handler that is still at work when that time is over is
cancelled, before ``on_cleanup``, and an error is logged.

*A timeout outside.* The visitor gets the 504 at the limit, the handler goes
on. aiohttp knows nothing of such a handler: :func:`drain_shielded` makes the
shutdown wait for it.

Order
=====

Next to the handler, inside of :mod:`aiohttp_middlewares.timeout`: only what
is inside of it is shielded.

Limits
======

Only a request that arrived whole is shielded: while an upload is incomplete
there is nothing to save, and the handler is cancelled. Nothing survives the
end of the process: give it the time (``shutdown_timeout``, 60 seconds by
default, is applied twice by aiohttp: to the handler, then to its connection).

With ``handler_cancellation=False``, aiohttp's default, nobody cancels a
handler when its client leaves, and aiohttp does not cancel it at the end of
``shutdown_timeout`` either: add :func:`drain_shielded`, which waits for it.

Read the body first. Once a timeout outside has answered, aiohttp refuses to
give what was not read yet, and closes the uploaded files. With
``handler_cancellation=False`` it does so as soon as the client leaves.

A shielded stream or long poll never learns that its client left. The task of
a handler is ``asyncio.Task``, whatever ``loop.set_task_factory()`` was given.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, TypeAlias

from aiohttp import ClientConnectionResetError, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.deadline import DEADLINE
from aiohttp_middlewares._core.sending import only_one_response, started
from aiohttp_middlewares._core.urls import url_matcher
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)

#: For how many seconds :func:`drain_shielded` waits: as long as aiohttp does.
DEFAULT_DRAIN_TIMEOUT = 60.0

logger = logging.getLogger(__name__)


def shield_middleware(
    *,
    methods: StrCollection | None = None,
    urls: Urls | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Let the handlers of some requests finish, whoever cancels them.

    :param methods:
        Shield requests with these methods, without case. Most of the time
        these are :data:`~aiohttp_middlewares.NON_IDEMPOTENT_METHODS`.
    :param urls:
        Shield requests to these URLs: a collection of paths, patterns and
        URLs, or a mapping of them to the method or methods to shield.
    :param ignore:
        URLs that are not shielded for all that, together with ``methods``
        only. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        Neither or both of ``methods`` and ``urls`` are given, or ``ignore``
        together with ``urls``; or a rule can never fit.
    """
    what = "shield_middleware"
    if not methods and not urls:
        raise ValueError(f"{what} takes methods or urls, got neither")
    if methods and urls:
        raise ValueError(f"{what} takes methods or urls, got both")
    if urls and ignore:
        raise ValueError(f"{what} takes ignore together with methods only")
    if isinstance(methods, str):
        options.refuse(
            TypeError,
            f"{what} methods",
            "a collection of HTTP methods",
            methods,
            meant=f"[{methods!r}]",
        )
    shielded_methods = options.methods(f"{what} methods", methods or ())
    shielded = None if not urls else url_matcher(f"{what} urls", urls)
    ignored = None if not ignore else url_matcher(f"{what} ignore", ignore)
    running: _Running = {}

    @web.middleware
    async def shield(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if shielded is not None:
            if not shielded(request):
                return await handler(request)
        elif request.method not in shielded_methods or (
            ignored is not None and ignored(request)
        ):
            return await handler(request)
        # It may outlive the limit, and so may what it asks others for.
        limit = DEADLINE.set(None)
        try:
            return await _shield(request, handler, running)
        finally:
            try:
                DEADLINE.reset(limit)
            except ValueError:
                pass  # in no context of ours: the event loop is closed

    shield.shielded_handlers = running  # type: ignore[attr-defined]
    return shield


async def drain_shielded(app: web.Application) -> AsyncIterator[None]:
    """Wait at shutdown for the handlers that outlived their request.

    For ``app.cleanup_ctx``, as its last member, so that it is torn down
    first. It finds the handlers through the middlewares of the application
    and its sub-applications. One that is still at work after
    :data:`DEFAULT_DRAIN_TIMEOUT` seconds is cancelled, and an error is logged.
    """
    yield
    handlers = {
        task
        for middleware in _middlewares(app)
        for task, request in getattr(middleware, "shielded_handlers", _NONE)
        # A copy: another application in another thread may share it.
        .copy()
        .items()
        if app in request.match_info.apps
    }
    if not handlers:
        return
    logger.info(
        "Waiting for %(handlers)s shielded handlers",
        facts := {"handlers": len(handlers)},
        extra=facts,
    )
    _, late = await asyncio.wait(handlers, timeout=DEFAULT_DRAIN_TIMEOUT)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)


_Handling: TypeAlias = Coroutine[Any, Any, web.StreamResponse]
_Task: TypeAlias = asyncio.Task[web.StreamResponse]
#: The handlers at work. It keeps them: an event loop lets go of a task that
#: only waits for something that nobody else knows.
_Running: TypeAlias = dict[_Task, web.Request]
_NONE: _Running = {}


async def _shield(
    request: web.Request, handler: Handler, running: _Running
) -> web.StreamResponse:
    context = copy_context()
    waiter: asyncio.Future[None] | None = None

    async def handle() -> web.StreamResponse:
        try:
            if not _AT_ONCE:
                await _pause()
            # The client may have left by now.
            if request.transport is None and request.content.is_eof():
                _let_read(request)
            # Not each handler is a coroutine function: no view is.
            return await handler(request)
        finally:
            if _COPIES_CONTEXT:
                for variable, value in copy_context().items():
                    context.run(variable.set, value)
            # A turn of the event loop earlier than a callback of the task.
            if waiter is not None and not waiter.done():
                with suppress(RuntimeError):  # the event loop is closed
                    waiter.set_result(None)

    task = _start(handle(), request, context)
    try:
        if not task.done():
            waiter = task.get_loop().create_future()
            await _outlast(request, task, waiter, running)
        return task.result()
    finally:
        # What the handler set, middlewares outside may read.
        if context and task.done():
            for variable, value in context.items():
                if variable.get(_UNSET) is not value:
                    variable.set(value)
        # An exception that it raised refers to this frame.
        del task


_UNSET: Any = object()
_AT_ONCE = sys.version_info >= (3, 12)
#: Whether each task makes a copy of the context that it is given.
_COPIES_CONTEXT = sys.version_info < (3, 11)

if sys.version_info >= (3, 12):

    def _start(
        handling: _Handling, request: web.Request, context: Context
    ) -> _Task:
        """Start at once: a handler that never waits needs no shield."""
        return asyncio.Task(
            handling,
            loop=asyncio.get_running_loop(),
            context=context,
            eager_start=True,
        )

else:

    def _start(
        handling: _Handling, request: web.Request, context: Context
    ) -> _Task:
        # As far as to its pause: should its task be cancelled before the first
        # turn, it still does what it has to do at its end.
        handling.send(None)
        # get_running_loop() would be a system call.
        loop = request.task.get_loop()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            loop = asyncio.get_running_loop()  # a test made up the request
        if sys.version_info >= (3, 11):
            return asyncio.Task(handling, loop=loop, context=context)
        return context.run(asyncio.Task, handling, loop=loop)


@coroutine
def _pause() -> Generator[None, None, None]:
    yield


async def _outlast(
    request: web.Request,
    task: _Task,
    waiter: asyncio.Future[None],
    running: _Running,
) -> None:
    """Wait for the handler, or as long as nobody cancels this."""
    running[task] = request
    try:
        await waiter
    except asyncio.CancelledError as exc:
        if await _goes_on(request, task, exc):
            raise
    else:
        if task.cancelled():
            _report(request, task)
    finally:
        if task.done():
            del running[task]
        else:
            task.add_done_callback(running.pop)


def _settled(task: _Task) -> asyncio.Future[None]:
    """Wait for the task; being cancelled here does not cancel it.

    As ``asyncio.wait([task])`` does, for a third of the price.
    """
    waiter = task.get_loop().create_future()

    def wake(task: _Task) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    return waiter


#: What a shield that gives up tells another further in, as it cancels it.
_GIVEN_UP = "given up by aiohttp_middlewares.shield"


async def _goes_on(
    request: web.Request, task: _Task, exc: asyncio.CancelledError
) -> bool:
    """The request was cancelled. Whether that was kept from its handler.

    If not, the handler was cancelled as well and the request ends as it does.
    """
    protocol: Any = request.protocol
    if task.done():  # in the very moment
        _report(request, task)
        return True

    if not request.content.is_eof() or _GIVEN_UP in exc.args:
        # The handler waits for an upload that may never end; left alone it
        # would keep aiohttp from closing the connection.
        await _cancel(task)
        return False

    if request.transport is not None:
        # A timeout outside. The visitor gets its answer, and whatever the
        # handler sends later must not follow it.
        only_one_response(request)
        task.add_done_callback(lambda task: _report(request, task))
        return True

    # A lost connection and the end of `shutdown_timeout` look the same but for
    # a private attribute: aiohttp forgets its task for a lost connection.
    if isinstance(getattr(protocol, "_task_handler", None), asyncio.Task):
        _log_cancelled(request)
        await _cancel(task)
        return False

    _let_read(request)
    # And having forgotten its task, aiohttp would not cancel anything at the
    # end of `shutdown_timeout`.
    stand_in = _stand_in(request, task)
    if hasattr(protocol, "_task_handler"):
        protocol._task_handler = stand_in
    while not task.done():
        # A timeout outside may strike as well: there is nobody to answer.
        with suppress(asyncio.CancelledError):
            await _settled(task)
    if not (task.cancelled() and stand_in.cancelled()):
        _report(request, task, client_left=True)
    return True


def _let_read(request: web.Request) -> None:
    """Have the handler read what it did not yet read, as it arrived whole."""
    request.content.set_exception(None)  # type: ignore[arg-type]


async def _cancel(task: _Task) -> None:
    """Cancel the handler and wait until it has cleaned up."""
    while not task.done():
        task.cancel(_GIVEN_UP)
        with suppress(asyncio.CancelledError):  # passed on by the loop
            await _settled(task)


def _stand_in(request: web.Request, task: _Task) -> asyncio.Future[None]:
    """For aiohttp to wait for and to cancel.

    The task itself may fail, and ``AppRunner.cleanup()`` fails with what it
    waits for, before ``on_cleanup``.
    """
    stand_in = task.get_loop().create_future()

    def settle(task: _Task) -> None:
        if not stand_in.done():
            stand_in.set_result(None)

    def cancel(stand_in: asyncio.Future[None]) -> None:
        if stand_in.cancelled():
            _log_cancelled(request)
            task.cancel(_GIVEN_UP)

    task.add_done_callback(settle)
    stand_in.add_done_callback(cancel)
    return stand_in


def _report(
    request: web.Request, task: _Task, *, client_left: bool = False
) -> None:
    """Say how a handler ended that nobody else hears of."""
    exc = None if task.cancelled() else task.exception()
    if not request.content.is_eof():
        return  # it ended with the upload that broke off
    if task.cancelled():
        _log_cancelled(request)
        return
    if exc is None or (isinstance(exc, web.HTTPException) and exc.status < 500):
        return
    if (
        client_left
        and started(request)
        and isinstance(exc, ClientConnectionResetError)
    ):
        return  # it wrote to the client that left
    facts = logs.facts(request)
    logger.error(
        "The shielded handler of %(method)s %(path)s failed after its "
        "request had ended",
        facts,
        exc_info=exc,
        extra=facts,
    )


def _log_cancelled(request: web.Request) -> None:
    facts = logs.facts(request)
    logger.error(
        "The shielded handler of %(method)s %(path)s was cancelled before it "
        "had finished",
        facts,
        extra=facts,
    )


def _middlewares(app: web.Application) -> Iterator[Any]:
    yield from app.middlewares
    for resource in app.router.resources():
        subapp = resource.get_info().get("app")
        if isinstance(subapp, web.Application):
            yield from _middlewares(subapp)
