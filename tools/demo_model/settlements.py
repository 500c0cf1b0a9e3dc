"""Inhabited places and the lake: city, village and lake shore."""
from __future__ import annotations

from collections.abc import Callable
from random import Random

import skia

from tools.demo_model.easel import UNITS, Colour, Easel, box, mix, oval, polygon, smooth, times
from tools.demo_model.landscapes import (
    FAR, NEAR, flowers, grass, land, mountain_range, paint_desert, paint_forest, paint_meadow, paint_mountains,
    paint_sea,
    path_to, ridge, rock, treeline, water)
from tools.demo_model.light import Light
from tools.demo_model.plants import leafy_tree, tuft
from tools.demo_model.scenes import Scene
from tools.demo_model.sky import paint_fog

WALLS = ((0.78, 0.50, 0.40), (0.86, 0.76, 0.60), (0.58, 0.64, 0.74), (0.70, 0.42, 0.36), (0.84, 0.82, 0.78),
         (0.62, 0.66, 0.58), (0.90, 0.66, 0.48))
GLASS, LAMP = (0.34, 0.44, 0.56), (1.0, 0.84, 0.45)
SNOW = (0.94, 0.96, 1.0)


def paint_city(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("city")
    skyline(easel, scene, light, random, horizon)
    paint_fog(easel, scene, light, horizon)
    (street_ahead if random.random() < 0.5 else street_across)(easel, scene, light, random, horizon)


def skyline(easel: Easel, scene: Scene, light: Light, random: Random, horizon: float) -> None:
    """Distant towers in the haze."""
    x = -5.0
    while x < 260:
        wide, tall = random.uniform(14, 30), random.uniform(30, 95)
        wall = random.choice(WALLS)
        easel.fill(box(x, horizon - tall, x + wide, horizon + 30), light.lit(wall, 0.7))
        easel.fill(box(x if light.side > 0 else x + wide * 0.6, horizon - tall, x + wide * 0.4 if light.side > 0
                       else x + wide, horizon + 30),
                   light.lit(times(wall, 0.7), 0.7), 0.7)
        if light.lamps > 0.5:
            for _ in range(8):
                wx, wy = x + random.uniform(2, wide - 3), horizon - random.uniform(0, tall - 4)
                easel.fill(box(wx, wy, wx + 2, wy + 2.5), LAMP, 0.8 * light.lamps)
        x += wide * random.uniform(0.8, 1.1)


def street_across(easel: Easel, scene: Scene, light: Light, random: Random, horizon: float) -> None:
    """A row of houses seen from the front, a pavement and a road."""
    foot, x = 196.0, random.uniform(-40, -5)
    while x < 258:
        wide, floors = random.uniform(44, 70), random.randint(2, 4)
        tall = floors * 30 + 14
        wall = random.choice(WALLS)
        easel.blend(box(x, foot - tall, x + wide, foot), (x, 0), (x + wide, 0), [light.lit(times(wall, k), 0.05)
                for k in ((0.82, 1.05) if light.side > 0 else (1.05, 0.82))])
        if random.random() < 0.5:
            roof = random.choice(((0.52, 0.26, 0.22), (0.36, 0.36, 0.42)))
            easel.fill(polygon([(x - 3, foot - tall), (x + 7, foot - tall - 18), (x + wide - 7, foot - tall - 18),
                                (x + wide + 3, foot - tall)]),
                       light.lit(SNOW if scene.season == "winter" else roof, 0.05))
        else:
            easel.fill(box(x - 1.5, foot - tall - 4, x + wide + 1.5, foot - tall + 2),
                       light.lit(SNOW if scene.season == "winter" else times(wall, 0.72), 0.05))
        columns = max(2, int(wide // 17))
        for row in range(floors - 1):
            for column in range(columns):
                wx, wy = x + wide * (column + 0.5) / columns, foot - tall + 10 + row * 30
                window(easel, light, wx - 4.5, wy, 9, 15, random)
        if random.random() < 0.5:  # a shop
            easel.fill(box(x + 5, foot - 24, x + wide - 18, foot - 4), mix(light.lit((0.45, 0.58, 0.66)), LAMP,
                    light.lamps * 0.9))
            awning = random.choice(((0.80, 0.20, 0.18), (0.20, 0.45, 0.30), (0.20, 0.34, 0.62), (0.92, 0.72, 0.25)))
            easel.fill(polygon([(x + 4, foot - 30), (x + wide - 16, foot - 30), (x + wide - 13, foot - 21),
                                (x + 1, foot - 21)]), light.lit(awning))
        else:
            window(easel, light, x + 8, foot - 24, 11, 14, random)
        easel.fill(box(x + wide - 14, foot - 24, x + wide - 5, foot), light.lit((0.36, 0.24, 0.18)))
        x += wide + random.choice((0, 0, 3))
    snowy = scene.season == "winter"
    easel.blend(box(-2, foot, 258, 214), (0, foot), (0, 214),
                [light.lit(c) for c in ((SNOW, (0.86, 0.89, 0.95)) if snowy else ((0.66, 0.64, 0.62),
                        (0.76, 0.74, 0.71)))])
    easel.fill(box(-2, 213, 258, 216), light.lit((0.50, 0.49, 0.50)))
    road = box(-2, 216, 258, 258)
    easel.blend(road, (0, 216), (0, 256), [light.lit(c) for c in ((0.36, 0.36, 0.40), (0.25, 0.25, 0.29))])
    wet(easel, scene, light, road, random)
    start = random.uniform(-40, 0)
    for n in range(6):
        easel.fill(polygon([(start + n * 60, 234), (start + n * 60 + 30, 234), (start + n * 60 + 29, 238),
                            (start + n * 60 - 2, 238)]), light.lit((0.94, 0.92, 0.84)))
    for x in (random.uniform(10, 60), random.uniform(190, 246))[:random.randint(0, 2)]:
        lamp_post(easel, light, x, 210, 66) if random.random() < 0.5 else leafy_tree(easel, scene, light, x, 209, 58,
                0.0, random)


def window(easel: Easel, light: Light, x: float, y: float, wide: float, tall: float, random: Random) -> None:
    awake = light.lamps * (random.random() < 0.65)
    easel.fill(box(x - 1, y - 1, x + wide + 1, y + tall + 1), light.lit((0.90, 0.88, 0.84), 0.05))
    easel.fill(box(x, y, x + wide, y + tall), mix(light.lit(GLASS, 0.1), LAMP, awake))
    easel.fill(polygon([(x, y), (x + wide * 0.7, y), (x, y + tall * 0.6)]), mix(light.lit((0.62, 0.74, 0.86), 0.1),
            LAMP, awake), 0.6)


def lamp_post(easel: Easel, light: Light, x: float, foot: float, tall: float) -> None:
    easel.stroke(polygon([(x, foot), (x, foot - tall)]), light.lit((0.16, 0.18, 0.20)), tall * 0.035)
    if light.lamps:
        easel.glow(x, foot - tall, tall * 0.5, LAMP, 0.7 * light.lamps)
    easel.fill(oval(x, foot - tall, tall * 0.055, tall * 0.07), mix(light.lit((0.85, 0.86, 0.84)), (1.0, 0.93, 0.70),
                                                                    light.lamps))


def wet(easel: Easel, scene: Scene, light: Light, road: skia.Path, random: Random) -> None:
    """Snow at the edges of a road, puddles after rain, worn asphalt otherwise."""
    if scene.weather == "rain":
        easel.speckle(road, light.lit(mix(light.low, (1, 1, 1), 0.2)), 0.75, random.getrandbits(15), 60, 9, gain=6)
    elif scene.season == "winter":
        easel.speckle(road, light.lit(SNOW), 0.8, random.getrandbits(15), 70, 8, gain=5)
    else:
        easel.speckle(road, light.lit((0.14, 0.14, 0.17)), 0.4, random.getrandbits(15), 50, 10)


def street_ahead(easel: Easel, scene: Scene, light: Light, random: Random, horizon: float) -> None:
    """A street that leads away from the viewer between two rows of houses."""
    vx, vy, snowy = random.uniform(108, 148), horizon, scene.season == "winter"
    ground = box(-2, vy, 258, 258)
    easel.blend(ground, (0, vy), (0, 256), [light.lit(SNOW if snowy else (0.72, 0.70, 0.68), away)
                                            for away in (0.5, 0.0)])
    road = polygon([(vx - 3, vy), (vx + 3, vy), (vx + 118, 258), (vx - 118, 258)])
    easel.blend(road, (0, vy), (0, 256), [light.lit((0.34, 0.34, 0.38), away) for away in (0.6, 0.0)])
    with easel.inside(road):
        wet(easel, scene, light, box(-2, vy + 10, 258, 258), random)
    for n in range(6):
        near, far = 0.08 * 1.75 ** n, 0.08 * 1.75 ** n * 1.35
        easel.fill(polygon([(vx - 2.5 * near, vy + (256 - vy) * near), (vx + 2.5 * near, vy + (256 - vy) * near),
                            (vx + 2.5 * far, vy + (256 - vy) * far),
                            (vx - 2.5 * far, vy + (256 - vy) * far)]), light.lit((0.94, 0.92, 0.84)))
    for side in (-1, 1):
        walls = sorted((random.uniform(0.85, 1.05) * step for step in (0.16, 0.27, 0.45, 0.76, 1.3, 2.2)))
        for far, near in zip(walls, walls[1:]):  # depth: 1 is where the wall would leave the picture at the foot
            facade(easel, scene, light, random, side, vx, vy, far, near)
    for side in (-1, 1):
        if random.random() < 0.6:
            lamp_post(easel, light, vx + side * 104, 222, 118)


def facade(easel: Easel, scene: Scene, light: Light, random: Random, side: int, vx: float, vy: float, far: float,
           near: float) -> None:
    """One house of a street that runs away, in perspective from depth `far` to `near`."""
    floors, wall = random.randint(3, 5), random.choice(WALLS)
    reach, foot, top = 150.0, 74.0, 48.0 * floors
    away = max(0.0, 0.5 - far * 0.6)
    paint = light.lit(times(wall, 1.05 if light.side != side else 0.74), away)

    def at(depth: float, height: float) -> tuple[float, float]:
        return vx + side * reach * depth, vy + foot * depth - (top + foot) * depth * height

    easel.fill(polygon([at(far, 0), at(far, 1), at(near, 1), at(near, 0)]), paint)
    trim = light.lit(SNOW if scene.season == "winter" else times(wall, 0.6), away)
    easel.fill(polygon([at(far, 0.97), at(far, 1.02), at(near, 1.02), at(near, 0.97)]), trim)
    columns = 3
    for column in range(columns):
        a, b = (far + (near - far) * (column + k) / columns for k in (0.25, 0.75))
        for row in range(floors):
            low, high = (row + 0.28) / floors, (row + 0.74) / floors
            awake = light.lamps * (random.random() < 0.6)
            easel.fill(polygon([at(a, low), at(a, high), at(b, high), at(b, low)]), mix(light.lit(GLASS, away), LAMP,
                    awake))


def cottage(easel: Easel, scene: Scene, light: Light, x: float, foot: float, tall: float, away: float,
            random: Random) -> None:
    """A small house in the distance, its gable to the right or left."""
    wall, roof = random.choice(((0.93, 0.90, 0.84), (0.86, 0.70, 0.52), (0.80, 0.46, 0.38),
                                (0.74, 0.78, 0.82))), random.choice(
        ((0.62, 0.26, 0.20), (0.46, 0.32, 0.26), (0.34, 0.36, 0.44)))
    cover = SNOW if scene.season == "winter" else roof
    with easel.moved(x, foot, tall, mirrored=random.random() < 0.5):
        bright, dark = light.lit(wall, away), light.lit(times(wall, 0.74), away)
        easel.fill(polygon([(-0.9, 0), (-0.9, -0.55), (0.35, -0.55), (0.35, 0)]), bright)
        easel.fill(polygon([(0.35, 0), (0.35, -0.55), (0.65, -1.0), (0.95, -0.55), (0.95, 0)]), dark)
        easel.fill(polygon([(-1.0, -0.5), (-0.7, -1.02), (0.66, -1.02), (0.32, -0.5)]), light.lit(cover, away))
        easel.fill(polygon([(0.62, -1.05), (0.70, -1.05), (1.02, -0.5), (0.93, -0.46)]),
                   light.lit(times(cover, 0.7), away))
        pane = mix(light.lit(GLASS, away), LAMP, light.lamps)
        for wx in (-0.7, -0.15):
            easel.fill(box(wx, -0.42, wx + 0.22, -0.18), pane)
        easel.fill(box(0.56, -0.36, 0.76, 0), light.lit((0.36, 0.22, 0.14), away))


def paint_village(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("village")
    land(easel, smooth(ridge(random, horizon - 24, horizon - 6, 4)), light, FAR[scene.season],
         times(FAR[scene.season], 0.8), 0.65)
    treeline(easel, scene, light, random, lambda x: horizon + 2, 18, 0.5, pointed=random.random() < 0.5, spread=0.6)
    paint_fog(easel, scene, light, horizon)
    body = land(easel, smooth(ridge(random, horizon - 4, horizon + 4, 4)), light, FAR[scene.season],
                NEAR[scene.season], 0.15)
    grass(easel, body, scene, light, random)
    if random.random() < 0.6:  # a church
        x, foot, tall = random.uniform(70, 186), horizon + 10, 50
        easel.fill(box(x - 7, foot - tall * 0.7, x + 7, foot), light.lit((0.90, 0.88, 0.82), 0.25))
        easel.fill(box(x - 7 if light.side > 0 else x + 1, foot - tall * 0.7, x - 1 if light.side > 0 else x + 7,
                       foot), light.lit((0.66, 0.66, 0.66), 0.25))
        easel.fill(polygon([(x - 9, foot - tall * 0.68), (x, foot - tall * 1.25), (x + 9, foot - tall * 0.68)]),
                   light.lit((0.36, 0.40, 0.46), 0.25))
        easel.fill(box(x - 2, foot - tall * 0.55, x + 2, foot - tall * 0.4), mix(light.lit(GLASS, 0.2), LAMP,
                light.lamps))
    path_to(easel, light, random, horizon + 8, (0.93, 0.94, 0.98) if scene.season == "winter" else (0.78, 0.67, 0.50),
            wide=60)
    for foot, tall, count, away in ((horizon + 10, 15, 6, 0.3), (horizon + 22, 23, 4, 0.15)):
        for n in range(count):
            x = 256 * (n + random.uniform(0.15, 0.85)) / count
            if away > 0.2 or abs(x - 128) > 36:
                cottage(easel, scene, light, x, foot + random.uniform(-3, 3), tall, away, random)
                if random.random() < 0.5:
                    leafy_tree(easel, scene, light, x + tall * 1.5, foot + 2, tall * 1.3, away, random)
    for x in (random.uniform(10, 34), random.uniform(222, 246)):
        cottage(easel, scene, light, x, horizon + random.uniform(46, 56), random.uniform(42, 52), 0.0, random)
    flowers(easel, scene, light, random, horizon + 60, 30)
    for _ in range(10):
        y = random.uniform(horizon + 50, 254)
        tuft(easel, scene, light, random.uniform(0, 256), y, 3 + (y - horizon) * 0.05, random)


def paint_lake(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    """Hills or mountains reflected in the water."""
    random = scene.lot("lake")
    if random.random() < 0.6:
        mountain_range(easel, light, random, horizon, random.uniform(60, 90), 4, 0.5, (0.44, 0.48, 0.58), snow=0.36
                       if random.random() < 0.7 else 0.0)
    land(easel, smooth(ridge(random, horizon - 20, horizon - 3, 4)), light, times(FAR[scene.season], 0.8),
         NEAR[scene.season], 0.35, horizon)
    treeline(easel, scene, light, random, lambda x: horizon + 1, random.uniform(20, 34), 0.28,
             pointed=random.random() < 0.6, spread=0.8)
    paint_fog(easel, scene, light, horizon)
    shore = horizon + 2
    above = easel.snapshot()
    easel.canvas.save()
    easel.canvas.clipRect(skia.Rect.MakeLTRB(-2, shore, 258, 258))
    easel.canvas.translate(0, 2 * shore)
    easel.canvas.scale(1, -1)
    easel.canvas.scale(UNITS / easel.pixels, UNITS / easel.pixels)
    easel.canvas.drawImage(above, 0, 0, skia.SamplingOptions(skia.FilterMode.kLinear),
                           skia.Paint(ImageFilter=skia.ImageFilters.Blur(0.7 * easel.pixels / 256,
                                   1.6 * easel.pixels / 256, skia.TileMode.kClamp)))
    easel.canvas.restore()
    deep = mix(light.top, times((0.08, 0.36, 0.48), light.tint), 0.6)
    easel.blend(box(-2, shore, 258, 258), (0, shore), (0, 236), (deep, deep), (0.18, 0.62))
    with easel.inside(box(-2, shore, 258, 258)):
        for _ in range(30):
            depth = random.random() ** 1.4
            y = shore + 3 + (236 - shore) * depth
            easel.fill(oval(random.uniform(0, 256), y, 8 + 30 * depth * random.random(), 0.5 + 1.2 * depth),
                       mix(light.low, (1, 1, 1), 0.2), 0.35)
        if scene.sky_body in ("sun", "moon"):
            for n in range(16):
                y = shore + 2 + 75 * (n + random.random()) / 16
                easel.fill(oval(light.x + random.uniform(-6, 6), y, random.uniform(5, 15), 1.1),
                           mix(light.low, (1, 0.97, 0.86), 0.7), 0.7)
    easel.fill(box(-2, shore - 1.2, 258, shore + 0.8), light.lit((0.80, 0.76, 0.62), 0.35), 0.6)
    lift = random.uniform(-16, 16)
    bank = smooth([(x, 222 + lift * (x - 128) / 128 + random.uniform(-4, 4)) for x in range(-32, 300, 36)])
    easel.stroke(bank, light.lit((0.80, 0.76, 0.62)), 4)
    body = land(easel, bank, light, FAR[scene.season], NEAR[scene.season], 0.0)
    grass(easel, body, scene, light, random)
    for _ in range(random.randint(0, 3)):
        rock(easel, light, random.choice((random.uniform(0, 60), random.uniform(196, 256))), random.uniform(226, 250),
             random.uniform(4, 10), random)
    if random.random() < 0.5:  # reeds
        x = random.choice((random.uniform(0, 40), random.uniform(216, 256)))
        for _ in range(9):
            rx, tall = x + random.uniform(-14, 14), random.uniform(20, 40)
            easel.stroke(polygon([(rx, 232), (rx + random.uniform(-3, 3), 232 - tall)]), light.lit((0.34, 0.46, 0.20)),
                         1.3)
            easel.stroke(polygon([(rx + 0.5, 232 - tall), (rx + 0.5, 232 - tall * 0.8)]),
                         light.lit((0.42, 0.26, 0.14)), 2.6)
    flowers(easel, scene, light, random, 230, 18)


Painter = Callable[[Easel, Scene, Light, float], None]
PLACES: dict[str, Painter] = dict(forest=paint_forest, mountains=paint_mountains, sea=paint_sea, desert=paint_desert,
                                  meadow=paint_meadow, city=paint_city, lake=paint_lake, village=paint_village)
