"""Reads single files in the layout of the original Stable Diffusion code (ldm, sgm), by tensor names and shapes.

A .yaml beside the file, in the original code's form, supplies what shapes do not show: the number of attention heads, the
prediction type and the latents' scale.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import (
    MEANINGLESS, Checkpoint, Layout, Part, Stored, bare, count, current_name, read_folder, read_part, shape, unchanged)
from pipeline.families.sd import PARTS
from pipeline.small_files import read_bytes, read_json, reason
from pipeline.weights import Weights

UNET = "model.diffusion_model."
EMA = "model_ema."
VAES = ("first_stage_model.", "vae.", "")
CLIP_TOWERS = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP_TOWERS = {  # prefix: part
    "cond_stage_model.model.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder_2",
    "conditioner.embedders.1.model.": "text_encoder_2",
}
KNOWN = (UNET, EMA, *VAES[:2], *CLIP_TOWERS, *OPEN_CLIP_TOWERS)
"""Prefixes of tensors that belong to a network."""
NUMBERS = {  # noise levels, which follow from betas; and markers
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "logvar",
    "model_ema.decay", "model_ema.num_updates", "denoiser.sigmas", "sigmas", "log_sigmas", "scale_factor", "global_step",
    "v_pred", "ztsnr", "scaled_fp8",
}


def read_file(weights: Weights) -> Checkpoint | None:
    """The contents of a single file; None if it has another layout. Raises ModelError."""
    if not any(name.startswith(UNET + "input_blocks.") for name in weights) or any(name.startswith("edm_") for name in weights):
        return None
    path, settings = weights.path, read_settings(weights.path)
    unet = read_unet(weights, settings)
    parts = {"unet": unet} | read_text_encoders(weights, settings)
    vae = read_vae_from(weights, VAES[:2])
    if vae is not None:
        parts["vae"] = vae
    return Checkpoint(
        path=path, parts=parts, prediction="v_prediction" if "v_pred" in weights else settings.prediction,
        zero_snr="ztsnr" in weights, betas=settings.betas, latent_scale=settings.latent_scale,
        unknown=tuple(name for name in weights if not name.startswith(KNOWN) and not MEANINGLESS.fullmatch(name)
                      and name not in NUMBERS))


# --- the .yaml beside ------------------------------------------------------------------------------------------------

MAX_YAML = 1 << 16
"""Bytes; real ones have two or three thousand."""


class PlainLoader(yaml.SafeLoader):
    """YAML without aliases, since they let a small file expand to a huge value."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it holds an alias (*{self.peek_event().anchor}), which is not supported")
        return super().compose_node(parent, index)


@dataclass(frozen=True)
class Settings:
    """The settings in a .yaml; the defaults are used without one."""

    prediction: str | None = None
    betas: tuple[float, float] = (0.00085, 0.012)
    latent_scale: float | None = None
    heads: int = -1
    """Attention heads on every level; -1: unspecified."""
    head_channels: int = -1
    """Channels per head; -1: unspecified."""
    text_encoder: str | None = None
    """CLIP's name on the Hub, or a folder near the checkpoint."""


def read_settings(path: Path) -> Settings:
    """The settings in the .yaml beside a checkpoint. Raises ModelError."""
    beside = path.with_suffix(".yaml")
    try:
        params = yaml.load(read_bytes(beside, MAX_YAML), PlainLoader)["model"]["params"]
        if not isinstance(params, dict):
            raise TypeError("model.params must be an object")
    except FileNotFoundError:
        return Settings()
    except Exception as error:  # YAML raises many kinds, such as for invalid dates and keys
        raise ModelError(f'"{beside.name}" beside the checkpoint cannot be read: {reason(error)}') from error
    label, usual = f'"{beside.name}" beside "{path.name}"', Settings()
    values = configs.valid_values(label, params, configs.BESIDE)
    unet = setting(params, "unet_config", "params") or setting(params, "network_config", "params") or {}
    if not isinstance(unet, dict):
        raise ModelError(f"{label}: the params of the UNet must be an object")
    unet = configs.valid_values(label, unet, configs.BESIDE_UNET)
    return Settings(
        prediction=find_prediction(params), latent_scale=values.get("scale_factor"),
        betas=(values.get("linear_start", usual.betas[0]), values.get("linear_end", usual.betas[1])),
        heads=unet.get("num_heads", usual.heads), head_channels=unet.get("num_head_channels", usual.head_channels),
        text_encoder=find_text_encoder(params))


