"""Each fault that a list of middlewares can have, and what it does.

A fault is a function that makes an application, wrong or right, and what shows
the harm: it asks the application, and says whether a visitor, or whoever runs
it, is worse off.
"""

import asyncio
import base64
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import aiohttp_session
from aiohttp import ClientSession, ClientTimeout, CookieJar, hdrs, web
from aiohttp.test_utils import TestServer
from limits.aio.storage import MemoryStorage
from live import PATIENCE, Live, eventually, live
from multidict import CIMultiDictProxy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
from prometheus_client import CollectorRegistry
from yarl import URL

from aiohttp_middlewares import (
    RequestIdFilter,
    access_log_middleware,
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    concurrency_limit_middleware,
    cors_middleware,
    csrf_middleware,
    debug_error_handler,
    drain_shielded,
    early_data_middleware,
    error_middleware,
    etag_middleware,
    get_user,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    metrics_middleware,
    problem_error_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    report_middleware,
    request_id_middleware,
    requires,
    response_headers_middleware,
    security_headers_middleware,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    sign_in_middleware,
    timeout_middleware,
    tracing_middleware,
    trusted_host_middleware,
    with_middlewares,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.client import request_log_middleware
from aiohttp_middlewares.rate_limit import rate_limit
from aiohttp_middlewares.sign_in._attempt import Attempt
from aiohttp_middlewares.sign_in._provider import Identity, Provider

KEY = "0123456789abcdef0123456789abcdef"
OURS = "https://a.example"
THEIRS = "https://evil.example"

Harm = Callable[[web.Application], Awaitable[bool]]
Fault = Callable[[bool], tuple[web.Application, Harm]]


class Known(NamedTuple):
    code: str
    #: Makes the wrong application, or the right one if it is told so.
    made: Fault
    #: Which of several that have the same code.
    name: str = ""


FAULTS: list[Known] = []


def fault(code: str, *names: str) -> Callable[[Any], Any]:
    """Note a fault; with names it is one for each of them."""

    def note(function: Any) -> Any:
        for name in names or [""]:
            made = partial(function, name) if name else function
            FAULTS.append(Known(code, made, name))
        return function

    return note


# An application
# ==============

HELD = web.AppKey("HELD", asyncio.Event)


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello " * 200)


async def failing(request: web.Request) -> web.Response:
    raise ValueError("a detail of the inside")


async def held(request: web.Request) -> web.Response:
    """Works until it is told to be ready."""
    await request.app[HELD].wait()
    return web.Response(text="held")


def site(
    *middlewares: Any, handler: Any = hello, **options: Any
) -> web.Application:
    app = web.Application(middlewares=middlewares, **options)
    app[HELD] = asyncio.Event()
    app.router.add_get("/failing", failing)
    app.router.add_get("/held", held)
    app.router.add_route("*", "/", handler)
    return app


def ordered(right: bool, outer: Any, inner: Any) -> tuple[Any, Any]:
    return (outer, inner) if right else (inner, outer)


def wait_for(it_happens: bool) -> float:
    """For what happens as long as it takes, for what does not a moment."""
    return PATIENCE if it_happens else 0.3


class Answer(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    text: str


class Client:
    def __init__(self, session: ClientSession, url: URL) -> None:
        self.session = session
        self.url = url

    async def ask(
        self, method: str = "GET", path: str = "/", **options: Any
    ) -> Answer:
        options.setdefault("allow_redirects", False)
        async with self.session.request(
            method, self.url.join(URL(path)), **options
        ) as response:
            return Answer(
                response.status,
                response.headers,
                (await response.read()).decode(errors="replace"),
            )


@asynccontextmanager
async def asking(app: web.Application) -> AsyncIterator[Client]:
    server = TestServer(app)
    await server.start_server(access_log=None)
    try:
        jar = CookieJar(unsafe=True)
        async with ClientSession(cookie_jar=jar) as session:
            yield Client(session, server.make_url("/"))
    finally:
        await server.close()


async def answer(
    app: web.Application, method: str = "GET", path: str = "/", **options: Any
) -> Answer:
    async with asking(app) as client:
        return await client.ask(method, path, **options)


@contextmanager
def records(name: str) -> Iterator[list[logging.LogRecord]]:
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign,assignment]
    handler.addFilter(RequestIdFilter())
    logger = logging.getLogger(f"aiohttp_middlewares.{name}")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# What refuses, and what should know of it
# ========================================


class Anybody(Provider):
    """Lets everybody in, by the name that they say."""

    def __init__(self) -> None:
        super().__init__("anybody", "Anybody", "id", "secret", (), None)

    @property
    def identity(self) -> tuple[str, ...]:
        return ("anybody",)

    async def start(
        self, attempt: Attempt, redirect_uri: str, hint: str | None
    ) -> URL:
        asked = {"state": attempt.state, "redirect_uri": redirect_uri}
        return URL("https://provider.example/").with_query(asked)

    async def finish(
        self,
        attempt: Attempt,
        redirect_uri: str,
        answer: Mapping[str, str],
        wanted: Collection[str],
    ) -> Identity:
        return Identity(answer["code"], {"sub": answer["code"]})


NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


def their_sessions() -> Any:
    """Those of aiohttp-session itself: somebody else's middleware."""
    return aiohttp_session.session_middleware(
        aiohttp_session.SimpleCookieStorage()
    )


def tokens(token: str) -> dict[str, str] | None:
    return {"sub": token} if token in ("ann", "bob") else None


#: Middlewares of which the last refuses, and what it refuses.
REFUSING: dict[str, tuple[Callable[[], list[Any]], dict[str, Any]]] = {
    "trusted_host": (
        lambda: [trusted_host_middleware(["a.example"])],
        {"headers": {"Host": "evil.example"}},
    ),
    "https_redirect": (lambda: [https_redirect_middleware()], {}),
    "cors": (
        lambda: [cors_middleware(origins=[OURS])],
        {
            "method": "OPTIONS",
            "headers": {"Access-Control-Request-Method": "PUT"},
        },
    ),
    "body_limit": (
        lambda: [body_limit_middleware(1)],
        {"method": "POST", "data": b"too much"},
    ),
    "concurrency_limit": (
        lambda: [concurrency_limit_middleware(1)],
        {"while_held": True},
    ),
    "csrf": (
        lambda: [csrf_middleware()],
        {"method": "POST", "headers": {"Sec-Fetch-Site": "cross-site"}},
    ),
    "early_data": (
        lambda: [early_data_middleware()],
        {"method": "POST", "headers": {"Early-Data": "1"}},
    ),
    "idempotency": (
        lambda: [idempotency_middleware(required=True)],
        {"method": "POST"},
    ),
    "rate_limit": (
        lambda: [rate_limit_middleware("1/minute")],
        {"times": 2},
    ),
    "api_key": (lambda: [api_key_middleware({"ann": "key"})], {}),
    "basic_auth": (lambda: [basic_auth_middleware({"ann": "word"})], {}),
    "bearer_auth": (lambda: [bearer_auth_middleware(tokens)], {}),
    "sign_in": (lambda: [their_sessions(), sign_in_middleware(Anybody())], {}),
}
GATES = ("trusted_host", "https_redirect")
REFUSES = tuple(name for name in REFUSING if name not in (*GATES, "cors"))


def refusing(name: str) -> list[Any]:
    return REFUSING[name][0]()


async def refused_by(name: str, app: web.Application) -> Answer:
    """The answer to what is refused."""
    options = {**REFUSING[name][1]}
    headers = {"Origin": OURS, **options.pop("headers", {})}
    times = options.pop("times", 1)
    options = {"method": "GET", "path": "/", "headers": headers, **options}
    async with asking(app) as client:
        if options.pop("while_held", False):
            holding = asyncio.create_task(client.ask(path="/held"))
            # It is refused once the other is at work.
            while (found := await client.ask(**options)).status == 200:
                pass
            app[HELD].set()
            await holding
            return found
        for _ in range(times):
            found = await client.ask(**options)
    return found


@fault("request-id-inside", *REFUSING)
def no_id(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        return "X-Request-ID" not in found.headers

    return watched(name, right, request_id_middleware()), harm


@fault("access-log-inside", *REFUSING)
def not_logged(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        with records("access_log") as lines:
            status = (await refused_by(name, app)).status
        return status not in [vars(line)["status"] for line in lines]

    return watched(name, right, access_log_middleware()), harm


@fault("metrics-inside", *REFUSING)
def not_counted(name: str, right: bool) -> tuple[web.Application, Harm]:
    registry = CollectorRegistry()

    async def harm(app: web.Application) -> bool:
        status = (await refused_by(name, app)).status
        return str(status) not in {
            sample.labels.get("status")
            for family in registry.collect()
            for sample in family.samples
        }

    return watched(name, right, metrics_middleware(registry=registry)), harm


def traced() -> tuple[Middleware, InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return tracing_middleware(tracer_provider=provider), spans


@fault("tracing-inside", *REFUSING)
def not_traced(name: str, right: bool) -> tuple[web.Application, Harm]:
    tracing, spans = traced()

    async def harm(app: web.Application) -> bool:
        status = (await refused_by(name, app)).status
        return status not in [
            (span.attributes or {}).get("http.response.status_code")
            for span in spans.get_finished_spans()
        ]

    return watched(name, right, tracing), harm


@fault("server-timing-inside", *REFUSING)
def not_timed(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        return "Server-Timing" not in found.headers

    return watched(name, right, server_timing_middleware()), harm


@web.middleware
async def of_the_user(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    raise web.HTTPForbidden


@fault("security-headers-inside", "compression", *REFUSES)
def no_security_headers(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        # The pages of sign_in have those that matter to them.
        return "Cross-Origin-Opener-Policy" not in found.headers

    return watched(name, right, security_headers_middleware()), harm


@fault("response-headers-inside", *REFUSES)
def no_headers_of_ones_own(
    name: str, right: bool
) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        return "X-Robots-Tag" not in found.headers

    headers = response_headers_middleware({"X-Robots-Tag": "noindex"})
    return watched(name, right, headers), harm


@fault("cors-inside", *REFUSES)
def no_cors_headers(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        return "Access-Control-Allow-Origin" not in found.headers

    return watched(name, right, cors_middleware(origins=[OURS])), harm


# What these two put on an answer is lost where something between them answers.
REFUSING["error"] = (lambda: [error_middleware(), of_the_user], {})
REFUSING["compression"] = (lambda: [compression_middleware(), of_the_user], {})


@fault("error-outside-cors")
def no_cors_headers_in_between(right: bool) -> tuple[web.Application, Harm]:
    return no_cors_headers("error", right)  # type: ignore[no-any-return]


def watched(name: str, right: bool, watcher: Any) -> web.Application:
    outer, inner = ordered(right, [watcher], refusing(name))
    return site(*outer, *inner)


@fault("request-id-inside", "timeout")
def no_id_in_the_log(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        with records(name) as lines:
            await answer(app, path="/held")
        [line] = lines
        return bool(vars(line)["request_id"] == "-")

    both = ordered(right, request_id_middleware(), timeout_middleware(0.01))
    return site(error_middleware(), *both), harm


@fault(
    "error-inside",
    *(name for name in REFUSES if name != "sign_in"),
)
def not_rendered(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        found = await refused_by(name, app)
        return not found.headers.get("Content-Type", "").startswith(
            "application/json"
        )

    outer, inner = ordered(right, [error_middleware()], refusing(name))
    return site(*outer, *inner), harm


@fault("error-inside", "timeout")
def empty(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return not (await answer(app, path="/held")).text

    both = ordered(right, error_middleware(), timeout_middleware(0.01))
    return site(*both), harm


# What never works
# ================


@fault("no-middleware")
def not_called(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app)).status == 500

    return site(error_middleware() if right else error_middleware), harm


@fault("of-clients")
def of_clients(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app)).status == 500

    # aiohttp 3 takes it for a factory of its first versions, and warns.
    return site(*[] if right else [request_log_middleware()]), harm


# What is seen of a request
# =========================


@fault("metrics-without-traces")
def no_exemplars(right: bool) -> tuple[web.Application, Harm]:
    registry = CollectorRegistry()
    metrics = metrics_middleware(registry=registry, exemplars=True)
    tracing, _ = traced()

    async def harm(app: web.Application) -> bool:
        await answer(app)
        return not any(
            sample.exemplar
            for family in registry.collect()
            for sample in family.samples
        )

    return site(*ordered(right, tracing, metrics)), harm


# Who asks, and for what
# ======================

#: What a proxy in front says, and the server of a test believes.
VISITOR = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "a.example",
}
ANOTHER = {**VISITOR, "X-Forwarded-For": "192.0.2.2"}


async def set_session(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["user"] = "ann"
    return web.Response()


async def facts(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.scheme} {request.remote}")


async def is_sent_on(app: web.Application) -> bool:
    found = await answer(app, headers=VISITOR)
    return found.status == 307  # to where it came from, for ever


async def has_no_hsts(app: web.Application) -> bool:
    found = await answer(app, headers=VISITOR)
    return "Strict-Transport-Security" not in found.headers


async def is_in_clear(app: web.Application) -> bool:
    found = await answer(app, headers=VISITOR)
    return "Secure" not in found.headers["Set-Cookie"]


async def is_cross_origin(app: web.Application) -> bool:
    async with asking(app) as client:
        origin = str(client.url.with_scheme("https").origin())
        found = await client.ask("POST", headers={**VISITOR, "Origin": origin})
    return found.status == 403


async def comes_back_in_clear(app: web.Application) -> bool:
    found = await answer(app, headers={**VISITOR, **NAVIGATION})
    back = URL(found.headers["Location"]).query["redirect_uri"]
    return back.startswith("http:")


async def is_answered_as_another(app: web.Application) -> bool:
    key = {"Idempotency-Key": "1"}
    async with asking(app) as client:
        await client.ask("POST", headers={**VISITOR, **key})
        found = await client.ask("POST", headers={**ANOTHER, **key})
    return "192.0.2.2" not in found.text


async def is_limited_with_others(app: web.Application) -> bool:
    async with asking(app) as client:
        await client.ask(headers=VISITOR)
        found = await client.ask(headers=ANOTHER)
    return found.status == 429


def logs_the_proxy(room: str, path: str) -> Harm:
    async def harm(app: web.Application) -> bool:
        with records(room) as lines:
            await answer(app, path=path, headers=VISITOR)
        [line] = lines
        return bool(vars(line)["remote"] == "127.0.0.1")

    return harm


def misled(
    name: str,
) -> tuple[list[Any], Harm, Any]:
    """What reads the address or the scheme, what becomes of it, and where."""
    match name:
        case "https_redirect":
            return [https_redirect_middleware()], is_sent_on, hello
        case "security_headers":
            return [security_headers_middleware()], has_no_hsts, hello
        case "session":
            return [session_middleware(KEY)], is_in_clear, set_session
        case "csrf":
            return [csrf_middleware()], is_cross_origin, hello
        case "sign_in":
            found = [their_sessions(), sign_in_middleware(Anybody())]
            return found, comes_back_in_clear, hello
        case "idempotency":
            return [idempotency_middleware()], is_answered_as_another, facts
        case "rate_limit":
            limit = rate_limit_middleware("1/minute")
            return [limit], is_limited_with_others, hello
        case "error":
            harm = logs_the_proxy("error", "/failing")
            return [error_middleware()], harm, hello
        case "timeout":
            found = [error_middleware(), timeout_middleware(0.01)]
            return found, logs_the_proxy("timeout", "/held"), hello
        case "tracing":
            tracing, spans = traced()

            async def in_the_span(app: web.Application) -> bool:
                await answer(app, headers=VISITOR)
                [span] = spans.get_finished_spans()
                assert span.attributes
                return bool(span.attributes["client.address"] == "127.0.0.1")

            return [tracing], in_the_span, hello
        case "report":
            heard: list[str | None] = []
            report = report_middleware(
                lambda err, request: heard.append(request.remote)
            )

            async def in_the_report(app: web.Application) -> bool:
                await answer(app, path="/failing", headers=VISITOR)
                return heard == ["127.0.0.1"]

            return [report], in_the_report, hello
    raise AssertionError(name)


@fault(
    "proxy-headers-inside",
    *("tracing", "error", "report", "rate_limit", "timeout", "idempotency"),
)
def proxy_for_visitor(name: str, right: bool) -> tuple[web.Application, Harm]:
    found, harm, handler = misled(name)
    proxy = [proxy_headers_middleware(trusted=["127.0.0.1"])]
    outer, inner = ordered(right, proxy, found)
    return site(*outer, *inner, handler=handler), harm


@fault("proxy-host-inside")
def host_of_proxy(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app, headers=VISITOR)).status == 400

    proxy = proxy_headers_middleware(trusted=["127.0.0.1"], host=True)
    hosts = trusted_host_middleware(["a.example"])
    return site(*ordered(right, proxy, hosts)), harm


@fault(
    "https-inside",
    *(
        f"{inner} {outer}"
        for outer in ("https", "proxy_headers")
        for inner in (
            *("https_redirect", "security_headers", "session", "csrf"),
            "sign_in",
        )
    ),
)
def https_unseen(names: str, right: bool) -> tuple[web.Application, Harm]:
    name, knowing = names.split()
    found, harm, handler = misled(name)
    scheme = [
        https_middleware()
        if knowing == "https"
        else proxy_headers_middleware(trusted=["127.0.0.1"])
    ]
    outer, inner = ordered(right, scheme, found)
    return site(*outer, *inner, handler=handler), harm


@fault("trusted-host-inside", "https_redirect", "sign_in")
def sent_anywhere(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        evil = {**NAVIGATION, "Host": "evil.example"}
        found = await answer(app, headers=evil)
        return "evil.example" in found.headers.get("Location", "")

    hosts = [trusted_host_middleware(["a.example"])]
    outer, inner = ordered(right, hosts, refusing(name))
    return site(*outer, *inner), harm


@fault(
    "https-redirect-inside", "api_key", "basic_auth", "bearer_auth", "sign_in"
)
def asked_in_clear(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app, headers=NAVIGATION)).status != 307

    redirect = [https_redirect_middleware()]
    outer, inner = ordered(right, redirect, refusing(name))
    return site(*outer, *inner), harm


# What is on every answer
# =======================


@fault("cors-any-site")
def read_by_any_site(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        headers = (await answer(app, headers={"Origin": THEIRS})).headers
        return (
            headers.get("Access-Control-Allow-Origin") == THEIRS
            and headers["Access-Control-Allow-Credentials"] == "true"
        )

    if right:
        cors = cors_middleware(origins=[OURS], allow_credentials=True)
    else:
        cors = cors_middleware(allow_all=True, allow_credentials=True)
    return site(cors), harm


@fault("debug-pages", "default", "config")
def shown_the_source(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return "raise ValueError" in (await answer(app, path="/failing")).text

    handler = problem_error_handler if right else debug_error_handler
    if name == "config":
        return site(error_middleware(config={ValueError: handler})), harm
    return site(error_middleware(default_handler=handler)), harm


# Who hears of what nobody expected
# =================================


@fault("report-outside-error")
def hears_nothing(right: bool) -> tuple[web.Application, Harm]:
    heard: list[Exception] = []

    async def harm(app: web.Application) -> bool:
        await answer(app, path="/failing")
        return not heard

    report = report_middleware(lambda err, request: heard.append(err))
    return site(*ordered(right, error_middleware(), report)), harm


@fault("report-inside-timeout")
def hears_of_no_timeout(right: bool) -> tuple[web.Application, Harm]:
    heard: list[Exception] = []

    async def harm(app: web.Application) -> bool:
        await answer(app, path="/held")
        return not heard

    report = report_middleware(lambda err, request: heard.append(err))
    both = ordered(right, report, timeout_middleware(0.01))
    return site(error_middleware(), *both), harm


# What is refused before any work is done
# =======================================


@fault("early-data-inside")
def counted_twice(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            await client.ask("POST", headers={"Early-Data": "1"})
            return (await client.ask("POST")).status == 429

    limit = rate_limit_middleware("1/minute")
    return site(*ordered(right, early_data_middleware(), limit)), harm


@fault(
    "rate-limit-inside",
    *("body_limit", "basic_auth", "idempotency", "concurrency_limit"),
)
def as_often_as_they_like(
    name: str, right: bool
) -> tuple[web.Application, Harm]:
    # What it answers, again and again.
    options: dict[str, Any] = {
        "concurrency_limit": {},
        "idempotency": {"method": "POST", "headers": {"Idempotency-Key": "1"}},
        **{name: REFUSING[name][1] for name in ("body_limit", "basic_auth")},
    }[name]

    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            # The only place is taken.
            holding = asyncio.create_task(client.ask(path="/held"))
            await at_work(app)
            found = [(await client.ask(**options)).status for _ in range(3)]
            app[HELD].set()
            await holding
        return 429 not in found

    limit = rate_limit_middleware("2/minute", scope="global", ignore=["/held"])
    limited: list[Any] = {
        "basic_auth": [
            basic_auth_middleware({"ann": "word"}, ignore=["/held"])
        ],
        "concurrency_limit": [concurrency_limit_middleware(1)],
        "idempotency": [idempotency_middleware()],
        "body_limit": refusing("body_limit"),
    }[name]
    outer, inner = ordered(right, [limit], limited)
    return noticed(site(*outer, *inner)), harm


@fault("rate-limit-twice", "same", "shared")
def counts_as_two(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            await client.ask(path="/inner/")
            return (await client.ask(path="/inner/")).status == 429

    outer = limit = rate_limit_middleware("2/minute", scope="global")
    if name == "shared":
        storage = MemoryStorage()
        outer, limit = (
            rate_limit_middleware("2/minute", scope="global", storage=storage)
            for _ in range(2)
        )
    app, inner = site(outer), site(*[] if right else [limit])
    app.add_subapp("/inner", inner)
    return app, harm


@fault("rate-limit-alone", "list", "inside")
def decorated_alone(name: str, right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app)).status == 500

    @rate_limit("5/minute")
    async def limited(request: web.Request) -> web.Response:
        return web.Response()

    counts = rate_limit_middleware("100/minute")
    if name == "list":
        return site(*([counts] if right else []), handler=limited), harm
    around, counted = with_middlewares(counts), rate_limit("5/minute")
    handler = around(limited) if right else counted(around(hello))
    return site(handler=handler), harm


@fault("concurrency-limit-inside-timeout")
def waits_on_its_own_time(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            holding = asyncio.create_task(client.ask(path="/held"))
            await at_work(app)
            waiting = asyncio.create_task(client.ask())
            await asyncio.wait([waiting], timeout=wait_for(not right))
            app[HELD].set()
            await holding
            return (await waiting).status == 504

    limit = concurrency_limit_middleware(1, backlog=1, backlog_timeout=20)
    timeout = timeout_middleware(0.05, ignore=["/held"])
    return (
        noticed(site(error_middleware(), *ordered(right, limit, timeout))),
        harm,
    )


REQUESTS = web.AppKey("REQUESTS", list[web.Request])


def noticed(app: web.Application) -> web.Application:
    """Know of the requests that have come to the handler."""
    app[REQUESTS] = []

    @web.middleware
    async def notice(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        app[REQUESTS].append(request)
        return await handler(request)

    app.middlewares.append(notice)
    return app


async def at_work(app: web.Application) -> None:
    await eventually(lambda: app[REQUESTS])


@fault("concurrency-limit-inside-reader")
def waits_in_memory(right: bool) -> tuple[web.Application, Harm]:
    size = 16 * 1024 * 1024  # more than sockets keep

    async def harm(app: web.Application) -> bool:
        sent = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(size)
            sent.set()

        async with asking(app) as client:
            holding = asyncio.create_task(client.ask(path="/held"))
            await at_work(app)
            waiting = asyncio.create_task(
                client.ask(
                    "POST", data=body(), headers={"Idempotency-Key": "1"}
                )
            )
            reading = asyncio.create_task(sent.wait())
            await asyncio.wait([reading], timeout=wait_for(not right))
            is_read = sent.is_set()
            app[HELD].set()
            await holding
            await waiting
        return is_read

    limit = concurrency_limit_middleware(1, backlog=1, backlog_timeout=20)
    reader = idempotency_middleware(max_body=2 * size)
    return noticed(site(*ordered(right, limit, reader))), harm


@fault("body-limit-inside")
def read_to_the_end(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with live(app) as server:
            visitor = await server.connect()
            fields = "Idempotency-Key: 1\r\n"
            visitor.send("POST /", b"x", length=1000, fields=fields)
            answered = asyncio.create_task(visitor.head())
            await asyncio.wait([answered], timeout=wait_for(right))
            is_refused = answered.done()
            visitor.write("x" * 999)
            assert (await answered).status == 413
            visitor.leave()
        return not is_refused

    limit = body_limit_middleware(10)
    return site(*ordered(right, limit, idempotency_middleware())), harm


# The work
# ========


@fault("etag-inside-session")
def kept_with_the_cookie(right: bool) -> tuple[web.Application, Harm]:
    async def greets(request: web.Request) -> web.Response:
        await set_session(request)
        return web.Response(text="hello")

    async def harm(app: web.Application) -> bool:
        found = await answer(app)
        assert "Set-Cookie" in found.headers
        return "ETag" in found.headers

    both = ordered(right, etag_middleware(), session_middleware(KEY))
    return site(*both, handler=greets), harm


@fault("timeout-alone")
def empty_page(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return not (await answer(app, path="/held")).text

    around = [error_middleware()] if right else []
    return site(*around, timeout_middleware(0.01)), harm


def writing(log: list[str]) -> Any:
    async def write(request: web.Request) -> web.Response:
        log.append("begun")
        try:
            await request.app[HELD].wait()
        except asyncio.CancelledError:
            log.append("lost")
            raise
        log.append("written")
        return web.Response()

    return write


@fault("timeout-inside-shield")
def ends_at_the_limit(right: bool) -> tuple[web.Application, Harm]:
    log: list[str] = []

    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            assert (await client.ask("POST")).status == 504
            app[HELD].set()
            await eventually(lambda: len(log) == 2)
        return log == ["begun", "lost"]

    shield = shield_middleware(methods=["POST"])
    both = ordered(right, timeout_middleware(0.05), shield)
    app = site(error_middleware(), *both, handler=writing(log))
    app.cleanup_ctx.append(drain_shielded)
    return app, harm


@fault("shield-not-drained")
def not_waited_for(right: bool) -> tuple[web.Application, Harm]:
    log: list[str] = []

    async def harm(app: web.Application) -> bool:
        async def stop(app: web.Application) -> None:
            if right:  # while it is waited for
                asyncio.get_running_loop().call_later(0.05, app[HELD].set)

        async def close_database(app: web.Application) -> None:
            log.append("closed")

        app.on_shutdown.append(stop)
        app.on_cleanup.append(close_database)
        async with asking(app) as client:
            assert (await client.ask("POST")).status == 504
        app[HELD].set()
        await eventually(lambda: len(log) == 3)
        return log == ["begun", "closed", "written"]

    app = site(
        error_middleware(),
        timeout_middleware(0.05),
        shield_middleware(methods=["POST"]),
        handler=writing(log),
    )
    if right:
        app.cleanup_ctx.append(drain_shielded)
    return app, harm


@fault("session-outside-error")
def saved_all_the_same(right: bool) -> tuple[web.Application, Harm]:
    async def fails(request: web.Request) -> web.Response:
        await set_session(request)
        raise ValueError

    async def harm(app: web.Application) -> bool:
        return "Set-Cookie" in (await answer(app)).headers

    both = ordered(right, error_middleware(), session_middleware(KEY))
    return site(*both, handler=fails), harm


class Memory(aiohttp_session.AbstractStorage):
    """Keeps sessions on the server."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self.ready = asyncio.Event()

    async def load_session(self, request: web.Request) -> Any:
        return await self.new_session()

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        await self.ready.wait()
        self.kept.append(dict(session))
        self.save_cookie(response, "its-key", max_age=None)


@fault("session-outside-timeout")
def for_ever(right: bool) -> tuple[web.Application, Harm]:
    storage = Memory()

    async def harm(app: web.Application) -> bool:
        try:
            await answer(app, timeout=ClientTimeout(wait_for(right)))
        except asyncio.TimeoutError:
            return True
        finally:
            storage.ready.set()
        return False

    both = ordered(right, timeout_middleware(0.05), session_middleware(storage))
    return site(error_middleware(), *both, handler=set_session), harm


async def leave_at_work(server: Live, app: web.Application) -> None:
    visitor = await server.connect()
    visitor.send("POST /", b"x", fields="Idempotency-Key: 1\r\n")
    await at_work(app)
    visitor.reset()
    await eventually(lambda: app[REQUESTS][0].transport is None)
    for _ in range(20):  # until all that is cancelled has ended
        await asyncio.sleep(0)


@fault("session-outside-shield")
def changed_in_vain(right: bool) -> tuple[web.Application, Harm]:
    storage = Memory()
    storage.ready.set()
    log: list[str] = []
    write = writing(log)

    async def writes(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        await write(request)
        session["user"] = "ann"
        return web.Response()

    async def harm(app: web.Application) -> bool:
        async with live(app) as server:
            await leave_at_work(server, app)
            app[HELD].set()
            await eventually(lambda: log == ["begun", "written"])
        return not storage.kept

    shield = shield_middleware(methods=["POST"])
    both = ordered(right, shield, session_middleware(storage))
    return noticed(site(*both, handler=writes)), harm


@fault("sessions-mixed-up")
def logged_out(right: bool) -> tuple[web.Application, Harm]:
    async def user(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        return web.Response(text=session.get("user", "nobody"))

    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            await client.ask("POST")
            await client.ask(path="/inner/")
            return (await client.ask()).text == "nobody"

    name = "inner" if right else "session"
    inner = site(
        session_middleware(KEY[::-1], cookie_name=name), handler=set_session
    )
    app = web.Application(middlewares=[session_middleware(KEY)])
    app.router.add_post("/", set_session)
    app.router.add_get("/", user)
    app.add_subapp("/inner", inner)
    return app, harm


@fault("session-in-clear", "https", "https_redirect", "proxy_headers")
def stolen(name: str, right: bool) -> tuple[web.Application, Harm]:
    lists: dict[str, list[Any]] = {
        "https": [https_middleware()],
        "https_redirect": [
            proxy_headers_middleware(trusted=["127.0.0.1"]),
            https_redirect_middleware(),
        ],
        "proxy_headers": [proxy_headers_middleware(trusted=["127.0.0.1"])],
    }
    secure = "auto" if right else False
    session = session_middleware(KEY, https_only=secure)  # type: ignore[arg-type]
    return site(*lists[name], session, handler=set_session), is_in_clear


# Who may do it
# =============


@fault("sign-in-alone")
def no_session(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app)).status == 500

    around = [session_middleware(KEY)] if right else []
    return site(*around, sign_in_middleware(Anybody())), harm


@fault("sign-in-outside-session")
def session_too_late(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        return (await answer(app)).status == 500

    sign_in = sign_in_middleware(Anybody())
    return site(*ordered(right, session_middleware(KEY), sign_in)), harm


@fault("sign-in-strict")
def never_comes_back(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            gone = await client.ask(headers=NAVIGATION)
            if "SameSite=Strict" in gone.headers["Set-Cookie"]:
                # As a browser has it, on the way from another site.
                client.session.cookie_jar.clear()
            found = await client.ask(path=callback(gone, "ann"))
        return found.status == 400

    session = session_middleware(KEY, same_site="lax" if right else "strict")
    return site(session, sign_in_middleware(Anybody())), harm


def callback(gone: Answer, user: str) -> str:
    """The way back from the provider."""
    asked = URL(gone.headers["Location"]).query
    back = URL(asked["redirect_uri"]).with_query(
        {"state": asked["state"], "code": user}
    )
    return str(back.relative())


@fault("bearer-shut-out")
def token_of_no_use(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        headers = {"Authorization": "Bearer ann"}
        return (await answer(app, headers=headers)).status == 401

    bearer = bearer_auth_middleware(tokens, required=False)
    both = ordered(right, bearer, sign_in_middleware(Anybody()))
    return site(session_middleware(KEY), *both), harm


@fault("requires-nobody", "handler", "view", "inside")
def nobody_may(name: str, right: bool) -> tuple[web.Application, Harm]:
    class View(web.View):
        @requires()
        async def get(self) -> web.Response:
            return web.Response()

    async def harm(app: web.Application) -> bool:
        headers = {"Authorization": "Bearer ann"}
        return (await answer(app, headers=headers)).status == 401

    around = [bearer_auth_middleware(tokens)] if right else []
    handler = View if name == "view" else requires()(hello)
    if name == "inside":
        knows = with_middlewares(bearer_auth_middleware(tokens))
        may = requires()
        return site(
            handler=knows(may(hello)) if right else may(knows(hello))
        ), harm
    return site(*around, handler=handler), harm


# What is done once
# =================


@fault(
    "idempotency-outside-login",
    *("api_key", "basic_auth", "bearer_auth", "sign_in"),
)
def key_of_another(name: str, right: bool) -> tuple[web.Application, Harm]:
    lists: dict[str, list[Any]] = {
        "api_key": [api_key_middleware({"ann": "ann", "bob": "bob"})],
        "basic_auth": [basic_auth_middleware({"ann": "w", "bob": "w"})],
        "bearer_auth": [bearer_auth_middleware(tokens)],
        "sign_in": [sign_in_middleware(Anybody())],
    }

    async def asked_by(app: web.Application, client: Client, user: str) -> None:
        headers = {"Idempotency-Key": "1"}
        if name == "api_key":
            headers["X-API-Key"] = user
        elif name == "basic_auth":
            word = base64.b64encode(f"{user}:w".encode()).decode()
            headers["Authorization"] = f"Basic {word}"
        elif name == "bearer_auth":
            headers["Authorization"] = f"Bearer {user}"
        else:
            client.session.cookie_jar.clear()
            gone = await client.ask(headers=NAVIGATION)
            await client.ask(path=callback(gone, user))
        await client.ask("POST", headers=headers)

    async def handler(request: web.Request) -> web.Response:
        handled.append(get_user(request))
        return web.Response()

    handled: list[str | None] = []

    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            await asked_by(app, client, "ann")
            await asked_by(app, client, "bob")
        return handled != ["ann", "bob"]

    around = [session_middleware(KEY)] if name == "sign_in" else []
    once = [idempotency_middleware()]
    outer, inner = ordered(right, lists[name], once)
    return site(*around, *outer, *inner, handler=handler), harm


@fault("idempotency-outside-shield")
def runs_twice(right: bool) -> tuple[web.Application, Harm]:
    log: list[str] = []

    async def harm(app: web.Application) -> bool:
        headers = {"Idempotency-Key": "1"}
        async with asking(app) as client:
            first = await client.ask("POST", headers=headers)
            again = await client.ask("POST", headers=headers)
            assert (first.status, again.status) in [(504, 504), (504, 409)]
            app[HELD].set()
        return log.count("begun") == 2

    shield = shield_middleware(methods=["POST"])
    both = ordered(right, shield, idempotency_middleware())
    app = site(
        error_middleware(),
        timeout_middleware(0.05),
        *both,
        handler=writing(log),
    )
    app.cleanup_ctx.append(drain_shielded)
    return app, harm


@fault("idempotency-outside-compression")
def sent_at_length(right: bool) -> tuple[web.Application, Harm]:
    async def harm(app: web.Application) -> bool:
        async with asking(app) as client:
            headers = {"Idempotency-Key": "1"}
            for _ in range(2):
                found = await client.ask("POST", headers=headers)
        assert found.headers["Idempotent-Replayed"] == "true"
        return hdrs.CONTENT_ENCODING not in found.headers

    compression = compression_middleware(encodings=["gzip"])
    return site(*ordered(right, compression, idempotency_middleware())), harm
