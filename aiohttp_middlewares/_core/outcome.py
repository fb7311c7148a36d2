"""What really left: measured once for all who want to know.

A middleware sees a response come back, or an exception, before a byte of it is
out. What is sent in the end may be another one: an error page, the 404, 500 or
504 that aiohttp makes by itself, or nothing, as the client has left. So this
is told at the writer (see ``sending``), when the last byte was written. Where
that is never written, the connection is over as well, and so is the task in
which aiohttp serves it.
"""

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeAlias

from aiohttp import hdrs, web

from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares._core.routes import method_of, route_of
from aiohttp_middlewares._core.sending import (
    Headers,
    Watch,
    departure_of,
)
from aiohttp_middlewares._core.who import caller_of

#: As nginx has it: the client left before there was an answer.
CLIENT_CLOSED_REQUEST = 499

#: Told once, when all is over.
Observer: TypeAlias = "Callable[[Outcome], None]"

logger: logging.Logger = logging.getLogger(__name__)


class Outcome(Watch):
    """How a request ended; final when its observers are told."""

    __slots__ = (
        "_length",
        "_may_have_body",
        "_observers",
        "_task",
        "caller",
        "duration",
        "ended",
        "headers",
        "is_complete",
        "is_sent",
        "method",
        "route",
        "start",
        "status",
    )

    def __init__(self, request: web.Request) -> None:
        super().__init__()
        #: One of the standard methods or ``_OTHER``; the path of the route.
        self.method = method_of(request)
        self.route = route_of(request)
        #: Who asked, as far as it was found out.
        self.caller = caller_of(request)
        #: The status on the wire, and 499 while there is none.
        self.status = CLIENT_CLOSED_REQUEST
        self.is_sent = False
        #: Those of the response, as they went out.
        self.headers: Headers | None = None
        #: Whether its last byte is out.
        self.is_complete = False
        self.ended = False
        #: When it began, by ``perf_counter``, and how long it took: seconds.
        self.start = perf_counter()
        self.duration = 0.0
        self._length: int | None = None
        self._may_have_body = request.method != hdrs.METH_HEAD
        self._observers: dict[object, Observer] = {}
        departure = departure_of(request)
        departure.watch = self
        departure.take_over()
        self._task: asyncio.Task[Any] | None = request.task
        request.task.add_done_callback(self._connection_is_over)

    def observe(self, who: object, observer: Observer) -> bool:
        """Have the observer told; not if there is one of that name already.

        Nor if all is over, as for a shielded handler whose client has left.
        """
        if self.ended or who in self._observers:
            return False
        self._observers[who] = observer
        return True

    def leaves(self, status: int, headers: Headers, transport: Any) -> None:
        self.status = status
        self.headers = headers
        self.is_sent = transport is not None and not transport.is_closing()
        if not self.is_sent:
            self.status = CLIENT_CLOSED_REQUEST
        length = headers.get(hdrs.CONTENT_LENGTH, "")
        self._length = int(length) if length.isdecimal() else None

    def end(self, *, is_complete: bool = False) -> None:
        if self.ended:
            return
        self.ended = True
        if self._task is not None:
            self._task.remove_done_callback(self._connection_is_over)
            self._task = None
        self.is_complete = is_complete
        if self._length is not None:
            if self.size > self._length:
                self.size = self._length  # the writer has cut it there
            elif (
                is_complete
                and not self.size
                and self._may_have_body
                and self.status not in (204, 304)
            ):
                self.size = self._length  # a file, by the kernel
        self.duration = perf_counter() - self.start
        observers, self._observers = self._observers, {}
        for observer in reversed(observers.values()):  # from the inside out
            try:
                observer(self)
            except Exception:
                logger.exception("What observes requests failed")

    def _connection_is_over(self, task: object) -> None:
        # A WebSocket has no last byte, and writes past all this.
        self.end(is_complete=self.is_sent and self.status == 101)


def outcome_of(request: web.Request) -> Outcome:
    """That of the request, which all who observe it share."""
    outcome: Outcome | None = request.get(_OUTCOME)
    if outcome is None:
        outcome = request[_OUTCOME] = Outcome(request)
    return outcome


def client_left(request: web.Request) -> None:
    """Say that nobody waits any more, though the handler goes on."""
    outcome: Outcome | None = request.get(_OUTCOME)
    if outcome is not None:
        outcome.end()


_OUTCOME = request_key("aiohttp_middlewares.outcome", Outcome)
