"""The grammar of entity tags, RFC 9110 section 8.8.3."""

import re
from collections.abc import Iterable

from aiohttp_middlewares._core.grammar.fields import MOST_ELEMENTS, MOST_TEXT

# What is quoted has no escapes: a backslash is one character of the tag. Blanks
# are none, but handlers do write some.
_MEMBER = re.compile(r'[ \t,]*(?:W/)?("[^"]*")[ \t]*(?=,|\Z)')


def names_etag(lines: Iterable[str], etag: str) -> bool:
    """Whether an ``If-None-Match`` names an entity tag.

    By weak comparison (RFC 9110 13.1.2): ``W/`` does not count. ``*`` names
    any. Of a line that is malformed counts what stands before the mistake.
    They are read as far as any other list: see :mod:`fields`.
    """
    opaque = etag.removeprefix("W/")
    members, left = MOST_ELEMENTS, MOST_TEXT
    for line in lines:
        if line == "*":
            return True
        position = 0
        while member := _MEMBER.match(line, position):
            position = member.end()
            if not members or position > left:
                return False
            if member[1] == opaque:
                return True
            members -= 1
        left -= len(line)
        if left <= 0:
            return False
    return False
