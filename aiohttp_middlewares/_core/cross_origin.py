"""Whether a browser sends a request for a page of another origin."""

from aiohttp import hdrs, web
from multidict import istr

from aiohttp_middlewares._core.grammar.origins import (
    Origins,
    origin_at,
    parse_origin,
)
from aiohttp_middlewares._core.requests import authority_of, lines

SEC_FETCH_SITE = istr("Sec-Fetch-Site")
#: What it says of pages of this origin, and of users who typed the address.
SAME_ORIGIN = frozenset({"same-origin", "none"})


def is_cross_origin(
    request: web.Request,
    *,
    sites: frozenset[str] = SAME_ORIGIN,
    trusted: Origins | None = None,
) -> bool:
    """As ``CrossOriginProtection`` of Go's ``net/http`` judges.

    :param sites: What ``Sec-Fetch-Site`` may say.
    :param trusted: Other origins whose pages may send it all the same.
    """
    # No browser sends either twice: then nothing fits.
    site = said_site(request)
    if site in sites:
        return False
    origin = said_origin(request)
    if not origin:
        return bool(site)  # neither: this is no browser
    if trusted is not None and origin in trusted:
        return False
    return bool(site) or not is_own(origin, request)


def said_site(request: web.Request) -> str:
    return ", ".join(lines(request, SEC_FETCH_SITE))


def said_origin(request: web.Request) -> str:
    return ", ".join(lines(request, hdrs.ORIGIN))


def is_own(origin: str, request: web.Request) -> bool:
    """Whether scheme, host and port are those of the request (RFC 6454 5)."""
    theirs = parse_origin(origin)
    ours = authority_of(request)
    return (
        theirs is not None
        and ours is not None
        and theirs == origin_at(request.scheme, ours)
    )
