"""The host of a request: parsed by the grammar, never just compared.

aiohttp takes ``Host`` as it comes: ``a b``, ``evil@x`` and an empty one pass
its parser.
"""

import ipaddress
import re
from typing import NamedTuple

from yarl import URL

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

#: RFC 1035 2.3.4, without the dot at the end.
LONGEST_NAME = 253
#: A name with its dot, and a port.
LONGEST_AUTHORITY = LONGEST_NAME + len(".:65535")


class Authority(NamedTuple):
    """A host and its port, in the one spelling that can be compared."""

    #: In lower case, in punycode, without a trailing dot; IPv6 in brackets.
    host: str
    port: int | None = None

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


# RFC 3986 3.2.2 and 3.2.3. An empty port is allowed there, and never meant.
_AUTHORITY = re.compile(
    r"(?:\[(?P<literal>[^\[\]]+)\]|(?P<name>[^\[\]:]+))"
    r"(?::(?P<port>[0-9]+))?"
)
_FUTURE = re.compile(
    r"v[0-9a-f]+\.[a-z0-9._~!$&'()*+,;=:-]+", re.ASCII | re.IGNORECASE
)


def parse_authority(text: str) -> Authority | None:
    """Parse ``host`` or ``host:port``; ``None`` is for what is neither.

    As it comes over the wire, in ASCII. A name of another script there is in
    punycode: so it has one spelling, for all who compare it.
    """
    # The Kelvin sign would become a "k" in lower case.
    if len(text) > LONGEST_AUTHORITY or not text.isascii():
        return None
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    literal, name, digits = found.group("literal", "name", "port")
    port = None if digits is None else int(digits)
    if port is not None and port > 65535:
        return None
    host = _parse_name(name) if literal is None else _parse_literal(literal)
    return None if host is None else Authority(host, port)


def in_ascii(name: str) -> str | None:
    """A name as browsers send it: those of other scripts in punycode.

    ``None`` if that cannot be said. What it is made of, nobody has looked at.
    """
    if len(name) > LONGEST_AUTHORITY:  # the conversion is quadratic
        return None
    if name.isascii():
        return name.lower()
    try:
        return URL.build(scheme="https", host=name).raw_host
    except ValueError:
        return None


def is_readable(text: str) -> bool:
    """Whether ``request.url`` can tell the host of an authority, as it came.

    yarl fails at punycode that says nothing, and at the colons that the
    literals of future IP versions may have.
    """
    if len(text) > LONGEST_AUTHORITY:
        return False
    lower = text.lower()
    if "xn--" not in lower and not lower.startswith("[v"):
        return True
    try:
        return bool(URL.build(scheme="http", authority=text).host)
    except ValueError:  # UnicodeError is one
        return False


# Of what RFC 3986 lets be part of a name only the unreserved characters: no
# name in use has others, and quotes or commas in one are there to do harm.
_NAME = re.compile(r"[a-z0-9_~-]+(?:\.[a-z0-9_~-]+)*\.?")


def _parse_name(name: str) -> str | None:
    name = name.lower()
    if not _NAME.fullmatch(name):
        return None
    name = name.removesuffix(".")
    return name if len(name) <= LONGEST_NAME else None


def _parse_literal(literal: str) -> str | None:
    """What stands in brackets: an IPv6 address without a zone, mostly."""
    if "%" in literal:
        return None
    try:
        return f"[{ipaddress.IPv6Address(literal)}]"
    except ValueError:
        return f"[{literal.lower()}]" if _FUTURE.fullmatch(literal) else None
