"""What proxies say of the visitor: whom to believe, and how far."""

import ipaddress
import logging
import re
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import head, raw

from aiohttp_middlewares import proxy_headers, proxy_headers_middleware
from aiohttp_middlewares._core.grammar.forwarded import (
    forwarded_nearest_first,
)
from aiohttp_middlewares._core.requests import Peers
from aiohttp_middlewares.annotations import Handler

PROXIES = ["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"]
Fields = list[tuple[str, str]]


async def show(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.remote} {request.url}")


def application(**options: Any) -> web.Application:
    options.setdefault("trusted", PROXIES)
    app = web.Application(middlewares=[proxy_headers_middleware(**options)])
    app.router.add_route("*", "/", show)
    return app


async def seen(
    aiohttp_client: AiohttpClient, fields: Fields, **options: Any
) -> str:
    client = await aiohttp_client(application(**options))
    headers = CIMultiDict([("Host", "h.example"), *fields])
    response = await client.get("/", headers=headers)
    assert response.status == 200
    return await response.text()


def x_for(*lines: str) -> Fields:
    return [("X-Forwarded-For", line) for line in lines]


def x_proto(*lines: str) -> Fields:
    return [("X-Forwarded-Proto", line) for line in lines]


def forwarded(*lines: str) -> Fields:
    return [("Forwarded", line) for line in lines]


# What it does
# ============


async def test_remote_and_scheme_are_what_the_proxy_says(
    aiohttp_client: AiohttpClient,
) -> None:
    fields = x_for("192.0.2.1") + x_proto("https")
    text = await seen(aiohttp_client, fields)
    assert text == "192.0.2.1 https://h.example/"


