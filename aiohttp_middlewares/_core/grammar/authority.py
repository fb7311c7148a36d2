"""The host of a request: parsed by the grammar, never just compared.

aiohttp takes ``Host`` as it comes: ``a b``, ``evil@x`` and an empty one pass
its parser.
"""

import ipaddress
import re
from typing import NamedTuple

from yarl import URL

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


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
    r"(?::0*(?P<port>[0-9]{1,5}))?"
)
_FUTURE = re.compile(r"v[0-9a-f]+\.[a-z0-9._~!$&'()*+,;=:-]+", re.IGNORECASE)


def parse_authority(text: str) -> Authority | None:
    """Parse ``host`` or ``host:port``; ``None`` is for what is neither."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    literal, name, digits = found.group("literal", "name", "port")
    port = None if digits is None else int(digits)
    if port is not None and port > 65535:
        return None
    host = parse_name(name) if literal is None else _parse_literal(literal)
    return None if host is None else Authority(host, port)


# Of what RFC 3986 lets be part of a name only the unreserved characters: no
# name in use has others, and quotes or commas in one are there to do harm.
_NAME = re.compile(r"[a-z0-9_~-]+(?:\.[a-z0-9_~-]+)*\.?")


def parse_name(name: str) -> str | None:
    """A name in punycode and lower case; ``None`` if it is not one."""
    if not name.isascii():
        try:
            name = URL.build(scheme="https", host=name).raw_host or ""
        except ValueError:
            return None
    # Looked at after the conversion: it makes a "/" of some other letters.
    name = name.lower()
    return name.removesuffix(".") if _NAME.fullmatch(name) else None


def _parse_literal(literal: str) -> str | None:
    """What stands in brackets: an IPv6 address without a zone, mostly."""
    if "%" in literal:
        return None
    try:
        return f"[{ipaddress.IPv6Address(literal)}]"
    except ValueError:
        return f"[{literal.lower()}]" if _FUTURE.fullmatch(literal) else None
