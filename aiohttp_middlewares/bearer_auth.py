"""
======================
Bearer auth middleware
======================

Asks for a bearer token, such as a JWT or an OAuth access token (RFC 6750), for
APIs that programs call: apps, single-page applications, other services.

Usage
=====

With the JWTs of an issuer, see :mod:`aiohttp_middlewares.jwt`:

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        bearer_auth_middleware,
        error_middleware,
        get_user,
        jwt_verifier,
    )

    verify = jwt_verifier(
        "https://issuer.example.com/.well-known/jwks.json",
        algorithms=["RS256"],
        issuer="https://issuer.example.com/",
        audience="https://api.example.com",
    )


    async def whoami(request: web.Request) -> web.Response:
        return web.json_response({"user": get_user(request)})


    app = web.Application(
        middlewares=[
            error_middleware(),
            bearer_auth_middleware(verify, ignore=["/healthz"]),
        ]
    )
    app.router.add_get("/", whoami)

Or with any other tokens: ``verify`` is a function that knows them, such as from
a database. ``get_claims(request)`` gives what it returns, and
``get_user(request)`` the ``sub`` of that:

.. code-block:: python

    import hashlib

    from aiohttp_middlewares import bearer_auth_middleware


    def digest(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()


    ACCESS = {  # what you keep of tokens from secrets.token_urlsafe(32)
        digest("a long random token"): {"sub": "backup", "scope": "read"},
    }


    async def verify(token: str) -> dict[str, str] | None:
        return ACCESS.get(digest(token))  # the time tells nothing of a token


    bearer_auth_middleware(verify)

What single handlers ask for beyond that, :func:`requires` says.

What it answers
===============

========================================= ===== ===============================
The request has                                 ``WWW-Authenticate: Bearer``
========================================= ===== ===============================
no token, or another scheme               401   ``realm="…"``
a token that ``verify`` does not know     401   and ``error="invalid_token"``
an ``Authorization`` that is malformed,   400   and ``error="invalid_request"``
or two of them
a token, but the keys are away            503   none; ``Retry-After``
========================================= ===== ===============================

With ``required=False``, requests without a token go on as nobody's; bad tokens
are still refused. All answers then bear ``Vary: Authorization``.

Tokens are read from the ``Authorization`` field only: in a URL they would end
up in logs and histories (RFC 9700 4.3.2). No log shows a token.

Order
=====

Inside of :mod:`aiohttp_middlewares.cors`, as a preflight bears no token, and of
:mod:`aiohttp_middlewares.error`, which keeps the ``WWW-Authenticate`` of the
refusal; outside of all that asks who the user is.

Limits
======

Whoever has a token can use it: use HTTPS. A token whose claims have no ``sub``
names nobody, so that ``get_user(request)`` is ``None`` and :func:`requires`
refuses it; have ``verify`` add one.
"""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import VARY, add_elements, quoted
from aiohttp_middlewares._core.jwt.published import KeysUnavailable
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.sending import Headers, departure_of
from aiohttp_middlewares._core.statuses import Unavailable
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares._core.who import get_claims, get_user, set_user
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = (
    "DEFAULT_REALM",
    "Verify",
    "bearer_auth_middleware",
    "get_claims",
    "get_user",
)

#: What is known of the owner of a token; ``None`` for one that is not good.
#: May be a coroutine function, and may raise :class:`KeysUnavailable`.
Verify: TypeAlias = Callable[
    [str], Mapping[str, Any] | Awaitable[Mapping[str, Any] | None] | None
]

#: What the token is for, where nothing else is said.
DEFAULT_REALM = "Restricted"

logger: logging.Logger = logs.get_logger(__name__)


