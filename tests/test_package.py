"""The package as a whole: floors, public names, and all that is written."""

import ast
import asyncio
import importlib
import importlib.machinery
import importlib.util
import inspect
import logging
import pkgutil
import re
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import aiohttp_middlewares
from aiohttp_middlewares import check_stack

PACKAGE = Path(aiohttp_middlewares.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PAGES = [
    ROOT / "README.rst",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.rst"))
        if "_build" not in page.parts
        # Those that are made from docstrings, which are read anyway.
        and not page.read_text(encoding="utf-8").startswith(".. Made from")
    ),
]
PUBLIC_MODULES = [
    "aiohttp_middlewares",
    *(
        found.name
        for found in pkgutil.walk_packages(
            aiohttp_middlewares.__path__, "aiohttp_middlewares."
        )
        if "._" not in found.name
    ),
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# The floors
# ==========

#: What each floor may import from the package, besides its own place. A
#: room's own place is the room: rooms never import each other, and the
#: client's rooms and the server's do not know of each other.
REACHES = {
    "list": {"doctor", "room", "door", "core", "grammar", "words"},
    "client list": {"client room", "client core", "core", "grammar", "words"},
    "doctor": {"doctor", "room", "core", "grammar", "words"},
    "room": {"core", "grammar", "words"},
    "client room": {"client core", "core", "grammar", "words"},
    "client core": {"client core", "core", "grammar", "words"},
    "door": {"core", "words"},
    "core": {"grammar", "words"},
    "grammar": {"words"},
    "words": set(),
}

#: What every module may import; any other package only inside the function
#: that needs it, as the user may not have it.
ALWAYS_THERE = {"aiohttp", "multidict", "yarl", *sys.stdlib_module_names}


def place_of(name: str) -> tuple[str, str]:
    """The floor of a module, and its place there."""
    match name.split(".")[1:]:
        case []:
            return "list", ""
        case ["client"]:
            return "client list", ""
        case ["client", module, *_] if module.startswith("_"):
            return "client core", ""
        case ["client", room, *_]:
            return "client room", room
        case ["_core", "grammar", *_]:
            return "grammar", ""
        case ["_core", *_]:
            return "core", ""
        case ["annotations" | "constants"]:
            return "words", ""
        case ["utils"]:
            return "door", ""
        case ["check" | "__main__", *_]:
            return "doctor", ""
        case [room, *_]:
            return "room", room
    raise AssertionError(name)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(tree: ast.AST, *, at_import: bool = False) -> set[str]:
    """What a module imports: all, or what its own import imports."""
    later = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    found = set()
    for node in set(ast.walk(tree)) - (later if at_import else set()):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write the name of the module in full"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_each_floor_reaches_only_down(path: Path) -> None:
    floor, place = place_of(module_of(path))
    for module in imports_of(ast.parse(read(path))):
        if module.split(".")[0] != "aiohttp_middlewares":
            continue
        other_floor, other_place = place_of(module)
        itself = (other_floor, other_place) == (floor, place)
        assert itself or other_floor in REACHES[floor], (
            f"{name_of(path)} is a {floor} and may import only"
            f" {REACHES[floor] or 'nothing'}, not {module}"
        )


def test_utils_is_a_door_to_the_url_rules_and_to_nothing_else() -> None:
    inside = {
        module
        for module in imports_of(ast.parse(read(PACKAGE / "utils.py")))
        if module.startswith("aiohttp_middlewares")
        and place_of(module)[0] != "words"
    }
    assert inside == {"aiohttp_middlewares._core.urls"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_functions_import_what_a_user_may_not_have(path: Path) -> None:
    tree = ast.parse(read(path))
    packages = {
        module.split(".")[0] for module in imports_of(tree, at_import=True)
    }
    assert packages <= {"aiohttp_middlewares", *ALWAYS_THERE}


# Public names
# ============


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_listed_name_is_there(name: str) -> None:
    # That the lists are sorted, ruff holds (RUF022).
    module = importlib.import_module(name)
    names = getattr(module, "__all__", ())
    assert [item for item in names if not hasattr(module, item)] == []


@pytest.mark.parametrize(
    "name", [name for name in PUBLIC_MODULES if name.count(".") < 2]
)
def test_factory_of_each_room_is_in_the_list_and_has_its_page(
    name: str,
) -> None:
    module = importlib.import_module(name)
    factory = f"{name.rpartition('.')[2]}_middleware"
    if hasattr(module, factory):
        assert factory in aiohttp_middlewares.__all__
        assert (
            ROOT / "docs/middlewares" / f"{name.split('.')[1]}.rst"
        ).exists()


def test_list_names_all_that_the_top_level_offers() -> None:
    offered = {
        name
        for name, value in vars(aiohttp_middlewares).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert offered == set(aiohttp_middlewares.__all__)


def public_callables() -> Iterator[tuple[str, Any]]:
    for name in PUBLIC_MODULES:
        for item, value in vars(importlib.import_module(name)).items():
            if item.startswith("_") or not callable(value):
                continue
            if getattr(value, "__module__", None) != name:
                continue
            yield f"{name}.{item}", value
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    if not inspect.isfunction(function):
                        continue
                    # Neither one of Protocol's nor one of dataclass's.
                    if function.__module__ == name and (
                        not method.startswith("__")
                        or method in ("__call__", "__init__")
                    ):
                        yield f"{name}.{item}.{method}", function


@pytest.mark.parametrize(
    "value",
    [pytest.param(value, id=name) for name, value in public_callables()],
)
def test_type_hints_resolve_at_run_time(value: Callable[..., Any]) -> None:
    if inspect.isclass(value):  # those of its bases are not ours to resolve
        inspect.get_annotations(value, eval_str=True)
    else:
        assert "return" in typing.get_type_hints(value)


def test_import_is_silent_and_leaves_the_client_alone() -> None:
    code = "import sys, aiohttp_middlewares; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert done.stderr == ""
    modules = done.stdout.split()
    assert "aiohttp_middlewares.constants" in modules
    assert "aiohttp_middlewares.client" not in modules
    assert "aiohttp_middlewares.check._rules" not in modules


#: What the package may load beside what ``aiohttp.web`` has loaded already.
#: All of it is small, and of the standard library.
LIGHT = {"concurrent", "dataclasses", "hmac", "queue", "secrets"}


def test_import_loads_nothing_that_aiohttp_has_not() -> None:
    code = (
        "import sys, aiohttp.web; known = {*sys.modules}\n"
        "import aiohttp_middlewares; print(*{*sys.modules} - known)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=ROOT,
        text=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    # What begins with "_" is a part of another.
    others = {name for name in loaded if not name.startswith("_")}
    assert others - LIGHT == {"aiohttp_middlewares"}


def test_changelog_begins_with_this_version() -> None:
    titles = re.findall(r"^(\S+)\n=+$", read(ROOT / "CHANGELOG.rst"), re.M)
    assert titles[:2] == ["Changelog", aiohttp_middlewares.__version__]


# What the documentation shows
# ============================


class Block(NamedTuple):
    path: Path
    line: int  # of the first line of code
    code: str
    not_run: str  # the reason, when it is not run


def blocks_of(path: Path, text: str, first_line: int = 1) -> Iterator[Block]:
    """The Python examples of a text in reStructuredText."""
    lines = text.expandtabs().splitlines()
    reason = ""
    for number, line in enumerate(lines):
        if found := re.fullmatch(r"( *)\.\. code-block:: python *", line):
            indent = len(found[1])
            start = end = number + 1
            while end < len(lines) and (
                not lines[end].strip()
                or len(lines[end]) - len(lines[end].lstrip()) > indent
            ):
                end += 1
            while start < end and not re.match(r" *[^: ]", lines[start]):
                start += 1  # options of the directive, and empty lines
            code = textwrap.dedent("\n".join(lines[start:end])) + "\n"
            yield Block(path, first_line + start, code, reason)
        if line.strip():
            note = re.fullmatch(r" *\.\. not run: (.+)", line)
            reason = note[1] if note else ""


def blocks_of_docstrings(path: Path) -> Iterator[Block]:
    documented = (
        ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    for node in ast.walk(ast.parse(read(path))):
        if not isinstance(node, documented) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(
            first.value, ast.Constant
        ):
            text = first.value.value
            if isinstance(text, str):
                yield from blocks_of(path, text, first.lineno)


BLOCKS = [
    *(block for page in PAGES for block in blocks_of(page, read(page))),
    *(block for path in SOURCES for block in blocks_of_docstrings(path)),
]


#: Pages whose examples have faults, to show what becomes of them.
SHOW_FAULTS = {
    "aiohttp_middlewares/check/__init__.py",
    "docs/how-to/check.rst",
    "docs/middlewares/check.rst",
}


@contextmanager
def loggers_as_before() -> Iterator[None]:
    """What is done to our loggers within is undone: others listen to them."""
    loggers = [
        logging.getLogger(name)
        for name in logging.root.manager.loggerDict
        if name.startswith("aiohttp_middlewares")
    ]
    kept = [(each.level, each.propagate, [*each.handlers]) for each in loggers]
    try:
        yield
    finally:
        for each, (level, propagate, handlers) in zip(
            loggers, kept, strict=True
        ):
            each.setLevel(level)
            each.propagate = propagate
            each.handlers[:] = handlers


def run(block: Block, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a block in a module of its own, not as the main one.

    So what an example does under ``if __name__ == "__main__"``, such as
    ``web.run_app(app)``, is not done.
    """
    # As an import makes it: a traceback asks its loader for the source.
    spec = importlib.util.spec_from_file_location(
        "example",
        block.path,
        loader=importlib.machinery.SourceFileLoader("example", str(block.path)),
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example", module)
    # A traceback then shows the line of the page.
    code = "\n" * (block.line - 1) + block.code
    # What an operator sets.
    monkeypatch.setenv("SESSION_KEYS", "a-new-and-random-key an-old-random-key")
    exec(compile(code, str(block.path), "exec"), vars(module))
    return vars(module)


def applications_in(names: dict[str, Any]) -> Iterator[web.Application]:
    """Those of an example, but for those that are a part of another."""
    for value in list(names.values()):
        if (
            inspect.isfunction(value)
            and value.__annotations__.get("return") is web.Application
            and all(
                parameter.default is not parameter.empty
                for parameter in inspect.signature(value).parameters.values()
            )
        ):
            value = value()
        if isinstance(value, web.Application) and not value.pre_frozen:
            yield value


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{name_of(block.path)}:{block.line}")
        for block in BLOCKS
    ],
)
def test_every_example_runs(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    with loggers_as_before():
        names = run(block, monkeypatch)
    if name_of(block.path) not in SHOW_FAULTS:
        for app in applications_in(names):
            assert check_stack(app) == []
    if any(name.startswith("test_") for name in names):
        assert_tests_pass(block, tmp_path)


def assert_tests_pass(block: Block, folder: Path) -> None:
    """Give an example that shows tests to pytest."""
    (folder / "test_example.py").write_text(block.code, encoding="utf-8")
    options = ["-q", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, folder],
        capture_output=True,
        check=False,
        cwd=ROOT,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_an_example_does_to_loggers_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [block] = [each for each in BLOCKS if "propagate = False" in each.code]
    logger = logging.getLogger("aiohttp_middlewares.access_log")
    before = logger.level, logger.propagate, [*logger.handlers]
    with loggers_as_before():
        run(block, monkeypatch)
        assert logger.handlers != before[2]
    assert (logger.level, logger.propagate, logger.handlers) == before
    assert logger.propagate


def test_examples_are_found_where_they_stand() -> None:
    text = """
Title
=====

.. code-block:: python

    first = 1

        # indented
    second = 2

Text.

.. not run: it needs a rocket
.. code-block:: python
    :caption: launch.py

    launch()
.. code-block:: python

    last = 3
"""
    page = Path("page.rst")
    assert list(blocks_of(page, text)) == [
        Block(page, 7, "first = 1\n\n    # indented\nsecond = 2\n\n", ""),
        Block(page, 18, "launch()\n", "it needs a rocket"),
        Block(page, 21, "last = 3\n", ""),
    ]


@pytest.mark.parametrize(
    "factory",
    [n for n in aiohttp_middlewares.__all__ if n.endswith("_middleware")],
)
def test_readme_and_order_know_every_middleware(factory: str) -> None:
    assert f"   * - `{factory}`_\n" in read(ROOT / "README.rst")
    order = read(ROOT / "docs/how-to/order.rst")
    rows = re.findall(r"^   \* - (``.*)$", order, re.M)
    name = factory.removesuffix("_middleware")
    assert [row for row in rows if f"``{name}``" in row], name


def test_package_tells_the_order_of_the_page() -> None:
    told = (aiohttp_middlewares.__doc__ or "").partition("Beside them")[0]
    order = read(ROOT / "docs/how-to/order.rst")
    rows = re.findall(r"^   \* - (``.*)$", order, re.M)
    assert re.findall(r"``(\w+)``", told) == re.findall(
        r"``(\w+)``", " ".join(rows)
    )


def test_readme_example_answers_as_the_readme_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = read(ROOT / "README.rst")
    app = run(next(blocks_of(ROOT / "README.rst", page)), monkeypatch)["app"]
    shown = re.search(
        r"^    HTTP/1.1 (\d+).*\n((?:    .*\n)+)\n    (.*)$", page, re.M
    )
    assert shown is not None

    async def ask() -> None:
        async with TestClient(TestServer(app)) as client:
            response = await client.get(
                "/notes/2", headers={"Origin": "https://app.example.com"}
            )
            assert response.status == int(shown[1])
            for line in shown[2].splitlines():
                name, _, value = line.strip().partition(": ")
                assert response.headers.getall(name) == [value]
            assert await response.text() == shown[3]

    asyncio.run(ask())


# The house
# =========


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_each_public_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert set(module.__all__) <= set(vars(module))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_loggers_are_typed_and_nothing_of_aiohttp_warns(path: Path) -> None:
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Assign):
            assert [ast.unparse(target) for target in node.targets] != [
                "logger"
            ]
        # aiohttp 4 warns of it, at each call of a factory.
        assert not (
            isinstance(node, ast.Attribute)
            and ast.unparse(node) == "web.middleware"
        )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_a_handler_of_logs_raises_stops_no_request(path: Path) -> None:
    """A logger is one of ours, which never raises."""
    made = [
        node
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) == "logging.getLogger"
    ]
    assert len(made) == (path == PACKAGE / "_core/logs.py")


# What no file may hold
# =====================


def test_no_line_holds_a_path_of_a_machine() -> None:
    folders = ["aiohttp_middlewares", "tests", "docs", "examples", "benchmarks"]
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    for pattern in (".ci/*", ".github/**/*", ".*.yaml", ".editorconfig"):
        files += ROOT.glob(pattern)
    for pattern in ("*.rst", "*.toml", "Makefile", ".gitignore"):
        files += ROOT.glob(pattern)
    local = re.compile(rb"/(?:tmp|work|farm|root|home|Users)/[a-zA-Z]")
    found = [
        f"{name_of(path)}:{number}"
        for path in files
        if path.is_file() and not {"_build", "__pycache__"} & set(path.parts)
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if local.search(line)
    ]
    assert found == []
