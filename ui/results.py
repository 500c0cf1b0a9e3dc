"""What came of a job: the pictures, and everything that can be done with the one that is selected."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import click
import gradio as gr
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.images import flatten, resize_image
from pipeline.img2img import Mode
from pipeline.infotext import parse
from pipeline.journal import Entry, Journal, Picture
from pipeline.processing import StableDiffusionProcessingImg2Img
from ui.curl import command
from ui.events import CONFIRM, QUEUED, QUIET, tell
from ui.restore import seed_in
from ui.stream import Folders, Panel, Update
from ui.tabs import TAB_LABELS

COPY = "(text) => { if (text) window.palimpsest.copy(text); }"
FETCH = "() => setTimeout(() => document.querySelector('#archive').click(), 200)"


@dataclass
class Actions:
    """The buttons below the pictures."""

    sends: dict[Mode, gr.Button]
    """Each takes the selected picture to a mode."""
    with_mask: gr.Checkbox
    reuse_seed: gr.Button
    compare: gr.Button
    exactly: gr.Button
    curl: gr.Button
    curl_text: gr.Textbox
    download: gr.Button
    archive: gr.DownloadButton
    delete: gr.Button
    confirmed: gr.Checkbox
    folder: gr.Button | None


def build_results(generates: list[gr.Button], report: gr.HTML, *, shared: bool) -> tuple[Panel, Actions]:
    """report: of a batch. shared: others use this page too, whose machines have no folder here."""
    stage = gr.HTML("", visible=False, elem_id="stage")
    gallery = gr.Gallery(label="Result", format="png", columns=3, height=460, object_fit="contain", preview=True,
                         interactive=False, buttons=["download", "fullscreen"], elem_id="gallery")
    slider = gr.ImageSlider(label="Before and after", format="png", type="filepath", height=460, interactive=False, visible=False,
                            buttons=["fullscreen"], elem_id="before-after")
    remark = gr.HTML("", visible=False, elem_id="remark")
    with gr.Row(elem_classes="actions"):
        interrupt = gr.Button("Interrupt", interactive=False, size="md", min_width=90, elem_id="interrupt")
        stop_after = gr.Button("Stop after this", interactive=False, size="md", min_width=110, elem_id="stop-after")
        skip = gr.Button("Skip", interactive=False, size="md", min_width=60, elem_id="skip")
        sound = gr.Checkbox(False, label="Sound at the end", container=False, min_width=120, elem_id="sound")
    with gr.Row(elem_classes=["actions", "many"]):
        compare = gr.Button("Before / after", size="sm", min_width=90, elem_id="compare")
        reuse_seed = gr.Button("Reuse seed", size="sm", min_width=80, elem_id="reuse-seed")
        exactly = gr.Button("Run exactly", size="sm", min_width=80, elem_id="run-exactly")
        curl = gr.Button("Copy as curl", size="sm", min_width=90, elem_id="copy-curl")
        download = gr.Button("Download all", size="sm", min_width=90, elem_id="download-all")
        folder = None if shared else gr.Button("Open folder", size="sm", min_width=80, elem_id="open-folder")
        delete = gr.Button("Delete", size="sm", min_width=60, elem_id="delete-result")
    with gr.Row(elem_classes="actions"):
        gr.Markdown("Use in", elem_classes="label")
        sends = {mode: gr.Button(label, size="sm", min_width=60, elem_id=f"use-in-{mode.value}")
                 for mode, label in TAB_LABELS.items()}
        with_mask = gr.Checkbox(False, label="with mask", container=False, min_width=100, elem_id="with-mask")
    infotext = gr.Textbox(label="Infotext", lines=4, max_lines=12, buttons=["copy"], interactive=False,
                          elem_id="infotext")
    panel = Panel(stage, gallery, slider, gr.State(False), remark, report, infotext, interrupt, stop_after, skip, sound, gr.State(),
                  gr.State([]), gr.State(0), generates)
    return panel, Actions(sends, with_mask, reuse_seed, compare, exactly, curl, gr.Textbox(visible="hidden"), download,
                          gr.DownloadButton(visible="hidden", elem_id="archive"), delete,
                          gr.Checkbox(visible="hidden"), folder)


class Results:
    """Does what the buttons say. All take the panel's results and the index of the one that is selected."""

    def __init__(self, panel: Panel, journal: Journal | None, folders: Folders):
        self.panel, self.journal, self.folders = panel, journal, folders

    def selected(self, results: list, index: int) -> str:
        """The selected picture's file, as the page has it."""
        if not results:
            raise PalimpsestError("There is no result yet.")
        return results[index].file

    def owner(self, results: list, index: int) -> tuple[Entry, Picture]:
        """The selected picture in the journal, and its job there."""
        self.selected(results, index)
        found = self.journal and self.journal.find(results[index].path)
        if not found:
            raise PalimpsestError("This picture is not in the history: it was deleted, or no history is kept.")
        return found

    def request(self, results: list, index: int) -> StableDiffusionProcessingImg2Img:
        """What the selected picture's job was asked for."""
        p = self.journal.request(self.owner(results, index)[0].id, outpath_samples=self.folders.samples,
                                 outpath_grids=self.folders.grids)
        if p is None:
            raise PalimpsestError("A picture that this job began with is gone.")
        return p

    def mask(self, results: list, index: int) -> Image.Image | None:
        """The mask of the selected picture's job, at the picture's size."""
        mask = self.request(results, index).image_mask
        if isinstance(mask, list):
            raise PalimpsestError("This job had a mask for each picture; bring the picture without its mask.")
        if mask is not None:
            with Image.open(self.selected(results, index)) as image:
                mask = mask if mask.size == image.size else resize_image(0, mask, *image.size)
        return mask

    def seed(self, results: list, index: int) -> Any:
        self.selected(results, index)
        seed = seed_in(results[index].infotext)
        return gr.skip() if seed is None else seed

    def compare(self, results: list, index: int, compared: bool) -> Update:
        """What the job began with and the selected picture, one behind the other; and back to the pictures."""
        if compared:
            return {self.panel.slider: gr.ImageSlider(visible=False), self.panel.gallery: gr.Gallery(visible=True),
                    self.panel.remark: gr.HTML(visible=False), self.panel.compared: False}
        after = self.selected(results, index)
        p = self.request(results, index)
        with Image.open(after) as image:
            before = resize_image(min(p.resize_mode, 2), flatten(p.init_images[0], p.options.img2img_background_color), *image.size)
        return {self.panel.slider: gr.ImageSlider((before, after), visible=True), self.panel.gallery: gr.Gallery(visible=False),
                self.panel.compared: True}

    def curl(self, results: list, index: int, request: gr.Request) -> str:
        """The command that gives the selected picture's job again, with the seed that it had."""
        entry, _ = self.owner(results, index)
        p = with_seeds(self.request(results, index), entry)
        tell("Copied: paste it into a shell.")
        address = request.headers.get("origin") or f"http://{request.headers['host']}"
        return command(p, address, login="authorization" in request.headers)

    def archive(self, results: list, index: int) -> str:
        """All pictures in one file, byte for byte."""
        self.selected(results, index)
        path = Path(self.panel.gallery.GRADIO_CACHE) / uuid4().hex / "palimpsest.zip"
        path.parent.mkdir(parents=True)
        with ZipFile(path, "w") as archive:
            for result in results:
                archive.write(result.file, Path(result.path).name)
        return str(path)

    def delete(self, results: list, index: int, confirmed: bool) -> Update:
        """Delete the file of the selected picture, and with its last one the job."""
        if not confirmed:
            return {self.panel.selected: index}
        entry, picture = self.owner(results, index)
        self.journal.discard(entry, picture.id)
        return self.panel.show_results([result for result in results if result.path != results[index].path])

    def open_folder(self, results: list, index: int) -> None:
        _, picture = self.owner(results, index)
        if click.launch(str(picture.path), locate=True):
            tell(f"It is in {picture.path.parent}.")


