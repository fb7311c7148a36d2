"""The refresh of a bearer token: whose work it is, and what it survives."""

import asyncio
import contextlib
import gc
import shutil
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer, unused_port
from certificates import self_signed
from live import eventually, soon

from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    SSRFConnector,
    SSRFError,
    SSRFPolicy,
    Token,
    TokenRefreshError,
    _timeouts,
    client_credentials,
    refresh_token_grant,
    retry_middleware,
    ssrf_session,
)
from aiohttp_middlewares.client._origins import parse_origins
from aiohttp_middlewares.client.bearer_token import _refresh


class Provider:
    """An API, and a token endpoint whose refresh tokens are good once.

    ``answers`` are what the endpoint says first: a status, a pair of status
    and body, or ``"drop"``.
    """

    server: BaseTestServer

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.answers: list[Any] = []
        self.headers: dict[str, str] = {}
        self.grants: list[dict[str, str]] = []
        self.requests: list[web.Request] = []
        self.issued = 0
        self.seen: list[str | None] = []

    @property
    def refresh_token(self) -> str:
        """The one that is good."""
        return f"r{self.issued}"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/token", self.token)
        app.router.add_route("*", "/api", self.api)
        return app

    def url(self, path: str = "/api") -> str:
        return str(self.server.make_url(path))

    async def token(self, request: web.Request) -> web.Response:
        form = dict(parse_qsl(await request.text()))
        self.grants.append(form)
        self.requests.append(request)
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "drop":
            assert request.transport is not None
            request.transport.close()
        if answer != 200:
            status, body = answer if isinstance(answer, tuple) else (answer, {})
            return web.json_response(body, status=status, headers=self.headers)
        sent = form.get("refresh_token")
        if sent not in (None, self.refresh_token):
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.issued += 1
        issued = {
            "access_token": f"a{self.issued}",
            "refresh_token": self.refresh_token,
            "expires_in": 3600,
        }
        await self.gate.wait()
        return web.json_response(issued)

    async def api(self, request: web.Request) -> web.Response:
        self.seen.append(request.headers.get("Authorization"))
        return web.Response()

    def rotating(self, **options: Any) -> BearerTokenMiddleware:
        grant = refresh_token_grant(self.url("/token"), "r0", "me")
        return BearerTokenMiddleware(grant, origins=[self.url("/")], **options)

    def plain(
        self, auth: Any = "basic", **options: Any
    ) -> BearerTokenMiddleware:
        grant = client_credentials(self.url("/token"), "me", "hush", auth=auth)
        return BearerTokenMiddleware(grant, origins=[self.url("/")], **options)


