"""Time until a new user sees a picture: python -m benchmarks first_picture

Starts app.py with the demo model, opens the page in a headless Chromium, clicks the first sample and Generate, and
prints seconds from process start to page ready, from click to first preview and to picture (first and warm), and the
server's peak memory. Needs what `python launch.py test` installs. Default settings: 20 steps, the sample's strength.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser import CHROMIUM_ARGS, find_chromium

ROOT = Path(__file__).parents[1]


def start_server(python: str, outputs: str) -> tuple[subprocess.Popen, str, float]:
    """(process, address, seconds until it reported ready)."""
    began = time.perf_counter()
    process = subprocess.Popen([python, "-u", "app.py", "--port", "0", "--no-browser", "--outputs-dir", outputs],
                               cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if found := re.search(r"is ready at (\S+)", line):
            return process, found[1], time.perf_counter() - began
    raise SystemExit(f"app.py ended with status {process.wait()} before it was ready")


def edit(page: Page) -> tuple[float, float]:
    """Seconds from clicking Generate to the first preview, and to the picture."""
    before = page.locator("#infotext textarea").input_value()
    page.evaluate("""before => {
        window.marks = {};
        const look = () => {
            if (!window.marks.preview && document.querySelector('#stage img')) window.marks.preview = performance.now();
            const text = document.querySelector('#infotext textarea').value;
            const shown = document.querySelector('#gallery img.picture');
            if (shown && shown.complete && text !== before) window.marks.picture = performance.now();
            else requestAnimationFrame(look);
        };
        document.querySelector('#generate-img2img').addEventListener('click', () => {
            window.marks.click = performance.now();
            requestAnimationFrame(look);
        }, {once: true});
    }""", before)
    page.locator("#generate-img2img").click()
    page.wait_for_function("window.marks.picture", timeout=300_000)
    marks = page.evaluate("window.marks")
    return (marks.get("preview", marks["picture"]) - marks["click"]) / 1000, (marks["picture"] - marks["click"]) / 1000


def peak_memory(pid: int) -> float | None:
    """Peak resident memory in GiB; None if /proc does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="warm edits; default: %(default)s")
    parser.add_argument("--python", default=sys.executable,
                        help="the server's interpreter; default: this one. One with no more than requirements.txt has what a "
                             "user's has: transformers and diffusers import some of the tests' packages where they are there")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as outputs, sync_playwright() as playwright:
        process, address, ready = start_server(flags.python, outputs)
        try:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
            page = browser.new_page()
            page.goto(address)
            page.locator("#samples-img2img .thumbnail-item").first.click()
            page.wait_for_function("document.querySelector('#prompt textarea').value")
            page.locator("#seed input").fill("-1")  # each edit is another picture
            first_preview, first_picture = edit(page)
            warm = [edit(page) for _ in range(flags.runs)]
            memory = peak_memory(process.pid)
            browser.close()
        finally:
            process.terminate()
            process.wait(30)
    figures = {
        "process start to page ready, s": ready,
        "first click to first preview, s": first_preview,
        "first click to picture, s": first_picture,
        "warm click to first preview, median s": statistics.median(preview for preview, _ in warm),
        "warm click to picture, median s": statistics.median(picture for _, picture in warm),
        "warm click to picture, slowest s": max(picture for _, picture in warm),
        "server's peak memory, GiB": memory,
    }
    if flags.json:
        print(json.dumps(figures, indent=1))
        return
    print(f"{platform.processor() or platform.machine()}, {platform.system()}, Python {platform.python_version()}, "
          f"{flags.runs} warm edits")
    for name, value in figures.items():
        print(f"{name:40} {'unknown' if value is None else f'{value:8.2f}'}")


if __name__ == "__main__":
    main()
