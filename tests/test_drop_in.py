"""aiohttp-middlewares 3.0.0 can be swapped for this package.

The tables say what was public there, and the examples are those of its
documentation, corrected where they did not run. What is decided otherwise is
listed in docs/how-to/from-upstream.rst.
"""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    IDEMPOTENT_METHODS,
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    default_error_handler,
    error_context,
    error_middleware,
    get_error_response,
    https_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.cors import DEFAULT_ALLOW_HEADERS
from aiohttp_middlewares.error import Config

# Names, parameters, defaults
# ===========================

NAMES = {
    "aiohttp_middlewares": [
        "IDEMPOTENT_METHODS",
        "NON_IDEMPOTENT_METHODS",
        "__version__",
        "cors_middleware",
        "default_error_handler",
        "error_context",
        "error_middleware",
        "get_error_response",
        "https_middleware",
        "match_path",
        "shield_middleware",
        "timeout_middleware",
    ],
    "aiohttp_middlewares.annotations": [
        "DictStrAny",
        "DictStrStr",
        "ExceptionType",
        "Handler",
        "IntCollection",
        "Middleware",
        "StrCollection",
        "Url",
        "UrlCollection",
        "UrlDict",
        "Urls",
    ],
    "aiohttp_middlewares.constants": [
        "IDEMPOTENT_METHODS",
        "NON_IDEMPOTENT_METHODS",
    ],
    "aiohttp_middlewares.cors": [
        "ACCESS_CONTROL",
        "ACCESS_CONTROL_ALLOW",
        "ACCESS_CONTROL_ALLOW_CREDENTIALS",
        "ACCESS_CONTROL_ALLOW_HEADERS",
        "ACCESS_CONTROL_ALLOW_METHODS",
        "ACCESS_CONTROL_ALLOW_ORIGIN",
        "ACCESS_CONTROL_EXPOSE_HEADERS",
        "ACCESS_CONTROL_MAX_AGE",
        "ACCESS_CONTROL_REQUEST_METHOD",
        "DEFAULT_ALLOW_HEADERS",
        "DEFAULT_ALLOW_METHODS",
        "DEFAULT_URLS",
        "cors_middleware",
        "logger",
        "match_items",
    ],
    "aiohttp_middlewares.error": [
        "Config",
        "DEFAULT_EXCEPTION",
        "ErrorContext",
        "REQUEST_ERROR_KEY",
        "default_error_handler",
        "error_context",
        "error_middleware",
        "get_error_from_request",
        "get_error_handler",
        "get_error_response",
        "logger",
        "set_error_to_request",
    ],
    "aiohttp_middlewares.https": [
        "DEFAULT_MATCH_HEADERS",
        "https_middleware",
        "logger",
    ],
    "aiohttp_middlewares.shield": ["logger", "shield_middleware"],
    "aiohttp_middlewares.timeout": ["logger", "timeout_middleware"],
    "aiohttp_middlewares.utils": ["match_path", "match_request"],
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in NAMES.items() for name in names],
)
def test_name_is_where_it_was(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    "module", ["cors", "error", "https", "shield", "timeout"]
)
def test_logger_has_the_name_that_logging_configurations_know(
    module: str,
) -> None:
    name = f"aiohttp_middlewares.{module}"
    assert importlib.import_module(name).logger.name == name


