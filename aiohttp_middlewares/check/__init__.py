"""
======================
Middleware order check
======================

Checks the order of the middlewares of an application: says what stands in the
wrong place, twice, or alone, and what that does to visitors.

Usage
=====

.. code-block:: python

    from aiohttp import web
    from aiohttp_middlewares import (
        check_stack,
        error_middleware,
        timeout_middleware,
    )

    app = web.Application(
        middlewares=[timeout_middleware(29.5), error_middleware()]
    )

    for finding in check_stack(app):
        print(f"{finding.where}: {finding.message}. {finding.remedy}.")

prints::

    the application: timeout_middleware stands outside of error_middleware:
    what it raises is answered by aiohttp, as plain text or with no text at
    all. List error_middleware before timeout_middleware.

In a shell, and before each deployment::

    python -m aiohttp_middlewares check package.module:app

The exit code is 0 if all is well, 1 if something was found, and 2 if there is
nothing to look at. See :doc:`/how-to/check`.

What it looks at
================

The list of the application; that of each sub-application, inside of those
around it; and what :func:`~aiohttp_middlewares.with_middlewares` puts around a
handler or a view, inside of both. Each fault is reported once, where it comes
from.

Limits
======

It reads lists and a few options, not URLs: a middleware with ``ignore`` or
``urls`` counts as one for all requests. It knows only the middlewares of this
package. It never complains about others, which may do anything: where one
stands outside, nothing is reported as missing.
"""

from typing import NamedTuple

from aiohttp import web

__all__ = ("Finding", "check_stack")


class Finding(NamedTuple):
    """Something that is wrong with a list of middlewares."""

    #: The name of the rule, such as ``"cors-inside"``.
    code: str
    #: What is wrong, and what that does.
    message: str
    #: What to do about it.
    remedy: str
    #: Where: the application, a sub-application or a handler.
    where: str


def check_stack(app: web.Application) -> list[Finding]:
    """What is wrong with the middlewares of an application.

    :param app:
        The application: the outermost, as a sub-application does not know what
        stands around it.
    :raises TypeError: it is none.
    """
    # Who serves and does not ask is spared these.
    from aiohttp_middlewares.check._rules import RULES
    from aiohttp_middlewares.check._stacks import stacks_of

    if not isinstance(app, web.Application):
        raise TypeError(
            f"check_stack should get a web.Application, got {app!r}"
        )
    found = (
        Finding(rule.code, message, remedy, stack.where)
        for stack in stacks_of(app)
        for rule in RULES
        for place, message, remedy in rule.find(stack)
        if place >= stack.own  # else it is found further out
    )
    return list(dict.fromkeys(found))
