"""
=====================
Basic auth middleware
=====================

Asks for a login and a password by HTTP basic authentication (RFC 7617), for
staging servers, metrics, admin pages and small services.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import basic_auth_middleware, get_user


    async def whoami(request: web.Request) -> web.Response:
        return web.Response(text=get_user(request) or "nobody")


    app = web.Application(
        middlewares=[
            basic_auth_middleware(
                {"admin": "correct horse"},  # from your settings
                realm="Staging",
                ignore=["/healthz"],
            )
        ]
    )
    app.router.add_get("/", whoami)

If the passwords are elsewhere, ``check`` is a function:

.. code-block:: python

    import asyncio
    import hashlib
    import hmac

    from aiohttp import web
    from aiohttp_middlewares import basic_auth_middleware


    def hashed(password: str) -> bytes:
        salt = b"of your own"
        return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


    HASHES = {"admin": hashed("correct horse")}  # from your database


    async def check(login: str, password: str) -> bool:
        found = await asyncio.to_thread(hashed, password)  # it takes a while
        return hmac.compare_digest(HASHES.get(login, b""), found)


    app = web.Application(middlewares=[basic_auth_middleware(check)])

The client side, for one application that calls another, is
:mod:`aiohttp_middlewares.client.basic_auth`.

Order
=====

Inside of :mod:`aiohttp_middlewares.cors`, as a preflight bears no
credentials, and of :mod:`aiohttp_middlewares.error`, which keeps the
``WWW-Authenticate`` of the refusal; outside of all that asks who the user is.

Limits
======

Browsers are told to send UTF-8. What is not UTF-8, as from older clients, is
read as Latin-1.

The password goes over the wire with every request: use HTTPS. Nothing stops
anybody from trying many: add a rate limit. A browser sends the credentials from
pages of other origins too: add :mod:`aiohttp_middlewares.csrf`.
"""

import base64
import hashlib
import hmac
import inspect
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import quoted
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares._core.who import get_user, set_user
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = (
    "DEFAULT_REALM",
    "Check",
    "basic_auth_middleware",
    "get_user",
)

#: Whether the password is that of the login; may be a coroutine function.
Check: TypeAlias = Callable[[str, str], bool | Awaitable[bool]]

#: What browsers show, where nothing else is said.
DEFAULT_REALM = "Restricted"

logger: logging.Logger = logs.get_logger(__name__)


def basic_auth_middleware(
    check: Mapping[str, str] | Check,
    *,
    realm: str = DEFAULT_REALM,
    ignore: Urls | None = None,
) -> Middleware:
    """Let those in who know a login and its password; 401 for all others.

    :param check:
        A mapping of logins to passwords, which are compared in a time that
        tells nothing of either. Or a function ``(login, password) -> bool``,
        which may be a coroutine function and has to see to that itself.
    :param realm:
        What the login is for; browsers show it, and ask once for each realm.
        By default: :data:`DEFAULT_REALM`.
    :param ignore:
        URLs that need no login: a collection of paths, patterns and URLs, or
        a mapping of them to methods. A path with a ``..`` in it is none of
        them: see :doc:`/why/matching`. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a login or the realm cannot be sent.
    """
    what = "basic_auth_middleware"
    if isinstance(check, Mapping):
        knows = _knows(f"{what} check", check)
    else:
        if not callable(check):
            options.refuse(
                TypeError, f"{what} check", "a mapping or a callable", check
            )
        knows = check
    options.header_value(f"{what} realm", realm)
    # RFC 7617 2.1: else browsers send what they like.
    challenge = f'Basic realm={quoted(realm)}, charset="UTF-8"'
    ignored = exemption(f"{what} ignore", ignore)

    @middleware
    async def basic_auth(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        sent = lines(request, hdrs.AUTHORIZATION)
        reason = "it has no credentials"
        if sent:
            reason = "its credentials are malformed"
            credentials = _credentials(sent[0]) if len(sent) == 1 else None
            if credentials is not None:
                reason = "login and password do not match"
                known = knows(*credentials)
                if inspect.isawaitable(known):
                    known = await known
                if known:
                    set_user(request, credentials[0])
                    return await handler(request)
        logs.refused(logger, request, reason)
        raise web.HTTPUnauthorized(
            headers={hdrs.WWW_AUTHENTICATE: challenge},
            text="A login is needed",
        )

    return basic_auth


def _knows(what: str, passwords: Mapping[str, str]) -> Check:
    """The check of a mapping, which keeps no password."""
    should = "a mapping of logins to passwords"
    key = secrets.token_bytes()

    def digest(password: str) -> bytes:
        # Of one length, whatever the password's is.
        sent = password.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(sent, key=key).digest()

    digests = {}
    for login, password in passwords.items():
        if not isinstance(login, str) or not isinstance(password, str):
            # Not what came: that might be a password.
            raise TypeError(f"{what} should be {should}, all of them strings")
        if ":" in login or _CONTROL.search(login) or _CONTROL.search(password):
            # RFC 7617 2: where the colon is, the password begins.
            raise ValueError(
                f"{what} should be {should}, without control characters and "
                "without ':' in a login"
            )
        if not password:
            raise ValueError(f"{what} should be {should}, none of them empty")
        digests[login] = digest(password)
    if not digests:
        raise ValueError(f"{what} should not be empty: nobody could log in")
    nobody = secrets.token_bytes(64)

    def knows(login: str, password: str) -> bool:
        # A login that is not known takes as long as one that is.
        return hmac.compare_digest(digests.get(login, nobody), digest(password))

    return knows


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 9110 11.4: the scheme in any case, one space or more.
_BASIC = re.compile(r"basic +([A-Za-z0-9+/]+={0,2})", re.ASCII | re.IGNORECASE)


def _credentials(sent: str) -> tuple[str, str] | None:
    """Login and password; ``None`` if they are malformed."""
    found = _BASIC.fullmatch(sent)
    if found is None:
        return None
    try:
        decoded = base64.b64decode(found[1], validate=True)
    except ValueError:  # binascii.Error is one
        return None
    try:
        text = decoded.decode()
    except UnicodeDecodeError:
        # RFC 7617 B.3: what clients took before there was the parameter, and
        # some, aiohttp's among them, still do.
        text = decoded.decode("latin-1")
    login, colon, password = text.partition(":")
    # RFC 7617 2: neither may hold a control character.
    if not colon or _CONTROL.search(text):
        return None
    return login, password
