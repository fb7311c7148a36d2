"""The grammar of header fields, by the examples of the standards and beyond."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aiohttp_middlewares._core.grammar.fields import (
    MOST_ELEMENTS,
    MOST_TEXT,
    VARY,
    add_elements,
    best_media_type,
    elements,
    parameters,
    quoted,
    unquoted,
    weighted,
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # RFC 9110 5.3, 5.6.1.2: one line or several, and empty elements.
        (["foo, bar"], ["foo", "bar"]),
        (["foo", "bar"], ["foo", "bar"]),
        (["foo ,bar,"], ["foo", "bar"]),
        (["foo , ,bar,charlie"], ["foo", "bar", "charlie"]),
        ([], []),
        ([""], []),
        ([","], []),
        ([", ,"], []),
        (["\tfoo\t,\tbar"], ["foo", "bar"]),
        # RFC 9110 5.5
        (
            ['"http://example.com/a.html,foo", "http://without-a-comma.com/"'],
            [
                '"http://example.com/a.html,foo"',
                '"http://without-a-comma.com/"',
            ],
        ),
        ([r'"a\",b",c'], [r'"a\",b"', "c"]),
        (['a;b="1,2",c'], ['a;b="1,2"', "c"]),
        # What is open at the end of a line is closed there.
        (['a, "b, c'], ["a", '"b, c']),
        (['"a', "b"], ['"a', "b"]),
        (['a, "b\\'], ["a", '"b\\']),
    ],
)
def test_list_has_the_elements_that_the_standard_says(
    lines: list[str], expected: list[str]
) -> None:
    assert elements(lines) == expected


TOKENS = st.text("!#$%&'*+.^_`|~09AZaz-", min_size=1, max_size=4)
SEPARATORS = st.sampled_from([",", ", ", " ,", "\t, ", ",,", " , ,\t, "])


@given(
    members=st.lists(TOKENS, min_size=1),
    separators=st.lists(SEPARATORS, min_size=1),
)
def test_list_is_read_as_it_was_written(
    members: list[str], separators: list[str]
) -> None:
    line = members[0]
    for position, member in enumerate(members[1:]):
        line += separators[position % len(separators)] + member
    assert elements([line]) == members
    assert elements(members) == members


VALUES = st.text('ab"\\,;= \tq0.1*/', max_size=12)


@given(lines=st.lists(VALUES, max_size=3))
def test_no_line_breaks_the_reader_and_nothing_is_lost(
    lines: list[str],
) -> None:
    found = elements(lines)
    assert all(found)
    assert all(element == element.strip(" \t") for element in found)
    kept = re.sub(r"[\s,]", "", "".join(lines))
    assert re.sub(r"[\s,]", "", "".join(found)) == kept
    assert all(0 <= q <= 1 for _, q in weighted(lines))
    for element in found:
        parameters(element)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["a," * MOST_ELEMENTS + "b"], ["a"] * MOST_ELEMENTS),
        (["a,,"] * MOST_ELEMENTS + ["b"], ["a"] * MOST_ELEMENTS),
        # A line is cut before an element that would be cut in two.
        (["a," + "b" * MOST_TEXT], ["a"]),
        (["a," + '"b,' + "c," * MOST_TEXT], ["a"]),
        (["b" * (MOST_TEXT - 2) + ",c"], ["b" * (MOST_TEXT - 2), "c"]),
        (["a" * (MOST_TEXT - 1), "b", "c"], ["a" * (MOST_TEXT - 1), "b"]),
        (["," * MOST_TEXT + "a", "b"], []),
    ],
)
def test_what_stands_beyond_the_bounds_counts_as_not_said(
    lines: list[str], expected: list[str]
) -> None:
    assert elements(lines) == expected


# Adding to a list
# ================


@pytest.mark.parametrize(
    ("lines", "added", "expected"),
    [
        ([], ["Origin"], ["Origin"]),
        (["Accept"], ["Origin"], ["Accept, Origin"]),
        (["Accept", "Cookie"], ["Origin"], ["Accept, Cookie, Origin"]),
        (["origin"], ["Origin"], ["origin"]),
        (["Accept", "ORIGIN"], ["Origin"], ["Accept", "ORIGIN"]),
        (["Accept"], ["Origin", "accept"], ["Accept, Origin"]),
        (["Accept,"], ["Origin"], ["Accept, Origin"]),
        ([""], ["Origin"], ["Origin"]),
        # RFC 9110 12.5.5: "*" says that anything may have counted.
        (["*"], ["Origin"], ["*"]),
        (["Accept, *"], ["Origin"], ["Accept, *"]),
        (["Accept"], [], ["Accept"]),
        ([], [], []),
        # A name that only ends or begins like another is another.
        (
            ["X-Origin, Origin-Agent"],
            ["Origin"],
            ["X-Origin, Origin-Agent, Origin"],
        ),
    ],
)
def test_list_gets_what_it_did_not_hold(
    lines: list[str], added: list[str], expected: list[str]
) -> None:
    headers = CIMultiDict([("Vary", line) for line in lines])
    for _ in range(2):  # again, and nothing more changes
        add_elements(headers, VARY, added)
        assert headers.getall("Vary", []) == expected


# Choosing by weight
# ==================


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        # RFC 9110 12.5.1
        (
            "text/plain; q=0.5, text/html, text/x-dvi; q=0.8, text/x-c",
            {
                "text/plain": 0.5,
                "text/html": 1,
                "text/x-dvi": 0.8,
                "text/x-c": 1,
            },
        ),
        ("audio/*; q=0.2, audio/basic", {"audio/*": 0.2, "audio/basic": 1}),
        ("text/html;level=3;q=0.7", {"text/html": 0.7}),
        ("TEXT/HTML;Q=0.5", {"text/html": 0.5}),
        ("a/b ; q=0.125", {"a/b": 0.125}),
        ("gzip;q=1.000, *;q=0", {"gzip": 1, "*": 0}),
        # A weight inside of a quoted string is none.
        ('a/b;title="x;q=0"', {"a/b": 1}),
        ('a/b;title="x,y;q=0";q=0.5', {"a/b": 0.5}),
        # RFC 9110 12.4.2: what is not a weight asks for nothing.
        ("a/b;q=2", {"a/b": 0}),
        ("a/b;q=0.1234", {"a/b": 0}),
        ("a/b;q=-1", {"a/b": 0}),
        ("a/b;q=nan", {"a/b": 0}),
        ("a/b;q=", {"a/b": 0}),
        ("a/b;q", {"a/b": 0}),
        ("", {}),
    ],
)
def test_weights_are_those_of_the_standard(
    accept: str, expected: dict[str, float]
) -> None:
    assert dict(weighted([accept])) == expected


OFFERS = ["application/json", "text/html", "text/plain"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/html"),
        ("text/*", "text/html"),
        ("text/*, text/html;q=0.1", "text/plain"),
        ("text/plain, */*;q=0.5", "text/plain"),
        ("application/json;q=0.5, text/*;q=0.1, */*", "application/json"),
        ("application/json;q=0.2, text/*;q=0.1", "application/json"),
        # What Chromium sends for a page.
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,"
            "image/webp,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
            "text/html",
        ),
        ("application/json;q=0, */*;q=0.1", "text/html"),
        # Nothing of it is offered, or nothing wanted: the first.
        ("image/png", "application/json"),
        ("*/*;q=0", "application/json"),
        ("rubbish", "application/json"),
    ],
)
def test_best_offer_is_chosen(accept: str | None, expected: str) -> None:
    lines = [] if accept is None else [accept]
    assert best_media_type(lines, OFFERS) == expected


@given(accept=st.lists(VALUES, max_size=3))
def test_some_offer_is_chosen_whatever_is_asked_for(accept: list[str]) -> None:
    assert best_media_type(accept, OFFERS) in OFFERS


# Parameters
# ==========


def read(text: str) -> dict[str, str] | None:
    pairs = parameters(text)
    if pairs is None:
        return None
    return {name: unquoted(value) for name, value in pairs}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 7239 4
        ('for="_gazonk"', {"for": "_gazonk"}),
        ('For="[2001:db8:cafe::17]:4711"', {"for": "[2001:db8:cafe::17]:4711"}),
        (
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            {"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"},
        ),
        (
            "proto=https ; for=192.0.2.1:80",
            {"proto": "https", "for": "192.0.2.1:80"},
        ),
        (r'host="a\"b\\c"', {"host": r"a\"b\c".replace(r"\"", '"')}),
        ('a=""', {"a": ""}),
        ("a=;;b", {"a": "", "b": ""}),
        ("", {}),
        (" ; ;", {}),
        # Malformed, and so not to be believed in any part: here the second
        # quote is that of a proxy which appended its own element.
        ('proto=https;for=", for="[2001:db8::1]"', None),
        ('proto=https;for=", for=192.0.2.1', None),
        ("proto=https for=192.0.2.1", None),
        ("=https;proto=https", None),
        ('a="b"c', None),
    ],
)
def test_parameters_are_those_of_the_standard(
    text: str, expected: dict[str, str] | None
) -> None:
    assert read(text) == expected


@given(
    pairs=st.dictionaries(
        TOKENS.map(str.lower), st.text('ab"\\,;= ', max_size=5), min_size=1
    )
)
def test_parameters_are_read_as_they_were_quoted(pairs: dict[str, str]) -> None:
    text = ";".join(f"{name}={quoted(value)}" for name, value in pairs.items())
    assert elements([text]) == [text]
    assert read(text) == pairs