@pytest.mark.parametrize(
    ("lines", "remote"),
    [
        # the walk
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.1, 10.255.255.255"], "192.0.2.1"),
        (["192.0.2.1", "10.0.0.1", "10.0.0.2"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1, 10.0.0.1"], "192.0.2.1"),
        (["10.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["garbage, 192.0.2.1"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2, 10.0.0.1"], "10.0.0.3"),
        (["192.0.2.1, 11.0.0.0"], "11.0.0.0"),
        (["192.0.2.1, 9.255.255.255"], "9.255.255.255"),
        # RFC 9110 5.6.1: empty elements are none
        ([" , 192.0.2.1,, 10.0.0.1 ,\t,"], "192.0.2.1"),
        (["192.0.2.1", "", ","], "192.0.2.1"),
        ([""], "127.0.0.1"),
        # spellings
        (["192.0.2.1:8080"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:DB8:0::0:1"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:8080"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["[fe80::1%25eth0]:80"], "fe80::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, ::ffff:10.0.0.5"], "192.0.2.1"),
        (["192.0.2.1, 2001:db8:1::5%eth0"], "192.0.2.1"),
        # what cannot be read ends the walk
        (["192.0.2.1, unknown, 10.0.0.1"], "10.0.0.1"),
        (["192.0.2.1, garbage"], "127.0.0.1"),
        (["garbage"], "127.0.0.1"),
        (["192.0.2.1, 10.0.0.256"], "127.0.0.1"),
        (["192.0.2.1, 010.0.0.1"], "127.0.0.1"),
        (["192.0.2.1, 10.0.0.1:"], "127.0.0.1"),
        (["192.0.2.1, 10.0.0.1:port"], "127.0.0.1"),
        (["192.0.2.1, 10.0.0.1 10.0.0.2"], "127.0.0.1"),
        (["192.0.2.1, 10.0.0.1/8"], "127.0.0.1"),
        (["192.0.2.1, 167772161"], "127.0.0.1"),
        (["192.0.2.1, ::1::"], "127.0.0.1"),
        (["192.0.2.1, [::1"], "127.0.0.1"),
        (["192.0.2.1, [10.0.0.1]"], "127.0.0.1"),
        (["192.0.2.1, \uff110.0.0.1"], "127.0.0.1"),
        # a quotation mark of the visitor's hides nothing
        (['"6.6.6.6, 192.0.2.1'], "192.0.2.1"),
    ],
)
async def test_nearest_that_is_not_trusted_is_the_client(
    aiohttp_client: AiohttpClient, lines: list[str], remote: str
) -> None:
    text = await seen(aiohttp_client, x_for(*lines))
    assert text == f"{remote} http://h.example/"


@pytest.mark.parametrize(
    ("trusted", "line", "remote"),
    [
        (1, "192.0.2.1", "192.0.2.1"),
        (1, "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (2, "192.0.2.1, 10.0.0.1", "192.0.2.1"),
        (2, "6.6.6.6, 192.0.2.1,, 10.0.0.1", "192.0.2.1"),
        (2, "192.0.2.1", "127.0.0.1"),
        (2, "", "127.0.0.1"),
        (3, "192.0.2.1, 10.0.0.1", "127.0.0.1"),
        (1, "192.0.2.1, garbage", "127.0.0.1"),
        (2, "192.0.2.1, garbage, 10.0.0.1", "10.0.0.1"),
    ],
)
async def test_number_of_proxies_counts_from_the_right(
    aiohttp_client: AiohttpClient, trusted: int, line: str, remote: str
) -> None:
    text = await seen(aiohttp_client, x_for(line), trusted=trusted)
    assert text == f"{remote} http://h.example/"


TWO_HOPS = x_for("6.6.6.6, 192.0.2.1, 10.0.0.1")


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        (x_proto("https"), "https"),
        (x_proto("HTTPS"), "https"),
        (x_proto("wss"), "https"),
        (x_proto("ws"), "http"),
        (x_proto("http"), "http"),
        # one value for all hops, or one for each
        (TWO_HOPS + x_proto("https"), "https"),
        (TWO_HOPS + x_proto("https, http"), "https"),
        (TWO_HOPS + x_proto("http, https"), "http"),
        (TWO_HOPS + x_proto("https, http, http"), "http"),
        (TWO_HOPS + x_proto("http, https, http"), "https"),
        (TWO_HOPS + x_proto("https", "http"), "https"),
        (x_for("192.0.2.1") + x_proto("https, http"), "http"),
        (x_for("garbage") + x_proto("http, https"), "https"),
        # what is no scheme of HTTP
        (x_proto("ftp"), "http"),
        (x_proto("javascript"), "http"),
        (x_proto(""), "http"),
        (x_proto("https;"), "http"),
        (TWO_HOPS + x_proto("ftp, https"), "http"),
    ],
)
async def test_scheme_is_what_the_outermost_proxy_says(
    aiohttp_client: AiohttpClient, fields: Fields, scheme: str
) -> None:
    text = await seen(aiohttp_client, fields)
    assert text.partition(" ")[2] == f"{scheme}://h.example/"


@pytest.mark.parametrize(
    ("fields", "host"),
    [
        ([], "h.example"),
        ([("X-Forwarded-Host", "shop.example")], "shop.example"),
        ([("X-Forwarded-Host", "shop.example:8080")], "shop.example:8080"),
        ([("X-Forwarded-Host", "[2001:db8::1]:80")], "[2001:db8::1]"),
        ([("X-Forwarded-Host", "evil, shop.example")], "shop.example"),
        ([*TWO_HOPS, ("X-Forwarded-Host", "evil, a, b")], "a"),
        ([*TWO_HOPS, ("X-Forwarded-Host", "a")], "a"),
        # what is no host is passed over
        ([("X-Forwarded-Host", "")], "h.example"),
        ([("X-Forwarded-Host", "a b")], "h.example"),
        ([("X-Forwarded-Host", "evil@x")], "h.example"),
        ([("X-Forwarded-Host", "x/y")], "h.example"),
        ([("X-Forwarded-Host", "a:65536")], "h.example"),
        ([("X-Forwarded-Host", "a:")], "h.example"),
    ],
)
async def test_host_is_taken_when_asked_for(
    aiohttp_client: AiohttpClient, fields: Fields, host: str
) -> None:
    text = await seen(aiohttp_client, fields, host=True)
    assert text.partition(" ")[2] == f"http://{host}/"
    text = await seen(aiohttp_client, fields)
    assert text.partition(" ")[2] == "http://h.example/"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # RFC 7239 4 and 7.1
        (['for="_gazonk"'], "127.0.0.1 http://h.example/"),
        (
            ['For="[2001:db8:cafe::17]:4711"'],
            "2001:db8:cafe::17 http://h.example/",
        ),
        (
            ["for=192.0.2.60;proto=https;by=203.0.113.43"],
            "192.0.2.60 https://h.example/",
        ),
        (
            ["for=192.0.2.43, for=198.51.100.17"],
            "198.51.100.17 http://h.example/",
        ),
        (["for=192.0.2.43,for=10.0.0.1"], "192.0.2.43 http://h.example/"),
        (
            ['for=192.0.2.43, for="[2001:db8:1::17]"'],
            "192.0.2.43 http://h.example/",
        ),
        (
            ["for=192.0.2.43", 'for="[2001:db8:1::17]", for=unknown'],
            "127.0.0.1 http://h.example/",
        ),
        (["for=_hidden, for=_SEVKISEK"], "127.0.0.1 http://h.example/"),
        # that of a trusted proxy which does not name its client, too
        (
            ["for=unknown;proto=https, for=10.0.0.1;proto=http"],
            "10.0.0.1 https://h.example/",
        ),
        # 6: ports, obfuscated ones as well
        (['for="192.0.2.43:47011"'], "192.0.2.43 http://h.example/"),
        (['for="192.0.2.43:_port.1"'], "192.0.2.43 http://h.example/"),
        # empty pairs, quoted pairs, white space
        (["for=192.0.2.1;;proto=https;"], "192.0.2.1 https://h.example/"),
        ([r'for="192.0.2.\1"; proto = http'], "127.0.0.1 http://h.example/"),
        ([r'for="192.0.2.\1" ; proto=https'], "192.0.2.1 https://h.example/"),
        ([",, for=192.0.2.1 ,,"], "192.0.2.1 http://h.example/"),
        # the outermost proxy's word counts, and a single one for all
        (
            ["for=192.0.2.1;proto=https, for=10.0.0.1;proto=http"],
            "192.0.2.1 https://h.example/",
        ),
        (
            ["for=192.0.2.1, for=10.0.0.1;proto=https"],
            "192.0.2.1 https://h.example/",
        ),
        (["proto=https"], "127.0.0.1 https://h.example/"),
        (
            ["for=6.6.6.6;proto=https, for=192.0.2.1"],
            "192.0.2.1 http://h.example/",
        ),
        (
            ['for=192.0.2.1;host="shop.example:80";proto=https'],
            "192.0.2.1 https://shop.example:80/",
        ),
        # malformed
        (
            ["for=192.0.2.1, for=10.0.0.1;for=10.0.0.2"],
            "127.0.0.1 http://h.example/",
        ),
        (["for=192.0.2.1, for"], "127.0.0.1 http://h.example/"),
        (["for=192.0.2.1, for="], "127.0.0.1 http://h.example/"),
        (["for=192.0.2.1, for=[::1]"], "127.0.0.1 http://h.example/"),
        (['for=192.0.2.1, for="10.0.0.1'], "127.0.0.1 http://h.example/"),
        (["for=2001:db8::1"], "127.0.0.1 http://h.example/"),
        # what real proxies send: an IPv6 address as a whole, if it is quoted
        (['for="2001:db8::1"'], "2001:db8::1 http://h.example/"),
        (['for="2001:db8::1%eth0"'], "2001:db8::1 http://h.example/"),
        (['for="2001:db8::1:x"'], "127.0.0.1 http://h.example/"),
        # an open quotation mark of the visitor's hides nothing
        (['for="6.6.6.6, for=192.0.2.1'], "192.0.2.1 http://h.example/"),
        (['for="\\, for="[2001:db8::9]"'], "2001:db8::9 http://h.example/"),
    ],
)
async def test_forwarded_is_read_as_rfc_7239_says(
    aiohttp_client: AiohttpClient, lines: list[str], expected: str
) -> None:
    text = await seen(
        aiohttp_client, forwarded(*lines), family="forwarded", host=True
    )
    assert text == expected


