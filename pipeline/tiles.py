"""Cuts a large picture into overlapping tiles of one size, and joins them again."""

import math

import numpy as np
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Box, Size

MAX_TILES = 10_000


def tile_boxes(image: Size, tile: Size, overlap: int, field: str = "script_args") -> list[list[Box]]:
    """The tiles' boxes, row by row; neighbours share at least `overlap` pixels.

    A picture smaller than a tile gets one box that extends beyond it. Raises InvalidRequest if tiles are not larger than the
    overlap, or there would be more than MAX_TILES; both name `field`.
    """
    if overlap >= min(tile):
        raise InvalidRequest(field, f"{field}: width and height must be larger than the overlap of {overlap} pixels, "
                                            f"got {tile.width}x{tile.height}")
    columns, rows = starts(image.width, tile.width, overlap), starts(image.height, tile.height, overlap)
    if len(columns) * len(rows) > MAX_TILES:
        raise InvalidRequest(field, f"{field}: {len(columns)}x{len(rows)} tiles are too many; at most {MAX_TILES} are allowed, "
                                            "so width and height must be larger or the overlap smaller")
    return [[Box(x, y, x + tile.width, y + tile.height) for x in columns] for y in rows]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    count = max(math.ceil((length - overlap) / (tile - overlap)), 1)
    step = (length - tile) / (count - 1) if count > 1 else 0
    return [min(int(index * step), length - tile) for index in range(count)]


def split(image: Image.Image, boxes: list[list[Box]]) -> list[Image.Image]:
    """The picture's tiles in the boxes' order; black outside the picture."""
    return [image.crop(box) for row in boxes for box in row]


def combine(tiles: list[Image.Image], boxes: list[list[Box]], size: Size, overlap: int) -> Image.Image:
    """The tiles as one RGB picture; each fades in over the first `overlap` pixels it shares with the previous one."""
    picture = Image.new("RGB", size)
    remaining = iter(tiles)
    for row in boxes:
        strip = Image.new("RGB", (size.width, row[0].size.height))
        for box in row:
            join(strip, next(remaining).crop((0, 0, *box.size)), box.x1, overlap, vertical=False)
        join(picture, strip, row[0].y1, overlap, vertical=True)
    return picture


def join(canvas: Image.Image, piece: Image.Image, start: int, overlap: int, *, vertical: bool) -> None:
    """Paste a piece at `start` along one axis, faded in over its first pixels unless it comes first."""
    if start == 0:
        canvas.paste(piece, (0, 0))
        return
    width, height = piece.size
    ramp = (np.arange(overlap, dtype=np.float32) * 255 / max(overlap, 1)).astype(np.uint8)
    if vertical:
        seam, place, rest = (0, 0, width, overlap), (0, start), (0, overlap, width, height)
        mask = np.repeat(ramp[:, None], width, axis=1)
    else:
        seam, place, rest = (0, 0, overlap, height), (start, 0), (overlap, 0, width, height)
        mask = np.repeat(ramp[None], height, axis=0)
    if overlap:
        canvas.paste(piece.crop(seam), place, mask=Image.fromarray(mask))
    canvas.paste(piece.crop(rest), (place[0] + rest[0], place[1] + rest[1]))
