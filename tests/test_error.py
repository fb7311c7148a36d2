"""Errors: what visitors, logs and middlewares around get to see of them."""

import asyncio
import builtins
import datetime
import errno
import gc
import html
import http
import json
import logging
import re
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from pytest_aiohttp import AiohttpClient
from raw import head, raw
from yarl import URL

from aiohttp_middlewares import (
    RequestTimeout,
    cors_middleware,
    debug_error_handler,
    default_error_handler,
    error_context,
    error_middleware,
    get_error_response,
    problem_error_handler,
    timeout_middleware,
)
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.error import (
    DEFAULT_EXCEPTION,
    REQUEST_ERROR_KEY,
    ErrorContext,
    get_error_from_request,
    get_error_handler,
    set_error_to_request,
)

LOGGER = "aiohttp_middlewares.error"
SHIPPED = [default_error_handler, problem_error_handler, debug_error_handler]

Client = TestClient[web.Request, web.Application]
AnyClient = TestClient[Any, None]
Raised = BaseException | type[BaseException]


def raising(raised: Raised | Callable[[], Raised]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if isinstance(raised, BaseException | type):
            raise raised
        raise raised()

    return handler


def page(handler: Handler, *middlewares: Middleware) -> web.Application:
    """An application of one page, ``/``, and of one more, ``/other``."""
    app = web.Application(middlewares=middlewares or [error_middleware()])
    app.router.add_route("*", "/", handler)
    app.router.add_route("*", "/other", handler)
    return app


async def ask(
    client: Client,
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
) -> ClientResponse:
    answer = await client.request(
        method, path, headers=headers, allow_redirects=False
    )
    await answer.read()
    return answer


async def shown(
    aiohttp_client: AiohttpClient, raised: Any, **options: Any
) -> tuple[int, Any]:
    """The status and the JSON that an error is answered with."""
    client = await aiohttp_client(
        page(raising(raised), error_middleware(**options))
    )
    answer = await ask(client)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    return answer.status, await answer.json()


def named(name: str) -> Handler:
    """An error handler that says its name, and the status."""

    async def handler(request: web.Request) -> web.StreamResponse:
        with error_context(request) as context:
            return web.Response(text=name, status=context.status)

    return handler


class Failure(Exception):
    """With whatever attributes a test gives it."""

    def __init__(self, text: str = "failed", **attributes: Any) -> None:
        super().__init__(text)
        vars(self).update(attributes)


# What default_error_handler answers
# ==================================


async def test_unexpected_error_is_answered_as_json(
    aiohttp_client: AiohttpClient,
) -> None:
    # E6: API.md decides that the default handler goes on showing str(err).
    client = await aiohttp_client(page(raising(ValueError("wrong value"))))
    answer = await ask(client)
    assert (answer.status, answer.reason) == (500, "Internal Server Error")
    assert await answer.json() == {"detail": "wrong value"}
    assert answer.headers.getall("Content-Type") == [
        "application/json; charset=utf-8"
    ]


async def test_answers_pass_as_they_are(aiohttp_client: AiohttpClient) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="Later", headers={"X-Own": "1"})

    client = await aiohttp_client(page(handler))
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (503, "Later")
    assert answer.headers["X-Own"] == "1"


async def test_router_is_answered_for_too(
    aiohttp_client: AiohttpClient,
) -> None:
    # E2: 405 has to say Allow (RFC 9110 15.5.6).
    app = page(raising(ValueError))
    app.router.add_get("/read", raising(ValueError))
    client = await aiohttp_client(app)
    answer = await ask(client, "/nope")
    assert answer.status == 404
    assert await answer.json() == {"detail": "Not Found"}
    answer = await ask(client, "/read", "DELETE")
    assert answer.status == 405
    assert await answer.json() == {"detail": "Method Not Allowed"}
    assert answer.headers.getall("Allow") == ["GET,HEAD"]


