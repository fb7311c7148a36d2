"""What can be wrong with a list of middlewares: one table, at the end."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from aiohttp_middlewares.check._stacks import (
    NO_MIDDLEWARE,
    OF_CLIENT,
    Listed,
    Stack,
)
from aiohttp_middlewares.error import debug_error_handler
from aiohttp_middlewares.idempotency import default_scope
from aiohttp_middlewares.session._cookie import CookieStorage
from aiohttp_middlewares.shield import drain_shielded

#: What a rule tells: the innermost place that it is about, what is wrong, and
#: what to do about it.
Told = tuple[int, str, str]


class Order(NamedTuple):
    """Some of a list have to stand outside of others.

    One further out is enough for all that is further in.
    """

    code: str
    outer: tuple[str, ...]
    inner: tuple[str, ...]
    #: What becomes of it otherwise, in words that fit all of them.
    harm: str
    #: For each of the outer ones there has to be one further in, instead.
    inwards: bool = False
    #: Only in one list: that of a sub-application may be meant for no more.
    beside: bool = False
    #: Of which of the outer and the inner ones that is true.
    when: Callable[[Mapping[str, Any], Mapping[str, Any]], object] = (
        lambda outer, inner: True
    )

    def find(self, stack: Stack) -> Iterator[Told]:
        # Of those further out it was told there: many handlers have no others.
        outers = stack.places(*self.outer, start=stack.own)
        if not outers:
            return
        for inner in stack.places(*self.inner):
            for outer in outers:
                around, within = stack.listed[inner], stack.listed[outer]
                if (
                    (stack.own if self.beside else 0) <= inner < outer
                    and not self.is_there(stack, inner, outer)
                    and self.when(within.options, around.options)
                ):
                    yield (
                        outer,
                        f"{around.name} stands outside of {within.name}: "
                        f"{self.harm}",
                        f"List {within.name} before {around.name}",
                    )

    def is_there(self, stack: Stack, inner: int, outer: int) -> bool:
        """Whether another one stands where it should."""
        if self.inwards:
            return any(place > outer for place in stack.places(*self.inner))
        return any(place < inner for place in stack.places(*self.outer))


class Rule(NamedTuple):
    """Anything else that can be wrong."""

    code: str
    #: What, and what becomes of it, in one sentence.
    fault: str
    find: Callable[[Stack], Iterator[Told]]


def _no_middleware(stack: Stack) -> Iterator[Told]:
    for place in stack.places(NO_MIDDLEWARE):
        function = stack.listed[place].middleware
        kind = type(function).__name__
        name = getattr(function, "__name__", f"something of type {kind}")
        if name.endswith("_middleware"):
            remedy = f"List what it makes: {name}(...)"
        elif isinstance(function, (list, tuple)):
            remedy = "Write a * before it, and its members are listed"
        else:
            remedy = "Take it out of the list"
        yield (
            place,
            f"{name} is listed, and is no middleware: every request ends in a "
            "500",
            remedy,
        )


def _of_client(stack: Stack) -> Iterator[Told]:
    for place in stack.places(OF_CLIENT):
        function = inspect.unwrap(stack.listed[place].middleware)
        name = getattr(function, "__qualname__", type(function).__qualname__)
        yield (
            place,
            f"{name.partition('.')[0]} is a middleware of clients: every "
            "request ends in a 500",
            "Give it to a ClientSession",
        )


def _debug_pages(stack: Stack) -> Iterator[Told]:
    for place in stack.places("error_middleware"):
        handlers = stack.listed[place].options["handlers"]
        if any(handler is debug_error_handler for handler in handlers):
            yield (
                place,
                "error_middleware answers with debug_error_handler: strangers "
                "see the source code of the application",
                "Use problem_error_handler where others have access",
            )


def _any_origin(stack: Stack) -> Iterator[Told]:
    for place in stack.places("cors_middleware"):
        options = stack.listed[place].options
        if options["allow_all"] and options["allow_credentials"]:
            yield (
                place,
                "cors_middleware has allow_all and allow_credentials: the "
                "pages of any site can read what a visitor sees here",
                "List the origins that may, with origins=[...]",
            )


def _alone(
    inner: str, outer: str, harm: str
) -> Callable[[Stack], Iterator[Told]]:
    """What stands without another one outside of it."""

    def find(stack: Stack) -> Iterator[Told]:
        for place in stack.places(inner):
            if not stack.has(outer, outside_of=place):
                yield (
                    place,
                    f"{inner} stands without {outer}: {harm}",
                    f"List {outer} before {inner}",
                )

    return find


def _not_drained(stack: Stack) -> Iterator[Told]:
    timeouts = stack.places("timeout_middleware")
    for place in stack.places("shield_middleware"):
        if any(timeout < place for timeout in timeouts) and not any(
            drain_shielded in app.cleanup_ctx for app in stack.apps
        ):
            yield (
                place,
                "shield_middleware stands inside of timeout_middleware, and "
                "drain_shielded is missing: a handler that goes on after its "
                "504 is not waited for when the server stops, and is lost",
                "Call app.cleanup_ctx.append(drain_shielded), last of all",
            )


def _rate_limit_twice(stack: Stack) -> Iterator[Told]:
    seen: list[Listed] = []
    for place in stack.places("rate_limit_middleware"):
        listed = stack.listed[place]
        if any(_count_as_one(listed, other) for other in seen):
            yield (
                place,
                "rate_limit_middleware is listed twice, with the same buckets: "
                "each request counts as two",
                "List it once, in the outermost application that it is for",
            )
        seen.append(listed)


def _count_as_one(one: Listed, other: Listed) -> bool:
    """Whether two count in the same buckets: in Redis, they may."""
    buckets = one.options["buckets"]
    return one.middleware is other.middleware or (
        buckets is not None and buckets == other.options["buckets"]
    )


def _rate_limit_alone(stack: Stack) -> Iterator[Told]:
    if stack.lacks("rate_limit", "rate_limit_middleware"):
        yield (
            len(stack.listed),
            "The handler is decorated with rate_limit, and stands inside of "
            "no rate_limit_middleware: every request ends in a 500",
            "List rate_limit_middleware"
            + _above(stack, "rate_limit", "rate_limit_middleware"),
        )


def _sessions_mixed_up(stack: Stack) -> Iterator[Told]:
    sessions = stack.places("session_middleware")
    for place in sessions:
        inner = stack.listed[place].options["storage"]
        for further_out in sessions:
            outer = stack.listed[further_out].options["storage"]
            if further_out < place and _fight(outer, inner):
                yield (
                    place,
                    "Two session_middlewares have the same cookie, "
                    f"{inner.cookie_name!r}: what one saves, the other takes "
                    "for nobody's",
                    "Give each a cookie_name of its own",
                )


def _fight(outer: Any, inner: Any) -> bool:
    """Whether each overwrites a cookie that the other could read."""
    if outer.cookie_name != inner.cookie_name or outer.cookie_params.get(
        "path"
    ) != inner.cookie_params.get("path"):
        return False
    if isinstance(outer, CookieStorage) and isinstance(inner, CookieStorage):
        return not (outer.reads(inner) and inner.reads(outer))
    return type(outer) is not type(inner)


def _session_in_clear(stack: Stack) -> Iterator[Told]:
    by_https = stack.places("https_middleware", "https_redirect_middleware")
    # A proxy may serve plain HTTP only. Of ours "auto" is right there as well.
    behind = by_https or stack.places("proxy_headers_middleware")
    for place in stack.places("session_middleware"):
        storage = stack.listed[place].options["storage"]
        if isinstance(storage, CookieStorage):
            in_clear = behind and not storage.secure
        else:
            in_clear = by_https and not storage.cookie_params.get("secure")
        if in_clear:
            yield (
                place,
                "session_middleware has a cookie that is not Secure, also "
                "where a visitor comes by HTTPS: browsers send it in clear "
                "text, too",
                "Leave https_only at 'auto', or give the storage secure=True",
            )


def _sign_in_strict(stack: Stack) -> Iterator[Told]:
    sessions = stack.places("session_middleware")
    for place in stack.places("sign_in_middleware"):
        # It is in that of the session next to it.
        outside = [session for session in sessions if session < place]
        if outside:
            storage = stack.listed[outside[-1]].options["storage"]
            if str(storage.cookie_params.get("samesite")).lower() == "strict":
                yield (
                    place,
                    "sign_in_middleware stands inside of a session_middleware "
                    "whose cookie is SameSite=Strict: it is not sent when "
                    "visitors come back from the provider, and nobody can "
                    "sign in",
                    "Leave same_site at 'lax'",
                )


def _bearer_shut_out(stack: Stack) -> Iterator[Told]:
    for place in stack.places("bearer_auth_middleware"):
        if stack.listed[place].options["required"]:
            continue  # whoever has no token gets nowhere, by intent
        for sign_in in stack.places("sign_in_middleware"):
            options = stack.listed[sign_in].options
            if (
                sign_in < place
                and options["required"]
                and options["ignore"] is None
            ):
                yield (
                    place,
                    "sign_in_middleware stands outside of "
                    "bearer_auth_middleware: whoever has a token is sent away "
                    "to sign in",
                    "List bearer_auth_middleware before sign_in_middleware",
                )


def _requires_nobody(stack: Stack) -> Iterator[Told]:
    if stack.lacks("requires", *WHO_ASKS):
        yield (
            len(stack.listed),
            "The handler is decorated with requires, and stands inside of "
            "nothing that finds out who asks: everybody is answered 401",
            "List bearer_auth_middleware, api_key_middleware or "
            "sign_in_middleware" + _above(stack, "requires", *WHO_ASKS),
        )


def _above(stack: Stack, decorator: str, *names: str) -> str:
    if not stack.places(*names):
        return ""
    return f", or write with_middlewares above {decorator}"


def _of(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_middleware" for name in names)


#: What finds out who asks.
WHO_ASKS = _of("api_key", "basic_auth", "bearer_auth", "sign_in")
#: What refuses requests before anything further in has seen them.
REFUSES = (
    *_of("body_limit", "concurrency_limit", "csrf", "early_data"),
    *_of("idempotency", "rate_limit"),
    *WHO_ASKS,
)
#: What answers before anything else is done.
GATES = _of("https_redirect", "trusted_host")
ANSWERS = (*GATES, "cors_middleware", *REFUSES)


def _shares_by_address(
    outer: Mapping[str, Any], inner: Mapping[str, Any]
) -> bool:
    """Whether idempotency keys are shared as they are by default."""
    return inner.get("scope", default_scope) is default_scope


def _asks_for_scheme(
    outer: Mapping[str, Any], inner: Mapping[str, Any]
) -> bool:
    storage = inner.get("storage")  # of a session
    return storage is None or (
        isinstance(storage, CookieStorage) and storage.secure == "auto"
    )


def _is_on_server(outer: Mapping[str, Any], session: Mapping[str, Any]) -> bool:
    # Those of aiohttp-session that keep all in a cookie have it in their name.
    return not isinstance(session["storage"], CookieStorage) and not any(
        kind.__module__.startswith("aiohttp_session")
        and kind.__name__.endswith("CookieStorage")
        for kind in type(session["storage"]).__mro__
    )


RULES: tuple[Order | Rule, ...] = (
    Rule(
        "no-middleware",
        "A factory that was not called is listed, or something else of this "
        "package that is no middleware, or what cannot be called at all, such "
        "as a list in the list: every request ends in a 500.",
        _no_middleware,
    ),
    Rule(
        "of-clients",
        "A middleware of clients is listed: every request ends in a 500.",
        _of_client,
    ),
    # what is seen of a request
    Order(
        "request-id-inside",
        _of("request_id"),
        (*ANSWERS, "timeout_middleware"),
        "what it answers, and logs, has no id",
        beside=True,
    ),
    Order(
        "access-log-inside",
        _of("access_log"),
        ANSWERS,
        "what it answers is not in the access log",
        beside=True,
    ),
    Order(
        "metrics-inside",
        _of("metrics"),
        ANSWERS,
        "what it answers is not counted",
        beside=True,
    ),
    Order(
        "tracing-inside",
        _of("tracing"),
        ANSWERS,
        "what it answers is in no trace",
        beside=True,
    ),
    Order(
        "server-timing-inside",
        _of("server_timing"),
        ANSWERS,
        "what it answers is not timed",
        beside=True,
    ),
    Order(
        "metrics-without-traces",
        _of("tracing"),
        _of("metrics"),
        "its exemplars find no trace",
        when=lambda tracing, metrics: metrics["exemplars"],
    ),
    # who asks, and for what
    Order(
        "proxy-headers-inside",
        _of("proxy_headers"),
        (
            *_of("tracing", "error", "report", "rate_limit", "timeout"),
            *_of("idempotency"),
        ),
        "it takes the address of the proxy for that of the visitor",
        when=_shares_by_address,
    ),
    Order(
        "proxy-host-inside",
        _of("proxy_headers"),
        _of("trusted_host"),
        "it judges the host that the proxy asked for, and not that of the "
        "visitor",
        when=lambda proxy, host: proxy["host"],
    ),
    Order(
        "https-inside",
        _of("https", "proxy_headers"),
        _of("https_redirect", "security_headers", "session", "csrf", "sign_in"),
        "HTTPS that a proxy in front takes off is taken for plain HTTP",
        when=_asks_for_scheme,
    ),
    Order(
        "trusted-host-inside",
        _of("trusted_host"),
        _of("https_redirect", "sign_in"),
        "it sends visitors to whatever host the request names",
    ),
    Order(
        "https-redirect-inside",
        _of("https_redirect"),
        WHO_ASKS,
        "it asks for credentials by plain HTTP, where anybody can read them",
    ),
    # what is on every answer
    Order(
        "security-headers-inside",
        _of("security_headers"),
        ("compression_middleware", *REFUSES),
        "what is answered outside of it has no security headers",
        beside=True,
    ),
    Order(
        "response-headers-inside",
        _of("response_headers"),
        REFUSES,
        "what it answers lacks the headers",
        beside=True,
    ),
    Order(
        "cors-inside",
        _of("cors"),
        REFUSES,
        "what it answers, preflights too, has no CORS headers, and browsers "
        "report a CORS error",
    ),
    Order(
        "error-outside-cors",
        _of("cors"),
        _of("error"),
        "what is refused in between has no CORS headers, and browsers report "
        "a CORS error",
        beside=True,
    ),
    Rule(
        "cors-any-site",
        "``cors`` has ``allow_all`` and ``allow_credentials``: the pages of "
        "any site can read what a visitor sees.",
        _any_origin,
    ),
    Order(
        "error-inside",
        _of("error"),
        (
            *_of("body_limit", "concurrency_limit", "csrf", "early_data"),
            *_of("idempotency", "rate_limit", "timeout"),
            # sign_in has pages of its own
            *_of("api_key", "basic_auth", "bearer_auth"),
        ),
        "what it raises is answered by aiohttp, as plain text or with no text "
        "at all",
    ),
    Rule(
        "debug-pages",
        "``error`` answers with ``debug_error_handler``: strangers see the "
        "source code of the application.",
        _debug_pages,
    ),
    # who hears of what nobody expected
    Order(
        "report-outside-error",
        _of("error"),
        _of("report"),
        "it hears of nothing, as error_middleware leaves no errors to it",
        inwards=True,
    ),
    Order(
        "report-inside-timeout",
        _of("report"),
        _of("timeout"),
        "its 504 is not reported",
    ),
    # what is refused before any work is done
    Order(
        "early-data-inside",
        _of("early_data"),
        _of("rate_limit"),
        "a request that is sent again after a 425 counts twice",
    ),
    Order(
        "rate-limit-inside",
        _of("rate_limit"),
        _of("body_limit", "basic_auth", "idempotency", "concurrency_limit"),
        "what it answers is not counted: anybody can ask as often as they like",
    ),
    Rule(
        "rate-limit-twice",
        "``rate_limit`` is listed twice, with the same buckets: each request "
        "counts as two.",
        _rate_limit_twice,
    ),
    Rule(
        "rate-limit-alone",
        "A handler is decorated with ``rate_limit``, and no ``rate_limit`` is "
        "listed: every request ends in a 500.",
        _rate_limit_alone,
    ),
    Order(
        "concurrency-limit-inside-timeout",
        _of("concurrency_limit"),
        _of("timeout"),
        "the time that a request waits for its turn is taken from it",
    ),
    Order(
        "concurrency-limit-inside-reader",
        _of("concurrency_limit"),
        _of("idempotency"),
        "the bodies of requests that wait for their turn are kept in memory",
    ),
    Order(
        "body-limit-inside",
        _of("body_limit"),
        _of("idempotency"),
        "it reads a body that is too large before it is refused",
    ),
    # the work
    Order(
        "etag-inside-session",
        _of("etag"),
        _of("session"),
        "an answer that sets the cookie of a session has a tag as well, to be "
        "kept with it",
    ),
    Rule(
        "timeout-alone",
        "``timeout`` stands without ``error``: the 504 is an empty page.",
        _alone(
            "timeout_middleware",
            "error_middleware",
            "visitors get aiohttp's 504, an empty page",
        ),
    ),
    Order(
        "timeout-inside-shield",
        _of("timeout"),
        _of("shield"),
        "the write that it protects ends at the limit",
        inwards=True,
    ),
    Rule(
        "shield-not-drained",
        "``shield`` stands inside of ``timeout``, and ``drain_shielded`` is "
        "missing: a handler that goes on after its 504 is lost when the server"
        " stops.",
        _not_drained,
    ),
    Order(
        "session-outside-error",
        _of("error"),
        _of("session"),
        "what a failed request has changed is saved",
    ),
    Order(
        "session-outside-timeout",
        _of("timeout"),
        _of("session"),
        "a storage that hangs keeps visitors waiting for ever",
        when=_is_on_server,
    ),
    Order(
        "session-outside-shield",
        _of("shield"),
        _of("session"),
        "what a shielded handler changes after its client has left is lost",
        when=_is_on_server,
    ),
    Rule(
        "sessions-mixed-up",
        "Two ``session`` have the same cookie, and cannot read each other's: "
        "visitors are logged out.",
        _sessions_mixed_up,
    ),
    Rule(
        "session-in-clear",
        "The cookie of ``session`` is not ``Secure``, and ``https`` or "
        "``https_redirect`` is listed, or ``proxy_headers`` beside "
        "``https_only=False``: browsers send it in clear text, too.",
        _session_in_clear,
    ),
    # who may do it
    Rule(
        "sign-in-alone",
        "``sign_in`` stands without ``session``: every request ends in a 500.",
        _alone(
            "sign_in_middleware",
            "session_middleware",
            "every request ends in a 500",
        ),
    ),
    Order(
        "sign-in-outside-session",
        _of("session"),
        _of("sign_in"),
        "every request ends in a 500",
    ),
    Rule(
        "sign-in-strict",
        "``sign_in`` stands inside of a ``session`` whose cookie is "
        "``SameSite=Strict``: nobody can sign in.",
        _sign_in_strict,
    ),
    Rule(
        "bearer-shut-out",
        "``sign_in`` stands outside of ``bearer_auth`` with "
        "``required=False``: whoever has a token is sent away to sign in.",
        _bearer_shut_out,
    ),
    Rule(
        "requires-nobody",
        "A handler is decorated with ``requires``, and nothing that finds out "
        "who asks is listed: everybody is answered 401.",
        _requires_nobody,
    ),
    # what is done once
    Order(
        "idempotency-outside-login",
        WHO_ASKS,
        _of("idempotency"),
        "all users behind one address share their keys, and nobody gets an "
        "answer again",
        when=_shares_by_address,
    ),
    Order(
        "idempotency-outside-shield",
        _of("shield"),
        _of("idempotency"),
        "the key is free once a timeout has struck, and a retry has the "
        "handler run a second time beside the first",
    ),
    Order(
        "idempotency-outside-compression",
        _of("compression"),
        _of("idempotency"),
        "an answer that is given again is not compressed",
    ),
)
