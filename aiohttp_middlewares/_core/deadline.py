"""Until when the request that is being served has to be answered.

Where code without the request can ask: a call that is made for it need not
live any longer.
"""

import asyncio
from collections.abc import Container, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

from aiohttp_middlewares._core.sending import started


class Waiting(Protocol):
    """The requests that have a limit; those answered are no longer in it.

    A context is copied into every task, and a task may outlive its request.
    So it holds where the limit can be looked up, and not the limit.
    """

    loop: asyncio.AbstractEventLoop

    @property
    def waiting(self) -> Mapping[int, tuple[Any, ...]]:
        """The deadline and the request, then other things, by its number."""
        ...

    @property
    def expired(self) -> Container[int]:
        """The numbers of those whose limit was reached, for a moment."""
        ...


#: Where a request waits, its number there, and the limit around this one.
Limit: TypeAlias = "tuple[Waiting, int, Limit | None]"

#: None where there is no limit, or none any more on purpose.
DEADLINE: "ContextVar[Limit | None]" = ContextVar("deadline", default=None)


def set_deadline(queue: Waiting, number: int) -> None:
    """Say that the current request waits there, until it does no more."""
    around = DEADLINE.get()
    # One connection serves many requests in the same context.
    while around is not None and around[1] not in around[0].waiting:
        around = around[2]
    DEADLINE.set((queue, number, around))


def time_left() -> float | None:
    """The seconds that are left for the response to start.

    None when there is no limit: outside of a request, once its response has
    started or it has ended, and in a handler that is shielded. Of nested
    limits it is the smallest.
    """
    left: float | None = None
    limit = DEADLINE.get()
    while limit is not None:
        queue, number, limit = limit
        entry = queue.waiting.get(number)
        if entry is not None:
            if started(entry[1]):
                return None
            rest = entry[0] - queue.loop.time()
            left = rest if left is None else min(left, rest)
        elif number in queue.expired:
            left = 0.0
    return left
