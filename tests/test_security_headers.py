"""The headers by which browsers protect visitors are on every answer."""

import logging
import re
from pathlib import Path
from typing import Any

import answers
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import head, raw

from aiohttp_middlewares import (
    csp_nonce,
    error_middleware,
    https_middleware,
    security_headers_middleware,
)
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.security_headers._policy import policy_text

HELMET = {
    "Content-Security-Policy": (
        "default-src 'self';base-uri 'self';font-src 'self' https: data:;"
        "form-action 'self';frame-ancestors 'self';img-src 'self' data:;"
        "object-src 'none';script-src 'self';script-src-attr 'none';"
        "style-src 'self' https: 'unsafe-inline'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Download-Options": "noopen",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Permitted-Cross-Domain-Policies": "none",
    "X-XSS-Protection": "0",
}
HSTS = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
CSP = "Content-Security-Policy"
BY_HTTPS = {
    **HELMET,
    **HSTS,
    CSP: HELMET[CSP] + ";upgrade-insecure-requests",
}
REPORT_ONLY = "Content-Security-Policy-Report-Only"
#: What aiohttp and the handler add.
ORDINARY = {"content-type", "content-length", "date", "connection"}


async def plain(request: web.Request) -> web.Response:
    return web.Response(text="in")


def application(
    handler: Any = plain, *outside: Any, **options: Any
) -> web.Application:
    app = web.Application(
        middlewares=[*outside, security_headers_middleware(**options)]
    )
    app.router.add_get("/", handler)
    return app


def assert_secured(
    headers: CIMultiDictProxy[str], expected: dict[str, str] = HELMET
) -> None:
    for name, value in expected.items():
        assert headers.getall(name) == [value]
    assert "Server" not in headers


async def policy_of(
    aiohttp_client: AiohttpClient, policy: Any, **options: Any
) -> str:
    app = application(content_security_policy=policy, **options)
    client = await aiohttp_client(app)
    (line,) = (await client.get("/")).headers.getall(CSP)
    return line


# What it does
# ============


async def test_answer_has_the_defaults_of_helmet_and_nothing_else(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application())
    headers = (await client.get("/")).headers
    assert_secured(headers)
    ours = {name.lower() for name in headers} - ORDINARY
    assert ours == {name.lower() for name in HELMET}


async def test_transport_security_is_sent_by_https_only(
    aiohttp_client: AiohttpClient,
) -> None:
    # RFC 6797 7.2
    client = await aiohttp_client(application(plain, https_middleware()))
    response = await client.get("/", headers={"X-Forwarded-Proto": "https"})
    assert_secured(response.headers, BY_HTTPS)
    assert not set(HSTS) & set((await client.get("/")).headers)


@pytest.mark.parametrize("name", [*HELMET, *HSTS])
async def test_none_leaves_a_header_out(
    aiohttp_client: AiohttpClient, name: str
) -> None:
    options: dict[str, Any] = {name.lower().replace("-", "_"): None}
    app = application(plain, https_middleware(), **options)
    client = await aiohttp_client(app)
    response = await client.get("/", headers={"X-Forwarded-Proto": "https"})
    expected = dict(BY_HTTPS)
    del expected[name]
    assert_secured(response.headers, expected)
    assert name not in response.headers


@pytest.mark.parametrize(
    ("option", "values"),
    [
        (
            "content_security_policy",
            [
                "default-src 'self'; img-src *",
                "Default-Src\t'self' ;; IMG-SRC;",
                "default-src 'self', script-src https:",
                "report-uri /none; report-to self; sandbox allow-forms",
                "trusted-types self script; require-trusted-types-for 'script'",
                "upgrade-insecure-requests",
            ],
        ),
        (
            "cross_origin_embedder_policy",
            [
                "require-corp",
                "credentialless",
                'unsafe-none; report-to="a b"',
            ],
        ),
        (
            "cross_origin_opener_policy",
            [
                "unsafe-none",
                "same-origin-allow-popups",
                "noopener-allow-popups",
                'same-origin;report-to="coop"; x; y=1',
            ],
        ),
        (
            "cross_origin_resource_policy",
            ["same-origin", "same-site", "cross-origin"],
        ),
        ("origin_agent_cluster", ["?0", "?1"]),
        ("permissions_policy", ['geolocation=(self "https://a.example")']),
        (
            "referrer_policy",
            [
                "unsafe-url",
                "no-referrer-when-downgrade",
                "no-referrer, strict-origin-when-cross-origin",
                "origin,same-origin , Strict-Origin,origin-when-cross-origin",
            ],
        ),
        (
            "strict_transport_security",
            [
                "max-age=0",
                'Max-Age = "60"; INCLUDESUBDOMAINS',
                "max-age=63072000; preload ;includeSubDomains;",
            ],
        ),
        ("x_content_type_options", ["nosniff", "NoSniff"]),
        ("x_dns_prefetch_control", ["on", "off"]),
        ("x_download_options", ["noopen"]),
        ("x_frame_options", ["DENY", "sameorigin"]),
        (
            "x_permitted_cross_domain_policies",
            [
                "none",
                "master-only",
                "by-content-type",
                "by-ftp-filename",
                "all",
                "none-this-response",
            ],
        ),
        ("x_xss_protection", ["0", "1; mode=block"]),
    ],
)
async def test_string_is_sent_as_it_is(
    aiohttp_client: AiohttpClient, option: str, values: list[str]
) -> None:
    name = option.replace("_", "-")
    for value in values:
        options: dict[str, Any] = {option: value}
        app = application(plain, https_middleware(), **options)
        client = await aiohttp_client(app)
        response = await client.get("/", headers={"X-Forwarded-Proto": "https"})
        assert response.headers.getall(name) == [value]
        others = dict(CIMultiDict(BY_HTTPS))
        assert_secured(
            response.headers,
            {key: others[key] for key in others if key.lower() != name},
        )


@pytest.mark.parametrize("report_only", [True, False])
async def test_only_the_default_policy_depends_on_the_scheme(
    aiohttp_client: AiohttpClient, report_only: bool
) -> None:
    written = {"default-src": "'self'", "upgrade-insecure-requests": []}
    text = "default-src 'self';upgrade-insecure-requests"
    policies: list[Any] = [written, text]
    for policy in policies:
        app = application(
            content_security_policy=policy,
            content_security_policy_report_only=report_only,
        )
        headers = (await (await aiohttp_client(app)).get("/")).headers
        assert headers.getall(REPORT_ONLY if report_only else CSP) == [text]


async def test_other_headers_can_be_removed(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        headers = [("X-Powered-By", "a"), ("X-Powered-By", "b")]
        return web.Response(headers=headers)

    client = await aiohttp_client(application(handler, remove=["x-powered-by"]))
    headers = (await client.get("/")).headers
    assert "X-Powered-By" not in headers
    assert "Server" in headers
    client = await aiohttp_client(application(handler, remove=[]))
    headers = (await client.get("/")).headers
    assert headers.getall("X-Powered-By") == ["a", "b"]


# The policy
# ==========


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"default-src": ["'self'"]}, "default-src 'self'"),
        ({"default-src": "'self' https:"}, "default-src 'self' https:"),
        ({"default-src": ("'none'",)}, "default-src 'none'"),
        ({"Default-SRC": ["'self'"]}, "default-src 'self'"),
        (
            {"sandbox": [], "upgrade-insecure-requests": ""},
            "sandbox;upgrade-insecure-requests",
        ),
        (
            {
                "script-src": [
                    "'self'",
                    "'sha256-AbC+/='",
                    "'strict-dynamic'",
                    "https://*.example.com:*/x?y=%3B",
                    "blob:",
                ],
                "report-uri": ["/csp"],
            },
            "script-src 'self' 'sha256-AbC+/=' 'strict-dynamic' "
            "https://*.example.com:*/x?y=%3B blob:;report-uri /csp",
        ),
        ("default-src 'self'; img-src *", "default-src 'self'; img-src *"),
    ],
)
async def test_policy_takes_the_place_of_the_default(
    aiohttp_client: AiohttpClient, policy: Any, expected: str
) -> None:
    assert await policy_of(aiohttp_client, policy) == expected


