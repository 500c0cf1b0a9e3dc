"""The same networks a second time, as their papers tell them: from a file's tensors, without modules, and by other steps.

SPAN's branches stay apart. DAT's windows are groups of pixels found by their places, without rolling, padding masks or tables.
"""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.upscalers.tiny import Tensors

MEAN = torch.tensor((0.4488, 0.4371, 0.4040))[:, None, None]


def conv(w: Tensors, name: str, x: Tensor, **how) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w.get(f"{name}.bias"), padding=how.pop("padding", weight.shape[-1] // 2), **how)


def lrelu(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def dense(w: Tensors, name: str, x: Tensor, ending: str) -> Tensor:
    parts = [x]
    for number in range(1, 6):
        made = conv(w, f"{name}.conv{number}{ending}", torch.cat(parts, 1))
        parts.append(made if number == 5 else lrelu(made))
    return 0.2 * parts[-1] + x


def rrdb(w: Tensors, x: Tensor, names: dict[str, str], blocks: int, fold: int = 1) -> Tensor:
    """names: of the first layer, a block with {block} and {dense}, the trunk, the doublings, and the last two."""
    if fold > 1:
        b, c, h, width = x.shape
        x = x.reshape(b, c, h // fold, fold, width // fold, fold).permute(0, 1, 3, 5, 2, 4).reshape(b, -1, h // fold, width // fold)
    first = x = conv(w, names["first"], x)
    for block in range(blocks):
        start = x
        for number in (1, 2, 3):
            x = dense(w, names["block"].format(block=block, dense=number), x, names["ending"])
        x = 0.2 * x + start
    x = first + conv(w, names["trunk"], x)
    for up in names["ups"]:
        x = lrelu(conv(w, up, twice(x)))
    return conv(w, names["last"], lrelu(conv(w, names["hr"], x)))


def compact(w: Tensors, x: Tensor, convolutions: int, scale: int) -> Tensor:
    y = x
    for number in range(convolutions + 1):
        y = conv(w, f"body.{2 * number}", y)
        slope = w[f"body.{2 * number + 1}.weight"][:, None, None]
        y = torch.where(y > 0, y, slope * y)
    y = conv(w, f"body.{2 * convolutions + 2}", y)
    b, _, h, width = x.shape
    y = y.reshape(b, 3, scale, scale, h, width).permute(0, 1, 4, 2, 5, 3).reshape(b, 3, h * scale, width * scale)
    return y + x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def branched(w: Tensors, name: str, x: Tensor) -> Tensor:
    inner = conv(w, f"{name}.conv.0", F.pad(x, (1, 1, 1, 1)), padding=0)
    return conv(w, f"{name}.conv.2", conv(w, f"{name}.conv.1", inner, padding=0), padding=0) + conv(w, f"{name}.sk", x)


def span(w: Tensors, x: Tensor, scale: int, *, normalizes: bool) -> Tensor:
    x = (x - MEAN) * 255 if normalizes else x
    outs = [branched(w, "conv_1", x)]
    for block in range(1, 7):
        one = branched(w, f"block_{block}.c1_r", outs[-1])
        one = one * torch.sigmoid(one)
        two = branched(w, f"block_{block}.c2_r", one)
        three = branched(w, f"block_{block}.c3_r", two * torch.sigmoid(two))
        outs.append((three + outs[-1]) * (torch.sigmoid(three) - 0.5))
    joined = torch.cat((outs[0], branched(w, "conv_2", outs[6]), outs[1], one), 1)
    return F.pixel_shuffle(conv(w, "upsampler.0", conv(w, "conv_cat", joined)), scale)


def linear(w: Tensors, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def norm(w: Tensors, name: str, x: Tensor) -> Tensor:
    """Of the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def batch_norm(w: Tensors, name: str, x: Tensor) -> Tensor:
    mean, var, scale, shift = (w[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def dynamic_bias(w: Tensors, name: str, y: int, x: int) -> Tensor:
    """(heads,): the bias for two pixels that are (y, x) apart."""
    place = linear(w, f"{name}.pos.pos_proj", torch.tensor([float(y), float(x)]))
    for number in (1, 2, 3):
        place = linear(w, f"{name}.pos.pos{number}.2", norm(w, f"{name}.pos.pos{number}.0", place).relu())
    return place


def windows(w: Tensors, name: str, qkv: Tensor, heads: int, window: tuple[int, int], shift: tuple[int, int], side: int) -> Tensor:
    """qkv: (3, h, w, C) of one picture; returns (h, w, C). Beyond the picture, up to a multiple of `side`, all is 0."""
    height, width = qkv.shape[1:3]
    tall, wide = -(-height // side) * side, -(-width // side) * side
    padded = torch.zeros(3, tall, wide, qkv.shape[-1])
    padded[:, :height, :width] = qkv
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in product(range(tall), range(wide)):
        groups.setdefault(((y - shift[0]) // window[0], (x - shift[1]) // window[1]), []).append((y, x))
    result = torch.zeros(tall, wide, qkv.shape[-1])
    per_head = qkv.shape[-1] // heads
    for members in groups.values():
        rows, columns = (list(part) for part in zip(*members))
        q, k, v = padded[:, rows, columns].reshape(3, len(members), heads, per_head)
        scores = torch.einsum("ihc,jhc->hij", q, k) / per_head**0.5
        scores += torch.stack([torch.stack([dynamic_bias(w, name, y - a, x - b) for a, b in members]) for y, x in members]).permute(2, 0, 1)
        result[rows, columns] = torch.einsum("hij,jhc->ihc", scores.softmax(-1), v).reshape(len(members), -1)
    return result[:height, :width]


def interaction(w: Tensors, name: str, kind: str, x: Tensor) -> Tensor:
    first, middle, last = (1, 2, 4) if kind == "channel" else (0, 1, 3)
    x = x.mean((-2, -1), keepdim=True) if kind == "channel" else x
    here = f"{name}.{kind}_interaction"
    return conv(w, f"{here}.{last}", gelu(batch_norm(w, f"{here}.{middle}", conv(w, f"{here}.{first}", x)))).sigmoid()


def dat(w: Tensors, x: Tensor, scale: int, heads: int, window: tuple[int, int], depths: tuple[int, ...], *, light: bool) -> Tensor:
    """One picture (1, 3, h, w)."""
    height, width = x.shape[-2:]

    def picture(tokens: Tensor) -> Tensor:
        return tokens.permute(2, 0, 1)[None]

    def tokens(image: Tensor) -> Tensor:
        """(1, C, h, w) → (h, w, C)."""
        return image[0].permute(1, 2, 0)

    def after(name: str, image: Tensor) -> Tensor:
        return conv(w, f"{name}.4", lrelu(conv(w, f"{name}.2", lrelu(conv(w, f"{name}.0", image))))) if light else conv(w, name, image)

    def attention(name: str, x: Tensor, group: int, block: int) -> Tensor:
        qkv = linear(w, f"{name}.qkv", x).reshape(height, width, 3, -1).permute(2, 0, 1, 3)
        beside = gelu(batch_norm(w, f"{name}.dwconv.1", conv(w, f"{name}.dwconv.0", picture(qkv[2]), groups=qkv.shape[-1])))
        if block % 2:
            q, k, v = qkv.reshape(3, height * width, heads, -1).permute(0, 2, 3, 1)
            q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
            mixed = (q @ k.mT * w[f"{name}.temperature"]).softmax(-1) @ v
            attended = mixed.reshape(-1, height, width)[None]
            return linear(w, f"{name}.proj", tokens(attended * interaction(w, name, "spatial", beside)
                                                    + beside * interaction(w, name, "channel", attended)))
        half = qkv.shape[-1] // 2
        shifted = block in (2, 6, 10) if group % 2 == 0 else block in (0, 4, 8)
        shift = tuple(side // 2 for side in window) if shifted else (0, 0)
        parts = [windows(w, f"{name}.attns.{number}", qkv[..., number * half:(number + 1) * half], heads // 2,
                         window[::-1] if number else window, shift[::-1] if number else shift, max(window)) for number in (0, 1)]
        attended = picture(torch.cat(parts, -1))
        return linear(w, f"{name}.proj", tokens(attended * interaction(w, name, "channel", beside)
                                                + beside * interaction(w, name, "spatial", attended)))

    first = conv(w, "conv_first", x - MEAN)
    y = norm(w, "before_RG.1", tokens(first))
    for group, depth in enumerate(depths):
        start = y
        for block in range(depth):
            here = f"layers.{group}.blocks.{block}"
            y = y + attention(f"{here}.attn", norm(w, f"{here}.norm1", y), group, block)
            hidden = gelu(linear(w, f"{here}.ffn.fc1", norm(w, f"{here}.norm2", y)))
            kept, gate = hidden.split(hidden.shape[-1] // 2, -1)
            gate = conv(w, f"{here}.ffn.sg.conv", picture(norm(w, f"{here}.ffn.sg.norm", gate)), groups=gate.shape[-1])
            y = y + linear(w, f"{here}.ffn.fc2", kept * tokens(gate))
        y = start + tokens(after(f"layers.{group}.conv", picture(y)))
    y = after("conv_after_body", picture(norm(w, "norm", y))) + first
    if light:
        return F.pixel_shuffle(conv(w, "upsample.0", y), scale) + MEAN
    y = lrelu(conv(w, "conv_before_upsample.0", y), 0.01)
    number = 0
    while f"upsample.{number}.weight" in w:
        y = F.pixel_shuffle(conv(w, f"upsample.{number}", y), 3 if scale == 3 else 2)
        number += 2
    return conv(w, "conv_last", y) + MEAN
