"""ControlNet's section: its units' widgets, and what a preprocessor makes of a control picture before Generate."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import gradio as gr

from pipeline.annotators import Annotators
from pipeline.controlnet.preprocessors import NONE, RESIZE_MODES, Annotate, Slider as Setting, find_preprocessor, in_order, needed, shown
from pipeline.controlnet.units import NO_MODEL, TITLE, UNION_TYPES, UNITS, UNKNOWN, Unit, read_told, read_unit, read_units
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.families.controls import MODES
from pipeline.geometry import Size
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts.controlnet import map_of, own_picture
from pipeline.uploads import open_picture
from ui.editor import PictureInput
from ui.events import QUEUED
from ui.fields import WHOLE, Slider, as_lines, build_further, read_lines, too_many

PICTURE = "image"
"""The one field whose widget the browser does not keep."""
PNG_URL = "data:image/png;base64,"
TAKE = "(preview) => [preview, window.palimpsest?.painted?.({index}) ?? '']"
"""The script of the event that takes a preview: it hands over what is painted on it."""
PAINT_BAR = """<div class="paint-bar" role="group" aria-label="Paint on what the network sees">
<button type="button" data-brush="white" aria-pressed="false">Paint white</button>
<button type="button" data-brush="black" aria-pressed="false">Paint black</button>
<input type="range" min="1" max="80" value="12" aria-label="Brush size">
<button type="button" data-clear>Remove strokes</button></div>"""
SETTINGS = {"processor_res": "Resolution", "threshold_a": "Threshold A", "threshold_b": "Threshold B"}
"""A preprocessor's settings, in the order of its sliders, with their labels where it has none of its own."""
OTHERS = "others"
"""The box of further fields."""
FURTHER = ("inpaint_crop_input_image", "hr_option", "advanced_weighting")
"""The fields in it."""


@dataclass(frozen=True)
class UnitControls:
    """One unit's widgets, named after the unit's fields."""

    settings: dict[str, gr.components.Component]
    picture: PictureInput
    preview: PictureInput
    look: gr.Button
    """Shows what the preprocessor makes of the picture."""
    use: gr.Button
    """Takes that for the picture, with what is painted on it."""
    painted: gr.Textbox
    """Where the browser puts the painted preview, as a data URL; never seen."""


@dataclass(frozen=True)
class ControlNetControls:
    """All units' widgets."""

    units: list[UnitControls]

    def named(self) -> dict[str, gr.components.Component]:
        """By "ControlNet.INDEX.field", without pictures."""
        return {name_of(index, field): widget for index, unit in enumerate(self.units) for field, widget in unit.settings.items()}

    def pictures(self) -> dict[str, gr.components.Component]:
        return {name_of(index, PICTURE): unit.picture for index, unit in enumerate(self.units)}


def name_of(index: int, field: str) -> str:
    return f"{TITLE}.{index}.{field}"


UNITS_OFF = {name_of(index, "enabled"): False for index in range(UNITS)}
"""The values that switch all units off."""


def model_choices(catalog: Catalog) -> list[tuple[str, str]]:
    return [(name, name) for name in (NO_MODEL, *(name for name, _ in catalog.control_network_names()))]


def module_choices(annotators: Annotators) -> list[tuple[str, str]]:
    """The preprocessors; for one whose network is missing, with what to put where."""
    return [(one.label if annotators.has(one) else f"{one.label} ({needed(one)})", one.name) for one in in_order()]


def menus_of(models: ModelStore) -> dict[str, list[tuple[str, str]]]:
    """The current choices of the units' menus, by widget name."""
    choices = {"model": model_choices(models.catalog), "module": module_choices(models.annotators)}
    return {name_of(index, field): choices[field] for index in range(UNITS) for field in choices}


STANDING = {name_of(index, field): value for index in range(UNITS) for field, value in (("model", NO_MODEL), ("module", NONE))}
"""What these menus show at first."""


# --- widgets

def build_controlnet(models: ModelStore) -> ControlNetControls:
    with gr.Accordion(TITLE, open=False, elem_id="controlnet"):
        with gr.Tabs(elem_id="controlnet-units"):
            return ControlNetControls([build_unit(index, models) for index in range(UNITS)])


