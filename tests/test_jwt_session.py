"""Sessions as JSON Web Tokens, shared with the real starlette-authlib."""

import json
import logging
import re
import sys
import time
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import aiohttp_session
import answers
import jwts
import pytest
from aiohttp import DummyCookieJar, web
from discreet import keep, shows_nothing
from joserfc.jwk import OctKey
from jwts import EC, ED, OCT, OTHER_RSA, RSA, SECRET, public
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import JWTCookieStorage, session_middleware
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.annotations import Handler

GOOD = {"visits": 3, "name": "Zoë", "list": [1, {"a": None}], "sub": 7}
TWO_WEEKS = 1209600


def token(payload: Any, key: Any = OCT, alg: str = "HS256", **more: Any) -> str:
    """Such as others may make; it expires in an hour."""
    if isinstance(payload, dict):
        payload = {"exp": int(time.time()) + 3600, **payload}
    return jwts.token(key, payload, alg=alg, **more)


def claims_of(value: str) -> dict[str, Any]:
    part = value.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=="))
    return found


def cookies_of(response: Any) -> list[str]:
    return list(response.headers.getall("Set-Cookie", []))


def value_of(response: Any, name: str = "session") -> str:
    (line,) = cookies_of(response)
    return keep(SimpleCookie(line)[name].value)


def cookie(value: str, name: str = "session") -> dict[str, str]:
    return {"Cookie": f"{name}={value}"}


async def visit(request: web.Request) -> web.Response:
    session = await aiohttp_session.get_session(request)
    session["visits"] = session.get("visits", 0) + 1
    return web.json_response(dict(session))


async def look(request: web.Request) -> web.Response:
    return web.json_response(dict(await aiohttp_session.get_session(request)))


async def logout(request: web.Request) -> web.Response:
    (await aiohttp_session.get_session(request)).invalidate()
    return web.Response()


Browse = Callable[..., Any]


@pytest.fixture
def browse(aiohttp_client: AiohttpClient) -> Browse:
    """A client that keeps no cookies, of an application with sessions."""

    async def of(
        storage: Any = None, *outside: Any, **handlers: Handler
    ) -> Any:
        storage = storage or JWTCookieStorage(SECRET)
        app = web.Application(
            middlewares=[*outside, session_middleware(storage)]
        )
        routes = {"visit": visit, "look": look, "out": logout, **handlers}
        for name, handler in routes.items():
            app.router.add_get(f"/{name}", handler)
        return await aiohttp_client(app, cookie_jar=DummyCookieJar())

    return of


# What it does
# ============


async def test_session_lasts_from_one_request_to_the_next(
    browse: Browse,
) -> None:
    client = await browse()
    response = await client.get("/visit")
    assert await response.json() == {"visits": 1}
    response = await client.get("/visit", headers=cookie(value_of(response)))
    assert await response.json() == {"visits": 2}
    value = value_of(response)
    response = await client.get("/look", headers=cookie(value))
    assert await response.json() == {"visits": 2}
    assert cookies_of(response) == []
    assert response.headers.getall("Vary") == ["Cookie"]
    # And as a browser that quotes would send it.
    response = await client.get("/look", headers=cookie(f'"{value}"'))
    assert await response.json() == {"visits": 2}


async def test_cookie_is_safe_by_default(browse: Browse) -> None:
    before = int(time.time())
    response = await (await browse()).get("/visit")
    value = value_of(response)
    assert cookies_of(response) == [
        f"session={value}; HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax"
    ]
    claims = claims_of(value)
    assert before <= claims.pop("exp") - TWO_WEEKS <= int(time.time())
    assert claims == {"visits": 1}


