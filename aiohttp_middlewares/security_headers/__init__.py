"""
===========================
Security headers middleware
===========================

Sets the headers by which browsers protect the visitors of a site, on every
answer: the defaults are those of `helmet <https://helmetjs.github.io>`_.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import csp_nonce, security_headers_middleware


    async def page(request: web.Request) -> web.Response:
        return web.Response(
            text=f'<script nonce="{csp_nonce(request)}">go()</script>',
            content_type="text/html",
        )


    app = web.Application(
        middlewares=[
            security_headers_middleware(
                content_security_policy={
                    "default-src": ["'self'"],
                    "script-src": ["'self'", "'nonce-{nonce}'"],
                    "object-src": ["'none'"],
                    "upgrade-insecure-requests": [],
                },
                x_frame_options="DENY",
                cross_origin_opener_policy=None,  # not sent
            )
        ]
    )
    app.router.add_get("/", page)

What reaches the browser
========================

Every answer has the headers: returned and raised ones, streams, files,
WebSocket handshakes, the 404 and 405 of the router, and the 500 and 504 that
aiohttp makes by itself. A header that the handler has set stays as it is, so
that one page can have a policy of its own.

``Strict-Transport-Security`` is sent by HTTPS only (RFC 6797 section 7.2).
``Server``, by which aiohttp tells its version, is removed.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers`, which knows the scheme;
outside of :mod:`aiohttp_middlewares.error`, though errors that pass by here
have the headers as well.

Limits
======

The default policy lets no other origin embed what it serves
(``Cross-Origin-Resource-Policy: same-origin``): an API for the pages of other
origins needs ``cross_origin_resource_policy="cross-origin"``. It lets no
inline script run, and has browsers fetch by HTTPS whatever a page refers to
(``upgrade-insecure-requests``). Answers that no middleware sees, such as 400
to what is no HTTP, bear none of the headers.
"""

import logging
import re
import secrets
from collections.abc import Collection, Mapping
from functools import partial
from typing import TypeAlias

from aiohttp import web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.keys import request_key
from aiohttp_middlewares._core.sending import Job, before_sending
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)

#: A policy as it is sent, or the sources of each directive.
ContentSecurityPolicy: TypeAlias = str | Mapping[str, str | Collection[str]]

DEFAULT_CONTENT_SECURITY_POLICY: Mapping[str, Collection[str]] = {
    "default-src": ("'self'",),
    "base-uri": ("'self'",),
    "font-src": ("'self'", "https:", "data:"),
    "form-action": ("'self'",),
    "frame-ancestors": ("'self'",),
    "img-src": ("'self'", "data:"),
    "object-src": ("'none'",),
    "script-src": ("'self'",),
    "script-src-attr": ("'none'",),
    "style-src": ("'self'", "https:", "'unsafe-inline'"),
    "upgrade-insecure-requests": (),
}
DEFAULT_REMOVE = ("Server",)

logger = logging.getLogger(__name__)


