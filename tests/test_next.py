"""What aiohttp 3.15 and 4 change does not change what a visitor is answered.

Here the aiohttp that is installed is given the shapes of the next one, as far
as a middleware sees them: ``next_aiohttp.py``. The package is imported anew
in front of it. ``make test-next`` has the real one, where there is any.
"""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import next_aiohttp
import pytest
from aiohttp import web
from client_site import Naps, serve
from live import live
from multidict import CIMultiDict

pytestmark = pytest.mark.skipif(
    not issubclass(web.HTTPException, web.Response),
    reason="this is aiohttp 4",
)

OURS = ("aiohttp_middlewares", "answers", "whole", "test_mocked_request")


@pytest.fixture(scope="module")
def whole() -> Iterator[Any]:
    """The stack, of a package that never saw another aiohttp."""
    before = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in OURS
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in before:
            del sys.modules[name]
        next_aiohttp.shape(patch)
        try:
            yield importlib.import_module("whole")
        finally:
            for name in [*sys.modules]:
                if name.partition(".")[0] in OURS:
                    del sys.modules[name]
            sys.modules.update(before)


async def test_shapes_are_the_next_ones(whole: Any) -> None:
    seen: list[Any] = []

    async def outermost(request: web.Request, handler: Any) -> Any:
        if "X-A" not in request.headers:
            return await handler(request)
        headers: Any = request.headers
        seen.append((headers["X-A"], headers.getall("X-A"), request.raw_path))
        with pytest.raises(TypeError):
            headers.getall("X-A", None)
        try:
            return await handler(request)
        except web.HTTPException as exc:
            seen.append(exc)
            raise

    outermost.__middleware_version__ = 1  # type: ignore[attr-defined]
    async with live(web.Application(middlewares=[outermost])) as server:
        for _ in range(2):
            client = await server.connect()
            client.write(
                "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"
                'X-A: a, "b"\r\nX-A: c\r\n\r\n'
            )
            answer = await client.answer()
            assert (answer.status, answer.rest) == (404, b"404: Not Found")
            client.leave()
    assert seen[0] == seen[2] == ('a, "b", c', ("a", "b", "c"), "/x")
    assert seen[1] is seen[3]
    assert not isinstance(seen[1], web.Response)
    with pytest.raises(TypeError):
        web.HTTPRequestEntityTooLarge(1, 2)
    with pytest.warns(DeprecationWarning, match="not needed"):
        web.middleware(outermost)


@pytest.mark.filterwarnings("error")
def test_no_factory_warns(whole: Any) -> None:
    mocked = importlib.import_module("test_mocked_request")
    for name in mocked.FACTORIES:
        mocked.built(name)


async def test_all_kinds_are_answered_alike_through_the_whole_stack(
    whole: Any,
) -> None:
    async with whole.served(*whole.middlewares().values()) as server:
        assert await whole.statuses(server) == whole.EXPECTED


async def test_all_kinds_are_answered_alike_through_each(whole: Any) -> None:
    for name, middleware in whole.middlewares().items():
        expected = dict(whole.EXPECTED)
        if name != "error":
            expected["late-504"] = 504
        if name == "https_redirect":
            expected = dict.fromkeys(expected, 307)  # nobody says it is HTTPS
        async with whole.served(middleware) as server:
            assert await whole.statuses(server) == expected, name


# What broke each of them
# =======================


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://a.example:81/returned", "b.example", 200),
        ("http://u@a.example/returned", "a.example", 400),
        ("http://b.example/returned", "a.example", 400),
        ("http://a%/returned", "a.example", 400),
        ("http://[::g]/returned", "a.example", 400),
        ("/returned", "a.example", 200),
        ("/returned", "b.example", 400),
    ],
)
@pytest.mark.parametrize("cloned", [False, True])
async def test_host_of_a_target_counts(
    whole: Any, target: str, host: str, status: int, cloned: bool
) -> None:
    stack = whole.middlewares()
    names = ["proxy_headers", "https", "trusted_host"]
    async with whole.served(*(stack[name] for name in names)) as server:
        client = await server.connect()
        proto = "X-Forwarded-Proto: https\r\n" if cloned else ""
        client.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{proto}\r\n")
        assert (await client.head()).status == status
        client.leave()


