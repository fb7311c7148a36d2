"""Problem details, RFC 9457."""

import asyncio
import http
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from error_site import (
    BROWSER,
    HTML,
    JSON,
    LOGGER,
    NASTY,
    TEXT,
    Client,
    Failure,
    ask,
    page,
    raising,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pytest_aiohttp import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    RequestTimeout,
    error_middleware,
    problem_error_handler,
)


def problem_page(raised: Any) -> web.Application:
    return page(
        raising(raised), error_middleware(default_handler=problem_error_handler)
    )


async def test_problem_tells_what_is_known(
    aiohttp_client: AiohttpClient,
) -> None:
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
