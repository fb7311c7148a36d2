"""Errors: how they are answered, and what is left alone."""

import asyncio
import builtins
import datetime
import http
import logging
import sys
from functools import partial
from typing import Any
from unittest.mock import ANY, Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from error_site import (
    LOGGER,
    SHIPPED,
    Circle,
    FailingAttributes,
    Failure,
    Falsy,
    SilentFailure,
    ask,
    cloning,
    decorated,
    login,
    named,
    page,
    raising,
    shown,
)
from multidict import CIMultiDict
from pytest_aiohttp import AiohttpClient
from raw import head, raw
from yarl import URL

from aiohttp_middlewares import (
    RequestTimeout,
    cors_middleware,
    error_middleware,
    get_error_response,
    problem_error_handler,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

# What default_error_handler answers
# ==================================


async def test_unexpected_error_is_answered_as_json(
    aiohttp_client: AiohttpClient,
) -> None:
    # The default handler goes on showing str(err).
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
    # 405 has to say Allow (RFC 9110 15.5.6).
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
        (AssertionError(), 500, "Internal Server Error"),
        (Failure("", message=""), 500, "Internal Server Error"),
        (Failure("", status=404), 404, "Not Found"),
        (Failure("", status=499), 499, "Client Error"),
        (Failure("", status=599), 599, "Server Error"),
        (Failure("text", message=""), 500, "text"),
        # no message but a str
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
        # only the limit of ours is a 504.
        (RequestTimeout(), 504, "Request timed out"),
        (asyncio.TimeoutError(), 500, "Internal Server Error"),
        (asyncio.TimeoutError("mine"), 500, "mine"),
        # what aiohttp raises
        (web.HTTPNotFound(), 404, "Not Found"),
        (web.HTTPNotFound(reason="No such user"), 404, "No such user"),
        (web.HTTPInternalServerError(), 500, "Internal Server Error"),
        # the developer's text
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
        # what JSON cannot say
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


async def reads(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await request.read())


async def reads_in_pieces(request: web.Request) -> web.StreamResponse:
    async for _ in request.content.iter_any():
        pass
    return web.Response()


@pytest.mark.parametrize("handler", [reads, reads_in_pieces])
async def test_body_that_cannot_be_decoded_is_a_400(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
) -> None:
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


# What it leaves alone
# ====================


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
    # What lost its Location and its cookie
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


# Handlers that return no response
# ================================


async def nothing(request: web.Request) -> Any:
    pass


async def a_mapping(request: web.Request) -> Any:
    return {"secret": "hunter2"}


class Methods:
    async def show(self, request: web.Request) -> Any:
        return ["list"]


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (nothing, "nothing should return a response, got None"),
        (a_mapping, "a_mapping should return a response, got dict"),
        (Methods().show, "Methods.show should return a response, got list"),
        (
            partial(nothing),
            "nothing should return a response, got None",
        ),
    ],
)
@pytest.mark.parametrize(
    "inside", [[], [cloning, timeout_middleware(9)]], ids=["alone", "around"]
)
async def test_handler_without_a_response_is_named_and_an_error_like_any_other(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
    said: str,
    inside: list[Middleware],
) -> None:
    app = web.Application(middlewares=[error_middleware(), *inside])
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (500, {"detail": said})
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.name == LOGGER
    assert record.exc_info is not None
    assert record.exc_info[0] is TypeError


