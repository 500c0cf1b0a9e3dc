"""DAT: dual aggregation transformer (Chen et al., 2023).

Blocks take turns: attention between the pixels of a window (of two shapes, each for half of the channels), and attention
between channels. Beside each runs a depthwise convolution.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.upscalers.network import MAX_BLOCKS, Network, NotReadable, Tensors, count_blocks, filled, shape_of, whole_root

MEAN = (0.4488, 0.4371, 0.4040)
"""Of the pictures it was trained on."""
COMPUTED = re.compile(r"layers\.\d+\.blocks\.\d+\.attn\.(attn_mask_[01]|attns\.[01]\.(rpe_biases|relative_position_index))"
                      r"|.*\.num_batches_tracked|mean")
"""Tensors in files that follow from the window's shape, or do not act."""
WINDOW = "layers.0.blocks.0.attn.attns.0.rpe_biases"
MAX_WINDOW = 256


def matches(names: Iterable[str]) -> bool:
    return "layers.0.blocks.0.attn.attns.0.pos.pos_proj.weight" in names


def build(tensors: Tensors) -> Network:
    """Raises NotReadable."""
    shape_of(tensors, WINDOW, 2)
    window = tuple(1 - int(side) for side in tensors[WINDOW].flatten()[:2])  # the first row is (1 - height, 1 - width)
    if len(window) != 2 or not all(2 <= side <= MAX_WINDOW for side in window):
        raise NotReadable(f'the tensor "{WINDOW}" is not that of a window')
    own = {name: tensor for name, tensor in tensors.items() if not COMPUTED.fullmatch(name)}
    width, channels, *_ = shape_of(own, "conv_first.weight", 4)
    if channels != 3:
        raise NotReadable(f"it takes pictures of {channels} channels; supported: 3")
    depths = [count_blocks(own, f"layers.{group}.blocks.", ".norm1.weight")
              for group in range(count_blocks(own, "layers.", ".blocks.0.norm1.weight"))]
    if sum(depths) > MAX_BLOCKS:
        raise NotReadable(f"it has more than {MAX_BLOCKS} blocks")
    heads = shape_of(own, "layers.0.blocks.1.attn.temperature", 3)[0]
    hidden = shape_of(own, "layers.0.blocks.0.ffn.fc1.weight", 2)[0]
    positions = shape_of(own, "layers.0.blocks.0.attn.attns.0.pos.pos_proj.weight", 2)[0]
    if width % heads or heads % 2 or hidden % 2 or width < 16:
        raise NotReadable(f"{width} channels do not fit {heads} heads and {hidden} hidden ones")
    has_bias, deep = "layers.0.blocks.0.attn.qkv.bias" in own, "conv_after_body.0.weight" in own
    with torch.device("meta"):
        tail = make_tail(own, width)
        module = DAT(width, depths, heads, hidden, positions, window, tail, qkv_bias=has_bias, deep=deep)
    return Network(filled(module, own), module.scale)


