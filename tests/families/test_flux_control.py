"""ControlNets for FLUX.1: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

import re
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FluxControlNetModel
from PIL import Image

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import control_networks
from pipeline.families.controls import Control, Controls, over_blocks
from pipeline.families.flux1 import NAMES
from tests.families import tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import (
    CLOSE, GUIDANCE, HEIGHT, KINDS, LEVELS, MASK, PROMPT, STEPS, WIDTH, flux1_texts, noise_of, told)
from tests.families.test_z_image_control import run_controlled
from tests.families.tiny_flow import WIDTH as TEXT_WIDTH

KIND = replace(KINDS["flux1-dev"], cfg_scale=1.0)
"""diffusers asks a control network once, with the prompt, for both halves of CFG; here, as in the extension, each half has its own."""
SCALE = 0.7
DRAWING = Image.fromarray(np.random.default_rng(5).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)).resize((WIDTH, HEIGHT))


def network(folder, name="flux-control", layers=1, single=1, modes=None, guided=True, **more):
    """(diffusers' network, our own from its file)."""
    torch.manual_seed(2)
    module = FluxControlNetModel(num_layers=layers, num_single_layers=single, attention_head_dim=32, num_attention_heads=2,
                                 joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=32, axes_dims_rope=[4, 14, 14], guidance_embeds=guided,
                                 num_mode=modes, **more).eval()
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
    damaged = tiny_controls.saved({"pos_embed_input.weight": torch.zeros(2, 2), "input_hint_block.0.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match='"x.safetensors" is incomplete, .* lacks the tensor that diffusers calls "x_embedder.weight"'):
        control_networks.load(damaged, "x", FLOAT32)


def in_xlabs_names(module):
    """Its tensors as XLabs' files name them."""
    tensors, fused = {}, {}
    layers = {"conv_in": 0, "conv_out": 14} | {f"blocks.{number}": 2 * number + 2 for number in range(6)}
    for name, tensor in module.state_dict().items():
        path, _, kind = name.rpartition(".")
        if path.startswith("input_hint_block."):
            tensors[f"input_hint_block.{layers[path.removeprefix('input_hint_block.')]}.{kind}"] = tensor
        elif path == "controlnet_x_embedder":
            tensors[f"pos_embed_input.{kind}"] = tensor
        elif found := re.fullmatch(r"transformer_blocks\.(\d+)\.attn\.(to|add)_([qkv])(_proj)?", path):
            stream = "img" if found[2] == "to" else "txt"
            fused.setdefault(f"double_blocks.{found[1]}.{stream}_attn.qkv.{kind}", {})[found[3]] = tensor
        else:
            theirs, = NAMES.original(path) or [path]
            tensors[f"{theirs}.{'scale' if theirs.endswith('_norm') and 'norm.' in theirs else kind}"] = tensor
    return tensors | {name: torch.cat([parts[part] for part in "qkv"]) for name, parts in fused.items()}


@torch.inference_mode()
def test_a_network_of_xlabs_sees_pixels_and_ends_where_diffusers_ends(flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("flux1-dev"), flow_model("flux1-dev", "folder")
    module, same = network(tmp_path, single=0, conditioning_embedding_channels=16, patch_size=2)
    named = in_xlabs_names(module)
    assert {"double_blocks.0.img_attn.qkv.weight", "input_hint_block.14.bias", "pos_embed_input.weight", "controlnet_blocks.0.weight",
            "double_blocks.0.img_attn.norm.query_norm.scale", "guidance_in.in_layer.weight"} <= named.keys()
    loaded = control_networks.load(tiny_controls.saved(named, tmp_path / "xlabs.safetensors"), "xlabs", FLOAT32)
    assert all(torch.equal(tensor, loaded.module.state_dict()[name]) for name, tensor in module.state_dict().items()) and same.sees_pixels
    expected = theirs(files, module)
    mine, without = (run_controlled(KIND, family, loaded, {"image": DRAWING, "weight": SCALE} | weight, monkeypatch) for weight in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 20 * CLOSE and (mine - expected).abs().max() < CLOSE


def test_outputs_of_xlabs_networks_follow_one_after_the_other_and_others_in_runs():
    outputs = [torch.full((1, 2, 1), float(number)) for number in (1, 2)]
    assert [int(output[0, 0, 0]) for output in over_blocks(outputs, 5, 2, repeats=True)] == [1, 2, 1, 2, 1]
    assert [int(output[0, 0, 0]) for output in over_blocks(outputs, 5, 2)] == [1, 1, 1, 2, 2]


@torch.inference_mode()
def test_an_inpainting_network_sees_the_picture_without_what_it_paints_and_the_mask(flow_files, flow_model, tmp_path, monkeypatch):
    """diffusers has no such network, so its pipeline's is given the context of its inpainting pipeline for Qwen-Image, made here by hand."""
    files, family = flow_files("flux1-dev"), flow_model("flux1-dev", "folder")
    module, _ = network(tmp_path)
    module.controlnet_x_embedder = torch.nn.Linear(68, 64)
    loaded = control_networks.load(tiny_controls.saved(module.state_dict(), tmp_path / "inpaint.safetensors"), "inpaint", FLOAT32)
    pixels = torch.from_numpy(np.array(DRAWING)).permute(2, 0, 1)[None] / 127.5 - 1
    paints = torch.from_numpy(np.asarray(MASK) > 127)[None, None]
    vae = files.modules["vae"]
    latent = (vae.encode(torch.where(paints, -1.0, pixels)).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor
    keep = 1 - paints[..., ::8, ::8].float()
    context = diffusers.FluxControlNetPipeline._pack_latents(torch.cat([latent, keep], dim=1), 1, 17, *latent.shape[-2:])
    hook = module.register_forward_pre_hook(lambda _, args, given: (args, given | {"controlnet_cond": context}), with_kwargs=True)
    expected = theirs(files, module)
    hook.remove()
    unit = {"image": DRAWING, "weight": SCALE, "mask": MASK, "module": "inpaint"}
    mine, without = (run_controlled(KIND, family, loaded, unit | weight, monkeypatch) for weight in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 20 * CLOSE and (mine - expected).abs().max() < CLOSE
    with pytest.raises(InvalidRequest, match='"inpaint" inpaints; it takes a mask, and the preprocessor inpaint'):
        run_controlled(KIND, family, loaded, {"image": DRAWING}, monkeypatch)