class SilentFailure(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class FailingAttributes(Exception):
    @property
    def message(self) -> str:
        raise RuntimeError("no message")

    @property
    def status(self) -> int:
        raise RuntimeError("no status")

    @property
    def data(self) -> object:
        raise RuntimeError("no data")


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class Everything(Exception):
    """Has an answer to whatever it is asked, but none that makes sense."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (ValueError("wrong value"), 500, "wrong value"),
        (Failure(message="better"), 500, "better"),
        (Failure(message="better", status=422), 422, "better"),
        # never empty
        (ValueError(), 500, "Internal Server Error"),
        (ValueError(""), 500, "Internal Server Error"),
        (ValueError(" \n\t"), 500, "Internal Server Error"),
        (AssertionError(), 500, "Internal Server Error"),  # E9
        (Failure("", message=""), 500, "Internal Server Error"),
        (Failure("", status=404), 404, "Not Found"),
        (Failure("", status=499), 499, "Client Error"),
        (Failure("", status=599), 599, "Server Error"),
        (Failure("text", message=""), 500, "text"),
        # E8: no message but a str
        (Failure(message={"a": 1}), 500, "failed"),
        (Failure(message=b"bytes"), 500, "failed"),
        (Failure(message=None), 500, "failed"),
        (Failure(message=5), 500, "failed"),
        (Failure(message=print), 500, "failed"),
        # nasty
        (SilentFailure(), 500, "Internal Server Error"),
        (FailingAttributes("text"), 500, "text"),
        (Falsy("text"), 500, "text"),
        (Everything("text"), 500, "text"),
        (KeyError("x"), 500, "'x'"),
        (ValueError("\ud800 <b>"), 500, "\ud800 <b>"),
        (ValueError("\x00\r\nSet-Cookie: a=b"), 500, ANY),
        (StopIteration("s"), 500, ANY),
        # E9: API.md decides that only the limit of ours is a 504.
        (RequestTimeout(), 504, "Request timed out"),
        (asyncio.TimeoutError(), 500, "Internal Server Error"),
        (asyncio.TimeoutError("mine"), 500, "mine"),
        # what aiohttp raises
        (web.HTTPNotFound(), 404, "Not Found"),
        (web.HTTPNotFound(reason="No such user"), 404, "No such user"),
        (web.HTTPInternalServerError(), 500, "Internal Server Error"),
        # E3: the developer's text
        (web.HTTPBadRequest(text="name is required"), 400, "name is required"),
        (web.HTTPBadRequest(text="", reason="Why"), 400, "Why"),
        (web.HTTPBadRequest(text="  "), 400, "Bad Request"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, Exception) else "",
)
async def test_message_and_status_of_an_error(
    aiohttp_client: AiohttpClient, raised: Exception, status: int, detail: str
) -> None:
    assert await shown(aiohttp_client, lambda: raised) == (
        status,
        {"detail": detail},
    )


async def test_explanation_of_a_413_is_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    # E3
    raised = web.HTTPRequestEntityTooLarge(max_size=5, actual_size=6)
    status, shown_ = await shown(aiohttp_client, raised)
    assert (status, shown_) == (413, {"detail": raised.text})
    assert shown_["detail"].startswith("Maximum request body size 5 exceeded")


class Untrue(int):
    pass


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (400, 400),
        (404, 404),
        (599, 599),
        (http.HTTPStatus.CONFLICT, 409),
        (Untrue(422), 422),
        # E8
        (True, 500),
        (False, 500),
        (0, 500),
        (-1, 500),
        (99, 500),
        (100, 500),
        (200, 500),
        (204, 500),
        (302, 500),
        (399, 500),
        (600, 500),
        (700, 500),
        (10**30, 500),
        (404.0, 500),
        ("404", 500),
        ("x", 500),
        (None, 500),
        (print, 500),
    ],
)
async def test_status_of_an_error_counts_from_400_to_599(
    aiohttp_client: AiohttpClient, status: Any, answered: int
) -> None:
    assert await shown(aiohttp_client, Failure(status=status)) == (
        answered,
        {"detail": "failed"},
    )


@pytest.mark.parametrize("status", [302, 401, 404, 503])
async def test_failed_call_to_another_server_is_not_the_visitors(
    aiohttp_client: AiohttpClient, status: int
) -> None:
    # E7
    raised = aiohttp.ClientResponseError(
        aiohttp.RequestInfo(URL("http://a.example"), "GET", CIMultiDict()),  # type: ignore[arg-type]
        (),
        status=status,
        message="upstream says no",
    )
    assert await shown(aiohttp_client, raised) == (
        500,
        {"detail": "upstream says no"},
    )


Circle: list[Any] = []
Circle.append(Circle)


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        ({"field": "name", "why": ["a", 1, None]}, ANY),
        ({}, {}),
        ([], []),
        ("text", "text"),
        (0, 0),
        (False, False),
        ({1: "one"}, {"1": "one"}),
        ({"\ud800": "\u20ac"}, ANY),
        # E8: what JSON cannot say
        (None, {"detail": "failed"}),
        ({1, 2}, {"detail": "failed"}),
        (b"bytes", {"detail": "failed"}),
        (datetime.date(2000, 1, 1), {"detail": "failed"}),
        ({(1, 2): 3}, {"detail": "failed"}),
        ({"a": object()}, {"detail": "failed"}),
        ({"a": float("nan")}, {"detail": "failed"}),
        (float("inf"), {"detail": "failed"}),
        (Circle, {"detail": "failed"}),
        (print, {"detail": "failed"}),
    ],
)
async def test_data_of_an_error_is_sent_where_it_can_be(
    aiohttp_client: AiohttpClient, data: Any, sent: Any
) -> None:
    assert await shown(aiohttp_client, Failure(data=data, status=422)) == (
        422,
        data if sent is ANY else sent,
    )


async def test_body_that_cannot_be_decoded_is_a_400(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    client = await aiohttp_client(page(handler))
    answer = head(
        await raw(
            client.server,
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        )
    )
    assert answer.status == 400
    assert [r for r in caplog.records if r.name == LOGGER] == []


# Bodies that the developer gave an HTTPException
# ===============================================


def with_body(body: Any, **headers: str) -> web.HTTPException:
    """aiohttp deprecates the argument, not the property."""
    exc = web.HTTPBadRequest()
    exc.body = body
    for name, value in headers.items():
        exc.headers[name.replace("_", "-")] = value
    return exc


@pytest.mark.parametrize(
    ("raised", "content_type", "body"),
    [
        (  # E3
            web.HTTPBadRequest(
                text='{"field":"name"}', content_type="application/json"
            ),
            "application/json; charset=utf-8",
            b'{"field":"name"}',
        ),
        (
            web.HTTPNotFound(
                text="<h1>No \u20ac</h1>", content_type="text/html"
            ),
            "text/html; charset=utf-8",
            "<h1>No \u20ac</h1>".encode(),
        ),
        (
            web.HTTPConflict(
                text="{}", content_type="application/problem+json"
            ),
            "application/problem+json; charset=utf-8",
            b"{}",
        ),
        (
            with_body(b"\x89PNG\xff\x00", Content_Type="image/png"),
            "image/png",
            b"\x89PNG\xff\x00",
        ),
        # plain text, but in no charset that it claims
        (
            with_body(
                b"\xff\xfe\xff", Content_Type="text/plain; charset=utf-8"
            ),
            "text/plain; charset=utf-8",
            b"\xff\xfe\xff",
        ),
        (
            with_body(b"hi", Content_Type="text/plain; charset=nonsense"),
            "text/plain; charset=nonsense",
            b"hi",
        ),
    ],
    ids=["json", "html", "problem", "binary", "not utf-8", "unknown charset"],
)
async def test_own_body_is_sent_as_it_is(
    aiohttp_client: AiohttpClient,
    raised: web.HTTPException,
    content_type: str,
    body: bytes,
) -> None:
    client = await aiohttp_client(page(raising(raised)))
    answer = await ask(client)
    assert answer.status == raised.status
    assert answer.headers.getall("Content-Type") == [content_type]
    assert await answer.read() == body
    assert int(answer.headers["Content-Length"]) == len(body)


async def test_own_body_may_be_bytes_of_no_type(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = with_body(b"\x00")
    del exc.headers["Content-Type"]
    client = await aiohttp_client(page(raising(exc)))
    answer = await ask(client)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert await answer.read() == b"\x00"


async def test_own_body_may_come_in_pieces(
    aiohttp_client: AiohttpClient,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    client = await aiohttp_client(
        page(raising(lambda: with_body(pieces())))  # "text/plain"
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (400, "one two")


async def test_own_body_stays_encoded(aiohttp_client: AiohttpClient) -> None:
    import zlib

    packed = zlib.compress(b'{"a": 1}')
    client = await aiohttp_client(
        page(
            raising(
                with_body(
                    packed,
                    Content_Encoding="deflate",
                    Content_Type="application/json",
                )
            )
        )
    )
    answer = await ask(client)
    assert answer.headers["Content-Encoding"] == "deflate"
    assert await answer.json() == {"a": 1}


async def test_what_belongs_to_a_body_goes_with_it(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400)

    raised = with_body(
        b"packed",
        Content_Encoding="deflate",
        Content_Length="6",
        Content_Type="image/png",
        Content_Language="en",
        Transfer_Encoding="chunked",
    )
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert (answer.status, await answer.read()) == (400, b"")
    assert answer.headers["Content-Language"] == "en"
    assert answer.headers["Content-Length"] == "0"
    for name in ("Content-Encoding", "Transfer-Encoding"):
        assert name not in answer.headers
    assert answer.headers.get("Content-Type") != "image/png"


async def test_own_body_may_be_compressed(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = web.HTTPBadRequest(text="[" + "1," * 999 + "1]")
    exc.content_type = "application/json"
    exc.enable_compression()
    client = await aiohttp_client(page(raising(exc)))
    answer = await ask(client, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert await answer.json() == [1] * 1000


# Headers and cookies of an HTTPException
# =======================================


def decorated() -> web.HTTPException:
    exc = web.HTTPUnauthorized(
        headers=[
            ("WWW-Authenticate", "Negotiate"),
            ("WWW-Authenticate", 'Basic realm="x"'),
            ("Retry-After", "120"),
            ("ETag", '"x"'),
            ("X-Own", "1"),
            ("Vary", "Cookie"),
            ("Vary", "Accept"),
        ],
        reason="Who are you?",
    )
    exc.set_cookie("seen", "1", path="/login", httponly=True)
    exc.del_cookie("session")
    return exc


@pytest.mark.parametrize("handler", SHIPPED)
async def test_headers_and_cookies_are_kept(
    aiohttp_client: AiohttpClient, handler: Handler
) -> None:
    # E2
    client = await aiohttp_client(
        page(raising(decorated()), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert answer.status == 401
    headers = answer.headers
    assert headers.getall("WWW-Authenticate") == [
        "Negotiate",
        'Basic realm="x"',
    ]
    assert headers.getall("Retry-After") == ["120"]
    assert headers.getall("ETag") == ['"x"']
    assert headers.getall("X-Own") == ["1"]
    assert sorted(", ".join(headers.getall("Vary")).split(", ")) == [
        "Accept",
        "Cookie",
    ]
    assert len(headers.getall("Content-Type")) == 1
    assert len(headers.getall("Content-Length")) == 1
    assert answer.cookies["seen"].value == "1"
    assert answer.cookies["seen"]["path"] == "/login"
    assert answer.cookies["session"]["max-age"] == "0"


async def test_what_the_error_handler_says_itself_counts(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.Response(
            status=403,
            text="Go away",
            headers={"x-own": "2", "www-authenticate": "Bearer", "Vary": "A"},
        )
        response.set_cookie("seen", "2")
        return response

    client = await aiohttp_client(
        page(raising(decorated()), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (403, "Go away")
    assert answer.headers.getall("X-Own") == ["2"]
    assert answer.headers.getall("WWW-Authenticate") == ["Bearer"]
    assert answer.headers.getall("Retry-After") == ["120"]
    assert answer.headers.getall("Vary") == ["A, Cookie, Accept"]
    assert answer.headers.getall("Content-Type") == [
        "text/plain; charset=utf-8"
    ]
    assert answer.cookies["seen"].value == "2"
    assert answer.cookies["seen"]["path"] == "/"
    assert answer.cookies["session"]["max-age"] == "0"


async def test_content_range_of_a_416_is_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        page(
            raising(
                web.HTTPRequestRangeNotSatisfiable(
                    headers={"Content-Range": "bytes */100"}
                )
            )
        )
    )
    answer = await ask(client)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */100"


async def test_connection_is_closed_where_the_error_says_so(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = web.HTTPServiceUnavailable()
    exc.force_close()
    client = await aiohttp_client(page(raising(exc)))
    assert (await ask(client)).headers["Connection"] == "close"
    client = await aiohttp_client(page(raising(web.HTTPServiceUnavailable())))
    assert "Connection" not in (await ask(client)).headers


async def test_prepared_answer_of_an_error_handler_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        await response.write(b"in pieces")
        return response

    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append("X-Own" in response.headers)  # as it was not sent
        return response

    client = await aiohttp_client(
        page(
            raising(decorated()),
            seeing,
            error_middleware(default_handler=handler),
        )
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (503, "in pieces")
    assert "X-Own" not in answer.headers
    assert seen == [False]


async def test_raised_answer_may_be_handed_back(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        with error_context(request) as context:
            raise context.err

    client = await aiohttp_client(
        page(
            raising(web.HTTPConflict(text="mine", headers={"X-Own": "1"})),
            error_middleware(default_handler=handler),
        )
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (409, "mine")
    assert answer.headers.getall("X-Own") == ["1"]


# What it leaves alone
# ====================


def login() -> web.HTTPException:
    exc = web.HTTPFound("/home", headers={"X-Own": "1"})
    exc.set_cookie("session", "secret")
    return exc


@pytest.mark.parametrize("handler", SHIPPED)
@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (login, 302),
        (lambda: web.HTTPPermanentRedirect("/home"), 308),
        (lambda: web.HTTPSeeOther("/home"), 303),
        (lambda: web.HTTPNotModified(headers={"ETag": '"x"'}), 304),
        (web.HTTPNoContent, 204),
        (lambda: web.HTTPCreated(headers={"Location": "/home"}), 201),
        (lambda: web.HTTPOk(text="fine"), 200),
    ],
)
async def test_raised_answers_below_400_pass_untouched(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
    raised: Any,
    status: int,
) -> None:
    # E1, E2, E10
    app = page(raising(raised), error_middleware(default_handler=handler))
    with caplog.at_level(logging.INFO):
        client = await aiohttp_client(app)
        answer = await ask(client)
    assert answer.status == status
    plain = await ask(await aiohttp_client(page(raising(raised), cloning)))
    assert answer.cookies == plain.cookies
    assert await answer.read() == await plain.read()
    for name in ("Date", "Server"):
        assert name in answer.headers
    assert [pair for pair in answer.headers.items() if pair[0] != "Date"] == [
        pair for pair in plain.headers.items() if pair[0] != "Date"
    ]
    assert {r.name for r in caplog.records} <= {"aiohttp.access"}


async def test_login_survives(aiohttp_client: AiohttpClient) -> None:
    # E1: what lost its Location and its cookie
    client = await aiohttp_client(page(raising(login)))
    answer = await ask(client)
    assert answer.headers["Location"] == "/home"
    assert answer.cookies["session"].value == "secret"


@pytest.mark.parametrize(
    "ignored", [ValueError, (KeyError, ValueError), [ValueError], Exception]
)
async def test_ignored_exceptions_pass(
    aiohttp_client: AiohttpClient, ignored: Any
) -> None:
    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as err:
            seen.append(err)
            return web.Response(text="outside")

    raised = UnicodeError("a ValueError")
    client = await aiohttp_client(
        page(
            raising(raised), seeing, error_middleware(ignore_exceptions=ignored)
        )
    )
    assert await (await ask(client)).text() == "outside"
    assert seen == [raised]


async def test_ignored_http_exceptions_pass(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(
        page(
            raising(ValueError("seen")),
            error_middleware(ignore_exceptions=web.HTTPNotFound),
        )
    )
    answer = await ask(client, "/nope")
    assert (answer.status, await answer.text()) == (404, "404: Not Found")
    assert [r for r in caplog.records if r.name == LOGGER] == []
    assert await (await ask(client)).json() == {"detail": "seen"}


async def test_cancellation_passes(aiohttp_client: AiohttpClient) -> None:
    passed = asyncio.Event()
    handled = []

    async def slow(request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            passed.set()
            raise
        return web.Response()

    async def handler(request: web.Request) -> web.StreamResponse:
        handled.append(request)
        return web.Response()

    client = await aiohttp_client(
        page(
            slow,
            timeout_middleware(0.01),
            error_middleware(default_handler=handler),
        )
    )
    assert (await ask(client)).status == 504
    assert passed.is_set()
    assert handled == []


async def test_what_is_no_exception_passes(
    aiohttp_client: AiohttpClient,
) -> None:
    class Stop(BaseException):
        pass

    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Stop as stop:
            seen.append(stop)
            return web.Response(status=418)

    stop = Stop()
    client = await aiohttp_client(
        page(raising(stop), seeing, error_middleware())
    )
    assert (await ask(client)).status == 418
    assert seen == [stop]


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
    # E14
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
    # E13: API.md and the page of the module say so.
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
    # E12, E15 (a key that aiohttp warns of would fail this test)
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


async def fails(request: web.Request) -> web.StreamResponse:
    raise ArithmeticError("the handler failed")


async def returns_nothing(request: web.Request) -> web.StreamResponse:
    return None  # type: ignore[return-value]


async def returns_text(request: web.Request) -> web.StreamResponse:
    return "text"  # type: ignore[return-value]


def not_async(request: web.Request) -> Any:
    return web.Response(text="sync")


async def times_out(request: web.Request) -> web.StreamResponse:
    raise asyncio.TimeoutError


@pytest.mark.parametrize(
    "handler", [fails, returns_nothing, returns_text, not_async, times_out]
)
@pytest.mark.parametrize("by", ["default", "config"])
async def test_error_handler_that_fails_is_logged_and_stood_in_for(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
    by: str,
) -> None:
    # E11
    options: dict[str, Any] = (
        {"default_handler": handler}
        if by == "default"
        else {"config": {ValueError: handler}}
    )
    raised = ValueError("the first")
    assert await shown(aiohttp_client, raised, **options) == (
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


async def test_error_handler_may_redirect(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    # E11: to the login page, say
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


# problem_error_handler, RFC 9457
# ===============================


def problem_page(raised: Any) -> web.Application:
    return page(
        raising(raised), error_middleware(default_handler=problem_error_handler)
    )


async def test_problem_tells_what_is_known(
    aiohttp_client: AiohttpClient,
) -> None:
    # E14
    raised = Failure("Only <5> left", status=409, data={"left": 5})
    client = await aiohttp_client(problem_page(raised))
    answer = await ask(client, "/?secret=1")
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers.getall("Cache-Control") == ["no-store"]
    assert answer.headers.getall("Vary") == ["Accept"]
    assert json.loads(await answer.text()) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Only <5> left",
        "instance": "/",
        "left": 5,
    }


@pytest.mark.parametrize(
    "accept", ["application/json", "text/html", "text/plain"]
)
@pytest.mark.parametrize(
    "raised",
    [
        Failure("hunter2", data={"hunter2": "hunter2"}),
        Failure("hunter2", message="hunter2", status=200),
        aiohttp.ClientResponseError(None, (), status=401, message="hunter2"),  # type: ignore[arg-type]
        KeyError("hunter2"),
        asyncio.TimeoutError("hunter2"),
    ],
)
async def test_unexpected_error_tells_strangers_nothing(
    aiohttp_client: AiohttpClient, raised: Exception, accept: str
) -> None:
    # E6
    client = await aiohttp_client(problem_page(raised))
    answer = await ask(client, headers={"Accept": accept})
    assert answer.status == 500
    body = await answer.text()
    assert "Internal Server Error" in body
    assert "hunter2" not in body
    assert "hunter2" not in str(answer.headers)
    assert type(raised).__name__ not in body


@pytest.mark.parametrize(
    ("raised", "status", "title", "detail"),
    [
        (web.HTTPNotFound(), 404, "Not Found", "Not Found"),
        (web.HTTPNotFound(reason="Gone?"), 404, "Not Found", "Gone?"),
        (web.HTTPBadRequest(text="No name"), 400, "Bad Request", "No name"),
        (
            web.HTTPBadRequest(text="<p>", content_type="text/html"),
            400,
            "Bad Request",
            "Bad Request",
        ),
        (RequestTimeout(), 504, "Gateway Timeout", "Request timed out"),
        (Failure("", status=499), 499, "Client Error", "Client Error"),
        (ValueError(), 500, *["Internal Server Error"] * 2),
    ],
)
async def test_problem_of_an_expected_error(
    aiohttp_client: AiohttpClient,
    raised: Exception,
    status: int,
    title: str,
    detail: str,
) -> None:
    client = await aiohttp_client(problem_page(raised))
    answer = await ask(client)
    assert answer.status == status
    assert json.loads(await answer.text()) == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/",
    }


async def test_data_adds_to_a_problem_and_overwrites_nothing(
    aiohttp_client: AiohttpClient,
) -> None:
    standard = ("type", "title", "status", "detail", "instance")
    taken = dict.fromkeys(standard, "mine")
    raised = Failure(status=422, data={**taken, "errors": [1], 5: "five"})
    client = await aiohttp_client(problem_page(raised))
    answer = await ask(client)
    assert json.loads(await answer.text()) == {
        "type": "about:blank",
        "title": http.HTTPStatus(422).phrase,
        "status": 422,
        "detail": "failed",
        "instance": "/",
        "errors": [1],
        "5": "five",
    }
    answer = await ask(client, headers={"Accept": "text/plain"})
    assert await answer.text() == (
        f"422 {http.HTTPStatus(422).phrase}\n\nfailed\n"
    )


@pytest.mark.parametrize("data", [["a"], "text", 5, {1, 2}, None])
async def test_data_that_is_no_mapping_adds_nothing_to_a_problem(
    aiohttp_client: AiohttpClient, data: Any
) -> None:
    client = await aiohttp_client(problem_page(Failure(status=422, data=data)))
    assert set(json.loads(await (await ask(client)).text())) == {
        *("type", "title", "status", "detail", "instance")
    }


async def test_problem_of_the_developers_own_is_sent_as_it_is(
    aiohttp_client: AiohttpClient,
) -> None:
    raised = web.HTTPForbidden(
        text='{"type": "https://a.example/no-credit", "balance": 30}',
        content_type="application/problem+json",
    )
    client = await aiohttp_client(problem_page(raised))
    answer = await ask(client, headers={"Accept": "text/html"})
    assert (answer.status, answer.content_type) == (
        403,
        "application/problem+json",
    )
    assert answer.headers.getall("Cache-Control") == ["no-store"]
    assert json.loads(await answer.text()) == {
        "type": "https://a.example/no-credit",
        "balance": 30,
    }


NASTY = "<script>alert('1')</script>&\"\ud800\x00"


async def test_problem_as_html_and_text_is_escaped(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(problem_page(Failure(NASTY, status=400)))
    answer = await ask(client, headers={"Accept": "text/html"})
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    body = await answer.text()
    assert "<script>" not in body
    assert (
        "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;" in body
    )
    answer = await ask(client, headers={"Accept": "text/plain"})
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (await answer.text()).startswith("400 Bad Request\n\n<script>")
    answer = await ask(client)
    assert json.loads(await answer.text())["detail"] == NASTY


BROWSER = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,"
    "image/avif,image/webp,*/*;q=0.8"
)
JSON, HTML, TEXT = "application/problem+json", "text/html", "text/plain"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/problem+json", JSON),
        ("application/*", JSON),
        ("text/html", HTML),
        ("TEXT/HTML", HTML),
        ("text/*", HTML),
        ("text/plain", TEXT),
        (BROWSER, HTML),
        ("text/html;q=0.5, text/plain;q=0.6", TEXT),
        ("text/html;q=0.5, application/json;q=0.9", JSON),
        ("text/html;q=0.5, application/json;q=0.4", HTML),
        ("text/*;q=0.9, text/html;q=0.1, application/json;q=0.2", TEXT),
        ("*/*;q=0.1, text/html", HTML),
        ("text/html;q=0, */*", JSON),
        ("application/*;q=0, */*;q=0.1", HTML),
        ("text/html; charset=utf-8; q=0.9, text/plain;q=0.8", HTML),
        ("text/html;q=1.1, text/plain;q=0.1", TEXT),
        ("text/html;q=nan, text/plain;q=0.001", TEXT),
        ("image/png", JSON),
        ("text/html;q=0, application/json;q=0, text/plain;q=0", JSON),
        ("nonsense", JSON),
        (";;,,q=1", JSON),
        ("a" * 7000, JSON),
        ("text/html;q=" + "0" * 5000, JSON),
    ],
)
async def test_client_chooses_the_type(
    aiohttp_client: AiohttpClient, accept: str | None, chosen: str
) -> None:
    # E14
    client = await aiohttp_client(
        problem_page(ValueError), skip_auto_headers=["Accept"]
    )
    answer = await ask(client, headers={"Accept": accept} if accept else None)
    assert (answer.status, answer.content_type) == (500, chosen)
    assert answer.headers.getall("Vary") == ["Accept"]


async def test_accept_may_come_in_several_lines(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(problem_page(ValueError))
    answer = await ask(
        client,
        headers=[("Accept", "text/plain;q=0.1"), ("Accept", "text/html")],
    )
    assert answer.content_type == HTML


@pytest.fixture
async def problems(aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(problem_page(ValueError))


RANGES = st.sampled_from(
    [HTML, TEXT, JSON, "application/json", "image/png"]
) | (st.sampled_from(["*/*", "text/*", "application/*"]))


def expected_type(accept: dict[str, int]) -> str:
    """RFC 9110 12.5.1, with weights in thousandths."""
    best, best_weight = JSON, 0
    for offer in (JSON, HTML, TEXT, "application/json"):
        kind = offer.split("/")[0]
        fits = [r for r in (offer, f"{kind}/*", "*/*") if r in accept]
        weight = accept[fits[0]] if fits else 0
        if weight > best_weight:
            best, best_weight = offer, weight
    return JSON if best == "application/json" else best


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(accept=st.dictionaries(RANGES, st.integers(0, 1000)))
@example(accept={"text/*": 500, "text/html": 0})
async def test_client_chooses_by_weight(
    problems: Client, accept: dict[str, int]
) -> None:
    line = ", ".join(
        f"{media};q={weight / 1000:.3f}" for media, weight in accept.items()
    )
    answer = await ask(problems, headers={"Accept": line})
    assert answer.content_type == expected_type(accept)


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    accept=st.binary(max_size=50)
    | st.text('*/,;q="=.01texhml ap\\', max_size=40).map(str.encode)
)
async def test_no_accept_makes_it_fail(
    problems: Client, caplog: pytest.LogCaptureFixture, accept: bytes
) -> None:
    caplog.clear()
    received = await raw(
        problems.server,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: %b\r\n\r\n"
        % accept.translate(None, b"\r\n"),
    )
    answer = head(received)
    if answer.status == 400:  # no HTTP
        return
    assert answer.status == 500
    assert answer.headers["Content-Type"].split(";")[0] in (JSON, HTML, TEXT)
    assert len([r for r in caplog.records if r.name == LOGGER]) == 1


# debug_error_handler
# ===================


def debug_page(raised: Any) -> web.Application:
    return page(
        raising(raised), error_middleware(default_handler=debug_error_handler)
    )


def chain() -> Exception:
    try:
        try:
            try:
                raise KeyError("deepest & first")
            except KeyError:
                raise LookupError("in between")  # noqa: B904
        except LookupError as err:
            raise ValueError("<script>alert(1)</script>") from err
    except ValueError as err:
        return err


async def test_debug_page_shows_source_and_chain_and_escapes_all(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(debug_page(chain))
    answer = await ask(
        client, "/?<i>=<b>&x=</code>", headers={"Accept": BROWSER}
    )
    assert answer.status == 500
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers.getall("Cache-Control") == ["no-store"]
    body = await answer.text()
    for tag in ("<script", "<i>", "<b>&", "deepest & first"):
        assert tag not in body
    text = html.unescape(body)
    assert re.findall("<h[1-3]>(.*?)</h[1-3]>", text) == [
        "500 ValueError",
        "ValueError: <script>alert(1)</script>",
        "Caused by",
        "LookupError: in between",
        "Raised while handling",
        "KeyError: 'deepest & first'",
    ]
    assert "raise raised()" in text  # the source of the handler above
    assert f"{__file__}, line" in text
    assert "GET /</code>" in body  # the path without its query


async def test_debug_json_is_the_same_for_programs(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(debug_page(chain))
    answer = await ask(client, headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"] == "application/json"
    shown = await answer.json()
    assert shown["detail"] == "<script>alert(1)</script>"
    assert shown["status"] == 500
    assert [
        (exc["type"], exc["message"], exc["relation"])
        for exc in shown["exceptions"]
    ] == [
        ("ValueError", "<script>alert(1)</script>", ""),
        ("LookupError", "in between", "Caused by"),
        ("KeyError", "'deepest & first'", "Raised while handling"),
    ]
    frames = shown["exceptions"][0]["frames"]
    (frame,) = [f for f in frames if f["function"] == "handler"]
    assert frame["file"] == __file__
    assert "        raise raised()" in dict(frame["source"])[frame["line"]]


async def test_debug_text_is_the_traceback(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(debug_page(chain))
    answer = await ask(client, headers={"Accept": "text/plain"})
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    body = await answer.text()
    assert "Traceback (most recent call last)" in body
    assert body.endswith("ValueError: <script>alert(1)</script>\n")


@pytest.mark.parametrize("accept", ["text/html", "text/plain", "*/*"])
@pytest.mark.parametrize(
    "raised",
    [
        SilentFailure,
        FailingAttributes("x"),
        Falsy("x"),
        ValueError(NASTY),
        SyntaxError("x", ("no file", -5, -5, "\ud800")),
        web.HTTPNotFound(text=NASTY.replace("\ud800", "")),
        Failure(data=Circle, message=NASTY),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
    ],
)
@pytest.mark.parametrize(
    "handler", [debug_error_handler, problem_error_handler]
)
async def test_nasty_errors_are_shown_all_the_same(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
    raised: Any,
    accept: str,
) -> None:
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(client, headers={"Accept": accept})
    assert answer.status in (404, 500)
    assert answer.content_type in (JSON, HTML, TEXT, "application/json")
    assert (accept == "*/*") is ("json" in answer.content_type)
    if answer.content_type == HTML:
        assert "<script" not in await answer.text()
    assert "handler" not in caplog.text.partition("Traceback")[0]


async def test_debug_page_ends_where_causes_go_in_circles(
    aiohttp_client: AiohttpClient,
) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    client = await aiohttp_client(debug_page(first))
    answer = await ask(client, headers={"Accept": "application/json"})
    assert len((await answer.json())["exceptions"]) == 2


def cut_short() -> Exception:
    try:
        try:
            raise KeyError("left out")
        except KeyError:
            raise ValueError("seen") from None
    except ValueError as err:
        return err


@pytest.mark.parametrize("accept", ["application/json", HTML, TEXT])
async def test_debug_page_leaves_out_what_the_developer_did(
    aiohttp_client: AiohttpClient, accept: str
) -> None:
    client = await aiohttp_client(debug_page(cut_short))
    body = await (await ask(client, headers={"Accept": accept})).text()
    for relation in ("Raised while handling", "During handling"):
        assert relation not in body


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups before 3.11")
async def test_debug_page_shows_the_members_of_a_group(
    aiohttp_client: AiohttpClient,
) -> None:
    group: Any = vars(builtins)["ExceptionGroup"]
    raised = group("two", [ValueError("one"), group("in", [KeyError("other")])])
    client = await aiohttp_client(debug_page(raised))
    answer = await ask(client, headers={"Accept": "application/json"})
    assert [
        (exc["type"], exc["relation"])
        for exc in (await answer.json())["exceptions"]
    ] == [
        ("ExceptionGroup", ""),
        ("ValueError", "One of the group"),
        ("ExceptionGroup", "One of the group"),
        ("KeyError", "One of the group"),
    ]


# Once a response has started
# ===========================


async def in_chunks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"a,b\n")
    return response


async def with_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"a,b\n")
    return response


async def with_no_body_yet(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def complete(request: web.Request) -> web.StreamResponse:
    response = web.Response(text="complete")
    await response.prepare(request)
    await response.write_eof()
    return response


async def websocket(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    await response.send_str("hi")
    return response


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@web.middleware
async def cloning(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())


@pytest.mark.parametrize(
    "start", [in_chunks, with_length, with_no_body_yet, complete, websocket]
)
@pytest.mark.parametrize(
    "raised",
    [
        ValueError("late"),
        web.HTTPBadRequest(text="late"),  # aiohttp itself would write that
        web.HTTPFound("/late"),
        asyncio.TimeoutError("late"),
        KeyError("ignored"),
        web.HTTPGone(text="ignored"),
    ],
    ids=lambda raised: type(raised).__name__,
)
@pytest.mark.parametrize("around", ["alone", "nested", "cloned"])
async def test_no_second_response_is_written_and_the_connection_is_cut(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    start: Handler,
    raised: Exception,
    around: str,
) -> None:
    # E4, E5
    handled = []

    async def handler(request: web.Request) -> web.StreamResponse:
        await start(request)
        raise raised

    async def answers(request: web.Request) -> web.StreamResponse:
        handled.append(request)
        return web.Response(text="second")

    errors = error_middleware(
        default_handler=answers, ignore_exceptions=(KeyError, web.HTTPGone)
    )
    client = await aiohttp_client(
        page(
            handler,
            *{
                "alone": [errors],
                "nested": [errors, error_middleware()],
                "cloned": [cloning, errors, cloning],
            }[around],
        )
    )
    # Without "Connection: close": it is the server that has to end it.
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\n"
        + (UPGRADE if start is websocket else b"")
        + b"\r\n",
    )
    answer = head(received)
    assert answer.status == (101 if start is websocket else 200)
    assert received.count(b"HTTP/1.") == 1
    assert handled == []
    if start is in_chunks:
        assert answer.rest == b"4\r\na,b\n\r\n"  # no last chunk: cut short
    elif start is with_length:
        assert answer.rest == b"a,b\n"
    elif start is with_no_body_yet:
        assert answer.rest == b""
    elif start is websocket:
        assert answer.rest[:4] == b"\x81\x02hi"
        assert b"late" not in answer.rest
    # aiohttp says so, and the first error is in the traceback
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.name == "aiohttp.server"
    assert record.exc_info is not None
    aborted = record.exc_info[1]
    assert type(aborted) is ConnectionAbortedError
    assert aborted.__cause__ is raised


async def test_prepared_answer_of_which_nothing_left_may_be_replaced(
    aiohttp_client: AiohttpClient,
) -> None:
    # aiohttp sends the headers of a plain Response together with its body.
    async def handler(request: web.Request) -> web.StreamResponse:
        first = web.Response(text="first", headers={"X-First": "1"})
        first.enable_chunked_encoding()
        await first.prepare(request)
        raise ValueError("second")

    client = await aiohttp_client(page(handler))
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    assert received.count(b"HTTP/1.") == 1
    answer = head(received)
    assert (answer.status, answer.rest) == (500, b'{"detail": "second"}')
    assert "X-First" not in answer.headers
    assert "Transfer-Encoding" not in answer.headers


async def test_error_handler_that_fails_in_the_middle_is_cut_too(
    aiohttp_client: AiohttpClient,
) -> None:
    # E4, E11
    for raised in (ValueError("late"), web.HTTPFound("/late")):

        async def handler(
            request: web.Request, raised: Exception = raised
        ) -> web.StreamResponse:
            await in_chunks(request)
            raise raised

        client = await aiohttp_client(
            page(raising(KeyError), error_middleware(default_handler=handler))
        )
        received = await raw(
            client.server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        assert received.count(b"HTTP/1.") == 1
        assert head(received).rest == b"4\r\na,b\n\r\n"


async def test_get_error_response_says_that_it_is_too_late(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []
    raised = web.HTTPBadRequest()

    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        try:
            return await get_error_response(request, raised)
        except ConnectionAbortedError as err:
            seen.append(err)
            return response

    client = await aiohttp_client(page(in_chunks, own))
    answer = await ask(client)
    assert await answer.text() == "a,b\n"
    (err,) = seen
    assert err.__cause__ is raised


async def test_websocket_is_cut_for_a_real_client(
    aiohttp_client: AiohttpClient,
) -> None:
    # E5
    async def handler(request: web.Request) -> web.StreamResponse:
        await websocket(request)
        raise ValueError("ws blew up")

    client = await aiohttp_client(page(handler))
    async with client.ws_connect("/") as ws:
        assert await ws.receive_str() == "hi"
        message = await ws.receive(timeout=5)
        assert message.type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSING,
        )
    assert ws.close_code == 1006


# A client that went away
# =======================


class PatientServer(TestServer):
    """Does not cancel a handler when its client leaves: aiohttp's default."""

    async def _make_runner(self, **kwargs: Any) -> web.BaseRunner:
        kwargs["handler_cancellation"] = False
        return web.AppRunner(self.app, **kwargs)


UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
MULTIPART = UPLOAD + b"Content-Type: multipart/form-data; boundary=b\r\n"


async def reads(request: web.Request) -> web.StreamResponse:
    await request.read()
    return web.Response()


async def reads_in_pieces(request: web.Request) -> web.StreamResponse:
    async for _ in request.content.iter_any():
        pass
    return web.Response()


async def reads_a_form(request: web.Request) -> web.StreamResponse:
    await request.post()
    return web.Response()


async def reads_until_the_network_fails(
    request: web.Request,
) -> web.StreamResponse:
    # What the event loop does when nobody acknowledges for long.
    assert request.transport is not None
    asyncio.get_running_loop().call_soon(
        request.protocol.connection_lost, OSError(errno.ETIMEDOUT, "gone")
    )
    await request.read()
    return web.Response()


async def streams(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.001)


async def streams_much(request: web.Request) -> web.StreamResponse:
    # More than the socket takes: the write waits for the client to read.
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 2**20)


