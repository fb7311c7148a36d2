"""A Content-Security-Policy: checked, and written as one header."""

import logging
import re
from collections.abc import Collection, Mapping
from typing import TypeAlias

from aiohttp_middlewares._core import logs, options

#: A policy as it is sent, or the sources of each directive.
ContentSecurityPolicy: TypeAlias = str | Mapping[str, str | Collection[str]]

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.security_headers")


def policy_text(what: str, policy: object) -> str:
    """The value of the header, as CSP Level 3 section 2.2 writes it."""
    if isinstance(policy, str):
        _check_text(what, options.header_value(what, policy))
        return policy
    if not isinstance(policy, Mapping):
        options.refuse(
            TypeError, what, "a mapping of directives or a string", policy
        )
    if not policy:
        raise ValueError(f"{what} should not be empty; did you mean None?")
    directives: dict[str, list[str]] = {}
    for name, sources in policy.items():
        _add(what, directives, name, sources)
    return ";".join(
        " ".join([name, *sources]) for name, sources in directives.items()
    )


def _check_text(what: str, text: str) -> None:
    # RFC 9110 5.6.1: a field with commas has several policies, and all hold.
    for policy in text.split(","):
        directives: dict[str, list[str]] = {}
        for directive in policy.split(";"):
            if words := directive.split():
                _add(what, directives, words[0], words[1:])
        if not directives:
            options.refuse(ValueError, what, "a policy of directives", text)


def _add(
    what: str, directives: dict[str, list[str]], name: object, sources: object
) -> None:
    """Add a directive that is right in itself and was not there before."""
    known = _name(what, name)
    if known in directives:
        # CSP Level 3 2.2.1: the second never counts.
        raise ValueError(f"{what} has {known!r} twice")
    directives[known] = _sources(f"{what}[{name!r}]", known, sources)


def _name(what: str, name: object) -> str:
    should = "directives such as 'default-src'"
    if not isinstance(name, str):
        options.refuse(TypeError, what, should, name)
    if not _DIRECTIVE.fullmatch(name):
        other = name.strip().replace("_", "-")
        meant = repr(other) if _DIRECTIVE.fullmatch(other) else None
        options.refuse(ValueError, what, should, name, meant=meant)
    if name.lower() not in _DIRECTIVES:
        logger.warning(
            "security_headers_middleware: browsers may not know the "
            "directive %r",
            name,
        )
    return name.lower()


_DIRECTIVE = re.compile(r"[A-Za-z0-9-]+")
#: Of CSP Level 3, the specifications that add to it, and those before it.
_DIRECTIVES = frozenset(
    _DIRECTIVE.findall("""
    base-uri block-all-mixed-content child-src connect-src default-src
    fenced-frame-src font-src form-action frame-ancestors frame-src img-src
    manifest-src media-src navigate-to object-src plugin-types prefetch-src
    referrer report-to report-uri require-sri-for require-trusted-types-for
    sandbox script-src script-src-attr script-src-elem style-src
    style-src-attr style-src-elem trusted-types upgrade-insecure-requests
    webrtc worker-src
    """)
)


def _sources(what: str, name: str, sources: object) -> list[str]:
    """The sources of one directive, checked."""
    if isinstance(sources, str):
        # At blanks only: a line break is no blank, but a mistake.
        sources = re.findall(r"[^ \t]+", sources)
    words = options.items(what, "sources", sources)
    keywords = _KEYWORDS.get(name, _SOURCE_KEYWORDS)
    for word in words:
        if not isinstance(word, str):
            options.refuse(TypeError, what, "a collection of sources", word)
        if keywords is not None and keywords.fullmatch(word):
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
#: What is a keyword, a nonce or a hash with its quotation marks, and a host
#: without them.
_SOURCE_KEYWORDS = re.compile(
    r"none|self|strict-dynamic|report-sample|report-sha(?:256|384|512)"
    r"|inline-speculation-rules|wasm-unsafe-eval|trusted-types-eval"
    r"|unsafe-(?:inline|eval|hashes|allow-redirects|webtransport-hashes)"
    r"|(?:nonce|sha256|sha384|sha512)-.*",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
#: The same of directives that list no sources; ``None`` if they have none.
_KEYWORDS: dict[str, re.Pattern[str] | None] = {
    **dict.fromkeys(
        (
            "plugin-types",
            "referrer",
            "report-to",
            "report-uri",
            "require-sri-for",
            "sandbox",
        )
    ),
    "require-trusted-types-for": re.compile("script", re.ASCII | re.IGNORECASE),
    "trusted-types": re.compile(
        "none|allow-duplicates", re.ASCII | re.IGNORECASE
    ),
    "webrtc": re.compile("allow|block", re.ASCII | re.IGNORECASE),
}
