"""The API: all the middlewares, and handlers that need them."""

import asyncio
import html
import itertools
import logging
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator

import aiohttp
import aiohttp_session
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry

from aiohttp_middlewares import (
    NON_IDEMPOTENT_METHODS,
    access_log_middleware,
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    concurrency_limit_middleware,
    cors_middleware,
    csp_nonce,
    csrf_middleware,
    debug_error_handler,
    default_error_handler,
    drain_shielded,
    early_data_middleware,
    error_middleware,
    etag_middleware,
    get_claims,
    get_request_id,
    get_user,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    jwt_verifier,
    metrics_handler,
    metrics_middleware,
    openid_connect,
    problem_error_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    report_middleware,
    request_id_middleware,
    requires,
    response_headers_middleware,
    security_headers_middleware,
    server_timing,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    sign_in_middleware,
    timeout_middleware,
    tracing_middleware,
    trusted_host_middleware,
    with_middlewares,
)
from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    RetryEvent,
    client_credentials,
    request_log_middleware,
    retry_middleware,
)
from aiohttp_middlewares.client import (
    tracing_middleware as client_tracing_middleware,
)
from aiohttp_middlewares.compression import DEFAULT_CONTENT_TYPES
from aiohttp_middlewares.cors import DEFAULT_ALLOW_HEADERS

#: For how many seconds a handler may think before it begins to answer.
LIMIT = 1.0

#: With these a page looks, over and over, whether something was written.
LOOKS = {re.compile("^/(client/trace|log|reports|transfers)"): "GET"}

logger = logging.getLogger(__name__)
routes = web.RouteTableDef()


def create_api(page: str, api: str, issuer: str) -> web.Application:
    """The application at ``api`` for the pages of the origin ``page``.

    ``issuer`` is the OpenID provider to sign in with.
    """
    registry = CollectorRegistry()
    traces = Traces()
    tracing = TracerProvider()
    tracing.add_span_processor(traces)
    app = web.Application(
        middlewares=[
            request_id_middleware(),
            proxy_headers_middleware(trusted=["127.0.0.1", "::1"], host=True),
            tracing_middleware(tracer_provider=tracing, ignore=LOOKS),
            metrics_middleware(registry=registry),
            server_timing_middleware(),
            access_log_middleware(ignore=LOOKS),
            # For a proxy that says it in a header of its own only.
            https_middleware(
                {"X-Forwarded-Ssl": "on"}, trusted=["127.0.0.1", "::1"]
            ),
            trusted_host_middleware(
                ["127.0.0.1", "::1", "localhost", "shop.example.com"]
            ),
            # The demo has no TLS, so this is for one path only.
            https_redirect_middleware(ignore=all_but("/checkout")),
            security_headers_middleware(
                content_security_policy={
                    "default-src": ["'self'"],
                    "script-src": ["'nonce-{nonce}'"],
                    # The debug page has a style sheet within.
                    "style-src": ["'self'", "'unsafe-inline'"],
                    "object-src": ["'none'"],
                    "frame-ancestors": ["'none'"],
                },
                cross_origin_resource_policy="cross-origin",
            ),
            response_headers_middleware({"X-Robots-Tag": "noindex"}),
            cors_middleware(
                origins=[page],
                allow_credentials=True,
                # The page plays the proxy that would send the others.
                allow_headers=[
                    *DEFAULT_ALLOW_HEADERS,
                    "Early-Data",
                    "Idempotency-Key",
                    "If-None-Match",
                    "X-API-Key",
                    "X-Forwarded-For",
                    "X-Forwarded-Host",
                    "X-Forwarded-Proto",
                    "X-Forwarded-Ssl",
                    "X-Request-ID",
                ],
                # Retry-After is of use to a page; the others are for show.
                expose_headers=[
                    "Access-Control-Allow-Origin",
                    "Content-Encoding",
                    "ETag",
                    "Idempotent-Replayed",
                    "RateLimit",
                    "RateLimit-Policy",
                    "Retry-After",
                    "Server-Timing",
                    "Vary",
                    "WWW-Authenticate",
                    "X-Request-ID",
                    "X-Robots-Tag",
                ],
                max_age=600,
            ),
            error_middleware(
                default_handler=default_error_handler,
                config={
                    "/errors/problem": problem_error_handler,
                    "/errors/debug": debug_error_handler,
                },
            ),
            report_middleware(report),
            early_data_middleware(),
            rate_limit_middleware(
                "3/10 seconds", strategy="moving-window", urls=["/quotes"]
            ),
            concurrency_limit_middleware(
                1, backlog=2, backlog_timeout=3, ignore=all_but("/kitchen")
            ),
            body_limit_middleware(64 * 1024, limits={"/notes": 140}),
            compression_middleware(
                content_types=[*DEFAULT_CONTENT_TYPES, "text/event-stream"]
            ),
            etag_middleware(),
            # Those that ask another API wait for their turn.
            timeout_middleware(LIMIT, ignore=[re.compile("^/client/")]),
            shield_middleware(
                methods=NON_IDEMPOTENT_METHODS,
                ignore=["/transfers/unshielded"],
            ),
            # Of another key after each start: nobody is logged in any more.
            session_middleware(secrets.token_urlsafe(32)),
            basic_auth_middleware(
                {"admin": "correct horse"},
                realm="Demo",
                ignore=all_but("/admin"),
            ),
            csrf_middleware(trusted_origins=[page]),
            sign_in_middleware(
                openid_connect(issuer, "demo", "secret"),
                ignore=all_but("/members"),
            ),
            api_key_middleware(
                API_KEYS.get, realm="Demo", ignore=all_but("/backups")
            ),
            bearer_auth_middleware(
                jwt_verifier(
                    SECRET, algorithms=["HS256"], issuer="demo", audience="api"
                ),
                realm="Demo",
                ignore=all_but("/invoices"),
            ),
            idempotency_middleware(urls=["/payments"]),
        ]
    )
    app[ACCESS_LOG] = AccessLog()
    app[LEDGER] = {}
    app[PAYMENTS] = itertools.count(1)
    app[REPORTS] = []
    app[TRACES] = traces
    app[TRACING] = tracing
    app[PARTNER] = Partner(api)
    app.add_routes(routes)
    app.router.add_get("/metrics", metrics_handler(registry))
    app.cleanup_ctx.append(access_log)
    app.cleanup_ctx.append(drain_shielded)
    app.cleanup_ctx.append(partner_client)
    return app


