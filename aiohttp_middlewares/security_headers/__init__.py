"""
===========================
Security headers middleware
===========================

Sets security headers, by which browsers protect the visitors of a site (CSP,
HSTS and others), on every answer: the defaults are those of `helmet
<https://helmetjs.github.io>`_.

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

``Strict-Transport-Security`` is sent by HTTPS only (RFC 6797 section 7.2), and
so is the ``upgrade-insecure-requests`` of the default policy. A policy with a
nonce is left out where it would go with a page that the browser has stored with
an older nonce: from a ``304`` and from the answer to a ``HEAD`` (RFC 9111
section 4.3). ``Server``, which tells aiohttp's version, is removed.

Order
=====

Inside of :mod:`aiohttp_middlewares.proxy_headers`, which knows the scheme;
outside of :mod:`aiohttp_middlewares.error`, though errors that pass by here
have the headers as well.

Limits
======

The default lets no other origin embed what it serves without CORS
(``Cross-Origin-Resource-Policy: same-origin``): images and scripts for the
pages of others need ``cross_origin_resource_policy="cross-origin"``, an API
that is read by CORS does not. The default policy lets no inline script run, and
has browsers fetch by HTTPS whatever a page that came by HTTPS refers to
(``upgrade-insecure-requests``). Answers that no middleware sees, such as 400 to
what is not HTTP, have none of the headers.
"""

import logging
import secrets
from collections.abc import Collection, Mapping
from functools import partial
from typing import Literal

from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from aiohttp_middlewares._core import logs, options
from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.middleware import middleware
from aiohttp_middlewares._core.sending import (
    Job,
    before_sending,
    departure_of,
)
from aiohttp_middlewares._core.urls import exemption
from aiohttp_middlewares.annotations import (
    Handler,
    Middleware,
    StrCollection,
    Urls,
)
from aiohttp_middlewares.security_headers._policy import (
    ContentSecurityPolicy,
    policy_text,
)
from aiohttp_middlewares.security_headers._values import header_text

__all__ = (
    "DEFAULT_CONTENT_SECURITY_POLICY",
    "DEFAULT_REMOVE",
    "ContentSecurityPolicy",
    "csp_nonce",
    "security_headers_middleware",
)

#: helmet's.
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
#: What tells more than it has to.
DEFAULT_REMOVE = ("Server",)

#: A site that has no HTTPS would ask there for all that its pages refer to.
_DEFAULT_BY_HTTP = {
    name: sources
    for name, sources in DEFAULT_CONTENT_SECURITY_POLICY.items()
    if name != "upgrade-insecure-requests"
}

logger: logging.Logger = logs.get_logger(__name__)


