"""For how long a server asks to be left alone: ``Retry-After``."""

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# RFC 9110 10.2.3 knows whole seconds only, but some send fractions.
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LONGEST_DATE = 64


def retry_after(
    value: str | None, *, date: str | None = None, now: float
) -> float | None:
    """The seconds to wait, 0 or more; None for nothing and for nonsense.

    A point in time is one of the server's clock, and so is the ``Date`` of
    the same answer. ``now``, seconds since the epoch, counts where that is
    missing.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)  # infinity, from some 300 digits on
    until = _time(text)
    if until is None:
        return None
    sent = None if date is None else _time(date.strip())
    return max(0.0, until - (now if sent is None else sent))


def _time(text: str) -> float | None:
    """Seconds since the epoch of a date, RFC 9110 5.6.7."""
    if len(text) > _LONGEST_DATE:
        return None
    try:
        found: datetime = parsedate_to_datetime(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=timezone.utc)
        return found.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
