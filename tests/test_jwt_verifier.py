"""JSON Web Tokens: RFC 7519, RFC 8725 and RFC 9068."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import json
import logging
import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)
from discreet import keep, shows_nothing
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from jwts import (
    AUDIENCE,
    EC,
    EC384,
    ED,
    ED448,
    ISSUER,
    NOW,
    OCT,
    OTHER_RSA,
    RSA,
    SECRET,
    Clock,
    b64,
    claims,
    public,
    published,
    token,
)
from live import eventually, soon
from yarl import URL

from aiohttp_middlewares import KeysUnavailable, jwt_verifier
from aiohttp_middlewares._core.jwt import published as fetching
from aiohttp_middlewares._core.jwt.compact import (
    LONGEST_HEADER,
    LONGEST_TOKEN,
    TokenRefused,
)
from aiohttp_middlewares._core.jwt.reader import Reader

RSA_PEM = RSA.as_pem(private=False).decode()


def verifier(keys: Any = None, **options: Any) -> Any:
    options = {
        "algorithms": ["RS256"],
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "clock": Clock(),
        **options,
    }
    return jwt_verifier(public(RSA) if keys is None else keys, **options)


# What it does
# ============

EC521 = ECKey.generate_key("P-521")
EC256K = ECKey.generate_key("secp256k1")
GOOD: list[tuple[Any, str, Any]] = [
    (SECRET, "HS256", OCT),
    (SECRET.encode(), "HS384", OCT),
    (OCT.as_dict(), "HS512", OCT),
    ({"keys": [OCT.as_dict()]}, "HS256", OCT),
    (RSA_PEM, "RS256", RSA),
    (RSA_PEM.encode(), "RS512", RSA),
    (RSA.as_pem(private=True), "PS256", RSA),
    (public(RSA), "RS384", RSA),
    ({"keys": [public(EC), public(RSA)]}, "PS512", RSA),
    (EC.as_pem(private=False), "ES256", EC),
    (public(EC384), "ES384", EC384),
    (public(EC521), "ES512", EC521),
    (public(EC256K), "ES256K", EC256K),
    (ED.as_pem(private=False), "EdDSA", ED),
    (public(ED448), "EdDSA", ED448),
    (public(ED), "Ed25519", ED),
    (public(ED448), "Ed448", ED448),
]


@pytest.mark.parametrize(
    ("keys", "alg", "key"),
    GOOD,
    ids=[f"{number}-{alg}" for number, (_, alg, _) in enumerate(GOOD)],
)
async def test_good_token_gives_its_claims(
    keys: Any, alg: str, key: Any
) -> None:
    verify = verifier(keys, algorithms=[alg])
    assert await verify(token(key, alg=alg)) == claims()


@pytest.mark.parametrize(
    ("given_claims", "options"),
    [
        (claims(iss=None), {"issuer": None}),
        (
            claims(iss="https://b.example"),
            {"issuer": [ISSUER, "https://b.example"]},
        ),
        (claims(aud=None), {"audience": None}),
        (claims(aud=["https://x.example", AUDIENCE]), {}),
        (claims(aud="b"), {"audience": ["a", "b"]}),
        (claims(exp=None), {"required_claims": ()}),
        (claims(exp=NOW + 0.5), {"leeway": 0}),
        (claims(exp=NOW - 59), {}),
        (claims(exp=NOW - 599.5), {"leeway": 600}),
        (claims(exp=10**400), {"leeway": 1.5}),
        (claims(nbf=NOW + 60), {}),
        (claims(iat=NOW + 60), {}),
        (claims(nbf=-1.5), {}),
        (claims(scope=""), {"required_claims": ["scope"]}),
    ],
)
async def test_claims_are_judged_by_the_options(
    given_claims: dict[str, Any], options: dict[str, Any]
) -> None:
    given_token = token(payload=given_claims)
    assert await verifier(**options)(given_token) == given_claims


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"]
)
@pytest.mark.parametrize("expected", ["at+jwt", "application/at+jwt"])
async def test_type_of_an_access_token_has_several_spellings(
    typ: str, expected: str
) -> None:
    verify = verifier(token_type=expected)
    assert await verify(token(typ=typ))


async def test_key_is_found_by_its_kid_and_by_its_algorithm() -> None:
    same = RSAKey.import_key(OTHER_RSA.as_pem(private=True), {"kid": "rsa"})
    keys = {"keys": [public(same), public(RSA), public(EC)]}
    verify = verifier(keys, algorithms=["ES256", "RS256"])
    assert await verify(token(RSA, kid="rsa"))  # two have that name
    assert await verify(token(EC, alg="ES256", kid="ec"))
    assert await verify(token(EC, alg="ES256"))
    assert await verify(token(RSA))
    assert await verify(token(RSA, kid="ec")) is None
    assert await verify(token(RSA, kid="other")) is None


async def test_key_without_a_name_is_good_for_any() -> None:
    keys = {"keys": [public(RSA, kid=None), public(OTHER_RSA)]}
    verify = verifier(keys)
    assert await verify(token(RSA, kid="any"))
    assert await verify(token(RSA, kid="other")) is None


async def test_secret_is_good_whatever_the_kid() -> None:
    verify = verifier(SECRET, algorithms=["HS256"])
    assert await verify(token(OCT, alg="HS256", kid="2026-01"))


async def test_unknown_fields_of_the_header_mean_nothing() -> None:
    # RFC 7515 4
    verify = verifier()
    header: dict[str, Any] = {
        "x": [1],
        "nonce": "n",
        "typ": 7,
        "cty": "JWT",
        "b64": True,
    }
    assert await verify(token(**header))


async def test_claims_are_not_checked_for_what_they_are_not_about() -> None:
    more = {"scope": None, "roles": [{"a": 1}], "nonce": [float("1.5")]}
    payload = {**claims(), **more}
    assert await verifier()(token(payload=payload)) == payload


async def test_last_of_two_claims_of_one_name_counts() -> None:
    # RFC 7519 4: so that all who read it read the same.
    twice = json.dumps(claims()).encode()[:-1] + b', "sub": "bob"}'
    found = await verifier()(token(payload=twice))
    assert found == claims(sub="bob")
    twice = json.dumps(claims()).encode()[:-1] + b', "iss": "other"}'
    assert await verifier()(token(payload=twice)) is None


async def test_neither_eddsa_nor_a_short_secret_warns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await verifier(public(ED), algorithms=["EdDSA"])(
            token(ED, alg="EdDSA")
        )
        short = keep("short secret")
        verify = verifier(short, algorithms=["HS256"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = OctKey.import_key(short)
    assert await verify(token(key, alg="HS256"))
    assert "A secret of less than 32 bytes is too short" in caplog.text


# What it refuses
# ===============


def hmac_token(secret: bytes, alg: str = "HS256", **header: Any) -> str:
    message = (
        b64(json.dumps({"alg": alg, **header}).encode())
        + "."
        + b64(json.dumps(claims()).encode())
    )
    digest = hmac.new(secret, message.encode(), hashlib.sha256).digest()
    return keep(f"{message}.{b64(digest)}")


def changed(**changes: Any) -> Callable[[], str]:
    return lambda: token(payload=claims(**changes))


def raw(payload: bytes) -> Callable[[], str]:
    return lambda: token(payload=payload)


def headed(**header: Any) -> Callable[[], str]:
    return lambda: token(**header)


def head(value: Any) -> Callable[[], str]:
    return lambda: token(head=value)


def with_member(member: str) -> Callable[[], str]:
    """A claim whose value JSON as Python writes it cannot say."""
    payload = json.dumps(claims(exp=None))[:-1] + f', "exp": {member}}}'
    return raw(payload.encode())


ATTACKS: dict[str, Callable[[], str]] = {
    # RFC 8725 2.1 and 3.1
    "none": lambda: keep(token(head={"alg": "none"}).rpartition(".")[0] + "."),
    "none, with a signature": lambda: token(head={"alg": "none"}),
    "None": lambda: token(head={"alg": "None"}),
    "HS256 with the PEM of the key": lambda: hmac_token(RSA_PEM.encode()),
    "HS256 with the PEM of the key, stripped": lambda: hmac_token(
        RSA_PEM.strip().encode()
    ),
    "HS256 with the DER of the key": lambda: hmac_token(
        RSA.as_der(private=False)
    ),
    "HS256 with the modulus": lambda: hmac_token(public(RSA)["n"].encode()),
    "HS256 with nothing": lambda: hmac_token(b""),
    "RS256 by name, an HMAC in truth": lambda: hmac_token(
        RSA_PEM.encode(), "RS256"
    ),
    "another algorithm of the same key": lambda: token(alg="RS512"),
    "another algorithm by name": lambda: token(
        head={"alg": "RS256"}, sign_by="PS256"
    ),
    "algorithm in lower case": lambda: token(head={"alg": "rs256"}),
    "unknown algorithm": lambda: token(head={"alg": "RS1"}),
    "no algorithm": head({"typ": "JWT"}),
    "algorithm that is a list": head({"alg": ["RS256"]}),
    "algorithm that is null": head({"alg": None}),
    # another key
    "another key": lambda: token(OTHER_RSA),
    "another key by the name of ours": lambda: token(OTHER_RSA, kid="rsa"),
    "key of another kind": lambda: token(EC, alg="ES256"),
    "key of another kind by the name of ours": lambda: token(
        EC, head={"alg": "RS256", "kid": "rsa"}, sign_by="ES256"
    ),
    # RFC 8725 3.10
    "kid that is unknown": headed(kid="unknown"),
    "kid that is empty": headed(kid=""),
    "kid that is a path": headed(kid="../../../../dev/null"),
    "kid that is SQL": headed(kid="rsa' UNION SELECT 'key' --"),
    "kid that is a URL": headed(kid="https://evil.example/jwks"),
    "kid that is long": headed(kid="k" * 5000),
    "kid that is no text": headed(kid="\ud800\x00\n"),
    "kid that is a number": headed(kid=1),
    "kid that is a list": headed(kid=["rsa"]),
    "kid that is an object": headed(kid={"$ne": 1}),
    "kid that is null": headed(kid=None),
    "jku": lambda: token(OTHER_RSA, jku="https://evil.example/jwks"),
    "x5u": lambda: token(OTHER_RSA, x5u="https://evil.example/cert"),
    "x5c": lambda: token(
        OTHER_RSA, x5c=[base64.b64encode(OTHER_RSA.as_der()).decode()]
    ),
    "embedded jwk": lambda: token(OTHER_RSA, jwk=public(OTHER_RSA)),
    "embedded jwk by the name of ours": lambda: token(
        OTHER_RSA, kid="rsa", jwk=public(OTHER_RSA, kid="rsa")
    ),
    # RFC 7515 4.1.11, RFC 7797
    "unknown crit": headed(crit=["x"], x=1),
    "crit of what is known": headed(crit=["exp"], exp=1),
    "empty crit": headed(crit=[]),
    "crit that is a string": headed(crit="b64"),
    "b64": headed(b64=False, crit=["b64"]),
    "b64 without crit": headed(b64=False),
    "b64 that is null": headed(b64=None),
    # what is no JWT
    "empty": lambda: "",
    "dots": lambda: "..",
    "one part": lambda: keep(token().partition(".")[0]),
    "two parts": lambda: keep(token().rpartition(".")[0]),
    "four parts": lambda: keep(token() + ".x"),
    "five parts, as encrypted ones": lambda: keep(token() + ".x.y"),
    "no header": lambda: keep("." + token().partition(".")[2]),
    "no payload": raw(b""),
    "no signature": lambda: keep(token().rpartition(".")[0] + "."),
    "blank in front": lambda: " " + token(),
    "line feed behind": lambda: token() + "\n",
    "padding": lambda: token() + "==",
    "standard base64": lambda: (
        token().replace("-", "+").replace("_", "/") + "+"
    ),
    "another character": lambda: token() + "\u00e9",
    "half of a character": lambda: token() + "\udc80",
    "part of one character": lambda: keep(f"a.{token().partition('.')[2]}"),
    "nested": lambda: token(payload=json.dumps(token()).encode(), cty="JWT"),
    "nested, bare": lambda: token(payload=token().encode(), cty="JWT"),
    # JSON
    "header that is no JSON": head(b"{"),
    "header that is a list": head(["alg", "kid"]),
    "header that is a string": head("alg b64 kid"),
    "header that is a number": head(1),
    "header in UTF-16": head('{"alg": "RS256"}'.encode("utf-16")),
    "header with a byte order mark": head(b'\xef\xbb\xbf{"alg": "RS256"}'),
    "header in no UTF-8": head(b'{"alg": "RS256", "x": "\xff"}'),
    "header with NaN": head(b'{"alg": "RS256", "x": NaN}'),
    "header that is deep": head(b'{"alg":' + b"[" * 6000),
    "header with a long number": head(b'{"alg":' + b"1" * 6000),
    "header that is long": headed(x="x" * LONGEST_HEADER),
    "payload that is no JSON": raw(b"{"),
    "payload that is a list": raw(b"[]"),
    "payload that is null": raw(b"null"),
    "payload in no UTF-8": raw(b'{"sub": "\xff"}'),
    "payload that is deep": raw(b"[" * 40_000),
    "payload of objects that is deep": raw(b'{"a":' * 9_000),
    "payload with a long number": raw(b'{"exp": ' + b"9" * 40_000 + b"}"),
    # claims
    "no exp": changed(exp=None),
    "exp that is over": changed(exp=NOW - 60),
    "exp that is 0": changed(exp=0),
    "exp that is a string": changed(exp=str(NOW + 3600)),
    "exp that is true": changed(exp=True),
    "exp that is a list": changed(exp=[NOW + 3600]),
    "exp that is null": with_member("null"),
    "exp that is NaN": with_member("NaN"),
    "exp that is infinite": with_member("Infinity"),
    "exp that is minus infinity": with_member("-Infinity"),
    "exp that no float holds": with_member("1e999"),
    "nbf to come": changed(nbf=NOW + 61),
    "nbf that is a string": changed(nbf="0"),
    "nbf that no float holds": lambda: token(
        payload=json.dumps(claims()).encode()[:-1] + b', "nbf": -1e999}'
    ),
    "iat to come": changed(iat=NOW + 61),
    "iat that is a string": changed(iat="0"),
    "no iss": changed(iss=None),
    "another iss": changed(iss="https://evil.example/"),
    "iss without its slash": changed(iss=ISSUER.rstrip("/")),
    "iss in another case": changed(iss=ISSUER.upper()),
    "iss that is a list": changed(iss=[ISSUER]),
    "iss that is an object": changed(iss={ISSUER: 1}),
    "no aud": changed(aud=None),
    "another aud": changed(aud="https://other.example"),
    "aud that begins like ours": changed(aud=AUDIENCE + "/x"),
    "aud that is empty": changed(aud=[]),
    "list of other auds": changed(aud=["https://other.example", "x"]),
    "aud within a list": changed(aud=[[AUDIENCE]]),
    "aud beside what is none": changed(aud=[AUDIENCE, 1]),
    "aud that is an object": changed(aud={AUDIENCE: 1}),
    "sub that is a number": changed(sub=7),
    "sub that is null": lambda: token(payload={**claims(), "sub": None}),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attack_is_refused(name: str) -> None:
    assert await verifier()(ATTACKS[name]()) is None


async def test_attacks_are_refused_where_keys_are_published() -> None:
    async with published() as issuer:
        issuer.keys.append(public(EC))
        verify = verifier(issuer.url)
        assert await verify(token(kid="rsa"))
        for name, attack in ATTACKS.items():
            assert await verify(attack()) is None, name
        assert len(issuer.asked) == 2  # and no other URL by any of them
        assert {asked.path for asked in issuer.asked} == {"/jwks.json"}


async def test_attacks_differ_from_a_good_token_in_one_thing_only() -> None:
    assert await verifier()(token()) == claims()
    assert await verifier()(with_member(str(NOW + 3600))())
    assert await verifier()(token(kid="rsa"))
    assert await verifier()(headed(x="x" * 1000)())


@pytest.mark.parametrize("part", [0, 1, 2])
async def test_changed_token_is_refused(part: int) -> None:
    good = token()
    for position in range(0, len(good.split(".")[part]), 7):
        parts = good.split(".")
        old = parts[part][position]
        new = "A" if old != "A" else "B"
        parts[part] = parts[part][:position] + new + parts[part][position + 1 :]
        assert await verifier()(keep(".".join(parts))) is None


async def test_accepted_token_has_one_spelling() -> None:
    alphabet = (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )
    good = token(OCT, alg="HS256")
    verify = verifier(SECRET, algorithms=["HS256"])
    accepted = [
        last for last in alphabet if await verify(keep(good[:-1] + last))
    ]
    assert accepted == [good[-1]]


async def test_million_characters_are_refused_by_their_number() -> None:
    long = token(payload=claims(x="x" * 10**6))
    assert await verifier()(long) is None
    # The one that fits is read.
    payload = claims(x="")
    spare = LONGEST_TOKEN - len(token(payload=payload))
    payload["x"] = "x" * (spare * 3 // 4 - 2)
    assert await verifier()(token(payload=payload)) == payload


@pytest.mark.parametrize(
    ("alg", "key", "other", "its"),
    [
        ("ES256", EC, EC384, "ES384"),
        ("ES384", EC384, EC, "ES256"),
        ("ES256", EC, EC256K, "ES256K"),
        ("ES256K", EC256K, EC, "ES256"),
        ("Ed25519", ED, ED448, "Ed448"),
        ("Ed448", ED448, ED, "Ed25519"),
    ],
)
async def test_key_of_the_wrong_curve_is_refused(
    alg: str, key: Any, other: Any, its: str
) -> None:
    verify = verifier({"keys": [public(key), public(other)]}, algorithms=[alg])
    assert await verify(token(key, alg=alg))
    forged = token(other, head={"alg": alg, "kid": other.kid}, sign_by=its)
    assert await verify(forged) is None


async def test_signature_of_zeros_is_refused() -> None:
    # CVE-2022-21449
    message = token(EC, alg="ES256").rpartition(".")[0]
    verify = verifier(public(EC), algorithms=["ES256"])
    for signature in (
        bytes(64),
        bytes(63),
        b"\x01" * 65,
        b"",
        encode_dss_signature(1, 1),
    ):
        assert await verify(keep(f"{message}.{b64(signature)}")) is None


async def test_signature_that_a_library_fails_at_is_none() -> None:
    class Fails:
        def verify(self, *args: Any) -> bool:
            raise ValueError("the digest is too large for the key")

    reader = Reader({"RS256": Fails()})  # type: ignore[dict-item]
    signed = reader.opened(token())
    with pytest.raises(TokenRefused):
        reader.claims(signed, [RSA])


@pytest.mark.parametrize(
    "more",
    [
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
    ],
)
async def test_key_that_says_it_is_for_something_else_is_not_used(
    more: dict[str, Any],
) -> None:
    keys = {"keys": [public(RSA, **more), public(OTHER_RSA)]}
    verify = verifier(keys)
    assert await verify(token(OTHER_RSA))
    assert await verify(token(RSA)) is None
    assert await verify(token(RSA, kid="rsa")) is None


@pytest.mark.parametrize(
    "more",
    [{"alg": "RS256"}, {"use": "sig"}, {"key_ops": ["verify"]}, {"x": "y"}],
)
async def test_key_that_says_it_is_for_this_is_used(
    more: dict[str, Any],
) -> None:
    assert await verifier(public(RSA, **more))(token(kid="rsa"))


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt2", "", 7, ["at+jwt"]])
async def test_token_of_another_type_is_refused(typ: Any) -> None:
    header = {} if typ is None else {"typ": typ}
    assert await verifier(token_type="at+jwt")(token(**header)) is None
    assert await verifier()(token(**header))


async def test_claim_that_is_required_has_to_be_there() -> None:
    verify = verifier(required_claims=["exp", "jti", "client_id"])
    assert await verify(token(payload=claims(jti="1"))) is None
    assert await verify(token(payload=claims(jti="1", client_id="c")))
    null = {**claims(jti="1"), "client_id": None}
    assert await verify(token(payload=null)) is None


async def test_leeway_has_an_end() -> None:
    clock = Clock()
    verify = verifier(clock=clock, leeway=10)
    good = token(payload=claims(exp=NOW, nbf=NOW, iat=NOW))
    for now, is_good in (
        (NOW - 10.5, False),
        (NOW - 10, True),
        (NOW + 9.5, True),
        (NOW + 10, False),
    ):
        clock.now = now
        assert (await verify(good) is not None) == is_good


@given(
    st.text(
        st.characters(codec="utf-8") | st.sampled_from("abc-_.=+/"),
        max_size=200,
    )
)
async def test_no_text_is_a_token(text: str) -> None:
    assert await verifier(SECRET, algorithms=["HS256"])(text) is None


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda children: (
                st.lists(children, max_size=3)
                | st.dictionaries(st.text(max_size=3), children, max_size=3)
            ),
            max_leaves=5,
        ),
    ),
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=5) | st.integers(), max_size=3),
    ),
)
async def test_whatever_was_signed_raises_nothing(
    header: dict[str, Any], payload: dict[str, Any]
) -> None:
    verify = verifier(SECRET, algorithms=["HS256"])
    given_token = token(
        OCT,
        payload,
        head={"alg": "HS256", **header},
        sign_by="HS256",
    )
    found = await verify(given_token)
    assert found is None or found["exp"] > NOW - 60


async def test_reason_is_told_to_whoever_debugs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares.jwt")
    await verifier()(token(payload=claims(exp=1)))
    assert caplog.messages == ["A token is not good: it has expired"]


# Keys at a URL
# =============


async def rests(before: set[Any]) -> None:
    """Wait for what was begun besides."""
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_keys_are_fetched_once_and_only_when_a_token_comes() -> None:
    async with published() as issuer:
        verify = verifier(issuer.url)
        assert issuer.asked == []
        found = [await verify(token(kid="rsa")) for _ in range(20)]
        assert found == [claims()] * 20
        assert len(issuer.asked) == 1
        asked = issuer.asked[0]
        assert asked.headers["Accept-Encoding"] == "identity"
        assert "application/jwk-set+json" in asked.headers["Accept"]


async def test_twenty_who_wait_share_the_first_fetch() -> None:
    async with published() as issuer:
        verify = verifier(URL(issuer.url))
        tokens = [token(kid="rsa")] * 20
        assert all(await asyncio.gather(*map(verify, tokens)))
        assert len(issuer.asked) == 1


async def test_new_key_is_found_as_soon_as_a_token_names_it() -> None:
    async with published() as issuer:
        verify = verifier(issuer.url)
        assert await verify(token(kid="rsa"))
        issuer.keys.append(public(OTHER_RSA))
        assert await verify(token(OTHER_RSA, kid="other"))
        assert await verify(token(kid="rsa"))
        assert len(issuer.asked) == 2


async def test_hundred_tokens_of_one_unknown_key_make_one_fetch() -> None:
    clock = Clock()
    async with published() as issuer:
        verify = verifier(issuer.url, clock=clock)
        assert await verify(token(kid="rsa"))
        unknown = [token(kid="unknown")] * 100
        assert not any(await asyncio.gather(*map(verify, unknown)))
        assert len(issuer.asked) == 2
        for one in unknown:
            assert await verify(one) is None
        for number in range(100):  # nor do as many names
            assert await verify(token(kid=f"unknown-{number}")) is None
        assert len(issuer.asked) == 2
        assert await verify(token(kid="rsa"))


async def test_unknown_key_of_the_very_first_tokens_makes_one_fetch() -> None:
    async with published() as issuer:
        verify = verifier(issuer.url)
        for _ in range(3):
            tokens = [token(kid="unknown")] * 33
            assert not any(await asyncio.gather(*map(verify, tokens)))
        assert len(issuer.asked) == 1


async def test_unknown_key_is_looked_for_again_after_a_minute() -> None:
    clock = Clock()
    async with published() as issuer:
        verify = verifier(issuer.url, clock=clock)
        assert await verify(token(kid="rsa"))
        new = token(OTHER_RSA, kid="other")
        assert await verify(new) is None
        issuer.keys = [public(OTHER_RSA)]
        clock.now += 59
        assert await verify(new) is None
        assert len(issuer.asked) == 2
        clock.now += 1
        assert await verify(new)
        assert len(issuer.asked) == 3
        assert await verify(token(kid="rsa")) is None  # it was taken back


async def test_clock_that_is_set_back_does_not_stop_the_search() -> None:
    clock = Clock()
    async with published() as issuer:
        verify = verifier(issuer.url, clock=clock)
        assert await verify(token(kid="unknown")) is None
        clock.now -= 30
        issuer.keys.append(public(OTHER_RSA))
        assert await verify(token(OTHER_RSA, kid="other"))


async def test_key_that_was_taken_back_is_good_for_an_hour_at_most() -> None:
    clock = Clock()
    async with published() as issuer:
        verify = verifier(issuer.url, clock=clock)
        old = token(payload=claims(exp=NOW + 9999), kid="rsa")
        assert await verify(old)
        issuer.keys = [public(OTHER_RSA)]
        clock.now += 3599
        assert await verify(old)
        assert len(issuer.asked) == 1
        clock.now += 1
        before = asyncio.all_tasks()
        assert await verify(old)  # it does not wait for them
        await rests(before)
        assert await verify(old) is None
        assert len(issuer.asked) == 2


async def test_token_without_kid_is_tried_with_some_keys_only() -> None:
    more = [
        public(RSA, kid=f"k{number}", x5t=str(number)) for number in range(20)
    ]
    async with published() as issuer:
        issuer.keys = [*more[:7], public(OTHER_RSA)]
        assert await verifier(issuer.url)(token(OTHER_RSA))
        issuer.keys = [*more, public(OTHER_RSA)]
        verify = verifier(issuer.url)
        assert await verify(token(OTHER_RSA)) is None
        assert await verify(token(OTHER_RSA)) is None  # of those at hand
        assert await verify(token(OTHER_RSA, kid="other"))


async def test_keys_that_nobody_here_can_use_are_passed_over() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    async with published() as issuer:
        issuer.keys = [
            {"kty": "AKP", "kid": "new", "alg": "ML-DSA-44"},
            {"kty": ["RSA"]},
            {"kty": "EC", "crv": "P-999", "x": "a", "y": "b"},
            {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"},
            {"kty": "OKP", "crv": "X", "x": "AQ"},
            {"kty": "RSA", "n": "", "e": "AQAB"},
            {"kty": "RSA", "n": 5, "e": "AQAB"},
            {"kty": "RSA"},
            {"kty": "oct", "k": ""},
            OCT.as_dict(),
            public(RSA, kid=7),
            public(RSA, x5c="text"),
            public(weak),
            "text",  # type: ignore[list-item]
            None,  # type: ignore[list-item]
            [],  # type: ignore[list-item]
            public(OTHER_RSA),
        ]
        verify = verifier(issuer.url)
        assert await verify(token(OTHER_RSA, kid="other"))
        assert await verify(token(weak, kid="weak")) is None


async def answer_404(request: web.Request) -> Any:
    return web.json_response({"keys": [public(RSA)]}, status=404)


async def answer_500(request: web.Request) -> Any:
    raise web.HTTPInternalServerError


async def redirects(request: web.Request) -> Any:
    if request.path.endswith("elsewhere"):
        return web.json_response({"keys": [public(RSA)]})
    raise web.HTTPFound("/elsewhere")


async def empty_set(request: web.Request) -> Any:
    return web.json_response({"keys": []})


async def no_set(request: web.Request) -> Any:
    return web.json_response({"keys": {"kid": "rsa"}})


async def single_key(request: web.Request) -> Any:
    return web.json_response(public(RSA))


async def a_list(request: web.Request) -> Any:
    return web.json_response([public(RSA)])


async def a_page(request: web.Request) -> Any:
    return web.Response(text="<h1>It works!</h1>", content_type="text/html")


async def no_unicode(request: web.Request) -> Any:
    return web.Response(body=b'{"keys": "\xff"}')


async def deep(request: web.Request) -> Any:
    return web.Response(body=b'{"keys":' + b"[" * 200_000)


async def packed(request: web.Request) -> Any:
    response = web.json_response({"keys": [public(RSA)], "x": "x" * 9999})
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def too_large(request: web.Request) -> Any:
    return web.json_response({"keys": [public(RSA)], "x": "x" * 600_000})


async def endless(request: web.Request) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"keys": [')
    with contextlib.suppress(ConnectionError):
        for _ in range(1000):
            await response.write(b" " * 100_000)
    return response


async def breaks_off(request: web.Request) -> Any:
    response = web.StreamResponse()
    response.content_length = 1000
    await response.prepare(request)
    await response.write(b'{"keys": [')
    assert request.transport is not None
    request.transport.abort()
    return response


USELESS = [
    answer_404,
    answer_500,
    redirects,
    empty_set,
    no_set,
    single_key,
    a_list,
    a_page,
    no_unicode,
    deep,
    packed,
    too_large,
    endless,
    breaks_off,
]


@pytest.mark.parametrize("answer", USELESS)
async def test_useless_answer_is_no_key_set(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with published() as issuer:
        issuer.answer = answer
        verify = verifier(issuer.url, clock=clock)
        with pytest.raises(KeysUnavailable) as caught:
            await verify(token(kid="rsa"))
        assert caught.value.retry_after == 5
        assert len(issuer.asked) == 1
        assert "could not be fetched" in caplog.text
        # It comes back.
        issuer.answer = None
        clock.now += 5
        assert await verify(token(kid="rsa"))


@pytest.mark.parametrize("answer", USELESS)
async def test_old_keys_are_good_while_no_others_come(answer: Any) -> None:
    async with published() as issuer:
        verify = verifier(issuer.url)
        assert await verify(token(kid="rsa"))
        issuer.answer = answer
        assert await verify(token(OTHER_RSA, kid="other")) is None
        assert await verify(token(kid="rsa"))
        assert len(issuer.asked) == 2


async def test_server_that_is_away_costs_one_attempt_in_five_seconds() -> None:
    clock = Clock()
    async with published() as issuer:
        issuer.answer = answer_500
        verify = verifier(issuer.url, clock=clock)

        async def ask() -> None:
            with pytest.raises(KeysUnavailable):
                await verify(token(kid="rsa"))

        await asyncio.gather(*(ask() for _ in range(50)))
        for _ in range(50):
            await ask()
        assert len(issuer.asked) == 1
        clock.now += 4.9
        with pytest.raises(KeysUnavailable) as caught:
            await verify(token(kid="rsa"))
        assert (len(issuer.asked), caught.value.retry_after) == (1, 1)
        clock.now += 0.1
        await ask()
        assert len(issuer.asked) == 2


async def test_attempt_counts_from_its_end() -> None:
    clock = Clock()

    async def slow(request: web.Request) -> Any:
        clock.now += 9
        raise web.HTTPBadGateway

    async with published() as issuer:
        issuer.answer = slow
        verify = verifier(issuer.url, clock=clock)
        for _ in range(10):
            with pytest.raises(KeysUnavailable):
                await verify(token(kid="rsa"))
        assert len(issuer.asked) == 1


async def test_nobody_at_the_address_raises_nothing_else() -> None:
    async with published() as issuer:
        url = issuer.url
    with pytest.raises(KeysUnavailable):
        await verifier(url)(token(kid="rsa"))


async def test_old_keys_are_good_while_the_server_is_away() -> None:
    clock = Clock()
    async with published() as issuer:
        verify = verifier(issuer.url, clock=clock)
        assert await verify(token(kid="rsa"))
    assert await verify(token(OTHER_RSA, kid="other")) is None
    late = token(payload=claims(exp=NOW + 10**6), kid="rsa")
    for _ in range(3):
        clock.now += 3601
        before = asyncio.all_tasks()
        assert await verify(late)
        await rests(before)


async def test_slow_server_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert fetching.FETCH_TIMEOUT == 10
    monkeypatch.setattr(fetching, "FETCH_TIMEOUT", 0.05)
    asked = asyncio.Event()

    async def never(request: web.Request) -> Any:
        asked.set()
        await asyncio.sleep(3600)

    async def drop(request: web.Request) -> Any:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    for answer in (never, drop):
        async with published() as issuer:
            issuer.answer = answer
            with pytest.raises(KeysUnavailable):
                await soon(verifier(issuer.url)(token(kid="rsa")))
    assert caplog.text.count("TimeoutError") == 2


async def test_fetch_survives_whoever_began_it() -> None:
    async with published() as issuer:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def waits(request: web.Request) -> Any:
            asked.set()
            await go_on.wait()
            return web.json_response({"keys": issuer.keys})

        issuer.answer = waits
        verify = verifier(issuer.url)
        leader = asyncio.create_task(verify(token(kid="rsa")))
        await soon(asked.wait())
        follower = asyncio.create_task(verify(token(kid="rsa")))
        await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        go_on.set()
        assert await soon(follower) == claims()
        assert len(issuer.asked) == 1


async def test_session_that_is_given_is_used_and_stays_open() -> None:
    async with (
        published() as issuer,
        aiohttp.ClientSession(headers={"X-From": "given"}) as session,
    ):
        verify = verifier(issuer.url, session=session)
        assert await verify(token(kid="rsa"))
        assert issuer.asked[0].headers["X-From"] == "given"
        assert not session.closed


async def test_session_that_fails_in_its_own_way_is_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(Exception):
        pass

    shown = keep("a secret of a middleware")

    async def odd(request: Any, handler: Any) -> Any:
        raise Odd(shown)

    async with (
        published() as issuer,
        aiohttp.ClientSession(middlewares=[odd]) as session,
    ):
        with pytest.raises(KeysUnavailable):
            await verifier(issuer.url, session=session)(token(kid="rsa"))
    assert "could not be fetched: Odd" in caplog.text
    # One that was closed, too.
    with pytest.raises(KeysUnavailable):
        await verifier(issuer.url, session=session)(token(kid="rsa"))


def test_nothing_is_left_open_and_no_loop_is_kept() -> None:
    clock = Clock()
    verify: Any = None
    late = token(payload=claims(exp=NOW + 10**6), kid="rsa")

    async def use() -> None:
        nonlocal verify
        async with published() as issuer:
            verify = verify or verifier(issuer.url, clock=clock)
            assert await verify(late)
            clock.now += 3600
            before = asyncio.all_tasks()
            assert await verify(late)  # and has them fetched
            await rests(before)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(use())
        asyncio.run(use())  # another loop, and no server where it was
        gc.collect()


async def test_fetch_in_another_loop_keeps_nobody_waiting_here() -> None:
    clock = Clock()
    async with published() as issuer:
        go_on = asyncio.Event()

        async def waits(request: web.Request) -> Any:
            await go_on.wait()
            return web.json_response({"keys": issuer.keys})

        issuer.answer = waits
        verify = verifier(issuer.url, clock=clock)
        there = asyncio.create_task(
            asyncio.to_thread(asyncio.run, verify(token(kid="rsa")))
        )
        await eventually(lambda: len(issuer.asked) == 1)
        clock.now += 5
        here = asyncio.create_task(verify(token(kid="rsa")))
        await eventually(lambda: len(issuer.asked) == 2)
        go_on.set()
        assert await soon(here) == await soon(there) == claims()


async def test_fetch_knows_nothing_of_the_request_that_began_it() -> None:
    seen = []

    async def looks(request: Any, handler: Any) -> Any:
        seen.append(USER.get("nobody"))
        return await handler(request)

    async with (
        published() as issuer,
        aiohttp.ClientSession(middlewares=[looks]) as session,
    ):
        USER.set("ann")
        verify = verifier(issuer.url, session=session)
        assert await verify(token(kid="rsa"))
    assert seen == ["nobody"]


USER: ContextVar[str] = ContextVar("user")


def test_fetch_that_died_with_its_loop_keeps_nobody_waiting() -> None:
    clock = Clock()
    verify: Any = None

    async def leave() -> None:
        nonlocal verify
        async with published() as issuer:
            asked = asyncio.Event()

            async def never(request: web.Request) -> Any:
                asked.set()
                await asyncio.sleep(3600)

            issuer.answer = never
            verify = verifier(issuer.url, clock=clock)
            waits = asyncio.create_task(verify(token(kid="rsa")))
            await soon(asked.wait())
            waits.cancel()

    async def come_back() -> None:
        with pytest.raises(KeysUnavailable):
            await soon(verify(token(kid="rsa")))

    asyncio.run(leave())
    asyncio.run(come_back())


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/jwks.json",
        URL("https://issuer.example/jwks.json"),
        "http://localhost:8080/jwks.json",
        "http://127.0.0.1/jwks.json",
        "http://127.9.9.9/jwks.json",
        "http://[::1]:8080/jwks.json",
    ],
)
def test_url_by_https_or_on_this_machine_is_taken(url: Any) -> None:
    assert callable(verifier(url))


# Misconfiguration
# ================

PRIVATE = keep(EC.as_pem(private=True).decode())
#: A curve that has no name for tokens.
BRAINPOOL = (
    ec.generate_private_key(ec.BrainpoolP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)
WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"algorithms": []}, ValueError, "algorithms should be at least one"),
    ({"algorithms": "RS256"}, TypeError, r"did you mean \['RS256'\]"),
    ({"algorithms": None}, TypeError, "algorithms should be a collection"),
    ({"algorithms": ["none"]}, ValueError, "should not have 'none'"),
    ({"algorithms": ["RS256", "None"]}, ValueError, "should not have 'none'"),
    ({"algorithms": ["RS265"]}, ValueError, "did you mean 'RS256'"),
    ({"algorithms": ["rs256"]}, ValueError, "did you mean 'RS256'"),
    ({"algorithms": ["dir"]}, ValueError, "algorithms should be some of"),
    ({"algorithms": [1]}, TypeError, "algorithms should be a collection"),
    (
        {"algorithms": ["HS256", "RS256"]},
        ValueError,
        r"secret keys \(HS256\) or all of public keys \(RS256\)",
    ),
    ({"issuer": ""}, ValueError, "issuer should be"),
    ({"issuer": []}, ValueError, "issuer should be"),
    ({"issuer": 1}, TypeError, "issuer should be"),
    ({"audience": ""}, ValueError, "audience should be"),
    ({"audience": ()}, ValueError, "audience should be"),
    ({"leeway": -1}, ValueError, "leeway should be"),
    ({"leeway": "60"}, TypeError, "leeway should be"),
    ({"leeway": float("nan")}, ValueError, "leeway should be"),
    ({"token_type": 1}, TypeError, "token_type should be"),
    ({"token_type": ""}, ValueError, "token_type should be a type such as"),
    ({"required_claims": "exp"}, TypeError, "required_claims should be"),
    ({"required_claims": [1]}, TypeError, "required_claims should be"),
    ({"session": "https://a"}, TypeError, "session should be"),
    ({"clock": 1}, TypeError, "clock should be"),
    ({"keys": None, "algorithms": ["RS256"]}, TypeError, "got a NoneType"),
    ({"keys": 7}, TypeError, "keys should be a secret, a PEM, .* got a int"),
    ({"keys": ""}, ValueError, "keys should be a PEM"),
    ({"keys": keep("some secret text")}, ValueError, "keys should be a PEM"),
    ({"keys": "", "algorithms": ["HS256"]}, ValueError, "an empty one"),
    ({"keys": b"  ", "algorithms": ["HS256"]}, ValueError, "an empty one"),
    (
        {"keys": RSA_PEM, "algorithms": ["HS256"]},
        ValueError,
        "a PEM, which others have as well, is none",
    ),
    (
        {"keys": RSA.as_der(private=False), "algorithms": ["HS256"]},
        ValueError,
        "should be a secret",
    ),
    ({"keys": RSA_PEM[:200]}, ValueError, "should be a PEM"),
    ({"keys": PRIVATE, "algorithms": ["RS256"]}, ValueError, "for one of"),
    ({"keys": BRAINPOOL, "algorithms": ["ES256"]}, ValueError, "for one of"),
    ({"keys": PRIVATE[:-60]}, ValueError, "keys should be a PEM"),
    ({"keys": {}}, ValueError, "keys should be JWKs"),
    ({"keys": {"keys": []}}, ValueError, "a JWK or a JWK set"),
    ({"keys": {"keys": "x"}}, ValueError, "a JWK or a JWK set"),
    ({"keys": {"keys": [7]}}, ValueError, "keys should be JWKs"),
    ({"keys": {"kty": "RSA"}}, ValueError, "keys should be JWKs"),
    ({"keys": public(EC)}, ValueError, "for one of the algorithms RS256"),
    ({"keys": public(RSA, alg="RS512")}, ValueError, "for one of"),
    ({"keys": public(RSA, use="enc")}, ValueError, "for one of"),
    (
        {"keys": public(EC384), "algorithms": ["ES256"]},
        ValueError,
        "for one of the algorithms ES256",
    ),
    (
        {
            "keys": public(OKPKey.generate_key("X25519")),
            "algorithms": ["EdDSA"],
        },
        ValueError,
        "for one of the algorithms EdDSA",
    ),
    ({"keys": "http://issuer.example/jwks"}, ValueError, "an https URL"),
    ({"keys": "http://127.0.0.1.evil.example/"}, ValueError, "an https URL"),
    ({"keys": "http://localhost.evil.example/"}, ValueError, "an https URL"),
    ({"keys": "http://10.0.0.1/"}, ValueError, "an https URL"),
    ({"keys": "https://"}, ValueError, "an https URL"),
    ({"keys": "https://a.example:port/"}, ValueError, "an https URL"),
    ({"keys": URL("ftp://a.example/")}, ValueError, "an https URL"),
    ({"keys": URL("/jwks")}, ValueError, "an https URL"),
    (
        {"keys": f"https://me:{keep('pass-of-mine')}@a.example/"},
        ValueError,
        "without userinfo",
    ),
    (
        {"keys": "https://a.example/jwks", "algorithms": ["HS256"]},
        ValueError,
        "none is published",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_wrong_option_is_told_in_one_sentence_without_a_key(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {
        "keys": public(RSA),
        "algorithms": ["RS256"],
        "issuer": None,
        "audience": None,
        **options,
    }
    with pytest.raises(error, match=message) as caught:
        jwt_verifier(**options)
    assert str(caught.value).startswith("jwt_verifier ")
    assert "\n" not in str(caught.value)
    exc: BaseException | None = caught.value
    while exc is not None:
        assert shows_nothing(str(exc))
        exc = exc.__cause__


def test_weak_key_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weak = RSAKey.generate_key(1024)
    for keys in (weak.as_pem(private=False), public(weak)):
        with pytest.raises(ValueError, match="2048 bits"):
            verifier(keys)


@pytest.mark.parametrize("missing", ["algorithms", "issuer", "audience"])
def test_what_matters_most_has_no_default(missing: str) -> None:
    options: dict[str, Any] = {
        "algorithms": ["RS256"],
        "issuer": None,
        "audience": None,
    }
    del options[missing]
    with pytest.raises(TypeError, match=missing):
        jwt_verifier(public(RSA), **options)


def test_missing_joserfc_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(ImportError) as caught:
        verifier()
    assert str(caught.value) == (
        'jwt_verifier needs joserfc; pip install "aiohttp-middlewares[jwt]"'
    )


def test_nothing_that_stands_for_it_shows_a_key() -> None:
    keep(str(OCT.as_dict()["k"]))
    for value in (
        verifier(SECRET, algorithms=["HS256"]),
        verifier(PRIVATE, algorithms=["ES256"]),
        KeysUnavailable(),
    ):
        assert shows_nothing(repr(value))
        assert shows_nothing(str(value))


def test_verifier_can_be_kept_in_a_set() -> None:
    assert len({verifier(), verifier()}) == 2


def test_unavailable_keys_say_when_to_come_again() -> None:
    assert [
        KeysUnavailable(retry_after=seconds).retry_after
        for seconds in (-3, 0.2, 4.2)
    ] == [1, 1, 5]
    assert KeysUnavailable("the database is away").retry_after == 5
