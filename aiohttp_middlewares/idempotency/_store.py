"""Where answers are kept, and who is at work on which."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from aiohttp_middlewares._core import options
from aiohttp_middlewares.idempotency._answer import Answer

#: How many bytes of answers a :class:`MemoryStore` keeps.
DEFAULT_MAX_BYTES = 64 * 1024**2


def refuse_store(what: str, should: str, given: object) -> NoReturn:
    """Say what it is, and not how it looks: a URL may hold a password."""
    kind = type(given)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    got = f"a {module}{kind.__qualname__}"
    if isinstance(given, type):
        got = repr(given)
    elif isinstance(given, str):
        got += "; did you mean RedisStore(Redis.from_url(...))?"
    elif module.startswith("redis.asyncio."):
        got += "; did you mean RedisStore(...)?"
    raise TypeError(f"{what} should be {should}, got {got}")


class StoreUnavailable(Exception):
    """It cannot say what was done, or cannot be told."""


class Found(NamedTuple):
    """What is known of a key already."""

    #: What was asked for with it.
    payload: str
    done: bool = False
    #: ``None`` where it could not be kept.
    answer: Answer | None = None


class Store(ABC):
    """Each begin that finds nothing is followed by one of the other two."""

    @abstractmethod
    async def begin(self, key: str, payload: str) -> Found | None:
        """Take the lock of a key, or say what is known of it.

        :raises StoreUnavailable: nobody knows whether it may be taken.
        """

    @abstractmethod
    async def complete(
        self, key: str, answer: Answer | None, ttl: float
    ) -> Found | None:
        """Remember the answer, ``None`` for one that cannot be kept.

        Or say what is remembered in its place, where the lock was lost, and
        somebody else was quicker. It is done even if whoever waits for it is
        cancelled.

        :raises StoreUnavailable: it could not be told, or not yet.
        """

    @abstractmethod
    async def release(self, key: str) -> None:
        """Give the lock back, as nothing was done.

        It is done even if whoever waits for it is cancelled.

        :raises StoreUnavailable: it could not be told.
        """


class _Done(NamedTuple):
    payload: str
    answer: Answer | None
    until: float


class MemoryStore(Store):
    """Keeps answers in the memory of this process, for as long as it lives.

    For an application that is one process. When it is full, the oldest answers
    are forgotten; what is at work never is.

    :param max_entries:
        How many keys to know: more only for as long as there are more at work.
        By default: 10,000.
    :param max_bytes:
        How large all answers together may be. Beyond that the oldest are let
        go of, but not their keys: those are answered 409. By default: 64 MiB.
    :param clock:
        Tells the time in seconds; for tests. By default: ``time.monotonic``.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a number is too small.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        what = "MemoryStore"
        self._max_entries = options.integer(
            f"{what} max_entries", max_entries, minimum=1
        )
        self._max_bytes = options.integer(f"{what} max_bytes", max_bytes)
        self._clock = options.function(f"{what} clock", clock)
        #: What was asked for with each.
        self._at_work: dict[str, str] = {}
        # The first is the oldest.
        self._done: OrderedDict[str, _Done] = OrderedDict()
        #: How large the answers are that are kept.
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._at_work) + len(self._done)

    async def begin(self, key: str, payload: str) -> Found | None:
        if key in self._at_work:
            return Found(self._at_work[key])
        now = self._clock()
        done = self._done.get(key)
        if done is not None:
            if now < done.until:
                return Found(done.payload, True, done.answer)
            self._forget(key)
        self._make_room(now)
        self._at_work[key] = payload
        return None

    async def complete(
        self, key: str, answer: Answer | None, ttl: float
    ) -> None:
        payload = self._at_work.pop(key)
        size = 0 if answer is None else _size(answer)
        if size > self._max_bytes:
            answer, size = None, 0
        self._done[key] = _Done(payload, answer, self._clock() + ttl)
        if answer is None:
            return
        self._sizes[key] = size
        self._bytes += size
        while self._bytes > self._max_bytes:
            oldest, size = self._sizes.popitem(last=False)
            self._bytes -= size
            # In its place, as its age is the same.
            self._done[oldest] = self._done[oldest]._replace(answer=None)

    async def release(self, key: str) -> None:
        del self._at_work[key]

    def _make_room(self, now: float) -> None:
        while self._done:
            oldest = next(iter(self._done))
            if now < self._done[oldest].until and len(self) < self._max_entries:
                return
            self._forget(oldest)

    def _forget(self, key: str) -> None:
        del self._done[key]
        self._bytes -= self._sizes.pop(key, 0)


def _size(answer: Answer) -> int:
    return (
        len(answer.body or b"")
        + len(answer.raised or "")
        + sum(len(name) + len(value) for name, value in answer.headers)
    )