@pytest.mark.parametrize(
    ("fields", "remote"),
    [
        ([("CF-Connecting-IP", "192.0.2.1")], "192.0.2.1"),
        ([("CF-Connecting-IP", "2001:db8::1")], "2001:db8::1"),
        ([("CF-Connecting-IP", "::ffff:192.0.2.1")], "192.0.2.1"),
        (
            [
                ("CF-Connecting-IP", "6.6.6.6"),
                ("CF-Connecting-IP", "192.0.2.1"),
            ],
            "192.0.2.1",
        ),
        # unreadable or absent: the peer, whatever else is there
        (
            [("CF-Connecting-IP", "6.6.6.6"), ("CF-Connecting-IP", "")],
            "127.0.0.1",
        ),
        ([("CF-Connecting-IP", "6.6.6.6, 192.0.2.1")], "127.0.0.1"),
        ([("CF-Connecting-IP", "garbage"), *x_for("6.6.6.6")], "127.0.0.1"),
        (x_for("6.6.6.6"), "127.0.0.1"),
    ],
)
async def test_header_with_one_address_counts_alone(
    aiohttp_client: AiohttpClient, fields: Fields, remote: str
) -> None:
    for family in ("x-forwarded", "forwarded"):
        text = await seen(
            aiohttp_client,
            fields,
            family=family,
            client_ip_header="CF-Connecting-IP",
        )
        assert text == f"{remote} http://h.example/"


