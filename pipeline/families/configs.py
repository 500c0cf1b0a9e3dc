"""Valid contents of a model's configs: the keys that are read, and their bounds.

A config comes from wherever the model was downloaded. Only the keys listed here reach the code that builds networks, so a
config cannot make it fetch code or build a million layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import nn

from pipeline.errors import ModelError
from pipeline.small_files import shortened

MAX_LEVELS = 8
MAX_SHOWN = 60
"""Characters of an invalid value that a sentence quotes."""


@dataclass(frozen=True)
class Rule:
    """The valid values of a key."""

    valid: str
    """Completes the sentence "must be …"."""
    takes: Callable[[Any], bool]

    def __or__(self, other: "Rule") -> "Rule":
        return Rule(f"{self.valid}, or {other.valid}", lambda value: self.takes(value) or other.takes(value))


@dataclass(frozen=True)
class PartKind:
    """A kind of network: its config's rules, and how to build it."""

    rules: Mapping[str, Rule]
    build: Callable[[dict[str, Any]], nn.Module]
    """Takes the config; called where tensors take no memory (torch's "meta" device)."""
    packs: bool = True
    """Whether its matrices may stay in memory as quantized as their file holds them."""


def whole(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float) -> Rule:
    return Rule(f"a number from {low:g} to {high:g}",
                lambda value: type(value) in (int, float) and low <= value <= high and isfinite(value))


def one_of(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda value: isinstance(value, str) and value in names)


def several(rule: Rule, least: int = 1, most: int = MAX_LEVELS) -> Rule:
    count = str(most) if least == most else f"{least} to {most}"
    return Rule(f"a list of {count} times {rule.valid}",
                lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(rule.takes, value)))


def each(rule: Rule) -> Rule:
    """One value, or one per level."""
    return rule | several(rule)


flag = Rule("true or false", lambda value: isinstance(value, bool))
text = Rule("text", lambda value: isinstance(value, str))
null = Rule("null", lambda value: value is None)
width = whole(1, 1 << 16)
layers = whole(1, 8)
channels = whole(1, 64)
activation = one_of("silu", "swish", "mish", "gelu", "relu")
norm_eps = number(0, 1)

