"""Encodes and decodes pictures, in tiles if they are large, in float32 if the precision overflows."""

import torch
from torch import Tensor, nn

from pipeline.families.compiled import Compilable
from pipeline.families.offload import Offload
from pipeline.families.placement import Placement

LARGEST_AT_ONCE = 1536 * 1536
"""Pixels; larger pictures are tiled."""
TILE = 1024
"""A tile's side in pixels. Neighbours overlap by a quarter and are blended there."""


class Autoencoder:
    """Wraps a diffusers AutoencoderKL. Latents are at the autoencoder's own scale."""

    def __init__(self, module: nn.Module, placement: Placement, notes: list[str], offload: Offload, downscale: int):
        """downscale: pixels per cell of its latents, in each direction."""
        self.module, self._placement, self._notes, self._offload = module, placement, notes, offload
        self._downscale = downscale
        self.decoder = Compilable(module, lambda latent: module.decode(latent).sample)
        self.cut_into_tiles()

    def cut_into_tiles(self, edge: int = TILE, above: int = LARGEST_AT_ONCE) -> None:
        """From now on tile pictures of more than `above` pixels, with tiles of this side."""
        self._above = above
        self.module.tile_sample_min_size, self.module.tile_latent_min_size = edge, edge // self._downscale

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, C, h, w), float32: the mean of the posterior."""
        # A1111: one picture at a time. It draws from the posterior with an unseeded generator; we take its mean
        return torch.cat([self._run(self._encode_one, image[None], image[0].numel()) for image in pixels])

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) → (B, 3, H, W) in [-1, 1], float32."""
        return torch.cat([self._run(self._decode_one, image[None], image[0].numel() * self._downscale**2) for image in latent])

    def _encode_one(self, image: Tensor) -> Tensor:
        return self.module.encode(image).latent_dist.mean

    def _decode_one(self, latent: Tensor) -> Tensor:
        return self.module.decode(latent).sample if self.module.use_tiling else self.decoder(latent)

    def _run(self, work, image: Tensor, pixels: int) -> Tensor:
        """Run `work` in the autoencoder's precision, and again in float32 if that overflows."""
        self.module.use_tiling = pixels > self._above
        dtype = self.module.dtype
        result = work(image.to(self._placement.device, dtype)).float()
        if dtype == torch.float32 or torch.isfinite(result).all() or not torch.isfinite(image).all():
            return result
        self._notes.append(f"The autoencoder overflowed in {str(dtype).removeprefix('torch.')}, so it was run in float32.")
        self._widen()
        return work(image.to(self._placement.device, torch.float32)).float()

    @torch.inference_mode(False)
    def _widen(self) -> None:
        # until the model is unloaded: a model that overflows once does so for every picture
        self._offload.rest()
        self.module.float()
