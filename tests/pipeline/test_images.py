"""The numbers are those of A1111 v1.10.1 for a gradient; test_masking.py has those of the overlay itself."""

import time
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.geometry import Size
from pipeline.images import (
    LANCZOS,
    apply_color_correction,
    apply_overlay,
    before_overlay,
    blend_luminosity,
    color_target,
    cut_out,
    flatten,
    grid_rows,
    image_grid,
    match_histogram,
    middle_resized,
    resize_image,
    to_image,
    to_tensor,
    uncrop,
)
from pipeline.upscaling import nearest
from pipeline.masking import plan_mask


def gradient(width=64, height=64):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * x, 4 * y, 2 * (x + y)], axis=-1).astype(np.uint8))


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def solid(color, width=4, height=4):
    return Image.new("RGB", (width, height), color)


def digest(image):
    return sha256(image.tobytes()).hexdigest()[:16]


# resizing

@pytest.mark.parametrize("mode, size, points, pixels", [
    (0, (40, 40), [(1, 0, 1), (129, 96, 113), (251, 188, 219)], "75a4062295bed8b8"),
    (0, (96, 48), [(0, 0, 0), (127, 96, 112), (252, 188, 220)], "60fdf3d323f40597"),
    (0, (48, 96), [(1, 0, 0), (129, 95, 112), (251, 188, 220)], "c959be3342b234ef"),
    (1, (40, 40), [(29, 0, 15), (126, 96, 111), (218, 188, 203)], "2c61d8c9dc96d42d"),
    (1, (96, 48), [(0, 31, 16), (127, 95, 112), (252, 157, 204)], "68cdb2e868357c7b"),
    (1, (48, 96), [(79, 0, 40), (127, 95, 112), (173, 188, 180)], "37793ba604e785af"),
    (2, (40, 40), [(1, 0, 2), (129, 97, 114), (251, 188, 218)], "a6d58868ea307acf"),
    (2, (96, 48), [(0, 0, 0), (128, 96, 112), (253, 188, 220)], "bc91cbb0ab06d59b"),
    (2, (48, 96), [(1, 0, 0), (129, 97, 112), (251, 188, 220)], "fbf4952bbb036586"),
])
def test_resizing_is_that_of_a1111(mode, size, points, pixels):
    width, height = size
    resized = resize_image(mode, gradient(64, 48), width, height)
    assert [resized.getpixel(at) for at in ((0, 0), (width // 2, height // 2), (width - 1, height - 1))] == points
    assert digest(resized) == pixels


@pytest.mark.parametrize("size", [(40, 40), (96, 48), (48, 96)])
def test_mode_3_resizes_as_mode_2(size):
    assert digest(resize_image(3, gradient(64, 48), *size)) == digest(resize_image(2, gradient(64, 48), *size))


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("source", [(1, 1), (1, 300), (300, 1), (7, 9)])
@pytest.mark.parametrize("size", [(8, 64), (64, 8), (17, 17)])
def test_any_size_can_be_reached_from_any_other(mode, source, size):
    assert resize_image(mode, noise(*source), *size).size == size


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_the_same_size_changes_no_pixel(mode):
    assert digest(resize_image(mode, noise(16, 12), 16, 12)) == digest(noise(16, 12))


def test_stretching_keeps_the_mode_of_a_mask():
    assert resize_image(0, Image.new("L", (8, 8)), 16, 16).mode == "L"


@pytest.mark.parametrize("mode", [1, 2])
def test_cropping_and_filling_give_rgb(mode):
    assert resize_image(mode, Image.new("L", (8, 8), 70), 16, 8).convert("RGB").getpixel((8, 4)) == (70, 70, 70)
    assert resize_image(mode, Image.new("L", (8, 8)), 16, 8).mode == "RGB"


def test_filled_bands_continue_the_slope_of_the_edge_by_an_eighth():
    picture = Image.fromarray(np.repeat(np.array([40, 80, 120, 200], np.uint8)[:, None, None], 4, 1).repeat(3, 2))
    column = np.asarray(resize_image(2, picture, 4, 10))[:, 0, 0]
    assert column.tolist() == [35, 35, 35, 40, 80, 120, 200, 210, 210, 210]


def test_filled_bands_beside_a_picture_follow_the_same_rule():
    picture = Image.fromarray(np.repeat(np.array([40, 80, 120, 200], np.uint8)[None, :, None], 4, 0).repeat(3, 2))
    row = np.asarray(resize_image(2, picture, 10, 4))[0, :, 0]
    assert row.tolist() == [35, 35, 35, 40, 80, 120, 200, 210, 210, 210]


def test_a_filled_band_stays_in_range():
    steep = Image.fromarray(np.repeat(np.array([0, 255, 0, 255], np.uint8)[:, None, None], 4, 1).repeat(3, 2))
    column = np.asarray(resize_image(2, steep, 4, 6))[:, 0, 0]
    assert (column[0], column[-1]) == (0, 255)


def test_a_picture_of_one_line_fills_with_that_line():
    assert np.asarray(resize_image(2, solid((9, 90, 200), 8, 1), 8, 9)).reshape(-1, 3).tolist() == [[9, 90, 200]] * 72


# transparency

def test_flattening_shows_the_background_through():
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), (10, 20, 30, 0))
    flat = flatten(picture, "#ff8000")
    assert flat.mode == "RGB"
    assert [flat.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 128, 0)]


