"""Headers at the last moment for everybody: the public door to ``sending``.

What is ours there is checked when it is written. What is a user's is checked
when it has run, as a mistake in it would cost the client its answer.
"""

import inspect
import logging
import re
from asyncio import CancelledError
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiohttp_middlewares._core import logs, options, sending
from aiohttp_middlewares._core.grammar.fields import TOKEN

#: Gets the status and the headers, and changes these.
Decorator: TypeAlias = Callable[[int, CIMultiDict[str]], object]

logger: logging.Logger = logs.get_logger(__name__)


def before_sending(request: web.Request, decorator: Decorator) -> None:
    """Change the headers of whatever answers this request, as they leave.

    For middlewares of your own, before they call the handler, and for
    handlers. ``decorator(status, headers)`` changes ``headers`` in place, a
    ``CIMultiDict``, and what it returns does not count. It sees all that will
    be sent: cookies are ``Set-Cookie`` lines by then, so that one is added by
    ``headers.add("Set-Cookie", ...)``.

    It is called once for a response, of any kind: returned, raised, streamed,
    a file, a WebSocket handshake, a 304, and the 404, 405, 500 and 504 that
    aiohttp makes by itself. Of several the one that was given last is called
    first, so that those of inner middlewares come before those of outer ones,
    which have the last word. A response that was prepared and then given up,
    with nothing of it sent, is followed by another: it is called for that one
    as well. Once headers are out it is not called any more. Clones of the
    request are one with it.

    It should leave ``Connection`` alone: aiohttp has decided on that. It should
    not refer to the request, which would then wait for the garbage collector:
    take what you need of the request before.

    If it raises, changes what says how the body comes (``Content-Length``,
    ``Transfer-Encoding``), or leaves what no header can hold, such as a line
    break, that is logged, and the headers are sent as they were before it.

    :raises TypeError:
        ``decorator`` cannot be called, or is a coroutine function: nothing
        can be awaited there.
    """
    options.function("before_sending decorator", decorator, awaited=False)
    sending.before_sending(request, guarded(decorator))


def guarded(decorator: Decorator) -> sending.Job:
    """The job that is done by it, whatever it does."""
    return partial(_decorate, decorator)


def _decorate(
    decorator: Decorator, status: int, headers: CIMultiDict[str]
) -> None:
    before = headers.copy()
    try:
        result = decorator(status, headers)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("nothing can be awaited before headers are sent")
        _check(before, headers)
    except (Exception, CancelledError):
        # Nothing of ours was cancelled, as nothing is awaited here.
        logger.exception("What changes the headers of an answer failed")
        headers.clear()
        headers.extend(before)


def _check(before: CIMultiDict[str], headers: CIMultiDict[str]) -> None:
    """Refuse what aiohttp could not send; it would close the connection.

    And what a client could not read, or would read to another end.
    """
    for framing in _FRAMING:
        if headers.getall(framing, None) != before.getall(framing, None):
            raise ValueError(f"{framing} is decided by then")
    for name in headers:
        if name not in before and not TOKEN.fullmatch(name):
            raise ValueError("a header cannot have such a name")
    text = "".join(headers.values())
    if text.isprintable():  # as always
        return
    text.encode()  # half a character, as a client may send it
    if _CONTROLS.search(text):
        raise ValueError("a header cannot hold a line break")


#: RFC 9112 6
_FRAMING = (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
