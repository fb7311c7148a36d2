"""
==================
Session middleware
==================

Cookie sessions: remembers who a visitor is from one request to the next, for
applications that use `aiohttp-session
<https://aiohttp-session.readthedocs.io>`_ or come from Starlette.

Usage
=====

.. code-block:: python

    import aiohttp_session
    from aiohttp import web
    from aiohttp_middlewares import error_middleware, session_middleware


    async def count(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["visits"] = session.get("visits", 0) + 1
        return web.Response(text=str(session["visits"]))


    app = web.Application(
        middlewares=[
            error_middleware(),
            session_middleware("a long random string, kept out of the code"),
        ]
    )
    app.router.add_get("/", count)

It takes ``pip install "aiohttp-middlewares[session]"``. Sessions are used as in
aiohttp-session: ``get_session``, ``new_session``, ``session.changed()`` after a
change inside a value, ``session.invalidate()``.

With a key, the session is kept in a cookie that the visitor can read but not
change: :class:`SignedCookieStorage`. Starlette's ``SessionMiddleware`` with the
same key and cookie name reads and writes the same cookie. Of several keys, the
first signs and all are good, so that a key can be replaced without logging
anybody out:

.. code-block:: python

    from aiohttp_middlewares import session_middleware

    session_middleware(["the new key", "the old key"])

As a JSON Web Token, which starlette-authlib reads and writes, too, or signed
with a key pair: :class:`JWTCookieStorage`.

.. code-block:: python

    from aiohttp_middlewares import JWTCookieStorage, session_middleware

    session_middleware(JWTCookieStorage("a long random string, kept secret"))

Any storage of aiohttp-session works in its place, and then has the cookie
options itself:

.. code-block:: python

    import redis.asyncio as redis
    from aiohttp_middlewares import session_middleware
    from aiohttp_session.redis_storage import RedisStorage

    storage = RedisStorage(redis.Redis(), max_age=86400, samesite="Lax")
    session_middleware(storage)

Redis takes ``pip install "aiohttp-middlewares[session,redis]"``.

When a session is saved
=======================

The session is saved when the handler returns or raises a
``web.HTTPException``, so that a login may end in ``raise web.HTTPFound("/")``,
and for streams and WebSockets when their headers leave. After any other
exception nothing is saved. An answer that is not the handler's own, such as
the 504 of a limit that strikes while a shielded handler goes on, saves nothing
and has no cookie; what that handler leaves in the session is saved when it
ends, as far as the storage keeps it on the server. ``Set-Cookie`` is sent only
when the session was changed, and ``Vary: Cookie`` whenever it was asked for. A
cookie is deleted with the attributes that it was set with, even for storages
that forget these.

A storage that fails to load makes ``get_session`` raise; one that fails to save
makes the request fail: both end in a 500, so that nobody believes in a login
that was never stored.

Cookies are read as browsers write them (RFC 6265bis), on every version of
aiohttp: odd cookies of others do not hide the session, of several with its name
the first good one counts, and a name with ``__Host-`` that comes twice counts
as none. Logging out somebody who has no session saves nothing.

A cookie of more than 4096 bytes, which browsers drop, is not sent, and the log
says so as an ``ERROR``.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, and, with a storage on the server,
of :mod:`aiohttp_middlewares.timeout` and :mod:`aiohttp_middlewares.shield`;
outside of all that asks for the session.
What says that a request came by HTTPS (:mod:`aiohttp_middlewares.https`) stands
outside of it, or cookies lack ``Secure``.

Limits
======

A signed cookie cannot be revoked: a copy of it is good until it is ``max_age``
old, even after a logout. The age counts from the last change, unless
``rolling`` renews it. If two requests at the same time change the session, the
later answer wins. A change after the headers have left can no longer reach a
cookie: what is kept in it is lost, and logged.

Where aiohttp reads the cookies in another way, a storage of aiohttp-session is
asked with a copy of the request; once the body was read there can be no copy,
and the session is a new one.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from http.cookies import Morsel
from typing import Any, Literal, Protocol, cast
from warnings import catch_warnings, simplefilter
from weakref import ref

from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.grammar.cookies import cookie_values
from aiohttp_middlewares._core.grammar.fields import VARY, add_elements
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import cloned, lines
from aiohttp_middlewares._core.sending import (
    HANDLERS,
    before_sending,
    is_answered_elsewhere,
    started,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.session._cookie import (
    DEFAULT_COOKIE_NAME,
    DEFAULT_MAX_AGE,
    MOST_CANDIDATES,
    CookieStorage,
    SameSite,
    Secret,
    aiohttp_session_for,
    check_cookie,
    checked_keys,
)
from aiohttp_middlewares.session._jwt_cookie import JWTCookieStorage
from aiohttp_middlewares.session._signed_cookie import SignedCookieStorage

__all__ = (
    "DEFAULT_COOKIE_NAME",
    "DEFAULT_MAX_AGE",
    "MAX_COOKIE_SIZE",
    "JWTCookieStorage",
    "SignedCookieStorage",
    "session_middleware",
)

#: What browsers take; RFC 6265 6.1 asks for no less.
MAX_COOKIE_SIZE = 4096

logger: logging.Logger = logs.get_logger(__name__)


class Storage(Protocol):
    """What is used of ``aiohttp_session.AbstractStorage``."""

    @property
    def cookie_name(self) -> str: ...

    @property
    def cookie_params(self) -> Mapping[str, Any]: ...

    async def new_session(self) -> Any: ...

    async def load_session(self, request: web.Request) -> Any: ...

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Any
    ) -> None: ...


def session_middleware(
    secret_or_storage: Secret | Storage,
    *,
    cookie_name: str = DEFAULT_COOKIE_NAME,
    max_age: int | None = DEFAULT_MAX_AGE,
    path: str = "/",
    domain: str | None = None,
    same_site: SameSite = "lax",
    https_only: bool | Literal["auto"] = "auto",
    rolling: bool = False,
    partitioned: bool = False,
) -> Middleware:
    """Have ``aiohttp_session.get_session(request)`` work, and save changes.

    :param secret_or_storage:
        A key, or keys of which the first signs and all are good, for a
        :class:`SignedCookieStorage` with the options below. Or any storage
        of aiohttp-session; then none of the options below, as it has its own.
    :param cookie_name:
        The name of the cookie. By default: ``"session"``.
    :param max_age:
        For how many seconds after its last change a session is good. ``None``
        for as long as the browser runs. By default: two weeks.
    :param path:
        The path below which the cookie is sent. By default: ``"/"``.
    :param domain:
        The domain that gets the cookie together with all below it. By
        default the host of the request, and no other.
    :param same_site:
        ``"lax"``, ``"strict"`` or ``"none"``: whether requests from other
        sites bear the cookie. By default: ``"lax"``.
    :param https_only:
        Whether the cookie is ``Secure``. ``"auto"`` when the request came by
        HTTPS, and always where a browser would refuse it otherwise: with
        ``same_site="none"``, ``partitioned`` and names such as
        ``__Host-session``. By default: ``"auto"``.
    :param rolling:
        Send the cookie anew once half of ``max_age`` is over, with the answer
        to a request that asks for the session: a visitor who comes back is
        not logged out. By default: ``False``.
    :param partitioned:
        Whether the cookie is ``Partitioned`` (CHIPS): each site that shows
        this one in a frame has another. By default: ``False``.
    :raises ImportError: aiohttp-session or itsdangerous is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option, or two together, can never work.
    """
    what = "session_middleware"
    aiohttp_session = aiohttp_session_for(what)
    SESSION = aiohttp_session.SESSION_KEY
    STORAGE = aiohttp_session.STORAGE_KEY
    given = (
        ("cookie_name", cookie_name, DEFAULT_COOKIE_NAME),
        ("max_age", max_age, DEFAULT_MAX_AGE),
        ("path", path, "/"),
        ("domain", domain, None),
        ("same_site", same_site, "lax"),
        ("https_only", https_only, "auto"),
        ("rolling", rolling, False),
        ("partitioned", partitioned, False),
    )
    storage: Storage
    if isinstance(secret_or_storage, aiohttp_session.AbstractStorage):
        storage = cast(Storage, secret_or_storage)
        for option, value, default in given:
            if value != default:
                raise ValueError(
                    f"{what} {option} goes with a key: a storage has options "
                    "of its own for the cookie"
                )
    else:
        keys = checked_keys(f"{what} secret_or_storage", secret_or_storage)
        cookie: dict[str, Any] = {option: value for option, value, _ in given}
        check_cookie(what, **cookie)
        storage = SignedCookieStorage(keys, **cookie)
    known_to_aiohttp = False

    @middleware(storage=storage)
    async def session(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        nonlocal known_to_aiohttp
        visit = _Visit(storage, request)
        if known_to_aiohttp:
            request[STORAGE] = visit
        else:
            known_to_aiohttp = True
            # aiohttp 3.14 warns at the first use of a string as a key. These
            # two are aiohttp-session's, and nobody here can change them.
            with catch_warnings():
                simplefilter("ignore")
                request[SESSION] = request.get(SESSION)
                request[STORAGE] = visit
        around = _VISITS.get()
        _VISITS.set((*around, visit))
        before_sending(request, visit.leave)
        try:
            response = await handler(request)
        except web.HTTPException:
            await visit.come_back(prepared=False)
            raise
        except BaseException:
            visit.give_up()
            raise
        finally:
            _VISITS.set(around)
        prepared = getattr(response, "prepared", None)
        if visit.session is None:  # as mostly: nobody has asked
            visit.is_back = True
        elif prepared is None:  # no response: an error like any other
            visit.give_up()
        else:
            await visit.come_back(prepared=prepared)
        return response

    return session


#: Whose handlers run here. A response that leaves elsewhere, such as a 504
#: while a shielded handler goes on, is not the handler's.
_VISITS: ContextVar[tuple["_Visit", ...]] = ContextVar("visits", default=())


class _Visit:
    """Stands in for the storage in one request, and knows its session.

    aiohttp-session keeps the session in the request that it was asked with,
    which may be a clone. This one goes with all clones. It holds the request,
    which holds it, only while there may be something to save.
    """

    ask: Callable[[], web.Request | None]
    request: web.Request | None = None
    session: Any = None
    headers: CIMultiDict[str] = CIMultiDict()
    #: The value of the cookie in them.
    value: str | None = None
    #: Whether the handler is at its end.
    is_back = False
    #: Whether headers have left, so that no cookie can any more.
    left = False

    def __init__(self, storage: Storage, request: web.Request) -> None:
        self.storage = storage
        self.ask = ref(request)
        #: The shielded handlers that the session is a part of.
        self.within = HANDLERS.get()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    async def load_session(self, request: web.Request) -> Any:
        if self.session is None:
            loaded = await _load(self.storage, request)
            if self.session is None:  # nobody else was quicker
                self.keep(loaded)
        return self.session

    async def new_session(self) -> Any:
        self.keep(await self.storage.new_session())
        return self.session

    def keep(self, session: Any) -> None:
        self.session = session
        self.request = self.ask()

    async def come_back(self, *, prepared: bool) -> None:
        """The handler is at its end; was its answer ``prepared`` there?"""
        self.is_back = True
        request = self.request
        if request is not None and not prepared and not started(request):
            self.left = False  # what was prepared before is given up
        await self.save()
        if self.left:
            self.request = None

    def give_up(self) -> None:
        self.ask = _nobody
        self.request = None
        self.headers = CIMultiDict()

    def leave(
        self, status: int, headers: CIMultiDict[str]
    ) -> Awaitable[None] | None:
        """The headers of a response are about to leave."""
        if self.session is not None:
            return self.leave_with(headers)
        self.left = True
        return None

    async def leave_with(self, headers: CIMultiDict[str]) -> None:
        request = self.request or self.ask()
        if (self.is_back or self in _VISITS.get()) and not (
            request and is_answered_elsewhere(request, self.within)
        ):
            await self.save()
            headers.extend(self.headers)
        add_elements(headers, VARY, ("Cookie",))
        self.left = True
        if self.is_back:
            self.request = None

    async def save(self) -> None:
        request, session = self.request, self.session
        if request is None or session is None:
            return
        # There is no public way to ask a session whether it was changed;
        # aiohttp-session's own middleware does the same. Where it does not
        # tell, it is saved with each answer.
        changed = getattr(session, "_changed", None)
        if changed is None:
            if self.left:
                return
        elif changed:
            session._changed = False  # also for a save that fails
        else:
            return
        sent = _cookies(request, self.storage)
        if session.new and session.empty and not sent:
            return  # such as a logout of nobody
        # What a storage does to a response goes to whatever is sent.
        response = web.Response()
        await self.storage.save_session(request, response, session)
        if self.left:
            self.tell_lost(request, response, sent)
            return
        self.headers = response.headers.copy()
        for cookie in response.cookies.values():
            self.add_cookie(request, cookie)

    def tell_lost(
        self, request: web.Request, response: web.Response, sent: list[str]
    ) -> None:
        """A cookie that the client does not have yet cannot reach it."""
        cookie = response.cookies.get(self.storage.cookie_name)
        if cookie is None or cookie.value in [*sent, self.value]:
            return  # a storage on the server has it now
        facts = logs.facts(request)
        logger.warning(
            "%(method)s %(path)s changed its session after the headers "
            "had left: that is lost",
            facts,
            extra=facts,
        )

    def add_cookie(self, request: web.Request, cookie: "Morsel[str]") -> None:
        if cookie.key == self.storage.cookie_name:
            self.value = cookie.value
            if not cookie.value:
                # aiohttp-session deletes with domain and path only, and
                # browsers refuse that for what has to be Secure.
                for name in ("secure", "httponly", "samesite"):
                    cookie[name] = cookie[name] or (
                        self.storage.cookie_params.get(name) or ""
                    )
        line = cookie.OutputString()
        if len(line) <= MAX_COOKIE_SIZE:
            self.headers.add(hdrs.SET_COOKIE, line)
            return
        facts = logs.facts(request, size=len(line), limit=MAX_COOKIE_SIZE)
        logger.error(
            "The session of %(method)s %(path)s was not saved: its cookie has "
            "%(size)s bytes, and browsers drop those of more than %(limit)s. "
            "Keep less in it, or use a storage on the server",
            facts,
            extra=facts,
        )


def _nobody() -> None:
    return None


def _cookies(request: web.Request, storage: Storage) -> list[str]:
    """What of the request may be a session, as browsers write cookies."""
    return cookie_values(lines(request, hdrs.COOKIE), storage.cookie_name)


async def _load(storage: Storage, request: web.Request) -> Any:
    """Have a storage of aiohttp-session's read cookies as browsers mean them.

    It reads what aiohttp reads, which splits at more than semicolons, takes
    the last of several, stops at names that it does not like, and of several
    lines takes one.
    """
    sent = _cookies(request, storage)
    if isinstance(storage, CookieStorage) or (
        len(sent) < 2 and _aiohttps(request, storage) == sent
    ):
        return await storage.load_session(request)
    headers = CIMultiDict(
        (name.decode(), value.decode("utf-8", "surrogateescape"))
        for name, value in request.raw_headers
        if name.lower() != b"cookie"
    )
    try:
        for value in sent[:MOST_CANDIDATES]:
            headers[hdrs.COOKIE] = f"{storage.cookie_name}={value}"
            session = await storage.load_session(
                cloned(request, headers=headers)
            )
            if not session.new:
                return session
    except RuntimeError:
        pass  # its body has been read: there is no other way to ask
    return await storage.new_session()


def _aiohttps(request: web.Request, storage: Storage) -> list[str]:
    """The same as aiohttp reads it."""
    try:
        found = request.cookies.get(storage.cookie_name)
    except Exception:  # CookieError, before aiohttp 3.13
        return ["not to be read"]
    return [] if found is None else [found]
