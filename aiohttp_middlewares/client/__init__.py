"""Middlewares for the client of aiohttp.

They are for ``aiohttp.ClientSession(middlewares=[…])``. Nothing here is
imported by :mod:`aiohttp_middlewares`.
"""

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

__all__ = (
    "BearerTokenMiddleware",
    "CallRecord",
    "CircuitOpenError",
    "RetryBudget",
    "RetryEvent",
    "RetryExhausted",
    "SSRFConnector",
    "SSRFError",
    "SSRFPolicy",
    "Token",
    "TokenRefreshError",
    "api_log_middleware",
    "basic_auth_middleware",
    "circuit_breaker_middleware",
    "client_credentials",
    "propagate_request_id_middleware",
    "refresh_token_grant",
    "request_log_middleware",
    "retry_middleware",
    "ssrf_middleware",
    "ssrf_session",
)
