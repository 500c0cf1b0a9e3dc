"""ControlNets for FLUX.1, by diffusers' names: InstantX's and Shakker's, and their unions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Control, Controls, of_another_kind, share_of, share_of_tokens
from pipeline.families.placement import Placement
from pipeline.weights import Weights

ENTRY = "controlnet_x_embedder.weight"
"""Recognises such a network."""
HINT = "input_hint_block.0.weight"
"""XLabs' networks, which see pixels, have other names for the rest too."""
MODES = {3: 0, 6: 1, 1: 2, 0: 4}
"""A union's number for what it gets: of hard edges, tile, depth and poses, by their numbers among ControlNet Union's types."""
TYPES = 8
"""ControlNet Union's."""
PATCHED = 64


def build(config: dict[str, Any]) -> nn.Module:
    from diffusers import FluxControlNetModel

    return FluxControlNetModel.from_config(config)


LAYERS = configs.whole(0, 128)
PARTS = {"controlnet": PartKind({
    "in_channels": configs.whole(PATCHED, PATCHED), "num_layers": LAYERS, "num_single_layers": LAYERS, "attention_head_dim": configs.whole(8, 1024),
    "num_attention_heads": configs.whole(1, 1024), "joint_attention_dim": configs.width, "pooled_projection_dim": configs.width,
    "guidance_embeds": configs.flag, "axes_dims_rope": configs.several(configs.whole(2, 1024), 3, 3), "num_mode": configs.whole(1, 64) | configs.null}, build)}


@dataclass(frozen=True)
class FluxControl:
    """A loaded ControlNet for FLUX.1."""

    name: str
    module: nn.Module
    reads: None = None

    @property
    def union(self) -> bool:
        return bool(self.module.union)

    @property
    def types(self) -> int:
        return TYPES if self.union else 0

    def move_to(self, placement: Placement, *, computes: bool) -> None:
        self.module.to(placement.device if computes else placement.home)

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

def of_file(weights: Weights) -> dict[str, Stored]:
    return {name: Stored(weights, name) for name in weights}


def read(tensors: Mapping[str, Stored], path: Path, name: str, place: Placement) -> FluxControl:
    """The network with these tensors. Raises ModelError."""
    if HINT in tensors or "transformer_blocks.0.attn.to_q.weight" not in tensors:
        raise ModelError(f'"{path.name}" is a ControlNet in the layout of XLabs, which is not supported')
    part = Part(config_of(path, dict(tensors)), dict(tensors))
    return FluxControl(name, build_modules(Checkpoint(path, {"controlnet": part}), PARTS, place)["controlnet"])


def config_of(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' FluxControlNetModel, by shapes. Raises ModelError."""
    inner, channels = shape(path, tensors, "x_embedder.weight")
    head, mode = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0], "controlnet_mode_embedder.weight"
    return {"in_channels": channels, "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."),
            "num_single_layers": count(tensors, r"single_transformer_blocks\.(\d+)\."), "attention_head_dim": head,
            "num_attention_heads": inner // head, "joint_attention_dim": shape(path, tensors, "context_embedder.weight")[1],
            "pooled_projection_dim": shape(path, tensors, "time_text_embed.text_embedder.linear_1.weight")[1],
            "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in tensors,
            "axes_dims_rope": [head // 8, head * 7 // 16, head * 7 // 16], "num_mode": shape(path, tensors, mode)[0] if mode in tensors else None}


# --- guiding

@dataclass
class FluxControls:
    """The controls of a sampling.

    encode: pixels (1, 3, H, W) in [-1, 1] → the tokens of their latent as a grid; places: such a grid → its tokens' positions.
    """

    controls: Controls
    encode: Callable[[Tensor], Tensor]
    places: Callable[[Tensor, int], Tensor]
    _contexts: dict[int, Tensor] = field(default_factory=dict)
    """By the control's id: the same at each call."""

    def samples(self, grid: Tensor, inputs: dict[str, Tensor], guidance: Tensor, transformer: nn.Module, tokens: int) -> dict[str, list[Tensor]]:
        """Further arguments for the transformer. grid: the latent's tokens; inputs: its other inputs; tokens: how many it sees."""
        blocks = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
        sums: list[list[Tensor] | None] = [None, None]
        for control in self.controls.active:
            for kind, outputs in enumerate(self._outputs(control, grid, inputs, guidance)):
                spread = self._spread(control, outputs or [], blocks[kind], grid, tokens)
                sums[kind] = spread if sums[kind] is None else [a + b for a, b in zip(sums[kind], spread)] if spread else sums[kind]
        names = "controlnet_block_samples", "controlnet_single_block_samples"
        return {name: found for name, found in zip(names, sums) if found}

    def _outputs(self, control: Control, grid: Tensor, inputs: dict[str, Tensor], guidance: Tensor) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        network, rows = control.network, len(grid)
        mode = network.mode(control)
        if id(control) not in self._contexts:
            self._contexts[id(control)] = self.encode(control.hint[:, :3] * 2 - 1).flatten(2).transpose(1, 2).to(grid)
        return network.module(
            hidden_states=grid.flatten(2).transpose(1, 2), controlnet_cond=self._contexts[id(control)].expand(rows, -1, -1),
            controlnet_mode=None if mode is None else mode.to(grid.device).expand(rows, -1), img_ids=self.places(grid, 0),
            conditioning_scale=1.0 if control.layers else control.weight, guidance=guidance if network.module.config.guidance_embeds else None,
            return_dict=False, **inputs)

    def _spread(self, control: Control, outputs: list[Tensor], blocks: int, grid: Tensor, tokens: int) -> list[Tensor]:
        """An output for each of the transformer's blocks: each of a network's follows as many of them."""
        if not outputs:
            return []
        each = -(-blocks // len(outputs))
        weighted = [output * share_of(control, index, len(outputs), self.controls.negative, output) * share_of_tokens(control, grid.shape[-2:], output)
                    for index, output in enumerate(outputs)]
        return [F.pad(weighted[block // each], (0, 0, 0, tokens - weighted[0].shape[1])) for block in range(blocks)]
