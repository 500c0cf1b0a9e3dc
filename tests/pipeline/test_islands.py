"""Which parts of a mask count as far apart, and the masks that ask for one of them alone."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.geometry import Box
from pipeline.islands import alone, islands
from pipeline.masking import soft_mask

SIZE = (96, 64)


def mask_of(*boxes, value=255):
    mask = Image.new("L", SIZE)
    for box in boxes:
        mask.paste(value, box)
    return mask


def boxes(mask, padding=0):
    return islands(mask, padding)


def test_a_blank_mask_has_none_and_one_that_hangs_together_has_one():
    assert boxes(mask_of()) == []
    assert boxes(mask_of((8, 8, 24, 24), (24, 24, 40, 40))) == [(8, 8, 40, 40)]  # by a corner


def test_parts_are_listed_from_top_to_bottom_and_left_to_right():
    assert boxes(mask_of((60, 40, 70, 50), (60, 4, 70, 14), (4, 4, 14, 14))) == [(4, 4, 14, 14), (60, 4, 70, 14), (60, 40, 70, 50)]


@pytest.mark.parametrize("padding, count", [(0, 2), (9, 2), (10, 1), (40, 1)])
def test_parts_whose_padded_boxes_touch_are_one(padding, count):
    assert len(boxes(mask_of((10, 10, 20, 20), (40, 10, 50, 20)), padding)) == count


def test_a_box_that_has_grown_takes_in_what_it_then_touches():
    """The first two meet; only their common box reaches the third, which lies between neither."""
    apart = ((0, 0, 30, 4), (26, 6, 30, 40), (8, 36, 16, 40))
    assert boxes(mask_of(*apart), 1) == [(0, 0, 30, 40)]


def test_greys_count_and_all_that_is_masked_lies_in_one_of_the_boxes():
    mask = soft_mask(mask_of((8, 8, 20, 20), (70, 40, 80, 50), value=200), round=True, invert=False, blur=(3, 3))
    parts = boxes(mask, 2)
    assert len(parts) == 2
    rest = mask.copy()
    for box in parts:
        assert Box(*mask.crop(box).getbbox()).size == box.size
        rest.paste(0, box)
    assert rest.getbbox() is None


def test_thousands_of_specks_are_still_told_apart():
    values = np.zeros((400, 600), np.uint8)
    values[::4, ::4] = 255
    assert len(islands(Image.fromarray(values), 1)) == len(values[::4, ::4].ravel())
    assert boxes(Image.fromarray(values), 2) == [Box(0, 0, 597, 397)]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_mask_for_one_part_acts_there_as_the_whole_mask_does_and_nowhere_else(mode, invert):
    painted = mask_of((8, 8, 20, 20), (70, 40, 80, 50))
    if invert:
        painted = ImageOps.invert(painted)
    if mode == "RGBA":
        given = Image.new("RGBA", SIZE, "white")
        given.putalpha(painted)
    else:
        given = painted.convert(mode)
    how = {"round": True, "invert": invert, "blur": (2, 2)}
    parts = islands(soft_mask(given, **how), 4)
    masks = list(alone(given, parts, invert=invert))
    assert len(masks) == 2
    for box, mask in zip(parts, masks):
        acting = Image.new("L", SIZE)
        acting.paste(soft_mask(given, **how).crop(box), box)
        assert soft_mask(mask, **how).tobytes() == acting.tobytes()
