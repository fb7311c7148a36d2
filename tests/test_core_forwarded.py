"""What proxies append, read from its right end."""

import pytest

from aiohttp_middlewares._core.grammar.fields import MOST_ELEMENTS, MOST_TEXT
from aiohttp_middlewares._core.grammar.forwarded import (
    forwarded_nearest_first,
    nearest_first,
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        (["a, b", "c"], ["c", "b", "a"]),
        ([" ,a\t,,", "", ","], ["a"]),
        (['"a, b'], ["b", '"a']),
    ],
)
def test_elements_come_from_the_right(
    lines: list[str], expected: list[str]
) -> None:
    assert list(nearest_first(lines)) == expected


@pytest.mark.parametrize(
    "sent",
    [
        ["x," * 50_000],
        ["x"] * 5000,
        ['for="' + "," * 50_000],
        ["\\" * 50_000],
        ["for=1;" * 20_000],
        [" " * MOST_TEXT],
        ["a" * (MOST_TEXT - 20)],
    ],
)
def test_right_end_is_never_lost(sent: list[str]) -> None:
    appended = [*sent[:-1], sent[-1] + ", for=192.0.2.1"]
    for lines in (appended, [*sent, "for=192.0.2.1"]):
        assert next(nearest_first(lines)) == "for=192.0.2.1"
        assert next(forwarded_nearest_first(lines)) == {"for": "192.0.2.1"}


def test_left_end_is_not_read_beyond_the_bounds() -> None:
    many = ["a"] * (MOST_ELEMENTS + 1)
    assert len(list(nearest_first(many))) == MOST_ELEMENTS
    assert len(list(nearest_first([",".join(many)]))) == MOST_ELEMENTS
    many = ["for=a"] * (MOST_ELEMENTS + 1)
    assert len(list(forwarded_nearest_first(many))) == MOST_ELEMENTS
    # An element that is cut in two is none.
    long = "9" * MOST_TEXT
    assert list(nearest_first([f"{long},a,b"])) == ["b", "a"]
    assert list(nearest_first([long, "a" * MOST_TEXT])) == ["a" * MOST_TEXT]
    assert list(nearest_first([f"1,{long}"])) == []
    assert list(forwarded_nearest_first([f"for={long},for=a"])) == [
        {"for": "a"}
    ]