@pytest.mark.parametrize(
    ("options", "lifetime", "attributes"),
    [
        ({"max_age": None}, TWO_WEEKS, "HttpOnly; Path=/; SameSite=Lax"),
        (
            {"max_age": 60, "same_site": "strict", "https_only": True},
            60,
            "HttpOnly; Max-Age=60; Path=/; SameSite=Strict; Secure",
        ),
        (
            {"path": "/a", "domain": "example.com", "partitioned": True},
            TWO_WEEKS,
            "Domain=example.com; HttpOnly; Max-Age=1209600; Path=/a; "
            "SameSite=Lax; Secure; Partitioned",
        ),
        (
            {"cookie_name": "__Host-s", "max_age": None},
            TWO_WEEKS,
            "HttpOnly; Path=/; SameSite=Lax; Secure",
        ),
    ],
)
async def test_options_are_those_of_the_other_storage(
    browse: Browse, options: dict[str, Any], lifetime: int, attributes: str
) -> None:
    name = options.get("cookie_name", "session")
    client = await browse(JWTCookieStorage(SECRET, **options))
    before = int(time.time())
    response = await client.get("/visit")
    (line,) = cookies_of(response)
    value = keep(line.partition(";")[0].partition("=")[2])
    assert line == f"{name}={value}; {attributes}"
    expires = claims_of(value)["exp"]
    assert before <= expires - lifetime <= int(time.time())

    response = await client.get("/out", headers=cookie(value, name))
    (line,) = cookies_of(response)
    assert line.startswith(f"{name}=; ")
    assert "Max-Age=0" in line
    response = await client.get("/look", headers=cookie("", name))
    assert await response.json() == {}


