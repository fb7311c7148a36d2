"""That no log shows a token, a key, a secret or a cookie.

``conftest`` holds it over all tests. What looks like one is known by its
shape; a test says with :func:`keep` what else is secret.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from urllib.parse import unquote_plus

import pytest

#: All that was ever sent or signed with in the test, and what its module has.
KEPT: set[str] = set()

#: Credentials of either scheme; what begins with JSON in base64, as tokens and
#: signed cookies do; what goes over OAuth's wires; and a PEM.
_SHAPES = re.compile(
    r"(?i:\b(?:bearer|basic)) +(?!realm)[\w.~+/-]{10,}"
    r"|\beyJ[\w-]{10,}"
    r"|\b(?:state|nonce|code|code_verifier|client_secret|password"
    r"|(?:access|refresh|id)_token|id_token_hint|session)=[\w.~%+/-]{10,}"
    r"|-----BEGIN "
)


def keep(secret: str) -> str:
    """The same, which no log may show."""
    # A shorter one may stand in any text by chance.
    if len(secret) >= 10:
        KEPT.add(secret)
    return secret


def shows_nothing(text: str) -> bool:
    plain = unquote_plus(text)
    return _SHAPES.search(text) is None and not any(
        secret in text or secret in plain for secret in KEPT
    )


#: aiohttp's own access log writes queries: see the docs of ``sign_in``. What
#: a browser of the tests has in it its driver tells.
_OTHERS = ("aiohttp.access", "selenium", "urllib3")


class Records(logging.Handler):
    """Keeps the texts of records, and nothing that they are about."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: dict[str, None] = {}
        self.malformed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(_OTHERS):
            return
        facts = {**record.__dict__, "exc_info": None}
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Nobody else would know: what logging raises stops no request.
            self.malformed.append(str(record.msg))
            return
        self.texts[f"{message} {facts!r}"] = None
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            chain = traceback.TracebackException.from_exception(error)
            self.texts.update(dict.fromkeys(chain.format()))
            self.texts[repr(error)] = None


#: One that nobody else gives to the root logger.
_EVERYTHING = 1


class AsBefore(logging.Filter):
    """Passes what would be logged if nobody wanted everything."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        level = logging.getLogger(record.name).getEffectiveLevel()
        if level == _EVERYTHING:
            level = self.level
        return record.levelno >= level


@pytest.fixture(autouse=True)
def nothing_is_shown() -> Iterator[None]:
    """No record of any logger, at any level, shows what is secret."""
    root = logging.getLogger()
    level, records, kept = root.level, Records(), set(KEPT)
    before, others = AsBefore(level), list(root.handlers)
    for handler in others:  # those of caplog, which look for less
        handler.addFilter(before)
    root.addHandler(records)
    root.setLevel(_EVERYTHING)
    try:
        yield
    finally:
        root.removeHandler(records)
        root.setLevel(level)
        for handler in others:
            handler.removeFilter(before)
        found = [text for text in records.texts if not shows_nothing(text)]
        KEPT.intersection_update(kept)
    assert found == []
    assert records.malformed == []
