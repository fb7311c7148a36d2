"""One line for each request: what left, for whom, and how long it took."""

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from answers import KINDS, Kind, serve
from discreet import shows_nothing
from garbage import no_more_than_without
from hypothesis import example, given, settings
from hypothesis import strategies as st
from live import Live, eventually, live
from test_core_outcome import NEIGHBOURS, Seen
from test_package import blocks_of, read

from aiohttp_middlewares import (
    RequestIdFilter,
    access_log_middleware,
    basic_auth_middleware,
    error_middleware,
    proxy_headers_middleware,
    request_id_middleware,
    server_timing_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares.access_log import _referer
from aiohttp_middlewares.annotations import Handler, Middleware

NAME = "aiohttp_middlewares.access_log"
LINE = re.compile(r"(\w+) (\S+) (\d+) (\d+) B (\d+\.\d{3}) s")
PAGE = Path(__file__).parents[1] / "docs/how-to/logs.rst"


class Lines(logging.Handler):
    """What is logged, as any handler gets it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.message = record.getMessage()
        self.records.append(record)

    @property
    def facts(self) -> dict[str, Any]:
        """Those of the only record."""
        (record,) = self.records
        return vars(record)


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger = logging.getLogger(NAME)
    lines = Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(logging.NOTSET)


async def page(request: web.Request) -> web.Response:
    return web.Response(text="hello")


@asynccontextmanager
async def serving(
    *middlewares: Middleware, handler: Handler = page, **options: Any
) -> AsyncIterator[Live]:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/users/{name}", handler)
    async with live(serve(app), access_log=None, **options) as site:
        yield site


async def ask(
    site: Live, line: str = "GET /users/ann", fields: str = ""
) -> int:
    connection = await site.connect()
    connection.send(line, fields=fields)
    answer = await connection.answer()
    connection.leave()
    return answer.status


# What it does
# ============


async def test_one_record_a_request_says_what_left(lines: Lines) -> None:
    async with serving(access_log_middleware()) as site:
        fields = (
            "User-Agent: curl/8.5.0\r\n"
            "Referer: https://me:secret@a.example/from?token=secret#part\r\n"
        )
        assert await ask(site, "GET /users/ann?token=secret", fields) == 200
        await eventually(lambda: lines.records)
    facts = lines.facts
    found = LINE.fullmatch(facts["message"])
    assert found is not None
    assert found.groups()[:4] == ("GET", "/users/ann", "200", "5")
    assert facts["levelno"] == logging.INFO
    assert facts["name"] == NAME
    assert facts["method"] == "GET"
    assert facts["path"] == "/users/ann"
    assert facts["route"] == "/users/{name}"
    assert facts["status"] == 200
    assert facts["bytes"] == 5
    assert 0 < facts["duration"] < 20
    assert f"{facts['duration']:.3f}" == found[5]
    assert facts["remote"] == "127.0.0.1"
    assert facts["user"] is None
    assert facts["request_id"] is None
    assert facts["user_agent"] == "curl/8.5.0"
    assert facts["referer"] == "https://a.example/from"
    assert "secret" not in str(facts)


async def test_record_comes_after_the_last_byte(lines: Lines) -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"last")
        return response

    async with serving(access_log_middleware(), handler=stream) as site:
        connection = await site.connect()
        connection.send("GET /users/ann")
        await connection.until(b"first")
        assert lines.records == []
        go_on.set()
        await connection.until(b"0\r\n\r\n")
        await eventually(lambda: lines.records)
        connection.leave()
    assert lines.facts["bytes"] == 9


async def test_remote_and_user_are_known_wherever_they_are_found_out(
    lines: Lines,
) -> None:
    proxies = proxy_headers_middleware(trusted=["127.0.0.1"])
    login = basic_auth_middleware({"ann": "secret"})
    log = access_log_middleware()
    fields = (
        "X-Forwarded-For: 192.0.2.7\r\n"
        "Authorization: Basic YW5uOnNlY3JldA==\r\n"
    )
    for order in ([proxies, log, login], [log, proxies, login]):
        lines.records.clear()
        async with serving(*order) as site:
            assert await ask(site, fields=fields) == 200
            await eventually(lambda: lines.records)
        assert lines.facts["remote"] == "192.0.2.7"
        assert lines.facts["user"] == "ann"
        assert "YW5u" not in str(lines.facts)


async def test_who_has_no_address_has_none_in_any_log(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(request: web.Request) -> web.Response:
        raise LookupError

    app = web.Application(
        middlewares=[
            access_log_middleware(),
            server_timing_middleware(slow=1e-9),
            error_middleware(),
        ]
    )
    app.router.add_get("/", fails)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    # Not tmp_path: the path of a socket has to be short.
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        await web.UnixSite(runner, path).start()
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path)
        ) as session:
            await session.get("http://h.example/")
        await eventually(lambda: lines.records)
        await runner.cleanup()
    assert {(r.name, vars(r)["remote"]) for r in caplog.records} == {
        (f"aiohttp_middlewares.{name}", None)
        for name in ("access_log", "error", "server_timing")
    }


async def test_request_id_is_there_also_if_the_client_left(
    lines: Lines,
) -> None:
    entered = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await asyncio.sleep(60)
        return web.Response()

    chain = [request_id_middleware(), error_middleware()]
    async with serving(*chain, access_log_middleware(), handler=slow) as site:
        connection = await site.connect()
        connection.send("GET /users/ann", fields="X-Request-ID: its-id\r\n")
        await entered.wait()
        connection.reset()
        await eventually(lambda: lines.records)
    assert lines.facts["request_id"] == "its-id"
    assert lines.facts["status"] == 499
    assert lines.facts["bytes"] == 0
    assert "GET /users/ann 499 0 B" in lines.facts["message"]


async def test_filters_see_the_context_of_the_request(lines: Lines) -> None:
    """Also where the event loop tells of its end, that of no request."""
    outside: ContextVar[str] = ContextVar("outside", default="none")
    inside: ContextVar[str] = ContextVar("inside", default="none")
    seen = []
    entered = asyncio.Event()

    @middleware
    async def traced(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        outside.set("trace")
        return await handler(request)

    async def handler(request: web.Request) -> web.Response:
        inside.set("bound")
        if request.match_info["name"] == "slow":
            entered.set()
            await asyncio.sleep(60)
        return web.Response()

    def look(record: logging.LogRecord) -> bool:
        seen.append((outside.get(), inside.get()))
        return True

    lines.addFilter(look)
    # Who observes further out does not know of what is set in between.
    chain = [Seen().middleware(), traced, access_log_middleware()]
    async with serving(*chain, handler=handler) as site:
        await ask(site, "GET /users/fast")
        await eventually(lambda: seen)
        connection = await site.connect()
        connection.send("GET /users/slow")
        await entered.wait()
        connection.reset()
        await eventually(lambda: len(seen) == 2)
    assert seen[0] == ("trace", "bound")
    assert seen[1][0] == "trace"


async def test_filter_fills_in_for_an_id_that_is_none(lines: Lines) -> None:
    lines.addFilter(RequestIdFilter())
    async with serving(access_log_middleware()) as site:
        await ask(site)
        await eventually(lambda: lines.records)
    assert lines.facts["request_id"] == "-"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_client_that_left_in_the_middle_has_had_the_status(
    lines: Lines, cancelled: bool
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 1000)
            await asyncio.sleep(0)

    async with serving(
        access_log_middleware(),
        handler=endless,
        handler_cancellation=cancelled,
    ) as site:
        connection = await site.connect()
        connection.send("GET /users/ann")
        await connection.head()
        connection.reset()
        await eventually(lambda: lines.records)
    assert lines.facts["status"] == 200
    assert lines.facts["bytes"] >= 1000


async def test_what_is_slow_is_a_warning(lines: Lines) -> None:
    for level, slow, expected in (
        (logging.INFO, 1e-9, logging.WARNING),
        (logging.INFO, 60, logging.INFO),
        (logging.ERROR, 1e-9, logging.ERROR),
        (logging.WARNING, None, logging.WARNING),
    ):
        lines.records.clear()
        log = access_log_middleware(level=level, slow=slow)
        async with serving(log) as site:
            await ask(site)
            await eventually(lambda: lines.records)
        assert lines.facts["levelno"] == expected


async def test_only_what_is_slow_is_logged_where_the_level_is_off(
    lines: Lines,
) -> None:
    logging.getLogger(NAME).setLevel(logging.WARNING)
    async with serving(access_log_middleware(slow=1e-9)) as site:
        await ask(site)
        await eventually(lambda: lines.records)
    assert lines.facts["levelno"] == logging.WARNING
    lines.records.clear()
    async with serving(access_log_middleware(slow=60)) as site:
        await ask(site)
    assert lines.records == []


async def test_websocket_is_logged_when_it_ends_and_never_slow(
    lines: Lines,
) -> None:
    (kind,) = (kind for kind in KINDS if str(kind) == "websocket-101")
    fields = "".join(f"{n}: {v}\r\n" for n, v in kind.fields.items())
    async with serving(access_log_middleware(slow=1e-9)) as site:
        connection = await site.connect()
        connection.send(f"GET {kind.path}", fields=fields)
        await connection.head()
        connection.leave()
        await eventually(lambda: lines.records)
    assert lines.facts["status"] == 101
    assert lines.facts["levelno"] == logging.INFO


# What it leaves alone
# ====================


async def test_ignored_is_not_logged(lines: Lines) -> None:
    ignore: Any = {re.compile("/users/a"): "GET", "/returned": ["GET", "POST"]}
    async with serving(access_log_middleware(ignore=ignore)) as site:
        await ask(site, "GET /users/ann")
        await ask(site, "GET /returned")
        await ask(site, "POST /users/ann")
        await eventually(lambda: lines.records)
    assert lines.facts["method"] == "POST"


async def test_path_that_misleads_is_not_ignored(lines: Lines) -> None:
    log = access_log_middleware(ignore=[re.compile("/open/")])
    targets = ["/open/../secret", "/open/%2E%2e/secret", "/open/x%5c..%5cy"]
    async with serving(log) as site:
        for target in ["/open/page", *targets]:
            await ask(site, f"GET {target}")
        await eventually(lambda: len(lines.records) == len(targets))
    assert [vars(record)["path"] for record in lines.records][1:] == targets[1:]


async def test_nothing_is_done_where_the_level_is_off(lines: Lines) -> None:
    logging.getLogger(NAME).setLevel(logging.WARNING)
    seen = []

    async def handler(request: web.Request) -> web.Response:
        # What would tell of the end stands in front of the writer.
        seen.append(vars(request.writer).get("write_eof"))
        return web.Response()

    async with serving(access_log_middleware(), handler=handler) as site:
        await ask(site)
        logging.getLogger(NAME).setLevel(logging.INFO)
        await ask(site)
    assert seen[0] is None
    assert seen[1] is not None


@pytest.mark.parametrize("sub", [False, True])
async def test_listed_twice_a_request_is_logged_once(
    lines: Lines, sub: bool
) -> None:
    log = access_log_middleware()
    inner = web.Application(middlewares=[log])
    inner.router.add_get("/users/{name}", page)
    app = web.Application(
        middlewares=[access_log_middleware(level=logging.ERROR), log]
    )
    app.add_subapp("/inner", inner)
    app.router.add_get("/users/{name}", page)
    path = "/inner/users/" if sub else "/users/"
    async with live(app) as site:
        await ask(site, f"GET {path}ann")
        await eventually(lambda: lines.records)
    assert lines.facts["levelno"] == logging.ERROR  # the outer one
    assert lines.facts["route"] == f"{path}{{name}}"


# Bad input
# =========

#: Nothing that a line, or a field of one, could be made up with.
SAFE = re.compile(r"[ -~]*")


async def test_line_cannot_be_made_up(lines: Lines) -> None:
    forged = "%0d%0aGET%20/%20200%201%20B%200.001%20s"
    async with serving(access_log_middleware()) as site:
        for target in (
            f"/users/{forged}",
            f"/users/ann?{forged}",
            "/users/\x7f",
            "/users/\xe9\u2028",
            "http://me:secret@a.example/users/ann?secret",
            "*",
            "//users/ann",
            f"/{'x' * 5000}",
        ):
            method = "OPTIONS" if target == "*" else "GET"
            await ask(site, f"{method} {target}")
        await eventually(lambda: len(lines.records) >= 6)
    for record in lines.records:
        message = record.getMessage()
        assert LINE.fullmatch(message), message
        assert SAFE.fullmatch(message)
        assert "secret" not in str(vars(record))
        assert len(message) < 1100


# Hypothesis takes constants from the source of the tests, some of which look
# like keys; and what a client calls itself is logged.
TEXT = st.binary(max_size=30).filter(
    lambda text: (
        not set(text) & set(b"\r\n\0") and shows_nothing(text.decode("latin-1"))
    )
)


@settings(max_examples=60)
@given(
    path=st.text("abc/%0123456789aA.;:@!$&'()*+,=~-_?#", max_size=30),
    agent=TEXT,
    referer=TEXT,
    identity=TEXT,
)
def test_whatever_comes_the_record_is_plain(
    hostile: "Hostile", path: str, agent: bytes, referer: bytes, identity: bytes
) -> None:
    record = hostile.record_of(
        b"GET /users/%s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"User-Agent: %s\r\nReferer: %s\r\nX-Request-ID: %s\r\n\r\n"
        % (path.encode(), agent, referer, identity)
    )
    if record is None:
        return  # aiohttp's parser has refused it
    assert LINE.fullmatch(record.getMessage())
    for name in ("path", "user_agent", "referer", "request_id"):
        value = getattr(record, name)
        assert value is None or SAFE.fullmatch(value), name
    assert "?" not in record.path  # type: ignore[attr-defined]
    assert "?" not in (record.referer or "")  # type: ignore[attr-defined]


class Hostile:
    """A server that is asked anything, and what it logs."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.loop = asyncio.new_event_loop()
        self.serving = serving(
            request_id_middleware(validator=bool), access_log_middleware()
        )
        self.site = self.loop.run_until_complete(self.serving.__aenter__())

    def record_of(self, sent: bytes) -> logging.LogRecord | None:
        async def send() -> bytes:
            connection = await self.site.connect()
            connection.write("", sent)
            received = await connection.rest()
            connection.leave()
            return received

        self.lines.records.clear()
        received = self.loop.run_until_complete(send())
        assert received.startswith((b"HTTP/1.1 ", b"HTTP/1.0 400 "))
        assert not received.startswith(b"HTTP/1.1 500")
        assert len(self.lines.records) <= 1
        return self.lines.records[0] if self.lines.records else None

    def stop(self) -> None:
        self.loop.run_until_complete(self.serving.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    logger = logging.getLogger(NAME)
    lines = Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    hostile = Hostile(lines)
    yield hostile
    hostile.stop()
    logger.removeHandler(lines)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("https://a.example/b", "https://a.example/b"),
        ("https://a.example/b?c=secret", "https://a.example/b"),
        ("https://a.example/b#secret", "https://a.example/b"),
        ("https://me:secret@a.example/b", "https://a.example/b"),
        ("https://a@b:secret@a.example", "https://a.example"),
        ("https:///me:secret@a.example", "https:///a.example"),
        ("https:\\\\me:secret@a.example", "a.example"),
        ("me:secret@a.example/b", "a.example/b"),
        ("me:secret@a.example/@b", "a.example/@b"),
        ("https://a.example/@me", "https://a.example/@me"),
        ("https://a.example/b?secret@c", "https://a.example/b"),
        ("/@me", "/@me"),
        ("x@//u:p@a.example/b", "//a.example/b"),
        ("", ""),
        ("a\r\nb", r"a\r\nb"),
        ("\udce9", r"\udce9"),
        (f"https://{'x' * 5000}@a.example/", "https://a.example/"),
    ],
)
def test_referer_is_told_without_secrets(sent: str, told: str) -> None:
    assert _referer(sent) == told


