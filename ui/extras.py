"""The tab Extras: enlarging finished pictures, one, several, or a folder's."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.extras import Extras, enlarge
from pipeline.geometry import Size
from pipeline.img2img import Mode
from pipeline.limits import Client
from pipeline.loading import ModelStore
from pipeline.metadata import read_metadata
from pipeline.saving import save_image, save_under
from pipeline.small_files import reason
from pipeline.uploads import open_file, open_picture
from pipeline.upscalers.names import Upscalers, Watch
from ui.batch import INPUT, OUTPUT, by_name, files, folder, made, pictures_of
from ui.canvas import SEND, Canvas
from ui.events import QUEUED, QUIET
from ui.fields import Slider
from ui.session import Session, asked_by
from ui.stream import HEARTBEAT, Update, hand_out

EXTRAS = "extras"
"""The tab's id."""
SINGLE, SEVERAL, DIRECTORY = "One picture", "Several", "From directory"
SCALE_BY, SCALE_TO = "Scale by", "Scale to"
NO_FACES = ("Faces are not restored here: GFPGAN and CodeFormer are published only as pickles, which can run code, "
            "and there are no safetensors of them.")


@dataclass(frozen=True)
class ExtrasTab:
    """The tab's components."""

    inputs: dict[str, gr.components.Component]
    """By the names that read() uses."""
    generate: gr.Button
    interrupt: gr.Button
    refresh: gr.Button
    told: gr.HTML
    """What is being done, or was done."""
    gallery: gr.Gallery
    results: gr.State
    """The files of the results."""
    selected: gr.State
    sends: dict[Mode, gr.Button]

    @property
    def picture(self) -> Canvas:
        return self.inputs["picture"]

    @property
    def outputs(self) -> list[gr.blocks.Block]:
        return [self.generate, self.interrupt, self.told, self.gallery, self.results, self.selected, *self.sends.values()]


def build_extras(upscalers: list[str], labels: dict[Mode, str], drafts: Drafts) -> ExtrasTab:
    """upscalers: the names of all. labels: of the modes that results can be sent to."""
    with gr.Row(equal_height=False, elem_id="extras"):
        with gr.Column(min_width=340):
            inputs = build_sources(drafts) | build_enlarging(upscalers)
            with gr.Row():
                generate = gr.Button("Generate", variant="primary", elem_id="generate-extras")
                interrupt = gr.Button("Interrupt", variant="stop", visible=False, elem_id="interrupt-extras")
                refresh = gr.Button("Refresh", elem_id="extras-refresh", elem_classes="sign")
            gr.Markdown(NO_FACES, elem_id="extras-faces")
        with gr.Column(min_width=340):
            gallery = gr.Gallery(label="Result", height=430, columns=3, object_fit="contain", preview=True, interactive=False, elem_id="extras-results")
            told = gr.HTML("", elem_id="extras-told")
            with gr.Row(elem_classes="sends"):
                sends = {mode: gr.Button(f"Send to {label}", size="sm", interactive=False, min_width=90, elem_id=f"extras-to-{mode.value}")
                         for mode, label in labels.items()}
    return ExtrasTab(inputs, generate, interrupt, refresh, told, gallery, gr.State([]), gr.State(0), sends)


def build_sources(drafts: Drafts) -> dict[str, gr.components.Component]:
    source = gr.Radio([SINGLE, SEVERAL, DIRECTORY], value=SINGLE, show_label=False, container=False, elem_id="extras-source")
    with gr.Column() as one:
        picture = Canvas(drafts, kind="picture", label="Picture to enlarge", elem_id="extras-picture")
    with gr.Column(visible=False) as several:
        pictures = files("Pictures", "extras-files")
    with gr.Column(visible=False) as directory:
        inputs = gr.Textbox(label=INPUT, max_lines=1, placeholder="A folder on the machine that runs Palimpsest", elem_id="extras-input-directory")
        outputs = gr.Textbox(label=OUTPUT, max_lines=1, placeholder="Empty: where other results are saved", elem_id="extras-output-directory")
    parts = {SINGLE: one, SEVERAL: several, DIRECTORY: directory}
    source.change(lambda chosen: [gr.Column(visible=name == chosen) for name in parts], source, list(parts.values()), **QUEUED)
    return {"source": source, "picture": picture, "files": pictures, "input_directory": inputs, "output_directory": outputs}


