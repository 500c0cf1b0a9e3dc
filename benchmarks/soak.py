"""Many people using the page for a long time: python -m benchmarks soak --minutes 30 --sessions 8

Starts the app with the demo model and its own folder, and opens that many sessions in one Chromium. Each randomly (but
seeded) does what people do: chooses a sample, changes the prompt, generates in any mode, interrupts, skips, reloads the page
while its job runs, looks at History, and continues from a result. In the end each job must have ended, each picture known to
the journal or a page must exist and be intact, the server's memory must not have grown after the first sixth (at most five
minutes), and neither the server nor a page may have reported an error; otherwise the exit status is 1. Memory settles once as
many pages have been opened as Gradio remembers (api.SESSIONS), so a short run shows it growing. Needs a Chromium and `ps`.
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright
from playwright.async_api import Error as PageError

from tests.browser import CHROMIUM_ARGS, find_chromium

ROOT = Path(__file__).parents[1]
TABS = {"img2img": "img2img", "sketch": "Sketch", "inpaint": "Inpaint", "inpaint_sketch": "Inpaint sketch",
        "inpaint_upload": "Inpaint upload"}
"""Mode → the label of its tab."""
WITH_SAMPLES = ("img2img", "inpaint", "inpaint_upload")
WORDS = "a red house, mountains at sunset, a forest in winter, a boat on the sea, a city at night, a car, a meadow".split(", ")
PATIENCE = 20_000
"""Milliseconds per click; a click that is not possible by then is skipped, as a person would."""
GLANCE = 2_000
"""The same for what is visible at once: a disabled button, a missing result."""
NICE = 10
"""Chromium's niceness, to rank behind the server."""


class Server:
    """The app in its own process."""

    def __init__(self, folder: Path):
        self.outputs, self.log, self.memory = folder / "outputs", [], []
        command = [sys.executable, "-u", "app.py", "--port", "0", "--no-browser", "--outputs-dir", str(self.outputs),
                   "--models-dir", str(folder / "models"), "--settings-file", str(folder / "config.json"),
                   "--styles-file", str(folder / "styles.csv")]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env=os.environ | {"GRADIO_TEMP_DIR": str(folder / "cache")})
        for line in self.process.stdout:
            if ready := re.search(r"is ready at (\S+)", line):
                self.url = ready[1]
                break
        else:
            raise SystemExit("The app has not started.")
        Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True).start()

    def measure(self) -> None:
        """Record (time, bytes of memory)."""
        said = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], capture_output=True, text=True)
        self.memory.append((time.monotonic(), int(said.stdout) * 1024))

    def ask(self, path: str, method: str = "GET") -> dict:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=30) as answer:
            return json.load(answer)

    def running(self) -> str:
        """The running job's id; empty: none."""
        return self.ask("/sdapi/v1/progress?skip_current_image=true")["state"]["job"]

    def settle(self, seconds: float = 120) -> None:
        """Interrupt all running and waiting jobs."""
        deadline = time.monotonic() + seconds
        while (job := self.running()) and time.monotonic() < deadline:
            self.ask("/sdapi/v1/interrupt", "POST")
            while self.running() == job and time.monotonic() < deadline:
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()


class Person:
    """A browser session and what it has seen."""

    def __init__(self, page: Page, chance: random.Random):
        self.page, self.chance = page, chance
        self.done, self.errors, self.seen = Counter(), [], set()
        """Counts of actions; errors of the page; digests of the results it showed."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.set_default_timeout(PATIENCE)
        self.habits: dict[Callable, int] = {
            self.generate: 10, self.choose_sample: 3, self.change_prompt: 3, self.interrupt: 3, self.skip: 1, self.reload: 3,
            self.look_into_history: 2, self.go_on_from_result: 2, self.look_at_result: 6}

    async def live(self, url: str, deadline: float) -> None:
        await self.page.goto(url, timeout=60_000)
        while time.monotonic() < deadline:
            habit, = self.chance.choices(list(self.habits), list(self.habits.values()))
            try:
                await habit()
                self.done[habit.__name__] += 1
            except PageError as error:  # mostly a button that is disabled at the moment
                self.done[f"{habit.__name__}: {str(error).splitlines()[0][:60]}"] += 1
            await self.page.wait_for_timeout(self.chance.uniform(200, 3000))

    async def open_tab(self, name: str) -> None:
        await self.page.get_by_role("tab", name=name, exact=True).click()

    async def open_mode(self, mode: str) -> None:
        await self.open_tab("Make")
        await self.open_tab(TABS[mode])

    async def generate(self) -> None:
        mode = self.chance.choice(list(TABS))
        await self.open_mode(mode)
        if mode in WITH_SAMPLES:
            await self.pick_sample(mode)
        await self.page.locator(f"#generate-{mode}").click()

    async def choose_sample(self) -> None:
        mode = self.chance.choice(WITH_SAMPLES)
        await self.open_mode(mode)
        await self.pick_sample(mode)

    async def pick_sample(self, mode: str) -> None:
        samples = self.page.locator(f"#samples-{mode} .thumbnail-item")
        await samples.first.wait_for()
        await samples.nth(self.chance.randrange(await samples.count())).click()
        await self.page.wait_for_timeout(700)

    async def change_prompt(self) -> None:
        await self.open_tab("Make")
        await self.page.locator("#prompt textarea").fill(", ".join(self.chance.sample(WORDS, 2)))

    async def interrupt(self) -> None:
        await self.page.locator("#interrupt").click(timeout=GLANCE)

    async def skip(self) -> None:
        await self.page.locator("#skip").click(timeout=GLANCE)

    async def reload(self) -> None:
        await self.page.reload(timeout=60_000)

    async def look_into_history(self) -> None:
        await self.open_tab("History")
        items = self.page.locator("#history .thumbnail-item")
        await items.first.wait_for()
        await items.nth(self.chance.randrange(await items.count())).click()
        await self.page.locator("#history-infotext textarea").wait_for()

    async def go_on_from_result(self) -> None:
        await self.open_tab("Make")
        await self.page.locator("#result-more").click(timeout=GLANCE)
        await self.page.locator(f"#use-in-{self.chance.choice(list(TABS))}").click(timeout=GLANCE)

    async def look_at_result(self) -> None:
        """Record the digest of the result shown: the saved file itself."""
        await self.open_tab("Make")
        source = await self.page.locator("#gallery img.picture").get_attribute("src", timeout=GLANCE)
        answer = await self.page.request.get(source)
        self.seen.add(hashlib.sha256(await answer.body()).hexdigest())


async def people(url: str, sessions: int, seed: int, deadline: float, watch: Callable[[], None]) -> list[Person]:
    """Run that many sessions until the deadline."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        them = [await person(browser, random.Random(f"{seed}-{number}")) for number in range(sessions)]
        lives = asyncio.gather(*(one.live(url, deadline) for one in them))
        while not lives.done():
            await asyncio.to_thread(watch)
            await asyncio.wait([lives], timeout=3)
        await lives
        await browser.close()
    return them


