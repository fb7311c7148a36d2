"""The host of a request: parsed, compared, and kept by clones."""

import asyncio
import socket
from typing import NamedTuple

import pytest
from aiohttp import HttpVersion, HttpVersion11, web
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from pytest_aiohttp.plugin import AiohttpServer
from raw import head, raw
from yarl import URL

from aiohttp_middlewares import https_middleware, proxy_headers_middleware
from aiohttp_middlewares._core.grammar.authority import (
    Authority,
    in_ascii,
    is_readable,
    parse_authority,
)
from aiohttp_middlewares._core.requests import (
    authority_of,
    authority_text,
    cloned,
    lines,
    moved,
)
from aiohttp_middlewares.annotations import Middleware

# The grammar
# ===========


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        # RFC 3986 1.1.2 and 3.2.2, RFC 9110 4.2.3 and 7.2
        ("ftp.is.co.za", "ftp.is.co.za", None),
        ("[2001:db8::7]", "[2001:db8::7]", None),
        ("192.0.2.16:80", "192.0.2.16", 80),
        ("EXAMPLE.com", "example.com", None),
        ("www.example.org:8001", "www.example.org", 8001),
        ("[v1.foo]", "[v1.foo]", None),
        ("[V1.Foo:bar]:80", "[v1.foo:bar]", 80),
        # one name in several spellings
        ("example.com.", "example.com", None),
        ("example.com.:8080", "example.com", 8080),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", None),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        # other names in use
        ("api_service", "api_service", None),
        ("api_service:000080", "api_service", 80),
        ("a--b.~c", "a--b.~c", None),
        ("h:0", "h", 0),
        ("h:65535", "h", 65535),
        ("999.1.1.1", "999.1.1.1", None),
        # RFC 1035 2.3.4: so long, and no longer
        ("a" * 253, "a" * 253, None),
        ("a" * 253 + ".:65535", "a" * 253, 65535),
    ],
)
def test_host_has_one_spelling(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == Authority(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":",
        ":80",
        "h:",
        "h:65536",
        "h:100000",
        "h:-1",
        "h:+80",
        "h:8O",
        "h:٨٠",
        "h:80:80",
        "h:" + "9" * 5000,
        "a b",
        "a\tb",
        "a\x00b",
        "h\n",
        "evil@x",
        "user:password@x",
        "x/y",
        "x?y",
        "x#y",
        "x\\y",
        "x,y",
        "x;y",
        "x'y",
        'x"y',
        "<x>",
        "x%2ey",
        "*",
        "*.example.com",
        ".",
        "..",
        ".example.com",
        "example..com",
        "example.com..",
        "::1",
        "[]",
        "[::1",
        "::1]",
        "[:::]",
        "[::1]:",
        "[::1].",
        "[::1]evil.example.com",
        "[::1]@attacker",
        "[::1]:evil",
        "[[::1]]",
        "[fe80::1%eth0]",
        "[fe80::1%25eth0]",
        "[::ffff:999.999.999.999]",
        "[1.2.3.4]",
        "[v1]",
        "[v.foo]",
        "[vg.foo]",
        "[ghijkl]",
        "ü b",
        "ü/x",
        "ü\uff1a80",
        "ü..de",
        "\udcff.de",
        "ü" * 300,
        "℀.example",  # a/c, once it is normalised
        # In other scripts one name has many spellings.
        "bücher.example",
        "\uff45xample.com",
        "\u212aing.example",  # its "K" in lower case is an ordinary one
        "[v1.\u212a]",
        "example\u3002com",
        "a" * 254,
        "a" * 254 + ".",
        "h:" + "0" * 300 + "80",
        "[v1." + "a" * 300 + "]",
    ],
)
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_authority(text) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Example.com", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bücher\u3002example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("ü..de", None),
        ("ü" * 300, None),
        ("\u0300" * 10_000, None),
    ],
)
def test_name_of_another_script_is_said_in_ascii(
    name: str, expected: str | None
) -> None:
    assert in_ascii(name) == expected


@given(
    st.from_regex(
        r"(([xX]n--)?[a-z0-9_-]{0,9}(\.xn--[a-z0-9-]{0,9})?\.?"
        r"|\[v1\.[a-f:.]{1,6}\])(:[0-9]{1,3})?",
        fullmatch=True,
    )
)
@example("xn--i-7iq.ws")
@example("example.xn--p1ai")
@example("xn--zz--:80")
@example("xn--99999v1.")
@example("[v1.::]")
def test_readable_host_is_one_that_a_url_tells(text: str) -> None:
    if parse_authority(text) is None:
        return
    if is_readable(text):
        assert URL.build(scheme="http", authority=text).host
    else:
        with pytest.raises(ValueError, match=r"IDNA|idna|port"):
            assert URL.build(scheme="http", authority=text).host


