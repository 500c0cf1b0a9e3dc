"""The tab Batch: many files, uploaded or in a folder, as one job."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.components.file import ListFiles
from gradio.data_classes import FileData

from pipeline import batch
from pipeline.batch import REUSABLE, Batch, apart_from_masks, find_pictures, natural
from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.img2img import Mode
from pipeline.limits import Client
from pipeline.uploads import EXTENSIONS
from ui.canvas import SEND
from ui.controls import Controls
from ui.events import QUEUED
from ui.session import Session, asked_by
from ui.stream import PAGE, Folders, Panel, Update, follow, request_fields
from ui.visit import Visit

UPLOAD, DIRECTORY = "Upload", "From directory"
INPUT, OUTPUT, INFO = "Input directory", "Output directory", "PNG info directory"
MASKS = "Inpaint batch mask directory (required for inpaint batch processing only)"
FOLDERS = ("input_directory", "output_directory", "mask_directory", "info_directory")
"""Not available on a shared page."""


class Files(gr.File):
    """gr.File that returns the paths of the uploaded files."""

    is_template = True

    def preprocess(self, payload: ListFiles | FileData | None) -> list[Path]:
        files = payload.root if isinstance(payload, ListFiles) else [] if payload is None else [payload]
        return [Path(file.path) for file in files]


@dataclass(frozen=True)
class BatchTab:
    """The tab's components."""

    tab: gr.Tab
    generate: gr.Button
    report: gr.HTML
    """The results of the files."""
    inputs: dict[str, gr.components.Component]
    """By the names that read() uses; without folders on a shared page."""

    @property
    def masks(self) -> list[gr.components.Component]:
        """The inputs for masks."""
        return [self.inputs[name] for name in ("masks", "mask_directory") if name in self.inputs]


def build_batch(generate: gr.Button, *, shared: bool) -> BatchTab:
    """generate: its button, outside the tab. shared: there are visitors, so this machine's folders are not offered."""
    inputs: dict[str, gr.components.Component] = {}
    with gr.Tab("Batch", id=Mode.BATCH.value, render_children=True, elem_id=f"mode-{Mode.BATCH.value}") as tab:
        if not shared:
            inputs["source"] = gr.Radio([UPLOAD, DIRECTORY], value=UPLOAD, show_label=False, container=False,
                                        elem_id="batch-source")
        with gr.Row() as uploads:
            inputs |= {"files": files("Pictures", "batch-files"),
                       "masks": files("Masks: by name, or one for all", "batch-masks")}
        if not shared:
            inputs |= build_folders(uploads, inputs["source"])
        with gr.Accordion("PNG info", open=False):
            inputs["reuses"] = gr.Checkbox(label="Append png info to prompts", elem_id="batch-reuses")
            if not shared:
                inputs["info_directory"] = gr.Textbox(label=INFO, placeholder="Empty: the pictures' own", max_lines=1,
                                                      elem_id="batch-info-directory")
            inputs["reuse"] = gr.CheckboxGroup(list(REUSABLE), label="Parameters to take from png info",
                                               info="Prompts are appended to those above; other values replace them",
                                               elem_id="batch-reuse")
        inputs["resume"] = gr.Checkbox(True, label="Skip finished files", elem_id="batch-resume",
                                       info="Those with a finished picture of the same settings")
        report = gr.HTML("", visible=False, elem_id="report")
    return BatchTab(tab, generate, report, inputs)


def build_folders(uploads: gr.Row, source: gr.Radio) -> dict[str, gr.components.Component]:
    """The folder inputs, which replace the uploads."""
    with gr.Column(visible=False) as part:
        folders = {
            "input_directory": gr.Textbox(label=INPUT, max_lines=1, elem_id="batch-input-directory",
                                          placeholder="A folder on the machine that runs Palimpsest"),
            "output_directory": gr.Textbox(label=OUTPUT, max_lines=1, placeholder="Empty: where other results are saved",
                                           elem_id="batch-output-directory"),
            "mask_directory": gr.Textbox(label=MASKS, max_lines=1, placeholder="Empty: no masks",
                                         elem_id="batch-mask-directory")}
    source.change(lambda source: (gr.Row(visible=source == UPLOAD), gr.Column(visible=source == DIRECTORY)), source,
                  [uploads, part], **QUEUED)
    return folders


def files(label: str, elem_id: str) -> Files:
    return Files(label=label, file_count="multiple", file_types=list(EXTENSIONS), height=220, elem_id=elem_id)


