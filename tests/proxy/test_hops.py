"""Who the visitor is, behind one nginx and behind two."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web
from certificates import Certificate
from pytest_aiohttp.plugin import AiohttpServer
from yarl import URL

from aiohttp_middlewares import (
    csrf_middleware,
    https_redirect_middleware,
    proxy_headers_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares.annotations import Middleware
from aiohttp_middlewares.proxy_headers import Family
from proxy.conftest import HEADERS, Front, Nginx

# All of 127.0.0.0/8 is this machine: each has an address of its own.
VISITOR = "127.0.1.1"
OUTER = "127.0.2.1"
INNER = "127.0.2.2"
PROXIES = ["127.0.2.0/24"]

#: Nothing of it may be believed.
FORGED = {
    "Forwarded": 'for=203.0.113.9;proto=https;host=evil.example, for="',
    "X-Forwarded-For": f"203.0.113.9, {OUTER}, {INNER}",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Real-IP": "203.0.113.9",
}

#: What the nginx that visitors connect to tells, and one behind it, which
#: keeps what it is told of the visitor.
X_FORWARDED = (
    {**HEADERS, "X-Forwarded-Host": "$http_host"},
    {
        **HEADERS,
        "X-Forwarded-Host": "$http_x_forwarded_host",
        "X-Forwarded-Proto": "$http_x_forwarded_proto",
    },
)
_ELEMENT = 'for=$remote_addr;proto=$scheme;host="$http_host"'
FORWARDED = (
    {"Host": "$http_host", "Forwarded": f"'$http_forwarded, {_ELEMENT}'"},
    {
        "Host": "$http_host",
        "Forwarded": "'$http_forwarded, for=$remote_addr'",
    },
)
FAMILIES: dict[Family, tuple[dict[str, str], dict[str, str]]] = {
    "x-forwarded": X_FORWARDED,
    "forwarded": FORWARDED,
}

Hops = Callable[..., Awaitable[Front]]


def application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/facts", facts)
    app.router.add_post("/echo", echo)
    return app


async def facts(request: web.Request) -> web.StreamResponse:
    return web.json_response(
        {
            "remote": request.remote,
            "url": str(request.url),
            "connection": id(request.protocol),
        }
    )


async def echo(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"{request.scheme} {await request.text()}")


@pytest.fixture
def hops(nginx: Nginx, aiohttp_server: AiohttpServer) -> Hops:
    """Put one nginx or two before an application."""

    async def hops(
        app: web.Application, number: int, family: Family = "x-forwarded"
    ) -> Front:
        outer, inner = FAMILIES[family]
        behind = (await aiohttp_server(app)).make_url("/")
        if number == 2:
            front = await nginx(
                behind, headers=inner, options=f"proxy_bind {INNER};"
            )
            behind = front.http
        return await nginx(
            behind, headers=outer, options=f"proxy_bind {OUTER};"
        )

    return hops


@asynccontextmanager
async def from_address(
    address: str, certificate: Certificate
) -> AsyncIterator[ClientSession]:
    connector = TCPConnector(
        ssl=certificate.client_context(), local_addr=(address, 0)
    )
    async with ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
async def visitor(certificate: Certificate) -> AsyncIterator[ClientSession]:
    async with from_address(VISITOR, certificate) as session:
        yield session


async def known(visitor: ClientSession, url: URL, **options: Any) -> Any:
    """Who the application takes the visitor for, and at what URL."""
    async with visitor.get(url / "facts", **options) as response:
        assert response.status == 200
        found = await response.json()
    return found["remote"], found["url"]


# Who the visitor is
# ==================


@pytest.mark.parametrize("lie", [{}, FORGED], ids=["honest", "forging"])
@pytest.mark.parametrize("as_number", [False, True], ids=["list", "number"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
async def test_application_knows_the_visitor(
    family: Family,
    number: int,
    as_number: bool,
    lie: dict[str, str],
    hops: Hops,
    visitor: ClientSession,
) -> None:
    app = application(
        proxy_headers_middleware(
            trusted=number if as_number else PROXIES, family=family, host=True
        )
    )
    front = await hops(app, number, family)
    for url in (front.https, front.http):
        found = await known(visitor, url, headers=lie)
        assert found == (VISITOR, str(url / "facts"))


@pytest.mark.parametrize("family", FAMILIES)
async def test_walk_ends_at_the_first_that_is_not_trusted(
    family: Family, hops: Hops, visitor: ClientSession
) -> None:
    expected = {
        # The outer one is a visitor like any other.
        INNER: OUTER,
        # Nobody is believed: this is the peer.
        "192.0.2.1": INNER,
    }
    for trusted, remote in expected.items():
        app = application(
            proxy_headers_middleware(trusted=[trusted], family=family)
        )
        front = await hops(app, 2, family)
        found = await known(visitor, front.http, headers=FORGED)
        assert found[0] == remote


async def test_number_that_is_wrong_gives_no_address_of_the_visitors_choice(
    hops: Hops, visitor: ClientSession
) -> None:
    # One too few: the outer nginx is taken for the visitor.
    front = await hops(application(proxy_headers_middleware(trusted=1)), 2)
    assert (await known(visitor, front.http))[0] == OUTER
    assert (await known(visitor, front.http, headers=FORGED))[0] == OUTER
    # One too many: nothing tells which of the proxies is missing.
    front = await hops(application(proxy_headers_middleware(trusted=2)), 1)
    assert (await known(visitor, front.http))[0] == OUTER


async def test_header_family_that_is_not_chosen_is_not_read(
    hops: Hops, visitor: ClientSession
) -> None:
    both: list[tuple[Family, Family]] = [
        ("forwarded", "x-forwarded"),
        ("x-forwarded", "forwarded"),
    ]
    for family, other in both:
        app = application(
            proxy_headers_middleware(trusted=PROXIES, family=family)
        )
        # It does not take away what the visitor sends of the family.
        front = await hops(app, 1, other)
        found = await known(visitor, front.https)
        assert found[0] == OUTER
        assert found[1] == str(front.https.with_scheme("http") / "facts")


async def test_visitor_who_comes_past_the_proxy_is_not_believed(
    aiohttp_server: AiohttpServer, visitor: ClientSession
) -> None:
    app = application(
        proxy_headers_middleware(
            trusted=PROXIES, host=True, client_ip_header="X-Real-IP"
        )
    )
    url = (await aiohttp_server(app)).make_url("/")
    found = await known(visitor, url, headers=FORGED)
    assert found == (VISITOR, str(url / "facts"))


@pytest.mark.parametrize("lie", [{}, FORGED], ids=["honest", "forging"])
async def test_client_ip_header_names_the_visitor(
    lie: dict[str, str],
    nginx: Nginx,
    aiohttp_server: AiohttpServer,
    visitor: ClientSession,
) -> None:
    app = application(
        proxy_headers_middleware(trusted=PROXIES, client_ip_header="x-real-ip")
    )
    behind = (await aiohttp_server(app)).make_url("/")
    front = await nginx(
        behind,
        headers={**HEADERS, "X-Real-IP": "$remote_addr"},
        options=f"proxy_bind {OUTER};",
    )
    for url in (front.https, front.http):
        found = await known(visitor, url, headers=lie)
        assert found == (VISITOR, str(url / "facts"))


async def test_visitors_who_share_a_connection_are_told_apart(
    hops: Hops, certificate: Certificate
) -> None:
    front = await hops(
        application(proxy_headers_middleware(trusted=PROXIES)), 1
    )
    connections = set()
    for number in range(12):
        address = f"127.0.1.{number % 4 + 1}"
        url = (front.https, front.http)[number % 2] / "facts"
        async with (
            from_address(address, certificate) as visitor,
            visitor.get(url) as response,
        ):
            found = await response.json()
        assert (found["remote"], found["url"]) == (address, str(url))
        connections.add(found["connection"])
    assert len(connections) == 1


async def test_body_arrives_with_the_clone(
    hops: Hops, visitor: ClientSession
) -> None:
    front = await hops(
        application(proxy_headers_middleware(trusted=PROXIES)), 2
    )
    body = "0123456789" * 50_000
    for _ in range(2):
        async with visitor.post(front.https / "echo", data=body) as response:
            assert await response.text() == f"https {body}"


# What stands inside
# ==================


@pytest.mark.parametrize("renamed", [False, True])
async def test_https_redirect_leads_to_the_host_of_the_visitor_and_ends(
    renamed: bool, nginx: Nginx, visitor: ClientSession, tmp_path: Path
) -> None:
    socket = tmp_path / "app.socket"
    headers = {**HEADERS, "X-Forwarded-Host": "$http_host"}
    if renamed:  # as it is without "proxy_set_header Host"
        headers["Host"] = "behind"
    front = await nginx(socket, headers=headers)
    app = application(
        proxy_headers_middleware(trusted=["unix"], host=renamed),
        https_redirect_middleware(
            https_port=front.https.port, ignore={"/healthz"}
        ),
    )
    app.router.add_get("/healthz", facts)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, socket).start()
        url = front.http / "facts"
        target = "/%2Ffacts/?a=%2f%C3%A9"
        for lie in ({}, FORGED):
            async with visitor.get(
                URL(f"{front.http.origin()}{target}", encoded=True),
                headers=lie,
                allow_redirects=False,
            ) as response:
                assert response.status == 307
                location = response.headers["Location"]
                assert location == f"{front.https.origin()}{target}"
        async with visitor.get(url) as response:
            assert [each.status for each in response.history] == [307]
            found = await response.json()
        assert found["remote"] == VISITOR
        assert found["url"] == str(front.https / "facts")
        async with visitor.get(front.http / "healthz") as response:
            assert (response.status, response.history) == (200, ())
    finally:
        await runner.cleanup()


async def test_https_redirect_without_proxy_headers_would_never_end(
    hops: Hops, visitor: ClientSession
) -> None:
    front = await hops(application(https_redirect_middleware()), 1)
    async with visitor.get(
        front.https / "facts", allow_redirects=False
    ) as response:
        assert response.status == 307


@pytest.mark.parametrize("number", [1, 2])
async def test_trusted_host_refuses_through_the_proxies(
    number: int, hops: Hops, visitor: ClientSession
) -> None:
    app = application(
        proxy_headers_middleware(trusted=PROXIES, host=True),
        trusted_host_middleware(["www.good.example", "127.0.0.1"]),
    )
    front = await hops(app, number)
    statuses = {}
    for host in (
        "www.good.example",
        "WWW.GOOD.example.:80",
        "evil.example",
        "www.good.example.evil.example",
    ):
        # The other headers are the proxy's to set.
        lie = {"Host": host, "X-Forwarded-Host": "www.good.example"}
        async with visitor.get(front.https / "facts", headers=lie) as response:
            statuses[host] = response.status
            if response.status == 400:
                assert await response.text() == "Invalid host header"
    assert list(statuses.values()) == [200, 200, 400, 400]
    async with visitor.get(
        front.https / "facts",
        headers={"Host": "good.example"},
        allow_redirects=False,
    ) as response:
        location = "https://www.good.example/facts"
        assert response.headers["Location"] == location


@pytest.mark.parametrize("believed", [True, False])
async def test_csrf_compares_with_what_the_visitor_sees(
    believed: bool, hops: Hops, visitor: ClientSession
) -> None:
    middlewares = [csrf_middleware()]
    if believed:
        middlewares.insert(0, proxy_headers_middleware(trusted=PROXIES))
    front = await hops(application(*middlewares), 1)
    # From a browser that sends no Sec-Fetch-Site.
    for origin, status in (
        (front.https.origin(), 200 if believed else 403),
        (front.http.origin(), 403),
        ("https://evil.example", 403),
    ):
        async with visitor.post(
            front.https / "echo", data="x", headers={"Origin": str(origin)}
        ) as response:
            assert response.status == status
