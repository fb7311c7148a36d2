"""The page of the demo, with a visitor who presses its buttons."""

from collections.abc import AsyncIterator

import pytest
from selenium import webdriver

from browser.conftest import Page
from examples.demo.server import Origins, running

TRY_ALL = """
document.getElementById("try-all").click();
const summary = document.getElementById("summary");
while (!summary.className) {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
return summary.textContent;
"""
WRONG = """
return [...document.querySelectorAll(".verdict.bad")].map(
  (verdict) => verdict.closest("article").innerText);
"""
#: Try the card of that title, and have it.
TRY = """
const card = [...document.querySelectorAll("article")].find(
  (card) => card.querySelector("h3").textContent === title);
const verdict = card.querySelector(".verdict");
card.querySelector(".try").click();
while (!verdict.textContent) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
"""


@pytest.fixture
async def demo(page: Page) -> AsyncIterator[Origins]:
    async with running(0, 0) as origins:
        await page.visit(origins.page)
        yield origins
        await page.visit("about:blank")


async def test_everything_is_as_it_should_be(
    demo: Origins, chromium: webdriver.Chrome, page: Page
) -> None:
    chromium.set_script_timeout(60)
    try:
        summary = await page.run(TRY_ALL)
    finally:
        chromium.set_script_timeout(20)
    assert await page.run(WRONG) == []
    good, _, count, *_ = summary.split()
    assert good == count


async def test_page_counts_down_to_when_it_may_come_back(
    demo: Origins, page: Page
) -> None:
    first, then = await page.run(
        TRY
        + """
        const countdown = card.querySelector(".countdown");
        const first = countdown.textContent;
        while (countdown.textContent === first) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return [first, countdown.textContent];
        """,
        title="One request too many",
    )
    seconds = [int(text.split()[3]) for text in (first, then)]
    assert 10 >= seconds[0] > seconds[1]
    assert first == f"Come back in {seconds[0]} s"


async def test_countdown_is_gone_with_the_next_try(
    demo: Origins, page: Page
) -> None:
    hidden = await page.run(
        TRY
        + """
        const countdown = card.querySelector(".countdown");
        const before = countdown.hidden;
        card.querySelector(".try").click();
        return [before, countdown.hidden];
        """,
        title="One request too many",
    )
    assert hidden == [False, True]


async def test_visitor_signs_in_by_the_link(demo: Origins, page: Page) -> None:
    links = await page.run(
        "return [...document.querySelectorAll('.visit:not([hidden])')]"
        ".map((link) => link.href)"
    )
    members = f"{demo.api}/members"
    assert links == [members]
    await page.visit(members)
    await page.click("[value=grace]")
    assert await page.run("return location.href") == members
    assert "Welcome, Grace Hopper" in await page.text()
    await page.click("button")  # log out, here and there
    await page.click("button")
    here = await page.run("return location.href")
    assert here == f"{demo.api}/-/auth/signed-out"
