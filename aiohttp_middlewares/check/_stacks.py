"""Which middlewares a request passes: all the lists of an application."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from aiohttp import hdrs, web

from aiohttp_middlewares._core.middleware import About

T = TypeVar("T")


class Listed(NamedTuple):
    """A middleware in a list."""

    middleware: Any
    #: The factory of ours that has made it, or nothing.
    name: str
    options: Mapping[str, Any]

    def acts_on(self, methods: Collection[str]) -> bool:
        """Whether requests of any of these methods are its business."""
        only = self.options.get("methods")
        return only is None or "*" in methods or not only.isdisjoint(methods)


class Stack(NamedTuple):
    """All the middlewares that a request passes, outermost first."""

    where: str
    #: Those around it are in a stack of their own, too.
    own: int
    listed: tuple[Listed, ...]
    #: The applications, outermost first.
    apps: tuple[web.Application, ...]
    #: The decorators of the handler that take a middleware, with the number of
    #: those that stand inside of the decorator.
    needs: Mapping[str, int] = MappingProxyType({})

    def places(self, *names: str, start: int = 0) -> list[int]:
        """Where those of some factories are; a lower place is further out."""
        return [
            place
            for place, listed in enumerate(self.listed[start:], start)
            if listed.name in names
        ]

    def has(self, *names: str, outside_of: int | None = None) -> bool:
        """Whether there is one, or may be: nobody knows what others' do."""
        return bool(self.places(*names)) or any(
            not listed.name for listed in self.listed[:outside_of]
        )

    def lacks(self, decorator: str, *names: str) -> bool:
        """Whether a decorator has none of those around it that it needs."""
        inside = self.needs.get(decorator)
        return inside is not None and not any(
            not listed.name or listed.name in names
            for listed in self.listed[: len(self.listed) - inside]
        )


_EMPTY = Stack("", 0, (), ())


def stacks_of(app: web.Application) -> Iterator[Stack]:
    """That of the application, and then those further in."""
    yield from _stacks(app, "the application", _EMPTY)


def _stacks(app: web.Application, where: str, around: Stack) -> Iterator[Stack]:
    stack = Stack(
        where,
        len(around.listed),
        (*around.listed, *map(_listed, app.middlewares)),
        (*around.apps, app),
    )
    yield stack
    # One of several routes is told of once, as it is for the first.
    handlers: dict[int, tuple[Any, str, set[str]]] = {}
    for resource in app.router.resources():
        inner = resource.get_info().get("app")
        if isinstance(inner, web.Application):
            if inner in stack.apps:
                continue  # in itself, and of no use
            at = f"the sub-application at {resource.canonical}"
            yield from _stacks(inner, at, stack)
            continue
        # add_get() has the same handler for HEAD, and names that first.
        for route in sorted(resource, key=lambda route: route.method == "HEAD"):
            at = f"{route.method} {resource.canonical}"
            new = route.handler, at, set[str]()
            _, _, methods = handlers.setdefault(id(route.handler), new)
            methods.add(route.method)
    for handler, at, methods in handlers.values():
        yield from _around(handler, at, methods, stack)


def _around(
    handler: Any, where: str, methods: Collection[str], stack: Stack
) -> Iterator[Stack]:
    """What a handler, a view or a method of one has around itself."""
    while isinstance(handler, partial):
        handler = handler.func
    own = _noted(handler, "__middlewares__", tuple) or ()
    outer = [item for item in stack.listed if item.acts_on(methods)]
    inner = Stack(
        where,
        len(outer),
        (*outer, *map(_listed, own)),
        stack.apps,
        _noted(handler, "__needs__", dict) or {},
    )
    if own or inner.needs:
        yield inner
    try:
        view = inspect.unwrap(handler)
    except Exception:  # it leads to itself, or to nothing
        return
    if inspect.isclass(view):
        path = where.partition(" ")[2]
        for name in sorted(hdrs.METH_ALL):
            method = getattr(view, name.lower(), None)
            if method is not None:
                yield from _around(method, f"{name} {path}", {name}, inner)


def _listed(middleware: Any) -> Listed:
    about = _noted(middleware, "__about__", About)
    if about is not None:
        return Listed(middleware, about.factory, about.options)
    module = _noted(middleware, "__module__", str) or ""
    # Those of aiohttp do nothing that anything of ours waits for.
    theirs = "aiohttp" if module == "aiohttp.web_middlewares" else ""
    return Listed(middleware, _misplaced(middleware) or theirs, {})


def _noted(item: Any, name: str, kind: type[T]) -> T | None:
    """What is noted of an object, not what its ``__getattr__`` makes of it."""
    try:
        found = getattr(item, name, None)
    except Exception:
        return None
    return found if isinstance(found, kind) else None


#: In place of the name of a factory, for what never works in a list.
NO_MIDDLEWARE = "no middleware"
OF_CLIENT = "a middleware of clients"


def _misplaced(middleware: Any) -> str:
    if not callable(middleware):
        return NO_MIDDLEWARE
    module = _noted(middleware, "__module__", str) or ""
    if module.startswith("aiohttp_middlewares.client."):
        return OF_CLIENT
    return NO_MIDDLEWARE if module.startswith("aiohttp_middlewares.") else ""