def security_headers_middleware(
    *,
    content_security_policy: ContentSecurityPolicy | None = (
        DEFAULT_CONTENT_SECURITY_POLICY
    ),
    content_security_policy_report_only: bool = False,
    cross_origin_embedder_policy: str | None = None,
    cross_origin_opener_policy: str | None = "same-origin",
    cross_origin_resource_policy: str | None = "same-origin",
    origin_agent_cluster: str | None = "?1",
    permissions_policy: str | None = None,
    referrer_policy: str | None = "no-referrer",
    strict_transport_security: str | None = (
        "max-age=31536000; includeSubDomains"
    ),
    x_content_type_options: str | None = "nosniff",
    x_dns_prefetch_control: str | None = "off",
    x_download_options: str | None = "noopen",
    x_frame_options: str | None = "SAMEORIGIN",
    x_permitted_cross_domain_policies: str | None = "none",
    x_xss_protection: str | None = "0",
    remove: StrCollection = DEFAULT_REMOVE,
    ignore: Urls | None = None,
) -> Middleware:
    """Set the headers that are named like the options.

    The value of each option is sent as it is; ``None`` leaves the header out.

    :param content_security_policy:
        A mapping of directives to their sources: a collection of them, empty
        for a directive without, or one string. It takes the place of
        :data:`DEFAULT_CONTENT_SECURITY_POLICY`, and mistakes in it are found
        here. Or the policy as a string. ``'nonce-{nonce}'`` in it becomes
        another nonce for each request, which :func:`csp_nonce` gives.
    :param content_security_policy_report_only:
        Send the policy as ``Content-Security-Policy-Report-Only``: browsers
        report what it would forbid. By default: ``False``.
    :param cross_origin_embedder_policy: By default: none.
    :param cross_origin_opener_policy: By default: ``"same-origin"``.
    :param cross_origin_resource_policy: By default: ``"same-origin"``.
    :param origin_agent_cluster: By default: ``"?1"``.
    :param permissions_policy: By default: none.
    :param referrer_policy: By default: ``"no-referrer"``.
    :param strict_transport_security:
        Sent by HTTPS only. By default: one year, with all subdomains.
    :param x_content_type_options: By default: ``"nosniff"``.
    :param x_dns_prefetch_control: By default: ``"off"``.
    :param x_download_options: By default: ``"noopen"``.
    :param x_frame_options: By default: ``"SAMEORIGIN"``.
    :param x_permitted_cross_domain_policies: By default: ``"none"``.
    :param x_xss_protection:
        By default: ``"0"``, which switches off what did more harm than good.
    :param remove:
        The names of headers that are taken off. By default: ``Server``.
    :param ignore:
        URLs whose answers are left alone: a collection of paths, patterns and
        URLs, or a mapping of them to methods. By default: none.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: a header or the policy is malformed.
    """
    what = "security_headers_middleware"
    options.flag(
        f"{what} content_security_policy_report_only",
        content_security_policy_report_only,
    )
    given = {
        "Cross-Origin-Embedder-Policy": cross_origin_embedder_policy,
        "Cross-Origin-Opener-Policy": cross_origin_opener_policy,
        "Cross-Origin-Resource-Policy": cross_origin_resource_policy,
        "Origin-Agent-Cluster": origin_agent_cluster,
        "Permissions-Policy": permissions_policy,
        "Referrer-Policy": referrer_policy,
        "Strict-Transport-Security": strict_transport_security,
        "X-Content-Type-Options": x_content_type_options,
        "X-DNS-Prefetch-Control": x_dns_prefetch_control,
        "X-Download-Options": x_download_options,
        "X-Frame-Options": x_frame_options,
        "X-Permitted-Cross-Domain-Policies": x_permitted_cross_domain_policies,
        "X-XSS-Protection": x_xss_protection,
    }
    always = [
        (
            istr(name),
            options.header_value(
                f"{what} {name.lower().replace('-', '_')}", value
            ),
        )
        for name, value in given.items()
        if value is not None
    ]
    without_tls = [item for item in always if item[0] != _HSTS]
    policy_name = istr(
        "Content-Security-Policy-Report-Only"
        if content_security_policy_report_only
        else "Content-Security-Policy"
    )
    policy = (
        None
        if content_security_policy is None
        else _policy(
            f"{what} content_security_policy", content_security_policy
        ).split("{nonce}")
    )
    if policy is not None and len(policy) == 1:  # one for all requests
        always.append((policy_name, policy[0]))
        without_tls.append((policy_name, policy[0]))
        policy = None
    removed = [
        istr(name)
        for name in options.tokens(f"{what} remove", "header names", remove)
    ]
    by_https: Job = partial(_secure, always, removed)
    by_http: Job = partial(_secure, without_tls, removed)
    ignored = exemption(f"{what} ignore", ignore)

    @web.middleware
    async def security_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        request[_NONCE] = nonce = _Nonce()
        if ignored is not None and ignored(request):
            return await handler(request)
        secure = by_https if request.scheme == "https" else by_http
        if policy is not None:
            secure = partial(_add_policy, secure, policy_name, policy, nonce)
        # aiohttp adds Server when all else is done.
        before_sending(request, secure)
        return await handler(request)

    return security_headers


def csp_nonce(request: web.Request) -> str:
    """The nonce of this request, for the ``nonce`` of scripts and styles.

    :raises RuntimeError: there is no :func:`security_headers_middleware`.
    """
    try:
        nonce: _Nonce = request[_NONCE]
    except KeyError:
        raise RuntimeError(
            "csp_nonce needs security_headers_middleware, outside of what "
            "asks for it"
        ) from None
    return nonce.value


