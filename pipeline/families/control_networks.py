"""Reads files of networks that guide a model, recognised by their tensors: ControlNets, unions, T2I-Adapters and IP-Adapters.

A ControlNet may have the names of the original code, with or without "control_model." in front, or diffusers'; in a file, or in a
folder with its config.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import ModelError
from pipeline.families import clip_vision, configs, flux1, flux_control, ip_adapter, one_sentence, qwen_control, z_image_control
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, read_part
from pipeline.families.configs import PartKind
from pipeline.families.controls import ControlNetwork, Encoders
from pipeline.families.layout import arrange
from pipeline.families.original import count, downward_config, read_settings, shape, unet_name
from pipeline.families.placement import Placement
from pipeline.families.unet_controls import Kind, UNetControl
from pipeline.weights import Weights

PREFIX = "control_model."
"""Of a ControlNet's tensors, which may be in a file with others."""
FOREIGN = {  # a tensor of other kinds: what it is
    "lora_controlnet": "a Control-LoRA",
    "style_embedding": "a style adapter",
}
FOREIGN_STARTS = {
    "lllite_": "a ControlNet-LLLite",
    "controlnet_blocks.": "a ControlNet for another family",
    "transformer_blocks.": "a ControlNet for another family",
}


def encoders(files: Callable[[], list[Any]]) -> Encoders:
    """The readers of pictures among these files."""
    return Encoders(files, clip_vision.fits, clip_vision.load)


def build_controlnet(config: dict[str, Any]) -> nn.Module:
    from diffusers import ControlNetModel

    return ControlNetModel.from_config(config)


def build_union(config: dict[str, Any]) -> nn.Module:
    from diffusers import ControlNetUnionModel

    return ControlNetUnionModel.from_config(config)


def build_adapter(config: dict[str, Any]) -> nn.Module:
    from diffusers import T2IAdapter

    return T2IAdapter.from_config(config)


PARTS: dict[Kind, PartKind] = {
    "controlnet": PartKind(configs.CONTROLNET, build_controlnet, packs=False),
    "union": PartKind(configs.CONTROLNET, build_union, packs=False),
    "adapter": PartKind(configs.ADAPTER, build_adapter, packs=False),
}


def load(path: Path, name: str, place: Placement) -> ControlNetwork:
    """The network of a file or folder, in place. Raises ModelError with one sentence."""
    with one_sentence(path):
        return read(path, name, place)


def read(path: Path, name: str, place: Placement) -> ControlNetwork:
    weights = None if path.is_dir() else Weights(path)
    if weights is not None and any(key.startswith(ip_adapter.LAYERS) for key in weights):
        return ip_adapter.read(weights, name, place)
    if weights is not None and z_image_control.ENTRY in weights:
        return z_image_control.read(weights, name, place)
    if weights is not None and flux_control.XLABS in weights:
        return flux_control.read(flux_control.of_xlabs(weights, flux1.NAMES), path, name, place)
    own = weights is not None and flux_control.ENTRY in weights
    part = read_part(path) if weights is None else Part({}, {key: Stored(weights, key) for key in weights}) if own else read_file(weights)
    if flux_control.ENTRY in part.tensors:
        family = qwen_control if qwen_control.NORM in part.tensors else flux_control
        return family.read(part.tensors, path, name, place)
    kind = kind_of(path, part.tensors)
    pools = bool(part.config.get("global_pool_conditions")) or "shuffle" in path.stem.lower()
    module = build_modules(Checkpoint(path, {kind: part}), PARTS, place)[kind]
    if kind != "adapter":
        arrange(module, place)
    return UNetControl(name, module, kind, pools and kind == "controlnet")


def kind_of(path: Path, tensors: Iterable[str]) -> Kind:
    """What a network with these tensors is, by diffusers' names. Raises ModelError."""
    for start, kind in (("task_embedding", "union"), ("controlnet_cond_embedding.", "controlnet"), ("adapter.body.", "adapter")):
        if any(name.startswith(start) for name in tensors):
            return kind
    raise ModelError(f'"{path.name}" is not a ControlNet or T2I-Adapter')


def read_file(weights: Weights) -> Part:
    """The network in a file, under diffusers' names. Raises ModelError."""
    refuse_others(weights)
    own = {name.removeprefix(PREFIX): name for name in weights if name.startswith(PREFIX)} or {name: name for name in weights}
    if any(name.startswith("input_hint_block.") for name in own):
        return read_controlnet(weights, own, renamed(own))
    if any(name.startswith("controlnet_cond_embedding.") for name in own):
        return read_controlnet(weights, own, lambda name: name)
    if any(re.match(r"(adapter\.)?body\.0\.", name) for name in own):
        return read_adapter(weights, own)
    raise ModelError(f'"{weights.path.name}" is not a ControlNet, T2I-Adapter or IP-Adapter')


def refuse_others(weights: Weights) -> None:
    """Raise ModelError for a network of another kind, with its name."""
    what = next((what for name, what in FOREIGN.items() if name in weights), None) \
        or next((what for start, what in FOREIGN_STARTS.items() if any(name.startswith(start) for name in weights)), None)
    if what is not None:
        raise ModelError(f'"{weights.path.name}" is {what}, which is not supported here')


