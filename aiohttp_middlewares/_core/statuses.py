"""The status that an exception is answered with, if it is answered at all."""

import builtins
from typing import Any, TypeGuard

from aiohttp import ClientConnectionResetError, ClientError, web
from aiohttp.web import HTTPException

from aiohttp_middlewares._core.misread import misread


class Group(BaseException):
    """The shape of exception groups, for Python 3.10, which has none."""

    exceptions: tuple[Any, ...]


#: What a ``TaskGroup`` raises, from Python 3.11 on.
GROUP: type[Group] = getattr(builtins, "BaseExceptionGroup", Group)


class OutOfTime:
    """Marks an error that is the end of the request's own time limit.

    Also one of aiohttp's client, whose other errors say nothing of the
    request: the visitor is told what the limit itself would have told.
    """

    status = 504
    message = "Request timed out"


class Foreseen:
    """Marks an answer of 500 or more that is no fault of the application.

    Whoever raises it has told what the operator has to know.
    """


class Rendered:
    """Marks an answer with a page of its own, made for this client's Accept.

    An error handler that renders by ``Accept`` itself sends it as it is.
    """


class Unavailable(Foreseen, web.HTTPServiceUnavailable):
    """503: a load that is too high, or something else that is away."""


def is_http(err: Exception) -> TypeGuard[web.HTTPException]:
    # isinstance() takes long for a class that has an abstract base.
    return HTTPException in type(err).__mro__


def only_one(err: Exception) -> Exception:
    """What a group of one, as task groups raise it, is about."""
    while isinstance(err, GROUP) and len(err.exceptions) == 1:
        err = err.exceptions[0]
    return err


def left(request: web.Request, err: Exception) -> bool:
    """Whether it failed because there is nobody at the other end."""
    transport = request.transport
    # A write that fails closes it; only the event loop's next turn removes it.
    # (That of aiohttp's mocked request is never closing.)
    if transport is not None and transport.is_closing() is not True:
        return False
    if isinstance(err, GROUP):
        return all(left(request, part) for part in err.exceptions)
    return (
        isinstance(err, ClientConnectionResetError)
        or type(err) is ConnectionError  # of a write that waited to go on
        or err is request.content.exception()
    )


def status_of(request: web.Request, err: Exception) -> int:
    """The status to answer with."""
    if is_http(err):
        return err.status
    status = own_status(request, err)
    return 500 if status is None else status


def own_status(request: web.Request, err: Exception) -> int | None:
    """``err.status``, where that is the status of an answer of ours.

    That another server refused our own request (``aiohttp.ClientError``) says
    nothing about the visitor's. But what the visitor sent and aiohttp cannot
    read does.
    """
    status = attribute(err, "status")
    if (
        isinstance(status, int)
        and 400 <= status <= 599
        and not (
            isinstance(err, ClientError) and not isinstance(err, OutOfTime)
        )
    ):
        return int(status)
    if isinstance(err, web.RequestPayloadError) or misread(request, err):
        return 400
    return None


def attribute(err: Exception, name: str) -> Any:
    try:
        return getattr(err, name, None)
    except Exception:  # a property that fails
        return None