def make_tail(tensors: Tensors, width: int) -> tuple[dict[str, nn.Module], int]:
    """(the layers after the body by name, the factor by which they enlarge). Raises NotReadable."""
    if "conv_before_upsample.0.weight" not in tensors:  # the light variant enlarges in one step
        outputs = shape_of(tensors, "upsample.0.weight", 4)[0]
        scale = whole_root(outputs // 3, f"the last layer's {outputs} channels")
        return {"upsample": nn.Sequential(conv(width, 3 * scale**2), nn.PixelShuffle(scale))}, scale
    features = shape_of(tensors, "conv_before_upsample.0.weight", 4)[0]
    layers, scale = [], 1
    while f"upsample.{len(layers)}.weight" in tensors and len(layers) < 8:
        step = whole_root(shape_of(tensors, f"upsample.{len(layers)}.weight", 4)[0] // features, "the channels of a layer that enlarges")
        layers += [conv(features, features * step**2), nn.PixelShuffle(step)]
        scale *= step
    return {"conv_before_upsample": nn.Sequential(conv(width, features), nn.LeakyReLU()), "upsample": nn.Sequential(*layers),
            "conv_last": conv(features, 3)}, scale


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def after(width: int, *, deep: bool) -> nn.Module:
    """What follows a group of blocks: one convolution, or three with a narrow middle."""
    if not deep:
        return conv(width, width)
    return nn.Sequential(conv(width, width // 4), nn.LeakyReLU(0.2), nn.Conv2d(width // 4, width // 4, 1), nn.LeakyReLU(0.2),
                         conv(width // 4, width))


def as_picture(x: Tensor, height: int, width: int) -> Tensor:
    """(B, h * w, C) → (B, C, h, w)."""
    return x.transpose(1, 2).reshape(len(x), -1, height, width)


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h * w, C)."""
    return x.flatten(2).transpose(1, 2)


class Positions(nn.Module):
    """A bias for each distance between two pixels of a window, learned as a function of it."""

    def __init__(self, width: int, heads: int, window: tuple[int, int]):
        super().__init__()
        self.window = window
        self.pos_proj = nn.Linear(2, width)
        self.pos1, self.pos2, self.pos3 = (
            nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, outputs)) for outputs in (width, width, heads))

    def forward(self) -> Tensor:
        """(heads, n, n) for the n pixels of a window."""
        place = self.pos_proj.weight
        rows, columns = (torch.arange(1 - side, side, device=place.device, dtype=place.dtype) for side in self.window)
        distances = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1).T
        bias = self.pos3(self.pos2(self.pos1(self.pos_proj(distances))))  # (distances, heads)
        places = torch.stack(torch.meshgrid(*map(torch.arange, self.window), indexing="ij")).flatten(1)
        height, width = self.window
        apart = places[:, :, None] - places[:, None]
        index = (apart[0] + height - 1) * (2 * width - 1) + apart[1] + width - 1
        return bias[index.to(bias.device)].permute(2, 0, 1)


class WindowAttention(nn.Module):
    def __init__(self, channels: int, heads: int, positions: int, window: tuple[int, int]):
        super().__init__()
        self.heads, self.window = heads, window
        self.pos = Positions(positions, heads, window)

    def forward(self, qkv: Tensor, shift: tuple[int, int]) -> Tensor:
        """qkv: (3, B, h, w, C), sides multiples of the window's. shift: of the windows. Returns (B, h, w, C)."""
        _, batch, height, width, channels = qkv.shape
        rows, columns = self.window
        qkv = qkv.roll((-shift[0], -shift[1]), (2, 3))
        split = qkv.view(3, batch, height // rows, rows, width // columns, columns, self.heads, channels // self.heads)
        q, k, v = split.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(3, -1, self.heads, rows * columns, channels // self.heads)
        scores = q * (channels // self.heads)**-0.5 @ k.transpose(-2, -1) + self.pos()  # (B * windows, heads, n, n)
        if any(shift):
            apart = self._apart(height, width, shift).to(scores)
            scores = (scores.view(batch, -1, *scores.shape[1:]) + apart[:, None]).view_as(scores)
        mixed = scores.softmax(-1) @ v
        joined = mixed.view(batch, height // rows, width // columns, self.heads, rows, columns, -1)
        return joined.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels).roll(shift, (1, 2))

    def _apart(self, height: int, width: int, shift: tuple[int, int]) -> Tensor:
        """(windows, n, n): -100 between pixels that are neighbours only because shifting wraps around, else 0."""
        parts = []
        for length, side, step in ((height, self.window[0], shift[0]), (width, self.window[1], shift[1])):
            place = torch.arange(length)
            parts.append((place >= length - side).long() + (place >= length - step).long())
        part = parts[0][:, None] * 3 + parts[1]
        part = part.view(height // self.window[0], self.window[0], width // self.window[1], self.window[1])
        part = part.transpose(1, 2).reshape(-1, self.window[0] * self.window[1])
        return (part[:, :, None] != part[:, None]) * -100.0


class Beside(nn.Module):
    """What both kinds of attention have: the convolution beside it, and how the two inform each other."""

    def __init__(self, width: int, *, qkv_bias: bool):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=qkv_bias), nn.Linear(width, width)
        self.dwconv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.GELU())
        self.channel_interaction = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 8, 1), nn.BatchNorm2d(width // 8), nn.GELU(), nn.Conv2d(width // 8, width, 1))
        self.spatial_interaction = nn.Sequential(
            nn.Conv2d(width, width // 16, 1), nn.BatchNorm2d(width // 16), nn.GELU(), nn.Conv2d(width // 16, 1, 1))


class SpatialAttention(Beside):
    def __init__(self, width: int, heads: int, positions: int, window: tuple[int, int], *, shifted: bool, qkv_bias: bool):
        super().__init__(width, qkv_bias=qkv_bias)
        self.side = max(window)
        shift = (window[0] // 2, window[1] // 2) if shifted else (0, 0)
        self.shifts = shift, shift[::-1]
        self.attns = nn.ModuleList(WindowAttention(width // 2, heads // 2, positions, shape) for shape in (window, window[::-1]))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        qkv = self.qkv(x)
        convolved = self.dwconv(as_picture(qkv.chunk(3, -1)[2], height, width))
        padded = F.pad(as_picture(qkv, height, width), (0, -width % self.side, 0, -height % self.side))
        padded = padded.unflatten(1, (3, -1)).permute(1, 0, 3, 4, 2)  # (3, B, h, w, C)
        halves = [attend(half, shift)[:, :height, :width] for attend, half, shift in
                  zip(self.attns, padded.chunk(2, -1), self.shifts)]
        attended = torch.cat(halves, -1).flatten(1, 2)
        by_channel = self.channel_interaction(convolved).flatten(2).transpose(1, 2)  # (B, 1, C)
        by_place = self.spatial_interaction(as_picture(attended, height, width))  # (B, 1, h, w)
        return self.proj(attended * by_channel.sigmoid() + as_tokens(by_place.sigmoid() * convolved))


class ChannelAttention(Beside):
    def __init__(self, width: int, heads: int, *, qkv_bias: bool):
        super().__init__(width, qkv_bias=qkv_bias)
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1)  # (B, heads, C / heads, h * w)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        attended = (scores.softmax(-1) @ v).flatten(1, 2).transpose(1, 2)
        convolved = self.dwconv(v.reshape(len(x), -1, height, width))
        by_channel = self.channel_interaction(as_picture(attended, height, width))  # (B, C, 1, 1)
        by_place = as_tokens(self.spatial_interaction(convolved))  # (B, h * w, 1)
        return self.proj(attended * by_place.sigmoid() + as_tokens(by_channel.sigmoid() * convolved))


class SpatialGate(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(width), nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        kept, gate = x.chunk(2, -1)
        return kept * as_tokens(self.conv(as_picture(self.norm(gate), height, width)))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.sg, self.fc2 = nn.Linear(width, hidden), SpatialGate(hidden // 2), nn.Linear(hidden // 2, width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x)), height, width))


class Block(nn.Module):
    def __init__(self, width: int, hidden: int, attention: nn.Module):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.ffn = FeedForward(width, hidden)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.attn(self.norm1(x), height, width)
        return x + self.ffn(self.norm2(x), height, width)


class Group(nn.Module):
    def __init__(self, blocks: Iterable[Block], conv: nn.Module):
        super().__init__()
        self.blocks, self.conv = nn.ModuleList(blocks), conv

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        start = x
        for block in self.blocks:
            x = block(x, height, width)
        return start + as_tokens(self.conv(as_picture(x, height, width)))


class DAT(nn.Module):
    def __init__(self, width: int, depths: list[int], heads: int, hidden: int, positions: int, window: tuple[int, int],
                 tail: tuple[dict[str, nn.Module], int], *, qkv_bias: bool, deep: bool):
        super().__init__()
        self.conv_first = conv(3, width)
        self.before_RG = nn.Sequential(nn.Identity(), nn.LayerNorm(width))  # Identity: files number the norm 1

        def attention(group: int, block: int) -> nn.Module:
            if block % 2:
                return ChannelAttention(width, heads, qkv_bias=qkv_bias)
            # every second window attention is shifted: from the second on in even groups, from the first in odd ones
            shifted = block % 4 == (0 if group % 2 else 2)
            return SpatialAttention(width, heads, positions, window, shifted=shifted, qkv_bias=qkv_bias)

        self.layers = nn.ModuleList(
            Group([Block(width, hidden, attention(group, block)) for block in range(depth)], after(width, deep=deep))
            for group, depth in enumerate(depths))
        self.norm, self.conv_after_body = nn.LayerNorm(width), after(width, deep=deep)
        layers, self.scale = tail
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.tail = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.new_tensor(MEAN)[:, None, None]
        height, width = x.shape[-2:]
        first = self.conv_first(x - mean)
        tokens = self.before_RG(as_tokens(first))
        for group in self.layers:
            tokens = group(tokens, height, width)
        x = self.conv_after_body(as_picture(self.norm(tokens), height, width)) + first
        for name in self.tail:
            x = self.get_submodule(name)(x)
        return x + mean
