"""
===================
aiohttp-middlewares
===================

Middlewares for ``aiohttp.web`` applications. Each module is one of them and
holds one factory: ``aiohttp_middlewares.cors.cors_middleware``, and so on. In
the order in which a request comes to them:

* which one it is: ``request_id``
* who asks: ``https`` or ``proxy_headers``
* what becomes of it: ``tracing``, ``metrics``, ``server_timing``,
  ``access_log``
* for what: ``trusted_host``, ``https_redirect``
* what is on every answer: ``security_headers``, ``response_headers``,
  ``cors``, ``error``
* who hears of what nobody expected: ``report``
* what is refused before any work is done: ``early_data``, ``rate_limit``,
  ``concurrency_limit``, ``body_limit``
* the work: ``compression``, ``etag``, ``timeout``, ``shield``, ``session``
* who may do it: ``csrf``, and one of ``sign_in``, ``bearer_auth``,
  ``basic_auth`` and ``api_key``
* what is done once: ``idempotency``

Beside them stand ``jwt``, which knows good tokens, ``scopes``, which says what
a handler asks for, ``around``, for middlewares of one handler, and ``check``,
which says what is wrong with such a list.
"""

from aiohttp_middlewares._core.decoration import before_sending
from aiohttp_middlewares._core.who import get_claims, get_user
from aiohttp_middlewares.access_log import access_log_middleware
from aiohttp_middlewares.api_key import api_key_middleware
from aiohttp_middlewares.around import with_middlewares
from aiohttp_middlewares.basic_auth import basic_auth_middleware
from aiohttp_middlewares.bearer_auth import bearer_auth_middleware
from aiohttp_middlewares.body_limit import body_limit_middleware
from aiohttp_middlewares.check import Finding, check_stack
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
from aiohttp_middlewares.etag import etag_middleware
from aiohttp_middlewares.https import https_middleware
from aiohttp_middlewares.https_redirect import https_redirect_middleware
from aiohttp_middlewares.idempotency import (
    MemoryStore,
    RedisStore,
    idempotency_middleware,
)
from aiohttp_middlewares.jwt import KeysUnavailable, jwt_verifier
from aiohttp_middlewares.metrics import metrics_handler, metrics_middleware
from aiohttp_middlewares.proxy_headers import proxy_headers_middleware
from aiohttp_middlewares.rate_limit import (
    check_rate_limit,
    client_ip,
    rate_limit_middleware,
)
from aiohttp_middlewares.report import (
    bugsnag_reporter,
    report_middleware,
    rollbar_reporter,
    sentry_reporter,
)
from aiohttp_middlewares.request_id import (
    RequestIdFilter,
    get_request_id,
    request_id_middleware,
)
from aiohttp_middlewares.response_headers import response_headers_middleware
from aiohttp_middlewares.scopes import requires
from aiohttp_middlewares.security_headers import (
    csp_nonce,
    security_headers_middleware,
)
from aiohttp_middlewares.server_timing import (
    Timing,
    server_timing,
    server_timing_middleware,
)
from aiohttp_middlewares.session import (
    JWTCookieStorage,
    SignedCookieStorage,
    session_middleware,
)
from aiohttp_middlewares.shield import drain_shielded, shield_middleware
from aiohttp_middlewares.sign_in import (
    github,
    openid_connect,
    sign_in_middleware,
    sign_in_url,
)
from aiohttp_middlewares.timeout import RequestTimeout, timeout_middleware
from aiohttp_middlewares.tracing import tracing_middleware
from aiohttp_middlewares.trusted_host import trusted_host_middleware
from aiohttp_middlewares.utils import match_path

__all__ = (
    "IDEMPOTENT_METHODS",
    "NON_IDEMPOTENT_METHODS",
    "Finding",
    "HTTPTooEarly",
    "JWTCookieStorage",
    "KeysUnavailable",
    "MemoryStore",
    "RedisStore",
    "RequestIdFilter",
    "RequestTimeout",
    "SignedCookieStorage",
    "Timing",
    "access_log_middleware",
    "api_key_middleware",
    "basic_auth_middleware",
    "bearer_auth_middleware",
    "before_sending",
    "body_limit_middleware",
    "bugsnag_reporter",
    "check_rate_limit",
    "check_stack",
    "client_ip",
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
    "etag_middleware",
    "get_claims",
    "get_error_response",
    "get_request_id",
    "get_user",
    "github",
    "https_middleware",
    "https_redirect_middleware",
    "idempotency_middleware",
    "jwt_verifier",
    "match_path",
    "metrics_handler",
    "metrics_middleware",
    "openid_connect",
    "problem_error_handler",
    "proxy_headers_middleware",
    "rate_limit_middleware",
    "report_middleware",
    "request_id_middleware",
    "requires",
    "response_headers_middleware",
    "rollbar_reporter",
    "security_headers_middleware",
    "sentry_reporter",
    "server_timing",
    "server_timing_middleware",
    "session_middleware",
    "shield_middleware",
    "sign_in_middleware",
    "sign_in_url",
    "timeout_middleware",
    "tracing_middleware",
    "trusted_host_middleware",
    "with_middlewares",
)

__version__ = "4.0.0.dev0"