async def test_peer_on_a_unix_socket_can_be_trusted() -> None:
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        for trusted, expected in (
            (["unix"], "192.0.2.1 https://h.example/"),
            (1, "192.0.2.1 https://h.example/"),
            (["0.0.0.0/0", "::/0"], " http://h.example/"),
        ):
            runner = web.AppRunner(application(trusted=trusted))
            await runner.setup()
            await web.UnixSite(runner, path).start()
            fields = [*x_for("192.0.2.1"), *x_proto("https")]
            async with aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path)
            ) as session:
                response = await session.get(
                    "http://h.example/", headers=fields
                )
                assert await response.text() == expected
            await runner.cleanup()


async def test_peer_on_a_socket_for_both_families_is_known() -> None:
    with socket.socket(socket.AF_INET6) as both:
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            both.bind(("::ffff:127.0.0.1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        runner = web.AppRunner(application(trusted=["127.0.0.0/8"]))
        await runner.setup()
        await web.SockSite(runner, both).start()
        url = f"http://127.0.0.1:{both.getsockname()[1]}/"
        async with aiohttp.ClientSession() as session:
            response = await session.get(url, headers=x_for("192.0.2.1"))
            assert (await response.text()).startswith("192.0.2.1 ")
        await runner.cleanup()


# What it leaves alone
# ====================


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"], ["::1"], ["unix"]])
@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
async def test_peer_that_is_not_trusted_changes_nothing(
    aiohttp_client: AiohttpClient, trusted: list[str], family: str
) -> None:
    fields = [
        *x_for("6.6.6.6"),
        *x_proto("https"),
        ("X-Forwarded-Host", "evil"),
        ("CF-Connecting-IP", "6.6.6.6"),
        *forwarded("for=6.6.6.6;proto=https;host=evil"),
    ]
    for client_ip_header in (None, "CF-Connecting-IP"):
        text = await seen(
            aiohttp_client,
            fields,
            trusted=trusted,
            family=family,
            host=True,
            client_ip_header=client_ip_header,
        )
        assert text == "127.0.0.1 http://h.example/"


async def test_families_are_never_mixed(aiohttp_client: AiohttpClient) -> None:
    one = forwarded("for=6.6.6.6;proto=https;host=evil")
    other = [
        *x_for("7.7.7.7"),
        *x_proto("https"),
        ("X-Forwarded-Host", "evil"),
    ]
    nothing = "127.0.0.1 http://h.example/"
    assert await seen(aiohttp_client, one, host=True) == nothing
    assert (
        await seen(aiohttp_client, other, host=True, family="forwarded")
        == nothing
    )


@web.middleware
async def forged(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(remote="10.0.0.1"))


async def test_trust_is_judged_by_the_socket(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(
        middlewares=[forged, proxy_headers_middleware(trusted=["10.0.0.0/8"])]
    )
    app.router.add_get("/", show)
    client = await aiohttp_client(app)
    response = await client.get("/", headers=x_for("6.6.6.6"))
    assert (await response.text()).startswith("10.0.0.1 ")


@web.middleware
async def outside(request: web.Request, handler: Handler) -> web.StreamResponse:
    changed = request.clone(scheme="https", host="outside.example")
    changed["kept"] = "yes"  # type: ignore[index,unused-ignore]
    return await handler(changed)


@pytest.mark.filterwarnings("ignore:It is recommended to use web.RequestKey")
async def test_what_an_earlier_clone_has_set_is_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request["kept"] == "yes"
        return await show(request)

    app = web.Application(
        middlewares=[outside, proxy_headers_middleware(trusted=1)]
    )
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    response = await client.get("/", headers=x_for("192.0.2.1"))
    assert await response.text() == "192.0.2.1 https://outside.example/"


@web.middleware
async def reads(request: web.Request, handler: Handler) -> web.StreamResponse:
    await request.read()
    return await handler(request)


async def test_request_whose_body_was_read_goes_on_unchanged(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    app = web.Application(
        middlewares=[reads, proxy_headers_middleware(trusted=1)]
    )
    app.router.add_post("/", show)
    client = await aiohttp_client(app)
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        for _ in range(2):
            response = await client.post(
                "/", headers=x_for("6.6.6.6"), data="x"
            )
            assert (await response.text()).startswith("127.0.0.1 ")
    (record,) = caplog.records  # once, not for each request
    assert record.levelno == logging.WARNING
    assert record.name == "aiohttp_middlewares.proxy_headers"
    assert "further out" in record.getMessage()


# Absolute targets
# ================


async def test_absolute_target_can_be_changed(
    aiohttp_server: AiohttpServer,
) -> None:
    # aiohttp itself would raise ValueError for a host with a port here.
    server = await aiohttp_server(application(trusted=1, host=True))
    sent = (
        b"GET http://inner.example:8080/?q HTTP/1.1\r\nHost: x\r\n"
        b"Connection: close\r\nX-Forwarded-For: 192.0.2.1\r\n"
    )
    for more, expected in (
        (b"", b"192.0.2.1 http://inner.example:8080/?q"),
        (
            b"X-Forwarded-Host: shop.example:99\r\n",
            b"192.0.2.1 http://shop.example:99/?q",
        ),
        (
            b"X-Forwarded-Host: a b\r\n",
            b"192.0.2.1 http://inner.example:8080/?q",
        ),
        (
            b"X-Forwarded-Proto: https\r\n",
            b"192.0.2.1 https://inner.example:8080/?q",
        ),
    ):
        assert head(await raw(server, sent + more + b"\r\n")).rest == expected


# Every kind of response
# ======================


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_response_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    seen: list[str | None] = []

    @web.middleware
    async def sees(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append(request.remote)
        return await handler(request)

    client = await aiohttp_client(
        answers.application(proxy_headers_middleware(trusted=PROXIES), sees)
    )
    for more, remote in (
        ([], "127.0.0.1"),
        (x_for("192.0.2.1"), "192.0.2.1"),
    ):
        response = await client.get(
            kind.path,
            headers=CIMultiDict([*kind.fields.items(), *more]),
            allow_redirects=False,
        )
        assert response.status == kind.status
        assert seen.pop() == remote
        response.close()


# Any bytes
# =========

ADDRESSES = st.one_of(
    st.sampled_from(["10.0.0.1", "10.9.9.9", "2001:db8:1::1", "unknown", "_x"]),
    st.ip_addresses().map(str),
)
PIECES = st.one_of(
    ADDRESSES,
    st.sampled_from(
        [
            ",",
            ";",
            '"',
            "\\",
            "=",
            "for=",
            "[",
            "]",
            ":",
            "%",
            " ",
            "\t",
            "::ffff:",
        ]
    ),
    st.text(max_size=3),
)
LINES = st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=3)
TRUSTED = Peers("test", PROXIES)


def believed(fields: Fields, family: str) -> str | None:
    request = make_mocked_request("GET", "/", CIMultiDict(fields))
    if family == "forwarded":
        reports = proxy_headers._read_forwarded(request)
    else:
        reports = proxy_headers._read_x_forwarded(request)
    read = partial(proxy_headers._hop, TRUSTED)
    client, depth = proxy_headers._walk(reports.hops, read, None)
    # One that names no client counts as well: its proxy was trusted.
    assert depth > 0 if client else depth < 2
    proxy_headers._last(reports.protos, depth)
    proxy_headers._last(reports.hosts, depth)
    return client


@given(
    LINES,
    st.ip_addresses(),
    st.lists(st.ip_addresses(v=4, network="10.0.0.0/8"), max_size=3),
)
@example(['"'], ipaddress.IPv4Address("6.6.6.6"), [])
@example(['for="\\'], ipaddress.IPv6Address("::6"), [])
def test_nobody_looks_past_the_first_that_is_not_trusted(
    lines: list[str], client: Any, proxies: list[Any]
) -> None:
    """Whatever the visitor sends, his address is what the proxy adds."""
    mapped = getattr(client, "ipv4_mapped", None)
    client = mapped or client
    if TRUSTED.networks.has(client):
        return
    found = ", ".join(map(str, [client, *proxies]))
    sent = x_for(*lines[:-1], f"{lines[-1]},{found}" if lines else found)
    assert believed(sent, "x-forwarded") == str(client)

    found = ", ".join(
        f'for="[{hop}]";proto=http' if hop.version == 6 else f"for={hop}"
        for hop in [client, *proxies]
    )
    sent = forwarded(*lines[:-1], f"{lines[-1]},{found}" if lines else found)
    assert believed(sent, "forwarded") == str(client)
    # As a line of its own it is no different.
    assert believed(forwarded(*lines, found), "forwarded") == str(client)


@given(LINES)
def test_any_text_is_an_address_or_nothing(lines: list[str]) -> None:
    for family in ("x-forwarded", "forwarded"):
        fields = x_for(*lines) + forwarded(*lines)
        client = believed(fields, family)
        assert client is None or ipaddress.ip_address(client)


TOKENS = st.from_regex(r"[A-Za-z0-9._-]{1,8}", fullmatch=True)
QUOTED = st.text('ab,;=\\" \t[]:', max_size=9)


def written(pairs: dict[str, tuple[str, bool]]) -> str:
    return ";".join(
        name
        + "="
        + ('"' + re.sub(r'([\\"])', r"\\\1", value) + '"' if q else value)
        for name, (value, q) in pairs.items()
    )


VALUES = st.one_of(
    st.tuples(TOKENS, st.booleans()), st.tuples(QUOTED, st.just(True))
)
NAMES = st.sampled_from(["for", "by", "host", "proto", "ext"])
ELEMENTS = st.lists(
    st.dictionaries(NAMES, VALUES, min_size=1), min_size=1, max_size=4
)


@given(ELEMENTS)
def test_well_formed_elements_are_read_as_they_were_written(
    elements: list[dict[str, tuple[str, bool]]],
) -> None:
    line = ", ".join(map(written, elements))
    assert list(forwarded_nearest_first([line])) == [
        {name: value for name, (value, _) in element.items()}
        for element in reversed(elements)
    ]


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "trusted"),
        (
            {"trusted": "10.0.0.1"},
            TypeError,
            "proxy_headers_middleware trusted should be a collection of IP "
            "addresses, networks or 'unix', got '10.0.0.1'; "
            "did you mean ['10.0.0.1']?",
        ),
        ({"trusted": None}, TypeError, "trusted should be a collection"),
        ({"trusted": ["*"]}, ValueError, "trusted should be a collection"),
        ({"trusted": [1]}, TypeError, "trusted should be a collection"),
        (
            {"trusted": ["10.0.0.1/8"]},
            ValueError,
            "did you mean '10.0.0.0/8'?",
        ),
        ({"trusted": 0}, ValueError, "a whole number, 1 or more, got 0"),
        ({"trusted": -1}, ValueError, "a whole number, 1 or more, got -1"),
        ({"trusted": True}, TypeError, "a whole number, 1 or more, got True"),
        ({"trusted": 1.0}, TypeError, "trusted should be a collection"),
        (
            {"trusted": 1, "family": "both"},
            ValueError,
            "family should be 'x-forwarded' or 'forwarded', got 'both'",
        ),
        ({"trusted": 1, "family": None}, ValueError, "family should be"),
        ({"trusted": 1, "host": 1}, TypeError, "host should be True or False"),
        (
            {"trusted": 1, "client_ip_header": "a b"},
            ValueError,
            "client_ip_header should be a header name, got 'a b'",
        ),
        (
            {"trusted": 1, "client_ip_header": ["a"]},
            TypeError,
            "client_ip_header should be a header name",
        ),
    ],
)
def test_wrong_option_is_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        proxy_headers_middleware(**options)
