"""Brownian motion determined by a seed alone: the noise of the DPM++ SDE samplers.

Gives the numbers of torchsde 0.2.6's BrownianTree as used by k-diffusion's BrownianTreeNoiseSampler.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

Randn = Callable[[int, tuple[int, ...]], Tensor]
"""(seed, shape) → the first standard normals of that seed."""

DIGITS = 6  # torchsde's tol of 1e-6: times are known to this many decimals
POOL_SIZE = 24
CACHED_SPLITS = 64  # two paths down the tree, each about 24 long: successive queries share an end


class BrownianNoise:
    """Increments of one Brownian motion per seed between two noise levels: (B, C, h, w), variance 1.

    They depend only on the seed and the two levels, so one seed gives similar pictures at different step counts. Levels are
    clamped to sigma_min..sigma_max; seeds are taken modulo 2**64.
    """

    def __init__(self, shape: tuple[int, ...], seeds: list[int], sigma_min: float, sigma_max: float, *,
                 randn: Randn, device: torch.device):
        def draw(seed: int) -> Tensor:
            return randn(seed, shape).to(device)

        self.trees = [BrownianTree(seed % 2**64, float(sigma_min), float(sigma_max), draw) for seed in seeds]

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        sigma, sigma_next = torch.as_tensor(sigma), torch.as_tensor(sigma_next)
        low, high = sorted((float(sigma), float(sigma_next)))
        sign = 1 if sigma < sigma_next else -1
        w = torch.stack([tree.increment(low, high) for tree in self.trees]) * sign
        return w / (sigma_next - sigma).abs().sqrt()


class BrownianTree:
    """A Brownian motion over start..end, refined by bisection. `draw` gives the normals of a 32-bit seed."""

    def __init__(self, entropy: int, start: float, end: float, draw: Callable[[int], Tensor]):
        w = draw(node_seed(entropy)) * math.sqrt(end - start)
        self.root = Interval(round(start, DIGITS), round(end, DIGITS), w)
        self._halves = lru_cache(CACHED_SPLITS)(partial(halves, entropy=entropy, draw=draw))

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start), for start <= end."""
        start, end = (min(max(round(t, DIGITS), self.root.start), self.root.end) for t in (start, end))
        return sum(self._increments(self.root, start, end), start=torch.zeros_like(self.root.w))

    def _increments(self, node: "Interval", start: float, end: float) -> Iterator[Tensor]:
        """The increments of the largest nodes that make up start..end, left to right."""
        if start == end:
            return
        if (start, end) == (node.start, node.end):
            yield node.w
            return
        left, right = self._halves(node)
        if start < left.end:
            yield from self._increments(left, start, min(end, left.end))
        if end > left.end:
            yield from self._increments(right, max(start, left.end), end)


@dataclass(frozen=True, eq=False)
class Interval:
    """A node of the tree: w is the motion's increment over start..end."""

    start: float
    end: float
    w: Tensor
    path: int = 0
    """Turns from the root as binary digits, 1 = right."""
    depth: int = 0


def halves(node: Interval, *, entropy: int, draw: Callable[[int], Tensor]) -> tuple[Interval, Interval]:
    """The Brownian bridge: the left half's increment is normal around its share; the right half gets the rest."""
    midway = round(0.5 * (node.end + node.start), DIGITS)
    left, right, per_length = midway - node.start, node.end - midway, 1 / (node.end - node.start)
    noise = draw(node_seed(entropy, node.path, node.depth))
    left_w = left * node.w * per_length + math.sqrt(left * right * per_length) * noise
    return (Interval(node.start, midway, left_w, 2 * node.path, node.depth + 1),
            Interval(midway, node.end, node.w - left_w, 2 * node.path + 1, node.depth + 1))


def node_seed(entropy: int, *spawn_key: int) -> int:
    sequence = np.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=POOL_SIZE)
    return int(sequence.generate_state(1)[0])
