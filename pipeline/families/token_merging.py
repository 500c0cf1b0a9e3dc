"""Token merging (Bolya and Hoffman, 2023): self-attention over fewer tokens, with the most similar ones merged.

Matching is tomesd 0.1.3's without random numbers. Only layers at the latent's full resolution merge.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn


@contextmanager
def merging_tokens(unet: nn.Module, ratio: float) -> Iterator[None]:
    """Context in which a diffusers UNet merges this fraction of its self-attention tokens."""
    if ratio <= 0:
        yield
        return
    layers = [MergingLayer(ratio) for _ in transformer_blocks(unet)]

    def take_size(_unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        for layer in layers:
            layer.size = tuple(sample.shape[-2:])

    with ExitStack() as hooks:
        hooks.enter_context(unet.register_forward_pre_hook(take_size, with_kwargs=True))
        for block, layer in zip(transformer_blocks(unet), layers):
            hooks.enter_context(block.register_forward_pre_hook(layer.match))
            hooks.enter_context(block.attn1.register_forward_pre_hook(layer.merge))
            hooks.enter_context(block.attn1.register_forward_hook(layer.unmerge))
        yield


def transformer_blocks(unet: nn.Module) -> list[nn.Module]:
    return [module for module in unet.modules() if hasattr(module, "attn1") and hasattr(module, "norm1")]


class MergingLayer:
    """The hooks of one transformer block."""

    def __init__(self, ratio: float):
        self.ratio = ratio
        self.size = (0, 0)
        """(h, w) of the latent."""
        self.matches: Matches | None = None

    def match(self, _block: nn.Module, args: tuple) -> None:
        """Find what to merge, from the block's input tokens before the norm."""
        tokens, (height, width) = args[0], self.size
        downsample = math.ceil(math.sqrt(height * width // tokens.shape[1]))
        self.matches = Matches.find(tokens, height, width, int(tokens.shape[1] * self.ratio)) if downsample <= 1 else None

    def merge(self, _attention: nn.Module, args: tuple) -> tuple | None:
        return None if self.matches is None else (self.matches.merge(args[0]), *args[1:])

    def unmerge(self, _attention: nn.Module, _args: tuple, output: Tensor) -> Tensor | None:
        return None if self.matches is None else self.matches.unmerge(output)


@dataclass(frozen=True)
class Matches:
    """Which of the tokens (B, h*w, C) to merge. The first of each 2x2 square is a target; the others are sources."""

    targets: Tensor
    """(n,): indices of the targets."""
    sources: Tensor
    """(m,)."""
    merged: Tensor
    """(B, r): sources to merge."""
    into: Tensor
    """(B, r): the target of each."""
    kept: Tensor
    """(B, m - r): sources to keep."""

    @classmethod
    def find(cls, tokens: Tensor, height: int, width: int, count: int) -> Self | None:
        """The `count` sources with the highest cosine similarity to a target; None: nothing to merge."""
        is_target = torch.zeros(height, width, dtype=torch.bool)  # on the CPU, as counting on a GPU would synchronize
        is_target[:height // 2 * 2:2, :width // 2 * 2:2] = True
        targets, sources = (places.flatten().nonzero()[:, 0].to(tokens.device, non_blocking=True)
                            for places in (is_target, ~is_target))
        count = min(count, len(sources))
        if count <= 0 or not len(targets):
            return None
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        likeness, nearest = (unit[:, sources] @ unit[:, targets].transpose(-1, -2)).max(dim=-1)
        order = likeness.argsort(dim=-1, descending=True)
        merged = order[:, :count]
        return cls(targets, sources, merged, nearest.gather(1, merged), order[:, count:])

    def merge(self, tokens: Tensor) -> Tensor:
        """(B, h*w - r, C): the kept sources, then the targets, each averaged with the sources merged into it."""
        sources, targets = tokens[:, self.sources], tokens[:, self.targets]
        into = self.into[..., None].expand(-1, -1, tokens.shape[-1])
        targets = targets.scatter_reduce(1, into, rows(sources, self.merged), reduce="mean")
        return torch.cat([rows(sources, self.kept), targets], dim=1)

    def unmerge(self, tokens: Tensor) -> Tensor:
        """(B, h*w, C): merged sources get their target's value."""
        kept, targets = tokens.split([self.kept.shape[1], len(self.targets)], dim=1)
        sources = tokens.new_empty(len(tokens), len(self.sources), tokens.shape[-1])
        for places, values in ((self.kept, kept), (self.merged, rows(targets, self.into))):
            sources.scatter_(1, places[..., None].expand_as(values), values)
        whole = tokens.new_empty(len(tokens), len(self.sources) + len(self.targets), tokens.shape[-1])
        whole[:, self.sources], whole[:, self.targets] = sources, targets
        return whole


def rows(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, r, C): tokens (B, m, C) at indices (B, r)."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