def build_unit(index: int, models: ModelStore) -> UnitControls:
    usual = Unit()
    with gr.Tab(f"Unit {index + 1}", id=index, elem_id=f"controlnet-unit-{index}"):
        enabled = gr.Checkbox(value=False, label="Use this unit", elem_id=f"controlnet-enabled-{index}")
        with gr.Row(elem_classes="pair"):
            picture = PictureInput(label="Control picture", format="png", image_mode=None, type="filepath", sources=["upload", "clipboard"],
                                   buttons=["fullscreen"], height=160, elem_id=f"controlnet-picture-{index}", elem_classes="picture")
            preview = PictureInput(label="What the network sees", format="png", type="filepath", interactive=False, height=160,
                                   buttons=["fullscreen", "download"], elem_id=f"controlnet-preview-{index}")
        with gr.Row(elem_classes="pair"):
            look = gr.Button("Preview", size="sm", min_width=80, elem_id=f"controlnet-look-{index}")
            use = gr.Button("Use as the picture", size="sm", min_width=80, elem_id=f"controlnet-use-{index}")
        gr.HTML(PAINT_BAR, elem_id=f"controlnet-paint-{index}")
        painted = gr.Textbox(visible=False)
        module = gr.Dropdown(module_choices(models.annotators), value=NONE, num_choices_shown=WHOLE, label="Preprocessor",
                             elem_id=f"controlnet-module-{index}")
        model = gr.Dropdown(model_choices(models.catalog), value=NO_MODEL, num_choices_shown=WHOLE, label="Network",
                            info="Files in models/ControlNet", elem_id=f"controlnet-model-{index}")
        weight = Slider(0, 2, value=usual.weight, step=0.05, label="Control weight")
        with gr.Row(elem_classes="pair"):
            start = Slider(0, 1, value=usual.guidance_start, step=0.01, label="Starts at")
            end = Slider(0, 1, value=usual.guidance_end, step=0.01, label="Ends at")
        perfect = gr.Checkbox(value=True, label="Pixel perfect", info="The preprocessor sees the picture at the result's size")
        sliders = {field: build_setting(setting, field) for field, setting in zip(SETTINGS, settings_of(NONE))}
        mode = gr.Dropdown(list(MODES), value=usual.control_mode, label="Control mode")
        resize = gr.Dropdown(list(RESIZE_MODES), value=usual.resize_mode, label="Control picture's resize mode")
        union = gr.Dropdown([UNKNOWN, *UNION_TYPES], value=UNKNOWN, num_choices_shown=WHOLE, label="Kind of map, for unions",
                            info="Unknown: as the preprocessor makes")
        others = build_further("inpaint_crop_input_image: false")
    settings = {"enabled": enabled, "module": module, "model": model, "weight": weight, "guidance_start": start, "guidance_end": end,
                "pixel_perfect": perfect, **sliders, "control_mode": mode, "resize_mode": resize, "union_control_type": union, OTHERS: others}
    return UnitControls(settings, picture, preview, look, use, painted)


def settings_of(module: str) -> tuple[Setting, ...]:
    one = find_preprocessor(module)
    return one.resolution, one.a, one.b


def build_setting(setting: Setting, field: str) -> Slider:
    return Slider(setting.minimum, setting.maximum, value=setting.value, step=setting.step, label=SETTINGS[field], visible=False)


def wire_controlnet(controls: ControlNetControls, models: ModelStore, width: gr.Slider, height: gr.Slider) -> None:
    for index, unit in enumerate(controls.units):
        settings = unit.settings
        sliders = [settings[field] for field in SETTINGS]
        gr.on([settings["module"].change, settings["pixel_perfect"].change], ranges, [settings["module"], settings["pixel_perfect"]], sliders, **QUEUED)
        settings["module"].input(lambda module: [setting.value for setting in settings_of(module)], settings["module"], sliders, **QUEUED)
        unit.look.click(partial(look, models.annotators.annotate), [unit.picture, width, height], unit.preview, inputs_kwargs=settings, **QUEUED)
        unit.use.click(use, [unit.preview, unit.painted], [unit.picture, settings["module"], unit.painted], js=TAKE.format(index=index), **QUEUED)


def ranges(module: str, perfect: bool) -> list[gr.Slider]:
    """The sliders of a preprocessor's settings; the resolution is not asked where it follows from the result."""
    resolution, *others = settings_of(module)
    shows = [(resolution, resolution.visible and not perfect and module != NONE), *((setting, setting.visible) for setting in others)]
    return [gr.Slider(label=setting.label, minimum=setting.minimum, maximum=setting.maximum, step=setting.step, visible=True) if visible
            else gr.Slider(visible=False) for setting, visible in shows]