def all_but(path: str) -> list[re.Pattern[str]]:
    return [re.compile(f"^(?!{re.escape(path)}$)")]


# What is seen of a request
# =========================


@routes.get("/id")
async def request_id(request: web.Request) -> web.Response:
    return web.json_response({"request": get_request_id()})


@routes.get("/basket")
async def basket(request: web.Request) -> web.Response:
    timing = server_timing(request)
    async with timing.measure("db", "what is in it"):
        await asyncio.sleep(0.05)
    timing.add("cache", description="miss")
    return web.json_response({"basket": ["milk"]})


class AccessLog(logging.Handler):
    """Keeps the last lines, for a page of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=100)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


ACCESS_LOG = web.AppKey("ACCESS_LOG", AccessLog)


async def access_log(app: web.Application) -> AsyncIterator[None]:
    log = logging.getLogger("aiohttp_middlewares.access_log")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(app[ACCESS_LOG])
    yield
    log.removeHandler(app[ACCESS_LOG])
    log.setLevel(level)


@routes.post("/log")
async def request_to_log(request: web.Request) -> web.Response:
    request.app[ACCESS_LOG].lines.clear()
    return web.Response(text="It is in the log when this is read.")


@routes.get("/log")
async def log(request: web.Request) -> web.Response:
    lines = request.app[ACCESS_LOG].lines
    seen = [line for line in lines if line.startswith("POST /log ")]
    return web.json_response({"stages": seen, "over": bool(seen)})


class Traces(SpanProcessor):
    """Keeps the last spans, for a page of ours."""

    def __init__(self) -> None:
        self.spans: deque[tuple[SpanContext, ReadableSpan]] = deque(maxlen=100)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None:
            self.spans.append((span.context, span))

    def tree(self, name: str) -> list[str]:
        """The spans of a trace that began with ``name``, once it is over."""
        traces = [
            context.trace_id
            for context, span in self.spans
            if span.name == name and span.parent is None
        ]
        if not traces:
            return []
        spans = [each for each in self.spans if each[0].trace_id == traces[-1]]
        spans.sort(key=lambda each: each[1].start_time or 0)
        depths: dict[int, int] = {}
        tree = []
        for context, span in spans:
            parent = span.parent.span_id if span.parent else 0
            depth = depths[context.span_id] = depths.get(parent, -1) + 1
            status = (span.attributes or {}).get("http.response.status_code")
            tree.append(f"{'> ' * depth}{span.name} {status}")
        return tree


TRACES = web.AppKey("TRACES", Traces)
TRACING = web.AppKey("TRACING", TracerProvider)


@routes.post("/client/trace")
async def request_to_trace(request: web.Request) -> web.Response:
    """Ask when the partner answers 503 once."""
    partner, client = request.app[PARTNER], request.app[CLIENT]
    request.app[TRACES].spans.clear()
    async with partner.turn:
        begin(request.app, failures=1)
        async with client.get("/partner/stock") as response:
            return web.json_response(await response.json())


@routes.get("/client/trace")
async def trace(request: web.Request) -> web.Response:
    seen = request.app[TRACES].tree("POST /client/trace")
    return web.json_response({"stages": seen, "over": bool(seen)})


REPORTS = web.AppKey("REPORTS", list[str])


def report(err: BaseException, request: web.Request) -> None:
    """What Sentry would be told, and a page of ours shows."""
    seen = f"{err!r} in {request.method} {request.path}, {get_request_id()}"
    logger.info("Report: %s", seen)
    if request.path == "/reports":
        request.app[REPORTS].append(seen)


@routes.post("/reports")
async def bug_to_report(request: web.Request) -> web.Response:
    reports = request.app[REPORTS]
    reports.clear()
    return web.json_response({"last": reports[-1]})


@routes.get("/reports")
async def reports(request: web.Request) -> web.Response:
    seen = request.app[REPORTS]
    return web.json_response({"stages": seen, "over": bool(seen)})


# Errors
# ======


class SoldOut(Exception):
    status = 409


@routes.get("/errors/json")
@routes.get("/errors/problem")
async def sold_out(request: web.Request) -> web.Response:
    raise SoldOut("Only 2 left, and you want 3")


@routes.get("/errors/debug")
@routes.get("/errors/bug")
async def bug(request: web.Request) -> web.Response:
    guests: list[str] = []
    return web.json_response({"share": 100 / len(guests)})


@routes.get("/errors/busy")
async def busy(request: web.Request) -> web.Response:
    raise web.HTTPTooManyRequests(
        text="Come back in half a minute", headers={"Retry-After": "30"}
    )


@routes.post("/login")
async def login(request: web.Request) -> web.Response:
    redirect = web.HTTPSeeOther("/account")
    redirect.set_cookie("visitor", "42", httponly=True, samesite="Lax")
    raise redirect


@routes.get("/account")
async def account(request: web.Request) -> web.Response:
    return web.json_response({"visitor": request.cookies.get("visitor")})


# Other origins
# =============


@routes.get("/hello")
async def hello(request: web.Request) -> web.Response:
    return web.json_response({"hello": request.headers.get("Origin")})


@routes.delete("/notes/1")
async def delete_note(request: web.Request) -> web.Response:
    return web.json_response({"deleted": 1})


@routes.get("/ticks/{count:[1-9]}")
async def ticks(request: web.Request) -> web.StreamResponse:
    """A stream of server-sent events, four in a second."""
    count = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for tick in range(1, count + 1):
        await response.write(f"data: {tick} of {count}\n\n".encode())
        await asyncio.sleep(0.25)
    return response


# Time
# ====


@routes.get("/slow")
async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.json_response({"answer": 42})


# Writes in two stages
# ====================

#: The transfers that there are, and the seconds between their stages.
TRANSFERS = {"shielded": 0.8, "unshielded": 0.8, "late": LIMIT + 0.5}
LEDGER = web.AppKey("LEDGER", dict[str, list[str]])
TRANSFER = f"/transfers/{{name:{'|'.join(TRANSFERS)}}}"


@routes.post(TRANSFER)
async def transfer(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    stages = request.app[LEDGER][name] = []

    def write(stage: str) -> None:
        stages.append(stage)
        logger.info("Transfer %s: %s", name, stage)

    write("taken from A")
    try:
        await asyncio.sleep(TRANSFERS[name])  # the bank at work
    except asyncio.CancelledError:
        write("cut off, B gets nothing")
        raise
    write("given to B")
    return web.json_response(stages)


@routes.get(TRANSFER)
async def ledger(request: web.Request) -> web.Response:
    """What has been written of the last transfer of that name."""
    stages = request.app[LEDGER].get(request.match_info["name"], [])
    return web.json_response({"stages": stages, "over": len(stages) == 2})


# The scheme
# ==========


@routes.get("/scheme")
async def scheme(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "scheme": request.scheme,
            "secure": request.secure,
            "url": str(request.url),
        }
    )


# The edge
# ========


@routes.get("/visitor")
async def visitor(request: web.Request) -> web.Response:
    return web.json_response(
        {"from": request.remote, "to": str(request.url.origin())}
    )


@routes.get("/checkout")
async def checkout(request: web.Request) -> web.Response:
    return web.json_response({"paid by": request.scheme})


@routes.get("/page")
async def page_with_script(request: web.Request) -> web.Response:
    return web.Response(
        text=f"""<!DOCTYPE html>
