"""SSRF protection: what is dialled, whatever is asked for."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any, NamedTuple

import aiohappyeyeballs
import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_middlewares.client import (
    SSRFConnector,
    SSRFError,
    SSRFPolicy,
    retry_middleware,
    ssrf_middleware,
    ssrf_session,
)
from aiohttp_middlewares.client.ssrf._addresses import canonical
from aiohttp_middlewares.client.ssrf._policy import broken_rule, permits

#: The only addresses that may ever be dialled here. It is a list, and not a
#: rule, so that it cannot share a mistake with the code.
PUBLIC = frozenset(
    {
        "93.184.216.34",
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "::ffff:808:808",
        "64:ff9b::808:808",
        "64:ff9b::8.8.8.8",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80b::200e",
    }
)

#: The answers of the name server.
NAMES: dict[str, list[str]] = {
    "public.example": ["93.184.216.34"],
    "public6.example": ["2606:4700:4700::1111"],
    "both.example": ["2606:4700:4700::1111", "93.184.216.34"],
    "xn--bcher-kva.example": ["93.184.216.34"],
    "localhost": ["127.0.0.1", "::1"],
    "loopback.example": ["127.0.0.1"],
    "loopback2.example": ["127.8.8.8"],
    "zero.example": ["0.0.0.0"],
    "ten.example": ["10.1.2.3"],
    "private16.example": ["172.20.0.5"],
    "private.example": ["192.168.1.1"],
    "cgnat.example": ["100.64.0.1"],
    "metadata.example": ["169.254.169.254"],
    "azure.example": ["168.63.129.16"],
    "alibaba.example": ["100.100.100.200"],
    "oracle.example": ["192.0.0.192"],
    "multicast.example": ["224.0.0.251"],
    "reserved.example": ["240.0.0.1"],
    "broadcast.example": ["255.255.255.255"],
    "loopback6.example": ["::1"],
    "unspecified6.example": ["::"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "teredo.example": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ula.example": ["fd00:ec2::254"],
    "link6.example": ["fe80::1"],
    "zone.example": ["fe80::1%1"],
    "mixed.example": ["127.0.0.1", "93.184.216.34", "::1"],
    "bad.example": ["10.0.0.1", "fd00::1", "127.0.0.1"],
    "proxy.internal": ["10.9.9.9"],
    "printer": ["192.168.0.9"],
    "metadata.google.internal": ["169.254.169.254"],
}


class Wire:
    """The network of aiohttp's connectors: it remembers who is dialled.

    Nothing leaves, on any event loop: it stands where a name is looked up and
    where a connection is made.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dialled: list[str] = []
        self.names = {name: [found] for name, found in NAMES.items()}
        self.routes: dict[str, int] = {}  # public address → local port

        async def resolve(
            resolver: object, host: str, port: int = 0, family: Any = 0
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host, host=address, port=port, family=family,
                    proto=0, flags=socket.AI_NUMERICHOST,
                )
                for address in self.look_up(host)
            ]  # fmt: skip

        async def start_connection(
            addr_infos: list[aiohttp.AddrInfoType],
            *,
            socket_factory: aiohttp.SocketFactoryType | None = None,
            **options: Any,
        ) -> socket.socket:
            for info in addr_infos:
                try:
                    if socket_factory is not None:  # it may refuse
                        socket_factory(info).close()
                    return await self.dial(str(info[4][0]))
                except OSError as exc:
                    error = exc
            raise error

        async def dial_path(connector: Any, *args: object) -> None:
            self.dialled.append(connector.path)
            raise ConnectionRefusedError(111, "Nothing leaves")

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
        monkeypatch.setattr(
            aiohappyeyeballs, "start_connection", start_connection
        )
        monkeypatch.setattr(
            aiohttp.UnixConnector, "_create_connection", dial_path
        )

    def look_up(self, host: str) -> list[str]:
        try:
            # What the C library takes for an address, which is a lot.
            return [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            answers = self.names.get(host.rstrip(".").lower())
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Unknown")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def dial(self, address: str) -> socket.socket:
        self.dialled.append(address)
        if address not in self.routes:
            raise ConnectionRefusedError(111, "Nothing leaves")
        local = socket.socket()
        local.setblocking(False)
        here = ("127.0.0.1", self.routes[address])
        await asyncio.get_running_loop().sock_connect(local, here)
        return local

    @property
    def forbidden(self) -> set[str]:
        return set(self.dialled) - PUBLIC


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    wire = Wire(monkeypatch)
    yield wire
    assert wire.forbidden == set()


@pytest.fixture
async def site(wire: Wire) -> Any:
    """A server that answers for the public addresses.

    ``/to?LOCATION`` redirects.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/to":
            location = request.query_string
            return web.Response(status=302, headers={"Location": location})
        if request.headers.get("Upgrade"):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            await ws.close()
            return ws
        return web.Response(text=request.method)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    async with TestServer(app) as server:
        assert server.port is not None
        wire.routes["93.184.216.34"] = server.port
        yield server


Send = Callable[[aiohttp.ClientSession], Awaitable[object]]


class Attack(NamedTuple):
    kind: str
    text: str
    send: Send


def get(url: str | URL, **kwargs: Any) -> Send:
    async def send(session: aiohttp.ClientSession) -> None:
        async with session.get(url, **kwargs) as response:
            await response.read()

    return send


def websocket(url: str) -> Send:
    async def send(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(url):
            pass

    return send


def words(text: str) -> list[str]:
    return text.split()


SPELLED_IPV4 = words("""
127.0.0.1 127.0.0.2 127.1 127.0.1 127.255.255.255 0 0.0.0.0 0.0.0.1 2130706433
017700000001 0177.0.0.1 0177.1 0x7f000001 0x7F.0.0.1 0x7f.1 0x7f.0x0.0x0.0x1
127.0.0.01 127.0.0.1. 127.0.0.1.. 00000127.0.0.1 127.0x1 10.0.0.1 10.1 0xa.1
012.0.0.1 167772161 172.16.0.1 172.31.255.255 192.168.0.1 192.168.257 3232235521
0xc0a80001 100.64.0.1 100.127.255.254 100.100.100.200 169.254.169.254 169.254.1
2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.170.2 168.63.129.16 192.0.0.1
192.0.0.192 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 4294967295
127.0.0.1.localhost 127\u30020\u30020\u30021 \uff11\uff12\uff17.0.0.1
\u246f\u2468.254.169.254 \u2460\u2461\u2466.\u24ea.\u24ea.\u2460
""")

SPELLED_IPV6 = words("""
:: ::1 0:0:0:0:0:0:0:1 0000::0001 ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1
::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0
::ffff:0:127.0.0.1 0:0:0:0:0:ffff:127.0.0.1 64:ff9b::127.0.0.1
64:ff9b::10.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::10.0.0.1 2002:7f00:1::
2002:a00:1:: 2002:808:808::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::1
2001:2::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1 5f00::1 100::1 fc00::1
fd00:ec2::254 fd12:3456:789a::1 fe80::1 fe80::1%25lo fe80::1%251 ::1%25lo
2606:4700:4700::1111%25lo fec0::1 ff02::1 ff0e::1 ffff::1 1::1 4000::1
""")

NAMES_INSIDE = words("""
localhost LOCALHOST localhost. foo.localhost loopback.example
loopback2.example zero.example ten.example private16.example private.example
cgnat.example metadata.example azure.example alibaba.example oracle.example
multicast.example reserved.example broadcast.example loopback6.example
unspecified6.example mapped.example nat64.example sixtofour.example
teredo.example ula.example link6.example zone.example bad.example printer
metadata.google.internal
\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3
\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54 LOOPBACK.example.
""")

PARSERS = [
    "http://public.example@127.0.0.1/",
    "http://public.example:80@127.0.0.1/",
    "http://public.example%40@127.0.0.1/",
    "http://a:b@public.example@127.0.0.1/",
    "http://127.0.0.1\\@public.example.internal/",
    "http://127.0.0.1#@public.example/",
    "http://127.0.0.1?@public.example/",
    "http://127.0.0.1/@public.example/",
    "http://127.0.0.1;public.example/",
    "http://127.0.0.1%2f@10.0.0.1/",
    "http://127.0.0.1%23.public.example/",
    "http://%31%32%37.0.0.1/",
    "http:127.0.0.1/",
    "http:/127.0.0.1/",
    "http:///127.0.0.1/",
    "http:\\\\127.0.0.1/",
    " http://127.0.0.1/",
    "http://127.0.0.1 /",
    "http://\t127.0.0.1/",
    "http://127.0.0.1\n.public.example/",
    "HTTP://127.0.0.1/",
    "http://127.0.0.1:080/",
    "http://[127.0.0.1]/",
    "http://[::1].public.example/",
    "http://ten.exa\u00admple/",
    "http://ten\u3002example/",
]

SCHEMES = [
    "tcp://127.0.0.1:80/",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/info",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://127.0.0.1/",
    "//127.0.0.1/",
    "127.0.0.1/",
]

REDIRECTS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:8080/",
    "//127.0.0.1/",
    "https://10.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://localhost/",
    "http://metadata.example/latest/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://public.example@127.0.0.1/",
    "http://93.184.216.34/to?http://127.0.0.1/",
    "unix:///run/docker.sock",
    "ws://127.0.0.1/",
]

PROXIES = [
    "http://127.0.0.1:3128",
    "http://10.0.0.1",
    "http://[::1]:3128",
    "http://proxy.internal:3128",
    "http://localhost:3128",
    "http://public.example@127.0.0.1:3128",
    "http://127.1",
    "https://127.0.0.1",
]

BESIDES = [
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://localhost/",
    "http://metadata.example/",
    "http://2130706433/",
]

ATTACKS = [
    *(
        Attack("IPv4", host, get(URL(f"http://{host}/")))
        for host in SPELLED_IPV4
    ),
    Attack("IPv4", "127.0.0.1%00", get("http://127.0.0.1%00/")),
    *(
        # As it stands, without the spelling that yarl makes of it.
        Attack("IPv4", f"{host}!", get(URL(f"http://{host}/", encoded=True)))
        for host in SPELLED_IPV4
        if host.isascii()
    ),
    *(
        Attack("IPv6", host, get(f"http://[{host}]/")) for host in SPELLED_IPV6
    ),
    *(Attack("DNS", host, get(f"http://{host}/")) for host in NAMES_INSIDE),
    *(Attack("DNS", f"{host} https", get(f"https://{host}/"))
      for host in ("ten.example", "loopback6.example", "bad.example")),
    *(Attack("parser", repr(url), get(url)) for url in PARSERS),
    *(Attack("scheme", url, get(url)) for url in SCHEMES),
    *(
        Attack("redirect", url, get(f"http://public.example/to?{url}"))
        for url in REDIRECTS
    ),
    *(
        Attack("proxy", url, get("http://public.example/", proxy=url))
        for url in PROXIES
    ),
    Attack(
        "proxy",
        "tunnel",
        get("https://public.example/", proxy="http://127.0.0.1:3128"),
    ),
    *(Attack("WebSocket", url, websocket(url))
      for url in ("ws://127.0.0.1/", "ws://[::1]/", "wss://localhost/",
                  "ws://metadata.example/", "http://10.0.0.1/",
                  "ws://public.example/to?http://127.0.0.1/")),
    *(
        Attack("no middlewares", url, get(url, middlewares=()))
        for url in BESIDES
    ),
]  # fmt: skip


def test_there_are_enough_attacks_of_each_kind() -> None:
    assert len(ATTACKS) >= 150
    assert {attack.kind for attack in ATTACKS} == {
        "IPv4", "IPv6", "DNS", "parser", "scheme", "redirect", "proxy",
        "WebSocket", "no middlewares",
    }  # fmt: skip


@pytest.mark.parametrize(
    "attack", [pytest.param(item, id=" ".join(item[:2])) for item in ATTACKS]
)
async def test_attack_reaches_nothing_inside(
    attack: Attack, wire: Wire, site: TestServer
) -> None:
    # Any port: it is the address that has to stop them.
    async with ssrf_session(SSRFPolicy(ports=None)) as session:
        with pytest.raises((aiohttp.ClientError, ValueError)) as caught:
            await attack.send(session)
    assert wire.forbidden == set()
    error = caught.value
    assert not isinstance(error, aiohttp.ClientConnectionError) or isinstance(
        error, aiohttp.ClientConnectorDNSError
    ), "it was dialled"


async def test_the_same_attacks_reach_inside_without_protection(
    wire: Wire, site: TestServer
) -> None:
    reached = []
    for attack in ATTACKS:
        wire.dialled.clear()
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(Exception):
                await attack.send(session)
        if wire.forbidden:
            reached.append(attack)
    wire.dialled.clear()
    # Some are spellings that yarl or aiohttp refuse by themselves.
    assert len(reached) > len(ATTACKS) * 2 / 3


# Rebinding, environment, and other ways around
# =============================================


@pytest.mark.parametrize("inside", ["10.0.0.1", "169.254.169.254", "::1"])
@pytest.mark.parametrize("cache", [True, False])
async def test_name_that_changes_its_mind_gains_nothing(
    wire: Wire, site: TestServer, inside: str, cache: bool
) -> None:
    wire.names["rebind.example"] = [["93.184.216.34"], [inside]]
    connector = SSRFConnector(
        SSRFPolicy(), use_dns_cache=cache, force_close=True
    )
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get("http://rebind.example/") as response:
            assert response.status == 200
        connector.clear_dns_cache()
        with pytest.raises(SSRFError) as caught:
            await session.get("http://rebind.example/")
    assert caught.value.reason == "address"
    assert caught.value.ip == inside


async def test_only_the_permitted_of_several_addresses_are_dialled(
    wire: Wire, site: TestServer
) -> None:
    async with (
        ssrf_session(SSRFPolicy()) as session,
        session.get("http://mixed.example/") as response,
    ):
        assert response.status == 200
    assert wire.dialled == ["93.184.216.34"]


@pytest.mark.parametrize("url", ["http://public.example/", "https://1.1.1.1/"])
async def test_proxy_of_the_environment_is_refused(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    async with ssrf_session(SSRFPolicy(), trust_env=True) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get(url)
    assert caught.value.reason == "proxy"
    assert wire.dialled == []


async def test_proxy_of_the_session_is_refused(wire: Wire) -> None:
    async with ssrf_session(
        SSRFPolicy(), proxy="http://127.0.0.1:3128"
    ) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get("http://public.example/")
    assert caught.value.reason == "proxy"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1", "10.1",
     "foo.localhost", "[::ffff:10.0.0.1]", "127.0.0.1%23.example", "a b"],
)  # fmt: skip
async def test_permitted_proxy_is_not_asked_for_what_is_inside(
    wire: Wire, host: str
) -> None:
    policy = SSRFPolicy(allow_proxies=["http://proxy.internal:3128"])
    wire.routes["10.9.9.9"] = 9  # nobody listens there
    async with ssrf_session(policy) as session:
        url, proxy = f"http://{host}/", "http://proxy.internal:3128"
        with pytest.raises((SSRFError, aiohttp.InvalidURL)):
            await session.get(url, proxy=proxy)
    assert wire.dialled == []


async def test_permitted_proxy_is_used_and_the_way_around_it_closed(
    wire: Wire, site: TestServer
) -> None:
    proxy = "http://proxy.internal:3128"
    policy = SSRFPolicy(ports=None, allow_proxies=[proxy])
    assert site.port is not None
    wire.routes["10.9.9.9"] = site.port
    async with ssrf_session(policy) as session:
        async with session.get("http://example.com/", proxy=proxy) as response:
            assert response.status == 200
        assert wire.dialled == ["10.9.9.9"]
        # Its addresses are in the cache of names now, unfiltered.
        with pytest.raises(SSRFError) as caught:
            await session.get(f"{proxy}/")
    assert caught.value.reason == "address"
    assert wire.dialled == ["10.9.9.9"]
    wire.dialled.clear()


async def test_request_to_a_proxy_within_another_exempts_only_itself(
    wire: Wire, site: TestServer
) -> None:
    proxy = "http://proxy.internal:3128"
    policy = SSRFPolicy(ports=None, allow_proxies=[proxy])
    assert site.port is not None
    wire.routes["10.9.9.9"] = site.port

    async def ask_proxy(*args: Any) -> None:
        async with other.get("http://example.com/", proxy=proxy):
            pass

    trace = aiohttp.TraceConfig()
    trace.on_dns_resolvehost_end.append(ask_proxy)
    trace.on_connection_create_start.append(ask_proxy)
    async with (
        ssrf_session(policy) as other,
        ssrf_session(policy, trace_configs=[trace]) as session,
    ):
        with pytest.raises(SSRFError):
            await session.get(f"{proxy}/")
    assert set(wire.dialled) == {"10.9.9.9"}
    assert len(wire.dialled) == 1  # the second one reused its connection
    wire.dialled.clear()


async def test_permitted_proxy_tunnels_only_to_permitted_ports(
    wire: Wire,
) -> None:
    proxy = "http://proxy.internal:3128"
    policy = SSRFPolicy(allow_proxies=[proxy])
    async with ssrf_session(policy) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get("https://example.com:22/", proxy=proxy)
    assert caught.value.reason == "port"


async def test_connection_of_the_pool_is_checked_like_a_new_one(
    wire: Wire, site: TestServer
) -> None:
    async with ssrf_session(
        SSRFPolicy(deny_hosts=["93.184.216.34"])
    ) as session:
        for _ in range(2):
            async with session.get("http://public.example/") as response:
                await response.read()
        assert len(wire.dialled) == 1
        with pytest.raises(SSRFError):
            await session.get("http://93.184.216.34/")


async def test_answers_of_a_resolver_of_the_user_are_checked(
    wire: Wire,
) -> None:
    class Resolver(AbstractResolver):
        closed = False

        async def resolve(
            self, host: str, port: int = 0, family: Any = socket.AF_INET
        ) -> list[ResolveResult]:
            found = ResolveResult(
                hostname=host, host=host.partition(".")[2], port=port,
                family=family, proto=0, flags=0,
            )  # fmt: skip
            return [found]

        async def close(self) -> None:
            self.closed = True

    resolver = Resolver()
    connector = SSRFConnector(SSRFPolicy(), resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session:
        for host in ("x.127.0.0.1.", "x.not-an-address", "x.10.0.0.1."):
            with pytest.raises(SSRFError):
                await session.get(f"http://{host}/")
    assert not resolver.closed
    assert wire.dialled == []


async def test_resolver_that_answers_what_it_is_not_asked_dials_nothing(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last net: whatever the address came through."""
    connector = SSRFConnector(SSRFPolicy())

    async def resolve(*args: object, **kwargs: object) -> list[Any]:
        return [
            {"hostname": "x", "host": host, "port": 80, "family": 0,
             "proto": 0, "flags": 0}
            for host in ("127.0.0.1", "10.0.0.1", "::1")
        ]  # fmt: skip

    monkeypatch.setattr(connector, "_resolve_host", resolve)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get("http://public.example/")
    assert caught.value.reason == "address"
    assert wire.dialled == []


async def test_refusal_is_not_repeated_by_retry(wire: Wire) -> None:
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    retry = retry_middleware(5, sleep=sleep)
    async with ssrf_session(SSRFPolicy(), middlewares=[retry]) as session:
        for host in ("127.0.0.1", "ten.example"):
            with pytest.raises(SSRFError):
                await session.get(f"http://{host}/")
    assert naps == []


# What may be reached
# ===================


@pytest.mark.parametrize(
    "url",
    [
        "http://public.example/",
        "http://PUBLIC.example./",
        "http://93.184.216.34/",
        "http://bücher.example/",
        "http://user:password@public.example/",
        "http://public.example:443/",
        "http://public.example/?next=http://127.0.0.1/",
        "http://public.example/to?/other",
        "http://public.example/to?http://93.184.216.34/",
    ],
)
async def test_public_site_is_reached(
    wire: Wire, site: TestServer, url: str
) -> None:
    async with (
        ssrf_session(SSRFPolicy()) as session,
        session.get(url) as response,
    ):
        assert response.status == 200
    assert set(wire.dialled) == {"93.184.216.34"}


async def test_public_websocket_is_reached(
    wire: Wire, site: TestServer
) -> None:
    async with ssrf_session(SSRFPolicy()) as session:
        await websocket("ws://public.example/")(session)
    assert wire.dialled == ["93.184.216.34"]


@pytest.mark.parametrize(
    "host",
    [
        *sorted(PUBLIC - {"::ffff:8.8.8.8", "64:ff9b::8.8.8.8"}),
        "public6.example",
        "both.example",
    ],
)
async def test_public_address_is_dialled(wire: Wire, host: str) -> None:
    bracketed = f"[{host}]" if ":" in host else host
    async with ssrf_session(SSRFPolicy()) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{bracketed}/")
    assert len(wire.dialled) == (2 if host == "both.example" else 1)


async def test_allowed_network_is_reached_and_its_neighbour_is_not(
    aiohttp_server: Any,
) -> None:
    server = await aiohttp_server(web.Application())
    policy = SSRFPolicy(ports=None, allow_networks=["127.0.0.1/32"])
    async with ssrf_session(policy) as session:
        for host in ("127.0.0.1", "localhost"):
            url = f"http://{host}:{server.port}/"
            async with session.get(url) as response:
                assert response.status == 404
        with pytest.raises(SSRFError):
            await session.get(f"http://127.0.0.2:{server.port}/")


def test_denied_network_wins_over_all() -> None:
    policy = SSRFPolicy(
        allow_networks=["10.0.0.0/8", IPv4Network("8.8.8.0/24")],
        deny_networks=["10.1.0.0/16", "8.8.8.8", "2606:4700::/32"],
    )
    assert permits(policy, "10.2.0.1")
    assert permits(policy, "::ffff:10.2.0.1")
    assert permits(policy, "8.8.4.4")
    for address in (
        "10.1.0.1", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808",
        "2606:4700::1111",
    ):  # fmt: skip
        assert not permits(policy, address)


@pytest.mark.parametrize(
    ("policy", "url", "reason"),
    [
        (
            SSRFPolicy(deny_hosts=["public.example"]),
            URL("http://PUBLIC.EXAMPLE/", encoded=True),
            "host",
        ),
        (SSRFPolicy(), "http://public.example:8080/", "port"),
        (SSRFPolicy(ports=[8080]), "http://public.example/", "port"),
        (SSRFPolicy(schemes=["https"]), "http://public.example/", "scheme"),
        (SSRFPolicy(deny_hosts=["public.example"]),
         "http://PUBLIC.example./", "host"),
        (SSRFPolicy(deny_hosts=["BÜCHER.example."]),
         "http://xn--bcher-kva.example/", "host"),
        (SSRFPolicy(allow_hosts=["api.example"]),
         "http://public.example/", "host"),
        (SSRFPolicy(allow_hosts=["api.example"]),
         "http://public.example/?@api.example", "host"),
        (SSRFPolicy(allow_hosts=["ten.example"]),
         "http://ten.example/", "address"),
    ],
)  # fmt: skip
async def test_rule_of_the_policy_is_kept(
    wire: Wire, policy: SSRFPolicy, url: str | URL, reason: str
) -> None:
    async with ssrf_session(policy) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get(url)
    assert caught.value.reason == reason
    assert wire.dialled == []


@pytest.mark.parametrize("rule", ["1.1.1.1", "0x1.65793", "::ffff:1.1.1.1"])
@pytest.mark.parametrize(
    "host",
    [
        "1.1.1.1",
        "1.1.1.1.",
        "1.65793",
        "1.1.257",
        "16843009",
        "0100200401",
        "01.0x1.0x1.01",
        "0X01010101",
        "[::ffff:1.1.1.1]",
        "[::FFFF:101:101]",
        "[64:ff9b::1.1.1.1]",
        "[2600::5efe:1.1.1.1]",
    ],
)
async def test_denied_ipv4_host_is_known_in_every_spelling(
    wire: Wire, rule: str, host: str
) -> None:
    async with ssrf_session(SSRFPolicy(deny_hosts=[rule])) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get(URL(f"http://{host}/", encoded=True))
        assert caught.value.reason == "host"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://93.184.216.34/")
    assert wire.dialled == ["93.184.216.34"]


@pytest.mark.parametrize(
    "host",
    ["1.2.3.4.5", "1.2.3.4.0", "256.1.1.1", "1.2.3.256", "4294967296", "0x",
     "0x.0x", "08.1.1.1", f"{'0' * 70}1.1.1.1", "1..1"],
)  # fmt: skip
def test_what_spells_out_no_address_is_left_as_it_is(host: str) -> None:
    found = canonical(host)
    assert found == host or found == "0.0.0.0"
    assert not permits(SSRFPolicy(), host)


@given(st.ip_addresses(v=4), st.sampled_from("doh"), st.integers(1, 4))
def test_ipv4_is_read_as_it_was_written(
    address: IPv4Address, base: str, parts: int
) -> None:
    packed = address.packed
    last = int.from_bytes(packed[parts - 1 :], "big")
    write = {"d": "{}", "o": "0{:o}", "h": "0x{:x}"}[base].format
    text = ".".join(map(write, [*packed[: parts - 1], last]))
    assert canonical(text) == str(address)


WILD = "*.public.example"


@pytest.mark.parametrize(
    ("policy", "host", "is_refused"),
    [
        (SSRFPolicy(deny_hosts=[WILD]), "a.public.example", True),
        (SSRFPolicy(deny_hosts=[WILD]), "a.b.PUBLIC.example.", True),
        (SSRFPolicy(deny_hosts=[WILD]), "public.example", False),
        (SSRFPolicy(deny_hosts=[WILD]), "notpublic.example", False),
        (SSRFPolicy(deny_hosts=["public.example"]), "a.public.example", False),
        (SSRFPolicy(deny_hosts=["*.BÜCHER.example."]),
         "a.xn--bcher-kva.example", True),
        (SSRFPolicy(allow_hosts=[WILD]), "a.public.example", False),
        (SSRFPolicy(allow_hosts=[WILD]), "public.example", True),
        (SSRFPolicy(allow_hosts=[WILD, "1.1.1.1"]), "1.1.1.1", False),
        (SSRFPolicy(allow_hosts=[WILD, "1.1.1.1"]), "[::ffff:1.1.1.1]", False),
        (SSRFPolicy(allow_hosts=[WILD, "1.1.1.1"]), "1.1.1.2", True),
        (SSRFPolicy(), ".".join(["a"] * 127), False),
        (SSRFPolicy(), ".".join(["a"] * 128), True),
    ],
)  # fmt: skip
def test_hosts_are_listed_by_name_or_all_below_one(
    policy: SSRFPolicy, host: str, is_refused: bool
) -> None:
    broken = broken_rule(policy, URL(f"http://{host}/"), None)
    assert broken == (("host", None) if is_refused else None)


@pytest.mark.parametrize(
    ("address", "is_permitted"),
    [
        ("2600:1f00::5efe:a9fe:a9fe", False),
        ("2600:1f00::200:5efe:7f00:1", False),
        ("2600:1f00::5efe:1.1.1.1", True),
        ("2600:1f00::100:5efe:7f00:1", True),  # not ISATAP
        ("2600:1f00::5efe:10.1.1.1", True),  # by allow_networks
        ("2600:1f00::5efe:9.9.9.9", False),  # by deny_networks
        ("fe80::5efe:1.1.1.1", False),
        ("fd00::5efe:1.1.1.1", False),
        ("2002::5efe:1.1.1.1", False),
    ],
)
def test_isatap_address_is_judged_by_its_ipv4(
    address: str, is_permitted: bool
) -> None:
    policy = SSRFPolicy(
        allow_networks=["10.0.0.0/8"], deny_networks=["9.0.0.0/8"]
    )
    assert permits(policy, address) is is_permitted


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://a.example/", "notaurl", "http://"]
)
async def test_what_is_no_url_is_refused_by_aiohttp_before_anything_is_asked(
    wire: Wire, url: str
) -> None:
    async with ssrf_session(SSRFPolicy()) as session:
        with pytest.raises((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
            await session.get(url)
    assert issubclass(aiohttp.NonHttpUrlClientError, aiohttp.ClientError)
    assert issubclass(aiohttp.InvalidURL, aiohttp.ClientError)
    assert wire.dialled == []


async def test_allowed_host_is_reached(wire: Wire, site: TestServer) -> None:
    policy = SSRFPolicy(allow_hosts=["Public.Example."])
    async with (
        ssrf_session(policy) as session,
        session.get("http://public.example/") as response,
    ):
        assert response.status == 200


# The middleware
# ==============


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_session_without_guard_is_refused(wire: Wire, kind: str) -> None:
    connector = (
        aiohttp.TCPConnector()
        if kind == "tcp"
        else aiohttp.UnixConnector("docker.sock")
    )
    guard = ssrf_middleware(SSRFPolicy())
    async with aiohttp.ClientSession(
        connector=connector, middlewares=[guard]
    ) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get("http://public.example/")
        with pytest.raises(SSRFError):
            await session.ws_connect("ws://public.example/")
    assert caught.value.reason == "connector"
    assert wire.dialled == []


async def test_middleware_refuses_before_a_connection_is_free(
    wire: Wire, site: TestServer
) -> None:
    policy = SSRFPolicy()
    connector = SSRFConnector(policy, limit=1)
    async with aiohttp.ClientSession(
        connector=connector, middlewares=[ssrf_middleware(policy)]
    ) as session:
        busy = await session.ws_connect("ws://public.example/")
        with pytest.raises(SSRFError):
            await session.get("http://127.0.0.1/")
        await busy.close()


async def test_middleware_sees_the_url_that_the_others_made(
    wire: Wire,
) -> None:
    async def turn(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        req.url = URL("http://127.0.0.1/")
        return await handler(req)

    policy = SSRFPolicy()
    for inner in ([ssrf_middleware(policy)], []):
        async with ssrf_session(policy, middlewares=[turn, *inner]) as session:
            with pytest.raises(SSRFError):
                await session.get("http://public.example/")


# What the error says
# ===================


async def test_error_holds_the_facts_and_no_secrets(wire: Wire) -> None:
    async with ssrf_session(SSRFPolicy()) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get("http://me:hush@ten.example/x?token=hush#hush")
    error = caught.value
    assert isinstance(error, aiohttp.ClientError)
    assert not isinstance(error, aiohttp.ClientConnectionError)
    assert error.reason == "address"
    assert error.url == URL("http://ten.example/x")
    assert error.host == "ten.example"
    assert error.ip == "10.1.2.3"
    assert str(error) == (
        "Refused to connect to ten.example (10.1.2.3):"
        " the address is not permitted"
    )
    assert "hush" not in f"{error} {error!r} {error.args} {error.__cause__}"


async def test_waiters_for_the_same_name_are_all_refused(wire: Wire) -> None:
    async with ssrf_session(SSRFPolicy()) as session:
        found = await asyncio.gather(
            *(session.get(f"http://ten.example/{n}") for n in range(10)),
            return_exceptions=True,
        )
    paths = [item.url for item in found if isinstance(item, SSRFError)]
    assert paths == [URL(f"http://ten.example/{n}") for n in range(10)]


# The rules by themselves
# =======================


@given(st.ip_addresses(v=6))
@example(IPv6Address("::ffff:127.0.0.1"))
def test_ipv6_is_global_unicast_or_stands_for_ipv4(
    address: IPv6Address,
) -> None:
    policy = SSRFPolicy()
    if not permits(policy, str(address)):
        return
    low = ip_address(int(address) & 0xFFFFFFFF)
    high = int(address) >> 32
    if high in (0xFFFF, 0x64FF9B << 64):
        assert permits(policy, str(low))
    else:
        assert int(address) >> 125 == 1


@given(st.ip_addresses(v=4))
def test_ipv4_that_python_calls_private_is_refused(address: Any) -> None:
    # Python's own table is shorter than ours on every version, but for the
    # anycast addresses in 192.0.0.0/24.
    if not address.is_global or address.is_multicast:
        assert not permits(SSRFPolicy(), str(address))


@given(st.text(max_size=30))
@example("127.0.0.1\n")
@example("1.1.1.1 ")
@example("::ffff:1.1.1.1%0")
@example("01.1.1.1")
def test_what_is_no_canonical_address_is_not_permitted(text: str) -> None:
    if permits(SSRFPolicy(), text):
        assert socket.getaddrinfo(text, 80, flags=socket.AI_NUMERICHOST)
        assert ip_address(text)


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"schemes": "http"}, TypeError, r"did you mean \['http'\]\?"),
        ({"schemes": ["ftp"]}, ValueError, "among http, https, ws and wss"),
        ({"schemes": [1]}, TypeError, "strings"),
        ({"ports": 80}, TypeError, "a collection of port numbers"),
        ({"ports": ["80"]}, TypeError, "port numbers from 1 to 65535"),
        ({"ports": [True]}, TypeError, "port numbers"),
        ({"ports": [0]}, ValueError, "port numbers from 1 to 65535"),
        ({"ports": [65536]}, ValueError, "port numbers"),
        ({"allow_networks": "10.0.0.0/8"}, TypeError, "did you mean"),
        (
            {"allow_networks": ["10.0.0.1/8"]},
            ValueError,
            "did you mean '10.0.0.0/8",
        ),
        ({"allow_networks": ["inside"]}, ValueError, "networks such as"),
        ({"deny_networks": [10]}, TypeError, "networks such as"),
        ({"allow_hosts": "a.example"}, TypeError, "did you mean"),
        ({"allow_hosts": ["http://a.example"]}, ValueError, "host names"),
        ({"allow_hosts": ["a.example:80"]}, ValueError, "host names"),
        ({"allow_hosts": ["a.example/x"]}, ValueError, "host names"),
        ({"allow_hosts": ["[::1"]}, ValueError, "host names"),
        ({"deny_hosts": ["*"]}, ValueError, "host names"),
        ({"deny_hosts": ["*.0.0.1"]}, ValueError, "host names"),
        ({"deny_hosts": ["a.*.example"]}, ValueError, "host names"),
        ({"deny_hosts": ["*.*.example"]}, ValueError, "host names"),
        ({"deny_hosts": ["me@a.example"]}, ValueError, "host names"),
        ({"deny_hosts": [""]}, ValueError, "non-empty strings"),
        ({"allow_proxies": "http://p:3128"}, TypeError, "did you mean"),
        ({"allow_proxies": ["p:3128"]}, ValueError, "origins such as"),
        ({"allow_proxies": None}, TypeError, "a collection of origins"),
    ],
)
def test_wrong_policy_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^SSRFPolicy {next(iter(options))} ") as e:
        SSRFPolicy(**options)
    assert e.match(message)


