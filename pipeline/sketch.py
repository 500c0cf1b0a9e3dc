"""Inpaint sketch: paint over a picture becomes both the starting picture and the mask."""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from pipeline.errors import InvalidRequest


def inpaint_sketch(original: Image.Image, painted: Image.Image, *, transparency: float,
                   blur: float) -> tuple[Image.Image, Image.Image]:
    """(the starting picture, RGB; its mask, L: above 0 where the painted copy differs from the original).

    transparency: 0 to 100, of the paint. blur: sigma in pixels. Raises InvalidRequest if the sizes differ.
    """
    if original.size != painted.size:
        raise InvalidRequest("init_images", f"init_images: the painted picture must be {original.width}x{original.height} like "
                                            f"the original, got {painted.width}x{painted.height}")
    original, painted = original.convert("RGB"), painted.convert("RGB")
    differs = (np.asarray(original) != np.asarray(painted)).any(axis=-1)
    mask = ImageEnhance.Brightness(Image.fromarray(differs.astype(np.uint8) * 255)).enhance(1 - transparency / 100)
    # A1111: the paint is blurred like the mask; the mask itself is returned sharp and blurred where it is used
    soft = ImageFilter.GaussianBlur(blur)
    return Image.composite(painted.filter(soft), original, mask.filter(soft)), mask
