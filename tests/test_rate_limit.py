"""rate_limit_middleware: who is counted where, and what a client is told."""

import asyncio
import functools
import importlib
import inspect
import logging
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import answers
import http_sfv
import limits
import limits.aio.storage
import limits.aio.strategies
import limits.storage
import pytest
from aiohttp import ClientSession, UnixConnector, web
from aiohttp.test_utils import TestClient, make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from live import begin_tasks_at_once, complaints
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    body_limit_middleware,
    check_rate_limit,
    client_ip,
    compression_middleware,
    error_middleware,
    proxy_headers_middleware,
    rate_limit_middleware,
    request_id_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.rate_limit import _bucket, _memory, rate_limit
from aiohttp_middlewares.rate_limit._memory import (
    SWEEP_AFTER,
    is_local,
    memory_storage,
)
from aiohttp_middlewares.rate_limit._outage import MOST_CONNECTIONS
from aiohttp_middlewares.rate_limit._storage import STRATEGIES, counter_of
from aiohttp_middlewares.rate_limit._windows import parsed, retry_after

Client = TestClient[web.Request, web.Application]


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_lost() -> Iterator[None]:
    """No test leaves an exception or a task that asyncio complains of."""
    with complaints() as found:
        yield
    assert found == []


class Clock:
    """What ``limits`` takes for the time: in the middle of every window."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def app_of(*middlewares: Middleware, **handlers: Handler) -> web.Application:
    """``/``, ``/items/{id}``, and others by the name of their path."""
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", hello)
    app.router.add_route("*", "/items/{id}", hello)
    for name, handler in handlers.items():
        app.router.add_route("*", f"/{name}", handler)
    return app


def by_header(request: web.Request) -> str | None:
    return request.headers.get("X-Key")


async def statuses(client: Client, *keys: str, path: str = "/") -> list[int]:
    return [
        (await client.get(path, headers={"X-Key": key})).status for key in keys
    ]


def fields(response: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two fields say, as RFC 9651 has it."""
    found = []
    for name in ("RateLimit-Policy", "RateLimit"):
        (line,) = response.headers.getall(name)
        items = http_sfv.List()  # type: ignore[attr-defined]
        items.parse(line.encode())
        assert all(type(item.value) is str for item in items)
        said = {item.value: dict(item.params) for item in items}
        assert len(said) == len(items)
        found.append(said)
    policies, states = found
    assert policies.keys() == states.keys()
    return policies, states


def told(response: Any) -> bool:
    return "RateLimit" in response.headers or (
        "RateLimit-Policy" in response.headers
    )


# What it does
# ============


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_so_many_requests_pass_and_the_next_one_is_refused(
    aiohttp_client: AiohttpClient, clock: Clock, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(rate_limit_middleware("3/minute", strategy=strategy))
    )
    for left in (2, 1, 0):
        response = await client.get("/")
        assert response.status == 200
        policies, states = fields(response)
        assert policies == {"3-per-minute": {"q": 3, "w": 60}}
        assert states["3-per-minute"]["r"] == left
        assert 1 <= states["3-per-minute"]["t"] <= 60
        assert "Retry-After" not in response.headers
        clock.now += 1.25
    response = await client.get("/")
    assert response.status == 429
    assert await response.text() == "429: Too Many Requests"
    assert response.headers.getall("Cache-Control") == ["no-store"]
    (wait,) = response.headers.getall("Retry-After")
    _, states = fields(response)
    assert states == {"3-per-minute": {"r": 0, "t": int(wait)}}
    clock.now += int(wait)
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_says_what_is_left(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(
        answers.application(rate_limit_middleware("5/minute"))
    )
    response = await client.post(
        kind.path, headers=kind.fields, allow_redirects=False
    )
    assert response.status == kind.status
    policies, states = fields(response)
    assert policies == {"5-per-minute": {"q": 5, "w": 60}}
    assert states["5-per-minute"]["r"] == 4
    response.close()


@pytest.mark.parametrize("outer", [False, True])
async def test_neighbours_see_the_fields_and_clones_do_not_lose_them(
    aiohttp_client: AiohttpClient, outer: bool
) -> None:
    seen = []

    @web.middleware
    async def looks(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request.clone())
        seen.append("RateLimit" in response.headers)
        return response

    limit = rate_limit_middleware("5/minute")
    stack = [looks, limit] if outer else [limit, looks]
    client = await aiohttp_client(app_of(*stack, compression_middleware()))
    fields(await client.get("/"))
    assert seen == [outer]


async def test_refusals_are_rendered_by_error_middleware_with_their_headers(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        app_of(
            request_id_middleware(),
            error_middleware(),
            rate_limit_middleware("1/minute"),
        )
    )
    await client.get("/")
    response = await client.get("/", headers={"Accept": "application/json"})
    assert response.status == 429
    assert "detail" in await response.json()
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["Cache-Control"] == "no-store"
    assert fields(response)[1]["1-per-minute"]["r"] == 0


async def test_several_limits_hold_together(
    aiohttp_client: AiohttpClient, clock: Clock
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                ["2/second", "3/minute; 2/second"], strategy="fixed-window"
            )
        )
    )
    response = await client.get("/")
    assert fields(response) == (
        {
            "2-per-second": {"q": 2, "w": 1},
            "3-per-minute": {"q": 3, "w": 60},
        },
        {
            "2-per-second": {"r": 1, "t": 1},
            "3-per-minute": {"r": 2, "t": 60},
        },
    )
    assert await statuses(client, "a", "b") == [200, 429]
    clock.now += 1
    assert await statuses(client, "a", "b") == [200, 429]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("order", ["2/minute;9/hour", "9/hour;2/minute"])
