"""The ground of a scene: eight places, painted from the horizon to the foreground."""
from __future__ import annotations

from collections.abc import Callable
from random import Random

import skia

from tools.demo_model.easel import UNITS, Colour, Easel, Spot, box, mix, oval, polygon, smooth, times, under
from tools.demo_model.light import Light
from tools.demo_model.plants import bush, conifer, leafy_tree, palm, tuft
from tools.demo_model.scenes import Scene
from tools.demo_model.sky import paint_fog

NEAR = {"summer": (0.24, 0.48, 0.15), "autumn": (0.54, 0.38, 0.15), "winter": (0.84, 0.89, 0.97),
        "spring": (0.36, 0.64, 0.22)}
FAR = {"summer": (0.52, 0.72, 0.32), "autumn": (0.78, 0.62, 0.28), "winter": (0.95, 0.97, 1.00),
       "spring": (0.66, 0.83, 0.42)}
WATER = (0.06, 0.36, 0.56)
SAND = (0.90, 0.77, 0.53)


def ridge(random: Random, top: float, foot: float, bumps: int, *, rough: float = 0.0) -> list[Spot]:
    """A line of hills from edge to edge, between the heights `top` and `foot`."""
    xs = [-20 + 296 * n / bumps for n in range(bumps + 1)]
    return [(x + random.uniform(-0.25, 0.25) * 296 / bumps, random.uniform(top, foot) + rough * random.uniform(-1, 1))
            for x in xs]


def land(easel: Easel, curve: skia.Path, light: Light, far: Colour, near: Colour, away: float,
         foot: float = UNITS) -> skia.Path:
    """Fill below the curve, lit at the top; returns the path."""
    body, top = under(curve), curve.getBounds().top()
    easel.blend(body, (0, top), (0, foot), (light.lit(far, away), light.lit(near, away * 0.5)))
    return body


def grass(easel: Easel, body: skia.Path, scene: Scene, light: Light, random: Random, strength: float = 1.0) -> None:
    """Patches of light and dark on a meadow."""
    snowy = scene.season == "winter"
    dark, pale = light.lit(times(NEAR[scene.season], 0.72)), light.lit(mix(FAR[scene.season], (1, 1, 0.8), 0.2))
    easel.speckle(body, dark, (0.25 if snowy else 0.5) * strength, random.getrandbits(15), 60, 14)
    easel.speckle(body, pale, (0.25 if snowy else 0.45) * strength, random.getrandbits(15), 44, 10)


def path_to(easel: Easel, light: Light, random: Random, horizon: float, colour: Colour, *, wide: float = 46) -> None:
    """A path that winds from the foreground to the horizon, getting narrower."""
    start, end = random.uniform(70, 186), random.uniform(90, 166)
    bend = random.uniform(-60, 60)
    left, right = [], []
    for n in range(9):
        part = n / 8
        depth = (1 - part) ** 1.8
        y = horizon + 3 + (258 - horizon) * depth
        x = start * depth + end * (1 - depth) + bend * depth * (1 - depth) * 2
        half = 1.0 + wide / 2 * depth
        left.append((x - half, y)), right.append((x + half, y))
    curve = polygon([*left, *reversed(right)])
    easel.blend(curve, (0, horizon), (0, 256), (light.lit(colour, 0.35), light.lit(colour)))
    easel.stroke(smooth(left), light.lit(times(colour, 0.74)), 1.6, 0.6)


def flowers(easel: Easel, scene: Scene, light: Light, random: Random, top: float, count: int = 70) -> None:
    if scene.season == "winter":
        return
    petals = {"summer": ((0.98, 0.88, 0.30), (0.95, 0.30, 0.25), (1, 1, 1)), "autumn": ((0.75, 0.30, 0.12),
            (0.90, 0.60, 0.18)),
              "spring": ((1.0, 1.0, 1.0), (0.98, 0.55, 0.75), (0.75, 0.55, 0.95))}[scene.season]
    own = random.choice(petals)
    for _ in range(count):
        depth = random.random() ** 0.7
        x, y = random.uniform(0, 256), top + (256 - top) * depth
        size = 0.8 + 2.4 * depth
        easel.fill(oval(x, y, size, size * 0.8), light.lit(own if random.random() < 0.75 else random.choice(petals)))


