"""The demo: it shows what it says, on its page, by curl and by its check."""

import asyncio
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

import aiohttp_middlewares
from aiohttp_middlewares import timeout_middleware
from examples.demo import __main__ as command
from examples.demo import api, attempt, scenarios, server
from examples.demo import provider as provider_module
from examples.demo.api import create_api
from examples.demo.attempt import fits
from examples.demo.page import create_page
from examples.demo.provider import USERS, provider
from examples.demo.scenarios import Scenario
from examples.demo.server import running
from examples.demo.source import excerpts

FOLDER = Path(command.__file__).parent
ROOT = FOLDER.parents[1]
PAGE = "http://127.0.0.1:8080"
API = "http://127.0.0.1:8081"
ISSUER = "http://localhost:8082"
TABLE = scenarios.scenarios(PAGE)
#: For how many seconds a process may take, which takes three.
PATIENCE = 60

each_scenario = pytest.mark.parametrize(
    "scenario", TABLE, ids=[scenario.title for scenario in TABLE]
)


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# The check
# =========

#: A middleware that does nothing, and scenarios that have to notice.
NOTICED_BY = {
    "BearerTokenMiddleware": ["A token that is revoked halfway"],
    "access_log_middleware": ["A line for each request"],
    "api_key_middleware": [
        "A key that is not known",
        "The key of a nightly job",
    ],
    "basic_auth_middleware": ["Without a login", "With login and password"],
    "bearer_auth_middleware": [
        "Without a token",
        "A token that may read",
        "The same token, to write",
    ],
    "body_limit_middleware": ["A note that is too long"],
    "compression_middleware": ["A long answer", "A stream"],
    "client_tracing_middleware": ["One trace over two services"],
    "concurrency_limit_middleware": ["Four at once, in a kitchen for one"],
    "cors_middleware": [
        "A page that is allowed",
        "A page that is not",  # by its Vary
        "A request that needs a preflight",
        "A stream from another origin",
        "A failure from another origin",
    ],
    "csrf_middleware": ["A form of another site"],
    "early_data_middleware": ["A write in early data"],
    "error_middleware": [
        "An exception as JSON",
        "The same as problem details",
        "A bug as a debug page",
        "A raised answer keeps its headers",
    ],
    "etag_middleware": ["The same as before"],
    "https_middleware": ["Behind a proxy that took off the TLS"],
    "https_redirect_middleware": ["By plain HTTP"],
    "idempotency_middleware": ["A button pressed twice"],
    "metrics_middleware": ["What Prometheus reads"],
    "proxy_headers_middleware": [
        "The visitor behind a proxy",
        "By HTTPS, says the proxy",
    ],
    "rate_limit_middleware": ["One request too many"],
    "report_middleware": ["A bug that somebody hears of"],
    "response_headers_middleware": [
        "A stream that no search engine should list"
    ],
    "request_id_middleware": [
        "An id for each request",
        "The id of the proxy in front",
    ],
    "retry_middleware": ["An API that fails twice"],
    "security_headers_middleware": ["A page with a nonce"],
    "server_timing_middleware": ["What took so long"],
    "session_middleware": ["A login that ends in a redirect", "A counter"],
    "shield_middleware": [
        "You leave, the write is finished",
        "The limit strikes, the write is finished",
    ],
    "sign_in_middleware": ["A page for members"],
    "timeout_middleware": [
        "A handler that takes too long",
        "The limit strikes, the write is finished",
    ],
    "tracing_middleware": ["One trace over two services"],
    "trusted_host_middleware": ["A host that is not ours"],
}
#: One of them in a process of its own.
WITHOUT = """
import sys
from aiohttp import web
from examples.demo import __main__, api

def nothing(*args, **options):
    @web.middleware
    async def nothing(request, handler):
        return await handler(request)
    return nothing

setattr(api, sys.argv[1], nothing)
sys.exit(__main__.main(["--check"]))
"""


