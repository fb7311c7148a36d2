"""
==================
Client request log
==================

Logs each request that a client session sends, with its outcome and its
duration, without secrets: to see what an application asks of others.

Usage
=====

.. code-block:: python

    import asyncio
    import logging

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import request_log_middleware


    async def main() -> None:
        logging.basicConfig(level=logging.INFO)
        log = request_log_middleware(slow=1.0)
        async with (
            TestServer(web.Application()) as server,
            aiohttp.ClientSession(middlewares=[log]) as session,
            session.get(server.make_url("/search?q=private")),
        ):
            pass  # GET http://127.0.0.1:8080/search?q=*** 404 in 0.002 s


    asyncio.run(main())

Order
=====

Outside of a retry middleware it logs each request once, inside each attempt.

Limits
======

The duration ends with the headers of the response. Each hop of a redirect is a
request, and so is what aiohttp repeats by itself when a connection broke.
Secrets within a path are not recognised: remove them with ``redact``.

.. code-block:: python

    import re

    from yarl import URL

    from aiohttp_middlewares.client import request_log_middleware


    def without_token(url: URL) -> str:
        return re.sub(r"/bot[^/]+", "/bot***", str(url))


    log = request_log_middleware(redact=without_token)
"""

import logging
import time
from collections.abc import Callable, Collection

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)
from yarl import URL

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.secrets import is_secret
from aiohttp_middlewares.client._redact import (
    error_name,
    redact_text,
    redactor,
)

__all__ = ("request_log_middleware",)

logger: logging.Logger = logs.get_logger(__name__)

# The option has the name of the module's own logger.
_OWN_LOGGER = logger
_MESSAGE = "%s %s %s in %.3f s"


def request_log_middleware(
    *,
    logger: logging.Logger = _OWN_LOGGER,
    level: int = logging.INFO,
    slow: float | None = None,
    headers: Collection[str] = (),
    redact_query: bool = True,
    redact: Callable[[URL], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ClientMiddlewareType:
    """Log one record a request.

    :param logger: Where to; by default
        ``aiohttp_middlewares.client.request_log``.
    :param level: The level of the records; by default ``INFO``.
    :param slow: A request that takes as many seconds or more is logged as a
        ``WARNING``; None, the default, for none.
    :param headers: The request headers to show; by default none. Those that
        hold secrets are refused; URLs in the others, as in ``Referer``, are
        redacted.
    :param redact_query: Strike out the values of the query. When False, only
        those that may be secret are: by their name, as they have none, or as
        they have a query of their own.
    :param redact: How a URL is shown, such as without a token in its path. It
        is called with the URL without userinfo, fragment and secret values;
        by default that is what is shown. When it raises, nothing but the
        origin is.
    :param clock: The time in seconds.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, and for a header that is
        none or holds secrets.

    A record has the attributes ``method``, ``url``, ``status``, ``error``
    (the name of the exception), ``duration`` and ``request_headers``. A time
    limit that cuts a request, whoever set it in aiohttp or in a middleware, is
    a ``TimeoutError``; ``CancelledError`` is a caller who gave up.
    Neither userinfo, cookies nor the text of exceptions, which may quote the
    URL, are logged.
    """
    what = "request_log_middleware"
    if not isinstance(logger, logging.Logger):
        options.refuse(TypeError, f"{what} logger", "a logging.Logger", logger)
    options.integer(f"{what} level", level)
    if slow is not None:
        options.seconds(f"{what} slow", slow)
    options.flag(f"{what} redact_query", redact_query)
    if redact is not None:
        options.function(f"{what} redact", redact)
    options.function(f"{what} clock", clock)
    show_url = redactor(_OWN_LOGGER, redact, query=not redact_query)
    shown = options.tokens(f"{what} headers", "header names", headers)
    for name in shown:
        if is_secret(name):
            should = "header names that hold no secrets"
            options.refuse(ValueError, f"{what} headers", should, name)

    async def request_log(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if not logger.isEnabledFor(level) and (
            slow is None or not logger.isEnabledFor(logging.WARNING)
        ):
            return await handler(req)

        # As they are here: what is inside may change them.
        method, url = req.method, show_url(req.url)
        request_headers = {
            name: redact_text(
                ", ".join(req.headers.getall(name)), query=not redact_query
            )
            for name in shown
            if name in req.headers
        }
        response = status = error = None
        start = clock()
        try:
            response = await handler(req)
            status = response.status
            return response
        except BaseException as exc:
            error = error_name(req, exc)
            raise
        finally:
            duration = clock() - start
            is_slow = slow is not None and duration >= slow
            try:
                logger.log(
                    max(level, logging.WARNING) if is_slow else level,
                    _MESSAGE,
                    method,
                    url,
                    error if status is None else status,
                    duration,
                    extra={
                        "method": method,
                        "url": url,
                        "status": status,
                        "error": error,
                        "duration": duration,
                        "request_headers": request_headers,
                    },
                )
            except Exception as exc:  # of a handler or a filter
                logs.lost(logger, _MESSAGE, exc)

    return request_log
