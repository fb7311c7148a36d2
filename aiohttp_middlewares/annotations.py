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

#: Names with anything.
DictStrAny: TypeAlias = dict[str, Any]
#: Names with strings, such as headers.
DictStrStr: TypeAlias = dict[str, str]

#: A class of exceptions, not an instance.
ExceptionType: TypeAlias = type[Exception]

#: A list, a tuple, a set … of numbers.
IntCollection: TypeAlias = Collection[int]
#: A list, a tuple, a set … of strings; a bare string is refused.
StrCollection: TypeAlias = Collection[str]

#: An exact path, a pattern (``.match``: anchored at the start only) or a URL
#: of which the path counts.
Url: TypeAlias = str | re.Pattern[str] | URL
#: Any of them may fit.
UrlCollection: TypeAlias = Collection[Url]
#: The URLs with the method or methods for which each of them counts.
UrlDict: TypeAlias = Mapping[Url, str | StrCollection]
#: What ``urls`` and ``ignore`` take.
Urls: TypeAlias = UrlCollection | UrlDict

#: What answers a request.
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Middleware(Protocol):
    """What ``web.Application(middlewares=[...])`` takes.

    aiohttp passes the handler by its name, so that a plain ``Callable`` does
    not do for those who check their types.
    """

    def __call__(
        self, request: web.Request, handler: Handler
    ) -> Awaitable[web.StreamResponse]: ...