class Nothing:
    """In the place of any of them."""

    __middleware_version__ = 1  # what web.middleware sets

    def __init__(self, *args: object, **options: object) -> None:
        pass

    async def __call__(self, request: Any, handler: Any) -> Any:
        return await handler(request)

    def invalidate(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Checked(NamedTuple):
    code: int
    output: str

    @property
    def failed(self) -> list[str]:
        """The scenarios with a line that says NO."""
        titles, title = [], ""
        for line in self.output.splitlines()[1:]:
            if not line.startswith(" "):
                title = line
            elif line.endswith("  NO") and title not in titles:
                titles.append(title)
        return titles


class Checks:
    """Runs of the check, begun at once as they mostly wait."""

    def __init__(self) -> None:
        self.processes = {"": start("-m", "examples.demo", "--check")}
        for name in ("error_middleware",):
            self.processes[name] = start("-c", WITHOUT, name)

    def __getitem__(self, name: str) -> Checked:
        process = self.processes[name]
        output, _ = process.communicate(timeout=PATIENCE)
        return Checked(process.returncode, output)

    def end(self) -> None:
        for process in self.processes.values():
            with process:
                process.kill()


@pytest.fixture(scope="module", autouse=True)
def checks() -> Iterator[Checks]:
    checks = Checks()
    yield checks
    checks.end()


# The page
# ========


async def test_page_gets_all_that_it_asks_its_own_server_for(
    aiohttp_client: Any,
) -> None:
    client = await aiohttp_client(create_page(PAGE, API))
    page = await client.get("/", headers={"Host": "127.0.0.1:8080"})
    policy = page.headers["Content-Security-Policy"]
    found = re.search(r"script-src 'nonce-([^']+)'(;|$)", policy)
    assert found is not None
    html = read("page.html").replace("{nonce}", found[1])
    assert await page.text() == html
    asked = re.findall(r' (?:src|href)="([^"#]+)"', html)
    asked += re.findall(r'fetch\("([^"]+)"\)', read("page.js"))
    asked.remove("data:,")  # no icon
    assert sorted(asked) == ["page.css", "page.js", "scenarios.json"]
    for path in asked:
        assert (await client.get(f"/{path}")).status == 200


async def test_page_gets_every_scenario(aiohttp_client: Any) -> None:
    client = await aiohttp_client(create_page(PAGE, API))
    demo = await (await client.get("/scenarios.json")).json()
    assert demo["api"] == API
    assert len(demo["scenarios"]) == len(TABLE)
    names = set(re.findall(r"\bscenario\.(\w+)", read("page.js")))
    assert names <= demo["scenarios"][0].keys()
    names = set(re.findall(r"\bdemo\.(\w+)", read("page.js")))
    assert names == demo.keys()


def test_script_finds_its_elements_on_the_page() -> None:
    page, script = read("page.html"), read("page.js")
    ids = re.findall(r'(?:getElementById|fromTemplate)\("([\w-]+)"\)', script)
    assert ids
    assert [name for name in ids if f'id="{name}"' not in page] == []
    classes = re.findall(r'(?:part|querySelector)\("\.([\w-]+)"\)', script)
    assert classes
    assert [name for name in classes if f'class="{name}"' not in page] == []


def test_page_has_nothing_within_that_its_policy_forbids() -> None:
    page = read("page.html")
    assert (
        re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page)
        == []
    )
    assert page.count("{nonce}") == page.count("<script") == 1


async def test_page_has_another_nonce_each_time(aiohttp_client: Any) -> None:
    client = await aiohttp_client(create_page(PAGE, API))
    first, second = [
        await client.get("/", headers={"Host": "127.0.0.1:8080"})
        for _ in range(2)
    ]
    assert await first.text() != await second.text()
    for response in (first, second):
        # No copy may be taken for the next one.
        assert response.headers["Cache-Control"] == "no-cache"
        assert "ETag" not in response.headers
        assert "Last-Modified" not in response.headers


def test_page_works_without_a_network() -> None:
    for name in ("page.html", "page.css", "page.js"):
        assert (
            re.findall(r"(?:https?:|url\(|@import|\bimport\b)", read(name))
            == []
        )