@pytest.mark.parametrize("key", [TypeError, 500, "/"])
async def test_config_may_answer_for_a_handler_without_a_response(
    aiohttp_client: AiohttpClient, key: Any
) -> None:
    client = await aiohttp_client(
        page(nothing, error_middleware(config={key: named("mine")}))
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (500, "mine")


async def test_view_without_a_response_is_an_error_too(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    class View(web.View):  # which looks at it by itself
        async def get(self) -> Any:
            return "text"

    view: Any = View
    client = await aiohttp_client(page(view))
    assert (await ask(client)).content_type == "application/json"
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.name == LOGGER


async def test_stream_that_the_handler_returned_is_a_response(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def streams(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"in pieces")
        return response

    client = await aiohttp_client(page(streams))
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (200, "in pieces")
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


# Groups of one
# =============


def group_of(*raised: Any) -> Any:
    return vars(builtins)["ExceptionGroup"]("a group", list(raised))


groups = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="no groups before 3.11"
)


@groups
@pytest.mark.parametrize("depth", [1, 2, 50])
async def test_group_of_one_counts_as_that_one(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    depth: int,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)

    def wrapped(raised: Any) -> Any:
        for _ in range(depth):
            raised = group_of(raised)
        return raised

    missing = web.HTTPNotFound(text="No note 2", headers={"X-Own": "1"})
    client = await aiohttp_client(page(raising(lambda: wrapped(missing))))
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (
        404,
        {"detail": "No note 2"},
    )
    assert answer.headers.getall("X-Own") == ["1"]
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert (record.levelname, record.exc_info) == ("INFO", None)

    for key in (KeyError, LookupError, 500):
        status, text = 500, "mine"
        client = await aiohttp_client(
            page(
                raising(lambda: wrapped(KeyError("x"))),
                error_middleware(config={404: named("no"), key: named(text)}),
            )
        )
        answer = await ask(client)
        assert (answer.status, await answer.text()) == (status, text)
    assert await shown(aiohttp_client, wrapped(Failure("f", status=422))) == (
        422,
        {"detail": "f"},
    )


@groups
async def test_group_of_one_is_logged_whole(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    raised = group_of(ValueError("x"))
    assert await shown(aiohttp_client, raised) == (500, {"detail": "x"})
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.exc_info is not None
    assert record.exc_info[1] is raised


@groups
async def test_group_of_several_is_an_error_of_its_own(
    aiohttp_client: AiohttpClient,
) -> None:
    raised = group_of(web.HTTPNotFound(), web.HTTPGone())
    status, _ = await shown(aiohttp_client, raised)
    assert status == 500


@groups
async def test_redirect_and_ignored_error_come_out_of_a_group_of_one(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[Exception] = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as err:
            seen.append(err)
            return web.Response(text="outside")

    errors = error_middleware(ignore_exceptions=ValueError)
    client = await aiohttp_client(
        page(raising(lambda: group_of(login())), errors)
    )
    assert (await ask(client)).headers["Location"] == "/home"
    raised = UnicodeError("x")
    client = await aiohttp_client(
        page(raising(lambda: group_of(raised)), seeing, errors)
    )
    assert await (await ask(client)).text() == "outside"
    assert seen == [raised]
    assert raised.__context__ is None  # no cycle with the group


@groups
async def test_task_group_of_a_real_handler_keeps_the_status(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        async def note() -> None:
            raise web.HTTPNotFound(text="No note 2")

        async with vars(asyncio)["TaskGroup"]() as group:
            group.create_task(note())
        return web.Response()

    client = await aiohttp_client(page(handler))
    answer = await ask(client)
    assert (answer.status, await answer.json()) == (
        404,
        {"detail": "No note 2"},
    )


# In a unit test, with a mocked request
# =====================================


@pytest.mark.parametrize("handler", SHIPPED)
@pytest.mark.parametrize(
    "mocks",
    [
        {},
        {"transport": Mock(), "protocol": Mock()},
        {"payload": Mock()},
        {"writer": Mock()},
    ],
    ids=" ".join,
)
async def test_mocked_request_is_answered(
    handler: Handler, mocks: dict[str, Any]
) -> None:
    errors = error_middleware(
        default_handler=handler, ignore_exceptions=LookupError
    )
    for raised, status in (
        (web.HTTPNotFound(), 404),
        (ValueError("x"), 500),
        (ConnectionResetError("redis"), 500),
    ):
        request = make_mocked_request("GET", "/a", **mocks)
        answer = await errors(request, raising(raised))
        assert answer.status == status
        answer = await get_error_response(
            request, raised, default_handler=handler
        )
        assert answer.status == status
    request = make_mocked_request("GET", "/a", **mocks)
    for passed in (KeyError("x"), web.HTTPFound("/")):
        with pytest.raises(type(passed)):
            await errors(request, raising(passed))
    assert (await errors(request, raising(TypeError))).status == 500
    response = web.Response()

    async def fine(request: web.Request) -> web.StreamResponse:
        return response

    assert await errors(request, fine) is response
    assert (await errors(request, nothing)).status == 500


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
