"""Sign-ins at a provider of OpenID Connect."""

import asyncio
import hashlib
import inspect
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

from aiohttp import ClientSession, hdrs
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.jwt.algorithms import (
    PUBLIC_KEY_ALGORITHMS,
    joserfc_for,
)
from aiohttp_middlewares._core.jwt.compact import TokenRefused
from aiohttp_middlewares._core.jwt.published import KeysUnavailable
from aiohttp_middlewares._core.jwt.verifier import Verified, Verifier
from aiohttp_middlewares.annotations import StrCollection
from aiohttp_middlewares.sign_in._attempt import Attempt, same
from aiohttp_middlewares.sign_in._provider import (
    Failed,
    Identity,
    Misdirected,
    Provider,
    Refused,
    ask,
)

#: Whether somebody with these claims is let in; may be a coroutine function.
Allow: TypeAlias = Callable[[Mapping[str, Any]], bool | Awaitable[bool]]

DEFAULT_SCOPES = ("openid", "profile", "email")

#: Seconds. What a provider says of itself is asked for again when it is so
#: old; the old is good while that fails, which is tried so often; and nobody
#: waits for it for longer.
OLD_METADATA = 3600.0
METADATA_PAUSE = 60.0
METADATA_PATIENCE = 3.0

#: Characters. A longer ID token makes a longer address than some proxies and
#: servers take, and is no hint.
LONGEST_HINT = 3000


def openid_connect(
    issuer: str | URL,
    client_id: str,
    client_secret: str | None = None,
    *,
    scopes: StrCollection = DEFAULT_SCOPES,
    allow: Allow | None = None,
    logout: bool = True,
    session: ClientSession | None = None,
) -> Provider:
    """Have visitors sign in with OpenID Connect.

    The user is the claim ``sub``, which no two users of an issuer share. The
    claims are those of the ID token, and of the userinfo endpoint where one
    that is to be kept is not in there.

    :param issuer:
        The provider: what its ``/.well-known/openid-configuration`` gives as
        ``issuer``, to the letter. https, or http for this machine.
    :param client_id: The id of this site there.
    :param client_secret: Its secret; ``None`` for a public client.
    :param scopes:
        What to ask for, ``"openid"`` among it. By default:
        :data:`DEFAULT_SCOPES`.
    :param allow:
        Whether somebody is let in: a function of the claims, which may be a
        coroutine function. What it needs of the userinfo endpoint has to be
        kept as well. By default: whomever the provider knows.
    :param logout:
        Whether logging out here ends in logging out there (RP-Initiated
        Logout), if there is such a page. By default: ``True``.
    :param session:
        What to ask with. By default a new one each time.
    :raises ImportError: joserfc is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option is malformed.
    """
    what = "openid_connect"
    joserfc_for(what, "sign-in")
    url = options.secure_url(f"{what} issuer", issuer)
    if url.raw_query_string or url.raw_fragment:  # Discovery 3
        options.refuse(
            ValueError, f"{what} issuer", "a URL without query", str(issuer)
        )
    if "openid" not in options.strings(f"{what} scopes", scopes):
        options.refuse(
            ValueError, f"{what} scopes", "scopes with 'openid'", scopes
        )
    if allow is not None:
        options.function(f"{what} allow", allow)
    options.flag(f"{what} logout", logout)
    return _OpenID(
        client_id,
        client_secret,
        scopes,
        session,
        issuer=str(issuer),
        allow=allow,
        logout=logout,
    )


class _Metadata(NamedTuple):
    """What a provider says of itself: Discovery 3."""

    authorization_endpoint: URL
    token_endpoint: URL
    userinfo_endpoint: URL | None
    end_session_endpoint: URL | None
    jwks_uri: URL
    algorithms: tuple[str, ...]
    by_basic: bool
    sends_iss: bool