async def test_no_limit_is_consumed_when_another_refuses(
    aiohttp_client: AiohttpClient, strategy: Any, order: str
) -> None:
    client = await aiohttp_client(
        app_of(rate_limit_middleware(order, strategy=strategy))
    )
    assert await statuses(client, *"abcde") == [200, 200, 429, 429, 429]
    _, states = fields(await client.get("/"))
    assert states["2-per-minute"]["r"] == 0
    assert states["9-per-hour"]["r"] == 7


async def test_limits_may_be_found_for_each_request(
    aiohttp_client: AiohttpClient,
) -> None:
    plans: dict[str, Any] = {
        "free": "1/minute",
        "paid": ["3/minute", "100/hour"],
        "staff": None,
        "blocked": "0/minute",
    }

    async def later(request: web.Request) -> Any:
        return plans[request.headers["X-Key"]]

    def at_once(request: web.Request) -> Any:
        return plans[request.headers["X-Key"]]

    for function in (later, at_once):
        client = await aiohttp_client(
            app_of(rate_limit_middleware(function, key=by_header))
        )
        assert await statuses(client, *["free"] * 2) == [200, 429]
        assert await statuses(client, *["paid"] * 4) == [200, 200, 200, 429]
        assert await statuses(client, *["staff"] * 4) == [200] * 4
        assert await statuses(client, "blocked") == [429]
        response = await client.get("/", headers={"X-Key": "staff"})
        assert not told(response)
        response = await client.get("/", headers={"X-Key": "blocked"})
        assert fields(response)[1] == {"0-per-minute": {"r": 0}}
        assert response.headers["Retry-After"] == "60"


async def test_key_says_whose_requests_are_counted_together(
    aiohttp_client: AiohttpClient,
) -> None:
    async def later(request: web.Request) -> str | None:
        return by_header(request)

    for key in (by_header, later):
        client = await aiohttp_client(
            app_of(rate_limit_middleware("1/minute", key=key))
        )
        assert await statuses(client, "a", "b", "a", "") == [200, 200, 429, 200]
        for _ in range(3):  # no key, no limit
            response = await client.get("/")
            assert response.status == 200
            assert not told(response)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("route", {"/items/1": 200, "/items/2": 429, "/": 200}),
        ("global", {"/items/1": 200, "/items/2": 429, "/": 429}),
        (lambda request: request.path, {"/items/1": 200, "/items/2": 200}),
    ],
)
async def test_scope_says_what_has_buckets_of_its_own(
    aiohttp_client: AiohttpClient, scope: Any, expected: dict[str, int]
) -> None:
    async def later(request: web.Request) -> str:
        found: str = scope(request)
        return found

    for each in (scope, later) if callable(scope) else (scope,):
        client = await aiohttp_client(
            app_of(rate_limit_middleware("1/minute", scope=each))
        )
        found = {path: (await client.get(path)).status for path in expected}
        assert found == expected


async def test_paths_that_fit_no_route_share_one_bucket(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(rate_limit_middleware("3/minute")))
    for path, status in (
        ("/a", 404),
        ("/b/c", 404),
        ("/__unmatched__", 404),
        ("/d", 429),
        ("/", 200),
    ):
        assert (await client.get(path)).status == status


async def test_cost_is_how_many_units_a_request_takes(
    aiohttp_client: AiohttpClient,
) -> None:
    async def later(request: web.Request) -> int:
        return int(request.query["n"])

    def at_once(request: web.Request) -> int:
        return int(request.query["n"])

    for cost in (later, at_once):
        client = await aiohttp_client(
            app_of(rate_limit_middleware("5/minute", cost=cost))
        )
        for units, status, left in (
            ("3", 200, 2),
            ("3", 429, 2),
            ("0", 200, 2),
            ("2", 200, 0),
            ("0", 200, 0),  # what costs nothing is not refused
            ("1", 429, 0),
        ):
            response = await client.get("/", params={"n": units})
            assert response.status == status
            assert fields(response)[1]["5-per-minute"]["r"] == left
    client = await aiohttp_client(
        app_of(rate_limit_middleware("5/minute", cost=2))
    )
    assert await statuses(client, *"abc") == [200, 200, 429]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_cost_above_the_limit_is_refused_and_takes_nothing(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "5/minute",
                cost=lambda request: int(request.query["n"]),
                strategy=strategy,
            )
        )
    )
    response = await client.get("/?n=6")
    assert response.status == 429
    assert response.headers["Retry-After"] == "60"
    assert fields(response)[1] == {"5-per-minute": {"r": 5}}
    assert (await client.get("/?n=5")).status == 200


# How long to wait
# ================


@settings(max_examples=300)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    text=st.sampled_from(
        ["1/second", "3/7 second", "10/minute", "7/10 seconds;20/minute"]
    ),
    steps=st.lists(
        st.tuples(st.integers(0, 200), st.integers(1, 10)), max_size=40
    ),
)
def test_who_waits_so_long_gets_in_and_not_much_earlier(
    strategy: str, text: str, steps: list[tuple[int, int]]
) -> None:
    clock = Clock()
    found = parsed("test", limits.parse_many, text)
    most = min(limit.amount for limit in found)
    counter = counter_of("test", memory_storage(), strategy)

    async def ask(units: int) -> int:
        """0 where it passed, else after how many seconds to come again."""
        fits, windows = await counter.count("bucket", found, units)
        for limit, window in zip(found, windows, strict=True):
            assert 0 <= window.used(limit) <= limit.amount
        return 0 if fits else retry_after(found, windows, units)

    async def go() -> None:
        for eighths, units in steps:
            clock.now += eighths / 8
            units = min(units, most)
            wait = await ask(units)
            if wait:
                before = clock.now
                if wait > 1:
                    clock.now = before + wait - 1 - 1 / 64
                    assert await ask(units)
                clock.now = before + wait
                assert not await ask(units)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(time, "time", clock)
        asyncio.run(go())


