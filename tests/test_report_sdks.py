"""The real SDKs, and what they send: to a server on the loopback interface."""

import asyncio
import builtins
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import bugsnag as bugsnag_sdk
import pytest
import rollbar as rollbar_sdk
import sentry_sdk
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from live import eventually, live, soon
from sentry_sdk.consts import DEFAULT_OPTIONS
from sentry_sdk.integrations.aiohttp import AioHttpIntegration
from sentry_sdk.integrations.logging import _IGNORED_LOGGERS

import aiohttp_middlewares.report
from aiohttp_middlewares import (
    basic_auth_middleware,
    bugsnag_reporter,
    error_middleware,
    report_middleware,
    request_id_middleware,
    rollbar_reporter,
    sentry_reporter,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from aiohttp_middlewares.report._sdk import THREADS

# Half of them is without types.
bugsnag: Any = bugsnag_sdk
rollbar: Any = rollbar_sdk

Event = dict[str, Any]
#: By its name only, as events have lines of the source.
SECRET = "s3cret"
GROUP: Any = getattr(builtins, "ExceptionGroup", None)


class Failed(Exception):
    pass


class Collector:
    """What the services of the SDKs are here."""

    def __init__(self) -> None:
        self.url = ""
        self.texts: list[str] = []
        self.asked = 0
        self.answered = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=10**8)
        app.router.add_post("/{service}/{rest:.*}", self.take)
        async with live(app) as served:
            self.url = f"{served.host}:{served.port}"
            yield

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        text = await request.text()
        await self.go_on.wait()
        if "sessions" not in request.path:
            self.texts.append(text)
        self.answered += 1
        return web.json_response({"err": 0, "result": {}})


class Said(NamedTuple):
    """What an event says, in the words of no service."""

    error: str
    method: str
    url: str
    route: str
    name: str
    request_id: str | None
    user: str | None


class Sentry:
    reporter = staticmethod(sentry_reporter)
    options: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.traces: set[str] = set()

    @asynccontextmanager
    async def set_up(
        self, url: str, *, user: bool | None = None
    ) -> AsyncIterator[None]:
        sentry_sdk.init(
            f"http://key@{url}/1",
            auto_enabling_integrations=False,
            **self.options,
            **self.about_user(user),
        )
        try:
            # So that there is one scope that all requests have in common.
            sentry_sdk.set_tag("of", "the application")
            yield
        finally:
            await asyncio.to_thread(sentry_sdk.get_client().close)
            sentry_sdk.get_global_scope().set_client(None)

    def about_user(self, allowed: bool | None) -> dict[str, Any]:
        if allowed is None:
            return {}
        if "data_collection" not in DEFAULT_OPTIONS:
            return {"send_default_pii": allowed}
        # All else is collected then.
        return {"data_collection": {"user_info": allowed}}

    async def flush(self, app: web.Application) -> None:
        await asyncio.to_thread(sentry_sdk.flush, timeout=10)

    def events(self, texts: list[str], kind: str = "event") -> list[Event]:
        found: list[Event] = []
        for text in texts:
            _, *items = text.splitlines()
            for head, body in zip(items[::2], items[1::2], strict=True):
                if json.loads(head)["type"] == kind:
                    found.append(json.loads(body))
        return found

    def said(self, event: Event) -> Said:
        assert set(event["request"]) == {"method", "url"}
        assert event["tags"]["of"] == "the application"
        return Said(
            error=event["exception"]["values"][-1]["type"],
            method=event["request"]["method"],
            url=event["request"]["url"],
            route=event["tags"]["route"],
            name=event["transaction"],
            request_id=event["tags"].get("request_id"),
            user=event.get("user", {}).get("id"),
        )

    def leave(self, number: int) -> None:
        sentry_sdk.add_breadcrumb(message=f"crumb {number}")
        sentry_sdk.set_tag("number", number)

    def left(self, event: Event) -> list[Any]:
        crumbs = event["breadcrumbs"]["values"]
        self.traces.add(event["contexts"]["trace"]["trace_id"])
        return [
            # (Some versions also have the calls of the client here.)
            *(crumb["message"] for crumb in crumbs if "message" in crumb),
            f"crumb {event['tags']['number']}",
        ]


