"""Change the headers of any response just before they leave.

aiohttp's own signal for this has to be connected before the application
starts, and a middleware list knows no application. What every answer passes,
though, is ``write_headers`` of the request's writer: returned responses,
raised ``web.HTTPException``, streams, files, WebSocket handshakes, and the
404, 405, 500 and 504 that aiohttp makes by itself. There is one writer for
each request, and every clone of the request shares it. Both the property and
the method are public (``BaseRequest.writer``, ``AbstractStreamWriter``).

One object stands in front of it, the :class:`Departure` of the request, and
every middleware adds its job to that one. Bodies pass ``write`` and
``write_eof`` of the same writer: see ``encoding``. No other module touches it.
"""

import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, TypeAlias
from weakref import ref

from aiohttp import ClientConnectionResetError, hdrs, web
from multidict import CIMultiDict

Headers: TypeAlias = CIMultiDict[str]
Bytes: TypeAlias = bytes | bytearray | memoryview


class Body(ABC):
    """What stands between a response and the writer: see ``encoding``."""

    #: The status of the answer that leaves in its place, if it makes another.
    status: HTTPStatus | None = None

    @abstractmethod
    async def write(
        self, departure: "Departure", chunk: Bytes, **options: Any
    ) -> None: ...

    @abstractmethod
    async def write_eof(self, departure: "Departure", chunk: Bytes) -> None: ...


class Watch(ABC):
    """Sees what leaves: see ``outcome``."""

    #: The bytes of the body that were written, as they are encoded.
    size = 0

    @abstractmethod
    def leaves(self, status: int, headers: Headers, transport: Any) -> None: ...

    @abstractmethod
    def end(self, *, is_complete: bool = False) -> None: ...


#: Gets the status and the headers of what is about to leave, may change these,
#: and may give what takes the body.
Job: TypeAlias = Callable[[int, Headers], Awaitable[None] | Body | None]
#: For isinstance(), which finds the very class of an object quickly.
RESPONSES = (web.Response, web.StreamResponse)
_BUFFERED = web.Response


def started(request: web.Request) -> bool:
    """Whether bytes of a response are out, so that no other can be sent."""
    return has_sent(request.writer)


def of_all_clones(request: web.Request, kind: type[Any]) -> Any:
    """What :func:`for_all_clones` was given of that kind; else ``None``."""
    found = getattr(request.writer, kind.__name__, None)
    return found if type(found) is kind else None


def for_all_clones(request: web.Request, value: object) -> None:
    """Have it found by the clones of a request, and by what they are of.

    What is stored in a clone that others make is not seen outside of it. The
    writer is the same for all.
    """
    with suppress(AttributeError):  # a writer with slots
        setattr(request.writer, type(value).__name__, value)


def has_sent(writer: Any) -> bool:
    size = writer.output_size
    # make_mocked_request() makes a mock of it.
    return isinstance(size, int) and size > 0


class AnsweredAlready(ClientConnectionResetError):
    """Something is sent to a client that has had its answer."""

    def __init__(self) -> None:
        super().__init__("A response was sent already")


def forget_interim(request: web.Request) -> None:
    """Do not take for a response what was out before any middleware.

    To be called where a middleware is entered. It is ``100 Continue``, of an
    ``expect_handler`` of the application's own: aiohttp's forgets it, too.
    """
    writer: Any = request.writer
    if hdrs.EXPECT in request.headers and not isinstance(
        getattr(writer, "write_headers", None), Departure
    ):
        writer.output_size = 0


def start_over(writer: Any) -> None:
    """Let another response take the place of one that did not leave.

    One that was given up while its headers were composed, by a signal handler
    that failed or took too long, has told the writer already how its body
    would come. aiohttp does not take that back: the body of the next would be
    framed in another way than its headers say.
    """
    try:
        writer.chunked = False
        writer.length = None
        writer._compress = None
    except AttributeError:
        pass  # a writer with slots, and others inside


#: The shielded handlers within which the current code runs.
HANDLERS: ContextVar[tuple[object, ...]] = ContextVar("handlers", default=())


