"""How a family's latents relate to pixels and to its autoencoder's latents."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

RgbFactors = tuple[tuple[float, float, float], ...]
"""One row per channel: a model-scale latent times this is roughly RGB in [-1, 1]."""


@dataclass(frozen=True)
class LatentFormat:
    """The scale and shape of a family's model-scale latents."""

    channels: int = 4
    downscale: int = 8
    """Pixels per latent cell, in each direction."""
    scale: float = 0.18215
    shift: float = 0.0
    """Model-scale latents are (the autoencoder's - shift) * scale."""
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    """Per channel, instead of shift and 1 / scale."""
    patch: int = 1
    """Each cell packs patch x patch cells of the autoencoder's latents into channels."""
    rgb_factors: RgbFactors = ()
    rgb_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cheap_rgb_factors: RgbFactors = ()
    """A1111's own fit for "Approx cheap"; empty: rgb_factors."""
    tiny: str = ""
    """Its small decoder in VAE-approx: a diffusers folder of this name, or the file NAME_decoder."""
    approx: str = ""
    """Its Approx NN in VAE-approx: a file's name without extension."""

    @property
    def autoencoder_downscale(self) -> int:
        """Pixels per cell of the autoencoder's latents."""
        return self.downscale // self.patch

    def into(self, latent: Tensor) -> Tensor:
        """The autoencoder's latents (B, c, h, w) → model scale (B, C, h / patch, w / patch)."""
        latent = F.pixel_unshuffle(latent, self.patch) if self.patch > 1 else latent
        if not self.mean:
            return (latent - self.shift) * self.scale
        return (latent - self._each(self.mean, latent)) / self._each(self.deviation, latent)

    def out_of(self, latent: Tensor) -> Tensor:
        """Model-scale latents → the autoencoder's."""
        latent = latent * self._each(self.deviation, latent) + self._each(self.mean, latent) if self.mean \
            else latent / self.scale + self.shift
        return F.pixel_shuffle(latent, self.patch) if self.patch > 1 else latent

    @staticmethod
    def _each(values: tuple[float, ...], latent: Tensor) -> Tensor:
        return latent.new_tensor(values)[:, None, None]
