"""Sky, ground and weather of a scene: everything but the main thing in it."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tools.demo_model.scenes import PLACES, SEASONS, SKY_BODIES, Scenes, TIMES, WEATHERS
from tools.demo_model.shapes import Frame, box, circle, colour, dots, lay, noise, randoms, ridge, spread, union

SKY_TOP = [(0.20, 0.48, 0.90), (0.30, 0.18, 0.47), (0.02, 0.03, 0.13), (0.47, 0.58, 0.88)]
SKY_MID = [(0.45, 0.70, 0.96), (0.88, 0.38, 0.38), (0.07, 0.11, 0.30), (0.86, 0.72, 0.85)]
SKY_LOW = [(0.80, 0.92, 0.99), (1.00, 0.74, 0.36), (0.20, 0.27, 0.52), (1.00, 0.80, 0.72)]
TINT = [(1.00, 1.00, 1.00), (0.92, 0.66, 0.54), (0.36, 0.42, 0.66), (0.94, 0.82, 0.88)]
CLOUD = [(1.00, 1.00, 1.00), (1.00, 0.66, 0.52), (0.20, 0.24, 0.42), (1.00, 0.90, 0.90)]
GREY = [(0.66, 0.71, 0.77), (0.55, 0.47, 0.52), (0.15, 0.18, 0.29), (0.68, 0.67, 0.74)]
# How far each weather pulls the sky to grey and how much it dims the light.
OVERCAST = [0.0, 0.62, 0.85, 0.70, 0.75]
DIMMING = [1.0, 0.92, 0.80, 0.98, 0.94]
GROUND_NEAR = [(0.26, 0.50, 0.16), (0.56, 0.37, 0.14), (0.84, 0.89, 0.97), (0.38, 0.66, 0.24)]
GROUND_FAR = [(0.56, 0.74, 0.34), (0.80, 0.62, 0.28), (0.95, 0.97, 1.00), (0.70, 0.85, 0.45)]
LEAVES = [(0.13, 0.38, 0.20), (0.76, 0.38, 0.10), (0.55, 0.66, 0.70), (0.42, 0.64, 0.30)]


def pick(table: list[tuple[float, ...]], index: Tensor) -> Tensor:
    """The row of a colour table for each scene: (B, 3, 1, 1)."""
    return torch.tensor(table, device=index.device)[index][:, :, None, None]


@dataclass
class Light:
    """The light of each scene: sky colours and `tint` (B, 3, 1, 1); `lamps` (B, 1, 1, 1) is 1 when lamps are lit."""

    top: Tensor
    mid: Tensor
    low: Tensor
    cloud: Tensor
    tint: Tensor
    lamps: Tensor

    @staticmethod
    def of(scenes: Scenes) -> "Light":
        overcast = torch.tensor(OVERCAST, device=scenes.time.device)[scenes.weather][:, None, None, None]
        dimming = torch.tensor(DIMMING, device=scenes.time.device)[scenes.weather][:, None, None, None]
        grey = pick(GREY, scenes.time)
        top, mid, low = (torch.lerp(pick(t, scenes.time), grey * k, overcast)
                         for t, k in ((SKY_TOP, 0.86), (SKY_MID, 1.0), (SKY_LOW, 1.12)))
        tint = pick(TINT, scenes.time) * dimming
        lamps = torch.tensor([0.0, 0.8, 1.0, 0.3], device=scenes.time.device)[scenes.time][:, None, None, None]
        return Light(top, mid, low, torch.lerp(pick(CLOUD, scenes.time), grey * 1.18, overcast * 0.8), tint, lamps)

    def __getitem__(self, index: Tensor) -> "Light":
        return Light(*(v[index] for v in (self.top, self.mid, self.low, self.cloud, self.tint, self.lamps)))

    def far(self, paint: Tensor, haze: float) -> Tensor:
        """Paint in this light, seen through air: 0 is near, 1 is lost in the horizon."""
        return torch.lerp(paint * self.tint, self.low, haze)


def is_one_of(index: Tensor, names: tuple[str, ...], *wanted: str) -> Tensor:
    return torch.isin(index, torch.tensor([names.index(w) for w in wanted], device=index.device))


def horizon(scenes: Scenes) -> Tensor:
    """Where sky meets ground, (B, 1, 1), 0 at the top."""
    return spread(scenes.seed, 1, 0.54, 0.62)


def body_spot(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """The centre of sun or moon, low at evening and dawn: two of (B, 1, 1)."""
    low = is_one_of(scenes.time, TIMES, "evening", "dawn")[:, None, None]
    x = spread(scenes.seed, 2, 0.15, 0.85)
    y = torch.where(low, horizon(scenes) - spread(scenes.seed, 3, 0.10, 0.18), spread(scenes.seed, 3, 0.13, 0.22))
    return x, y


def paint_sky(scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    """Gradient, sun or moon with their glow, stars and clouds: (B, 3, H, W)."""
    height = (frame.y / horizon(scenes)).clamp(0, 1).unsqueeze(1)  # (B, 1, H, 1)
    canvas = torch.lerp(torch.lerp(light.top, light.mid, (height * 1.6).clamp(max=1)), light.low,
                        ((height - 0.45) / 0.55).clamp(min=0) ** 1.3).expand(-1, -1, -1, frame.size)
    night = is_one_of(scenes.sky_body, SKY_BODIES, "moon", "stars")[:, None, None, None]
    starry = is_one_of(scenes.sky_body, SKY_BODIES, "stars")[:, None, None]
    sparkle = frame.cover(dots(scenes.seed, 20, 9, 0.0075, 0.75, frame.x, frame.y) + torch.where(starry, 0.0, 0.0045))
    canvas = lay(canvas, colour(1, 0.98, 0.88, like=canvas), sparkle * night)

    x, y = body_spot(scenes)
    away = circle(frame.x - x, frame.y - y, 0.0)
    sun = is_one_of(scenes.sky_body, SKY_BODIES, "sun")[:, None, None, None]
    moon = is_one_of(scenes.sky_body, SKY_BODIES, "moon")[:, None, None, None]
    warm = torch.lerp(colour(1.0, 0.93, 0.55, like=canvas), colour(1, 0.80, 0.45, like=canvas), light.lamps)
    glow = torch.exp(-away * 6).unsqueeze(1)
    canvas = lay(canvas, warm, glow * 0.75 * sun)
    canvas = lay(canvas, colour(0.55, 0.62, 0.85, like=canvas), glow * 0.55 * moon)
    canvas = lay(canvas, torch.lerp(warm, torch.ones_like(warm), 0.35), frame.cover(away - 0.075) * sun)
    bite = frame.cover(circle(frame.x - x - 0.035, frame.y - y + 0.02, 0.062)) * (scenes.seed % 2)[:, None, None, None]
    canvas = lay(canvas, colour(0.98, 0.96, 0.86, like=canvas), frame.cover(away - 0.07) * moon * (1 - bite))
    return paint_clouds(canvas, scenes, light, frame)


def paint_clouds(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    """Round clouds with flat feet: one or two in clear weather, a full sky otherwise."""
    many = is_one_of(scenes.weather, WEATHERS, "cloudy", "rain", "snow")[:, None, None]
    starry = is_one_of(scenes.time, TIMES, "night")[:, None, None] & ~many
    for n in range(5):
        x, y = spread(scenes.seed, 40 + n, 0.0, 1.0), spread(scenes.seed, 50 + n, 0.10, 0.34)
        shown = many | ((randoms(scenes.seed, 60 + n, 1) < 0.55)[:, :, None] & ~starry if n < 2 else False)
        scale = spread(scenes.seed, 70 + n, 0.55, 1.0) * torch.where(many, 1.25, 0.9)
        u, v = (frame.x - x) / scale, (frame.y - y) / scale
        puff = union(circle(u, v, 0.085), circle(u - 0.10, v - 0.025, 0.06), circle(u + 0.10, v - 0.02, 0.065),
                     circle(u - 0.045, v + 0.03, 0.06))
        puff = torch.maximum(puff, v - 0.05) * scale
        shade = (1.04 - ((v + 0.05) * 2.2).clamp(0, 0.25)).unsqueeze(1)
        canvas = lay(canvas, light.cloud * shade, (frame.cover(puff) * 0.9) * shown.unsqueeze(1))
    return canvas


def ground(canvas: Tensor, line: Tensor, far: Tensor, near: Tensor, frame: Frame, foot: float = 1.0) -> Tensor:
    """Land below `line` (B, 1, W), from the colour `far` at the line to `near` at `foot`."""
    depth = ((frame.y - line) / (foot - line).clamp(min=0.05)).clamp(0, 1).unsqueeze(1)
    return lay(canvas, torch.lerp(far, near, depth), frame.cover(line - frame.y))


def conifers(canvas: Tensor, scenes: Scenes, paint: Tensor, frame: Frame, *, salt: int, count: int, foot: Tensor,
             height: float, gap: bool = False) -> Tensor:
    """A row of pointed trees standing on `foot`; with `gap` those near the middle are short."""
    along = frame.x * count + spread(scenes.seed, salt, 0, 1)
    cell = along.floor()
    tall = randoms(scenes.seed, salt + 1, count + 2).gather(1, cell.long()[:, 0])[:, None]  # (B, 1, W)
    tall = height * (0.62 + 0.38 * tall)
    if gap:
        middle = (cell + 0.5 - spread(scenes.seed, salt, 0, 1)) / count
        tall = tall * ((middle - 0.5).abs() * 2.6).clamp(0.30, 1)
    down = ((frame.y - foot) / tall + 1).clamp(0, 1.2)  # 0 at the tip, 1 at the foot
    tier = down * 3
    width = (0.10 + 0.13 * tier.floor() + 0.20 * (tier - tier.floor())) * (tier > 0) - 0.08
    side = ((along - cell - 0.5).abs() - width) / count
    tip = foot - tall
    shape = torch.maximum(torch.maximum(side * 0.8, tip - frame.y), frame.y - foot)
    shade = (1.12 - 0.35 * ((along - cell) > 0.5).float() + 0.25 * (0.5 - down)).unsqueeze(1)
    canvas = lay(canvas, paint * shade, frame.cover(shape))
    winter = is_one_of(scenes.season, SEASONS, "winter")[:, None, None, None]
    snow = (((tier - tier.floor()) < 0.42) & (down < 1)).unsqueeze(1)
    return lay(canvas, (paint * 0.25 + canvas.amax(1, keepdim=True) * 0.2 + 0.45).clamp(0, 1),
               frame.cover(shape) * winter * snow * 0.85)


def paint_forest(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    line, leaves = horizon(scenes), pick(LEAVES, scenes.season)
    canvas = conifers(canvas, scenes, light.far(leaves, 0.45), frame, salt=100, count=13, foot=line + 0.03, height=0.26)
    canvas = conifers(canvas, scenes, light.far(leaves, 0.18), frame, salt=110, count=9, foot=line + 0.06, height=0.36)
    path = line + 0.04 + 0.02 * ridge(scenes.seed, 120, 4, frame, jagged=False)
    canvas = ground(canvas, path, light.far(pick(GROUND_FAR, scenes.season) * 0.8, 0.0),
                    light.far(pick(GROUND_NEAR, scenes.season) * 0.7, 0.0), frame)
    return conifers(canvas, scenes, light.far(leaves * 0.8, 0.0), frame, salt=130, count=6,
                    foot=torch.full_like(line, 0.90), height=0.66, gap=True)


def paint_mountains(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    line = horizon(scenes)
    ranges = ((200, 6, 0.36, 0.35, (0.42, 0.46, 0.62)), (210, 8, 0.17, 0.15, (0.34, 0.37, 0.46)))
    for salt, peaks, height, haze, rock in ranges:
        profile = ridge(scenes.seed, salt, peaks, frame, jagged=True)
        slope = torch.gradient(profile, dim=2)[0] * frame.size / 8
        top = line + 0.02 - height * profile
        shade = (1.0 + 0.22 * slope.clamp(-1, 1)).unsqueeze(1)
        body = frame.cover(torch.maximum(top - frame.y, frame.y - line - 0.06))
        canvas = lay(canvas, light.far(colour(*rock, like=canvas) * shade, haze), body)
        jag = 0.025 * torch.sin(frame.x * 55 + spread(scenes.seed, salt + 1, 0, 6)) * torch.sin(frame.x * 23)
        cap = frame.cover(frame.y - (line - height * 0.52 + jag))
        if salt == 200:
            snow = colour(0.97, 0.98, 1.0, like=canvas) * shade.clamp(max=1)
            canvas = lay(canvas, light.far(snow, haze * 0.5), body * cap)
    hills = line + 0.03 * ridge(scenes.seed, 220, 4, frame, jagged=False)
    canvas = conifers(canvas, scenes, light.far(pick(LEAVES, scenes.season), 0.2), frame, salt=230, count=16,
                      foot=line + 0.04, height=0.10)
    return ground(canvas, hills + 0.02, light.far(pick(GROUND_FAR, scenes.season), 0.12),
                  light.far(pick(GROUND_NEAR, scenes.season), 0.0), frame)


def paint_sea(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    line, (x, _) = horizon(scenes), body_spot(scenes)
    deep = torch.lerp(light.top, colour(0.05, 0.38, 0.58, like=canvas) * light.tint, 0.65)
    canvas = ground(canvas, line.expand(-1, -1, frame.size), torch.lerp(light.low, deep, 0.55), deep, frame, foot=0.85)
    depth = (frame.y - line).clamp(min=0)
    swell = torch.sin(frame.x * 9 + spread(scenes.seed, 300, 0, 6))
    waves = torch.sin(36 * (depth + 0.02).log() + 28 * swell * depth)
    crest = ((waves - 0.55) * 2).clamp(0, 1) * (depth > 0.02)
    canvas = lay(canvas, light.low, crest.unsqueeze(1) * 0.28)
    shining = (scenes.sky_body == 1) | (scenes.sky_body == 2)
    column = torch.exp(-(((frame.x - x) / (0.05 + 0.25 * depth)) ** 2)) * (depth > 0) * (0.55 + 0.45 * waves)
    canvas = lay(canvas, torch.lerp(light.low, colour(1, 0.95, 0.8, like=canvas), 0.6),
                 column.unsqueeze(1) * 0.75 * shining[:, None, None, None])
    shore = 0.86 + 0.035 * ridge(scenes.seed, 310, 3, frame, jagged=False)
    foam = frame.cover((frame.y - shore + 0.004).abs() - 0.012)
    canvas = lay(canvas, light.far(colour(0.95, 0.97, 0.98, like=canvas), 0.1), foam)
    return ground(canvas, shore, light.far(colour(0.90, 0.78, 0.54, like=canvas), 0.0),
                  light.far(colour(0.80, 0.66, 0.42, like=canvas), 0.0), frame)


def paint_desert(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    line = horizon(scenes)
    dunes = ((400, 3, -0.02, 0.12, 0.40, (0.93, 0.72, 0.44)), (410, 3, 0.07, 0.12, 0.15, (0.92, 0.66, 0.36)),
             (420, 2, 0.20, 0.12, 0.0, (0.90, 0.62, 0.30)))
    for salt, bumps, drop, height, haze, sand in dunes:
        profile = ridge(scenes.seed, salt, bumps, frame, jagged=False)
        slope = torch.gradient(profile, dim=2)[0] * frame.size / 5
        shade = (1.0 + 0.16 * slope.clamp(-1, 1)).unsqueeze(1)
        paint = light.far(colour(*sand, like=canvas) * shade, haze)
        canvas = ground(canvas, line + drop + height * (0.5 - profile), paint * 1.06, paint * 0.80, frame)
    for n, (low, high) in enumerate(((0.04, 0.30), (0.70, 0.96))):  # two cacti, clear of the middle
        tall = spread(scenes.seed, 430 + n, 0.10, 0.17)
        u, v = (frame.x - spread(scenes.seed, 440 + n, low, high)) / tall, (line + 0.12 - frame.y) / tall
        cactus = union(box(u, v - 0.5, 0.11, 0.55, 0.11),
                       box(u + 0.26, v - 0.5, 0.07, 0.20, 0.07), box(u + 0.14, v - 0.36, 0.14, 0.07, 0.06),
                       box(u - 0.26, v - 0.6, 0.07, 0.20, 0.07), box(u - 0.14, v - 0.46, 0.14, 0.07, 0.06))
        canvas = lay(canvas, light.far(colour(0.22, 0.46, 0.26, like=canvas), 0.08), frame.cover(cactus * tall))
    return canvas


def paint_meadow(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    line, far, near = horizon(scenes), pick(GROUND_FAR, scenes.season), pick(GROUND_NEAR, scenes.season)
    for salt, drop, height, haze, k in ((500, -0.01, 0.10, 0.45, 0.9), (510, 0.03, 0.08, 0.18, 0.8)):
        hill = line + drop + height * (0.4 - ridge(scenes.seed, salt, 3, frame, jagged=False))
        canvas = ground(canvas, hill, light.far(far, haze), light.far(far * k, haze), frame)
        bushes = circle((frame.x * 4 + spread(scenes.seed, salt + 1, 0, 1)) % 1 - 0.5, (frame.y - hill) * 4, 0.13) / 4
        bushes = bushes if salt == 510 else bushes + 0.01
        canvas = lay(canvas, light.far(pick(LEAVES, scenes.season), haze), frame.cover(bushes))
    meadow = line + 0.10 + 0.03 * ridge(scenes.seed, 520, 3, frame, jagged=False)
    canvas = ground(canvas, meadow, light.far(far, 0.0), light.far(near, 0.0), frame)
    petals = pick([(0.98, 0.90, 0.35), (0.70, 0.25, 0.10), (1.0, 1.0, 1.0), (0.98, 0.55, 0.72)], scenes.season)
    flowers = dots(scenes.seed, 530, 12, 0.013, 0.7, frame.x, frame.y)
    flowers = frame.cover(torch.maximum(flowers, meadow + 0.03 - frame.y))
    blooming = is_one_of(scenes.season, SEASONS, "summer", "spring", "autumn")[:, None, None, None]
    return lay(canvas, light.far(petals, 0.0), flowers * blooming)


def paint_city(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    """Two rows of houses with windows, a pavement and a road."""
    winter = is_one_of(scenes.season, SEASONS, "winter")[:, None, None, None]
    for salt, count, low, high, haze in ((600, 8, 0.30, 0.58, 0.50), (610, 5, 0.18, 0.42, 0.06)):
        along = frame.x * count + spread(scenes.seed, salt, 0, 1)
        cell = along.floor().long()[:, 0]
        tall = randoms(scenes.seed, salt + 1, count + 2).gather(1, cell)[:, None]
        roof = 0.76 - (low + (high - low) * tall)
        hue = randoms(scenes.seed, salt + 2, count + 2).gather(1, cell)[:, None, None]  # (B, 1, 1, W)
        brick, plaster = colour(0.74, 0.50, 0.40, like=canvas), colour(0.58, 0.62, 0.72, like=canvas)
        wall = torch.lerp(brick, plaster, (hue * 3).floor() / 2)
        body = frame.cover(torch.maximum(roof - frame.y, frame.y - 0.80))
        edge = 1 - 0.18 * ((along - along.floor()) > 0.86).float().unsqueeze(1)
        canvas = lay(canvas, light.far(wall * edge, haze), body)
        snow = body * winter * frame.cover(frame.y - roof - 0.02)
        canvas = lay(canvas, light.far(colour(0.95, 0.97, 1, like=canvas), haze), snow)
        if salt == 610:
            pane_x, pane_y = (along - along.floor()) * 3, (frame.y - roof - 0.03) / 0.085
            beside = (pane_x % 1 - 0.5).abs() / (3 * count) - 0.3 / (3 * count)
            pane = torch.maximum(beside, (pane_y % 1 - 0.5).abs() * 0.085 - 0.026)
            pane = torch.maximum(pane, torch.maximum(roof + 0.03 - frame.y, frame.y - 0.74))
            index = (pane_y.floor().long().clamp(0, 9) * 3 + pane_x.floor().long() + along.floor().long() * 30) % 128
            awake = randoms(scenes.seed, 620, 128).gather(1, index.flatten(1)).view(index.shape).unsqueeze(1) < 0.65
            dark = light.far(colour(0.33, 0.42, 0.52, like=canvas), 0.1)
            lit = torch.lerp(dark, colour(1.0, 0.83, 0.42, like=canvas), light.lamps)
            canvas = lay(canvas, torch.where(awake, lit, dark), frame.cover(pane))
    kerb, snow = torch.full_like(horizon(scenes), 0.77).expand(-1, -1, frame.size), colour(0.92, 0.95, 1, like=canvas)
    pavement = torch.lerp(colour(0.70, 0.68, 0.66, like=canvas).expand(len(scenes), -1, -1, -1), snow, winter * 0.9)
    canvas = ground(canvas, kerb, light.far(pavement, 0.0), light.far(pavement * 0.95, 0.0), frame)
    canvas = ground(canvas, kerb + 0.05, light.far(colour(0.36, 0.37, 0.41, like=canvas), 0.05),
                    light.far(colour(0.24, 0.25, 0.29, like=canvas), 0.0), frame)
    dash = box((frame.x * 4 + spread(scenes.seed, 630, 0, 1)) % 1 - 0.5, (frame.y - 0.94) * 4, 0.28, 0.035) / 4
    return lay(canvas, light.far(colour(0.95, 0.92, 0.80, like=canvas), 0.0), frame.cover(dash))


PAINT_PLACE = dict(zip(PLACES, (paint_forest, paint_mountains, paint_sea, paint_desert, paint_meadow, paint_city)))


def paint_weather(canvas: Tensor, scenes: Scenes, light: Light, frame: Frame) -> Tensor:
    """Fog, rain or snow in front of everything."""
    fog = is_one_of(scenes.weather, WEATHERS, "fog")[:, None, None]
    thick = 0.80 * torch.exp(-(((frame.y - horizon(scenes) + 0.02) / 0.26) ** 2))
    thick = thick + 0.16 * noise(scenes.seed, 700, 3, 6, frame)
    canvas = lay(canvas, torch.lerp(light.low, light.cloud, 0.3), (thick.clamp(0, 0.9) * fog).unsqueeze(1))
    rain = is_one_of(scenes.weather, WEATHERS, "rain")
    if rain.any():
        seed = scenes.seed[rain]
        streaks = dots(seed, 710, 11, 0.030, 0.6, (frame.x + 0.25 * frame.y) * 1.6 + 1, frame.y * 0.32)
        slant = frame.cover(streaks * 2.2 + 0.016)
        canvas[rain] = lay(canvas[rain], light.low[rain] * 0.65 + 0.35, slant * 0.55)
    snow = is_one_of(scenes.weather, WEATHERS, "snow")
    if snow.any():
        flakes = torch.minimum(dots(scenes.seed[snow], 720, 8, 0.012, 0.8, frame.x, frame.y),
                               dots(scenes.seed[snow], 730, 12, 0.007, 0.8, frame.x, frame.y))
        canvas[snow] = lay(canvas[snow], light.tint[snow] * 0.25 + 0.75, frame.cover(flakes) * 0.95)
    return canvas