def mountain_range(easel: Easel, light: Light, random: Random, horizon: float, height: float, peaks: int, away: float,
                   rock: Colour, *, snow: float) -> None:
    """Peaks with a lit and a shaded flank; the uppermost part, `snow` of the height, is white."""
    step = 310 / peaks
    spots = [(-27 + step * (n + random.uniform(0.2, 0.8)), horizon - height * random.uniform(0.62, 1.0))
             for n in range(peaks)]
    spots.sort(key=lambda spot: spot[1], reverse=False)
    bright, dark = light.lit(times(rock, 1.15), away), light.lit(times(rock, 0.70), away)
    white, shaded = light.lit((0.98, 0.98, 1.0), away * 0.7), light.lit((0.68, 0.74, 0.88), away * 0.8)
    for x, top in spots:
        tall = horizon + 6 - top
        half = tall * random.uniform(0.80, 1.15)
        keel = [(x, top), (x + tall * random.uniform(-0.10, 0.10), top + tall * 0.35),
                (x + tall * random.uniform(-0.14, 0.14), top + tall * 0.7), (x + tall * random.uniform(-0.2, 0.2),
                        horizon + 6)]
        flanks = {side: [(x, top), (x + side * half * 0.30, top + tall * random.uniform(0.24, 0.34)),
                         (x + side * half * 0.62, top + tall * random.uniform(0.54, 0.70)), (x + side * half,
                                 horizon + 6)]
                  for side in (-1, 1)}
        whole = polygon([*reversed(flanks[-1]), *flanks[1][1:]])
        easel.fill(whole, bright)
        with easel.inside(polygon([*flanks[-light.side], *reversed(keel)])):
            easel.fill(whole, dark)
        with easel.inside(whole):
            cap = top + tall * snow
            teeth = [(x - half + 2 * half * n / 12, cap + tall * (0.13 if n % 2 else -0.05) * random.uniform(0.5,
                    1.2)) for n in range(13)]
            cover = polygon([(x - half, top - 2), *teeth, (x + half, top - 2)])
            if snow:
                easel.fill(cover, white)
                with easel.inside(polygon([*flanks[-light.side], *reversed(keel)])):
                    easel.fill(cover, shaded)


def treeline(easel: Easel, scene: Scene, light: Light, random: Random, foot: Callable[[float], float], height: float,
             away: float,
             *, pointed: bool, spread: float = 0.8, clear: tuple[float, float] | None = None) -> None:
    """A row of trees of about that height whose feet stand at `foot(x)`, none within `clear`."""
    x = random.uniform(-10, 0)
    while x < 266:
        tall = height * random.uniform(0.7, 1.1)
        if not clear or not clear[0] < x < clear[1]:
            (conifer if pointed else leafy_tree)(easel, scene, light, x, foot(x), tall, away, random)
        x += tall * (0.34 if pointed else 0.52) * random.uniform(0.7, 1.3) / spread


