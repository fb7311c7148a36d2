"""
=====================
Access log middleware
=====================

Logs each request once, when the last byte of its answer is out: who asked for
what, what left, and how long it took. It replaces aiohttp's own access log,
which sees the proxy's address, and knows neither routes nor users nor requests
whose client has left.

Usage
=====

.. code-block:: python

    import logging

    from aiohttp import web
    from aiohttp_middlewares import access_log_middleware

    app = web.Application(
        middlewares=[access_log_middleware(slow=1.0, ignore=["/health"])]
    )

    if __name__ == "__main__":
        logging.basicConfig(level=logging.INFO)
        # Without aiohttp's own.
        web.run_app(app, access_log=None)

The logger is ``aiohttp_middlewares.access_log``, and a line looks like this::

    GET /users/ann 200 1234 B 0.012 s

The record holds more. A formatter puts what you want into the line:

.. code-block:: python

    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(remote)s %(user)s %(message)s")
    )
    logger = logging.getLogger("aiohttp_middlewares.access_log")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False  # not to the handlers of all loggers, too

:doc:`Logging </how-to/logs>` has it all as JSON.

What a record holds
===================

``method``
    One of the nine of RFC 9110 and RFC 5789, or ``_OTHER``.
``path``, ``route``
    The path as it was sent, and the path of the route, such as
    ``/users/{name}``; ``__unmatched__`` where there is no route.
``status``, ``bytes``
    As they went over the wire, also for answers that aiohttp makes by itself.
    ``bytes`` counts the body. 499: the client left before there was an answer.
``duration``
    Seconds until the last byte of the body was out, or the client had left.
``remote``, ``user``
    What :mod:`aiohttp_middlewares.proxy_headers` decided, and
    :func:`~aiohttp_middlewares.get_user` would say, wherever they stand.
``request_id``
    That of :mod:`aiohttp_middlewares.request_id`.
``user_agent``, ``referer``
    What the client says of itself, and where it says that it comes from.

What is not known is ``None``. No record holds a query, not even in the referer,
nor the name and password that a URL may hold. Text from clients is cut short,
and whatever is not printable ASCII is escaped: nobody can forge a line.

Order
=====

Inside of :mod:`aiohttp_middlewares.request_id`, and outside of all that may
answer. What stands outside of it is neither logged nor timed.

Limits
======

What aiohttp answers before any middleware runs is not logged: requests that it
cannot parse, which are in ``aiohttp.server``, and an ``Expect`` that it does
not know. A WebSocket is logged when it ends, without its bytes, and
is never slow. A secret within a path is logged. If an answer breaks off, the
part that was being sent is not in ``bytes``: that may be all of it.
"""

import logging
import re

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.logs import PATH_LIMIT, shown
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, outcome_of
from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = ("access_log_middleware",)

logger: logging.Logger = logs.get_logger(__name__)


def access_log_middleware(
    *,
    level: int = logging.INFO,
    slow: float | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Log one record a request, at ``aiohttp_middlewares.access_log``.

    :param level:
        The level of the records. By default: ``logging.INFO``.
    :param slow:
        A request that takes as many seconds or more is logged as a
        ``WARNING``, and at ``level`` if that is higher. By default: none is.
    :param ignore:
        URLs that are not logged: a collection of paths, patterns and URLs, or
        a mapping of them to the method or methods that are not. By default:
        none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        ``slow`` is not positive and finite, or a URL rule can never fit.
    """
    what = "access_log_middleware"
    options.integer(f"{what} level", level)
    if slow is not None:
        options.seconds(f"{what} slow", slow)
    ignored = exemption(f"{what} ignore", ignore)
    level_of_slow = max(level, logging.WARNING)
    lowest = level if slow is None else level_of_slow

    @middleware
    async def access_log(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if not logger.isEnabledFor(lowest) or (
            ignored is not None and ignored(request)
        ):
            return await handler(request)

        def over(outcome: Outcome) -> None:
            how = level
            # A WebSocket lives on after its answer.
            if (
                slow is not None
                and outcome.duration >= slow
                and outcome.status != 101
            ):
                how = level_of_slow
            if how != lowest and not logger.isEnabledFor(how):
                return
            _log(how, request, outcome)

        outcome_of(request).observe(access_log_middleware, over)
        return await handler(request)

    return access_log


def _log(level: int, request: web.Request, outcome: Outcome) -> None:
    caller = outcome.caller
    headers = request.headers
    facts = {
        "method": outcome.method,
        "path": shown(request.rel_url.raw_path, PATH_LIMIT),
        "route": outcome.route,
        "status": outcome.status,
        "bytes": outcome.size,
        "duration": outcome.duration,
        "remote": shown(caller.remote or request.remote or None),
        "user": shown(caller.user),
        "request_id": shown(REQUEST_ID.get()),
        "user_agent": shown(headers.get(hdrs.USER_AGENT), PATH_LIMIT),
        "referer": _referer(headers.get(hdrs.REFERER)),
    }
    # As log() has it, which would look for the line that calls, and for names
    # in ``extra`` that are taken: with these it is a third dearer.
    record = logger.makeRecord(
        __name__,
        level,
        __file__,
        _log.__code__.co_firstlineno,
        "%(method)s %(path)s %(status)d %(bytes)d B %(duration).3f s",
        facts,
        None,
        "access_log",
    )
    vars(record).update(facts)
    logger.handle(record)


def _referer(sent: str | None) -> str | None:
    """Where the client comes from, without what may be a secret in it."""
    if sent is None:
        return None
    url = sent.partition("?")[0].partition("#")[0]
    if "@" in url:
        url = _USERINFO.sub(r"\1", url)
        # What is left may have become another authority.
        url = _IN_AUTHORITY.sub(r"\1", url)
    text: str = shown(url, PATH_LIMIT)
    return text


# What is before an "@" in the first part that can be an authority.
_USERINFO = re.compile(r"\A((?:[^/@]+/+|//+)?)[^/]*@")
_IN_AUTHORITY = re.compile(r"\A((?:[^/@]*:)?//+)[^/]*@")
