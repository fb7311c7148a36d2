"""The host of a request: parsed, compared, and kept by clones."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpServer
from raw import head, raw

from aiohttp_middlewares._core.grammar.authority import (
    Authority,
    parse_authority,
)
from aiohttp_middlewares._core.requests import (
    authority_of,
    authority_text,
    cloned,
    moved,
)

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
        ("bücher.example", "xn--bcher-kva.example", None),
        ("BÜCHER.example:443", "xn--bcher-kva.example", 443),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example", None),
        ("bücher。example", "xn--bcher-kva.example", None),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        # other names in use
        ("api_service", "api_service", None),
        ("api_service:000080", "api_service", 80),
        ("a--b.~c", "a--b.~c", None),
        ("h:0", "h", 0),
        ("h:65535", "h", 65535),
        ("999.1.1.1", "999.1.1.1", None),
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
    ],
)
def test_what_is_no_host_is_none(text: str) -> None:
    assert parse_authority(text) is None


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
            ask("GET http://u@a.example/ HTTP/1.1", "Host: b"),
            ["u@a.example None", "None", "https://moved.example/"],
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
            [
                "bücher xn--bcher-kva",
                "xn--bcher-kva",
                "https://moved.example/x",
            ],
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
