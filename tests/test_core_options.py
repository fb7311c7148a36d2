"""The wording of what a wrong option is told."""

import ipaddress
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from aiohttp_middlewares._core import options


@pytest.mark.parametrize(
    ("check", "value", "error", "message"),
    [
        (options.flag, 1, TypeError, "True or False, got 1"),
        (options.flag, "yes", TypeError, "True or False, got 'yes'"),
        (options.seconds, "1", TypeError, "a number of seconds, got '1'"),
        (options.seconds, True, TypeError, "a number of seconds, got True"),
        (options.seconds, None, TypeError, "a number of seconds, got None"),
        (
            options.seconds,
            0,
            ValueError,
            "a positive, finite number of seconds, got 0",
        ),
        (
            options.seconds,
            -0.5,
            ValueError,
            "a positive, finite number of seconds, got -0.5",
        ),
        (
            options.seconds,
            math.nan,
            ValueError,
            "a positive, finite number of seconds, got nan",
        ),
        (
            options.seconds,
            math.inf,
            ValueError,
            "a positive, finite number of seconds, got inf",
        ),
        (
            partial(options.seconds, zero=True),
            -1,
            ValueError,
            "0 or a positive, finite number of seconds, got -1",
        ),
        (
            options.integer,
            1.5,
            TypeError,
            "a whole number, 0 or more, got 1.5",
        ),
        (
            options.integer,
            True,
            TypeError,
            "a whole number, 0 or more, got True",
        ),
        (
            options.integer,
            -5,
            ValueError,
            "a whole number, 0 or more, got -5",
        ),
        (options.function, "f", TypeError, "a callable, got 'f'"),
        (
            options.strings,
            "a",
            TypeError,
            "a collection of strings, got 'a'; did you mean ['a']?",
        ),
        # A single one of what there should be several of.
        (
            options.strings,
            URL("https://a.example"),
            TypeError,
            "a collection of strings, got URL('https://a.example'); "
            "did you mean [URL('https://a.example')]?",
        ),
        (
            options.strings,
            re.compile("^/a"),
            TypeError,
            "a collection of strings, got re.compile('^/a'); "
            "did you mean [re.compile('^/a')]?",
        ),
        (
            options.strings,
            ipaddress.ip_network("10.0.0.0/8"),
            TypeError,
            "a collection of strings, got IPv4Network('10.0.0.0/8'); "
            "did you mean [IPv4Network('10.0.0.0/8')]?",
        ),
        (options.strings, b"a", TypeError, "a collection of strings, got b'a'"),
        (
            options.strings,
            {"a": 1},
            TypeError,
            "a collection of strings, got {'a': 1}",
        ),
        (options.strings, 42, TypeError, "a collection of strings, got 42"),
        (
            options.strings,
            [42],
            TypeError,
            "a collection of strings, got 42",
        ),
        (
            options.strings,
            [""],
            ValueError,
            "a collection of non-empty strings, got ''",
        ),
        (
            options.methods,
            "GET",
            TypeError,
            "a collection of HTTP methods, got 'GET'; did you mean ['GET']?",
        ),
        (
            options.methods,
            ["GET,POST"],
            ValueError,
            "a collection of HTTP methods, got 'GET,POST';"
            " did you mean ['GET', 'POST']?",
        ),
        (
            options.methods,
            ["G ET"],
            ValueError,
            "a collection of HTTP methods, got 'G ET'",
        ),
        (
            options.methods,
            ["*"],
            ValueError,
            "a collection of HTTP methods, got '*'",
        ),
        (
            options.methods,
            [None],
            TypeError,
            "a collection of HTTP methods, got None",
        ),
        (
            options.exceptions,
            "ValueError",
            TypeError,
            "a collection of exception classes, got 'ValueError';"
            " did you mean ['ValueError']?",
        ),
        (
            options.exceptions,
            [ValueError()],
            TypeError,
            "exception classes, got ValueError()",
        ),
        (
            options.exceptions,
            int,
            TypeError,
            "exception classes, got <class 'int'>",
        ),
        (
            options.exceptions,
            KeyboardInterrupt,
            TypeError,
            "exception classes, got <class 'KeyboardInterrupt'>",
        ),
    ],
)
def test_wrong_value_is_refused_in_one_sentence(
    check: Callable[[str, Any], object],
    value: object,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        check("some_middleware option", value)
    assert str(refused.value) == f"some_middleware option should be {message}"
    assert type(refused.value) is error


@pytest.mark.parametrize(
    ("check", "value", "kept"),
    [
        (options.flag, False, False),
        (options.seconds, 1, 1),
        (options.seconds, 0.001, 0.001),
        (options.integer, 0, 0),
        (options.function, len, len),
        (options.strings, ["a", "b"], ("a", "b")),
        (options.strings, {"a"}, ("a",)),
        (options.strings, (x for x in "ab"), ("a", "b")),
        (options.strings, [], ()),
        (options.methods, ["get"], {"GET"}),
        (options.methods, ("Get", "M-SEARCH"), {"GET", "M-SEARCH"}),
        (options.methods, (), frozenset()),
        (options.exceptions, ValueError, (ValueError,)),
        (
            options.exceptions,
            (web.HTTPNotFound, OSError),
            (web.HTTPNotFound, OSError),
        ),
        (options.exceptions, (), ()),
    ],
)
def test_right_value_is_kept_and_frozen(
    check: Callable[[str, Any], object], value: object, kept: object
) -> None:
    found = check("some_middleware option", value)
    assert found == kept
    assert isinstance(found, bool | int | float | tuple | frozenset) or (
        found is len
    )


def test_what_only_looks_like_a_number_of_seconds_is_refused() -> None:
    with pytest.raises(TypeError, match="a number of seconds"):
        options.seconds("some_middleware seconds", Fraction(1, 2))


def test_whole_number_has_the_minimum_that_is_asked_for() -> None:
    assert options.integer("some_middleware size", 1, minimum=1) == 1
    message = "some_middleware size should be a whole number, 1 or more, got 0"
    with pytest.raises(ValueError, match=re.escape(message)):
        options.integer("some_middleware size", 0, minimum=1)


@pytest.mark.parametrize(
    "name", ["X-Id", "x", "!#$%&'*+.^_`|~", "0", "Sec-WebSocket-Key"]
)
def test_token_of_the_standard_is_one(name: str) -> None:
    # RFC 9110 5.6.2
    assert options.tokens("names", "header names", [name]) == (name,)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", "a\r\n", "é", "(a)", '"a"', "a\x00", "a/b"]
)
def test_what_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names should be a collection"):
        options.tokens("names", "header names", [name])


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "https://a.example:8443/x?y",
        "http://localhost:1/",
        "http://127.9.9.9",
        "http://[::1]:8080",
    ],
)
def test_url_that_nobody_can_listen_to_is_secure(url: str) -> None:
    for value in (url, URL(url)):
        assert options.secure_url("some_middleware url", value) == URL(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hidden@a.example",
        "https://me:hidden@a.example:port",
        "https://me:hidden@[::1",
        "ftp://hidden@a.example",
    ],
)
def test_url_with_a_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="should be an https URL") as caught:
        options.secure_url("some_middleware url", url)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
