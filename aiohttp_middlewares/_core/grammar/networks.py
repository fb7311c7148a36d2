"""Who is at the other end of a socket, and whether that peer is trusted."""

import ipaddress
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias

from aiohttp import web

from aiohttp_middlewares._core import options

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
#: IP addresses and networks, and ``"unix"`` for peers on a unix socket.
PeerCollection: TypeAlias = Collection[str | Address | Network]


class Peers:
    """The peers that an option names."""

    def __init__(self, what: str, peers: PeerCollection) -> None:
        of = "IP addresses, networks or 'unix'"
        found = options.items(what, of, peers)
        self.unix = "unix" in found
        self.networks = [
            _network(what, of, peer) for peer in found if peer != "unix"
        ]
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
        return self.unix and isinstance(peername, str | bytes)

    def has(self, address: Address) -> bool:
        # ::ffff:192.0.2.1 is how a socket for both families names 192.0.2.1.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)

    def _parse(self, text: str) -> bool:
        try:
            return self.has(ipaddress.ip_address(text))
        except ValueError:
            return False


def _network(what: str, of: str, peer: object) -> Network:
    if not isinstance(peer, str | Address | Network):
        options.refuse(TypeError, what, f"a collection of {of}", peer)
    try:
        network = ipaddress.ip_network(peer)
    except ValueError:
        meant = None
        with suppress(ValueError):  # host bits set: 10.0.0.1/8
            meant = repr(str(ipaddress.ip_network(peer, strict=False)))
        options.refuse(
            ValueError, what, f"a collection of {of}", peer, meant=meant
        )
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    # Addresses are compared as IPv4, see Peers.has().
    return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