<title>A page</title>
<script nonce="{csp_nonce(request)}">alert("This one runs")</script>
<script>alert("This one does not")</script>
""",
        content_type="text/html",
    )


@routes.post("/notes")
async def add_note(request: web.Request) -> web.Response:
    return web.json_response({"noted": await request.text()})


@routes.post("/labels")
@with_middlewares(body_limit_middleware(10))
async def add_label(request: web.Request) -> web.Response:
    return web.json_response({"label": await request.text()})


@routes.get("/admin")
async def admin(request: web.Request) -> web.Response:
    return web.json_response({"user": get_user(request)})


# Load
# ====


@routes.get("/quotes")
async def quote(request: web.Request) -> web.Response:
    return web.json_response({"price": 42})


@routes.post("/kitchen")
async def cook(request: web.Request) -> web.Response:
    await asyncio.sleep(0.5)
    return web.json_response({"dish": "soup"})


PAYMENTS = web.AppKey("PAYMENTS", itertools.count)


@routes.post("/payments")
async def pay(request: web.Request) -> web.Response:
    numbers = request.app[PAYMENTS]
    paid = {"payment": next(numbers), "paid": await request.text()}
    return web.json_response(paid, status=201)


# Who is asking
# =============

SECRET = secrets.token_bytes(32)
API_KEYS = {
    "a-long-key": {"sub": "nightly job", "scope": "backup"},
    "another-key": {"sub": "dashboard", "scope": "read"},
}


def token(user: str, scope: str) -> str:
    """As an authorization server would sign one, for a day."""
    claims = {
        "iss": "demo",
        "aud": "api",
        "sub": user,
        "scope": scope,
        "exp": int(time.time()) + 24 * 60 * 60,
    }
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


@routes.get("/members")
async def members(request: web.Request) -> web.Response:
    name = get_claims(request).get("name") or get_user(request)
    return web.Response(
        text=f"""<!DOCTYPE html>
