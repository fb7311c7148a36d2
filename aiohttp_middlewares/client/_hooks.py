"""Calling what the user passed."""

import inspect
import logging
from collections.abc import Callable
from typing import Any


async def call_hook(
    logger: logging.Logger, what: str, hook: Callable[..., Any], *args: object
) -> Any:
    """The result of a hook, sync or async; None when it raised.

    A hook that raises is logged and changes nothing.
    """
    try:
        result = hook(*args)
        return await result if inspect.isawaitable(result) else result
    except Exception:
        logger.exception("The hook %s failed", what)
        return None
