"""Run exactly: makes a fast picture again exactly, and reports the time it saved and the difference."""

from collections.abc import Iterator

from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.fast import exactly, is_fast
from pipeline.journal import Entry, Picture
from pipeline.limits import Client
from pipeline.verify import distance
from ui.results import Results, with_seeds
from ui.stream import PAGE, Update, duration, follow, hand_out
from ui.viewer import Comparison
from ui.visit import Visit


def run_exactly(results: Results, engine: Engine, client: Client, shown: Visit, index: int) -> Iterator[Update]:
    """Make the selected picture's job again without Fast, and compare the two pictures."""
    entry, picture = results.owner(shown, index)
    p = results.request(shown, index)
    if not is_fast(p):
        raise PalimpsestError("This picture is already exact: no option under Fast was on.")
    job = engine.submit([exactly(with_seeds(p, entry))], client=client, mode=entry.mode)
    yield results.panel.start(job.id)
    yield from follow(results.panel, shown, job.id, job.events(**PAGE))
    yield from told(results, shown, entry, picture, engine.journal.entry(job.id))


def told(results: Results, shown: Visit, entry: Entry, fast: Picture, again: Entry | None) -> Iterator[Update]:
    """Show the fast picture beside the exact one with a line on both; nothing if the exact one was interrupted."""
    place = [kept.id for kept in entry.pictures].index(fast.id)
    if again is None or again.state != "done" or place >= len(again.pictures):
        return
    panel, exact = results.panel, again.pictures[place]
    with Image.open(fast.path) as before, Image.open(exact.path) as after:
        apart = distance(after, before)
    found = next((index for index, result in enumerate(shown) if result.path == str(exact.path)), None)
    if found is None:
        return
    remark = sentence(entry.seconds, again.seconds, apart)
    yield panel.show(shown, found, Comparison(shown[found].file, hand_out(fast.path, panel.viewer), remark), opening=True)


def sentence(fast: float | None, exact: float | None, apart: str) -> str:
    """The time saved, in seconds, and the difference."""
    parts = ["Left: fast, right: exact"]
    if fast and exact:
        parts += [f"{duration(fast)} instead of {duration(exact)}", f"{exact / fast:.1f} times as fast"]
    return " · ".join([*parts, apart])
