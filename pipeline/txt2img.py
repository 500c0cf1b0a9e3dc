"""txt2img: a picture from pure noise, run as img2img at full strength."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import create_sampler


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessingImg2Img):
    """A txt2img request: init_images, mask and denoising_strength are ignored. There is no hires fix."""

    def check_sources(self) -> None:
        """No source pictures to check."""

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Prepare an empty latent in place of a source."""
        self.check_size()
        self.sampler = create_sampler(self.sampler_name, self.sd_model, self.options, self.size)
        self.extra_generation_params["Denoising strength"] = None  # left out of infotext
        latents = self.sd_model.latent_format
        device = self.sd_model.placement.device
        height, width = self.height // latents.downscale, self.width // latents.downscale
        self.init_latent = torch.zeros(self.batch, latents.channels, height, width, device=device)
        if self.sd_model.sees == "reference":
            self.image_conditioning = self.init_latent[:, :0]
            return
        gray = torch.zeros(1, 3, height * latents.downscale, width * latents.downscale, device=device)
        self.image_conditioning = self._to_batch(self.sd_model.image_conditioning(
            gray, self.init_latent[:1], None, mask_weight=self.options.inpainting_mask_weight))

    def sample(self, conditioning: Any, unconditional_conditioning: Any, seeds: list[int], subseeds: list[int],
               subseed_strength: float, prompts: list[str]) -> Tensor:
        """Noise and denoise one batch: (B, C, H/8, W/8), ready to decode."""
        noise = self.rng.next()
        self.scripts.process_before_every_sampling(self, x=self.init_latent, noise=noise, c=conditioning,
                                                   uc=unconditional_conditioning)
        return self.sampler.sample_txt2img(self, noise, conditioning, unconditional_conditioning,
                                           image_conditioning=self.image_conditioning[:len(noise)])
