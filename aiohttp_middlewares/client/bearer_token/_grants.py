"""Where tokens come from: the grants of OAuth 2.0."""

import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

from aiohttp import ClientSession, hdrs
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._retry_after import retry_after
from aiohttp_middlewares.client.bearer_token._token import (
    Token,
    TokenRefreshError,
)

#: How much of an answer is read, in bytes: a token is far smaller.
LARGEST_ANSWER = 1024 * 1024

#: Fetches a token; it is given a session and the token there was.
Refresh = Callable[[ClientSession, Token | None], Awaitable[Token]]


def client_credentials(
    token_url: str | URL,
    client_id: str,
    client_secret: str,
    *,
    scope: str | None = None,
    extra: Mapping[str, str] | None = None,
    auth: Literal["basic", "post"] = "basic",
) -> Refresh:
    """The client credentials grant, RFC 6749 4.4.

    :param token_url: The token endpoint. Its redirects are not followed.
    :param client_id: The id of this client.
    :param client_secret: Its secret.
    :param scope: What to ask for, separated by spaces.
    :param extra: More fields for the request, such as an ``audience``.
    :param auth: How the client identifies itself: ``"basic"``, as a header,
        or ``"post"``, within the body.
    :return: A function for :class:`BearerTokenMiddleware`.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no URL or has userinfo, for an empty string
        and for an unknown ``auth``.
    """
    what = "client_credentials"
    if not isinstance(client_secret, str):
        raise TypeError(f"{what} client_secret should be a string")
    form = {"grant_type": "client_credentials"}
    if scope is not None:
        form["scope"] = _string(f"{what} scope", scope)
    url, headers = _endpoint(
        what, token_url, client_id, client_secret, extra, auth, form
    )

    async def refresh(session: ClientSession, old: Token | None) -> Token:
        return await _request(session, url, headers, form)

    return refresh


def refresh_token_grant(
    token_url: str | URL,
    refresh_token: str,
    client_id: str,
    client_secret: str | None = None,
    *,
    extra: Mapping[str, str] | None = None,
    auth: Literal["basic", "post"] = "basic",
) -> Refresh:
    """The refresh token grant, RFC 6749 6.

    :param token_url: The token endpoint. Its redirects are not followed.
    :param refresh_token: The refresh token to begin with. When the endpoint
        hands out another one, that one is used from then on, and it is the
        ``refresh_token`` of the :class:`Token` that ``on_token`` gets.
    :param client_id: The id of this client.
    :param client_secret: Its secret; None for a public client.
    :param extra: More fields for the request.
    :param auth: How the client identifies itself: ``"basic"``, as a header,
        or ``"post"``, within the body.
    :return: A function for :class:`BearerTokenMiddleware`.
    :raises TypeError: For an option of another type.
    :raises ValueError: For what is no URL or has userinfo, for an empty string
        and for an unknown ``auth``.
    """
    what = "refresh_token_grant"
    refresh_token = _string(f"{what} refresh_token", refresh_token)
    form = {"grant_type": "refresh_token", "refresh_token": ""}
    url, headers = _endpoint(
        what, token_url, client_id, client_secret, extra, auth, form
    )
    latest = refresh_token
    spent: str | None = None

    async def refresh(session: ClientSession, old: Token | None) -> Token:
        nonlocal latest, spent
        kept = None if old is None else old.refresh_token
        # Who was given a new one and lost it comes with the one before.
        if kept is not None and kept != spent:
            latest = kept
        sent = latest
        token = await _request(
            session, url, headers, {**form, "refresh_token": sent}
        )
        if token.refresh_token is not None and token.refresh_token != sent:
            latest, spent = token.refresh_token, sent
        return Token(token.value, token.expires_at, latest)

    return refresh


