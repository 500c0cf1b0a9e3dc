"""A result beside what it was made from: the source at its size, and how many pixels changed where its mask lets nothing change."""

import numpy as np
from PIL import Image

from pipeline.geometry import Size
from pipeline.images import flatten, resize_image
from pipeline.masking import plan_mask
from pipeline.processing import StableDiffusionProcessingImg2Img


def source_at(p: StableDiffusionProcessingImg2Img, size: Size) -> Image.Image:
    """What a request begins with as RGB at a result's size, resized by the request's own rule."""
    # a latent upscale stretches the latent, of which there is no picture: its source is fitted
    return resize_image(min(p.resize_mode, 2), flatten(p.init_images[0], p.options.img2img_background_color), *size).convert("RGB")


def kept_at(p: StableDiffusionProcessingImg2Img, size: Size) -> np.ndarray | None:
    """(h, w) bool: the pixels of a result that the request's mask, with its blurred edge, keeps as they are.

    None where there is nothing to keep: no mask or a blank one, a mask for each picture, or a result of another size than the
    request asks for, such as a grid.
    """
    if not isinstance(p.image_mask, Image.Image):
        return None
    plan = plan_mask(p.image_mask, **p.mask_settings)
    if plan is None or size != (p.init_images[0].size if p.inpaint_full_res else p.size):
        return None
    changes = plan.mask_for_overlay
    if changes.size != size:
        changes = resize_image(p.resize_mode, changes, *size)
    return np.asarray(changes.convert("L")) == 0


def changed_pixels(before: Image.Image, after: Image.Image, where: np.ndarray | None = None) -> int:
    """In how many pixels two pictures of one size differ, of those that `where` (h, w) holds True for."""
    apart = (np.asarray(before.convert("RGB")) != np.asarray(after.convert("RGB"))).any(axis=-1)
    return int(apart.sum() if where is None else apart[where].sum())
