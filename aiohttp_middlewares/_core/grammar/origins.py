"""Origins, RFC 6454: as an option names them, and as browsers send them."""

import re
from typing import NamedTuple

from aiohttp_middlewares._core.grammar.authority import (
    DEFAULT_PORTS,
    LONGEST_AUTHORITY,
    Authority,
    in_ascii,
    parse_authority,
)

#: A scheme as long as extensions have it, and a host with its port.
LONGEST_ORIGIN = LONGEST_AUTHORITY + 40


class Origin(NamedTuple):
    """What RFC 6454 5 compares."""

    scheme: str
    host: str
    port: int | None  #: that of the scheme, where none was named


def origin_at(scheme: str, authority: Authority) -> Origin:
    port = authority.port
    if port is None:
        port = DEFAULT_PORTS.get(scheme)
    return Origin(scheme, authority.host, port)


def parse_origin(text: str) -> Origin | None:
    """An origin as it comes over the wire; ``None`` for all else."""
    scheme, separator, rest = text[: LONGEST_ORIGIN + 1].partition("://")
    authority = parse_authority(rest)
    if not separator or authority is None or not _SCHEME.fullmatch(scheme):
        return None
    return origin_at(scheme.lower(), authority)


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


def is_origin(text: str) -> bool:
    """Whether a browser sends such a thing, and so it may be said back.

    RFC 6454 6.2, in ASCII; not ``null``.
    """
    return (
        len(text) <= LONGEST_ORIGIN and _ORIGIN_FORM.fullmatch(text) is not None
    )


_ORIGIN_FORM = re.compile(rf"{_SCHEME.pattern}://[!-~]*")


class Origins:
    """Origins, some of which stand for several."""

    def __init__(self) -> None:
        self.exact: set[str] = set()
        self.wildcards: list[re.Pattern[str]] = []
        #: They fit a whole origin, or a whole origin but its port.
        self.patterns: list[re.Pattern[str]] = []

    def add(self, text: str) -> bool:
        """Whether it is one, exact or with a ``*`` in it."""
        rule = _rule(text)
        if isinstance(rule, str):
            self.exact.add(rule)
        elif rule is not None:
            self.wildcards.append(rule)
        return rule is not None

    def __contains__(self, origin: str) -> bool:
        return origin in self.exact or self.fit(origin)

    def fit(self, origin: str) -> bool:
        """Whether one of those fits it that stand for several."""
        if not is_origin(origin):
            return False
        for wildcard in self.wildcards:
            if wildcard.fullmatch(origin):
                return True
        without_port = _without_port(origin)
        for pattern in self.patterns:
            if pattern.fullmatch(origin) or (
                without_port and pattern.fullmatch(without_port)
            ):
                return True
        return False


def _without_port(origin: str) -> str | None:
    host, _, port = origin.rpartition(":")
    return host if port.isdigit() else None


# Not what ASCII delimits with, so that a "*" stands only where it means much.
_NAME = r"[^\x00-,/:-@\[-^`{-\x7f\s]+"
_RULE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rf"(?:(?P<below>\*\.)?(?P<name>{_NAME})|(?P<ipv6>\[[0-9a-f:.]+\]))"
    r"(?::(?P<port>[0-9]+|\*))?/?",
    re.IGNORECASE,
)


def _rule(text: str) -> str | re.Pattern[str] | None:
    """An exact origin as a browser writes it, or a pattern for several."""
    if text in ("null", "file://"):  # the latter is what old web views send
        return text
    found = _RULE.fullmatch(text)
    if found is None:
        return None
    name = in_ascii(found["name"] or found["ipv6"]) or ""
    any_port = found["port"] == "*"
    port = "" if any_port or not found["port"] else f":{found['port']}"
    # Compatibility forms hide delimiters: "\u2100" is "a/c".
    authority = parse_authority(name + port)
    if authority is None:
        return None
    scheme = found["scheme"].lower()
    host = authority.host + ("." if name.endswith(".") else "")
    if authority.port in (None, DEFAULT_PORTS.get(scheme)):
        port = ""
    else:
        port = f":{authority.port}"
    if not found["below"] and not any_port:
        return f"{scheme}://{host}{port}"
    names = r"(?:[a-z0-9_-]+\.)+" if found["below"] else ""
    ports = "(?::[0-9]+)?" if any_port else port
    return re.compile(f"{re.escape(scheme)}://{names}{re.escape(host)}{ports}")


def origin_meant(text: str) -> str | None:
    """What to type where a scheme is missing or a path too much."""
    for guess in (text, f"https://{text}"):
        found = _RULE.match(guess)
        rest = "" if found is None else guess[found.end() :]
        if found and (found[0].endswith("/") or rest[:1] in ("?", "#", "")):
            return repr(found[0].rstrip("/")) if guess != text or rest else None
    return None
