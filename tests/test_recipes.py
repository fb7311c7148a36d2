"""What the pages about deployment and recipes show does what they say."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from live import soon
from test_package import ROOT, Block, blocks_of, read, run

ORIGIN = {"Origin": "https://app.example.com"}


def shown(page: str, words: str) -> Block:
    """The only example with these words."""
    path = ROOT / "docs/how-to" / page
    (block,) = (b for b in blocks_of(path, read(path)) if words in b.code)
    return block


@asynccontextmanager
async def serving(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = run(shown("recipes.rst", words), monkeypatch)["app"]
    async with TestClient(TestServer(app)) as client:
        yield client


async def status(client: Any, method: str, path: str) -> int:
    async with client.request(method, path, allow_redirects=False) as answer:
        return int(answer.status)


async def test_health_checks_pass_what_refuses_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving("database_is_there", monkeypatch) as client:
        assert await status(client, "GET", "/health") == 200
        assert await status(client, "GET", "/ready") == 200
        assert await status(client, "GET", "/") == 400


async def test_slash_too_many_is_a_redirect_that_other_pages_may_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving("normalize_path", monkeypatch) as client:
        answer = await client.get(
            "/notes/", headers=ORIGIN, allow_redirects=False
        )
        assert answer.status == 308
        assert answer.headers["Location"] == "/notes"
        allowed = answer.headers.getall("Access-Control-Allow-Origin")
        assert allowed == [ORIGIN["Origin"]]
        assert await status(client, "GET", "/notes") == 200
        assert await status(client, "GET", "/nowhere/") == 404


async def test_form_may_name_one_of_the_methods_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving("by_method", monkeypatch) as client:
        assert await status(client, "POST", "/notes/1?_method=delete") == 303
        assert await status(client, "DELETE", "/notes/1") == 303
        assert await status(client, "POST", "/notes/1?_method=PUT") == 405
        assert await status(client, "POST", "/notes/1") == 405
        assert await status(client, "GET", "/notes/1?_method=DELETE") == 405
        forged = await client.post(
            "/notes/1?_method=DELETE",
            headers={"Sec-Fetch-Site": "cross-site"},
            allow_redirects=False,
        )
        assert forged.status == 403


async def test_closed_site_answers_health_checks_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    monkeypatch.setenv("CLOSED", str(closed))
    async with serving("def maintenance", monkeypatch) as client:
        assert await status(client, "GET", "/") == 200
        closed.touch()
        answer = await client.get("/", headers=ORIGIN)
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "600"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert await answer.json() == {"detail": "Back in ten minutes"}
        assert await status(client, "GET", "/health") == 200
        closed.unlink()
        assert await status(client, "GET", "/") == 200


SERVER = """
import sys


async def slow(request):
    print("at work", flush=True)
    await asyncio.sleep(2)
    return web.Response(text="done")


app = web.Application()
app.router.add_get("/slow", slow)
asyncio.run(serve(app, int(sys.argv[1]), notice=1))
"""


async def test_server_that_is_told_to_stop_says_so_and_finishes(
    tmp_path: Path,
) -> None:
    program = tmp_path / "app.py"
    program.write_text(shown("deployment.rst", "STOPPING").code + SERVER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        # A connection for each question, as probes have it.
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            connector=aiohttp.TCPConnector(force_close=True),
        ) as session:

            async def ready() -> int:
                try:
                    async with session.get("/ready") as answer:
                        return answer.status
                except aiohttp.ClientConnectionError:
                    return 0

            while await ready() != 200:
                assert process.returncode is None
                await asyncio.sleep(0.05)
            asking = asyncio.create_task(session.get("/slow"))
            await soon(process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            said = []
            while code := await ready():
                said.append(code)
                await asyncio.sleep(0.02)
            assert said.count(503) > 1
            assert await (await asking).text() == "done"
        assert await soon(process.wait()) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_runner_for_gunicorn_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = shown("deployment.rst", "create_runner")
    runner = await run(block, monkeypatch)["create_runner"]()
    await runner.setup()
    assert isinstance(runner.app, web.Application)
    await runner.cleanup()


async def test_public_site_is_as_safe_as_the_page_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = run(shown("../security.rst", "hunter2"), monkeypatch)["create_app"]()
    proxied = {"Host": "example.com", "X-Forwarded-Proto": "https"}
    async with TestClient(TestServer(app)) as client:

        async def ask(method: str, path: str, **options: Any) -> int:
            headers = {**proxied, **options.pop("headers", {})}
            async with client.request(
                method, path, headers=headers, allow_redirects=False, **options
            ) as answer:
                if answer.status not in (307, 400):
                    assert "Content-Security-Policy" in answer.headers
                assert "hunter2" not in await answer.text()
                return int(answer.status)

        assert await ask("GET", "/") == 200
        assert await ask("GET", "/broken") == 500
        assert await ask("GET", "/", headers={"Host": "a.example"}) == 400
        by_http = {"X-Forwarded-Proto": "http"}
        assert await ask("GET", "/", headers=by_http) == 307
        forged = {"Sec-Fetch-Site": "cross-site"}
        assert await ask("POST", "/", headers=forged) == 403
        length = {"Content-Length": str(1024**2 + 1)}
        assert await ask("POST", "/", headers=length) == 413
