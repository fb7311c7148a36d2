"""Who asks: what the middlewares have found out, each where it stands."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core.keys import request_key

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Caller:
    """Shared by a request and its clones; it does not hold any of them."""

    __slots__ = ("claims", "remote", "user")

    def __init__(self) -> None:
        #: The name by which the caller is known; None: nobody knows.
        self.user: str | None = None
        #: What else is known.
        self.claims = _NOTHING
        #: The address that is behind the proxies; None: that of the peer.
        self.remote: str | None = None


_CALLER = request_key("aiohttp_middlewares.caller", Caller)


def caller_of(request: web.Request) -> Caller:
    caller: Caller
    try:
        caller = request[_CALLER]
    except KeyError:
        caller = request[_CALLER] = Caller()
    return caller


def set_user(
    request: web.Request, user: str, claims: Mapping[str, Any] = _NOTHING
) -> None:
    """Say who asks, for :func:`get_user` and :func:`get_claims`."""
    caller = caller_of(request)
    caller.user = user
    caller.claims = MappingProxyType({**claims}) if claims else _NOTHING


def get_user(request: web.Request) -> str | None:
    """Who asks; ``None`` while no middleware has found out.

    The login, the subject of a token, the name of an API key.
    """
    caller: Caller | None = request.get(_CALLER)
    return None if caller is None else caller.user


def get_claims(request: web.Request) -> Mapping[str, Any]:
    """What is known of who asks; empty where that is nothing.

    It cannot be changed.
    """
    caller: Caller | None = request.get(_CALLER)
    return _NOTHING if caller is None else caller.claims
