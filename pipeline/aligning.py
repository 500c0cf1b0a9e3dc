"""Puts an edit back where it belongs: aligned with the source, and in its colours, as far as both can be seen around the mask.

Models that edit by instruction draw the whole picture anew, often a few pixels aside, a little larger, or warmer.
Everywhere in this file pictures are RGB of one size, and masks L: 0 where the source stays.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

FARTHEST = 0.05
"""How far an edit is moved, and how much larger or smaller it may be; as a share of the longer side, and of its size."""
LEAST = 0.25
"""Pixels that a corner has to move."""
BETTER = 0.9
"""How much of the difference around the mask may be left."""
BAND = 16
"""The surroundings are this many times narrower than the picture's longer side, but at least as many pixels wide."""
ITERATIONS, PRECISION, BLUR = 60, 1e-5, 5
"""Of ECC; Evangelidis and Psarakis, 2008."""
GAIN = 1.25
"""By how much contrast may change."""


@dataclass(frozen=True)
class Motion:
    """How an edit was moved: about the picture's middle."""

    x: float
    """Pixels to the right."""
    y: float
    """Pixels down."""
    scale: float


def aligned(edit: Image.Image, source: Image.Image, mask: Image.Image) -> tuple[Image.Image, Motion | None]:
    """(the edit moved and scaled so that it fits the source around the mask, how); (the edit, None) if that fits no better."""
    drawn, wanted = np.asarray(edit), np.asarray(source)
    band = surroundings(np.asarray(mask))
    warp = found(drawn, wanted, np.asarray(mask)) if band.any() else None
    if warp is None:
        return edit, None
    moved = cv2.warpAffine(drawn, warp, edit.size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    if difference(moved, wanted, band) > BETTER * difference(drawn, wanted, band):
        return edit, None
    scale, middle = 1 / warp[0, 0], np.array(edit.size) / 2
    x, y = (middle - warp[:, 2]) * scale - middle
    return Image.fromarray(moved), Motion(float(x), float(y), float(scale))


def in_its_colours(edit: Image.Image, source: Image.Image, mask: Image.Image) -> Image.Image:
    """The edit with its lightness and colours shifted and stretched as it takes to fit the source around the mask."""
    band = surroundings(np.asarray(mask))
    if not band.any():
        return edit
    drawn, wanted = (cv2.cvtColor(np.asarray(picture).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for picture in (edit, source))
    here, there = drawn[band], wanted[band]
    gain = np.clip((there.std(axis=0) + 1) / (here.std(axis=0) + 1), 1 / GAIN, GAIN)  # + 1: an even area has no contrast to go by
    fitted = (drawn - here.mean(axis=0)) * gain + there.mean(axis=0)
    rgb = cv2.cvtColor(fitted.astype(np.float32), cv2.COLOR_LAB2RGB)
    return Image.fromarray((rgb.clip(0, 1) * 255).round().astype(np.uint8))


def surroundings(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: where the source stays, near the mask."""
    width = max(BAND, max(mask.shape) // BAND)
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    return (near > 0) & (mask == 0)


def difference(picture: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    return float(np.abs(picture[where].astype(np.float32) - other[where]).mean())


def found(edit: np.ndarray, source: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """(2, 3): from the source's places to the edit's, by a shift and a scale; None if there is none, or next to none."""
    grey, wanted = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (edit, source))
    outside = (mask == 0).astype(np.uint8)
    height, width = mask.shape
    warp = np.eye(2, 3, dtype=np.float32)
    warp[:, 2] = start(grey, wanted, outside)
    try:
        _, warp = cv2.findTransformECC(wanted, grey, warp, cv2.MOTION_AFFINE, (
            cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, PRECISION), outside * 255, BLUR)
    except cv2.error:  # it does not converge, such as where the source is all of one colour
        return None
    # without turning and shearing, which these models do not do; about the middle, where both agree best
    scale, middle = (warp[0, 0] + warp[1, 1]) / 2, np.array([width, height], np.float32) / 2
    shift = warp[:, :2] @ middle + warp[:, 2] - middle
    if not np.isfinite(warp).all() or abs(scale - 1) > FARTHEST or np.abs(shift).max() > FARTHEST * max(width, height):
        return None
    if np.abs(shift).max() + abs(scale - 1) * max(width, height) / 2 < LEAST:
        return None
    return np.array([[scale, 0, shift[0] + middle[0] * (1 - scale)], [0, scale, shift[1] + middle[1] * (1 - scale)]], np.float32)


def start(grey: np.ndarray, wanted: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The shift by phase correlation, for ECC to begin with; 0 where the mask covers too much."""
    window = cv2.createHanningWindow(grey.shape[::-1], cv2.CV_32F) * outside
    pictures = [(picture - picture[outside > 0].mean()).astype(np.float32) * window for picture in (wanted, grey)]
    shift, response = cv2.phaseCorrelate(*pictures)
    return np.array(shift, np.float32) if response > 0.1 and np.isfinite(shift).all() else np.zeros(2, np.float32)
