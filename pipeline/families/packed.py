"""Layers whose weights stay in memory as quantized as their file holds them, and are unpacked only while they compute.

LoRAs cannot be merged into such weights: they are added each time a layer's weight is unpacked, and are rounded as if merged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline import gguf

FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
"""By safetensors' names."""
Change = tuple[slice, Callable[[Tensor], Tensor]]
"""(rows of a weight, what makes others of them)."""


@dataclass(frozen=True)
class Packed:
    """A quantized matrix."""

    kind: str
    """A name in FLOAT8 or gguf.KINDS."""
    data: Tensor
    """(rows, bytes per row) uint8."""
    scale: Tensor | None = None
    """float32, one number or (rows, 1); None: no scale."""


def unpacked(kind: str, data: Tensor, scale: Tensor | None) -> Tensor:
    """The numbers of whole rows, float32."""
    numbers = data.view(FLOAT8[kind]).float() if kind in FLOAT8 else gguf.unpacked(kind, data)
    return numbers if scale is None else numbers * scale


class PackedLayer(nn.Module):
    """The weight of a layer, packed. `weight` is unpacked, without changes, each time it is asked for."""

    def __init__(self, packed: Packed, dtype: torch.dtype):
        super().__init__()
        self.kind, self.dtype = packed.kind, dtype
        # whole numbers, as a network's precision is that of its first parameter with a floating point
        self.data, self._scale = (None if part is None else nn.Parameter(part, requires_grad=False)
                                  for part in (packed.data, packed.scale if packed.scale is None else packed.scale.view(torch.int32)))
        self.changes: list[Change] = []
        """What networks (LoRA and the like) change."""

    @property
    def scale(self) -> Tensor | None:
        return None if self._scale is None else self._scale.view(torch.float32)

    @property
    def weight(self) -> Tensor:
        return unpacked(self.kind, self.data, self.scale).to(self.dtype)

    @property
    def changed(self) -> Tensor:
        """The weight with all changes."""
        weight = self.weight
        for rows, change in self.changes:
            weight[rows] = change(weight[rows]).to(weight)
        return weight


class PackedLinear(PackedLayer):
    def __init__(self, layer: nn.Linear, packed: Packed, dtype: torch.dtype):
        super().__init__(packed, dtype)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.changed, self.bias)


class PackedEmbedding(PackedLayer):
    """Unpacks only the rows that are asked for."""

    def forward(self, ids: Tensor) -> Tensor:
        if self.changes:
            return F.embedding(ids, self.changed)
        scale = self.scale
        if scale is not None and scale.numel() > 1:
            scale = scale[ids]
        return unpacked(self.kind, self.data[ids], scale).to(self.dtype)


LAYERS = {nn.Linear: PackedLinear, nn.Embedding: lambda layer, packed, dtype: PackedEmbedding(packed, dtype)}
"""What a kind of layer becomes."""


def packable(layer: nn.Module) -> bool:
    """Whether a layer's weight can stay packed."""
    return type(layer) in LAYERS


def pack(layer: nn.Module, packed: Packed, dtype: torch.dtype) -> PackedLayer:
    """A layer that holds its weight packed, in place of one of LAYERS. dtype: what it computes in."""
    return LAYERS[type(layer)](layer, packed, dtype)


def has_weight(module: nn.Module) -> bool:
    """Whether a module has a weight of its own, without unpacking it."""
    return isinstance(module, PackedLayer) or isinstance(getattr(module, "weight", None), Tensor)
