"""Clone a request without losing what an earlier clone has set.

aiohttp makes a clone of what came over the wire, and so forgets the scheme,
the host and the remote address that another middleware gave the request.
"""

from typing import Any

from aiohttp import web
from yarl import URL

from aiohttp_middlewares._core.authority import authority_text


def cloned(request: web.Request, **changes: Any) -> web.Request:
    """``request.clone(**changes)``, and the rest stays as it is.

    :raises RuntimeError: the body of the request has been read.
    """
    kept: dict[str, Any] = {"scheme": request.scheme, "remote": request.remote}
    if request.raw_path.startswith(("/", "*")):
        kept["host"] = request.host
    else:
        # From here on the target is a path. Of an absolute one aiohttp takes
        # no host with a port, and keeps the port that stands there.
        kept["host"] = authority_text(request)
        kept["rel_url"] = request.rel_url if request.path else URL("/")
    return request.clone(**(kept | changes))
