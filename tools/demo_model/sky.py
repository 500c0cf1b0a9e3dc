"""Sky and weather: gradients, sun, moon, stars, four kinds of cloud, fog, rain and snow."""
from __future__ import annotations

from random import Random

import skia

from tools.demo_model.easel import UNITS, Easel, box, mix, oval, polygon, times
from tools.demo_model.light import Light
from tools.demo_model.scenes import Scene

ALL = box(0, 0, UNITS, UNITS)


def paint_sky(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    easel.blend(ALL, (0, 0), (0, horizon), (light.top, light.mid, light.low), at=(0.0, 0.55, 1.0))
    random = scene.lot("sky")
    if scene.sky_body in ("moon", "stars"):
        for _ in range(70 if scene.sky_body == "stars" else 28):
            x, y, size = random.uniform(0, 256), random.uniform(0, horizon * 0.85), random.uniform(0.5, 1.5)
            easel.fill(oval(x, y, size, size), (1, 0.98, 0.88), random.uniform(0.6, 1.0))
    if scene.sky_body == "sun":
        warm = mix((1.0, 0.95, 0.72), (1.0, 0.80, 0.45), light.lamps)
        easel.glow(light.x, light.y, 120, warm, 0.75)
        easel.fill(oval(light.x, light.y, 16, 16), mix(warm, (1, 1, 1), 0.4))
    elif scene.sky_body == "moon":
        easel.glow(light.x, light.y, 80, (0.60, 0.68, 0.92), 0.6)
        crescent = random.random() < 0.5
        bite = oval(light.x + 8, light.y - 5, 13.5, 13.5) if crescent else skia.Path()
        easel.fill(skia.Op(oval(light.x, light.y, 15, 15), bite, skia.PathOp.kDifference_PathOp), (0.97, 0.95, 0.85))
        if not crescent:
            for dx, dy, size in ((-5, -3, 3.0), (4, 4, 4.0), (3, -7, 2.0)):
                easel.fill(oval(light.x + dx, light.y + dy, size, size), (0.84, 0.83, 0.76))
    paint_clouds(easel, scene, light, horizon)


def paint_clouds(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    random = scene.lot("clouds")
    if scene.weather in ("cloudy", "rain", "snow"):
        with easel.inside(box(0, 0, UNITS, horizon)):
            easel.speckle(ALL, light.cloud_shade, 0.9, random.getrandbits(15), 130, 40, octaves=3, gain=3, level=0.35)
        for n in range(random.randint(4, 6)):
            cumulus(easel, light, random.uniform(-10, 266), random.uniform(18, horizon * 0.55), random.uniform(30, 52),
                    random)
    elif scene.weather == "clear":
        kind = random.choices(("none", "puffs", "wisps", "bands"), (1, 3, 1, 1))[0]
        few = scene.sky_body == "stars" or scene.sky_body == "moon"
        if kind == "puffs" and not few:
            for n in range(random.randint(1, 3)):
                cumulus(easel, light, random.uniform(0, 256), random.uniform(24, horizon * 0.6),
                        random.uniform(18, 36), random)
        elif kind == "wisps" and not few:
            for n in range(random.randint(3, 6)):
                x, y, long = random.uniform(0, 256), random.uniform(15, horizon * 0.6), random.uniform(30, 60)
                easel.fill(oval(x, y, long, 3), light.cloud, 0.5, blur=3)
                easel.fill(oval(x + long * 0.4, y + 5, long * 0.6, 2), light.cloud, 0.4, blur=2.5)
        elif kind == "bands":
            for n in range(random.randint(2, 4)):
                y, thick = horizon - random.uniform(8, 60), random.uniform(2, 5)
                easel.fill(oval(random.uniform(0, 256), y, random.uniform(50, 130), thick), light.cloud_shade, 0.75,
                           blur=1.5)
                easel.fill(oval(random.uniform(0, 256), y + thick * 0.7, random.uniform(30, 70), 1.5), light.cloud,
                           0.7, blur=1)


def cumulus(easel: Easel, light: Light, x: float, y: float, wide: float, random: Random) -> None:
    """A cumulus cloud: puffs over a flat base, bright towards the light."""
    puffs = [(x + wide * dx * random.uniform(0.85, 1.1), y - wide * dy * random.uniform(0.8, 1.2), wide * size)
             for dx, dy, size in ((-0.75, 0.05, 0.24), (-0.38, 0.20, 0.36), (0.05, 0.32, 0.42), (0.45, 0.18, 0.34),
                                  (0.8, 0.05, 0.22))]
    with easel.inside(box(x - wide * 1.4, y - wide * 1.2, x + wide * 1.4, y + wide * 0.12)):
        for px, py, size in puffs:
            easel.fill(oval(px, py, size * 1.12, size), light.cloud_shade)
        for px, py, size in puffs:
            easel.fill(oval(px + light.side * size * 0.10, py - size * 0.14, size * 1.04, size * 0.92), light.cloud)


def paint_fog(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    """Fog that thins out towards the viewer; drawn before near things."""
    if light.fog:
        easel.blend(ALL, (0, horizon - 90), (0, 250), (light.low, light.low, light.low), (0.35, 0.86, 0.10),
                    (0.0, 0.5, 1.0))


def paint_weather(easel: Easel, scene: Scene, light: Light, horizon: float) -> None:
    """Weather in front of everything."""
    random = scene.lot("weather")
    if scene.weather == "fog":
        easel.blend(ALL, (0, horizon - 40), (0, 256), (light.low, light.low, light.low), (0.20, 0.36, 0.10),
                    (0.0, 0.4, 1.0))
        easel.speckle(ALL, light.low, 0.5, random.getrandbits(15), 160, 40)
    elif scene.weather == "rain":
        slant = random.uniform(-0.35, 0.35)
        pale = mix(light.low, (1, 1, 1), 0.45)
        for _ in range(85):
            x, y, long = random.uniform(-20, 276), random.uniform(-10, 256), random.uniform(9, 20)
            easel.stroke(polygon([(x, y), (x + slant * long, y + long)]), pale, random.uniform(0.8, 1.6), 0.6)
    elif scene.weather == "snow":
        white = mix(times((1, 1, 1), light.tint), (1, 1, 1), 0.55)
        for _ in range(110):
            size = random.choice((1.0, 1.3, 1.8, 2.6))
            easel.fill(oval(random.uniform(0, 256), random.uniform(0, 256), size, size), white, 0.95)
