"""What proxies append: ``X-Forwarded-*`` and ``Forwarded`` of RFC 7239.

All of it is read from its right end, where the nearest proxy wrote, and no
further than it is believed.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from aiohttp_middlewares._core.grammar.fields import (
    MOST_ELEMENTS,
    MOST_TEXT,
    TOKEN,
    parameters,
    unquoted,
)


def nearest_first(lines: Sequence[str]) -> Iterator[str]:
    """The elements of an ``X-Forwarded-*`` field, the last one first.

    Empty ones are not (RFC 9110 5.6.1.2). There are no quoted strings in
    these fields: a quotation mark that a client sends must not swallow what a
    proxy appends.
    """
    return islice(_nearest_first(lines), MOST_ELEMENTS)


def forwarded_nearest_first(lines: Sequence[str]) -> Iterator[dict[str, str]]:
    """The parameters of each element of ``Forwarded``, the last one first.

    Names are in lower case. A malformed element ends it: what stands to the
    left of it may be anything.
    """
    for element in islice(_forwarded_elements(lines), MOST_ELEMENTS):
        pairs = _pairs(element)
        if pairs is None:
            return
        yield pairs


def _parts(lines: Sequence[str]) -> Iterator[list[str]]:
    """What stands between the commas of each line, from the right."""
    left = MOST_TEXT
    for line in reversed(lines):
        parts = line[-left:].split(",")
        if len(line) > left:
            del parts[0]  # it was cut in two
        parts.reverse()
        yield parts
        left -= len(line)
        if left <= 0:
            return


def _nearest_first(lines: Sequence[str]) -> Iterator[str]:
    for parts in _parts(lines):
        for part in parts:
            if element := part.strip(" \t"):
                yield element


def _forwarded_elements(lines: Sequence[str]) -> Iterator[str]:
    """The elements, with the commas that are quoted in them.

    A quotation mark that a client left open does not reach what a proxy
    appends after it: before an element that is well-formed, and so has an
    even number of them, stands a comma that is not quoted.
    """
    for parts in _parts(lines):
        element: list[str] = []
        quotes = 0
        for part in parts:
            element.append(part)
            if '"' in part:
                quotes += _QUOTED_PAIR.sub("", part).count('"')
            if quotes % 2 == 0:
                if text := ",".join(reversed(element)).strip(" \t"):
                    yield text
                element.clear()
        if element:
            yield ",".join(reversed(element))


_QUOTED_PAIR = re.compile(r"\\.", re.DOTALL)


def _pairs(element: str) -> dict[str, str] | None:
    """RFC 7239 4: each parameter once, and none without a value."""
    pairs = parameters(element)
    if pairs is None:
        return None
    found: dict[str, str] = {}
    for name, value in pairs:
        known = value.startswith('"') or TOKEN.fullmatch(value)
        if not known or not TOKEN.fullmatch(name) or name in found:
            return None
        found[name] = unquoted(value)
    return found
