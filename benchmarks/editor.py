"""Painting on a large picture: python -m benchmarks editor --sizes 512 4096

Our canvas and Gradio's ImageEditor, each alone on a page and in a Chromium of its own without a GPU, by turns: the same picture,
brush and strokes of the mouse. What a frame of a stroke takes of the page's main thread is read from Chromium's own trace: all
tasks from one frame to the next in which the pointer moved, by the clock and as processor time, which others on the machine do
not lengthen; and how long it is from one such frame to the next, which is what the hand feels. ImageEditor draws by WebGL, which
Chromium then computes on the processor, outside of the page's main thread: only the latter tells of that. Memory is that of all
of Chromium's processes (PSS, after collecting garbage): with the picture, after fifty strokes that can be undone, and after a
picture of 64x64 has taken its place. An editor that takes longer than --limit seconds is stopped, and what it did is told. Needs
a Chromium, and /proc.
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
from time import monotonic
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as BrowserTimeout

from benchmarks.report import Bar, show, show_bars, show_machine, write_json
from tests.browser import CHROMIUM_ARGS, find_chromium

ROOT = Path(__file__).parents[1]
OURS, THEIRS = "our canvas", "Gradio's ImageEditor"
BRUSH = 256
"""Pixels of the picture across."""
MOVES = 16
"""Of the mouse, for each stroke."""
UNDOABLE = 50
CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline", "disabled-by-default-devtools.timeline.frame"]
MIB = 2**20


@dataclass(frozen=True)
class Frame:
    """Milliseconds: of the main thread, and to the next frame."""

    wall: float
    cpu: float
    apart: float


class OutOfTime(Exception):
    """Says what was not reached."""


@dataclass(frozen=True)
class Limit:
    """A moment by which an editor must be done."""

    end: float

    @property
    def left(self) -> float:
        return self.end - monotonic()

    def check(self, before: str) -> None:
        if self.left <= 0:
            raise OutOfTime(before)


def frames_of(trace: list[dict]) -> list[Frame]:
    """The frames in which the pointer moved, of the renderer where it moved most."""
    moved = [(event["pid"], event["tid"], event["ts"]) for event in trace
             if event.get("name") == "EventDispatch" and event.get("args", {}).get("data", {}).get("type") == "pointermove"]
    if not moved:
        return []
    pid, tid = max({(pid, tid) for pid, tid, _ in moved}, key=lambda thread: sum((p, t) == thread for p, t, _ in moved))
    here = [event for event in trace if (event.get("pid"), event.get("tid")) == (pid, tid)]
    starts = sorted(event["ts"] for event in here if event["name"] == "BeginMainThreadFrame")
    moves = np.array([ts for p, t, ts in moved if (p, t) == (pid, tid)])
    task = task_name(here)
    tasks = [event for event in here if event["name"] == task and event.get("ph") == "X"]
    at, wall, cpu = (np.array([event.get(name, 0) for event in tasks]) for name in ("ts", "dur", "tdur"))
    frames = []
    for begin, end in zip(starts, starts[1:]):
        # a frame's moves are handled with it or since the last one; its own work ends where the next begins
        inside = (at >= begin - 1000) & (at < end - 1000)
        if ((moves >= begin - 1000) & (moves < end - 1000)).any():
            frames.append(Frame(float(wall[inside].sum()) / 1000, float(cpu[inside].sum()) / 1000, (end - begin) / 1000))
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


def strokes(page: Page, box: dict, count: int, first: int = 0, limit: Limit | None = None, moves: int = MOVES) -> int:
    """Draw so many strokes of the mouse across the square picture in an element, each elsewhere; how many were ended in time."""
    side = 0.7 * min(box["width"], box["height"])
    left, top = (box[at] + (box[of] - side) / 2 for at, of in (("x", "width"), ("y", "height")))
    for number in range(count):
        low, high = (0.02 * ((number + first) % 50), 1 - 0.02 * ((number + first) % 50))
        page.mouse.move(left, top + low * side)
        page.mouse.down()
        for move in range(1, moves + 1):
            if limit and limit.left <= 0:
                page.mouse.up()
                return number
            page.mouse.move(left + side * move / moves, top + (low + (high - low) * move / moves) * side)
        page.mouse.up()
    return count


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


def measure(browser: Browser, opening: Callable, address: str, large: Path, small: Path, count: int, seconds: float) -> dict:
    """Figures of one editor: frames of `count` strokes, and bytes of memory; None for what it did not come to in time."""
    figures: dict[str, Any] = dict.fromkeys(("strokes", "seconds", "frames", "apart", "median", "p95", "cpu", "cpu p95", "picture", "undo", "left", "stopped"))
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    page.set_default_timeout(1000 * seconds)
    limit = Limit(monotonic() + seconds)
    try:
        load, stage = opening(page, address)
        load(large)
        page.wait_for_timeout(2000)
        limit.check("a stroke")
        if not paint(browser, page, stage, count, figures, Limit(monotonic() + 0.7 * limit.left)):
            raise OutOfTime(f"stroke {figures['strokes'] + 1}")
        load(small)  # what Chromium sets aside once for a large picture is no picture's
        page.wait_for_timeout(2000)
        before = memory(browser, page)
        load(large)
        page.wait_for_timeout(2000)
        with_picture = memory(browser, page)
        figures["picture"] = with_picture - before
        painted = strokes(page, page.locator(stage).first.bounding_box(), UNDOABLE, 0, limit)
        if painted < UNDOABLE:
            raise OutOfTime(f"stroke {painted + 1} of {UNDOABLE} to undo")
        figures["undo"] = memory(browser, page) - with_picture
        load(small)
        page.wait_for_timeout(2000)
        figures["left"] = memory(browser, page) - before
    except OutOfTime as late:
        figures["stopped"] = f"stopped before {late}, after {seconds:.0f} s"
    except BrowserTimeout:
        figures["stopped"] = f"did not answer in {seconds:.0f} s"
    page.close()
    return figures


def paint(browser: Browser, page: Page, stage: str, count: int, figures: dict, limit: Limit) -> bool:
    """Write what `count` strokes take into figures; whether all were painted in time."""
    box = page.locator(stage).first.bounding_box()
    clean = page.locator(stage).first.screenshot()
    strokes(page, box, 1, moves=2)  # to warm up
    if page.locator(stage).first.screenshot() == clean:
        raise SystemExit(f"Nothing was painted in {stage}.")
    browser.start_tracing(page=page, categories=CATEGORIES)
    began = monotonic()
    figures["strokes"] = strokes(page, box, count, 1, limit)
    figures["seconds"] = monotonic() - began
    frames = frames_of(json.loads(browser.stop_tracing())["traceEvents"])
    figures["frames"] = len(frames)
    if len(frames) > 1:
        wall, cpu, apart = ([getattr(frame, name) for frame in frames] for name in ("wall", "cpu", "apart"))
        figures |= {"apart": median(apart), "median": median(wall), "p95": quantiles(wall, n=20)[-1], "cpu": median(cpu), "cpu p95": quantiles(cpu, n=20)[-1]}
    return figures["strokes"] == count


def picture_of(size: int, file: Path) -> Path:
    """A picture that compresses as little as a photograph."""
    coarse = np.random.default_rng(7).integers(0, 256, (max(size // 8, 1), max(size // 8, 1), 3), np.uint8)
    Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(file, quality=92)
    return file


def middle(runs: list[dict]) -> dict:
    """Medians of what all runs measured."""
    return {key: None if any(run[key] is None for run in runs) else median(run[key] for run in runs) for key in runs[0] if key != "stopped"}


def row(name: str, figures: dict, count: int, stopped: str | None) -> tuple:
    done = None if figures["strokes"] is None else f"{figures['strokes']:g} of {count}"
    sizes = (None if figures[key] is None else round(figures[key] / MIB) for key in ("picture", "undo", "left"))
    return (name, done, *(None if figures[key] is None else float(figures[key]) for key in ("seconds", "apart", "median", "p95", "cpu")), *sizes, stopped or "done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 4096], help="pixels a side of the pictures")
    parser.add_argument("--strokes", type=int, default=20, help="whose frames are measured")
    parser.add_argument("--limit", type=float, default=100, help="seconds for an editor with a picture")
    parser.add_argument("--runs", type=int, default=1, help="turns of each")
    parser.add_argument("--only", choices=(OURS, THEIRS), help="measure one alone")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    flags = parser.parse_args()
    show_machine()
    runs: dict[int, dict[str, list[dict]]] = {size: {OURS: [], THEIRS: []} for size in flags.sizes}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        small, *pictures = (picture_of(size, Path(folder) / f"{size}.jpg") for size in (64, *flags.sizes))
        with our_page() as ours, gradio_page() as theirs:
            for run in range(flags.runs):
                turns = [(OURS, open_ours, ours), (THEIRS, open_theirs, theirs)]
                for size, large in zip(flags.sizes, pictures):
                    for name, opening, address in turns[::-1 if run % 2 else 1]:
                        if flags.only in (None, name):
                            browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
                            runs[size][name].append(measure(browser, opening, address, large, small, flags.strokes, flags.limit))
                            browser.close()
                            print(f"{size}x{size}", name, runs[size][name][-1], flush=True)
    bars = []
    for size, editors in runs.items():
        middles = {name: middle(turns) for name, turns in editors.items() if turns}
        rows = [row(name, figures, flags.strokes, next((turn["stopped"] for turn in editors[name] if turn["stopped"]), None))
                for name, figures in middles.items()]
        show(("", "strokes", "seconds", "frame to frame ms", "main thread ms", "p95 ms", "CPU ms", "picture MiB", "50 strokes MiB", "left MiB", ""), rows,
             f"{size}x{size}, brush of {BRUSH} pixels, strokes of {MOVES} moves, medians of {flags.runs}")
        if len(middles) == 2:
            theirs, ours = (middles[name] for name in (THEIRS, OURS))
            names = {"frame to frame": "apart", "main thread": "median", "CPU": "cpu", "picture": "picture", "50 strokes": "undo"}
            show(("", *names), [(f"{THEIRS} / {OURS}", *(theirs[key] / ours[key] if theirs[key] and ours[key] and ours[key] > 0 else None
                                                         for key in names.values()))], "Ratios")
        if OURS in middles and size == max(flags.sizes):
            bars = bars_of(size, middles[OURS])
            show_bars(bars)
    write_json(flags.json, {"runs": {str(size): editors for size, editors in runs.items()}, "bars": [bar.row() for bar in bars]})


def bars_of(size: int, ours: dict) -> list[Bar]:
    left = None if ours["left"] is None else ours["left"] / (ours["picture"] + max(ours["undo"], 0))
    undo = None if ours["undo"] is None else ours["undo"] / MIB
    return [Bar(f"{size}x{size}: our median frame, ms", ours["median"], 16, at_most=True), Bar("the same, of processor time", ours["cpu"], 16, at_most=True),
            Bar("our 50 strokes to undo, MiB", undo, 190, at_most=True),
            Bar("left once the picture has changed, of what it took", left, 0.1, at_most=True)]


if __name__ == "__main__":
    main()
