"""What an :class:`SSRFPolicy` permits."""

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, cast

from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.networks import (
    Address,
    Network,
    network_meant,
)
from aiohttp_middlewares.client._origins import (
    Origin,
    origin_of,
    parse_origins,
)
from aiohttp_middlewares.client.ssrf._addresses import (
    are_public,
    canonical,
    forms_of,
    is_any_in,
    is_literal,
    is_sane,
    literal_of,
    plain,
)

#: The rule that a request broke.
Reason = Literal["scheme", "port", "host", "address", "proxy", "connector"]

DEFAULT_SCHEMES = frozenset({"http", "https", "ws", "wss"})
DEFAULT_PORTS = frozenset({80, 443})


@dataclass(frozen=True)
class SSRFPolicy:
    """What may be reached: by default the public internet, on two ports.

    :param schemes: The schemes of URLs; by default http, https, ws and wss.
    :param ports: The ports; by default 80 and 443. None is any.
    :param allow_networks: Networks that may be reached although they are not
        public, as strings or :mod:`ipaddress` objects.
    :param deny_networks: Networks that may not be reached, whatever else
        permits them.
    :param allow_hosts: The only hosts that may be asked for, such as
        ``"example.com"``, which is that name alone, and ``"*.example.com"``,
        which is every name below it; None is any. Their addresses are checked
        all the same.
    :param deny_hosts: Hosts that may not be asked for, written the same way.
        An IPv4 address is known in every spelling. What a name leads to is
        the business of ``deny_networks``.
    :param allow_proxies: The proxies that may be used, as origins such as
        ``"http://proxy.internal:3128"``. The rules for addresses and ports
        do not apply to them. Any other proxy is refused, also one from the
        environment.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a port, a network or an origin that is none.

    Of IPv4, all is public but the blocks that IANA reserves (RFC 6890 and
    its updates), multicast, and addresses that clouds use for their own
    ends. Of IPv6, 2000::/3 is public but its special blocks. An IPv4
    address that is mapped into IPv6 (RFC 4291 2.5.5.2) or translated by
    NAT64 (RFC 6052 2.1) is judged as IPv4, and so is one of ISATAP (RFC
    5214) within 2000::/3.
    """

    _: KW_ONLY
    schemes: Collection[str] = DEFAULT_SCHEMES
    ports: Collection[int] | None = DEFAULT_PORTS
    allow_networks: Collection[str | Network] = ()
    deny_networks: Collection[str | Network] = ()
    allow_hosts: Collection[str] | None = None
    deny_hosts: Collection[str] = ()
    allow_proxies: Collection[str | URL] = ()

    def __post_init__(self) -> None:
        checked = {
            "schemes": _schemes("SSRFPolicy schemes", self.schemes),
            "ports": _ports("SSRFPolicy ports", self.ports),
            "allow_networks": _networks(
                "SSRFPolicy allow_networks", self.allow_networks
            ),
            "deny_networks": _networks(
                "SSRFPolicy deny_networks", self.deny_networks
            ),
            "allow_hosts": None
            if self.allow_hosts is None
            else _hosts("SSRFPolicy allow_hosts", self.allow_hosts),
            "deny_hosts": _hosts("SSRFPolicy deny_hosts", self.deny_hosts),
            "allow_proxies": _proxies(
                "SSRFPolicy allow_proxies", self.allow_proxies
            ),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def broken_rule(
    policy: SSRFPolicy, url: URL, proxy: URL | None
) -> tuple[Reason, str | None] | None:
    """The rule that a request breaks, before anything is resolved.

    And the address, where the host is one.
    """
    host = plain(url.raw_host or "")
    if url.scheme not in policy.schemes:
        return "scheme", None
    if policy.ports is not None and url.port not in policy.ports:
        return "port", None
    if not is_sane(host) or _is_listed(host, policy.deny_hosts):
        return "host", None
    if policy.allow_hosts is not None and not _is_listed(
        host, policy.allow_hosts
    ):
        return "host", None
    # With a proxy nobody else looks at the address.
    literal = literal_of(host)
    if literal is not None and not permits(policy, literal):
        return "address", literal
    if proxy is not None and origin_of(proxy) not in proxies_of(policy):
        return "proxy", None
    return None


def _is_listed(host: str, hosts: Collection[str]) -> bool:
    host = canonical(host)
    if host in hosts:
        return True
    while host:
        host = host.partition(".")[2]
        if f"*.{host}" in hosts:
            return True
    return False


def permits(policy: SSRFPolicy, host: str) -> bool:
    """Whether an address may be dialled; what cannot be read may not."""
    # Whatever it is written in, an IPv4 address is the one that is reached.
    forms = forms_of(host)
    if not forms:
        return False
    denied = cast(tuple[Network, ...], policy.deny_networks)
    allowed = cast(tuple[Network, ...], policy.allow_networks)
    if is_any_in(forms, denied):
        return False
    return is_any_in(forms, allowed) or are_public(forms)


def proxies_of(policy: SSRFPolicy) -> frozenset[Origin]:
    return cast(frozenset[Origin], policy.allow_proxies)


# What is set
# ===========


def _schemes(what: str, value: object) -> frozenset[str]:
    for item in (found := options.strings(what, value)):
        if item not in DEFAULT_SCHEMES:
            should = "among http, https, ws and wss"
            options.refuse(ValueError, what, should, item)
    return frozenset(found)


def _ports(what: str, value: object) -> frozenset[int] | None:
    if value is None:
        return None
    should = "port numbers from 1 to 65535, or None for any"
    for item in (found := options.items(what, "port numbers", value)):
        if isinstance(item, bool) or not isinstance(item, int):
            options.refuse(TypeError, what, should, item)
        if not 1 <= item <= 65535:
            options.refuse(ValueError, what, should, item)
    return frozenset(found)


def _networks(what: str, value: object) -> tuple[Network, ...]:
    should = "networks such as '10.0.0.0/8'"
    networks: list[Network] = []
    for item in options.items(what, should, value):
        if not isinstance(item, str | IPv4Network | IPv6Network | Address):
            options.refuse(TypeError, what, should, item)
        try:
            networks.append(ip_network(item))
        except ValueError:
            meant = network_meant(str(item))
            options.refuse(ValueError, what, should, item, meant=meant)
    return tuple(networks)


def _hosts(what: str, value: object) -> frozenset[str]:
    return frozenset(_host(what, item) for item in options.strings(what, value))


def _host(what: str, value: str) -> str:
    """A host as :class:`yarl.URL` would have it, or all that are below one."""
    if value.startswith("*."):
        above = _host(what, value[2:])
        if is_literal(above) or above.startswith("*."):
            should = "host names such as 'example.com'"
            options.refuse(ValueError, what, should, value)
        return f"*.{above}"
    address = f"[{value}]" if value.count(":") > 1 else value
    try:
        url = URL(f"http://{address}/")
        bare = URL.build(scheme="http", host=url.host or "", path="/")
        host = plain(url.raw_host or "")
    except ValueError:
        url, bare, host = URL(), None, ""
    if url != bare or url.explicit_port is not None or not is_sane(host):
        should = "host names such as 'example.com'"
        options.refuse(ValueError, what, should, value)
    return canonical(host)


def _proxies(what: str, value: Collection[str | URL]) -> frozenset[Origin]:
    # Unlike elsewhere, none at all is a choice.
    if isinstance(value, Collection) and not value:
        return frozenset()
    return parse_origins(what, value)
