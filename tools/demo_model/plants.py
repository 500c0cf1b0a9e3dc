"""Trees, bushes and grass of the landscape."""
from __future__ import annotations

from random import Random

import skia

from tools.demo_model.easel import Colour, Easel, mix, oval, polygon, smooth, times
from tools.demo_model.light import Light
from tools.demo_model.scenes import Scene

NEEDLES = {"summer": (0.13, 0.36, 0.20), "autumn": (0.22, 0.36, 0.18), "winter": (0.32, 0.46, 0.46),
           "spring": (0.20, 0.46, 0.24)}
LEAVES = {"summer": ((0.22, 0.50, 0.17), (0.32, 0.58, 0.20), (0.16, 0.42, 0.20)),
          "autumn": ((0.84, 0.42, 0.10), (0.76, 0.24, 0.12), (0.90, 0.66, 0.16)), "winter": ((0.88, 0.92, 0.98),),
          "spring": ((0.48, 0.72, 0.28), (0.96, 0.72, 0.82), (0.58, 0.78, 0.36))}
BARK = (0.38, 0.26, 0.18)
SNOW = (0.95, 0.97, 1.0)


def ground_shadow(easel: Easel, light: Light, x: float, foot: float, tall: float, wide: float) -> None:
    """The shadow of something upright, away from the light."""
    if light.shadow > 0.04:
        long = tall * 0.42 * light.length
        easel.fill(oval(x - light.side * long * 0.7, foot, long, wide), (0, 0, 0.06), light.shadow * 0.75,
                   blur=1 + tall * 0.01)


def conifer(easel: Easel, scene: Scene, light: Light, x: float, foot: float, tall: float, away: float,
            random: Random) -> None:
    """A pointed tree of three or four tiers, lit from one side."""
    paint = times(NEEDLES[scene.season], random.uniform(0.85, 1.2))
    bright, dark = light.lit(times(paint, 1.2), away), light.lit(times(paint, 0.66), away)
    if away < 0.2:
        ground_shadow(easel, light, x, foot, tall, tall * 0.04)
    easel.fill(polygon([(x - tall * 0.03, foot), (x - tall * 0.03, foot - tall * 0.2),
                        (x + tall * 0.03, foot - tall * 0.2), (x + tall * 0.03, foot)]),
               light.lit(BARK, away))
    tiers, lean = (4 if tall > 60 else 3), random.uniform(0.9, 1.1)
    for n in range(tiers):
        low, top = foot - tall * (0.10 + 0.70 * n / tiers), foot - tall * min(1.0, 0.52 + 0.52 * n / tiers)
        half = tall * (0.235 - 0.15 * n / tiers) * lean
        easel.fill(polygon([(x - half, low), (x, top), (x + half, low), (x, low + tall * 0.03)]), dark)
        lit = x + light.side * half
        easel.fill(polygon([(lit, low), (x, top), (x - light.side * half * 0.12, low + tall * 0.02)]), bright)
        if scene.season == "winter":
            cap = top + (low - top) * 0.5
            easel.fill(polygon([(x - half * 0.52, cap), (x, top), (x + half * 0.52, cap),
                                (x + half * 0.2, cap - tall * 0.015), (x, cap + tall * 0.03),
                                (x - half * 0.2, cap - tall * 0.01)]), light.lit(SNOW, away))


