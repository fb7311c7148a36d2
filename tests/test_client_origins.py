"""Origins: who gets credentials, and who never does."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    Token,
    basic_auth_middleware,
    propagate_request_id_middleware,
)
from aiohttp_middlewares.client._origins import origin_of, parse_origins


async def refresh(session: aiohttp.ClientSession, old: Token | None) -> Token:
    return Token("secret")


def bearer(origins: Any) -> aiohttp.ClientMiddlewareType:
    return BearerTokenMiddleware(refresh, origins=origins)


def basic(origins: Any) -> aiohttp.ClientMiddlewareType:
    return basic_auth_middleware("me", "secret", origins=origins)


def request_id(origins: Any) -> aiohttp.ClientMiddlewareType:
    return propagate_request_id_middleware(
        origins=origins, header="Authorization"
    )


KINDS = [bearer, basic, request_id]
Make = Callable[[Any], aiohttp.ClientMiddlewareType]


class Spy:
    """The innermost middleware: it sees each hop before it is sent.

    What is in ``answers`` is not sent, but answered by another request.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    async def __call__(
        self, req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self.seen.append((str(req.url), req.headers.get("Authorization")))
        if req.url.scheme == "https":
            raise aiohttp.ClientConnectionError("It would have been sent")
        return await handler(req)


@pytest.fixture(autouse=True)
def current_request_id() -> Any:
    token = REQUEST_ID.set("secret")
    yield
    REQUEST_ID.reset(token)


async def redirect(request: web.Request) -> web.Response:
    location = request.query.get("to", "")
    if not location:
        return web.Response()
    return web.Response(status=307, headers={"Location": location})


@pytest.fixture
async def server() -> Any:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", redirect)
    async with TestServer(app) as server:
        yield server


@pytest.mark.parametrize("make", KINDS)
async def test_trusted_origin_gets_it_also_after_a_redirect(
    server: TestServer, make: Make
) -> None:
    spy = Spy()
    middlewares: list[Any] = [make([server.make_url("/")]), spy]
    async with (
        aiohttp.ClientSession(middlewares=middlewares) as session,
        session.get(server.make_url("/?to=/there")),
    ):
        pass
    assert len(spy.seen) == 2
    assert all(value for _, value in spy.seen)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("change", ["host", "port", "scheme", "userinfo"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_to_another_origin_takes_nothing_along(
    server: TestServer, make: Make, change: str, method: str
) -> None:
    url = server.make_url("/")
    assert url.host == "127.0.0.1"
    async with TestServer(server.app) as other:
        target = {
            "host": url.with_host("localhost"),
            "port": other.make_url("/"),
            "scheme": url.with_scheme("https").with_port(url.port),
            "userinfo": url.with_user("127.0.0.1").with_host("localhost"),
        }[change]
        spy = Spy()
        async with aiohttp.ClientSession(middlewares=[make([url]), spy]) as s:
            try:
                async with s.request(method, url.with_query(to=str(target))):
                    pass
            except aiohttp.ClientConnectionError:
                assert change == "scheme"
    (_, first), (_, second) = spy.seen
    assert first is not None
    assert second is None or "secret" not in second
    # In a URL somebody wrote credentials: those are aiohttp's to send.
    assert second is None or change == "userinfo"


@pytest.mark.parametrize("make", KINDS)
async def test_back_and_forth_serves_only_the_trusted_hops(
    server: TestServer, make: Make
) -> None:
    here = server.make_url("/")
    there = here.with_host("localhost")
    back = there.with_query(to=str(here))
    spy = Spy()
    async with (
        aiohttp.ClientSession(middlewares=[make([here]), spy]) as s,
        s.get(here.with_query(to=str(back))),
    ):
        pass
    assert [value is not None for _, value in spy.seen] == [True, False, True]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("own", [{}, {"Authorization": "mine"}])
async def test_same_request_sent_elsewhere_takes_nothing_along(
    server: TestServer, make: Make, own: dict[str, str]
) -> None:
    """A neighbour outside may turn to another server after a failure."""
    here = server.make_url("/")

    async def fail_over(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        (await handler(req)).release()
        req.url = here.with_host("localhost")
        return await handler(req)

    spy = Spy()
    middlewares: list[Any] = [fail_over, make([here]), spy]
    async with (
        aiohttp.ClientSession(middlewares=middlewares) as session,
        session.get(here, headers=own) as response,
    ):
        shown = response.request_info.headers.getall("Authorization", [])
    (_, first), (_, second) = spy.seen
    assert first is not None
    assert second == own.get("Authorization")
    assert shown == list(own.values())


@pytest.mark.parametrize("make", KINDS)
async def test_header_of_the_caller_elsewhere_is_not_touched(
    server: TestServer, make: Make
) -> None:
    spy = Spy()
    middlewares: list[Any] = [make(["https://api.example.com"]), spy]
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        async with session.get(
            server.make_url("/"), headers={"Authorization": "mine"}
        ):
            pass
        async with session.get(server.make_url("/")):
            pass
    assert [value for _, value in spy.seen] == ["mine", None]


@pytest.mark.parametrize("make", KINDS)
async def test_websocket_shares_the_origin_of_http(make: Make) -> None:
    seen: list[str | None] = []

    async def accept(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.headers.get("Authorization"))
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close()
        return ws

    app = web.Application()
    app.router.add_get("/", accept)
    async with TestServer(app) as server:
        url = server.make_url("/")
        for origin in (url, url.with_scheme("ws")):
            async with aiohttp.ClientSession(middlewares=[make([origin])]) as s:
                for asked in (url, url.with_scheme("ws")):
                    async with s.ws_connect(asked):
                        pass
    assert len([value for value in seen if value]) == 4


@pytest.mark.parametrize("make", KINDS)
def test_middleware_is_hashable(make: Make) -> None:
    assert hash(make(["https://a.example"]))


async def test_connection_that_fails_is_not_hidden() -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    for make in KINDS:
        async with aiohttp.ClientSession(middlewares=[make([url])]) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)


# Reading origins
# ===============


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://a.example", "https://a.example:443/path?query"),
        ("https://a.example:443/", "https://A.EXAMPLE/"),
        ("http://a.example", "ws://a.example:80/"),
        ("wss://a.example", "https://a.example/"),
        ("HTTPS://A.Example", "https://a.example/"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example/"),
        ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080/"),
        (URL("http://127.0.0.1"), "http://127.0.0.1/"),
    ],
)
def test_url_is_of_the_origin(origin: str | URL, url: str) -> None:
    assert origin_of(URL(url)) in parse_origins("origins", [origin])


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "https://a.example:444/",
        "https://b.a.example/",
        "https://a.example.evil.example/",
        "https://a.example@evil.example/",
        "https://evil.example/https://a.example",
        "https://a.example./",
        "https://aXexample/",
        "/relative",
    ],
)
def test_url_is_of_another_origin(url: str) -> None:
    trusted = parse_origins("origins", ["https://a.example"])
    assert origin_of(URL(url)) not in trusted


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("origins", "error", "message"),
    [
        ("https://a.example", TypeError, r"did you mean \['https://a.ex"),
        (URL("https://a.example"), TypeError, r"did you mean \[URL\("),
        (b"https://a.example", TypeError, "a collection of origins"),
        (None, TypeError, "a collection of origins"),
        ({"https://a.example": True}, TypeError, "a collection of origins"),
        ([], ValueError, "at least one"),
        ([None], TypeError, "a collection of origins"),
        (["a.example"], ValueError, "did you mean 'https://a.example'"),
        (["//a.example"], ValueError, "did you mean 'https://a.example'"),
        (["localhost:80"], ValueError, "a collection of origins"),
        (["https://"], ValueError, "a collection of origins"),
        (["ftp://a.example"], ValueError, "a collection of origins"),
        (["*"], ValueError, "a collection of origins"),
        (["https://*"], ValueError, "without wildcards"),
        (["https://*.a.example"], ValueError, "without wildcards"),
        (["https://a b"], ValueError, "such as 'https://api.example.com', got"),
        (["https://a.example/v1"], ValueError, "did you mean 'https://a.exa"),
        (["https://a.example?x"], ValueError, "without path, query"),
        (["https://a.example/#x"], ValueError, "without path, query"),
        (["https://a.example:99999"], ValueError, "a collection of origins"),
        (["https://[::1"], ValueError, "a collection of origins"),
    ],
)
def test_what_is_no_origin_is_refused_in_a_sentence(
    make: Make, origins: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"origins should be .*{message}"):
        make(origins)


def test_userinfo_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="without userinfo") as caught:
        parse_origins("origins", ["https://me:hush@a.example"])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("make", KINDS)
def test_origins_have_no_default(make: Make) -> None:
    factory: Any
    for factory in (
        lambda: BearerTokenMiddleware(refresh),  # type: ignore[call-arg]
        lambda: basic_auth_middleware("a", "b"),  # type: ignore[call-arg]
        lambda: propagate_request_id_middleware(),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match="origins"):
            factory()


@given(st.text(max_size=40) | st.from_regex(r"\Ahttps?://[a-z:/@.*#?]{1,12}\Z"))
@example("http://a.example:80")
@example("http://[v1.x]")
@example("http://a%2fb")
def test_text_is_an_origin_or_refused(text: str) -> None:
    try:
        (found,) = parse_origins("origins", [text])
    except ValueError as exc:
        if not str(exc).startswith("origins should be a collection of"):
            raise
        return
    scheme, host, port = found
    assert scheme in ("http", "https")
    assert port is not None
    shown = f"[{host}]" if ":" in host else host
    assert origin_of(URL(f"{scheme}://{shown}:{port}")) == found
