"""What Prometheus is told, and that no client makes more of it."""

import asyncio
import gc
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from answers import KINDS, UPGRADE, Kind, serve
from garbage import no_more_than_without
from hypothesis import given
from hypothesis import strategies as st
from live import Connection, Live, eventually, live
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    generate_latest,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from raw import Head

from aiohttp_middlewares import (
    compression_middleware,
    error_middleware,
    get_user,
    https_middleware,
    metrics_handler,
    metrics_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.who import set_user
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.metrics import DEFAULT_BUCKETS, _accepted

#: Their names and labels, and what they are.
Page = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Page:
    """As Prometheus would read it, by prometheus-client's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(page: Page, name: str, **labels: str) -> float | None:
    return page.get((f"http_server_{name}", tuple(sorted(labels.items()))))


class Scraped:
    """An application that is measured."""

    def __init__(self, site: Live, registry: CollectorRegistry) -> None:
        self.site = site
        self.registry = registry

    async def ask(self, line: str, body: bytes = b"", fields: str = "") -> Head:
        """Until the server has closed the connection."""
        connection = await self.site.connect()
        connection.send(line, body, fields=f"{fields}Connection: close\r\n")
        head = await connection.head()
        head = head._replace(rest=await connection.rest())
        connection.leave()
        return head

    async def show(self, query: str = "", accept: str | None = None) -> Head:
        fields = "" if accept is None else f"Accept: {accept}\r\n"
        return await self.ask(f"GET /metrics{query}", fields=fields)

    async def page(self, query: str = "") -> Page:
        await eventually(lambda: self.in_progress() == 0)
        answer = await self.show(query)
        assert answer.status == 200
        return read(answer.rest.decode())

    def in_progress(self) -> float:
        return sum(
            sample.value
            for metric in self.registry.collect()
            if metric.name.endswith("_requests_in_progress")
            for sample in metric.samples
        )


@asynccontextmanager
async def serving(
    *middlewares: Middleware,
    routes: Any = (),
    registry: CollectorRegistry | None = None,
    options: Any = (),
    **served: Any,
) -> AsyncIterator[Scraped]:
    registry = registry or CollectorRegistry()
    subject = metrics_middleware(
        registry=registry, ignore=["/metrics"], **dict(options)
    )
    app = web.Application(middlewares=[subject, *middlewares])
    app.router.add_get("/metrics", metrics_handler(registry))
    for path, handler in dict(routes).items():
        app.router.add_route("*", path, handler)
    async with live(serve(app), **served) as site:
        yield Scraped(site, registry)


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


# What it does
# ============


async def test_page_has_the_five_metrics_with_their_labels() -> None:
    async with serving(routes={"/users/{name}": hello}) as app:
        await app.ask("POST /users/ann", b"12345")
        page = await app.page()
    by_route = {"method": "POST", "route": "/users/{name}"}
    by_status = {**by_route, "status": "200"}
    assert value(page, "requests_total", **by_status) == 1
    assert value(page, "requests_in_progress", method="POST") == 0
    for name, labels, total in (
        ("request_duration_seconds", by_status, None),
        ("response_size_bytes", by_status, 5),
        ("request_size_bytes", by_route, 5),
    ):
        assert value(page, f"{name}_count", **labels) == 1
        assert value(page, f"{name}_bucket", le="+Inf", **labels) == 1
        summed = value(page, f"{name}_sum", **labels)
        assert summed == total or (total is None and 0 < summed < 20)  # type: ignore[operator]
    ours = {name for name, _ in page if not name.endswith("_created")}
    assert ours == {
        "http_server_requests_total",
        "http_server_requests_in_progress",
        *(
            f"http_server_{name}_{part}"
            for name in (
                "request_duration_seconds",
                "response_size_bytes",
                "request_size_bytes",
            )
            for part in ("bucket", "sum", "count")
        ),
    }


async def test_duration_lasts_until_the_last_byte_is_out() -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await go_on.wait()
        return response

    async with serving(
        routes={"/slow": slow}, options={"buckets": [0.1]}
    ) as app:
        connection = await app.site.connect()
        connection.send("GET /slow")
        await connection.head()
        assert app.in_progress() == 1
        await asyncio.sleep(0.11)
        go_on.set()
        page = await app.page()
        connection.leave()
    labels = {"method": "GET", "route": "/slow", "status": "200"}
    name = "request_duration_seconds_bucket"
    assert value(page, name, le="0.1", **labels) == 0
    assert value(page, name, le="+Inf", **labels) == 1


async def test_buckets_are_those_that_were_asked_for() -> None:
    async with serving(options={"buckets": [1, 2.5, float("inf")]}) as app:
        await app.ask("GET /returned")
        page = await app.page()
    bounds = {
        dict(labels)["le"]
        for name, labels in page
        if name == "http_server_request_duration_seconds_bucket"
    }
    assert bounds == {"1.0", "2.5", "+Inf"}
    assert DEFAULT_BUCKETS[0] == 0.005
    assert DEFAULT_BUCKETS[-1] == 10


async def test_route_of_a_sub_application_has_its_prefix_and_counts_once() -> (
    None
):
    registry = CollectorRegistry()
    inner = web.Application(middlewares=[metrics_middleware(registry=registry)])
    inner.router.add_get("/users/{name}", hello)
    app = web.Application(middlewares=[metrics_middleware(registry=registry)])
    app.add_subapp("/inner", inner)
    async with live(app) as site:
        scraped = Scraped(site, registry)
        await scraped.ask("GET /inner/users/ann")
    assert registry.get_sample_value(
        "http_server_requests_total",
        {"method": "GET", "route": "/inner/users/{name}", "status": "200"},
    ) == (1.0)
    assert total(registry) == 1
    assert scraped.in_progress() == 0


def total(registry: CollectorRegistry, namespace: str = "http_server") -> float:
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == f"{namespace}_requests_total"
    )


async def test_other_registry_or_namespace_counts_for_itself() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    app = web.Application(
        middlewares=[
            metrics_middleware(registry=one),
            metrics_middleware(registry=other),
            metrics_middleware(registry=one, namespace="shop"),
            metrics_middleware(registry=one),
        ]
    )
    async with live(serve(app)) as site:
        await Scraped(site, one).ask("GET /returned")
    assert total(one) == total(other) == total(one, "shop") == 1


async def test_default_registry_is_that_of_prometheus_client() -> None:
    try:
        app = web.Application(middlewares=[metrics_middleware(namespace="own")])
        app.router.add_get("/metrics", metrics_handler())
        async with live(app) as site:
            scraped = Scraped(site, REGISTRY)
            await scraped.ask("GET /nowhere")
            text = (await scraped.show()).rest.decode()
    finally:
        for collector in list(REGISTRY._collector_to_names):
            if str(getattr(collector, "_name", "")).startswith("own_"):
                REGISTRY.unregister(collector)
    assert 'own_requests_total{method="GET",route="__unmatched__"' in text
    assert "python_info" in text


async def test_registry_that_was_cleared_gets_its_metrics_again() -> None:
    registry = CollectorRegistry()
    metrics_middleware(registry=registry)
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)
    async with serving(registry=registry) as app:
        await app.ask("GET /returned")
    assert total(registry) == 1


async def test_registry_is_forgotten_with_its_last_user() -> None:
    from aiohttp_middlewares.metrics import _MEASURES

    gc.collect()
    before = len(_MEASURES)
    registry = CollectorRegistry()
    metrics_middleware(registry=registry)
    assert len(_MEASURES) == before + 1
    del registry
    gc.collect()
    assert len(_MEASURES) == before


async def test_labels_of_ones_own_know_how_it_ended() -> None:
    def user(request: web.Request) -> str:
        return get_user(request) or "nobody"

    @middleware
    async def knows(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        set_user(request, "ann")
        return await handler(request)

    options = {"labels": {"service": "cart", "user": user}}
    async with serving(knows, options=options) as app:
        await app.ask("POST /returned", b"123")
        page = await app.page()
    labels = {"method": "POST", "route": "/returned"}
    own = {"service": "cart", "user": "ann"}
    assert value(page, "requests_total", status="200", **labels, **own) == 1
    assert value(page, "request_size_bytes_sum", **labels, **own) == 3
    # The gauge knows nothing of how a request will end.
    assert value(page, "requests_in_progress", method="POST") == 0


async def test_label_that_fails_is_logged_and_empty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: web.Request) -> str:
        raise ZeroDivisionError

    def odd(request: web.Request) -> Any:
        return None

    options = {"labels": {"broken": broken, "odd": odd}}
    async with serving(options=options) as app:
        assert (await app.ask("GET /returned")).rest == b"returned"
        page = await app.page()
    labels = {"method": "GET", "route": "/returned", "status": "200"}
    assert value(page, "requests_total", broken="", odd="", **labels) == 1
    failed = [
        record.exc_info[0]
        for record in caplog.records
        if record.name == "aiohttp_middlewares.metrics" and record.exc_info
    ]
    assert failed == [ZeroDivisionError, AttributeError]


# What it leaves alone
# ====================


async def test_ignored_requests_are_not_measured() -> None:
    async with serving() as app:
        for _ in range(2):
            page = await app.page()
    assert [name for name, _ in page if name.endswith("_total")] == []


async def test_path_that_may_lead_elsewhere_is_measured() -> None:
    registry = CollectorRegistry()
    subject = metrics_middleware(
        registry=registry, ignore=[re.compile("/open/")]
    )
    async with live(serve(web.Application(middlewares=[subject]))) as site:
        app = Scraped(site, registry)
        await app.ask("GET /open/page")
        assert total(registry) == 0
        await app.ask("GET /open/..%2freturned")
        assert total(registry) == 1


async def test_metrics_of_others_stay_as_they_are() -> None:
    registry = CollectorRegistry()
    Counter("jobs_total", "Jobs.", registry=registry).inc(7)
    async with serving(registry=registry) as app:
        await app.ask("GET /returned")
        page = await app.page()
    assert page["jobs_total", ()] == 7


# Every kind of answer
# ====================

NEIGHBOURS: dict[str, Callable[[], list[Middleware]]] = {
    "alone": list,
    "cloned": lambda: [https_middleware({"Host": "a.example"})],
    "all": lambda: [
        error_middleware(),
        compression_middleware(minimum_size=1),
        timeout_middleware(30),
        shield_middleware(methods={"GET", "POST"}),
    ],
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("neighbours", NEIGHBOURS)
async def test_every_kind_of_answer_counts_as_it_left(
    neighbours: str, method: str
) -> None:
    async with serving(*NEIGHBOURS[neighbours]()) as app:
        got = []
        for kind in KINDS:
            connection = await app.site.connect()
            connection.send(
                f"{method} {kind.path}", fields=fields(kind, "gzip")
            )
            answer = await last(connection, method, kind)
            connection.leave()
            await eventually(lambda: app.in_progress() == 0)
            got.append((kind, answer))
        page = await app.page()
    for kind, answer in got:
        route = kind.path if kind.handler else "__unmatched__"
        labels = {"method": method, "route": route}
        labels["status"] = str(answer.status)
        assert value(page, "requests_total", **labels) == 1
        assert value(page, "request_duration_seconds_count", **labels) == 1
        size = value(page, "response_size_bytes_sum", **labels)
        assert size == (0 if method == "HEAD" else len(answer.rest)), kind


def fields(kind: Kind, encoding: str = "identity") -> str:
    named = {"Accept-Encoding": encoding, **kind.fields}
    return "".join(f"{name}: {text}\r\n" for name, text in named.items())


async def last(connection: Connection, method: str, kind: Kind) -> Head:
    if method == "HEAD":
        return await connection.head()
    if kind.status in (101, 204, 304):
        return (await connection.head())._replace(rest=b"")
    return await connection.answer()


async def test_open_websocket_is_in_progress_until_it_is_closed() -> None:
    async def chat(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("hello")
        async for _ in response:
            pass
        return response

    async with serving(routes={"/chat": chat}) as app:
        connection = await app.site.connect()
        upgrade = "".join(f"{name}: {it}\r\n" for name, it in UPGRADE.items())
        connection.send("GET /chat", fields=upgrade)
        await connection.until(b"hello")
        assert app.in_progress() == 1
        connection.reset()
        page = await app.page()
    labels = {"method": "GET", "route": "/chat", "status": "101"}
    assert value(page, "requests_total", **labels) == 1


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_client_that_left_is_in_progress_no_more(
    cancelled: bool, begun: bool
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begun:
            await response.prepare(request)
            await response.write(b"begun")
        entered.set()
        await go_on.wait()
        return response

    async with serving(
        routes={"/slow": slow}, handler_cancellation=cancelled
    ) as app:
        connection = await app.site.connect()
        connection.send("GET /slow")
        await entered.wait()
        if begun:
            await connection.head()
        assert app.in_progress() == 1
        connection.reset()
        if not cancelled:
            await eventually(lambda: is_lost(app.site))
            go_on.set()
        page = await app.page()
    labels = {"method": "GET", "route": "/slow"}
    status = "200" if begun else "499"
    assert value(page, "requests_total", status=status, **labels) == 1


def is_lost(site: Live) -> bool:
    connections = site.runner.server.connections  # type: ignore[union-attr]
    return all(each.transport is None for each in connections)


async def test_limit_that_is_reached_counts_as_what_was_sent() -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with serving(
        error_middleware(),
        timeout_middleware(None, limits={"/slow": 0.01}),
        routes={"/slow": slow},
    ) as app:
        await app.ask("GET /slow")
        page = await app.page()
    labels = {"method": "GET", "route": "/slow", "status": "504"}
    assert value(page, "requests_total", **labels) == 1


async def test_inside_of_a_shield_whose_client_left_nothing_stays() -> None:
    """All is over before the middleware is called."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    registry = CollectorRegistry()

    @middleware
    async def slow(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        entered.set()
        await go_on.wait()
        return await handler(request)

    done = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        done.set()
        return web.Response()

    outer = CollectorRegistry()
    app = web.Application(
        middlewares=[
            metrics_middleware(registry=outer),
            shield_middleware(methods={"GET"}),
            slow,
            metrics_middleware(registry=registry),
        ]
    )
    app.router.add_get("/", handler)
    async with live(app) as site:
        connection = await site.connect()
        connection.send("GET /")
        await entered.wait()
        connection.reset()
        await eventually(lambda: total(outer))
        go_on.set()
        await done.wait()
        await eventually(lambda: not site.connections())
        assert Scraped(site, registry).in_progress() == 0
        assert Scraped(site, outer).in_progress() == 0


async def test_nothing_more_waits_for_the_garbage_collector() -> None:
    subject = metrics_middleware(
        registry=CollectorRegistry(),
        labels={"method_too": lambda request: request.method},
    )
    await no_more_than_without(subject)


# Bodies of requests
# ==================


async def test_of_a_request_the_bytes_count_that_arrived() -> None:
    async def reads(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    async with serving(routes={"/reads": reads}) as app:
        await app.ask("PUT /reads", b"x" * 70_000)
        chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
        connection = await app.site.connect()
        connection.write(
            f"POST /reads HTTP/1.1\r\nHost: a\r\n{chunked}\r\n",
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        await connection.rest()
        connection.leave()
        page = await app.page()
    name = "request_size_bytes_sum"
    assert value(page, name, method="PUT", route="/reads") == 70_000
    assert value(page, name, method="POST", route="/reads") == 5


async def test_compressed_body_counts_as_it_was_sent() -> None:
    import gzip

    async def reads(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    body = gzip.compress(b"x" * 50_000)
    async with serving(routes={"/reads": reads}) as app:
        answer = await app.ask(
            "POST /reads", body, "Content-Encoding: gzip\r\n"
        )
        assert answer.rest == b"50000"
        page = await app.page()
    assert value(
        page, "request_size_bytes_sum", method="POST", route="/reads"
    ) == len(body)


async def test_what_was_only_announced_does_not_count() -> None:
    async with serving() as app:
        connection = await app.site.connect()
        connection.send("POST /returned", b"12", length=10**18)
        await connection.answer()
        connection.reset()
        page = await app.page()
    labels = {"method": "POST", "route": "/returned"}
    assert value(page, "request_size_bytes_sum", **labels) in (0, 2)


# Hostile input
# =============

MADE_UP = 10_000


async def told(request: web.Request) -> web.Response:
    """Answers with the status that it is told."""
    return web.Response(status=int(request.query["status"]))


@middleware
async def methods(request: web.Request, handler: Handler) -> web.StreamResponse:
    """As aiohttp's parser in Python takes them; that in C knows a few."""
    method = request.headers.get("X-Method")
    if method is not None:
        request = request.clone(method=method)
    return await handler(request)


def made_up(chance: random.Random) -> str:
    def word() -> str:
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        return "".join(chance.choices(letters, k=chance.randint(1, 9)))

    method = f"X-Method: {word()}\r\n" if chance.random() < 0.5 else ""
    path = chance.choice(
        [
            f"/{word()}/{word()}",
            f"/users/{word()}%0A%22{{}}",
            f"/told?status={chance.randint(200, 999)}",
        ]
    )
    return (
        f"GET {path} HTTP/1.1\r\nHost: {word()}.example\r\n"
        f"X-{word()}: {word()}\r\n{method}\r\n"
    )


async def test_whatever_comes_in_the_number_of_series_is_bounded() -> None:
    """10,000 made-up paths, methods, statuses and hosts."""
    chance = random.Random(1)
    registry = CollectorRegistry()
    app = web.Application(
        middlewares=[methods, metrics_middleware(registry=registry)]
    )
    app.router.add_route("*", "/users/{name}", hello)
    app.router.add_route("*", "/told", told)
    async with live(app) as site:
        connection = await site.connect()

        async def ask(requests: list[str]) -> None:
            connection.write("".join(requests))
            for _ in requests:
                answer = await connection.head()
                length = int(answer.headers.get("Content-Length", 0))
                if answer.status != 304:
                    await connection.reader.readexactly(length)

        # All that there can be of these routes.
        statuses = range(200, 601)
        for method in ("GET", "PROPFIND"):
            for path in (
                "/nowhere",
                "/users/ann",
                *(f"/told?status={status}" for status in statuses),
            ):
                line = f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"
                await ask([line])
        before = set(read(generate_latest(registry).decode()))
        asked = total(registry)
        for _ in range(MADE_UP // 100):
            await ask([made_up(chance) for _ in range(100)])
        connection.leave()
        await eventually(lambda: total(registry) == asked + MADE_UP)
    page = read(generate_latest(registry).decode())
    assert set(page) == before
    for method in ("GET", "_OTHER"):
        labels = {"method": method, "route": "/told", "status": "_OTHER"}
        assert (value(page, "requests_total", **labels) or 0) > 100


async def test_what_is_no_unicode_does_not_spoil_the_page() -> None:
    def agent(request: web.Request) -> str:
        return request.headers.get("User-Agent", "")

    async with serving(options={"labels": {"agent": agent}}) as app:
        connection = await app.site.connect()
        connection.writer.write(
            b"GET /returned HTTP/1.1\r\nHost: a\r\n"
            b'User-Agent: \xff"\\\r\nConnection: close\r\n\r\n'
        )
        await connection.rest()
        connection.leave()
        page = await app.page()
    labels = {"method": "GET", "route": "/returned", "status": "200"}
    assert value(page, "requests_total", agent='?"\\', **labels) == 1


ODD_ACCEPTS = [
    "",
    ",",
    ";",
    "application/openmetrics-text;version=1.0.x",
    "application/openmetrics-text;version=x",
    "application/openmetrics-text;version=1.1.\xff",
    "application/openmetrics-text;version=99.0.0",
    "application/openmetrics-text;version=" + "9" * 5000,
    "text/plain;version=1.x",
    "text/plain;version=\u0661.0.0",
    "text/plain;version=1.0.0;escaping=\udcff",
    'application/openmetrics-text;version="1.0.0',
    '"' * 500,
    "a/b," * 1000,
    "; " * 900 + "=",
]


@pytest.mark.parametrize("accept", ODD_ACCEPTS)
async def test_odd_accept_gets_the_page(accept: str) -> None:
    async with serving() as app:
        await app.ask("GET /returned")
        connection = await app.site.connect()
        connection.writer.write(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: "
            + accept.encode("utf-8", "surrogateescape")
            + b"\r\n\r\n"
        )
        answer = await connection.answer()
        connection.leave()
    assert answer.status == 200
    assert answer.headers["Content-Type"].isascii()
    assert b"http_server_requests_total" in answer.rest


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    *("application/openmetrics-text", "text/plain", "*/*"),
                    *(";", ",", "=", '"', "version=", "1.0.0", "q=", "0.5"),
                    *("escaping=", "dots", "\udcff", "x", " "),
                ]
            )
        ).map("".join),
        max_size=3,
    )
)
def test_whatever_is_accepted_prometheus_client_understands(
    accept: list[str],
) -> None:
    _, content_type = choose_encoder(_accepted(accept))
    assert content_type.isascii()
    assert re.fullmatch(
        r"text/plain; version=0\.0\.4; charset=utf-8"
        r"|text/plain; version=1\.0\.0; charset=utf-8(; escaping=[a-z0-9-]+)?"
        r"|application/openmetrics-text; version=1\.0\.0; charset=utf-8"
        r"(; escaping=[a-z0-9-]+)?",
        content_type,
    )


# The page
# ========

#: As Prometheus 3 sends it.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/html, application/xml", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
        ),
        (
            "application/openmetrics-text;q=0.1, text/plain",
            "text/plain; version=0.0.4",
        ),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text;version=0.0.1, text/plain",
            "text/plain; version=0.0.4",
        ),
    ],
)
async def test_format_is_the_one_that_is_accepted(
    accept: str | None, expected: str
) -> None:
    async with serving() as app:
        await app.ask("GET /returned")
        answer = await app.show(accept=accept)
    content_type = answer.headers["Content-Type"]
    assert content_type.startswith(expected)
    assert answer.headers["Vary"] == "Accept"
    text = answer.rest.decode()
    parse = text_string_to_metric_families
    if "openmetrics" in expected:
        assert text.endswith("# EOF\n")
        parse = openmetrics.text_string_to_metric_families
    names = {family.name for family in parse(text)}
    assert "http_server_request_duration_seconds" in names


