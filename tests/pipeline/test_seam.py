"""How far the edge of a mask is seen, and how it is blended: on pictures whose step at the edge is known."""

import cv2
import numpy as np
import pytest

from pipeline.errors import InvalidRequest
from pipeline.seam import WAYS, Word, blend, measure, membrane

SIDE = 160


def picture(kind: str, seed: int = 0) -> np.ndarray:
    """RGB, grey in the middle on the whole."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, (SIDE, SIDE, 3)).astype(np.float32)
    if kind == "texture":
        noise = cv2.GaussianBlur(noise, (0, 0), 2)
        noise /= noise.std()
    deviation = {"flat": 0, "gradient": 0, "fine noise": 12, "coarse noise": 30, "texture": 25}[kind]
    even = np.linspace(60, 180, SIDE) if kind == "gradient" else np.full(SIDE, 120)
    return np.clip(even[None, :, None] + deviation * noise, 0, 255).astype(np.uint8)


def disc(softness: float = 0) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (SIDE // 2, SIDE // 2), SIDE // 4, 255, -1)
    return cv2.GaussianBlur(mask, (0, 0), softness) if softness else mask


def mixed(source: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the pipeline makes of both."""
    share = mask[..., None] / 255
    return np.rint(source * (1 - share) + drawn * share).astype(np.uint8)


def with_step(source: np.ndarray, step: int, mask: np.ndarray) -> np.ndarray:
    """The picture as if a model had drawn the same, lighter by a step."""
    return mixed(source, np.clip(source.astype(int) + step, 0, 255), mask)


@pytest.mark.parametrize("softness", [0, 4])
@pytest.mark.parametrize("kind, step, word", [
    ("flat", 0, "none"), ("flat", 3, "none"), ("flat", 12, "faint"), ("flat", 30, "visible"),
    ("gradient", 0, "none"), ("gradient", 3, "none"), ("gradient", 12, "faint"), ("gradient", 30, "visible"),
    ("fine noise", 0, "none"), ("fine noise", 5, "none"), ("fine noise", 15, "faint"), ("fine noise", 60, "visible"),
    ("coarse noise", 0, "none"), ("coarse noise", 12, "none"), ("coarse noise", 25, "faint"), ("coarse noise", 120, "visible"),
    ("texture", 0, "none"), ("texture", 120, "visible")])
def test_a_step_is_told_beside_what_the_picture_has(kind, step, word, softness):
    source, mask = picture(kind), disc(softness)
    assert measure(with_step(source, step, mask), source, mask).word == word


@pytest.mark.parametrize("kind", ["fine noise", "coarse noise"])
def test_other_noise_of_the_same_kind_is_no_seam(kind):
    for seed in range(1, 6):
        source, mask = picture(kind), disc()
        assert measure(mixed(source, picture(kind, seed), mask), source, mask).word is Word.NONE


def test_the_jump_is_in_cielab():
    source = picture("flat")  # L of 120 and of 150, from sRGB's definition: 50.43 and 62.09
    seam = measure(with_step(source, 30, disc()), source, disc())
    assert seam.jump == pytest.approx(62.09 - 50.43, abs=0.2) and seam.contrast < 0.1
    assert seam.edge == pytest.approx(2 * np.pi * SIDE / 4, rel=0.3)


def test_an_edge_that_the_source_has_already_is_no_seam():
    """Such as a mask drawn exactly around a thing that gets another texture."""
    mask = disc()
    source = with_step(picture("flat"), 60, mask)
    assert measure(source, source, mask).word is Word.NONE
    assert measure(picture("flat"), source, mask).word is Word.NONE  # the thing is gone
    assert measure(with_step(picture("flat"), 200, mask), source, mask).word is not Word.NONE


def test_a_seam_on_a_quarter_of_the_edge_counts():
    source, mask = picture("flat"), disc()
    result = with_step(source, 40, mask)
    result[:, :SIDE * 3 // 5] = source[:, :SIDE * 3 // 5]
    assert measure(result, source, mask).word is Word.VISIBLE


def test_the_picture_s_own_border_is_no_edge():
    source, mask = picture("flat"), np.zeros((SIDE, SIDE), np.uint8)
    mask[SIDE // 2:, SIDE // 3:] = 255
    seam = measure(with_step(source, 30, mask), source, mask)
    assert seam.word is Word.VISIBLE and seam.edge == pytest.approx(SIDE // 2 + SIDE * 2 // 3, abs=4)
    assert measure(source, source, mask).word is Word.NONE


@pytest.mark.parametrize("value", [0, 90, 255])
def test_an_even_mask_has_no_edge(value):
    source, mask = picture("fine noise"), np.full((SIDE, SIDE), value, np.uint8)
    result = with_step(source, 40, mask)
    seam = measure(result, source, mask)
    assert (seam.word, seam.edge, seam.jump) == (Word.NONE, 0, 0)
    for how in WAYS:
        assert (blend(result, source, mask, how).image == result).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 40), (9, 9)])
