"""FLUX.1: dev and schnell, and their relatives Fill, which sees the masked source, and Kontext, which edits by instruction.

Black Forest Labs, 2024 and 2025.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import black_forest, configs, flux_vae, original, sd, t5
from pipeline.families.base import Defaults, Facts, ModelInfo, Separate, Sees
from pipeline.families.black_forest import Names
from pipeline.families.checkpoint import (
    Checkpoint, Layout, LoadingCallback, Part, Stored, bare, build_modules, count, pipeline_class, read_folder, shape)
from pipeline.families.clip import ClipTextEncoder
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.controls import Controls, computing
from pipeline.families.flux_control import FluxControl, FluxControls
from pipeline.families.layer_names import LayerNames
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.plain_text import note_on_weights
from pipeline.families.prediction import Flow
from pipeline.families.transformer_layers import TransformerLayers
from pipeline.geometry import Size
from pipeline.weights import Weights

TOKENS, SCHNELL_TOKENS = 512, 256
"""Of every prompt: shorter ones are padded, and the network sees the padding."""
PATCH = 2
"""Latent cells per token, in each direction."""
REFERENCE = "reference"
"""Begins the names of reference pictures among a Cond's further inputs."""
SHIFTS = (256, 0.5), (4096, 1.15)
"""(tokens of a picture, logarithm of the shift); in between and beyond on a straight line. schnell has no shift."""
PLAIN, FILL, CONTROL = 64, 384, 128
"""A network's input channels: the latent alone; with the masked source's latent and 8x8 pixels of mask per cell; with a control picture."""
REFERENCES = 4
"""Further pictures that Kontext sees besides the source."""
REFERENCE_AREA, STEP, MOST_OBLONG = 1024**2, 16, 1568 / 672
"""Pixels to which references are resized, of what their sides are multiples, and the proportions of the longest picture that
Kontext was trained with."""
SIDES = (672, 688, 720, 752, 800, 832, 880, 944, 1024, 1104, 1184, 1248, 1328, 1392, 1456, 1504, 1568)
"""Of the pictures that Kontext was trained with: each shape has the n-th as its width and the n-th from the end as its height."""


def build_transformer(config: dict[str, Any]) -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_config(config)


TRANSFORMER = {  # the arguments of diffusers' FluxTransformer2DModel
    "patch_size": configs.whole(1, 1),
    "in_channels": configs.whole(1, 1024),
    "out_channels": configs.whole(PLAIN, PLAIN) | configs.null,
    "num_layers": configs.whole(1, 128),
    "num_single_layers": configs.whole(1, 128),
    "attention_head_dim": configs.whole(8, 1024),
    "num_attention_heads": configs.whole(1, 1024),
    "joint_attention_dim": configs.width,
    "pooled_projection_dim": configs.width,
    "guidance_embeds": configs.flag,
    "axes_dims_rope": configs.several(configs.whole(2, 1024), 3, 3),
}
PARTS = {"transformer": PartKind(TRANSFORMER, build_transformer), "text_encoder": sd.PARTS["text_encoder"], "text_encoder_2": t5.KIND,
         "vae": flux_vae.KIND}


def suits_pooled(checkpoint: Checkpoint, part: Part) -> bool:
    return "embeddings.position_embedding.weight" in part.tensors \
        and part.config.get("hidden_size") == checkpoint.config("transformer").get("pooled_projection_dim", 768)


def suits_text(checkpoint: Checkpoint, part: Part) -> bool:
    return part.config.get("d_model") == checkpoint.config("transformer").get("joint_attention_dim", 4096)


SEPARATE = {"text_encoder": Separate("the text encoder CLIP-L", "models/text_encoder", suits_pooled),
            "text_encoder_2": Separate("the text encoder T5-XXL", "models/text_encoder", suits_text), "vae": flux_vae.SEPARATE}


def facts(name: str, defaults: Defaults, tokens: int = TOKENS, **more: Any) -> Facts:
    return Facts(name, 1024, flux_vae.LATENT, PARTS, separate=SEPARATE, defaults=defaults, prompt_tokens=tokens - 1, **more)  # one ends it


