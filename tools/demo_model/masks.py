"""Masks to train and judge inpainting: around things, and elsewhere."""
from __future__ import annotations

import numpy as np
import skia
import torch
from torch import Tensor

from tools.demo_model.easel import UNITS, Easel, box, oval
from tools.demo_model.scenes import Scene
from tools.demo_model.things import WIDTH, stand

Box = tuple[float, float, float, float]


def thing_box(scene: Scene) -> Box:
    """Left, top, right and bottom of the main thing, in units of the picture."""
    spot = stand(scene, scene.main, scene.horizon)
    half = spot.height * WIDTH[scene.main.kind]
    return spot.x - half, spot.foot - spot.height, spot.x + half, spot.foot


def outline(scene: Scene) -> skia.Path:
    """The area to regenerate: around the main thing, a free box or ellipse, or a few strokes of a wide brush."""
    random = scene.lot("mask")
    kind = random.choices(("thing", "free", "brush"), (5 if scene.main else 0, 3, 2))[0]
    if kind == "brush":
        strokes = skia.Path()
        for _ in range(random.randint(1, 3)):
            x, y, reach = random.uniform(30, 226), random.uniform(30, 226), random.uniform(16, 34)
            for _ in range(7):
                strokes.addCircle(x, y, reach)
                x, y = x + random.uniform(-1, 1) * reach * 1.2, y + random.uniform(-1, 1) * reach * 0.8
        return strokes
    if kind == "thing":
        left, top, right, bottom = (
            edge + sign * random.uniform(2, 26) for edge, sign in zip(thing_box(scene), (-1, -1, 1, 1)))
    else:
        wide, tall = random.uniform(50, 210), random.uniform(50, 180)
        left, top = random.uniform(-20, UNITS + 20 - wide), random.uniform(-20, UNITS + 20 - tall)
        right, bottom = left + wide, top + tall
    if random.random() < 0.5:
        return oval((left + right) / 2, (top + bottom) / 2, (right - left) / 1.8, (bottom - top) / 1.8)
    return box(left, top, right, bottom, random.uniform(0, 20))


def mask_of(scene: Scene, size: int) -> np.ndarray:
    """(size, size) bool, True = regenerate; deterministic per scene."""
    easel = Easel(size)
    easel.fill(outline(scene), (1.0, 1.0, 1.0))
    return easel.array()[:, :, 0] >= 128


def masks_of(scenes: list[Scene], size: int) -> Tensor:
    """The scenes' masks, (N, 1, size, size) bool."""
    return torch.from_numpy(np.stack([mask_of(scene, size) for scene in scenes]))[:, None]