def setting(values: Any, *keys: str) -> Any:
    """A value nested in a .yaml, or None."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def find_prediction(params: dict[str, Any]) -> str:
    scaling = setting(params, "denoiser_config", "params", "scaling_config", "target")
    by_scaling = isinstance(scaling, str) and scaling.rpartition(".")[2].startswith("VScaling")
    return "v_prediction" if by_scaling or params.get("parameterization") == "v" else "epsilon"


def find_text_encoder(params: dict[str, Any]) -> str | None:
    """The first text encoder's name; None if unspecified or not a valid folder name."""
    encoders = setting(params, "conditioner_config", "params", "emb_models")
    first = encoders[0] if isinstance(encoders, list) and encoders else params.get("cond_stage_config")
    version = setting(first, "params", "version")
    return version if isinstance(version, str) and re.fullmatch(r"\w[\w.-]{0,99}", version) else None


# --- UNet ------------------------------------------------------------------------------------------------------------

RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}
UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}


def read_unet(weights: Weights, settings: Settings) -> Part:
    """The UNet in a single file, under diffusers' names. Raises ModelError."""
    names = [name.removeprefix(UNET) for name in weights if name.startswith(UNET)]
    downsamplers = [int(name.split(".")[1]) for name in names if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", name)]
    blocks = min(downsamplers, default=2) - 1
    tensors = {unet_name(name, blocks): Stored(weights, UNET + name) for name in names}
    return Part(unet_config(weights.path, tensors, blocks, settings), tensors)


def unet_name(name: str, blocks: int) -> str:
    """diffusers' name for a UNet's tensor. `blocks`: residual blocks per level on the way down, one fewer than up."""
    for old, new in UNET_ENDS.items():
        if name.startswith(old + "."):
            return new + name.removeprefix(old)
    way, *path = name.split(".")
    if way == "middle_block":
        place, index, rest = "mid_block", int(path[0]) // 2, path[1:]
    elif way == "input_blocks":
        level, index = divmod(int(path[0]) - 1, blocks + 1)
        place, rest = f"down_blocks.{level}", path[2:]
    elif way == "output_blocks":
        level, index = divmod(int(path[0]), blocks + 1)
        place, rest = f"up_blocks.{level}", path[2:]
    else:
        return name
    inner = ".".join(rest)
    if rest[0] in ("op", "conv"):
        sampler = "downsamplers" if rest[0] == "op" else "upsamplers"
        return f"{place}.{sampler}.0.conv.{'.'.join(rest[1:])}"
    for old, new in RESNET.items():
        if inner.startswith(old + "."):
            return f"{place}.resnets.{index}.{new}{inner.removeprefix(old)}"
    return f"{place}.attentions.{index}.{inner}"


def unet_config(path: Path, tensors: dict[str, Stored], blocks: int, settings: Settings) -> dict:
    """The config of diffusers' UNet2DConditionModel that has these tensors."""
    config = downward_config(path, tensors, blocks, settings)
    ups = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
    return config | {"out_channels": shape(path, tensors, "conv_out.weight")[0],
                     "up_block_types": [ups[down] for down in reversed(config["down_block_types"])]}


def downward_config(path: Path, tensors: dict[str, Stored], blocks: int, settings: Settings) -> dict:
    """The part of a UNet's config that describes its way down and its middle."""
    levels = range(count(tensors, r"down_blocks\.(\d+)\."))
    channels = [shape(path, tensors, f"down_blocks.{level}.resnets.0.conv1.weight")[0] for level in levels]
    depths = [transformer_depth(tensors, f"down_blocks.{level}.attentions.0") for level in levels]
    depths[-1] = depths[-1] or transformer_depth(tensors, "mid_block.attentions.0")
    attends = [f"down_blocks.{level}.attentions.0.norm.weight" in tensors for level in levels]
    linear = len(shape(path, tensors, "mid_block.attentions.0.proj_in.weight")) == 2
    config = {
        "in_channels": shape(path, tensors, "conv_in.weight")[1],
        "block_out_channels": channels,
        "layers_per_block": blocks,
        "down_block_types": ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in attends],
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "cross_attention_dim": shape(path, tensors, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")[1],
        "attention_head_dim": attention_heads(channels, linear, settings),
        "use_linear_projection": linear,
    }
    if "add_embedding.linear_1.weight" in tensors:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                   "projection_class_embeddings_input_dim": shape(path, tensors, "add_embedding.linear_1.weight")[1]}
    return config


