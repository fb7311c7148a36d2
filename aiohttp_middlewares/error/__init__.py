r"""
================
Error middleware
================

Answers every exception with a response made by an error handler of your
choice, by URL, by status or by class of exception: JSON unless told
otherwise.

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

The handlers that come along
============================

:func:`default_error_handler`
    ``{"detail": message}`` as JSON. The message of an unexpected exception
    is ``str(err)``, as it always was in this package: public services had
    better not show that (CWE-209) and use the next one.
:func:`problem_error_handler`
    Problem details as RFC 9457 has them, or HTML, or text, as the client
    accepts. Of an unexpected exception it tells no more than its status.
:func:`debug_error_handler`
    The traceback with its source, as HTML, text or JSON. For development.

They log: what answers 500 and more as an error with its traceback (a limit
that was reached, as a warning), 4xx as information. A handler of your own logs
for itself.

What is left alone
==================

Redirects and other raised answers below 400 pass as they are. An answer keeps
the headers and cookies of the exception (``Allow``, ``WWW-Authenticate``,
``Retry-After`` …), and a body that you gave the exception is not thrown away.

Once a response has started there is no second one: the connection is cut, so
that the client sees that something went wrong. A client that went away is no
error, and a request body that cannot be decoded is a 400.

Order
=====

Inside of :mod:`aiohttp_middlewares.cors`, outside of everything that raises:
timeouts, limits, your own.

Limits
======

What is raised outside of it, it does not see; neither does it see what is no
HTTP at all. The rules for URLs are about whole paths, also in a
sub-application. ``request["error"]`` of older versions is
``request[REQUEST_ERROR_KEY]``, for as long as the error handler runs.
"""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.fields import (
    VARY,
    add_elements,
    elements,
)
from aiohttp_middlewares._core.keys import REQUEST_ERROR_KEY
from aiohttp_middlewares._core.sending import RESPONSES, start_over, started
from aiohttp_middlewares._core.urls import UrlMap
from aiohttp_middlewares.annotations import ExceptionType, Handler, Middleware
from aiohttp_middlewares.error._context import (
    DEFAULT_EXCEPTION,
    ErrorContext,
    error_context,
    get_error_from_request,
    is_http,
    logger,
    set_error_to_request,
    status_of,
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

#: URLs (str, ``re.Pattern``, ``yarl.URL``), statuses and exception classes to
#: the error handler for them. (``Any``: a mapping is invariant in its keys, so
#: that ``dict[str, Handler]`` would not be one of a union to handlers.)
Config: TypeAlias = Mapping[Any, Handler]


def error_middleware(
    *,
    default_handler: Handler = default_error_handler,
    config: Config | None = None,
    ignore_exceptions: ExceptionType | tuple[ExceptionType, ...] | None = None,
) -> Middleware:
    """Answer exceptions with what an error handler makes of them.

    :param default_handler:
        Answers whatever ``config`` has no entry for. By default:
        :func:`default_error_handler`.
    :param config:
        An ordered mapping to other error handlers; the first entry that fits
        answers. Its keys may be mixed: paths, patterns and URLs fit the path
        of the request, statuses (400 to 599) fit what the default handler
        would answer with, which is 500 for unexpected exceptions, and
        exception classes fit their instances. By default: none.
    :param ignore_exceptions:
        An exception class or several that are not answered but passed on. By
        default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an entry of ``config`` can never fit.
    """
    what = "error_middleware"
    options.function(f"{what} default_handler", default_handler)
    choice = None if config is None else _Choice(f"{what} config", config)
    ignored = options.exceptions(
        f"{what} ignore_exceptions",
        () if ignore_exceptions is None else ignore_exceptions,
    )

    @web.middleware
    async def error(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as err:
            return await get_error_response(
                request,
                err,
                default_handler=default_handler,
                config=choice,
                ignore_exceptions=ignored,
            )

    return error


async def get_error_response(
    request: web.Request,
    err: Exception,
    *,
    default_handler: Handler = default_error_handler,
    config: "Config | _Choice | None" = None,
    ignore_exceptions: ExceptionType | tuple[ExceptionType, ...] | None = None,
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
    :raises ConnectionAbortedError:
        A response has started, and there can be no second one. Let it pass:
        aiohttp then closes the connection.
    :raises Exception:
        ``err`` itself when it is to be ignored, or is a raised answer below
        400, such as a redirect.
    """
    try:
        if _is_cut(request) and _client_left(request, err):
            # For the access log: what nginx writes for it.
            return web.Response(status=499, reason="Client Closed Request")
        if started(request):
            _abort(err)
        start_over(request.writer)
        if ignore_exceptions and isinstance(err, ignore_exceptions):
            raise err
        if is_http(err) and err.status < 400:
            raise err

        set_error_to_request(request, err)
        try:
            handler = get_error_handler(request, config) or default_handler
            try:
                response = await handler(request)
                if not isinstance(response, RESPONSES):
                    raise TypeError(
                        f"should return a response, got {response!r}"
                    )
            except Exception as exc:
                if is_http(exc) and not started(request):
                    raise  # an answer as well: a redirect to the login page
                response = await _answer_instead(request, exc)
        finally:
            try:
                del request[REQUEST_ERROR_KEY]
            except KeyError:
                pass  # the handler has taken it
        if is_http(err) and response is not err:
            _keep(err, response)
            if err is request.match_info.http_exception:
                # The 404 or 405 of the router is held by the request.
                err.__traceback__ = None
        return response
    finally:
        # Its traceback refers to frames that refer to it: a cycle that would
        # keep all that the request held until the next garbage collection.
        del err


def get_error_handler(
    request: web.Request, config: "Config | _Choice | None"
) -> Handler | None:
    """The error handler for the error that was stored in the request."""
    if not config:
        return None
    if not isinstance(config, _Choice):
        config = _Choice("config", config)
    return config.handler(request, get_error_from_request(request))


class _Choice:
    """A compiled ``config``."""

    def __init__(self, what: str, config: Config) -> None:
        if not isinstance(config, Mapping):
            options.refuse(
                TypeError, what, "a mapping to error handlers", config
            )
        urls: dict[Any, tuple[int, Handler]] = {}
        self.others: list[tuple[int, Any, Handler]] = []
        for position, (key, handler) in enumerate(config.items()):
            options.function(f"{what}[{key!r}]", handler)
            if isinstance(key, int):
                _check_status(what, key)
            elif isinstance(key, type):
                _check_class(what, key)
            else:
                urls[key] = position, handler
                continue
            self.others.append((position, key, handler))
        self.urls = UrlMap(what, urls)
        self.nothing: tuple[int, Handler | None] = len(config), None

    def handler(self, request: web.Request, err: Exception) -> Handler | None:
        by_url, found = self.urls.first(request, self.nothing)
        if not self.others:
            return found
        status = status_of(err)
        for position, key, handler in self.others:
            if position > by_url:
                break
            if key == status if isinstance(key, int) else isinstance(err, key):
                return handler
        return found


def _check_status(what: str, status: int) -> None:
    if not 400 <= status <= 599:
        options.refuse(ValueError, what, "for statuses 400 to 599", status)


def _check_class(what: str, kind: type) -> None:
    if not issubclass(kind, Exception):
        options.refuse(TypeError, what, "for exception classes", kind)
    if issubclass(kind, web.HTTPSuccessful | web.HTTPRedirection):
        options.refuse(
            ValueError, what, "for errors, as others pass untouched", kind
        )


def _is_cut(request: web.Request) -> bool:
    transport = request.transport
    # A write that fails closes it; only the event loop's next turn removes it.
    return transport is None or transport.is_closing()


def _client_left(request: web.Request, err: Exception) -> bool:
    """Whether it failed because there is nobody at the other end."""
    return (
        isinstance(err, ConnectionResetError | BrokenPipeError)
        or type(err) is ConnectionError  # of a write that waited to go on
        or err is request.content.exception()
    )


def _abort(err: Exception) -> NoReturn:
    if isinstance(err, ConnectionAbortedError):
        raise err  # an error middleware further in has been here
    # No HTTPException: aiohttp would write that one into the body.
    raise ConnectionAbortedError(
        "The handler failed after its response had started"
    ) from err


async def _answer_instead(
    request: web.Request, exc: Exception
) -> web.StreamResponse:
    """The error handler itself has failed."""
    if started(request):
        _abort(exc)
    facts = logs.facts(request)
    logger.error(
        "The error handler for %(method)s %(path)s failed",
        facts,
        exc_info=exc,  # which names the error it was called for
        extra=facts,
    )
    return await default_error_handler(request)


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
            response.cookies[name] = morsel
    if err.keep_alive is False:
        response.force_close()