@contextlib.asynccontextmanager
async def provider_at(
    *, ssl: Any = None, **options: Any
) -> AsyncIterator[Provider]:
    provider = Provider()
    server = TestServer(provider.app(), **options)
    await server.start_server(**({} if ssl is None else {"ssl": ssl}))
    provider.server = server
    try:
        yield provider
    finally:
        provider.gate.set()
        await server.close()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with provider_at() as provider:
        yield provider


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refresh, "_DELAY", 0.001)


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Else pytest turns the ResourceWarning of the next collection into a
    failure of some other test."""
    yield
    gc.collect()


def session_with(
    *middlewares: aiohttp.ClientMiddlewareType, **options: Any
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=middlewares, **options)


async def ask(
    session: aiohttp.ClientSession, provider: Provider, **options: Any
) -> int:
    async with session.get(provider.url(), **options) as response:
        return response.status


async def error_of(
    session: aiohttp.ClientSession, provider: Provider
) -> TokenRefreshError:
    with pytest.raises(TokenRefreshError) as caught:
        await soon(ask(session, provider))
    return caught.value


async def done(bearer: BearerTokenMiddleware) -> None:
    assert bearer._work is not None
    await asyncio.wait([bearer._work.task], timeout=20)


# What it survives
# ================


async def test_refresh_survives_the_session_that_began_it(
    provider: Provider,
) -> None:
    """With a session for each call, and a refresh token that is good once."""
    late = [0.0]
    bearer = provider.rotating(
        token=Token("a0", time.time() + 3600),
        clock=lambda: time.time() + late[0],
    )
    late[0] = 3550  # near its end: renewed in the background
    provider.gate.clear()
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
        await provider.asked.wait()
    provider.gate.set()
    await done(bearer)
    late[0] = 3605
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
    # The one of the first refresh is not lost.
    sent = [grant["refresh_token"] for grant in provider.grants]
    assert sent == ["r0", "r1"]


@pytest.mark.parametrize("end", ["cancelled", "total timeout"])
async def test_refresh_survives_the_request_and_the_session_for_another_one(
    provider: Provider, end: str
) -> None:
    provider.gate.clear()
    bearer = provider.rotating()
    async with session_with(bearer) as other:
        async with session_with(bearer) as session:
            total = 0.05 if end == "total timeout" else None
            timeout = aiohttp.ClientTimeout(total=total)
            first = asyncio.create_task(ask(session, provider, timeout=timeout))
            await provider.asked.wait()
            second = asyncio.create_task(ask(other, provider))
            if end == "cancelled":
                first.cancel()
            with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
                await first
        provider.gate.set()
        assert await soon(second) == 200
    assert len(provider.grants) == 1


async def test_refresh_that_was_connecting_goes_on_by_another_session(
    provider: Provider,
) -> None:
    """What is closed with the first session is the look-up of the name."""
    looking = asyncio.Event()

    class Slow(aiohttp.ThreadedResolver):
        async def resolve(self, *args: Any, **options: Any) -> Any:
            looking.set()
            return await asyncio.Event().wait()

    grant = client_credentials(
        provider.url("/token").replace("127.0.0.1", "localhost"), "me", "hush"
    )
    bearer = BearerTokenMiddleware(grant, origins=[provider.url("/")])
    connector = aiohttp.TCPConnector(resolver=Slow())
    async with session_with(bearer) as other:
        async with session_with(bearer, connector=connector) as session:
            first = asyncio.create_task(ask(session, provider))
            await looking.wait()
            second = asyncio.create_task(ask(other, provider))
            await asyncio.sleep(0)
        assert await soon(second) == 200
    # Its own session was closed.
    await asyncio.gather(first, return_exceptions=True)
    assert len(provider.grants) == 1


async def test_closing_waits_for_the_token_that_was_asked_for(
    provider: Provider,
) -> None:
    kept: list[str | None] = []
    bearer = provider.rotating(
        on_token=lambda token: kept.append(token.refresh_token)
    )
    provider.gate.clear()
    async with session_with(bearer) as session:
        waiter = asyncio.create_task(ask(session, provider))
        await provider.asked.wait()
        closing = asyncio.create_task(bearer.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        provider.gate.set()
        await soon(closing)
        assert kept == ["r1"]
        assert await waiter == 200
    await bearer.aclose()


async def test_closing_waits_for_the_hook_as_long_as_for_the_token(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[str | None] = []

    async def keep(token: Token) -> None:
        await asyncio.sleep(0.3)
        kept.append(token.refresh_token)

    bearer = provider.rotating(on_token=keep, refresh_timeout=0.4)
    provider.gate.clear()
    async with session_with(bearer) as session:
        waiter = asyncio.create_task(ask(session, provider))
        await provider.asked.wait()
        closing = asyncio.create_task(bearer.aclose())
        await asyncio.sleep(0.2)
        provider.gate.set()
        await soon(closing)
        assert kept == ["r1"]
        assert await waiter == 200
    assert not caplog.messages


async def test_refresh_that_cannot_be_cancelled_does_not_hold_up_the_end(
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_timeouts, "CUT_TIMEOUT", 0.01)
    gate = asyncio.Event()

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return Token("a")

    bearer = BearerTokenMiddleware(
        refresh, origins=[provider.url("/")], refresh_timeout=0.01
    )
    async with session_with(bearer) as session:
        waiter = asyncio.create_task(ask(session, provider))
        await asyncio.sleep(0)
        await soon(bearer.aclose())
        assert caplog.messages == ["A token refresh was cut at the end"]
        gate.set()
        assert await soon(waiter) == 200


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 does not tell"
)
async def test_refresh_that_ends_in_a_cancellation_has_failed(
    provider: Provider,
) -> None:
    count = 0

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        nonlocal count
        count += 1
        task = asyncio.create_task(asyncio.sleep(30))
        task.cancel()
        await task
        return Token("a")

    bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    async with session_with(bearer) as session:
        for _ in range(3):
            error = await error_of(session, provider)
            assert str(error) == "The token refresh failed: CancelledError"
    assert count == 1


async def test_closing_does_not_wait_for_what_was_not_sent(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refresh, "_DELAY", 100.0)
    provider.answers = [503]
    bearer = provider.plain(refresh_timeout=1000)
    async with session_with(bearer) as session:
        waiter = asyncio.create_task(ask(session, provider))
        await provider.asked.wait()
        await soon(bearer.aclose())
        with pytest.raises(TokenRefreshError) as caught:
            await waiter
    assert caught.value.status == 503
    assert len(provider.grants) == 1


async def test_refresh_token_of_a_lost_answer_is_not_forgotten(
    provider: Provider,
) -> None:
    """Who comes with the one before has not heard of the new one."""
    grant = refresh_token_grant(provider.url("/token"), "r0", "me")
    old = Token("a0", refresh_token="r0")
    async with aiohttp.ClientSession() as session:
        assert (await grant(session, old)).refresh_token == "r1"
        assert (await grant(session, old)).refresh_token == "r2"
        kept = Token("a9", refresh_token="r2")
        assert (await grant(session, kept)).refresh_token == "r3"


def test_refresh_serves_one_loop_after_the_other() -> None:
    bearers: list[BearerTokenMiddleware] = []

    async def main(cut: bool) -> None:
        async with provider_at(port=port) as provider:
            if not bearers:
                bearers.append(provider.plain())
            async with session_with(*bearers) as session:
                if cut:
                    provider.gate.clear()
                    task = asyncio.create_task(ask(session, provider))
                    await provider.asked.wait()
                    task.cancel()
                    provider.gate.set()
                else:
                    assert await soon(ask(session, provider)) == 200

    port = unused_port()
    asyncio.run(main(cut=True))
    asyncio.run(main(cut=False))
    assert hash(bearers[0])


# What it wears
# =============


SETTINGS: list[Callable[[], dict[str, Any]]] = [
    lambda: {"headers": {"Content-Type": "application/json"}},
    lambda: {"headers": {"Content-Encoding": "deflate"}},
    lambda: {"headers": {"X-Api-Key": "hush"}},
    lambda: {"headers": {"Authorization": "Basic bWU6bWU="}},
    lambda: {"auth": aiohttp.BasicAuth("other", "one")},
    lambda: {"cookies": {"a": "b"}},
    lambda: {"auto_decompress": False},
    lambda: {"skip_auto_headers": ["Content-Type", "User-Agent"]},
    lambda: {"raise_for_status": True},
    lambda: {"timeout": aiohttp.ClientTimeout(sock_read=0.001)},
    lambda: {"trust_env": True},
]


@pytest.mark.filterwarnings("ignore:.*[aA]uth:DeprecationWarning")
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("auth", ["basic", "post"])
async def test_refresh_wears_nothing_of_the_session(
    provider: Provider,
    settings: Callable[[], dict[str, Any]],
    auth: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with session_with(provider.plain(auth), **settings()) as session:
        # With the timeout it is the API that is too slow.
        with contextlib.suppress(asyncio.TimeoutError):
            await ask(session, provider)
    (request,), (form,) = provider.requests, provider.grants
    assert set(request.headers) - {"Authorization"} == {
        "Accept",
        "Accept-Encoding",
        "Connection",
        "Content-Length",
        "Content-Type",
        "Host",
        "User-Agent",
    }
    kinds = request.headers.getall("Content-Type")
    assert kinds == ["application/x-www-form-urlencoded"]
    assert not request.cookies
    # RFC 6749 2.3: one authentication of the client.
    credentials = request.headers.getall("Authorization", [])
    if auth == "basic":
        assert credentials == ["Basic bWU6aHVzaA=="]
        assert set(form) == {"grant_type"}
    else:
        assert credentials == []
        assert form["client_secret"] == "hush"
    assert provider.issued == 1


@pytest.mark.parametrize("origin", ["session", "environment"])
async def test_refresh_goes_through_the_proxy_of_the_session(
    provider: Provider, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider plays the proxy: it is sent whole URLs."""
    for name in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    proxy = provider.url("")
    settings: dict[str, Any] = {"proxy": proxy}
    if origin == "environment":
        monkeypatch.setenv("http_proxy", proxy.replace("://", "://me:hush@"))
        settings = {"trust_env": True}
    grant = client_credentials("http://id.example/token", "me", "hush")
    bearer = BearerTokenMiddleware(grant, origins=["http://api.example"])
    async with (
        session_with(bearer, **settings) as session,
        session.get("http://api.example/api") as response,
    ):
        assert response.status == 200
    (request,) = provider.requests
    assert str(request.url) == "http://id.example/token"
    found = request.headers.getall("Proxy-Authorization", [])
    assert len(found) == (origin == "environment")
    assert provider.seen == ["Bearer a1"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
async def test_refresh_has_the_tls_settings_of_the_session(
    tmp_path: Path,
) -> None:
    certificate = self_signed(tmp_path, "IP:127.0.0.1")
    context = certificate.server_context()
    async with provider_at(scheme="https", ssl=context) as provider:
        trusting = aiohttp.TCPConnector(ssl=certificate.client_context())
        async with session_with(
            provider.plain(), connector=trusting
        ) as session:
            assert await ask(session, provider) == 200
        assert provider.seen == ["Bearer a1"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
async def test_certificate_that_is_not_trusted_is_not_tried_again(
    tmp_path: Path,
) -> None:
    tries: list[object] = []
    context = self_signed(tmp_path, "IP:127.0.0.1").server_context()
    async with provider_at(scheme="https", ssl=context) as provider:
        grant = client_credentials(provider.url("/token"), "me", "hush")

        async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
            tries.append(session)
            return await grant(session, old)

        bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
        async with session_with(bearer) as session:
            error = await error_of(session, provider)
    assert isinstance(error.__cause__, aiohttp.ClientSSLError)
    assert len(tries) == 1
    assert provider.grants == []


async def test_refresh_goes_through_a_unix_socket_like_the_session(
    tmp_path: Path,
) -> None:
    provider = Provider()
    runner = web.AppRunner(provider.app())
    await runner.setup()
    path = str(tmp_path / "s")
    await web.UnixSite(runner, path).start()
    grant = client_credentials("http://id.example/token", "me", "hush")
    bearer = BearerTokenMiddleware(grant, origins=["http://api.example"])
    async with (
        session_with(bearer, connector=aiohttp.UnixConnector(path)) as session,
        session.get("http://api.example/api") as response,
    ):
        assert response.status == 200
    await runner.cleanup()
    assert provider.seen == ["Bearer a1"]


async def test_refresh_waits_for_no_place_in_the_pool(
    provider: Provider,
) -> None:
    """The only one is taken, by a download that takes its time."""
    gate = asyncio.Event()

    async def download(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await gate.wait()
        return response

    app = web.Application()
    app.router.add_get("/", download)
    connector = aiohttp.TCPConnector(limit=1)
    async with (
        TestServer(app) as server,
        session_with(provider.plain(), connector=connector) as session,
    ):
        async with session.get(server.make_url("/")) as response:
            waiter = asyncio.create_task(ask(session, provider))
            await soon(provider.asked.wait())
            gate.set()
            await response.read()
        assert await soon(waiter) == 200


@pytest.mark.parametrize("closed", [False, True])
async def test_refresh_obeys_the_policy_of_a_guarded_session(
    provider: Provider, closed: bool
) -> None:
    policy = SSRFPolicy(ports=None, deny_networks=["127.0.0.0/8"])
    seen: list[Exception] = []

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        if closed:
            await outer.close()
        for path in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            url = provider.url("/token").replace("127.0.0.1", path)
            try:
                async with session.post(url):
                    pass
            except Exception as exc:
                seen.append(exc)
        return Token("fine")

    origin = provider.url("")
    bearer = BearerTokenMiddleware(refresh, origins=[origin])
    async with ssrf_session(policy, middlewares=[bearer]) as outer:
        # The latter is what aiohttp says of a session that was closed.
        with contextlib.suppress(aiohttp.ClientError, AssertionError):
            await outer.get(origin)
    assert [type(exc) for exc in seen] == [SSRFError] * 3
    assert provider.grants == []


async def test_refresh_that_the_policy_forbids_is_not_tried_again(
    provider: Provider,
) -> None:
    bearer = provider.plain()
    async with ssrf_session(
        SSRFPolicy(ports=None), middlewares=[bearer]
    ) as session:
        error = await error_of(session, provider)
    assert isinstance(error.__cause__, SSRFError)
    assert provider.grants == []


async def test_refresh_of_a_guarded_session_uses_no_proxy_of_others(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", provider.url(""))
    grant = client_credentials("http://id.example/token", "me", "hush")
    bearer = BearerTokenMiddleware(grant, origins=[provider.url("/")])
    async with ssrf_session(
        SSRFPolicy(ports=None), trust_env=True, middlewares=[bearer]
    ) as session:
        error = await error_of(session, provider)
    assert isinstance(error.__cause__, SSRFError)
    assert error.__cause__.reason == "proxy"
    assert provider.grants == []


class Strict(aiohttp.TCPConnector):
    """Somebody else's rules, which hold where requests come in."""

    async def connect(self, *args: Any, **options: Any) -> Any:
        raise aiohttp.ClientError("forbidden")


class StrictAgain(SSRFConnector):
    connect = Strict.connect


@pytest.mark.parametrize("kind", ["TCP", "SSRF"])
async def test_refresh_goes_through_the_connect_of_a_foreign_connector(
    provider: Provider, kind: str
) -> None:
    policy = SSRFPolicy(ports=None, allow_networks=["127.0.0.0/8"])
    connector = Strict() if kind == "TCP" else StrictAgain(policy)
    async with session_with(provider.plain(), connector=connector) as session:
        error = await error_of(session, provider)
    assert str(error.__cause__) == "forbidden"
    assert provider.grants == []


async def test_refresh_has_no_context_no_timeouts_and_keeps_no_session(
    provider: Provider,
) -> None:
    """Nothing of the request that happens to come first is that of all."""
    user: ContextVar[str] = ContextVar("user")
    user.set("the first one")
    seen: list[Any] = []

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        seen.append((user.get(None), session.timeout.total))
        return Token("fine")

    async def main() -> "weakref.ref[aiohttp.ClientSession]":
        async with session_with(bearer) as session:
            assert await ask(session, provider) == 200
            return weakref.ref(session)

    bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    session = await main()
    gc.collect()
    assert session() is None
    assert seen == [(None, None)]


# Who has the token when
# ======================


async def test_token_is_kept_before_anybody_uses_it(provider: Provider) -> None:
    steps: list[str] = []
    gate, kept = asyncio.Event(), asyncio.Event()

    async def keep(token: Token) -> None:
        # Its own requests have the token already.
        async with session.put(provider.url()):
            pass
        kept.set()
        await gate.wait()
        steps.append("kept")

    async def use() -> None:
        await ask(session, provider)
        steps.append("used")

    async with session_with(provider.rotating(on_token=keep)) as session:
        users = [asyncio.create_task(use()) for _ in range(2)]
        await kept.wait()
        users.append(asyncio.create_task(use()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert provider.seen == ["Bearer a1"]
        gate.set()
        await soon(asyncio.gather(*users))
    assert steps == ["kept", "used", "used", "used"]
    assert provider.seen == ["Bearer a1"] * 4


async def test_closing_in_the_middle_of_on_token_does_not_lose_the_token(
    provider: Provider,
) -> None:
    keeping = asyncio.Event()

    async def keep(token: Token) -> None:
        keeping.set()
        await asyncio.Event().wait()

    bearer = provider.rotating(on_token=keep, refresh_timeout=0.5)
    async with session_with(bearer) as session:
        waiter = asyncio.create_task(ask(session, provider))
        await keeping.wait()
        await soon(bearer.aclose())
        assert await waiter == 200


@pytest.mark.parametrize("starter", ["on_token", "refresh"])
async def test_task_that_a_refresh_started_is_no_part_of_it_afterwards(
    provider: Provider, starter: str
) -> None:
    tasks: list[asyncio.Task[int]] = []
    over = asyncio.Event()

    async def later() -> int:
        await over.wait()
        return await ask(session, provider)

    def start(token: Any = None) -> None:
        tasks.append(asyncio.create_task(later()))

    async def refresh(own: aiohttp.ClientSession, old: Any) -> Token:
        start()
        return Token("a1")

    if starter == "on_token":
        bearer = provider.plain(on_token=start)
    else:
        bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
        over.set()
        assert await soon(tasks[0]) == 200
    assert provider.seen == ["Bearer a1", "Bearer a1"]


async def test_task_that_a_refresh_left_behind_may_begin_the_next_one(
    provider: Provider,
) -> None:
    """Which asks through the session, and must not wait for itself."""
    tasks: list[asyncio.Task[int]] = []
    over = asyncio.Event()

    async def later() -> int:
        await over.wait()
        bearer.invalidate()
        return await ask(session, provider)

    async def refresh(own: aiohttp.ClientSession, old: Any) -> Token:
        if not tasks:
            tasks.append(asyncio.create_task(later()))
        else:
            assert await asyncio.wait_for(ask(session, provider), 5) == 200
        return Token("fine")

    bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
        over.set()
        assert await soon(tasks[0]) == 200
    assert provider.seen == ["Bearer fine", None, "Bearer fine"]


async def test_refresh_that_asks_through_the_session_does_not_wait_for_itself(
    provider: Provider,
) -> None:
    async def refresh(own: aiohttp.ClientSession, old: Any) -> Token:
        # Both sessions: what matters is who asks.
        assert await asyncio.wait_for(ask(session, provider), 5) == 200
        assert await ask(own, provider) == 200
        return Token("fine")

    bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    async with session_with(bearer) as session:
        assert await soon(ask(session, provider)) == 200
    assert provider.seen == [None, None, "Bearer fine"]


# A refresh that fails
# ====================


@pytest.mark.parametrize(
    "answers",
    [[503], ["drop"], [408], [429], [500, 502, 503, 504],
     [(400, {"error": "temporarily_unavailable"})]],
)  # fmt: skip
async def test_failure_that_passes_is_tried_again_for_all_who_wait(
    provider: Provider, answers: list[Any]
) -> None:
    provider.answers = list(answers)
    async with session_with(retry_middleware(), provider.rotating()) as session:
        found = await soon(
            asyncio.gather(*(ask(session, provider) for _ in range(20)))
        )
    assert found == [200] * 20
    assert len(provider.grants) == len(answers) + 1


async def test_endpoint_that_stays_away_is_asked_a_few_times(
    provider: Provider,
) -> None:
    provider.answers = [503] * 50
    async with session_with(provider.plain()) as session:
        error = await error_of(session, provider)
    assert (error.status, error.error) == (503, None)
    assert len(provider.grants) == 5


async def test_connection_that_is_refused_is_tried_again() -> None:
    asked: list[object] = []

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        asked.append(session)
        async with session.get(url):
            raise AssertionError

    url = f"http://127.0.0.1:{unused_port()}/"
    bearer = BearerTokenMiddleware(refresh, origins=[url])
    async with session_with(bearer) as session:
        with pytest.raises(TokenRefreshError) as caught:
            await soon(session.get(url))
    assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorError)
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("status", "tries"), [(503, 2), (429, 2), (403, 1), (404, 1)]
)
async def test_status_that_a_refresh_of_ones_own_raised_is_understood(
    provider: Provider, status: int, tries: int
) -> None:
    provider.answers, provider.headers = [status], {"Retry-After": "0.001"}

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        async with session.post(
            provider.url("/token"), raise_for_status=True
        ) as response:
            return Token((await response.json())["access_token"])

    bearer = BearerTokenMiddleware(refresh, origins=[provider.url("/")])
    async with session_with(bearer) as session:
        if tries == 1:
            assert (await error_of(session, provider)).status == status
        else:
            assert await ask(session, provider) == 200
    assert len(provider.grants) == tries


async def test_tries_end_with_the_refresh_timeout(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_refresh, "_DELAY", 1000.0)
    provider.answers = [503]
    async with session_with(provider.plain()) as session:
        assert (await error_of(session, provider)).status == 503
    assert len(provider.grants) == 1


async def test_what_the_endpoint_asks_to_wait_is_waited(
    provider: Provider,
) -> None:
    provider.answers, provider.headers = [429], {"Retry-After": "0.2"}
    async with session_with(provider.plain()) as session:
        start = time.perf_counter()
        assert await ask(session, provider) == 200
        assert time.perf_counter() - start >= 0.2
    assert len(provider.grants) == 2


async def test_endpoint_that_asks_for_more_time_than_there_is_is_left_alone(
    provider: Provider,
) -> None:
    now = [1_000_000.0]
    provider.answers, provider.headers = [429], {"Retry-After": "40"}
    bearer = provider.plain(clock=lambda: now[0])
    async with session_with(bearer) as session:
        error = await error_of(session, provider)
        assert error.retry_after == 40
        now[0] += 39
        error = await error_of(session, provider)
        assert (error.status, error.retry_after) == (429, 1)
        assert len(provider.grants) == 1
        now[0] += 1
        assert await ask(session, provider) == 200


@pytest.mark.parametrize("ttl", [0, 5])
async def test_endpoint_is_left_alone_whatever_a_final_failure_costs(
    provider: Provider, ttl: float
) -> None:
    now = [1_000_000.0]
    provider.answers, provider.headers = [503], {"Retry-After": "3000"}
    bearer = provider.plain(final_failure_ttl=ttl, clock=lambda: now[0])
    async with session_with(bearer) as session:
        error = await error_of(session, provider)
        assert error.retry_after == 3000
        now[0] += 2999
        await error_of(session, provider)
        assert len(provider.grants) == 1
        now[0] += 1
        assert await ask(session, provider) == 200


async def test_endpoint_cannot_forbid_itself_for_years(
    provider: Provider,
) -> None:
    provider.answers, provider.headers = [503], {"Retry-After": "9" * 400}
    async with session_with(provider.plain()) as session:
        error = await error_of(session, provider)
    assert error.retry_after == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_grant"), (401, "invalid_client"),
     (400, "unauthorized_client"), (500, "invalid_grant"),
     (200, "bad_refresh_token"), (200, "incorrect_client_credentials")],
)  # fmt: skip
async def test_final_failure_is_named_and_not_sent_again(
    provider: Provider, status: int, code: str
) -> None:
    now = [1_000_000.0]
    provider.answers = [(status, {"error": code})]
    bearer = provider.rotating(clock=lambda: now[0])
    async with session_with(bearer) as session:
        for passed in (0, 1, 58.9):
            now[0] += passed
            error = await error_of(session, provider)
            assert (error.error, error.status) == (code, status)
        assert len(provider.grants) == 1
        now[0] += 0.2
        assert await ask(session, provider) == 200
    assert len(provider.grants) == 2


async def test_invalidating_lets_a_final_failure_be_tried_again(
    provider: Provider,
) -> None:
    provider.answers = [(400, {"error": "invalid_grant"})]
    bearer = provider.rotating(final_failure_ttl=1e9)
    async with session_with(bearer) as session:
        await error_of(session, provider)
        bearer.invalidate()
        assert await ask(session, provider) == 200


async def test_final_failure_may_be_forgotten_at_once(
    provider: Provider,
) -> None:
    provider.answers = [(400, {"error": "invalid_grant"})]
    async with session_with(provider.rotating(final_failure_ttl=0)) as session:
        await error_of(session, provider)
        assert await ask(session, provider) == 200


@pytest.mark.parametrize("answer", [404, (200, {}), (400, {})])
async def test_failure_of_which_nothing_is_known_is_not_tried_again_at_once(
    provider: Provider, answer: Any
) -> None:
    provider.answers = [answer]
    async with session_with(provider.plain(failure_ttl=0)) as session:
        assert (await error_of(session, provider)).error is None
        assert len(provider.grants) == 1
        assert await ask(session, provider) == 200


# What is good for how long
# =========================


async def test_leeway_counts_in_full_for_a_token_that_was_handed_in(
    provider: Provider,
) -> None:
    bearer = provider.plain(token=Token("mine", time.time() + 20))
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
    assert provider.seen == ["Bearer a1"]


async def test_refresh_ahead_counts_in_full_for_a_token_that_was_handed_in(
    provider: Provider,
) -> None:
    bearer = provider.plain(token=Token("mine", time.time() + 50))
    async with session_with(bearer) as session:
        assert await ask(session, provider) == 200
        await done(bearer)
        assert await ask(session, provider) == 200
    assert provider.seen == ["Bearer mine", "Bearer a1"]


# The answer in between
# =====================


async def test_cookie_of_a_refusal_is_stored_and_sent() -> None:
    seen: list[dict[str, str]] = []

    async def api(request: web.Request) -> web.Response:
        seen.append(dict(request.cookies))
        response = web.Response(
            status=200 if "node" in request.cookies else 401
        )
        response.set_cookie("node", "7")
        return response

    async def refresh(session: aiohttp.ClientSession, old: Any) -> Token:
        return Token("new")

    app = web.Application()
    app.router.add_get("/", api)
    async with TestServer(app) as server:
        url = server.make_url("/")
        bearer = BearerTokenMiddleware(
            refresh, origins=[url], token=Token("old")
        )
        jar = aiohttp.CookieJar(unsafe=True)
        async with (
            session_with(bearer, cookie_jar=jar, cookies={}) as session,
            session.get(url, cookies={"mine": "1"}) as response,
        ):
            assert response.status == 200
            assert jar.filter_cookies(url)["node"].value == "7"
    assert seen == [{"mine": "1"}, {"mine": "1", "node": "7"}]


class Cut:
    """Cancels the current task when it is suspended for the nth time."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, middleware: Any) -> Any:
        async def cut(req: Any, handler: Any) -> Any:
            return await _Steps(middleware(req, handler), self)

        return cut


class _Steps:
    def __init__(self, coroutine: Any, cut: Cut) -> None:
        self.coroutine, self.cut = coroutine, cut

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.coroutine.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                found = steps.throw(error) if error else steps.send(value)
            except StopIteration as exc:
                return exc.value
            self.cut.left -= 1
            if self.cut.left == 0:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            value, error = None, None
            try:
                value = yield found
            except BaseException as exc:
                error = exc


@pytest.mark.parametrize("size", [2, 2**17])
async def test_cancelling_anywhere_leaves_no_connection_taken(
    provider: Provider, size: int
) -> None:
    """The larger answer is more than is read to keep a connection."""

    async def api(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer bad":
            return web.Response(status=401, body=b"x" * size)
        return web.Response(text="fine")

    async def is_cut_at(nth: int) -> bool:
        bearer = provider.plain(token=Token("bad"))
        bearer._origins |= parse_origins("origins", [url])
        connector = aiohttp.TCPConnector(limit=1)
        cut = Cut(nth)
        async with session_with(cut(bearer), connector=connector) as session:
            task = asyncio.create_task(_status(session, url))
            await asyncio.wait([task], timeout=20)
            await eventually(lambda: not connector._acquired)
            cut.left = 0
            assert await soon(_status(session, url)) == 200
        await bearer.aclose()
        return task.cancelled()

    app = web.Application()
    app.router.add_get("/", api)
    async with TestServer(app) as server:
        url = server.make_url("/")
        nth = 1
        while await is_cut_at(nth):
            nth += 1
    # To connect, to get an answer, to get a token, to get an answer.
    assert nth > 4


async def _status(session: aiohttp.ClientSession, url: Any) -> int:
    async with session.get(url) as response:
        await response.read()
        return response.status