class SentryAlone(Sentry):
    """Without its own integration."""

    options = {"disabled_integrations": [AioHttpIntegration()]}  # noqa: RUF012

    @asynccontextmanager
    async def set_up(
        self, url: str, *, user: bool | None = None
    ) -> AsyncIterator[None]:
        # Where the integration was once, the SDK ignores it ever after.
        ignored = {"aiohttp.server"} & _IGNORED_LOGGERS
        _IGNORED_LOGGERS.difference_update(ignored)
        try:
            async with super().set_up(url, user=user):
                yield
        finally:
            _IGNORED_LOGGERS.update(ignored)


class SentryBeside(Sentry):
    """With it, as it is by default where aiohttp is installed."""

    options = {"integrations": [AioHttpIntegration()]}  # noqa: RUF012


class SentryOfOld(SentryBeside):
    def about_user(self, allowed: bool | None) -> dict[str, Any]:
        return {"send_default_pii": allowed}


def is_traced(context: dict[str, Any]) -> bool:
    """Not what takes the traces, which is in this process as well."""
    return str(context["aiohttp_request"].path).startswith("/users")


class SentryTraces(SentryBeside):
    options = {**SentryBeside.options, "traces_sampler": is_traced}  # noqa: RUF012


class Rollbar:
    reporter = staticmethod(rollbar_reporter)
    handler = "default"

    @asynccontextmanager
    async def set_up(
        self, url: str, *, user: bool | None = None
    ) -> AsyncIterator[None]:
        rollbar.init(
            "token",
            allow_logging_basic_config=False,
            capture_username=bool(user),
            endpoint=f"http://{url}/rollbar/",
            suppress_reinit_warning=True,
            handler=self.handler,
        )
        yield

    async def flush(self, app: web.Application) -> None:
        await asyncio.to_thread(rollbar.wait)

    def events(self, texts: list[str]) -> list[Event]:
        return [json.loads(text)["data"] for text in texts]

    def said(self, event: Event) -> Said:
        assert set(event["request"]) == {"method", "url"}
        body = event["body"]
        traces = body.get("trace_chain") or [body["trace"]]
        return Said(
            error=traces[0]["exception"]["class"],
            method=event["request"]["method"],
            url=event["request"]["url"],
            route=event["custom"]["route"],
            name=event["context"],
            request_id=event["custom"].get("request_id"),
            user=event.get("person", {}).get("id"),
        )


class BlockingRollbar(Rollbar):
    handler = "blocking"


class Bugsnag:
    reporter = staticmethod(bugsnag_reporter)
    asynchronous = True

    @asynccontextmanager
    async def set_up(
        self, url: str, *, user: bool | None = None
    ) -> AsyncIterator[None]:
        bugsnag.configure(
            api_key="f" * 32,
            asynchronous=self.asynchronous,
            endpoint=f"http://{url}/bugsnag/",
            session_endpoint=f"http://{url}/bugsnag/sessions",
        )
        bugsnag.leave_breadcrumb("of the application")
        bugsnag.add_feature_flag("of the application")
        bugsnag.add_metadata_tab("tab", {"of the application": "yes"})
        try:
            yield
        finally:
            bugsnag.configuration.max_breadcrumbs = 0
            bugsnag.configuration.max_breadcrumbs = 25
            bugsnag.clear_feature_flags()
            bugsnag.clear_request_config()

    async def flush(self, app: web.Application) -> None:
        client = bugsnag.legacy.default_client
        await asyncio.to_thread(client.flush, 10_000)

    def events(self, texts: list[str]) -> list[Event]:
        return [event for text in texts for event in json.loads(text)["events"]]

    def said(self, event: Event) -> Said:
        tab = event["metaData"]["request"]
        assert set(tab) <= {"httpMethod", "requestId", "route", "url"}
        assert event["unhandled"]
        assert event["severity"] == "error"
        return Said(
            error=event["exceptions"][0]["errorClass"].rpartition(".")[2],
            method=tab["httpMethod"],
            url=tab["url"],
            route=tab["route"],
            name=event["context"],
            request_id=tab.get("requestId"),
            user=event["user"].get("id"),
        )

    def leave(self, number: int) -> None:
        bugsnag.leave_breadcrumb(f"crumb {number}")
        bugsnag.add_metadata_tab("tab", {f"crumb {number}": "yes"})
        bugsnag.add_feature_flag(f"crumb {number}")

    def left(self, event: Event) -> list[Any]:
        return [
            *(
                crumb["name"]
                for crumb in event["breadcrumbs"]
                if crumb["name"] != "of the application"
                and crumb["type"] != "error"
            ),
            *event["metaData"]["tab"],
            *(flag["featureFlag"] for flag in event["featureFlags"]),
        ]


