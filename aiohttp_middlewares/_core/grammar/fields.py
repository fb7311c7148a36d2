"""The grammar of header fields, RFC 9110 section 5: pure functions."""

import re
from collections.abc import Iterable, Sequence

from multidict import CIMultiDict, istr

VARY = istr("Vary")

# An element ends at a comma, but not at one inside a quoted string. (What is
# open at the end is closed there; or else each quote would be tried again.)
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+')
# RFC 9110 12.4.2: at most three digits.
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def elements(lines: Iterable[str]) -> list[str]:
    """The elements of a list field, of all its lines; empty ones are not."""
    return [
        element
        for line in lines
        for found in _ELEMENT.findall(line)
        if (element := found.strip(" \t"))
    ]


def add_elements(
    headers: CIMultiDict[str], name: istr, added: Iterable[str]
) -> None:
    """Add to a list field what it does not hold yet, without case.

    ``*`` stands for everything: a list that holds it is left alone.
    """
    present = elements(headers.getall(name, ()))
    known = {element.lower() for element in present}
    missing = [element for element in added if element.lower() not in known]
    if missing and "*" not in known:
        headers[name] = ", ".join([*present, *missing])


def best_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """What to answer with: RFC 9110 12.5.1.

    The first of the offers where nothing is asked for, or nothing of what is
    asked for is offered: for an error page a wrong type is better than none.
    """
    ranges = [] if accept is None else list(weighted(accept))

    def weight(offer: str) -> float:
        kind = offer.partition("/")[0]
        for wanted in (offer, f"{kind}/*", "*/*"):  # the most specific counts
            found = [q for media, q in ranges if media == wanted]
            if found:
                return max(found)
        return 0.0

    return max(offers, key=weight)  # of equals the first


def weighted(accept: str) -> Iterable[tuple[str, float]]:
    """The members of an ``Accept``-like field with their weights, 0 to 1."""
    for element in elements([accept]):
        media, _, rest = element.partition(";")
        weight = parameters(rest).get("q", "1")
        # What is not a weight asks for nothing.
        yield (
            media.rstrip().lower(),
            float(weight) if _WEIGHT.fullmatch(weight) else 0.0,
        )


def parameters(text: str) -> dict[str, str]:
    """``name=value`` pairs between semicolons, with names in lower case.

    RFC 9110 5.6.6, RFC 7239 4. None of them where one is malformed: a quote
    that a client left open may have swallowed what a proxy appended.
    """
    if not _PARAMETERS.fullmatch(text):
        return {}
    return {
        name.lower(): _UNESCAPE.sub(r"\1", quoted) if quoted else token
        for name, quoted, token in _PARAMETER.findall(text)
    }


_PARAMETER = re.compile(
    r'([^\s;=",]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s;",]*)))?'
)
_PARAMETERS = re.compile(
    rf"[ \t]*(?:{_PARAMETER.pattern})?"
    rf"(?:[ \t]*;[ \t]*(?:{_PARAMETER.pattern})?)*[ \t]*"
)
_UNESCAPE = re.compile(r"\\(.)")
