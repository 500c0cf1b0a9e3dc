"""The axes of an X/Y/Z plot, in A1111's order, and the values that a text gives them."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import chain, permutations
from pathlib import PurePath
from typing import Any

import numpy as np

from pipeline.errors import InvalidRequest
from pipeline.options import SPECS
from pipeline.processing import StableDiffusionProcessingImg2Img

Request = StableDiffusionProcessingImg2Img
Apply = Callable[[Request, Any, Sequence[Any]], dict[str, Any]]
"""(request, value, all values of the axis) → the fields to change."""

MAX_VALUES = 1000
"""Per axis."""


def field(name: str) -> Apply:
    """An axis that varies a field of the request."""
    def apply(p: Request, value: Any, values: Sequence[Any]) -> dict[str, Any]:
        if not hasattr(p, name):
            raise InvalidRequest("script_args", f"script_args: this axis varies {name}, which does not exist here")
        return {name: value}
    return apply


def option(name: str, convert: Callable[[Any], Any] = lambda value: value) -> Apply:
    """An axis that varies an option."""
    def apply(p: Request, value: Any, values: Sequence[Any]) -> dict[str, Any]:
        if name not in SPECS:
            raise InvalidRequest("script_args", f"script_args: this axis varies {name}, which does not exist here")
        return {"override_settings": {name: convert(value)}}
    return apply


def nothing(p: Request, value: Any, values: Sequence[Any]) -> dict[str, Any]:
    return {}


def search_and_replace(p: Request, value: str, values: Sequence[str]) -> dict[str, Any]:
    """Both prompts with the axis's first value replaced."""
    if values[0] not in p.prompt and values[0] not in p.negative_prompt:
        raise InvalidRequest("script_args", f'script_args: Prompt S/R did not find "{values[0]}" in prompt or negative_prompt')
    return {"prompt": p.prompt.replace(values[0], value), "negative_prompt": p.negative_prompt.replace(values[0], value)}


