"""The seam of an inpainted picture: how far the edge of its mask can be seen, and two ways to blend it away.

Everywhere in this file 255 in a mask means: from the model. Pictures are RGB, uint8, (H, W, 3), masks uint8, (H, W).

OpenCV's seamlessClone was tried for the first way. It solves its equation over the mask's whole bounding box, so that thousands
of pixels beside the mask change; where a mask touches the picture's border it ties the picture to the source there; and it fails
on masks of a few pixels.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import cv2
import numpy as np

from pipeline.errors import InvalidRequest
from pipeline.infotext import parameters_line, parse

SCREEN = 1024
"""Pixels of the longer side at which a seam is looked at, as a whole picture is on a screen. It bounds time and memory, too."""
STRIP = 3
"""Pixels, at that size, of each strip beside the edge whose mean is compared."""
ALONG = 2
"""Lengths of such a strip's piece, over which a jump is followed along the edge."""
JUST_SEEN = 2.0
"""Difference in CIELAB that is just seen between two even areas that touch (about 2.3 in Mahy et al., 1994)."""
WORST = 80
"""Percentile along the edge that counts: a seam over a fifth of it is seen."""
FAINT, VISIBLE = 1.75, 3.2
"""From which multiple of the contrast beside it a jump is seen at all, and at once."""
SOFTEST = 8.0
"""Pixels: the least sigma of a wider soft edge."""

NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
SWEEPS = ((48, 600), (128, 100), (SCREEN, 24))
"""Up to that many pixels, how often a membrane is evened: small sizes settle its large features, large ones its edge."""

How = Literal["poisson", "soft"]
WAYS: dict[How, str] = {"poisson": "Poisson", "soft": "soft edge"}
"""By name, what infotext calls them."""
IN_INFOTEXT = "Seam blend"
"""The key under which infotext says that a seam was blended, and how."""


class Word(StrEnum):
    NONE = "none"
    FAINT = "faint"
    VISIBLE = "visible"


@dataclass(frozen=True)
class Seam:
    """How far a mask's edge can be seen. Differences are in CIELAB, of which 2.3 are just seen."""

    jump: float
    """Across the edge, where it is worst."""
    contrast: float
    """What the picture has beside the edge over the same distance, there."""
    ratio: float
    """The jump in multiples of that contrast, which counts as just seen at the least."""
    edge: int
    """Pixels of the edge; 0: there is none, as of a mask that is all of one value."""

    @property
    def word(self) -> Word:
        return Word.VISIBLE if self.ratio >= VISIBLE else Word.FAINT if self.ratio >= FAINT else Word.NONE


@dataclass(frozen=True)
class Blended:
    """A picture whose seam was blended."""

    image: np.ndarray
    outside: int
    """Pixels that changed where the mask is 0."""


# --- how far it is seen

