"""What is asked for twice is done once."""

import asyncio
import gc
import importlib
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import answers
import pytest
from aiohttp import ClientSession, FormData, UnixConnector, web
from aiohttp.test_utils import TestClient, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from live import Connection, Live, complaints, eventually, live, soon
from multidict import istr
from pytest_aiohttp.plugin import AiohttpClient
from raw import Head
from redis.asyncio import Redis

from aiohttp_middlewares import (
    MemoryStore,
    RedisStore,
    basic_auth_middleware,
    body_limit_middleware,
    compression_middleware,
    error_middleware,
    idempotency_middleware,
    problem_error_handler,
    proxy_headers_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.who import set_user
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.idempotency import _answer, _body, _key_of

Client = TestClient[web.Request, web.Application]
KEY = {"Idempotency-Key": "8e03978e"}


class Site:
    """One handler for all, which counts how often it is called."""

    def __init__(self, aiohttp_client: AiohttpClient) -> None:
        self.aiohttp_client = aiohttp_client
        self.calls = 0
        self.handler: Handler = hello

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        return await self.handler(request)

    def app(self, handler: Handler, *middlewares: Middleware) -> Any:
        self.handler = handler
        app = web.Application(
            middlewares=middlewares or [idempotency_middleware()]
        )
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def serve(self, handler: Handler, *middlewares: Middleware) -> Client:
        client: Client = await self.aiohttp_client(
            self.app(handler, *middlewares)
        )
        return client


@pytest.fixture
def site(aiohttp_client: AiohttpClient) -> Site:
    return Site(aiohttp_client)


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


class Got:
    """An answer as it came over the wire, but for the time."""

    def __init__(self, response: Any, body: bytes) -> None:
        self.status = response.status
        self.reason = response.reason
        self.body = body
        self.headers = [
            (name, value)
            for name, value in response.headers.items()
            if name not in ("Date", "Idempotent-Replayed")
        ]
        self.replayed = response.headers.getall("Idempotent-Replayed", [])
        self.all = response.headers

    @property
    def shown(self) -> tuple[Any, ...]:
        return self.status, self.reason, sorted(self.headers), self.body


async def ask(
    client: Client, path: str = "/", method: str = "POST", **options: Any
) -> Got:
    options.setdefault("headers", KEY)
    options.setdefault("allow_redirects", False)
    client.session.cookie_jar.clear()
    async with client.request(
        method, path, auto_decompress=False, **options
    ) as response:
        return Got(response, await response.read())


# What it does
# ============


class Teapot(web.HTTPClientError):
    status_code = 418
    default_reason = "I am a teapot"


class Sold(web.HTTPGone):
    message = "It is sold"

    def __init__(self) -> None:
        super().__init__(text="sold")
        self.data: Any = {"next": [7, None]}


class Odd(web.HTTPNotFound):
    def __init__(self) -> None:
        super().__init__(text="odd")
        self.data = object()


async def returned(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"paid": 7}, status=201, headers={"Location": "/payments/1", "X": "é"}
    )


async def doubled(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=b"\x00\xff", reason="Fine")
    response.headers.add("Link", "</a>")
    response.headers.add("Link", "</b>")
    return response


async def nothing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def bare(request: web.Request) -> web.StreamResponse:
    return web.Response()


async def refused(request: web.Request) -> web.StreamResponse:
    return web.json_response({"detail": "no"}, status=422)


def raises(make: Callable[[], Exception]) -> Handler:
    async def raiser(request: web.Request) -> web.StreamResponse:
        raise make()

    return raiser


def gone() -> web.HTTPGone:
    return web.HTTPGone(
        text="gone", headers={"X-Seen": "yes"}, reason="Went away"
    )


def as_json() -> web.HTTPGone:
    return web.HTTPGone(text='{"a": 1}', content_type="application/json")


GOOD: dict[str, Handler] = {
    "returned": returned,
    "doubled": doubled,
    "nothing": nothing,
    "bare": bare,
    "refused": refused,
    "gone": raises(gone),
    "json": raises(as_json),
    "no text": raises(web.HTTPNotFound),
    "no content": raises(web.HTTPNoContent),
    "created": raises(lambda: web.HTTPCreated(text="made")),
    "redirect": raises(lambda: web.HTTPSeeOther("/payments/1")),
    "method": raises(lambda: web.HTTPMethodNotAllowed("POST", ["GET"])),
    "teapot": raises(lambda: Teapot(text="short and stout")),
    "data": raises(Sold),
    "odd data": raises(Odd),
    "legal": raises(
        lambda: web.HTTPUnavailableForLegalReasons("https://a.example/")
    ),
}
OUTSIDE: dict[str, Callable[[], list[Middleware]]] = {
    "alone": list,
    "error": lambda: [error_middleware()],
    "problem": lambda: [
        error_middleware(default_handler=problem_error_handler)
    ],
    "classes": lambda: [error_middleware(config={web.HTTPGone: page})],
    "compression": lambda: [compression_middleware(minimum_size=0)],
}


async def page(request: web.Request) -> web.Response:
    return web.Response(status=410, text="a page for what is gone")


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("kind", GOOD)
async def test_second_request_gets_the_first_answer(
    site: Site, kind: str, outside: str
) -> None:
    client = await site.serve(
        GOOD[kind], *OUTSIDE[outside](), idempotency_middleware()
    )
    first = await ask(client)
    assert first.replayed == []
    assert first.status < 500
    for _ in range(2):
        again = await ask(client)
        assert again.replayed == ["true"]
        assert again.shown == first.shown
    assert site.calls == 1