async def test_wrong_policy_object_is_refused() -> None:
    policy: Any = {"ports": None}
    with pytest.raises(
        TypeError, match=r"^ssrf_middleware policy should be an"
    ):
        ssrf_middleware(policy)
    with pytest.raises(TypeError, match=r"^SSRFConnector policy should be"):
        SSRFConnector(policy)
    with pytest.raises(TypeError, match=r"^ssrf_session policy should be"):
        ssrf_session(policy)


async def test_foreign_connector_is_refused() -> None:
    policy = SSRFPolicy()
    async with aiohttp.TCPConnector() as connector:
        with pytest.raises(TypeError, match=r"^ssrf_session connector should"):
            ssrf_session(policy, connector=connector)
    async with SSRFConnector(SSRFPolicy(ports=None)) as other:
        with pytest.raises(ValueError, match=r"^ssrf_session connector should"):
            ssrf_session(policy, connector=other)
    async with ssrf_session(policy, connector=SSRFConnector(policy)) as session:
        assert isinstance(session.connector, SSRFConnector)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://public.example:8080/", "port"),
        ("http://ten.example/", "address"),
        ("http://127.0.0.1/", "address"),
    ],
)
async def test_what_dials_through_the_connector_alone_is_guarded_too(
    wire: Wire, url: str, reason: str
) -> None:
    class Borrowed(aiohttp.BaseConnector):
        """With a pool of its own."""

        allowed_protocol_schema_set = frozenset({"http"})

        async def _create_connection(self, *args: Any) -> Any:
            return await connector._create_connection(*args)

    connector = SSRFConnector(SSRFPolicy())
    async with aiohttp.ClientSession(connector=Borrowed()) as session:
        with pytest.raises(SSRFError) as caught:
            await session.get(url)
    await connector.close()
    assert caught.value.reason == reason
    assert wire.dialled == []