@settings(max_examples=300)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    # Windows that no division rounds.
    text=st.sampled_from(["1/1 second", "3/8 second", "10/64 second"]),
    steps=st.lists(
        st.tuples(st.sampled_from([0, 1, 4, 8, 32]), st.integers(1, 3)),
        max_size=60,
    ),
)
def test_memory_lets_in_whom_that_of_limits_lets_in(
    strategy: str, text: str, steps: list[tuple[int, int]]
) -> None:
    clock = Clock()
    found = parsed("test", limits.parse_many, text)
    ours = counter_of("test", memory_storage(), strategy)
    kind: Any = limits.aio.strategies.STRATEGIES[STRATEGIES[strategy]]
    theirs = kind(limits.aio.storage.MemoryStorage())

    async def go() -> None:
        for eighths, units in steps:
            clock.now += eighths / 8
            if strategy == "fixed-window":
                units = 1  # there theirs counts what is refused, too
            fits, _ = await ours.count("bucket", found, units)
            assert fits == await theirs.hit(found[0].item, cost=units)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(time, "time", clock)
        asyncio.run(go())


async def test_one_window_after_another_lets_no_more_in_than_the_limit(
    aiohttp_client: AiohttpClient, clock: Clock
) -> None:
    client = await aiohttp_client(
        app_of(rate_limit_middleware("4/minute", strategy="moving-window"))
    )
    passed = []
    for _ in range(120):
        if (await client.get("/")).status == 200:
            passed.append(clock.now)
        clock.now += 5
    for start in passed:
        assert len([t for t in passed if start <= t <= start + 60]) <= 4
    assert len(passed) >= 4 * (600 // 65)


# client_ip
# =========


@pytest.mark.parametrize(
    ("remote", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::", "2001:0db8:0001:0003::/64"),
        ("2001:db8::192.0.2.1", "2001:0db8:0000:0000::/64"),
        ("fe80::1%eth0", "fe80:0000:0000:0000::/64"),
        ("fe80::2%eth1", "fe80:0000:0000:0000::/64"),
        ("::1", "0000:0000:0000:0000::/64"),
        ("a-name", "a-name"),
        ("", ""),
        (None, ""),
    ],
)
def test_client_ip_is_the_address_and_the_network_of_an_ipv6_one(
    remote: str | None, key: str
) -> None:
    request = make_mocked_request("GET", "/").clone(remote=remote or "")
    assert client_ip(request) == key


async def test_clients_on_a_unix_socket_share_a_bucket_and_the_log_says_so(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []  # by the package it is said once
    module = importlib.import_module("aiohttp_middlewares.rate_limit")
    monkeypatch.setattr(module, "_warn_of_nobody", lambda: said.append("it"))
    path = str(tmp_path_factory.mktemp("u") / "s")
    runner = web.AppRunner(app_of(rate_limit_middleware("1/minute")))
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        connector = UnixConnector(path)
        async with ClientSession(connector=connector) as session:
            for status in (200, 429):
                async with session.get("http://a/") as response:
                    assert response.status == status
    finally:
        await runner.cleanup()
    assert said == ["it", "it"]


async def test_key_is_the_address_that_proxy_headers_decided(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        app_of(
            proxy_headers_middleware(trusted=["127.0.0.1"]),
            rate_limit_middleware("1/minute"),
        )
    )
    for forwarded, status in (
        ("192.0.2.1", 200),
        ("6.6.6.6, 192.0.2.1", 429),
        ("::ffff:192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
    ):
        headers = {"X-Forwarded-For": forwarded}
        assert (await client.get("/", headers=headers)).status == status


# @rate_limit and check_rate_limit
# ================================


class Controller:
    @rate_limit("1/minute")
    async def bound(self, request: web.Request) -> web.Response:
        """A method of an object."""
        return web.Response(text=type(self).__name__)


class View(web.View):
    @rate_limit("1/minute")
    async def get(self) -> web.Response:
        return web.Response(text=self.request.path)

    async def post(self) -> web.Response:
        return web.Response()


@rate_limit("1/minute")
async def function(request: web.Request) -> web.Response:
    """A handler."""
    return web.Response(text="function")


@pytest.mark.parametrize("kind", ["function", "bound", "view"])
async def test_decorated_handler_has_a_bucket_of_its_own(
    aiohttp_client: AiohttpClient, kind: str
) -> None:
    app = app_of(
        rate_limit_middleware("10/minute", scope="global"),
        function=function,
        bound=Controller().bound,
    )
    app.router.add_view("/view", View)
    client = await aiohttp_client(app)
    response = await client.get(f"/{kind}")
    assert response.status == 200
    policies, states = fields(response)
    assert [*policies] == ["10-per-minute", "1-per-minute"]
    assert states["1-per-minute"]["r"] == 0
    response = await client.get(f"/{kind}")
    assert response.status == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert [*fields(response)[0]] == ["10-per-minute", "1-per-minute"]
    others = {"function", "bound", "view"} - {kind}
    for other in others:
        assert (await client.get(f"/{other}")).status == 200
    assert (await client.post("/view")).status == 200


async def test_handler_at_two_routes_and_in_two_apps_has_one_bucket(
    aiohttp_client: AiohttpClient,
) -> None:
    storage = limits.aio.storage.MemoryStorage()
    codes = []
    for _ in range(2):
        client = await aiohttp_client(
            app_of(
                rate_limit_middleware("10/minute", storage=storage),
                one=function,
                two=function,
            )
        )
        codes += await statuses(client, "a", path="/one")
        codes += await statuses(client, "a", path="/two")
    assert codes == [200, 429, 429, 429]


async def test_partial_handler_has_the_bucket_of_what_it_calls(
    aiohttp_client: AiohttpClient,
) -> None:
    async def one(text: str, request: web.Request) -> web.Response:
        return web.Response(text=text)

    async def other(text: str, request: web.Request) -> web.Response:
        return web.Response(text=text)

    limit = rate_limit("1/minute")
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware("100/minute"),
            one=limit(functools.partial(one, "a")),
            other=limit(functools.partial(other, "a")),
        )
    )
    for path, status in (("/one", 200), ("/other", 200), ("/one", 429)):
        assert await statuses(client, "", path=path) == [status]


def test_decorated_handler_keeps_what_is_known_of_it() -> None:
    assert function.__name__ == "function"
    assert function.__doc__ == "A handler."
    assert function.__module__ == __name__
    assert inspect.iscoroutinefunction(function)
    assert [*inspect.signature(function).parameters] == ["request"]
    assert Controller.bound.__qualname__ == "Controller.bound"


async def test_decorator_works_where_the_middleware_ignores_the_path(
    aiohttp_client: AiohttpClient,
) -> None:
    app = app_of(
        rate_limit_middleware("1/minute", ignore=["/function"]),
        function=function,
    )
    client = await aiohttp_client(app)
    response = await client.get("/function")
    assert [*fields(response)[0]] == ["1-per-minute"]
    assert (await client.get("/function")).status == 429


async def test_without_the_middleware_decorator_and_check_say_what_is_missing(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def checks(request: web.Request) -> web.Response:
        await check_rate_limit(request, "1/minute", key="a")
        return web.Response()

    client = await aiohttp_client(app_of(function=function, checks=checks))
    for path, name in (
        ("/function", "rate_limit"),
        ("/checks", "check_rate_limit"),
    ):
        caplog.clear()
        assert (await client.get(path)).status == 500
        (record,) = caplog.records
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], RuntimeError)
        assert str(record.exc_info[1]).startswith(
            f"{name} needs rate_limit_middleware"
        )


