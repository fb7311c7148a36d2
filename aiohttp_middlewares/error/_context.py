"""What there is to say of an error."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web

from aiohttp_middlewares._core.keys import REQUEST_ERROR_KEY
from aiohttp_middlewares._core.statuses import (
    attribute,
    is_http,
    status_of,
)

DEFAULT_EXCEPTION = Exception("Unhandled aiohttp-middlewares exception.")


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """What :func:`error_context` gives."""

    err: Exception
    message: str  #: never empty
    status: int
    data: Any  #: to be sent as JSON


@contextmanager
def error_context(request: web.Request) -> Iterator[ErrorContext]:
    """What an error handler has to know, for use inside of one.

    :param request: The request that the error handler was called with.

    The context has the error itself, ``err``; its ``message``: ``err.message``
    when that is a string, a plain text given to an ``HTTPException``,
    ``str(err)``, or else the phrase of the status; the ``status`` to answer
    with, 500 unless the error says otherwise; and the ``data`` to send:
    ``err.data`` when it can be written as JSON, else ``{"detail": message}``.
    """
    context = context_of(request)
    try:
        yield context
    finally:
        del context  # the traceback of the error may refer to this frame


def context_of(request: web.Request) -> ErrorContext:
    """What :func:`error_context` gives."""
    err, message, status, data = describe(request)
    if data is None:
        data = {"detail": message}
    return ErrorContext(err=err, message=message, status=status, data=data)


def describe(request: web.Request) -> tuple[Exception, str, int, Any]:
    """The error, its message, status and own data, if any."""
    err = get_error_from_request(request)
    status = status_of(request, err)
    return err, _message(err, status), status, own_data(err)


def get_error_from_request(request: web.Request) -> Exception:
    """The error that an error handler is called for.

    :data:`DEFAULT_EXCEPTION` when there is none.
    """
    err: Exception | None = request.get(REQUEST_ERROR_KEY)
    return DEFAULT_EXCEPTION if err is None else err


def set_error_to_request(request: web.Request, err: Exception) -> Exception:
    """Store the error where :func:`error_context` looks for it."""
    request[REQUEST_ERROR_KEY] = err
    return err


def own_data(err: Exception) -> Any:
    """``err.data``, where it can be written as JSON, else None."""
    data = attribute(err, "data")
    if data is not None:
        try:
            json.dumps(data, allow_nan=False)
        except Exception:  # by whatever is inside
            return None
    return data


def own_text(err: Exception) -> str | None:
    """The plain text that a developer gave to an ``HTTPException``."""
    given = _Given.to(err)
    return None if given is None else given.plain_text()


def own_body(err: Exception) -> web.Response | None:
    """A body of any other type that was given to an ``HTTPException``."""
    given = _Given.to(err)
    if given is None or given.plain_text() is not None:
        return None
    return given.response()


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Server Error" if status >= 500 else "Client Error"


def _message(err: Exception, status: int) -> str:
    message = attribute(err, "message")
    if isinstance(message, str) and message.strip():
        return message
    try:
        message = own_text(err) or str(err)
    except Exception:  # a __str__ that fails
        message = ""
    return message if message.strip() else phrase(status)


class _Given(NamedTuple):
    """An ``HTTPException`` with a body that a developer gave to it.

    From aiohttp 4 on it is no response any more: it has a text at most, and
    neither ``body`` nor ``content_type``, ``charset`` or ``compression``.
    """

    err: web.HTTPException
    body: Any

    @classmethod
    def to(cls, err: Exception) -> "_Given | None":
        if not is_http(err):
            return None
        try:
            body: Any = err.body
        except AttributeError:
            body = (err.text or "").encode("utf-8", "backslashreplace")
        # What aiohttp gives to those that got none.
        if not body or body == f"{err.status}: {err.reason}".encode():
            return None
        return cls(err, body)

    def plain_text(self) -> str | None:
        kind = self.err.headers.get("Content-Type", "")
        if kind.partition(";")[0].strip().lower() != "text/plain":
            return None
        if not isinstance(self.body, bytes | bytearray):
            return None  # something that may have to be awaited
        try:
            return self.err.text
        except (UnicodeDecodeError, LookupError):
            return None  # not in its charset, or that is unknown

    def response(self) -> web.Response:
        headers = self.err.headers
        response = web.Response(
            status=self.err.status,
            body=self.body,
            headers={
                name: headers[name]
                for name in ("Content-Type", "Content-Encoding")
                if name in headers
            },
        )
        if getattr(self.err, "compression", False):
            response.enable_compression()
        return response