@given(st.text("ht:/@?#\\a é", max_size=40))
@example("@//@")
def test_no_referer_is_told_with_a_query_or_userinfo(sent: str) -> None:
    told = _referer(sent)
    assert told is not None
    assert not set(told) & set("?#")
    assert "@" not in urlsplit(told).netloc


@given(st.text(max_size=40).map(lambda text: re.sub("[/?#]", "", text)))
def test_userinfo_is_never_told(userinfo: str) -> None:
    sent = f"https://{userinfo}@a.example/b"
    assert _referer(sent) == "https://a.example/b"


async def test_filter_that_fails_harms_no_answer(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    logger = logging.getLogger(NAME)
    logger.addFilter(fails)
    try:
        async with serving(access_log_middleware()) as site:
            assert await ask(site) == 200
            assert await ask(site) == 200
    finally:
        logger.removeFilter(fails)
    assert capsys.readouterr().err.count("a filter raised") == 2


# Every kind of answer
# ====================


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_every_kind_of_answer_is_logged_as_it_left(
    lines: Lines, kind: Kind, neighbours: str
) -> None:
    fields = "".join(f"{n}: {v}\r\n" for n, v in kind.fields.items())
    chain = [access_log_middleware(), *NEIGHBOURS[neighbours]()]
    async with serving(*chain) as site:
        connection = await site.connect()
        connection.send(f"GET {kind.path}", fields=fields)
        if kind.status in (101, 204, 304):
            status, body = (await connection.head()).status, b""
        else:
            answer = await connection.answer()
            status, body = answer.status, answer.rest
        await eventually(lambda: lines.records)
        connection.leave()
    facts = lines.facts
    assert facts["status"] == status
    assert facts["bytes"] == len(body)
    assert facts["path"] == kind.path
    unmatched = kind.handler is None
    assert facts["route"] == ("__unmatched__" if unmatched else kind.path)


async def test_what_answers_in_place_of_a_late_handler_is_logged(
    lines: Lines,
) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    chain = [access_log_middleware(), error_middleware()]
    chain += [timeout_middleware(0.01), shield_middleware(methods=["GET"])]
    async with serving(*chain, handler=slow, shutdown_timeout=0.01) as site:
        assert await ask(site) == 504
        await eventually(lambda: lines.records)
    assert lines.facts["status"] == 504


async def test_requests_of_one_connection_are_told_apart(lines: Lines) -> None:
    chain = [request_id_middleware(), access_log_middleware()]
    async with serving(*chain) as site:
        connection = await site.connect()
        for number in range(5):
            connection.send(
                f"GET /users/{number}", fields=f"X-Request-ID: {number}\r\n"
            )
        for _ in range(5):
            await connection.answer()
        await eventually(lambda: len(lines.records) == 5)
        connection.leave()
    told = [(vars(r)["path"], vars(r)["request_id"]) for r in lines.records]
    assert told == [(f"/users/{n}", str(n)) for n in range(5)]


async def test_nothing_more_waits_for_the_garbage_collector(
    lines: Lines,
) -> None:
    await no_more_than_without(access_log_middleware())


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"level": "INFO"}, TypeError),
        ({"level": True}, TypeError),
        ({"level": -1}, ValueError),
        ({"slow": "1"}, TypeError),
        ({"slow": 0}, ValueError),
        ({"slow": float("nan")}, ValueError),
        ({"ignore": "/health"}, TypeError),
        ({"ignore": ["health"]}, ValueError),
    ],
)
def test_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="access_log_middleware"):
        access_log_middleware(**options)


