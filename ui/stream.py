"""Turns the engine's events into page updates, while a picture forms and when it is done."""

import base64
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import Cancelled, PalimpsestError
from pipeline.geometry import Size
from pipeline.img2img import Mode, Pair, img2img
from pipeline.job import Event, Failed, Finished, Queued, Step
from pipeline.limits import Client
from pipeline.options import SPECS
from pipeline.previews import to_jpeg, unpack
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.saving import save_image
from pipeline.series import Outcome
from pipeline.uploads import count_pixels, open_picture
from ui.editor import File, Reader
from ui.events import tell
from ui.references import FIELD
from ui.restore import options_in
from ui.scripts import packed
from ui.viewer import Comparison, Shown, Viewer
from ui.visit import Result, Visit, thumbnail

HEARTBEAT = 1.0
"""Seconds after which a silent job is shown again, so that a closed page is noticed."""

PAGE = {"heartbeat": HEARTBEAT, "pace": 0.25, "cancels": False}
"""How a page watches a job: showing a step costs server and browser tens of milliseconds, more than a small model's step;
and closing the page does not stop the job."""

PREVIEW_SIZE = Size(512, 512)
"""Previews are enlarged to fit this."""

ONLY_OPTIONS = SPECS.keys() - {f.name for f in fields(StableDiffusionProcessingImg2Img)}
"""Options that are not request fields: the page sends them in override_settings."""

FRACTIONS = {f.name for f in fields(StableDiffusionProcessingImg2Img) if f.type in (float, float | None)}
"""Request fields of type float."""

Update = dict[gr.blocks.Block, Any]


@dataclass(frozen=True)
class Folders:
    """Where results are saved."""

    samples: str
    grids: str
    extras: str


@dataclass(frozen=True)
class Running:
    """The buttons for a running job."""

    group: gr.Row
    """Shown only while a job of this page runs."""
    interrupt: gr.Button
    skip: gr.Button
    stop_after: gr.Button


@dataclass
class Panel:
    """The right side of the page: progress, then results."""

    stage: gr.HTML
    """Live preview and progress line, shown over the viewer's frame while a job runs."""
    viewer: Viewer
    report: gr.HTML
    """A batch's report."""
    infotext: gr.Textbox
    running: Running
    sound: gr.Checkbox
    """Whether to play a sound at the end of a job."""
    job_id: gr.State
    """The job that this page watches, or None."""
    results: gr.State
    """The Visit shown by the viewer. Never an event's output: handlers change it in place."""
    selected: gr.State
    """Index into results."""
    generates: list[gr.Button]
    """One per mode; disabled while a job of this page runs, so that Interrupt always means that job."""

    @cached_property
    def unsaved(self) -> tempfile.TemporaryDirectory:
        """Folder for pictures that could not be saved: private, not served, and removed when the program ends."""
        return tempfile.TemporaryDirectory(prefix="palimpsest-unsaved-")

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        return [self.stage, self.viewer, self.report, self.infotext, self.job_id, self.selected, self.running.group,
                *self.generates]

    def start(self, job_id: str) -> Update:
        return {self.job_id: job_id, self.stage: gr.HTML(stage_html("Starting", 0.0), visible=True),
                self.report: gr.HTML("", visible=False)} | self._buttons(running=True)

    def idle(self) -> Update:
        return {self.job_id: None, self.stage: gr.HTML("", visible=False)} | self._buttons(running=False)

    def _buttons(self, *, running: bool) -> Update:
        return {self.running.group: gr.Row(visible=running)} | {
            button: gr.Button(interactive=not running) for button in self.generates}

    def render(self, event: Event) -> Update:
        """Page updates for an event, except the results."""
        match event:
            case Queued():
                waiting = f"In queue, place {event.place}" if event.place else "Starting"
                line = f"Loading the model · {event.fraction:.0%}" if event.loading else waiting
                return {self.stage: gr.HTML(stage_html(line, event.fraction), visible=True)}
            case Step():
                jpeg = None if event.preview is None else to_jpeg(unpack(event.preview), PREVIEW_SIZE)
                return {self.stage: gr.HTML(stage_html(step_line(event), event.fraction, jpeg), visible=True)}
            case Finished():
                return self.idle()
        raise TypeError(f"no such event: {event!r}")

    def results_of(self, processed: Processed, job_id: str) -> list[Result]:
        """The pictures made by a request."""
        return [self.result(path or save_image(image, self.unsaved.name, name="unsaved"), text, job_id, image)
                for path, image, text in zip(processed.paths, processed.images, processed.infotexts)]

    def result(self, path: str | Path, infotext: str, job_id: str, image: Image.Image | None = None, *,
               favourite: bool = False) -> Result:
        """image: the picture, if it is in memory already."""
        file = hand_out(path, self.viewer)
        return Result(file, infotext, str(Path(path).absolute()), job_id, thumbnail(file, image), favourite)

    def show(self, visit: Visit, selected: int = 0, comparison: Comparison | None = None, *, opening: bool = False) -> Update:
        """Updates that show the visit's results. opening: open the comparison, rather than only offer it."""
        return {self.viewer: Shown(visit, selected, comparison, opening), self.infotext: visit[selected].infotext if visit else "",
                self.selected: selected}


