"""
==================
Timeout middleware
==================

Answers 504 when a handler takes too long to begin its response, for
applications behind a proxy whose own limit ends in an error page of its own.

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
from contextvars import Context
from types import TracebackType

from aiohttp import web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.sending import started
from aiohttp_middlewares._core.urls import UrlMap, UrlMatcher
from aiohttp_middlewares.annotations import Handler, Middleware, Url, Urls

logger = logging.getLogger(__name__)


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
    ignored = None if ignore is None else UrlMatcher(f"{what} ignore", ignore)
    special = None
    if limits is not None:
        if not isinstance(limits, Mapping):
            options.refuse(
                TypeError, f"{what} limits", "a mapping of URLs", limits
            )
        special = UrlMap(
            f"{what} limits",
            {url: clock(f"limits[{url!r}]", limits[url]) for url in limits},
        )

    @web.middleware
    async def timeout(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        clock = default
        if ignored is not None or special is not None:
            path = request.rel_url.path_safe
            if ignored is not None and ignored(request.method, path):
                return await handler(request)
            if special is not None:
                clock = special.first(path, default)
        if clock is None:
            return await handler(request)
        with _Limit(clock, request):
            return await handler(request)

    return timeout


class _Limit:
    """One request that has to start its response before its deadline."""

    __slots__ = (
        "cancelling",
        "clock",
        "deadline",
        "expired",
        "queue",
        "request",
        "task",
    )

    queue: "_Queue"
    deadline: float

    def __init__(self, clock: "_Clock", request: web.Request) -> None:
        self.clock = clock
        self.request = request
        self.expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("timeout_middleware needs a task to cancel")
        self.task = task
        if sys.version_info >= (3, 11):
            self.cancelling = task.cancelling()
        self.clock.start(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.expired:
            self.queue.waiting.pop(self, None)
            return
        # As asyncio.timeout() has it: when somebody else cancelled the task
        # as well, the cancellation is not ours to turn into a timeout.
        ours = True
        if sys.version_info >= (3, 11):
            ours = self.task.uncancel() <= self.cancelling
        if ours and isinstance(err, asyncio.CancelledError):
            raise RequestTimeout from err

    def expire(self) -> None:
        """Cancel the handler, unless its response has started."""
        if started(self.request):
            return
        self.expired = True
        self.task.cancel()
        facts = logs.facts(self.request, limit=self.queue.seconds)
        logger.warning(
            "%(method)s %(path)s timed out after %(limit)s s",
            facts,
            extra=facts,
        )


class _Clock:
    """The requests that have the same limit."""

    __slots__ = ("queue", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.queue: _Queue | None = None

    def start(self, limit: _Limit) -> None:
        loop = asyncio.get_running_loop()
        queue = self.queue
        if queue is None or queue.loop is not loop:
            # One application may be run by one event loop after the other.
            queue = self.queue = _Queue(loop, self.seconds)
        limit.queue = queue
        limit.deadline = deadline = loop.time() + self.seconds
        queue.waiting[limit] = None
        if not queue.armed:
            queue.arm(deadline)


class _Queue:
    """Requests in the order in which they came, and so will expire.

    The first is the next to expire: one timer does for them all, and the
    event loop keeps none for requests that were answered long ago.
    """

    __slots__ = ("armed", "loop", "seconds", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.waiting: dict[_Limit, None] = {}
        self.armed = False

    def arm(self, deadline: float) -> None:
        self.armed = True
        # An empty context: the timer outlives the request that arms it.
        self.loop.call_at(deadline, self.ring, context=Context())

    def ring(self) -> None:
        now = self.loop.time()
        expired = []
        for limit in self.waiting:
            if limit.deadline > now:
                self.arm(limit.deadline)
                break
            expired.append(limit)
        else:
            self.armed = False
        for limit in expired:
            del self.waiting[limit]
            limit.expire()
