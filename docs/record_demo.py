"""Takes the pictures of demo.rst: the demo, as Chromium shows it.

``make screenshots`` writes them beside the page. With a folder as its argument
it writes them there.
"""

import asyncio
import base64
import io
import itertools
import shutil
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver

from examples.demo.__main__ import API_PORT, PAGE_PORT
from examples.demo.server import running

PICTURES = Path(__file__).parent / "images"
#: Width, height and pixels for each, and what is at the top.
SCREENS = {
    "wide": (1280, 860, 1, "body"),
    "narrow": (360, 720, 1.5, "#timeout"),
}
SCHEMES = ("light", "dark")
TRY_ALL = """
const done = arguments[0];
const summary = document.getElementById("summary");
new MutationObserver(() => summary.className && done(summary.textContent))
  .observe(summary, { attributes: true });
document.getElementById("try-all").click();
"""


async def record(
    folder: Path, page_port: int = PAGE_PORT, api_port: int = API_PORT
) -> None:
    """Press the button, and take a picture of each screen and scheme."""
    async with running(page_port, api_port) as origins:
        await asyncio.to_thread(take, origins.page, folder)


def take(page: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless",
        "--no-sandbox",  # which root, in a container, cannot have
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        driver.set_script_timeout(60)
        driver.get(page)
        print(driver.execute_async_script(TRY_ALL))
        for screen, scheme in itertools.product(SCREENS, SCHEMES):
            width, height, pixels, top = SCREENS[screen]
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": pixels,
                    "mobile": False,
                },
            )
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [feature]}
            )
            driver.execute_async_script(
                "document.querySelector(arguments[0]).scrollIntoView();"
                # Until the contents show where that is.
                "setTimeout(arguments[1], 200)",
                top,
            )
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {})
            picture = Image.open(io.BytesIO(base64.b64decode(shot["data"])))
            # A third of the bytes, and no difference that is seen.
            few = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
            few.save(folder / f"demo-{screen}-{scheme}.png", optimize=True)


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1]) if sys.argv[1:] else PICTURES))
