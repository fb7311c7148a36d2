"""Addresses: what a host spells out, and what may be dialled by default."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from aiohttp_middlewares._core.grammar.networks import (
    Address,
    Network,
    parse_address,
)


def forms_of(text: str) -> tuple[Address, ...]:
    """An address, and the IPv4 one that is reached by it; or nothing.

    Only the canonical spelling of an address is one.
    """
    address = parse_address(text)
    if address is None:
        return ()
    if getattr(address, "scope_id", None) is not None:
        return ()  # a zone: an address on a link of this machine
    embedded = _embedded_ipv4(address)
    return (address,) if embedded is None else (address, embedded)


def is_any_in(forms: Iterable[Address], networks: Iterable[Network]) -> bool:
    return any(form in network for network in networks for form in forms)


def are_public(forms: tuple[Address, ...]) -> bool:
    """Whether what is reached in the end is part of the public internet."""
    reached = forms[-1]
    if isinstance(reached, IPv4Address):
        return not is_any_in((reached,), _SPECIAL_IPV4)
    return _is_public_ipv6(reached)


def _is_public_ipv6(address: IPv6Address) -> bool:
    return address in _UNICAST_IPV6 and not is_any_in((address,), _SPECIAL_IPV6)


def _embedded_ipv4(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        # ISATAP, RFC 5214 6.1: with the universal bit of the identifier or
        # without. Within other prefixes it is refused as what it is.
        identifier = int(address) >> 32 & 0xFFFFFFFF
        if address in _NAT64 or (
            identifier & ~0x02000000 == 0x00005EFE and _is_public_ipv6(address)
        ):
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


# What a host spells out
# ======================


def plain(host: str) -> str:
    return host.lower().rstrip(".")


def is_sane(host: str) -> bool:
    """Letters, digits, ``-``, ``_`` and dots, or an IPv6 address.

    Whatever else there may be, software disagrees on where such a host ends.
    """
    if len(host) > _LONGEST_NAME:
        return False
    if ":" in host:
        return True  # a literal, or nothing at all
    bare = host.replace("-", "").replace("_", "").replace(".", "")
    return bare.isascii() and bare.isalnum()


#: RFC 1035 2.3.4, without the dot at the end.
_LONGEST_NAME = 253


def literal_of(host: str) -> str | None:
    """The address that a host spells out, if it does.

    A host whose last label is a number is an IPv4 address to browsers and to
    the C library (WHATWG URL, section 3.5). Only the four decimal numbers of
    a canonical one are an address to :func:`forms_of`.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"  # RFC 6761 6.3
    return host if is_literal(host) else None


def is_literal(host: str) -> bool:
    last = host.rpartition(".")[2]
    return ":" in host or last.isdigit() or _is_hexadecimal(last)


def _is_hexadecimal(label: str) -> bool:
    digits = label.removeprefix("0x")
    return digits != label and set(digits) <= set("0123456789abcdef")


def canonical(host: str) -> str:
    """The one spelling of a host that can be compared with others.

    It is that of the IPv4 address which is meant, where one is.
    """
    if ":" in host:
        forms = forms_of(host)
        return str(forms[-1]) if forms else host
    address = _ipv4(host) if is_literal(host) else None
    return host if address is None else str(address)


def _ipv4(host: str) -> IPv4Address | None:
    """WHATWG URL 3.5, the IPv4 parser: octal, hexadecimal, and fewer parts."""
    labels = host.split(".")
    try:
        *first, last = [_number(label) for label in labels]
        if len(first) > 3 or any(number > 255 for number in first):
            return None
        value = last
        for place, number in enumerate(first):
            value += number << 8 * (3 - place)
        if last >> 8 * (4 - len(first)):
            return None
        return IPv4Address(value)
    except ValueError:
        return None


def _number(label: str) -> int:
    if len(label) > _LONGEST_NUMBER:
        raise ValueError(label)
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") else 10)


#: Zeros in front included; beyond it nobody means an address.
_LONGEST_NUMBER = 64


# The tables
# ==========

# Our own tables: those of the ipaddress module differ between releases of
# Python, and do not know about the clouds.
_SPECIAL_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
            "10.0.0.0/8",  # private, RFC 1918
            "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; Alibaba metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure: the host of the virtual machine
            "169.254.0.0/16",  # link-local, RFC 3927; cloud metadata
            "172.16.0.0/12",  # private, RFC 1918
            "192.0.0.0/24",  # protocol assignments; Oracle metadata
            "192.0.2.0/24",  # documentation, RFC 5737
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "192.168.0.0/16",  # private, RFC 1918
            "198.18.0.0/15",  # benchmarks, RFC 2544
            "198.51.100.0/24",  # documentation, RFC 5737
            "203.0.113.0/24",  # documentation, RFC 5737
            "224.0.0.0/4",  # multicast, RFC 5771
            "240.0.0.0/4",  # reserved, and the broadcast address
        ),
    )
)
_UNICAST_IPV6 = IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments; Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation, RFC 3849
            "2002::/16",  # 6to4, RFC 3056
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 2.1
