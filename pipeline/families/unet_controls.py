"""Networks that guide a UNet: ControlNets, unions of them, and T2I-Adapters; what they add to its features."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families.controls import BALANCED, CONTROL, Control, Controls, MapNetwork, of_another_kind, per_row

Kind = Literal["controlnet", "union", "adapter"]
SOFT = 0.825
"""Each deeper output counts this much less the farther it is from the last, unless the mode is Balanced."""
OUTPUTS = 13
"""Of a ControlNet for SD1; those of SDXL count as its first ones."""
SOFT_ADAPTER = (0.25, 0.62, 0.825, 1.0)
INPAINT = 7
"""A union's number for maps with a mask."""


@dataclass(frozen=True)
class UNetControl(MapNetwork):
    """A loaded network that guides a UNet."""

    kind: Kind
    pools: bool = False
    """Whether its outputs are averaged over the picture, as for shuffled pictures."""

    @property
    def union(self) -> bool:
        return self.kind == "union"

    @property
    def types(self) -> int:
        return self.module.config.num_control_type if self.union else 0

    def check(self, unet: nn.Module, model: str) -> None:
        """Raise InvalidRequest if it was made for another kind of UNet."""
        own, wanted = self.module.config, unet.config
        if self.kind == "adapter":
            is_xl = wanted.addition_embed_type == "text_time"
            levels = list(wanted.block_out_channels)
            fits = list(own.channels)[:len(levels)] == levels and (own.adapter_type == "full_adapter_xl") == is_xl
        else:
            fits = (list(own.block_out_channels) == list(wanted.block_out_channels) and own.cross_attention_dim == wanted.cross_attention_dim
                    and own.addition_embed_type == wanted.addition_embed_type)
        if not fits:
            raise of_another_kind(self.name, model, hint(own, wanted))

    def outputs(self, control: Control, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> list[Tensor]:
        """Its outputs at a call, unweighted: a ControlNet's from the outermost to the middle, an adapter's by level.

        x: (B, 4, h, w), as the UNet sees it; conditions: its other inputs.
        """
        hint = control.hint.to(x)
        if self.kind == "adapter":
            features = self.module(hint[:, :3] if self.module.config.in_channels == 3 else hint[:, :1])
            return [feature.expand(len(x), -1, -1, -1) for feature in features]
        if self.kind == "union":
            types = F.one_hot(torch.tensor([control.kind]), self.types).to(x.device, x.dtype, non_blocking=True)
            hint = masked(hint, black=True).expand(len(x), -1, -1, -1)
            down, middle = self.module(x, t, controlnet_cond=[hint], control_type=types.expand(len(x), -1), control_type_idx=[control.kind],
                                       return_dict=False, **conditions)
        else:
            down, middle = self.module(x, t, controlnet_cond=masked(hint), return_dict=False, **conditions)
        return [*down, middle]


def hint(own: Any, wanted: Any) -> str:
    """What is known of both kinds, for a sentence."""
    kinds = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}
    ours, theirs = kinds.get(getattr(own, "cross_attention_dim", None)), kinds.get(wanted.cross_attention_dim)
    return f": it is for {ours}, the checkpoint is {theirs}" if ours and theirs else ""


def masked(hint: Tensor, *, black: bool = False) -> Tensor:
    """A hint with a mask as a network's three channels: -1, or black, where it paints."""
    if hint.shape[1] == 3:
        return hint
    mask = (hint[:, 3:] > 0.5).to(hint)
    return hint[:, :3] * (1 - mask) - (0 if black else mask)


def weights(control: Control, count: int, kind: Kind) -> list[float]:
    """How much each of a network's outputs counts, by its weight and mode."""
    if control.layers is not None:
        return list(control.layers)
    if control.mode == BALANCED:
        return [control.weight] * count
    if kind == "adapter":
        return [control.weight * share for share in SOFT_ADAPTER]
    return [control.weight * SOFT ** (OUTPUTS - 1 - index) for index in range(OUTPUTS)]


@dataclass
class UNetControls:
    """The controls of a sampling, for a UNet's calls."""

    controls: Controls
    _features: dict[int, list[Tensor]] = field(default_factory=dict)
    """An adapter's outputs, which are the same at each call, by the control's id."""

    def residuals(self, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> dict[str, Any]:
        """Further keyword arguments for a diffusers UNet."""
        nets: list[Tensor] = []
        adapters: list[Tensor] = []
        for control in self.controls.active:
            if not isinstance(control.network, UNetControl):  # IP-Adapters act within the attention layers
                continue
            if control.network.kind == "adapter":
                adapters = added(adapters, self._weighted(control, x, t, conditions))
            else:
                nets = added(nets, self._weighted(control, x, t, conditions))
        found = {"down_block_additional_residuals": nets[:-1], "mid_block_additional_residual": nets[-1]} if nets else {}
        return found | ({"down_intrablock_additional_residuals": adapters} if adapters else {})

    def _weighted(self, control: Control, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> list[Tensor]:
        network: UNetControl = control.network
        outputs = self._outputs(control, x, t, conditions)
        factors = weights(control, len(outputs), network.kind)
        positive = None
        if control.mode == CONTROL or network.pools:
            positive = 1 - per_row(self.controls.negative, x)
        weighted = []
        for output, factor in zip(outputs, factors):
            output = output * factor if positive is None else output * (positive * factor)
            if control.region is not None:
                output = output * F.interpolate(control.region.to(output), output.shape[-2:], mode="bilinear")
            weighted.append(output.mean(dim=(2, 3), keepdim=True) if network.pools else output)
        return weighted

    def _outputs(self, control: Control, x: Tensor, t: Tensor, conditions: dict[str, Any]) -> list[Tensor]:
        if control.network.kind != "adapter":
            return control.network.outputs(control, x, t, conditions)
        known = self._features.get(id(control))
        if known is None or len(known[0]) != len(x):
            known = self._features[id(control)] = control.network.outputs(control, x, t, conditions)
        return known


def added(sums: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, others)] if sums else others
