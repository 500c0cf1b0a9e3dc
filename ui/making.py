"""The tab in which pictures are made: prompts, modes and settings on the left, what comes of them on the right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import EventListener

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.families.base import ModelInfo
from pipeline.img2img import Mode
from pipeline.loading import ModelStore
from ui.batch import build_batch, wire_batch
from ui.canvas import SEND, SEND_PICTURES
from ui.controls import (
    Controls,
    build_generation_controls,
    build_mask_controls,
    build_model_menus,
    build_prompts,
    build_scripts,
    build_style_menu,
    checkpoint_choices,
    refiner_choices,
    sees_source,
    vae_choices,
    within_range,
)
from ui.editor import Reader
from ui.events import QUEUED
from ui.exact import run_exactly
from ui.pasted import Reading, build_offer
from ui.picker import Picker, build_picker, listed, wire_picker
from ui.results import Actions, Results, build_results, wire_results
from ui.scripts import build_always_on
from ui.session import Session, asked_by
from ui.stream import Folders, Panel, Update, load_model, run
from ui.styles import build_style_editor, wire_style_editor, wire_styles
from ui.tabs import MASKED, TAB_LABELS, ModeTab, Sample, build_tab, wire_samples
from ui.tokens import wire_counters

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
    reading: Reading

    @property
    def files(self) -> list[gr.components.Component]:
        """The picture components of all modes."""
        return [file for tab in self.modes.values() for file in tab.files]

    def bring(self, click: EventListener, mode: Callable[..., Mode], chosen: list[gr.State], fill: Callable[..., Update],
              inputs: list[gr.blocks.Block]) -> None:
        """Wire a button, such as "Use in Inpaint", that opens a mode and puts a picture and settings into its widgets.

        mode: called with the values of `chosen`, gives the mode to open; where it raises, nothing is opened.
        fill: called with the values of `inputs` once the mode is open, gives the new values of its widgets. Not sooner,
        since a mask editor loses a picture that it is given while it is hidden.
        """
        def open_page(*values: Any) -> gr.Tabs:
            mode(*values)
            return gr.Tabs(selected=MAKE)

        click(open_page, chosen, self.pages, **QUEUED).success(
            lambda *values: gr.Tabs(selected=mode(*values).value), chosen, self.tabs, **QUEUED).success(
            fill, inputs, [*self.controls.named().values(), *self.files], **QUEUED)


def build_making(engine: Engine, models: ModelStore, info: ModelInfo, samples: list[Sample], pages: gr.Tabs, title: gr.HTML,
                 session: Session, folders: Folders, drafts: Drafts, *, shared: bool) -> Making:
    """shared: others use this page too, and change nothing of the server's."""
    styles = engine.styles
    with gr.Row(elem_id="models", elem_classes="with-refresh"):
        menus = build_model_menus(models)
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=72, elem_id="refresh-models")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=340):
            counters, read, prompts = build_prompts()
            reading = build_offer(read)
            with gr.Row(elem_classes="with-refresh"):
                prompts["styles"] = build_style_menu(styles)
                apply_styles = gr.Button("Apply", size="sm", scale=0, min_width=72, elem_id="apply-styles")
                edit_styles = gr.Button("Edit", size="sm", scale=0, min_width=60, visible=not shared, elem_id="edit-styles")
            style_editor = None if shared else build_style_editor(styles)
            picker = build_picker()
            with gr.Tabs(selected=Mode.IMG2IMG.value) as tabs:
                modes = {mode: build_tab(mode, [s for s in samples if s.mode is mode], drafts) for mode in TAB_LABELS}
                batch = build_batch(shared=shared)
            with gr.Accordion("Mask", visible=False) as mask_settings:
                mask_controls = build_mask_controls()
                always_on = build_always_on()
            with gr.Accordion("Settings"):
                settings, take_size = build_generation_controls(models, info.native_size)
                scripts = build_scripts(always_on)
        with gr.Column(scale=5, min_width=340, elem_id="results"):
            generates = [*(tab.generate for tab in modes.values()), batch.generate]
            panel, actions = build_results(generates, batch.report, shared=shared)
    making = Making(Controls(**menus, **prompts, **mask_controls, **settings, scripts=scripts), modes, panel, pages, tabs, reading)
    wire_models(making.controls, engine, models, title, refresh, picker)
    wire_counters(counters, making.controls, engine)
    wire_styles(apply_styles, styles, making.controls)
    if style_editor is not None:
        wire_style_editor(edit_styles, style_editor, styles, making.controls)
    wire_modes(making, actions, engine, session, folders)
    wire_batch(batch, engine, making.controls, panel, folders, session, shared=shared)
    current = gr.State(Mode.IMG2IMG)
    entered = [current, mask_settings, making.controls.mask_alpha]
    for mode, tab in modes.items():
        tab.tab.select(partial(enter, mode), None, entered, **QUEUED)
    gr.on([batch.tab.select, *(given.change for given in batch.masks)], enter_batch, batch.masks, entered, **QUEUED)
    take_size.click(partial(size_of, modes), [current, *making.files], [making.controls.width, making.controls.height], js=SEND_PICTURES, **QUEUED)
    return making


