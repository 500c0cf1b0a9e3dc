"""Where pictures are made: one tab per mode on the left, what comes of it on the right."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.engine import Engine
from pipeline.img2img import Mode
from ui.controls import QUIET, Controls
from ui.editor import MaskEditor, PictureInput, read_painted, read_picture, read_uploaded
from ui.restore import updates
from ui.stream import Panel

TAB_LABELS = {Mode.IMG2IMG: "img2img", Mode.INPAINT: "Inpaint", Mode.INPAINT_UPLOAD: "Inpaint upload"}
BRUSH = "#f43f5e"


@dataclass(frozen=True)
class ModeTab:
    """What one mode needs: its picture components and how they are read."""

    mode: Mode
    read: Callable
    files: list[gr.components.Component]
    generate: gr.Button
    tab: gr.Tab
    sample_gallery: gr.Gallery
    samples: list["Sample"]

    def loaded(self, picture: str, mask: str | None = None) -> dict[gr.components.Component, Any]:
        """What shows a picture in `files`, and a mask where the tab takes one."""
        if self.mode is Mode.INPAINT:
            layers = [] if mask is None else [as_strokes(Image.open(mask))]
            return {self.files[0]: {"background": picture, "layers": layers, "composite": None}}
        return dict(zip(self.files, [picture, mask]))


def as_strokes(mask: Image.Image) -> Image.Image:
    """A mask as if it had been painted: the brush's colour where it is white, clear elsewhere."""
    strokes = Image.new("RGBA", mask.size, BRUSH)
    strokes.putalpha(mask.convert("L").point(lambda v: 255 if v > 128 else 0))
    return strokes


@dataclass(frozen=True)
class Sample:
    """A picture to begin with, and the settings that do something nice with it."""

    picture: Path
    mask: Path | None
    mode: Mode
    settings: dict


def read_samples(folder: Path) -> list[Sample]:
    """The samples listed in folder/samples.json."""
    rows = json.loads((folder / "samples.json").read_text("utf-8"))
    return [Sample(folder / row.pop("picture"), folder / mask if (mask := row.pop("mask")) else None,
                   Mode(row.pop("tab")), row) for row in rows]


def build_tab(mode: Mode, samples: list[Sample]) -> ModeTab:
    with gr.Tab(TAB_LABELS[mode], id=mode.value, render_children=True) as tab:
        if mode is Mode.INPAINT:
            # An empty canvas as small as can be: the editor centres a mask in it when it is larger than the picture.
            files = [MaskEditor(label="Picture: paint over what should change", height=430, format="png", layers=False,
                                transforms=(), sources=("upload", "clipboard"), elem_id="inpaint-editor", canvas_size=(1, 1),
                                placeholder="Drop a picture here, or click to choose one",
                                brush=gr.Brush(default_size=24, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"))]
            read = read_painted
        elif mode is Mode.INPAINT_UPLOAD:
            with gr.Row():
                files = [picture_input("Picture", "upload-picture"),
                         picture_input("Mask: white is where it should change", "upload-mask")]
            read = read_uploaded
        else:
            files = [picture_input("Picture", "img2img-picture")]
            read = read_picture
        generate = gr.Button("Generate", variant="primary", elem_id=f"generate-{mode.value}")
        gallery = gr.Gallery([str(sample.picture) for sample in samples], label="Samples: click one to begin", columns=8,
                             fit_columns=False, height=120, allow_preview=False, object_fit="cover", interactive=False,
                             format="png", buttons=[], elem_id=f"samples-{mode.value}", elem_classes="samples")
    return ModeTab(mode, read, files, generate, tab, gallery, samples)


def picture_input(label: str, elem_id: str) -> PictureInput:
    return PictureInput(label=label, height=340, format="png", image_mode=None, type="filepath",
                        sources=["upload", "clipboard"], buttons=["fullscreen"], elem_id=elem_id)


def build_panel(generates: list[gr.Button]) -> tuple[Panel, dict[Mode, gr.Button]]:
    """The panel, and the buttons that send its selected picture to each mode."""
    stage = gr.HTML("", visible=False, elem_id="stage")
    gallery = gr.Gallery(label="Result", format="png", columns=3, height=460, object_fit="contain", preview=True,
                         interactive=False, buttons=["download", "fullscreen"], elem_id="gallery")
    with gr.Row():
        interrupt = gr.Button("Interrupt", interactive=False, elem_id="interrupt")
        skip = gr.Button("Skip", interactive=False, elem_id="skip")
    with gr.Row():
        sends = {mode: gr.Button(f"Use in {label}", size="sm", elem_id=f"use-in-{mode.value}")
                 for mode, label in TAB_LABELS.items()}
    infotext = gr.Textbox(label="Infotext", lines=4, max_lines=12, buttons=["copy"], interactive=False,
                          elem_id="infotext")
    return Panel(stage, gallery, infotext, interrupt, skip, gr.State(), gr.State([]), gr.State(0),
                 generates), sends


def wire_samples(tab: ModeTab, controls: Controls) -> None:
    """A click on a sample shows it in its tab and sets what its settings name."""
    widgets = {controls.named()[name] for sample in tab.samples for name in sample.settings}

    def choose(event: gr.SelectData) -> dict:
        sample = tab.samples[event.index]
        shown = tab.loaded(str(sample.picture), None if sample.mask is None else str(sample.mask))
        return shown | updates(controls, sample.settings)

    tab.sample_gallery.select(choose, None, [*tab.files, *widgets], **QUIET)


def wire_panel(panel: Panel, engine: Engine) -> None:
    panel.interrupt.click(lambda job_id: job_id and engine.interrupt(job_id), panel.job_id, None, **QUIET)
    panel.skip.click(lambda job_id: job_id and engine.skip(job_id), panel.job_id, None, **QUIET)

    def select(results: list, event: gr.SelectData) -> tuple[int, str]:
        return event.index, results[event.index][1]

    panel.gallery.select(select, panel.results, [panel.selected, panel.infotext], **QUIET)
