"""Selecting without a model, by OpenCV: an object by a box or a rough stroke, and the path of an edge between two points.

GrabCut runs on part of the picture, scaled down to take well under a second, and then along the edge at full resolution.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from pipeline.errors import InvalidRequest
from pipeline.geometry import Box

Point = tuple[float, float]
"""(x, y) in pixels of the picture; the first pixel spans 0 to 1."""

COARSE = 384
"""Longer side in pixels of what GrabCut sees at once: its time grows faster than the number of pixels."""
ROUNDS = 5
"""GrabCut's iterations; more hardly change the result."""
AROUND_BOX, AROUND_STROKE = 0.5, 2.0
"""Margin on each side that GrabCut also sees, as a multiple of the box's or stroke's longer side."""
LEAST_AROUND = 16
"""Pixels."""
CORE = 0.4
"""The middle part of a stroke's width that is certainly in the object; the rest may be beside it."""
GRAIN = 6
"""Standard deviation of the noise added before colours are learned, of 255."""
TILE = 192
"""Side in pixels of the tiles in which the edge is refined."""
MOST_REFINED = 3 << 20
"""Pixels refined in all; a longer edge, as of leaves, is refined at a lower resolution."""
WINDOW = 288
"""Longer side in pixels of the part in which a path is searched."""
BESIDE = 0.25
"""How far a path may leave the box around its two ends, as a share of their distance."""
LEAST_BESIDE = 12
"""Pixels."""


# --- GrabCut: Rother, Kolmogorov and Blake, "GrabCut": interactive foreground extraction using iterated graph cuts, 2004

def select_in_box(picture: np.ndarray, box: Box) -> np.ndarray:
    """The object in a box: (h, w) uint8, 255 inside it. picture: (h, w, 3) uint8.

    Raises InvalidRequest for a box outside the picture, or around all of it.
    """
    height, width = picture.shape[:2]
    box = Box(max(box.x1, 0), max(box.y1, 0), min(box.x2, width), min(box.y2, height))
    if box.x2 - box.x1 < 2 or box.y2 - box.y1 < 2:
        raise InvalidRequest("box", "box: draw it inside the picture, at least 2 pixels wide and high")
    if box == (0, 0, width, height):
        raise InvalidRequest("box", "box: leave some of the picture outside the box; that part serves as background")
    hints = np.full((height, width), cv2.GC_BGD, np.uint8)
    hints[box.y1:box.y2, box.x1:box.x2] = cv2.GC_PR_FGD
    return cut_out(picture, hints, grown(box, AROUND_BOX, width, height))


def select_by_stroke(picture: np.ndarray, points: list[Point], radius: float) -> np.ndarray:
    """The object under a rough stroke through `points`, as from select_in_box().

    Raises InvalidRequest for a stroke outside the picture.
    """
    height, width = picture.shape[:2]
    hints = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    for value, share in ((cv2.GC_PR_FGD, 1.0), (cv2.GC_FGD, CORE)):
        draw(hints, points, radius * share, value)
    if not (hints == cv2.GC_FGD).any():
        raise InvalidRequest("stroke", "stroke: draw it on the picture")
    rows, columns = (np.flatnonzero((hints != cv2.GC_PR_BGD).any(axis)) for axis in (1, 0))
    stroke = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return cut_out(picture, hints, grown(stroke, AROUND_STROKE, width, height))


def draw(hints: np.ndarray, points: list[Point], radius: float, value: int) -> None:
    """Draw a line through the points, `radius` wide to each side."""
    line = np.round(np.array(points) - 0.5).astype(np.int32)
    thickness = max(1, round(2 * radius))
    for start, end in zip(line, line[1:] if len(line) > 1 else line):
        cv2.line(hints, start.tolist(), end.tolist(), int(value), thickness)


def grown(box: Box, share: float, width: int, height: int) -> Box:
    """A box with a margin of `share` of its longer side, clipped to the picture."""
    more = max(LEAST_AROUND, round(share * max(box.size)))
    return Box(max(box.x1 - more, 0), max(box.y1 - more, 0), min(box.x2 + more, width), min(box.y2 + more, height))