async def test_fault_of_a_list_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(0, 0):
        assert caplog.messages == []
    timeout = timeout_middleware(1)
    monkeypatch.setattr(
        server,
        "create_page",
        lambda *origins: web.Application(middlewares=[timeout]),
    )
    async with running(0, 0):
        [message] = caplog.messages
    assert message.startswith("the application: timeout_middleware stands")


async def test_page_has_its_server_ask_what_no_page_can() -> None:
    async with running(0, 0) as origins, ClientSession(origins.page) as client:
        demo = await (await client.get("/scenarios.json")).json()
        assert any(scenario["relay"] for scenario in demo["scenarios"])
        for scenario in demo["scenarios"]:
            path = f"/attempts/{scenario['number']}"
            response = await client.post(path)
            if not scenario["relay"]:
                assert response.status == 404
                continue
            got = await response.json()
            for name, expected in scenario["expect"].items():
                assert fits(expected, got.get(name, scenarios.NONE))


async def test_page_asked_for_by_another_name_redirects_to_its_own(
    aiohttp_client: Any,
) -> None:
    client = await aiohttp_client(create_page(PAGE, API))
    response = await client.get(
        "/", headers={"Host": "localhost:8080"}, allow_redirects=False
    )
    assert response.status == 302
    assert response.headers["Location"] == PAGE


async def test_page_on_the_default_port_does_not_redirect(
    aiohttp_client: Any,
) -> None:
    client = await aiohttp_client(create_page("http://127.0.0.1", API))
    response = await client.get("/", headers={"Host": "127.0.0.1"})
    assert response.status == 200
    assert not response.history


# The table
# =========


@each_scenario
def test_code_of_each_scenario_is_cut_from_the_source(
    scenario: Scenario,
) -> None:
    shown = excerpts(scenario)
    assert shown
    for excerpt in shown:
        lines = read(excerpt.file).splitlines()
        assert "\n".join(
            piece.text for piece in excerpt.pieces
        ) == textwrap.dedent("\n".join(lines[excerpt.first - 1 : excerpt.last]))
    pieces = [piece for excerpt in shown for piece in excerpt.pieces]
    assert not any(piece.named and piece.folded for piece in pieces)
    named = re.sub(r"\s", "", "".join(p.text for p in pieces if p.named))
    place = 0
    for part in scenario.code.split("…"):
        # The brackets that a call begins or ends with, over several lines.
        sought = re.sub(r"\s", "", part).strip(",()")
        assert sought in named[place:], scenario.code
        place = named.index(sought, place) + len(sought)


@each_scenario
async def test_code_of_each_scenario_has_its_middleware_and_its_handler(
    scenario: Scenario,
) -> None:
    text = "\n".join(
        piece.text for excerpt in excerpts(scenario) for piece in excerpt.pieces
    )
    factory = f"{scenario.middleware}_middleware"
    if factory in aiohttp_middlewares.__all__:
        assert f"\n{factory}(" in f"\n{text}"
    app = create_api(PAGE, API, ISSUER)
    request = make_mocked_request(scenario.method, scenario.path)
    handler = (await app.router.resolve(request)).handler
    if scenario.path.startswith("/metrics"):
        assert "metrics_handler(" in text
    else:
        assert inspect.getsource(inspect.unwrap(handler)).strip() in text


def test_code_is_shown_from_the_api_and_from_what_runs_it() -> None:
    files = {
        excerpt.file for scenario in TABLE for excerpt in excerpts(scenario)
    }
    assert files == {"api.py", "server.py"}


def test_long_code_is_folded_around_what_is_named() -> None:
    scenario = Scenario(
        "cors", "", "", "cors_middleware(… max_age=600, …)", "/", {}
    )
    (excerpt,) = excerpts(scenario)
    folded = [piece for piece in excerpt.pieces if piece.folded]
    shown = [piece for piece in excerpt.pieces if not piece.folded]
    assert [piece.text.strip() for piece in shown] == [
        "cors_middleware(",
        "max_age=600,",
        "),",
    ]
    assert [piece.named for piece in shown] == [True, True, False]
    (hidden,) = folded
    assert len(hidden.text.splitlines()) > 20


