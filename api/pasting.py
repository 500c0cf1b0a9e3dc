"""Completes a request from an infotext: fields left out, and options."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from api.models import GenerationRequest, Img2ImgRequest, Txt2ImgRequest
from pipeline import adetailer
from pipeline.controlnet import units
from pipeline.detectors.store import FOLDER, Detectors
from pipeline.errors import InvalidRequest, PalimpsestError, UnknownName
from pipeline.infotext import apply_backcompat, parse
from pipeline.models import Catalog
from pipeline.pasting import FIELDS, pasted_options
from pipeline.samplers import SAMPLERS, split_schedule
from pipeline.samplers.schedules import find_schedule
from pipeline.scripts.soft_inpainting import KEYS, SoftInpainting

TAKEN = ("Steps", "Sampler", "Schedule type", "Seed", "Variation seed", "Variation seed strength", "Seed resize from-1",
         "Seed resize from-2", "Refiner", "Refiner switch at")
"""Infotext's names of the fields that a request takes from it; no others, as in A1111."""
HIRES = {"Denoising strength": "denoising_strength", "Hires upscale": "hr_scale", "Hires upscaler": "hr_upscaler",
         "Hires steps": "hr_second_pass_steps", "Hires resize-1": "hr_resize_x", "Hires resize-2": "hr_resize_y",
         "Hires checkpoint": "hr_checkpoint_name", "Hires sampler": "hr_sampler_name", "Hires schedule type": "hr_scheduler",
         "Hires CFG Scale": "hr_cfg", "Hires Distilled CFG Scale": "hr_distilled_cfg", "Hires prompt": "hr_prompt", "Hires negative prompt": "hr_negative_prompt"}
"""Infotext's name → txt2img's field, taken from the infotext of a picture with hires fix."""
FIRST_SAMPLER = next(iter(SAMPLERS))
SOFT = "soft inpainting"
"""The always-on script, by its name in requests."""


def paste(request: GenerationRequest, current: Mapping[str, Any], catalog: Catalog) -> tuple[GenerationRequest, list[str]]:
    """(the request with its infotext's values for missing fields and changed options, sentences on values that are not
    available here).

    current: every option with its value. The request's own values win. Raises InvalidRequest.
    """
    if not request.infotext:
        return request, []
    params = apply_backcompat(parse(request.infotext))
    params["Sampler"], params["Schedule type"] = pasted_names(params)
    options, notes = pasted_options(params, current, catalog.find_files)
    if "Refiner" in params and not is_there(params["Refiner"], catalog):
        notes.append(f'The refiner {params.pop("Refiner")} was not found; the current one stays.')
    said = {FIELDS[label]: params[label] for label in TAKEN
            if label in params and FIELDS[label] not in request.model_fields_set}
    if isinstance(request, Txt2ImgRequest) and has_hires(params):
        found = {name: params[label] for label, name in HIRES.items() if label in params} | {"enable_hr": True}
        said |= {name: value for name, value in found.items() if name not in request.model_fields_set}
    always, unscripted = with_scripts(request, params, catalog)
    if always != (request.alwayson_scripts or {}):
        said["alwayson_scripts"] = always
    notes += unscripted
    said["override_settings"] = options | (request.override_settings or {})
    try:
        return type(request).model_validate(request.model_dump(exclude_unset=True) | said), notes
    except ValidationError as error:
        wrong = ", ".join(str(found["loc"][0]) for found in error.errors())
        raise InvalidRequest("infotext", f"infotext: {wrong} cannot be read") from None


def pasted_names(params: Mapping[str, str]) -> tuple[str, str]:
    """The sampler and the schedule in infotext.

    A1111: no sampler means the first one; a schedule that is the sampler's own default becomes "Automatic", even if the request
    names another sampler. An unknown sampler counts as the first one.
    """
    sampler, ending = split_schedule(params.get("Sampler", FIRST_SAMPLER))
    label = ending or params["Schedule type"]
    schedule, own = find_schedule(label), SAMPLERS.get(sampler, SAMPLERS[FIRST_SAMPLER]).scheduler
    return sampler, "Automatic" if schedule is not None and schedule.name == own else label


