"""What is asked of a request: its host, and a clone that loses nothing."""

from string import printable
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web
from yarl import URL

from aiohttp_middlewares._core.grammar.authority import (
    DEFAULT_PORTS,
    Authority,
    parse_authority,
)


def authority_text(request: web.Request) -> str | None:
    """The host of a request with its port, as it was sent.

    It is that of an absolute target (RFC 9112 3.2.2), else of the ``Host``
    field, if there is just one; a clone may have replaced either.
    """
    if request.raw_path[:1] in _NO_HOST:
        # request.host alone would make up for a missing field.
        one = len(request.headers.getall(hdrs.HOST, ())) == 1
        return request.host if one else None
    # request.host has lost the port here.
    return request.url.raw_authority


def authority_of(request: web.Request) -> Authority | None:
    """The host of a request; ``None`` if it is missing or malformed."""
    text = authority_text(request)
    return None if text is None else parse_authority(text)


#: How a target begins that has no host in it.
_NO_HOST = frozenset(["/", "*"])


def moved(
    request: web.Request, scheme: str, host: str, port: int | None = None
) -> URL:
    """The URL of the same resource elsewhere, for ``Location``."""
    authority = Authority(
        host, None if port == DEFAULT_PORTS.get(scheme) else port
    )
    target = request.raw_path
    if not target.startswith("/"):
        target = "" if target == "*" else str(request.rel_url) or "/"
    # A header may hold ASCII only; what was escaped stays as it was.
    sent = target.encode("utf-8", "surrogateescape")
    return URL(
        f"{scheme}://{authority}{quote(sent, safe=printable.strip())}",
        encoded=True,
    )


def cloned(request: web.Request, **changes: Any) -> web.Request:
    """``request.clone(**changes)``, and the rest stays as it is.

    :raises RuntimeError: the body of the request has been read.
    """
    kept: dict[str, Any] = {"scheme": request.scheme, "remote": request.remote}
    if request.raw_path.startswith(("/", "*")):
        kept["host"] = request.host
    else:
        # From here on the target is a path. Of an absolute one aiohttp takes
        # no host with a port, and keeps the port that stands there.
        kept["host"] = authority_text(request)
        kept["rel_url"] = request.rel_url if request.path else URL("/")
    return request.clone(**(kept | changes))
