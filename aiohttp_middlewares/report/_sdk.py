"""What the reporters of all SDKs have in common."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from threading import BoundedSemaphore
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web

from aiohttp_middlewares._core.logs import PATH_LIMIT, shown
from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares._core.requests import authority_of
from aiohttp_middlewares._core.routes import method_of, route_of

#: Gets the error and the request; what it returns is awaited, if it can be.
Reporter: TypeAlias = Callable[[Exception, web.Request], object]

#: How many reports may be waiting.
BACKLOG = 1000
#: How many that block are sent at the same time.
THREADS = 4


class SdkReporter(ABC):
    """Reports to an SDK that the application has initialised."""

    def __init__(self) -> None:
        self._free = BoundedSemaphore(BACKLOG)
        # It starts a thread when there is something to do.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="report")

    @abstractmethod
    def __call__(
        self, err: Exception, request: web.Request
    ) -> Awaitable[None] | None: ...

    def scope(self) -> AbstractContextManager[Any]:
        """Keeps what the SDK is told of one request apart from the others."""
        return nullcontext()

    def aside(self, report: Callable[[], None]) -> Awaitable[None]:
        """Call what blocks elsewhere.

        In threads of its own, so that one that hangs does not keep the files
        and name look-ups of the application waiting.
        """
        if not self._free.acquire(blocking=False):
            raise RuntimeError(f"{BACKLOG} reports are not done yet")
        future = self._threads.submit(copy_context().run, report)
        future.add_done_callback(lambda _: self._free.release())
        # It is sent, even if nobody waits any longer.
        return asyncio.shield(asyncio.wrap_future(future))


class Described(NamedTuple):
    """What there is to say of a request, and nothing secret."""

    method: str
    url: str
    route: str
    #: As the name of a transaction.
    name: str
    #: None without a middleware that sets it.
    request_id: str | None


def described(request: web.Request) -> Described:
    method = method_of(request)
    route = route_of(request)
    path = shown(request.rel_url.raw_path, PATH_LIMIT)
    # What a client says there may be no host, or hold a password.
    authority = authority_of(request)
    return Described(
        method=method,
        url=path
        if authority is None
        else f"{request.scheme}://{authority}{path}",
        route=route,
        name=f"{method} {route}",
        request_id=REQUEST_ID.get(),
    )


def missing(what: str, package: str, extra: str) -> ImportError:
    return ImportError(
        f'{what} needs {package}; pip install "aiohttp-middlewares[{extra}]"'
    )
