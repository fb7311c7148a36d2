"""Tells of an exception to whom it does not come, as it was answered inside."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core.keys import request_key, stored


def on_failure(
    request: web.Request, callback: Callable[[Exception], object]
) -> None:
    """Have it called with each exception that becomes an answer of 5xx."""
    request[_FAILURE] = callback


def failed(request: web.Request, err: Exception) -> None:
    callback: Any = stored(request, _FAILURE)
    if callback is not None:
        callback(err)


_FAILURE = request_key("aiohttp_middlewares.failure", object)
