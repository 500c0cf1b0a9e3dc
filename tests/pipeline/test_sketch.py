"""Inpaint sketch: the paint is where the pictures differ."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.sketch import inpaint_sketch


@pytest.fixture
def painted(picture):
    image = picture.copy()
    image.paste((255, 0, 0), (24, 24, 40, 40))
    return image


def test_the_mask_is_where_the_pictures_differ(picture, painted, mask):
    image, found = inpaint_sketch(picture, painted, transparency=0, blur=0)
    assert np.array_equal(np.asarray(found), np.asarray(mask)) and image.tobytes() == painted.tobytes()


@pytest.mark.parametrize("transparency, level", [(0, 255), (50, 127), (100, 0)])
def test_transparent_paint_counts_less(picture, painted, transparency, level):
    image, mask = inpaint_sketch(picture, painted, transparency=transparency, blur=0)
    assert mask.getpixel((30, 30)) == level and mask.getpixel((2, 2)) == 0
    share = level / 255
    wanted = np.array(painted.getpixel((30, 30))) * share + np.array(picture.getpixel((30, 30))) * (1 - share)
    assert np.abs(np.array(image.getpixel((30, 30))) - wanted).max() <= 1


def test_the_paint_is_blurred_and_the_mask_is_not(picture, painted):
    image, mask = inpaint_sketch(picture, painted, transparency=0, blur=4)
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    assert image.getpixel((22, 30)) != picture.getpixel((22, 30)) and image.getpixel((0, 0)) == picture.getpixel((0, 0))


def test_both_must_have_one_size(picture):
    with pytest.raises(InvalidRequest, match="the painted picture must be 64x64 like the original, got 32x32"):
        inpaint_sketch(picture, Image.new("RGB", (32, 32)), transparency=0, blur=4)
