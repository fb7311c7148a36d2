"""The task of a shielded handler, and what becomes of it."""

import asyncio
import logging
import sys
from collections.abc import Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from types import coroutine
from typing import Any, TypeAlias

from aiohttp import ClientConnectionResetError, web

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.outcome import client_left
from aiohttp_middlewares._core.sending import (
    HANDLERS,
    AnsweredAlready,
    only_one_response,
    started,
)
from aiohttp_middlewares._core.statuses import status_of
from aiohttp_middlewares.annotations import Handler

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.shield")

_Handling: TypeAlias = Coroutine[Any, Any, web.StreamResponse]
_Task: TypeAlias = asyncio.Task[web.StreamResponse]
#: The handlers at work. It keeps them: an event loop lets go of a task that
#: only waits for something that nobody else knows.
Running: TypeAlias = dict[_Task, web.Request]


async def handle_shielded(
    request: web.Request, handler: Handler, running: Running
) -> web.StreamResponse:
    context = copy_context()
    waiter: asyncio.Future[None] | None = None
    itself = object()
    around = HANDLERS.get()

    async def handle() -> web.StreamResponse:
        try:
            if not _AT_ONCE:
                await _pause()
            HANDLERS.set((*around, itself))
            # The client may have left by now.
            if request.transport is None and request.content.is_eof():
                _let_read(request)
            # Not each handler is a coroutine function: no view is.
            return await handler(request)
        finally:
            HANDLERS.set(around)
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
            await _outlast(request, task, waiter, running, itself)
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
        parent: Any = request.task
        loop = None if parent is None else parent.get_loop()
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
    running: Running,
    handler: object,
) -> None:
    """Wait for the handler, or as long as nobody cancels this."""
    running[task] = request
    try:
        await waiter
    except asyncio.CancelledError as exc:
        if await _goes_on(request, task, exc, handler):
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
    request: web.Request,
    task: _Task,
    exc: asyncio.CancelledError,
    handler: object,
) -> bool:
    """The request was cancelled. Whether that was kept from its handler.

    If not, the handler was cancelled as well and the request ends as it does.
    """
    protocol: Any = request.protocol
    if task.done():  # in the very moment
        _report(request, task, client_left=_is_cut(request))
        return True

    if not request.content.is_eof() or _GIVEN_UP in exc.args:
        # The handler waits for an upload that may never end; left alone it
        # would keep aiohttp from closing the connection.
        await _cancel(task)
        return False

    if request.transport is not None:
        # A timeout outside. The visitor gets its answer, and whatever the
        # handler sends later must not follow it.
        only_one_response(request, handler)
        task.add_done_callback(lambda task: _report(request, task))
        return True

    # A lost connection and the end of `shutdown_timeout` look the same but for
    # a private attribute: aiohttp forgets its task for a lost connection.
    if isinstance(getattr(protocol, "_task_handler", None), asyncio.Task):
        log_cancelled(request)
        await _cancel(task)
        return False

    client_left(request)
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
            log_cancelled(request)
            task.cancel(_GIVEN_UP)

    task.add_done_callback(settle)
    stand_in.add_done_callback(cancel)
    return stand_in


def _report(
    request: web.Request, task: _Task, *, client_left: bool = False
) -> None:
    """Say how a handler ended that nobody else hears of."""
    exc = why = None if task.cancelled() else task.exception()
    if not request.content.is_eof():
        return  # it ended with the upload that broke off
    if task.cancelled():
        log_cancelled(request)
        return
    if isinstance(exc, ConnectionAbortedError) and exc.__cause__ is not None:
        why = exc.__cause__  # an error middleware inside could not answer it
    if why is None:
        return
    if isinstance(why, Exception) and status_of(request, why) < 500:
        return  # no error of ours
    if isinstance(why, AnsweredAlready):
        return  # it wrote to a client that had its answer, such as a 504
    if client_left and started(request) and _comes_of_it(why):
        return  # it wrote to the client that left
    facts = logs.facts(request)
    logger.error(
        "The shielded handler of %(method)s %(path)s failed after its "
        "request had ended",
        facts,
        exc_info=exc,
        extra=facts,
    )


def _is_cut(request: web.Request) -> bool:
    transport = request.transport
    # A write that fails closes it; only the event loop's next turn removes it.
    return transport is None or transport.is_closing()


def _comes_of_it(exc: BaseException) -> bool:
    return (
        isinstance(exc, ClientConnectionResetError)
        or type(exc) is ConnectionError  # of a write that waited to go on
    )


def log_cancelled(request: web.Request) -> None:
    facts = logs.facts(request)
    logger.error(
        "The shielded handler of %(method)s %(path)s was cancelled before it "
        "had finished",
        facts,
        extra=facts,
    )