async def test_age_of_one_session_can_be_its_own(browse: Browse) -> None:
    async def remember(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["name"] = "Zoë"
        session.max_age = 60
        return web.Response()

    response = await (await browse(remember=remember)).get("/remember")
    assert "; Max-Age=60;" in cookies_of(response)[0]
    left = claims_of(value_of(response))["exp"] - time.time()
    assert 50 < left <= 60


async def test_times_of_the_token_are_not_in_the_session(
    browse: Browse,
) -> None:
    async def extend(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        seen = dict(session)
        session.update({"exp": 2**33, "iat": "x", "nbf": 2**33, "a": 1})
        return web.json_response(seen)

    client = await browse(extend=extend)
    now = int(time.time())
    given = token({"iat": now, "nbf": now, "b": 2})
    response = await client.get("/extend", headers=cookie(given))
    assert await response.json() == {"b": 2}
    claims = claims_of(value_of(response))
    assert claims.pop("exp") <= time.time() + TWO_WEEKS
    assert claims == {"a": 1, "b": 2}
    response = await client.get("/look", headers=cookie(value_of(response)))
    assert await response.json() == {"a": 1, "b": 2}


async def test_every_change_moves_the_end(browse: Browse) -> None:
    client = await browse()
    given = token({"visits": 1, "exp": int(time.time()) + 60})
    response = await client.get("/visit", headers=cookie(given))
    assert claims_of(value_of(response))["exp"] > time.time() + TWO_WEEKS - 60


@pytest.mark.parametrize("left", [700_000, 500_000])
async def test_rolling_session_is_renewed_when_half_of_it_is_over(
    browse: Browse, left: int
) -> None:
    client = await browse(JWTCookieStorage(SECRET, rolling=True))
    given = token({"visits": 1, "exp": int(time.time()) + left})
    response = await client.get("/look", headers=cookie(given))
    assert await response.json() == {"visits": 1}
    assert len(cookies_of(response)) == (left < TWO_WEEKS / 2)


async def test_first_key_signs_and_all_are_good(browse: Browse) -> None:
    old, new = keep("an old key of thirty-two bytes..."), SECRET
    client = await browse(JWTCookieStorage(old))
    by_old = value_of(await client.get("/visit"))
    client = await browse(JWTCookieStorage([new, old]))
    response = await client.get("/visit", headers=cookie(by_old))
    assert await response.json() == {"visits": 2}
    by_new = value_of(response)
    client = await browse(JWTCookieStorage([new]))
    response = await client.get("/look", headers=cookie(by_new))
    assert await response.json() == {"visits": 2}
    response = await client.get("/look", headers=cookie(by_old))
    assert await response.json() == {}


async def test_many_keys_are_good(browse: Browse) -> None:
    keys = [keep(f"key {number} of those that rotate") for number in range(20)]
    last = JWTCookieStorage(keys[-1])
    value = value_of(await (await browse(last)).get("/visit"))
    client = await browse(JWTCookieStorage(keys))
    response = await client.get("/look", headers=cookie(value))
    assert await response.json() == {"visits": 1}


@pytest.mark.parametrize(
    ("alg", "key", "other"),
    [("RS256", RSA, OTHER_RSA), ("ES256", EC, None), ("EdDSA", ED, None)],
)
async def test_key_pairs_sign_and_public_keys_are_good_for_old_sessions(
    browse: Browse, alg: str, key: Any, other: Any
) -> None:
    pem = keep(key.as_pem(private=True).decode())
    new = other or type(key).generate_key()
    client = await browse(JWTCookieStorage(pem, algorithm=alg))
    value = value_of(await client.get("/visit"))
    both = [new.as_dict(private=True), key.as_pem(private=False)]
    client = await browse(JWTCookieStorage(both, algorithm=alg))
    response = await client.get("/visit", headers=cookie(value))
    assert await response.json() == {"visits": 2}
    client = await browse(
        JWTCookieStorage(new.as_dict(private=True), algorithm=alg)
    )
    response = await client.get("/look", headers=cookie(value_of(response)))
    assert await response.json() == {"visits": 2}
    response = await client.get("/look", headers=cookie(value))
    assert await response.json() == {}


@middleware
async def clones(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())


@middleware
async def changes(request: web.Request, handler: Handler) -> web.StreamResponse:
    session = await aiohttp_session.get_session(request)
    session["kind"] = request.path
    return await handler(request)


@pytest.mark.parametrize("neighbours", [[], [clones]], ids=["alone", "clones"])
@pytest.mark.parametrize(
    "kind", [kind for kind in answers.KINDS if kind.status < 500], ids=str
)
async def test_session_is_saved_with_every_kind_of_answer(
    aiohttp_client: AiohttpClient, kind: answers.Kind, neighbours: list[Any]
) -> None:
    app = answers.application(
        *neighbours,
        session_middleware(JWTCookieStorage(SECRET)),
        *neighbours,
        changes,
    )
    client = await aiohttp_client(app, cookie_jar=DummyCookieJar())
    response = await client.get(
        kind.path, headers=kind.fields, allow_redirects=False
    )
    assert response.status == kind.status
    lines = [
        line for line in cookies_of(response) if line.startswith("session=")
    ]
    (value,) = (keep(SimpleCookie(line)["session"].value) for line in lines)
    assert claims_of(value)["kind"] == kind.path
    response.close()


async def test_it_goes_with_the_middleware_of_aiohttp_session(
    aiohttp_client: AiohttpClient,
) -> None:
    app = web.Application()
    storage = JWTCookieStorage(SECRET, cookie_name="mine", https_only=True)
    aiohttp_session.setup(app, storage)  # type: ignore[arg-type]
    app.router.add_get("/visit", visit)
    client = await aiohttp_client(app, cookie_jar=DummyCookieJar())
    response = await client.get("/visit")
    value = value_of(response, "mine")
    response = await client.get("/visit", headers=cookie(value, "mine"))
    assert await response.json() == {"visits": 2}
    assert isinstance(storage, aiohttp_session.AbstractStorage)
    assert storage.max_age == TWO_WEEKS
    assert storage.cookie_params["samesite"] == "Lax"


# With starlette-authlib
# ======================


async def starlette(
    cookies: str | None,
    change: Callable[[Any], object],
    key: Any = SECRET,
    **options: Any,
) -> tuple[dict[str, Any], str | None]:
    """What it has in its session, and the cookie that it sets."""
    # Authlib's own, of modules whose time is over; it sets them to "always".
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        from starlette_authlib.middleware import AuthlibMiddleware, SecretKey

        if isinstance(key, tuple):
            key = SecretKey(*key)
        seen: dict[str, Any] = {}
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.update(scope["session"])
            change(scope["session"])
            await send(
                {"type": "http.response.start", "status": 200, "headers": []}
            )

        async def receive() -> Any:
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [] if cookies is None else [(b"cookie", cookies.encode())]
        await AuthlibMiddleware(app, key, **options)(
            {"type": "http", "headers": headers, "path": "/"}, receive, send
        )
    for name, value in sent[0]["headers"]:
        if name == b"set-cookie":
            line = value.decode()
            keep(line.partition(";")[0].partition("=")[2])
            return seen, line
    return seen, None


PAIR = (EC.as_pem(private=True).decode(), EC.as_pem(private=False).decode())


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({}, {"key": SECRET}),
        ({}, {"key": [keep("a newer key of 32 bytes and more!"), SECRET]}),
        ({"jwt_alg": "HS512"}, {"key": SECRET, "algorithm": "HS512"}),
        (
            {"key": PAIR, "jwt_alg": "ES256"},
            {"key": PAIR[0], "algorithm": "ES256"},
        ),
        ({"key": keep("short key")}, {"key": "short key"}),
    ],
    ids=["secret", "rotated", "HS512", "pair", "short"],
)
async def test_starlette_reads_our_session_and_we_read_its(
    browse: Browse, there: dict[str, Any], here: dict[str, Any]
) -> None:
    client = await browse(JWTCookieStorage(**here))
    _, line = await starlette(None, lambda s: s.update(GOOD), **there)
    assert line is not None
    made_there = line.partition(";")[0]
    response = await client.get("/visit", headers={"Cookie": made_there})
    assert await response.json() == {**GOOD, "visits": 4}
    if isinstance(here["key"], list):
        return  # which Starlette has no other key for

    made_here = cookies_of(response)[0].partition(";")[0]
    keep(made_here.partition("=")[2])
    seen, line = await starlette(made_here, lambda s: s.clear(), **there)
    del seen["exp"]
    assert seen == {**GOOD, "visits": 4}
    assert line is not None
    response = await client.get(
        "/look", headers={"Cookie": line.partition(";")[0]}
    )
    assert await response.json() == {}


