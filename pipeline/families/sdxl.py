"""Stable Diffusion XL: two text encoders, pooled features, and the picture's size as a condition; and its refiner."""

from typing import Any

import torch
from torch import Tensor

from pipeline.families import sd
from pipeline.families.base import Cond, LatentFormat, ModelInfo, Placement, SdxlConditions
from pipeline.families.checkpoint import Checkpoint, Progress
from pipeline.families.sd import Facts, StableDiffusion

RGB_FACTORS = ((0.3448, 0.4168, 0.4395), (-0.1953, -0.0290, 0.0250), (0.1074, 0.0886, -0.0163), (-0.3730, -0.2499, -0.2088))
"""A linear fit from SDXL latents to RGB in [-1, 1], public since 2023."""

LATENT = LatentFormat(scale=0.13025, rgb_factors=RGB_FACTORS)
CLIP_L = {"layer": 2, "final_norm": False}
CLIP_G = {"name": "clip_g", "padding": 0, "layer": 2, "final_norm": False, "pooled": True}

BASE = Facts("sdxl", 1024, LATENT, {"text_encoder": CLIP_L, "text_encoder_2": CLIP_G})
REFINER = Facts("sdxl-refiner", 1024, LATENT, {"text_encoder_2": CLIP_G})


class StableDiffusionXL(StableDiffusion):
    """A loaded checkpoint of SDXL or its refiner.

    A Cond's vector is the pooled features and then, as plain numbers, what SDXL is told of the picture.
    """

    def encode_prompts(self, texts: list[str], *, emphasis: str, clip_skip: int, comma_backtrack: int,
                       sdxl: SdxlConditions = SdxlConditions(), old_emphasis: bool = False) -> Cond:
        conds = [encoder.encode(texts, emphasis=emphasis, comma_backtrack=comma_backtrack,
                                clip_skip=clip_skip if sdxl.clip_l_skip and encoder.name == "clip_l" else None)
                 for encoder in self.text_encoders]
        crossattn, pooled = torch.cat([cond.crossattn for cond in conds], dim=-1), conds[-1].vector
        # A1111: only where every text of the prompt's schedule is empty
        if sdxl.negative and not any(texts):
            crossattn, pooled = torch.zeros_like(crossattn), torch.zeros_like(pooled)
        numbers = pooled.new_tensor([self._picture(sdxl)]).expand(len(texts), -1)
        return Cond(crossattn, torch.cat([pooled, numbers], dim=1))

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        # A1111: the mask is rounded, also where the request says not to
        mask = None if mask is None else mask.round()
        return super().image_conditioning(pixels, latent, mask, mask_weight=mask_weight)

    def _picture(self, sdxl: SdxlConditions) -> list[float]:
        size, crop = [sdxl.height, sdxl.width], [sdxl.crop_top, sdxl.crop_left]
        return [*size, *crop, sdxl.aesthetic_score] if self.name == REFINER.name else [*size, *crop, *size]

    def _extra_conditions(self, cond: Cond) -> dict[str, Any]:
        count = 5 if self.name == REFINER.name else 6
        pooled, numbers = cond.vector[:, :-count], cond.vector[:, -count:]
        return {"added_cond_kwargs": {"text_embeds": pooled.to(self.placement.dtype), "time_ids": numbers}}


def is_base(checkpoint: Checkpoint) -> bool:
    return sd.is_sdxl(checkpoint) and not is_refiner(checkpoint)


def is_refiner(checkpoint: Checkpoint) -> bool:
    """Whether the UNet reads the second text encoder only."""
    second = checkpoint.config("text_encoder_2").get("hidden_size")
    return sd.is_sdxl(checkpoint) and checkpoint.config("unet").get("cross_attention_dim") == second


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: Progress) -> StableDiffusionXL:
    return sd.load(facts, checkpoint, info, placement, progress, StableDiffusionXL)
