"""Settings back in the widgets: those of a request that was made, or those that an infotext tells."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import gradio as gr

from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.infotext import apply_backcompat, parse
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.pasting import OPTIONS, pasted_options, typed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import resolve_names, schedule_label
from pipeline.scripts.soft_inpainting import KEYS as SOFT_INPAINTING
from pipeline.styles import StyleDatabase
from ui.controls import Controls
from ui.scripts import NONE, spread

LABELS = {
    "Prompt": "prompt", "Negative prompt": "negative_prompt", "Steps": "steps", "CFG scale": "cfg_scale", "Seed": "seed",
    "Size-1": "width", "Size-2": "height", "Denoising strength": "denoising_strength", "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength", "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h", "Mask blur": "mask_blur", "Mask mode": "inpainting_mask_invert",
    "Masked content": "inpainting_fill", "Inpaint area": "inpaint_full_res", "Masked area padding": "inpaint_full_res_padding",
    "Image CFG scale": "image_cfg_scale", "Refiner switch at": "refiner_switch_at",
} | {key: f"Soft Inpainting.{name}" for name, key in SOFT_INPAINTING.items()}
"""What infotext calls the widgets."""
Values = dict[str, Any]
"""Field name → value, radios as their index."""


def settings_of(p: StableDiffusionProcessingImg2Img, controls: Controls, current: Options, seed: int | None = None) -> Values:
    """What the widgets were when a request was made. seed: that of one of its pictures, where the request's was random."""
    named = controls.named()
    values = {name: value for name in named if (value := getattr(p, name, None)) is not None}
    values |= {name: getattr(p.options, name) for name in named if hasattr(p.options, name) and not hasattr(p, name)}
    values |= {"selected_scale_tab": 0, "scheduler": schedule_label(p.sampler_name, p.scheduler) or "Automatic"}
    values |= ({} if seed is None else {"seed": seed}) | spread(p)
    others = {spec.name: value for spec in fields(Options) if spec.name not in named
              and (value := getattr(p.options, spec.name)) != getattr(current, spec.name)}
    return values | {"seed_enable_extras": extras_said(values), "override_settings": texts_of(others)}


ABSENT = {"refiner_checkpoint": "", "script_name": NONE, "Soft Inpainting.enabled": False}
"""What the widgets are of which an infotext says nothing."""


def settings_in(text: str, controls: Controls, catalog: Catalog, current: Options,
                styles: StyleDatabase) -> tuple[Values, list[str]]:
    """(what an infotext sets the widgets to, sentences on what could not be taken over)."""
    params = apply_backcompat(parse(text))
    named, notes = controls.named(), []
    values = ABSENT | {name: read for label, name in LABELS.items()
                       if label in params and (read := read_value(named[name], params[label])) is not None}
    values |= dict(zip(("styles", "prompt", "negative_prompt"), styles.extract(params["Prompt"], params["Negative prompt"])))
    if "Sampler" in params:
        try:
            sampler, schedule = resolve_names(params["Sampler"], params.get("Schedule type"))
            values |= {"sampler_name": sampler, "scheduler": schedule_label(sampler, schedule) or "Automatic"}
        except PalimpsestError as error:
            notes.append(str(error))
    for field, wanted in (("sd_model_checkpoint", params.get("Model hash") or params.get("Model")),
                          ("refiner_checkpoint", params.get("Refiner"))):
        try:
            values |= {field: catalog.find_checkpoint(wanted).rel} if wanted else {}
        except PalimpsestError:
            called = params["Refiner"] if field == "refiner_checkpoint" else \
                f"{params.get('Model', '')} [{params.get('Model hash', '?')}]"
            notes.append(f"The checkpoint {called} is not here; the one that was chosen stays.")
    options = pasted_options(params, vars(current))
    values |= {name: options.pop(name) for name in list(options) if name in named}
    values |= {"selected_scale_tab": 0, "seed_enable_extras": extras_said(values), "override_settings": texts_of(options)}
    return values, notes


def seed_in(text: str) -> int | None:
    """The seed that an infotext names, where it does."""
    said = parse(text).get("Seed", "")
    return int(said) if said.isdecimal() else None


def texts_of(options: Mapping[str, Any]) -> list[str]:
    """Options as the box Override settings shows them: "Clip skip: 2", by infotext's names where it has one."""
    labels = {name: label for label, name in OPTIONS.items()}
    return [f"{labels.get(name, name)}: {value}" for name, value in options.items()]


def options_in(texts: Iterable[str], current: Options) -> dict[str, Any]:
    """What texts_of() was given. Raises InvalidRequest for what names no option."""
    options = {}
    for text in texts:
        label, colon, value = text.partition(":")
        name = OPTIONS.get(label.strip(), label.strip())
        if not colon or not hasattr(current, name):
            raise InvalidRequest("override_settings", f'override_settings: "{text}" names no option; write such as '
                                                      '"Clip skip: 2"')
        options[name] = typed(value.strip(), getattr(current, name))
    return options


def extras_said(values: Mapping[str, Any]) -> bool:
    """Whether any of the widgets behind Extra acts."""
    resized = min(values.get("seed_resize_from_w", 0), values.get("seed_resize_from_h", 0)) > 0
    return resized or bool(values.get("subseed_strength"))


def read_value(widget: gr.components.Component, text: str) -> Any:
    """Infotext's text as a value for the widget, None where it does not fit."""
    if isinstance(widget, gr.Radio):
        labels = [label for label, _ in widget.choices]
        return labels.index(text) if text in labels else None
    if isinstance(widget, gr.Checkbox):
        return text != "False"
    if not isinstance(widget, gr.Slider | gr.Number):
        return text
    whole = widget.precision == 0 or getattr(widget, "step", None) in (1, 4, 8)
    try:
        return int(float(text)) if whole else float(text)
    except (ValueError, OverflowError):
        return None


def updates(controls: Controls, values: Values) -> dict[gr.components.Component, Any]:
    """What shows the values in their widgets."""
    named = controls.named()
    return {named[name]: shown(named[name], value) for name, value in values.items() if name in named}


def shown(widget: gr.components.Component, value: Any) -> Any:
    """A request's value as the widget takes it: radios that give an index are set by their label."""
    return widget.choices[int(value)][1] if isinstance(widget, gr.Radio) and widget.type == "index" else value
