"""Stable Diffusion 1.x: one CLIP text encoder, a UNet that predicts eps, latents of 4 channels."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families.base import Cond, Eps, LatentFormat, ModelInfo, Placement
from pipeline.families.clip import ClipTextEncoder, ClipTokens

SD1_RGB_FACTORS = ((0.3512, 0.2297, 0.3227), (0.3250, 0.4974, 0.2350), (-0.2829, 0.1762, 0.2721), (-0.2120, -0.2616, -0.7177))
"""A linear fit from SD1 latents to RGB in [-1, 1], public since 2022."""

PLAIN_CHANNELS = 4
INPAINTING_CHANNELS = 9
"""Latent, mask and masked latent: what the UNet of an inpainting checkpoint takes."""


class StableDiffusion:
    """An SD1 checkpoint: `unet`, `vae` and `text_encoder` are diffusers and transformers modules."""

    name = "sd1"

    def __init__(self, *, unet, vae, text_encoder, tokenizer, info: ModelInfo, placement: Placement,
                 alphas_cumprod: Tensor, latent_format: LatentFormat):
        self.info, self.placement, self.latent_format = info, placement, latent_format
        self.prediction = Eps(alphas_cumprod)
        self._unet, self._vae = unet, vae
        self._text = ClipTextEncoder(text_encoder, ClipTokens(tokenizer))
        self.takes_image_conditioning = unet.config.in_channels == INPAINTING_CHANNELS

    def encode_prompts(self, texts: list[str], *, emphasis: str, clip_skip: int, comma_backtrack: int) -> Cond:
        return Cond(self._text.encode(texts, emphasis=emphasis, clip_skip=clip_skip, comma_backtrack=comma_backtrack))

    def encode_image(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.placement.device, self.placement.vae_dtype)
        # A1111: one picture at a time. It draws from the posterior with an unseeded generator; we take its mean
        means = [self._vae.encode(image[None]).latent_dist.mean for image in pixels]
        return torch.cat(means).float() * self.latent_format.scale

    def decode(self, latent: Tensor) -> Tensor:
        latent = latent.to(self.placement.device, self.placement.vae_dtype) / self.latent_format.scale
        return torch.cat([self._vae.decode(image[None]).sample for image in latent]).float()

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        if not self.takes_image_conditioning:
            return latent.new_zeros(len(latent), 5, 1, 1)
        pixels = pixels.to(latent)
        mask = pixels.new_ones(1, 1, *pixels.shape[-2:]) if mask is None else mask.to(latent)
        downscale = self.latent_format.downscale
        if tuple(pixels.shape[-2:]) != tuple(mask.shape[-2:]) or pixels.shape[-1] // downscale != latent.shape[-1] \
                or pixels.shape[-2] // downscale != latent.shape[-2]:
            raise InvalidRequest("resize_mode", "resize_mode: with an inpainting checkpoint a latent upscale needs a source "
                                                f"of the size asked for, got {pixels.shape[-1]}x{pixels.shape[-2]}")
        masked = self.encode_image(torch.lerp(pixels, pixels * (1.0 - mask), mask_weight))
        small_mask = F.interpolate(mask, size=masked.shape[-2:])
        return torch.cat([small_mask.expand(len(latent), -1, -1, -1), masked], dim=1)

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype = self.placement.dtype
        if self.takes_image_conditioning:
            x = torch.cat([x, image_cond], dim=1)
        return self._unet(x.to(dtype), t, encoder_hidden_states=cond.crossattn.to(dtype), return_dict=False)[0].float()


def scaled_linear_alphas(start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> Tensor:
    """alphas_cumprod of betas that are linear in their square root; computed in float64 as the original code does."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


def load_folder(folder: Path, info: ModelInfo, placement: Placement, rgb: dict) -> StableDiffusion:
    """The SD1 checkpoint in a diffusers folder. `rgb` may hold the model's own latent_rgb_factors and _bias."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    here = {"local_files_only": True}
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=placement.dtype, low_cpu_mem_usage=False, **here)
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=placement.vae_dtype, low_cpu_mem_usage=False, **here)
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=placement.dtype, **here)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", **here)
    check_supported(folder, unet.config.in_channels)
    for module in (unet, vae, text_encoder):
        module.requires_grad_(False).eval().to(placement.device)
    return StableDiffusion(
        unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer,
        info=info, placement=placement, alphas_cumprod=scaled_linear_alphas(),
        latent_format=LatentFormat(
            channels=vae.config.latent_channels, scale=vae.config.scaling_factor,
            rgb_factors=tuple(map(tuple, rgb.get("latent_rgb_factors", SD1_RGB_FACTORS))),
            rgb_bias=tuple(rgb.get("latent_rgb_bias", (0.0, 0.0, 0.0)))))


def check_supported(folder: Path, in_channels: int) -> None:
    """Raise ModelError for what looks like SD1 in a folder but is not computed like it."""
    if in_channels not in (PLAIN_CHANNELS, INPAINTING_CHANNELS):
        raise ModelError(f'model "{folder}" has a UNet of {in_channels} input channels; '
                         f"valid: {PLAIN_CHANNELS}, {INPAINTING_CHANNELS}")
    schedule = folder / "scheduler" / "scheduler_config.json"
    prediction = json.loads(schedule.read_text("utf-8")).get("prediction_type", "epsilon") if schedule.exists() else "epsilon"
    if prediction != "epsilon":
        raise ModelError(f'model "{folder}" predicts {prediction}; valid: epsilon')
