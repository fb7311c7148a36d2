"""Attributes that our code does not find, while aiohttp does."""

import sys
from typing import Any

import pytest


def hide(
    monkeypatch: pytest.MonkeyPatch, owner: type[Any], *names: str
) -> None:
    """As if they were not there, for our code; others need them."""
    read: Any = owner.__getattribute__
    write: Any = owner.__setattr__

    def refuse(name: str) -> None:
        asking = sys._getframe(2).f_globals["__name__"]
        if name in names and asking.startswith("aiohttp_middlewares"):
            raise AttributeError(name)

    def __getattribute__(self: object, name: str) -> Any:
        refuse(name)
        return read(self, name)

    def __setattr__(self: object, name: str, value: Any) -> None:
        refuse(name)
        write(self, name, value)

    monkeypatch.setattr(owner, "__getattribute__", __getattribute__)
    monkeypatch.setattr(owner, "__setattr__", __setattr__)
