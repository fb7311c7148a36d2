"""
===================
aiohttp-middlewares
===================

Middlewares for ``aiohttp.web`` applications. Each module is one of them and
holds one factory: ``aiohttp_middlewares.cors.cors_middleware``, and so on.
"""

from aiohttp_middlewares.constants import (
    IDEMPOTENT_METHODS,
    NON_IDEMPOTENT_METHODS,
)

__all__ = (
    "IDEMPOTENT_METHODS",
    "NON_IDEMPOTENT_METHODS",
)

__version__ = "4.0.0.dev0"
