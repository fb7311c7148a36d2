"""Keys that their issuer publishes: fetched, kept, and fetched anew."""

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, hdrs
from yarl import URL

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.jwt.compact import TokenRefused, read_object
from aiohttp_middlewares._core.jwt.keys import Keys, published_keys
from aiohttp_middlewares._core.statuses import Foreseen

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import Key

#: All in seconds. How long a fetch may take.
FETCH_TIMEOUT = 10.0
#: After one that did not bring the key that it was for.
PAUSE = 60.0
#: After one that failed, while there is no key at all.
PAUSE_WITHOUT_KEYS = 5.0
#: Keys so old are fetched anew, as one may have been taken back.
OLD = 3600.0
#: Where nothing says which key it is, so many are tried: each may take a
#: millisecond, and anybody can send such tokens.
MOST_TRIED = 8
#: Bytes. Sets have some thousands, with certificates.
LARGEST_SET = 512 * 1024

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.jwt")


class KeysUnavailable(Foreseen, Exception):
    """There is no key at hand that a token could be verified with.

    The token may be good: ``bearer_auth_middleware`` answers 503.

    :param message: For the log.
    :param retry_after: The seconds after which it may be tried again.
    """

    #: For whoever answers it: the fault is not the client's.
    status = 503
    message = "Service Unavailable"

    def __init__(
        self,
        message: str = "There are no keys to verify tokens with",
        *,
        retry_after: float = PAUSE_WITHOUT_KEYS,
    ) -> None:
        super().__init__(message)
        self.retry_after: int = max(1, math.ceil(retry_after))


class _Useless(Exception):
    """An answer that brings no keys, and why."""


class PublishedKeys:
    """The JWK set at a URL.

    One fetch at a time, whoever waits for it, and whoever of them gives up.
    While it fails the old keys are good.
    """

    def __init__(
        self,
        url: URL,
        algorithms: Mapping[str, "JWSAlgModel"],
        *,
        session: ClientSession | None,
        clock: Callable[[], float],
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._session = session
        self._clock = clock
        self._keys: Keys | None = None
        self._task: asyncio.Task[None] | None = None
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        #: For how long after that nothing is fetched.
        self._pause = 0.0

    def find(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        if self._keys is None:
            return ()
        if self._since(self._fetched_at) >= OLD and self._is_time():
            self._start()  # those there are go on being used
        return self._keys.find(algorithm, kid)[:MOST_TRIED]

    async def fetch(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        """Fetch them, unless that was done just now.

        :raises KeysUnavailable: there are none at all.
        """
        task = self._running()
        if task is None and self._is_time():
            task = self._start()
        if task is not None:
            # It is nobody's own: who waits may be cancelled, and the others
            # get their keys all the same.
            await asyncio.wait([task])
        if self._keys is None:
            left = max(0.0, self._pause - self._since(self._tried_at))
            raise KeysUnavailable(retry_after=left)
        found = self._keys.find(algorithm, kid)[:MOST_TRIED]
        if not found:
            # Anybody can ask for a key that nobody has.
            self._pause = PAUSE
        return found

    def _is_time(self) -> bool:
        return self._since(self._tried_at) >= self._pause

    def _since(self, moment: float) -> float:
        since = self._clock() - moment
        return since if since >= 0 else math.inf  # the clock was set back

    def _running(self) -> "asyncio.Task[None] | None":
        task = self._task
        if task is None or task.done():
            return None
        # One of a loop that was closed will never be done.
        is_here = task.get_loop() is asyncio.get_running_loop()
        return task if is_here else None

    def _start(self) -> "asyncio.Task[None]":
        task = self._running()
        if task is None:
            # The attempt counts, whatever comes of it.
            self._tried_at = self._clock()
            self._pause = PAUSE_WITHOUT_KEYS if self._keys is None else PAUSE
            # In a context of its own: no deadline, id and user of the request
            # that happens to come first is that of all.
            context = contextvars.Context()
            task = context.run(asyncio.create_task, self._run())
            self._task = task
        return task

    async def _run(self) -> None:
        """Fetch them; run as a task, which raises nothing."""
        try:
            document = await asyncio.wait_for(self._read(), FETCH_TIMEOUT)
            keys = Keys(published_keys(document), self._algorithms)
            if not keys:
                raise _Useless("it has no key for these algorithms")
        except Exception as exc:
            # A session may have middlewares, which raise what they like.
            self._tried_at = self._clock()
            self._tell(exc)
            return
        if self._keys is None:
            # What was fetched for a good token may be old for the next one.
            self._pause = 0.0
        self._keys = keys
        self._fetched_at = self._clock()

    def _tell(self, exc: Exception) -> None:
        # Others may show what they were sent.
        reason = str(exc) if isinstance(exc, _Useless) else type(exc).__name__
        logger.warning(
            "The keys of %s could not be fetched: %s",
            self._url.origin(),
            reason,
            extra={"reason": reason},
        )

    async def _read(self) -> dict[str, Any]:
        if self._session is not None:
            return await self._read_by(self._session)
        # For this once: a verifier is never closed.
        async with ClientSession() as session:
            return await self._read_by(session)

    async def _read_by(self, session: ClientSession) -> dict[str, Any]:
        async with session.get(
            self._url,
            headers={
                hdrs.ACCEPT: "application/jwk-set+json, application/json",
                # What is packed may be larger than it looks.
                hdrs.ACCEPT_ENCODING: "identity",
            },
            allow_redirects=False,
            auto_decompress=False,
        ) as response:
            if response.status != 200:
                raise _Useless(f"it is answered with {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LARGEST_SET:
                    raise _Useless(f"it has more than {LARGEST_SET} bytes")
        try:
            return read_object(bytes(body))
        except TokenRefused:
            raise _Useless("it is no JSON object") from None
