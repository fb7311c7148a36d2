"""
===================================
Throttle: client-side rate limiting
===================================

Limits the rate and the concurrency of requests to what a service permits: for
clients of APIs with a rate limit, and for crawlers that want to be welcome.

Usage
=====

.. code-block:: python

    import asyncio
    import time

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import throttle_middleware


    async def handle(request: web.Request) -> web.Response:
        return web.Response()


    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handle)
        # 100 requests a second, 10 of them at once; 5 under way at a time.
        throttle = throttle_middleware(100, burst=10, concurrency=5)
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession(middlewares=[throttle]) as session,
        ):

            async def ask() -> None:
                async with session.get(server.make_url("/")):
                    pass

            start = time.monotonic()
            await asyncio.gather(*(ask() for _ in range(15)))
            assert time.monotonic() - start >= 0.05


    asyncio.run(main())

First come, first served. A caller who gives up takes nobody's turn. A request
is under way until it has failed, or its response was read, released or closed.

A server that answers 429 or 503 with ``Retry-After`` is left alone for that
time, by everybody who has not sent yet, and for no longer than a minute.

A request that would have to wait for longer than ``max_wait`` raises
:class:`ThrottledError` instead: at once where that is known, which it is of the
rate but not of the requests under way. So does one that would have to wait
longer than the visitor's request for which it is made has time, by the server
side's ``timeout_middleware``.

Order
=====

Inside of all that may send again, such as retry and tokens: each attempt takes
its turn. Inside of all that may refuse or wait: what has its turn is sent.
Inside of the deadline, which ends the wait as well; the ``attempt_timeout`` of
a retry does not count it.

Limits
======

The turns are those of one process. To make a request while holding the response
of another takes two places of ``concurrency``, and a WebSocket takes one for as
long as it is open. A response that is held when its session is closed keeps its
place until it is read, released or closed itself. With ``per="session"``, a
request counts in each session that the middleware is in. One middleware serves
one event loop after the other, not several at once.
"""

import asyncio
import math
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count, islice
from typing import Literal, Protocol, TypeVar

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.deadline import time_left
from aiohttp_middlewares.client._connectors import check_open
from aiohttp_middlewares.client._errors import FinalError
from aiohttp_middlewares.client._origins import Origin, origin_of
from aiohttp_middlewares.client._redact import origin_text
from aiohttp_middlewares.client._retry_after import retry_after
from aiohttp_middlewares.client._timeouts import (
    TimeIsUp,
    time_limit,
    waiting,
)

__all__ = (
    "LONGEST_PAUSE",
    "ThrottledError",
    "throttle_middleware",
)

#: What ``Retry-After`` counts for at most, in seconds.
LONGEST_PAUSE = 60.0


