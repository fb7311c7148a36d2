"""What a provider of sign-ins is, and how one is asked."""

import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

from aiohttp import ClientSession, DummyCookieJar, hdrs
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.jwt.compact import read_json
from aiohttp_middlewares.sign_in._attempt import Attempt

#: Bytes. What is longer is no answer to any of these questions: a page of a
#: hundred teams has some 200 kB.
LARGEST_ANSWER = 1024 * 1024


class Refused(Exception):
    """The visitor is not let in: by the provider, or by a rule of the site.

    :param text: For the visitor; it may hold what the provider said.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(reason)
        self.text = text


class Failed(Exception):
    """The provider is away, or what it says is no answer.

    The message is for the log: it holds nothing of what came.
    """


class Misdirected(Exception):
    """What the visitor came back with is not meant for here."""


class Identity(NamedTuple):
    """Whom the provider has let in."""

    user: str
    claims: Mapping[str, Any]
    #: By which the provider knows at the end what was begun.
    id_token: str | None = None


class Provider(ABC):
    """Whoever signs visitors in; made by a function such as ``github()``."""

    def __init__(
        self,
        what: str,
        name: str,
        client_id: object,
        client_secret: object,
        scopes: object,
        session: object,
    ) -> None:
        # No value is shown here: who mixes them up would see his secret.
        if not isinstance(client_id, str):
            raise TypeError(f"{what} client_id should be a string")
        if not client_id:
            raise ValueError(f"{what} client_id should not be empty")
        if client_secret is not None and not isinstance(client_secret, str):
            raise TypeError(f"{what} client_secret should be a string")
        if client_secret is not None and not client_secret.strip():
            raise ValueError(f"{what} client_secret should not be empty")
        if session is not None and not isinstance(session, ClientSession):
            options.refuse(
                TypeError, f"{what} session", "a ClientSession", session
            )
        found = options.strings(f"{what} scopes", scopes)
        for scope in found:
            if not _SCOPE.fullmatch(scope):  # RFC 6749 3.3
                options.refuse(
                    ValueError,
                    f"{what} scopes",
                    "scopes, one a string",
                    scope,
                    meant=repr(scope.split()) if " " in scope else None,
                )
        self.name = name  #: for visitors
        self.client_id = client_id
        self._secret = client_secret
        self._scope = " ".join(found)
        self._session = session

    @property
    @abstractmethod
    def identity(self) -> tuple[str, ...]:
        """What a sign-in is bound to: that of another is none here."""

    @abstractmethod
    async def start(
        self, attempt: Attempt, redirect_uri: str, hint: str | None
    ) -> URL:
        """Where the visitor is sent to."""

    @abstractmethod
    async def finish(
        self,
        attempt: Attempt,
        redirect_uri: str,
        answer: Mapping[str, str],
        wanted: Collection[str],
    ) -> Identity:
        """Who has come back with this answer.

        :param wanted: The claims that are kept.
        :raises Refused: somebody who is not let in.
        :raises Misdirected: the answer is another provider's.
        :raises Failed: that cannot be found out.
        """

    async def end(self, id_token: str | None, back: str) -> URL | None:
        """Where the visitor signs out, if there is such a place."""
        return None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ClientSession]:
        if self._session is not None:
            yield self._session
            return
        # For this once: sign-ins are rare, and nobody would close it. What
        # is for one visitor is not sent for the next.
        async with ClientSession(cookie_jar=DummyCookieJar()) as session:
            yield session

    def authorization(
        self,
        endpoint: URL,
        attempt: Attempt,
        redirect_uri: str,
        extra: Mapping[str, str | None],
    ) -> URL:
        """RFC 6749 4.1.1 with RFC 7636 4.3."""
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scope,
            "state": attempt.state,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
            **extra,
        }
        return endpoint.update_query(
            {name: value for name, value in asked.items() if value}
        )

    def check_answer(self, answer: Mapping[str, str]) -> str:
        """The code that the visitor came back with: RFC 6749 4.1.2."""
        if "error" in answer:
            error = answer["error"]
            if error in ("server_error", "temporarily_unavailable"):
                raise Failed(f"it came back with {error}")
            text = f"{self.name} has not signed you in: {error}"
            if said := answer.get("error_description"):
                text += f", {said}"
            raise Refused(text, f"the provider refused with {_code(error)}")
        code = answer.get("code")
        if not code:
            raise Failed("it came back without a code")
        return code

    async def exchange(
        self,
        client: ClientSession,
        endpoint: URL,
        attempt: Attempt,
        redirect_uri: str,
        code: str,
        *,
        by_basic: bool,
    ) -> dict[str, Any]:
        """The tokens for a code: RFC 6749 4.1.3, 4.1.4 and 5."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        headers: dict[str, str] = {}
        if by_basic and self._secret is not None:
            # RFC 6749 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self._secret)}"
            encoded = b64encode(pair.encode()).decode()
            headers[hdrs.AUTHORIZATION] = f"Basic {encoded}"
        else:
            form["client_id"] = self.client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        place = "the token endpoint"
        answer = await ask(client, endpoint, place, form=form, headers=headers)
        tokens = answer.value
        error = tokens.get("error") if isinstance(tokens, dict) else None
        # GitHub's says 200 to everything.
        if isinstance(error, str) and "access_token" not in tokens:
            if error in ("invalid_grant", "bad_verification_code"):
                raise Refused(
                    f"{self.name} has not signed you in: {error}",
                    "the provider took no such code",
                )
            raise Failed(f"{place} refused with {_code(error)}")
        found = answer.expect_object(place)
        kind = found.get("token_type")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise Failed(f"{place} gave another type of token")
        token = found.get("access_token")
        if not isinstance(token, str) or not _VISIBLE.fullmatch(token):
            raise Failed(f"{place} gave no token")
        return found


