"""Write how-to/check-rules.txt: what check_stack finds, from its rules.

Run it when the rules have changed: ``python docs/record_rules.py``.
"""

import textwrap
from pathlib import Path

from aiohttp_middlewares.check._rules import REFUSES, RULES, Order, Rule

PAGE = Path(__file__).parent / "how-to" / "check-rules.txt"

HEAD = """\
.. list-table::
   :header-rows: 1
   :widths: 30 70

   * - Name
     - What, and what becomes of it
"""


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """The table of all rules."""
    return HEAD + "".join(
        f"   * - ``{rule.code}``\n{_cell(_sentence(rule))}" for rule in RULES
    )


def _sentence(rule: Order | Rule) -> str:
    if isinstance(rule, Rule):
        return rule.fault
    inner, outer = _names(rule.inner), _names(rule.outer)
    return f"{inner} outside of {outer}: {rule.harm}."


def _names(factories: tuple[str, ...]) -> str:
    names = [f"``{name.removesuffix('_middleware')}``" for name in factories]
    if set(REFUSES) <= set(factories):
        names = [
            name
            for name, factory in zip(names, factories, strict=True)
            if factory not in REFUSES
        ]
        names.append("*what refuses*")
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _cell(sentence: str) -> str:
    return (
        textwrap.fill(
            sentence,
            width=80,
            initial_indent="     - ",
            subsequent_indent="       ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
