"""
====
SSRF
====

Keeps requests to addresses that come from users (webhooks, link previews,
imports) out of your own network: for applications that fetch what they are
told to (server-side request forgery, CWE-918).

**Usage**

.. code-block:: python

    import asyncio

    from aiohttp_middlewares.client import (
        SSRFError,
        SSRFPolicy,
        ssrf_session,
    )


    async def main() -> None:
        async with ssrf_session(SSRFPolicy()) as session:
            try:
                await session.get("http://169.254.169.254/latest/meta-data/")
            except SSRFError as exc:
                assert exc.reason == "address"


    asyncio.run(main())

Where the session is made elsewhere, give it an :class:`SSRFConnector`. What
decides is the address to which a socket is about to connect: so it makes no
difference whether it was spelled in octal or mapped into IPv6, came out of
the DNS, a redirect or a proxy, or whether the request was a WebSocket or had
``middlewares=()``.

**Order**

The connector needs none. :func:`ssrf_middleware` adds two things to it: it
refuses to work in a session without the connector, and it refuses before the
request waits for a free connection. List it last, next to the wire: it has
to see the URL which the others have made.

**Limits**

A permitted proxy resolves names by itself: the names it is asked for are
checked, the addresses behind them are the proxy's to check. NAT64 with a
prefix of your own network has to stand in ``deny_networks``. The policy does
not limit the size or the duration of responses. It speaks of addresses, not
of what is behind them: a public address may route back to you.
"""

import socket
from collections.abc import Collection
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, cast