def measure(result: np.ndarray, source: np.ndarray, mask: np.ndarray) -> Seam:
    """The seam of a result. source, mask: what the pipeline made it from, at its size. Raises InvalidRequest."""
    check(result, source, mask)
    core = is_core(mask)
    box = around(core, margin=64 * max(1, max(mask.shape) // SCREEN))
    if box is None:
        return Seam(0.0, 0.0, 0.0, 0)
    result, source, mask = (at_screen_size(picture[box]) for picture in (result, source, mask))
    band = Band(is_core(mask), half_width(mask))
    if not band.edge.any():  # too fine to be there at this size
        return Seam(0.0, 0.0, 0.0, 0)
    result, source = as_lab(result), as_lab(source)
    jump = band.jump(result)[band.edge]
    own = np.maximum(band.contrast_beside(result)[band.edge], band.jump(source)[band.edge])
    ratio = jump / np.hypot(own, JUST_SEEN)
    place = np.argsort(ratio)[min(len(ratio) * WORST // 100, len(ratio) - 1)]
    return Seam(float(jump[place]), float(own[place]), float(ratio[place]), int(band.edge.sum()))


class Band:
    """The strips along a mask's edge, and means over pieces of them as long as they are wide.

    core: True where the picture is the model's. half: pixels from the edge to where the mask is even on either side.
    """

    def __init__(self, core: np.ndarray, half: float):
        self.distance = signed_distance(core)
        """Pixels from the edge, below 0 inside."""
        self.gap, self.width = half, max(STRIP, round(1.5 * half))
        self.reach = int(np.ceil(1.5 * (self.gap + 2 * self.width)))
        self.edge = (self.distance < 0) & (self.distance > -1)

    def difference(self, picture: np.ndarray, at: float = 0.0) -> np.ndarray:
        """What is outside less what is inside a line at that distance from the edge, each carried on to the line. (H, W, 3).

        Both sides are carried on linearly, so that an even gradient across the line is no jump.
        """
        return self._side(picture, at, 1) - self._side(picture, at, -1)

    def jump(self, picture: np.ndarray, at: float = 0.0) -> np.ndarray:
        """How large that is as a mean along the line: a seam goes the same way all along it, a picture's own contrast does not."""
        mean, _ = mean_around(self.difference(picture, at), self._line(at), ALONG * self.reach)
        return np.linalg.norm(mean, axis=-1)

    def contrast_beside(self, picture: np.ndarray) -> np.ndarray:
        """How large jumps are across lines beside the edge, around each pixel. (H, W).

        The root mean square of each side's, and of both sides their geometric mean: a step between an even sky and a busy tree
        is seen more than the tree's contrast alone would have it.
        """
        away = 2 * (self.gap + self.width) + 1  # beyond where the mask mixes
        sides = []
        for at, deepest in ((away, self.distance.max()), (-away, self.distance.min())):
            if abs(deepest) > away + self.gap + self.width:
                line = self._line(at)
                mean, _ = mean_around(np.where(line, np.square(self.jump(picture, at)), 0), line, 2 * ALONG * self.reach)
                sides.append(np.sqrt(np.maximum(mean, 0)))  # sums are rounded
        return np.prod(sides, axis=0) ** (1 / len(sides)) if sides else np.zeros(self.distance.shape, np.float32)

    def _line(self, at: float) -> np.ndarray:
        return np.abs(self.distance - at) < 1

    def _side(self, picture: np.ndarray, at: float, sign: int) -> np.ndarray:
        beyond = (self.distance - at) * sign - self.gap
        near, far = ((beyond > start) & (beyond <= start + self.width) for start in (0, self.width))
        first, there = mean_around(picture, near, self.reach)
        if not there[self._line(at)].all():  # the mask, or what it leaves, is thinner here than its own edge
            instead, known = mean_around(picture, beyond > -self.gap, self.reach)
            first = np.where(there[..., None], first, np.where(known[..., None], instead, picture))
        second, there = mean_around(picture, far, self.reach)
        second = np.where(there[..., None], second, first)
        return first + (first - second) * np.float32((self.gap + self.width / 2) / self.width)


def mean_around(values: np.ndarray, where: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(the mean of those values that are `where` in the square of `reach` pixels around each pixel, whether there are any)."""
    weights = where.astype(np.float32)
    weighted = values * (weights if values.ndim == 2 else weights[..., None])
    count, total = (cv2.boxFilter(each, cv2.CV_32F, (2 * reach + 1,) * 2, normalize=False, borderType=cv2.BORDER_CONSTANT)
                    for each in (weights, weighted))
    some = np.maximum(count, 1)
    return total / (some if values.ndim == 2 else some[..., None]), count > 0.5


# --- blended

def blend(result: np.ndarray, source: np.ndarray, mask: np.ndarray, how: How) -> Blended:
    """A result without its seam. source, mask: what the pipeline made it from, at its size. Raises InvalidRequest.

    poisson: the colours of the model's part are moved to meet the source at the edge, as in Poisson image editing (Pérez et al.,
    2003); nothing changes where the mask is 0. soft: as if the mask's edge had been softer; a band beside the mask changes, too.
    """
    check(result, source, mask)
    if how not in WAYS:
        raise InvalidRequest("blend", f"blend must be one of {', '.join(WAYS)}, got {str(how)[:100]!r}")
    core, image = is_core(mask), result.copy()
    sigma = softness(core, mask)
    margin = int(4 * sigma) + 64 * max(1, max(mask.shape) // SCREEN)
    box = around(core, margin)
    if box is not None:
        parts = result[box], source[box], mask[box], core[box]
        image[box] = with_moved_colours(*parts) if how == "poisson" else with_soft_edge(*parts, sigma)
    return Blended(image, int(((image != result).any(axis=-1) & (mask == 0)).sum()))


def told(text: str, how: How, outside: int) -> str:
    """The infotext of a picture whose seam was blended, from that of the picture before it."""
    beside = f", {outside} pixels outside the mask" if outside else ""
    return ", ".join(filter(None, [text, parameters_line({IN_INFOTEXT: WAYS[how] + beside})]))


def before_blend(text: str) -> str:
    """The infotext of the picture that a blended one was made of, from its own."""
    return text.rpartition(f", {IN_INFOTEXT}: ")[0]


def way_of(text: str | None) -> str | None:
    """How infotext says that a seam was blended; None where it was not."""
    return parse(text or "").get(IN_INFOTEXT)


def with_moved_colours(result: np.ndarray, source: np.ndarray, mask: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The model's part plus what is the jump on the edge and as even as can be inside: harmonic."""
    hard = with_hard_edge(result, source, mask, core)
    small, small_core = at_screen_size(hard), is_core(at_screen_size(core.astype(np.uint8) * 255))
    band = Band(small_core, 1.0 if small.shape != hard.shape else 0.0)
    shift = at_size(membrane(band.difference(small.astype(np.float32)), band.edge), core.shape)
    return np.where(core[..., None], added(hard, shift), hard)


def with_soft_edge(result: np.ndarray, source: np.ndarray, mask: np.ndarray, core: np.ndarray, sigma: float) -> np.ndarray:
    """The model's part faded into the source inside the edge; and outside, where it drew nothing, its colours carried on."""
    hard = with_hard_edge(result, source, mask, core)
    small, small_core = at_screen_size(hard), is_core(at_screen_size(core.astype(np.uint8) * 255))
    band = Band(small_core, 1.0 if small.shape != hard.shape else 0.0)
    reach = int(np.ceil(3 * sigma * max(small.shape) / max(hard.shape))) + 1
    difference = band.difference(small.astype(np.float32))
    carried = at_size(mean_around(difference, band.edge, reach)[0], core.shape)
    share = cv2.GaussianBlur(core.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    outside = added(hard, -carried * share[..., None])
    inside = added(source, (hard.astype(np.float32) - source) * share[..., None])
    return np.where(core[..., None], inside, outside)


def with_hard_edge(result: np.ndarray, source: np.ndarray, mask: np.ndarray, core: np.ndarray) -> np.ndarray:
    """The picture as if the mask had been hard: of the pixels where it mixed both, what the model drew inside, else the source."""
    hard = np.where(((mask > 0) & ~core)[..., None], source, result)
    mixed = core & (mask < 255)
    drawn = source[mixed] + (result[mixed].astype(np.float32) - source[mixed]) * (255 / mask[mixed].astype(np.float32))[:, None]
    hard[mixed] = rounded(drawn)
    return hard


def membrane(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3) `values` where they are known; elsewhere what is the mean of its neighbours: Laplace's equation.

    Nothing flows over the picture's borders. From coarse to fine, each size begun with what the one before it gave.
    """
    start = np.zeros_like(values)
    if min(known.shape) > 2 and not known.all():
        size = ((known.shape[1] + 1) // 2, (known.shape[0] + 1) // 2)
        weights = known.astype(np.float32)
        share = cv2.resize(weights, size, interpolation=cv2.INTER_AREA)
        means = cv2.resize(values * weights[..., None], size, interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-6)[..., None]
        start = at_size(membrane(means, share > 0), known.shape)
    spread, fixed = np.where(known[..., None], values, start), np.broadcast_to(known[..., None], values.shape)
    for _ in range(next(sweeps for side, sweeps in SWEEPS if max(known.shape) <= side)):
        spread = cv2.filter2D(spread, -1, NEIGHBOURS, borderType=cv2.BORDER_REPLICATE)
        np.copyto(spread, values, where=fixed)
    return spread


# --- masks and sizes

def check(result: np.ndarray, source: np.ndarray, mask: np.ndarray) -> None:
    """Raise InvalidRequest where the three do not belong together."""
    for name, picture in (("source", source), ("mask", mask)):
        if picture.shape[:2] != result.shape[:2]:
            wanted, got = ("x".join(map(str, shape[1::-1])) for shape in (result.shape, picture.shape))
            raise InvalidRequest(name, f"{name} must have the size of image ({wanted} pixels), got {got}")


def is_core(mask: np.ndarray) -> np.ndarray:
    """Where more of a picture is the model's than halfway between the mask's least and greatest value; nowhere in an even mask."""
    low, high = int(mask.min()), int(mask.max())
    return mask > (low + high) // 2 if high > low else np.zeros(mask.shape, bool)


def around(core: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The box around the model's part with a margin, as slices; None where there is none."""
    x, y, width, height = cv2.boundingRect(core.astype(np.uint8))
    if not width:
        return None
    return slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin)


def half_width(mask: np.ndarray) -> float:
    """Pixels from the middle of a mask's edge to where the mask is even, as far as that goes for the whole edge; 0: it is hard."""
    core = is_core(mask)
    edge = (np.abs(signed_distance(core)) < 1).sum() / 2
    low, high = int(mask.min()), int(mask.max())
    between = ((mask > low + (high - low) * 0.02) & (mask < high - (high - low) * 0.02)).sum()
    return float(between / edge / 2) if edge else 0.0


def softness(core: np.ndarray, mask: np.ndarray) -> float:
    """Sigma in pixels of a wider soft edge: twice what the mask's edge has, and a part of a small mask only."""
    widest = np.sqrt(max(int(core.sum()), 1)) / 4
    return float(min(max(SOFTEST, max(mask.shape) / 128, 2 * half_width(mask)), max(widest, 1.0)))


def signed_distance(core: np.ndarray) -> np.ndarray:
    """Pixels from each pixel's middle to the edge, below 0 inside. float32 (H, W)."""
    inside, outside = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5) for part in (core, ~core))
    return np.where(core, 0.5 - inside, outside - 0.5).astype(np.float32)


def at_screen_size(picture: np.ndarray) -> np.ndarray:
    """A picture or mask made smaller where it is larger than SCREEN."""
    scale = SCREEN / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def at_size(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """float32 values enlarged to (H, W)."""
    return values if values.shape[:2] == shape else cv2.resize(values, shape[::-1], interpolation=cv2.INTER_LINEAR)


def as_lab(picture: np.ndarray) -> np.ndarray:
    """CIELAB, float32: L from 0 to 100."""
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def added(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return rounded(picture.astype(np.float32) + shift)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