def wire_batch(tab: BatchTab, engine: Engine, controls: Controls, panel: Panel, folders: Folders,
               session: Session, *, shared: bool) -> None:
    tab.generate.click(asked_by(partial(run, engine, panel, folders, list(tab.inputs), shared)),
                       inputs=[session.client, panel.results, *tab.inputs.values()], inputs_kwargs=controls.asked(), outputs=panel.outputs,
                       js=SEND, **QUEUED)


def run(engine: Engine, panel: Panel, folders: Folders, names: list[str], shared: bool, client: Client,
        visit: Visit, *values: Any, **settings: Any) -> Iterator[Update]:
    """The Generate button's handler. names, values: of the tab's inputs; visit: the page's results; settings: the controls by name."""
    asked, job_id = dict(zip(names, values, strict=True)), uuid4().hex
    events = batch.run(engine, read(asked, shared=shared), resume=asked["resume"], mine_only=shared, job_id=job_id,
                       client=client, **PAGE, **request_fields(engine, folders, settings))
    yield panel.start(job_id)
    yield from follow(panel, visit, job_id, events)


def read(asked: dict[str, Any], *, shared: bool) -> Batch:
    """The batch described by the tab's inputs. Raises InvalidRequest with a folder's label."""
    if shared and (given := [name for name in FOLDERS if asked.get(name)]):
        raise InvalidRequest(given[0], f"{given[0]}: a shared page cannot use the server's folders; upload the files")
    reuse, infos = (), None
    if asked["reuses"]:
        reuse, infos = asked["reuse"], asked.get("info_directory")
        if not reuse:
            raise InvalidRequest("reuse", "Parameters to take from png info: tick at least one")
    infos = folder(INFO, infos) if infos else None
    if asked.get("source", UPLOAD) == UPLOAD:
        files, masks = by_name(asked["files"]), by_name(asked["masks"])
        own = []
        if not masks:
            files, own = apart_from_masks(files, by_folder=False)
        return Batch(files, masks=masks or own or None, some_masked=bool(own), reuse=reuse, info_folder=infos)
    source, target = folder(INPUT, asked["input_directory"]), made(asked["output_directory"])
    if target == source:
        raise InvalidRequest("output_directory", f"{OUTPUT}: this is the input directory, so results would become "
                                                 "inputs next time; choose another one")
    pictures = [file for file in pictures_of(INPUT, source) if target is None or not file.is_relative_to(target)]
    masks, mask_folder, own = *masks_in(asked["mask_directory"]), []
    if mask_folder in (None, source):
        pictures, own = apart_from_masks(pictures, by_folder=True)
    if own:
        masks, mask_folder = own, source
    return Batch(pictures, source, masks, mask_folder, bool(own), output_folder=target, reuse=reuse, info_folder=infos)


def by_name(uploads: list[Path]) -> list[Path]:
    """In natural order of names, as each file is in a folder of its own; macOS's companion files are left out."""
    return sorted((file for file in uploads if not file.name.startswith(".")), key=lambda file: natural(Path(file.name)))


def path_of(text: str) -> Path:
    """A typed or pasted path, possibly in quotes."""
    return Path(text.strip().strip('"\'')).expanduser().absolute()


def folder(label: str, text: str) -> Path:
    """The folder of that name. Raises InvalidRequest if it does not exist."""
    if not text.strip():
        raise InvalidRequest(label, f"{label}: enter a folder that contains pictures")
    path = path_of(text)
    if not path.is_dir():
        raise InvalidRequest(label, f'{label}: folder "{path}" does not exist')
    return path


def made(text: str) -> Path | None:
    """The output folder, created if necessary; None if none is given. Raises InvalidRequest."""
    if not text.strip():
        return None
    path = path_of(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(OUTPUT, f'{OUTPUT}: "{path}" cannot be a folder ({error.strerror})') from error
    return path


def pictures_of(label: str, path: Path) -> list[Path]:
    """The pictures in a folder. Raises InvalidRequest if there are none."""
    found = find_pictures(path)
    if not found:
        raise InvalidRequest(label, f'{label}: "{path}" contains no pictures; valid: {", ".join(EXTENSIONS)}')
    return found


def masks_in(text: str) -> tuple[list[Path] | None, Path | None]:
    """(the masks in the folder of that name, the folder); None if none is given. Raises InvalidRequest if it has no masks."""
    if not text.strip():
        return None, None
    path = folder(MASKS, text)
    return pictures_of(MASKS, path), path
