"""Conditioning of a network, and the settings for encoding prompts."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.geometry import Size


@dataclass(frozen=True)
class Cond:
    """What the network is conditioned on, for a batch of B prompts. Only the family that made it reads it."""

    tokens: Tensor
    """(B, T, width) features of the prompts' tokens."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Further inputs of the network, by name; B rows each."""
    mask: Tensor | None = None
    """(B, T) bool: tokens to attend to; None: all."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "Cond":
        return self._with(lambda tensor: tensor[rows])

    @property
    def length(self) -> int:
        """Tokens per row."""
        return self.tokens.shape[1]

    @staticmethod
    def cat(conds: list["Cond"]) -> "Cond":
        """The rows of all, padded to one length."""
        longest = max(cond.length for cond in conds)
        conds = [cond.padded(longest) for cond in conds]
        first = conds[0]
        return Cond(torch.cat([cond.tokens for cond in conds]),
                    {name: torch.cat([cond.extra[name] for cond in conds]) for name in first.extra},
                    None if first.mask is None else torch.cat([cond.mask for cond in conds]))

    def padded(self, length: int) -> "Cond":
        """At least `length` tokens: added ones are masked, or repeat the last token if there is no mask."""
        missing = length - self.length
        if missing <= 0:
            return self
        if self.mask is None:
            return replace(self, tokens=torch.hstack([self.tokens, self.tokens[:, -1:].expand(-1, missing, -1)]))
        return replace(self, tokens=F.pad(self.tokens, (0, 0, 0, missing)), mask=F.pad(self.mask, (0, missing)))

    def followed_by(self, other: "Cond", length: int) -> "Cond":
        """At least `length` tokens: extended by repeating the tokens of `other`, which has one row; masked ones if there is a mask."""
        if self.mask is not None:
            return self.padded(length)
        times = max(length - self.length, 0) // other.length
        if times == 0:
            return self
        return replace(self, tokens=torch.hstack([self.tokens, *[other.tokens.expand(len(self), -1, -1)] * times]))

    def cut(self, length: int) -> "Cond":
        """The first `length` tokens."""
        return replace(self, tokens=self.tokens[:, :length], mask=None if self.mask is None else self.mask[:, :length])

    def copied(self) -> "Cond":
        return self._with(Tensor.clone)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Cond":
        return Cond(change(self.tokens), {name: change(tensor) for name, tensor in self.extra.items()},
                    None if self.mask is None else change(self.mask))


@dataclass(frozen=True)
class Reference:
    """A further picture that the network sees beside the noise."""

    key: Hashable
    """Equal for equal contents."""
    latent: Tensor = field(compare=False)
    """(1, C, h, w), at model scale; of its own size. Zero channels: the network sees the picture otherwise."""
    read: Tensor | None = field(default=None, compare=False)
    """(1, 3, h, w) in [-1, 1], for text encoders that see pictures; None: the model has none."""


@dataclass(frozen=True)
class Encoding:
    """How to encode texts, and what else the network is told; each family uses what applies to it."""

    emphasis: str = "Original"
    comma_backtrack: int = 20
    """How many tokens before the end of a chunk a comma may end it."""
    clip_skip: int = 1
    """The hidden layer to take, counted from the end."""
    clip_l_skip: bool = False
    """Whether clip_skip applies to SDXL's first text encoder."""
    old_emphasis: bool = False
    """Use the attention grammar of 2022, in families that support it."""
    negative: bool = False
    """A negative prompt."""
    size: Size = Size(1024, 1024)
    """Requested picture size in pixels."""
    crop_top: int = 0
    crop_left: int = 0
    aesthetic_score: float = 6.0
    """For SDXL's refiner."""
    references: tuple[Reference, ...] = ()
    source: Reference | None = None
    """The source picture, for text encoders that see it."""
    guidance: float = 3.5
    """For networks distilled with guidance as an input, such as FLUX.1 dev."""