# --- ControlNets and unions

HINT = {0: "conv_in", 14: "conv_out"} | {2 * number: f"blocks.{number - 1}" for number in range(1, 7)}
"""The layers that read the picture, by their number in the original code."""
ENDS = (
    (re.compile(r"zero_convs\.(\d+)\.0\."), lambda found: f"controlnet_down_blocks.{found[1]}."),
    (re.compile(r"middle_block_out\.0\."), lambda found: "controlnet_mid_block."),
    (re.compile(r"input_hint_block\.(\d+)\."), lambda found: f"controlnet_cond_embedding.{HINT.get(int(found[1]), found[1])}."),
)


def renamed(names: Iterable[str]) -> Callable[[str], str]:
    """Gives diffusers' name for a tensor of the original code."""
    downsamplers = [int(found[1]) for found in map(re.compile(r"input_blocks\.(\d+)\.0\.op\.weight").match, names) if found]
    blocks = min(downsamplers, default=2) - 1

    def rename(name: str) -> str:
        for pattern, new in ENDS:
            if pattern.match(name):
                return pattern.sub(new, name, count=1)
        return unet_name(name, blocks)

    return rename


def read_controlnet(weights: Weights, own: dict[str, str], rename: Callable[[str], str]) -> Part:
    """own: each tensor's name without the prefix → its name in the file."""
    tensors = {rename(short): Stored(weights, name) for short, name in own.items()}
    return Part(controlnet_config(weights.path, tensors), tensors)


def controlnet_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' ControlNetModel or ControlNetUnionModel that has these tensors."""
    blocks = count(tensors, r"down_blocks\.0\.resnets\.(\d+)\.")
    config = downward_config(path, tensors, blocks, read_settings(path))
    embedding = "controlnet_cond_embedding."
    inner = count(tensors, re.escape(embedding) + r"blocks\.(\d+)\.")
    outs = [f"{embedding}conv_in", *(f"{embedding}blocks.{number}" for number in range(1, inner, 2))]
    config |= {"conditioning_channels": shape(path, tensors, f"{embedding}conv_in.weight")[1],
               "conditioning_embedding_out_channels": [shape(path, tensors, f"{name}.weight")[0] for name in outs]}
    if "task_embedding" not in tensors:
        return config
    types, width = shape(path, tensors, "task_embedding")
    # the number of heads does not show in shapes; all published ones have 8
    return config | {"num_control_type": types, "num_trans_channel": width, "num_trans_head": 8,
                     "num_trans_layer": count(tensors, r"transformer_layes\.(\d+)\."),
                     "num_proj_channel": shape(path, tensors, "spatial_ch_projs.weight")[0],
                     "addition_time_embed_dim": shape(path, tensors, "control_add_embedding.linear_1.weight")[1] // types}


# --- T2I-Adapters

def read_adapter(weights: Weights, own: dict[str, str]) -> Part:
    light = any(re.match(r"(adapter\.)?body\.0\.out_conv\.", name) for name in own)
    tensors = {adapter_name(short, light=light): Stored(weights, name) for short, name in own.items()}
    return Part((light_config if light else full_config)(weights.path, tensors), tensors)


def adapter_name(name: str, *, light: bool) -> str:
    """diffusers' name for an adapter's tensor."""
    if name.startswith("adapter."):
        return name
    if light:
        return "adapter." + re.sub(r"^body\.(\d+)\.body\.", r"body.\1.resnets.", name)
    found = re.fullmatch(r"body\.(\d+)\.(block\d\..*|in_conv\..*)", name)
    if found is None:
        return "adapter." + name
    level, index = divmod(int(found[1]), 2)  # the original code counts residual blocks, two per level
    return f"adapter.body.{level}.{'' if found[2].startswith('in_conv') else f'resnets.{index}.'}{found[2]}"


def full_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    levels = range(count(tensors, r"adapter\.body\.(\d+)\."))
    seen = shape(path, tensors, "adapter.conv_in.weight")[1]
    xl = seen in (256, 768)  # 16 pixels squared per cell instead of 8
    return {"in_channels": seen // (256 if xl else 64), "downscale_factor": 16 if xl else 8,
            "adapter_type": "full_adapter_xl" if xl else "full_adapter",
            "channels": [shape(path, tensors, f"adapter.body.{level}.resnets.0.block1.weight")[0] for level in levels],
            "num_res_blocks": count(tensors, r"adapter\.body\.0\.resnets\.(\d+)\.")}


def light_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    levels = range(count(tensors, r"adapter\.body\.(\d+)\."))
    widths = [shape(path, tensors, f"adapter.body.{level}.out_conv.weight")[0] for level in levels]
    return {"in_channels": shape(path, tensors, "adapter.body.0.in_conv.weight")[1] // 64, "downscale_factor": 8,
            "adapter_type": "light_adapter", "channels": widths[:-1],
            "num_res_blocks": count(tensors, r"adapter\.body\.0\.resnets\.(\d+)\.")}


