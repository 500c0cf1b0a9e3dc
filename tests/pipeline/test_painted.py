"""Masks as people paint and save them: what was painted regenerates, and what was changed for that is told."""

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.painted import Surprise, mend

BOX = (96, 96, 160, 160)


def painted(mode, ground, paint, size=(256, 256), box=BOX):
    mask = Image.new(mode, size, ground)
    mask.paste(paint, box)
    return mask


def jpeg(mask, quality=60):
    stream = io.BytesIO()
    mask.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def looked_at(mask, *, invert=False, greys=False, only_masked=True):
    return mend(mask, invert=invert, greys=greys, only_masked=only_masked)


@pytest.mark.parametrize("mask, surprise", [
    (painted("RGBA", (0, 0, 0, 255), (255, 255, 255, 128)), Surprise.ALPHA),
    (painted("RGBA", (0, 0, 0, 255), (255, 255, 255, 40)), Surprise.ALPHA),
    (painted("RGB", "black", (255, 0, 0)), Surprise.COLOUR), (painted("RGB", "black", (0, 0, 255)), Surprise.COLOUR),
    (painted("RGB", "black", (160, 32, 240)), Surprise.COLOUR), (painted("RGBA", "black", (255, 0, 0, 255)), Surprise.COLOUR),
    (painted("RGB", "black", (100, 100, 100)), Surprise.GREY), (painted("L", 0, 60), Surprise.GREY),
    (painted("RGBA", (0, 0, 0, 0), (255, 255, 255, 100)), Surprise.GREY),
    (painted("L", 1, 255), Surprise.NOISE), (painted("RGB", (9, 9, 9), "white"), Surprise.NOISE)])
def test_what_was_painted_is_white_and_the_rest_is_black(mask, surprise):
    mended, found = looked_at(mask)
    assert found == [surprise]
    values = np.asarray(mended)
    assert mended.mode == "L" and mended.getbbox() == BOX and values[97:159, 97:159].min() >= 240


def test_red_in_a_jpeg_is_two_surprises():
    mended, found = looked_at(jpeg(painted("RGB", (6, 6, 6), (255, 0, 0)), 90))
    assert found == [Surprise.COLOUR, Surprise.NOISE]
    box = mended.getbbox()
    assert 80 <= box[0] and box[2] <= 176 and np.asarray(mended)[100:156, 100:156].min() == 255


def test_noise_is_looked_for_where_it_acts():
    white = painted("L", 254, 0)
    assert looked_at(white) == (white, []) and looked_at(painted("L", 1, 255), only_masked=False)[1] == []
    mended, found = looked_at(white, invert=True)
    assert found == [Surprise.NOISE] and mended.getpixel((0, 0)) == 255


@pytest.mark.parametrize("mask", [
    painted("L", 0, 255), painted("L", 255, 0), painted("RGB", "black", "white"), painted("L", 0, 200), painted("RGB", "white", "red"),
    painted("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)), painted("RGBA", (0, 0, 0, 0), (255, 0, 0, 255)),
    painted("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)), painted("RGBA", (0, 0, 0, 128), (255, 255, 255, 255)),
    painted("RGB", "black", "yellow"), painted("L", 0, 0), painted("RGBA", (0, 0, 0, 0), (0, 0, 0, 0)),
    painted("L", 0, 255).filter(ImageFilter.GaussianBlur(6)), painted("L", 0, 255, (1, 777), (0, 0, 1, 9)), Image.new("RGB", (1, 1)),
    Image.linear_gradient("L"), jpeg(painted("L", 0, 255), 95)], ids=range(17))
def test_a_mask_that_does_what_it_looks_like_stays_as_it_is(mask):
    mended, found = looked_at(mask)
    assert mended is mask and found == []


def test_a_hole_in_a_photograph_is_told_by_its_opacity():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert("RGBA")
    photo.putalpha(painted("L", 255, 0, (64, 64), (8, 8, 40, 40)))
    assert looked_at(photo) == (photo, [])


def test_greys_are_left_where_they_count_by_degrees():
    mask = painted("L", 0, 100)
    assert looked_at(mask, greys=True) == (mask, [])


def test_a_large_mask_takes_little_time():
    mask = painted("RGBA", (0, 0, 0, 255), (255, 255, 255, 128), (8000, 8000))
    start = time.process_time()
    assert looked_at(mask)[1] == [Surprise.ALPHA]
    assert time.process_time() - start < 10  # 1 s here
