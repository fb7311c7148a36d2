"""Origins, as browsers send them and as options name them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares._core.grammar.authority import Authority
from aiohttp_middlewares._core.grammar.origins import (
    LONGEST_ORIGIN,
    Origin,
    is_origin,
    origin_at,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.example", Origin("https", "a.example", 443)),
        ("HTTPS://A.example:443", Origin("https", "a.example", 443)),
        ("http://a.example:8080", Origin("http", "a.example", 8080)),
        ("ws://[::1]", Origin("ws", "[::1]", 80)),
        ("app://a", Origin("app", "a", None)),
        ("null", None),
        ("", None),
        ("https://", None),
        ("//a.example", None),
        ("a.example", None),
        ("://a.example", None),
        ("https://a.example/", None),
        ("https://u@a.example", None),
        ("https://a.example:", None),
        ("https://a.example:65536", None),
        ("https://b\u00fccher.example", None),
        ("1https://a.example", None),
        ("https://" + "a" * 254, None),
        ("https://" + "\u0300" * 65536, None),
        ("a" * 65536 + "://a", None),
    ],
)
def test_origin_is_scheme_host_and_port(
    text: str, expected: Origin | None
) -> None:
    assert parse_origin(text) == expected


def test_port_that_is_not_named_is_that_of_the_scheme() -> None:
    assert origin_at("http", Authority("a", 80)) == parse_origin("http://a")
    assert origin_at("https", Authority("a")) == parse_origin("https://a:443")
    assert origin_at("https", Authority("a", 80)) != parse_origin("https://a")


@given(st.text(), st.sampled_from(["", "https://", "http://a"]))
def test_any_text_is_an_origin_or_none(text: str, before: str) -> None:
    found = parse_origin(before + text)
    if found is not None:
        assert is_origin(before + text)


@pytest.mark.parametrize(
    ("text", "said_back"),
    [
        ("https://a.example", True),
        ("moz-extension://550e8400-e29b-41d4-a716-446655440000", True),
        ("null", False),
        ("https://a b", False),
        ("https://\u00fc", False),
        ("https://a\r\nX: y", False),
        ("https://" + "a" * LONGEST_ORIGIN, False),
    ],
)
def test_only_what_a_browser_sends_is_said_back(
    text: str, said_back: bool
) -> None:
    assert is_origin(text) is said_back


@pytest.mark.parametrize(
    ("rule", "fits", "fits_not"),
    [
        ("https://A.example:443/", ["https://a.example"], ["http://a.example"]),
        ("https://a.example.", ["https://a.example."], ["https://a.example"]),
        (
            "https://B\u00fccher.example",
            ["https://xn--bcher-kva.example"],
            ["https://b\u00fccher.example"],
        ),
        (
            "https://*.a.example:8443",
            ["https://b.a.example:8443", "https://c.b.a.example:8443"],
            ["https://b.a.example", "https://a.example:8443"],
        ),
        (
            "http://[0::1]:*",
            ["http://[::1]", "http://[::1]:80"],
            ["http://[::2]"],
        ),
        (
            re.compile("https://a.*"),
            ["https://a.example", "https://a.example:1"],
            ["https://" + "a" * LONGEST_ORIGIN],
        ),
        (URL("https://a.example/"), ["https://a.example"], ["null"]),
        ("null", ["null"], ["https://a.example"]),
    ],
)
def test_rule_fits_what_it_means(
    rule: object, fits: list[str], fits_not: list[str]
) -> None:
    origins = options.origins("test", [rule])
    assert [origin for origin in fits if origin not in origins] == []
    assert [origin for origin in fits_not if origin in origins] == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["a.example"], "did you mean 'https://a.example'?"),
        (["https://a.example/x"], "did you mean 'https://a.example'?"),
        (["https://a..example"], "got 'https://a..example'"),
        (["https://*"], "got 'https://*'"),
        (["https://a.*.example"], "got 'https://a.*.example'"),
        (["https://a.example:65536"], "got 'https://a.example:65536'"),
        (["https://" + "a" * 300], "got 'https://aaa"),
        ([re.compile(b"a")], "patterns for str"),
        ([1], "strings, patterns or URLs, got 1"),
        (
            URL("https://a.example"),
            "did you mean [URL('https://a.example')]?",
        ),
        (re.compile("a"), "did you mean [re.compile('a')]?"),
    ],
)
def test_what_is_no_origin_is_refused(value: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        options.origins("test", value)