async def test_policy_can_be_reported_only(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application(content_security_policy_report_only=True)
    headers = (await (await aiohttp_client(app)).get("/")).headers
    assert headers.getall(REPORT_ONLY) == [HELMET[CSP]]
    assert CSP not in headers


@pytest.mark.parametrize(
    "policy",
    [
        {"script-src": ["'nonce-{nonce}'"], "style-src": "'nonce-{nonce}'"},
        "script-src 'nonce-{nonce}';style-src 'nonce-{nonce}'",
    ],
)
async def test_each_request_has_its_own_nonce(
    aiohttp_client: AiohttpClient, policy: Any
) -> None:
    async def handler(request: web.Request) -> web.Response:
        # A clone shares it, and so does what asks for it twice.
        assert csp_nonce(request.clone()) == csp_nonce(request)
        return web.Response(text=csp_nonce(request))

    app = application(handler, content_security_policy=policy)
    client = await aiohttp_client(app)
    nonces = set()
    for _ in range(10):
        response = await client.get("/")
        nonce = await response.text()
        # base64url of 16 bytes
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", nonce)
        assert response.headers.getall(CSP) == [
            f"script-src 'nonce-{nonce}';style-src 'nonce-{nonce}'"
        ]
        nonces.add(nonce)
    assert len(nonces) == 10


@pytest.mark.parametrize(
    ("inside", "names"),
    [
        # One policy holds, and a stricter one is tried out.
        (
            {
                "content_security_policy": "script-src 'nonce-{nonce}'",
                "content_security_policy_report_only": True,
            },
            [REPORT_ONLY, CSP],
        ),
        ({"content_security_policy": "script-src 'nonce-{nonce}'"}, [CSP]),
        ({"content_security_policy": None}, [CSP]),
        ({"ignore": ["/"]}, [CSP]),
    ],
)
async def test_all_policies_of_a_request_have_the_same_nonce(
    aiohttp_client: AiohttpClient, inside: dict[str, Any], names: list[str]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=csp_nonce(request))

    outside = security_headers_middleware(
        content_security_policy="script-src 'nonce-{nonce}'"
    )
    client = await aiohttp_client(application(handler, outside, **inside))
    response = await client.get("/")
    policy = f"script-src 'nonce-{await response.text()}'"
    found = [item for item in response.headers.items() if item[0] in names]
    assert found == [(name, policy) for name in names]
    assert {CSP, REPORT_ONLY} & set(response.headers) == set(names)


async def test_nonce_is_in_the_policy_though_nobody_asked(
    aiohttp_client: AiohttpClient,
) -> None:
    line = await policy_of(aiohttp_client, {"script-src": ["'nonce-{nonce}'"]})
    assert re.fullmatch(r"script-src 'nonce-[A-Za-z0-9_-]{22}'", line)


@pytest.mark.parametrize("report_only", [True, False])
async def test_no_new_nonce_is_sent_for_a_page_that_is_stored(
    aiohttp_client: AiohttpClient, report_only: bool
) -> None:
    # RFC 9111 4.3.4 and 4.3.5: its headers are replaced, and its body is not.
    own = {CSP: "default-src *", REPORT_ONLY: "img-src *"}

    async def page(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"v1"':
            headers = own if "own" in request.query else {}
            return web.Response(status=304, headers=headers)
        return web.Response(text=csp_nonce(request), headers={"ETag": '"v1"'})

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__))

    app = application(
        page,
        content_security_policy={"script-src": ["'nonce-{nonce}'"]},
        content_security_policy_report_only=report_only,
    )
    app.router.add_get("/file", file)
    client = await aiohttp_client(app)
    sent, other = (REPORT_ONLY, CSP) if report_only else (CSP, REPORT_ONLY)
    rest = {name: value for name, value in HELMET.items() if name != CSP}
    for path in ("/", "/file"):
        stored = await client.get(path)
        assert len(stored.headers.getall(sent)) == 1
        tag = {"If-None-Match": stored.headers["ETag"]}
        for again, status in (
            (await client.get(path, headers=tag), 304),
            (await client.head(path), 200),
            (await client.head(path, headers=tag), 304),
        ):
            assert again.status == status
            assert not {sent, other} & set(again.headers)
            assert_secured(again.headers, rest)
    again = await client.get("/?own", headers={"If-None-Match": '"v1"'})
    assert_secured(again.headers, rest | own)


