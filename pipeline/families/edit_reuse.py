"""Edit-aware reuse: when a picture is edited again, only the part around its mask is computed.

The first edit records, for every UNet call, the inputs of its layers. Later edits take from the record what lies outside a
window: the tokens that self-attention attends to, group norm statistics, and the cells that convolutions see beyond the
window's edge. Sparse edits are the idea of SIGE (Li et al., 2022).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families.reuse import Reused, Window

LARGEST_SHARE = 0.5
"""Fraction of the picture; a larger window is not worth it."""


@dataclass
class Call:
    """The record of one full call, in half precision except for the statistics."""

    output: Tensor
    """(B, C, h, w)."""
    tokens: list[Tensor] = field(default_factory=list)
    """(B, n, C): the input of each self-attention."""
    statistics: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """(B, groups, 1) mean and variance of each group norm's input, float32."""
    maps: list[Tensor] = field(default_factory=list)
    """(B, C, H, W): the input of each convolution."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.output, *self.tokens, *self.maps, *chain(*self.statistics)))


@dataclass
class Recording:
    """The recorded calls of one sampling, in order."""

    key: tuple
    limit: int
    """Bytes."""
    calls: list[Call] = field(default_factory=list)

    def add(self, number: int, call: Call) -> None:
        """Store a call under its number, dropping later ones; not if that would exceed the limit."""
        before = self.calls[:number]
        if len(before) == number and sum(kept.nbytes for kept in before) + call.nbytes <= self.limit:
            self.calls = [*before, call]


class EditedUNet:
    """Stands in for a diffusers UNet during one sampling: records its calls, or computes a window of recorded ones."""

    def __init__(self, unet: nn.Module, recording: Recording, window: Window, reused: Reused):
        """window: in latent cells."""
        self._unet, self._recording, self._window, self._reused = unet, recording, window, reused
        self._layers = WideLayers.of(unet)
        self._align = 2 ** (len(unet.config.block_out_channels) - 1)
        self._number = 0

    def __call__(self, x: Tensor, t: Tensor, *, encoder_hidden_states: Tensor, **conditions: Any) -> Tensor:
        number, self._number = self._number, self._number + 1
        conditions |= {"encoder_hidden_states": encoder_hidden_states, "return_dict": False}
        height, width = x.shape[-2:]
        if height % self._align or width % self._align:
            return self._unet(x, t, **conditions)[0]
        known = self._recording.calls[number] if number < len(self._recording.calls) else None
        window = self._window.aligned(self._align, height, width)
        if known is None or len(known.output) != len(x) or window.area > LARGEST_SHARE * height * width:
            return self._record(number, x, t, conditions)
        self._reused.calls += 1
        part = x[..., window.rows, window.columns].contiguous()
        with computing(self._layers, known, window, (height, width)):
            computed = self._unet(part, t, **conditions)[0]
        output = known.output.to(x.dtype, copy=True)
        output[..., window.rows, window.columns] = computed
        return output

    def _record(self, number: int, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> Tensor:
        with recording(self._layers) as call:
            output = self._unet(x, t, **conditions)[0]
        call.output = compact(output)
        self._recording.add(number, call)
        return output


@dataclass(frozen=True)
class WideLayers:
    """A UNet's layers that mix different places of the picture; each kind always in the same order."""

    attentions: list[nn.Module]
    norms: list[nn.GroupNorm]
    convolutions: list[nn.Conv2d]

    @classmethod
    def of(cls, unet: nn.Module) -> Self:
        modules = list(unet.modules())
        return cls([module.attn1 for module in modules if hasattr(module, "attn1")],
                   [module for module in modules if isinstance(module, nn.GroupNorm)],
                   [module for module in modules if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)])


