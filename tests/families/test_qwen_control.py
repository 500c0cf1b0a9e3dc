"""ControlNets for Qwen-Image: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

from dataclasses import replace

import diffusers
import pytest
import torch
from diffusers import QwenImageControlNetModel

from pipeline.controlnet.store import ControlNets
from pipeline.errors import InvalidRequest
from pipeline.families import control_networks
from pipeline.families.controls import Control, Controls
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts import run
from tests.families import tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import CLOSE, HEIGHT, KINDS, LEVELS, MASK, PROMPT, REFERENCES, SOURCE, STEPS, WIDTH, made, noise_of, pixels, qwen_texts, small_references, told
from tests.families.test_flux_control import DRAWING, SCALE
from tests.families.test_z_image_control import run_controlled

KIND = replace(KINDS["qwen-image"], cfg_scale=1.0)  # diffusers guides the negative prompt's call by the prompt's control, ours by its own


def network(family, folder, layers=1, extra=0):
    """(diffusers' network, our own from its file)."""
    torch.manual_seed(2)
    config = family.modules["transformer"].config
    module = QwenImageControlNetModel(num_layers=layers, attention_head_dim=config.attention_head_dim, num_attention_heads=config.num_attention_heads,
                                      joint_attention_dim=config.joint_attention_dim, axes_dims_rope=config.axes_dims_rope, extra_condition_channels=extra).eval()
    for parameter in module.parameters():  # what is zero at the start of training would hide mistakes
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module, control_networks.load(tiny_controls.saved(module.state_dict(), folder / "qwen-control.safetensors"), "qwen-control", FLOAT32)


def theirs(files, name, pipeline, module, **given):
    noise = noise_of(KIND)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192)
    pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, controlnet=module, **files.modules)
    pipe.set_progress_bar_config(disable=True)
    scheduler.set_timesteps(sigmas=LEVELS, mu=0.5 + 0.4 * (WIDTH * HEIGHT // 256 - 256) / (8192 - 256))
    with told(f"qwenimage.{pipeline}", noise[:, None]):
        ends = pipe(prompt_embeds=qwen_texts(pipe, PROMPT, []), prompt_embeds_mask=None, sigmas=LEVELS, width=WIDTH, height=HEIGHT, true_cfg_scale=1.0,
                    output_type="latent", num_inference_steps=STEPS, control_image=DRAWING, controlnet_conditioning_scale=SCALE,
                    latents=pipe._pack_latents(noise * scheduler.sigmas[0], 1, 16, *noise.shape[-2:]), **given).images
    return pipe._unpack_latents(ends, HEIGHT, WIDTH, 8)[:, :, 0]


@torch.inference_mode()
@pytest.mark.parametrize("layers", [1, 2])
def test_a_controlnet_ends_where_diffusers_ends(layers, flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("qwen-image"), flow_model("qwen-image", "folder")
    module, loaded = network(family, tmp_path, layers)
    expected = theirs(files, "QwenImageControlNetPipeline", "pipeline_qwenimage_controlnet", module)
    mine, without = (run_controlled(KIND, family, loaded, {"image": DRAWING, "weight": SCALE} | weight, monkeypatch) for weight in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 50 * CLOSE, "the control has no effect, so nothing is compared"
    assert (mine - expected).abs().max() < CLOSE


@torch.inference_mode()
def test_an_inpainting_controlnet_sees_mask_and_source_as_in_diffusers(flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("qwen-image"), flow_model("qwen-image", "folder")
    module, loaded = network(family, tmp_path, extra=4)
    expected = theirs(files, "QwenImageControlNetInpaintPipeline", "pipeline_qwenimage_controlnet_inpaint", module, control_mask=MASK)
    unit = {"image": DRAWING, "weight": SCALE, "mask": MASK, "module": "inpaint"}
    mine, without = (run_controlled(KIND, family, loaded, unit | weight, monkeypatch) for weight in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 50 * CLOSE and (mine - expected).abs().max() < CLOSE
    with pytest.raises(InvalidRequest, match='"qwen-control" inpaints; it takes a mask, and the preprocessor inpaint'):
        run_controlled(KIND, family, loaded, {"image": DRAWING}, monkeypatch)


@torch.inference_mode()
def test_it_works_beside_references_and_is_refused_for_other_families(flow_model, tmp_path, monkeypatch):
    family = flow_model("qwen-image-edit 2511", "component files")
    _, loaded = network(family, tmp_path)
    with small_references():
        plain = pixels(made(family, reference_images=REFERENCES[:1]))
        monkeypatch.setattr(ControlNets, "find", lambda nets, name: type("File", (), {"path": name, "stem": name})())
        monkeypatch.setattr(ControlNets, "load", lambda nets, file, place: loaded)
        guided = pixels(run(StableDiffusionProcessingImg2Img(
            prompt="a fox", seed=1, steps=2, sampler_name="Euler", scheduler="Simple", width=64, height=96, cfg_scale=1, denoising_strength=1, sd_model=family,
            init_images=[SOURCE], reference_images=REFERENCES[:1],
            alwayson_scripts={"ControlNet": {"args": [{"enabled": True, "model": "qwen-control", "image": DRAWING}]}})))
    assert (guided != plain).any()
    with pytest.raises(InvalidRequest, match="was made for another kind of checkpoint"):
        with flow_model("z-image", "folder").controlled(Controls([Control(loaded, torch.zeros(1, 3, 64, 64))])):
            pass
