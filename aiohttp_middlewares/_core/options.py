"""Checks of factory arguments, and the wording of every option error.

Each check takes ``what`` first, the factory and its option
(``"cors_middleware origins"``), and returns the value in the form that the
factory keeps. A wrong value raises ``TypeError`` or ``ValueError`` with one
sentence: what it should be, what came, and what was perhaps meant.
"""

import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NoReturn

from multidict import istr
from yarl import URL

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.grammar.fields import TOKEN as TOKEN
from aiohttp_middlewares._core.grammar.networks import (
    Address,
    Network,
    network_meant,
    parse_network,
)
from aiohttp_middlewares._core.grammar.origins import Origins, origin_meant

logger: logging.Logger = logs.get_logger(__name__)
_FIELD_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")


def refuse(
    error: type[Exception],
    what: str,
    should: str,
    got: object,
    *,
    meant: str | None = None,
    advice: str | None = None,
) -> NoReturn:
    """Raise the one sentence.

    :param meant: Source text to type instead.
    :param advice: What to do where nobody knows what was meant.
    """
    hint = "" if advice is None else f"; {advice}"
    if meant is not None:
        hint = f"; did you mean {meant}?"
    raise error(f"{what} should be {should}, got {got!r}{hint}")


def flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        refuse(TypeError, what, "True or False", value)
    return value


