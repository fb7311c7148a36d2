"""
============
Bearer Token
============

Sends an access token with each request to an API and renews it in time: for
clients of services that hand out tokens which expire (OAuth 2.0, RFC 6749
and RFC 6750).

**Usage**

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

**Order**

Inside of a retry middleware, so that each attempt has a token that is good at
that time. Where :doc:`/client/ssrf` or another middleware turns requests to
other URLs, it has to stand outside: the token is for the URL that is seen
here.

**Limits**

A request whose body cannot be sent again (a generator, a pipe) gets the
answer of the API; the next request fetches a new token first. The token lives
in memory, one for each middleware; to keep it elsewhere, use ``on_token``.
"""

import asyncio
import base64
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus

import aiohttp
from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
    hdrs,
)
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._bodies import (
    discard,
    is_replayable,
    prepare_again,
)
from aiohttp_middlewares.client._headers import header_for_now
from aiohttp_middlewares.client._hooks import call_hook
from aiohttp_middlewares.client._origins import origin_of, parse_origins
from aiohttp_middlewares.client._timeouts import TimeIsUp, time_limit

__all__ = (
    "DEFAULT_REFRESH_STATUSES",
    "BearerTokenMiddleware",
    "Token",
    "TokenRefreshError",
    "client_credentials",
    "refresh_token_grant",
)

DEFAULT_REFRESH_STATUSES = frozenset({401})

logger = logging.getLogger(__name__)

#: What may stand in a header field (RFC 9110 5.5) and is no space.
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Token:
    """An access token.

    :param value: The token itself.
    :param expires_at: When it expires, in seconds since the epoch; None when
        that is not known.
    :param refresh_token: What a new one is fetched with, where it changes
        with each; it is for those who keep tokens (``on_token``).
    :raises TypeError: For a value of another type.
    :raises ValueError: For a token that fits into no header.

    The secrets are not part of the representation.
    """

    value: str = field(repr=False)
    expires_at: float | None = None
    refresh_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # No value is shown here: they are secrets.
        if not isinstance(self.value, str):
            raise TypeError("Token value should be a string")
        if not _VISIBLE.fullmatch(self.value):
            raise ValueError("Token value should be visible ASCII characters")
        if self.expires_at is not None:
            what, should = "Token expires_at", "seconds since the epoch"
            if isinstance(self.expires_at, bool) or not isinstance(
                self.expires_at, int | float
            ):
                options.refuse(TypeError, what, should, self.expires_at)
            if not math.isfinite(self.expires_at):
                options.refuse(ValueError, what, should, self.expires_at)
        if not isinstance(self.refresh_token, str | None):
            raise TypeError("Token refresh_token should be a string")


#: A refresh. It raises nothing: who would hear of it?
_Task = asyncio.Task["TokenRefreshError | None"]

#: Fetches a token; it is given the session and the token there was.
Refresh = Callable[[ClientSession, Token | None], Awaitable[Token]]


