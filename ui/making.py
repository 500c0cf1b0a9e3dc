"""The tab Make: prompts, the picture to edit, the result, and settings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image
from gradio.events import EventListener

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.families.base import ModelInfo
from pipeline.img2img import Mode
from pipeline.loading import ModelStore
from pipeline.options import KINDS
from pipeline.upscalers.names import Upscalers
from ui.adetailer import build_adetailer, wire_adetailer
from ui.batch import build_batch, wire_batch
from ui.canvas import SEND, SEND_JOB, SEND_PICTURES, Canvas
from ui.controlnet import build_controlnet, wire_controlnet
from ui.controls import (
    Controls,
    advice,
    build_generation_controls,
    build_mask_controls,
    build_model_menus,
    build_prompts,
    build_scripts,
    build_strength,
    build_style_menu,
    checkpoint_choices,
    facts_of,
    refiner_choices,
    script_menus,
    shown_for,
    size_step,
    suited,
    suited_values,
    takes_references,
    vae_choices,
    within_range,
)
from ui.editor import File, Reader
from ui.events import QUEUED, QUIET, tell
from ui.exact import run_exactly
from ui.foresight import wire_foresight
from ui.pasted import Reading, build_offer
from ui.picker import Picker, build_picker, listed, wire_picker
from ui.references import References, Shown
from ui.results import Actions, Results, build_results, build_running_buttons, wire_results
from ui.scripts import build_always_on
from ui.session import Session, asked_by
from ui.stream import Folders, Panel, Update, load_model, run, title_html
from ui.styles import build_style_editor, wire_style_editor, wire_styles
from ui.tabs import MASKED, TAB_LABELS, ModeTab, Sample, build_tab, wire_samples
from ui.tokens import wire_counters
from ui.visit import Visit

SUITED = ("sampler_name", "scheduler", "steps", "cfg_scale", "distilled_cfg_scale", "denoising_strength", "width", "height")
"""Fields that "Use this model's defaults" sets."""
MAKE = "make"
"""The tab's id."""
STAGE_SWITCH = """<div role="group" aria-label="On the stage"><button data-stage="source">Source</button>
<button data-stage="result">Result</button></div>"""
"""Where there is room for one of the two: ui/web/modes.js."""


@dataclass(frozen=True)
class Header:
    """The line above all tabs."""

    title: gr.HTML
    menus: dict[str, gr.components.Component]
    """Model menus, by option."""
    refresh: gr.Button


@dataclass(frozen=True)
class Making:
    """The tab Make."""

    controls: Controls
    modes: dict[Mode, ModeTab]
    panel: Panel
    pages: gr.Tabs
    tabs: gr.Tabs
    reading: Reading
    to_extras: gr.Button | None
    """Sends the selected result to the tab Extras."""

    @property
    def canvases(self) -> list[Canvas]:
        """Those of all modes."""
        return [tab.canvas for tab in self.modes.values()]

    def bring(self, click: EventListener, mode: Callable[..., Mode], chosen: list[gr.State], fill: Callable[..., Update],
              inputs: list[gr.blocks.Block]) -> None:
        """Wire a button, such as "Use in Inpaint", that opens a mode and fills its widgets.

        mode: called with the values of `chosen`, returns the mode to open; if it raises, nothing is opened.
        fill: called with the values of `inputs` once the mode is open, returns updates for its widgets. Not earlier, since a
        mask editor loses a picture set while it is hidden.
        """
        def open_page(*values: Any) -> gr.Tabs:
            mode(*values)
            return gr.Tabs(selected=MAKE)

        click(open_page, chosen, self.pages, **QUEUED).success(
            lambda *values: gr.Tabs(selected=mode(*values).value), chosen, self.tabs, **QUEUED).success(
            fill, inputs, [*self.controls.asked().values(), *self.canvases], js=SEND, **QUEUED)


def build_header(models: ModelStore) -> Header:
    with gr.Row(elem_id="header"):
        title = gr.HTML(title_html(), elem_id="title")
        menus = build_model_menus(models)
        refresh = gr.Button("Refresh", elem_id="refresh-models", elem_classes="sign")
    return Header(title, menus, refresh)


