"""check_stack: what it finds, what it leaves alone, and its command."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from limits.aio.storage import MemoryStorage
from list_faults import (
    FAULTS,
    KEY,
    NAVIGATION,
    Anybody,
    Known,
    answer,
    asking,
    callback,
    hello,
    ordered,
    records,
    site,
    tokens,
    traced,
)

import aiohttp_middlewares
from aiohttp_middlewares import (
    Finding,
    access_log_middleware,
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    body_limit_middleware,
    check_stack,
    client,
    compression_middleware,
    cors_middleware,
    csrf_middleware,
    drain_shielded,
    error_middleware,
    etag_middleware,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    metrics_middleware,
    problem_error_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    report_middleware,
    request_id_middleware,
    requires,
    security_headers_middleware,
    server_timing_middleware,
    session_middleware,
    shield_middleware,
    sign_in_middleware,
    timeout_middleware,
    trusted_host_middleware,
    with_middlewares,
)
from aiohttp_middlewares.__main__ import main
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.check._rules import REFUSES, RULES, Order
from examples.demo.api import create_api
from examples.demo.page import create_page

ROOT = Path(aiohttp_middlewares.__file__).parent.parent
COUNTS = MemoryStorage()
FACTORIES = {
    name for name in aiohttp_middlewares.__all__ if name.endswith("_middleware")
}


def application(*middlewares: Any) -> web.Application:
    return web.Application(middlewares=middlewares)


def codes(app: web.Application) -> set[str]:
    return {finding.code for finding in check_stack(app)}


# What it finds
# =============


@pytest.mark.parametrize(
    "fault",
    [pytest.param(known, id=f"{known.code}-{known.name}") for known in FAULTS],
)
# aiohttp 3 takes one of the client's for a factory of its first versions.
@pytest.mark.filterwarnings("ignore:old-style middleware:DeprecationWarning")
async def test_fault_does_harm_and_is_found_until_it_is_mended(
    fault: Known,
) -> None:
    app, harm = fault.made(False)
    assert codes(app) == {fault.code}
    assert await harm(app)
    app, harm = fault.made(True)
    assert codes(app) == set()
    assert not await harm(app)


def test_the_harm_of_each_rule_is_shown() -> None:
    shown = {known.code for known in FAULTS}
    assert {rule.code for rule in RULES if ours(rule)} == shown
    assert len({rule.code for rule in RULES}) == len(RULES)


def test_the_harm_of_each_pair_of_a_rule_is_shown() -> None:
    shown = {
        (finding.code, *re.findall(r"\w+_middleware", finding.message)[:2])
        for known in FAULTS
        for finding in check_stack(known.made(False)[0])
    }
    asked = {
        (rule.code, inner, outer)
        for rule in RULES
        if isinstance(rule, Order)
        for inner in rule.inner
        for outer in rule.outer
        if inner != outer and {inner, outer} <= FACTORIES
    }
    assert asked - shown == set()


def ours(rule: Any) -> bool:
    """Whether what the rule is about is there."""
    return not isinstance(rule, Order) or bool(
        FACTORIES & set(rule.inner) and FACTORIES & set(rule.outer)
    )


def test_each_middleware_has_its_place_in_a_rule() -> None:
    placed = {
        name
        for rule in RULES
        if isinstance(rule, Order)
        for name in (*rule.inner, *rule.outer)
    }
    assert FACTORIES - placed == set()


def test_finding_tells_what_where_and_what_to_do() -> None:
    app = application(timeout_middleware(1), error_middleware())
    assert check_stack(app) == [
        Finding(
            code="error-inside",
            message="timeout_middleware stands outside of error_middleware: "
            "what it raises is answered by aiohttp, as plain text or with no "
            "text at all",
            remedy="List error_middleware before timeout_middleware",
            where="the application",
        )
    ]


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_each_factory_that_was_not_called_is_found(name: str) -> None:
    [finding] = check_stack(application(getattr(aiohttp_middlewares, name)))
    assert finding.code == "no-middleware"
    assert finding.message.startswith(f"{name} is listed, and is no middleware")
    assert finding.remedy == f"List what it makes: {name}(...)"


@pytest.mark.parametrize(
    ("listed", "kind", "remedy"),
    [
        ([error_middleware()], "list", "Write a * before it"),
        ((timeout_middleware(1), error_middleware()), "tuple", "Write a * "),
        (None, "NoneType", "Take it out of the list"),
    ],
)
async def test_what_cannot_be_called_is_found(
    listed: Any, kind: str, remedy: str
) -> None:
    app = application(listed)
    [finding] = check_stack(app)
    assert finding.code == "no-middleware"
    assert finding.message.startswith(f"something of type {kind} is listed, ")
    assert finding.remedy.startswith(remedy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # aiohttp takes it for an old one
        assert (await answer(app)).status == 500


@pytest.mark.parametrize("listed", [drain_shielded, problem_error_handler])
def test_what_else_is_no_middleware_is_found(listed: Any) -> None:
    [finding] = check_stack(application(listed))
    assert finding.code == "no-middleware"
    assert finding.remedy == "Take it out of the list"


async def refresh(session: Any, token: Any) -> Any:
    return token


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (client.request_log_middleware(), "request_log_middleware"),
        (client.request_log_middleware, "request_log_middleware"),
        (client.retry_middleware(), "retry_middleware"),
        (
            client.BearerTokenMiddleware(refresh, origins=["http://a.example"]),
            "BearerTokenMiddleware",
        ),
    ],
)
def test_middleware_of_clients_is_found(made: Any, name: str) -> None:
    [finding] = check_stack(application(made))
    assert finding.code == "of-clients"
    assert finding.message.startswith(f"{name} is a middleware of clients")


# Sub-applications, handlers and views
# ====================================


AUTH = partial(basic_auth_middleware, {"ann": "word"})
CORS = partial(cors_middleware, origins=["https://a.example"])


def test_list_of_a_sub_application_stands_inside_of_those_around_it() -> None:
    app, inner, innermost = (
        application(AUTH()),
        application(),
        application(CORS()),
    )
    inner.add_subapp("/b", innermost)
    app.add_subapp("/a", inner)
    [finding] = check_stack(app)
    assert finding.code == "cors-inside"
    assert finding.where == "the sub-application at /a/b"
    assert check_stack(innermost) == []


def test_sub_application_of_a_host_is_looked_at() -> None:
    app = application(AUTH())
    app.add_domain("api.example", application(CORS()))
    [finding] = check_stack(app)
    assert finding.where == "the sub-application at api.example"


def test_fault_is_told_once_where_it_comes_from() -> None:
    app = application(error_middleware(), CORS())
    app.add_subapp("/a", application())
    app.add_subapp("/b", application(body_limit_middleware(1)))
    app.router.add_get("/", with_middlewares(body_limit_middleware(1))(hello))
    assert [finding.where for finding in check_stack(app)] == [
        "the application"
    ]


def test_same_fault_of_two_is_told_once() -> None:
    assert len(check_stack(application(AUTH(), AUTH(), CORS()))) == 1


def test_what_stands_further_out_is_enough_for_all_inside() -> None:
    app = application(CORS(), error_middleware())
    app.add_subapp("/a", application(AUTH(), CORS(), timeout_middleware(1)))
    assert check_stack(app) == []


def test_what_is_meant_for_a_sub_application_alone_is_not_found() -> None:
    app = application(error_middleware(), AUTH())
    app.add_subapp("/a", application(access_log_middleware(), tracing()))
    app.add_subapp("/b", application(security_headers_middleware()))
    assert check_stack(app) == []
    app = application(error_middleware())
    app.add_subapp("/a", application(CORS()))
    assert check_stack(app) == []


def tracing() -> Any:
    return traced()[0]


def test_report_of_an_application_hears_of_nothing_that_inner_ones_answer() -> (
    None
):
    def reporting() -> Any:
        return report_middleware(lambda err, request: None)

    app = application(error_middleware(), reporting())
    app.add_subapp("/deaf", application(error_middleware()))
    app.add_subapp("/fine", application(error_middleware(), reporting()))
    [finding] = check_stack(app)
    assert finding.code == "report-outside-error"
    assert finding.where == "the sub-application at /deaf"


def test_timeout_between_two_shields_cancels_nothing() -> None:
    shield = partial(shield_middleware, methods=["POST"])
    app = application(
        error_middleware(), shield(), timeout_middleware(1), shield()
    )
    app.cleanup_ctx.append(drain_shielded)
    assert check_stack(app) == []


def test_what_a_handler_has_around_itself_is_looked_at() -> None:
    app = application(AUTH())
    app.router.add_post("/a/{name}", with_middlewares(CORS())(hello))
    [finding] = check_stack(app)
    assert finding.code == "cors-inside"
    assert finding.where == "POST /a/{name}"


def test_a_part_of_a_handler_is_that_handler() -> None:
    app = application(AUTH())
    app.router.add_post("/a", partial(partial(with_middlewares(CORS())(hello))))
    assert codes(app) == {"cors-inside"}


def test_place_is_named_by_the_method_that_was_asked_for() -> None:
    app = application()
    app.router.add_get("/a", requires()(hello))
    assert [finding.where for finding in check_stack(app)] == ["GET /a"]


def test_handler_of_several_routes_is_told_of_once() -> None:
    app = application(AUTH())
    handler = with_middlewares(CORS())(hello)
    app.router.add_post("/a", handler)
    app.router.add_post("/b", handler)
    assert [finding.where for finding in check_stack(app)] == ["POST /a"]


@pytest.mark.parametrize(
    ("methods", "found"),
    [(["GET"], set()), (["GET", "POST"], {"timeout-inside-shield"})],
)
def test_shield_of_other_methods_is_not_around_a_handler(
    methods: list[str], found: set[str]
) -> None:
    app = application(error_middleware(), shield_middleware(methods=["POST"]))
    handler = with_middlewares(timeout_middleware(1))(hello)
    for method in methods:
        app.router.add_route(method, "/a", handler)
    assert codes(app) == found


def test_keys_of_other_methods_are_not_around_a_method_of_a_view() -> None:
    class View(web.View):
        @with_middlewares(AUTH())
        async def get(self) -> web.Response:
            return web.Response()

    class Other(View):
        @with_middlewares(AUTH())
        async def post(self) -> web.Response:
            return web.Response()

    app = application(error_middleware(), idempotency_middleware())
    app.router.add_view("/a", View)
    assert check_stack(app) == []
    app.router.add_view("/b", Other)
    assert [(item.code, item.where) for item in check_stack(app)] == [
        ("idempotency-outside-login", "POST /b")
    ]


def test_what_views_and_their_methods_have_around_themselves_is_looked_at() -> (
    None
):
    class View(web.View):
        @requires()
        async def get(self) -> web.Response:
            return web.Response()

        @with_middlewares(error_middleware())
        async def post(self) -> web.Response:
            return web.Response()

    app = application()
    app.router.add_view("/a", with_middlewares(timeout_middleware(1))(View))
    found = {(item.code, item.where) for item in check_stack(app)}
    assert found == {
        ("timeout-alone", "* /a"),
        ("requires-nobody", "GET /a"),
        ("error-inside", "POST /a"),
    }


def test_what_a_handler_needs_is_seen_under_other_decorators() -> None:
    @functools.wraps(hello)
    async def other(request: web.Request) -> web.Response:
        return await requires()(hello)(request)

    decorated = functools.wraps(requires()(hello))(other)
    app = application()
    app.router.add_get("/", decorated)
    assert codes(app) == {"requires-nobody"}


@pytest.mark.parametrize("drained_in", ["outer", "inner"])
def test_drain_of_either_application_is_enough(drained_in: str) -> None:
    app = application(error_middleware(), timeout_middleware(1))
    inner = application(shield_middleware(methods=["POST"]))
    drained = app if drained_in == "outer" else inner
    drained.cleanup_ctx.append(drain_shielded)
    app.add_subapp("/a", inner)
    assert check_stack(app) == []


# What it leaves alone
# ====================


@web.middleware
async def of_others(
    request: web.Request, handler: Handler
) -> web.StreamResponse:
    return await handler(request)


class CallableOfOthers:
    __middleware_version__ = 1

    async def __call__(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request)


THEIRS = [
    of_others,
    CallableOfOthers(),
    partial(of_others),
    web.normalize_path_middleware(),
    aiohttp_session.session_middleware(aiohttp_session.SimpleCookieStorage()),
]


def test_nothing_is_said_of_an_empty_application() -> None:
    assert check_stack(web.Application()) == []


@pytest.mark.parametrize("theirs", THEIRS)
def test_middlewares_of_others_are_never_complained_of(theirs: Any) -> None:
    assert check_stack(application(theirs)) == []
    assert check_stack(application(theirs, CORS(), theirs, AUTH())) == []


@pytest.mark.parametrize("theirs", [of_others, CallableOfOthers()])
def test_what_is_missing_may_be_somebody_elses(theirs: Any) -> None:
    app = application(
        theirs, timeout_middleware(1), sign_in_middleware(Anybody())
    )
    app.router.add_get("/", requires()(hello))
    assert check_stack(app) == []


def test_nothing_further_in_takes_the_place_of_what_is_missing() -> None:
    app = application(timeout_middleware(1), of_others)
    assert codes(app) == {"timeout-alone"}


def test_nothing_of_aiohttp_takes_the_place_of_what_is_missing() -> None:
    app = application(web.normalize_path_middleware(), timeout_middleware(1))
    assert codes(app) == {"timeout-alone"}


def test_nothing_is_wrong_with_the_demo() -> None:
    page, api = "http://127.0.0.1:1", "http://127.0.0.1:2"
    assert check_stack(create_api(page, api, "http://localhost:3")) == []
    assert check_stack(create_page(page, api)) == []


class Obliging:
    """An object that has any attribute that it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return self

    async def __call__(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        return await handler(request)


class Disobliging(Obliging):
    """One that is not finished, such as a proxy of what comes later."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("theirs", [Obliging, Disobliging])
def test_attributes_that_are_made_up_are_no_notes(theirs: Any) -> None:
    assert check_stack(application(theirs(), timeout_middleware(1))) == []


def test_what_others_note_on_a_handler_is_not_ours() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    handler.__middlewares__ = handler.__needs__ = None  # type: ignore[attr-defined]
    app = application()
    app.router.add_get("/", handler)
    assert check_stack(app) == []


def test_handler_that_is_wrapped_in_itself_is_no_end_of_looking() -> None:
    @requires()
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    handler.__wrapped__ = handler  # type: ignore[attr-defined]
    app = application()
    app.router.add_get("/", handler)
    assert codes(app) == {"requires-nobody"}


def test_application_in_itself_is_no_end_of_looking() -> None:
    app = application(timeout_middleware(1))
    app.add_subapp("/again", app)
    assert codes(app) == {"timeout-alone"}


def test_looking_changes_nothing() -> None:
    app = application(error_middleware(), CORS())
    app.add_subapp("/a", application())
    assert check_stack(app) == check_stack(app)
    app.middlewares.append(of_others)  # nothing is frozen


#: What may stand on either side of each other, with the reason why that makes
#: no difference: the first outside, against what the pages recommend.
EITHER_WAY: dict[str, tuple[Any, ...]] = {
    "the id stays for what is logged in the end": (
        access_log_middleware(),
        server_timing_middleware(),
        traced()[0],
        error_middleware(),
        report_middleware(lambda err, request: None),
        request_id_middleware(),
    ),
    "it tells the visitor's address of the request that the handler had": (
        access_log_middleware(),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
    ),
    "they see what leaves, whoever makes it": (
        error_middleware(),
        access_log_middleware(),
        metrics_middleware(namespace="either_way"),
        traced()[0],
        server_timing_middleware(),
    ),
    "without exemplars there is no trace to name": (
        metrics_middleware(namespace="either_way"),
        traced()[0],
    ),
    "what was inside of the limit is on the 504 as well": (
        of_others,  # in place of error, which would be inside of cors
        timeout_middleware(1),
        security_headers_middleware(),
        CORS(),
    ),
    "both work where the answer leaves": (
        error_middleware(),
        timeout_middleware(1),
        etag_middleware(),
        compression_middleware(),
    ),
    "a request across origins is refused all the same": (
        session_middleware(KEY),
        sign_in_middleware(Anybody()),
        csrf_middleware(),
    ),
    "both know the scheme, and nothing else is asked for": (
        https_middleware(),
        https_redirect_middleware(),
        security_headers_middleware(),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
    ),
    "the limit ends the handler, and then the key is free": (
        error_middleware(),
        idempotency_middleware(),
        timeout_middleware(1),
    ),
    "both have to be known, in whatever order": (
        api_key_middleware({"ann": "key"}),
        basic_auth_middleware({"ann": "word"}),
    ),
    "whoever has no token is refused, by intent": (
        session_middleware(KEY),
        sign_in_middleware(Anybody()),
        bearer_auth_middleware(tokens),
    ),
    "its own refusals have pages": (
        aiohttp_session.session_middleware(
            aiohttp_session.SimpleCookieStorage()
        ),
        sign_in_middleware(Anybody()),
        error_middleware(),
    ),
    "a cookie that the client never gets cannot be saved": (
        error_middleware(),
        session_middleware(KEY),
        session_middleware(
            aiohttp_session.SimpleCookieStorage(cookie_name="a")
        ),
        timeout_middleware(1),
        shield_middleware(urls=["/"]),
    ),
    "the cookie is Secure whatever the scheme": (
        session_middleware(KEY, https_only=True),
        https_middleware(),
    ),
    "its keys are not shared by address": (
        idempotency_middleware(scope=lambda request: "everybody's"),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
        basic_auth_middleware({"ann": "word"}),
    ),
    "two limits are two limits": (
        rate_limit_middleware("10/minute"),
        rate_limit_middleware("100/hour"),
    ),
    "each counts in a memory of its own": (
        rate_limit_middleware("10/minute"),
        rate_limit_middleware("10/minute"),
    ),
    "each is for other URLs": (
        rate_limit_middleware("10/minute", storage=COUNTS, urls=["/a"]),
        rate_limit_middleware("10/minute", storage=COUNTS, urls=["/b"]),
    ),
    "one knows no host": (
        trusted_host_middleware(["a.example"]),
        proxy_headers_middleware(trusted=["127.0.0.1"]),
    ),
}


@pytest.mark.parametrize("reason", EITHER_WAY)
def test_what_makes_no_difference_is_not_found(reason: str) -> None:
    app = application(*EITHER_WAY[reason])
    app.cleanup_ctx.append(drain_shielded)
    assert check_stack(app) == []


@pytest.mark.parametrize(
    ("room", "outer"),
    [
        ("access_log", access_log_middleware()),
        ("error", error_middleware()),
        ("server_timing", server_timing_middleware(slow=1e-9)),
    ],
)
async def test_id_is_logged_by_what_stands_outside_of_it_too(
    room: str, outer: Any
) -> None:
    app = site(outer, request_id_middleware())
    with records(room) as lines:
        found = await answer(app, path="/failing")
    [line] = lines
    assert vars(line)["request_id"] == found.headers["X-Request-ID"]


@pytest.mark.parametrize("csrf_is_outside", [True, False])
async def test_csrf_refuses_on_either_side_of_sign_in(
    csrf_is_outside: bool,
) -> None:
    both = ordered(
        csrf_is_outside, csrf_middleware(), sign_in_middleware(Anybody())
    )
    async with asking(site(session_middleware(KEY), *both)) as visitor:
        gone = await visitor.ask(headers=NAVIGATION)
        await visitor.ask(path=callback(gone, "ann"))
        assert (await visitor.ask("POST")).status == 200
        headers = {"Sec-Fetch-Site": "cross-site"}
        assert (await visitor.ask("POST", headers=headers)).status == 403


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (session_middleware(KEY), session_middleware([KEY, KEY[::-1]])),
        (session_middleware(KEY), session_middleware("b", cookie_name="b")),
        (session_middleware(KEY), session_middleware("b", path="/a")),
    ],
)
def test_sessions_that_get_on_are_not_found(outer: Any, inner: Any) -> None:
    assert check_stack(application(outer, inner)) == []


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (KEY, KEY[::-1]),
        ([KEY, KEY[::-1]], KEY[::-1]),  # it cannot read what the outer writes
        (KEY, aiohttp_session.SimpleCookieStorage(cookie_name="session")),
    ],
)
def test_sessions_that_overwrite_each_other_are_found(
    outer: Any, inner: Any
) -> None:
    app = application(session_middleware(outer), session_middleware(inner))
    assert codes(app) == {"sessions-mixed-up"}


def test_two_storages_of_others_may_well_get_on() -> None:
    storage = aiohttp_session.SimpleCookieStorage
    app = application(
        session_middleware(storage()), session_middleware(storage())
    )
    assert check_stack(app) == []


def test_strict_cookie_further_out_is_not_that_of_sign_in() -> None:
    app = application(
        session_middleware(KEY, cookie_name="a", same_site="strict"),
        session_middleware(KEY),
        sign_in_middleware(Anybody()),
    )
    assert check_stack(app) == []


@pytest.mark.parametrize(
    "storage",
    [
        aiohttp_session.SimpleCookieStorage(),
        aiohttp_session.SimpleCookieStorage(secure=False),
    ],
)
def test_cookie_of_another_storage_is_to_be_secure_too(storage: Any) -> None:
    app = application(https_middleware(), session_middleware(storage))
    assert codes(app) == {"session-in-clear"}
    secure = aiohttp_session.SimpleCookieStorage(secure=True)
    app = application(https_middleware(), session_middleware(secure))
    assert check_stack(app) == []
    # Nobody knows whether the proxy has HTTPS.
    proxy = proxy_headers_middleware(trusted=["127.0.0.1"])
    assert check_stack(application(proxy, session_middleware(storage))) == []


def test_strict_cookie_of_another_storage_is_found_with_sign_in() -> None:
    storage = aiohttp_session.SimpleCookieStorage(samesite="Strict")
    app = application(
        session_middleware(storage), sign_in_middleware(Anybody())
    )
    assert codes(app) == {"sign-in-strict"}


def test_sign_in_that_lets_tokens_through_is_not_found() -> None:
    for options in ({"required": False}, {"ignore": ["/api"]}):
        app = application(
            session_middleware(KEY),
            sign_in_middleware(Anybody(), **options),
            bearer_auth_middleware(tokens, required=False),
        )
        assert check_stack(app) == []


@pytest.mark.parametrize("app", [None, "module:app", create_page, object()])
def test_what_is_no_application_is_refused(app: Any) -> None:
    with pytest.raises(
        TypeError, match=r"check_stack should get a web\.Application, got "
    ):
        check_stack(app)


# The command
# ===========

SITE = """
import asyncio

from aiohttp import web
from aiohttp_middlewares import cors_middleware, error_middleware

right = web.Application(middlewares=[error_middleware()])
wrong = web.Application(
    middlewares=[error_middleware(), cors_middleware(allow_all=True)]
)
number = 1


class Settings:
    app = right


def factory():
    print("a word of its own")
    return wrong


async def slow_factory():
    return wrong


async def runner_factory():
    return web.AppRunner(wrong)


async def cancelled_factory():
    raise asyncio.CancelledError


def __getattr__(name):
    if name == "failing":
        raise ValueError("no database")
    raise AttributeError(name)


def failing_factory():
    raise ValueError("no database\\nat all")


def leaving_factory():
    raise SystemExit(3)


def greedy_factory(settings):
    return right


def strange_factory():
    return None
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "site_of_test.py").write_text(SITE, encoding="utf-8")
    (folder / "broken.py").write_text("1 / 0", encoding="utf-8")
    return folder