DEV = facts("flux1-dev", Defaults("Euler", "Simple", 20, 1.0, distilled_cfg_scale=3.5), may_edit=True)
SCHNELL = facts("flux1-schnell", Defaults("Euler", "Simple", 4, 1.0), SCHNELL_TOKENS)
FILLING = facts("flux1-fill", Defaults("Euler", "Simple", 30, 1.0, distilled_cfg_scale=30.0, denoising_strength=1.0))
KONTEXT = facts("flux1-kontext", Defaults("Euler", "Simple", 28, 1.0, distilled_cfg_scale=2.5, denoising_strength=1.0), may_edit=True, references=REFERENCES)


class Flux1(LoadedModel):
    """A loaded FLUX.1. CFG 1 asks no negative prompt, which is how all of them are meant to be used."""

    def __init__(self, facts: Facts, checkpoint: Checkpoint, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement):
        super().__init__(facts.name, modules, info, placement, flux_vae.latent_format(checkpoint))
        self._t5 = t5.T5TextEncoder(modules["text_encoder_2"], longest=SCHNELL_TOKENS if facts is SCHNELL else TOKENS)
        self._clip = ClipTextEncoder(modules["text_encoder"], sd.clip_tokens(), pooled=True)
        self._controls: FluxControls | None = None
        self.text_encoders, self.sees = [self._t5], what_it_sees(checkpoint)
        self.takes_guidance = modules["transformer"].config.guidance_embeds

    def prediction(self, size: Size) -> Flow:
        return Flow(1.0 if self.name == SCHNELL.name else shift_for(size))

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        self.notes += note_on_weights(texts, self.info.name)
        # the pooled features are those of the first 75 tokens
        pooled = self._clip.encode(texts, replace(how, emphasis="None", comma_backtrack=0, old_emphasis=False)).extra["pooled"]
        beside = {f"{REFERENCE} {number}": reference.latent.repeat(len(texts), 1, 1, 1) for number, reference in enumerate(how.references)}
        return Cond(self._t5.encode(texts, how), {"pooled": pooled, "guidance": pooled.new_full((len(texts),), how.guidance)} | beside)

    def fit_reference(self, size: Size) -> tuple[Size, Size]:
        return (fitted := reference_size(size)), fitted

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        if self.sees == "reference":
            return latent
        if self.sees == "nothing":
            return latent[:, :0]
        cell, pixels = self.latent_format.downscale, pixels.to(latent)
        if (pixels.shape[-2] // cell, pixels.shape[-1] // cell) != tuple(latent.shape[-2:]):
            raise InvalidRequest("resize_mode", "resize_mode: with an inpainting or edit checkpoint a latent upscale needs a "
                                                f"source of the requested size, got {pixels.shape[-1]}x{pixels.shape[-2]}")
        mask = pixels.new_ones(1, 1, *pixels.shape[-2:]) if mask is None else mask.to(latent)
        masked = self.encode_image(torch.lerp(pixels, pixels * (1.0 - mask), mask_weight))
        return torch.cat([masked, F.pixel_unshuffle(mask, cell).expand(len(masked), -1, -1, -1)], dim=1)

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype, (height, width) = self.placement.dtype, x.shape[-2:]
        if self.sees == "masked source":
            pictures = [torch.cat([x, image_cond], dim=1)]
        else:
            references = [latent for name, latent in cond.extra.items() if name.startswith(REFERENCE)]
            pictures = [x, *[image_cond] * bool(image_cond.shape[1]), *references]
        grids = [patches(picture) for picture in pictures]
        transformer = self._modules["transformer"]
        inputs = {"timestep": t.to(dtype), "pooled_projections": cond.extra["pooled"].to(dtype), "encoder_hidden_states": cond.tokens.to(dtype),
                  "txt_ids": torch.zeros(cond.length, 3, device=x.device)}
        samples = {} if self._controls is None else self._controls.samples(
            patches(x).to(dtype), inputs, cond.extra["guidance"], transformer, sum(grid.shape[-2:].numel() for grid in grids))
        output = transformer(
            hidden_states=torch.cat([grid.flatten(2).transpose(1, 2) for grid in grids], dim=1).to(dtype),
            guidance=cond.extra["guidance"] if self.takes_guidance else None,
            img_ids=torch.cat([places_of(grids[0]), *side_by_side(grids[1:])]), return_dict=False, **inputs, **samples)[0]
        rows, columns = grids[0].shape[-2:]
        answer = output[:, :rows * columns].transpose(1, 2).unflatten(2, (rows, columns))
        return F.pixel_shuffle(answer, PATCH)[..., :height, :width].float()

    @contextmanager
    def controlled(self, controls: Controls) -> Iterator[None]:
        with computing(controls, FluxControl, self._modules["transformer"], self.info.name, self.placement):
            self._controls = FluxControls(controls, self.encode_image, patches, places_of)
            try:
                yield
            finally:
                self._controls = None

    def layers(self) -> TransformerLayers:
        transformer = self.modules["transformer"]
        return TransformerLayers(transformer, NAMES.original, NAMES.fused_in(transformer),
                                 LayerNames({"text_encoder": self.modules["text_encoder"]}))


def shift_for(size: Size) -> float:
    """The published one: its logarithm is linear in the number of the picture's tokens."""
    (few, low), (many, high) = SHIFTS
    tokens = -(-size.width // 16) * -(-size.height // 16)
    return math.exp(low + (high - low) * (tokens - few) / (many - few))


def patches(picture: Tensor) -> Tensor:
    """A picture's tokens as a grid (B, 4 * C, h / 2, w / 2)."""
    height, width = picture.shape[-2:]
    # as in ComfyUI: what is beyond a side of odd length is what is on the other side
    return F.pixel_unshuffle(F.pad(picture, (0, width % PATCH, 0, height % PATCH), mode="circular"), PATCH)


def places_of(grid: Tensor, number: int = 0, top: int = 0, left: int = 0) -> Tensor:
    """(h * w, 3): the picture's number, row and column of each token, as the network counts them."""
    rows, columns = grid.shape[-2:]
    return torch.cartesian_prod(torch.tensor([number]), torch.arange(top, top + rows), torch.arange(left, left + columns)).to(
        grid, non_blocking=True)


def side_by_side(grids: list[Tensor]) -> list[Tensor]:
    """Their places as parts of one picture, each to the right of those before it or below, whichever makes the whole more square.

    Kontext's published weights were trained with one picture. ComfyUI places several in this way, too.
    """
    places, height, width = [], 0, 0
    for grid in grids:
        rows, columns = grid.shape[-2:]
        top, left = (0, width) if rows + height > columns + width else (height, 0)
        places.append(places_of(grid, 1, top, left))
        height, width = max(height, top + rows), max(width, left + columns)
    return places


def reference_size(size: Size) -> Size:
    """The size nearest in proportions with which Kontext was trained, as diffusers takes it; longer pictures keep theirs."""
    proportions = size.width / size.height
    if max(proportions, 1 / proportions) <= MOST_OBLONG:
        return Size(*min(zip(SIDES, reversed(SIDES)), key=lambda sides: abs(sides[0] / sides[1] - proportions)))
    width = math.sqrt(REFERENCE_AREA * proportions)
    return Size(*(max(round(side / STEP), 1) * STEP for side in (width, width / proportions)))


# --- files --------------------------------------------------------------------------------------------------------------

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
NAMES = Names(
    ends={
        "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
        **{f"{old}.{layer}": f"time_text_embed.{new}.{ours}" for old, new in
           (("time_in", "timestep_embedder"), ("vector_in", "text_embedder"), ("guidance_in", "guidance_embedder"))
           for layer, ours in (("in_layer", "linear_1"), ("out_layer", "linear_2"))},
    },
    double={
        "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear", "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k", "img_attn.proj": "attn.to_out.0", "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
        "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k", "txt_attn.proj": "attn.to_add_out",
        "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
    },
    single={"modulation.lin": "norm.linear", "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k", "linear2": "proj_out"},
    fused=black_forest.QKV | {"linear1": {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1, "proj_mlp": 4}})
MARKS = ({"double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight"},
         {"single_transformer_blocks.0.proj_mlp.weight", "time_text_embed.text_embedder.linear_1.weight"})
"""Tensors by which a transformer is recognised, by the original code's names and by diffusers'."""
CLIP, T5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
CLIP_MARK = "text_model.embeddings.token_embedding.weight"


def read_file(weights: Weights) -> Checkpoint | None:
    """The contents of a single file, a transformer alone or with its other parts; None if it is none of FLUX.1's. Raises ModelError."""
    prefix = next((prefix for prefix in PREFIXES for marks in MARKS if {prefix + mark for mark in marks} <= weights.keys()), None)
    if prefix is None:
        return None
    tensors = {}
    for name in weights:
        if name.startswith(prefix) and (prefix or not name.startswith(("text_encoders.", *original.VAES[:2]))):
            tensors |= NAMES.converted(Stored(weights, name), name.removeprefix(prefix))
    parts = {"transformer": Part(transformer_config(weights.path, tensors), tensors), "text_encoder": read_clip(weights, CLIP),
             "text_encoder_2": t5.read_from(weights, T5), "vae": original.read_vae_from(weights, original.VAES[:2])}
    said = [weights.path.stem, *(weights.metadata.get(f"modelspec.{key}", "") for key in ("architecture", "title"))]
    return Checkpoint(weights.path, {name: part for name, part in parts.items() if part is not None},
                      edits=any("kontext" in text.lower() for text in said))


def transformer_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' FluxTransformer2DModel that has these tensors."""
    inner, channels = shape(path, tensors, "x_embedder.weight")
    head = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0]
    return {
        "in_channels": channels, "out_channels": shape(path, tensors, "proj_out.weight")[0],
        "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."), "num_single_layers": count(tensors, r"single_transformer_blocks\.(\d+)\."),
        "attention_head_dim": head, "num_attention_heads": inner // head,
        "joint_attention_dim": shape(path, tensors, "context_embedder.weight")[1],
        "pooled_projection_dim": shape(path, tensors, "time_text_embed.text_embedder.linear_1.weight")[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
        "axes_dims_rope": [head // 8, head * 7 // 16, head * 7 // 16],
    }


def read_clip(weights: Weights, prefix: str = "") -> Part | None:
    """The text encoder CLIP-L whose tensors have this prefix; None if there is none."""
    tensors = {bare(name.removeprefix(prefix)): Stored(weights, name) for name in weights if name.startswith(prefix)}
    if bare(CLIP_MARK) not in tensors:
        return None
    return Part(original.text_config(weights.path, tensors, "quick_gelu"), tensors)


def read_text_encoder(path: Path) -> dict[str, Part]:
    """One of the two text encoders in its own file, as a Layout reads it. Raises ModelError."""
    weights = Weights(path)
    parts = {"text_encoder": read_clip(weights), "text_encoder_2": t5.read_from(weights)}
    if not any(parts.values()):
        raise ModelError(f'"{path.name}" is neither CLIP-L nor T5-XXL, the text encoders of FLUX.1: it has no tensor "{CLIP_MARK}" or "{t5.FIRST}"')
    return {name: part for name, part in parts.items() if part is not None}


def of_folder(name: str, part: Part) -> Part:
    return t5.of_folder(part) if name == "text_encoder_2" else part


def read_diffusers(folder: Path) -> Checkpoint:
    """A diffusers folder. Raises ModelError."""
    return replace(read_folder(folder, tuple(PARTS), of_folder), edits=pipeline_class(folder).startswith("FluxKontext"))


def is_fill(checkpoint: Checkpoint) -> bool:
    return checkpoint.config("transformer").get("in_channels") == FILL


def is_schnell(checkpoint: Checkpoint) -> bool:
    return not checkpoint.config("transformer").get("guidance_embeds")


def is_kontext(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.edits) and not is_fill(checkpoint) and not is_schnell(checkpoint)


def what_it_sees(checkpoint: Checkpoint) -> Sees:
    return "masked source" if is_fill(checkpoint) else "reference" if is_kontext(checkpoint) else "nothing"


def check(facts: Facts, checkpoint: Checkpoint) -> None:
    """Raise ModelError for networks that see other pictures."""
    name, channels = checkpoint.path.name, checkpoint.config("transformer").get("in_channels", PLAIN)
    if channels == CONTROL:
        raise ModelError(f'"{name}" is FLUX.1 Canny or Depth, which is not supported')
    if channels not in (PLAIN, FILL):
        raise ModelError(f'"{name}" has a transformer of {channels} input channels; valid: {PLAIN}, {FILL}')


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> Flux1:
    return Flux1(facts, checkpoint, build_modules(checkpoint, facts.parts, placement, progress), info, placement)


LAYOUT = Layout("Flux", read_diffusers, read_file, original.read_vae, read_text_encoder)
