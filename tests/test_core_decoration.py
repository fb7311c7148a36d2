"""before_sending: headers at the last moment, for middlewares of one's own."""

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Any

import answers
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import before_sending, timeout_middleware
from aiohttp_middlewares.annotations import Handler, Middleware

Calls = list[tuple[str, int]]


def tells(name: str, calls: Calls) -> Middleware:
    @web.middleware
    async def tells(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        def mark(status: int, headers: CIMultiDict[str]) -> None:
            calls.append((name, status))
            headers.add("X-Mark", name)

        before_sending(request, mark)
        return await handler(request)

    return tells


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


# What it does
# ============


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
@pytest.mark.parametrize("place", ["alone", "clones outside", "clones inside"])
async def test_it_is_called_once_for_any_answer_inner_before_outer(
    aiohttp_client: AiohttpClient, kind: answers.Kind, method: str, place: str
) -> None:
    calls: Calls = []
    app = answers.application(
        *([clones] if place == "clones outside" else []),
        tells("outer", calls),
        *([clones] if place == "clones inside" else []),
        tells("inner", calls),
    )
    client = await aiohttp_client(app)
    response = await client.request(
        method, kind.path, headers=kind.fields, allow_redirects=False
    )
    assert response.status == kind.status
    assert response.headers.getall("X-Mark") == ["inner", "outer"]
    assert calls == [("inner", kind.status), ("outer", kind.status)]
    response.close()


async def test_handler_may_ask_as_well_and_its_cookies_are_lines_by_then(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[str] = []

    def change(status: int, headers: CIMultiDict[str]) -> str:
        seen.extend(headers.getall("Set-Cookie"))
        headers.add("Set-Cookie", "b=2; Path=/")
        del headers["Server"]
        return headers.setdefault("X-Own", "what it returns does not count")

    async def page(request: web.Request) -> web.Response:
        before_sending(request, change)
        redirect = web.HTTPFound("/elsewhere")
        redirect.set_cookie("a", "1")
        raise redirect

    app = web.Application()
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    response = await client.get("/", allow_redirects=False)
    assert response.status == 302
    assert seen == ["a=1; Path=/"]
    assert response.headers.getall("Set-Cookie") == [
        "a=1; Path=/",
        "b=2; Path=/",
    ]
    assert "Server" not in response.headers
    assert "X-Own" in response.headers


async def test_it_is_called_again_for_what_follows_one_that_was_given_up(
    aiohttp_client: AiohttpClient,
) -> None:
    async def gives_up(request: web.Request) -> web.Response:
        await answers.prepared(request)
        raise ZeroDivisionError

    calls: Calls = []
    app = web.Application(middlewares=[tells("it", calls)])
    app.router.add_get("/", gives_up)
    response = await (await aiohttp_client(app)).get("/")
    assert response.status == 500
    assert response.headers.getall("X-Mark") == ["it"]
    assert calls == [("it", 200), ("it", 500)]


async def test_what_answers_in_place_of_the_handler_has_it(
    aiohttp_client: AiohttpClient,
) -> None:
    async def slow(request: web.Request) -> web.Response:
        before_sending(
            request, lambda status, headers: headers.update({"X-Own": "yes"})
        )
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application(middlewares=[timeout_middleware(0.01)])
    app.router.add_get("/", slow)
    response = await (await aiohttp_client(app)).get("/")
    assert (response.status, response.headers["X-Own"]) == (504, "yes")


# What it leaves alone
# ====================


async def test_after_the_headers_are_out_it_is_not_called_any_more(
    aiohttp_client: AiohttpClient,
) -> None:
    calls: list[int] = []

    async def page(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun ")
        before_sending(request, lambda status, headers: calls.append(status))
        await response.write(b"ended")
        return response

    app = web.Application()
    app.router.add_get("/", page)
    client = await aiohttp_client(app)
    for _ in range(2):  # nor for the next request of the connection
        assert await (await client.get("/")).text() == "begun ended"
    assert calls == []


async def test_without_a_server_it_does_nothing() -> None:
    before_sending(make_mocked_request("GET", "/"), lambda *args: 1 / 0)


async def test_it_leaves_nothing_to_the_garbage_collector(
    aiohttp_client: AiohttpClient,
) -> None:
    async def collected(*middlewares: Middleware) -> int:
        client = await aiohttp_client(answers.application(*middlewares))
        await client.get("/returned")
        await client.get("/returned")
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                async with client.get("/returned") as response:
                    await response.read()
            return gc.collect()
        finally:
            gc.enable()

    bare = await collected()
    assert await collected(tells("it", [])) <= bare


# Mistakes
# ========


def breaks_off(status: int, headers: CIMultiDict[str]) -> None:
    headers.clear()
    raise ZeroDivisionError


def splits(status: int, headers: CIMultiDict[str]) -> None:
    headers.clear()
    headers["X-Own"] = "a\r\nSet-Cookie: evil=1"


def bad_name(status: int, headers: CIMultiDict[str]) -> None:
    headers["X-Own\n"] = "a"


def no_name(status: int, headers: CIMultiDict[str]) -> None:
    headers[""] = "a"


def two_words(status: int, headers: CIMultiDict[str]) -> None:
    headers["X Own"] = "a"


def endless(status: int, headers: CIMultiDict[str]) -> None:
    headers.clear()


def of_two_lengths(status: int, headers: CIMultiDict[str]) -> None:
    headers.add("Content-Length", "1")


def cancelled(status: int, headers: CIMultiDict[str]) -> None:
    raise asyncio.CancelledError


def number(status: int, headers: Any) -> None:
    headers["X-Own"] = 5


def awaits(status: int, headers: CIMultiDict[str]) -> object:
    return asyncio.sleep(0)


@pytest.mark.parametrize(
    "mistake",
    [
        breaks_off,
        splits,
        bad_name,
        no_name,
        two_words,
        endless,
        of_two_lengths,
        cancelled,
        number,
        awaits,
    ],
)
@pytest.mark.parametrize("path", ["/returned", "/failed", "/events"])
async def test_one_that_fails_is_logged_and_the_others_have_their_turn(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    mistake: Callable[..., object],
    path: str,
) -> None:
    @web.middleware
    async def fails(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        before_sending(request, mistake)
        return await handler(request)

    calls: Calls = []
    subjects = [tells("outer", calls), tells("inner", calls)]
    plain = await aiohttp_client(answers.application(*subjects))
    expected = await plain.get(path)
    subjects.insert(1, fails)
    client = await aiohttp_client(answers.application(*subjects))
    response = await client.get(path)
    assert response.status == expected.status
    assert await response.read() == await expected.read()
    assert [*response.headers] == [*expected.headers]
    assert response.headers.getall("X-Mark") == ["inner", "outer"]
    (record,) = [
        r for r in caplog.records if r.name.startswith("aiohttp_middlewares")
    ]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert "evil" not in caplog.text


async def slow(status: int, headers: CIMultiDict[str]) -> None:
    """Nobody can wait for it."""


@pytest.mark.parametrize("given", [None, "X-Own", {"X-Own": "a"}, slow])
def test_what_cannot_be_called_then_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="before_sending decorator should be"):
        before_sending(make_mocked_request("GET", "/"), given)
