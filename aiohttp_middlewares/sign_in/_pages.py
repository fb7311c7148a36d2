"""What visitors see who are not where they wanted to be."""

import html
import json
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import NoReturn

from aiohttp import hdrs, web
from yarl import URL

from aiohttp_middlewares._core.grammar.fields import best_media_type
from aiohttp_middlewares._core.requests import lines

PROBLEM_JSON = "application/problem+json"
#: Of what others say, so many characters are shown.
LONGEST_TEXT = 300

_HEADERS: Mapping[str, str] = {
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.VARY: hdrs.ACCEPT,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # RFC 9700 4.2: the address of the callback is not for others to see.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page(
    request: web.Request,
    kind: Callable[..., web.HTTPException],
    title: str,
    text: str,
    link: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> NoReturn:
    """Raise a page, in HTML or as problem details (RFC 9457) by ``Accept``.

    :param text: What it says; anybody's words may be in it.
    :param link: What is written on it, and a path of ours.
    """
    text = text[:LONGEST_TEXT]
    accepted = lines(request, hdrs.ACCEPT)
    offers = (PROBLEM_JSON, "text/html", "application/json")
    if best_media_type(accepted, offers) == "text/html":
        content_type = "text/html"
        body = _html(title, text, link)
    else:
        content_type = PROBLEM_JSON
        body = ""
    exc = kind(
        headers={**_HEADERS, **(headers or {})},
        text=body,
        content_type=content_type,
    )
    if content_type == PROBLEM_JSON:
        exc.text = json.dumps(
            {
                "type": "about:blank",
                "title": HTTPStatus(exc.status).phrase,
                "status": exc.status,
                "detail": text,
            }
        )
    raise exc


def _html(title: str, text: str, link: tuple[str, str] | None) -> str:
    more = ""
    if link is not None:
        words, href = map(html.escape, link)
        more = f'<p><a href="{href}">{words}</a></p>\n'
    # What cannot be encoded was sent by somebody who tried.
    said = html.escape(text).encode("utf-8", "backslashreplace").decode()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n<p>{said}</p>\n{more}"
        "</body></html>\n"
    )


def see_other(location: str | URL) -> NoReturn:
    """RFC 9700 4.12: 303, so that nothing is sent again."""
    raise web.HTTPSeeOther(
        # As it is: it has been looked at.
        location if isinstance(location, URL) else URL(location, encoded=True),
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def only(request: web.Request, method: str) -> None:
    """Refuse other methods."""
    if request.method != method:
        page(
            request,
            partial(web.HTTPMethodNotAllowed, request.method, (method,)),
            "Method not allowed",
            f"This address takes {method} only.",
        )