@contextmanager
def recording(layers: WideLayers) -> Iterator[Call]:
    """Context that records one call of the UNet."""
    call = Call(torch.empty(0), [None] * len(layers.attentions), [None] * len(layers.norms), [None] * len(layers.convolutions))

    def keep_tokens(index: int, _module: nn.Module, inputs: tuple) -> None:
        call.tokens[index] = compact(inputs[0])

    def keep_statistics(index: int, module: nn.GroupNorm, inputs: tuple) -> None:
        variance, mean = torch.var_mean(grouped(inputs[0], module).float(), dim=-1, keepdim=True, correction=0)
        call.statistics[index] = mean, variance

    def keep_map(index: int, _module: nn.Module, inputs: tuple) -> None:
        call.maps[index] = compact(inputs[0])

    with ExitStack() as hooks:
        for modules, keep in ((layers.attentions, keep_tokens), (layers.norms, keep_statistics), (layers.convolutions, keep_map)):
            for index, module in enumerate(modules):
                hooks.enter_context(module.register_forward_pre_hook(partial(keep, index)))
        yield call


@contextmanager
def computing(layers: WideLayers, known: Call, window: Window, size: tuple[int, int]) -> Iterator[None]:
    """Context in which the UNet computes a window of a latent of this (height, width), with the rest as recorded."""
    with ExitStack() as hooks:
        for attention, tokens in zip(layers.attentions, known.tokens):
            hooks.enter_context(attention.register_forward_pre_hook(partial(look_around, tokens, window, size), with_kwargs=True))
        for norm, statistics in zip(layers.norms, known.statistics):
            hooks.enter_context(norm.register_forward_hook(partial(normalise, *statistics)))
        for convolution, around in zip(layers.convolutions, known.maps):
            hooks.enter_context(convolution.register_forward_pre_hook(partial(widen, around, window)))
            hooks.enter_context(convolution.register_forward_hook(narrow))
        yield


def look_around(tokens: Tensor, window: Window, size: tuple[int, int], _attention: nn.Module, args: tuple,
                kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Let the window's tokens attend to the whole picture's."""
    own = args[0]
    shrink = round((size[0] * size[1] / tokens.shape[1]) ** 0.5)
    height, width = size[0] // shrink, size[1] // shrink
    part = window.scaled(window.height // shrink, window.width // shrink)
    whole = tokens.to(own.dtype, copy=True).reshape(len(own), height, width, -1)
    whole[:, part.rows, part.columns] = own.reshape(len(own), part.height, part.width, -1)
    return args, kwargs | {"encoder_hidden_states": whole.reshape(len(own), height * width, -1)}


def normalise(mean: Tensor, variance: Tensor, norm: nn.GroupNorm, inputs: tuple, _output: Tensor) -> Tensor:
    """A group norm's output with the whole picture's statistics."""
    x = inputs[0]
    values = ((grouped(x, norm) - mean) * (variance + norm.eps).rsqrt()).to(x.dtype)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return values.reshape(x.shape) * norm.weight.reshape(shape) + norm.bias.reshape(shape)


def widen(around: Tensor, window: Window, convolution: nn.Conv2d, inputs: tuple) -> tuple:
    """A convolution's input extended by recorded cells beyond the window's edges; zeros beyond the picture."""
    x, = inputs
    edge = convolution.stride[0]  # so that strides stay aligned with the window's cells
    part = window.scaled(x.shape[-2], x.shape[-1])
    wide = F.pad(around, (edge,) * 4)[..., part.top:part.bottom + 2 * edge, part.left:part.right + 2 * edge].to(x.dtype, copy=True)
    wide[..., edge:-edge, edge:-edge] = x
    return (wide,)


def narrow(_convolution: nn.Conv2d, _inputs: tuple, output: Tensor) -> Tensor:
    """The window's part of a convolution's output for its widened input."""
    return output[..., 1:-1, 1:-1]


def grouped(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """(B, C, …) as (B, groups, values)."""
    return x.reshape(len(x), norm.num_groups, -1)


def compact(tensor: Tensor) -> Tensor:
    """A copy in half precision."""
    return tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 else tensor.clone()
