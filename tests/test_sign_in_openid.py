"""What a provider of OpenID Connect says, and what is believed of it."""

import asyncio
import base64
import gzip
import json
import logging
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import aiohttp
import pytest
from aiohttp import ClientSession, web
from joserfc.jwk import OctKey
from openid_provider import provider
from sign_in_site import (
    CLIENT_ID,
    CLIENT_SECRET,
    EC,
    NONSENSE,
    OTHER_RSA,
    RSA,
    Issuer,
    MemoryStorage,
    Visitor,
    at_hash,
    errors,
    hangs,
    issuer,
    later,
    links,
    location,
    note,
    says,
    says_json,
    site,
    told,
    visited,
    visitor_of,
    warnings,
)
from yarl import URL

from aiohttp_middlewares import openid_connect, sign_in_middleware
from aiohttp_middlewares.client import SSRFPolicy, ssrf_session
from aiohttp_middlewares.sign_in._openid import _name_of
from aiohttp_middlewares.sign_in._provider import Failed

__all__ = ("issuer", "told")


def of(issuer: Issuer, **options: Any) -> web.Application:
    """A site that has its visitors from there."""
    names = ("allow", "logout", "scopes", "session")
    own = {name: options.pop(name) for name in names if name in options}
    client = options.pop("client", (CLIENT_ID, CLIENT_SECRET))
    return site(openid_connect(issuer.issuer, *client, **own), **options)


# The ID token
# ============


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"at_hash": None},
        {"aud": [CLIENT_ID]},
        {"azp": CLIENT_ID},
        {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID},
        {"exp": later(-10)},  # clocks differ
    ],
)
async def test_good_id_token_is_taken(
    issuer: Issuer, claims: dict[str, Any]
) -> None:
    issuer.claims = claims
    async with visited(of(issuer)) as visitor:
        assert location(await visitor.sign_in("/a")) == "/a"
        assert (await visitor.who())["user"] == "24400320"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.example"}, "its issuer is another"),
        ({"iss": None}, "its issuer is another"),
        ({"aud": "another"}, "its audience is another"),
        ({"aud": None}, "its audience is another"),
        ({"aud": ["another"]}, "its audience is another"),
        ({"exp": later(-3600)}, "it has expired"),
        ({"exp": None}, "a required claim is missing"),
        ({"iat": None}, "a required claim is missing"),
        ({"iat": later(3600)}, "it was issued in the future"),
        ({"nbf": later(3600)}, "it is not good yet"),
        ({"sub": None}, "a required claim is missing"),
        ({"sub": 7}, "its subject is no string"),
    ],
)
async def test_id_token_that_is_not_good_signs_nobody_in(
    issuer: Issuer,
    told: list[logging.LogRecord],
    claims: dict[str, Any],
    reason: str,
) -> None:
    await assert_502(
        issuer, told, f"its ID token is not good: {reason}", claims=claims
    )


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": ""}, "has no subject"),
        ({"nonce": "wrong"}, "is that of another sign-in"),
        ({"nonce": None}, "is that of another sign-in"),
        ({"nonce": 7}, "is that of another sign-in"),
        ({"nonce": "\u2028"}, "is that of another sign-in"),
        ({"azp": "another"}, "was issued to another"),
        ({"azp": 7}, "was issued to another"),
        ({"aud": [CLIENT_ID, "another"]}, "was issued to another"),
        (
            {"aud": [CLIENT_ID, "another"], "azp": "another"},
            "was issued to another",
        ),
        ({"at_hash": "wrong"}, "goes with another access token"),
        ({"at_hash": 7}, "goes with another access token"),
        ({"at_hash": ""}, "goes with another access token"),
    ],
    ids=str,
)
async def test_id_token_of_another_sign_in_signs_nobody_in(
    issuer: Issuer,
    told: list[logging.LogRecord],
    claims: dict[str, Any],
    reason: str,
) -> None:
    await assert_502(issuer, told, f"its ID token {reason}", claims=claims)