def wire_models(controls: Controls, engine: Engine, models: ModelStore, title: gr.HTML, refresh: gr.Button, picker: Picker) -> None:
    """The menus load what is chosen; both Refresh buttons list what there is now."""
    menus = {"sd_model_checkpoint": controls.sd_model_checkpoint, "sd_vae": controls.sd_vae}
    gr.on([menu.input for menu in menus.values()], partial(load_model, engine, models), outputs=title, inputs_kwargs=menus, **QUEUED)
    controls.sd_model_checkpoint.change(lambda checkpoint: gr.Slider(visible=sees_source(models, checkpoint)),
                                        controls.sd_model_checkpoint, controls.image_cfg_scale, **QUEUED)
    wire_picker(picker, models.catalog, controls.prompt, controls.negative_prompt)
    gr.on([refresh.click, picker.refresh.click], partial(listed_anew, models), picker.part,
          [*menus.values(), controls.refiner_checkpoint, *picker.lists], **QUEUED)


def wire_modes(making: Making, actions: Actions, engine: Engine, session: Session, folders: Folders) -> None:
    """Each tab's Generate and samples, and the way of a result to each tab."""
    panel, controls = making.panel, making.controls
    results = wire_results(panel, actions, engine, folders, controls.seed)
    actions.exactly.click(asked_by(partial(run_exactly, results, engine)), [session.client, panel.results, panel.selected],
                          panel.outputs, **QUEUED)
    for mode, tab in making.modes.items():
        tab.generate.click(asked_by(partial(run, engine, mode, panel, folders, tab.read)), inputs=[session.client, *tab.files],
                           inputs_kwargs=controls.named(), outputs=panel.outputs, js=SEND, **QUEUED)
        wire_samples(tab, controls)
        making.bring(actions.sends[mode].click, partial(with_result, mode), [panel.results],
                     partial(result_for, results, tab), [panel.results, panel.selected, actions.with_mask])


def enter(mode: Mode) -> tuple[Mode, gr.Accordion, gr.Slider]:
    """What a mode shows of the settings that not all modes have."""
    return mode, gr.Accordion(visible=mode in MASKED), gr.Slider(visible=mode is Mode.INPAINT_SKETCH)


def enter_batch(*masks: Any) -> tuple[Mode, gr.Accordion, gr.Slider]:
    """The same for a batch, which has masks or has none."""
    return Mode.BATCH, gr.Accordion(visible=any(masks)), gr.Slider(visible=False)


def size_of(modes: dict[Mode, ModeTab], current: Mode, *files: Any) -> tuple[int, int]:
    """Width and height of the picture in the tab that is open."""
    if current is Mode.BATCH:
        raise PalimpsestError("A batch has many pictures; Resize by keeps the proportions of each.")
    given = dict(zip((file for tab in modes.values() for file in tab.files), files))
    picture = given[modes[current].files[0]]
    reader = Reader()
    image = reader.picture(picture[0] if isinstance(picture, tuple) else picture, "init_images")
    if image is None:
        raise PalimpsestError("There is no picture yet to take the size from.")
    return within_range(*image.size)


def listed_anew(models: ModelStore, part: str) -> list[gr.components.Component]:
    """The menus and the picker's lists as the models folder is now."""
    models.catalog.refresh()
    return [gr.Dropdown(checkpoint_choices(models)), gr.Dropdown(vae_choices(models)), gr.Dropdown(refiner_choices(models)),
            *listed(models.catalog, part)]


def with_result(mode: Mode, results: list) -> Mode:
    """The mode, where there is a result to bring there."""
    if not results:
        raise PalimpsestError("There is no result yet to use.")
    return mode


def result_for(actions: Results, tab: ModeTab, results: list, selected: int, with_mask: bool) -> Update:
    """The selected picture in a mode's tab, where asked for with the mask of its job."""
    mask = actions.mask(results, selected) if with_mask and tab.mode in MASKED else None
    return tab.loaded(results[selected].file, mask)
