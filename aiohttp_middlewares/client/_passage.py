"""How far a request came on its way: to the pool, to a connection, out."""

from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import ClientRequest
from aiohttp.tracing import Trace

from aiohttp_middlewares.client._timeouts import TimeLimit


class Passage(SimpleNamespace):
    """The way of a request, followed from ``with`` on by aiohttp's tracing.

    ``is_known`` is False when aiohttp does not tell, and then nothing else
    says anything.
    """

    def __init__(self, req: ClientRequest) -> None:
        super().__init__()
        # The list that the connector tells of its steps. A session's own
        # traces cannot be added to from here, and this one is private.
        self._traces: Any = getattr(req, "_traces", None)
        self.is_known = isinstance(self._traces, list)
        #: Making a new connection: names, TCP, a tunnel, TLS.
        self.is_dialling = False
        #: There was a connection, so that something may have been sent.
        self.is_connected = False
        #: The last connection had served other requests before.
        self.is_reused = False
        #: A limit that does not count the wait for the pool.
        self.limit: TimeLimit | None = None
        self._session = req.session
        self._trace: Trace | None = None

    @property
    def has_sent_nothing(self) -> bool:
        return self.is_known and not self.is_connected

    def __enter__(self) -> "Passage":
        if self.is_known:
            self._trace = Trace(self._session, _CONFIG, self)
            self._traces.append(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        # The response has the same list, and tells it of each chunk.
        if self.is_known:
            self._traces.remove(self._trace)
            self._trace = None  # no cycle


async def _queue(_: object, passage: Any, __: object) -> None:
    passage.is_dialling = False
    if passage.limit is not None:
        passage.limit.pause()


async def _leave_queue(_: object, passage: Any, __: object) -> None:
    if passage.limit is not None:
        passage.limit.resume()


async def _dial(_: object, passage: Any, __: object) -> None:
    passage.is_dialling, passage.is_reused = True, False


async def _connect(_: object, passage: Any, __: object) -> None:
    passage.is_connected, passage.is_dialling = True, False


async def _reuse(_: object, passage: Any, __: object) -> None:
    passage.is_connected = passage.is_reused = True
    passage.is_dialling = False


def _config() -> aiohttp.TraceConfig:
    config: aiohttp.TraceConfig = aiohttp.TraceConfig()
    config.on_connection_queued_start.append(_queue)
    config.on_connection_queued_end.append(_leave_queue)
    config.on_connection_create_start.append(_dial)
    config.on_connection_create_end.append(_connect)
    config.on_connection_reuseconn.append(_reuse)
    config.freeze()
    return config


_CONFIG = _config()
