"""Middlewares for the client of aiohttp.

They are for ``aiohttp.ClientSession(middlewares=[…])``. Nothing here is
imported by :mod:`aiohttp_middlewares`.
"""

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
    "RetryBudget",
    "RetryEvent",
    "RetryExhausted",
    "SSRFConnector",
    "SSRFError",
    "SSRFPolicy",
    "retry_middleware",
    "ssrf_middleware",
    "ssrf_session",
)
