"""Middlewares around one handler, one view or one sub-application."""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_middlewares import normalize_path_middleware
from live import eventually, live
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    api_key_middleware,
    body_limit_middleware,
    cors_middleware,
    drain_shielded,
    error_middleware,
    etag_middleware,
    get_user,
    https_middleware,
    rate_limit_middleware,
    requires,
    response_headers_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
    with_middlewares,
)
from aiohttp_middlewares.annotations import Handler, Middleware

ORIGIN = "https://app.example"


def marks(name: str) -> Middleware:
    """Adds its name to the path that the handler shows."""

    @web.middleware
    async def marks(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        request.headers.get("X")
        response = await handler(request)
        response.headers["X-Path"] = (
            f"{name}({response.headers.get('X-Path', '')})"
        )
        return response

    return marks


A, B, C = marks("a"), marks("b"), marks("c")


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


async def hello(request: web.Request) -> web.StreamResponse:
    """Says it."""
    assert request.match_info.current_app is request.app
    return web.Response(
        text=f"{request.scheme} {request.match_info.get('name', '')}"
    )


class Notes(web.View):
    """Says it as well."""

    async def get(self) -> web.StreamResponse:
        return await hello(self.request)

    async def post(self) -> web.StreamResponse:
        return web.Response(text=f"{len(await self.request.read())}")


def app_of(
    handler: Any, *middlewares: Middleware, path: str = "/"
) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", path, handler)
    return app


# Around a handler
# ================


async def test_first_stands_outermost_inside_of_the_applications(
    aiohttp_client: AiohttpClient,
) -> None:
    app = app_of(with_middlewares(A, B)(hello), C)
    app.router.add_get("/plain", hello)
    client = await aiohttp_client(app)
    assert (await client.get("/")).headers["X-Path"] == "c(a(b()))"
    # And around nothing else.
    assert (await client.get("/plain")).headers["X-Path"] == "c()"


def test_handler_keeps_what_it_is_known_by() -> None:
    around = with_middlewares(A)(hello)
    assert around is not hello
    assert inspect.iscoroutinefunction(around)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(around, name) == getattr(hello, name)
    assert around.__annotations__ == hello.__annotations__
    assert inspect.signature(around) == inspect.signature(hello)
    assert inspect.unwrap(around) is hello


def test_what_stands_around_it_can_be_read() -> None:
    around: Any = with_middlewares(A, B)(hello)
    assert around.__middlewares__ == (A, B)
    nested: Any = with_middlewares(C)(requires("read")(around))
    assert nested.__middlewares__ == (C, A, B)
    view: Any = with_middlewares(A)(with_middlewares(B)(Notes))
    assert view.__middlewares__ == (A, B)
    assert not hasattr(hello, "__middlewares__")
    assert not hasattr(Notes, "__middlewares__")


async def test_nested_ones_stand_as_they_are_written(
    aiohttp_client: AiohttpClient,
) -> None:
    nested = with_middlewares(A)(with_middlewares(B, C)(hello))
    client = await aiohttp_client(app_of(nested))
    assert (await client.get("/")).headers["X-Path"] == "a(b(c()))"


async def test_each_middleware_knows_the_handler_as_in_a_list(
    aiohttp_client: AiohttpClient,
) -> None:
    names: list[str] = []

    @web.middleware
    async def asks(request: web.Request, handler: Any) -> web.StreamResponse:
        names.append(handler.__name__)
        response: web.StreamResponse = await handler(request)
        return response

    app = app_of(with_middlewares(asks, asks)(hello))
    app.router.add_view("/view", with_middlewares(asks)(Notes))
    client = await aiohttp_client(app)
    for path in ("/", "/view"):
        assert (await client.get(path)).status == 200
    assert names == ["hello", "hello", "Notes"]


async def test_none_at_all_changes_nothing(
    aiohttp_client: AiohttpClient,
) -> None:
    app = app_of(with_middlewares()(hello))
    app.router.add_view("/view", with_middlewares()(Notes))
    client = await aiohttp_client(app)
    assert await (await client.get("/")).text() == "http "
    assert await (await client.get("/view")).text() == "http "


async def test_each_way_to_add_a_route_takes_it(
    aiohttp_client: AiohttpClient,
) -> None:
    routes = web.RouteTableDef()

    @routes.get("/decorated")
    @with_middlewares(A)
    async def decorated(request: web.Request) -> web.StreamResponse:
        return await hello(request)

    @routes.view("/view")
    @with_middlewares(A)
    class View(Notes):
        pass

    app = web.Application()
    app.add_routes(routes)
    app.router.add_get("/get", with_middlewares(A)(hello))
    app.router.add_view("/add_view", with_middlewares(A)(Notes))
    app.add_routes(
        [
            web.get("/listed/{name}", with_middlewares(A)(hello)),
            web.view("/listed", with_middlewares(A)(Notes)),
        ]
    )
    client = await aiohttp_client(app)
    for path in "decorated", "view", "get", "add_view", "listed", "listed/me":
        response = await client.get(f"/{path}")
        assert response.status == 200
        assert response.headers["X-Path"] == "a()"
    assert await response.text() == "http me"


async def test_handler_may_be_partial_or_an_object_or_its_method(
    aiohttp_client: AiohttpClient,
) -> None:
    async def says(text: str, request: web.Request) -> web.Response:
        return web.Response(text=text)

    class Object:
        async def __call__(self, request: web.Request) -> web.Response:
            return web.Response(text="object")

        async def method(self, request: web.Request) -> web.Response:
            return web.Response(text="method")

        @with_middlewares(A)
        async def decorated(self, request: web.Request) -> web.Response:
            return web.Response(text=type(self).__name__)

    @with_middlewares(A)
    async def shows(request: web.Request, *, text: str) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    handlers: dict[str, Any] = {
        "partial": with_middlewares(A)(functools.partial(says, "partial")),
        "object": with_middlewares(A)(Object()),
        "method": with_middlewares(A)(Object().method),
        "Object": Object().decorated,
        "option": functools.partial(shows, text="option"),
    }
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
    client = await aiohttp_client(app)
    for name in handlers:
        response = await client.get(f"/{name}")
        assert await response.text() == name
        assert response.headers["X-Path"] == "a()"


async def test_request_stays_what_it_was_for_clones_and_sub_applications(
    aiohttp_client: AiohttpClient,
) -> None:
    sub = app_of(with_middlewares(A, clones, B)(hello), path="/{name}")
    sub.router.add_view("/view/{name}", with_middlewares(clones)(Notes))
    app = web.Application(middlewares=[C])
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)
    response = await client.get("/sub/me")
    assert await response.text() == "https me"
    assert response.headers["X-Path"] == "c(a(b()))"
    assert await (await client.get("/sub/view/me")).text() == "https me"