async def assert_502(
    issuer: Issuer,
    told: list[logging.LogRecord],
    reason: str,
    **options: Any,
) -> None:
    """A page, one warning with the reason, and nobody is signed in."""
    for name, value in options.items():
        setattr(issuer, name, value)
    async with visited(of(issuer)) as visitor:
        response = await visitor.sign_in("/a")
        assert response.status == 502
        text = await response.text()
        assert "127.0.0.1 did not answer as it should." in text
        assert links(text) == ["/-/auth/sign-in?next=/a"]
        assert (await visitor.open("/who")).status == 303
    assert warnings(told) == [f"Nobody can sign in at 127.0.0.1: {reason}"]
    assert errors(told) == []


async def test_id_token_of_another_key_signs_nobody_in(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    await assert_502(
        issuer,
        told,
        "its ID token is not good: its signature is not that of a known key",
        key=OTHER_RSA,
    )


async def test_id_token_that_anybody_can_sign_signs_nobody_in(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    """An HMAC, be it with the secret of the client."""
    reason = "its ID token is not good: its algorithm is another"
    secret = OctKey.import_key(CLIENT_SECRET * 2, {"kid": "rsa"})
    await assert_502(issuer, told, reason, key=secret, algorithm="HS256")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "ES256"])
async def test_header_of_the_id_token_chooses_no_algorithm(
    issuer: Issuer, told: list[logging.LogRecord], algorithm: str
) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = [
        "RS256",
        "none",
        "HS256",
    ]
    token = issuer.token

    async def replaced(request: web.Request) -> web.StreamResponse:
        response = await token(request)
        tokens = json.loads(response.body)  # type: ignore[attr-defined]
        _, claims, signature = tokens["id_token"].split(".")
        header = json.dumps({"alg": algorithm}).encode()
        first = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
        tokens["id_token"] = f"{first}.{claims}.{signature}"
        return web.json_response(tokens)

    issuer.instead["/token"] = replaced
    await assert_502(
        issuer, told, "its ID token is not good: its algorithm is another"
    )


@pytest.mark.parametrize(
    ("algorithm", "key", "digest"),
    [
        ("RS256", RSA, "sha256"),
        ("RS384", RSA, "sha384"),
        ("PS512", RSA, "sha512"),
        ("ES256", EC, "sha256"),
    ],
)
async def test_any_algorithm_that_the_provider_lists_is_good(
    issuer: Issuer, algorithm: str, key: Any, digest: str
) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = [
        "none",
        "HS256",
        algorithm,
        "XY1",
    ]
    issuer.key, issuer.algorithm = key, algorithm
    issuer.tokens = {"access_token": "an-access-token"}
    issuer.claims = {"at_hash": at_hash("an-access-token", digest)}
    async with visited(of(issuer)) as visitor:
        assert location(await visitor.sign_in()) == "/"
    async with visited(of(issuer)) as visitor:
        issuer.claims = {"at_hash": at_hash("another-token", digest)}
        assert (await visitor.sign_in()).status == 502


@pytest.mark.parametrize(
    "id_token",
    [None, 7, "", "a.b", "a.b.c", "..", "a.b.c.d.e", "\u2028", "x" * 100_000],
    ids=lambda value: str(value)[:8],
)
async def test_what_is_no_id_token_signs_nobody_in(
    issuer: Issuer, id_token: Any
) -> None:
    issuer.tokens = {"id_token": id_token}
    async with visited(of(issuer)) as visitor:
        assert (await visitor.sign_in()).status == 502


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        ({"token_type": "DPoP"}, "gave another type of token"),
        ({"token_type": None}, "gave another type of token"),
        ({"token_type": 7}, "gave another type of token"),
        ({"access_token": None}, "gave no token"),
        ({"access_token": ""}, "gave no token"),
        ({"access_token": "a b"}, "gave no token"),
        ({"access_token": "a\r\nb"}, "gave no token"),
        ({"access_token": ["a"]}, "gave no token"),
        ({"id_token": None}, "gave no ID token"),
    ],
    ids=str,
)
async def test_token_answer_that_is_none_signs_nobody_in(
    issuer: Issuer,
    told: list[logging.LogRecord],
    tokens: dict[str, Any],
    reason: str,
) -> None:
    await assert_502(
        issuer, told, f"the token endpoint {reason}", tokens=tokens
    )


