"""All windows of a request in one command to Redis.

``limits`` has a script to look at a window and another to take from it. Here
they are put together, as they are, into one that does both for each limit: it
takes one command, whatever the number of limits, and Redis runs it as a whole,
so that no other request comes between.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp_middlewares.rate_limit._windows import (
    Count,
    Fixed,
    Limit,
    Moving,
    Window,
    sliding,
)

#: Arguments: the units, the time, and of each limit its amount and seconds.
_SCRIPT = """
local units, now = tonumber(ARGV[1]), tonumber(ARGV[2])
local windows, fits = {{}}, 1

{functions}

local function each(job)
    for i = 1, (#ARGV - 2) / 2 do
        job(i, tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2]))
    end
end

each(function(i, amount, seconds)
    local used, window = look(i, amount, seconds)
    if used + units > amount then fits = 0 end
    windows[i] = table.concat(window, ' ')
end)
if fits == 1 and units > 0 then each(take) end
-- One text: of an answer with parts redis-py reads each part by itself.
return fits .. ';' .. table.concat(windows, ';')
"""

_FIXED = """
local function take_(KEYS, ARGV)
{INCR_EXPIRE}
end
local function look(i, amount, seconds)
    local used = redis.call('get', KEYS[i]) or '0'
    return tonumber(used), {{used, redis.call('pttl', KEYS[i])}}
end
local function take(i, amount, seconds)
    take_({{KEYS[i]}}, {{seconds, units}})
end
"""

_MOVING = """
local function look_(KEYS, ARGV)
{MOVING_WINDOW}
end
local function take_(KEYS, ARGV)
{ACQUIRE_MOVING_WINDOW}
end
local function look(i, amount, seconds)
    local found = look_({{KEYS[i]}}, {{now - seconds, amount}})
    if not found then return 0, {{0}} end
    local last = redis.call('lindex', KEYS[i], amount - units)
    return found[2], {{found[2], found[1], last or found[1]}}
end
local function take(i, amount, seconds)
    take_({{KEYS[i]}}, {{now, amount, seconds, units}})
end
"""

_SLIDING = """
local function look_(KEYS, ARGV)
{SLIDING_WINDOW}
end
local function take_(KEYS, ARGV)
{ACQUIRE_SLIDING_WINDOW}
end
local function look(i, amount, seconds)
    local found = look_({{KEYS[2 * i - 1], KEYS[2 * i]}}, {{seconds}})
    local previous, current = found[1] or '0', found[3] or '0'
    local rest = math.max(0, found[2])
    local used = math.floor(tonumber(previous) * rest / (seconds * 1000))
    return used + tonumber(current), {{previous, rest, current, found[4]}}
end
local function take(i, amount, seconds)
    take_({{KEYS[2 * i - 1], KEYS[2 * i]}}, {{amount, seconds, units}})
end
"""

_FUNCTIONS = {
    "fixed-window": (_FIXED, ("INCR_EXPIRE",)),
    "moving-window": (_MOVING, ("MOVING_WINDOW", "ACQUIRE_MOVING_WINDOW")),
    "sliding-window": (_SLIDING, ("SLIDING_WINDOW", "ACQUIRE_SLIDING_WINDOW")),
}

#: The scripts of ``limits`` that these functions were written for. With others
#: it is asked as it offers itself: in more than one command.
KNOWN = {
    "ACQUIRE_MOVING_WINDOW": "741eab638ba93ed71020bb821c45c022d0fa02c4",
    "ACQUIRE_SLIDING_WINDOW": "e8ac2a60cb040b0dbb56815a1e9c6fd032ce62e7",
    "INCR_EXPIRE": "628bd136a573a06b346879695681af12ccef300f",
    "MOVING_WINDOW": "ad795214f59fe26d6fdec07973836dd16586f5ec",
    "SLIDING_WINDOW": "e7a0a27d4101baabb124af209bb0245197a359a1",
}


class RedisCounter:
    def __init__(self, storage: Any, script: str, strategy: str) -> None:
        self.storage = storage
        self.script = storage.bridge.get_connection().register_script(script)
        self.keys_of = (
            self.two_keys if strategy == "sliding-window" else self.one_key
        )
        self.window = _WINDOWS[strategy]
        self.strategy = strategy

    @classmethod
    def of(cls, storage: Any, strategy: str) -> "RedisCounter | None":
        """``None`` for what is no Redis, or one that takes another way."""
        from limits.aio.storage.redis.redispy import RedispyBridge

        bridge = getattr(storage, "bridge", None)
        if not isinstance(bridge, RedispyBridge):
            return None
        functions, names = _FUNCTIONS[strategy]
        sources = {}
        for name in names:
            source = getattr(bridge, f"SCRIPT_{name}", b"")
            if _digest(source) != KNOWN[name]:
                return None
            sources[name] = source.decode()
        if strategy == "sliding-window" and not (
            hasattr(storage, "_previous_window_key")
            and hasattr(storage, "_current_window_key")
        ):
            return None
        script = _SCRIPT.format(functions=functions.format(**sources))
        return cls(storage, script, strategy)

    def one_key(self, key: str) -> list[str]:
        return [self.storage.bridge.prefixed_key(key)]

    def two_keys(self, key: str) -> list[str]:
        storage = self.storage
        prefixed = storage.bridge.prefixed_key
        return [
            prefixed(storage._previous_window_key(key)),
            prefixed(storage._current_window_key(key)),
        ]

    async def count(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        now = time.time()
        keys: list[str] = []
        args: list[float] = [units, now]
        for limit in limits:
            # In braces is what a cluster goes by: all keys are in one place.
            key = limit.item.key_for(self.strategy, f"{{{bucket}}}")
            keys += self.keys_of(key)
            args += (limit.amount, limit.seconds)
        answer = await self.script(keys=keys, args=args)
        if isinstance(answer, bytes):
            answer = answer.decode()
        said, *states = answer.split(";")
        windows = [
            self.window(limit, now, *state.split())
            for limit, state in zip(limits, states, strict=True)
        ]
        if not units:
            return True, windows
        fits = said == "1"
        if fits:
            windows = [
                window.counted(limit, units)
                for limit, window in zip(limits, windows, strict=True)
            ]
        return fits, windows


def _digest(source: bytes) -> str:
    return hashlib.sha1(source, usedforsecurity=False).hexdigest()


# Redis tells time in milliseconds, and a key is there to the end of its last.


def _fixed(limit: Limit, now: float, taken: str, rest: str) -> Window:
    return Fixed(int(taken), (int(rest) + 1) / 1000)


def _moving(
    limit: Limit, now: float, taken: str, oldest: str = "", last: str = ""
) -> Window:
    if not oldest:
        return Moving(0, limit.seconds, limit.seconds)
    end = limit.seconds - now
    # Lua has cut the first of the times to a tenth of a millisecond.
    return Moving(int(taken), float(oldest) + end + 1e-4, float(last) + end)


def _sliding(
    limit: Limit,
    now: float,
    previous: str,
    previous_rest: str,
    current: str,
    current_rest: str,
) -> Window:
    return sliding(
        limit.seconds,
        int(previous),
        (int(previous_rest) + 1) / 1000,
        int(current),
        (int(current_rest) + 1) / 1000,
    )


_WINDOWS: dict[str, Callable[..., Window]] = {
    "fixed-window": _fixed,
    "moving-window": _moving,
    "sliding-window": _sliding,
}
