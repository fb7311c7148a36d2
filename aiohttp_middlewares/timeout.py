"""
==================
Timeout middleware
==================

Sets a request timeout: answers 504 when a handler takes too long to begin its
response, for applications behind a proxy whose own limit ends in an error page
of its own.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import error_middleware, timeout_middleware

    app = web.Application(
        middlewares=[
            error_middleware(),
            timeout_middleware(
                29.5,  # the proxy gives up after 30
                ignore={"/reports": "POST"},
                limits={re.compile(r"^/search"): 2, "/export": 120},
            ),
        ]
    )

The clock runs until the response starts. Streams, server-sent events,
downloads and WebSockets live on after that, for as long as they like.

At the limit the handler is cancelled and :class:`RequestTimeout` is raised:
the error middleware answers ``504 {"detail": "Request timed out"}``; without
one aiohttp makes a 504 of it with an empty body.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, so that the answer has a body, and
outside of :mod:`aiohttp_middlewares.shield`: then the visitor gets an answer
at the limit, while a shielded handler goes on. The other way round the limit
cancels what was to be shielded.

Limits
======

Cancelling is a request: a handler that cleans up for two seconds answers two
seconds late, and one that swallows the cancellation has its own answer sent.
Time that a handler spends without awaiting cannot be interrupted. A slow
upload that the handler waits for counts; a slow reader of the answer does
not. Nested limits all hold: the smallest wins.
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import Any, TypeAlias

from aiohttp import web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.deadline import set_deadline
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.sending import (
    forget_interim,
    start_over,
    started,
)
from aiohttp_middlewares._core.urls import UrlMap, exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Url, Urls

__all__ = ("RequestTimeout", "timeout_middleware")

logger: logging.Logger = logs.get_logger(__name__)

_Task: TypeAlias = asyncio.Task[Any]
#: The deadline, the request, its task, how often that was cancelled, and the
#: context to log in: a filter may look for the id of the request there.
_Waiting: TypeAlias = tuple[float, web.Request, _Task, int, Context]


class RequestTimeout(asyncio.TimeoutError):
    """The limit of :func:`timeout_middleware` was reached: 504."""

    status = 504
    message = "Request timed out"

    def __str__(self) -> str:
        return self.message


def timeout_middleware(
    seconds: float | None,
    *,
    ignore: Urls | None = None,
    limits: Mapping[Url, float | None] | None = None,
) -> Middleware:
    """Let no handler take longer than that to begin its response.

    :param seconds:
        The limit. Below what the proxy in front allows, so that visitors see
        your answer and not the proxy's. ``None`` for no limit.
    :param ignore:
        URLs without a limit: a collection of paths, patterns and URLs, or a
        mapping of them to the method or methods that have none. By default:
        none.
    :param limits:
        A mapping of paths, patterns and URLs to seconds, or to ``None`` for
        no limit. The first that fits counts instead of ``seconds``. By
        default: none.
    :raises RequestTimeout:
        By the middleware, when a limit is reached. A ``TimeoutError`` of the
        handler's own passes as it is.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        A limit is not positive and finite, or a URL rule can never fit.
    """
    what = "timeout_middleware"
    by_seconds: dict[float, _Clock] = {}

    def clock(option: str, limit: float | None) -> _Clock | None:
        if limit is None:
            return None
        limit = options.seconds(f"{what} {option}", limit)
        return by_seconds.setdefault(limit, _Clock(limit))

    default = clock("seconds", seconds)
    ignored = exemption(f"{what} ignore", ignore)
    special = None
    if limits is not None:
        if not isinstance(limits, Mapping):
            options.refuse(
                TypeError, f"{what} limits", "a mapping of URLs", limits
            )
        special = UrlMap(
            f"{what} limits",
            {url: clock(f"limits[{url!r}]", limits[url]) for url in limits},
            loosens=lambda clock: (
                default is not None
                and (clock is None or clock.seconds > default.seconds)
            ),
        )

    @middleware
    async def timeout(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        clock = default
        if special is not None:
            clock = special.first(request, default)
        if clock is None:
            return await handler(request)
        if request.writer.output_size:
            forget_interim(request)
        queue = clock.queue
        # get_running_loop() is a system call before Python 3.12.
        if queue is None or (
            # There is no task any more, once the request of a clone has ended.
            queue.loop is not getattr(request.task, "get_loop", _nowhere)()
        ):
            queue = clock.start()
        number = queue.enter(request)
        try:
            return await handler(request)
        except asyncio.CancelledError as err:
            if queue.cancelled(number):
                start_over(request.writer)
                raise RequestTimeout from err
            raise
        finally:
            if queue.waiting.pop(number, None) is None:
                queue.cancelled(number)  # which forgets it

    return timeout


def _nowhere() -> None:
    return None


class _Clock:
    """The requests that have the same limit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.queue: _Queue | None = None

    def start(self) -> "_Queue":
        loop = asyncio.get_running_loop()
        queue = self.queue
        if queue is None or queue.loop is not loop:
            # One application may be run by one event loop after the other.
            queue = self.queue = _Queue(loop, self.seconds)
        return queue


if sys.version_info >= (3, 11):
    _cancelling = asyncio.Task.cancelling
    _uncancel = asyncio.Task.uncancel
else:

    def _cancelling(task: _Task) -> int:
        return 0

    _uncancel = _cancelling


class _Queue:
    """Requests in the order in which they came, and so will expire.

    The first is the next to expire: one timer does for them all, and the
    event loop keeps none for requests that were answered long ago.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.number = 0
        self.waiting: dict[int, _Waiting] = {}
        #: The tasks that were cancelled, and how often by others before.
        self.expired: dict[int, tuple[_Task, int]] = {}
        self.armed = False

    def enter(self, request: web.Request) -> int:
        loop = self.loop
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("timeout_middleware needs a task to cancel")
        self.number = number = self.number + 1
        deadline = loop.time() + self.seconds
        self.waiting[number] = (
            deadline,
            request,
            task,
            _cancelling(task),
            copy_context(),
        )
        if not self.armed:
            self.arm(deadline)
        set_deadline(self, number)
        return number

    def cancelled(self, number: int) -> bool:
        """Whether the task was cancelled here and, if so, nowhere else.

        As asyncio.timeout() has it: when somebody else cancelled the task as
        well, the cancellation is not ours to turn into a timeout.
        """
        expired = self.expired.pop(number, None)
        if expired is None:
            return False
        task, before = expired
        return _uncancel(task) <= before

    def arm(self, deadline: float) -> None:
        self.armed = True
        # An empty context: the timer outlives the request that arms it.
        self.loop.call_at(deadline, self.ring, context=Context())

    def ring(self) -> None:
        now = self.loop.time()
        due = []
        for number, (deadline, *_) in self.waiting.items():
            if deadline > now:
                self.arm(deadline)
                break
            due.append(number)
        else:
            self.armed = False
        # First all of them, as logging may fail.
        expired = [
            waiting for number in due if (waiting := self.expire(number))
        ]
        for _, request, _, _, context in expired:
            context.run(_log, request, self.seconds)

    def expire(self, number: int) -> _Waiting | None:
        """Cancel the handler, unless its response has started."""
        waiting = self.waiting.pop(number)
        _, request, task, before, _ = waiting
        if started(request):
            return None
        self.expired[number] = task, before
        task.cancel()
        return waiting


def _log(request: web.Request, seconds: float) -> None:
    facts = logs.facts(request, limit=seconds)
    logger.warning(
        "%(method)s %(path)s timed out after %(limit)s s", facts, extra=facts
    )
