"""The text of a token: RFC 7515 3.1, the compact serialization.

joserfc's own reader fails in its own ways for headers that are no objects,
warns at each use of ``EdDSA``, and costs more than an HMAC does.
"""

import binascii
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

#: More characters than any token has that is sent in a header.
LONGEST_TOKEN = 65536
#: What is read before the signature is checked.
LONGEST_HEADER = 8192


class TokenRefused(Exception):
    """Why a token is not good; it never shows any of it."""


class Signed(NamedTuple):
    """A token of which nobody knows yet whether it is good."""

    header: dict[str, Any]
    payload: bytes
    #: What was signed.
    message: bytes
    signature: bytes


_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")


def read(token: str) -> Signed:
    """Take a token apart.

    :raises TokenRefused: it is none.
    """
    if len(token) > LONGEST_TOKEN:
        raise TokenRefused("it is too long")
    parts = _COMPACT.fullmatch(token)
    if parts is None or parts.end(1) > LONGEST_HEADER:
        raise TokenRefused("it is no signed token")
    header, payload, signature = parts.groups()
    return Signed(
        read_object(_decode(header)),
        _decode(payload),
        token[: parts.end(2)].encode(),
        _decode(signature),
    )


def write(
    header: dict[str, Any],
    claims: dict[str, Any],
    sign: Callable[[bytes], bytes],
) -> str:
    """A signed token.

    :raises TypeError: the claims cannot be written as JSON.
    :raises ValueError: as above.
    """
    message = b".".join(_encode(_as_json(part)) for part in (header, claims))
    return b".".join((message, _encode(sign(message)))).decode()


def read_object(text: bytes) -> dict[str, Any]:
    """A JSON object. Of names that come twice the last counts: RFC 7519 4.

    :raises TokenRefused: it is none.
    """
    try:
        value = read_json(text)
    except ValueError:
        raise TokenRefused("it is not made of JSON") from None
    if type(value) is not dict:
        raise TokenRefused("it is not made of JSON objects")
    return value


def read_json(text: bytes) -> Any:
    """What a JSON text says, if it can be written as one again.

    :raises ValueError: it is none, or too deep, or has a number too large.
    """
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        raise ValueError from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are no JSON, but Python takes them


def _finite(number: str) -> float:
    # RFC 8259 6: 1e999 is a number, and no float.
    value = float(number)
    if math.isinf(value):
        raise ValueError
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _as_json(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _encode(value: bytes) -> bytes:
    return urlsafe_b64encode(value).rstrip(b"=")


#: By the length of the last group, how it may end: a token that was accepted
#: has no other spelling.
_ENDS = ("", None, "AQgw", "AEIMQUYcgkosw048")


def _decode(part: str) -> bytes:
    ends = _ENDS[len(part) % 4]
    if ends is None or (ends and part[-1] not in ends):
        raise TokenRefused("it is not made of base64url")
    try:
        return urlsafe_b64decode(part + "==")
    except binascii.Error:
        raise TokenRefused("it is not made of base64url") from None
