"""What our code touches though it is private to others: all of it, in a table.

It may be gone with their next version. So each is touched in one module, and
where it is missing something is done without, as the table says: no request
fails of it. The table is a part of the documentation, too.
"""

import ast
import asyncio
import importlib
import inspect
import io
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import aiohttp_session
import limits.aio
import pytest
import whole
from aiohttp import FormData, web
from client_site import Naps, serve
from hidden import hide
from live import eventually, live, soon
from opentelemetry import context as telemetry_context
from pytest_aiohttp.plugin import AiohttpClient

import aiohttp_middlewares
from aiohttp_middlewares import (
    error_middleware,
    https_middleware,
    idempotency_middleware,
    session_middleware,
    shield_middleware,
)
from aiohttp_middlewares._core.requests import authority_text, cloned
from aiohttp_middlewares._core.telemetry import Telemetry
from aiohttp_middlewares.client import (
    SSRFConnector,
    SSRFError,
    SSRFPolicy,
    deadline_middleware,
    retry_middleware,
)
from aiohttp_middlewares.client._connectors import Lender, own_session
from aiohttp_middlewares.client._timeouts import total_has_struck
from aiohttp_middlewares.rate_limit._redis import RedisCounter

PACKAGE = Path(aiohttp_middlewares.__file__).parent
PAGE = PACKAGE.parent / "docs" / "private-attributes.inc"
MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(
        aiohttp_middlewares.__path__, "aiohttp_middlewares."
    )
    if not found.name.endswith("__main__")
]
#: What a named tuple has is public, says Python's documentation.
PUBLIC = {"_asdict", "_fields", "_make", "_replace"}
#: Those whose private parts these are.
HERE = ("aiohttp_middlewares", *sys.stdlib_module_names)


class Private(NamedTuple):
    owner: str
    names: str
    modules: str
    why: str
    without: str


TABLE = [
    Private(
        "aiohttp.BaseRequest",
        "_state",
        "_core.keys",
        "A clone shares what is stored in the request; a look-up without an "
        "exception for each miss.",
        "A clone has a copy: what is stored further in is not seen outside.",
    ),
    Private(
        "aiohttp.BaseRequest",
        "_message",
        "_core.requests",
        "Whether the target names a host, which ``raw_path`` does not show "
        "from aiohttp 3.15 on.",
        "``raw_path`` tells.",
    ),
    Private(
        "aiohttp.BaseRequest",
        "_cache",
        "_core.requests",
        "Whether somebody outside has set the host of a request without "
        "``Host``.",
        "A clone of such a request has the host that aiohttp makes up.",
    ),
    Private(
        "aiohttp.BaseRequest",
        "_post _read_bytes _task",
        "_core.requests",
        "What aiohttp does in the end with a request, it does with the "
        "original: files of a form are closed, a body is read again outside, "
        "the task is let go. And a body that was read tells whose fault it "
        "is when it is read once more.",
        "Files are closed, and clones freed, when they are collected; a body "
        "that was read behind a clone is empty outside.",
    ),
    Private(
        "aiohttp.BodyPartReader",
        "_content",
        "_core.misread",
        "A part of a form that cannot be read is of this very request.",
        "It is told by its headers only, or is an error of the handler: 500.",
    ),
    Private(
        "aiohttp.StreamWriter",
        "_compress",
        "_core.sending",
        "A response that was given up has told the writer how to compress.",
        "The answer in its place may be compressed as that one would have "
        "been, and not say so.",
    ),
    Private(
        "aiohttp.StreamWriter",
        "_headers_buf",
        "_core.sending",
        "Headers that wait for the body are no part of its size.",
        "They are counted with a body that aiohttp itself compresses.",
    ),
    Private(
        "aiohttp.StreamReader",
        "_buffer _cursor _size",
        "idempotency._body",
        "A body that was read is put back in pieces.",
        "``unread_data()`` does it, which is deprecated, in one piece.",
    ),
    Private(
        "aiohttp.Payload",
        "_value",
        "_core.payloads",
        "The text of a response is kept; a file is sent again.",
        "Such a response is not kept, and such a request is not repeated.",
    ),
    Private(
        "aiohttp.web.Response",
        "_compression_force",
        "idempotency._answer",
        "An answer that is given again is compressed as the first.",
        "As the client accepts it.",
    ),
    Private(
        "aiohttp.web.RequestHandler",
        "_task_handler",
        "shield._tasks",
        "Whether the client left or the server stops; and at its end the "
        "server waits for handlers whose clients have left.",
        "Both look the same: the handler goes on, and the end of the server "
        "does not wait for it, unless ``drain_shielded()`` does.",
    ),
    Private(
        "aiohttp.ClientRequest",
        "_timer",
        "client._timeouts",
        "Whether aiohttp's total timeout has struck; which requests belong "
        "to one call.",
        "It is not told from a caller who gave up; spans count what a "
        "middleware sends again, and no redirects.",
    ),
    Private(
        "aiohttp.ClientRequest",
        "_traces",
        "client._passage",
        "How far a request came.",
        "It is taken for sent: what must not be done twice is not repeated.",
    ),
    Private(
        "aiohttp.ClientRequest",
        "_update_cookies _update_expect_continue",
        "client._bodies",
        "A request is sent again; public in aiohttp 3.",
        "None: these are their names from aiohttp 4 on.",
    ),
    Private(
        "aiohttp.IOBasePayload",
        "_set_or_restore_start_position",
        "client._bodies",
        "Whether aiohttp rewinds a file that it sends again.",
        "A request with a file is not repeated.",
    ),
    Private(
        "aiohttp.ClientSession",
        "_default_proxy _default_proxy_auth",
        "client._connectors",
        "Requests for others, such as for a token, go by the same proxy.",
        "They go by none, or by that of the environment.",
    ),
    Private(
        "aiohttp.BaseConnector",
        "_create_connection",
        "client._connectors client.ssrf",
        "Such requests are dialled by the rules of another connector; the "
        "URL of what is refused. Two modules, as each has a subclass.",
        "The connector itself is used; what is refused has the error of a "
        "failed connection.",
    ),
    Private(
        "aiohttp_session.Session",
        "_changed",
        "session",
        "Only what was changed is saved.",
        "Each session that was read is saved.",
    ),
    Private(
        "limits.aio.storage.RedisStorage",
        "_current_window_key _previous_window_key",
        "rate_limit._redis",
        "Sliding windows in one command.",
        "In more than one.",
    ),
    Private(
        "opentelemetry.context",
        "_SUPPRESS_HTTP_INSTRUMENTATION_KEY _SUPPRESS_INSTRUMENTATION_KEY",
        "_core.telemetry",
        "Requests of exporters are not traced.",
        "They are.",
    ),
]


