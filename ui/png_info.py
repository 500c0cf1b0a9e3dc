"""The tab PNG info: what a picture's file says of how it was made, the way from there to a mode, and whether it is true."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import gradio as gr
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.img2img import Mode
from pipeline.infotext import read_from_image
from pipeline.job import Event, Step
from pipeline.limits import Client
from pipeline.models import Catalog
from pipeline.receipt import read_receipt
from pipeline.uploads import open_file
from pipeline.verify import Verdict, read_claim, refusal, request_again, verify
from ui.editor import PictureInput
from ui.events import QUEUED
from ui.session import Session, asked_by
from ui.stream import HEARTBEAT

NOTHING = "This picture says nothing of how it was made."


@dataclass
class PngInfo:
    """What the tab holds."""

    picture: PictureInput
    infotext: gr.Textbox
    sends: dict[Mode, gr.Button]
    """The buttons that take picture and settings to each mode."""
    receipt: gr.Textbox
    """What the receipt says, then what came of verifying it."""
    verify: gr.Button


def build_png_info(labels: dict[Mode, str]) -> PngInfo:
    with gr.Row(equal_height=False):
        with gr.Column(min_width=340):
            picture = PictureInput(label="Any picture made by A1111, Forge or Palimpsest", height=430, format="png",
                                   image_mode=None, type="filepath", sources=["upload", "clipboard"], buttons=["fullscreen"],
                                   elem_id="png-info-picture")
        with gr.Column(min_width=340):
            infotext = gr.Textbox(label="Parameters", lines=8, max_lines=20, buttons=["copy"], interactive=False,
                                  elem_id="png-info-text", placeholder="Drop a picture on the left")
            with gr.Row():
                sends = {mode: gr.Button(f"Send to {label}", size="sm", interactive=False, elem_id=f"png-info-to-{mode.value}")
                         for mode, label in labels.items()}
            receipt = gr.Textbox(label="Receipt", lines=2, max_lines=6, interactive=False, elem_id="png-info-receipt",
                                 placeholder="Pictures that Palimpsest has saved carry one")
            again = gr.Button("Verify: make it again and compare", size="sm", interactive=False, elem_id="png-info-verify")
    return PngInfo(picture, infotext, sends, receipt, again)


def wire_png_info(info: PngInfo, engine: Engine, catalog: Catalog, session: Session, *, shared: bool) -> None:
    """What happens when a picture is dropped, and the button Verify."""
    verified = info.verify.click(asked_by(partial(verdict_on, engine, catalog, not shared)), [session.client, info.picture],
                                 info.receipt, **QUEUED)
    info.picture.change(partial(read, info), info.picture, [info.infotext, info.receipt, info.verify, *info.sends.values()],
                        cancels=verified, **QUEUED)


def read(info: PngInfo, file: str | None) -> dict:
    """What the tab shows of a file, or of none."""
    image = None if file is None else open_file(file, "image")
    text = None if image is None else read_from_image(image)[0] or NOTHING
    said, sound = ("", False) if image is None else what_receipt_says(image)
    buttons = {button: gr.Button(interactive=file is not None) for button in info.sends.values()}
    return {info.infotext: text, info.receipt: said, info.verify: gr.Button(interactive=sound)} | buttons


def what_receipt_says(image: Image.Image) -> tuple[str, bool]:
    """(a line on a picture's receipt, whether it can be verified)."""
    try:
        receipt = read_receipt(image)
    except ValueError:
        return "Its receipt is damaged.", False
    if receipt is None:
        return "It carries none.", False
    by = f"Palimpsest {receipt.program} with torch {receipt.packages.get('torch')}"
    return f"Made by {by} on {receipt.device}, in {receipt.precision}.", True


def verdict_on(engine: Engine, catalog: Catalog, thorough: bool, client: Client, file: str) -> Iterator[str]:
    """A line on how far a picture's verification is, last its verdict. It saves nothing, and history does not know it."""
    find = (lambda name: None) if engine.journal is None else engine.journal.originals.open
    try:
        claim = read_claim(file)
        p = request_again(claim.receipt, catalog, find, thorough=thorough)
        for event in verify(claim, p, engine, client, HEARTBEAT):
            yield line_on(event)
    except PalimpsestError as error:
        yield refusal(error).sentence


def line_on(event: Event | Verdict) -> str:
    if isinstance(event, Verdict):
        return event.sentence
    return f"Being made again · {event.fraction:.0%}" if isinstance(event, Step) else "Waiting to be made again"
