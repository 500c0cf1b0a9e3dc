"""Puts settings back into the widgets, from an earlier request or an infotext."""

from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from pipeline.errors import InvalidRequest, PalimpsestError, UnknownName
from pipeline.infotext import apply_backcompat, parse
from pipeline.models import Catalog
from pipeline.options import BY_INFOTEXT, SPECS, Options
from pipeline.pasting import FIELDS, NO_FILE, pasted_options, typed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import resolve_names, schedule_label
from pipeline.scripts.soft_inpainting import KEYS as SOFT_INPAINTING
from pipeline.styles import StyleDatabase
from ui.adetailer import PASSES_OFF, passes_left_out, told_passes
from ui.controlnet import UNITS_OFF, told_units, units_left_out
from ui.controls import Controls
from ui.events import warn
from ui.fields import Seed
from ui.scripts import NONE, spread

SHOWN = {label: name for label, name in FIELDS.items() if name not in ("sampler_name", "scheduler", "refiner_checkpoint")} | {
    key: f"Soft Inpainting.{name}" for name, key in SOFT_INPAINTING.items()}
"""Infotext's name → the widget's name, for values with a widget of their own."""
Values = dict[str, Any]
"""Field name → value, radios as their index."""
Menus = Mapping[str, list[tuple[str, Any]]]
"""Field name → choices, as (label, value)."""
MENUS = (gr.Dropdown, gr.Radio, gr.CheckboxGroup)


def settings_of(p: StableDiffusionProcessingImg2Img, controls: Controls, current: Options, catalog: Catalog,
                seed: int | None = None) -> tuple[Values, list[str]]:
    """(the widgets' values for an earlier request, sentences on what is no longer available).

    seed: that of one of its pictures, if the request's was random.
    """
    named = controls.named()
    values = {name: value for name in named if (value := getattr(p, name, None)) is not None}
    values |= {name: getattr(p.options, name) for name in named if hasattr(p.options, name) and not hasattr(p, name)}
    values |= {"selected_scale_tab": 0, "scheduler": schedule_label(p.sampler_name, p.scheduler) or "Automatic"}
    values |= ({} if seed is None else {"seed": seed}) | spread(p)
    others = {name: value for name in SPECS if name not in named
              and (value := getattr(p.options, name)) != getattr(current, name)}
    values |= {"seed_enable_extras": extras_said(values), "override_settings": texts_of(others)}
    values, notes = with_files(ABSENT | values, catalog, {})
    return values, notes + units_left_out(p) + passes_left_out(p)


ABSENT = {"refiner_checkpoint": "", "script_name": NONE, "Soft Inpainting.enabled": False} | UNITS_OFF | PASSES_OFF
"""Widget values that an infotext or a request does not mention."""


def settings_in(text: str, controls: Controls, catalog: Catalog, current: Options,
                styles: StyleDatabase) -> tuple[Values, list[str]]:
    """(the widgets' values for an infotext, sentences on values that could not be applied)."""
    params = apply_backcompat(parse(text))
    named, values, notes = controls.named(), dict(ABSENT), []
    for label, name in SHOWN.items():
        if label in params and (read := read_value(named[name], params[label])) is not None:
            values[name] = read
        elif label in params:
            notes.append(f'{named[name].label}: "{params[label]}" cannot be used; the current value stays.')
    for told in (told_units, told_passes):
        read, unread = told(params)
        values, notes = values | read, notes + unread
    values |= dict(zip(("styles", "prompt", "negative_prompt"), styles.extract(params["Prompt"], params["Negative prompt"])))
    if "Sampler" in params:
        read, unknown = sampling_in(params["Sampler"], params["Schedule type"])
        values, notes = values | read, notes + unknown
    called = f"{params.get('Model', '')}{' [{}]'.format(params['Model hash']) if 'Model hash' in params else ''}".strip()
    values |= {name: said for name, said in (("sd_model_checkpoint", params.get("Model hash") or params.get("Model")),
                                             ("refiner_checkpoint", params.get("Refiner"))) if said}
    options, unusable = pasted_options(params, vars(current), catalog.find_files)
    values |= {name: options.pop(name) for name in list(options) if name in named}
    values |= {"selected_scale_tab": 0, "seed_enable_extras": extras_said(values), "override_settings": texts_of(options)}
    values, missing = with_files(values, catalog, {"sd_model_checkpoint": called})
    return values, notes + missing + unusable


def sampling_in(sampler: str, schedule: str) -> tuple[Values, list[str]]:
    """(sampler and schedule for infotext's names, sentences on unavailable ones)."""
    notes = []
    for wanted in (schedule, None):
        try:
            name, label = resolve_names(sampler, wanted)
            return {"sampler_name": name} | ({"scheduler": schedule_label(name, label) or "Automatic"} if wanted else {}), notes
        except UnknownName as error:
            notes.append(f"{error}; the current choice stays.")
    return {}, list(dict.fromkeys(notes))