# What the documentation shows
# ============================


def documented(words: str) -> dict[str, Any]:
    """What the example with these words defines."""
    (block,) = (b for b in blocks_of(PAGE, read(PAGE)) if words in b.code)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.code, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize("words", ["JsonFormatter", "class JsonLines"])
async def test_documented_formatters_write_json(
    lines: Lines, words: str
) -> None:
    formatter = documented(words)["handler"].formatter
    chain = [request_id_middleware(), access_log_middleware()]
    async with serving(*chain) as site:
        await ask(site, fields="User-Agent: a\tb\r\nX-Request-ID: its-id\r\n")
        await eventually(lambda: lines.records)
    line = formatter.format(lines.records[0])
    assert "\n" not in line
    said = json.loads(line)
    assert LINE.fullmatch(said["message"])
    assert said["status"] == 200
    assert said["duration"] == lines.facts["duration"]
    assert said["request_id"] == "its-id"
    assert said["user_agent"] == r"a\tb"
    assert said["referer"] is None


async def test_documented_filter_of_fail2ban_finds_who_fails_to_log_in(
    lines: Lines,
) -> None:
    formatter = documented("%(remote)s")["formatter"]
    (rule,) = re.findall(r"failregex = (.*)", read(PAGE))
    # What fail2ban does: it takes the time away, and fills in the address.
    pattern = re.compile(rule.replace("<ADDR>", r"(?P<host>[0-9a-f.:]+)"))
    app = web.Application(
        middlewares=[
            proxy_headers_middleware(trusted=["127.0.0.1"]),
            access_log_middleware(),
            basic_auth_middleware({"ann": "secret"}, ignore=["/"]),
        ]
    )
    app.router.add_route("*", "/login", page)
    app.router.add_post("/", page)
    async with live(app, access_log=None) as site:
        fields = "X-Forwarded-For: 192.0.2.7\r\n"
        for line, status in (
            ("POST /login", 401),
            ("POST /", 200),
            ("GET /login", 401),
            ("POST /login%20401", 401),
            ("POST /login?a", 401),
            ("POST /%6Cogin", 401),
        ):
            assert await ask(site, line, fields) == status
        await eventually(lambda: len(lines.records) == 6)
    found = []
    for record in lines.records:
        line = formatter.format(record)
        rest = re.sub(r"\A[-0-9]+ [0-9:,]+", "", line)
        if match := pattern.search(rest):
            found.append((match["host"], vars(record)["path"]))
    assert found == [
        ("192.0.2.7", "/login"),
        ("192.0.2.7", "/login"),
        ("192.0.2.7", "/%6Cogin"),
    ]
