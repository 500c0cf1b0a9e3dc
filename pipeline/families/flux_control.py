"""ControlNets for FLUX.1: InstantX's and Shakker's, their unions, alimama's for inpainting, and XLabs'."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InvalidRequest
from pipeline.families import configs
from pipeline.families.black_forest import Names
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Control, Controls, MapNetwork, inpainting_context, of_another_kind, over_blocks, summed, weighted
from pipeline.families.placement import Placement
from pipeline.weights import Weights

ENTRY = "controlnet_x_embedder.weight"
"""Recognises such a network."""
XLABS = "pos_embed_input.weight"
"""The same in XLabs' files, which have the original code's names for the rest."""
HINT = "input_hint_block."
"""Layers of XLabs' networks, which see pixels."""
HINT_LAYERS = {0: "conv_in", 14: "conv_out"} | {2 * number: f"blocks.{number - 1}" for number in range(1, 7)}
"""By their numbers in XLabs' files."""
MODES = {3: 0, 6: 1, 1: 2, 0: 4}
"""A union's number for what it gets: of hard edges, tile, depth and poses, by their numbers among ControlNet Union's types."""
TYPES = 8
"""ControlNet Union's."""
PATCHED, WITH_MASK = 64, 68
"""Numbers of a token of a picture's latent, and of one with a mask."""


def build(config: dict[str, Any]) -> nn.Module:
    from diffusers import FluxControlNetModel

    extra = config.pop("extra_condition_channels")
    module = FluxControlNetModel.from_config(config)
    if extra:  # as alimama's code has it; diffusers knows no such networks
        module.controlnet_x_embedder = nn.Linear(WITH_MASK, module.inner_dim)
    return module


LAYERS = configs.whole(0, 128)
PARTS = {"controlnet": PartKind({
    "in_channels": configs.whole(PATCHED, PATCHED), "num_layers": LAYERS, "num_single_layers": LAYERS, "attention_head_dim": configs.whole(8, 1024),
    "num_attention_heads": configs.whole(1, 1024), "joint_attention_dim": configs.width, "pooled_projection_dim": configs.width,
    "guidance_embeds": configs.flag, "axes_dims_rope": configs.several(configs.whole(2, 1024), 3, 3), "num_mode": configs.whole(1, 64) | configs.null,
    "extra_condition_channels": configs.whole(0, 0) | configs.whole(WITH_MASK - PATCHED, WITH_MASK - PATCHED),
    "patch_size": configs.whole(1, 2), "conditioning_embedding_channels": configs.whole(16, 16) | configs.null}, build)}