def reorder(p: Request, words: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """The prompt with these words reordered, in the positions where they occur."""
    missing = next((word for word in words if word not in p.prompt), None)
    if missing is not None:
        raise InvalidRequest("script_args", f'script_args: Prompt order did not find "{missing}" in prompt')
    rest, prompt = p.prompt, ""
    for found, word in zip(sorted(words, key=p.prompt.find), words):
        before, _, rest = rest.partition(found)
        prompt += before + word
    return {"prompt": prompt + rest}


def add_styles(p: Request, value: str, values: Sequence[str]) -> dict[str, Any]:
    return {"styles": [*p.styles, *value.split(",")]}


def size(p: Request, value: str, values: Sequence[str]) -> dict[str, Any]:
    match = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", value)
    if match is None:
        raise InvalidRequest("script_args", f'script_args: a Size must be like 512x768, got "{value}"')
    return {"width": int(match[1]), "height": int(match[2])}


def unipc_order(p: Request, value: int, values: Sequence[int]) -> dict[str, Any]:
    return option("uni_pc_order", lambda order: min(order, p.steps - 1))(p, value, values)


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"


# --- labels

def labelled(label: str, value: Any) -> str:
    return f"{label}: {value_alone(label, value)}"


def value_alone(label: str, value: Any) -> str:
    return str(round(value, 8) if isinstance(value, float) else value)


def joined(label: str, value: Sequence[str]) -> str:
    return ", ".join(value)


def file_name(label: str, value: str) -> str:
    return PurePath(value).name


def blank(label: str, value: Any) -> str:
    return ""


@dataclass(frozen=True)
class Axis:
    """A setting that a plot can vary."""

    label: str
    kind: type = str
    """int, float or str."""
    apply: Apply = nothing
    cost: float = 0.0
    """How slow a change is: expensive axes are varied last."""
    choices: bool = False
    """Values are a list of names, unless the plot reads text."""
    legend: Callable[[str, Any], str] = labelled
    orders: bool = False
    """The values are all permutations of the given ones."""
    told: str | None = None
    """An option whose value in a grid's first cell is written into the grid's infotext."""


def boolean(label: str, name: str) -> Axis:
    return Axis(label, str, option(name, is_true), choices=True)


AXES = (
    Axis("Nothing", legend=blank),
    Axis("Seed", int, field("seed")),
    Axis("Var. seed", int, field("subseed")),
    Axis("Var. strength", float, field("subseed_strength")),
    Axis("Steps", int, field("steps")),
    Axis("CFG Scale", float, field("cfg_scale")),
    Axis("Image CFG Scale", float, field("image_cfg_scale")),
    Axis("Prompt S/R", str, search_and_replace, legend=value_alone),
    Axis("Prompt order", str, reorder, legend=joined, orders=True),
    Axis("Sampler", str, field("sampler_name"), choices=True, legend=value_alone),
    Axis("Checkpoint name", str, option("sd_model_checkpoint"), 1.0, choices=True, legend=file_name),
    Axis("Negative Guidance minimum sigma", float, field("s_min_uncond")),
    Axis("Sigma Churn", float, field("s_churn")),
    Axis("Sigma min", float, field("s_tmin")),
    Axis("Sigma max", float, field("s_tmax")),
    Axis("Sigma noise", float, field("s_noise")),
    Axis("Schedule type", str, field("scheduler"), choices=True),
    Axis("Schedule min sigma", float, option("sigma_min")),
    Axis("Schedule max sigma", float, option("sigma_max")),
    Axis("Schedule rho", float, option("rho")),
    Axis("Beta schedule alpha", float, option("beta_dist_alpha")),
    Axis("Beta schedule beta", float, option("beta_dist_beta")),
    Axis("Eta", float, field("eta")),
    Axis("Clip skip", int, option("CLIP_stop_at_last_layers")),
    Axis("Denoising", float, field("denoising_strength")),
    Axis("Initial noise multiplier", float, field("initial_noise_multiplier")),
    Axis("Extra noise", float, option("img2img_extra_noise")),
    Axis("Cond. Image Mask Weight", float, option("inpainting_mask_weight"), told="inpainting_mask_weight"),
    Axis("VAE", str, option("sd_vae"), 0.7, choices=True),
    Axis("Styles", str, add_styles, choices=True),
    Axis("UniPC Order", int, unipc_order, 0.5),
    Axis("Face restore", str, field("restore_faces"), legend=value_alone),
    Axis("Token merging ratio", float, option("token_merging_ratio")),
    Axis("Token merging ratio high-res", float, option("token_merging_ratio_hr")),
    boolean("Always discard next-to-last sigma", "always_discard_next_to_last_sigma"),
    boolean("SGM noise multiplier", "sgm_noise_multiplier"),
    Axis("Refiner checkpoint", str, field("refiner_checkpoint"), 1.0, choices=True, legend=file_name),
    Axis("Refiner switch at", float, field("refiner_switch_at")),
    Axis("RNG source", str, option("randn_source"), choices=True),
    Axis("FP8 mode", str, option("fp8_storage"), 0.9, choices=True),
    Axis("Size", str, size),
    boolean("[Hypertile] Unet First pass Enabled", "hypertile_enable_unet"),
    boolean("[Hypertile] Unet Second pass Enabled", "hypertile_enable_unet_secondpass"),
    Axis("[Hypertile] Unet Max Depth", int, option("hypertile_max_depth_unet")),
    Axis("[Hypertile] Unet Max Tile Size", int, option("hypertile_max_tile_unet")),
    Axis("[Hypertile] Unet Swap Size", int, option("hypertile_swap_size_unet")),
    boolean("[Hypertile] VAE Enabled", "hypertile_enable_vae"),
    Axis("[Hypertile] VAE Max Depth", int, option("hypertile_max_depth_vae")),
    Axis("[Hypertile] VAE Max Tile Size", int, option("hypertile_max_tile_vae")),
    Axis("[Hypertile] VAE Swap Size", int, option("hypertile_swap_size_vae")),
    Axis("Distilled CFG Scale", float, field("distilled_cfg_scale")),  # behind A1111's, whose numbers scripts use
)


def find_axis(given: Any) -> Axis:
    """The axis with that index in AXES, or that label; None is the first. Raises InvalidRequest."""
    if given is None:
        return AXES[0]
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(AXES):
        return AXES[given]
    axis = next((axis for axis in AXES if axis.label.lower() == str(given).lower()), None)
    if axis is None:
        raise InvalidRequest("script_args", f"script_args: an axis must be a number from 0 to {len(AXES) - 1} or one of "
                                            f"{', '.join(axis.label for axis in AXES)}, got {given!r}")
    return axis


# --- values

INTEGER = r"\s*([+-]?\s*\d+)\s*"
DECIMAL = r"\s*([+-]?\s*\d+(?:\.\d*)?)\s*"
STEPPED = {kind: re.compile(rf"{number}-{number}(?:\(\s*([+-]\d+{part})\s*\))?\s*")
           for kind, number, part in ((int, INTEGER, ""), (float, DECIMAL, r"(?:\.\d*)?"))}
COUNTED = {kind: re.compile(rf"{number}-{number}(?:\[\s*(\d+)\s*\])?\s*")
           for kind, number in ((int, INTEGER), (float, DECIMAL))}


def parse_values(axis: Axis, text: Any, names: Any, *, as_text: bool) -> tuple[list[Any], str]:
    """(an axis's values from a text or a list of names, their form in infotext). Raises InvalidRequest."""
    if axis.label == "Nothing":
        return [0], ""
    if axis.choices and not as_text:
        items = [names] if isinstance(names, str) else names or []
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise InvalidRequest("script_args", f"script_args: {axis.label} values must be a list of names, got {names!r}")
        text = write_csv(items)
    else:
        if not isinstance(text, str):
            raise InvalidRequest("script_args", f"script_args: {axis.label} values must be text, got {text!r}")
        items = [item.strip() for item in chain.from_iterable(csv.reader(StringIO(text), skipinitialspace=True))]
    values = typed(axis, items)
    if not values or len(values) > MAX_VALUES:
        raise InvalidRequest("script_args", f'script_args: {axis.label} must have 1 to {MAX_VALUES} values, got "{text}"')
    return values, text


def write_csv(items: Sequence[str]) -> str:
    stream = StringIO()
    csv.writer(stream).writerow(items)
    return stream.getvalue().strip()


def typed(axis: Axis, items: Sequence[str]) -> list[Any]:
    """The items converted to the axis's type, with ranges expanded."""
    if axis.orders:
        if len(items) > 6:
            raise InvalidRequest("script_args", f"script_args: {axis.label} can order at most 6 words, got {len(items)}")
        return list(permutations(items))
    if axis.kind is str:
        return list(items)
    try:
        return [axis.kind(value) for item in items if item for value in spelt_out(axis.kind, item)]
    except ValueError:
        raise InvalidRequest("script_args", f"script_args: {axis.label} values must be numbers or ranges such as 1-5, 1-9(+2) "
                                            f"or 1-10[4], got {', '.join(items)}") from None


def spelt_out(kind: type, item: str) -> list[Any]:
    """The numbers in "a-b", "a-b(+step)" or "a-b[count]", or the item itself. Raises ValueError if there are too many."""
    if match := STEPPED[kind].fullmatch(item):
        start, end, step = kind(match[1]), kind(match[2]), kind(match[3] or 1)
        if step == 0 or abs((end - start) / step) > MAX_VALUES:
            raise ValueError(item)
        # A1111: descending whole numbers stop one short of the end; decimals may go beyond it
        return list(range(start, end + 1, step)) if kind is int else np.arange(start, end + step, step).tolist()
    if match := COUNTED[kind].fullmatch(item):
        count = int(match[3])
        if count > MAX_VALUES:
            raise ValueError(item)
        return np.linspace(kind(match[1]), kind(match[2]), count).tolist()
    return [item]
