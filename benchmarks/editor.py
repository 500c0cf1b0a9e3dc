"""Painting on a large picture: python -m benchmarks editor --size 4096

Our canvas and Gradio's ImageEditor, each alone on a page and in a Chromium of its own without a GPU, by turns: the same picture,
brush and strokes of the mouse. What a frame of a stroke takes of the page's main thread is read from Chromium's own trace: all
tasks from one frame to the next in which the pointer moved, by the clock and as processor time, which others on the machine do
not lengthen. Memory is that of all of Chromium's processes (PSS, after collecting garbage): with the picture,
after fifty strokes that can be undone, and after a picture of 64x64 has taken its place. Needs a Chromium, and /proc.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles
from threading import Thread
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.report import Bar, show, show_bars, show_machine, write_json
from tests.browser import CHROMIUM_ARGS, find_chromium

ROOT = Path(__file__).parents[1]
OURS, THEIRS = "our canvas", "Gradio's ImageEditor"
BRUSH = 256
"""Pixels of the picture across."""
MOVES = 40
"""Of the mouse, for each stroke."""
UNDOABLE = 50
CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "disabled-by-default-devtools.timeline.frame"]
MIB = 2**20


@dataclass(frozen=True)
class Frame:
    """Milliseconds of the main thread."""

    wall: float
    cpu: float


def frames_of(trace: list[dict]) -> list[Frame]:
    """The frames in which the pointer moved, of the renderer where it moved most."""
    moved = [(event["pid"], event["tid"], event["ts"]) for event in trace
             if event.get("name") == "EventDispatch" and event.get("args", {}).get("data", {}).get("type") == "pointermove"]
    if not moved:
        raise SystemExit("The trace has no moves of the pointer.")
    pid, tid = max({(pid, tid) for pid, tid, _ in moved}, key=lambda thread: sum((p, t) == thread for p, t, _ in moved))
    here = [event for event in trace if (event.get("pid"), event.get("tid")) == (pid, tid)]
    starts = sorted(event["ts"] for event in here if event["name"] == "BeginMainThreadFrame")
    if not starts:
        raise SystemExit("The trace has no frames.")
    moves = np.array([ts for p, t, ts in moved if (p, t) == (pid, tid)])
    tasks = [event for event in here if event["name"].endswith("RunTask") and event.get("ph") == "X" and event["name"] == task_name(here)]
    at, wall, cpu = (np.array([event.get(name, 0) for event in tasks]) for name in ("ts", "dur", "tdur"))
    frames = []
    for begin, end in zip(starts, starts[1:]):
        # a frame's moves are handled with it or since the last one; its own work ends where the next begins
        inside = (at >= begin - 1000) & (at < end - 1000)
        if ((moves >= begin - 1000) & (moves < end - 1000)).any():
            frames.append(Frame(float(wall[inside].sum()) / 1000, float(cpu[inside].sum()) / 1000))
    return frames


def task_name(events: list[dict]) -> str:
    """What this Chromium calls a task of a thread, the outermost of its names."""
    names = {event["name"] for event in events}
    return next(name for name in ("RunTask", "ThreadControllerImpl::RunTask") if name in names)


def memory(browser: Browser, page: Page) -> int:
    """Bytes of all processes of a Chromium, shared pages by their share, once garbage is collected."""
    session = page.context.new_cdp_session(page)
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
        page.wait_for_timeout(1000)
    session.detach()
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(proportional(process["id"]) for process in processes)


def proportional(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def strokes(page: Page, box: dict, count: int) -> None:
    """So many strokes of the mouse across the square picture in an element, each elsewhere."""
    side = 0.7 * min(box["width"], box["height"])
    left, top = (box[at] + (box[of] - side) / 2 for at, of in (("x", "width"), ("y", "height")))
    for number in range(count):
        low, high = 0.02 * (number % 50), 1 - 0.02 * (number % 50)
        page.mouse.move(left, top + low * side)
        page.mouse.down()
        page.mouse.move(left + side, top + high * side, steps=MOVES)
        page.mouse.up()


class Quiet(SimpleHTTPRequestHandler):
    """Serves ui/ and, at /, a page with one canvas."""

    page = b"""<!doctype html><div id="editor" style="height: 560px"><div class="canvas" data-kind="mask" style="height: 560px"></div></div>
