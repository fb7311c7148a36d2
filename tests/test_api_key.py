"""Keys in a header."""

import asyncio
import logging
import re
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from discreet import keep, shows_nothing
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    api_key_middleware,
    error_middleware,
    get_claims,
    get_user,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.api_key import _knows

KEY = keep("key-of-the-backup")
KEYS = {
    "backup": KEY,
    "billing": keep("Another key, with spaces & signs!"),
    "café": keep("key-of-the-cafe"),
}
BAD = keep("key-of-nobody-at-all")
CHALLENGE = 'ApiKey realm="Restricted"'


def application(check: Any = KEYS, **options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response([get_user(request), {**get_claims(request)}])

    app = web.Application(middlewares=[api_key_middleware(check, **options)])
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def ask(
    aiohttp_client: AiohttpClient,
    *keys: str,
    app: web.Application | None = None,
    header: str = "X-API-Key",
) -> aiohttp.ClientResponse:
    client = await aiohttp_client(app or application())
    headers = CIMultiDict([(header, key) for key in keys])
    return await client.get("/", headers=headers)


def assert_refused(
    response: aiohttp.ClientResponse, challenge: str = CHALLENGE
) -> None:
    assert response.status == 401
    assert response.headers.getall("WWW-Authenticate") == [challenge]
    assert response.headers.getall("Cache-Control") == ["no-store"]


# What it does
# ============


@pytest.mark.parametrize("name", KEYS)
async def test_who_has_a_key_is_known_by_its_name(
    aiohttp_client: AiohttpClient, name: str
) -> None:
    response = await ask(aiohttp_client, KEYS[name])
    assert (response.status, await response.json()) == (200, [name, {}])
    assert "WWW-Authenticate" not in response.headers


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [""],
        [BAD],
        ["backup"],
        [KEY.upper()],
        [KEY[:-1]],
        [KEY + "x"],
        [f'"{KEY}"'],
        [f"{KEY}, {KEY}"],
        [KEY, KEY],
        [KEY, BAD],
        [BAD, KEY],
        ["é"],
        ["\udcff\udcfe"],
        ["a\tb"],
        ["x" * 8000],
    ],
)
async def test_who_has_no_good_key_is_refused(
    aiohttp_client: AiohttpClient, keys: list[str]
) -> None:
    assert_refused(await ask(aiohttp_client, *keys))


async def test_header_may_be_another(aiohttp_client: AiohttpClient) -> None:
    for header, status in (
        ("X-Auth", 200),
        ("x-auth", 200),
        ("X-API-Key", 401),
    ):
        app = application(header="X-Auth")
        response = await ask(aiohttp_client, KEY, app=app, header=header)
        assert response.status == status
        assert response.headers.getall("Vary") == ["X-Auth"]


async def test_key_in_the_url_or_the_body_is_none(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application())
    for name in ("X-API-Key", "api_key", "key"):
        response = await client.post("/", params={name: "x"}, data={name: KEY})
        assert_refused(response)


CLAIMS = {"sub": "backup", "scope": "read"}


@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ("backup", ["backup", {}]),
        (CLAIMS, ["backup", CLAIMS]),
        ({"scope": "read"}, [None, {"scope": "read"}]),
        ({"sub": 7}, ["7", {"sub": 7}]),
        (None, None),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_function_says_whose_key_it_is(
    aiohttp_client: AiohttpClient, known: Any, shown: Any, is_async: bool
) -> None:
    asked = []

    def check(key: str) -> Any:
        asked.append(key)
        return known

    async def check_later(key: str) -> Any:
        await asyncio.sleep(0)
        return check(key)

    app = application(check_later if is_async else check)
    response = await ask(aiohttp_client, KEY, app=app)
    assert asked == [KEY]
    if known is None:
        assert_refused(response)
    else:
        assert await response.json() == shown


async def test_function_is_not_asked_about_what_is_no_key(
    aiohttp_client: AiohttpClient,
) -> None:
    def check(key: str) -> str:
        raise AssertionError

    for keys in ([], [""], ["é"], ["\udcff"], ["a\tb"], [KEY, KEY]):
        app = application(check)
        assert_refused(await ask(aiohttp_client, *keys, app=app))


@pytest.mark.parametrize("known", [True, 7, ["backup"], ""])
async def test_function_that_gives_something_else_lets_nobody_in(
    aiohttp_client: AiohttpClient,
    known: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = application(lambda key: known)
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, KEY, app=app)
    assert response.status == 500
    assert "check should return a name, a mapping of claims" in caplog.text


