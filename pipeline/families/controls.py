"""Controls: networks that guide a model by pictures, and how strongly each acts at a call. Imports no network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import InvalidRequest
from pipeline.families.placement import Placement

BALANCED, PROMPT, CONTROL = MODES = ("Balanced", "My prompt is more important", "ControlNet is more important")
"""The extension's names."""


@dataclass(frozen=True)
class Features:
    """What an IP-Adapter takes of a picture, by CLIP."""

    width: int
    deep: bool
    """True: the last layer but one, for each patch (n, width); False: the picture as a whole (width,)."""


class ControlNetwork(Protocol):
    """A network that guides a model; only its family knows what it computes."""

    name: str
    union: bool
    """Whether it was trained on several kinds of maps, and must be told which one it gets."""
    types: int
    """How many kinds that are; 0 for others."""
    reads: Features | None
    """What it takes in place of a map; None: it takes a map."""

    def move_to(self, placement: Placement, *, computes: bool) -> None:
        """Bring its weights to the device, or to where that placement keeps idle weights."""

    def check(self, network: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another kind of network than that of a model with this name."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that stands beside a model's own."""

    name: str
    module: nn.Module

    def move_to(self, placement: Placement, *, computes: bool) -> None:
        self.module.to(placement.device if computes else placement.home)


@dataclass(frozen=True)
class MapNetwork(LoadedNetwork):
    """One that takes a map; not trained on several kinds unless it says so."""

    union: ClassVar[bool] = False
    types: ClassVar[int] = 0
    reads: ClassVar[None] = None


class PictureEncoder(Protocol):
    """Reads pictures for IP-Adapters."""

    def move_to(self, placement: Placement, *, computes: bool) -> None:
        """As of a ControlNetwork."""

    def features(self, picture: Tensor, *, deep: bool) -> Tensor:
        """(2, …): the features of a picture (1, 3, S, S) in [0, 1], and those that stand for no picture."""


@dataclass(frozen=True)
class Encoders:
    """The picture encoders that there are, and how they are read."""

    files: Callable[[], list[Any]]
    """The files or folders, each with its path."""
    fits: Callable[[Path, Features], bool]
    """Whether an encoder gives these features."""
    read: Callable[[Path, str, Placement], PictureEncoder]


@dataclass(frozen=True)
class Control:
    """A network with its picture."""

    network: ControlNetwork
    hint: Tensor
    """(1, 3 or 4, H, W) in [0, 1]; the fourth channel is a mask, 1 = paint. For an IP-Adapter the picture's features and those of no picture."""
    weight: float = 1.0
    start: float = 0.0
    """It acts while the fraction of steps done is between these two."""
    end: float = 1.0
    mode: str = BALANCED
    """One of MODES."""
    layers: tuple[float, ...] | None = None
    """A weight for each output of the network, in place of `weight` and the mode's."""
    region: Tensor | None = None
    """(1, 1, H, W): how strongly it acts where; None: everywhere."""
    kind: int | None = None
    """What a union gets, by its number."""


class Correction(Protocol):
    """Changes x0 estimates towards a control picture."""

    def __call__(self, x0: Tensor, negative: list[bool]) -> Tensor:
        """x0 (B, C, h, w); negative: for each row whether it is for the negative prompt."""


@dataclass
class Controls:
    """The controls of a run. The sampler says where it is and which rows a call has; the family asks what acts."""

    controls: Sequence[Control]
    corrections: Sequence[Correction] = ()
    negative: list[bool] = field(default_factory=list)
    """For each row of the current call whether it is for the negative prompt."""
    _steps: int = 1
    _reported: int = 0

    def begin(self, steps: int) -> None:
        """A sampling of that many steps begins."""
        self._steps, self._reported = max(steps, 1), 0

    def report(self, step: int) -> None:
        """That step has its first x0 estimate; the first step is 0."""
        self._reported = step

    @property
    def active(self) -> list[Control]:
        """The controls that act in this call."""
        # extension: counts the steps reported so far, so the first two calls are both at 0
        done = self._reported / self._steps
        return [control for control in self.controls if control.start <= done <= control.end]

    def corrected(self, x0: Tensor) -> Tensor:
        for correction in self.corrections:
            x0 = correction(x0, self.negative)
        return x0


# --- a run's networks

@contextmanager
def computing(controls: Controls, kinds: type | UnionType, network: nn.Module, model: str, placement: Placement) -> Iterator[list[Any]]:
    """The networks of these controls, which compute meanwhile: checked against a model's own network, and on the device.

    kinds: the classes that the model's family can be guided by. Raises InvalidRequest for others.
    """
    found = list(dict.fromkeys(control.network for control in controls.controls))
    for one in found:
        if not isinstance(one, kinds):
            raise of_another_kind(one.name, model)
        one.check(network, model)
    try:
        for one in found:
            one.move_to(placement, computes=True)
        yield found
    finally:
        for one in found:
            one.move_to(placement, computes=False)


def of_another_kind(name: str, model: str, why: str = "") -> InvalidRequest:
    """The error for a network that does not fit a model."""
    return InvalidRequest("alwayson_scripts", f'ControlNet: "{name}" was made for another kind of checkpoint than "{model}"{why}')


# --- within transformers, whose networks have any number of outputs

SOFT, DEPTH = 0.825, 12
"""Without Balanced the first output counts SOFT ** DEPTH, the last one fully, as with SD's thirteen."""


def share_of(control: Control, index: int, outputs: int, negative: list[bool], like: Tensor) -> Tensor | float:
    """How much one of a network's outputs (B, n, C) counts besides the weight, by the control's mode: for each row, or for all."""
    if control.layers is not None:
        return control.layers[index] if index < len(control.layers) else 0.0
    share = 1.0 if control.mode == BALANCED else SOFT ** (DEPTH * (1 - index / max(outputs - 1, 1)))
    if control.mode != CONTROL:
        return share
    return torch.tensor([0.0 if row else share for row in negative], dtype=like.dtype).reshape(-1, 1, 1).to(like.device, non_blocking=True)


def share_of_tokens(control: Control, size: tuple[int, int], like: Tensor) -> Tensor | float:
    """How strongly a control acts on each token of an output (B, n, C): on the first h * w, the picture's, by its region; on others fully."""
    if control.region is None:
        return 1.0
    tokens = F.interpolate(control.region.to(like), size, mode="bilinear").flatten()
    return F.pad(tokens, (0, like.shape[1] - len(tokens)), value=1.0)[None, :, None]


def weighted(control: Control, outputs: Sequence[Tensor], negative: list[bool], size: tuple[int, int]) -> list[Tensor]:
    """A network's outputs (B, n, C) as its control's mode and region have them; size: the picture's tokens."""
    return [output * share_of(control, index, len(outputs), negative, output) * share_of_tokens(control, size, output)
            for index, output in enumerate(outputs)]


def over_blocks(outputs: Sequence[Tensor], blocks: int, tokens: int, *, repeats: bool = False) -> list[Tensor]:
    """One of the outputs for each of a transformer's blocks, which see that many tokens: each follows as many of them.

    repeats: the outputs follow one after the other, again and again.
    """
    each = -(-blocks // len(outputs))
    return [F.pad(outputs[block % len(outputs) if repeats else block // each], (0, 0, 0, tokens - outputs[0].shape[1])) for block in range(blocks)]


def summed(sums: list[Tensor] | None, others: list[Tensor]) -> list[Tensor]:
    return others if sums is None else [a + b for a, b in zip(sums, others)]


def inpainting_context(name: str, hint: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """What an inpainting network sees (1, C + 1, h, w): the latent of the picture, black where it paints, and a mask, 1 = keep.

    encode: pixels (1, 3, H, W) in [-1, 1] → latent. Raises InvalidRequest for a hint without a mask.
    """
    if hint.shape[1] == 3:
        raise InvalidRequest("alwayson_scripts", f'ControlNet: "{name}" inpaints; it takes a mask, and the preprocessor inpaint')
    mask = (hint[:, 3:] > 0.5).to(hint)
    latent = encode((hint[:, :3] * 2 - 1) * (1 - mask) - mask)
    return torch.cat([latent, F.interpolate(1 - mask, latent.shape[-2:], mode="nearest").to(latent)], dim=1)


# --- corrections

@dataclass(frozen=True)
class ColorFix:
    """Keeps the control picture's colours: what is coarser than `reach` latent cells."""

    latent: Tensor
    """(1, C, h, w): the control picture's."""
    reach: int
    weight: float
    sharpness: float = 0.0
    """The fraction of blurring for the negative prompt."""

    def __call__(self, x0: Tensor, negative: list[bool]) -> Tensor:
        fixed = x0 - blurred(x0, self.reach) + blurred(self.latent.to(x0), self.reach)
        if self.sharpness:
            dull = self.sharpness * blurred(fixed, self.reach) + (1 - self.sharpness) * fixed
            share = per_row(negative, x0)
            fixed = (1 - share) * fixed + share * dull
        return towards(x0, fixed, self.weight)


@dataclass(frozen=True)
class Restore:
    """Keeps the control picture where its mask does not paint."""

    latent: Tensor
    mask: Tensor
    """(1, 1, h, w), 1 = paint."""
    weight: float

    def __call__(self, x0: Tensor, negative: list[bool]) -> Tensor:
        mask = self.mask.to(x0)
        return towards(x0, x0 * mask + self.latent.to(x0) * (1 - mask), self.weight)


def blurred(latent: Tensor, reach: int) -> Tensor:
    """The mean over a square of 2 * reach + 1 cells; the edge's cells go on beyond it."""
    padded = F.pad(latent, (reach,) * 4, mode="replicate")
    return F.avg_pool2d(padded, 2 * reach + 1, stride=1)


def per_row(values: list[bool], like: Tensor) -> Tensor:
    """1 or 0 for each row of a batch, to multiply it with; without waiting for the device."""
    return torch.tensor(values, dtype=like.dtype).reshape(-1, 1, 1, 1).to(like.device, non_blocking=True)


def towards(x0: Tensor, target: Tensor, weight: float) -> Tensor:
    weight = min(max(weight, 0.0), 1.0)
    return target * weight + x0 * (1 - weight)