def run(engine: Engine, mode: Mode, panel: Panel, folders: Folders, read: Callable[..., Pair], client: Client, visit: Visit,
        files: tuple[File, File], **settings: Any) -> Iterator[Update]:
    """The event handler of every Generate button.

    client: who asks; visit: the page's results; files: from the tab's canvas; settings: the controls by name.
    """
    job_id = uuid4().hex
    reader = Reader()
    references = settings.get(FIELD, [])
    with engine.shelf.reading(sum(count_pixels(file, "init_images") for file in files if file) + sum(count_pixels(file, FIELD) for file in references)):
        settings = request_fields(engine, folders, settings)
        source = read(reader, files)
        settings["source_exif"] = reader.exif
        events = img2img(engine, mode, source, job_id=job_id, client=client, **PAGE, **settings)
    yield panel.start(job_id)
    for note in reader.notes:
        tell(note)
    yield from follow(panel, visit, job_id, events)


def request_fields(engine: Engine, folders: Folders, settings: dict[str, Any]) -> dict[str, Any]:
    """The controls by name as keywords of img2img(). Raises InvalidRequest.

    Widgets give 7 where the API reads 7.0; both make the same infotext.
    """
    settings = packed(settings)
    settings[FIELD] = [open_picture(file, FIELD).image for file in settings.get(FIELD, [])]
    settings |= {name: float(settings[name]) for name in FRACTIONS & settings.keys() if isinstance(settings[name], int)}
    overrides = options_in(settings.pop("override_settings"), engine.options)
    overrides |= {name: settings.pop(name) for name in ONLY_OPTIONS & settings.keys()}
    if "refiner_checkpoint" in settings:
        settings["refiner_checkpoint"] = settings["refiner_checkpoint"] or None  # the same as leaving it out in the API
    return settings | {"outpath_samples": folders.samples, "outpath_grids": folders.grids, "override_settings": overrides}


def follow(panel: Panel, visit: Visit, job_id: str, events: Iterator[Event]) -> Iterator[Update]:
    """Updates for a job's events, to its end. Closing the page does not stop the job."""
    outcome, known = None, {}
    for event in events:
        if isinstance(event, Failed):
            yield panel.idle()
            raise PalimpsestError(event.message)
        update = panel.render(event)
        if isinstance(event, Step | Finished) and event.outcome is not outcome:
            outcome = event.outcome
            known = {picture: known.get(picture) or panel.result(*picture, job_id) for picture in outcome.pictures
                     if picture in known or Path(picture[0]).is_file()}
            visit.add(reversed(known.values()))
            update |= panel.show(visit) | {panel.report: gr.HTML(report_html(outcome), visible=True)}
        elif isinstance(event, Finished) and event.results:
            visit.add(panel.results_of(event.results[0], job_id))
            update |= panel.show(visit)
        yield update
        if isinstance(event, Finished) and event.results:
            remark(event.results[0])