class BearerTokenMiddleware:
    """Send an access token to these origins, and renew it.

    :param refresh: An async function that fetches a token. It is called with
        the session of the request and with the token there was, or None.
        What it sends through that session passes this middleware untouched.
        See :func:`client_credentials` and :func:`refresh_token_grant`.
    :param origins: The origins that get the token, such as
        ``"https://api.example.com"``. There any other ``Authorization`` is
        replaced; requests elsewhere, also after a redirect, are not touched.
    :param token: The token to begin with; by default the first request
        fetches one.
    :param leeway: A token that expires in less than these seconds is renewed
        before it is sent; by default 30.
    :param refresh_ahead: A token that expires in less than these seconds is
        renewed while it is still sent; by default 60. Neither this nor
        ``leeway`` is ever more than half of the token's lifetime.
    :param refresh_timeout: How many seconds a refresh may take; by default
        30.
    :param failure_ttl: For how many seconds after a refresh that failed no
        other one is tried; by default 1.
    :param refresh_statuses: The status codes that refuse a token; by default
        401. The request is sent once more with a new one.
    :param on_token: Called with each new token, to keep it. It may be async;
        when it raises, that is logged and changes nothing.
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
        refresh_statuses: Collection[int] = DEFAULT_REFRESH_STATUSES,
        on_token: Callable[[Token], Awaitable[object] | object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        what = "BearerTokenMiddleware"
        options.function(f"{what} refresh", refresh)
        self._origins = parse_origins(f"{what} origins", origins)
        if not isinstance(token, Token | None):
            # The value is not shown: most likely it is the secret.
            raise TypeError(f"{what} token should be a Token or None")
        spans = {
            "leeway": leeway,
            "refresh_ahead": refresh_ahead,
            "failure_ttl": failure_ttl,
        }
        for name, value in spans.items():
            if value != 0 or isinstance(value, bool):
                options.seconds(f"{what} {name}", value)
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
        self._on_token = on_token
        self._clock = clock

        self._token: Token | None = None
        self._lifetime = math.inf
        self._is_refused = False
        # How many tokens there were. A new one may look like the old one.
        self._generation = 0
        self._task: _Task | None = None
        self._failure: TokenRefreshError | None = None
        self._failed_at = 0.0
        if token is not None:
            self._keep(token)

    async def __call__(
        self, req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if origin_of(req.url) not in self._origins:
            return await handler(req)
        if self in _REFRESHING.get():
            return await handler(req)

        await self._prepare(req.session)
        generation = self._generation
        response = await self._send(req, handler)
        if response.status not in self._refresh_statuses:
            return response
        if not is_replayable(req):
            if generation == self._generation:
                self._is_refused = True
            return response

        # First the connection: the refresh may need it.
        await discard(response)
        await self._renew(req.session, generation)
        prepare_again(req)
        return await self._send(req, handler)

    def invalidate(self) -> None:
        """Fetch a new token before the next request."""
        self._is_refused = True

    async def aclose(self) -> None:
        """End a refresh that is under way; who waits for it gets an error."""
        task = self._running()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

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

    async def _send(
        self, req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if self._token is None:
            raise RuntimeError("there is no token, and no error")
        value = f"Bearer {self._token.value}"
        with header_for_now(req, hdrs.AUTHORIZATION, value):
            return await handler(req)

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

    async def _renew(self, session: ClientSession, generation: int) -> None:
        """Wait until there is a newer token than that of ``generation``."""
        if generation != self._generation:
            return
        task = self._start(session)
        failure = self._failure
        if task is not None:
            # It is nobody's own: who waits may be cancelled, and the others
            # get their token all the same.
            await asyncio.wait([task])
            failure = None if task.cancelled() else task.result()
        if generation == self._generation:
            raise _copy(failure)

    def _start(self, session: ClientSession) -> _Task | None:
        """The refresh that is under way; None shortly after a failure."""
        task = self._running()
        if task is not None:
            return task
        if self._failure is not None:
            # A clock that was set back must not stretch the time.
            since = self._clock() - self._failed_at
            if 0 <= since < self._failure_ttl:
                return None
        self._failure = None
        self._task = asyncio.create_task(self._fetch(session))
        return self._task

    def _running(self) -> _Task | None:
        task = self._task
        if task is None or task.done():
            return None
        # One of a loop that was closed will never be done.
        return task if task.get_loop() is asyncio.get_running_loop() else None

    async def _fetch(
        self, session: ClientSession
    ) -> "TokenRefreshError | None":
        """Fetch one token; run as a task."""
        _REFRESHING.set((*_REFRESHING.get(), self))
        try:
            token = await self._ask(session)
        except TokenRefreshError as exc:
            self._failure = exc
            self._failed_at = self._clock()
            logger.warning(
                "%s",
                exc,
                extra={"error": exc.error, "status": exc.status},
            )
            return exc
        self._keep(token)
        if self._on_token is not None:
            try:
                async with time_limit(self._refresh_timeout):
                    await call_hook(logger, "on_token", self._on_token, token)
            except TimeIsUp:
                logger.warning("The hook on_token took too long")
        return None

    async def _ask(self, session: ClientSession) -> Token:
        try:
            async with time_limit(self._refresh_timeout):
                token = await self._refresh(session, self._token)
        except TimeIsUp:
            raise TokenRefreshError(
                f"The token refresh took over {self._refresh_timeout} seconds"
            ) from None
        except TokenRefreshError:
            raise
        except Exception as exc:
            # What it says may hold a secret; it is there as the cause.
            raise TokenRefreshError(
                f"The token refresh failed: {type(exc).__name__}"
            ) from exc
        if not isinstance(token, Token):
            name = type(token).__name__
            raise TokenRefreshError(
                f"refresh should return a Token, got {name}"
            )
        return token

    def _keep(self, token: Token) -> None:
        self._token = token
        self._is_refused = False
        self._generation += 1
        self._lifetime = math.inf
        if token.expires_at is not None:
            self._lifetime = max(0.0, token.expires_at - self._clock())


#: The middlewares whose refresh the current code is a part of.
_REFRESHING: ContextVar[tuple[BearerTokenMiddleware, ...]] = ContextVar(
    "bearer_token_refreshing", default=()
)


class TokenRefreshError(aiohttp.ClientError):
    """There is no token to be had.

    ``error`` is the code of the token endpoint (RFC 6749 5.2), such as
    ``"invalid_grant"``, and ``status`` its status; both are None when it did
    not come to that.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error = error
        self.status = status


