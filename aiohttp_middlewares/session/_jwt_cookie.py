"""Sessions in a cookie that is a JSON Web Token, as Authlib has them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.jwt.algorithms import algorithms_for
from aiohttp_middlewares._core.jwt.claims import check_times
from aiohttp_middlewares._core.jwt.compact import TokenRefused, write
from aiohttp_middlewares._core.jwt.keys import Keys, given_keys
from aiohttp_middlewares._core.jwt.reader import Reader
from aiohttp_middlewares.session._cookie import (
    DEFAULT_COOKIE_NAME,
    DEFAULT_MAX_AGE,
    CookieStorage,
    SameSite,
)

OneKey: TypeAlias = str | bytes | Mapping[str, Any]

#: What the token says of itself, and no session does.
_OWN = frozenset({"exp", "iat", "nbf"})


class JWTCookieStorage(CookieStorage):
    """Keeps the session in a cookie, readable and signed, as a JWT.

    The cookie is that of starlette-authlib: the items of the session are the
    claims. It expires ``max_age`` after the last change, or 14 days where that
    is ``None``. ``exp``, ``iat`` and ``nbf`` are the token's own: they are not
    seen in the session, and what is put there under these names is not kept.

    Use the key for nothing else: whatever token it has signed is a session.

    :param key:
        A secret, or a private key as a PEM or a JWK. Or a list of them, of
        which the first signs and all are good; public keys do for the others.
    :param algorithm:
        The one algorithm to sign with. By default: ``"HS256"``.

    The other options, and what they raise, are those of
    :func:`session_middleware`. ImportError names joserfc, where that is not
    installed: ``pip install "aiohttp-middlewares[session,jwt]"``.
    """

    def __init__(
        self,
        key: OneKey | Sequence[OneKey],
        *,
        algorithm: str = "HS256",
        cookie_name: str = DEFAULT_COOKIE_NAME,
        max_age: int | None = DEFAULT_MAX_AGE,
        path: str = "/",
        domain: str | None = None,
        same_site: SameSite = "lax",
        https_only: bool | Literal["auto"] = "auto",
        rolling: bool = False,
        partitioned: bool = False,
    ) -> None:
        what = "JWTCookieStorage"
        super().__init__(
            what,
            cookie_name=cookie_name,
            max_age=max_age,
            path=path,
            domain=domain,
            same_site=same_site,
            https_only=https_only,
            rolling=rolling,
            partitioned=partitioned,
        )
        if not isinstance(algorithm, str):
            options.refuse(
                TypeError, f"{what} algorithm", "a string", algorithm
            )
        known = algorithms_for(f"{what} algorithm", [algorithm], what, "jwt")
        given = [key] if isinstance(key, str | bytes | Mapping) else key
        # None of the errors shows what may be a key.
        if not isinstance(given, Sequence):
            raise TypeError(
                f"{what} key should be a key, or a list of them, got a "
                f"{type(key).__name__}"
            )
        if not given:
            raise ValueError(f"{what} key should be at least one key, got none")
        keys = [
            found
            for item in given
            for found in given_keys(f"{what} key", item, known)
        ]
        self._key = keys[0]
        self._keys = Keys(keys, known)
        self._algorithm = known[algorithm]
        try:
            self._sign(b"")
        except Exception:  # what a key is not for has many names
            raise ValueError(
                f"{what} key should be a private key, to sign with; those "
                "behind the first may be public"
            ) from None
        self._reader = Reader(known)
        self._lifetime = DEFAULT_MAX_AGE if max_age is None else max_age

    def _write(self, session: Any) -> str:
        claims = {
            name: value for name, value in session.items() if name not in _OWN
        }
        lifetime = session.max_age
        if lifetime is None:
            lifetime = self._lifetime
        claims["exp"] = int(time.time()) + lifetime
        header = {"alg": self._algorithm.name, "typ": "JWT"}
        return write(header, claims, self._sign)

    def _sign(self, message: bytes) -> bytes:
        return self._algorithm.sign(message, self._key)

    def _read(self, value: str) -> dict[str, Any] | None:
        try:
            signed = self._reader.opened(value)
            name, kid = signed.header["alg"], signed.header.get("kid")
            claims = self._reader.claims(signed, self._keys.find(name, kid))
            expires = claims.setdefault("exp", 0)  # without it it is over
            now = int(time.time())
            check_times(claims, now)
        except TokenRefused:
            return None
        session = {
            name: value for name, value in claims.items() if name not in _OWN
        }
        lifetime = self._lifetime
        created = min(int(expires), now + lifetime) - lifetime
        return {"created": created, "session": session}
