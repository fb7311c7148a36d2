"""Remember what was found out about short texts that come again."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

#: Longer texts are found out anew: a thousand of them would fill the memory
#: for good, and nobody sends one twice but to do just that.
LONGEST_KEY = 200


def remembered(
    function: Callable[[str], T], *, size: int
) -> Callable[[str], T]:
    """The same function; the last ``size`` short texts cost a look-up."""
    look_up = lru_cache(maxsize=size)(function)

    def ask(text: str) -> T:
        return look_up(text) if len(text) <= LONGEST_KEY else function(text)

    return ask