def test_half_transparent_pixels_are_mixed_with_the_background():
    assert flatten(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "#ffffff").getpixel((0, 0)) == (127, 127, 127)


def test_flattening_leaves_an_opaque_picture():
    assert digest(flatten(noise(8, 8), "#ff8000")) == digest(noise(8, 8))


def test_a_cut_out_is_clear_where_the_mask_is_white():
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    alpha = np.asarray(cut_out(noise(16, 16), mask).convert("RGBA"))[..., 3]
    assert (alpha == 255 - np.asarray(mask)).all()


# overlays

def test_the_composite_is_that_of_a1111():
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    plan = plan_mask(mask, size=Size(64, 64), round=True, invert=False, blur=(4, 4), resize_mode=0,
                     only_masked=False, padding=0)
    overlay = cut_out(gradient(), plan.mask_for_overlay).convert("RGBA")
    composite = apply_overlay(solid((10, 20, 30), 64, 64), None, overlay)
    points = [composite.getpixel(at) for at in ((0, 0), (32, 10), (32, 14), (32, 16))]
    assert points == [(0, 0, 0), (109, 36, 74), (45, 30, 48), (10, 20, 30)]
    assert digest(composite) == "5a8add11e3b927dd"


def overlay_of(source, box, blurred=0):
    mask = Image.new("L", source.size, blurred)
    mask.paste(255, box)
    return cut_out(source, mask).convert("RGBA")


def test_pixels_under_an_opaque_overlay_are_those_of_the_source():
    source, result = noise(16, 16), noise(16, 16, seed=1)
    composite = apply_overlay(result, None, overlay_of(source, (4, 4, 12, 12)))
    inside = np.zeros((16, 16), bool)
    inside[4:12, 4:12] = True
    assert (np.asarray(composite)[~inside] == np.asarray(source)[~inside]).all()
    assert (np.asarray(composite)[inside] == np.asarray(result)[inside]).all()


def test_an_only_masked_result_changes_no_pixel_outside_its_mask():
    source, result = noise(16, 16), noise(64, 64, seed=1)
    composite = apply_overlay(result, (2, 3, 8, 8), overlay_of(source, (4, 4, 10, 10)))
    changed = (np.asarray(composite) != np.asarray(source)).any(axis=-1)
    assert changed[4:10, 4:10].any()
    changed[4:10, 4:10] = False
    assert not changed.any()


def test_an_only_masked_result_returns_at_the_size_of_the_source():
    place = (0, 0, 4, 4), overlay_of(noise(16, 12), (0, 0, 4, 4))
    assert apply_overlay(noise(8, 8), *place).size == before_overlay(noise(8, 8), *place).size == (16, 12)


