"""TAESD (Ollin Boer Bohan, 2023): a decoder small enough to run at every step. Users supply the file for Stable Diffusion."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.families import configs
from pipeline.families.checkpoint import check_tensors, read_part
from pipeline.families.placement import Placement


class TinyDecoder:
    """An AutoencoderTiny that is loaded on first use."""

    def __init__(self, placement: Placement, read: Callable[[], nn.Module]):
        self._placement, self._read = placement, read
        self._module: nn.Module | None = None

    @torch.inference_mode(False)
    def _load(self) -> nn.Module:
        return self._read()

    def decode(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) at model scale → (B, 3, H, W) in [-1, 1], float32. Raises what loading raises."""
        self._module = self._module or self._load()
        return self._module.decode(latent.to(self._placement.device, self._placement.dtype)).sample.float()


def read(folder: Path, placement: Placement) -> nn.Module:
    """The AutoencoderTiny in a diffusers folder. Raises ModelError, and whatever invalid content makes its readers raise."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    part = read_part(folder)
    config = configs.valid_values(f'"{folder.name}"', part.config, configs.TINY)
    with torch.device("meta"):
        module = AutoencoderTiny.from_config(config)
    check_tensors(folder, "decoder", part, module)
    state = {key: part.tensors[key].read(placement.device, placement.dtype) for key in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False).eval()
