"""From finds to masks, by numbers worked out by hand."""

import numpy as np
from PIL import Image

from pipeline.detectors import Find
from pipeline.detectors.masks import FILTERS, MERGES, ORDERS, chosen, masks_of, touching
from pipeline.geometry import Size

SIZE = Size(100, 100)
LEFT, MIDDLE, LARGE = Find((2, 40, 12, 50), 0.5), Find((44, 44, 56, 56), 0.9), Find((60, 60, 100, 100), 0.7)
FINDS = [MIDDLE, LARGE, LEFT]
"""Of 1.44, 16 and 1 percent of the picture."""


def box(mask):
    """(x1, y1, x2, y2) of what is white, right and lower exclusive."""
    return mask.getbbox()


def test_boxes_count_whose_share_of_the_picture_is_between_both_ratios():
    assert chosen(FINDS, SIZE) == FINDS
    assert chosen(FINDS, SIZE, low=0.0144) == [MIDDLE, LARGE]
    assert chosen(FINDS, SIZE, high=0.0144) == [MIDDLE, LEFT]


def test_the_top_ones_by_area_or_confidence():
    assert chosen(FINDS, SIZE, top=2) == [LARGE, MIDDLE]
    assert chosen(FINDS, SIZE, top=2, by=FILTERS[1]) == [MIDDLE, LARGE]
    assert chosen(FINDS, SIZE, top=1, low=0.0, high=0.1) == [MIDDLE]  # ratios first
    assert chosen(FINDS, SIZE, top=9, by="Confidence") == [MIDDLE, LARGE, LEFT]


def test_orders():
    assert chosen(FINDS, SIZE, order=ORDERS[1]) == [LEFT, MIDDLE, LARGE]
    # from (50, 50): 0, 42.4 and 43.3
    assert chosen(FINDS, SIZE, order=ORDERS[2]) == [MIDDLE, LARGE, LEFT]
    assert chosen(FINDS, SIZE, order=ORDERS[3]) == [LARGE, MIDDLE, LEFT]


def test_a_boxs_mask_includes_its_right_and_lower_edge():
    assert box(masks_of([LEFT], SIZE)[0]) == (2, 40, 13, 51)


def test_a_mask_grows_by_a_square_of_that_side_and_shrinks_if_it_is_negative():
    # a square of 4 reaches 2 to one side and 1 to the other; one of 3 reaches 1
    assert box(masks_of([MIDDLE], SIZE, grow=4)[0]) == (43, 43, 59, 59)
    assert box(masks_of([MIDDLE], SIZE, grow=3)[0]) == (43, 43, 58, 58)
    assert box(masks_of([MIDDLE], SIZE, grow=-3)[0]) == (45, 45, 56, 56)
    assert masks_of([LEFT, MIDDLE], SIZE, grow=-12)[0].getbbox() is not None and len(masks_of([LEFT, MIDDLE], SIZE, grow=-12)) == 1


def test_a_mask_moves_right_and_up_and_around_the_edge():
    assert box(masks_of([MIDDLE], SIZE, right=10, up=4)[0]) == (54, 40, 67, 53)
    moved = np.asarray(masks_of([LEFT], SIZE, right=-5)[0])
    assert moved[45, 97] == 255 and moved[45, 7] == 255 and moved[45, 8] == 0


def test_masks_merge_and_invert():
    merged, = masks_of(FINDS, SIZE, merge=MERGES[1])
    assert np.count_nonzero(merged) == 13 * 13 + 40 * 40 + 11 * 11
    inverted, = masks_of(FINDS, SIZE, merge=MERGES[2])
    assert np.count_nonzero(inverted) == 100 * 100 - np.count_nonzero(merged)
    assert masks_of([], SIZE, merge=MERGES[2]) == []


def test_a_finds_own_mask_counts_in_place_of_its_box():
    own = np.zeros((100, 100), np.uint8)
    own[10:20, 30:50] = 255
    assert box(masks_of([Find((0, 0, 90, 90), 1, mask=own)], SIZE)[0]) == (30, 10, 50, 20)


def test_masks_that_touch_an_area():
    area = Image.new("L", (50, 50))
    area.paste(255, (0, 15, 10, 30))
    masks = masks_of([LEFT, MIDDLE], SIZE)
    assert touching(masks, area) == masks[:1] and touching([], area) == []
