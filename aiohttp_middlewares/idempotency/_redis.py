"""Answers in Redis, for many processes and machines."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

from aiohttp_middlewares._core import options, pools
from aiohttp_middlewares.idempotency._answer import Answer
from aiohttp_middlewares.idempotency._store import (
    Found,
    Store,
    StoreUnavailable,
    refuse_store,
)

T = TypeVar("T")

# A value is the token of whoever began the work, what was asked for, and from
# its end on the answer. It is ASCII, as a client may be told to decode.
_TOKEN = 32
_HEAD = _TOKEN + 64

#: Put a value, the lock itself or an answer, where nothing is, or the lock; or
#: say what is there. Of two that work on the same, as a lock was lost, the
#: first answer counts: it takes the place of the other's lock. Done twice, as
#: redis-py tries again, it is the same as done once.
_PUT = """
local lock, value = ARGV[1], ARGV[2]
local found = redis.call('GET', KEYS[1])
if found and found ~= value and (
    value == lock or string.sub(found, 33) ~= string.sub(lock, 33)
) then
    return found
end
redis.call('SET', KEYS[1], value, 'PX', ARGV[3])
return false
"""
_FREE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""

#: After this share of its time a lock is renewed. It is as often as that a
#: Redis that has forgotten a lock is told of it again.
_RENEWED = 0.1
#: In seconds: between two attempts to tell Redis what it has to know.
_RETRY = 1.0
#: An outage may be long, and there may be many who ask meanwhile.
_MOST_OWED = 10_000
#: Redis adds it to the time in milliseconds, and has 63 bits for the sum.
_LONGEST = 10**15


class _Run:
    """What this process works on, or has done and could not yet tell."""

    def __init__(self, key: str, payload: str) -> None:
        self.key = key
        self.lock = uuid4().hex + payload
        self.found = Found(payload)
        #: What to put in the place of the lock.
        self.record = ""
        self.ttl = self.until = 0.0
        #: When its lock is to be renewed, and what renews it.
        self.timer: asyncio.TimerHandle | None = None
        self.renewal: asyncio.Task[None] | None = None


class RedisStore(Store):
    """Keeps answers in Redis: processes and machines that share it share them.

    A lock is renewed while its handler runs, and lapses 30 seconds after its
    process died. It takes ``pip install "aiohttp-middlewares[redis]"``.

    :param redis: A client of ``redis.asyncio``, which stays yours to close.
    :param prefix:
        What all keys begin with; what shares it shares answers. By default:
        ``"idempotency:"``.
    :param timeout:
        For how many seconds to wait for Redis each time. By default: 1.
    :raises ImportError: redis is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: ``timeout`` is no positive number.
    """

    #: Seconds after which a lock lapses that nobody renews. One of less than a
    #: few seconds is for tests.
    lock_ttl: float = 30.0

    def __init__(
        self, redis: Any, prefix: str = "idempotency:", timeout: float = 1.0
    ) -> None:
        what = "RedisStore"
        try:
            import redis.asyncio as clients
            from redis import exceptions
        except ImportError as exc:
            raise ImportError(
                f'{what} needs redis; pip install "aiohttp-middlewares[redis]"'
            ) from exc
        if not isinstance(redis, clients.Redis | clients.RedisCluster):
            refuse_store(f"{what} redis", "a client of redis.asyncio", redis)
        if not isinstance(prefix, str):
            options.refuse(TypeError, f"{what} prefix", "a string", prefix)
        self._prefix = prefix
        self._timeout = options.seconds(f"{what} timeout", timeout)
        self._put = redis.register_script(_PUT)
        self._free = redis.register_script(_FREE)
        self._connection_error = exceptions.ConnectionError
        self._runs: dict[str, _Run] = {}
        #: Locks that Redis may have given without our knowing, and their keys.
        self._owed: dict[str, str] = {}
        #: What goes on whoever is cancelled.
        self._tasks: set[asyncio.Task[Any]] = set()

    async def begin(self, key: str, payload: str) -> Found | None:
        run = self._runs.get(key)
        if run is not None:
            # Redis may have lost what it knew of it.
            return run.found
        run = _Run(key, payload)
        taking = self._start(self._take(run))
        try:
            return await _result(taking)
        except asyncio.CancelledError:
            # It may be taken all the same, and there is nobody to do the work.
            taking.add_done_callback(
                lambda _: self._start(self._give_back(run))
            )
            raise

    async def complete(
        self, key: str, answer: Answer | None, ttl: float
    ) -> Found | None:
        run = self._runs[key]
        run.found = run.found._replace(done=True, answer=answer)
        run.record = run.lock + _packed(answer)
        run.ttl = ttl
        run.until = asyncio.get_running_loop().time() + ttl
        return await _result(self._start(self._save(run)))

    async def release(self, key: str) -> None:
        await _result(self._start(self._give_back(self._runs[key])))

    # -- What its tasks do ----------------------------------------------------

    async def _take(self, run: _Run) -> Found | None:
        try:
            value = await self._lock(run)
        except StoreUnavailable:
            # Redis may get that far, too late to say so.
            self._owe(run)
            raise
        if value is not None:
            return _unpacked(value)
        self._runs[run.key] = run
        self._renew_after(run, self.lock_ttl * _RENEWED)
        return None

    async def _renew(self, run: _Run) -> None:
        try:
            lost = await self._lock(run) is not None
        except StoreUnavailable:
            self._renew_after(run, min(_RETRY, self.lock_ttl * _RENEWED))
        else:
            # One that is lost is missed when there is an answer.
            if not lost:
                self._renew_after(run, self.lock_ttl * _RENEWED)

    def _renew_after(self, run: _Run, delay: float) -> None:
        def renew() -> None:
            run.renewal = self._start(self._renew(run))

        run.timer = asyncio.get_running_loop().call_later(delay, renew)

    async def _save(self, run: _Run) -> Found | None:
        await _end_renewal(run)
        try:
            found = await self._call(
                self._put, run.key, run.lock, run.record, _ms(run.ttl)
            )
        except StoreUnavailable:
            loop = asyncio.get_running_loop()
            if loop.time() < run.until:
                again = lambda: self._start(self._save(run))  # noqa: E731
                loop.call_later(_RETRY, again)
            else:
                del self._runs[run.key]
            raise
        del self._runs[run.key]
        return None if found is None else _unpacked(found)

    async def _give_back(self, run: _Run) -> None:
        await _end_renewal(run)
        try:
            await self._call(self._free, run.key, run.lock)
        except StoreUnavailable:
            self._owe(run)
            raise
        finally:
            if self._runs.get(run.key) is run:
                del self._runs[run.key]

    def _owe(self, run: _Run) -> None:
        """Give it back when Redis answers again; or else it lapses."""
        if len(self._owed) < _MOST_OWED:
            self._owed[run.lock] = run.key

    async def _give_back_owed(self) -> None:
        owed, self._owed = self._owed, {}
        for lock, key in owed.items():
            await self._call(self._free, key, lock)

    # -- How it talks to Redis ------------------------------------------------

    def _lock(self, run: _Run) -> Coroutine[Any, Any, Any]:
        return self._call(
            self._put, run.key, run.lock, run.lock, _ms(self.lock_ttl)
        )

    async def _call(self, script: Any, key: str, *values: str | int) -> Any:
        asked = self._ask(script, self._prefix + key, values)
        try:
            answer = await asyncio.wait_for(asked, self._timeout)
        except Exception as exc:  # of the client's, the network's, a script's
            raise StoreUnavailable(type(exc).__name__) from exc
        if self._owed:
            self._start(self._give_back_owed())
        return answer

    async def _ask(
        self, script: Any, key: str, values: tuple[str | int, ...]
    ) -> Any:
        while True:
            try:
                return await script(keys=[key], args=values)
            except self._connection_error as exc:
                if not pools.is_empty_pool(exc):
                    raise
                await asyncio.sleep(pools.PAUSE)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left to ask for it


async def _result(task: asyncio.Task[T]) -> T:
    """Wait for it; being cancelled here does not cancel it."""
    await asyncio.wait([task])
    return task.result()


async def _end_renewal(run: _Run) -> None:
    """Have nothing on its way to Redis that would lock the key again."""
    if run.timer is not None:
        run.timer.cancel()
    if run.renewal is not None:
        await asyncio.wait([run.renewal])
        if run.timer is not None:
            run.timer.cancel()


def _ms(seconds: float) -> int:
    return int(min(max(seconds * 1000, 1), _LONGEST))


def _packed(answer: Answer | None) -> str:
    if answer is None:
        return "null"
    body = None if answer.body is None else b64encode(answer.body).decode()
    return json.dumps(answer._replace(body=body)._asdict())  # type: ignore[arg-type]


def _unpacked(value: str | bytes) -> Found:
    text = value if isinstance(value, str) else value.decode("ascii", "replace")
    payload, packed = text[_TOKEN:_HEAD], text[_HEAD:]
    if not packed:
        return Found(payload)
    try:
        fields = json.loads(packed)
        if fields["body"] is not None:
            fields["body"] = b64decode(fields["body"])
        fields["headers"] = tuple(map(tuple, fields["headers"]))
        return Found(payload, True, Answer(**fields))
    except (KeyError, TypeError, ValueError):
        # Not kept, or by another version in another way: done it is.
        return Found(payload, True)
