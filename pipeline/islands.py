"""The parts of a mask that are so far apart that each can be inpainted by itself.

Everywhere in this file 255 in a mask means: regenerate here.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image

from pipeline.geometry import Box


def islands(mask: Image.Image, padding: int) -> list[Box]:
    """Boxes around the parts of an L mask (already inverted and blurred) that do not touch when grown by `padding`.

    Everything masked inside a box belongs to that part. Ordered from top to bottom, then left to right.
    """
    whole = mask.getbbox()
    if whole is None:
        return []
    values = np.asarray(mask.crop(whole))
    _, _, stats, _ = cv2.connectedComponentsWithStats((values > 0).astype(np.uint8), connectivity=8)
    x, y, width, height = stats[1:, :4].T
    x, y = x + whole[0], y + whole[1]
    boxes = merged(np.stack([x, y, x + width, y + height], axis=1), padding)
    return sorted((Box(*map(int, box)) for box in boxes), key=lambda box: (box.y1, box.x1))


def merged(boxes: np.ndarray, padding: int) -> np.ndarray:
    """`boxes` (n, 4) with those that touch when grown replaced by their common box, until none touch: (m, 4)."""
    left, at = boxes, 0
    while at < len(left):
        touching = touch(left[at], left, padding)
        if touching.sum() == 1:
            at += 1
            continue
        one = np.concatenate([left[touching, :2].min(axis=0), left[touching, 2:].max(axis=0)])
        left, at = np.concatenate([[one], left[~touching]]), 0  # the larger box may touch others
    return left


def touch(box: np.ndarray, others: np.ndarray, padding: int) -> np.ndarray:
    """(n,) bool: which of the others overlap `box`, or share an edge or corner with it, once both are grown."""
    gap = 2 * padding
    return (others[:, 0] <= box[2] + gap) & (box[0] <= others[:, 2] + gap) & (others[:, 1] <= box[3] + gap) & (
        box[1] <= others[:, 3] + gap)


def alone(image_mask: Image.Image, parts: list[Box], *, invert: bool) -> Iterator[Image.Image]:
    """For each part, a mask picture like `image_mask` that masks only this part.

    parts: from islands(). invert: black is what regenerates, so the rest becomes white.
    """
    alpha = image_mask.mode == "RGBA" and image_mask.getchannel("A").getextrema() != (255, 255)
    given = image_mask.getchannel("A") if alpha else image_mask.convert("L")
    for box in parts:
        values = Image.new("L", given.size, 255 if invert else 0)
        values.paste(given.crop(box), box)
        if not alpha:
            yield values
            continue
        picture = image_mask.copy()
        picture.putalpha(values)
        yield picture
