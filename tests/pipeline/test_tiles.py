"""Pictures as overlapping tiles, and back."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.tiles import combine, split, tile_boxes


def xs(image, tile, overlap):
    return [box.x1 for box in tile_boxes(Size(image, tile), Size(tile, tile), overlap)[0]]


@pytest.mark.parametrize("image, tile, overlap, starts", [
    (128, 128, 32, [0]), (256, 128, 32, [0, 64, 128]), (192, 128, 16, [0, 64]), (300, 128, 64, [0, 57, 114, 172]),
    (100, 128, 16, [-28]), (16, 128, 32, [-112]),
])
def test_tiles_share_the_overlap_and_the_last_ends_with_the_picture(image, tile, overlap, starts):
    assert xs(image, tile, overlap) == starts


def test_untouched_tiles_give_the_picture_again(picture):
    wide = picture.resize((150, 100))
    boxes = tile_boxes(Size(150, 100), Size(64, 48), 16)
    again = combine(split(wide, boxes), boxes, Size(150, 100), 16)
    assert np.abs(np.asarray(again).astype(int) - np.asarray(wide)).max() <= 1


def test_a_tile_fades_in_over_what_it_shares():
    boxes = tile_boxes(Size(24, 16), Size(16, 16), 8)
    tiles = [Image.new("RGB", (16, 16), color) for color in ("black", "white")]
    row = np.asarray(combine(tiles, boxes, Size(24, 16), 8))[0, :, 0]
    assert row.tolist() == [0] * 8 + [i * 255 // 8 for i in range(8)] + [255] * 8


def test_without_overlap_tiles_stand_side_by_side():
    boxes = tile_boxes(Size(32, 16), Size(16, 16), 0)
    tiles = [Image.new("RGB", (16, 16), color) for color in ("black", "white")]
    assert np.asarray(combine(tiles, boxes, Size(32, 16), 0))[0, :, 0].tolist() == [0] * 16 + [255] * 16


@pytest.mark.parametrize("tile, overlap", [(Size(64, 32), 32), (Size(64, 64), 128)])
def test_tiles_must_be_larger_than_what_they_share(tile, overlap):
    with pytest.raises(InvalidRequest, match=f"must be larger than the overlap of {overlap} pixels"):
        tile_boxes(Size(256, 256), tile, overlap)


def test_there_is_an_end_to_the_number_of_tiles():
    with pytest.raises(InvalidRequest, match="tiles are too many"):
        tile_boxes(Size(4096, 4096), Size(16, 16), 15)