class Departure(ref[Any]):
    """Stands in for ``write_headers`` of a writer, which it refers to weakly.

    To hold the writer, or its own method, would be a reference cycle, and
    work for the garbage collector after every request. Nor may a job hold the
    request, which refers to its writer.
    """

    __slots__ = (
        "behind",
        "body",
        "ended",
        "framing",
        "given_up",
        "jobs",
        "line",
        "lingers",
        "others",
        "passed",
        "reached",
        "watch",
    )

    #: From the outermost middleware's to the innermost's.
    jobs: list[tuple[Job, bool]]
    #: The headers of the last response that passed by or left, and the
    #: outermost place where they were changed.
    passed: Headers | None
    reached: int
    #: What somebody else had put in front of ``write_headers`` before.
    behind: Callable[[str, Headers], Awaitable[None]] | None
    #: The same for ``write`` and ``write_eof``, once we stand there as well.
    others: tuple[Any, Any] | None
    #: The status line of the response that leaves.
    line: str
    #: Takes its body, if any does.
    body: Body | None
    #: Whether the last of it was written.
    ended: bool
    #: Whether a connection that is closed before that is reset.
    lingers: bool
    #: The handlers that have to do without an answer of their own.
    given_up: frozenset[object]
    #: How the writer frames the body: chunked, of what length, compressed.
    framing: tuple[bool, int | None, Any]
    #: Who wants to know what leaves.
    watch: Watch | None

    def __call__(  # type: ignore[override]
        self, status_line: str, headers: Headers
    ) -> Awaitable[None]:
        writer: Any = ref.__call__(self)  # it is there, as it is called
        if writer.output_size and has_sent(writer):
            # aiohttp would write it into the body of the first.
            raise AnsweredAlready
        if self.others is not None:
            if self.ended or (self.given_up and self.is_late()):
                raise AnsweredAlready
            self.body = None  # of a response that was given up
            if self.given_up:
                self.frame_by(headers)
        jobs = self.jobs
        place = len(jobs)
        reached = self.reached if headers is self.passed else place
        self.passed = headers
        self.reached = 0
        try:
            status = int(status_line[9:12])  # after "HTTP/1.1 "
        except ValueError:  # a handler's status of fewer digits
            status = int(status_line.split(" ", 2)[1])
        try:
            for job, is_early in reversed(jobs):
                place -= 1
                if not is_early:
                    # Only these may leave more to do.
                    more = job(status, headers)
                    if more is not None:
                        self.line = status_line
                        return self.finish(
                            more, place, reached, status, headers
                        )
                elif place < reached:
                    job(status, headers)
        except BaseException:
            start_over(writer)  # aiohttp may answer 500
            raise
        if self.watch is not None:
            self.watch.leaves(status, headers, writer.transport)
        if self.behind is not None:
            return self.behind(status_line, headers)
        sent: Awaitable[None] = type(writer).write_headers(
            writer, status_line, headers
        )
        return sent

    async def finish(
        self, more: Any, place: int, reached: int, status: int, headers: Headers
    ) -> None:
        """Go on where a job leaves more to do than to change headers."""
        try:
            while True:
                if isinstance(more, Body):
                    self.take_over()
                    self.body = more
                    if more.status is not None:
                        # The response has said how its own body would come.
                        start_over(self.writer)
                        # For those outside, and for who watches.
                        status = more.status.value
                        self.line = (
                            f"{self.line[:9]}{status} {more.status.phrase}"
                        )
                elif more is not None:
                    await more
                if not place:
                    break
                place -= 1
                job, is_early = self.jobs[place]
                if is_early and place >= reached:
                    more = None
                else:
                    more = job(status, headers)
        except BaseException:
            start_over(self.writer)
            raise
        if self.watch is not None:
            self.watch.leaves(status, headers, self.writer.transport)
        await self.send_headers(headers)

    def add(self, job: Job) -> int:
        """Have headers changed when they leave, or when they pass by.

        As :func:`before_sending`, but the job changes headers only, whatever
        the status, and is done at once to what :meth:`passes` by: then those
        outside see it, and it is not done again. The place that comes back is
        for that.
        """
        jobs = self.jobs
        jobs.append((job, True))
        return len(jobs) - 1

    def passes(self, place: int, response: web.StreamResponse) -> None:
        """A response passes by on its way outwards.

        Raised ``web.HTTPException`` are left for later, as one may be the same
        object for many requests. So are files: aiohttp sets ``Vary`` of one
        when it prepares it, whatever it was.
        """
        if type(response) is not _BUFFERED and (
            not isinstance(response, RESPONSES)
            or isinstance(response, web.FileResponse)
        ):
            return
        headers = response.headers
        jobs = self.jobs
        # Those further in may have seen another response, or none.
        at = self.reached if headers is self.passed else len(jobs)
        if at <= place:
            return  # as it has left
        self.passed = headers
        self.reached = place
        for job, is_early in reversed(jobs[place:at]):
            if is_early:
                job(0, headers)

    @property
    def writer(self) -> Any:
        return ref.__call__(self)

    def resend_headers(self, headers: Headers) -> Awaitable[None]:
        """Have others take the place of those that were only buffered.

        All that stands in front of the method of the class has been there.
        """
        writer: Any = ref.__call__(self)
        if self.others is not None and self.given_up:
            self.frame_by(headers)
        sent: Awaitable[None] = type(writer).write_headers(
            writer, self.line, headers
        )
        return sent

    def send_headers(self, headers: Headers) -> Awaitable[None]:
        if self.behind is not None:
            return self.behind(self.line, headers)
        return self.resend_headers(headers)

    def is_late(self) -> bool:
        """Whether whoever sends this has been given up."""
        given_up = self.given_up
        return bool(given_up) and not given_up.isdisjoint(HANDLERS.get())

    def frame_by(self, headers: Headers) -> None:
        """Frame the body as its headers say.

        A response that is prepared late has told the writer, before it is
        refused, how its own body would come.
        """
        length = headers.get(hdrs.CONTENT_LENGTH)
        compress = None
        if hdrs.CONTENT_ENCODING in headers and self.body is None:
            # The handler wants it of the writer.
            compress = getattr(self.writer, "_compress", None)
        self.framing = (
            hdrs.TRANSFER_ENCODING in headers,
            None if length is None else int(length),
            compress,
        )

    def frame(self, writer: Any) -> None:
        if self.given_up:
            with suppress(AttributeError):  # as in start_over()
                writer.chunked, writer.length, writer._compress = self.framing

    def take_over(self) -> None:
        """Stand in for ``write`` and ``write_eof``, too."""
        if self.others is not None:
            return
        writer = self.writer
        self.others = _OWN
        self.body = None
        self.ended = self.lingers = False
        self.given_up = frozenset()
        try:
            own = type(writer)
            write = _foreign(writer.write, getattr(own, "write", None))
            write_eof = _foreign(
                writer.write_eof, getattr(own, "write_eof", None)
            )
            if write is not None or write_eof is not None:
                self.others = write, write_eof
            writer.write = self.write
            writer.write_eof = self.write_eof
        except AttributeError:
            pass  # a writer with slots

    async def write(self, chunk: Bytes, **options: Any) -> None:
        if self.ended or self.is_late():
            raise AnsweredAlready
        if self.body is None:
            await self.send(chunk, **options)
        else:
            await self.body.write(self, chunk, **options)

    async def write_eof(self, chunk: Bytes = b"") -> None:
        if self.ended or (self.given_up and self.is_late()):
            return  # as the writer has it, once its response is over
        # Before it is sent: whoever has prepared another response meanwhile
        # must not write into this one.
        self.ended = True
        writer: Any = ref.__call__(self)
        try:
            if self.body is not None:
                await self.body.write_eof(self, chunk)
            elif (
                self.given_up
                or self.others is not _OWN
                or getattr(writer, "_compress", None) is not None
            ):
                await self.send_eof(chunk)
            else:  # as mostly, without another coroutine
                await type(writer).write_eof(writer, chunk)
                if self.watch is not None:
                    self.watch.size += len(chunk)
        except BaseException:
            # With nothing out, another may take its place.
            self.ended = has_sent(writer)
            raise
        if self.lingers:
            _linger(writer.transport, reset=False)
        if self.watch is not None:
            self.watch.end(is_complete=True)

    async def send(self, chunk: Bytes, **options: Any) -> None:
        writer = self.writer
        self.frame(writer)
        if self.given_up:
            chunked, length, compress = self.framing
            if length is not None:  # which the writer counts down
                length = max(0, length - memoryview(chunk).nbytes)
                self.framing = chunked, length, compress
        before, length = _mark(writer), writer.length
        if self.others and self.others[0] is not None:
            await self.others[0](chunk, **options)
        else:
            await type(writer).write(writer, chunk, **options)
        if self.watch is not None:
            grown = _growth(writer, before, chunk)
            # What is beyond its Content-Length is cut by the writer.
            self.watch.size += grown if length is None else min(grown, length)

    async def send_eof(self, chunk: Bytes) -> None:
        writer = self.writer
        self.frame(writer)
        before = _mark(writer)
        if self.others and self.others[1] is not None:
            await self.others[1](chunk)
        else:
            await type(writer).write_eof(writer, chunk)
        if self.watch is not None:
            self.watch.size += _growth(writer, before, chunk, end=5)


