"""Names of VAEs' and text encoders' tensors at the published sizes become those that diffusers and transformers know, all of them."""

import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_vae_checkpoint, convert_wan_vae_to_diffusers
from transformers import CLIPTextConfig, CLIPTextModel, Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen3Config, Qwen3Model, T5Config, T5EncoderModel

from benchmarks.families import CLIP_L, FLUX2_VAE, FLUX_VAE, QWEN3_4B, QWEN25_VL_7B, T5_XXL
from pipeline.families import flux1, flux2, original, qwen3, qwen25_vl, qwen_image, t5
from pipeline.weights import Weights
from tests.families import full_size, tiny_flow
from tests.families.tiny import original_vae_name


def on_meta(build):
    with torch.device("meta"):
        return build().state_dict()


def file_of(path, state):
    """A file that holds a header only."""
    full_size.write(path, SimpleNamespace(state_dict=lambda: state, named_modules=lambda: []))
    return Weights(path)


def shapes(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def as_convolutions(state):
    """Attention in the original autoencoders is made of convolutions."""
    return {original_vae_name(name): tensor[..., None, None] if re.search(r"\.to_(q|k|v|out\.0)\.weight", name) else tensor
            for name, tensor in state.items()}


def test_flux_1_s_vae(tmp_path):
    published = as_convolutions(expected := on_meta(lambda: AutoencoderKL(**FLUX_VAE)))
    ours = original.read_vae_from(file_of(tmp_path / "ae.safetensors", published), ("",)).tensors
    theirs = convert_ldm_vae_checkpoint(dict(published), FLUX_VAE)
    assert shapes(ours) == shapes(theirs) == shapes(expected) and len(ours) == 244


def test_flux_2_s_vae(tmp_path):
    """diffusers' converter does not know where this file has quant_conv and post_quant_conv."""
    expected = on_meta(lambda: AutoencoderKLFlux2(**FLUX2_VAE))
    published = {re.sub(r"^(post_)?quant_conv", lambda found: f"{'decoder' if found[1] else 'encoder'}.{found[0]}", name): tensor
                 for name, tensor in as_convolutions(expected).items()}
    file_of(tmp_path / "flux2.safetensors", published)
    ours = shapes(flux2.read_vae(tmp_path / "flux2.safetensors").tensors)
    expected.pop("bn.num_batches_tracked")
    assert ours == shapes(expected)
    theirs = convert_ldm_vae_checkpoint(dict(published), FLUX2_VAE)
    assert shapes(theirs).items() <= ours.items() and {name.split(".")[0] for name in ours.keys() - theirs.keys()} == {"bn", "quant_conv", "post_quant_conv"}


def test_qwen_image_s_vae(tmp_path):
    expected = on_meta(lambda: AutoencoderKLQwenImage(base_dim=96))
    published = {tiny_flow.wan_name(name): tensor for name, tensor in expected.items()}
    ours = qwen_image.read_vae_from(file_of(tmp_path / "qwen.safetensors", published), ("",)).tensors
    assert shapes(ours) == shapes(convert_wan_vae_to_diffusers(dict(published))) == shapes(expected)


def test_clip_l(tmp_path):
    published = on_meta(lambda: CLIPTextModel(CLIPTextConfig(**CLIP_L)))
    published = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in published.items()}
    ours = flux1.read_clip(file_of(tmp_path / "clip_l.safetensors", published)).tensors
    theirs = convert_ldm_clip_checkpoint({f"cond_stage_model.transformer.{name}": tensor for name, tensor in published.items()})
    assert shapes(ours) == {name.removeprefix("text_model."): shape for name, shape in shapes(theirs).items()} and len(ours) == 196


@pytest.mark.parametrize("build, read, renamed", [
    (lambda: T5EncoderModel(T5Config(**T5_XXL, feed_forward_proj="gated-gelu")), t5.read_from,
     lambda name: "embed_tokens.weight" if name == "shared.weight" else name.removeprefix("encoder.")),
    (lambda: Qwen3Model(Qwen3Config(**QWEN3_4B)), qwen3.read_from, lambda name: name),
    (lambda: Qwen2_5_VLModel(Qwen2_5_VLConfig(
        text_config={name: value for name, value in QWEN25_VL_7B.items() if not name.startswith("vision_")},
        vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584})),
     qwen25_vl.read_from, lambda name: name)])
def test_language_models_as_transformers_saves_them(tmp_path, build, read, renamed):
    state = on_meta(build)
    ours = read(file_of(tmp_path / "encoder.safetensors", state)).tensors
    assert shapes(ours) == {renamed(name): shape for name, shape in shapes(state).items()}