UNET = {  # the arguments of diffusers' UNet2DConditionModel
    "sample_size": each(width) | null,
    "in_channels": channels,
    "out_channels": channels,
    "center_input_sample": flag,
    "flip_sin_to_cos": flag,
    "freq_shift": whole(0, 1),
    "down_block_types": several(one_of("CrossAttnDownBlock2D", "DownBlock2D")),
    "mid_block_type": one_of("UNetMidBlock2DCrossAttn", "UNetMidBlock2D") | null,
    "up_block_types": several(one_of("UpBlock2D", "CrossAttnUpBlock2D")),
    "only_cross_attention": each(flag),
    "block_out_channels": several(width),
    "layers_per_block": each(layers),
    "downsample_padding": whole(0, 1),
    "mid_block_scale_factor": number(1e-6, 1e6),
    "dropout": number(0, 1),
    "act_fn": activation,
    "norm_num_groups": whole(1, 1024) | null,
    "norm_eps": norm_eps,
    "cross_attention_dim": each(width),
    "transformer_layers_per_block": each(whole(1, 16) | several(whole(1, 16))),
    "reverse_transformer_layers_per_block": several(whole(1, 16) | several(whole(1, 16))) | null,
    "encoder_hid_dim": null,
    "encoder_hid_dim_type": null,
    "attention_head_dim": each(width),
    "num_attention_heads": each(width) | null,
    "dual_cross_attention": flag,
    "use_linear_projection": flag,
    "class_embed_type": null,
    "addition_embed_type": one_of("text_time") | null,
    "addition_time_embed_dim": width | null,
    "num_class_embeds": null,
    "upcast_attention": flag | null,
    "resnet_time_scale_shift": one_of("default", "scale_shift"),
    "resnet_skip_time_act": flag,
    "resnet_out_scale_factor": number(1e-6, 1e6),
    "time_embedding_type": one_of("positional"),
    "time_embedding_dim": width | null,
    "time_embedding_act_fn": activation | null,
    "timestep_post_act": activation | null,
    "time_cond_proj_dim": width | null,
    "conv_in_kernel": whole(1, 9),
    "conv_out_kernel": whole(1, 9),
    "projection_class_embeddings_input_dim": width | null,
    "attention_type": one_of("default"),
    "class_embeddings_concat": flag,
    "mid_block_only_cross_attention": flag | null,
    "cross_attention_norm": null,
    "addition_embed_type_num_heads": whole(1, 1024),
}
VAE = {  # of its AutoencoderKL
    "in_channels": channels,
    "out_channels": channels,
    "down_block_types": several(one_of("DownEncoderBlock2D")),
    "up_block_types": several(one_of("UpDecoderBlock2D")),
    "block_out_channels": several(width),
    "layers_per_block": layers,
    "act_fn": activation,
    "latent_channels": channels,
    "norm_num_groups": whole(1, 1024),
    "sample_size": each(width),
    "scaling_factor": number(1e-6, 1e6),
    "shift_factor": number(-1e6, 1e6) | null,
    "latents_mean": several(number(-1e6, 1e6), most=64) | null,
    "latents_std": several(number(1e-6, 1e6), most=64) | null,
    "force_upcast": flag,
    "use_quant_conv": flag,
    "use_post_quant_conv": flag,
    "mid_block_add_attention": flag,
}
TEXT_ENCODER = {  # those of transformers' CLIPTextConfig that change what is computed
    "vocab_size": whole(2, 1 << 20),
    "hidden_size": width,
    "intermediate_size": whole(1, 1 << 18),
    "projection_dim": width | null,
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 1024),
    "max_position_embeddings": whole(77, 4096),
    "hidden_act": one_of("quick_gelu", "gelu"),
    "layer_norm_eps": norm_eps | null,
    "pad_token_id": whole(0, 1 << 20) | null,
    "bos_token_id": whole(0, 1 << 20) | null,
    "eos_token_id": whole(0, 1 << 20) | null,
}
CONTROLNET = {key: rule for key, rule in UNET.items() if key not in (
    "sample_size", "out_channels", "center_input_sample", "up_block_types", "conv_in_kernel", "conv_out_kernel")} | {  # of its ControlNetModel
    "transformer_layers_per_block": each(whole(0, 16)),
    "conditioning_channels": channels,
    "controlnet_conditioning_channel_order": one_of("rgb", "bgr"),
    "conditioning_embedding_out_channels": several(width) | null,
    "num_control_type": whole(1, 64),  # from here on of its ControlNetUnionModel
    "num_trans_channel": width,
    "num_trans_head": whole(1, 1024),
    "num_trans_layer": layers,
    "num_proj_channel": width,
}
ADAPTER = {  # of its T2IAdapter
    "in_channels": whole(1, 3),
    "channels": several(width),
    "num_res_blocks": layers,
    "downscale_factor": whole(1, 64),
    "adapter_type": one_of("full_adapter", "full_adapter_xl", "light_adapter"),
}
CLIP_VISION = {  # those of transformers' CLIPVisionConfig that change what is computed
    "hidden_size": width,
    "intermediate_size": whole(1, 1 << 18),
    "projection_dim": width,
    "num_hidden_layers": whole(1, 64),
    "num_attention_heads": whole(1, 1024),
    "image_size": whole(1, 4096),
    "patch_size": whole(1, 4096),
    "hidden_act": one_of("quick_gelu", "gelu"),
    "layer_norm_eps": norm_eps,
}
IP_ADAPTER = {  # read from shapes
    "kind": one_of("plain", "plus", "full"),
    "width": width,
    "cross": width,
    "widths": several(width, most=256),
    "tokens": whole(1, 1024),
    "hidden": width,
    "depth": whole(1, 64),
    "heads": whole(1, 1024),
}
TINY = {  # of diffusers' AutoencoderTiny
    "in_channels": channels,
    "out_channels": channels,
    "encoder_block_out_channels": several(width),
    "decoder_block_out_channels": several(width),
    "act_fn": activation,
    "upsample_fn": one_of("nearest", "bilinear", "bicubic"),
    "latent_channels": channels,
    "upsampling_scaling_factor": whole(1, 8),
    "num_encoder_blocks": several(layers),
    "num_decoder_blocks": several(layers),
    "latent_magnitude": number(1e-6, 1e6),
    "latent_shift": number(-1e6, 1e6),
    "force_upcast": flag,
    "scaling_factor": number(1e-6, 1e6),
    "shift_factor": number(-1e6, 1e6),
}
BETA = number(1e-9, 0.999)
SCHEDULER = {
    "prediction_type": text | null,
    "rescale_betas_zero_snr": flag | null,
    "beta_start": BETA,
    "beta_end": BETA,
    "shift": number(1e-3, 1e3) | null,
}
EXTRA = {  # palimpsest.json
    "native_size": whole(64, 8192),
    "latent_rgb_factors": several(several(number(-1e3, 1e3), 3, 3), 4, 4),
    "latent_rgb_bias": several(number(-1e3, 1e3), 3, 3),
}
BESIDE = {  # what is read of the .yaml beside a checkpoint
    "linear_start": BETA,
    "linear_end": BETA,
    "scale_factor": number(1e-6, 1e6),
    "parameterization": text,
}
BESIDE_UNET = {
    "num_heads": whole(-1, 1 << 16),
    "num_head_channels": whole(-1, 1 << 16),
}


def valid_values(label: str, config: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The config's values for the keys in `rules`. Raises ModelError, with `label` in its sentence, for an invalid one."""
    for key, rule in rules.items():
        if key in config and not rule.takes(config[key]):
            raise ModelError(f'{label}: {key} must be {rule.valid}, got {shown(config[key])}')
    return {key: config[key] for key in rules if key in config}


def shown(value: Any) -> str:
    """An invalid value for use in a sentence; lists and objects only by their size, as printing them could take forever."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    return shortened(repr(value), MAX_SHOWN)
