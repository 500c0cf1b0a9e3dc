"""ADetailer's section: its passes' widgets, and what a detector finds in the picture before Generate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.adetailer import OFF, PASSES, SAME_SCHEDULER, SPECS, TITLE, Details, Pass, read_pass, read_told
from pipeline.detectors.masks import FILTERS, MERGES, boxes_shown
from pipeline.detectors.store import FOLDER, HOW, Detectors
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import SAMPLERS
from pipeline.samplers.schedules import SCHEDULES
from pipeline.scripts import always_on
from pipeline.scripts.adetailer import look, masks_for
from ui.editor import PictureInput
from ui.events import QUEUED
from ui.fields import WHOLE, Slider, as_lines, build_further, read_lines, too_many

ENABLED = "ad_tab_enable"
"""The field of a pass's switch."""
ALL = "all"
"""In the place of a pass's index, for what is common to all."""
SKIP = "skip_img2img"
OTHERS = "others"
"""The box of further fields."""


@dataclass(frozen=True)
class PassControls:
    """One pass's widgets, named after its fields."""

    settings: dict[str, gr.components.Component]
    preview: PictureInput
    find: gr.Button
    """Shows what the detector finds in the picture."""


@dataclass(frozen=True)
class DetailerControls:
    """All passes' widgets."""

    passes: list[PassControls]
    skip: gr.Checkbox
    detectors: Detectors

    def named(self) -> dict[str, gr.components.Component]:
        """By "ADetailer.INDEX.field"."""
        own = {name_of(index, field): widget for index, one in enumerate(self.passes) for field, widget in one.settings.items()}
        return own | {name_of(ALL, SKIP): self.skip}


def name_of(index: int | str, field: str) -> str:
    return f"{TITLE}.{index}.{field}"


PASSES_OFF = {name_of(index, ENABLED): False for index in range(PASSES)} | {name_of(ALL, SKIP): False}
"""The values that switch all passes off."""


STANDING = {name_of(index, "ad_model"): OFF for index in range(PASSES)}
"""The menus' values on a page that keeps none."""


def detectors_of(catalog: Catalog) -> Detectors:
    return Detectors(catalog.root / FOLDER)


def detector_menus(catalog: Catalog) -> dict[str, list[tuple[str, str]]]:
    """The current choices of the passes' menus, by widget name."""
    choices = [(name, name) for name in (OFF, *detectors_of(catalog).names())]
    return {name_of(index, "ad_model"): choices for index in range(PASSES)}


# --- widgets

def build_adetailer(catalog: Catalog) -> DetailerControls:
    menus = detector_menus(catalog)
    with gr.Accordion(TITLE, open=False, elem_id="adetailer"):
        with gr.Tabs(elem_id="adetailer-passes"):
            passes = [build_pass(index, menus[name_of(index, "ad_model")]) for index in range(PASSES)]
        skip = gr.Checkbox(value=False, label="Detail the source itself", info="Nothing else of the picture is made anew", elem_id="adetailer-skip")
    return DetailerControls(passes, skip, detectors_of(catalog))


def build_pass(index: int, choices: list[tuple[str, str]]) -> PassControls:
    with gr.Tab(f"Pass {index + 1}", id=index, elem_id=f"adetailer-pass-{index}"):
        settings: dict[str, gr.components.Component] = {
            ENABLED: gr.Checkbox(value=False, label="Use this pass", elem_id=f"adetailer-enabled-{index}"),
            "ad_model": gr.Dropdown(choices, value=OFF, num_choices_shown=WHOLE, label="Detector", info=HOW if len(choices) == 1 else "Files in models/adetailer",
                                    elem_id=f"adetailer-model-{index}")}
        with gr.Row(elem_classes="pair"):
            settings["ad_confidence"] = slider("ad_confidence", 0, 1, 0.01, "Confidence", elem_id=f"adetailer-confidence-{index}")
            settings["ad_denoising_strength"] = slider("ad_denoising_strength", 0, 1, 0.01, "Finds' strength")
        find = gr.Button("Find", size="sm", min_width=80, elem_id=f"adetailer-find-{index}")
        preview = PictureInput(label="What is found in the picture", format="png", type="filepath", interactive=False, height=200,
                               buttons=["fullscreen", "download"], elem_id=f"adetailer-preview-{index}")
        settings["ad_prompt"] = gr.Textbox("", lines=1, max_lines=8, label="Finds' prompt", info="Empty: the picture's; [SEP] between finds",
                                           elem_id=f"adetailer-prompt-{index}")
        settings["ad_negative_prompt"] = gr.Textbox("", lines=1, max_lines=8, label="Finds' negative prompt")
        with gr.Accordion("Which finds, and their masks", open=False):
            settings |= build_masks()
        with gr.Accordion("How they are redone", open=False):
            settings |= build_sampling()
    return PassControls(settings, preview, find)


