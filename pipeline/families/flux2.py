"""FLUX.2 klein, 4B and 9B, distilled and base: edits by instruction, with the source picture beside the noise, prompted through Qwen3.

Black Forest Labs, 2026.
"""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs, original, qwen3
from pipeline.families.base import Defaults, Facts, ModelInfo, Separate, Sees
from pipeline.families.black_forest import QKV, Names
from pipeline.families.checkpoint import Checkpoint, Layout, LoadingCallback, Part, Stored, build_modules, count, read_folder, shape
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.latents import LatentFormat
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.plain_text import note_on_weights
from pipeline.families.prediction import Flow
from pipeline.families.transformer_layers import TransformerLayers
from pipeline.geometry import Size
from pipeline.weights import Weights

SHIFT = math.exp(2.02)
"""As in ComfyUI, Forge Neo and InvokeAI, for every size and number of steps; diffusers computes one from both."""
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TEMPLATE_TOKENS = 12
TOKENS = 512
"""Of every prompt: shorter ones are padded, and the network sees the padding."""
TEXT_LAYERS = (9, 18, 27)
"""Hidden states of Qwen3 that the network sees side by side."""
REFERENCE = 10
"""The place in time of the first picture that the network sees; the noisy latent is at 0."""
REFERENCES = 4
"""Further pictures besides the source."""
REFERENCE_AREA = 1024**2
"""Pixels; larger references are reduced."""
CHANNELS = 32
"""Of the autoencoder's latents, of which 2x2 cells make one of the network's."""
RGB_FACTORS = (
    (0.0058, 0.0113, 0.0073), (0.0495, 0.0443, 0.0836), (-0.0099, 0.0096, 0.0644), (0.2144, 0.3009, 0.3652),
    (0.0166, -0.0039, -0.0054), (0.0157, 0.0103, -0.0160), (-0.0398, 0.0902, -0.0235), (-0.0052, 0.0095, 0.0109),
    (-0.3527, -0.2712, -0.1666), (-0.0301, -0.0356, -0.0180), (-0.0107, 0.0078, 0.0013), (0.0746, 0.0090, -0.0941),
    (0.0156, 0.0169, 0.0070), (-0.0034, -0.0040, -0.0114), (0.0032, 0.0181, 0.0080), (-0.0939, -0.0008, 0.0186),
    (0.0018, 0.0043, 0.0104), (0.0284, 0.0056, -0.0127), (-0.0024, -0.0022, -0.0030), (0.1207, -0.0026, 0.0065),
    (0.0128, 0.0101, 0.0142), (0.0137, -0.0072, -0.0007), (0.0095, 0.0092, -0.0059), (0.0000, -0.0077, -0.0049),
    (-0.0465, -0.0204, -0.0312), (0.0095, 0.0012, -0.0066), (0.0290, -0.0034, 0.0025), (0.0220, 0.0169, -0.0048),
    (-0.0332, -0.0457, -0.0468), (-0.0085, 0.0389, 0.0609), (-0.0076, 0.0003, -0.0043), (-0.0111, -0.0460, -0.0614))
RGB_BIAS = (-0.0329, -0.0718, -0.0851)
"""A linear fit from the autoencoder's latents to RGB in [-1, 1], public since 2025."""
LATENT = LatentFormat(channels=4 * CHANNELS, downscale=16, patch=2)


class Statistics(nn.Module):
    """What of the autoencoder's batch norm matters: it is never run, and its count of batches is for training."""

    def __init__(self, channels: int):
        super().__init__()
        self.running_mean, self.running_var = nn.Buffer(torch.zeros(channels)), nn.Buffer(torch.ones(channels))


def build_transformer(config: dict[str, Any]) -> nn.Module:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel.from_config(config)


