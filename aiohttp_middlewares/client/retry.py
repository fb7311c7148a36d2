"""
=====
Retry
=====

Sends a request again when it failed in a way that may pass: for clients of
services that are restarted, overloaded, or behind a network.

**Usage**

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import retry_middleware

    answers = iter([503, 503, 200])


    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=next(answers))


    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handle)
        retry = retry_middleware(base_delay=0.01)
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession(middlewares=[retry]) as session,
            session.get(server.make_url("/")) as response,
        ):
            assert response.status == 200


    asyncio.run(main())

A request is sent again when all of this is true:

1. It failed: with one of ``statuses``, or without an answer (no connection,
   a lost one, a timeout of aiohttp's other than the total one).
2. Another attempt does no harm: the method is one of ``methods``, or the
   request bears an Idempotency-Key, or nothing of it was sent yet.
3. The body can be sent again from its start: bytes, text, JSON, forms and
   seekable files can, generators and pipes cannot.
4. Attempts, time and budget are left.

Otherwise the last answer is returned, readable, and the last exception
raised. Connections refused by a TLS check or by
:doc:`SSRF protection </client/ssrf>`, and WebSocket handshakes are final.

**Order**

Outside of what has to happen anew for each attempt (tokens, a circuit
breaker), inside of what counts a request once (logs, request ids).

**Limits**

What fails while the caller reads the body is not repeated. Neither are the
``Set-Cookie`` fields of an answer that was not the last one handed on.
aiohttp before 3.12.3 closes a file once it was sent; there files count among
what cannot be sent again.
"""

import asyncio
import logging
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from types import EllipsisType

import aiohttp
from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    hdrs,
)

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._bodies import (
    discard,
    is_handshake,
    is_replayable,
    prepare_again,
)
from aiohttp_middlewares.client._errors import FinalError, caused_by
from aiohttp_middlewares.client._hooks import call_hook
from aiohttp_middlewares.client._redact import redact_url
from aiohttp_middlewares.client._timeouts import TimeIsUp, time_limit

__all__ = (
    "DEFAULT_METHODS",
    "DEFAULT_STATUSES",
    "RetryBudget",
    "RetryEvent",
    "RetryExhausted",
    "retry_middleware",
)

#: The methods that are idempotent, RFC 9110 9.2.2.
DEFAULT_METHODS = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
)
DEFAULT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

logger = logging.getLogger(__name__)


