"""The code of each sign-in is exchanged once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from aiohttp_middlewares.sign_in._attempt import OLD

T = TypeVar("T")

#: States that were used are remembered so many at a time: each has cost a
#: request to the provider.
MOST_USED = 10_000


class Once(Generic[T]):
    """Whoever asks for the same while it is under way gets the same.

    Browsers on phones send a request twice when they wake up. And a session
    that is all in its cookie cannot forget: who keeps a copy of it could come
    with the same state again. Other processes do not know of each other; the
    provider takes no code twice (RFC 6749 4.1.2).
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: dict[str, asyncio.Future[T | None]] = {}
        self._used: dict[str, float] = {}

    async def do(
        self, state: str, what: Callable[[], Awaitable[T]]
    ) -> T | None:
        """What that gives; ``None`` if it was done before, or failed."""
        running = self._running.get(state)
        if running is not None:
            return await asyncio.shield(running)
        if state in self._used:
            return None
        self._remember(state)
        found: T | None = None
        running = asyncio.get_running_loop().create_future()
        self._running[state] = running
        try:
            found = await what()
        finally:
            del self._running[state]
            running.set_result(found)
        return found

    def _remember(self, state: str) -> None:
        now = self._clock()
        while self._used:
            first = next(iter(self._used))
            # In an hour the session says so itself.
            if len(self._used) < MOST_USED and now - self._used[first] <= OLD:
                break
            del self._used[first]
        self._used[state] = now
