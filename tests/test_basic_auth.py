"""A login and a password, as RFC 7617 has it."""

import asyncio
import base64
import logging
import re
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    basic_auth_middleware,
    error_middleware,
    get_user,
)
from aiohttp_middlewares.basic_auth import _credentials, _knows

USERS = {
    "Aladdin": "open sesame",
    "test": "123£",
    "münchen": "a:b::c ",
    "": "anonymous",
}


def encoded(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def application(check: Any = USERS, **options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=repr(get_user(request)))

    app = web.Application(middlewares=[basic_auth_middleware(check, **options)])
    app.router.add_route("*", "/{path:.*}", handler)
    return app


CHALLENGE = 'Basic realm="Restricted", charset="UTF-8"'


async def ask(
    aiohttp_client: AiohttpClient,
    *authorization: str,
    app: web.Application | None = None,
) -> aiohttp.ClientResponse:
    client = await aiohttp_client(app or application())
    headers = CIMultiDict([("Authorization", line) for line in authorization])
    return await client.get("/", headers=headers)


async def assert_refused(
    response: aiohttp.ClientResponse, challenge: str = CHALLENGE
) -> None:
    assert response.status == 401
    assert response.headers.getall("WWW-Authenticate") == [challenge]
    assert await response.text() == "A login is needed"


# What it does
# ============


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        # RFC 7617 2 and 2.1
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"),
        ("Basic dGVzdDoxMjPCow==", "test"),
        ("basic dGVzdDoxMjPCow==", "test"),
        ("BASIC   dGVzdDoxMjPCow==", "test"),
        (encoded("münchen", "a:b::c "), "münchen"),
        (encoded("", "anonymous"), ""),
        # Latin-1, where UTF-8 was asked for, as aiohttp sends it by default
        ("Basic " + base64.b64encode(b"test:123\xa3").decode(), "test"),
        (
            "Basic " + base64.b64encode(b"m\xfcnchen:a:b::c ").decode(),
            "münchen",
        ),
    ],
)
async def test_who_knows_the_password_is_let_in(
    aiohttp_client: AiohttpClient, authorization: str, user: str
) -> None:
    response = await ask(aiohttp_client, authorization)
    assert (response.status, await response.text()) == (200, repr(user))
    assert "WWW-Authenticate" not in response.headers


async def test_who_sends_nothing_is_asked(
    aiohttp_client: AiohttpClient,
) -> None:
    await assert_refused(await ask(aiohttp_client))


@pytest.mark.parametrize(
    "authorization",
    [
        encoded("Aladdin", "open sesam"),
        encoded("Aladdin", "open sesame "),
        encoded("Aladdin", ""),
        encoded("aladdin", "open sesame"),
        encoded("nobody", "open sesame"),
        encoded("test", "open sesame"),
        encoded("münchen", "a"),
        encoded("", ""),
    ],
)
async def test_who_does_not_know_the_password_is_refused(
    aiohttp_client: AiohttpClient, authorization: str
) -> None:
    await assert_refused(await ask(aiohttp_client, authorization))


