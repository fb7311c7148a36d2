"""What the session of a visitor says of signing in."""

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from aiohttp import web

from aiohttp_middlewares.sign_in._attempt import Attempt
from aiohttp_middlewares.sign_in._provider import Identity

#: How many sign-ins of a visitor may be under way, in as many tabs.
MOST_AT_ONCE = 8
#: What browsers keep; RFC 6265 6.1 asks for no less.
MAX_COOKIE_SIZE = 4096


class DoesNotFit(Exception):
    """What has to be kept is more than a cookie holds."""


def aiohttp_session_for(what: str) -> ModuleType:
    try:
        import aiohttp_session
    except ImportError as exc:
        raise ImportError(
            f"{what} needs aiohttp-session; "
            'pip install "aiohttp-middlewares[sign-in]"'
        ) from exc
    return aiohttp_session


class Visit:
    """The session of a request, and what one middleware keeps in it.

    :param name: Under which it keeps that.
    """

    def __init__(
        self, request: web.Request, storage: Any, session: Any, name: str
    ) -> None:
        self._request = request
        self._storage = storage
        self._session = session
        self._signed_in = f"signed_in:{name}"
        self._under_way = f"sign_ins:{name}"

    @property
    def _is_cookie(self) -> bool:
        """Whether the whole session is in its cookie.

        One that is kept on a server has been found there by its identity. Of
        one that is new nobody knows.
        """
        return not self._session.new and self._session.identity is None

    def known(
        self, now: float, max_age: float
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Who has signed in, and what is known of them."""
        match self._session.get(self._signed_in):
            case {"user": str(user), "claims": dict(claims), "at": int(at)}:
                return (user, claims) if now - at < max_age else None
        return None

    def _attempts(self) -> list[Attempt]:
        kept = self._session.get(self._under_way)
        if not isinstance(kept, list):
            return []
        found = [Attempt.restored(item) for item in kept]
        return [attempt for attempt in found if attempt is not None]

    async def remember(self, attempt: Attempt, now: float) -> None:
        """Remember a sign-in that begins; the oldest make room for it.

        :raises DoesNotFit: the application keeps too much in the session.
        """
        others = [other for other in self._attempts() if not other.is_old(now)]
        content = dict(self._session)
        content.pop(self._signed_in, None)  # if it was there it is over
        attempts = await self._most([*others, attempt], content)
        if not attempts:
            raise DoesNotFit
        self._session.pop(self._signed_in, None)
        self._session[self._under_way] = [list(one) for one in attempts]

    def take(self, state: str) -> Attempt | None:
        """The sign-in with this state, which is no more from now on."""
        found = None
        attempts = self._attempts()
        for attempt in attempts:  # all of them: no time tells which
            if attempt.has_state(state):
                found = attempt
        if found is not None:
            attempts.remove(found)
            self._session[self._under_way] = [list(one) for one in attempts]
        return found

    async def enter(
        self,
        aiohttp_session: ModuleType,
        identity: Identity,
        keep: Collection[str],
        now: float,
    ) -> None:
        """Go on in a session that nobody else has had a hand in.

        :raises DoesNotFit: the claims to keep are too much for it.
        """
        claims = identity.claims
        entry = {
            "user": identity.user,
            "claims": {name: claims[name] for name in keep if name in claims},
            "at": int(now),
        }
        if identity.id_token is not None and not self._is_cookie:
            entry["id_token"] = identity.id_token  # some kB
        content: dict[str, Any] = {self._signed_in: entry}
        if not await self._fits(content):
            raise DoesNotFit
        if attempts := await self._most(self._attempts(), content):
            content[self._under_way] = [list(one) for one in attempts]
        old = self._session
        self._session = await aiohttp_session.new_session(self._request)
        self._session.update(content)
        await self._empty(old)

    async def leave(self) -> Mapping[str, Any] | None:
        """Empty the session; what there was of a sign-in in it."""
        entry = self._session.get(self._signed_in)
        await self._empty(self._session)
        return entry if isinstance(entry, Mapping) else None

    async def _empty(self, session: Any) -> None:
        session.invalidate()
        if session.identity is not None:
            # On the server, and at once: whoever else knows of it finds
            # nothing there, even if this visitor waits for no answer.
            await self._storage.save_session(
                self._request, web.Response(), session
            )

    async def _most(
        self, attempts: list[Attempt], content: Mapping[str, Any]
    ) -> list[Attempt]:
        """The newest that fit beside the rest of the session."""
        attempts = attempts[-MOST_AT_ONCE:]
        while attempts and not await self._fits(
            {**content, self._under_way: attempts}
        ):
            del attempts[0]
        return attempts

    async def _fits(self, content: Mapping[str, Any]) -> bool:
        if not self._is_cookie:
            return True
        # Whatever its storage makes of it: signs, encodes, encrypts.
        session = type(self._session)(
            None,
            data={
                "created": self._session.created,
                "session": dict(content),
            },
            new=False,
        )
        session.max_age = self._session.max_age
        response = web.Response()
        await self._storage.save_session(self._request, response, session)
        return all(
            len(cookie.OutputString()) <= MAX_COOKIE_SIZE
            for cookie in response.cookies.values()
        )
