"""Requests as bytes: what a client library would normalise on the way."""

import asyncio
from typing import NamedTuple

from aiohttp.test_utils import BaseTestServer
from multidict import CIMultiDict


class Head(NamedTuple):
    """The first response of all that was received."""

    status: int
    headers: CIMultiDict[str]
    rest: bytes  #: its body as it was sent, and whatever follows it


async def raw(
    server: BaseTestServer, sent: bytes, *, limit: float = 5.0
) -> bytes:
    """Send bytes, and read until the server closes the connection.

    So the last request has to say ``Connection: close``, unless the server
    is expected to close by itself.
    """
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), limit)
    finally:
        writer.close()


def head(received: bytes) -> Head:
    """Take the first response apart; header lines stay as many as they are."""
    start, _, rest = received.partition(b"\r\n\r\n")
    line, *fields = start.decode().split("\r\n")
    assert line.startswith("HTTP/"), received
    pairs = (field.split(": ", 1) for field in fields)
    headers = CIMultiDict([(name, value) for name, value in pairs])
    return Head(int(line.split()[1]), headers, rest)
