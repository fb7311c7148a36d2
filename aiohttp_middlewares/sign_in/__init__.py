"""
==================
Sign-in middleware
==================

OAuth login: visitors sign in with GitHub, or with any provider of OpenID
Connect (OIDC: Google, Entra, Keycloak, GitLab ...), and are known from then on,
for sites that do not want to keep passwords.

Usage
=====

.. code-block:: python

    import os

    from aiohttp import web
    from aiohttp_middlewares import (
        error_middleware,
        get_user,
        github,
        session_middleware,
        sign_in_middleware,
    )


    async def home(request: web.Request) -> web.Response:
        return web.Response(text=f"Hello, {get_user(request)}")


    app = web.Application(
        middlewares=[
            error_middleware(),
            session_middleware(os.environ["SESSION_KEYS"].split()),
            sign_in_middleware(
                github("the client id", "the secret", orgs=["our-company"])
            ),
        ]
    )
    app.router.add_get("/", home)

It takes ``pip install "aiohttp-middlewares[session,sign-in]"``.
:doc:`/how-to/sign-in` covers the other providers, roles, an API beside a site,
and what is kept where.

What it does
============

An unknown visitor who opens a page goes to the provider (303) and comes back to
that page. What is not a navigation (``fetch()``, a WebSocket, curl) gets a 401.
``Sec-Fetch-Mode`` tells which is which; where a browser does not send it, a
``GET`` that accepts ``text/html`` is a navigation. Somebody whom a middleware
outside knows already (:mod:`aiohttp_middlewares.bearer_auth`) is let through:
whether :func:`get_user` is ``None`` decides.

These addresses are its own, and need no sign-in:

* ``/-/auth/sign-in``, where :func:`sign_in_url` leads, begins a sign-in.
* ``/-/auth/callback``, to be registered with the provider, ends one.
* ``/-/auth/logout`` takes a ``POST``, from a page of the site only, empties
  the session, and goes on to the provider's own logout where it has one.
* ``/-/auth/signed-out``, to be registered for that, is where it ends.

How it is safe: ``state`` binds what comes back to the browser that asked (it
is good once, for an hour), PKCE (RFC 7636, S256) binds the code to it, and
``nonce`` the ID token. A sign-in ends in a new session: nothing of the old one
is in it but the sign-ins of other tabs. A visitor is sent on only to a path of
this site.

What visitors see when it fails, in HTML or as problem details: 400 for a
sign-in that is too old, was used or began in another browser (somebody who is
known by now is sent on instead); 403 for those whom the provider or the rules
of the site refuse; 502 when the provider is away, slow or not understood, with
the reason logged as a warning; 500, and an error in the log, when the claims to
``keep`` do not fit into the cookie of the session.

Order
=====

Inside of :mod:`aiohttp_middlewares.session`, which it needs; inside of what
knows the scheme and the host that visitors use
(:mod:`aiohttp_middlewares.proxy_headers`), or the provider refuses the address
of the callback; outside of all that asks who the user is.
:mod:`aiohttp_middlewares.csrf` may stand on either side of it.

Limits
======

Somebody who is removed from an organization or locked at the provider stays
signed in until ``max_age`` is over: the provider is asked once.

A session that is a cookie can be read by its visitor, with the PKCE verifier
and the nonce of a sign-in under way, and a copy of it cannot be taken back by
a logout: a storage on the server is better. A cookie that is
``SameSite=Strict`` is not sent when visitors come back, which looks like an
expired sign-in: leave it at ``lax``.

Tabs that begin a sign-in in the very same moment overwrite each other's
cookie. The last can be finished, and the others are then sent to ``/``.

Visitors come back with a ``GET``: what they had sent with a form is lost. Of an
address of more than 700 characters they come back to the path only.

A ``Content-Security-Policy`` with ``form-action 'self'``, as
:mod:`aiohttp_middlewares.security_headers` has it, stops Chromium from
following the logout to the provider: name its origin there.

aiohttp's own access log writes the query of the callback, with a code that is
used up: :mod:`aiohttp_middlewares.access_log` does not.
"""

import re
import time
from collections.abc import Callable

from aiohttp import web

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares._core.who import get_claims, get_user, set_user
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.sign_in._flow import Flow, sign_in_link, target_of
from aiohttp_middlewares.sign_in._github import github
from aiohttp_middlewares.sign_in._openid import (
    DEFAULT_SCOPES,
    Allow,
    openid_connect,
)
from aiohttp_middlewares.sign_in._provider import Provider
from aiohttp_middlewares.sign_in._visit import aiohttp_session_for

__all__ = (
    "DEFAULT_KEEP",
    "DEFAULT_MAX_AGE",
    "DEFAULT_PATH",
    "DEFAULT_SCOPES",
    "Allow",
    "get_claims",
    "get_user",
    "github",
    "openid_connect",
    "sign_in_middleware",
    "sign_in_url",
)

