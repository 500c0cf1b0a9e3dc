"""Weights that lie otherwise: the network answers the same, also when its weights change, and in float32 nothing is moved."""

from copy import deepcopy

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from pipeline.families.layout import FusedProjections, arrange
from pipeline.families.placement import Placement

CPU, CARD = torch.device("cpu"), torch.device("cuda")
X, T = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)).double(), torch.tensor([500.0, 500.0])
PROMPTS = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(2)).double()


@pytest.fixture
def unet():
    """In float64, where rounding is no excuse."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    return network.double().requires_grad_(False).eval()


def placement(device, dtype=torch.float64):
    return Placement(device, dtype, dtype)


def ask(unet):
    return unet(X, T, encoder_hidden_states=PROMPTS).sample


def attentions(unet):
    return [module for name, module in unet.named_modules() if name.endswith(("attn1", "attn2"))]


def assert_same(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("device", [CPU, CARD])
def test_an_arranged_network_answers_the_same(unet, device):
    expected = ask(unet)
    arrange(unet, placement(device))
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(ask(unet), expected)


def test_on_a_processor_projections_are_one_product(unet):
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    arrange(unet, placement(CPU))
    assert attentions(unet)
    for attention in attentions(unet):
        assert isinstance(attention.processor, FusedProjections)
        assert attention.to_k.weight.untyped_storage().data_ptr() == attention.to_v.weight.untyped_storage().data_ptr()
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())


def test_on_a_card_each_projection_keeps_its_own_weights(unet):
    arrange(unet, placement(CARD))
    assert not any(isinstance(attention.processor, FusedProjections) for attention in attentions(unet))


@pytest.mark.parametrize("layer", ["to_q", "to_k", "to_v"])
@pytest.mark.parametrize("what", ["weight", "bias"])
def test_what_a_network_file_writes_into_a_layer_counts(unet, layer, what):
    plain = deepcopy(unet)
    arrange(unet, placement(CPU))
    for network in (unet, plain):
        for attention in attentions(network):
            changed = getattr(attention, layer)
            if what == "bias":
                changed.bias = nn.Parameter(torch.full((changed.out_features,), 0.5, dtype=torch.float64), requires_grad=False)
            else:
                changed.weight.copy_(changed.weight * 1.5)
    assert_same(ask(unet), ask(plain))


def test_tokens_may_look_at_others_than_themselves(unet):
    """As edit reuse lets them."""
    attention = next(module for name, module in unet.named_modules() if name.endswith("attn1"))
    part = torch.randn(2, 3, attention.to_q.in_features, dtype=torch.float64)
    whole = torch.cat([part, torch.randn_like(part)], dim=1)
    expected = attention(part, encoder_hidden_states=whole)
    arrange(unet, placement(CPU))
    assert_same(attention(part, encoder_hidden_states=whole), expected)
    assert (attention(part) - expected).abs().max() > 1e-3


def test_an_autoencoder_is_arranged_too():
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2).double().requires_grad_(False).eval()
    latent = X[:, :, :8, :8]
    expected = vae.decode(latent).sample
    arrange(vae, placement(CPU))
    assert vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(vae.decode(latent).sample, expected)


def test_in_float32_nothing_is_moved(unet):
    unet = unet.float()
    arrange(unet, placement(CPU, torch.float32))
    assert unet.conv_in.weight.is_contiguous()
    assert not any(isinstance(attention.processor, FusedProjections) for attention in attentions(unet))
