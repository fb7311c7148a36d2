"""Headers that belong to one attempt."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientRequest


@contextmanager
def header_for_now(req: ClientRequest, name: str, value: str) -> Iterator[None]:
    """Set a request header, and restore what there was in the end.

    A middleware outside may send the same request again, to another origin:
    what was meant for this one must not be in it then. Neither is it in
    ``response.request_info``, which exceptions show.
    """
    before = req.headers.getall(name, ())
    req.headers[name] = value
    try:
        yield
    finally:
        req.headers.popall(name, None)
        req.headers.extend((name, item) for item in before)
