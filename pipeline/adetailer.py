"""ADetailer's passes: each finds something in a finished picture and redoes it. Their fields, as requests name them and infotext records them.

Names, defaults and order are the extension's, of its version 25.3.0.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.detectors.masks import FILTERS, MERGES
from pipeline.errors import InvalidRequest
from pipeline.options import number

TITLE = "ADetailer"
"""The script's."""
VERSION = "25.3.0"
FIELD = "alwayson_scripts"
OFF = "None"
"""A model that finds nothing."""
PASSTHROUGH = "Passthrough"
"""ad_controlnet_model: the request's own units."""
SAME_SAMPLER, SAME_SCHEDULER = "Use same sampler", "Use same scheduler"
SAME_CHECKPOINT, SAME_VAE = ("None", "", "Use same checkpoint"), ("None", "", "Use same VAE")
PASSES = 2
"""On the page, as by the extension's default."""
MOST_PASSES = 15
ALIASES = {"ad_mask_k_largest": "ad_mask_k", "ad_tap_enable": "ad_tab_enable"}
"""Names of earlier versions."""
IGNORED = ("is_api", "ad_apply_on_hires_only", "ad_hires_fix_only")
"""Further names that mean nothing here, and need no sentence."""


def told(label: str, default: Any, **how: Any) -> Any:
    """A field with its name in infotext. low, high: its range; choices: its values."""
    return field(default=default, metadata={"label": f"{TITLE} {label}", **how})


@dataclass(frozen=True)
class Pass:
    """One pass. Raises InvalidRequest for values out of range."""

    ad_model: str = told("model", OFF)
    """A detector's name."""
    ad_model_classes: str = told("model classes", "")
    """Names of classes, separated by commas; only these are looked for."""
    ad_tab_enable: bool = told("tab enable", True)
    ad_prompt: str = told("prompt", "")
    """Empty: the picture's. [SEP] separates the prompts of the first find, the second and so on, [SKIP] leaves a find alone, and
    [PROMPT] stands for the picture's."""
    ad_negative_prompt: str = told("negative prompt", "")
    ad_confidence: float = told("confidence", 0.3, low=0, high=1)
    ad_mask_filter_method: str = told("method to decide top k masks", FILTERS[0], choices=FILTERS)
    ad_mask_k: int = told("mask only top k", 0, low=0, high=1000)
    """Only so many; 0: all."""
    ad_mask_min_ratio: float = told("mask min ratio", 0.0, low=0, high=1)
    """Of the picture's area; smaller boxes do not count."""
    ad_mask_max_ratio: float = told("mask max ratio", 1.0, low=0, high=1)
    ad_x_offset: int = told("x offset", 0, low=-8192, high=8192)
    """Pixels to the right."""
    ad_y_offset: int = told("y offset", 0, low=-8192, high=8192)
    """Pixels up."""
    ad_dilate_erode: int = told("dilate erode", 4, low=-1024, high=1024)
    ad_mask_merge_invert: str = told("mask merge invert", MERGES[0], choices=MERGES)
    ad_mask_blur: int = told("mask blur", 4, low=0, high=256)
    ad_denoising_strength: float = told("denoising strength", 0.4, low=0, high=1)
    ad_inpaint_only_masked: bool = told("inpaint only masked", True)
    ad_inpaint_only_masked_padding: int = told("inpaint padding", 32, low=0, high=8192)
    ad_use_inpaint_width_height: bool = told("use inpaint width height", False)
    ad_inpaint_width: int = told("inpaint width", 512, low=8, high=8192)
    ad_inpaint_height: int = told("inpaint height", 512, low=8, high=8192)
    ad_use_steps: bool = told("use separate steps", False)
    ad_steps: int = told("steps", 28, low=1, high=1000)
    ad_use_cfg_scale: bool = told("use separate CFG scale", False)
    ad_cfg_scale: float = told("CFG scale", 7.0, low=0, high=1000)
    ad_use_checkpoint: bool = told("use separate checkpoint", False)
    ad_checkpoint: str = told("checkpoint", "Use same checkpoint")
    ad_use_vae: bool = told("use separate VAE", False)
    ad_vae: str = told("VAE", "Use same VAE")
    ad_use_sampler: bool = told("use separate sampler", False)
    ad_sampler: str = told("sampler", "DPM++ 2M Karras")
    ad_scheduler: str = told("scheduler", SAME_SCHEDULER)
    ad_use_noise_multiplier: bool = told("use separate noise multiplier", False)
    ad_noise_multiplier: float = told("noise multiplier", 1.0, low=0.5, high=1.5)
    ad_use_clip_skip: bool = told("use separate CLIP skip", False)
    ad_clip_skip: int = told("CLIP skip", 1, low=1, high=12)
    ad_restore_face: bool = told("restore face", False)
    ad_controlnet_model: str = told("ControlNet model", OFF)
    ad_controlnet_module: str = told("ControlNet module", OFF)
    ad_controlnet_weight: float = told("ControlNet weight", 1.0, low=0, high=1)
    ad_controlnet_guidance_start: float = told("ControlNet guidance start", 0.0, low=0, high=1)
    ad_controlnet_guidance_end: float = told("ControlNet guidance end", 1.0, low=0, high=1)

    @property
    def acts(self) -> bool:
        return self.ad_model != OFF and self.ad_tab_enable

    @property
    def classes(self) -> list[str]:
        return [name.strip() for name in self.ad_model_classes.split(",") if name.strip()]


