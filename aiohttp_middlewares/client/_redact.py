"""What of a request may stand in a log."""

import re

from yarl import URL

#: Field and parameter names behind which secrets stand.
SECRET_NAME = re.compile(
    r"auth|cookie|token|secret|passw|pwd|credential|session|signature"
    r"|(api|access|private|account)[-_]?key|^(sig|key|code)$",
    re.IGNORECASE,
)

STRUCK_OUT = "***"


def redact_url(url: URL, *, query: bool = False) -> str:
    """A URL without userinfo and fragment, and with no query value.

    With ``query`` the values are shown, but those of secret names.
    """
    shown = f"{origin_text(url)}{url.raw_path}"
    if url.raw_query_string:
        parts = url.raw_query_string.split("&")
        shown += "?" + "&".join(_redact(part, query) for part in parts)
    return shown


def _redact(part: str, show: bool) -> str:
    name, equals, _ = part.partition("=")
    if show and equals and not SECRET_NAME.search(name):
        return part
    # Without a "=" it may as well be a value.
    return f"{name}={STRUCK_OUT}" if equals else STRUCK_OUT


def origin_text(url: URL) -> str:
    """Scheme, host and port; the port only where it was written."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return f"{url.scheme}://{url.host_subcomponent}{port}"