@pytest.mark.parametrize("name", ["Host", "Authorization", "Origin"])
async def test_two_lines_are_not_taken_for_one(whole: Any, name: str) -> None:
    stack = whole.middlewares()
    once = {
        "Host": "a.example",
        "Authorization": whole.FIELDS["Authorization"],
        "Origin": whole.ORIGIN,
        "Sec-Fetch-Site": "same-site",
        "Connection": "close",
    }
    statuses = []
    names = ["trusted_host", "csrf", "basic_auth"]
    async with whole.served(*(stack[each] for each in names)) as server:
        for lines in (once, [*once.items(), (name, once[name])]):
            pairs = lines.items() if isinstance(lines, dict) else lines
            client = await server.connect()
            client.write(
                "POST /returned HTTP/1.1\r\n"
                + "".join(f"{key}: {value}\r\n" for key, value in pairs)
                + "\r\n"
            )
            statuses.append((await client.head()).status)
            client.leave()
    assert statuses[0] == 200
    assert statuses[1] in (400, 401, 403)


async def test_lines_of_a_list_are_read_as_one(whole: Any) -> None:
    """The nearest proxy wrote the last element, of whichever line."""
    stack = whole.middlewares()

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.remote} {request.scheme}")

    app = web.Application(middlewares=[stack["proxy_headers"]])
    app.router.add_get("/", handler)
    async with live(app) as server:
        client = await server.connect()
        client.write(
            "GET / HTTP/1.1\r\nHost: a.example\r\n"
            "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 192.0.2.1\r\n"
            "X-Forwarded-Proto: https\r\n\r\n"
        )
        assert (await client.answer()).rest == b"192.0.2.1 https"
        client.leave()


@pytest.mark.parametrize(
    ("raised", "status", "detail"),
    [
        (lambda: web.HTTPConflict(), 409, b"Conflict"),
        (lambda: web.HTTPConflict(text="taken"), 409, b"taken"),
        (lambda: web.HTTPNotFound(), 404, b"Not Found"),
        (lambda: web.HTTPNotModified(), 304, b""),
        (lambda: web.HTTPFound("/elsewhere"), 302, b""),
    ],
)
@pytest.mark.parametrize("stack", ["error", "whole"])
async def test_raised_answer_is_answered_as_it_is(
    whole: Any, raised: Any, status: int, detail: bytes, stack: str
) -> None:
    middlewares = whole.middlewares()

    async def handler(request: web.Request) -> web.Response:
        exc = raised()
        exc.headers["X-Own"] = "1"
        exc.set_cookie("seen", "yes")
        raise exc

    app = web.Application(
        middlewares=[middlewares["error"]]
        if stack == "error"
        else [*middlewares.values()]
    )
    app.router.add_get("/", handler)
    async with live(app) as server:
        answer = await whole.ask(server, "GET /", Accept_Encoding="")
    assert answer.status == status
    assert detail in answer.rest
    assert answer.headers["X-Own"] == "1"
    assert "seen=yes; Path=/" in answer.headers.getall("Set-Cookie")
    if status == 302:
        assert answer.headers["Location"] == "/elsewhere"


