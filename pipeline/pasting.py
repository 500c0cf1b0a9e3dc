"""Infotext → a request's fields and options."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any

from pipeline.errors import PalimpsestError, UnknownName
from pipeline.options import BY_INFOTEXT, Options

FIELDS = {
    "Prompt": "prompt", "Negative prompt": "negative_prompt", "Steps": "steps", "Sampler": "sampler_name",
    "Schedule type": "scheduler", "CFG scale": "cfg_scale", "Distilled CFG Scale": "distilled_cfg_scale", "Image CFG scale": "image_cfg_scale", "Seed": "seed", "Size-1": "width",
    "Size-2": "height", "Denoising strength": "denoising_strength", "Variation seed": "subseed",
    "Variation seed strength": "subseed_strength", "Seed resize from-1": "seed_resize_from_w",
    "Seed resize from-2": "seed_resize_from_h", "Mask blur": "mask_blur", "Mask mode": "inpainting_mask_invert",
    "Masked content": "inpainting_fill", "Inpaint area": "inpaint_full_res", "Masked area padding": "inpaint_full_res_padding",
    "Refiner": "refiner_checkpoint", "Refiner switch at": "refiner_switch_at",
}
"""Infotext's name → the request's field. Options declare their own names."""
FILES = {"sd_vae": "VAE", "sd_text_encoders": "text encoder"}
"""Options that name files."""
NO_FILE = ("", "Automatic", "auto", "None")
"""Values that do not name a file."""


def pasted_options(params: Mapping[str, str], current: Mapping[str, Any],
                   find: Callable[[str, str], object]) -> tuple[dict[str, Any], list[str]]:
    """(the options that infotext would change, a sentence on each value that cannot be used here).

    find: is given an option and the files that it names, and raises PalimpsestError if one is missing.
    """
    said = {spec.name: typed(params[label], current[spec.name]) for label, spec in BY_INFOTEXT.items() if label in params}
    modules, notes = pasted_modules(params, find)
    options = {name: value for name, value in (modules | said).items() if value != current[name]}
    for name, value in list(options.items()):
        try:
            Options().override({name: value})
            if name in FILES and value not in NO_FILE:
                find(name, value)
        except PalimpsestError as error:
            notes.append(f"The {FILES[name]} {value} was not found; the current one stays." if isinstance(error, UnknownName)
                         and name in FILES else f"{error}; it stays as it was.")
            del options[name]
    return options, notes


def pasted_modules(params: Mapping[str, str], find: Callable[[str, str], object]) -> tuple[dict[str, str], list[str]]:
    """(the options for Forge's "Module 1", "Module 2", …, a sentence on each that is not here)."""
    found, notes = {name: [] for name in FILES}, []
    for module in (value for label, value in params.items() if re.fullmatch(r"Module \d+", label)):
        for option in FILES:
            with suppress(UnknownName):
                find(option, module)
                found[option].append(module)
                break
        else:
            notes.append(f"The module {module} was not found; the current one stays.")
    return {option: ", ".join(names) for option, names in found.items() if names}, notes


def typed(text: str, like: Any, *, strict: bool = False) -> Any:
    """Infotext's text converted to the type of `like`; unconvertible text stays text, to be refused later.

    strict: raise ValueError instead.
    """
    if isinstance(like, bool):
        return text != "False"
    try:
        return read_number(text, type(like)) if isinstance(like, int | float) else text
    except ValueError:
        if strict:
            raise
        return text


def read_number(text: str, kind: type) -> int | float:
    """The number in a text; a fraction is truncated if kind is int. Raises ValueError."""
    if kind is int:
        with suppress(ValueError):
            return int(text)  # not through a float, which has only 53 bits
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is not finite")
    return kind(number)