def build_masks() -> dict[str, gr.components.Component]:
    settings: dict[str, gr.components.Component] = {"ad_model_classes": gr.Textbox(
        "", lines=1, label="Only these classes", info="Separated by commas; empty: all")}
    with gr.Row(elem_classes="pair"):
        settings["ad_mask_k"] = slider("ad_mask_k", 0, 10, 1, "At most (0: all)")
        settings["ad_mask_filter_method"] = gr.Dropdown(list(FILTERS), value=FILTERS[0], label="Chosen by")
    with gr.Row(elem_classes="pair"):
        settings["ad_mask_min_ratio"] = slider("ad_mask_min_ratio", 0, 1, 0.001, "Smallest share")
        settings["ad_mask_max_ratio"] = slider("ad_mask_max_ratio", 0, 1, 0.001, "Largest share")
    with gr.Row(elem_classes="pair"):
        settings["ad_dilate_erode"] = slider("ad_dilate_erode", -128, 128, 4, "Grow by")
        settings["ad_mask_blur"] = slider("ad_mask_blur", 0, 64, 1, "Finds' mask blur")
    with gr.Row(elem_classes="pair"):
        settings["ad_x_offset"] = slider("ad_x_offset", -200, 200, 1, "Move right")
        settings["ad_y_offset"] = slider("ad_y_offset", -200, 200, 1, "Move up")
    settings["ad_mask_merge_invert"] = gr.Dropdown(list(MERGES), value=MERGES[0], label="Merge the masks")
    return settings


def build_sampling() -> dict[str, gr.components.Component]:
    settings: dict[str, gr.components.Component] = {"ad_inpaint_only_masked": gr.Checkbox(True, label="Only masked, at full size")}
    settings["ad_inpaint_only_masked_padding"] = slider("ad_inpaint_only_masked_padding", 0, 256, 4, "Finds' padding")
    settings["ad_use_inpaint_width_height"] = gr.Checkbox(False, label="Its own size")
    with gr.Row(elem_classes="pair"):
        settings["ad_inpaint_width"] = slider("ad_inpaint_width", 64, 2048, 8, "Finds' width")
        settings["ad_inpaint_height"] = slider("ad_inpaint_height", 64, 2048, 8, "Finds' height")
    with gr.Row(elem_classes="pair"):
        settings["ad_use_steps"] = gr.Checkbox(False, label="Its own steps")
        settings["ad_steps"] = slider("ad_steps", 1, 150, 1, "Finds' steps")
    with gr.Row(elem_classes="pair"):
        settings["ad_use_cfg_scale"] = gr.Checkbox(False, label="Its own CFG scale")
        settings["ad_cfg_scale"] = slider("ad_cfg_scale", 0, 30, 0.5, "Finds' CFG scale")
    settings["ad_use_sampler"] = gr.Checkbox(False, label="Its own sampler")
    with gr.Row(elem_classes="pair"):
        settings["ad_sampler"] = gr.Dropdown(list(SAMPLERS), value=next(iter(SAMPLERS)), label="Finds' sampler", num_choices_shown=WHOLE)
        settings["ad_scheduler"] = gr.Dropdown([SAME_SCHEDULER, *(one.label for one in SCHEDULES.values())], value=SAME_SCHEDULER,
                                               label="Finds' schedule", num_choices_shown=WHOLE)
    settings[OTHERS] = build_further("ad_clip_skip: 2")
    return settings


def slider(field: str, low: float, high: float, step: float, label: str, **more: Any) -> Slider:
    return Slider(low, high, value=SPECS[field].default, step=step, label=label, **more)


def wire_adetailer(controls: DetailerControls, held: list[gr.components.Component], picture: Callable[..., Image.Image], send: str) -> None:
    """picture: gives the open tab's picture from the values of `held`; send: the script that uploads it first."""
    for one in controls.passes:
        def find(*values: Any, **settings: Any) -> Image.Image:
            return found(controls.detectors, picture(*values), settings)

        one.find.click(find, held, one.preview, inputs_kwargs=one.settings, js=send, **QUEUED)


