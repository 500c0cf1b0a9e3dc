"""What a request takes over from an infotext: the fields that it leaves out, and options."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from api.models import GenerationRequest, Img2ImgRequest
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.infotext import apply_backcompat, parse
from pipeline.models import Catalog
from pipeline.pasting import FIELDS, pasted_options
from pipeline.samplers import SAMPLERS, split_schedule
from pipeline.samplers.schedules import find_schedule
from pipeline.scripts.soft_inpainting import KEYS, SoftInpainting

TAKEN = ("Steps", "Sampler", "Schedule type", "Seed", "Variation seed", "Variation seed strength", "Seed resize from-1",
         "Seed resize from-2", "Refiner", "Refiner switch at")
"""The fields that a request takes from infotext, by their names there; no others, as in A1111."""
FIRST_SAMPLER = next(iter(SAMPLERS))
SOFT = "soft inpainting"
"""The script that runs in every request, as requests name it."""


def paste(request: GenerationRequest, current: Mapping[str, Any], catalog: Catalog) -> tuple[GenerationRequest, list[str]]:
    """(the request with what its infotext says of fields that it leaves out and of options that are now different,
    sentences on what is not here and was left out).

    current: every option with its value. What the request says itself wins. Raises InvalidRequest.
    """
    if not request.infotext:
        return request, []
    params = apply_backcompat(parse(request.infotext))
    params["Sampler"], params["Schedule type"] = pasted_names(params)
    options, notes = pasted_options(params, current, catalog.find_vae)
    if "Refiner" in params and not is_there(params["Refiner"], catalog):
        notes.append(f'The refiner {params.pop("Refiner")} was not found; the current one stays.')
    said = {FIELDS[label]: params[label] for label in TAKEN
            if label in params and FIELDS[label] not in request.model_fields_set}
    always = request.alwayson_scripts or {}
    if isinstance(request, Img2ImgRequest) and SOFT not in map(str.lower, always):
        said["alwayson_scripts"] = always | soft_inpainting(params)
    said["override_settings"] = options | (request.override_settings or {})
    try:
        return type(request).model_validate(request.model_dump() | said), notes
    except ValidationError as error:
        wrong = ", ".join(str(found["loc"][0]) for found in error.errors())
        raise InvalidRequest("infotext", f"infotext: what it says of {wrong} cannot be read") from None


def pasted_names(params: Mapping[str, str]) -> tuple[str, str]:
    """The sampler and the schedule that infotext names.

    A1111: one that names no sampler means the first one; and the schedule that its sampler would take by itself becomes
    "Automatic", also for a request that names another sampler. A sampler that is not known counts as the first one there.
    """
    sampler, ending = split_schedule(params.get("Sampler", FIRST_SAMPLER))
    label = ending or params["Schedule type"]
    schedule, own = find_schedule(label), SAMPLERS.get(sampler, SAMPLERS[FIRST_SAMPLER]).scheduler
    return sampler, "Automatic" if schedule is not None and schedule.name == own else label


def soft_inpainting(params: Mapping[str, str]) -> dict[str, Any]:
    """Soft inpainting as a request would ask for it, where infotext speaks of it."""
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
