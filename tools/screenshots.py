"""Make the pictures of the documents by using the page: python -m tools.screenshots

Starts app.py, and for the first sample of each tab takes the picture before and after; the page itself is shown with
the first edit, wide, dark and on a phone. Everything goes to docs/pictures.
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser import CHROMIUM_ARGS, find_chromium

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "assets" / "samples"
TABS = {"img2img": "img2img", "inpaint": "Inpaint", "inpaint_upload": "Inpaint upload"}
"""The tab's name in samples.json and in the page's ids, and its label."""
PICTURES = ROOT / "docs" / "pictures"
SHOWN = (256, 256)
"""Size of the before and after pictures."""


def edit(page: Page, tab: str) -> str:
    """Click the first sample of a tab, press Generate, and give the result's address."""
    page.get_by_role("tab", name=TABS[tab], exact=True).click()
    page.locator(f"#samples-{tab} .thumbnail-item").first.click()
    page.wait_for_timeout(2000)
    before = page.locator("#infotext textarea").input_value()
    page.locator(f"#generate-{tab}").click()
    page.wait_for_function("before => document.querySelector('#infotext textarea').value !== before", arg=before,
                           timeout=300_000)
    shown = page.locator("#gallery img").first
    shown.wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    return shown.get_attribute("src")


def save(name: str, data: Image.Image) -> None:
    data.convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS).save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as outputs, sync_playwright() as playwright:
        process = subprocess.Popen([sys.executable, "-u", "app.py", "--port", "0", "--no-browser", "--outputs-dir", outputs],
                                   cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            address = next(found[1] for line in process.stdout if (found := re.search(r"is ready at (\S+)", line)))
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
            page = browser.new_page(viewport={"width": 1366, "height": 900})
            page.goto(address)
            samples = json.loads((SAMPLES / "samples.json").read_text("utf-8"))
            for tab in TABS:
                result = edit(page, tab)
                name = tab.replace("_", "-")
                save(f"{name}-before", Image.open(SAMPLES / next(s["picture"] for s in samples if s["tab"] == tab)))
                save(f"{name}-after", Image.open(urllib.request.urlopen(result)))
                page.screenshot(path=PICTURES / f"page-{name}.png")
            page.goto(f"{address}/?__theme=dark")
            edit(page, "img2img")
            page.screenshot(path=PICTURES / "page-dark.png")
            page.set_viewport_size({"width": 390, "height": 844})
            page.goto(address)
            page.wait_for_timeout(2000)
            page.screenshot(path=PICTURES / "page-phone.png")
            browser.close()
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
