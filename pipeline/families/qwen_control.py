"""ControlNets for Qwen-Image, by diffusers' names: InstantX's union, which tells kinds of maps apart by itself, and its inpainting one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.families import configs
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Control, Controls, MapNetwork, inpainting_context, of_another_kind, over_blocks, summed, weighted
from pipeline.families.placement import Placement

ENTRY = "controlnet_x_embedder.weight"
NORM = "txt_norm.weight"
"""Both together recognise such a network; those for FLUX.1 have only the first."""
PATCHED, MASK = 64, 4
"""Numbers of a token of a picture's latent, and of its mask."""


def build(config: dict[str, Any]) -> nn.Module:
    import torch
    from diffusers import QwenImageControlNetModel
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    module = QwenImageControlNetModel.from_config(config)
    with torch.device("cpu"):  # files do not hold these numbers
        module.pos_embed = QwenEmbedRope(theta=10000, axes_dim=list(module.config.axes_dims_rope), scale_rope=True)
    return module


PARTS = {"controlnet": PartKind({
    "in_channels": configs.whole(PATCHED, PATCHED), "num_layers": configs.whole(1, 128), "attention_head_dim": configs.whole(8, 1024),
    "num_attention_heads": configs.whole(1, 1024), "joint_attention_dim": configs.width, "axes_dims_rope": configs.several(configs.whole(2, 1024), 3, 3),
    "extra_condition_channels": configs.whole(0, 0) | configs.whole(MASK, MASK)}, build)}


@dataclass(frozen=True)
class QwenControl(MapNetwork):
    """A loaded ControlNet for Qwen-Image."""

    @property
    def inpaints(self) -> bool:
        return bool(self.module.config.extra_condition_channels)

    def check(self, transformer: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another size of the transformer."""
        own, wanted = self.module.config, transformer.config
        if any(own[name] != wanted[name] for name in ("num_attention_heads", "attention_head_dim", "joint_attention_dim")):
            raise of_another_kind(self.name, model)


# --- reading

def read(tensors: Mapping[str, Stored], path: Path, name: str, place: Placement) -> QwenControl:
    """The network with these tensors. Raises ModelError."""
    part = Part(config_of(path, dict(tensors)), dict(tensors))
    return QwenControl(name, build_modules(Checkpoint(path, {"controlnet": part}), PARTS, place)["controlnet"])


def config_of(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' QwenImageControlNetModel, by shapes. Raises ModelError."""
    inner, channels = shape(path, tensors, "img_in.weight")
    head = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0]
    return {"in_channels": channels, "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."), "attention_head_dim": head,
            "num_attention_heads": inner // head, "joint_attention_dim": shape(path, tensors, "txt_in.weight")[1],
            "axes_dims_rope": [head // 8, head * 7 // 16, head * 7 // 16],
            "extra_condition_channels": shape(path, tensors, ENTRY)[1] - channels}


# --- guiding

@dataclass
class QwenControls:
    """The controls of a sampling. encode: pixels (1, 3, H, W) in [-1, 1] → latent; patches: a latent → its tokens as a grid."""

    controls: Controls
    encode: Callable[[Tensor], Tensor]
    patches: Callable[[Tensor], Tensor]
    _contexts: dict[int, Tensor] = field(default_factory=dict)
    """By the control's id: the same at each call."""

    def samples(self, grid: Tensor, inputs: dict[str, Tensor | None], blocks: int, tokens: int) -> list[Tensor] | None:
        """What is added after each of the transformer's blocks, which see that many tokens; None: nothing.

        grid: the latent's tokens; inputs: the transformer's other inputs.
        """
        sums = None
        for control in self.controls.active:
            outputs = control.network.module(
                hidden_states=grid.flatten(2).transpose(1, 2), controlnet_cond=self._context(control, grid).expand(len(grid), -1, -1),
                conditioning_scale=1.0 if control.layers else control.weight, img_shapes=[[(1, *grid.shape[-2:])]] * len(grid),
                return_dict=False, **inputs)
            found = weighted(control, outputs, self.controls.negative, grid.shape[-2:])
            sums = summed(sums, over_blocks(found, blocks, tokens))
        return sums

    def _context(self, control: Control, grid: Tensor) -> Tensor:
        """What a network sees of its picture, (1, n, 64 or 68)."""
        if id(control) not in self._contexts:
            latent = inpainting_context(control.network.name, control.hint, self.encode) if control.network.inpaints else \
                self.encode(control.hint[:, :3] * 2 - 1)
            self._contexts[id(control)] = self.patches(latent).flatten(2).transpose(1, 2).to(grid)
        return self._contexts[id(control)]
