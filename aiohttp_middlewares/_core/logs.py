"""What a log record says of a request."""

from typing import Any

from aiohttp import web


def facts(request: web.Request, **more: Any) -> dict[str, Any]:
    """For ``extra=``: method and path, and what else there is to say.

    The path is the one that was sent: still encoded, so that it holds no line
    break, and escaped where a log file in UTF-8 could not hold it.
    """
    path = request.rel_url.raw_path.encode("ascii", "backslashreplace")
    return {"method": request.method, "path": path.decode(), **more}
