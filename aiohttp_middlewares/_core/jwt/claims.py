"""What a token has to say: RFC 7519 4.1."""

from collections.abc import Mapping
from typing import Any

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.jwt.compact import TokenRefused


class Expected:
    """What the claims of a good token are.

    :param issuer: Who may have issued it; None for anybody.
    :param audience: For whom it may be meant; None for anybody.
    :param leeway: By how many seconds the clocks may differ.
    :param required: Names of claims that have to be there.
    """

    def __init__(
        self,
        what: str,
        *,
        issuer: object,
        audience: object,
        leeway: object,
        required: object,
    ) -> None:
        self.issuers = _names(f"{what} issuer", issuer)
        self.audiences = _names(f"{what} audience", audience)
        self.leeway = options.seconds(f"{what} leeway", leeway, zero=True)
        self.required = options.strings(f"{what} required_claims", required)

    def check(self, claims: Mapping[str, Any], now: float) -> None:
        """Raise :class:`TokenRefused` for claims that are not good."""
        for name in self.required:
            if claims.get(name) is None:
                raise TokenRefused("a required claim is missing")
        check_times(claims, now, self.leeway)
        if "iat" in claims and _time(claims["iat"]) > now + self.leeway:
            raise TokenRefused("it was issued in the future")
        if not isinstance(claims.get("sub", ""), str):
            raise TokenRefused("its subject is no string")
        # RFC 8725 3.8 and 3.9: none is as bad as a wrong one.
        if self.issuers is not None:
            issuer = claims.get("iss")
            if type(issuer) is not str or issuer not in self.issuers:
                raise TokenRefused("its issuer is another")
        if self.audiences is not None:
            audience = claims.get("aud")
            if type(audience) is str:
                audience = [audience]
            if (
                type(audience) is not list
                or not all(type(name) is str for name in audience)
                or self.audiences.isdisjoint(audience)
            ):
                raise TokenRefused("its audience is another")


def check_times(
    claims: Mapping[str, Any], now: float, leeway: float = 0
) -> None:
    """Raise :class:`TokenRefused` for a token that is too old or too new."""
    if "exp" in claims and _time(claims["exp"]) <= now - leeway:
        raise TokenRefused("it has expired")
    if "nbf" in claims and _time(claims["nbf"]) > now + leeway:
        raise TokenRefused("it is not good yet")


def _names(what: str, value: object) -> frozenset[str] | None:
    """One or several strings, which compare as they are."""
    if value is None:
        return None
    names = options.strings(what, [value] if isinstance(value, str) else value)
    if not names:
        options.refuse(
            ValueError, what, "a string, some of them, or None for any", value
        )
    return frozenset(names)


def _time(value: object) -> float:
    # A JSON number (RFC 7519 2).
    if type(value) is int or type(value) is float:
        return value
    raise TokenRefused("one of its times is none")