def cut_out(picture: np.ndarray, hints: np.ndarray, window: Box) -> np.ndarray:
    """GrabCut's object, 255 inside it, searched only inside a window.

    hints: (h, w) of OpenCV's GC_BGD, GC_FGD, GC_PR_BGD and GC_PR_FGD.
    """
    part = picture[window.y1:window.y2, window.x1:window.x2]
    hints = hints[window.y1:window.y2, window.x1:window.x2]
    scale = min(1.0, COARSE / max(part.shape[:2]))
    small, cut = resized(part, scale), resized(hints, scale, cv2.INTER_NEAREST)
    cut[resized(np.uint8(255) * (hints == cv2.GC_FGD), scale) > 0] = cv2.GC_FGD  # keeps strokes thinner than a pixel of `small`
    colours = np.zeros((1, 65)), np.zeros((1, 65))  # of background and foreground
    if not (cut & 1).any() or (cut & 1).all():
        raise InvalidRequest("selection", "selection: part of the picture must be inside what you draw, and part outside")
    cv2.setRNGSeed(0)  # GrabCut starts from random colour clusters; the same box must give the same result
    # on a smooth surface a stroke covers so few colours that nothing next to it would match
    grainy = np.clip(small + np.random.default_rng(0).normal(0, GRAIN, small.shape), 0, 255).astype(np.uint8)
    cv2.grabCut(grainy, cut, None, *colours, ROUNDS, cv2.GC_INIT_WITH_MASK)
    selected = np.zeros(picture.shape[:2], np.uint8)
    selected[window.y1:window.y2, window.x1:window.x2] = refined(part, cut & 1, scale, hints, colours)
    return selected


