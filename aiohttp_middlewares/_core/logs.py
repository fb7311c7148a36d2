"""What a log record says of a request."""

import logging
from collections.abc import Collection
from itertools import islice
from typing import Any

from aiohttp import web


def facts(request: web.Request, **more: Any) -> dict[str, Any]:
    """For ``extra=``: method and path, and what else there is to say.

    The path is the one that was sent: still encoded, so that it holds no line
    break, and escaped where a log file in UTF-8 could not hold it.
    """
    path = request.rel_url.raw_path
    if not path.isascii():
        path = path.encode("ascii", "backslashreplace").decode()
    return {"method": request.method, "path": path, **more}


def refused(
    logger: logging.Logger, request: web.Request, reason: str, **more: Any
) -> None:
    """Tell what was refused, why, and by what was compared."""
    if logger.isEnabledFor(logging.INFO):
        said = facts(request, reason=reason, **more)
        logger.info("Refused %(method)s %(path)s: %(reason)s", said, extra=said)


def shown(text: str | None) -> str | None:
    """What a visitor sent: in ASCII, on one line, and not all of it."""
    return None if text is None else ascii(text[:LONGEST_SHOWN])[1:-1]


def listed(items: Collection[object]) -> list[str]:
    """What an option holds, as far as it fits a record."""
    first = [str(item) for item in islice(items, MOST_LISTED)]
    return first if len(items) <= MOST_LISTED else [*first, "…"]


LONGEST_SHOWN = 200
MOST_LISTED = 20
