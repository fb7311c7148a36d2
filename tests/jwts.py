"""Tokens, good ones and all others, and a server that publishes keys."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from discreet import keep
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from live import live

ISSUER = "https://issuer.example/"
AUDIENCE = "https://api.example"
#: 2033, long before the tokens expire.
NOW = 2_000_000_000
SECRET = keep("a secret that is long enough for it")

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "other"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
EC384 = ECKey.generate_key("P-384", {"kid": "ec384"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
ED448 = OKPKey.generate_key("Ed448", {"kid": "ed448"})
OCT = OctKey.import_key(SECRET)


def public(key: Any, **more: Any) -> dict[str, Any]:
    """What of a key is for everybody, as a JWK."""
    found = {**key.as_dict(private=False), **more}
    return {name: value for name, value in found.items() if value is not None}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; ``None`` takes one away."""
    found = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "exp": NOW + 3600,
        "iat": NOW - 60,
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def token(
    key: Any = RSA,
    payload: Any = None,
    *,
    alg: str = "RS256",
    head: Any = None,
    sign_by: str | None = None,
    **header: Any,
) -> str:
    """A token; ``head`` and ``payload`` may be any bytes."""
    if head is None:
        head = {"alg": alg, **header}
    if payload is None:
        payload = claims()
    message = f"{b64(text(head))}.{b64(text(payload))}"
    algorithm = JWSRegistry.algorithms[sign_by or alg]
    signature = algorithm.sign(message.encode(), key)
    return keep(f"{message}.{b64(signature)}")


class Clock:
    """The time of a test, which goes on when it is told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def real_claims(**changes: Any) -> dict[str, Any]:
    """Those of a token that is good today."""
    return claims(
        **{"exp": int(time.time()) + 3600, "iat": None, **changes},
    )


class Publisher:
    """Publishes a set of keys, and does with it what a test wants."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public(RSA)]
        self.asked: list[web.Request] = []
        self.answer: Callable[[web.Request], Awaitable[Any]] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.answer is not None:
            response: web.StreamResponse = await self.answer(request)
            return response
        return web.json_response({"keys": self.keys})


@asynccontextmanager
async def published() -> AsyncIterator[Publisher]:
    publisher = Publisher()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", publisher.handle)
    async with live(app) as server:
        publisher.url = f"http://{server.host}:{server.port}/jwks.json"
        yield publisher
