"""The traceback of an error as a page, for development."""

import builtins
import html
import json
import linecache
import traceback
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from aiohttp_middlewares.error._context import (
    ErrorContext,
    context_of,
    log_error,
)
from aiohttp_middlewares.error._handlers import negotiated

#: What a ``TaskGroup`` raises, from Python 3.11 on.
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())

#: Lines of source to show before and after the one that failed.
SOURCE_LINES = 5


async def debug_error_handler(request: web.Request) -> web.Response:
    """Answer with the traceback and its source: HTML, text or JSON.

    For development only: it shows your code, and what is in your messages,
    to whoever asks.
    """
    context = context_of(request)
    log_error(request, context.err, context.status)
    return negotiated(
        request,
        context.status,
        {
            "application/json": lambda: json.dumps(_json(context)),
            "text/html": lambda: _html(request, context),
            "text/plain": lambda: "".join(
                traceback.format_exception(context.err)
            ),
        },
    )


def _json(context: ErrorContext) -> dict[str, Any]:
    return {
        "detail": context.message,
        "status": context.status,
        "exceptions": [
            {
                "type": _name(exc),
                "message": _text(exc),
                "relation": relation,
                "frames": [
                    {
                        "file": frame.filename,
                        "line": frame.lineno,
                        "function": frame.name,
                        "source": [list(line) for line in _source(frame)],
                    }
                    for frame in traceback.extract_tb(exc.__traceback__)
                ],
            }
            for relation, exc in _chain(context.err)
        ],
    }


def _html(request: web.Request, context: ErrorContext) -> str:
    title = html.escape(f"{context.status} {_name(context.err)}")
    asked = html.escape(f"{request.method} {request.rel_url.raw_path}")
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>"
        f"<header><h1>{title}</h1><p>{html.escape(context.message)}</p>"
        f"<p><code>{asked}</code></p></header>"
    ]
    for relation, exc in _chain(context.err):
        if relation:
            parts.append(f"<h2>{html.escape(relation)}</h2>")
        parts.append(
            f"<section><h3>{html.escape(_name(exc))}: "
            f"{html.escape(_text(exc))}</h3>"
        )
        parts.extend(
            _frame(frame) for frame in traceback.extract_tb(exc.__traceback__)
        )
        parts.append("</section>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _frame(frame: traceback.FrameSummary) -> str:
    where = html.escape(f"{frame.filename}, line {frame.lineno}")
    lines = "".join(
        f'<li value="{number}"{" class=here" if number == frame.lineno else ""}'
        f"><code>{html.escape(text)}</code></li>"
        for number, text in _source(frame)
    )
    return (
        f"<div><p>{where}, in <b>{html.escape(frame.name)}</b></p>"
        f"<ol>{lines}</ol></div>"
    )


def _source(frame: traceback.FrameSummary) -> Iterator[tuple[int, str]]:
    """The numbered lines around the one that failed."""
    here = frame.lineno or 0
    for number in range(here - SOURCE_LINES, here + SOURCE_LINES + 1):
        line = linecache.getline(frame.filename, number) if number > 0 else ""
        if line:
            yield number, line.rstrip("\n")


def _chain(err: BaseException) -> Iterator[tuple[str, BaseException]]:
    """The error, then what it is made of, and what it came from."""
    waiting: list[tuple[str, BaseException | None]] = [("", err)]
    seen: set[int] = set()
    while waiting:
        relation, exc = waiting.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        yield relation, exc
        if exc.__cause__ is not None:
            waiting.append(("Caused by", exc.__cause__))
        elif not exc.__suppress_context__:
            waiting.append(("Raised while handling", exc.__context__))
        if isinstance(exc, _GROUP):
            waiting.extend(
                ("One of the group", part) for part in reversed(exc.exceptions)
            )


def _name(exc: BaseException) -> str:
    kind = type(exc)
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        return "(its __str__ fails)"


_STYLE = """
body{margin:0;font:15px/1.5 system-ui,sans-serif;background:#f6f6f9}
header{background:#b3261e;color:#fff;padding:1.2rem 2rem}
header p{margin:.3rem 0;white-space:pre-wrap}
section,h2{margin:1rem 2rem}
h1{margin:0;font-size:1.4rem}h2{font-size:1.1rem}h3{font-size:1rem}
div{background:#fff;border:1px solid #ddd;border-radius:6px;margin:.8rem 0}
div p{margin:0;padding:.5rem 1rem;border-bottom:1px solid #eee}
ol{margin:0;padding:.5rem 0 .5rem 4.5rem;overflow-x:auto}
li::marker{color:#999}li.here{background:#fde7e5}
code{white-space:pre;font:13px/1.5 ui-monospace,monospace}
"""
