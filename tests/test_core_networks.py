"""Who is at the other end of a socket."""

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ServerDisconnectedError, UnixConnector, web
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares._core.grammar.networks import PeerCollection
from aiohttp_middlewares._core.requests import Peers

WHAT = "some_middleware trusted"


@pytest.mark.parametrize(
    ("peers", "has", "has_not"),
    [
        (
            ["192.0.2.1"],
            ["192.0.2.1", "::ffff:192.0.2.1"],
            ["192.0.2.2", "::1"],
        ),
        (["192.0.2.0/30"], ["192.0.2.0", "192.0.2.3"], ["192.0.2.4"]),
        (["2001:db8::/32"], ["2001:db8::1"], ["2001:db9::1", "192.0.2.1"]),
        (["::1"], ["::1"], ["127.0.0.1", "::2"]),
        (["0.0.0.0/0"], ["192.0.2.1", "::ffff:192.0.2.1"], ["2001:db8::1"]),
        (["::/0"], ["2001:db8::1"], ["192.0.2.1"]),
        ([ipaddress.ip_address("192.0.2.1")], ["192.0.2.1"], ["192.0.2.2"]),
        ([ipaddress.ip_network("192.0.2.0/31")], ["192.0.2.1"], ["192.0.2.2"]),
        (["192.0.2.1", "::1"], ["192.0.2.1", "::1"], ["192.0.2.2"]),
        (["unix"], [], ["192.0.2.1", "::1"]),
        ([], [], ["192.0.2.1", "::1"]),
        # As a network, an address of both families is one of the newer.
        (
            ["::ffff:192.0.2.1"],
            ["192.0.2.1", "::ffff:192.0.2.1"],
            ["192.0.2.2"],
        ),
        (
            ["::ffff:192.0.2.0/127"],
            ["192.0.2.1", "::ffff:192.0.2.0"],
            ["192.0.2.2"],
        ),
        (["fe80::1"], ["fe80::1%eth0", "fe80::1"], ["fe80::2%eth0"]),
        (["fe80::/10"], ["fe80::1%eth0"], ["fec0::1%eth0"]),
    ],
)
def test_peers_are_the_addresses_in_any_spelling(
    peers: PeerCollection, has: list[str], has_not: list[str]
) -> None:
    trusted = Peers(WHAT, peers)
    assert [
        a for a in has if not trusted.networks.has(ipaddress.ip_address(a))
    ] == []
    assert [
        a for a in has_not if trusted.networks.has(ipaddress.ip_address(a))
    ] == []


def asks(peers: PeerCollection) -> web.Application:
    trusted = Peers(WHAT, peers)

    async def handler(request: web.Request) -> web.Response:
        # What an earlier middleware made of ``request.remote`` is nothing.
        clone = request.clone(remote="203.0.113.9")
        return web.json_response([request in trusted, clone in trusted])

    app = web.Application()
    app.router.add_get("/", handler)
    return app


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        (["127.0.0.0/8"], [True, True]),
        (["203.0.113.9"], [False, False]),
        (["unix"], [False, False]),
        ([], [False, False]),
    ],
)
async def test_trust_is_judged_by_the_socket(
    aiohttp_client: AiohttpClient, peers: PeerCollection, expected: list[bool]
) -> None:
    client = await aiohttp_client(asks(peers))
    for _ in range(2):
        response = await client.get("/")
        assert await response.json() == expected


async def test_request_without_a_connection_is_of_no_peer(
    aiohttp_client: AiohttpClient,
) -> None:
    seen: asyncio.Future[tuple[object, bool]] = (
        asyncio.get_running_loop().create_future()
    )
    trusted = Peers(WHAT, ["0.0.0.0/0", "::/0", "unix"])

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        try:
            await asyncio.Event().wait()  # cancelled, as the client left
        finally:
            seen.set_result((request.transport, request in trusted))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    with pytest.raises(ServerDisconnectedError):
        await client.get("/")
    assert await seen == (None, False)


async def test_peer_on_a_unix_socket_is_unix(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    for peers, expected in ((["unix"], True), (["0.0.0.0/0", "::/0"], False)):
        runner = web.AppRunner(asks(peers))
        await runner.setup()
        try:
            await web.UnixSite(runner, path).start()
            async with (
                ClientSession(connector=UnixConnector(path)) as session,
                session.get("http://a.example/") as response,
            ):
                assert await response.json() == [expected, expected]
        finally:
            await runner.cleanup()


async def test_peer_that_a_socket_for_both_families_names_is_known() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no socket for both families here")
    listening = socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
    )
    runner = web.AppRunner(asks(["127.0.0.1"]))
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        port = listening.getsockname()[1]
        async with (
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            assert await response.json() == [True, True]
    finally:
        await runner.cleanup()


ADVICE = (
    "names are not resolved, and there is no '*': write the addresses or the "
    "network that they connect from, such as '172.16.0.0/12'"
)
SHOULD = f"{WHAT} should be a collection of IP addresses, networks or 'unix'"


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ("127.0.0.1", "got '127.0.0.1'; did you mean ['127.0.0.1']?"),
        (["10.0.0.1/8"], "got '10.0.0.1/8'; did you mean '10.0.0.0/8'?"),
        (["localhost"], f"got 'localhost'; {ADVICE}"),
        (["nginx"], f"got 'nginx'; {ADVICE}"),
        (["127.0.0.1:80"], "got '127.0.0.1:80'; did you mean '127.0.0.1'?"),
        (["[::1]"], "got '[::1]'; did you mean '::1'?"),
        (
            ["http://127.0.0.1:80/"],
            "got 'http://127.0.0.1:80/'; did you mean '127.0.0.1'?",
        ),
        ([""], f"got ''; {ADVICE}"),
        (["*"], f"got '*'; {ADVICE}"),
        (
            ipaddress.ip_network("10.0.0.0/8"),
            "got IPv4Network('10.0.0.0/8'); "
            "did you mean [IPv4Network('10.0.0.0/8')]?",
        ),
        ([2130706433], "got 2130706433"),
        ([None], "got None"),
        (True, "got True"),
        (1, "got 1"),
    ],
)
def test_what_is_no_peer_is_refused(peers: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        Peers(WHAT, peers)
    assert str(refused.value) == f"{SHOULD}, {message}"