<script type="module">
import { mount } from "./web/canvas/index.js";
await mount(document.querySelector("#editor"), { value: { canvas: "editor" } }, () => {});
</script>"""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, directory=ROOT / "ui", **named)

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def our_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def gradio_page() -> Iterator[str]:
    with gr.Blocks() as page:
        gr.ImageEditor(height=560, layers=False, transforms=(), sources=("upload",), elem_id="editor", canvas_size=(1, 1),
                       brush=gr.Brush(default_size=BRUSH, colors=["#f43f5e"], default_color="#f43f5e", color_mode="fixed"))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, share=False, inbrowser=False)
    try:
        yield address
    finally:
        page.close(verbose=False)


def open_ours(page: Page, address: str) -> tuple[Callable[[Path], None], str]:
    page.goto(address)
    page.wait_for_function("window.palimpsest?.canvases?.of('editor')")
    page.evaluate("size => { window.palimpsest.canvases.of('editor').settings.set('size', size); }", BRUSH)

    def load(file: Path) -> None:
        page.locator("#editor input[type=file]").first.set_input_files(str(file))
        with Image.open(file) as image:
            page.wait_for_function("width => window.palimpsest.canvases.of('editor').document.picture?.width === width", arg=image.width)
        page.evaluate("size => { window.palimpsest.canvases.of('editor').settings.set('size', size); }", BRUSH)

    return load, "#editor .stage"


def open_theirs(page: Page, address: str) -> tuple[Callable[[Path], None], str]:
    page.goto(address)
    page.locator("#editor canvas").first.wait_for()
    page.wait_for_timeout(2000)  # its canvas is there before it takes a picture

    def load(file: Path) -> None:
        if page.locator("#editor [aria-label='Clear canvas']").count():
            page.locator("#editor [aria-label='Clear canvas']").first.click()
            page.wait_for_timeout(500)
        page.locator("#editor input[type=file]").first.set_input_files(str(file))
        page.wait_for_timeout(2000)
        page.wait_for_load_state("networkidle")
        page.locator("#editor").get_by_label("Brush", exact=True).first.click()

    return load, "#editor canvas"


def measure(browser: Browser, opening: Callable, address: str, large: Path, small: Path, count: int) -> dict:
    """Figures of one editor: frames of `count` strokes, and bytes of memory."""
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    page.set_default_timeout(180_000)
    load, stage = opening(page, address)
    for file in (large, small):  # what Chromium sets aside once is no picture's
        load(file)
        page.wait_for_timeout(5000)
    before = memory(browser, page)
    load(large)
    page.wait_for_timeout(2000)
    box = page.locator(stage).first.bounding_box()
    clean = page.locator(stage).first.screenshot()
    with_picture = memory(browser, page)
    strokes(page, box, 1)  # to warm up
    if page.locator(stage).first.screenshot() == clean:
        raise SystemExit(f"Nothing was painted in {stage}.")
    browser.start_tracing(page=page, categories=CATEGORIES)
    strokes(page, box, count)
    frames = frames_of(json.loads(browser.stop_tracing())["traceEvents"])
    strokes(page, box, max(UNDOABLE - count - 1, 0))
    painted = memory(browser, page)
    load(small)
    page.wait_for_timeout(5000)
    after = memory(browser, page)
    page.close()
    wall, cpu = ([getattr(frame, name) for frame in frames] for name in ("wall", "cpu"))
    return {"frames": len(frames), "median": median(wall), "p95": quantiles(wall, n=20)[-1], "cpu": median(cpu),
            "cpu p95": quantiles(cpu, n=20)[-1], "picture": with_picture - before, "undo": painted - with_picture, "left": after - before}


def picture_of(size: int, file: Path) -> Path:
    """A picture that compresses as little as a photograph."""
    coarse = np.random.default_rng(7).integers(0, 256, (max(size // 8, 1), max(size // 8, 1), 3), np.uint8)
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(file, quality=92)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="pixels a side of the picture")
    parser.add_argument("--strokes", type=int, default=20, help="that are measured; fifty are painted at least")
    parser.add_argument("--runs", type=int, default=1, help="turns of each")
    parser.add_argument("--only", choices=(OURS, THEIRS), help="measure one alone")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    flags = parser.parse_args()
    show_machine()
    results: dict[str, list[dict]] = {OURS: [], THEIRS: []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        large, small = (picture_of(size, Path(folder) / f"{size}.jpg") for size in (flags.size, 64))
        with our_page() as ours, gradio_page() as theirs:
            for run in range(flags.runs):
                turns = [(OURS, open_ours, ours), (THEIRS, open_theirs, theirs)]
                for name, opening, address in turns[::-1 if run % 2 else 1]:
                    if flags.only in (None, name):
                        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
                        results[name].append(measure(browser, opening, address, large, small, flags.strokes))
                        browser.close()
                        print(name, results[name][-1], flush=True)
    middles = {name: {key: median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items() if runs}
    rows = [(name, figures["frames"], *(float(figures[key]) for key in ("median", "p95", "cpu", "cpu p95")),
             *(round(figures[key] / MIB) for key in ("picture", "undo", "left"))) for name, figures in middles.items()]
    show(("", "frames", "median ms", "p95 ms", "CPU median ms", "CPU p95 ms", "picture MiB", "50 strokes MiB", "left MiB"), rows,
         f"{flags.size}x{flags.size}, brush of {BRUSH} pixels, {flags.strokes} strokes of {MOVES} moves, medians of {flags.runs}")
    if len(middles) == 2:
        ours, theirs = (middles[name] for name in (OURS, THEIRS))
        show(("", "median", "p95", "CPU median", "CPU p95", "picture", "50 strokes"), [
            (f"{OURS} / {THEIRS}", *(ours[key] / theirs[key] if theirs[key] > 0 else None for key in ("median", "p95", "cpu", "cpu p95", "picture", "undo")))], "Ratios")
    if OURS in middles:
        ours = middles[OURS]
        bars = [Bar("our median frame, ms", ours["median"], 16, at_most=True), Bar("the same, of processor time", ours["cpu"], 16, at_most=True),
                Bar("our 50 strokes to undo, MiB", ours["undo"] / MIB, 190, at_most=True),
                Bar("left once the picture has changed, of what it took", ours["left"] / (ours["picture"] + max(ours["undo"], 0)), 0.1, at_most=True)]
        show_bars(bars)
        write_json(flags.json, {"runs": results, "bars": [bar.row() for bar in bars]})


if __name__ == "__main__":
    main()
