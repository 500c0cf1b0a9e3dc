"""Small networks of each architecture with random weights, by the names and shapes of published files."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


class Maker:
    """Collects tensors of random weights."""

    def __init__(self, seed: int = 0):
        self.made: Tensors = {}
        self._random = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int, scale: float = 1.0, around: float = 0.0) -> None:
        self.made[name] = torch.randn(shape, generator=self._random) * scale + around

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        """A convolution's or a linear layer's weight and bias."""
        fan = max(torch.Size(shape[1:]).numel(), 1)
        self.draw(f"{name}.weight", *shape, scale=fan**-0.5)
        if bias:
            self.draw(f"{name}.bias", shape[0], scale=0.1)

    def norm(self, name: str, width: int, *, running: bool = False) -> None:
        self.draw(f"{name}.weight", width, scale=0.1, around=1)
        self.draw(f"{name}.bias", width, scale=0.1)
        if running:
            self.draw(f"{name}.running_mean", width, scale=0.1)
            self.made[f"{name}.running_var"] = torch.rand(width, generator=self._random) + 0.5
            self.made[f"{name}.num_batches_tracked"] = torch.tensor(7)


def real_esrgan(scale: int = 4, blocks: int = 2, width: int = 8, growth: int = 4, seed: int = 0) -> Tensors:
    """RRDBNet by Real-ESRGAN's names; a scale of 1 or 2 folds the picture first, 8 has one doubling more."""
    channels = {1: 48, 2: 12}.get(scale, 3)
    make = Maker(seed)
    make.layer("conv_first", width, channels, 3, 3)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for number in range(5):
                make.layer(f"body.{block}.rdb{dense}.conv{number + 1}", width if number == 4 else growth, width + number * growth, 3, 3)
    for name in ("conv_body", "conv_up1", "conv_up2", *(["conv_up3"] if scale == 8 else []), "conv_hr"):
        make.layer(name, width, width, 3, 3)
    make.layer("conv_last", 3, width, 3, 3)
    return make.made