async def streams_once_too_often(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    assert request.transport is not None
    request.transport.abort()  # what a write that fails does
    await response.write(b"x")
    return response


async def sends_frames(request: web.Request) -> web.StreamResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    while True:
        await response.send_bytes(b"x" * 2**16)
        await asyncio.sleep(0)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("handler", "sent"),
    [
        (reads, UPLOAD + b"Content-Length: 10\r\n\r\nabc"),
        (reads, UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        (reads_in_pieces, UPLOAD + b"Content-Length: 10\r\n\r\nabc"),
        (
            reads_until_the_network_fails,
            UPLOAD + b"Content-Length: 10\r\n\r\nabc",
        ),
        (reads_a_form, MULTIPART + b"Content-Length: 99\r\n\r\n--b\r\nabc"),
        (streams, GET + b"\r\n"),
        (streams_much, GET + b"\r\n"),
        (streams_once_too_often, GET + b"\r\n"),
        (sends_frames, GET + UPGRADE + b"\r\n"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_client_that_went_away_is_no_error(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
    sent: bytes,
) -> None:
    # E16
    seen = []
    running, done = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        running.set()
        try:
            response = await handler(request)
            seen.append(response.status)
            return response
        finally:
            done.set()

    client: AnyClient = await aiohttp_client(
        PatientServer(page(handler, seeing, error_middleware()))
    )
    caplog.set_level(logging.INFO)
    _, writer = await asyncio.open_connection(
        client.server.host, client.server.port
    )
    writer.write(sent)
    await asyncio.wait_for(running.wait(), 5)
    await asyncio.sleep(0.01)  # until it is in the middle of it
    writer.transport.abort()
    await asyncio.wait_for(done.wait(), 5)
    await client.close()
    assert seen == [499]
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


async def test_error_after_the_client_left_is_still_logged(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    done = asyncio.Event()
    raised = ValueError("a bug")

    async def handler(request: web.Request) -> web.StreamResponse:
        with pytest.raises(ConnectionResetError):
            await request.read()
        done.set()
        raise raised

    client: AnyClient = await aiohttp_client(PatientServer(page(handler)))
    _, writer = await asyncio.open_connection(
        client.server.host, client.server.port
    )
    writer.write(UPLOAD + b"Content-Length: 10\r\n\r\nabc")
    await asyncio.sleep(0.01)
    writer.transport.abort()
    await asyncio.wait_for(done.wait(), 5)
    await client.close()
    (record,) = [r for r in caplog.records if r.levelno > logging.INFO]
    assert (record.name, record.exc_info[1]) == (LOGGER, raised)  # type: ignore[index]


async def test_connection_that_the_handler_lost_is_an_error(
    aiohttp_client: AiohttpClient,
) -> None:
    assert await shown(aiohttp_client, ConnectionResetError("redis")) == (
        500,
        {"detail": "redis"},
    )


# What is logged
# ==============


@pytest.mark.parametrize("handler", SHIPPED)
@pytest.mark.parametrize(
    ("raised", "status", "level"),
    [
        (ValueError("hidden"), 500, "ERROR"),
        (web.HTTPServiceUnavailable(), 503, "ERROR"),
        (Failure("hidden", status=599), 599, "ERROR"),
        (web.HTTPNotFound(), 404, "INFO"),
        (web.HTTPUnauthorized(), 401, "INFO"),
        (Failure("hidden", status=499), 499, "INFO"),
    ],
)
async def test_level_follows_the_status(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
    raised: Exception,
    status: int,
    level: str,
) -> None:
    # E10
    caplog.set_level(logging.DEBUG, LOGGER)
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(
        client, "/?token=hidden", "PUT", headers={"Cookie": "a=hidden"}
    )
    assert answer.status == status
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.levelname == level
    assert record.msg == "%s %s failed with %s"
    assert record.getMessage() == f"PUT / failed with {status}"
    extra: Any = record
    assert (extra.method, extra.path, extra.status) == ("PUT", "/", status)
    if level == "ERROR":
        assert record.exc_info is not None
        assert record.exc_info[1] is raised
    else:
        assert record.exc_info is None
    del extra.exc_info, extra.exc_text
    assert "hidden" not in str(vars(record))


async def test_path_cannot_break_the_line_of_a_log(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(page(raising(ValueError)))
    caplog.set_level(logging.INFO, LOGGER)
    await raw(
        client.server,
        b"GET /%0aERROR%20%s/\xe4\xff HTTP/1.1\r\nHost: a\r\n"
        b"Connection: close\r\n\r\n",
    )
    for record in caplog.records:
        if record.name == LOGGER:
            assert record.getMessage().isascii()
            assert record.getMessage().isprintable()


async def test_handlers_of_your_own_log_for_themselves(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    client = await aiohttp_client(
        page(raising(ValueError), error_middleware(default_handler=named("x")))
    )
    assert (await ask(client)).status == 500
    assert [r for r in caplog.records if r.name == LOGGER] == []


# What is kept alive
# ==================


class Payload:
    def __init__(self) -> None:
        self.bytes = bytearray(1_000_000)


PAYLOAD_KEY = request_key("payload", Payload)


@pytest.fixture
def nobody_collects(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No garbage collection, and no log records that hold tracebacks."""
    for name in (LOGGER, "aiohttp.server"):
        monkeypatch.setattr(
            logging.getLogger(name), "filters", [lambda record: False]
        )
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def alive(
    aiohttp_client: AiohttpClient,
    raised: Any,
    *middlewares: Middleware,
    path: str = "/",
) -> tuple[int, int]:
    """How many handlers and requests of 20 are left when all are done."""
    locals_: weakref.WeakSet[Payload] = weakref.WeakSet()
    requests: weakref.WeakSet[Payload] = weakref.WeakSet()

    @web.middleware
    async def loading(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        payload = request[PAYLOAD_KEY] = Payload()
        requests.add(payload)
        return await handler(request)

    async def handler(request: web.Request) -> web.StreamResponse:
        payload = Payload()
        locals_.add(payload)
        raise raised()

    client = await aiohttp_client(page(handler, loading, *middlewares))
    for _ in range(20):
        await raw(
            client.server,
            b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            % path.encode(),
        )
    assert path != "/" or len(locals_) <= 20
    await asyncio.sleep(0.01)
    return len(locals_), len(requests)


async def handles_by_context(request: web.Request) -> web.StreamResponse:
    with error_context(request) as context:
        return web.json_response(context.data, status=context.status)


@pytest.mark.usefixtures("nobody_collects")
@pytest.mark.parametrize(
    "handler", [*SHIPPED, handles_by_context, fails, returns_nothing]
)
@pytest.mark.parametrize(
    ("raised", "path"),
    [
        (ValueError, "/"),
        (FailingAttributes, "/"),
        (chain, "/"),
        (web.HTTPNotFound, "/"),
        (RequestTimeout, "/"),
        (ValueError, "/nope"),  # the router's 404
    ],
)
async def test_answered_request_is_freed_at_once(
    aiohttp_client: AiohttpClient, handler: Handler, raised: Any, path: str
) -> None:
    # E12
    errors = error_middleware(default_handler=handler)
    assert await alive(aiohttp_client, raised, errors, path=path) == (0, 0)


@pytest.mark.usefixtures("nobody_collects")
@pytest.mark.parametrize(
    "raised", [ValueError, web.HTTPGone, lambda: web.HTTPFound("/")]
)
async def test_passed_on_error_is_held_no_longer_than_by_aiohttp_itself(
    aiohttp_client: AiohttpClient, raised: Any
) -> None:
    # E12. (aiohttp holds each HTTPException that it sends in a cycle.)
    errors = error_middleware(ignore_exceptions=(ValueError, web.HTTPGone))
    counted = await alive(aiohttp_client, raised, errors)
    gc.collect()
    assert counted == await alive(aiohttp_client, raised)
    if raised is ValueError:
        assert counted == (0, 0)


# Neighbours
# ==========


@pytest.mark.parametrize("where", ["behind", "before"])
async def test_clones_around_change_nothing(
    aiohttp_client: AiohttpClient, where: str
) -> None:
    middlewares = [error_middleware(), cloning]
    if where == "behind":
        middlewares.reverse()
    client = await aiohttp_client(page(raising(decorated), *middlewares))
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (
        401,
        {"detail": "Who are you?"},
    )
    assert answer.headers.getall("Retry-After") == ["120"]


async def test_limit_inside_is_answered_as_504(
    aiohttp_client: AiohttpClient,
) -> None:
    # E9
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    client = await aiohttp_client(
        page(slow, error_middleware(), timeout_middleware(0.01))
    )
    answer = await ask(client)
    assert answer.status == 504
    assert await answer.json() == {"detail": "Request timed out"}


async def test_policy_outside_decorates_the_answers(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        page(
            raising(ValueError),
            cors_middleware(allow_all=True),
            error_middleware(default_handler=problem_error_handler),
        )
    )
    answer = await ask(client, headers={"Origin": "https://a.example"})
    assert answer.headers.getall("Access-Control-Allow-Origin") == ["*"]
    assert answer.headers.getall("Vary") == ["Accept, Origin"]


@pytest.mark.parametrize("handler", SHIPPED)
async def test_head_is_answered_without_a_body(
    aiohttp_client: AiohttpClient, handler: Handler
) -> None:
    client = await aiohttp_client(
        page(raising(ValueError), error_middleware(default_handler=handler))
    )
    received = await raw(
        client.server,
        b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    answer = head(received)
    assert (answer.status, answer.rest) == (500, b"")
    assert int(answer.headers["Content-Length"]) > 0


async def test_concurrent_errors_do_not_mix(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        raise ValueError(request.query["n"])

    client = await aiohttp_client(page(handler))
    answers = await asyncio.gather(*(ask(client, f"/?n={n}") for n in range(9)))
    assert [(await answer.json())["detail"] for answer in answers] == [
        str(n) for n in range(9)
    ]


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
