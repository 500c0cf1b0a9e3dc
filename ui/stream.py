"""From the engine's events to what the page shows while a picture forms and when it is done."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import singledispatchmethod
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from pipeline.engine import Engine, Event, Failed, Finished, Queued, Step
from pipeline.errors import Cancelled, PalimpsestError
from pipeline.geometry import Size
from pipeline.img2img import Mode, img2img
from pipeline.loading import ModelStore
from pipeline.options import Options
from pipeline.previews import to_jpeg
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img
from pipeline.saving import save_image
from ui.editor import Pair, Reader
from ui.restore import options_in

HEARTBEAT = 1.0
"""Seconds after which a silent job is shown again, so that a page that is gone is noticed."""

PREVIEW_SIZE = Size(512, 512)
"""Previews are enlarged to fit this."""

ONLY_OPTIONS = {f.name for f in fields(Options)} - {f.name for f in fields(StableDiffusionProcessingImg2Img)}
"""Options that are no fields of a request: what the page sets of them goes with the request as override_settings."""

Update = dict[gr.blocks.Block, Any]


@dataclass(frozen=True)
class Folders:
    """Where results are saved."""

    samples: str
    grids: str


@dataclass
class Panel:
    """The right side of the page: what is happening, then what came of it."""

    stage: gr.HTML
    """Live preview and progress line, shown while a job runs."""
    gallery: gr.Gallery
    infotext: gr.Textbox
    interrupt: gr.Button
    skip: gr.Button
    job_id: gr.State
    """Of the job that this page watches, or None."""
    results: gr.State
    """list of (file, infotext) as the gallery shows them."""
    selected: gr.State
    """Index into results."""
    generates: list[gr.Button]
    """One a tab; they rest while a job of this page runs, so that Interrupt always means that one."""

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        return [self.stage, self.gallery, self.infotext, self.interrupt, self.skip, self.job_id, self.results, self.selected,
                *self.generates]

    def start(self, job_id: str) -> Update:
        return {self.job_id: job_id, self.stage: gr.HTML(stage_html("Starting", 0.0), visible=True),
                self.gallery: gr.Gallery(visible=False)} | self._buttons(running=True)

    def idle(self) -> Update:
        return {self.job_id: None, self.stage: gr.HTML("", visible=False),
                self.gallery: gr.Gallery(visible=True)} | self._buttons(running=False)

    def _buttons(self, *, running: bool) -> Update:
        return {button: gr.Button(interactive=running) for button in (self.interrupt, self.skip)} | {
            button: gr.Button(interactive=not running) for button in self.generates}

    @singledispatchmethod
    def render(self, event: Event) -> Update:
        """What an event changes on the page."""
        raise TypeError(f"no such event: {event!r}")

    @render.register
    def _(self, event: Queued) -> Update:
        waiting = f"In queue, place {event.place}" if event.place else "Starting"
        line = f"Loading the model · {event.fraction:.0%}" if event.loading else waiting
        return {self.stage: gr.HTML(stage_html(line, event.fraction))}

    @render.register
    def _(self, event: Step) -> Update:
        batch = f"picture {event.batch} of {event.batches} · " if event.batches > 1 else ""
        line = (f"{batch}step {event.step}/{event.steps} · {event.fraction:.0%} · {event.elapsed:.1f} s · "
                f"about {event.eta:.1f} s left" if event.fraction else "Reading picture and prompt")
        jpeg = None if event.preview is None else to_jpeg(event.preview, PREVIEW_SIZE)
        return {self.stage: gr.HTML(stage_html(line, event.fraction, jpeg))}

    @render.register
    def _(self, event: Finished) -> Update:
        processed = event.results[0]
        return self.idle() | self.show([(path or save_image(image, self.gallery.GRADIO_CACHE, name="unsaved"), text)
                                        for path, image, text in zip(processed.paths, processed.images, processed.infotexts)])

    def show(self, pictures: list[tuple[str, str]]) -> Update:
        """Pictures as results: (file, infotext) each."""
        files = [(hand_out(path, self.gallery), text) for path, text in pictures]
        return {self.gallery: gr.Gallery([file for file, _ in files], visible=True, selected_index=0 if files else None),
                self.infotext: files[0][1] if files else "", self.results: files, self.selected: 0}


def run(engine: Engine, mode: Mode, panel: Panel, folders: Folders, read: Callable[..., Pair], client: str, *files: Any,
        **settings: Any) -> Iterator[Update]:
    """The one event handler: every tab's Generate button ends here.

    client: the browser that asks; files: what the tab's picture components hold; settings: the controls by name.
    """
    job_id = uuid4().hex
    reader = Reader()
    try:
        overrides = options_in(settings.pop("override_settings"), engine.options)
        overrides |= {name: settings.pop(name) for name in ONLY_OPTIONS & settings.keys()}
        source = read(reader, *files)
        events = img2img(engine, mode, source, job_id=job_id, client=client, heartbeat=HEARTBEAT, cancels=False,
                         outpath_samples=folders.samples, outpath_grids=folders.grids, override_settings=overrides, **settings)
    except PalimpsestError as error:
        raise error_toast(str(error)) from error
    yield panel.start(job_id)
    for note in reader.notes:
        gr.Info(note)
    yield from follow(panel, events)


def follow(panel: Panel, events: Iterator[Event]) -> Iterator[Update]:
    """What a job's events show, to its end. The job goes on where the page is closed meanwhile."""
    for event in events:
        if isinstance(event, Failed):
            yield panel.idle()
            raise error_toast(event.message)
        yield panel.render(event)
        if isinstance(event, Finished):
            tell(event.results[0])