@pytest.mark.parametrize(
    "code",
    [
        "cors_middleware(origins=[nobody], …)",
        # In another order than there.
        "cors_middleware(… request_id_middleware()",
    ],
)
def test_code_that_is_not_there_is_refused(code: str) -> None:
    scenario = Scenario("cors", "", "", code, "/", {})
    with pytest.raises(ValueError, match=r"is not in .*api\.py.*server\.py"):
        excerpts(scenario)


@each_scenario
def test_docs_of_each_scenario_are_there(scenario: Scenario) -> None:
    link = scenario.documentation()
    assert link.startswith(scenarios.DOCS)
    page = link.removeprefix(scenarios.DOCS).removesuffix(".html")
    assert (ROOT / f"docs/{page}.rst").is_file()


def test_address_of_the_docs_stands_in_one_place() -> None:
    assert scenarios.DOCS.endswith("/")
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in FOLDER.iterdir()
        if path.is_file()
    )
    assert sources.count(scenarios.DOCS.split("/")[2]) == 1


def test_every_middleware_is_for_one_task() -> None:
    named = [name for names in scenarios.TASKS.values() for name in names]
    assert sorted(named) == sorted(scenarios.MIDDLEWARES)


def test_scenarios_are_of_the_middlewares_in_their_order() -> None:
    order = list(dict.fromkeys(scenario.middleware for scenario in TABLE))
    assert order == list(scenarios.MIDDLEWARES)


async def test_scenarios_use_every_route_and_no_other() -> None:
    app = create_api(PAGE, API, ISSUER)
    asked = [(scenario.method, scenario.path) for scenario in TABLE]
    for scenario in TABLE:
        if "redirect" in scenario.expect:
            asked.append(("GET", scenario.expect["redirect"].split()[1]))
        if "ledger" in scenario.expect:
            asked.append(("GET", scenario.path))
        # What the client part asks for in its turn.
        asked += re.findall(
            r'"(\w+) (/[\w/]+)[: ]', scenario.expect.get("body", "")
        )
    used = set()
    for method, path in asked:
        found = await app.router.resolve(make_mocked_request(method, path))
        assert found.http_exception is None, (method, path)
        used.add(found.route)
    unused = {
        route
        for route in app.router.routes()
        if route.method != "HEAD" and route not in used
    }
    assert unused == set()


@each_scenario
async def test_preflight_of_each_scenario_is_answered(
    scenario: Scenario, aiohttp_client: Any
) -> None:
    if scenario.relay:  # no page sends it
        return
    # What the page sends that needs none: Fetch, CORS-safelisted, and what
    # only the browser may set.
    free = ("Origin", "Accept", "Sec-Fetch-Site")
    named = [name for name in scenario.headers if name not in free]
    if scenario.method in ("GET", "POST") and not named:
        return
    client = await aiohttp_client(create_api(PAGE, API, ISSUER))
    response = await client.options(
        scenario.path,
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": scenario.method,
            "Access-Control-Request-Headers": ",".join(named),
        },
    )
    headers = response.headers
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert scenario.method in headers["Access-Control-Allow-Methods"]
    allowed = headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert [name for name in named if name.lower() not in allowed] == []


async def test_client_of_the_api_is_closed_with_it() -> None:
    app = create_api(PAGE, API, ISSUER)
    runner = web.AppRunner(app)
    await runner.setup()
    client = app[api.CLIENT]
    assert not client.closed
    await runner.cleanup()
    assert client.closed


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("200", "200", True),
        ("200", "2000", False),
        ('{*"a": 1*}', '{"b": 2,\n"a": 1}', True),
        ("[1].", "[1]x", False),
        ("*", "", True),
        ("*", scenarios.NONE, False),
        (scenarios.NONE, scenarios.NONE, True),
        (scenarios.NONE, "x", False),
    ],
)
def test_star_stands_for_anything(expected: str, got: str, same: bool) -> None:
    assert fits(expected, got) is same


