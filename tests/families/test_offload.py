"""Weights that are on the device only while they compute: the same pictures, and never more there than the plan says."""

import pytest
import torch

from pipeline import families
from pipeline.families.cond import Encoding
from pipeline.families.placement import Placement
from tests.families.conftest import FLOAT32

def place(plan):
    return Placement(FLOAT32.device, FLOAT32.dtype, FLOAT32.vae_dtype, plan)


@pytest.fixture(scope="module")
def plain(checkpoint, load):
    return load(checkpoint("sdxl")[1])


@pytest.fixture(params=["encoders", "model", "sequential"])
def small(request, checkpoint):
    return families.load(checkpoint("sdxl")[1], place(request.param))


def draw(family):
    """All that a family computes, once each, where nothing keeps gradients."""
    torch.manual_seed(0)
    x, pixels = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        cond = family.encode_prompts(["a house"], Encoding())
        noise = family.denoise(x, torch.tensor([500.0]), cond, x.new_zeros(1, 5, 1, 1))
        return cond.tokens, cond.extra["text_embeds"], noise, family.encode_image(pixels), family.decode(x)


def weights(family):
    return [parameter.data_ptr() for module in family._modules.values() for parameter in module.parameters()]


def largest_layer(networks):
    return max(sum(p.numel() for p in layer.parameters(recurse=False)) for network in networks for layer in network.modules())


def watch(family):
    """A list that gets, at each layer of the model, the numbers of weights that are on the device."""
    homes, counts = dict.fromkeys(weights(family)), []
    modules = family.modules.values()

    def count(_layer, _inputs):
        counts.append(sum(parameter.numel() for module in modules for parameter in module.parameters()
                          if parameter.data_ptr() not in homes))

    for module in modules:
        for layer in module.modules():
            if layer._parameters:
                layer.register_forward_pre_hook(count)
    return counts


def test_it_computes_the_same(plain, small):
    for ours, theirs in zip(draw(small), draw(plain), strict=True):
        assert torch.equal(ours, theirs)


def test_no_more_is_there_than_the_network_or_the_layer_that_computes(small):
    parts = [module for module in small.modules.values()]
    encoders = [module for name, module in small.modules.items() if name.startswith("text_encoder")]
    most = {"model": max(sum(p.numel() for p in part.parameters()) for part in parts), "encoders": largest_layer(encoders), "sequential": largest_layer(parts)}
    counts = watch(small)
    draw(small)
    assert 0 < max(counts) <= most[small.placement.offload]


def test_whoever_asks_for_the_networks_finds_their_own_weights(small):
    before = weights(small)
    draw(small)
    assert weights(small) != before
    assert small.modules and weights(small) == before


def test_what_is_changed_at_rest_acts_and_stays(plain, small):
    draw(small)
    with torch.no_grad():
        small.modules["unet"].conv_out.bias += 1
    difference = draw(small)[2] - draw(plain)[2]
    torch.testing.assert_close(difference, torch.ones_like(difference), atol=1e-5, rtol=0)


def test_plans_can_be_changed_and_taken_back(plain, small):
    for plan in ("sequential", "model", "encoders", "none", "encoders", "model"):
        small.offload.follow(plan)
        assert torch.equal(draw(small)[2], draw(plain)[2])
    small.offload.follow("none")
    before = weights(small)
    draw(small)
    assert weights(small) == before
