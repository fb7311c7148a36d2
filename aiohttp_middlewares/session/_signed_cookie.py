"""Sessions in a cookie that is signed, as Starlette has them."""

import json
import logging
import re
from base64 import b64decode, b64encode
from typing import Any, Literal

from aiohttp_middlewares._core import logs
from aiohttp_middlewares.session._cookie import (
    DEFAULT_COOKIE_NAME,
    DEFAULT_MAX_AGE,
    CookieStorage,
    SameSite,
    Secret,
    checked_keys,
    missing,
)

#: Shorter keys can be guessed.
_SHORT_KEY = 16
#: In base64url: itsdangerous reads it even where the signature is wrong.
_TIME = re.compile(r"[A-Za-z0-9_-]+")
#: 20 bytes in base64url. It has several spellings of the same bytes, which
#: differ in what the last character has too much: ours is one.
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{26}[AEIMQUYcgkosw048]")

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.session")


class SignedCookieStorage(CookieStorage):
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
        try:
            import itsdangerous
        except ImportError as exc:
            raise missing(what, "itsdangerous") from exc

        keys = checked_keys(f"{what} secret", secret)
        if any(len(key) < _SHORT_KEY for key in keys):
            logger.warning(
                "A key for sessions of less than %s bytes can be guessed: "
                "take one of secrets.token_urlsafe()",
                _SHORT_KEY,
            )
        self._signer = itsdangerous.TimestampSigner(keys[::-1])  # last signs
        # Some clocks know no time that far away.
        unknown_time = (OSError, OverflowError)
        self._bad = (
            itsdangerous.BadData,
            ValueError,
            RecursionError,
            *unknown_time,
        )

    def _write(self, session: Any) -> str:
        data = b64encode(json.dumps(dict(session)).encode())
        return self._signer.sign(data).decode()

    def _read(self, value: str) -> dict[str, Any] | None:
        try:
            _, time, signature = value.rsplit(".", 2)
            if not (_TIME.fullmatch(time) and _SIGNATURE.fullmatch(signature)):
                return None
            payload, signed = self._signer.unsign(
                value.encode(), max_age=self.max_age, return_timestamp=True
            )
            session = json.loads(b64decode(payload, validate=True))
        except self._bad:
            return None
        # What else this key has signed is no session.
        if not isinstance(session, dict):
            return None
        return {"created": int(signed.timestamp()), "session": session}
