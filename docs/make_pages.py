"""Make the page of each module from its docstring.

    $ python docs/make_pages.py

A page holds the text itself, so that it can be read where nobody runs Sphinx;
what is written by hand is only the docstring. A new module needs no more than
this command, and a line in ``docs/index.rst``. A test holds pages and
docstrings equal, and says this command.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import aiohttp_middlewares  # noqa: E402 - that of this folder, not another

#: These share the page ``helpers``, or are a list of the others.
WITHOUT_PAGE = {"annotations", "client", "constants", "utils"}

MADE = ".. Made from the docstring of"


def pages() -> Iterator[tuple[Path, str]]:
    """Where each page is, and what has to be in it."""
    for found in pkgutil.walk_packages(
        aiohttp_middlewares.__path__, "aiohttp_middlewares."
    ):
        _, *names = found.name.split(".")
        hidden = any(name.startswith("_") for name in names)
        if not hidden and names[-1] not in WITHOUT_PAGE:
            folder = "client" if names[0] == "client" else "middlewares"
            module = importlib.import_module(found.name)
            yield DOCS / folder / f"{names[-1]}.rst", page_of(module)


def page_of(module: ModuleType) -> str:
    name = module.__name__
    above, title, below, *text = inspect.cleandoc(
        module.__doc__ or ""
    ).splitlines()
    return "\n".join(
        [
            f"{MADE} {name}:",
            "   python docs/make_pages.py",
            "",
            above,
            title,
            below,
            "",
            f".. py:module:: {name}",
            *without_roles("\n".join(text)).splitlines(),
            "",
            "Reference",
            "=========",
            "",
            f"``python -m pydoc {name}`` shows this in a terminal.",
            "",
            *directives(module),
            "",
        ]
    )


def without_roles(text: str) -> str:
    """Names between backquotes alone: a forge shows roles as they stand.

    To Sphinx they are ``py:obj``, its default role here.
    """

    def name(found: re.Match[str]) -> str:
        last = found[2].rpartition(".")[2]
        short = found[1] and ".client." not in found[2]
        return f"`{last if short else found[2]}`"

    roles = "mod|func|class|data|exc|meth|attr"
    return re.sub(rf":(?:{roles}):`(~?)([\w.]+)`", name, text)


def directives(module: ModuleType) -> list[str]:
    """One for each public name: the factory, what goes with it, the values."""
    source = inspect.getsource(module)
    kinds: dict[str, list[str]] = {"middleware": [], "call": [], "data": []}
    for name in module.__all__:
        value = getattr(module, name)
        # In Python 3.10 an alias such as Callable[…] says that it is a class.
        is_alias = typing.get_origin(value) is not None
        if inspect.isclass(value) and not is_alias:
            line, kind = f".. autoclass:: {name}", "call"
        elif inspect.isfunction(value):
            line, kind = f".. autofunction:: {name}", "call"
        elif (
            is_alias
            or name.startswith("DEFAULT_")
            or re.search(rf"^#: .*\n{name}\b", source, re.M)
        ):  # and not the mere name of a header
            line, kind = f".. autodata:: {name}", "data"
        else:
            continue
        if name.lower().endswith("middleware"):
            kind = "middleware"
        kinds[kind].append(line)
    return [line for lines in kinds.values() for line in lines]


if __name__ == "__main__":
    for path, text in pages():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(DOCS.parent))