def touched() -> dict[str, set[str]]:
    """The names, and the modules that use them."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        name = module.__name__.removeprefix("aiohttp_middlewares.")
        tree = ast.parse(Path(str(module.__file__)).read_bytes())
        for attribute in (*in_text(tree), *overridden(module, tree)):
            found.setdefault(attribute, set()).add(name)
    return found


def is_private(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.isidentifier()
        and name.startswith("_")
        and not name.startswith("__")
        and name.strip("_") != ""
        and name not in PUBLIC
    )


def in_text(tree: ast.Module) -> Iterator[str]:
    """Of anything but the objects that the module itself makes."""
    own = set(names_of(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            mine = ast.unparse(node.value) in ("self", "cls", "super()")
            if is_private(node.attr) and not (mine or node.attr in own):
                yield node.attr
        elif isinstance(node, ast.Call):
            for argument in node.args[1:]:
                assert not ast.unparse(argument).startswith(
                    ("f'_", "f'{")
                ) or not ast.unparse(node.func).endswith("attr"), (
                    f"nobody finds this name: {ast.unparse(node)}"
                )
                if isinstance(argument, ast.Constant) and is_private(
                    argument.value
                ):
                    yield str(argument.value)
        elif isinstance(node, ast.ImportFrom):
            yield from (
                alias.name
                for alias in node.names
                if is_private(alias.name)
                and not (node.module or "").startswith("aiohttp_middlewares")
            )


def names_of(tree: ast.Module) -> Iterator[str]:
    """What the module defines: names of its classes, and of their objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute):
            if isinstance(node.ctx, ast.Store) and (
                ast.unparse(node.value) == "self"
            ):
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def overridden(module: Any, tree: ast.Module) -> Iterator[str]:
    """What classes take from those of others, or put in its place."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        made = getattr(module, node.name, None)
        if not isinstance(made, type):
            continue  # made by a function
        others = {
            name
            for base in made.__mro__
            if base.__module__.split(".")[0] not in HERE
            for name in (*vars(base), *inspect.get_annotations(base))
        }
        for inner in ast.walk(node):
            name = getattr(inner, "name", None) or getattr(inner, "attr", None)
            if is_private(name) and name in others:
                yield str(name)


def test_table_names_all_that_is_touched_and_where() -> None:
    listed = {
        name: set(each.modules.split())
        for each in TABLE
        for name in each.names.split()
    }
    assert touched() == listed


@pytest.mark.parametrize("each", TABLE, ids=lambda each: each.names)
def test_each_is_touched_in_one_module(each: Private) -> None:
    # A class of others can be extended only where the class is.
    extended = each.names == "_create_connection"
    assert len(each.modules.split()) == (2 if extended else 1)


def page() -> str:
    rows = [
        f"   * - ``{each.owner}``: "
        f"{', '.join(f'``{name}``' for name in each.names.split())}\n"
        f"     - {', '.join(f'``{name}``' for name in each.modules.split())}\n"
        f"     - {each.why}\n"
        f"     - {each.without}\n"
        for each in TABLE
    ]
    head = """\