async def test_policy_without_a_nonce_is_sent_for_a_page_that_is_stored(
    aiohttp_client: AiohttpClient,
) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(status=304)

    client = await aiohttp_client(application(page))
    assert_secured((await client.get("/")).headers)
    assert_secured((await client.head("/")).headers)


async def test_page_with_a_nonce_works_without_a_policy(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=csp_nonce(request))

    for options in ({"content_security_policy": None}, {"ignore": ["/"]}):
        client = await aiohttp_client(application(handler, **options))
        response = await client.get("/")
        assert len(await response.text()) == 22
        assert CSP not in response.headers


async def test_nonce_without_the_middleware_is_an_error(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="needs security_headers_middle"):
            csp_nonce(request)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    assert (await (await aiohttp_client(app)).get("/")).status == 200


# What it leaves alone
# ====================


async def test_what_the_handler_set_wins(aiohttp_client: AiohttpClient) -> None:
    own = {"content-security-policy": "default-src *", "X-Frame-Options": ""}

    async def returned(request: web.Request) -> web.Response:
        return web.Response(headers=own)

    async def raised(request: web.Request) -> web.Response:
        raise web.HTTPGone(headers=own)

    async def streamed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=own)
        await response.prepare(request)
        return response

    nonced = {"script-src": ["'nonce-{nonce}'"]}
    policies: list[Any] = [{"default-src": []}, nonced]
    for policy in policies:
        for handler in (returned, raised, streamed):
            app = application(handler, content_security_policy=policy)
            response = await (await aiohttp_client(app)).get("/")
            expected = {CSP: "default-src *", "X-Frame-Options": ""}
            assert_secured(response.headers, HELMET | expected)


