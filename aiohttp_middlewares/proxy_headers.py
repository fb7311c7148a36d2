"""
========================
Proxy headers middleware
========================

Gives a request the address, the scheme and the host that the visitor had, as
the proxies in front report them: for ``request.remote``, ``request.scheme``,
``request.host`` and ``request.url`` behind nginx, HAProxy, a load balancer or
a CDN.

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
3. It is not trusted: this is the client. What stands further to the left it
   may have made up, and nobody looks at it.
4. It cannot be read (``unknown``, ``_hidden``, garbage): the last address
   before it counts.
5. The list is over and all were trusted: the outermost is the client.

The scheme and the host are those that the outermost of these proxies
reported; where there is one value for all of them, it is that one. A scheme
that is neither HTTP nor HTTPS and a host that is none are passed over.

Order
=====

Outermost, or nearly: all that asks who the visitor is, or builds URLs, stands
inside. It makes :mod:`aiohttp_middlewares.https` unnecessary.

Limits
======

The first proxy has to set these headers itself, not to hand on what the
visitor sent: see :doc:`/how-to/behind-a-proxy`. With a number as ``trusted``
anybody who can connect is taken for the proxy.

The request that goes on is a clone. What the handler stores in it
(``request["user"]``) is not seen by middlewares outside, and aiohttp does not
close the temporary files of a multipart body that was read from it: they are
closed when they are collected. A request whose body has been read cannot be
cloned; it goes on unchanged.
"""

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice, tee
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.authority import parse_authority
from aiohttp_middlewares._core.grammar.networks import (
    Address,
    PeerCollection,
    Peers,
)
from aiohttp_middlewares._core.requests import cloned
from aiohttp_middlewares.annotations import DictStrStr, Handler, Middleware

FAMILIES = ("x-forwarded", "forwarded")

X_FORWARDED_FOR = istr("X-Forwarded-For")
X_FORWARDED_HOST = istr("X-Forwarded-Host")
X_FORWARDED_PROTO = istr("X-Forwarded-Proto")

logger = logging.getLogger(__name__)


