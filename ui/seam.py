"""The line below an inpainted result that says how far its seam is seen, and the buttons that blend it."""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from threading import Lock

import gradio as gr

from pipeline.errors import PalimpsestError
from pipeline.inpainted import Inpainted, inpainted, original_of, save_blended
from pipeline.journal import Entry, Picture
from pipeline.seam import How, Seam, Word, way_of
from pipeline.shelf import Shelf
from pipeline.uploads import count_pixels
from ui.events import QUEUED
from ui.jobs import Jobs
from ui.stream import Update
from ui.visit import Visit

SAID = {Word.NONE: "Seam: none", Word.FAINT: "Seam: faint", Word.VISIBLE: "Seam: visible"}
KNOWN = 256
"""Seams that are remembered."""
ONE_AT_A_TIME = QUEUED | {"concurrency_limit": 1, "concurrency_id": "seam", "trigger_mode": "always_last"}
"""Whoever looks at results, one core at most is busy with their seams."""


@dataclass(frozen=True)
class SeamLine:
    """What the line holds."""

    row: gr.Row
    said: gr.HTML
    blend: gr.Button
    soften: gr.Button
    undo: gr.Button

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        return [self.row, self.said, self.blend, self.soften, self.undo]

    def hidden(self) -> Update:
        return {self.row: gr.Row(visible=False)}

    def shown(self, seam: Seam, picture: Picture, original: Picture | None) -> Update:
        """original: what a blended picture was made of."""
        blended = way_of(picture.infotext) is not None
        numbers = f"ΔE {seam.jump:.1f} : {max(seam.contrast, 0):.1f}"
        return {self.row: gr.Row(visible=True), self.said: f'<span title="{numbers}">{sentence(seam, picture)}</span>',
                self.blend: gr.Button(visible=not blended), self.soften: gr.Button(visible=not blended),
                self.undo: gr.Button(visible=original is not None)}


def build_seam() -> SeamLine:
    with gr.Row(visible=False, elem_id="seam") as row:
        said = gr.HTML("", elem_id="seam-said")
        blend = gr.Button("Blend", size="sm", min_width=60, elem_id="blend-seam")
        soften = gr.Button("Wider soft edge", size="sm", min_width=110, elem_id="soften-seam")
        undo = gr.Button("Undo", size="sm", min_width=60, visible=False, elem_id="undo-seam")
    return SeamLine(row, said, blend, soften, undo)


def sentence(seam: Seam, picture: Picture) -> str:
    """The seam's word and, of a picture where it was blended, how that was done and what it changed beside the mask."""
    way = way_of(picture.infotext)
    if way is None:
        return SAID[seam.word]
    name, _, beside = way.partition(", ")
    done = "blended" if name == "Poisson" else "edge made softer"
    count = beside.partition(" ")[0]
    changed = f"{count} pixels changed outside the mask" if count.isdecimal() else "nothing changed outside the mask"
    return f"{SAID[seam.word]} · {done} · {changed}"


class Seams:
    """Looks at the seam of the selected result, and blends it. All take the page's results and the index of that one."""

    def __init__(self, line: SeamLine, jobs: Jobs, shelf: Shelf):
        self.line, self.jobs, self.shelf = line, jobs, shelf
        self._known: OrderedDict[tuple[str, int], Seam | None] = OrderedDict()
        """By path and time of writing."""
        self._lock = Lock()

    def look(self, shown: Visit, index: int) -> Update:
        """What the line says. It is not there for what has no seam, and where that cannot be told."""
        try:
            entry, picture = self.jobs.owner(shown, index)
            seam = self._seam(shown, index, picture)
        except (PalimpsestError, OSError, IndexError):
            return self.line.hidden()
        return self.line.shown(seam, picture, original_of(entry, picture)) if seam and seam.edge else self.line.hidden()

    def look_when_idle(self, shown: Visit, index: int, job_id: str | None) -> Update:
        """The same, but while a job runs it keeps the processor to itself, and the line stays as it is."""
        return {self.line.row: gr.skip()} if job_id else self.look(shown, index)

    def blend(self, how: How, shown: Visit, index: int) -> Update:
        """The picture with its seam blended becomes a result, and is selected."""
        entry, picture = self.jobs.owner(shown, index)
        parts = self._parts(shown, index, picture)
        if parts is None or way_of(picture.infotext):
            raise PalimpsestError("This picture has no seam to blend.")
        blended = save_blended(self.jobs.journal, entry, picture, parts, how)
        panel = self.jobs.panel
        shown.add([panel.result(blended.path, blended.infotext, shown[index].job)])
        return panel.show(shown)

    def undo(self, shown: Visit, index: int) -> Update:
        """The blended picture is deleted, and its original selected."""
        entry, picture = self.jobs.owner(shown, index)
        original = original_of(entry, picture)
        if original is None:
            raise PalimpsestError("The picture before blending is gone.")
        self.jobs.journal.delete(picture.id)
        panel, job = self.jobs.panel, shown[index].job
        shown.remove(shown[index].path)
        if str(original.path) not in (result.path for result in shown):  # it was one of an earlier visit
            shown.add([panel.result(original.path, original.infotext, job, favourite=original.favourite)])
        return panel.show(shown, next(at for at, result in enumerate(shown) if result.path == str(original.path)))

    def _seam(self, shown: Visit, index: int, picture: Picture) -> Seam | None:
        key = str(picture.path), picture.path.stat().st_mtime_ns
        with self._lock:
            if key in self._known:
                return self._known[key]
        parts = self._parts(shown, index, picture)
        seam = None if parts is None else parts.seam
        with self._lock:
            self._known[key] = seam
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return seam

    def _parts(self, shown: Visit, index: int, picture: Picture) -> Inpainted | None:
        """The picture and what it was made from, read as soon as there is room for that."""
        with self.shelf.reading(3 * count_pixels(str(picture.path), "image"), "image"):
            return inpainted(self.jobs.request(shown, index), picture)


def wire_seam(line: SeamLine, jobs: Jobs, shelf: Shelf) -> None:
    panel, seams = jobs.panel, Seams(line, jobs, shelf)
    chosen = [panel.results, panel.selected]
    panel.selected.change(seams.look, chosen, line.outputs, **ONE_AT_A_TIME)
    # what is shown may change without that, as at the end of a job
    gr.on([panel.infotext.change, panel.job_id.change], seams.look_when_idle, [*chosen, panel.job_id], line.outputs, **ONE_AT_A_TIME)
    for button, how in ((line.blend, "poisson"), (line.soften, "soft")):
        button.click(partial(seams.blend, how), chosen, panel.outputs, **QUEUED)
    line.undo.click(seams.undo, chosen, panel.outputs, **QUEUED)
