"""docs/how-to/write-your-own.rst: the wrong ways do harm, the right ones none.

What is run here is the code of the page.
"""

import asyncio
import hmac
import logging
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import answers
import pytest
from aiohttp import web
from live import eventually, live
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares.annotations import Handler, Middleware

PAGE = Path(__file__).parent.parent / "docs/how-to/write-your-own.rst"
_, *PARTS = re.split(
    r"^(\S.*)\n=+$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE
)
#: The example of each section.
CODE = {
    title: textwrap.dedent(example[1])
    for title, text in zip(PARTS[::2], PARTS[1::2], strict=True)
    if (example := re.search(r":: python\n((?: {4}.*\n|\n)+)", text))
}


def shown(title: str) -> Any:
    """What the example of a section defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(CODE[title], f"{PAGE.name}: {title}", "exec"), names)
    return SimpleNamespace(**names)


def application(*middlewares: Middleware) -> web.Application:
    return answers.application(*middlewares)


def test_seven_pitfalls_are_shown_wrong_and_right() -> None:
    pitfalls = [
        title for title, code in CODE.items() if "async def wrong(" in code
    ]
    assert len(pitfalls) == 7
    assert all("async def right(" in CODE[title] for title in pitfalls)


async def test_stream(aiohttp_client: AiohttpClient) -> None:
    example = shown("A stream has left by then")

    async def served(middleware: Middleware) -> list[str]:
        client = await aiohttp_client(application(middleware))
        paths = ["returned", "streamed", "nowhere", "failed"]
        return [
            path
            for path in paths
            if "X-Served-By" in (await client.get(f"/{path}")).headers
        ]

    assert await served(example.wrong) == ["returned"]
    assert await served(example.right) == [
        "returned",
        "streamed",
        "nowhere",
        "failed",
    ]


async def test_raised_answer(aiohttp_client: AiohttpClient) -> None:
    example = shown("An answer may be raised")

    async def statuses(middleware: Middleware) -> list[int]:
        client = await aiohttp_client(application(middleware))
        paths = ["redirected", "nowhere", "failed"]
        return [
            (await client.get(f"/{path}", allow_redirects=False)).status
            for path in paths
        ]

    assert await statuses(example.wrong) == [500, 500, 500]
    assert await statuses(example.right) == [302, 404, 500]
    client = await aiohttp_client(application(example.right))
    response = await client.get("/failed")
    assert await response.json() == {"detail": "Internal Server Error"}


async def test_cookie(aiohttp_client: AiohttpClient) -> None:
    example = shown("A cookie needs the answer that leaves")

    async def cookies(middleware: Middleware, path: str) -> list[str]:
        client = await aiohttp_client(application(middleware))
        response = await client.get(f"/{path}", allow_redirects=False)
        return [
            line.partition("=")[0]
            for line in response.headers.getall("Set-Cookie", [])
        ]

    for path, wrong, right in (
        ("returned", ["seen"], ["seen"]),
        ("streamed", [], ["seen"]),
        ("redirected", ["seen"], ["seen", "seen"]),  # one is its own
    ):
        assert await cookies(example.wrong, path) == wrong
        assert await cookies(example.right, path) == right


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


async def test_clone(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    example = shown("The handler may have another request")
    caplog.set_level(logging.INFO, "notes")

    async def notes(*middlewares: Middleware) -> list[str]:
        caplog.clear()
        app = web.Application(middlewares=middlewares)
        app.router.add_get("/", example.report)
        client = await aiohttp_client(app)
        assert (await client.get("/")).status == 200
        return [r.getMessage() for r in caplog.records if r.name == "notes"]

    assert await notes(example.wrong) == ["42 rows"]
    assert await notes(example.wrong, clones) == []
    assert await notes(example.right) == ["42 rows"]
    assert await notes(example.right, clones) == ["42 rows"]


@pytest.mark.parametrize(("way", "full"), [("wrong", True), ("right", False)])
async def test_cancellation(way: str, full: bool) -> None:
    example = shown("The handler may never come back")
    begun: list[web.Request] = []

    async def waits(request: web.Request) -> web.Response:
        begun.append(request)
        await asyncio.Event().wait()
        raise AssertionError

    app = application(getattr(example, way))
    app.router.add_get("/", waits)
    async with live(app) as site:
        client = await site.connect()
        client.send("GET /nowhere")
        assert (await client.answer()).status == 404
        client.send("GET /")
        await eventually(lambda: begun)
        client.leave()
        await eventually(lambda: not site.connections())
    assert example.places.locked() is full


@pytest.mark.parametrize(("way", "seen"), [("wrong", b""), ("right", b"body")])
async def test_body(
    aiohttp_client: AiohttpClient, way: str, seen: bytes
) -> None:
    example = shown("A body can be read once")

    async def shows(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application(
        middlewares=[getattr(example, way)], client_max_size=1000
    )
    app.router.add_post("/", shows)
    client = await aiohttp_client(app)

    async def post(body: bytes, signature: str | None = None) -> Any:
        if signature is None:
            signature = hmac.new(example.KEY, body, "sha256").hexdigest()
        headers = {"X-Signature": signature}
        return await client.post("/", data=body, headers=headers)

    response = await post(b"body")
    assert (response.status, await response.read()) == (200, seen)
    for signature in ("", "a" * 64, "é"):
        assert (await post(b"body", signature)).status == 403
    too_large = await post(bytes(2000))
    assert too_large.status == (200 if way == "wrong" else 413)


@pytest.mark.parametrize(("way", "status"), [("wrong", 500), ("right", 503)])
async def test_sub_application(
    aiohttp_client: AiohttpClient, way: str, status: int
) -> None:
    example = shown("The application may be a part of another")
    sub = application(getattr(example, way))
    app = web.Application()
    app[example.STAGE] = "closed"
    app.add_subapp("/sub", sub)
    client = await aiohttp_client(app)
    assert (await client.get("/sub/returned")).status == status
    # In the application itself both do.
    app = application(getattr(example, way))
    app[example.STAGE] = "closed"
    client = await aiohttp_client(app)
    assert (await client.get("/returned")).status == 503


async def test_all_together(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "audit")
    app = shown("All together").app

    async def change(request: web.Request) -> web.Response:
        if request.match_info["id"] == "1":
            return web.Response(status=201)
        if request.match_info["id"] == "2":
            raise web.HTTPConflict
        raise ZeroDivisionError

    app.router.add_route("*", "/accounts/{id}", change)
    client = await aiohttp_client(app)
    headers = {"X-API-Key": "a-long-key", "X-Request-ID": "id-1"}
    for method, account in (
        ("POST", "1"),
        ("POST", "2"),
        ("PATCH", "3"),
        ("GET", "1"),
    ):
        await client.request(method, f"/accounts/{account}", headers=headers)
    await client.post("/accounts/1")  # by nobody who is known
    told = [vars(r) for r in caplog.records if r.name == "audit"]
    assert [
        (r["user"], r["request_id"], r["path"], r["status"]) for r in told
    ] == [
        ("nightly job", "id-1", "/accounts/1", 201),
        ("nightly job", "id-1", "/accounts/2", 409),
        ("nightly job", "id-1", "/accounts/3", 500),
    ]
