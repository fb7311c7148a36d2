"""Counting in this process."""

import inspect
import time
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from aiohttp_middlewares.rate_limit._windows import (
    Count,
    Fixed,
    Limit,
    Moving,
    Sliding,
    Window,
)

#: How many buckets are remembered: some 100 MB at most, where a moving window
#: does not store each unit.
MOST_BUCKETS = 100_000
#: Look for those that are over after so many requests at the earliest.
SWEEP_AFTER = 1000


def is_local(storage: Any) -> bool:
    """Whether it counts in this process, and so neither waits nor fails."""
    import limits.aio.storage

    return isinstance(storage, limits.aio.storage.MemoryStorage)


def is_memory(storage: Any) -> bool:
    """Whether it is the one below, and not that of ``limits``."""
    return isinstance(storage, _memory_class())


def memory_storage() -> Any:
    return _memory_class()()


@lru_cache(maxsize=1)
def _memory_class() -> Any:
    import limits.aio.storage

    of_limits = limits.aio.storage.MemoryStorage

    class Memory(of_limits):  # type: ignore[misc, valid-type]
        """Forgets what is over now and then, and keeps no more than so much.

        That of ``limits`` starts a task with every request, which goes
        through all buckets there are: the more clients, the longer.
        """

        def __init__(self) -> None:
            super().__init__()
            self.until_sweep = SWEEP_AFTER

        async def _MemoryStorage__schedule_expiry(self) -> None:
            self.until_sweep -= 1
            if self.until_sweep <= 0:
                self.sweep()

        def sweep(self) -> None:
            now = time.time()
            over = [key for key, end in self.expirations.items() if end <= now]
            for key, entries in self.events.items():
                while entries and entries[-1].expiry < now:
                    entries.pop()
                if not entries:
                    over.append(key)
            # Whoever was counted first is forgiven first.
            for found in (self.expirations, self.events):
                over += [*found][: max(0, len(found) - MOST_BUCKETS)]
            for key in over:
                self.storage.pop(key, None)
                self.expirations.pop(key, None)
                self.events.pop(key, None)
                self.locks.pop(key, None)
            left = len(self.expirations) + len(self.events)
            self.until_sweep = max(SWEEP_AFTER, left)

    # As they are, without what turns exceptions into others: there are none.
    for name in ("get", "incr", "acquire_entry"):
        setattr(Memory, name, inspect.unwrap(getattr(of_limits, name)))
    return Memory


class MemoryCounter:
    """Looks at all windows, then has ``limits`` take from them.

    Nothing here waits, so that nobody comes between.
    """

    def __init__(self, storage: Any, strategy: str) -> None:
        self.storage = storage
        self.look, self.take = {
            "fixed-window": (self.look_fixed, self.take_fixed),
            "moving-window": (self.look_moving, self.take_moving),
            "sliding-window": (self.look_sliding, self.take_sliding),
        }[strategy]

    async def count(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        now = time.time()
        fits = True
        windows: list[Window] = []
        for limit in limits:
            window = self.look(bucket + limit.key, limit, now, units)
            windows.append(window)
            if window.used(limit) + units > limit.amount:
                fits = False
        if not units:
            return True, windows
        if fits:
            for position, limit in enumerate(limits):
                await self.take(bucket + limit.key, limit, now, units)
                windows[position] = windows[position].counted(limit, units)
        return fits, windows

    def look_fixed(
        self, key: str, limit: Limit, now: float, units: int
    ) -> Window:
        end = self.storage.expirations.get(key, 0)
        if end <= now:
            return Fixed(0, limit.seconds)
        return Fixed(self.storage.storage[key], end - now)

    def take_fixed(self, key: str, limit: Limit, now: float, units: int) -> Any:
        return self.storage.incr(key, limit.seconds, units)

    def look_moving(
        self, key: str, limit: Limit, now: float, units: int
    ) -> Window:
        seconds = limit.seconds
        entries = self.storage.events.get(key, ())  # the newest first
        count = bisect_right(
            entries, seconds - now, key=lambda entry: -entry.atime
        )
        if not count:
            return Moving(0, seconds, seconds)
        end = seconds - now
        last = min(count - 1, max(0, limit.amount - units))
        return Moving(
            count, entries[count - 1].atime + end, entries[last].atime + end
        )

    def take_moving(
        self, key: str, limit: Limit, now: float, units: int
    ) -> Any:
        return self.storage.acquire_entry(
            key, limit.amount, limit.seconds, units
        )

    def look_sliding(
        self, key: str, limit: Limit, now: float, units: int
    ) -> Window:
        seconds = limit.seconds
        number = int(now / seconds)
        counts = self.storage.storage.get
        return Sliding(
            counts(f"{key}/{number - 1}", 0),
            (number + 1) * seconds - now,
            counts(f"{key}/{number}", 0),
        )

    def take_sliding(
        self, key: str, limit: Limit, now: float, units: int
    ) -> Any:
        seconds = limit.seconds
        key = f"{key}/{int(now / seconds)}"
        return self.storage.incr(key, 2 * seconds, units)