#: Below it are the addresses of the middleware.
DEFAULT_PATH = "/-/auth"
#: Eight hours, in seconds.
DEFAULT_MAX_AGE = 8 * 60 * 60
#: The claims that the session keeps, where nothing else is said.
DEFAULT_KEEP = ("sub", "name", "preferred_username", "email", "email_verified")


def sign_in_middleware(
    provider: Provider,
    *,
    path: str = DEFAULT_PATH,
    ignore: Urls | None = None,
    required: bool = True,
    max_age: float = DEFAULT_MAX_AGE,
    keep: StrCollection = DEFAULT_KEEP,
    login_hint: str | Callable[[web.Request], str | None] | None = None,
    timeout: float = 10.0,
    clock: Callable[[], float] = time.time,
) -> Middleware:
    """Have visitors sign in.

    :param provider: Where: :func:`github` or :func:`openid_connect`.
    :param path:
        Below which the addresses of the middleware are, such as
        ``/-/auth/callback``; in a sub-application with its prefix. By
        default: :data:`DEFAULT_PATH`.
    :param ignore:
        URLs that need nobody, and where nobody is known: a collection of
        paths, patterns and URLs, or a mapping of them to methods. A path with
        a ``..`` in it is none of them: see :doc:`/why/matching`. By default:
        none.
    :param required:
        Whether those who are unknown are sent away. With ``False`` they are
        let through, and :func:`sign_in_url` is for a link. By default:
        ``True``.
    :param max_age:
        After so many seconds a visitor signs in anew, whatever the session
        says. By default: :data:`DEFAULT_MAX_AGE`.
    :param keep:
        The names of the claims that the session keeps, for
        :func:`get_claims`. By default: :data:`DEFAULT_KEEP`.
    :param login_hint:
        Whom the provider is to ask for: a name, or a function of the request.
        By default: nobody in particular.
    :param timeout:
        For how many seconds a visitor waits for the provider, all its answers
        together. By default: 10.
    :param clock:
        Gives the time in seconds since the epoch. By default: that of the
        machine.
    :raises ImportError: aiohttp-session is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option is malformed.
    """
    what = "sign_in_middleware"
    aiohttp_session = aiohttp_session_for(what)
    if not isinstance(provider, Provider):
        options.refuse(
            TypeError,
            f"{what} provider",
            "that of github() or openid_connect()",
            provider,
        )
    _check_path(f"{what} path", path)
    ignored = exemption(f"{what} ignore", ignore)
    options.flag(f"{what} required", required)
    options.seconds(f"{what} max_age", max_age)
    kept = options.strings(f"{what} keep", keep)
    if callable(login_hint):
        options.function(f"{what} login_hint", login_hint, awaited=False)
    elif login_hint is not None and (
        not isinstance(login_hint, str) or not login_hint
    ):
        options.refuse(
            ValueError if login_hint == "" else TypeError,
            f"{what} login_hint",
            "a non-empty string, a callable or None",
            login_hint,
        )
    options.seconds(f"{what} timeout", timeout)
    options.function(f"{what} clock", clock)
    flow = Flow(
        aiohttp_session,
        provider,
        path,
        kept,
        max_age,
        login_hint,
        timeout,
        clock,
    )
    pages = flow.pages

    @middleware(required=required, ignore=ignore)
    async def sign_in(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        request[_PATH] = path
        page = pages.get(request.rel_url.path_safe)
        if page is not None:
            raise await page(request)
        if ignored is not None and ignored(request):
            return await handler(request)
        if get_user(request) is not None:
            return await handler(request)
        visit = await flow.visit(request)
        known = flow.known(visit)
        if known is not None:
            set_user(request, *known)
        elif required:
            raise await flow.turn_away(request, visit)
        return await handler(request)

    return sign_in


_PATH = request_key("aiohttp_middlewares.sign_in.path", str)


def sign_in_url(request: web.Request) -> str:
    """Where a link leads that signs the visitor in and comes back here.

    :raises RuntimeError: no :func:`sign_in_middleware` stands outside.
    """
    path = stored(request, _PATH)
    if path is None:
        raise RuntimeError(
            "sign_in_url needs sign_in_middleware outside of the handler"
        )
    return sign_in_link(path, target_of(request))


def _check_path(what: str, path: object) -> None:
    should = "a path such as '/-/auth', without a slash at its end"
    if not isinstance(path, str):
        options.refuse(TypeError, what, should, path)
    if not _PATH_FORM.fullmatch(path):
        meant = "/" + path.strip("/")
        options.refuse(
            ValueError,
            what,
            should,
            path,
            meant=repr(meant) if _PATH_FORM.fullmatch(meant) else None,
        )


# RFC 3986 3.3, of unreserved characters, and no dot segments.
_PATH_FORM = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+")
