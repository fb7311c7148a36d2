"""
=====================
Rate limit middleware
=====================

Rate limiting: lets each client make so many requests in a while, counted over
all processes and machines that serve it.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import check_rate_limit, rate_limit_middleware
    from aiohttp_middlewares.rate_limit import rate_limit


    @rate_limit("5/minute")
    async def search(request: web.Request) -> web.Response:
        return web.json_response(["found"])


    async def login(request: web.Request) -> web.Response:
        name = str((await request.post()).get("name"))
        await check_rate_limit(request, "10/hour", key=f"login:{name}")
        return web.Response(text="checked the password")


    app = web.Application(
        middlewares=[
            rate_limit_middleware(
                "10/second;300/minute",
                storage="async+redis://localhost:6379",
                ignore=["/healthz"],
            )
        ]
    )
    app.router.add_get("/search", search)
    app.router.add_post("/login", login)

It takes ``pip install "aiohttp-middlewares[rate-limit-redis]"``, or
``[rate-limit]`` where one process counts for itself, in memory: the default.
The counting is done by the package `limits <https://limits.readthedocs.io>`_,
with any of its asynchronous storages.

RateLimit headers and 429
=========================

Every answer to a limited request, whatever kind of answer it is, says what is
left, by `draft-ietf-httpapi-ratelimit-headers-11
<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/>`_::

    RateLimit-Policy: "10-per-second";q=10;w=1, "300-per-minute";q=300;w=60
    RateLimit: "10-per-second";r=9;t=1, "300-per-minute";r=154;t=17

``q`` units in ``w`` seconds; ``r`` are left, and in ``t`` seconds there will
be more. All limits of a request are in one list: those of nested middlewares,
of :func:`rate_limit` and of :func:`check_rate_limit`, too. A second one of the
same name is called ``"5-per-minute-2"``; if there are more than 16, the first
are told.

A request that is refused gets ``429 Too Many Requests``, ``Cache-Control:
no-store`` and a ``Retry-After`` of one second at least. A client that waits so
long gets in, unless somebody else takes the units meanwhile.

Whom it counts
==============

By default :func:`client_ip`, for each route: ``/users/{id}`` is one, whatever
the id, and all that is answered 404 or 405 is another. So ``"300/minute"``
means 300 of each route; with ``scope="global"``, 300 of all together. A
function of your own as ``key`` gives any string instead; ``None`` stands for a
request that is not limited. What a client sends may be a key: of scope and key
together only a hash is kept, and no key reaches into the bucket of another
scope or of another key function. (Functions go by their module and name, a
lambda by its line: several that one function has made, or that are partial
objects of one, count as the same where they share a storage. A word in front of
the key tells them apart.)

Several limits
==============

All are tested before any is counted, so that a request that one of them refuses
takes nothing from the others. In memory and in Redis (by redis-py) that is
atomic. Other storages are asked twice for each limit; there, two requests in
the same moment may still take a unit from one limit while another refuses them.

How many round trips
====================

One to Redis for each time that something is counted, whatever the number of
limits. The first request to a Redis that does not know the script yet takes
two more, to hand it over. Inside of it run the scripts of ``limits``; with
scripts of a version that is not known here it is asked as other storages are.

When the storage is away
========================

No request waits longer than ``storage_timeout``. ``on_storage_error`` says what
happens then: ``"allow"`` lets all pass and tells nothing of limits, ``"deny"``
answers 503 with a ``Retry-After``, ``"memory"`` counts in each process for
itself. The log has one warning when the storage is found to be away, and one
line at ``INFO`` when it is back.

A storage that failed is left alone for as long as the last try has taken, a
tenth of a second at least. Then one request tries again, and the others go on
without. When all connections are in use, that is not an outage: requests queue
for them. A request whose time is over before it had a connection is treated as
in an outage, which is logged once.

A request that is cancelled is counted.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers`, which decides who the client
is: outside of it all visitors have the address of the proxy, and one bucket.
Inside of :mod:`aiohttp_middlewares.cors` and :mod:`aiohttp_middlewares.error`,
so that a page in a browser can read a 429, and preflights are not counted. (A
page of another origin reads the fields only if ``expose_headers`` of cors names
them: ``RateLimit``, ``RateLimit-Policy``, ``Retry-After``.)
Outside of :mod:`aiohttp_middlewares.body_limit` and all that works: a request
that is refused costs nothing more. If the key is the logged-in user, a second
one stands inside of what finds that out.

Limits
======

A middleware that stands twice, in an application and in a sub-application,
counts twice.

In memory each process counts for itself, forgets all when it stops, and keeps
some 100,000 counts: beyond that the oldest are forgiven. Applications that
share a Redis share the buckets of routes with the same name: give each a
database of its own (``async+redis://localhost:6379/1``).

``"moving-window"`` is exact, and stores a time for each unit;
``"sliding-window"`` stores two numbers, and takes the requests of the last
window for evenly spread; its windows begin in memory by the clock, at each full
minute, so that nearly twice as many may pass in the minute after a burst, and
in Redis with the first unit; ``"fixed-window"`` stores one, and lets twice as
many pass around the end of a window. A cost that is higher than a limit is
always refused, with a whole window as ``Retry-After``.

The connections to a storage given as a URI are closed when the event loop ends;
whoever made a storage object closes it. A middleware serves one event loop at a
time: threads that run one each, and count in Redis, make one each.
"""

