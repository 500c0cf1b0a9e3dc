"""ControlNet units: one network with its picture and settings, as requests name them and infotext records them.

Names, aliases, defaults and order are the extension's. In a request a unit is an object whose pictures are pictures; the API
decodes them before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from PIL import Image

from pipeline.controlnet.preprocessors import AUTO, NONE, RESIZE_MODES, Preprocessor, find_preprocessor
from pipeline.errors import InvalidRequest
from pipeline.families.controls import MODES, ControlNetwork
from pipeline.options import number

TITLE = "ControlNet"
"""The script's."""
FIELD = "alwayson_scripts"
NO_MODEL = "None"
UNITS = 3
"""On the page, as by the extension's default."""
MOST_UNITS = 10
ALIASES = {"input_image": "image", "mask_image": "mask", "guidance": "guidance_end", "lowvram": "low_vram"}
RESIZE_ALIASES = {"Inner Fit (Scale to Fit)": "Crop and Resize", "Scale to Fit (Inner Fit)": "Crop and Resize",
                  "Outer Fit (Shrink to Fit)": "Resize and Fill", "Envelope (Outer Fit)": "Resize and Fill"}
LATENT_UPSCALE = 3
"""A1111's number for a fourth resize mode, which here means the first."""
UNION_TYPES = ("OpenPose", "Depth", "Soft Edge", "Hard Edge", "Normal Map", "Segmentation", "Tile", "Inpaint")
"""What a union can be given, in the order of its numbers; the first unions have six."""
UNKNOWN = "Unknown"
BOTH, LOW, HIGH = HIRES = ("Both", "Low res only", "High res only")
"""The passes of hires fix in which a unit acts."""
UNION_BY_TAG = {"OpenPose": "OpenPose", "Depth": "Depth", "SoftEdge": "Soft Edge", "Scribble": "Soft Edge", "Canny": "Hard Edge", "Lineart": "Hard Edge",
                "MLSD": "Hard Edge", "NormalMap": "Normal Map", "Segmentation": "Segmentation", "Tile": "Tile", "Inpaint": "Inpaint"}
"""What a preprocessor's map is for a union, by its control type."""


@dataclass(frozen=True)
class Unit:
    """A ControlNet unit. Raises InvalidRequest for values out of range."""

    enabled: bool = False
    module: str = NONE
    """A preprocessor's name or alias."""
    model: str = NO_MODEL
    weight: float = 1.0
    image: Image.Image | None = None
    """None: the source picture."""
    mask: Image.Image | None = None
    """White where an inpainting network paints."""
    resize_mode: str = RESIZE_MODES[1]
    processor_res: int = -1
    threshold_a: float = -1
    threshold_b: float = -1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    pixel_perfect: bool = False
    control_mode: str = MODES[0]
    inpaint_crop_input_image: bool = True
    """Whether only the area that is edited counts, where only the masked area is."""
    save_detected_map: bool = True
    """Whether the map is returned with the pictures."""
    advanced_weighting: tuple[float, ...] | None = None
    effective_region_mask: Image.Image | None = None
    union_control_type: str = UNKNOWN
    hr_option: str = BOTH
    """Without hires fix it has no effect."""

    def __post_init__(self) -> None:
        find_preprocessor(self.module)
        if self.guidance_start > self.guidance_end:
            raise InvalidRequest("guidance_start", f"guidance_start must not be above guidance_end, got {self.guidance_start} and {self.guidance_end}")
        if self.mask is not None and self.image is None:
            raise InvalidRequest("mask", "mask: it needs an image")

    @property
    def preprocessor(self) -> Preprocessor:
        return find_preprocessor(self.module)

    def acts(self, *, hires: bool, second_pass: bool) -> bool:
        """Whether it acts in a pass of a request. hires: it has two passes."""
        return self.enabled and (not hires or self.hr_option != (LOW if second_pass else HIGH))

    def for_network(self, network: ControlNetwork) -> Self:
        """With the preprocessor that an IP-Adapter needs, if it names none. Raises InvalidRequest for one that does not suit the network."""
        reads = network.reads is not None
        chosen = replace(self, module=AUTO) if reads and self.preprocessor.name == NONE else self
        if reads != chosen.preprocessor.of_ip_adapters:
            raise InvalidRequest("module", f'module: "{self.module}" does not suit "{network.name}", which ' + (
                f'is an IP-Adapter; use "{AUTO}"' if reads else "is not an IP-Adapter"))
        if reads and self.advanced_weighting is not None:
            raise InvalidRequest("advanced_weighting", "advanced_weighting: IP-Adapters take one weight for all layers")
        return chosen

    def settled(self) -> Self:
        """With the preprocessor's settings in range, as infotext records them."""
        settings = self.preprocessor.settings(self.processor_res, self.threshold_a, self.threshold_b)
        return replace(self, processor_res=settings.resolution, threshold_a=settings.a, threshold_b=settings.b)


