"""The grammar of entity tags, RFC 9110 section 8.8.3."""

import re
from collections.abc import Iterable

# What is quoted has no escapes: a backslash is one character of the tag. Blanks
# are none, but handlers do write some.
_MEMBER = re.compile(r'[ \t,]*(?:W/)?("[^"]*")[ \t]*(?=,|\Z)')


def names_etag(lines: Iterable[str], etag: str) -> bool:
    """Whether an ``If-None-Match`` names an entity tag.

    By weak comparison (RFC 9110 13.1.2): ``W/`` does not count. ``*`` names
    any. Of a line that is malformed counts what stands before the mistake.
    """
    opaque = etag.removeprefix("W/")
    for line in lines:
        if line == "*":
            return True
        position = 0
        while member := _MEMBER.match(line, position):
            if member[1] == opaque:
                return True
            position = member.end()
    return False