@given(st.text())
@example("İ.example")
@example("ß.")
@example("xn--ü")
@example("[v1.\udcff]")
def test_any_text_is_a_host_in_one_spelling_or_none(text: str) -> None:
    parsed = parse_authority(text)
    if parsed is not None:
        assert str(parsed).isascii()
        assert not set(str(parsed)) & set(" /?#@\\'\"<>,;\r\n\t\x00")
        assert parse_authority(str(parsed)) == parsed


@given(
    st.from_regex(
        r"[a-zA-Z0-9_-]{1,9}(\.[a-zA-Z0-9_-]{1,9}){0,3}", fullmatch=True
    ),
    st.integers(0, 65535),
)
def test_every_ordinary_host_is_one(name: str, port: int) -> None:
    assert parse_authority(f"{name}:{port}") == Authority(name.lower(), port)
    assert parse_authority(f"{name}.") == Authority(name.lower())


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_every_ipv6_address_is_one(address: object, port: int) -> None:
    assert parse_authority(f"[{address}]:{port}") == (f"[{address}]", port)


# The request
# ===========


async def show(request: web.Request) -> web.Response:
    """What the request says, and what a clone of a clone of it says."""
    shown = [f"{authority_text(request)} {authority_of(request)}"]
    scheme = request.scheme
    request = cloned(request, remote="192.0.2.1")
    request = cloned(request, scheme="https")
    request = cloned(request)
    assert request.scheme == "https", scheme
    assert request.remote == "192.0.2.1"
    shown.append(str(authority_of(request)))
    shown.append(str(moved(request, "https", "moved.example")))
    return web.Response(text="\n".join(shown))


@pytest.fixture
async def server(aiohttp_server: AiohttpServer) -> TestServer:
    app = web.Application()

    @web.middleware
    async def all_requests(
        request: web.Request, handler: object
    ) -> web.StreamResponse:
        return await show(request)

    app.middlewares.append(all_requests)
    return await aiohttp_server(app)


def ask(start: str, *fields: str) -> bytes:
    lines = [start, *fields, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            ask("GET /x?a=%2F&b HTTP/1.1", "Host: A:80"),
            ["A:80 a:80", "a:80", "https://moved.example/x?a=%2F&b"],
        ),
        (
            # RFC 9112 3.2.2: the target counts, not the field.
            ask("GET http://a.example:8080/x%2Fy?q HTTP/1.1", "Host: b"),
            [
                "a.example:8080 a.example:8080",
                "a.example:8080",
                "https://moved.example/x%2Fy?q",
            ],
        ),
        (
            ask("GET http://[::1]:80/x HTTP/1.1", "Host: b"),
            ["[::1]:80 [::1]:80", "[::1]:80", "https://moved.example/x"],
        ),
        (
            ask("GET http://a.example HTTP/1.1", "Host: b"),
            ["a.example a.example", "a.example", "https://moved.example/"],
        ),
        (
            ask("OPTIONS * HTTP/1.1", "Host: b"),
            ["b b", "b", "https://moved.example"],
        ),
        (
            ask("GET //evil.example/x HTTP/1.1", "Host: b"),
            ["b b", "b", "https://moved.example//evil.example/x"],
        ),
        (
            ask("GET /x HTTP/1.1", "Host: bücher"),
            ["bücher None", "None", "https://moved.example/x"],
        ),
        (
            ask("GET /x HTTP/1.0"),
            ["None None", "None", "https://moved.example/x"],
        ),
    ],
)
async def test_host_of_request_outlives_clones(
    server: TestServer, sent: bytes, expected: list[str]
) -> None:
    answer = head(await raw(server, sent))
    assert answer.rest.decode().split("\n") == expected


@pytest.mark.parametrize(
    "target",
    [
        "CONNECT /x",
        "GET http://u@a.example/",
        "GET http://a%/",
        "GET http://[::g]/",
        "GET http://a:/",
        "GET http://%C3%BC/",
    ],
)
@pytest.mark.parametrize(
    "changing",
    [
        https_middleware(),
        proxy_headers_middleware(trusted=1),
        proxy_headers_middleware(trusted=1, host=True),
    ],
)
async def test_host_that_no_request_can_have_is_no_error_of_the_server(
    aiohttp_server: AiohttpServer, target: str, changing: Middleware
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=str(request.url))

    app = web.Application(middlewares=[changing])
    app.router.add_route("*", "/{path:.*}", handler)
    server = await aiohttp_server(app)
    sent = ask(
        f"{target} HTTP/1.1",
        "Host: b",
        "X-Forwarded-Proto: https",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Host: c.example",
    )
    # Nor does it go on as it came: its visitor would have the address of the
    # proxy.
    assert head(await raw(server, sent)).status == 400


