"""Bearer tokens, as RFC 6750 has them."""

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import answers
import pytest
from aiohttp import web
from discreet import keep, shows_nothing
from hypothesis import example, given
from hypothesis import strategies as st
from jwts import (
    AUDIENCE,
    ISSUER,
    OTHER_RSA,
    Publisher,
    published,
    real_claims,
    token,
)
from multidict import CIMultiDict
from pytest_aiohttp.plugin import AiohttpClient
from raw import head, raw

from aiohttp_middlewares import (
    KeysUnavailable,
    bearer_auth_middleware,
    cors_middleware,
    error_middleware,
    get_claims,
    get_user,
    jwt_verifier,
    proxy_headers_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.bearer_auth import _BEARER

GOOD = keep("good-token.of_ann~+/==")
BAD = keep("bad-token.of_nobody")
#: What the tokens of these tests give.
KNOWN: dict[str, Any] = {
    GOOD: {"sub": "ann", "scope": "read"},
    keep("token-of-a-machine"): {"client_id": "cron"},
    keep("token-with-no-claims"): {},
    keep("token-of-a-number"): {"sub": 7},
}
CHALLENGE = 'Bearer realm="Restricted"'
INVALID_TOKEN = f'{CHALLENGE}, error="invalid_token"'
INVALID_REQUEST = f'{CHALLENGE}, error="invalid_request"'


def application(verify: Any = KNOWN.get, **options: Any) -> web.Application:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response([get_user(request), {**get_claims(request)}])

    app = web.Application(
        middlewares=[bearer_auth_middleware(verify, **options)]
    )
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def ask(
    aiohttp_client: AiohttpClient,
    *authorization: str,
    app: web.Application | None = None,
) -> aiohttp.ClientResponse:
    client = await aiohttp_client(app or application())
    headers = CIMultiDict([("Authorization", line) for line in authorization])
    return await client.get("/", headers=headers)


def assert_refused(
    response: aiohttp.ClientResponse, challenge: str = CHALLENGE
) -> None:
    status = 400 if challenge.endswith('"invalid_request"') else 401
    assert response.status == status
    assert response.headers.getall("WWW-Authenticate") == [challenge]
    if status == 401:
        assert response.headers.getall("Cache-Control") == ["no-store"]


# What it does
# ============


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer   "])
async def test_who_has_a_good_token_is_let_in(
    aiohttp_client: AiohttpClient, scheme: str
) -> None:
    response = await ask(aiohttp_client, f"{scheme} {GOOD}")
    assert response.status == 200
    assert await response.json() == ["ann", KNOWN[GOOD]]
    for name in ("WWW-Authenticate", "Vary", "Cache-Control"):
        assert name not in response.headers


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["Basic YTpi"],
        ["Basic"],
        ["Digest username=a, uri=b"],
        [
            "Negotiate x",
        ],
        ["DPoP " + GOOD],
        ["BearerX " + GOOD],
        ["Bearer-X " + GOOD],
        ["Basic YTpi, Bearer " + GOOD],
        [GOOD],
    ],
)
async def test_who_has_no_token_is_asked_for_one(
    aiohttp_client: AiohttpClient, lines: list[str]
) -> None:
    # RFC 6750 3.1: no error code.
    assert_refused(await ask(aiohttp_client, *lines))
    for line in lines:
        app = application(required=False)
        response = await ask(aiohttp_client, line, app=app)
        assert (response.status, await response.json()) == (200, [None, {}])


@pytest.mark.parametrize("required", [True, False])
async def test_bad_token_is_told(
    aiohttp_client: AiohttpClient, required: bool
) -> None:
    app = application(required=required)
    response = await ask(aiohttp_client, f"Bearer {BAD}", app=app)
    assert_refused(response, INVALID_TOKEN)


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "lines",
    [
        ["Bearer"],
        ["bearer "],
        ["Bearer ="],
        ["Bearer\t" + GOOD],
        [f'Bearer "{GOOD}"'],
        [f"Bearer {GOOD} x"],
        [f"Bearer {GOOD}="[:-4] + "=x"],
        [f"Bearer {GOOD},"],
        [f"Bearer {GOOD}, Bearer {GOOD}"],
        [f"Bearer {GOOD}, Basic YTpi"],
        [f"Bearer token={GOOD}"],
        ["Bearer é"],
        *([f"Bearer {letter}"] for letter in "\u0130\u0131\u017f\u212a"),
        *([f"Bearer{letter} a"] for letter in "\u0130\u0131\u017f\u212a"),
        ["Bearer,"],
        [f"Bearer {GOOD}", f"Bearer {GOOD}"],
        [f"Bearer {GOOD}", f"Bearer {BAD}"],
        [f"Bearer {GOOD}", "Basic YTpi"],
        ["Basic YTpi", f"Bearer {GOOD}"],
        ["Basic YTpi", "Basic YTpi"],
        ["", f"Bearer {GOOD}"],
    ],
)
async def test_what_is_malformed_or_comes_twice_is_told(
    aiohttp_client: AiohttpClient, lines: list[str], required: bool
) -> None:
    app = application(required=required)
    response = await ask(aiohttp_client, *lines, app=app)
    assert_refused(response, INVALID_REQUEST)