_SCOPE = re.compile(r"[!#-\[\]-~]+")
_ERROR = re.compile(r"[\w.:/-]{1,80}", re.ASCII)


def _code(error: str) -> str:
    """A code such as ``invalid_client``; of nothing longer, what it is."""
    return error if _ERROR.fullmatch(error) else "an error"


#: What fits into a header.
_VISIBLE = re.compile(r"[!-~]+")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    #: Of what page comes next, if it was said.
    next: URL | None
    #: What the JSON says; None if it is none.
    value: Any

    def expect_object(self, place: str) -> dict[str, Any]:
        self.expect(place)
        if not isinstance(self.value, dict):
            raise Failed(f"{place} answered with no JSON object")
        return self.value

    def expect(self, place: str) -> None:
        if not 200 <= self.status < 300:
            raise Failed(f"{place} answered with {self.status}")


async def ask(
    client: ClientSession,
    url: URL,
    place: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask, and read no more than an answer may have.

    :param place: What it is, for the log.
    :param form: What to post.
    :raises Failed: there is none, or it is no answer.
    """
    sent: dict[str, str] = {
        hdrs.ACCEPT: "application/json",
        # What is packed may be larger than it looks.
        hdrs.ACCEPT_ENCODING: "identity",
        hdrs.USER_AGENT: "aiohttp-middlewares",
        **(headers or {}),
    }
    data = None
    if form is not None:
        sent[hdrs.CONTENT_TYPE] = "application/x-www-form-urlencoded"
        data = urlencode(form, errors="surrogatepass").encode("ascii")
    body = bytearray()
    try:
        async with client.request(
            "GET" if form is None else "POST",
            url,
            data=data,
            headers=sent,
            # They would carry secrets elsewhere.
            allow_redirects=False,
            auto_decompress=False,
            raise_for_status=False,
        ) as response:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise Failed(
                        f"{place} answered with more than "
                        f"{LARGEST_ANSWER} bytes"
                    )
            link = response.links.get("next")
            following = None if link is None else URL(link["url"])
            status, said = response.status, response.headers
    except Failed:
        raise
    except Exception as exc:
        # A session may have middlewares, which raise what they like. What
        # the exception says may hold what was sent.
        raise Failed(f"{place} is away: {type(exc).__name__}") from None
    try:
        value = read_json(bytes(body))
    except ValueError:
        value = None
    return Answer(status, said, following, value)
