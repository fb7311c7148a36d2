"""What handlers ask of whoever calls them."""

import base64
import functools
import inspect
import logging
import re
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from discreet import keep
from pytest_aiohttp.plugin import AiohttpClient

from aiohttp_middlewares import (
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    error_middleware,
    requires,
)

KNOWN: dict[str, Any] = {
    "reads": {"sub": "ann", "scope": "read"},
    "writes": {"sub": "ann", "scope": "openid read write"},
    "listed": {"sub": "ann", "scp": ["read", "write"]},
    "in-words": {"sub": "ann", "scp": "read write"},
    "in-both": {"sub": "ann", "scope": "read", "scp": ["write"]},
    "scope-list": {"sub": "ann", "scope": ["read", "write"]},
    "admin": {"sub": "ann", "roles": ["user", "admin"]},
    "admin-tuple": {"sub": "ann", "roles": ("admin",)},
    "admin-word": {"sub": "ann", "roles": "admin"},
    "admin-reads": {"sub": "ann", "scope": "read", "roles": ["admin"]},
    "other-role": {"sub": "ann", "roles": ["administrator", "user admin"]},
    "other-case": {"sub": "ann", "scope": "READ", "roles": ["Admin"]},
    "joined": {"sub": "ann", "scope": "read,write reader unread"},
    "nothing": {"sub": "ann"},
    "odd": {
        "sub": "ann",
        "scope": 7,
        "scp": {"read": 1},
        "roles": {"admin": 1},
    },
    "odd-lists": {"sub": "ann", "scp": [7, None], "roles": [["admin"]]},
    "nobody": {"scope": "read write", "roles": ["admin"]},
}
TOKENS = {keep(f"a-token-of-{name}"): known for name, known in KNOWN.items()}


@requires("read")
async def read(request: web.Request) -> web.Response:
    """Reads."""
    return web.Response(text="read")


@requires("read", "write")
async def write(request: web.Request) -> web.Response:
    return web.Response(text="write")


@requires(role="admin")
async def rule(request: web.Request) -> web.Response:
    return web.Response(text="rule")


@requires("read", role="admin")
async def both(request: web.Request) -> web.Response:
    return web.Response(text="both")


@requires()
async def anybody(request: web.Request) -> web.Response:
    return web.Response(text="anybody")


class Note(web.View):
    @requires("read")
    async def get(self) -> web.Response:
        return web.Response(text=f"note {self.request.match_info['id']}")

    @requires("write")
    async def put(self) -> web.Response:
        return web.Response(text="put")

    async def post(self) -> web.Response:
        return web.Response(text="open")


class Site:
    name = "site"

    @requires("read")
    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def bare(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    @staticmethod
    @requires("read")
    async def static(request: web.Request) -> web.Response:
        return web.Response(text="static")


@requires("read")
async def with_database(database: str, request: web.Request) -> web.Response:
    return web.Response(text=database)


def application(*middlewares: Any) -> web.Application:
    app = web.Application(
        middlewares=middlewares
        or [bearer_auth_middleware(TOKENS.get, required=False)]
    )
    site = Site()
    handlers: dict[str, Any] = {
        "read": read,
        "write": write,
        "rule": rule,
        "both": both,
        "anybody": anybody,
        "page": site.page,
        "bound": requires("read")(site.bare),
        "static": site.static,
        "partial": functools.partial(with_database, "database"),
    }
    for path, handler in handlers.items():
        app.router.add_get(f"/{path}", handler)
    app.router.add_view("/notes/{id}", Note)
    return app


async def ask(
    aiohttp_client: AiohttpClient,
    path: str,
    who: str | None,
    method: str = "GET",
) -> aiohttp.ClientResponse:
    client = await aiohttp_client(application())
    headers = {}
    if who is not None:
        headers["Authorization"] = f"Bearer a-token-of-{who}"
    return await client.request(method, path, headers=headers)


# What it does
# ============


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/read", "reads"),
        ("/read", "writes"),
        ("/read", "in-words"),
        ("/write", "writes"),
        ("/write", "listed"),
        ("/write", "in-words"),
        ("/write", "in-both"),
        ("/write", "scope-list"),
        ("/rule", "admin"),
        ("/rule", "admin-tuple"),
        ("/rule", "admin-word"),
        ("/both", "admin-reads"),
        ("/anybody", "nothing"),
        ("/anybody", "odd"),
    ],
)
async def test_who_has_what_is_needed_is_let_in(
    aiohttp_client: AiohttpClient, path: str, who: str
) -> None:
    response = await ask(aiohttp_client, path, who)
    assert response.status == 200
    assert await response.text() == path[1:]
    assert "WWW-Authenticate" not in response.headers


INSUFFICIENT = 'Bearer error="insufficient_scope"'


@pytest.mark.parametrize(
    ("path", "who", "needed"),
    [
        ("/read", "nothing", 'scope="read"'),
        ("/read", "admin", 'scope="read"'),
        ("/read", "other-case", 'scope="read"'),
        ("/read", "joined", 'scope="read"'),
        ("/read", "odd", 'scope="read"'),
        ("/read", "odd-lists", 'scope="read"'),
        ("/write", "reads", 'scope="read write"'),
        ("/both", "reads", 'scope="read"'),
        ("/both", "admin", 'scope="read"'),
        ("/rule", "writes", None),
        ("/rule", "other-role", None),
        ("/rule", "other-case", None),
        ("/rule", "odd", None),
        ("/rule", "odd-lists", None),
    ],
)
async def test_who_lacks_something_is_told_what_is_needed(
    aiohttp_client: AiohttpClient, path: str, who: str, needed: str | None
) -> None:
    response = await ask(aiohttp_client, path, who)
    challenge = f"{INSUFFICIENT}, {needed}" if needed else INSUFFICIENT
    assert response.status == 403
    assert await response.text() == "You may not do this"
    assert response.headers.getall("WWW-Authenticate") == [challenge]


