"""The cases: middlewares, a handler and a request.

This file and ``worker`` run with whatever ``aiohttp_middlewares`` their
interpreter finds: this one or upstream's 3.0.0.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

import aiohttp_middlewares as package

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ORIGIN = "https://app.example"

#: What a browser sends along.
BROWSER = {
    "Host": "api.example",
    "Connection": "keep-alive",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101",
    "Accept": "application/json, text/plain, */*",
    "Accept-Language": "en-US,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": f"{ORIGIN}/",
    "Cookie": "session=eyJ1c2VyIjogNDJ9.aBcDeF.0123456789; theme=dark",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "cross-site",
}


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], list[Any]]  # the middlewares
    handler: str = "answer"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    def request(self) -> bytes:
        fields = {**BROWSER, **dict(self.headers)}
        if self.method == "POST":
            fields["Content-Length"] = "0"
        lines = [f"{self.method} /api/items HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode()


async def answer(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"{}", content_type="application/json")


async def fail(request: web.Request) -> web.StreamResponse:
    raise ValueError("wrong value")


async def missing(request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


async def small_answer(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


HANDLERS: dict[str, Handler] = {
    "answer": answer,
    "fail": fail,
    "missing": missing,
}


@web.middleware
async def empty(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


def five() -> list[Any]:
    return [
        package.https_middleware(),
        package.cors_middleware(origins=[ORIGIN]),
        package.error_middleware(),
        package.timeout_middleware(30),
        package.shield_middleware(methods=package.NON_IDEMPOTENT_METHODS),
    ]


def documented() -> list[Any]:
    """Thirteen of docs/how-to/order.rst: the edge, bodies and sessions."""
    return [
        package.proxy_headers_middleware(trusted=["127.0.0.1"]),
        package.trusted_host_middleware([BROWSER["Host"]]),
        package.https_redirect_middleware(ignore=["/api/items"]),
        package.security_headers_middleware(),
        package.cors_middleware(origins=[ORIGIN]),
        package.error_middleware(),
        package.early_data_middleware(),
        package.body_limit_middleware(2**20),
        package.compression_middleware(),
        package.timeout_middleware(29.5),
        package.shield_middleware(methods=package.NON_IDEMPOTENT_METHODS),
        package.session_middleware("0123456789abcdef"),
        package.csrf_middleware(ignore={"/api/items": "POST"}),
    ]


def public_api() -> list[Any]:
    """What an API that anybody may ask uses, as docs/how-to/order.rst has it.

    The limit is never reached, and nobody asks for the session.
    """
    return [
        package.request_id_middleware(),
        package.proxy_headers_middleware(trusted=["127.0.0.1"]),
        package.metrics_middleware(),
        package.access_log_middleware(),
        package.trusted_host_middleware([BROWSER["Host"]]),
        package.security_headers_middleware(),
        package.cors_middleware(origins=[ORIGIN]),
        package.error_middleware(),
        package.rate_limit_middleware("1000000/second"),
        package.body_limit_middleware(2**20),
        package.compression_middleware(),
        package.timeout_middleware(29.5),
        package.shield_middleware(methods=package.NON_IDEMPOTENT_METHODS),
        package.session_middleware("0123456789abcdef0123456789abcdef"),
        package.csrf_middleware(ignore={"/api/items": "POST"}),
    ]


def paths(count: int) -> list[str]:
    return [f"/other/{number}" for number in range(count)]


def patterns(count: int) -> list[re.Pattern[str]]:
    return [re.compile(rf"^/other{number}/\w+$") for number in range(count)]


def cors(**options: Any) -> Callable[[], list[Any]]:
    return lambda: [package.cors_middleware(**options)]


def timeout(**options: Any) -> Callable[[], list[Any]]:
    return lambda: [package.timeout_middleware(30, **options)]


def shield(**options: Any) -> Callable[[], list[Any]]:
    return lambda: [package.shield_middleware(**options)]


def error(**options: Any) -> Callable[[], list[Any]]:
    return lambda: [package.error_middleware(**options)]


def origins(count: int) -> list[str]:
    return [f"https://{number}.example" for number in range(count - 1)] + [
        ORIGIN
    ]


FROM_ORIGIN = (("Origin", ORIGIN),)
PREFLIGHT = (*FROM_ORIGIN, ("Access-Control-Request-Method", "PUT"))
BY_HTTPS = (("X-Forwarded-Proto", "https"),)

CASES = [
    Case("an empty pass-through", lambda: [empty]),
    Case("five empty pass-throughs", lambda: [empty] * 5),
    Case("https, no match", lambda: [package.https_middleware()]),
    Case(
        "https, match", lambda: [package.https_middleware()], headers=BY_HTTPS
    ),
    Case("timeout", timeout()),
    Case("timeout, 10 ignored paths", timeout(ignore=paths(10))),
    Case("timeout, 1,000 ignored paths", timeout(ignore=paths(1000))),
    Case("timeout, 100 ignored patterns", timeout(ignore=patterns(100))),
    Case("shield, no match", shield(methods=["POST"])),
    Case("shield, 1,000 urls, no match", shield(urls=paths(1000))),
    Case("shield, match", shield(methods=["POST"]), method="POST"),
    Case("error, nothing raised", error()),
    Case("error, default handler, ValueError", error(), handler="fail"),
    Case("error, default handler, 404", error(), handler="missing"),
    Case(
        "error, config of 1,000 patterns",
        error(
            config=dict.fromkeys(patterns(1000), small_answer),
            default_handler=small_answer,
        ),
        handler="fail",
    ),
    Case("cors, no Origin", cors(origins=origins(1))),
    Case("cors, 1 of 1 origins", cors(origins=origins(1)), headers=FROM_ORIGIN),
    Case(
        "cors, 1 of 100 origins",
        cors(origins=origins(100)),
        headers=FROM_ORIGIN,
    ),
    Case(
        "cors, 1 of 10,000 origins",
        cors(origins=origins(10_000)),
        headers=FROM_ORIGIN,
    ),
    Case(
        "cors, a pattern",
        cors(origins=[re.compile(r"^https://\w+\.example")]),
        headers=FROM_ORIGIN,
    ),
    Case("cors, allow_all", cors(allow_all=True), headers=FROM_ORIGIN),
    Case(
        "cors, preflight",
        cors(origins=origins(1)),
        method="OPTIONS",
        headers=PREFLIGHT,
    ),
    Case("all five, GET", five),
    Case("all five, GET with CORS", five, headers=FROM_ORIGIN),
    Case("all five, POST", five, method="POST"),
    Case("all five, error", five, handler="fail"),
]


def others() -> list[Case]:
    """What upstream does not have, where there is nothing to do."""
    made: dict[str, Callable[[], Any]] = {
        "proxy_headers": lambda: package.proxy_headers_middleware(
            trusted=["192.0.2.1"]
        ),
        "trusted_host": lambda: package.trusted_host_middleware(
            [BROWSER["Host"]]
        ),
        "https_redirect": lambda: package.https_redirect_middleware(
            ignore=["/api/items"]
        ),
        "security_headers": lambda: package.security_headers_middleware(
            ignore=["/api/items"]
        ),
        "csrf": package.csrf_middleware,
        "basic_auth": lambda: package.basic_auth_middleware(
            {"login": "password"}, ignore=["/api/items"]
        ),
        "early_data": package.early_data_middleware,
        "body_limit": lambda: package.body_limit_middleware(2**20),
        "compression": lambda: package.compression_middleware(
            ignore=["/api/items"]
        ),
        "session": lambda: package.session_middleware("0123456789abcdef"),
    }
    return [
        Case(name, lambda make=make: [make()])  # type: ignore[misc]
        for name, make in made.items()
    ]
