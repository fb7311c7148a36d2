"""Where ``limits`` counts: in this process, in Redis, in any of its storages.

A counter looks at all windows of a request, and takes units from all of them
or from none.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp_middlewares._core import options
from aiohttp_middlewares.rate_limit._memory import (
    MemoryCounter,
    is_memory,
    memory_storage,
)
from aiohttp_middlewares.rate_limit._redis import RedisCounter
from aiohttp_middlewares.rate_limit._windows import (
    Count,
    Counter,
    Fixed,
    Limit,
    Moving,
    Window,
    sliding,
)

#: Ours, and what ``limits`` calls them.
STRATEGIES = {
    "fixed-window": "fixed-window",
    "moving-window": "moving-window",
    "sliding-window": "sliding-window-counter",
}


def limits_for(what: str, storage: object = None) -> Any:
    """The package ``limits``.

    :param storage: That in which it is to count.
    :raises ImportError: it is not installed; the message names the extra.
    """
    try:
        import limits.aio.strategies
        import limits.errors
    except ImportError as err:
        is_redis = isinstance(storage, str) and "redis" in storage
        extra = "rate-limit-redis" if is_redis else "rate-limit"
        raise ImportError(
            f'{what} needs limits; pip install "aiohttp-middlewares[{extra}]"'
        ) from err
    return limits


def storage_of(what: str, given: object) -> tuple[Any, bool]:
    """A storage, and whether it was made here.

    :raises ImportError: the package that it takes is not installed.
    :raises TypeError: it is neither a URI nor an async storage of limits.
    :raises ValueError: there is no such storage.
    """
    limits = limits_for(what)
    option = f"{what} storage"
    if isinstance(given, limits.aio.storage.Storage):
        return given, False
    should = "a URI such as 'async+redis://localhost:6379', or a storage of "
    should += "limits.aio.storage"
    if not isinstance(given, str):
        advice = None
        if isinstance(given, limits.storage.Storage):
            advice = "those of limits.storage block the event loop"
        options.refuse(TypeError, option, should, given, advice=advice)
    # The rest of it may hold a password.
    scheme = given.partition(":")[0]
    known = limits.storage.SCHEMES
    if not scheme.startswith("async+") or scheme not in known:
        meant = f"async+{scheme}"
        options.refuse(
            ValueError,
            option,
            should,
            f"{scheme}:...",
            meant=f"'{meant}:...'" if meant in known else None,
        )
    if scheme == "async+memory":
        return memory_storage(), True
    try:
        return known[scheme](given, **_options_for(what, scheme)), True
    except limits.errors.ConfigurationError as err:
        if "prerequisite" in str(err):
            raise ImportError(f"{option}: {err}") from err
        reason = re.sub(r"\S+://\S+", f"{scheme}:...", str(err))
        raise ValueError(f"{option} cannot be used: {reason}") from None
    except (TypeError, ValueError):
        options.refuse(ValueError, option, should, f"{scheme}:...")


def _options_for(what: str, scheme: str) -> dict[str, str]:
    if not scheme.startswith("async+redis"):
        return {}
    try:
        import redis.asyncio  # noqa: F401
    except ImportError as err:
        raise ImportError(
            f"{what} needs redis; "
            'pip install "aiohttp-middlewares[rate-limit-redis]"'
        ) from err
    return {"implementation": "redispy"}


def counter_of(what: str, storage: Any, strategy: str) -> Counter:
    """What counts in a storage.

    :raises ValueError: the storage cannot count by that strategy.
    """
    limits = limits_for(what)
    kind = limits.aio.strategies.STRATEGIES[STRATEGIES[strategy]]
    try:
        limiter = kind(storage)
    except NotImplementedError:
        raise ValueError(
            f"{what} strategy should be one that the storage has, got "
            f"{strategy!r}, which {type(storage).__name__} has not"
        ) from None
    if is_memory(storage):
        return MemoryCounter(storage, strategy)
    by_script = RedisCounter.of(storage, strategy)
    return by_script or _COUNTERS[strategy](storage, limiter, strategy)


# By what all storages of ``limits`` have
# =======================================


class PublicCounter(ABC):
    """Looks at each window, then takes from each."""

    def __init__(self, storage: Any, limiter: Any, strategy: str) -> None:
        self.storage = storage
        self.limiter = limiter
        #: A part of the key: each keeps something else there.
        self.strategy = strategy

    @abstractmethod
    async def look(self, limit: Limit, bucket: str, units: int) -> Window: ...

    async def count(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        windows = []
        fits = True
        for limit in limits:
            window = await self.look(limit, bucket, units)
            windows.append(window)
            if units and window.used(limit) + units > limit.amount:
                fits = False
        if not fits or not units:
            return fits, windows
        for position, limit in enumerate(limits):
            if await self.limiter.hit(
                limit.item, self.strategy, bucket, cost=units
            ):
                window = windows[position].counted(limit, units)
            else:  # another request was quicker
                fits = False
                window = await self.look(limit, bucket, units)
            windows[position] = window
            if not fits:
                break
        return fits, windows


class FixedCounter(PublicCounter):
    async def look(self, limit: Limit, bucket: str, units: int) -> Window:
        key = limit.item.key_for(self.strategy, bucket)
        count = await self.storage.get(key)
        if not count:
            return Fixed(0, limit.seconds)
        rest = await self.storage.get_expiry(key) - time.time()
        return Fixed(count, rest + 1)  # some know it by the second only


class MovingCounter(PublicCounter):
    async def look(self, limit: Limit, bucket: str, units: int) -> Window:
        key = limit.item.key_for(self.strategy, bucket)
        seconds = limit.seconds
        oldest, count = await self.storage.get_moving_window(
            key, limit.amount, seconds
        )
        if not count:
            return Moving(0, seconds, seconds)
        # All of them have left after a whole window: nothing else is known.
        return Moving(count, oldest + seconds - time.time(), seconds)


class SlidingCounter(PublicCounter):
    async def look(self, limit: Limit, bucket: str, units: int) -> Window:
        seconds = limit.seconds
        (
            previous,
            previous_rest,
            current,
            current_rest,
        ) = await self.storage.get_sliding_window(
            limit.item.key_for(self.strategy, bucket), seconds
        )
        return sliding(seconds, previous, previous_rest, current, current_rest)


_COUNTERS: dict[str, Callable[[Any, Any, str], PublicCounter]] = {
    "fixed-window": FixedCounter,
    "moving-window": MovingCounter,
    "sliding-window": SlidingCounter,
}
