"""
==================
Retry with backoff
==================

Retries a request, with backoff, when it failed in a way that may pass: for
clients of services that are restarted, overloaded, or behind a network.

Usage
=====

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
   a lost one, a timeout of aiohttp's other than the total one, a proxy that
   answers 502, 503 or 504 when it is to make a tunnel).
2. Another attempt does no harm: the method is one of ``methods``, or the
   request bears an :doc:`Idempotency-Key </how-to/idempotency>`, or nothing of
   it was sent yet.
3. The body can be sent again from its start: bytes, text, JSON, forms and
   seekable files can, generators and pipes cannot.
4. Attempts, time and budget are left.

Otherwise the last answer is returned, readable, or the last exception raised;
its ``__cause__`` is what the attempt before it came to, unless it has one. A
connection of the pool that the server closed while it was idle is replaced once
in any case, as aiohttp does by itself (RFC 9112 9.3.1). Connections refused by
a TLS check or by :doc:`SSRF protection </client/ssrf>`, what a circuit breaker,
a throttle or a deadline inside refuses, WebSocket handshakes, and bodies that
cannot be read (a generator that raises, a disk that fails) are final.

Order
=====

Outside of what must happen anew for each attempt (tokens, a circuit breaker),
inside of what counts a request once (logs, request ids).

Limits
======

What fails while the caller reads the body is not repeated. Nor is a POST that
was answered 429, although it was not executed: to list POST would also repeat
one whose answer was lost. aiohttp before 3.12.3 closes a file once it was sent;
there, files cannot be sent again.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from types import EllipsisType

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares.client._bodies import (
    discard,
    held,
    is_handshake,
    keep_cookies,
    prepare_again,
)
from aiohttp_middlewares.client._hooks import call_hook
from aiohttp_middlewares.client._redact import redact_url
from aiohttp_middlewares.client.retry._attempt import (
    IDEMPOTENT_METHODS,
    Attempt,
    RetryExhausted,
    Rules,
    send,
)
from aiohttp_middlewares.client.retry._budget import RetryBudget

__all__ = (
    "DEFAULT_METHODS",
    "DEFAULT_STATUSES",
    "RetryBudget",
    "RetryEvent",
    "RetryExhausted",
    "retry_middleware",
)

#: RFC 9110 9.2.2: those that may be sent again.
DEFAULT_METHODS = IDEMPOTENT_METHODS
#: The statuses of what may pass.
DEFAULT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

logger: logging.Logger = logs.get_logger(__name__)


def retry_middleware(
    attempts: int = 3,
    *,
    methods: Collection[str] = DEFAULT_METHODS,
    statuses: Collection[int] = DEFAULT_STATUSES,
    base_delay: float = 0.2,
    max_delay: float = 10.0,
    deadline: float | None = 30.0,
    attempt_timeout: float | None = None,
    max_retry_after: float = 30.0,
    budget: RetryBudget | EllipsisType | None = ...,
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
    :param methods: The methods that may be repeated after a failure, a
        collection; by default the idempotent ones. To list POST is to say
        that it may be executed twice.
    :param statuses: The status codes that are failures.
    :param base_delay: The longest delay before the second attempt, in
        seconds; 0 is for none. It doubles with each attempt. What is waited
        is a random part of it, so that many clients do not come back at once.
    :param max_delay: The longest delay of all, in seconds.
    :param deadline: How many seconds after the start of the first attempt
        the last one may start; None for no limit. It does not cut an
        attempt.
    :param attempt_timeout: How many seconds one attempt may take to its
        response headers, without the wait for a place in the pool of the
        session and for a turn of a :doc:`throttle </client/throttle>` inside;
        None, the default, for no limit.
    :param max_retry_after: What the server asks for in ``Retry-After`` is
        waited (RFC 9110 10.2.3), a date by the server's own clock. When it
        is more than this, in seconds, there is no other attempt.
    :param budget: A :class:`RetryBudget`, which several middlewares may
        share; by default each has its own, and None is for no limit.
    :param retry_if: Asked about an outcome that is no failure by these
        rules, such as a 200 with an error inside: True makes it one, but for
        what is final. It may read the body of the response. When it is
        cancelled, the response is closed.
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
    rules = Rules(
        options.methods(f"{what} methods", methods),
        options.statuses(f"{what} statuses", statuses),
        idempotency_header,
        options.seconds(f"{what} base_delay", base_delay, zero=True),
        options.seconds(f"{what} max_delay", max_delay, zero=True),
        options.seconds(f"{what} max_retry_after", max_retry_after, zero=True),
        rng,
    )
    if deadline is not None:
        options.seconds(f"{what} deadline", deadline)
    if attempt_timeout is not None:
        options.seconds(f"{what} attempt_timeout", attempt_timeout)
    if idempotency_header is not None:
        options.header_name(f"{what} idempotency_header", idempotency_header)
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
        earlier: Attempt | None = None
        number = 0
        while True:
            number += 1
            attempt = await send(req, handler, number, attempt_timeout)
            response = attempt.response
            with held(response):
                event = await another(attempt, start)
                if event is None:
                    return attempt.result(earlier)
                _log(event)
                if response is not None:
                    keep_cookies(req, response)
                    await discard(response)
            if on_retry is not None:
                await call_hook(logger, "on_retry", on_retry, event)
            await sleep(event.delay)
            prepare_again(req)
            earlier = attempt

    async def another(attempt: Attempt, start: float) -> RetryEvent | None:
        """Whether there will be another attempt, paid for."""
        failed = rules.is_failure(attempt)
        if purse is not None and attempt.response is not None and not failed:
            purse.deposit()
        if not failed and retry_if is None:
            return None
        if attempt.number == attempts or not rules.may_repeat(attempt):
            return None

        delay = rules.delay(attempt)
        event = RetryEvent(
            attempt.request,
            attempt.number,
            attempt.response,
            attempt.error,
            delay,
        )
        if not failed and not (
            retry_if is not None
            and await call_hook(logger, "retry_if", retry_if, event)
        ):
            return None
        if delay == math.inf or (
            deadline is not None and clock() - start + delay > deadline
        ):
            return None
        if purse is not None and not purse.withdraw():
            return None
        return event

    return retry


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