def seconds(what: str, value: object, *, zero: bool = False) -> float:
    """A positive, finite number of seconds; ``zero`` permits 0 as well."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(TypeError, what, "a number of seconds", value)
    if zero and value == 0:
        return value
    # The largest float, as whole numbers know no end.
    if not 0 < value <= sys.float_info.max:
        should = "a positive, finite number of seconds"
        if zero:
            should = f"0 or {should}"
        refuse(ValueError, what, should, value)
    return value


def integer(what: str, value: object, *, minimum: int = 0) -> int:
    """A whole number, ``minimum`` or more."""
    should = f"a whole number, {minimum} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(TypeError, what, should, value)
    if value < minimum:
        refuse(ValueError, what, should, value)
    return value


def function(
    what: str, value: object, *, awaited: bool = True
) -> Callable[..., Any]:
    """A callable; not a coroutine function unless that is ``awaited``."""
    if not callable(value):
        refuse(TypeError, what, "a callable", value)
    if not awaited and inspect.iscoroutinefunction(value):
        refuse(TypeError, what, "a function that is not async", value)
    return value


def items(what: str, of: str, value: object) -> tuple[Any, ...]:
    """The members of a collection of ``of``, frozen.

    A bare string is never a collection, and neither is a mapping. (A single
    network could be walked through, an address at a time.)
    """
    should = f"a collection of {of}"
    if isinstance(value, str | URL | re.Pattern | Address | Network):
        meant = None if value == "*" else f"[{value!r}]"
        refuse(TypeError, what, should, value, meant=meant)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        refuse(TypeError, what, should, value)
    return tuple(value)


def strings(what: str, value: object) -> tuple[str, ...]:
    """A collection of non-empty strings."""
    for item in (found := items(what, "strings", value)):
        if not isinstance(item, str):
            refuse(TypeError, what, "a collection of strings", item)
        if not item:
            refuse(ValueError, what, "a collection of non-empty strings", item)
    return found


def tokens(what: str, of: str, value: object) -> tuple[str, ...]:
    """A collection of RFC 9110 tokens, such as methods or field names."""
    for item in (found := items(what, of, value)):
        if not isinstance(item, str):
            refuse(TypeError, what, f"a collection of {of}", item)
        if not TOKEN.fullmatch(item):
            parts = TOKEN.findall(item)
            meant = repr(parts) if len(parts) > 1 and "," in item else None
            refuse(ValueError, what, f"a collection of {of}", item, meant=meant)
    return found


def header_name(what: str, value: object) -> istr:
    """The name of one header field."""
    if not isinstance(value, str):
        refuse(TypeError, what, "a header name", value)
    if not TOKEN.fullmatch(value):
        refuse(ValueError, what, "a header name", value)
    return istr(value)


def header_value(what: str, value: object) -> str:
    """The value of one header field, RFC 9110 5.5, in ASCII."""
    should = "the value of a header"
    if not isinstance(value, str):
        refuse(TypeError, what, should, value)
    if not _FIELD_VALUE.fullmatch(value):
        refuse(ValueError, what, should, value)
    return value


def methods(what: str, value: object) -> frozenset[str]:
    """A collection of HTTP methods, in upper case."""
    found = tokens(what, "HTTP methods", value)
    if "*" in found:
        refuse(ValueError, what, "a collection of HTTP methods", "*")
    return warn_of_unknown_methods(what, map(str.upper, found))


def exceptions(what: str, value: object) -> tuple[type[Exception], ...]:
    """An exception class or a collection of them, as ``except`` takes it."""
    classes = (value,) if isinstance(value, type) else value
    found = items(what, "exception classes", classes)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, Exception)):
            refuse(TypeError, what, "exception classes", item)
    return found


def statuses(what: str, value: object) -> frozenset[int]:
    """A collection of HTTP status codes."""
    for item in (found := items(what, "HTTP status codes", value)):
        if isinstance(item, bool) or not isinstance(item, int):
            refuse(TypeError, what, "a collection of HTTP status codes", item)
        if not 100 <= item <= 599:
            refuse(ValueError, what, "HTTP status codes, 100 to 599", item)
    return frozenset(found)


def secure_url(what: str, value: object) -> URL:
    """An absolute https URL; http for this machine only (RFC 8252 8.3)."""
    should = "an https URL"
    if not isinstance(value, str | URL):
        refuse(TypeError, what, should, value)
    try:
        url = URL(value)
        host = url.host
    except ValueError:
        # Not what came: nobody knows where a password ends in it.
        raise ValueError(f"{what} should be {should}") from None
    if url.raw_user is not None or url.raw_password is not None:
        # Which is not shown.
        raise ValueError(f"{what} should be {should} without userinfo")
    if not host or url.scheme not in ("http", "https"):
        refuse(ValueError, what, should, value)
    if url.scheme == "http" and not _is_loopback(host):
        refuse(
            ValueError,
            what,
            "an https URL (or one of this machine): whoever changes what "
            "comes by http can sign in as anybody",
            value,
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origins(what: str, value: object) -> Origins:
    """A collection of origins: strings, some with a ``*``, patterns, URLs."""
    of = "strings, patterns or URLs"
    found = Origins()
    for item in items(what, of, value):
        if isinstance(item, re.Pattern):
            if not isinstance(item.pattern, str):
                refuse(TypeError, what, "patterns for str", item)
            found.patterns.append(item)
            continue
        if not isinstance(item, str | URL):
            refuse(TypeError, what, f"a collection of {of}", item)
        text = str(item)
        if not found.add(text):
            refuse(
                ValueError,
                what,
                "origins such as 'https://example.com', "
                "'https://*.example.com' or 'http://localhost:*'",
                text,
                meant=origin_meant(text),
            )
    return found


def peers(what: str, value: object) -> tuple[list[Network], bool]:
    """A collection of networks, and whether unix sockets are among them."""
    of = "IP addresses, networks or 'unix'"
    found = items(what, of, value)
    networks = []
    for item in found:
        if item == "unix":
            continue
        if not isinstance(item, str | Address | Network):
            refuse(TypeError, what, f"a collection of {of}", item)
        network = parse_network(item)
        if network is None:
            refuse(
                ValueError,
                what,
                f"a collection of {of}",
                item,
                meant=network_meant(str(item)),
                advice="names are not resolved, and there is no '*': write "
                "the addresses or the network that they connect from, such "
                "as '172.16.0.0/12'",
            )
        networks.append(network)
    return networks, "unix" in found


# RFC 9110 16.1: the registry of IANA, and those of UPnP and of caches.
_METHODS = frozenset(
    TOKEN.findall("""
    ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD
    LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE
    MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY REBIND
    REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE
    UPDATEREDIRECTREF VERSION-CONTROL
    M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE BAN PURGE REFRESH
    """)
)


def warn_of_unknown_methods(
    what: str, methods: Iterable[str]
) -> frozenset[str]:
    """The methods; a warning for each that may be misspelt.

    One may have methods of one's own, so that it is no error.
    """
    found = frozenset(methods)
    for method in sorted(found - _METHODS):
        near = nearest(method, sorted(_METHODS))
        logger.warning(
            "%s has %r, which is no known HTTP method%s",
            what,
            method,
            f"; did you mean {near[0]!r}?" if near else "",
        )
    return found


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The one that was perhaps meant, if any is near enough."""
    # Nobody who makes no mistake needs it.
    from difflib import get_close_matches

    return get_close_matches(word, [*known], 1)
