"""What is remembered of texts that come again."""

from aiohttp_middlewares._core.caching import LONGEST_KEY, remembered


def test_short_text_is_found_out_once() -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    ask = remembered(length, size=2)
    assert [ask("a"), ask("a"), ask("bb"), ask("a")] == [1, 1, 2, 1]
    assert asked == ["a", "bb"]


def test_no_more_than_the_last_ones_are_kept() -> None:
    asked: list[str] = []
    ask = remembered(lambda text: asked.append(text), size=2)
    for text in "abcab":
        ask(text)
    assert asked == ["a", "b", "c", "a", "b"]


def test_long_text_is_not_kept() -> None:
    asked: list[int] = []
    ask = remembered(lambda text: asked.append(len(text)), size=2)
    for _ in range(2):
        ask("a" * LONGEST_KEY)
        ask("a" * (LONGEST_KEY + 1))
    assert asked == [LONGEST_KEY, LONGEST_KEY + 1, LONGEST_KEY + 1]
