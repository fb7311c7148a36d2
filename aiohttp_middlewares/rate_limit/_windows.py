"""What a limit says, and what follows from the state of its window.

``limits`` counts. What is worked out here is what a client is told: how many
units are left, and how long it has to wait.
"""

from collections.abc import Sequence
from math import ceil, floor
from typing import Any, NamedTuple, Protocol, TypeAlias

from aiohttp_middlewares._core import options

#: RFC 9651 3.3.1: an integer of a header has so many digits at most.
MOST_UNITS = 10**15 - 1
#: Some thirty years. Redis cannot count milliseconds without end.
LONGEST_WINDOW = 10**9
#: Longer ones are no limits; the pattern that reads them is not linear.
LONGEST_TEXT = 1000

#: When a wait is over it has to be more than just over: the bounds of a window
#: belong to it, and products of floats are a little off.
_MARGIN = 1e-6


class Limit:
    """So many units in so many seconds."""

    __slots__ = ("amount", "item", "key", "name", "policy", "seconds")

    def __init__(self, item: Any) -> None:
        #: A ``RateLimitItem`` of ``limits``.
        self.item = item
        self.amount: int = item.amount
        self.seconds: int = item.get_expiry()
        #: For keys in memory.
        self.key = f"/{self.amount}/{self.seconds}"
        unit = item.GRANULARITY.name
        if item.multiples != 1:
            unit = f"{item.multiples}-{unit}s"
        self.name = f"{self.amount}-per-{unit}"
        #: What ``RateLimit-Policy`` says of it.
        self.policy = f'"{self.name}";q={self.amount};w={self.seconds}'


def parsed(what: str, parse_many: Any, text: object) -> tuple[Limit, ...]:
    """The limits of a text such as ``"10/second;100/minute"``.

    :raises TypeError: it is no string.
    :raises ValueError: it says no limits.
    """
    should = (
        "limits such as '100/minute' or '10/second;100/minute' (second, "
        "minute, hour, day, month or year)"
    )
    if not isinstance(text, str):
        options.refuse(TypeError, what, should, text)
    items: Sequence[Any] = ()
    if len(text) <= LONGEST_TEXT:
        try:
            items = parse_many(text)
        except ValueError:
            pass
    if not items:
        options.refuse(ValueError, what, should, text[:LONGEST_TEXT])
    for item in items:
        if item.amount > MOST_UNITS or item.get_expiry() > LONGEST_WINDOW:
            should = (
                f"limits of {MOST_UNITS} units and {LONGEST_WINDOW} seconds "
                "at most"
            )
            options.refuse(ValueError, what, should, text)
    # One that stands twice would be counted twice.
    return tuple(Limit(item) for item in dict.fromkeys(items))


def whole(seconds: float) -> int:
    """Seconds as headers have them: rounded up, and one at least."""
    return max(1, ceil(seconds))


class Window(Protocol):
    """The state of one limit for one bucket."""

    def used(self, limit: Limit) -> int:
        """How many units are taken now."""
        ...

    def wait(self, limit: Limit, units: int) -> float:
        """After how many seconds so many units fit, as they do not now.

        They are no more than the limit has, and nobody takes any meanwhile.
        """
        ...

    def counted(self, limit: Limit, units: int) -> "Window":
        """What it is after so many units were taken."""
        ...


#: Whether the units fit, and the windows: after they were taken, if they were.
Count: TypeAlias = tuple[bool, Sequence[Window]]


class Counter(Protocol):
    async def count(
        self, bucket: str, limits: Sequence[Limit], units: int
    ) -> Count:
        """Take the units from each of the limits, or from none of them."""
        ...


class Fixed(NamedTuple):
    taken: int
    #: Seconds to its end.
    rest: float

    def used(self, limit: Limit) -> int:
        return self.taken

    def wait(self, limit: Limit, units: int) -> float:
        return min(self.rest, limit.seconds)

    def counted(self, limit: Limit, units: int) -> "Fixed":
        rest = self.rest if self.taken else limit.seconds
        return Fixed(self.taken + units, rest)


class Moving(NamedTuple):
    taken: int
    #: Seconds until the oldest of them leaves.
    oldest: float
    #: Seconds until the last of those has left that stand in the way of what
    #: was asked for.
    last: float

    def used(self, limit: Limit) -> int:
        return self.taken

    def wait(self, limit: Limit, units: int) -> float:
        one = self.taken + units - limit.amount <= 1
        return (self.oldest if one else self.last) + _MARGIN

    def counted(self, limit: Limit, units: int) -> "Moving":
        oldest = self.oldest if self.taken else limit.seconds
        return Moving(self.taken + units, oldest, limit.seconds)


class Sliding(NamedTuple):
    """A window and the one before it, which counts less by the second."""

    previous: int
    #: Seconds until the previous one does not count any more: then the
    #: current one is the previous one.
    rest: float
    current: int

    def used(self, limit: Limit) -> int:
        if not self.previous:
            return self.current
        return self.current + floor(self.previous * self.rest / limit.seconds)

    def wait(self, limit: Limit, units: int) -> float:
        # Of the previous one less than this may count, as it is rounded down.
        room = limit.amount - units - self.current + 1
        if room >= 1:
            fits = self.rest - room * limit.seconds / self.previous
        else:
            # Not before the current one is the previous one.
            room = limit.amount - units + 1
            later = limit.seconds - room * limit.seconds / self.current
            fits = self.rest + later
        return fits + _MARGIN

    def counted(self, limit: Limit, units: int) -> "Sliding":
        return Sliding(self.previous, self.rest, self.current + units)


def sliding(
    seconds: int,
    previous: int,
    previous_rest: float,
    current: int,
    current_rest: float,
) -> Sliding:
    """By what ``limits`` knows: each window with how long it is remembered."""
    if previous:
        rest = previous_rest
    elif current_rest > 0:
        rest = current_rest - seconds
    else:
        rest = seconds  # it begins with the next unit
    return Sliding(previous, min(rest, seconds), current)


def state(limit: Limit, window: Window) -> str:
    """What ``RateLimit`` says: what is left, and when there will be more."""
    used = window.used(limit)
    left = max(0, limit.amount - used)
    if not used or not limit.amount:  # there never will be more
        return f"r={left}"
    more = whole(window.wait(limit, left + 1) - _MARGIN)
    return f"r={left};t={more}"


def retry_after(
    limits: Sequence[Limit], windows: Sequence[Window], units: int
) -> int:
    """After how many whole seconds all of them let so many units in."""
    longest = 0.0
    for limit, window in zip(limits, windows, strict=True):
        if units > limit.amount:  # never: it may ask another day
            longest = max(longest, limit.seconds)
        elif window.used(limit) + units > limit.amount:
            longest = max(longest, window.wait(limit, units))
    return whole(longest)
