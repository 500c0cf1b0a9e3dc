"""Living things, in the units of things.py."""
from __future__ import annotations

import skia

from tools.demo_model.easel import box, mix, oval, polygon, smooth, times
from tools.demo_model.kit import Kit

SKIN = ((0.95, 0.77, 0.64), (0.78, 0.57, 0.42), (0.48, 0.32, 0.23))
HAIR = ((0.20, 0.14, 0.10), (0.45, 0.28, 0.14), (0.82, 0.64, 0.30), (0.55, 0.22, 0.10))


def person(kit: Kit) -> None:
    random = kit.random
    skin, hair, long = random.choice(SKIN), random.choice(HAIR), random.random() < 0.5
    trousers = random.choice(((0.20, 0.22, 0.34), (0.32, 0.26, 0.22), (0.22, 0.24, 0.24)))
    if long:
        kit.fill(smooth([(-0.10, -0.95), (0.10, -0.95), (0.13, -0.66), (-0.13, -0.66)], closed=True), hair)
    for x in (-0.065, 0.065):
        kit.fill(box(x - 0.048, -0.34, x + 0.048, -0.02, 0.02), trousers)
        kit.fill(box(x - 0.055, -0.045, x + 0.07, 0, 0.02), (0.16, 0.12, 0.10))
    for side in (-1, 1):
        kit.fill(smooth([(side * 0.13, -0.74), (side * 0.20, -0.68), (side * 0.23, -0.40), (side * 0.16, -0.40),
                         (side * 0.12, -0.62)], closed=True), times(kit.paint, 0.82))
        kit.fill(oval(side * 0.195, -0.395, 0.032, 0.034), skin)
    coat = smooth([(-0.13, -0.765), (0.13, -0.765), (0.17, -0.50), (0.20, -0.22), (-0.20, -0.22), (-0.17, -0.50)],
                  closed=True)
    kit.fill(coat, kit.paint)
    kit.shade(coat, -0.18, 0.18)
    kit.fill(box(-0.035, -0.80, 0.035, -0.74), times(skin, 0.85))
    kit.fill(oval(0, -0.875, 0.085, 0.10), skin)
    kit.fill(smooth([(-0.10, -0.86), (-0.09, -0.97), (0.0, -1.0), (0.09, -0.97), (0.10, -0.86), (0.05, -0.93),
                     (-0.05, -0.93)], closed=True), hair)
    for x in (-0.03, 0.035):
        kit.fill(oval(x, -0.872, 0.011, 0.013), (0.1, 0.08, 0.08))


def legs(kit: Kit, xs: tuple[float, ...], top: float, wide: float, hoof: float = 0.0) -> None:
    for n, x in enumerate(xs):
        paint = times(kit.paint, 0.72 if n % 2 else 0.92)
        kit.fill(polygon([(x - wide, top), (x + wide, top), (x + wide * 0.6, 0), (x - wide * 0.6, 0)]), paint)
        if hoof:
            kit.fill(box(x - wide * 0.7, -hoof, x + wide * 0.8, 0), (0.16, 0.13, 0.12))


def cat(kit: Kit) -> None:
    """Sitting, its tail around to the side."""
    tail = skia.Path()
    tail.moveTo(-0.25, -0.06), tail.cubicTo(-0.75, 0.0, -0.72, -0.40, -0.58, -0.55)
    kit.stroke(tail, times(kit.paint, 0.85), 0.10)
    body = smooth([(-0.34, 0.0), (-0.36, -0.26), (-0.16, -0.60), (0.16, -0.60), (0.32, -0.26), (0.30, 0.0)],
                  closed=True)
    kit.fill(body, kit.paint)
    kit.shade(body, -0.34, 0.32)
    for x in (-0.16, 0.16):
        kit.fill(polygon([(x - 0.12, -0.86), (x * 1.5, -1.04), (x + 0.12, -0.86)]), times(kit.paint, 0.9))
        kit.fill(polygon([(x - 0.06, -0.88), (x * 1.4, -0.98), (x + 0.06, -0.88)]), (0.95, 0.65, 0.65))
    kit.fill(oval(0, -0.74, 0.27, 0.215), kit.paint)
    pale = mix(kit.paint, (1, 1, 1), 0.7)
    kit.fill(oval(0, -0.655, 0.115, 0.085), pale)
    kit.fill(oval(0, -0.34, 0.12, 0.2), pale, 0.8)
    for x in (-0.10, 0.10):
        kit.fill(oval(x, -0.77, 0.052, 0.058), (0.72, 0.86, 0.30))
        kit.fill(oval(x, -0.77, 0.022, 0.05), (0.05, 0.05, 0.06))
        kit.fill(oval(x, -0.03, 0.09, 0.045), pale)
    kit.fill(polygon([(-0.035, -0.70), (0.035, -0.70), (0, -0.66)]), (0.90, 0.50, 0.52))


