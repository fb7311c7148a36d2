"""The traceback as a page."""

import builtins
import html
import re
import sys
from typing import Any

import error_site
import pytest
from aiohttp import web
from error_site import (
    BROWSER,
    HTML,
    JSON,
    NASTY,
    TEXT,
    Circle,
    FailingAttributes,
    Failure,
    Falsy,
    SilentFailure,
    ask,
    chain,
    page,
    raising,
)
from pytest_aiohttp import AiohttpClient

from aiohttp_middlewares import (
    debug_error_handler,
    error_middleware,
    problem_error_handler,
)
from aiohttp_middlewares.annotations import Handler


def debug_page(raised: Any) -> web.Application:
    return page(
        raising(raised), error_middleware(default_handler=debug_error_handler)
    )


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
    assert f"{error_site.__file__}, line" in text
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
    assert frame["file"] == error_site.__file__
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
