"""``Cookie``, as RFC 6265bis has browsers write it.

For whoever trusts a cookie. Other readers find one cookie inside of the value
of another, or fail at a name that they do not like.
"""

from collections.abc import Iterable

#: Of all lines so much is read. Servers and proxies take less, mostly.
MOST_TEXT = 65536


def cookie_values(lines: Iterable[str], name: str) -> list[str]:
    """The values of all cookies of this very name, in their order.

    A cookie ends at a semicolon, and nothing but blanks and tabs is cut off
    (RFC 6265bis 4.2.1). Quotation marks around a value are part of
    it (4.1.1). The order means nothing (4.2.2): let the key decide which of
    several is ours. Of a ``__Host-`` name a browser holds one cookie only
    (4.1.3.2): where there are several, somebody has slipped one in, and none
    counts. What is longer than :data:`MOST_TEXT` is not read to its end.
    """
    found = []
    left = MOST_TEXT
    for line in lines:
        pairs = line[:left].split(";")
        if len(line) > left:
            del pairs[-1]  # it was cut in two
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if equals and key.strip(" \t") == name:
                found.append(value.strip(" \t"))
        left -= len(line)
        if left <= 0:
            break
    if len(found) > 1 and name[: len(_HOST_PREFIX)].lower() == _HOST_PREFIX:
        return []
    return found


#: Browsers compare it without case.
_HOST_PREFIX = "__host-"