.. list-table::
   :header-rows: 1
   :widths: 25 15 30 30

   * - Attribute
     - Module
     - What for
     - Without it
"""
    return head + "".join(rows)


def test_page_has_the_table() -> None:
    # To write it anew: PYTHONPATH=.:tests python tests/<this file>
    assert PAGE.read_text() == page()


# Without them
# ============


#: Those that requests and responses have; the writer's class is not public.
SERVER: dict[type[Any], str] = {
    web.BaseRequest: "_state _message _cache _post _read_bytes _task",
    aiohttp.BodyPartReader: "_content",
    aiohttp.StreamReader: "_buffer _cursor _size",
    aiohttp.Payload: "_value",
    web.Response: "_compression_force",
    web.RequestHandler: "_task_handler",
    aiohttp.http.StreamWriter: "_compress _headers_buf",
}
EACH = [(owner, name) for owner in SERVER for name in SERVER[owner].split()]


def test_each_attribute_of_the_server_is_tried() -> None:
    listed = {
        name
        for each in TABLE
        for name in each.names.split()
        if each.modules.startswith(("_core", "idempotency", "shield"))
        and each.owner.startswith("aiohttp.")
    }
    assert {name for _, name in EACH} == listed


@pytest.mark.parametrize(("owner", "name"), EACH)
async def test_whole_stack_answers_without_it(
    monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str
) -> None:
    async with whole.served(*whole.middlewares().values()) as server:
        hide(monkeypatch, owner, name)
        assert await whole.statuses(server) == whole.EXPECTED
        # A body is read, by more than one.
        for number in range(2):
            answer = await whole.ask(
                server, "POST /returned", b"1", Idempotency_Key="some"
            )
            assert answer.status == 200
            replayed = answer.headers.get("Idempotent-Replayed")
            assert replayed == ("true" if number else None)


async def ask_behind_a_clone(
    aiohttp_client: AiohttpClient, outer: Any, inner: Any, **options: Any
) -> aiohttp.ClientResponse:
    """One middleware outside of what clones the request, and a handler."""
    app = web.Application(middlewares=[outer, https_middleware()])
    app.router.add_post("/", inner)
    client = await aiohttp_client(app)
    return await client.post(
        "/", headers={"X-Forwarded-Proto": "https"}, **options
    )


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_state_a_clone_has_a_copy(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, web.BaseRequest, "_state")
    outside, inside = whole.key("outside"), whole.key("inside")

    @web.middleware
    async def outer(request: web.Request, handler: Any) -> web.Response:
        request[outside] = "1"
        answer: web.Response = await handler(request)
        answer.headers["X-Inside"] = request.get(inside, "-")
        return answer

    async def inner(request: web.Request) -> web.Response:
        request[inside] = "2"
        return web.Response(text=f"{request.scheme} {request[outside]}")

    answer = await ask_behind_a_clone(aiohttp_client, outer, inner)
    assert await answer.text() == "https 1"
    assert answer.headers["X-Inside"] == ("-" if hidden else "2")


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_read_bytes_a_body_read_behind_a_clone_is_empty_outside(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, web.BaseRequest, "_read_bytes")
    seen: list[bytes] = []

    @web.middleware
    async def outer(request: web.Request, handler: Any) -> web.Response:
        answer: web.Response = await handler(request)
        seen.append(await request.read())
        return answer

    async def inner(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    answer = await ask_behind_a_clone(
        aiohttp_client, outer, inner, data=b"body"
    )
    assert await answer.read() == b"body"
    assert seen == [b"" if hidden else b"body"]


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_post_files_of_a_form_are_closed_by_who_read_them(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, web.BaseRequest, "_post", "_task")
    files: list[Any] = []

    @web.middleware
    async def outer(request: web.Request, handler: Any) -> web.Response:
        answer: web.Response = await handler(request)
        return answer

    async def inner(request: web.Request) -> web.Response:
        files.append((await request.post())["file"])
        return web.Response(body=files[0].file.read())

    form = FormData()
    form.add_field("file", io.BytesIO(b"content"), filename="name")
    answer = await ask_behind_a_clone(aiohttp_client, outer, inner, data=form)
    assert await answer.read() == b"content"
    if hidden:
        assert not files[0].file.closed
        files[0].file.close()
    else:
        await eventually(lambda: files[0].file.closed)


async def test_without_message_the_raw_path_tells_the_host(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, web.BaseRequest, "_message")

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=authority_text(request))

    app = web.Application()
    app.router.add_get("/", handler)
    async with live(app) as server:
        client = await server.connect()
        client.write("GET / HTTP/1.1\r\nHost: a.example:81\r\n\r\n")
        assert (await client.answer()).rest == b"a.example:81"
        client.leave()


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_cache_a_host_that_was_set_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    if hidden:
        hide(monkeypatch, web.BaseRequest, "_cache")
    hosts: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        outside = request.clone(host="set.example")
        hosts.append(cloned(outside, scheme="https").host)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    async with live(app) as server:
        client = await server.connect()
        client.write("GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200
        client.leave()
    assert (hosts == ["set.example"]) == (not hidden)


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_content_a_part_that_cannot_be_read_is_an_error(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, aiohttp.BodyPartReader, "_content")

    async def handler(request: web.Request) -> web.Response:
        part = await (await request.multipart()).next()
        assert isinstance(part, aiohttp.BodyPartReader)
        return web.Response(text=await part.text())

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    with aiohttp.MultipartWriter() as writer:
        writer.append(b"\xff", {"Content-Type": "text/plain; charset=utf-8"})
    answer = await client.post("/", data=writer)
    assert answer.status == (500 if hidden else 400)


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_value_an_answer_is_not_kept(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, aiohttp.Payload, "_value")

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=memoryview(b"kept"))

    app = web.Application(middlewares=[idempotency_middleware()])
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    codes = []
    for _ in range(2):
        answer = await client.post("/", headers={"Idempotency-Key": "1"})
        codes.append(answer.status)
    # Once is handled, whatever is known of the answer.
    assert codes == [200, 409 if hidden else 200]


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_compression_force_an_answer_is_compressed_as_accepted(
    aiohttp_client: AiohttpClient,
    monkeypatch: pytest.MonkeyPatch,
    hidden: bool,
) -> None:
    if hidden:
        hide(monkeypatch, web.Response, "_compression_force")

    async def handler(request: web.Request) -> web.Response:
        answer = web.Response(text="compressed" * 100)
        answer.enable_compression(web.ContentCoding.deflate)
        return answer

    app = web.Application(middlewares=[idempotency_middleware()])
    app.router.add_post("/", handler)
    client = await aiohttp_client(app)
    codings = []
    for _ in range(2):
        answer = await client.post(
            "/", headers={"Idempotency-Key": "1", "Accept-Encoding": "gzip"}
        )
        codings.append(answer.headers["Content-Encoding"])
        assert await answer.text() == "compressed" * 100
    assert codings == ["deflate", "gzip" if hidden else "deflate"]


async def test_without_task_handler_a_shielded_handler_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide(monkeypatch, web.RequestHandler, "_task_handler")
    begun, going, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    requests: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        requests.append(request)
        begun.set()
        await going.wait()
        done.set()
        return web.Response()

    app = web.Application(middlewares=[shield_middleware(methods=["POST"])])
    app.router.add_post("/", handler)
    async with live(app) as server:
        client = await server.connect()
        client.send("POST /")
        await soon(begun.wait())
        client.leave()
        await eventually(lambda: requests[0].transport is None)
        going.set()
        await soon(done.wait())


async def test_without_changed_each_session_is_saved(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, aiohttp_session.Session, "_changed")

    async def handler(request: web.Request) -> web.StreamResponse:
        session = await aiohttp_session.get_session(request)
        if request.method == "POST":
            session["user"] = "me"
        if request.path == "/streamed":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"me")
            return response
        return web.Response(text=session.get("user", "nobody"))

    key = "0123456789abcdef0123456789abcdef"
    app = web.Application(middlewares=[session_middleware(key)])
    app.router.add_route("*", "/{path:.*}", handler)
    client = await aiohttp_client(app)
    answer = await client.get("/")
    assert await answer.text() == "nobody"
    assert "Set-Cookie" not in answer.headers
    assert "Set-Cookie" in (await client.post("/")).headers
    for path in ("/", "/streamed"):
        answer = await client.get(path)
        assert await answer.text() == "me"
        assert "Set-Cookie" in answer.headers


@pytest.mark.parametrize(
    "name", ["_current_window_key", "_previous_window_key"]
)
def test_without_its_keys_windows_take_more_commands(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    storage = limits.aio.storage.RedisStorage(
        "redis://127.0.0.1:1", implementation="redispy"
    )
    for hidden in (False, True):
        if hidden:
            hide(monkeypatch, type(storage), name)
        for strategy in ("sliding-window", "fixed-window"):
            found = RedisCounter.of(storage, strategy)
            is_without = hidden and strategy == "sliding-window"
            assert (found is None) == is_without


def test_without_its_keys_nothing_is_suppressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "_SUPPRESS_INSTRUMENTATION_KEY",
        "_SUPPRESS_HTTP_INSTRUMENTATION_KEY",
    ):
        key = getattr(telemetry_context, name)
        token = telemetry_context.attach(telemetry_context.set_value(key, True))
        try:
            assert Telemetry("test", __name__, None, None).is_suppressed()
            monkeypatch.delattr(telemetry_context, name)
            assert not Telemetry("test", __name__, None, None).is_suppressed()
        finally:
            telemetry_context.detach(token)


# The client's
# ============


async def test_without_them_requests_of_the_client_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hide(monkeypatch, aiohttp.ClientRequest, "_timer", "_traces")
    if hasattr(aiohttp.ClientRequest, "update_cookies"):
        # Public, in aiohttp 3.
        hide(
            monkeypatch,
            aiohttp.ClientRequest,
            *("_update_cookies", "_update_expect_continue"),
        )
    hide(monkeypatch, aiohttp.IOBasePayload, "_set_or_restore_start_position")
    known: list[bool] = []

    async def ask_the_timer(req: aiohttp.ClientRequest, handler: Any) -> Any:
        known.append(total_has_struck(req))
        return await handler(req)

    async with serve() as site:
        again = (503, {"Set-Cookie": "a=1"}, b"")
        site.answers = [again, 200, 503, 200]
        async with aiohttp.ClientSession(
            middlewares=[
                retry_middleware(sleep=Naps()),
                deadline_middleware(),
                ask_the_timer,
            ],
            cookie_jar=aiohttp.CookieJar(unsafe=True),
        ) as session:
            async with session.put(site.url, expect100=True) as answer:
                assert answer.status == 200
            # aiohttp does not say that it would rewind the file.
            async with session.put(site.url, data=io.BytesIO(b"f")) as answer:
                assert answer.status == 503
        assert site.count == 3
    assert known == [False] * 3


@pytest.mark.parametrize("hidden", [False, True])
async def test_without_default_proxy_requests_for_others_go_by_none(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    if hidden:
        hide(
            monkeypatch,
            aiohttp.ClientSession,
            *("_default_proxy", "_default_proxy_auth"),
        )
    async with (
        serve() as site,
        serve() as proxy,
        aiohttp.ClientSession(proxy=proxy.url) as session,
    ):
        assert session.connector is not None
        lender = Lender(session, session.connector)
        async with own_session(lender) as own, own.get(site.url) as answer:
            assert answer.status == 200
        assert (site.count, proxy.count) == ((1, 0) if hidden else (0, 1))


async def test_without_create_connection_ssrf_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if aiohttp called it by another name."""
    monkeypatch.delattr(SSRFConnector, "_create_connection")

    class Inside(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, *args: Any, **kwargs: Any) -> Any:
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1",
                    "port": 0,
                    "family": 2,
                    "proto": 0,
                    "flags": 0,
                }
            ]

        async def close(self) -> None:
            pass

    async with serve() as site:
        connector = SSRFConnector(SSRFPolicy(), resolver=Inside())
        async with aiohttp.ClientSession(connector=connector) as session:
            port = site.server.port
            for host in ("127.0.0.1", "name.example"):
                with pytest.raises((SSRFError, aiohttp.ClientConnectorError)):
                    await session.get(f"http://{host}:{port}/")
            lender = Lender(session, connector)
            async with own_session(lender) as own:
                # No way around it, either.
                assert own.connector is connector
        assert site.count == 0


if __name__ == "__main__":
    PAGE.write_text(page())
