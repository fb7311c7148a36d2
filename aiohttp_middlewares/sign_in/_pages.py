"""What visitors see who are not where they wanted to be."""

import html
import json
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web
from yarl import URL

from aiohttp_middlewares._core.grammar.fields import best_media_type
from aiohttp_middlewares._core.requests import lines
from aiohttp_middlewares._core.statuses import Foreseen, Rendered

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


class BadRequest(Rendered, web.HTTPBadRequest):
    pass


class Unauthorized(Rendered, web.HTTPUnauthorized):
    pass


class Forbidden(Rendered, web.HTTPForbidden):
    pass


class MethodNotAllowed(Rendered, web.HTTPMethodNotAllowed):
    pass


class InternalServerError(Rendered, web.HTTPInternalServerError):
    pass


class BadGateway(Foreseen, Rendered, web.HTTPBadGateway):
    """What the provider did wrong is no error of the site."""


def page(
    request: web.Request,
    kind: Callable[..., web.HTTPException],
    status: int,
    title: str,
    text: str,
    link: tuple[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.HTTPException:
    """A page, in HTML or as problem details (RFC 9457) by ``Accept``.

    :param status: That of its kind.
    :param text: What it says; anybody's words may be in it.
    :param link: What is written on it, and a path of ours.
    """
    text = text[:LONGEST_TEXT]
    offers = (PROBLEM_JSON, "text/html", "application/json")
    chosen = best_media_type(lines(request, hdrs.ACCEPT), offers)
    is_html = chosen == "text/html"
    return kind(
        headers={**_HEADERS, **(headers or {})},
        content_type="text/html" if is_html else PROBLEM_JSON,
        text=_html(title, text, link) if is_html else _problem(status, text),
    )


def _problem(status: int, text: str) -> str:
    return json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": text,
        }
    )


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
        f"<title>{title}</title></head>\n"
        f"<body><h1>{title}</h1>\n<p>{said}</p>\n{more}</body></html>\n"
    )


def see_other(location: str | URL) -> web.HTTPException:
    """RFC 9700 4.12: 303, so that nothing is sent again."""
    return web.HTTPSeeOther(
        # As it is: it has been looked at.
        location if isinstance(location, URL) else URL(location, encoded=True),
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def wrong_method(
    request: web.Request, *methods: str
) -> web.HTTPException | None:
    """The refusal of others than these, if this is one."""
    if request.method in methods:
        return None
    return page(
        request,
        partial(MethodNotAllowed, request.method, methods),
        405,
        "Method not allowed",
        f"This address takes {methods[0]} only.",
    )
