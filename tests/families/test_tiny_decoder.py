"""TAESD: found by the family's name, read when first used, and what is no such file is refused by a sentence."""

import pytest
import torch
from diffusers import AutoencoderTiny

from pipeline import families
from pipeline.errors import ModelError
from pipeline.families.base import ModelInfo
from pipeline.families.placement import Placement
from tests.conftest import ROOT

PLACE = Placement(torch.device("cpu"), torch.float32, torch.float32)
LATENT = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A folder like VAE-approx with a decoder of small width."""
    torch.manual_seed(0)
    tiny = AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
                           num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1))
    tiny.save_pretrained(tmp_path / "taesd")
    return tmp_path


def of(name, folder):
    return families.tiny_decoder(folder, ModelInfo("m", "m", family=name), PLACE)


def test_it_decodes_as_diffusers_does(folder):
    pixels = of("sd1", folder).decode(LATENT)
    with torch.no_grad():
        assert torch.allclose(pixels, AutoencoderTiny.from_pretrained(folder / "taesd").decode(LATENT).sample, atol=1e-6)
    assert pixels.shape == (2, 3, 32, 48)


@pytest.mark.parametrize("name, there", [("sd1", True), ("sd2", True), ("sdxl", False), ("else", False)])
def test_each_family_has_its_own(folder, name, there):
    assert (of(name, folder) is not None) == there


def test_a_model_whose_latents_are_its_own_takes_only_its_own(folder, tmp_path):
    model = tmp_path / "model"
    info = ModelInfo("model", str(model), family="sd1", own_latents=True)
    assert families.tiny_decoder(folder, info, PLACE) is None
    torch.manual_seed(1)
    its = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
                          num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1))
    its.save_pretrained(model / "vae_approx")
    with torch.no_grad():
        assert torch.allclose(families.tiny_decoder(folder, info, PLACE).decode(LATENT), its.decode(LATENT).sample, atol=1e-6)


def test_the_demo_models_latents_are_its_own():
    assert families.describe(ROOT / "assets" / "demo-model").own_latents


@pytest.mark.parametrize("name, content", [("config.json", "{"), ("diffusion_pytorch_model.safetensors", "no tensors")])
def test_a_damaged_one_is_a_sentence_when_it_is_used(folder, name, content):
    (folder / "taesd" / name).write_text(content)
    decoder = of("sd1", folder)
    with pytest.raises(ModelError):
        decoder.decode(LATENT)
