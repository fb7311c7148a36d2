"""A sign-in that is under way, and where it leads in the end."""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

#: Seconds. Whoever takes longer begins anew.
OLD = 3600
#: Where visitors come back to: so many characters of it are kept, as several
#: have to fit into a cookie.
LONGEST_TARGET = 700


class Attempt(NamedTuple):
    """What has to be known when the visitor comes back from the provider."""

    state: str  #: RFC 6749 10.12: that it is the same browser
    verifier: str  #: RFC 7636 4.1
    nonce: str  #: OpenID Connect Core 3.1.2.1
    at: int  #: when it began
    target: str  #: where to go when it is done

    @classmethod
    def begin(cls, target: str, now: float) -> "Attempt":
        return cls(
            secrets.token_urlsafe(16),
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(16),
            int(now),
            target,
        )

    @classmethod
    def restored(cls, kept: Any) -> "Attempt | None":
        """From what a session holds, whoever has put it there."""
        if not isinstance(kept, Sequence) or len(kept) != 5:
            return None
        state, verifier, nonce, at, target = kept
        if type(at) is not int or not all(
            type(text) is str and text.isascii()
            for text in (state, verifier, nonce, target)
        ):
            return None
        return cls(state, verifier, nonce, at, local_target(target))

    @property
    def challenge(self) -> str:
        """RFC 7636 4.2, S256."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

    def has_state(self, state: str) -> bool:
        return same(self.state, state)

    def is_old(self, now: float) -> bool:
        return now - self.at > OLD


def same(ours: str, theirs: str) -> bool:
    """In a time that tells nothing of either."""
    return hmac.compare_digest(
        ours.encode(), theirs.encode("utf-8", "surrogatepass")
    )


def local_target(target: str) -> str:
    """Where to send a visitor: a path of ours with its query, or ``/``.

    For browsers ``//host`` is another host, so is ``/\\host``, and they drop
    tabs and line breaks first (WHATWG URL 4.4).
    """
    if not _LOCAL.fullmatch(target):
        return "/"
    if len(target) > LONGEST_TARGET:
        target = target.partition("?")[0]
    return target if len(target) <= LONGEST_TARGET else "/"


# Visible ASCII, and no backslash before the query.
_LOCAL = re.compile(r"/(?!/)[!->@-\[\]-~]*(?:\?[!-~]*)?")