def test_the_picture_before_the_overlay_is_what_was_drawn():
    result = noise(16, 16, seed=1)
    assert digest(before_overlay(result, None, overlay_of(noise(16, 16), (4, 4, 12, 12)))) == digest(result)


@pytest.mark.parametrize("alpha", [0, 255, "a little", "all kinds"])
@pytest.mark.parametrize("paste_to, size", [(None, (16, 12)), (None, (20, 9)), ((3, 2, 9, 7), (8, 8))])
def test_a_composite_is_the_same_as_if_all_of_it_were_composed(alpha, paste_to, size):
    values = np.full((12, 16), 255, np.uint8) if alpha == "a little" else np.random.default_rng(2).integers(0, 256, (12, 16), np.uint8)
    values[5:7, 2:5] = (90, 180, 0)
    overlay, result = noise(16, 12).convert("RGBA"), noise(*size, seed=1)
    overlay.putalpha(Image.fromarray(values) if isinstance(alpha, str) else alpha)
    whole = before_overlay(result, paste_to, overlay).convert("RGBA")
    whole.alpha_composite(overlay)
    assert digest(apply_overlay(result, paste_to, overlay)) == digest(whole.convert("RGB"))


def test_without_an_overlay_the_picture_stays():
    place = (0, 0, 4, 4), None
    assert digest(apply_overlay(noise(8, 8), *place)) == digest(before_overlay(noise(8, 8), *place)) == digest(noise(8, 8))


def test_a_result_returns_to_where_it_was_cropped():
    canvas = uncrop(noise(3, 2), Size(8, 8), (4, 5, 3, 2))
    assert canvas.mode == "RGBA"
    assert canvas.getbbox() == (4, 5, 7, 7)
    assert digest(canvas.crop((4, 5, 7, 7)).convert("RGB")) == digest(noise(3, 2))


# colour correction

def test_colour_correction_is_that_of_a1111():
    source = Image.fromarray(np.random.RandomState(3).randint(0, 256, (32, 32, 3), np.uint8))
    corrected = apply_color_correction(color_target(gradient().crop((0, 0, 32, 32))), source)
    assert [corrected.getpixel((x, 0)) for x in range(3)] == [(67, 35, 38), (120, 140, 116), (96, 18, 60)]
    assert digest(corrected) == "390b80498f17c179"


def test_a_histogram_matched_to_itself_changes_nothing():
    values = np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8)
    assert (match_histogram(values, values) == values).all()


def test_a_matched_histogram_has_only_values_of_the_target():
    source, target = np.arange(256, dtype=np.uint8), np.full(10, 77, np.uint8)
    assert set(match_histogram(source, target).tolist()) == {77}


def test_blended_luminosity_takes_grey_from_the_light():
    grey = np.full((1, 1, 3), 90, np.uint8)
    assert np.asarray(blend_luminosity(np.full((1, 1, 3), 200, np.uint8), grey))[0, 0] == pytest.approx([90] * 3, abs=1)


@pytest.mark.parametrize("light", [0, 255])
def test_black_and_white_light_stay_black_and_white(light):
    color = np.array([[[255, 0, 0]]], np.uint8)
    assert np.asarray(blend_luminosity(color, np.full((1, 1, 3), light, np.uint8)))[0, 0] == pytest.approx([light] * 3, abs=1)


# tensors

