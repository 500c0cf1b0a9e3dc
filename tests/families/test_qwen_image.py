"""Qwen-Image and Qwen-Image-Edit: what is their own."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline import families
from pipeline.errors import InvalidRequest
from pipeline.families.cond import Encoding
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tests.families import flow_runs
from tests.families.flow_runs import MASK, REFERENCES, SOURCE
from tests.families.test_refusals import refusal
from tests.families.test_z_image import assert_changes

EDIT = "qwen-image-edit 2511"


@pytest.fixture(scope="session")
def model(flow_model):
    return flow_model(EDIT, "component files")


@pytest.fixture(autouse=True)
def small_references():
    with flow_runs.small_references():
        yield


def made(model, **fields):
    return process_images(StableDiffusionProcessingImg2Img(**{
        "prompt": "make the sky red", "seed": 1, "steps": 2, "sampler_name": "Euler", "scheduler": "Simple", "width": 64, "height": 96, "cfg_scale": 1,
        "denoising_strength": 1, "sd_model": model, "init_images": [SOURCE]} | fields))


def pixels(result, number=0):
    return np.asarray(result.images[result.index_of_first_image + number], np.int16)


def test_what_a_file_is_follows_from_its_tensors_and_a_folder_says_it(flow_model):
    found = {(kind, layout): flow_model(kind, layout) for kind in ("qwen-image", "qwen-image-edit 2509", EDIT) for layout in ("folder", "component files")}
    sees = {key: model.sees for key, model in found.items()}
    assert sees.pop(("qwen-image", "folder")) == "nothing" and set(sees.values()) == {"reference"}
    assert {key for key, model in found.items() if model.modules["transformer"].zero_cond_t} == {(EDIT, "folder"), (EDIT, "component files")}


def test_the_text_encoder_reads_the_pictures_only_where_the_source_is_a_reference(model):
    seen, encoder = [], model.text_encoders[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "encode", lambda text, template, pictures, how: seen.append(len(pictures)) or type(encoder).encode(
            encoder, text, template, pictures, how))
        made(model)
        made(model, reference_images=REFERENCES)
        made(model, override_settings={"source_as_reference": False})
        made(model, override_settings={"source_as_reference": False}, reference_images=REFERENCES[:1])
    assert seen[::2] == seen[1::2] == [1, 3, 0, 1]  # of the prompt and the negative prompt


def test_each_picture_of_a_batch_is_read_with_its_own_source(model):
    other = SOURCE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = made(model, init_images=[SOURCE, other], batch_size=2, seed=[1, 1])
    for number, source in enumerate((SOURCE, other)):
        assert abs(pixels(both, number) - pixels(made(model, init_images=[source]))).max() <= 1


def test_prompts_of_other_lengths_do_not_change_each_other(model):
    both = made(model, prompt=["a fox", "a very long prompt about a red fox"], batch_size=2, seed=[1, 1])
    assert abs(pixels(both) - pixels(made(model, prompt="a fox"))).max() <= 1


def test_within_a_mask_the_rest_stays_bit_for_bit(model):
    for fields in ({"inpaint_full_res": False}, {"inpaint_full_res": True}, {"inpaint_full_res": False, "override_settings": {"edit_freely": True}}):
        changed = (pixels(made(model, mask=MASK, mask_blur=0, inpainting_fill=1, **fields)) != np.asarray(SOURCE, np.int16)).any(axis=-1)
        assert changed.any() and not changed[np.asarray(MASK) == 0].any()


def test_sides_need_not_be_multiples_of_16(model):
    assert made(model, width=72, height=88).images[0].size == (72, 88)


def test_a_prompt_may_have_1024_tokens(model):
    model.encode_prompts(["a " * 1000], Encoding())
    with pytest.raises(InvalidRequest, match="^prompt: takes 1100 tokens; this model takes at most 1024$"):
        model.encode_prompts(["a" + " a" * 1099], Encoding())


def test_other_kinds_and_parts_are_refused(flow_files, tmp_path):
    files, klein = flow_files(EDIT), flow_files("flux2-klein")
    state = load_file(files.transformer)
    save_file(state | {"img_in.weight": torch.cat([state["img_in.weight"]] * 2, dim=1)}, tmp_path / "other.safetensors")
    assert refusal(tmp_path / "other.safetensors", components=families.Components(files.vae, (files.text_encoder,))) == \
        '"other.safetensors" is another kind of Qwen-Image, which is not supported; Qwen-Image and Qwen-Image-Edit are'
    assert refusal(files.transformer, components=families.Components(klein.vae, (files.text_encoder,))).startswith('"ae.safetensors" is not Qwen-Image\'s VAE')
    assert refusal(files.transformer, components=families.Components(files.vae, (klein.text_encoder,))) == (
        '"encoder.safetensors" is Qwen3, the text encoder of Z-Image and FLUX.2 klein; "transformer.safetensors" is qwen-image and needs '
        "the text encoder Qwen2.5-VL-7B")


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "lora_unet_"])
def test_a_lora_changes_the_layers_that_it_names(model, tmp_path, prefix):
    name = "transformer_blocks.0.attn.add_k_proj"
    down, up = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)), torch.randn(32, 2, generator=torch.Generator().manual_seed(2))
    ours = prefix + (name.replace(".", "_") if prefix == "lora_unet_" else name)
    assert_changes(model, tmp_path, {f"{ours}.lora_down.weight": down, f"{ours}.lora_up.weight": up}, {name: up @ down})
