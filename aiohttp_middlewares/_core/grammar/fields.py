"""The grammar of header fields, RFC 9110 section 5.

What a visitor sends is read up to a bound, as the head of a request may hold
a megabyte: what stands beyond it counts as not said.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from multidict import CIMultiDict, istr

VARY = istr("Vary")

#: Of a list so many elements are read, and so many characters: as many as
#: aiohttp takes in one line.
MOST_ELEMENTS = 64
MOST_TEXT = 8190

# RFC 9110 5.6.2: what a method or a field name is made of.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# An element ends at a comma, but not at one inside a quoted string. (What is
# open at the end is closed there; or else each quote would be tried again.)
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+', re.DOTALL)
# RFC 9110 12.4.2: at most three digits.
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def elements(lines: Iterable[str]) -> list[str]:
    """The first elements of a list field, of all its lines.

    Empty ones are not (RFC 9110 5.6.1.2). The list ends before an element
    that is cut by :data:`MOST_TEXT`, and after :data:`MOST_ELEMENTS`.
    """
    members: list[str] = []
    left = MOST_TEXT
    for line in lines:
        for found in _ELEMENT.finditer(line, 0, left):
            if found.end() == left < len(line):
                break
            if member := found[0].strip(" \t"):
                members.append(member)
                if len(members) == MOST_ELEMENTS:
                    return members
        left -= len(line)
        if left <= 0:
            break
    return members


def add_elements(
    headers: CIMultiDict[str], name: istr, added: Iterable[str]
) -> None:
    """Add to a list field what it does not hold yet, without case.

    ``*`` stands for everything: a list that holds it is left alone.
    """
    lines = headers.getall(name, ())
    if len(lines) == 1 and len(lines[0]) <= _LONGEST_REMEMBERED:
        line = _joined_before((lines[0],), tuple(added))
    else:
        line = _joined(lines, added)
    if line is not None:
        headers[name] = line


def _joined(lines: Iterable[str], added: Iterable[str]) -> str | None:
    """One line for all; ``None`` where nothing is missing."""
    known = {element.lower() for element in elements(lines)}
    missing = [element for element in added if element.lower() not in known]
    if not missing or "*" in known:
        return None
    present = [kept for line in lines if (kept := line.strip(" \t,"))]
    return ", ".join([*present, *missing])


#: Most answers have one of few such fields.
_joined_before = lru_cache(maxsize=256)(_joined)
_LONGEST_REMEMBERED = 200


def best_media_type(accept: Iterable[str], offers: Sequence[str]) -> str:
    """What to answer to the lines of an ``Accept``: RFC 9110 12.5.1.

    The first of the offers where nothing is asked for, or nothing of what is
    asked for is offered: for an error page a wrong type is better than none.
    """
    ranges = weighted(accept)

    def weight(offer: str) -> float:
        kind = offer.partition("/")[0]
        for wanted in (offer, f"{kind}/*", "*/*"):  # the most specific counts
            found = [q for media, q in ranges if media == wanted]
            if found:
                return max(found)
        return 0.0

    return max(offers, key=weight)  # of equals the first


def weighted(lines: Iterable[str]) -> list[tuple[str, float]]:
    """The members of an ``Accept``-like field with their weights, 0 to 1."""
    found = []
    for element in elements(lines):
        media, _, rest = element.partition(";")
        weight = unquoted(dict(parameters(rest) or ()).get("q", "1"))
        # What is not a weight asks for nothing.
        q = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
        found.append((media.rstrip().lower(), q))
    return found


def parameters(text: str) -> list[tuple[str, str]] | None:
    """``name=value`` pairs between semicolons: RFC 9110 5.6.6.

    Names are in lower case, values as they were written, see
    :func:`unquoted`; empty where there is none. ``None`` if one of them is
    malformed: a quote that a client left open may have swallowed what a proxy
    appended.
    """
    found = []
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return None
        position = pair.end()
        if pair[1] is not None:
            found.append((pair[1].lower(), pair[2] or ""))
    return found


# There is one way only to read a text by it. Blanks that two parts of it could
# claim would be tried in every combination: some 80 bytes would take days.
_PAIR = re.compile(
    r"[ \t]*"
    r'(?:([^\s;=",]+)(?:=("(?:[^"\\]|\\.)*"|[^\s;",]*))?[ \t]*)?'
    r"(?:;|\Z)",
    re.DOTALL,
)


def unquoted(value: str) -> str:
    """A token as it is, and what a quoted string says (RFC 9110 5.6.4)."""
    if not value.startswith('"'):
        return value
    return _QUOTED_PAIR.sub(r"\1", value[1:-1])


_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def quoted(value: str) -> str:
    """A quoted string (RFC 9110 5.6.4) that says it."""
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