async def test_names_restrict_the_page() -> None:
    async with serving() as app:
        await app.ask("GET /returned")
        page = await app.page(
            "?name[]=http_server_requests_total&name%5B%5D=nothing"
            "&name[]=%FF&name[]=http_server_request_size_bytes_sum"
        )
        everything = await app.page()
        assert await app.page("?name[]=") == everything
        assert await app.page("?name[]=nothing") == {}
    assert {name for name, _ in page} == {
        "http_server_requests_total",
        "http_server_request_size_bytes_sum",
    }


async def test_page_is_compressed_by_the_middleware_for_that() -> None:
    async with serving(compression_middleware(minimum_size=0)) as app:
        await app.ask("GET /returned")
        page = (await app.show()).rest
        answer = await app.ask(
            "GET /metrics", fields="Accept-Encoding: gzip\r\n"
        )
        assert answer.headers["Content-Encoding"] == "gzip"
        vary = answer.headers["Vary"].lower().split(", ")
    assert sorted(vary) == ["accept", "accept-encoding"]
    assert len(answer.rest) < len(page) / 3


async def test_head_has_the_length_of_the_page() -> None:
    async with serving() as app:
        length = len((await app.show()).rest)
        answer = await app.ask("HEAD /metrics")
    assert answer.rest == b""
    assert int(answer.headers["Content-Length"]) == length


