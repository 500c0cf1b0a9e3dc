"""ControlNets for Z-Image: the Fun-Controlnet-Union files, versions 1, 2.0 and 2.1, of which those from 2.0 on also inpaint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families import configs
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Control, Controls, MapNetwork, of_another_kind, share_of, share_of_tokens
from pipeline.families.placement import Placement
from pipeline.weights import Weights

ENTRY = "control_all_x_embedder.2-1.weight"
"""Recognises such a file."""
PATCH = 2
LATENT, INPAINT = 16, 33
"""Channels that a network sees: the map's latent; or also a mask (1 = keep) and the masked picture's latent."""
SHARED = ("t_scale", "t_embedder", "all_x_embedder", "cap_embedder", "rope_embedder", "noise_refiner", "context_refiner", "x_pad_token", "cap_pad_token")
"""What it borrows from the transformer while it guides it."""
REFINERS = "control_noise_refiner"


def build(config: dict[str, Any]) -> nn.Module:
    from diffusers import ZImageControlNetModel

    return ZImageControlNetModel.from_config(config)


PLACES = configs.several(configs.whole(0, 256), most=256)
PARTS = {"controlnet": PartKind({
    "control_layers_places": PLACES, "control_refiner_layers_places": PLACES | configs.null, "control_in_dim": configs.channels,
    "add_control_noise_refiner": configs.one_of("control_layers", REFINERS) | configs.null, "dim": configs.width,
    "n_refiner_layers": configs.whole(1, 16), "n_heads": configs.whole(1, 1024), "n_kv_heads": configs.whole(1, 1024)}, build)}


@dataclass(frozen=True)
class ZImageControl(MapNetwork):
    """A loaded ControlNet for Z-Image."""

    @property
    def inpaints(self) -> bool:
        return self.module.control_in_dim == INPAINT

    def check(self, transformer: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another size of the transformer."""
        if self.module.config.dim != transformer.config.dim or len(self.module.control_layers) > len(transformer.layers):
            raise of_another_kind(self.name, model)


# --- reading

def read(weights: Weights, name: str, place: Placement) -> ZImageControl:
    """The network in a file. Raises ModelError."""
    config = config_of(weights)
    unused = f"{REFINERS}." if config["add_control_noise_refiner"] == "control_layers" else ()
    tensors = {key: Stored(weights, key) for key in weights if not key.startswith(unused)}
    return ZImageControl(name, build_modules(Checkpoint(weights.path, {"controlnet": Part(config, tensors)}), PARTS, place)["controlnet"])


def config_of(weights: Weights) -> dict[str, Any]:
    """The config of diffusers' ZImageControlNetModel, by shapes. Raises ModelError."""
    tensors = {key: Stored(weights, key) for key in weights}
    dim, seen = shape(weights.path, tensors, ENTRY)
    heads = dim // shape(weights.path, tensors, "control_layers.0.attention.norm_q.weight")[0]
    layers, refiners = (count(tensors, rf"{part}\.(\d+)\.") for part in ("control_layers", REFINERS))
    first = f"{REFINERS}.0.before_proj.weight"
    # 2.0 was published with refiners that were never trained: its layers take their place
    kind = None if first not in weights and seen == LATENT * PATCH**2 else REFINERS if first in weights and weights[first].any() else "control_layers"
    return {"control_layers_places": list(range(layers)), "control_refiner_layers_places": list(range(max(refiners, 1))), "control_in_dim": seen // PATCH**2,
            "add_control_noise_refiner": kind, "dim": dim, "n_refiner_layers": max(refiners, 1), "n_heads": heads, "n_kv_heads": heads}


# --- guiding

@contextmanager
def borrowing(networks: list[ZImageControl], transformer: nn.Module) -> Iterator[None]:
    """Context in which the networks use the transformer's own embedders and refiners."""
    try:
        for network in networks:
            for name in SHARED:
                setattr(network.module, name, getattr(transformer, name))
        yield
    finally:
        for network in networks:
            for name in SHARED:
                setattr(network.module, name, None)


@dataclass
class ZImageControls:
    """The controls of a sampling. encode: pixels (1, 3, H, W) in [-1, 1] → latent."""

    controls: Controls
    encode: Callable[[Tensor], Tensor]
    _contexts: dict[int, Tensor] = field(default_factory=dict)
    """By the control's id: the same at each call."""

    def samples(self, x: list[Tensor], t: Tensor, texts: list[Tensor], blocks: int) -> dict[int, Tensor] | None:
        """What is added after each of the transformer's blocks, for its own inputs; None: nothing."""
        total: dict[int, Tensor] = {}
        size = x[0].shape[-2] // PATCH, x[0].shape[-1] // PATCH
        for control in self.controls.active:
            context = self._context(control, x[0])
            found = control.network.module(x, t, texts, [context] * len(x), conditioning_scale=1.0 if control.layers else control.weight)
            step = blocks // len(found)  # published networks follow every block of as many
            for index, output in found.items():
                output = output * share_of(control, index, len(found), self.controls.negative, output) * share_of_tokens(control, size, output)
                total[index * step] = total[index * step] + output if index * step in total else output
        return total or None

    def _context(self, control: Control, x: Tensor) -> Tensor:
        """What a network sees of its picture, (16 or 33, 1, h, w)."""
        if id(control) not in self._contexts:
            self._contexts[id(control)] = self._seen(control, x)[0, :, None].to(x)
        return self._contexts[id(control)]

    def _seen(self, control: Control, x: Tensor) -> Tensor:
        pixels = control.hint[:, :3] * 2 - 1
        latent = padded(self.encode(pixels), x)
        if not control.network.inpaints:
            return latent
        if control.hint.shape[1] == 3:
            return F.pad(latent, (0, 0, 0, 0, 0, INPAINT - LATENT))
        mask = (control.hint[:, 3:] > 0.5).to(pixels)  # 1 = paint
        source = padded(self.encode(pixels * (1 - mask)), x)
        keep = F.interpolate(1 - mask, latent.shape[-2:], mode="nearest").to(latent)
        return torch.cat([torch.zeros_like(latent), keep, source], dim=1)


def padded(latent: Tensor, like: Tensor) -> Tensor:
    """A latent extended to the size of what the transformer sees."""
    return F.pad(latent, (0, like.shape[-1] - latent.shape[-1], 0, like.shape[-2] - latent.shape[-2]), mode="circular")
