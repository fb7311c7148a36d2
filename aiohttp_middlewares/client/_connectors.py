"""Connections for work of a middleware's own, which outlives the session.

A session that is closed cuts whatever its connector has dialled. Work that
must not be cut, such as a token refresh that has been sent, dials in the same
way (addresses, TLS, proxy, and the rules of a connector that has some) and
keeps the connection to itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import aiohttp
from aiohttp import (
    BaseConnector,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import get_env_proxy_for_url
from aiohttp.tracing import Trace
from yarl import URL


class Lender(NamedTuple):
    """What is taken of a session, also when it has been closed since."""

    session: ClientSession
    connector: BaseConnector


def check_open(req: ClientRequest) -> None:
    """Raise when the session of a request was closed while it waited.

    aiohttp looks at that when a call begins, and never again.
    """
    if req.session.closed:
        raise aiohttp.ClientConnectionError("The session was closed")


@asynccontextmanager
async def own_session(lender: Lender) -> AsyncIterator[ClientSession]:
    """A session that reaches what the other reaches, and has nothing else.

    No headers, credentials, cookies, timeouts or middlewares: they are for
    somebody else. Neither is there anything of the environment but a proxy.
    """
    connector, is_own = lender.connector, False
    if _dials_by_its_rules(connector):
        connector, is_own = _Borrowed(connector), True
    async with ClientSession(
        connector=connector,
        connector_owner=is_own,
        timeout=ClientTimeout(),
        middlewares=[_through_proxy_of(lender.session)],
    ) as session:
        yield session


def _dials_by_its_rules(connector: BaseConnector) -> bool:
    """Whether the rules of a connector hold for what is only dialled.

    One whose own ``connect()`` comes before its dialling may have them there;
    it has to be used as it is, and to be open for as long as that takes.
    """
    for kind in type(connector).__mro__:
        if "_create_connection" in vars(kind):
            return True
        if "connect" in vars(kind):
            return False
    return False


class _Borrowed(BaseConnector):
    """Dials as another connector does, and has the connections itself.

    It neither waits for the pool of the other, nor is it closed with it.
    """

    def __init__(self, lender: BaseConnector) -> None:
        super().__init__(force_close=True, limit=0)
        self._lender = lender

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        try:
            return await self._lender._create_connection(req, traces, timeout)
        except asyncio.CancelledError:
            # Closing the other cancels what it resolves, for whomever.
            if self._lender.closed:
                raise aiohttp.ClientConnectionError(
                    "The connector was closed"
                ) from None
            raise


def _through_proxy_of(session: ClientSession) -> ClientMiddlewareType:
    """Set the proxy that requests of ``session`` have by default.

    With ``trust_env`` in its place there would be the credentials of a
    ``.netrc`` file as well.
    """
    # Private until aiohttp has a public way to ask.
    proxy: Any = getattr(session, "_default_proxy", None)
    proxy_auth: Any = getattr(session, "_default_proxy_auth", None)
    trust_env = session.trust_env

    async def through_proxy(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if req.proxy is not None:
            pass  # that of the call
        elif proxy is not None:
            req.proxy, req.proxy_auth = URL(proxy), proxy_auth
        elif trust_env:
            with suppress(LookupError):
                found = await asyncio.to_thread(get_env_proxy_for_url, req.url)
                req.proxy, req.proxy_auth = found
        return await handler(req)

    return through_proxy