def build_autoencoder(config: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKLFlux2

    module = AutoencoderKLFlux2.from_config(config)
    module.bn = Statistics(len(module.bn.running_mean))
    return module


TRANSFORMER = {  # the arguments of diffusers' Flux2Transformer2DModel
    "patch_size": configs.whole(1, 1),
    "in_channels": configs.whole(1, 1024),
    "out_channels": configs.whole(1, 1024) | configs.null,
    "num_layers": configs.whole(1, 128),
    "num_single_layers": configs.whole(1, 128),
    "attention_head_dim": configs.whole(8, 1024),
    "num_attention_heads": configs.whole(1, 1024),
    "joint_attention_dim": configs.width,
    "timestep_guidance_channels": configs.width,
    "mlp_ratio": configs.number(0.1, 16),
    "axes_dims_rope": configs.several(configs.whole(2, 1024), 4, 4),
    "rope_theta": configs.number(1, 1e9),
    "eps": configs.norm_eps,
    "guidance_embeds": configs.flag,
}
VAE = configs.VAE | {"batch_norm_eps": configs.number(0, 1)}


def suits_text(checkpoint: Checkpoint, part: Part) -> bool:
    hidden, layers = part.config.get("hidden_size"), part.config.get("num_hidden_layers")
    return isinstance(hidden, int) and hidden * len(TEXT_LAYERS) == checkpoint.config("transformer").get("joint_attention_dim") \
        and isinstance(layers, int) and layers >= TEXT_LAYERS[-1]


def suits_vae(checkpoint: Checkpoint, part: Part) -> bool:
    return "bn.running_mean" in part.tensors and part.config.get("latent_channels") == CHANNELS


PARTS = {"transformer": PartKind(TRANSFORMER, build_transformer), "text_encoder": qwen3.KIND, "vae": PartKind(VAE, build_autoencoder, packs=False)}
KLEIN = Facts(
    "flux2-klein", 1024, LATENT, PARTS, defaults=Defaults("Euler", "Simple", 4, 1.0, denoising_strength=1.0), references=REFERENCES, prompt_tokens=TOKENS - TEMPLATE_TOKENS, separate={
        "text_encoder": Separate("its text encoder (Qwen3-4B for klein 4B, Qwen3-8B for 9B)", "models/text_encoder", suits_text),
        "vae": Separate("FLUX.2's VAE", "models/VAE", suits_vae)})


class Klein(LoadedModel):
    """A loaded FLUX.2 klein. CFG 1 asks no negative prompt, which is how distilled ones are meant to be used."""

    sees: Sees = "reference"

    def __init__(self, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement):
        super().__init__(KLEIN.name, modules, info, placement, latent_format(modules["vae"]))
        self._encoder = qwen3.Qwen3TextEncoder(modules["text_encoder"], template=TEMPLATE, layers=TEXT_LAYERS, longest=TOKENS, padded=True)
        self.text_encoders, self._flow = [self._encoder], Flow(SHIFT)

    def prediction(self, size: Size) -> Flow:
        return self._flow

    def take_vae(self, module: nn.Module, info: ModelInfo) -> None:
        super().take_vae(module, info)
        self.latent_format = latent_format(module)

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        self.notes += note_on_weights(texts, self.info.name)
        return Cond(torch.stack([self._encoder.encode(text, how) for text in texts]),
                    {f"reference {number}": reference.latent.repeat(len(texts), 1, 1, 1) for number, reference in enumerate(how.references)})

    def fit_reference(self, size: Size) -> tuple[Size, Size]:
        scale = min(math.sqrt(REFERENCE_AREA / (size.width * size.height)), 1.0)
        return super().fit_reference(Size(int(size.width * scale), int(size.height * scale)))

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        return latent

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype, (height, width) = self.placement.dtype, x.shape[-2:]
        pictures = [x, *([] if image_cond.shape[1] == 0 else [image_cond]), *cond.extra.values()]
        tokens = torch.cat([picture.flatten(2).transpose(1, 2) for picture in pictures], dim=1)
        places = torch.cat([places_of(picture, number * REFERENCE) for number, picture in enumerate(pictures)])
        text = torch.zeros(cond.length, 4, device=x.device, dtype=torch.long)
        text[:, 3] = torch.arange(cond.length, device=x.device)
        output = self._modules["transformer"](
            hidden_states=tokens.to(dtype), timestep=t.to(dtype), guidance=None, encoder_hidden_states=cond.tokens.to(dtype),
            txt_ids=text, img_ids=places, return_dict=False)[0]
        return output[:, :height * width].transpose(1, 2).unflatten(2, (height, width)).float()

    def layers(self) -> TransformerLayers:
        transformer = self.modules["transformer"]
        return TransformerLayers(transformer, NAMES.original, NAMES.fused_in(transformer))


def places_of(picture: Tensor, time: int) -> Tensor:
    """(h * w, 4): each cell's time, row, column, and 0, as the network counts them."""
    height, width = picture.shape[-2:]
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(height), torch.arange(width), torch.arange(1)).to(
        picture.device, non_blocking=True)


def latent_format(vae: nn.Module) -> LatentFormat:
    """With the mean and deviation of each channel that the autoencoder holds, and previews' colours to match."""
    mean = vae.bn.running_mean.float()
    deviation = (vae.bn.running_var.float() + vae.config.batch_norm_eps).sqrt()
    if mean.is_meta:
        return replace(LATENT, mean=(0.0,) * LATENT.channels, deviation=(1.0,) * LATENT.channels)
    each = torch.tensor(RGB_FACTORS, device=mean.device).repeat_interleave(4, dim=0) / 4  # a cell shows the mean of its four
    bias = torch.tensor(RGB_BIAS, device=mean.device) + mean @ each
    return replace(LATENT, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()), rgb_bias=tuple(bias.tolist()),
                   rgb_factors=tuple(map(tuple, (each * deviation[:, None]).tolist())))