async def test_raised_redirect_knows_where_to_when_it_is_raised_again(
    site: Site,
) -> None:
    seen = []

    @web.middleware
    async def looks(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPSeeOther as exc:
            seen.append(str(exc.location))
            raise

    client = await site.serve(GOOD["redirect"], looks, idempotency_middleware())
    for _ in range(2):
        await ask(client)
    assert (seen, site.calls) == (["/payments/1"] * 2, 1)


@pytest.mark.parametrize("force", [None, web.ContentCoding.deflate])
async def test_answer_that_aiohttp_compresses_is_compressed_again(
    site: Site, force: web.ContentCoding | None
) -> None:
    async def compressed(request: web.Request) -> web.StreamResponse:
        response = web.Response(text="compressed" * 100)
        response.enable_compression(force)
        return response

    client = await site.serve(compressed)
    headers = {**KEY, "Accept-Encoding": "gzip"}
    first = await ask(client, headers=headers)
    again = await ask(client, headers=headers)
    assert first.all["Content-Encoding"] in ("gzip", "deflate")
    assert again.shown == first.shown
    assert site.calls == 1


async def test_cookies_and_what_is_for_one_connection_are_not_given_again(
    site: Site,
) -> None:
    async def sets(request: web.Request) -> web.StreamResponse:
        response = web.Response(
            headers={
                "Connection": "close, X-Hop",
                "X-Hop": "1",
                "Keep-Alive": "timeout=5",
                "Upgrade": "h2c",
                "X-Stays": "1",
            }
        )
        response.set_cookie("a", "b")
        response.headers.add("Set-Cookie", "c=d")
        return response

    client = await site.serve(sets)
    first, again = await ask(client), await ask(client)
    assert first.all.getall("Set-Cookie") == ["c=d", "a=b; Path=/"]
    assert again.all["X-Stays"] == "1"
    for name in ("Set-Cookie", "Connection", "X-Hop", "Keep-Alive", "Upgrade"):
        assert name in first.all
        assert name not in again.all


async def test_session_that_changed_is_not_given_again(site: Site) -> None:
    aiohttp_session = pytest.importorskip("aiohttp_session")

    async def login(request: web.Request) -> web.StreamResponse:
        (await aiohttp_session.get_session(request))["user"] = "zoe"
        return web.Response(text="hello")

    client = await site.serve(
        login, session_middleware("0" * 32), idempotency_middleware()
    )
    first, again = await ask(client), await ask(client)
    assert "Set-Cookie" in first.all
    assert "Set-Cookie" not in again.all
    assert (again.body, site.calls) == (b"hello", 1)


async def test_request_that_comes_meanwhile_is_told_to_come_again(
    site: Site,
) -> None:
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        going.set()
        await go_on.wait()
        return web.Response(text="done")

    client = await site.serve(slow)
    first = asyncio.create_task(ask(client))
    await soon(going.wait())
    meanwhile = await ask(client)
    assert (meanwhile.status, meanwhile.replayed) == (409, [])
    assert meanwhile.all["Retry-After"] == "1"
    assert meanwhile.all["Cache-Control"] == "no-store"
    # Another request is wrong, however far the first is.
    assert (await ask(client, data=b"other")).status == 422
    go_on.set()
    assert (await first).status == 200
    assert (await ask(client)).replayed == ["true"]
    assert site.calls == 1


async def test_fifty_at_once_are_handled_once(site: Site) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0)
        return web.Response(text=str(site.calls))

    client = await site.serve(slow)
    got = await asyncio.gather(*(ask(client, data=b"x") for _ in range(50)))
    assert site.calls == 1
    assert {one.status for one in got} <= {200, 409}
    assert sum(one.status == 200 and not one.replayed for one in got) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/pay?a=2"},
        {"path": "/pay/?a=1"},
        {"path": "/other?a=1"},
        {"method": "PATCH"},
        {"data": b"bodi"},
        {"data": b"bod"},
        {"data": None},
    ],
    ids=str,
)
async def test_key_that_was_used_for_another_request_is_refused(
    site: Site, other: dict[str, Any]
) -> None:
    client = await site.serve(hello)
    same: dict[str, Any] = {"path": "/pay?a=1", "data": b"body"}
    assert (await ask(client, **same)).status == 200
    got = await ask(client, **{**same, **other})
    assert (got.status, got.replayed) == (422, [])
    assert got.all["Cache-Control"] == "no-store"
    assert "Retry-After" not in got.all
    assert (await ask(client, **same)).replayed == ["true"]
    assert site.calls == 1


async def test_query_and_body_cannot_be_taken_for_each_other(
    site: Site,
) -> None:
    client = await site.serve(hello)
    assert (await ask(client, "/?a", data=b"b")).status == 200
    assert (await ask(client, "/?", data=b"ab")).status == 422
    assert (await ask(client, "/?ab")).status == 422


# Keys
# ====

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))


