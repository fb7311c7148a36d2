"""The pages as a whole: what is made is made anew, and nothing is missing."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

spec = importlib.util.spec_from_file_location(
    "make_pages", DOCS / "make_pages.py"
)
assert spec is not None
assert spec.loader is not None
make_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_pages)

MADE = dict(make_pages.pages())


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", MADE, ids=lambda page: page.stem)
def test_page_is_the_docstring_of_its_module(page: Path) -> None:
    assert page.exists(), "run: python docs/make_pages.py"
    assert read(page) == MADE[page], "run: python docs/make_pages.py"


def test_no_page_is_left_of_a_module_that_is_gone() -> None:
    pages = {
        page for page in DOCS.rglob("*.rst") if make_pages.MADE in read(page)
    }
    assert pages == set(MADE)


def test_index_leads_to_every_page() -> None:
    index = read(DOCS / "index.rst")
    told = set(re.findall(r":doc:`(?:[^`<]+ <)?([\w/-]+)>?`", index))
    pages = {
        str(page.relative_to(DOCS).with_suffix(""))
        for page in DOCS.rglob("*.rst")
        if "_build" not in page.parts
    }
    assert pages - told == {"index"}


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.rst")), ids=lambda page: page.name
)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"`[^`]+ <([^`>]+)>`_", read(page))
    files = [target for target in targets if "://" not in target]
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_inventory_has_what_the_pages_name_of_python() -> None:
    known = {
        line.split()[0]
        for line in read(DOCS / "inventories/python.txt").splitlines()[3:]
    }
    texts = [
        *(page for page in DOCS.rglob("*.rst") if "_build" not in page.parts),
        *(ROOT / "aiohttp_middlewares").rglob("*.py"),
    ]
    named = {
        name
        for path in texts
        for name in re.findall(
            r":(?:mod|class|func|meth|attr|data|exc):`[^`]*?~?([\w.]+)>?`",
            read(path),
        )
        if name.partition(".")[0] in sys.stdlib_module_names
    }
    assert named
    assert named <= known


def test_examples_are_shown_where_nobody_runs_sphinx() -> None:
    known = "class|name|number-lines"  # those of docutils
    for page in DOCS.rglob("*.rst"):
        if "_build" not in page.parts:
            wrong = rf"code-block:: \w+\n +:(?!{known}).*"
            assert re.findall(wrong, read(page)) == [], page


def test_versions_are_those_of_the_package() -> None:
    project = read(ROOT / "pyproject.toml")
    page = " ".join(read(DOCS / "versions.rst").split())
    assert 'requires-python = ">=3.10"' in project
    assert "* - Python - 3.10, 3.11, " in page
    for name, least, below in re.findall(
        r'"(aiohttp|multidict|yarl)>=([\d.]+)(?:,<(\d+))?"', project
    ):
        told = f"* - {name} - {least} and newer"
        assert told + (f", below {below}" if below else "") in page
