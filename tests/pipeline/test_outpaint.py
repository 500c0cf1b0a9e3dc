"""A picture made larger: the old pixels stay bit for bit, and the new ones are what the fill says."""

import numpy as np
import pytest
from PIL import Image

from pipeline import outpaint
from pipeline.errors import InvalidRequest
from pipeline.outpaint import FILLS, Margins, extended

MARGINS = Margins(left=8, top=16, right=24, bottom=40)
OLD = (slice(16, 16 + 48), slice(8, 8 + 64))


@pytest.fixture
def photo():
    """64x48 RGB, no two neighbours alike."""
    y, x = np.mgrid[:48, :64]
    return Image.fromarray(np.stack([4 * x, 5 * y, (x * y) % 256], axis=-1).astype(np.uint8))


def larger(image, fill, margins=MARGINS, **how):
    return np.asarray(extended(image, margins, fill, **how))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("fill", FILLS)
def test_old_pixels_stay_bit_for_bit(photo, fill, mode):
    if mode == "RGBA":
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    pixels = larger(photo, fill)
    assert pixels.shape[:2] == (48 + 56, 64 + 32) and (pixels[OLD] == np.asarray(photo)).all()


def test_a_colour_is_that_colour(photo):
    pixels = larger(photo, "colour", colour="#ff8000")
    assert (pixels[:16] == (255, 128, 0)).all() and (pixels[:, :8] == (255, 128, 0)).all()


def test_an_edge_goes_on_as_it_ends(photo):
    pixels, old = larger(photo, "edge"), np.asarray(photo)
    assert (pixels[OLD[0], :8] == old[:, :1]).all() and (pixels[16 + 48:, OLD[1]] == old[-1:]).all()
    assert (pixels[:16, :8] == old[0, 0]).all()


def test_a_mirrored_picture_goes_on_backwards_and_as_often_as_it_takes(photo):
    pixels, old = larger(photo, "mirrored"), np.asarray(photo)
    assert (pixels[OLD[0], :8] == old[:, 7::-1]).all() and (pixels[:16, OLD[1]] == old[15::-1]).all()
    wide = larger(photo, "mirrored", Margins(right=200))
    assert (wide[:, 64:128] == old[:, ::-1]).all() and (wide[:, 128:192] == old).all()


def test_inpainting_meets_the_edge_and_makes_no_colours_of_its_own():
    grey = Image.new("RGB", (64, 48), (90, 120, 30))
    assert np.abs(larger(grey, "inpainted", Margins(right=300)).astype(int) - (90, 120, 30)).max() <= 6  # of whole numbers 40 and more
    halves = Image.new("RGB", (64, 48), (200, 0, 0))
    halves.paste((0, 0, 200), (0, 0, 64, 24))
    right = larger(halves, "inpainted", Margins(right=8))[:, 66].astype(int)
    assert right[4, 2] > 150 > right[4, 0] and right[-4, 0] > 150 > right[-4, 2]


def test_noise_has_the_pictures_colours_and_is_none(photo):
    new = larger(photo, "noise", Margins(right=64))[:, 64:].astype(float)
    old = np.asarray(photo).astype(float)
    assert np.abs(new.mean(axis=(0, 1)) - old.mean(axis=(0, 1))).max() < 12
    assert np.abs(np.sort(new[..., 0].ravel()) - np.sort(old[..., 0].ravel())).mean() < 12
    assert new.std() > 30 and np.abs(np.diff(new, axis=0)).mean() > 1


@pytest.mark.parametrize("fill", ["noise", "inpainted"])
def test_a_large_picture_is_filled_by_an_enlargement(photo, fill, monkeypatch):
    monkeypatch.setattr(outpaint, "FILLED_AT", 1500)
    pixels = larger(photo, fill, Margins(left=40))
    assert pixels.shape == (48, 104, 3) and (pixels[:, 40:] == np.asarray(photo)).all()
    assert pixels[:, :40].std() > 5


def test_a_line_of_pixels_can_grow_as_well():
    line = Image.new("RGB", (4000, 1), "red")
    for fill in FILLS:
        assert extended(line, Margins(bottom=2000), fill).size == (4000, 2001)


@pytest.mark.parametrize("margins, how, sentence", [
    (Margins(), {}, "left, top, right and bottom are all 0; one side must grow"),
    (Margins(left=-8), {}, "left must be a whole number between 0 and 16384, got -8"),
    (Margins(left=2.5), {}, "left must be a whole number between 0 and 16384, got 2.5"),
    (Margins(left=16380), {}, "init_images: the picture would become too large; at most 16384 pixels a side and 100 million in all, got 16444x48"),
    (Margins(16000, 16000), {}, "too large"),
    (Margins(left=8), {"fill": "magic"}, 'fill must be one of colour, edge, mirrored, noise, inpainted, got "magic"'),
    (Margins(left=8), {"colour": "reddish"}, "colour must be a colour"),
])
def test_what_cannot_be_is_one_sentence(photo, margins, how, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        extended(photo, margins, **{"fill": "colour"} | how)
