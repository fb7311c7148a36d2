"""Entity tags, and 304 for who has the same already."""

import asyncio
import io
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp_session
import answers
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from live import Connection, live
from pytest_aiohttp.plugin import AiohttpClient
from raw import Head, head, raw

from aiohttp_middlewares import (
    access_log_middleware,
    before_sending,
    compression_middleware,
    cors_middleware,
    csp_nonce,
    error_middleware,
    etag_middleware,
    https_middleware,
    idempotency_middleware,
    security_headers_middleware,
    session_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.grammar.etags import names_etag
from aiohttp_middlewares._core.grammar.fields import MOST_ELEMENTS, MOST_TEXT
from aiohttp_middlewares.annotations import Handler, Middleware

KEY = "0123456789abcdef0123456789abcdef"
BODY = b"hello"
#: By blake2b(b"hello", digest_size=16).
ETAG = 'W/"46fb7408d4f285228f4af516ea25851b"'
OPAQUE = ETAG.removeprefix("W/")


async def hello(request: web.Request) -> web.StreamResponse:
    return web.Response(body=BODY, content_type="text/plain")


def responds(
    make: Callable[[], web.StreamResponse],
) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return make()

    return handler


def app_of(
    *middlewares: Middleware, handler: Handler = hello
) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", handler)
    return app


async def ask(
    client: Any, known: str | None = None, method: str = "GET", **fields: str
) -> tuple[int, str | None, bytes]:
    headers = {} if known is None else {"If-None-Match": known}
    async with client.request(
        method, "/", headers={**headers, **fields}
    ) as response:
        assert len(response.headers.getall("ETag", [])) <= 1
        return (
            response.status,
            response.headers.get("ETag"),
            await response.read(),
        )


# What it does
# ============


async def test_answer_has_a_weak_tag_of_its_body(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    assert await ask(client) == (200, ETAG, BODY)
    assert await ask(client, method="HEAD") == (200, ETAG, b"")


async def test_other_bodies_have_other_tags(
    aiohttp_client: AiohttpClient,
) -> None:
    tags = set()
    for text in ("a", "b", "a" * 1000, "ä"):
        page = responds(lambda text=text: web.Response(text=text))  # type: ignore[misc]
        client = await aiohttp_client(app_of(etag_middleware(), handler=page))
        first, second = await ask(client), await ask(client)
        assert first == second
        tags.add(first[1])
    assert len(tags) == 4
    assert None not in tags


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "known",
    [
        ETAG,
        OPAQUE,
        "*",
        f'"a", {ETAG}',
        f'"a,b" , W/"" ,,{OPAQUE},"z',
        f'"a\\",{ETAG}',  # a backslash is a character like any other
        f'"\xff", {ETAG}',
    ],
)
async def test_who_has_it_already_gets_304(
    aiohttp_client: AiohttpClient, known: str, method: str
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    assert await ask(client, known, method) == (304, ETAG, b"")


@pytest.mark.parametrize(
    "known",
    [
        '"a"',
        OPAQUE.upper(),
        OPAQUE.strip('"'),
        f"w/{OPAQUE}",
        f"W/ {OPAQUE}",
        f'"a" {ETAG}',
        f'"a{ETAG}',
        f"{ETAG}x",
        f"{OPAQUE[:-1]}",
        "**",
        '"*"',
        "",
        ",",
    ],
)
async def test_who_has_another_gets_the_answer(
    aiohttp_client: AiohttpClient, known: str
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    assert await ask(client, known) == (200, ETAG, BODY)


async def test_field_may_come_in_several_lines(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    response = await client.get(
        "/", headers=[("If-None-Match", '"a'), ("If-None-Match", ETAG)]
    )
    assert response.status == 304


async def test_304_has_all_headers_but_those_of_the_body(
    aiohttp_client: AiohttpClient,
) -> None:
    kept = {
        "Cache-Control": "private, no-cache",
        "Content-Location": "/hello",
        "Content-Security-Policy": "default-src 'self'",
        "Expires": "Fri, 01 Jan 2100 00:00:00 GMT",
        "Vary": "Accept-Language",
        "X-Own": "yes",
    }
    gone = {
        "Accept-Ranges": "bytes",
        "Content-Digest": "sha-256=:AAAA:",
        "Content-Language": "en",
        "Last-Modified": "Fri, 01 Jan 2010 00:00:00 GMT",
    }
    page = responds(lambda: web.Response(body=BODY, headers={**kept, **gone}))
    client = await aiohttp_client(app_of(etag_middleware(), handler=page))
    answer = await client.get("/")
    assert {*gone, "Content-Type", "Content-Length"} < set(answer.headers)
    answer = await client.get("/", headers={"If-None-Match": "*"})
    assert answer.status == 304
    assert answer.reason == "Not Modified"
    assert {name.lower() for name in answer.headers} == {
        *map(str.lower, kept),
        "date",
        "etag",
        "server",
    }
    assert {name: answer.headers[name] for name in kept} == kept


@pytest.mark.parametrize("own", ['"v1"', 'W/"v1"', '"v 1"'])
async def test_tag_of_the_handler_stays_and_is_compared(
    aiohttp_client: AiohttpClient, own: str
) -> None:
    page = responds(
        lambda: web.Response(body=io.BytesIO(BODY), headers={"ETag": own})
    )
    client = await aiohttp_client(app_of(etag_middleware(), handler=page))
    assert await ask(client) == (200, own, BODY)
    assert await ask(client, '"v2"') == (200, own, BODY)
    opaque = own.removeprefix("W/")
    for known in (opaque, f"W/{opaque}", f'"v0", {opaque}', "*"):
        assert await ask(client, known) == (304, own, b"")


async def test_date_of_the_clients_copy_does_not_count_beside_the_tag(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    fields = {"If-Modified-Since": answers.LATER}
    assert (await ask(client, **fields))[0] == 200
    assert (await ask(client, '"another"', **fields))[0] == 200
    assert (await ask(client, ETAG, **fields))[0] == 304


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("around", [[], [compression_middleware()]], ids=len)
async def test_connection_goes_on_after_a_304(
    method: str, around: list[Middleware]
) -> None:
    def chunked() -> web.Response:
        response = web.Response(body=BODY)
        response.enable_chunked_encoding()
        return response

    def compressed() -> web.Response:
        response = web.Response(body=BODY)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    for page in (hello, responds(chunked), responds(compressed)):
        app = app_of(*around, etag_middleware(), handler=page)
        async with live(app) as site:
            client = await site.connect()
            for _ in range(3):
                answer = await conditional(client, method)
                assert (answer.status, answer.headers["ETag"]) == (304, ETAG)
                assert not {"Transfer-Encoding", "Content-Encoding"} & set(
                    answer.headers
                )
            # Nothing of the three is left over in front of this one.
            client.send("GET /nowhere", fields="Connection: close\r\n")
            assert (await client.answer()).status == 404
            assert await client.rest() == b""
            client.leave()


async def conditional(client: Connection, method: str) -> Head:
    fields = f"If-None-Match: {ETAG}\r\nAccept-Encoding: gzip\r\n"
    client.send(f"{method} /", fields=fields)
    return await client.head()


# What it leaves alone
# ====================

TAGGED = {"returned", "compressed", "file"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "kind",
    # But for those in memory, and files, which have tags of aiohttp's own.
    [kind for kind in answers.KINDS if kind.name not in TAGGED],
    ids=str,
)
async def test_other_kinds_of_answers_are_as_they_were(
    aiohttp_client: AiohttpClient, kind: answers.Kind, method: str
) -> None:
    client = await aiohttp_client(answers.application(etag_middleware()))
    response = await client.request(
        method,
        kind.path,
        headers={"If-None-Match": "*", **kind.fields},
        allow_redirects=False,
    )
    assert response.status == kind.status
    assert "ETag" not in response.headers
    response.close()


async def test_file_has_the_tag_of_aiohttp(
    aiohttp_client: AiohttpClient,
) -> None:
    bare = await aiohttp_client(answers.application())
    client = await aiohttp_client(answers.application(etag_middleware()))
    for fields in ({}, {"If-None-Match": "*"}, {"Range": "bytes=1-5"}):
        expected = await bare.get("/file", headers=fields)
        response = await client.get("/file", headers=fields)
        assert response.status == expected.status
        assert response.headers["ETag"] == expected.headers["ETag"]
        assert await response.read() == await expected.read()


async def test_part_of_a_body_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    part = responds(
        lambda: web.Response(
            status=206, body=b"el", headers={"Content-Range": "bytes 1-2/5"}
        )
    )
    client = await aiohttp_client(app_of(etag_middleware(), handler=part))
    fields = {"Range": "bytes=1-2", "If-Range": ETAG}
    assert await ask(client, "*", **fields) == (206, None, b"el")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_other_methods_are_left_alone(
    aiohttp_client: AiohttpClient, method: str
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    assert await ask(client, "*", method) == (200, None, BODY)


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-store"},
        {"Cache-Control": "private, No-Store"},
        {"Cache-Control": "no-store", "ETag": ETAG},
        {"Set-Cookie": "a=b"},
    ],
    ids=str,
)
async def test_what_must_not_be_stored_and_cookies_are_left_alone(
    aiohttp_client: AiohttpClient, headers: Mapping[str, str]
) -> None:
    page = responds(lambda: web.Response(body=BODY, headers=headers))
    client = await aiohttp_client(app_of(etag_middleware(), handler=page))
    for known in (None, ETAG, "*"):
        assert await ask(client, known) == (200, headers.get("ETag"), BODY)


async def test_answer_that_sets_a_cookie_in_whatever_way_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    async def by_itself(request: web.Request) -> web.Response:
        response = web.Response(body=BODY)
        response.set_cookie("a", "b")
        return response

    async def at_the_last_moment(request: web.Request) -> web.Response:
        before_sending(
            request, lambda status, headers: headers.add("Set-Cookie", "a=b")
        )
        return web.Response(body=BODY)

    for handler in (by_itself, at_the_last_moment):
        client = await aiohttp_client(
            app_of(etag_middleware(), handler=handler)
        )
        assert await ask(client, ETAG) == (200, None, BODY)


@pytest.mark.parametrize("around", [[], [shield_middleware(urls=["/"])]])
async def test_session_that_sets_its_cookie_late_counts(
    aiohttp_client: AiohttpClient, around: list[Middleware]
) -> None:
    async def page(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session.setdefault("visits", 0)
        if "count" in request.query:
            session["visits"] += 1
        return web.Response(body=BODY)

    app = app_of(
        etag_middleware(), *around, session_middleware(KEY), handler=page
    )
    client = await aiohttp_client(app)
    known = {"If-None-Match": ETAG}
    for path, status in (("/", 200), ("/", 304), ("/?count", 200), ("/", 304)):
        response = await client.get(path, headers=known)
        assert response.status == status
        assert ("Set-Cookie" in response.headers) is (status == 200)
        assert ("ETag" in response.headers) is (status == 304)
        assert response.headers["Vary"] == "Cookie"


async def test_large_and_empty_bodies_have_no_tag(
    aiohttp_client: AiohttpClient,
) -> None:
    for size, max_size, tagged in (
        (1024**2, None, True),
        (1024**2 + 1, None, False),
        (5, 5, True),
        (6, 5, False),
        (0, None, False),
    ):
        page = responds(lambda size=size: web.Response(body=bytes(size)))  # type: ignore[misc]
        subject = (
            etag_middleware()
            if max_size is None
            else etag_middleware(max_size=max_size)
        )
        client = await aiohttp_client(app_of(subject, handler=page))
        status, tag, body = await ask(client, "*")
        assert (status, tag is not None) == (304 if tagged else 200, tagged)
        assert len(body) == (0 if tagged else size)


async def test_head_that_has_no_body_has_no_tag(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application(middlewares=[etag_middleware()])
    app.router.add_get("/", hello, allow_head=False)
    app.router.add_head("/", responds(lambda: web.Response(body=b"")))
    client = await aiohttp_client(app)
    assert await ask(client, method="HEAD") == (200, None, b"")
    assert await ask(client) == (200, ETAG, BODY)


async def test_ignored_urls_are_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware(ignore=["/"])))
    assert await ask(client, "*") == (200, None, BODY)


async def test_answer_that_somebody_outside_changes_has_the_tag_of_what_leaves(
    aiohttp_client: AiohttpClient,
) -> None:
    @web.middleware
    async def shouts(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        assert isinstance(response, web.Response)
        assert response.body == BODY.upper()
        response.body = BODY
        return response

    @web.middleware
    async def replaces(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        await handler(request)
        return web.Response(body=b"another")

    loud = responds(lambda: web.Response(body=BODY.upper()))
    client = await aiohttp_client(
        app_of(shouts, etag_middleware(), handler=loud)
    )
    assert await ask(client) == (200, ETAG, BODY)
    client = await aiohttp_client(app_of(replaces, etag_middleware()))
    assert await ask(client, "*") == (200, None, b"another")


# Together with others
# ====================


@pytest.mark.parametrize("inside", [True, False])
async def test_together_with_compression(
    aiohttp_client: AiohttpClient, inside: bool
) -> None:
    text = "hello " * 1000
    stack = [compression_middleware(), etag_middleware()]
    client = await aiohttp_client(
        app_of(
            *(stack if inside else reversed(stack)),
            handler=responds(lambda: web.Response(text=text)),
        )
    )
    tags = set()
    for coding in ("gzip", "identity"):
        fields = {"Accept-Encoding": coding}
        first = await client.get("/", headers=fields)
        assert await first.text() == text
        assert ("Content-Encoding" in first.headers) is (coding == "gzip")
        tag = first.headers["ETag"]
        tags.add(tag)
        for known in (tag, tag.removeprefix("W/")):
            fields["If-None-Match"] = known
            second = await client.get("/", headers=fields)
            assert second.status == 304
            assert second.headers.getall("ETag") == [tag]
            assert second.headers.getall("Vary") == ["Accept-Encoding"]
            assert "Content-Encoding" not in second.headers
            assert await second.read() == b""
    assert len(tags) == 1


async def test_304_has_the_headers_of_cors_and_security_and_no_new_nonce(
    aiohttp_client: AiohttpClient,
) -> None:
    async def page(request: web.Request) -> web.Response:
        if "nonce" in request.query:
            return web.Response(text=f"<script nonce={csp_nonce(request)}>")
        return web.Response(body=BODY)

    origin = "https://app.example"
    app = app_of(
        security_headers_middleware(
            content_security_policy={"script-src": ["'nonce-{nonce}'"]}
        ),
        cors_middleware(origins=[origin], expose_headers=["ETag"]),
        error_middleware(),
        etag_middleware(),
        handler=page,
    )
    client = await aiohttp_client(app)
    fields = {"Origin": origin}
    first = await client.get("/", headers=fields)
    assert "nonce-" in first.headers["Content-Security-Policy"]
    fields["If-None-Match"] = first.headers["ETag"]
    second = await client.get("/", headers=fields)
    assert second.status == 304
    assert "Content-Security-Policy" not in second.headers
    for name in ("Access-Control-Allow-Origin", "Vary", "X-Frame-Options"):
        assert second.headers.getall(name) == first.headers.getall(name)
    # As the page says: a nonce in the body makes each tag another.
    one, other = [await client.get("/?nonce") for _ in range(2)]
    assert one.headers["ETag"] != other.headers["ETag"]


async def test_error_pages_are_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware(), error_middleware()))
    response = await client.get("/nowhere", headers={"If-None-Match": "*"})
    assert (response.status, "ETag" in response.headers) == (404, False)


async def test_replayed_answer_of_idempotency_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    app = app_of(etag_middleware(), idempotency_middleware())
    client = await aiohttp_client(app)
    for _ in range(2):
        answer = await ask(
            client, "*", "POST", **{"Idempotency-Key": "8e03978e"}
        )
        assert answer == (200, None, BODY)


async def test_access_log_tells_the_304(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiohttp_middlewares.access_log")
    client = await aiohttp_client(
        app_of(access_log_middleware(), etag_middleware())
    )
    await ask(client, ETAG)
    told = [
        (vars(r)["status"], vars(r)["bytes"])
        for r in caplog.records
        if r.name == "aiohttp_middlewares.access_log"
    ]
    assert told == [(304, 0)]


async def test_behind_a_cloning_neighbour_on_either_side(
    aiohttp_client: AiohttpClient,
) -> None:
    clones = https_middleware()
    client = await aiohttp_client(app_of(clones, etag_middleware(), clones))
    fields = {"X-Forwarded-Proto": "https"}
    assert await ask(client, **fields) == (200, ETAG, BODY)
    assert await ask(client, ETAG, **fields) == (304, ETAG, b"")


async def test_answer_of_a_shielded_handler_that_is_late_harms_nobody() -> None:
    late = asyncio.Event()

    async def page(request: web.Request) -> web.Response:
        if request.path == "/":
            try:
                return web.Response(body=BODY)
            finally:
                await late.wait()
        late.set()
        return web.Response(body=BODY)

    app = app_of(
        error_middleware(),
        etag_middleware(),
        timeout_middleware(None, limits={"/": 0.01}),
        shield_middleware(urls=["/"]),
        handler=page,
    )
    app.router.add_get("/next", page)
    async with live(app) as site:
        client = await site.connect()
        client.send("GET /", fields=f"If-None-Match: {ETAG}\r\n")
        assert (await client.answer()).status == 504
        client.send("GET /next", fields=f"If-None-Match: {ETAG}\r\n")
        assert (await client.head()).status == 304
        client.send("GET /next", fields="Connection: close\r\n")
        assert (await client.answer()).rest == BODY
        client.leave()


async def test_listed_twice_it_does_the_same(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(app_of(etag_middleware(), etag_middleware()))
    assert await ask(client) == (200, ETAG, BODY)
    assert await ask(client, ETAG) == (304, ETAG, b"")


# Hostile input
# =============


@pytest.mark.parametrize(
    "known",
    [
        b'"' * 8000,
        b'W/"' * 2500,
        b"," * 8000,
        b", " * 4000,
        b'"a",' * 2000,
        b'"\xff\xfe"',
        b"\xff",
        b'W/W/""',
        b"W/",
        b'"a"b"c"',
    ],
    ids=lambda known: ascii(known[:9]),
)
async def test_garbage_is_answered_as_if_nothing_were_known(
    aiohttp_client: AiohttpClient, known: bytes
) -> None:
    client = await aiohttp_client(app_of(etag_middleware()))
    received = await raw(
        client.server,
        b"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: %b\r\n"
        b"Connection: close\r\n\r\n" % known,
    )
    answer = head(received)
    assert (answer.status, answer.rest) == (200, BODY)


OPAQUES = st.text(st.characters(exclude_characters='"'), max_size=5)
TAGS = st.builds(
    lambda weak, opaque: f'{"W/" * weak}"{opaque}"', st.booleans(), OPAQUES
)
GAPS = st.sampled_from([",", ", ", " ,", ",,", " , ,\t"])


@given(st.lists(TAGS, min_size=1, max_size=MOST_ELEMENTS), st.integers(0), GAPS)
def test_each_member_of_a_list_is_found(
    tags: list[str], number: int, gap: str
) -> None:
    line = gap.join(tags)
    wanted = tags[number % len(tags)]
    for spelling in (wanted, wanted.removeprefix("W/")):
        assert names_etag([line], spelling)
        assert names_etag(["garbage", line], spelling)
    assert not names_etag([line], '"none of the above"')


@given(st.text(max_size=30), TAGS)
def test_what_is_found_was_named(text: str, tag: str) -> None:
    if names_etag([text], tag):
        assert text == "*" or tag.removeprefix("W/") in text


@pytest.mark.parametrize(
    ("lines", "is_named"),
    [
        (['"a",' * (MOST_ELEMENTS - 1) + '"b"'], True),
        (['"a",' * MOST_ELEMENTS + '"b"'], False),
        (['"a"'] * (MOST_ELEMENTS - 1) + ['"b"'], True),
        (['"a"'] * MOST_ELEMENTS + ['"b"'], False),
        (["," * (MOST_TEXT - 3) + '"b"'], True),
        (["," * (MOST_TEXT - 2) + '"b"'], False),
        (["a" * (MOST_TEXT - 3), '"b"'], True),
        (["a" * (MOST_TEXT - 2), '"b"'], False),
        (["a" * MOST_TEXT, "*"], False),
    ],
)
def test_tags_beyond_the_bounds_of_a_list_count_as_not_named(
    lines: list[str], is_named: bool
) -> None:
    assert names_etag(lines, '"b"') is is_named


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_size": 0}, ValueError, "max_size .* 1 or more"),
        ({"max_size": -1}, ValueError, "max_size"),
        ({"max_size": "1 MiB"}, TypeError, "max_size"),
        ({"max_size": 1.5}, TypeError, "max_size"),
        ({"max_size": True}, TypeError, "max_size"),
        ({"max_size": None}, TypeError, "max_size"),
        ({"ignore": "/a"}, TypeError, "ignore"),
        ({"ignore": ["a"]}, ValueError, "ignore"),
    ],
)
def test_wrong_options_are_refused_when_it_is_built(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"etag_middleware {words}"):
        etag_middleware(**options)
