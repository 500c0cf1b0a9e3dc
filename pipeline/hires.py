"""Hires fix: the numbers of txt2img's second pass, which enlarges the first one's picture and redraws it."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pipeline.geometry import Size

LATENT_UPSCALERS: dict[str, tuple[str, bool]] = {
    "Latent": ("bilinear", False), "Latent (antialiased)": ("bilinear", True), "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True), "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False)}
"""A1111's ways of enlarging a latent: torch's mode, and whether it is smoothed first."""
USUAL = "Latent"
"""The one used if none is named."""
SAME = ("", None, "Use same sampler", "Use same scheduler", "Use same checkpoint")
"""Values that mean: as in the first pass."""


@dataclass(frozen=True)
class Target:
    """The second pass's size."""

    upscaled: Size
    """Pixels before cropping; the latent's sides are these, divided and rounded down."""
    excess: Size
    """Latent cells to crop, half at each side."""

    def size(self, downscale: int) -> Size:
        """Pixels of the result."""
        return Size((self.upscaled.width // downscale - self.excess.width) * downscale,
                    (self.upscaled.height // downscale - self.excess.height) * downscale)

    def crop(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) without the excess; an odd cell goes at the right and below."""
        width, height = self.excess
        return latent[:, :, height // 2:latent.shape[2] - (height + 1) // 2, width // 2:latent.shape[3] - (width + 1) // 2]


def target(first: Size, scale: float, resize: Size, downscale: int) -> Target:
    """The target for a first pass of that size: its size times `scale`, or `resize`, in which a side may be 0.

    With one side the other follows; with both, the picture covers them and is cropped.
    """
    if not any(resize):
        return Target(Size(int(first.width * scale), int(first.height * scale)), Size(0, 0))
    by_width = Size(resize.width, resize.width * first.height // first.width)
    by_height = Size(resize.height * first.width // first.height, resize.height)
    if not all(resize):
        return Target(by_width if resize.width else by_height, Size(0, 0))
    upscaled = by_width if first.width / first.height < resize.width / resize.height else by_height
    return Target(upscaled, Size((upscaled.width - resize.width) // downscale, (upscaled.height - resize.height) // downscale))


def enlarged_latent(latent: Tensor, name: str, size: Size) -> Tensor:
    """(B, C, h, w) → (B, C, size.height, size.width), by one of LATENT_UPSCALERS."""
    mode, antialias = LATENT_UPSCALERS[name]
    return F.interpolate(latent, size=(size.height, size.width), mode=mode, antialias=antialias)