async def test_ignored_url_is_left_alone(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(application(ignore=["/"]))
    headers = (await client.get("/")).headers
    assert "Server" in headers
    assert not set(HELMET) & set(headers)


# Every kind of response
# ======================


@web.middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(scheme="https"))


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
@pytest.mark.parametrize("cloning", ["nowhere", "outside", "inside"])
@pytest.mark.parametrize("error", [True, False])
async def test_every_kind_of_response_has_the_headers(
    aiohttp_client: AiohttpClient,
    kind: answers.Kind,
    cloning: str,
    error: bool,
) -> None:
    app = answers.application(
        *[clones] * (cloning == "outside"),
        security_headers_middleware(),
        *[clones] * (cloning == "inside"),
        *[error_middleware()] * error,
    )
    async with (await aiohttp_client(app)).get(
        kind.path, headers=kind.fields, allow_redirects=False
    ) as response:
        late = error and kind.name == "late"
        assert response.status == (500 if late else kind.status)
        expected = BY_HTTPS if cloning == "outside" else HELMET
        assert_secured(response.headers, expected)
        if kind.status == 101:
            response.close()


async def test_answer_to_an_expectation_has_the_headers_once(
    aiohttp_server: AiohttpServer,
) -> None:
    server = await aiohttp_server(application())
    sent = (
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        b"Content-Length: 1\r\nConnection: close\r\n\r\nx"
    )
    interim = head(await raw(server, sent))
    assert (interim.status, len(interim.headers)) == (100, 0)
    assert_secured(CIMultiDictProxy(head(interim.rest).headers))


# Any policy
# ==========


@given(
    st.dictionaries(
        st.one_of(
            st.text(max_size=9), st.sampled_from(["default-src", "img-src"])
        ),
        st.one_of(
            st.text(max_size=9),
            st.lists(
                st.one_of(
                    st.text(max_size=9),
                    st.sampled_from(["'self'", "self", "https:", "a;b", "a,b"]),
                ),
                max_size=3,
            ),
        ),
        max_size=3,
    )
)
def test_any_policy_is_one_header_or_one_sentence(policy: Any) -> None:
    try:
        line = policy_text("test", policy)
    except ValueError:
        return
    # It reads as it was written.
    read = {}
    for directive in line.split(";"):
        name, *sources = directive.split(" ")
        read[name] = sources
    assert read == {
        name.lower(): sources.split() if isinstance(sources, str) else sources
        for name, sources in policy.items()
    }
    assert line.isascii()
    assert line.isprintable()
    assert "," not in line


# Misconfiguration
# ================

