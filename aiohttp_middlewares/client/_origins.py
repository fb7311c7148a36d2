"""Origins: to whom a credential may be sent."""

import re
from collections.abc import Collection

from yarl import URL

from aiohttp_middlewares._core import options

#: Scheme, host and port. WebSockets share the origin of the HTTP server.
Origin = tuple[str, str, int | None]

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SHOULD = "a collection of origins such as 'https://api.example.com'"


def origin_of(url: URL) -> Origin:
    scheme = _SCHEMES.get(url.scheme, url.scheme)
    return scheme, url.raw_host or "", url.port


def parse_origins(what: str, value: Collection[str | URL]) -> frozenset[Origin]:
    """Check the option ``origins``: it says whom to trust."""
    if isinstance(value, URL):
        options.refuse(TypeError, what, _SHOULD, value, meant=f"[{value!r}]")
    found = options.items(what, "origins", value)
    if not found:
        options.refuse(ValueError, what, f"{_SHOULD}, at least one", value)
    return frozenset(_parse(what, item) for item in found)


def _parse(what: str, item: object) -> Origin:
    if not isinstance(item, str | URL):
        options.refuse(TypeError, what, _SHOULD, item)
    try:
        url = URL(item)
        # Some of what is wrong with a host shows when it is asked for.
        origin = origin_of(url)
    except ValueError:
        options.refuse(ValueError, what, _SHOULD, item)
    host = url.raw_host or ""
    if url.scheme not in _SCHEMES or not host:
        name = host or str(item)
        meant = f"'https://{name}'" if _NAME.fullmatch(name) else None
        options.refuse(ValueError, what, _SHOULD, item, meant=meant)
    if ":" not in host and not _NAME.fullmatch(host):
        should = f"{_SHOULD} without wildcards" if "*" in host else _SHOULD
        options.refuse(ValueError, what, should, item)
    if url.raw_user is not None or url.raw_password is not None:
        # The value is not shown: it holds a password.
        raise ValueError(f"{what} should be {_SHOULD} without userinfo")
    if url.raw_path not in ("", "/") or "?" in str(item) or "#" in str(item):
        meant = repr(str(url.origin()))
        should = f"{_SHOULD} without path, query and fragment"
        options.refuse(ValueError, what, should, item, meant=meant)
    return origin
