"""Which error handler answers, and handlers of your own."""

import asyncio
import http
import re
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from error_site import (
    LOGGER,
    Failure,
    ask,
    fails,
    login,
    named,
    page,
    raising,
    returns_nothing,
    shown,
)
from pytest_aiohttp import AiohttpClient
from yarl import URL

from aiohttp_middlewares import (
    RequestTimeout,
    default_error_handler,
    error_context,
    error_middleware,
    get_error_response,
    problem_error_handler,
)
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.error import (
    DEFAULT_EXCEPTION,
    REQUEST_ERROR_KEY,
    ErrorContext,
    get_error_from_request,
    get_error_handler,
    set_error_to_request,
)

# Which error handler answers
# ===========================


@pytest.mark.parametrize(
    ("path", "raised", "answered"),
    [
        ("/api/x", ValueError(), "api 500"),
        ("/api/x", web.HTTPNotFound(), "api 404"),
        ("/exact", ValueError(), "exact 500"),
        ("/exact/", ValueError(), "500 500"),
        ("/url", KeyError(), "url 500"),
        ("/x", web.HTTPNotFound(), "404 404"),
        ("/x", Failure(status=404), "404 404"),
        ("/x", web.HTTPGone(), "410 410"),
        ("/x", LookupError(), "lookup 500"),
        ("/x", KeyError(), "lookup 500"),
        ("/x", Failure(), "500 500"),
        ("/x", web.HTTPInternalServerError(), "500 500"),
        ("/x", RequestTimeout(), "timeout 504"),
        ("/x", asyncio.TimeoutError(), "500 500"),
        ("/x", web.HTTPForbidden(), "http 403"),
        ("/x", Failure(status=422), "default 422"),
        ("/late", web.HTTPForbidden(), "http 403"),
        ("/late", Failure(status=422), "late 422"),
    ],
)
async def test_first_entry_that_fits_answers(
    aiohttp_client: AiohttpClient, path: str, raised: Exception, answered: str
) -> None:
    config: dict[Any, Handler] = {
        re.compile("^/api"): named("api"),
        "/exact": named("exact"),
        URL("http://ignored.example/url?q"): named("url"),
        404: named("404"),
        http.HTTPStatus.GONE: named("410"),
        LookupError: named("lookup"),
        RequestTimeout: named("timeout"),
        500: named("500"),
        504: named("never"),
        web.HTTPException: named("http"),
        "/late": named("late"),
        re.compile("^/late"): named("never"),
    }
    app = web.Application(
        middlewares=[
            error_middleware(default_handler=named("default"), config=config)
        ]
    )
    app.router.add_get("/{any:.*}", raising(raised))
    client = await aiohttp_client(app)
    config.clear()  # read once
    answer = await ask(client, path)
    assert f"{await answer.text()} {answer.status}" == answered


@pytest.mark.parametrize("order", [1, -1])
async def test_order_of_the_entries_counts(
    aiohttp_client: AiohttpClient, order: int
) -> None:
    entries: list[tuple[Any, Handler]] = [
        ("/", named("exact")),
        (re.compile("/"), named("pattern")),
        (URL("/"), named("url")),
        (500, named("status")),
        (ValueError, named("class")),
        (Exception, named("base")),
    ]
    for start in range(len(entries)):
        turned = (entries[start:] + entries[:start])[::order]
        client = await aiohttp_client(
            page(raising(ValueError()), error_middleware(config=dict(turned)))
        )
        first = await (await ask(client)).text()
        client = await aiohttp_client(
            page(
                raising(ValueError()), error_middleware(config=dict(turned[:1]))
            )
        )
        assert first == await (await ask(client)).text()


async def test_urls_are_compared_as_the_router_does(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(
        middlewares=[
            error_middleware(
                default_handler=named("default"),
                config={
                    "/a/b": named("inner"),
                    re.compile("^/sub"): named("s"),
                },
            )
        ]
    )
    client = await aiohttp_client(app)
    for path, answered in (
        ("/a/b", "inner"),
        ("/%61/b", "inner"),
        ("/a%2Fb", "default"),
        ("/a/b?x", "inner"),
        ("/sub", "s"),
        ("/submarine", "s"),  # a pattern is anchored at its start, as upstream
        ("/x/sub", "default"),
    ):
        answer = await client.get(URL(path, encoded=True))
        assert await answer.text() == answered, path


async def test_urls_are_whole_paths_in_a_sub_application_too(
    aiohttp_client: AiohttpClient,
) -> None:
    sub = web.Application(
        middlewares=[
            error_middleware(
                default_handler=named("default"),
                config={"/b": named("relative"), "/sub/b": named("whole")},
            )
        ]
    )
    app = web.Application()
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)
    assert await (await ask(client, "/sub/b")).text() == "whole"
    assert await (await ask(client, "/sub/c")).text() == "default"