def check(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "aiohttp_middlewares",
            *arguments,
        ],
        capture_output=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )


def test_command_is_content(folder: Path) -> None:
    done = check(folder, "check", "site_of_test:Settings.app")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Nothing is wrong with this list.\n"


@pytest.mark.parametrize("name", ["wrong", "slow_factory", "runner_factory"])
def test_command_finds_what_check_stack_finds(folder: Path, name: str) -> None:
    done = check(folder, "check", f"site_of_test:{name}")
    assert done.returncode == 1
    assert done.stdout == (
        "the application: error_middleware stands outside of cors_middleware: "
        "what is refused in between has no CORS headers, and browsers report "
        "a CORS error. [error-outside-cors]\n"
        "    List cors_middleware before error_middleware.\n"
    )


def test_command_writes_json_and_nothing_else(folder: Path) -> None:
    done = check(folder, "check", "--format", "json", "site_of_test:factory")
    assert done.returncode == 1
    [finding] = json.loads(done.stdout)
    assert list(finding) == ["code", "message", "remedy", "where"]
    assert finding["code"] == "error-outside-cors"
    done = check(folder, "check", "--format=json", "site_of_test:right")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("nowhere:app", "nowhere cannot be imported: ModuleNotFoundError: "),
        ("broken:app", "broken cannot be imported: ZeroDivisionError: "),
        (
            "site_of_test.py:right",
            "site_of_test.py cannot be imported: ModuleNotFoundError: No "
            "module named 'site_of_test.py'; 'site_of_test' is not a package; "
            "did you mean 'site_of_test:right'?",
        ),
        (
            "shop/site.py:app",
            "shop/site.py cannot be imported: ModuleNotFoundError: No module "
            "named 'shop/site'; did you mean 'shop.site:app'?",
        ),
        ("site_of_test:none", "site_of_test has no none"),
        ("site_of_test:Settings.none", "site_of_test has no Settings.none"),
        ("site_of_test", "'site_of_test' should be the name of a module and "),
        (":app", "':app' should be the name of a module and "),
        ("site_of_test:", "'site_of_test:' should be the name of a module "),
        (
            "site_of_test:number",
            "site_of_test:number should be a web.Application or make one, it "
            "is of type int",
        ),
        (
            "site_of_test:strange_factory",
            "site_of_test:strange_factory should be a web.Application or make "
            "one, it is of type NoneType",
        ),
        (
            "site_of_test:failing_factory",
            "site_of_test:failing_factory has raised ValueError: no database "
            "at all",
        ),
        (
            "site_of_test:failing",
            "site_of_test:failing has raised ValueError: no database",
        ),
        (
            "site_of_test:cancelled_factory",
            "site_of_test:cancelled_factory has raised CancelledError",
        ),
        (
            "site_of_test:leaving_factory",
            "site_of_test:leaving_factory has raised SystemExit: 3",
        ),
        (
            "site_of_test:greedy_factory",
            "site_of_test:greedy_factory has raised TypeError: ",
        ),
    ],
)
def test_command_says_in_one_line_why_it_cannot_look(
    folder: Path,
    asked: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    assert main(["check", asked]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith(said)


def test_command_shows_no_traceback(folder: Path) -> None:
    done = check(folder, "check", "site_of_test:failing_factory")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["look"], ["check"]])
