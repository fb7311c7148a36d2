"""What holds that no log shows a secret."""

import logging
from typing import Any

import pytest
from discreet import Records, keep, shows_nothing

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer 2YotnFZFEjr1zCsicMWpAA",
        "{'authorization': 'basic YWxhZGRpbjpvcGVuc2VzYW1l'}",
        TOKEN,
        f"session={TOKEN}; Path=/",
        "/-/auth/callback?code=SplxlOBeZQQYbYS6WxSbIA&iss=x",
        "/-/auth/callback?iss=x&state=af0ifjsldkj_af0ifjsldkj",
        "grant_type=x&client_secret=7Fjfp0ZBr1KtDRbnfVdmIw",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_secret_is_known_by_its_shape(text: str) -> None:
    assert not shows_nothing(text)


@pytest.mark.parametrize(
    "text",
    [
        'Bearer realm="Restricted", error="invalid_token"',
        "Basic realm=Restricted",
        "a session cookie is not good",
        "?state=1&code=2",
    ],
)
def test_what_is_for_everybody_is_none(text: str) -> None:
    assert shows_nothing(text)


def test_secret_of_a_test_is_known_however_it_is_encoded() -> None:
    secret = keep("100% of a secret")
    assert not shows_nothing(f"it is {secret}")
    assert not shows_nothing("it is 100%25+of+a+secret")


@pytest.mark.parametrize("name", ["", "anybody.else", "aiohttp_middlewares.x"])
@pytest.mark.parametrize("level", [1, logging.DEBUG, logging.ERROR])
def test_every_record_is_looked_at_in_every_test(
    name: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger(name).log(level, "%s", "this")
    [records] = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, Records)
    ]
    assert [text for text in records.texts if text.startswith("this ")]
    # Others see what they would see without it.
    assert len(caplog.records) == (level >= logging.WARNING)


@pytest.mark.parametrize(
    "told",
    [
        {"msg": f"it is {TOKEN}"},
        {"msg": "it is %s", "args": (TOKEN,)},
        {"msg": "it is %(a)s", "args": {"a": 1, "more": TOKEN}},
        {"msg": "it is", "more": TOKEN},
        {"msg": "it is", "exc_info": (ValueError, ValueError(TOKEN), None)},
    ],
)
def test_record_shows_what_is_anywhere_in_it(told: dict[str, Any]) -> None:
    records = Records()
    records.emit(logging.makeLogRecord({"name": "x", **told}))
    assert not all(map(shows_nothing, records.texts))


def test_malformed_record_is_known_though_nobody_raises() -> None:
    records = Records()
    logger = logging.getLogger("aiohttp_middlewares.of_this_test")
    for message, args in (("%d", ("x",)), ("%s %s", (1,)), ("fine %s", (1,))):
        record = logger.makeRecord(
            logger.name, logging.INFO, "file", 1, message, args, None
        )
        records.emit(record)
    assert records.malformed == ["%d", "%s %s"]
    assert [text for text in records.texts if text.startswith("fine 1 ")]