def build_making(engine: Engine, models: ModelStore, info: ModelInfo, samples: list[Sample], header: Header, pages: gr.Tabs,
                 session: Session, folders: Folders, drafts: Drafts, *, shared: bool) -> Making:
    """shared: there are visitors, who change nothing on the server.

    The stylesheet places the parts: side by side on a desktop, one below the other on a phone.
    """
    styles = engine.styles
    with gr.Row(elem_id="workspace"):
        with gr.Column(elem_id="prompts"):
            counters, read, prompts = build_prompts()
            reading = build_offer(read)
        with gr.Column(elem_id="go"):
            with gr.Row(elem_id="generates"):
                generates = {mode: gr.Button("Generate", variant="primary", elem_id=f"generate-{mode.value}") for mode in Mode}
            running = build_running_buttons()
            with gr.Row(elem_id="prompt-tools"):
                prompts["styles"] = build_style_menu(styles)
                apply_styles = gr.Button("Apply styles", elem_id="apply-styles", elem_classes="sign")
                edit_styles = gr.Button("Edit styles", visible=not shared, elem_id="edit-styles", elem_classes="sign")
                picker = build_picker()
                gr.Button("Settings panel", elem_id="fold-settings", elem_classes="sign")
            style_editor = None if shared else build_style_editor(styles)
        gr.HTML(STAGE_SWITCH, elem_id="stage-switch")
        with gr.Column(elem_id="source"):
            with gr.Tabs(selected=Mode.IMG2IMG.value, overflow_behavior="wrap", elem_id="modes") as tabs:
                modes = {mode: build_tab(mode, generates[mode], [s for s in samples if s.mode is mode], drafts) for mode in TAB_LABELS}
                batch = build_batch(generates[Mode.BATCH], shared=shared)
            references = References(drafts, label="Reference pictures", elem_id="reference-images")
        gr.HTML('<div id="splitter"></div>', elem_id="split")
        with gr.Column(elem_id="results"):
            panel, actions = build_results(list(generates.values()), batch.report, running, shared=shared)
        with gr.Column(elem_id="strength"):
            strength = build_strength()
        with gr.Column(elem_id="settings"):
            with gr.Accordion("Mask", visible=False, elem_id="mask-settings") as mask_settings:
                mask_controls = build_mask_controls()
                always_on = build_always_on()
            settings, take_size, use_defaults = build_generation_controls(models, info.native_size)
            controlnet = build_controlnet(models)
            adetailer = build_adetailer(models.catalog)
            scripts = build_scripts(always_on, Upscalers(models.catalog).names(), controlnet, adetailer)
    making = Making(Controls(**header.menus, **prompts, **mask_controls, **strength, **settings, scripts=scripts, reference_images=references), modes, panel, pages, tabs, reading,
                    actions.extras)
    wire_models(making.controls, engine, models, header, use_defaults, picker, session)
    wire_controlnet(controlnet, models, making.controls.width, making.controls.height)
    wire_counters(counters, making.controls, engine, models)
    wire_styles(apply_styles, styles, making.controls)
    if style_editor is not None:
        wire_style_editor(edit_styles, style_editor, styles, making.controls)
    current = gr.State(Mode.IMG2IMG)
    wire_modes(making, actions, engine, session, folders, current)
    wire_foresight(modes, making.controls, engine, panel, folders, session)
    wire_batch(batch, engine, making.controls, panel, folders, session, shared=shared)
    entered = [current, mask_settings, making.controls.mask_alpha]
    for mode, tab in modes.items():
        tab.tab.select(partial(enter, mode), None, entered, **QUEUED)
    gr.on([batch.tab.select, *(given.change for given in batch.masks)], enter_batch, batch.masks, entered, **QUEUED)
    wire_adetailer(adetailer, [current, *making.canvases], partial(picture_of, modes), SEND_PICTURES)
    take_size.click(partial(size_of, modes), [current, *making.canvases], [making.controls.width, making.controls.height], js=SEND_PICTURES, **QUEUED)
    return making


