"""What to compress, and how: by the answer and by what the client accepts."""

from collections.abc import Callable

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.caching import remembered
from aiohttp_middlewares._core.grammar.fields import (
    TOKEN,
    VARY,
    add_elements,
    elements,
    weighted,
)
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares.annotations import StrCollection


class Plan:
    """Which encoding an answer gets, if any, and ``Vary`` with it."""

    def __init__(
        self,
        encodings: tuple[str, ...],
        minimum_size: int,
        is_compressible: Callable[[str], bool],
    ) -> None:
        # An empty body gets larger, whatever the minimum.
        self.minimum_size = max(minimum_size, 1)
        # Handlers send few different values.
        self.is_compressible = remembered(is_compressible, size=256)
        # Clients send few different values.
        self.accepted = remembered(Negotiation(encodings), size=256)

    def __call__(
        self, asked: "Asked", status: int, headers: CIMultiDict[str]
    ) -> str | None:
        if status == _NOT_MODIFIED:
            _revalidate(asked, headers)
            return None
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if (
            status < 200  # after 101 it is no HTTP
            or content_type is None
            or not self.is_compressible(content_type)
            or (hdrs.CACHE_CONTROL in headers and _is_fixed(headers))
        ):
            return None
        _vary(headers)
        size = headers.get(hdrs.CONTENT_LENGTH)
        if (
            (size is not None and int(size) < self.minimum_size)
            or status in _WITHOUT_WHOLE_BODY
            or asked.head
            or hdrs.CONTENT_ENCODING in headers
            or hdrs.CONTENT_RANGE in headers
        ):
            return None
        wanted = lines(asked, hdrs.ACCEPT_ENCODING)
        encoding = self.accepted(",".join(wanted)) if wanted else None
        if asked.stays_open and asked.version < HttpVersion11:
            return None
        return encoding


class Asked:
    """What counts of a request, without the request.

    A job that waits for the answer must not hold it.
    """

    __slots__ = ("head", "headers", "raw_headers", "stays_open", "version")

    def __init__(self, request: web.Request) -> None:
        self.head = request.method == hdrs.METH_HEAD
        self.headers = request.headers
        self.raw_headers = request.raw_headers
        self.version = request.version
        self.stays_open = request.keep_alive


_NOT_MODIFIED = 304
_WITHOUT_WHOLE_BODY = {204, 205, 206}


class Types:
    """Whether a ``Content-Type`` is one to compress."""

    def __init__(self, what: str, content_types: StrCollection) -> None:
        should = "content types such as 'text/*', 'text/html' or '+json'"
        self.exact: set[str] = set()
        self.majors: set[str] = set()
        suffixes = []
        for item in options.strings(what, content_types):
            rule = item.strip().lower()
            major, _, minor = rule.partition("/")
            if rule.startswith("+") and TOKEN.fullmatch(rule):
                suffixes.append(rule)
            elif not (TOKEN.fullmatch(major) and TOKEN.fullmatch(minor)):
                meant = None
                if ";" in rule:
                    meant = repr(rule.partition(";")[0].strip())
                options.refuse(
                    ValueError,
                    what,
                    f"a collection of {should}",
                    item,
                    meant=meant,
                )
            elif minor == "*":
                self.majors.add(major)
            else:
                self.exact.add(rule)
        self.suffixes = tuple(suffixes)

    def __call__(self, content_type: str) -> bool:
        kind = content_type.partition(";")[0].strip().lower()
        if kind in self.exact:
            return True
        # Proxies and clients tend to hold back events that are compressed.
        if kind == "text/event-stream":
            return False
        return kind.partition("/")[0] in self.majors or (
            kind.endswith(self.suffixes)
        )


class Negotiation:
    """The best of our encodings by ``Accept-Encoding``: RFC 9110 12.5.3."""

    def __init__(self, encodings: tuple[str, ...]) -> None:
        self.encodings = encodings

    def __call__(self, accept: str) -> str | None:
        weights = dict(weighted([accept]))
        if "x-gzip" in weights:  # RFC 9110 8.4.1.3: the same
            weights.setdefault("gzip", weights["x-gzip"])
        others = weights.get("*", 0.0)
        # Of equals the first is taken. Unless it is named, no encoding at all
        # is the last choice, but always a choice.
        best, encoding = weights.get("identity", others), None
        for offer in reversed(self.encodings):
            weight = weights.get(offer, others)
            if weight > 0 and weight >= best:
                best, encoding = weight, offer
        return encoding


def _is_fixed(headers: CIMultiDict[str]) -> bool:
    # RFC 9111 5.2.2.6
    return any(
        directive.lower() == "no-transform"
        for directive in elements(headers.getall(hdrs.CACHE_CONTROL))
    )


def _vary(headers: CIMultiDict[str]) -> None:
    if headers.setdefault(VARY, "Accept-Encoding") != "Accept-Encoding":
        add_elements(headers, VARY, ("Accept-Encoding",))


def _revalidate(asked: Asked, headers: CIMultiDict[str]) -> None:
    """A 304 names what the client has as the 200 had it: RFC 9110 15.4.5."""
    etag = headers.get(hdrs.ETAG)
    if etag is None:
        return
    known = elements(lines(asked, hdrs.IF_NONE_MATCH))
    if f"W/{etag}" in known and etag not in known:
        etag = headers[hdrs.ETAG] = f"W/{etag}"
    if etag.startswith("W/"):  # which stays as it is for what is compressed
        _vary(headers)
