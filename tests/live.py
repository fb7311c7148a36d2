"""An application behind a real socket, and a client that may do what it likes.

``aiohttp_client`` keeps to the rules: it sends whole requests, reads what it
is sent, and its server always has ``handler_cancellation=True``.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, TypeVar

import pytest
from aiohttp import web
from raw import Head, head

T = TypeVar("T")

#: For what happens soon, on a machine that may be busy.
PATIENCE = 20.0


class Live(NamedTuple):
    """An application that is being served."""

    runner: web.AppRunner
    host: str
    port: int

    async def connect(self) -> "Connection":
        return Connection(*await asyncio.open_connection(self.host, self.port))

    def connections(self) -> int:
        """How many aiohttp knows of."""
        server = self.runner.server
        return 0 if server is None else len(server.connections)


@asynccontextmanager
async def live(app: web.Application, **options: Any) -> AsyncIterator[Live]:
    """Serve it, by default as ``web.run_app(handler_cancellation=True)``."""
    options = {"handler_cancellation": True, "shutdown_timeout": 5, **options}
    runner = web.AppRunner(app, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Live(runner, *runner.addresses[0])
    finally:
        await runner.cleanup()


class Connection:
    """A client that sends bytes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(
        self,
        line: str,
        body: bytes = b"",
        *,
        length: int | None = None,
        fields: str = "",
    ) -> None:
        """Send ``"GET /path"`` and its body; ``length`` may promise more."""
        if length is None:
            length = len(body)
        if length:
            fields += f"Content-Length: {length}\r\n"
        self.write(f"{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n", body)

    def write(self, text: str, body: bytes = b"") -> None:
        self.writer.write(text.encode() + body)

    async def head(self) -> Head:
        received = self.reader.readuntil(b"\r\n\r\n")
        return head(await asyncio.wait_for(received, PATIENCE))

    async def answer(self) -> Head:
        """One response and its body, by ``Content-Length`` or in chunks."""
        answer = await self.head()
        body: Coroutine[Any, Any, bytes]
        if answer.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        else:
            length = int(answer.headers.get("Content-Length", 0))
            body = self.reader.readexactly(length)
        return answer._replace(rest=await asyncio.wait_for(body, PATIENCE))

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), PATIENCE)

    async def rest(self) -> bytes:
        """All there is until the server closes the connection."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    def leave(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Leave without a good-bye."""
        self.writer.transport.abort()


async def eventually(true: Callable[[], object]) -> None:
    """Wait for something to become true, and fail if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not true():
        assert loop.time() < deadline, "it never became true"
        await asyncio.sleep(0.002)


async def soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, PATIENCE)


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What asyncio complains of: exceptions that nobody took, and the like."""
    found: list[str] = []
    keep = logging.Handler(logging.WARNING)
    keep.emit = lambda record: found.append(  # type: ignore[method-assign]
        keep.format(record)
    )
    logger = logging.getLogger("asyncio")
    logger.addHandler(keep)
    try:
        yield found
        gc.collect()
    finally:
        logger.removeHandler(keep)


def begin_tasks_at_once() -> None:
    """Have each task of the test begin when it is made, if the loop can."""
    loop = asyncio.get_running_loop()
    if sys.version_info < (3, 12):
        pytest.skip("before Python 3.12 no task begins at once")
    elif sys.version_info < (3, 14) and not isinstance(
        loop, asyncio.BaseEventLoop
    ):
        pytest.skip("uvloop gives it an option that it does not know")
    else:
        loop.set_task_factory(asyncio.eager_task_factory)
