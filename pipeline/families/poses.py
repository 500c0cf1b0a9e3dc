"""Poses of people by ViTPose, drawn as OpenPose draws them, on whose pictures control networks for poses were trained."""

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

BODY, HANDS, FACE = "body", "hands", "face"
SURE = 0.3
"""Points with less confidence are not drawn."""
AROUND = 1.25
"""A network sees a person's box enlarged by this."""
IMAGENET = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
SPREAD, RADIUS = 0.8, 5
"""Cells: how much a heatmap is smoothed before its peak is read, by a Gaussian that ends there."""
COCO, WHOLE_BODY = 17, 133
"""Points of COCO's persons, and with feet, face and hands."""
NECK = -1
"""Between the shoulders."""
POINTS = (0, NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""OpenPose's points by their numbers in COCO: nose, neck, the right arm, the left one, the right leg, the left one, eyes and ears, right ones first."""
SHOULDERS = 5, 6
FACE_POINTS, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17))
"""By OpenPose's numbers, in the order in which they are drawn."""
COLOURS = tuple(tuple(bytes.fromhex(colour)) for colour in (
    "ff0000 ff5500 ffaa00 ffff00 aaff00 55ff00 00ff00 00ff55 00ffaa 00ffff 00aaff 0055ff 0000ff 5500ff aa00ff ff00ff ff00aa ff0055").split())
"""Of the limbs, and of the points."""
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
WIDTH, POINT, FACE_POINT, LINE = 4, 4, 3, 2
"""Pixels: half a limb's width, radii of points, a finger's width."""
LIMB_LIGHT = 0.6
"""Of a limb's colour; points have all of it."""


@dataclass(frozen=True)
class Person:
    """A person's points in a picture."""

    points: np.ndarray
    """(17 or 133, 2): x, y in pixels."""
    scores: np.ndarray
    """(17 or 133,)."""

    def at(self, index: int) -> tuple[float, float] | None:
        """A point of COCO's, or NECK; None: it is not sure enough."""
        if index == NECK:
            left, right = map(self.at, SHOULDERS)
            return None if left is None or right is None else ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
        return tuple(map(float, self.points[index])) if self.scores[index] > SURE else None

    def several(self, indices: slice) -> list[tuple[float, float] | None]:
        return [self.at(index) for index in range(len(self.scores))[indices]]


# --- finding the points

@torch.inference_mode()
def find(module: nn.Module, picture: np.ndarray, boxes: list[tuple[float, float, float, float]]) -> list[Person]:
    """The person in each box (x1, y1, x2, y2) of a picture (h, w, 3) uint8."""
    height, width = module.config.backbone_config.image_size
    people = []
    for box in boxes:
        left, top, seen_width, seen_height = seen_part(box, width / height)
        # the corners' pixels lie on the part's corners
        across, down = (width - 1) / seen_width, (height - 1) / seen_height
        part = cv2.warpAffine(picture, np.float32([[across, 0, -left * across], [0, down, -top * down]]), (width, height), flags=cv2.INTER_LINEAR)
        mean, deviation = IMAGENET
        pixels = torch.from_numpy((part.astype(np.float32) / 255 - mean) / deviation).permute(2, 0, 1)[None].contiguous()
        experts = getattr(module.config.backbone_config, "num_experts", 1)
        # of a network for several kinds of pictures, the first knows COCO's
        heatmaps = module(pixels, dataset_index=torch.zeros(1, dtype=torch.long) if experts > 1 else None).heatmaps[0].float().numpy()
        peaks, scores = zip(*map(peak, heatmaps))
        cells = np.float32([heatmaps.shape[2] - 1, heatmaps.shape[1] - 1])
        people.append(Person(np.float32(peaks) / cells * np.float32([seen_width, seen_height]) + np.float32([left, top]), np.float32(scores)))
    return people


