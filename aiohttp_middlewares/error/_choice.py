"""Which error handler answers, and what one is."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, get_type_hints

from aiohttp import web

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.middleware import no_response
from aiohttp_middlewares._core.sending import RESPONSES
from aiohttp_middlewares._core.statuses import status_of
from aiohttp_middlewares._core.urls import UrlMap
from aiohttp_middlewares.annotations import Handler


class Choice:
    """A compiled ``config``."""

    def __init__(self, what: str, config: Mapping[Any, Handler]) -> None:
        if not isinstance(config, Mapping):
            options.refuse(
                TypeError, what, "a mapping to error handlers", config
            )
        urls: dict[Any, tuple[int, Handler]] = {}
        self.others: list[tuple[int, Any, Handler]] = []
        for position, (key, handler) in enumerate(config.items()):
            check_handler(f"{what}[{key!r}]", handler)
            if isinstance(key, int):
                _check_status(what, key)
            elif isinstance(key, type):
                _check_class(what, key)
            elif isinstance(key, str) and key.isdecimal():
                should = "for statuses that are numbers"
                options.refuse(TypeError, what, should, key, meant=key)
            else:
                urls[key] = position, handler
                continue
            self.others.append((position, key, handler))
        self.urls: UrlMap[tuple[int, Handler]] = UrlMap(what, urls)
        self.nothing: tuple[int, Handler | None] = len(config), None

    def handler(self, request: web.Request, err: Exception) -> Handler | None:
        by_url, found = self.urls.first(request, self.nothing)
        if not self.others:
            return found
        status = status_of(request, err)
        for position, key, handler in self.others:
            if position > by_url:
                break
            if key == status if isinstance(key, int) else isinstance(err, key):
                return handler
        return found


def _check_status(what: str, status: int) -> None:
    if not 400 <= status <= 599:
        options.refuse(ValueError, what, "for statuses 400 to 599", status)


def _check_class(what: str, kind: type) -> None:
    if not issubclass(kind, Exception):
        options.refuse(TypeError, what, "for exception classes", kind)
    if issubclass(kind, web.HTTPSuccessful | web.HTTPRedirection):
        options.refuse(
            ValueError, what, "for errors, as others pass untouched", kind
        )


def check_handler(what: str, handler: object) -> None:
    """Refuse what cannot be awaited, as far as that can be told by looks."""
    options.function(what, handler)
    call: Any = handler
    while isinstance(call, partial):
        call = call.func
    if isinstance(call, type):
        wrong = not hasattr(call, "__await__")  # web.View has it
    else:
        function = call if inspect.isroutine(call) else type(call).__call__
        wrong = not inspect.iscoroutinefunction(function) and _says_response(
            function
        )
    if wrong:
        name = getattr(call, "__name__", "__call__")
        meant = f"async def {name}(request)"
        options.refuse(TypeError, what, "async", handler, meant=meant)


def _says_response(function: Any) -> bool:
    """Whether it is annotated to return a response, and not an awaitable."""
    try:
        hint = get_type_hints(function).get("return")
    except Exception:  # whatever its annotations are made of
        return False
    return isinstance(hint, type) and issubclass(hint, web.StreamResponse)


async def called(handler: Any, request: web.Request) -> web.StreamResponse:
    response = handler(request)
    if inspect.isawaitable(response):
        response = await response
    if isinstance(response, RESPONSES):
        return response
    raise no_response(handler, response)