def load_model(engine: Engine, **chosen: str) -> Iterator[str]:
    """Load the model chosen on a page once no job waits; yields header lines on the progress, and on where its weights go."""
    options, plan = engine.options.override(chosen), ""
    with suppress(PalimpsestError):  # the load will tell it
        plan = engine.plan(options).line
    yield title_html("waiting to be loaded", plan)
    for event in engine.preload(options).events(HEARTBEAT):
        match event:
            case Queued():
                yield title_html(f"loading, {event.fraction:.0%}", plan)
            case Finished():
                yield title_html("", plan)
            case Failed(error=Cancelled()):
                yield title_html("loaded when it is needed")
            case Failed():
                yield title_html("not loaded")
                raise PalimpsestError(event.message)


def title_html(state: str = "", plan: str = "") -> str:
    """The header's name, how the model stands that was chosen, where its weights go, and the page's own buttons."""
    said = "".join(f"<span>{escape(text)}</span>" for text in (state, plan) if text)
    return (f'<h1>Palimpsest</h1><span class="model" role="status" title="{escape(plan)}">{said}</span>'
            '<button class="keys" aria-label="Keys" onclick="document.querySelector(&quot;#keys dialog&quot;).showModal()">?</button>'
            '<button id="theme-switch" class="keys" aria-label="Light or dark" title="Light or dark">◐</button>')


def remark(processed: Processed) -> None:
    """Notes on a result, for the person who asked."""
    for comment in processed.comments:
        tell(comment)
    if processed.interrupted:
        tell("Interrupted: this is the picture so far." if processed.images else "Interrupted before there was a picture.")


def hand_out(path: str | Path, component: gr.components.Component) -> str:
    """A copy of a picture, byte for byte, in a folder that Gradio may serve; folders of results are never opened."""
    return save_file_to_cache(path, component.GRADIO_CACHE)


def step_line(event: Step) -> str:
    """A line on a job's progress and remaining time."""
    batch = f"picture {event.batch} of {event.batches} · " if event.batches > 1 else ""
    if event.outcome is not None:
        batch = f"file {event.item} of {event.outcome.items} · {batch}"
    if not event.fraction:
        return f"{batch}Reading picture and prompt"
    return (f"{batch}step {event.step}/{event.steps} · {event.fraction:.0%} · {duration(event.elapsed)} · "
            f"about {duration(event.eta)} left")


def duration(seconds: float) -> str:
    """Such as 4.2 s, 3 min 20 s or 1 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def report_html(outcome: Outcome) -> str:
    """A batch's counts, and the reason for each failed file."""
    counts = [(outcome.already, f"{outcome.already} were done already"), (outcome.made, f"{outcome.made} are done now"),
              (outcome.cut, f"{outcome.cut} ended early"), (len(outcome.failures), f"{len(outcome.failures)} could not be done")]
    line = " · ".join([f"{outcome.items} files", *(said for count, said in counts if count)])
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(why)}</td></tr>" for name, why in outcome.failures)
    table = f"<table><thead><tr><th>File</th><th>Why not</th></tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    comments = "".join(f"<p>{escape(comment)}</p>" for comment in outcome.comments)
    return f"<p>{line}</p>{table}{comments}"


def stage_html(line: str, fraction: float, jpeg: bytes | None = None) -> str:
    """Live preview, progress bar and one line of text. Contains only numbers and our own words."""
    picture = "" if jpeg is None else f'<img alt="Live preview" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
    return (f'<div class="preview">{picture}</div>'
            f'<div class="bar" role="progressbar" aria-valuenow="{fraction * 100:.0f}"><div style="width:{fraction:.1%}"></div></div>'
            f'<div class="line">{line}</div>')
