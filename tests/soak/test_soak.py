"""Thousands of connections, most of them ill-behaved; then nothing is left.

``SOAK_SECONDS`` says for how long, 60 by default.
"""

import asyncio
import json
import os
import random
import socket
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from aiohttp import ClientPayloadError, ClientSession, ClientTimeout

from soak.server import ADMITTED, LIMIT, NARROW, ORIGIN, SHORT_LIMIT

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
WORKERS = 40
#: The parts of the time; after each the server is asked what it has.
ROUNDS = 10
#: By how much each may grow from part to part: less than anything adds that
#: keeps an object, a block or a hundred bytes of each conversation.
MOST = {"objects": 100, "blocks": 300, "bytes": 32 * 1024}
#: Between two connections of a worker, so that the machine is not swamped.
PAUSE = 0.05


class Server:
    """The process of the server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.port = 0

    async def start(self) -> None:
        self.port = await self._hear()

    async def state(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        found: dict[str, Any] = await self._hear()
        return found

    async def stop(self) -> dict[str, Any]:
        """Stop it, with all that it does; what has been written by then?"""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found: dict[str, Any] = await self._hear()
        assert await asyncio.wait_for(self._process.wait(), 30) == 0
        return found

    async def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        assert line, "the server has ended"
        return json.loads(line)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__).with_name("server.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=10_000_000,
    )
    server = Server(process)
    try:
        await server.start()
        yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Clients:
    """What clients do to a server; each method is one connection or more."""

    session: ClientSession

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.chance = random.Random(1)
        self.number = 0
        #: The writes that were answered.
        self.answered: set[int] = set()
        self.done: Counter[str] = Counter()
        #: How many requests a limit has let in.
        self.admitted = 0
        self.all: list[Callable[[], Awaitable[None]]] = [
            self.reads,
            self.reads,
            self.asks_for_leave,
            self.is_refused,
            self.writes,
            self.writes,
            self.pays,
            self.pays,
            self.asks_for_what_is_limited,
            self.goes_through_the_narrow,
            self.uploads,
            self.streams,
            self.downloads,
            self.talks,
            self.fails,
            self.fails_late,
            self.is_too_slow,
            self.stalls_an_upload,
            self.sends_several_at_once,
            self.leaves_a_read,
            self.leaves_a_write,
            self.leaves_a_write,
            self.leaves_a_write_that_fails,
            self.leaves_a_payment_and_comes_back,
            self.leaves_an_upload,
            self.leaves_a_stream,
            self.leaves_a_download,
            self.leaves_a_talk,
            self.leaves_a_head,
        ]

    async def work_together(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with ClientSession(timeout=ClientTimeout(30)) as self.session:
            await asyncio.gather(*(self.work(until) for _ in range(WORKERS)))

    async def work(self, until: float) -> None:
        """One after the other, as chance has it."""
        while time.monotonic() < until:
            what = self.chance.choice(self.all)
            await what()
            self.done[getattr(what, "__name__", "")] += 1
            await asyncio.sleep(PAUSE * self.chance.random() * 2)

    def next_write(
        self, longest: float = 0.06, shortest: float = 0.0
    ) -> tuple[int, str]:
        self.number += 1
        seconds = self.chance.uniform(shortest, longest)
        return self.number, f"/write/{self.number}?seconds={seconds:.3f}"

    # Those that stay
    # ---------------

    async def gets(self, path: str, status: int, method: str = "GET") -> bytes:
        headers = {"Origin": ORIGIN, "X-Forwarded-Proto": "https"}
        async with self.session.request(
            method, self.url + path, headers=headers
        ) as response:
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
            return await response.read()

    async def reads(self) -> None:
        assert await self.gets("/plain", 200) == b"plain"

    async def asks_for_leave(self) -> None:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
        url = f"{self.url}/upload"
        async with self.session.options(url, headers=headers) as response:
            assert response.status == 200

    async def is_refused(self) -> None:
        await self.gets("/nowhere", 404)
        await self.gets("/plain", 405, "DELETE")

    async def writes(self) -> None:
        # Some take longer than the limit: answered with 504, and written.
        number, path = self.next_write(
            self.chance.choice((0.06, 3 * SHORT_LIMIT))
        )
        async with self.session.post(self.url + path, data=b"x") as response:
            assert response.status in (200, 504)
        self.answered.add(number)

    async def pays(self) -> None:
        """The button is pressed three times."""
        path, headers = self.next_payment()
        pressed = await asyncio.gather(
            *(self.pays_for(path, headers) for _ in range(3))
        )
        assert pressed.count(200) >= 1
        assert set(pressed) <= {200, 409}

    async def pays_for(self, path: str, headers: dict[str, str]) -> int:
        async with self.session.post(
            self.url + path, headers=headers
        ) as response:
            if response.status == 200:
                assert await response.text() == path.split("?")[0][5:]
            return response.status

    def next_payment(self) -> tuple[str, dict[str, str]]:
        self.number += 1
        seconds = self.chance.uniform(0, 0.06)
        path = f"/pay/{self.number}?seconds={seconds:.3f}"
        return path, {"Idempotency-Key": f"payment-{self.number}"}

    async def asks_for_what_is_limited(self) -> None:
        async with self.session.get(f"{self.url}/limited") as response:
            assert response.status in (200, 429)
            self.admitted += response.status == 200

    async def goes_through_the_narrow(self) -> None:
        async def goes() -> int:
            async with self.session.get(f"{self.url}/narrow") as response:
                return response.status

        went = await asyncio.gather(*(goes() for _ in range(NARROW + 2)))
        assert set(went) <= {200, 503}

    async def uploads(self) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield bytes(10_000)
                await asyncio.sleep(0)

        async with self.session.put(
            f"{self.url}/upload", data=pieces()
        ) as response:
            assert (response.status, await response.read()) == (200, b"100000")

    async def streams(self) -> None:
        assert len(await self.gets("/stream?pieces=20", 200)) == 20 * 4096

    async def downloads(self) -> None:
        assert b"async def file" in await self.gets("/file", 200)

    async def talks(self) -> None:
        async with self.session.ws_connect(f"{self.url}/talk") as talk:
            for word in ("one", "two"):
                await talk.send_str(word)
                assert await talk.receive_str() == word

    async def fails(self) -> None:
        await self.gets("/fails", 500)

    async def fails_late(self) -> None:
        with pytest.raises(ClientPayloadError):
            await self.gets("/stream?pieces=2&fails", 200)

    async def is_too_slow(self) -> None:
        body = await self.gets("/slow", 504)
        assert json.loads(body) == {"detail": "Request timed out"}

    # Those that speak for themselves, and leave
    # ------------------------------------------

    async def connection(
        self, sent: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def leave(self, writer: asyncio.StreamWriter) -> None:
        """Close the connection: some with good manners, some without."""
        if self.chance.random() < 0.5:
            linger = b"\1\0\0\0\0\0\0\0"  # on, and for no time: a reset
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            writer.transport.abort()
        else:
            writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def leaves(self, sent: bytes, longest: float = 0.03) -> None:
        _, writer = await self.connection(sent)
        await asyncio.sleep(self.chance.random() * longest)
        await self.leave(writer)

    async def stalls_an_upload(self) -> None:
        _, path = self.next_write()
        reader, writer = await self.connection(
            b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf"
            % path.encode()
        )
        assert b" 504 " in await reader.readline()
        await self.leave(writer)

    async def sends_several_at_once(self) -> None:
        sent = [b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n"] * 3
        reader, writer = await self.connection(b"".join(sent))
        if self.chance.random() < 0.5:
            for _ in sent:
                await reader.readuntil(b"plain")
        await self.leave(writer)

    async def leaves_a_read(self) -> None:
        path = self.chance.choice((b"/plain", b"/slow", b"/nowhere"))
        await self.leaves(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)

    async def leaves_a_write(self, query: str = "") -> None:
        _, path = self.next_write()
        await self.leaves(
            b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
            % (path + query).encode()
        )

    async def leaves_a_write_that_fails(self) -> None:
        await self.leaves_a_write("&fails")

    async def leaves_a_payment_and_comes_back(self) -> None:
        path, headers = self.next_payment()
        await self.leaves(
            b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
            b"Idempotency-Key: %b\r\n\r\n"
            % (path.encode(), headers["Idempotency-Key"].encode())
        )
        status = 409
        while status == 409:  # the first one is still at work
            await asyncio.sleep(0.01)
            status = await self.pays_for(path, headers)
        assert status == 200

    async def leaves_an_upload(self) -> None:
        start = b"PUT /upload HTTP/1.1\r\nHost: a\r\n"
        if self.chance.random() < 0.5:
            start += b"Content-Length: 1000000\r\n\r\n"
        else:
            start += b"Transfer-Encoding: chunked\r\n\r\nFFFFF\r\n"
        await self.leaves(start + bytes(self.chance.randrange(200_000)))

    async def leaves_a_stream(self) -> None:
        reader, writer = await self.connection(
            b"GET /stream?pieces=100000 HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        await reader.readexactly(self.chance.randrange(1, 100_000))
        await self.leave(writer)

    async def leaves_a_download(self) -> None:
        reader, writer = await self.connection(
            b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        await reader.readexactly(self.chance.randrange(1, 1000))
        await self.leave(writer)

    async def leaves_a_talk(self) -> None:
        reader, writer = await self.connection(
            b"GET /talk HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        await self.leave(writer)

    async def leaves_a_head(self) -> None:
        await self.leaves(b"GET /plain HTTP/1.1\r\nHo", 0.01)


async def test_nothing_is_left_and_nothing_is_lost(server: Server) -> None:
    idle = (await server.state())["left"]
    clients = Clients(server.port)
    samples = []
    for _ in range(ROUNDS):
        await clients.work_together(SECONDS / ROUNDS)
        samples.append(await quiet(server, {**idle, "timers": ANY}))
    # All is as it was before, once the timers of the limits have run out.
    await quiet(server, idle)

    writers = await begin_writes(server, clients)
    result = await server.stop()
    for writer in writers:
        await clients.leave(writer)
    report(clients, samples, result)

    assert result["errors"] == []
    counts = result["counts"]
    assert counts["logged"] == counts["raised"] > 0
    assert counts["streams cut"] == clients.done["leaves_a_stream"]

    assert result["incomplete"] == []
    assert clients.answered <= set(result["begun"])
    assert result["paid twice"] == []
    assert clients.admitted <= counts["admitted"] <= ADMITTED
    assert 0 < counts["most in the narrow"] <= NARROW
    assert result["measured"] == counts["requests"]
    assert result["in progress"] == 0
    assert counts["written after the client left"] > 0

    for what, most in MOST.items():
        assert growth(samples, what) < most, what


async def quiet(server: Server, idle: dict[str, Any]) -> dict[str, Any]:
    """The state of the server, once nothing is left but what was at first."""
    deadline = time.monotonic() + 3 * LIMIT
    while (state := await server.state())["left"] != idle:
        assert time.monotonic() < deadline, (state["left"], idle)
        await asyncio.sleep(0.1)
    return state


async def begin_writes(
    server: Server, clients: Clients
) -> list[asyncio.StreamWriter]:
    """Have writes under way that their requests know nothing of any more."""
    writers, staying = [], []
    for number in range(30):
        _, path = clients.next_write(2.0, 2.0)
        sent = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await clients.connection(sent.encode())
        if number % 2:
            staying.append(reader)
        writers.append(writer)
    for reader in staying:
        assert b" 504 " in await reader.readline()
    for writer in writers[::2]:
        await clients.leave(writer)
    assert (await server.state())["left"]["shielded"] == len(writers)
    return writers[1::2]


def growth(samples: list[dict[str, Any]], what: str) -> float:
    """From part to part of the second half of the time.

    The median, as the tables of Python itself grow once, by half a megabyte.
    """
    values: list[int] = [sample[what] for sample in samples[ROUNDS // 2 :]]
    steps = [later - sooner for sooner, later in pairwise(values)]
    return statistics.median(steps)


def report(
    clients: Clients, samples: list[dict[str, Any]], result: dict[str, Any]
) -> None:
    print(f"\n{clients.done.total()} conversations in {SECONDS:g} s:")
    for what, times in sorted(clients.done.items()):
        print(f"{times:8}  {what}")
    print(
        f"{len(result['begun'])} writes begun, {len(result['incomplete'])} of"
    )
    print("them incomplete. Counted by the server:")
    for what, times in sorted(result["counts"].items()):
        print(f"{times:8}  {what}")
    print("Left while nothing was under way, after each part of the time:")
    for what in MOST:
        print(f"{what:>8}  {[sample[what] for sample in samples]}")
