"""
===============
Circuit breaker
===============

Stops asking a service that does not answer, for a while: for applications
that would rather fail at once than wait, and for services that recover sooner
when they are left alone.

Usage
=====

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
request is sent for ``reset`` seconds. Then one is sent, the probe, and the
others still fail at once; if the probe succeeds, the circuit closes, and if it
fails, the time starts anew. A probe that has no outcome within
``probe_timeout`` seconds gives way to another one.

A failure is

* one of ``statuses``;
* a connection that cannot be made, or breaks before there is an answer;
* a timeout, whoever set it: the session (the total one as well), the
  ``attempt_timeout`` of a :doc:`retry middleware </client/retry>` outside, a
  deadline.

What says nothing about the origin is not a failure: a caller who gives up, for
whom :func:`asyncio.timeout` around the call is as good as ``task.cancel()``; a
connection of the pool that was closed while it was idle; the wait for a place
in the pool of the session; a proxy, and what fails on the way through it; a
resolver that fails; a body of the caller's that cannot be read; this machine
out of descriptors, ports or networks.

Failures of overlapping requests count as one, unless they began and ended a
tenth of a second apart: a restart that cuts eight requests is one event. What
began before the circuit opened, or closed, no longer counts, however it ends.
What a probe sends to the same origin itself, such as for a token, is a part of
it.

Order
=====

Inside of a retry middleware, which thus learns of each failure and does not
repeat :class:`CircuitOpenError`. That exception has what the attempt before it
came to as its ``__cause__``.

Limits
======

The circuits are those of one process. An origin that has not failed for ten
times ``reset`` is forgotten. Over plain http a proxy answers in place of the
origin, and its 502 counts.
"""

import errno
import math
import time
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import (
    ClientHandlerType,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
)