def test_pictures_and_masks_of_a_few_pixels_are_measured_and_blended(size):
    source = np.full((*size, 3), 100, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[size[0] // 2, size[1] // 2:] = 255
    result = with_step(source, 50, mask)
    assert measure(result, source, mask).edge >= 0
    for how in WAYS:
        assert blend(result, source, mask, how).image.shape == source.shape


@pytest.mark.parametrize("softness", [0, 4])
def test_a_thin_and_a_tiny_mask_show_their_step(softness):
    source = picture("flat")
    for mask in (cv2.line(np.zeros((SIDE, SIDE), np.uint8), (20, 30), (140, 100), 255, 3),
                 cv2.rectangle(np.zeros((SIDE, SIDE), np.uint8), (80, 80), (83, 82), 255, -1)):
        if softness:
            mask = cv2.GaussianBlur(mask, (0, 0), softness)
        mask = np.clip(mask.astype(int) * 255 // mask.max(), 0, 255).astype(np.uint8)
        assert measure(with_step(source, 80, mask), source, mask).word is Word.VISIBLE
        assert measure(source, source, mask).word is Word.NONE


def test_a_large_picture_is_looked_at_as_a_screen_shows_it():
    source, mask = (np.kron(small, np.ones((9, 9) + (1,) * (small.ndim - 2), np.uint8)) for small in (picture("flat"), disc()))
    assert measure(with_step(source, 30, mask), source, mask).word is Word.VISIBLE
    assert measure(with_step(source, 3, mask), source, mask).word is Word.NONE
    blended = blend(with_step(source, 30, mask), source, mask, "poisson")
    assert blended.outside == 0 and np.abs(blended.image.astype(int) - source).max() <= 2


@pytest.mark.parametrize("kind, softness", [("flat", 0), ("flat", 4), ("gradient", 0), ("gradient", 4), ("fine noise", 0), ("texture", 4)])
def test_a_blended_seam_is_gone_or_much_less(kind, softness):
    source, mask = picture(kind), disc(softness)
    result = with_step(source, 60, mask)
    before = measure(result, source, mask)
    poisson, soft = (measure(blend(result, source, mask, how).image, source, mask) for how in ("poisson", "soft"))
    assert before.word is not Word.NONE and poisson.word is Word.NONE
    assert soft.word is not Word.VISIBLE and soft.ratio < before.ratio / 2


@pytest.mark.parametrize("softness", [0, 4])
def test_poisson_changes_nothing_where_the_mask_is_0(softness):
    source, mask = picture("coarse noise"), disc(softness)
    result = mixed(source, picture("coarse noise", 1) // 2, mask)
    blended = blend(result, source, mask, "poisson")
    assert blended.outside == 0 and (blended.image[mask == 0] == result[mask == 0]).all()


def test_poisson_moves_the_model_s_colours_and_keeps_its_drawing():
    """Where the jump is the same all along the edge, the exact solution is the drawing less the jump."""
    source, mask, drawing = picture("flat"), disc(), picture("gradient")
    cross = source.copy()
    cross[SIDE // 2 - 3:SIDE // 2 + 3, SIDE // 2 - 20:SIDE // 2 + 20] = 200
    blended = blend(with_step(cross, 30, mask), source, mask, "poisson").image
    assert np.abs(blended.astype(int) - cross).max() <= 1
    # and where it is not, a gradient across the mask: the drawing less the gradient, which is harmonic
    blended = blend(mixed(source, drawing, mask), source, mask, "poisson").image
    assert np.abs(blended.astype(int) - source).max() <= 3


def test_a_soft_edge_says_how_many_pixels_it_changes_beside_the_mask():
    source, mask = picture("flat"), disc()
    result = with_step(source, 60, mask)
    blended = blend(result, source, mask, "soft")
    changed = (blended.image != result).any(axis=-1)
    assert blended.outside == (changed & (mask == 0)).sum() > 200
    away = np.abs(np.hypot(*np.ogrid[-SIDE // 2:SIDE // 2, -SIDE // 2:SIDE // 2]) - SIDE / 4) > 36
    assert not changed[away].any()
    row = blended.image[SIDE // 2, SIDE // 2:, 0].astype(int)
    assert (np.diff(row) <= 0).all() and row[0] == 180 and row[-1] == 120 and np.abs(np.diff(row)).max() <= 5


def test_both_ways_do_not_touch_what_they_are_given_and_give_the_same_again():
    source, mask = picture("texture"), disc(4)
    result = with_step(source, 40, mask)
    before = result.copy(), source.copy(), mask.copy()
    for how in WAYS:
        assert (blend(result, source, mask, how).image == blend(result, source, mask, how).image).all()
    assert all((now == then).all() for now, then in zip((result, source, mask), before))


def test_a_membrane_between_straight_lines_is_straight():
    """x, y and x² - y² are harmonic."""
    y, x = np.mgrid[-0.75:0.75:91j, -1:1:121j].astype(np.float32)
    wanted = np.stack([x, y, x**2 - y**2], axis=-1)
    known = np.ones(x.shape, bool)
    known[1:-1, 1:-1] = False
    assert np.abs(membrane(np.where(known[..., None], wanted, 9), known) - wanted).max() < 0.03


@pytest.mark.parametrize("name", ["source", "mask"])
def test_what_has_another_size_is_refused_by_its_name(name):
    given = {"result": picture("flat"), "source": picture("flat"), "mask": disc()}
    given[name] = given[name][:-1]
    for act in (measure, lambda **given: blend(**given, how="soft")):
        with pytest.raises(InvalidRequest, match=rf"^{name} must have the size of image \(160x160 pixels\), got 160x159$"):
            act(**given)


def test_a_way_that_there_is_not_is_refused():
    with pytest.raises(InvalidRequest, match="^blend must be one of poisson, soft, got 'blur'$"):
        blend(picture("flat"), picture("flat"), disc(), "blur")