def found(detectors: Detectors, image: Image.Image, settings: Mapping[str, Any]) -> Image.Image:
    """The picture with a pass's finds. Raises InvalidRequest, ModelError, PalimpsestError if there are none."""
    one = replace(read_pass(fields_of(settings)), ad_tab_enable=True)
    if one.ad_model == OFF:
        raise PalimpsestError(f"Choose a detector first. {HOW}.")
    finds = look(detectors, detectors.find(one.ad_model), image, one, Options())
    if not finds:
        raise PalimpsestError("Nothing was found in the picture; a lower confidence finds more.")
    return boxes_shown(image, finds, masks_for(finds, image, one))


# --- widgets ↔ requests

def packed_passes(values: dict[str, Any]) -> dict[str, Any]:
    """The request's alwayson_scripts if a pass is on; takes all passes' values out of `values`."""
    passes: dict[str, dict[str, Any]] = {}
    for name in [name for name in values if name.startswith(f"{TITLE}.")]:
        _, index, field = name.split(".")
        passes.setdefault(index, {})[field] = values.pop(name)
    skip = bool(passes.pop(ALL, {}).get(SKIP))
    on = [index for index in sorted(passes) if passes[index].get(ENABLED)]
    if not on:
        return {}
    given = [packed_pass(int(index), passes[index]) if index in on else {"ad_model": OFF} for index in map(str, range(int(on[-1]) + 1))]
    return {TITLE: {"args": [True, skip, *given]}}


def packed_pass(index: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """A pass as in a request, checked, without what is at its default. Raises InvalidRequest."""
    try:
        one = read_pass(fields_of(values))
        if one.ad_model == OFF:
            raise InvalidRequest("ad_model", "choose a detector")
    except InvalidRequest as error:
        raise InvalidRequest(TITLE, f"{TITLE}, pass {index + 1}: {error}") from None
    return {name: value for name, spec in SPECS.items() if (value := getattr(one, name)) != spec.default}


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A pass's fields for its widgets' values. Raises InvalidRequest."""
    given = dict(values)
    return given | read_lines(given.pop(OTHERS, ""), FURTHER)


def details_of(p: StableDiffusionProcessingImg2Img) -> Details:
    """An earlier request's passes."""
    return next((args for _, args in always_on(p.alwayson_scripts) if isinstance(args, Details)), Details())


def passes_left_out(p: StableDiffusionProcessingImg2Img) -> list[str]:
    """Sentences on what of an earlier request's passes has no place on the page."""
    return too_many(TITLE, "passes", list(details_of(p).passes), PASSES)


def spread_passes(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """The widgets' values for an earlier request: the inverse of packed_passes()."""
    details = details_of(p)
    return values_of(list(details.passes) if details.on else [], skip=details.skip_img2img)


def told_passes(params: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(the widgets' values for an infotext, sentences on what could not be read)."""
    passes, notes = read_told(params)
    return values_of([read_pass(one) for one in passes]), notes + too_many(TITLE, "passes", passes, PASSES)


def values_of(passes: list[Pass], *, skip: bool = False) -> dict[str, Any]:
    """The values of all passes' widgets; passes beyond the last are off."""
    values: dict[str, Any] = PASSES_OFF | {name_of(ALL, SKIP): skip}
    for index, one in enumerate(passes[:PASSES]):
        values |= {name_of(index, field): getattr(one, field) for field in WIDGETS} | {name_of(index, ENABLED): one.acts}
        values[name_of(index, OTHERS)] = as_lines({name: value for name in FURTHER if (value := getattr(one, name)) != SPECS[name].default})
    return values


WIDGETS = ("ad_model", "ad_confidence", "ad_denoising_strength", "ad_prompt", "ad_negative_prompt", "ad_model_classes", "ad_mask_k",
           "ad_mask_filter_method", "ad_mask_min_ratio", "ad_mask_max_ratio", "ad_dilate_erode", "ad_mask_blur", "ad_x_offset", "ad_y_offset",
           "ad_mask_merge_invert", "ad_inpaint_only_masked", "ad_inpaint_only_masked_padding", "ad_use_inpaint_width_height", "ad_inpaint_width",
           "ad_inpaint_height", "ad_use_steps", "ad_steps", "ad_use_cfg_scale", "ad_cfg_scale", "ad_use_sampler", "ad_sampler", "ad_scheduler")
"""A pass's fields that have a widget."""
FURTHER = tuple(name for name in SPECS if name not in (*WIDGETS, ENABLED))
"""The others, which share a box."""
