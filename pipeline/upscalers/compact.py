"""SRVGGNetCompact, the small networks of Real-ESRGAN (Wang et al., 2021): convolutions in a row, added to the enlarged picture."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.upscalers.network import Network, NotReadable, Tensors, count_blocks, filled, shape_of, whole_root

LAYER = re.compile(r"body\.\d+\.(weight|bias)")


def matches(names: Iterable[str]) -> bool:
    names = list(names)
    return "body.0.weight" in names and all(map(LAYER.fullmatch, names))


def build(tensors: Tensors) -> Network:
    """Raises NotReadable."""
    layers = count_blocks(tensors, "body.", ".weight")
    gap = f"body.{layers + 1}.weight" in tensors
    if gap or layers % 2 == 0 or layers < 3 or any(tensors[f"body.{number}.weight"].ndim != 1 for number in range(1, layers, 2)):
        raise NotReadable("between its convolutions there must be PReLU layers with weights")
    width, channels, *_ = shape_of(tensors, "body.0.weight", 4)
    if channels != 3:
        raise NotReadable(f"it takes pictures of {channels} channels; supported: 3")
    outputs = shape_of(tensors, f"body.{layers - 1}.weight", 4)[0]
    scale = whole_root(outputs // 3, f"the last layer's {outputs} channels")
    with torch.device("meta"):
        module = Compact(width, layers // 2, scale)
    return Network(filled(module, tensors), scale)


class Compact(nn.Module):
    def __init__(self, width: int, convolutions: int, scale: int):
        super().__init__()
        self.scale = scale
        inputs = [3, *[width] * (convolutions - 1)]
        hidden = [layer for channels in inputs for layer in (nn.Conv2d(channels, width, 3, padding=1), nn.PReLU(width))]
        self.body = nn.Sequential(*hidden, nn.Conv2d(width, 3 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(x), self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")