async def test_check_counts_what_the_handler_names(
    aiohttp_client: AiohttpClient,
) -> None:
    async def login(request: web.Request) -> web.Response:
        name = request.query["name"]
        cost = int(request.query.get("cost", 1))
        await check_rate_limit(
            request, ["2/minute"], key=f"login:{name}", cost=cost
        )
        return web.Response()

    client = await aiohttp_client(
        app_of(rate_limit_middleware("100/minute"), login=login, other=login)
    )
    for url, status in (
        ("/login?name=ann", 200),
        ("/login?name=bob&cost=2", 200),
        ("/other?name=ann", 200),
        ("/login?name=ann", 429),
        ("/login?name=bob", 429),
        ("/login?name=%00%0d%0a%E2%82%AC", 200),
    ):
        response = await client.get(url)
        assert response.status == status
        assert [*fields(response)[0]] == ["100-per-minute", "2-per-minute"]
        assert ("Retry-After" in response.headers) == (status == 429)


async def test_nested_ones_make_one_list(
    aiohttp_client: AiohttpClient,
) -> None:
    @rate_limit("100/minute")
    async def checks(request: web.Request) -> web.StreamResponse:
        await check_rate_limit(request, "100/minute", key="a")
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    client = await aiohttp_client(
        app_of(
            rate_limit_middleware("100/minute;1000/hour", scope="global"),
            error_middleware(),
            rate_limit_middleware("100/minute"),
            checks=checks,
        )
    )
    response = await client.get("/checks")
    policies, states = fields(response)
    assert [*policies] == [
        "100-per-minute",
        "1000-per-hour",
        "100-per-minute-2",
        "100-per-minute-3",
        "100-per-minute-4",
    ]
    assert [state["r"] for state in states.values()] == [99, 999, 99, 99, 99]


async def test_counting_in_a_loop_does_not_make_headers_without_end(
    aiohttp_client: AiohttpClient,
) -> None:
    async def many(request: web.Request) -> web.Response:
        for number in range(200):
            await check_rate_limit(request, "9/minute", key=str(number))
        return web.Response()

    client = await aiohttp_client(
        app_of(rate_limit_middleware("9/minute"), many=many)
    )
    assert len(fields(await client.get("/many"))[0]) == 16


async def test_websocket_that_counts_its_messages_remembers_none_of_them(
    aiohttp_client: AiohttpClient,
) -> None:
    """A client could fill the memory with as many as it likes."""
    grown = -1  # it has not been there

    async def count(request: web.Request, messages: int) -> None:
        for _ in range(messages):
            await check_rate_limit(request, "1000000/hour", key="messages")

    async def chat(request: web.Request) -> web.StreamResponse:
        nonlocal grown
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await count(request, 100)
        tracemalloc.start()
        try:
            await count(request, 1000)
            grown = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        await socket.close()
        return socket

    client = await aiohttp_client(
        app_of(rate_limit_middleware("9/minute"), chat=chat)
    )
    async with client.ws_connect("/chat") as socket:
        await socket.receive()
    assert 0 <= grown < 10_000


# What it leaves alone
# ====================


async def test_urls_and_ignore_say_what_is_limited(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/minute", urls={"/": "POST", "/b": "GET"}, ignore=["/b"]
            ),
            b=hello,
        )
    )
    for _ in range(3):
        for path in ("/", "/b"):
            response = await client.get(path)
            assert response.status == 200
            assert not told(response)
    assert (await client.post("/")).status == 200
    assert (await client.post("/")).status == 429


