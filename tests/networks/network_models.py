"""A UNet with attention and everything else that networks act on, small enough to merge instantly."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from pipeline.families.layer_names import LayerNames

TEXT = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, projection_dim=16,
            vocab_size=64, bos_token_id=0, eos_token_id=1)
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FC1 = "encoder.layers.0.mlp.fc1"


@dataclass(frozen=True, eq=False)
class Model:
    """The part of a family that networks see."""

    modules: dict[str, torch.nn.Module]

    def layers(self):
        return LayerNames(self.modules)


@dataclass(frozen=True)
class File:
    """A catalog's entry."""

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem


def new_unet(**config):
    torch.manual_seed(1)
    return UNet2DConditionModel(**dict(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4) | config)