class _Message(NamedTuple):
    """What aiohttp 3.15 makes of ``GET http://u@a.example:81/x?y``."""

    method: str
    path: str
    version: HttpVersion
    headers: CIMultiDictProxy[str]
    raw_headers: tuple[tuple[bytes, bytes], ...]
    should_close: bool
    compression: None
    upgrade: bool
    chunked: bool
    url: URL


@pytest.mark.parametrize(
    ("target", "path", "text", "authority"),
    [
        ("http://a.example:81/x?y", "/x?y", "a.example:81", "a.example:81"),
        ("http://u@a.example/x", "/x", "u@a.example", "None"),
        ("/x", "/x", "b", "b"),
    ],
)
async def test_host_of_a_target_is_found_where_the_raw_path_has_lost_it(
    target: str, path: str, text: str, authority: str
) -> None:
    # As aiohttp has it from 3.15 on.
    raw_headers = ((b"Host", b"b"),)
    message = _Message(
        "GET",
        path,
        HttpVersion11,
        CIMultiDictProxy(CIMultiDict({"Host": "b"})),
        raw_headers,
        False,
        None,
        False,
        False,
        URL(target),
    )
    like = make_mocked_request("GET", path)
    request = web.Request(
        message,  # type: ignore[arg-type]
        like.content,
        like.protocol,
        like.writer,
        like.task,
        asyncio.get_running_loop(),
    )
    assert request.raw_path == path
    assert authority_text(request) == text
    assert str(authority_of(request)) == authority
    assert str(moved(request, "https", "m")) == f"https://m{path}"
    if authority != "None":
        assert str(authority_of(cloned(request))) == authority


async def test_name_server_is_not_asked_for_a_missing_host(
    aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getfqdn", lambda *name: asked.append(name))

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.scheme} {request.remote}")

    app = web.Application(
        middlewares=[proxy_headers_middleware(trusted=1), https_middleware()]
    )
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    sent = ask(
        "GET / HTTP/1.0",
        "X-Forwarded-Proto: https",
        "X-Forwarded-For: 192.0.2.1",
    )
    assert head(await raw(server, sent)).rest == b"https 192.0.2.1"
    assert asked == []


@pytest.mark.parametrize("joined", [False, True])
async def test_lines_of_a_field_are_as_many_as_were_sent(
    aiohttp_server: AiohttpServer, joined: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if joined:  # as aiohttp 4 gives them
            shown = CIMultiDict({"X-A": ", ".join(request.headers["X-A"])})
            request._headers = shown  # type: ignore[assignment]
        said = [lines(request, name) for name in ("X-A", "x-b", "X-C")]
        assert said == [['a, "b', "", "\udce4"], ["1"], []]
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    sent = ask(
        "GET / HTTP/1.1",
        "Host: a",
        'X-A:  a, "b ',
        "x-a:",
        "X-a: \udce4",
        "X-B: 1",
    )
    assert head(await raw(server, sent)).status == 200


async def test_two_hosts_are_none(server: TestServer) -> None:
    # RFC 9112 3.2; the parser of a newer aiohttp sees to it itself.
    sent = ask("GET / HTTP/1.1", "Host: a", "Host: b")
    answer = head(await raw(server, sent))
    assert answer.status == 400 or answer.rest.startswith(b"None None")


async def test_body_that_was_read_cannot_be_cloned(
    aiohttp_server: AiohttpServer,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        with pytest.raises(RuntimeError):
            cloned(request, scheme="https")
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handler)
    server = await aiohttp_server(app)
    sent = ask("POST / HTTP/1.1", "Host: a", "Content-Length: 1") + b"x"
    assert head(await raw(server, sent)).status == 200


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [
        ("https", 443, "https://h/"),
        ("https", None, "https://h/"),
        ("https", 8443, "https://h:8443/"),
        ("http", 80, "http://h/"),
        ("http", 443, "http://h:443/"),
    ],
)
async def test_default_port_is_left_out(
    aiohttp_server: AiohttpServer, scheme: str, port: int | None, expected: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=str(moved(request, scheme, "h", port)))

    app = web.Application()
    app.router.add_get("/", handler)
    server = await aiohttp_server(app)
    answer = head(await raw(server, ask("GET / HTTP/1.1", "Host: a:1")))
    assert answer.rest == expected.encode()
