"""ControlNets, unions and adapters: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

import diffusers
import pytest
import torch
from PIL import Image

from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import control_networks
from pipeline.families.controls import Control, Controls
from tests.families import tiny, tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.test_against_diffusers import CLOSE, HEIGHT, NEGATIVE, NOISE, PROMPT, STEPS, WIDTH, encode, euler

SCALE = 0.7
CFG = 5.0


@pytest.fixture(scope="module")
def drawing():
    return Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB")


@pytest.fixture(scope="module")
def hint(drawing):
    return diffusers.image_processor.VaeImageProcessor(do_normalize=False).preprocess(drawing)


@pytest.fixture(scope="module")
def pipelines(checkpoint):
    """(kind, class, its parts) → diffusers' pipeline from the folder."""
    def make(kind, name, **parts):
        made = getattr(diffusers, name).from_pretrained(checkpoint(kind)[0], torch_dtype=torch.float32, local_files_only=True,
                                                        low_cpu_mem_usage=False, **parts)
        made.set_progress_bar_config(disable=True)
        return made
    return make


def settings():
    return {"negative_prompt": NEGATIVE, "latents": NOISE.clone(), "num_inference_steps": STEPS, "guidance_scale": CFG,
            "width": WIDTH, "height": HEIGHT, "output_type": "latent"}


def sampled(family, sigmas, controls):
    """Latents after Euler's method with these controls."""
    cond, uncond = encode(family), encode(family, negative=True)

    def guided(denoised):
        controls.negative = [True]
        base = denoised(uncond, None)
        controls.negative = [False]
        return base + CFG * (denoised(cond, None) - base)

    with family.controlled(controls):
        return euler(family, sigmas, guided)


def answered(family, network, hint):
    """The model's output for one call with this network."""
    with family.controlled(Controls([Control(network, hint, SCALE)], negative=[False])):
        return family.denoise(NOISE, torch.tensor([500.0]), encode(family), None)


def assert_same(ours, theirs, without):
    assert (without - theirs).abs().mean() > 100 * CLOSE, "the control has no effect, so nothing is compared"
    assert (ours - theirs).abs().max() < CLOSE


@torch.inference_mode()
@pytest.mark.parametrize("kind, pipeline", [("sd1", "StableDiffusionControlNetPipeline"), ("sd2", "StableDiffusionControlNetPipeline"),
                                            ("sdxl", "StableDiffusionXLControlNetPipeline")])
def test_a_controlnet_ends_where_diffusers_ends_from_each_layout(kind, pipeline, checkpoint, load, pipelines, hint, drawing, tmp_path):
    family = load(checkpoint(kind)[0])
    module = tiny_controls.controlnet(family._unet)
    theirs = pipelines(kind, pipeline, controlnet=module)
    expected = theirs(PROMPT, image=drawing, controlnet_conditioning_scale=SCALE, **settings()).images
    module.save_pretrained(tmp_path / "folder", safe_serialization=True)
    original = {tiny_controls.original_control_name(name, module.config): tensor for name, tensor in module.state_dict().items()}
    files = [tmp_path / "folder", tiny_controls.saved(module.state_dict(), tmp_path / "diffusers.safetensors"),
             tiny_controls.saved(original, tmp_path / "bare.safetensors"),
             tiny_controls.saved({"control_model." + name: tensor for name, tensor in original.items()} | {"logvar": torch.zeros(1)},
                                 tmp_path / "original.safetensors")]
    first, *others = (control_networks.load(file, file.stem, FLOAT32) for file in files)
    without, ours = (sampled(family, theirs.scheduler.sigmas, Controls(controls)) for controls in ([], [Control(first, hint, SCALE)]))
    assert_same(ours, expected, without)
    assert first.kind == "controlnet" and not first.union
    assert all(torch.equal(answered(family, other, hint), answered(family, first, hint)) for other in others)


@torch.inference_mode()
def test_two_controlnets_add_up_as_in_diffusers(checkpoint, load, pipelines, hint, drawing, tmp_path):
    family = load(checkpoint("sd1")[0])
    module = tiny_controls.controlnet(family._unet)
    theirs = pipelines("sd1", "StableDiffusionControlNetPipeline", controlnet=[module, module])
    other = Image.effect_noise((WIDTH, HEIGHT), 30).convert("RGB")
    expected = theirs(PROMPT, image=[drawing, other], controlnet_conditioning_scale=[SCALE, 0.4], **settings()).images
    network = control_networks.load(tiny_controls.saved(module.state_dict(), tmp_path / "c.safetensors"), "c", FLOAT32)
    second = diffusers.image_processor.VaeImageProcessor(do_normalize=False).preprocess(other)
    ours = sampled(family, theirs.scheduler.sigmas, Controls([Control(network, hint, SCALE), Control(network, second, 0.4)]))
    assert_same(ours, expected, sampled(family, theirs.scheduler.sigmas, Controls([Control(network, hint, SCALE)])))


