"""Painting styles, as filters over a finished picture (1, 3, H, W) in [0, 1]."""
from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(picture: Tensor, radius: int) -> Tensor:
    if radius < 1:
        return picture
    return F.avg_pool2d(F.pad(picture, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)


def noise(random: Random, across: int, down: int, size: int) -> Tensor:
    """Smooth noise in about [0, 1] with that many bumps: (1, 1, H, W)."""
    grid = torch.tensor([random.random() for _ in range(across * down)]).view(1, 1, down, across)
    return F.interpolate(grid, (size, size), mode="bicubic", align_corners=True)


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1)


def edges(picture: Tensor) -> Tensor:
    """Local contrast, (1, 1, H, W), independent of picture size."""
    size = picture.shape[-1]
    grey = blur(picture.mean(1, keepdim=True), size // 200)
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2], wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return blur((across ** 2 + down ** 2).sqrt(), size // 300) * (size / 128) ** 0.6


def watercolor(picture: Tensor, random: Random) -> Tensor:
    """Watercolor: pale washes on paper, darker at their edges, with an unpainted border."""
    size = picture.shape[-1]
    bleed = blur(picture, size // 200)
    grey = bleed.mean(1, keepdim=True)
    bright = grey + (bleed - grey) * 1.15 + 0.10 * (1 - bleed.amax((1, 2, 3), keepdim=True) + 0.5 - grey.mean())
    wash = noise(random, 7, 7, size) * 0.7 + noise(random, 19, 19, size) * 0.3
    pale = torch.lerp(bright, torch.ones_like(bleed), (0.04 + 0.26 * wash.clamp(0, 1)).expand_as(bleed))
    pale = pale - 0.55 * edges(bleed)
    line = (torch.arange(size) + 0.5) / size
    near = torch.minimum(line, 1 - line)
    rim = torch.minimum(near[None, :], near[:, None])
    painted = ((rim - 0.022 - 0.045 * noise(random, 9, 9, size)) / 0.014).clamp(0, 1)
    return torch.lerp(colour(0.98, 0.965, 0.93).expand_as(picture), pale, painted.expand_as(picture))


def ink(picture: Tensor, random: Random) -> Tensor:
    """Ink: dark lines on cream paper, with a thin grey wash."""
    size = picture.shape[-1]
    dark, bright = picture.mean(1).quantile(torch.tensor([0.02, 0.98]))
    even = (picture - dark) / (bright - dark).clamp(min=0.25)  # even a night scene is on paper
    lines = (edges(even) * 3.4 - 0.20).clamp(0, 1)
    grey = blur(blur(even, size // 90), size // 90).mean(1, keepdim=True)
    floor = 0.62 if picture.mean() > 0.3 else 0.34
    tone = floor + (0.97 - floor) * ((grey * 4).floor() / 3).clamp(0, 1)
    return colour(0.97, 0.94, 0.86) * tone * (1 - 0.85 * lines)


def pixel(picture: Tensor, random: Random) -> Tensor:
    """Pixel art: 32 x 32 squares in few colours."""
    small = F.interpolate(picture, (32, 32), mode="area")
    small = ((small - 0.5) * 1.15 + 0.5).clamp(0, 1)
    return F.interpolate((small * 7).round() / 7, picture.shape[2:], mode="nearest")


def oil(picture: Tensor, random: Random) -> Tensor:
    """Oil: smooth dabs (Kuwahara filter: the calmest of four neighbourhoods) with strong colours and brush marks."""
    size = picture.shape[-1]
    reach = max(1, size // 64)
    wide = F.pad(picture, [2 * reach] * 4, mode="replicate")  # so that nothing wraps around from the opposite edge
    mean = blur(wide, reach)
    variance = (blur(wide ** 2, reach) - mean ** 2).sum(1, keepdim=True)
    choices = [(torch.roll(variance, (dy, dx), (2, 3)), torch.roll(mean, (dy, dx), (2, 3)))
               for dy in (-reach, reach) for dx in (-reach, reach)]
    calm, best = choices[0]
    for other, value in choices[1:]:
        best, calm = torch.where(other < calm, value, best), torch.minimum(calm, other)
    best = best[..., 2 * reach:-2 * reach, 2 * reach:-2 * reach]
    strokes = noise(random, 10, 34, size) + noise(random, 22, 12, size) - 1
    rich = best.mean(1, keepdim=True)
    return rich + (best - rich) * 1.35 + 0.085 * strokes


def stained_glass(picture: Tensor, random: Random, *, across: int = 13) -> Tensor:
    """Stained glass: panes of one strong colour between strips of lead that follow the shapes; superpixels, `across` per row.

    As in SLIC (Achanta et al. 2012): pixels join the nearest centre by position and colour, and centres move to their mean.
    """
    size = picture.shape[-1]
    line = (torch.arange(size) + 0.5) * across / size
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"))
    spots = torch.cat([places, 5 * blur(picture, size // 100)[0]]).flatten(1).T  # (pixels, 5)
    pane = size / across
    centres = spots[[int((row + random.random()) * pane) * size + int((column + random.random()) * pane)
                     for row in range(across) for column in range(across)]]
    for _ in range(3):
        pane = torch.cdist(spots, centres).argmin(1)
        counts = torch.bincount(pane, minlength=len(centres))[:, None].clamp(min=1)
        centres = torch.zeros_like(centres).index_add_(0, pane, spots) / counts
    colours = torch.zeros(len(centres), 3).index_add_(0, pane, picture[0].flatten(1).T) / counts
    glass = colours[pane].T.reshape(picture.shape)
    grey = glass.mean(1, keepdim=True)
    rich = (grey + (glass - grey) * 1.5).clamp(0, 1) * (0.9 + 0.2 * noise(random, 30, 30, size)) + 0.05
    pane = F.pad(pane.view(1, 1, size, size).float(), (0, 1, 0, 1), mode="replicate")
    border = (pane[..., :-1, :-1] != pane[..., :-1, 1:]) | (pane[..., :-1, :-1] != pane[..., 1:, :-1])
    wide = 2 * (size // 170) + 1
    lead = blur(F.max_pool2d(border.float(), wide, 1, wide // 2), size // 200)
    return torch.lerp(rich, colour(0.07, 0.07, 0.09).expand_as(rich), lead.expand_as(rich))


FILTERS = {"watercolor": watercolor, "ink": ink, "pixel": pixel, "oil": oil, "stained glass": stained_glass}
"""By the style's name; stained glass is never drawn at random: the demo's LoRA teaches it."""
