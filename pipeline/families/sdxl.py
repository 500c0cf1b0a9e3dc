"""Stable Diffusion XL and its refiner: two text encoders, pooled features, and the picture's size as conditions."""

from typing import Any

import torch
from torch import Tensor

from pipeline.families import sd
from pipeline.families.base import ModelInfo
from pipeline.families.checkpoint import Checkpoint, LoadingCallback
from pipeline.families.cond import Cond, Encoding
from pipeline.families.latents import LatentFormat
from pipeline.families.placement import Placement
from pipeline.families.sd import PARTS, ClipFacts, StableDiffusion

RGB_FACTORS = ((0.3448, 0.4168, 0.4395), (-0.1953, -0.0290, 0.0250), (0.1074, 0.0886, -0.0163), (-0.3730, -0.2499, -0.2088))
"""A linear fit from SDXL latents to RGB in [-1, 1], public since 2023."""

LATENT = LatentFormat(scale=0.13025, rgb_factors=RGB_FACTORS, tiny="taesdxl", approx="vaeapprox-sdxl")
CLIP_L = {"layer": 2, "final_norm": False}
CLIP_G = {"name": "clip_g", "padding": 0, "layer": 2, "final_norm": False, "pooled": True}

BASE = ClipFacts("sdxl", 1024, LATENT, PARTS, text_encoders={"text_encoder": CLIP_L, "text_encoder_2": CLIP_G})
REFINER = ClipFacts("sdxl-refiner", 1024, LATENT, PARTS, text_encoders={"text_encoder_2": CLIP_G})


class StableDiffusionXL(StableDiffusion):
    """A loaded checkpoint of SDXL or its refiner. Also conditioned on pooled features and the picture's size."""

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        conds = [encoder.encode(texts, how, clip_skip=how.clip_skip if how.clip_l_skip and encoder.name == "clip_l" else None)
                 for encoder in self.text_encoders]
        tokens, pooled = torch.cat([cond.tokens for cond in conds], dim=-1), conds[-1].extra["pooled"]
        # A1111: only if every text of the prompt's schedule is empty
        if how.negative and not any(texts):
            tokens, pooled = torch.zeros_like(tokens), torch.zeros_like(pooled)
        numbers = pooled.new_tensor([self._picture(how)]).expand(len(texts), -1)
        return Cond(tokens, {"text_embeds": pooled, "time_ids": numbers})

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        # A1111: the mask is rounded even if the request says not to
        mask = None if mask is None else mask.round()
        return super().image_conditioning(pixels, latent, mask, mask_weight=mask_weight)

    def _picture(self, how: Encoding) -> list[float]:
        size, crop = [how.size.height, how.size.width], [how.crop_top, how.crop_left]
        return [*size, *crop, how.aesthetic_score] if self.name == REFINER.name else [*size, *crop, *size]

    def _extra_conditions(self, cond: Cond) -> dict[str, Any]:
        return {"added_cond_kwargs": {**cond.extra, "text_embeds": cond.extra["text_embeds"].to(self.placement.dtype)}}


def is_base(checkpoint: Checkpoint) -> bool:
    return sd.is_sdxl(checkpoint) and not is_refiner(checkpoint)


def is_refiner(checkpoint: Checkpoint) -> bool:
    """Whether the UNet takes the second text encoder only."""
    second = checkpoint.config("text_encoder_2").get("hidden_size")
    return sd.is_sdxl(checkpoint) and checkpoint.config("unet").get("cross_attention_dim") == second


def load(facts: ClipFacts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> StableDiffusionXL:
    return sd.load(facts, checkpoint, info, placement, progress, StableDiffusionXL)