#: Nobody else stands in front of ``write`` and ``write_eof``.
_OWN = None, None


def _mark(writer: Any) -> int | None:
    """Where the body stands, if the writer itself compresses it."""
    if getattr(writer, "_compress", None) is None:
        return None
    size = writer.output_size
    if not isinstance(size, int):
        return None  # make_mocked_request() makes a mock of it
    waiting: bytes | None = getattr(writer, "_headers_buf", None)
    return size + len(waiting or b"")


def _growth(writer: Any, before: int | None, chunk: Bytes, end: int = 0) -> int:
    """By how much the body has grown on the wire, without its framing."""
    if before is None:
        return memoryview(chunk).nbytes
    grown: int = writer.output_size - before
    if not writer.chunked:
        return grown
    # RFC 9112 7.1: its size in hexadecimal digits, and two line ends; the
    # last is followed by "0", and two more.
    rest = grown - end - 4
    for digits in range(1, 17):
        if rest > digits and len(f"{rest - digits:x}") == digits:
            return rest - digits
    return 0


def departure_of(request: web.Request) -> Departure:
    """That of the request, which all middlewares share."""
    writer: Any = request.writer
    try:
        found = writer.write_headers
        if type(found) is Departure:
            return found
        if writer.output_size:
            forget_interim(request)
        behind = _foreign(found, getattr(type(writer), "write_headers", None))
        departure = writer.write_headers = Departure(writer)
    except (AttributeError, TypeError):
        # A writer with slots: only what passes by gets decorated.
        departure, behind = Departure(_NOWHERE), None
    departure.jobs = []
    departure.behind = behind
    departure.others = departure.passed = departure.watch = None
    return departure


