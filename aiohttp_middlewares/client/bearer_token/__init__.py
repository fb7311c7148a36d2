"""
==================
OAuth bearer token
==================

Sends an access token with each request to an API and refreshes it in time: for
clients of services whose tokens expire (OAuth 2.0, RFC 6749 and RFC 6750).

Usage
=====

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import (
        BearerTokenMiddleware,
        client_credentials,
    )


    async def token(request: web.Request) -> web.Response:
        answer = {"access_token": "abc", "token_type": "Bearer"}
        return web.json_response({**answer, "expires_in": 3600})


    async def api(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Authorization"])


    async def main() -> None:
        app = web.Application()
        app.router.add_post("/token", token)
        app.router.add_get("/api", api)
        async with TestServer(app) as server:
            bearer = BearerTokenMiddleware(
                client_credentials(
                    server.make_url("/token"), "my-client", "my-secret"
                ),
                origins=[server.make_url("/")],
            )
            async with (
                aiohttp.ClientSession(middlewares=[bearer]) as session,
                session.get(server.make_url("/api")) as response,
            ):
                assert await response.text() == "Bearer abc"
            await bearer.aclose()


    asyncio.run(main())

The token is renewed shortly before it expires, in the background, and when
the API refuses it. However many requests need a new one, it is fetched once.

A refresh belongs to the middleware: it goes on when the request or the session
that began it ends, as a refresh token may be good only once. It uses the
connector, the proxy and the TLS settings of a session that waits for the token,
and none of its headers, credentials, cookies and timeouts. The policy of
:doc:`/client/ssrf` holds for it too.

A token endpoint that fails in a way that may pass (no connection, 408, 429,
5xx) is asked up to five times within ``refresh_timeout``, and left alone for as
long as its ``Retry-After`` says, an hour at most. One that refuses for good,
such as with ``invalid_grant``, is left alone for ``final_failure_ttl``; what it
said is the ``error`` of :class:`TokenRefreshError`.

A token that the API refuses is renewed, unless that would not help: when it
was issued seconds ago and has never been accepted, when the API says
``insufficient_scope`` (RFC 6750 3.1), and for ``failure_ttl`` after a new
token was refused like the old one.

Order
=====

Inside of a retry middleware, so that each attempt has a token that is good at
that time. Where :doc:`/client/ssrf` or another middleware sends requests to
other URLs, it must stand outside: the token is for the URL that is seen here.

Limits
======

A request whose body cannot be sent again (a generator, a pipe) gets the
answer of the API; a new token is fetched for the next one. The token lives in
memory, one for each middleware; to keep it elsewhere, use ``on_token``, and
call ``aclose()`` before the end: it waits for a token that is on its way.

A refresh passes through no other middleware of the session, neither a log nor a
retry. A connector of your own with rules in its ``connect()`` is used as it is,
so that these hold; the refresh then ends with its session. One middleware
serves one event loop after the other; with several at once, each fetches tokens
for itself.
"""

import asyncio
import contextvars
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar

from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    hdrs,
)
from yarl import URL

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares.client._bodies import (
    discard,
    is_replayable,
    keep_cookies,
    prepare_again,
)
from aiohttp_middlewares.client._connectors import check_open
from aiohttp_middlewares.client._headers import header_for_now
from aiohttp_middlewares.client._hooks import call_hook
from aiohttp_middlewares.client._origins import origin_of, parse_origins
from aiohttp_middlewares.client._timeouts import TimeIsUp, cut, time_limit
from aiohttp_middlewares.client.bearer_token._grants import (
    Refresh,
    client_credentials,
    refresh_token_grant,
)
from aiohttp_middlewares.client.bearer_token._refresh import Work
from aiohttp_middlewares.client.bearer_token._token import (
    Token,
    TokenRefreshError,
    is_final,
)

__all__ = (
    "DEFAULT_REFRESH_STATUSES",
    "BearerTokenMiddleware",
    "Token",
    "TokenRefreshError",
    "client_credentials",
    "refresh_token_grant",
)

