"""The server's middlewares, most of them at once, in the documented order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from answers import KINDS, Kind, application
from live import Connection, Live, live
from prometheus_client import CollectorRegistry
from raw import Head
from telemetry import Told

from aiohttp_middlewares import (
    access_log_middleware,
    basic_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    concurrency_limit_middleware,
    cors_middleware,
    csrf_middleware,
    early_data_middleware,
    error_middleware,
    etag_middleware,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    metrics_middleware,
    proxy_headers_middleware,
    rate_limit_middleware,
    report_middleware,
    request_id_middleware,
    response_headers_middleware,
    security_headers_middleware,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
    tracing_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares.annotations import Middleware

ORIGIN = "https://app.example"


def key(name: str) -> Any:
    return request_key(name, str)


def middlewares() -> dict[str, Middleware]:
    return {
        "request_id": request_id_middleware(),
        "proxy_headers": proxy_headers_middleware(trusted=["127.0.0.1"]),
        "https": https_middleware(trusted=["127.0.0.1"]),
        "tracing": tracing_middleware(**Told().providers),
        "metrics": metrics_middleware(registry=CollectorRegistry()),
        "server_timing": server_timing_middleware(emit=len, cpu=True),
        "access_log": access_log_middleware(),
        "trusted_host": trusted_host_middleware(["a.example"]),
        "https_redirect": https_redirect_middleware(),
        "security_headers": security_headers_middleware(),
        "response_headers": response_headers_middleware({"X-By": "one"}),
        "cors": cors_middleware(origins=[ORIGIN], allow_credentials=True),
        "error": error_middleware(),
        "report": report_middleware(lambda err, request: None),
        "early_data": early_data_middleware(),
        "rate_limit": rate_limit_middleware("1000000/second"),
        "concurrency_limit": concurrency_limit_middleware(1000),
        "body_limit": body_limit_middleware(1000),
        "compression": compression_middleware(minimum_size=0),
        "etag": etag_middleware(),
        "timeout": timeout_middleware(20),
        "shield": shield_middleware(methods=["POST"]),
        "session": session_middleware("0123456789abcdef0123456789abcdef"),
        "csrf": csrf_middleware(trusted_origins=[ORIGIN]),
        "basic_auth": basic_auth_middleware({"me": "secret"}),
        "idempotency": idempotency_middleware(),
    }


#: What a browser sends, by a proxy that took care of HTTPS.
FIELDS = {
    "Origin": ORIGIN,
    "Sec-Fetch-Site": "same-site",
    "Authorization": "Basic bWU6c2VjcmV0",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "192.0.2.1",
    "Accept-Encoding": "gzip",
    "Cookie": "a=1; b=2",
}


def send(
    client: Connection, line: str, body: bytes = b"", **fields: str
) -> None:
    changed = {name.replace("_", "-"): fields[name] for name in fields}
    client.send(
        line,
        body,
        fields="".join(
            f"{name}: {value}\r\n"
            for name, value in (FIELDS | changed).items()
            if value
        ),
    )


async def ask(
    server: Live, line: str, body: bytes = b"", **fields: str
) -> Head:
    """As the only one of its connection; the body as it was sent."""
    client = await server.connect()
    try:
        send(client, line, body, Connection="close", **fields)
        answer = await client.head()
        return answer._replace(rest=await client.rest())
    finally:
        client.leave()


@asynccontextmanager
async def served(*middlewares: Any) -> AsyncIterator[Live]:
    """The pages of all kinds of answers."""
    app: web.Application = application(*middlewares)
    async with live(app, lingering_time=0.01) as server:
        yield server


async def status_of(server: Live, kind: Kind) -> int:
    fields = {name.replace("-", "_"): kind.fields[name] for name in kind.fields}
    if "Upgrade" not in fields:
        return (await ask(server, f"GET {kind.path}", b"", **fields)).status
    client = await server.connect()
    try:
        send(client, f"GET {kind.path}", b"", **fields)
        return (await client.head()).status
    finally:
        client.leave()


async def statuses(server: Live) -> dict[str, int]:
    return {str(kind): await status_of(server, kind) for kind in KINDS}


EXPECTED = {str(kind): kind.status for kind in KINDS}
#: The error middleware tells a TimeoutError of the handler from its own.
EXPECTED["late-504"] = 500
