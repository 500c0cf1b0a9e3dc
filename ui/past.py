"""Restores jobs of the journal: into the widgets, or by running them again."""

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.img2img import Mode
from pipeline.job import Job
from pipeline.limits import Client
from pipeline.loading import ModelStore
from pipeline.processing import StableDiffusionProcessingImg2Img
from ui.controlnet import UNITS, units_of
from ui.controls import changing_menus
from ui.events import QUEUED
from ui.history import History
from ui.making import MAKE, Making
from ui.references import Shown
from ui.restore import restored, seed_in, settings_of
from ui.session import Session, asked_by
from ui.stream import PAGE, Folders, Update, follow, hand_out
from ui.visit import Visit

Chosen = tuple[str, int | None]
"""(job id, id of one of its pictures or None)."""


class Past:
    """Restores jobs from the engine's journal."""

    def __init__(self, engine: Engine, models: ModelStore, making: Making, folders: Folders):
        self.engine, self.models, self.journal, self.making, self.folders = engine, models, engine.journal, making, folders

    def request(self, chosen: Chosen | None) -> StableDiffusionProcessingImg2Img:
        if chosen is None:
            raise PalimpsestError("Choose a picture first.")
        p = self.journal.request(chosen[0], outpath_samples=self.folders.samples, outpath_grids=self.folders.grids)
        if p is None:
            raise PalimpsestError("This job cannot be restored: its record or a source picture no longer exists.")
        return p

    def mode(self, chosen: Chosen) -> Mode:
        """The mode of a job, or the nearest: an inpaint sketch has become a picture and a mask."""
        p = self.request(chosen)
        known = {mode.value: mode for mode in self.making.modes if mode is not Mode.INPAINT_SKETCH}
        return known.get(self.journal.entry(chosen[0]).mode) or (Mode.INPAINT_UPLOAD if p.image_mask else Mode.IMG2IMG)

    def files(self, chosen: Chosen) -> Update:
        """Updates with its picture and mask, in its mode."""
        p, tab = self.request(chosen), self.making.modes[self.mode(chosen)]
        originals = self.journal.originals
        mask = p.image_mask[0] if isinstance(p.image_mask, list) else p.image_mask
        return tab.loaded(hand_out(originals.path(originals.keep(p.init_images[0])), tab.canvas), mask)

    def everything(self, chosen: Chosen) -> Update:
        """Updates with its settings too, with the chosen picture's seed."""
        kept = next((kept for kept in self.journal.entry(chosen[0]).pictures if kept.id == chosen[1]), None)
        seed = seed_in(kept.infotext) if kept else None
        controls = self.making.controls
        p = self.request(chosen)
        settings = settings_of(p, controls, self.engine.options, self.models.catalog, seed)
        return self.files(chosen) | self.control_pictures(p) | self.references(p) | restored(controls, settings, changing_menus(self.models, self.engine.styles))

    def control_pictures(self, p: StableDiffusionProcessingImg2Img) -> Update:
        """Updates with the pictures of its ControlNet units."""
        originals, units = self.journal.originals, units_of(p)
        images = [unit.image for unit in units] + [None] * UNITS
        return {widget: image and hand_out(originals.path(originals.keep(image)), widget)
                for widget, image in zip(self.making.controls.scripts.controlnet.pictures().values(), images)}

    def references(self, p: StableDiffusionProcessingImg2Img) -> Update:
        originals = self.journal.originals
        return {strip: Shown([hand_out(originals.path(originals.keep(image)), strip) for image in p.reference_images])
                for strip in self.making.controls.references().values()}

    def run_again(self, client: Client, visit: Visit, chosen: Chosen) -> Iterator[Update]:
        p, entry = self.request(chosen), self.journal.entry(chosen[0])
        yield from self._follow(visit, self.engine.submit([p], client=client, mode=entry.mode))

    def proceed(self, client: Client, visit: Visit, chosen: Chosen) -> Iterator[Update]:
        """Continue an interrupted job."""
        p, entry = self.journal.to_continue(chosen[0]), self.journal.entry(chosen[0])
        yield from self._follow(visit, self.engine.submit([p], entry.id, client, entry.mode))

    def _follow(self, visit: Visit, job: Job) -> Iterator[Update]:
        panel = self.making.panel
        yield panel.start(job.id) | {self.making.pages: gr.Tabs(selected=MAKE)}
        yield from follow(panel, visit, job.id, job.events(**PAGE))

    def last_was_batch(self, client: str) -> bool:
        return bool(client) and any(entry.mode == Mode.BATCH.value for entry in self.journal.search(client=client, limit=1))

    def last(self, client: str) -> Chosen | None:
        """A browser's newest job that can be restored."""
        entries = self.journal.search(client=client, limit=1) if client else []
        return next(((entry.id, None) for entry in entries if self.journal.request(entry.id)), None)

    def last_mode(self, client: str) -> gr.Tabs:
        if self.last_was_batch(client):
            return gr.Tabs(selected=Mode.BATCH.value)
        last = self.last(client)
        return gr.Tabs(selected=self.mode(last).value) if last else gr.skip()

    def last_files(self, client: str) -> Update:
        last = None if self.last_was_batch(client) else self.last(client)
        if not last:
            return {self.making.canvases[0]: gr.skip()}
        # a canvas may have been painted on since then
        return {canvas: replace(shown, opening=True) for canvas, shown in self.files(last).items()}


def wire_past(past: Past, history: History, session: Session) -> None:
    """History's buttons."""
    making = past.making
    making.bring(history.restore.click, past.mode, [history.chosen], past.everything, [history.chosen])
    for button, run in ((history.again, past.run_again), (history.proceed, past.proceed)):
        button.click(asked_by(run), [session.client, making.panel.results, history.chosen], [*making.panel.outputs, making.pages], **QUEUED)


def wire_opening(past: Past, opened: gr.events.Dependency, session: Session) -> gr.events.Dependency:
    """An opened page shows the mode, picture and mask of this browser's last job."""
    return opened.then(past.last_mode, session.client, past.making.tabs, **QUEUED).then(
        past.last_files, session.client, past.making.canvases, **QUEUED)
