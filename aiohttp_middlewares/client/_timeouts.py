"""A time limit that can be told from every other timeout."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class TimeIsUp(Exception):
    """The limit of :func:`time_limit` was reached, and no other."""


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Cut what is inside after ``seconds``, with :class:`TimeIsUp`.

    The ``TimeoutError`` in which aiohttp's total timeout ends comes out
    unchanged. It strikes only once: who takes it for a limit of his own goes
    on sending after the caller's time is over.
    """
    scope: Any = None
    try:
        async with _timeout(seconds) as scope:
            yield
    except asyncio.TimeoutError as exc:
        if not _is_over(scope):
            raise
        raise TimeIsUp from exc


def _timeout(seconds: float) -> Any:
    if sys.version_info >= (3, 11):
        return asyncio.timeout(seconds)
    # aiohttp itself needs it on Python 3.10.
    return importlib.import_module("async_timeout").timeout(seconds)


def _is_over(scope: Any) -> bool:
    """A method in asyncio, a property in async_timeout."""
    expired = scope.expired
    return bool(expired() if callable(expired) else expired)
