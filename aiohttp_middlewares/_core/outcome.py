"""What really left: measured once for all who want to know.

A middleware sees a response come back, or an exception, before a byte of it is
out. What is sent in the end may be another one: an error page, the 404, 500 or
504 that aiohttp makes by itself, or nothing, as the client has left. So this
is told at the writer (see ``sending``), when the last byte was written. Where
that is never written, the connection is over as well, and so is the task in
which aiohttp serves it.
"""

import logging
from asyncio import CancelledError, Task, current_task
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import cached_property
from time import perf_counter
from typing import Any, TypeAlias, cast

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.routes import method_of, route_of
from aiohttp_middlewares._core.sending import (
    Departure,
    Headers,
    Watch,
    departure_of,
    started,
)
from aiohttp_middlewares._core.who import caller_of

#: As nginx has it: the client left before there was an answer.
CLIENT_CLOSED_REQUEST = 499

#: Told once, when all is over.
Observer: TypeAlias = "Callable[[Outcome], None]"
#: With the task and the context in which it was called for.
_Observation: TypeAlias = "tuple[Observer, Task[Any] | None, Context]"

logger: logging.Logger = logs.get_logger(__name__)


class Outcome(Watch):
    """How a request ended; final when its observers are told."""

    #: The status on the wire, and 499 while there is none.
    status = CLIENT_CLOSED_REQUEST
    is_sent = False
    #: The headers of the response, as they went out.
    headers: Headers | None = None
    #: Whether its last byte is out.
    is_complete = False
    #: How long it took: seconds.
    duration = 0.0
    ended = False
    _request: web.Request | None = None
    _task: Any = None
    #: Its event loop: to find it is a system call before Python 3.12.
    _loop: Any = None

    def __init__(self, request: web.Request, departure: Departure) -> None:
        #: When it began, by ``perf_counter``.
        self.start = perf_counter()
        #: Who asks, as far as it will be found out. From now on, so that
        #: clones that others make of the request share it.
        self.caller = caller_of(request)
        self._observers: dict[object, _Observation] = {}
        departure.watch = self
        departure.take_over()
        task: Any = request.task
        if departure.ended or task is None:
            # A shielded handler goes on, and somebody else has answered.
            self.ended = True
            return
        # Until the end: they refer to each other, and to this.
        self._request = request
        self._task = task
        self._loop = task.get_loop()
        task.add_done_callback(self._connection_ended)

    @cached_property
    def method(self) -> str:
        """One of the standard methods, or ``_OTHER``."""
        return "" if self._request is None else method_of(self._request)

    @cached_property
    def route(self) -> str:
        """The path of the route."""
        return "" if self._request is None else route_of(self._request)

    def observe(self, who: object, observer: Observer) -> bool:
        """Have the observer told; not if there is one of that name already.

        Nor if all is over, as for a shielded handler whose client has left or
        has had another answer.
        """
        if self.ended or who in self._observers:
            return False
        task = current_task(self._loop)
        self._observers[who] = observer, task, copy_context()
        return True

    def leaves(self, status: int, headers: Headers, transport: Any) -> None:
        self.headers = headers
        self.is_sent = transport is not None and not transport.is_closing()
        # It may take the place of one that did not get out.
        self.status = status if self.is_sent else CLIENT_CLOSED_REQUEST

    def end(self, *, is_complete: bool = False) -> None:
        if self.ended:
            return
        self.ended = True
        self.duration = perf_counter() - self.start
        self.is_complete = is_complete
        self._task.remove_done_callback(self._connection_ended)
        self._task = None
        request, self._request = self._request, None
        if request is not None:
            if not is_complete and not started(request):
                # The headers were made, and are as far as it got.
                self.is_sent = False
                self.status = CLIENT_CLOSED_REQUEST
            self.method = method_of(request)
            self.route = route_of(request)
            if is_complete and not self.size:
                self.size = self._size_of_file(request)
        observers, self._observers = self._observers, {}
        now = current_task(self._loop)
        # From the inside out.
        for observer, task, context in reversed(observers.values()):
            try:
                # It may be the event loop that tells, or another request that
                # has written the last byte: it belongs to this one. What was
                # set further in is known in the very task only.
                if now is task:
                    observer(self)
                else:
                    context.run(observer, self)
            except (Exception, CancelledError):
                # None of ours: nothing is awaited here. The others, such as
                # who holds a place, have to be told as well.
                logger.exception("What observes requests failed")

    def _size_of_file(self, request: web.Request) -> int:
        """What the kernel has sent, past the writer: all of it or nothing."""
        if (
            self.headers is None
            or self.status in (204, 304)
            or request.method == hdrs.METH_HEAD
        ):
            return 0
        text = self.headers.get(hdrs.CONTENT_LENGTH, "")
        return int(text) if text.isdecimal() else 0

    def _connection_ended(self, task: object) -> None:
        # A WebSocket has no last byte, and writes past all this.
        self.end(is_complete=self.is_sent and self.status == 101)


def outcome_of(request: web.Request) -> Outcome:
    """That of the request, which all who observe it share."""
    departure = departure_of(request)
    # There is no other kind.
    outcome: Outcome | None = departure.watch  # type: ignore[assignment]
    if outcome is None:
        outcome = Outcome(request, departure)
    return outcome


def is_over(request: web.Request) -> bool:
    """Whether its outcome is known already, if anybody asked for it."""
    departure = getattr(request.writer, "write_headers", None)
    if type(departure) is not Departure or departure.watch is None:
        return False
    return cast(Outcome, departure.watch).ended


def client_left(request: web.Request) -> None:
    """Say that nobody waits any more, though the handler goes on."""
    outcome = departure_of(request).watch
    if outcome is not None:
        outcome.end()
