"""The light of a scene: its direction, its colours, and the haze over distant things."""
from __future__ import annotations

from dataclasses import dataclass

from tools.demo_model.easel import Colour, mix, times
from tools.demo_model.scenes import Scene

# Sky above, in the middle and at the horizon; the light's tint; clouds in light and in shade; grey of an overcast sky.
SKY = {"day": ((0.16, 0.42, 0.86), (0.42, 0.68, 0.96), (0.80, 0.91, 0.99)),
       "evening": ((0.26, 0.17, 0.47), (0.86, 0.38, 0.38), (1.00, 0.72, 0.36)),
       "night": ((0.03, 0.05, 0.18), (0.08, 0.14, 0.36), (0.22, 0.32, 0.56)),
       "dawn": ((0.42, 0.55, 0.86), (0.86, 0.72, 0.86), (1.00, 0.80, 0.70))}
TINT = {"day": (1.00, 1.00, 0.98), "evening": (0.96, 0.66, 0.52), "night": (0.42, 0.50, 0.80),
        "dawn": (0.95, 0.83, 0.88)}
CLOUD = {"day": ((1.0, 1.0, 1.0), (0.76, 0.82, 0.90)), "evening": ((1.0, 0.74, 0.56), (0.62, 0.36, 0.46)),
         "night": ((0.27, 0.33, 0.52), (0.14, 0.18, 0.34)), "dawn": ((1.0, 0.93, 0.90), (0.80, 0.70, 0.82))}
GREY = {"day": (0.66, 0.71, 0.77), "evening": (0.56, 0.46, 0.50), "night": (0.18, 0.22, 0.34),
        "dawn": (0.68, 0.67, 0.74)}
OVERCAST = {"clear": 0.0, "cloudy": 0.60, "rain": 0.88, "snow": 0.75, "fog": 0.80}
DIMMING = {"clear": 1.0, "cloudy": 0.92, "rain": 0.78, "snow": 0.98, "fog": 0.94}
LAMPS = {"day": 0.0, "evening": 0.8, "night": 1.0, "dawn": 0.25}


@dataclass(frozen=True)
class Light:
    """`x`, `y`: position of the sun or moon. `side` -1 or 1: where the light comes from. `lamps` 0..1: how lit lamps are.

    `shadow`: darkness of shadows, 0..1; `length`: their length, in heights of the object; `fog` 0..1.
    """

    top: Colour
    mid: Colour
    low: Colour
    tint: Colour
    cloud: Colour
    cloud_shade: Colour
    x: float
    y: float
    side: int
    shadow: float
    length: float
    lamps: float
    fog: float

    @staticmethod
    def of(scene: Scene, horizon: float) -> "Light":
        random = scene.lot("light")
        overcast, grey = OVERCAST[scene.weather], GREY[scene.time]
        top, mid, low = (mix(c, times(grey, k), overcast) for c, k in zip(SKY[scene.time], (0.86, 1.0, 1.12)))
        bright, shade = (mix(c, times(grey, k), 0.8 * overcast) for c, k in zip(CLOUD[scene.time], (1.18, 0.88)))
        x, height = random.uniform(25, 231), random.random()
        down = scene.time in ("evening", "dawn")
        y = horizon - 14 - 30 * height if down else 26 + 30 * height
        drowned = 1 - overcast * 0.9
        return Light(top, mid, low, times(TINT[scene.time], DIMMING[scene.weather]), bright, shade, x, y,
                     -1 if x < 128 else 1, {"day": 0.42, "evening": 0.40, "night": 0.30,
                                            "dawn": 0.34}[scene.time] * drowned,
                     2.0 if down else 0.9, LAMPS[scene.time], 0.85 if scene.weather == "fog" else 0.0)

    def lit(self, paint: Colour, away: float = 0.0) -> Colour:
        """The paint in this light, through haze: distance 0 is near, 1 the horizon."""
        haze = min(1.0, away * (0.62 if not self.fog else 0.62 + 0.6 * self.fog))
        return mix(times(paint, self.tint), self.low, haze)