async def test_nested_middlewares_answer_once(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    sub = page(
        raising(ValueError("inside")),
        error_middleware(ignore_exceptions=web.HTTPNotFound),
    )
    app = page(
        raising(ValueError("outside")),
        error_middleware(default_handler=problem_error_handler),
    )
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)
    assert await (await ask(client, "/sub/")).json() == {"detail": "inside"}
    assert len([r for r in caplog.records if r.name == LOGGER]) == 1
    answer = await ask(client, "/sub/nope")
    assert answer.content_type == "application/problem+json"
    answer = await ask(client)
    assert answer.content_type == "application/problem+json"


# Error handlers of your own
# ==========================


async def test_error_context_tells_all_there_is(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[ErrorContext] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request[REQUEST_ERROR_KEY] is raised
        assert get_error_from_request(request) is raised
        with error_context(request) as context:
            seen.append(context)
            return web.json_response(context.data, status=context.status)

    raised = Failure("no", status=409, data=["a"])
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (409, ["a"])
    assert seen == [ErrorContext(raised, "no", 409, ["a"])]
    with pytest.raises(AttributeError):
        seen[0].status = 200  # type: ignore[misc]


async def test_error_is_there_only_while_its_handler_runs(
    aiohttp_client: AiohttpClient,
) -> None:
    # (A key that aiohttp warns of would fail this test.)
    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append((REQUEST_ERROR_KEY in request, "error" in request))
        assert get_error_from_request(request) is DEFAULT_EXCEPTION
        return response

    client = await aiohttp_client(
        page(raising(ValueError), seeing, error_middleware())
    )
    await ask(client)
    await ask(client, "/nope")
    assert seen == [(False, False)] * 2


async def test_key_may_be_gone_when_the_handler_is_done(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        del request[REQUEST_ERROR_KEY]
        return web.Response(status=503)

    client = await aiohttp_client(
        page(raising(ValueError), error_middleware(default_handler=handler))
    )
    assert (await ask(client)).status == 503


async def returns_text(request: web.Request) -> web.StreamResponse:
    return "text"  # type: ignore[return-value]


async def times_out(request: web.Request) -> web.StreamResponse:
    raise asyncio.TimeoutError


@pytest.mark.parametrize(
    "handler", [fails, returns_nothing, returns_text, times_out]
)
@pytest.mark.parametrize("by", ["default", "config"])
@pytest.mark.parametrize("log", [True, False])
async def test_error_handler_that_fails_is_logged_and_stood_in_for(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
    by: str,
    log: bool,
) -> None:
    options: dict[str, Any] = (
        {"default_handler": handler}
        if by == "default"
        else {"config": {ValueError: handler}}
    )
    raised = ValueError("the first")
    assert await shown(aiohttp_client, raised, log=log, **options) == (
        500,
        {"detail": "the first"},
    )
    both = [r for r in caplog.records if r.name == LOGGER]
    assert [r.getMessage() for r in both] == [
        "The error handler for GET / failed",
        "GET / failed with 500",
    ]
    assert {r.levelname for r in both} == {"ERROR"}
    for record in both:
        assert (record.method, record.path) == ("GET", "/")  # type: ignore[attr-defined]
        assert record.exc_info is not None
    assert both[0].exc_info[1].__context__ is raised  # type: ignore[index,union-attr]
    assert both[1].exc_info[1] is raised  # type: ignore[index]


def gives_an_awaitable(request: web.Request) -> Any:
    return named("awaited")(request)


def gives_a_response(request: web.Request) -> Any:
    return web.Response(text="at once", status=503)


def gives_what_nobody_knows(request: web.Request) -> "Unknown":  # type: ignore[name-defined]  # noqa: F821
    return named("unknown")(request)


class Caller:
    async def __call__(self, request: web.Request) -> web.StreamResponse:
        return await named("called")(request)

    async def method(self, request: web.Request) -> web.StreamResponse:
        return await named("method")(request)


async def with_option(request: web.Request, option: str) -> web.StreamResponse:
    return await named(option)(request)


@pytest.mark.parametrize(
    ("handler", "status", "text"),
    [
        (gives_an_awaitable, 500, "awaited"),
        (gives_a_response, 503, "at once"),
        (gives_what_nobody_knows, 500, "unknown"),
        (Caller(), 500, "called"),
        (Caller().method, 500, "method"),
        (partial(with_option, option="option"), 500, "option"),
    ],
)
async def test_error_handler_may_be_whatever_gives_a_response(
    aiohttp_client: AiohttpClient, handler: Any, status: int, text: str
) -> None:
    client = await aiohttp_client(
        page(
            raising(ValueError),
            error_middleware(config={ValueError: handler}),
        )
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (status, text)


def sync(request: web.Request) -> web.Response:
    return web.Response()


def sync_as_text(request: web.Request) -> "web.StreamResponse":
    return web.Response()


class SyncCaller:
    def __call__(self, request: web.Request) -> web.Response:
        return web.Response()

    def method(self, request: web.Request) -> web.Response:
        return web.Response()


@pytest.mark.parametrize(
    ("handler", "meant"),
    [
        (sync, "async def sync(request)"),
        (sync_as_text, "async def sync_as_text(request)"),
        (partial(sync), "async def sync(request)"),
        (SyncCaller(), "async def __call__(request)"),
        (SyncCaller().method, "async def method(request)"),
        (SyncCaller, "async def SyncCaller(request)"),
        (web.Response, "async def Response(request)"),
    ],
)
def test_error_handler_that_is_not_async_is_refused(
    handler: Any, meant: str
) -> None:
    with pytest.raises(TypeError) as caught:
        error_middleware(default_handler=handler)
    said = str(caught.value)
    assert said.startswith("error_middleware default_handler should be async, ")
    assert said.endswith(f"; did you mean {meant}?")
    with pytest.raises(TypeError, match=r"config\[404\] should be async"):
        error_middleware(config={404: handler})


async def test_error_handler_that_returns_none_is_named_in_the_log(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(
        page(
            raising(ValueError),
            error_middleware(default_handler=returns_nothing),
        )
    )
    await ask(client)
    first = next(r for r in caplog.records if r.name == LOGGER)
    assert first.exc_info is not None
    assert str(first.exc_info[1]) == (
        "returns_nothing should return a response, got None"
    )


async def test_error_handler_may_redirect(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    # To the login page, say
    client = await aiohttp_client(
        page(
            raising(web.HTTPUnauthorized()),
            error_middleware(config={401: raising(login)}),
        )
    )
    answer = await ask(client)
    assert (answer.status, answer.headers["Location"]) == (302, "/home")
    assert answer.cookies["session"].value == "secret"
    assert [r for r in caplog.records if r.name == LOGGER] == []


async def test_class_based_view_may_be_an_error_handler(
    aiohttp_client: AiohttpClient,
) -> None:
    class View(web.View):
        async def get(self) -> web.StreamResponse:
            with error_context(self.request) as context:
                return web.Response(text=f"view of {context.message}")

    view: Any = View
    client = await aiohttp_client(
        page(raising(ValueError("it")), error_middleware(default_handler=view))
    )
    assert await (await ask(client)).text() == "view of it"


async def test_get_error_response_serves_middlewares_of_your_own(
    aiohttp_client: AiohttpClient,
) -> None:
    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            return await get_error_response(
                request,
                err,
                default_handler=named("default"),
                config={"/other": named("other")},
                ignore_exceptions=LookupError,
            )

    client = await aiohttp_client(page(raising(ValueError), own))
    assert await (await ask(client)).text() == "default"
    assert await (await ask(client, "/other")).text() == "other"
    client = await aiohttp_client(page(raising(KeyError), own))
    answer = await ask(client)
    assert (answer.status, answer.content_type) == (500, "text/plain")
    client = await aiohttp_client(page(raising(login), own))
    assert (await ask(client)).headers["Location"] == "/home"


async def test_helpers_of_upstream_go_on(aiohttp_client: AiohttpClient) -> None:
    found = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert get_error_from_request(request) is DEFAULT_EXCEPTION
        with error_context(request) as context:
            assert context.err is DEFAULT_EXCEPTION
            assert context.status == 500
        err = ValueError()
        assert set_error_to_request(request, err) is err
        assert get_error_from_request(request) is err
        for config in (None, {}, {"/x": fails}, {"/": fails}, {500: fails}):
            found.append(get_error_handler(request, config))
        return web.Response()

    client = await aiohttp_client(page(handler))
    assert (await ask(client)).status == 200
    assert found == [None, None, None, fails, fails]


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (
            {"default_handler": None},
            TypeError,
            ["error_middleware default_handler", "a callable", "None"],
        ),
        ({"default_handler": "x"}, TypeError, ["default_handler", "'x'"]),
        ({"config": []}, TypeError, ["error_middleware config", "a mapping"]),
        ({"config": "/api"}, TypeError, ["config", "a mapping", "'/api'"]),
        ({"config": 5}, TypeError, ["config", "a mapping", "5"]),
        ({"config": {"/api": None}}, TypeError, ["config['/api']", "callable"]),
        ({"config": {404: "x"}}, TypeError, ["config[404]", "a callable"]),
        ({"config": {None: fails}}, TypeError, ["config", "None"]),
        ({"config": {b"/api": fails}}, TypeError, ["config", "b'/api'"]),
        ({"config": {4.5: fails}}, TypeError, ["config", "4.5"]),
        ({"config": {(404, 405): fails}}, TypeError, ["config", "(404, 405)"]),
        ({"config": {re.compile(b"/"): fails}}, TypeError, ["config"]),
        ({"config": {"api": fails}}, ValueError, ["did you mean '/api'?"]),
        (
            {"config": {"^/api": fails}},
            ValueError,
            ["did you mean re.compile('^/api')?"],
        ),
        ({"config": {200: fails}}, ValueError, ["config", "400 to 599", "200"]),
        ({"config": {302: fails}}, ValueError, ["config", "400 to 599"]),
        ({"config": {600: fails}}, ValueError, ["config", "400 to 599"]),
        ({"config": {-404: fails}}, ValueError, ["config", "400 to 599"]),
        ({"config": {True: fails}}, ValueError, ["config", "True"]),
        ({"config": {int: fails}}, TypeError, ["config", "exception classes"]),
        (
            {"config": {BaseException: fails}},
            TypeError,
            ["config", "exception classes"],
        ),
        (
            {"config": {asyncio.CancelledError: fails}},
            TypeError,
            ["config", "exception classes"],
        ),
        (
            {"config": {web.HTTPFound: fails}},
            ValueError,
            ["config", "pass untouched", "HTTPFound"],
        ),
        ({"config": {web.HTTPOk: fails}}, ValueError, ["pass untouched"]),
        (
            {"ignore_exceptions": "ValueError"},
            TypeError,
            ["error_middleware ignore_exceptions", "exception classes"],
        ),
        ({"log": 1}, TypeError, ["error_middleware log", "True or False"]),
        ({"log": None}, TypeError, ["error_middleware log", "True or False"]),
        ({"ignore_exceptions": 404}, TypeError, ["ignore_exceptions", "404"]),
        (
            {"ignore_exceptions": (ValueError, 404)},
            TypeError,
            ["ignore_exceptions", "exception classes", "404"],
        ),
        (
            {"ignore_exceptions": ValueError("an instance")},
            TypeError,
            ["ignore_exceptions", "exception classes"],
        ),
        (
            {"ignore_exceptions": BaseException},
            TypeError,
            ["ignore_exceptions", "exception classes"],
        ),
        (
            {"ignore_exceptions": asyncio.CancelledError},
            TypeError,
            ["ignore_exceptions", "exception classes"],
        ),
    ],
)
def test_wrong_option_is_refused_in_one_sentence(
    wrong: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        error_middleware(**wrong)
    said = str(caught.value)
    assert type(caught.value) is error
    assert said.startswith("error_middleware ")
    assert "\n" not in said
    assert [word for word in words if word not in said] == []


def test_options_have_to_be_named() -> None:
    with pytest.raises(TypeError):
        error_middleware(default_error_handler)  # type: ignore[call-arg]


def test_no_config_is_a_config() -> None:
    assert error_middleware(config={}, ignore_exceptions=())
