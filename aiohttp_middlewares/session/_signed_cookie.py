"""Sessions in a cookie that is signed, as Starlette has them."""

import json
import logging
import re
import time
from base64 import b64decode, b64encode
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

logger: logging.Logger = logging.getLogger("aiohttp_middlewares.session")


class SignedCookieStorage:
    """Keeps the session in a cookie, readable and signed.

    The cookie is that of Starlette's ``SessionMiddleware``: the session as
    JSON in base64, with the time and an HMAC-SHA1 by itsdangerous. A cookie
    that is not good, too old, or signed with another key, is a new session; of
    several with its name, as a sibling host or another path may set them, the
    first that is good counts.

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
        same_site: SameSite = "lax",
        https_only: bool | Literal["auto"] = "auto",
        rolling: bool = False,
        partitioned: bool = False,
    ) -> None:
        what = "SignedCookieStorage"
        aiohttp_session = aiohttp_session_for(what)
        try:
            import itsdangerous
        except ImportError as exc:
            raise _missing(what, "itsdangerous") from exc

        keys = checked_keys(f"{what} secret", secret)
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
        if any(len(key) < _SHORT_KEY for key in keys):
            logger.warning(
                "A key for sessions of less than %s bytes can be guessed: "
                "take one of secrets.token_urlsafe()",
                _SHORT_KEY,
            )
        self._new_session = aiohttp_session.Session
        self._signer = itsdangerous.TimestampSigner(keys[::-1])  # last signs
        self._base64_decode = itsdangerous.base64_decode
        self._base64_encode = itsdangerous.base64_encode
        # Some clocks know no time that far away.
        unknown_time = (OSError, OverflowError)
        self._bad = (
            itsdangerous.BadData,
            ValueError,
            RecursionError,
            *unknown_time,
        )
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
        sent = self._sent(request)
        for value in sent[:MOST_CANDIDATES]:
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
            data = b64encode(json.dumps(dict(session)).encode())
            value = self._signer.sign(data).decode()
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

    def _read(self, cookie: str) -> dict[str, Any] | None:
        if cookie[:1] == '"' == cookie[-1:]:
            cookie = cookie[1:-1]  # RFC 6265 4.1.1: clients may write it so
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


class _Partitioned(Morsel[str]):
    """Bears an attribute that ``Morsel`` knows from Python 3.14 on."""

    def OutputString(self, attrs: Any = None) -> str:
        return f"{super().OutputString(attrs)}; Partitioned"


#: So many cookies of the name are tried: an attacker may send any number.
MOST_CANDIDATES = 16
#: Shorter keys can be guessed.
_SHORT_KEY = 16

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
        raise _missing(what, "aiohttp-session") from exc
    return aiohttp_session


def _missing(what: str, package: str) -> ImportError:
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