class _Nonce:
    """Made when somebody asks for it."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = ""

    @property
    def value(self) -> str:
        if not self._value:
            # CSP Level 3 7.1: at least 128 bits, new for each answer.
            self._value = secrets.token_urlsafe(16)
        return self._value


def _secure(
    fixed: list[tuple[istr, str]],
    removed: list[istr],
    status: int,
    headers: CIMultiDict[str],
) -> None:
    for name, value in fixed:
        if name not in headers:
            headers[name] = value
    for name in removed:
        if name in headers:
            del headers[name]


def _add_policy(
    secure: Job,
    name: istr,
    policy: list[str],
    nonce: _Nonce,
    status: int,
    headers: CIMultiDict[str],
) -> None:
    if name not in headers:
        headers[name] = nonce.value.join(policy)
    secure(status, headers)


_NONCE = request_key("aiohttp_middlewares.csp_nonce", _Nonce)
_HSTS = "Strict-Transport-Security"


def _policy(what: str, policy: object) -> str:
    """The value of the header, as CSP Level 3 section 2.2 writes it."""
    if isinstance(policy, str):
        return options.header_value(what, policy)
    if not isinstance(policy, Mapping):
        options.refuse(
            TypeError, what, "a mapping of directives or a string", policy
        )
    if not policy:
        raise ValueError(f"{what} should not be empty; did you mean None?")
    directives: dict[str, str] = {}
    for name, sources in policy.items():
        _check_name(what, name)
        if name.lower() in directives:
            raise ValueError(f"{what} has {name.lower()!r} twice")
        if not _DIRECTIVES.fullmatch(name.lower()):
            logger.warning(
                "security_headers_middleware: browsers may not know the "
                "directive %r",
                name,
            )
        words = _sources(f"{what}[{name!r}]", sources)
        directives[name.lower()] = " ".join([name.lower(), *words])
    return ";".join(directives.values())


def _check_name(what: str, name: object) -> None:
    should = "directives such as 'default-src'"
    if not isinstance(name, str):
        options.refuse(TypeError, what, should, name)
    if not _DIRECTIVE.fullmatch(name):
        other = name.strip().replace("_", "-")
        meant = repr(other) if _DIRECTIVE.fullmatch(other) else None
        options.refuse(ValueError, what, should, name, meant=meant)


_DIRECTIVE = re.compile(r"[A-Za-z0-9-]+")
#: Of CSP Level 3, the specifications that add to it, and those before it.
_DIRECTIVES = re.compile(
    r"(?:child|connect|default|fenced-frame|font|frame|img|manifest|media"
    r"|object|prefetch|script|style|worker)-src"
    r"|(?:script|style)-src-(?:attr|elem)"
    r"|base-uri|form-action|frame-ancestors|navigate-to|plugin-types"
    r"|block-all-mixed-content|upgrade-insecure-requests|sandbox|webrtc"
    r"|referrer|report-to|report-uri|require-sri-for"
    r"|require-trusted-types-for|trusted-types"
)


def _sources(what: str, sources: object) -> list[str]:
    """The sources of one directive, checked."""
    if isinstance(sources, str):
        sources = sources.split()
    words = options.items(what, "sources", sources)
    for word in words:
        if not isinstance(word, str):
            options.refuse(TypeError, what, "a collection of sources", word)
        if _UNQUOTED.fullmatch(word):
            options.refuse(
                ValueError,
                what,
                "sources with keywords in quotation marks",
                word,
                meant=repr(f"'{word}'"),
            )
        if not _SOURCE.fullmatch(word):
            parts = word.split()
            meant = repr(parts) if len(parts) > 1 else None
            options.refuse(
                ValueError,
                what,
                "sources without ';', ',' and white space",
                word,
                meant=meant,
            )
    return list(words)


# CSP Level 3 2.2.1: anything visible but the two that end a directive and a
# policy. Those are escaped in a URL.
_SOURCE = re.compile(r"[!-+\--:<-~]+")
_UNQUOTED = re.compile(
    r"none|self|strict-dynamic|report-sample|inline-speculation-rules"
    r"|unsafe-(?:inline|eval|hashes|allow-redirects)|wasm-unsafe-eval"
    r"|(?:nonce|sha256|sha384|sha512)-.*",
    re.IGNORECASE | re.DOTALL,
)