async def test_starlette_does_not_read_what_another_key_has_signed(
    browse: Browse,
) -> None:
    client = await browse(JWTCookieStorage(keep("another key, as long as it")))
    response = await client.get("/visit")
    value = value_of(response)
    seen, _ = await starlette(f"session={value}", lambda session: None)
    assert seen == {}


# Cookies that are not good
# =========================

BAD: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "null, as starlette-authlib deletes": lambda: "null",
    "no token": lambda: keep("not-a-token-at-all"),
    "another key": lambda: token(
        GOOD, OctKey.import_key(keep("another key " * 3))
    ),
    "another algorithm": lambda: token(GOOD, alg="HS512"),
    "none": lambda: keep(
        token(GOOD, head={"alg": "none"}).rpartition(".")[0] + "."
    ),
    "crit": lambda: token(GOOD, crit=["exp"]),
    "expired": lambda: token({**GOOD, "exp": time.time() - 1}),
    "without an end": lambda: jwts.token(OCT, GOOD, alg="HS256"),
    "end that is a string": lambda: token({**GOOD, "exp": "x"}),
    "end that is true": lambda: token({**GOOD, "exp": True}),
    "end that is infinite": lambda: token(b'{"exp": 1e999, "a": 1}'),
    "not yet": lambda: token({**GOOD, "nbf": time.time() + 3600}),
    "list": lambda: token([1]),
    "deep": lambda: token(b"[" * 5000),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_cookie_is_a_new_session(browse: Browse, name: str) -> None:
    client = await browse()
    value = BAD[name]()
    response = await client.get("/look", headers=cookie(value))
    assert (response.status, await response.json()) == (200, {})
    # And hides no good one that comes beside it.
    good = token({"visits": 3})
    both = {"Cookie": f"session={value}; session={good}"}
    response = await client.get("/look", headers=both)
    assert await response.json() == {"visits": 3}


@pytest.mark.parametrize("left", [10**400, 2**70, 10**6, 60.5], ids="abcd")
async def test_any_end_that_is_to_come_is_good(
    browse: Browse, left: float
) -> None:
    end = int(time.time()) + left
    client = await browse(JWTCookieStorage(SECRET, rolling=True))
    response = await client.get("/look", headers=cookie(token({"exp": end})))
    assert (response.status, await response.json()) == (200, {})
    given = token({"exp": end, "a": 1})
    response = await client.get("/look", headers=cookie(given))
    assert await response.json() == {"a": 1}


