"""The lines that a scenario is about, cut from the source of the demo.

They are the entry of its middleware in the list, all that its ``code`` names,
and the handlers that it asks. A ``code`` that stands nowhere is a
:exc:`ValueError` at the start of the demo.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from examples.demo.api import routes
from examples.demo.scenarios import Scenario

#: Where to look, in this order.
FILES = ("api.py", "server.py")
#: A block of more lines shows its ends and what is named; the rest is folded.
WHOLE = 14
#: Fewer lines than these are not worth a fold.
FOLD = 3


class Block(NamedTuple):
    """An entry of a list of middlewares, a statement, or a definition."""

    file: str
    first: int  # counted from 1
    last: int


@dataclass(frozen=True)
class Piece:
    """Lines that are shown alike."""

    text: str
    named: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Excerpt:
    """A block with its lines: all of them, in pieces."""

    file: str
    first: int
    last: int
    pieces: list[Piece]


def excerpts(scenario: Scenario) -> list[Excerpt]:
    """What to show of the source, in its order.

    :raises ValueError: the source has not what the scenario names.
    """
    named: dict[Block, set[int]] = {}
    for block in _own(scenario):
        named[block] = set()
    for file, first, last in _named(scenario.code):
        block = _smallest(file, first, last)
        named.setdefault(block, set()).update(range(first, last + 1))
    return [
        _cut(block, named[block])
        for block in sorted(named, key=lambda b: (FILES.index(b.file), b.first))
    ]


@cache
def _lines(file: str) -> list[str]:
    path = Path(__file__).with_name(file)
    return path.read_text(encoding="utf-8").splitlines()


# Blocks
# ======


@cache
def _entries() -> dict[str, Block]:
    """What is in the lists of middlewares, by what is called there."""
    return {
        entry.func.id: _block(file, entry)
        for file in FILES
        for node in ast.walk(_tree(file))
        for entry in _listed(node)
        if isinstance(entry, ast.Call) and isinstance(entry.func, ast.Name)
    }


@cache
def _blocks(file: str) -> list[Block]:
    """All that can be shown. Handlers are shown as a whole, or not at all."""
    found = []
    handlers = {name for name, _, _ in _handlers()}
    for top in _tree(file).body:
        found.append(_block(file, top))
        if getattr(top, "name", "") not in handlers:
            for node in ast.walk(top):
                if isinstance(node, ast.stmt):
                    found.append(_block(file, node))
                found.extend(_block(file, entry) for entry in _listed(node))
    return found


@cache
def _tree(file: str) -> ast.Module:
    return ast.parse("\n".join(_lines(file)))


def _listed(node: ast.AST) -> list[ast.expr]:
    """The entries of ``middlewares=[…]``."""
    if (
        isinstance(node, ast.keyword)
        and node.arg == "middlewares"
        and isinstance(node.value, ast.List)
    ):
        return node.value.elts
    return []


def _block(file: str, node: ast.expr | ast.stmt) -> Block:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = min(each.lineno for each in (node, *decorators))
    # With the comment above it.
    while _lines(file)[first - 2].lstrip().startswith("# "):
        first -= 1
    assert node.end_lineno is not None
    return Block(file, first, node.end_lineno)


def _smallest(file: str, first: int, last: int) -> Block:
    return min(
        (
            block
            for block in _blocks(file)
            if block.first <= first and last <= block.last
        ),
        key=lambda block: block.last - block.first,
    )


# What a scenario is about
# ========================


def _own(scenario: Scenario) -> Iterator[Block]:
    """Its middleware and its handlers."""
    entry = _entries().get(f"{scenario.middleware}_middleware")
    if entry is not None:
        yield entry
    asked = [(scenario.method, scenario.path)]
    if "redirect" in scenario.expect:
        asked.append(("GET", scenario.expect["redirect"].split()[1]))
    names = {
        handler
        for handler, method, pattern in _handlers()
        if any(
            asks == method and re.fullmatch(pattern, path)
            for asks, path in asked
        )
    }
    for top in _tree(FILES[0]).body:
        if getattr(top, "name", "") in names:
            yield _block(FILES[0], top)


@cache
def _handlers() -> list[tuple[str, str, str]]:
    """The name, the method and the pattern of the path of each handler."""
    return [
        (
            inspect.unwrap(route.handler).__name__,
            route.method,
            # What is in braces is the name of a part, and its pattern.
            re.sub(r"\{\w+:(.+?)\}", r"(?:\1)", route.path),
        )
        for route in routes
        if isinstance(route, web.RouteDef)
    ]


def _named(code: str) -> Iterator[tuple[str, int, int]]:
    """Where the parts of ``code`` stand, each behind the one before it."""
    place = 0
    squeezed, lines = _squeezed()
    for part in code.split("…"):
        # However it is spread over lines: those of a call may end in a comma.
        sought = re.sub(r"\s|^\W+", "", part.strip()).strip(",")
        if not re.search(r"\w", sought):
            continue  # brackets
        start = squeezed.find(sought, place)
        if start < 0:
            where = " or behind it in ".join(FILES)
            raise ValueError(f"{part!r} of {code!r} is not in {where}")
        place = start + len(sought)
        file, first = lines[start]
        yield file, first, lines[place - 1][1]


@cache
def _squeezed() -> tuple[str, list[tuple[str, int]]]:
    """The source without white space, and the line of each character."""
    characters = [
        (character, (file, number))
        for file in FILES
        for number, line in enumerate(_lines(file), 1)
        for character in line
        if not character.isspace()
    ]
    return "".join(c for c, _ in characters), [line for _, line in characters]


# What of it
# ==========


def _cut(block: Block, named: set[int]) -> Excerpt:
    file, first, last = block
    lines = textwrap.dedent("\n".join(_lines(file)[first - 1 : last]))
    shown = set(range(first, last + 1))
    if named and len(shown) > WHOLE:
        shown = {first, last, *named}
    pieces = []
    for key, group in groupby(
        enumerate(lines.splitlines(), first),
        key=lambda line: (line[0] in named, line[0] in shown),
    ):
        texts = [text for _, text in group]
        folded = not key[1] and len(texts) >= FOLD
        pieces.append(Piece("\n".join(texts), named=key[0], folded=folded))
    return Excerpt(file, first, last, pieces)