import functools
import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from aiohttp import hdrs, web
from multidict import istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.caching import LONGEST_KEY, remembered
from aiohttp_middlewares._core.grammar.networks import parse_node
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware, needing
from aiohttp_middlewares._core.requests import warn_once
from aiohttp_middlewares._core.routes import route_of
from aiohttp_middlewares._core.sending import Headers, departure_of
from aiohttp_middlewares._core.urls import exemption, url_matcher
from aiohttp_middlewares.annotations import Handler, Middleware, Urls
from aiohttp_middlewares.rate_limit._memory import is_local, memory_storage
from aiohttp_middlewares.rate_limit._outage import Guarded, OnStorageError
from aiohttp_middlewares.rate_limit._storage import (
    STRATEGIES,
    counter_of,
    limits_for,
    storage_of,
)
from aiohttp_middlewares.rate_limit._windows import (
    Counter,
    Limit,
    Window,
    parsed,
    retry_after,
    state,
)

__all__ = (
    "DEFAULT_STORAGE",
    "DEFAULT_STORAGE_TIMEOUT",
    "check_rate_limit",
    "client_ip",
    "rate_limit",
    "rate_limit_middleware",
)

#: In memory: each process counts for itself.
DEFAULT_STORAGE = "async+memory://"
#: Seconds.
DEFAULT_STORAGE_TIMEOUT = 1.0

#: A handler that counts in a loop would make headers without end, and a
#: WebSocket that counts messages would remember each.
MOST_TOLD = 16

RATE_LIMIT = istr("RateLimit")
RATE_LIMIT_POLICY = istr("RateLimit-Policy")

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])

Limits: TypeAlias = str | Sequence[str]
LimitsOf: TypeAlias = Callable[
    [web.Request], Limits | Awaitable[Limits | None] | None
]
Key: TypeAlias = Callable[[web.Request], str | Awaitable[str | None] | None]
Cost: TypeAlias = int | Callable[[web.Request], int | Awaitable[int]]
Scope: TypeAlias = (
    Literal["route", "global"] | Callable[[web.Request], str | Awaitable[str]]
)

logger: logging.Logger = logs.get_logger(__name__)


def client_ip(request: web.Request) -> str:
    """The address of the client; of an IPv6 address its network, a /64.

    A network of that size is what one customer gets. ``::ffff:192.0.2.1``
    counts as ``192.0.2.1``. It is ``request.remote``: behind a proxy, what
    ``proxy_headers_middleware`` has decided. Requests of which nobody knows
    the address, as by a unix socket, have one bucket together.
    """
    remote = request.remote
    if not remote:
        _warn_of_nobody()
        return ""
    return _network_of(remote)


_warn_of_nobody = warn_once(
    logger,
    "client_ip knows no address, as by a unix socket: all such requests share "
    "one rate limit; proxy_headers_middleware(trusted=['unix']) outside takes "
    "the address from the proxy",
)


def _text_of_network(remote: str) -> str:
    address = parse_node(remote)
    if address is None:  # a name, of whoever put it there
        return remote
    if address.version == 4:
        return str(address)
    return f"{address.exploded[:19]}::/64"


_network_of = remembered(_text_of_network, size=1024)


