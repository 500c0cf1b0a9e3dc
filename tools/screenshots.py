"""Take the documentation's screenshots: python -m tools.screenshots

Starts app.py and takes before and after pictures of each tab's first sample, then screenshots of every tab of the page, of
the page in dark mode, on a phone and in German, and an animation of an edit. Everything goes to docs/pictures.
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser import CHROMIUM_ARGS, find_chromium
from tests.ui.steps import act, open_page, open_tab, paint, put_in_editor, set_slider, settle

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "assets" / "samples"
TABS = {"img2img": "img2img", "inpaint": "Inpaint", "inpaint_upload": "Inpaint upload"}
"""The tab's name in samples.json and in element ids, and its label."""
PICTURES = ROOT / "docs" / "pictures"
WIDE, PHONE, SCREEN = {"width": 1366, "height": 900}, {"width": 390, "height": 844}, {"width": 1280, "height": 720}
SHOWN = (256, 256)
"""Size of the before and after pictures, in pixels."""
FILM = 960
"""Width of the animation, in pixels."""


def edit(page: Page, tab: str) -> str:
    """Click the first sample of a tab, press Generate, and return the result's address."""
    open_tab(page, TABS[tab])
    page.locator(f"#samples-{tab} .thumbnail-item").first.click()
    page.wait_for_timeout(2000)
    before = page.locator("#infotext textarea").input_value()
    page.locator(f"#generate-{tab}").click()
    page.wait_for_function("before => document.querySelector('#infotext textarea').value !== before", arg=before,
                           timeout=300_000)
    shown = page.locator("#gallery img.picture")
    shown.wait_for()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    return shown.get_attribute("src")


def save(name: str, data: Image.Image) -> None:
    data.convert("RGB").resize(SHOWN, Image.Resampling.LANCZOS).save(PICTURES / f"{name}.png", optimize=True)


def shoot(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=PICTURES / f"{name}.png")


def samples_of(tab: str) -> list[Path]:
    rows = json.loads((SAMPLES / "samples.json").read_text("utf-8"))
    return [SAMPLES / row["picture"] for row in rows if row["tab"] == tab]


def show_modes(page: Page) -> None:
    """The modes with samples, each before and after, and a comparison; then a sketch and a batch."""
    for tab in TABS:
        result = edit(page, tab)
        name = tab.replace("_", "-")
        save(f"{name}-before", Image.open(samples_of(tab)[0]))
        save(f"{name}-after", Image.open(urllib.request.urlopen(result)))
        shoot(page, f"page-{name}")
        if tab == "inpaint":
            page.locator("#compare").click()
            shoot(page, "page-compare")
            page.locator("#compare").click()
    act(page, "use-in-sketch")
    page.wait_for_timeout(3000)
    page.evaluate("""() => {
        const { settings } = window.palimpsest.canvases.of("sketch-editor");
        for (const [name, value] of [["size", 12], ["ink", "#22c55e"]]) settings.set(name, value);
    }""")
    paint(page, [(0.6, 0.9), (0.64, 0.72), (0.7, 0.9), (0.76, 0.68), (0.82, 0.9)], "sketch-editor")
    shoot(page, "page-sketch")
    open_tab(page, "Batch")
    page.locator("#batch-files input[type=file]").set_input_files([str(file) for file in samples_of("img2img")])
    page.wait_for_timeout(2000)
    page.locator("#generate-batch").click()
    page.locator("#report").get_by_text("are done now").wait_for(timeout=300_000)
    page.locator("#generate-batch:not([disabled])").wait_for(timeout=300_000)
    shoot(page, "page-batch")


def show_tabs(page: Page, outputs: Path) -> None:
    open_tab(page, "History")
    page.locator("#history .thumbnail-item").first.click()
    shoot(page, "page-history")
    open_tab(page, "PNG info")
    newest = max(outputs.glob("img2img-images/*/*.png"), key=lambda file: file.stat().st_mtime)
    page.locator("#png-info-picture input[type=file]").first.set_input_files(str(newest))
    page.wait_for_timeout(2000)
    shoot(page, "page-png-info")
    open_tab(page, "Settings")
    shoot(page, "page-settings")


def record(page: Page, name: str) -> None:
    """An animation of a mask being painted, a picture being made, and the comparison of both."""
    frames: list[tuple[Image.Image, int]] = []

    def shot(milliseconds: int) -> None:
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        frames.append((picture.resize((FILM, FILM * picture.height // picture.width), Image.Resampling.LANCZOS), milliseconds))

    open_tab(page, "Inpaint")
    put_in_editor(page, samples_of("inpaint")[0])
    shot(900)
    for text in ("a yellow", "a yellow balloon", "a yellow balloon over the sea"):
        page.locator("#prompt textarea").fill(text)
        shot(250)
    for number in range(9):  # a balloon, line by line
        height = 0.14 + 0.05 * number
        width = 0.16 * (1 - (2 * number / 8 - 1) ** 2) ** 0.5 + 0.01
        paint(page, [(0.5 - width, height), (0.5 + width, height)])
        shot(120)
    page.mouse.move(0, 0)
    shot(700)
    set_slider(page, "Sampling steps", 30)
    page.locator("#generate-inpaint").click()
    for _ in range(14):
        page.wait_for_timeout(250)
        shot(200)
    page.locator("#generate-inpaint:not([disabled])").wait_for(timeout=300_000)
    settle(page)
    shot(1400)
    page.locator("#compare").click()
    settle(page)
    frame = page.locator("#gallery").bounding_box()
    across = [0.5, 0.4, 0.3, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.7, 0.6, 0.5]
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    for share in across:
        page.mouse.move(frame["x"] + frame["width"] * share, frame["y"] + frame["height"] / 2)
        page.wait_for_timeout(100)
        shot(150)
    page.mouse.up()
    first, *rest = [picture for picture, _ in frames]
    first.save(PICTURES / f"{name}.webp", save_all=True, append_images=rest, duration=[time for _, time in frames], loop=0, quality=72,
               method=6)

def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        outputs = Path(folder) / "outputs"
        command = [sys.executable, "-u", "app.py", "--port", "0", "--no-browser", "--outputs-dir", str(outputs),
                   "--settings-file", f"{folder}/config.json", "--styles-file", f"{folder}/styles.csv"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            address = next(found[1] for line in process.stdout if (found := re.search(r"is ready at (\S+)", line)))
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
            page = browser.new_page(viewport=WIDE)
            open_page(page, address)
            show_modes(page)
            show_tabs(page, outputs)
            for name, query, settings in (("page-dark", "?__theme=dark", {"viewport": WIDE}), ("page-phone", "", {"viewport": PHONE}),
                                          ("page-german", "", {"viewport": WIDE, "locale": "de-DE"})):
                other = browser.new_page(**settings)  # each a fresh browser
                other.goto(f"{address}/{query}")
                other.locator("#samples-img2img .thumbnail-item").first.click()
                other.wait_for_timeout(2000)
                other.locator("#generate-img2img").click()
                other.locator("#gallery img.picture").wait_for()
                shoot(other, name)
            film = browser.new_page(viewport=SCREEN)
            open_page(film, address)
            record(film, "edit")
            browser.close()
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
