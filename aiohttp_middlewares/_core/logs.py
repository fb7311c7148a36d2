"""What a log record says of a request."""

import logging
import sys
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

from aiohttp import web

#: How much of a path is told, and of anything else: characters.
PATH_LIMIT = 1000
LIMIT = 200
#: How many members of a collection are looked at.
MEMBERS = 20


def get_logger(name: str) -> logging.Logger:
    """The logger of one of our modules: it never raises.

    A handler, a filter or a record factory of the application may, and what
    raises on a request's way costs its answer, a lock or what is counted. The
    record is lost then, or as ``logging`` itself makes it, and stderr has a
    line of that.
    """
    made = logging.getLogger(name)

    def make(
        name: str,
        level: int,
        path: str,
        line: int,
        message: object,
        args: Any,
        exc_info: Any,
        function: str | None = None,
        extra: Mapping[str, Any] | None = None,
        stack: str | None = None,
    ) -> logging.LogRecord:
        said = name, level, path, line, message, args, exc_info, function
        try:
            try:
                # Of the class as it is now: tracers put theirs there.
                return type(made).makeRecord(made, *said, extra, stack)
            except KeyError:  # a factory has set one of the names
                record = type(made).makeRecord(made, *said, None, stack)
        except Exception as exc:
            _tell(f"{name}: a record factory raised {type(exc).__name__}")
            record = logging.LogRecord(*said, stack)
        vars(record).update(extra or {})
        return record

    def handle(record: logging.LogRecord) -> None:
        message = record.msg  # a filter may put there what was sent
        try:
            type(made).handle(made, record)
        except Exception as exc:
            lost(made, message, exc)

    made.makeRecord = make  # type: ignore[method-assign, assignment]
    made.handle = handle  # type: ignore[method-assign]
    return made


def lost(logger: logging.Logger, message: object, exc: Exception) -> None:
    """Say that one could not be logged, and nothing that a client sent."""
    _tell(
        f"{logger.name}: a handler or a filter raised"
        f" {type(exc).__name__}, and this is lost: {message!r}"
    )


def _tell(line: str) -> None:
    """Write to stderr, as ``logging`` itself does, if anybody can."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            sys.stderr.write(f"{line}\n")
        except Exception:
            pass  # it is closed, or is somebody's that logs in turn


def facts(request: web.Request, **more: Any) -> dict[str, Any]:
    """For ``extra=``: method, path and remote, and what else there is to say.

    The path is the one that was sent, still encoded and without its query.
    ``remote`` is the address that this request object has: what
    ``proxy_headers_middleware`` decided, inside of it; ``None`` on a unix
    socket.
    """
    said = {
        "method": shown(request.method),
        "path": shown(request.rel_url.raw_path, PATH_LIMIT),
        "remote": shown(request.remote or None),
    }
    for name, value in more.items():
        said[name] = value if type(value) is int else shown(value)
    return said


def refused(
    logger: logging.Logger, request: web.Request, reason: str, **more: Any
) -> None:
    """Tell what was refused, why, and in ``extra`` what was compared."""
    if logger.isEnabledFor(logging.INFO):
        said = facts(request, reason=reason, **more)
        logger.info("Refused %(method)s %(path)s: %(reason)s", said, extra=said)


def shown(value: Any, limit: int = LIMIT) -> Any:
    """As any log can hold it: of a text, some printable ASCII.

    What a client sent may be long, break the line or be no Unicode. Numbers
    and ``None`` stay as they are; the first members of a collection are
    joined.
    """
    if value is None:
        return None
    if type(value) is str:  # and nothing odd, as nearly always
        if len(value) <= limit and value.isascii() and value.isprintable():
            return value
    elif isinstance(value, int | float):
        return value
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        # One more, so that it can be seen that there are.
        members = [str(member) for member in islice(value, MEMBERS + 1)]
        if len(members) > MEMBERS:
            members[-1] = "..."
        value = ", ".join(members)
    text = value if isinstance(value, str) else str(value)
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    escaped = text[:limit].encode("unicode_escape").decode("ascii")
    if len(text) > limit or len(escaped) > limit:
        return f"{escaped[:limit]}..."
    return escaped
