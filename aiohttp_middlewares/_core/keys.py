"""Typed keys for what a middleware stores in the request."""

from typing import Any

from aiohttp import web


def request_key(name: str, kind: type[Any]) -> Any:
    """A key for ``request[key]`` that warns on no supported aiohttp.

    ``web.RequestKey`` came with aiohttp 3.14, which at the same time began
    to warn about plain strings.
    """
    typed = getattr(web, "RequestKey", None)
    return name if typed is None else typed(name, kind)


def stored(request: web.Request, key: Any, default: Any = None) -> Any:
    """``request.get(key, default)``, without an exception for a miss.

    aiohttp's own, from ``Mapping``, raises one and costs five times as much.
    """
    try:
        return request._state.get(key, default)
    except AttributeError:  # another aiohttp
        return request.get(key, default)


def share(request: web.Request, clone: web.Request) -> None:
    """Have what is stored in the one seen in the other.

    Without the private attribute the clone has a copy.
    """
    state = getattr(request, "_state", None)
    if state is not None:
        clone._state = state


#: Where the error is while an error handler runs: ``request[key]``. A
#: ``web.RequestKey`` where aiohttp has it (3.14), a string before.
REQUEST_ERROR_KEY = request_key("error", Exception)
