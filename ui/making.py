"""The tab in which pictures are made: prompts, modes and settings on the left, what comes of them on the right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import EventListener

from pipeline.engine import Engine
from pipeline.families.base import ModelInfo
from pipeline.img2img import Mode
from pipeline.loading import ModelStore
from ui.controls import (QUEUED, QUIET, Controls, build_generation_controls, build_mask_controls, build_model_menus,
                         build_prompts, checkpoint_choices, vae_choices)
from ui.picker import build_picker, listed, wire_picker
from ui.session import Session
from ui.stream import Folders, Panel, Update, load_model, run
from ui.tabs import TAB_LABELS, ModeTab, Sample, build_panel, build_tab, wire_panel, wire_samples

MAKE = "make"
"""The tab's id in the page."""


@dataclass(frozen=True)
class Making:
    """The tab in which pictures are made."""

    controls: Controls
    modes: dict[Mode, ModeTab]
    panel: Panel
    pages: gr.Tabs
    tabs: gr.Tabs

    @property
    def files(self) -> list[gr.components.Component]:
        """The picture components of all modes."""
        return [file for tab in self.modes.values() for file in tab.files]

    def bring(self, click: EventListener, mode: Callable[..., Mode], chosen: list[gr.State], fill: Callable[..., Update],
              inputs: list[gr.blocks.Block]) -> None:
        """Wire a button that brings a picture, and settings with it, into a mode.

        mode: which one, of what `chosen` hold; it may raise. fill: what `inputs` become, of what these hold then.
        One step after the other: a mask editor that is not on show yet would lose its picture.
        """
        def open_page(*values: Any) -> gr.Tabs:
            mode(*values)
            return gr.Tabs(selected=MAKE)

        click(open_page, chosen, self.pages, **QUIET).success(
            lambda *values: gr.Tabs(selected=mode(*values).value), chosen, self.tabs, **QUIET).success(
            fill, inputs, [*self.controls.named().values(), *self.files], **QUEUED)


def build_making(engine: Engine, models: ModelStore, info: ModelInfo, samples: list[Sample], pages: gr.Tabs, title: gr.HTML,
                 session: Session, folders: Folders) -> Making:
    with gr.Row(elem_id="models", elem_classes="with-refresh"):
        menus = build_model_menus(models)
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=72, elem_id="refresh-models")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=340):
            widgets = menus | build_prompts()
            picker = build_picker()
            with gr.Tabs(selected=Mode.IMG2IMG.value) as tabs:
                modes = {mode: build_tab(mode, [s for s in samples if s.mode is mode]) for mode in TAB_LABELS}
            with gr.Accordion("Mask", visible=False) as mask_settings:
                widgets |= build_mask_controls()
            with gr.Accordion("Settings"):
                widgets |= build_generation_controls(info.native_size)
        with gr.Column(scale=5, min_width=340, elem_id="results"):
            panel, sends = build_panel([tab.generate for tab in modes.values()])
    making = Making(Controls(**widgets), modes, panel, pages, tabs)
    controls = making.controls
    gr.on([menu.input for menu in menus.values()], partial(load_model, engine, models), outputs=title, inputs_kwargs=menus,
          concurrency_limit=None, show_progress="hidden", api_visibility="private")
    wire_picker(picker, models.catalog, controls.prompt, controls.negative_prompt)
    gr.on([refresh.click, picker.refresh.click], partial(listed_anew, models), picker.part,
          [*menus.values(), *picker.lists], **QUIET)
    for mode, tab in modes.items():
        tab.generate.click(partial(run, engine, mode, panel, folders, tab.read), inputs=[session.client, *tab.files],
                           inputs_kwargs=controls.named(), outputs=panel.outputs, concurrency_limit=None,
                           show_progress="hidden", api_visibility="private")
        tab.tab.select(lambda shown: gr.Accordion(visible=shown), gr.State(mode is not Mode.IMG2IMG), mask_settings, **QUIET)
        wire_samples(tab, controls)
        making.bring(sends[mode].click, partial(with_result, mode), [panel.results],
                     lambda results, selected, tab=tab: tab.loaded(results[selected][0]), [panel.results, panel.selected])
    wire_panel(panel, engine)
    return making


def listed_anew(models: ModelStore, part: str) -> list[gr.components.Component]:
    """The menus and the picker's lists as the models folder is now."""
    models.catalog.refresh()
    return [gr.Dropdown(checkpoint_choices(models)), gr.Dropdown(vae_choices(models)), *listed(models.catalog, part)]


def with_result(mode: Mode, results: list) -> Mode:
    """The mode, where there is a result to bring there."""
    if not results:
        raise gr.Error("There is no result yet to use.", print_exception=False)
    return mode