def test_connector_is_made_before_its_loop_runs(wire: Wire) -> None:
    loop = asyncio.new_event_loop()
    connector = SSRFConnector(SSRFPolicy(), loop=loop)

    async def main() -> None:
        async with ssrf_session(SSRFPolicy(), connector=connector) as session:
            with pytest.raises(SSRFError):
                await session.get("http://ten.example/")

    loop.run_until_complete(main())
    loop.close()


async def test_connector_closes_the_resolver_that_it_made(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Own(aiohttp.ThreadedResolver):
        async def close(self) -> None:
            closed.append("own")

    class Theirs(aiohttp.ThreadedResolver):
        async def close(self) -> None:
            closed.append("theirs")

    monkeypatch.setattr(aiohttp, "DefaultResolver", Own)
    for connector in (
        SSRFConnector(SSRFPolicy()),
        SSRFConnector(SSRFPolicy(), resolver=Theirs()),
    ):
        async with ssrf_session(SSRFPolicy(), connector=connector) as session:
            for name in ("ten.example", "private.example"):
                with pytest.raises(SSRFError):
                    await session.get(f"http://{name}/")
    assert closed == ["own"]


def test_policies_are_equal_and_hashable_by_value() -> None:
    assert SSRFPolicy(ports=[80, 443]) == SSRFPolicy()
    assert hash(SSRFPolicy(ports=(443, 80))) == hash(SSRFPolicy())
    assert SSRFPolicy(ports=None) != SSRFPolicy()
    assert hash(ssrf_middleware(SSRFPolicy()))


def test_policy_serves_two_loops_one_after_the_other(wire: Wire) -> None:
    policy = SSRFPolicy()
    guard = ssrf_middleware(policy)

    async def main() -> None:
        async with ssrf_session(policy, middlewares=[guard]) as session:
            with pytest.raises(SSRFError):
                await session.get("http://127.0.0.1/")

    asyncio.run(main())
    asyncio.run(main())
