"""
=====================
Per-route middlewares
=====================

Puts middlewares around the handler of one route, one view or one
sub-application; in the application's list they would stand around everything.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        body_limit_middleware,
        error_middleware,
        timeout_middleware,
        with_middlewares,
    )

    slow_and_large = [timeout_middleware(300), body_limit_middleware(10**8)]


    @with_middlewares(*slow_and_large)
    async def import_file(request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})


    class Note(web.View):
        async def get(self) -> web.Response:
            return web.json_response({})

        @with_middlewares(body_limit_middleware(1000))
        async def put(self) -> web.Response:
            return web.json_response({"bytes": len(await self.request.read())})


    admin = web.Application()

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_post("/import", import_file)
    app.router.add_view("/note", with_middlewares(timeout_middleware(1))(Note))
    app.add_subapp("/admin", with_middlewares(timeout_middleware(60))(admin))

The first stands outermost, as in every list, and all of them stand inside of
those of the application. Any middleware that a list takes goes in, and one may
go around many handlers: what it counts, it counts for all of them together.

What comes back
===============

* For a handler, a handler with its name, documentation and annotations. It may
  be a method that takes the request, or one of a view.
* For a view, a subclass. Classes that inherit from it have its middlewares.
* For a sub-application, the same object: they go to the front of its own list,
  and see its 404 and 405, too.

``__middlewares__`` of a handler or a view holds all that stand around it, from
the outside in.

Order
=====

Among them as in the list of an application: see :doc:`/how-to/order`.
``requires`` and ``rate_limit`` stand below, nearer to the handler. What adds a
route, such as ``@routes.get("/")``, stands above: it adds what is below it, and
what is above it stands around nothing.

Limits
======

What never reaches a handler does not reach what is around it: a 404, a 405, and
a CORS preflight, an ``OPTIONS`` that only a route or a middleware of the
application answers. So ``cors_middleware`` belongs in the application's list.

None around a handler can allow what the application's own middlewares refuse: a
``body_limit_middleware`` in the list needs a ``limits`` for the path.
"""

import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.abc import AbstractView

from aiohttp_middlewares._core import options
from aiohttp_middlewares.annotations import Handler, Middleware

__all__ = ("with_middlewares",)

#: A handler, a view or an application, and what becomes of it is one, too.
H = TypeVar("H", bound=Callable[..., Any])


def with_middlewares(*middlewares: Middleware) -> Callable[[H], H]:
    """Put middlewares around a handler, a view or a sub-application.

    :param middlewares: What a list of middlewares takes, outermost first.
    :raises TypeError:
        One is no middleware, such as a factory that was not called; or what
        is decorated is no coroutine function, view or application.
    :raises RuntimeError: the sub-application was started or added before.
    """
    what = "with_middlewares"
    for item in middlewares:
        _check(what, item)

    def decorate(decorated: Any) -> Any:
        if not middlewares:
            return decorated
        if isinstance(decorated, web.Application):
            for item in reversed(middlewares):
                decorated.middlewares.insert(0, item)
            return decorated
        around: Any
        if _is_view(decorated):
            around = _around_view(decorated, middlewares)
        elif _is_async(decorated):
            around = _around_function(decorated, middlewares)
        else:
            options.refuse(
                TypeError,
                what,
                "around an async handler, a view or an application",
                decorated,
            )
        around.__middlewares__ = (
            *middlewares,
            *getattr(decorated, "__middlewares__", ()),
        )
        return around

    return decorate


def _is_view(item: object) -> bool:
    return inspect.isclass(item) and issubclass(item, AbstractView)


def _is_async(item: object) -> bool:
    if inspect.iscoroutinefunction(item):
        return True
    # Of a class that is that of its objects, and it is none of them.
    call = getattr(item, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(call) and not inspect.isclass(item)


def _check(what: str, item: object) -> None:
    should = "given middlewares"
    if isinstance(item, list | tuple):
        options.refuse(
            TypeError, what, should, item, advice="write a * before the list"
        )
    if not callable(item):
        options.refuse(TypeError, what, should, item)
    try:
        # As aiohttp calls it.
        inspect.signature(item).bind(None, handler=None)
    except TypeError:
        is_handler = inspect.iscoroutinefunction(item) or _is_view(item)
        name = getattr(item, "__name__", "")
        if name and not is_handler:
            should += ", not a factory that was not called"
            options.refuse(TypeError, what, should, item, meant=f"{name}(...)")
        advice = "what it decorates comes after them"
        options.refuse(TypeError, what, should, item, advice=advice)
    except ValueError:
        pass  # one in C, that does not tell


def _chained(handler: Any, middlewares: tuple[Middleware, ...]) -> Handler:
    """As aiohttp makes it of a list."""
    for item in reversed(middlewares):
        handler = functools.update_wrapper(
            functools.partial(item, handler=handler), handler
        )
    chain: Handler = handler
    return chain


def _around_function(
    handler: Callable[..., Awaitable[web.StreamResponse]],
    middlewares: tuple[Middleware, ...],
) -> Callable[..., Awaitable[web.StreamResponse]]:
    chain = _chained(handler, middlewares)

    @functools.wraps(handler)
    async def around(*args: Any, **options: Any) -> web.StreamResponse:
        last = args[-1]
        if len(args) > 1 or options:
            # A method, or a part of a partial: nobody knows before of which.
            bound = functools.partial(handler, *args[:-1], **options)
            return await _chained(bound, middlewares)(last)
        if not isinstance(last, AbstractView):
            return await chain(last)

        async def answer(request: web.Request) -> web.StreamResponse:
            # Of a clone there is no view yet.
            same = request is last.request
            return await handler(last if same else type(last)(request))

        return await _chained(answer, middlewares)(last.request)

    return around


def _around_view(
    view: type[AbstractView], middlewares: tuple[Middleware, ...]
) -> type[AbstractView]:
    @types.coroutine
    def bare(self: AbstractView) -> Generator[Any, None, web.StreamResponse]:
        return (yield from view.__await__(self))

    # Of the class that was asked for, which may have inherited from this one.
    async def answer(cls: Any, request: web.Request) -> web.StreamResponse:
        return await bare(cls(request))

    @functools.cache
    def chain_of(cls: Any) -> Handler:
        handler = functools.partial(answer, cls)
        # By the name of the view, as middlewares of a list know it.
        functools.update_wrapper(handler, cls, updated=())
        return _chained(handler, middlewares)

    class Around(view):  # type: ignore[misc, valid-type]
        def __await__(self) -> Generator[Any, None, web.StreamResponse]:
            cls: Any = type(self)
            return chain_of(cls)(self.request).__await__()

    for name in ("__doc__", "__module__", "__name__", "__qualname__"):
        setattr(Around, name, getattr(view, name))
    return Around
