"""What a log record says of a request."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from live import PATIENCE
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer
from raw import raw
from yarl import URL

from aiohttp_middlewares import (
    access_log_middleware,
    basic_auth_middleware,
    body_limit_middleware,
    csrf_middleware,
    error_middleware,
    proxy_headers_middleware,
    server_timing_middleware,
    shield_middleware,
    timeout_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares._core.logs import (
    facts,
    get_logger,
    lost,
    refused,
    shown,
)
from aiohttp_middlewares.annotations import Handler, Middleware

TIMEOUT = aiohttp.ClientTimeout(PATIENCE)


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


# A log that is broken
# ====================


class Broken(logging.Handler):
    """As one that cannot reach its disk, or that formats and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.asked.append(record.name)
        raise ZeroDivisionError(record.getMessage())


@pytest.fixture
def broken() -> Iterator[Broken]:
    logger = logging.getLogger("aiohttp_middlewares")
    handler = Broken()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def fails(request: web.Request) -> web.Response:
    raise RuntimeError


async def lasts(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def answers(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


@pytest.mark.parametrize(
    ("middlewares", "handler", "status"),
    [
        ([error_middleware()], fails, 500),
        ([error_middleware(), timeout_middleware(0.01)], lasts, 504),
        ([timeout_middleware(0.01)], lasts, 504),
        ([access_log_middleware()], answers, 200),
        ([error_middleware(), access_log_middleware()], fails, 500),
        ([basic_auth_middleware({"a": "b"})], answers, 401),
        ([body_limit_middleware(1)], answers, 413),
        ([csrf_middleware()], answers, 403),
        ([trusted_host_middleware(["a.example"])], answers, 400),
        (
            [server_timing_middleware(emit=lambda timing: 1 // 0)],
            answers,
            200,
        ),
        (
            [error_middleware(), shield_middleware(methods=["POST"])],
            fails,
            500,
        ),
    ],
)
async def test_log_that_raises_costs_nobody_an_answer(
    aiohttp_client: AiohttpClient,
    broken: Broken,
    capsys: pytest.CaptureFixture[str],
    middlewares: list[Middleware],
    handler: Handler,
    status: int,
) -> None:
    app = web.Application(middlewares=middlewares)
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    # The second comes on the same connection.
    for _ in range(2):
        response = await client.post(
            "/",
            data=b"body",
            headers={"Sec-Fetch-Site": "cross-site"},
            timeout=TIMEOUT,
        )
        assert response.status == status
        await response.read()
    told = capsys.readouterr().err
    assert broken.asked
    for name in broken.asked:
        assert f"{name}: a handler or a filter raised ZeroDiv" in told


async def test_error_middleware_leaves_aiohttp_nothing_to_log_that_raises(
    aiohttp_client: AiohttpClient, broken: Broken
) -> None:
    app = web.Application(middlewares=[error_middleware()])
    app.router.add_get("/", fails)
    client = await aiohttp_client(app)
    of_aiohttp = logging.getLogger("aiohttp.server")
    of_aiohttp.addHandler(broken)
    try:
        response = await client.get("/", timeout=TIMEOUT)
        assert response.status == 500
    finally:
        of_aiohttp.removeHandler(broken)
    assert broken.asked == ["aiohttp_middlewares.error"]


def test_what_is_lost_is_told_without_what_a_client_sent(
    broken: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = get_logger("aiohttp_middlewares.of_this_test")
    logger.error("Refused %s", "what was sent")
    told = capsys.readouterr().err
    assert told == (
        "aiohttp_middlewares.of_this_test: a handler or a filter raised "
        "ZeroDivisionError, and this is lost: 'Refused %s'\n"
    )


def test_what_is_lost_is_told_without_what_a_filter_made_of_it(
    broken: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = get_logger("aiohttp_middlewares.of_this_test")

    def format_at_once(record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage(), ()
        return True

    logger.addFilter(format_at_once)
    try:
        logger.error("Refused %s", "what was sent")
    finally:
        logger.removeFilter(format_at_once)
    assert broken.asked
    assert "this is lost: 'Refused %s'" in capsys.readouterr().err


@pytest.fixture
def factories() -> Iterator[Callable[..., None]]:
    before = logging.getLogRecordFactory()
    yield logging.setLogRecordFactory
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize(
    ("middleware", "status"),
    [
        (access_log_middleware(), 200),
        (basic_auth_middleware({"a": "b"}), 401),
    ],
)
async def test_record_factory_that_raises_costs_no_answer_and_no_record(
    aiohttp_client: AiohttpClient,
    factories: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    middleware: Middleware,
    status: int,
) -> None:
    def fail(name: str, *args: Any, **more: Any) -> logging.LogRecord:
        if name.startswith("aiohttp_middlewares."):
            raise LookupError("what was sent")
        return logging.LogRecord(name, *args, **more)

    app = web.Application(middlewares=[middleware])
    app.router.add_get("/", answers)
    client = await aiohttp_client(app)
    factories(fail)
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        response = await client.get("/", timeout=TIMEOUT)
        assert response.status == status
        await response.read()
    told = capsys.readouterr().err
    assert ": a record factory raised LookupError\n" in told
    assert "sent" not in told
    (record,) = (
        record
        for record in caplog.records
        if record.name.startswith("aiohttp_middlewares.")
    )
    assert "GET /" in record.getMessage()
    assert vars(record)["path"] == "/"


async def test_record_factory_may_use_the_names_of_ours(
    aiohttp_client: AiohttpClient,
    factories: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def with_path(*args: Any, **more: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **more)
        vars(record).update(path="of the factory", tenant="ann")
        return record

    app = web.Application(middlewares=[basic_auth_middleware({"a": "b"})])
    app.router.add_get("/", answers)
    client = await aiohttp_client(app)
    factories(with_path)
    with caplog.at_level(logging.INFO, "aiohttp_middlewares"):
        response = await client.get("/", timeout=TIMEOUT)
    assert response.status == 401
    (record,) = (
        record
        for record in caplog.records
        if record.name == "aiohttp_middlewares.basic_auth"
    )
    assert vars(record)["path"] == "/"
    assert vars(record)["tenant"] == "ann"


def test_nothing_is_told_where_nobody_wants_it_or_nobody_can(
    broken: Broken,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = get_logger("aiohttp_middlewares.of_this_test")
    with monkeypatch.context() as patch:
        patch.setattr(logging, "raiseExceptions", False)
        logger.error("hush")
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)  # as under pythonw
        lost(logger, "hush", ValueError())
    with monkeypatch.context() as patch, open("/dev/null", "w") as closed:
        patch.setattr(sys, "stderr", closed)
        closed.close()
        lost(logger, "hush", ValueError())
    with monkeypatch.context() as patch:
        # As one that writes into a log, which is broken, too.
        patch.setattr(sys, "stderr", 0)
        lost(logger, "hush", ValueError())
