"""Inpaint sketch: what was painted over a picture shines through, and is the mask."""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from pipeline.errors import InvalidRequest


def inpaint_sketch(original: Image.Image, painted: Image.Image, *, transparency: float,
                   blur: float) -> tuple[Image.Image, Image.Image]:
    """(the picture to start from, RGB, its mask, L: 255 or less where the painted one differs from the original).

    transparency: 0 to 100, how little the paint counts. blur: sigma in pixels. Raises InvalidRequest for two sizes.
    """
    if original.size != painted.size:
        raise InvalidRequest("init_images", f"init_images: the painted picture must be {original.width}x{original.height} as "
                                            f"the original is, got {painted.width}x{painted.height}")
    original, painted = original.convert("RGB"), painted.convert("RGB")
    differs = (np.asarray(original) != np.asarray(painted)).any(axis=-1)
    mask = ImageEnhance.Brightness(Image.fromarray(differs.astype(np.uint8) * 255)).enhance(1 - transparency / 100)
    # A1111: the paint is blurred as the mask is, which is given on sharp and blurred again where it is used
    soft = ImageFilter.GaussianBlur(blur)
    return Image.composite(painted.filter(soft), original, mask.filter(soft)), mask