async def test_raised_answer_is_given_again(whole: Any) -> None:
    stack = whole.middlewares()
    count = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        exc = web.HTTPGone(text="taken", headers={"X-Own": "1"})
        exc.set_cookie("seen", "yes")
        raise exc

    app = web.Application(middlewares=[stack["error"], stack["idempotency"]])
    app.router.add_post("/", handler)
    async with live(app) as server:
        first, again = [
            await whole.ask(server, "POST /", b"", Idempotency_Key="1")
            for _ in range(2)
        ]
    assert count == 1
    assert first.status == again.status == 410
    assert first.rest == again.rest
    assert again.headers["X-Own"] == "1"
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_nobody_gets_what_another_visitors_404_had(whole: Any) -> None:
    async with whole.served(*whole.middlewares().values()) as server:
        theirs = await whole.ask(server, "GET /nowhere", b"")
        assert theirs.headers["Access-Control-Allow-Origin"] == whole.ORIGIN
        ids = {theirs.headers["X-Request-ID"]}
        for _ in range(2):
            mine = await whole.ask(server, "GET /nowhere", b"", Origin="")
            assert mine.status == 404
            assert "Access-Control-Allow-Origin" not in mine.headers
            assert len(mine.headers.getall("Server-Timing")) == 1
            ids |= set(mine.headers.getall("X-Request-ID"))
    assert len(ids) == 3
    shared = web.Application().router
    assert not any(
        name.startswith(("Access-Control", "X-Request", "Server", "Set-"))
        for name in await headers_of_404(shared)
    )


async def headers_of_404(router: web.UrlDispatcher) -> list[str]:
    request: Any = type("Request", (), {"_cache": {}, "method": "GET"})
    request.rel_url = next_aiohttp.SOMEWHERE
    info = await router.resolve(request)
    exc = info.http_exception
    assert exc is not None
    return [*exc.headers]


@pytest.mark.parametrize("name", ["body_limit", "idempotency"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_large_body_is_413(whole: Any, name: str, chunked: bool) -> None:
    middleware = whole.middlewares()[name]
    if name == "idempotency":
        package = importlib.import_module("aiohttp_middlewares")
        middleware = package.idempotency_middleware(max_body=1000)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application(middlewares=[middleware])
    app.router.add_post("/", handler)
    async with live(app, lingering_time=0.01) as server:
        client = await server.connect()
        if chunked:
            client.write(
                "POST / HTTP/1.1\r\nHost: a.example\r\nIdempotency-Key: 1\r\n"
                "Transfer-Encoding: chunked\r\n\r\n",
                b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
            )
        else:
            client.send("POST /", b"x" * 2000, fields="Idempotency-Key: 1\r\n")
        answer = await client.answer()
        assert answer.status == 413
        client.leave()


async def test_too_early_has_its_reason(whole: Any) -> None:
    async with whole.served(whole.middlewares()["early_data"]) as server:
        client = await server.connect()
        client.send("POST /returned", fields="Early-Data: 1\r\n")
        assert await client.until(b"\r\n") == b"HTTP/1.1 425 Too Early\r\n"
        client.leave()


async def test_unparsable_request_is_answered_by_all(
    whole: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """From aiohttp 4 on it passes the middlewares, without a header."""
    for name, middlewares in {
        "none": [],
        **{name: [each] for name, each in whole.middlewares().items()},
        "all": [*whole.middlewares().values()],
    }.items():
        async with whole.served(*middlewares) as server:
            client = await server.connect()
            client.write("GET / HTTP/1.1\r\nno header\r\n\r\n")
            answer = await client.head()
            # It does not say who asks.
            assert answer.status == (401 if name == "basic_auth" else 400), name
            client.leave()
    assert "Traceback" not in caplog.text


# The client
# ==========


async def test_request_that_waits_for_100_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    next_aiohttp.shape_client(monkeypatch)
    from aiohttp_middlewares.client import retry_middleware

    async with serve() as site:
        cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        site.answers = [(503, CIMultiDict(cookies), b""), 200]
        async with aiohttp.ClientSession(
            middlewares=[retry_middleware(sleep=Naps())],
            cookie_jar=aiohttp.CookieJar(unsafe=True),
        ) as session:
            async with session.put(
                site.url, data=b"body", expect100=True
            ) as answer:
                assert answer.status == 200
            assert {cookie.key for cookie in session.cookie_jar} == {"a", "b"}
        assert site.bodies == [b"body"] * 2