SPECS = {spec.name: spec for spec in fields(Pass)}
USED_WITH = {
    "ad_mask_filter_method": "ad_mask_k", "ad_inpaint_only_masked_padding": "ad_inpaint_only_masked",
    "ad_inpaint_width": "ad_use_inpaint_width_height", "ad_inpaint_height": "ad_use_inpaint_width_height", "ad_steps": "ad_use_steps",
    "ad_cfg_scale": "ad_use_cfg_scale", "ad_checkpoint": "ad_use_checkpoint", "ad_vae": "ad_use_vae", "ad_sampler": "ad_use_sampler",
    "ad_scheduler": "ad_use_sampler", "ad_noise_multiplier": "ad_use_noise_multiplier", "ad_clip_skip": "ad_use_clip_skip",
    **{f"ad_controlnet_{name}": "ad_controlnet_model" for name in ("module", "weight", "guidance_start", "guidance_end")}}
"""Fields that count only where another one is on."""
ALWAYS_TOLD = ("ad_model", "ad_confidence", "ad_dilate_erode", "ad_mask_blur", "ad_denoising_strength", "ad_inpaint_only_masked")
"""Fields in every infotext; most others only where they are not the default."""
TOLD_WITH_OWNER = ("ad_mask_filter_method", "ad_inpaint_only_masked_padding", "ad_inpaint_width", "ad_inpaint_height", "ad_steps", "ad_cfg_scale",
                   "ad_checkpoint", "ad_vae", "ad_sampler", "ad_noise_multiplier", "ad_clip_skip")
"""Those told with their default too, if the field that switches them on is."""


# --- reading a request

@dataclass(frozen=True)
class Details:
    """All passes of a request, in order, the ones that are off included."""

    passes: tuple[Pass, ...] = ()
    on: bool = True
    skip_img2img: bool = False
    """Whether the source itself is detailed, in place of a picture made from it."""
    notes: tuple[str, ...] = ()
    """Sentences for the person who asked."""

    @property
    def enabled(self) -> bool:
        return self.on and any(one.acts for one in self.passes)


