"""Middlewares for the client of aiohttp.

They are for ``aiohttp.ClientSession(middlewares=[…])``. Nothing here is
imported by :mod:`aiohttp_middlewares`.
"""

from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web

from aiohttp_middlewares.client._upstream import answer_with
from aiohttp_middlewares.client.api_log import (
    CallRecord,
    api_log_middleware,
)
from aiohttp_middlewares.client.basic_auth import (
    basic_auth_middleware,
)
from aiohttp_middlewares.client.bearer_token import (
    BearerTokenMiddleware,
    Token,
    TokenRefreshError,
    client_credentials,
    refresh_token_grant,
)
from aiohttp_middlewares.client.circuit_breaker import (
    CircuitOpenError,
    circuit_breaker_middleware,
)
from aiohttp_middlewares.client.deadline import (
    DeadlineExceeded,
    deadline_middleware,
)
from aiohttp_middlewares.client.request_id import (
    propagate_request_id_middleware,
)
from aiohttp_middlewares.client.request_log import (
    request_log_middleware,
)
from aiohttp_middlewares.client.retry import (
    RetryBudget,
    RetryEvent,
    RetryExhausted,
    retry_middleware,
)
from aiohttp_middlewares.client.ssrf import (
    SSRFConnector,
    SSRFError,
    SSRFPolicy,
    ssrf_middleware,
    ssrf_session,
)
from aiohttp_middlewares.client.throttle import (
    ThrottledError,
    throttle_middleware,
)
from aiohttp_middlewares.client.tracing import tracing_middleware

__all__ = (
    "BearerTokenMiddleware",
    "CallRecord",
    "CircuitOpenError",
    "DeadlineExceeded",
    "RetryBudget",
    "RetryEvent",
    "RetryExhausted",
    "SSRFConnector",
    "SSRFError",
    "SSRFPolicy",
    "ThrottledError",
    "Token",
    "TokenRefreshError",
    "api_log_middleware",
    "basic_auth_middleware",
    "circuit_breaker_middleware",
    "client_credentials",
    "deadline_middleware",
    "propagate_request_id_middleware",
    "refresh_token_grant",
    "request_log_middleware",
    "retry_middleware",
    "ssrf_middleware",
    "ssrf_session",
    "throttle_middleware",
    "tracing_middleware",
    "upstream_errors",
)

#: For the ``config`` of the server side's error middleware: what a service
#: could not be asked becomes a 502, 503 or 504, with ``Retry-After`` where it
#: is known, instead of a 500.
upstream_errors: Mapping[
    type[Exception], Callable[[web.Request], Awaitable[web.Response]]
] = {
    CircuitOpenError: answer_with(503, "Service Unavailable"),
    ThrottledError: answer_with(503, "Service Unavailable"),
    TokenRefreshError: answer_with(502, "Bad Gateway"),
    RetryExhausted: answer_with(502, "Bad Gateway"),
    DeadlineExceeded: answer_with(504, "Request timed out"),
    # What aiohttp itself raises: a service that is slow, away, breaks off, or
    # answers what ``raise_for_status()`` refuses.
    aiohttp.ServerTimeoutError: answer_with(504, "Gateway Timeout"),
    aiohttp.ClientConnectionError: answer_with(502, "Bad Gateway"),
    aiohttp.ClientPayloadError: answer_with(502, "Bad Gateway"),
    aiohttp.ClientResponseError: answer_with(502, "Bad Gateway"),
}
