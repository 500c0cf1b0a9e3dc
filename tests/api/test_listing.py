"""What there is, in the shapes that A1111 lists it in."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pipeline.samplers import OURS, SAMPLERS, SCHEDULES, SamplerRow
from pipeline.scripts import SCRIPTS


@pytest.fixture
def get(shared):
    return lambda path: shared.get("/sdapi/v1/" + path).json()


def test_samplers(get):
    listed = {item["name"]: item for item in get("samplers")}
    assert list(listed) == list(SAMPLERS)
    assert listed["DPM++ SDE"] == {"name": "DPM++ SDE", "aliases": ["k_dpmpp_sde"],
                                   "options": {"scheduler": "karras", "second_order": "True", "brownian_noise": "True"}}
    assert listed["Euler"]["options"] == {}


def test_schedulers(get):
    listed = {item["name"]: item for item in get("schedulers")}
    assert list(listed) == list(SCHEDULES)
    assert listed["karras"] == {"name": "karras", "label": "Karras", "aliases": None, "default_rho": 7.0,
                                "need_inner_model": False}
    assert listed["sgm_uniform"]["aliases"] == ["SGMUniform"] and listed["automatic"]["default_rho"] == -1.0


def test_upscalers_and_latent_modes(get):
    assert [item["name"] for item in get("upscalers")] == ["None", "Lanczos", "Nearest"]
    assert get("upscalers")[0] == {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
    assert [item["name"] for item in get("latent-upscale-modes")][:2] == ["Latent", "Latent (antialiased)"]


@pytest.mark.parametrize("path", ["sd-vae", "loras", "hypernetworks", "face-restorers", "realesrgan-models", "prompt-styles",
                                  "extensions"])
def test_what_there_is_none_of_is_an_empty_list(get, path):
    assert get(path) == []


def test_models_are_listed_once_the_folder_is_looked_at_again(client, tmp_path):
    def get(path):
        return client.get("/sdapi/v1/" + path).json()

    models = tmp_path / "models"
    for path in ("Stable-diffusion/sub/mine.safetensors", "VAE/good.safetensors", "embeddings/word.safetensors"):
        (models / path).parent.mkdir(parents=True)
        save_file({"emb_params": torch.zeros(2, 5)}, models / path)
    (models / "Stable-diffusion/sub/mine.yaml").touch()
    (models / "Lora").mkdir()
    save_file({"x": torch.zeros(1)}, models / "Lora/style.safetensors",
              metadata={"ss_output_name": "trained", "ss_network_dim": "4"})
    assert len(get("sd-models")) == 1
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        assert client.post(f"/sdapi/v1/refresh-{name}").json() is None
    mine = next(item for item in get("sd-models") if item["model_name"] == "sub_mine")
    assert mine == {"title": "sub/mine.safetensors", "model_name": "sub_mine", "hash": None, "sha256": None,
                    "filename": str(models / "Stable-diffusion/sub/mine.safetensors"),
                    "config": str(models / "Stable-diffusion/sub/mine.yaml")}
    assert get("sd-vae") == [{"model_name": "good.safetensors", "filename": str(models / "VAE/good.safetensors")}]
    assert get("loras") == [{"name": "style", "alias": "trained", "path": str(models / "Lora/style.safetensors"),
                             "metadata": {"ss_output_name": "trained", "ss_network_dim": "4"}}]


DEEP, DEEPER = ('{"a":' * depth + "1" + "}" * depth for depth in (300, 100_000))


@pytest.mark.parametrize("text, told", [('{"a": [1]}', {"a": [1]}), ("{}", {}), ("[1]", "[1]"), ("{a}", "{a}"), (DEEP, DEEP),
                                        (DEEPER, DEEPER)], ids=["object", "empty", "list", "text", "deep", "deeper"])
def test_metadata_of_a_lora_is_an_object_where_its_text_is_one_that_answers_can_hold(client, tmp_path, text, told):
    (tmp_path / "models/Lora").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "models/Lora/told.safetensors", {"ss_tag_frequency": text})
    client.post("/sdapi/v1/refresh-loras")
    assert client.get("/sdapi/v1/loras").json()[0]["metadata"] == {"ss_tag_frequency": told}


def test_a_damaged_lora_is_listed_without_its_metadata(client, tmp_path):
    (tmp_path / "models/Lora").mkdir()
    (tmp_path / "models/Lora/damaged.safetensors").write_bytes(b"no tensors")
    client.post("/sdapi/v1/refresh-loras")
    assert client.get("/sdapi/v1/loras").json() == [{"name": "damaged", "alias": "damaged", "path": str(tmp_path / "models/Lora/damaged.safetensors"),
                             "metadata": {}}]


def test_models_can_be_let_go_and_loaded_again(client, body):
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}
    client.post("/sdapi/v1/unload-checkpoint")
    assert client.post("/sdapi/v1/img2img", json=body).status_code == 200


def test_scripts_and_their_arguments(get):
    assert set(SCRIPTS) <= set(get("scripts")["img2img"]) and "loopback" not in get("scripts")["txt2img"]
    loopback = next(item for item in get("script-info") if item["name"] == "loopback")
    assert (loopback["is_img2img"], loopback["is_alwayson"]) == (True, False)
    assert loopback["args"][0] == {"label": "Loops", "value": 4, "minimum": 1, "maximum": 32, "step": 1, "choices": None}


def test_memory_and_flags(get):
    assert set(get("memory")) == {"ram", "cuda"}
    assert get("cmd-flags") == {"port": 7860}


def test_samplers_are_those_of_a1111_in_its_order_and_others_come_behind(get):
    theirs = ["DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler",
              "LMS", "Heun",
              "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"]
    assert [item["name"] for item in get("samplers")] == theirs + [row.name for row in OURS]


@pytest.fixture
def straight(monkeypatch):
    """A sampler that A1111 lacks, as a row of the table: one call of the model, whose answer is the picture."""
    def sample_straight(model, x, sigmas, *, callback):
        x = model(x, sigmas[:1].expand(len(x)))
        callback(0, x)
        return x

    row = SamplerRow("Straight", sample_straight, ("k_straight",), scheduler="karras", draws_noise=False)
    monkeypatch.setitem(SAMPLERS, row.name, row)
    return row


def test_a_sampler_that_a1111_lacks_is_a_row_of_the_table(straight, shared, get, body):
    def infotext_of(**changes):
        made = shared.post("/sdapi/v1/img2img", json={name: value for name, value in (body | changes).items() if value})
        return json.loads(made.json()["info"])["infotexts"][0]

    assert get("samplers")[-1] == {"name": "Straight", "aliases": ["k_straight"], "options": {"scheduler": "karras"}}
    told = infotext_of(sampler_name="Straight")
    assert "Sampler: Straight, Schedule type: Karras" in told
    assert "Sampler: Straight, Schedule type: Karras" in infotext_of(sampler_name=None, infotext=told)


def test_where_a_models_weights_go_is_known_before_it_is_loaded(client):
    plan = client.get("/sdapi/v1/memory-plan").json()
    assert (plan["offload"], plan["device"], plan["in_main_memory"]) == ("none", "cpu", {}) and set(plan["on_device"]) == {"unet", "text_encoder", "vae"}
    assert plan["needed"] > sum(plan["on_device"].values()) > 1e6 and plan["line"].endswith(" GB on cpu")
    assert client.get("/sdapi/v1/memory-plan", params={"sd_model_checkpoint": "demo-model"}).json()["on_device"] == plan["on_device"]
    answer = client.get("/sdapi/v1/memory-plan", params={"sd_model_checkpoint": "gone"})
    assert answer.status_code == 404 or 'no checkpoint called "gone"' in answer.json()["detail"]


def test_the_worker_is_listed_and_taken_out_of_service(client):
    worker, = client.get("/sdapi/v1/workers").json()
    assert worker == {"name": "", "model": "", "job": None, "loading": False, "pictures_per_minute": 0.0, "in_service": True}
    worker, = client.post("/sdapi/v1/workers", json={"name": "", "in_service": False}).json()
    assert not worker["in_service"] and client.get("/sdapi/v1/workers").json() == [worker]
    answer = client.post("/sdapi/v1/workers", json={"name": "cuda:7", "in_service": False})
    assert answer.status_code == 422 and 'no worker called "cuda:7"' in answer.json()["detail"]
