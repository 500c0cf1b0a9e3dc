"""Merges networks into a model's weights, and removes them bit-exactly.

Weights that stay quantized in memory are not written: such a layer adds the changes whenever it unpacks its weight.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from pipeline.families.base import Layer, LayerFinder
from pipeline.families.packed import PackedLayer
from pipeline.networks.deltas import DoesNotFit, bias_delta, depends_on_weight, weight_delta
from pipeline.networks.file import NetworkFile, Version
from pipeline.networks.requests import NetworkRequest


@dataclass(frozen=True)
class Wanted:
    """A network to merge, identified by everything its effect depends on."""

    request: NetworkRequest
    path: Path
    version: Version


class NetworkSet:
    """The networks merged into one model's weights. Does not keep the model alive."""

    def __init__(self):
        self._originals: WeakKeyDictionary[nn.Module, dict[str, Tensor | None]] = WeakKeyDictionary()
        """Module → its original weight and bias, on the CPU; None: it had no bias."""
        self._changed: WeakSet[PackedLayer] = WeakSet()
        """Those that compute with changes."""
        self._applied: tuple[Wanted, ...] = ()
        self._comments: list[str] = []

    @torch.no_grad()
    def apply(self, layers: Callable[[], LayerFinder], wanted: Sequence[Wanted], checkpoint: Callable[[], None] = lambda: None,
              opened: Callable[[Path], NetworkFile] = NetworkFile) -> list[str]:
        """Merge exactly these networks, in this order; returns a sentence for each that fits only in part.

        Does nothing if they are merged already. Sums are float32, rounded once to the weight's dtype. checkpoint: called before
        each part of the work. Raises what it raises, and ModelError for a file that cannot be read; the weights are then as
        before, or without any network.
        """
        if tuple(wanted) == self._applied:
            return self._comments
        files: dict[Path, NetworkFile] = {}
        for want in wanted:
            checkpoint()
            if want.path not in files:
                files[want.path] = opened(want.path)
        self.restore()
        try:
            networks = [(want.request, files[want.path]) for want in wanted]
            self._comments = self._merge(layers(), networks, checkpoint)
        except BaseException:
            self.restore()
            raise
        self._applied = tuple(wanted)
        return self._comments

    def restore(self) -> None:
        """Restore every weight bit-exactly and free the copies."""
        with torch.no_grad():
            for module, originals in self._originals.items():
                for name, original in originals.items():
                    if original is None:
                        setattr(module, name, None)
                    else:
                        getattr(module, name).copy_(original)
        self._originals.clear()
        for module in self._changed:
            module.changes.clear()
        self._changed.clear()
        self._applied, self._comments = (), []

    def _merge(self, finder: LayerFinder, networks: list[tuple[NetworkRequest, NetworkFile]],
               checkpoint: Callable[[], None]) -> list[str]:
        """Layer by layer, so that only one layer at a time is in memory as float32."""
        actions: dict[Layer, list[tuple[int, str]]] = {}
        places: dict[NetworkFile, list[tuple[str, Layer | None]]] = {}
        misfits = [0] * len(networks)
        for index, (_, file) in enumerate(networks):
            checkpoint()
            if file not in places:
                places[file] = [(name, finder.find(name)) for name in file.layers]
            for name, layer in places[file]:
                if layer is None:
                    misfits[index] += 1
                else:
                    actions.setdefault(layer, []).append((index, name))
        for layer, changes in actions.items():
            merged = MergedLayer(layer, Counter((*networks[index], name) for index, name in changes))
            fitting = []
            for index, name in changes:
                checkpoint()
                fits = merged.add(*networks[index], name)
                misfits[index] += not fits
                fitting += [(*networks[index], name)] if fits else []
            if any(isinstance(module, PackedLayer) for module in layer.modules) and merged.weight is not None:
                self._add(layer, fitting, merged.weight)
            else:
                self._write(layer, "weight", merged.weight)
            self._write(layer, "bias", merged.bias)
        comments = (f'LoRA "{request.name}": {missing} of its {len(file.layers)} layers do not fit this model and were left out.'
                    for (request, file), missing in zip(networks, misfits) if missing)
        return list(dict.fromkeys(comments))

    def _add(self, layer: Layer, changes: list["Change"], merged: Tensor) -> None:
        """Have a layer whose weight is packed, or is in parts of which one is, compute with these changes.

        merged: its weight with them.
        """
        kept = [(request, InMemory(file, name), name) for request, file, name in changes]
        for module, rows, numbers in layer.places(torch.arange(len(merged))):
            own = slice(int(numbers[0]), int(numbers[-1]) + 1)
            if isinstance(module, PackedLayer):
                module.changes.append((rows, partial(with_changes, layer, kept, own)))
                self._changed.add(module)
            else:
                self._originals.setdefault(module, {}).setdefault("weight", module.weight.detach().to("cpu", copy=True))
                module.weight[rows].copy_(merged[own])

    def _write(self, layer: Layer, name: str, value: Tensor | None) -> None:
        if value is None:
            return
        for module, rows, part in layer.places(value):
            parameter, originals = getattr(module, name), self._originals.setdefault(module, {})
            if name not in originals:  # another part of the module may have been written
                originals[name] = None if parameter is None else parameter.detach().to("cpu", copy=True)
            if parameter is None:
                with torch.inference_mode(False):  # an inference tensor could not be moved like the weight
                    parameter = nn.Parameter(module.weight.new_zeros(len(module.weight)), requires_grad=False)
                    setattr(module, name, parameter)
            parameter[rows].copy_(part)