def has_hires(params: Mapping[str, str]) -> bool:
    """Whether an infotext is that of a picture with hires fix."""
    sizes = (params.get(name, "0") for name in ("Hires resize-1", "Hires resize-2"))
    return "Denoising strength" in params and ("Hires upscale" in params or "Hires upscaler" in params or any(size != "0" for size in sizes))


def with_scripts(request: GenerationRequest, params: Mapping[str, str], catalog: Catalog) -> tuple[dict[str, Any], list[str]]:
    """(the request's always-on scripts, completed from an infotext, sentences on what cannot be used here)."""
    always, source = dict(request.alwayson_scripts or {}), isinstance(request, Img2ImgRequest)
    named = {title.lower(): title for title in always}
    if source and SOFT not in named:
        always |= soft_inpainting(params)
    title, notes = named.get(units.TITLE.lower(), units.TITLE), []
    if (found := units.read_told(params))[0] or found[1]:
        args, notes = with_units(always.get(title), found[0], catalog, source=source)
        always, notes = always if args is None else always | {title: {"args": args}}, found[1] + notes
    if adetailer.TITLE.lower() not in named:
        passes, unread = told_passes(params, catalog)
        always, notes = always | passes, notes + unread
    return always, notes


def with_units(given: Any, told: list[dict[str, Any]], catalog: Catalog, *, source: bool) -> tuple[list[Any] | None, list[str]]:
    """(the arguments of ControlNet, its units completed from those of an infotext; None: as they were, sentences on those left out).

    The request's own values win, and a unit that it switches off stays off. source: whether there is one for units without a picture.
    """
    args = given.get("args") if isinstance(given, Mapping) else given
    if args is not None and not isinstance(args, list):
        return None, []
    own = [unit for unit in args or [] if isinstance(unit, Mapping)]
    whole, notes = [told[index] | unit if index < len(told) and unit.get("enabled") else unit for index, unit in enumerate(own)], []
    for index, unit in list(enumerate(told))[len(own):]:
        try:
            if unit and not source:
                raise InvalidRequest("infotext", "infotext holds no control pictures")
            if unit:
                catalog.find_control_network(unit.get("model", ""))
        except PalimpsestError as error:
            notes.append(f"ControlNet unit {index} of the infotext was left out: {error}.")
            unit = {}
        whole.append(unit or {"enabled": False})
    return whole, notes


def told_passes(params: Mapping[str, str], catalog: Catalog) -> tuple[dict[str, Any], list[str]]:
    """(ADetailer with an infotext's passes, as in a request; empty if it has none, sentences on those left out)."""
    passes, notes = adetailer.read_told(params)
    detectors = Detectors(catalog.root / FOLDER)
    for index, one in enumerate(passes):
        try:
            if one:
                detectors.find(one["ad_model"])
        except InvalidRequest as error:
            notes.append(f"ADetailer pass {index + 1} of the infotext was left out: {error}.")
            passes[index] = {}
    return {adetailer.TITLE: {"args": [True, False, *passes]}} if any(passes) else {}, notes


def soft_inpainting(params: Mapping[str, str]) -> dict[str, Any]:
    """Soft inpainting's arguments as in a request, if infotext has any."""
    said = {name: params[key] for name, key in KEYS.items() if key in params}
    if said.get("enabled", "False") == "False":
        return {}
    given = {name: int(text) if text.isdecimal() else text for name, text in said.items()}
    return {SOFT: {"args": list((vars(SoftInpainting()) | given | {"enabled": True}).values())}}


def is_there(checkpoint: str, catalog: Catalog) -> bool:
    try:
        catalog.find_checkpoint(checkpoint)
    except UnknownName:
        return False
    return True
