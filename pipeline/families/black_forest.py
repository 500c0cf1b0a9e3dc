"""Names of tensors in Black Forest Labs' code, which LoRA files use too, and diffusers' names of the same; for FLUX.1 and FLUX.2."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.families.checkpoint import Stored

SWAPPED = "final_layer.adaLN_modulation.1"
"""Holds shift and scale; in diffusers, as norm_out.linear, scale and shift."""
BLOCKS = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}
_BLOCK = re.compile(r"(double_blocks|single_blocks)\.(\d+)\.(.+)")
_DIFFUSERS_BLOCK = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Names:
    """Paths of modules: the original code's → diffusers'."""

    ends: Mapping[str, str]
    """Outside the blocks."""
    double: Mapping[str, str]
    single: Mapping[str, str]
    """Within a block of each kind."""
    fused: Mapping[str, Mapping[str, int]]
    """Within a block: a layer that diffusers splits → its parts with their shares of the rows, in order."""

    def converted(self, stored: Stored, name: str) -> dict[str, Stored]:
        """A tensor under diffusers' names; `name` is that in its network."""
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "scale", "bias"):
            return {name: stored}  # of a quantized weight
        kind = "weight" if kind == "scale" else kind
        if module == SWAPPED:
            return {f"norm_out.linear.{kind}": replace(stored, change=swapped)}
        if (block := _BLOCK.fullmatch(module)) is None:
            return {f"{self.ends.get(module, module)}.{kind}": stored}
        place, inner = f"{BLOCKS[block[1]]}.{block[2]}", block[3]
        if inner in self.fused:
            shares = tuple(self.fused[inner].values())
            return {f"{place}.{part}.{kind}": replace(stored, change=partial(share, index=index, shares=shares))
                    for index, part in enumerate(self.fused[inner])}
        return {f"{place}.{self._within(block[1]).get(inner, inner)}.{kind}": stored}

    def original(self, path: str) -> list[str]:
        """The original code's path for diffusers' path of a module; none where it has no such module."""
        if block := _DIFFUSERS_BLOCK.fullmatch(path):
            theirs = next(theirs for theirs, ours in BLOCKS.items() if ours == block[1])
            return [f"{theirs}.{block[2]}.{old}" for old, new in self._within(theirs).items() if new == block[3]]
        return [old for old, new in self.ends.items() if new == path]

    def fused_in(self, transformer: nn.Module) -> dict[str, list[str]]:
        """The original code's paths of all layers that diffusers splits in this network → the parts' paths."""
        modules = {path for path, _ in transformer.named_modules()}
        return {f"{theirs}.{number}.{layer}": paths for theirs, ours in BLOCKS.items() for number in range(len(getattr(transformer, ours)))
                for layer, parts in self.fused.items()
                if modules.issuperset(paths := [f"{ours}.{number}.{part}" for part in parts])}

    def _within(self, block: str) -> Mapping[str, str]:
        return self.double if block == "double_blocks" else self.single


QKV = {"img_attn.qkv": {f"attn.to_{part}": 1 for part in "qkv"}, "txt_attn.qkv": {f"attn.add_{part}_proj": 1 for part in "qkv"}}


def share(tensor: Tensor, *, index: int, shares: tuple[int, ...]) -> Tensor:
    """One of several parts along the first axis, which have these shares of it; copied."""
    unit = len(tensor) // sum(shares)
    return tensor[unit * sum(shares[:index]):unit * sum(shares[:index + 1])].clone()


def swapped(weight: Tensor) -> Tensor:
    first, second = weight.chunk(2)
    return torch.cat([second, first])