async def test_type_of_the_token_has_no_case(issuer: Issuer) -> None:
    issuer.tokens = {"token_type": "bEARER"}
    async with visited(of(issuer)) as visitor:
        assert location(await visitor.sign_in()) == "/"


# Refusals
# ========


async def test_code_that_the_provider_does_not_know_is_a_refusal(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    async with visited(of(issuer)) as visitor:
        callback = await visitor.back_from(await visitor.to_provider())
        response = await visitor.open(callback.update_query(code="made-up"))
        assert response.status == 403
        assert "invalid_grant" in await response.text()
    assert warnings(told) == []


@pytest.mark.parametrize("status", [200, 400, 401])
async def test_refusal_of_the_site_is_told_to_its_operator(
    issuer: Issuer, told: list[logging.LogRecord], status: int
) -> None:
    issuer.instead["/token"] = says_json(
        {"error": "invalid_client", "error_description": "<b>secret</b>"},
        status,
    )
    await assert_502(
        issuer, told, "the token endpoint refused with invalid_client"
    )


async def test_error_that_is_no_code_is_not_told(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.instead["/token"] = says_json({"error": "\n<script>" * 100}, 400)
    await assert_502(issuer, told, "the token endpoint refused with an error")


async def test_claims_decide_who_is_let_in(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    asked = []

    async def allow(claims: Any) -> bool:
        asked.append(dict(claims))
        await asyncio.sleep(0)
        return bool(claims["email"].endswith("@example.com"))

    for function in (allow, lambda claims: "example.com" in claims["email"]):
        async with visited(of(issuer, allow=function)) as visitor:
            issuer.user["email"] = "jane@example.com"
            assert location(await visitor.sign_in("/a")) == "/a"
        async with visited(of(issuer, allow=function)) as visitor:
            issuer.user["email"] = "<b>joe</b>@example.net"
            response = await visitor.sign_in("/a")
            assert response.status == 403
            text = await response.text()
            assert "&lt;b&gt;joe&lt;/b&gt;@example.net is not let in" in text
            assert links(text) == ["/-/auth/sign-in?next=/a"]
            assert (await visitor.open("/who")).status == 303
    assert asked[0]["iss"] == issuer.issuer
    assert warnings(told) == []


# RFC 9207
# ========


async def test_answer_of_the_provider_itself_is_taken(issuer: Issuer) -> None:
    for supported in (None, True):
        issuer.back = {"iss": issuer.issuer}
        issuer.document = {
            "authorization_response_iss_parameter_supported": supported
        }
        async with visited(of(issuer)) as visitor:
            assert location(await visitor.sign_in()) == "/"


@pytest.mark.parametrize(
    ("back", "supported"),
    [
        ({"iss": "https://other.example"}, None),
        ({"iss": "https://other.example"}, True),
        ({"iss": "https://other.example", "error": "access_denied"}, None),
        ({}, True),
    ],
)
async def test_answer_of_another_provider_is_not_taken(
    issuer: Issuer, back: dict[str, str | None], supported: bool | None
) -> None:
    """Mix-up: the code is not sent to whoever it is not from."""
    issuer.back = back
    issuer.document = {
        "authorization_response_iss_parameter_supported": supported
    }
    async with visited(of(issuer)) as visitor:
        response = await visitor.sign_in("/a")
        assert response.status == 400
        assert "/token" not in issuer.asked
        assert (await visitor.open("/who")).status == 303


async def test_issuer_is_compared_to_the_letter(issuer: Issuer) -> None:
    for iss in (f"{issuer.issuer}/", issuer.issuer.upper()):
        issuer.back = {"iss": iss}
        async with visited(of(issuer)) as visitor:
            assert (await visitor.sign_in()).status == 400


# Who the site is
# ===============


@pytest.mark.parametrize(
    "methods",
    [None, ["client_secret_basic"], ["private_key_jwt", "client_secret_basic"]],
)
async def test_secret_goes_by_basic_authentication_form_encoded(
    issuer: Issuer, methods: Any
) -> None:
    issuer.document["token_endpoint_auth_methods_supported"] = methods
    async with visited(of(issuer)) as visitor:
        await visitor.sign_in()
    [authorization] = issuer.authorizations
    scheme, _, pair = authorization.partition(" ")
    name, _, secret = base64.b64decode(pair).decode().partition(":")
    assert scheme == "Basic"
    assert name == quote_plus(CLIENT_ID) != CLIENT_ID
    assert unquote_plus(secret) == CLIENT_SECRET != secret
    # RFC 6749 2.3: one way to authenticate in one request.
    assert not {"client_id", "client_secret"} & set(issuer.forms[0])


async def test_secret_goes_into_the_body_where_that_is_the_way(
    issuer: Issuer,
) -> None:
    issuer.document["token_endpoint_auth_methods_supported"] = [
        "client_secret_post"
    ]
    async with visited(of(issuer)) as visitor:
        await visitor.sign_in()
    assert issuer.authorizations == [""]
    assert issuer.forms[0]["client_id"] == CLIENT_ID
    assert issuer.forms[0]["client_secret"] == CLIENT_SECRET


async def test_public_client_sends_its_id_in_the_body(issuer: Issuer) -> None:
    async with visited(of(issuer, client=("public",))) as visitor:
        assert location(await visitor.sign_in()) == "/"
    assert issuer.authorizations == [""]
    assert issuer.forms[0]["client_id"] == "public"
    assert "client_secret" not in issuer.forms[0]


async def test_way_that_is_not_known_is_told(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.document["token_endpoint_auth_methods_supported"] = ["tls"]
    async with visited(of(issuer)) as visitor:
        assert (await visitor.open()).status == 502
    assert warnings(told) == [
        "Nobody can sign in at 127.0.0.1: its configuration has no way to "
        "send a client secret"
    ]


# Userinfo
# ========


async def test_claims_that_are_not_in_the_id_token_are_asked_for(
    issuer: Issuer,
) -> None:
    issuer.more = {"groups": ["a"], "name": "another", "nonce": "x"}
    app = of(issuer, keep=("sub", "name", "groups", "nonce"))
    async with visited(app) as visitor:
        await visitor.sign_in()
        claims = (await visitor.who())["claims"]
        # What was signed counts more.
        assert claims.pop("nonce") != "x"
        assert claims == {
            "sub": "24400320",
            "name": "Jane Doe",
            "groups": ["a"],
        }


async def test_userinfo_is_not_asked_for_what_is_there(
    issuer: Issuer,
) -> None:
    async with visited(of(issuer)) as visitor:
        await visitor.sign_in()
    assert "/userinfo" not in issuer.asked


async def test_provider_without_userinfo_is_not_asked(issuer: Issuer) -> None:
    issuer.document["userinfo_endpoint"] = None
    async with visited(of(issuer, keep=("sub", "groups"))) as visitor:
        await visitor.sign_in()
        assert (await visitor.who())["claims"] == {"sub": "24400320"}


@pytest.mark.parametrize("sub", ["another", None, 7, ""])
async def test_userinfo_of_somebody_else_signs_nobody_in(
    issuer: Issuer, sub: Any
) -> None:
    issuer.more = {"sub": sub, "groups": ["admin"]}
    async with visited(of(issuer, keep=("groups",))) as visitor:
        assert (await visitor.sign_in()).status == 502
        assert (await visitor.open("/who")).status == 303


# Its configuration
# =================


async def test_configuration_is_asked_for_once(issuer: Issuer) -> None:
    app = of(issuer)
    async with visited(app) as visitor:
        await visitor.sign_in()
        async with visitor_of(visitor.base) as other:
            await other.sign_in()
    assert issuer.asked["/.well-known/openid-configuration"] == 1
    assert issuer.asked["/keys"] == 1


async def test_configuration_is_asked_for_once_by_all_who_come_at_once(
    issuer: Issuer,
) -> None:
    async with visited(of(issuer)) as visitor:
        found = await asyncio.gather(*(visitor.open() for _ in range(20)))
    assert {response.status for response in found} == {303}
    assert issuer.asked["/.well-known/openid-configuration"] == 1


@pytest.mark.parametrize("instead", [NONSENSE["500"], hangs, None])
async def test_configuration_that_is_old_is_good_while_there_is_no_other(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, instead: Any
) -> None:
    name = "aiohttp_middlewares.sign_in._openid"
    monkeypatch.setattr(f"{name}.OLD_METADATA", 0.0)
    monkeypatch.setattr(f"{name}.METADATA_PAUSE", 60.0)
    monkeypatch.setattr(f"{name}.METADATA_PATIENCE", 0.05)
    path = "/.well-known/openid-configuration"
    async with visited(of(issuer)) as visitor:
        assert (await visitor.to_provider()).path == "/authorize"
        if instead is None:
            issuer.document["authorization_endpoint"] = f"{issuer.issuer}/new"
            assert (await visitor.to_provider()).path == "/new"
            return
        issuer.instead[path] = instead
        for _ in range(3):
            assert (await visitor.to_provider()).path == "/authorize"
        assert issuer.asked[path] == 2  # and then not for a minute


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://other.example"}, "is that of another issuer"),
        ({"issuer": None}, "is that of another issuer"),
        ({"authorization_endpoint": None}, "has no authorization_endpoint"),
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"jwks_uri": None}, "has no jwks_uri"),
        (
            {"token_endpoint": "http://other.example/"},
            "has no secure token_endpoint",
        ),
        ({"token_endpoint": 7}, "has no secure token_endpoint"),
        ({"token_endpoint": "/token"}, "has no secure token_endpoint"),
        (
            {"authorization_endpoint": "javascript:alert(1)"},
            "has no secure authorization_endpoint",
        ),
        ({"jwks_uri": "file:///etc/passwd"}, "has no secure jwks_uri"),
        ({"userinfo_endpoint": []}, "has no secure userinfo_endpoint"),
        (
            {"end_session_endpoint": "http://a:b@127.0.0.1/"},
            "has no secure end_session_endpoint",
        ),
        (
            {"id_token_signing_alg_values_supported": ["none", "HS256"]},
            "has no algorithm that is known here",
        ),
        (
            {"id_token_signing_alg_values_supported": [7, None, {}]},
            "has no algorithm that is known here",
        ),
    ],
    ids=str,
)
async def test_configuration_that_is_none_sends_nobody_anywhere(
    issuer: Issuer,
    told: list[logging.LogRecord],
    document: dict[str, Any],
    reason: str,
) -> None:
    path = "/.well-known/openid-configuration"
    async with visited(of(issuer)) as visitor:
        issuer.document = document
        response = await visitor.open("/a")
        assert response.status == 502
        assert links(await response.text()) == ["/-/auth/sign-in?next=/a"]
        # It is asked for again.
        issuer.document = {}
        await visitor.to_provider("/a")
        assert issuer.asked[path] == 2
    assert warnings(told) == [
        f"Nobody can sign in at 127.0.0.1: its configuration {reason}"
    ]


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"sub": "7", "name": "Ann", "email": "a@b.example"}, "a@b.example"),
        ({"sub": "7", "name": "Ann", "email": None}, "Ann"),
        ({"sub": "7", "email": ["a@b.example"]}, "7"),
    ],
)
def test_visitor_is_called_by_what_is_there(
    claims: dict[str, Any], name: str
) -> None:
    assert _name_of(claims) == name