# Curl
# ====


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
async def test_lines_for_curl_show_what_they_should() -> None:
    few = asyncio.Semaphore(6)  # they sleep for fixed times

    async def show(line: str) -> str:
        async with few:
            return await paste(line)

    async with running(0, 0) as origins:
        table = scenarios.scenarios(origins.page)
        shown = await asyncio.gather(
            *(show(scenario.curl(origins.api)) for scenario in table)
        )
    for scenario, output in zip(table, shown, strict=True):
        for name, expected in scenario.expect.items():
            if name == "ledger":
                written = json.loads(output.splitlines()[-1])
                assert fits(expected, ", ".join(written["stages"]))
            elif name == "statuses":
                statuses = re.findall(r"^HTTP/1.1 (\d+)", output, re.M)
                assert fits(expected, ", ".join(sorted(statuses)))
            elif name == "status" and not scenario.at_once:
                last = re.findall(r"^HTTP/1.1 (\d+)", output, re.M)[-1]
                assert last == expected
            elif name == "body":
                assert fits(f"*{expected}*", output), output
            elif name[0].isupper() and expected != scenarios.NONE:
                assert fits(f"*\n{name}: {expected}\n*", output), output


async def paste(line: str) -> str:
    shell = await asyncio.create_subprocess_shell(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the progress
        env={**os.environ, "NO_PROXY": "*"},
    )
    output, _ = await shell.communicate()
    return output.decode().replace("\r\n", "\n")


# The command
# ===========


def test_taken_port_is_said_in_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = command.main(["--port", "0", "--api-port", str(port)])
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"Port {port} of 127.0.0.1 cannot be used: Address already in use. "
        'Choose others, with make demo ARGS="--port 9080 --api-port 9081"\n'
    )


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_what_is_no_port_is_refused(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        command.main(["--port", port])
    assert exited.value.code == 2
    assert port in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="it is for POSIX signals")
@pytest.mark.parametrize(
    ("number", "name", "leaves", "answer"),
    [
        (signal.SIGINT, "shielded", True, b""),
        (signal.SIGTERM, "shielded", False, b"HTTP/1.1 200 OK"),
        (signal.SIGINT, "late", False, b"HTTP/1.1 504 Gateway Timeout"),
    ],
)
def test_stop_waits_for_the_write_that_is_shielded(
    number: signal.Signals, name: str, leaves: bool, answer: bytes
) -> None:
    with start(
        "-m", "examples.demo", "--port", "0", "--api-port", "0"
    ) as process:
        assert process.stdout is not None
        output = until(process.stdout, "Ctrl-C stops it.")
        found = re.search(
            rf"http://127\.0\.0\.1:(\d+)/transfers/{name}", output
        )
        assert found is not None
        with socket.create_connection(("127.0.0.1", int(found[1]))) as client:
            client.sendall(
                b"POST /transfers/%b HTTP/1.1\r\n"
                b"Host: 127.0.0.1\r\nContent-Length: 0\r\n\r\n" % name.encode()
            )
            until(process.stdout, "taken from A")
            if leaves:
                client.close()
            process.send_signal(number)
            until(process.stdout, "Stopping")
            if not leaves:
                assert client.recv(1000).split(b"\r\n")[0] == answer
            written, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    line = rf"^INFO \w+ examples\.demo\.api: Transfer {name}: given to B$"
    assert re.search(line, written, re.MULTILINE)
    assert written.splitlines()[-1] == "Stopped"


def test_terminal_has_a_line_for_each_request_with_its_id() -> None:
    with start(
        "-m", "examples.demo", "--port", "0", "--api-port", "0"
    ) as process:
        assert process.stdout is not None
        try:
            output = until(process.stdout, "Ctrl-C stops it.")
            found = re.search(r"http://[\d.:]+/hello", output)
            assert found is not None
            request = Request(found[0], headers={"X-Request-ID": "mine"})
            with urlopen(request) as answer:
                assert answer.headers["X-Request-ID"] == "mine"
            line = until(process.stdout, "GET /hello").splitlines()[-1]
        finally:
            process.terminate()
    assert re.fullmatch(
        r"INFO mine aiohttp_middlewares\.access_log: "
        r"GET /hello 200 15 B \d\.\d{3} s",
        line,
    )


