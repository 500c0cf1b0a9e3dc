"""Growth of a picture at each side, and its masks; shared by both outpainting scripts."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pipeline.errors import InvalidRequest
from pipeline.geometry import Box, Size

DIRECTIONS = ("left", "right", "up", "down")


@dataclass(frozen=True)
class Growth:
    """Pixels to add at each side."""

    left: int
    right: int
    up: int
    down: int
    target: Size
    """The new size, multiples of 64. A1111 rounds up even on an axis that does not grow."""


def growth(image: Size, pixels: int, directions: Collection[str]) -> Growth:
    """About `pixels` at each of the sides, more where rounding requires it. Raises InvalidRequest if there is no side."""
    if not directions:
        raise InvalidRequest("script_args", "script_args: Outpainting direction must name at least one side; valid: "
                                            + ", ".join(DIRECTIONS))
    asked = [pixels if side in directions else 0 for side in DIRECTIONS]
    width, left, right = spread(image.width, *asked[:2])
    height, up, down = spread(image.height, *asked[2:])
    return Growth(left, right, up, down, Size(width, height))


def spread(length: int, before: int, after: int) -> tuple[int, int, int]:
    """(the target length, pixels added before, pixels added after)."""
    target = math.ceil((length + before + after) / 64) * 64
    if before > 0:
        before = before * (target - length) // (before + after)
    if after > 0:
        after = target - length - before
    return target, before, after


def framed(mode: str, size: Size, box: Box) -> Image.Image:
    """A white mask with a black box, unless the box is empty."""
    mask = Image.new(mode, size, "white")
    if box.x1 <= box.x2 and box.y1 <= box.y2:
        # A1111: the box's right and lower edges are black too
        ImageDraw.Draw(mask).rectangle(box, fill="black")
    return mask