# --- reading a request

@dataclass(frozen=True)
class Units:
    """All units of a request, in order, the ones that are off included."""

    units: tuple[Unit, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Sentences for the person who asked."""

    @property
    def enabled(self) -> bool:
        return any(unit.enabled for unit in self.units)


def read_units(args: Any) -> Units:
    """The units in a request's list of arguments. Raises InvalidRequest."""
    if not isinstance(args, list | tuple):
        raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}": args must be a list of units, got {type(args).__name__}')
    given = [unit for unit in args if isinstance(unit, Mapping)]  # older clients send a true or false first
    if len(given) > MOST_UNITS:
        raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}": at most {MOST_UNITS} units, got {len(given)}')
    units, notes = [], []
    for index, unit in enumerate(given):
        try:
            units.append(read_unit(unit))
        except InvalidRequest as error:
            raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", unit {index}: {error}') from None
        if "enabled" not in unit and units[-1].model != NO_MODEL:
            notes.append(f'ControlNet unit {index} does not say "enabled": true, so it was left out.')
    return Units(tuple(units), tuple(notes))


def read_unit(given: Mapping[str, Any]) -> Unit:
    """One unit; unknown keys are ignored. Raises InvalidRequest."""
    values = {ALIASES.get(key, key): value for key, value in given.items() if ALIASES.get(key, key) == key or value is not None}
    if values.get("ipadapter_input") not in (None, [], ""):
        raise InvalidRequest("ipadapter_input", "ipadapter_input is a pickle, which can run code when it is read; it is not supported")
    known = {name: read(name, values[name]) for name, read in READERS.items() if values.get(name) is not None}
    image, mask = read_picture(values.get("image"))
    own_mask, _ = read_picture(values.get("mask"), "mask")
    return Unit(**known, image=image, mask=own_mask if mask is None else mask,
                effective_region_mask=read_picture(values.get("effective_region_mask"), "effective_region_mask")[0])


def read_picture(value: Any, name: str = "image") -> tuple[Image.Image | None, Image.Image | None]:
    """(picture, mask) of a picture, {"image": …, "mask": …} or [picture, mask]. Raises InvalidRequest."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | tuple) and len(value) == 2 and not any(isinstance(one, Mapping) for one in value):
        value = {"image": value[0], "mask": value[1]}
    if isinstance(value, list | tuple):
        raise InvalidRequest(name, f"{name}: one picture per unit, got {len(value)}")
    if isinstance(value, Mapping):
        return read_picture(value.get("image"), name)[0], read_picture(value.get("mask"), "mask")[0]
    if value is None or value == "":
        return None, None
    if not isinstance(value, Image.Image):
        raise InvalidRequest(name, f"{name} must be a picture in base64, got {type(value).__name__}")
    return value, None


def read_flag(name: str, value: Any) -> bool:
    if value not in (True, False):
        raise InvalidRequest(name, f"{name} must be true or false, got {value!r}")
    return bool(value)


def read_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(name, f"{name} must be text, got {value!r}")
    return value


def read_choice(name: str, value: Any, choices: tuple[str, ...], aliases: Mapping[str, str] = {}) -> str:
    """A choice by its name or number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        return choices[value]
    named = aliases.get(value, value) if isinstance(value, str) else value
    if named not in choices:
        raise InvalidRequest(name, f"{name} must be one of {', '.join(choices)}, or 0 to {len(choices) - 1}, got {value!r}")
    return named