def test_provider_elsewhere_names_nothing_on_this_machine() -> None:
    """What is good for a provider on this machine is not for others."""
    issuer = "https://login.example.com"
    built: Any = openid_connect(issuer, "id")
    document = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/keys",
    }
    assert built._read(document).token_endpoint == URL(f"{issuer}/token")
    for name in ("token_endpoint", "jwks_uri", "userinfo_endpoint"):
        inside = {**document, name: "http://127.0.0.1:8080/"}
        with pytest.raises(Failed, match=f"no secure {name}"):
            built._read(inside)


async def test_algorithm_that_is_not_listed_is_rs256(issuer: Issuer) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = None
    async with visited(of(issuer)) as visitor:
        assert location(await visitor.sign_in()) == "/"


async def test_slash_at_the_end_of_the_issuer_counts(
    issuer: Issuer,
) -> None:
    issuer.document["issuer"] = f"{issuer.issuer}/"
    issuer.claims["iss"] = f"{issuer.issuer}/"
    async with visited(of(issuer)) as visitor:
        assert (await visitor.open()).status == 502
    app = site(openid_connect(f"{issuer.issuer}/", CLIENT_ID, CLIENT_SECRET))
    async with visited(app) as visitor:
        assert location(await visitor.sign_in()) == "/"