<title>Members</title>
<h1>Welcome, {html.escape(str(name))}</h1>
<form method="post" action="/-/auth/logout">
<button>Log out</button>
</form>
""",
        content_type="text/html",
    )


@routes.get("/backups")
@requires("backup")
async def backups(request: web.Request) -> web.Response:
    return web.json_response({"backups": [], "for": get_user(request)})


@routes.get("/invoices")
@requires("invoices:read")
async def invoices(request: web.Request) -> web.Response:
    return web.json_response({"invoices": [], "for": get_user(request)})


@routes.post("/invoices")
@requires("invoices:write")
async def add_invoice(request: web.Request) -> web.Response:
    return web.json_response({"invoice": 1}, status=201)


# Compression
# ===========


@routes.get("/novel")
async def novel(request: web.Request) -> web.Response:
    line = "All work and no play makes Jack a dull boy.\n"
    return web.Response(text=line * 500)


@routes.get("/stock")
async def stock(request: web.Request) -> web.Response:
    return web.json_response({"apples": 3})


# Sessions
# ========


@routes.post("/session")
async def begin_session(request: web.Request) -> web.Response:
    session = await aiohttp_session.new_session(request)
    session["name"] = "Ada"
    raise web.HTTPSeeOther("/session")


@routes.get("/session")
async def show_session(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    return web.json_response({"name": session.get("name")})


@routes.get("/visits")
async def visits(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(
        {"first": session.new, "visits": session["visits"]}
    )


# A client of another API
# =======================


class Partner:
    """An API that has its bad days, and what was seen of it."""

    def __init__(self, api: str) -> None:
        self.api = api
        #: What happened, at either end of the wire.
        self.seen: list[str] = []
        #: One visitor at a time, as all share what was seen.
        self.turn = asyncio.Lock()
        #: How often it will fail, and which of its tokens is good.
        self.failures = 0
        self.tokens = 0
        self.good = ""

    def on_retry(self, event: RetryEvent) -> None:
        status = event.response.status if event.response else event.exception
        self.seen.append(
            f"RetryEvent: attempt {event.attempt} failed with {status}, "
            f"the next one in {event.delay:.3f} s"
        )

    def answer(
        self, request: web.Request, status: int, **body: object
    ) -> web.Response:
        sent = request.headers.get("Authorization", "")
        scheme, _, token = sent.partition(" ")
        bearing = f" with {token}" if scheme == "Bearer" else ""
        self.seen.append(f"{request.method} {request.path}{bearing}: {status}")
        return web.json_response(body, status=status)

    def knows(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.good}"


PARTNER = web.AppKey("PARTNER", Partner)
CLIENT = web.AppKey("CLIENT", aiohttp.ClientSession)
BEARER = web.AppKey("BEARER", BearerTokenMiddleware)


async def partner_client(app: web.Application) -> AsyncIterator[None]:
    """One session for all requests, from the start to the end."""
    partner = app[PARTNER]
    retry = retry_middleware(base_delay=0.05, on_retry=partner.on_retry)
    bearer = BearerTokenMiddleware(
        client_credentials(f"{partner.api}/partner/token", "demo", "secret"),
        origins=[partner.api],
    )
    async with aiohttp.ClientSession(
        partner.api,
        middlewares=[
            request_log_middleware(),
            retry,
            bearer,
            client_tracing_middleware(tracer_provider=app[TRACING]),
        ],
        raise_for_status=True,
    ) as app[CLIENT]:
        app[BEARER] = bearer
        yield
        await bearer.aclose()


@routes.get("/client/stock")
async def client_stock(request: web.Request) -> web.Response:
    """Ask when the partner answers 503 twice."""
    partner, client = request.app[PARTNER], request.app[CLIENT]
    async with partner.turn:
        begin(request.app, failures=2)
        async with client.get("/partner/stock") as response:
            found = await response.json()
        return web.json_response({**found, "seen": partner.seen})


@routes.get("/client/orders")
async def client_orders(request: web.Request) -> web.Response:
    """Ask for two pages, and have the token revoked in between."""
    partner, client = request.app[PARTNER], request.app[CLIENT]
    async with partner.turn:
        begin(request.app)
        orders = 0
        for page in (1, 2):
            async with client.get(f"/partner/orders/{page}") as response:
                orders += len((await response.json())["orders"])
        return web.json_response({"orders": orders, "seen": partner.seen})


def begin(app: web.Application, failures: int = 0) -> None:
    """As if the application had just been started."""
    app[BEARER].invalidate()
    partner = app[PARTNER]
    partner.failures = failures
    partner.tokens = 0
    partner.seen = []


@routes.post("/partner/token")
async def partner_token(request: web.Request) -> web.Response:
    partner = request.app[PARTNER]
    partner.tokens += 1
    partner.good = f"token-{partner.tokens}"
    return partner.answer(
        request,
        200,
        access_token=partner.good,
        token_type="Bearer",
        expires_in=3600,
    )


@routes.get("/partner/stock")
async def partner_stock(request: web.Request) -> web.Response:
    partner = request.app[PARTNER]
    if not partner.knows(request):
        return partner.answer(request, 401)
    if partner.failures:
        partner.failures -= 1
        return partner.answer(request, 503)
    return partner.answer(request, 200, stock=7)


@routes.get("/partner/orders/{page:[12]}")
async def partner_orders(request: web.Request) -> web.Response:
    partner = request.app[PARTNER]
    if not partner.knows(request):
        return partner.answer(request, 401)
    page = int(request.match_info["page"])
    answer = partner.answer(request, 200, orders=[page * 10, page * 10 + 1])
    if page == 1:
        partner.seen.append(f"the partner revokes {partner.good}")
        partner.good = "one that nobody has"
    return answer
