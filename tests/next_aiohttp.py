"""What aiohttp 3.15 and 4 do in another way, in the aiohttp that is here.

For ``test_next.py``. Each of these changes was found in the source of what
comes next, where it broke something of ours. They are as small as can be: of
a change there is what a middleware may see of it.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web, web_exceptions, web_protocol, web_urldispatcher
from hidden import hide
from multidict import CIMultiDict
from yarl import URL

# aiohttp 3.15
# ============


SOMEWHERE = URL("/nowhere")


def cut_raw_path(request: web.BaseRequest) -> str:
    """Of ``GET http://a.example/x`` it is ``/x``."""
    path = request._message.path
    if "://" in path and not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path


# aiohttp 4: requests
# ===================


class JoinedHeaders(Mapping[str, str]):
    """``request.headers``: lines of one name are joined."""

    def __init__(self, fields: "CIMultiDict[str]") -> None:
        self.fields = fields

    def __getitem__(self, name: str) -> str:
        return ", ".join(self.fields.getall(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self.fields))

    def __len__(self) -> int:
        return len(set(self.fields))

    def getall(self, name: str) -> tuple[str, ...]:
        """The elements of a list, not the lines; it takes no default."""
        found = self.get(name, "").split(",")
        return tuple(item.strip(' "') for item in found if item.strip())


def joined_headers(request: web.BaseRequest) -> JoinedHeaders:
    """The same object each time."""
    cache: dict[str, Any] = request._cache
    found: JoinedHeaders = cache.setdefault(
        "joined headers", JoinedHeaders(CIMultiDict(request._headers))
    )
    return found


# aiohttp 4: exceptions
# =====================


class HTTPException(Exception):
    """It is no response."""

    status_code = -1
    empty_body = False
    default_reason = ""

    def __init__(
        self,
        *,
        headers: Any = None,
        reason: str | None = None,
        text: str | None = None,
        content_type: str | None = None,
    ) -> None:
        super().__init__()
        self._reason = self.default_reason if reason is None else reason
        if text is None and not self.empty_body:
            text = f"{self.status_code}: {self._reason}"
        self._text = text
        self._headers: CIMultiDict[str] = CIMultiDict(headers or ())
        if content_type is not None:
            self._headers["Content-Type"] = content_type
        elif text:
            self._headers.setdefault("Content-Type", "text/plain")
        jar = web.Response()
        self.cookies = jar.cookies
        self.set_cookie = jar.set_cookie
        self.del_cookie = jar.del_cookie

    status = property(lambda self: self.status_code)
    reason = property(lambda self: self._reason)
    text = property(lambda self: self._text)
    headers = property(lambda self: self._headers)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        return self._reason


def moved(self: Any, location: Any, **options: Any) -> None:
    HTTPException.__init__(self, **options)
    self.headers["Location"] = str(location)
    self.location = location


def not_allowed(self: Any, method: str, allowed: Any, **options: Any) -> None:
    HTTPException.__init__(self, **options)
    self.headers["Allow"] = ",".join(sorted(allowed))
    self.method, self.allowed_methods = method, set(allowed)


def too_large(self: Any, max_size: int, **options: Any) -> None:
    HTTPException.__init__(
        self, **{"text": f"More than {max_size} bytes", **options}
    )


def blocked(self: Any, link: Any, **options: Any) -> None:
    HTTPException.__init__(self, **options)
    self.link = link


MADE = {
    "HTTPMove": moved,
    "HTTPMethodNotAllowed": not_allowed,
    "HTTPRequestEntityTooLarge": too_large,
    "HTTPUnavailableForLegalReasons": blocked,
}


def exceptions() -> dict[type, type]:
    """The classes of this aiohttp, and what takes their place."""
    found: dict[type, type] = {web.HTTPException: HTTPException}

    def of(old: type[Any]) -> type:
        if old not in found:
            names: dict[str, Any] = {
                name: vars(old)[name]
                for name in ("status_code", "empty_body", "__module__")
                if name in vars(old)
            }
            if old.__name__ in MADE:
                names["__init__"] = MADE[old.__name__]
            if old.status_code > 0:
                # Of aiohttp's own only: who derives one has none.
                names["default_reason"] = web.Response(
                    status=old.status_code
                ).reason
            found[old] = type(
                old.__name__, tuple(of(base) for base in old.__bases__), names
            )
        return found[old]

    for value in vars(web_exceptions).values():
        if isinstance(value, type) and issubclass(value, web.HTTPException):
            of(value)
    return found


