"""TAESD: found by the family's name, read when first used, and what is no such file is refused by a sentence."""

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

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


# single files

def taesd_file(folder, name="taesd_decoder"):
    """A decoder of small width by TAESD's own names, and diffusers' with the same weights.

    TAESD's file is torch.nn.Sequential(Clamp(), conv, ReLU, …), as in its authors' taesd.py: layer 0 has no weights.
    """
    torch.manual_seed(2)
    decoder = AutoencoderTiny(decoder_block_out_channels=(8,) * 4).decoder
    state = {}
    for key, tensor in decoder.state_dict().items():
        _, number, rest = key.split(".", 2)
        state[f"{int(number) + 1}.{rest}"] = tensor.clone()
    save_file(state, folder / f"{name}.safetensors")
    return decoder, state


def test_taesd_is_read_from_its_authors_file(tmp_path):
    decoder, state = taesd_file(tmp_path)
    # as in madebyollin/taesd's taesd_decoder: the first convolution, the first block, the one after the first doubling, the last
    assert {"1.weight", "3.conv.0.weight", "3.conv.4.bias", "7.weight", "18.conv.0.weight", "19.weight", "19.bias"} <= state.keys()
    assert "7.bias" not in state
    with torch.no_grad():
        x = 3 * torch.tanh(LATENT / 3)
        assert torch.allclose(of("sd1", tmp_path).decode(LATENT), 2 * decoder.layers(x) - 1, atol=1e-6)


def approx_file(folder, name="model", channels=4):
    """A1111's Approx NN (spec: eight convolutions) with random weights."""
    random, state, inputs = torch.Generator().manual_seed(3), {}, channels
    for number, (outputs, kernel) in enumerate(((8, 7), (16, 5), (32, 3), (64, 3), (32, 3), (16, 3), (8, 3), (3, 3)), 1):
        state[f"conv{number}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=random) / (inputs * kernel**2) ** 0.5
        state[f"conv{number}.bias"] = torch.randn(outputs, generator=random) / 10
        inputs = outputs
    save_file(state, folder / f"{name}.safetensors")
    return state


def approx_of(name, folder):
    return families.approx_decoder(folder, ModelInfo("m", "m", family=name), PLACE)


def test_approx_nn_computes_what_a1111s_does(tmp_path):
    state = approx_file(tmp_path)
    x = torch.nn.functional.pad(LATENT.repeat_interleave(2, -1).repeat_interleave(2, -2), (11, 11, 11, 11))
    for number in range(1, 9):
        x = torch.nn.functional.conv2d(x, state[f"conv{number}.weight"], state[f"conv{number}.bias"])
        x = torch.where(x > 0, x, 0.1 * x)
    pixels = approx_of("sd1", tmp_path).decode(LATENT)
    assert pixels.shape == (2, 3, 8, 12) and torch.allclose(pixels, x, atol=1e-5)


def test_approx_nn_is_found_by_family(tmp_path):
    approx_file(tmp_path, "vaeapprox-sdxl")
    assert [approx_of(name, tmp_path) is not None for name in ("sd1", "sd2", "sdxl", "else")] == [False, False, True, False]
    assert families.approx_decoder(tmp_path, ModelInfo("m", "m", family="sdxl", own_latents=True), PLACE) is None


@pytest.mark.parametrize("read, make", [(of, taesd_file), (approx_of, approx_file)])
@pytest.mark.parametrize("change, sentence", [
    (lambda state: {}, "is not a small decoder"), (lambda state: state | {"other": torch.zeros(1)}, '"other" is missing, misshapen or unknown'),
    (lambda state: dict(list(state.items())[:-1]), "is missing, misshapen or unknown")])
def test_another_file_is_one_sentence(tmp_path, read, make, change, sentence):
    made = make(tmp_path)
    file = next(tmp_path.glob("*.safetensors"))
    state = made if isinstance(made, dict) else made[1]
    save_file(change(dict(state)), file)
    with pytest.raises(ModelError, match=sentence):
        read("sd1", tmp_path).decode(LATENT)