def quoted(key: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'


def read(*lines: str) -> str:
    request = make_mocked_request(
        "POST", "/", headers=[("Idempotency-Key", line) for line in lines]
    )
    return _key_of(request, istr("Idempotency-Key"))


@given(st.text(VISIBLE, min_size=1, max_size=255))
def test_quoted_and_bare_keys_are_the_same(key: str) -> None:
    assert read(quoted(key)) == key
    if '"' not in key:
        assert read(key) == key


@given(st.text(min_size=1))
def test_whatever_is_sent_is_a_good_key_or_a_bad_request(line: str) -> None:
    try:
        key = read(line)
    except web.HTTPBadRequest:
        pass
    else:
        assert 1 <= len(key) <= 255
        assert set(key) <= set(VISIBLE)


async def test_quotes_do_not_make_another_key(site: Site) -> None:
    client = await site.serve(hello)
    for line in ("abc", '"abc"', '  "abc"  ', r"a\b", r'"a\\b"'):
        got = await ask(client, headers={"Idempotency-Key": line})
        assert got.status == 200
    assert site.calls == 2


@pytest.mark.parametrize(
    "lines",
    [
        [""],
        ['""'],
        ['"'],
        ['"abc'],
        ['abc"'],
        ['"a"b"'],
        [r'"a\b"'],
        ['"abc\\"'],
        ["a b"],
        ['"a b"'],
        ["a\tb"],
        ["ä"],
        ["\udc80"],
        ['"abc";x=1'],
        ["x" * 256],
        [quoted("x" * 256)],
        ["abc", "abc"],
        ["", "abc"],
    ],
    ids=repr,
)
async def test_malformed_key_is_a_bad_request(
    site: Site, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = site.app(hello)
    async with live(app) as server:
        client = await server.connect()
        fields = "".join(f"Idempotency-Key: {line}\r\n" for line in lines)
        client.writer.write(
            b"POST / HTTP/1.1\r\nHost: a.example\r\n"
            + fields.encode("utf-8", "surrogateescape")
            + b"\r\n"
        )
        answer = await client.answer()
        client.leave()
    assert answer.status == 400
    assert answer.headers["Cache-Control"] == "no-store"
    assert site.calls == 0
    for record in caplog.records:
        if record.name != "aiohttp.access":
            assert lines[-1] == "" or lines[-1] not in record.getMessage()


@pytest.mark.parametrize("key", ["x" * 255, '"' + r"\"" * 255 + '"'])
async def test_longest_key_is_good(site: Site, key: str) -> None:
    client = await site.serve(hello)
    assert (await ask(client, headers={"Idempotency-Key": key})).status == 200


async def test_missing_key_is_refused_where_it_is_required(site: Site) -> None:
    client = await site.serve(
        hello,
        idempotency_middleware(required=True, ignore=["/free"]),
    )
    got = await ask(client, headers={})
    assert (got.status, got.body) == (400, b"Idempotency-Key is missing")
    assert (await ask(client, "/free", headers={})).status == 200
    assert (await ask(client, method="GET", headers={})).status == 200
    assert (await ask(client)).status == 200
    assert site.calls == 3


async def test_header_can_have_another_name(site: Site) -> None:
    client = await site.serve(
        hello, idempotency_middleware(header="X-Once", required=True)
    )
    got = await ask(client)
    assert (got.status, got.body) == (400, b"X-Once is missing")
    for replayed in ([], ["true"]):
        got = await ask(client, headers={"x-once": "a"})
        assert got.replayed == replayed


# Whose they are
# ==============


@web.middleware
async def knows(request: web.Request, handler: Handler) -> web.StreamResponse:
    if "X-User" in request.headers:
        set_user(request, request.headers["X-User"])
    remote = request.headers.get("X-From", "192.0.2.99")
    return await handler(request.clone(remote=remote))


async def test_nobody_gets_the_answer_of_another(site: Site) -> None:
    async def who(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(site.calls))

    client = await site.serve(who, knows, idempotency_middleware())
    askers: list[dict[str, str]] = [
        {"X-User": "zoe", "X-From": "192.0.2.1"},
        {"X-User": "ben", "X-From": "192.0.2.1"},
        {"X-User": "192.0.2.1", "X-From": "192.0.2.1"},
        {"X-User": "address 192.0.2.1", "X-From": "192.0.2.1"},
        {"X-From": "192.0.2.1"},
        {"X-From": "192.0.2.2"},
    ]
    for number, asker in enumerate(askers, 1):
        got = await ask(client, headers={**KEY, **asker})
        assert (got.body, got.replayed) == (str(number).encode(), [])
    # A user may come from anywhere.
    moved = {"X-User": "zoe", "X-From": "192.0.2.9"}
    got = await ask(client, headers={**KEY, **moved})
    assert (got.body, got.replayed) == (b"1", ["true"])


async def test_user_of_basic_auth_is_who_asks(site: Site) -> None:
    client = await site.serve(
        hello,
        basic_auth_middleware({"a": "1", "b": "2"}),
        idempotency_middleware(),
    )
    for login in ("YTox", "YToy", "Yjoy", "YTox"):
        headers = {**KEY, "Authorization": f"Basic {login}"}
        await ask(client, headers=headers)
    assert site.calls == 2


async def test_clients_on_a_unix_socket_share_keys_and_the_log_says_so(
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []  # by the package it is said once
    module = importlib.import_module("aiohttp_middlewares.idempotency")
    monkeypatch.setattr(module, "_warn_of_nobody", lambda: said.append("it"))
    path = str(tmp_path_factory.mktemp("u") / "s")
    runner = web.AppRunner(site.app(hello))
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        async with ClientSession(connector=UnixConnector(path)) as session:
            for _ in range(2):
                async with session.post("http://a/", headers=KEY) as response:
                    assert response.status == 200
    finally:
        await runner.cleanup()
    assert said == ["it", "it"]
    assert site.calls == 1


def of_a_proxy() -> Middleware:
    return proxy_headers_middleware(trusted=["127.0.0.1"])


@pytest.mark.parametrize(
    ("inside", "name", "values"),
    [
        (
            lambda: basic_auth_middleware({"a": "1", "b": "2"}),
            "Authorization",
            ["Basic YTox", "Basic Yjoy"],
        ),
        (of_a_proxy, "X-Forwarded-For", ["192.0.2.1", "192.0.2.2"]),
    ],
    ids=["user", "address"],
)
@pytest.mark.parametrize("answers", [hello, raises(web.HTTPNotFound)])
async def test_answer_for_whom_the_key_does_not_know_is_given_to_nobody(
    site: Site,
    caplog: pytest.LogCaptureFixture,
    inside: Callable[[], Middleware],
    name: str,
    values: list[str],
    answers: Handler,
) -> None:
    """Who asks is found out further in, such as in a sub-application."""
    client = await site.serve(answers, idempotency_middleware(), inside())
    asked = [{**KEY, name: value} for value in values]
    first = await ask(client, headers=asked[0])
    assert first.status in (200, 404)
    for headers in (*asked, KEY):
        got = await ask(client, headers=headers)
        assert (got.status, got.replayed) == (409, [])
    assert site.calls == 1
    (warning,) = (r for r in caplog.records if r.levelno == logging.WARNING)
    assert "move it inside of what finds that out" in warning.getMessage()


async def test_who_asks_by_a_scope_of_ones_own_may_be_found_out_later(
    site: Site,
) -> None:
    client = await site.serve(
        hello,
        idempotency_middleware(scope=lambda request: "the only one"),
        basic_auth_middleware({"a": "1"}),
    )
    headers = {**KEY, "Authorization": "Basic YTox"}
    assert (await ask(client, headers=headers)).replayed == []
    assert (await ask(client, headers=headers)).replayed == ["true"]


async def test_scope_says_whose_key_it_is(site: Site) -> None:
    client = await site.serve(
        hello,
        idempotency_middleware(
            scope=lambda request: request.headers["X-Tenant"]
        ),
    )
    # Scope and key, of which the texts together are the same.
    for tenant, key in (("a", "bc"), ("ab", "c"), ("a:bc", "1"), ("a", "bc:1")):
        headers = {"X-Tenant": tenant, "Idempotency-Key": key}
        got = await ask(client, headers=headers)
        assert (got.status, got.replayed) == (200, [])
    assert site.calls == 4


async def test_scope_may_have_to_ask_somebody(site: Site) -> None:
    async def tenant(request: web.Request) -> str:
        await asyncio.sleep(0)
        if "X-Tenant" not in request.headers:
            raise web.HTTPUnauthorized(text="who are you?")
        return request.headers["X-Tenant"]

    client = await site.serve(hello, idempotency_middleware(scope=tenant))
    for name in "aba":
        got = await ask(client, headers={**KEY, "X-Tenant": name})
        assert got.status == 200
    assert site.calls == 2
    assert (await ask(client)).status == 401


async def test_scope_that_is_no_string_is_an_error(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    client = await site.serve(
        hello,
        idempotency_middleware(scope=lambda request: None),  # type: ignore[arg-type,return-value]
    )
    assert (await ask(client)).status == 500
    assert "scope should return a string" in caplog.text
    assert site.calls == 0


# Bodies
# ======

LARGE = b"".join(b"%07d\n" % number for number in range(64 * 1024))


async def by_read(request: web.Request) -> bytes:
    return await request.read()


async def by_text(request: web.Request) -> bytes:
    return (await request.text()).encode()


async def by_reading_twice(request: web.Request) -> bytes:
    assert await request.read() == await request.read()
    return await request.read()


async def by_chunks(request: web.Request) -> bytes:
    return b"".join([part async for part in request.content.iter_chunked(999)])


async def by_any(request: web.Request) -> bytes:
    return b"".join([part async for part in request.content.iter_any()])


async def by_http_chunks(request: web.Request) -> bytes:
    return b"".join([part async for part, _ in request.content.iter_chunks()])


async def by_lines(request: web.Request) -> bytes:
    return b"".join([line async for line in request.content])


async def by_whole_stream(request: web.Request) -> bytes:
    return await request.content.read()


async def exactly(request: web.Request) -> bytes:
    found = await request.content.readexactly(100)
    return found + await request.read()


async def at_once(request: web.Request) -> bytes:
    return request.content.read_nowait()


async def of_a_clone(request: web.Request) -> bytes:
    return await request.clone(client_max_size=0).read()


READERS: list[Callable[[web.Request], Awaitable[bytes]]] = [
    by_read,
    by_text,
    by_reading_twice,
    by_chunks,
    by_any,
    by_http_chunks,
    by_lines,
    by_whole_stream,
    exactly,
    at_once,
    of_a_clone,
]


async def parts(data: bytes) -> AsyncIterator[bytes]:
    """Sent in chunks of HTTP."""
    for start in range(0, len(data), 10_000):
        yield data[start : start + 10_000]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1000, len(LARGE)])
@pytest.mark.parametrize("reader", READERS)
async def test_handler_reads_its_body_in_any_way(
    site: Site,
    reader: Callable[[web.Request], Awaitable[bytes]],
    size: int,
    chunked: bool,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.body_exists
        assert request.can_read_body
        found = await reader(request)
        assert request.content.at_eof()
        return web.Response(body=found)

    client = await site.serve(
        handler,
        body_limit_middleware(2**20),  # as aiohttp 3.12 refuses just as much
        idempotency_middleware(),
    )
    body = LARGE[:size]
    for replayed in ([], ["true"]):
        got = await ask(client, data=parts(body) if chunked else body)
        assert (got.status, got.replayed) == (200, replayed)
        assert got.body == body
    changed = body[:-1] + b"!"
    got = await ask(client, data=parts(changed) if chunked else changed)
    assert (got.status, site.calls) == (422, 1)


async def test_handler_that_reads_nothing_has_its_body_compared(
    site: Site,
) -> None:
    client = await site.serve(hello)
    assert (await ask(client, data=b"a")).status == 200
    assert (await ask(client, data=b"b")).status == 422
    assert (await ask(client, data=b"a")).status == 200
    # And the connection goes on.
    assert (await ask(client, "/x", headers={}, data=b"a")).status == 200
    assert site.calls == 2


def form() -> FormData:
    form = FormData()
    form.add_field("name", "value")
    form.add_field("file", b"x" * 300_000, filename="a.bin")
    return form


async def test_files_of_a_form_are_read_and_closed(site: Site) -> None:
    files = []

    async def handler(request: web.Request) -> web.StreamResponse:
        sent = await request.post()
        files.append(sent["file"].file)  # type: ignore[union-attr]
        size = len(files[0].read())
        return web.Response(text=f"{sent['name']!s} {size}")

    client = await site.serve(handler)
    assert (await ask(client, data=form())).body == b"value 300000"
    await eventually(lambda: files[0].closed)


async def test_parts_of_a_form_are_read_one_by_one(site: Site) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        sizes = []
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            sizes.append(len(await part.read()))  # type: ignore[union-attr]
        return web.json_response(sizes)

    client = await site.serve(handler)
    assert (await ask(client, data=form())).body == b"[5, 300000]"


async def test_compressed_body_counts_as_what_it_holds(site: Site) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(len(await request.content.read())))

    client = await site.serve(handler, idempotency_middleware(max_body=50_000))
    data = b"x" * 50_000
    got = await ask(client, data=data, compress="gzip")
    assert got.body == b"50000"
    got = await ask(client, data=data + b"x", compress="gzip")
    assert got.status == 413


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1000, 1001, 900_000])
async def test_body_beyond_the_limit_is_refused(
    site: Site, size: int, chunked: bool
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(len(await request.read())))

    client = await site.serve(handler, idempotency_middleware(max_body=1000))
    data = b"x" * size
    got = await ask(client, data=parts(data) if chunked else data)
    if size > 1000:
        assert (got.status, site.calls) == (413, 0)
        assert got.body == b"The body is larger than 1000 bytes"
        assert got.all["Cache-Control"] == "no-store"
        # The key is as free as before.
        assert (await ask(client, data=b"x")).body == b"1"
    else:
        assert got.body == b"1000"


