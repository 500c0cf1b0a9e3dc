"""The things in scenes: each one unit tall, with its foot at (0, 0), y from 0 up to -1."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import skia

from tools.demo_model.animals import bird, cat, dog, horse, person, snowman
from tools.demo_model.easel import UNITS, Colour, Easel, box, mix, oval, polygon, smooth, times
from tools.demo_model.kit import Kit
from tools.demo_model.light import Light
from tools.demo_model.scenes import FLYING, Scene, Thing

PIGMENT: dict[str, Colour] = dict(
    red=(0.86, 0.12, 0.11), blue=(0.12, 0.32, 0.86), yellow=(0.98, 0.82, 0.12), green=(0.16, 0.60, 0.24), white=(0.96,
            0.96, 0.95),
    orange=(0.97, 0.50, 0.08), purple=(0.54, 0.22, 0.72), black=(0.12, 0.12, 0.14), pink=(0.98, 0.56,
            0.72), brown=(0.50, 0.31, 0.18))
# Each thing's height in picture units when big and in front, and its width relative to its height.
HEIGHT = dict(house=104, tree=134, boat=112, car=58, balloon=108, tower=150, person=108, fence=48, castle=132,
              windmill=136, cat=44, dog=52,
              horse=84, tent=70, bus=80, bird=36, airplane=44, snowman=84)
WIDTH = dict(house=0.62, tree=0.40, boat=0.5, car=1.25, balloon=0.36, tower=0.2, person=0.25, fence=1.6, castle=0.6,
             windmill=0.4, cat=0.7, dog=0.7,
             horse=0.7, tent=0.75, bus=1.1, bird=0.8, airplane=1.3, snowman=0.35)


def house(kit: Kit) -> None:
    """A house seen from a corner: a long wall, a gable and a roof."""
    wall, roof = kit.paint, kit.snowy(times(kit.random.choice(((0.62, 0.26, 0.20), (0.42, 0.28, 0.24),
                                                               (0.32, 0.34, 0.42))), 1.0))
    kit.fill(box(-0.40, -1.06, -0.27, -0.72), (0.56, 0.34, 0.28))
    kit.fill(polygon([(-0.62, 0), (-0.62, -0.52), (0.22, -0.52), (0.22, 0)]), wall)
    kit.fill(polygon([(0.22, 0), (0.22, -0.52), (0.42, -0.92), (0.62, -0.52), (0.62, 0)]), times(wall, 0.74))
    kit.fill(polygon([(-0.70, -0.48), (-0.52, -0.95), (0.43, -0.95), (0.19, -0.48)]), roof)
    kit.fill(polygon([(0.41, -0.97), (0.46, -0.97), (0.70, -0.47), (0.63, -0.43)]), times(roof, 0.72))
    for x in (-0.52, -0.02):
        kit.window(x, -0.38, 0.18, 0.18)
    kit.window(0.36, -0.62, 0.12, 0.14)
    kit.fill(box(-0.27, -0.36, -0.11, 0), (0.40, 0.24, 0.15))
    kit.fill(box(-0.62, -0.035, 0.62, 0), (0.52, 0.50, 0.48))


def tree(kit: Kit) -> None:
    random = kit.random
    kit.fill(polygon([(-0.07, 0), (-0.045, -0.5), (0.045, -0.5), (0.07, 0)]), (0.40, 0.27, 0.18))
    kit.stroke(polygon([(0, -0.4), (0.14, -0.58)]), (0.40, 0.27, 0.18), 0.035)
    puffs = [(dx * random.uniform(0.9, 1.1), -dy, size * random.uniform(0.94, 1.08)) for dx, dy, size in
             ((-0.22, 0.52, 0.165), (0.22, 0.53, 0.165), (0, 0.56, 0.22), (-0.16, 0.72, 0.17), (0.17, 0.72, 0.17),
              (0, 0.82, 0.165))]
    for shift, tone, size in ((0.0, 0.66, 1.05), (0.12, 0.95, 0.86), (0.3, 1.15, 0.45)):
        for x, y, radius in puffs if tone < 1 else puffs[1:]:
            kit.fill(oval(x + kit.light.side * radius * shift, y - radius * shift, radius * size,
                          radius * size * 0.94), times(kit.paint, tone))


def boat(kit: Kit) -> None:
    kit.fill(box(-0.016, -1.0, 0.016, -0.12), (0.40, 0.27, 0.18))
    kit.blend(smooth([(0.035, -0.97), (0.22, -0.62), (0.46, -0.24), (0.46, -0.23), (0.035, -0.23)], closed=True),
              kit.paint, times(kit.paint, 0.78))
    kit.fill(polygon([(0.035, -0.97), (0.44, -0.23), (0.035, -0.23)]), kit.paint)
    kit.fill(polygon([(-0.04, -0.88), (-0.36, -0.23), (-0.04, -0.23)]), mix(kit.paint, (1, 1, 1), 0.5))
    kit.fill(polygon([(-0.50, -0.19), (0.56, -0.19), (0.42, 0), (-0.36, 0)]), (0.50, 0.29, 0.17))
    kit.fill(polygon([(-0.46, -0.13), (0.525, -0.13), (0.42, 0), (-0.36, 0)]), (0.38, 0.21, 0.13))
    kit.fill(polygon([(-0.52, -0.215), (0.585, -0.215), (0.56, -0.17), (-0.50, -0.17)]), (0.95, 0.92, 0.85))


def car(kit: Kit) -> None:
    glass = (0.40, 0.54, 0.66)
    kit.fill(smooth([(-0.80, -0.48), (-0.72, -0.60), (-0.46, -0.98), (0.22, -0.98), (0.56, -0.60), (0.66, -0.48)],
                    closed=True), kit.paint)
    kit.fill(polygon([(-0.58, -0.56), (-0.40, -0.88), (-0.12, -0.88), (-0.12, -0.56)]), glass)
    kit.fill(polygon([(-0.04, -0.56), (-0.04, -0.88), (0.16, -0.88), (0.42, -0.56)]), glass)
    kit.fill(polygon([(-0.52, -0.66), (-0.40, -0.88), (-0.24, -0.88), (-0.40, -0.66)]), (0.75, 0.84, 0.92), 0.7)
    kit.blend(smooth([(-1.14, -0.50), (-1.00, -0.62), (0.90, -0.60), (1.16, -0.44), (1.18, -0.18), (1.10, -0.16),
                      (-1.12, -0.16), (-1.20, -0.2)], closed=True),
              mix(kit.paint, (1, 1, 1), 0.12), times(kit.paint, 0.72))
    kit.stroke(polygon([(-1.0, -0.36), (1.05, -0.36)]), times(kit.paint, 0.62), 0.02)
    for x in (-0.64, 0.66):
        kit.fill(oval(x, -0.21, 0.235, 0.23), (0.09, 0.09, 0.11))
        kit.fill(oval(x, -0.21, 0.115, 0.115), (0.76, 0.77, 0.80))
    kit.lamp(oval(1.07, -0.42, 0.075, 0.07), (0.98, 0.95, 0.78), 0.5)
    kit.fill(box(-1.16, -0.48, -1.08, -0.36), (0.75, 0.08, 0.08))


def balloon(kit: Kit) -> None:
    for x in (-1, 1):
        kit.stroke(polygon([(x * 0.085, -0.15), (x * 0.15, -0.37)]), (0.35, 0.26, 0.18), 0.014)
    envelope = smooth([(-0.12, -0.30), (-0.34, -0.52), (-0.40, -0.82), (-0.20, -1.02), (0.20, -1.02), (0.40, -0.82),
                       (0.34, -0.52), (0.12, -0.30)], closed=True)
    kit.fill(envelope, kit.paint)
    pale = mix(kit.paint, (1, 1, 1), 0.62)
    with kit.easel.inside(envelope):
        for x in (-1, 1):
            stripe = skia.Path()
            stripe.moveTo(x * 0.05, -1.02), stripe.quadTo(x * 0.36, -0.7, x * 0.07, -0.28)
            kit.stroke(stripe, pale, 0.075)
        kit.shade(envelope, -0.40, 0.40)
    kit.fill(box(-0.095, -0.155, 0.095, 0.0, 0.02), (0.52, 0.34, 0.19))
    kit.fill(box(-0.105, -0.165, 0.105, -0.13, 0.01), (0.38, 0.24, 0.13))


def tower(kit: Kit) -> None:
    """A lighthouse with stripes, on rocks."""
    shaft = polygon([(-0.165, 0), (-0.105, -0.77), (0.105, -0.77), (0.165, 0)])
    kit.fill(shaft, kit.paint)
    with kit.easel.inside(shaft):
        for top in (-0.68, -0.38, -0.08):
            kit.fill(box(-0.2, top, 0.2, top + 0.13), mix(kit.paint, (1, 1, 1), 0.85) if kit.paint != PIGMENT["white"]
                     else PIGMENT["red"])
        kit.shade(shaft, -0.16, 0.16)
    kit.fill(box(-0.145, -0.80, 0.145, -0.765), (0.28, 0.27, 0.30))
    kit.lamp(box(-0.075, -0.90, 0.075, -0.80), (0.70, 0.80, 0.86), 0.35)
    kit.fill(polygon([(-0.11, -0.895), (0, -1.0), (0.11, -0.895)]), times(kit.paint, 0.75))
    kit.fill(box(-0.04, -0.11, 0.04, 0), (0.32, 0.22, 0.16))


def fence(kit: Kit) -> None:
    for y in (-0.34, -0.70):
        kit.fill(box(-1.6, y - 0.065, 1.6, y + 0.065), times(kit.paint, 0.78))
    for n in range(8):
        x = -1.54 + 0.44 * n
        kit.fill(polygon([(x - 0.11, 0), (x - 0.11, -0.86), (x, -1.0), (x + 0.11, -0.86), (x + 0.11, 0)]), kit.paint)
        kit.fill(polygon([(x + 0.04, 0), (x + 0.04, -0.94), (x + 0.11, -0.86), (x + 0.11, 0)]), times(kit.paint, 0.8))


def castle(kit: Kit) -> None:
    stone, roof = mix(kit.paint, (0.74, 0.70, 0.66), 0.45), kit.snowy((0.24, 0.30, 0.46)
                                                                      if kit.paint != PIGMENT["blue"] else (0.56, 0.2,
                                                                              0.2))
    kit.wall(-0.42, -0.42, 0.42, 0, stone)
    for n in range(8):
        kit.fill(box(-0.42 + n * 0.11, -0.47, -0.36 + n * 0.11, -0.41), stone)
    kit.wall(-0.15, -0.66, 0.15, -0.3, times(stone, 0.94))
    kit.fill(polygon([(-0.19, -0.65), (0, -1.0), (0.19, -0.65)]), roof)
    for x, top in ((-0.46, 0.62), (0.46, 0.56)):
        kit.wall(x - 0.10, -top, x + 0.10, 0, stone)
        kit.fill(polygon([(x - 0.135, -top), (x, -top - 0.26), (x + 0.135, -top)]), roof)
        kit.window(x - 0.025, -top + 0.10, 0.05, 0.10)
    kit.window(-0.03, -0.58, 0.06, 0.11)
    kit.fill(smooth([(-0.09, 0), (-0.09, -0.24), (0.09, -0.24), (0.09, 0)], closed=True), (0.30, 0.19, 0.12))
    kit.fill(box(-0.09, -0.12, 0.09, 0), (0.30, 0.19, 0.12))
    for x in (-0.25, 0.25):
        kit.window(x - 0.025, -0.29, 0.05, 0.09)


def windmill(kit: Kit) -> None:
    body = polygon([(-0.21, 0), (-0.125, -0.62), (0.125, -0.62), (0.21, 0)])
    kit.fill(body, kit.paint)
    kit.shade(body, -0.2, 0.2)
    kit.fill(smooth([(-0.16, -0.60), (-0.13, -0.74), (0.13, -0.74), (0.16, -0.60)], closed=True),
             kit.snowy((0.42, 0.28, 0.22)))
    kit.fill(box(-0.055, -0.17, 0.055, 0), (0.36, 0.23, 0.15))
    kit.window(-0.035, -0.40, 0.07, 0.09)
    turn = kit.random.uniform(10, 80)
    kit.easel.canvas.save()
    kit.easel.canvas.translate(0, -0.63)
    kit.easel.canvas.rotate(turn)
    for _ in range(4):
        kit.easel.canvas.rotate(90)
        kit.fill(polygon([(0.01, -0.04), (0.10, -0.07), (0.10, -0.40), (0.01, -0.40)]), (0.93, 0.90, 0.82))
        kit.stroke(polygon([(0, 0), (0, -0.41)]), (0.34, 0.23, 0.16), 0.022)
    kit.easel.canvas.restore()
    kit.fill(oval(0, -0.63, 0.028, 0.028), (0.25, 0.18, 0.14))


def tent(kit: Kit) -> None:
    kit.fill(polygon([(-0.75, 0), (-0.20, -1.0), (0.30, 0)]), kit.paint)
    kit.fill(polygon([(0.30, 0), (-0.20, -1.0), (0.42, -0.86), (0.80, -0.06)]), times(kit.paint, 0.72))
    kit.lamp(polygon([(-0.42, 0), (-0.20, -0.72), (0.04, 0)]), (0.22, 0.16, 0.14), 0.25)
    kit.fill(polygon([(-0.42, 0), (-0.20, -0.72), (-0.30, 0)]), mix(kit.paint, (1, 1, 1), 0.35))
    for x, y in ((-0.95, 0.0), (0.95, -0.03)):
        kit.stroke(polygon([(x, y), (-0.20 if x < 0 else 0.42, -0.96 if x < 0 else -0.84)]), (0.85, 0.82, 0.74), 0.012)


def bus(kit: Kit) -> None:
    kit.blend(box(-1.1, -0.98, 1.1, -0.14, 0.10), mix(kit.paint, (1, 1, 1), 0.12), times(kit.paint, 0.78))
    for n in range(6):
        kit.window(-0.98 + n * 0.31, -0.84, 0.25, 0.30, frame=False)
    kit.fill(box(0.88, -0.84, 1.06, -0.46, 0.03), (0.42, 0.55, 0.66))
    kit.fill(box(-1.1, -0.44, 1.1, -0.37), mix(kit.paint, (1, 1, 1), 0.7))
    for x in (-0.64, 0.66):
        kit.fill(oval(x, -0.16, 0.165, 0.16), (0.09, 0.09, 0.11))
        kit.fill(oval(x, -0.16, 0.08, 0.08), (0.74, 0.75, 0.78))
    kit.lamp(oval(1.06, -0.26, 0.045, 0.045), (0.98, 0.95, 0.78), 0.3)


def airplane(kit: Kit) -> None:
    kit.fill(polygon([(-1.22, -0.92), (-0.98, -0.92), (-0.72, -0.50), (-1.08, -0.50)]), times(kit.paint, 0.85))
    kit.fill(polygon([(-0.10, -0.48), (0.28, -0.48), (0.02, -0.94), (-0.14, -0.94)]), times(kit.paint, 0.7))
    kit.blend(smooth([(-1.26, -0.52), (-0.8, -0.62), (0.7, -0.62), (1.22, -0.46), (1.24, -0.38), (0.8, -0.28),
                      (-0.6, -0.28), (-1.2, -0.46)], closed=True),
              mix(kit.paint, (1, 1, 1), 0.3), times(kit.paint, 0.75))
    for n in range(7):
        kit.fill(oval(-0.56 + n * 0.19, -0.49, 0.05, 0.05), (0.34, 0.46, 0.60))
    kit.fill(polygon([(0.88, -0.56), (1.08, -0.49), (0.90, -0.47)]), (0.30, 0.42, 0.56))
    kit.fill(polygon([(-0.16, -0.38), (0.34, -0.38), (-0.30, 0.0), (-0.50, 0.0)]), mix(kit.paint, (0.8, 0.82, 0.86),
            0.35))


SHAPES: dict[str, Callable[[Kit], None]] = dict(
    house=house, tree=tree, boat=boat, car=car, balloon=balloon, tower=tower, person=person, fence=fence,
    castle=castle, windmill=windmill,
    cat=cat, dog=dog, horse=horse, tent=tent, bus=bus, bird=bird, airplane=airplane, snowman=snowman)


@dataclass(frozen=True)
class Stand:
    """A thing's place: its foot and height, in picture units."""

    x: float
    foot: float
    height: float
    mirrored: bool


