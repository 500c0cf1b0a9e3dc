"""Z-Image: what is its own."""

import gzip
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_z_image_lora_to_diffusers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from pipeline import families
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import qwen3, z_image
from pipeline.families.cond import Encoding
from pipeline.families.offload import Offload
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.networks import NetworkRequest, Networks
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tests.families import flow_runs, tiny_flow
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import MASK, SOURCE
from tests.families.test_refusals import refusal

WITH_MARKS = "a (red:1.2) fox, Ünïcode <|im_end|> 123"
IDS = flow_runs.IDS | {WITH_MARKS: [  # by transformers' AutoTokenizer too
    151644, 872, 198, 64, 320, 1151, 25, 16, 13, 17, 8, 38835, 11, 30512, 77, 37572, 1851, 220, 151645, 220, 16, 17, 18, 151645, 198, 151644,
    77091, 198]}


@pytest.fixture(scope="session")
def model(flow_model):
    return flow_model("z-image", "single file")


def made(model, **fields):
    request = {"prompt": "a fox", "seed": 1, "steps": 3, "sampler_name": "Euler", "scheduler": "Beta", "width": 64, "height": 96, "cfg_scale": 1,
               "denoising_strength": 0.8, "init_images": [SOURCE], "sd_model": model}
    return process_images(StableDiffusionProcessingImg2Img(**request | fields))


def pixels(result):
    return np.asarray(result.images[0], np.int16)


@pytest.mark.parametrize("text", IDS)
def test_the_message_to_the_encoder_has_the_published_tokens(text):
    tokens = Tokenizer.from_buffer(gzip.decompress(qwen3.TOKENIZER.read_bytes()))
    assert tokens.encode(z_image.TEMPLATE.format(text), add_special_tokens=False).ids == IDS[text]


def test_features_are_those_that_diffusers_takes(model, flow_files):
    with torch.inference_mode():
        ours = model.encode_prompts([flow_runs.PROMPT], Encoding()).tokens[0]
        theirs = flow_runs.z_image_texts(flow_files("z-image"), flow_runs.PROMPT)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_batch_of_prompts_is_that_of_batches_of_one(model):
    both = made(model, prompt=["a fox", "a house on a hill by the sea"], batch_size=2, seed=1)
    for number, image in enumerate(both.images[both.index_of_first_image:]):
        alone = pixels(made(model, prompt=["a fox", "a house on a hill by the sea"][number], seed=1 + number))
        assert abs(np.asarray(image, np.int16) - alone).max() <= 1


def test_cfg_1_asks_no_negative_prompt(model, monkeypatch):
    rows, denoise = [], model.denoise
    monkeypatch.setattr(model, "denoise", lambda x, *rest: rows.append(len(x)) or denoise(x, *rest))
    made(model, cfg_scale=1)
    once = len(rows)
    made(model, cfg_scale=3)
    assert set(rows) == {1} and len(rows) == 3 * once


def test_prompts_may_be_padded_to_one_length(model):
    padded = made(model, cfg_scale=3, negative_prompt="blurry and dark", override_settings={"pad_cond_uncond": True})
    assert abs(pixels(padded) - pixels(made(model, cfg_scale=3, negative_prompt="blurry and dark"))).max() <= 1


@pytest.mark.parametrize("width, height", [(56, 72), (64, 88)])
def test_sides_need_only_be_multiples_of_8(model, width, height):
    assert made(model, width=width, height=height).images[0].size == (width, height)


def test_of_a_masked_picture_only_the_mask_changes(model):
    for fields in ({"inpaint_full_res": True}, {"inpaint_full_res": False}, {"alwayson_scripts": {"soft inpainting": {"args": [True]}}}):
        for fill in (0, 1, 2, 3):
            changed = (pixels(made(model, mask=MASK, mask_blur=0, inpainting_fill=fill, **fields)) != np.asarray(SOURCE, np.int16)).any(axis=-1)
            assert changed[24:-24, 24:-24].any() and not changed[:8].any() and not changed[:, :8].any()


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "Restart"])
def test_samplers_that_count_noise_levels_draw_with_it(model, sampler):
    assert pixels(made(model, sampler_name=sampler)).std() > 1


def test_weights_of_words_are_read_as_they_stand_and_that_is_said(model):
    result = made(model, prompt="a (red:1.2) fox")
    assert result.comments == ["all-in-one knows no weights of words, so (red:1.2) was read as it stands."]


def test_too_long_a_prompt_is_refused_with_numbers(model):
    with pytest.raises(InvalidRequest, match="^negative_prompt: takes 1511 tokens; this model takes at most 1504$"):
        made(model, cfg_scale=3, negative_prompt="a " * 1502)


def test_base_has_its_shift_from_the_folder(tmp_path, model):
    files = tiny_flow.z_image(tmp_path, shift=6.0)
    assert [loaded.prediction(None).shift for loaded in (families.load(files.folder, FLOAT32), model)] == [6.0, z_image.TURBO_SHIFT]


def test_layer_by_layer_no_more_than_one_layer_is_on_the_device(flow_files, monkeypatch):
    """Though the network itself holds two tokens."""
    model, most = families.load(flow_files("z-image").file, FLOAT32), []
    expected, bring = pixels(made(model)), Offload._bring

    def brought(offload, *args):
        inputs = bring(offload, *args)
        most.append(len(offload._waiting))
        return inputs

    monkeypatch.setattr(Offload, "_bring", brought)
    model.offload.follow("sequential")
    assert (pixels(made(model)) == expected).all() and max(most) <= 2


# --- files

