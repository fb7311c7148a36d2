"""Run the API, the page and the provider."""

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from aiohttp import web
from yarl import URL

from aiohttp_middlewares import check_stack
from examples.demo.api import create_api
from examples.demo.page import create_page
from examples.demo.provider import provider

HOST = "127.0.0.1"

logger = logging.getLogger(__name__)


class PortError(Exception):
    """A port cannot be had."""


class Origins(NamedTuple):
    page: str
    api: str


@asynccontextmanager
async def running(page_port: int, api_port: int) -> AsyncIterator[Origins]:
    """Serve all until the end of the block; port 0 is any free one.

    At the end the requests in progress are waited for, and what they began
    and :func:`~aiohttp_middlewares.shield_middleware` protects.

    :raises PortError: one of them cannot be had.
    """
    async with AsyncExitStack() as stack:
        # Both ports have to be known first: each side is told the other's.
        page_socket = stack.enter_context(_listen(page_port))
        api_socket = stack.enter_context(_listen(api_port))
        origins = Origins(_origin(page_socket), _origin(api_socket))
        issuer = await stack.enter_async_context(provider())
        for app, sock in (
            (create_api(*origins, issuer), api_socket),
            (create_page(*origins), page_socket),
        ):
            for finding in check_stack(app):
                logger.warning(
                    "%s: %s. %s.",
                    finding.where,
                    finding.message,
                    finding.remedy,
                )
            runner = web.AppRunner(
                app,
                access_log=None,
                # Without it no handler is cancelled when its client leaves,
                # and there is nothing to shield from.
                handler_cancellation=True,
                shutdown_timeout=5,
            )
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.SockSite(runner, sock).start()
        yield origins


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as exc:
        raise PortError(
            f"Port {port} of {HOST} cannot be used: "
            f"{os.strerror(exc.errno or 0)}"
        ) from exc


def _origin(sock: socket.socket) -> str:
    port = sock.getsockname()[1]
    # As browsers write it: without the default port.
    return str(URL.build(scheme="http", host=HOST, port=port))