def with_seeds(p: StableDiffusionProcessingImg2Img, entry: Entry) -> StableDiffusionProcessingImg2Img:
    """A job's request with the seeds that were drawn for it."""
    said = parse(entry.pictures[0].infotext)
    for name, label in (("seed", "Seed"), ("subseed", "Variation seed")):
        if getattr(p, name) == -1 and label in said:
            setattr(p, name, int(said[label]))
    return p


def wire_results(panel: Panel, actions: Actions, engine: Engine, folders: Folders, seed: gr.Number) -> Results:
    results, chosen = Results(panel, engine.journal, folders), [panel.results, panel.selected]
    for button, act in ((panel.interrupt, engine.interrupt), (panel.stop_after, engine.stop_after), (panel.skip, engine.skip)):
        button.click(lambda job_id, act=act: act(job_id) if job_id else None, panel.job_id, None, **QUIET)

    def select(shown: list, event: gr.SelectData) -> tuple[int, str]:
        return event.index, shown[event.index].infotext

    panel.gallery.select(select, panel.results, [panel.selected, panel.infotext], **QUEUED)
    actions.reuse_seed.click(results.seed, chosen, seed, **QUEUED)
    actions.compare.click(results.compare, [*chosen, panel.compared], [panel.slider, panel.gallery, panel.remark, panel.compared], **QUEUED)
    actions.curl.click(results.curl, chosen, actions.curl_text, **QUEUED).success(None, actions.curl_text, None, js=COPY, **QUIET)
    actions.download.click(results.archive, chosen, actions.archive, **QUEUED).success(None, None, None, js=FETCH, **QUIET)
    actions.delete.click(results.delete, [*chosen, actions.confirmed], panel.outputs, js=CONFIRM, **QUEUED)
    if actions.folder is not None:
        actions.folder.click(results.open_folder, chosen, None, **QUEUED)
    return results
