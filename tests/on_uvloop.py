"""Has the tests run on uvloop: ``python -m pytest -p tests.on_uvloop``."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import uvloop


class Guarded(uvloop.Loop):
    """Does not leave this machine: libuv looks up and dials by itself.

    What it may dial ``loopback`` says, which can be imported only when pytest
    has put the folder of the tests on the path: later than this.
    """

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        from loopback import check_address, check_name

        check_name(host)
        if host:
            check_address((host,))
        return await super().create_connection(
            protocol_factory, host, *args, **kwargs
        )

    async def create_datagram_endpoint(
        self,
        protocol_factory: Any,
        local_addr: Any = None,
        remote_addr: Any = None,
        **kwargs: Any,
    ) -> Any:
        from loopback import check_address

        check_address(remote_addr)
        return await super().create_datagram_endpoint(
            protocol_factory, local_addr, remote_addr, **kwargs
        )

    async def getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        from loopback import check_name

        check_name(host)
        return await super().getaddrinfo(host, *args, **kwargs)


def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    return {"uvloop": Guarded}