def look(annotate: Annotate, picture: str | None, width: int, height: int, **settings: Any) -> Any:
    """What the preprocessor makes of the picture, at the size of the result."""
    if picture is None:
        raise PalimpsestError("Add a control picture first, to see what the preprocessor makes of it.")
    unit = read_unit(fields_of(settings) | {PICTURE: open_picture(picture, PICTURE).image}).settled()
    image, mask = own_picture(unit)
    return shown(map_of(unit, unit.preprocessor, image, mask, Size(width // 8 * 8, height // 8 * 8), unit.resize_mode, 0, annotate))


def use(preview: str | None, painted: str) -> tuple[Any, str, str]:
    """(the preview as it was painted on, no preprocessor, nothing painted)."""
    if preview is None:
        raise PalimpsestError("There is no preview yet to use.")
    if not painted:
        return preview, NONE, ""
    try:
        data = base64.b64decode(painted.removeprefix(PNG_URL), validate=True)
    except ValueError:
        raise InvalidRequest(PICTURE, "image: what was painted is damaged") from None
    return open_picture(data, PICTURE).image, NONE, ""


# --- widgets ↔ requests

def packed_units(values: dict[str, Any]) -> dict[str, Any]:
    """The request's alwayson_scripts for the units that are on; takes all units' values out of `values`."""
    units: dict[int, dict[str, Any]] = {}
    for name in [name for name in values if name.startswith(f"{TITLE}.")]:
        _, index, field = name.split(".")
        units.setdefault(int(index), {})[field] = values.pop(name)
    on = {index: unit for index, unit in units.items() if unit.get("enabled")}
    if not on:
        return {}
    args = [packed_unit(index, on[index]) if index in on else {"enabled": False} for index in range(max(on) + 1)]
    return {TITLE: {"args": args}}


def packed_unit(index: int, unit: Mapping[str, Any]) -> dict[str, Any]:
    """A unit as in a request, checked. Raises InvalidRequest."""
    picture = unit.get(PICTURE)
    try:
        given = fields_of(unit) | {"save_detected_map": False}  # the page has its preview instead
        if picture is not None:
            given[PICTURE] = open_picture(picture, PICTURE).image
        read_unit(given)
    except InvalidRequest as error:
        raise InvalidRequest(TITLE, f"{TITLE}, unit {index + 1}: {error}") from None
    return given


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A unit's fields for its widgets' values, without its picture. Raises InvalidRequest."""
    given = {name: value for name, value in values.items() if value is not None and name != PICTURE}
    return given | read_lines(given.pop(OTHERS, ""), FURTHER)


def units_of(p: StableDiffusionProcessingImg2Img) -> list[Unit]:
    """An earlier request's units."""
    given = next((given for title, given in p.alwayson_scripts.items() if title.lower() == TITLE.lower()), {})
    return list(read_units(given.get("args", []) if isinstance(given, Mapping) else given).units)


def units_left_out(p: StableDiffusionProcessingImg2Img) -> list[str]:
    """Sentences on what of an earlier request's units has no place on the page."""
    kinds, units = {"mask": "mask", "effective_region_mask": "region mask"}, units_of(p)
    return too_many(TITLE, "units", units, UNITS) + [f"{TITLE} unit {index + 1}: its {kind} has no place on the page, and was left out." for index, unit in enumerate(units)
            for field, kind in kinds.items() if unit.enabled and getattr(unit, field) is not None]


def spread_units(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """The widgets' values for an earlier request, without its pictures: the inverse of packed_units()."""
    return values_of(units_of(p))


def told_units(params: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(the widgets' values for an infotext, sentences on what could not be read)."""
    units, notes = read_told(params)
    return values_of([read_unit(unit) for unit in units]), notes + too_many(TITLE, "units", units, UNITS)


def values_of(units: list[Unit]) -> dict[str, Any]:
    """The values of all units' widgets; units beyond the last are off."""
    shown_fields = {spec.name for spec in fields(Unit)} - {PICTURE, "mask", "effective_region_mask", "save_detected_map", *FURTHER}
    values: dict[str, Any] = dict(UNITS_OFF)
    usual = Unit()
    for index, unit in enumerate(units[:UNITS]):
        settled = unit.settled()
        values |= {name_of(index, name): getattr(settled, name) for name in shown_fields}
        values[name_of(index, "module")] = unit.preprocessor.name
        others = {name: value for name in FURTHER if (value := getattr(unit, name)) != getattr(usual, name)}
        values[name_of(index, OTHERS)] = as_lines({name: list(value) if isinstance(value, tuple) else value for name, value in others.items()})
    return values