def shape_exceptions(patch: pytest.MonkeyPatch) -> None:
    classes = exceptions()
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] != "aiohttp":
            continue
        for attribute, value in [*vars(module).items()]:
            if isinstance(value, type) and value in classes:
                patch.setattr(module, attribute, classes[value])

    # One and the same for all requests.
    not_found = web.HTTPNotFound()
    patch.setattr(web_urldispatcher, "HTTPNotFound", lambda: not_found)

    # What read the body says a size that the class does not take any more.
    def entity_too_large(max_size: int, actual_size: int = 0) -> Any:
        return web.HTTPRequestEntityTooLarge(max_size)

    patch.setattr(
        aiohttp.web_request, "HTTPRequestEntityTooLarge", entity_too_large
    )

    finish = web_protocol.RequestHandler.finish_response

    async def finish_response(
        self: Any, request: Any, answer: Any, *rest: Any
    ) -> Any:
        if isinstance(answer, HTTPException):
            response = web.Response(
                status=answer.status,
                reason=answer.reason,
                text=answer.text,
                headers=answer.headers,
            )
            response._cookies = answer.cookies
            answer = response
        return await finish(self, request, answer, *rest)

    patch.setattr(
        web_protocol.RequestHandler, "finish_response", finish_response
    )


def shape_parse_errors(patch: pytest.MonkeyPatch) -> None:
    """What cannot be parsed passes the middlewares, as a 400 of the router."""
    resolve = web_urldispatcher.UrlDispatcher.resolve

    def _make_error_handler(self: Any, error: Any) -> Any:
        async def handler(request: Any) -> Any:
            request._cache["unparsable"] = web.HTTPBadRequest(text="unparsable")
            return await self._request_handler(request)

        return handler

    async def resolve_or_refuse(self: Any, request: Any) -> Any:
        refused = request._cache.get("unparsable")
        if refused is not None:
            return web_urldispatcher.MatchInfoError(refused)
        return await resolve(self, request)

    patch.setattr(
        web_protocol,
        "ERROR",
        web_protocol.ERROR._replace(
            headers=JoinedHeaders(CIMultiDict()),  # type: ignore[arg-type]
            raw_headers=(),
        ),
    )
    patch.setattr(
        web_protocol.RequestHandler, "_make_error_handler", _make_error_handler
    )
    patch.setattr(web_urldispatcher.UrlDispatcher, "resolve", resolve_or_refuse)


def middleware(function: Any) -> Any:
    warnings.warn("not needed any more", DeprecationWarning, stacklevel=2)
    function.__middleware_version__ = 1
    return function


# The client's
# ============


def shape_client(patch: pytest.MonkeyPatch) -> None:
    names = ("update_cookies", "update_expect_continue")
    for name in names:
        method = vars(aiohttp.ClientRequest)[name]
        patch.setattr(aiohttp.ClientRequest, f"_{name}", method, raising=False)
    hide(patch, aiohttp.ClientRequest, *names)  # aiohttp 3 itself calls them

    def headers(response: aiohttp.ClientResponse) -> Any:
        asking = sys._getframe(1).f_globals["__name__"]
        if asking.startswith("aiohttp_middlewares"):
            return JoinedHeaders(CIMultiDict(response._headers))
        return response._headers

    patch.setattr(aiohttp.ClientResponse, "headers", property(headers))


def shape(patch: pytest.MonkeyPatch) -> None:
    """All of the server's."""
    patch.setattr(web.BaseRequest, "raw_path", property(cut_raw_path))
    patch.setattr(web.BaseRequest, "headers", property(joined_headers))
    patch.setattr(web, "middleware", middleware)
    shape_exceptions(patch)
    shape_parse_errors(patch)