@pytest.mark.parametrize(
    "lines",
    [
        [""],
        ["Basic"],
        ["Basic "],
        ["Basic ="],
        ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ"],
        ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ="],
        ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==="],
        ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ== x"],
        ["Basic QWxhZGRpb:jpvcGVuIHNlc2FtZQ=="],
        ["Basic\tQWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
        ["BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
        ["Basic Aladdin:open sesame"],
        ["Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="],
        ["Basic " + base64.b64encode(b"Aladdin").decode()],
        # neither login, in either encoding
        ["Basic " + base64.b64encode(b"test:123\xc2\xa3\xa3").decode()],
        # RFC 7617 2: no control characters
        [encoded("Aladdin", "open sesame\n")],
        [encoded("Aladdin", "open sesame\x00")],
        ["Basic ü"],
        # two, of which one is good
        [encoded("Aladdin", "open sesame"), encoded("x", "y")],
        [encoded("Aladdin", "open sesame") + ", " + encoded("x", "y")],
    ],
)
async def test_what_is_malformed_is_refused(
    aiohttp_client: AiohttpClient, lines: list[str]
) -> None:
    await assert_refused(await ask(aiohttp_client, *lines))


@pytest.mark.parametrize("is_async", [True, False])
async def test_function_decides(
    aiohttp_client: AiohttpClient, is_async: bool
) -> None:
    def check(login: str, password: str) -> bool:
        return (login, password) == ("a", "b:c")

    async def check_later(login: str, password: str) -> bool:
        await asyncio.sleep(0)
        return check(login, password)

    for password, status in (("b:c", 200), ("b", 401)):
        app = application(check_later if is_async else check)
        response = await ask(aiohttp_client, encoded("a", password), app=app)
        assert response.status == status


async def test_function_is_not_asked_about_what_is_malformed(
    aiohttp_client: AiohttpClient,
) -> None:
    def check(login: str, password: str) -> bool:
        raise AssertionError

    await assert_refused(await ask(aiohttp_client, app=application(check)))
    response = await ask(aiohttp_client, "Basic x", app=application(check))
    await assert_refused(response)


async def test_failing_function_lets_nobody_in(
    aiohttp_client: AiohttpClient,
) -> None:
    async def check(login: str, password: str) -> bool:
        raise ConnectionAbortedError("the database is away")

    app = application(check)
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, encoded("a", "b"), app=app)
    assert response.status == 500


@pytest.mark.parametrize(
    ("realm", "shown"),
    [
        ("Staging area", "Staging area"),
        ('the "inner" \\ circle', r"the \"inner\" \\ circle"),
    ],
)
async def test_realm_is_quoted(
    aiohttp_client: AiohttpClient, realm: str, shown: str
) -> None:
    response = await ask(aiohttp_client, app=application(realm=realm))
    await assert_refused(response, f'Basic realm="{shown}", charset="UTF-8"')


# What it leaves alone
# ====================


async def test_nobody_is_asked_at_an_ignored_url(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application(ignore={"/healthz": "GET"})
    client = await aiohttp_client(app)
    good = {"Authorization": encoded("Aladdin", "open sesame")}
    for headers in ({}, good, {"Authorization": "Basic x"}):
        response = await client.get("/healthz", headers=headers)
        assert (response.status, await response.text()) == (200, "None")
    assert (await client.post("/healthz")).status == 401
    assert (await client.get("/healthz/")).status == 401


async def test_user_of_a_request_without_the_middleware_is_none(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application()
    app.middlewares.clear()
    response = await ask(aiohttp_client, encoded("a", "b"), app=app)
    assert await response.text() == "None"


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    app = answers.application(basic_auth_middleware(USERS))
    client = await aiohttp_client(app)
    good = {"Authorization": encoded("Aladdin", "open sesame")}
    response = await client.get(
        kind.path, headers={**kind.fields, **good}, allow_redirects=False
    )
    assert response.status == kind.status
    await assert_refused(await client.get(kind.path, headers=kind.fields))


async def test_error_middleware_renders_the_refusal(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application()
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, app=app)
    assert response.status == 401
    assert response.headers.getall("WWW-Authenticate") == [CHALLENGE]
    assert await response.json() == {"detail": "A login is needed"}


# What the log says
# =================


async def test_log_never_holds_credentials(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["", "Basic secret", encoded("secret-login", "secret")]
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares"):
        await ask(aiohttp_client)
        for line in lines:
            await ask(aiohttp_client, line)
    assert [record.getMessage() for record in caplog.records] == [
        "Refused GET /: it has no credentials",
        "Refused GET /: its credentials are malformed",
        "Refused GET /: its credentials are malformed",
        "Refused GET /: login and password do not match",
    ]
    for record in caplog.records:
        assert record.levelno == logging.INFO
        assert record.name == "aiohttp_middlewares.basic_auth"
        assert "secret" not in str(vars(record))
        assert lines[2].split()[1] not in str(vars(record))


def test_passwords_are_compared_by_digests_of_one_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    knows = _knows("test", {"a": "b"})
    assert knows("a", "b")
    assert not knows("a", "x" * 1000)
    assert not knows("unknown", "b")
    assert compared == [(64, 64)] * 3


# Any header
# ==========


@given(st.one_of(st.text(), st.text().map("Basic {}".format)))
@example("Basic " + "A" * 4)
def test_any_text_is_credentials_or_nothing(text: str) -> None:
    credentials = _credentials(text)
    assert credentials is None or ":" not in credentials[0]


@given(st.binary())
def test_any_bytes_are_credentials_or_nothing(sent: bytes) -> None:
    credentials = _credentials("Basic " + base64.b64encode(sent).decode())
    if credentials is not None:
        text = ":".join(credentials)
        try:
            assert text == sent.decode()
        except UnicodeDecodeError:
            assert text == sent.decode("latin-1")


PRINTABLE = st.text(
    st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f")
)


@given(PRINTABLE.filter(lambda login: ":" not in login), PRINTABLE)
def test_what_was_sent_is_what_is_read(login: str, password: str) -> None:
    assert _credentials(encoded(login, password)) == (login, password)


@given(st.text(), st.text())
def test_no_other_password_is_let_in(login: str, password: str) -> None:
    knows = _knows("test", USERS)
    assert knows(login, password) == (USERS.get(login) == password)


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("check", "options", "error", "message"),
    [
        (
            "admin",
            {},
            TypeError,
            "basic_auth_middleware check should be a mapping or a callable, "
            "got 'admin'",
        ),
        (None, {}, TypeError, "a mapping or a callable"),
        ([("a", "b")], {}, TypeError, "a mapping or a callable"),
        ({}, {}, ValueError, "nobody could log in"),
        ({"a": ""}, {}, ValueError, "none of them empty"),
        ({"a": b"secret"}, {}, TypeError, "all of them strings"),
        ({1: "secret"}, {}, TypeError, "all of them strings"),
        ({"a:b": "secret"}, {}, ValueError, "without ':' in a login"),
        ({"a\n": "secret"}, {}, ValueError, "without control characters"),
        ({"a": "secret\n"}, {}, ValueError, "without control characters"),
        (USERS, {"realm": ""}, ValueError, "realm should be the value"),
        (USERS, {"realm": "a\nb"}, ValueError, "realm should be the value"),
        (USERS, {"realm": None}, TypeError, "realm should be the value"),
        (USERS, {"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
        (USERS, {"ignore": ["x"]}, ValueError, "did you mean '/x'?"),
    ],
)
def test_wrong_option_is_one_sentence(
    check: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as raised:
        basic_auth_middleware(check, **options)
    assert "secret" not in str(raised.value)
