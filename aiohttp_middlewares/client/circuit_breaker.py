"""
===============
Circuit Breaker
===============

Stops asking a service that does not answer, for a while: for applications
that would rather fail at once than wait, and for services that recover sooner
when they are left alone.

**Usage**

.. code-block:: python

    import asyncio

    import aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestServer

    from aiohttp_middlewares.client import (
        CircuitOpenError,
        circuit_breaker_middleware,
    )


    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=503)


    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handle)
        breaker = circuit_breaker_middleware(failures=2)
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession(middlewares=[breaker]) as session,
        ):
            for _ in range(2):
                async with session.get(server.make_url("/")) as response:
                    assert response.status == 503
            try:
                await session.get(server.make_url("/"))
            except CircuitOpenError as exc:
                assert 29 < exc.retry_after <= 30


    asyncio.run(main())

Each origin has a circuit. After ``failures`` failures in a row it opens: no
request is sent for ``reset`` seconds. Then one is, the probe, and the others
still fail at once; when the probe succeeds the circuit is closed, and when it
fails the time starts anew.

**Order**

Inside of a retry middleware, which so learns of each failure and does not
repeat :class:`CircuitOpenError`.

**Limits**

The circuits are those of one process. An origin that has not failed for ten
times ``reset`` is forgotten.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import aiohttp
from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._origins import Origin, origin_of
from aiohttp_middlewares.client._redact import origin_text

__all__ = (
    "DEFAULT_STATUSES",
    "CircuitOpenError",
    "circuit_breaker_middleware",
)

DEFAULT_STATUSES = frozenset({500, 502, 503, 504})


def circuit_breaker_middleware(
    *,
    failures: int = 5,
    reset: float = 30.0,
    statuses: Collection[int] = DEFAULT_STATUSES,
    clock: Callable[[], float] = time.monotonic,
) -> ClientMiddlewareType:
    """Fail at once where requests failed before.

    :param failures: After how many failures in a row the circuit of an
        origin opens; by default 5.
    :param reset: How many seconds it stays open; by default 30.
    :param statuses: The status codes that are failures. Connections that are
        refused or break, and timeouts, are failures as well; a cancelled
        request is not.
    :param clock: The time in seconds.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, or no status.

    A request that is not sent raises :class:`CircuitOpenError`.
    """
    what = "circuit_breaker_middleware"
    options.integer(f"{what} failures", failures, minimum=1)
    options.seconds(f"{what} reset", reset)
    failing = options.statuses(f"{what} statuses", statuses)
    options.function(f"{what} clock", clock)

    # Only of origins that failed, those that did so last at the end.
    circuits: dict[Origin, _Circuit] = {}

    async def circuit_breaker(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        origin = origin_of(req.url)
        circuit = circuits.get(origin)
        is_probe = False
        if circuit is not None and circuit.failures >= failures:
            left = circuit.failed_at + reset - clock()
            if left > 0 or circuit.is_probed:
                # While there is a probe, its outcome may mean another wait.
                wait = left if left > 0 else reset
                raise CircuitOpenError(wait, origin_text(req.url))
            is_probe = circuit.is_probed = True

        try:
            response = await handler(req)
        except (aiohttp.ClientConnectionError, asyncio.TimeoutError):
            note_failure(origin, is_probe)
            raise
        finally:
            if is_probe and circuit is not None:
                circuit.is_probed = False
        if response.status in failing:
            note_failure(origin, is_probe)
        else:
            circuits.pop(origin, None)
        return response

    def note_failure(origin: Origin, is_probe: bool) -> None:
        now = clock()
        circuit = circuits.pop(origin, None) or _Circuit()
        circuit.failures += 1
        # What was sent before the circuit opened, and fails afterwards, does
        # not make it stay open for longer.
        if circuit.failures <= failures or is_probe:
            circuit.failed_at = now
        circuits[origin] = circuit
        # A crawler meets many that fail, and never comes back.
        while (oldest := next(iter(circuits))) != origin:
            if now - circuits[oldest].failed_at < 10 * reset:
                break
            del circuits[oldest]

    return circuit_breaker


@dataclass
class _Circuit:
    failures: int = 0
    failed_at: float = 0.0
    is_probed: bool = False


class CircuitOpenError(aiohttp.ClientError):
    """A request that was not sent, as those before it failed.

    ``retry_after`` is for how many seconds that will go on at least.
    ``origin`` is where it should have gone.
    """

    def __init__(self, retry_after: float, origin: str | None = None) -> None:
        super().__init__(retry_after, origin)
        self.retry_after = retry_after
        self.origin = origin

    def __str__(self) -> str:
        return (
            f"{self.origin or 'The origin'} has failed too often;"
            f" try again in {self.retry_after:.1f} seconds"
        )
