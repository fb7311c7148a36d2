"""Signatures with their types, as they are written in the code.

autodoc would spell each alias out: of ``Urls`` nobody would see any more what
it is. And it names classes by the module that holds them, which is a private
one for all of aiohttp's; the links then lead nowhere.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from itertools import takewhile
from types import FunctionType
from typing import Any, cast

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import stringify_annotation

from aiohttp_middlewares import annotations

#: Where others have what they name otherwise.
HOMES = {
    r"aiohttp\.web_\w+\.": "aiohttp.web.",
    r"aiohttp\.(client|client_\w+|connector|tracing)\.": "aiohttp.",
    r"multidict\._multidict\.": "multidict.",
    r"yarl\._url\.": "yarl.",
}


def write_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str,
    returns: str,
) -> tuple[str, str] | None:
    """Take arguments and result from the source."""
    function: Callable[..., Any] = obj
    if inspect.isclass(obj):
        if getattr(obj, "_is_protocol", False):
            return "", ""  # nobody makes one
        function = vars(obj).get("__init__", obj)
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType):
        return None
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError:  # of a dataclass: made, not written
        return None
    node = ast.parse(source).body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    written = Written(function.__module__, function.__globals__)
    node.decorator_list.clear()
    for arg in ast.walk(node.args):
        if isinstance(arg, ast.arg) and arg.annotation:
            arg.annotation = written.visit(arg.annotation)
    if what in ("class", "method"):
        del node.args.args[:1]
    result = ast.unparse(written.visit(node.returns)) if node.returns else ""
    return f"({ast.unparse(node.args)})", "" if what == "class" else result


class Written(ast.NodeTransformer):
    """Puts the full name into the place of a short one."""

    def __init__(self, module: str, names: Mapping[str, Any]) -> None:
        self.module, self.names = module, names

    def visit(self, node: ast.AST) -> Any:
        if not isinstance(node, ast.Name | ast.Attribute):
            return self.generic_visit(node)
        name = ast.unparse(node)
        full = self.name_of(name, eval(name, dict(self.names)))
        return ast.parse(full, mode="eval").body

    def name_of(self, name: str, value: Any) -> str:
        if name in annotations.__all__:
            return f"{annotations.__name__}.{name}"
        if name in self.names.get("__all__", ()):
            return f"{self.module}.{name}"
        return stringify_annotation(value, "fully-qualified")


def leave_out_what_python_says(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Show no text of ``str`` where a string has none of its own."""
    if (
        what == "data"
        and lines
        and (type(obj).__doc__ or "").startswith(lines[0])
    ):
        lines.clear()


def find_home(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Any
) -> Any:
    """Look for what was not found under its name where it is documented."""
    if node["refdomain"] != "py":
        return None
    for private, public in HOMES.items():
        node["reftarget"] = re.sub(f"^{private}", public, node["reftarget"])
    *path, last = node["reftarget"].split(".")
    if path and path[0] != "aiohttp_middlewares":
        return None  # intersphinx goes on
    room = ".".join(takewhile(lambda part: part[0] != "_", path))
    client = "aiohttp_middlewares.client."
    of_client = f"{room or node.get('py:module')}.".startswith(client)
    python = cast(PythonDomain, env.get_domain("py"))
    for name in python.objects:
        if (
            name.startswith(room)
            and name.endswith(f".{last}")
            and name.startswith(client) is of_client
        ):
            return python.resolve_xref(
                env, node["refdoc"], app.builder, "obj", name, node, content
            )
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", leave_out_what_python_says)
    app.connect("missing-reference", find_home, priority=400)
    return {"parallel_read_safe": True}
