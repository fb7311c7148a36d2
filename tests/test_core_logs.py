"""What a log record says of a request."""

import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import raw
from yarl import URL

from aiohttp_middlewares import proxy_headers_middleware
from aiohttp_middlewares._core.logs import facts, refused, shown
from aiohttp_middlewares.annotations import Handler


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a", "/a"),
        (b"/a?token=secret", "/a"),
        (b"/a%0D%0Ab%20c", "/a%0D%0Ab%20c"),
        (b"/%C3%A9", "/%C3%A9"),
        (b"/%FF", "/%FF"),
        (b"*", "*"),
        (b"http://user:secret@b.example/a?b", "/a"),
    ],
)
async def test_path_is_safe_in_any_log_and_holds_no_secret(
    aiohttp_server: AiohttpServer, target: bytes, path: str
) -> None:
    seen: list[dict[str, object]] = []

    @web.middleware
    async def logs(request: web.Request, handler: object) -> web.Response:
        seen.append(facts(request, status=418))
        return web.Response(status=418)

    server = await aiohttp_server(web.Application(middlewares=[logs]))
    await raw(
        server,
        b"OPTIONS %b HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
        % target,
    )
    assert seen == [
        {
            "method": "OPTIONS",
            "path": path,
            "remote": "127.0.0.1",
            "status": 418,
        }
    ]


async def test_path_that_no_log_file_could_hold_is_escaped(
    aiohttp_client: AiohttpClient,
) -> None:
    # As aiohttp's parser in Python lets it through, and as a clone may have it.
    target = b"/\xc3\xa9\xff".decode(errors="surrogateescape")
    seen: list[object] = []

    @web.middleware
    async def logs(request: web.Request, handler: object) -> web.Response:
        url = URL.build(path=target, encoded=True)
        seen.append(facts(request.clone(rel_url=url))["path"])
        return web.Response()

    client = await aiohttp_client(web.Application(middlewares=[logs]))
    await client.get("/")
    assert seen == ["/\\xe9\\udcff"]


async def test_remote_is_what_the_proxy_said(
    aiohttp_client: AiohttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("aiohttp_middlewares.test")

    @web.middleware
    async def refusing(request: web.Request, handler: Handler) -> web.Response:
        refused(logger, request, "it is late", host="b.example", limit=5)
        return web.Response(status=403)

    client = await aiohttp_client(
        web.Application(
            middlewares=[
                proxy_headers_middleware(trusted=["127.0.0.1"]),
                refusing,
            ]
        )
    )
    caplog.set_level(logging.INFO, logger.name)
    await client.get("/a", headers={"X-Forwarded-For": "192.0.2.7"})
    (record,) = [r for r in caplog.records if r.name == logger.name]
    assert record.getMessage() == "Refused GET /a: it is late"
    extra: Any = record
    assert (extra.remote, extra.host, extra.limit, extra.reason) == (
        *("192.0.2.7", "b.example", 5, "it is late"),
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, None),
        (5, 5),
        (0.5, 0.5),
        (True, True),
        ("", ""),
        ("plain text", "plain text"),
        ("a\r\nb\tc\x7f", "a\\r\\nb\\tc\\x7f"),
        ("\u20ac\x85\udcff", "\\u20ac\\x85\\udcff"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "..."),
        ("\u20ac" * 200, "\\u20ac" * 33 + "\\u" + "..."),
        (["https://a.example", "b\n"], "https://a.example, b\\n"),
        (range(99), ", ".join(map(str, range(20))) + ", ..."),
        ([], ""),
        (b"\xff\n", "b'\\xff\\n'"),
        (URL("http://a.example/x"), "http://a.example/x"),
    ],
)
def test_whatever_was_sent_is_short_printable_ascii(
    value: object, said: object
) -> None:
    assert shown(value) == said


def test_long_path_is_cut() -> None:
    request = make_mocked_request("M" * 999, "/" + "a" * 8000)
    told = facts(request, host="h" * 8000)
    assert told["path"] == "/" + "a" * 999 + "..."
    assert told["method"] == "M" * 200 + "..."
    assert told["host"] == "h" * 200 + "..."
