"""Origins, RFC 6454: as an option names them, and as browsers send them."""

import re
from collections.abc import Callable

from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.authority import DEFAULT_PORTS

# What a browser sends: RFC 6454 6.2, in ASCII. Only such a thing may be said
# back, whatever a pattern lets through.
ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+")
_PORT = re.compile(r":[0-9]+\Z")


def listed_origins(what: str, origins: object) -> Callable[..., bool]:
    """A function that says of an origin whether an option lists it.

    It takes the request as well, as a function of the user's does.
    """
    exact: set[str] = set()
    #: Made of strings with a "*": these say which ports they mean.
    wildcards: list[re.Pattern[str]] = []
    patterns: list[re.Pattern[str]] = []
    for item in options.items(what, "strings, patterns or URLs", origins):
        if isinstance(item, re.Pattern):
            if not isinstance(item.pattern, str):
                options.refuse(TypeError, what, "patterns for str", item)
            patterns.append(item)
            continue
        rule = _rule(what, item)
        if isinstance(rule, str):
            exact.add(rule)
        else:
            wildcards.append(rule)

    def listed(origin: str, request: object = None) -> bool:
        if origin in exact:
            return True
        if not (wildcards or patterns) or not ORIGIN.fullmatch(origin):
            return False
        for wildcard in wildcards:
            if wildcard.fullmatch(origin):
                return True
        without_port = _PORT.sub("", origin)
        for pattern in patterns:
            if pattern.fullmatch(origin) or pattern.fullmatch(without_port):
                return True
        return False

    return listed


_RULE = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[^/?#@:\[\]\s]+)"
    r"(?::(?P<port>[0-9]+|\*))?/?",
    re.IGNORECASE,
)


def _rule(what: str, item: object) -> str | re.Pattern[str]:
    """An exact origin as a browser writes it, or a pattern for several."""
    text = str(item) if isinstance(item, URL) else item
    if not isinstance(text, str):
        options.refuse(
            TypeError, what, "a collection of strings, patterns or URLs", item
        )
    if text == "null":
        return text

    should = "origins such as 'https://example.com' (scheme, host, port)"
    found = _RULE.fullmatch(text)
    if found is None:
        named = _RULE.match(text) or _RULE.match(f"https://{text}")
        meant = None if named is None else repr(named[0].rstrip("/"))
        options.refuse(ValueError, what, should, text, meant=meant)
    scheme = found["scheme"].lower()
    port = found["port"]
    if port == str(DEFAULT_PORTS.get(scheme)):
        port = None
    below = found["host"].startswith("*.")
    host = _ascii_host(found["host"].removeprefix("*.").lower())
    if host is None or "*" in host:
        options.refuse(
            ValueError, what, f"{should}; '*' only as first label", text
        )
    if not below and port != "*":
        return f"{scheme}://{host}" + (f":{port}" if port else "")
    names = r"(?:[a-z0-9_-]+\.)+" if below else ""
    ports = "(?::[0-9]+)?" if port == "*" else f":{port}" if port else ""
    return re.compile(f"{re.escape(scheme)}://{names}{re.escape(host)}{ports}")


def _ascii_host(host: str) -> str | None:
    """The host as browsers send it: names of other scripts in punycode."""
    if host.isascii():
        return host
    try:
        return URL.build(scheme="https", host=host).raw_host
    except ValueError:
        return None
