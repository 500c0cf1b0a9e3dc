"""Tiny models, and files of random networks for them."""

import pytest
import torch
from network_models import TEXT, File, Model, new_unet
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


@pytest.fixture
def sd1():
    """A UNet of two levels, two blocks each, and one text encoder."""
    return Model({"unet": new_unet(), "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT))})


@pytest.fixture
def sdxl(sd1):
    """The same with a second text encoder."""
    return Model(sd1.modules | {"text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**TEXT))})


@pytest.fixture
def write(tmp_path):
    """Saves tensors as a network file; returns what a catalog would list."""
    def write_file(name, tensors, metadata=None):
        path = tmp_path / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)
        return File(path)
    return write_file


@pytest.fixture
def pair():
    """A LoRA of rank 2 and alpha 1 for a layer's kohya name, and what it adds at multiplier 1."""
    def make(name, out=8, into=8):
        up, down = torch.randn(out, 2), torch.randn(2, into)
        tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(1.0)}
        return tensors, up @ down / 2
    return make
