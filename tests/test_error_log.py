"""What the log gets to see of errors."""

import logging
from typing import Any

import pytest
from aiohttp import web
from error_site import LOGGER, SHIPPED, Failure, ask, named, page, raising
from pytest_aiohttp import AiohttpClient
from raw import raw

from aiohttp_middlewares import error_middleware
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


async def test_handlers_of_your_own_log_for_themselves(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    client = await aiohttp_client(
        page(raising(ValueError), error_middleware(default_handler=named("x")))
    )
    assert (await ask(client)).status == 500
    assert [r for r in caplog.records if r.name == LOGGER] == []
