"""What the log gets to see of errors."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web
from error_site import LOGGER, SHIPPED, Failure, ask, named, page, raising
from pytest_aiohttp import AiohttpClient
from raw import raw

from aiohttp_middlewares import (
    RequestTimeout,
    concurrency_limit_middleware,
    error_middleware,
    get_error_response,
    report_middleware,
)
from aiohttp_middlewares.annotations import Handler


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


def answering(status: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    return handler


def answering_by_raising(status: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        kinds: dict[int, Any] = {
            302: lambda: web.HTTPFound("/login"),
            404: web.HTTPNotFound,
            500: web.HTTPInternalServerError,
            503: web.HTTPServiceUnavailable,
        }
        raise kinds[status]()

    return handler


@pytest.mark.parametrize("answers", [answering, answering_by_raising])
@pytest.mark.parametrize(
    ("raised", "status", "level"),
    [
        (ValueError("x"), 500, "ERROR"),
        (ValueError("x"), 404, "INFO"),
        (ValueError("x"), 302, None),
        (web.HTTPNotFound(), 503, "ERROR"),
        (web.HTTPServiceUnavailable(), 404, "INFO"),
        (RequestTimeout(), 503, "ERROR"),
    ],
)
async def test_status_of_the_answer_decides_whoever_renders_it(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    answers: Any,
    raised: Exception,
    status: int,
    level: str | None,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=answers(status)))
    )
    assert (await ask(client)).status == status
    records = [r for r in caplog.records if r.name == LOGGER]
    assert [r.levelname for r in records] == ([level] if level else [])
    for record in records:
        assert record.status == status  # type: ignore[attr-defined]
        assert record.remote == "127.0.0.1"  # type: ignore[attr-defined]
        caught = record.exc_info[1] if record.exc_info else None
        assert caught is (raised if level == "ERROR" else None)


@pytest.mark.parametrize("handler", SHIPPED)
async def test_limit_that_was_reached_is_a_warning(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    handler: Handler,
) -> None:
    client = await aiohttp_client(
        page(raising(RequestTimeout), error_middleware(default_handler=handler))
    )
    assert (await ask(client)).status == 504
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.levelname == "WARNING"


async def test_504_that_somebody_else_made_is_an_error(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    for raised in (asyncio.TimeoutError, web.HTTPGatewayTimeout):
        client = await aiohttp_client(
            page(
                raising(raised),
                error_middleware(default_handler=answering(504)),
            )
        )
        assert (await ask(client)).status == 504
    assert [r.levelname for r in caplog.records if r.name == LOGGER] == [
        *("ERROR", "ERROR"),
    ]


@pytest.mark.parametrize("answers", [*SHIPPED, named("x")])
async def test_log_may_be_left_to_the_error_handlers(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    answers: Handler,
) -> None:
    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            return await get_error_response(
                request, err, default_handler=answers, log=False
            )

    caplog.set_level(logging.DEBUG, LOGGER)
    for errors in (
        error_middleware(default_handler=answers, log=False),
        own,
    ):
        client = await aiohttp_client(page(raising(ValueError), errors))
        assert (await ask(client)).status == 500
    assert [r for r in caplog.records if r.name == LOGGER] == []


@pytest.mark.parametrize("log", [True, False])
async def test_redirect_to_the_login_page_is_logged_as_any_other_answer(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture, log: bool
) -> None:
    errors = error_middleware(
        default_handler=raising(web.HTTPNotFound), log=log
    )
    caplog.set_level(logging.DEBUG, LOGGER)
    client = await aiohttp_client(page(raising(ValueError), errors))
    assert (await ask(client)).status == 404
    found = [r.levelname for r in caplog.records if r.name == LOGGER]
    assert found == (["INFO"] if log else [])


async def test_get_error_response_logs_by_itself(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    @web.middleware
    async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            return await get_error_response(
                request, err, default_handler=named("x")
            )

    client = await aiohttp_client(page(raising(ValueError), own))
    assert (await ask(client)).status == 500
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.getMessage() == "GET / failed with 500"


async def test_long_and_odd_targets_stay_short_in_the_log(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(page(raising(ValueError)))
    caplog.set_level(logging.INFO, LOGGER)
    await raw(
        client.server,
        b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        % (b"a" * 8000),
    )
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert len(record.path) <= 1003  # type: ignore[attr-defined]
    assert len(record.getMessage()) < 1100


async def test_refusal_of_a_load_is_a_warning_without_a_traceback(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Or a flood would fill the log with tracebacks, and the reporters."""
    told = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await go_on.wait()
        return web.Response()

    app = web.Application(
        middlewares=[
            error_middleware(),
            report_middleware(lambda err, request: told.append(err)),
            concurrency_limit_middleware(1),
        ]
    )
    app.router.add_get("/", slow)
    client = await aiohttp_client(app)
    first = asyncio.create_task(client.get("/"))
    await entered.wait()
    answer = await client.get("/")
    go_on.set()
    assert (await first).status == 200
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    (record,) = (
        record
        for record in caplog.records
        if record.name == "aiohttp_middlewares.error"
    )
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert told == []