class BlockingBugsnag(Bugsnag):
    asynchronous = False


Sdk = Sentry | Rollbar | Bugsnag
SDKS: list[Callable[[], Sdk]] = [SentryAlone, SentryBeside, Rollbar, Bugsnag]


class Site:
    """An application whose errors are reported, and a client of it."""

    def __init__(self, sdk: Sdk, collector: Collector) -> None:
        self.sdk = sdk
        self.collector = collector
        self.client: TestClient[web.Request, web.Application]

    @property
    def events(self) -> list[Event]:
        return self.sdk.events(self.collector.texts)


@asynccontextmanager
async def site(
    sdk: Sdk,
    app: web.Application,
    *,
    user: bool | None = None,
) -> AsyncIterator[Site]:
    """Serve it; all that is sent has arrived when it has stopped."""
    collector = Collector()
    app.on_cleanup.append(sdk.flush)
    async with collector.serve():
        made = Site(sdk, collector)
        async with (
            sdk.set_up(collector.url, user=user),
            TestClient(TestServer(app)) as made.client,
        ):
            try:
                yield made
            except BaseException:
                collector.go_on.set()  # or the shutdown would wait for it
                raise


def page(
    sdk: Sdk, handler: Handler, *inside: Middleware, errors: bool = True
) -> web.Application:
    middlewares = [
        request_id_middleware(),
        *([error_middleware()] if errors else []),
        report_middleware(sdk.reporter()),
        *inside,
    ]
    app = web.Application(middlewares=middlewares)
    users = web.Application()
    users.router.add_route("*", "/{name}", handler)
    app.add_subapp("/users", users)
    return app


async def fails(request: web.Request) -> web.StreamResponse:
    raise Failed


# What an event says
# ==================


@pytest.mark.parametrize("may_tell_all", [None, True])
@pytest.mark.parametrize("kind", [*SDKS, SentryOfOld])
@pytest.mark.filterwarnings("ignore:The send_default_pii:DeprecationWarning")
async def test_one_event_says_what_was_asked_and_nothing_secret(
    kind: Callable[[], Sdk], may_tell_all: bool | None
) -> None:
    def deeper(body: Any, *args: Any, **named: Any) -> None:
        copied = [body]
        raise KeyError(len(copied))

    async def reads(request: web.Request) -> web.StreamResponse:
        body = await request.text()
        cookies = {**request.cookies}
        headers = [*request.headers.items()]
        query = request.query_string
        try:
            deeper(body, cookies, headers=headers)
        except KeyError as err:
            raise Failed(len(query)) from err
        return web.Response()

    sdk = kind()
    async with site(sdk, page(sdk, reads), user=may_tell_all) as made:
        response = await made.client.post(
            f"/users/alice%20b?name={SECRET}&token={SECRET}",
            data=SECRET,
            headers={
                "Authorization": f"Bearer {SECRET}",
                "Cookie": f"session={SECRET}",
                "Referer": f"http://a.example/?{SECRET}",
                "X-Api-Key": SECRET,
                "X-Forwarded-For": SECRET,
                "X-Request-ID": "the-id",
            },
        )
        assert response.status == 500
        url = made.client.make_url("/users/alice%20b")
    [event] = made.events
    assert sdk.said(event) == Said(
        error="Failed",
        method="POST",
        url=str(url),
        route="/users/{name}",
        name="POST /users/{name}",
        request_id="the-id",
        user=None,
    )
    assert SECRET not in "".join(made.collector.texts)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("kind", [*SDKS, SentryOfOld])