from aiohttp_middlewares._core import options
from aiohttp_middlewares.client._bodies import held
from aiohttp_middlewares.client._errors import FinalError, is_of_own_body
from aiohttp_middlewares.client._origins import Origin, origin_of
from aiohttp_middlewares.client._passage import Passage
from aiohttp_middlewares.client._redact import origin_text
from aiohttp_middlewares.client._timeouts import is_timeout

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
    probe_timeout: float | None = None,
    statuses: Collection[int] = DEFAULT_STATUSES,
    clock: Callable[[], float] = time.monotonic,
) -> ClientMiddlewareType:
    """Fail at once where requests failed before.

    :param failures: After how many failures in a row the circuit of an
        origin opens; by default 5.
    :param reset: How many seconds it stays open; by default 30.
    :param probe_timeout: After how many seconds without an outcome of the
        probe another one is sent. It does not cut the probe. None, the
        default, is for as many as ``reset``.
    :param statuses: The status codes that are failures.
    :param clock: The time in seconds.
    :raises TypeError: For an option of another type.
    :raises ValueError: For a number out of range, or no status.

    A request that is not sent raises :class:`CircuitOpenError`.
    """
    what = "circuit_breaker_middleware"
    options.integer(f"{what} failures", failures, minimum=1)
    options.seconds(f"{what} reset", reset)
    if probe_timeout is None:
        probe_timeout = reset
    options.seconds(f"{what} probe_timeout", probe_timeout)
    failing = options.statuses(f"{what} statuses", statuses)
    options.function(f"{what} clock", clock)

    # A result counts for the circuit with which its request began, and for
    # nothing once the origin has another.
    current: WeakValueDictionary[Origin, _Circuit] = WeakValueDictionary()
    # Only of origins that failed, those that did so last at the end.
    failed: dict[Origin, _Circuit] = {}

    async def circuit_breaker(
        req: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        origin, now = origin_of(req.url), clock()
        circuit = current.get(origin)
        if circuit is None or circuit.is_forgotten(now, reset):
            circuit = current[origin] = _Circuit()
        began = _Beginning(now, circuit.events)
        if circuit.is_open:
            left = circuit.left(began.at, reset)
            if left > 0:
                if circuit in _PROBES.get():
                    return await handler(req)
                raise CircuitOpenError(left, origin_text(req.url))
            circuit.probes += 1
            circuit.probed_until = began.at + probe_timeout
            began.probe = circuit.probes
            handler = _probing(handler, circuit)

        with Passage(req) as passage:
            try:
                response = await handler(req)
            except BaseException as exc:
                if _blames_origin(req, exc, passage):
                    note_failure(origin, circuit, began)
                elif began.probe == circuit.probes:
                    circuit.probed_until = -math.inf  # the next may try
                raise
        if response.status in failing:
            with held(response):
                note_failure(origin, circuit, began)
        elif circuit.failures:
            note_success(origin, circuit)
        return response

    def note_success(origin: Origin, circuit: _Circuit) -> None:
        if current.get(origin) is circuit:
            failed.pop(origin, None)
            circuit.failures = 0
            if circuit.is_open:
                del current[origin]

    def note_failure(
        origin: Origin, circuit: _Circuit, began: _Beginning
    ) -> None:
        now = clock()
        if current.get(origin) is not circuit:
            return
        if circuit.is_open:
            if began.probe != circuit.probes:
                return  # the probe that took its place decides
            circuit = _Circuit(circuit.failures, is_open=True)
        else:
            if circuit.is_same_event(began, now):
                return
            circuit.events += 1
            circuit.failures += 1
            if circuit.failures == failures:
                circuit = _Circuit(failures, is_open=True)
        circuit.began_at, circuit.failed_at = began.at, now
        failed.pop(origin, None)
        current[origin] = failed[origin] = circuit
        # A crawler meets many that fail, and never comes back.
        while (oldest := next(iter(failed))) != origin:
            if not failed[oldest].is_forgotten(now, reset):
                break
            del failed[oldest]

    return circuit_breaker


#: What begins and ends this many seconds apart is no single event.
_APART = 0.1


@dataclass
class _Beginning:
    at: float
    events: int  #: that had been counted
    probe: int = 0  #: its number, if it is one


@dataclass(eq=False)
class _Circuit:
    """What is known of an origin since its circuit opened or closed."""

    failures: int = 0  #: in a row
    is_open: bool = False
    events: int = 0  #: all that were counted
    began_at: float = 0.0
    failed_at: float = 0.0
    probes: int = 0
    probed_until: float = -math.inf

    def is_forgotten(self, now: float, reset: float) -> bool:
        """Whether the last failure is too long ago to say anything."""
        return self.failures != 0 and now - self.failed_at >= 10 * reset

    def left(self, now: float, reset: float) -> float:
        """For how many seconds no request may be sent."""
        return max(self.failed_at + reset, self.probed_until) - now

    def is_same_event(self, began: _Beginning, now: float) -> bool:
        """Whether another failure is but the last one once more."""
        return (
            self.failures != 0
            and began.events != self.events
            and (
                began.at - self.began_at < _APART
                or now - self.failed_at < _APART
            )
        )


#: The circuits that the current code probes, or did when it began. What a probe
#: needs of the same origin, such as a token, is not refused because of it. Its
#: outcome ends that: the origin has another circuit then, or none.
_PROBES: ContextVar[tuple[_Circuit, ...]] = ContextVar(
    "circuit_breaker_probes", default=()
)


def _probing(
    handler: ClientHandlerType, circuit: _Circuit
) -> ClientHandlerType:
    async def send(req: ClientRequest) -> ClientResponse:
        token = _PROBES.set((*_PROBES.get(), circuit))
        try:
            return await handler(req)
        finally:
            _PROBES.reset(token)

    return send


#: What is wrong with this machine when a connection cannot be made.
_OWN_ERRORS = frozenset(
    {
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,  # no local port is left
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)


def _blames_origin(
    req: ClientRequest, error: BaseException, passage: Passage
) -> bool:
    """Whether an exception speaks against the origin."""
    if isinstance(
        error,
        aiohttp.ClientConnectorDNSError | aiohttp.ClientProxyConnectionError,
    ):
        return False
    if passage.is_dialling and req.proxy is not None:
        return False  # who it was, the proxy or the origin, nobody knows
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.errno not in _OWN_ERRORS
    if is_timeout(req, error):
        return (
            not passage.is_known or passage.is_connected or passage.is_dialling
        )
    if isinstance(error, aiohttp.ClientConnectionError):
        # RFC 9112 9.3.1: a connection may be closed at any time.
        connector = req.session.connector
        is_own = connector is None or connector.closed
        return not (passage.is_reused or is_own or is_of_own_body(error))
    return False


class CircuitOpenError(FinalError):
    """A request that was not sent, as those before it failed.

    ``retry_after`` is for how many seconds that will go on, unless a probe
    succeeds before. ``origin`` is where it should have gone.
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