# --- files --------------------------------------------------------------------------------------------------------------

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
NAMES = Names(
    ends={
        "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1", "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        **{f"{name}.lin": f"{name}.linear" for name in
           ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")},
    },
    double={
        "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k", "img_attn.proj": "attn.to_out.0",
        "img_mlp.0": "ff.linear_in", "img_mlp.2": "ff.linear_out", "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k", "txt_attn.proj": "attn.to_add_out", "txt_mlp.0": "ff_context.linear_in",
        "txt_mlp.2": "ff_context.linear_out",
    },
    single={"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out", "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"},
    fused=QKV)
ENCODERS = ("text_encoders.qwen3_4b.transformer.", "text_encoders.qwen3_8b.transformer.")


def read_file(weights: Weights) -> Checkpoint | None:
    """The contents of a single file, a transformer alone or with its other parts; None if it is none of FLUX.2's. Raises ModelError."""
    prefix = next((prefix for prefix in PREFIXES if prefix + "double_stream_modulation_img.lin.weight" in weights
                   or prefix + "double_stream_modulation_img.linear.weight" in weights), None)
    if prefix is None:
        return None
    if any("guidance_in." in name or "guidance_embedder." in name for name in weights):
        raise ModelError(f'"{weights.path.name}" is FLUX.2 dev, which is not supported; FLUX.2 klein is')
    tensors = {}
    for name in weights:
        if name.startswith(prefix) and (prefix or not name.startswith((*ENCODERS, *original.VAES[:2]))):
            tensors |= NAMES.converted(Stored(weights, name), name.removeprefix(prefix))
    parts = {"transformer": Part(transformer_config(weights.path, tensors), tensors),
             "text_encoder": next(filter(None, (qwen3.read_from(weights, start) for start in ENCODERS)), None)}
    if (vae := original.read_vae_from(weights, original.VAES[:2])) is not None:
        parts["vae"] = of_vae(vae)
    return Checkpoint(weights.path, {name: part for name, part in parts.items() if part is not None})


def transformer_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' Flux2Transformer2DModel that has these tensors."""
    inner, channels = shape(path, tensors, "x_embedder.weight")
    head = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0]
    return {
        "in_channels": channels, "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."),
        "num_single_layers": count(tensors, r"single_transformer_blocks\.(\d+)\."), "attention_head_dim": head,
        "num_attention_heads": inner // head, "joint_attention_dim": shape(path, tensors, "context_embedder.weight")[1],
        "timestep_guidance_channels": shape(path, tensors, "time_guidance_embed.timestep_embedder.linear_1.weight")[1],
        "mlp_ratio": shape(path, tensors, "transformer_blocks.0.ff.linear_out.weight")[1] / inner,
        "axes_dims_rope": [head // 4] * 4, "guidance_embeds": False,
    }


def of_vae(part: Part) -> Part:
    """The autoencoder with its own names for what the original code has inside encoder and decoder."""
    tensors = {re.sub(r"^(?:encoder|decoder)\.((?:post_)?quant_conv)\.", r"\1.", name): stored
               for name, stored in part.tensors.items() if name != "bn.num_batches_tracked"}
    has = {f"use_{name}": f"{name}.weight" in tensors for name in ("quant_conv", "post_quant_conv")}
    return Part(part.config | has, tensors)


def read_vae(path: Path) -> Part:
    return of_vae(original.read_vae(path))


def of_folder(name: str, part: Part) -> Part:
    return {"text_encoder": qwen3.of_folder, "vae": of_vae}.get(name, lambda part: part)(part)


def check(facts: Facts, checkpoint: Checkpoint) -> None:
    """Raise ModelError for FLUX.2 dev in a folder."""
    if checkpoint.config("transformer").get("guidance_embeds"):
        raise ModelError(f'"{checkpoint.path.name}" is FLUX.2 dev, which is not supported; FLUX.2 klein is')


def sees(checkpoint: Checkpoint) -> Sees:
    return Klein.sees


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> Klein:
    return Klein(build_modules(checkpoint, facts.parts, placement, progress), info, placement)


LAYOUT = Layout("Flux2", partial(read_folder, names=tuple(PARTS), also=of_folder), read_file, read_vae, qwen3.read_text_encoder)
