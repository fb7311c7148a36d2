"""
=======
API log
=======

Reports each outgoing API call to a service that collects them, in the
background: for audits and usage statistics that must not slow the application
down.

Usage
=====

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import CallRecord, api_log_middleware

    reported: list[CallRecord] = []


    async def send(record: CallRecord) -> None:
        reported.append(record)  # or post it somewhere


    async def main() -> None:
        log = api_log_middleware(send)
        async with (
            TestServer(web.Application()) as server,
            aiohttp.ClientSession(middlewares=[log]) as session,
        ):
            async with session.get(server.make_url("/users?name=private")):
                pass
            await log.aclose()
        assert reported[0].status == 404
        assert reported[0].url.endswith("/users?name=***")


    asyncio.run(main())

Order
=====

Outside of a retry middleware it reports each call once, inside each attempt.

Limits
======

What is not yet sent is lost when the process ends without
``await log.aclose()``. Records are sent one after the other; ``send`` should
have a timeout of its own. Secrets within a path are not recognised: remove them
with ``redact``.
"""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from yarl import URL

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares.client._bodies import held
from aiohttp_middlewares.client._redact import error_name, redactor
from aiohttp_middlewares.client._timeouts import cut, is_cancelled

__all__ = ("DEFAULT_BACKLOG", "CallRecord", "api_log_middleware")

DEFAULT_BACKLOG = 1000

logger: logging.Logger = logs.get_logger(__name__)


@dataclass(frozen=True)
class CallRecord:
    """A call that was made.

    ``url`` has no userinfo and no query value. ``status`` is None when there
    was no response, and ``error`` is then the name of the exception: a time
    limit that cuts the call, whoever set it in aiohttp or in a middleware, is
    a ``TimeoutError``; ``CancelledError`` is a caller who gave up.
    ``duration`` is in seconds, to the headers of the response.
    """

    method: str
    url: str
    status: int | None
    error: str | None
    duration: float


def api_log_middleware(
    send: Callable[[CallRecord], Awaitable[object] | object],
    *,
    backlog: int = DEFAULT_BACKLOG,
    redact: Callable[[URL], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "ApiLog":
    """Report each call.

    :param send: Called with each :class:`CallRecord`, one after the other;
        it may be async. Calls that it makes itself are not reported, but
        those of a task that it leaves behind are. When it raises, the record
        is lost and a warning logged.
    :param backlog: How many records may wait; by default 1000. With one more
        the oldest is dropped, and a warning is logged.
    :param redact: How a URL is shown, such as without a token in its path. It
        is called with the URL without userinfo, fragment and query values; by
        default that is what is shown. When it raises, nothing but the origin
        is.
    :param clock: The time in seconds, for the duration.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a backlog of none.
    """
    what = "api_log_middleware"
    options.function(f"{what} send", send)
    options.integer(f"{what} backlog", backlog, minimum=1)
    if redact is not None:
        options.function(f"{what} redact", redact)
    options.function(f"{what} clock", clock)
    return ApiLog(send, backlog, redactor(logger, redact), clock)


class ApiLog:
    """What :func:`api_log_middleware` makes."""

    def __init__(
        self,
        send: Callable[[CallRecord], Awaitable[object] | object],
        backlog: int,
        show_url: Callable[[URL], str],
        clock: Callable[[], float],
    ) -> None:
        self._send = send
        self._waiting: deque[CallRecord] = deque(maxlen=backlog)
        self._show_url = show_url
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        # Since all were sent, and the last one: a warning for each would be
        # too much.
        self._is_full = False
        self._fails = False

    async def __call__(
        self, req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        if (report := _PART_OF.get()) is not None and not report.is_over:
            return await handler(req)
        method, url = req.method, self._show_url(req.url)
        response = status = error = None
        start = self._clock()
        try:
            response = await handler(req)
            status = response.status
            return response
        except BaseException as exc:
            error = error_name(req, exc)
            raise
        finally:
            with held(response):
                duration = self._clock() - start
                self._add(CallRecord(method, url, status, error, duration))

    async def aclose(self, timeout: float = 5.0) -> None:
        """Send what is waiting, for at most ``timeout`` seconds.

        What is left then is dropped, with a warning.
        """
        task = self._start() if self._waiting else self._running()
        if task is None:
            return
        await asyncio.wait([task], timeout=timeout)
        if task.done() and not task.cancelled():
            return
        left = len(self._waiting) + (not task.done())
        if left:
            logger.warning("%s records were not sent before the end", left)
            self._waiting.clear()
        await cut(task)

    def _add(self, record: CallRecord) -> None:
        was_full = self._is_full
        if len(self._waiting) == self._waiting.maxlen:
            self._is_full = True
        self._waiting.append(record)
        self._start()
        if self._is_full and not was_full:
            logger.warning(
                "The backlog of %s records is full, the oldest are dropped;"
                " send is too slow or hangs",
                len(self._waiting),
            )

    def _start(self) -> asyncio.Task[None]:
        task = self._running()
        if task is None:
            # In a context of its own: nothing of the request that happens to
            # come first belongs to the reports of all.
            context = contextvars.Context()
            task = context.run(asyncio.create_task, self._work())
            self._task = task
        return task

    def _running(self) -> asyncio.Task[None] | None:
        task = self._task
        if task is None or task.done():
            return None
        # One of a loop that was closed will never be done.
        return task if task.get_loop() is asyncio.get_running_loop() else None

    async def _work(self) -> None:
        while self._waiting:
            record = self._waiting.popleft()
            await self._report(record)
        self._is_full = False

    async def _report(self, record: CallRecord) -> None:
        report = _Report()
        _PART_OF.set(report)
        try:
            result = self._send(record)
            if isinstance(result, Awaitable):
                await result
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and is_cancelled():
                raise
            if not self._fails:
                self._fails = True
                # What it says may quote the URL of the service.
                logger.warning("send failed: %s", type(exc).__name__)
        else:
            self._fails = False
        finally:
            report.is_over = True


class _Report:
    """One call of ``send``, which a task that it starts may outlive."""

    is_over = False


#: The report that the current code is a part of, or was when it began. With
#: two logs in one session, each would else report what the other sends, for
#: ever.
_PART_OF: ContextVar[_Report | None] = ContextVar(
    "api_log_part_of", default=None
)
