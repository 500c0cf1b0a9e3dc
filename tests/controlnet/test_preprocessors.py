"""Preprocessors, with numbers worked out by hand."""

import numpy as np
import pytest

from pipeline.controlnet.preprocessors import (
    PREPROCESSORS, Settings, find_preprocessor, in_order, pixel_perfect, preprocess, seen_at)
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.geometry import Size


def run(name, picture, **values):
    one = find_preprocessor(name)
    return preprocess(one, picture, one.settings(**values))


def plain(value, height=64, width=64):
    return np.full((height, width, 3), value, np.uint8)


def half_and_half():
    """64x64: the left half black, the right white."""
    picture = plain(0)
    picture[:, 32:] = 255
    return picture


def test_a_picture_is_seen_with_its_shorter_side_at_the_resolution_padded_to_blocks():
    padded, size = seen_at(plain(9, 50, 100), 128)
    assert size == Size(256, 128) and padded.shape == (128, 256, 3)
    padded, size = seen_at(plain(9, 100, 75), 72)
    assert size == Size(72, 96) and padded.shape == (128, 128, 3)


def test_the_padding_repeats_the_edge():
    picture = plain(10, 64, 80)
    picture[:, -1] = 200
    padded, size = seen_at(picture, 64)
    assert size == Size(80, 64) and (padded[:, 79:] == 200).all() and padded.shape[1] == 128


def test_a_picture_too_narrow_for_the_resolution_is_refused_in_a_sentence():
    with pytest.raises(InvalidRequest, match="too narrow"):
        run("canny", plain(0, 1, 60_000), resolution=2048)


@pytest.mark.parametrize("height, width, target, mode, expected", [
    (100, 200, Size(512, 512), "Crop and Resize", 512),   # max(5.12, 2.56) * 100
    (100, 200, Size(512, 512), "Resize and Fill", 256),   # min(5.12, 2.56) * 100
    (100, 200, Size(512, 512), "Just Resize", 512),
    (300, 200, Size(512, 768), "Crop and Resize", 512),   # 2.56 * 200
    (333, 500, Size(640, 480), "Resize and Fill", 426),   # 1.28 * 333 = 426.24
])
def test_pixel_perfect_is_the_resolution_of_the_result(height, width, target, mode, expected):
    assert pixel_perfect(plain(0, height, width), target, mode) == expected


@pytest.mark.parametrize("name, given, expected", [
    ("canny", {}, Settings(512, 100, 200)),
    ("canny", {"resolution": 63, "a": 0, "b": 256}, Settings(512, 100, 200)),
    ("canny", {"resolution": 64, "a": 1, "b": 255}, Settings(64, 1, 255)),
    ("threshold", {"a": 0}, Settings(512, 0, 0.5)),
    ("tile_resample", {"a": 0.9, "b": 7}, Settings(512, 1.0, 0.5)),
    ("none", {"a": -1}, Settings(512, 0.5, 0.5)),
])
def test_settings_out_of_range_become_the_defaults(name, given, expected):
    assert find_preprocessor(name).settings(**given) == expected


def test_none_and_the_inpaint_kinds_leave_the_picture_alone():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    for name in ("none", "inpaint", "inpaint_only", "tile_colorfix", "tile_colorfix+sharp"):
        assert (run(name, picture) == picture).all()


def test_invert_turns_each_value_around():
    assert (run("invert (from white bg & black line)", plain(30)) == 225).all()


def test_canny_finds_the_one_edge_and_nothing_else():
    edges = run("canny", half_and_half(), resolution=64)
    columns = np.flatnonzero(edges[..., 0].any(axis=0))
    assert edges.shape == (64, 64, 3) and len(columns) == 1 and columns[0] in (31, 32)
    assert (edges[:, columns[0]] == 255).all()


def test_threshold_is_white_where_all_channels_are_above_it():
    picture = plain(0)
    picture[:, 32:] = (128, 200, 255)
    assert (run("threshold", picture, resolution=64, a=127)[:, 32:] == 255).all()
    assert (run("threshold", picture, resolution=64, a=128) == 0).all()


