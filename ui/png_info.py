"""The tab PNG info: what a picture's file says of how it was made, and the way from there to a mode."""

from dataclasses import dataclass

import gradio as gr

from pipeline.errors import PalimpsestError
from pipeline.img2img import Mode
from pipeline.infotext import read_from_image
from pipeline.uploads import open_file
from ui.controls import QUIET
from ui.editor import PictureInput
from ui.stream import error_toast

NOTHING = "This picture says nothing of how it was made."


@dataclass
class PngInfo:
    """What the tab holds."""

    picture: PictureInput
    infotext: gr.Textbox
    sends: dict[Mode, gr.Button]
    """The buttons that take picture and settings to each mode."""


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
    info = PngInfo(picture, infotext, sends)
    picture.change(lambda file: read(info, file), picture, [infotext, *sends.values()], **QUIET)
    return info


def read(info: PngInfo, file: str | None) -> dict:
    """What the tab shows of a file, or of none."""
    try:
        text = None if file is None else read_from_image(open_file(file, "image"))[0] or NOTHING
    except PalimpsestError as error:
        raise error_toast(str(error)) from error
    return {info.infotext: text} | {button: gr.Button(interactive=file is not None) for button in info.sends.values()}