def esrgan(scale: int = 4, blocks: int = 2, **how: int) -> Tensors:
    """The same by ESRGAN's names, in which a scale of 1 or 2 has fewer doublings."""
    doublings = {1: 0, 2: 1, 4: 2, 8: 3}[scale]
    ups = {f"conv_up{number + 1}": f"model.{3 * number + 3}" for number in range(doublings)}
    last = 3 * doublings + 2
    names = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", **ups, "conv_hr": f"model.{last}", "conv_last": f"model.{last + 2}"}
    found = {}
    for name, tensor in real_esrgan(8 if scale == 8 else 4, blocks, **how).items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith("body."):
            _, block, dense, conv = layer.split(".")
            found[f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"] = tensor
        elif layer in names:
            found[f"{names[layer]}.{kind}"] = tensor
    return found


def compact(scale: int = 4, convolutions: int = 2, width: int = 8, seed: int = 0) -> Tensors:
    make = Maker(seed)
    make.layer("body.0", width, 3, 3, 3)
    for number in range(convolutions + 1):
        make.draw(f"body.{2 * number + 1}.weight", width, scale=0.1, around=0.2)
        last = number == convolutions
        make.layer(f"body.{2 * number + 2}", 3 * scale**2 if last else width, width, 3, 3)
    return make.made


def span(scale: int = 2, width: int = 8, *, normalizes: bool = True, seed: int = 0) -> Tensors:
    make = Maker(seed)

    def branched(name: str, inputs: int) -> None:
        make.layer(f"{name}.sk", width, inputs, 1, 1)
        make.layer(f"{name}.conv.0", 2 * inputs, inputs, 1, 1)
        make.layer(f"{name}.conv.1", 2 * width, 2 * inputs, 3, 3)
        make.layer(f"{name}.conv.2", width, 2 * width, 1, 1)
        make.layer(f"{name}.eval_conv", width, inputs, 3, 3)  # files hold it as it was before the last merging

    branched("conv_1", 3)
    for block in range(1, 7):
        for number in (1, 2, 3):
            branched(f"block_{block}.c{number}_r", width)
    make.layer("conv_cat", width, 4 * width, 1, 1)
    branched("conv_2", width)
    make.layer("upsampler.0", 3 * scale**2, width, 3, 3)
    if normalizes:  # to about -127 … 127, so that trained networks start with small weights
        for name in ("conv_1.sk", "conv_1.conv.0"):
            make.made[f"{name}.weight"] /= 127
    return make.made if normalizes else make.made | {"no_norm": torch.zeros(1)}


def dat(scale: int = 2, width: int = 32, heads: int = 4, window: tuple[int, int] = (2, 4), depths: tuple[int, ...] = (4, 3),
        expansion: int = 2, *, light: bool = False, seed: int = 0) -> Tensors:
    make = Maker(seed)
    positions = width // 2 // 4 // 4

    def after(name: str) -> None:
        if not light:
            return make.layer(name, width, width, 3, 3)
        make.layer(f"{name}.0", width // 4, width, 3, 3)
        make.layer(f"{name}.2", width // 4, width // 4, 1, 1)
        make.layer(f"{name}.4", width, width // 4, 3, 3)

    make.layer("conv_first", width, 3, 3, 3)
    make.norm("before_RG.1", width)
    for group, depth in enumerate(depths):
        for block in range(depth):
            here = f"layers.{group}.blocks.{block}"
            make.norm(f"{here}.norm1", width)
            if block % 2:
                make.draw(f"{here}.attn.temperature", heads, 1, 1, scale=0.1, around=1)
            else:
                for half, (rows, columns) in enumerate((window, window[::-1])):
                    attend = f"{here}.attn.attns.{half}"
                    y, x = torch.meshgrid(torch.arange(1 - rows, rows), torch.arange(1 - columns, columns), indexing="ij")
                    make.made[f"{attend}.rpe_biases"] = torch.stack((y, x)).flatten(1).T.float().contiguous()
                    make.made[f"{attend}.relative_position_index"] = torch.zeros(rows * columns, rows * columns, dtype=torch.int64)
                    make.layer(f"{attend}.pos.pos_proj", positions, 2)
                    for number, outputs in ((1, positions), (2, positions), (3, heads // 2)):
                        make.norm(f"{attend}.pos.pos{number}.0", positions)
                        make.layer(f"{attend}.pos.pos{number}.2", outputs, positions)
            make.layer(f"{here}.attn.qkv", 3 * width, width)
            make.layer(f"{here}.attn.proj", width, width)
            make.layer(f"{here}.attn.dwconv.0", width, 1, 3, 3)
            make.norm(f"{here}.attn.dwconv.1", width, running=True)
            make.layer(f"{here}.attn.channel_interaction.1", width // 8, width, 1, 1)
            make.norm(f"{here}.attn.channel_interaction.2", width // 8, running=True)
            make.layer(f"{here}.attn.channel_interaction.4", width, width // 8, 1, 1)
            make.layer(f"{here}.attn.spatial_interaction.0", width // 16, width, 1, 1)
            make.norm(f"{here}.attn.spatial_interaction.1", width // 16, running=True)
            make.layer(f"{here}.attn.spatial_interaction.3", 1, width // 16, 1, 1)
            make.layer(f"{here}.ffn.fc1", expansion * width, width)
            make.norm(f"{here}.ffn.sg.norm", expansion * width // 2)
            make.layer(f"{here}.ffn.sg.conv", expansion * width // 2, 1, 3, 3)
            make.layer(f"{here}.ffn.fc2", width, expansion * width // 2)
            make.norm(f"{here}.norm2", width)
        after(f"layers.{group}.conv")
    make.norm("norm", width)
    after("conv_after_body")
    if light:
        make.layer("upsample.0", 3 * scale**2, width, 3, 3)
        return make.made
    make.layer("conv_before_upsample.0", 8, width, 3, 3)
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    for number, step in enumerate(steps):
        make.layer(f"upsample.{2 * number}", 8 * step**2, 8, 3, 3)
    make.layer("conv_last", 3, 8, 3, 3)
    return make.made


def saved(tensors: Tensors, path: Path) -> Path:
    """The tensors as a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
