"""What there is to say of an error."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeGuard

from aiohttp import ClientError, web
from aiohttp.web import HTTPException

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.keys import REQUEST_ERROR_KEY

DEFAULT_EXCEPTION = Exception("Unhandled aiohttp-middlewares exception.")

logger = logging.getLogger("aiohttp_middlewares.error")


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
    status = status_of(err)
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


def is_http(err: Exception) -> TypeGuard[web.HTTPException]:
    # isinstance() takes long for a class that has an abstract base.
    return HTTPException in type(err).__mro__


def status_of(err: Exception) -> int:
    """The status to answer with."""
    if is_http(err):
        return err.status
    status = own_status(err)
    return 500 if status is None else status


def own_status(err: Exception) -> int | None:
    """``err.status``, where that is the status of an answer of ours.

    That another server refused our own request (``aiohttp.ClientError``) says
    nothing about the visitor's. But a body that cannot be decoded does.
    """
    if isinstance(err, web.RequestPayloadError):
        return 400
    status = _attribute(err, "status")
    if (
        isinstance(status, int)
        and 400 <= status <= 599
        and not isinstance(err, ClientError)
    ):
        return int(status)
    return None


def own_data(err: Exception) -> Any:
    """``err.data``, where it can be written as JSON, else None."""
    data = _attribute(err, "data")
    if data is not None:
        try:
            json.dumps(data, allow_nan=False)
        except Exception:  # by whatever is inside
            return None
    return data


def own_text(err: Exception) -> str | None:
    """The plain text that a developer gave to an ``HTTPException``."""
    if not _has_own_body(err) or err.content_type != "text/plain":
        return None
    if not isinstance(err.body, bytes | bytearray):
        return None  # something that may have to be awaited
    try:
        return err.text
    except (UnicodeDecodeError, LookupError):  # not in its charset, or unknown
        return None


def own_body(err: Exception) -> web.Response | None:
    """A body of any other type that was given to an ``HTTPException``."""
    if not _has_own_body(err) or own_text(err) is not None:
        return None
    response = web.Response(
        status=err.status,
        body=err.body,
        headers={
            name: err.headers[name]
            for name in ("Content-Type", "Content-Encoding")
            if name in err.headers
        },
    )
    if err.compression:
        response.enable_compression()
    return response


def log_error(request: web.Request, err: Exception, status: int) -> None:
    """As the shipped handlers do."""
    level = logging.ERROR if status >= 500 else logging.INFO
    if status == 504 and isinstance(err, asyncio.TimeoutError):
        # The limit of a middleware: half an upload is enough to reach it, and
        # no client shall write errors to the log.
        level = logging.WARNING
    if status < 400 or not logger.isEnabledFor(level):
        return
    facts = logs.facts(request, status=status)
    logger.log(
        level,
        "%s %s failed with %s",
        facts["method"],
        facts["path"],
        status,
        exc_info=err if level >= logging.WARNING else None,
        extra=facts,
    )


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Server Error" if status >= 500 else "Client Error"


def _message(err: Exception, status: int) -> str:
    message = _attribute(err, "message")
    if isinstance(message, str) and message.strip():
        return message
    try:
        message = own_text(err) or str(err)
    except Exception:  # a __str__ that fails
        message = ""
    return message if message.strip() else phrase(status)


def _has_own_body(err: Exception) -> TypeGuard[web.HTTPException]:
    if not is_http(err) or not err.body:
        return False
    # What aiohttp gives to those that got none.
    return err.body != f"{err.status}: {err.reason}".encode()


def _attribute(err: Exception, name: str) -> Any:
    try:
        return getattr(err, name, None)
    except Exception:  # a property that fails
        return None