def build_enlarging(upscalers: list[str]) -> dict[str, gr.components.Component]:
    """The widgets of Extras' fields, by those names."""
    mode = gr.Radio([SCALE_BY, SCALE_TO], value=SCALE_BY, type="index", show_label=False, container=False, elem_id="extras-mode")
    scale = Slider(1, 8, value=4, step=0.05, label="Scale", elem_id="extras-scale")
    with gr.Row(visible=False) as size:
        width = Slider(64, 4096, value=512, step=8, label="Width", elem_id="extras-width")
        height = Slider(64, 4096, value=512, step=8, label="Height", elem_id="extras-height")
        crop = gr.Checkbox(True, label="Crop to fit", elem_id="extras-crop")
    mode.change(lambda chosen: (gr.Slider(visible=not chosen), gr.Row(visible=bool(chosen))), mode, [scale, size], **QUEUED)
    with gr.Row():
        first = gr.Dropdown(upscalers, value=upscalers[1], label="Upscaler 1", elem_id="extras-upscaler-1")
        second = gr.Dropdown(upscalers, value=upscalers[0], label="Upscaler 2", elem_id="extras-upscaler-2")
    visibility = Slider(0, 1, value=0, step=0.05, label="Upscaler 2 visibility", elem_id="extras-visibility")
    return {"resize_mode": mode, "upscaling_resize": scale, "upscaling_resize_w": width, "upscaling_resize_h": height, "upscaling_crop": crop,
            "upscaler_1": first, "upscaler_2": second, "extras_upscaler_2_visibility": visibility}


def wire_extras(tab: ExtrasTab, engine: Engine, models: ModelStore, session: Session, outputs: str) -> None:
    """outputs: the folder to save results in."""
    stops: dict[str, Event] = {}
    upscalers = Upscalers(models.catalog, engine.upscale)
    tab.generate.click(asked_by(partial(run, tab, engine, upscalers, outputs, stops)), [session.client, *tab.inputs.values()], tab.outputs, js=SEND, **QUEUED)
    tab.interrupt.click(partial(stop, stops), session.client, None, **QUIET)
    tab.gallery.select(selected, None, tab.selected, **QUEUED)

    def found_again() -> list[gr.Dropdown]:
        models.catalog.refresh()
        return [gr.Dropdown(choices=upscalers.names())] * 2

    tab.refresh.click(found_again, None, [tab.inputs["upscaler_1"], tab.inputs["upscaler_2"]], **QUEUED)


def selected(event: gr.SelectData) -> int:
    return event.index


def stop(stops: dict[str, Event], browser: str) -> None:
    """End the browser's run after the current tile."""
    if browser in stops:
        stops[browser].set()


@dataclass(frozen=True)
class Work:
    """What the tab's inputs ask for."""

    extras: Extras
    pictures: list[Path]
    folder: Path | None
    """To save in, under the pictures' names; None: the outputs folder."""


def read(asked: dict[str, Any]) -> Work:
    """Raises InvalidRequest."""
    extras = Extras(**{name: value for name, value in asked.items() if name in Extras.__dataclass_fields__})
    if asked["source"] == SINGLE:
        picture, _ = asked["picture"]
        if picture is None:
            raise InvalidRequest("image", "image: no picture is given; add one to enlarge")
        return Work(extras, [Path(picture)], None)
    if asked["source"] == SEVERAL:
        if not asked["files"]:
            raise InvalidRequest("imageList", "imageList: no pictures are given; add some to enlarge")
        return Work(extras, by_name(asked["files"]), None)
    source, target = folder(INPUT, asked["input_directory"]), made(asked["output_directory"])
    if target == source:
        raise InvalidRequest("output_directory", f"{OUTPUT}: this is the input directory, so results would become "
                                                 "inputs next time; choose another one")
    return Work(extras, [file for file in pictures_of(INPUT, source) if target is None or not file.is_relative_to(target)], target)


