"""What a network that enlarges pictures is, once its file has been read."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError

MAX_BLOCKS = 200
"""Blocks of a network; published ones have at most 36."""

Tensors = Mapping[str, Tensor]
"""A file's tensors by name."""


class NotReadable(ModelError):
    """Says what is wrong with a network's tensors, without the name of its file."""


@dataclass(frozen=True)
class Network:
    """A network that turns (1, 3, h, w) in [0, 1] into (1, 3, h * scale, w * scale)."""

    module: nn.Module
    scale: int
    multiple: int = 1
    """Sides must be multiples of this."""

    @torch.inference_mode()
    def enlarge(self, pixels: Tensor) -> Tensor:
        """(1, 3, h, w) in [0, 1] → (1, 3, h * scale, w * scale), not clamped."""
        height, width = pixels.shape[-2:]
        right, below = -width % self.multiple, -height % self.multiple
        if right or below:
            pixels = F.pad(pixels, (0, right, 0, below), "reflect" if right < width and below < height else "replicate")
        return self.module(pixels)[..., :height * self.scale, :width * self.scale]


def shape_of(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor of that many axes. Raises NotReadable."""
    tensor = tensors.get(name)
    if tensor is None:
        raise NotReadable(f'the tensor "{name}" is missing')
    if tensor.ndim != axes or 0 in tensor.shape:
        raise NotReadable(f'the tensor "{name}" must have {axes} axes, it has the shape {list(tensor.shape)}')
    return tuple(tensor.shape)


def count_blocks(tensors: Tensors, prefix: str, ending: str, *, first: int = 0) -> int:
    """How many tensors PREFIX0ENDING, PREFIX1ENDING, … there are. Raises NotReadable for more than any network has."""
    for number in range(MAX_BLOCKS + 1):
        if f"{prefix}{first + number}{ending}" not in tensors:
            return number
    raise NotReadable(f"it has more than {MAX_BLOCKS} blocks")


def whole_root(value: int, of: str) -> int:
    """The square root of a number of channels. Raises NotReadable if it is not whole."""
    root = round(value**0.5)
    if root < 1 or root * root != value:
        raise NotReadable(f"{of} do not fit three colours")
    return root


def filled(module: nn.Module, tensors: Tensors) -> nn.Module:
    """A network built on the meta device, with exactly these tensors. Raises NotReadable."""
    counters = {name: torch.zeros(()) for name in module.state_dict() if name.endswith(".num_batches_tracked")}  # of training
    wanted = {name: tensor for name, tensor in module.state_dict().items() if name not in counters}
    for name, tensor in wanted.items():
        if name not in tensors:
            raise NotReadable(f'the tensor "{name}" is missing')
        if tensors[name].shape != tensor.shape:
            raise NotReadable(f'the tensor "{name}" must have the shape {list(tensor.shape)}, it has {list(tensors[name].shape)}')
    unknown = next((name for name in tensors if name not in wanted), None)
    if unknown is not None:
        raise NotReadable(f'the tensor "{unknown}" belongs to a variant that is not supported')
    module.load_state_dict({**tensors, **counters}, assign=True)
    return module.requires_grad_(False).eval()