def leafy_tree(easel: Easel, scene: Scene, light: Light, x: float, foot: float, tall: float, away: float,
               random: Random,
               paint: Colour | None = None) -> None:
    """A round tree, a poplar or, in some winters, bare branches."""
    trunk = light.lit(BARK, away)
    if away < 0.2:
        ground_shadow(easel, light, x, foot, tall, tall * 0.05)
    bare = scene.season == "winter" and paint is None and random.random() < 0.5
    leaves = paint or random.choice(LEAVES[scene.season])
    easel.fill(polygon([(x - tall * 0.055, foot), (x - tall * 0.03, foot - tall * 0.5),
                        (x + tall * 0.03, foot - tall * 0.5), (x + tall * 0.055, foot)]), trunk)
    if bare:
        branches(easel, x, foot - tall * 0.4, tall * 0.3, 0.0, trunk, tall * 0.05, random, 3)
        return
    bright, middle, dark = (light.lit(c, away) for c in (mix(times(leaves, 1.18), (1, 1, 0.7), 0.10), leaves,
                                                         times(leaves, 0.62)))
    poplar = paint is None and random.random() < 0.18
    puffs = (((0, 0.45, 0.15), (0.02, 0.62, 0.16), (-0.01, 0.78, 0.13), (0, 0.9, 0.09)) if poplar else
             ((-0.20, 0.50, 0.19), (0.20, 0.50, 0.19), (0, 0.56, 0.24), (-0.14, 0.70, 0.18), (0.15, 0.70, 0.18),
              (0, 0.80, 0.19)))
    shape = [(x + tall * dx * random.uniform(0.85, 1.15), foot - tall * dy, tall * size * random.uniform(0.9, 1.1))
             for dx, dy, size in puffs]
    for px, py, size in shape:
        easel.fill(oval(px, py, size * 1.06, size), dark)
    for px, py, size in shape:
        easel.fill(oval(px + light.side * size * 0.16, py - size * 0.14, size * 0.88, size * 0.82), middle)
    for px, py, size in shape[len(shape) // 3:]:
        easel.fill(oval(px + light.side * size * 0.34, py - size * 0.32, size * 0.46, size * 0.40), bright, 0.9)


def branches(easel: Easel, x: float, y: float, long: float, lean: float, paint: Colour, width: float, random: Random,
             depth: int) -> None:
    """Bare branches that fork `depth` times."""
    for side in (-1, 0, 1) if depth == 3 else (-1, 1):
        turn = lean + side * random.uniform(0.35, 0.6)
        x2, y2 = x + long * turn, y - long * (1 - 0.3 * abs(turn))
        easel.stroke(polygon([(x, y), (x2, y2)]), paint, width * 0.7)
        if depth > 1:
            branches(easel, x2, y2, long * 0.62, turn, paint, width * 0.6, random, depth - 1)


def bush(easel: Easel, scene: Scene, light: Light, x: float, foot: float, tall: float, away: float,
         random: Random) -> None:
    leaves = random.choice(LEAVES[scene.season])
    for dx, dy, size in ((-0.5, 0.35, 0.42), (0.5, 0.3, 0.4), (0, 0.5, 0.52)):
        easel.fill(oval(x + tall * dx, foot - tall * dy, tall * size, tall * size * 0.85),
                   light.lit(times(leaves, 0.68), away))
        easel.fill(oval(x + tall * (dx + light.side * 0.08), foot - tall * (dy + 0.08), tall * size * 0.8,
                        tall * size * 0.65), light.lit(leaves, away))


def palm(easel: Easel, light: Light, x: float, foot: float, tall: float, side: int, random: Random) -> None:
    ground_shadow(easel, light, x, foot, tall * 0.7, 4)
    tip = (x + side * tall * 0.22, foot - tall)
    trunk = skia.Path()
    trunk.moveTo(x, foot), trunk.quadTo(x + side * tall * 0.02, foot - tall * 0.6, *tip)
    easel.stroke(trunk, light.lit((0.50, 0.36, 0.22)), tall * 0.05)
    for n in range(8):
        lean, rise = -1.2 + 2.4 * n / 7, random.uniform(0.10, 0.2)
        end = (tip[0] + lean * tall * 0.30,
               tip[1] - tall * rise * (1.3 - abs(lean)) + tall * 0.12 * abs(lean) + tall * 0.06)
        middle = (tip[0] + lean * tall * 0.16, tip[1] - tall * (0.16 - 0.04 * abs(lean)))
        leaf = smooth([tip, middle, end, (middle[0], middle[1] + tall * 0.06)], closed=True)
        easel.fill(leaf, light.lit((0.18, 0.50, 0.22) if n % 2 else (0.30, 0.62, 0.26)))


def tuft(easel: Easel, scene: Scene, light: Light, x: float, foot: float, tall: float, random: Random) -> None:
    paint = {"summer": (0.20, 0.44, 0.14), "autumn": (0.62, 0.45, 0.16), "winter": (0.66, 0.70, 0.74),
             "spring": (0.30, 0.58, 0.18)}[scene.season]
    for lean in (-0.45, 0.0, 0.4):
        blade = polygon([(x - tall * 0.16, foot), (x + lean * tall, foot - tall * random.uniform(0.8, 1.2)),
                         (x + tall * 0.16, foot)])
        easel.fill(blade, light.lit(times(paint, random.uniform(0.8, 1.2))))