def security_headers_middleware(
    *,
    content_security_policy: ContentSecurityPolicy | None = (
        DEFAULT_CONTENT_SECURITY_POLICY
    ),
    content_security_policy_report_only: bool = False,
    cross_origin_embedder_policy: str | None = None,
    cross_origin_opener_policy: str | None = "same-origin",
    cross_origin_resource_policy: Literal[
        "same-origin", "same-site", "cross-origin"
    ]
    | None = "same-origin",
    origin_agent_cluster: Literal["?1", "?0"] | None = "?1",
    permissions_policy: str | None = None,
    referrer_policy: str | None = "no-referrer",
    strict_transport_security: str | None = (
        "max-age=31536000; includeSubDomains"
    ),
    x_content_type_options: Literal["nosniff"] | None = "nosniff",
    x_dns_prefetch_control: Literal["on", "off"] | None = "off",
    x_download_options: Literal["noopen"] | None = "noopen",
    x_frame_options: Literal["DENY", "SAMEORIGIN"] | None = "SAMEORIGIN",
    x_permitted_cross_domain_policies: Literal[
        "none",
        "master-only",
        "by-content-type",
        "by-ftp-filename",
        "all",
        "none-this-response",
    ]
    | None = "none",
    x_xss_protection: str | None = "0",
    remove: StrCollection = DEFAULT_REMOVE,
    ignore: Urls | None = None,
) -> Middleware:
    """Set the headers that are named like the options.

    The value of each option is sent as it is; ``None`` leaves the header out.
    What browsers would not understand, and ignore, is refused.

    :param content_security_policy:
        A mapping of directives to their sources: a collection of them, empty
        for a directive without, or one string. It takes the place of
        :data:`DEFAULT_CONTENT_SECURITY_POLICY`. Or the policy as a string.
        ``'nonce-{nonce}'`` in it becomes
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
    by_https = [
        (
            istr(name),
            header_text(
                f"{what} {name.lower().replace('-', '_')}", name, value
            ),
        )
        for name, value in given.items()
        if value is not None
    ]
    by_http = [item for item in by_https if item[0] != _HSTS]
    policy_name = istr(
        "Content-Security-Policy-Report-Only"
        if content_security_policy_report_only
        else "Content-Security-Policy"
    )
    nonced: list[str] | None = None
    if content_security_policy is not None:
        option = f"{what} content_security_policy"
        policy = policy_text(option, content_security_policy)
        if "{nonce}" in policy:
            nonced = policy.split("{nonce}")
        else:  # one for all requests
            by_https.append((policy_name, policy))
            if content_security_policy is DEFAULT_CONTENT_SECURITY_POLICY:
                policy = policy_text(option, _DEFAULT_BY_HTTP)
            by_http.append((policy_name, policy))
    removed = [
        istr(name)
        for name in options.tokens(f"{what} remove", "header names", remove)
    ]
    secure_https: Job = _Secure(by_https, removed)
    secure_http: Job = _Secure(by_http, removed)
    ignored = exemption(f"{what} ignore", ignore)

    @middleware
    async def security_headers(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        if ignored is not None and ignored(request):
            _nonce_of(request)
            return await handler(request)
        secure = secure_https if request.scheme == "https" else secure_http
        # RFC 9111 4.3.5: what a HEAD is answered freshens a stored page, in
        # which the nonce is another.
        if nonced is not None:
            nonce = _nonce_of(request)
            if request.method != hdrs.METH_HEAD:
                secure = partial(
                    _add_policy, secure, policy_name, nonced, nonce
                )
        # aiohttp adds Server when all else is done.
        before_sending(request, secure)
        return await handler(request)

    return security_headers


def csp_nonce(request: web.Request) -> str:
    """The nonce of this request, for the ``nonce`` of scripts and styles.

    It is the same in all policies that it has, such as one that holds and one
    that is reported only.

    :raises RuntimeError: there is no :func:`security_headers_middleware`.
    """
    nonce: _Nonce | None = stored(request, _NONCE)
    if nonce is None:
        # Few ask, so those whose policy has no nonce make none in advance.
        jobs = departure_of(request).jobs
        if not any(isinstance(job, _Secure) for job, _ in jobs):
            raise RuntimeError(
                "csp_nonce needs security_headers_middleware, outside of what "
                "asks for it"
            )
        nonce = _nonce_of(request)
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


def _nonce_of(request: web.Request) -> _Nonce:
    """The one nonce of a request, which stands in all its policies."""
    nonce: _Nonce | None = stored(request, _NONCE)
    if nonce is None:
        nonce = request[_NONCE] = _Nonce()
    return nonce


class _Secure:
    """The job that is the same for all requests."""

    def __init__(
        self, fixed: list[tuple[istr, str]], removed: list[istr]
    ) -> None:
        self.fixed = CIMultiDict(fixed)
        self.removed = removed

    def __call__(self, status: int, headers: CIMultiDict[str]) -> None:
        _merge(headers, self.fixed)
        for name in self.removed:
            if name in headers:
                del headers[name]


def _merge_each(headers: CIMultiDict[str], missing: CIMultiDict[str]) -> None:
    for name, value in missing.items():
        headers.setdefault(name, value)


#: Adds what is not there yet. multidict has it from 6.6 on.
_merge = getattr(CIMultiDict, "merge", _merge_each)


def _add_policy(
    secure: Job,
    name: istr,
    policy: list[str],
    nonce: _Nonce,
    status: int,
    headers: CIMultiDict[str],
) -> None:
    # RFC 9111 4.3.4: as above, for a page that was not modified.
    if status != 304 and name not in headers:
        headers[name] = nonce.value.join(policy)
    secure(status, headers)


_NONCE = request_key("aiohttp_middlewares.csp_nonce", _Nonce)
_HSTS = "Strict-Transport-Security"
