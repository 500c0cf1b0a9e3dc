"""The layers of a diffusion transformer under the names that LoRA files use: diffusers', and those of its original code."""

import re
from collections.abc import Callable, Mapping

from torch import nn

from pipeline.families.base import Layer, LayerFinder
from pipeline.families.packed import has_weight

_PREFIXES = re.compile(r"(?:base_model_model_)?(?:(?:lora|lycoris|oft)_)?(?:unet_|transformer_(?!blocks_)|model_diffusion_model_|diffusion_model_)?")
"""What trainers put before a layer's name."""


class TransformerLayers:
    """Finds a transformer's layers by any of their names.

    original: the names of diffusers' modules in the original code, by dotted path; several for one that is known by several.
    fused: the original code's names of layers that diffusers splits → the paths of the parts, in the order of their rows.
    text_encoders: finds their layers; None: nobody trains them for the model.
    """

    def __init__(self, model: nn.Module, original: Callable[[str], list[str]], fused: Mapping[str, list[str]],
                 text_encoders: LayerFinder | None = None):
        modules = {path: module for path, module in model.named_modules() if has_weight(module)}
        self._layers = {flat(name): Layer(module) for path, module in modules.items() for name in (path, *original(path))}
        for name, paths in fused.items():
            first, *below = (modules[path] for path in paths)
            self._layers[flat(name)] = Layer(first, below=tuple(below))
        self._text_encoders = text_encoders

    def find(self, layer: str) -> Layer | None:
        """The layer of this name, as split_name() gives it."""
        found = self._layers.get(_PREFIXES.sub("", layer, count=1), self._layers.get(layer))
        return self._text_encoders.find(layer) if found is None and self._text_encoders is not None else found


def flat(path: str) -> str:
    """A path with underscores only."""
    return path.replace(".", "_")