async def person(browser: Browser, chance: random.Random) -> Person:
    context = await browser.new_context(viewport={"width": 1366, "height": 900})
    return Person(await context.new_page(), chance)


def lost_pictures(outputs: Path, seen: set[str]) -> list[str]:
    """A line for each picture known to the journal or a page that is missing or damaged."""
    with closing(sqlite3.connect(outputs / "palimpsest.sqlite3")) as journal:
        kept = [outputs / path for path, in journal.execute("SELECT path FROM pictures")]
        without = journal.execute("SELECT id FROM jobs WHERE state = 'done' AND id NOT IN "
                                  "(SELECT job FROM pictures)").fetchall()
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in outputs.rglob("*.png")}
    return [*(f"{path} is not whole" for path in kept if not is_whole(path)), *(f"job {id} has no picture" for id, in without),
            *(f"a picture that a page showed: {digest}" for digest in seen - digests)]


def is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
            return "parameters" in image.info
    except OSError:
        return False


def states(outputs: Path) -> Counter:
    with closing(sqlite3.connect(outputs / "palimpsest.sqlite3")) as journal:
        return Counter(state for state, in journal.execute("SELECT state FROM jobs"))


def growth(memory: list[tuple[float, int]], settled: float) -> float:
    """Percentage growth from the settled memory to the end, each the median over a tenth of the run."""
    width = (memory[-1][0] - settled) / 10
    early = [size for when, size in memory if settled <= when <= settled + width]
    late = [size for when, size in memory if when >= memory[-1][0] - width]
    return 100 * (median(late) / median(early) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, started(Path(folder)) as server:
        os.nice(NICE)  # for processes started from here on
        began, seconds = time.monotonic(), flags.minutes * 60
        them = asyncio.run(people(server.url, flags.sessions, flags.seed, began + seconds, server.measure))
        server.settle()
        time.sleep(1)
        done, seen = sum((one.done for one in them), Counter()), set().union(*(one.seen for one in them))
        errors = [error for one in them for error in one.errors]
        lost, ended = lost_pictures(server.outputs, seen), states(server.outputs)
        unended = ended["queued"] + ended["running"]
        grown = growth(server.memory, began + min(300, seconds / 6))
        log = list(server.log)
    for name, count in done.most_common():
        print(f"{count:6} {name}")
    for line in (*lost, *errors, *map(str.rstrip, log)):
        print(line)
    print(f"{flags.sessions} sessions, {flags.minutes:g} minutes, {sum(ended.values())} jobs "
          f"({', '.join(f'{count} {state}' for state, count in ended.items())}), {len(seen)} results looked at")
    print(f"server's memory: {' '.join(f'{size >> 20}' for _, size in server.memory[::max(len(server.memory) // 20, 1)])} MiB")
    print(f"{'':34} {'measured':>9} {'bar':>6}")
    table = [("pictures lost", len(lost), 0), ("jobs left queued or running", unended, 0),
             ("growth of the server's memory, %", round(grown, 1), 5), ("lines in the server's log", len(log), 0),
             ("errors in pages", len(errors), 0)]
    for name, value, bar in table:
        print(f"{name:34} {value:9} {bar:6}{'' if value <= bar else '  missed'}")
    sys.exit(any(value > bar for _, value, bar in table))


if __name__ == "__main__":
    main()
