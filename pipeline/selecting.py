"""Answers a canvas's requests to select something in its picture: validates them, limits visitors, calls what selects."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from pipeline.caches import Cache
from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest, TooMany
from pipeline.families.sam import Prompt
from pipeline.geometry import Box
from pipeline.images import flatten
from pipeline.selection import follow_edge, select_by_stroke, select_in_box
from pipeline.uploads import count_pixels, open_picture

MAX_PIXELS = 50_000_000
"""Per picture."""
KEPT = 384 * 2**20
"""Bytes of decoded pictures, for all visitors together."""
MAX_POINTS = 4096
"""Per stroke."""
MAX_CLICKS = 64
AT_ONCE = 2
"""Requests processed in parallel, at most one per visitor."""
WAITING = 3
"""Requests per visitor, including the running one; a canvas sends one at a time."""
WAITING_IN_ALL = 32


class Model(Protocol):
    """The part of an engine that selects."""

    def segmenters(self) -> list[str]: ...

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray: ...


class Selecting:
    """Selects in pictures among `drafts`. Any thread may use it."""

    def __init__(self, drafts: Drafts, model: Model):
        self._drafts, self._model = drafts, model
        self._pictures, self._reading = Cache(KEPT), threading.Lock()
        self._waiting: list[str] = []
        """The visitor of each request, running or not."""
        self._working: list[str] = []
        """The visitor of each running request."""
        self._turns = threading.Condition()

    def models(self) -> list[str]:
        """The models that clicks may name."""
        return self._model.segmenters()

    def answer(self, asked: dict[str, Any], visitor: str) -> np.ndarray | list[tuple[float, float]]:
        """A mask, (h, w) uint8 with 255 inside; for `edge` the points of a path.

        asked: the visitor's `draft`, a `tool` of TOOLS, and its arguments. Raises InvalidRequest, TooMany, ModelError.
        """
        tool, draft = asked.get("tool"), asked.get("draft")
        if not isinstance(tool, str) or tool not in TOOLS:
            raise InvalidRequest("tool", f"tool must be one of {', '.join(TOOLS)}")
        if not isinstance(draft, str) or not self._drafts.owned(draft, visitor):
            raise InvalidRequest("draft", "draft: the picture is no longer kept; add it again")
        with self._turn(visitor):
            return TOOLS[tool](self, draft, asked)

    @contextmanager
    def _turn(self, visitor: str) -> Iterator[None]:
        with self._turns:
            if self._waiting.count(visitor) >= WAITING or len(self._waiting) >= WAITING_IN_ALL:
                raise TooMany("Too many selections are in progress; try again in a moment.")
            self._waiting.append(visitor)
            self._turns.wait_for(lambda: len(self._working) < AT_ONCE and visitor not in self._working)
            self._working.append(visitor)
        try:
            yield
        finally:
            with self._turns:
                self._working.remove(visitor)
                self._waiting.remove(visitor)
                self._turns.notify_all()

    def _picture(self, draft: str) -> np.ndarray:
        """The picture, upright, (h, w, 3) uint8."""
        path = self._drafts.path(draft, "draft")
        with self._reading:
            return self._pictures.get(draft, lambda: decoded(path))

    # --- the tools

    def box(self, draft: str, asked: dict[str, Any]) -> np.ndarray:
        return select_in_box(self._picture(draft), box_in(asked))

    def stroke(self, draft: str, asked: dict[str, Any]) -> np.ndarray:
        points = points_in(asked, "points", MAX_POINTS)
        return select_by_stroke(self._picture(draft), points, number_in(asked, "radius", 0.5, 1 << 13))

    def edge(self, draft: str, asked: dict[str, Any]) -> list[tuple[float, float]]:
        points = points_in(asked, "points", 2)
        return follow_edge(self._picture(draft), points[0], points[-1], reach=number_in(asked, "reach", 0, 64))

    def click(self, draft: str, asked: dict[str, Any]) -> np.ndarray:
        wanted, others = (points_in(asked, name, MAX_CLICKS, least=0) for name in ("points", "not_points"))
        box = box_in(asked) if asked.get("box") is not None else None
        if not wanted and not others and box is None:
            raise InvalidRequest("points", "points: click on what to select, or draw a box around it")
        name = asked.get("model")
        if not isinstance(name, str):
            raise InvalidRequest("model", "model must be the name of a segmentation model")
        prompt = Prompt((*((x, y, True) for x, y in wanted), *((x, y, False) for x, y in others)), box)
        return self._model.segment(name, self._picture(draft), draft, prompt)


TOOLS = {"box": Selecting.box, "stroke": Selecting.stroke, "edge": Selecting.edge, "click": Selecting.click}
"""GrabCut from a box or a rough stroke, a path along edges, and a model given clicks and a box."""


def decoded(path: str) -> np.ndarray:
    pixels = count_pixels(path, "draft")
    if pixels > MAX_PIXELS:
        raise InvalidRequest("draft", f"draft: selecting works in pictures of at most {MAX_PIXELS // 1_000_000} million pixels, "
                                      f"got {pixels // 1_000_000} million; make the picture smaller")
    return np.asarray(flatten(open_picture(path, "draft").image, "#ffffff"))


# --- reading what is asked

def number_in(asked: dict[str, Any], name: str, least: float, most: float) -> float:
    return number(asked.get(name), name, least, most)


def number(value: Any, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(name, f"{name} must be a number between {least} and {most}")
    return float(value)


def points_in(asked: dict[str, Any], name: str, most: int, least: int = 1) -> list[tuple[float, float]]:
    """[[x, y], …] in pixels of the picture. Points may be outside it."""
    points = asked.get(name, [])
    if not isinstance(points, list) or not least <= len(points) <= most:
        raise InvalidRequest(name, f"{name} must be a list of {least} to {most} points")
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise InvalidRequest(name, f"{name}: each point must be [x, y]")
    x, y = ([number(point[axis], name, -(1 << 17), 1 << 17) for point in points] for axis in (0, 1))
    return list(zip(x, y))


def box_in(asked: dict[str, Any]) -> Box:
    """[[x1, y1], [x2, y2]], any two opposite corners."""
    (ax, ay), (bx, by) = points_in(asked, "box", 2, least=2)
    return Box(round(min(ax, bx)), round(min(ay, by)), round(max(ax, bx)), round(max(ay, by)))