async def test_nothing_is_built_for_a_request(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(with_middlewares(A, B)(hello))
    app.router.add_view("/view", with_middlewares(A, B)(Notes))
    client = await aiohttp_client(app)
    for path in ("/", "/view"):
        assert (await client.get(path)).status == 200
    monkeypatch.delattr("aiohttp_middlewares.around._chained")
    for path in ("/", "/view"):
        assert (await client.get(path)).status == 200


async def test_raised_and_failed_answers_come_through(
    aiohttp_client: AiohttpClient,
) -> None:
    async def refuses(request: web.Request) -> web.StreamResponse:
        raise web.HTTPConflict(text="no")

    async def fails(request: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError

    around = with_middlewares(error_middleware())
    app = app_of(around(refuses))
    app.router.add_get("/fails", around(fails))
    app.router.add_get("/plain", with_middlewares(A)(refuses))
    client = await aiohttp_client(app)
    assert await (await client.get("/")).json() == {"detail": "no"}
    assert (await client.get("/fails")).status == 500
    assert await (await client.get("/plain")).text() == "no"


# Around a view
# =============


async def test_view_stays_a_view(aiohttp_client: AiohttpClient) -> None:
    around = with_middlewares(A, B)(Notes)
    assert issubclass(around, Notes)
    assert around.__doc__ == Notes.__doc__
    for name in ("__name__", "__qualname__", "__module__"):
        assert getattr(around, name) == getattr(Notes, name)
    app = web.Application()
    app.router.add_view("/", around)
    app.router.add_view("/plain", Notes)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert response.headers["X-Path"] == "a(b())"
    assert await (await client.post("/", data=b"123")).text() == "3"
    response = await client.put("/")
    assert (response.status, response.headers["Allow"]) == (405, "GET,POST")
    assert "X-Path" not in (await client.get("/plain")).headers


async def test_view_that_inherits_from_one_has_its_middlewares(
    aiohttp_client: AiohttpClient,
) -> None:
    @with_middlewares(A)
    class First(web.View):
        async def get(self) -> web.StreamResponse:
            return web.Response(text=self.name())

        def name(self) -> str:
            return "first"

    class Second(First):
        def name(self) -> str:
            return "second"

    app = web.Application()
    app.router.add_view("/first", First)
    app.router.add_view("/second", Second)
    app.router.add_view("/both", with_middlewares(B)(Second))
    client = await aiohttp_client(app)
    for path, text, marked in (
        ("/first", "first", "a()"),
        ("/second", "second", "a()"),
        ("/both", "second", "b(a())"),
    ):
        response = await client.get(path)
        assert await response.text() == text
        assert response.headers["X-Path"] == marked


async def test_method_of_a_view_may_have_its_own(
    aiohttp_client: AiohttpClient,
) -> None:
    class Note(web.View):
        async def get(self) -> web.StreamResponse:
            return web.Response(text="get")

        @with_middlewares(A, clones, body_limit_middleware(3))
        async def put(self) -> web.StreamResponse:
            assert type(self) is Note
            text = f"{self.request.scheme} {await self.request.text()}"
            return web.Response(text=text)

    app = web.Application()
    app.router.add_view("/", Note)
    client = await aiohttp_client(app)
    assert "X-Path" not in (await client.get("/")).headers
    response = await client.put("/", data=b"123")
    assert await response.text() == "https 123"
    assert response.headers["X-Path"] == "a()"
    assert (await client.put("/", data=b"1234")).status == 413


# Around a sub-application
# ========================


async def test_sub_application_gets_them_in_front_of_its_own(
    aiohttp_client: AiohttpClient,
) -> None:
    sub = app_of(hello, C)
    assert with_middlewares(error_middleware(), A, B)(sub) is sub
    app = web.Application()
    app.add_subapp("/sub", sub)
    app.router.add_get("/plain", hello)
    client = await aiohttp_client(app)
    assert (await client.get("/sub/")).headers["X-Path"] == "a(b(c()))"
    assert "X-Path" not in (await client.get("/plain")).headers
    # Also what it does not have is answered by them.
    response = await client.get("/sub/nowhere")
    assert await response.json() == {"detail": "Not Found"}


def test_application_that_was_started_is_refused() -> None:
    sub = web.Application()
    sub.freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        with_middlewares(A)(sub)


# With our own
# ============


async def test_one_handler_may_take_large_bodies(
    aiohttp_client: AiohttpClient,
) -> None:
    async def import_file(request: web.Request) -> web.Response:
        return web.Response(text=f"{len(await request.read())}")

    app = web.Application(client_max_size=1000)
    large = with_middlewares(body_limit_middleware(2000))
    app.router.add_post("/import", large(import_file))
    app.router.add_post("/other", import_file)
    client = await aiohttp_client(app)
    for path, size, status in (
        ("/import", 2000, 200),
        ("/import", 2001, 413),
        ("/other", 900, 200),
        ("/other", 2000, 413),
    ):
        response = await client.post(path, data=bytes(size))
        assert response.status == status


async def test_list_is_shared_by_handlers_and_so_is_what_it_counts(
    aiohttp_client: AiohttpClient,
) -> None:
    shared = [
        error_middleware(),
        rate_limit_middleware("2/hour", scope="global"),
    ]
    app = app_of(with_middlewares(*shared)(hello))
    app.router.add_get("/other", with_middlewares(*shared)(hello))
    app.router.add_get("/free", hello)
    client = await aiohttp_client(app)
    statuses = [
        (await client.get(path)).status
        for path in ("/", "/other", "/", "/other", "/free")
    ]
    assert statuses == [200, 200, 429, 429, 200]


async def test_limit_of_one_handler_and_its_error_page(
    aiohttp_client: AiohttpClient,
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    limited = with_middlewares(error_middleware(), timeout_middleware(0.01))
    client = await aiohttp_client(app_of(limited(slow)))
    response = await client.get("/")
    assert response.status == 504
    assert await response.json() == {"detail": "Request timed out"}


async def test_login_for_one_handler(aiohttp_client: AiohttpClient) -> None:
    async def who(request: web.Request) -> web.StreamResponse:
        return web.Response(text=get_user(request))

    login = with_middlewares(api_key_middleware({"me": "secret"}))
    client = await aiohttp_client(app_of(login(who)))
    assert (await client.get("/")).status == 401
    response = await client.get("/", headers={"X-API-Key": "secret"})
    assert await response.text() == "me"


async def test_preflight_comes_to_no_handler(
    aiohttp_client: AiohttpClient,
) -> None:
    cors = with_middlewares(cors_middleware(origins=[ORIGIN]))
    app = web.Application()
    app.router.add_get("/handler", cors(hello))
    app.router.add_view("/view", cors(Notes))  # which takes all methods
    client = await aiohttp_client(app)
    fields = {"Origin": ORIGIN}
    preflight = {**fields, "Access-Control-Request-Method": "GET"}
    for path, status in (("/handler", 405), ("/view", 200)):
        response = await client.get(path, headers=fields)
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        response = await client.options(path, headers=preflight)
        assert response.status == status


async def test_those_that_work_where_the_answer_leaves(
    aiohttp_client: AiohttpClient,
) -> None:
    import aiohttp_session

    async def page(request: web.Request) -> web.StreamResponse:
        session = await aiohttp_session.get_session(request)
        session["seen"] = True
        return web.Response(text="hello")

    headers = response_headers_middleware({"X-Own": "yes"})
    session = session_middleware("0123456789abcdef0123456789abcdef")
    app = app_of(with_middlewares(headers, etag_middleware())(hello))
    app.router.add_get("/page", with_middlewares(headers, session)(page))
    client = await aiohttp_client(app)
    response = await client.get("/")
    tag = response.headers["ETag"]
    response = await client.get("/", headers={"If-None-Match": tag})
    assert (response.status, response.headers["X-Own"]) == (304, "yes")
    response = await client.get("/page")
    assert response.headers["Set-Cookie"].startswith("session=")


async def test_aiohttps_own_middlewares_go_in(
    aiohttp_client: AiohttpClient,
) -> None:
    async def unmarked(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request)

    class Object:
        async def __call__(
            self, request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            return await handler(request)

    around = with_middlewares(
        normalize_path_middleware(), unmarked, Object(), https_middleware(), A
    )
    client = await aiohttp_client(app_of(around(hello)))
    assert (await client.get("/")).headers["X-Path"] == "a()"


@pytest.mark.parametrize("kind", ["handler", "part", "view", "method"])
async def test_server_waits_for_what_one_handler_shields(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiohttp_middlewares.shield")
    begun, release = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def write(request: web.Request) -> web.Response:
        begun.set()
        await release.wait()
        done.append("write")
        return web.Response()

    class Write(web.View):
        async def post(self) -> web.Response:
            return await write(self.request)

    async def close(app: web.Application) -> None:
        done.append("close")

    around = with_middlewares(
        timeout_middleware(0.01), shield_middleware(methods=["POST"])
    )

    class WriteInside(web.View):
        @around
        async def post(self) -> web.Response:
            return await write(self.request)

    handlers: dict[str, Any] = {
        "handler": around(write),
        "part": functools.partial(around(write)),
        "view": around(Write),
        "method": WriteInside,
    }
    app = app_of(handlers[kind])
    app.on_cleanup.append(close)
    app.cleanup_ctx.append(drain_shielded)
    async with live(app) as site:
        client = await site.connect()
        client.send("POST /")
        assert (await client.answer()).status == 504
        await begun.wait()
        client.leave()
        stop = asyncio.create_task(site.runner.cleanup())
        await eventually(lambda: "Waiting for 1 shielded" in caplog.text)
        assert not done
        release.set()
        await stop
        assert done == ["write", "close"]


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (error_middleware, r"not called, .*mean error_middleware\(...\)\?"),
        (body_limit_middleware, r"did you mean body_limit_middleware\(...\)\?"),
        (rate_limit_middleware, r"rate_limit_middleware\(...\)"),
        (normalize_path_middleware, r"normalize_path_middleware\(...\)"),
        (hello, "what it decorates comes after them"),
        (Notes, "Notes'>; what it decorates comes after them"),
        ([A], r"write a \* before the list"),
        (None, "should be given middlewares, got None"),
        ("cors", "should be given middlewares, got 'cors'"),
    ],
)
def test_what_is_no_middleware_is_refused(given: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"with_middlewares.*{words}"):
        with_middlewares(A, given)


def a_function(request: web.Request) -> None:
    """Bare functions are no handlers any more."""


class Maker:
    """What it makes is a handler, and it is none."""

    async def __call__(self, request: web.Request) -> web.Response:
        return web.Response()


@pytest.mark.parametrize(
    "given", [a_function, None, "hello", Exception, Maker, 1]
)
def test_what_is_no_handler_is_refused(given: Any) -> None:
    decorate: Callable[[Any], Awaitable[Any]] = with_middlewares(A)
    with pytest.raises(TypeError, match="around an async handler, a view or"):
        decorate(given)
