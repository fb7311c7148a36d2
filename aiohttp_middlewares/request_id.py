r"""
=====================
Request id middleware
=====================

Gives every request an id (correlation id): in its answer, in every line that is
logged for it, and in the requests that it makes to other services. It leads
from a user's complaint to the log lines of one request, among those of all
servers.

Usage
=====

.. code-block:: python

    import logging

    from aiohttp import web
    from aiohttp_middlewares import RequestIdFilter, request_id_middleware

    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(
        format="%(levelname)s %(request_id)s %(name)s: %(message)s",
        handlers=[handler],
    )

    app = web.Application(middlewares=[request_id_middleware()])

:func:`get_request_id` gives it to the handler, to the tasks that the handler
starts, and to whatever runs for the request without having it;
:func:`~aiohttp_middlewares.client.propagate_request_id_middleware` sends it on.

Which id
========

The one that the request has, if it is good: a proxy in front has made it, and
logs it, too. Otherwise a new one of 32 hexadecimal digits. Each answer bears it
in the first of the headers, once, whatever kind of answer it is.

What a client sends is never logged, except for a good id: one of 1 to 128
letters, digits and ``._~:/+=-``. Anybody can choose such an id; where it must
be unique, say with ``trusted`` who may.

Order
=====

Outermost: all others may log, and answer.

Limits
======

A task that was started for one request keeps its id for as long as it lives.
What aiohttp answers before any middleware runs has none, nor what it logs of
that: requests that it cannot parse, and an ``Expect`` that it does not know.
"""

import logging
import re
from collections.abc import Callable
from os import urandom
from typing import Any

from aiohttp import web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.grammar.networks import PeerCollection
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares._core.requests import Peers, lines
from aiohttp_middlewares._core.sending import Headers, departure_of
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
)

__all__ = (
    "DEFAULT_HEADER",
    "RequestIdFilter",
    "get_request_id",
    "new_request_id",
    "request_id_middleware",
)

#: What most proxies and services call it.
DEFAULT_HEADER = "X-Request-ID"

logger: logging.Logger = logs.get_logger(__name__)


def new_request_id() -> str:
    """32 random hexadecimal digits."""
    return urandom(16).hex()


def is_request_id(text: str) -> bool:
    """Whether it is short enough for a log, and leaves its lines whole."""
    return len(text) <= 128 and _ID.fullmatch(text) is not None


_ID = re.compile(r"[A-Za-z0-9._~:/+=-]+")


def request_id_middleware(
    *,
    header: str | StrCollection = DEFAULT_HEADER,
    generator: Callable[[], str] = new_request_id,
    validator: Callable[[str], bool] = is_request_id,
    trusted: PeerCollection | None = None,
) -> Middleware:
    """Give every request an id, and every answer its id.

    :param header:
        The name of the header, or several: the first is sent, the first that
        holds a good id is read. By default: :data:`DEFAULT_HEADER`.
    :param generator:
        Makes a new id. One that raises, or makes what no header can bear, is
        logged, and the default makes it. By default: 32 hexadecimal digits.
    :param validator:
        Whether an id that came is good; others are not taken, in silence, nor
        is what cannot be printed. One that raises is logged, without what it
        says of the id, and says no. By default: 1 to 128 letters, digits and
        ``._~:/+=-``.
    :param trusted:
        The peers that may name a request: IP addresses and networks, and
        ``"unix"`` for those on a unix socket. What counts is who is at the
        other end of the socket. ``[]`` trusts nobody; by default everybody is.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a header name or an address is none.
    """
    what = "request_id_middleware"
    given = (header,) if isinstance(header, str) else header
    names = [
        istr(name)
        for name in options.tokens(f"{what} header", "header names", given)
    ]
    if not names:
        options.refuse(ValueError, f"{what} header", "at least one", header)
    options.function(f"{what} generator", generator, awaited=False)
    options.function(f"{what} validator", validator, awaited=False)
    peers = None if trusted is None else Peers(f"{what} trusted", trusted)
    sent_as = names[0]

    def sent(request: web.Request) -> str | None:
        """The good id of a request, if it has one."""
        for name in names:
            if name not in request.headers:
                continue
            found = lines(request, name)
            if len(found) != 1 or not (peers is None or request in peers):
                continue
            try:
                # What is no Unicode, or breaks a line, no header can bear.
                if found[0].isprintable() and validator(found[0]):
                    return found[0]
            except Exception as exc:
                logger.error(
                    "The validator of request ids failed",
                    # Without its text, which may quote what was sent.
                    exc_info=RuntimeError(
                        f"It raised {type(exc).__name__}"
                    ).with_traceback(exc.__traceback__),
                )
        return None

    def made() -> str:
        """A new id: every answer is to bear one."""
        try:
            identity: Any = generator()
            if (
                isinstance(identity, str)
                and identity
                and identity.isprintable()
            ):
                return identity
            should = "a function that returns printable text"
            options.refuse(TypeError, f"{what} generator", should, identity)
        except Exception:
            logger.exception("The generator of request ids failed")
            return new_request_id()

    @middleware
    async def request_id(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if stored(request, _KEY) is not None:
            # Another one further out has been here.
            return await handler(request)
        request[_KEY] = identity = sent(request) or made()
        # It stays for what aiohttp logs in the end: each request has a
        # context of its own.
        REQUEST_ID.set(identity)

        def name(status: int, headers: Headers) -> None:
            headers[sent_as] = identity

        departure = departure_of(request)
        place = departure.add(name)
        response = await handler(request)
        departure.passes(place, response)
        return response

    return request_id


_KEY = request_key("aiohttp_middlewares.request_id", str)


def get_request_id() -> str | None:
    """The id of the current request; ``None`` outside of one."""
    return REQUEST_ID.get()


class RequestIdFilter(logging.Filter):
    """Gives each log record the id of its request, as ``request_id``.

    For a handler, so that it is there for the records of all loggers,
    aiohttp's own among them.

    :param default: What records have that belong to no request.
    """

    def __init__(self, default: str = "-") -> None:
        super().__init__()
        if not isinstance(default, str):
            options.refuse(
                TypeError, "RequestIdFilter default", "a string", default
            )
        self.default = default

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "request_id", None) is None:
            record.request_id = REQUEST_ID.get() or self.default
        return True