def retry_middleware(
    attempts: int = 3,
    *,
    methods: str | Collection[str] = DEFAULT_METHODS,
    statuses: Collection[int] = DEFAULT_STATUSES,
    base_delay: float = 0.2,
    max_delay: float = 10.0,
    deadline: float | None = 30.0,
    attempt_timeout: float | None = None,
    max_retry_after: float = 30.0,
    budget: "RetryBudget | EllipsisType | None" = ...,
    retry_if: "Callable[[RetryEvent], Awaitable[bool] | bool] | None" = None,
    on_retry: (
        "Callable[[RetryEvent], Awaitable[object] | object] | None"
    ) = None,
    idempotency_header: str | None = "Idempotency-Key",
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    rng: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> ClientMiddlewareType:
    """Repeat requests that failed.

    :param attempts: How often a request is sent at most; by default 3.
    :param methods: The methods that may be repeated after a failure; by
        default the idempotent ones. To list POST is to say that it may be
        executed twice.
    :param statuses: The status codes that are failures.
    :param base_delay: The longest delay before the second attempt, in
        seconds. It doubles with each attempt. What is waited is a random
        part of it, so that many clients do not come back at once.
    :param max_delay: The longest delay of all, in seconds.
    :param deadline: How many seconds after the start of the first attempt
        the last one may start; None for no limit. It does not cut an
        attempt.
    :param attempt_timeout: How many seconds one attempt may take to its
        response headers; None, the default, for no limit.
    :param max_retry_after: What the server asks for in ``Retry-After`` is
        waited (RFC 9110 10.2.3). When it is more than this, in seconds,
        there is no other attempt.
    :param budget: A :class:`RetryBudget`, which several middlewares may
        share; by default each has its own, and None is for no limit.
    :param retry_if: Asked about an outcome that is no failure by these
        rules, such as a 200 with an error inside: True makes it one. It may
        read the body of the response.
    :param on_retry: Told of each retry, before the delay. The body of the
        response may be gone.
    :param idempotency_header: The request header that makes any method
        repeatable; None for no such header.
    :param sleep: Waits for a number of seconds.
    :param rng: A random number between 0 and 1.
    :param clock: The time in seconds, for ``deadline``.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, no status or no method.

    The middleware raises :class:`RetryExhausted` in the place of those
    exceptions that make aiohttp repeat a request by itself, which would
    double the attempts.
    """
    what = "retry_middleware"
    options.integer(f"{what} attempts", attempts, minimum=1)
    allowed_methods = options.methods(f"{what} methods", methods)
    failures = options.statuses(f"{what} statuses", statuses)
    options.seconds(f"{what} base_delay", base_delay)
    options.seconds(f"{what} max_delay", max_delay)
    options.seconds(f"{what} max_retry_after", max_retry_after)
    if deadline is not None:
        options.seconds(f"{what} deadline", deadline)
    if attempt_timeout is not None:
        options.seconds(f"{what} attempt_timeout", attempt_timeout)
    if idempotency_header is not None:
        should = "a collection of header names"
        options.tokens(
            f"{what} idempotency_header", should, [idempotency_header]
        )
    for name, hook in (("retry_if", retry_if), ("on_retry", on_retry)):
        if hook is not None:
            options.function(f"{what} {name}", hook)
    for name, function in (("sleep", sleep), ("rng", rng), ("clock", clock)):
        options.function(f"{what} {name}", function)
    purse = RetryBudget() if isinstance(budget, EllipsisType) else budget
    if purse is not None and not isinstance(purse, RetryBudget):
        options.refuse(TypeError, f"{what} budget", "a RetryBudget", purse)

    async def retry(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if is_handshake(req):
            return await handler(req)

        start = clock()
        attempt = 0
        while True:
            attempt += 1
            response, error = await _send(req, handler, attempt_timeout)
            failed = _is_failure(response, error)
            if purse is not None and response is not None and not failed:
                purse.deposit()
            if not failed and retry_if is None:
                break
            if attempt == attempts or not _may_repeat(req, error):
                break

            delay = _delay(attempt, response)
            event = RetryEvent(req, attempt, response, error, delay)
            if not failed and not (
                retry_if is not None
                and await call_hook(logger, "retry_if", retry_if, event)
            ):
                break
            if delay == math.inf or (
                deadline is not None and clock() - start + delay > deadline
            ):
                break
            if purse is not None and not purse.withdraw():
                break

            _log(event)
            if response is not None:
                await discard(response)
            if on_retry is not None:
                await call_hook(logger, "on_retry", on_retry, event)
            await sleep(delay)
            prepare_again(req)

        if response is not None:
            return response
        raise _to_raise(req, error, attempt)

    def _is_failure(
        response: ClientResponse | None, error: Exception | None
    ) -> bool:
        if response is not None:
            return response.status in failures
        return isinstance(error, aiohttp.ClientConnectionError)

    def _may_repeat(req: ClientRequest, error: Exception | None) -> bool:
        return (
            (error is None or not _is_final(error))
            and (
                req.method in allowed_methods
                or (idempotency_header or "") in req.headers
                or isinstance(error, _NOTHING_SENT)
            )
            and is_replayable(req)
        )

    def _delay(attempt: int, response: ClientResponse | None) -> float:
        """Full jitter, on top of what the server asks for."""
        if response is not None and hdrs.RETRY_AFTER in response.headers:
            value = response.headers[hdrs.RETRY_AFTER]
            asked = parse_retry_after(value, time.time())
            if asked is not None:
                if asked > max_retry_after:
                    return math.inf
                return asked + rng() * base_delay
        # Twice 64 times is beyond every delay, 1024 times beyond float.
        return rng() * min(max_delay, base_delay * 2.0 ** min(attempt - 1, 64))

    return retry


class RetryBudget:
    """Keeps retries a small part of all requests.

    A bucket that is full at first. Each retry takes ``cost`` out of it, and
    each request that does not fail puts ``refund`` back. When the bucket is
    empty, a failure stays one: a service that is down for all is not asked
    three times by each. With the defaults, there are 100 retries at once,
    and in the long run one for ten successes.

    :param tokens: What the bucket holds; by default 100.
    :param cost: What a retry takes; by default 1.
    :param refund: What a success gives back; by default 0.1.
    :raises TypeError: For what is no number.
    :raises ValueError: For a number that is not positive, and a ``cost``
        that the bucket never holds.
    """

    def __init__(
        self, tokens: float = 100, *, cost: float = 1, refund: float = 0.1
    ) -> None:
        amounts = {"tokens": tokens, "cost": cost, "refund": refund}
        for name, amount in amounts.items():
            what, should = f"RetryBudget {name}", "a positive number"
            if isinstance(amount, bool) or not isinstance(amount, int | float):
                options.refuse(TypeError, what, should, amount)
            if not (amount > 0 and math.isfinite(amount)):
                options.refuse(ValueError, what, should, amount)
        if cost > tokens:
            should = "no more than the tokens that there are"
            options.refuse(ValueError, "RetryBudget cost", should, cost)
        self._most = self._tokens = float(tokens)
        self._cost = cost
        self._refund = refund

    def withdraw(self) -> bool:
        """Pay for a retry; False when there is not enough left."""
        if self._tokens < self._cost:
            return False
        self._tokens -= self._cost
        return True

    def deposit(self) -> None:
        """Note a success."""
        self._tokens = min(self._most, self._tokens + self._refund)


@dataclass(frozen=True)
class RetryEvent:
    """An attempt that failed, and what comes next.

    ``attempt`` counts from 1. One of ``response`` and ``exception`` is None.
    ``delay`` is how many seconds will be waited.
    """

    request: ClientRequest = field(repr=False)
    attempt: int
    response: ClientResponse | None = field(repr=False)
    exception: Exception | None = field(repr=False)
    delay: float


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


async def _send(
    req: ClientRequest, handler: ClientHandlerType, timeout: float | None
) -> tuple[ClientResponse | None, Exception | None]:
    try:
        if timeout is None:
            return await handler(req), None
        async with time_limit(timeout):
            return await handler(req), None
    except TimeIsUp:
        return None, aiohttp.ServerTimeoutError(
            f"No response within {timeout} seconds"
        )
    except asyncio.TimeoutError as exc:
        if not isinstance(exc, aiohttp.ServerTimeoutError):
            raise  # the total timeout: the caller's time is over
        return None, exc
    except Exception as exc:
        return None, exc


#: Raised before anything of the request has left.
_NOTHING_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

#: What another attempt will not change. A connector error may be one of a
#: TLS check; RetryExhausted comes from a middleware like this one.
_FINAL = (
    aiohttp.ClientSSLError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
    RetryExhausted,
)


def _is_final(error: Exception) -> bool:
    return isinstance(error, _FINAL) or caused_by(error, FinalError) is not None


def parse_retry_after(value: str, now: float) -> float | None:
    """The seconds that ``Retry-After`` asks for, or None for nonsense.

    ``now`` is the time since the epoch. RFC 9110 10.2.3: a number of seconds
    or a date, and a date has three formats (5.6.7).
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]+", value):
        return float(value)  # infinity, from some 300 digits on
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _log(event: RetryEvent) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    response, method = event.response, event.request.method
    url = redact_url(event.request.url)
    outcome = (
        type(event.exception).__name__ if response is None else response.status
    )
    logger.info(
        "%s %s failed (%s), again in %.2f s",
        method,
        url,
        outcome,
        event.delay,
        extra={
            "method": method,
            "url": url,
            "attempt": event.attempt,
            "delay": event.delay,
        },
    )


#: The methods that aiohttp repeats once by itself when the connection broke.
_REPEATED_BY_AIOHTTP = DEFAULT_METHODS


def _to_raise(
    req: ClientRequest, error: Exception | None, attempts: int
) -> Exception:
    """The exception for the caller."""
    if error is None:
        raise RuntimeError("neither a response nor an error")
    if req.method in _REPEATED_BY_AIOHTTP and (
        isinstance(error, aiohttp.ServerDisconnectedError)
        or (
            isinstance(error, aiohttp.ClientOSError)
            and not isinstance(error, aiohttp.ClientConnectorError)
        )
    ):
        exhausted = RetryExhausted(attempts, error)
        exhausted.__cause__ = error
        return exhausted
    return error
