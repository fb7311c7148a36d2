"""Time limits that can be told from every other end of a request."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from aiohttp import ClientRequest

#: What a task that was cancelled gets to end, in seconds.
CUT_TIMEOUT = 1.0


class TimeIsUp(Exception):
    """The limit of :func:`time_limit` was reached, and no other."""


def time_limit(seconds: float) -> "TimeLimit":
    """Cut what is inside after ``seconds``, with :class:`TimeIsUp`.

    The ``TimeoutError`` in which aiohttp's total timeout ends comes out
    unchanged. It strikes only once: who takes it for a limit of his own goes
    on sending after the caller's time is over.
    """
    return TimeLimit(seconds)


class TimeLimit:
    """What :func:`asyncio.timeout` is, also for Python 3.10, with a pause.

    Whoever is inside and cancelled can ask :func:`is_timeout` about it. One
    that ``waits`` does not count what is :func:`waiting`.
    """

    def __init__(self, seconds: float, *, waits: bool = False) -> None:
        self._left = seconds
        self._waits = waits
        self._timer: asyncio.TimerHandle | None = None
        self.has_struck = False

    async def __aenter__(self) -> "TimeLimit":
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._task = task
        if sys.version_info >= (3, 11):
            self._cancelling = task.cancelling()
        self._token: Token[tuple[TimeLimit, ...]] = _LIMITS.set(
            (*_LIMITS.get(), self)
        )
        self.resume()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.pause()
        _LIMITS.reset(self._token)
        if not self.has_struck:
            return
        # A task that was started inside still knows this limit, which is
        # over for it.
        self.has_struck = False
        if sys.version_info >= (3, 11):
            # Somebody else wants the task to end as well, and comes first.
            if self._task.uncancel() > self._cancelling:
                return
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeIsUp from error

    def pause(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            # uvloop's handle of a timer that is due at once has no `when()`.
            loop = self._task.get_loop()
            self._left = max(0.0, self._deadline - loop.time())
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Let the clock go on."""
        if self._timer is None and not self.has_struck:
            loop = self._task.get_loop()
            self._deadline = loop.time() + self._left
            self._timer = loop.call_at(self._deadline, self._strike)

    def lets_wait(self, task: "asyncio.Task[Any] | None") -> bool:
        return self._waits and self._task is task

    def _strike(self) -> None:
        self._timer = None
        self.has_struck = True
        self._task.cancel()


#: The limits within which the current code runs.
_LIMITS: ContextVar[tuple[TimeLimit, ...]] = ContextVar(
    "time_limits", default=()
)


@contextmanager
def waiting() -> Iterator[None]:
    """Stop the clock of those limits of this task that do not count a wait."""
    task = asyncio.current_task()
    limits = [limit for limit in _LIMITS.get() if limit.lets_wait(task)]
    for limit in limits:
        limit.pause()
    try:
        yield
    finally:
        for limit in limits:
            limit.resume()


def is_timeout(req: ClientRequest, error: BaseException) -> bool:
    """Whether an exception is the end of a time limit.

    Inside of the limit it may look like a caller who gave up: aiohttp's total
    timeout and :func:`time_limit` cancel the task, and only outside of all
    middlewares, or of the limit, this becomes a timeout.

    A caller who uses :func:`asyncio.timeout` on his own is one who gave up:
    nobody inside can tell.
    """
    if isinstance(error, asyncio.CancelledError):
        return total_has_struck(req) or any(
            limit.has_struck for limit in _LIMITS.get()
        )
    return isinstance(error, asyncio.TimeoutError | TimeIsUp)


def total_has_struck(req: ClientRequest) -> bool:
    """Whether aiohttp's total timeout for the request is over."""
    check = getattr(timer_of(req), "assert_timeout", None)
    if check is not None:
        try:
            check()
        except asyncio.TimeoutError:
            return True
    return False


def timer_of(req: ClientRequest) -> Any:
    """That of aiohttp's total timeout, which belongs to one call alone.

    Private until aiohttp has a public way to ask: ``None`` where it is not.
    """
    return getattr(req, "_timer", None)


def is_cancelled() -> bool:
    """Whether somebody wants the current task to end.

    Else a ``CancelledError`` comes out of something that was awaited, and is
    an error like others. Python 3.10 does not tell.
    """
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return True


async def cut(task: "asyncio.Task[Any]") -> None:
    """End a task, and wait for that; not for one that does not let itself."""
    task.cancel()
    await asyncio.wait([task], timeout=CUT_TIMEOUT)
