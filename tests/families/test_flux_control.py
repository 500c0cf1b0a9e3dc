"""ControlNets for FLUX.1: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FluxControlNetModel
from PIL import Image

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import control_networks
from pipeline.families.controls import Control, Controls
from tests.families import tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import (
    CLOSE, GUIDANCE, HEIGHT, KINDS, LEVELS, PROMPT, STEPS, WIDTH, flux1_texts, noise_of, told)
from tests.families.test_z_image_control import run_controlled
from tests.families.tiny_flow import WIDTH as TEXT_WIDTH

KIND = replace(KINDS["flux1-dev"], cfg_scale=1.0)
"""diffusers asks a control network once, with the prompt, for both halves of CFG; here, as in the extension, each half has its own."""
SCALE = 0.7
DRAWING = Image.fromarray(np.random.default_rng(5).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)).resize((WIDTH, HEIGHT))


def network(folder, name="flux-control", layers=1, single=1, modes=None, guided=True):
    """(diffusers' network, our own from its file)."""
    torch.manual_seed(2)
    module = FluxControlNetModel(num_layers=layers, num_single_layers=single, attention_head_dim=32, num_attention_heads=2,
                                 joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=32, axes_dims_rope=[4, 14, 14], guidance_embeds=guided,
                                 num_mode=modes).eval()
    for parameter in module.parameters():  # what is zero at the start of training would hide mistakes
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module, control_networks.load(tiny_controls.saved(module.state_dict(), folder / f"{name}.safetensors"), name, FLOAT32)


def theirs(files, module, **given):
    noise = noise_of(KIND)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    pipe = diffusers.FluxControlNetPipeline(scheduler=scheduler, tokenizer=None, tokenizer_2=None, controlnet=module, **files.modules)
    pipe.set_progress_bar_config(disable=True)
    mu = 0.5 + (1.15 - 0.5) * (WIDTH * HEIGHT // 256 - 256) / (4096 - 256)
    pipe.scheduler.set_timesteps(sigmas=LEVELS, mu=mu)
    words, pooled = flux1_texts(files, PROMPT, 512)
    with told("flux.pipeline_flux_controlnet", noise):
        ends = pipe(prompt_embeds=words, pooled_prompt_embeds=pooled, sigmas=LEVELS, width=WIDTH, height=HEIGHT, guidance_scale=GUIDANCE, output_type="latent",
                    num_inference_steps=STEPS, control_image=DRAWING, controlnet_conditioning_scale=SCALE,
                    latents=pipe._pack_latents(noise * pipe.scheduler.sigmas[0], 1, 16, *noise.shape[-2:]), **given).images
    return pipe._unpack_latents(ends, HEIGHT, WIDTH, pipe.vae_scale_factor)


@torch.inference_mode()
@pytest.mark.parametrize("made, mode", [({}, {}), ({"layers": 2, "single": 0, "guided": False}, {}), ({"modes": 7}, {"control_mode": 2})],
                         ids=["one of each", "without single blocks", "union"])
def test_a_controlnet_ends_where_diffusers_ends(made, mode, flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("flux1-dev"), flow_model("flux1-dev", "folder")
    module, loaded = network(tmp_path, **made)
    expected = theirs(files, module, **mode)
    unit = {"image": DRAWING, "weight": SCALE} | ({"union_control_type": "Depth"} if mode else {})
    mine, without = (run_controlled(KIND, family, loaded, unit | weight, monkeypatch) for weight in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 50 * CLOSE, "the control has no effect, so nothing is compared"
    assert (mine - expected).abs().max() < CLOSE


@torch.inference_mode()
def test_what_does_not_suit_is_refused(flow_model, tmp_path, monkeypatch):
    family = flow_model("flux1-dev", "folder")
    _, union = network(tmp_path, "union", modes=7)
    with pytest.raises(InvalidRequest, match='"union" takes Hard Edge, Tile, Depth and OpenPose'):
        run_controlled(KIND, family, union, {"image": DRAWING, "union_control_type": "Inpaint"}, monkeypatch)
    with pytest.raises(InvalidRequest, match="was made for another kind of checkpoint"):
        with flow_model("z-image", "folder").controlled(Controls([Control(union, torch.zeros(1, 3, 64, 64))])):
            pass
    xlabs = tiny_controls.saved({"controlnet_x_embedder.weight": torch.zeros(2, 2), "input_hint_block.0.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="in the layout of XLabs"):
        control_networks.load(xlabs, "x", FLOAT32)