def wire_models(controls: Controls, engine: Engine, models: ModelStore, header: Header, use_defaults: gr.Button, picker: Picker,
                session: Session) -> None:
    """The menus load the chosen model; both Refresh buttons scan the folders again."""
    menus, kind = header.menus, controls.sd_model_kind
    checkpoint, *modules = menus.values()
    modules, chosen = [*modules, kind], menus | {"sd_model_kind": kind}
    found = checkpoint.input(partial(remembered, models), [checkpoint, session.modules], modules, **QUEUED)
    found.then(partial(load_model, engine), outputs=header.title, inputs_kwargs=chosen, **QUEUED)
    for follow in (found.then, kind.input):
        follow(partial(advise, models), [checkpoint, kind], **QUEUED)
    gr.on([menu.input for menu in modules], partial(load_model, engine), outputs=header.title, inputs_kwargs=chosen, **QUEUED)
    gr.on([menu.input for menu in modules], None, [checkpoint, *modules, session.modules], session.modules,
          js="(checkpoint, vae, encoders, kind, kept) => ({ ...kept, [checkpoint]: [vae, encoders, kind] })", **QUIET)
    some = [controls.named()[field] for field in shown_for(models, models.default.rel)]
    gr.on([checkpoint.change, kind.change], partial(shown_anew, models), [checkpoint, kind],
          [*some, controls.reference_images, controls.width, controls.height, use_defaults], **QUEUED)
    use_defaults.click(partial(with_defaults, models), [checkpoint, kind, *(getattr(controls, name) for name in SUITED)],
                       [getattr(controls, name) for name in SUITED], **QUEUED)
    wire_picker(picker, models.catalog, controls.prompt, controls.negative_prompt)
    gr.on([header.refresh.click, picker.refresh.click], partial(listed_anew, models), picker.part,
          [*menus.values(), controls.refiner_checkpoint, *picker.lists, *(controls.named()[name] for name in script_menus(models))], **QUEUED)


def wire_modes(making: Making, actions: Actions, engine: Engine, session: Session, folders: Folders, current: gr.State) -> None:
    """Each tab's Generate button and samples, and sending a result to each tab. current: the open mode."""
    panel, controls = making.panel, making.controls
    results = wire_results(panel, actions, engine, folders, controls.seed)
    actions.exactly.click(asked_by(partial(run_exactly, results, engine)), [session.client, panel.results, panel.selected],
                          panel.outputs, **QUEUED)
    for mode, tab in making.modes.items():
        tab.generate.click(asked_by(partial(run, engine, mode, panel, folders, tab.read)), inputs=[session.client, panel.results, tab.canvas],
                           inputs_kwargs=controls.asked(), outputs=panel.outputs, js=SEND_JOB, **QUEUED)
        wire_samples(tab, controls)
        making.bring(actions.sends[mode].click, partial(with_result, mode), [panel.results],
                     partial(result_for, results, tab), [panel.results, panel.selected, actions.with_mask])
    actions.reference.click(result_as_reference, [panel.results, panel.selected], controls.reference_images, **QUEUED)
    making.bring(actions.use.click, with_result_here, [current, panel.results], partial(result_here, results, making.modes),
                 [current, panel.results, panel.selected, actions.with_mask])


def enter(mode: Mode) -> tuple[Mode, gr.Accordion, gr.Slider]:
    """Settings that a mode shows and others hide."""
    return mode, gr.Accordion(visible=mode in MASKED), gr.Slider(visible=mode is Mode.INPAINT_SKETCH)


def enter_batch(*masks: Any) -> tuple[Mode, gr.Accordion, gr.Slider]:
    """The same for a batch, with or without masks."""
    return Mode.BATCH, gr.Accordion(visible=any(masks)), gr.Slider(visible=False)


