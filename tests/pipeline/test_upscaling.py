"""Enlarging by Pillow; by networks: tests/upscalers."""

import pytest
from PIL import Image

from pipeline.geometry import Size
from pipeline.upscaling import cover, lanczos, nearest, upscale


@pytest.mark.parametrize("size, scale, result", [((64, 64), 2, (128, 128)), ((101, 77), 1.5, (144, 112)),
                                                 ((10, 10), 0.1, (8, 8)),
                                                 ((64, 64), 1, (64, 64))])
def test_sides_are_rounded_down_to_multiples_of_8(size, scale, result):
    assert upscale(Image.new("RGB", size), scale, lanczos).size == result


def test_nearest_makes_no_new_colours(picture):
    assert upscale(picture, 2, nearest).getpixel((3, 5)) == picture.getpixel((1, 2))


def test_lanczos_is_pillows(picture):
    assert upscale(picture, 2, lanczos).tobytes() == picture.resize((128, 128), Image.Resampling.LANCZOS).tobytes()


def test_cover_fills_the_size_and_crops_the_middle(picture):
    whole = cover(picture, Size(128, 64), nearest, crop=False)
    assert whole.size == (128, 128)
    assert cover(picture, Size(128, 64), nearest, crop=True).tobytes() == whole.crop((0, 32, 128, 96)).tobytes()


def test_a_picture_that_is_hardly_enlarged_is_left_to_lanczos(picture):
    image = picture.crop((0, 0, 60, 60))  # times 1.05 is 63, and 56 in multiples of 8
    assert upscale(image, 1.05, nearest).tobytes() == image.resize((56, 56), Image.Resampling.LANCZOS).tobytes()