def test_a_part_alone_says_what_it_needs(flow_files):
    files = flow_files("z-image")
    assert refusal(files.transformer) == ('"transformer.safetensors" is not a complete model: it needs the text encoder Qwen3-4B in '
                                          "models/text_encoder and FLUX.1's VAE (ae.safetensors) in models/VAE too")
    assert refusal(files.text_encoder) == '"encoder.safetensors" is a language model; a text encoder belongs in the text_encoder folder'


def test_another_models_text_encoder_is_refused(flow_files, tmp_path):
    files, other = flow_files("z-image"), tmp_path / "other.safetensors"
    save_file({name: torch.cat([tensor, tensor], dim=-1) if name == "model.embed_tokens.weight" else tensor
               for name, tensor in load_file(files.text_encoder).items()}, other)
    assert refusal(files.transformer, components=families.Components(files.vae, (other,))) == \
        '"transformer.safetensors" cannot be used with this text encoder: it needs the text encoder Qwen3-4B'
    assert refusal(files.transformer, components=families.Components(files.vae, (files.vae,))) == \
        '"ae.safetensors" is not a Qwen3 text encoder: it has no tensor "model.layers.0.self_attn.q_norm.weight"'


def test_the_plan_counts_the_files_of_their_own(flow_files):
    files = flow_files("z-image")
    alone, together = (families.describe(files.transformer, components).sizes
                       for components in (families.Components(), families.Components(files.vae, (files.text_encoder,))))
    assert set(alone) == {"transformer"} and together == families.describe(files.folder).sizes


@pytest.fixture
def models(flow_files, tmp_path):
    files = flow_files("z-image")
    for folder, file in (("Stable-diffusion", files.transformer), ("VAE", files.vae), ("text_encoder", files.text_encoder)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file.name).symlink_to(file)
    save_file({"weight": torch.zeros(2)}, tmp_path / "text_encoder" / "another.safetensors")
    catalog = Catalog(tmp_path)
    return ModelStore(catalog, FLOAT32, catalog.checkpoints()[0])


def test_files_that_fit_are_found_by_what_is_in_them(models):
    info = models.load(Options()).info
    assert (info.vae, [name for name, _ in info.text_encoders]) == ("ae.safetensors", ["encoder.safetensors"])
    assert models.loaded(Options()) is models.loaded(Options(sd_vae="ae", sd_text_encoders="encoder"))
    assert models.describe(Options()).sizes.keys() == {"transformer", "text_encoder", "vae"}


@pytest.mark.parametrize("options, sentence", [
    ({"sd_text_encoders": "None"}, "needs the text encoder Qwen3-4B in models/text_encoder too"),
    ({"sd_vae": "None"}, r"needs FLUX.1's VAE \(ae.safetensors\) in models/VAE too"),
    ({"sd_text_encoders": "another"}, '"another.safetensors" is not a Qwen3 text encoder'),
    ({"sd_text_encoders": "gone"}, 'no text encoder called "gone"'),
])
def test_what_does_not_fit_is_refused_in_a_sentence(models, options, sentence):
    with pytest.raises((ModelError, InvalidRequest), match=sentence):
        models.load(Options(**options))


# --- LoRA

A, B = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)), torch.randn(32, 2, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name, down, up", [
    ("lora_unet_layers_0_attention_to_q", "lora_down", "lora_up"), ("diffusion_model.layers.0.attention.to_q", "lora_A", "lora_B"),
    ("transformer.layers.0.attention.to_q", "lora_A", "lora_B"), ("diffusion_model.layers.0.attention.out", "lora_down", "lora_up"),
    ("lora_unet_noise_refiner_0_attention_to_out_0", "lora_down", "lora_up"),
])
def test_a_lora_changes_what_diffusers_would_change(model, tmp_path, name, down, up):
    state = {f"{name}.{down}.weight": A, f"{name}.{up}.weight": B}
    if not name.startswith("transformer."):  # diffusers' own have none
        state[f"{name}.alpha"] = torch.tensor(1.0)
    theirs = {key.replace("transformer.", ""): tensor  # for diffusers' own names it adds another
              for key, tensor in _convert_non_diffusers_z_image_lora_to_diffusers(dict(state)).items()}
    (path,) = {key.rpartition(".lora_")[0] for key in theirs}
    delta = theirs[f"{path}.lora_B.weight"] @ theirs[f"{path}.lora_A.weight"]
    assert_changes(model, tmp_path, state, {path: delta})


def test_a_lora_of_the_fused_projections_changes_all_three(model, tmp_path):
    fused = torch.randn(96, 2, generator=torch.Generator().manual_seed(3))
    state = {"diffusion_model.layers.1.attention.qkv.lora_A.weight": A, "diffusion_model.layers.1.attention.qkv.lora_B.weight": fused}
    parts = dict(zip("qkv", (fused @ A).chunk(3)))
    assert_changes(model, tmp_path, state, {f"layers.1.attention.to_{part}": delta for part, delta in parts.items()})


def assert_changes(model, tmp_path, state, deltas):
    save_file(state, tmp_path / "ink.safetensors")
    weights = dict(model.modules["transformer"].named_parameters())
    before, networks = {name: tensor.clone() for name, tensor in weights.items()}, Networks(lambda name: SimpleNamespace(path=tmp_path / "ink.safetensors"))
    comments = networks.apply(model, [NetworkRequest("ink", 1.0, 1.0, None)]).comments
    for name, tensor in weights.items():
        expected = before[name] + deltas.get(name.removesuffix(".weight"), 0)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
    assert comments == []
    networks.apply(model, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights.items())
