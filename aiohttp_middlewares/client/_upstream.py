"""Answering a visitor for whom a service of ours could not be asked."""

import math
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from aiohttp_middlewares._core.keys import REQUEST_ERROR_KEY


def answer_with(
    status: int, detail: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """An error handler for the server side's error middleware.

    The answer says when to come again, where the error knows it, and nothing
    of the service: its URL and its words are no business of the visitor's.
    """

    async def answer(request: web.Request) -> web.Response:
        error = request.get(REQUEST_ERROR_KEY)
        response = web.json_response({"detail": detail}, status=status)
        seconds = getattr(error, "retry_after", getattr(error, "wait", None))
        if seconds is not None and math.isfinite(seconds):
            # RFC 9110 10.2.3: whole seconds.
            whole = str(max(1, math.ceil(seconds)))
            response.headers[hdrs.RETRY_AFTER] = whole
        return response

    return answer
