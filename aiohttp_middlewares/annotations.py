"""
===========
Annotations
===========

The types that the public calls of this package use. :data:`Handler` and
:class:`Middleware` are our own: aiohttp's hold forward references that
:func:`typing.get_type_hints` cannot resolve from another module.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol, TypeAlias

from aiohttp import web
from yarl import URL

__all__ = (
    "DictStrAny",
    "DictStrStr",
    "ExceptionType",
    "Handler",
    "IntCollection",
    "Middleware",
    "StrCollection",
    "Url",
    "UrlCollection",
    "UrlDict",
    "Urls",
)

DictStrAny: TypeAlias = dict[str, Any]
DictStrStr: TypeAlias = dict[str, str]

ExceptionType: TypeAlias = type[Exception]

IntCollection: TypeAlias = Collection[int]
StrCollection: TypeAlias = Collection[str]

#: An exact path, a pattern (``.match``: anchored at the start only) or a URL
#: of which the path counts.
Url: TypeAlias = str | re.Pattern[str] | URL
UrlCollection: TypeAlias = Collection[Url]
#: The URLs with the method or methods for which each of them counts.
UrlDict: TypeAlias = Mapping[Url, str | StrCollection]
Urls: TypeAlias = UrlCollection | UrlDict

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Middleware(Protocol):
    """What ``web.Application(middlewares=[...])`` takes.

    aiohttp passes the handler by its name, so that a plain ``Callable`` does
    not do for those who check their types.
    """

    def __call__(
        self, request: web.Request, handler: Handler
    ) -> Awaitable[web.StreamResponse]: ...
