"""From finds to masks: which of them count, in which order, and how their masks are grown, moved and merged. All as in the extension."""

from collections.abc import Callable
from math import dist

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipeline.detectors import Find
from pipeline.geometry import Size
from pipeline.options import SPECS

MERGES = ("None", "Merge", "Merge and Invert")
ORDERS = SPECS["ad_bbox_sortby"].choices
"""In which finds are worked on; "None": the best first, or the largest where only the largest count."""
FILTERS = ("Area", "Confidence")
"""What the top k of finds are measured by."""
GREEN = (64, 220, 120)


def area(find: Find) -> float:
    x1, y1, x2, y2 = find.box
    return (x2 - x1) * (y2 - y1)


def chosen(finds: list[Find], picture: Size, *, low: float = 0.0, high: float = 1.0, top: int = 0, by: str = FILTERS[0],
           order: str = ORDERS[0]) -> list[Find]:
    """The finds that count, in order: those whose box has between `low` and `high` of the picture's area, and of them the `top`
    ones `by` area or confidence; 0: all."""
    whole = picture.width * picture.height
    finds = [find for find in finds if low <= area(find) / whole <= high]
    if top:
        measure: Callable[[Find], float] = area if by == FILTERS[0] else lambda find: find.score
        finds = sorted(finds, key=measure, reverse=True)[:top]
    if order == ORDERS[1]:
        return sorted(finds, key=lambda find: find.box[0])
    if order == ORDERS[2]:
        middle = picture.width / 2, picture.height / 2
        return sorted(finds, key=lambda find: dist(middle, ((find.box[0] + find.box[2]) / 2, (find.box[1] + find.box[3]) / 2)))
    return sorted(finds, key=area, reverse=True) if order == ORDERS[3] else finds


def masks_of(finds: list[Find], picture: Size, *, grow: int = 0, right: int = 0, up: int = 0, merge: str = MERGES[0]) -> list[Image.Image]:
    """A mask (L, 255 = to be redone) for each find, or one for all; those that vanish are left out.

    grow: side in pixels of the square that dilates them, or erodes them if negative. right, up: pixels that they are moved by,
    around the edges.
    """
    masks = [mask_of(find, picture) for find in finds]
    if right or up:
        # extension: what is moved out at one side comes in at the other
        masks = [ImageChops.offset(mask, right, -up) for mask in masks]
    if grow:
        masks = [mask for mask in (grown(mask, grow) for mask in masks) if mask.getbbox() is not None]
    if merge == MERGES[0] or not masks:
        return masks
    whole = Image.fromarray(np.bitwise_or.reduce([np.asarray(mask) for mask in masks]))
    return [whole if merge == MERGES[1] else ImageChops.invert(whole)]


def mask_of(find: Find, picture: Size) -> Image.Image:
    """A find's own mask, or its box, whose right and lower edges count too, as in the extension."""
    if find.mask is not None:
        return Image.fromarray(find.mask)
    mask = Image.new("L", picture, 0)
    ImageDraw.Draw(mask).rectangle(find.box, fill=255)
    return mask


def grown(mask: Image.Image, by: int) -> Image.Image:
    """Dilated by a square of that side; eroded if it is negative."""
    square = cv2.getStructuringElement(cv2.MORPH_RECT, (abs(by), abs(by)))
    return Image.fromarray((cv2.dilate if by > 0 else cv2.erode)(np.asarray(mask), square))


def touching(masks: list[Image.Image], area: Image.Image) -> list[Image.Image]:
    """The masks that share a pixel with an area, which is brought to their size."""
    if masks and area.size != masks[0].size:
        area = area.resize(masks[0].size, Image.Resampling.LANCZOS)
    return [mask for mask in masks if ImageChops.multiply(mask, area.convert("L")).getbbox() is not None]


def boxes_shown(picture: Image.Image, finds: list[Find], masks: list[Image.Image]) -> Image.Image:
    """The picture with what is to be redone in green, and each find's box with its class and score."""
    shown = picture.convert("RGB")
    for mask in masks:
        tinted = Image.blend(shown, Image.new("RGB", shown.size, GREEN), 0.4)
        shown = Image.composite(tinted, shown, mask)
    draw, width = ImageDraw.Draw(shown), max(1, round(max(shown.size) / 300))
    size = max(10, max(shown.size) // 24)  # legible in a small preview
    for number, find in enumerate(finds, 1):
        draw.rectangle(find.box, outline=GREEN, width=width)
        words = f"{number} {find.name} {find.score:.2f}".replace("  ", " ")
        left, top, right, bottom = draw.textbbox((find.box[0] + width, find.box[1] + width), words, font_size=size)
        draw.rectangle((left, top, right, bottom), fill=GREEN)
        draw.text((find.box[0] + width, find.box[1] + width), words, fill="black", font_size=size)
    return shown
