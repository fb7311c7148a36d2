"""What of a request may stand in a log."""

import asyncio
import logging
import re
from collections.abc import Callable
from urllib.parse import quote

from aiohttp import ClientRequest
from yarl import URL

from aiohttp_middlewares._core.grammar.secrets import strike_out
from aiohttp_middlewares.client._timeouts import is_timeout

STRUCK_OUT = "***"


def redactor(
    logger: logging.Logger,
    redact: Callable[[URL], str] | None,
    *,
    query: bool = False,
) -> Callable[[URL], str]:
    """How a URL stands in a log, with the ``redact`` of the user.

    That one is given what would be shown without it, so that it can only
    strike out more. When it fails, nothing but the origin is shown: only it
    knows what else is a secret.
    """
    if redact is None:
        return lambda url: redact_url(url, query=query)

    def shown(url: URL) -> str:
        try:
            found = redact(URL(redact_url(url, query=query), encoded=True))
            # It may show what it decoded, with a line break inside.
            return _CONTROL.sub(_escape, found)
        except Exception as exc:
            # What it says may quote the URL.
            logger.warning("The hook redact failed: %s", type(exc).__name__)
            return f"{origin_text(url)}/{STRUCK_OUT}"

    return shown


def _escape(found: re.Match[str]) -> str:
    return quote(found[0], errors="replace")


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def redact_url(url: URL, *, query: bool = False, mark: str = STRUCK_OUT) -> str:
    """A URL without userinfo and fragment, and with no query value.

    With ``query`` the values are shown, but those that may be secret.
    """
    shown = f"{origin_text(url)}{url.raw_path}" if url.host else url.raw_path
    if url.raw_query_string:
        struck = strike_out(url.raw_query_string, mark, show=query)
        shown += f"?{struck}"
    return shown


def redact_text(text: str, *, query: bool = False) -> str:
    """The value of a header, with each URL in it redacted."""
    # One with its delimiters left and right, as in Link and Refresh.
    words = re.split(r"""([\s<>"'(),]+)""", text)
    words[::2] = [_redact_word(word, query) for word in words[::2]]
    return "".join(words)


def _redact_word(word: str, query: bool) -> str:
    if "//" not in word and "?" not in word:
        return word
    head, slashes, _ = word.partition("://")
    # What stands before the scheme: "url=https://a.example".
    before = head.rstrip(_SCHEME) if slashes else ""
    try:
        return before + redact_url(URL(word[len(before) :]), query=query)
    except ValueError:
        return STRUCK_OUT


_SCHEME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-"


def origin_text(url: URL) -> str:
    """Scheme, host and port; the port only where it was written."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    scheme = f"{url.scheme}:" if url.scheme else ""
    return f"{scheme}//{url.host_subcomponent}{port}"


def error_name(req: ClientRequest, error: BaseException) -> str:
    """An exception in a log: its text may quote the URL.

    A time limit cancels what is inside of it, and becomes a ``TimeoutError``
    outside.
    """
    if isinstance(error, asyncio.CancelledError) and is_timeout(req, error):
        return "TimeoutError"
    return type(error).__name__
