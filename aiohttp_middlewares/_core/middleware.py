"""What makes a coroutine function a middleware, on every aiohttp."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, overload

M = TypeVar("M")


class About(NamedTuple):
    """What a room says of a middleware, for those who read lists of them."""

    #: Such as ``"cors_middleware"``.
    factory: str
    #: Those that it was made with and that somebody asks for.
    options: Mapping[str, Any]


@overload
def middleware(coroutine_function: M, /) -> M: ...


@overload
def middleware(**options: Any) -> Callable[[M], M]: ...


def middleware(coroutine_function: Any = None, /, **options: Any) -> Any:
    """As ``web.middleware``, which aiohttp 4 warns of: there it needs no mark.

    aiohttp 3 takes what has none for a factory of its first versions. The
    factory of ours that the function stands in is noted with it, and the
    options, if there are any: ``@middleware(required=required)``.
    """
    if coroutine_function is None:
        return partial(_marked, options=options)
    return _marked(coroutine_function, options)


def _marked(function: Any, options: Mapping[str, Any]) -> Any:
    function.__middleware_version__ = 1
    factory = function.__qualname__.partition(".")[0]
    function.__about__ = About(factory, options)
    return function


def needing(decorated: Any, decorator: str) -> None:
    """Note that a handler works inside of the middleware of a factory only.

    For decorators. ``functools.wraps`` hands it on to what stands around, and
    here what ``with_middlewares`` has noted further in, where it is of no use.
    """
    others: Mapping[str, int] = getattr(decorated, "__needs__", {})
    inside = len(getattr(decorated, "__middlewares__", ()))
    decorated.__needs__ = {**others, decorator: inside}


def no_response(handler: Any, response: object) -> TypeError:
    """The error of a handler that returned something else."""
    # aiohttp makes partial objects of middlewares and what they wrap.
    handler = inspect.unwrap(handler)
    while isinstance(handler, partial):
        handler = handler.func
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    got = "None" if response is None else type(response).__qualname__
    return TypeError(f"{name} should return a response, got {got}")
