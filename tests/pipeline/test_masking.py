"""The numbers are those of A1111 v1.10.1 for a 64x64 gradient and a centred 32x32 mask."""

from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.images import cut_out
from pipeline.masking import (
    blur_kernel_size,
    blur_mask,
    create_binary_mask,
    crop_region,
    expand_crop_region,
    fill,
    latent_masks,
    plan_mask,
)

SIDE = Size(64, 64)
EDGE = [0, 0, 0, 0, 0, 0, 1, 3, 7, 12, 21, 32, 48, 67, 90, 115, 140, 165, 188, 207, 223, 234, 243, 248]
CORNER = [0, 1, 2, 4, 9, 18, 32, 52, 77, 107, 139, 168, 195, 215, 232, 241]


def gradient():
    y, x = np.mgrid[:64, :64]
    return Image.fromarray(np.stack([4 * x, 4 * y, 2 * (x + y)], axis=-1).astype(np.uint8))


def square(box=(16, 16, 48, 48), size=SIDE, value=255):
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


def row_of(values):
    return Image.fromarray(np.array([values], dtype=np.uint8))


def values(image):
    return np.asarray(image).tolist()


def digest(image):
    return sha256(image.tobytes()).hexdigest()[:16]


def plan(mask, *, size=SIDE, round=True, invert=False, blur=(0, 0), resize_mode=0, only_masked=False, padding=0):
    return plan_mask(mask, size=size, round=round, invert=invert, blur=blur, resize_mode=resize_mode,
                     only_masked=only_masked, padding=padding)


# what counts as the mask

def transparent(*alphas):
    return Image.merge("RGBA", [row_of([255] * len(alphas))] * 3 + [row_of(alphas)])


def test_an_alpha_mask_is_cut_above_128():
    assert values(create_binary_mask(transparent(0, 1, 128, 129, 255))) == [[0, 0, 0, 255, 255]]


def test_an_unrounded_alpha_mask_keeps_its_steps():
    assert values(create_binary_mask(transparent(0, 1, 128, 129, 255), round=False)) == [[0, 1, 128, 129, 255]]


@pytest.mark.parametrize("round", [True, False])
def test_a_grey_mask_keeps_its_greys(round):
    assert values(create_binary_mask(row_of([0, 100, 128, 129, 255]), round)) == [[0, 100, 128, 129, 255]]


def test_an_opaque_rgba_mask_is_read_by_its_luminance():
    opaque = Image.merge("RGBA", [row_of([255, 0]), row_of([0, 0]), row_of([0, 0]), row_of([255, 255])])
    assert values(create_binary_mask(opaque)) == [[76, 0]]


def test_the_colours_under_an_alpha_mask_do_not_count():
    white_and_clear = transparent(0, 255)
    black_and_clear = Image.merge("RGBA", [row_of([0, 0])] * 3 + [row_of([0, 255])])
    assert values(create_binary_mask(white_and_clear)) == values(create_binary_mask(black_and_clear)) == [[0, 255]]


def test_an_la_mask_is_read_by_its_luminance():
    assert values(create_binary_mask(Image.merge("LA", [row_of([9, 200]), row_of([0, 255])]))) == [[9, 200]]


# blur

@pytest.mark.parametrize("blur, size", [(1, 7), (2, 11), (4, 21), (8, 41), (16, 81), (64, 321)])
def test_the_blur_kernel_reaches_two_and_a_half_sigma(blur, size):
    assert blur_kernel_size(blur) == size


def test_blur_4_is_that_of_a1111_along_an_edge():
    assert values(blur_mask(square(), 4, 4))[32][:24] == EDGE


def test_blur_4_is_that_of_a1111_along_a_diagonal():
    assert np.asarray(blur_mask(square(), 4, 4)).diagonal()[8:24].tolist() == CORNER


def test_x_blur_leaves_rows_apart():
    blurred = np.asarray(blur_mask(square(), 4, 0))
    assert blurred[32, :24].tolist() == EDGE
    assert not blurred[:16].any()


def test_y_blur_leaves_columns_apart():
    blurred = np.asarray(blur_mask(square(), 0, 4))
    assert blurred[:24, 32].tolist() == EDGE
    assert not blurred[:, :16].any()


def test_no_blur_is_the_mask():
    assert values(blur_mask(square(), 0, 0)) == values(square())


# the plan for the whole picture

