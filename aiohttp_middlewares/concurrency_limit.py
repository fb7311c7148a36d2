"""
============================
Concurrency limit middleware
============================

Limits how many requests are handled at the same time, lets some others wait,
and answers the rest 503 at once: overload is shed before the process drowns.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        concurrency_limit_middleware,
        error_middleware,
    )

    app = web.Application(
        middlewares=[
            error_middleware(),
            # 100 at work, 50 who wait for up to 2 seconds.
            concurrency_limit_middleware(
                100, backlog=50, backlog_timeout=2, ignore=["/health"]
            ),
        ]
    )

First come, first served. A request that finds the queue full, or has waited in
it for too long, gets ``web.HTTPServiceUnavailable``: 503 with ``Retry-After``
and ``Cache-Control: no-store``. A client that leaves the queue frees its place.

For each caller
===============

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import concurrency_limit_middleware, get_user

    app = web.Application(
        middlewares=[
            # Outside of it stands the one that finds out who the user is.
            concurrency_limit_middleware(4, backlog=8, key=get_user),
        ]
    )

Each key then has places and a queue of its own. A key is remembered for as long
as it has requests. What the function raises is raised, and where it returns
``None`` there is no limit.

How long a place is held
========================

Until the last byte of the answer is out, or the client has left, and the
handler is done as well. Streams, downloads and WebSockets hold theirs for as
long as they last, and so do clients that send or read slowly, unless a proxy in
front buffers what is sent. Give streams a limit of their own, with ``ignore``
and a second middleware in their sub-application.

A request takes one place, even if the same middleware is listed in its
application and in a sub-application.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, which renders the refusal, and of
all that refuses for less; outside of those that read the body, and of
:mod:`aiohttp_middlewares.timeout`: then waiting takes nothing from the
handler's time.

Limits
======

The places are those of one process, and of one event loop. With ``key`` there
may be as many requests as there are keys and connections: a second one without
it limits them all.

A client that leaves the queue after it has sent more of a body than aiohttp
takes in before somebody reads (100 kB and more) is not noticed: it keeps its
place in the queue until its turn comes, or ``backlog_timeout`` is over.

By default aiohttp lets a handler finish when its client has left, and its place
is taken until then. With ``handler_cancellation=True`` it is cancelled. A
handler that is shielded from a timeout, and goes on after its 504, no longer
holds a place.
"""

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, outcome_of
from aiohttp_middlewares._core.statuses import Unavailable
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("DEFAULT_BACKLOG_TIMEOUT", "concurrency_limit_middleware")

#: How many seconds a request waits at most.
DEFAULT_BACKLOG_TIMEOUT = 1.0

logger: logging.Logger = logs.get_logger(__name__)