def size_of(modes: dict[Mode, ModeTab], current: Mode, *held: tuple[File, File]) -> tuple[int, int]:
    """Width and height of the open tab's picture."""
    if current is Mode.BATCH:
        raise PalimpsestError("A batch has many pictures; use Resize by, which keeps each one's proportions.")
    return within_range(*picture_of(modes, current, *held).size)


def picture_of(modes: dict[Mode, ModeTab], current: Mode, *held: tuple[File, File]) -> Image.Image:
    """The open tab's picture; img2img's for a batch, which has many."""
    picture, _ = dict(zip(modes, held))[Mode.IMG2IMG if current is Mode.BATCH else current]
    image = Reader().picture(picture, "init_images")
    if image is None:
        raise PalimpsestError("Add a picture first.")
    return image


def remembered(models: ModelStore, checkpoint: str, kept: dict[str, Any]) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """VAE, text encoders and kind as this browser last chose them for a checkpoint, as far as they are still there."""
    found = kept.get(checkpoint)
    vae, encoders, kind, *_ = [*(found if isinstance(found, list) else []), None, None, None]
    there = models.catalog.text_encoder_names()
    return (gr.Dropdown(value=vae if vae in vae_choices(models) else "Automatic"),
            gr.Dropdown(value=[name for name in encoders if name in there] if isinstance(encoders, list) else []),
            gr.Dropdown(value=kind if isinstance(kind, str) and kind in KINDS else "Automatic"))


def shown_anew(models: ModelStore, checkpoint: str, kind: str) -> list[Any]:
    """What follows the model: widgets that it has a use for, references, steps of width and height, and the offer of its defaults."""
    step = size_step(facts_of(models, checkpoint, kind))
    return [*(gr.update(visible=visible) for visible in shown_for(models, checkpoint, kind).values()), takes_references(models, checkpoint, kind),
            gr.update(step=step), gr.update(step=step), gr.update(visible=suited(models, checkpoint, kind) is not None)]


def with_defaults(models: ModelStore, checkpoint: str, kind: str, *current: Any) -> list[Any]:
    """The values of SUITED with the model's own defaults where it has any."""
    values = dict(zip(SUITED, current))
    return list((values | suited_values(models, checkpoint, kind, values["width"], values["height"])).values())


def advise(models: ModelStore, checkpoint: str, kind: str) -> None:
    """Tell which settings suit a model that was just chosen; they are the person's to make."""
    if (sentence := advice(models, checkpoint, kind)) is not None:
        tell(sentence)


def listed_anew(models: ModelStore, part: str) -> list[gr.components.Component]:
    """The menus and the picker's lists for the current models folder."""
    models.catalog.refresh()
    return [gr.Dropdown(checkpoint_choices(models)), gr.Dropdown(vae_choices(models)), gr.Dropdown(models.catalog.text_encoder_names()),
            gr.Dropdown(refiner_choices(models)),
            *listed(models.catalog, part), *(gr.Dropdown(choices) for choices in script_menus(models).values())]


def with_result_here(current: Mode, results: Visit) -> Mode:
    """The open mode, or img2img for Batch, if there is a result to send there."""
    return with_result(Mode.IMG2IMG if current is Mode.BATCH else current, results)


def result_here(actions: Results, modes: dict[Mode, ModeTab], current: Mode, results: Visit, selected: int, with_mask: bool) -> Update:
    """The selected picture in the open mode's tab; see result_for()."""
    return result_for(actions, modes[with_result_here(current, results)], results, selected, with_mask)


def with_result(mode: Mode, results: Visit) -> Mode:
    """The mode, if there is a result to send there."""
    results.at(0)
    return mode


def result_as_reference(results: Visit, selected: int) -> Shown:
    return Shown([results.at(selected).file], added=True)


def result_for(actions: Results, tab: ModeTab, results: Visit, selected: int, with_mask: bool) -> Update:
    """The selected picture in a mode's tab, with its job's mask if asked for."""
    mask = actions.mask(results, selected) if with_mask and tab.mode in MASKED else None
    return tab.loaded(results[selected].file, mask)