async def test_body_that_is_announced_as_too_large_is_not_waited_for(
    site: Site,
) -> None:
    app = site.app(hello, idempotency_middleware(max_body=10))
    async with live(app, lingering_time=0.01) as server:
        client = await server.connect()
        client.send("POST /", length=11, fields="Idempotency-Key: a\r\n")
        assert (await client.answer()).status == 413
        client.leave()


async def test_body_that_cannot_be_read_is_a_bad_request(site: Site) -> None:
    async with live(site.app(hello)) as server:
        for coding, status in (("gzip", 400), ("identity", 200)):
            client = await server.connect()
            fields = f"Idempotency-Key: a\r\nContent-Encoding: {coding}\r\n"
            client.send("POST /", b"no gzip", fields=fields)
            assert (await client.answer()).status == status
            client.leave()
    assert site.calls == 1


async def test_limits_of_others_hold_as_before(site: Site) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(len(await request.read())))

    app = site.app(handler, idempotency_middleware(max_body=10**6))
    app._client_max_size = 1000
    client: Client = await site.aiohttp_client(app)
    assert (await ask(client, data=b"x" * 2000)).status == 413
    assert site.calls == 1

    outside = await site.serve(
        handler, body_limit_middleware(1000), idempotency_middleware()
    )
    assert (await ask(outside, data=parts(b"x" * 2000))).status == 413
    assert site.calls == 1