def load_model(engine: Engine, models: ModelStore, **chosen: str) -> Iterator[str]:
    """Load what a page has chosen, as soon as nobody waits for a picture; the title line tells how that stands."""
    try:
        options = engine.options.override(chosen)
        title = models.find(options)[0].title
    except PalimpsestError as error:
        raise error_toast(str(error)) from error
    yield title_html(f"{title} · waiting to be loaded")
    for event in engine.preload(options).events(HEARTBEAT):
        match event:
            case Queued():
                yield title_html(f"{title} · loading, {event.fraction:.0%}")
            case Finished():
                yield title_html(models.find(options)[0].title)  # by now with its hash
            case Failed(error=Cancelled()):
                yield title_html(f"{title} · loaded when it is needed")
            case Failed():
                yield title_html(f"{title} · not loaded")
                raise error_toast(event.message)


def title_html(model: str) -> str:
    """The page's title line."""
    return f'<h1>Palimpsest</h1><span class="model">{escape(model)}</span>'


def error_toast(sentence: str) -> gr.Error:
    """The sentence as the page shows it: toasts are HTML, and a sentence may hold what somebody typed."""
    return gr.Error(escape(sentence, quote=False), print_exception=False)


def tell(processed: Processed) -> None:
    """What the person should know about a result."""
    for comment in processed.comments:
        gr.Info(escape(comment, quote=False))
    if processed.interrupted:
        gr.Info("Interrupted: this is the picture so far." if processed.images else "Interrupted before there was a picture.")


def hand_out(path: str | Path, component: gr.components.Component) -> str:
    """A copy of a picture, byte for byte, where Gradio may serve it from: folders of results are never opened."""
    return save_file_to_cache(path, component.GRADIO_CACHE)


def stage_html(line: str, fraction: float, jpeg: bytes | None = None) -> str:
    """Live preview, progress bar and one line of text. Only numbers and our own words go in."""
    picture = "" if jpeg is None else f'<img alt="Live preview" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
    return (f'<div class="preview">{picture}</div>'
            f'<div class="bar" role="progressbar" aria-valuenow="{fraction * 100:.0f}"><div style="width:{fraction:.1%}"></div></div>'
            f'<div class="line">{line}</div>')