def test_blur_keeps_a_plain_picture_and_meets_halfway_at_an_edge():
    assert (run("blur_gaussian", plain(77), resolution=64, a=9) == 77).all()
    blurred = run("blur_gaussian", half_and_half(), resolution=64, a=2)
    assert abs(int(blurred[32, 31, 0]) + int(blurred[32, 32, 0]) - 255) <= 1


def test_xdog_draws_dark_lines_only():
    picture = plain(255)
    picture[:, 30:32] = 215  # 40 darker: the fine blur is about 35 darker than the coarse one, twice that exceeds 32
    drawn = run("scribble_xdog", picture, resolution=64)
    assert (drawn[:, 30:32] == 255).all() and not drawn[:, :24].any() and not drawn[:, 40:].any()
    assert not run("scribble_xdog", 255 - picture, resolution=64)[:, 30:32].any()


def test_lineart_scales_typical_lines_to_grey_127():
    picture = plain(255, 512, 512)
    picture[:, 256] = 155
    lines = run("lineart_standard", picture)[256, 256, 0]
    # the only strong values are the line's, so their median is the line itself
    assert abs(int(lines) - 127) <= 1
    assert not run("lineart_standard", plain(100, 512, 512)).any()


def test_tile_resample_shrinks_by_its_rate_from_1_1_on():
    picture = plain(50, 100, 60)
    assert run("tile_resample", picture, a=1.09).shape == (100, 60, 3)
    assert run("tile_resample", picture, a=1.6).shape == (62, 37, 3)  # 62.5 and 37.5, cut


def test_gamma_is_applied_to_the_brightest_channel():
    picture = plain(0)
    picture[:] = (64, 128, 32)
    assert (run("recolor_intensity", picture) == 128).all()
    assert (run("recolor_intensity", picture, a=2.0) == 64).all()  # (128/255)² · 255 = 64.25


def test_luminance_takes_red_for_blue_as_the_extension_does():
    red, blue = plain(0), plain(0)
    red[..., 0], blue[..., 2] = 255, 255
    # CIE L* of pure blue is 32.3 and of pure red 53.2, of 100; in 8 bits 82 and 136
    assert (run("recolor_luminance", red) == 82).all() and (run("recolor_luminance", blue) == 136).all()


def test_the_colour_grid_has_one_colour_per_64_pixels_and_is_square():
    grid = run("t2ia_color_grid", plain(90, 100, 300), resolution=256)
    assert grid.shape == (256, 256, 3) and (grid == 90).all()
    grid = run("color", np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), resolution=128)
    assert all((grid[y:y + 64, x:x + 64] == grid[y, x]).all() for y in (0, 64) for x in (0, 64))


def test_shuffle_moves_colours_and_repeats_itself_for_a_seed():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[..., 0] = np.arange(96)
    once, again, other = (run("shuffle", picture, seed=seed) for seed in (5, 5, 6))
    assert once.shape == (512, 768, 3) and (once == again).all() and (once != other).any()
    assert set(np.unique(once[..., 1:])) == {0} and once[..., 0].max() <= 95


def test_names_and_aliases_find_the_same_and_others_are_refused():
    assert find_preprocessor("inpaint_global_harmonious") is find_preprocessor("inpaint") is PREPROCESSORS["inpaint"]
    with pytest.raises(UnknownName, match='no preprocessor called "cany"; did you mean "canny"'):
        find_preprocessor("cany")


def test_the_menu_begins_with_none_and_the_defaults_of_the_control_types():
    labels = [one.label for one in in_order()]
    assert labels[0] == "none" and len(labels) == len(set(labels)) == len(PREPROCESSORS)
    assert labels.index("tile_resample") < labels.index("tile_colorfix") and labels.index("inpaint_only") < labels.index("inpaint_global_harmonious")
