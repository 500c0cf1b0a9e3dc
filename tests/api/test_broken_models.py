"""Files of a models folder that are no models: one sentence over HTTP, and the model from before goes on drawing."""

import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.embeddings import EmbeddingShelf
from pipeline.engine import local_engine
from pipeline.families import placement
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.networks import LoraNames, Networks
from pipeline.settings import Settings
from tests.api.conftest import Backend, base64_of, client_of
from tests.families import tiny

OPTIONS, DRAW = "/sdapi/v1/options", "/sdapi/v1/img2img"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A models folder with one good checkpoint, good.safetensors, among bad ones."""
    place = tmp_path_factory.mktemp("broken")
    file = tiny.make("sd1", place)[1]
    models = place / "models"
    checkpoints = models / "Stable-diffusion"
    for name in ("Stable-diffusion", "VAE", "Lora", "embeddings"):
        (models / name).mkdir(parents=True)
    good, state = file.read_bytes(), load_file(file)
    (checkpoints / "good.safetensors").write_bytes(good)
    save_file({"lora_unet_conv_in.lora_up.weight": torch.zeros(1, 1)}, checkpoints / "a-lora.safetensors")
    save_file({"emb_params": torch.zeros(1, 32)}, checkpoints / "an-embedding.safetensors")
    save_file({name: tensor for name, tensor in state.items() if name.startswith("model.")}, checkpoints / "unet-only.safetensors")
    for name, content in {"empty": b"", "cut-short": good[:len(good) // 2], "huge-header": struct.pack("<Q", 2**62) + good[8:],
                          "renamed-pickle": b"\x80\x02}q\x00."}.items():
        (checkpoints / f"{name}.safetensors").write_bytes(content)
    save_file(state | {"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}, checkpoints / "nan.safetensors")
    (place / "secret.txt").write_text("a secret " * 20)
    (checkpoints / "link.safetensors").symlink_to(place / "secret.txt")
    (checkpoints / "no-index" / "unet").mkdir(parents=True)
    (checkpoints / "other-pipeline").mkdir()
    (checkpoints / "other-pipeline" / "model_index.json").write_text('{"_class_name": "PixArtSigmaPipeline"}')
    (models / "VAE" / "empty.safetensors").write_bytes(b"")
    (models / "Lora" / "empty.safetensors").write_bytes(b"")
    shutil.copy(checkpoints / "good.safetensors", models / "Lora" / "checkpoint.safetensors")
    return models


@pytest.fixture(scope="module")
def client(folder):
    catalog = Catalog(folder)
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("good"))
    engine = local_engine(models.load, networks=Networks(LoraNames(catalog).find), embeddings=EmbeddingShelf(catalog.embedding_paths))
    with client_of(Backend(engine, models, Settings(), folder / "outputs")) as client:
        yield client
    engine.close()


def assert_draws(client, picture, **fields):
    body = {"init_images": [base64_of(picture)], "width": 64, "height": 64, "steps": 1, "sampler_name": "Euler"} | fields
    answer = client.post(DRAW, json=body)
    assert answer.status_code == 200, answer.json()
    assert "Model: good," in answer.json()["info"]
    return answer.json()


@pytest.mark.parametrize("name, sentence", [
    ("empty", '"empty.safetensors" cannot be read as safetensors, it is damaged or cut short: '),
    ("cut-short", '"cut-short.safetensors" cannot be read as safetensors, it is damaged or cut short: '),
    ("huge-header", '"huge-header.safetensors" cannot be read as safetensors, it is damaged or cut short: '),
    ("link", '"link.safetensors" cannot be read as safetensors, it is damaged or cut short: '),
    ("renamed-pickle", '"renamed-pickle.safetensors" is a pickle, which can run code when it is read; '),
    ("a-lora", '"a-lora.safetensors" is a LoRA, which belongs in the Lora folder'),
    ("an-embedding", '"an-embedding.safetensors" is a textual inversion embedding, which belongs in the embeddings folder'),
    ("unet-only", '"unet-only.safetensors" is not a complete checkpoint: it lacks the vae and the text_encoder'),
    ("no-index", 'sd_model_checkpoint: no checkpoint called "no-index"; '),
    ("other-pipeline", 'is a PixArtSigmaPipeline, which is not supported'),
    ("../secret.txt", 'sd_model_checkpoint: no checkpoint called "../secret.txt"; '),
])
def test_what_is_no_model_is_one_sentence_and_the_one_from_before_goes_on(client, picture, name, sentence):
    answer = client.post(OPTIONS, json={"sd_model_checkpoint": name})
    said = answer.json()["detail"]
    assert answer.status_code == 422 and sentence in said and "\n" not in said and "a secret" not in said
    assert_draws(client, picture)


def test_a_model_that_gives_only_nan_is_told_and_does_no_harm(client, picture):
    body = {"init_images": [base64_of(picture)], "width": 64, "height": 64, "steps": 1, "sampler_name": "Euler",
            "override_settings": {"sd_model_checkpoint": "nan"}}
    assert "nan gave no picture in" in client.post(DRAW, json=body).json()["detail"]
    assert_draws(client, picture)


def test_what_is_no_vae_is_one_sentence(client, picture):
    assert '"empty.safetensors" cannot be read' in client.post(OPTIONS, json={"sd_vae": "empty"}).json()["detail"]
    assert_draws(client, picture)


@pytest.mark.parametrize("name, sentence", [
    ("checkpoint", "do not fit this model and were left out"), ("../Stable-diffusion/good", "Lora not found"),
])
def test_what_is_no_lora_of_this_model_is_told_with_the_picture(client, picture, name, sentence):
    assert sentence in str(assert_draws(client, picture, prompt=f"a house <lora:{name}:1>"))


@pytest.fixture
def lists_embeddings(folder):
    """Writes an embedding file, and gives what the list says of it."""
    def lists(client, tensors, facts=None):
        save_file(tensors, folder / "embeddings" / "odd.safetensors", facts)
        client.post("/sdapi/v1/refresh-embeddings")
        answer = client.get("/sdapi/v1/embeddings")
        assert answer.status_code == 200
        (folder / "embeddings" / "odd.safetensors").unlink()
        client.post("/sdapi/v1/refresh-embeddings")
        return answer.json()
    return lists


@pytest.mark.parametrize("step", ["9" * 5000, "-1", "1.5", "", "٣"])
def test_an_embeddings_odd_facts_cost_it_only_those(client, lists_embeddings, picture, step):
    facts = {"step": step, "sd_checkpoint_name": "x" * 100_000}
    found = lists_embeddings(client, {"emb_params": torch.zeros(1, 32)}, facts)["loaded"]["odd"]
    assert found["step"] is None and len(found["sd_checkpoint_name"]) == 200
    assert_draws(client, picture)


@pytest.mark.parametrize("tensors", [{"emb_params": torch.zeros(2**23)}, {"a": torch.zeros(0, 32)}, {"a": torch.zeros(1, 1, 32)}])
def test_what_is_no_embedding_is_skipped(client, lists_embeddings, tensors):
    assert "odd" in lists_embeddings(client, tensors)["skipped"]


def test_a_yaml_of_aliases_is_one_sentence(client, folder, picture):
    beside = folder / "Stable-diffusion" / "bomb.yaml"
    shutil.copy(folder / "Stable-diffusion" / "good.safetensors", beside.with_suffix(".safetensors"))
    names = "abcdefghij"
    beside.write_text("a: &a [x, x]\n" + "".join(f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n" for last, name in
                                                  zip(names, names[1:])) + "model: {params: {cond_stage_config: *j}}")
    client.post("/sdapi/v1/refresh-checkpoints")
    answer = client.post(OPTIONS, json={"sd_model_checkpoint": "bomb"})
    beside.with_suffix(".safetensors").unlink()
    beside.unlink()
    client.post("/sdapi/v1/refresh-checkpoints")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith('"bomb.yaml" beside the checkpoint cannot be read: it holds an alias (*a)')
    assert_draws(client, picture)


def test_a_damaged_lora_is_one_sentence(client, picture):
    body = {"init_images": [base64_of(picture)], "width": 64, "height": 64, "steps": 1, "prompt": "<lora:empty:1>"}
    assert '"empty.safetensors" cannot be read' in client.post(DRAW, json=body).json()["detail"]
    assert_draws(client, picture)
