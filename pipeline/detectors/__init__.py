"""Detectors: a picture → what was found in it, with scores. A kind of detector is one file here; store.py lists those of a folder."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Find:
    """Something found in a picture."""

    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) in pixels of the picture, within it."""
    score: float
    """0 to 1."""
    name: str = ""
    """The class; "": the detector knows only one and does not say which."""
    mask: np.ndarray | None = None
    """(h, w) uint8 of the picture's size, 255 inside; None: only the box is known."""


class Detector(Protocol):
    """A loaded model."""

    classes: tuple[str, ...]
    """What it can find; empty: it does not say."""

    def find(self, picture: np.ndarray, confidence: float) -> list[Find]:
        """What scores at least `confidence` in (h, w, 3) uint8 RGB, best first. Raises ModelError."""


def within(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a box that lies in a picture."""
    x1, y1, x2, y2 = (float(side) for side in box)
    return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)
