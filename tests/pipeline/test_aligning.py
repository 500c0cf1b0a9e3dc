"""Edits are put back where they belong, in the colours around them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.aligning import aligned, in_its_colours
from tests.conftest import ROOT

SOURCE = Image.open(ROOT / "assets" / "samples" / "city-car.png").convert("RGB").resize((256, 192))
BOX = (80, 60, 180, 130)
MASK = Image.new("L", SOURCE.size)
MASK.paste(255, BOX)


def drawn(x: float, y: float, scale: float) -> np.ndarray:
    """The source, moved and scaled about its middle, with something new inside the mask."""
    warp = np.array([[scale, 0, x + 128 * (1 - scale)], [0, scale, y + 96 * (1 - scale)]], np.float32)
    picture = cv2.warpAffine(np.asarray(SOURCE), warp, SOURCE.size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    picture[70:120, 90:170] = (255, 0, 0)
    return picture


def beside(picture: Image.Image) -> float:
    """The mean difference from the source inside the mask, beside what is new."""
    inside = np.asarray(MASK) > 0
    inside[60:130, 84:176] = False
    return np.abs(np.asarray(picture, np.float32) - np.asarray(SOURCE))[inside].mean()


@pytest.mark.parametrize("x, y, scale", [(3, -2, 1), (0, 0, 1.02), (5, 4, 0.98), (-6.5, 2.3, 1.01)])
def test_an_edit_that_was_moved_and_scaled_is_brought_back(x, y, scale):
    edit = Image.fromarray(drawn(x, y, scale))
    back, motion = aligned(edit, SOURCE, MASK)
    assert (motion.x, motion.y) == pytest.approx((-x / scale, -y / scale), abs=0.3) and motion.scale == pytest.approx(1 / scale, abs=0.002)
    assert beside(back) < 0.4 * beside(edit)


@pytest.mark.parametrize("edit", [drawn(0, 0, 1), drawn(40, 0, 1), np.zeros((192, 256, 3), np.uint8),
                                  np.random.default_rng(1).integers(0, 256, (192, 256, 3), np.uint8)])
def test_what_fits_no_better_elsewhere_is_left_alone(edit):
    edit = Image.fromarray(edit)
    assert aligned(edit, SOURCE, MASK) == (edit, None)


def test_a_mask_that_covers_everything_or_a_blank_source_leaves_the_edit_alone():
    edit, everything = Image.fromarray(drawn(3, 0, 1)), Image.new("L", SOURCE.size, 255)
    assert aligned(edit, SOURCE, everything) == (edit, None) and in_its_colours(edit, SOURCE, everything) is edit
    assert aligned(edit, Image.new("RGB", SOURCE.size, "red"), MASK) == (edit, None)


def test_colours_are_those_around_the_mask():
    tinted = np.clip(np.asarray(SOURCE) * np.array([0.9, 0.8, 1.1]) + np.array([10, 20, -5]), 0, 255).astype(np.uint8)
    fitted = in_its_colours(Image.fromarray(tinted), SOURCE, MASK)
    assert beside(fitted) < 0.4 * beside(Image.fromarray(tinted))
    assert np.abs(np.asarray(in_its_colours(SOURCE, SOURCE, MASK), np.int16) - np.asarray(SOURCE)).max() <= 1
