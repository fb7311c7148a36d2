"""Origins, RFC 6454: as an option names them, and as browsers send them."""

import re

from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.authority import DEFAULT_PORTS


def is_origin(origin: str) -> bool:
    """Whether a browser sends such a thing, and so it may be said back.

    RFC 6454 6.2, in ASCII; not ``null``.
    """
    return _ORIGIN_FORM.fullmatch(origin) is not None


_ORIGIN_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]*")


class Origins:
    """The origins that an option names."""

    def __init__(self, what: str, origins: object) -> None:
        self.exact: set[str] = set()
        self.wildcards: list[re.Pattern[str]] = []
        self.patterns: list[re.Pattern[str]] = []
        for item in options.items(what, "strings, patterns or URLs", origins):
            rule = _rule(what, item)
            if isinstance(rule, str):
                self.exact.add(rule)
            elif rule is item:
                self.patterns.append(rule)
            else:
                self.wildcards.append(rule)

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
    rf"(?:(?P<below>\*\.)?(?P<name>{_NAME})|\[(?P<ipv6>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}|\*))?/?",
    re.IGNORECASE,
)


def _rule(what: str, item: object) -> str | re.Pattern[str]:
    """An exact origin as a browser writes it, or a pattern for several."""
    if isinstance(item, re.Pattern):
        if not isinstance(item.pattern, str):
            options.refuse(TypeError, what, "patterns for str", item)
        return item
    text = str(item) if isinstance(item, URL) else item
    if not isinstance(text, str):
        options.refuse(
            TypeError, what, "a collection of strings, patterns or URLs", item
        )
    if text in ("null", "file://"):  # the latter is what old web views send
        return text
    found = _RULE.fullmatch(text)
    host = None if found is None else _ascii_host(found)
    port = "" if found is None else found["port"] or ""
    if port.isdigit():
        port = str(int(port))
    if found is None or host is None or (port.isdigit() and int(port) > 65535):
        options.refuse(
            ValueError,
            what,
            "origins such as 'https://example.com', 'https://*.example.com' "
            "or 'http://localhost:*'",
            text,
            meant=_without_path(text),
        )
    scheme = found["scheme"].lower()
    if port == str(DEFAULT_PORTS.get(scheme)):
        port = ""
    if not found["below"] and port != "*":
        return f"{scheme}://{host}" + (f":{port}" if port else "")
    names = r"(?:[a-z0-9_-]+\.)+" if found["below"] else ""
    ports = "(?::[0-9]+)?" if port == "*" else f":{port}" if port else ""
    return re.compile(f"{re.escape(scheme)}://{names}{re.escape(host)}{ports}")


def _ascii_host(found: re.Match[str]) -> str | None:
    """The host as browsers send it: names of other scripts in punycode."""
    host = (found["name"] or found["ipv6"]).lower()
    try:
        host = URL.build(scheme="https", host=host).host_subcomponent or ""
    except ValueError:
        return None
    # Compatibility forms hide delimiters: "\u2100" is "a/c".
    return host if found["ipv6"] or re.fullmatch(_NAME, host) else None


def _without_path(text: str) -> str | None:
    """What was meant, where only a scheme is missing or a path too much."""
    for guess in (text, f"https://{text}"):
        found = _RULE.match(guess)
        rest = "" if found is None else guess[found.end() :]
        if found and (found[0].endswith("/") or rest[:1] in ("?", "#", "")):
            return repr(found[0].rstrip("/")) if guess != text or rest else None
    return None