def _copy(failure: TokenRefreshError | None) -> TokenRefreshError:
    """An exception for one of those who waited."""
    if failure is None:
        return TokenRefreshError("The token refresh was cancelled")
    error = TokenRefreshError(
        failure.message, error=failure.error, status=failure.status
    )
    error.__cause__ = failure.__cause__
    return error


# Where tokens come from
# ======================


def client_credentials(
    token_url: str | URL,
    client_id: str,
    client_secret: str,
    *,
    scope: str | None = None,
    extra: Mapping[str, str] | None = None,
    auth: Literal["basic", "post"] = "basic",
) -> Refresh:
    """The client credentials grant, RFC 6749 4.4.

    :param token_url: The token endpoint. Its redirects are not followed.
    :param client_id: The id of this client.
    :param client_secret: Its secret.
    :param scope: What to ask for, separated by spaces.
    :param extra: More fields for the request, such as an ``audience``.
    :param auth: How the client identifies itself: ``"basic"``, as a header,
        or ``"post"``, within the body.
    :return: A function for :class:`BearerTokenMiddleware`.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no URL, and for an unknown ``auth``.
    """
    what = "client_credentials"
    if not isinstance(client_secret, str):
        raise TypeError(f"{what} client_secret should be a string")
    form = {"grant_type": "client_credentials"}
    if scope is not None:
        form["scope"] = _string(f"{what} scope", scope)
    url, headers = _endpoint(
        what, token_url, client_id, client_secret, extra, auth, form
    )

    async def refresh(session: ClientSession, old: Token | None) -> Token:
        return await _request(session, url, headers, form)

    return refresh


def refresh_token_grant(
    token_url: str | URL,
    refresh_token: str,
    client_id: str,
    client_secret: str | None = None,
    *,
    extra: Mapping[str, str] | None = None,
    auth: Literal["basic", "post"] = "basic",
) -> Refresh:
    """The refresh token grant, RFC 6749 6.

    :param token_url: The token endpoint. Its redirects are not followed.
    :param refresh_token: The refresh token to begin with. When the endpoint
        hands out another one, that one is used from then on, and it is the
        ``refresh_token`` of the :class:`Token` that ``on_token`` gets.
    :param client_id: The id of this client.
    :param client_secret: Its secret; None for a public client.
    :param extra: More fields for the request.
    :param auth: How the client identifies itself: ``"basic"``, as a header,
        or ``"post"``, within the body.
    :return: A function for :class:`BearerTokenMiddleware`.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no URL, and for an unknown ``auth``.
    """
    what = "refresh_token_grant"
    if not isinstance(refresh_token, str) or not refresh_token:
        raise TypeError(f"{what} refresh_token should be a non-empty string")
    form = {"grant_type": "refresh_token", "refresh_token": ""}
    url, headers = _endpoint(
        what, token_url, client_id, client_secret, extra, auth, form
    )
    latest = refresh_token

    async def refresh(session: ClientSession, old: Token | None) -> Token:
        nonlocal latest
        if old is not None and old.refresh_token is not None:
            latest = old.refresh_token
        sent = {**form, "refresh_token": latest}
        token = await _request(session, url, headers, sent)
        # From here on the one that was sent may be of no more use.
        latest = token.refresh_token or latest
        return Token(token.value, token.expires_at, latest)

    return refresh