POLICY = "security_headers_middleware content_security_policy"


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (
            {"default-src": ["self"]},
            ValueError,
            f"{POLICY}['default-src'] should be sources with keywords in "
            "quotation marks, got 'self'; did you mean \"'self'\"?",
        ),
        ({"default-src": "self https:"}, ValueError, "got 'self'"),
        ({"default-src": ["SELF"]}, ValueError, "got 'SELF'"),
        ({"default-src": ["none"]}, ValueError, "got 'none'"),
        ({"default-src": ["unsafe-inline"]}, ValueError, "got 'unsafe-inline'"),
        ({"default-src": ["unsafe-eval"]}, ValueError, "got 'unsafe-eval'"),
        ({"default-src": ["unsafe-hashes"]}, ValueError, "got 'unsafe-hashes'"),
        ({"default-src": ["wasm-unsafe-eval"]}, ValueError, "got 'wasm-"),
        ({"default-src": ["strict-dynamic"]}, ValueError, "got 'strict-dyn"),
        ({"default-src": ["report-sample"]}, ValueError, "got 'report-sam"),
        ({"default-src": ["nonce-{nonce}"]}, ValueError, "got 'nonce-{nonce}'"),
        ({"script-src": ["trusted-types-eval"]}, ValueError, "got 'trusted"),
        ({"trusted-types": "none"}, ValueError, "got 'none'"),
        ({"require-trusted-types-for": ["script"]}, ValueError, "'script'"),
        ({"default-src": "'self'\r\nhttps:"}, ValueError, "white space"),
        ({"default-src": "'self'\n"}, ValueError, "white space"),
        ({"default-src": ["'self'\x00"]}, ValueError, "white space"),
        ({"default-src": "'self'\x0bhttps:"}, ValueError, "white space"),
        ({"default-src": ["sha256-x"]}, ValueError, "got 'sha256-x'"),
        ({"default-src": ["sha384-x"]}, ValueError, "got 'sha384-x'"),
        ({"default-src": ["sha512-x"]}, ValueError, "got 'sha512-x'"),
        ({"default-src": ["a;b"]}, ValueError, "without ';', ','"),
        ({"default-src": ["a,b"]}, ValueError, "without ';', ','"),
        ({"default-src": "'self'; img-src *"}, ValueError, "without ';'"),
        (
            {"default-src": ["'self' https:"]},
            ValueError,
            "did you mean [\"'self'\", 'https:']?",
        ),
        ({"default-src": ["ü"]}, ValueError, "got 'ü'"),
        ({"default-src": [""]}, ValueError, "got ''"),
        ({"default-src": [None]}, TypeError, "got None"),
        ({"default-src": None}, TypeError, "a collection of sources"),
        ({"default-src": True}, TypeError, "a collection of sources"),
        ({"default_src": []}, ValueError, "did you mean 'default-src'?"),
        ({"default src": []}, ValueError, "got 'default src'"),
        ({"default-src;": []}, ValueError, "got 'default-src;'"),
        ({"": []}, ValueError, "got ''"),
        ({1: []}, TypeError, "got 1"),
        ({"img-src": [], "IMG-SRC": []}, ValueError, "has 'img-src' twice"),
        ({}, ValueError, "did you mean None?"),
        (["default-src"], TypeError, "a mapping of directives or a string"),
        (True, TypeError, "a mapping of directives or a string"),
        ("", ValueError, "should be the value of a header, got ''"),
        ("img-src a\r\n b", ValueError, "should be the value of a header"),
        ("img-src a\x00", ValueError, "should be the value of a header"),
        (
            "default-src 'self'; script-src self",
            ValueError,
            f"{POLICY}['script-src'] should be sources with keywords in "
            "quotation marks, got 'self'; did you mean \"'self'\"?",
        ),
        ("img-src *, script-src none", ValueError, "got 'none'"),
        ("script-src nonce-{nonce}", ValueError, "got 'nonce-{nonce}'"),
        ("script-src SHA256-x=", ValueError, "got 'SHA256-x='"),
        ("default_src 'self'", ValueError, "did you mean 'default-src'?"),
        ("img-src *; IMG-SRC 'none'", ValueError, "has 'img-src' twice"),
        (";", ValueError, "a policy of directives, got ';'"),
        ("img-src *,", ValueError, "a policy of directives, got 'img-src *,'"),
    ],
)
def test_wrong_policy_is_one_sentence(
    policy: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        security_headers_middleware(content_security_policy=policy)


def test_unknown_directive_gets_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = {"default-src": "'self'", "defaultSrc": "'self'"}
    security_headers_middleware(content_security_policy=policy)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'defaultSrc'" in record.getMessage()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"x_frame_options": "a\nb"},
            ValueError,
            "security_headers_middleware x_frame_options should be the value "
            "of a header, got 'a\\nb'",
        ),
        ({"x_frame_options": ""}, ValueError, "got ''"),
        *(
            ({option: f"{value}{end}"}, ValueError, "value of a header")
            for option, value in (
                ("referrer_policy", "origin"),
                ("strict_transport_security", "max-age=1"),
                ("permissions_policy", "geolocation=()"),
                ("x_xss_protection", "0"),
            )
            for end in ("\r", "\n", "\x00", "\r\nSet-Cookie: a=b")
        ),
        (
            {"x_frame_options": "SAME-ORIGIN"},
            ValueError,
            "security_headers_middleware x_frame_options should be 'DENY' or "
            "'SAMEORIGIN', got 'SAME-ORIGIN'; did you mean 'SAMEORIGIN'?",
        ),
        (
            {"x_frame_options": "ALLOW-FROM https://a.example"},
            ValueError,
            "got 'ALLOW-FROM https://a.example'",
        ),
        (
            {"referrer_policy": "no-referrer, strict-orgin"},
            ValueError,
            "did you mean 'no-referrer, strict-origin'?",
        ),
        ({"referrer_policy": "origin,"}, ValueError, "did you mean 'origin'?"),
        (
            {"referrer_policy": "origin, no-referrer, Origin"},
            ValueError,
            "did you mean 'origin, no-referrer'?",
        ),
        (
            {"cross_origin_opener_policy": "Same-Origin"},
            ValueError,
            "did you mean 'same-origin'?",
        ),
        (
            {"cross_origin_opener_policy": "same-origin; report-to='x'"},
            ValueError,
            "cross_origin_opener_policy should be 'unsafe-none' or",
        ),
        (
            {"cross_origin_resource_policy": "cross_origin"},
            ValueError,
            "did you mean 'cross-origin'?",
        ),
        (
            {"cross_origin_resource_policy": "same-site; report-to=x"},
            ValueError,
            "should be 'same-origin' or 'same-site' or 'cross-origin'",
        ),
        (
            {"cross_origin_embedder_policy": "requires-corp"},
            ValueError,
            "did you mean 'require-corp'?",
        ),
        ({"origin_agent_cluster": "?2"}, ValueError, "should be '?1' or '?0'"),
        ({"x_content_type_options": "no-sniff"}, ValueError, "'nosniff'?"),
        ({"x_dns_prefetch_control": "true"}, ValueError, "'on' or 'off'"),
        ({"x_download_options": "noopener"}, ValueError, "mean 'noopen'?"),
        (
            {"x_permitted_cross_domain_policies": "masteronly"},
            ValueError,
            "did you mean 'master-only'?",
        ),
        *(
            (
                {"strict_transport_security": value},
                ValueError,
                f"got {value!r}; did you mean 'max-age=60; includeSubDomains'?",
            )
            for value in (
                "includeSubDomains; max-age=60",
                "max-age=60; include-sub-domains",
                "max-age=60, includeSubDomains",
                "maxage=60; includeSubDomains",
                "max-age=60; includeSubDomains; includeSubdomains",
            )
        ),
        ({"strict_transport_security": "60"}, ValueError, "'max-age=60'?"),
        *(
            ({"strict_transport_security": value}, ValueError, f"got {value!r}")
            for value in ("max-age", "max-age=-1", "max-age=1.5", "preload")
        ),
        ({"x_frame_options": " a"}, ValueError, "got ' a'"),
        ({"x_frame_options": "ü"}, ValueError, "got 'ü'"),
        ({"x_frame_options": True}, TypeError, "got True"),
        ({"x_xss_protection": 0}, TypeError, "x_xss_protection should be"),
        ({"x_dns_prefetch_control": False}, TypeError, "got False"),
        ({"strict_transport_security": 60}, TypeError, "got 60"),
        (
            {"content_security_policy_report_only": 1},
            TypeError,
            "report_only should be True or False",
        ),
        ({"remove": "Server"}, TypeError, "did you mean ['Server']?"),
        ({"remove": ["a b"]}, ValueError, "got 'a b'"),
        ({"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
        ({"frame_options": "DENY"}, TypeError, "frame_options"),
    ],
)
def test_wrong_option_is_one_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        security_headers_middleware(**options)
