"""
====================
Deadline propagation
====================

Passes the time limit of a request on to the calls that it makes, and ends these
before the request itself is out of time: for applications whose visitors have
had their 504 while three services are still working for them.

Usage
=====

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    from aiohttp_middlewares import error_middleware, timeout_middleware
    from aiohttp_middlewares.client import deadline_middleware, upstream_errors


    async def slow(request: web.Request) -> web.Response:
        assert 0 < int(request.headers["X-Envoy-Expected-Rq-Timeout-Ms"]) < 200
        await asyncio.sleep(5)
        return web.Response()


    async def main() -> None:
        upstream = web.Application()
        upstream.router.add_get("/", slow)
        async with TestServer(upstream) as server:
            deadline = deadline_middleware(origins=[server.make_url("/")])

            async def handle(request: web.Request) -> web.Response:
                async with (
                    aiohttp.ClientSession(middlewares=[deadline]) as session,
                    session.get(server.make_url("/")) as response,
                ):
                    return web.Response(text=await response.text())

            app = web.Application(
                middlewares=[
                    error_middleware(config=upstream_errors),
                    timeout_middleware(0.2),
                ]
            )
            app.router.add_get("/", handle)
            async with TestClient(TestServer(app)) as client:
                response = await client.get("/")
                assert response.status == 504


    asyncio.run(main())

The server's ``timeout_middleware`` sets the deadline. A call has the time that
is left, less ``margin``, until its response headers; then it is cut, and one
that would begin with no time left is not sent. Either raises
:class:`DeadlineExceeded`, and the margin is the time to turn that into an
answer. With nested limits, the smallest counts.

There is no limit outside of a request, once its response has started (a stream
may go on for as long as it likes), in a shielded handler, which outlives the
limit on purpose, and in a task that outlives its request.

Services listed in ``origins`` are told how long they have, so that they can
give up as well: in milliseconds, in the header that Envoy sends.

Order
=====

Inside of retry, which does not repeat :class:`DeadlineExceeded`, and outside
of all that may take time: throttle, tokens. Outside of a circuit breaker, which
is then not asked about what is not sent, and counts what is cut.

Limits
======

The attempt is cut, not the reading of the body: the server's limit ends that.
Other time limits, such as aiohttp's own, hold as well.
"""

import asyncio
from collections.abc import Collection

from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.deadline import time_left
from aiohttp_middlewares._core.statuses import OutOfTime
from aiohttp_middlewares.client._errors import FinalError
from aiohttp_middlewares.client._headers import header_for_now
from aiohttp_middlewares.client._origins import (
    Origin,
    origin_of,
    parse_origins,
)
from aiohttp_middlewares.client._redact import origin_text
from aiohttp_middlewares.client._timeouts import TimeIsUp, TimeLimit

__all__ = (
    "DEFAULT_HEADER",
    "DEFAULT_MARGIN",
    "DeadlineExceeded",
    "deadline_middleware",
)

DEFAULT_HEADER = "X-Envoy-Expected-Rq-Timeout-Ms"

#: In seconds.
DEFAULT_MARGIN = 0.05


def deadline_middleware(
    *,
    margin: float = DEFAULT_MARGIN,
    origins: Collection[str | URL] = (),
    header: str = DEFAULT_HEADER,
) -> ClientMiddlewareType:
    """Let no call outlive the request for which it is made.

    :param margin: How many seconds before the limit of the request a call
        ends, so that there is time for an answer; by default 0.05.
    :param origins: The origins that are told how long they have, such as
        ``"https://users.internal"``; by default none.
    :param header: The header that tells them, in milliseconds; by default
        ``X-Envoy-Expected-Rq-Timeout-Ms``. One that the caller has set gives
        way.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, what is no origin and no
        header name.

    A call that is cut, or not sent, raises :class:`DeadlineExceeded`.
    """
    what = "deadline_middleware"
    options.seconds(f"{what} margin", margin, zero=True)
    told: frozenset[Origin] = frozenset()
    if isinstance(origins, str) or not (
        isinstance(origins, Collection) and len(origins) == 0
    ):
        told = parse_origins(f"{what} origins", origins)
    name = options.header_name(f"{what} header", header)

    async def deadline(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        left = time_left()
        if left is None:
            return await handler(req)
        left -= margin
        if left <= 0:
            raise DeadlineExceeded(origin_text(req.url))
        if not told or origin_of(req.url) not in told:
            return await send(req, handler, left)
        # 0 would be no limit at all.
        milliseconds = str(max(1, int(left * 1000)))
        with header_for_now(req, name, milliseconds):
            return await send(req, handler, left)

    async def send(
        req: ClientRequest, handler: ClientHandlerType, left: float
    ) -> ClientResponse:
        try:
            async with _Cut(left, margin):
                return await handler(req)
        except TimeIsUp as exc:
            raise DeadlineExceeded(origin_text(req.url)) from exc

    return deadline


class _Cut(TimeLimit):
    """A time limit that may be over before its time."""

    def __init__(self, seconds: float, margin: float) -> None:
        super().__init__(seconds)
        self._margin = margin

    def _strike(self) -> None:
        self._timer = None
        left = time_left()
        if left is None:
            return  # the response has started, or the request has ended
        self._left = left - self._margin
        if self._left > 0:  # a limit within another one has ended
            self.resume()
        else:
            super()._strike()


class DeadlineExceeded(OutOfTime, FinalError, asyncio.TimeoutError):
    """A call for which the request that needs it has no time left.

    It was cut, or not sent at all. ``origin`` is where it went, or should
    have gone. The error middleware of the server side answers it as it answers
    the limit itself: 504.
    """

    def __init__(self, origin: str | None = None) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return f"No time was left for {self.origin or 'the call'}"