async def test_realm_is_quoted(aiohttp_client: AiohttpClient) -> None:
    app = application(realm='the "inner" \\ circle')
    assert_refused(
        await ask(aiohttp_client, app=app),
        r'ApiKey realm="the \"inner\" \\ circle"',
    )


def test_all_keys_are_compared_by_digests_of_one_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    knows = _knows("test", KEYS)
    assert knows(KEY) == "backup"  # the first of them
    assert compared == [(64, 64)] * 3
    assert knows("x" * 1000) is None
    assert compared == [(64, 64)] * 6


@given(st.text(st.characters(codec="ascii")))
def test_no_other_key_is_known(key: str) -> None:
    assert _knows("test", {"a": KEY})(key) == ("a" if key == KEY else None)


# What it leaves alone
# ====================


async def test_nobody_is_asked_at_an_ignored_url(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(ignore={"/healthz": "GET"}))
    for headers in ({}, {"X-API-Key": KEY}, {"X-API-Key": BAD}):
        response = await client.get("/healthz", headers=headers)
        assert (response.status, await response.json()) == (200, [None, {}])
        assert "Vary" not in response.headers
    assert (await client.post("/healthz")).status == 401
    assert (await client.get("/healthz/")).status == 401


@middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(remote="192.0.2.1"))


@pytest.mark.parametrize("outside", [[], [clones]], ids=["alone", "clones"])
@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through_and_varies(
    aiohttp_client: AiohttpClient, kind: answers.Kind, outside: list[Any]
) -> None:
    # A cache would give it to whoever has no key.
    client = await aiohttp_client(
        answers.application(*outside, api_key_middleware(KEYS), *outside)
    )
    response = await client.get(
        kind.path,
        headers={**kind.fields, "X-API-Key": KEY},
        allow_redirects=False,
    )
    assert response.status == kind.status
    vary = ", ".join(response.headers.getall("Vary", []))
    assert vary.split(", ").count("X-API-Key") == 1
    response.close()
    response = await client.get(kind.path, headers=kind.fields)
    assert_refused(response)
    assert response.headers.getall("Vary") == ["X-API-Key"]


async def test_middlewares_outside_see_what_it_varies_by(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []

    @middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append(response.headers.get("Vary"))
        return response

    app = answers.application(outside, api_key_middleware(KEYS))
    client = await aiohttp_client(app)
    await client.get("/returned", headers={"X-API-Key": KEY})
    assert seen == ["X-API-Key"]


async def test_error_middleware_renders_the_refusal(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application()
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, app=app)
    assert_refused(response)
    assert await response.json() == {"detail": "An API key is needed"}


async def test_log_says_why_and_nothing_of_the_key(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares"):
        await ask(aiohttp_client)
        await ask(aiohttp_client, BAD)
        await ask(aiohttp_client, BAD, KEY)
    ours = [r for r in caplog.records if r.name.startswith("aiohttp_middl")]
    assert [record.getMessage() for record in ours] == [
        "Refused GET /: it has no key",
        "Refused GET /: its key is not good",
        "Refused GET /: its key is not good",
    ]
    for record in ours:
        assert record.levelno == logging.INFO
        assert record.name == "aiohttp_middlewares.api_key"


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("check", "options", "error", "message"),
    [
        (
            KEY,
            {},
            TypeError,
            "api_key_middleware check should be a mapping or a callable, got "
            "a str",
        ),
        ([KEY], {}, TypeError, "got a list"),
        (None, {}, TypeError, "got a NoneType"),
        ({}, {}, ValueError, "nobody could come in"),
        ({"a": ""}, {}, ValueError, "none of them empty"),
        ({"": KEY}, {}, ValueError, "none of them empty"),
        ({"a": KEY.encode()}, {}, TypeError, "all of them strings"),
        ({1: KEY}, {}, TypeError, "all of them strings"),
        ({"a": KEY + "\n"}, {}, ValueError, "in visible ASCII"),
        ({"a": " " + KEY}, {}, ValueError, "in visible ASCII"),
        ({"a": KEY + "é"}, {}, ValueError, "in visible ASCII"),
        ({"a": KEY, "b": KEY}, {}, ValueError, "a key of its own for each"),
        (KEYS, {"header": "X API"}, ValueError, "header should be a header"),
        (KEYS, {"header": ["X-A"]}, TypeError, "header should be a header"),
        (KEYS, {"realm": ""}, ValueError, "realm should be the value"),
        (KEYS, {"realm": None}, TypeError, "realm should be the value"),
        (KEYS, {"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
    ],
)
def test_wrong_option_is_one_sentence_without_a_key(
    check: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        api_key_middleware(check, **options)
    assert shows_nothing(str(caught.value))