async def test_server_answers_others_while_a_page_is_made() -> None:
    """One page at a time, and not in the event loop."""
    loop = asyncio.get_running_loop()
    shown: list[int] = []

    class Slow:
        def collect(self) -> Iterator[Any]:
            shown.append(1)
            # Until another request was answered meanwhile.
            answered = asyncio.run_coroutine_threadsafe(
                app.ask("GET /returned"), loop
            ).result(20)
            assert answered.rest == b"returned"
            assert len(shown) == 1
            shown.pop()
            return iter(())

    registry = CollectorRegistry()
    registry.register(Slow())
    async with serving(registry=registry) as app:
        answers = await asyncio.gather(*(app.show() for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5


# Exemplars
# =========


@contextmanager
def traced(sampler: Any) -> Iterator[Middleware]:
    provider = TracerProvider(sampler=sampler)
    tracer = provider.get_tracer("test")

    @middleware
    async def tracing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        with tracer.start_as_current_span("request") as span:
            response = await handler(request)
            identity = span.get_span_context().trace_id
            response.headers["X-Trace"] = trace.format_trace_id(identity)
            return response

    yield tracing
    provider.shutdown()


@pytest.mark.parametrize(
    "sampler", [ALWAYS_ON, ALWAYS_OFF, None], ids=["on", "off", "no span"]
)
async def test_exemplar_is_the_trace_of_a_sampled_span(sampler: Any) -> None:
    registry = CollectorRegistry()
    subject = metrics_middleware(registry=registry, exemplars=True)
    with traced(sampler) as tracing:
        outside = [] if sampler is None else [tracing]
        app = web.Application(middlewares=[*outside, subject])
        app.router.add_get("/metrics", metrics_handler(registry))
        async with live(serve(app)) as site:
            scraped = Scraped(site, registry)
            answer = await scraped.ask("GET /returned")
            text = (await scraped.show()).rest.decode()
            page = await scraped.show(accept="application/openmetrics-text")
    assert "trace_id" not in text
    exemplars = {
        sample.name: sample.exemplar.labels
        for family in openmetrics.text_string_to_metric_families(  # type: ignore[no-untyped-call]
            page.rest.decode()
        )
        for sample in family.samples
        if sample.exemplar and sample.labels["route"] == "/returned"
    }
    if sampler is not ALWAYS_ON:
        assert exemplars == {}
        return
    expected = {"trace_id": answer.headers["X-Trace"]}
    assert exemplars == {
        "http_server_requests_total": expected,
        "http_server_request_duration_seconds_bucket": expected,
    }


# Many processes
# ==============

SERVER = """
import asyncio, os, sys
from aiohttp import web
from prometheus_client import CollectorRegistry
from aiohttp_middlewares import metrics_handler, metrics_middleware

async def hello(request):
    return web.Response(text="hello")

async def waits(request):
    await asyncio.sleep(60)

async def main():
    app = web.Application(middlewares=[metrics_middleware(ignore=["/metrics"])])
    app.router.add_get("/hello", hello)
    app.router.add_get("/waits", waits)
    app.router.add_get("/metrics", metrics_handler(*REGISTRY))
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()

asyncio.run(main())
"""


@pytest.mark.parametrize("registry", ["()", "(CollectorRegistry(),)"])
async def test_each_process_answers_for_all(
    tmp_path: Path, registry: str
) -> None:
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    code = SERVER.replace("*REGISTRY", f"*{registry}")
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        for _ in range(2)
    ]
    apps = []
    try:
        for process in processes:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            site = Live(None, "127.0.0.1", port)  # type: ignore[arg-type]
            apps.append(Scraped(site, CollectorRegistry()))
        for _ in range(3):
            await apps[0].ask("GET /hello")
        await apps[1].ask("GET /hello")
        waiting = await apps[1].site.connect()
        waiting.send("GET /waits")
        labels = {"method": "GET", "route": "/hello", "status": "200"}
        while True:  # until the request that waits has arrived
            pages = [await app.page() for app in apps]
            if value(pages[0], "requests_in_progress", method="GET") == 1:
                break
        for page in pages:
            assert value(page, "requests_total", **labels) == 4
            assert value(page, "response_size_bytes_sum", **labels) == 20
        some = await apps[0].page("?name[]=http_server_requests_total")
        assert {name for name, _ in some} == {"http_server_requests_total"}
        waiting.reset()
        while True:
            page = await apps[0].page()
            if not value(page, "requests_in_progress", method="GET"):
                break
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            assert await process.wait() == 0


def test_directory_for_many_processes_has_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="PROMETHEUS_MULTIPROC_DIR"):
        metrics_handler()


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"registry": "x"}, TypeError, "registry should be a CollectorReg"),
        ({"namespace": None}, TypeError, "namespace should be a string"),
        ({"namespace": ""}, ValueError, "namespace should be a name"),
        ({"namespace": "a-b"}, ValueError, "namespace should be a name"),
        ({"buckets": 1}, TypeError, "buckets should be a collection"),
        ({"buckets": []}, ValueError, "buckets should be seconds in asc"),
        ({"buckets": [2, 1]}, ValueError, "buckets should be seconds in asc"),
        ({"buckets": [1, 1]}, ValueError, "buckets should be seconds in asc"),
        ({"buckets": [0, 1]}, ValueError, "buckets should be a positive"),
        ({"buckets": ["1"]}, TypeError, "buckets should be a number"),
        ({"buckets": [float("nan")]}, ValueError, "buckets should be a pos"),
        ({"labels": ["a"]}, TypeError, "labels should be a mapping"),
        ({"labels": {1: "a"}}, TypeError, "labels should be a mapping"),
        ({"labels": {"a-b": "a"}}, ValueError, "labels should be a mapping"),
        ({"labels": {"__a": "a"}}, ValueError, "labels should be a mapping"),
        ({"labels": {"route": "a"}}, ValueError, "of other names"),
        ({"labels": {"le": "a"}}, ValueError, "of other names"),
        ({"labels": {"a": 1}}, TypeError, r"labels\['a'\] should be a str"),
        ({"labels": {"a": hello}}, TypeError, r"labels\['a'\] should be a str"),
        ({"exemplars": "yes"}, TypeError, "exemplars should be True or F"),
        ({"ignore": "/a"}, TypeError, "ignore should be a collection"),
    ],
)
def test_wrong_options_are_refused(
    options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"metrics_middleware.*{said}"):
        metrics_middleware(**{"registry": CollectorRegistry(), **options})