@pytest.mark.parametrize("path", ["/read", "/rule", "/both", "/anybody"])
@pytest.mark.parametrize("who", [None, "nobody"])
async def test_who_is_not_known_is_asked(
    aiohttp_client: AiohttpClient, path: str, who: str | None
) -> None:
    response = await ask(aiohttp_client, path, who)
    assert response.status == 401
    assert response.headers.getall("WWW-Authenticate") == ["Bearer"]
    assert response.headers.getall("Cache-Control") == ["no-store"]


async def test_methods_of_a_view_ask_each_for_its_own(
    aiohttp_client: AiohttpClient,
) -> None:
    path = "/notes/7"
    response = await ask(aiohttp_client, path, "reads")
    assert (response.status, await response.text()) == (200, "note 7")
    response = await ask(aiohttp_client, path, "reads", "PUT")
    assert response.status == 403
    response = await ask(aiohttp_client, path, "writes", "PUT")
    assert (response.status, await response.text()) == (200, "put")
    response = await ask(aiohttp_client, path, None, "POST")
    assert (response.status, await response.text()) == (200, "open")
    response = await ask(aiohttp_client, path, "writes", "DELETE")
    assert response.status == 405


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/page", "site"),
        ("/bound", "site"),
        ("/static", "static"),
        ("/partial", "database"),
    ],
)
async def test_methods_and_functions_with_more_arguments_can_be_handlers(
    aiohttp_client: AiohttpClient, path: str, text: str
) -> None:
    response = await ask(aiohttp_client, path, "reads")
    assert (response.status, await response.text()) == (200, text)
    assert (await ask(aiohttp_client, path, "nothing")).status == 403
    assert (await ask(aiohttp_client, path, None)).status == 401


async def test_it_is_the_same_whoever_found_out_who_asks(
    aiohttp_client: AiohttpClient,
) -> None:
    key, password = keep("a-key-of-somebody"), keep("a-password-of-hers")
    api_key = api_key_middleware({key: KNOWN["reads"]}.get)
    client = await aiohttp_client(application(api_key))
    fields = {"X-API-Key": key}
    assert (await client.get("/read", headers=fields)).status == 200
    assert (await client.get("/write", headers=fields)).status == 403

    basic = basic_auth_middleware({"ann": password})
    client = await aiohttp_client(application(basic))
    sent = base64.b64encode(f"ann:{password}".encode()).decode()
    fields = {"Authorization": f"Basic {keep(sent)}"}
    assert (await client.get("/anybody", headers=fields)).status == 200
    assert (await client.get("/read", headers=fields)).status == 403


async def test_nobody_is_known_without_a_middleware(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(application(error_middleware()))
    response = await client.get("/read")
    assert response.status == 401
    assert response.headers.getall("WWW-Authenticate") == ["Bearer"]
    assert await response.json() == {"detail": "Nobody knows who asks"}


async def test_log_says_why(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp_middlewares.scopes"):
        await ask(aiohttp_client, "/read", None)
        await ask(aiohttp_client, "/read", "nothing")
    ours = [r for r in caplog.records if r.name.endswith("scopes")]
    assert [record.getMessage() for record in ours] == [
        "Refused GET /read: nobody knows who asks",
        "Refused GET /read: who asks may not",
    ]


def test_handler_stays_what_it_was() -> None:
    assert read.__name__ == "read"
    assert read.__doc__ == "Reads."
    assert inspect.iscoroutinefunction(read)
    assert inspect.iscoroutinefunction(Note.get)


# Misconfiguration
# ================


async def handler(request: web.Request) -> web.Response:
    raise AssertionError


@pytest.mark.parametrize(
    ("scopes", "role", "error", "message"),
    [
        ((handler,), None, TypeError, "did you mean @requires(...)?"),
        ((["read"],), None, TypeError, "requires should be scopes, each a"),
        ((7,), None, TypeError, "requires should be scopes, each a"),
        (("",), None, ValueError, "requires should be scopes"),
        (
            ("read write",),
            None,
            ValueError,
            "did you mean requires('read', 'write')?",
        ),
        (('a"b',), None, ValueError, "without quotes and backslashes"),
        (("a\\b",), None, ValueError, "without quotes and backslashes"),
        (("é",), None, ValueError, "visible ASCII"),
        (("a\n",), None, ValueError, "visible ASCII"),
        ((), "", ValueError, "requires role should be a role"),
        ((), ["admin"], TypeError, "requires role should be a string"),
    ],
)
def test_wrong_argument_is_told_where_it_stands(
    scopes: Any, role: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        requires(*scopes, role=role)


@pytest.mark.parametrize("decorated", [Note, "handler", None, web.Response])
def test_only_functions_are_decorated(decorated: Any) -> None:
    with pytest.raises(TypeError, match="around a handler, or a method"):
        requires("read")(decorated)


async def test_function_without_a_request_is_no_handler() -> None:
    @requires("read")
    async def no_handler(number: int) -> web.Response:
        raise AssertionError

    with pytest.raises(TypeError, match="there is no request"):
        await no_handler(7)
