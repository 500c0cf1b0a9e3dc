"""What a request takes over from an infotext: the fields that it leaves out, and options."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from api.models import GenerationRequest
from pipeline.errors import InvalidRequest
from pipeline.infotext import apply_backcompat, parse
from pipeline.pasting import pasted_options

FIELDS = {
    "Steps": "steps", "Sampler": "sampler_name", "Schedule type": "scheduler", "Seed": "seed", "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength", "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h", "Refiner": "refiner_checkpoint", "Refiner switch at": "refiner_switch_at",
}
"""The others of a request are not taken from infotext, as in A1111."""


def paste(request: GenerationRequest, current: Mapping[str, Any]) -> GenerationRequest:
    """The request with what its infotext says of fields that it leaves out and of options that are now different.

    current: every option with its value. What the request says itself wins. Raises InvalidRequest.
    """
    if not request.infotext:
        return request
    params = apply_backcompat(parse(request.infotext))
    said = {name: params[label] for label, name in FIELDS.items() if label in params and name not in request.model_fields_set}
    said["override_settings"] = pasted_options(params, current) | (request.override_settings or {})
    try:
        return type(request).model_validate(request.model_dump() | said)
    except ValidationError as error:
        wrong = ", ".join(str(found["loc"][0]) for found in error.errors())
        raise InvalidRequest("infotext", f"infotext: what it says of {wrong} cannot be read") from None
