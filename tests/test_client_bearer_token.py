"""Bearer tokens: one refresh for all, and no token for strangers."""

import asyncio
import base64
import logging
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from client_site import MEGABYTE, Naps
from hypothesis import given
from hypothesis import strategies as st
from live import begin_tasks_at_once
from yarl import URL

from aiohttp_middlewares.client import (
    BearerTokenMiddleware,
    Token,
    TokenRefreshError,
    client_credentials,
    refresh_token_grant,
    retry_middleware,
)
from aiohttp_middlewares.client.bearer_token._grants import _lifetime

NOW = 1_000_000.0


class Api:
    """An API that knows which tokens are good, and hands out new ones."""

    server: BaseTestServer

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.seen: list[str | None] = []
        self.bodies: list[bytes] = []
        self.refusal: bytes = b"refused"
        self.challenge = "Bearer"
        self.forbidden: str | None = None
        self.refreshes = 0
        self.olds: list[Token | None] = []
        self.lifetime: float | None = None
        self.now = NOW
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def url(self) -> str:
        return str(self.server.make_url("/"))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        header = request.headers.get("Authorization")
        self.seen.append(header)
        self.bodies.append(await request.read())
        is_good = (header or "").removeprefix("Bearer ") in self.good
        if not is_good or request.path == self.forbidden:
            headers = {"WWW-Authenticate": self.challenge}
            return web.Response(status=401, body=self.refusal, headers=headers)
        if request.headers.get("Upgrade"):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            await ws.close()
            return ws
        return web.Response(text="fine")

    async def refresh(
        self, session: aiohttp.ClientSession, old: Token | None
    ) -> Token:
        self.refreshes += 1
        self.olds.append(old)
        number = self.refreshes
        # It takes a request, which may need the only connection.
        async with session.get(f"{self.url}token") as response:
            await response.read()
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        value = f"t{number}"
        self.good = {value}
        expires = None if self.lifetime is None else self.now + self.lifetime
        return Token(value, expires)

    def bearer(self, **options: Any) -> BearerTokenMiddleware:
        options = {"clock": lambda: self.now, **options}
        return BearerTokenMiddleware(
            self.refresh, origins=[self.url], **options
        )

    @property
    def sent(self) -> list[str | None]:
        """What came with the requests that were no refresh."""
        return [value for value in self.seen if value is not None]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.handle)
    async with TestServer(app) as api.server:
        yield api


def session_with(
    *middlewares: aiohttp.ClientMiddlewareType, **kwargs: Any
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=middlewares, **kwargs)


async def ask(session: aiohttp.ClientSession, api: Api, **kwargs: Any) -> int:
    async with session.get(api.url, **kwargs) as response:
        await response.read()
        return response.status


async def ask_all(
    session: aiohttp.ClientSession, api: Api, count: int = 100
) -> list[Any]:
    return await asyncio.gather(
        *(ask(session, api) for _ in range(count)), return_exceptions=True
    )


