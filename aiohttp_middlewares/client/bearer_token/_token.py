"""A token, and why there is none."""

import math
import re
from dataclasses import dataclass, field

import aiohttp

from aiohttp_middlewares._core import options

#: What may stand in a header field (RFC 9110 5.5) and is no space.
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Token:
    """An access token.

    :param value: The token itself.
    :param expires_at: When it expires, in seconds since the epoch; None when
        that is not known.
    :param refresh_token: What a new one is fetched with, where it changes
        with each; it is for those who keep tokens (``on_token``).
    :raises TypeError: For a value of another type.
    :raises ValueError: For a token that fits into no header.

    The secrets are not part of the representation.
    """

    value: str = field(repr=False)
    expires_at: float | None = None
    refresh_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # No value is shown here: they are secrets.
        if not isinstance(self.value, str):
            raise TypeError("Token value should be a string")
        if not _VISIBLE.fullmatch(self.value):
            raise ValueError("Token value should be visible ASCII characters")
        if self.expires_at is not None:
            what, should = "Token expires_at", "seconds since the epoch"
            if isinstance(self.expires_at, bool) or not isinstance(
                self.expires_at, int | float
            ):
                raise TypeError(f"{what} should be {should}")
            if not math.isfinite(self.expires_at):
                options.refuse(ValueError, what, should, self.expires_at)
        if not isinstance(self.refresh_token, str | None):
            raise TypeError("Token refresh_token should be a string")


class TokenRefreshError(aiohttp.ClientError):
    """There is no token to be had.

    ``error`` is the code of the token endpoint (RFC 6749 5.2), such as
    ``"invalid_grant"``, and ``status`` its status; both are None when it did
    not come to that. ``retry_after`` is for how many seconds at least that
    will go on, as far as it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error = error
        self.status = status
        self.retry_after = retry_after


#: RFC 6749 5.2: what is wrong with the request or with what it bears. The
#: same request gets the same answer, whatever the status says.
_FINAL_CODES = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
#: RFC 6749 4.1.2.1 and RFC 8628 3.5, which token endpoints use as well.
_PASSING_CODES = frozenset(
    {"server_error", "slow_down", "temporarily_unavailable"}
)


def is_passing(failure: TokenRefreshError) -> bool:
    """Whether the same request may well succeed in a moment."""
    if failure.error in _FINAL_CODES:
        return False
    if failure.error in _PASSING_CODES:
        return True
    if failure.status is not None:
        return failure.status in (408, 429) or failure.status >= 500
    cause = failure.__cause__
    # A certificate that is not trusted, or the fingerprint of another, stays.
    return isinstance(
        cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError
    ) and not isinstance(
        cause, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch
    )


def is_final(failure: TokenRefreshError) -> bool:
    """Whether the endpoint has said that it will never be any different."""
    return failure.error is not None and not is_passing(failure)