DEFAULT_REFRESH_STATUSES = frozenset({401})

logger: logging.Logger = logs.get_logger(__name__)

#: A token this young that no request has proved good is refused for another
#: reason than its age; in seconds.
_YOUNG = 5.0

#: What ``Retry-After`` counts for at most, in seconds.
LONGEST_PAUSE = 3600.0


class BearerTokenMiddleware:
    """Send an access token to these origins, and renew it.

    :param refresh: An async function that fetches a token. It is called with
        a session of its own and with the token there was, or None. That
        session has the connector, the proxy and the TLS settings of one that
        waits for the token, and nothing else: no base URL, headers,
        credentials, cookies, timeouts or middlewares. What ``refresh`` sends
        through any session passes this middleware untouched. See
        :func:`client_credentials` and :func:`refresh_token_grant`.
    :param origins: The origins that get the token, such as
        ``"https://api.example.com"``. There any other ``Authorization`` is
        replaced; requests elsewhere, also after a redirect, are not touched.
    :param token: The token to begin with; by default the first request
        fetches one.
    :param leeway: A token that expires in less than these seconds is renewed
        before it is sent; by default 30.
    :param refresh_ahead: A token that expires in less than these seconds is
        renewed while it is still sent; by default 60. Neither this nor
        ``leeway`` is ever more than half of the lifetime of a token that
        ``refresh`` brought; that of ``token`` is not known.
    :param refresh_timeout: How many seconds a refresh may take, with all that
        is tried again; by default 30. ``on_token`` may take as long again.
    :param failure_ttl: For how many seconds after a refresh that failed no
        other one is tried; by default 1, or what its ``Retry-After`` asks for
        if that is more. As long nothing is renewed for an
        API that has just refused a new token as well.
    :param final_failure_ttl: The same for a refresh that the endpoint refused
        for good, such as with ``invalid_grant``; by default 60.
        :meth:`invalidate` ends it.
    :param refresh_statuses: The status codes that refuse a token; by default
        401. The request is sent once more with a new one.
    :param on_token: Called with each new token, to keep it, before anybody
        else gets it: only what it sends itself has it already. It may be
        async; when it raises, that is logged and changes nothing.
    :param clock: The time in seconds since the epoch.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no origin, a number out of range, or no
        status.

    Requests raise :class:`TokenRefreshError` when there is no token to be
    had.
    """

    def __init__(
        self,
        refresh: Refresh,
        *,
        origins: Collection[str | URL],
        token: Token | None = None,
        leeway: float = 30.0,
        refresh_ahead: float = 60.0,
        refresh_timeout: float = 30.0,
        failure_ttl: float = 1.0,
        final_failure_ttl: float = 60.0,
        refresh_statuses: Collection[int] = DEFAULT_REFRESH_STATUSES,
        on_token: Callable[[Token], Awaitable[object] | object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        what = "BearerTokenMiddleware"
        if not callable(refresh):
            # The value is not shown: it may be the token itself.
            raise TypeError(f"{what} refresh should be a callable")
        self._origins = parse_origins(f"{what} origins", origins)
        if not isinstance(token, Token | None):
            # The value is not shown: most likely it is the secret.
            raise TypeError(f"{what} token should be a Token or None")
        spans = {
            "leeway": leeway,
            "refresh_ahead": refresh_ahead,
            "failure_ttl": failure_ttl,
            "final_failure_ttl": final_failure_ttl,
        }
        for name, value in spans.items():
            options.seconds(f"{what} {name}", value, zero=True)
        options.seconds(f"{what} refresh_timeout", refresh_timeout)
        if on_token is not None:
            options.function(f"{what} on_token", on_token)
        options.function(f"{what} clock", clock)
        self._refresh_statuses = options.statuses(
            f"{what} refresh_statuses", refresh_statuses
        )
        self._refresh = refresh
        self._leeway = leeway
        self._refresh_ahead = refresh_ahead
        self._refresh_timeout = refresh_timeout
        self._failure_ttl = failure_ttl
        self._final_failure_ttl = final_failure_ttl
        self._on_token = on_token
        self._clock = clock

        self._token = token
        # Of a token that was handed in nobody knows when it was issued.
        self._lifetime = math.inf
        self._issued_at = -math.inf
        self._is_proved = False
        self._is_refused = False
        # How many tokens there were. A new one may look like the old one.
        self._generation = 0
        self._was_useless_at = -math.inf
        self._work: Work | None = None
        self._failure: TokenRefreshError | None = None
        self._failed_at = -math.inf

    async def __call__(
        self, req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if origin_of(req.url) not in self._origins:
            return await handler(req)
        for work in _under_way():
            if work.owner is self:
                # It must not wait for itself.
                if work.token is None:
                    return await handler(req)
                return await _send(req, handler, work.token)

        await self._prepare(req.session)
        check_open(req)
        generation = self._generation
        response = await _send(req, handler, self._token)
        if not (
            self._is_refusal(response, generation)
            and self._may_help(response, generation)
        ):
            return response
        if not is_replayable(req):
            if generation == self._generation:
                self._is_refused = True
                self._start(req.session)
            return response

        keep_cookies(req, response)
        # First the connection: the refresh may need it.
        await discard(response)
        await self._renew(req.session, generation)
        prepare_again(req)
        generation = self._generation
        response = await _send(req, handler, self._token)
        if self._is_refusal(response, generation):
            self._was_useless_at = self._clock()
        return response

    def invalidate(self) -> None:
        """Fetch a new token before the next request, whatever failed."""
        self._is_refused = True
        self._failure = None

    async def aclose(self) -> None:
        """Wait for a refresh that was sent, and for ``on_token``.

        The token that it brings may be the only one that is still good. Each
        of the two may take up to ``refresh_timeout``; what then goes on all
        the same is cut, with a warning. Nothing is tried again any more; who
        then still waits gets an error.
        """
        work = self._running()
        if work is None:
            return
        work.stop()
        await asyncio.wait([work.task], timeout=2 * self._refresh_timeout)
        if not work.task.done():
            logger.warning("A token refresh was cut at the end")
            await cut(work.task)

    async def _prepare(self, session: ClientSession) -> None:
        """See to it that there is a token which is good now."""
        left = self._left()
        if left <= self._part(self._leeway):
            try:
                await self._renew(session, self._generation)
            except TokenRefreshError:
                # What has not expired yet is better than nothing.
                if self._left() <= 0:
                    raise
        elif left <= self._part(self._refresh_ahead):
            self._start(session)

    def _is_refusal(self, response: ClientResponse, generation: int) -> bool:
        """Whether the token was refused; else it may be proved good."""
        if generation == self._generation and response.status < 400:
            self._is_proved = True
        return response.status in self._refresh_statuses

    def _may_help(self, response: ClientResponse, generation: int) -> bool:
        """Whether a new token may change the answer of the API."""
        # RFC 6750 3.1: one with a wider scope is not what a refresh brings.
        challenges = lines(response, hdrs.WWW_AUTHENTICATE)
        if any(map(_INSUFFICIENT_SCOPE.search, challenges)):
            return False
        if generation != self._generation:
            return True  # there is a newer one already
        if not self._is_proved and self._since(self._issued_at) < _YOUNG:
            return False
        return self._since(self._was_useless_at) >= self._failure_ttl

    def _left(self) -> float:
        """For how many seconds the token is good."""
        if self._token is None or self._is_refused:
            return 0.0
        if self._token.expires_at is None:
            return math.inf
        return max(0.0, self._token.expires_at - self._clock())

    def _part(self, seconds: float) -> float:
        # Or else a token that lives for a minute would be renewed with each
        # request.
        return min(seconds, self._lifetime / 2)

    def _since(self, moment: float) -> float:
        """The seconds since then; a clock that was set back knows nothing."""
        since = self._clock() - moment
        return since if since >= 0 else math.inf

    async def _renew(self, session: ClientSession, generation: int) -> None:
        """Wait until there is a newer token than that of ``generation``."""
        if generation != self._generation:
            return
        work = self._start(session)
        failure = self._failure
        if work is not None:
            # It is nobody's own: who waits may be cancelled, and the others
            # get their token all the same.
            await asyncio.wait([work.task])
            failure = None if work.task.cancelled() else work.task.result()
        if generation == self._generation:
            raise self._error(failure)

    def _start(self, session: ClientSession) -> Work | None:
        """The refresh that is under way; None shortly after a failure."""
        work = self._running()
        if work is not None:
            work.serve(session)
            return work
        if self._blocked_for() > 0:
            return None
        self._failure = None
        work = self._work = Work(self)
        work.serve(session)  # first, as an eager task begins at once
        # In a context of its own: no deadline, no id and no user of the
        # request that happens to come first is that of all.
        context = contextvars.Context()
        context.run(_PART_OF.set, (*_under_way(), work))
        work.task = context.run(asyncio.create_task, self._run(work))
        return work

    def _running(self) -> Work | None:
        work = self._work
        if work is None or work.task.done():
            return None
        # One of a loop that was closed will never be done.
        is_here = work.task.get_loop() is asyncio.get_running_loop()
        return work if is_here else None

    def _blocked_for(self) -> float:
        """For how many seconds no refresh is tried."""
        failure = self._failure
        if failure is None:
            return 0.0
        if is_final(failure):
            span = self._final_failure_ttl
        else:
            asked = min(failure.retry_after or 0.0, LONGEST_PAUSE)
            span = max(self._failure_ttl, asked)
        return max(0.0, span - self._since(self._failed_at))

    async def _run(self, work: Work) -> TokenRefreshError | None:
        """Fetch one token; run as a task, which raises nothing."""
        try:
            token = await work.fetch(
                self._refresh, self._token, self._refresh_timeout
            )
            await self._keep(token, work)
        except TokenRefreshError as exc:
            self._failure = exc
            self._failed_at = self._clock()
            logger.warning(
                "%s",
                exc,
                extra={"error": exc.error, "status": exc.status},
            )
            return exc
        finally:
            work.end()
        return None

    async def _keep(self, token: Token, work: Work) -> None:
        issued_at = self._clock()
        try:
            if self._on_token is not None:
                work.token = token
                async with time_limit(self._refresh_timeout):
                    await call_hook(logger, "on_token", self._on_token, token)
        except TimeIsUp:
            logger.warning("The hook on_token took too long")
        finally:
            self._token = token
            self._is_refused = self._is_proved = False
            self._generation += 1
            self._issued_at = issued_at
            self._lifetime = math.inf
            if token.expires_at is not None:
                self._lifetime = max(0.0, token.expires_at - issued_at)

    def _error(self, failure: TokenRefreshError | None) -> TokenRefreshError:
        """An exception for one of those who waited."""
        if failure is None:
            return TokenRefreshError("The token refresh was cancelled")
        error = TokenRefreshError(
            failure.message,
            error=failure.error,
            status=failure.status,
            retry_after=self._blocked_for(),
        )
        error.__cause__ = failure.__cause__
        return error


#: The refreshes that the current code is a part of, or was when it began.
_PART_OF: ContextVar[tuple[Work, ...]] = ContextVar(
    "bearer_token_part_of", default=()
)


def _under_way() -> tuple[Work, ...]:
    """Those of them that are not over: a task may outlive its refresh."""
    return tuple(work for work in _PART_OF.get() if not work.is_over)


_INSUFFICIENT_SCOPE = re.compile(r'\berror\s?=\s?"?insufficient_scope\b')


async def _send(
    req: ClientRequest, handler: ClientHandlerType, token: Token | None
) -> ClientResponse:
    if token is None:
        raise RuntimeError("there is no token, and no error")
    with header_for_now(req, hdrs.AUTHORIZATION, f"Bearer {token.value}"):
        return await handler(req)