class _OpenID(Provider):
    def __init__(
        self,
        client_id: object,
        client_secret: object,
        scopes: object,
        session: object,
        *,
        issuer: str,
        allow: Allow | None,
        logout: bool,
    ) -> None:
        name = URL(issuer).host or issuer
        super().__init__(
            "openid_connect", name, client_id, client_secret, scopes, session
        )
        self._issuer = issuer
        self._allow = allow
        self._logout = logout
        self._metadata: _Metadata | None = None
        self._fresh_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._verifier: Verifier | None = None
        #: What the verifier was made from.
        self._keys_of: tuple[URL, tuple[str, ...]] | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return ("openid", self._issuer, self.client_id)

    async def start(
        self, attempt: Attempt, redirect_uri: str, hint: str | None
    ) -> URL:
        endpoint = (await self._discovered()).authorization_endpoint
        extra = {"nonce": attempt.nonce, "login_hint": hint}
        return self.authorization(endpoint, attempt, redirect_uri, extra)

    async def finish(
        self,
        attempt: Attempt,
        redirect_uri: str,
        answer: Mapping[str, str],
        wanted: Collection[str],
    ) -> Identity:
        metadata = await self._discovered()
        # RFC 9207 2.4: before anything else, and for refusals too.
        iss = answer.get("iss")
        if iss is None and metadata.sends_iss:
            raise Misdirected("it does not say which provider it is from")
        if iss is not None and iss != self._issuer:
            raise Misdirected("it is from another provider")
        code = self.check_answer(answer)
        async with self.client() as client:
            tokens = await self.exchange(
                client,
                metadata.token_endpoint,
                attempt,
                redirect_uri,
                code,
                by_basic=metadata.by_basic,
            )
            access_token = tokens["access_token"]
            id_token = tokens.get("id_token")
            if not isinstance(id_token, str):
                raise Failed("the token endpoint gave no ID token")
            token = await self._verified(metadata, id_token)
            self._check(token, attempt, access_token)
            claims: Mapping[str, Any] = token.claims
            if metadata.userinfo_endpoint is not None and any(
                name not in claims for name in wanted
            ):
                more = await self._userinfo(
                    client, metadata.userinfo_endpoint, access_token, claims
                )
                claims = {**more, **claims}
        if self._allow is not None:
            allowed = self._allow(claims)
            if inspect.isawaitable(allowed):
                allowed = await allowed
            if not allowed:
                raise Refused(
                    f"{_name_of(claims)} is not let in here.",
                    "the visitor is none of those who are let in",
                )
        is_hint = (
            self._logout
            and metadata.end_session_endpoint is not None
            and len(id_token) <= LONGEST_HINT
        )
        return Identity(claims["sub"], claims, id_token if is_hint else None)

    async def end(self, id_token: str | None, back: str) -> URL | None:
        if not self._logout:
            return None
        endpoint = (await self._discovered()).end_session_endpoint
        if endpoint is None:
            return None
        # RP-Initiated Logout 2.
        return endpoint.update_query(
            {
                **(
                    {"client_id": self.client_id}
                    if id_token is None
                    else {"id_token_hint": id_token}
                ),
                "post_logout_redirect_uri": back,
            }
        )

    # The ID token
    # ============

    async def _verified(self, metadata: _Metadata, id_token: str) -> Verified:
        keys_of = (metadata.jwks_uri, metadata.algorithms)
        if self._verifier is None or keys_of != self._keys_of:
            self._keys_of = keys_of
            self._verifier = Verifier(
                "openid_connect",
                metadata.jwks_uri,
                algorithms=metadata.algorithms,
                issuer=self._issuer,
                audience=self.client_id,
                required_claims=("exp", "iat", "sub"),
                session=self._session,
                extra="sign-in",
            )
        try:
            return await self._verifier.verified(id_token)
        except TokenRefused as exc:
            raise Failed(f"its ID token is not good: {exc}") from None
        except KeysUnavailable:
            raise Failed("its keys are away") from None

    def _check(
        self, token: Verified, attempt: Attempt, access_token: str
    ) -> None:
        """What is said of ID tokens only: Core 3.1.3.7 and 3.1.3.8."""
        claims = token.claims
        if not claims["sub"]:
            raise Failed("its ID token has no subject")
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not same(attempt.nonce, nonce):
            raise Failed("its ID token is that of another sign-in")
        audience, azp = claims["aud"], claims.get("azp")
        is_for_several = isinstance(audience, list) and len(audience) > 1
        if azp != self.client_id and (is_for_several or azp is not None):
            raise Failed("its ID token was issued to another")
        at_hash = claims.get("at_hash")
        if at_hash is not None and (
            not isinstance(at_hash, str)
            or not same(_half_hash(token.header["alg"], access_token), at_hash)
        ):
            raise Failed("its ID token goes with another access token")

    async def _userinfo(
        self,
        client: ClientSession,
        endpoint: URL,
        access_token: str,
        claims: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Core 5.3."""
        place = "the userinfo endpoint"
        headers: dict[str, str] = {hdrs.AUTHORIZATION: f"Bearer {access_token}"}
        answer = await ask(client, endpoint, place, headers=headers)
        found = answer.expect_object(place)
        if found.get("sub") != claims["sub"]:  # 5.3.2
            raise Failed(f"{place} told of somebody else")
        return found

    # What the provider says of itself
    # ================================

    async def _discovered(self) -> _Metadata:
        if self._metadata is not None and self._is_fresh():
            return self._metadata
        async with self._one_at_a_time():
            known = self._metadata
            if known is None:
                known = await self._fetch()
                self._fresh_until = time.monotonic() + OLD_METADATA
            elif not self._is_fresh():
                # One of those who come pays for it, and all the others go on.
                self._fresh_until = time.monotonic() + METADATA_PAUSE
                try:
                    known = await asyncio.wait_for(
                        self._fetch(), METADATA_PATIENCE
                    )
                    self._fresh_until = time.monotonic() + OLD_METADATA
                except (Failed, asyncio.TimeoutError):
                    pass  # the old is better than nothing
            self._metadata = known
        return known

    def _one_at_a_time(self) -> asyncio.Lock:
        """A lock is tied to its loop, and a provider to none."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    def _is_fresh(self) -> bool:
        return time.monotonic() < self._fresh_until

    async def _fetch(self) -> _Metadata:
        # Discovery 4.1: without the slash at its end.
        base = self._issuer.rstrip("/")
        url = URL(f"{base}/.well-known/openid-configuration")
        async with self.client() as client:
            answer = await ask(client, url, _DISCOVERY)
        return self._read(answer.expect_object(_DISCOVERY))

    def _read(self, document: Mapping[str, Any]) -> _Metadata:
        # Discovery 4.3: or else one could speak for another.
        if document.get("issuer") != self._issuer:
            raise Failed(f"{_DISCOVERY} is that of another issuer")
        methods = document.get("token_endpoint_auth_methods_supported")
        if not isinstance(methods, list):
            methods = ["client_secret_basic"]
        by_basic = "client_secret_basic" in methods
        if (
            not by_basic
            and self._secret is not None
            and "client_secret_post" not in methods
        ):
            raise Failed(f"{_DISCOVERY} has no way to send a client secret")
        listed = document.get("id_token_signing_alg_values_supported")
        if not isinstance(listed, list):
            listed = ["RS256"]  # the one that all have to know
        algorithms = tuple(
            name for name in PUBLIC_KEY_ALGORITHMS if name in listed
        )
        if not algorithms:
            raise Failed(f"{_DISCOVERY} has no algorithm that is known here")
        return _Metadata(
            self._needed(document, "authorization_endpoint"),
            self._needed(document, "token_endpoint"),
            self._endpoint(document, "userinfo_endpoint"),
            self._endpoint(document, "end_session_endpoint"),
            self._needed(document, "jwks_uri"),
            algorithms,
            by_basic,
            document.get("authorization_response_iss_parameter_supported")
            is True,
        )

    def _needed(self, document: Mapping[str, Any], name: str) -> URL:
        url = self._endpoint(document, name)
        if url is None:
            raise Failed(f"{_DISCOVERY} has no {name}")
        return url

    def _endpoint(self, document: Mapping[str, Any], name: str) -> URL | None:
        value = document.get(name)
        if value is None:
            return None
        try:
            url = options.secure_url(name, value)
        except (TypeError, ValueError):
            raise Failed(f"{_DISCOVERY} has no secure {name}") from None
        # Only a provider on this machine may name what is on this machine.
        if url.scheme == "http" and not self._issuer.startswith("http:"):
            raise Failed(f"{_DISCOVERY} has no secure {name}")
        return url


_DISCOVERY = "its configuration"


def _half_hash(algorithm: str, access_token: str) -> str:
    """Core 3.1.3.6: by the hash of the signature."""
    name = _HASHES.get(algorithm.removesuffix("K")[-3:], "sha512")
    digest = hashlib.new(name, access_token.encode()).digest()
    half = digest[: len(digest) // 2]
    return urlsafe_b64encode(half).rstrip(b"=").decode()


#: By the end of the algorithm's name; all others, EdDSA too, have SHA-512.
_HASHES = {"256": "sha256", "384": "sha384"}


def _name_of(claims: Mapping[str, Any]) -> str:
    """By which the visitor knows what he has signed in as."""
    for name in ("email", "preferred_username", "name"):
        if isinstance(claims.get(name), str):
            return str(claims[name])
    return str(claims["sub"])