def proxy_headers_middleware(
    *,
    trusted: PeerCollection | int,
    family: str = "x-forwarded",
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
    read: Callable[[CIMultiDictProxy[str]], _Reports]
    if family == "forwarded":
        read, names = _read_forwarded, [istr(hdrs.FORWARDED)]
    else:
        read, names = _read_x_forwarded, [X_FORWARDED_FOR, X_FORWARDED_PROTO]
        if host:
            names.append(X_FORWARDED_HOST)
    client_ip = None
    if client_ip_header is not None:
        client_ip = options.header_name(
            f"{what} client_ip_header", client_ip_header
        )
        names.append(client_ip)
    # Proxies are few, and visitors mostly send more than one request.
    hop = lru_cache(maxsize=1024)(
        partial(
            _hop,
            _node if family == "forwarded" and client_ip is None else _address,
            peers,
        )
    )
    warned = False

    @web.middleware
    async def proxy_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        nonlocal warned
        headers = request.headers
        for name in names:
            if name in headers:
                break
        else:
            return await handler(request)
        if peers is not None and request not in peers:
            return await handler(request)

        reports = read(headers)
        if client_ip is None:
            client, depth = _walk(reports.hops, hop, count)
        else:
            lines = headers.getall(client_ip, ())
            found = hop(lines[-1]) if lines else None
            client, depth = None if found is None else found.address, 1

        changes: DictStrStr = {}
        if client is not None and client != request.remote:
            changes["remote"] = client
        scheme = _SCHEMES.get((_last(reports.protos, depth) or "").lower())
        if scheme is not None and scheme != request.scheme:
            changes["scheme"] = scheme
        if host:
            named = _last(reports.hosts, depth)
            if named is not None and parse_authority(named) is not None:
                changes["host"] = named
        if changes:
            try:
                request = cloned(request, **changes)
            except RuntimeError:  # its body has been read
                if not warned:
                    warned = True
                    logger.warning(
                        "A request cannot be changed after its body was "
                        "read: move proxy_headers_middleware further out"
                    )
        return await handler(request)

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


def _read_x_forwarded(headers: CIMultiDictProxy[str]) -> _Reports:
    return _Reports(
        _nearest_first(headers, X_FORWARDED_FOR),
        _nearest_first(headers, X_FORWARDED_PROTO),
        _nearest_first(headers, X_FORWARDED_HOST),
    )


def _nearest_first(headers: CIMultiDictProxy[str], name: istr) -> Iterator[str]:
    """The elements of all lines; empty ones are not (RFC 9110 5.6.1).

    There are no quoted strings in these headers: a quotation mark that a
    client sends must not swallow what a proxy adds.
    """
    for line in reversed(headers.getall(name, ())):
        for part in reversed(line.split(",")):
            if element := part.strip(" \t"):
                yield element


def _read_forwarded(headers: CIMultiDictProxy[str]) -> _Reports:
    elements = _well_formed(headers.getall(hdrs.FORWARDED, ()))
    hops, protos, hosts = tee(elements, 3)
    return _Reports(
        (element.get("for", "") for element in hops),
        (element.get("proto") for element in protos),
        (element.get("host") for element in hosts),
    )


def _well_formed(lines: Sequence[str]) -> Iterator[DictStrStr]:
    for element in _forwarded_elements(lines):
        parameters = _parameters(element)
        if parameters is None:
            return
        yield parameters


def _forwarded_elements(lines: Sequence[str]) -> Iterator[str]:
    """The elements of RFC 7239, from the last to the first.

    A quotation mark that a client left open does not reach what a proxy adds
    after it: before an element that is well-formed, and so has an even number
    of them, stands a comma that is not quoted.
    """
    for line in reversed(lines):
        parts: list[str] = []
        quotes = 0
        for part in reversed(line.split(",")):
            parts.append(part)
            quotes += _QUOTED_PAIR.sub("", part).count('"')
            if quotes % 2 == 0:
                if element := ",".join(reversed(parts)).strip(" \t"):
                    yield element
                parts.clear()
        if parts:
            yield ",".join(reversed(parts))


_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 7239 4, with optional white space where other fields have it.
_PAIR = re.compile(
    rf"[ \t]*(?:({options.TOKEN.pattern})="
    rf'(?:({options.TOKEN.pattern})|"((?:[^"\\]|\\.)*)"))?[ \t]*(;|\Z)'
)


def _parameters(element: str) -> DictStrStr | None:
    """The pairs of one element; ``None`` if it is malformed."""
    found: DictStrStr = {}
    position = 0
    while position < len(element):
        pair = _PAIR.match(element, position)
        if pair is None:
            return None
        position = pair.end()
        name, token, quoted, _ = pair.groups()
        if name is not None:
            # RFC 7239 4: no parameter more than once
            if name.lower() in found:
                return None
            value = token or _QUOTED_PAIR.sub(r"\1", quoted)
            found[name.lower()] = value
    return found


# RFC 7239 6: a port may be obfuscated.
_NODE = re.compile(
    r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
)


def _node(text: str) -> Address | None:
    """The address of a node, in brackets if it is IPv6, without its port."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    try:
        if found[1] is None:
            return ipaddress.IPv4Address(found[2])
        # A zone is a matter of the machine that wrote it.
        six = ipaddress.IPv6Address(found[1].partition("%")[0])
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is how a socket for both families names 192.0.2.1.
    return six.ipv4_mapped or six


def _address(text: str) -> Address | None:
    """As proxies write it in ``X-Forwarded-For``: IPv6 without brackets too."""
    text = text.strip(" \t")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    return _node(text)


class _Hop(NamedTuple):
    address: str
    trusted: bool


def _hop(
    parse: Callable[[str], Address | None], peers: Peers | None, text: str
) -> _Hop | None:
    address = parse(text)
    if address is None:
        return None
    return _Hop(str(address), peers is None or peers.has(address))


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
