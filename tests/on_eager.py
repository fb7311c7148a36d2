"""Has the tests run in eager tasks: ``python -m pytest -p tests.on_eager``.

They begin when they are made, and may end at once. From Python 3.12 on.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any


def new_event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    factory: Any = vars(asyncio)["eager_task_factory"]  # not in Python 3.11
    loop.set_task_factory(factory)
    return loop


def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    return {"eager": new_event_loop}