def rate_limit_middleware(
    limits: Limits | LimitsOf,
    *,
    key: Key = client_ip,
    cost: Cost = 1,
    scope: Scope = "route",
    storage: object = DEFAULT_STORAGE,
    strategy: Literal[
        "fixed-window", "moving-window", "sliding-window"
    ] = "sliding-window",
    on_storage_error: OnStorageError = "allow",
    storage_timeout: float = DEFAULT_STORAGE_TIMEOUT,
    urls: Urls | None = None,
    ignore: Urls | None = None,
) -> Middleware:
    """Answer 429 to who asks too often (RFC 6585 4).

    A function that is given here may be asynchronous. An exception of one goes
    on: it is not taken for leave to pass.

    :param limits:
        ``"100/minute"``, ``"10/second;100/minute"``, a list of such, or a
        function that gives one of these for a request, or ``None`` for one
        that is not limited.
    :param key:
        Gives a string for a request: whose requests are counted together.
        ``None`` for one that is not limited. By default: :func:`client_ip`.
    :param cost:
        How many units a request takes, or a function that gives it. What
        costs nothing is never refused. By default: 1.
    :param scope:
        ``"route"``: each route has buckets of its own. ``"global"``: one for
        all. Or a function that gives a string for a request. By default:
        ``"route"``.
    :param storage:
        Where it is counted: a URI of ``limits``, such as
        ``"async+redis://localhost:6379"``, or an object of
        ``limits.aio.storage``. By default in memory.
    :param strategy:
        ``"fixed-window"``, ``"moving-window"`` or ``"sliding-window"``. By
        default: ``"sliding-window"``.
    :param on_storage_error:
        What becomes of requests while the storage is away: ``"allow"``,
        ``"deny"`` (503) or ``"memory"``. By default: ``"allow"``.
    :param storage_timeout:
        How many seconds a request waits for the storage. By default: 1.
    :param urls:
        Limit only these, see :doc:`/why/matching`. By default all.
    :param ignore: Do not limit these. By default none.
    :raises ImportError: limits, or what the storage takes, is not installed.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError:
        Limits cannot be read, a cost is higher than one, or there is no such
        storage or strategy.
    """
    what = "rate_limit_middleware"
    limits_for(what, storage)
    if scope == "route":
        rule = _Rule(what, limits, key, cost, "route", route_of)
    elif scope == "global":
        rule = _Rule(what, limits, key, cost, "global", lambda request: "")
    elif callable(scope):
        rule = _Rule(what, limits, key, cost, "scope", scope)
    else:
        should = "'route', 'global' or a callable"
        error = ValueError if isinstance(scope, str) else TypeError
        options.refuse(error, f"{what} scope", should, scope)
    _one_of(f"{what} strategy", strategy, STRATEGIES)
    _one_of(
        f"{what} on_storage_error",
        on_storage_error,
        ("allow", "deny", "memory"),
    )
    options.seconds(f"{what} storage_timeout", storage_timeout)
    covered = url_matcher(f"{what} urls", urls)
    ignored = exemption(f"{what} ignore", ignore)
    place_of_counts, is_ours = storage_of(what, storage)
    counter = counter_of(what, place_of_counts, strategy)
    local = is_local(place_of_counts)
    if not local:
        instead = None
        if on_storage_error == "memory":
            instead = counter_of(what, memory_storage(), strategy)
        counter = Guarded(
            counter,
            place_of_counts,
            is_ours=is_ours,
            on_error=on_storage_error,
            instead=instead,
            timeout=storage_timeout,
        )

    # What another one that has the same counts in the same buckets as this.
    buckets = limits, key, scope, storage, strategy, urls, ignore

    # In memory that a URI names each has buckets of its own.
    @middleware(buckets=None if is_ours and local else buckets)
    async def rate_limit(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        visit = stored(request, _VISIT)
        if visit is None:
            visit = request[_VISIT] = _Visit(counter)
        else:
            visit.counter = counter
        if (covered is not None and not covered(request)) or (
            ignored is not None and ignored(request)
        ):
            return await handler(request)
        place = await rule.hold(request, visit)
        response = await handler(request)
        if place is not None:
            departure_of(request).passes(place, response)
        return response

    return rate_limit


def rate_limit(
    limits: Limits | LimitsOf, *, key: Key = client_ip, cost: Cost = 1
) -> Callable[[H], H]:
    """Give a handler, or a method of a view, a limit of its own.

    It is counted in addition to that of :func:`rate_limit_middleware`, which
    has to be there and whose storage counts: the innermost, where there are
    several. The bucket has the name of the handler and its module, and so is
    the same in every process. What adds a route, such as
    ``@routes.get("/")``, stands above it.

    :param limits: As those of the middleware.
    :param key: Whose requests are counted together. By default:
        :func:`client_ip`.
    :param cost: How many units a request takes. By default: 1.
    :raises ImportError: limits is not installed.
    :raises RuntimeError: in a request without the middleware.
    :raises TypeError: an option is of the wrong type, or what it decorates is
        no coroutine function.
    :raises ValueError: limits cannot be read, or the cost is higher than one.
    """
    what = "rate_limit"
    # Once for its options, so that it fails where they stand.
    _Rule(what, limits, key, cost, "", route_of)

    def decorate(handler: H) -> H:
        if not inspect.iscoroutinefunction(handler):
            options.refuse(TypeError, what, "on a coroutine function", handler)
        name = _name_of(handler)
        rule = _Rule(what, limits, key, cost, "handler", lambda request: name)

        @functools.wraps(handler)
        async def limited(*args: Any, **kwargs: Any) -> web.StreamResponse:
            request = _request_in(args, kwargs)
            await rule.hold(request, _visit_in(what, request))
            return await handler(*args, **kwargs)

        needing(limited, "rate_limit")
        return limited  # type: ignore[return-value]

    return decorate


async def check_rate_limit(
    request: web.Request, limits: Limits, *, key: str, cost: int = 1
) -> None:
    """Count something else than requests, such as logins of one name.

    The key has a bucket of its own for each of the limits, whichever route it
    is counted in. It counts in the storage of the innermost
    :func:`rate_limit_middleware`.

    :param limits: ``"5/minute"``, ``"10/second;100/minute"``, or a list.
    :param key: What is counted. It may hold what the client sent.
    :param cost: How many units. By default: 1.
    :raises aiohttp.web.HTTPTooManyRequests: it was too often.
    :raises RuntimeError: the middleware is missing.
    :raises TypeError: an argument is of the wrong type.
    :raises ValueError: limits cannot be read.
    """
    what = "check_rate_limit"
    visit = _visit_in(what, request)
    found = _read(what, limits)
    if not isinstance(key, str):
        options.refuse(TypeError, f"{what} key", "a string", key)
    units = options.integer(f"{what} cost", cost)
    await _hold(request, visit, _bucket(key, "check"), found, units)


class _Rule:
    """What is counted for a request: by which limits, for whom, how much."""

    def __init__(
        self,
        what: str,
        limits: Limits | LimitsOf,
        key: Key,
        cost: Cost,
        kind: str,
        scope_of: Callable[[web.Request], str | Awaitable[str]],
    ) -> None:
        self.what = what
        limits_for(what)
        self.limits = None if callable(limits) else _read(what, limits)
        self.limits_of = limits if callable(limits) else None
        self.key = options.function(f"{what} key", key)
        self.key_name = _name_of(key)
        self.cost = cost
        if not callable(cost):
            options.integer(f"{what} cost", cost)
            for limit in self.limits or ():
                if 0 < limit.amount < cost:
                    should = f"{limit.amount} at most, as the limits have it"
                    options.refuse(ValueError, f"{what} cost", should, cost)
        self.kind = kind
        self.scope_of = scope_of

    async def hold(self, request: web.Request, visit: "_Visit") -> int | None:
        """Count the request: see :func:`_hold`."""
        limits = self.limits
        if self.limits_of is not None:
            given: Any = self.limits_of(request)
            if given is not None and not isinstance(given, str | list | tuple):
                given = await _awaited(given)
            if given is None:
                return None
            limits = _read(self.what, given)
        who: Any = self.key(request)
        if type(who) is not str:
            who = await _awaited(who)
            if who is None:
                return None
            if not isinstance(who, str):
                should = "a function that gives a string or None"
                options.refuse(TypeError, f"{self.what} key", should, who)
        units: Any = self.cost
        if type(units) is not int:
            units = options.integer(
                f"{self.what} cost",
                await _awaited(units(request) if callable(units) else units),
            )
        scope: Any = self.scope_of(request)
        if type(scope) is not str:
            scope = await _awaited(scope)
            if not isinstance(scope, str):
                should = "a function that gives a string"
                options.refuse(TypeError, f"{self.what} scope", should, scope)
        bucket = _bucket(who, self.kind, scope, self.key_name)
        return await _hold(request, visit, bucket, limits or (), units)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _one_of(what: str, value: object, known: Any) -> None:
    if not isinstance(value, str) or value not in known:
        error = ValueError if isinstance(value, str) else TypeError
        *first, last = map(repr, known)
        options.refuse(error, what, f"{', '.join(first)} or {last}", value)


def _read(what: str, given: object) -> tuple[Limit, ...]:
    """The limits of one text or of several."""
    if isinstance(given, str):
        return _parsed(what, given)
    found: dict[tuple[int, int], Limit] = {}
    of = "limits such as '100/minute'"
    for text in options.items(f"{what} limits", of, given):
        for limit in _parsed(what, text):
            found[limit.amount, limit.seconds] = limit
    if not found:
        options.refuse(ValueError, f"{what} limits", "at least one", given)
    return tuple(found.values())


def _parsed(what: str, text: object) -> tuple[Limit, ...]:
    if isinstance(text, str):
        return _reader(what)(text)
    return parsed(f"{what} limits", None, text)  # which refuses it


@functools.lru_cache
def _reader(what: str) -> Callable[[str], tuple[Limit, ...]]:
    """What reads limits, and remembers those that come again."""
    parse_many = limits_for(what).parse_many
    return remembered(
        lambda text: parsed(f"{what} limits", parse_many, text), size=256
    )


def _name_of(function: Any) -> str:
    """The same in every process that runs the same code."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if name.endswith("<lambda>"):  # as all of them
        name += f":{function.__code__.co_firstlineno}"
    return f"{getattr(function, '__module__', '')}.{name}"


def _bucket(key: str, kind: str, scope: str = "", key_name: str = "") -> str:
    """A name for what is counted, of which no part can take in another's."""
    short = len(scope) <= LONGEST_KEY
    prefix = (_known_prefix if short else _prefix)(kind, scope, key_name)
    # What a client sent may hold half of a character.
    data = prefix + key.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _prefix(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return text.encode("utf-8", "surrogatepass")


_known_prefix = functools.lru_cache(maxsize=1024)(_prefix)


def _request_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> web.Request:
    """That of a handler, of a method that gets it, or of a view."""
    for given in (*reversed(args), *kwargs.values()):
        if isinstance(given, web.Request):
            return given
        if isinstance(given, web.View):
            return given.request
    raise TypeError("rate_limit is for handlers, which get a request")


class _Visit:
    """What has been counted for a request, and where more is."""

    __slots__ = ("counter", "found", "has_job")

    def __init__(self, counter: Counter) -> None:
        #: That of the innermost middleware around.
        self.counter = counter
        self.found: list[tuple[Limit, Window]] = []
        self.has_job = False

    def tell(self, status: int, headers: Headers) -> None:
        if len(self.found) == 1:
            ((limit, window),) = self.found
            headers[RATE_LIMIT_POLICY] = limit.policy
            headers[RATE_LIMIT] = f'"{limit.name}";{state(limit, window)}'
            return
        policies: dict[str, str] = {}
        states = []
        for limit, window in self.found[:MOST_TOLD]:
            name = limit.name
            number = 1
            while name in policies:
                number += 1
                name = f"{limit.name}-{number}"
            policies[name] = limit.policy.replace(limit.name, name, 1)
            states.append(f'"{name}";{state(limit, window)}')
        headers[RATE_LIMIT_POLICY] = ", ".join(policies.values())
        headers[RATE_LIMIT] = ", ".join(states)


_VISIT = request_key("aiohttp_middlewares.rate_limit", _Visit)


def _visit_in(what: str, request: web.Request) -> _Visit:
    visit: _Visit | None = stored(request, _VISIT)
    if visit is None:
        raise RuntimeError(
            f"{what} needs rate_limit_middleware: put one into the middlewares "
            "of the application"
        )
    return visit


async def _hold(
    request: web.Request,
    visit: _Visit,
    bucket: str,
    limits: Sequence[Limit],
    units: int,
) -> int | None:
    """Count, and have the answer say so.

    :returns: The place of what does that, if it is there since this call.
    :raises aiohttp.web.HTTPTooManyRequests: the units do not fit.
    """
    fits, windows = await visit.counter.count(bucket, limits, units)
    place = None
    if windows and len(visit.found) < MOST_TOLD:
        visit.found += zip(limits, windows, strict=True)
        if not visit.has_job:
            visit.has_job = True
            place = departure_of(request).add(visit.tell)
    if fits:
        return place
    logs.refused(logger, request, "rate limit")
    raise web.HTTPTooManyRequests(
        headers={
            hdrs.RETRY_AFTER: str(retry_after(limits, windows, units)),
            hdrs.CACHE_CONTROL: "no-store",
        }
    )
