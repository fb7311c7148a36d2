"""An answer that can be given again."""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from aiohttp import hdrs, web
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core.payloads import value_of
from aiohttp_middlewares._core.statuses import attribute

REPLAYED = istr("Idempotent-Replayed")

#: Below 500, and yet no answer to the request itself: who asks, how often and
#: when may be another thing the next time.
_PASSING = frozenset((401, 403, 408, 409, 425, 429))

#: RFC 9110 7.6.1, and what older texts have there. Cookies are not for whoever
#: repeats a request.
_NOT_KEPT = CIMultiDict(
    (name, "")
    for name in (
        *(hdrs.CONNECTION, hdrs.KEEP_ALIVE, "Proxy-Connection"),
        *(hdrs.PROXY_AUTHENTICATE, hdrs.PROXY_AUTHORIZATION),
        *(hdrs.TE, hdrs.TRAILER, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE),
        *(hdrs.SET_COOKIE, "Set-Cookie2"),
    )
)


def is_final(status: int) -> bool:
    """Whether another attempt would be answered the same way."""
    return status < 500 and status not in _PASSING


class Answer(NamedTuple):
    """Of a ``web.Response``, or of an ``HTTPException`` that was raised."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    #: aiohttp's own compression: None, a coding, or "" for what is asked for.
    compression: str | None
    #: Of one that was raised: what its error page shows, as JSON.
    raised: str | None

    @classmethod
    def of(cls, response: object, limit: int) -> "Answer | None":
        """``None`` where it cannot be kept: a stream, a file, a large body."""
        if not isinstance(response, web.Response):
            return None
        body = response.body
        if isinstance(body, BytesPayload):  # of a text or a memoryview
            value = value_of(body)
            body = body if value is None else bytes(value)
        if body is not None and (
            not isinstance(body, bytes | bytearray) or len(body) > limit
        ):
            return None
        headers = _kept(response.headers)
        if not all(isinstance(value, str) for _, value in headers):
            return None  # nobody can send it
        compression = None
        if response.compression:
            force = getattr(response, "_compression_force", None)
            compression = "" if force is None else force.value
        return cls(
            response.status,
            response.reason,
            headers,
            None if body is None else bytes(body),
            compression,
            None,
        )

    @classmethod
    def of_raised(cls, exc: web.HTTPException, limit: int) -> "Answer | None":
        answer: object = exc
        if not isinstance(answer, web.Response):
            # From aiohttp 4 on it makes one of it.
            answer = web.Response(
                status=exc.status,
                reason=exc.reason,
                text=exc.text,
                headers=exc.headers,
            )
        found = cls.of(answer, limit)
        if found is None:
            return None
        return found._replace(raised=json.dumps(_shown(exc)))

    def again(self) -> web.Response:
        """The same answer, to be returned or raised as the first was."""
        if self.raised is None:
            response = web.Response(
                status=self.status,
                reason=self.reason,
                headers=CIMultiDict(self.headers),
                body=self.body,
            )
        else:
            response = self._exception()
        response.headers[REPLAYED] = "true"
        if self.compression is not None:
            response.enable_compression(
                web.ContentCoding(self.compression)
                if self.compression
                else None
            )
        return response

    def _exception(self) -> web.Response:
        kind = _class_of(self.status)
        # Not by its own __init__, of which each may take other arguments.
        exc: Any = kind.__new__(kind)
        if issubclass(kind, web.Response):
            web.HTTPException.__init__(exc, reason=self.reason)
            exc.body = self.body
        else:  # from aiohttp 4 on
            text = None
            if self.body is not None:
                text = web.Response(
                    body=self.body, headers=CIMultiDict(self.headers)
                ).text
            web.HTTPException.__init__(exc, reason=self.reason, text=text)
        exc.headers.clear()
        exc.headers.extend(self.headers)
        if hdrs.LOCATION in exc.headers:
            exc.location = exc.headers[hdrs.LOCATION]
        for name, value in json.loads(self.raised or "{}").items():
            setattr(exc, name, value)
        response: web.Response = exc
        return response


def _kept(headers: CIMultiDict[str]) -> tuple[tuple[str, str], ...]:
    dropped = _NOT_KEPT
    named = headers.getall(hdrs.CONNECTION, None)
    if named is not None:
        # What a connection header names is for the next hop only, too.
        dropped = dropped.copy()
        for line in named:
            dropped.extend((name.strip(), "") for name in line.split(","))
    return tuple(
        (name, value) for name, value in headers.items() if name not in dropped
    )


def _shown(exc: web.HTTPException) -> dict[str, Any]:
    """What an exception may say beside its body: see ``error_context()``."""
    found: dict[str, Any] = {}
    for name in ("message", "data"):
        value = attribute(exc, name)
        if value is None:
            continue
        try:
            json.dumps(value, allow_nan=False)
        except Exception:  # by whatever is inside: nobody can show it
            continue
        found[name] = value
    return found


#: aiohttp's own, by their status. (To ask abstract classes for their
#: subclasses would take longer than to import all else in here.)
_CLASSES: Mapping[int, type[web.HTTPException]] = MappingProxyType(
    {
        kind.status_code: kind
        for kind in vars(web).values()
        if web.HTTPException in getattr(kind, "__mro__", ())
        and kind.status_code > 0
    }
)
_BASES = {
    2: web.HTTPSuccessful,
    3: web.HTTPRedirection,
    4: web.HTTPClientError,
}


@lru_cache(maxsize=64)
def _class_of(status: int) -> type[web.HTTPException]:
    if status in _CLASSES:
        return _CLASSES[status]
    base = _BASES.get(status // 100, web.HTTPException)
    return type(base.__name__, (base,), {"status_code": status})
