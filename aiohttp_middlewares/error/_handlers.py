"""The error handlers of the package."""

import html
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from aiohttp_middlewares._core.grammar.fields import best_media_type
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.statuses import (
    Rendered,
    is_http,
    own_status,
)
from aiohttp_middlewares.error._context import (
    ErrorContext,
    context_of,
    describe,
    own_body,
    own_data,
    phrase,
)

PROBLEM_JSON = "application/problem+json"

_JSON = CIMultiDict({"Content-Type": "application/json; charset=utf-8"})


async def default_error_handler(request: web.Request) -> web.Response:
    """Answer with JSON: ``{"detail": message}``, or the ``data`` of the error.

    A body of another type than plain text that an ``HTTPException`` was given
    is sent as it is. The message of an unexpected exception is ``str(err)``,
    which may tell strangers more than you like: see
    :func:`problem_error_handler`.
    """
    err, message, status, data = describe(request)
    if data is not None:
        text = json.dumps(data)
    else:  # json.dumps() takes several times as long for a mapping
        text = f'{{"detail": {json.dumps(message)}}}'
    return own_body(err) or web.Response(
        status=status, body=text.encode(), headers=_JSON
    )


async def problem_error_handler(request: web.Request) -> web.Response:
    """Answer with problem details, RFC 9457.

    As ``application/problem+json``, or as HTML or plain text where the client
    prefers that. An unexpected exception, one that is neither an
    ``HTTPException`` nor has a ``status`` of 400 to 599, is told by the phrase
    of its status alone. A mapping ``err.data`` adds extension members. Problem
    details of your own and the pages of ``sign_in_middleware`` are sent as they
    are.
    """
    context = context_of(request)
    given = own_body(context.err)
    if given is not None and (
        given.content_type == PROBLEM_JSON or isinstance(context.err, Rendered)
    ):
        given.headers["Cache-Control"] = "no-store"
        return given
    problem = _problem(request, context)
    return negotiated(
        request,
        context.status,
        {
            PROBLEM_JSON: lambda: json.dumps(problem),
            "text/html": lambda: _html(problem),
            "text/plain": lambda: (
                f"{problem['status']} {problem['title']}\n\n"
                f"{problem['detail']}\n"
            ),
        },
    )


def negotiated(
    request: web.Request, status: int, offers: Mapping[str, Any]
) -> web.Response:
    """What the client likes best of some renderings, the first being JSON."""
    json_type = next(iter(offers))
    accept = lines(request, "Accept")
    chosen = best_media_type(accept, [*offers, "application/json"])
    media_type = chosen if chosen in offers else json_type
    return web.Response(
        status=status,
        # A message may hold what cannot be encoded.
        body=offers[media_type]().encode("utf-8", "backslashreplace"),
        headers={
            "Content-Type": f"{media_type}; charset=utf-8"
            if media_type.startswith("text/")
            else media_type,
            "Cache-Control": "no-store",
            "Vary": "Accept",
        },
    )


def _problem(request: web.Request, context: ErrorContext) -> dict[str, Any]:
    err, status = context.err, context.status
    expected = is_http(err) or own_status(request, err) is not None
    data = own_data(err) if expected else None
    return {
        **(data if isinstance(data, Mapping) else {}),
        "type": "about:blank",
        "title": phrase(status),
        "status": status,
        "detail": context.message if expected else phrase(status),
        "instance": request.rel_url.raw_path,
    }


def _html(problem: dict[str, Any]) -> str:
    title = html.escape(f"{problem['status']} {problem['title']}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title></head>\n<body><h1>{title}</h1>\n"
        f"<p>{html.escape(problem['detail'])}</p></body></html>\n"
    )
