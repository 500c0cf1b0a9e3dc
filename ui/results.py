"""Results of jobs: the pictures, and actions on the selected one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import click
import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from pipeline.comparing import changed_pixels, made_from
from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.geometry import Size
from pipeline.images import resize_image
from pipeline.img2img import Mode
from pipeline.infotext import parse
from pipeline.journal import Entry
from pipeline.processing import StableDiffusionProcessingImg2Img
from ui.curl import command
from ui.events import CONFIRM, QUEUED, QUIET, tell
from ui.jobs import Jobs
from ui.seam import SeamLine, build_seam, wire_seam
from ui.stream import Folders, Panel, Running, Update
from ui.tabs import TAB_LABELS
from ui.viewer import Comparison, Shown, Viewer
from ui.visit import Visit

COPY = "(text) => { if (text) window.palimpsest.copy(text); }"
FETCH = "() => setTimeout(() => document.querySelector('#archive').click(), 200)"


@dataclass
class Actions:
    """Actions on the selected result: icons above the frame, and a menu behind the last of them."""

    sends: dict[Mode, gr.Button]
    """Each sends the selected picture to a mode."""
    use: gr.Button
    """Sends it to the open mode."""
    with_mask: gr.Checkbox
    reference: gr.Button
    """Adds it to the reference pictures."""
    reuse_seed: gr.Button
    compare: gr.Button
    favour: gr.Button
    exactly: gr.Button
    curl: gr.Button
    curl_text: gr.Textbox
    download: gr.Button
    archive: gr.DownloadButton
    delete: gr.Button
    confirmed: gr.Checkbox
    folder: gr.Button | None
    seam: SeamLine
    extras: gr.Button | None
    """Sends the selected picture to the tab Extras."""


def build_running_buttons() -> Running:
    """Interrupt and the like, shown instead of Generate while a job runs."""
    with gr.Row(visible=False, elem_id="running") as group:
        interrupt = gr.Button("Interrupt", variant="stop", min_width=90, elem_id="interrupt")
        skip = gr.Button("Skip", min_width=50, elem_id="skip")
        stop_after = gr.Button("Stop after this", min_width=80, elem_id="stop-after")
    return Running(group, interrupt, skip, stop_after)


def build_results(generates: list[gr.Button], report: gr.HTML, running: Running, *, shared: bool) -> tuple[Panel, Actions]:
    """The parts in a column #result, which takes the height that it is given.

    report: a batch's. running: the buttons for a running job, which the stylesheet shows instead of `generates`.
    shared: there are visitors, whose machines do not have the outputs folder.
    """
    with gr.Column(elem_id="result"):
        with gr.Row(elem_id="result-bar"):
            gr.HTML('<h2>Result</h2><button type="button" class="facts" aria-label="Infotext" aria-expanded="false"></button>',
                    elem_id="result-title", apply_default_css=False)
            with gr.Row(elem_id="result-actions"):
                compare = sign("Compare with the source", "compare")
                use = sign("Use as the source", "use-as-source")
                favour = sign("Favourite", "favour-result")
                sign("Download", "download-result")
                sign("Copy the picture", "copy-result")
                delete = sign("Delete", "delete-result")
                sign("More", "result-more")
        viewer = Viewer(label="Result", elem_id="gallery")
        stage = gr.HTML("", visible=False, elem_id="stage", apply_default_css=False)
        sound = gr.Checkbox(False, label="Sound at the end", container=False, min_width=120, elem_id="sound")
        seam = build_seam()
        with gr.Column(elem_id="result-menu"):
            gr.Markdown("Use in", elem_classes="label")
            sends = {mode: item(label, f"use-in-{mode.value}") for mode, label in TAB_LABELS.items()}
            extras = None if shared else item("Extras", "use-in-extras")
            with_mask = gr.Checkbox(False, label="with mask", container=False, elem_id="with-mask")
            reference = item("Use as a reference", "use-as-reference")
            reuse_seed = item("Reuse seed", "reuse-seed")
            exactly = item("Run exactly", "run-exactly")
            curl = item("Copy as curl", "copy-curl")
            download = item("Download all of this job", "download-all")
            folder = None if shared else item("Open folder", "open-folder")
        with gr.Column(elem_id="result-infotext"):
            infotext = gr.Textbox(label="Infotext", lines=4, max_lines=16, buttons=["copy"], interactive=False, elem_id="infotext")
    panel = Panel(stage, viewer, report, infotext, running, sound, gr.State(), gr.State(Visit()), gr.State(0), generates)
    return panel, Actions(sends, use, with_mask, reference, reuse_seed, compare, favour, exactly, curl, gr.Textbox(visible="hidden"), download,
                          gr.DownloadButton(visible="hidden", elem_id="archive"), delete,
                          gr.Checkbox(visible="hidden"), folder, seam, extras)


def sign(label: str, elem_id: str) -> gr.Button:
    """An icon button; its label is its accessible name and tooltip."""
    return gr.Button(label, size="sm", min_width=32, elem_id=elem_id, elem_classes="sign")


def item(label: str, elem_id: str) -> gr.Button:
    """A menu entry."""
    return gr.Button(label, size="sm", elem_id=elem_id)


class Results(Jobs):
    """Handlers of the actions. All take the page's results and the index of the selected one."""

    def mask(self, results: Visit, index: int) -> Image.Image | None:
        """The mask of the selected picture's job, at the picture's size."""
        mask = self.request(results, index).image_mask
        if isinstance(mask, list):
            raise PalimpsestError("This job had one mask per picture; send the picture without its mask.")
        if mask is not None:
            with Image.open(results.at(index).file) as image:
                mask = mask if mask.size == image.size else resize_image(0, mask, *image.size)
        return mask

    def seed(self, results: Visit, index: int) -> Any:
        seed = results.at(index).seed
        return gr.skip() if seed is None else seed

    def compare(self, results: Visit, index: int) -> Update:
        """The source beside the selected picture, and how much changed."""
        after = results.at(index).file
        p = self.request(results, index)
        with Image.open(after) as image:
            before, mask = made_from(p, Size(*image.size))
            remark = changes(before, image, mask)
        file = save_pil_to_cache(before, self.panel.viewer.GRADIO_CACHE, format="png")
        return {self.panel.viewer: Shown(results, index, Comparison(after, file, remark))}

    def favour(self, results: Visit, index: int) -> Update:
        """Mark the selected picture as a favourite, or not."""
        _, picture = self.owner(results, index)
        self.journal.favour(picture.id, not picture.favourite)
        results.replace(replace(results[index], favourite=not picture.favourite))
        return {self.panel.viewer: Shown(results, index)}

    def curl(self, results: Visit, index: int, request: gr.Request) -> str:
        """An API command that repeats the selected picture's job, with the seeds it drew."""
        entry, _ = self.owner(results, index)
        p = with_seeds(self.request(results, index), entry)
        tell("Copied: paste it into a shell.")
        address = request.headers.get("origin") or f"http://{request.headers['host']}"
        return command(p, address, login="authorization" in request.headers)

    def archive(self, results: Visit, index: int) -> str:
        """A zip of all pictures of the selected one's job, byte for byte."""
        job = results.at(index).job
        path = Path(self.panel.viewer.GRADIO_CACHE) / uuid4().hex / "palimpsest.zip"
        path.parent.mkdir(parents=True)
        with ZipFile(path, "w") as archive:
            for result in results.of_job(job):
                archive.write(result.file, Path(result.path).name)
        return str(path)

    def delete(self, results: Visit, index: int, confirmed: bool) -> Update:
        """Delete the selected picture's file; with its last one, the job."""
        if not confirmed:
            return {self.panel.selected: index}
        entry, picture = self.owner(results, index)
        self.journal.discard(entry, picture.id)
        results.remove(results[index].path)
        return self.panel.show(results, max(0, min(index, len(results) - 1)))

    def open_folder(self, results: Visit, index: int) -> None:
        _, picture = self.owner(results, index)
        if click.launch(str(picture.path), locate=True):
            tell(f"It is in {picture.path.parent}.")