# The provider
# ============


async def test_provider_asks_browsers_for_nothing_from_the_network() -> None:
    async with provider() as issuer, ClientSession() as client:
        query = {
            "response_type": "code",
            "client_id": "demo",
            "redirect_uri": API,
            "scope": "openid",
        }
        url = URL(issuer) / "oauth2/authorize" % query
        async with client.get(url) as response:
            policy = response.headers["Content-Security-Policy"]
            page = await response.text()
    assert policy.startswith("default-src 'none';")
    for name in USERS:
        assert f'value="{name}"' in page


@pytest.mark.skipif(os.name == "nt", reason="it is for POSIX signals")
def test_provider_ends_with_a_demo_that_is_killed() -> None:
    program = """
import asyncio
from examples.demo.provider import provider

async def main():
    async with provider() as issuer:
        print(issuer, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with start("-c", program) as process:
        assert process.stdout is not None
        issuer = URL(process.stdout.readline().strip())
        assert issuer.host
        assert issuer.port
        process.kill()
        # What it has inherited: open for as long as it lives.
        process.communicate(timeout=PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((issuer.host, issuer.port))


async def test_provider_that_does_not_start_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_module, "__name__", "examples.demo.page")
    with pytest.raises(RuntimeError, match="does not start"):
        async with provider():
            pass


def until(lines: Iterator[str], part: str) -> str:
    seen = ""
    for line in lines:
        seen += line
        if part in line:
            return seen
    raise AssertionError(f"no {part!r} in {seen}")


# What the check says
# ===================


def test_check_finds_everything_as_it_should_be(checks: Checks) -> None:
    checked = checks[""]
    assert checked.failed == []
    assert checked.output.endswith(f"\n{len(TABLE)} passed, 0 failed\n")
    assert checked.code == 0
    for scenario in TABLE:
        assert f"\n{scenario.title}\n" in checked.output


def test_check_that_fails_says_what_and_exits_with_1(checks: Checks) -> None:
    checked = checks["error_middleware"]
    assert checked.code == 1
    assert set(NOTICED_BY["error_middleware"]) <= set(checked.failed)
    failed = len(checked.failed)
    last = f"{len(TABLE) - failed} passed, {failed} failed"
    assert checked.output.splitlines()[-1] == last


def test_every_middleware_of_the_api_is_checked() -> None:
    used = re.findall(r"\b(\w+_middleware|\w+Middleware)\(", read("api.py"))
    # A log changes nothing on the wire.
    assert set(used) - {"request_log_middleware"} == set(NOTICED_BY)


@pytest.mark.parametrize("middleware", NOTICED_BY)
async def test_scenarios_notice_a_middleware_that_does_nothing(
    middleware: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hasattr(api, middleware)
    monkeypatch.setattr(api, middleware, Nothing)
    monkeypatch.setattr(attempt, "PATIENCE", 2)
    # Which takes a second, and nobody asks.
    monkeypatch.setattr(server, "provider", lambda: nullcontext(ISSUER))
    async with running(0, 0) as origins:
        table = {
            scenario.title: scenario
            for scenario in scenarios.scenarios(origins.page)
        }
        other = "A redirect keeps its cookie"  # which takes none of them
        tried = [table[title] for title in (*NOTICED_BY[middleware], other)]
        found = await asyncio.gather(
            *(attempt.attempt(origins.api, scenario) for scenario in tried)
        )
    right = [
        scenario.title
        for scenario, got in zip(tried, found, strict=True)
        if all(
            fits(expected, got.get(name, scenarios.NONE))
            for name, expected in scenario.expect.items()
        )
    ]
    assert right == [other]
