"""A site that visitors sign in to, its visitors, and providers on loopback.

``Issuer`` is an OpenID provider that can be told to go wrong, ``GitHub`` a
stand-in of GitHub. What is secret is noted wherever it shows, so that no
record may have any of it: see ``discreet``.
"""

import asyncio
import base64
import hashlib
import html
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import aiohttp_session
import pytest
from aiohttp import ClientResponse, ClientSession, CookieJar, web
from aiohttp.test_utils import TestServer
from discreet import keep
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from yarl import URL

from aiohttp_middlewares import (
    error_middleware,
    get_claims,
    get_user,
    session_middleware,
    sign_in_middleware,
    sign_in_url,
)
from aiohttp_middlewares.annotations import Middleware
from aiohttp_middlewares.sign_in._provider import Provider

KEY = "0123456789abcdef0123456789abcdef"
CLIENT_ID = "the site / its id"
CLIENT_SECRET = keep("the secret: 100%")
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
NAVIGATE = {"Accept": HTML, "Sec-Fetch-Mode": "navigate"}

# What nobody may tell
# ====================


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """All records of all loggers."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(1)
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield records
    finally:
        root.removeHandler(handler)


def note(*found: str | None) -> None:
    """Note what is secret."""
    for secret in found:
        keep(secret or "")


def errors(records: list[logging.LogRecord]) -> list[str]:
    return [
        record.getMessage()
        for record in records
        if record.levelno >= logging.ERROR
    ]


def warnings(records: list[logging.LogRecord]) -> list[str]:
    return [
        record.getMessage()
        for record in records
        if record.levelno >= logging.WARNING
        and record.name == "aiohttp_middlewares.sign_in"
    ]


# The site
# ========


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def who(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {
            "user": get_user(request),
            "claims": dict(get_claims(request)),
            "path": request.rel_url.raw_path_qs,
            "sign_in_url": sign_in_url(request),
        }
    )


async def put(request: web.Request) -> web.StreamResponse:
    """Put something into the session, as an application does."""
    session = await aiohttp_session.get_session(request)
    session["cart"] = request.query["cart"]
    return web.Response()


async def peek(request: web.Request) -> web.StreamResponse:
    return web.json_response(dict(await aiohttp_session.get_session(request)))


def site(
    provider: Provider,
    *outside: Middleware,
    storage: Any = KEY,
    **options: Any,
) -> web.Application:
    options.setdefault("ignore", ["/put", "/peek"])
    app = web.Application(
        middlewares=[
            error_middleware(),
            session_middleware(storage),
            *outside,
            sign_in_middleware(provider, **options),
        ]
    )
    app.router.add_get("/put", put)
    app.router.add_get("/peek", peek)
    app.router.add_route("*", "/{path:.*}", who)
    return app


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[URL]:
    # Whose records would show the query of the callback.
    server = TestServer(app)
    await server.start_server(access_log=None)
    try:
        yield server.make_url("/")
    finally:
        await server.close()


# Its visitors
# ============


class Visitor:
    """A browser: it follows nothing unless it is told to."""

    def __init__(self, session: ClientSession, base: URL) -> None:
        self.session = session
        self.base = base

    async def open(
        self, url: str | URL = "/", method: str = "GET", **headers: str
    ) -> ClientResponse:
        """Navigate to a page; names of headers have ``_`` for ``-``."""
        sent = {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.ask(url, method, {**NAVIGATE, **sent})

    async def ask(
        self,
        url: str | URL = "/",
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> ClientResponse:
        if isinstance(url, str):
            url = self.base.join(URL(url, encoded=True))
        async with self.session.request(
            method, url, headers=headers, allow_redirects=False
        ) as response:
            await response.read()
        for cookie in response.cookies.values():
            note(cookie.value)
        query = URL(response.headers.get("Location", "")).query
        for name in ("state", "nonce", "code", "id_token_hint"):
            note(query.get(name))
        return response

    async def to_provider(self, url: str = "/") -> URL:
        """Open a page; where that sends a visitor who is unknown."""
        response = await self.open(url)
        assert response.status == 303, await response.text()
        return URL(response.headers["Location"])

    async def back_from(self, provider: URL) -> URL:
        """Sign in there; the address of the callback."""
        response = await self.open(provider)
        assert response.status in (302, 303), await response.text()
        return URL(response.headers["Location"], encoded=True)

    async def sign_in(self, url: str = "/") -> ClientResponse:
        """All the way: the answer of the callback."""
        return await self.open(
            await self.back_from(await self.to_provider(url))
        )

    async def who(self) -> dict[str, Any]:
        response = await self.open("/who")
        assert response.status == 200, response.headers
        found: dict[str, Any] = await response.json()
        return found

    @property
    def cookie(self) -> str:
        [found] = [
            cookie.value
            for cookie in self.session.cookie_jar
            if cookie.key == "session"
        ]
        return found


@asynccontextmanager
async def visitor_of(base: URL) -> AsyncIterator[Visitor]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        yield Visitor(session, base)


@asynccontextmanager
async def visited(app: web.Application) -> AsyncIterator[Visitor]:
    async with served(app) as base, visitor_of(base) as visitor:
        yield visitor


def location(response: ClientResponse) -> str:
    assert response.status == 303, response.status
    return response.headers["Location"]


def links(text: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'href="([^"]*)"', text)]


def state_of(callback: URL) -> str:
    return callback.query["state"]


# An OpenID provider
# ==================

#: Making one takes a while.
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})

Answer = Callable[[web.Request], Any]


class Issuer:
    """It does all that it should, unless a test has it do otherwise."""

    def __init__(self) -> None:
        self.user: dict[str, Any] = {
            "sub": "24400320",
            "name": "Jane Doe",
            "preferred_username": "j.doe",
            "email": "jane@example.com",
            "email_verified": True,
        }
        #: Claims that are told at the userinfo endpoint only.
        self.more: dict[str, Any] = {}
        self.key: Any = RSA
        self.algorithm = "RS256"
        self.document: dict[str, Any] = {}
        #: Over what it would answer.
        self.claims: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self.back: dict[str, str | None] = {}
        #: Instead of what it would do, by path.
        self.instead: dict[str, Answer] = {}
        #: How often it was asked, by path.
        self.asked: dict[str, int] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.forms: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.url = URL()

    @property
    def issuer(self) -> str:
        return str(self.url).rstrip("/")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Issuer"]:
        app = web.Application(middlewares=[self._counted])
        app.router.add_get("/.well-known/openid-configuration", self.discovery)
        app.router.add_get("/authorize", self.authorize)
        app.router.add_post("/token", self.token)
        app.router.add_get("/keys", self.published)
        app.router.add_get("/userinfo", self.userinfo)
        async with served(app) as url:
            self.url = url
            yield self

    @property
    def _counted(self) -> Middleware:
        @web.middleware
        async def counted(
            request: web.Request, handler: Any
        ) -> web.StreamResponse:
            path = request.path
            self.asked[path] = self.asked.get(path, 0) + 1
            instead = self.instead.get(path)
            response: web.StreamResponse = (
                await handler(request)
                if instead is None
                else await instead(request)
            )
            return response

        return counted

    async def discovery(self, request: web.Request) -> web.StreamResponse:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            **self.document,
        }
        return web.json_response(
            {
                name: value
                for name, value in document.items()
                if value is not None
            }
        )

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        code = secrets.token_urlsafe(12)
        note(code, asked.get("state"), asked.get("nonce"))
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], **self.back}
        raise web.HTTPSeeOther(
            URL(asked["redirect_uri"]).update_query(
                {name: value for name, value in back.items() if value}
            )
        )

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = {
            name: values[0]
            for name, values in parse_qs(await request.text()).items()
        }
        self.forms.append(form)
        self.authorizations.append(request.headers.get("Authorization", ""))
        note(form.get("code"), form.get("code_verifier"))
        asked = self.codes.pop(form["code"], None)
        if (
            asked is None
            or form["redirect_uri"] != asked["redirect_uri"]
            or challenge(form["code_verifier"]) != asked["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        access_token = secrets.token_urlsafe(24)
        claims = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "exp": now() + 300,
            "iat": now(),
            "nonce": asked["nonce"],
            "at_hash": at_hash(access_token, "sha256"),
            **self.user,
            **self.claims,
        }
        claims = {
            name: value() if callable(value) else value
            for name, value in claims.items()
            if value is not None
        }
        id_token = jwt.encode(
            {"alg": self.algorithm, "kid": self.key.kid},
            claims,
            self.key,
            algorithms=[self.algorithm],
        )
        note(access_token, id_token)
        tokens = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": id_token,
            **self.tokens,
        }
        return web.json_response(
            {name: value for name, value in tokens.items() if value is not None}
        )

    async def published(self, request: web.Request) -> web.StreamResponse:
        keys = [key.as_dict(private=False) for key in (RSA, EC)]
        return web.json_response({"keys": keys})

    async def userinfo(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"].startswith("Bearer ")
        return web.json_response({**self.user, **self.more})


def now() -> int:
    return int(time.time())


def later(seconds: int) -> Callable[[], int]:
    """A time to put into a claim, when it is asked for."""
    return lambda: now() + seconds


def challenge(verifier: str) -> str:
    return unpadded(hashlib.sha256(verifier.encode()).digest())


def at_hash(access_token: str, name: str) -> str:
    digest = hashlib.new(name, access_token.encode()).digest()
    return unpadded(digest[: len(digest) // 2])


def unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer().running() as running:
        yield running


# Answers that are none
# =====================


def says(
    text: str, status: int = 200, **headers: str
) -> Callable[[web.Request], Any]:
    async def say(request: web.Request) -> web.StreamResponse:
        return web.Response(
            text=text,
            status=status,
            content_type="application/json",
            headers=headers,
        )

    return say


def says_bytes(body: bytes) -> Callable[[web.Request], Any]:
    async def say(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return say


def says_json(value: Any, status: int = 200) -> Callable[[web.Request], Any]:
    return says(json.dumps(value), status)


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        for _ in range(1000):
            await response.write(b" " * 65536)
    except ConnectionError:
        pass  # as it should be
    return response


async def elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/stolen")


async def gone(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


#: By name, what is no answer to any question.
NONSENSE: dict[str, Answer] = {
    "gone": gone,
    "hangs": hangs,
    "endless": endless,
    "elsewhere": elsewhere,
    "500": says("{}", 500),
    "404": says("{}", 404),
    "empty": says(""),
    "html": says("<html>"),
    "list": says("[]"),
    "null": says("null"),
    "number": says("1"),
    "nan": says('{"a": NaN}'),
    "deep": says("[" * 100_000),
    "no object members": says("{}"),
    "no utf-8": says_bytes(b'{"\xff": 1}'),
}


# A storage on the server
# =======================


class MemoryStorage(aiohttp_session.AbstractStorage):
    """As that for Redis, without one."""

    def __init__(self) -> None:
        super().__init__(cookie_name="session")
        self.kept: dict[str, Any] = {}

    async def load_session(
        self, request: web.Request
    ) -> aiohttp_session.Session:
        key = self.load_cookie(request)
        data = self.kept.get(key or "")
        if data is None:
            return aiohttp_session.Session(None, data=None, new=True)
        return aiohttp_session.Session(key, data=json.loads(data), new=False)

    async def save_session(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: aiohttp_session.Session,
    ) -> None:
        key = session.identity or secrets.token_urlsafe(12)
        self.save_cookie(response, "" if session.empty else key)
        self.kept[key] = json.dumps(self._get_session_data(session))
