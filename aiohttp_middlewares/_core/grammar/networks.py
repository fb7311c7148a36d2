"""IP addresses and networks: as an option names them, and as proxies do."""

import ipaddress
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
#: IP addresses and networks, and ``"unix"`` for peers on a unix socket.
PeerCollection: TypeAlias = Collection[str | Address | Network]

#: An IPv6 address has 45 characters at most, its zone and port some more.
LONGEST_NODE = 100


class Networks:
    """Addresses, a network at a time."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)

    def has(self, address: Address) -> bool:
        # ::ffff:192.0.2.1 is how a socket for both families names 192.0.2.1.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def parse_address(text: str) -> Address | None:
    """An address and nothing else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def parse_network(item: str | Address | Network) -> Network | None:
    """A network, or the one address of an address."""
    try:
        network = ipaddress.ip_network(item)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    # Addresses are compared as IPv4, see Networks.has().
    return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))


def network_meant(text: str) -> str | None:
    """What to type instead of ``10.0.0.1/8``, ``[::1]`` or a URL."""
    with suppress(ValueError):  # host bits set
        return repr(str(ipaddress.ip_network(text, strict=False)))
    host = (text.partition("://")[2] or text).partition("/")[0]
    address = parse_node(host)
    return None if address is None else repr(str(address))


# RFC 7239 6: a port may be obfuscated.
_NODE = re.compile(
    r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
)


def parse_node(text: str) -> Address | None:
    """The address of a node (RFC 7239 6), without its port and zone.

    Real proxies leave out the brackets of IPv6, in ``X-Forwarded-For`` and in
    ``Forwarded``: what is an address as a whole is one.
    """
    if len(text) > LONGEST_NODE:
        return None
    text = text.strip(" \t")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
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