@torch.inference_mode()
def test_a_union_ends_where_diffusers_ends(checkpoint, load, pipelines, hint, drawing, tmp_path):
    family = load(checkpoint("sdxl")[0])
    module = tiny_controls.union(family._unet)
    theirs = pipelines("sdxl", "StableDiffusionXLControlNetUnionPipeline", controlnet=module)
    expected = theirs(PROMPT, control_image=[drawing], control_mode=[3], controlnet_conditioning_scale=SCALE, **settings()).images
    network = control_networks.load(tiny_controls.saved(module.state_dict(), tmp_path / "union.safetensors"), "union", FLOAT32)
    assert network.union
    ours, other = (sampled(family, theirs.scheduler.sigmas, Controls([Control(network, hint, SCALE, kind=kind)])) for kind in (3, 0))
    assert_same(ours, expected, other)


@torch.inference_mode()
@pytest.mark.parametrize("kind, adapter, in_channels, pipeline", [
    ("sd1", "full_adapter", 3, "StableDiffusionAdapterPipeline"), ("sd1", "full_adapter", 1, "StableDiffusionAdapterPipeline"),
    ("sd1", "light_adapter", 3, "StableDiffusionAdapterPipeline"), ("sdxl", "full_adapter_xl", 3, "StableDiffusionXLAdapterPipeline")])
def test_an_adapter_ends_where_diffusers_ends(kind, adapter, in_channels, pipeline, checkpoint, load, pipelines, hint, drawing, tmp_path):
    family = load(checkpoint(kind)[0])
    module = tiny_controls.adapter(family._unet, adapter, in_channels)
    theirs = pipelines(kind, pipeline, adapter=module)
    picture = drawing if in_channels == 3 else hint[:, :1]
    expected = theirs(PROMPT, image=picture, adapter_conditioning_scale=SCALE, **settings()).images
    rename = tiny_controls.original_light_name if adapter == "light_adapter" else tiny_controls.original_adapter_name
    original = {rename(name): tensor for name, tensor in module.state_dict().items()}
    ours, other = (control_networks.load(tiny_controls.saved(tensors, tmp_path / f"{name}.safetensors"), name, FLOAT32)
                   for tensors, name in ((module.state_dict(), "diffusers"), (original, "original")))
    runs = (sampled(family, theirs.scheduler.sigmas, Controls(controls)) for controls in ([Control(ours, hint, SCALE)], []))
    assert_same(next(runs), expected, next(runs))
    assert torch.equal(answered(family, ours, hint), answered(family, other, hint))


@torch.inference_mode()
def test_a_network_for_another_kind_of_checkpoint_is_refused_in_a_sentence(checkpoint, load, hint, tmp_path):
    module = tiny_controls.controlnet(load(checkpoint("sd1")[0])._unet)
    network = control_networks.load(tiny_controls.saved(module.state_dict(), tmp_path / "edges.safetensors"), "edges", FLOAT32)
    with pytest.raises(InvalidRequest, match='"edges" was made for another kind of checkpoint than "sdxl"'):
        with load(checkpoint("sdxl")[0]).controlled(Controls([Control(network, hint)])):
            pass


@pytest.mark.parametrize("name, what", [("lora_controlnet", "Control-LoRA"), ("lllite_unet.down.weight", "LLLite"),
                                        ("image_proj.proj.weight", "IP-Adapter"), ("anything", "not a ControlNet")])
def test_other_kinds_of_files_are_refused_by_name(name, what, tmp_path):
    file = tiny_controls.saved({name: torch.zeros(2, 2)}, tmp_path / "some.safetensors")
    with pytest.raises(ModelError, match=f'"some.safetensors" is .*{what}'):
        control_networks.load(file, "some", FLOAT32)


def test_an_incomplete_file_is_refused(checkpoint, load, tmp_path):
    tensors = tiny_controls.controlnet(load(checkpoint("sd1")[0])._unet).state_dict()
    del tensors["controlnet_mid_block.weight"]
    with pytest.raises(ModelError, match="incomplete"):
        control_networks.load(tiny_controls.saved(tensors, tmp_path / "cut.safetensors"), "cut", FLOAT32)
