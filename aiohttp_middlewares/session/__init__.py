"""
==================
Session middleware
==================

Remembers who a visitor is from one request to the next, for applications that
use `aiohttp-session <https://aiohttp-session.readthedocs.io>`_ or come from
Starlette.

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

It takes ``pip install "aiohttp-middlewares[session]"``. The way to the session
is aiohttp-session's: ``get_session``, ``new_session``, ``session.changed()``
after a change inside of a value, ``session.invalidate()``.

With a key the session is kept in a cookie that the visitor can read and cannot
change: :class:`SignedCookieStorage`. Starlette's ``SessionMiddleware`` with the
same key and cookie name reads and writes the same cookie. Of several keys the
first signs and all are good, so that a key can be replaced without logging
anybody out:

.. code-block:: python

    from aiohttp_middlewares import session_middleware

    session_middleware(["the new key", "the old key"])

Any storage of aiohttp-session goes in the same place, and then has the options
of the cookie itself:

.. code-block:: python

    import redis.asyncio as redis
    from aiohttp_middlewares import session_middleware
    from aiohttp_session.redis_storage import RedisStorage

    storage = RedisStorage(redis.Redis(), max_age=86400, samesite="Lax")
    session_middleware(storage)

What it does besides
====================

The session is saved when the handler returns or raises a ``web.HTTPException``,
so that a login may end in ``raise web.HTTPFound("/")``, and for streams and
WebSockets when their headers leave. After any other exception nothing is
saved. ``Set-Cookie`` is sent only when the session was changed, and ``Vary:
Cookie`` whenever it was asked for. A cookie is deleted with the attributes that
it was set with, also for storages that forget these.

A storage that fails to load makes ``get_session`` raise; one that fails to save
makes the request fail: both end in a 500, so that nobody takes a login for done
that nobody will remember.

A cookie of more than 4096 bytes, which browsers drop, is not sent, and the log
says so as an ``ERROR``.

Order
=====

Inside of :mod:`aiohttp_middlewares.error`, :mod:`aiohttp_middlewares.timeout`
and :mod:`aiohttp_middlewares.shield`, outside of all that asks for the session.
What says that a request came by HTTPS (:mod:`aiohttp_middlewares.https`) stands
outside of it, or cookies lack ``Secure``.

Limits
======

What is in a signed cookie cannot be taken back: a copy of it is good until it
is ``max_age`` old, also after a logout. The age counts from the last change.
Of two requests at the same time that change the session the later answer wins.
A change after the headers of a stream have left is lost, and logged.
"""

import json
import logging
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from http.cookies import Morsel
from types import ModuleType
from typing import Any, Protocol, TypeAlias
from warnings import catch_warnings, simplefilter

from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import VARY, add_elements
from aiohttp_middlewares._core.sending import on_last_call
from aiohttp_middlewares.annotations import Handler, Middleware

DEFAULT_COOKIE_NAME = "session"
DEFAULT_MAX_AGE = 14 * 24 * 60 * 60
#: What browsers take; RFC 6265 6.1 asks for no less.
MAX_COOKIE_SIZE = 4096

Secret: TypeAlias = str | bytes | Sequence[str | bytes]