# When it is away, or talks nonsense
# ==================================

PLACES = {
    "/.well-known/openid-configuration": "its configuration",
    "/token": "the token endpoint",
    "/keys": "its keys",
    "/userinfo": "the userinfo endpoint",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("path", PLACES)
async def test_nonsense_is_a_page_and_a_warning(
    issuer: Issuer,
    told: list[logging.LogRecord],
    path: str,
    nonsense: str,
) -> None:
    issuer.instead[path] = NONSENSE[nonsense]
    # What hangs is waited for; all else has to be done in that time, too.
    timeout = 1 if nonsense == "hangs" else 10
    app = of(issuer, keep=("sub", "groups"), timeout=timeout)
    async with visited(app) as visitor:
        if path == "/.well-known/openid-configuration":
            response = await visitor.open("/a")
        else:
            response = await visitor.sign_in("/a")
        assert response.status == 502
        assert response.content_type == "text/html"
        assert links(await response.text()) == ["/-/auth/sign-in?next=/a"]
        assert "/stolen" not in issuer.asked
        # It comes back.
        del issuer.instead[path]
        if path != "/keys":  # for which there is a pause
            assert location(await visitor.sign_in("/a")) == "/a"
    assert errors(told) == []
    assert len(warnings(told)) == 1


async def test_answer_is_read_as_far_as_one_may_go(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.instead["/token"] = NONSENSE["endless"]
    await assert_502(
        issuer,
        told,
        "the token endpoint answered with more than 1048576 bytes",
    )


async def test_answer_that_is_packed_is_not_unpacked(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    """It is asked for as it is; a kilobyte may hold a megabyte."""

    async def packed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(
            body=gzip.compress(b'{"a": "' + bytes(5_000_000) + b'"}'),
            headers={"Content-Encoding": "gzip"},
        )

    issuer.instead["/token"] = packed
    await assert_502(
        issuer, told, "the token endpoint answered with no JSON object"
    )


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999", "-1e999"])
async def test_number_that_is_none_is_no_json(
    issuer: Issuer, number: str
) -> None:
    """No session that is JSON itself could keep it."""
    issuer.instead["/userinfo"] = says(
        f'{{"sub": "24400320", "groups": [{number}]}}'
    )
    async with visited(of(issuer, keep=("sub", "groups"))) as visitor:
        assert (await visitor.sign_in()).status == 502


async def test_callback_takes_as_long_as_the_limit_and_no_longer(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    """All that is asked, together."""

    def late(answer: Any) -> Callable[[web.Request], Any]:
        async def wait(request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.4)
            response: web.StreamResponse = await answer(request)
            return response

        return wait

    issuer.instead = {
        "/token": late(issuer.token),
        "/keys": late(issuer.published),
        "/userinfo": late(issuer.userinfo),
    }
    async with visited(of(issuer, keep=("x",), timeout=1)) as visitor:
        assert (await visitor.sign_in()).status == 502
    assert issuer.asked["/userinfo"] == 1
    assert warnings(told) == [
        "Nobody can sign in at 127.0.0.1: it took longer than 1 s"
    ]


async def test_provider_that_nobody_listens_for_is_away(
    told: list[logging.LogRecord],
) -> None:
    app = site(openid_connect("http://127.0.0.1:9", CLIENT_ID, CLIENT_SECRET))
    async with visited(app) as visitor:
        assert (await visitor.open()).status == 502
    assert warnings(told) == [
        "Nobody can sign in at 127.0.0.1: its configuration is away: "
        "ClientConnectorError"
    ]


async def test_redirect_of_the_provider_is_not_followed(
    issuer: Issuer,
) -> None:
    """It would carry the secret elsewhere."""
    issuer.instead["/token"] = NONSENSE["elsewhere"]
    async with visited(of(issuer)) as visitor:
        assert (await visitor.sign_in()).status == 502
    assert "/stolen" not in issuer.asked


async def test_session_of_ones_own_asks_and_stays_open(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    policy = SSRFPolicy(allow_networks=["127.0.0.0/8"], ports=None)
    async with ssrf_session(policy) as session:
        async with visited(of(issuer, session=session)) as visitor:
            assert location(await visitor.sign_in()) == "/"
        assert not session.closed
    async with (
        ssrf_session(SSRFPolicy()) as session,
        visited(of(issuer, session=session)) as visitor,
    ):
        assert (await visitor.open()).status == 502
    assert warnings(told) == [
        "Nobody can sign in at 127.0.0.1: its configuration is away: SSRFError"
    ]


async def test_session_that_raises_for_a_status_does_no_harm(
    issuer: Issuer,
) -> None:
    async with (
        ClientSession(raise_for_status=True) as session,
        visited(of(issuer, session=session)) as visitor,
    ):
        callback = await visitor.back_from(await visitor.to_provider())
        response = await visitor.open(callback.update_query(code="made-up"))
        assert response.status == 403


# A real provider
# ===============


async def fill_in(visitor: Visitor, url: URL, **form: str) -> URL:
    """The form of the provider; the address of the callback."""
    async with visitor.session.post(
        url, data=form, allow_redirects=False
    ) as response:
        assert response.status == 302, await response.text()
        callback = URL(response.headers["Location"])
    note(callback.query.get("code"))
    return callback


async def test_real_provider_signs_visitors_in_and_out() -> None:
    with provider(require_nonce=True) as issuer:
        app = site(
            openid_connect(issuer, "site", "hidden"),
            storage=MemoryStorage(),
        )
        async with visited(app) as visitor:
            async with visitor.session.put(
                f"{issuer}/users/jane",
                json={"email": "jane@example.com", "name": "Jane"},
            ) as response:
                assert response.status == 204
            url = await visitor.to_provider("/a?b=c")
            callback = await fill_in(visitor, url, sub="jane")
            response = await visitor.open(callback)
            assert location(response) == "/a?b=c"
            known = await visitor.who()
            assert known["user"] == "jane"
            assert known["claims"] == {
                "sub": "jane",
                "name": "Jane",
                "email": "jane@example.com",
            }
            response = await visitor.open("/-/auth/logout", "POST")
            end = URL(location(response))
            assert str(end).startswith(f"{issuer}/oauth2/end_session?")
            async with visitor.session.get(end) as response:
                text = await response.text()
            assert "id_token_hint</code> not set" not in text
            back = end.query["post_logout_redirect_uri"]
            assert (await visitor.open(URL(back))).status == 200
            assert (await visitor.open("/who")).status == 303


async def test_real_provider_takes_a_code_once() -> None:
    with provider() as issuer:
        app = site(openid_connect(issuer, "site", "hidden"))
        async with visited(app) as visitor:
            one = await visitor.to_provider("/1")
            two = await visitor.to_provider("/2")
            callback = await fill_in(visitor, one, sub="jane")
            assert location(await visitor.open(callback)) == "/1"
            replayed = callback.update_query(state=two.query["state"])
            assert (await visitor.open(replayed)).status == 403


async def test_real_provider_whose_visitor_denies_is_a_refusal() -> None:
    with provider() as issuer:
        app = site(openid_connect(issuer, "site", "hidden"))
        async with visited(app) as visitor:
            url = await visitor.to_provider("/1")
            callback = await fill_in(visitor, url, action="deny")
            # Older versions of the provider leave out the state here.
            assert callback.query["error"] == "access_denied"
            assert (await visitor.open(callback)).status == 403


async def test_real_provider_knows_clients_that_are_registered() -> None:
    with provider(require_client_registration=True) as issuer:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{issuer}/oauth2/clients",
                json={
                    "redirect_uris": ["https://site.example/-/auth/callback"]
                },
            ) as response,
        ):
            client = await response.json()
        note(client["client_secret"])
        for secret, status in (
            (client["client_secret"], 303),
            ("wrong", 502),
        ):
            own = openid_connect(issuer, client["client_id"], secret)
            app = site(own, behind_tls)
            async with visited(app) as visitor:
                response = await visitor.open("/a")
                url = URL(response.headers["Location"])
                callback = await fill_in(visitor, url, sub="jane")
                here = visitor.base.join(callback.relative())
                assert (await visitor.open(here)).status == status


@web.middleware
async def behind_tls(request: web.Request, handler: Any) -> Any:
    return await handler(request.clone(scheme="https", host="site.example"))


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            ("http://login.example.com", "id"),
            {},
            ValueError,
            "openid_connect issuer should be an https URL",
        ),
        (("login.example.com", "id"), {}, ValueError, "an https URL"),
        ((7, "id"), {}, TypeError, "an https URL"),
        (
            ("https://login.example.com?x=1", "id"),
            {},
            ValueError,
            "a URL without query",
        ),
        (
            ("https://a:hidden@login.example.com", "id"),
            {},
            ValueError,
            "without userinfo",
        ),
        (("https://a.example", ""), {}, ValueError, "client_id should not"),
        (("https://a.example", None), {}, TypeError, "client_id should be"),
        (
            ("https://a.example", "id", 7),
            {},
            TypeError,
            "client_secret should be a string",
        ),
        (
            ("https://a.example", "id", ""),
            {},
            ValueError,
            "client_secret should not be empty",
        ),
        (
            ("https://a.example", "id"),
            {"scopes": ("email",)},
            ValueError,
            "scopes with 'openid'",
        ),
        (
            ("https://a.example", "id"),
            {"scopes": "openid email"},
            TypeError,
            "a collection of strings",
        ),
        (
            ("https://a.example", "id"),
            {"scopes": ("openid", "email profile")},
            ValueError,
            r"did you mean \['email', 'profile'\]",
        ),
        (
            ("https://a.example", "id"),
            {"allow": True},
            TypeError,
            "allow should be a callable",
        ),
        (
            ("https://a.example", "id"),
            {"logout": 1},
            TypeError,
            "logout should be True or False",
        ),
        (
            ("https://a.example", "id"),
            {"session": "x"},
            TypeError,
            "session should be a ClientSession",
        ),
    ],
)
def test_misconfiguration_is_told_when_it_is_built(
    arguments: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        openid_connect(*arguments, **options)
    assert "hidden" not in str(caught.value)


def test_missing_joserfc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(ImportError) as caught:
        openid_connect("https://a.example", "id")
    assert str(caught.value) == (
        "openid_connect needs joserfc; "
        'pip install "aiohttp-middlewares[sign-in]"'
    )


def test_missing_aiohttp_session_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = openid_connect("https://a.example", "id")
    monkeypatch.setitem(sys.modules, "aiohttp_session", None)
    with pytest.raises(ImportError) as caught:
        sign_in_middleware(built)
    assert str(caught.value) == (
        "sign_in_middleware needs aiohttp-session; "
        'pip install "aiohttp-middlewares[sign-in]"'
    )


def test_secret_is_in_no_representation() -> None:
    built = openid_connect("https://a.example", "id", "hidden")
    assert "hidden" not in repr(built)
