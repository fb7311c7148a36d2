"""What makes a coroutine function a middleware, on every aiohttp."""

import inspect
from functools import partial
from typing import Any, TypeVar

M = TypeVar("M")


def middleware(coroutine_function: M) -> M:
    """As ``web.middleware``, which aiohttp 4 warns of: there it needs no mark.

    aiohttp 3 takes what has none for a factory of its first versions.
    """
    coroutine_function.__middleware_version__ = 1  # type: ignore[attr-defined]
    return coroutine_function


def no_response(handler: Any, response: object) -> TypeError:
    """The error of a handler that returned something else."""
    # aiohttp makes partial objects of middlewares and what they wrap.
    handler = inspect.unwrap(handler)
    while isinstance(handler, partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    got = "None" if response is None else type(response).__qualname__
    return TypeError(f"{name} should return a response, got {got}")
