"""Settings of Sphinx."""

import aiohttp_middlewares

project = "aiohttp-middlewares"
author = "aiohttp-middlewares contributors"
copyright = f"2026, {author}"
version = release = aiohttp_middlewares.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]

# The docstrings say what an option may be, in words; the aliases of
# aiohttp_middlewares.annotations spelt out would be longer than the text.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

html_theme = "furo"
html_title = f"aiohttp-middlewares {release}"
