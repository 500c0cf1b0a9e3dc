"""Painting styles, as filters over a finished picture (B, 3, H, W) in [0, 1]."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo_model.shapes import Frame, colour, lay, noise


def blur(picture: Tensor, radius: int) -> Tensor:
    if radius < 1:
        return picture
    return F.avg_pool2d(F.pad(picture, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)


def edges(picture: Tensor, frame: Frame) -> Tensor:
    """How strongly the brightness changes, (B, 1, H, W), alike at every picture size."""
    grey = blur(picture.mean(1, keepdim=True), frame.size // 200)
    wide = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2], wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return blur((across ** 2 + down ** 2).sqrt(), frame.size // 300) * (frame.size / 128) ** 0.6


def watercolor(picture: Tensor, seed: Tensor, frame: Frame) -> Tensor:
    """Pale washes on paper, darker at their rims, with an unpainted border."""
    bleed = blur(picture, frame.size // 100)
    wash = noise(seed, 800, 6, 6, frame).unsqueeze(1)
    pale = torch.lerp(bleed, torch.ones_like(bleed), 0.06 + 0.24 * wash.clamp(0, 1)) - 0.45 * edges(bleed, frame)
    rim = torch.minimum(torch.minimum(frame.x, 1 - frame.x), torch.minimum(frame.y, 1 - frame.y))
    painted = ((rim - 0.025 - 0.045 * noise(seed, 810, 9, 9, frame)) / 0.02).clamp(0, 1).unsqueeze(1)
    return lay(colour(0.98, 0.965, 0.93, like=picture).expand_as(picture), pale, painted)


def ink(picture: Tensor, seed: Tensor, frame: Frame) -> Tensor:
    """Dark lines on cream paper, with a thin grey wash."""
    lines = (edges(picture, frame) * 4.5 - 0.15).clamp(0, 1)
    grey = blur(picture, frame.size // 64).mean(1, keepdim=True)
    tone = 0.45 + 0.55 * ((grey * 4).floor() / 3).clamp(0, 1)
    return (colour(0.97, 0.94, 0.86, like=picture) * tone * (1 - 0.85 * lines)).clamp(0, 1)


def pixel(picture: Tensor, seed: Tensor, frame: Frame) -> Tensor:
    """32 x 32 large squares in few colours."""
    small = F.interpolate(picture, (32, 32), mode="area")
    small = ((small - 0.5) * 1.12 + 0.5).clamp(0, 1)
    return F.interpolate((small * 7).round() / 7, (frame.size, frame.size), mode="nearest")


def oil(picture: Tensor, seed: Tensor, frame: Frame) -> Tensor:
    """Smooth dabs (a Kuwahara filter: the calmest of four neighbourhoods) with strong colours and brush marks."""
    reach = max(1, frame.size // 48)
    mean = blur(picture, reach)
    variance = (blur(picture ** 2, reach) - mean ** 2).sum(1, keepdim=True)
    choices = [(torch.roll(variance, (dy, dx), (2, 3)), torch.roll(mean, (dy, dx), (2, 3)))
               for dy in (-reach, reach) for dx in (-reach, reach)]
    calm, best = choices[0]
    for other, value in choices[1:]:
        best, calm = torch.where(other < calm, value, best), torch.minimum(calm, other)
    strokes = noise(seed, 820, 10, 34, frame) + noise(seed, 830, 22, 12, frame) - 1
    rich = best.mean(1, keepdim=True)
    return (rich + (best - rich) * 1.35 + 0.075 * strokes.unsqueeze(1)).clamp(0, 1)


FILTERS = {"watercolor": watercolor, "ink": ink, "pixel": pixel, "oil": oil}
