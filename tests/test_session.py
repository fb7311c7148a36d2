"""Sessions: saved with every kind of answer, and only good cookies count."""

import asyncio
import gc
import json
import logging
import sys
import time
import warnings
import weakref
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from http.cookies import SimpleCookie
from typing import Any

import aiohttp_session
import answers
import itsdangerous
import pytest
from aiohttp import DummyCookieJar, web
from aiohttp.test_utils import TestClient
from discreet import keep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import eventually
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw
from starlette.middleware.sessions import SessionMiddleware
from yarl import URL

from aiohttp_middlewares import (
    SignedCookieStorage,
    compression_middleware,
    cors_middleware,
    error_middleware,
    https_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware

KEY = keep("a key of the tests")
GOOD = {"visits": 3, "name": "Zoë", "list": [1, {"a": None}]}

Client = TestClient[web.Request, web.Application]


def signed(data: object, key: str = KEY, *, age: int = 0) -> str:
    """A cookie as Starlette makes it, so many seconds ago."""

    class Signer(itsdangerous.TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - age

    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Signer(key).sign(b64encode(payload)).decode()


def session_of(value: str) -> Any:
    """What is in a cookie, if it is signed with the key."""
    payload = itsdangerous.TimestampSigner(KEY).unsign(value)
    return json.loads(b64decode(payload))


def cookies_of(response: Any) -> list[str]:
    return list(response.headers.getall("Set-Cookie", []))


def value_of(response: Any, name: str = "session") -> str:
    (line,) = cookies_of(response)
    return str(SimpleCookie(line)[name].value)


async def visit(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(dict(session))


async def look(request: web.Request) -> web.Response:
    return web.json_response(dict(await aiohttp_session.get_session(request)))


async def nothing(request: web.Request) -> web.Response:
    return web.Response(text="nothing")


async def logout(request: web.Request) -> web.Response:
    (await aiohttp_session.get_session(request)).invalidate()
    return web.Response()


def app_of(
    middleware: Middleware,
    *outside: Middleware,
    inside: tuple[Middleware, ...] = (),
    **handlers: Handler,
) -> web.Application:
    app = web.Application(middlewares=[*outside, middleware, *inside])
    routes = {"visit": visit, "look": look, "out": logout, "no": nothing}
    for name, handler in {**routes, **handlers}.items():
        app.router.add_get(f"/{name}", handler)
    return app


class Browse:
    """Clients that keep no cookies."""

    def __init__(self, aiohttp_client: AiohttpClient) -> None:
        self.aiohttp_client = aiohttp_client

    async def __call__(self, *args: Any, **options: Any) -> Client:
        return await self.of(
            app_of(*(args or [session_middleware(KEY)]), **options)
        )

    async def kinds(
        self, *args: Any, inside: Iterable[Middleware] = ()
    ) -> Client:
        """Of every kind of answer, all of which change the session."""
        return await self.of(
            answers.serve(app_of(*args, inside=(*inside, changes)))
        )

    async def of(self, app: web.Application) -> Client:
        return await self.aiohttp_client(app, cookie_jar=DummyCookieJar())


@pytest.fixture
def browse(aiohttp_client: AiohttpClient) -> Browse:
    return Browse(aiohttp_client)


def cookie(value: str, name: str = "session") -> dict[str, str]:
    return {"Cookie": f"{name}={value}"}


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


@web.middleware
async def copies(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())


# What it does
# ============


async def test_session_lasts_from_one_request_to_the_next(
    browse: Browse,
) -> None:
    client = await browse()
    response = await client.get("/visit")
    assert await response.json() == {"visits": 1}
    response = await client.get("/visit", headers=cookie(value_of(response)))
    assert await response.json() == {"visits": 2}
    response = await client.get("/look", headers=cookie(value_of(response)))
    assert await response.json() == {"visits": 2}


async def test_cookie_is_safe_by_default(browse: Browse) -> None:
    response = await (await browse()).get("/visit")
    value = value_of(response)
    assert cookies_of(response) == [
        f"session={value}; HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax"
    ]
    assert session_of(value) == {"visits": 1}


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({"max_age": None}, "HttpOnly; Path=/; SameSite=Lax"),
        ({"max_age": 60}, "HttpOnly; Max-Age=60; Path=/; SameSite=Lax"),
        (
            {"max_age": None, "path": "/a", "domain": "example.com"},
            "Domain=example.com; HttpOnly; Path=/a; SameSite=Lax",
        ),
        (
            {"max_age": None, "same_site": "strict", "https_only": True},
            "HttpOnly; Path=/; SameSite=Strict; Secure",
        ),
        (
            {"max_age": None, "same_site": "none"},
            "HttpOnly; Path=/; SameSite=None; Secure",
        ),
        (
            {"max_age": None, "cookie_name": "__Host-session"},
            "HttpOnly; Path=/; SameSite=Lax; Secure",
        ),
        (
            {"max_age": None, "cookie_name": "__secure-s", "path": "/a"},
            "HttpOnly; Path=/a; SameSite=Lax; Secure",
        ),
        (
            {"max_age": None, "https_only": False},
            "HttpOnly; Path=/; SameSite=Lax",
        ),
    ],
    ids=str,
)
async def test_options_are_in_the_cookie_and_in_its_deletion(
    browse: Browse, options: dict[str, Any], attributes: str
) -> None:
    name = options.get("cookie_name", "session")
    client = await browse(session_middleware(KEY, **options))
    response = await client.get("/visit")
    (line,) = cookies_of(response)
    value = value_of(response, name)
    assert line == f"{name}={value}; {attributes}"

    response = await client.get("/out", headers=cookie(value, name))
    (line,) = cookies_of(response)
    kept = [
        part
        for part in line.split("; ")
        if not part.startswith(("Max-Age", "expires"))
    ]
    expected = [
        part for part in attributes.split("; ") if "Max-Age" not in part
    ]
    assert kept == [f"{name}=", *expected]
    assert "expires=Thu, 01 Jan 1970 00:00:00 GMT; " in line
    assert "Max-Age=0" in line


@pytest.mark.parametrize(
    ("https_only", "secure"),
    [("auto", (False, True)), (True, (True, True)), (False, (False, False))],
)
async def test_cookie_is_secure_when_the_request_is(
    browse: Browse, https_only: Any, secure: tuple[bool, bool]
) -> None:
    middleware = session_middleware(KEY, https_only=https_only)
    client = await browse(middleware, https_middleware())
    for proto, expected in zip(("http", "https"), secure, strict=True):
        headers = {"X-Forwarded-Proto": proto}
        response = await client.get("/visit", headers=headers)
        assert ("; Secure" in cookies_of(response)[0]) is expected


async def test_age_of_one_session_can_be_its_own(browse: Browse) -> None:
    async def remember(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["name"] = "Zoë"
        session.max_age = 60
        return web.Response()

    client = await browse(remember=remember)
    response = await client.get("/remember")
    assert "; Max-Age=60;" in cookies_of(response)[0]


async def test_only_changes_set_a_cookie_and_only_readers_vary(
    browse: Browse,
) -> None:
    client = await browse()
    headers = cookie(signed(GOOD))
    for path, cookies, vary in (
        ("/visit", 1, ["Cookie"]),
        ("/look", 0, ["Cookie"]),
        ("/out", 1, ["Cookie"]),
        ("/no", 0, []),
        ("/nowhere", 0, []),
    ):
        response = await client.get(path, headers=headers)
        assert len(cookies_of(response)) == cookies
        assert response.headers.getall("Vary", []) == vary


async def test_logout_without_a_cookie_deletes_none(browse: Browse) -> None:
    response = await (await browse()).get("/out")
    assert cookies_of(response) == []


async def test_vary_and_cookies_of_the_handler_stay(browse: Browse) -> None:
    async def both(request: web.Request) -> web.Response:
        response = await visit(request)
        response.headers["Vary"] = "Accept, cookie"
        response.set_cookie("other", "yes")
        return response

    client = await browse(session_middleware(KEY), both=both)
    response = await client.get("/both")
    assert response.headers.getall("Vary") == ["Accept, cookie"]
    names = [line.partition("=")[0] for line in cookies_of(response)]
    assert names == ["other", "session"]


# Every kind of answer
# ====================


async def change(request: web.Request) -> None:
    session = await aiohttp_session.get_session(request)
    session["kind"] = request.path


@web.middleware
async def changes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """So that each kind of answer has something to save."""
    if request.path not in ("/look", "/no"):
        await change(request)
    return await handler(request)


SAVED = [kind for kind in answers.KINDS if kind.status < 500]
#: Of these the handler raises what nobody expects.
FAILED = [
    kind
    for kind in answers.KINDS
    if kind.handler in (answers.failed, answers.late)
]
NEIGHBOURS: list[tuple[list[Middleware], list[Middleware]]] = [
    ([], []),
    ([clones], [copies]),
    ([cors_middleware(allow_all=True), error_middleware(), clones], [copies]),
]


@pytest.mark.parametrize(("outside", "inside"), NEIGHBOURS)
@pytest.mark.parametrize("kind", SAVED, ids=str)
async def test_session_is_saved_with_every_kind_of_answer(
    browse: Browse,
    kind: answers.Kind,
    outside: list[Middleware],
    inside: list[Middleware],
) -> None:
    client = await browse.kinds(
        session_middleware(KEY), *outside, inside=inside
    )
    for _ in range(2):
        response = await client.get(
            kind.path, headers=kind.fields, allow_redirects=False
        )
        assert response.status == kind.status
        *others, line = cookies_of(response)
        assert others == (["seen=yes; Path=/"] if kind.status == 302 else [])
        value = SimpleCookie(line)["session"].value
        assert session_of(value) == {"kind": kind.path}
        assert "Cookie" in response.headers["Vary"]
        assert (clones in outside) is ("Secure" in line)
        if kind.status == 101:
            response.close()
        await response.read()


@pytest.mark.parametrize("kind", FAILED, ids=str)
@pytest.mark.parametrize("outside", [[], [error_middleware()]])
async def test_session_is_not_saved_after_an_unexpected_exception(
    browse: Browse, kind: answers.Kind, outside: list[Middleware]
) -> None:
    client = await browse.kinds(session_middleware(KEY), *outside)
    response = await client.get(kind.path)
    assert response.status in (500, kind.status)
    assert cookies_of(response) == []
    assert response.headers.getall("Vary") == ["Cookie"]


async def test_new_session_takes_the_place_of_the_old(browse: Browse) -> None:
    async def login(request: web.Request) -> web.Response:
        old = await aiohttp_session.get_session(request)
        assert dict(old) == GOOD
        session = await aiohttp_session.new_session(request)
        session["user"] = 7
        raise web.HTTPSeeOther("/look")

    for inside in ((), (copies, copies)):
        client = await browse(
            session_middleware(KEY), inside=inside, login=login
        )
        response = await client.get(
            "/login", headers=cookie(signed(GOOD)), allow_redirects=False
        )
        assert session_of(value_of(response)) == {"user": 7}


async def test_all_clones_of_a_request_have_one_session(
    browse: Browse,
) -> None:
    async def both(request: web.Request) -> web.Response:
        sessions = await asyncio.gather(
            *(
                aiohttp_session.get_session(clone)
                for clone in (request.clone(), request.clone(), request)
            )
        )
        for number, session in enumerate(sessions):
            session[str(number)] = number
        return web.Response()

    client = await browse(session_middleware(KEY), both=both)
    response = await client.get("/both")
    assert session_of(value_of(response)) == {"0": 0, "1": 1, "2": 2}
    storage = Memory()
    client = await browse(session_middleware(storage), both=both)
    await client.get("/both")
    assert storage.kept == {"a-name": {"0": 0, "1": 1, "2": 2}}


async def test_change_by_a_middleware_outside_is_saved_too(
    browse: Browse,
) -> None:
    inner: list[aiohttp_session.Session] = []

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        inner[0]["late"] = True
        return response

    async def keep(request: web.Request) -> web.Response:
        await change(request)
        inner.append(await aiohttp_session.get_session(request))
        return web.Response()

    client = await browse(session_middleware(KEY), outside, keep=keep)
    response = await client.get("/keep")
    assert session_of(value_of(response)) == {"kind": "/keep", "late": True}


async def test_change_after_the_headers_is_lost_and_logged(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        await change(request)
        response = web.StreamResponse()
        await response.prepare(request)
        (await aiohttp_session.get_session(request))["late"] = True
        return response

    client = await browse(session_middleware(KEY), late=late)
    response = await client.get("/late")
    assert session_of(value_of(response)) == {"kind": "/late"}
    await response.read()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "GET /late changed its session after the headers had left: that is lost"
    )


async def test_response_that_was_given_up_does_not_take_the_cookie_along(
    browse: Browse,
) -> None:
    async def second(request: web.Request) -> web.Response:
        await change(request)
        await web.Response().prepare(request)
        raise web.HTTPConflict

    client = await browse(session_middleware(KEY), second=second)
    response = await client.get("/second")
    assert response.status == 409
    assert session_of(value_of(response)) == {"kind": "/second"}


async def test_cookie_that_browsers_would_drop_is_an_error_in_the_log(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["much"] = "x" * int(request.query["size"])
        return web.Response(text="done")

    client = await browse(session_middleware(KEY), fill=fill)
    sizes = {}
    for size in range(2960, 3000):
        response = await client.get(f"/fill?size={size}")
        assert await response.text() == "done"
        lines = cookies_of(response)
        sizes[size] = len(lines[0]) if lines else None
    assert 4090 < max(size for size in sizes.values() if size) <= 4096
    assert sizes[2960] is not None
    assert sizes[2999] is None
    record = caplog.records[-1]
    assert record.levelno == logging.ERROR
    assert "GET /fill was not saved: its cookie has 4" in record.getMessage()
    assert "more than 4096" in record.getMessage()
    assert record.path == "/fill"  # type: ignore[attr-defined]
    assert "xxx" not in record.getMessage()


# Keys, and Starlette
# ===================


async def test_first_key_signs_and_all_are_good(browse: Browse) -> None:
    client = await browse(session_middleware([KEY, b"old", "older"]))
    for key in (KEY, "old", "older"):
        headers = cookie(signed({"visits": 1}, key))
        response = await client.get("/visit", headers=headers)
        assert await response.json() == {"visits": 2}
        assert session_of(value_of(response)) == {"visits": 2}
    headers = cookie(signed({"visits": 1}, "another"))
    response = await client.get("/visit", headers=headers)
    assert await response.json() == {"visits": 1}


async def starlette(
    cookies: str | None, change: Callable[[Any], None]
) -> tuple[dict[str, Any], str | None]:
    """One request to a Starlette application: its session, its cookie."""
    seen: dict[str, Any] = {}
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope["session"])
        change(scope["session"])
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body"})

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if cookies is None else [(b"cookie", cookies.encode())]
    await SessionMiddleware(app, KEY)(
        {"type": "http", "headers": headers, "path": "/"}, receive, send
    )
    for name, value in sent[0]["headers"]:
        if name == b"set-cookie":
            return seen, value.decode()
    return seen, None


async def test_starlette_reads_our_session_and_we_read_its(
    browse: Browse,
) -> None:
    client = await browse()
    _, line = await starlette(None, lambda session: session.update(GOOD))
    assert line is not None
    made_there = line.partition(";")[0]
    response = await client.get("/visit", headers={"Cookie": made_there})
    assert await response.json() == {**GOOD, "visits": 4}

    made_here = cookies_of(response)[0].partition(";")[0]
    seen, line = await starlette(made_here, lambda session: session.clear())
    assert seen == {**GOOD, "visits": 4}
    assert line is not None
    response = await client.get(
        "/look", headers={"Cookie": line.partition(";")[0]}
    )
    assert await response.json() == {}
    # And what a browser that quotes would send.
    quoted = made_here.replace("=", '="', 1) + '"'
    response = await client.get("/look", headers={"Cookie": quoted})
    assert await response.json() == {**GOOD, "visits": 4}


# Cookies that are not good
# =========================


def each_bit_flipped(value: str) -> Iterator[bytes]:
    for position in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value.encode())
            flipped[position] ^= 1 << bit
            yield bytes(flipped)


async def test_every_flipped_bit_gives_an_empty_session(
    browse: Browse,
) -> None:
    client = await browse()
    value = signed({"user": 7})
    request = b"GET /look HTTP/1.1\r\nHost: a\r\nCookie: session=%b\r\n%b\r\n"
    good = await raw(
        client.server, request % (value.encode(), b"Connection: close\r\n")
    )
    assert head(good).rest == b'{"user": 7}'

    # aiohttp answers those that are no header with 400.
    tried = [
        flipped
        for flipped in each_bit_flipped(value)
        if not set(flipped) & {*range(9), *range(10, 32), 127}
    ]
    assert len(tried) > 350
    for some in range(0, len(tried), 50):
        part = tried[some : some + 50]
        requests = [request % (flipped, b"") for flipped in part]
        requests.append(request % (b"", b"Connection: close\r\n"))
        received = await raw(client.server, b"".join(requests))
        assert received.count(b"HTTP/1.1 200 OK\r\n") == len(part) + 1
        assert received.count(b"\r\n\r\n{}") == len(part) + 1


class Fake:
    """As much of a request as the storage looks at."""

    method = "GET"
    rel_url = URL("/")
    remote = None

    def __init__(self, value: str) -> None:
        self.headers = {"Cookie": f"session={value}"}
        sent = self.headers["Cookie"].encode("utf-8", "surrogateescape")
        self.raw_headers = [(b"cookie", sent)]


STORAGE = SignedCookieStorage(KEY)


def load(value: str) -> Any:
    """The session of a request with this cookie."""
    loading = STORAGE.load_session(Fake(value))  # type: ignore[arg-type]
    with pytest.raises(StopIteration) as done:  # it awaits nothing
        loading.send(None)
    return done.value.value


SIGNED = signed({"user": 7})


def test_no_spelling_but_the_one_that_was_sent_is_good() -> None:
    assert dict(load(SIGNED)) == {"user": 7}
    for flipped in each_bit_flipped(SIGNED):
        for value in (
            flipped.decode("latin-1"),
            flipped.decode("utf-8", "surrogateescape"),
        ):
            session = load(value)
            assert session.new
            assert dict(session) == {}
    for length in range(len(SIGNED)):
        assert dict(load(SIGNED[:length])) == {}
        assert dict(load(SIGNED[length:] or "")) == ({} if length else GOOD7)
    for more in ("=", "\x00", "\xa0", "ä", ".", "A"):
        assert dict(load(SIGNED + more)) == {}
        assert dict(load(more + SIGNED)) == {}


GOOD7 = {"user": 7}


@given(st.text() | st.binary().map(lambda some: some.decode("latin-1")))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
def test_any_text_is_an_empty_session(value: str) -> None:
    assert dict(load(value)) == {}


@pytest.mark.parametrize("foreign", ["aa+a", "aa/a", "aa a", "aa=a", "\xe9"])
def test_foreign_base64_is_not_read_at_all(foreign: str) -> None:
    """Python 3.15 warns of it, and itsdangerous hides what is raised."""
    payload, time, signature = signed(GOOD7).split(".")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for value in (
            f"{payload}.{foreign}.{signature}",
            f"{payload}.{time}.{foreign}{signature[len(foreign) :]}",
            f"{foreign}.{time}.{signature}",
        ):
            assert dict(load(value)) == {}
    assert warned == []


@given(st.binary(max_size=40))
@settings(max_examples=50)
def test_anything_else_that_the_key_signed_is_an_empty_session(
    payload: bytes,
) -> None:
    assert dict(load(signed(payload))) == {}
    value = itsdangerous.TimestampSigner(KEY).sign(payload)
    assert dict(load(value.decode("latin-1"))) == {}


@pytest.mark.parametrize(
    "value",
    [
        signed([1, 2]),
        signed("text"),
        signed(None),
        signed(b"not json"),
        signed(b"\xff\xfe"),
        signed(b"[" * 100_000),
        itsdangerous.TimestampSigner(KEY).sign("not base64 !").decode(),
        itsdangerous.TimestampSigner(KEY, salt="x").sign("e30=").decode(),
        itsdangerous.Signer(KEY).sign("e30=").decode(),
        signed(GOOD, "foreign"),
        signed(GOOD, age=-(10**6)),  # from the future
        "null",
        "",
    ],
    ids=range(13),  # what they hold is new for each run
)
async def test_foreign_cookie_is_an_empty_session(
    browse: Browse, value: str
) -> None:
    client = await browse()
    if len(value) < 8000:
        response = await client.get("/look", headers=cookie(value))
        assert (response.status, await response.json()) == (200, {})
    assert dict(load(value)) == {}


async def test_session_expires(browse: Browse) -> None:
    client = await browse(session_middleware(KEY, max_age=60))
    for age, expected in ((50, GOOD), (70, {})):
        headers = cookie(signed(GOOD, age=age))
        response = await client.get("/look", headers=headers)
        assert await response.json() == expected
    client = await browse(session_middleware(KEY, max_age=None))
    headers = cookie(signed(GOOD, age=10**9))
    response = await client.get("/look", headers=headers)
    assert await response.json() == GOOD


async def test_cookie_that_is_not_good_is_replaced_and_can_be_deleted(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares.session")
    client = await browse()
    response = await client.get("/visit", headers=cookie("bad-value"))
    assert session_of(value_of(response)) == {"visits": 1}
    response = await client.get("/out", headers=cookie("bad-value"))
    assert len(cookies_of(response)) == 1
    messages = [
        record.getMessage()
        for record in caplog.records
        if record.name == "aiohttp_middlewares.session"
    ]
    assert messages == [
        "The session cookie of GET /visit is not good",
        "The session cookie of GET /out is not good",
    ]


async def test_value_that_is_no_json_fails_the_request(
    browse: Browse,
) -> None:
    async def put(request: web.Request) -> web.Response:
        (await aiohttp_session.get_session(request))["bytes"] = b""
        return web.Response()

    client = await browse(session_middleware(KEY), put=put)
    response = await client.get("/put")
    assert response.status == 500
    assert cookies_of(response) == []


# Any storage of aiohttp-session
# ==============================


class Memory(aiohttp_session.AbstractStorage):
    """Keeps sessions here, and can be out of order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept: dict[str, dict[str, Any]] = {}
        self.broken: set[str] = set()
        self.saves = 0
        self.name = "a-name"

    async def load_session(
        self, request: web.Request
    ) -> aiohttp_session.Session:
        await asyncio.sleep(0)  # as one that asks a server
        if "load" in self.broken:
            raise ConnectionRefusedError
        name = self.load_cookie(request)
        if name is None:
            return await self.new_session()
        data: Any = {"created": int(time.time()), "session": self.kept[name]}
        return aiohttp_session.Session(name, data=data, new=False)

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        self.saves += 1
        if "save" in self.broken:
            raise ConnectionRefusedError
        name = session.identity or self.name
        self.kept[name] = dict(session)
        self.save_cookie(response, "" if session.empty else name)
        response.headers["X-Session"] = name


@pytest.mark.parametrize("kind", SAVED, ids=str)
async def test_any_storage_is_saved_with_every_kind_of_answer(
    browse: Browse, kind: answers.Kind
) -> None:
    storage = Memory()
    client = await browse.kinds(
        session_middleware(storage),
        error_middleware(),
        clones,
        inside=(copies,),
    )
    response = await client.get(
        kind.path, headers=kind.fields, allow_redirects=False
    )
    assert response.status == kind.status
    assert cookies_of(response)[-1] == (
        "AIOHTTP_SESSION=a-name; HttpOnly; Path=/"
    )
    assert len(cookies_of(response)) == (2 if kind.status == 302 else 1)
    assert response.headers.getall("X-Session") == ["a-name"]
    assert storage.kept == {"a-name": {"kind": kind.path}}
    assert storage.saves == 1
    response.close()
    headers = cookie("a-name", "AIOHTTP_SESSION")
    response = await client.get("/look", headers=headers)
    assert await response.json() == {"kind": kind.path}
    assert storage.saves == 1


async def test_storages_that_forget_attributes_delete_with_them(
    browse: Browse,
) -> None:
    storage = Memory(
        cookie_name="__Secure-s",
        domain="a.example",
        path="/",
        samesite="None",
        secure=True,
    )
    storage.kept["a-name"] = {"user": 7}
    client = await browse(session_middleware(storage))
    response = await client.get("/out", headers=cookie("a-name", "__Secure-s"))
    (line,) = cookies_of(response)
    assert line == (
        '__Secure-s=""; Domain=a.example; expires=Thu, 01 Jan 1970 00:00:00 '
        "GMT; HttpOnly; Max-Age=0; Path=/; SameSite=None; Secure"
    )


async def test_cookie_of_4096_bytes_is_the_largest(browse: Browse) -> None:
    storage = Memory()
    client = await browse(session_middleware(storage))
    around = len("AIOHTTP_SESSION=; HttpOnly; Path=/")
    for size, cookies in ((4096, 1), (4097, 0)):
        storage.name = "n" * (size - around)
        response = await client.get("/visit")
        assert response.status == 200
        assert len(cookies_of(response)) == cookies
        assert len("".join(cookies_of(response))) == cookies * size


async def test_cookie_of_another_name_is_not_touched(browse: Browse) -> None:
    class Two(Memory):
        async def save_session(self, *args: Any) -> None:
            await super().save_session(*args)
            args[1].del_cookie("other")

    client = await browse(session_middleware(Two(samesite="Lax")))
    response = await client.get("/visit")
    assert cookies_of(response)[1] == (
        'other=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/'
    )


@pytest.mark.parametrize("kind", SAVED, ids=str)
@pytest.mark.parametrize("broken", ["load", "save"])
async def test_storage_that_fails_makes_the_request_fail(
    browse: Browse, kind: answers.Kind, broken: str
) -> None:
    storage = Memory()
    storage.broken.add(broken)
    for outside in ([], [error_middleware()]):
        storage.saves = 0
        client = await browse.kinds(session_middleware(storage), *outside)
        response = await client.get(
            kind.path, headers=kind.fields, allow_redirects=False
        )
        assert response.status == 500
        assert cookies_of(response) == []
        assert storage.saves == (1 if broken == "save" else 0)
        # What does not need it goes on.
        assert (await client.get("/no")).status == 200


async def test_attributes_of_the_storage_can_be_reached(
    browse: Browse,
) -> None:
    async def name(request: web.Request) -> web.Response:
        storage = request[aiohttp_session.STORAGE_KEY]
        return web.Response(text=f"{storage.cookie_name} {storage.saves}")

    client = await browse(session_middleware(Memory()), name=name)
    assert await (await client.get("/name")).text() == "AIOHTTP_SESSION 0"


async def test_signed_cookies_go_with_the_middleware_of_aiohttp_session(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    storage = SignedCookieStorage(KEY, cookie_name="mine", https_only=True)
    aiohttp_session.setup(app, storage)  # type: ignore[arg-type]
    app.router.add_get("/visit", visit)
    client = await aiohttp_client(app, cookie_jar=DummyCookieJar())
    response = await client.get("/visit")
    value = value_of(response, "mine")
    response = await client.get("/visit", headers=cookie(value, "mine"))
    assert await response.json() == {"visits": 2}
    assert storage.max_age == 1209600
    assert storage.cookie_params["samesite"] == "Lax"


async def test_first_use_does_not_warn(
    browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hasattr(web.BaseRequest, "_seen_str_keys"):
        monkeypatch.setattr(web.BaseRequest, "_seen_str_keys", set())
    client = await browse()  # warnings are errors here
    for _ in range(2):
        assert (await client.get("/visit")).status == 200


async def test_outer_and_inner_session_are_one_where_both_are_asked(
    browse: Browse,
) -> None:
    @web.middleware
    async def asks(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        (await aiohttp_session.get_session(request))["outer"] = True
        return await handler(request)

    client = await browse(
        session_middleware(KEY), session_middleware(KEY), asks
    )
    response = await client.get("/visit")
    assert session_of(value_of(response)) == {"outer": True, "visits": 1}


# Options
# =======


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError) as caught:
        session_middleware(KEY)
    assert str(caught.value) == (
        "SignedCookieStorage needs itsdangerous; pip install "
        '"aiohttp-middlewares[session]"'
    )
    session_middleware(Memory())  # which needs none

    monkeypatch.setitem(sys.modules, "aiohttp_session", None)
    with pytest.raises(
        ImportError, match=r"^session_middleware needs aiohttp-session; pip"
    ):
        session_middleware(KEY)


@pytest.mark.parametrize(
    ("secret", "error", "message"),
    [
        ("", ValueError, "should be a key, got an empty one"),
        (b"  ", ValueError, "should be a key, got an empty one"),
        ([], ValueError, "should be at least one key, got none"),
        ([KEY, ""], ValueError, "should be a key, got an empty one"),
        (
            f"redis://:{KEY}@localhost:6379",
            ValueError,
            "got a URL; did you mean a storage, such as RedisStorage(Redis.from"
            "_url(...)) of aiohttp-session?",
        ),
        ([b"redis://localhost"], ValueError, "got a URL; did you mean"),
        (
            [KEY, None],
            TypeError,
            "should be keys (str or bytes), got a NoneType",
        ),
        (None, TypeError, "should be a key (str or bytes), a list of keys, or"),
        (7, TypeError, "a storage of aiohttp-session, got a int"),
        ({KEY: 1}, TypeError, "got a dict"),
        ({KEY}, TypeError, "got a set"),
        (aiohttp_session.SimpleCookieStorage, TypeError, "got a ABCMeta"),
    ],
)
def test_wrong_key_is_refused_and_not_shown(
    secret: Any, error: type[Exception], message: str
) -> None:
    for factory in (session_middleware, SignedCookieStorage):
        with pytest.raises(error) as caught:
            factory(secret)
        assert str(caught.value).startswith(f"{factory.__name__} secret")
        assert message in str(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cookie_name": ""}, ValueError, "cookie_name should be the name"),
        ({"cookie_name": "a b"}, ValueError, "cookie_name should be the name"),
        ({"cookie_name": 1}, TypeError, "cookie_name should be the name"),
        ({"max_age": 0}, ValueError, "max_age should be a whole number"),
        ({"max_age": -1}, ValueError, "max_age should be a whole number"),
        ({"max_age": 1.5}, TypeError, "max_age should be a whole number"),
        ({"max_age": True}, TypeError, "max_age should be a whole number"),
        ({"path": ""}, ValueError, "path should be a path"),
        ({"path": "app"}, ValueError, "path should be a path"),
        ({"path": "/a; Secure"}, ValueError, "path should be a path"),
        ({"path": None}, TypeError, "path should be a path"),
        ({"domain": ""}, ValueError, "domain should be a domain"),
        ({"domain": "https://a.example"}, ValueError, "domain should be a"),
        ({"domain": "a.example; x"}, ValueError, "domain should be a domain"),
        ({"domain": 1}, TypeError, "domain should be a domain"),
        (
            {"same_site": "Lax"},
            ValueError,
            "same_site should be 'lax', 'strict' or 'none', got 'Lax'; "
            "did you mean 'lax'?",
        ),
        ({"same_site": None}, TypeError, "did you mean 'none'?"),
        ({"same_site": "loose"}, ValueError, "same_site should be"),
        ({"https_only": "yes"}, ValueError, "True, False or 'auto'"),
        ({"https_only": None}, TypeError, "True, False or 'auto'"),
        (
            {"same_site": "none", "https_only": False},
            ValueError,
            "same_site='none' takes https_only",
        ),
        (
            {"partitioned": True, "https_only": False},
            ValueError,
            "partitioned takes https_only",
        ),
        (
            {"cookie_name": "__Host-s", "https_only": False},
            ValueError,
            "cookie_name '__Host-s' takes https_only",
        ),
        (
            {"cookie_name": "__secure-s", "https_only": False},
            ValueError,
            "cookie_name '__secure-s' takes https_only",
        ),
        (
            {"cookie_name": "__Host-s", "path": "/app"},
            ValueError,
            "cookie_name '__Host-s' takes path='/' and no domain",
        ),
        (
            {"cookie_name": "__HOST-s", "domain": "a.example"},
            ValueError,
            "cookie_name '__HOST-s' takes path='/' and no domain",
        ),
    ],
    ids=str,
)
def test_wrong_option_is_refused_in_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for factory in (session_middleware, SignedCookieStorage):
        with pytest.raises(error) as caught:
            factory(KEY, **options)
        assert str(caught.value).startswith(f"{factory.__name__} ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        {"cookie_name": "other"},
        {"max_age": 60},
        {"path": "/app"},
        {"domain": "a.example"},
        {"same_site": "strict"},
        {"https_only": True},
    ],
    ids=str,
)
def test_options_of_the_cookie_are_refused_beside_a_storage(
    option: dict[str, Any],
) -> None:
    for storage in (Memory(), SignedCookieStorage(KEY)):
        with pytest.raises(ValueError, match="goes with a key") as caught:
            session_middleware(storage, **option)
        assert next(iter(option)) in str(caught.value)


# Which cookie counts
# ===================

#: Cookies that others set for the same site, odd ones among them.
ODD = [
    "a=b c",
    'g_state={"i_l":0,"i_p":1}',
    "a(b)=1",
    "ä=ö",
    "=nameless",
    "flag",
    '"',
    "a=\\",
    "$Version=1",
    "__Secure-1PSID=x.y",
    "",
]


@pytest.mark.parametrize("odd", ODD)
async def test_session_is_found_beside_any_other_cookie(
    browse: Browse, odd: str
) -> None:
    for storage in (KEY, aiohttp_session.SimpleCookieStorage()):
        client = await browse(session_middleware(storage))
        first = await client.get("/visit")
        (line,) = cookies_of(first)
        ours = line.partition(";")[0]
        for sent in (f"{odd}; {ours}", f"{ours};{odd}", f"{odd};\t{ours}\t"):
            answer = await raw_get(client, "/look", [sent])
            assert answer == {"visits": 1}, sent
        for sent_lines in ([odd, ours], [ours, odd]):
            assert await raw_get(client, "/look", sent_lines) == {"visits": 1}


async def raw_get(client: Client, path: str, lines: list[str]) -> Any:
    sent = "".join(f"Cookie: {line}\r\n" for line in lines)
    answer = head(
        await raw(
            client.server,
            f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            f"{sent}\r\n".encode(),
        )
    )
    assert answer.status == 200
    return json.loads(answer.rest)


@pytest.mark.parametrize(
    "sent",
    [
        "a=b session={}",
        "a=b\u2000session={}",
        "\u2000session={}",
        "\xa0session={}",
        "\x85session={}",
        "Session={}",
        "session ={}x",
        "xsession={}",
        'a="; session={}x',
        "a=b,session={}",
    ],
)
async def test_no_other_cookie_passes_for_the_session(
    browse: Browse, sent: str
) -> None:
    client = await browse()
    value = signed(GOOD)
    assert await raw_get(client, "/look", [f"session={value}"]) == GOOD
    assert await raw_get(client, "/look", [sent.format(value)]) == {}
    # Nor does it hide ours.
    both = f"session={value}; {sent.format(signed({'user': 'evil'}))}"
    assert await raw_get(client, "/look", [both]) == GOOD


async def test_storage_of_aiohttp_session_is_not_deceived_either(
    browse: Browse,
) -> None:
    client = await browse(
        session_middleware(aiohttp_session.SimpleCookieStorage())
    )
    (line,) = cookies_of(await client.get("/visit"))
    value = line.partition(";")[0].partition("=")[2]
    for sent in (
        f"a=b AIOHTTP_SESSION={value}",
        f"\u2000AIOHTTP_SESSION={value}",
    ):
        assert await raw_get(client, "/look", [sent]) == {}


async def test_of_several_cookies_the_first_that_is_good_counts(
    browse: Browse,
) -> None:
    client = await browse()
    bad, good = f"session={signed(GOOD, 'foreign')}", f"session={signed(GOOD)}"
    also = f"session={signed({'user': 2})}"
    for sent in (f"{bad}; {good}", f"{good}; {bad}", f"{good}; {also}"):
        assert await raw_get(client, "/look", [sent]) == GOOD
    assert await raw_get(client, "/look", [bad, good]) == GOOD
    many = "; ".join([bad] * 40)
    assert await raw_get(client, "/look", [f"{many}; {good}"]) == {}


async def test_host_cookie_that_comes_twice_is_none(browse: Browse) -> None:
    client = await browse(
        session_middleware(KEY, cookie_name="__Host-session", https_only=True)
    )
    one = f"__Host-session={signed(GOOD)}"
    assert await raw_get(client, "/look", [one]) == GOOD
    assert await raw_get(client, "/look", [f"{one}; {one}"]) == {}
    assert await raw_get(client, "/look", [one, "__Host-session=x"]) == {}
    assert (
        await raw_get(client, "/look", [f"{one}; a=b __Host-session"]) == GOOD
    )


# Answers that are not the handler's
# ==================================


class OnServer(aiohttp_session.AbstractStorage):
    """Keeps sessions on the server, and the cookie names one."""

    def __init__(self) -> None:
        super().__init__(cookie_name="session")
        self.kept: dict[str, dict[str, Any]] = {}

    async def load_session(
        self, request: web.Request
    ) -> aiohttp_session.Session:
        name = self.load_cookie(request)
        if name not in self.kept:
            return aiohttp_session.Session(None, data=None, new=True)
        return aiohttp_session.Session(
            name,
            data={"created": int(time.time()), "session": self.kept[name]},
            new=False,
        )

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        name = session.identity or f"session-{len(self.kept)}"
        self.kept[name] = dict(session)
        self.save_cookie(response, name)


async def late_login(
    browse: Browse, storage: Any, *, fails: bool, sent: str
) -> list[str]:
    """Log in behind a limit that strikes in the middle of it."""
    going, ended = asyncio.Event(), asyncio.Event()

    async def login(request: web.Request) -> web.Response:
        try:
            session = await aiohttp_session.get_session(request)
            session["user"] = "not yet"
            await going.wait()
            if fails:
                raise ZeroDivisionError
            session["user"] = "Zoë"
            return web.Response()
        finally:
            asyncio.get_running_loop().call_soon(ended.set)

    client = await browse(
        session_middleware(storage),
        error_middleware(),
        timeout_middleware(0.02),
        shield_middleware(methods=["GET"]),
        login=login,
    )
    response = await client.get("/login", headers=cookie(sent))
    assert response.status == 504
    going.set()
    await ended.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    return cookies_of(response)


@pytest.mark.parametrize("fails", [False, True])
async def test_answer_of_somebody_else_takes_no_session_along(
    browse: Browse, *, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cookies = await late_login(browse, KEY, fails=fails, sent="x")
    assert cookies == []
    lost = [r for r in caplog.records if "that is lost" in r.getMessage()]
    assert len(lost) == (0 if fails else 1)


@pytest.mark.parametrize("fails", [False, True])
async def test_final_state_is_saved_on_the_server_when_the_handler_ends(
    browse: Browse, *, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    storage = OnServer()
    storage.kept["session-0"] = {"user": "nobody"}
    cookies = await late_login(browse, storage, fails=fails, sent="session-0")
    assert cookies == []
    assert storage.kept == {"session-0": {"user": "nobody" if fails else "Zoë"}}
    assert not [r for r in caplog.records if "lost" in r.getMessage()]


async def test_stream_that_a_task_of_the_handler_prepares_is_the_handlers(
    browse: Browse,
) -> None:
    async def inside(request: web.Request) -> web.StreamResponse:
        await change(request)
        return await asyncio.ensure_future(answers.streamed(request))

    client = await browse(session_middleware(KEY), inside=(), stream=inside)
    response = await client.get("/stream")
    assert session_of(value_of(response)) == {"kind": "/stream"}


async def test_session_is_free_without_the_garbage_collector(
    browse: Browse,
) -> None:
    requests: list[weakref.ref[web.Request]] = []

    async def websocket(request: web.Request) -> web.WebSocketResponse:
        requests.append(weakref.ref(request))
        await change(request)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive()
        return ws

    async def waits(request: web.Request) -> web.Response:
        requests.append(weakref.ref(request))
        await change(request)
        await asyncio.Event().wait()
        raise AssertionError

    client = await browse(
        session_middleware(KEY),
        compression_middleware(),
        ws=websocket,
        waits=waits,
    )
    gc.disable()
    try:
        async with client.ws_connect("/ws") as ws:
            await ws.close()
        waiting = asyncio.ensure_future(client.get("/waits"))
        await eventually(lambda: len(requests) == 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await client.close()
        await eventually(lambda: all(it() is None for it in requests))
    finally:
        gc.enable()


async def test_session_that_is_asked_for_after_a_failure_holds_nothing(
    browse: Browse,
) -> None:
    requests: list[weakref.ref[web.Request]] = []
    tasks: list[asyncio.Task[None]] = []
    failed = asyncio.Event()

    async def later(request: web.Request) -> None:
        await failed.wait()
        await change(request)

    async def fails(request: web.Request) -> web.Response:
        requests.append(weakref.ref(request))
        tasks.append(asyncio.ensure_future(later(request)))
        raise asyncio.TimeoutError

    client = await browse(session_middleware(KEY), fails=fails)
    gc.disable()
    try:
        response = await client.get("/fails")
        assert response.status == 504
        assert "Set-Cookie" not in response.headers
        failed.set()
        await tasks.pop()
        await client.close()
        await eventually(lambda: requests[0]() is None)
    finally:
        gc.enable()


# How long it lasts
# =================


async def test_rolling_session_is_renewed_in_its_second_half(
    browse: Browse,
) -> None:
    client = await browse(session_middleware(KEY, max_age=100, rolling=True))
    for age, renewed in ((0, False), (49, False), (52, True), (99, True)):
        response = await client.get(
            "/look", headers=cookie(signed(GOOD, age=age))
        )
        assert await response.json() == GOOD
        if renewed:
            assert session_of(value_of(response)) == GOOD
        else:
            assert cookies_of(response) == []
    response = await client.get("/look", headers=cookie(signed(GOOD, age=101)))
    assert await response.json() == {}
    # Without it, the age counts from the last change.
    client = await browse(session_middleware(KEY, max_age=100))
    response = await client.get("/look", headers=cookie(signed(GOOD, age=99)))
    assert cookies_of(response) == []


async def test_partitioned_cookie_is_secure(browse: Browse) -> None:
    client = await browse(session_middleware(KEY, partitioned=True))
    response = await client.get("/visit")
    attributes = cookies_of(response)[0].split("; ")
    assert "Partitioned" in attributes
    assert "Secure" in attributes
    # It is deleted with the same.
    response = await client.get("/out", headers=cookie(signed(GOOD)))
    attributes = cookies_of(response)[0].split("; ")
    assert "Partitioned" in attributes


async def test_logout_of_nobody_saves_nothing(browse: Browse) -> None:
    storage = OnServer()
    client = await browse(session_middleware(storage))
    response = await client.get("/out")
    assert cookies_of(response) == []
    assert storage.kept == {}


def test_short_key_is_warned_of_and_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session_middleware(["a key that is long enough", "hunter2"])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "hunter2" not in record.getMessage()
    session_middleware("a key that is long enough")
    assert len(caplog.records) == 1


async def test_cookie_with_an_absurd_time_is_an_empty_session(
    browse: Browse,
) -> None:
    class Signer(itsdangerous.TimestampSigner):
        def get_timestamp(self) -> int:
            return 2**60

    value = Signer(KEY).sign(b64encode(b"{}")).decode()
    client = await browse(session_middleware(KEY, max_age=None))
    response = await client.get("/look", headers=cookie(value))
    assert (response.status, await response.json()) == (200, {})


async def test_session_that_is_asked_for_after_the_headers_is_lost_and_logged(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await change(request)
        return response

    client = await browse(session_middleware(KEY), late=late)
    response = await client.get("/late")
    await response.read()
    assert cookies_of(response) == []
    (record,) = caplog.records
    assert "that is lost" in record.getMessage()


async def test_answer_in_place_of_one_that_was_prepared_has_the_last_word(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    async def second(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["a"] = 1
        await web.Response().prepare(request)
        session["a"] = 2
        raise web.HTTPFound("/look")

    client = await browse(session_middleware(KEY), second=second)
    response = await client.get("/second", allow_redirects=False)
    assert session_of(value_of(response)) == {"a": 2}
    assert caplog.records == []


async def test_504_has_no_cookie_though_the_handler_inside_has_returned(
    browse: Browse,
) -> None:
    going = asyncio.Event()

    @web.middleware
    async def lingers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        await going.wait()
        return response

    async def login(request: web.Request) -> web.Response:
        (await aiohttp_session.get_session(request))["user"] = "Zoë"
        return web.Response()

    client = await browse(
        session_middleware(KEY),
        error_middleware(),
        timeout_middleware(0.02),
        shield_middleware(methods=["GET"]),
        lingers,
        login=login,
    )
    response = await client.get("/login")
    assert response.status == 504
    assert cookies_of(response) == []
    going.set()


async def test_handler_that_returns_no_response_saves_nothing(
    browse: Browse,
) -> None:
    async def forgets(request: web.Request) -> web.Response:
        await change(request)
        return None  # type: ignore[return-value]

    for outside in ([], [error_middleware()]):
        client = await browse(
            session_middleware(KEY), *outside, forgets=forgets
        )
        response = await client.get("/forgets")
        assert response.status == 500
        assert cookies_of(response) == []
