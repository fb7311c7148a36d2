"""
================
Scopes and roles
================

Authorization: says which scopes or role a handler requires of its caller, once
a middleware has found out who that is, by a token, an API key or a sign-in.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        api_key_middleware,
        error_middleware,
        requires,
    )

    KEYS = {
        "a-long-key": {"sub": "ann", "scope": "read write", "roles": ["admin"]},
        "another-key": {"sub": "bob", "scope": "read"},
    }


    @requires("read")
    async def notes(request: web.Request) -> web.Response:
        return web.json_response([])


    class Note(web.View):
        @requires("read", "write")
        async def put(self) -> web.Response:
            return web.json_response({})

        @requires(role="admin")
        async def delete(self) -> web.Response:
            return web.Response(status=204)


    app = web.Application(
        middlewares=[error_middleware(), api_key_middleware(KEYS.get)]
    )
    app.router.add_get("/notes", notes)
    app.router.add_view("/notes/{id}", Note)

A scope is one of those in the claim ``scope``, a string with spaces between
them (RFC 8693 4.2), or ``scp``, as some servers have it; a role one of those in
``roles``. All the named scopes must be there, and the role as well.

A caller who is not known gets 401 with ``WWW-Authenticate: Bearer``; one who
lacks a scope or the role gets 403 with ``error="insufficient_scope"`` and the
scopes that are needed (RFC 6750 3).

Order
=====

The decorator stands directly around the handler, inside of all middlewares, and
below what adds a route, such as ``@routes.get("/notes")``: above it, it guards
nothing.

Limits
======

It knows what the claims say, not whose note number 7 is: the handler has to
check that.
"""

import functools
import inspect
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.middleware import needing
from aiohttp_middlewares._core.who import get_claims, get_user

__all__ = ("requires",)

logger: logging.Logger = logs.get_logger(__name__)

H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])


def requires(*scopes: str, role: str | None = None) -> Callable[[H], H]:
    """Let only those call a handler who have these scopes and this role.

    For handlers, methods of a ``web.View``, and methods that are handlers.
    Without any scope and role it asks only that somebody is known.

    :param scopes: The scopes that are needed, all of them.
    :param role: The role that is needed. By default: none.
    :raises TypeError: a scope or the role is no string, or what is decorated
        is no function.
    :raises ValueError: what is no scope (RFC 6749 3.3), or no role.
    """
    what = "requires"
    for scope in scopes:
        if callable(scope):
            raise TypeError(
                f"{what} should be called: did you mean @requires(...)?"
            )
        if not isinstance(scope, str):
            options.refuse(TypeError, what, "scopes, each a string", scope)
        if not _SCOPE.fullmatch(scope):
            parts = ", ".join(map(repr, scope.split()))
            options.refuse(
                ValueError,
                what,
                "scopes, each in visible ASCII without quotes and backslashes",
                scope,
                meant=f"requires({parts})" if " " in scope else None,
            )
    if role is not None and not isinstance(role, str):
        options.refuse(TypeError, f"{what} role", "a string or None", role)
    if role == "":
        options.refuse(ValueError, f"{what} role", "a role", role)
    needed = frozenset(scopes)
    lacking = 'Bearer error="insufficient_scope"'
    if scopes:
        lacking += f', scope="{" ".join(scopes)}"'

    def check(request: web.Request) -> None:
        if get_user(request) is None:
            logs.refused(logger, request, "nobody knows who asks")
            raise web.HTTPUnauthorized(
                headers={
                    hdrs.WWW_AUTHENTICATE: "Bearer",
                    hdrs.CACHE_CONTROL: "no-store",
                },
                text="Nobody knows who asks",
            )
        claims = get_claims(request)
        if not needed <= {
            *_listed(claims.get("scope")),
            *_listed(claims.get("scp")),
        } or (role is not None and role not in _roles(claims.get("roles"))):
            logs.refused(logger, request, "who asks may not")
            raise web.HTTPForbidden(
                headers={hdrs.WWW_AUTHENTICATE: lacking},
                text="You may not do this",
            )

    def decorate(handler: H) -> H:
        if inspect.isclass(handler) or not callable(handler):
            options.refuse(
                TypeError,
                what,
                "around a handler, or a method of a view",
                handler,
            )

        @functools.wraps(handler)
        async def checked(*args: Any, **kwargs: Any) -> web.StreamResponse:
            check(_request_of(args))
            return await handler(*args, **kwargs)

        needing(checked, "requires")
        return checked  # type: ignore[return-value]

    return decorate


_SCOPE = re.compile(r"[!#-\[\]-~]+")


def _request_of(args: tuple[Any, ...]) -> web.Request:
    """That of a handler, of a method that is one, or of a view."""
    for arg in reversed(args):
        if isinstance(arg, web.Request):
            return arg
        if isinstance(arg, web.View):
            return arg.request
    raise TypeError("requires should be around a handler: there is no request")


def _listed(claim: object) -> list[str]:
    """Words of a string, or a list of them; anything else says nothing."""
    return claim.split(" ") if isinstance(claim, str) else _roles(claim)


def _roles(claim: object) -> list[str]:
    if isinstance(claim, str):
        return [claim]
    if not isinstance(claim, list | tuple | set | frozenset):
        return []
    return [item for item in claim if isinstance(item, str)]
