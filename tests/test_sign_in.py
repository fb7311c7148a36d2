"""Visitors sign in, come back to where they were, and leave."""

import asyncio
import base64
import gc
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp_session
import answers
import pytest
import redis.asyncio as redis
from aiohttp import ClientSession, web
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from aiohttp_session.redis_storage import RedisStorage
from conftest import RedisServer
from hypothesis import example, given
from hypothesis import strategies as st
from live import eventually, live
from sign_in_site import (
    CLIENT_ID,
    CLIENT_SECRET,
    HTML,
    KEY,
    NAVIGATE,
    Clock,
    Issuer,
    MemoryStorage,
    Visitor,
    errors,
    hangs,
    issuer,
    links,
    location,
    note,
    served,
    site,
    told,
    visited,
    visitor_of,
    warnings,
)
from yarl import URL

from aiohttp_middlewares import (
    JWTCookieStorage,
    SignedCookieStorage,
    debug_error_handler,
    error_middleware,
    get_user,
    openid_connect,
    problem_error_handler,
    session_middleware,
    sign_in_middleware,
    sign_in_url,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.who import set_user
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.sign_in._attempt import Attempt, local_target, same
from aiohttp_middlewares.sign_in._provider import Provider

__all__ = ("issuer", "told")


def provider(issuer: Issuer, **options: Any) -> Provider:
    return openid_connect(issuer.issuer, CLIENT_ID, CLIENT_SECRET, **options)


# What it does
# ============


async def test_visitor_signs_in_and_comes_back_to_where_he_was(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.sign_in("/notes/7?sort=new&x=%2F#top")
        assert location(response) == "/notes/7?sort=new&x=%2F"
        known = await visitor.who()
        assert known["user"] == "24400320"
        assert known["claims"] == {
            "sub": "24400320",
            "name": "Jane Doe",
            "preferred_username": "j.doe",
            "email": "jane@example.com",
            "email_verified": True,
        }


async def test_provider_is_asked_with_state_nonce_and_a_challenge(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        url = await visitor.to_provider()
        asked = dict(url.query)
        assert len(asked.pop("state")) >= 22  # of 64 characters: 128 bits
        assert len(asked.pop("nonce")) >= 22
        assert len(asked.pop("code_challenge")) == 43
        assert asked == {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": str(visitor.base / "-/auth/callback"),
            "scope": "openid profile email",
            "code_challenge_method": "S256",
        }
        again = await visitor.to_provider()
        for name in ("state", "nonce", "code_challenge"):
            assert again.query[name] != url.query[name]


async def test_code_is_exchanged_with_the_verifier_of_the_challenge(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        url = await visitor.to_provider()
        await visitor.open(await visitor.back_from(url))
        [form] = issuer.forms
        assert form["grant_type"] == "authorization_code"
        assert form["redirect_uri"] == url.query["redirect_uri"]
        # The provider has compared it with the challenge.
        assert 43 <= len(form["code_verifier"]) <= 128
        assert (await visitor.who())["user"] == "24400320"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", NAVIGATE, 303),
        ("GET", {"Sec-Fetch-Mode": "navigate"}, 303),
        ("POST", {"Sec-Fetch-Mode": "navigate"}, 303),
        # A browser that does not say.
        ("GET", {"Accept": HTML}, 303),
        ("GET", {"Accept": "TEXT/HTML"}, 303),
        ("GET", {"Accept": "application/json, text/html;q=0.1"}, 303),
        ("POST", {"Accept": HTML}, 401),
        ("HEAD", {"Accept": HTML}, 401),
        ("PUT", {"Accept": HTML}, 401),
        ("OPTIONS", {"Accept": HTML}, 401),
        ("GET", {"Accept": "text/html;q=0"}, 401),
        ("GET", {"Accept": "application/json"}, 401),
        ("GET", {"Accept": "*/*"}, 401),
        ("GET", {"Accept": "text/*"}, 401),
        ("GET", {"Accept": ""}, 401),
        ("GET", {}, 401),
        # What is no navigation, whatever it accepts.
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": "cors"}, 401),
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": "same-origin"}, 401),
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": "no-cors"}, 401),
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": "websocket"}, 401),
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": ""}, 401),
        ("GET", {"Accept": HTML, "Sec-Fetch-Mode": "navigate, cors"}, 401),
        (
            "GET",
            {"Accept": HTML, "Connection": "Upgrade", "Upgrade": "websocket"},
            401,
        ),
        (
            "GET",
            {**NAVIGATE, "Connection": "Upgrade", "Upgrade": "WebSocket"},
            401,
        ),
    ],
)
async def test_navigation_is_sent_to_the_provider_and_all_else_gets_a_401(
    issuer: Issuer, method: str, headers: dict[str, str], status: int
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.ask("/page", method, headers)
        assert response.status == status
        assert response.headers.getall("Cache-Control") == ["no-store"]
        if status == 401:
            assert response.headers["WWW-Authenticate"].startswith("Cookie ")
            assert "Location" not in response.headers
            assert "Set-Cookie" not in response.headers
            assert issuer.asked == {}


async def test_websocket_of_somebody_unknown_gets_a_401(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        with pytest.raises(Exception, match="401"):
            await visitor.session.ws_connect(visitor.base / "chat")


async def test_sign_in_ends_after_max_age_whatever_was_done_since(
    issuer: Issuer,
) -> None:
    clock = Clock()
    app = site(provider(issuer), max_age=600, clock=clock)
    async with visited(app) as visitor:
        await visitor.sign_in()
        clock.now += 599
        await visitor.open("/put?cart=1")  # the session is saved anew
        assert (await visitor.who())["user"] == "24400320"
        clock.now += 1
        url = await visitor.to_provider("/page")
        response = await visitor.open(await visitor.back_from(url))
        assert location(response) == "/page"
        assert (await visitor.who())["user"] == "24400320"


async def test_sign_in_that_is_over_makes_room_for_the_next(
    issuer: Issuer,
) -> None:
    clock = Clock()
    issuer.user["groups"] = ["g" * 2600]
    app = site(provider(issuer), keep=("sub", "groups"), clock=clock)
    async with visited(app) as visitor:
        await visitor.sign_in()
        assert (await visitor.who())["user"] == "24400320"
        clock.now += 8 * 3600
        begun = [await visitor.to_provider("/" + "p" * 600) for _ in range(3)]
        for url in begun[:1]:
            response = await visitor.open(await visitor.back_from(url))
            assert location(response) == "/" + "p" * 600


async def test_sign_in_lasts_eight_hours_by_default(issuer: Issuer) -> None:
    clock = Clock()
    async with visited(site(provider(issuer), clock=clock)) as visitor:
        await visitor.sign_in()
        clock.now += 8 * 3600 - 1
        await visitor.who()
        clock.now += 1
        await visitor.to_provider()


async def test_nobody_is_sent_away_where_it_is_not_required(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer), required=False)) as visitor:
        response = await visitor.open("/shop?page=2&q=%26%2Fx")
        found = await response.json()
        assert (found["user"], found["claims"]) == (None, {})
        response = await visitor.sign_in(found["sign_in_url"])
        assert location(response) == "/shop?page=2&q=%26%2Fx"
        assert (await visitor.who())["user"] == "24400320"
        # Who is known by now has nothing to do there.
        response = await visitor.open(found["sign_in_url"])
        assert location(response) == "/shop?page=2&q=%26%2Fx"


async def test_link_to_sign_in_works_wherever_nobody_is_asked(
    issuer: Issuer,
) -> None:
    app = site(provider(issuer), ignore=["/public"])
    async with visited(app) as visitor:
        found = await (await visitor.ask("/public")).json()
        assert found["user"] is None
        assert (
            location(await visitor.sign_in(found["sign_in_url"])) == "/public"
        )


async def test_link_without_the_middleware_says_what_is_missing() -> None:
    app = web.Application()
    said = []

    async def page(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError) as caught:
            sign_in_url(request)
        said.append(str(caught.value))
        return web.Response()

    app.router.add_get("/", page)
    async with visited(app) as visitor:
        await visitor.ask()
    assert said == [
        "sign_in_url needs sign_in_middleware outside of the handler"
    ]


async def test_fetch_of_the_link_gets_a_401(issuer: Issuer) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.open(
            "/-/auth/sign-in?next=/", Sec_Fetch_Mode="cors"
        )
        assert response.status == 401
        # What says nothing of it may be a browser.
        response = await visitor.ask("/-/auth/sign-in?next=/")
        assert response.status == 303


async def test_ignored_urls_need_nobody_and_the_rest_does(
    issuer: Issuer,
) -> None:
    app = site(
        provider(issuer), ignore={"/hook": "POST", re.compile("/open/"): "GET"}
    )
    async with visited(app) as visitor:
        response = await visitor.ask("/hook", "POST")
        assert response.status == 200
        assert "Cookie" not in response.headers.get("Vary", "")
        assert (await visitor.ask("/hook")).status == 401
        assert (await visitor.ask("/open/page")).status == 200
        assert (await visitor.ask("/open/%2E%2E/page")).status == 401


async def test_whoever_is_known_outside_is_let_through(
    issuer: Issuer,
) -> None:
    @web.middleware
    async def bearer(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.headers.get("Authorization") == "Bearer good":
            set_user(request, "robot", {"scope": "read"})
        return await handler(request)

    async with visited(site(provider(issuer), bearer)) as visitor:
        response = await visitor.ask(
            "/api", headers={"Authorization": "Bearer good"}
        )
        found = await response.json()
        assert found["user"] == "robot"
        assert found["claims"] == {"scope": "read"}
        # The session was not asked for.
        assert "Vary" not in response.headers
        assert (await visitor.ask("/api")).status == 401
        # Also at the end of a sign-in that is none.
        response = await visitor.ask(
            "/-/auth/callback?state=x&code=y",
            headers={"Authorization": "Bearer good"},
        )
        assert location(response) == "/"


async def test_user_is_seen_outside_of_a_clone(issuer: Issuer) -> None:
    seen = []

    @web.middleware
    async def look(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append(get_user(request))
        return response

    @web.middleware
    async def clone(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(remote="192.0.2.1"))

    # By a clone that shares nothing the session is found, and the user kept.
    async with visited(site(provider(issuer), clone)) as visitor:
        await visitor.sign_in()
        assert (await visitor.who())["user"] == "24400320"
    async with visited(site(provider(issuer), look)) as visitor:
        await visitor.sign_in()
        await visitor.who()
    assert seen == ["24400320"]


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        ("jane@example.com", "jane@example.com"),
        (lambda request: request.query.get("as"), "joe & co"),
        (lambda request: None, None),
        (None, None),
    ],
)
async def test_provider_is_told_whom_to_ask_for(
    issuer: Issuer, hint: Any, sent: str | None
) -> None:
    async with visited(site(provider(issuer), login_hint=hint)) as visitor:
        url = await visitor.to_provider("/?as=joe+%26+co")
        assert url.query.get("login_hint") == sent


async def test_all_addresses_are_below_the_path(issuer: Issuer) -> None:
    app = site(provider(issuer), path="/admin/auth")
    async with visited(app) as visitor:
        url = await visitor.to_provider()
        assert URL(url.query["redirect_uri"]).path == "/admin/auth/callback"
        await visitor.open(await visitor.back_from(url))
        found = await visitor.who()
        assert found["user"] == "24400320"
        assert found["sign_in_url"].startswith("/admin/auth/sign-in?")
        response = await visitor.open("/admin/auth/logout", "POST")
        assert location(response) == "/admin/auth/signed-out"


# Several tabs
# ============


async def test_three_tabs_at_once_come_back_each_to_its_place(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        begun = [await visitor.to_provider(f"/{tab}") for tab in "abc"]
        for tab, url in zip("abc", begun, strict=True):
            callback = await visitor.back_from(url)
            assert location(await visitor.open(callback)) == f"/{tab}"
        assert issuer.asked["/token"] == 3


async def test_tabs_that_take_long_addresses_never_exceed_the_cookie(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    long = "/" + "p" * 600 + "?" + "q" * 90
    async with visited(site(provider(issuer))) as visitor:
        begun = []
        for number in range(12):
            url = f"{long}{number:02}"
            begun.append(await visitor.to_provider(url))
            assert len(visitor.cookie) < 4000
        # The last three at least are there, and the first is not.
        for number in (9, 10, 11):
            response = await visitor.open(
                await visitor.back_from(begun[number])
            )
            assert location(response) == f"{long}{number:02}"
        async with visitor_of(visitor.base) as other:
            first = await other.back_from(begun[0])
        await visitor.open("/-/auth/logout", "POST")
        assert (await visitor.open(first)).status == 400
    assert errors(told) == []


async def test_address_that_is_too_long_comes_back_without_its_query(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.sign_in("/search?" + "q" * 2000)
        assert location(response) == "/search"
        await visitor.open("/-/auth/logout", "POST")
        response = await visitor.sign_in("/" + "p" * 2000)
        assert location(response) == "/"


async def test_no_more_than_eight_are_under_way_on_a_server(
    issuer: Issuer,
) -> None:
    app = site(provider(issuer), storage=MemoryStorage())
    async with visited(app) as visitor:
        begun = [await visitor.to_provider(f"/{tab}") for tab in range(9)]
        kept = await (await visitor.open("/peek")).json()
        [under_way] = kept.values()
        assert [entry[4] for entry in under_way] == [
            f"/{tab}" for tab in range(1, 9)
        ]
        async with visitor_of(visitor.base) as other:
            first = await other.back_from(begun[0])
        assert (await visitor.open(first)).status == 400


async def test_sign_ins_that_are_old_are_forgotten_when_another_begins(
    issuer: Issuer,
) -> None:
    clock = Clock()
    async with visited(site(provider(issuer), clock=clock)) as visitor:
        await visitor.to_provider("/a")
        clock.now += 3601
        await visitor.to_provider("/b")
        [under_way] = (await (await visitor.open("/peek")).json()).values()
        assert [entry[4] for entry in under_way] == ["/b"]


# The session
# ===========


async def test_session_is_a_new_one_with_nothing_of_the_old(
    issuer: Issuer,
) -> None:
    storage = MemoryStorage()
    async with visited(site(provider(issuer), storage=storage)) as visitor:
        await visitor.open("/put?cart=full")
        before = visitor.cookie
        url = await visitor.to_provider("/a")
        other = await visitor.to_provider("/b")
        await visitor.open(await visitor.back_from(url))
        after = visitor.cookie
        assert after != before
        kept = await (await visitor.open("/peek")).json()
        assert "cart" not in kept
        # Whoever planted the session does not share it, and what was in it is
        # of no use any more.
        assert json.loads(storage.kept[before]) == {}
        async with visitor_of(visitor.base) as attacker:
            attacker.session.cookie_jar.update_cookies(
                {"session": before}, visitor.base
            )
            assert (await attacker.open("/who")).status == 303
        # The other tab goes on.
        response = await visitor.open(await visitor.back_from(other))
        assert location(response) == "/b"


async def test_sign_in_of_another_provider_or_path_is_none(
    issuer: Issuer,
) -> None:
    """GHSA-8fpg-xm3f-6cx3 was one of that kind."""
    one = site(provider(issuer))
    others = [
        site(openid_connect(issuer.issuer, "another id", CLIENT_SECRET)),
        site(provider(issuer), path="/-/other"),
    ]
    async with visited(one) as visitor:
        await visitor.sign_in()
        await visitor.who()
        for app in others:
            async with served(app) as base:
                other = Visitor(visitor.session, base)
                assert (await other.open("/who")).status == 303


async def test_state_of_another_provider_is_none(issuer: Issuer) -> None:
    app = web.Application(middlewares=[session_middleware(KEY)])
    one, two = web.Application(), web.Application()
    for sub, client_id in ((one, "one"), (two, "two")):
        path = f"/{client_id}/auth"
        sub.middlewares.append(
            sign_in_middleware(
                openid_connect(issuer.issuer, client_id, CLIENT_SECRET),
                path=path,
            )
        )
        app.add_subapp(f"/{client_id}", sub)
    async with visited(app) as visitor:
        url = await visitor.to_provider("/one/")
        callback = await visitor.back_from(url)
        crossed = callback.with_path("/two/auth/callback").with_query(
            callback.query
        )
        response = await visitor.open(crossed)
        assert response.status == 400
        assert "/token" not in issuer.asked
        assert (await visitor.open(callback)).status == 303


@pytest.mark.parametrize(
    "entry",
    [
        None,
        1,
        "jane",
        [],
        {},
        {"user": 7, "claims": {}, "at": 1},
        {"user": "jane", "claims": [], "at": 1},
        {"user": "jane", "claims": {}, "at": "1"},
        {"user": "jane", "claims": {}},
        {"user": "jane", "at": 1e9},
    ],
)
async def test_what_others_have_put_into_the_session_is_nobody(
    issuer: Issuer, entry: Any
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.sign_in()
        kept = await (await visitor.open("/peek")).json()

        async def spoil(request: web.Request) -> web.Response:
            session = await aiohttp_session.get_session(request)
            for name in kept:
                session[name] = entry
            session[next(iter(kept)).replace("signed_in", "sign_ins")] = entry
            return web.Response()

        app = web.Application(middlewares=[session_middleware(KEY)])
        app.router.add_get("/", spoil)
        async with served(app) as base:
            await Visitor(visitor.session, base).ask()
        url = await visitor.to_provider()
        await visitor.open(await visitor.back_from(url))
        assert (await visitor.who())["user"] == "24400320"


async def test_session_keeps_the_claims_it_is_told_to_and_no_others(
    issuer: Issuer,
) -> None:
    issuer.user["roles"] = ["admin", "reader"]
    issuer.user["phone_number"] = "+1"
    app = site(provider(issuer), keep=("sub", "roles", "nonsense"))
    async with visited(app) as visitor:
        await visitor.sign_in()
        assert (await visitor.who())["claims"] == {
            "sub": "24400320",
            "roles": ["admin", "reader"],
        }


async def test_claims_that_do_not_fit_end_in_a_page_that_says_so(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.user["groups"] = [f"group-{number}" for number in range(300)]
    app = site(provider(issuer), keep=("sub", "groups"))
    async with visited(app) as visitor:
        response = await visitor.sign_in()
        assert response.status == 500
        assert response.content_type == "text/html"
        text = await response.text()
        assert "4096 bytes" in text
        assert links(text) == []  # no way round and round
        assert errors(told) == [
            "A sign-in does not fit the 4096 bytes of the session cookie: keep "
            "fewer claims, or use a storage on the server",
            "GET /-/auth/callback failed with 500",
        ]
        # The visitor may try again, and nobody is signed in.
        assert (await visitor.open("/who")).status == 303
        # With fewer groups it fits.
        issuer.user["groups"] = ["group-1"]
        assert location(await visitor.sign_in()) == "/"


async def test_claims_that_fit_beside_no_other_sign_in_push_those_out(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.user["groups"] = ["g" * 100] * 22
    app = site(provider(issuer), keep=("sub", "groups"))
    async with visited(app) as visitor:
        begun = [await visitor.to_provider("/" + "p" * 600) for _ in range(3)]
        await visitor.open(await visitor.back_from(begun[0]))
        assert (await visitor.who())["user"] == "24400320"
        # Those tabs know who it is by now.
        response = await visitor.open(await visitor.back_from(begun[1]))
        assert location(response) == "/"
    assert errors(told) == []


async def test_claims_of_any_size_fit_a_storage_on_a_server(
    issuer: Issuer,
) -> None:
    issuer.user["groups"] = [f"group-{number}" for number in range(300)]
    app = site(
        provider(issuer), storage=MemoryStorage(), keep=("sub", "groups")
    )
    async with visited(app) as visitor:
        await visitor.sign_in()
        assert len((await visitor.who())["claims"]["groups"]) == 300


COOKIES: dict[str, Callable[[], Any]] = {
    "jwt": lambda: JWTCookieStorage(KEY),
    "signed": lambda: SignedCookieStorage(KEY),
    "encrypted": lambda: EncryptedCookieStorage(
        KEY.encode(), cookie_name="session"
    ),
}


@pytest.mark.parametrize("kind", COOKIES)
async def test_any_cookie_holds_three_tabs_and_claims_that_fit(
    issuer: Issuer, kind: str
) -> None:
    app = site(
        provider(issuer), storage=COOKIES[kind](), keep=("sub", "groups")
    )
    async with visited(app) as visitor:
        begun = [
            await visitor.to_provider("/" + "p" * 600 + tab) for tab in "abc"
        ]
        for tab, url in zip("abc", begun, strict=True):
            response = await visitor.open(await visitor.back_from(url))
            assert location(response).endswith(tab)
        # In or told, and nothing in between: the last that fits, by halves.
        fits, too_many = 1000, 3000
        while too_many - fits > 1:
            number = (fits + too_many) // 2
            issuer.user["groups"] = ["x" * number]
            await visitor.open("/-/auth/logout", "POST")
            response = await visitor.sign_in()
            status = (await visitor.open("/who")).status
            assert (response.status, status) in ((303, 200), (500, 303))
            if response.status == 303:
                fits = number
            else:
                too_many = number
        assert fits > 1000
        assert too_many < 3000


async def test_session_in_redis_keeps_what_it_is_told_to(
    issuer: Issuer, redis_server: RedisServer
) -> None:
    issuer.document["end_session_endpoint"] = f"{issuer.issuer}/end"
    issuer.more["groups"] = ["group"] * 1000
    async with redis.Redis(unix_socket_path=str(redis_server.socket)) as server:
        storage = RedisStorage(server, cookie_name="session", max_age=600)
        app = site(provider(issuer), storage=storage, keep=("sub", "groups"))
        async with visited(app) as visitor:
            url = await visitor.to_provider("/a")
            before = visitor.cookie
            await visitor.open(await visitor.back_from(url))
            assert visitor.cookie != before
            assert len((await visitor.who())["claims"]["groups"]) == 1000
            # One that is good, and one that is empty.
            kept = [await server.get(key) for key in await server.keys()]
            assert kept.count(b"{}") == 1
            assert len(kept) == 2
            response = await visitor.open("/-/auth/logout", "POST")
            assert "id_token_hint" in URL(location(response)).query
            assert (await visitor.open("/who")).status == 303


async def test_session_that_the_application_has_filled_ends_in_that_page(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.open("/put?cart=" + "x" * 2900)
        response = await visitor.open("/who")
        assert response.status == 500
        assert "4096 bytes" in await response.text()
    assert len(errors(told)) == 2


async def test_missing_session_middleware_is_named(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    caught = []

    @web.middleware
    async def catch(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except RuntimeError as exc:
            caught.append(str(exc))
            raise web.HTTPNoContent from None

    app = web.Application(
        middlewares=[catch, sign_in_middleware(provider(issuer))]
    )
    async with visited(app) as visitor:
        for path in ("/", "/-/auth/sign-in", "/-/auth/callback"):
            await visitor.open(path)
        await visitor.open("/-/auth/logout", "POST")
    assert len(caught) == 4
    assert set(caught) == {
        "sign_in_middleware needs session_middleware outside of it: put it "
        "before it in the list of middlewares"
    }


# Leaving
# =======


async def test_logout_empties_the_session_and_ends_on_a_page_for_anybody(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.sign_in()
        await visitor.open("/put?cart=full")
        response = await visitor.open("/-/auth/logout", "POST")
        assert location(response) == "/-/auth/signed-out"
        assert 'session=""' in response.headers["Set-Cookie"] or (
            "session=;" in response.headers["Set-Cookie"]
        )
        response = await visitor.open("/-/auth/signed-out")
        assert response.status == 200
        text = await response.text()
        assert "You have signed out" in text
        [link] = links(text)
        assert await (await visitor.ask("/peek")).json() == {}
        assert (await visitor.open("/who")).status == 303
        # The way back in.
        assert location(await visitor.sign_in(link)) == "/"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_logout_takes_a_post_only(issuer: Issuer, method: str) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.sign_in()
        response = await visitor.open("/-/auth/logout", method)
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        await visitor.who()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none, cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ],
)
async def test_logout_is_refused_from_another_origin(
    issuer: Issuer, headers: dict[str, str]
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.sign_in()
        response = await visitor.ask("/-/auth/logout", "POST", headers)
        assert response.status == 403
        assert "Set-Cookie" not in response.headers
        await visitor.who()


async def test_logout_is_taken_from_the_own_origin(issuer: Issuer) -> None:
    async with visited(site(provider(issuer))) as visitor:
        own = str(visitor.base.origin())
        for headers in (
            {"Sec-Fetch-Site": "same-origin", "Origin": own},
            {"Origin": own},
            {},
        ):
            await visitor.sign_in()
            response = await visitor.ask("/-/auth/logout", "POST", headers)
            assert response.status == 303
            assert (await visitor.open("/who")).status == 303


async def test_logout_of_nobody_leads_to_the_same_page(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.open("/-/auth/logout", "POST")
        assert location(response) == "/-/auth/signed-out"
        assert issuer.asked == {}
        for method in ("GET", "HEAD"):
            response = await visitor.open("/-/auth/signed-out", method)
            assert response.status == 200
        response = await visitor.open("/-/auth/signed-out", "POST")
        allowed = response.headers["Allow"]
        assert (response.status, allowed) == (405, "GET,HEAD")


@pytest.mark.parametrize("on_server", [False, True])
async def test_logout_goes_on_to_the_provider(
    issuer: Issuer, on_server: bool
) -> None:
    issuer.document["end_session_endpoint"] = f"{issuer.issuer}/end?x=1"
    storage: Any = MemoryStorage() if on_server else KEY
    async with visited(site(provider(issuer), storage=storage)) as visitor:
        await visitor.sign_in()
        response = await visitor.open("/-/auth/logout", "POST")
        url = URL(location(response))
        assert url.path == "/end"
        asked = dict(url.query)
        assert asked.pop("x") == "1"
        assert asked.pop("post_logout_redirect_uri") == str(
            visitor.base / "-/auth/signed-out"
        )
        if on_server:  # there is room for it
            assert asked.pop("id_token_hint").count(".") == 2
        else:
            assert asked.pop("client_id") == CLIENT_ID
        assert asked == {}
        assert (await visitor.open("/who")).status == 303


async def test_id_token_that_is_too_long_for_an_address_is_no_hint(
    issuer: Issuer,
) -> None:
    issuer.document["end_session_endpoint"] = f"{issuer.issuer}/end"
    issuer.user["groups"] = ["group"] * 500
    app = site(provider(issuer), storage=MemoryStorage())
    async with visited(app) as visitor:
        await visitor.sign_in()
        response = await visitor.open("/-/auth/logout", "POST")
        assert set(URL(location(response)).query) == {
            "client_id",
            "post_logout_redirect_uri",
        }


async def test_logout_does_not_go_on_where_it_is_not_wanted(
    issuer: Issuer,
) -> None:
    issuer.document["end_session_endpoint"] = f"{issuer.issuer}/end"
    app = site(provider(issuer, logout=False), storage=MemoryStorage())
    async with visited(app) as visitor:
        await visitor.sign_in()
        kept = await (await visitor.open("/peek")).json()
        assert "id_token" not in str(kept)
        response = await visitor.open("/-/auth/logout", "POST")
        assert location(response) == "/-/auth/signed-out"


async def test_logout_works_here_while_the_provider_is_away(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        await visitor.sign_in()
        # By another process, which has not asked for the configuration yet.
        issuer.instead["/.well-known/openid-configuration"] = hangs
        async with served(site(provider(issuer), timeout=0.05)) as base:
            other = Visitor(visitor.session, base)
            response = await other.open("/-/auth/logout", "POST")
            assert location(response) == "/-/auth/signed-out"
            assert (await visitor.open("/who")).status == 303
    assert warnings(told) == [
        "A visitor signed out here only: it took longer than 0.05 s"
    ]


async def test_visitor_who_leaves_while_the_provider_is_asked_is_out(
    issuer: Issuer,
) -> None:
    storage = MemoryStorage()
    async with visited(site(provider(issuer), storage=storage)) as visitor:
        await visitor.sign_in()
        cookie = visitor.cookie
        path = "/.well-known/openid-configuration"
        issuer.instead[path] = hangs
        del issuer.asked[path]
        other_process = site(provider(issuer), storage=storage)
        async with served(other_process) as base:
            other = Visitor(visitor.session, base)
            leaving = asyncio.create_task(other.open("/-/auth/logout", "POST"))
            await eventually(lambda: path in issuer.asked)
            leaving.cancel()
            assert storage.kept[cookie] == "{}"
            assert (await visitor.open("/who")).status == 303


# What visitors may send
# ======================


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/ /evil.example",
        "/\x00/evil.example",
        "/path\\..\\..\\evil.example",
        "https://evil.example",
        "https:evil.example",
        "http:/evil.example",
        "HTTP://evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "evil.example",
        "@evil.example",
        ".evil.example",
        ":80",
        "",
        "?next=1",
        "#top",
        "/\u2044evil.example",
        "/\uff0fevil.example",
        "/stra\u00dfe",
        "/\x85/evil.example",
        "/\u2028/evil.example",
        "/page\r\nSet-Cookie: a=b",
    ],
)
async def test_no_visitor_is_sent_to_another_origin(
    issuer: Issuer, target: str
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        url = visitor.base.join(URL("/-/auth/sign-in")).with_query(next=target)
        response = await visitor.open(url)
        response = await visitor.open(
            await visitor.back_from(URL(location(response)))
        )
        assert location(response) == "/"
        # Nor when nothing has to be done for it.
        assert location(await visitor.open(url)) == "/"


@pytest.mark.parametrize(
    "target",
    [
        "/%2F%2Fevil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "/a//b",
        "/page?to=//evil.example&at=\\",
        "/page?to=https://evil.example",
        "/page:80",
        "/@evil.example",
        "/.well-known/x",
        "/page#part",
        "/'\"<>",
    ],
)
async def test_path_of_the_site_is_kept_as_it_is(
    issuer: Issuer, target: str
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        url = visitor.base.join(URL("/-/auth/sign-in")).with_query(next=target)
        await visitor.sign_in("/")
        response = await visitor.open(url)
        assert location(response) == target
        assert visitor.base.join(
            URL(location(response), encoded=True)
        ).origin() == (visitor.base.origin())


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/",
        "///evil.example",
        "//evil.example\\@127.0.0.1/",
        "/\\evil.example",
        "/%2F%2Fevil.example",
        "http://evil.example/",
        "http://evil.example//evil.example/",
    ],
)
async def test_target_of_a_request_is_no_way_out_either(
    issuer: Issuer, target: str
) -> None:
    app = site(provider(issuer))
    async with live(app, access_log=None) as server:
        connection = await server.connect()
        connection.write(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Sec-Fetch-Mode: navigate\r\n\r\n"
        )
        answer = await connection.head()
        connection.leave()
    assert answer.status in (303, 400)
    for value in answer.headers.getall("Set-Cookie", []):
        cookie = value.partition("=")[2].partition(";")[0]
        note(cookie)
        payload = json.loads(base64.b64decode(cookie.partition(".")[0] + "=="))
        [[attempt]] = payload.values()
        kept = attempt[4]
        assert (
            URL("http://a.example").join(URL(kept, encoded=True)).host
            == "a.example"
        )
        assert re.match(r"/(?![/\\])", kept)
    note(*URL(answer.headers.get("Location", "")).query.values())


async def test_answer_of_an_attacker_signs_nobody_in(issuer: Issuer) -> None:
    """Login CSRF: the attacker's code and state in the victim's browser."""
    app = site(provider(issuer))
    async with visited(app) as attacker, visitor_of(attacker.base) as victim:
        callback = await attacker.back_from(await attacker.to_provider("/a"))
        # A victim who has not begun, and one who has.
        for _ in range(2):
            response = await victim.open(callback)
            assert response.status == 400
            assert "Set-Cookie" not in response.headers
            await victim.to_provider("/v")
        assert (await victim.open("/who")).status == 303
        assert "/token" not in issuer.asked
        # The page has a way on.
        [link] = links(await response.text())
        assert location(await victim.sign_in(link)) == "/"


async def test_code_of_another_sign_in_is_not_taken(issuer: Issuer) -> None:
    """PKCE: a code that was stolen is bound to who has begun."""
    app = site(provider(issuer))
    async with visited(app) as thief, visitor_of(thief.base) as victim:
        stolen = await victim.back_from(await victim.to_provider())
        callback = await thief.back_from(await thief.to_provider())
        response = await thief.open(
            callback.update_query(code=stolen.query["code"])
        )
        assert response.status == 403
        assert (await thief.open("/who")).status == 303


@pytest.mark.parametrize(
    "spoil",
    [
        lambda query: {**query, "state": "wrong"},
        lambda query: {**query, "state": query["state"][:-1]},
        lambda query: {**query, "state": query["state"] + "x"},
        lambda query: {**query, "state": query["state"].swapcase()},
        lambda query: {**query, "state": ""},
        lambda query: {**query, "state": "\udc80\x00\u2028"},
        lambda query: {**query, "state": "x" * 4000},
        lambda query: {"code": query["code"]},
        lambda query: {},
        lambda query: [*query.items(), ("state", query["state"])],
        lambda query: {"error": "access_denied", "state": "wrong"},
    ],
)
async def test_wrong_state_is_a_page_with_a_way_on(
    issuer: Issuer, told: list[logging.LogRecord], spoil: Any
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        query = dict(callback.query)
        pairs = spoil(query)
        wrong = callback.with_query(None)
        text = urlencode(pairs, errors="surrogatepass")
        response = await visitor.open(URL(f"{wrong}?{text}", encoded=True))
        assert response.status == 400
        assert len(links(await response.text())) == 1
        assert "/token" not in issuer.asked
        # It has used nothing up, and who is known by now is sent on.
        assert location(await visitor.open(callback)) == "/a"
        response = await visitor.open(URL(f"{wrong}?{text}", encoded=True))
        assert location(response) == "/"
    assert warnings(told) == []
    said = [record.getMessage() for record in told]
    assert any("or the session's cookie did not come" in x for x in said)


async def test_state_is_good_once(issuer: Issuer) -> None:
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        old = visitor.cookie
        assert location(await visitor.open(callback)) == "/a"
        # The back button, a bookmark.
        assert location(await visitor.open(callback)) == "/"
        # With a copy of the session, which a cookie cannot prevent.
        visitor.session.cookie_jar.clear()
        visitor.session.cookie_jar.update_cookies(
            {"session": old}, visitor.base
        )
        response = await visitor.open(callback)
        assert response.status == 400
        assert issuer.asked["/token"] == 1


async def test_state_is_good_for_an_hour(issuer: Issuer) -> None:
    clock = Clock()
    async with visited(site(provider(issuer), clock=clock)) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        clock.now += 3600
        assert location(await visitor.open(callback)) == "/a"
    async with visited(site(provider(issuer), clock=clock)) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        clock.now += 3601
        response = await visitor.open(callback)
        assert response.status == 400
        assert issuer.asked["/token"] == 1
        [link] = links(await response.text())
        assert location(await visitor.sign_in(link)) == "/a"


async def test_old_state_of_somebody_known_leads_to_where_it_was_for(
    issuer: Issuer,
) -> None:
    clock = Clock()
    async with visited(site(provider(issuer), clock=clock)) as visitor:
        old = await visitor.back_from(await visitor.to_provider("/old"))
        clock.now += 3000
        callback = await visitor.back_from(await visitor.to_provider("/new"))
        await visitor.open(callback)
        clock.now += 3000
        assert location(await visitor.open(old)) == "/old"
        assert issuer.asked["/token"] == 1


@asynccontextmanager
async def twice_at_once(
    issuer: Issuer,
    token: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[Any, Any, list[Any]]]:
    """A visitor, the callback that came twice, and the two answers."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return await token(request)

    issuer.instead["/token"] = waits
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        first = asyncio.create_task(visitor.open(callback))
        await arrived.wait()
        second = asyncio.create_task(visitor.open(callback))
        await asyncio.sleep(0.05)
        go_on.set()
        yield visitor, callback, [await first, await second]


async def test_callback_that_comes_twice_at_once_is_exchanged_once(
    issuer: Issuer,
) -> None:
    """As browsers on phones have it."""
    async with twice_at_once(issuer, issuer.token) as (visitor, _, answers):
        assert [*map(location, answers)] == ["/a", "/a"]
        assert issuer.asked["/token"] == 1
        await visitor.who()


@pytest.mark.parametrize(
    ("error", "status"), [("invalid_grant", 403), ("invalid_client", 502)]
)
async def test_callback_that_comes_twice_at_once_fails_in_the_same_way(
    issuer: Issuer, error: str, status: int
) -> None:
    """A browser shows the last answer: that of a used state explains less."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=400)

    async with twice_at_once(issuer, refuse) as (visitor, callback, answers):
        assert [answer.status for answer in answers] == [status, status]
        assert issuer.asked["/token"] == 1
        assert (await visitor.open(callback)).status == 400


async def test_visitor_who_leaves_takes_nothing_from_those_who_wait(
    issuer: Issuer,
) -> None:
    go_on = asyncio.Event()
    token = issuer.token

    async def waits(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await token(request)

    issuer.instead["/token"] = waits
    gone = asyncio.Event()

    @middleware
    async def sees(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            gone.set()
            raise

    app = site(provider(issuer), sees)
    async with live(app, access_log=None) as server:
        base = URL(f"http://{server.host}:{server.port}/")
        async with visitor_of(base) as visitor:
            callback = await visitor.back_from(await visitor.to_provider("/a"))
            first = asyncio.create_task(visitor.open(callback))
            await eventually(lambda: "/token" in issuer.asked)
            second = asyncio.create_task(visitor.open(callback))
            await asyncio.sleep(0.05)
            first.cancel()
            await gone.wait()
            go_on.set()
            assert location(await second) == "/a"
            assert issuer.asked["/token"] == 1


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS"])
async def test_callback_takes_a_get_only(issuer: Issuer, method: str) -> None:
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        response = await visitor.open(callback, method)
        assert (response.status, response.headers["Allow"]) == (405, "GET")
        response = await visitor.open("/-/auth/sign-in", method)
        assert (response.status, response.headers["Allow"]) == (405, "GET")
        assert location(await visitor.open(callback)) == "/a"


async def test_parameters_that_nobody_knows_are_ignored(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        response = await visitor.open(
            callback.update_query(session_state="x", scope="openid")
        )
        assert location(response) == "/a"


async def test_many_parameters_cost_no_more_than_their_number(
    issuer: Issuer,
) -> None:
    app = site(provider(issuer))
    async with visited(app) as visitor:
        query = "&".join(f"a{number % 3}" for number in range(2000))
        response = await visitor.open(f"/-/auth/callback?{query}")
        assert response.status == 400


async def test_host_that_is_none_is_refused_before_the_provider_is_asked(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        for host in ("evil@x", "a b", "a/b", ""):
            response = await visitor.open("/", Host=host)
            assert response.status == 400
        assert issuer.asked == {}


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({"Host": "Site.Example"}, "http://site.example"),
        ({"Host": "site.example:80"}, "http://site.example"),
        ({"Host": "site.example:8080"}, "http://site.example:8080"),
        ({"Host": "[::1]:8080"}, "http://[::1]:8080"),
    ],
)
async def test_callback_is_at_the_host_that_the_visitor_uses(
    issuer: Issuer, fields: dict[str, str], origin: str
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.open("/", **fields)
        url = URL(location(response))
        assert url.query["redirect_uri"] == f"{origin}/-/auth/callback"


async def test_state_is_compared_in_a_time_that_tells_nothing(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    async with visited(site(provider(issuer))) as visitor:
        states = [
            (await visitor.to_provider()).query["state"].encode()
            for _ in range(3)
        ]
        monkeypatch.setattr(
            "aiohttp_middlewares.sign_in._attempt.hmac.compare_digest", noted
        )
        await visitor.open(f"/-/auth/callback?state={states[0].decode()}")
    # With each of them, also after it was found.
    assert [pair for pair in compared if pair[1] == states[0]] == [
        (state, states[0]) for state in states
    ]


ODD_TEXTS = st.lists(
    st.sampled_from(
        [*"/\\?#@:.%&=;a \t\n\r\x00\x7f\x85\u2028\uff0f", "//", "evil.example"]
    )
    | st.characters(),
    max_size=12,
).map("".join)


@example("/" * 701)
@example("/a?" + "b" * 800)
@given(ODD_TEXTS)
def test_no_text_leads_a_browser_elsewhere(text: str) -> None:
    target = local_target(text)
    assert target in ("/", text, text.partition("?")[0])
    assert len(target) <= 700
    # WHATWG URL 4.4, as far as it can lead away from an origin.
    read = re.sub("[\t\n\r]", "", target.strip("".join(map(chr, range(33)))))
    assert read == target
    assert re.match(r"/(?![/\\])", read)
    assert target.isascii()
    assert target.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON | st.lists(st.text() | st.integers(), min_size=5, max_size=5))
@example(["\ud800", "verifier", "nonce", 0, "/"])
@example(["state", "\ud800", "nonce", 0, "/"])
@example(["state", "verifier", "\ud800", 0, "/"])
def test_whatever_a_session_holds_is_an_attempt_or_none(kept: Any) -> None:
    attempt = Attempt.restored(kept)
    if attempt is not None:
        assert list(attempt)[:4] == kept[:4]
        assert attempt.target == local_target(kept[4])
        assert len(attempt.challenge) == 43
        assert attempt.has_state(kept[0])
        assert same(attempt.nonce, kept[2])


# What visitors see
# =================


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (HTML, "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("*/*", "application/problem+json"),
        ("text/html;q=0.5, application/json", "application/problem+json"),
    ],
)
async def test_pages_are_html_or_problem_details(
    issuer: Issuer, accept: str, content_type: str
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        for url, status in (
            ("/-/auth/callback?state=x", 400),
            ("/-/auth/callback?error=access_denied", 403),
            ("/-/auth/logout", 405),
            ("/-/auth/signed-out", 200),
        ):
            response = await visitor.open(url, Accept=accept)
            assert response.status == status
            assert response.content_type == content_type
            headers = response.headers
            assert headers.getall("Cache-Control") == ["no-store"]
            assert "Accept" in headers["Vary"]
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Content-Security-Policy"].startswith(
                "default-src 'none'"
            )
            if content_type == "text/html":
                assert "<h1>" in await response.text()
            else:
                problem = await response.json(content_type=content_type)
                assert problem["status"] == status
                assert set(problem) == {"type", "title", "status", "detail"}


async def test_refusal_of_the_provider_is_a_page_with_a_way_on(
    issuer: Issuer, told: list[logging.LogRecord]
) -> None:
    issuer.back = {
        "code": None,
        "error": "access_denied",
        "error_description": "<script>alert('no')</script>" + "x" * 1000,
    }
    async with visited(site(provider(issuer))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider("/a"))
        response = await visitor.open(callback)
        assert response.status == 403
        text = await response.text()
        assert "access_denied, &lt;script&gt;" in text
        assert "<script>" not in text
        assert len(text) < 1200
        response = await visitor.open(
            callback, Accept="application/json"
        )  # it is used
        assert response.status == 400
        issuer.back = {}
        [link] = links(text)
        assert location(await visitor.sign_in(link)) == "/a"
    assert warnings(told) == []
    said = [record.getMessage() for record in told]
    assert any("the provider refused with access_denied" in x for x in said)
    assert not any("script" in x for x in said)


async def test_refusal_without_a_state_shows_nothing_of_it(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        url = "/-/auth/callback?error=call+0900&error_description=call+0900"
        response = await visitor.open(url)
        assert response.status == 403
        assert "0900" not in await response.text()
        await visitor.sign_in()
        assert location(await visitor.open(url)) == "/"


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
async def test_provider_that_says_it_is_away_is_away(
    issuer: Issuer, error: str
) -> None:
    issuer.back = {"code": None, "error": error}
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.sign_in()
        assert response.status == 502


async def test_answer_without_a_code_is_none(issuer: Issuer) -> None:
    issuer.back = {"code": None}
    async with visited(site(provider(issuer))) as visitor:
        assert (await visitor.sign_in()).status == 502


async def test_page_stays_as_it_is_behind_the_error_middleware(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.open("/-/auth/callback?state=x")
        assert response.headers.getall("Content-Type") == [
            "text/html; charset=utf-8"
        ]
        assert (await response.text()).startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "handler", [problem_error_handler, debug_error_handler]
)
async def test_page_stays_as_it_is_with_handlers_that_render_by_accept(
    issuer: Issuer, handler: Handler
) -> None:
    issuer.back = {"code": None}
    error = error_middleware(default_handler=handler)
    async with visited(site(provider(issuer), error)) as visitor:
        away = await visitor.sign_in()
        assert away.status == 502
        for response in (
            away,
            await visitor.open("/-/auth/callback?state=x"),
            await visitor.open("/-/auth/callback?error=access_denied"),
        ):
            assert response.headers.getall("Cache-Control") == ["no-store"]
            assert len(links(await response.text())) == 1
        response = await visitor.ask("/")
        assert response.status == 401
        assert response.content_type == "application/problem+json"


# Every kind of answer
# ====================


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_answers_for_somebody_known_are_left_alone(
    issuer: Issuer, kind: answers.Kind
) -> None:
    @web.middleware
    async def clone(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request.clone(remote="192.0.2.1"))

    app = answers.application(
        session_middleware(KEY), clone, sign_in_middleware(provider(issuer))
    )
    async with visited(app) as visitor:
        await visitor.sign_in("/returned")
        method = "POST" if kind.name == "not_allowed" else "GET"
        response = await visitor.ask(kind.path, method, kind.fields)
        assert response.status == kind.status


@pytest.mark.parametrize("kind", answers.KINDS, ids=str)
async def test_nobody_unknown_gets_any_of_them(
    issuer: Issuer, kind: answers.Kind
) -> None:
    app = answers.application(
        session_middleware(KEY), sign_in_middleware(provider(issuer))
    )
    async with visited(app) as visitor:
        response = await visitor.ask(kind.path, "GET", kind.fields)
        assert response.status == 401
        assert (await visitor.open(kind.path)).status == 303


async def test_no_client_session_is_left_open(issuer: Issuer) -> None:
    async with visited(site(provider(issuer), timeout=0.5)) as visitor:
        await visitor.sign_in()
        await visitor.open("/-/auth/logout", "POST")
        issuer.instead["/token"] = hangs
        assert (await visitor.sign_in()).status == 502
        gc.collect()
        open_ones = [
            found
            for found in gc.get_objects()
            if isinstance(found, ClientSession) and not found.closed
        ]
        assert open_ones == [visitor.session]


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"provider": "github"}, TypeError, "that of github\\(\\) or openid"),
        ({"path": "auth"}, ValueError, "did you mean '/auth'"),
        ({"path": "/auth/"}, ValueError, "did you mean '/auth'"),
        ({"path": "/"}, ValueError, "path should be a path such as"),
        ({"path": ""}, ValueError, "path should be a path such as"),
        ({"path": "/a//b"}, ValueError, "path should be a path such as"),
        ({"path": "/a/../b"}, ValueError, "path should be a path such as"),
        ({"path": "/a?b"}, ValueError, "path should be a path such as"),
        ({"path": "/a b"}, ValueError, "path should be a path such as"),
        ({"path": "//evil"}, ValueError, "path should be a path such as"),
        ({"path": 7}, TypeError, "path should be a path such as"),
        ({"ignore": "/healthz"}, TypeError, r"did you mean \['/healthz'\]"),
        ({"ignore": ["healthz"]}, ValueError, "starts with '/'"),
        ({"required": 1}, TypeError, "required should be True or False"),
        ({"max_age": 0}, ValueError, "max_age should be a positive"),
        ({"max_age": None}, TypeError, "max_age should be a number"),
        ({"keep": "sub"}, TypeError, r"did you mean \['sub'\]"),
        ({"keep": [7]}, TypeError, "keep should be a collection of strings"),
        (
            {"keep": [""]},
            ValueError,
            "keep should be a collection of non-empty",
        ),
        ({"login_hint": ""}, ValueError, "login_hint should be a non-empty"),
        ({"login_hint": 7}, TypeError, "login_hint should be a non-empty"),
        ({"timeout": 0}, ValueError, "timeout should be a positive"),
        ({"clock": 7}, TypeError, "clock should be a callable"),
    ],
    ids=str,
)
def test_misconfiguration_is_told_when_it_is_built(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {
        "provider": openid_connect("https://a.example", "id"),
        **options,
    }
    with pytest.raises(error, match=f"sign_in_middleware .*{message}"):
        sign_in_middleware(given.pop("provider"), **given)


def test_function_for_the_hint_is_not_async() -> None:
    async def hint(request: web.Request) -> str | None:
        return None

    with pytest.raises(TypeError, match="login_hint should be a function that"):
        sign_in_middleware(
            openid_connect("https://a.example", "id"),
            login_hint=hint,  # type: ignore[arg-type]
        )


# What is left
# ============


async def test_nothing_is_left_to_the_garbage_collector(
    issuer: Issuer,
) -> None:
    """Of a redirect aiohttp itself leaves a cycle, whoever raises it."""
    async with visited(site(provider(issuer))) as visitor:
        for url, status in (
            ("/-/auth/callback?state=x", 400),
            ("/-/auth/callback?error=x", 403),
            ("/-/auth/logout", 405),
        ):
            assert await unreachable(visitor, url, status) == 0
        await visitor.sign_in()
        assert await unreachable(visitor, "/who", 200) == 0


async def unreachable(visitor: Visitor, url: str, status: int) -> int:
    """Requests in reference cycles after ten of them."""
    for _ in range(2):  # the first requests make what the rest uses
        await visitor.open(url)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            assert (await visitor.open(url)).status == status
        before = {id(found) for found in gc.get_objects()}
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [
            found
            for found in gc.garbage
            if id(found) in before
            and isinstance(found, web.BaseRequest | web.HTTPException)
        ]
        return len(left)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
