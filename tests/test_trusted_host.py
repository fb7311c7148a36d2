"""Only requests to a host of ours are answered."""

import ipaddress
import logging
import re
from typing import Any

import answers
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import Head, head, raw

from aiohttp_middlewares import (
    proxy_headers_middleware,
    trusted_host,
    trusted_host_middleware,
)


def application(allowed: Any, **options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="in")

    app = web.Application(
        middlewares=[trusted_host_middleware(allowed, **options)]
    )
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def ask(
    aiohttp_server: AiohttpServer,
    app: web.Application,
    host: str | None,
    target: str = "/",
) -> Head:
    server = await aiohttp_server(app)
    field = b"" if host is None else b"Host: %b\r\n" % host.encode()
    version = b"1.0" if host is None else b"1.1"
    sent = b"GET %b HTTP/%b\r\n%bConnection: close\r\n\r\n"
    return head(await raw(server, sent % (target.encode(), version, field)))


def assert_refused(answer: Head) -> None:
    assert answer.status == 400
    assert answer.rest == b"Invalid host header"
    assert answer.headers["Content-Type"].startswith("text/plain")


# What it does
# ============

ALLOWED = [
    "example.com",
    "bücher.example",
    "xn--strae-oqa.example",
    "api_service",
    "[::1]",
    "2001:db8::/32",
    "[v1.foo]",
    "192.0.2.1",
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_address("192.0.2.3"),
    "*.example.org",
]


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "EXAMPLE.com",
        "example.com.",
        "example.com:8080",
        "example.com.:8080",
        "xn--bcher-kva.example",
        "XN--bcher-kva.example:80",
        "xn--strae-oqa.example",
        "api_service",
        "api_service:000080",
        "api_service:65535",
        "[::1]",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]",
        "[2001:db8:1::7]:80",
        "[v1.foo]",
        "192.0.2.1",
        "192.0.2.1:8000",
        "192.0.2.3",
        "10.0.0.0",
        "10.255.255.255:8080",
        "[::ffff:10.0.0.1]",
        "a.example.org",
        "a.b.example.org:80",
    ],
)
async def test_listed_host_is_answered(
    aiohttp_server: AiohttpServer, host: str
) -> None:
    answer = await ask(aiohttp_server, application(ALLOWED), host)
    assert (answer.status, answer.rest) == (200, b"in")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "example.com.evil.example",
        "evilexample.com",
        "a.example.com",
        "www.example.com",
        "example.org",
        ".example.org",
        "evilexample.org",
        "*.example.org",
        "192.0.2.2",
        "11.0.0.1",
        "9.255.255.255",
        "10.0.0",
        "[2001:db9::1]",
        "[::2]",
        "[v2.foo]",
    ],
)
async def test_other_host_is_refused(
    aiohttp_server: AiohttpServer, host: str
) -> None:
    assert_refused(await ask(aiohttp_server, application(ALLOWED), host))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a b",
        "a@b",
        "x/y",
        "example.com/evil",
        "example.com?evil",
        "example.com#evil",
        "example.com@attacker",
        "attacker@example.com",
        "example com",
        "example.com:80:80",
        "example.com:",
        "example.com:65536",
        "example.com:http",
        ":80",
        "[:::]",
        "[::1",
        "::1",
        "[::1]evil.example.com",
        "[::1]@attacker",
        "[::1].",
        "[::1]:evil",
        "[::1]:",
        "[::ffff:999.999.999.999]",
        "a..example.org",
        "example.org..",
        "a,example.org",
        "'.example.org",
        "%61.example.org",
        "ü b.example.org",
        # As ASCII is all that a host may be made of: whoever looks a tenant up
        # by request.host would see any number of spellings.
        "bücher.example",
        "\uff45xample.com",
        "example\u3002com",
        "\u24d4xample.com",
        # request.url, or its host, is an error for them.
        "[v1.::]",
        "xn--99999v1.",
        "xn--.example.org",
        "xn--a.example.org",
        "a.xn--zz--.example.org:80",
        "XN--A.example.org",
        "xn--" + "a" * 240,
        "x" * 254,
        "a." * 130 + "example.org",
    ],
)
@pytest.mark.parametrize("allowed", [ALLOWED, ["*"]], ids=["some", "all"])
async def test_what_is_no_host_is_refused(
    aiohttp_server: AiohttpServer, host: str, allowed: Any
) -> None:
    assert_refused(await ask(aiohttp_server, application(allowed), host))


