"""What the client sent wrong is a 400, what the handler did wrong a 500."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import BodyPartReader, web
from aiohttp.test_utils import make_mocked_request
from error_site import (
    LOGGER,
    SHIPPED,
    Failure,
    cloning,
    named,
    page,
)
from pytest_aiohttp import AiohttpClient
from raw import Head, head, raw

from aiohttp_middlewares import (
    body_limit_middleware,
    error_middleware,
    problem_error_handler,
)
from aiohttp_middlewares.annotations import Handler, Middleware

Read = Callable[[web.Request], Awaitable[Any]]


async def text(request: web.Request) -> None:
    await request.text()


async def as_json(request: web.Request) -> None:
    await request.json()


def refuses(text: str) -> Any:
    raise ValueError("not what the schema says")


async def parsed(request: web.Request) -> None:
    await request.json(loads=refuses)


async def post(request: web.Request) -> None:
    await request.post()


async def parts(request: web.Request) -> None:
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        assert isinstance(part, aiohttp.BodyPartReader)
        await part.text()


async def json_part(request: web.Request) -> None:
    part = await (await request.multipart()).next()
    assert isinstance(part, aiohttp.BodyPartReader)
    await part.json()


async def form_part(request: web.Request) -> None:
    part = await (await request.multipart()).next()
    assert isinstance(part, aiohttp.BodyPartReader)
    await part.form()


async def lines(request: web.Request) -> None:
    async for _ in request.content:
        pass


async def record(request: web.Request) -> None:
    await request.content.readexactly(4)


async def ranged(request: web.Request) -> None:
    _ = request.http_range


async def url(request: web.Request) -> None:
    _ = request.url


async def cookies(request: web.Request) -> None:
    _ = request.cookies


FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
PART = 'Content-Disposition: form-data; name="a"\r\n'


def body_of(fields: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n%b\r\n%b\r\n--b--\r\n" % (fields.encode(), content)


#: The reading, the type of the content, and the content.
WRONG: dict[str, tuple[Read, str, bytes]] = {
    "text is not UTF-8": (text, "text/plain", b"\xff"),
    "charset is unknown": (text, "text/plain; charset=nonsense", b"x"),
    "charset is no text's": (text, "text/plain; charset=hex", b"x"),
    "charset has a NUL": (text, "text/plain; charset=%00", b"x"),
    "JSON ends early": (as_json, "application/json", b"{"),
    "JSON is empty": (as_json, "application/json", b""),
    "JSON is not UTF-8": (as_json, "application/json", b'"\xff"'),
    "JSON is nested": (as_json, "application/json", b"[" * 200_000),
    "JSON has a long number": (as_json, "application/json", b"1" * 5_000),
    "JSON fits no schema": (parsed, "application/json", b"{}"),
    "form is not UTF-8": (post, FORM, b"a=\xff"),
    "form has an unknown charset": (post, f"{FORM}; charset=x", b"a=b"),
    "boundary is missing": (post, "multipart/form-data", b"x"),
    "boundary is long": (post, f"{MULTIPART}{'b' * 99}", body_of(PART)),
    "boundary never comes": (post, MULTIPART, b"x\r\n"),
    "boundary is another": (post, MULTIPART, b"--b\r\n\r\nx\r\n--c--"),
    "multipart is empty": (post, MULTIPART, b""),
    "part has no name": (post, MULTIPART, body_of("")),
    "part is not UTF-8": (post, MULTIPART, body_of(PART, b"\xff")),
    "part has an unknown charset": (
        *(post, MULTIPART),
        body_of(f"{PART}Content-Type: text/plain; charset=x\r\n"),
    ),
    "part is base64 of a kind": (
        *(post, MULTIPART),
        body_of(f"{PART}Content-Transfer-Encoding: base64\r\n", b"x"),
    ),
    "part is encoded unheard-of": (
        *(post, MULTIPART),
        body_of(f"{PART}Content-Transfer-Encoding: x\r\n"),
    ),
    "part has no header": (post, MULTIPART, body_of("nonsense\r\n")),
    "part is nested": (
        *(post, MULTIPART),
        body_of(f"{PART}Content-Type: multipart/mixed; boundary=c\r\n"),
    ),
    "no multipart at all": (parts, "text/plain", b"x"),
    "no type at all": (parts, "", b"x"),
    "parts without a boundary": (parts, MULTIPART, b"x"),
    "parts that are none": (parts, MULTIPART, b""),
    "part's text is not UTF-8": (parts, MULTIPART, body_of(PART, b"\xff")),
    "part's coding is none": (
        *(parts, "multipart/mixed; boundary=b"),
        body_of("Content-Encoding: gzip\r\n", b"no gzip at all"),
    ),
    "part's coding is unheard-of": (
        *(parts, "multipart/mixed; boundary=b"),
        body_of("Content-Encoding: x\r\n"),
    ),
    "part's JSON is none": (json_part, MULTIPART, body_of(PART, b"{")),
    "part's form is not UTF-8": (form_part, MULTIPART, body_of(PART, b"\xff")),
    "line is long": (lines, "text/plain", b"x" * (2**20 - 99)),
    "record ends early": (record, "text/plain", b"123"),
    "record is missing": (record, "text/plain", b""),
}


def reading(read: Read) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        await read(request)
        return web.Response()

    return handler


async def sent(
    aiohttp_client: AiohttpClient,
    read: Read,
    *middlewares: Middleware,
    kind: str = "",
    body: bytes | None = b"",
    fields: str = "Host: a\r\n",
) -> Head:
    if kind:
        fields += f"Content-Type: {kind}\r\n"
    if body is not None:
        fields += f"Content-Length: {len(body)}\r\n"
    client = await aiohttp_client(page(reading(read), *middlewares))
    start = f"POST / HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"
    return head(await raw(client.server, start.encode() + (body or b"")))


@pytest.mark.parametrize("wrong", WRONG)
async def test_body_that_cannot_be_read_is_a_400_and_no_error_in_the_log(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    read, kind, body = WRONG[wrong]
    caplog.set_level(logging.INFO, LOGGER)
    answer = await sent(
        aiohttp_client, read, error_middleware(), kind=kind, body=body
    )
    assert answer.status == 400
    assert json.loads(answer.rest)["detail"]
    records = [r for r in caplog.records if r.name != "aiohttp.access"]
    assert [(r.name, r.levelname) for r in records] == [(LOGGER, "INFO")]
    assert records[0].exc_info is None


@pytest.mark.parametrize("read", [parts, json_part])
async def test_body_that_is_not_there_cannot_be_read_either(
    aiohttp_client: AiohttpClient, read: Read
) -> None:
    answer = await sent(
        aiohttp_client, read, error_middleware(), kind=MULTIPART, body=None
    )
    assert answer.status == 400


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (ranged, "Host: a\r\nRange: bytes=9-1\r\n"),
        (ranged, "Host: a\r\nRange: lines=1-\r\n"),
        (ranged, "Host: a\r\nRange: bytes=-\r\n"),
        (url, "Host: a:b:c\r\n"),
    ],
)
async def test_field_that_cannot_be_read_is_a_400_too(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    read: Read,
    fields: str,
) -> None:
    answer = await sent(aiohttp_client, read, error_middleware(), fields=fields)
    assert answer.status == 400
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        # On older versions of aiohttp, of which the ones fail and others not.
        (cookies, "Host: a\r\nCookie: a(b)=1\r\n"),
        (post, "Host: a\r\nContent-Type: ;utf-8*\r\n"),
    ],
)
async def test_no_field_makes_a_500(
    aiohttp_client: AiohttpClient, read: Read, fields: str
) -> None:
    answer = await sent(aiohttp_client, read, error_middleware(), fields=fields)
    assert answer.status in (200, 400)


@pytest.mark.parametrize("handler", SHIPPED)
@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda: [], id="alone"),
        pytest.param(lambda: [cloning], id="cloned"),
        pytest.param(lambda: [body_limit_middleware(2**21)], id="limited"),
    ],
)
@pytest.mark.parametrize("read", [as_json, json_part])
async def test_shipped_handlers_agree_whoever_stands_inside(
    aiohttp_client: AiohttpClient,
    handler: Handler,
    around: Callable[[], list[Middleware]],
    read: Read,
) -> None:
    errors = error_middleware(default_handler=handler)
    _, kind, body = WRONG["part's JSON is none"]
    answer = await sent(
        aiohttp_client, read, errors, *around(), kind=kind, body=body
    )
    assert answer.status == 400
    assert b"line 1 column" in answer.rest


@pytest.mark.parametrize(
    "key", [json.JSONDecodeError, ValueError, 400, "/"], ids=str
)
async def test_config_may_take_it(
    aiohttp_client: AiohttpClient, key: Any
) -> None:
    answer = await sent(
        aiohttp_client,
        as_json,
        error_middleware(config={500: named("500"), key: named("mine")}),
    )
    assert (answer.status, answer.rest) == (400, b"mine")


async def test_error_of_the_parser_has_the_status_it_says(
    aiohttp_client: AiohttpClient,
) -> None:
    def loads(text: str) -> Any:
        raise Failure("fits no schema", status=422)

    async def read(request: web.Request) -> None:
        await request.json(loads=loads)

    answer = await sent(aiohttp_client, read, error_middleware())
    assert answer.status == 422


async def own_json(request: web.Request) -> None:
    json.loads(await request.text() + "{")


async def own_codec(request: web.Request) -> None:
    (await request.read()).decode("nonsense")


async def missing_key(request: web.Request) -> None:
    _ = request["user"]


async def failing_parser(request: web.Request) -> None:
    def loads(text: str) -> Any:
        return dict[str, Any]()["no such key"]

    await request.json(loads=loads)


async def wrong_parser(request: web.Request) -> None:
    await request.json(loads=None)  # type: ignore[arg-type]


async def wrong_clone(request: web.Request) -> None:
    request.clone(method="A", rel_url=5)  # type: ignore[arg-type]


async def another_request(request: web.Request) -> None:
    _ = make_mocked_request("GET", "/", {"Range": "nonsense"}).http_range


async def other_parts(request: web.Request) -> None:
    content = aiohttp.StreamReader(request.protocol, 2**16)
    content.feed_data(b"nonsense")
    content.feed_eof()
    await aiohttp.MultipartReader({"Content-Type": MULTIPART}, content).next()


async def memory(request: web.Request) -> None:
    def loads(text: str) -> Any:
        raise MemoryError

    await request.json(loads=loads)


@pytest.mark.parametrize(
    "read",
    [
        own_json,
        own_codec,
        missing_key,
        failing_parser,
        wrong_parser,
        wrong_clone,
        another_request,
        other_parts,
        memory,
    ],
)
async def test_what_the_handler_did_wrong_stays_a_500(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    read: Read,
) -> None:
    answer = await sent(
        aiohttp_client, read, error_middleware(), kind="text/plain", body=b"x"
    )
    assert answer.status == 500
    (record,) = [r for r in caplog.records if r.name == LOGGER]
    assert record.levelname == "ERROR"


async def test_failed_answer_of_an_upstream_is_not_the_visitors(
    aiohttp_client: AiohttpClient,
) -> None:
    async def upstream(request: web.Request) -> web.StreamResponse:
        return web.Response(text="{")

    other = await aiohttp_client(page(upstream))

    async def read(request: web.Request) -> None:
        answer = await other.get("/")
        await answer.json(content_type=None)

    answer = await sent(aiohttp_client, read, error_middleware())
    assert answer.status == 500


async def test_empty_answer_of_an_upstream_is_not_the_visitors(
    aiohttp_client: AiohttpClient,
) -> None:
    # aiohttp has one object for all bodies that are not there.
    async def parts(request: web.Request) -> None:
        headers = {"Content-Type": MULTIPART}
        await aiohttp.MultipartReader(headers, request.content).next()

    for read in (parts, record):
        errors = error_middleware()
        answer = await sent(aiohttp_client, read, errors, body=None)
        assert answer.status == 500


async def test_two_that_read_at_once_are_the_handlers_fault() -> None:
    content = aiohttp.StreamReader(Mock(), 2**16)

    async def handler(request: web.Request) -> web.StreamResponse:
        first = asyncio.ensure_future(request.content.readline())
        await asyncio.sleep(0)
        try:
            await request.content.readline()
        finally:
            first.cancel()
        return web.Response()

    answer = await error_middleware()(
        make_mocked_request("POST", "/", payload=content), handler
    )
    assert answer.status == 500


async def test_error_with_a_long_traceback_is_looked_through(
    aiohttp_client: AiohttpClient,
) -> None:
    def deep(number: int) -> None:
        if not number:
            raise ValueError("at the bottom")
        deep(number - 1)

    async def read(request: web.Request) -> None:
        deep(500)

    answer = await sent(aiohttp_client, read, error_middleware())
    assert answer.status == 500


async def test_problem_tells_what_was_wrong_with_the_body(
    aiohttp_client: AiohttpClient,
) -> None:
    answer = await sent(
        aiohttp_client,
        as_json,
        error_middleware(default_handler=problem_error_handler),
        body=b"{",
    )
    problem = json.loads(answer.rest)
    assert problem["title"] == "Bad Request"
    assert problem["detail"].startswith("Expecting property name")


async def read_then_post(request: web.Request) -> None:
    await request.read()
    await request.post()


async def read_then_parts(request: web.Request) -> None:
    await request.read()
    await (await request.multipart()).next()


async def drain_then_json(request: web.Request) -> None:
    await request.content.read()
    await request.json()


async def part_in_a_charset_of_its_own(request: web.Request) -> None:
    part = await (await request.multipart()).next()
    assert isinstance(part, BodyPartReader)
    await part.text(encoding="utf8x")


@pytest.mark.parametrize(
    ("read", "kind", "body"),
    [
        (read_then_post, MULTIPART, body_of(PART, b"good")),
        (read_then_parts, MULTIPART, body_of(PART, b"good")),
        (drain_then_json, "application/json", b"{}"),
        (part_in_a_charset_of_its_own, MULTIPART, body_of(PART, b"good")),
    ],
)
async def test_handler_that_reads_wrongly_what_was_good_is_a_500(
    aiohttp_client: AiohttpClient, read: Read, kind: str, body: bytes
) -> None:
    answer = await sent(
        aiohttp_client, read, error_middleware(), kind=kind, body=body
    )
    assert answer.status == 500
