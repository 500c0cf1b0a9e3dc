"""How a network's weights lie in memory, so that its device computes fast in its precision.

In float32 they stay as they are: there nothing of this was faster (`python -m benchmarks unet`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families.placement import Placement


@torch.no_grad()
def arrange(network: nn.Module, placement: Placement) -> None:
    """Have the weights of a UNet or an autoencoder lie as its placement likes them best. The weights are the same."""
    if network.dtype == torch.float32:
        return
    network.to(memory_format=torch.channels_last)
    if placement.device.type == "cpu":  # on a card offloading moves weights one by one
        for block in network.modules():
            if hasattr(block, "attn1") and hasattr(block, "attn2"):
                block.attn1.set_processor(FusedProjections(block.attn1.to_q, block.attn1.to_k, block.attn1.to_v))
                block.attn2.set_processor(FusedProjections(block.attn2.to_k, block.attn2.to_v))


class FusedProjections:
    """A processor for an attention of diffusers' transformer blocks: some of to_q, to_k and to_v in one matrix product.

    Their weights become rows of one matrix, so that what is written into one of them holds here too.
    """

    def __init__(self, *layers: nn.Linear):
        self._layers = layers
        self._sizes = [layer.out_features for layer in layers]
        self._weight = torch.cat([layer.weight for layer in layers])
        for layer, rows in zip(layers, self._weight.split(self._sizes)):
            layer.weight.data = rows

    def __call__(self, attention: nn.Module, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 *_: Any, **__: Any) -> Tensor:
        """(B, n, C) → (B, n, C); it looks at (B, m, width), or at its own tokens."""
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        inputs = {attention.to_q: hidden_states, attention.to_k: seen, attention.to_v: seen}
        heads = [projected.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for projected in self._project(inputs)]
        output = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        for layer in attention.to_out:
            output = layer(output)
        return output

    def _project(self, inputs: dict[nn.Linear, Tensor]) -> list[Tensor]:
        """What each layer gives for its input."""
        own = [inputs[layer] for layer in self._layers]
        # networks may have brought biases, and edit reuse lets a part's tokens look at the whole picture's
        if any(layer.bias is not None for layer in self._layers) or any(value is not own[0] for value in own):
            return [layer(value) for layer, value in inputs.items()]
        together = dict(zip(self._layers, F.linear(own[0], self._weight).split(self._sizes, dim=-1)))
        return [together[layer] if layer in together else layer(value) for layer, value in inputs.items()]
