"""Selecting without a model: what a box, a stroke and two points of an edge mean, on pictures whose shapes are known."""

import numpy as np
import pytest

from pipeline.errors import InvalidRequest
from pipeline.geometry import Box
from pipeline.selection import follow_edge, select_by_stroke, select_in_box


def star(size: int, noise: float = 8) -> tuple[np.ndarray, np.ndarray]:
    """(a picture of a red star before a mottled wall, where the star is)."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    around = np.arctan2(y - 0.5, x - 0.5)
    shape = np.hypot(x - 0.5, y - 0.5) < 0.22 * (1 + 0.35 * np.sin(5 * around))
    wall = np.stack([90 + 40 * np.sin(29 * x), 120 + 30 * np.cos(27 * y), 100 + 30 * np.sin(35 * (x + y))], -1)
    red = np.stack([210 + 20 * np.sin(30 * y), 70 + 20 * np.cos(40 * x), 50 + 0 * x], -1)
    picture = np.where(shape[..., None], red, wall) + np.random.default_rng(0).normal(0, noise, (size, size, 3))
    return np.clip(picture, 0, 255).astype(np.uint8), shape


def overlap(selected: np.ndarray, shape: np.ndarray) -> float:
    """Intersection over union."""
    assert selected.shape == shape.shape and selected.dtype == np.uint8 and set(np.unique(selected)) <= {0, 255}
    return ((selected > 0) & shape).sum() / ((selected > 0) | shape).sum()


def around(size: int) -> Box:
    return Box(round(0.17 * size), round(0.17 * size), round(0.83 * size), round(0.83 * size))


@pytest.mark.parametrize("size, noise", [(300, 8), (300, 0), (1400, 8)])
def test_a_box_selects_what_it_was_drawn_around(size, noise):
    picture, shape = star(size, noise)
    assert overlap(select_in_box(picture, around(size)), shape) > 0.98


@pytest.mark.parametrize("size, noise", [(300, 8), (300, 0), (1400, 8)])
def test_a_rough_stroke_selects_what_it_lies_on(size, noise):
    picture, shape = star(size, noise)
    assert overlap(select_by_stroke(picture, [(0.42 * size, 0.5 * size), (0.58 * size, 0.52 * size)], 0.03 * size), shape) > 0.98


def test_a_stroke_may_be_wider_than_what_it_lies_on():
    picture, shape = star(300)
    arm = [(0.5 * 300, 0.62 * 300), (0.42 * 300, 0.36 * 300)]
    assert overlap(select_by_stroke(picture, arm, 30), shape) > 0.95
    assert not shape[:100, 90:115].all()  # the stroke reaches beside it


def test_the_edge_is_found_at_the_pictures_own_resolution():
    """Of a picture that is looked at at a third of its size the edge is within a pixel."""
    picture, shape = star(1200)
    wrong = (select_in_box(picture, around(1200)) > 0) != shape
    inner = shape & np.roll(shape, 2, 0) & np.roll(shape, -2, 0) & np.roll(shape, 2, 1) & np.roll(shape, -2, 1)
    outer = ~(shape | np.roll(shape, 2, 0) | np.roll(shape, -2, 0) | np.roll(shape, 2, 1) | np.roll(shape, -2, 1))
    assert (wrong & (inner | outer)).sum() < 0.001 * shape.sum()


def test_the_same_box_selects_the_same():
    picture, _ = star(200)
    assert (select_in_box(picture, around(200)) == select_in_box(picture, around(200))).all()


def test_what_lies_outside_the_box_is_never_selected():
    picture, _ = star(200)
    selected = select_in_box(picture, Box(50, 34, 166, 166))
    assert selected[34:166, 50:166].any() and not selected[:, :50].any()


@pytest.mark.parametrize("box, sentence", [
    (Box(-5, -5, 500, 500), "leave some of the picture outside"), (Box(50, 50, 51, 90), "at least 2 pixels"), (Box(300, 20, 400, 90), "inside the picture")])
def test_a_box_that_tells_nothing_is_one_sentence(box, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        select_in_box(star(100)[0], box)


@pytest.mark.parametrize("point, radius, sentence", [((500, 500), 5, "on the picture"), ((50, 50), 400, "part outside")])
def test_a_stroke_that_tells_nothing_is_one_sentence(point, radius, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        select_by_stroke(star(100)[0], [point], radius)


def test_a_thin_stroke_on_a_large_picture_counts():
    picture, shape = star(1400)
    selected = select_by_stroke(picture, [(600, 700), (800, 720)], 1)
    assert selected[700:720, 650:750].mean() > 200 and not (selected[~shape]).any()


@pytest.mark.parametrize("picture", [np.zeros((2, 5, 3), np.uint8), np.zeros((3, 200, 3), np.uint8), np.full((80, 80, 3), 200, np.uint8)])
def test_pictures_without_anything_to_tell_apart_come_to_an_end(picture):
    height, width = picture.shape[:2]
    assert select_by_stroke(picture, [(width / 2, height / 2)], 1).shape == (height, width)
    assert follow_edge(picture, (0, 0), (width, height), reach=4)[0] == (0, 0)


def disc(size: int, noise: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] + 0.5
    inside = np.hypot(x - size / 2, y - size / 2) < size / 3
    picture = np.where(inside[..., None], (60, 90, 160), (150, 140, 110)) + np.random.default_rng(1).normal(0, noise, (size, size, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 6])
def test_a_path_follows_the_edge(noise):
    picture, (middle, radius) = disc(240, noise), (120, 80)
    path = np.array(follow_edge(picture, (middle + radius, middle), (middle, middle + radius)))
    assert np.abs(np.hypot(*(path - middle).T) - radius).max() < 2
    assert len(path) > 50 and (path[1:-1] > middle - 2).all()  # the quarter between the two, and not the way around


def test_a_long_path_is_found_at_a_smaller_scale():
    picture, (middle, radius) = disc(1200, 6), (600, 400)
    path = np.array(follow_edge(picture, (middle + radius, middle), (middle, middle + radius)))
    assert np.abs(np.hypot(*(path - middle).T) - radius).max() < 1200 / 288  # a pixel of what it was looked for in


def test_a_path_ends_on_the_edge_near_the_pointer():
    picture = disc(240, 6)
    x, y = follow_edge(picture, (200, 120), (120 + 57 + 5, 120 + 57 + 4), reach=12)[-1]
    assert abs(np.hypot(x - 120, y - 120) - 80) < 2
    assert follow_edge(picture, (200, 120), (120, 120), reach=12)[-1] == (120, 120)  # there is none


def test_points_beside_the_picture_count_as_at_its_border():
    assert follow_edge(disc(60, 0), (-20, 10), (90, 70)) [-1] == (60, 60)
