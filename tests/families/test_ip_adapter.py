"""IP-Adapters: the same latents as diffusers' own pipelines, on tiny random weights in float32 on the CPU."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from pipeline import families
from pipeline.controlnet.preprocessors import find_preprocessor, preprocess
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import clip_vision, control_networks
from pipeline.families.controls import Control, Controls, Features
from pipeline.scripts.controlnet import as_hint
from tests.families import tiny_controls
from tests.families.conftest import FLOAT32
from tests.families.test_against_diffusers import NOISE, PROMPT, encode
from tests.families.test_controls_against_diffusers import SCALE, answered, assert_same, pipelines, sampled, settings  # noqa: F401

KINDS = [("sd1", "plain"), ("sd1", "plus"), ("sd1", "full"), ("sdxl", "plain"), ("sdxl", "plus")]


@pytest.fixture(scope="module")
def photo():
    return Image.effect_noise((40, 64), 60).convert("RGB").resize((250, 400))


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """(transformers' model, its file, its folder)."""
    model, folder = tiny_controls.clip_vision(), tmp_path_factory.mktemp("vision")
    model.save_pretrained(folder / "folder", safe_serialization=True)
    return model, tiny_controls.saved(model.state_dict(), folder / "file.safetensors"), folder / "folder"


@pytest.fixture(scope="module")
def encoder(vision):
    return clip_vision.load(vision[1], "vision", FLOAT32)


def hint_of(photo):
    """The picture as a unit's preprocessor hands it on."""
    module = find_preprocessor("CLIP-ViT-H (IPAdapter)")
    return as_hint(preprocess(module, np.asarray(photo), module.settings()))


def adapter(unet, kind, folder, seed=3):
    tensors = tiny_controls.ip_adapter(unet, kind, seed)
    return tensors, control_networks.load(tiny_controls.saved(tiny_controls.flat(tensors), folder / f"{kind}-{seed}.safetensors"), kind, FLOAT32)


def diffusers_ip(pipelines, kind, vision, *tensors):  # noqa: F811
    name = {"sd1": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}[kind]
    theirs = pipelines(kind, name, image_encoder=vision, feature_extractor=CLIPImageProcessorPil())
    theirs.load_ip_adapter(list(tensors), subfolder=[""] * len(tensors), weight_name=[""] * len(tensors), image_encoder_folder=None, low_cpu_mem_usage=False)
    return theirs


@torch.inference_mode()
@pytest.mark.parametrize("kind, variant", KINDS)
def test_an_ip_adapter_ends_where_diffusers_ends(kind, variant, checkpoint, load, pipelines, vision, encoder, photo, tmp_path):  # noqa: F811
    family = load(checkpoint(kind)[0])
    tensors, network = adapter(family._unet, variant, tmp_path)
    theirs = diffusers_ip(pipelines, kind, vision[0], tensors)
    theirs.set_ip_adapter_scale(SCALE)
    expected = theirs(PROMPT, ip_adapter_image=photo, **settings()).images
    features = encoder.features(hint_of(photo), deep=network.reads.deep)
    assert features.shape[-1] == network.reads.width
    runs = (sampled(family, theirs.scheduler.sigmas, Controls(controls)) for controls in ([Control(network, features, SCALE)], []))
    assert_same(next(runs), expected, next(runs))


@torch.inference_mode()
def test_two_ip_adapters_add_up_as_in_diffusers(checkpoint, load, pipelines, vision, encoder, photo, tmp_path):  # noqa: F811
    family = load(checkpoint("sd1")[0])
    made = [adapter(family._unet, "plain", tmp_path), adapter(family._unet, "plus", tmp_path, 5)]
    other = photo.rotate(90, expand=True)
    theirs = diffusers_ip(pipelines, "sd1", vision[0], *(tensors for tensors, _ in made))
    theirs.set_ip_adapter_scale([SCALE, 0.4])
    expected = theirs(PROMPT, ip_adapter_image=[photo, other], **settings()).images
    controls = [Control(network, encoder.features(hint_of(picture), deep=network.reads.deep), weight)
                for (_, network), picture, weight in zip(made, (photo, other), (SCALE, 0.4))]
    assert_same(sampled(family, theirs.scheduler.sigmas, Controls(controls)), expected,
                sampled(family, theirs.scheduler.sigmas, Controls(controls[:1])))


@torch.inference_mode()
def test_the_attention_is_given_back_to_the_bit(checkpoint, load, encoder, photo, tmp_path):
    family = load(checkpoint("sd1")[0])
    _, network = adapter(family._unet, "plain", tmp_path)
    features = encoder.features(hint_of(photo), deep=False)
    plain = family.denoise(NOISE, torch.tensor([500.0]), encode(family), None)
    guided = answered(family, network, features)
    assert (guided != plain).any()
    assert torch.equal(family.denoise(NOISE, torch.tensor([500.0]), encode(family), None), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for name, module in family._unet.named_modules() if "attn2" in name)


@torch.inference_mode()
def test_a_batch_row_is_answered_as_alone_and_the_negative_one_sees_no_picture(checkpoint, load, encoder, photo, tmp_path):
    family = load(checkpoint("sd1")[0])
    _, network = adapter(family._unet, "plus", tmp_path)
    features = encoder.features(hint_of(photo), deep=True)
    cond = encode(family)

    def asked(rows, negative):
        with family.controlled(Controls([Control(network, features, SCALE)], negative=negative)):
            return family.denoise(NOISE.repeat(rows, 1, 1, 1), torch.full((rows,), 500.0), type(cond)(cond.tokens.repeat(rows, 1, 1)), None)

    both, picture, nothing = asked(2, [False, True]), asked(1, [False]), asked(1, [True])
    assert (both[:1] - picture).abs().max() < 1e-5 and (both[1:] - nothing).abs().max() < 1e-5
    assert (picture - nothing).abs().max() > 1e-3


@torch.inference_mode()
def test_a_region_says_where_it_acts(checkpoint, load, encoder, photo, tmp_path):
    family = load(checkpoint("sd1")[0])
    _, network = adapter(family._unet, "plain", tmp_path)
    features = encoder.features(hint_of(photo), deep=False)

    def asked(region):
        with family.controlled(Controls([Control(network, features, SCALE, region=region)], negative=[False])):
            return family.denoise(NOISE, torch.tensor([500.0]), encode(family), None)

    whole, none = torch.ones(1, 1, 128, 64), torch.zeros(1, 1, 128, 64)
    assert torch.allclose(asked(whole), asked(None), atol=1e-6)
    assert torch.equal(asked(none), family.denoise(NOISE, torch.tensor([500.0]), encode(family), None))


@torch.inference_mode()
def test_the_encoder_reads_files_and_folders_alike_and_sees_what_clip_sees(vision, encoder, photo):
    model, file, folder = vision
    seen = CLIPImageProcessorPil()(photo, return_tensors="pt").pixel_values
    answer = model(seen, output_hidden_states=True)
    for one in (encoder, clip_vision.load(folder, "vision", FLOAT32)):
        assert (one.features(hint_of(photo), deep=False)[0] - answer.image_embeds[0]).abs().max() < 1e-5
        assert (one.features(hint_of(photo), deep=True)[0] - answer.hidden_states[-2][0]).abs().max() < 1e-5
    assert clip_vision.fits(file, Features(tiny_controls.CLIP_WIDTH, deep=True)) and clip_vision.fits(folder, Features(tiny_controls.CLIP_PROJECTED, deep=False))
    assert not clip_vision.fits(file, Features(tiny_controls.CLIP_WIDTH, deep=False))


def test_an_adapter_for_another_kind_of_checkpoint_is_refused(checkpoint, load, tmp_path):
    _, network = adapter(load(checkpoint("sd1")[0])._unet, "plain", tmp_path)
    with pytest.raises(InvalidRequest, match='"plain" was made for another kind of checkpoint than "sdxl"'):
        with load(checkpoint("sdxl")[0]).controlled(Controls([Control(network, torch.zeros(2, 24))])):
            pass


@pytest.mark.parametrize("extra", ["image_proj.perceiver_resampler.proj_in.weight", "ip_adapter.0.to_q_lora.down.weight"])
def test_adapters_of_faces_are_refused_in_a_sentence(extra, checkpoint, load, tmp_path):
    tensors = tiny_controls.flat(tiny_controls.ip_adapter(load(checkpoint("sd1")[0])._unet, "plus")) | {extra: torch.zeros(2, 2)}
    with pytest.raises(ModelError, match="FaceID or InstantID adapter, which needs InsightFace"):
        control_networks.load(tiny_controls.saved(tensors, tmp_path / "face.safetensors"), "face", FLOAT32)


def test_an_incomplete_adapter_is_refused(checkpoint, load, tmp_path):
    tensors = tiny_controls.flat(tiny_controls.ip_adapter(load(checkpoint("sd1")[0])._unet, "plain"))
    del tensors["ip_adapter.1.to_v_ip.weight"]
    with pytest.raises(ModelError, match="incomplete"):
        control_networks.load(tiny_controls.saved(tensors, tmp_path / "cut.safetensors"), "cut", FLOAT32)


@torch.inference_mode()
def test_weights_arranged_for_speed_attend_alike(checkpoint, load, encoder, photo, tmp_path):
    place = families.placement.choose("cpu", "bfloat16")
    exact, fast = load(checkpoint("sd1")[0]), families.load(checkpoint("sd1")[0], place)
    tensors = tiny_controls.saved(tiny_controls.flat(tiny_controls.ip_adapter(exact._unet, "plain")), tmp_path / "a.safetensors")
    features = encoder.features(hint_of(photo), deep=False)
    effects = []
    for family, own in ((exact, FLOAT32), (fast, place)):
        guided = answered(family, control_networks.load(tensors, "a", own), features)
        effects.append(guided - family.denoise(NOISE, torch.tensor([500.0]), encode(family), None))
    assert (effects[0] - effects[1]).abs().mean() < 0.2 * effects[0].abs().mean()