@dataclass(frozen=True)
class FluxControl(MapNetwork):
    """A loaded ControlNet for FLUX.1."""

    @property
    def union(self) -> bool:
        return bool(self.module.union)

    @property
    def types(self) -> int:
        return TYPES if self.union else 0

    @property
    def inpaints(self) -> bool:
        return self.module.controlnet_x_embedder.in_features == WITH_MASK

    @property
    def sees_pixels(self) -> bool:
        return self.module.input_hint_block is not None

    def check(self, transformer: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another size of the transformer."""
        own, wanted = self.module.config, transformer.config
        if any(own[name] != wanted[name] for name in ("num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim")):
            raise of_another_kind(self.name, model)

    def mode(self, control: Control) -> Tensor | None:
        """A union's number for what it gets, (1, 1). Raises InvalidRequest for what it was not trained on."""
        if not self.union:
            return None
        if control.kind not in MODES:
            raise InvalidRequest("alwayson_scripts", f'ControlNet: "{self.name}" takes Hard Edge, Tile, Depth and OpenPose as union_control_type')
        return torch.tensor([[MODES[control.kind]]])


# --- reading

def read(tensors: Mapping[str, Stored], path: Path, name: str, place: Placement) -> FluxControl:
    """The network with these tensors, in diffusers' names. Raises ModelError."""
    part = Part(config_of(path, dict(tensors)), dict(tensors))
    return FluxControl(name, build_modules(Checkpoint(path, {"controlnet": part}), PARTS, place)["controlnet"])


def of_xlabs(weights: Weights, names: Names) -> dict[str, Stored]:
    """An XLabs file's tensors under diffusers' names. names: of FLUX.1's own tensors."""
    tensors = {}
    for name in weights:
        found = re.fullmatch(re.escape(HINT) + r"(\d+)\.(.+)", name)
        if found is not None and int(found[1]) in HINT_LAYERS:
            tensors[f"{HINT}{HINT_LAYERS[int(found[1])]}.{found[2]}"] = Stored(weights, name)
        else:
            tensors |= names.converted(Stored(weights, name), name.replace(XLABS.partition(".")[0], ENTRY.partition(".")[0]))
    return tensors


def config_of(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' FluxControlNetModel, by shapes. Raises ModelError."""
    inner, channels = shape(path, tensors, "x_embedder.weight")
    head, mode = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0], "controlnet_mode_embedder.weight"
    pixels = f"{HINT}conv_in.weight" in tensors
    return {"in_channels": channels, "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."),
            "num_single_layers": count(tensors, r"single_transformer_blocks\.(\d+)\."), "attention_head_dim": head,
            "num_attention_heads": inner // head, "joint_attention_dim": shape(path, tensors, "context_embedder.weight")[1],
            "pooled_projection_dim": shape(path, tensors, "time_text_embed.text_embedder.linear_1.weight")[1],
            "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
            "axes_dims_rope": [head // 8, head * 7 // 16, head * 7 // 16], "num_mode": shape(path, tensors, mode)[0] if mode in tensors else None,
            "extra_condition_channels": max(shape(path, tensors, ENTRY)[1] - PATCHED, 0), "patch_size": 2 if pixels else 1,
            "conditioning_embedding_channels": shape(path, tensors, f"{HINT}conv_out.weight")[0] if pixels else None}


# --- guiding

@dataclass
class FluxControls:
    """The controls of a sampling.

    encode: pixels (1, 3, H, W) in [-1, 1] → latent; patches: a latent → its tokens as a grid; places: such a grid → its tokens' positions.
    """

    controls: Controls
    encode: Callable[[Tensor], Tensor]
    patches: Callable[[Tensor], Tensor]
    places: Callable[[Tensor, int], Tensor]
    _contexts: dict[int, Tensor] = field(default_factory=dict)
    """By the control's id: the same at each call."""

    def samples(self, grid: Tensor, inputs: dict[str, Tensor], guidance: Tensor, transformer: nn.Module, tokens: int) -> dict[str, list[Tensor]]:
        """Further arguments for the transformer. grid: the latent's tokens; inputs: its other inputs; tokens: how many it sees."""
        blocks = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
        sums: list[list[Tensor] | None] = [None, None]
        for control in self.controls.active:
            for kind, outputs in enumerate(self._outputs(control, grid, inputs, guidance)):
                if outputs:
                    found = weighted(control, outputs, self.controls.negative, grid.shape[-2:])
                    sums[kind] = summed(sums[kind], over_blocks(found, blocks[kind], tokens, repeats=control.network.sees_pixels))
        names = "controlnet_block_samples", "controlnet_single_block_samples"
        return {name: found for name, found in zip(names, sums) if found}

    def _outputs(self, control: Control, grid: Tensor, inputs: dict[str, Tensor], guidance: Tensor) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        network, rows = control.network, len(grid)
        mode = network.mode(control)
        if id(control) not in self._contexts:
            self._contexts[id(control)] = self._seen(control).to(grid)
        return network.module(
            hidden_states=grid.flatten(2).transpose(1, 2), controlnet_cond=self._contexts[id(control)].expand(rows, *self._contexts[id(control)].shape[1:]),
            controlnet_mode=None if mode is None else mode.to(grid.device, non_blocking=True).expand(rows, -1), img_ids=self.places(grid, 0),
            conditioning_scale=1.0 if control.layers else control.weight, guidance=guidance if network.module.config.guidance_embeds else None,
            return_dict=False, **inputs)

    def _seen(self, control: Control) -> Tensor:
        """What a network sees of its picture: tokens (1, n, 64 or 68), or pixels in [-1, 1]."""
        if control.network.sees_pixels:
            return control.hint[:, :3] * 2 - 1
        latent = inpainting_context(control.network.name, control.hint, self.encode) if control.network.inpaints else self.encode(control.hint[:, :3] * 2 - 1)
        return self.patches(latent).flatten(2).transpose(1, 2)
