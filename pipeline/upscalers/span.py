"""SPAN: swift parameter-free attention network (Wan et al., 2023).

Its convolutions were trained as three branches, which are merged into one 3x3 convolution when the file is read.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.upscalers.network import Network, NotReadable, Tensors, filled, shape_of, whole_root

MEAN = (0.4488, 0.4371, 0.4040)
"""Of the pictures it was trained on."""
RANGE = 255.0
NO_NORM = "no_norm"
"""A tensor of this name marks a network that takes pictures as they are."""
BLOCKS = 6
BRANCHED = ("conv_1", "conv_2", *(f"block_{block}.c{layer}_r" for block in range(1, BLOCKS + 1) for layer in (1, 2, 3)))
"""The convolutions that were trained as branches."""


def matches(names: Iterable[str]) -> bool:
    names = set(names)
    return "conv_cat.weight" in names and not {"block_1.c1_r.sk.weight", "block_1.c1_r.eval_conv.weight"}.isdisjoint(names)


def build(tensors: Tensors) -> Network:
    """Raises NotReadable."""
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(f"{layer}." for layer in BRANCHED))}
    normalizes = plain.pop(NO_NORM, None) is None
    for layer in BRANCHED:
        plain[f"{layer}.weight"], plain[f"{layer}.bias"] = merged(tensors, layer)
    width, channels, *_ = shape_of(plain, "conv_1.weight", 4)
    if channels != 3:
        raise NotReadable(f"it takes pictures of {channels} channels; supported: 3")
    outputs = shape_of(plain, "upsampler.0.weight", 4)[0]
    scale = whole_root(outputs // 3, f"the last layer's {outputs} channels")
    with torch.device("meta"):
        module = SPAN(width, scale, normalizes=normalizes)
    return Network(filled(module, plain), scale)


def merged(tensors: Tensors, layer: str) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the 3x3 convolution that equals a 1x1 branch beside a row of 1x1, 3x3 and 1x1. Raises NotReadable."""
    if f"{layer}.sk.weight" not in tensors:  # saved after merging
        shape_of(tensors, f"{layer}.eval_conv.weight", 4), shape_of(tensors, f"{layer}.eval_conv.bias", 1)
        return tensors[f"{layer}.eval_conv.weight"], tensors[f"{layer}.eval_conv.bias"]
    names = [f"{layer}.{part}" for part in ("conv.0", "conv.1", "conv.2", "sk")]
    for name in names:
        shape_of(tensors, f"{name}.weight", 4), shape_of(tensors, f"{name}.bias", 1)
    (first, middle, last, skip), (before, between, after, beside) = (
        [tensors[f"{name}.{part}"].double() for name in names] for part in ("weight", "bias"))
    try:
        weight = torch.einsum("ob,bcyx,ci->oiyx", last[:, :, 0, 0], middle, first[:, :, 0, 0])
        weight[:, :, 1:2, 1:2] += skip
        bias = last[:, :, 0, 0] @ (torch.einsum("bcyx,c->b", middle, before) + between) + after + beside
    except (RuntimeError, IndexError):
        raise NotReadable(f'the branches of "{layer}" do not fit each other') from None
    return weight.float().contiguous(), bias.float()


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(the block's result, its first layer's)."""
        first = F.silu(self.c1_r(x))
        last = self.c3_r(F.silu(self.c2_r(first)))
        return (last + x) * (torch.sigmoid(last) - 0.5), first


class SPAN(nn.Module):
    def __init__(self, width: int, scale: int, *, normalizes: bool):
        super().__init__()
        self.normalizes = normalizes
        self.conv_1 = nn.Conv2d(3, width, 3, padding=1)
        for number in range(1, BLOCKS + 1):
            self.add_module(f"block_{number}", Block(width))
        self.conv_cat, self.conv_2 = nn.Conv2d(4 * width, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: Tensor) -> Tensor:
        if self.normalizes:
            x = (x - x.new_tensor(MEAN)[:, None, None]) * RANGE
        start = x = self.conv_1(x)
        results, firsts = [], []
        for number in range(1, BLOCKS + 1):
            x, first = self.get_submodule(f"block_{number}")(x)
            results.append(x)
            firsts.append(first)
        return self.upsampler(self.conv_cat(torch.cat((start, self.conv_2(x), results[0], firsts[-1]), 1)))
