"""One refresh: a piece of work of its own, whoever asked for it first."""

import asyncio
import random
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import ClientSession

from aiohttp_middlewares.client._connectors import Lender, own_session
from aiohttp_middlewares.client._retry_after import retry_after
from aiohttp_middlewares.client._timeouts import (
    TimeIsUp,
    is_cancelled,
    time_limit,
)
from aiohttp_middlewares.client.bearer_token._grants import Refresh
from aiohttp_middlewares.client.bearer_token._token import (
    Token,
    TokenRefreshError,
    is_passing,
)

if TYPE_CHECKING:
    from aiohttp_middlewares.client.bearer_token import BearerTokenMiddleware

#: How often the endpoint is asked when it fails in a way that may pass, and
#: how long it is left alone after the first time; each time twice as long.
ATTEMPTS = 5
_DELAY = 0.1


class Work:
    """A refresh that is under way, and who waits for it."""

    task: "asyncio.Task[TokenRefreshError | None]"

    def __init__(self, owner: "BearerTokenMiddleware") -> None:
        self.owner = owner
        #: What was fetched, while ``on_token`` keeps it.
        self.token: Token | None = None
        self.is_over = False
        self._lenders: list[Lender] = []
        self._stopping = asyncio.Event()

    def serve(self, session: ClientSession) -> None:
        """Work for this session too, and by its connector."""
        connector = session.connector
        if connector is None or any(
            lender.session is session for lender in self._lenders
        ):
            return
        self._lenders = [
            *(lender for lender in self._lenders if not lender.session.closed),
            Lender(session, connector),
        ]

    def stop(self) -> None:
        """Begin nothing any more; what was sent is waited for."""
        self._stopping.set()

    def end(self) -> None:
        self.is_over = True
        self._lenders.clear()

    async def fetch(
        self, refresh: Refresh, old: Token | None, timeout: float
    ) -> Token:
        """Fetch a token, within ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        attempt = 1
        while True:
            try:
                left = max(0.001, deadline - loop.time())
                return await self._ask(refresh, old, left)
            except TimeIsUp:
                raise TokenRefreshError(
                    f"The token refresh took over {timeout} seconds"
                ) from None
            except TokenRefreshError as exc:
                # Half of it is left to chance: the endpoint that failed one
                # has failed many.
                delay = _DELAY * 2 ** (attempt - 1) * random.uniform(0.5, 1)
                delay = max(delay, exc.retry_after or 0.0)
                if (
                    attempt == ATTEMPTS
                    or not is_passing(exc)
                    or loop.time() + delay >= deadline
                    or await self._is_stopped_within(delay)
                ):
                    raise
            attempt += 1

    async def _is_stopped_within(self, seconds: float) -> bool:
        try:
            async with time_limit(seconds):
                return await self._stopping.wait()
        except TimeIsUp:
            return False

    async def _ask(
        self, refresh: Refresh, old: Token | None, timeout: float
    ) -> Token:
        async with own_session(self._lender()) as session:
            try:
                async with time_limit(timeout):
                    token = await refresh(session, old)
            except (TimeIsUp, TokenRefreshError):
                raise
            except (Exception, asyncio.CancelledError) as exc:
                if isinstance(exc, asyncio.CancelledError) and is_cancelled():
                    raise
                # What it says may hold a secret; it is there as the cause.
                failure = TokenRefreshError(
                    f"The token refresh failed: {type(exc).__name__}"
                )
                if isinstance(exc, aiohttp.ClientResponseError):
                    failure.status = exc.status
                    failure.retry_after = retry_after(exc.headers or {})
                raise failure from exc
        if not isinstance(token, Token):
            name = type(token).__name__
            raise TokenRefreshError(
                f"refresh should return a Token, got {name}"
            )
        return token

    def _lender(self) -> Lender:
        """The one that began it; one of the others when that is closed."""
        for lender in self._lenders:
            if not lender.session.closed:
                return lender
        if not self._lenders:
            raise TokenRefreshError("The session is closed")
        return self._lenders[0]
