"""
===========
Annotations
===========

The types that the public calls of this package use. :data:`Handler` and
:data:`Middleware` are aliases of our own: aiohttp's hold forward references
that :func:`typing.get_type_hints` cannot resolve from another module.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeAlias

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
Middleware: TypeAlias = Callable[
    [web.Request, Handler], Awaitable[web.StreamResponse]
]
