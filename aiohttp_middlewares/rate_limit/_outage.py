"""What becomes of requests while the storage does not answer."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from math import ceil
from typing import Any, Literal, TypeAlias

from aiohttp import hdrs

from aiohttp_middlewares._core import logs, pools
from aiohttp_middlewares._core.logs import shown
from aiohttp_middlewares._core.requests import warn_once
from aiohttp_middlewares._core.statuses import Unavailable
from aiohttp_middlewares.rate_limit._windows import Count, Counter, Limit

OnStorageError: TypeAlias = Literal["allow", "deny", "memory"]

#: So many requests at most are with the storage at the same time; further
#: ones wait for one of these, first come, first served. To connect takes ten
#: times what a count takes: where many begin at once, more connections make
#: all of them slower, up to the timeout.
MOST_CONNECTIONS = 32
#: How long a storage that failed is left alone, at the least.
SHORTEST_PAUSE = 0.1

#: A loop that is so many seconds late was busy, and has not yet read what has
#: come meanwhile.
LATE = 0.05

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.rate_limit")


class Guarded:
    """Counts in a storage that may be away, and never waits long for it.

    Each count is a task of its own: a client that leaves does not break off
    a command, which would cost the connection, and what is given up after
    ``timeout`` is broken off by nobody else.

    After a failure the storage is left alone for as long as the last try has
    taken; then one request tries again, while the others go on without.
    """

    def __init__(
        self,
        counter: Counter,
        storage: Any,
        *,
        is_ours: bool,
        on_error: OnStorageError,
        instead: Counter | None,
        timeout: float,
    ) -> None:
        self.counter = counter
        #: The client of redis-py, where there is one.
        self.client = getattr(getattr(storage, "bridge", None), "storage", None)
        self.is_ours = is_ours
        self.on_error = on_error
        self.instead = instead
        self.timeout = timeout
        pool = getattr(self.client, "connection_pool", None)
        most = getattr(pool, "max_connections", MOST_CONNECTIONS)
        self.connections = min(most, MOST_CONNECTIONS)
        self.loop: asyncio.AbstractEventLoop | None = None
        #: One more with each change between here and away: what was begun
        #: before says nothing of what is now.
        self.era = 0
        self.away = False
        self.tries_again = False
        self.pause_ends = 0.0
        self.warn_of_waiting = warn_once(
            logger,
            "Rate limits: storage_timeout was over before there was a free "
            "connection to the storage; if that is often so, give its pool "
            "more connections, or it more time",
        )

    async def count(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        loop = asyncio.get_running_loop()
        if loop is not self.loop:
            await self.begin(loop)
        if self.away:
            if self.tries_again or time.monotonic() < self.pause_ends:
                return await self.without(bucket, limits, units)
            self.tries_again = True
        found = await _Attempt(self, loop, bucket, limits, units).answer
        if found is None:
            return await self.without(bucket, limits, units)
        return found

    async def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.places = asyncio.Semaphore(self.connections)
        self.away = False
        self.tries_again = False
        if self.is_ours and self.client is not None:
            self.closing = _closed_in_the_end(self.client)
            await self.closing.__anext__()

    async def without(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        if self.instead is not None:
            return await self.instead.count(bucket, limits, units)
        if self.on_error == "allow":
            return True, ()
        pause = self.pause_ends - time.monotonic()
        raise Unavailable(
            headers={
                hdrs.RETRY_AFTER: str(max(1, ceil(pause))),
                hdrs.CACHE_CONTROL: "no-store",
            }
        )

    def failed(self, attempt: "_Attempt", error: BaseException) -> None:
        if attempt.era != self.era:
            return
        now = time.monotonic()
        self.pause_ends = now + max(SHORTEST_PAUSE, now - attempt.begun)
        if self.away:
            return
        self.away = True
        self.era += 1
        said = {
            "on_storage_error": self.on_error,
            "error": shown(f"{type(error).__name__}: {error}"),
        }
        logger.warning(
            "Rate limits: the storage is away, %(error)s; until it is back "
            "on_storage_error is %(on_storage_error)r",
            said,
            extra=said,
        )

    def answered(self, attempt: "_Attempt") -> None:
        if self.away and attempt.era == self.era:
            self.away = self.tries_again = False
            self.era += 1
            logger.info("Rate limits: the storage is back")


class _Attempt:
    """One count in the storage."""

    def __init__(
        self, of: Guarded, loop: asyncio.AbstractEventLoop, *asked: Any
    ) -> None:
        self.of = of
        self.era = of.era
        self.begun = time.monotonic()
        #: None where there is none in time. Who waits for it may be cancelled.
        self.answer: asyncio.Future[Count | None] = loop.create_future()
        #: Or it waits for a connection.
        self.is_with_storage = False
        deadline = loop.time() + of.timeout
        self.timer = loop.call_at(deadline, self.over, loop, deadline)
        # Last, as an eager task begins at once.
        self.task = loop.create_task(self.run(*asked))

    async def run(self, *asked: Any) -> None:
        of = self.of
        found = None
        try:
            async with of.places:
                if of.away and self.era != of.era:
                    return  # others have found out meanwhile
                while found is None:
                    self.is_with_storage = True
                    try:
                        found = await of.counter.count(*asked)
                    except Exception as err:
                        if not pools.is_empty_pool(err):
                            raise
                        self.is_with_storage = False
                        await asyncio.sleep(pools.PAUSE)
            of.answered(self)
        except Exception as err:
            of.failed(self, err)
        finally:
            self.timer.cancel()
            if self.era == of.era:
                of.tries_again = False
            self.say(found)

    def say(self, found: Count | None) -> None:
        if not self.answer.done():
            self.answer.set_result(found)

    def over(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if loop.time() - deadline < LATE:
            self.give_up()
        else:
            self.timer = loop.call_later(LATE, self.give_up)

    def give_up(self) -> None:
        of = self.of
        if self.is_with_storage:
            of.failed(self, TimeoutError(f"no answer in {of.timeout} s"))
        elif not of.away:
            of.warn_of_waiting()
        self.say(None)
        self.task.cancel()


async def _closed_in_the_end(client: Any) -> AsyncGenerator[None, None]:
    """Close the connections when the loop ends, or nobody needs them.

    A middleware is not told when the application stops, but a loop closes the
    generators that were begun in it.
    """
    try:
        yield
    finally:
        await client.aclose()
