"""ControlNets for Z-Image: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ZImageControlNetModel
from PIL import Image

from pipeline.controlnet.store import ControlNets
from pipeline.errors import InvalidRequest
from pipeline.families import control_networks
from pipeline.families.controls import Control, Controls
from pipeline.scripts import run as run_request
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from tests.families import tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import CLOSE, GUIDANCE, HEIGHT, KINDS, LEVELS, MASK, NEGATIVE, PROMPT, SEED, STEPS, WIDTH, noise_of, told, z_image_texts

KIND = KINDS["z-image"]
SCALE = 0.7
VERSIONS = {"1": (16, None, 2), "2.0": (33, "control_layers", 2), "2.1": (33, "control_noise_refiner", 1)}
"""Channels, kind of refiners, layers."""
DRAWING = Image.fromarray(np.random.default_rng(5).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)).resize((WIDTH, HEIGHT))


def network(version, folder):
    """(diffusers' network, our own from its file)."""
    channels, refiners, layers = VERSIONS[version]
    torch.manual_seed(2)
    module = ZImageControlNetModel(control_layers_places=[0, 1][:layers], control_refiner_layers_places=[0], control_in_dim=channels,
                                   add_control_noise_refiner=refiners, dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2).eval()
    for parameter in module.parameters():  # what is zero at the start of training would hide mistakes
        parameter.data += 0.05 * torch.randn_like(parameter)
    tensors = {**module.state_dict()}
    if refiners == "control_layers":  # as 2.0 was published
        tensors |= {f"control_noise_refiner.0.{name.removeprefix('control_layers.0.')}": torch.zeros_like(tensor)
                    for name, tensor in tensors.items() if name.startswith("control_layers.0.")}
    path = tiny_controls.saved(tensors, folder / "z-control.safetensors")
    return module, control_networks.load(path, "z-control", FLOAT32)


def run_controlled(kind, family, loaded, unit, monkeypatch):
    """Our latents at the end of a run with that network."""
    p = StableDiffusionProcessingTxt2Img(
        prompt=PROMPT, negative_prompt=NEGATIVE, seed=SEED, steps=STEPS, width=WIDTH, height=HEIGHT, cfg_scale=kind.cfg_scale,
        distilled_cfg_scale=GUIDANCE, sampler_name="Euler", scheduler="Simple", sd_model=family, alwayson_scripts={"ControlNet": {"args": [{"enabled": True, "model": loaded.name} | unit]}})
    p.control_networks = ControlNets(find=lambda name: type("File", (), {"path": name, "stem": name})())
    monkeypatch.setattr(p.control_networks, "load", lambda file, place: loaded)
    ends = []
    monkeypatch.setattr(family, "decode", lambda latent: ends.append(latent.clone()) or type(family).decode(family, latent))
    run_request(p)
    return torch.cat(ends)


def theirs(files, name, module, pipeline, **given):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(files.folder / "scheduler")
    pipe = getattr(diffusers, name)(scheduler=scheduler, tokenizer=None, controlnet=module, **files.modules)
    pipe.set_progress_bar_config(disable=True)
    scheduler.set_timesteps(sigmas=LEVELS)
    with told(f"z_image.{pipeline}", noise_of(KIND)):
        return pipe(prompt_embeds=z_image_texts(files, PROMPT), negative_prompt_embeds=z_image_texts(files, NEGATIVE), sigmas=LEVELS, width=WIDTH,
                    height=HEIGHT, guidance_scale=KIND.cfg_scale - 1, output_type="latent", num_inference_steps=STEPS, control_image=DRAWING,
                    controlnet_conditioning_scale=SCALE, latents=noise_of(KIND) * scheduler.sigmas[0], **given).images


@torch.inference_mode()
@pytest.mark.parametrize("version", VERSIONS)
def test_a_controlnet_ends_where_diffusers_ends(version, flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("z-image"), flow_model("z-image", "folder")
    module, loaded = network(version, tmp_path)
    expected = theirs(files, "ZImageControlNetPipeline", module, "pipeline_z_image_controlnet")
    mine, without = (run_controlled(KIND, family, loaded, {"image": DRAWING, "weight": SCALE} | unit, monkeypatch) for unit in ({}, {"weight": 0.0}))
    assert (without - expected).abs().mean() > 100 * CLOSE, "the control has no effect, so nothing is compared"
    assert (mine - expected).abs().max() < CLOSE


@torch.inference_mode()
def test_an_inpainting_controlnet_sees_mask_and_source_as_in_diffusers(flow_files, flow_model, tmp_path, monkeypatch):
    files, family = flow_files("z-image"), flow_model("z-image", "folder")
    module, loaded = network("2.1", tmp_path)

    def without_map(_module, args):  # theirs always has a map too
        context = args[3].clone()
        context[:, :16] = 0
        return *args[:3], context

    hook = module.register_forward_pre_hook(without_map)
    expected = theirs(files, "ZImageControlNetInpaintPipeline", module, "pipeline_z_image_controlnet_inpaint", image=DRAWING, mask_image=MASK)
    hook.remove()
    mine = run_controlled(KIND, family, loaded, {"image": DRAWING, "weight": SCALE, "mask": MASK, "module": "inpaint"}, monkeypatch)
    assert (mine - expected).abs().max() < CLOSE


@torch.inference_mode()
def test_the_transformer_is_given_back_and_others_are_refused(flow_model, checkpoint, load, tmp_path):
    family = flow_model("z-image", "folder")
    _, loaded = network("1", tmp_path)
    before = dict(family.modules["transformer"].named_parameters()).keys()
    with family.controlled(Controls([Control(loaded, torch.zeros(1, 3, HEIGHT, WIDTH))])):
        pass
    assert dict(family.modules["transformer"].named_parameters()).keys() == before and not loaded.module.noise_refiner
    unet = load(checkpoint("sd1")[0])
    other = control_networks.load(tiny_controls.saved(tiny_controls.controlnet(unet._unet).state_dict(), tmp_path / "c.safetensors"), "edges", FLOAT32)
    for model, wrong in ((family, other), (unet, loaded)):
        with pytest.raises(InvalidRequest, match="was made for another kind of checkpoint"):
            with model.controlled(Controls([Control(wrong, torch.zeros(1, 3, 64, 64))])):
                pass