Change = tuple[NetworkRequest, NetworkFile, str]
"""A network's change to a layer, under one of the layer's names."""
class InMemory:
    """One layer's tensors of a network file, in main memory."""

    def __init__(self, file: NetworkFile, name: str):
        self._parts = file.parts(name, torch.device("cpu"))

    def parts(self, name: str, device: torch.device) -> dict[str, Tensor]:
        return {part: tensor.to(device) for part, tensor in self._parts.items()}


@torch.no_grad()
def with_changes(layer: Layer, changes: list[Change], rows: slice, weight: Tensor) -> Tensor:
    """What the changes make of these rows of a layer's weight, float32."""
    merged = MergedLayer(layer, Counter(changes))
    merged.weight = (layer.weight if layer.below else weight).to(weight.device, torch.float32)
    merged.weight[rows] = weight.float()
    for change in changes:
        merged.add(*change)
    return merged.weight[rows]


MAX_KEPT = 8
"""Changes to keep for reuse in a layer; each takes as much memory as the layer."""


class MergedLayer:
    """One layer's weight and bias in float32 while networks are added; None: unchanged so far."""

    def __init__(self, layer: Layer, times: Counter[Change]):
        """times: how often each change will be added."""
        self._layer, self._times = layer, times
        self._kept: dict[Change, tuple[Tensor, Tensor | None] | None] = {}
        """Changes that will recur: (for the weight, for the bias); None: it does not fit."""
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, request: NetworkRequest, file: NetworkFile, name: str) -> bool:
        """Add the network's change to this layer, found under `name`; False if it does not fit, and nothing changes."""
        weight = self._layer.weight.float() if self.weight is None else self.weight
        multiplier = request.te if self._layer.is_text_encoder else request.unet
        change = self._deltas((request, file, name), weight, multiplier)
        if change is None:
            return False
        delta, bias = change
        if multiplier:
            self.weight = delta + weight
        if multiplier and bias is not None:
            self.bias = self._bias() + bias * multiplier
        return True

    def _deltas(self, change: Change, weight: Tensor, multiplier: float) -> tuple[Tensor, Tensor | None] | None:
        """A change to the weight and, at multiplier 1, to the bias; None if it does not fit."""
        if change in self._kept:
            return self._kept[change]
        request, file, name = change
        parts = file.parts(name, weight.device)
        try:
            bias = bias_delta(parts, len(weight))
            result = weight_delta(parts, weight, multiplier, dyn_dim=request.dyn_dim), bias
        except DoesNotFit:
            result = None
        if self._times[change] > 1 and len(self._kept) < MAX_KEPT and (result is None or not depends_on_weight(parts)):
            self._kept[change] = result
        return result

    def _bias(self) -> Tensor | float:
        if self.bias is not None:
            return self.bias
        bias = self._layer.bias
        return 0.0 if bias is None else bias.float()
