"""Seeds and their noise: one stream of normals per image, and no global generator."""

import secrets
from collections.abc import Callable
from copy import copy
from random import Random

import torch
from torch import Tensor

from pipeline.errors import UnknownName
from pipeline.philox import PhiloxGenerator

RANDN_SOURCES = ("GPU", "CPU", "NV")
Shape = tuple[int, ...]


def random_seed() -> int:
    """A random seed, 0 to 4294967293."""
    return secrets.randbelow(4294967294)


def seed_by(chance: str, place: int | str) -> int:
    """A random seed, 0 to 4294967293, that is the same for the same chance and place."""
    return Random(f"{chance} {place}").randrange(4294967294)


def fixed_seed(seed: int | str | None, draw: Callable[[], int] = random_seed) -> int:
    """The seed itself, or a random one for None, "", -1 and text that is not a number."""
    try:
        seed = int(seed)
    except (TypeError, ValueError):
        return draw()
    return draw() if seed == -1 else seed


def normal_stream(seed: int, *, source: str, device: torch.device) -> Callable[[Shape], Tensor]:
    """A fresh generator as a function: shape → the next normals of that shape, float32 on `device`.

    Seeds are taken modulo 2**64. "GPU" draws on `device`, except on the CPU if `device` is the CPU or MPS.
    """
    if source not in RANDN_SOURCES:
        raise UnknownName("randn_source", "random number source", source, RANDN_SOURCES)
    if source == "NV":
        philox = PhiloxGenerator(seed)
        return lambda shape: torch.from_numpy(philox.randn(shape)).to(device, non_blocking=True)
    place = device if source == "GPU" and device.type != "mps" else torch.device("cpu")
    generator = torch.Generator(place).manual_seed(seed % 2**64)
    return lambda shape: torch.randn(shape, generator=generator, device=place).to(device, non_blocking=True)


def randn_local(seed: int, shape: Shape, *, source: str, device: torch.device) -> Tensor:
    """The first normals of `seed`."""
    return normal_stream(seed, source=source, device=device)(shape)


class ImageRNG:
    """The noise of a batch, (B, C, h, w) per draw, with each image drawing from its own seed.

    So each image gets the noise that it would get alone. `shape` is (C, h, w). With `subseed_strength` the first draw is
    interpolated from the seed's noise to the subseed's. With both `seed_resize_from` (pixels), it is the noise of that other
    size, centred; `downscale`: pixels per latent cell. After the first draw, seeds continue as seed + `eta_noise_seed_delta`.
    """

    def __init__(self, shape: Shape, seeds: list[int], *, source: str = "GPU",
                 device: torch.device = torch.device("cpu"), subseeds: list[int] | None = None,
                 subseed_strength: float = 0.0, seed_resize_from_h: int = 0, seed_resize_from_w: int = 0,
                 eta_noise_seed_delta: int = 0, downscale: int = 8):
        self.shape = tuple(shape)
        self.seeds = seeds
        self.source = source
        self.device = device
        self.subseeds = subseeds
        self.subseed_strength = subseed_strength
        self.seeded_shape = self.shape
        if seed_resize_from_h > 0 and seed_resize_from_w > 0:
            self.seeded_shape = (self.shape[0], seed_resize_from_h // downscale, seed_resize_from_w // downscale)
        self.eta_noise_seed_delta = eta_noise_seed_delta
        self._streams = [self._stream(seed) for seed in seeds]
        self._is_first = True

    def anew(self) -> "ImageRNG":
        """The same noise from the start."""
        other = copy(self)
        other._streams, other._is_first = [self._stream(seed) for seed in self.seeds], True
        return other

    def next(self) -> Tensor:
        if self._is_first:
            self._is_first = False
            return self.first()
        return torch.stack([stream(self.shape) for stream in self._streams])

    def first(self) -> Tensor:
        """The draw that subseeds and seed resizing apply to. `next` starts with it."""
        noise = torch.stack([self._first_of(i) for i in range(len(self.seeds))])
        if self.eta_noise_seed_delta:
            self._streams = [self._stream(seed + self.eta_noise_seed_delta) for seed in self.seeds]
        return noise

    def _first_of(self, i: int) -> Tensor:
        resized = self.seeded_shape != self.shape
        noise = (self._stream(self.seeds[i]) if resized else self._streams[i])(self.seeded_shape)
        if self.subseeds is not None and self.subseed_strength:
            subseed = self.subseeds[i] if i < len(self.subseeds) else 0
            noise = slerp(self.subseed_strength, noise, self._stream(subseed)(self.seeded_shape))
        return paste_centre(noise, self._streams[i](self.shape)) if resized else noise

    def _stream(self, seed: int) -> Callable[[Shape], Tensor]:
        return normal_stream(seed, source=self.source, device=self.device)


def slerp(strength: float, low: Tensor, high: Tensor) -> Tensor:
    """From `low` (strength 0) to `high` (1) along a great circle, for noise of shape (C, h, w).

    A1111: angles are taken per column, along the height only. Nearly equal noises are mixed with swapped weights.
    """
    low_unit = low / low.norm(dim=1, keepdim=True)
    high_unit = high / high.norm(dim=1, keepdim=True)
    cosine = (low_unit * high_unit).sum(dim=1, keepdim=True)  # (C, 1, w)
    if cosine.mean() > 0.9995:
        return low * strength + high * (1 - strength)
    omega = cosine.acos()
    return ((1 - strength) * omega).sin() / omega.sin() * low + (strength * omega).sin() / omega.sin() * high


def paste_centre(noise: Tensor, canvas: Tensor) -> Tensor:
    """`canvas` (C, h, w) with `noise` (C, h0, w0) written over its centre, cropped if it is larger."""
    rows, noise_rows = centred(canvas.shape[1], noise.shape[1])
    columns, noise_columns = centred(canvas.shape[2], noise.shape[2])
    canvas[:, rows, columns] = noise[:, noise_rows, noise_columns]
    return canvas


def centred(length: int, other: int) -> tuple[slice, slice]:
    """Where `other` lies when centred on `length`, as (part of length, part of other)."""
    margin = (length - other) // 2  # A1111: floored, so an odd crop leaves one line of the canvas
    copied = other + 2 * min(margin, 0)
    start, other_start = max(margin, 0), max(-margin, 0)
    return slice(start, start + copied), slice(other_start, other_start + copied)
