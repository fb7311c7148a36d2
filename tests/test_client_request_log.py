"""The request log: what it says, and what never."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from client_site import (
    MEGABYTE,
    Naps,
    Site,
    accept,
    hang,
    serve,
    session_with,
)
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_middlewares.client import (
    request_log_middleware,
    retry_middleware,
)
from aiohttp_middlewares.client._redact import redact_text, redact_url

LOGGER = "aiohttp_middlewares.client.request_log"
SECRETS = {
    "Authorization": "Bearer hush",
    "Cookie": "session=hush",
    "X-Api-Key": "hush",
    "X-Trace": "shown",
}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aiohttp_middlewares")
    return caplog


def with_secrets(url: str) -> str:
    return f"{url}a/b?q=hush&token=hush&hush#hush".replace("://", "://me:hush@")


async def test_request_is_logged_once_with_its_facts(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    times = iter([10.0, 10.25])
    middleware = request_log_middleware(clock=lambda: next(times))
    async with (
        session_with(middleware) as session,
        session.get(f"{site.url}a?b=c"),
    ):
        pass
    (record,) = log.records
    assert record.name == LOGGER
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"GET {site.url}a?b=*** 200 in 0.250 s"
    facts: Any = record
    assert facts.method == "GET"
    assert facts.url == f"{site.url}a?b=***"
    assert facts.status == 200
    assert facts.error is None
    assert facts.duration == 0.25
    assert facts.request_headers == {}


@pytest.mark.parametrize("redact_query", [True, False])
async def test_log_holds_no_secrets(
    site: Site, log: pytest.LogCaptureFixture, redact_query: bool
) -> None:
    middleware = request_log_middleware(
        headers=["x-trace", "X-Absent"], redact_query=redact_query
    )
    url = with_secrets(site.url).replace("q=hush&", "q=word&")
    async with session_with(middleware, cookies={"a": "hush"}) as session:
        del SECRETS["Authorization"]
        async with session.get(url, headers=SECRETS):
            pass
        SECRETS["Authorization"] = "Bearer hush"
        async with session.get(site.url, headers=SECRETS):
            pass
    first: Any
    first, second = log.records
    for record in (first, second):
        assert "hush" not in f"{record.getMessage()} {record.__dict__}"
    shown = "***" if redact_query else "word"
    assert first.url == f"{site.url}a/b?q={shown}&token=***&***"
    assert first.request_headers == {"x-trace": "shown"}


async def test_failure_is_logged_by_name_and_without_its_text(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    site.answers = [hang]
    timeout = aiohttp.ClientTimeout(sock_read=0.01)
    async with session_with(
        request_log_middleware(), timeout=timeout
    ) as session:
        with pytest.raises(aiohttp.SocketTimeoutError):
            await session.get(with_secrets(site.url))
    (record,) = log.records
    facts: Any = record
    assert facts.error == "SocketTimeoutError"
    assert facts.status is None
    assert "SocketTimeoutError in" in record.getMessage()
    assert record.exc_info is None
    assert "hush" not in f"{record.getMessage()} {record.__dict__}"


async def test_cancelled_request_is_logged_and_stays_cancelled(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    site.answers = [hang]
    async with session_with(request_log_middleware()) as session:
        task = asyncio.ensure_future(session.get(site.url))
        await site.until(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "CancelledError" in log.text


@pytest.mark.parametrize(
    ("seconds", "level"), [(1.9, logging.INFO), (2.0, logging.WARNING)]
)
async def test_slow_request_is_a_warning(
    site: Site, log: pytest.LogCaptureFixture, seconds: float, level: int
) -> None:
    times = iter([0.0, seconds])
    middleware = request_log_middleware(slow=2, clock=lambda: next(times))
    async with (
        session_with(middleware) as session,
        session.get(site.url),
    ):
        pass
    assert [record.levelno for record in log.records] == [level]


async def test_level_that_is_off_costs_nothing(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    log.set_level(logging.INFO, "aiohttp_middlewares")

    def never() -> float:
        raise AssertionError

    middleware = request_log_middleware(level=logging.DEBUG, clock=never)
    async with (
        session_with(middleware) as session,
        session.get(site.url),
    ):
        pass
    assert log.records == []


async def test_other_logger_and_level_are_used(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("mine")
    logger.setLevel(logging.ERROR)
    for level in (logging.ERROR, logging.WARNING):
        middleware = request_log_middleware(logger=logger, level=level)
        async with (
            session_with(middleware) as session,
            session.get(site.url),
        ):
            pass
    assert [record.name for record in log.records] == ["mine"]


@pytest.mark.parametrize("inside", [False, True])
async def test_place_says_what_is_counted(
    site: Site, log: pytest.LogCaptureFixture, inside: bool
) -> None:
    site.answers = [503]
    retry = retry_middleware(sleep=Naps())
    middlewares = [request_log_middleware(), retry]
    if inside:
        middlewares.reverse()
    async with (
        aiohttp.ClientSession(middlewares=middlewares) as session,
        session.get(site.url),
    ):
        pass
    own = [record for record in log.records if record.name == LOGGER]
    assert len(own) == (3 if inside else 1)


async def test_websocket_is_logged(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    async with session_with(request_log_middleware()) as session:
        site.answers = [accept]
        async with session.ws_connect(site.url):
            pass
        site.answers = [403]
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(site.url)
    statuses = [getattr(record, "status", None) for record in log.records]
    assert statuses == [101, 403]


# What is struck out
# ==================


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a.example", "http://a.example/"),
        ("https://a.example:443/", "https://a.example:443/"),
        ("https://me:hush@a.example:8443/x", "https://a.example:8443/x"),
        ("http://hush@a.example/x#hush", "http://a.example/x"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://a.example/?a=hush&b=&c", "http://a.example/?a=***&b=***&***"),
        ("http://a.example/?a=hush=hush", "http://a.example/?a=***"),
        ("http://a.example/?hush", "http://a.example/?***"),
        ("http://a.example/?a=hush;b=hush", "http://a.example/?a=***;b=***"),
        ("http://a.example/?a=hush;hush", "http://a.example/?a=***;***"),
        ("http://a.example/?&;&", "http://a.example/?&;&"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
        ("http://a.example/a%0Ab", "http://a.example/a%0Ab"),
    ],
)
def test_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert redact_url(URL(url)) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("page=2", "page=2"),
        ("token=hush&page=2", "token=***&page=2"),
        ("a=b;token=hush;c=d", "a=b;token=***;c=d"),
        ("page=2&hush", "page=2&***"),
        ("hush", "***"),
        ("%74oken=hush", "%74oken=***"),
        ("user%5Bpassword%5D=hush", "user[password]=***"),
        # What has parameters of its own.
        ("next=/x?token=hush", "next=***"),
        ("next=https%3A%2F%2Fme:hush@a.example", "next=***"),
        ("next=%2Fx%253Ftoken%253Dhush", "next=***"),
        ("next=/x", "next=/x"),
    ],
)
def test_query_that_is_shown_has_no_secrets(query: str, shown: str) -> None:
    url = URL(f"http://a.example/?{query}")
    found = redact_url(url, query=True)
    assert URL(found) == URL(f"http://a.example/?{shown}")
    assert "hush" not in found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("https://a.example/x?page=hush#hush", "https://a.example/x?page=***"),
        ("https://me:hush@a.example/", "https://a.example/"),
        ("//me:hush@a.example/x", "//a.example/x"),
        ("/x?token=hush", "/x?token=***"),
        ("?hush", "?***"),
        ("5; url=https://me:hush@a.example/x", "5; url=https://a.example/x"),
        ("5;url=https://me:hush@a.example/x", "5;url=https://a.example/x"),
        ("<https://a.example/?t=hush>; rel=next, <https://b.example/>",
         "<https://a.example/?t=***>; rel=next, <https://b.example/>"),
        ("Bot/1 (+https://a.example/?x=hush)",
         "Bot/1 (+https://a.example/?x=***)"),
        ("https://[hush", "***"),
    ],
)  # fmt: skip
async def test_url_in_a_header_is_shown_like_a_url(
    site: Site, log: pytest.LogCaptureFixture, value: str, shown: str
) -> None:
    middleware = request_log_middleware(headers=["Referer"])
    async with (
        session_with(middleware) as session,
        session.get(site.url, headers={"Referer": value}),
    ):
        pass
    facts: Any = log.records[0]
    assert facts.request_headers == {"Referer": shown}


@pytest.mark.parametrize("size", [10, 20_000])
def test_redacting_takes_no_longer_than_the_text_is(size: int) -> None:
    """Each of these would take hours by a pattern that tries again."""
    for text in ("a" * size * 50, "a=" * size, "//" * size, "a?" * size):
        redact_text(text)
        redact_url(URL.build(scheme="http", host="a", query_string=text))


async def test_url_is_shown_as_the_user_wants(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    """Who can only strike out more: what is secret anyway is gone before."""

    def without_token(url: URL) -> str:
        return str(url).replace("/hush", "/***")

    middleware = request_log_middleware(redact=without_token)
    async with (
        session_with(middleware) as session,
        session.get(with_secrets(f"{site.url}hush/")),
    ):
        pass
    (record,) = log.records
    assert "hush" not in f"{record.getMessage()} {record.__dict__}"
    facts: Any = record
    assert facts.url == f"{site.url}***/a/b?q=***&token=***&***"


async def test_line_break_that_the_user_decoded_is_encoded_again(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    middleware = request_log_middleware(redact=lambda url: url.path)
    async with (
        session_with(middleware) as session,
        session.get(URL(f"{site.url}a%0Ab%C2%85c%E2%80%A8d", encoded=True)),
    ):
        pass
    facts: Any = log.records[0]
    assert facts.url == "/a%0Ab%C2%85c%E2%80%A8d"


def fail(url: URL) -> str:
    raise ValueError(str(url))


def give_nothing(url: URL) -> Any:
    return None


@pytest.mark.parametrize("redact", [fail, give_nothing])
async def test_redact_that_fails_touches_nobody_and_shows_nothing(
    site: Site, log: pytest.LogCaptureFixture, redact: Any
) -> None:
    middleware = request_log_middleware(redact=redact)
    async with (
        session_with(middleware) as session,
        session.get(f"{site.url}hush") as response,
    ):
        assert response.status == 200
    warning, record = log.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith("The hook redact failed: ")
    facts: Any = record
    assert facts.url == f"{site.url}***"
    assert "hush" not in log.text


@given(st.text(), st.text(), st.text(), st.text())
def test_no_value_comes_through(a: str, b: str, c: str, d: str) -> None:
    url = URL.build(
        scheme="http", user=a or None, password=b or None, host="a.example",
        path="/", query={c: f"hush{d}"}, fragment=d,
    )  # fmt: skip
    shown = redact_url(url)
    assert shown.startswith("http://a.example/?")
    assert shown.endswith("=***")
    assert "hush" not in shown or "hush" in c


async def test_logger_that_raises_costs_no_response(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    site.answers = [(200, {}, MEGABYTE)]
    logger = logging.getLogger("own")
    logger.addFilter(refuse)
    log = request_log_middleware(logger=logger, level=logging.ERROR)
    try:
        async with (
            session_with(log) as session,
            session.get(site.url) as response,
        ):
            assert await response.read() == MEGABYTE
    finally:
        logger.removeFilter(refuse)
    assert "own: a handler or a filter raised" in capsys.readouterr().err


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"logger": "mine"}, TypeError, r"a logging\.Logger"),
        ({"level": "INFO"}, TypeError, "a whole number"),
        ({"slow": 0}, ValueError, "a positive, finite number"),
        ({"headers": "X-Trace"}, TypeError, r"did you mean \['X-Trace'\]"),
        ({"headers": ["a b"]}, ValueError, "header names"),
        ({"headers": ["authorization"]}, ValueError, "hold no secrets"),
        ({"headers": ["Cookie"]}, ValueError, "hold no secrets"),
        ({"headers": ["X-Auth-Token"]}, ValueError, "hold no secrets"),
        ({"headers": ["X-API-Key"]}, ValueError, "hold no secrets"),
        ({"headers": ["Proxy-Authorization"]}, ValueError, "no secrets"),
        ({"headers": ["Ocp-Apim-Subscription-Key"]}, ValueError, "no secrets"),
        ({"headers": ["X-JWT-Assertion"]}, ValueError, "no secrets"),
        ({"redact_query": 1}, TypeError, "True or False"),
        ({"redact": "path"}, TypeError, "a callable"),
        ({"clock": 1}, TypeError, "a callable"),
    ],
)
def test_wrong_option_of_the_request_log_is_refused_in_a_sentence(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    name = next(iter(options))
    with pytest.raises(
        error, match=f"^request_log_middleware {name} .*{message}"
    ):
        request_log_middleware(**options)
