"""The modes' tabs: their inputs, and samples to start with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.img2img import Mode
from pipeline.masking import create_binary_mask
from ui.canvas import Canvas, Shown
from ui.controls import Controls
from ui.editor import (
    read_painted,
    read_picture,
    read_sketch,
    read_sketch_and_original,
    read_uploaded,
)
from ui.events import QUEUED
from ui.restore import updates

TAB_LABELS = {Mode.IMG2IMG: "img2img", Mode.SKETCH: "Sketch", Mode.INPAINT: "Inpaint", Mode.INPAINT_SKETCH: "Inpaint sketch",
              Mode.INPAINT_UPLOAD: "Inpaint upload"}
MASKED = (Mode.INPAINT, Mode.INPAINT_SKETCH, Mode.INPAINT_UPLOAD)
"""Modes that have mask settings."""
KINDS = {Mode.IMG2IMG: "picture", Mode.SKETCH: "paint", Mode.INPAINT: "mask", Mode.INPAINT_SKETCH: "paint", Mode.INPAINT_UPLOAD: "mask"}
"""What is painted on a mode's canvas; "picture": nothing."""
LABELS = {Mode.IMG2IMG: "Picture", Mode.SKETCH: "Picture: paint what it should become", Mode.INPAINT: "Picture: paint over what should change",
          Mode.INPAINT_SKETCH: "Picture: paint what should be there; only that changes",
          Mode.INPAINT_UPLOAD: "Picture and mask: white is where it should change"}
READERS = {Mode.IMG2IMG: read_picture, Mode.SKETCH: read_sketch, Mode.INPAINT: read_painted,
           Mode.INPAINT_SKETCH: read_sketch_and_original, Mode.INPAINT_UPLOAD: read_uploaded}


@dataclass(frozen=True)
class ModeTab:
    """A mode's canvas, and how to read it."""

    mode: Mode
    canvas: Canvas
    generate: gr.Button
    tab: gr.Tab
    sample_gallery: gr.Gallery
    samples: list["Sample"]

    @property
    def read(self) -> Callable:
        return READERS[self.mode]

    def loaded(self, picture: str, mask: Image.Image | None = None) -> dict[gr.components.Component, Any]:
        """Updates that show a picture in the canvas, with a mask of its size if the tab takes one."""
        if self.mode is Mode.INPAINT and mask is not None:
            mask = create_binary_mask(mask, round=False)
        return {self.canvas: Shown(picture, mask if KINDS[self.mode] == "mask" else None)}


@dataclass(frozen=True)
class Sample:
    """A picture to start with, and settings that suit it."""

    picture: Path
    mask: Path | None
    mode: Mode
    settings: dict


def read_samples(folder: Path) -> list[Sample]:
    """The samples listed in folder/samples.json."""
    rows = json.loads((folder / "samples.json").read_text("utf-8"))
    return [Sample(folder / row.pop("picture"), folder / mask if (mask := row.pop("mask")) else None,
                   Mode(row.pop("tab")), row) for row in rows]


def build_tab(mode: Mode, generate: gr.Button, samples: list[Sample], drafts: Drafts) -> ModeTab:
    """generate: the mode's button, outside the tab."""
    with gr.Tab(TAB_LABELS[mode], id=mode.value, render_children=True, elem_id=f"mode-{mode.value}") as tab:
        kind = KINDS[mode]
        canvas = Canvas(drafts, kind=kind, uploads="upload" if mode is Mode.INPAINT_UPLOAD else "", foresees=mode in MASKED, label=LABELS[mode],
                        elem_id=f"{mode.value.replace('_', '-')}-{'picture' if kind == 'picture' else 'editor'}")
        gallery = gr.Gallery([str(sample.picture) for sample in samples], label="Or start with one of these", columns=8,
                             fit_columns=False, allow_preview=False, object_fit="cover", interactive=False,
                             format="png", buttons=[], elem_id=f"samples-{mode.value}", elem_classes="samples",
                             visible=bool(samples))
    return ModeTab(mode, canvas, generate, tab, gallery, samples)


def wire_samples(tab: ModeTab, controls: Controls) -> None:
    """A click on a sample shows it in its tab and applies its settings."""
    widgets = {controls.named()[name] for sample in tab.samples for name in sample.settings}

    def choose(event: gr.SelectData) -> dict:
        sample = tab.samples[event.index]
        shown = tab.loaded(str(sample.picture), None if sample.mask is None else Image.open(sample.mask))
        return shown | updates(controls, sample.settings)[0]

    tab.sample_gallery.select(choose, None, [tab.canvas, *widgets], **QUEUED)
