"""Settings of Sphinx."""

import sys
from pathlib import Path

import aiohttp_middlewares

sys.path.insert(0, str(Path(__file__).parent))  # signatures

project = "aiohttp-middlewares"
author = "aiohttp-middlewares contributors"
copyright = f"2026, {author}"
version = release = aiohttp_middlewares.__version__

extensions = ["signatures", "sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True
# Types that are our own business, though a signature names them.
nitpick_ignore_regex = [
    ("py:class", r"aiohttp_middlewares\.(.+\.)?(_\w+\..+|H)"),
    ("py:class", r"aiohttp_middlewares\.session\.Storage"),
    ("py:exc", "StoreUnavailable"),
    ("py:class", "ellipsis"),  # Sphinx 8 calls it so
    ("py:class", r"aiohttp\.tracing\.Trace"),
]

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
maximum_signature_line_length = 68
python_use_unqualified_type_names = True
toc_object_entries = False
# Dashes, and no quotes: error messages are looked for as they are.
smartquotes_action = "D"

# The build asks nobody: here is, of others' inventories, what these pages name.
# A line is the name, what it is (`mod` for a module), and the page. To link
# more, add a line.
INVENTORIES = Path(__file__).parent / "inventories"
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(INVENTORIES / "python.txt")),
    "aiohttp": (
        "https://docs.aiohttp.org/en/stable",
        str(INVENTORIES / "aiohttp.txt"),
    ),
    "multidict": (
        "https://multidict.aio-libs.org/en/stable",
        str(INVENTORIES / "multidict.txt"),
    ),
    "yarl": (
        "https://yarl.aio-libs.org/en/stable",
        str(INVENTORIES / "yarl.txt"),
    ),
}

html_theme = "furo"
html_title = f"aiohttp-middlewares {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
