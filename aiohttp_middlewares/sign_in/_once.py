"""The code of each sign-in is exchanged once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

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
        self._running: dict[str, asyncio.Task[T]] = {}
        self._used: dict[str, float] = {}

    async def do(
        self, state: str, what: Callable[[], Coroutine[Any, Any, T]]
    ) -> T | None:
        """What that gives; ``None`` if it was done before."""
        task = self._running.get(state)
        if task is None:
            if state in self._used:
                return None
            self._remember(state)
            # It is nobody's own: the first may leave, and the others go on.
            task = asyncio.create_task(what())
            self._running[state] = task
            task.add_done_callback(lambda _: self._running.pop(state, None))
        try:
            return await asyncio.shield(task)
        finally:
            del task  # which may have failed: it would hold this frame

    def _remember(self, state: str) -> None:
        now = self._clock()
        while self._used:
            first = next(iter(self._used))
            # In an hour the session says so itself.
            if len(self._used) < MOST_USED and now - self._used[first] <= OLD:
                break
            del self._used[first]
        self._used[state] = now
