r"""
================
Error middleware
================

Turns every exception into an error response, JSON unless told otherwise, by an
error handler of your choice: by URL, by status or by class of exception.

Usage
=====

.. code-block:: python

    import re

    from aiohttp import web
    from aiohttp_middlewares import (
        default_error_handler,
        error_context,
        error_middleware,
        problem_error_handler,
    )


    async def not_found(request: web.Request) -> web.Response:
        with error_context(request) as context:
            return web.Response(text="No such page", status=context.status)


    app = web.Application(
        middlewares=[
            error_middleware(
                default_handler=default_error_handler,
                config={
                    # The first entry that fits answers.
                    re.compile(r"^/api"): problem_error_handler,
                    404: not_found,
                    ZeroDivisionError: problem_error_handler,
                },
                ignore_exceptions=web.HTTPTooManyRequests,
            )
        ]
    )

Error handlers
==============

:func:`default_error_handler`
    ``{"detail": message}`` as JSON. The message of an unexpected exception
    is ``str(err)``, as it always was in this package: public services should
    not show that (CWE-209): use the next one there.
:func:`problem_error_handler`
    Problem details (RFC 9457), HTML or text, whichever the client accepts. Of
    an unexpected exception it tells no more than the status.
:func:`debug_error_handler`
    The traceback with its source, as HTML, text or JSON. For development.

What is logged
==============

Each answer once, whoever renders it, to ``aiohttp_middlewares.error``: 500 and
above as an error with its traceback, 4xx as information, nothing below 400. A
limit of :mod:`aiohttp_middlewares.timeout`, and what the middlewares of this
package answer with 502 or 503 because something is away or the load too high,
is a warning. The status that counts is that of the answer. A record has
``method``, ``path``, ``remote`` and ``status``, for formatters and filters;
what the client sent is cut and escaped there. ``log=False`` leaves logging to
the error handlers: use it with handlers that log.

Bad requests
============

JSON, forms, charsets, ranges, cookies … that turn out to be invalid while
aiohttp reads this request (``request.json()``, ``post()``, ``text()``,
``multipart()``, ``http_range`` …) are a 400. So is what a parser of your own
refuses with a ``ValueError``: ``request.json(loads=parse)``. What you read in
another way, such as ``json.loads(await request.text())``, is yours to handle;
otherwise it is a 500.

What is left alone
==================

Redirects and other raised answers below 400 pass unchanged. An answer keeps the
headers and cookies of the exception (``Allow``, ``WWW-Authenticate``,
``Retry-After`` …), and a body that you gave the exception is kept.

Once a response has started there is no second one: the error passes on to
aiohttp, which logs it and cuts the connection, so that the client sees that
something went wrong. A client that went away is not an error.

An exception group with a single exception in it, as task groups raise it,
counts as that one. A handler that returns no response has failed, too.

Order
=====

Inside of :mod:`aiohttp_middlewares.cors`, so that pages of other origins may
read the answers, and of :mod:`aiohttp_middlewares.proxy_headers`, which knows
who the client is; outside of everything that raises: timeouts, limits, your
own. What stands outside of it and raises gets aiohttp's plain answer.

Limits
======

It does not see what is raised outside of it, nor what is not HTTP at all. A
missing file is not an exception: ``web.FileResponse`` and ``add_static`` make
the 404, 403 or 416 themselves when they are sent, with an empty body. What
fails after the middlewares and before the first byte (an async generator as
``body``, ``on_response_prepare``, a header that cannot be sent) is answered by
nobody: aiohttp logs it and closes the connection. URL rules match whole paths,
in a sub-application too. ``request["error"]`` of older versions is
``request[REQUEST_ERROR_KEY]``, for as long as the error handler runs.
"""

import asyncio
import logging
from collections.abc import Mapping
from copy import copy
from typing import Any, NoReturn, TypeAlias

from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.failures import failed
from aiohttp_middlewares._core.grammar.fields import (
    VARY,
    add_elements,
    elements,
)
from aiohttp_middlewares._core.keys import REQUEST_ERROR_KEY
from aiohttp_middlewares._core.middleware import middleware, no_response
from aiohttp_middlewares._core.sending import (
    forget_interim,
    is_given_up,
    reset_when_cut,
    start_over,
    started,
)
from aiohttp_middlewares._core.statuses import (
    Foreseen,
    is_http,
    left,
    only_one,
    own_status,
)
from aiohttp_middlewares.annotations import ExceptionType, Handler, Middleware
from aiohttp_middlewares.error._choice import Choice, called, check_handler
from aiohttp_middlewares.error._context import (
    DEFAULT_EXCEPTION,
    ErrorContext,
    error_context,
    get_error_from_request,
    set_error_to_request,
)
from aiohttp_middlewares.error._debug import debug_error_handler
from aiohttp_middlewares.error._handlers import (
    default_error_handler,
    problem_error_handler,
)