def attention_heads(channels: list[int], linear: bool, settings: Settings) -> list[int]:
    """Heads per level, which diffusers calls attention_head_dim: 8 in SD1, 64 channels each in SD2 and SDXL."""
    heads, width = settings.heads, settings.head_channels
    if width > 0 or (heads <= 0 and linear):
        width = width if width > 0 else 64
        return [max(1, channel // width) for channel in channels]
    return [heads if heads > 0 else 8] * len(channels)


def transformer_depth(tensors: Iterable[str], attention: str) -> int:
    return count(tensors, re.escape(attention) + r"\.transformer_blocks\.(\d+)\.")


# --- VAE -------------------------------------------------------------------------------------------------------------

VAE_NAMES = tuple((re.compile(old), new) for old, new in (
    (r"(?<=\.)norm_out\.", "conv_norm_out."),
    (r"(?<=\.)nin_shortcut\.", "conv_shortcut."),
    (r"(?<=\.)mid\.block_1\.", "mid_block.resnets.0."),
    (r"(?<=\.)mid\.block_2\.", "mid_block.resnets.1."),
    (r"(?<=\.)mid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"(?<=\.)mid\.attn_1\.([qkv])\.", r"mid_block.attentions.0.to_\1."),
    (r"(?<=\.)mid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"(?<=\.)(down|up)\.(\d+)\.block\.(\d+)\.", r"\1_blocks.\2.resnets.\3."),
    (r"(?<=\.)(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
))


def read_vae(path: Path) -> Part:
    """The autoencoder in its own file, a whole checkpoint, or a folder; in either layout. Raises ModelError."""
    if path.is_dir():
        return read_part(path / "vae" if (path / "vae").is_dir() else path)
    weights = Weights(path)
    vae = read_vae_from(weights, VAES)
    if vae is None:
        raise ModelError(f'"{path.name}" is not a VAE: it has no tensor "decoder.conv_in.weight"')
    return vae


def read_vae_from(weights: Weights, prefixes: Iterable[str]) -> Part | None:
    """The autoencoder whose tensors have one of the prefixes; None if there is none."""
    prefix = next((prefix for prefix in prefixes if prefix + "decoder.conv_in.weight" in weights), None)
    if prefix is None:
        return None
    levels = count((name.removeprefix(prefix) for name in weights), r"decoder\.up\.(\d+)\.")
    tensors = {}
    for name in weights:
        if name.startswith(prefix):
            new = vae_name(name.removeprefix(prefix), levels)
            tensors[new] = Stored(weights, name, as_linear if re.search(r"\.to_.*\.weight$", new) else unchanged)
    return Part(vae_config(weights.path, tensors), tensors)


def vae_name(name: str, levels: int) -> str:
    """diffusers' name for an autoencoder's tensor; diffusers counts the decoder's levels in reverse."""
    new = name
    for old, ours in VAE_NAMES:
        new = old.sub(ours, new)
    if new == name:
        return current_name(name)
    return re.sub(r"up_blocks\.(\d+)", lambda found: f"up_blocks.{levels - 1 - int(found[1])}", new)


def as_linear(weight: Tensor) -> Tensor:
    """A 1x1 convolution (o, i, 1, 1) as a matrix (o, i)."""
    return weight.flatten(1)


def vae_config(path: Path, tensors: dict[str, Stored]) -> dict:
    """The config of diffusers' AutoencoderKL that has these tensors."""
    levels = count(tensors, r"encoder\.down_blocks\.(\d+)\.")
    return {
        "in_channels": shape(path, tensors, "encoder.conv_in.weight")[1],
        "out_channels": shape(path, tensors, "decoder.conv_out.weight")[0],
        "latent_channels": shape(path, tensors, "decoder.conv_in.weight")[1],
        "block_out_channels": [shape(path, tensors, f"encoder.down_blocks.{level}.resnets.0.conv2.weight")[0]
                               for level in range(levels)],
        "layers_per_block": count(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


# --- text encoders ---------------------------------------------------------------------------------------------------

OPEN_CLIP_NAMES = {
    "token_embedding.": "embeddings.token_embedding.", "positional_embedding": "embeddings.position_embedding.weight",
    "transformer.resblocks.": "encoder.layers.", ".ln_1.": ".layer_norm1.", ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.", ".mlp.c_proj.": ".mlp.fc2.", ".attn.": ".self_attn.", "ln_final.": "final_layer_norm.",
}


def read_text_encoders(weights: Weights, settings: Settings) -> dict[str, Part]:
    """The text encoders in a single file, by name in a diffusers folder. Raises ModelError."""
    parts = {}
    for prefix in CLIP_TOWERS:
        tensors = {bare(name.removeprefix(prefix)): Stored(weights, name) for name in weights if name.startswith(prefix)}
        if tensors:
            config = text_config(weights.path, tensors, "quick_gelu") | local_text_config(weights.path, settings)
            parts["text_encoder"] = Part(config, tensors)
    for prefix, part in OPEN_CLIP_TOWERS.items():
        tensors = open_clip_tensors(weights, prefix)
        if tensors:
            config = text_config(weights.path, tensors, "gelu")
            if part == "text_encoder":
                config["num_hidden_layers"] -= 1  # SD2 does not use the last layer, and diffusers' folders lack it
                last = f"encoder.layers.{config['num_hidden_layers']}."
                tensors = {name: stored for name, stored in tensors.items() if not name.startswith(last)}
            parts[part] = Part(config, tensors)
    return parts


def open_clip_tensors(weights: Weights, prefix: str) -> dict[str, Stored]:
    """An OpenCLIP text tower under transformers' names; OpenCLIP fuses q, k and v and transposes the projection."""
    tensors = {}
    for name in weights:
        if not name.startswith(prefix):
            continue
        new = name.removeprefix(prefix)
        for old, ours in OPEN_CLIP_NAMES.items():
            new = new.replace(old, ours)
        if fused := re.fullmatch(r"(.*\.)in_proj_(weight|bias)", new):
            for index, part in enumerate("qkv"):
                tensors[f"{fused[1]}{part}_proj.{fused[2]}"] = Stored(weights, name, partial(third, index=index))
        elif new == "text_projection":
            tensors["text_projection.weight"] = Stored(weights, name, transposed)
        else:
            tensors[new] = Stored(weights, name)
    return tensors


def third(tensor: Tensor, *, index: int) -> Tensor:
    """One of three equal parts along the first axis, copied."""
    return tensor.chunk(3)[index].clone()


def transposed(tensor: Tensor) -> Tensor:
    return tensor.T.contiguous()


def text_config(path: Path, tensors: dict[str, Stored], activation: str) -> dict:
    """The config of transformers' CLIPTextModel that has these tensors."""
    vocabulary, width = shape(path, tensors, "embeddings.token_embedding.weight")
    config = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shape(path, tensors, "encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": count(tensors, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(width // 64, 4),
        "max_position_embeddings": shape(path, tensors, "embeddings.position_embedding.weight")[0],
        "hidden_act": activation,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
    if "text_projection.weight" in tensors:
        config["projection_dim"] = tensors["text_projection.weight"].shape[0]
    return config


def local_text_config(path: Path, settings: Settings) -> dict:
    """Config values that shapes do not show, from the text encoder named in the .yaml, if its folder is near the checkpoint."""
    if settings.text_encoder is None:
        return {}
    near = (folder / settings.text_encoder / "config.json" for folder in path.absolute().parents[:2])
    found = next(filter(None, map(read_json, near)), {})
    return {key: found[key] for key in ("num_attention_heads", "hidden_act") if key in found}


LAYOUT = Layout("StableDiffusion", partial(read_folder, names=tuple(PARTS)), read_file, read_vae)
