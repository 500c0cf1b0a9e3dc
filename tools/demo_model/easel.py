"""A canvas of 256 x 256 units at any resolution, with the few strokes that everything is drawn with.

Skia (the library under Chrome's canvas) draws smooth edges, gradients, blurs and noise in milliseconds.
Colours are (red, green, blue) in 0..1; x points right and y down.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import skia

Colour = tuple[float, float, float]
Spot = tuple[float, float]
UNITS = 256


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """`a` mixed with that fraction of `b`."""
    return tuple(x + (y - x) * part for x, y in zip(a, b))


def times(a: Colour, b: Colour | float) -> Colour:
    """Two colours, or a colour and a number, multiplied."""
    return tuple(x * y for x, y in zip(a, b if isinstance(b, tuple) else (b, b, b)))


def skia_colour(colour: Colour, alpha: float = 1.0) -> int:
    red, green, blue = (round(255 * min(1.0, max(0.0, value))) for value in colour)
    return skia.ColorSetARGB(round(255 * min(1.0, max(0.0, alpha))), red, green, blue)


def polygon(spots: Sequence[Spot]) -> skia.Path:
    return skia.Path.Polygon([skia.Point(x, y) for x, y in spots], True)


def smooth(spots: Sequence[Spot], *, closed: bool = False) -> skia.Path:
    """A curve through the midpoints of the lines between the points, as a path."""
    path, count = skia.Path(), len(spots)
    if closed:
        middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(spots, [*spots[1:], spots[0]])]
        path.moveTo(*middles[-1])
        for corner, middle in zip(spots, middles):
            path.quadTo(*corner, *middle)
        path.close()
        return path
    path.moveTo(*spots[0])
    for n in range(1, count - 1):
        (x, y), (x2, y2) = spots[n], spots[n + 1]
        path.quadTo(x, y, (x + x2) / 2, (y + y2) / 2) if n < count - 2 else path.quadTo(x, y, x2, y2)
    return path


def under(curve: skia.Path, foot: float = UNITS + 4) -> skia.Path:
    """The curve and everything below it down to `foot`."""
    path = skia.Path(curve)
    path.lineTo(path.getBounds().right(), foot)
    path.lineTo(path.getBounds().left(), foot)
    path.close()
    return path


def oval(x: float, y: float, across: float, down: float) -> skia.Path:
    """An ellipse around (x, y) with the given radii."""
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - across, y - down, x + across, y + down))
    return path


def box(left: float, top: float, right: float, bottom: float, corner: float = 0.0) -> skia.Path:
    path = skia.Path()
    path.addRoundRect(skia.Rect.MakeLTRB(left, top, right, bottom), corner, corner)
    return path


class Easel:
    """A picture being drawn."""

    def __init__(self, pixels: int) -> None:
        self.surface = skia.Surface(pixels, pixels)
        self.canvas, self.pixels = self.surface.getCanvas(), pixels
        self.canvas.scale(pixels / UNITS, pixels / UNITS)

    def fill(self, path: skia.Path, colour: Colour, alpha: float = 1.0, *, blur: float = 0.0) -> None:
        paint = skia.Paint(AntiAlias=True, Color=skia_colour(colour, alpha))
        if blur:
            paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
        self.canvas.drawPath(path, paint)

    def stroke(self, path: skia.Path, colour: Colour, width: float, alpha: float = 1.0, *, blur: float = 0.0) -> None:
        paint = skia.Paint(AntiAlias=True, Color=skia_colour(colour, alpha), Style=skia.Paint.kStroke_Style,
                           StrokeWidth=width, StrokeCap=skia.Paint.kRound_Cap, StrokeJoin=skia.Paint.kRound_Join)
        if blur:
            paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
        self.canvas.drawPath(path, paint)

    def blend(self, path: skia.Path, start: Spot, end: Spot, colours: Sequence[Colour],
              alphas: Sequence[float] | None = None, at: Sequence[float] | None = None) -> None:
        """Fill with a gradient between two points."""
        inks = [skia_colour(c, a) for c, a in zip(colours, alphas or [1.0] * len(colours))]
        shader = skia.GradientShader.MakeLinear([skia.Point(*start), skia.Point(*end)], inks, list(at) if at else None)
        self.canvas.drawPath(path, skia.Paint(AntiAlias=True, Shader=shader))

    def glow(self, x: float, y: float, radius: float, colour: Colour, alpha: float) -> None:
        """Light that fades with distance from (x, y)."""
        inks = [skia_colour(colour, alpha), skia_colour(colour, alpha * 0.4), skia_colour(colour, 0)]
        shader = skia.GradientShader.MakeRadial(skia.Point(x, y), radius, inks, [0.0, 0.35, 1.0])
        self.canvas.drawCircle(x, y, radius, skia.Paint(AntiAlias=True, Shader=shader))

    def speckle(self, path: skia.Path, colour: Colour, alpha: float, seed: int, across: float, down: float, *,
                octaves: int = 2, gain: float = 4.0, level: float = 0.5) -> None:
        """Draw smooth noise over the path: patches of the colour, about `across` x `down` units each."""
        pixel = self.pixels / UNITS  # Skia's noise uses the canvas's own units
        noise = skia.PerlinNoiseShader.MakeFractalNoise(1 / across, 1 / down, octaves, seed % 32768)
        red, green, blue = colour
        matrix = [0, 0, 0, 0, red, 0, 0, 0, 0, green, 0, 0, 0, 0, blue, gain * alpha, 0, 0, 0, -gain * alpha * level]
        paint = skia.Paint(AntiAlias=pixel > 0, Shader=noise)
        paint.setColorFilter(skia.ColorFilters.Matrix(matrix))
        self.canvas.drawPath(path, paint)

    @contextmanager
    def inside(self, path: skia.Path) -> Iterator[None]:
        """Context that clips drawing to the path."""
        self.canvas.save()
        self.canvas.clipPath(path, doAntiAlias=True)
        yield
        self.canvas.restore()

    @contextmanager
    def moved(self, x: float, y: float, scale: float = 1.0, *, mirrored: bool = False) -> Iterator[None]:
        """Context that draws in units of `scale`, with the origin at (x, y)."""
        self.canvas.save()
        self.canvas.translate(x, y)
        self.canvas.scale(-scale if mirrored else scale, scale)
        yield
        self.canvas.restore()

    def snapshot(self) -> skia.Image:
        return self.surface.makeImageSnapshot()

    def array(self) -> np.ndarray:
        """The picture so far, (H, W, 3) uint8."""
        return self.snapshot().toarray(colorType=skia.kRGBA_8888_ColorType)[:, :, :3].copy()
