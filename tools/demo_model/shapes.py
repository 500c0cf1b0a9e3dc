"""Signed distances, seeded noise and paint, for batches of pictures of any size.

Picture coordinates run from 0 to 1, right and down. A distance is negative inside the shape.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Where the pixels are: centres `x` (1, 1, W) and `y` (1, H, 1), and the width of a soft edge."""

    size: int
    x: Tensor
    y: Tensor
    soft: float

    @staticmethod
    def of(size: int, device: torch.device) -> "Frame":
        centres = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
        return Frame(size, centres[None, None, :], centres[None, :, None], 1.3 / size)

    def cover(self, distance: Tensor) -> Tensor:
        """How much of each pixel a shape covers, 0..1: (B, 1, H, W) from distances (B, H, W)."""
        return (0.5 - distance / self.soft).clamp_(0, 1).unsqueeze(1)


def lay(canvas: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """The canvas (B, 3, H, W) with `colour` laid over it where `cover` (B, 1, H, W) is 1."""
    return torch.lerp(canvas, colour.expand_as(canvas), cover.expand_as(canvas))


def colour(*rgb: float, like: Tensor) -> Tensor:
    """One colour as (1, 3, 1, 1) on the device of `like`."""
    return torch.tensor(rgb, device=like.device, dtype=torch.float32).view(1, 3, 1, 1)


def randoms(seed: Tensor, salt: int, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each scene's seed: (B, count). The same on every device."""
    n = torch.arange(count, device=seed.device, dtype=torch.int64)[None]
    h = seed.long()[:, None] * 374761393 + n * 668265263 + salt * 1442695041
    for multiplier in (1274126177, 2246822519):
        h = ((h ^ ((h >> 15) & 0x1FFFF)) * multiplier) & 0xFFFFFFFF
    return ((h ^ (h >> 13)) & 0xFFFFFF).float() / float(1 << 24)


def spread(seed: Tensor, salt: int, low: float, high: float) -> Tensor:
    """One number in [low, high) for each scene, as (B, 1, 1)."""
    return low + (high - low) * randoms(seed, salt, 1)[:, :, None]


def noise(seed: Tensor, salt: int, across: int, down: int, frame: Frame) -> Tensor:
    """Smooth noise in about [0, 1] with that many bumps: (B, H, W)."""
    grid = randoms(seed, salt, across * down).view(-1, 1, down, across)
    return F.interpolate(grid, (frame.size, frame.size), mode="bicubic", align_corners=True)[:, 0]


def ridge(seed: Tensor, salt: int, bumps: int, frame: Frame, *, jagged: bool) -> Tensor:
    """A random line over x in [0, 1]: straight between its corners if `jagged`, else smooth. (B, 1, W)"""
    corners = randoms(seed, salt, bumps + 1)
    if jagged:  # peaks and valleys alternate, so that a range never looks flat
        corners = corners * 0.45 + 0.55 * (torch.arange(bumps + 1, device=seed.device) % 2)
        return F.interpolate(corners[:, None], frame.size, mode="linear", align_corners=True)
    grid = corners.view(-1, 1, 1, bumps + 1)
    return F.interpolate(grid, (1, frame.size), mode="bicubic", align_corners=True)[:, 0]


def dots(seed: Tensor, salt: int, cells: int, radius: float, share: float, x: Tensor, y: Tensor) -> Tensor:
    """Distance to scattered dots, at most one in each of cells x cells: (B, H, W)."""
    ix, iy = (x * cells).floor(), (y * cells).floor()
    place = ((iy.long() % cells) * cells + ix.long() % cells).expand(len(seed), -1, -1)

    def own(table: Tensor) -> Tensor:
        return table.gather(1, place.flatten(1)).view(place.shape)

    dx = x * cells - ix - (0.2 + 0.6 * own(randoms(seed, salt, cells * cells)))
    dy = y * cells - iy - (0.2 + 0.6 * own(randoms(seed, salt + 1, cells * cells)))
    size = own(randoms(seed, salt + 2, cells * cells))
    reach = radius * (0.6 + 0.8 * size / share)
    return torch.where(size < share, (dx * dx + dy * dy).sqrt() / cells - reach, torch.ones_like(dx))


def union(*distances: Tensor) -> Tensor:
    """Distance to several shapes together."""
    return reduce(torch.minimum, distances)


def box(u: Tensor, v: Tensor, half_width: float, half_height: float, corner: float = 0.0) -> Tensor:
    dx, dy = u.abs() - half_width + corner, v.abs() - half_height + corner
    outside = (dx.clamp(min=0) ** 2 + dy.clamp(min=0) ** 2).sqrt()
    return outside + torch.maximum(dx, dy).clamp(max=0) - corner


def circle(u: Tensor, v: Tensor, radius: float) -> Tensor:
    return (u * u + v * v).sqrt() - radius


def ellipse(u: Tensor, v: Tensor, a: float, b: float) -> Tensor:
    return circle(u / a, v / b, 1.0) * min(a, b)


def polygon(u: Tensor, v: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Distance to a convex polygon whose corners run clockwise as seen with v upward."""
    distance = None
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1]):
        length = ((u1 - u0) ** 2 + (v1 - v0) ** 2) ** 0.5
        side = ((v - v0) * (u1 - u0) - (u - u0) * (v1 - v0)) / length
        distance = side if distance is None else torch.maximum(distance, side)
    return distance