def test_command_says_how_it_is_called(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: python -m aiohttp_middlewares" in capsys.readouterr().err


# What the pages say
# ==================


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_page_has_the_table_of_the_rules() -> None:
    path = ROOT / "docs/record_rules.py"
    spec = importlib.util.spec_from_file_location("record_rules", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # If not: python docs/record_rules.py
    assert read("docs/how-to/check-rules.txt") == script.text()
    refuses = re.search(r"refuses\* stands for (.*?)\.\n", PAGE, re.DOTALL)
    assert refuses is not None
    assert set(re.findall(r"``(\w+)``", refuses[1])) == {
        name.removesuffix("_middleware") for name in REFUSES
    }


PAGE = read("docs/how-to/check.rst")


def as_one(text: str) -> str:
    return " ".join(text.split())


def test_page_shows_what_the_command_says(tmp_path: Path) -> None:
    begin = "``shop.py``:\n\n.. code-block:: python\n"
    code, _, rest = PAGE.partition(begin)[2].partition("\nthe ")
    (tmp_path / "shop.py").write_text(textwrap.dedent(code), encoding="utf-8")
    said = re.search(r"\$ .* (check shop:wrong)\n(.*?)\n\n", rest, re.DOTALL)
    assert said is not None
    assert as_one(check(tmp_path, *said[1].split()).stdout) == as_one(said[2])


def test_docstring_shows_what_is_found() -> None:
    app = application(timeout_middleware(29.5), error_middleware())
    [finding] = check_stack(app)
    said = f"{finding.where}: {finding.message}. {finding.remedy}."
    assert as_one(said) in as_one(aiohttp_middlewares.check.__doc__ or "")


def rows() -> Iterator[tuple[set[str], set[str]]]:
    """The middlewares of each row of the order, and the names of its rules."""
    for row in read("docs/how-to/order.rst").split("\n   * - ")[1:]:
        first, _, rest = row.partition("\n")
        found = re.search(
            r"\(((?:``[a-z-]+``,?\s*)+)\)\s*(?:\n\n|\Z)", rest + "\n\n"
        )
        yield (
            {f"{name}_middleware" for name in re.findall(r"``(\w+)``", first)},
            set(re.findall(r"``([a-z-]+)``", found[1])) if found else set(),
        )


def test_order_page_names_the_rules_where_they_belong() -> None:
    named = set()
    for middlewares, found in rows():
        named |= found
        for rule in RULES:
            if rule.code in found and isinstance(rule, Order):
                assert middlewares & {*rule.inner, *rule.outer}, rule.code
    about_any = {"no-middleware", "of-clients"}
    assert named | about_any == {rule.code for rule in RULES if ours(rule)}


def test_order_page_lists_each_before_those_that_stand_inside() -> None:
    """Its rows follow the list, so that the rules hold for them as well."""
    order = [name for middlewares, _ in rows() for name in sorted(middlewares)]
    for rule in RULES:
        if isinstance(rule, Order) and not rule.inwards:
            for outer in set(rule.outer) & set(order):
                for inner in set(rule.inner) & set(order):
                    assert order.index(outer) < order.index(inner), rule.code
