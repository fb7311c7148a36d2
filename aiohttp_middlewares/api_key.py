"""
==================
API key middleware
==================

Asks for an API key in a header, for APIs that a few known programs call.

Usage
=====

.. code-block:: python

    import json
    import os

    from aiohttp import web
    from aiohttp_middlewares import (
        api_key_middleware,
        error_middleware,
        get_user,
    )

    # {"backup": "…", "billing": "…"}, each from secrets.token_urlsafe(32)
    KEYS = json.loads(os.environ.get("API_KEYS", '{"backup": "a-long-key"}'))


    async def whoami(request: web.Request) -> web.Response:
        return web.json_response({"user": get_user(request)})


    app = web.Application(
        middlewares=[
            error_middleware(),
            api_key_middleware(KEYS, ignore=["/healthz"]),
        ]
    )
    app.router.add_get("/", whoami)

If the keys are elsewhere, ``check`` is a function. It returns the name of
whoever has the key, or all that is known about them, for
``get_claims(request)`` and :func:`requires`:

.. code-block:: python

    import hashlib

    from aiohttp_middlewares import api_key_middleware


    def digest(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()


    KEYS = {  # what you keep of them
        digest("a-long-key"): {"sub": "backup", "scope": "read"},
    }


    async def check(key: str) -> dict[str, str] | None:
        return KEYS.get(digest(key))  # the time tells nothing of a key


    api_key_middleware(check)

A request without a good key gets a 401 with ``WWW-Authenticate: ApiKey`` and
the realm. Keys are read from the header only: in a URL they would end up in
logs and histories. No log shows a key.

Order
=====

Inside of :mod:`aiohttp_middlewares.cors`, as a preflight bears no key, and of
:mod:`aiohttp_middlewares.error`, which keeps the ``WWW-Authenticate`` of the
refusal; outside of all that asks who the user is.

Limits
======

Whoever has a key can use it: use HTTPS. Unlike ``Authorization``, the header
means nothing to caches, so all answers bear ``Vary`` with its name. To revoke a
key, change what ``check`` knows.
"""

import hashlib
import hmac
import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import VARY, add_elements, quoted
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.sending import Headers, departure_of
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares._core.who import get_claims, get_user, set_user
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = (
    "DEFAULT_HEADER",
    "DEFAULT_REALM",
    "Check",
    "api_key_middleware",
    "get_claims",
    "get_user",
)

#: The name of whoever has a key, or a mapping of what is known of them, with
#: their name as ``sub``; ``None`` for a key that is not good.
Known: TypeAlias = str | Mapping[str, Any] | None
#: Tells it of a key; may be a coroutine function.
Check: TypeAlias = Callable[[str], Known | Awaitable[Known]]

#: What most APIs call it.
DEFAULT_HEADER = "X-API-Key"
#: What the key is for, where nothing else is said.
DEFAULT_REALM = "Restricted"

logger: logging.Logger = logs.get_logger(__name__)


def api_key_middleware(
    check: Mapping[str, str] | Check,
    *,
    header: str = DEFAULT_HEADER,
    realm: str = DEFAULT_REALM,
    ignore: Urls | None = None,
) -> Middleware:
    """Let those in who have a key; 401 for all others.

    :param check:
        A mapping of names to keys, all of which are compared in a time that
        tells nothing of any. Or a function ``(key) -> name``, which may give a
        mapping of claims as well, and ``None`` for a key that is not good. It
        may be a coroutine function, and has to see to its own time.
    :param header: The header with the key. By default: :data:`DEFAULT_HEADER`.
    :param realm: What the key is for. By default: :data:`DEFAULT_REALM`.
    :param ignore:
        URLs that need no key: a collection of paths, patterns and URLs, or a
        mapping of them to methods. A path with a ``..`` in it is none of
        them: see :doc:`/why/matching`. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a key or the realm cannot be sent, or two have one key.
    """
    what = "api_key_middleware"
    if isinstance(check, Mapping):
        knows: Check = _knows(f"{what} check", check)
    elif callable(check):
        knows = check
    else:
        # Not what came: that may be a key.
        raise TypeError(
            f"{what} check should be a mapping or a callable, got a "
            f"{type(check).__name__}"
        )
    name = options.header_name(f"{what} header", header)
    options.header_value(f"{what} realm", realm)
    challenge = f"ApiKey realm={quoted(realm)}"
    ignored = exemption(f"{what} ignore", ignore)

    def vary(status: int, headers: Headers) -> None:
        add_elements(headers, VARY, (name,))

    @middleware
    async def api_key(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        departure = departure_of(request)
        place = departure.add(vary)
        sent = lines(request, name)
        reason = "it has no key"
        if sent:
            reason = "its key is not good"
            if len(sent) == 1 and _KEY.fullmatch(sent[0]):
                known = knows(sent[0])
                if inspect.isawaitable(known):
                    known = await known
                if known is not None:
                    _introduce(what, request, known)
                    response = await handler(request)
                    departure.passes(place, response)
                    return response
        logs.refused(logger, request, reason)
        raise web.HTTPUnauthorized(
            headers={
                hdrs.WWW_AUTHENTICATE: challenge,
                hdrs.CACHE_CONTROL: "no-store",
            },
            text="An API key is needed",
        )

    return api_key


def _introduce(what: str, request: web.Request, known: object) -> None:
    if known and isinstance(known, str):
        set_user(request, known)
    elif isinstance(known, Mapping):
        subject = known.get("sub")
        set_user(request, None if subject is None else str(subject), known)
    else:
        raise TypeError(
            f"{what} check should return a name, a mapping of claims or None, "
            f"got a {type(known).__name__}"
        )


#: What a client can send, and no function of a user's fails at.
_KEY = re.compile(r"[!-~]+(?: +[!-~]+)*")


def _knows(what: str, keys: Mapping[str, str]) -> Callable[[str], str | None]:
    """The check of a mapping, which keeps no key."""
    should = f"{what} should be a mapping of names to keys"
    secret = secrets.token_bytes()

    def digest(key: str) -> bytes:
        # Of one length, whatever the key's is.
        return hashlib.blake2b(key.encode(), key=secret).digest()

    # None of the errors shows what may be a key.
    digests = {}
    for name, key in keys.items():
        if not isinstance(name, str) or not isinstance(key, str):
            raise TypeError(f"{should}, all of them strings")
        if not name or not _KEY.fullmatch(key):
            raise ValueError(
                f"{should}, none of them empty, and the keys in visible ASCII"
            )
        digests[name] = digest(key)
    if not digests:
        raise ValueError(f"{what} should not be empty: nobody could come in")
    if len({*digests.values()}) < len(digests):
        raise ValueError(f"{should}, a key of its own for each")

    def knows(key: str) -> str | None:
        sent = digest(key)
        known = None
        for name, one in digests.items():  # all of them: the time tells nothing
            if hmac.compare_digest(one, sent):
                known = name
        return known

    return knows