def paint_forest(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("forest")
    pointed = random.random() < 0.6
    treeline(easel, scene, light, random, lambda x: horizon + 4, 52, 0.85, pointed=pointed)
    treeline(easel, scene, light, random, lambda x: horizon + 8, 70, 0.45, pointed=pointed)
    paint_fog(easel, scene, light, horizon)
    edge = smooth(ridge(random, horizon + 3, horizon + 8, 5))
    body = land(easel, edge, light, times(FAR[scene.season], 0.80), times(NEAR[scene.season], 0.72), 0.25)
    grass(easel, body, scene, light, random)
    if random.random() < 0.7:
        path_to(easel, light, random, horizon + 6, (0.93, 0.94, 0.98) if scene.season == "winter"
                else (0.62, 0.50, 0.34))
    treeline(easel, scene, light, random, lambda x: horizon + 14 + abs(x - 128) * 0.06, 92, 0.18, pointed=pointed,
             spread=0.6, clear=(84, 172))
    for x, foot, tall in ((random.uniform(-6, 18), 222, 190), (random.uniform(238, 262), 216, 180),
                          (random.uniform(24, 46), 196, 130),
                          (random.uniform(212, 232), 194, 128)):
        (conifer if pointed else leafy_tree)(easel, scene, light, x, foot, tall, 0.0, random)
    for _ in range(14):
        y = random.uniform(horizon + 30, 250)
        tuft(easel, scene, light, random.uniform(0, 256), y, 3 + (y - horizon) * 0.06, random)


def paint_mountains(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("mountains")
    snowy = scene.season == "winter"
    mountain_range(easel, light, random, horizon, random.uniform(85, 112), 4, 0.55, (0.46, 0.49, 0.62), snow=0.55
                   if snowy else 0.38)
    paint_fog(easel, scene, light, horizon)
    mountain_range(easel, light, random, horizon + 2, random.uniform(44, 62), 6, 0.28, (0.42, 0.44, 0.46), snow=0.5
                   if snowy else 0.0)
    hills = ridge(random, horizon - 12, horizon + 2, 5)
    land(easel, smooth(hills), light, times(FAR[scene.season], 0.8), times(NEAR[scene.season], 0.9), 0.22)
    treeline(easel, scene, light, random, lambda x: horizon + 7, 22, 0.25, pointed=True, spread=0.5)
    body = land(easel, smooth(ridge(random, horizon + 5, horizon + 16, 4)), light, FAR[scene.season],
                NEAR[scene.season], 0.08)
    grass(easel, body, scene, light, random)
    if random.random() < 0.4:
        path_to(easel, light, random, horizon + 14, (0.93, 0.94, 0.98) if snowy else (0.70, 0.60, 0.44), wide=38)
    for _ in range(random.randint(2, 5)):
        x, y = random.choice((random.uniform(0, 70), random.uniform(186, 256))), random.uniform(horizon + 24, 235)
        rock(easel, light, x, y, (y - horizon) * 0.16 + 3, random)
    for x in (random.uniform(4, 40), random.uniform(216, 252))[:random.randint(1, 2)]:
        conifer(easel, scene, light, x, horizon + random.uniform(28, 46), random.uniform(50, 80), 0.05, random)
    flowers(easel, scene, light, random, horizon + 40, 30)


def rock(easel: Easel, light: Light, x: float, foot: float, size: float, random: Random) -> None:
    easel.fill(oval(x - light.side * size * 0.5, foot, size * 1.3, size * 0.25), (0, 0, 0.05), light.shadow * 0.8,
               blur=1)
    shape = [(x - size, foot), (x - size * 0.7, foot - size * random.uniform(0.5, 0.8)),
             (x - size * 0.1, foot - size * random.uniform(0.8, 1.1)),
             (x + size * 0.6, foot - size * random.uniform(0.5, 0.8)), (x + size, foot)]
    easel.fill(polygon(shape), light.lit((0.62, 0.61, 0.60)))
    far = shape[:3] if light.side > 0 else shape[2:]
    easel.fill(polygon([*far, (x + size * 0.1 * light.side, foot)]), light.lit((0.40, 0.40, 0.43)))


def water(easel: Easel, scene: Scene, light: Light, top: float, foot: float, random: Random) -> skia.Path:
    """Water with waves that grow towards the viewer, and reflected light below the sun."""
    sheet = box(-2, top, 258, foot)
    deep = mix(light.top, times(WATER, light.tint), 0.62)
    easel.blend(sheet, (0, top), (0, foot), (mix(light.low, deep, 0.45), deep, times(deep, 0.85)), at=(0, 0.45, 1))
    with easel.inside(sheet):
        for n in range(46):
            depth = random.random() ** 1.6
            y = top + 2 + (foot - top) * depth
            long, thick = 5 + 26 * depth * random.random() + 4, 0.5 + 2.0 * depth
            tone = mix(light.low, (1, 1, 1), 0.2) if random.random() < 0.6 else times(deep, 0.7)
            easel.fill(oval(random.uniform(0, 256), y, long, thick), tone, 0.38)
        if scene.sky_body in ("sun", "moon"):
            shine = mix(light.low, (1, 0.97, 0.86), 0.7)
            for n in range(26):
                depth = (n + random.random()) / 26
                y = top + 1 + (foot - top) * depth
                wide = (4 + 18 * depth) * random.uniform(0.5, 1.2)
                easel.fill(oval(light.x + random.uniform(-1, 1) * (2 + 12 * depth), y, wide, 0.7 + 1.3 * depth), shine,
                           0.72)
    return sheet


def paint_sea(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("sea")
    if random.random() < 0.5:  # an island or a cape
        x, wide = random.uniform(0, 256), random.uniform(40, 90)
        island = smooth([(x - wide, horizon + 2), (x - wide * 0.5, horizon - 10),
                         (x, horizon - random.uniform(10, 26)), (x + wide * 0.6, horizon - 8),
                         (x + wide, horizon + 2)])
        easel.fill(under(island, horizon + 2), light.lit((0.36, 0.50, 0.40), 0.65))
    paint_fog(easel, scene, light, horizon)
    water(easel, scene, light, horizon, 262, random)
    lift = random.uniform(-22, 22)
    shore = [(x, 214 + lift * (x - 128) / 128 + random.uniform(-4, 4)) for x in range(-32, 300, 32)]
    foam = smooth([(x, y - 5) for x, y in shore])
    easel.stroke(foam, light.lit((0.62, 0.84, 0.86), 0.05), 10, 0.55, blur=1.5)
    easel.stroke(smooth([(x, y - 2) for x, y in shore]), light.lit((0.97, 0.98, 1.0), 0.05), 5)
    body = land(easel, smooth(shore), light, times(SAND, 0.84), SAND, 0.0)
    easel.speckle(body, light.lit(times(SAND, 0.78)), 0.4, random.getrandbits(15), 50, 12)
    easel.speckle(body, light.lit(mix(SAND, (1, 1, 1), 0.3)), 0.4, random.getrandbits(15), 40, 9)
    if random.random() < 0.4:
        x = random.choice((random.uniform(8, 44), random.uniform(212, 248)))
        palm(easel, light, x, 236, random.uniform(120, 165), 1 if x < 128 else -1, random)
    for _ in range(random.randint(0, 4)):
        rock(easel, light, random.choice((random.uniform(0, 60), random.uniform(196, 256))), random.uniform(222, 250),
             random.uniform(4, 11), random)


def paint_desert(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("desert")
    if random.random() < 0.5:  # table mountains
        for _ in range(random.randint(1, 3)):
            x, wide, tall = random.uniform(0, 256), random.uniform(18, 44), random.uniform(16, 36)
            mesa = polygon([(x - wide, horizon + 3), (x - wide * 0.72, horizon - tall * 0.45),
                            (x - wide * 0.62, horizon - tall),
                            (x + wide * 0.6, horizon - tall), (x + wide * 0.7, horizon - tall * 0.45), (x + wide,
                                    horizon + 3)])
            easel.fill(mesa, light.lit((0.76, 0.42, 0.28), 0.4))
            with easel.inside(mesa):
                left, right = (x + wide * 0.2, x + wide) if light.side < 0 else (x - wide, x - wide * 0.2)
                easel.fill(box(left, horizon - tall, right, horizon + 3), light.lit((0.50, 0.26, 0.20), 0.4), 0.6)
                easel.fill(box(x - wide, horizon - tall * 0.62, x + wide, horizon - tall * 0.5),
                           light.lit((0.9, 0.6, 0.4), 0.4), 0.7)
    paint_fog(easel, scene, light, horizon)
    for drop, height, away, sand in ((0, 26, 0.45, (0.95, 0.76, 0.48)), (24, 30, 0.2, (0.93, 0.69, 0.39)),
                                     (54, 30, 0.0, (0.91, 0.65, 0.34))):
        crest = ridge(random, horizon + drop - height * 0.5, horizon + drop + height * 0.5, 3)
        curve = smooth(crest)
        body = land(easel, curve, light, mix(sand, (1, 0.93, 0.75), 0.3), times(sand, 0.9), away)
        with easel.inside(body):  # the side away from the light
            for x, y in crest[1:-1]:
                reach = light.side * random.uniform(40, 70)
                easel.fill(smooth([(x, y - 1), (x - reach * 0.25, y + 18), (x - reach * 0.1, y + 46),
                                   (x - reach, y + 60), (x - reach * 1.5, y + 20),
                                   (x - reach * 0.7, y + 4)], closed=True), light.lit(times(sand, 0.74),
                                           away), 0.55, blur=1.2)
        easel.stroke(curve, light.lit(mix(sand, (1, 1, 0.9), 0.5), away), 1.4, 0.7)
    easel.speckle(under(curve), light.lit((0.70, 0.47, 0.24)), 0.35, random.getrandbits(15), 70, 8)
    for _ in range(random.randint(1, 4)):
        x = random.choice((random.uniform(8, 80), random.uniform(176, 248)))
        y = random.uniform(horizon + 22, 226)
        cactus(easel, light, x, y, (y - horizon) * 0.55 + 14)


def cactus(easel: Easel, light: Light, x: float, foot: float, tall: float) -> None:
    green, shade = light.lit((0.26, 0.52, 0.28)), light.lit((0.15, 0.35, 0.22))
    easel.fill(oval(x - light.side * tall * 0.35 * light.length, foot, tall * 0.4 * light.length, tall * 0.05),
               (0.1, 0.03, 0.05), light.shadow * 0.8, blur=1)
    for paint, dx in ((shade, 0.0), (green, light.side * 0.035)):
        with easel.moved(x + dx * tall, foot, tall):
            wide = 0.16 if paint is shade else 0.09
            arm = skia.Path()
            arm.moveTo(0, 0), arm.lineTo(0, -0.94)
            arm.moveTo(0, -0.36), arm.lineTo(0.26, -0.36), arm.lineTo(0.26, -0.66)
            arm.moveTo(0, -0.46), arm.lineTo(-0.24, -0.46), arm.lineTo(-0.24, -0.76)
            easel.stroke(arm, paint, wide)


def paint_meadow(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("meadow")
    pointed = random.random() < 0.3
    for drop, away in ((-8, 0.75), (4, 0.42)):
        crest = ridge(random, horizon + drop - 14, horizon + drop + 6, 4)
        body = land(easel, smooth(crest), light, FAR[scene.season], times(FAR[scene.season], 0.82), away)
        if random.random() < 0.5:  # fields in stripes
            with easel.inside(body):
                for n in range(5):
                    x = random.uniform(0, 256)
                    easel.fill(oval(x, horizon + drop + random.uniform(0, 10), random.uniform(20, 50),
                                    random.uniform(2, 5)),
                               light.lit(mix(FAR[scene.season], random.choice(((0.95, 0.85, 0.4), NEAR[scene.season])),
                                             0.5), away))
        for _ in range(random.randint(3, 8)):
            x, y = crest[random.randrange(1, len(crest) - 1)]
            bush_or_tree = bush if away > 0.6 else conifer if pointed else leafy_tree
            bush_or_tree(easel, scene, light, x + random.uniform(-30, 30), y + random.uniform(5, 12),
                         random.uniform(8, 13) * (1.6 - away), away, random)
        if away > 0.6:
            paint_fog(easel, scene, light, horizon)
    body = land(easel, smooth(ridge(random, horizon + 14, horizon + 26, 4)), light, FAR[scene.season],
                NEAR[scene.season], 0.05)
    grass(easel, body, scene, light, random)
    if random.random() < 0.45:
        path_to(easel, light, random, horizon + 22, (0.93, 0.94, 0.98) if scene.season == "winter"
                else (0.80, 0.68, 0.48), wide=40)
    if random.random() < 0.55:
        x = random.choice((random.uniform(-4, 36), random.uniform(220, 260)))
        (conifer if pointed else leafy_tree)(easel, scene, light, x, random.uniform(horizon + 34, 205),
                                             random.uniform(70, 120), 0.0, random)
    flowers(easel, scene, light, random, horizon + 30, random.choice((20, 60, 110)))
    for _ in range(20):
        y = random.uniform(horizon + 30, 254)
        tuft(easel, scene, light, random.uniform(0, 256), y, 3 + (y - horizon) * 0.05, random)
