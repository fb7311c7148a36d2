"""What stands around the package: its metadata, its pages, its chores."""

import importlib
import io
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from readme_renderer import rst

import aiohttp_middlewares
import aiohttp_middlewares.client

ROOT = Path(aiohttp_middlewares.__file__).parent.parent
PAGES = ["README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst", "SECURITY.rst"]

# Python 3.10 does not have it.
tomllib: Any = importlib.import_module(
    "tomllib" if sys.version_info >= (3, 11) else "tomli"
)
SETTINGS: dict[str, Any] = tomllib.loads(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
)
PROJECT: dict[str, Any] = SETTINGS["project"]
URLS: dict[str, str] = PROJECT["urls"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def links_of(name: str) -> dict[str, str]:
    """The links of a page, by their text."""
    tree = publish_doctree(
        read(name), settings_overrides={"halt_level": 2, "report_level": 2}
    )
    return {
        node.astext(): node["refuri"]
        for node in tree.findall(nodes.reference)
        if "refuri" in node
    }


# The pages
# =========


@pytest.mark.parametrize("name", PAGES)
def test_page_can_be_shown_where_it_is_published(name: str) -> None:
    warnings = io.StringIO()
    shown = rst.render(read(name), stream=warnings)
    assert (shown is not None, warnings.getvalue()) == (True, "")


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_where_something_is(name: str) -> None:
    documentation, files = URLS["Documentation"], f"{URLS['Source']}/blob/main/"
    for text, link in links_of(name).items():
        assert urlsplit(link).scheme == "https", (text, link)
        if link.startswith(documentation):
            page = link.removeprefix(documentation) or "index.html"
            path = f"docs/{page.removesuffix('.html')}.rst"
        elif link.startswith(files):
            path = link.removeprefix(files)
        else:
            continue
        assert (ROOT / path).is_file(), (text, link)


def test_readme_leads_nowhere_else() -> None:
    links = links_of("README.rst")
    assert len(links) > 40
    for text, link in links.items():
        assert link.startswith(tuple(URLS.values())), (text, link)


def test_readme_leads_to_the_page_of_every_middleware() -> None:
    links = links_of("README.rst")
    for name in aiohttp_middlewares.__all__:
        if name.endswith("_middleware"):
            module = name.removesuffix("_middleware")
            assert links[name].endswith(f"/middlewares/{module}.html")
    for name in aiohttp_middlewares.client.__all__:
        if name.lower().endswith("middleware"):
            assert "/client/" in links[f"client.{name}"]


def test_readme_names_every_extra() -> None:
    page = read("README.rst")
    rows = page[page.index("     - Extras") : page.index("Two commands")]
    extras = set(PROJECT["optional-dependencies"])
    assert set(re.findall(r"``([a-z-]+)``", rows)) - extras == {
        "opentelemetry-sdk"
    }
    assert extras <= set(re.findall(r"``([a-z-]+)``", rows))


# The chores
# ==========


def test_what_is_asked_of_make_it_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.M))
    chores = [".ci/run", ".github/workflows/tests.yml"]
    chores += [".pre-commit-config.yaml", "README.rst", "CONTRIBUTING.rst"]
    pages = [
        str(page.relative_to(ROOT))
        for page in (ROOT / "docs").rglob("*.rst")
        if "_build" not in page.parts
    ]
    for name in [*chores, *pages]:
        # After a prompt, in quotes, or as a step of a workflow or a hook.
        calls = re.findall(
            r"(?:^\s*[$#] |``|\" ?|run: |entry: )make((?: [a-z][a-z-]*)+)",
            read(name),
            re.M,
        )
        asked = {target for call in calls for target in call.split()}
        assert asked <= targets, name
        assert asked or name not in chores, name


def test_oldest_that_is_allowed_is_tried() -> None:
    (oldest,) = re.findall(r"^OLDEST='(.*)'$", read(".ci/run"), re.M)
    tried = dict(each.split("==") for each in oldest.split())
    allowed = {
        name: floor.partition(",")[0]
        for name, floor in (
            each.split(">=") for each in PROJECT["dependencies"]
        )
    }
    assert tried.keys() == allowed.keys()
    for name, floor in allowed.items():
        assert tried[name].startswith(f"{floor}."), name


def promised_pythons() -> list[str]:
    return [
        found[1]
        for line in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming .* :: (3\.\d+)", line))
    ]


def test_pages_name_every_python_that_is_promised() -> None:
    promised = promised_pythons()
    assert f"     - {', '.join(promised)}\n" in read("docs/versions.rst")
    span = f"Python {promised[0]} to {promised[-1]}"
    assert f"* **Tried**: {span}, " in read("README.rst")


def test_workflow_runs_every_python_that_is_promised() -> None:
    promised = set(promised_pythons())
    (run,) = re.findall(
        r"^ +python: \[(.*)\]$", read(".github/workflows/tests.yml"), re.M
    )
    assert promised
    assert promised <= set(re.findall(r'"(3\.\d+)"', run))
    script = read(".ci/run")
    (others,) = re.findall(r"^for version in (.*) \$NEWEST; do$", script, re.M)
    (newest,) = re.findall(r"^NEWEST='(.*)'$", script, re.M)
    assert promised == {"3.10", *others.split(), *newest.split()}
