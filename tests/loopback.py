"""That no test leaves this machine.

``conftest`` holds it over all tests. Python tells of each address that is
dialled and each name that is looked up; what a loop dials by itself, as
uvloop does, its guard in ``on_uvloop`` tells.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

#: What was refused, for a test that catches the exception.
_refused: list[str] = []


class LeftLoopback(BaseException):
    """Whoever takes ``Exception`` shall not hide it."""


def check_address(address: object) -> None:
    """An address of a socket; that of a UNIX socket is no tuple."""
    if isinstance(address, tuple) and not _is_loopback(str(address[0])):
        _refuse(f"dialled {address[0]!r}")


def check_name(host: object) -> None:
    """A name that may be looked up: what needs no name server."""
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if host and host != "localhost" and not _is_numeric(str(host)):
        _refuse(f"looked up {host!r}")


def _refuse(what: str) -> None:
    _refused.append(what)
    raise LeftLoopback(f"the test {what}, which is not on this machine")


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False  # a name, or another family's address
    # To connect to 0.0.0.0 or :: is to connect to this machine.
    return address.is_loopback or address.is_unspecified


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        try:
            socket.inet_aton(host)  # 127.1, 0x7f.1 and the like
        except OSError:
            return False
    return True


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        check_address(args[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        check_name(args[0])


sys.addaudithook(_heard)


@contextmanager
def held() -> Iterator[None]:
    """Fail whatever became of the exception."""
    _refused.clear()
    yield
    found = list(_refused)
    _refused.clear()
    assert found == [], "tests stay on this machine"


@pytest.fixture(autouse=True)
def nothing_leaves() -> Iterator[None]:
    with held():
        yield
