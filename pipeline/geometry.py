"""Sizes and boxes in pixels, with their axes named."""

from typing import NamedTuple


class Size(NamedTuple):
    width: int
    height: int


class Box(NamedTuple):
    """A rectangle: left and top inclusive, right and bottom exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def size(self) -> Size:
        return Size(self.x2 - self.x1, self.y2 - self.y1)
