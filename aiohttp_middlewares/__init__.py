"""
===================
aiohttp-middlewares
===================

Middlewares for ``aiohttp.web`` applications. Each module is one of them and
holds one factory: ``aiohttp_middlewares.cors.cors_middleware``, and so on. In
the order in which a request comes to them:

* which one it is: ``request_id``
* what is seen of it: ``metrics``
* who asks, and for what: ``https`` or ``proxy_headers``, ``trusted_host``,
  ``https_redirect``
* what is on every answer: ``security_headers``, ``cors``, ``error``
* what is refused before any work is done: ``early_data``,
  ``concurrency_limit``, ``body_limit``
* the work: ``compression``, ``timeout``, ``shield``, ``session``
* who may do it: ``basic_auth``, ``csrf``
"""

from aiohttp_middlewares._core.who import get_claims, get_user
from aiohttp_middlewares.basic_auth import basic_auth_middleware
from aiohttp_middlewares.body_limit import body_limit_middleware
from aiohttp_middlewares.compression import compression_middleware
from aiohttp_middlewares.concurrency_limit import (
    concurrency_limit_middleware,
)
from aiohttp_middlewares.constants import (
    IDEMPOTENT_METHODS,
    NON_IDEMPOTENT_METHODS,
)
from aiohttp_middlewares.cors import cors_middleware
from aiohttp_middlewares.csrf import csrf_middleware
from aiohttp_middlewares.early_data import HTTPTooEarly, early_data_middleware
from aiohttp_middlewares.error import (
    debug_error_handler,
    default_error_handler,
    error_context,
    error_middleware,
    get_error_response,
    problem_error_handler,
)
from aiohttp_middlewares.https import https_middleware
from aiohttp_middlewares.https_redirect import https_redirect_middleware
from aiohttp_middlewares.metrics import metrics_handler, metrics_middleware
from aiohttp_middlewares.proxy_headers import proxy_headers_middleware
from aiohttp_middlewares.request_id import (
    RequestIdFilter,
    get_request_id,
    request_id_middleware,
)
from aiohttp_middlewares.security_headers import (
    csp_nonce,
    security_headers_middleware,
)
from aiohttp_middlewares.session import SignedCookieStorage, session_middleware
from aiohttp_middlewares.shield import drain_shielded, shield_middleware
from aiohttp_middlewares.timeout import RequestTimeout, timeout_middleware
from aiohttp_middlewares.trusted_host import trusted_host_middleware
from aiohttp_middlewares.utils import match_path

__all__ = (
    "IDEMPOTENT_METHODS",
    "NON_IDEMPOTENT_METHODS",
    "HTTPTooEarly",
    "RequestIdFilter",
    "RequestTimeout",
    "SignedCookieStorage",
    "basic_auth_middleware",
    "body_limit_middleware",
    "compression_middleware",
    "concurrency_limit_middleware",
    "cors_middleware",
    "csp_nonce",
    "csrf_middleware",
    "debug_error_handler",
    "default_error_handler",
    "drain_shielded",
    "early_data_middleware",
    "error_context",
    "error_middleware",
    "get_claims",
    "get_error_response",
    "get_request_id",
    "get_user",
    "https_middleware",
    "https_redirect_middleware",
    "match_path",
    "metrics_handler",
    "metrics_middleware",
    "problem_error_handler",
    "proxy_headers_middleware",
    "request_id_middleware",
    "security_headers_middleware",
    "session_middleware",
    "shield_middleware",
    "timeout_middleware",
    "trusted_host_middleware",
)

__version__ = "4.0.0.dev0"