def refined(part: np.ndarray, coarse: np.ndarray, scale: float, hints: np.ndarray, colours: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A selection made at `scale`, at full size and 255 inside: its edge is cut again, with the colours already learned."""
    step = 1.0
    while step > 2 * scale and area_of(tiles_on_edge(enlarged(coarse, part, step), band_of(step, scale))) > MOST_REFINED:
        step /= 2
    if scale < step:
        at, where = resized(part, step), resized(hints, step, cv2.INTER_NEAREST)
        coarse = cut_along_edge(at, enlarged(coarse, part, step), where, band_of(step, scale), colours)
    return enlarged(coarse, part, 1.0) * np.uint8(255)


def band_of(step: float, scale: float) -> int:
    """How many pixels at scale `step` an edge found at `scale` may be off."""
    return int(np.ceil(1.5 * step / scale)) + 1


def cut_along_edge(picture: np.ndarray, selected: np.ndarray, hints: np.ndarray, band: int, colours: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The selection, 0 and 1, with the pixels within `band` of its edge decided again, tile by tile."""
    result = selected.copy()
    kernel = np.ones((3, 3), np.uint8)
    for inner, outer in tiles_on_edge(selected, band):
        cut = selected[outer.y1:outer.y2, outer.x1:outer.x2]
        sure = [cv2.erode(cut, kernel, iterations=band), cv2.erode(1 - cut, kernel, iterations=band)]
        trial = np.where(cut, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        trial[sure[0] > 0], trial[sure[1] > 0] = cv2.GC_FGD, cv2.GC_BGD
        said = hints[outer.y1:outer.y2, outer.x1:outer.x2]
        trial[said == cv2.GC_BGD], trial[said == cv2.GC_FGD] = cv2.GC_BGD, cv2.GC_FGD
        if not (trial & 2).any():
            continue
        cv2.grabCut(picture[outer.y1:outer.y2, outer.x1:outer.x2], trial, None, *(model.copy() for model in colours), 1,
                    cv2.GC_EVAL_FREEZE_MODEL)
        y, x = inner.y1 - outer.y1, inner.x1 - outer.x1
        result[inner.y1:inner.y2, inner.x1:inner.x2] = trial[y:y + inner.size.height, x:x + inner.size.width] & 1
    return result


def tiles_on_edge(selected: np.ndarray, band: int) -> Iterator[tuple[Box, Box]]:
    """(tile, tile with margin) for each tile near the edge of a selection."""
    height, width = selected.shape
    for y1 in range(0, height, TILE):
        for x1 in range(0, width, TILE):
            inner = Box(x1, y1, min(x1 + TILE, width), min(y1 + TILE, height))
            outer = Box(max(x1 - 2 * band, 0), max(y1 - 2 * band, 0), min(inner.x2 + 2 * band, width), min(inner.y2 + 2 * band, height))
            cut = selected[outer.y1:outer.y2, outer.x1:outer.x2]
            if cut.any() and not cut.all():
                yield inner, outer


def area_of(tiles: Iterator[tuple[Box, Box]]) -> int:
    return sum(outer.size.width * outer.size.height for _, outer in tiles)


def resized(picture: np.ndarray, scale: float, how: int = cv2.INTER_AREA) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return np.ascontiguousarray(picture) if scale == 1 else cv2.resize(picture, (width, height), interpolation=how)


def enlarged(selected: np.ndarray, part: np.ndarray, step: float) -> np.ndarray:
    """A selection of 0 and 1 scaled to `step` times the size of `part`, with smooth edges."""
    height, width = (max(1, round(side * step)) for side in part.shape[:2])
    if selected.shape == (height, width):
        return selected
    return (cv2.resize(selected * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR) > 127).astype(np.uint8)


# --- edges: Mortensen and Barrett, "Intelligent scissors for image composition", 1995

def follow_edge(picture: np.ndarray, start: Point, end: Point, *, reach: float = 0.0) -> list[Point]:
    """A path along edges from one point to another. It ends on the strongest edge within `reach` pixels of `end`.

    Searched at full resolution for points up to about 180 pixels apart, otherwise scaled down, so that it stays quick.
    """
    start, end = inside(picture, start), snapped(picture, inside(picture, end), reach)
    return [start, *path_between(picture, start, end), end]


def snapped(picture: np.ndarray, point: Point, reach: float) -> Point:
    """The strongest edge within `reach` pixels of a point, or the point itself if there is none."""
    if reach < 1:
        return point
    size = int(np.ceil(reach))
    x, y = (int(value) for value in point)
    window = window_around([point], size + 3, picture)
    part = cv2.GaussianBlur(picture[window.y1:window.y2, window.x1:window.x2], (0, 0), 1).astype(np.float32)
    strength = np.hypot(cv2.Sobel(part, cv2.CV_32F, 1, 0), cv2.Sobel(part, cv2.CV_32F, 0, 1)).max(-1)
    rows, columns = np.mgrid[window.y1:window.y2, window.x1:window.x2]
    distance = np.hypot(columns - x, rows - y)
    strength *= np.clip(1.25 - distance / (2 * reach), 0, 1) * (distance <= reach)  # prefer nearer ones
    if strength.max() < 40:  # what a step of 10 of 255 gives
        return point
    row, column = np.unravel_index(strength.argmax(), strength.shape)
    return window.x1 + float(column) + 0.5, window.y1 + float(row) + 0.5


def path_between(picture: np.ndarray, start: Point, end: Point) -> list[Point]:
    """The points between the ends of follow_edge()'s path."""
    far = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    window = window_around([start, end], max(LEAST_BESIDE, round(BESIDE * far)), picture)
    part = picture[window.y1:window.y2, window.x1:window.x2]
    scale = min(1.0, WINDOW / max(window.size))
    small = resized(part, scale)
    height, width = small.shape[:2]
    (x1, y1), (x2, y2) = ((min(int((x - window.x1) * width / window.size.width), width - 1),
                           min(int((y - window.y1) * height / window.size.height), height - 1)) for x, y in (start, end))
    if min(width, height) < 3 or (x1, y1) == (x2, y2):
        return []
    scissors = cv2.segmentation.IntelligentScissorsMB()
    scissors.setEdgeFeatureCannyParameters(32, 100)
    scissors.setGradientMagnitudeMaxLimit(200)
    scissors.applyImage(cv2.GaussianBlur(small, (0, 0), 1.2))  # otherwise noise counts as edges
    scissors.buildMap((x1, y1))
    path = scissors.getContour((x2, y2)).reshape(-1, 2)
    return [(window.x1 + (x + 0.5) * window.size.width / width, window.y1 + (y + 0.5) * window.size.height / height)
            for x, y in path[1:-1].tolist()]


def window_around(points: list[Point], beside: int, picture: np.ndarray) -> Box:
    """The box around points with a margin, clipped to the picture."""
    height, width = picture.shape[:2]
    xs, ys = zip(*points)
    return Box(max(int(min(xs)) - beside, 0), max(int(min(ys)) - beside, 0), min(int(max(xs)) + beside + 1, width),
               min(int(max(ys)) + beside + 1, height))


def inside(picture: np.ndarray, point: Point) -> Point:
    """The point of the picture nearest to a point."""
    height, width = picture.shape[:2]
    return min(max(point[0], 0.0), float(width)), min(max(point[1], 0.0), float(height))