logger = logging.getLogger(__name__)


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
    same_site: str = "lax",
    https_only: bool | str = "auto",
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
        ``same_site="none"`` and names such as ``__Host-session``. By default:
        ``"auto"``.
    :raises ImportError: aiohttp-session or itsdangerous is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option, or two together, can never work.
    """
    what = "session_middleware"
    aiohttp_session = _aiohttp_session(what)
    SESSION = aiohttp_session.SESSION_KEY
    STORAGE = aiohttp_session.STORAGE_KEY
    storage: Storage
    if isinstance(secret_or_storage, aiohttp_session.AbstractStorage):
        storage = secret_or_storage
        for option, value, default in (
            ("cookie_name", cookie_name, DEFAULT_COOKIE_NAME),
            ("max_age", max_age, DEFAULT_MAX_AGE),
            ("path", path, "/"),
            ("domain", domain, None),
            ("same_site", same_site, "lax"),
            ("https_only", https_only, "auto"),
        ):
            if value != default:
                raise ValueError(
                    f"{what} {option} goes with a key: a storage has options "
                    "of its own for the cookie"
                )
    else:
        keys = _keys(f"{what} secret_or_storage", secret_or_storage)
        _check_cookie(
            what, cookie_name, max_age, path, domain, same_site, https_only
        )
        storage = SignedCookieStorage(
            keys,
            cookie_name=cookie_name,
            max_age=max_age,
            path=path,
            domain=domain,
            same_site=same_site,
            https_only=https_only,
        )
    known_to_aiohttp = False

    @web.middleware
    async def session(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        nonlocal known_to_aiohttp
        visit = _Visit(storage)
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
        on_last_call(request, partial(visit.leave, request))
        try:
            response = await handler(request)
        except web.HTTPException:
            await visit.save(request)
            raise
        except BaseException:
            visit.give_up()
            raise
        await visit.save(request)
        return response

    return session


class SignedCookieStorage:
    """Keeps the session in a cookie, readable and signed.

    The cookie is that of Starlette's ``SessionMiddleware``: the session as
    JSON in base64, with the time and an HMAC-SHA1 by itsdangerous. A cookie
    that is not good, too old, or signed with another key, is a new session.

    It can be given to aiohttp-session's own middleware, too. The options, and
    what they raise, are those of :func:`session_middleware`.
    """

    def __init__(
        self,
        secret: Secret,
        *,
        cookie_name: str = DEFAULT_COOKIE_NAME,
        max_age: int | None = DEFAULT_MAX_AGE,
        path: str = "/",
        domain: str | None = None,
        same_site: str = "lax",
        https_only: bool | str = "auto",
    ) -> None:
        what = "SignedCookieStorage"
        aiohttp_session = _aiohttp_session(what)
        try:
            import itsdangerous
        except ImportError as exc:
            raise _missing(what, "itsdangerous") from exc

        keys = _keys(f"{what} secret", secret)
        _check_cookie(
            what, cookie_name, max_age, path, domain, same_site, https_only
        )
        self._new_session = aiohttp_session.Session
        self._signer = itsdangerous.TimestampSigner(keys[::-1])  # last signs
        self._base64_decode = itsdangerous.base64_decode
        self._base64_encode = itsdangerous.base64_encode
        self._bad = (itsdangerous.BadData, ValueError, RecursionError)
        self._cookie_name = cookie_name
        self._secure = (
            https_only is True
            or same_site == "none"
            or cookie_name.lower().startswith(_SECURE_NAMES)
        )
        self._auto = https_only == "auto"
        self._cookie_params: dict[str, Any] = {
            "domain": domain,
            "max_age": max_age,
            "path": path,
            "secure": self._secure,
            "httponly": True,
            "samesite": same_site.capitalize(),
        }
        # As a subclass it could not be defined without aiohttp-session.
        aiohttp_session.AbstractStorage.register(type(self))

    @property
    def cookie_name(self) -> str:
        return self._cookie_name

    @property
    def max_age(self) -> int | None:
        max_age: int | None = self._cookie_params["max_age"]
        return max_age

    @property
    def cookie_params(self) -> dict[str, Any]:
        """The attributes of the cookie, as ``set_cookie`` takes them."""
        return self._cookie_params

    async def new_session(self) -> Any:
        return self._new_session(
            None, data=None, new=True, max_age=self.max_age
        )

    async def load_session(self, request: web.Request) -> Any:
        cookie = request.cookies.get(self._cookie_name)
        if cookie is None:
            return await self.new_session()
        data = self._read(cookie)
        if data is None:
            if logger.isEnabledFor(logging.DEBUG):
                facts = logs.facts(request)
                logger.debug(
                    "The session cookie of %(method)s %(path)s is not good",
                    facts,
                    extra=facts,
                )
            return await self.new_session()
        return self._new_session(
            None, data=data, new=False, max_age=self.max_age
        )

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Any
    ) -> None:
        if not session.empty:
            data = b64encode(json.dumps(dict(session)).encode())
            value = self._signer.sign(data).decode()
            max_age = session.max_age
        elif self._cookie_name in request.cookies:
            value, max_age = "", 0
        else:
            return
        cookie: Morsel[str] = Morsel()
        # As it is: set_cookie() would put the value in quotation marks.
        cookie.set(self._cookie_name, value, value)
        cookie["httponly"] = True
        cookie["path"] = self._cookie_params["path"]
        cookie["samesite"] = self._cookie_params["samesite"]
        if self._secure or (self._auto and request.secure):
            cookie["secure"] = True
        if self._cookie_params["domain"] is not None:
            cookie["domain"] = self._cookie_params["domain"]
        if max_age is not None:
            cookie["max-age"] = str(max_age)
        if not value:
            cookie["expires"] = "Thu, 01 Jan 1970 00:00:00 GMT"
        response.cookies[self._cookie_name] = cookie

    def _read(self, cookie: str) -> dict[str, Any] | None:
        try:
            signature = cookie.rpartition(".")[2]
            # base64 has several spellings of the same bytes; ours is one.
            bytes_of_it = self._base64_decode(signature)
            if self._base64_encode(bytes_of_it) != signature.encode():
                return None
            payload, signed = self._signer.unsign(
                cookie.encode(), max_age=self.max_age, return_timestamp=True
            )
            session = json.loads(b64decode(payload, validate=True))
        except self._bad:
            return None
        # What else this key has signed is no session.
        if not isinstance(session, dict):
            return None
        return {"created": int(signed.timestamp()), "session": session}


# RFC 6265bis 4.1.3: browsers refuse these names without Secure, in any case.
_SECURE_NAMES = ("__secure-", "__host-", "__http-")
_HOST_NAMES = ("__host-",)
_SAME_SITE = ("lax", "strict", "none")
_PATH = re.compile(r"/[ -:<-~]*")
_DOMAIN = re.compile(r"\.?[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*")


def _aiohttp_session(what: str) -> ModuleType:
    try:
        import aiohttp_session
    except ImportError as exc:
        raise _missing(what, "aiohttp-session") from exc
    return aiohttp_session


def _missing(what: str, package: str) -> ImportError:
    return ImportError(
        f'{what} needs {package}; pip install "aiohttp-middlewares[session]"'
    )


def _keys(what: str, secret: object) -> list[bytes]:
    """A list of keys. None of the errors shows what may be a key."""
    keys = [secret] if isinstance(secret, str | bytes) else secret
    if not isinstance(keys, Sequence):
        raise TypeError(
            f"{what} should be a key (str or bytes), a list of keys, or a "
            f"storage of aiohttp-session, got a {type(secret).__name__}"
        )
    if not keys:
        raise ValueError(f"{what} should be at least one key, got none")
    for key in keys:
        if not isinstance(key, str | bytes):
            raise TypeError(
                f"{what} should be keys (str or bytes), got a "
                f"{type(key).__name__}"
            )
        if not key.strip():
            raise ValueError(f"{what} should be a key, got an empty one")
    return [key.encode() if isinstance(key, str) else key for key in keys]


def _check_cookie(
    what: str,
    cookie_name: str,
    max_age: int | None,
    path: str,
    domain: str | None,
    same_site: str,
    https_only: bool | str,
) -> None:
    if not isinstance(cookie_name, str):
        options.refuse(
            TypeError,
            f"{what} cookie_name",
            "the name of a cookie",
            cookie_name,
        )
    if not options.TOKEN.fullmatch(cookie_name):
        options.refuse(
            ValueError,
            f"{what} cookie_name",
            "the name of a cookie",
            cookie_name,
        )
    if max_age is not None:
        options.integer(f"{what} max_age", max_age, minimum=1)
    for option, value, should, pattern in (
        ("path", path, "a path that starts with '/'", _PATH),
        ("domain", "a" if domain is None else domain, "a domain", _DOMAIN),
    ):
        if not isinstance(value, str):
            options.refuse(TypeError, f"{what} {option}", should, value)
        if not pattern.fullmatch(value):
            options.refuse(ValueError, f"{what} {option}", should, value)
    if same_site not in _SAME_SITE:
        meant = str(same_site).lower()
        options.refuse(
            ValueError if isinstance(same_site, str) else TypeError,
            f"{what} same_site",
            "'lax', 'strict' or 'none'",
            same_site,
            meant=repr(meant) if meant in _SAME_SITE else None,
        )
    if not isinstance(https_only, bool) and https_only != "auto":
        options.refuse(
            ValueError if isinstance(https_only, str) else TypeError,
            f"{what} https_only",
            "True, False or 'auto'",
            https_only,
        )

    name = cookie_name.lower()
    if https_only is False and same_site == "none":
        raise ValueError(
            f"{what} same_site='none' takes https_only: browsers refuse such "
            "a cookie when it is not Secure"
        )
    if https_only is False and name.startswith(_SECURE_NAMES):
        raise ValueError(
            f"{what} cookie_name {cookie_name!r} takes https_only: browsers "
            "refuse such a cookie when it is not Secure"
        )
    if name.startswith(_HOST_NAMES) and (path != "/" or domain is not None):
        raise ValueError(
            f"{what} cookie_name {cookie_name!r} takes path='/' and no "
            "domain: browsers refuse such a cookie otherwise"
        )


class _Visit:
    """Stands in for the storage in one request, and knows its session.

    aiohttp-session keeps the session in the request that it was asked with,
    which may be a clone. This one goes with all clones. It does not refer to
    the request, which refers to it.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.session: Any = None
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.given_up = False
        self.left = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    async def load_session(self, request: web.Request) -> Any:
        if self.session is None:
            loaded = await self.storage.load_session(request)
            if self.session is None:  # nobody else was quicker
                self.session = loaded
        return self.session

    async def new_session(self) -> Any:
        self.session = await self.storage.new_session()
        return self.session

    async def save(self, request: web.Request) -> None:
        # There is no public way to ask a session whether it was changed;
        # aiohttp-session's own middleware does the same.
        if self.session is None or not self.session._changed:
            return
        self.session._changed = False  # also for a save that fails
        if self.left:
            facts = logs.facts(request)
            logger.warning(
                "%(method)s %(path)s changed its session after the headers "
                "had left: that is lost",
                facts,
                extra=facts,
            )
            return
        # What a storage does to a response goes to whatever is sent.
        response = web.Response()
        await self.storage.save_session(request, response, self.session)
        self.headers = response.headers.copy()
        for cookie in response.cookies.values():
            self.add_cookie(request, cookie)

    def add_cookie(self, request: web.Request, cookie: "Morsel[str]") -> None:
        if cookie.key == self.storage.cookie_name and not cookie.value:
            # aiohttp-session deletes with domain and path only, and browsers
            # refuse that for what has to be Secure.
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

    def give_up(self) -> None:
        self.given_up = True

    async def leave(
        self, request: web.Request, status: int, headers: CIMultiDict[str]
    ) -> None:
        """The last call."""
        if self.session is None:
            return
        add_elements(headers, VARY, ("Cookie",))
        if not self.given_up:
            await self.save(request)
            headers.extend(self.headers)
        self.left = True
