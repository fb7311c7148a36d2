"""Both logs: a time limit is one there, and a caller who gave up is one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from client_site import hang, serve

from aiohttp_middlewares.client import (
    CallRecord,
    api_log_middleware,
    request_log_middleware,
    retry_middleware,
)


class Silent(AbstractResolver):
    """A name server that does not answer."""

    async def resolve(self, *args: Any, **options: Any) -> Any:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def silent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while await reader.read(1000):
        pass
    writer.close()


@asynccontextmanager
async def hanging_in(phase: str) -> AsyncIterator[str]:
    """Where a request does not get any further than that."""
    if phase == "names":
        yield "http://api.example/"
    elif phase == "TLS":
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            yield f"https://127.0.0.1:{port}/"
    else:
        async with serve() as site:
            site.answers = [hang]
            yield site.url


class Logs:
    """Both logs, in one session."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "aiohttp_middlewares.client")
        self.caplog = caplog
        self.reported: list[CallRecord] = []
        self.api_log = api_log_middleware(self.reported.append)

    def session(
        self, *outer: Any, total: float | None = None
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            middlewares=[*outer, request_log_middleware(), self.api_log],
            connector=aiohttp.TCPConnector(resolver=Silent()),
            timeout=aiohttp.ClientTimeout(total=total),
        )

    async def errors(self) -> set[str | None]:
        await self.api_log.aclose()
        logged = [
            record.__dict__["error"]
            for record in self.caplog.records
            if record.name.endswith("request_log")
        ]
        assert len(logged) == len(self.reported) > 0
        return {*logged, *(record.error for record in self.reported)}


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Logs:
    return Logs(caplog)


PHASES = ["names", "TLS", "headers"]


@pytest.mark.parametrize("phase", PHASES)
async def test_total_timeout_is_logged_as_one(logs: Logs, phase: str) -> None:
    async with hanging_in(phase) as url, logs.session(total=0.05) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(url)
        assert await logs.errors() == {"TimeoutError"}


@pytest.mark.parametrize("phase", PHASES)
async def test_timeout_of_an_attempt_is_logged_as_one(
    logs: Logs, phase: str
) -> None:
    retry = retry_middleware(2, attempt_timeout=0.05, base_delay=0.001)
    async with hanging_in(phase) as url, logs.session(retry) as session:
        with pytest.raises(aiohttp.ServerTimeoutError):
            await session.get(url)
        assert await logs.errors() == {"TimeoutError"}
        assert len(logs.reported) == 2


@pytest.mark.parametrize("phase", PHASES)
async def test_caller_who_gave_up_is_logged_as_one(
    logs: Logs, phase: str
) -> None:
    retry = retry_middleware(attempt_timeout=20)
    async with hanging_in(phase) as url, logs.session(retry) as session:
        task = asyncio.ensure_future(session.get(url))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await logs.errors() == {"CancelledError"}
