"""What the tests of the client talk to."""

import asyncio
import contextlib
import errno
import io
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

MEGABYTE = b"x" * 2**20


class Naps:
    """A sleep that takes no time."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


class Site:
    """A server that remembers what came, and answers as it is told.

    ``answers`` are taken one after the other, the last one for ever: a
    status, a response, or something to do with the request.
    """

    server: BaseTestServer

    def __init__(self) -> None:
        self.answers: list[Any] = [200]
        self.methods: list[str] = []
        self.bodies: list[bytes] = []
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()
        self.peers: Counter[object] = Counter()
        self.transports: set[asyncio.Transport] = set()

    @property
    def url(self) -> str:
        return str(self.server.make_url("/"))

    @property
    def count(self) -> int:
        return len(self.methods)

    async def until(self, count: int) -> None:
        """Wait until so many requests have come."""
        while self.count < count:
            await self.arrivals.get()

    async def hang_up(self) -> None:
        """Close the idle connections, which the client does not expect."""
        for transport in self.transports:
            transport.close()
        await asyncio.sleep(0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.methods.append(request.method)
        self.arrivals.put_nowait(None)
        assert request.transport is not None
        self.transports.add(request.transport)
        self.peers[request.transport.get_extra_info("peername")] += 1
        answers = self.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            found: web.StreamResponse = await answer(request)
            return found
        self.bodies.append(await request.read())
        if isinstance(answer, int):
            return web.Response(status=answer, text=f"{request.method}!")
        status, headers, body = answer
        return web.Response(status=status, headers=headers, body=body)


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{tail:.*}", site.handle)
    async with TestServer(app) as server:
        site.server = server
        yield site


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def raw_server(
    talk: Callable[
        [asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]
    ],
) -> AsyncIterator[int]:
    """A server that knows no HTTP; its port."""
    tasks: set[asyncio.Task[object]] = set()

    async def run(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        broken = (asyncio.CancelledError, ConnectionError, EOFError)
        with contextlib.suppress(*broken):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(*broken):
            await writer.wait_closed()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def drop(request: web.Request) -> web.Response:
    """Read the request, and hang up."""
    await request.read()
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def hang(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


class Unreadable(io.FileIO):
    """A file that knows its size, on a disk that fails."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.count += 1
        raise OSError(errno.EIO, "the disk failed")


async def raises() -> AsyncIterator[bytes]:
    """A body that ends in an exception."""
    yield b"1234"
    raise ValueError("of its own")


def session_with(
    middleware: aiohttp.ClientMiddlewareType, **kwargs: Any
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=[middleware], **kwargs)


async def accept(request: web.Request) -> web.WebSocketResponse:
    """Open a WebSocket, and close it."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    await ws.close()
    return ws


async def header_of(
    site: Site, middleware: Any, header: str, **kwargs: Any
) -> str | None:
    """The header as the innermost middleware sees it."""
    seen: list[str | None] = []

    async def note(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(req.headers.get(header))
        return await handler(req)

    async with (
        aiohttp.ClientSession(middlewares=[middleware, note]) as session,
        session.get(site.url, **kwargs),
    ):
        pass
    return seen[0]
