"""Sessions in a cookie: the cookie, and the checks of its options."""

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from http.cookies import Morsel
from types import ModuleType
from typing import Any, Literal, TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.cookies import cookie_values
from aiohttp_middlewares._core.requests import lines

DEFAULT_COOKIE_NAME = "session"
DEFAULT_MAX_AGE = 14 * 24 * 60 * 60

Secret: TypeAlias = str | bytes | Sequence[str | bytes]
SameSite: TypeAlias = Literal["lax", "strict", "none"]

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.session")


class CookieStorage(ABC):
    """Keeps a session in the value of a cookie.

    It is one of aiohttp-session's storages; as a subclass it could not be
    defined without that package.
    """

    def __init__(
        self,
        what: str,
        *,
        cookie_name: str,
        max_age: int | None,
        path: str,
        domain: str | None,
        same_site: SameSite,
        https_only: bool | Literal["auto"],
        rolling: bool,
        partitioned: bool,
    ) -> None:
        aiohttp_session = aiohttp_session_for(what)
        check_cookie(
            what,
            cookie_name,
            max_age,
            path,
            domain,
            same_site,
            https_only,
            rolling,
            partitioned,
        )
        self._new_session = aiohttp_session.Session
        self._cookie_name = cookie_name
        self._secure = (
            https_only is True
            or same_site == "none"
            or partitioned
            or cookie_name.lower().startswith(_SECURE_NAMES)
        )
        self._auto = https_only == "auto"
        self._rolling = rolling
        self._partitioned = partitioned
        self._cookie_params: dict[str, Any] = {
            "domain": domain,
            "max_age": max_age,
            "path": path,
            "secure": self._secure,
            "httponly": True,
            "samesite": same_site.capitalize(),
        }
        aiohttp_session.AbstractStorage.register(type(self))

    @abstractmethod
    def _write(self, session: Any) -> str:
        """The value of the cookie for a session that is not empty."""

    @abstractmethod
    def _read(self, value: str) -> dict[str, Any] | None:
        """``created`` and ``session`` of a value; None if it is not good."""

    @property
    def secure(self) -> bool | Literal["auto"]:
        """Whether the cookie is; ``"auto"``: if the request came by HTTPS."""
        return self._secure or ("auto" if self._auto else False)

    def reads(self, other: "CookieStorage") -> bool:
        """Whether it can read what another one writes."""
        session = self._new_session(None, data=None, new=True)
        session["a"] = 1
        return self._read(other._write(session)) is not None

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
        sent = self._sent(request)
        for value in sent[:MOST_CANDIDATES]:
            if value[:1] == '"' == value[-1:]:
                value = value[1:-1]  # RFC 6265 4.1.1: clients may write it so
            data = self._read(value)
            if data is not None:
                session = self._new_session(
                    None, data=data, new=False, max_age=self.max_age
                )
                if self._is_half_over(session):
                    session.changed()
                return session
        if sent and logger.isEnabledFor(logging.DEBUG):
            facts = logs.facts(request)
            logger.debug(
                "The session cookie of %(method)s %(path)s is not good",
                facts,
                extra=facts,
            )
        return await self.new_session()

    def _sent(self, request: web.Request) -> list[str]:
        return cookie_values(lines(request, hdrs.COOKIE), self._cookie_name)

    def _is_half_over(self, session: Any) -> bool:
        if not self._rolling or self.max_age is None:
            return False
        age: float = time.time() - session.created
        return age > self.max_age / 2

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Any
    ) -> None:
        if not session.empty:
            value = self._write(session)
            max_age = session.max_age
        elif self._sent(request):
            value, max_age = "", 0
        else:
            return
        cookie: Morsel[str] = _Partitioned() if self._partitioned else Morsel()
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


class _Partitioned(Morsel[str]):
    """Bears an attribute that ``Morsel`` knows from Python 3.14 on."""

    def OutputString(self, attrs: Any = None) -> str:
        return f"{super().OutputString(attrs)}; Partitioned"


#: So many cookies of the name are tried: an attacker may send any number.
MOST_CANDIDATES = 16

# RFC 6265bis 4.1.3: browsers refuse these names without Secure, in any case.
_SECURE_NAMES = ("__secure-", "__host-", "__http-")
_HOST_NAMES = ("__host-",)
_SAME_SITE = ("lax", "strict", "none")
_PATH = re.compile(r"/[ -:<-~]*")
_DOMAIN = re.compile(r"\.?[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*")


def aiohttp_session_for(what: str) -> ModuleType:
    try:
        import aiohttp_session
    except ImportError as exc:
        raise missing(what, "aiohttp-session") from exc
    return aiohttp_session


def missing(what: str, package: str) -> ImportError:
    return ImportError(
        f'{what} needs {package}; pip install "aiohttp-middlewares[session]"'
    )


def checked_keys(what: str, secret: object) -> list[bytes]:
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
        if b"://" in (key.encode() if isinstance(key, str) else key):
            raise ValueError(
                f"{what} should be a key, got a URL; did you mean a storage, "
                "such as RedisStorage(Redis.from_url(...)) of aiohttp-session?"
            )
    return [key.encode() if isinstance(key, str) else key for key in keys]


def check_cookie(
    what: str,
    cookie_name: str,
    max_age: int | None,
    path: str,
    domain: str | None,
    same_site: str,
    https_only: bool | str,
    rolling: bool,
    partitioned: bool,
) -> None:
    options.flag(f"{what} rolling", rolling)
    options.flag(f"{what} partitioned", partitioned)
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
    if https_only is False and partitioned:
        raise ValueError(
            f"{what} partitioned takes https_only: browsers refuse such a "
            "cookie when it is not Secure"
        )
    if rolling and max_age is None:
        raise ValueError(f"{what} rolling takes max_age: nothing runs out")
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