def read_details(args: Any) -> Details:
    """The passes in a request's list of arguments: up to two switches, then an object for each pass. Raises InvalidRequest."""
    if not isinstance(args, list | tuple):
        raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}": args must be a list, such as [true, false, {{"ad_model": "face_yolov8n.pt"}}], '
                                    f"got {type(args).__name__}")
    given = [one for one in args if isinstance(one, Mapping)]
    switches = [one for one in args[:2] if isinstance(one, bool)]
    if len(given) > MOST_PASSES:
        raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}": at most {MOST_PASSES} passes, got {len(given)}')
    on = switches[0] if switches and isinstance(args[0], bool) else True
    passes, notes = [], []
    for index, one in enumerate(given):
        if not on or one.get("ad_model", OFF) in (OFF, None, ""):  # what is off is not checked either
            passes.append(Pass())
            continue
        try:
            passes.append(read_pass(one))
        except InvalidRequest as error:
            raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", pass {index + 1}: {error}') from None
        unknown = [str(key) for key in one if ALIASES.get(key, key) not in SPECS and key not in IGNORED]
        if unknown and passes[-1].acts:
            notes.append(f"{TITLE} does not know {', '.join(unknown)[:200]}, so it was left out.")
    return Details(tuple(passes), on, len(switches) > 1 and switches[1], tuple(notes))


def read_pass(given: Mapping[str, Any]) -> Pass:
    """One pass; unknown names are left out, and null means the default. Raises InvalidRequest."""
    values = {name: value for key, value in given.items() if (name := ALIASES.get(key, key)) in SPECS and value is not None}
    return Pass(**{name: checked(name, value) for name, value in values.items()})


def checked(name: str, value: Any) -> Any:
    """A field's value in its type and range. Raises InvalidRequest."""
    spec = SPECS[name]
    if spec.type is bool:
        if value not in (True, False):
            raise InvalidRequest(name, f"{name} must be true or false, got {value!r}")
        return bool(value)
    if spec.type in (int, float):
        read = number(name, value, spec.type, spec.metadata["low"], spec.metadata["high"])
        return value if isinstance(value, int | float) and spec.type is float else read  # infotext prints it as it was given
    if not isinstance(value, str):
        raise InvalidRequest(name, f"{name} must be text, got {value!r}")
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise InvalidRequest(name, f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


# --- prompts

SEPARATOR = re.compile(r"\s*\[SEP\]\s*")
SKIP = re.compile(r"\s*\[SKIP\]\s*")
PLACE = "[PROMPT]"


def prompts_for(text: str, pictures: str) -> list[str]:
    """The prompts for the finds, the last one for all further ones. pictures: the picture's own."""
    return [part.replace(PLACE, f" {pictures} ") if part else pictures for part in SEPARATOR.split(text)]


def is_skip(prompt: str) -> bool:
    """Whether a find is to be left alone."""
    return SKIP.fullmatch(prompt) is not None


# --- infotext

def suffix(index: int) -> str:
    """After a pass's names in infotext: nothing, " 2nd", " 3rd", …"""
    place = index + 1
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f" {place}{ending}" if index else ""


def infotext_of(details: Details) -> dict[str, Any]:
    """The parameters that infotext records."""
    record = {}
    for index, one in enumerate(details.passes):
        if one.acts:
            record |= {f"{spec.metadata['label']}{suffix(index)}": getattr(one, name) for name, spec in SPECS.items() if is_told(one, name)}
    return record | {f"{TITLE} version": VERSION}


def is_told(one: Pass, name: str) -> bool:
    owner, value = USED_WITH.get(name), getattr(one, name)
    if owner is not None and getattr(one, owner) in (False, 0, OFF):
        return False
    return name in ALWAYS_TOLD or name in TOLD_WITH_OWNER or value != SPECS[name].default


def read_told(params: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(the passes in an infotext's parameters, as a request gives them, a sentence on each that cannot be read).

    {} stands for one without a model.
    """
    passes, notes = [], []
    for index in range(MOST_PASSES):
        said = {name: params[key] for name, spec in SPECS.items() if (key := f"{spec.metadata['label']}{suffix(index)}") in params}
        if (earlier := params.get(f"{TITLE} mask only top k largest{suffix(index)}")) is not None:  # as earlier versions say it
            said.setdefault("ad_mask_k", earlier)
        values = {name: text == "True" if SPECS[name].type is bool else text for name, text in said.items()}
        try:
            read_pass(values)
        except InvalidRequest as error:
            values = {}
            notes.append(f"{TITLE} pass {index + 1} was left out: {error}.")
        passes.append(values if "ad_model" in values else {})
    while passes and not passes[-1]:
        passes.pop()
    return passes, notes