async def test_session_that_is_too_large_is_not_sent_and_is_told(
    browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    async def grow(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["much"] = keep("much " * 700)
        return web.Response()

    response = await (await browse(grow=grow)).get("/grow")
    assert (response.status, cookies_of(response)) == (200, [])
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "browsers drop those of more than 4096" in record.getMessage()


async def test_what_is_no_json_fails_as_with_the_other_storage(
    browse: Browse,
) -> None:
    async def puts(request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        session["odd"] = {1, 2}
        return web.Response()

    response = await (await browse(puts=puts)).get("/puts")
    assert (response.status, cookies_of(response)) == (500, [])


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": ""}, ValueError, "key should be a secret, got an empty one"),
        ({"key": b"  "}, ValueError, "key should be a secret, got an empty"),
        ({"key": []}, ValueError, "key should be at least one key, got none"),
        ({"key": [SECRET, ""]}, ValueError, "got an empty one"),
        ({"key": [SECRET, None]}, TypeError, "got a NoneType"),
        ({"key": None}, TypeError, "or a list of them, got a NoneType"),
        ({"key": 7}, TypeError, "or a list of them, got a int"),
        ({"key": {SECRET}}, TypeError, "or a list of them, got a set"),
        ({"key": PAIR[0]}, ValueError, "a PEM, which others have as well"),
        ({"algorithm": "none"}, ValueError, "should not have 'none'"),
        ({"algorithm": "HS265"}, ValueError, "did you mean 'HS256'?"),
        ({"algorithm": None}, TypeError, "algorithm should be a string"),
        ({"algorithm": ["HS256"]}, TypeError, "algorithm should be a string"),
        ({"algorithm": "ES256"}, ValueError, "key should be a PEM"),
        (
            {"key": PAIR[1], "algorithm": "ES256"},
            ValueError,
            "key should be a private key, to sign with",
        ),
        (
            {"key": [public(EC), PAIR[0]], "algorithm": "ES256"},
            ValueError,
            "key should be a private key, to sign with",
        ),
        (
            {"key": {**OCT.as_dict(), "key_ops": ["verify"]}},
            ValueError,
            "key should be a private key, to sign with",
        ),
        ({"max_age": 0}, ValueError, "max_age should be a whole number"),
        ({"cookie_name": "a b"}, ValueError, "cookie_name should be the name"),
        ({"path": "a"}, ValueError, "path should be a path"),
        ({"domain": "a b"}, ValueError, "domain should be a domain"),
        ({"same_site": "Lax"}, ValueError, "did you mean 'lax'?"),
        (
            {"same_site": "none", "https_only": False},
            ValueError,
            "takes https_only",
        ),
        ({"rolling": True, "max_age": None}, ValueError, "takes max_age"),
        ({"partitioned": 1}, TypeError, "partitioned should be True or"),
    ],
)
def test_wrong_option_is_one_sentence_without_a_key(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        JWTCookieStorage(**{"key": SECRET, **options})
    assert str(caught.value).startswith("JWTCookieStorage ")
    assert shows_nothing(str(caught.value))
    assert SECRET not in repr(JWTCookieStorage(SECRET))


def test_options_of_the_cookie_belong_to_the_storage() -> None:
    with pytest.raises(ValueError, match="a storage has options of its own"):
        session_middleware(JWTCookieStorage(SECRET), max_age=60)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("joserfc", 'joserfc; pip install "aiohttp-middlewares[jwt]"'),
        (
            "aiohttp_session",
            'aiohttp-session; pip install "aiohttp-middlewares[session]"',
        ),
    ],
)
def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, module: str, message: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        JWTCookieStorage(SECRET)
    assert str(caught.value) == f"JWTCookieStorage needs {message}"


def test_itsdangerous_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    session_middleware(JWTCookieStorage(SECRET))