def throttle_middleware(
    rate: float | None = None,
    *,
    burst: int = 1,
    concurrency: int | None = None,
    per: Literal["origin", "session"] = "origin",
    max_wait: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> ClientMiddlewareType:
    """Let requests wait for their turn.

    :param rate: How many requests a second are sent; None, the default, for
        any number.
    :param burst: How many of them may be sent at once after a time with
        fewer; by default 1, so that they keep their distance.
    :param concurrency: How many requests may be under way, until their
        responses are read or closed; None, the default, for any number.
    :param per: Whether that is for each ``"origin"``, the default, or for all
        requests together, ``"session"``.
    :param max_wait: How many seconds a request waits at most; None, the
        default, for as long as it takes.
    :param clock: The time in seconds.
    :param sleep: Waits for a number of seconds.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, and a burst without a rate.

    A request that is not sent raises :class:`ThrottledError`.
    """
    what = "throttle_middleware"
    if rate is not None:
        should = "a positive number of requests a second"
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            options.refuse(TypeError, f"{what} rate", should, rate)
        # A distance between requests that is a number again.
        if not (rate > 0 and 0 < 1 / rate < math.inf):
            options.refuse(ValueError, f"{what} rate", should, rate)
    options.integer(f"{what} burst", burst, minimum=1)
    if rate is None and burst != 1:
        options.refuse(ValueError, f"{what} burst", "with a rate", burst)
    if concurrency is not None:
        options.integer(f"{what} concurrency", concurrency, minimum=1)
    if per not in ("origin", "session"):
        error = ValueError if isinstance(per, str) else TypeError
        options.refuse(error, f"{what} per", "'origin' or 'session'", per)
    if max_wait is not None:
        options.seconds(f"{what} max_wait", max_wait, zero=True)
    for name, function in (("clock", clock), ("sleep", sleep)):
        options.function(f"{what} {name}", function)

    distance = 0.0 if rate is None else 1 / rate
    numbers = count()
    lines: dict[Origin | None, _Line] = {}
    pauses: dict[Origin, _Pause] = {}

    async def throttle(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        origin = origin_of(req.url)
        key = origin if per == "origin" else None
        now = clock()
        line = lines.get(key)
        if line is None:
            _forget(lines, now)
            line = lines[key] = _Line(distance, burst, concurrency)
        # Before anything is awaited: a line that is in use is kept.
        line.users += 1
        try:
            if origin in pauses or not line.is_free(now):
                with waiting():
                    await wait(req, origin, line, now)
            else:
                line.take(now)
            response = await send(req, handler, line)
        finally:
            line.users -= 1
        if response.status in (429, 503):
            leave_alone(origin, retry_after(response.headers) or 0)
        return response

    async def send(
        req: ClientRequest, handler: ClientHandlerType, line: _Line
    ) -> ClientResponse:
        try:
            response = await handler(req)
        except BaseException:
            line.give_back()
            raise
        if response.connection is None:
            line.give_back()  # all of it has come already
        else:
            response.connection.add_callback(line.give_back)
        return response

    async def wait(
        req: ClientRequest, origin: Origin, line: _Line, now: float
    ) -> None:
        shown = origin_text(req.url)
        limit, left = max_wait, time_left()
        if left is not None:
            limit = left if limit is None else min(limit, left)
        until = math.inf if limit is None else now + limit + _ROUNDING
        start = now
        number = next(numbers)

        async def wait_until(when: float, now: float) -> float:
            """The time it is then, whatever the clock says."""
            if when <= now:
                return now
            if when > until:
                raise ThrottledError(when - start, shown)
            await sleep(when - now)
            return max(when, clock())

        async def take_turn(now: float) -> None:
            while True:
                pause = pauses.get(origin)
                if pause is not None:
                    now = await pass_pause(pause, now)
                async with line.queue.turn(number):
                    await line.has_room()
                    now = max(now, clock())
                    late = _LATE if now < line.ready else 0.0
                    now = await wait_until(line.ready, now)
                    pause = pauses.get(origin)
                    if pause is None or pause.until <= now:
                        check_open(req)
                        line.take(now, late)
                        return

        async def pass_pause(pause: _Pause, now: float) -> float:
            while True:
                async with pause.queue.turn(number):
                    now = max(now, clock())
                    while pause.until > now:  # it may become longer
                        now = await wait_until(pause.until, now)
                    if pause.queue.is_first(number):
                        if pause.queue.is_empty and pauses.get(origin) is pause:
                            del pauses[origin]
                        return now

        pause = pauses.get(origin)
        ahead, begin = len(line.queue), now
        if pause is not None:
            ahead += len(pause.queue)
            begin = max(now, pause.until)
        if (when := line.when(begin, ahead)) > until:
            raise ThrottledError(when - now, shown)
        if limit is None or concurrency is None:
            await take_turn(now)
            return
        try:
            # For how long others are under way, nobody knows.
            async with time_limit(max(0.0, limit)):
                await take_turn(now)
        except TimeIsUp:
            raise ThrottledError(max(limit, when - now), shown) from None

    def leave_alone(origin: Origin, seconds: float) -> None:
        if seconds > 0:
            now = clock()
            pause = pauses.get(origin)
            if pause is None:
                _forget(pauses, now)
                pause = pauses[origin] = _Pause()
            until = now + min(seconds, LONGEST_PAUSE)
            pause.until = max(pause.until, until)

    return throttle


#: What is the same time but for the rounding, in seconds.
_ROUNDING = 1e-6

#: How late a turn that slept may be taken and still be counted as on time:
#: what timers take longer would otherwise make the rate lower.
_LATE = 0.01


class ThrottledError(FinalError):
    """A request that was not sent, as it would have had to wait too long.

    ``wait`` is for how many seconds, at least. ``origin`` is where it should
    have gone.
    """

    def __init__(self, wait: float, origin: str | None = None) -> None:
        super().__init__(wait, origin)
        self.wait = wait
        self.origin = origin

    def __str__(self) -> str:
        return (
            f"A request to {self.origin or 'the origin'} would have to wait"
            f" for {self.wait:.1f} seconds"
        )


class _Line:
    """Those who have the same limits, waiting or under way."""

    def __init__(
        self, distance: float, burst: int, concurrency: int | None
    ) -> None:
        self.distance = distance
        self.ahead = (burst - 1) * distance
        self.room = math.inf if concurrency is None else concurrency
        self.queue = _Queue()
        self.users = 0
        self.under_way = 0
        #: When the next request is due that is not ahead of its time: the
        #: generic cell rate algorithm (ITU-T I.371).
        self.due = -math.inf
        self._given_back: asyncio.Future[None] | None = None

    @property
    def ready(self) -> float:
        """When the next request may be sent."""
        return self.due - self.ahead

    def when(self, begin: float, ahead: int) -> float:
        """When one is sent that has so many before it."""
        due = max(begin, self.due) + ahead * self.distance
        return max(begin, due - self.ahead)

    def is_free(self, now: float) -> bool:
        return (
            len(self.queue) == 0
            and self.under_way < self.room
            and self.ready <= now
        )

    def is_idle(self, now: float) -> bool:
        """Whether a new one would be the same."""
        return not self.users and not self.under_way and self.due <= now

    def take(self, now: float, late: float = 0.0) -> None:
        if 0 <= now - self.ready <= late:
            now = self.ready
        self.due = max(now, self.due) + self.distance
        self.under_way += 1

    def give_back(self) -> None:
        self.under_way -= 1
        if self._given_back is not None:
            _wake(self._given_back)

    async def has_room(self) -> None:
        """Wait for it; the first in the queue does."""
        while self.under_way >= self.room:
            self._given_back = asyncio.get_running_loop().create_future()
            try:
                await self._given_back
            finally:
                self._given_back = None


class _Queue:
    """One has its turn, the others wait in the order in which they came."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return self._is_taken + len(self._waiting)

    @property
    def is_empty(self) -> bool:
        """But for the one whose turn it is."""
        return not self._waiting

    def is_first(self, number: int) -> bool:
        """Whether nobody waits who came before."""
        return not self._waiting or number < self._waiting[0][0]

    @asynccontextmanager
    async def turn(self, number: int) -> AsyncIterator[None]:
        if self._is_taken:
            await self._wait(number)
        self._is_taken = True
        try:
            yield
        finally:
            self._next()

    async def _wait(self, number: int) -> None:
        future = asyncio.get_running_loop().create_future()
        insort(self._waiting, (number, future))
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._next()  # its turn came in the same moment
            else:
                place = bisect_left(self._waiting, number, key=_number)
                if self._waiting[place : place + 1] == [(number, future)]:
                    del self._waiting[place]
            raise

    def _next(self) -> None:
        while self._waiting:
            _, future = self._waiting.pop(0)
            if _wake(future):
                return  # the place is kept for it
        self._is_taken = False


def _number(entry: tuple[int, asyncio.Future[None]]) -> int:
    return entry[0]


def _wake(future: "asyncio.Future[None]") -> bool:
    """Whether there was somebody to wake."""
    if future.done() or future.get_loop().is_closed():
        return False
    future.set_result(None)
    return True


class _Pause:
    """An origin that wants to be left alone, and those who wait for it."""

    def __init__(self) -> None:
        self.until = -math.inf
        self.queue = _Queue()

    def is_idle(self, now: float) -> bool:
        return not len(self.queue) and self.until <= now


class _Forgettable(Protocol):
    def is_idle(self, now: float) -> bool: ...


K = TypeVar("K")
V = TypeVar("V", bound=_Forgettable)


def _forget(kept: dict[K, V], now: float) -> None:
    """Look at the two oldest whenever there is a new one.

    A crawler meets many origins that it never comes back to.
    """
    for key in list(islice(kept, 2)):
        if kept[key].is_idle(now):
            del kept[key]
        else:
            kept[key] = kept.pop(key)
