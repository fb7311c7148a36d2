"""What is asked of a request, and a clone of it that loses nothing."""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from string import printable
from typing import Any, Protocol
from urllib.parse import quote

from aiohttp import ClientResponse, hdrs, web
from multidict import CIMultiDictProxy
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.authority import (
    DEFAULT_PORTS,
    Authority,
    parse_authority,
)
from aiohttp_middlewares._core.grammar.networks import (
    Networks,
    PeerCollection,
    parse_address,
)
from aiohttp_middlewares._core.keys import share
from aiohttp_middlewares.annotations import Handler


class WithHeaders(Protocol):
    """As much of a request as its headers."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]: ...


def lines(
    message: web.BaseRequest | ClientResponse | WithHeaders, name: str
) -> list[str]:
    """All lines of a header field, without the blanks around them."""
    headers = message.headers
    if type(headers) is CIMultiDictProxy:
        found = headers.getall(name, None)
        if found is None:
            return []
        if len(found) == 1:  # as nearly always
            return [found[0].strip(" \t")]
        return [line.strip(" \t") for line in found]
    # From aiohttp 4 on the headers join lines, and split them into elements.
    wanted = name.lower().encode()
    return [
        line.decode("utf-8", "surrogateescape").strip(" \t")
        for key, line in message.raw_headers
        if key.lower() == wanted
    ]


def is_handshake(request: web.Request) -> bool:
    """Whether it asks for a WebSocket."""
    return hdrs.UPGRADE in request.headers and any(
        "websocket" in line.lower() for line in lines(request, hdrs.UPGRADE)
    )


# Its authority
# =============


def authority_text(request: web.Request) -> str | None:
    """The host of a request with its port, as it was sent.

    It is that of an absolute target (RFC 9112 3.2.2), else of the ``Host``
    field, if there is just one; a clone may have replaced either.
    """
    if _has_host(request):
        # request.host has lost the port here.
        return request.url.raw_authority
    # request.host alone would make up for a missing field.
    return request.host if len(lines(request, hdrs.HOST)) == 1 else None


def authority_of(request: web.Request) -> Authority | None:
    """The host of a request; ``None`` if it is missing or malformed."""
    text = authority_text(request)
    return None if text is None else parse_authority(text)


def _has_host(request: web.Request) -> bool:
    """Whether there is a host in the target.

    What the parser found is nowhere else: from aiohttp 3.15 on ``raw_path``
    does not show it.
    """
    message = getattr(request, "_message", None)
    if message is None:
        return request.raw_path[:1] not in ("/", "*")
    return bool(message.url.absolute)


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


# Its peer
# ========


class Peers:
    """The peers that an option names."""

    def __init__(self, what: str, peers: PeerCollection) -> None:
        networks, self._unix = options.peers(what, peers)
        self.networks = Networks(networks)
        # The peers of a server are few: proxies, mostly.
        self._has_text = lru_cache(maxsize=1024)(self._parse)

    def __contains__(self, request: web.Request) -> bool:
        """By the socket, whatever ``request.remote`` was set to."""
        transport = request.transport
        if transport is None:
            return False
        peername = transport.get_extra_info("peername")
        if isinstance(peername, tuple):
            return self._has_text(peername[0])
        return self._unix and isinstance(peername, str | bytes)

    def _parse(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and self.networks.has(address)


# A changed one
# =============


def cloned(request: web.Request, **changes: Any) -> web.Request:
    """``request.clone(**changes)``, and the rest stays as it is.

    What is stored in the one is seen in the other.

    :raises RuntimeError: the body of the request has been read.
    :raises ValueError: the host in its target is malformed.
    """
    kept: dict[str, Any] = {"scheme": request.scheme, "remote": request.remote}
    if _has_host(request):
        # From here on the target is a path. Of an absolute one aiohttp takes
        # no host with a port, and keeps the port that stands there.
        kept["host"] = text = request.url.raw_authority
        kept["rel_url"] = request.rel_url if request.path else URL("/")
        if parse_authority(text) is None:
            raise ValueError("the host of the target is malformed")
    elif hdrs.HOST in request.headers or "host" in getattr(
        request, "_cache", ()
    ):
        # Of a request that names none aiohttp may ask the name server.
        kept["host"] = request.host
    clone = request.clone(**(kept | changes))
    share(request, clone)
    return clone


async def go_on(
    request: web.Request,
    handler: Handler,
    too_late: Callable[[], None],
    **changes: Any,
) -> web.StreamResponse:
    """Call the handler with a changed request.

    If its body has been read, that cannot be: ``too_late`` is called, and the
    handler with the request as it is. aiohttp knows the original only: what
    it does with that in the end is done for the clone here.

    :raises aiohttp.web.HTTPBadRequest: the host in its target is malformed.
    """
    try:
        clone = cloned(request, **changes)
    except RuntimeError:
        too_late()
        return await handler(request)
    except ValueError:
        raise web.HTTPBadRequest(text="Invalid host in the target") from None
    try:
        return await handler(clone)
    finally:
        # Private, all three, and done without where they are gone.
        form = getattr(clone, "_post", None)
        if form is not None:
            # So that the files of a form are closed.
            request._post = form
        read = read_so_far(clone)
        if read is not None:
            # So that it can be read again outside.
            request._read_bytes = read
        if hasattr(clone, "_task"):
            # So that clone and task do not wait for the garbage collector.
            clone._task = None  # type: ignore[assignment]


def read_so_far(request: web.BaseRequest) -> bytes | None:
    """The body, if it was read as a whole, and if aiohttp tells."""
    found: bytes | None = getattr(request, "_read_bytes", None)
    return found


def warn_once(logger: logging.Logger, message: str) -> Callable[[], None]:
    """A function that says it the first time it is called."""
    said = False

    def warn() -> None:
        nonlocal said
        if not said:
            said = True
            logger.warning(message)

    return warn
