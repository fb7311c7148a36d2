"""
========================
Server timing middleware
========================

Tells browsers how long the server took, and for what: the time to the first
byte, and whatever the handler measures, in the ``Server-Timing`` header, which
developer tools draw. It gives the same to a function of yours, for statsd and
the like.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import server_timing, server_timing_middleware


    async def page(request: web.Request) -> web.Response:
        timing = server_timing(request)
        async with timing.measure("db", "the user's notes"):
            notes = ["first", "second"]  # awaited, in real life
        with timing.measure("render"):
            text = "\\n".join(notes)
        timing.add("cache", description="miss")
        return web.Response(text=text)


    app = web.Application(middlewares=[server_timing_middleware(cpu=True)])
    app.router.add_get("/", page)

The answer, in milliseconds::

    Server-Timing: total;dur=12.3, cpu;dur=1.2, db;dur=10.1;desc="the user's
        notes", render;dur=0.8, cache;desc="miss"

What is measured
================

``total`` ends with the first byte of the answer, as it has to go into its
headers. It is on every kind of answer, and so is what was measured until then;
what the handler, or another server behind it, put into ``Server-Timing``
follows. Measures may be nested, and run at the same time in many tasks and
threads.

``emit`` is told when the last byte is out, or the client has left, and
what was measured until then is in :attr:`Timing.measures`.

``cpu=True`` adds the processor time of this request's own steps: the clock of
the thread is read around each step of the handler and of all middlewares
inside, so that what other requests compute in between is not in it.

Order
=====

Outside of all that may answer. What stands outside of it is not timed.

Limits
======

Everybody can read the header, and tell from it a cache hit from a miss, or a
user who exists from one who does not: leave it out with ``header=False`` where
that matters. Scripts of other origins see it only where the answer has
``Timing-Allow-Origin``.

A request keeps 1,000 measures, and the header as many of them as fit into 2,000
characters: proxies refuse longer headers.

The processor time of tasks that the handler starts, and of threads, is not in
``cpu``. :mod:`aiohttp_middlewares.shield` runs the handlers that it shields in
tasks of their own.

``emit`` runs in the event loop: what it does without awaiting keeps all others
waiting. If it is a coroutine function, up to 1,000 calls wait at a time, and
those beyond are dropped, with one warning. Nobody waits for them when the
server stops.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from time import perf_counter, thread_time
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.outcome import Outcome, outcome_of
from aiohttp_middlewares._core.requests import warn_once
from aiohttp_middlewares._core.sending import Headers, before_sending
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import Handler, Middleware, Urls

__all__ = (
    "SERVER_TIMING",
    "ServerTiming",
    "Timing",
    "server_timing",
    "server_timing_middleware",
)

SERVER_TIMING = istr("Server-Timing")

#: How many measures a request keeps, how many characters of them its header
#: holds, and how many calls of ``emit`` may wait.
_MOST_MEASURES = 1000
_MOST_TEXT = 2000
_MOST_WAITING = 1000

#: Name, seconds and description.
Measure: TypeAlias = tuple[str, float | None, str | None]

logger: logging.Logger = logs.get_logger(__name__)


class Timing(NamedTuple):
    """How long a request took; what ``emit`` is told."""

    #: One of the standard methods or ``_OTHER``.
    method: str
    #: The path of the route, such as ``/users/{name}``; ``__unmatched__`` for
    #: what there is no route for.
    route: str
    #: The status on the wire; 499: the client had left before.
    status: int
    #: Seconds until the last byte was out, or the client had left.
    duration: float
    #: Seconds of processor time; ``None`` without ``cpu=True``.
    cpu: float | None
    #: Name, seconds and description of each measure, in the order in which
    #: they ended. What was added without them has ``None``.
    measures: tuple[Measure, ...]


def server_timing_middleware(
    *,
    emit: Callable[[Timing], Awaitable[object] | object] | None = None,
    header: bool = True,
    slow: float | None = None,
    cpu: bool = False,
    ignore: Urls | None = None,
) -> Middleware:
    """Measure each request, and say so in ``Server-Timing``.

    :param emit:
        Is called with the :class:`Timing` of each request, when the last byte
        of the answer is out; it may be a coroutine function. One that fails
        is logged. By default: nobody is told.
    :param header:
        Whether answers bear the header. By default: ``True``.
    :param slow:
        For a request that takes as many seconds or more, until its last byte
        is out, a warning is logged. WebSockets are never slow. By default:
        none is.
    :param cpu:
        Measure processor time as well. By default: ``False``.
    :param ignore:
        URLs that are not measured: a collection of paths, patterns and URLs,
        or a mapping of them to the method or methods that are not. By
        default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        ``slow`` is not positive and finite, or a URL rule can never fit.
    """
    what = "server_timing_middleware"
    tell = None
    if emit is not None:
        tell = _Emitter(options.function(f"{what} emit", emit))
    options.flag(f"{what} header", header)
    if slow is not None:
        options.seconds(f"{what} slow", slow)
    options.flag(f"{what} cpu", cpu)
    ignored = exemption(f"{what} ignore", ignore)

    @middleware
    async def server_timing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if stored(request, _KEY) is not None or (
            ignored is not None and ignored(request)
        ):
            # Another one further out measures it, or none is to.
            return await handler(request)
        request[_KEY] = timing = ServerTiming()
        if tell is None and slow is None:
            start = perf_counter()
        else:

            def over(outcome: Outcome) -> None:
                if tell is not None:
                    tell(timing._of(outcome))
                if (
                    slow is not None
                    and outcome.duration >= slow
                    # A WebSocket lives on after its answer.
                    and outcome.status != 101
                ):
                    _warn(request, outcome, timing)

            outcome = outcome_of(request)
            outcome.observe(server_timing_middleware, over)
            start = outcome.start
        if header:

            def say(status: int, headers: Headers) -> None:
                said = [
                    timing._text(perf_counter() - start),
                    *headers.getall(SERVER_TIMING, ()),
                ]
                headers[SERVER_TIMING] = ", ".join(said)

            before_sending(request, say)
        if not cpu:
            return await handler(request)
        timing._clock = clock = _Clock()
        return await _Steps(_call(handler, request), clock)

    return server_timing


class ServerTiming:
    """What is measured for a request; :func:`server_timing` gives it."""

    __slots__ = ("_clock", "_measures")

    def __init__(self) -> None:
        self._measures: list[Measure] = []
        self._clock: _Clock | None = None

    def measure(self, name: str, description: str | None = None) -> "_Running":
        """Measure what is done within ``with``, or ``async with``.

        :param name: A token of RFC 9110, such as ``db`` or ``cache.read``.
        :param description: What browsers show for it. By default: the name.
        :raises TypeError: one of them is no string.
        :raises ValueError: the name is no token.
        """
        _check(name, description)
        return _Running(self, name, description)

    def add(
        self,
        name: str,
        seconds: float | None = None,
        description: str | None = None,
    ) -> None:
        """Add what was measured otherwise, or just that it was so.

        :param name: A token of RFC 9110, such as ``db`` or ``cache.read``.
        :param seconds: How long it took. By default: that is not said.
        :param description: What browsers show for it. By default: the name.
        :raises TypeError: one of them is of the wrong type.
        :raises ValueError:
            The name is no token, or the seconds are negative or not finite.
        """
        _check(name, description)
        if seconds is not None:
            options.seconds("server_timing seconds", seconds, zero=True)
        self._add((name, seconds, description))

    def _add(self, measure: Measure) -> None:
        if len(self._measures) < _MOST_MEASURES:
            self._measures.append(measure)

    def _text(self, total: float) -> str:
        """The value of the header."""
        text = _shown("total", total, None)
        if self._clock is not None:
            text += f", {_shown('cpu', self._clock.so_far(), None)}"
        for measure in self._measures:
            more = f", {_shown(*measure)}"
            if len(text) + len(more) > _MOST_TEXT:
                break
            text += more
        return text

    def _of(self, outcome: Outcome) -> Timing:
        return Timing(
            outcome.method,
            outcome.route,
            outcome.status,
            outcome.duration,
            None if self._clock is None else self._clock.so_far(),
            tuple(self._measures),
        )


_KEY = request_key("aiohttp_middlewares.server_timing", ServerTiming)


def server_timing(request: web.Request) -> ServerTiming:
    """Where the measures of a request go.

    Without the middleware, and for what it ignores: nowhere.
    """
    timing: ServerTiming | None = stored(request, _KEY)
    return ServerTiming() if timing is None else timing


class _Running:
    """Measures what is done within it."""

    __slots__ = ("_description", "_name", "_start", "_timing")

    def __init__(
        self, timing: ServerTiming, name: str, description: str | None
    ) -> None:
        self._timing = timing
        self._name = name
        self._description = description

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *exc: object) -> None:
        seconds = perf_counter() - self._start
        self._timing._add((self._name, seconds, self._description))

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__()


def _check(name: object, description: object) -> None:
    if not isinstance(name, str):
        options.refuse(TypeError, "server_timing name", "a token", name)
    if not options.TOKEN.fullmatch(name):
        options.refuse(
            ValueError, "server_timing name", "a token such as 'db'", name
        )
    if description is not None and not isinstance(description, str):
        options.refuse(
            TypeError, "server_timing description", "a string", description
        )


def _shown(name: str, seconds: float | None, description: str | None) -> str:
    """One member of the header: W3C Server Timing 3.1."""
    text = name if seconds is None else f"{name};dur={seconds * 1000:.1f}"
    if description is None:
        return text
    # RFC 9110 5.6.4: a quoted string holds no control characters.
    quoted = logs.shown(description).replace("\\", r"\\").replace('"', r"\"")
    return f'{text};desc="{quoted}"'


def _warn(request: web.Request, outcome: Outcome, timing: ServerTiming) -> None:
    facts = logs.facts(
        request,
        method=outcome.method,
        route=outcome.route,
        status=outcome.status,
        duration=outcome.duration,
        remote=outcome.caller.remote or request.remote or None,
    )
    facts["timing"] = timing._text(outcome.duration)
    logger.warning(
        "%(method)s %(path)s took %(duration).3f s: %(timing)s",
        facts,
        extra=facts,
    )


# Processor time
# ==============


class _Clock:
    """The processor time of steps; one may be under way."""

    __slots__ = ("since", "spent")

    def __init__(self) -> None:
        self.spent = 0.0
        self.since: float | None = None

    def so_far(self) -> float:
        if self.since is None:
            return self.spent
        return self.spent + thread_time() - self.since


async def _call(handler: Handler, request: web.Request) -> web.StreamResponse:
    # A handler may be anything that gives an awaitable.
    return await handler(request)


class _Steps:
    """Awaits a coroutine, and has a clock run while it does not wait.

    All goes to the coroutine as it comes: what it waited for, exceptions,
    among them cancellation, and its end.
    """

    __slots__ = ("_clock", "_coroutine")

    def __init__(
        self, coroutine: Coroutine[Any, Any, web.StreamResponse], clock: _Clock
    ) -> None:
        self._coroutine = coroutine
        self._clock = clock

    def __await__(self) -> Generator[Any, Any, web.StreamResponse]:
        return self

    def __iter__(self) -> "_Steps":
        return self

    def __next__(self) -> Any:
        return self._step(self._coroutine.send, None)

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *exc: Any) -> Any:
        try:
            return self._step(self._coroutine.throw, *exc)
        finally:
            del exc  # by now it refers to this frame

    def close(self) -> None:
        self._step(self._coroutine.close)

    def _step(self, go_on: Callable[..., Any], *given: Any) -> Any:
        clock = self._clock
        clock.since = thread_time()
        try:
            return go_on(*given)
        finally:
            clock.spent = clock.so_far()
            clock.since = None
            del given  # as in throw()


# Telling others
# ==============


class _Emitter:
    """Calls ``emit``, whatever comes of it."""

    def __init__(
        self, emit: Callable[[Timing], Awaitable[object] | object]
    ) -> None:
        self._emit = emit
        #: The event loop itself holds tasks only weakly.
        self._waiting: set[asyncio.Future[object]] = set()
        self._too_many = warn_once(
            logger,
            f"{_MOST_WAITING} calls of emit wait already, those beyond are "
            "dropped: let emit give up in time",
        )

    def __call__(self, timing: Timing) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._too_many()
            return
        try:
            awaited = self._emit(timing)
            if awaited is None or not inspect.isawaitable(awaited):
                return
            task = asyncio.ensure_future(awaited)
        except Exception:
            logger.exception("emit failed")
            return
        self._waiting.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Future[object]") -> None:
        self._waiting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("emit failed", exc_info=error)
