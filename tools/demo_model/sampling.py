"""A small DDIM sampler (Song et al. 2021, eta 0) with guidance, for previews and for measuring."""
from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo_model.tokenizer import token_rows


def sd1_scheduler() -> DDIMScheduler:
    """SD1's schedule: scaled-linear betas over 1000 steps, eps prediction."""
    return DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                         clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon")


def embed(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, texts: list[str]) -> Tensor:
    """The last hidden state for each text, (B, 77, hidden); padding is not masked, as in SD1."""
    rows = torch.tensor(token_rows(tokenizer, texts), device=text_encoder.device)
    return text_encoder(rows).last_hidden_state


def unmasked(grey: Tensor) -> Tensor:
    """The conditioning of an inpainting UNet that regenerates everything: a mask of ones and the latent of mid grey.

    `grey` (4, h, w) at model scale; returns (1, 5, h, w). Like A1111 for inpainting models outside of inpainting.
    """
    return torch.cat([torch.ones_like(grey[:1]), grey])[None]


@torch.no_grad()
def ddim(unet: UNet2DConditionModel, cond: Tensor, uncond: Tensor, noise: Tensor, *, steps: int = 20,
         cfg_scale: float = 5.0, init_latent: Tensor | None = None, strength: float = 1.0,
         nmask: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
    """Latents (B, 4, h, w) at model scale. With `init_latent`, an edit; `nmask`: 1 = regenerate.

    `condition` (B or 1, 5, h, w): what an inpainting UNet sees in addition to the noisy latent.
    """
    alphas = sd1_scheduler().alphas_cumprod.to(noise.device)
    times = torch.linspace(0, 1000, steps + 1)[1:].round().long().flip(0) - 1
    times = times[steps - max(1, int(steps * strength)):]
    a = alphas[times[0]]
    latent = noise if init_latent is None else a.sqrt() * init_latent + (1 - a).sqrt() * noise
    both = torch.cat([uncond, cond])
    for index, t in enumerate(times):
        a = alphas[t]
        ahead = alphas[times[index + 1]] if index + 1 < len(times) else torch.ones_like(a)
        seen = latent if condition is None else torch.cat([latent, condition.expand(len(latent), -1, -1, -1)], 1)
        plain, wanted = unet(torch.cat([seen, seen]), t.to(latent.device), both).sample.float().chunk(2)
        eps = plain + cfg_scale * (wanted - plain)
        denoised = (latent - (1 - a).sqrt() * eps) / a.sqrt()
        if nmask is not None:
            denoised = torch.lerp(init_latent, denoised, nmask)
        eps = (latent - a.sqrt() * denoised) / (1 - a).sqrt()
        latent = ahead.sqrt() * denoised + (1 - ahead).sqrt() * eps
    return latent


@torch.no_grad()
def to_pictures(vae: AutoencoderKL, latents: Tensor, scaling_factor: float) -> Tensor:
    """(B, 3, H, W) in [0, 1] from latents at model scale."""
    return (vae.decode(latents / scaling_factor).sample.float() / 2 + 0.5).clamp(0, 1)
