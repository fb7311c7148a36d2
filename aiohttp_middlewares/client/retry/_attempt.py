"""One sending of a request: what came of it, and whether to send it again."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_middlewares.client._bodies import is_replayable
from aiohttp_middlewares.client._errors import (
    FinalError,
    caused_by,
    is_of_own_body,
)
from aiohttp_middlewares.client._passage import Passage
from aiohttp_middlewares.client._redact import redact_url
from aiohttp_middlewares.client._retry_after import retry_after
from aiohttp_middlewares.client._timeouts import TimeIsUp, TimeLimit

#: The methods that are idempotent, RFC 9110 9.2.2. aiohttp repeats them once
#: by itself when the connection broke.
IDEMPOTENT_METHODS = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
)


class RetryExhausted(aiohttp.ClientConnectionError):
    """The server broke the connection, and no attempt is left.

    It stands for :class:`aiohttp.ServerDisconnectedError` and for
    :class:`aiohttp.ClientOSError`: when one of these came out, aiohttp would
    begin anew. ``attempts`` is how often the request was sent,
    ``last_exception`` what happened the last time.
    """

    def __init__(self, attempts: int, last_exception: Exception) -> None:
        super().__init__(attempts, last_exception)
        self.attempts = attempts
        self.last_exception = last_exception

    def __str__(self) -> str:
        name = type(self.last_exception).__name__
        times = "time" if self.attempts == 1 else "times"
        return f"Sent {self.attempts} {times}, at last: {name}"


@dataclass
class Attempt:
    """One sending of a request; ``number`` counts from 1."""

    request: ClientRequest
    number: int
    passage: Passage
    response: ClientResponse | None = None
    error: Exception | None = None

    def result(self, earlier: "Attempt | None") -> ClientResponse:
        """What the caller gets when there is no other attempt."""
        if self.response is not None:
            return self.response
        error = self._to_raise()
        if earlier is not None and error.__cause__ is None:
            # A breaker that opened in between says nothing of the failures.
            error.__cause__ = error.__context__ = earlier.as_exception()
        raise error

    def _to_raise(self) -> Exception:
        if self.error is None:
            raise RuntimeError("neither a response nor an error")
        cause = self.error.__cause__
        if is_of_own_body(self.error) and isinstance(cause, OSError):
            # aiohttp repeats a ClientOSError, and makes one of this.
            return cause
        if (
            not _is_repeated_by_aiohttp(self.request, self.error)
            # RFC 9112 9.3.1: a connection of the pool may have been closed
            # long ago. To send it anew is no retry, and aiohttp does so.
            or (
                self.number == 1
                and self.passage.is_reused
                and is_replayable(self.request)
            )
        ):
            return self.error
        exhausted = RetryExhausted(self.number, self.error)
        exhausted.__cause__ = self.error
        return exhausted

    def as_exception(self) -> Exception | None:
        response = self.response
        if response is None:
            return self.error
        url = URL(redact_url(self.request.url))
        nothing = CIMultiDictProxy(CIMultiDict[str]())
        return aiohttp.ClientResponseError(
            aiohttp.RequestInfo(url, self.request.method, nothing, url),
            (),
            status=response.status,
            message=response.reason or "",
        )

    @property
    def has_sent_nothing(self) -> bool:
        return (
            isinstance(self.error, _NOTHING_SENT)
            or self.passage.has_sent_nothing
        )

    @property
    def is_final(self) -> bool:
        error = self.error
        return (
            isinstance(error, _FINAL)
            or caused_by(error, FinalError) is not None
            or is_of_own_body(error)
        )


async def send(
    req: ClientRequest,
    handler: ClientHandlerType,
    number: int,
    timeout: float | None,
) -> Attempt:
    """Send a request; no wait for a turn is part of ``timeout``."""
    error: Exception
    with Passage(req) as passage:
        try:
            if timeout is None:
                return Attempt(req, number, passage, await handler(req))
            async with TimeLimit(timeout, waits=True) as passage.limit:
                return Attempt(req, number, passage, await handler(req))
        except TimeIsUp:
            if passage.has_sent_nothing:
                error = aiohttp.ConnectionTimeoutError(
                    f"No connection within {timeout} seconds"
                )
            else:
                error = aiohttp.ServerTimeoutError(
                    f"No response within {timeout} seconds"
                )
        except asyncio.TimeoutError as exc:
            if not isinstance(exc, aiohttp.ServerTimeoutError):
                raise  # the total timeout: the caller's time is over
            error = exc
        except Exception as exc:
            error = exc
    return Attempt(req, number, passage, error=error)


#: Raised before anything of the request has left.
_NOTHING_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
)

#: What another attempt will not change. A connector error may be one of a
#: TLS check; RetryExhausted comes from a middleware like this one.
_FINAL = (
    aiohttp.ClientSSLError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
    RetryExhausted,
)

#: What a proxy answers to CONNECT when the tunnel may be there in a moment.
_PASSING_PROXY_STATUSES = frozenset({502, 503, 504})


def _is_repeated_by_aiohttp(req: ClientRequest, error: Exception) -> bool:
    return req.method in IDEMPOTENT_METHODS and (
        isinstance(error, aiohttp.ServerDisconnectedError)
        or (
            isinstance(error, aiohttp.ClientOSError)
            and not isinstance(error, aiohttp.ClientConnectorError)
        )
    )


@dataclass(frozen=True)
class Rules:
    """What is a failure, what may be repeated, and after which delay."""

    methods: Collection[str]
    statuses: Collection[int]
    idempotency_header: str | None
    base_delay: float
    max_delay: float
    max_retry_after: float
    rng: Callable[[], float]

    def is_failure(self, attempt: Attempt) -> bool:
        if attempt.response is not None:
            return attempt.response.status in self.statuses
        if isinstance(attempt.error, aiohttp.ClientHttpProxyError):
            return attempt.error.status in _PASSING_PROXY_STATUSES
        return isinstance(attempt.error, aiohttp.ClientConnectionError)

    def may_repeat(self, attempt: Attempt) -> bool:
        req = attempt.request
        return (
            not attempt.is_final
            and (
                req.method in self.methods
                or (self.idempotency_header or "") in req.headers
                or attempt.has_sent_nothing
            )
            and is_replayable(req)
        )

    def delay(self, attempt: Attempt) -> float:
        """Full jitter, on top of what the server asks for."""
        asked = retry_after(_headers(attempt))
        if asked is not None:
            if asked > self.max_retry_after:
                return math.inf
            return asked + self.rng() * self.base_delay
        # Twice 64 times is beyond every delay, 1024 times beyond float.
        longest = self.base_delay * 2.0 ** min(attempt.number - 1, 64)
        return self.rng() * min(self.max_delay, longest)


def _headers(attempt: Attempt) -> Mapping[str, str]:
    if attempt.response is not None:
        return attempt.response.headers
    return getattr(attempt.error, "headers", None) or {}
