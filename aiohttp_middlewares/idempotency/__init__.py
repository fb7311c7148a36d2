"""
======================
Idempotency middleware
======================

Handles each ``Idempotency-Key`` once, however often the client has to ask: for
payments, orders and all that must not happen twice because an answer was lost.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import error_middleware, idempotency_middleware


    async def pay(request: web.Request) -> web.Response:
        order = await request.json()
        return web.json_response({"paid": order["amount"]}, status=201)


    app = web.Application(
        middlewares=[error_middleware(), idempotency_middleware()]
    )
    app.router.add_post("/payments", pay)

A client makes up a key for each thing it wants done, and sends it with every
attempt: ``Idempotency-Key: "8e03978e-40d5-43e8-bc93-6894a57f9324"``
(draft-ietf-httpapi-idempotency-key-header-07). The first attempt is handled,
the others get its answer. Requests without a key are left alone.

With several processes, keep the answers in one place (``pip install
"aiohttp-middlewares[redis]"``):

.. code-block:: python

    from aiohttp_middlewares import RedisStore, idempotency_middleware
    from redis.asyncio import Redis

    idempotency_middleware(store=RedisStore(Redis()))

What is answered
================

1. The first request with a key: what its handler answers.
2. The same one again: the same status, headers and body, and
   ``Idempotent-Replayed: true``. An ``HTTPException`` that was raised is raised
   again, so that its error page is the same. Cookies, and what concerns one
   connection only, are not repeated.
3. The same one while the first is handled: ``409`` with ``Retry-After``.
4. Another one with that key, in method, path, query or body: ``422``.
5. A key that is malformed, in several header lines, or missing where it is
   ``required``: ``400``. It has 1 to 255 visible ASCII characters, in quotes or
   not. A body that cannot be read, such as invalid gzip: ``400``.
6. A body of more than ``max_body`` bytes: ``413``.
7. If the store is away, such as Redis: ``503``; no handler is called.

Answers that would be the same the next time are remembered: those below 500
except 401, 403, 408, 409, 425 and 429. After these, after 5xx, after any other
exception, and when the handler is cancelled, the key is free again.

An answer that cannot be kept (a stream, a file, one that the handler has
prepared, one of more than ``max_body`` bytes) is remembered as done: the next
request gets ``409`` without ``Retry-After``, and the handler is not called
again. The same goes for a handler that fails half-way through a stream.

Whose key it is
===============

Keys of different clients are different keys. A client is who
:func:`~aiohttp_middlewares.get_user` knows, else an address
(``request.remote``): somebody unknown whose address has changed is another
client, and is served once more. If you know clients by other means, say so:

.. code-block:: python

    import aiohttp_session
    from aiohttp import web
    from aiohttp_middlewares import idempotency_middleware


    async def user(request: web.Request) -> str:
        session = await aiohttp_session.get_session(request)
        if "user" not in session:
            raise web.HTTPUnauthorized(text="Log in first")
        return session["user"]


    idempotency_middleware(scope=user)

Order
=====

Innermost: inside of all that finds out who asks, or one client would be another
(if that turns out, the answer is not given again, and a warning says so). And
inside of :mod:`aiohttp_middlewares.shield`, with which a handler goes on when
its client leaves and has its answer remembered. A shield inside of it would let
a handler go on whose key is free again. What stands inside of it, and changes
answers, is not asked about repeated ones.

Limits
======

The body is read, up to ``max_body``, before the handler is called, which can
read it in any way. No lock is held meanwhile: of two uploads at the same time,
the one that ends first is handled. A retry must send the same bytes; a form
that is encoded anew, with another boundary, is another body.

An ``HTTPException`` of a class of your own is raised again as aiohttp's for its
status, with its headers, body, ``message`` and ``data``.

A :class:`MemoryStore` that is full forgets the oldest answers, whoever fills
it: a rate limit outside holds that back.

A Redis that forgets or evicts keys forgets answers: give it
``maxmemory-policy noeviction``. A handler that blocks its event loop for 30
seconds loses its lock. So does one while Redis is away for as long, or forgets
the lock: Redis is told of it again within 3 seconds. Another process may handle
the same request then. The first of both answers is given to both, if it can be,
and the log says so as a WARNING.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from inspect import isawaitable
from typing import NoReturn

from aiohttp import hdrs, web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.requests import lines, warn_once
from aiohttp_middlewares._core.sending import (
    HANDLERS,
    RESPONSES,
    AnsweredAlready,
    Headers,
    before_sending,
    is_given_up,
    started,
)
from aiohttp_middlewares._core.statuses import Unavailable
from aiohttp_middlewares._core.urls import exemption, url_matcher
from aiohttp_middlewares._core.who import caller_known, get_user
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.idempotency._answer import Answer, is_final
from aiohttp_middlewares.idempotency._body import TooLarge, read_ahead
from aiohttp_middlewares.idempotency._redis import RedisStore
from aiohttp_middlewares.idempotency._store import (
    DEFAULT_MAX_BYTES,
    Found,
    MemoryStore,
    Store,
    StoreUnavailable,
    refuse_store,
)

__all__ = (
    "DEFAULT_HEADER",
    "DEFAULT_MAX_BODY",
    "DEFAULT_MAX_BYTES",
    "DEFAULT_METHODS",
    "DEFAULT_TTL",
    "MemoryStore",
    "RedisStore",
    "default_scope",
    "idempotency_middleware",
)

logger: logging.Logger = logs.get_logger(__name__)

#: That of the draft.
DEFAULT_HEADER = "Idempotency-Key"
#: Those of which a second one does harm: RFC 9110 9.2.2, RFC 5789.
DEFAULT_METHODS = ("POST", "PATCH")
#: In seconds: a day.
DEFAULT_TTL = 86400
#: In bytes, of a request as well as of an answer.
DEFAULT_MAX_BODY = 1024**2


def default_scope(request: web.Request) -> str:
    """Who asks, as far as that is known, else an address."""
    user = get_user(request)
    # A user may have the name of an address.
    if user is not None:
        return f"user {user}"
    if not request.remote:
        _warn_of_nobody()
    return f"address {request.remote}"


_warn_of_nobody = warn_once(
    logger,
    "idempotency_middleware knows no address, as by a unix socket: all unknown "
    "clients share their keys, and get each other's answers; "
    "proxy_headers_middleware(trusted=['unix']) outside takes the address from "
    "the proxy",
)


def idempotency_middleware(
    *,
    store: Store | None = None,
    header: str = DEFAULT_HEADER,
    methods: StrCollection = DEFAULT_METHODS,
    required: bool = False,
    ttl: float = DEFAULT_TTL,
    scope: Callable[[web.Request], str | Awaitable[str]] = default_scope,
    max_body: int = DEFAULT_MAX_BODY,
    urls: Urls | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Give the first answer again to a request that is repeated.

    :param store:
        Where answers are kept: a :class:`RedisStore` for several processes. By
        default: a new :class:`MemoryStore`.
    :param header:
        The name of the header. By default: :data:`DEFAULT_HEADER`.
    :param methods:
        For requests with these methods, without case. By default: ``POST``
        and ``PATCH``.
    :param required:
        Whether a request without a key is refused. By default: ``False``.
    :param ttl:
        For how many seconds an answer is remembered. By default: a day.
    :param scope:
        Takes the request, and tells the name of the client whose key it is; it
        may be a coroutine function. By default: :func:`default_scope`.
    :param max_body:
        How many bytes the body of a request may have, and that of an answer
        that is kept. By default: 1 MiB.
    :param urls:
        URLs for which this holds: a collection of paths, patterns and URLs, or
        a mapping of them to methods. By default: all.
    :param ignore: URLs for which it does not hold. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option can never work.
    """
    what = "idempotency_middleware"
    if store is None:
        store = MemoryStore()
    elif not isinstance(store, Store):
        refuse_store(f"{what} store", "a MemoryStore or a RedisStore", store)
    name = options.header_name(f"{what} header", header)
    covered_methods = options.methods(f"{what} methods", methods)
    options.flag(f"{what} required", required)
    options.seconds(f"{what} ttl", ttl)
    options.function(f"{what} scope", scope)
    options.integer(f"{what} max_body", max_body)
    covered = url_matcher(f"{what} urls", urls)
    ignored = exemption(f"{what} ignore", ignore)
    too_late = warn_once(
        logger,
        "Two bodies look the same to idempotency_middleware once they were "
        "read: move what reads them further in",
    )
    too_early = warn_once(
        logger,
        "idempotency_middleware knows too little of who asks to give answers "
        "again: move it inside of what finds that out",
    )

    @middleware(scope=scope, methods=covered_methods)
    async def idempotency(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if not required and name not in request.headers:
            return await handler(request)
        if (
            request.method not in covered_methods
            or (covered is not None and not covered(request))
            or (ignored is not None and ignored(request))
            or stored(request, _SEEN)  # by another one further out
        ):
            return await handler(request)

        sent = _key_of(request, name)
        key = _digest(await _named(scope, request), sent)
        request[_SEEN] = _known_of(request)
        try:
            body = await read_ahead(request, max_body, too_late)
        except TooLarge:
            logs.refused(logger, request, "its body is too large")
            raise
        except web.RequestPayloadError:
            # aiohttp would answer 500, be it that no handler reads the body.
            _refuse(
                request,
                web.HTTPBadRequest,
                "The body cannot be read",
                "its body cannot be read",
            )
        payload = _digest(request.method, request.rel_url.raw_path_qs, body)
        try:
            found = await store.begin(key, payload)
        except StoreUnavailable as exc:
            _refuse(
                request,
                Unavailable,
                "Idempotency keys cannot be looked up, please try again",
                f"the store is unavailable ({exc})",
                again=True,
            )
        if found is not None:
            return _answer_again(request, found, payload)
        return await answer_first(request, handler, key, payload)

    async def answer_first(
        request: web.Request, handler: Handler, key: str, payload: str
    ) -> web.StreamResponse:
        begun = _Begun()
        before_sending(request, begun.note)
        try:
            response = await handler(request)
            status, answer = begun.status, None
            if not status and isinstance(response, RESPONSES):
                status = response.status
                answer = Answer.of(response, max_body)
        except web.HTTPException as exc:
            status = begun.of(request)
            answer = None if status else Answer.of_raised(exc, max_body)
            done = is_final(status or exc.status)
            found = await settle(request, key, done, answer)
            if found is None or status or found.payload != payload:
                raise
        except (Exception, asyncio.CancelledError) as exc:
            # It began to answer, be it too late for anybody to hear.
            done = isinstance(exc, AnsweredAlready)
            if status := begun.of(request):
                done = is_final(status)
            await settle(request, key, done, None)
            raise
        else:
            # What is no response is answered 500 by aiohttp.
            found = await settle(request, key, is_final(status or 500), answer)
            if found is None or begun.status or found.payload != payload:
                return response
        return _answer_again(request, found, payload)

    async def settle(
        request: web.Request, key: str, done: bool, answer: Answer | None
    ) -> Found | None:
        """Say what became of it; what comes back is to be answered instead."""
        if (
            answer is not None
            and scope is default_scope
            and _known_of(request) != stored(request, _SEEN)
        ):
            # It is for somebody whom the key does not tell from others.
            too_early()
            answer = None
        try:
            if not done:
                await store.release(key)
                return None
            found = await store.complete(key, answer, ttl)
        except StoreUnavailable as exc:
            facts = logs.facts(request, reason=exc)
            logger.warning(
                "What became of %(method)s %(path)s could not be remembered, "
                "as the store is unavailable: %(reason)s",
                facts,
                extra=facts,
            )
            return None
        if found is not None:
            facts = logs.facts(request)
            logger.warning(
                "%(method)s %(path)s was handled more than once, as its lock "
                "was lost: the first answer counts",
                facts,
                extra=facts,
            )
        return found

    return idempotency


#: What was known of who asks when it came by.
_SEEN = request_key("aiohttp_middlewares.idempotency", tuple)

# RFC 9651 3.3.3, without the blanks that it permits.
_QUOTED = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"')
_BARE = re.compile(r"[!#-~]+")
_LONGEST_KEY = 255


def _key_of(request: web.Request, header: istr) -> str:
    """The key that was sent, without its quotes."""
    sent = lines(request, header)
    if not sent:
        _refuse(
            request,
            web.HTTPBadRequest,
            f"{header} is missing",
            "it has no idempotency key",
        )
    if len(sent) == 1:
        key = sent[0]
        if quoted := _QUOTED.fullmatch(key):
            key = re.sub(r"\\(.)", r"\1", quoted[1])
        elif not _BARE.fullmatch(key):
            key = ""
        if 1 <= len(key) <= _LONGEST_KEY:
            return key
    _refuse(
        request,
        web.HTTPBadRequest,
        f"{header} should be one key, of 1 to {_LONGEST_KEY} visible "
        "characters",
        "its idempotency key is malformed",
    )


def _known_of(request: web.Request) -> tuple[str | None, str | None]:
    """What :func:`default_scope` goes by, also if a clone has found it out."""
    caller = caller_known(request)
    return caller.user, caller.remote if caller.user is None else None


async def _named(
    scope: Callable[[web.Request], str | Awaitable[str]], request: web.Request
) -> str:
    name = scope(request)
    if isawaitable(name):
        name = await name
    if not isinstance(name, str):
        # Some that are no strings look the same for everybody.
        raise TypeError(
            "idempotency_middleware scope should return a string, returned a "
            f"{type(name).__name__}"
        )
    return name


def _digest(*parts: str | bytes) -> str:
    """A name for all of them together that says nothing of them."""
    digest = sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        # What ends where is a part of it.
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


def _answer_again(
    request: web.Request, found: Found, payload: str
) -> web.Response:
    if found.payload != payload:
        _refuse(
            request,
            web.HTTPUnprocessableEntity,
            "The idempotency key was used for another request",
            "its idempotency key was used for another request",
        )
    if not found.done:
        _refuse(
            request,
            web.HTTPConflict,
            "A request with this idempotency key is being handled",
            "its idempotency key is in use",
            again=True,
        )
    if found.answer is None:
        _refuse(
            request,
            web.HTTPConflict,
            "The request with this idempotency key was handled, and its "
            "answer cannot be given again",
            "it was handled before, with an answer that was not kept",
        )
    response = found.answer.again()
    if isinstance(response, web.HTTPException):
        raise response
    return response


def _refuse(
    request: web.Request,
    error: Callable[..., web.HTTPException],
    text: str,
    reason: str,
    *,
    again: bool = False,
) -> NoReturn:
    logs.refused(logger, request, reason)
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    if again:
        headers[hdrs.RETRY_AFTER] = "1"
    raise error(text=text, headers=headers)


class _Begun:
    """Whether the handler has begun to answer by itself, and how."""

    def __init__(self) -> None:
        self.status = 0
        self.within = frozenset(HANDLERS.get())

    def note(self, status: int, headers: Headers) -> None:
        # Of the handler, and not of a limit that strikes while it goes on
        # behind a shield.
        if self.within.issubset(HANDLERS.get()):
            self.status = status

    def of(self, request: web.Request) -> int:
        """The status of which a handler that failed has sent a part, or 0."""
        out = started(request) and not is_given_up(request)
        return self.status if out else 0
