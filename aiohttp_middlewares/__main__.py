"""``python -m aiohttp_middlewares check module:app``."""

import argparse
import asyncio
import importlib
import inspect
import json
import operator
import os
import sys
from contextlib import redirect_stdout

from aiohttp import web

from aiohttp_middlewares.check import Finding, check_stack

__all__ = ("main",)


#: What an application may raise while it is made.
FAILURES = (Exception, SystemExit, asyncio.CancelledError)


class NothingToLookAt(Exception):
    """There is no such application; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Print what is wrong with an application; 0, 1 or 2.

    :param arguments: Those of the command line. By default: ``sys.argv``.
    """
    parser = argparse.ArgumentParser(prog="python -m aiohttp_middlewares")
    command = parser.add_subparsers(required=True).add_parser(
        "check", help="say what is wrong with a list of middlewares"
    )
    command.add_argument(
        "app",
        metavar="MODULE:APP",
        help="an application, or a function without arguments that makes one",
    )
    command.add_argument("--format", choices=("text", "json"), default="text")
    asked = parser.parse_args(arguments)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        # What an application prints is not ours.
        with redirect_stdout(sys.stderr):
            app = find_application(asked.app)
    except NothingToLookAt as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    findings = check_stack(app)
    if asked.format == "json":
        text = json.dumps([item._asdict() for item in findings], indent=2)
    else:
        text = text_of(findings)
    sys.stdout.write(f"{text}\n")
    return 1 if findings else 0


def text_of(findings: list[Finding]) -> str:
    return (
        "\n".join(
            f"{item.where}: {item.message}. [{item.code}]\n    {item.remedy}."
            for item in findings
        )
        or "Nothing is wrong with this list."
    )


def find_application(asked: str) -> web.Application:
    """The application, or what the function of that name makes.

    :raises NothingToLookAt: there is none.
    """
    module_name, _, name = asked.partition(":")
    if not module_name or not name:
        raise NothingToLookAt(
            f"{asked!r} should be the name of a module and of an application "
            "in it, such as 'package.module:app'"
        )
    try:
        module = importlib.import_module(module_name)
    except FAILURES as exc:
        text = f"{module_name} cannot be imported: {said(exc)}"
        if isinstance(exc, ModuleNotFoundError) and module_name[-3:] == ".py":
            meant = module_name[:-3].replace("/", ".")
            text += f"; did you mean '{meant}:{name}'?"
        raise NothingToLookAt(text) from exc
    try:
        found = operator.attrgetter(name)(module)
    except AttributeError as exc:
        raise NothingToLookAt(f"{module_name} has no {name}") from exc
    except FAILURES as exc:  # of a property, or of the module's __getattr__
        raise NothingToLookAt(f"{asked} has raised {said(exc)}") from exc
    if callable(found) and not isinstance(found, web.Application):
        try:
            found = found()
            if inspect.isawaitable(found):
                found = asyncio.run(_waited_for(found))
        except FAILURES as exc:
            raise NothingToLookAt(f"{asked} has raised {said(exc)}") from exc
    if isinstance(found, web.AppRunner):  # as gunicorn takes it
        found = found.app
    if not isinstance(found, web.Application):
        raise NothingToLookAt(
            f"{asked} should be a web.Application or make one, "
            f"it is of type {type(found).__qualname__}"
        )
    return found


async def _waited_for(made: object) -> object:
    return await made  # type: ignore[misc]


def said(exc: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


if __name__ == "__main__":
    sys.exit(main())
