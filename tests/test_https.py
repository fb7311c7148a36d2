"""HTTPS middleware: whom it believes, what it believes, what it keeps."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import answers
import pytest
from aiohttp import ClientSession, FormData, UnixConnector, web
from live import eventually, live
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import head, raw

from aiohttp_middlewares import (
    https,
    https_middleware,
    proxy_headers_middleware,
)
from aiohttp_middlewares._core.grammar.networks import PeerCollection
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.https import DEFAULT_MATCH_HEADERS

SAYS_HTTPS = {"X-Forwarded-Proto": "https"}


async def show(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "scheme": request.scheme,
            "secure": request.secure,
            "host": request.host,
            "remote": request.remote,
            "url": str(request.url),
        }
    )


def application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/{path:.*}", show)
    return app


# What it does
# ============


async def test_request_is_https_when_the_proxy_says_so(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(https_middleware()))
    response = await client.get(
        "/a?b=c", headers={**SAYS_HTTPS, "Host": "a.example:8080"}
    )
    assert await response.json() == {
        "scheme": "https",
        "secure": True,
        "host": "a.example:8080",
        "remote": "127.0.0.1",
        "url": "https://a.example:8080/a?b=c",
    }


async def test_request_is_left_alone_otherwise(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[web.Request] = []

    @web.middleware
    async def sees(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append(request)
        return await handler(request)

    client = await aiohttp_client(application(sees, https_middleware(), sees))
    response = await client.get("/", headers={"X-Forwarded-Proto": "http"})
    assert (await response.json())["scheme"] == "http"
    assert seen[0] is seen[1]  # no clone


FORWARDED = {"Forwarded": "https"}


@pytest.mark.parametrize(
    ("match_headers", "lines", "secure"),
    [
        (None, [], False),
        (None, [("X-Forwarded-Proto", "https")], True),
        (None, [("x-forwarded-proto", "https")], True),
        (None, [("X-Forwarded-Proto", "http")], False),
        (None, [("X-Forwarded-Proto", "")], False),
        (None, [("X-Forwarded-Proto", "httpsx")], False),
        (None, [("X-Forwarded-Protocol", "https")], False),
        (None, [("Forwarded", "proto=https")], False),
        # Without case, and of a list the last element counts.
        (None, [("X-Forwarded-Proto", "HTTPS")], True),
        (
            {"Cf-Visitor": '{"a":1,"scheme":"https"}'},
            [("Cf-Visitor", '{"A":1,"Scheme":"HTTPS"}')],
            True,
        ),
        (None, [("X-Forwarded-Proto", "wss")], True),
        (None, [("X-Forwarded-Proto", "ws")], False),
        (None, [("X-Forwarded-Proto", "https,https")], True),
        (None, [("X-Forwarded-Proto", "http, https")], True),
        (None, [("X-Forwarded-Proto", "https, http")], False),
        (None, [("X-Forwarded-Proto", "https , ,")], True),
        (
            None,
            [("X-Forwarded-Proto", "http"), ("X-Forwarded-Proto", "https")],
            True,
        ),
        (
            None,
            [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")],
            False,
        ),
        # RFC 7239, and the bare word that upstream documented.
        (FORWARDED, [("Forwarded", "for=1.2.3.4;proto=https")], True),
        (FORWARDED, [("Forwarded", 'Proto="HTTPS"; for="[::1]"')], True),
        (FORWARDED, [("Forwarded", "for=1.2.3.4;proto=http")], False),
        ({"forwarded": "HTTPS"}, [("FORWARDED", "proto=https")], True),
        (FORWARDED, [("Forwarded", "for=1.2.3.4")], False),
        (FORWARDED, [("Forwarded", "https")], True),
        (FORWARDED, [("Forwarded", "proto=https, for=2;proto=http")], False),
        (FORWARDED, [("Forwarded", "proto=http, for=2;proto=https")], True),
        (FORWARDED, [("Forwarded", "proto=https, for=2")], False),
        (
            FORWARDED,
            [("Forwarded", "proto=https"), ("Forwarded", "proto=http")],
            False,
        ),
        (FORWARDED, [("Forwarded", 'for="proto=https"')], False),
        (FORWARDED, [("Forwarded", "proto=httpsx")], False),
        # What the visitor left open, and the proxy appended to: what a proxy
        # says is heard, here as in proxy_headers.
        (FORWARDED, [("Forwarded", 'for="x, for=2;proto=https')], True),
        (FORWARDED, [("Forwarded", 'for="x, for=2;proto=http')], False),
        (FORWARDED, [("Forwarded", "proto=https;proto=https")], False),
        (
            FORWARDED,
            [("Forwarded", "a," * 3000), ("Forwarded", "proto=https")],
            True,
        ),
        (FORWARDED, [("Forwarded", 'proto=https;for=", for=2')], False),
        (FORWARDED, [("Forwarded", 'proto=https;for=", for="[::2]"')], False),
        (FORWARDED, [("X-Forwarded-Proto", "https")], False),
        # Any other header, and any other value.
        ({"Front-End-Https": "On"}, [("Front-End-Https", "on")], True),
        ({"x-scheme": " https "}, [("X-Scheme", "https")], True),
        ({"X-Scheme": "tls"}, [("X-Scheme", "wss")], False),
        # Any of them will do.
        (
            {"X-Forwarded-Proto": "https", "X-Internal": "1"},
            [("X-Internal", "1"), ("X-Forwarded-Proto", "http")],
            True,
        ),
        ({}, [("X-Forwarded-Proto", "https")], False),
    ],
)
async def test_header_says_https(
    aiohttp_server: AiohttpServer,
    match_headers: Mapping[str, str] | None,
    lines: list[tuple[str, str]],
    secure: bool,
) -> None:
    server = await aiohttp_server(application(https_middleware(match_headers)))
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
    received = await raw(
        server,
        f"GET / HTTP/1.1\r\nHost: a.example\r\n{fields}"
        "Connection: close\r\n\r\n".encode(),
    )
    expected = "https" if secure else "http"
    assert f'"scheme": "{expected}"' in head(received).rest.decode()


# Whom it believes
# ================


@pytest.mark.parametrize(
    ("trusted", "scheme"),
    [
        # By default everybody is believed, as it was upstream.
        (None, "https"),
        (["127.0.0.1"], "https"),
        (["10.0.0.0/8", "127.0.0.0/8"], "https"),
        (["::ffff:127.0.0.1"], "https"),
        ([], "http"),
        (["unix"], "http"),
        (["10.0.0.0/8"], "http"),
        (["::1"], "http"),
    ],
)
async def test_only_a_trusted_peer_is_believed(
    aiohttp_client: AiohttpClient, trusted: PeerCollection | None, scheme: str
) -> None:
    client = await aiohttp_client(
        application(https_middleware(trusted=trusted))
    )
    response = await client.get("/", headers=SAYS_HTTPS)
    assert (await response.json())["scheme"] == scheme


async def test_what_a_stranger_sends_is_not_even_read(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    monkeypatch.setattr(https, "lines", lambda *what: read.append(what))
    client = await aiohttp_client(
        application(https_middleware(FORWARDED, trusted=["10.0.0.1"]))
    )
    headers = {"Forwarded": "proto=https"}
    response = await client.get("/", headers=headers)
    assert (await response.json())["scheme"] == "http"
    assert read == []


async def test_remote_that_another_middleware_set_earns_no_trust(
    aiohttp_client: AiohttpClient,
) -> None:
    @web.middleware
    async def pretends(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(remote="10.0.0.1"))

    client = await aiohttp_client(
        application(pretends, https_middleware(trusted=["10.0.0.1"]))
    )
    response = await client.get("/", headers=SAYS_HTTPS)
    assert (await response.json())["scheme"] == "http"


@pytest.mark.parametrize(
    ("trusted", "scheme"),
    [(None, "https"), (["unix"], "https"), (["0.0.0.0/0", "::/0"], "http")],
)
async def test_peer_on_a_unix_socket_is_trusted_by_that_name(
    tmp_path: Path, trusted: PeerCollection | None, scheme: str
) -> None:
    path = str(tmp_path / "s")
    runner = web.AppRunner(application(https_middleware(trusted=trusted)))
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        async with (
            ClientSession(connector=UnixConnector(path)) as session,
            session.get("http://a.example/", headers=SAYS_HTTPS) as response,
        ):
            said = await response.json()
        assert said["url"] == f"{scheme}://a.example/"
        assert said["remote"] in (None, "")
    finally:
        await runner.cleanup()


async def test_peer_with_an_ipv4_address_in_ipv6_spelling_is_trusted() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no socket for both families here")
    app = application(https_middleware(trusted=["127.0.0.1"]))
    runner = web.AppRunner(app)
    await runner.setup()
    listening = socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
    )
    try:
        await web.SockSite(runner, listening).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        async with (
            ClientSession() as session,
            session.get(url, headers=SAYS_HTTPS) as response,
        ):
            said = await response.json()
        assert said["remote"] == "::ffff:127.0.0.1"
        assert said["scheme"] == "https"
    finally:
        await runner.cleanup()


# What it keeps
# =============


async def test_host_and_remote_of_an_earlier_clone_are_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    # aiohttp-remotes sets both, and upstream undid it.
    @web.middleware
    async def remotes(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        clone = request.clone(host="pub.example:444", remote="203.0.113.9")
        return await handler(clone)

    client = await aiohttp_client(application(remotes, https_middleware()))
    response = await client.get("/a", headers=SAYS_HTTPS)
    said = await response.json()
    assert said["remote"] == "203.0.113.9"
    assert said["host"] == "pub.example:444"
    assert said["url"] == "https://pub.example:444/a"


@pytest.mark.parametrize("earlier", ["https", "http"])
async def test_scheme_of_an_earlier_clone_is_raised_only(
    aiohttp_client: AiohttpClient, earlier: str
) -> None:
    @web.middleware
    async def clones(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(scheme=earlier))

    client = await aiohttp_client(application(clones, https_middleware()))
    response = await client.get("/", headers=SAYS_HTTPS)
    assert (await response.json())["scheme"] == "https"
    response = await client.get("/")
    assert (await response.json())["scheme"] == earlier


STORED = request_key("stored", str)


@pytest.mark.parametrize("fields", [SAYS_HTTPS, {}])
async def test_what_is_stored_on_one_side_is_seen_on_the_other(
    aiohttp_client: AiohttpClient, fields: dict[str, str]
) -> None:
    outside: list[object] = []

    @web.middleware
    async def stores(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        request[STORED] = "outside"
        try:
            return await handler(request)
        finally:
            outside.append(request[STORED])

    async def handler(request: web.Request) -> web.Response:
        said = request[STORED]
        request[STORED] = "inside"
        return web.Response(text=said)

    app = web.Application(
        middlewares=[
            stores,
            https_middleware(),
            https_middleware(),
            proxy_headers_middleware(trusted=1),
        ]
    )
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    headers = {"X-Forwarded-For": "192.0.2.1", **fields}
    response = await client.get("/", headers=headers)
    assert await response.text() == "outside"
    assert outside == ["inside"]


@pytest.mark.parametrize("refused", [False, True])
async def test_uploaded_files_are_closed_when_the_request_ends(
    aiohttp_client: AiohttpClient, refused: bool
) -> None:
    files: list[IO[bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        field = form["file"]
        assert isinstance(field, web.FileField)
        files.append(field.file)
        if refused:
            raise web.HTTPForbidden
        return web.Response(body=field.file.read())

    app = web.Application(
        middlewares=[
            https_middleware(),
            proxy_headers_middleware(trusted=1),
        ]
    )
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    headers = {**SAYS_HTTPS, "X-Forwarded-For": "192.0.2.1"}
    # With the collector it would be a matter of luck.
    gc.disable()
    try:
        for _ in range(20):
            form = FormData()
            form.add_field("file", b"content" * 9999, filename="a.txt")
            response = await client.post("/", data=form, headers=headers)
            if not refused:
                assert await response.read() == b"content" * 9999
            assert response.status == (403 if refused else 200)
        assert len(files) == 20
        assert [file for file in files if not file.closed] == []
    finally:
        gc.enable()


async def test_request_whose_client_left_does_not_wait_for_the_collector() -> (
    None
):
    kept: list[weakref.ref[web.Request]] = []

    @web.middleware
    async def keeps(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        kept.append(weakref.ref(request))
        return await handler(request)

    async def waits(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    app = web.Application(
        middlewares=[
            keeps,
            https_middleware(),
            keeps,
            proxy_headers_middleware(trusted=1),
            keeps,
        ]
    )
    app.router.add_get("/", waits)
    fields = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1\r\n"
    async with live(app) as server:
        gc.collect()
        gc.disable()
        try:
            for number in range(1, 11):
                connection = await server.connect()
                connection.send("GET /", fields=fields)
                await eventually(lambda: len(kept) == 3 * number)  # noqa: B023
                connection.reset()
            await eventually(lambda: not any(ref() for ref in kept))
        finally:
            gc.enable()


async def test_body_that_was_read_already_is_warned_of_once(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    # Upstream answered 500.
    @web.middleware
    async def reads(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await request.read()
        return await handler(request)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.scheme} {await request.text()}")

    app = web.Application(
        middlewares=[
            reads,
            https_middleware(),
            https_middleware({"X-Scheme": "https"}),
        ]
    )
    app.router.add_route("*", "/", echo)
    client = await aiohttp_client(app)
    for _ in range(3):
        response = await client.post("/", data=b"body", headers=SAYS_HTTPS)
        assert response.status == 200
        assert await response.text() == "http body"
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("aiohttp_middlewares.https", "WARNING")
    ]
    # Another factory has a warning of its own.
    await client.post("/", data=b"body", headers={"X-Scheme": "https"})
    await client.post("/", data=b"body", headers={"X-Scheme": "https"})
    assert len(caplog.records) == 2
    # An empty body is no obstacle.
    response = await client.get("/", headers=SAYS_HTTPS)
    assert await response.text() == "https "


async def test_nothing_of_the_headers_is_logged(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    # Upstream's debug record carried Authorization and Cookie.
    caplog.set_level("DEBUG")
    client = await aiohttp_client(application(https_middleware()))
    await client.get("/", headers={**SAYS_HTTPS, "Authorization": "secret"})
    assert [
        record for record in caplog.records if "secret" in str(vars(record))
    ] == []


# Hostile and unusual requests
# ============================

REQUEST = "%s HTTP/1.1\r\nHost: %s\r\nX-Forwarded-Proto: https\r\n"


@pytest.mark.parametrize(
    ("target", "host", "url"),
    [
        ("GET /", "a.example", "https://a.example/"),
        ("GET /", "[::1]:8080", "https://[::1]:8080/"),
        # The authority of an absolute-form target (RFC 9112 3.2.2) counts.
        ("GET http://b.example/x?y", "a.example", "https://b.example/x?y"),
        (
            "GET http://b.example:8080/x",
            "a.example",
            "https://b.example:8080/x",
        ),
        ("GET http://[::1]:8080/x", "a.example", "https://[::1]:8080/x"),
        ("GET http://B.example/", "a.example", "https://b.example/"),
    ],
)
async def test_url_has_the_scheme_and_keeps_everything_else(
    aiohttp_server: AiohttpServer, target: str, host: str, url: str
) -> None:
    server = await aiohttp_server(application(https_middleware()))
    sent = REQUEST % (target, host) + "Connection: close\r\n\r\n"
    answer = head(await raw(server, sent.encode()))
    assert answer.status == 200
    assert f'"url": "{url}"' in answer.rest.decode()


@pytest.mark.parametrize(
    "target",
    [
        "CONNECT b.example:443",
        "CONNECT [::1]:443",
        "CONNECT b.example",
        "CONNECT :443",
        "CONNECT b%20example:443",
        "CONNECT [::g]:443",
        "CONNECT a/b",
        "GET http://:80/",
        "GET http://[::g]/",
        "GET http://a%/",
        "OPTIONS *",
        "GET http://b%20example/",
        "GET http://[::1%25eth0]/",
        "GET http://user:secret@b.example:0/",
        "GET http://xn--9ca.example:65535/",
        "GET http://b_.example/",
        "GET ftp://b.example/",
        "GET http://b..example/",
        f"GET http://{'b' * 70}.example/",
        "GET //b.example/",
    ],
)
@pytest.mark.parametrize("host", ["a.example", "a b", "[", "", "a:99999", "é"])
async def test_target_or_host_that_is_odd_is_not_our_500(
    aiohttp_server: AiohttpServer, target: str, host: str
) -> None:
    seen: list[tuple[str, str | None]] = []

    @web.middleware
    async def answers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append((request.scheme, request.remote))
        return web.Response(status=204)

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(remote="203.0.113.9"))

    app = web.Application(middlewares=[outside, https_middleware(), answers])
    server = await aiohttp_server(app)
    sent = REQUEST % (target, host) + "Connection: close\r\n\r\n"
    received = await raw(server, sent.encode())
    # Either aiohttp could not read it (400, before any middleware), or it
    # came through.
    answer = head(received)
    if answer.status == 400:
        assert seen == []
    else:
        assert answer.status == 204
        assert seen == [("https", "203.0.113.9")]


async def test_two_of_them_do_what_one_does(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        application(https_middleware(), https_middleware())
    )
    response = await client.get("/", headers=SAYS_HTTPS)
    assert (await response.json())["scheme"] == "https"


# Every kind of response
# ======================


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_answers_are_left_alone(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    seen: list[str] = []

    @web.middleware
    async def sees(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append(request.scheme)
        return await handler(request)

    client = await aiohttp_client(answers.application(https_middleware(), sees))
    for more, scheme in ({}, "http"), (SAYS_HTTPS, "https"):
        response = await client.get(
            kind.path, headers={**kind.fields, **more}, allow_redirects=False
        )
        assert response.status == kind.status
        assert seen.pop() == scheme
        response.close()


async def test_factory_works_in_a_subapplication(
    aiohttp_client: AiohttpClient,
) -> None:
    root = web.Application()
    root.add_subapp("/sub", application(https_middleware()))
    client = await aiohttp_client(root)
    response = await client.get("/sub/a", headers=SAYS_HTTPS)
    assert (await response.json())["scheme"] == "https"


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"match_headers": "X-Forwarded-Proto"},
            "match_headers should be a mapping of header names to values,"
            " got 'X-Forwarded-Proto'",
        ),
        (
            {"match_headers": ["X-Forwarded-Proto"]},
            "match_headers should be a mapping of header names to values,"
            " got ['X-Forwarded-Proto']",
        ),
        (
            {"match_headers": {"X Forwarded": "https"}},
            "match_headers should be a collection of header names,"
            " got 'X Forwarded'",
        ),
        (
            {"match_headers": {42: "https"}},
            "match_headers should be a collection of header names, got 42",
        ),
        (
            {"match_headers": {"X-Forwarded-Proto": True}},
            "match_headers should be a mapping to strings, got True",
        ),
        (
            {"match_headers": {"X-Forwarded-Proto": ["https"]}},
            "match_headers should be a mapping to strings, got ['https']",
        ),
        (
            {"trusted": "127.0.0.1"},
            "trusted should be a collection of IP addresses, networks or"
            " 'unix', got '127.0.0.1'; did you mean ['127.0.0.1']?",
        ),
        (
            {"trusted": ["10.0.0.1/8"]},
            "trusted should be a collection of IP addresses, networks or"
            " 'unix', got '10.0.0.1/8'; did you mean '10.0.0.0/8'?",
        ),
        (
            {"trusted": True},
            "trusted should be a collection of IP addresses, networks or"
            " 'unix', got True",
        ),
    ],
)
def test_wrong_option_is_refused_when_the_middleware_is_made(
    options: Any, message: str
) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        https_middleware(**options)
    assert str(refused.value) == f"https_middleware {message}"


def test_default_is_what_it_was() -> None:
    assert DEFAULT_MATCH_HEADERS == {"X-Forwarded-Proto": "https"}


async def test_headers_are_frozen_when_the_middleware_is_made(
    aiohttp_client: AiohttpClient,
) -> None:
    match_headers = {"X-Scheme": "https"}
    client = await aiohttp_client(application(https_middleware(match_headers)))
    match_headers.clear()
    response = await client.get("/", headers={"X-Scheme": "https"})
    assert (await response.json())["scheme"] == "https"


async def test_body_that_was_read_inside_can_be_read_outside(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: list[str] = []

    @web.middleware
    async def audits(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append(await request.text())
        return response

    async def reads(request: web.Request) -> web.Response:
        return web.Response(text=await request.text())

    app = web.Application(middlewares=[audits, https_middleware()])
    app.router.add_post("/", reads)
    client = await aiohttp_client(app)
    for proto in ("http", "https"):
        await client.post(
            "/", data="hello", headers={"X-Forwarded-Proto": proto}
        )
    assert seen == ["hello", "hello"]
