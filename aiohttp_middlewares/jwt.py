"""
=====================
JSON Web Tokens (JWT)
=====================

Verifies JWTs for
:func:`~aiohttp_middlewares.bearer_auth.bearer_auth_middleware`: the issuer has
signed the token, for this API, and it has not expired.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        bearer_auth_middleware,
        error_middleware,
        jwt_verifier,
    )

    verify = jwt_verifier(
        "https://issuer.example.com/.well-known/jwks.json",
        algorithms=["RS256"],
        issuer="https://issuer.example.com/",
        audience="https://api.example.com",
    )
    app = web.Application(
        middlewares=[error_middleware(), bearer_auth_middleware(verify)]
    )

It takes ``pip install "aiohttp-middlewares[jwt]"``: joserfc does the signing
and verifying. A verifier works without the middleware as well: ``await
verify(token)`` gives the claims of a good token, and ``None`` for all others.

What is a good token
====================

One of ``algorithms``, signed with a key that is for it (RFC 8725 3.1): by its
kind and curve, and by its own ``alg``, ``use`` and ``key_ops``. What the token
itself says of keys (``jku``, ``x5u``, ``x5c``, ``jwk``) is ignored; ``kid``
chooses the key of that name, or else one that has no name. A token with
``crit`` is refused, as no extension is known.

Then ``iss`` and ``aud`` must be there and be right, unless that option is
``None``; ``exp``, ``nbf`` and ``iat`` are times, and right within ``leeway``. A
token of more than 65536 characters, or with a header of more than 8192, is not
even looked at.

Keys at a URL (JWKS)
====================

They are fetched when the first token comes, within 10 seconds, and kept: one
fetch for all who wait. They are fetched again for a token with an unknown
``kid``, at most once a minute, so that an issuer can change its keys at any
time, and nobody can make us ask its server at will; and after an hour, as a key
may have been revoked. While the issuer's server is away, or sends nothing
usable, the old keys are good. If there are none at all,
:class:`KeysUnavailable` is raised, which the middleware answers with 503; the
next attempt is made after 5 seconds.

Redirects are not followed, and more than 512 KiB are not read. One verifier
can be used by any number of middlewares; it needs no closing.

Order
=====

It is not a middleware: see :mod:`aiohttp_middlewares.bearer_auth`.

Limits
======

Nobody asks the issuer whether a token was revoked: it is good until it expires.
Encrypted tokens (JWE) and nested tokens are not good. Verifying with a public
key takes some ten to a hundred microseconds, in the event loop.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from aiohttp import ClientSession
from yarl import URL

from aiohttp_middlewares._core.jwt.published import KeysUnavailable
from aiohttp_middlewares._core.jwt.verifier import Verifier

__all__ = ("KeysUnavailable", "jwt_verifier")


def jwt_verifier(
    keys: str | bytes | URL | Mapping[str, Any],
    *,
    algorithms: Collection[str],
    issuer: str | Collection[str] | None,
    audience: str | Collection[str] | None,
    leeway: float = 60,
    token_type: str | None = None,
    required_claims: Collection[str] = ("exp",),
    session: ClientSession | None = None,
    clock: Callable[[], float] = time.time,
) -> Callable[[str], Awaitable[Mapping[str, Any] | None]]:
    """What gives the claims of good tokens: ``await verify(token)``.

    By RFC 7519 7.2 and RFC 8725; by RFC 9068 with ``token_type="at+jwt"``. For
    tokens that are not good it gives ``None``; it raises
    :class:`KeysUnavailable` where that cannot be told.

    :param keys:
        With what they are verified: a secret, a PEM, a JWK or a JWK set, or
        the URL of a set: https, or http on this machine.
    :param algorithms:
        The algorithms that the issuer signs with, such as ``["RS256"]``: all
        of secret keys or all of public ones. There is no default.
    :param issuer:
        The ``iss`` of good tokens, or several. ``None`` for any.
    :param audience:
        The name of this API as ``aud`` has it, or several. ``None`` for any.
    :param leeway:
        By how many seconds the clocks may differ. By default: 60.
    :param token_type:
        The ``typ`` of good tokens, such as ``"at+jwt"``; RFC 8725 3.11. By
        default any.
    :param required_claims:
        What has to be there besides. By default: ``exp``.
    :param session:
        Fetches the keys, such as one that an application closes in the end.
        By default one for each fetch.
    :param clock: The time in seconds since the epoch.
    :raises ImportError: joserfc is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option can never work, or is dangerous.
    """
    return Verifier(
        "jwt_verifier",
        keys,
        algorithms=algorithms,
        issuer=issuer,
        audience=audience,
        leeway=leeway,
        token_type=token_type,
        required_claims=required_claims,
        session=session,
        clock=clock,
    )
