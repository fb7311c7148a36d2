"""Which errors are reported, and what a reporter cannot do to an answer."""

import asyncio
import builtins
import functools
import gc
import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from answers import KINDS, Failed, Kind, serve
from live import complaints, eventually, live, soon
from pytest_aiohttp import AiohttpClient

import aiohttp_middlewares.report
from aiohttp_middlewares import (
    bugsnag_reporter,
    error_middleware,
    https_middleware,
    report_middleware,
    rollbar_reporter,
    sentry_reporter,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.report._sdk import Described, described

LOGGER = "aiohttp_middlewares.report"
Reported = list[Exception]


@pytest.fixture
def reported() -> Reported:
    return []


@pytest.fixture
def report(reported: Reported) -> Middleware:
    """Keeps what it is told of."""

    async def keep(err: Exception, request: web.Request) -> None:
        await asyncio.sleep(0)
        reported.append(err)

    return report_middleware(keep)


def page(handler: Handler, *middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_route("*", "/", handler)
    return app


async def fails(request: web.Request) -> web.StreamResponse:
    raise Failed


def raising(make: Callable[[], Exception]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise make()

    return handler


def records_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOGGER]


# What it does
# ============


@pytest.mark.parametrize("is_async", [False, True])
async def test_unexpected_error_is_reported_and_then_answered(
    aiohttp_client: AiohttpClient, is_async: bool
) -> None:
    told: list[tuple[Exception, str]] = []

    def tell(err: Exception, request: web.Request) -> None:
        told.append((err, request.path_qs))

    async def tell_later(err: Exception, request: web.Request) -> None:
        await asyncio.sleep(0.001)
        tell(err, request)

    report = report_middleware(tell_later if is_async else tell)
    client = await aiohttp_client(page(fails, error_middleware(), report))
    response = await client.get("/?a=b")
    # The answer waits.
    [(err, path)] = told
    assert type(err) is Failed
    assert path == "/?a=b"
    assert response.status == 500


class Teapot(Exception):
    status = 418


class Gone(Exception):
    status = 503


GROUP: Any = getattr(builtins, "ExceptionGroup", None)
has_groups = pytest.mark.skipif(
    GROUP is None, reason="Python 3.10 has no groups"
)


def group(*errors: Exception) -> Exception:
    made: Exception = GROUP("a group", errors)
    return made


def refused_upstream() -> Exception:
    err: Any = aiohttp.ClientResponseError
    return err(None, (), status=401)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "make",
    [
        ValueError,
        KeyError,
        Gone,
        asyncio.TimeoutError,
        refused_upstream,
        web.HTTPInternalServerError,
        web.HTTPBadGateway,
        web.HTTPServiceUnavailable,
        pytest.param(
            lambda: group(ValueError(), web.HTTPNotFound()), marks=has_groups
        ),
    ],
)
async def test_what_is_answered_500_or_more_is_reported(
    aiohttp_client: AiohttpClient,
    report: Middleware,
    reported: Reported,
    make: Callable[[], Exception],
) -> None:
    app = page(raising(make), error_middleware(), report)
    client = await aiohttp_client(app)
    response = await client.get("/")
    assert response.status >= 500
    assert [type(err) for err in reported] == [type(make())]


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (web.HTTPBadRequest, 400),
        (web.HTTPNotFound, 404),
        (Teapot, 418),
        (lambda: web.HTTPFound("/elsewhere"), 302),
        (web.HTTPNotModified, 304),
        (web.HTTPNoContent, 204),
        pytest.param(lambda: group(web.HTTPForbidden()), 403, marks=has_groups),
        pytest.param(lambda: group(group(Teapot())), 418, marks=has_groups),
    ],
)
async def test_what_is_answered_below_500_is_not_reported(
    aiohttp_client: AiohttpClient,
    report: Middleware,
    reported: Reported,
    make: Callable[[], Exception],
    status: int,
) -> None:
    app = page(raising(make), error_middleware(), report)
    client = await aiohttp_client(app)
    response = await client.get("/", allow_redirects=False)
    assert response.status == status
    assert reported == []


