"""RRDBNet: ESRGAN (Wang et al., 2018) and Real-ESRGAN (Wang et al., 2021), by each of the three ways they name their tensors."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.upscalers.network import Network, NotReadable, Tensors, count_blocks, filled, shape_of, whole_root

OLD_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\.(weight|bias)")
OLD_TRUNK = re.compile(r"model\.1\.sub\.\d+\.(weight|bias)")
OLD_OUTER = re.compile(r"model\.(\d+)\.(weight|bias)")
RENAMED = (("RRDB_trunk.", "body."), (".RDB", ".rdb"), ("trunk_conv.", "conv_body."), ("upconv", "conv_up"), ("HRconv.", "conv_hr."))
"""ESRGAN's second way of naming → Real-ESRGAN's."""
SHUFFLES = (1, 2, 4)
"""By how much the picture is folded into channels first: 2 in networks that enlarge by 2, 4 in those that do not enlarge."""


def matches(names: Iterable[str]) -> bool:
    return not {"model.1.sub.0.RDB1.conv1.0.weight", "RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight"}.isdisjoint(names)


def build(tensors: Tensors) -> Network:
    """Raises NotReadable."""
    tensors = {name: tensors[old] for name, old in current_names(tensors).items()}
    width, channels, *_ = shape_of(tensors, "conv_first.weight", 4)
    growth = shape_of(tensors, "body.0.rdb1.conv1.weight", 4)[0]
    blocks = count_blocks(tensors, "body.", ".rdb1.conv1.weight")
    doublings = count_blocks(tensors, "conv_up", ".weight", first=1)
    shuffle = whole_root(channels // 3, f"the first layer's {channels} channels") if channels % 3 == 0 else 0
    if shuffle not in SHUFFLES:
        raise NotReadable(f"it takes pictures of {channels} channels; supported: 3, or 12 or 48 that are folded")
    if 2**doublings % shuffle:
        raise NotReadable(f"it makes pictures smaller: {doublings} doublings of one that is folded by {shuffle}")
    with torch.device("meta"):
        module = RRDBNet(channels, width, growth, blocks, doublings, shuffle)
    return Network(filled(module, tensors), 2**doublings // shuffle, shuffle)


def current_names(names: Iterable[str]) -> dict[str, str]:
    """Real-ESRGAN's names of the tensors → the file's."""
    names = list(names)
    outer = sorted({int(found[1]) for found in map(OLD_OUTER.fullmatch, names) if found and int(found[1]) > 1})
    ends = {number: f"conv_up{place + 1}" for place, number in enumerate(outer[:-2])} | dict(zip(outer[-2:], ("conv_hr", "conv_last")))
    ends |= {0: "conv_first"}

    def current(name: str) -> str:
        if found := OLD_BLOCK.fullmatch(name):
            return "body.{}.rdb{}.conv{}.{}".format(*found.groups())
        if found := OLD_TRUNK.fullmatch(name):
            return f"conv_body.{found[1]}"
        if (found := OLD_OUTER.fullmatch(name)) and int(found[1]) in ends:
            return f"{ends[int(found[1])]}.{found[2]}"
        for old, new in RENAMED:
            name = name.replace(old, new)
        return name

    return {current(name): name for name in names}


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and what all before it made."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (conv(width + number * growth, growth) for number in range(4))
        self.conv5 = conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, leaky(layer(seen))), 1)
        return x + 0.2 * self.conv5(seen)


class Block(nn.Module):
    """A residual in residual dense block."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    def __init__(self, channels: int, width: int, growth: int, blocks: int, doublings: int, shuffle: int):
        super().__init__()
        self.doublings, self.shuffle = doublings, shuffle
        self.conv_first = conv(channels, width)
        self.body = nn.Sequential(*(Block(width, growth) for _ in range(blocks)))
        self.conv_body = conv(width, width)
        for number in range(doublings):
            self.add_module(f"conv_up{number + 1}", conv(width, width))
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(F.pixel_unshuffle(x, self.shuffle) if self.shuffle > 1 else x)
        x = x + self.conv_body(self.body(x))
        for number in range(self.doublings):
            x = leaky(self.get_submodule(f"conv_up{number + 1}")(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))
