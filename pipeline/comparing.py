"""A result beside what it was made from: the source at its size, and how many pixels changed where its mask lets nothing change."""

import numpy as np
from PIL import Image

from pipeline.geometry import Size
from pipeline.images import flatten, resize_image
from pipeline.masking import plan_mask
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts import settled_mask
from pipeline.sources import put_in_place
from pipeline.upscaling import UPSCALERS


def made_from(p: StableDiffusionProcessingImg2Img, size: Size) -> tuple[Image.Image, Image.Image | None]:
    """(a request's source as a result of that size was put over it, RGB; the mask of what changed, L with its blurred edge).

    The mask is None without one, with a blank one, or with one per picture; also if the result has another size than the request
    asks for, such as a grid. The source is then resized by the request's own rule.
    """
    plan = plan_mask(p.image_mask, **settled_mask(p)) if isinstance(p.image_mask, Image.Image) else None
    background = p.options.img2img_background_color
    source, mask = put_in_place(p.init_images[0], plan, size=p.size, resize_mode=p.resize_mode, background=background,
                                upscaler=UPSCALERS.get(p.options.upscaler_for_img2img))
    # a size that is no multiple of 8 was cut at the right and below
    if size in (source.size, tuple(side // 8 * 8 for side in source.size)):
        box = (0, 0, *size)
        return source.crop(box), mask and mask.convert("L").crop(box)
    # a latent upscale stretches the latent, of which there is no picture: its source is fitted
    return resize_image(min(p.resize_mode, 2), flatten(p.init_images[0], background), *size).convert("RGB"), None


def changed_pixels(before: Image.Image, after: Image.Image, where: np.ndarray | None = None) -> int:
    """In how many pixels two pictures of one size differ, of those that `where` (h, w) holds True for."""
    apart = (np.asarray(before.convert("RGB")) != np.asarray(after.convert("RGB"))).any(axis=-1)
    return int(apart.sum() if where is None else apart[where].sum())
