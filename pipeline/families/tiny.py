"""Small decoders: TAESD (Ollin Boer Bohan, 2023), fast enough to run at every step, and A1111's Approx NN, smaller still.

Users supply the files for Stable Diffusion.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import check_tensors, read_part
from pipeline.families.placement import Placement
from pipeline.weights import Weights

BLOCKS = (3, 3, 3, 1)
"""Of TAESD's decoder, before each doubling and at the end."""
CONVOLUTIONS = ((8, 7), (16, 5), (32, 3), (64, 3), (32, 3), (16, 3), (8, 3), (3, 3))
"""(outputs, kernel) of Approx NN's."""
MARGIN = 11
"""Pixels that Approx NN's convolutions take off each side."""


class TinyDecoder:
    """A small decoder that is loaded on first use."""

    def __init__(self, placement: Placement, read: Callable[[], nn.Module]):
        """read: gives a network that turns a latent into pixels in [-1, 1]."""
        self._placement, self._read = placement, read
        self._module: nn.Module | None = None

    @torch.inference_mode(False)
    def _load(self) -> nn.Module:
        return self._read()

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) at model scale → (B, 3, H, W) in about [-1, 1], float32. Raises what loading raises."""
        self._module = self._module or self._load()
        return self._module(latent.to(self._placement.device, self._placement.dtype)).float()


def read(folder: Path, placement: Placement) -> nn.Module:
    """The decoder of the AutoencoderTiny in a diffusers folder. Raises ModelError, and whatever invalid content makes its readers raise."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    part = read_part(folder)
    config = configs.valid_values(f'"{folder.name}"', part.config, configs.TINY)
    with torch.device("meta"):
        module = AutoencoderTiny.from_config(config)
    check_tensors(folder, "decoder", part, module)
    state = {key: part.tensors[key].read(placement.device, placement.dtype) for key in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval().decoder


def read_file(path: Path, placement: Placement) -> nn.Module:
    """TAESD's decoder from a single file, such as taesd_decoder.safetensors. Raises ModelError."""
    from diffusers.models.autoencoders.autoencoder_tiny import DecoderTiny

    weights = Weights(path)
    width, channels = first_layer(weights, "1.weight")
    with torch.device("meta"):
        module = DecoderTiny(channels, 3, BLOCKS, (width,) * len(BLOCKS), 2, "relu", "nearest")
    # its clamp is the file's layer 0
    names = {f"layers.{int(number) - 1}.{rest}" if number.isdecimal() else name: name for name in weights
             for number, _, rest in [name.partition(".")]}
    return filled(module, weights, names, placement)


def read_approx(path: Path, placement: Placement) -> nn.Module:
    """Approx NN from its file, such as model.safetensors. Raises ModelError."""
    weights = Weights(path)
    _, channels = first_layer(weights, "conv1.weight")
    with torch.device("meta"):
        module = ApproxNN(channels)
    return filled(module, weights, {name: name for name in weights}, placement)


def first_layer(weights: Weights, name: str) -> tuple[int, int]:
    """(outputs, inputs) of a file's first convolution. Raises ModelError."""
    if name not in weights or len(weights.shape(name)) != 4 or 0 in weights.shape(name):
        raise ModelError(f'"{weights.path.name}" is not a small decoder: its "{name}" is missing, or not a convolution')
    return tuple(weights.shape(name)[:2])


def filled(module: nn.Module, weights: Weights, names: dict[str, str], placement: Placement) -> nn.Module:
    """A network built on the meta device with a file's tensors; names: its own → the file's. Raises ModelError."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    wrong = next((name for name in wanted.keys() | names.keys()
                  if name not in wanted or name not in names or weights.shape(names[name]) != wanted[name]), None)
    if wrong is not None:
        raise ModelError(f'"{weights.path.name}" is not a small decoder: its "{names.get(wrong, wrong)}" is missing, misshapen or unknown')
    state = {name: weights[names[name]].to(placement.device, placement.dtype) for name in wanted}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()


class ApproxNN(nn.Module):
    """Latents → pixels, twice as large as the latent."""

    def __init__(self, channels: int):
        super().__init__()
        for number, (outputs, kernel) in enumerate(CONVOLUTIONS, 1):
            self.add_module(f"conv{number}", nn.Conv2d(channels, outputs, kernel))
            channels = outputs

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (MARGIN,) * 4)
        for layer in self.children():
            x = F.leaky_relu(layer(x), 0.1)
        return x