def bearer_auth_middleware(
    verify: Verify,
    *,
    realm: str = DEFAULT_REALM,
    required: bool = True,
    ignore: Urls | None = None,
) -> Middleware:
    """Let those in who have a good token, by RFC 6750.

    :param verify:
        A function ``(token) -> claims``: a mapping of what is known of its
        owner, or ``None`` if it is not good. It may be a coroutine function,
        and may raise :class:`KeysUnavailable` where that cannot be told for
        now. Whatever else it raises ends as a 500.
    :param realm: What the token is for. By default: :data:`DEFAULT_REALM`.
    :param required:
        Whether requests without a token are refused. By default: ``True``.
    :param ignore:
        URLs that need no token: a collection of paths, patterns and URLs, or
        a mapping of them to methods. A path with a ``..`` in it is none of
        them: see :doc:`/why/matching`. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: the realm cannot be sent.
    """
    what = "bearer_auth_middleware"
    if not callable(verify):
        # Not what came: that may be a token, or a key.
        raise TypeError(
            f"{what} verify should be a callable, such as a jwt_verifier(...), "
            f"got a {type(verify).__name__}"
        )
    options.header_value(f"{what} realm", realm)
    options.flag(f"{what} required", required)
    # RFC 6750 3: an error is for those only who have sent a token.
    challenge = f"Bearer realm={quoted(realm)}"
    invalid_token = f'{challenge}, error="invalid_token"'
    invalid_request = f'{challenge}, error="invalid_request"'
    ignored = exemption(f"{what} ignore", ignore)

    @middleware(required=required)
    async def bearer_auth(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            return await handler(request)
        if required:
            await identify(request)
            return await handler(request)
        # The same URL has another answer for those who have a token.
        departure = departure_of(request)
        place = departure.add(_vary)
        await identify(request)
        response = await handler(request)
        departure.passes(place, response)
        return response

    async def identify(request: web.Request) -> None:
        """Find out who asks, or refuse."""
        sent = lines(request, hdrs.AUTHORIZATION)
        found = _BEARER.fullmatch(sent[0]) if len(sent) == 1 else None
        if found is None:
            # RFC 9110 5.3: it is a single field.
            if len(sent) > 1 or (sent and _IS_BEARER.match(sent[0])):
                logs.refused(logger, request, "its Authorization is malformed")
                raise web.HTTPBadRequest(
                    headers={hdrs.WWW_AUTHENTICATE: invalid_request},
                    text="The Authorization header is malformed",
                )
            if required:
                _refuse(request, challenge, "it has no token")
            return
        try:
            claims = verify(found[1])
            if inspect.isawaitable(claims):
                claims = await claims
        except KeysUnavailable as exc:
            logs.refused(logger, request, "there are no keys to verify it with")
            raise Unavailable(
                headers={hdrs.RETRY_AFTER: str(exc.retry_after)},
                text="Tokens cannot be verified at the moment",
            ) from exc
        if claims is None:
            _refuse(request, invalid_token, "its token is not good")
        if not isinstance(claims, Mapping):
            raise TypeError(
                f"{what} verify should return a mapping of claims or None, "
                f"got a {type(claims).__name__}"
            )
        subject = claims.get("sub")
        set_user(request, None if subject is None else str(subject), claims)

    return bearer_auth


def _refuse(request: web.Request, challenge: str, reason: str) -> NoReturn:
    logs.refused(logger, request, reason)
    raise web.HTTPUnauthorized(
        headers={
            hdrs.WWW_AUTHENTICATE: challenge,
            hdrs.CACHE_CONTROL: "no-store",
        },
        text="A good token is needed",
    )


def _vary(status: int, headers: Headers) -> None:
    add_elements(headers, VARY, (hdrs.AUTHORIZATION,))


# RFC 6750 2.1, and RFC 9110 11.1 and 11.4: the scheme in any case, one space or
# more. (Where the case does not count, "[a-z]" has four letters that are not
# ASCII.)
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/-]+=*)")
#: Whatever of this scheme is not as above is malformed.
_IS_BEARER = re.compile(r"(?i:bearer)(?![!#$%&'*+.^_`|~0-9A-Za-z-])")