def concurrency_limit_middleware(
    limit: int,
    *,
    backlog: int = 0,
    backlog_timeout: float = DEFAULT_BACKLOG_TIMEOUT,
    key: Callable[[web.Request], str | None] | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Answer 503 to requests that come while there is no place.

    :param limit: How many requests are worked on at a time.
    :param backlog:
        How many others may wait for a place. By default: 0, none.
    :param backlog_timeout:
        For how many seconds they wait at most. As many, in whole seconds, are
        recommended by ``Retry-After``. By default: 1.
    :param key:
        Whose request it is: a function ``(request) -> str | None``. Each key
        has places and a queue of its own; None has no limit. By default: all
        requests share them.
    :param ignore:
        URLs without a limit: a collection of paths, patterns and URLs, or a
        mapping of them to methods. By default: none.
    :raises aiohttp.web.HTTPServiceUnavailable:
        By the middleware, when there is no place.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a number is out of range, or a URL rule can never fit.
    """
    what = "concurrency_limit_middleware"
    options.integer(f"{what} limit", limit, minimum=1)
    options.integer(f"{what} backlog", backlog)
    options.seconds(f"{what} backlog_timeout", backlog_timeout)
    if key is not None:
        options.function(f"{what} key", key, awaited=False)
    ignored = exemption(f"{what} ignore", ignore)
    who = object()
    headers = {
        hdrs.RETRY_AFTER: str(math.ceil(backlog_timeout)),
        hdrs.CACHE_CONTROL: "no-store",
    }
    #: Those that are in use.
    lines: dict[str | None, _Line] = {}

    @middleware
    async def concurrency_limit(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        name = None
        if key is not None and (name := key(request)) is None:
            return await handler(request)
        limiters = stored(request, _LIMITERS)
        if limiters is None:
            limiters = request[_LIMITERS] = set()
        elif who in limiters:  # it has its place already
            return await handler(request)
        limiters.add(who)
        place = _Place()
        if not outcome_of(request).observe(who, place.leave):
            place.holds = 1  # a shielded one, whose client has left
        line = lines.get(name)
        if line is None:
            line = lines[name] = _Line(lines, name, limit)
        try:
            if line.free:
                line.free -= 1
                place.line = line
            elif not line.has_room(backlog):
                logs.refused(logger, request, "all places are taken")
                raise Unavailable(headers=headers)
            elif not await line.wait(place, request, backlog_timeout):
                logs.refused(logger, request, "it waited too long for a place")
                raise Unavailable(headers=headers)
            return await handler(request)
        finally:
            place.leave()

    return concurrency_limit


#: The middlewares that a request has come through.
_LIMITERS = request_key("aiohttp_middlewares.concurrency_limit", set)

#: How many of those who wait one who asks for room has looked at, on average:
#: next to what a request costs otherwise, that is little.
_LOOKS = 100


class _Place:
    """What a request has of a line: from its turn on, a place."""

    __slots__ = ("holds", "line")

    def __init__(self) -> None:
        self.line: _Line | None = None
        #: It is held by the handler and by the answer.
        self.holds = 2

    def leave(self, outcome: Outcome | None = None) -> None:
        self.holds -= 1
        if not self.holds and self.line is not None:
            self.line.pass_on()


class _Line:
    """The free places of a key, and who waits for one.

    As long as somebody waits, none is free.
    """

    __slots__ = ("free", "limit", "lines", "looks", "name", "waiting")

    def __init__(
        self, lines: "dict[str | None, _Line]", name: str | None, limit: int
    ) -> None:
        self.lines = lines
        self.name = name
        self.limit = self.free = limit
        #: How many were paid for.
        self.looks = 0
        self.waiting: OrderedDict[
            asyncio.Future[bool], tuple[_Place, web.Request]
        ] = OrderedDict()

    def has_room(self, backlog: int) -> bool:
        """Whether one more may wait."""
        # aiohttp may not tell of a client that has left. To look at all of
        # them each time would be what an attacker wants: whoever asks for room
        # pays for a few looks, and a full queue has been paid for by all of it.
        self.looks = min(self.looks, _LOOKS * backlog) + _LOOKS
        if backlog <= len(self.waiting) <= self.looks:
            self.looks -= len(self.waiting)
            for turn, (_, request) in [*self.waiting.items()]:
                if _is_gone(request):
                    del self.waiting[turn]
                    _wake(turn, False)
        return len(self.waiting) < backlog

    async def wait(
        self, place: _Place, request: web.Request, seconds: float
    ) -> bool:
        """Wait for a place; False where there is none for it."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self.waiting[turn] = place, request
        timer = loop.call_later(seconds, _wake, turn, False)
        try:
            return await turn
        finally:
            timer.cancel()
            self.waiting.pop(turn, None)

    def pass_on(self) -> None:
        """Give a place to who has waited longest."""
        while self.waiting:
            turn, (place, request) = self.waiting.popitem(last=False)
            if _wake(turn, not _is_gone(request)) and turn.result():
                # Already now: cancelled in this moment, it still has it.
                place.line = self
                return
        self.free += 1
        if self.free == self.limit:
            del self.lines[self.name]


def _is_gone(request: web.Request) -> bool:
    transport = request.transport
    return transport is None or transport.is_closing()


def _wake(turn: "asyncio.Future[bool]", has_place: bool) -> bool:
    """Whether it was still waiting."""
    if turn.done():
        return False
    turn.set_result(has_place)
    return True