def stand(scene: Scene, thing: Thing, horizon: float) -> Stand:
    """Perspective: smaller things are farther away, their feet nearer to the horizon."""
    random = scene.lot(f"stand {thing.kind}")
    big = thing.size == "big"
    scale = random.uniform(0.92, 1.12) if big else random.uniform(0.50, 0.66)
    height = HEIGHT[thing.kind] * scale
    half = min(112.0, height * WIDTH[thing.kind])  # nothing is cut off at the edge
    x = {"left": 66, "middle": 128, "right": 190}[thing.spot] + random.uniform(-13, 13)
    x = max(half + 6, min(UNITS - half - 6, x))
    foot = {True: random.uniform(224, 238), False: random.uniform(194, 206)}[big]
    if thing.kind == "boat":
        foot = (horizon + random.uniform(38, 56)) if big else horizon + random.uniform(14, 26)
    elif scene.place == "sea":
        foot = max(foot, 222) + 10
        height *= 0.9 if not big else 1.0
    elif scene.place == "lake":
        foot = max(foot, 232) + 8
    elif scene.place == "city" and thing.kind in ("car", "bus"):
        foot = random.uniform(232, 244)
    if thing.kind in FLYING:
        foot = random.uniform(10, 40 if big else 70) + height
    return Stand(x, foot, height, random.random() < 0.5)


