"""
=====
Utils
=====

Matching of single requests, for your own middlewares. They take any rule and
complain of none; what the middlewares of this package take is checked when
they are made.
"""

from aiohttp_middlewares._core.urls import match_path, match_request

__all__ = ("match_path", "match_request")