def _endpoint(
    what: str,
    token_url: object,
    client_id: object,
    client_secret: object,
    extra: object,
    auth: object,
    form: dict[str, str],
) -> tuple[URL, dict[str, str]]:
    """Check what both grants take, and add it to the form."""
    # No value is shown here: who mixes them up would see his secret.
    should = "an absolute http or https URL"
    if not isinstance(token_url, str | URL):
        raise TypeError(f"{what} token_url should be {should}")
    try:
        url = URL(token_url)
    except ValueError:
        raise ValueError(f"{what} token_url should be {should}") from None
    if url.raw_user is not None or url.raw_password is not None:
        # RFC 6749 2.3: one client authentication, and that is ``auth``.
        raise ValueError(
            f"{what} token_url should be {should} without userinfo"
        )
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{what} token_url should be {should}")
    _string(f"{what} client_id", client_id)
    if not isinstance(client_secret, str | None):
        raise TypeError(f"{what} client_secret should be a string or None")
    if auth not in ("basic", "post"):
        raise ValueError(f"{what} auth should be 'basic' or 'post'")
    if not isinstance(extra, Mapping | None):
        raise TypeError(f"{what} extra should be a mapping of strings")
    for name, value in (extra or {}).items():
        if name in {*form, "client_id", "client_secret"}:
            should = "a mapping without the fields of the grant"
            options.refuse(ValueError, f"{what} extra", should, name)
        if not isinstance(name, str) or not isinstance(value, str):
            should = "a mapping of names to strings"
            options.refuse(TypeError, f"{what} extra", should, name)
        form[name] = value

    headers: dict[str, str] = {
        hdrs.ACCEPT: "application/json",
        hdrs.CONTENT_TYPE: "application/x-www-form-urlencoded",
    }
    if client_secret is None:
        form["client_id"] = str(client_id)
    elif auth == "post":
        form["client_id"] = str(client_id)
        form["client_secret"] = client_secret
    else:
        # RFC 6749 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(str(client_id))}:{quote_plus(client_secret)}"
        encoded = base64.b64encode(pair.encode("ascii")).decode("ascii")
        headers[hdrs.AUTHORIZATION] = f"Basic {encoded}"
    return url, headers


def _string(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} should be a non-empty string")
    if not value:
        raise ValueError(f"{what} should be a non-empty string")
    return value


async def _request(
    session: ClientSession,
    url: URL,
    headers: dict[str, str],
    form: dict[str, str],
) -> Token:
    """Ask the token endpoint."""
    now = time.time()
    async with session.post(
        url,
        data=urlencode(form).encode("ascii"),
        headers=headers,
        # They would carry the secret elsewhere.
        allow_redirects=False,
        raise_for_status=False,
    ) as response:
        status, answered = response.status, response.headers
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > LARGEST_ANSWER:
                break
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    found = answer if isinstance(answer, dict) else {}
    # RFC 6749 5.1 and 5.2 say 200 and 400. There are servers that say 201,
    # and GitHub's says 200 to everything.
    is_refused = "error" in found and "access_token" not in found
    if not 200 <= status < 300 or is_refused:
        error = _error_code(found.get("error"))
        said = f"{status}, {error}" if error else str(status)
        raise TokenRefreshError(
            f"The token endpoint answered {said}",
            error=error,
            status=status,
            retry_after=retry_after(answered),
        )
    return _token_of(found, now)


def _error_code(value: object) -> str | None:
    """A code such as ``invalid_client``, and nothing that is longer."""
    if isinstance(value, str) and re.fullmatch(r"[\w.:/-]{1,80}", value):
        return value
    return None


def _token_of(answer: dict[str, Any], now: float) -> Token:
    """The token of a successful answer, RFC 6749 5.1."""
    # 7.1 forbids a type that is not understood. This one is Apigee's.
    kind = answer.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() not in (
        "bearer",
        "bearertoken",
    ):
        raise TokenRefreshError(
            "The token endpoint answered with another type of token"
        )
    lifetime = _lifetime(answer.get("expires_in"))
    expires_at = None if lifetime is None else now + lifetime
    renewed = answer.get("refresh_token")
    try:
        return Token(
            answer.get("access_token", ""),
            expires_at,
            renewed if isinstance(renewed, str) and renewed else None,
        )
    except (TypeError, ValueError):
        raise TokenRefreshError(
            "The token endpoint answered without a token"
        ) from None


def _lifetime(value: object) -> float | None:
    """The seconds of ``expires_in``, which some servers send as a string."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 1e12 else None