def dog(kit: Kit) -> None:
    """Standing, its head to the right."""
    tail = skia.Path()
    tail.moveTo(-0.52, -0.58), tail.quadTo(-0.78, -0.70, -0.74, -0.95)
    kit.stroke(tail, times(kit.paint, 0.85), 0.09)
    legs(kit, (-0.44, -0.32, 0.20, 0.32), -0.40, 0.075)
    body = smooth([(-0.56, -0.62), (0.30, -0.66), (0.44, -0.52), (0.34, -0.32), (-0.48, -0.34), (-0.58, -0.46)],
                  closed=True)
    kit.blend(body, mix(kit.paint, (1, 1, 1), 0.08), times(kit.paint, 0.72))
    kit.fill(smooth([(0.22, -0.66), (0.30, -0.86), (0.52, -0.84), (0.48, -0.54), (0.34, -0.46)], closed=True),
             kit.paint)
    kit.fill(oval(0.46, -0.82, 0.185, 0.16), kit.paint)
    kit.fill(box(0.50, -0.84, 0.80, -0.70, 0.06), mix(kit.paint, (1, 1, 1), 0.25))
    kit.fill(oval(0.78, -0.82, 0.045, 0.038), (0.08, 0.07, 0.08))
    kit.fill(smooth([(0.30, -0.94), (0.40, -0.96), (0.42, -0.68), (0.32, -0.62), (0.25, -0.76)], closed=True),
             times(kit.paint, 0.6))
    kit.fill(oval(0.54, -0.86, 0.026, 0.03), (0.06, 0.05, 0.06))
    kit.stroke(polygon([(0.28, -0.60), (0.46, -0.56)]), (0.80, 0.15, 0.15), 0.05)


def horse(kit: Kit) -> None:
    mane = times(kit.paint, 0.45) if sum(kit.paint) > 0.6 else (0.30, 0.28, 0.28)
    tail = skia.Path()
    tail.moveTo(-0.50, -0.62), tail.quadTo(-0.68, -0.56, -0.62, -0.22)
    kit.stroke(tail, mane, 0.09)
    legs(kit, (-0.42, -0.31, 0.20, 0.30), -0.44, 0.055, hoof=0.045)
    body = smooth([(-0.54, -0.66), (-0.20, -0.64), (0.22, -0.68), (0.40, -0.58), (0.34, -0.38), (-0.40, -0.38),
                   (-0.56, -0.50)], closed=True)
    kit.blend(body, mix(kit.paint, (1, 1, 1), 0.10), times(kit.paint, 0.72))
    kit.fill(polygon([(0.14, -0.62), (0.36, -0.92), (0.50, -0.88), (0.42, -0.50)]), kit.paint)
    kit.fill(smooth([(0.34, -0.96), (0.50, -0.96), (0.72, -0.76), (0.70, -0.68), (0.60, -0.68), (0.42, -0.80)],
                    closed=True), kit.paint)
    kit.fill(polygon([(0.38, -0.92), (0.42, -1.02), (0.47, -0.93)]), kit.paint)
    hair = skia.Path()
    hair.moveTo(0.40, -0.98), hair.quadTo(0.20, -0.86, 0.14, -0.62)
    kit.stroke(hair, mane, 0.075)
    kit.fill(oval(0.52, -0.88, 0.018, 0.02), (0.06, 0.05, 0.06))
    kit.fill(oval(0.67, -0.71, 0.03, 0.03), times(kit.paint, 0.6))


def bird(kit: Kit) -> None:
    """In flight, wings up."""
    kit.fill(smooth([(-0.10, -0.46), (-0.55, -1.0), (-0.80, -0.96), (-0.36, -0.40)], closed=True),
             times(kit.paint, 0.78))
    kit.fill(polygon([(-0.44, -0.42), (-0.86, -0.46), (-0.82, -0.28), (-0.42, -0.30)]), times(kit.paint, 0.8))
    kit.blend(smooth([(-0.52, -0.44), (0.20, -0.54), (0.52, -0.52), (0.56, -0.40), (0.20, -0.18), (-0.30, -0.24)],
                     closed=True), kit.paint, times(kit.paint, 0.72))
    kit.fill(smooth([(0.16, -0.44), (0.28, -0.96), (0.06, -1.06), (-0.28, -0.40)], closed=True),
             mix(kit.paint, (1, 1, 1), 0.15))
    kit.fill(oval(0.50, -0.48, 0.15, 0.13), kit.paint)
    kit.fill(polygon([(0.62, -0.52), (0.86, -0.44), (0.62, -0.42)]), (0.95, 0.62, 0.14))
    kit.fill(oval(0.54, -0.51, 0.03, 0.03), (0.05, 0.05, 0.06) if sum(kit.paint) > 0.6 else (0.95, 0.95, 0.9))


def snowman(kit: Kit) -> None:
    snow = mix((0.96, 0.97, 1.0), kit.paint, 0.12)
    for side in (-1, 1):
        kit.stroke(polygon([(side * 0.14, -0.52), (side * 0.38, -0.66)]), (0.36, 0.24, 0.16), 0.022)
    for y, radius in ((-0.22, 0.235), (-0.53, 0.175), (-0.775, 0.125)):
        ball = oval(0, y, radius, radius * 0.98)
        kit.fill(ball, snow)
        kit.shade(ball, -radius, radius)
    scarf = kit.paint if min(kit.paint) < 0.8 else (0.82, 0.16, 0.16)
    kit.stroke(polygon([(-0.10, -0.665), (0.10, -0.665)]), scarf, 0.055)
    kit.stroke(polygon([(0.07, -0.66), (0.09, -0.50)]), scarf, 0.05)
    kit.fill(box(-0.15, -0.89, 0.15, -0.86), (0.13, 0.13, 0.15))
    kit.fill(box(-0.095, -1.0, 0.095, -0.88), (0.13, 0.13, 0.15))
    for x in (-0.04, 0.045):
        kit.fill(oval(x, -0.80, 0.014, 0.014), (0.08, 0.08, 0.09))
    kit.fill(polygon([(0, -0.78), (0, -0.745), (0.13, -0.755)]), (0.96, 0.52, 0.12))
    for y in (-0.46, -0.56):
        kit.fill(oval(0, y, 0.014, 0.014), (0.08, 0.08, 0.09))