@pytest.mark.parametrize(
    ("given_token", "user"),
    [
        ("token-of-a-machine", None),
        ("token-with-no-claims", None),
        ("token-of-a-number", "7"),
    ],
)
async def test_user_is_the_subject_of_the_claims(
    aiohttp_client: AiohttpClient, given_token: str, user: str | None
) -> None:
    response = await ask(aiohttp_client, f"Bearer {given_token}")
    assert await response.json() == [user, KNOWN[given_token]]


async def test_function_may_be_a_coroutine_function(
    aiohttp_client: AiohttpClient,
) -> None:
    async def verify(given_token: str) -> Mapping[str, Any] | None:
        await asyncio.sleep(0)
        return {"sub": "bob"} if given_token == GOOD else None

    response = await ask(
        aiohttp_client, f"Bearer {GOOD}", app=application(verify)
    )
    assert await response.json() == ["bob", {"sub": "bob"}]
    response = await ask(
        aiohttp_client, f"Bearer {BAD}", app=application(verify)
    )
    assert_refused(response, INVALID_TOKEN)


async def test_function_is_not_asked_about_what_is_no_token(
    aiohttp_client: AiohttpClient,
) -> None:
    def verify(given_token: str) -> None:
        raise AssertionError

    app = application(verify)
    assert_refused(await ask(aiohttp_client, app=app))
    response = await ask(aiohttp_client, "Bearer a b", app=application(verify))
    assert_refused(response, INVALID_REQUEST)


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of what the error middleware has told."""
    return [
        record.levelname
        for record in caplog.records
        if record.name == "aiohttp_middlewares.error"
    ]


@pytest.mark.parametrize("required", [True, False])
async def test_keys_that_are_away_are_not_the_clients_fault(
    aiohttp_client: AiohttpClient,
    required: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def verify(given_token: str) -> None:
        raise KeysUnavailable("Redis is away", retry_after=6.5)

    app = application(verify, required=required)
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, f"Bearer {GOOD}", app=app)
    assert response.status == 503
    assert response.headers.getall("Retry-After") == ["7"]
    assert "WWW-Authenticate" not in response.headers
    # Anybody can send a token.
    assert levels(caplog) == ["WARNING"]


async def test_handler_that_verifies_for_itself_is_no_fault_either(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: web.Request) -> web.Response:
        raise KeysUnavailable

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_get("/", handler)
    assert (await ask(aiohttp_client, app=app)).status == 503
    assert levels(caplog) == ["WARNING"]


@pytest.mark.parametrize("result", [True, "ann", [("sub", "ann")]])
async def test_function_that_gives_something_else_lets_nobody_in(
    aiohttp_client: AiohttpClient,
    result: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = application(lambda given_token: result)
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, f"Bearer {GOOD}", app=app)
    assert response.status == 500
    assert "verify should return a mapping of claims or None" in caplog.text


async def test_function_that_fails_lets_nobody_in(
    aiohttp_client: AiohttpClient,
) -> None:
    async def verify(given_token: str) -> None:
        raise ValueError("the database is away")

    app = application(verify)
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, f"Bearer {GOOD}", app=app)
    assert response.status == 500


@pytest.mark.parametrize(
    ("realm", "shown"),
    [
        ("The API", "The API"),
        ('the "inner" \\ circle', r"the \"inner\" \\ circle"),
    ],
)
async def test_realm_is_quoted(
    aiohttp_client: AiohttpClient, realm: str, shown: str
) -> None:
    app = application(realm=realm)
    assert_refused(
        await ask(aiohttp_client, app=app), f'Bearer realm="{shown}"'
    )


async def test_token_in_the_url_or_the_body_is_none(
    aiohttp_client: AiohttpClient,
) -> None:
    # RFC 9700 4.3.2
    client = await aiohttp_client(application())
    response = await client.post(
        "/", params={"access_token": "x" * 9}, data={"access_token": GOOD}
    )
    assert_refused(response)


# With the JWTs of an issuer
# ==========================


async def test_jwts_of_an_issuer_are_good_for_this_api(
    aiohttp_client: AiohttpClient,
) -> None:
    async with published() as issuer:
        verify = jwt_verifier(
            issuer.url, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE
        )
        client = await aiohttp_client(application(verify))
        for given_token, status in (
            (token(payload=real_claims(), kid="rsa"), 200),
            (token(payload=real_claims(aud="x"), kid="rsa"), 401),
            (token(payload=real_claims(exp=1), kid="rsa"), 401),
            (token(OTHER_RSA, real_claims(), kid="rsa"), 401),
            (keep("opaque-token-of-somebody"), 401),
        ):
            response = await client.get(
                "/", headers={"Authorization": f"Bearer {given_token}"}
            )
            assert response.status == status
            if status == 200:
                assert (await response.json())[0] == "ann"
            else:
                assert_refused(response, INVALID_TOKEN)


async def test_issuer_that_is_away_is_told_and_remembered(
    aiohttp_client: AiohttpClient,
) -> None:
    async def away(request: web.Request) -> Any:
        raise web.HTTPBadGateway

    async with published() as issuer:
        issuer.answer = away
        verify = jwt_verifier(
            issuer.url, algorithms=["RS256"], issuer=None, audience=None
        )
        client = await aiohttp_client(application(verify))
        fields = {"Authorization": f"Bearer {token(payload=real_claims())}"}

        async def status(client: Any, issuer: Publisher) -> Any:
            response = await client.get("/", headers=fields)
            return response.status, response.headers["Retry-After"]

        asked = [status(client, issuer) for _ in range(20)]
        assert {*await asyncio.gather(*asked)} == {(503, "5")}
        assert len(issuer.asked) == 1
        assert_refused(await client.get("/"))  # which needs no keys


# What it leaves alone
# ====================


async def test_nobody_is_asked_at_an_ignored_url(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(ignore={"/healthz": "GET"}))
    for headers in (
        {},
        {"Authorization": f"Bearer {GOOD}"},
        {"Authorization": f"Bearer {BAD}"},
        {"Authorization": "Bearer ="},
    ):
        response = await client.get("/healthz", headers=headers)
        assert (response.status, await response.json()) == (200, [None, {}])
    assert (await client.post("/healthz")).status == 401
    assert (await client.get("/healthz/")).status == 401
    received = await raw(
        client.server,
        b"GET /x/../healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    assert head(received).status == 401


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_comes_through(
    aiohttp_client: AiohttpClient, kind: answers.Kind
) -> None:
    client = await aiohttp_client(
        answers.application(bearer_auth_middleware(KNOWN.get))
    )
    good = {"Authorization": f"Bearer {GOOD}"}
    response = await client.get(
        kind.path, headers={**kind.fields, **good}, allow_redirects=False
    )
    assert response.status == kind.status
    assert "Authorization" not in response.headers.get("Vary", "")
    response.close()
    assert_refused(await client.get(kind.path, headers=kind.fields))


@middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone(remote="192.0.2.1"))


@pytest.mark.parametrize("outside", [[], [clones]], ids=["alone", "clones"])
@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_every_kind_of_answer_varies_where_no_token_is_required(
    aiohttp_client: AiohttpClient, kind: answers.Kind, outside: list[Any]
) -> None:
    inside = bearer_auth_middleware(KNOWN.get, required=False)
    client = await aiohttp_client(
        answers.application(*outside, inside, *outside)
    )
    for fields in ({}, {"Authorization": f"Bearer {GOOD}"}):
        response = await client.get(
            kind.path, headers={**kind.fields, **fields}, allow_redirects=False
        )
        assert response.status == kind.status
        vary = ", ".join(response.headers.getall("Vary", []))
        assert vary.split(", ").count("Authorization") == 1
        response.close()
    response = await client.get(
        kind.path, headers={"Authorization": f"Bearer {BAD}"}
    )
    assert_refused(response, INVALID_TOKEN)
    assert response.headers.getall("Vary") == ["Authorization"]


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

    app = answers.application(
        outside, bearer_auth_middleware(KNOWN.get, required=False)
    )
    client = await aiohttp_client(app)
    await client.get("/returned", headers={"Authorization": f"Bearer {GOOD}"})
    assert seen == ["Authorization"]


async def test_error_middleware_renders_the_refusal(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application()
    app.middlewares.insert(0, error_middleware())
    response = await ask(aiohttp_client, f"Bearer {BAD}", app=app)
    assert_refused(response, INVALID_TOKEN)
    assert await response.json() == {"detail": "A good token is needed"}


async def test_preflight_outside_of_it_needs_no_token(
    aiohttp_client: AiohttpClient,
) -> None:
    app = application()
    app.middlewares.insert(0, cors_middleware(allow_all=True))
    client = await aiohttp_client(app)
    response = await client.options(
        "/",
        headers={
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "GET",
        },
    )
    assert response.status == 200
    response = await client.get("/", headers={"Origin": "https://a.example"})
    assert response.headers.getall("Access-Control-Allow-Origin") == ["*"]
    assert_refused(response)


async def test_user_is_seen_outside_of_a_clone(
    aiohttp_client: AiohttpClient,
) -> None:
    seen = []

    @middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append((get_user(request), get_claims(request)))
        return response

    app = application()
    app.middlewares[:0] = [
        outside,
        proxy_headers_middleware(trusted=["127.0.0.1"]),
    ]
    client = await aiohttp_client(app)
    fields = {
        "X-Forwarded-For": "203.0.113.7",
        "Authorization": f"Bearer {GOOD}",
    }
    assert (await client.get("/", headers=fields)).status == 200
    assert seen == [("ann", KNOWN[GOOD])]


async def test_handshake_of_a_websocket_needs_a_token(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        answers.application(bearer_auth_middleware(KNOWN.get))
    )
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await client.ws_connect("/websocket")
    assert caught.value.status == 401
    fields = {"Authorization": f"Bearer {GOOD}"}
    async with client.ws_connect("/websocket", headers=fields) as websocket:
        assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE


# What the log says
# =================


async def test_log_says_why_and_nothing_of_the_token(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares"):
        await ask(aiohttp_client)
        for line in (f"Bearer {BAD}", f"Bearer {BAD} {BAD}", f"Basic {BAD}"):
            await ask(aiohttp_client, line)
    ours = [r for r in caplog.records if r.name.startswith("aiohttp_middl")]
    assert [record.getMessage() for record in ours] == [
        "Refused GET /: it has no token",
        "Refused GET /: its token is not good",
        "Refused GET /: its Authorization is malformed",
        "Refused GET /: it has no token",
    ]
    for record in ours:
        assert record.levelno == logging.INFO
        assert record.name == "aiohttp_middlewares.bearer_auth"
        assert shows_nothing(str(vars(record)))


# Any header
# ==========


@given(st.one_of(st.text(), st.text().map("Bearer {}".format)))
@example("Bearer a=b")
def test_any_text_is_a_token_or_nothing(text: str) -> None:
    found = _BEARER.fullmatch(text)
    if found is not None:
        assert text[:7].lower() == "bearer "
        assert re.fullmatch(r"[\w.~+/-]+=*", found[1], re.ASCII)


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("verify", "options", "error", "message"),
    [
        (
            GOOD,
            {},
            TypeError,
            "bearer_auth_middleware verify should be a callable, such as a "
            "jwt_verifier(...), got a str",
        ),
        ({GOOD: {}}, {}, TypeError, "got a dict"),
        (None, {}, TypeError, "got a NoneType"),
        (KNOWN.get, {"realm": ""}, ValueError, "realm should be the value"),
        (KNOWN.get, {"realm": "a\nb"}, ValueError, "realm should be the value"),
        (KNOWN.get, {"realm": None}, TypeError, "realm should be the value"),
        (KNOWN.get, {"required": 1}, TypeError, "required should be True or"),
        (KNOWN.get, {"ignore": "/x"}, TypeError, "did you mean ['/x']?"),
        (KNOWN.get, {"ignore": ["x"]}, ValueError, "did you mean '/x'?"),
    ],
)
def test_wrong_option_is_one_sentence_without_a_token(
    verify: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        bearer_auth_middleware(verify, **options)
    assert shows_nothing(str(caught.value))
