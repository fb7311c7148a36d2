"""What is in a payload of aiohttp's."""

from typing import Any

from aiohttp import Payload


def value_of(payload: Payload) -> Any:
    """What it was made of; ``None`` where aiohttp does not tell."""
    return getattr(payload, "_value", None)