@pytest.mark.filterwarnings("ignore:The send_default_pii:DeprecationWarning")
async def test_user_is_told_where_the_sdk_is_allowed_to(
    kind: Callable[[], Sdk], allowed: bool
) -> None:
    sdk = kind()
    app = page(sdk, fails, basic_auth_middleware({"alice": SECRET}))
    async with site(sdk, app, user=allowed) as made:
        fields = {"Authorization": "Basic YWxpY2U6czNjcmV0"}
        response = await made.client.get("/users/a", headers=fields)
        assert response.status == 500
    [event] = made.events
    # Bugsnag has no such setting.
    told = allowed and kind is not Bugsnag
    assert sdk.said(event).user == ("alice" if told else None)
    assert "YWxpY2U6czNjcmV0" not in made.collector.texts[0]


@pytest.mark.parametrize("kind", SDKS)
async def test_client_cannot_make_an_sdk_fail(kind: Callable[[], Sdk]) -> None:
    sdk = kind()
    lines = [
        ("GET /users/%ff%00%0a", "a.example"),
        ("GET /users/" + "a" * 5000, "a.example"),
        ("GET /users/a", "evil@a b"),
        (f"GET http://user:{SECRET}@a.example/users/a", "b.example"),
        ("PROPFIND /users/a", "a.example"),
        ("GET /users/a?\\ud800=%ed%a0%80", "a.example"),
    ]
    async with site(sdk, page(sdk, fails)) as made:
        for line, host in lines:
            server = made.client.server
            reader, writer = await asyncio.open_connection(
                server.host, server.port
            )
            writer.write(
                f"{line} HTTP/1.1\r\nHost: {host}\r\nX-Request-ID: \xff\r\n"
                "baggage: \xff\r\nsentry-trace: \xff\r\nCookie: \xff=\xff\r\n"
                "Content-Type: text/plain; charset=\xff\r\n"
                "Connection: close\r\n\r\n".encode("latin-1")
            )
            answer = await soon(reader.read())
            assert answer.startswith(b"HTTP/1.1 500 ")
            writer.close()
    said = [sdk.said(event) for event in made.events]
    assert len(said) == len(lines)
    assert {each.method for each in said} == {"GET", "_OTHER"}
    assert max(len(each.url) for each in said) < 1100
    assert SECRET not in "".join(made.collector.texts)
    assert "evil" not in "".join(each.url for each in said)


@pytest.mark.parametrize(
    "kind", [SentryAlone, SentryBeside, Bugsnag, BlockingBugsnag]
)
async def test_breadcrumbs_of_fifty_requests_are_kept_apart(
    kind: Callable[[], Sentry | Bugsnag],
) -> None:
    sdk = kind()
    together = 50
    inside = 0
    all_there = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal inside
        inside += 1
        if inside == together:
            all_there.set()
        await all_there.wait()
        sdk.leave(int(request.match_info["name"]))
        await asyncio.sleep(0.001)  # now the others
        raise Failed

    async with site(sdk, page(sdk, handler)) as made:
        answers = await asyncio.gather(
            *(made.client.get(f"/users/{n}") for n in range(together))
        )
        assert {answer.status for answer in answers} == {500}
    assert len(made.events) == together
    for event in made.events:
        number = sdk.said(event).url.rpartition("/")[2]
        assert set(sdk.left(event)) == {f"crumb {number}"}
        assert len(sdk.left(event)) > 1
    if isinstance(sdk, SentryAlone) and "data_collection" in DEFAULT_OPTIONS:
        # (Beside it the client here has sent on what its trace is; before it
        # had such options, the SDK took that from the scope outside.)
        assert len(sdk.traces) == together


# One event
# =========


async def breaks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half of")
    raise asyncio.TimeoutError


async def raises_gateway(request: web.Request) -> web.StreamResponse:
    raise web.HTTPBadGateway


