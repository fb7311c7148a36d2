"""One id for each request: in its answer, its log and what it asks others."""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from live import live
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    RequestIdFilter,
    error_middleware,
    get_request_id,
    https_middleware,
    request_id_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.client import propagate_request_id_middleware
from aiohttp_middlewares.request_id import is_request_id

GOOD = "Root=1-67891233-abcdef012345678912345678"
NAME = "X-Request-ID"


async def slow(*args: object) -> str:
    return "not to be awaited"


async def shows(request: web.Request) -> web.Response:
    return web.json_response(get_request_id())


def app_of(
    *middlewares: Middleware, handler: Handler = shows
) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/", handler)
    return app


async def ask(
    aiohttp_client: AiohttpClient,
    middleware: Middleware,
    headers: list[tuple[str, str]],
) -> tuple[str, list[str]]:
    client = await aiohttp_client(app_of(middleware))
    response = await client.get("/", headers=headers)
    shown = await response.json()
    return shown, list(response.headers.getall(NAME, []))


# What it does
# ============


async def test_request_without_an_id_gets_one(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(request_id_middleware()))
    seen = set()
    for _ in range(5):
        response = await client.get("/")
        shown = await response.json()
        assert response.headers.getall(NAME) == [shown]
        assert len(shown) == 32
        assert set(shown) <= set("0123456789abcdef")
        seen.add(shown)
    assert len(seen) == 5
    assert get_request_id() is None


async def test_good_id_is_kept(aiohttp_client: AiohttpClient) -> None:
    answer = await ask(aiohttp_client, request_id_middleware(), [(NAME, GOOD)])
    assert answer == (GOOD, [GOOD])


@pytest.mark.parametrize(
    "bad",
    ["", "a b", "a\tb", "é", "a,b", "<a>", '"a"', "x" * 129, "a%0A", "a\u2028"],
)
async def test_bad_id_is_not_taken_and_not_logged(
    aiohttp_client: AiohttpClient, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    client = await aiohttp_client(app_of(request_id_middleware()))
    received = await raw(
        client.server,
        f"GET / HTTP/1.1\r\nHost: a\r\n{NAME}: {bad}\r\n"
        "Connection: close\r\n\r\n".encode(),
    )
    (given,) = head(received).headers.getall(NAME)
    assert len(given) == 32
    ours = [r for r in caplog.records if r.name.startswith("aiohttp_midd")]
    assert ours == []


@pytest.mark.parametrize("bad", [b"\xff", b"a\tb", b"a\xc2\x85b", b""])
async def test_what_no_header_can_bear_is_not_taken_whoever_takes_it(
    aiohttp_client: AiohttpClient, bad: bytes
) -> None:
    subject = request_id_middleware(validator=lambda text: True)
    client = await aiohttp_client(app_of(subject))
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: %b\r\n"
        b"Connection: close\r\n\r\n" % bad,
    )
    (given,) = head(received).headers.getall(NAME)
    assert len(given) == 32


async def test_two_ids_are_none(aiohttp_client: AiohttpClient) -> None:
    shown, sent = await ask(
        aiohttp_client, request_id_middleware(), [(NAME, "a"), (NAME, "b")]
    )
    assert sent == [shown]
    assert len(shown) == 32


async def test_first_header_is_sent_and_any_is_read(
    aiohttp_client: AiohttpClient,
) -> None:
    middleware = request_id_middleware(header=[NAME, "X-Amzn-Trace-Id"])
    for headers, expected in (
        ([("X-Amzn-Trace-Id", GOOD)], GOOD),
        ([("X-Amzn-Trace-Id", GOOD), (NAME, "mine")], "mine"),
        ([("X-Amzn-Trace-Id", GOOD), (NAME, "not good")], GOOD),
    ):
        answer = await ask(aiohttp_client, middleware, headers)
        assert answer == (expected, [expected])