def changes(before: Image.Image, after: Image.Image, mask: Image.Image | None) -> str:
    """How much of a picture changed. mask: L, 0 where it should not have."""
    if mask is None:
        share = changed_pixels(before, after) / (after.width * after.height)
        return f"{share:.1%} of the pixels changed"
    count = changed_pixels(before, after, np.asarray(mask) == 0)
    return "1 pixel changed outside the mask" if count == 1 else f"{count} pixels changed outside the mask"


def with_seeds(p: StableDiffusionProcessingImg2Img, entry: Entry) -> StableDiffusionProcessingImg2Img:
    """A job's request with the seeds that it drew."""
    said = parse(entry.pictures[0].infotext)
    for name, label in (("seed", "Seed"), ("subseed", "Variation seed")):
        if getattr(p, name) == -1 and label in said:
            setattr(p, name, int(said[label]))
    return p


def wire_results(panel: Panel, actions: Actions, engine: Engine, folders: Folders, seed: gr.Number) -> Results:
    results, chosen, running = Results(panel, engine.journal, folders), [panel.results, panel.selected], panel.running
    for button, act in ((running.interrupt, engine.interrupt), (running.stop_after, engine.stop_after), (running.skip, engine.skip)):
        button.click(lambda job_id, act=act: act(job_id) if job_id else None, panel.job_id, None, **QUIET)

    def select(shown: Visit, event: gr.SelectData) -> tuple[int, str]:
        found = [index for index, result in enumerate(shown) if result.file == event.value]
        if not found:
            raise PalimpsestError("This result no longer exists; reload the page.")
        return found[0], shown[found[0]].infotext

    panel.viewer.select(select, panel.results, [panel.selected, panel.infotext],
                        trigger_mode="multiple", **QUEUED)  # otherwise a second selection is lost, or sent with the first one's data
    actions.reuse_seed.click(results.seed, chosen, seed, **QUEUED)
    actions.compare.click(results.compare, chosen, panel.viewer, **QUEUED)
    actions.favour.click(results.favour, chosen, panel.viewer, **QUEUED)
    actions.curl.click(results.curl, chosen, actions.curl_text, **QUEUED).success(None, actions.curl_text, None, js=COPY, **QUIET)
    actions.download.click(results.archive, chosen, actions.archive, **QUEUED).success(None, None, None, js=FETCH, **QUIET)
    actions.delete.click(results.delete, [*chosen, actions.confirmed], panel.outputs, js=CONFIRM, **QUEUED)
    if actions.folder is not None:
        actions.folder.click(results.open_folder, chosen, None, **QUEUED)
    if engine.journal is not None:
        wire_seam(actions.seam, results, engine.shelf)
    return results