import aiohttp
from aiohttp import (
    ClientConnectorError,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._errors import FinalError, caused_by
from aiohttp_middlewares.client._origins import (
    Origin,
    origin_of,
    parse_origins,
)

__all__ = (
    "DEFAULT_PORTS",
    "DEFAULT_SCHEMES",
    "SSRFConnector",
    "SSRFError",
    "SSRFPolicy",
    "ssrf_middleware",
    "ssrf_session",
)

DEFAULT_SCHEMES = frozenset({"http", "https", "ws", "wss"})
DEFAULT_PORTS = frozenset({80, 443})

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def ssrf_middleware(policy: "SSRFPolicy") -> ClientMiddlewareType:
    """Refuse what the policy forbids, and a session that is not guarded.

    :param policy: The rules. The connector of the session may have others;
        both count.
    :raises TypeError: When ``policy`` is something else.

    The middleware alone would not be enough: it does not know to which
    address a name leads. It raises :class:`SSRFError` for all requests of a
    session whose connector is no :class:`SSRFConnector`.
    """
    _check_policy("ssrf_middleware policy", policy)

    async def ssrf(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if not isinstance(req.session.connector, SSRFConnector):
            raise SSRFError("connector", req.url, req.url.raw_host)
        _check_request(policy, req)
        return await handler(req)

    return ssrf


def ssrf_session(policy: "SSRFPolicy", **kwargs: Any) -> ClientSession:
    """A :class:`aiohttp.ClientSession` which the policy guards.

    :param policy: The rules.
    :param kwargs: What :class:`aiohttp.ClientSession` takes. A ``connector``
        has to be an :class:`SSRFConnector` with this policy; by default the
        session gets one of its own.
    :raises TypeError: When ``policy`` or ``connector`` is something else.
    :raises ValueError: When the connector has another policy.
    """
    _check_policy("ssrf_session policy", policy)
    connector = kwargs.pop("connector", None)
    if connector is None:
        connector = SSRFConnector(policy)
    if not isinstance(connector, SSRFConnector):
        should = "an SSRFConnector with this policy"
        options.refuse(TypeError, "ssrf_session connector", should, connector)
    if connector.policy != policy:
        should = "an SSRFConnector with this policy"
        options.refuse(ValueError, "ssrf_session connector", should, connector)
    return ClientSession(connector=connector, **kwargs)


class SSRFError(FinalError):
    """A request that the policy forbids; nothing was sent.

    ``reason`` is the rule that was broken: ``"scheme"``, ``"port"``,
    ``"host"``, ``"address"``, ``"proxy"`` or ``"connector"``. ``url`` is
    without userinfo, query and fragment. ``host`` and ``ip`` are strings, or
    None where they are not known.
    """

    def __init__(
        self,
        reason: str,
        url: URL | None = None,
        host: str | None = None,
        ip: str | None = None,
    ) -> None:
        if url is not None:
            url = url.with_user(None).with_query(None).with_fragment(None)
        super().__init__(reason, url, host, ip)
        self.reason = reason
        self.url = url
        self.host = host
        self.ip = ip

    def __str__(self) -> str:
        where = self.host if self.ip is None else f"{self.host} ({self.ip})"
        return f"Refused to connect to {where}: {_REASONS[self.reason]}"


_REASONS = {
    "scheme": "the scheme is not permitted",
    "port": "the port is not permitted",
    "host": "the host is not permitted",
    "address": "the address is not permitted",
    "proxy": "the proxy is not permitted",
    "connector": "the session has no SSRFConnector",
}


@dataclass(frozen=True)
class SSRFPolicy:
    """What may be reached: by default the public internet, on two ports.

    :param schemes: The schemes of URLs; by default http, https, ws and wss.
    :param ports: The ports; by default 80 and 443. None is any.
    :param allow_networks: Networks that may be reached although they are not
        public, as strings or :mod:`ipaddress` objects.
    :param deny_networks: Networks that may not be reached, whatever else
        permits them.
    :param allow_hosts: The only hosts that may be asked for, exactly as
        spelled here; None is any. Their addresses are checked all the same.
    :param deny_hosts: Hosts that may not be asked for.
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
    NAT64 (RFC 6052 2.1) is judged as IPv4.
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


class SSRFConnector(aiohttp.TCPConnector):
    """A connector that dials only what the policy permits.

    :param policy: The rules.
    :param kwargs: What :class:`aiohttp.TCPConnector` takes. The answers of a
        ``resolver`` are checked like any other.
    :raises TypeError: When ``policy`` is something else.
    """

    def __init__(self, policy: SSRFPolicy, **kwargs: Any) -> None:
        _check_policy("SSRFConnector policy", policy)
        resolver = kwargs.pop("resolver", None)
        factory = kwargs.pop("socket_factory", None) or _new_socket

        def guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
            # What is called last, with what is dialled next. Names were
            # checked when they were resolved; aiohttp resolves no literals.
            if not _TO_PROXY.get() and not _permits(policy, str(info[4][0])):
                raise _RefusedAddress
            return cast(socket.socket, factory(info))

        self._policy = policy
        self._own_resolver: AbstractResolver | None = None
        if resolver is None:
            resolver = self._own_resolver = aiohttp.DefaultResolver()
        super().__init__(
            resolver=_GuardedResolver(policy, resolver),
            socket_factory=guarded_socket,
            **kwargs,
        )

    @property
    def policy(self) -> SSRFPolicy:
        return self._policy

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        # Every request comes through here, also one that then gets a
        # connection from the pool.
        _check_request(self._policy, req)
        return await super().connect(req, traces, timeout)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        # Work that outlives the session dials in the same way, and may come
        # here alone.
        _check_request(self._policy, req)
        to_proxy = _TO_PROXY.set(req.proxy is not None)
        try:
            return await super()._create_connection(req, traces, timeout)
        except SSRFError as exc:
            # From the resolver, which does not know the URL and may answer
            # several requests at once.
            raise SSRFError(exc.reason, req.url, exc.host, exc.ip) from None
        except ClientConnectorError as exc:
            if caused_by(exc, _RefusedAddress) is None:
                raise
            host = req.url.raw_host
            raise SSRFError("address", req.url, host) from None
        finally:
            _TO_PROXY.reset(to_proxy)

    async def close(self, **kwargs: Any) -> None:
        await super().close(**kwargs)
        if self._own_resolver is not None:
            await self._own_resolver.close()


#: Whether what is being dialled is a proxy, which is exempt when listed.
_TO_PROXY: ContextVar[bool] = ContextVar("ssrf_to_proxy", default=False)


class _RefusedAddress(OSError):
    """Makes aiohttp try the next address; the text is always the same."""


class _GuardedResolver(AbstractResolver):
    """Leaves out of each answer what may not be dialled.

    What is in aiohttp's DNS cache has been through here, and what is dialled
    is what was checked: a name that changes its mind gains nothing.
    """

    def __init__(self, policy: SSRFPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver
        # Not decisive: a direct request to these meets the guarded socket.
        self._proxies = {
            (host, port)
            for _, host, port in cast(frozenset[Origin], policy.allow_proxies)
        }

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if (_plain(host), port) in self._proxies:
            return found
        kept = [item for item in found if _permits(self._policy, item["host"])]
        if found and not kept:
            raise SSRFError("address", None, host, found[0]["host"])
        return kept

    async def close(self) -> None:
        """The connector closes its own resolver, the user theirs."""


def _new_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, proto, _, _ = info
    return socket.socket(family=family, type=kind, proto=proto)


# What is asked for
# =================


def _check_request(policy: SSRFPolicy, req: ClientRequest) -> None:
    """Raise for what can be seen before anything is resolved."""
    url, host = req.url, _plain(req.url.raw_host or "")

    if url.scheme not in policy.schemes:
        raise SSRFError("scheme", url, host)
    if policy.ports is not None and url.port not in policy.ports:
        raise SSRFError("port", url, host)
    if not _is_sane(host) or host in policy.deny_hosts:
        raise SSRFError("host", url, host)
    if policy.allow_hosts is not None and host not in policy.allow_hosts:
        raise SSRFError("host", url, host)
    # With a proxy nobody else looks at the address.
    literal = _literal(host)
    if literal is not None and not _permits(policy, literal):
        raise SSRFError("address", url, host, literal)
    if req.proxy is not None and origin_of(req.proxy) not in cast(
        frozenset[Origin], policy.allow_proxies
    ):
        raise SSRFError("proxy", url, host)


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def _is_sane(host: str) -> bool:
    """Letters, digits, ``-``, ``_`` and dots, or an IPv6 address.

    Whatever else there may be, software disagrees on where such a host ends.
    """
    if ":" in host:
        return True  # a literal, or nothing at all
    bare = host.replace("-", "").replace("_", "").replace(".", "")
    return bare.isascii() and bare.isalnum()


def _literal(host: str) -> str | None:
    """The address that a host spells out, if it does.

    A host whose last label is a number is an IPv4 address to browsers and to
    the C library (WHATWG URL, section 3.5). Only the four decimal numbers of
    a canonical one are an address to :func:`_permits`.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"  # RFC 6761 6.3
    last = host.rpartition(".")[2]
    if ":" in host or last.isdigit() or _is_hexadecimal(last):
        return host
    return None


def _is_hexadecimal(label: str) -> bool:
    digits = label.removeprefix("0x")
    return digits != label and set(digits) <= set("0123456789abcdef")


# What is dialled
# ===============


def _permits(policy: SSRFPolicy, host: str) -> bool:
    """Whether an address may be dialled; what cannot be read may not."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if getattr(address, "scope_id", None) is not None:
        return False  # a zone: an address on a link of this machine
    # Whatever it is written in, an IPv4 address is the one that is reached.
    forms = (address, _embedded_ipv4(address) or address)
    if _in_any(forms, policy.deny_networks):
        return False
    return _in_any(forms, policy.allow_networks) or _is_public(forms[1])


def _embedded_ipv4(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _in_any(
    forms: tuple[Address, ...], networks: Collection[str | Network]
) -> bool:
    return any(
        form in network
        for network in cast(tuple[Network, ...], networks)
        for form in forms
    )


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return address in _UNICAST_IPV6 and not any(
        address in network for network in _SPECIAL_IPV6
    )


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


# What is set
# ===========


def _check_policy(what: str, value: object) -> None:
    if not isinstance(value, SSRFPolicy):
        options.refuse(TypeError, what, "an SSRFPolicy", value)


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
            options.refuse(ValueError, what, should, item)
    return tuple(networks)


def _hosts(what: str, value: object) -> frozenset[str]:
    return frozenset(_host(what, item) for item in options.strings(what, value))


def _host(what: str, value: str) -> str:
    """A host as :class:`yarl.URL` would have it."""
    address = f"[{value}]" if value.count(":") > 1 else value
    try:
        url = URL(f"http://{address}/")
        bare = URL.build(scheme="http", host=url.host or "", path="/")
        host = _plain(url.raw_host or "")
    except ValueError:
        url, bare, host = URL(), None, ""
    if url != bare or url.explicit_port is not None or not _is_sane(host):
        should = "host names such as 'example.com'"
        options.refuse(ValueError, what, should, value)
    return host


def _proxies(what: str, value: Collection[str | URL]) -> frozenset[Origin]:
    # Unlike elsewhere, none at all is a choice.
    if isinstance(value, Collection) and not value:
        return frozenset()
    return parse_origins(what, value)
