"""The traceback of an error as a page, for development."""

import html
import json
import linecache
import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

from aiohttp import web

from aiohttp_middlewares._core.statuses import GROUP, Rendered
from aiohttp_middlewares.error._context import (
    ErrorContext,
    context_of,
    own_body,
)
from aiohttp_middlewares.error._handlers import negotiated

#: Lines of source to show before and after the one that failed.
SOURCE_LINES = 5
#: How many frames of an exception are shown, half of them from either end;
#: how many exceptions; and how much of a message and of a line of source.
MAX_FRAMES = 20
MAX_EXCEPTIONS = 10
MAX_MESSAGE = 10_000
MAX_LINE = 500

#: Whose frames are counted only: what calls handlers, and what they call.
_FOLDED = {"aiohttp", "aiohttp_middlewares", *sys.stdlib_module_names}

#: How an exception is related to that one before it in a page, and to the one
#: after it in a text.
_CAUSE = "Caused by"
_CONTEXT = "Raised while handling"
_MEMBER = "One of the group"
_IN_TEXT = {
    _CAUSE: "The above exception was the direct cause of the following one",
    _CONTEXT: "During handling of the above exception, another one occurred",
    _MEMBER: "The above exception is one of the following group",
}


class _Frame(NamedTuple):
    file: str
    line: int
    function: str
    source: list[tuple[int, str]]  #: numbered lines around the one that failed


class _Part(NamedTuple):
    """An exception as it is shown: frames that are left out, then the rest."""

    relation: str
    exc: BaseException
    folded: str
    frames: list[_Frame]

    @property
    def name(self) -> str:
        kind = type(self.exc)
        if kind.__module__ in ("builtins", "__main__"):
            return kind.__qualname__
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def message(self) -> str:
        try:
            return _cut(str(self.exc))
        except Exception:
            return "(its __str__ fails)"


async def debug_error_handler(request: web.Request) -> web.Response:
    """Answer with the traceback and its source: HTML, text or JSON.

    Frames of aiohttp, of this package and of Python's own modules are counted
    in one line, so that the last that is shown is yours. The pages of
    ``sign_in_middleware`` are sent as they are. For development only: it shows
    your code, and what is in your messages, to whoever asks.
    """
    context = context_of(request)
    if isinstance(context.err, Rendered) and (given := own_body(context.err)):
        return given
    return negotiated(
        request,
        context.status,
        {
            "application/json": lambda: json.dumps(_json(context)),
            "text/html": lambda: _html(request, context),
            "text/plain": lambda: _plain(context),
        },
    )


def _json(context: ErrorContext) -> dict[str, Any]:
    return {
        "detail": _cut(context.message),
        "status": context.status,
        "exceptions": [
            {
                "type": part.name,
                "message": part.message,
                "relation": part.relation,
                "folded": part.folded,
                "frames": [frame._asdict() for frame in part.frames],
            }
            for part in _parts(context.err)
        ],
    }


def _html(request: web.Request, context: ErrorContext) -> str:
    parts = _parts(context.err)
    title = html.escape(f"{context.status} {parts[0].name}")
    asked = html.escape(f"{request.method} {request.rel_url.raw_path}")
    lines = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>"
        f"<header><h1>{title}</h1><p>{html.escape(_cut(context.message))}</p>"
        f"<p><code>{asked}</code></p></header>"
    ]
    for part in parts:
        if part.relation:
            lines.append(f"<h2>{html.escape(part.relation)}</h2>")
        lines.append(
            f"<section><h3>{html.escape(part.name)}: "
            f"{html.escape(part.message)}</h3>"
        )
        if part.folded:
            lines.append(f"<p class=folded>{html.escape(part.folded)}</p>")
        lines.extend(_html_frame(frame) for frame in part.frames)
        lines.append("</section>")
    lines.append("</body></html>\n")
    return "\n".join(lines)


def _html_frame(frame: _Frame) -> str:
    where = html.escape(f"{frame.file}, line {frame.line}")
    lines = "".join(
        f'<li value="{number}"{" class=here" if number == frame.line else ""}'
        f"><code>{html.escape(text)}</code></li>"
        for number, text in frame.source
    )
    return (
        f"<div><p>{where}, in <b>{html.escape(frame.function)}</b></p>"
        f"<ol>{lines}</ol></div>"
    )


def _plain(context: ErrorContext) -> str:
    """As Python writes it: the error itself comes last."""
    lines = []
    for part in reversed(_parts(context.err)):
        lines.append("Traceback (most recent call last):\n")
        if part.folded:
            lines.append(f"  ({part.folded})\n")
        for frame in part.frames:
            lines.append(
                f'  File "{frame.file}", line {frame.line}, '
                f"in {frame.function}\n"
            )
            here = dict(frame.source).get(frame.line, "").strip()
            if here:
                lines.append(f"    {here}\n")
        said = "".join(traceback.format_exception_only(part.exc))
        lines.append(_cut(said.rstrip("\n")) + "\n")
        if part.relation:
            lines.append(f"\n{_IN_TEXT[part.relation]}:\n\n")
    return "".join(lines)


def _parts(err: Exception) -> list[_Part]:
    return [
        _Part(relation, exc, *_frames(exc))
        for relation, exc in islice(_chain(err), MAX_EXCEPTIONS)
    ]


def _frames(exc: BaseException) -> tuple[str, list[_Frame]]:
    """How many are left out, in words, and those that are shown."""
    folded = 0
    found = []
    for frame, line in traceback.walk_tb(exc.__traceback__):
        name = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] in _FOLDED:
            folded += 1
        else:
            found.append((frame.f_code, line or 0))
    said = []
    if folded:
        said.append(f"{folded} of aiohttp, aiohttp_middlewares and Python")
    if len(found) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        said.append(f"{len(found) - MAX_FRAMES} in the middle")
        found[half:-half] = []
    frames = [
        _Frame(code.co_filename, line, code.co_name, _source(code, line))
        for code, line in found
    ]
    return f"Frames left out: {', '.join(said)}" if said else "", frames


def _source(code: CodeType, here: int) -> list[tuple[int, str]]:
    first = max(1, here - SOURCE_LINES)
    return [
        (number, text.rstrip("\n")[:MAX_LINE])
        for number in range(first, here + SOURCE_LINES + 1)
        if (text := linecache.getline(code.co_filename, number))
    ]


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
            waiting.append((_CAUSE, exc.__cause__))
        elif not exc.__suppress_context__:
            waiting.append((_CONTEXT, exc.__context__))
        if isinstance(exc, GROUP):
            waiting.extend((_MEMBER, part) for part in reversed(exc.exceptions))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


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
p.folded{color:#666}
code{white-space:pre;font:13px/1.5 ui-monospace,monospace}
"""
