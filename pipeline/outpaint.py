"""Enlarging a picture at its sides: what the new area is filled with before it is inpainted."""

from collections.abc import Callable
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from PIL import Image, ImageColor

from pipeline.errors import InvalidRequest
from pipeline.geometry import Box, Size
from pipeline.matched_noise import matched_noise
from pipeline.options import color, number
from pipeline.uploads import MAX_PIXELS

LARGEST = 16384
"""Pixels a side."""
FILLED_AT = 500_000
"""Noise and inpainting are computed at no more pixels than this, and the fill is enlarged for larger pictures."""
NEAR = 4
"""Radius of OpenCV's inpainting, in pixels."""


@dataclass(frozen=True)
class Margins:
    """Pixels added at each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def around(self, size: Size) -> Size:
        return Size(self.left + size.width + self.right, self.top + size.height + self.bottom)

    def old(self, size: Size) -> Box:
        """Where a picture of that size lies in the larger one."""
        return Box(self.left, self.top, self.left + size.width, self.top + size.height)


def check(size: Size, margins: Margins) -> Margins:
    """The margins as whole numbers. Raises InvalidRequest if they add nothing, or too much for a picture of that size."""
    sides = Margins(*(number(name, value, int, 0, LARGEST) for name, value in zip(("left", "top", "right", "bottom"), astuple(margins))))
    if not any(astuple(sides)):
        raise InvalidRequest("left", "left, top, right and bottom are all 0; one side must grow")
    whole = sides.around(size)
    if max(whole) > LARGEST or whole.width * whole.height > MAX_PIXELS:
        raise InvalidRequest("init_images", f"init_images: the picture would become too large; at most {LARGEST} pixels a side and "
                                            f"{MAX_PIXELS // 1_000_000} million in all, got {whole.width}x{whole.height}")
    return sides


def extended(image: Image.Image, margins: Margins, fill: str, colour: str = "#808080") -> Image.Image:
    """The picture (RGB or RGBA) with a new area filled by `fill`, a name in FILLS. The old pixels stay bit for bit.

    colour: "#rrggbb", for the fill "colour". Raises InvalidRequest.
    """
    size = Size(*image.size)
    margins = check(size, margins)
    if fill not in FILLS:
        raise InvalidRequest("fill", f'fill must be one of {", ".join(FILLS)}, got "{fill}"')
    larger = FILLS[fill](image, margins, ImageColor.getrgb(color("colour", colour))[:3]).convert(image.mode)
    larger.paste(image, (margins.left, margins.top))
    return larger


# --- fills: (picture, margins, colour) -> a picture of the larger size; only its new area is used

def coloured(image: Image.Image, margins: Margins, colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", margins.around(Size(*image.size)), colour)


def bordered(border: int) -> Callable[..., Image.Image]:
    """A fill by one of OpenCV's border types. Mirroring repeats as often as needed."""
    def fill(image: Image.Image, margins: Margins, colour: tuple[int, int, int]) -> Image.Image:
        sides = margins.top, margins.bottom, margins.left, margins.right
        return Image.fromarray(cv2.copyMakeBorder(np.asarray(image), *sides, border))
    return fill


def noisy(image: Image.Image, margins: Margins, colour: tuple[int, int, int]) -> Image.Image:
    """Noise with the picture's spectrum and colours."""
    def fill(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        mask = np.repeat(hole[..., None], 3, axis=2).astype(np.float64)
        return np.clip(matched_noise(pixels / 255.0, mask, 1.0, 0.05) * 255.0, 0, 255).astype(np.uint8)
    return computed_small(image, margins, fill)


def inpainted(image: Image.Image, margins: Margins, colour: tuple[int, int, int]) -> Image.Image:
    """OpenCV's inpainting (Telea, 2004), from the edges outwards."""
    def fill(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        # in floats, one channel at a time: with uint8 it rounds up at each pixel and drifts to white far from the edge
        channels = [cv2.inpaint(pixels[..., channel].astype(np.float32), hole.astype(np.uint8), NEAR, cv2.INPAINT_TELEA) for channel in range(3)]
        return np.clip(np.stack(channels, axis=-1) + 0.5, 0, 255).astype(np.uint8)
    return computed_small(image, margins, fill)


def computed_small(image: Image.Image, margins: Margins, fill: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Image.Image:
    """The picture that fill((H, W, 3) uint8, (H, W) bool hole) gives, computed at FILLED_AT pixels at most and enlarged."""
    whole = margins.around(Size(*image.size))
    scale = min((FILLED_AT / (whole.width * whole.height)) ** 0.5, 1.0)
    small = Size(*(max(round(side * scale), 1) for side in whole))
    x1, y1, x2, y2 = margins.old(Size(*image.size))
    # the old picture ends on a whole pixel and keeps at least one
    left, top = min(round(x1 * scale), small.width - 1), min(round(y1 * scale), small.height - 1)
    right, bottom = max(round(x2 * scale), left + 1), max(round(y2 * scale), top + 1)
    pixels, hole = np.zeros((small.height, small.width, 3), np.uint8), np.ones((small.height, small.width), bool)
    old = image.convert("RGB").resize((right - left, bottom - top), Image.Resampling.BOX) if scale < 1 else image.convert("RGB")
    pixels[top:bottom, left:right], hole[top:bottom, left:right] = np.asarray(old), False
    filled = Image.fromarray(fill(pixels, hole))
    return filled if filled.size == tuple(whole) else filled.resize(whole, Image.Resampling.BICUBIC)


FILLS = {"colour": coloured, "edge": bordered(cv2.BORDER_REPLICATE), "mirrored": bordered(cv2.BORDER_REFLECT), "noise": noisy,
         "inpainted": inpainted}
