"""Try the scenarios with a client, and print what came back."""

import asyncio

from examples.demo.attempt import attempt, fits
from examples.demo.scenarios import NONE, scenarios
from examples.demo.server import running


async def check(page_port: int = 0, api_port: int = 0) -> bool:
    """Try them all at once, and say whether all is as it should be."""
    async with running(page_port, api_port) as (page, api):
        table = scenarios(page)
        found = await asyncio.gather(
            *(attempt(api, scenario) for scenario in table)
        )

    _print_row("scenario", "expected", "got", "ok")
    passed = 0
    for scenario, got in zip(table, found, strict=True):
        print(scenario.title)
        verdicts = []
        for name, expected in scenario.expect.items():
            fact = got.get(name, NONE)
            verdicts.append(good := fits(expected, fact))
            _print_row(f"  {name}", expected, fact, "yes" if good else "NO")
        passed += all(verdicts)
    print(f"\n{passed} passed, {len(table) - passed} failed")
    return passed == len(table)


def _print_row(name: str, expected: str, got: str, ok: str) -> None:
    expected, got = (" ".join(text.split()) for text in (expected, got))
    if ok != "NO":  # what is wrong shows in full
        expected, got = (_cut(text, 36) for text in (expected, got))
    print(f"{name:40}  {expected:36}  {got:36}  {ok}")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