async def test_what_the_client_sent_wrong_is_not_reported(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    async def reads(request: web.Request) -> web.StreamResponse:
        return web.json_response(await request.json())

    client = await aiohttp_client(page(reads, error_middleware(), report))
    response = await client.post("/", data=b"\xff{")
    assert response.status == 400
    assert reported == []


async def test_returned_answer_is_no_error(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    async def returns(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    client = await aiohttp_client(page(returns, error_middleware(), report))
    assert (await client.get("/")).status == 503
    assert reported == []


async def test_limit_of_the_timeout_is_reported(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    async def sleeps(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    app = page(sleeps, error_middleware(), report, timeout_middleware(0.01))
    client = await aiohttp_client(app)
    assert (await client.get("/")).status == 504
    assert [str(err) for err in reported] == ["Request timed out"]


async def test_handler_without_a_response_is_reported_as_it_is_logged(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    report: Middleware,
    reported: Reported,
) -> None:
    async def forgets(request: web.Request) -> web.StreamResponse:
        return None  # type: ignore[return-value]

    client = await aiohttp_client(page(forgets, error_middleware(), report))
    assert (await client.get("/")).status == 500
    [err] = reported
    assert "forgets should return a response, got None" in str(err)
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is err


@has_groups
async def test_group_of_one_is_reported_as_that_one(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    app = page(
        raising(lambda: group(group(Failed()))), error_middleware(), report
    )
    client = await aiohttp_client(app)
    assert (await client.get("/")).status == 500
    assert [type(err) for err in reported] == [Failed]


async def test_error_after_the_response_started_is_reported(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of")
        raise Failed

    client = await aiohttp_client(page(breaks, error_middleware(), report))
    response = await client.get("/")
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    await eventually(lambda: reported)
    assert [type(err) for err in reported] == [Failed]


async def test_exception_goes_on_as_it_was(
    aiohttp_client: AiohttpClient,
) -> None:
    raised, caught = [], []

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            caught.append((err, err.__cause__, err.__context__))
            raise

    def spoils(err: Exception, request: web.Request) -> None:
        raise RuntimeError from err

    async def handler(request: web.Request) -> web.StreamResponse:
        raised.append(Failed())
        raise raised[0] from ValueError()

    app = page(handler, outside, report_middleware(spoils))
    assert (await (await aiohttp_client(app)).get("/")).status == 500
    [(err, cause, context)] = caught
    assert err is raised[0]
    assert type(cause) is ValueError
    assert context is None


@has_groups
async def test_ignored_exceptions_are_not_reported(
    aiohttp_client: AiohttpClient,
) -> None:
    reported: Reported = []
    errors = [Failed(), group(Failed()), web.HTTPBadGateway(), KeyError()]

    report = report_middleware(
        lambda err, request: reported.append(err),
        ignore_exceptions=(Failed, web.HTTPBadGateway),
    )
    handler = raising(lambda: errors.pop(0))
    client = await aiohttp_client(page(handler, error_middleware(), report))
    for status in (500, 500, 502, 500):
        assert (await client.get("/")).status == status
    assert [type(err) for err in reported] == [KeyError]


# Who has left
# ============


async def test_client_that_left_is_no_error(
    report: Middleware, reported: Reported
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()
    cancelled = []

    async def waits(request: web.Request) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(request)
            raise
        finally:
            ended.set()
        return web.Response()

    async with live(page(waits, error_middleware(), report)) as served:
        connection = await served.connect()
        connection.send("GET /")
        await soon(started.wait())
        connection.reset()
        await soon(ended.wait())
    assert cancelled
    assert reported == []


@pytest.mark.parametrize("how", ["writes", "reads"])
async def test_failing_because_the_client_left_is_no_error(
    report: Middleware, reported: Reported, how: str
) -> None:
    failures: list[BaseException] = []
    started = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        try:
            if how == "reads":
                started.set()
                await request.read()
            await response.prepare(request)
            while True:
                started.set()
                await response.write(bytes(10_000))
                await asyncio.sleep(0.001)
        except Exception as err:
            failures.append(err)
            raise

    app = page(handler, error_middleware(), report)
    async with live(app, handler_cancellation=False) as served:
        connection = await served.connect()
        connection.send("POST /", b"half of", length=100)
        await soon(started.wait())
        connection.reset()
        await eventually(lambda: failures)
        # Until it has passed through the middlewares, too.
        await eventually(lambda: not served.connections())
    assert reported == []


# Reporters
# =========


async def test_all_reporters_are_told_at_the_same_time(
    aiohttp_client: AiohttpClient,
) -> None:
    order: list[str] = []
    second = asyncio.Event()

    async def one(err: Exception, request: web.Request) -> None:
        order.append("one")
        await second.wait()

    async def two(err: Exception, request: web.Request) -> None:
        order.append("two")
        second.set()

    def three(err: Exception, request: web.Request) -> None:
        order.append("three")

    report = report_middleware(one, two, three)
    client = await aiohttp_client(page(fails, error_middleware(), report))
    assert (await soon(client.get("/"))).status == 500
    assert sorted(order) == ["one", "three", "two"]


async def test_failing_reporter_is_logged_once_and_harms_nobody(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    report: Middleware,
    reported: Reported,
) -> None:
    def breaks(err: Exception, request: web.Request) -> None:
        raise KeyError("sync")

    async def breaks_later(err: Exception, request: web.Request) -> None:
        await asyncio.sleep(0)
        raise KeyError("async")

    async def gives_up(err: Exception, request: web.Request) -> None:
        raise asyncio.CancelledError

    def keep(err: Exception, request: web.Request) -> None:
        reported.append(err)

    report = report_middleware(
        breaks,
        functools.partial(breaks_later),
        gives_up,
        keep,
    )
    client = await aiohttp_client(page(fails, error_middleware(), report))
    response = await client.get("/?secret=s3cret")
    assert response.status == 500
    assert await response.json() == {"detail": "Internal Server Error"}
    assert len(reported) == 1
    found = records_of(caplog)
    said = sorted(str(vars(record)["reporter"]) for record in found)
    assert [name.rpartition(".")[2] for name in said] == [
        "breaks",
        "breaks_later",
        "gives_up",
    ]
    for record in found:
        assert record.levelname == "ERROR"
        assert record.exc_info
        assert record.getMessage().endswith("failed for GET /")
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("obeys", [True, False])
async def test_hanging_reporter_is_cancelled_and_not_waited_for(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    obeys: bool,
) -> None:
    assert aiohttp_middlewares.report.PATIENCE == 5
    monkeypatch.setattr(aiohttp_middlewares.report, "PATIENCE", 0.01)
    cancelled, end = asyncio.Event(), asyncio.Event()

    async def hangs(err: Exception, request: web.Request) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            if obeys:
                raise
            await end.wait()

    report = report_middleware(hangs)
    client = await aiohttp_client(page(fails, error_middleware(), report))
    response = await soon(client.get("/"))
    assert response.status == 500
    await soon(cancelled.wait())
    [record] = records_of(caplog)
    assert record.levelname == "ERROR"
    assert "hangs was not done with GET / in time" in record.getMessage()
    assert record.exc_info is None
    end.set()


async def test_report_is_not_lost_when_its_request_is_cancelled(
    reported: Reported,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    seen: list[BaseException] = []

    async def slow(err: Exception, request: web.Request) -> None:
        started.set()
        await go_on.wait()
        reported.append(err)

    @web.middleware
    async def outside(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except BaseException as err:
            seen.append(err)
            raise

    app = page(fails, outside, error_middleware(), report_middleware(slow))
    with complaints() as found:
        async with live(app) as served:
            connection = await served.connect()
            connection.send("GET /")
            await soon(started.wait())
            connection.reset()
            await eventually(lambda: seen)
            assert isinstance(seen[0], asyncio.CancelledError)
            gc.collect()  # nobody waits for it any more
            go_on.set()
            await eventually(lambda: reported)
        seen.clear()
        reported.clear()
    assert found == []


async def test_reports_at_the_same_time_are_bounded(
    aiohttp_client: AiohttpClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aiohttp_middlewares.report, "BACKLOG", 1)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(err: Exception, request: web.Request) -> None:
        started.set()
        await go_on.wait()

    report = report_middleware(slow)
    client = await aiohttp_client(page(fails, error_middleware(), report))
    first = asyncio.create_task(client.get("/"))
    await soon(started.wait())
    assert (await soon(client.get("/"))).status == 500
    [record] = records_of(caplog)
    assert "failed" in record.getMessage()
    go_on.set()
    assert (await soon(first)).status == 500
    started.clear()
    assert (await soon(client.get("/"))).status == 500
    assert started.is_set()
    assert len(records_of(caplog)) == 1


# Several of them
# ===============


@pytest.mark.parametrize("clones", [False, True])
@pytest.mark.parametrize("errors", [False, True])
async def test_in_a_sub_application_the_outer_one_counts(
    aiohttp_client: AiohttpClient, clones: bool, errors: bool
) -> None:
    told: list[str] = []
    inner = [report_middleware(lambda err, request: told.append("inner"))]
    if errors:  # which answers them before the outer one sees them
        inner.insert(0, error_middleware())
    outer = [
        error_middleware(),
        report_middleware(lambda err, request: told.append("outer")),
    ]
    if clones:
        outer.append(https_middleware())
    app = web.Application(middlewares=outer)
    app.add_subapp("/sub", page(fails, *inner))
    client = await aiohttp_client(app)
    fields = {"X-Forwarded-Proto": "https"}
    assert (await client.get("/sub/", headers=fields)).status == 500
    assert told == ["outer"]


async def test_broken_stream_of_a_sub_application_is_reported_once(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half of")
        raise asyncio.TimeoutError

    # The inner error middleware raises another one from it.
    inner = page(breaks, error_middleware(), report_middleware(never))
    app = web.Application(middlewares=[error_middleware(), report])
    app.add_subapp("/sub", inner)
    client = await aiohttp_client(app)
    response = await client.get("/sub/")
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    await eventually(lambda: reported)
    assert [type(err) for err in reported] == [asyncio.TimeoutError]


async def test_error_that_is_made_of_an_answer_is_reported(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    @web.middleware
    async def between(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound as err:
            raise Failed from err

    app = page(
        raising(web.HTTPNotFound), error_middleware(), report, between, report
    )
    assert (await (await aiohttp_client(app)).get("/")).status == 500
    assert [type(err) for err in reported] == [Failed]


def never(err: Exception, request: web.Request) -> None:
    raise AssertionError("the outer one counts")


async def test_error_that_is_raised_again_and_again_is_reported_each_time(
    aiohttp_client: AiohttpClient, report: Middleware, reported: Reported
) -> None:
    err = Failed()
    app = page(raising(lambda: err), error_middleware(), report, report)
    client = await aiohttp_client(app)
    for _ in range(3):
        assert (await client.get("/")).status == 500
    assert reported == [err] * 3


# Every kind of answer
# ====================


@pytest.mark.parametrize("with_errors", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_no_answer_is_another(
    aiohttp_client: AiohttpClient,
    report: Middleware,
    reported: Reported,
    kind: Kind,
    with_errors: bool,
) -> None:
    async def ask(*middlewares: Middleware) -> tuple[int, Any, bytes]:
        app = serve(web.Application(middlewares=middlewares))
        client = await aiohttp_client(app)
        response = await client.get(
            kind.path, headers=kind.fields, allow_redirects=False
        )
        headers = response.headers.copy()
        for name in ("Date", "Sec-WebSocket-Accept"):
            headers.popall(name, None)
        return response.status, headers, await response.read()

    outside = [error_middleware()] if with_errors else []
    expected = await ask(*outside)
    found = await ask(*outside, https_middleware(), report)
    if kind.name == "none" and not with_errors:
        # aiohttp has two pages for an error of 500.
        assert found[0] == expected[0]
    else:
        assert found == expected
    names = [type(err).__name__ for err in reported]
    late = asyncio.TimeoutError.__name__
    assert names == {
        "failed": ["Failed"],
        "none": ["TypeError"],
        "late": [late],
    }.get(kind.name, [])


class Payload:
    pass


@pytest.mark.parametrize("with_errors", [False, True])
@pytest.mark.parametrize("fails_too", [False, True])
async def test_nothing_is_left_of_a_reported_request(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    with_errors: bool,
    fails_too: bool,
) -> None:
    for name in (LOGGER, "aiohttp_middlewares.error", "aiohttp.server"):
        monkeypatch.setattr(
            logging.getLogger(name), "filters", [lambda record: False]
        )
    payloads: weakref.WeakSet[Payload] = weakref.WeakSet()

    async def handler(request: web.Request) -> web.StreamResponse:
        payload = Payload()
        payloads.add(payload)
        raise Failed

    async def tell(err: Exception, request: web.Request) -> None:
        if fails_too:
            raise KeyError

    report = report_middleware(tell, lambda err, request: None)
    outside = [error_middleware()] if with_errors else []
    client = await aiohttp_client(page(handler, *outside, report, report))
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            assert (await client.get("/")).status == 500
        await asyncio.sleep(0.01)
        assert len(payloads) == 0
    finally:
        gc.enable()


async def test_mocked_request_is_reported_as_well() -> None:
    told: list[Described] = []
    report: Any = report_middleware(
        lambda err, request: told.append(described(request))
    )
    request = make_mocked_request(
        "GET", "/a?b=c", headers={"Host": "a.example"}
    )
    with pytest.raises(Failed):
        await report(request, fails)
    [said] = told
    assert said.url == "http://a.example/a"
    assert said.request_id is None


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("reporters", "options", "error", "said"),
    [
        ((), {}, ValueError, "at least one"),
        ((1,), {}, TypeError, "a callable, got 1"),
        (([],), {}, TypeError, "a callable"),
        ((sentry_reporter,), {}, TypeError, r"mean sentry_reporter\(\)\?"),
        ((lambda err: None,), {}, TypeError, "of the error and the request"),
        ((print,), {"ignore_exceptions": "x"}, TypeError, "exception classes"),
        ((print,), {"ignore_exceptions": int}, TypeError, "exception classes"),
    ],
)
def test_wrong_option_is_refused(
    reporters: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=f"^report_middleware .*{said}"):
        report_middleware(*reporters, **options)


@pytest.mark.parametrize(
    ("factory", "package", "extra"),
    [
        (sentry_reporter, "sentry-sdk", "sentry"),
        (rollbar_reporter, "rollbar", "rollbar"),
        (bugsnag_reporter, "bugsnag", "bugsnag"),
    ],
)
def test_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
    factory: Callable[[], object],
    package: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(ImportError) as caught:
        factory()
    assert str(caught.value) == (
        f"{factory.__name__} needs {package}; "
        f'pip install "aiohttp-middlewares[{extra}]"'
    )
