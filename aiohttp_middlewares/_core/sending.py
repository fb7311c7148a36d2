"""Change the headers of any response just before they leave.

aiohttp's own signal for this has to be connected before the application
starts, and a middleware list knows no application. What every answer passes,
though, is ``write_headers`` of the request's writer: returned responses,
raised ``web.HTTPException``, streams, files, WebSocket handshakes, and the
404, 405, 500 and 504 that aiohttp makes by itself. There is one writer for
each request, and every clone of the request shares it. Both the property and
the method are public (``BaseRequest.writer``, ``AbstractStreamWriter``).

The body passes ``write`` and ``write_eof`` of the same writer: see
``encoding``. No other module touches it.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias
from weakref import ref

from aiohttp import ClientConnectionResetError, web
from multidict import CIMultiDict

Headers: TypeAlias = CIMultiDict[str]
#: Changes headers; done again to the same headers, it changes nothing more.
Decorator: TypeAlias = Callable[[Headers], None]
#: Gets the status and the headers of what is really sent.
LastCall: TypeAlias = Callable[[int, Headers], Awaitable[None] | None]
#: For isinstance(), which finds the very class of an object quickly.
RESPONSES = (web.Response, web.StreamResponse)


def started(request: web.Request) -> bool:
    """Whether bytes of a response are out, so that no other can be sent."""
    return has_sent(request.writer)


def has_sent(writer: Any) -> bool:
    size = writer.output_size
    # make_mocked_request() makes a mock of it.
    return isinstance(size, int) and size > 0


class AnsweredAlready(ClientConnectionResetError):
    """Something is sent to a client that has had its answer."""


def start_over(writer: Any) -> None:
    """Let another response take the place of one that did not leave.

    One that was given up while its headers were composed, by a signal handler
    that failed or took too long, has told the writer already how its body
    would come. aiohttp does not take that back: the body of the next would be
    framed in another way than its headers say.
    """
    try:
        writer.chunked = False
        writer._compress = None
    except AttributeError:
        pass  # a writer with slots, and others inside


class Hook(ref[Any]):
    """Stands in for ``write_headers`` of a writer, which it refers to weakly.

    To hold the writer or its own method would be a reference cycle, and work
    for the garbage collector after every request.
    """

    __slots__ = ("job", "outer")

    job: Any
    #: What stood in before: the hook of a middleware further out.
    outer: Callable[[str, Headers], Awaitable[None]] | None

    def __call__(  # type: ignore[override]
        self, status_line: str, headers: Headers
    ) -> Awaitable[None]:
        writer = self.begin()
        self.job(headers)
        return self.go_on(writer, status_line, headers)

    def begin(self) -> Any:
        """The writer: it is there, as it is about to send, and for once."""
        writer: Any = ref.__call__(self)
        if has_sent(writer):
            # aiohttp would write it into the body of the first.
            raise AnsweredAlready("A response was sent already")
        return writer

    def go_on(
        self, writer: Any, status_line: str, headers: Headers
    ) -> Awaitable[None]:
        if self.outer is not None:
            return self.outer(status_line, headers)
        own: Awaitable[None] = type(writer).write_headers(
            writer, status_line, headers
        )
        return own


def before_sending(
    request: web.Request, job: Any, hook: type[Hook] = Hook
) -> None:
    """Have the headers of whatever answers the request decorated.

    When they leave: inner middlewares have their turn before outer ones, so
    that of two that differ the outer one has its way. A middleware should
    apply its decorator earlier as well, to what passes by: raised
    ``web.HTTPException`` and :data:`RESPONSES`. Then those outside see it.

    The job is a :data:`Decorator`; other hooks have other jobs.
    """
    writer: Any = request.writer
    try:
        own = hook(writer)
        own.job = job
        own.outer = writer.__dict__.get("write_headers")
        writer.write_headers = own
    except (AttributeError, TypeError):
        pass  # a writer with slots: only what passes by gets decorated


def on_last_call(request: web.Request, call: LastCall) -> None:
    """Have ``call(status, headers)`` done when the headers leave.

    The inner middleware's before the outer one's. Once for a response: the one
    that is sent, and before it any that got as far and was given up with not
    a byte of it out, such as one that a handler had prepared when it failed.
    """
    before_sending(request, call, _LastCallHook)
    release_at_end(request.writer)


class _LastCallHook(Hook):
    __slots__ = ()

    async def __call__(  # type: ignore[override]
        self, status_line: str, headers: Headers
    ) -> None:
        writer = self.begin()
        try:
            done = self.job(int(status_line.split(" ", 2)[1]), headers)
            if done is not None:
                await done
        except BaseException:
            start_over(writer)  # aiohttp may answer 500
            raise
        await self.go_on(writer, status_line, headers)


def only_one_response(request: web.Request) -> None:
    """Have any further response to this request refused.

    aiohttp would send it, into the body of the first one or in place of the
    answer to the next request.
    """
    before_sending(request, _nothing)
    writer: Any = request.writer
    end = writer.write_eof

    async def write_eof(chunk: bytes = b"") -> None:
        # Whoever has prepared another one meanwhile may only write_eof(),
        # which the writer ignores the second time.
        writer.write = _refuse
        await end(chunk)
        writer.write = writer.write_headers = _refuse
        writer.__dict__.pop("write_eof", None)

    with suppress(AttributeError):
        writer.write_eof = write_eof


def _nothing(headers: Headers) -> None:
    pass


async def _refuse(*args: object, **kwargs: object) -> None:
    raise AnsweredAlready("A response was sent already")


def release_at_end(writer: Any) -> None:
    """Let go of the hooks when the response is complete.

    For jobs that may refer to the request, which refers to the writer.
    """
    with suppress(AttributeError):
        if "write_eof" not in writer.__dict__:
            writer.write_eof = partial(_end_and_release, ref(writer))


async def _end_and_release(
    writer_ref: Callable[[], Any], chunk: bytes = b""
) -> None:
    writer = writer_ref()
    await type(writer).write_eof(writer, chunk)
    for name in ("write_headers", "write", "write_eof"):
        writer.__dict__.pop(name, None)