def silhouette(kind: str, kit: Kit) -> skia.Picture:
    """The thing as a recording that can be drawn as itself, as its shadow or as its reflection."""
    recorder = skia.PictureRecorder()
    canvas = recorder.beginRecording(skia.Rect.MakeLTRB(-2, -2, 2, 1))
    SHAPES[kind](kit.on(canvas))
    return recorder.finishRecordingAsPicture()


def paint_thing(easel: Easel, scene: Scene, light: Light, horizon: float, thing: Thing) -> None:
    """The thing with its shadow on the ground, or its reflection in water."""
    spot = stand(scene, thing, horizon)
    toward = -light.side if spot.mirrored else light.side
    away = 0.10 * (thing.size == "small") * (2.0 if light.fog else 1.0)
    kit = Kit(easel, light, PIGMENT[thing.colour], scene.lot(f"look {thing.kind}"), scene.season == "winter", away,
              toward)
    picture = silhouette(thing.kind, kit)
    with easel.moved(spot.x, spot.foot, spot.height, mirrored=spot.mirrored):
        if thing.kind == "boat":
            reflect(easel, picture)
        elif thing.kind not in FLYING and light.shadow > 0.03:
            cast(easel, picture, toward, light, spot.height)
        easel.canvas.drawPicture(picture)
    if thing.kind in ("car", "bus") and light.lamps > 0.5:
        x = spot.x + (-1 if spot.mirrored else 1) * spot.height * WIDTH[thing.kind]
        easel.glow(x, spot.foot - spot.height * 0.35, spot.height * 0.7, (1.0, 0.93, 0.66), 0.55 * light.lamps)


def cast(easel: Easel, picture: skia.Picture, toward: int, light: Light, height: float) -> None:
    """The silhouette, dark, laid flat on the ground away from the light."""
    matrix = skia.Matrix()
    matrix.setAll(1, toward * light.length * 0.9, 0, 0, -0.22 if light.length < 1.5 else -0.16, 0, 0, 0, 1)
    dark = skia.ColorFilters.Matrix([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.06, 0, 0, 0, light.shadow, 0])
    paint = skia.Paint(ColorFilter=dark, ImageFilter=skia.ImageFilters.Blur(0.9 / height, 0.9 / height))
    easel.canvas.saveLayer(None, paint)
    easel.canvas.concat(matrix)
    easel.canvas.drawPicture(picture)
    easel.canvas.restore()
    easel.fill(oval(0, 0, 0.2, 0.03), (0, 0, 0.05), light.shadow * 0.8, blur=0.02)


def reflect(easel: Easel, picture: skia.Picture) -> None:
    easel.canvas.saveLayer(None, skia.Paint(Alphaf=0.42, ImageFilter=skia.ImageFilters.Blur(0.012, 0.03)))
    easel.canvas.scale(1, -0.62)
    easel.canvas.drawPicture(picture)
    easel.canvas.restore()
