"""What an error that was answered keeps alive: nothing."""

import asyncio
import builtins
import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from error_site import (
    LOGGER,
    SHIPPED,
    FailingAttributes,
    chain,
    fails,
    page,
    returns_nothing,
)
from pytest_aiohttp import AiohttpClient
from raw import raw

from aiohttp_middlewares import RequestTimeout, error_context, error_middleware
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares.annotations import Handler, Middleware


def group_of_one() -> Exception:
    kind: Any = getattr(builtins, "ExceptionGroup", None)
    try:
        raise ValueError
    except ValueError as err:
        return err if kind is None else kind("a group", [err])


def cannot_read() -> None:
    """The handler reads JSON that is none."""


def returns() -> None:
    """The handler returns no response."""


class Payload:
    def __init__(self) -> None:
        self.bytes = bytearray(1_000_000)


PAYLOAD_KEY = request_key("payload", Payload)


@pytest.fixture
def nobody_collects(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No garbage collection, and no log records that hold tracebacks."""
    for name in (LOGGER, "aiohttp.server"):
        monkeypatch.setattr(
            logging.getLogger(name), "filters", [lambda record: False]
        )
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def alive(
    aiohttp_client: AiohttpClient,
    raised: Any,
    *middlewares: Middleware,
    path: str = "/",
) -> tuple[int, int]:
    """How many handlers and requests of 20 are left when all are done."""
    locals_: weakref.WeakSet[Payload] = weakref.WeakSet()
    requests: weakref.WeakSet[Payload] = weakref.WeakSet()

    @web.middleware
    async def loading(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        payload = request[PAYLOAD_KEY] = Payload()
        requests.add(payload)
        return await handler(request)

    async def handler(request: web.Request) -> web.StreamResponse:
        payload = Payload()
        locals_.add(payload)
        if raised is cannot_read:
            await request.json()
        if raised is returns:
            return None  # type: ignore[return-value]
        raise raised()

    client = await aiohttp_client(page(handler, loading, *middlewares))
    for _ in range(20):
        await raw(
            client.server,
            b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            % path.encode(),
        )
    assert path != "/" or len(locals_) <= 20
    await asyncio.sleep(0.01)
    return len(locals_), len(requests)


async def handles_by_context(request: web.Request) -> web.StreamResponse:
    with error_context(request) as context:
        return web.json_response(context.data, status=context.status)


@pytest.mark.usefixtures("nobody_collects")
@pytest.mark.parametrize(
    "handler", [*SHIPPED, handles_by_context, fails, returns_nothing]
)
@pytest.mark.parametrize(
    ("raised", "path"),
    [
        (ValueError, "/"),
        (FailingAttributes, "/"),
        (chain, "/"),
        (web.HTTPNotFound, "/"),
        (RequestTimeout, "/"),
        (ValueError, "/nope"),  # the router's 404
        (group_of_one, "/"),
        (cannot_read, "/"),
        (returns, "/"),
    ],
)
async def test_answered_request_is_freed_at_once(
    aiohttp_client: AiohttpClient, handler: Handler, raised: Any, path: str
) -> None:
    errors = error_middleware(default_handler=handler)
    assert await alive(aiohttp_client, raised, errors, path=path) == (0, 0)


@pytest.mark.usefixtures("nobody_collects")
@pytest.mark.parametrize(
    "raised", [ValueError, web.HTTPGone, lambda: web.HTTPFound("/")]
)
async def test_passed_on_error_is_held_no_longer_than_by_aiohttp_itself(
    aiohttp_client: AiohttpClient, raised: Any
) -> None:
    # (aiohttp holds each HTTPException that it sends in a cycle.)
    errors = error_middleware(ignore_exceptions=(ValueError, web.HTTPGone))
    counted = await alive(aiohttp_client, raised, errors)
    gc.collect()
    assert counted == await alive(aiohttp_client, raised)
    if raised is ValueError:
        assert counted == (0, 0)
