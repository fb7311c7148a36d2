"""
=================
Shield middleware
=================

Protects a handler from cancellation, so that it finishes what it began, when
the client leaves and in a graceful shutdown: for writes that must not stop
half-way.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import (
        NON_IDEMPOTENT_METHODS,
        drain_shielded,
        error_middleware,
        shield_middleware,
        timeout_middleware,
    )

    app = web.Application(
        middlewares=[
            error_middleware(),
            timeout_middleware(29.5),
            shield_middleware(
                methods=NON_IDEMPOTENT_METHODS,
                ignore={"/search": "POST"},
            ),
        ]
    )
    # Needed with a timeout outside only. The last in the list is the first
    # to be torn down, before the database closes.
    app.cleanup_ctx.append(drain_shielded)

By URL, or by URL and method:

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import NON_IDEMPOTENT_METHODS, shield_middleware

    app = web.Application(
        middlewares=[
            shield_middleware(
                urls={
                    re.compile(r"^/downloads/.*$"): "GET",
                    re.compile(r".*"): NON_IDEMPOTENT_METHODS,
                }
            )
        ]
    )

What it protects from
=====================

*The client leaves.* aiohttp then cancels the handler if it was told to
(``web.run_app(app, handler_cancellation=True)``). The shielded handler goes on;
what it raises is logged, as nobody else will hear of it.

*The server shuts down.* aiohttp waits for the requests in progress, those of
clients that left included, for its ``shutdown_timeout``, and only then runs
``on_cleanup``. A handler that is still at work when that time is over is
cancelled, before ``on_cleanup``, and an error is logged.

*A timeout outside.* The visitor gets the 504 at the limit; the handler goes on.
aiohttp knows nothing of such a handler: :func:`drain_shielded` makes the
shutdown wait for it.

Order
=====

Next to the handler, inside of :mod:`aiohttp_middlewares.timeout`: only what
is inside of it is shielded.

Limits
======

Only a request that has fully arrived is shielded: while an upload is incomplete
there is nothing to save, and the handler is cancelled. Nothing survives the end
of the process: give it time (``shutdown_timeout``, 60 seconds by default, is
applied twice by aiohttp: to the handler, then to its connection).

With ``handler_cancellation=False``, aiohttp's default, nobody cancels a
handler when its client leaves, and aiohttp does not cancel it at the end of
``shutdown_timeout`` either: add :func:`drain_shielded`, which waits for it.

Read the body first. Once a timeout outside has answered, aiohttp no longer
gives what was not read yet, and closes the uploaded files. With
``handler_cancellation=False`` it does so as soon as the client leaves.

A shielded stream or long poll never learns that its client left. The task of
a handler is ``asyncio.Task``, whatever ``loop.set_task_factory()`` was given.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.hdrs import METH_ALL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.deadline import DEADLINE
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.urls import exemption, url_matcher
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.shield._tasks import (
    Running,
    handle_shielded,
    log_cancelled,
    logger,
)

__all__ = ("DEFAULT_DRAIN_TIMEOUT", "drain_shielded", "shield_middleware")

#: For how many seconds :func:`drain_shielded` waits: as long as aiohttp does by
#: default. An application cannot tell which ``shutdown_timeout`` it was given.
DEFAULT_DRAIN_TIMEOUT = 60.0


def shield_middleware(
    *,
    methods: StrCollection | None = None,
    urls: Urls | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Let the handlers of some requests finish, whoever cancels them.

    :param methods:
        Shield requests with these methods, without case. Most of the time
        these are :data:`~aiohttp_middlewares.NON_IDEMPOTENT_METHODS`.
    :param urls:
        Shield requests to these URLs: a collection of paths, patterns and
        URLs, or a mapping of them to the method or methods to shield.
    :param ignore:
        URLs that are not shielded for all that, together with ``methods``
        only. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        Neither or both of ``methods`` and ``urls`` are given, or ``ignore``
        together with ``urls``; or a rule can never fit.
    """
    what = "shield_middleware"
    if not methods and not urls:
        raise ValueError(f"{what} takes methods or urls, got neither")
    if methods and urls:
        raise ValueError(f"{what} takes methods or urls, got both")
    if urls and ignore:
        raise ValueError(f"{what} takes ignore together with methods only")
    shielded_methods = options.methods(f"{what} methods", methods or ())
    shielded = url_matcher(f"{what} urls", urls or None)
    ignored = exemption(f"{what} ignore", ignore or None)
    running: Running = {}

    @middleware(methods=shielded_methods if shielded is None else None)
    async def shield(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if shielded is not None:
            if not shielded(request):
                return await handler(request)
        elif request.method not in shielded_methods or (
            ignored is not None and ignored(request)
        ):
            return await handler(request)
        # It may outlive the limit, and so may what it asks others for.
        limit = DEADLINE.set(None)
        try:
            return await handle_shielded(request, handler, running)
        finally:
            try:
                DEADLINE.reset(limit)
            except ValueError:
                pass  # in no context of ours: the event loop is closed

    shield.shielded_handlers = running  # type: ignore[attr-defined]
    return shield


_NONE: Running = {}


async def drain_shielded(app: web.Application) -> AsyncIterator[None]:
    """Wait at shutdown for the handlers that outlived their request.

    For ``app.cleanup_ctx``, not for ``on_cleanup``: as its last member, so
    that it is torn down first. It finds the handlers through the middlewares
    of the application, of its sub-applications and of single handlers
    (:func:`~aiohttp_middlewares.with_middlewares`). One that is still at work
    after :data:`DEFAULT_DRAIN_TIMEOUT` seconds is cancelled, and an error is
    logged. It has as long again to clean up.
    """
    yield
    handlers = {
        task: request
        for middleware in _middlewares(app)
        for task, request in getattr(middleware, "shielded_handlers", _NONE)
        # A copy: another application in another thread may share it.
        .copy()
        .items()
        if app in request.match_info.apps
    }
    if not handlers:
        return
    logger.info(
        "Waiting for %(handlers)s shielded handlers",
        facts := {"handlers": len(handlers)},
        extra=facts,
    )
    _, late = await asyncio.wait(handlers, timeout=DEFAULT_DRAIN_TIMEOUT)
    for task in late:
        task.cancel()
    if late:
        _, stuck = await asyncio.wait(late, timeout=DEFAULT_DRAIN_TIMEOUT)
        for task in stuck:  # it took the cancellation for something else
            log_cancelled(handlers[task])


def _middlewares(app: web.Application) -> Iterator[Any]:
    yield from app.middlewares
    for route in app.router.routes():
        yield from _around(route.handler)
    for resource in app.router.resources():
        subapp = resource.get_info().get("app")
        if isinstance(subapp, web.Application):
            yield from _middlewares(subapp)


def _around(handler: Any) -> Iterator[Any]:
    while isinstance(handler, partial):
        handler = handler.func
    yield from getattr(handler, "__middlewares__", ())
    if isinstance(handler, type):  # a view
        for name in METH_ALL:
            method = getattr(handler, name.lower(), None)
            yield from getattr(method, "__middlewares__", ())