def with_files(values: Values, catalog: Catalog, called: Mapping[str, str]) -> tuple[Values, list[str]]:
    """(the values with model files as their menus list them, without missing ones; a sentence on each missing one).

    called: a file's name in its sentence, by field, if it is not the value.
    """
    found, notes = dict(values), []
    for name, kind, find in (("sd_model_checkpoint", "checkpoint", lambda text: catalog.find_checkpoint(text).rel),
                             ("refiner_checkpoint", "refiner", lambda text: catalog.find_checkpoint(text).rel),
                             ("sd_vae", "VAE", lambda text: catalog.find_vae(text).path.name),
                             ("sd_text_encoders", "text encoder", lambda text: [file.path.name for file in catalog.find_text_encoders(text)])):
        wanted = found.pop(name, None)
        try:
            found |= {} if wanted is None else {name: wanted if wanted in NO_FILE else find(wanted)}
        except PalimpsestError:
            notes.append(f"The {kind} {called.get(name, wanted)} was not found; the current one stays.")
    if found.get("sd_text_encoders") in NO_FILE:
        found["sd_text_encoders"] = []
    if found.get("sd_model_checkpoint") == "":  # the request named none
        del found["sd_model_checkpoint"]
    return found, notes


def listed(names: str) -> list[str]:
    """The option sd_text_encoders as its menu's value."""
    return [] if names in NO_FILE else [name.strip() for name in names.split(",")]


def seed_in(text: str) -> int | None:
    """The seed in an infotext, or None."""
    said = parse(text).get("Seed", "")
    return int(said) if said.isascii() and said.isdecimal() else None


def texts_of(options: Mapping[str, Any]) -> list[str]:
    """Options in the form of the box Override settings: "Clip skip: 2", with infotext's names if there are any."""
    return [f"{next(iter(SPECS[name].names_in_infotext), name)}: {value}" for name, value in options.items()]


def options_in(texts: Iterable[str], current: Options) -> dict[str, Any]:
    """The inverse of texts_of(). Raises InvalidRequest for an unknown option."""
    options = {}
    for text in texts:
        label, colon, value = text.partition(":")
        spec = BY_INFOTEXT.get(label.strip()) or SPECS.get(label.strip())
        if not colon or spec is None:
            raise InvalidRequest("override_settings", f'override_settings: "{text}" is not an option; write for example '
                                                      '"Clip skip: 2"')
        options[spec.name] = typed(value.strip(), getattr(current, spec.name))
    return options


def extras_said(values: Mapping[str, Any]) -> bool:
    """Whether any widget under Extra has an effect."""
    resized = min(values.get("seed_resize_from_w", 0), values.get("seed_resize_from_h", 0)) > 0
    return resized or bool(values.get("subseed_strength"))


def read_value(widget: gr.components.Component, text: str) -> Any:
    """Infotext's text as a value for the widget; None if it does not fit."""
    if isinstance(widget, gr.Radio):
        labels = [label for label, _ in widget.choices]
        return labels.index(text) if text in labels else None
    if isinstance(widget, gr.Checkbox):
        return text != "False"
    if not isinstance(widget, Seed | gr.Slider):
        return text
    try:
        return typed(text, 0 if isinstance(widget, Seed) or widget.step in (1, 4, 8) else 0.0, strict=True)
    except ValueError:
        return None


def updates(controls: Controls, values: Values, menus: Menus = {}) -> tuple[dict[gr.components.Component, Any], list[str]]:
    """(updates that set the widgets, a sentence on each value that is not in its menu and left out).

    menus: choices that have changed since the page was built, by field name.
    """
    named, shown, notes = controls.named(), {}, []
    for name, value in values.items():
        if name not in named:
            continue
        widget, choices = named[name], menus.get(name)
        if not isinstance(widget, MENUS) or getattr(widget, "allow_custom_value", False):
            shown[widget] = value
            continue
        offered = [choice for _, choice in choices or widget.choices]
        if isinstance(widget, gr.Radio) and widget.type == "index":  # a radio is set by its label
            value = offered[int(value)] if 0 <= int(value) < len(offered) else value
        several = isinstance(value, list)
        kept = [one for one in (value if several else [value]) if one in offered]
        notes += [f'{widget.label}: "{one}" is not available; the current choice stays.' for one in (value if several else [value])
                  if one not in offered]
        if several or kept:
            kept = kept if several else kept[0]
            shown[widget] = kept if choices is None else gr.update(choices=choices, value=kept)
    return shown, notes


def restored(controls: Controls, settings: tuple[Values, list[str]], menus: Menus) -> dict[gr.components.Component, Any]:
    """Updates that put settings into the widgets; unavailable values are reported."""
    values, notes = settings
    shown, left_out = updates(controls, values, menus)
    for note in notes + left_out:
        warn(note)
    return shown
