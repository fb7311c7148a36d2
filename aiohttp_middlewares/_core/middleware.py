"""What makes a coroutine function a middleware, on every aiohttp."""

from typing import TypeVar

M = TypeVar("M")


def middleware(coroutine_function: M) -> M:
    """As ``web.middleware``, which aiohttp 4 warns of: there it needs no mark.

    aiohttp 3 takes what has none for a factory of its first versions.
    """
    coroutine_function.__middleware_version__ = 1  # type: ignore[attr-defined]
    return coroutine_function