__all__ = (
    "DEFAULT_EXCEPTION",
    "REQUEST_ERROR_KEY",
    "Config",
    "ErrorContext",
    "debug_error_handler",
    "default_error_handler",
    "error_context",
    "error_middleware",
    "get_error_from_request",
    "get_error_handler",
    "get_error_response",
    "problem_error_handler",
    "set_error_to_request",
)

logger: logging.Logger = logs.get_logger(__name__)

#: URLs (str, ``re.Pattern``, ``yarl.URL``), statuses and exception classes to
#: the error handler for them. (``Any``: a mapping is invariant in its keys, so
#: that ``dict[str, Handler]`` would not be one of a union to handlers.)
Config: TypeAlias = Mapping[Any, Handler]


def error_middleware(
    *,
    default_handler: Handler = default_error_handler,
    config: Config | None = None,
    ignore_exceptions: ExceptionType | tuple[ExceptionType, ...] | None = None,
    log: bool = True,
) -> Middleware:
    """Answer exceptions with what an error handler makes of them.

    :param default_handler:
        Answers whatever ``config`` has no entry for. By default:
        :func:`default_error_handler`. Error handlers are ``async``, and take
        the request.
    :param config:
        An ordered mapping to other error handlers; the first entry that fits
        answers. Its keys may be mixed: paths, patterns and URLs fit the path
        of the request, statuses (400 to 599) fit what the default handler
        would answer with, which is 500 for unexpected exceptions, and
        exception classes fit their instances. By default: none.
    :param ignore_exceptions:
        An exception class or several that are not answered but passed on. By
        default: none.
    :param log:
        Whether to log what was answered. By default: True. What an error
        handler failed with is logged always.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an entry of ``config`` can never fit.
    """
    what = "error_middleware"
    check_handler(f"{what} default_handler", default_handler)
    choice = None if config is None else Choice(f"{what} config", config)
    ignored = options.exceptions(
        f"{what} ignore_exceptions",
        () if ignore_exceptions is None else ignore_exceptions,
    )
    options.flag(f"{what} log", log)

    # Those for errors of any URL.
    others = () if choice is None else choice.others

    @middleware(handlers=(default_handler, *(item[-1] for item in others)))
    async def error(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if request.writer.output_size:
            forget_interim(request)
        # It is nearly always this very object.
        version = request.version
        if version is not HttpVersion11 and version < HttpVersion11:
            reset_when_cut(request)
        try:
            response = await handler(request)
            # What aiohttp itself looks for is the method. Most are of this
            # very class, which is quickly told.
            if response.__class__ is web.Response or hasattr(
                response, "prepare"
            ):
                return response
            raise no_response(handler, response)
        except Exception as err:
            if started(request) and (
                # Somebody else has answered, and tells of it.
                is_given_up(request) or _is_for_aiohttp(request, err)
            ):
                raise
            return await get_error_response(
                request,
                err,
                default_handler=default_handler,
                config=choice,
                ignore_exceptions=ignored,
                log=log,
            )

    return error


async def get_error_response(
    request: web.Request,
    err: Exception,
    *,
    default_handler: Handler = default_error_handler,
    config: "Config | Choice | None" = None,
    ignore_exceptions: ExceptionType | tuple[ExceptionType, ...] | None = None,
    log: bool = True,
) -> web.StreamResponse:
    """Answer one exception, for error middlewares of your own.

    .. code-block:: python

        from aiohttp import web
        from aiohttp_middlewares import get_error_response
        from aiohttp_middlewares.annotations import Handler


        @web.middleware
        async def errors(
            request: web.Request, handler: Handler
        ) -> web.StreamResponse:
            try:
                response = await handler(request)
                response.headers["X-Checked"] = "yes"
                return response
            except Exception as err:
                return await get_error_response(request, err)

    :param request: The request that failed.
    :param err: What was raised.
    :param default_handler: As for :func:`error_middleware`.
    :param config: As for :func:`error_middleware`.
    :param ignore_exceptions: As for :func:`error_middleware`.
    :param log: As for :func:`error_middleware`.
    :raises ConnectionAbortedError:
        A response has started, and there can be no second one. Let it pass:
        aiohttp then closes the connection.
    :raises Exception:
        ``err`` itself when it is to be ignored, or is a raised answer below
        400, such as a redirect.
    """
    whole, err = err, only_one(err)
    try:
        if left(request, err):
            # For the access log: what nginx writes for it.
            return web.Response(status=499, reason="Client Closed Request")
        if started(request):
            failed(request, err)
            _abort(request, whole, log)
        start_over(request.writer)
        if ignore_exceptions and isinstance(err, ignore_exceptions):
            _pass_on(err)
        if is_http(err) and err.status < 400:
            _pass_on(err)

        set_error_to_request(request, err)
        try:
            handler = get_error_handler(request, config) or default_handler
            try:
                response = await called(handler, request)
            except Exception as exc:
                if started(request):
                    _abort(request, exc, True)
                if is_http(exc):
                    # An answer as well: a redirect to the login page.
                    if log:
                        _log(request, whole, exc.status)
                    raise
                log = True
                _log_failed_handler(request, exc)
                response = await default_error_handler(request)
        finally:
            try:
                del request[REQUEST_ERROR_KEY]
            except KeyError:
                pass  # the handler has taken it
        if not is_http(err) and getattr(response, "status", 0) >= 500:
            failed(request, err)
        if log:
            _log(request, whole, response.status)
        if is_http(err) and response is not err:
            _keep(err, response)
            if err is request.match_info.http_exception:
                # The 404 or 405 of the router is held by the request, or by
                # all of them.
                err.__traceback__ = None
        return response
    finally:
        # Its traceback refers to frames that refer to it: a cycle that would
        # keep all that the request held until the next garbage collection.
        del err, whole


def get_error_handler(
    request: web.Request, config: "Config | Choice | None"
) -> Handler | None:
    """The error handler for the error that was stored in the request."""
    if not config:
        return None
    if not isinstance(config, Choice):
        config = Choice("config", config)
    return config.handler(request, get_error_from_request(request))


def _is_for_aiohttp(request: web.Request, err: Exception) -> bool:
    """Whether aiohttp, once a response has started, cuts the connection.

    And logs the error as what it is. But it would write an ``HTTPException``
    into the body, and does not tell what a ``TimeoutError`` was.
    """
    return not (
        is_http(err)
        or isinstance(err, asyncio.TimeoutError)
        or left(request, err)
    )


def _abort(request: web.Request, err: Exception, log: bool) -> NoReturn:
    if isinstance(err, ConnectionAbortedError):
        raise err  # an error middleware further in has been here
    if log:
        # As what it is: aiohttp names the other one.
        facts = logs.facts(request)
        logger.error(
            "%(method)s %(path)s failed after its response had started",
            facts,
            exc_info=err,
            extra=facts,
        )
    raise ConnectionAbortedError(
        "The handler failed after its response had started"
    ) from err


def _pass_on(err: Exception) -> NoReturn:
    context = err.__context__
    try:
        raise err
    finally:
        # Not the group that it came in, which refers to it.
        err.__context__ = context
        del err


def _log_failed_handler(request: web.Request, exc: Exception) -> None:
    facts = logs.facts(request)
    logger.error(
        "The error handler for %(method)s %(path)s failed",
        facts,
        exc_info=exc,  # which names the error it was called for
        extra=facts,
    )


def _log(request: web.Request, err: Exception, status: int) -> None:
    """Tell what was answered."""
    level = logging.ERROR if status >= 500 else logging.INFO
    if isinstance(err, Foreseen) or (
        status == 504
        and isinstance(err, asyncio.TimeoutError)
        and own_status(request, err) == status
    ):
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
        exc_info=(
            err
            if level >= logging.WARNING and not isinstance(err, Foreseen)
            else None
        ),
        extra=facts,
    )


#: What belongs to the body of the exception, not to the answer.
_BODY_HEADERS = CIMultiDict(
    (name, "")
    for name in (
        hdrs.CONTENT_ENCODING,
        hdrs.CONTENT_LENGTH,
        hdrs.CONTENT_TYPE,
        hdrs.TRANSFER_ENCODING,
    )
)


def _keep(err: web.HTTPException, response: web.StreamResponse) -> None:
    """Give the answer what the exception bore, as far as it says no other."""
    if response.prepared:
        return
    given = response.headers.copy()
    for name, value in err.headers.items():
        if name in _BODY_HEADERS:
            continue
        if name.lower() == "vary":
            add_elements(response.headers, VARY, elements([value]))
        elif name not in given:
            response.headers.add(name, value)
    for name, morsel in err.cookies.items():
        if name not in response.cookies:
            # A copy, as the exception may be raised again.
            response.cookies[name] = copy(morsel)
    if getattr(err, "keep_alive", None) is False:
        response.force_close()
