"""Checkpoints in float8 whose weights have scales beside them, and other tensors that are not a network's own."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import families
from pipeline.errors import ModelError
from tests.families.conftest import FLOAT32

UNET = "model.diffusion_model."
QUERY = UNET + "input_blocks.1.1.transformer_blocks.0.attn1.to_q."
FUSED = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
FP8 = torch.float8_e4m3fn


@pytest.fixture
def write(checkpoint, tmp_path):
    """change → a file with the tensors of a checkpoint after it."""
    def write(change, kind="sd1"):
        path = tmp_path / "my.safetensors"
        save_file(change(load_file(checkpoint(kind)[1])), path)
        return path
    return write


def in_float8(state, *, ending, per_output):
    """All matrices and convolutions of the networks in float8 with their scales, and what they stand for then."""
    written, meant = dict(state), {}
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.ndim > 1 and "embedding" not in name:
            flat = tensor.float().flatten(1).abs()
            scale = (flat.amax(1) if per_output else flat.amax()[None]) / 448
            scale = scale.clamp(min=1e-12)
            small = (tensor.float() / scale.reshape(-1, *[1] * (tensor.ndim - 1))).to(FP8)
            written[name] = small
            written[name.removesuffix("weight") + ending] = scale if per_output else scale[0]
            meant[name] = small.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return written, meant


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("ending, marks, per_output", [
    ("scale_weight", {UNET + "scaled_fp8": torch.zeros(2).to(FP8), QUERY + "scale_input": torch.ones(())}, False),
    ("weight_scale", {QUERY + "input_scale": torch.ones(()), QUERY + "comfy_quant": torch.zeros(30, dtype=torch.uint8)}, True),
    ("weight_scale", {}, False),
])
def test_scales_are_multiplied_in(write, kind, ending, marks, per_output):
    meant = {}

    def change(state):
        written, values = in_float8(state, ending=ending, per_output=per_output)
        meant.update(values)
        return written | {name: mark for name, mark in marks.items() if kind == "sd1"}

    scaled = families.load(write(change, kind), FLOAT32).modules
    plain = families.load(write(lambda state: state | meant, kind), FLOAT32).modules
    for part, module in plain.items():
        for name, tensor in module.state_dict().items():
            torch.testing.assert_close(scaled[part].state_dict()[name], tensor, rtol=2e-3, atol=1e-6)


def test_a_fused_weight_is_scaled_before_it_is_cut(write):
    def change(state):
        scale = torch.linspace(1, 2, len(state[FUSED]))
        return state | {FUSED: (state[FUSED].float() / scale[:, None]), FUSED + "_scale": scale}

    scaled, plain = (families.load(write(how, "sd2"), FLOAT32).modules["text_encoder"] for how in (change, dict))
    for name in ("q_proj", "k_proj", "v_proj"):
        found, right = (getattr(module.base_model.encoder.layers[0].self_attn, name).weight for module in (scaled, plain))
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("name, tensor, said", [
    (QUERY + "weight_scale", torch.ones(4, 4), "is quantized in a way that is not supported: "),
    (QUERY + "scale_weight", torch.ones(7), "is quantized in a way that is not supported: "),
    (QUERY + "weight_scale_2", torch.ones(()), "whose effect on pictures is unknown"),
    (QUERY + "weight_scale_inv", torch.ones(1, 1), "whose effect on pictures is unknown"),
    (QUERY + "weight_zero_point", torch.ones(()), "whose effect on pictures is unknown"),
    (UNET + "time_embed.cond_proj.weight", torch.ones(128, 256), "whose effect on pictures is unknown"),
    ("first_stage_model.decoder.conv_in.scales", torch.ones(3), "whose effect on pictures is unknown"),
    ("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight.absmax", torch.ones(3),
     "whose effect on pictures is unknown"),
])
def test_what_is_not_known_in_a_network_is_refused(write, name, tensor, said):
    with pytest.raises(ModelError) as error:
        families.load(write(lambda state: state | {name: tensor}), FLOAT32)
    assert said in str(error.value) and f'"{name}"' in str(error.value)


def test_what_is_not_known_beside_the_networks_is_said(write):
    family = families.load(write(lambda state: state | {"odd.weight": torch.ones(3)}), FLOAT32)
    assert family.notes == ['"my.safetensors" holds "odd.weight", whose effect on pictures is unknown; '
                            "it was left out."]


@pytest.mark.parametrize("name", [
    "alphas_cumprod", "model_ema.decay", "model_ema.diffusion_modelout2bias", "global_step", "logvar", "scaled_fp8",
    "first_stage_model.loss.discriminator.weight", "first_stage_model.model_ema.decay",
    "cond_stage_model.transformer.text_model.embeddings.position_ids", "cond_stage_model.logit_scale",
    "cond_stage_model.transformer.text_projection.weight",
])
def test_what_is_known_to_mean_nothing_is_left_out(write, name):
    assert families.load(write(lambda state: state | {name: torch.ones(3)}), FLOAT32).notes == []