async def settle() -> None:
    """Let everybody come to where they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def finish(bearer: BearerTokenMiddleware) -> None:
    """Let the refresh in the background come to its end."""
    if bearer._work is not None:
        await asyncio.wait([bearer._work.task])


# Which token is sent
# ===================


async def test_token_is_fetched_once_and_sent(api: Api) -> None:
    async with session_with(api.bearer()) as session:
        assert await ask(session, api) == 200
        assert await ask(session, api) == 200
    assert api.sent == ["Bearer t1", "Bearer t1"]
    assert api.olds == [None]


async def test_token_to_begin_with_is_sent(api: Api) -> None:
    api.good = {"mine"}
    async with session_with(api.bearer(token=Token("mine"))) as session:
        assert await ask(session, api) == 200
    assert api.refreshes == 0
    assert api.sent == ["Bearer mine"]


async def test_other_authorization_is_replaced(api: Api) -> None:
    async with session_with(api.bearer()) as session:
        headers = {"authorization": "Basic x"}
        assert await ask(session, api, headers=headers) == 200
    assert api.sent == ["Bearer t1"]


async def test_expired_token_is_renewed_before_it_is_sent(api: Api) -> None:
    api.lifetime = 3600
    async with session_with(api.bearer()) as session:
        await ask(session, api)
        api.now += 3571
        await ask(session, api)
    assert api.sent == ["Bearer t1", "Bearer t2"]
    assert api.olds == [None, Token("t1", NOW + 3600)]


async def test_revoked_token_is_renewed_and_the_request_repeated(
    api: Api,
) -> None:
    api.lifetime = 3600
    async with session_with(api.bearer()) as session:
        await ask(session, api)
        api.good.clear()
        async with session.post(api.url, data=b"order") as response:
            assert response.status == 200
    assert api.sent == ["Bearer t1", "Bearer t1", "Bearer t2"]
    assert api.bodies[-1] == api.bodies[-3] == b"order"


async def test_status_in_the_list_refuses_a_token(api: Api) -> None:
    bearer = api.bearer(refresh_statuses=[403], token=Token("bad"))
    async with session_with(bearer) as session:
        assert await ask(session, api) == 401
    assert api.refreshes == 0


async def test_invalidated_token_is_renewed(api: Api) -> None:
    bearer = api.bearer()
    async with session_with(bearer) as session:
        await ask(session, api)
        bearer.invalidate()
        await ask(session, api)
    assert api.sent == ["Bearer t1", "Bearer t2"]


async def test_websocket_handshake_gets_a_new_token(api: Api) -> None:
    async with (
        session_with(api.bearer(token=Token("bad"))) as session,
        session.ws_connect(api.url),
    ):
        pass
    assert api.sent == ["Bearer bad", "Bearer t1"]


async def test_refused_websocket_stays_refused(api: Api) -> None:
    async def keep(session: aiohttp.ClientSession, old: Any) -> Token:
        return Token("bad")

    bearer = BearerTokenMiddleware(keep, origins=[api.url], token=Token("bad"))
    async with session_with(bearer) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(api.url)
    assert len(api.seen) == 2


# One refresh for all
# ===================


@pytest.mark.parametrize("state", ["none", "expired", "refused", "invalid"])
async def test_hundred_requests_cause_one_refresh(api: Api, state: str) -> None:
    token = {
        "none": None,
        "expired": Token("old", NOW - 1),
        "refused": Token("old"),
        "invalid": Token("old"),
    }[state]
    bearer = api.bearer(token=token)
    if state == "invalid":
        bearer.invalidate()
    async with session_with(bearer) as session:
        assert await ask_all(session, api) == [200] * 100
    assert api.refreshes == 1
    assert len(api.sent) == (200 if state == "refused" else 100)


async def test_late_refusal_of_an_old_token_causes_no_refresh(
    api: Api,
) -> None:
    """Even when the new token looks like the old one."""
    slow, started = asyncio.Event(), asyncio.Event()

    async def keep(session: aiohttp.ClientSession, old: Any) -> Token:
        api.refreshes += 1
        api.good = {"same"}
        return same

    async def hold(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(req)
        if req.url.path == "/slow" and response.status == 401:
            started.set()
            await slow.wait()
        return response

    same = Token("same")
    bearer = BearerTokenMiddleware(keep, origins=[api.url], token=same)
    async with session_with(bearer, hold) as session:
        late = asyncio.ensure_future(session.get(f"{api.url}slow"))
        await started.wait()
        assert await ask(session, api) == 200
        slow.set()
        async with await late as response:
            assert response.status == 200
    assert api.refreshes == 1


async def test_cancelled_leader_leaves_the_others_their_token(
    api: Api,
) -> None:
    api.gate.clear()
    async with session_with(api.bearer()) as session:
        leader = asyncio.ensure_future(ask(session, api))
        await settle()
        others = [asyncio.ensure_future(ask(session, api)) for _ in range(10)]
        await settle()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        api.gate.set()
        assert await asyncio.gather(*others) == [200] * 10
    assert api.refreshes == 1


async def test_leader_that_times_out_leaves_the_others_their_token(
    api: Api,
) -> None:
    api.gate.clear()
    async with session_with(api.bearer()) as session:
        timeout = aiohttp.ClientTimeout(total=0.05)
        leader = asyncio.ensure_future(ask(session, api, timeout=timeout))
        await settle()
        other = asyncio.ensure_future(ask(session, api))
        with pytest.raises(asyncio.TimeoutError):
            await leader
        api.gate.set()
        assert await other == 200
    assert api.refreshes == 1


# A refresh that fails
# ====================


async def test_refresh_that_fails_fails_all_once(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    api.fails = ValueError("hush")
    async with session_with(api.bearer()) as session:
        found = await ask_all(session, api)
        assert {type(item) for item in found} == {TokenRefreshError}
        assert len({id(item) for item in found}) == 100
        assert api.refreshes == 1
        assert api.sent == []

        api.now += 0.9
        with pytest.raises(TokenRefreshError, match=r"^The token refresh fail"):
            await ask(session, api)
        assert api.refreshes == 1

        api.now += 0.2
        api.fails = None
        assert await ask(session, api) == 200
    assert api.refreshes == 2
    assert str(found[0]) == "The token refresh failed: ValueError"
    assert isinstance(found[0].__cause__, ValueError)
    assert [item.levelname for item in caplog.records] == ["WARNING"]
    assert "hush" not in caplog.text


async def test_refresh_that_hangs_fails_all_quickly(api: Api) -> None:
    api.gate.clear()
    async with session_with(api.bearer(refresh_timeout=0.03)) as session:
        start = time.perf_counter()
        found = await ask_all(session, api)
    assert time.perf_counter() - start < 2
    assert {type(item) for item in found} == {TokenRefreshError}
    assert str(found[0]) == "The token refresh took over 0.03 seconds"
    assert api.refreshes == 1


async def test_refresh_that_fails_after_a_refusal_fails_all_once(
    api: Api,
) -> None:
    api.fails = OSError()
    async with session_with(api.bearer(token=Token("bad"))) as session:
        found = await ask_all(session, api)
    assert {type(item) for item in found} == {TokenRefreshError}
    assert api.refreshes == 1
    assert len(api.sent) == 100


@pytest.mark.parametrize("lifetime", [25, 20])
async def test_token_that_still_lives_bridges_a_refresh_that_fails(
    api: Api, lifetime: float
) -> None:
    api.good, api.fails = {"mine"}, OSError()
    token = Token("mine", NOW + 3600)
    async with session_with(api.bearer(token=token)) as session:
        api.now += 3600 - lifetime
        assert await ask(session, api) == 200
        api.now += lifetime
        with pytest.raises(TokenRefreshError):
            await ask(session, api)
    assert api.refreshes == 2


async def test_clock_that_is_set_back_does_not_stretch_the_failure(
    api: Api,
) -> None:
    api.fails = OSError()
    async with session_with(api.bearer()) as session:
        for _ in range(2):
            with pytest.raises(TokenRefreshError):
                await ask(session, api)
            api.now -= 3600
    assert api.refreshes == 2


async def test_every_failure_may_be_tried_again_at_once(api: Api) -> None:
    api.fails = OSError()
    async with session_with(api.bearer(failure_ttl=0)) as session:
        for _ in range(3):
            with pytest.raises(TokenRefreshError):
                await ask(session, api)
    assert api.refreshes == 3


async def test_refresh_that_returns_something_else_fails(api: Api) -> None:
    async def wrong(session: Any, old: Any) -> Any:
        return "hush"

    bearer = BearerTokenMiddleware(wrong, origins=[api.url])
    async with session_with(bearer) as session:
        with pytest.raises(TokenRefreshError) as caught:
            await ask(session, api)
    assert str(caught.value) == "refresh should return a Token, got str"


async def test_retry_does_not_repeat_a_refresh_that_fails(api: Api) -> None:
    naps = Naps()
    api.fails = OSError()
    retry = retry_middleware(sleep=naps)
    async with session_with(retry, api.bearer(failure_ttl=0)) as session:
        with pytest.raises(TokenRefreshError):
            await ask(session, api)
    assert api.refreshes == 1
    assert naps.taken == []


# An API that refuses for ever
# ============================


async def test_api_that_always_refuses_is_asked_once_with_a_new_token(
    api: Api,
) -> None:
    async def useless(session: Any, old: Any) -> Token:
        api.refreshes += 1
        return Token(f"t{api.refreshes}")

    bearer = BearerTokenMiddleware(useless, origins=[api.url])
    async with session_with(bearer) as session:
        for count in (1, 2, 3):
            async with session.get(api.url) as response:
                assert response.status == 401
                assert await response.text() == "refused"
            assert len(api.seen) == count
    assert api.refreshes == 1


async def test_path_that_always_refuses_renews_once_a_failure_ttl(
    api: Api,
) -> None:
    """And the requests beside it get their answers."""
    api.forbidden = "/forbidden"
    async with session_with(api.bearer(failure_ttl=10)) as session:
        for number in range(40):
            async with session.get(f"{api.url}forbidden") as response:
                assert response.status == 401
            assert await ask(session, api) == 200
            api.now += 1
            # The first token comes of itself, and is proved good later.
            assert api.refreshes == 1 + (number + 9) // 10


async def test_token_without_the_scope_is_not_renewed(api: Api) -> None:
    api.challenge = 'Basic realm="x", Bearer error="insufficient_scope"'
    bearer = api.bearer(token=Token("mine"))
    async with (
        session_with(bearer) as session,
        session.get(api.url) as response,
    ):
        assert response.status == 401
        assert await response.text() == "refused"
    assert api.refreshes == 0
    assert api.sent == ["Bearer mine"]


async def test_token_that_was_good_says_nothing_of_the_next(api: Api) -> None:
    bearer = api.bearer()
    async with session_with(bearer) as session:
        assert await ask(session, api) == 200
        bearer.invalidate()
        api.forbidden = "/"
        assert await ask(session, api) == 401
    # A third one would be refused as well.
    assert api.sent == ["Bearer t1", "Bearer t2"]


async def test_token_that_was_refused_for_a_moment_is_renewed_when_older(
    api: Api,
) -> None:
    async with session_with(api.bearer()) as session:
        api.forbidden = "/"
        assert await ask(session, api) == 401
        api.forbidden, api.good = None, set()
        assert await ask(session, api) == 401
        api.now += 6
        assert await ask(session, api) == 200
    assert api.sent == ["Bearer t1"] * 3 + ["Bearer t2"]


async def test_token_endpoint_that_refuses_does_not_lock(api: Api) -> None:
    """It is one of the origins, and answers 401 as well."""
    refresh = client_credentials(f"{api.url}token", "id", "secret")
    bearer = BearerTokenMiddleware(refresh, origins=[api.url])
    async with session_with(bearer) as session:
        with pytest.raises(TokenRefreshError) as caught:
            await asyncio.wait_for(ask(session, api), 5)
    assert caught.value.status == 401
    # Nobody put another token into its request.
    assert api.seen == ["Basic aWQ6c2VjcmV0"]


async def generate() -> AsyncIterator[bytes]:
    yield b"once"


async def test_body_that_cannot_be_replayed_is_not_sent_again(
    api: Api,
) -> None:
    async with session_with(api.bearer(token=Token("bad"))) as session:
        async with session.post(api.url, data=generate()) as response:
            assert response.status == 401
            assert await response.text() == "refused"
        async with session.post(api.url, data=generate()) as response:
            assert response.status == 200
    assert api.sent == ["Bearer bad", "Bearer t1"]
    assert api.refreshes == 1
    assert [body for body in api.bodies if body] == [b"once", b"once"]


async def test_body_that_cannot_be_replayed_has_the_token_renewed(
    api: Api,
) -> None:
    """Without another request, and while the answer is still held."""
    tokens: asyncio.Queue[Token] = asyncio.Queue()
    bearer = api.bearer(token=Token("bad"), on_token=tokens.put)
    async with (
        session_with(bearer) as session,
        session.post(api.url, data=generate()) as response,
    ):
        assert response.status == 401
        assert await asyncio.wait_for(tokens.get(), 5) == Token("t1")
    assert api.sent == ["Bearer bad"]


@pytest.mark.parametrize("size", [1, 2**20])
async def test_renewal_for_the_next_request_waits_for_the_connection(
    api: Api, size: int
) -> None:
    api.refusal = MEGABYTE[:size]
    connector = aiohttp.TCPConnector(limit=1)
    bearer = api.bearer(token=Token("bad"))
    async with session_with(bearer, connector=connector) as session:
        async with session.post(api.url, data=generate()) as response:
            await settle()
            assert await response.read() == api.refusal
        assert await asyncio.wait_for(ask(session, api), 5) == 200
        assert not connector._acquired
    assert api.refreshes == 1


# Connections
# ===========


@pytest.mark.parametrize("size", [1, 2**20])
async def test_session_with_one_connection_does_not_hang(
    api: Api, size: int
) -> None:
    api.refusal = MEGABYTE[:size]
    connector = aiohttp.TCPConnector(limit=1)
    bearer = api.bearer(token=Token("bad"))
    async with session_with(bearer, connector=connector) as session:
        assert await asyncio.wait_for(ask(session, api), 5) == 200
        assert not connector._acquired


async def test_twenty_requests_share_ten_connections(api: Api) -> None:
    api.refusal = MEGABYTE
    connector = aiohttp.TCPConnector(limit=10)
    bearer = api.bearer(token=Token("bad"))
    async with session_with(bearer, connector=connector) as session:
        found = await asyncio.wait_for(ask_all(session, api, 20), 5)
        assert found == [200] * 20
        assert not connector._acquired
    assert api.refreshes == 1


# Ahead of time
# =============


async def test_token_is_renewed_in_the_background(api: Api) -> None:
    api.lifetime = 3600
    bearer = api.bearer()
    async with session_with(bearer) as session:
        await ask(session, api)
        api.now += 3600 - 45
        api.good = {"t1"}
        api.gate.clear()
        assert await ask_all(session, api, 20) == [200] * 20
        assert api.refreshes == 2
        api.good = {"t2"}
        api.gate.set()
        await finish(bearer)
        assert await ask(session, api) == 200
    assert api.sent == ["Bearer t1"] * 21 + ["Bearer t2"]


async def test_background_failure_disturbs_nobody_and_is_not_repeated(
    api: Api,
) -> None:
    api.lifetime = 3600
    bearer = api.bearer()
    async with session_with(bearer) as session:
        await ask(session, api)
        api.now += 3600 - 45
        api.fails = OSError()
        for _ in range(5):
            assert await ask(session, api) == 200
            await finish(bearer)
        assert api.refreshes == 2
        api.now += 2
        assert await ask(session, api) == 200
        await finish(bearer)
    assert api.refreshes == 3


async def test_short_lived_token_is_not_renewed_with_each_request(
    api: Api,
) -> None:
    api.lifetime = 20
    async with session_with(api.bearer()) as session:
        for _ in range(10):
            assert await ask(session, api) == 200
            api.now += 0.9
        assert api.refreshes == 1
        api.now += 1.5
        assert await ask(session, api) == 200
    assert api.refreshes == 2


@pytest.mark.parametrize("lifetime", [0, -5])
async def test_token_that_is_born_expired_is_used_for_who_waits(
    api: Api, lifetime: float
) -> None:
    api.lifetime = lifetime
    async with session_with(api.bearer()) as session:
        assert await ask_all(session, api, 20) == [200] * 20
        assert api.refreshes == 1
        assert await ask(session, api) == 200
    assert api.refreshes == 2


# Hooks, ends, and loops
# ======================


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_token_gets_each_new_token(api: Api, kind: str) -> None:
    kept: list[Token] = []

    async def keep(token: Token) -> None:
        await asyncio.sleep(0)
        kept.append(token)

    hook: Any = keep if kind == "async" else kept.append
    bearer = api.bearer(on_token=hook, token=Token("mine"))
    async with session_with(bearer) as session:
        await ask(session, api)
        bearer.invalidate()
        await ask(session, api)
    assert [token.value for token in kept] == ["t1", "t2"]


async def test_on_token_that_raises_is_logged_and_changes_nothing(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(token: Token) -> None:
        raise OSError("disk full")

    async with session_with(api.bearer(on_token=fail)) as session:
        assert await ask(session, api) == 200
    assert caplog.messages == ["The hook on_token failed"]


async def test_on_token_that_hangs_is_cut(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(token: Token) -> None:
        await asyncio.sleep(30)

    bearer = api.bearer(on_token=hang, refresh_timeout=1.0)
    async with session_with(bearer) as session:
        assert await ask(session, api) == 200
    assert caplog.messages == ["The hook on_token took too long"]


async def test_closing_ends_a_refresh_that_hangs_and_those_who_wait(
    api: Api,
) -> None:
    api.gate.clear()
    bearer = api.bearer(refresh_timeout=0.5)
    async with session_with(bearer) as session:
        task = asyncio.ensure_future(ask(session, api))
        await settle()
        await bearer.aclose()
        with pytest.raises(TokenRefreshError):
            await task
        api.gate.set()
        api.now += 2
        assert await ask(session, api) == 200
    await bearer.aclose()


def test_middleware_serves_two_loops_one_after_the_other() -> None:
    bearer: BearerTokenMiddleware | None = None

    async def main(cut: bool) -> None:
        nonlocal bearer
        api = Api()
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", api.handle)
        async with TestServer(app, port=port) as api.server:

            async def refresh(session: Any, old: Any) -> Token:
                if cut:
                    await asyncio.sleep(30)
                api.good = {"fine"}
                return Token("fine")

            if bearer is None:
                bearer = BearerTokenMiddleware(refresh, origins=[api.url])
            bearer._refresh = refresh
            async with session_with(bearer) as session:
                if cut:
                    # The loop ends with a refresh under way.
                    task = asyncio.ensure_future(ask(session, api))
                    await settle()
                    task.cancel()
                    return
                assert await asyncio.wait_for(ask(session, api), 5) == 200

    port = aiohttp.test_utils.unused_port()
    asyncio.run(main(cut=True))
    asyncio.run(main(cut=False))
    assert hash(bearer)


@pytest.mark.parametrize("waits", [True, False])
async def test_refresh_may_begin_at_once(api: Api, waits: bool) -> None:
    """As it does in a loop whose tasks are eager."""
    begin_tasks_at_once()
    api.lifetime = 3600

    async def refresh(session: Any, old: Token | None) -> Token:
        """Without a pause."""
        api.good = {"t1"}
        return Token("t1", api.now + 3600)

    bearer = api.bearer()
    if not waits:
        bearer._refresh = refresh
    async with session_with(bearer) as session:
        assert await ask_all(session, api, 5) == [200] * 5
    await bearer.aclose()
    assert api.sent == ["Bearer t1"] * 5


def test_refresh_of_a_loop_that_was_stopped_does_not_lock() -> None:
    async def refresh(session: Any, old: Any) -> Token:
        if not stopped:
            await asyncio.sleep(30)
        return Token("fine")

    async def renew() -> None:
        async with aiohttp.ClientSession() as session:
            await bearer._renew(session, 0)

    bearer = BearerTokenMiddleware(refresh, origins=["https://a.example"])
    stopped = False
    loop = asyncio.new_event_loop()
    task = loop.create_task(renew())
    loop.run_until_complete(asyncio.sleep(0.01))
    stopped, first = True, bearer._work
    asyncio.run(asyncio.wait_for(renew(), 5))
    assert first is not None
    assert bearer._work is not first
    for left in (task, first.task):
        left.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


# Secrets
# =======


async def test_nothing_shows_the_token(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    token = Token("hush", NOW + 5, refresh_token="hush")
    assert repr(token) == f"Token(expires_at={NOW + 5})"
    bearer = api.bearer(token=token)
    api.fails = TokenRefreshError("no")
    async with session_with(bearer) as session:
        with pytest.raises(TokenRefreshError) as caught:
            await ask(session, api)
    shown = f"{bearer!r} {caught.value!r} {caught.value} {caplog.text}"
    assert "hush" not in shown + "".join(
        str(record.__dict__) for record in caplog.records
    )


@pytest.mark.parametrize("value", ["", "a b", "hush\r\nX: y", "h\u00fcsh", 5])
def test_token_that_fits_into_no_header_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Token value") as e:
        Token(value)
    assert "sh" not in str(e.value).replace("should", "")


@pytest.mark.parametrize("value", ["soon", True, float("nan"), float("inf")])
def test_expiry_that_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^Token expires_at"):
        Token("t", value)


# OAuth
# =====


class Idp:
    """A token endpoint."""

    url: str

    def __init__(self) -> None:
        self.answer: Any = {"access_token": "abc", "token_type": "Bearer"}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.forms: list[dict[str, str]] = []
        self.credentials: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        form = parse_qsl(await request.text(), keep_blank_values=True)
        assert len(form) == len(dict(form))
        self.forms.append(dict(form))
        self.credentials.append(request.headers.get("Authorization"))
        if isinstance(self.answer, bytes):
            return web.Response(
                body=self.answer, status=self.status, headers=self.headers
            )
        return web.json_response(
            self.answer, status=self.status, headers=self.headers
        )


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    idp = Idp()
    app = web.Application()
    app.router.add_post("/{tail:.*}", idp.handle)
    async with TestServer(app) as server:
        idp.url = str(server.make_url("/token"))
        yield idp


Refresh = Callable[[Any, Any], Awaitable[Token]]


async def fetch(refresh: Refresh, old: Token | None = None) -> Token:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        return await refresh(session, old)


async def test_client_credentials_are_sent_as_the_standard_says(
    idp: Idp,
) -> None:
    idp.answer = {**idp.answer, "expires_in": 3600}
    refresh = client_credentials(
        idp.url, "a:b c", "s\u00e9cret/&", scope="r w", extra={"audience": "x"}
    )
    before = time.time()
    token = await fetch(refresh)
    assert token.value == "abc"
    assert token.expires_at is not None
    assert before + 3600 <= token.expires_at <= time.time() + 3600
    assert idp.forms == [
        {"grant_type": "client_credentials", "scope": "r w", "audience": "x"}
    ]
    expected = base64.b64encode(b"a%3Ab+c:s%C3%A9cret%2F%26").decode()
    assert idp.credentials == [f"Basic {expected}"]


async def test_client_credentials_may_stand_in_the_body(idp: Idp) -> None:
    await fetch(client_credentials(idp.url, "id", "hush", auth="post"))
    assert idp.forms == [
        {
            "grant_type": "client_credentials",
            "client_id": "id",
            "client_secret": "hush",
        }
    ]
    assert idp.credentials == [None]


async def test_refresh_token_follows_its_rotation(idp: Idp) -> None:
    refresh = refresh_token_grant(idp.url, "r0", "id", "secret")
    first = await fetch(refresh)
    assert first.refresh_token == "r0"
    idp.answer = {**idp.answer, "refresh_token": "r1"}
    second = await fetch(refresh, first)
    assert second.refresh_token == "r1"
    del idp.answer["refresh_token"]
    await fetch(refresh, second)
    await fetch(refresh)
    sent = [form["refresh_token"] for form in idp.forms]
    assert sent == ["r0", "r0", "r1", "r1"]


async def test_refresh_token_that_was_kept_is_used(idp: Idp) -> None:
    refresh = refresh_token_grant(idp.url, "old", "id")
    kept = Token("x", 1, refresh_token="kept")
    bearer = BearerTokenMiddleware(
        refresh, origins=[URL(idp.url).origin()], token=kept
    )
    async with (
        session_with(bearer) as session,
        session.post(idp.url),
    ):
        pass
    assert idp.forms[0] == {
        "grant_type": "refresh_token",
        "refresh_token": "kept",
        "client_id": "id",
    }
    assert idp.credentials == [None, "Bearer abc"]


async def test_public_client_may_still_be_refreshed_in_the_body(
    idp: Idp,
) -> None:
    await fetch(refresh_token_grant(idp.url, "r", "id", "s", auth="post"))
    assert idp.forms[0]["client_secret"] == "s"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ({"error": "invalid_grant", "error_description": "hush"},
         "invalid_grant", "400, invalid_grant"),
        ({"error": "hush hush"}, None, "400"),
        ({"error": ["hush"]}, None, "400"),
        (["hush"], None, "400"),
        (b"hush", None, "400"),
        (b"\xff", None, "400"),
    ],
)  # fmt: skip
async def test_error_of_the_endpoint_is_named_and_nothing_else(
    idp: Idp, answer: Any, error: str | None, said: str
) -> None:
    idp.answer, idp.status = answer, 400
    with pytest.raises(TokenRefreshError) as caught:
        await fetch(client_credentials(idp.url, "id", "hush"))
    assert caught.value.error == error
    assert caught.value.status == 400
    assert str(caught.value) == f"The token endpoint answered {said}"


async def test_redirect_of_the_endpoint_is_not_followed(idp: Idp) -> None:
    idp.status, idp.headers = 307, {"Location": "/elsewhere"}
    with pytest.raises(TokenRefreshError, match="answered 307"):
        await fetch(client_credentials(idp.url, "id", "secret"))
    assert len(idp.forms) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"access_token": "a", "token_type": "mac"}, "another type of token"),
        ({"access_token": "a", "token_type": None}, "another type of token"),
        ({"token_type": "bearer"}, "without a token"),
        ({"access_token": 5}, "without a token"),
        ({"access_token": "a\r\nX: y"}, "without a token"),
        ({"access_token": ""}, "without a token"),
        ([], "without a token"),
        (b"<html>", "without a token"),
        (b"", "without a token"),
    ],
)
async def test_answer_without_a_bearer_token_fails(
    idp: Idp, answer: Any, message: str
) -> None:
    idp.answer = answer
    with pytest.raises(TokenRefreshError, match=message):
        await fetch(client_credentials(idp.url, "id", "secret"))


@pytest.mark.parametrize(
    "kind", ["bearer", "BEARER", "Bearer", "BearerToken", "bearertoken"]
)
async def test_type_of_token_is_read_without_case(idp: Idp, kind: str) -> None:
    idp.answer = {"access_token": "a", "token_type": kind, "refresh_token": 1}
    token = await fetch(client_credentials(idp.url, "id", "secret"))
    assert token == Token("a")


async def test_type_of_token_may_be_left_out(idp: Idp) -> None:
    idp.answer = {"access_token": "a"}
    token = await fetch(client_credentials(idp.url, "id", "secret"))
    assert token == Token("a")


@pytest.mark.parametrize("status", [200, 201, 202, 203])
async def test_every_success_may_bring_a_token(idp: Idp, status: int) -> None:
    idp.status = status
    token = await fetch(client_credentials(idp.url, "id", "secret"))
    assert token == Token("abc")


async def test_error_beside_a_token_is_no_error(idp: Idp) -> None:
    """Some send an empty one with each answer."""
    idp.answer = {"access_token": "abc", "error": None}
    token = await fetch(client_credentials(idp.url, "id", "secret"))
    assert token == Token("abc")


async def test_answer_that_nests_for_ever_fails(idp: Idp) -> None:
    idp.answer = b"[" * 200_000
    with pytest.raises(TokenRefreshError, match="without a token"):
        await fetch(client_credentials(idp.url, "id", "secret"))


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_answer_that_does_not_end_is_not_read_to_the_end(
    status: int, coding: str
) -> None:
    written = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(status=status)
        response.headers["Content-Encoding"] = coding
        await response.prepare(request)
        pack = zlib.compressobj(wbits=31) if coding == "gzip" else None
        while True:
            chunk = b" " * 2**20
            if pack is not None:
                chunk = pack.compress(chunk) + pack.flush(zlib.Z_SYNC_FLUSH)
            await response.write(chunk)
            await asyncio.sleep(0)
            written += 1

    app = web.Application()
    app.router.add_post("/token", answer)
    async with TestServer(app) as server:
        refresh = client_credentials(server.make_url("/token"), "id", "secret")
        with pytest.raises(TokenRefreshError) as caught:
            await asyncio.wait_for(fetch(refresh), 5)
    assert caught.value.status == (None if status == 200 else 400)
    assert written


@pytest.mark.parametrize(
    ("value", "lifetime"),
    [
        (60, 60), ("60", 60), (1.5, 1.5), (0, None), (-1, None), (None, None),
        ("", None), ("soon", None), (True, None), (10**400, None),
        (float("nan"), None), (float("inf"), None), ("\u0663", None),
    ],
)  # fmt: skip
def test_lifetime_is_a_number_or_nothing(value: Any, lifetime: Any) -> None:
    assert _lifetime(value) == lifetime


@given(st.floats() | st.integers() | st.text() | st.booleans())
def test_lifetime_is_positive(value: Any) -> None:
    found = _lifetime(value)
    assert found is None or 0 < found < 1e12


async def test_concurrent_requests_share_one_grant(idp: Idp) -> None:
    bearer = BearerTokenMiddleware(
        client_credentials(idp.url, "id", "secret"),
        origins=[URL(idp.url).origin()],
    )
    async with session_with(bearer) as session:

        async def post() -> None:
            async with session.post(idp.url):
                pass

        await asyncio.gather(*(post() for _ in range(20)))
    assert idp.credentials.count("Bearer abc") == 20
    assert len(idp.credentials) == 21


# Misconfiguration
# ================


async def no_refresh(session: aiohttp.ClientSession, old: Any) -> Token:
    raise AssertionError


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"refresh": "token"}, TypeError, "a callable"),
        ({"token": "hush"}, TypeError, "a Token or None$"),
        ({"leeway": -1}, ValueError, "should be 0 or a positive, finite"),
        ({"leeway": False}, TypeError, "a number of seconds"),
        ({"refresh_ahead": "60"}, TypeError, "a number of seconds"),
        ({"refresh_timeout": 0}, ValueError, "a positive, finite number"),
        ({"refresh_timeout": None}, TypeError, "a number of seconds"),
        ({"failure_ttl": float("inf")}, ValueError, "finite number"),
        ({"final_failure_ttl": -1}, ValueError, "finite number"),
        ({"refresh_statuses": 401}, TypeError, "HTTP status codes"),
        ({"refresh_statuses": [1]}, ValueError, "HTTP status codes"),
        ({"on_token": "keep"}, TypeError, "a callable"),
        ({"clock": 5}, TypeError, "a callable"),
    ],
)
def test_wrong_option_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    name = next(iter(options))
    given = {"refresh": no_refresh, "origins": ["https://a.example"], **options}
    with pytest.raises(
        error, match=f"^BearerTokenMiddleware {name} .*{message}"
    ) as caught:
        BearerTokenMiddleware(**given)
    assert "hush" not in str(caught.value)


def test_leeway_may_be_nothing() -> None:
    BearerTokenMiddleware(
        no_refresh, origins=["https://a.example"], leeway=0, refresh_ahead=0
    )


URL_ = "https://id.example/token"


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (("/token", "i", "s"), {}, ValueError, "token_url should be an abs"),
        (("ftp://x/", "i", "s"), {}, ValueError, "token_url should be an abs"),
        (("http://[", "i", "s"), {}, ValueError, "token_url should be an abs"),
        ((5, "i", "s"), {}, TypeError, "token_url should be an absolute"),
        (("https://me:hush@a.example/", "i", "s"), {}, ValueError,
         "token_url should be .* without userinfo$"),
        (("https://hush@a.example/", "i", "s"), {}, ValueError,
         "token_url should be .* without userinfo$"),
        (("https://me:hush@[/", "i", "s"), {}, ValueError, "token_url should"),
        ((URL_, "", "s"), {}, ValueError, "client_id should be a non-empty"),
        ((URL_, 5, "s"), {}, TypeError, "client_id should be a non-empty"),
        ((URL_, "i", b"hush"), {}, TypeError, "client_secret should be a str"),
        ((URL_, "i", "s"), {"auth": "jwt"}, ValueError, "auth should be 'ba"),
        ((URL_, "i", "s"), {"extra": "a=b"}, TypeError, "extra should be a m"),
        ((URL_, "i", "s"), {"extra": {"a": 5}}, TypeError, "extra should be a"),
        ((URL_, "i", "s"), {"extra": {"grant_type": "x"}}, ValueError,
         "extra should be a mapping without the fields of the grant"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grant", ["client_credentials", "refresh_token_grant"])
def test_wrong_grant_is_refused_in_a_sentence(
    args: Any, options: Any, error: type[Exception], message: str, grant: str
) -> None:
    factory: Any = client_credentials
    if grant == "refresh_token_grant":
        factory, args = refresh_token_grant, (args[0], "r", *args[1:])
    with pytest.raises(error, match=f"^{grant} {message}") as caught:
        factory(*args, **options)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Token("a", "hush"),  # type: ignore[arg-type]
        lambda: Token("a", None, b"hush"),  # type: ignore[arg-type]
        lambda: Token("hush hush"),
        lambda: client_credentials(URL_, "i", "s", auth="hush"),  # type: ignore[arg-type]
        lambda: client_credentials(URL_, "i", "s", extra="hush"),  # type: ignore[arg-type]
        lambda: client_credentials(URL_, ["hush"], "s"),  # type: ignore[arg-type]
        lambda: client_credentials(b"http://a/?hush", "i", "s"),  # type: ignore[arg-type]
        lambda: client_credentials("ftp://a.example/?key=hush", "i", "s"),
        lambda: client_credentials("a.example/?key=hush", "i", "s"),
        lambda: refresh_token_grant("hush", "r", "i"),
        lambda: BearerTokenMiddleware("hush", origins=["http://a"]),  # type: ignore[arg-type]
    ],
)
def test_no_error_of_the_options_shows_a_secret(
    build: Callable[[], object],
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        build()
    assert "hush" not in f"{caught.value}"


def test_grant_needs_its_secrets() -> None:
    factory: Any = client_credentials
    with pytest.raises(TypeError, match="client_secret should be a string"):
        factory(URL_, "i", None)
    with pytest.raises(TypeError, match="scope should be a non-empty string"):
        factory(URL_, "i", "s", scope=["a"])
    factory = refresh_token_grant
    with pytest.raises(ValueError, match="refresh_token should be a non-empty"):
        factory(URL_, "", "i")