def _foreign(found: Any, own: Any) -> Any:
    """What somebody else has put in front of a method; ``None`` if nobody has.

    Without a look at the ``__dict__`` of the writer: to ask for one makes all
    that aiohttp does with the writer slower.
    """
    if own is not None and getattr(found, "__func__", None) is own:
        return None
    return found


class _Nowhere:
    """A writer that nothing is written to, and that takes no hook."""

    __slots__ = ("__weakref__",)


_NOWHERE = _Nowhere()


def before_sending(request: web.Request, job: Job) -> None:
    """Have ``job(status, headers)`` done when the headers leave.

    Of whatever answers the request. Inner middlewares have their turn before
    outer ones, so that of two that differ the outer one has its way. It is
    done once for a response: the one that is sent, and before it any that got
    as far and was given up with not a byte of it out, such as one that a
    handler had prepared when it failed. The job must not hold the request.
    """
    departure_of(request).jobs.append((job, False))


def only_one_response(request: web.Request, *given_up: object) -> None:
    """Have what these handlers send refused, as somebody else answers.

    And whatever comes after the next response: aiohttp would send it, into the
    body of that one or in place of the answer to the next request. What was
    begun, and is not out yet, is given up.
    """
    departure = departure_of(request)
    departure.take_over()
    if not started(request):
        departure.given_up |= {*given_up}
        departure.ended = False
        departure.body = None
        start_over(request.writer)


def is_given_up(request: web.Request) -> bool:
    """Whether somebody else answers in place of the current handler."""
    return is_answered_elsewhere(request, HANDLERS.get())


def is_answered_elsewhere(
    request: web.Request, handlers: tuple[object, ...]
) -> bool:
    """Whether any of these handlers was given up."""
    found = getattr(request.writer, "write_headers", None)
    return (
        isinstance(found, Departure)
        and found.others is not None
        and not found.given_up.isdisjoint(handlers)
    )


def reset_when_cut(request: web.Request) -> None:
    """Have the client see that the end of a response is missing.

    To HTTP/1.0 a body of unknown length ends with the connection, and one
    that is closed half-way looks complete, unless it is reset: RFC 9112 8.
    """
    departure = departure_of(request)
    departure.take_over()
    departure.lingers = True
    _linger(request.transport, reset=True)


def _linger(transport: Any, *, reset: bool) -> None:
    # socket(7): with a time of zero, close() discards and resets.
    with suppress(AttributeError, OSError):
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0)
        )