VALUES = {
    "constants.IDEMPOTENT_METHODS": ("GET", "HEAD", "OPTIONS", "TRACE"),
    "constants.NON_IDEMPOTENT_METHODS": ("DELETE", "PATCH", "POST", "PUT"),
    "cors.ACCESS_CONTROL": "Access-Control",
    "cors.ACCESS_CONTROL_ALLOW": "Access-Control-Allow",
    "cors.ACCESS_CONTROL_ALLOW_CREDENTIALS": "Access-Control-Allow-Credentials",
    "cors.ACCESS_CONTROL_ALLOW_HEADERS": "Access-Control-Allow-Headers",
    "cors.ACCESS_CONTROL_ALLOW_METHODS": "Access-Control-Allow-Methods",
    "cors.ACCESS_CONTROL_ALLOW_ORIGIN": "Access-Control-Allow-Origin",
    "cors.ACCESS_CONTROL_EXPOSE_HEADERS": "Access-Control-Expose-Headers",
    "cors.ACCESS_CONTROL_MAX_AGE": "Access-Control-Max-Age",
    "cors.ACCESS_CONTROL_REQUEST_METHOD": "Access-Control-Request-Method",
    "cors.DEFAULT_ALLOW_HEADERS": (
        "accept",
        "accept-encoding",
        "authorization",
        "content-type",
        "dnt",
        "origin",
        "user-agent",
        "x-csrftoken",
        "x-requested-with",
    ),
    "cors.DEFAULT_ALLOW_METHODS": (
        "DELETE",
        "GET",
        "OPTIONS",
        "PATCH",
        "POST",
        "PUT",
    ),
    "cors.DEFAULT_URLS": (re.compile(r".*"),),
    "https.DEFAULT_MATCH_HEADERS": {"X-Forwarded-Proto": "https"},
}


