"""The means to draw a thing: its paint, the light, and strokes that respect both."""
from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import skia

from tools.demo_model.easel import Colour, Easel, box, mix, skia_colour
from tools.demo_model.light import Light

LAMP = (1.0, 0.86, 0.46)
SNOW = (0.95, 0.97, 1.0)


class Sheet(Easel):
    """Strokes on any canvas, such as a recording one."""

    def __init__(self, canvas: skia.Canvas) -> None:
        self.canvas, self.pixels = canvas, 256


@dataclass(frozen=True)
class Kit:
    """`paint`: the thing's own colour, before the light falls on it. `toward` -1 or 1: the side of the light."""

    easel: Easel
    light: Light
    paint: Colour
    random: Random
    winter: bool
    away: float
    toward: int

    def on(self, canvas: skia.Canvas) -> "Kit":
        """The same kit on another canvas."""
        return replace(self, easel=Sheet(canvas))

    def lit(self, colour: Colour) -> Colour:
        """Things are slightly brighter than the ground, so that their colours are visible at night."""
        return mix(self.light.lit(colour, self.away), colour, 0.32)

    def snowy(self, roof: Colour) -> Colour:
        return SNOW if self.winter else roof

    def fill(self, path: skia.Path, colour: Colour, alpha: float = 1.0) -> None:
        self.easel.fill(path, self.lit(colour), alpha)

    def stroke(self, path: skia.Path, colour: Colour, width: float) -> None:
        self.easel.stroke(path, self.lit(colour), width)

    def blend(self, path: skia.Path, top: Colour, foot: Colour) -> None:
        bounds = path.getBounds()
        self.easel.blend(path, (0, bounds.top()), (0, bounds.bottom()), (self.lit(top), self.lit(foot)))

    def shade(self, path: skia.Path, left: float, right: float) -> None:
        """Shade the path to look round: light on one side, dark on the other."""
        ends = ((right, 0), (left, 0)) if self.toward > 0 else ((left, 0), (right, 0))
        self.easel.blend(path, *ends, ((1, 1, 1), (1, 1, 1), (0, 0, 0.08)), (0.22, 0.0, 0.36), (0.0, 0.45, 1.0))

    def wall(self, left: float, top: float, right: float, foot: float, colour: Colour) -> None:
        wall = box(left, top, right, foot)
        self.fill(wall, colour)
        self.shade(wall, left, right)

    def lamp(self, path: skia.Path, off: Colour, reach: float) -> None:
        """Something that shines when lamps are lit."""
        bounds = path.getBounds()
        self.easel.fill(path, mix(self.lit(off), LAMP, self.light.lamps))
        if self.light.lamps > 0.5:
            self.easel.glow(bounds.centerX(), bounds.centerY(), reach, LAMP, 0.6 * self.light.lamps)

    def window(self, x: float, y: float, wide: float, tall: float, *, frame: bool = True) -> None:
        if frame:
            rim = min(wide, tall) * 0.14
            self.fill(box(x - rim, y - rim, x + wide + rim, y + tall + rim), (0.95, 0.93, 0.88))
        self.easel.fill(box(x, y, x + wide, y + tall), mix(self.lit((0.40, 0.52, 0.64)), LAMP, self.light.lamps))
        self.easel.fill(box(x, y, x + wide * 0.5, y + tall * 0.5), mix(self.lit((0.62, 0.74, 0.84)), LAMP,
                self.light.lamps), 0.8)
