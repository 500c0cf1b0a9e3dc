"""Keeps weights in main memory and moves them to the device only to compute, so that small cards run large models."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline.families.placement import plan_of


class Offload:
    """Places a model's weights by one of placement.OFFLOADS.

    Main memory holds the weights themselves; the device computes on a copy that is dropped afterwards. So weights may only be
    changed between rest() and the next computation.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device, plan: str):
        """modules: read again whenever a plan is applied."""
        self._modules, self._device = modules, device
        self._hooks: list[RemovableHandle] = []
        self._there: nn.Module | None = None
        self._waiting: list[tuple[nn.Parameter, Tensor]] = []
        """(parameter on the device, its tensor in main memory)."""
        self.follow(plan)

    @torch.inference_mode(False)
    def follow(self, plan: str) -> None:
        """Apply this plan from now on. If the device is too small for "none", call it again with another plan."""
        self.rest()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for name, network in self._modules.items():
            plan_here = plan_of(name, plan)
            if plan_here == "none":
                network.to(self._device)
                continue
            network.to("cpu")
            for buffer in network.buffers():
                buffer.data = buffer.data.to(self._device)
            for layer in network.modules():
                own = list(layer.parameters(recurse=False))
                if own and plan_here == "sequential" and any(True for _ in layer.children()):
                    # it holds numbers of its own beside its layers, such as a token: few, and used while those come and go
                    for parameter in own:
                        parameter.data = parameter.data.to(self._device)
                elif own:
                    comes = network if plan_here == "model" else layer
                    self._hooks.append(layer.register_forward_pre_hook(partial(self._bring, comes)))

    @torch.inference_mode(False)
    def rest(self) -> None:
        """Move everything off the device that is there only to compute."""
        for parameter, weights in self._waiting:
            parameter.data = weights
        self._waiting.clear()
        self._there = None

    @torch.inference_mode(False)
    def _bring(self, unit: nn.Module, _layer: nn.Module, inputs: tuple) -> tuple:
        """Move a network or layer, and its inputs, to the device, replacing what was there."""
        if self._there is not unit:
            self.rest()
            for parameter in unit.parameters():
                self._waiting.append((parameter, parameter.data))
                parameter.data = parameter.data.to(self._device, non_blocking=True, copy=True)
            self._there = unit
        return tuple(value.to(self._device, non_blocking=True) if isinstance(value, Tensor) else value for value in inputs)
