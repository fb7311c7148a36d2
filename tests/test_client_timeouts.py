"""Time limits of the client, and how what is inside tells them apart."""

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aiohttp_middlewares.client._timeouts import (
    TimeIsUp,
    is_timeout,
    time_limit,
)

#: One whose total timeout has not struck.
REQUEST: Any = SimpleNamespace()


async def verdict(seconds: float = 30) -> bool:
    """What is said of the cancellation that is to come here."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError as exc:
        return is_timeout(REQUEST, exc)
    raise AssertionError("nobody cancelled")


async def test_limit_that_is_not_reached_changes_nothing() -> None:
    async with time_limit(30):
        pass
    task = asyncio.current_task()
    assert task is not None
    if sys.version_info >= (3, 11):
        assert task.cancelling() == 0


async def test_cancellation_by_a_limit_is_known_inside() -> None:
    seen: list[bool] = []

    async def inside() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as exc:
            seen.append(is_timeout(REQUEST, exc))
            raise

    with pytest.raises(TimeIsUp):
        async with time_limit(0.01), time_limit(30):
            await inside()
    assert seen == [True]


async def test_cancellation_by_a_limit_is_known_in_a_task_of_its_own() -> None:
    seen: list[bool] = []

    async def inside() -> None:
        try:
            seen.append(await verdict())
        finally:
            raise asyncio.CancelledError

    with pytest.raises(TimeIsUp):
        async with time_limit(0.01):
            await asyncio.wait_for(inside(), 30)
    assert seen == [True]


async def test_cancellation_by_the_caller_is_none_of_a_limit() -> None:
    seen: list[bool] = []
    started = asyncio.Event()

    async def call() -> None:
        async with time_limit(30):
            started.set()
            seen.append(await verdict())

    task = asyncio.ensure_future(call())
    await started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert seen == [False]


async def test_task_that_outlives_its_limit_is_not_cut_by_it() -> None:
    tasks: list[asyncio.Task[bool]] = []

    async def call() -> None:
        async with time_limit(0.01):
            tasks.append(asyncio.create_task(verdict()))
            await asyncio.sleep(30)

    with pytest.raises(TimeIsUp):
        await call()
    tasks[0].cancel()
    assert await tasks[0] is False


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="nobody counts cancellations there"
)
async def test_caller_who_cancels_at_the_same_time_is_obeyed() -> None:
    async def call() -> None:
        async with time_limit(0.01) as limit:
            try:
                await asyncio.sleep(30)
            finally:
                assert limit.has_struck
                task.cancel()
                await asyncio.sleep(0)

    task = asyncio.ensure_future(call())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_timeouts_come_out_unchanged() -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with time_limit(30):
            raise asyncio.TimeoutError
    assert is_timeout(REQUEST, asyncio.TimeoutError())
    assert is_timeout(REQUEST, TimeIsUp())
    assert not is_timeout(REQUEST, OSError())


async def test_limit_does_not_go_on_while_it_is_paused() -> None:
    there = []

    async def call() -> None:
        async with time_limit(0.02) as limit:
            limit.pause()
            limit.pause()
            await asyncio.sleep(0.05)
            there.append("after the pause")
            limit.resume()
            limit.resume()
            await asyncio.sleep(30)

    with pytest.raises(TimeIsUp):
        await call()
    assert there


async def test_limit_that_has_struck_cannot_be_resumed() -> None:
    async def call() -> None:
        async with time_limit(0) as limit:
            try:
                await asyncio.sleep(30)
            finally:
                limit.resume()
                assert limit._timer is None

    with pytest.raises(TimeIsUp):
        await call()


async def test_limit_that_is_due_at_once_can_be_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()

    def call_soon(when: float, *args: Any, **kwargs: Any) -> asyncio.Handle:
        # What uvloop does with a timer of less than half a millisecond.
        return loop.call_soon(*args, **kwargs)

    for name in ("call_at", "call_later"):
        monkeypatch.setattr(loop, name, call_soon)
    async with time_limit(0.0001) as limit:
        limit.pause()
        await asyncio.sleep(0)
        limit.resume()
    assert not limit.has_struck
