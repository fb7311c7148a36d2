"""
========================
Proxy headers middleware
========================

Gives a request the real client IP address, scheme and host, as the reverse
proxies in front report them (``X-Forwarded-For``): for ``request.remote``,
``request.scheme``, ``request.host`` and ``request.url`` behind nginx, HAProxy,
a load balancer or a CDN.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import proxy_headers_middleware

    # X-Forwarded-For and X-Forwarded-Proto, from the proxies of this network
    app = web.Application(
        middlewares=[proxy_headers_middleware(trusted=["10.0.0.0/8", "unix"])]
    )

    # Two proxies in front, of unknown address; nobody else can connect
    app = web.Application(middlewares=[proxy_headers_middleware(trusted=2)])

    # Forwarded: for=192.0.2.1;proto=https;host=example.com (RFC 7239)
    app = web.Application(
        middlewares=[
            proxy_headers_middleware(
                trusted=["127.0.0.1"], family="forwarded", host=True
            )
        ]
    )

    # A CDN that says it in a header of its own
    app = web.Application(
        middlewares=[
            proxy_headers_middleware(
                trusted=["192.0.2.0/24"], client_ip_header="CF-Connecting-IP"
            )
        ]
    )

Whom it believes
================

Each proxy adds the address that connected to it at the end of the list. So
the walk begins at the socket and goes through the list from its end:

1. The peer of the socket is not trusted: the request stays as it came.
2. The next address is that of a trusted proxy: go on, to what it added.
3. It is not trusted: this is the client. The client may have made up what
   stands further to the left, and nobody looks at that.
4. It cannot be read (``unknown``, ``_hidden``, garbage): the last address
   before it counts.
5. The list is over and all were trusted: the outermost is the client.

The scheme and the host are those that the outermost of these proxies
reported; where there is one value for all of them, it is that one. A scheme
that is neither HTTP nor HTTPS and a host that is none are passed over.

Order
=====

Outermost, or nearly: whatever asks who the visitor is, or builds URLs, stands
inside. It makes :mod:`aiohttp_middlewares.https` unnecessary.

Limits
======

The first proxy must set these headers itself, not pass on what the visitor
sent: see :doc:`behind a reverse proxy </how-to/behind-a-proxy>`. With a number
as ``trusted``, anybody who can connect is taken for the proxy.

The request that goes on is a clone: one that a middleware further out keeps
has the old address, and so has the access log of aiohttp. What is stored in
either (``request["user"]``) is seen in both. A request whose body has been
read cannot be cloned; it goes on unchanged.

Some sixty elements and eight kilobytes of a list are read, from its right end.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, tee
from typing import Literal, NamedTuple, TypeAlias

from aiohttp import hdrs, web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.caching import remembered
from aiohttp_middlewares._core.grammar.authority import parse_authority
from aiohttp_middlewares._core.grammar.forwarded import (
    forwarded_nearest_first,
    nearest_first,
)
from aiohttp_middlewares._core.grammar.networks import (
    PeerCollection,
    parse_node,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import Peers, go_on, lines, warn_once
from aiohttp_middlewares._core.who import caller_of
from aiohttp_middlewares.annotations import DictStrStr, Handler, Middleware

__all__ = (
    "FAMILIES",
    "X_FORWARDED_FOR",
    "X_FORWARDED_HOST",
    "X_FORWARDED_PROTO",
    "Family",
    "proxy_headers_middleware",
)

FAMILIES = ("x-forwarded", "forwarded")
Family: TypeAlias = Literal["x-forwarded", "forwarded"]

X_FORWARDED_FOR = istr("X-Forwarded-For")
X_FORWARDED_HOST = istr("X-Forwarded-Host")
X_FORWARDED_PROTO = istr("X-Forwarded-Proto")
_FORWARDED = istr(hdrs.FORWARDED)

logger: logging.Logger = logs.get_logger(__name__)


def proxy_headers_middleware(
    *,
    trusted: PeerCollection | int,
    family: Family = "x-forwarded",
    host: bool = False,
    client_ip_header: str | None = None,
) -> Middleware:
    """Believe the proxies in front, and nobody else.

    :param trusted:
        The proxies: IP addresses and networks, and ``"unix"`` for peers on a
        unix socket. Or their number, where their addresses are not known and
        nobody but the nearest can connect.
    :param family:
        Which headers they set: ``"x-forwarded"``, for ``X-Forwarded-For``,
        ``-Proto`` and ``-Host``, or ``"forwarded"``, for ``Forwarded`` of RFC
        7239. Never both, as a visitor could send the one that the proxy does
        not set. By default: ``"x-forwarded"``.
    :param host:
        Take the host from there too. Only if the proxy changes ``Host``, and
        sets the forwarded one itself. By default: ``False``.
    :param client_ip_header:
        The name of a header with one address, such as ``CF-Connecting-IP``,
        that the nearest proxy sets. The address is taken from it alone;
        without it, it is that of the peer. By default the list of the
        ``family`` is walked.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an address, the family or a header name is none.
    """
    what = "proxy_headers_middleware"
    if isinstance(trusted, int):
        count = options.integer(f"{what} trusted", trusted, minimum=1)
        peers = None
    else:
        count = None
        peers = Peers(f"{what} trusted", trusted)
    if family not in FAMILIES:
        options.refuse(
            ValueError, f"{what} family", "'x-forwarded' or 'forwarded'", family
        )
    options.flag(f"{what} host", host)
    read = _read_x_forwarded
    names = [X_FORWARDED_FOR, X_FORWARDED_PROTO]
    if family == "forwarded":
        read, names = _read_forwarded, [_FORWARDED]
    elif host:
        names.append(X_FORWARDED_HOST)
    client_ip = None
    if client_ip_header is not None:
        client_ip = options.header_name(
            f"{what} client_ip_header", client_ip_header
        )
        names.append(client_ip)
    # Proxies are few, and visitors mostly send more than one request.
    hop = remembered(partial(_hop, peers), size=1024)
    too_late = warn_once(
        logger,
        "A request cannot be changed after its body was read: move "
        "proxy_headers_middleware further out",
    )

    @middleware(host=host)
    async def proxy_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        headers = request.headers
        for name in names:
            if name in headers:
                break
        else:
            return await handler(request)
        if peers is not None and request not in peers:
            return await handler(request)

        reports = read(request)
        if client_ip is None:
            client, depth = _walk(reports.hops, hop, count)
        else:
            said = lines(request, client_ip)
            found = hop(said[-1]) if said else None
            client, depth = None if found is None else found.address, 1

        changes: DictStrStr = {}
        if client is not None and client != request.remote:
            changes["remote"] = client
            caller_of(request).remote = client  # for those outside of here
        scheme = _SCHEMES.get((_last(reports.protos, depth) or "").lower())
        if scheme is not None and scheme != request.scheme:
            changes["scheme"] = scheme
        if host:
            named = _last(reports.hosts, depth)
            if named is not None and parse_authority(named) is not None:
                changes["host"] = named
        if not changes:
            return await handler(request)
        return await go_on(request, handler, too_late, **changes)

    return proxy_headers


#: What some proxies say of a WebSocket, too.
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class _Reports(NamedTuple):
    """What was said, the nearest proxy's word first.

    All are read no further than they are believed.
    """

    hops: Iterator[str]
    protos: Iterator[str | None]
    hosts: Iterator[str | None]


def _read_x_forwarded(request: web.Request) -> _Reports:
    return _Reports(
        nearest_first(lines(request, X_FORWARDED_FOR)),
        nearest_first(lines(request, X_FORWARDED_PROTO)),
        nearest_first(lines(request, X_FORWARDED_HOST)),
    )


def _read_forwarded(request: web.Request) -> _Reports:
    elements = forwarded_nearest_first(lines(request, _FORWARDED))
    hops, protos, hosts = tee(elements, 3)
    return _Reports(
        (element.get("for", "") for element in hops),
        (element.get("proto") for element in protos),
        (element.get("host") for element in hosts),
    )


class _Hop(NamedTuple):
    address: str
    trusted: bool


def _hop(peers: Peers | None, text: str) -> _Hop | None:
    address = parse_node(text)
    if address is None:
        return None
    return _Hop(str(address), peers is None or peers.networks.has(address))


def _walk(
    hops: Iterable[str],
    read: Callable[[str], _Hop | None],
    count: int | None,
) -> tuple[str | None, int]:
    """The client, and how many of the reports led to it."""
    client, depth = None, 0
    for text in hops:
        hop = read(text)
        if hop is None:
            depth += 1  # its proxy was trusted, and names no client
            break
        client = hop.address
        depth += 1
        if depth == count or not hop.trusted:
            break
    else:
        if count is not None:
            # A proxy was passed by, and nobody knows which.
            client = None
    return client, depth


def _last(reports: Iterable[str | None], depth: int) -> str | None:
    """What the outermost of the proxies that are believed has reported.

    The nearest is believed even if it names no client.
    """
    last = None
    for report in islice(reports, max(depth, 1)):
        last = last if report is None else report
    return last
