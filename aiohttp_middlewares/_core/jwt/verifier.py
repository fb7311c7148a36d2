"""Whether a token is good: RFC 7519 7.2, RFC 8725."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import ClientSession
from yarl import URL

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.jwt.algorithms import (
    algorithms_for,
    needs_secret,
)
from aiohttp_middlewares._core.jwt.claims import Expected
from aiohttp_middlewares._core.jwt.compact import TokenRefused
from aiohttp_middlewares._core.jwt.keys import Keys, KeySource, given_keys
from aiohttp_middlewares._core.jwt.published import PublishedKeys
from aiohttp_middlewares._core.jwt.reader import Reader

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.jwt")


class Verified(NamedTuple):
    """What a good token holds."""

    header: Mapping[str, Any]
    claims: dict[str, Any]


class Verifier:
    """Tells whether a token is good.

    The options are those of ``jwt_verifier``.

    :param what: Whose options they are, for errors.
    :param extra: The extra that brings joserfc there.
    """

    def __init__(
        self,
        what: str,
        keys: object,
        *,
        algorithms: object,
        issuer: object,
        audience: object,
        leeway: object = 60,
        token_type: object = None,
        required_claims: object = ("exp",),
        session: object = None,
        clock: Callable[[], float] = time.time,
        extra: str = "jwt",
    ) -> None:
        known = algorithms_for(f"{what} algorithms", algorithms, what, extra)
        self._expected = Expected(
            what,
            issuer=issuer,
            audience=audience,
            leeway=leeway,
            required=required_claims,
        )
        if token_type is not None and not isinstance(token_type, str):
            options.refuse(
                TypeError, f"{what} token_type", "a string or None", token_type
            )
        if token_type == "":
            options.refuse(
                ValueError,
                f"{what} token_type",
                "a type such as 'at+jwt', or None",
                token_type,
            )
        self._reader = Reader(known, token_type)
        if session is not None and not isinstance(session, ClientSession):
            options.refuse(
                TypeError, f"{what} session", "a ClientSession", session
            )
        options.function(f"{what} clock", clock)
        self._clock = clock
        self._keys: KeySource
        if isinstance(keys, URL) or (
            isinstance(keys, str) and keys.startswith(("http://", "https://"))
        ):
            url = options.secure_url(f"{what} keys", keys)
            if needs_secret(known):
                raise ValueError(
                    f"{what} keys should be a secret for these algorithms: "
                    "none is published"
                )
            self._keys = PublishedKeys(url, known, session=session, clock=clock)
        else:
            found = given_keys(f"{what} keys", keys, known)
            self._keys = Keys(found, known)

    async def __call__(self, token: str) -> dict[str, Any] | None:
        """The claims of a good token; ``None`` for all others.

        :raises KeysUnavailable: it cannot be told, for now.
        """
        try:
            return (await self.verified(token)).claims
        except TokenRefused as exc:
            logger.debug("A token is not good: %s", exc)
            return None

    async def verified(self, token: str) -> Verified:
        """The same, with its header.

        :raises KeysUnavailable: it cannot be told, for now.
        :raises TokenRefused: it is not good; that says why, and no more.
        """
        reader = self._reader
        signed = reader.opened(token)
        name, kid = signed.header["alg"], signed.header.get("kid")
        keys = self._keys.find(name, kid) or await self._keys.fetch(name, kid)
        claims = reader.claims(signed, keys)
        self._expected.check(claims, self._clock())
        return Verified(signed.header, claims)
