"""Values that are one of a few: checked, and sent as they are."""

import re

from aiohttp_middlewares._core import options


def header_text(what: str, name: str, value: object) -> str:
    """The value of the header of that name."""
    text = options.header_value(what, value)
    if name == "Strict-Transport-Security":
        _check_transport_security(what, text)
    elif name == "Referrer-Policy":
        # Of a list, the last one that a browser knows counts.
        parts = [part.strip() for part in text.split(",")]
        _check_choices(what, name, parts, text)
        _check_once(what, parts, text)
    elif name in _STRUCTURED:
        found = _ITEM.fullmatch(text)
        _check_choices(what, name, [found[1] if found else text], text)
    elif name in _CHOICES:
        _check_choices(what, name, [text], text)
    return text


# As HTML, Fetch, Referrer Policy and MDN have them.
_CHOICES = {
    "Cross-Origin-Embedder-Policy": (
        "unsafe-none",
        "require-corp",
        "credentialless",
    ),
    "Cross-Origin-Opener-Policy": (
        "unsafe-none",
        "same-origin-allow-popups",
        "same-origin",
        "noopener-allow-popups",
    ),
    "Cross-Origin-Resource-Policy": (
        "same-origin",
        "same-site",
        "cross-origin",
    ),
    "Origin-Agent-Cluster": ("?1", "?0"),
    "Referrer-Policy": (
        "no-referrer",
        "no-referrer-when-downgrade",
        "origin",
        "origin-when-cross-origin",
        "same-origin",
        "strict-origin",
        "strict-origin-when-cross-origin",
        "unsafe-url",
    ),
    "X-Content-Type-Options": ("nosniff",),
    "X-DNS-Prefetch-Control": ("on", "off"),
    "X-Download-Options": ("noopen",),
    # Without the ALLOW-FROM of RFC 7034, which no browser knows any more.
    "X-Frame-Options": ("DENY", "SAMEORIGIN"),
    "X-Permitted-Cross-Domain-Policies": (
        "none",
        "master-only",
        "by-content-type",
        "by-ftp-filename",
        "all",
        "none-this-response",
    ),
}
#: Those that may have parameters, such as ``report-to``.
_STRUCTURED = frozenset(
    [
        "Cross-Origin-Embedder-Policy",
        "Cross-Origin-Opener-Policy",
        "Origin-Agent-Cluster",
    ]
)
_BY_CASE = _STRUCTURED | {"Cross-Origin-Resource-Policy"}
# RFC 9651 3.1.2: the parameters of an item.
_ITEM = re.compile(
    r"([^;]*)(?:; *[a-z*][a-z0-9_.*-]*"
    r'(?:=(?:"(?:[^"\\]|\\["\\])*"|[A-Za-z0-9*?:./_-]+))?)*'
)


def _check_choices(what: str, name: str, parts: list[str], text: str) -> None:
    choices = {choice.lower(): choice for choice in _CHOICES[name]}
    meant = []
    for part in parts:
        known = part if name in _BY_CASE else part.lower()
        meant += [known] if known in choices else _near(part, choices)
    if meant != [part if name in _BY_CASE else part.lower() for part in parts]:
        whole = ", ".join(choices[choice] for choice in meant)
        options.refuse(
            ValueError,
            what,
            " or ".join(map(repr, choices.values())),
            text,
            meant=repr(whole) if whole else None,
        )


def _check_once(what: str, parts: list[str], text: str) -> None:
    once = list(dict.fromkeys(part.lower() for part in parts))
    if len(once) != len(parts):
        should = "a list that has each policy once"
        options.refuse(
            ValueError, what, should, text, meant=repr(", ".join(once))
        )


def _near(word: str, choices: dict[str, str]) -> list[str]:
    return options.nearest(word.lower(), choices)


# RFC 6797 6.1: directives in any order and any case. Here max-age, without
# which there is no policy, stands first.
_TRANSPORT_SECURITY = re.compile(
    r'max-age[ \t]*=[ \t]*(?:[0-9]+|"[0-9]+")'
    r"(?:[ \t]*;(?:[ \t]*(?:includeSubDomains|preload))?)*",
    re.ASCII | re.IGNORECASE,
)


def _check_transport_security(what: str, text: str) -> None:
    lower = text.lower()
    names = ("includeSubDomains", "preload")
    if _TRANSPORT_SECURITY.fullmatch(text) and all(
        lower.count(name.lower()) < 2 for name in names
    ):
        return
    age = re.search(r"(?<![-.0-9])[0-9]+(?![.0-9])", text)
    # Near enough: only two words may follow.
    follow = [name for name in names if name[-7:].lower() in lower]
    options.refuse(
        ValueError,
        what,
        "'max-age=' with a number of seconds, then 'includeSubDomains' and "
        "'preload' or none of them, with ';' between",
        text,
        meant=repr("; ".join([f"max-age={age[0]}", *follow])) if age else None,
    )