def test_handler_takes_a_registry_only() -> None:
    with pytest.raises(TypeError, match="metrics_handler registry should be"):
        metrics_handler("x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other", [{"buckets": [1]}, {"labels": {"service": "a"}}]
)
def test_one_registry_takes_one_set_of_options(other: Any) -> None:
    registry = CollectorRegistry()
    metrics_middleware(registry=registry)
    with pytest.raises(ValueError, match="a namespace of its own"):
        metrics_middleware(registry=registry, **other)
    metrics_middleware(registry=registry, namespace="other", **other)


def test_name_that_is_taken_leaves_the_registry_as_it_was() -> None:
    registry = CollectorRegistry()
    Counter("http_server_request_size_bytes", "Theirs.", registry=registry)
    before = dict(registry._names_to_collectors)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics_middleware(registry=registry)
    assert registry._names_to_collectors == before


@pytest.mark.parametrize(
    ("missing", "factory", "extra"),
    [
        ("prometheus_client", metrics_middleware, "metrics"),
        ("prometheus_client", metrics_handler, "metrics"),
        (
            "opentelemetry.trace",
            lambda: metrics_middleware(
                registry=CollectorRegistry(), exemplars=True
            ),
            "tracing",
        ),
    ],
)
def test_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    factory: Callable[[], Any],
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'"aiohttp-middlewares\[{extra}\]"'):
        factory()


def test_nothing_is_logged_by_the_factories(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    registry = CollectorRegistry()
    metrics_middleware(registry=registry)
    metrics_handler(registry)
    assert caplog.records == []
