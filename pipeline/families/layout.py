"""Arranges a network's weights in memory for speed on its device, in its precision.

Float32 weights stay as they are: nothing here made them faster (`python -m benchmarks unet`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families.placement import Placement


@torch.no_grad()
def arrange(network: nn.Module, placement: Placement) -> None:
    """Arrange the weights of a UNet or autoencoder for its placement. Their values do not change."""
    if network.dtype == torch.float32:
        return
    network.to(memory_format=torch.channels_last)
    if placement.device.type == "cpu":  # on a GPU, offloading moves weights one by one
        for block in network.modules():
            if hasattr(block, "attn1") and hasattr(block, "attn2"):
                block.attn1.set_processor(FusedProjections(block.attn1.to_q, block.attn1.to_k, block.attn1.to_v))
                block.attn2.set_processor(FusedProjections(block.attn2.to_k, block.attn2.to_v))


class FusedProjections:
    """An attention processor for diffusers' transformer blocks that fuses some of to_q, to_k and to_v into one product.

    Their weights become views of one matrix, so changing one of them in place works here too.
    """

    def __init__(self, *layers: nn.Linear):
        self._layers = layers
        self._sizes = [layer.out_features for layer in layers]
        self._weight = torch.cat([layer.weight for layer in layers])
        for layer, rows in zip(layers, self._weight.split(self._sizes)):
            layer.weight.data = rows

    def __call__(self, attention: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 *_: Any, **__: Any) -> Tensor:
        """(B, n, C) → (B, n, C); attends to (B, m, width), or to its own tokens."""
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        inputs = {attention.to_q: hidden_states, attention.to_k: seen, attention.to_v: seen}
        heads = [projected.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for projected in self._project(inputs)]
        if seen is hidden_states:  # as many keys as queries, read again and again
            heads = [projected.contiguous() for projected in heads]
        output = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        for layer in attention.to_out:
            output = layer(output)
        return output

    def _project(self, inputs: dict[nn.Linear, Tensor]) -> list[Tensor]:
        """Each layer's output for its input."""
        own = [inputs[layer] for layer in self._layers]
        # networks may add biases, and with edit reuse the inputs differ
        if any(layer.bias is not None for layer in self._layers) or any(value is not own[0] for value in own):
            return [layer(value) for layer, value in inputs.items()]
        together = dict(zip(self._layers, F.linear(own[0], self._weight).split(self._sizes, dim=-1)))
        return [together[layer] if layer in together else layer(value) for layer, value in inputs.items()]
