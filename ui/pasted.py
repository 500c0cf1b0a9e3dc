"""Reads generation data, pasted into the prompt, into the widgets."""

from dataclasses import dataclass

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.infotext import split
from pipeline.loading import ModelStore
from ui.controls import Controls, changing_menus
from ui.events import QUEUED
from ui.restore import restored, settings_in
from ui.stream import Panel, Update
from ui.visit import Visit

EXAMPLE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


@dataclass(frozen=True)
class Reading:
    """The buttons that read generation data."""

    read: gr.Button
    """The button beside the prompt."""
    accept: gr.Button
    """The button in the offer that web/offer.js shows when a pasted text looks like generation data."""


def build_offer(read: gr.Button) -> Reading:
    """read: the button beside the prompt. The offer appears below both."""
    with gr.Row(elem_id="offer"):
        gr.Markdown("This looks like generation data.")
        accept = gr.Button("Apply to the settings", size="sm", variant="primary", min_width=120, elem_id="offer-read")
        gr.Button("Keep as text", size="sm", min_width=120, elem_id="offer-keep")
    return Reading(read, accept)


def wire_reading(reading: Reading, controls: Controls, panel: Panel, engine: Engine, models: ModelStore) -> None:
    def fill(prompt: str, results: Visit, selected: int) -> Update:
        text = prompt if prompt.strip() or not results else results[selected].infotext
        check(text)
        settings = settings_in(text, controls, models.catalog, engine.options, engine.styles)
        return restored(controls, settings, changing_menus(models, engine.styles))

    gr.on([reading.read.click, reading.accept.click], fill, [controls.prompt, panel.results, panel.selected],
          list(controls.named().values()), **QUEUED)


def check(text: str) -> None:
    """Raise PalimpsestError if a text has no generation data."""
    if not text.strip():
        raise PalimpsestError("Paste the generation data of a picture into the prompt first.")
    if not split(text)[2]:
        raise PalimpsestError(f'The prompt contains no generation data: its last line should look like "{EXAMPLE}".')
