"""What came in early data may be a replay: RFC 8470."""

import logging
import re
from typing import Any

import answers
import pytest
from aiohttp import web
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    HTTPTooEarly,
    early_data_middleware,
    error_middleware,
)

EARLY = {"Early-Data": "1"}
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"]


def application(*outside: Any, **options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="in")

    app = web.Application(
        middlewares=[*outside, early_data_middleware(**options)]
    )
    app.router.add_route("*", "/{path:.*}", handler)
    return app


# What it does
# ============


@pytest.mark.parametrize("method", UNSAFE)
async def test_unsafe_request_in_early_data_is_refused(
    aiohttp_client: AiohttpClient, method: str
) -> None:
    client = await aiohttp_client(application())
    response = await client.request(method, "/", headers=EARLY)
    assert (response.status, response.reason) == (425, "Too Early")
    assert await response.text() == "Too early, please send it again"


@pytest.mark.parametrize(
    "values", [["1"], ["0"], [""], ["x"], ["1", "1"], ["0", "1"], ["1, 1"]]
)
async def test_any_such_field_counts(
    aiohttp_client: AiohttpClient, values: list[str]
) -> None:
    # RFC 8470 5.1: multiple or invalid instances are one with the value 1.
    client = await aiohttp_client(application())
    headers = CIMultiDict([("early-data", value) for value in values])
    assert (await client.post("/", headers=headers)).status == 425


async def test_refusal_is_rendered_by_the_error_middleware(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(error_middleware()))
    response = await client.post("/", headers=EARLY)
    assert response.status == 425
    assert await response.json() == {
        "detail": "Too early, please send it again"
    }


async def test_handler_can_refuse_as_well(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise HTTPTooEarly

    app = web.Application()
    app.router.add_get("/", handler)
    response = await (await aiohttp_client(app)).get("/")
    assert (response.status, await response.text()) == (425, "425: Too Early")


def test_reason_does_not_depend_on_what_statuses_aiohttp_knows() -> None:
    # Later versions take it from here, and have none for a status like this.
    assert HTTPTooEarly.default_reason == "Too Early"


# What it leaves alone
# ====================


@pytest.mark.parametrize("method", SAFE)
async def test_safe_request_passes(
    aiohttp_client: AiohttpClient, method: str
) -> None:
    client = await aiohttp_client(application())
    response = await client.request(method, "/", headers=EARLY)
    assert response.status == 200


@pytest.mark.parametrize("method", SAFE + UNSAFE)
async def test_other_request_passes(
    aiohttp_client: AiohttpClient, method: str
) -> None:
    client = await aiohttp_client(application())
    assert (await client.request(method, "/")).status == 200


async def test_allowed_url_may_be_repeated(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(allow={"/search": "POST"}))
    for method, path, status in (
        ("POST", "/search", 200),
        ("PUT", "/search", 425),
        ("POST", "/search/x", 425),
    ):
        response = await client.request(method, path, headers=EARLY)
        assert response.status == status


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(answers.application(early_data_middleware()))
    for more, status in ({}, kind.status), (EARLY, 425):
        headers = {**kind.fields, **more}
        response = await client.post(
            kind.path, headers=headers, allow_redirects=False
        )
        assert response.status == status


async def test_log_says_what_was_refused_and_why(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(application())
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        await client.post("/x", headers=EARLY)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.name == "aiohttp_middlewares.early_data"
    assert record.getMessage() == "Refused POST /x: it came in early data"


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("allow", "error", "message"),
    [
        (
            "/x",
            TypeError,
            "early_data_middleware allow should be a collection of paths",
        ),
        (["x"], ValueError, "did you mean '/x'?"),
        ({"/x": "*"}, ValueError, "allow['/x'] should be a collection of HTTP"),
    ],
)
def test_wrong_option_is_one_sentence(
    allow: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        early_data_middleware(allow=allow)
