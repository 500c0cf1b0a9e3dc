"""Step caching: most UNet calls recompute only the outermost layers and reuse an earlier call's deep features.

The layers are DeepCache's (Ma, Fang and Wang, 2023), on its first branch with `interval`. With `threshold`, reuse depends
on how much the first layer's output has changed, as in first-block caches, on that layer's branch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.families.reuse import Reused

SLOTS = 4
"""Batches kept apart within one sampling, such as prompt and negative prompt run separately."""


@dataclass
class Slot:
    """The features from one batch's latest full call."""

    crossattn: Tensor
    deep: Tensor
    """(B, C, h, w): the deep input of the first recomputed layer on the way up."""
    first: Tensor
    """(B, C, h, w): the output of the last recomputed layer on the way down."""
    age: int = 1
    """Calls answered with it, including the full one."""


class StepCache:
    """Stands in for a diffusers UNet during one sampling.

    interval: calls per full call; 1: limited only by the threshold. threshold: reuse while the first layer's output has
    changed by less than this fraction; 0: no limit.
    """

    def __init__(self, unet: nn.Module, interval: int, threshold: float, reused: Reused):
        self._unet, self._interval, self._threshold, self._reused = unet, interval, threshold, reused
        self._layers = 2 if threshold > 0 else 1
        self._slots: list[Slot] = []

    def __call__(self, x: Tensor, t: Tensor, *, encoder_hidden_states: Tensor, **conditions: Any) -> Tensor:
        slot = self._slot(x, encoder_hidden_states)
        if slot is None or (self._interval > 1 and slot.age >= self._interval):
            return self._whole(slot, x, t, encoder_hidden_states, conditions)
        outer = OuterLayers(self._unet, self._layers, x, t, encoder_hidden_states, **conditions)
        if self._threshold > 0 and change(outer.first, slot.first) >= self._threshold:
            return self._whole(slot, x, t, encoder_hidden_states, conditions)
        slot.age += 1
        self._reused.calls += 1
        return outer.finish(slot.deep)

    def _slot(self, x: Tensor, crossattn: Tensor) -> Slot | None:
        """The features kept for this batch with these prompts."""
        return next((slot for slot in self._slots if len(slot.deep) == len(x) and slot.crossattn.shape == crossattn.shape
                     and torch.equal(slot.crossattn, crossattn)), None)

    def _whole(self, old: Slot | None, x: Tensor, t: Tensor, crossattn: Tensor, conditions: dict[str, Any]) -> Tensor:
        with seeing(self._unet, self._layers) as seen:
            output = self._unet(x, t, encoder_hidden_states=crossattn, return_dict=False, **conditions)[0]
        kept = [slot for slot in self._slots if slot is not old]
        self._slots = [*kept[-(SLOTS - 1):], Slot(crossattn, seen["deep"], seen["first"])]
        return output


@contextmanager
def seeing(unet: nn.Module, layers: int) -> Iterator[dict[str, Tensor]]:
    """Context in which a UNet call stores a Slot's features in the dictionary."""
    seen: dict[str, Tensor] = {}
    down, up = unet.down_blocks[0], unet.up_blocks[-1]
    first = unet.conv_in if layers == 1 else (down.attentions if has_attention(down) else down.resnets)[0]

    def see_first(_module: nn.Module, _inputs: tuple, output: Any) -> None:
        seen["first"] = output[0] if isinstance(output, tuple) else output

    def see_deep(_module: nn.Module, inputs: tuple) -> None:
        skip = seen["first"].shape[1]
        seen["deep"] = inputs[0][:, :-skip]

    hooks = [first.register_forward_hook(see_first), up.resnets[-layers].register_forward_pre_hook(see_deep)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class OuterLayers:
    """The first layers on a UNet's way down, and as many of the last on its way up, for one input.

    layers: 1 or 2; the first is the convolution of the input latent.
    """

    def __init__(self, unet: nn.Module, layers: int, x: Tensor, t: Tensor, crossattn: Tensor,
                 added_cond_kwargs: dict[str, Tensor] | None = None):
        self._unet, self._crossattn = unet, crossattn
        emb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=t))
        added = unet.get_aug_embed(emb=emb, encoder_hidden_states=crossattn, added_cond_kwargs=added_cond_kwargs)
        self._emb = emb if added is None else emb + added
        self._skips = [unet.conv_in(x)]
        if layers == 2:
            self._skips.insert(0, self._layer(unet.down_blocks[0], 0, self._skips[0]))

    @property
    def first(self) -> Tensor:
        return self._skips[0]

    def finish(self, deep: Tensor) -> Tensor:
        """The network's output, given the deep features."""
        up, unet = self._unet.up_blocks[-1], self._unet
        for index, skip in enumerate(self._skips, -len(self._skips)):
            deep = self._layer(up, index, torch.cat([deep, skip], dim=1))
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(deep)))

    def _layer(self, block: nn.Module, index: int, x: Tensor) -> Tensor:
        x = block.resnets[index](x, self._emb)
        if not has_attention(block):
            return x
        return block.attentions[index](x, encoder_hidden_states=self._crossattn, return_dict=False)[0]


def has_attention(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def change(now: Tensor, before: Tensor) -> float:
    """By what fraction a feature map has changed."""
    return ((now - before).abs().mean() / before.abs().mean()).item()