async def test_handlers_own_fields_give_way_to_ours(
    aiohttp_client: AiohttpClient,
) -> None:
    async def own(request: web.Request) -> web.Response:
        return web.Response(headers={"RateLimit": "theirs"})

    client = await aiohttp_client(
        app_of(rate_limit_middleware("5/minute"), own=own)
    )
    fields(await client.get("/own"))


async def test_refused_request_costs_no_work_and_its_body_is_not_read(
    aiohttp_client: AiohttpClient,
) -> None:
    calls = []

    async def reads(request: web.Request) -> web.Response:
        calls.append(len(await request.read()))
        return web.Response()

    client = await aiohttp_client(
        app_of(
            rate_limit_middleware("1/minute"),
            body_limit_middleware(1024),
            reads=reads,
        )
    )
    assert (await client.post("/reads", data=b"x" * 9)).status == 200
    assert (await client.post("/reads", data=b"x" * 9999)).status == 429
    assert calls == [9]


# Hostile input
# =============

ODD = [
    b"x" * 6000,
    b"\xff\xfe",
    "€ñ".encode(),
    b"a\tb",
    b"a:b:c/{d}/*?[]",
    b"%00%0d%0a",
    b"5:LIMITER/1/minute",
]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_keys_of_clients_are_hashed_and_never_logged(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    strategy: Any,
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    storage = limits.aio.storage.MemoryStorage()
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/minute", key=by_header, storage=storage, strategy=strategy
            )
        )
    )
    for odd in ODD:
        for status in (200, 429):
            received = await raw(
                client.server,
                b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: %b\r\n"
                b"Connection: close\r\n\r\n" % odd,
            )
            assert head(received).status == status
    keys = [*storage.storage, *storage.events]
    assert len(keys) >= len(ODD)
    for key in keys:
        assert key.isascii()
        assert key.isprintable()
        assert len(key) < 100
        assert "x" * 9 not in key
    for record in caplog.records:
        text = str(vars(record))
        assert "x" * 9 not in text
        assert "LIMITER" not in text


PARTS = st.tuples(st.text(), st.text(), st.text(), st.text())


@given(PARTS, PARTS)
def test_only_the_same_parts_make_the_same_bucket(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    assert (_bucket(*one) == _bucket(*other)) == (one == other)
    assert _bucket("c", "a", "b") != _bucket("bc", "a")
    assert _bucket("", "a", "b:1:c") != _bucket("", "a", "b", "c")
    assert len(_bucket("\ud800" * 10_000, "\0", "\udfff" * 10_000)) == 32


async def test_no_key_reaches_into_another_bucket(
    aiohttp_client: AiohttpClient,
) -> None:
    async def checks(request: web.Request) -> web.Response:
        await check_rate_limit(request, "1/minute", key="127.0.0.1")
        return web.Response()

    storage = limits.aio.storage.MemoryStorage()

    def header(name: str, request: web.Request) -> str:
        return request.headers[name]

    def address(text: str, request: web.Request) -> str:
        return text + client_ip(request)

    def limit(**given: Any) -> Middleware:
        return rate_limit_middleware("1/minute", storage=storage, **given)

    app = app_of(
        limit(scope="global"),
        limit(scope=lambda request: ""),
        limit(),
        # What a client sends is no address, if it looks like one.
        limit(key=lambda request: request.headers["X-Key"]),
        limit(key=lambda request: request.remote),
        limit(key=functools.partial(header, "X-Key")),
        limit(key=functools.partial(address, "")),
        checks=checks,
    )
    client = await aiohttp_client(app)
    assert await statuses(client, "127.0.0.1", path="/checks") == [200]


def test_text_of_limits_is_read_in_linear_time() -> None:
    for text in ("1" * 999, "1/" + " " * 998, "1/minute," * 111 + "!"):
        with pytest.raises(ValueError, match="limits"):
            rate_limit_middleware(text)
    with pytest.raises(ValueError, match="limits"):
        rate_limit_middleware("1/minute;" * 100_000 + "1/minute")


# In memory
# =========


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_no_task_is_left_after_a_request(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(rate_limit_middleware("9/minute", strategy=strategy))
    )
    await client.get("/")
    before = asyncio.all_tasks()
    await client.get("/")
    assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_what_is_over_is_forgotten(strategy: str, clock: Clock) -> None:
    storage = memory_storage()
    counter = counter_of("test", storage, strategy)
    found = parsed("test", limits.parse_many, "5/second")
    for number in range(SWEEP_AFTER * 5):
        await counter.count(str(number), found, 3)
        clock.now += 0.01
    size = len(storage.storage) + len(storage.events)
    assert size <= SWEEP_AFTER * 3
    assert len(storage.locks) <= size
    clock.now += 10
    storage.sweep()
    assert not storage.storage
    assert not storage.events
    assert not storage.expirations
    assert not storage.locks


@pytest.mark.parametrize("strategy", ["fixed-window", "moving-window"])
async def test_no_more_buckets_are_kept_than_so_many(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "MOST_BUCKETS", 300)
    storage = memory_storage()
    counter = counter_of("test", storage, strategy)
    found = parsed("test", limits.parse_many, "5/day")
    for number in range(350):
        await counter.count(str(number), found, 1)
    storage.sweep()
    assert len(storage.expirations) + len(storage.events) == 300
    fits, windows = await counter.count("349", found, 1)
    assert (fits, windows[0].used(found[0])) == (True, 2)
    fits, windows = await counter.count("0", found, 1)
    assert (fits, windows[0].used(found[0])) == (True, 1)  # forgiven


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_many_at_the_same_time_are_never_more_than_the_limit(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware("20/hour;50/day", strategy=strategy),
            slow=hello,
        )
    )
    found = await asyncio.gather(
        *(statuses(client, "a", path="/slow") for _ in range(60))
    )
    assert found.count([200]) == 20
    assert found.count([429]) == 40


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_memory_of_limits_own_may_be_given(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    storage = limits.aio.storage.MemoryStorage()
    assert is_local(storage)
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/minute", storage=storage, strategy=strategy
            )
        )
    )
    assert await statuses(client, *"abc") == [200, 200, 429]
    await storage.reset()
    assert await statuses(client, *"abc") == [200, 200, 429]
    await asyncio.sleep(0)


