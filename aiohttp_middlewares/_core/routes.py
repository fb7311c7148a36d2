"""Names for what is asked, of which there are no more than the server has.

What a client sends is no name for a series, a bucket or a span: anybody can
make up more of it.
"""

from typing import Any

from aiohttp import web

#: RFC 9110 9 and RFC 5789.
METHODS = frozenset(
    (
        "CONNECT",
        "DELETE",
        "GET",
        "HEAD",
        "OPTIONS",
        "PATCH",
        "POST",
        "PUT",
        "TRACE",
    )
)
OTHER_METHOD = "_OTHER"
UNMATCHED = "__unmatched__"


def method_of(request: web.Request) -> str:
    """The method, or ``_OTHER`` for what is no standard one."""
    method = request.method
    return method if method in METHODS else OTHER_METHOD


def route_of(request: web.Request) -> str:
    """The path of the route, such as ``/users/{name}``.

    With the prefixes of its sub-applications; ``__unmatched__`` for what is
    answered 404 or 405.
    """
    match: Any = request.match_info
    try:
        path = match.route.resource.canonical
    except AttributeError:  # there is none, or no application has routed it
        return UNMATCHED
    # make_mocked_request() makes a mock of it.
    return path if isinstance(path, str) else UNMATCHED