def read_layers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidRequest(name, f"{name} must be a list of numbers, got {value!r}")
    return tuple(number(name, one, float, -100, 100) for one in value)


def read_resize_mode(name: str, value: Any) -> str:
    return RESIZE_MODES[0] if value == LATENT_UPSCALE else read_choice(name, value, RESIZE_MODES, RESIZE_ALIASES)


READERS = {
    "enabled": read_flag, "module": read_text, "model": read_text,
    "weight": lambda name, value: number(name, value, float, 0, 2),
    "resize_mode": read_resize_mode,
    "processor_res": lambda name, value: int(number(name, value, float, -1, 1 << 16)),
    "threshold_a": lambda name, value: number(name, value, float, -1e6, 1e6),
    "threshold_b": lambda name, value: number(name, value, float, -1e6, 1e6),
    "guidance_start": lambda name, value: number(name, value, float, 0, 1),
    "guidance_end": lambda name, value: number(name, value, float, 0, 1),
    "pixel_perfect": read_flag,
    "control_mode": lambda name, value: read_choice(name, value, MODES),
    "inpaint_crop_input_image": read_flag, "save_detected_map": read_flag,
    "advanced_weighting": read_layers,
    "union_control_type": lambda name, value: read_choice(name, value, (*UNION_TYPES, UNKNOWN)),
    "hr_option": lambda name, value: read_choice(name, value, HIRES),
}
"""How each field but the pictures is read."""


def union_kind(unit: Unit, types: int) -> int:
    """The number of what a union gets, which has that many. Raises InvalidRequest."""
    name = unit.union_control_type
    if name == UNKNOWN:
        name = next((UNION_BY_TAG[tag] for tag in unit.preprocessor.tags if tag in UNION_BY_TAG), UNKNOWN)
    if name not in UNION_TYPES[:types]:
        raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}": union_control_type must be one of {", ".join(UNION_TYPES[:types])} for '
                                    f'"{unit.model}", got {name!r}')
    return UNION_TYPES.index(name)


# --- infotext

RECORDED = ("module", "model", "weight", "resize_mode", "processor_res", "threshold_a", "threshold_b", "guidance_start",
            "guidance_end", "pixel_perfect", "control_mode")
"""The fields in infotext, in order."""
LABELS = {name: " ".join(word.capitalize() for word in name.split("_")) for name in RECORDED}
KEY = re.compile(r"ControlNet (\d{1,2})")


def infotext_key(index: int) -> str:
    return f"{TITLE} {index}"


def told(unit: Unit) -> str | None:
    """A unit's infotext; None if a name in it holds what separates its parts, as in the extension."""
    values = {LABELS[name]: str(getattr(unit.settled(), name)) for name in RECORDED}
    if any(mark in value for value in values.values() for mark in ",:"):
        return None
    return ", ".join(f"{label}: {value}" for label, value in values.items())


def read_told(params: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(the units in an infotext's parameters by their numbers, switched on, without pictures; a sentence on each that cannot be read).

    {} stands for a number without a unit.
    """
    fields_by_label = {label: name for name, label in LABELS.items()}
    units, notes = {}, []
    for index, text in sorted((int(found[1]), text) for key, text in params.items() if (found := KEY.fullmatch(key))):
        said = dict(pair.split(": ", 1) for pair in text.split(", ") if ": " in pair)
        values = {fields_by_label[label]: typed(value) for label, value in said.items() if label in fields_by_label}
        try:
            if not values:
                raise InvalidRequest(FIELD, f'"{text}" holds no setting')
            read_unit(values)
            if index >= MOST_UNITS:
                raise InvalidRequest(FIELD, f"a request has at most {MOST_UNITS} units")
        except InvalidRequest as error:
            notes.append(f"{TITLE} unit {index} was left out: {error}.")
            continue
        units[index] = values | {"enabled": True}
    return [units.get(index, {}) for index in range(max(units, default=-1) + 1)], notes


def typed(text: str) -> Any:
    """A value in infotext: true or false, a number, or text."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