async def test_every_valid_host_is_answered_if_all_are_allowed(
    aiohttp_server: AiohttpServer,
) -> None:
    for host in (
        "anything.example:1",
        "[::5]",
        "192.0.2.9",
        "a.xn--p1ai",
        "xn--i-7iq.ws",  # IDNA 2003 only
    ):
        answer = await ask(aiohttp_server, application(["*"]), host)
        assert answer.status == 200


async def test_request_without_a_host_is_refused(
    aiohttp_server: AiohttpServer,
) -> None:
    # aiohttp would take the address of the socket for it.
    allowed = ["*", "127.0.0.1"]
    assert_refused(await ask(aiohttp_server, application(allowed), None))


async def test_host_of_an_absolute_target_counts(
    aiohttp_server: AiohttpServer,
) -> None:
    app = application(["example.com"])
    good, bad = "http://example.com:80/x", "http://evil.example/x"
    answer = await ask(aiohttp_server, app, "evil.example", good)
    assert answer.status == 200
    app = application(["example.com"])
    assert_refused(await ask(aiohttp_server, app, "example.com", bad))
    app = application(["*"])
    bad = "http://user@example.com/x"
    assert_refused(await ask(aiohttp_server, app, "example.com", bad))


async def test_host_that_a_proxy_reports_counts(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application(["example.com"])
    app.middlewares.insert(0, proxy_headers_middleware(trusted=1, host=True))
    client = await aiohttp_client(app)
    for host, status in (("example.com", 200), ("evil.example", 400)):
        headers = {"Host": "inner", "X-Forwarded-Host": host}
        assert (await client.get("/", headers=headers)).status == status


# To www.
# =======


@pytest.mark.parametrize(
    ("host", "target", "location"),
    [
        ("example.com", "/", "http://www.example.com/"),
        ("EXAMPLE.com.", "/", "http://www.example.com/"),
        (
            "example.com:8080",
            "/a%2Fb?c=%20",
            "http://www.example.com:8080/a%2Fb?c=%20",
        ),
        ("example.com:80", "//x", "http://www.example.com//x"),
        ("x", "http://example.com:81/y", "http://www.example.com:81/y"),
    ],
)
async def test_visitor_is_sent_to_www_if_only_that_is_listed(
    aiohttp_server: AiohttpServer, host: str, target: str, location: str
) -> None:
    app = application(["www.example.com"])
    answer = await ask(aiohttp_server, app, host, target)
    assert answer.status == 307
    assert answer.headers.getall("Location") == [location]


@pytest.mark.parametrize(
    ("allowed", "www_redirect", "status"),
    [
        (["www.example.com"], False, 400),
        (["*.example.com"], True, 400),
        (["www.example.com", "example.com"], True, 200),
    ],
)
async def test_nobody_is_sent_to_www_without_need(
    aiohttp_server: AiohttpServer,
    allowed: list[str],
    www_redirect: bool,
    status: int,
) -> None:
    app = application(allowed, www_redirect=www_redirect)
    assert (await ask(aiohttp_server, app, "example.com")).status == status


# What it leaves alone
# ====================


async def test_ignored_url_is_answered_whatever_the_host(
    aiohttp_server: AiohttpServer,
) -> None:
    for host in ("10.1.2.3:8080", "a b", None):
        app = application(["example.com"], ignore=["/healthz"])
        answer = await ask(aiohttp_server, app, host, "/healthz")
        assert answer.status == 200
        app = application(["example.com"], ignore=["/healthz"])
        assert_refused(await ask(aiohttp_server, app, host, "/healthz/x"))


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    trusted_host = trusted_host_middleware(["127.0.0.1"])
    client = await aiohttp_client(answers.application(trusted_host))
    for more, status in ({}, kind.status), ({"Host": "evil.example"}, 400):
        headers = {**kind.fields, **more}
        response = await client.get(
            kind.path, headers=headers, allow_redirects=False
        )
        assert response.status == status


# What the log says
# =================


async def test_log_says_what_was_refused_and_why(
    aiohttp_server: AiohttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        for host in ("secret.example", "secret.example:x", None):
            await ask(aiohttp_server, application(["a"]), host, "/x?secret")
    assert [record.getMessage() for record in caplog.records] == [
        "Refused GET /x: its host is not listed",
        "Refused GET /x: its host is malformed",
        "Refused GET /x: it has no host, or several",
    ]
    assert [vars(record)["host"] for record in caplog.records] == [
        "secret.example",
        "secret.example:x",
        None,
    ]
    for record in caplog.records:
        assert vars(record)["allowed_hosts"] == "a"
        assert record.levelno == logging.INFO
        assert record.name == "aiohttp_middlewares.trusted_host"
        assert (vars(record)["method"], vars(record)["path"]) == ("GET", "/x")


# Any bytes
# =========

HOSTS = trusted_host._Hosts("test", ALLOWED)


@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                [
                    "example.org",
                    "example.com",
                    ".",
                    ":",
                    "[",
                    "]",
                    "@",
                    "a",
                    "80",
                    "::1",
                    "ü",
                    "\udcff",
                ]
            )
        ).map("".join),
    )
)
def test_any_text_is_allowed_or_not(text: str) -> None:
    verdict = HOSTS.verdict(text)
    if verdict is trusted_host._ALLOWED:
        # Whoever cuts at the last colon gets one of our hosts.
        host = re.sub(r":[0-9]+\Z", "", text).rstrip(".").lower()
        name = host.strip("[]")
        try:
            address: Any = ipaddress.ip_address(name)
        except ValueError:
            address = None
        assert (
            address is not None
            or host in {"example.com", "api_service", "[v1.foo]"}
            or host in {"xn--bcher-kva.example", "xn--strae-oqa.example"}
            or host.endswith(".example.org")
        )
        assert not set(text) & set("@/?#\\ \r\n,")


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("allowed", "error", "message"),
    [
        (
            "example.com",
            TypeError,
            "trusted_host_middleware allowed_hosts should be a collection of "
            "hosts, got 'example.com'; did you mean ['example.com']?",
        ),
        (None, TypeError, "should be a collection of hosts, got None"),
        ([], ValueError, "should not be empty"),
        ([None], TypeError, "got None"),
        ([b"example.com"], TypeError, "got b'example.com'"),
        ([1], TypeError, "got 1"),
        ([""], ValueError, "got ''"),
        (
            ["https://Example.com/x"],
            ValueError,
            "did you mean 'example.com'?",
        ),
        (["example.com:8080"], ValueError, "did you mean 'example.com'?"),
        (["*example.com"], ValueError, "did you mean '*.example.com'?"),
        ([".example.com"], ValueError, "did you mean '*.example.com'?"),
        (["*."], ValueError, "got '*.'"),
        (["*.*.example.com"], ValueError, "got '*.*.example.com'"),
        (["a.*.example.com"], ValueError, "got 'a.*.example.com'"),
        (["example.com/"], ValueError, "did you mean 'example.com'?"),
        (["10.0.0.1/8"], ValueError, "did you mean '10.0.0.0/8'?"),
        (["a b"], ValueError, "got 'a b'"),
    ],
)
def test_wrong_host_is_one_sentence(
    allowed: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        trusted_host_middleware(allowed)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"www_redirect": 1},
            TypeError,
            "www_redirect should be True or False",
        ),
        ({"ignore": "/x"}, TypeError, "ignore should be a collection"),
        ({"ignore": ["x"]}, ValueError, "did you mean '/x'?"),
    ],
)
def test_wrong_option_is_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        trusted_host_middleware(["a"], **options)
