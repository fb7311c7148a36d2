"""That no log shows a token, a key or a secret.

A test module imports the fixture, which holds it over all of its tests, and
says with :func:`keep` what is secret.
"""

import logging
import traceback
from collections.abc import Iterator

import pytest

#: All that was ever sent or signed with in the tests of this process.
KEPT: set[str] = set()


def keep(secret: str) -> str:
    """The same, which no log may show."""
    # A shorter one may stand in any text by chance.
    if len(secret) >= 10:
        KEPT.add(secret)
    return secret


def shows_nothing(text: str) -> bool:
    return not any(secret in text for secret in KEPT)


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        facts = {**record.__dict__, "exc_info": None}
        self.texts.append(f"{record.getMessage()} {facts!r}")
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            chain = traceback.TracebackException.from_exception(error)
            self.texts.extend(chain.format())
            self.texts.append(repr(error))


@pytest.fixture(autouse=True)
def nothing_is_shown() -> Iterator[None]:
    """No record of any logger, at any level, shows what is secret."""
    root = logging.getLogger()
    level, records = root.level, Records()
    root.addHandler(records)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(records)
        root.setLevel(level)
    assert [text for text in records.texts if not shows_nothing(text)] == []
