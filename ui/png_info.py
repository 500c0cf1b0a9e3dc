"""The tab PNG info: a picture file's generation data, sending it to a mode, and verifying it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import gradio as gr
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.foreign import mended
from pipeline.img2img import Mode
from pipeline.infotext import RECEIPT
from pipeline.job import Event, Step
from pipeline.limits import Client
from pipeline.metadata import Metadata, metadata_of
from pipeline.models import Catalog
from pipeline.receipt import read_receipt
from pipeline.seam import way_of
from pipeline.uploads import count_pixels, load_file
from pipeline.verify import Verdict, read_claim, refusal, request_again, verify
from ui.canvas import SEND, Canvas
from ui.editor import File
from ui.events import QUEUED
from ui.session import Session, asked_by
from ui.stream import HEARTBEAT

NOTHING = "This picture has no generation data."


@dataclass
class PngInfo:
    """The tab's components."""

    picture: Canvas
    infotext: gr.State
    """The file's generation data, or None."""
    shown: gr.Textbox
    """The same, formatted for reading."""
    sends: dict[Mode, gr.Button]
    """The buttons that send picture and settings to each mode."""
    to_extras: gr.Button | None
    """The button that sends the picture to Extras; None: there is no such tab."""
    other: gr.Textbox
    """The file's other data, and what could not be read."""
    receipt: gr.Textbox
    """The receipt's content, then the result of verifying it."""
    verify: gr.Button


def build_png_info(labels: dict[Mode, str], drafts: Drafts, *, extras: bool) -> PngInfo:
    """labels: of the modes that a picture can be sent to. extras: whether to the tab Extras too."""
    with gr.Row(equal_height=False, elem_id="png-info"):
        with gr.Column(min_width=340):
            picture = Canvas(drafts, kind="picture", label="Any picture made by A1111, Forge, ComfyUI or another program",
                             elem_id="png-info-picture")
        with gr.Column(min_width=340):
            infotext = gr.State()
            shown = gr.Textbox(label="Parameters", lines=8, max_lines=20, buttons=["copy"], interactive=False,
                               elem_id="png-info-text", placeholder="How the picture was made, once there is one")
            with gr.Row(elem_classes="sends"):
                sends = {mode: gr.Button(f"Send to {label}", size="sm", interactive=False, min_width=90, elem_id=f"png-info-to-{mode.value}")
                         for mode, label in labels.items()}
                to_extras = gr.Button("Send to Extras", size="sm", interactive=False, min_width=90, elem_id="png-info-to-extras") if extras else None
            other = gr.Textbox(label="Other data in the file", lines=2, max_lines=12, interactive=False, visible=False,
                               buttons=["copy"], elem_id="png-info-other")
            receipt = gr.Textbox(label="Receipt", lines=2, max_lines=6, interactive=False, elem_id="png-info-receipt",
                                 placeholder="Pictures saved by Palimpsest have one")
            again = gr.Button("Verify: make it again and compare", size="sm", interactive=False, elem_id="png-info-verify")
    return PngInfo(picture, infotext, shown, sends, to_extras, other, receipt, again)


def wire_png_info(info: PngInfo, engine: Engine, catalog: Catalog, session: Session, *, shared: bool) -> None:
    """Handlers for dropping a picture and for Verify."""
    verified = info.verify.click(asked_by(partial(verdict_on, engine, catalog, not shared)), [session.client, info.picture],
                                 info.receipt, js=SEND, **QUEUED)
    gr.on([info.picture.upload, info.picture.clear], partial(read, info, engine), info.picture,
          [info.infotext, info.shown, info.other, info.receipt, info.verify, *passing(info)], js=SEND, cancels=verified, **QUEUED)


def passing(info: PngInfo) -> list[gr.Button]:
    """The buttons that send the picture somewhere."""
    return [*info.sends.values(), *([info.to_extras] if info.to_extras else [])]


def read(info: PngInfo, engine: Engine, files: tuple[File, File]) -> dict:
    """The tab's content for a file, or for none."""
    file, _ = files
    text, other, said, sound = None, "", "", False
    if file is not None:
        with engine.shelf.reading(count_pixels(file, "image"), "image"):
            image, notes = load_file(file, "image")
            found = metadata_of(image, notes)
            said, sound = what_receipt_says(image)
        text, other = found.infotext or None, what_else(found)
    buttons = {button: gr.Button(interactive=file is not None) for button in passing(info)}
    shown = NOTHING if file is not None and text is None else text
    return {info.infotext: text, info.shown: shown, info.other: gr.Textbox(other, visible=bool(other)), info.receipt: said,
            info.verify: gr.Button(interactive=sound)} | buttons


def what_else(found: Metadata) -> str:
    """A file's texts other than infotext and receipt, one below the other; JSON is indented."""
    texts = [f"{name}: {spread_out(value)}" for name, value in found.items.items() if isinstance(value, str) and name != RECEIPT]
    said = [f"Read from {found.program}'s data."] if found.program and found.infotext else []
    return "\n".join([*said, *found.notes, *texts])


def spread_out(text: str) -> str:
    try:
        return mended(json.dumps(json.loads(text), indent=1, ensure_ascii=False)) if text.startswith(("{", "[")) else text
    except (ValueError, RecursionError):
        return text


def what_receipt_says(image: Image.Image) -> tuple[str, bool]:
    """(a line on a picture's receipt, whether it can be verified)."""
    try:
        receipt = read_receipt(image)
    except ValueError:
        return "Its receipt is damaged.", False
    if receipt is None:
        if way_of(image.info.get("parameters")):
            return "This picture has no receipt: its seam was blended after it was made.", False
        return "This picture has no receipt.", False
    by = f"Palimpsest {receipt.program} with torch {receipt.packages.get('torch')}"
    return f"Made by {by} on {receipt.device}, in {receipt.precision}.", True


def verdict_on(engine: Engine, catalog: Catalog, thorough: bool, client: Client, files: tuple[File, File]) -> Iterator[str]:
    """Lines on the progress of verifying a picture, and last its verdict. Nothing is saved or recorded in history."""
    file, _ = files
    find = (lambda name: None) if engine.journal is None else engine.journal.originals.open
    try:
        with engine.shelf.reading(count_pixels(file, "image"), "image"):
            claim = read_claim(file)
        p = request_again(claim.receipt, catalog, find, thorough=thorough)
        for event in verify(claim, p, engine, client, HEARTBEAT):
            yield line_on(event)
    except PalimpsestError as error:
        yield refusal(error).sentence


def line_on(event: Event | Verdict) -> str:
    if isinstance(event, Verdict):
        return event.sentence
    return f"Making it again ·  {event.fraction:.0%}" if isinstance(event, Step) else "Waiting to be made again"
