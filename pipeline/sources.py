"""A source picture and its mask, made ready for the network: the stages of init() that touch pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.families.base import Family
from pipeline.geometry import Size
from pipeline.images import color_target, cut_out, flatten, resize_image, to_tensor
from pipeline.masking import MaskPlan, fill


@dataclass(frozen=True)
class Source:
    """One source picture, ready to be encoded."""

    pixels: Tensor
    """(3, H, W) in [-1, 1]."""
    overlay: Image.Image | None = None
    """The unmasked part of the picture as RGBA, to be put back over the result."""
    mask_for_overlay: Image.Image | None = None
    """The plan's, at the picture's size."""
    color_target: np.ndarray | None = None


def prepare_source(image: Image.Image, plan: MaskPlan | None, latent_mask: Image.Image | None, *, size: Size,
                   resize_mode: int, masked_content: int, background: str, correct_color: bool,
                   upscaler: str | None = None) -> Source:
    """Flatten, resize or crop, and fill one source picture; keep its unmasked part for later."""
    image = flatten(image, background)
    region = None if plan is None else plan.crop_region
    if region is None and resize_mode != 3:
        image = resize_image(resize_mode, image, *size, upscaler)
    overlay = mask_for_overlay = None
    if plan is not None:
        mask_for_overlay = plan.mask_for_overlay
        if mask_for_overlay.size != image.size:
            mask_for_overlay = resize_image(resize_mode, mask_for_overlay, *image.size, upscaler)
        overlay = cut_out(image, mask_for_overlay).convert("RGBA")
        if region is not None:
            image = resize_image(2, image.crop(region), *size, upscaler)
        if masked_content != 1:
            if latent_mask.size != image.size:
                latent_mask = latent_mask.resize(image.size)
            image = fill(image, latent_mask)
    return Source(to_tensor(image), overlay, mask_for_overlay, color_target(image) if correct_color else None)


def encode(model: Family, pixels: Tensor, size: Size, *, latent_upscale: bool) -> Tensor:
    """(N, 3, H, W) in [-1, 1] → (N, C, height/8, width/8); a latent upscale resizes after encoding, not before."""
    latent = model.encode_image(pixels)
    if latent_upscale:
        downscale = model.latent_format.downscale
        latent = F.interpolate(latent, size=(size.height // downscale, size.width // downscale), mode="bilinear")
    return latent


def mask_tensor(plan: MaskPlan | None, *, round: bool) -> Tensor | None:
    """The pixel mask for inpainting checkpoints: (1, 1, H, W), 1 = regenerate."""
    if plan is None:
        return None
    values = np.asarray(plan.image_mask.convert("L")).astype(np.float32) / 255.0
    return torch.from_numpy(np.around(values) if round else values)[None, None]
