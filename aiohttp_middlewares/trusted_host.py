"""
=======================
Trusted host middleware
=======================

Checks the ``Host`` header: answers only requests that are addressed to a host
of yours, for applications that build links, choose a tenant or fill a cache by
``request.host``; otherwise the visitor chooses what stands in there.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import trusted_host_middleware

    app = web.Application(
        middlewares=[
            trusted_host_middleware(
                [
                    "www.example.com",
                    "*.shops.example.com",  # any depth, not the apex
                    "10.0.0.0/8",  # health checks by the address of a pod
                ],
                ignore=["/healthz"],
            )
        ]
    )

What is one host
================

A host is parsed (RFC 9110 section 7.2, RFC 3986 section 3.2.2), and then
compared without case, port and trailing dot. A name in another script may be
listed in either spelling; browsers send it in punycode, as a host may hold
ASCII only. What cannot be parsed is refused even if ``*`` is allowed: aiohttp
itself lets ``a b``, ``evil@x``, ``x/y`` and an empty host through, and punycode
that says nothing (``xn--a``), for which ``request.url.host`` raises an error.

The answer to any other host is ``400 Invalid host header``. Where
``www.example.com`` is listed and ``example.com`` is not, a visitor of the
latter is sent there by ``307``.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers`, which may set the host;
outside of all others, so that none of them works with a host that is not yours.
The refusal is plain text, as error middlewares stand further in.

Limits
======

A visitor without a valid host sees the refusal without security headers.
Characters such as ``,`` or ``'`` and ``%`` escapes, which RFC 3986 allows in a
name, are refused: no name in use has them.
"""

import logging
from collections.abc import Collection
from typing import NamedTuple

from aiohttp import web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.caching import remembered
from aiohttp_middlewares._core.grammar.authority import (
    Authority,
    in_ascii,
    is_readable,
    parse_authority,
)
from aiohttp_middlewares._core.grammar.networks import (
    Address,
    Network,
    Networks,
    network_meant,
    parse_address,
    parse_network,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import authority_text, moved
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("trusted_host_middleware",)

logger: logging.Logger = logs.get_logger(__name__)


def trusted_host_middleware(
    allowed_hosts: Collection[str | Address | Network],
    *,
    www_redirect: bool = True,
    ignore: Urls | None = None,
) -> Middleware:
    """Refuse requests to hosts that are not listed.

    :param allowed_hosts:
        Names such as ``"example.com"``, in Unicode or punycode;
        ``"*.example.com"`` for every name below, not the name itself;
        addresses such as ``"192.0.2.1"`` and ``"[::1]"``, and networks such as
        ``"10.0.0.0/8"``, for those who connect by address; ``"*"`` for every
        valid host. Ports do not count.
    :param www_redirect:
        Send the visitors of ``example.com`` to ``www.example.com`` if only
        that is listed, by its name. By default: ``True``.
    :param ignore:
        URLs that are answered whatever the host: a collection of paths,
        patterns and URLs, or a mapping of them to methods. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a host is none, or there are none.
    """
    what = "trusted_host_middleware"
    hosts = _Hosts(f"{what} allowed_hosts", allowed_hosts)
    options.flag(f"{what} www_redirect", www_redirect)
    ignored = exemption(f"{what} ignore", ignore)
    # Visitors use few spellings of few hosts.
    verdict = remembered(hosts.verdict, size=256)

    @middleware
    async def trusted_host(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        text = authority_text(request)
        said = _MISSING if text is None else verdict(text)
        if said is _ALLOWED or (ignored is not None and ignored(request)):
            return await handler(request)
        if said.www is not None and www_redirect:
            location = moved(request, request.scheme, *said.www)
            raise web.HTTPTemporaryRedirect(location)
        logs.refused(
            logger,
            request,
            said.reason,
            host=text,
            allowed_hosts=hosts.listed,
        )
        raise web.HTTPBadRequest(text="Invalid host header")

    return trusted_host


class _Verdict(NamedTuple):
    reason: str
    www: Authority | None = None  #: where the same is allowed


_ALLOWED = _Verdict("")
_MISSING = _Verdict("it has no host, or several")
_MALFORMED = _Verdict("its host is malformed")
_NOT_LISTED = _Verdict("its host is not listed")


class _Hosts:
    """The hosts that are allowed."""

    def __init__(self, what: str, allowed_hosts: object) -> None:
        found = options.items(what, "hosts", allowed_hosts)
        if not found:
            raise ValueError(
                f"{what} should not be empty: it would refuse every request"
            )
        self.listed = found
        self.all = "*" in found
        self.names: set[str] = set()
        self.endings: list[str] = []
        networks = []
        for item in found:
            if item == "*":
                continue
            network = _network(item)
            if network is not None:
                networks.append(network)
            elif isinstance(item, str) and item.startswith("*."):
                self.endings.append("." + _name(what, item, item[2:]))
            else:
                self.names.add(_name(what, item, item))
        self.networks = Networks(networks)

    def verdict(self, text: str) -> _Verdict:
        authority = parse_authority(text)
        if authority is None:
            return _MALFORMED
        host = authority.host
        if host in self.names:
            return _ALLOWED
        if not is_readable(text):
            return _MALFORMED
        if self.all:
            return _ALLOWED
        for ending in self.endings:
            if host.endswith(ending):
                return _ALLOWED
        address = parse_address(host.strip("[]"))
        if address is not None and self.networks.has(address):
            return _ALLOWED
        www = f"www.{host}"
        if www in self.names:
            return _Verdict(_NOT_LISTED.reason, authority._replace(host=www))
        return _NOT_LISTED


def _network(item: object) -> Network | None:
    """A network or an address, IPv6 with or without brackets."""
    if isinstance(item, str) and item.startswith("[") and item.endswith("]"):
        item = item[1:-1]
    if not isinstance(item, str | Address | Network):
        return None
    return parse_network(item)


def _name(what: str, item: object, name: object) -> str:
    should = (
        "a collection of names, '*.example.com', addresses, networks or '*'"
    )
    if not isinstance(name, str):
        options.refuse(TypeError, what, should, item)
    authority = parse_authority(in_ascii(name) or "")
    if authority is not None and authority.port is None:
        return authority.host
    options.refuse(ValueError, what, should, item, meant=_meant(str(item)))


def _meant(item: str) -> str | None:
    """What to type instead of a URL, a host with a port, or the like."""
    if (meant := network_meant(item)) is not None:
        return meant
    host = (item.partition("://")[2] or item).partition("/")[0]
    below = host.startswith(("*", "."))
    authority = parse_authority(in_ascii(host.lstrip("*.")) or "")
    if authority is None:
        return None
    return repr(("*." if below else "") + authority.host)