async def sleeps(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def forgets(request: web.Request) -> web.StreamResponse:
    return None  # type: ignore[return-value]


async def groups(request: web.Request) -> web.StreamResponse:
    raise Failed if GROUP is None else GROUP("a group", [Failed()])


@pytest.mark.parametrize("errors", [True, False])
@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (fails, "Failed"),
        (raises_gateway, "HTTPBadGateway"),
        (sleeps, "RequestTimeout"),
        (forgets, "TypeError"),
        (groups, "Failed"),
        (breaks, asyncio.TimeoutError.__name__),
    ],
)
@pytest.mark.parametrize("kind", SDKS)
async def test_there_is_one_event_for_one_error(
    kind: Callable[[], Sdk], handler: Handler, name: str, errors: bool
) -> None:
    sdk = kind()
    app = page(sdk, handler, timeout_middleware(0.05), errors=errors)
    async with site(sdk, app) as made:
        response = await made.client.get(f"/users/a?{SECRET}")
        if handler is breaks:
            with pytest.raises(ClientPayloadError):
                await response.read()
        else:
            assert response.status >= 500
    [event] = made.events
    assert sdk.said(event).error == name
    assert SECRET not in made.collector.texts[0]


@pytest.mark.parametrize("kind", [SentryAlone, SentryBeside])
async def test_sentry_makes_events_of_other_errors_as_before(
    kind: Callable[[], Sentry],
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] == "logs":
            logging.getLogger("mine").error("Before")
            try:
                raise KeyError
            except KeyError:
                logging.getLogger("mine").exception("Caught")
        raise Failed

    sdk = kind()
    app = page(sdk, handler)
    app.middlewares.insert(0, logs_afterwards)
    async with site(sdk, app) as made:
        assert (await made.client.get("/users/logs")).status == 500
    assert sorted(
        event["logentry"]["message"] if "logentry" in event else "reported"
        for event in made.events
    ) == ["After", "Before", "Caught", "reported"]


@web.middleware
async def logs_afterwards(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    response = await handler(request)
    try:
        raise KeyError
    except KeyError:
        logging.getLogger("mine").exception("After")
    return response


async def test_query_of_a_call_to_another_service_is_left_out() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "call" in request.query:
            url = made.client.make_url(f"/users/called?key={SECRET}")
            async with ClientSession() as session, session.get(url):
                raise Failed
        return web.Response()

    sdk = SentryBeside()
    async with site(sdk, page(sdk, handler)) as made:
        assert (await made.client.get("/users/calls?call")).status == 500
    [event] = made.events
    # (Some versions also have those of the client here.)
    crumb = event["breadcrumbs"]["values"][-1]
    assert crumb["data"]["url"].endswith("/users/called")
    assert crumb["data"]["http.method"] == "GET"
    assert SECRET not in made.collector.texts[0]


@pytest.mark.parametrize("kind", [SentryAlone, SentryBeside])
async def test_errors_after_each_other_are_told_apart(
    kind: Callable[[], Sentry],
) -> None:
    sdk = kind()
    reporter = sdk.reporter()

    async def handler(request: web.Request) -> web.StreamResponse:
        for _ in range(3):
            # The next is where the last was, in memory.
            reporter(Failed(), request)
        return web.Response()

    async with site(sdk, page(sdk, handler)) as made:
        assert (await made.client.get("/users/a")).status == 200
    assert len(made.events) == 3


async def test_what_a_handler_says_is_also_in_the_trace_of_sentry() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        sentry_sdk.set_tag("said", "in the handler")
        raise Failed

    sdk = SentryTraces()
    async with site(sdk, page(sdk, handler)) as made:
        assert (await made.client.get(f"/users/a?{SECRET}")).status == 500
    [event] = made.events
    assert event["tags"]["said"] == "in the handler"
    assert SECRET not in json.dumps(event)
    [transaction] = sdk.events(made.collector.texts, "transaction")
    assert transaction["tags"]["said"] == "in the handler"
    trace = transaction["contexts"]["trace"]
    assert event["contexts"]["trace"]["trace_id"] == trace["trace_id"]


async def test_handler_for_logs_has_to_leave_out_what_is_reported() -> None:
    sdk = Bugsnag()
    for leave_out in (False, True):
        logs = bugsnag.handlers.BugsnagHandler()
        logs.setLevel(logging.ERROR)
        if leave_out:
            logs.addFilter(
                lambda record: record.name != "aiohttp_middlewares.error"
            )
        logging.getLogger().addHandler(logs)
        try:
            async with site(sdk, page(sdk, fails)) as made:
                assert (await made.client.get("/users/a")).status == 500
        finally:
            logging.getLogger().removeHandler(logs)
        assert len(made.events) == (1 if leave_out else 2)


async def test_other_reports_to_rollbar_keep_their_local_variables() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        mine = "a local variable"
        try:
            raise KeyError(len(mine))
        except KeyError:
            rollbar.report_exc_info()
        raise Failed

    sdk = Rollbar()
    app = page(sdk, handler)
    async with site(sdk, app) as made:
        for _ in range(2):
            assert (await made.client.get("/users/a")).status == 500
            # As rollbar.init() does, when it comes late.
            rollbar.events.reset()
    for event in made.events:
        body = event["body"]
        is_ours = "framework" in event
        [trace] = body.get("trace_chain", [])[:1] or [body["trace"]]
        assert any("locals" in frame for frame in trace["frames"]) != is_ours
    assert len(made.events) == 4


# Background
# ==========


@pytest.mark.parametrize("kind", SDKS)
async def test_what_is_sent_in_the_background_is_there_after_the_shutdown(
    kind: Callable[[], Sdk],
) -> None:
    sdk = kind()
    async with site(sdk, page(sdk, fails)) as made:
        made.collector.go_on.clear()
        for _ in range(5):
            # The answer does not wait for the service.
            assert (await made.client.get("/users/a")).status == 500
        assert made.events == []
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, made.collector.go_on.set)
        await made.client.close()
        assert len(made.events) == 5