# Any other storage, and when it is away
# =====================================


def reached(name: str) -> Any:
    async def call(self: "Remote", *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        await self.state()
        return await getattr(self.inside, name)(*args, **kwargs)

    return call


async def is_here() -> None:
    await asyncio.sleep(0)


async def is_down() -> None:
    raise ConnectionResetError("down")


async def hangs() -> None:
    await asyncio.Event().wait()


class Remote(
    limits.aio.storage.Storage,
    limits.aio.storage.MovingWindowSupport,
    limits.aio.storage.SlidingWindowCounterSupport,
):
    """As a storage somewhere else, by what all of them have."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__()
        self.inside = memory_storage()
        self.state: Callable[[], Awaitable[None]] = is_here
        self.calls: list[str] = []

    @property
    def base_exceptions(self) -> type[Exception]:
        return ConnectionError

    incr = reached("incr")
    get = reached("get")
    get_expiry = reached("get_expiry")
    check = reached("check")
    reset = reached("reset")
    clear = reached("clear")
    acquire_entry = reached("acquire_entry")
    get_moving_window = reached("get_moving_window")
    acquire_sliding_window_entry = reached("acquire_sliding_window_entry")
    get_sliding_window = reached("get_sliding_window")
    clear_sliding_window = reached("clear_sliding_window")


#: Long enough for what does answer, on a machine that may be busy.
TIMEOUT = 0.4
#: And how long whoever waits so long may take on such a machine: less than
#: redis-py would.
SLACK = 5.0


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.levelname
        for record in caplog.records
        if record.name == "aiohttp_middlewares.rate_limit"
        and not record.getMessage().startswith("Refused")
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_any_storage_counts(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "2/minute;9/hour", storage=Remote(), strategy=strategy
            )
        )
    )
    response = await client.get("/")
    _, states = fields(response)
    assert [states[name]["r"] for name in states] == [1, 8]
    assert await statuses(client, *"abc") == [200, 429, 429]
    response = await client.get("/")
    assert [state["r"] for state in fields(response)[1].values()] == [0, 7]
    assert 1 <= int(response.headers["Retry-After"]) <= 61


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_any_storage_never_lets_in_more_than_the_limit(
    aiohttp_client: AiohttpClient, strategy: Any
) -> None:
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "20/hour", storage=Remote(), strategy=strategy
            )
        )
    )
    found = await asyncio.gather(*(statuses(client, "a") for _ in range(60)))
    assert found.count([200]) <= 20
    assert found.count([200]) + found.count([429]) == 60


async def test_storage_that_fails_before_it_waits_costs_nothing(
    aiohttp_client: AiohttpClient,
) -> None:
    """In a loop whose tasks are eager, it does so at once."""
    begin_tasks_at_once()
    storage = Remote()
    limit = rate_limit_middleware(
        "1/minute",
        storage=storage,
        on_storage_error="allow",
        storage_timeout=20,
        key=by_header,
    )
    client = await aiohttp_client(app_of(limit))
    storage.state = is_down
    start = time.monotonic()
    assert await statuses(client, *"aaa") == [200, 200, 200]
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("state", [is_down, hangs])
@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        ("allow", [200, 200, 200]),
        ("deny", [503, 503, 503]),
        ("memory", [200, 429, 429]),
    ],
)
async def test_storage_that_is_away_costs_no_more_than_its_timeout(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    state: Any,
    on_error: Any,
    expected: list[int],
) -> None:
    caplog.set_level(logging.INFO)
    storage = Remote()
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/minute",
                storage=storage,
                on_storage_error=on_error,
                storage_timeout=TIMEOUT,
                key=by_header,
            )
        )
    )
    assert await statuses(client, "z") == [200]
    storage.state = state
    start = time.monotonic()
    assert await statuses(client, *"aaa") == expected
    assert time.monotonic() - start < SLACK
    response = await client.get("/", headers={"X-Key": "b"})
    if on_error == "deny":
        assert response.headers.getall("Retry-After") == ["1"]
        assert response.headers.getall("Cache-Control") == ["no-store"]
    assert told(response) == (on_error == "memory")
    assert levels(caplog) == ["WARNING"]
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert vars(record)["on_storage_error"] == on_error
    assert type(vars(record)["error"]) is str

    storage.state = is_here
    deadline = time.monotonic() + 20
    while levels(caplog) != ["WARNING", "INFO"]:
        assert time.monotonic() < deadline
        await statuses(client, "c")
        await asyncio.sleep(0.02)
    assert await statuses(client, "z", "d", "d") == [429, 200, 429]
    assert levels(caplog) == ["WARNING", "INFO"]


async def test_one_request_at_a_time_finds_out_whether_it_is_back(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Remote()
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "1/minute", storage=storage, storage_timeout=TIMEOUT
            )
        )
    )
    storage.state = hangs
    assert await statuses(client, "a") == [200]
    await asyncio.sleep(TIMEOUT * 1.2)
    storage.calls.clear()
    start = time.monotonic()
    found = await asyncio.gather(*(statuses(client, "a") for _ in range(30)))
    assert found == [[200]] * 30
    assert time.monotonic() - start < SLACK
    assert 1 <= len(storage.calls) <= 3
    assert levels(caplog) == ["WARNING"]


async def test_what_fails_after_the_outage_it_was_begun_in_is_no_new_one(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    storage = Remote()
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "9/minute",
                storage=storage,
                storage_timeout=20,
                on_storage_error="deny",
            )
        )
    )
    begun, late = asyncio.Event(), asyncio.Event()

    async def fails_late() -> None:
        begun.set()
        await late.wait()
        raise ConnectionResetError

    storage.state = fails_late
    task = asyncio.ensure_future(statuses(client, "a"))
    await begun.wait()
    storage.state = is_down
    assert await statuses(client, "a") == [503]
    storage.state = is_here
    await asyncio.sleep(0.2)  # as long as it is left alone
    assert await statuses(client, "a") == [200]
    late.set()
    assert await task == [503]
    assert await statuses(client, "a") == [200]
    assert levels(caplog) == ["WARNING", "INFO"]


async def test_who_waits_for_a_connection_does_not_try_what_is_away(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Remote()
    client = await aiohttp_client(
        app_of(
            rate_limit_middleware(
                "9/minute", storage=storage, storage_timeout=20
            )
        )
    )
    late = asyncio.Event()

    async def fails_late() -> None:
        await late.wait()
        raise ConnectionResetError

    storage.state = fails_late
    tasks = [
        asyncio.ensure_future(client.get("/"))
        for _ in range(MOST_CONNECTIONS - 20)
    ]
    # With connections of its own.
    other: Any = await aiohttp_client(client.server)
    tasks += [asyncio.ensure_future(other.get("/")) for _ in range(40)]
    deadline = time.monotonic() + 20
    while len(storage.calls) < MOST_CONNECTIONS:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    late.set()
    responses = await asyncio.gather(*tasks)
    assert {response.status for response in responses} == {200}
    assert len(storage.calls) == MOST_CONNECTIONS
    assert levels(caplog) == ["WARNING"]


async def test_loop_that_was_busy_does_not_take_the_storage_for_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = Remote()
    middleware = rate_limit_middleware(
        "5/minute",
        key=lambda request: "a",
        storage=storage,
        on_storage_error="deny",
        storage_timeout=TIMEOUT,
    )

    async def soon() -> None:
        storage.state = is_here
        await asyncio.sleep(0.01)

    storage.state = soon
    request = make_mocked_request("GET", "/")
    task = asyncio.ensure_future(middleware(request, hello))
    await asyncio.sleep(0)
    time.sleep(TIMEOUT * 1.5)  # noqa: ASYNC251
    assert (await task).status == 200
    assert levels(caplog) == []


async def test_check_and_decorator_follow_on_storage_error(
    aiohttp_client: AiohttpClient,
) -> None:
    async def checks(request: web.Request) -> web.Response:
        await check_rate_limit(request, "1/minute", key="a")
        return web.Response()

    for on_error, expected in (
        ("allow", [200, 200]),
        ("deny", [503, 503]),
        ("memory", [200, 429]),
    ):
        storage = Remote()
        storage.state = is_down
        client = await aiohttp_client(
            app_of(
                rate_limit_middleware(
                    "9/minute",
                    storage=storage,
                    on_storage_error=on_error,  # type: ignore[arg-type]
                    ignore=["/checks", "/function"],
                ),
                checks=checks,
                function=function,
            )
        )
        assert await statuses(client, *"ab", path="/checks") == expected
        assert await statuses(client, *"ab", path="/function") == expected


async def test_request_that_is_cancelled_leaves_its_count_to_end(
    aiohttp_client: AiohttpClient,
) -> None:
    storage = Remote()
    begun, going = asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        begun.set()
        await going.wait()

    storage.state = waits
    middleware = rate_limit_middleware(
        "5/minute", storage=storage, scope="global", key=lambda request: "a"
    )
    request = make_mocked_request("GET", "/")
    task = asyncio.ensure_future(middleware(request, hello))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    going.set()
    storage.state = is_here
    client = await aiohttp_client(app_of(middleware))
    states = fields(await client.get("/"))[1]
    assert states["5-per-minute"]["r"] == 3


# Misuse
# ======


def wrong_key(request: web.Request) -> Any:
    return 7


def fails(request: web.Request) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"key": fails}, ZeroDivisionError),
        ({"key": wrong_key}, TypeError),
        ({"cost": fails}, ZeroDivisionError),
        ({"cost": lambda request: -1}, ValueError),
        ({"cost": lambda request: 1.5}, TypeError),
        ({"cost": lambda request: True}, TypeError),
        ({"scope": fails}, ZeroDivisionError),
        ({"scope": wrong_key}, TypeError),
        ({"limits": fails}, ZeroDivisionError),
        ({"limits": wrong_key}, TypeError),
        ({"limits": lambda request: "often"}, ValueError),
        ({"limits": lambda request: []}, ValueError),
    ],
)
async def test_failing_function_is_an_error_and_no_leave_to_pass(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    middleware = rate_limit_middleware(**{"limits": "5/minute", **options})
    client = await aiohttp_client(app_of(middleware))
    assert (await client.get("/")).status == 500
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], error)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"limits": "often"}, ValueError, "limits should be limits such as"),
        ({"limits": ""}, ValueError, "limits such as '100/minute'"),
        ({"limits": "5/fortnight"}, ValueError, "limits such as"),
        (
            {"limits": "5/m"},
            ValueError,
            r"\(second, minute, hour, day, month or year\), got '5/m'",
        ),
        ({"limits": "5/minute;"}, ValueError, "limits such as"),
        ({"limits": "-5/minute"}, ValueError, "limits such as"),
        ({"limits": []}, ValueError, "at least one"),
        ({"limits": ["5/minute", 5]}, TypeError, "limits such as"),
        ({"limits": 5}, TypeError, "a collection of limits"),
        ({"limits": None}, TypeError, "a collection of limits"),
        ({"limits": f"{10**15}/minute"}, ValueError, "at most"),
        ({"limits": "5/99999999 years"}, ValueError, "at most"),
        ({"key": "ip"}, TypeError, "key should be a callable"),
        ({"cost": 0.5}, TypeError, "cost should be a whole number"),
        ({"cost": -1}, ValueError, "cost should be a whole number"),
        ({"cost": True}, TypeError, "cost should be a whole number"),
        ({"cost": 6}, ValueError, "cost should be 5 at most"),
        ({"scope": "path"}, ValueError, "scope should be 'route', 'global'"),
        ({"scope": None}, TypeError, "scope should be 'route', 'global'"),
        ({"strategy": "leaky"}, ValueError, "strategy should be 'fixed-win"),
        ({"strategy": None}, TypeError, "strategy should be 'fixed-window'"),
        ({"on_storage_error": "raise"}, ValueError, "on_storage_error should"),
        ({"on_storage_error": None}, TypeError, "on_storage_error should be"),
        ({"storage_timeout": 0}, ValueError, "storage_timeout should be"),
        ({"storage_timeout": "1"}, TypeError, "storage_timeout should be"),
        ({"urls": "/"}, TypeError, "urls should be"),
        ({"ignore": ["x"]}, ValueError, "ignore should be"),
        ({"storage": "nowhere://"}, ValueError, "storage should be a URI"),
        (
            {"storage": "redis://:secret@localhost:6379"},
            ValueError,
            r"got 'redis:...'; did you mean 'async\+redis:...'\?",
        ),
        ({"storage": "memory://"}, ValueError, r"'async\+memory:...'"),
        ({"storage": "async+redis://:secret@h:x"}, ValueError, "storage"),
        ({"storage": "async+redis+sentinel://h:1"}, ValueError, "service_n"),
        ({"storage": None}, TypeError, "storage should be a URI"),
        (
            {"storage": limits.storage.MemoryStorage()},
            TypeError,
            "those of limits.storage block the event loop",
        ),
        ({"storage": limits.aio.storage.MemoryStorage}, TypeError, "storage"),
    ],
)
def test_wrong_option_is_refused_in_one_sentence(
    given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        rate_limit_middleware(**{"limits": "5/minute", **given})
    said = str(caught.value)
    assert said.startswith("rate_limit_middleware ")
    assert "\n" not in said
    assert "secret" not in said


def test_strategy_that_a_storage_has_not_is_refused() -> None:
    class Few(limits.aio.storage.Storage):
        STORAGE_SCHEME = None

        base_exceptions = Exception
        incr = get = get_expiry = check = reset = clear = None  # type: ignore

    with pytest.raises(ValueError, match="strategy should be one that the"):
        rate_limit_middleware("5/minute", storage=Few())


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"limits": "often"}, ValueError, "^rate_limit limits should be"),
        ({"cost": 9}, ValueError, "^rate_limit cost should be 5 at most"),
        ({"key": None}, TypeError, "^rate_limit key should be a callable"),
    ],
)
def test_wrong_option_of_the_decorator_is_refused(
    given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        rate_limit(**{"limits": "5/minute", **given})


@pytest.mark.parametrize("wrong", [View, hello(None), None, lambda r: None])  # type: ignore[arg-type]
def test_only_coroutine_functions_are_decorated(wrong: Any) -> None:
    if inspect.iscoroutine(wrong):
        wrong.close()
    with pytest.raises(TypeError, match="coroutine function"):
        rate_limit("5/minute")(wrong)


async def test_decorated_function_is_asked_with_a_request() -> None:
    with pytest.raises(TypeError, match="is for handlers"):
        await rate_limit("5/minute")(hello)("no request")  # type: ignore[arg-type]


async def test_wrong_arguments_of_a_check_are_refused(
    aiohttp_client: AiohttpClient,
) -> None:
    caught = []

    async def checks(request: web.Request) -> web.Response:
        for arguments in (
            {"limits": "often", "key": "a"},
            {"limits": "5/minute", "key": 7},
            {"limits": "5/minute", "key": "a", "cost": -1},
        ):
            with pytest.raises((TypeError, ValueError)) as info:
                await check_rate_limit(request, **arguments)
            caught.append(str(info.value).partition(" should")[0])
        return web.Response()

    client = await aiohttp_client(
        app_of(rate_limit_middleware("5/minute"), checks=checks)
    )
    assert (await client.get("/checks")).status == 200
    assert caught == [
        f"check_rate_limit {n}" for n in ("limits", "key", "cost")
    ]


@pytest.mark.parametrize(
    ("missing", "storage", "needs"),
    [
        ("limits", "async+memory://", "limits; pip .*\\[rate-limit\\]"),
        ("limits", "async+redis://h:1", "limits; pip .*\\[rate-limit-redis\\]"),
        ("redis", "async+redis://h:1", "redis; pip .*\\[rate-limit-redis\\]"),
        ("memcachio", "async+memcached://h:1", "memcachio"),
    ],
)
def test_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str, storage: str, needs: str
) -> None:

    import redis.asyncio  # noqa: F401

    for name in [*sys.modules]:
        if name.split(".")[0] == missing:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"^rate_limit_middleware.*{needs}"):
        rate_limit_middleware("5/minute", storage=storage)