def test_no_mask_needs_no_plan():
    assert plan(None) is None


def test_the_whole_picture_has_no_crop():
    whole = plan(square())
    assert whole.crop_region is None
    assert whole.paste_to is None


def test_the_overlay_mask_is_the_blurred_mask_doubled():
    whole = plan(square(), blur=(4, 4))
    assert values(whole.image_mask)[32][:24] == EDGE
    assert values(whole.mask_for_overlay)[32][:24] == [min(2 * v, 255) for v in EDGE]


def test_the_overlay_is_that_of_a1111():
    overlay = cut_out(gradient(), plan(square(), blur=(4, 4)).mask_for_overlay).convert("RGBA")
    points = [overlay.getpixel(at) for at in ((0, 0), (32, 10), (32, 14), (32, 16), (32, 32))]
    assert points == [(0, 0, 0, 255), (128, 39, 83, 213), (129, 54, 91, 75), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert digest(overlay) == "f287cf5933cce775"


def test_inverting_swaps_black_and_white_before_the_blur():
    outside = Image.eval(square(), lambda v: 255 - v)
    assert values(plan(square(), invert=True, blur=(2, 2)).image_mask) == values(blur_mask(outside, 2, 2))


def test_a_blank_mask_of_the_whole_picture_regenerates_nothing():
    blank = plan(Image.new("L", SIDE))
    assert blank.image_mask.getbbox() is None
    assert blank.mask_for_overlay.getbbox() is None


@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
def test_the_mask_is_brought_to_processing_size(resize_mode):
    resized = plan(square(), size=Size(32, 48), resize_mode=resize_mode)
    assert resized.image_mask.size == resized.mask_for_overlay.size == (32, 48)


def test_a_cropped_mask_loses_what_the_picture_loses():
    left_quarter = square((0, 0, 16, 64))
    assert plan(left_quarter, size=Size(32, 64), resize_mode=1).image_mask.getbbox() is None


# the plan for the masked area only

def test_only_the_masked_area_is_worked_on():
    masked = plan(square((20, 24, 28, 32)), only_masked=True)
    assert masked.crop_region == Box(20, 24, 28, 32)
    assert masked.paste_to == (20, 24, 8, 8)


def test_the_masked_area_fills_the_processing_size():
    masked = plan(square((20, 24, 28, 32)), only_masked=True)
    assert masked.image_mask.size == SIDE
    assert masked.image_mask.convert("L").getextrema() == (255, 255)


def test_the_overlay_mask_of_a_masked_area_is_the_blurred_mask_at_its_own_size():
    masked = plan(square(), size=Size(32, 32), blur=(4, 4), only_masked=True)
    assert values(masked.mask_for_overlay) == values(blur_mask(square(), 4, 4))


def test_the_crop_holds_the_whole_blur():
    assert plan(square(), blur=(4, 4), only_masked=True).crop_region == Box(*blur_mask(square(), 4, 4).getbbox())


def test_padding_comes_before_the_expansion():
    masked = plan(square((20, 24, 28, 32)), size=Size(64, 32), only_masked=True, padding=4)
    assert masked.crop_region == Box(8, 20, 40, 36)


def test_a_blank_mask_has_no_masked_area():
    assert plan(Image.new("L", SIDE), only_masked=True) is None


def test_a_full_mask_inverted_has_no_masked_area():
    assert plan(Image.new("L", SIDE, 255), invert=True, only_masked=True) is None


def test_two_islands_are_one_area():
    islands = square((0, 0, 1, 1))
    islands.putpixel((63, 63), 255)
    assert plan(islands, only_masked=True).crop_region == Box(0, 0, 64, 64)


# crop region

def test_the_crop_region_is_the_box_around_what_is_not_black():
    assert crop_region(square((3, 5, 9, 7), value=1)) == Box(3, 5, 9, 7)


def test_padding_stays_inside_the_picture():
    assert crop_region(square((2, 30, 60, 40)), padding=8) == Box(0, 22, 64, 48)


def test_a_blank_mask_has_no_crop_region():
    assert crop_region(Image.new("L", SIDE), padding=8) is None


@pytest.mark.parametrize("box, expanded", [
    ((100, 100, 228, 132), (100, 52, 228, 180)),
    ((10, 700, 60, 768), (1, 700, 69, 768)),
    ((0, 0, 1024, 10), (0, 0, 1024, 768)),
])
def test_a_crop_region_grows_to_the_processing_ratio_as_in_a1111(box, expanded):
    assert expand_crop_region(Box(*box), Size(512, 512), Size(1024, 768)) == Box(*expanded)


def test_an_odd_pixel_goes_to_the_right_and_the_bottom():
    assert expand_crop_region(Box(20, 20, 29, 30), Size(8, 8), SIDE) == Box(20, 20, 30, 30)
    assert expand_crop_region(Box(20, 20, 30, 29), Size(8, 8), SIDE) == Box(20, 20, 30, 30)


@pytest.mark.parametrize("box", [(0, 0, 8, 2), (56, 62, 64, 64), (0, 0, 2, 8), (62, 56, 64, 64), (0, 30, 64, 34)])
@pytest.mark.parametrize("size", [Size(64, 64), Size(64, 32), Size(24, 64)])
def test_an_expanded_region_holds_the_old_one_and_stays_inside(box, size):
    x1, y1, x2, y2 = expand_crop_region(Box(*box), size, SIDE)
    assert 0 <= x1 <= box[0] and box[2] <= x2 <= 64
    assert 0 <= y1 <= box[1] and box[3] <= y2 <= 64


# fill

def test_fill_under_a_blurred_mask_is_that_of_a1111():
    filled = fill(gradient(), blur_mask(square(), 4, 4))
    points = [filled.getpixel(at) for at in ((0, 0), (16, 16), (40, 20), (32, 32), (47, 47), (63, 63))]
    assert points == [(0, 0, 0), (63, 63, 63), (164, 73, 118), (124, 125, 124), (188, 188, 188), (252, 252, 252)]
    assert digest(filled) == "37414e2bdf961ef5"


def test_fill_under_a_hard_mask_is_that_of_a1111():
    filled = fill(gradient(), square())
    points = [filled.getpixel(at) for at in ((16, 16), (40, 20), (32, 32))]
    assert points == [(61, 60, 60), (167, 67, 115), (128, 129, 128)]
    assert digest(filled) == "97e89282b253c492"


def test_fill_leaves_what_is_not_masked():
    filled, source = np.asarray(fill(gradient(), square())), np.asarray(gradient())
    outside = np.asarray(square()) == 0
    assert (filled[outside] == source[outside]).all()


def test_what_is_masked_has_no_part_in_the_fill():
    other = gradient()
    other.paste("red", (16, 16, 48, 48))
    assert digest(fill(other, square())) == digest(fill(gradient(), square()))


# at latent resolution

LATENT = torch.zeros(1, 4, 8, 8)


def row_4(mask, **options):
    return [round(v, 4) for v in latent_masks(mask, LATENT, **options)[1][0, 4].tolist()]


def test_a_hard_mask_overshoots_into_neighbouring_cells_as_in_a1111():
    assert row_4(square(), round=False) == [0, 0.0784, 0.9333, 1, 1, 0.9333, 0.0784, 0]


def test_a_blurred_mask_is_that_of_a1111_at_latent_resolution():
    assert row_4(blur_mask(square(), 4, 4), round=False) == [0, 0.1961, 0.8157, 1, 1, 0.8157, 0.1961, 0]


@pytest.mark.parametrize("blur", [0, 4])
def test_a_rounded_latent_mask_is_0_or_1(blur):
    assert row_4(blur_mask(square(), blur, blur), round=True) == [0, 0, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("grey, rounded", [(127, 0), (128, 1)])
def test_half_grey_rounds_at_128(grey, rounded):
    assert row_4(Image.new("L", SIDE, grey), round=True) == [rounded] * 8


@pytest.mark.parametrize("round", [True, False])
def test_preserve_and_regenerate_sum_to_1(round):
    preserve, regenerate = latent_masks(blur_mask(square(), 4, 4), LATENT, round=round)
    assert torch.equal(preserve + regenerate, torch.ones(4, 8, 8))


def test_latent_masks_are_as_the_latent_is():
    latent = torch.zeros(2, 16, 6, 9, dtype=torch.float64)
    for mask in latent_masks(square(), latent, round=False):
        assert mask.shape == (16, 6, 9)
        assert mask.dtype == torch.float64


def test_every_channel_has_the_same_latent_mask():
    regenerate = latent_masks(blur_mask(square(), 4, 4), LATENT, round=False)[1]
    assert torch.equal(regenerate, regenerate[:1].expand(4, -1, -1))
