"""``Cookie``, as browsers write it, whatever else is in there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_middlewares._core.grammar.cookies import MOST_TEXT, cookie_values

HOST = "__Host-session"


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ([], []),
        ([""], []),
        (["session=a"], ["a"]),
        (["a=1; session=b; c=2"], ["b"]),
        (["a=1;session=b;c=2"], ["b"]),
        (["\t session \t=\t b \t"], ["b"]),
        (["session="], [""]),
        (["session=a=b=="], ["a=b=="]),
        # Quotation marks are part of a value, and hide no semicolon.
        (['session="a"'], ['"a"']),
        (['a="b; session=c"'], ['c"']),
        # Several, in their order; a proxy may have made lines of them.
        (["session=a; session=b"], ["a", "b"]),
        (["session=a; x=y", "session=b"], ["a", "b"]),
        # What other readers stumble over, or stop at.
        (['g_state={"i_l":0,"i_p":1}; session=a'], ["a"]),
        (["a(b)=1; session=a"], ["a"]),
        (["ä=1; session=a"], ["a"]),
        (["=1; ;; a; session=a"], ["a"]),
        (["a=b,c; session=a"], ["a"]),
        # Names are exact.
        (["Session=a; sessions=b; xsession=c; $session=d"], []),
        (["session"], []),
        (['"session"=a'], []),
        # It is not found inside of another cookie, or behind a blank that
        # is none for a browser.
        (["a=b session=x"], []),
        (["a=b,session=x"], []),
        (['a="b\\; session=x"'], ['x"']),
        (["\u00a0session=x"], []),
        (["\u2000session=x"], []),
        (["\x85session=x"], []),
        (["\x0bsession=x"], []),
    ],
)
def test_cookie_is_found_by_its_name_alone(
    lines: list[str], values: list[str]
) -> None:
    assert cookie_values(lines, "session") == values


@pytest.mark.parametrize("name", [HOST, "__host-session", "__HOST-a"])
def test_of_a_host_cookie_sent_twice_none_counts(name: str) -> None:
    assert cookie_values([f"{name}=a"], name) == ["a"]
    assert cookie_values([f"{name}=a; {name}=b"], name) == []
    assert cookie_values([f"{name}=a", f"{name}=a"], name) == []
    # There is one of them, and another's value that looks alike.
    assert cookie_values([f"x=y {name}=b; {name}=a"], name) == ["a"]


def test_secure_cookie_may_be_sent_twice() -> None:
    # Of another path or domain: only the key can tell.
    line = "__Secure-a=1; __Secure-a=2"
    assert cookie_values([line], "__Secure-a") == ["1", "2"]


def test_what_stands_beyond_the_bound_is_not_read() -> None:
    many = "x=y;" * (MOST_TEXT // 4)
    assert cookie_values([many + "session=a"], "session") == []
    assert cookie_values([many, "session=a"], "session") == []
    assert cookie_values(["session=a;" + many], "session") == ["a"]
    # Not the first half of a value either.
    assert cookie_values(["session=" + "a" * MOST_TEXT], "session") == []


NAMES = st.text("abAB_-(){}", min_size=1, max_size=3)
VALUES = st.text('ab=", \\{}:', max_size=5)


@given(st.lists(st.tuples(NAMES, VALUES)), NAMES)
def test_cookies_are_read_as_they_were_written(
    cookies: list[tuple[str, str]], name: str
) -> None:
    line = "; ".join(f"{key}={value}" for key, value in cookies)
    expected = [value.strip(" ") for key, value in cookies if key == name]
    assert cookie_values([line], name) == expected
