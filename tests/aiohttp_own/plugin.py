"""A plugin for aiohttp's own tests: ours in front of every application.

Each test runs once for each configuration, the first of which does nothing.
What came of it goes into a file, for ``run.py`` to compare.
"""

import gc
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

import aiohttp_middlewares as ours
from aiohttp_middlewares.annotations import Handler, Middleware

KEY = "0123456789abcdef0123456789abcdef"
LARGE = 10**9
#: Nobody is to be refused.
EVERYBODY = 10**6


def front(**fields: str) -> Middleware:
    """A proxy in front, that nothing has to be sent through."""

    @web.middleware
    async def adds_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        headers = CIMultiDict(request.headers)
        for name, value in fields.items():
            headers.setdefault(name.replace("_", "-"), value)
        request._headers = request._cache["headers"] = CIMultiDictProxy(headers)
        return await handler(request)

    return adds_headers


def forwarded(proto: str) -> Middleware:
    return front(X_Forwarded_For="127.0.0.1", X_Forwarded_Proto=proto)


@web.middleware
async def nothing(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


def anybody(token: str) -> dict[str, str]:
    return {"sub": token}


def tracing() -> Middleware:
    return ours.tracing_middleware(
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        meter_provider=MeterProvider(shutdown_on_exit=False),
    )


def stack() -> list[Middleware]:
    """The documented order of what nobody has to be let in by."""
    return [
        ours.request_id_middleware(),
        ours.proxy_headers_middleware(trusted=[]),
        tracing(),
        ours.metrics_middleware(registry=CollectorRegistry()),
        ours.server_timing_middleware(),
        ours.access_log_middleware(),
        ours.trusted_host_middleware(["*"]),
        ours.security_headers_middleware(),
        ours.response_headers_middleware({"X-Served-By": "one"}),
        ours.cors_middleware(allow_all=True),
        ours.error_middleware(),
        ours.report_middleware(lambda err, request: None),
        ours.early_data_middleware(),
        ours.rate_limit_middleware(f"{EVERYBODY}/second"),
        ours.concurrency_limit_middleware(EVERYBODY),
        ours.body_limit_middleware(LARGE),
        ours.compression_middleware(),
        ours.etag_middleware(),
        ours.timeout_middleware(60),
        ours.shield_middleware(methods=["POST", "PUT", "PATCH", "DELETE"]),
        ours.session_middleware(KEY),
        ours.csrf_middleware(),
        ours.bearer_auth_middleware(anybody, required=False),
        ours.idempotency_middleware(),
    ]


CONFIGURATIONS: dict[str, Callable[[], list[Middleware]]] = {
    "nothing": lambda: [nothing],
    "stack": stack,
    "api_key": lambda: [
        front(X_API_Key="secret"),
        ours.api_key_middleware({"me": "secret"}),
    ],
    "basic_auth": lambda: [
        front(Authorization="Basic bWU6c2VjcmV0"),
        ours.basic_auth_middleware({"me": "secret"}),
    ],
    "access_log": lambda: [ours.access_log_middleware()],
    "bearer_auth": lambda: [
        ours.bearer_auth_middleware(anybody, required=False)
    ],
    "body_limit": lambda: [ours.body_limit_middleware(LARGE)],
    "compression": lambda: [ours.compression_middleware(minimum_size=0)],
    "concurrency_limit": lambda: [ours.concurrency_limit_middleware(EVERYBODY)],
    "cors": lambda: [ours.cors_middleware(allow_all=True)],
    "csrf": lambda: [ours.csrf_middleware()],
    "early_data": lambda: [ours.early_data_middleware()],
    "etag": lambda: [ours.etag_middleware()],
    "error": lambda: [ours.error_middleware()],
    "https": lambda: [forwarded("https"), ours.https_middleware()],
    "https_redirect": lambda: [
        forwarded("https"),
        ours.https_middleware(),
        ours.https_redirect_middleware(),
    ],
    "idempotency": lambda: [ours.idempotency_middleware()],
    "metrics": lambda: [ours.metrics_middleware(registry=CollectorRegistry())],
    "proxy_headers": lambda: [
        forwarded("http"),
        ours.proxy_headers_middleware(trusted=["127.0.0.1", "::1", "unix"]),
    ],
    "rate_limit": lambda: [ours.rate_limit_middleware(f"{EVERYBODY}/second")],
    "report": lambda: [ours.report_middleware(lambda err, request: None)],
    "request_id": lambda: [ours.request_id_middleware()],
    "response_headers": lambda: [
        ours.response_headers_middleware({"X-Served-By": "one"})
    ],
    "security_headers": lambda: [ours.security_headers_middleware()],
    "server_timing": lambda: [
        ours.server_timing_middleware(emit=lambda timing: None, cpu=True)
    ],
    "session": lambda: [ours.session_middleware(KEY)],
    "shield": lambda: [
        ours.shield_middleware(methods=["POST", "PUT", "PATCH", "DELETE"])
    ],
    "sign_in": lambda: [
        ours.session_middleware(KEY),
        ours.sign_in_middleware(
            ours.github("the site", "its secret", users="*"), required=False
        ),
    ],
    "timeout": lambda: [ours.timeout_middleware(60)],
    "tracing": lambda: [tracing()],
    "trusted_host": lambda: [ours.trusted_host_middleware(["*"])],
}


#: aiohttp's tests of its server, by their files.
SERVER_FILES = [
    "test_web_functional",
    "test_web_sendfile_functional",
    "test_web_websocket_functional",
]
#: Others that send many kinds of requests to one.
CLIENT_FILES = [
    "test_client_functional",
    "test_client_middleware",
    "test_client_ws_functional",
    "test_run_app",
    "test_web_middleware",
    "test_web_urldispatcher",
]
#: And those in which few tests do.
OTHER_FILES = [
    "test_client_middleware_digest_auth",
    "test_client_session",
    "test_connector",
    "test_proxy_functional",
    "test_web_app",
    "test_web_exceptions",
    "test_web_log",
    "test_web_server",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ours", default="nothing", help="by comma")
    parser.addoption("--short", action="store_true")
    parser.addoption("--only", help="a file that names the tests to run")
    parser.addoption("--outcomes", help="the file to write")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    options = metafunc.config.option
    names: list[str] = options.ours.split(",")
    if options.short and metafunc.module.__name__ not in SERVER_FILES:
        # Each of ours alone is tried with the tests of the server.
        names = [name for name in names if name in ("nothing", "stack")]
    metafunc.parametrize(
        "configuration",
        names,
        ids=[f"<{name}>" for name in names],
        indirect=True,
    )


@pytest.fixture(autouse=True)
def configuration(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    made = web.Application.__init__
    served: list[str] = []

    @web.middleware
    async def notes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        served.append(request.path)
        return await handler(request)

    def make(app: web.Application, *args: Any, **options: Any) -> None:
        options["middlewares"] = [
            notes,
            *CONFIGURATIONS[request.param](),
            *options.get("middlewares", ()),
        ]
        made(app, *args, **options)

    monkeypatch.setattr(web.Application, "__init__", make)
    yield
    request.node.user_properties.append(("served", len(served)))


def parted(nodeid: str) -> tuple[str, str]:
    """The name that aiohttp has for a test, and the configuration."""
    match = re.search(f"<({'|'.join(CONFIGURATIONS)})>", nodeid)
    if match is None:
        return nodeid, "nothing"
    before, after = nodeid[: match.start()], nodeid[match.end() :]
    both = f"{before.removesuffix('-')}{after}".replace("[-", "[")
    return both.removesuffix("[]"), match[1]


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    path = config.getoption("--only")
    if path:
        only = set(Path(path).read_text().splitlines())
        items[:] = [item for item in items if parted(item.nodeid)[0] in only]


def pytest_runtest_logfinish() -> None:
    # aiohttp's fixtures have collected all garbage. What pytest keeps of each
    # test need not be looked at again after the next.
    gc.freeze()


class Outcomes:
    """By the test, and by the configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, str]] = {}
        self.served: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test, name = parted(report.nodeid)
        found = self.found.setdefault(test, {})
        if found.get(name) != "failed":
            if report.outcome != "passed" or report.when == "call":
                found[name] = report.outcome
            if report.failed:
                found[f"{name} text"] = report.longreprtext
        if dict(report.user_properties).get("served"):
            self.served.add(test)

    def pytest_sessionfinish(self) -> None:
        found = {
            test: outcomes
            for test, outcomes in self.found.items()
            if test in self.served
        }
        self.path.write_text(json.dumps(found))


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--outcomes")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Outcomes(Path(path)))
