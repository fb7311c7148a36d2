"""The guard that no test leaves this machine: see loopback.py."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import loopback
import pytest

# Nobody has this address: RFC 5737.
AWAY = ("192.0.2.1", 9)


def connect() -> None:
    with socket.socket() as away:
        away.setblocking(False)
        away.connect(AWAY)


def connect_ex() -> None:
    with socket.socket(socket.AF_INET6) as away:
        away.setblocking(False)
        away.connect_ex(("2001:db8::1", 9))


def send_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as away:
        away.sendto(b"hello", AWAY)


def look_up() -> None:
    socket.getaddrinfo("away.invalid", 80)


def look_up_old() -> None:
    socket.gethostbyname("away.invalid")


@pytest.mark.parametrize(
    "leave", [connect, connect_ex, send_datagram, look_up, look_up_old]
)
def test_who_leaves_is_stopped_and_remembered(
    leave: Callable[[], None],
) -> None:
    with pytest.raises(loopback.LeftLoopback, match="not on this machine"):
        leave()
    assert len(loopback._refused) == 1
    loopback._refused.clear()


async def by_name() -> None:
    await asyncio.open_connection("away.invalid", 80)


async def by_address() -> None:
    await asyncio.open_connection(*AWAY)


async def by_datagram() -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=AWAY
    )


async def by_looking_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("away.invalid", 80)


async def by_socket() -> None:
    with socket.socket() as away:
        away.setblocking(False)
        await asyncio.get_running_loop().sock_connect(away, AWAY)


async def by_aiohttp_and_name() -> None:
    async with aiohttp.ClientSession() as session:
        await session.get("http://away.invalid/")


async def by_aiohttp_and_address() -> None:
    async with aiohttp.ClientSession() as session:
        await session.get("http://192.0.2.1/")


@pytest.mark.parametrize(
    "leave",
    [
        by_name,
        by_address,
        by_datagram,
        by_looking_up,
        by_socket,
        by_aiohttp_and_name,
        by_aiohttp_and_address,
    ],
)
async def test_no_event_loop_leaves_either(
    leave: Callable[[], Awaitable[None]],
) -> None:
    with contextlib.suppress(loopback.LeftLoopback):
        await leave()
    assert loopback._refused
    loopback._refused.clear()


def test_test_that_hides_it_fails_all_the_same() -> None:
    with (
        pytest.raises(AssertionError, match="stay on this machine"),
        loopback.held(),
        contextlib.suppress(BaseException),
    ):
        connect()


async def test_what_is_here_is_reached() -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1")
    async with server:
        port = server.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    for numeric in ("127.1", "0x7f.1", "fe80::1%1", "192.0.2.1"):
        with contextlib.suppress(socket.gaierror):
            socket.getaddrinfo(numeric, 80, flags=socket.AI_NUMERICHOST)