def public(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(
        importlib.import_module(f"aiohttp_middlewares.{module}"), name
    )


@pytest.mark.parametrize("path", VALUES)
def test_constant_has_the_value_that_it_had(path: str) -> None:
    assert public(path) == VALUES[path]


ANY = inspect.Parameter.POSITIONAL_OR_KEYWORD
NAMED = inspect.Parameter.KEYWORD_ONLY
NONE_GIVEN = inspect.Parameter.empty

PARAMETERS: dict[str, list[tuple[str, Any, Any]]] = {
    "cors.cors_middleware": [
        ("allow_all", NAMED, False),
        ("origins", NAMED, None),
        ("urls", NAMED, None),
        ("expose_headers", NAMED, None),
        ("allow_headers", NAMED, VALUES["cors.DEFAULT_ALLOW_HEADERS"]),
        ("allow_methods", NAMED, VALUES["cors.DEFAULT_ALLOW_METHODS"]),
        ("allow_credentials", NAMED, False),
        ("max_age", NAMED, None),
    ],
    "cors.match_items": [
        ("items", ANY, NONE_GIVEN),
        ("value", ANY, NONE_GIVEN),
    ],
    "error.ErrorContext": [
        ("err", ANY, NONE_GIVEN),
        ("message", ANY, NONE_GIVEN),
        ("status", ANY, NONE_GIVEN),
        ("data", ANY, NONE_GIVEN),
    ],
    "error.default_error_handler": [("request", ANY, NONE_GIVEN)],
    "error.error_context": [("request", ANY, NONE_GIVEN)],
    "error.error_middleware": [
        ("default_handler", NAMED, default_error_handler),
        ("config", NAMED, None),
        ("ignore_exceptions", NAMED, None),
    ],
    "error.get_error_from_request": [("request", ANY, NONE_GIVEN)],
    "error.get_error_handler": [
        ("request", ANY, NONE_GIVEN),
        ("config", ANY, NONE_GIVEN),
    ],
    "error.get_error_response": [
        ("request", ANY, NONE_GIVEN),
        ("err", ANY, NONE_GIVEN),
        ("default_handler", NAMED, default_error_handler),
        ("config", NAMED, None),
        ("ignore_exceptions", NAMED, None),
    ],
    "error.set_error_to_request": [
        ("request", ANY, NONE_GIVEN),
        ("err", ANY, NONE_GIVEN),
    ],
    "https.https_middleware": [("match_headers", ANY, None)],
    "shield.shield_middleware": [
        ("methods", NAMED, None),
        ("urls", NAMED, None),
        ("ignore", NAMED, None),
    ],
    "timeout.timeout_middleware": [
        ("seconds", ANY, NONE_GIVEN),
        ("ignore", NAMED, None),
    ],
    "utils.match_path": [("item", ANY, NONE_GIVEN), ("path", ANY, NONE_GIVEN)],
    "utils.match_request": [
        ("urls", ANY, NONE_GIVEN),
        ("method", ANY, NONE_GIVEN),
        ("path", ANY, NONE_GIVEN),
    ],
}


@pytest.mark.parametrize("path", PARAMETERS)
def test_call_takes_what_it_took(path: str) -> None:
    found = list(inspect.signature(public(path)).parameters.values())
    expected = PARAMETERS[path]
    # In the same order, and what has come since behind it with a default.
    old = [(p.name, p.kind, p.default) for p in found[: len(expected)]]
    assert old == expected
    for new in found[len(expected) :]:
        assert new.kind is NAMED
        assert new.default is not NONE_GIVEN


def test_what_is_imported_by_other_packages_is_there_at_run_time() -> None:
    # ``Config`` was there for type checkers only in 3.0.0, and before it not.
    errors: Config = {re.compile("^/api"): default_error_handler}
    assert callable(error_middleware(config=errors))
    assert inspect.iscoroutinefunction(get_error_response)
    assert Handler is not None
    assert Middleware is not None


# Upstream's examples
# ===================


async def page(request: web.Request) -> web.Response:
    return web.Response(text="page")


async def fails(request: web.Request) -> web.Response:
    raise ValueError("wrong value")


async def scheme(request: web.Request) -> web.Response:
    return web.Response(text=request.scheme)


def application(app: web.Application) -> web.Application:
    for path in ("/", "/api/page", "/about-us", "/slow-url", "/downloads/1"):
        app.router.add_route("*", path, page)
    for path in ("/fails", "/api/fails"):
        app.router.add_route("*", path, fails)
    app.router.add_get("/scheme", scheme)
    return app


async def test_readme(aiohttp_client: AiohttpClient) -> None:
    app = web.Application(
        middlewares=(
            cors_middleware(origins=("http://localhost:8081",)),
            error_middleware(),
        )
    )
    client = await aiohttp_client(application(app))
    response = await client.get(
        "/fails", headers={"Origin": "http://localhost:8081"}
    )
    assert response.status == 500
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert await response.json() == {"detail": "wrong value"}
    allowed = response.headers["Access-Control-Allow-Origin"]
    assert allowed == "http://localhost:8081"


CORS_ALLOW_ORIGINS = ["https://frontend.myapp.com"]
CORS: dict[str, tuple[Callable[[], Middleware], dict[str, str | None]]] = {
    # What is answered to https://frontend.myapp.com and to others.
    "all": (
        lambda: cors_middleware(allow_all=True),
        {
            "https://frontend.myapp.com": "*",
            "https://evil.example": "*",
        },
    ),
    "one": (
        lambda: cors_middleware(origins=["http://localhost:3000"]),
        {
            "http://localhost:3000": "http://localhost:3000",
            "http://localhost:3001": None,
        },
    ),
    "pattern": (
        lambda: cors_middleware(
            origins=[re.compile(r"^https?\:\/\/localhost")]
        ),
        {
            "http://localhost:3000": "http://localhost:3000",
            "https://localhost": "https://localhost",
            # The documented pattern let this in.
            "http://localhost.evil.example": None,
        },
    ),
    "credentials": (
        lambda: cors_middleware(
            origins=CORS_ALLOW_ORIGINS, allow_credentials=True
        ),
        {
            "https://frontend.myapp.com": "https://frontend.myapp.com",
            "https://evil.example": None,
        },
    ),
    # It said ``middelwares=``.
    "urls": (
        lambda: cors_middleware(
            origins=CORS_ALLOW_ORIGINS, urls=[re.compile(r"^\/api")]
        ),
        {
            "https://frontend.myapp.com": "https://frontend.myapp.com",
            "https://evil.example": None,
        },
    ),
    "methods and headers": (
        lambda: cors_middleware(
            origins=CORS_ALLOW_ORIGINS,
            allow_methods=("POST", "PATCH"),
            allow_headers=DEFAULT_ALLOW_HEADERS + ("X-Client-UID",),  # noqa: RUF005
        ),
        {"https://frontend.myapp.com": "https://frontend.myapp.com"},
    ),
}


@pytest.mark.parametrize("example", CORS)
async def test_cors_examples(
    aiohttp_client: AiohttpClient, example: str
) -> None:
    factory, answers = CORS[example]
    app = web.Application(middlewares=[factory()])
    client = await aiohttp_client(application(app))
    for origin, allowed in answers.items():
        response = await client.get("/api/page", headers={"Origin": origin})
        assert await response.text() == "page"
        said = response.headers.get("Access-Control-Allow-Origin")
        assert said == allowed
        preflight = await client.options(
            "/api/page",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert preflight.status == 200
        said = preflight.headers.get("Access-Control-Allow-Origin")
        assert said == allowed
        if example == "urls":
            response = await client.get("/", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in response.headers
        if example == "credentials" and allowed:
            said = response.headers["Access-Control-Allow-Credentials"]
            assert said == "true"
        if example == "methods and headers":
            said = preflight.headers["Access-Control-Allow-Methods"]
            assert said == "POST, PATCH"
            said = preflight.headers["Access-Control-Allow-Headers"]
            assert said.endswith("x-requested-with, X-Client-UID")


async def api_error(request: web.Request) -> web.Response:
    with error_context(request) as context:
        return web.json_response(context.data, status=context.status)


async def test_error_examples(aiohttp_client: AiohttpClient) -> None:
    app = web.Application(middlewares=[error_middleware()])
    client = await aiohttp_client(application(app))
    response = await client.get("/fails")
    assert response.status == 500
    assert await response.json() == {"detail": "wrong value"}
    response = await client.get("/no-such-page")
    assert response.status == 404
    assert await response.json() == {"detail": "Not Found"}

    app = web.Application(
        middlewares=[
            error_middleware(
                default_handler=default_error_handler,
                config={re.compile(r"^\/api"): api_error},
            )
        ]
    )
    client = await aiohttp_client(application(app))
    for path in ("/fails", "/api/fails"):
        response = await client.get(path)
        assert response.status == 500
        assert await response.json() == {"detail": "wrong value"}

    app = web.Application(
        middlewares=[error_middleware(ignore_exceptions=web.HTTPNotFound)]
    )
    client = await aiohttp_client(application(app))
    response = await client.get("/no-such-page")
    assert response.status == 404
    assert await response.text() == "404: Not Found"


async def test_error_middleware_of_your_own(
    aiohttp_client: AiohttpClient,
) -> None:
    def post_process_response(response: web.StreamResponse) -> None:
        if isinstance(response, web.Response) and response.text == "page":
            raise KeyError("no page of mine")

    # The example forgot to return the response.
    @web.middleware
    async def custom_error_middleware(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
            post_process_response(response)
            return response
        except Exception as err:
            return await get_error_response(request, err)

    app = web.Application(middlewares=[custom_error_middleware])
    client = await aiohttp_client(application(app))
    response = await client.get("/")
    assert response.status == 500
    assert await response.json() == {"detail": "'no page of mine'"}
    response = await client.get("/scheme")
    assert await response.text() == "http"


async def test_https_examples(aiohttp_client: AiohttpClient) -> None:
    app = web.Application(middlewares=[https_middleware()])
    client = await aiohttp_client(application(app))
    response = await client.get(
        "/scheme", headers={"X-Forwarded-Proto": "https"}
    )
    assert await response.text() == "https"

    # It forgot the brackets.
    app = web.Application(
        middlewares=[https_middleware({"Forwarded": "https"})]
    )
    client = await aiohttp_client(application(app))
    response = await client.get("/scheme", headers={"Forwarded": "https"})
    assert await response.text() == "https"


SHIELDS: list[Callable[[], Middleware]] = [
    lambda: shield_middleware(methods=IDEMPOTENT_METHODS),
    lambda: shield_middleware(methods=NON_IDEMPOTENT_METHODS),
    lambda: shield_middleware(urls=["/", "/about-us"]),
    lambda: shield_middleware(
        methods=NON_IDEMPOTENT_METHODS,
        ignore={"/api/documents", "/api/comments"},
    ),
    lambda: shield_middleware(
        urls={
            "/api/documents": ["POST", "DELETE"],
            re.compile(r"/api/documents/\d+"): ["DELETE", "PUT", "PATCH"],
        }
    ),
    lambda: shield_middleware(
        urls={
            re.compile(r"^/downloads/.*$"): "GET",
            re.compile(r".*"): NON_IDEMPOTENT_METHODS,
        }
    ),
]


@pytest.mark.parametrize("factory", SHIELDS)
async def test_shield_examples(
    aiohttp_client: AiohttpClient, factory: Callable[[], Middleware]
) -> None:
    app = web.Application(middlewares=[factory()])
    client = await aiohttp_client(application(app))
    for method in (*IDEMPOTENT_METHODS, *NON_IDEMPOTENT_METHODS):
        response = await client.request(method, "/downloads/1")
        assert response.status == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither"),
        ({"methods": ["POST"], "urls": ["/"]}, "both"),
        ({"urls": ["/"], "ignore": ["/"]}, "ignore"),
    ],
)
def test_shield_options_that_exclude_each_other_are_value_errors(
    options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shield_middleware(**options)


SLOW_URLS = ("/slow-url", "/very-slow-url", "/very/very/slow/url")
TIMEOUTS: list[Callable[[], Middleware]] = [
    lambda: timeout_middleware(29.5),
    lambda: timeout_middleware(4.5, ignore=SLOW_URLS),
    lambda: timeout_middleware(
        4.5,
        ignore={"/slow-url": "POST", "/very-slow-url": ("GET", "POST")},
    ),
    lambda: timeout_middleware(14.5, ignore={"/slow-url"}),
    lambda: timeout_middleware(14.5, ignore={"/slow-url": ["POST"]}),
]


@pytest.mark.parametrize("factory", TIMEOUTS)
async def test_timeout_examples(
    aiohttp_client: AiohttpClient, factory: Callable[[], Middleware]
) -> None:
    # One of them said ``midllewares=``.
    app = web.Application(middlewares=[error_middleware(), factory()])
    client = await aiohttp_client(application(app))
    for method in ("GET", "POST"):
        response = await client.request(method, "/slow-url")
        assert response.status == 200
    response = await client.get("/fails")
    assert await response.json() == {"detail": "wrong value"}


# How other packages use it
# =========================


async def test_status_message_and_data_of_an_error_are_its_answer(
    aiohttp_client: AiohttpClient,
) -> None:
    class ValidationError(Exception):
        status = 422
        message = "wrong"
        data = {"detail": [{"loc": ["name"], "message": "required"}]}  # noqa: RUF012

    async def validates(request: web.Request) -> web.Response:
        raise ValidationError

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_get("/", validates)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert response.status == 422
    assert json.loads(await response.text()) == ValidationError.data


async def test_middlewares_are_passed_on_as_a_list_of_middlewares(
    aiohttp_client: AiohttpClient,
) -> None:
    def get_middlewares(config: Config) -> list[Middleware]:
        return [
            https_middleware(),
            cors_middleware(allow_all=True),
            error_middleware(config=config),
            timeout_middleware(29.5),
            shield_middleware(methods=NON_IDEMPOTENT_METHODS),
        ]

    app = web.Application(middlewares=get_middlewares({"/fails": api_error}))
    client = await aiohttp_client(application(app))
    response = await client.post("/fails", headers={"Origin": "null"})
    assert response.status == 500
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert await response.json() == {"detail": "wrong value"}
