"""The main thing of a scene: bold shapes in local coordinates, u right and v up from its foot, one unit tall."""
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tools.demo_model.landscapes import Light, horizon, is_one_of, pick
from tools.demo_model.scenes import PLACES, SEASONS, THINGS, Scenes
from tools.demo_model.shapes import Frame, box, circle, colour, ellipse, lay, polygon, spread, union

PIGMENT = [(0.88, 0.13, 0.12), (0.13, 0.33, 0.88), (0.99, 0.83, 0.12), (0.16, 0.62, 0.25), (0.96, 0.96, 0.95),
           (0.98, 0.50, 0.08), (0.56, 0.22, 0.74), (0.11, 0.11, 0.13)]
# The height of each thing as a part of the picture's, in the order of THINGS.
HEIGHT = (0.0, 0.40, 0.50, 0.50, 0.25, 0.42, 0.58, 0.46, 0.22)
Part = tuple[Tensor, Tensor, float]  # distance in local units, paint, and how much it shines by lamp light


def house(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    roof = torch.lerp(colour(0.42, 0.22, 0.18, like=u), colour(0.95, 0.97, 1, like=u), snowy)
    yield box(u - 0.26, v - 0.82, 0.07, 0.16), colour(0.45, 0.30, 0.26, like=u), 0
    yield box(u, v - 0.30, 0.50, 0.30), paint, 0
    yield polygon(u, v, [(-0.64, 0.56), (-0.10, 1.0), (0.10, 1.0), (0.64, 0.56)]), roof, 0
    yield box(u + 0.22, v - 0.19, 0.10, 0.19), colour(0.36, 0.22, 0.14, like=u), 0
    yield box(u - 0.18, v - 0.32, 0.15, 0.12), colour(0.62, 0.80, 0.92, like=u), 1


def tree(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    yield polygon(u, v, [(-0.09, 0.0), (-0.05, 0.55), (0.05, 0.55), (0.09, 0.0)]), colour(0.40, 0.26, 0.16, like=u), 0
    crown = union(circle(u, v - 0.74, 0.26), circle(u + 0.22, v - 0.56, 0.20), circle(u - 0.22, v - 0.58, 0.20))
    yield crown, paint * 0.85, 0
    yield union(circle(u + 0.06, v - 0.78, 0.17), circle(u + 0.24, v - 0.60, 0.11)), paint, 0


def boat(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    yield box(u, v - 0.55, 0.018, 0.45), colour(0.36, 0.24, 0.16, like=u), 0
    yield polygon(u, v, [(0.04, 0.24), (0.04, 0.98), (0.50, 0.24)]), paint, 0
    yield polygon(u, v, [(-0.36, 0.24), (-0.04, 0.86), (-0.04, 0.24)]), paint * 0.45 + 0.55, 0
    yield polygon(u, v, [(-0.40, 0.0), (-0.56, 0.20), (0.58, 0.20), (0.42, 0.0)]), colour(0.45, 0.26, 0.15, like=u), 0
    rail = polygon(u, v, [(-0.545, 0.15), (-0.575, 0.20), (0.595, 0.20), (0.565, 0.15)])
    yield rail, colour(0.95, 0.92, 0.85, like=u), 0


def car(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    yield polygon(u, v, [(-0.78, 0.50), (-0.42, 1.0), (0.22, 1.0), (0.62, 0.50)]), paint * 0.92, 0
    glass = colour(0.35, 0.50, 0.62, like=u)
    yield polygon(u, v, [(-0.56, 0.56), (-0.34, 0.90), (-0.10, 0.90), (-0.10, 0.56)]), glass, 0.6
    yield polygon(u, v, [(-0.02, 0.56), (-0.02, 0.90), (0.16, 0.90), (0.44, 0.56)]), glass, 0.6
    yield box(u, v - 0.39, 1.15, 0.21, 0.14), paint, 0
    for wheel in (-0.66, 0.66):
        yield circle(u - wheel, v - 0.22, 0.24), colour(0.10, 0.10, 0.12, like=u), 0
        yield circle(u - wheel, v - 0.22, 0.11), colour(0.75, 0.76, 0.80, like=u), 0
    yield ellipse(u - 1.05, v - 0.44, 0.10, 0.08), colour(1.0, 0.95, 0.70, like=u), 1


def balloon(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    for side in (-1, 1):
        rope = polygon(u * side, v, [(0.07, 0.12), (0.14, 0.36), (0.17, 0.36), (0.10, 0.12)])
        yield rope, colour(0.35, 0.25, 0.18, like=u), 0
    neck = polygon(u, v, [(-0.13, 0.24), (-0.31, 0.46), (0.31, 0.46), (0.13, 0.24)])
    envelope = union(circle(u, v - 0.64, 0.36), neck)
    yield envelope, paint, 0
    yield torch.maximum(envelope, (u.abs() - 0.19).abs() - 0.055), paint * 0.4 + 0.6, 0
    yield box(u, v - 0.07, 0.11, 0.08, 0.02), colour(0.50, 0.32, 0.18, like=u), 0


def tower(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    shaft = polygon(u, v, [(-0.20, 0.0), (-0.12, 0.76), (0.12, 0.76), (0.20, 0.0)])
    yield shaft, paint, 0
    yield torch.maximum(shaft, ((v + 0.06) % 0.38 - 0.19).abs() - 0.09), paint * 0.2 + 0.8, 0
    yield box(u, v - 0.83, 0.085, 0.07), colour(0.72, 0.80, 0.84, like=u), 1
    yield box(u, v - 0.765, 0.17, 0.022), colour(0.28, 0.26, 0.30, like=u), 0
    yield polygon(u, v, [(-0.15, 0.89), (-0.01, 1.0), (0.01, 1.0), (0.15, 0.89)]), paint * 0.75, 0


def person(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    for leg in (-0.075, 0.075):
        yield box(u - leg, v - 0.16, 0.05, 0.16, 0.02), colour(0.20, 0.20, 0.30, like=u), 0
    yield polygon(u, v, [(-0.25, 0.36), (-0.17, 0.74), (-0.09, 0.74), (-0.15, 0.34)]), paint * 0.8, 0
    yield polygon(u, v, [(0.15, 0.34), (0.09, 0.74), (0.17, 0.74), (0.25, 0.36)]), paint * 0.8, 0
    yield polygon(u, v, [(-0.18, 0.24), (-0.14, 0.76), (0.14, 0.76), (0.18, 0.24)]), paint, 0
    yield circle(u, v - 0.885, 0.115), colour(0.32, 0.20, 0.14, like=u), 0
    yield circle(u, v - 0.865, 0.10), colour(0.95, 0.76, 0.62, like=u), 0


def fence(u: Tensor, v: Tensor, paint: Tensor, snowy: Tensor) -> Iterator[Part]:
    for rail in (0.30, 0.66):
        yield box(u, v - rail, 1.35, 0.065), paint * 0.8, 0
    picket = (u.clamp(-1.14, 1.14) / 0.46 + 0.5).floor() * 0.46
    yield torch.maximum(box(u - picket, v - 0.45, 0.12, 0.45), ((u - picket).abs() * 0.8 + v - 1.0) * 0.78), paint, 0


SHAPES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Iterator[Part]]] = dict(
    zip(THINGS[1:], (house, tree, boat, car, balloon, tower, person, fence)))


def thing_place(scenes: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Centre, foot and height of each scene's thing in picture coordinates: three of (B, 1, 1)."""
    big = (scenes.size == 1)[:, None, None]
    height = torch.tensor(HEIGHT, device=scenes.thing.device)[scenes.thing][:, None, None]
    height = height * torch.where(big, spread(scenes.seed, 10, 0.98, 1.12), spread(scenes.seed, 10, 0.66, 0.78))
    x = torch.tensor([0.27, 0.50, 0.73], device=height.device)[scenes.spot][:, None, None]
    x = x + spread(scenes.seed, 11, -0.04, 0.04)
    foot = 0.88 + spread(scenes.seed, 12, -0.02, 0.03) + is_one_of(scenes.place, PLACES, "sea")[:, None, None] * 0.04
    foot = torch.where(is_one_of(scenes.thing, THINGS, "boat")[:, None, None], horizon(scenes) + 0.20, foot)
    afloat = is_one_of(scenes.thing, THINGS, "balloon")[:, None, None]
    return x, torch.where(afloat, 0.06 + height + spread(scenes.seed, 12, 0.0, 0.06), foot), height


def paint_thing(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame, name: str) -> Tensor:
    """The thing called `name`, with its shadow on land or its reflection in water."""
    x, foot, height = thing_place(scenes)
    u, v = (frame.x - x) / height, (foot - frame.y) / height
    paint = pick(PIGMENT, scenes.colour)
    snowy = is_one_of(scenes.season, SEASONS, "winter")[:, None, None, None].float()
    tint = torch.lerp(light.tint, torch.ones_like(light.tint), 0.42)
    shade = (1.06 - 0.16 * (u + 0.3).clamp(-1, 1)).unsqueeze(1)
    if name == "boat":
        for distance, own, _ in SHAPES[name](u, -v * 1.6, paint, snowy):
            canvas = lay(canvas, own * tint * 0.8, frame.cover(distance * height) * 0.35)
    elif name != "balloon":
        width = {"car": 1.2, "fence": 1.4, "house": 0.62}.get(name, 0.32)
        shadow = (1 - ellipse(u, v, width, 0.085) / 0.03).clamp(0, 1).unsqueeze(1)
        canvas = canvas * (1 - 0.45 * shadow)
    glow = colour(1.0, 0.86, 0.45, like=u).expand_as(canvas)
    for distance, own, shine in SHAPES[name](u, v, paint, snowy):
        canvas = lay(canvas, torch.lerp(own * tint * shade, glow, light.lamps * shine), frame.cover(distance * height))
    return canvas
