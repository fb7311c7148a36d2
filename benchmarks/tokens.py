"""Bearer tokens beside joserfc's and PyJWT's bare decode: same tokens, one run.

``python -m benchmarks.tokens`` has each verify the same JWT by HS256, RS256 and
ES256, and prints microseconds. For joserfc that is ``jwt.decode``, which checks
the signature and no claim; for PyJWT it is ``jwt.decode`` with ``aud`` and
``iss``; for this package it is ``bearer_auth_middleware`` with a
``jwt_verifier``, less what an empty middleware takes. They take turns, what
counts is the time of this thread, and of each the fastest turn. The last column
is ours over joserfc's.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import jwt as pyjwt
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from aiohttp_middlewares import bearer_auth_middleware, jwt_verifier

ISSUER = "https://issuer.example/"
AUDIENCE = "https://api.example"
KEYS: dict[str, Any] = {
    "HS256": OctKey.generate_key(256),
    "RS256": RSAKey.generate_key(2048),
    "ES256": ECKey.generate_key("P-256"),
}
TURNS = 15
TIMES = 500


async def answer(request: web.Request) -> web.StreamResponse:
    return RESPONSE


RESPONSE = web.Response()


async def empty(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    return response


def claims() -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "0f8c6d3e",
        "exp": now + 3600,
        "iat": now,
        "jti": "b2a7e5d1",
        "scope": "read write",
    }


async def price(algorithm: str) -> dict[str, float]:
    """Microseconds by each, for one token."""
    key = KEYS[algorithm]
    is_secret = isinstance(key, OctKey)
    jwk = key.as_dict(private=is_secret)
    public = type(key).import_key(jwk)
    token = jwt.encode({"alg": algorithm}, claims(), key)
    middleware = bearer_auth_middleware(
        jwt_verifier(
            jwk, algorithms=[algorithm], issuer=ISSUER, audience=AUDIENCE
        )
    )
    request = make_mocked_request(
        "GET", "/", headers={"Authorization": f"Bearer {token}"}
    )

    def by_joserfc() -> None:
        jwt.decode(token, public, algorithms=[algorithm])

    def by_pyjwt() -> None:
        pyjwt.decode(
            token,
            public.raw_value,
            algorithms=[algorithm],
            audience=AUDIENCE,
            issuer=ISSUER,
        )

    ways: dict[str, Callable[[], Any]] = {
        "empty": lambda: empty(request, answer),
        "ours": lambda: middleware(request, answer),
        "joserfc": by_joserfc,
        "PyJWT": by_pyjwt,
    }
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.thread_time()
            if name in ("empty", "ours"):
                for _ in range(TIMES):
                    await way()
            else:
                for _ in range(TIMES):
                    way()
            took = (time.thread_time() - start) / TIMES * 1e6
            found[name] = min(found[name], took)
    found["ours"] -= found.pop("empty")
    return found


def main() -> None:
    python = sys.version.split()[0]
    print(f"Python {python}, microseconds for each token")
    print(f"{'':8}{'ours':>9}{'joserfc':>9}{'PyJWT':>9}{'ours/joserfc':>15}")
    for algorithm in KEYS:
        found = asyncio.run(price(algorithm))
        numbers = "".join(
            f"{found[name]:9.1f}" for name in ("ours", "joserfc", "PyJWT")
        )
        ratio = found["ours"] / found["joserfc"]
        print(f"{algorithm:8}{numbers}{ratio:15.2f}")


if __name__ == "__main__":
    main()