@pytest.mark.parametrize("kind", [BlockingRollbar, BlockingBugsnag])
async def test_sdk_that_blocks_does_not_block_the_event_loop(
    kind: Callable[[], Sdk],
) -> None:
    # Whom it would wait for is in this very event loop.
    sdk = kind()
    async with site(sdk, page(sdk, fails)) as made:
        response = await soon(made.client.get("/users/a"))
        assert response.status == 500
        assert made.collector.answered == 1  # the answer has waited for it
    [event] = made.events
    assert sdk.said(event).error == "Failed"


async def test_reports_that_block_are_sent_though_nobody_waits_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aiohttp_middlewares.report, "PATIENCE", 0.01)
    sdk = BlockingBugsnag()
    many = 2 * THREADS
    async with site(sdk, page(sdk, fails)) as made:
        made.collector.go_on.clear()
        for _ in range(many):
            response = await soon(made.client.get("/users/a"))
            assert response.status == 500
        assert made.collector.asked <= THREADS
        made.collector.go_on.set()
        await eventually(lambda: made.collector.answered == many)
    assert len(made.events) == many


async def test_reports_that_block_are_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_middlewares.report._sdk, "BACKLOG", 1)
    monkeypatch.setattr(aiohttp_middlewares.report, "PATIENCE", 0.01)
    sdk = BlockingBugsnag()
    async with site(sdk, page(sdk, fails)) as made:
        made.collector.go_on.clear()
        for _ in range(3):
            assert (await soon(made.client.get("/users/a"))).status == 500
        await eventually(lambda: made.collector.asked)
        assert made.collector.asked == 1
        made.collector.go_on.set()
        for _ in range(100):
            if made.collector.asked > 1:
                break
            # Again, until the thread is done.
            assert (await soon(made.client.get("/users/a"))).status == 500
    assert len(made.events) == 2
    failures = [
        record.getMessage()
        for record in caplog.records
        if record.name == "aiohttp_middlewares.report"
    ]
    assert (
        "The reporter BugsnagReporter was not done with GET /users/a in time"
        in failures[0]
    )
    assert "The reporter BugsnagReporter failed for GET /users/a" in failures[1]


@pytest.mark.parametrize("kind", [Sentry, Rollbar, Bugsnag])
async def test_sdk_that_is_not_set_up_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[], Sdk]
) -> None:
    monkeypatch.setitem(rollbar.SETTINGS, "access_token", None)
    monkeypatch.setattr(bugsnag.configuration, "api_key", None)
    sdk = kind()
    app = page(sdk, fails)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/users/a")
        assert response.status == 500
        assert await response.json() == {"detail": "Internal Server Error"}
