"""The traceback as a page."""

import builtins
import html
import linecache
import logging
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
    LOGGER,
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


async def test_debug_text_does_without_a_source_that_is_nowhere(
    aiohttp_client: AiohttpClient,
) -> None:
    made: dict[str, Any] = {}
    exec("def fails(): raise ValueError('made')", made)
    client = await aiohttp_client(debug_page(lambda: made["fails"]()))
    answer = await ask(client, headers={"Accept": "text/plain"})
    text = await answer.text()
    assert '  File "<string>", line 1, in fails\nValueError: made' in text


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


def site_of(handler: Handler) -> web.Application:
    return page(handler, error_middleware(default_handler=debug_error_handler))


async def reads_json(request: web.Request) -> web.StreamResponse:
    try:
        await request.json()
    except ValueError as err:
        raise LookupError("no JSON") from err
    return web.Response()


async def test_frames_of_others_are_counted_and_the_readers_own_is_last(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(site_of(reads_json))
    answer = await ask(client, headers={"Accept": "application/json"})
    error, cause = (await answer.json())["exceptions"]
    assert [f["function"] for f in error["frames"]] == ["reads_json"]
    assert error["folded"] == (
        "Frames left out: 1 of aiohttp, aiohttp_middlewares and Python"
    )
    # Below the reader's own: request.json(), and what that calls.
    assert [f["function"] for f in cause["frames"]] == ["reads_json"]
    assert re.fullmatch(
        "Frames left out: [0-9]+ of aiohttp, aiohttp_middlewares and Python",
        cause["folded"],
    )
    for accept, line in (
        (HTML, f"{__file__}, line "),
        (TEXT, f'File "{__file__}", line '),
    ):
        answer = await ask(client, headers={"Accept": accept})
        body = html.unescape(await answer.text())
        assert body.count("Frames left out: ") == 2
        for folder in ("/aiohttp/web", "/error/__init__", "/json/"):
            assert folder not in body
        assert body.count(line) == 2
    # The log has it all.
    assert "aiohttp/web_request.py" in caplog.text
    assert "aiohttp_middlewares/error/__init__.py" in caplog.text


async def test_error_of_the_router_has_no_frame_of_the_readers(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(site_of(reads_json))
    for accept in (HTML, TEXT, "application/json"):
        answer = await ask(client, "/nope", headers={"Accept": accept})
        assert answer.status == 404
        assert "Frames left out: " in await answer.text()


async def recurses(request: web.Request) -> web.StreamResponse:
    return await recurses(request)


async def says_much(request: web.Request) -> web.StreamResponse:
    raise ValueError("<" * 10**6)


async def is_caused_by_many(request: web.Request) -> web.StreamResponse:
    found: Exception = ValueError("first")
    for number in range(1000):
        cause, found = found, ValueError(str(number))
        found.__cause__ = cause
    raise found


@pytest.mark.parametrize("accept", ["application/json", HTML, TEXT])
@pytest.mark.parametrize("handler", [recurses, says_much, is_caused_by_many])
async def test_page_stays_short_whatever_was_raised(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    accept: str,
    handler: Handler,
) -> None:
    monkeypatch.setattr(logging.getLogger(LOGGER), "disabled", True)
    client = await aiohttp_client(site_of(handler))
    answer = await ask(client, headers={"Accept": accept})
    assert answer.status == 500
    body = await answer.text()
    assert len(body) < 300_000
    if handler is recurses:
        assert body.count("in the middle") == 1
        assert 10 <= body.count("recurses") < 400


async def test_long_line_of_source_is_cut(
    aiohttp_client: AiohttpClient,
) -> None:
    source = "async def handler(request): raise ValueError" + " " * 5000 + "\n"
    linecache.cache["a file"] = (len(source), None, [source], "a file")
    names: dict[str, Any] = {}
    exec(compile(source, "a file", "exec"), names)
    client = await aiohttp_client(site_of(names["handler"]))
    answer = await ask(client, headers={"Accept": "application/json"})
    (error,) = (await answer.json())["exceptions"]
    ((_, line),) = error["frames"][-1]["source"]
    assert line == source[:500]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups before 3.11")
async def test_group_of_many_is_shown_in_part(
    aiohttp_client: AiohttpClient,
) -> None:
    group: Any = vars(builtins)["ExceptionGroup"]
    raised = group("many", [ValueError(str(n)) for n in range(1000)])
    client = await aiohttp_client(debug_page(raised))
    answer = await ask(client, headers={"Accept": "application/json"})
    shown = (await answer.json())["exceptions"]
    assert len(shown) == 10
    assert [exc["message"] for exc in shown[1:3]] == ["0", "1"]
