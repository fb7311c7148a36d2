"""
===============
SSRF protection
===============

Prevents server-side request forgery (SSRF, CWE-918): keeps requests to
addresses that come from users (webhooks, link previews, imports) out of your
own network, for applications that fetch what they are told to.

Usage
=====

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

If the session is made elsewhere, give it an :class:`SSRFConnector`. What
decides is the address to which a socket is about to connect: it makes no
difference whether it was spelled in octal or mapped into IPv6, came from DNS, a
redirect or a proxy, or whether the request was a WebSocket or had
``middlewares=()``.

Order
=====

The connector needs none. :func:`ssrf_middleware` adds two things to it: it
refuses to work in a session without the connector, and it refuses before the
request waits for a free connection. List it last, next to the wire: it must see
the URL that the others have made.

Limits
======

aiohttp itself refuses what is not a web URL at all, such as
``file:///etc/passwd`` or ``notaurl``, before it asks anybody: with
:class:`aiohttp.NonHttpUrlClientError` or :class:`aiohttp.InvalidURL`. If you
fetch what users type, catch these as well, or :class:`aiohttp.ClientError`,
from which all derive.

A permitted proxy resolves names by itself: the names it is asked for are
checked, the addresses behind them are for the proxy to check. NAT64 with a
prefix of your own network must be in ``deny_networks``. The policy does not
limit the size or the duration of responses. It speaks of addresses, not of what
is behind them: a public address may route back to you.
"""

import socket
from contextvars import ContextVar
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
from aiohttp_middlewares.client.ssrf._addresses import plain
from aiohttp_middlewares.client.ssrf._policy import (
    DEFAULT_PORTS,
    DEFAULT_SCHEMES,
    Reason,
    SSRFPolicy,
    broken_rule,
    permits,
    proxies_of,
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


def ssrf_middleware(policy: SSRFPolicy) -> ClientMiddlewareType:
    """Refuse what the policy forbids, and a session that is not guarded.

    :param policy: The rules. The connector of the session may have others;
        both count, but for the address of a name: that is judged by the
        connector alone.
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
        _check(policy, req)
        return await handler(req)

    return ssrf


def ssrf_session(policy: SSRFPolicy, **kwargs: Any) -> ClientSession:
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
        reason: Reason,
        url: URL | None = None,
        host: str | None = None,
        ip: str | None = None,
    ) -> None:
        if url is not None:
            url = url.with_user(None).with_query(None).with_fragment(None)
        super().__init__(reason, url, host, ip)
        self.reason: Reason = reason
        self.url = url
        self.host = host
        self.ip = ip

    def __str__(self) -> str:
        where = self.host if self.ip is None else f"{self.host} ({self.ip})"
        return f"Refused to connect to {where}: {_REASONS[self.reason]}"


_REASONS: dict[Reason, str] = {
    "scheme": "the scheme is not permitted",
    "port": "the port is not permitted",
    "host": "the host is not permitted",
    "address": "the address is not permitted",
    "proxy": "the proxy is not permitted",
    "connector": "the session has no SSRFConnector",
}


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
            if not _TO_PROXY.get() and not permits(policy, str(info[4][0])):
                raise _RefusedAddress
            return cast(socket.socket, factory(info))

        self._policy = policy
        self._guarded_resolver = _GuardedResolver(policy, resolver)
        super().__init__(
            resolver=self._guarded_resolver,
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
        _check(self._policy, req)
        return await super().connect(req, traces, timeout)

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        # Work that outlives the session dials in the same way, and may come
        # here alone.
        _check(self._policy, req)
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
        await self._guarded_resolver.close()


#: Whether what is being dialled is a proxy, which is exempt when listed.
_TO_PROXY: ContextVar[bool] = ContextVar("ssrf_to_proxy", default=False)


class _RefusedAddress(OSError):
    """Makes aiohttp try the next address; the text is always the same."""


class _GuardedResolver(AbstractResolver):
    """Leaves out of each answer what may not be dialled.

    What is in aiohttp's DNS cache has been through here, and what is dialled
    is what was checked: a name that changes its mind gains nothing.
    """

    def __init__(
        self, policy: SSRFPolicy, resolver: AbstractResolver | None
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._own: AbstractResolver | None = None
        # Not decisive: a direct request to these meets the guarded socket.
        self._proxies = {(host, port) for _, host, port in proxies_of(policy)}

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        resolver = self._resolver or self._own
        if resolver is None:
            # Not before: it asks for the loop that runs.
            resolver = self._own = aiohttp.DefaultResolver()
        found = await resolver.resolve(host, port, family)
        if (plain(host), port) in self._proxies:
            return found
        kept = [item for item in found if permits(self._policy, item["host"])]
        if found and not kept:
            raise SSRFError("address", None, host, found[0]["host"])
        return kept

    async def close(self) -> None:
        """Close what is our own; the user closes theirs."""
        if self._own is not None:
            await self._own.close()


def _new_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, proto, _, _ = info
    return socket.socket(family=family, type=kind, proto=proto)


def _check(policy: SSRFPolicy, req: ClientRequest) -> None:
    """Raise for what can be seen before anything is resolved."""
    broken = broken_rule(policy, req.url, req.proxy)
    if broken is not None:
        reason, ip = broken
        raise SSRFError(reason, req.url, plain(req.url.raw_host or ""), ip)


def _check_policy(what: str, value: object) -> None:
    if not isinstance(value, SSRFPolicy):
        options.refuse(TypeError, what, "an SSRFPolicy", value)