def test_a_tensor_runs_from_minus_1_to_1():
    picture = solid((0, 255, 51), 5, 3)
    tensor = to_tensor(picture)
    assert tensor.shape == (3, 3, 5)
    assert tensor.dtype == torch.float32
    assert torch.allclose(tensor[:, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_a_tensor_becomes_a_picture_by_truncation():
    levels = torch.tensor([99.9, 100.0, 100.99]) / 255 * 2 - 1
    assert to_image(levels.reshape(3, 1, 1)).getpixel((0, 0)) == (99, 100, 100)


def test_what_is_out_of_range_is_cut():
    assert to_image(torch.tensor([-3.0, 0.0, 3.0]).reshape(3, 1, 1)).getpixel((0, 0)) == (0, 127, 255)


def test_half_precision_becomes_a_picture_too():
    assert to_image(torch.ones(3, 2, 2, dtype=torch.bfloat16)).getpixel((1, 1)) == (255, 255, 255)


# grids

@pytest.mark.parametrize("count, columns_and_rows", [
    (1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (4, (2, 2)), (5, (3, 2)), (6, (3, 2)), (7, (3, 3)), (9, (3, 3)),
])
def test_a_grid_is_as_square_as_in_a1111(count, columns_and_rows):
    sheet = image_grid([solid("red", 4, 2)] * count)
    assert (sheet.width // 4, sheet.height // 2) == columns_and_rows


def test_a_grid_runs_row_by_row_and_ends_in_white():
    sheet = image_grid([solid((shade, 0, 0), 1, 1) for shade in range(5)])
    reds = [[sheet.getpixel((x, y)) for x in range(3)] for y in range(2)]
    assert reds == [[(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(3, 0, 0), (4, 0, 0), (255, 255, 255)]]


def test_smaller_pictures_are_centred_in_their_cells():
    sheet = image_grid([solid("black", 6, 4), solid("black", 2, 1)], rows=1)
    assert sheet.size == (12, 4)
    assert Image.eval(sheet.crop((6, 0, 12, 4)), lambda v: 255 - v).getbbox() == (2, 1, 4, 2)


def test_rows_can_be_asked_for():
    assert image_grid([solid("red", 1, 1)] * 6, rows=6).size == (1, 6)


def test_no_more_rows_than_pictures():
    assert image_grid([solid("red", 1, 1)] * 2, rows=5).size == (1, 2)


@pytest.mark.parametrize("count, rows", [(1, 1), (2, 1), (5, 1), (6, 2), (7, 1), (9, 3), (12, 3)])
def test_a_grid_can_be_made_without_gaps(count, rows):
    assert grid_rows(count, leave_no_gap=True) == rows


# upscalers

@pytest.mark.parametrize("mode", [0, 1, 2])
def test_an_upscaler_enlarges_what_is_smaller_and_leaves_the_rest_to_lanczos(mode, picture):
    larger = resize_image(mode, picture, 128, 128, nearest)
    assert larger.tobytes() == picture.resize((128, 128), Image.Resampling.NEAREST).tobytes()
    assert resize_image(mode, picture, 32, 32, nearest).tobytes() == resize_image(mode, picture, 32, 32).tobytes()


def test_an_upscaler_s_picture_is_stretched_from_multiples_of_8(picture):
    expected = picture.resize((104, 104), Image.Resampling.NEAREST).resize((104, 104), LANCZOS).resize((108, 100), LANCZOS)
    by_hand = picture.resize((108, 108), Image.Resampling.NEAREST).resize((104, 104), LANCZOS).resize((108, 100), LANCZOS)
    assert resize_image(0, picture, 108, 100, nearest).tobytes() == by_hand.tobytes() != expected.tobytes()


def test_masks_are_resized_without_an_upscaler(mask):
    assert resize_image(0, mask, 128, 128, nearest).tobytes() == mask.resize((128, 128), LANCZOS).tobytes()


@pytest.mark.parametrize("size, target", [((3000, 2), (512, 512)), ((2, 3000), (512, 512)), ((65535, 1), (8192, 64)),
                                          ((512, 512), (1, 65535))])
@pytest.mark.parametrize("upscaler", [None, nearest])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_lines_of_pixels_are_brought_to_any_size_without_what_is_cut_off(size, target, mode, upscaler):
    start = time.process_time()
    assert resize_image(mode, Image.new("RGB", size, "red"), *target, upscaler).size == target
    assert time.process_time() - start < 10  # under 1 s here


def test_what_is_cut_off_does_not_change_the_rest():
    stripes = Image.fromarray(np.repeat(noise(300, 1), 2, axis=0))
    whole = stripes.resize((300 * 256, 512), LANCZOS).crop((150 * 256 - 256, 0, 150 * 256 + 256, 512))
    part = middle_resized(stripes, 512, 512)
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(part)).max() <= 1
