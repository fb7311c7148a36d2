"""Who asks: what the middlewares have found out, each where it stands."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web

from aiohttp_middlewares._core.keys import request_key, stored
from aiohttp_middlewares._core.sending import for_all_clones, of_all_clones

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


#: Of whom nothing was found out.
NOBODY = Caller()


def caller_known(request: web.Request) -> Caller:
    """As :func:`caller_of`, to read only."""
    caller: Caller | None = stored(request, _CALLER)
    if caller is None:
        caller = of_all_clones(request, Caller)
    return NOBODY if caller is None else caller


def caller_of(request: web.Request) -> Caller:
    caller: Caller | None = stored(request, _CALLER)
    if caller is None:
        caller = of_all_clones(request, Caller)
        if caller is None:
            caller = Caller()
            for_all_clones(request, caller)
        request[_CALLER] = caller
    return caller


def set_user(
    request: web.Request,
    user: str | None,
    claims: Mapping[str, Any] = _NOTHING,
) -> None:
    """Say who asks, for :func:`get_user` and :func:`get_claims`.

    ``None`` for somebody whose claims name nobody.
    """
    caller = caller_of(request)
    caller.user = user
    caller.claims = MappingProxyType({**claims}) if claims else _NOTHING


def get_user(request: web.Request) -> str | None:
    """Who asks; ``None`` while no middleware has found out.

    The login, the subject of a token, the name of an API key.
    """
    return caller_known(request).user


def get_claims(request: web.Request) -> Mapping[str, Any]:
    """What is known of who asks; empty where that is nothing.

    It cannot be changed.
    """
    return caller_known(request).claims
