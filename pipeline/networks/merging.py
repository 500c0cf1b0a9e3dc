"""Networks merged into a model's weights, and taken out again bit by bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.networks.deltas import DoesNotFit, bias_delta, weight_delta
from pipeline.networks.file import NetworkFile, Version
from pipeline.networks.keys import Layer, LayerNames
from pipeline.networks.requests import NetworkRequest


@dataclass(frozen=True)
class Wanted:
    """One network that a model shall have, told apart by everything that its effect depends on."""

    request: NetworkRequest
    path: Path
    version: Version


class NetworkSet:
    """The networks in the weights of one model, which it does not keep alive."""

    def __init__(self):
        self._originals: WeakKeyDictionary[nn.Module, dict[str, Tensor | None]] = WeakKeyDictionary()
        """By module: what its weight and its bias were, on the CPU; None: there was no bias."""
        self._applied: tuple[Wanted, ...] = ()
        self._comments: list[str] = []

    @torch.no_grad()
    def apply(self, modules: Mapping[str, nn.Module], wanted: Sequence[Wanted]) -> list[str]:
        """Have these networks in the weights, in this order, and no others; a sentence for each that fits in part only.

        Nothing is done where they are there already. Sums are float32 and rounded to the weight's dtype once. Raises
        ModelError for a file that cannot be read, and leaves the weights as they were then, or without any network.
        """
        if tuple(wanted) == self._applied:
            return self._comments
        files = {want.path: NetworkFile(want.path) for want in wanted}
        self.restore()
        try:
            self._comments = self._merge(LayerNames(modules), [(want.request, files[want.path]) for want in wanted])
        except BaseException:
            self.restore()
            raise
        self._applied = tuple(wanted)
        return self._comments

    def restore(self) -> None:
        """Give every weight its own bits back, and the memory of the copies with them."""
        with torch.no_grad():
            for module, originals in self._originals.items():
                for name, original in originals.items():
                    if original is None:
                        setattr(module, name, None)
                    else:
                        getattr(module, name).copy_(original)
        self._originals.clear()
        self._applied, self._comments = (), []

    def _merge(self, names: LayerNames, networks: list[tuple[NetworkRequest, NetworkFile]]) -> list[str]:
        """Layer by layer, so that one layer at a time is in memory in float32."""
        actions: dict[Layer, list[tuple[int, str]]] = {}
        misfits = [0] * len(networks)
        for index, (_, file) in enumerate(networks):
            for name in file.layers:
                layer = names.find(name)
                if layer is None:
                    misfits[index] += 1
                else:
                    actions.setdefault(layer, []).append((index, name))
        for layer, changes in actions.items():
            merged = MergedLayer(layer)
            for index, name in changes:
                misfits[index] += not merged.add(*networks[index], name)
            self._write(layer.module, "weight", merged.weight)
            self._write(layer.module, "bias", merged.bias)
        return [f'LoRA "{request.name}": {missing} of its {len(file.layers)} layers do not fit this model and were left out.'
                for (request, file), missing in zip(networks, misfits) if missing]

    def _write(self, module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is None:
            return
        parameter = getattr(module, name)
        self._originals.setdefault(module, {})[name] = None if parameter is None else parameter.detach().to("cpu", copy=True)
        if parameter is None:
            with torch.inference_mode(False):  # so that it can be moved like the weight
                setattr(module, name, nn.Parameter(value.to(module.weight.dtype, copy=True), requires_grad=False))
        else:
            parameter.copy_(value)


class MergedLayer:
    """One layer's weight and bias as networks are added, float32; None while they are unchanged."""

    def __init__(self, layer: Layer):
        self._layer = layer
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, request: NetworkRequest, file: NetworkFile, name: str) -> bool:
        """Add what a network has for this layer under `name`; False where it does not fit, and nothing is changed."""
        weight = self._layer.module.weight.float() if self.weight is None else self.weight
        parts = file.parts(name, weight.device)
        multiplier = request.te if self._layer.is_text_encoder else request.unet
        try:
            bias = bias_delta(parts, len(weight))
            delta = weight_delta(parts, weight, multiplier, dyn_dim=request.dyn_dim)
        except DoesNotFit:
            return False
        if multiplier:
            self.weight = delta.add_(weight)
        if multiplier and bias is not None:
            self.bias = self._bias() + bias * multiplier
        return True

    def _bias(self) -> Tensor | float:
        if self.bias is not None:
            return self.bias
        bias = self._layer.module.bias
        return 0.0 if bias is None else bias.float()
