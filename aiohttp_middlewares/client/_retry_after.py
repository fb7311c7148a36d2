"""``Retry-After``: for how long a server asks to be left alone."""

import re
import time
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime

from aiohttp import hdrs


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an answer asks for; None when it does not."""
    value = headers.get(hdrs.RETRY_AFTER)
    if value is None:
        return None
    # A date is one of the server's clock, and so is the Date of the answer.
    sent = _timestamp(headers.get(hdrs.DATE, ""))
    return parse_retry_after(value, time.time() if sent is None else sent)


def parse_retry_after(value: str, now: float) -> float | None:
    """The seconds that ``Retry-After`` asks for, or None for nonsense.

    ``now`` is the time since the epoch. RFC 9110 10.2.3: a number of seconds
    or a date, and a date has three formats (5.6.7). Some servers send
    fractions of seconds.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
        return float(value)  # infinity, from some 300 digits on
    date = _timestamp(value)
    return None if date is None else max(0.0, date - now)


def _timestamp(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return date.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