@pytest.mark.parametrize(
    ("trusted", "taken"),
    [
        (None, True),
        (["127.0.0.0/8"], True),
        (["10.0.0.0/8"], False),
        ([], False),
    ],
)
async def test_only_who_is_trusted_may_name_a_request(
    aiohttp_client: AiohttpClient, trusted: Any, taken: bool
) -> None:
    shown, sent = await ask(
        aiohttp_client, request_id_middleware(trusted=trusted), [(NAME, GOOD)]
    )
    assert (shown == GOOD) is taken
    assert sent == [shown]


async def test_generator_and_validator_may_be_ones_own(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(text: str) -> bool:
        raise ZeroDivisionError(text)

    middleware = request_id_middleware(
        generator=lambda: "made", validator=str.isdigit
    )
    assert (await ask(aiohttp_client, middleware, [(NAME, "12")]))[0] == "12"
    assert (await ask(aiohttp_client, middleware, [(NAME, "ab")]))[0] == "made"
    assert caplog.records == []
    middleware = request_id_middleware(
        generator=lambda: "made", validator=fails
    )
    assert (await ask(aiohttp_client, middleware, [(NAME, "12")]))[0] == "made"
    (record,) = caplog.records
    assert record.name == "aiohttp_middlewares.request_id"


async def test_what_a_validator_says_of_an_id_is_not_logged(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    def is_even(text: str) -> bool:
        return int(text) % 2 == 0  # its error quotes the text

    middleware = request_id_middleware(validator=is_even)
    shown, sent = await ask(aiohttp_client, middleware, [(NAME, "forged")])
    assert sent == [shown]
    assert len(shown) == 32
    assert "It raised ValueError" in caplog.text
    assert "in is_even" in caplog.text
    assert "forged" not in caplog.text


def fails() -> str:
    raise LookupError("no more numbers")


@pytest.mark.parametrize(
    "generator",
    [fails, uuid.uuid4, lambda: None, lambda: "", lambda: "a\r\nb: c"],
    ids=["raises", "no text", "nothing", "empty", "two lines"],
)
async def test_generator_that_fails_is_logged_and_leaves_no_answer_without_one(
    aiohttp_client: AiohttpClient,
    generator: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    middleware = request_id_middleware(generator=generator)
    shown, sent = await ask(aiohttp_client, middleware, [])
    assert sent == [shown]
    assert len(shown) == 32
    (record,) = caplog.records
    assert record.name == "aiohttp_middlewares.request_id"
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_bears_it_once(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(answers.application(request_id_middleware()))
    response = await client.post(
        kind.path, headers={**kind.fields, NAME: GOOD}, allow_redirects=False
    )
    assert response.status == kind.status
    assert response.headers.getall(NAME) == [GOOD]
    response.close()


async def test_ours_takes_the_place_of_the_handlers_own(
    aiohttp_client: AiohttpClient,
) -> None:
    async def sets(request: web.Request) -> web.Response:
        return web.Response(headers={NAME: "of an upstream"})

    client = await aiohttp_client(app_of(request_id_middleware(), handler=sets))
    response = await client.get("/", headers={NAME: GOOD})
    assert response.headers.getall(NAME) == [GOOD]


# Where it is seen
# ================


async def test_tasks_of_the_handler_and_clones_have_it_and_nobody_elses(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        seen = await asyncio.gather(*(later() for _ in range(3)))
        assert set(seen) == {get_request_id()}
        return web.json_response(get_request_id())

    async def later() -> str | None:
        await asyncio.sleep(0)
        return get_request_id()

    app = app_of(request_id_middleware(), https_middleware(), handler=handler)
    client = await aiohttp_client(app)

    async def one(number: int) -> None:
        headers = {NAME: f"id-{number}", "X-Forwarded-Proto": "https"}
        async with client.get("/", headers=headers) as response:
            assert await response.json() == f"id-{number}"

    await asyncio.gather(*(one(number) for number in range(50)))


@pytest.fixture
def filtered(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    identities = RequestIdFilter()
    caplog.handler.addFilter(identities)
    yield
    # pytest has one handler for all tests.
    caplog.handler.removeFilter(identities)


@pytest.mark.usefixtures("filtered")
async def test_log_records_of_a_request_have_it_that_of_the_access_log_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        logging.getLogger("own").warning("hello")
        raise ZeroDivisionError

    caplog.set_level(logging.INFO, "aiohttp.access")
    app = app_of(request_id_middleware(), error_middleware(), handler=handler)
    async with live(app) as site:
        client = await site.connect()
        for number in range(2):  # on one connection
            client.send("GET /", fields=f"{NAME}: id-{number}\r\n")
            assert (await client.answer()).status == 500
        logging.getLogger("own").warning("of no request")
        client.leave()
    told = [(r.name, vars(r)["request_id"]) for r in caplog.records]
    own = [f"id-{number}" for number in range(2)]
    for name in ("own", "aiohttp_middlewares.error", "aiohttp.access"):
        found = [identity for logger, identity in told if logger == name]
        assert found == [*own, *(["-"] if name == "own" else [])], name


async def test_filter_leaves_a_record_that_has_one() -> None:
    record = logging.makeLogRecord({"request_id": "mine"})
    assert RequestIdFilter().filter(record)
    assert vars(record)["request_id"] == "mine"
    record = logging.makeLogRecord({})
    assert RequestIdFilter(default="none").filter(record)
    assert vars(record)["request_id"] == "none"


async def test_id_goes_from_one_server_to_the_next() -> None:
    async with TestServer(app_of(request_id_middleware())) as second:
        propagate = propagate_request_id_middleware(
            origins=[str(second.make_url("/").origin())]
        )

        async def session(app: web.Application) -> AsyncIterator[None]:
            async with aiohttp.ClientSession(middlewares=[propagate]) as client:
                app[CLIENT] = client
                yield

        async def asks(request: web.Request) -> web.Response:
            async with request.app[CLIENT].get(second.make_url("/")) as answer:
                return web.Response(text=await answer.text())

        app = app_of(request_id_middleware(), handler=asks)
        app.cleanup_ctx.append(session)
        async with (
            TestServer(app) as first,
            aiohttp.ClientSession() as visitor,
        ):
            headers = {NAME: GOOD}
            url = first.make_url("/")
            async with visitor.get(url, headers=headers) as answer:
                assert json.loads(await answer.text()) == GOOD


CLIENT = web.AppKey("client", aiohttp.ClientSession)


async def test_listed_twice_the_outer_one_counts(
    aiohttp_client: AiohttpClient,
) -> None:
    inner = app_of(request_id_middleware(generator=lambda: "inner"))
    app = web.Application(
        middlewares=[request_id_middleware(generator=lambda: "outer")]
    )
    app.add_subapp("/sub", inner)
    client = await aiohttp_client(app)
    response = await client.get("/sub/")
    assert await response.json() == "outer"
    assert response.headers.getall(NAME) == ["outer"]


# Bad input
# =========


@given(st.text())
def test_what_is_an_id_fits_a_line_of_a_log(text: str) -> None:
    if is_request_id(text):
        assert 1 <= len(text) <= 128
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"header": []}, ValueError),
        ({"header": "a b"}, ValueError),
        ({"header": 1}, TypeError),
        ({"header": [1]}, TypeError),
        ({"generator": "x"}, TypeError),
        ({"generator": slow}, TypeError),
        ({"validator": None}, TypeError),
        ({"validator": slow}, TypeError),
        ({"trusted": "127.0.0.1"}, TypeError),
        ({"trusted": ["nginx"]}, ValueError),
    ],
)
def test_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="request_id_middleware"):
        request_id_middleware(**options)


def test_wrong_default_of_the_filter_is_refused() -> None:
    with pytest.raises(TypeError, match="RequestIdFilter"):
        RequestIdFilter(default=None)  # type: ignore[arg-type]
