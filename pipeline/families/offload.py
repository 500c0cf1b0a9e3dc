"""Weights that wait in main memory and are on the device while they compute, so that a small card runs a large model."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Offload:
    """Where the weights of a model's networks are, by a plan of placement.OFFLOADS.

    What waits in main memory is the weights themselves; what computes is a copy that is dropped afterwards. So they may
    only be changed between rest() and the next computation.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device, plan: str):
        """modules: which networks there are, whenever a plan begins to be followed."""
        self._modules, self._device = modules, device
        self._hooks: list[RemovableHandle] = []
        self._there: nn.Module | None = None
        self._waiting: list[tuple[nn.Parameter, Tensor]] = []
        """The parameters of what is on the device, and what they are in main memory."""
        self.follow(plan)

    @torch.inference_mode(False)
    def follow(self, plan: str) -> None:
        """Keep to this plan from now on. Where the device has no room for "none", it is to be followed by another one."""
        self.rest()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for network in self._modules.values():
            if plan == "none":
                network.to(self._device)
                continue
            network.to("cpu")
            for buffer in network.buffers():
                buffer.data = buffer.data.to(self._device)
            for layer in network.modules():
                if next(layer.parameters(recurse=False), None) is not None:
                    comes = network if plan == "model" else layer
                    self._hooks.append(layer.register_forward_pre_hook(partial(self._bring, comes)))

    @torch.inference_mode(False)
    def rest(self) -> None:
        """Have nothing on the device that only computes there."""
        for parameter, weights in self._waiting:
            parameter.data = weights
        self._waiting.clear()
        self._there = None

    @torch.inference_mode(False)
    def _bring(self, unit: nn.Module, _layer: nn.Module, inputs: tuple) -> tuple:
        """Have a network or a layer on the device, in place of what was there, and its inputs too."""
        if self._there is not unit:
            self.rest()
            for parameter in unit.parameters():
                self._waiting.append((parameter, parameter.data))
                parameter.data = parameter.data.to(self._device, copy=True)
            self._there = unit
        return tuple(value.to(self._device) if isinstance(value, Tensor) else value for value in inputs)