def run(tab: ExtrasTab, engine: Engine, upscalers: Upscalers, outputs: str, stops: dict[str, Event], client: Client,
        *values: Any) -> Iterator[Update]:
    """The Generate button's handler: updates on each tile, and at last the results."""
    work = read(dict(zip(tab.inputs, values, strict=True)))
    work.extras.check(upscalers)
    ended = stops[client.id] = Event()
    news: SimpleQueue = SimpleQueue()
    Thread(target=enlarge_all, args=(work, engine, upscalers, outputs, ended, news), daemon=True).start()
    yield {tab.generate: gr.Button(visible=False), tab.interrupt: gr.Button(visible=True), tab.told: "", tab.gallery: [], tab.results: [],
           tab.selected: 0}
    results: list[str] = []
    try:
        for told in iter(partial(next_of, news), None):
            if isinstance(told, Path):
                results.append(hand_out(told, tab.gallery))
                yield {tab.gallery: list(results), tab.results: list(results)}
            elif isinstance(told, str):
                yield {tab.told: told} if told else {}
            else:
                break
    finally:
        ended.set()
        stops.pop(client.id, None)
    yield {tab.generate: gr.Button(visible=True), tab.interrupt: gr.Button(visible=False)} | {
        button: gr.Button(interactive=bool(results)) for button in tab.sends.values()}
    if isinstance(told, Exception):
        raise told


def next_of(news: SimpleQueue) -> Any:
    """The next piece of news; "" if there is none for a while, so that a closed page is noticed."""
    try:
        return news.get(timeout=HEARTBEAT)
    except Empty:
        return ""


def enlarge_all(work: Work, engine: Engine, upscalers: Upscalers, outputs: str, ended: Event, news: SimpleQueue) -> None:
    """Put sentences on the progress, the path of each saved result, and last None or an exception, into `news`."""
    count = len(work.pictures)

    def watch(number: int, done: int, tiles: int) -> bool:
        news.put(f"<p>Enlarging picture {number} of {count} ·  {done / tiles:.0%}</p>")
        return not ended.is_set()

    try:
        for number, file in enumerate(work.pictures, 1):
            if ended.is_set():
                break
            image = enlarged(file, work.extras, engine, upscalers, partial(watch, number))
            if ended.is_set():  # what an interrupted upscaler leaves is not what was asked for
                break
            news.put(Path(save_image(image, outputs, name="enlarged") if work.folder is None else
                          save_under(image, work.folder, stem=file.stem)))
        news.put("<p>Interrupted.</p>" if ended.is_set() else f"<p>{escape(work.extras.infotext)}</p>")
        news.put(None)
    except OSError as error:
        news.put(PalimpsestError(f"A picture could not be saved: {reason(error)}."))
    except Exception as error:  # told on the page's own thread
        news.put(error)


def enlarged(file: Path, extras: Extras, engine: Engine, upscalers: Upscalers, watch: Watch) -> Image.Image:
    """A file's picture enlarged, with its infotext, and in "postprocessing" how it was enlarged. Raises InvalidRequest, ModelError."""
    with engine.shelf.reading(extras.pixels_in_use(Size(*open_file(file, "image").size)), "image"):
        found = read_metadata(file, "image")
        image = enlarge(open_picture(file, "image").image, extras, upscalers, engine.options, watch)
        image.info = {"parameters": found.infotext, "postprocessing": extras.infotext}
        return image
