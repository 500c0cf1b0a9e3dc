"""Masks that would act differently from how they look, as painted or saved by people, and how they are corrected.

Everywhere in this file 255 in a mask means: regenerate here.
"""

from enum import Enum

import numpy as np
from PIL import Image, ImageChops

from pipeline.images import resize_image
from pipeline.masking import create_binary_mask

HALF = 128
"""A mask that is nowhere this light regenerates next to nothing."""
NOISE = 16
"""How far a JPEG's black and white may be off."""
SAMPLE = 512
"""Side in pixels of the reduced copy that is searched for colours."""


class Surprise(Enum):
    """A way in which a mask acts differently from how it looks: the sentence if it is left alone, and if it is corrected."""

    ALPHA = ("The mask is opaque where it is black and more transparent where it is white. As in A1111, opacity counted, so the "
             "black part was changed; save it without transparency.",
             "The mask is opaque where it is black and more transparent where it is white; its colours were used instead of its opacity.")
    COLOUR = ("The mask has colours that count as less than half white, as in A1111, so little changes there; paint it in white.",
              "The mask has colours; coloured parts were treated as white.")
    GREY = ("The mask is nowhere more than half white, so little or nothing changes, as in A1111; paint it in white.",
            "The mask was nowhere more than half white; it was brightened until its lightest part was white.")
    NOISE = ('What looks black in the mask is not quite black, so "Only masked" covers more than the white part, as in A1111; '
             "save the mask as PNG.",
             "Nearly black and nearly white parts of the mask, as in a JPEG, were treated as black and white.")

    @property
    def left(self) -> str:
        return self.value[0]

    @property
    def mended(self) -> str:
        return self.value[1]


def mend(mask: Image.Image, *, invert: bool, greys: bool, only_masked: bool) -> tuple[Image.Image, list[Surprise]]:
    """(the mask corrected to act as it looks, what was wrong). Without surprises the mask is returned unchanged.

    invert: the unmasked part regenerates. greys: grey values count as partial masking, so a dark mask may be intended.
    only_masked: only the masked area is processed.
    """
    found: list[Surprise] = []
    values = values_of(mask, found)
    lightest = values.getextrema()[1]
    if not greys and NOISE < lightest < HALF:
        found.append(Surprise.GREY)
        values = values.point(lambda value: round(value * 255 / lightest))
    if only_masked and is_noisy(values, invert=invert):
        found.append(Surprise.NOISE)
        values = values.point(lambda value: 0 if value <= NOISE else 255 if value >= 255 - NOISE else value)
    return (values if found else mask), found


def seen(mask: Image.Image, width: int, height: int) -> Image.Image:
    """The mask as L as Inpaint upload takes it, greys of its opacity included, stretched to a picture's size where it has another."""
    found: list[Surprise] = []
    values = values_of(mask, found)
    values = values if found else create_binary_mask(mask, round=False)
    return values if values.size == (width, height) else resize_image(0, values, width, height)


def values_of(mask: Image.Image, found: list[Surprise]) -> Image.Image:
    """The mask as L, by how it looks; surprises are added to `found`."""
    transparent = mask.mode == "RGBA" and mask.getchannel("A").getextrema()[0] < 255
    if transparent and colours_count(mask):
        found.append(Surprise.ALPHA)
        return over_black(mask)
    if transparent:
        alpha = mask.getchannel("A")
        # thresholded at half, it would be blank
        return alpha if NOISE < alpha.getextrema()[1] <= HALF else create_binary_mask(mask)
    if mask.mode in ("RGB", "RGBA") and has_dark_colours(mask):
        found.append(Surprise.COLOUR)
        return brightest_channel(mask)
    return mask.convert("L")


def sample(mask: Image.Image) -> np.ndarray:
    """(h, w, channels): a large mask, subsampled."""
    scale = max(1, -(-max(mask.size) // SAMPLE))
    size = max(mask.width // scale, 1), max(mask.height // scale, 1)
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST)).astype(np.int16)


def colours_count(mask: Image.Image) -> bool:
    """Whether a transparent mask's colours are black and white too, its black at least as opaque as its white."""
    pixels = sample(mask)
    colours, alpha = pixels[..., :3], pixels[..., 3]
    visible, plain = alpha > 0, np.ptp(colours, axis=-1) <= 2 * NOISE
    dark, light = (visible & plain & (colours.max(axis=-1) < 64)), (visible & plain & (colours.min(axis=-1) >= 192))
    if not light.any() or dark.sum() < 0.01 * visible.sum() or (dark | light).sum() < 0.95 * visible.sum():
        return False
    return bool(alpha[dark].mean() >= alpha[light].mean())


def over_black(mask: Image.Image) -> Image.Image:
    """The brightness of a mask's colours over black, scaled so that its most opaque white counts in full."""
    grey, alpha = mask.convert("RGB").convert("L"), mask.getchannel("A")
    opaque = ImageChops.multiply(alpha, grey.point(lambda value: 255 if value >= 192 else 0)).getextrema()[1]
    return ImageChops.multiply(grey, alpha.point(lambda value: min(round(value * 255 / max(opaque, 1)), 255)))


def has_dark_colours(mask: Image.Image) -> bool:
    """Whether parts of it are strongly coloured but dark; in a mostly white mask those parts are meant to be left out."""
    colours = sample(mask)[..., :3]
    if (colours.min(axis=-1) >= 192).sum() > (colours.max(axis=-1) < 64).sum():
        return False
    grey = colours @ np.array([299, 587, 114]) / 1000
    return bool(((np.ptp(colours, axis=-1) >= 64) & (colours.max(axis=-1) >= HALF) & (grey < HALF)).mean() >= 0.0005)


def brightest_channel(mask: Image.Image) -> Image.Image:
    red, green, blue = mask.convert("RGB").split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def is_noisy(values: Image.Image, *, invert: bool) -> bool:
    """Whether almost the whole picture would regenerate because of values near 0, beyond a soft edge's reach."""
    mask = ImageChops.invert(values) if invert else values
    whole, clean = mask.getbbox(), mask.point(lambda value: value if value > NOISE else 0).getbbox()
    if whole is None or clean is None:
        return False
    return area(whole) >= 0.9 * mask.width * mask.height and area(whole) > 1.25 * area(clean)


def area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