def seen_part(box: tuple[float, float, float, float], shape: float) -> tuple[float, float, float, float]:
    """(left, top, width, height) of what the network sees of a box: larger, and of this width for a height of 1."""
    x1, y1, x2, y2 = box
    width = max(x2 - x1, (y2 - y1) * shape, 1e-3)
    width, height = width * AROUND, width / shape * AROUND
    return (x1 + x2 - width) / 2, (y1 + y2 - height) / 2, width, height


def peak(heatmap: np.ndarray) -> tuple[tuple[float, float], float]:
    """((x, y) of a heatmap's highest point, between the cells, its height): that of the Gaussian that it resembles there (Zhang, 2020)."""
    rows, columns = heatmap.shape
    row, column = divmod(int(heatmap.argmax()), columns)
    smooth = cv2.GaussianBlur(heatmap, (2 * RADIUS + 1,) * 2, SPREAD, borderType=cv2.BORDER_REFLECT)
    around = np.pad(np.log(smooth.clip(0.001, 50)), 1, mode="edge")[row:row + 3, column:column + 3].astype(np.float64)
    slope = np.array([around[1, 2] - around[1, 0], around[2, 1] - around[0, 1]]) / 2
    across, down = around[1, 2] - 2 * around[1, 1] + around[1, 0], around[2, 1] - 2 * around[1, 1] + around[0, 1]
    both = (around[2, 2] - around[1, 2] - around[2, 1] + 2 * around[1, 1] - around[1, 0] - around[0, 1] + around[0, 0]) / 2
    step = np.linalg.solve(np.array([[across, both], [both, down]]) + np.finfo(np.float32).eps * np.eye(2), slope)
    return (column - step[0], row - step[1]), float(heatmap[row, column])


# --- drawing them

def drawn(people: list[Person], height: int, width: int, parts: tuple[str, ...]) -> np.ndarray:
    """Their poses on black, (h, w, 3) uint8; parts: of BODY, HANDS and FACE those wanted, as far as the network knows them."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for person in people:
        if BODY in parts:
            canvas = with_body(canvas, [person.at(index) for index in POINTS])
        if len(person.scores) < WHOLE_BODY:
            continue
        if HANDS in parts:
            draw_hand(canvas, person.several(LEFT_HAND))
            draw_hand(canvas, person.several(RIGHT_HAND))
        for point in person.several(FACE_POINTS) if FACE in parts else ():
            draw_point(canvas, point, (255, 255, 255), FACE_POINT)
    return canvas


def with_body(canvas: np.ndarray, points: list[tuple[float, float] | None]) -> np.ndarray:
    """OpenPose: a limb is an ellipse; what was drawn before, of other people too, becomes darker before the points."""
    for (start, end), colour in zip(LIMBS, COLOURS):
        if points[start] is None or points[end] is None:
            continue
        (x1, y1), (x2, y2) = points[start], points[end]
        outline = cv2.ellipse2Poly((int((x1 + x2) / 2), int((y1 + y2) / 2)), (int(math.hypot(x1 - x2, y1 - y2) / 2), WIDTH),
                                   int(math.degrees(math.atan2(y1 - y2, x1 - x2))), 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, colour)
    canvas = (canvas * LIMB_LIGHT).astype(np.uint8)
    for point, colour in zip(points, COLOURS):
        draw_point(canvas, point, colour, POINT)
    return canvas


def draw_hand(canvas: np.ndarray, points: list[tuple[float, float] | None]) -> None:
    for number, (start, end) in enumerate(FINGERS):
        if points[start] is not None and points[end] is not None:
            colour = [255 * value for value in colorsys.hsv_to_rgb(number / len(FINGERS), 1, 1)]
            cv2.line(canvas, *(tuple(map(int, points[index])) for index in (start, end)), colour, thickness=LINE)
    for point in points:
        draw_point(canvas, point, (0, 0, 255), POINT)


def draw_point(canvas: np.ndarray, point: tuple[float, float] | None, colour: tuple[int, int, int], radius: int) -> None:
    if point is not None:
        cv2.circle(canvas, tuple(map(int, point)), radius, colour, thickness=-1)