async def test_body_that_was_read_outside_is_compared_all_the_same(
    site: Site,
) -> None:
    @web.middleware
    async def reads(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await request.read()
        return await handler(request)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    client = await site.serve(
        handler, reads, idempotency_middleware(max_body=100)
    )
    assert (await ask(client, data=b"a")).body == b"a"
    assert (await ask(client, data=b"b")).status == 422
    assert (await ask(client, data=parts(b"a" * 101))).status == 413
    assert (await ask(client, data=b"a")).replayed == ["true"]


async def test_body_that_nobody_can_read_any_more_is_told_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @web.middleware
    async def reads(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await request.content.read()
        return await handler(request)

    client = await site.serve(hello, reads, idempotency_middleware())
    for _ in range(2):
        assert (await ask(client, data=b"a")).status == 200
    texts = [record.getMessage() for record in caplog.records]
    assert [text[:26] for text in texts if "idempotency" in text] == [
        "Two bodies look the same t"
    ]


async def test_of_two_uploads_the_one_that_ends_first_is_handled(
    site: Site,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    fields = "Idempotency-Key: a\r\n"
    async with live(site.app(handler)) as server:
        slow, quick = await server.connect(), await server.connect()
        slow.send("POST /", b"bo", length=4, fields=fields)
        quick.send("POST /", b"body", fields=fields)
        assert (await quick.answer()).rest == b"body"
        slow.writer.write(b"dy")
        answer = await slow.answer()
        assert answer.rest == b"body"
        assert answer.headers["Idempotent-Replayed"] == "true"
        slow.leave()
        quick.leave()
    assert site.calls == 1


async def test_upload_that_breaks_off_does_nothing(site: Site) -> None:
    fields = "Idempotency-Key: a\r\n"
    async with live(site.app(hello)) as server:
        client = await server.connect()
        client.send("POST /", b"bo", length=4, fields=fields)
        await eventually(server.connections)
        client.reset()
        await eventually(lambda: not server.connections())
        client = await server.connect()
        client.send("POST /", b"body", fields=fields)
        answer = await client.answer()
        assert "Idempotent-Replayed" not in answer.headers
        client.leave()
    assert site.calls == 1


def test_body_is_put_back_in_pieces() -> None:
    """aiohttp unreads what follows a part, and copies what is behind it."""
    content: Any = SimpleNamespace(_buffer=[], _size=0, _cursor=10**6)
    _body._put_back(content, b"x" * 10**6)
    assert b"".join(content._buffer) == b"x" * 10**6
    assert max(map(len, content._buffer)) <= 64 * 1024
    assert (content._size, content._cursor) == (10**6, 0)


# Answers that are not kept
# =========================


@pytest.mark.parametrize("way", ["returned", "raised"])
@pytest.mark.parametrize(
    "status", [401, 403, 408, 409, 425, 429, 500, 502, 503, 504]
)
async def test_answer_that_may_be_another_the_next_time_frees_the_key(
    site: Site, status: int, way: str
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if site.calls > 1:
            return web.Response(text="at last")
        if way == "raised" and status in _answer._CLASSES:
            raise _answer._class_of(status)(text="not yet")
        return web.Response(status=status)

    client = await site.serve(handler)
    assert (await ask(client)).status == status
    # Another body is another request, and the key is free.
    got = await ask(client, data=b"x")
    assert (got.status, got.body, got.replayed) == (200, b"at last", [])
    assert (await ask(client, data=b"x")).replayed == ["true"]
    assert site.calls == 2


@pytest.mark.parametrize("error", [ValueError, asyncio.TimeoutError])
@pytest.mark.parametrize("outside", [[], [error_middleware]])
async def test_exception_frees_the_key(
    site: Site, error: type[Exception], outside: list[Any]
) -> None:
    client = await site.serve(
        raises(error), *(make() for make in outside), idempotency_middleware()
    )
    assert (await ask(client)).status >= 500
    assert (await ask(client)).status >= 500
    assert site.calls == 2


async def test_what_is_no_response_frees_the_key(site: Site) -> None:
    client = await site.serve(answers.none)
    assert (await ask(client)).status == 500
    assert (await ask(client)).status == 500
    assert site.calls == 2


async def large(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * 1001)


async def lazy(request: web.Request) -> web.StreamResponse:
    return web.Response(body=parts(b"lazy"))


@pytest.mark.parametrize(
    "handler",
    [
        answers.streamed,
        answers.streamed_with_length,
        answers.events,
        answers.file,
        answers.prepared,
        answers.sent,
        large,
        lazy,
    ],
)
async def test_answer_that_cannot_be_kept_is_done_for_good(
    site: Site, handler: Handler
) -> None:
    client = await site.serve(handler, idempotency_middleware(max_body=1000))
    first = await ask(client)
    assert first.status == 200
    assert first.body
    for _ in range(2):
        again = await ask(client)
        assert (again.status, again.replayed) == (409, [])
        assert "Retry-After" not in again.all
        assert again.all["Cache-Control"] == "no-store"
    assert (await ask(client, data=b"x")).status == 422
    assert site.calls == 1


@pytest.mark.parametrize("size", [0, 1000])
async def test_answer_of_just_the_limit_is_kept(site: Site, size: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytearray(size))

    client = await site.serve(handler, idempotency_middleware(max_body=1000))
    first, again = await ask(client), await ask(client)
    assert again.shown == first.shown
    assert again.replayed == ["true"]


async def test_raised_answer_beyond_the_limit_is_not_asked_for_twice(
    site: Site,
) -> None:
    runs = []

    async def handler(request: web.Request) -> web.StreamResponse:
        runs.append(request.path)
        raise web.HTTPUnprocessableEntity(text="x" * 1001)

    client = await site.serve(handler, idempotency_middleware(max_body=1000))
    assert [(await ask(client)).status for _ in range(3)] == [422, 409, 409]
    assert len(runs) == 1


@pytest.mark.parametrize("body", ["é" * 500, memoryview(b"ab" * 500).cast("H")])
async def test_body_that_is_in_memory_in_another_way_is_kept(
    site: Site, body: Any
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    client = await site.serve(handler, idempotency_middleware(max_body=1000))
    first, again = await ask(client), await ask(client)
    assert again.shown == first.shown
    assert len(again.body) == 1000
    assert again.replayed == ["true"]


def half(status: int, error: Exception) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        await response.write(b"half")
        raise error

    return handler


@pytest.mark.parametrize("error", [ValueError(), web.HTTPServiceUnavailable()])
@pytest.mark.parametrize(("status", "then"), [(200, 409), (503, None)])
async def test_half_a_stream_is_an_answer(
    site: Site, status: int, then: int | None, error: Exception
) -> None:
    async with live(
        site.app(
            half(status, error), error_middleware(), idempotency_middleware()
        )
    ) as server:
        for expected in (status, then or status):
            client = await server.connect()
            client.send("POST /", fields="Idempotency-Key: a\r\n")
            assert (await client.head()).status == expected
            client.leave()
    assert site.calls == (1 if then else 2)


async def test_what_follows_an_answer_that_was_sent_is_not_kept(
    site: Site,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await answers.sent(request)
        return web.Response(text="never sent")

    app = site.app(handler)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /", fields="Idempotency-Key: a\r\n")
        assert (await client.answer()).rest == b"sent"
        client.leave()
        client = await server.connect()
        client.send("POST /", fields="Idempotency-Key: a\r\n")
        assert (await client.answer()).status == 409
        client.leave()
    assert site.calls == 1


async def test_client_that_leaves_half_a_stream_has_had_its_answer(
    site: Site,
) -> None:
    cancelled = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return response

    async with live(site.app(handler)) as server:
        client = await send(server)
        assert (await client.head()).status == 200
        client.reset()
        await soon(cancelled.wait())
        assert (await again(server)).status == 409
    assert site.calls == 1


async def test_answer_that_was_prepared_and_given_up_frees_the_key(
    site: Site,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await web.Response(text="never sent").prepare(request)
        raise ValueError

    client = await site.serve(handler)
    assert (await ask(client)).status == 500
    assert (await ask(client)).status == 500
    assert site.calls == 2


# Clients that leave
# ==================


class Slow:
    """A handler that waits, and what became of it."""

    def __init__(self, then: Handler) -> None:
        self.then = then
        self.going, self.go_on = asyncio.Event(), asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.going.set()
        try:
            await self.go_on.wait()
            response = await self.then(request)
        except BaseException as exc:
            self.ended.append(type(exc).__name__)
            raise
        self.ended.append("done")
        return response


async def send(server: Live) -> Connection:
    client = await server.connect()
    client.send("POST /", b"body", fields="Idempotency-Key: a\r\n")
    return client


async def again(server: Live) -> Head:
    client = await send(server)
    try:
        return await client.answer()
    finally:
        client.leave()


@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
async def test_client_that_leaves_and_comes_back_has_its_handler_start_over(
    site: Site, leave: Callable[[Connection], None]
) -> None:
    slow = Slow(hello)
    async with live(site.app(slow)) as server:
        client = await send(server)
        await soon(slow.going.wait())
        leave(client)
        await eventually(lambda: slow.ended == ["CancelledError"])
        slow.go_on.set()
        answer = await again(server)
        assert (answer.status, answer.rest) == (200, b"hello")
        assert "Idempotent-Replayed" not in answer.headers
    assert site.calls == 2


@pytest.mark.parametrize(
    "options",
    [
        {"handler_cancellation": False},
        {"handler_cancellation": True},
    ],
    ids=["not cancelled", "shielded"],
)
@pytest.mark.parametrize("leave", [Connection.leave, Connection.reset])
async def test_client_that_leaves_and_comes_back_gets_its_answer(
    site: Site,
    leave: Callable[[Connection], None],
    options: dict[str, bool],
) -> None:
    slow = Slow(hello)
    shields = [shield_middleware(methods=["POST"])]
    app = site.app(
        slow,
        *(shields if options["handler_cancellation"] else []),
        idempotency_middleware(),
    )
    async with live(app, **options) as server:
        client = await send(server)
        await soon(slow.going.wait())
        leave(client)
        answer = await again(server)
        assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
        slow.go_on.set()
        await eventually(lambda: slow.ended == ["done"])
        answer = await again(server)
        assert (answer.status, answer.rest) == (200, b"hello")
        assert answer.headers["Idempotent-Replayed"] == "true"
    assert site.calls == 1


@pytest.mark.parametrize("shielded", [False, True])
async def test_stream_that_a_client_did_not_wait_for_is_done(
    site: Site, shielded: bool
) -> None:
    slow = Slow(answers.streamed)
    shields = [shield_middleware(methods=["POST"])] if shielded else []
    app = site.app(slow, *shields, idempotency_middleware())
    async with live(app, handler_cancellation=shielded) as server:
        client = await send(server)
        await soon(slow.going.wait())
        client.reset()
        await eventually(lambda: server.connections() <= 1)
        await asyncio.sleep(0)
        slow.go_on.set()
        await eventually(lambda: slow.ended)
        answer = await again(server)
        assert (answer.status, site.calls) == (409, 1)


@pytest.mark.parametrize("then", [hello, answers.streamed, answers.raised])
async def test_answer_that_comes_after_the_504_of_a_limit_is_remembered(
    site: Site, then: Handler
) -> None:
    slow = Slow(then)
    app = site.app(
        slow,
        error_middleware(),
        timeout_middleware(0.05),
        shield_middleware(methods=["POST"]),
        idempotency_middleware(),
    )
    async with live(app) as server:
        assert (await again(server)).status == 504
        assert (await again(server)).status == 409
        slow.go_on.set()
        await eventually(lambda: slow.ended)
        await asyncio.sleep(0.01)
        answer = await again(server)
        expected: dict[Handler, int]
        expected = {hello: 200, answers.streamed: 409, answers.raised: 410}
        assert answer.status == expected[then]
    assert site.calls == 1


@pytest.mark.parametrize("prepares", [False, True])
async def test_failure_after_the_504_of_a_limit_frees_the_key(
    site: Site, prepares: bool
) -> None:
    slow = Slow(raises(ValueError))

    async def handler(request: web.Request) -> web.StreamResponse:
        if prepares:
            await web.Response(text="never sent").prepare(request)
        return await slow(request)

    app = site.app(
        handler,
        error_middleware(),
        timeout_middleware(0.05),
        shield_middleware(methods=["POST"]),
        idempotency_middleware(),
    )
    async with live(app) as server:
        assert (await again(server)).status == 504
        slow.go_on.set()
        await eventually(lambda: slow.ended)
        await asyncio.sleep(0.01)
        slow.then = hello
        assert (await again(server)).status == 200
    assert site.calls == 2


async def test_handler_that_a_limit_cancels_frees_the_key(site: Site) -> None:
    slow = Slow(hello)
    app = site.app(
        slow,
        error_middleware(),
        timeout_middleware(0.05),
        idempotency_middleware(),
    )
    async with live(app) as server:
        assert (await again(server)).status == 504
        assert slow.ended == ["CancelledError"]
        slow.go_on.set()
        assert (await again(server)).status == 200
    assert site.calls == 2


# In memory
# =========


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_answers_are_forgotten_when_they_are_old(site: Site) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    client = await site.serve(hello, idempotency_middleware(store=store, ttl=5))
    await ask(client)
    clock.now = 4.9
    assert (await ask(client)).replayed == ["true"]
    clock.now = 5
    assert (await ask(client)).replayed == []
    assert (site.calls, len(store)) == (2, 1)


async def test_what_is_at_work_is_never_forgotten(site: Site) -> None:
    clock = Clock()
    store = MemoryStore(2, clock=clock)
    slow = Slow(hello)
    client = await site.serve(
        slow, idempotency_middleware(store=store, ttl=10**10)
    )
    keys = [{"Idempotency-Key": str(number)} for number in range(6)]
    at_work = [
        asyncio.create_task(ask(client, headers=headers))
        for headers in keys[:3]
    ]
    # More than there is room for: nobody is turned away.
    await eventually(lambda: len(store) == 3)
    clock.now = 10**9
    for headers in keys[:3]:
        assert (await ask(client, headers=headers)).status == 409
    slow.go_on.set()
    for task in at_work:
        assert (await task).status == 200
    assert site.calls == 3
    for headers in keys[3:]:
        assert (await ask(client, headers=headers)).status == 200
        assert len(store) == 2


async def test_memory_forgets_the_oldest_when_it_is_full(site: Site) -> None:
    store = MemoryStore(3)
    client = await site.serve(hello, idempotency_middleware(store=store))
    for number in range(10):
        await ask(client, headers={"Idempotency-Key": str(number)})
        assert len(store) <= 3
    for number in (7, 8, 9):
        got = await ask(client, headers={"Idempotency-Key": str(number)})
        assert got.replayed == ["true"]
    assert site.calls == 10
    got = await ask(client, headers={"Idempotency-Key": "6"})
    assert (got.replayed, site.calls) == ([], 11)


async def test_old_answers_do_not_stay_in_memory(site: Site) -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    client = await site.serve(hello, idempotency_middleware(store=store, ttl=5))
    for number in range(20):
        await ask(client, headers={"Idempotency-Key": str(number)})
    assert len(store) == 20
    assert store._bytes > 20 * len(b"hello")
    clock.now = 6
    await ask(client)
    assert len(store) == len(store._sizes) == 1
    assert store._bytes == sum(store._sizes.values())


async def test_answers_that_are_too_large_together_are_let_go_of(
    site: Site,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * int(request.query["size"]))

    store = MemoryStore(max_bytes=1000)
    client = await site.serve(handler, idempotency_middleware(store=store))

    async def got(key: str, size: int) -> int:
        headers = {"Idempotency-Key": key}
        response = await ask(client, f"/?size={size}", headers=headers)
        return int(response.status)

    assert await got("a", 400) == await got("b", 400) == 200
    assert await got("c", 400) == 200
    # Done it is, and not done again.
    assert await got("a", 400) == 409
    assert await got("b", 400) == await got("c", 400) == 200
    assert await got("d", 1001) == 200
    assert await got("d", 1001) == 409
    assert await got("b", 400) == 200
    assert site.calls == 4
    assert store._bytes == sum(store._sizes.values()) == 800


async def test_data_of_an_exception_counts_as_its_answer_does(
    site: Site,
) -> None:
    def sold() -> Exception:
        exc = Sold()
        exc.data = {"next": ["x" * 1000]}
        return exc

    store = MemoryStore(max_bytes=1000)
    client = await site.serve(raises(sold), idempotency_middleware(store=store))
    assert [(await ask(client)).status for _ in range(2)] == [410, 409]


async def test_one_store_may_serve_several(site: Site) -> None:
    store = MemoryStore()
    client = await site.serve(
        hello,
        idempotency_middleware(store=store, urls=["/a"]),
        idempotency_middleware(store=store, urls=["/b"]),
    )
    assert (await ask(client, "/a")).status == 200
    assert (await ask(client, "/b")).status == 422
    assert (await ask(client, "/a")).replayed == ["true"]


# What it leaves alone
# ====================


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {}},
        {"method": "GET"},
        {"method": "PUT"},
        {"path": "/free"},
        {"path": "/other"},
    ],
    ids=str,
)
async def test_other_requests_are_left_alone(
    site: Site, request_: dict[str, Any]
) -> None:
    client = await site.serve(
        hello,
        idempotency_middleware(
            urls=["/pay", "/free", "/..;/free"], ignore=["/free"]
        ),
    )
    options = {"path": "/pay", **request_}
    for _ in range(2):
        got = await ask(client, **options)
        assert (got.status, got.replayed) == (200, [])
    assert site.calls == 2
    await ask(client, "/pay")
    assert (await ask(client, "/pay")).replayed == ["true"]


async def test_exemption_does_not_fit_a_path_that_leads_elsewhere(
    site: Site,
) -> None:
    app = site.app(hello, idempotency_middleware(ignore=[re.compile("/free/")]))
    async with live(app) as server:
        client = await server.connect()
        for _ in range(2):
            client.send(
                "POST /free/%2e%2e/pay", fields="Idempotency-Key: a\r\n"
            )
            answer = await client.answer()
        client.leave()
    assert answer.headers["Idempotent-Replayed"] == "true"


async def test_other_methods_can_be_covered(site: Site) -> None:
    client = await site.serve(hello, idempotency_middleware(methods=["put"]))
    await ask(client, method="PUT")
    assert (await ask(client, method="PUT")).replayed == ["true"]
    await ask(client)
    assert (await ask(client)).replayed == []


async def test_without_a_key_the_body_is_not_read(site: Site) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert not request.content.is_eof()
        return web.Response(body=await request.read())

    async with live(site.app(handler)) as server:
        client = await server.connect()
        client.send("POST /", b"bo", length=4)
        await eventually(lambda: site.calls)
        client.writer.write(b"dy")
        assert (await client.answer()).rest == b"body"
        client.leave()


@pytest.mark.parametrize("inner", [{}, {"required": True}, {"max_body": 1}])
async def test_of_two_in_a_list_the_inner_one_steps_aside(
    site: Site, inner: dict[str, Any]
) -> None:
    one, other = MemoryStore(), MemoryStore()
    client = await site.serve(
        hello,
        idempotency_middleware(store=one),
        idempotency_middleware(store=other, **inner),
    )
    for replayed in ([], ["true"]):
        got = await ask(client, data=b"body")
        assert (got.status, got.replayed) == (200, replayed)
    assert (len(one), len(other), site.calls) == (1, 0, 1)


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_first_answer_is_as_it_would_be(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    async def got(*middlewares: Middleware) -> tuple[Any, ...]:
        client: Client = await aiohttp_client(answers.application(*middlewares))
        headers = {**kind.fields, **KEY}
        found = await ask(client, kind.path, kind_method, headers=headers)
        assert found.status == kind.status
        return found.shown

    kind_method = "GET" if kind.name == "websocket" else "POST"
    if kind.name == "not_allowed":
        kind_method = "PATCH"

    def every() -> Middleware:
        return idempotency_middleware(methods=["GET", "POST", "PATCH"])

    expected = await got()
    assert await got(every()) == expected
    assert await got(clones, every()) == expected
    assert await got(every(), clones) == expected


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())


async def test_cloning_neighbours_do_not_matter(site: Site) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    client = await site.serve(handler, clones, idempotency_middleware(), clones)
    for replayed in ([], ["true"]):
        got = await ask(client, data=b"body")
        assert (got.body, got.replayed) == (b"body", replayed)
    assert (await ask(client, data=b"bodi")).status == 422


async def test_refusals_are_rendered_by_the_error_middleware(
    site: Site,
) -> None:
    client = await site.serve(
        hello,
        error_middleware(default_handler=problem_error_handler),
        idempotency_middleware(),
    )
    await ask(client)
    got = await ask(client, data=b"x", headers={**KEY, "Accept": "*/*"})
    assert got.all["Content-Type"] == "application/problem+json"
    said = json.loads(got.body)
    assert (said["status"], said["detail"]) == (
        422,
        "The idempotency key was used for another request",
    )


async def test_what_a_client_sends_is_in_no_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = await site.serve(hello)
    headers = {"Idempotency-Key": "SECRET"}
    for data in (b"a", b"b", parts(b"a" * 2**21)):
        await ask(client, data=data, headers=headers)
    records = [
        record
        for record in caplog.records
        if record.name == "aiohttp_middlewares.idempotency"
    ]
    assert [
        (record.levelname, vars(record)["reason"]) for record in records
    ] == [
        ("INFO", "its idempotency key was used for another request"),
        ("INFO", "its body is too large"),
    ]
    assert all("SECRET" not in str(vars(record)) for record in records)


@pytest.mark.parametrize("handler", [hello, raises(gone), raises(ValueError)])
async def test_no_request_is_left_to_the_garbage_collector(
    site: Site, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("aiohttp_middlewares.error", "aiohttp.access"):
        # A record would hold the traceback.
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    requests: WeakSet[web.Request] = WeakSet()

    async def noted(request: web.Request) -> web.StreamResponse:
        requests.add(request)
        return await handler(request)

    app = site.app(noted, error_middleware(), idempotency_middleware())
    with complaints() as found:
        async with live(app) as server:
            client = await server.connect()
            gc.collect()
            gc.disable()
            try:
                for key in "abcde":
                    client.send(
                        "POST /",
                        b"body",
                        fields=f"Idempotency-Key: {key}\r\n",
                    )
                    await client.answer()
                await eventually(lambda: len(requests) <= 1)
            finally:
                gc.enable()
            client.leave()
    assert found == []
    assert site.calls == 5


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"store": {}}, TypeError, "a RedisStore, got a dict"),
        (
            {"store": "redis://:secret@localhost"},
            TypeError,
            "got a str; did you mean RedisStore(Redis.from_url(...))?",
        ),
        (
            {"store": Redis()},
            TypeError,
            "got a redis.asyncio.client.Redis; did you mean RedisStore(...)?",
        ),
        ({"store": MemoryStore}, TypeError, "a RedisStore, got <class "),
        ({"header": ""}, ValueError, "header should be a header name"),
        ({"header": 1}, TypeError, "header should be a header name"),
        ({"methods": "POST"}, TypeError, "methods should be"),
        ({"methods": [1]}, TypeError, "methods should be"),
        ({"methods": ["*"]}, ValueError, "methods should be"),
        ({"required": "yes"}, TypeError, "required should be True or False"),
        ({"ttl": 0}, ValueError, "ttl should be a positive"),
        ({"ttl": None}, TypeError, "ttl should be a number of seconds"),
        ({"scope": "user"}, TypeError, "scope should be a callable"),
        ({"max_body": -1}, ValueError, "max_body should be"),
        ({"max_body": None}, TypeError, "max_body should be"),
        ({"urls": "/a"}, TypeError, "urls should be a collection"),
        ({"ignore": ["a"]}, ValueError, "ignore should be a path"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_options_fail_at_build(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)) as failed:
        idempotency_middleware(**options)
    assert str(failed.value).startswith("idempotency_middleware ")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_entries": 0}, ValueError),
        ({"max_entries": 1.5}, TypeError),
        ({"max_bytes": -1}, ValueError),
        ({"max_bytes": "1"}, TypeError),
        ({"clock": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_options_of_a_memory_fail_at_build(
    options: dict[str, Any], error: type[Exception]
) -> None:
    (name,) = options
    with pytest.raises(error, match=f"^MemoryStore {name} should be "):
        MemoryStore(**options)


def test_redis_store_without_redis_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ImportError) as failed:
        RedisStore(None)
    assert str(failed.value) == (
        'RedisStore needs redis; pip install "aiohttp-middlewares[redis]"'
    )


async def test_smaller_limit_further_out_holds_for_what_is_read_ahead(
    aiohttp_client: AiohttpClient,
) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10

    app = web.Application(
        middlewares=[
            error_middleware(),
            body_limit_middleware(100),
            timeout_middleware(30),
            shield_middleware(methods=["POST"]),
            idempotency_middleware(),
        ]
    )
    app.router.add_post("/", page)
    client = await aiohttp_client(app)
    headers = {"Idempotency-Key": "one"}
    answer = await client.post("/", data=pieces(), headers=headers)
    assert answer.status == 413
    # The key is free: nothing was done.
    answer = await client.post("/", data=b"x" * 100, headers=headers)
    assert (answer.status, await answer.read()) == (200, b"x" * 100)
