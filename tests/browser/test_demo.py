"""The page of the demo, with a visitor who presses its buttons."""

import asyncio
import runpy
import struct
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

import aiohttp_middlewares
from browser.conftest import Page
from examples.demo import page as page_module
from examples.demo.scenarios import MIDDLEWARES, TASKS, Scenario, scenarios
from examples.demo.server import Origins, running

DOCS = Path(__file__).parents[2] / "docs"
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
  (card) => card.querySelector("h4").textContent === title);
const verdict = card.querySelector(".verdict");
card.querySelector(".try").click();
while (!verdict.textContent) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
"""


#: All that can be unfolded.
UNFOLD = """
for (const details of document.querySelectorAll("details")) {
  details.open = true;
}
"""
#: What of the text is harder to read than WCAG 2.2, 1.4.3, has it.
FAINT = """
const channels = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = (color) => {
  const [red, green, blue] = channels(color).map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = (element) => {
  const color = getComputedStyle(element).backgroundColor;
  return channels(color)[3] === 0 ? ground(element.parentElement) : color;
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const faint = [];
let count = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  count += 1;
  const style = getComputedStyle(element);
  const [dark, light] = [luminance(style.color), luminance(ground(element))]
    .sort((one, other) => one - other);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5 || style.opacity !== "1") {
    faint.push([texts.currentNode.data, contrast]);
  }
}
"""

Look = Callable[..., Any]


@pytest.fixture
async def look(chromium: webdriver.Chrome) -> AsyncIterator[Look]:
    """See the page on a screen of that width, and in that scheme."""

    async def tell(command: str, **options: Any) -> None:
        await asyncio.to_thread(chromium.execute_cdp_cmd, command, options)

    async def look(width: int = 0, scheme: str = "") -> None:
        await tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900 if width else 0,
            deviceScaleFactor=0,
            mobile=False,
        )
        await tell(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    yield look
    await look()


@pytest.fixture
async def demo(page: Page) -> AsyncIterator[Origins]:
    async with running(0, 0) as origins:
        await page.visit(origins.page)
        yield origins
        await page.visit("about:blank")


async def try_all(chromium: webdriver.Chrome, page: Page) -> str:
    chromium.set_script_timeout(60)
    try:
        summary: str = await page.run(TRY_ALL)
    finally:
        chromium.set_script_timeout(20)
    return summary


async def test_everything_is_as_it_should_be(
    demo: Origins, chromium: webdriver.Chrome, page: Page
) -> None:
    complaints(chromium)  # of what was before
    summary = await try_all(chromium, page)
    assert await page.run(WRONG) == []
    good, _, count, *_ = summary.split()
    assert good == count
    assert await page.run(
        "return [...document.querySelectorAll('.verdicts')]"
        ".filter((each) => each.textContent).map((each) => each.textContent)"
    ) == ["✓"] * len(MIDDLEWARES)
    # Answers such as 404 are for show; that anything is kept from its work by
    # the policy of the page is not.
    assert [
        each for each in complaints(chromium) if each["source"] != "network"
    ] == []


def complaints(chromium: webdriver.Chrome) -> list[dict[str, str]]:
    """What the console of the browser has, since it was last asked."""
    found: list[dict[str, str]] = chromium.execute(
        "getLog", {"type": "browser"}
    )["value"]
    return found


async def test_page_can_be_read_in_light_and_dark_and_on_a_narrow_screen(
    demo: Origins, chromium: webdriver.Chrome, page: Page, look: Look
) -> None:
    await try_all(chromium, page)
    for width in (1280, 600, 360):
        await look(width)
        await page.run(UNFOLD)
        assert (
            await page.run(
                """
            const { clientWidth, scrollWidth } = document.documentElement;
            return [...document.body.querySelectorAll("*")]
              .filter((one) => one.getBoundingClientRect().right > clientWidth)
              .map((one) => one.outerHTML)
              .concat(scrollWidth > clientWidth ? ["the page"] : []);
            """
            )
            == []
        )
    grounds = []
    for scheme in ("light", "dark"):
        await look(1280, scheme)
        faint, count, brightness = await page.run(
            FAINT + "return [faint, count, luminance(ground(document.body))]"
        )
        assert faint == []
        assert count > 2000
        grounds.append(brightness)
    assert grounds[0] > 0.8
    assert grounds[1] < 0.02


async def test_contents_lead_to_every_card(demo: Origins, page: Page) -> None:
    tasks = await page.run(
        """
        return [...document.querySelectorAll("#tasks > li")].map((task) => [
          task.querySelector("a").textContent,
          [...task.querySelectorAll(":scope li")].map(
            (name) => name.querySelector("a").textContent),
        ]);
        """
    )
    assert tasks == [[task, names] for task, names in TASKS.items()]
    cards = await page.run(
        """
        const found = {};
        for (const link of document.querySelectorAll("nav a")) {
          const section = document.querySelector(link.hash);
          found[link.textContent] =
            [...section.querySelectorAll("article h4")].map(
              (title) => title.textContent);
        }
        return found;
        """
    )
    for task, names in TASKS.items():
        assert cards[task] == [card for name in names for card in cards[name]]
    for name in MIDDLEWARES:
        assert cards[name] == [
            scenario.title
            for scenario in scenarios(demo.page)
            if scenario.middleware == name
        ]


async def test_contents_show_where_the_reader_is(
    demo: Origins, page: Page, look: Look
) -> None:
    await look(1280)
    assert await page.run(
        """
        const reached = [];
        for (const name of ["session", "cors"]) {
          const link = document.querySelector(`nav a[href="#${name}"]`);
          link.click();
          document.getElementById(name).scrollIntoView();
          while (link.ariaCurrent !== "true") {
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          reached.push(document.querySelectorAll("[aria-current]").length);
        }
        return reached;
        """
    ) == [1, 1]


async def test_link_to_a_middleware_leads_to_it(
    demo: Origins, page: Page
) -> None:
    await page.visit("about:blank")
    await page.visit(f"{demo.page}/#rate_limit")
    top = await page.run(
        """
        let section;
        while (!(section = document.getElementById("rate_limit"))) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        return section.getBoundingClientRect().top;
        """
    )
    assert 0 <= top < 100


async def test_each_card_has_its_code_and_a_link_to_its_docs(
    demo: Origins, page: Page, look: Look
) -> None:
    await look(1280)
    cards = await page.run(
        """
        return [...document.querySelectorAll("article")].map((card) => ({
          code: card.querySelector(".source").innerText,
          named: card.querySelectorAll(".source mark").length,
          docs: card.querySelector("a.docs").href,
          title: card.querySelector("h4").textContent,
        }));
        """
    )
    table = {each.title: each for each in scenarios(demo.page)}
    assert {card["title"] for card in cards} == set(table)
    assert len(cards) == len(table)
    for card in cards:
        assert card["named"]
        assert card["docs"] == table[card["title"]].documentation()
        assert card["code"].startswith("examples/demo/api.py, line")
        factory = f"{table[card['title']].middleware}_middleware"
        if factory in aiohttp_middlewares.__all__:
            assert f"{factory}(" in card["code"]


async def test_contents_and_code_are_folded_on_a_narrow_screen(
    demo: Origins, page: Page, look: Look
) -> None:
    folded = """
    await new Promise(requestAnimationFrame);
    return [...document.querySelectorAll("#contents, .source")].map(
      (details) => details.checkVisibility() && !details.open);
    """
    for width, expected in ((360, True), (1280, False), (360, True)):
        await look(width)
        assert set(await page.run(folded)) == {expected}
    # By the keyboard, too.
    await page.run("document.querySelector('#contents summary').focus()")
    await press(page, Keys.ENTER)
    assert await page.run("return document.getElementById('contents').open")


async def press(page: Page, key: str) -> None:
    element = page.driver.switch_to.active_element
    await asyncio.to_thread(element.send_keys, key)


async def test_keyboard_goes_past_the_contents_and_is_seen(
    demo: Origins, page: Page, look: Look
) -> None:
    await look(1280)
    await page.run("document.activeElement.blur()")
    focused = """
    const { activeElement: found } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(found);
    const { left, right } = found.getBoundingClientRect();
    return [found.textContent, outlineStyle, outlineWidth,
            left >= 0 && right <= innerWidth];
    """
    seen = ["solid", "3px", True]
    await press(page, Keys.TAB)
    assert await page.run(focused) == ["Skip the contents", *seen]
    await press(page, Keys.ENTER)
    await press(page, Keys.TAB)
    assert await page.run(focused) == ["Try", *seen]
    await press(page, Keys.ENTER)
    await page.run(
        """
        const verdict = document.activeElement.closest("article")
          .querySelector(".verdict");
        while (!verdict.textContent) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        """
    )


async def test_those_who_listen_know_where_they_are_and_what_came(
    demo: Origins, chromium: webdriver.Chrome, page: Page
) -> None:
    levels = await page.run(
        "return [...document.querySelectorAll('h1, h2, h3, h4')]"
        ".map((heading) => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    tree = await asyncio.to_thread(
        chromium.execute_cdp_cmd, "Accessibility.getFullAXTree", {}
    )
    named: dict[str, list[str]] = {}
    for node in tree["nodes"]:
        if not node["ignored"]:
            role = node["role"]["value"]
            name = node.get("name", {}).get("value", "")
            named.setdefault(role, []).append(name)
    assert len(named["banner"]) == len(named["main"]) == 1
    assert named["navigation"] == ["Contents"]
    for role in ("button", "link", "region"):
        assert all(named[role])
        assert len(set(named[role])) == len(named[role])
    # What will be read out is there before it has something to say.
    cards = len(scenarios(demo.page))
    assert len(named["status"]) == cards + 1
    assert await page.run(
        TRY + "return card.querySelector('[role=status]').innerText",
        title="An exception as JSON",
    ) == await page.run(
        "return [...document.querySelectorAll('[role=status]')].map("
        "(status) => status.innerText).find((text) => text)"
    )


async def test_texts_that_look_like_html_are_shown_as_they_are(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "<img src=x onerror='document.title = 1'><script>1</script>"
    scenario = Scenario(
        middleware="csrf",
        title=hostile,
        see=hostile,
        code="csrf_middleware(…)",
        path=f"/notes?{hostile}",
        expect={"status": hostile, "body": hostile},
        method="POST",
        data=hostile,
    )
    monkeypatch.setattr(page_module, "scenarios", lambda page: [scenario])
    monkeypatch.setitem(MIDDLEWARES, "csrf", hostile)
    async with running(0, 0) as origins:
        await page.visit(origins.page)
        shown = await page.run(
            TRY
            + """
            return [
              card.querySelector(".see").textContent,
              card.querySelector(".body").textContent,
              document.querySelector(".purpose + article") === card,
              document.querySelectorAll("body img, body script").length,
              document.title,
            ];
            """,
            title=hostile,
        )
        await page.visit("about:blank")
    see, body, one, elements, title = shown
    assert see == hostile
    assert hostile in body
    assert one
    assert elements == 0
    assert title == "aiohttp-middlewares: the demo"


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


async def test_page_within_has_its_style_and_runs_nothing(
    demo: Origins, chromium: webdriver.Chrome, page: Page
) -> None:
    await page.run(TRY, title="A bug as a debug page")

    def within() -> list[object]:
        frame = chromium.find_element("css selector", "iframe:not([hidden])")
        sandbox = frame.get_attribute("sandbox")
        chromium.switch_to.frame(frame)
        try:
            WebDriverWait(chromium, timeout=20, poll_frequency=0.05).until(
                lambda driver: driver.find_elements("css selector", "h1")
            )
            sheets = chromium.execute_script(
                "return document.styleSheets.length"
            )
        finally:
            chromium.switch_to.default_content()
        return [sandbox, sheets]

    assert await asyncio.to_thread(within) == ["", 1]


async def test_button_that_is_pressed_twice_asks_once(
    demo: Origins, page: Page
) -> None:
    asked, pressed = await page.run(
        """
        const titled = [...document.querySelectorAll("article")].find(
          (card) => card.querySelector("h4").textContent === title);
        titled.querySelector(".try").click();
        const pressed = titled.querySelector(".try").ariaDisabled;
        """
        + TRY
        + """
        const asked = performance.getEntriesByName(url).length;
        return [asked, [pressed, card.querySelector(".try").ariaDisabled]];
        """,
        title="An exception as JSON",
        url=f"{demo.api}/errors/json",
    )
    assert asked == 1
    assert pressed == ["true", None]


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


# The pictures in the docs
# ========================


def test_pictures_are_taken_as_they_are_in_the_docs(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    """``chromium`` says what is missing where it is not there."""
    record = runpy.run_path(str(DOCS / "record_demo.py"))["record"]
    asyncio.run(record(tmp_path, 0, 0))
    taken = {path.name: size(path) for path in tmp_path.iterdir()}
    kept = {path.name: size(path) for path in (DOCS / "images").iterdir()}
    assert taken == {
        name: kept[name] for name in kept if name.startswith("demo-")
    }
    assert len(set(taken.values())) == 2
    page = (DOCS / "demo.rst").read_text(encoding="utf-8")
    for path in tmp_path.iterdir():
        assert f".. figure:: images/{path.name}\n" in page
        assert path.stat().st_size < 100_000


def size(path: Path) -> tuple[int, ...]:
    """Width and height, as the head of a PNG has them."""
    return struct.unpack(">8x4x4sII", path.read_bytes()[:24])[1:]
