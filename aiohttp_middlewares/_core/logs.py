"""What a log record says of a request."""

import logging
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


def refused(logger: logging.Logger, request: web.Request, reason: str) -> None:
    """Tell what was refused, and why."""
    if logger.isEnabledFor(logging.INFO):
        said = facts(request, reason=reason)
        logger.info("Refused %(method)s %(path)s: %(reason)s", said, extra=said)