def _endpoint(
    what: str,
    token_url: object,
    client_id: object,
    client_secret: object,
    extra: object,
    auth: object,
    form: dict[str, str],
) -> tuple[URL, dict[str, str]]:
    """Check what both grants take, and add it to the form."""
    should = "an absolute http or https URL"
    if not isinstance(token_url, str | URL):
        options.refuse(TypeError, f"{what} token_url", should, token_url)
    try:
        url = URL(token_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        options.refuse(ValueError, f"{what} token_url", should, token_url)
    _string(f"{what} client_id", client_id)
    if not isinstance(client_secret, str | None):
        # The value is not shown: most likely it is the secret.
        raise TypeError(f"{what} client_secret should be a string or None")
    if auth not in ("basic", "post"):
        options.refuse(ValueError, f"{what} auth", "'basic' or 'post'", auth)
    if not isinstance(extra, Mapping | None):
        should = "a mapping of names to strings"
        options.refuse(TypeError, f"{what} extra", should, extra)
    for name, value in (extra or {}).items():
        if name in {*form, "client_id", "client_secret"}:
            should = "a mapping without the fields of the grant"
            options.refuse(ValueError, f"{what} extra", should, name)
        if not isinstance(name, str) or not isinstance(value, str):
            should = "a mapping of names to strings"
            options.refuse(TypeError, f"{what} extra", should, name)
        form[name] = value

    headers: dict[str, str] = {hdrs.ACCEPT: "application/json"}
    if client_secret is None:
        form["client_id"] = str(client_id)
    elif auth == "post":
        form["client_id"] = str(client_id)
        form["client_secret"] = client_secret
    else:
        # RFC 6749 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(str(client_id))}:{quote_plus(client_secret)}"
        encoded = base64.b64encode(pair.encode("ascii")).decode("ascii")
        headers[hdrs.AUTHORIZATION] = f"Basic {encoded}"
    return url, headers


def _string(what: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        options.refuse(TypeError, what, "a non-empty string", value)
    return value


async def _request(
    session: ClientSession,
    url: URL,
    headers: dict[str, str],
    form: dict[str, str],
) -> Token:
    """Ask the token endpoint."""
    now = time.time()
    async with session.post(
        url,
        data=form,
        headers=headers,
        # They would carry the secret elsewhere.
        allow_redirects=False,
        raise_for_status=False,
    ) as response:
        status = response.status
        body = await response.read()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    found = answer if isinstance(answer, dict) else {}
    if status != 200:
        error = _error_code(found.get("error"))
        said = f"{status}, {error}" if error else str(status)
        raise TokenRefreshError(
            f"The token endpoint answered {said}", error=error, status=status
        )
    return _token_of(found, now)


def _error_code(value: object) -> str | None:
    """A code such as ``invalid_client``, and nothing that is longer."""
    if isinstance(value, str) and re.fullmatch(r"[\w.:/-]{1,80}", value):
        return value
    return None


def _token_of(answer: dict[str, Any], now: float) -> Token:
    """The token of a successful answer, RFC 6749 5.1."""
    kind = answer.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenRefreshError(
            "The token endpoint answered with another type of token"
        )
    lifetime = _lifetime(answer.get("expires_in"))
    expires_at = None if lifetime is None else now + lifetime
    renewed = answer.get("refresh_token")
    try:
        return Token(
            answer.get("access_token", ""),
            expires_at,
            renewed if isinstance(renewed, str) and renewed else None,
        )
    except (TypeError, ValueError):
        raise TokenRefreshError(
            "The token endpoint answered without a token"
        ) from None


def _lifetime(value: object) -> float | None:
    """The seconds of ``expires_in``, which some servers send as a string."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 1e12 else None
