"""A family that no other code knows: from a folder or a file to pictures, through requests and the API."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from api.backend import Backend
from pipeline import families
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.networks import NetworkRequest, Networks
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.settings import Settings
from tests.api.conftest import base64_of, client_of, image_of
from tests.families import toy
from tests.families.conftest import FLOAT32

SOURCE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8).repeat(2, axis=0).repeat(2, axis=1))
MASK = Image.fromarray(np.pad(np.full((64, 64), 255, np.uint8), 32))
REQUEST = {"prompt": "a red house", "seed": 1, "steps": 4, "sampler_name": "Euler", "width": 128, "height": 128,
           "denoising_strength": 0.8}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "toy", toy.ROW)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return toy.make(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def model(paths):
    return families.load(paths[0], FLOAT32)


def made(model, **fields):
    p = StableDiffusionProcessingImg2Img(init_images=[SOURCE], sd_model=model, **REQUEST | fields)
    return process_images(p)


def pixels(result):
    return np.asarray(result.images[0], np.int16)


def test_a_folder_and_a_file_are_recognised_by_what_is_in_them(paths):
    for path in paths:
        info = families.describe(path)
        assert (info.family, info.native_size, set(info.sizes)) == ("toy", 64, {"transformer", "text_encoder", "vae"})


def test_a_folder_and_a_file_give_the_same_picture(paths, model):
    assert (pixels(made(model)) == pixels(made(families.load(paths[1], FLOAT32)))).all()


def test_of_a_masked_picture_only_the_mask_changes(model):
    changed = (pixels(made(model, mask=MASK, mask_blur=0, inpainting_fill=2)) != np.asarray(SOURCE, np.int16)).any(axis=-1)
    assert changed[40:88, 40:88].mean() > 0.9 and not changed[:24].any() and not changed[104:].any()


def test_the_prompt_counts_and_its_length_may_be_any(model):
    texts = ("", "a house", "a house " * 200)
    results = [pixels(made(model, prompt=text, steps=2)) for text in texts]
    assert all((one != other).any() for one, other in zip(results, results[1:]))


def test_prompts_of_different_lengths_in_one_batch_are_those_of_batches_of_one(model):
    both = made(model, prompt=["a", "one two three"], batch_size=2, seed=1)
    alone = [made(model, prompt=text, seed=seed) for text, seed in (("a", 1), ("one two three", 2))]
    for image, result in zip(both.images[both.index_of_first_image:], alone):
        assert abs(np.asarray(image, np.int16) - pixels(result)).max() <= 1


def test_the_negative_prompt_is_not_asked_and_that_is_said(model, monkeypatch):
    rows, denoise = [], model.denoise
    monkeypatch.setattr(model, "denoise", lambda x, *rest: rows.append(len(x)) or denoise(x, *rest))
    result = made(model, negative_prompt="blue", n_iter=2)
    assert set(rows) == {1} and result.comments == ["toy-model does not use negative prompts, so it was ignored."]


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ 2M", "DPM++ SDE", "DPM2", "LMS"])
def test_samplers_that_count_noise_levels_draw_with_it(model, sampler):
    assert pixels(made(model, sampler_name=sampler, steps=3)).std() > 1


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS", "UniPC", "LCM"])
def test_samplers_that_count_timesteps_are_refused(model, sampler):
    with pytest.raises(InvalidRequest, match=f'^sampler_name: {sampler} needs discrete training timesteps, and "toy-model" has none'):
        made(model, sampler_name=sampler)


def test_accelerations_that_it_has_not_say_so(model):
    result = made(model, override_settings={"token_merging_ratio": 0.5, "step_cache_interval": 3})
    assert result.comments == ["Token merging has no effect with toy-model.", "Step cache and edit reuse have no effect with toy-model."]


def test_a_network_acts_on_its_fused_layer_and_is_taken_out_again(model, tmp_path):
    path, qkv = tmp_path / "ink.safetensors", model.modules["transformer"].qkv
    save_file({"lora_transformer_to_k.lora_up.weight": torch.ones(24, 2), "lora_transformer_to_k.lora_down.weight": torch.ones(2, 24)}, path)
    before, networks = qkv.weight.clone(), Networks(lambda name: SimpleNamespace(path=path))
    networks.apply(model, [NetworkRequest("ink", 1.0, 1.0, None)])
    changed = (qkv.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert changed == list(range(24, 48))
    networks.apply(model, [])
    assert torch.equal(qkv.weight, before)


def test_it_makes_pictures_through_the_api(paths, tmp_path):
    catalog = Catalog(tmp_path / "models", extra=[paths[0]], cache=tmp_path / "hashes.json")
    models = ModelStore(catalog, FLOAT32, catalog.checkpoints()[0])
    engine = local_engine(models.load, loaded=models.loaded, release=models.release)
    client = client_of(Backend(engine, models, Settings(tmp_path / "config.json"), tmp_path / "outputs", flags={"port": 7860}))
    for mask in ({}, {"mask": base64_of(MASK)}):
        answer = client.post("/sdapi/v1/img2img", json=REQUEST | {"init_images": [base64_of(SOURCE)], **mask})
        assert answer.status_code == 200, answer.text
        assert image_of(answer.json()["images"][0]).size == (128, 128)
    refused = client.post("/sdapi/v1/img2img", json=REQUEST | {"init_images": [base64_of(SOURCE)], "sampler_name": "DDIM"})
    assert refused.status_code == 422 and "needs discrete training timesteps" in refused.text
    engine.close()
