"""Options over HTTP: what is listed, set, remembered and refused."""

import json

import pytest

from api.options import PIXELS
from pipeline.options import Options
from pipeline.settings import KEPT, Settings

OPTIONS = "/sdapi/v1/options"


def test_every_option_of_a1111_and_of_ours_is_listed(shared):
    listed = shared.get(OPTIONS).json()
    assert set(KEPT) | set(Options.__dataclass_fields__) <= set(listed)
    assert listed["sd_model_checkpoint"].startswith("demo-model")


def test_whole_numbers_but_0_are_floats_as_in_a1111(shared):
    listed = shared.get(OPTIONS).text
    assert '"CLIP_stop_at_last_layers":1.0' in listed and '"eta_noise_seed_delta":0,' in listed


def test_what_is_set_acts_is_listed_and_remembered(client, backend, tmp_path):
    assert client.post(OPTIONS, json={"CLIP_stop_at_last_layers": 2, "save_txt": True,
                                      "show_progress_type": "Approx NN"}).json() is None
    listed = client.get(OPTIONS).json()
    assert (listed["CLIP_stop_at_last_layers"], listed["save_txt"], listed["show_progress_type"]) == (2, True, "Approx NN")
    assert backend.engine.options.CLIP_stop_at_last_layers == 2
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "CLIP_stop_at_last_layers": 2, "save_txt": True, "show_progress_type": "Approx NN"}
    assert Settings(tmp_path / "config.json").options.CLIP_stop_at_last_layers == 2


def test_what_is_listed_can_be_set_as_it_is(client):
    listed = client.get(OPTIONS).json()
    assert client.post(OPTIONS, json=listed).status_code == 200
    again = client.get(OPTIONS).json()
    changed = {name for name in listed if listed[name] != again[name]}
    assert changed <= {"sd_model_checkpoint", "sd_checkpoint_hash"}  # whose hash may have become known meanwhile


@pytest.mark.parametrize("values, sentence", [
    ({"CLIP_stop_at_last_layers": 2, "nobody_knows": 1}, 'options: no option called "nobody_knows"'),
    ({"CLIP_stop_at_last_layers": 2, "emphasis": "loud"}, 'emphasis: no value called "loud"'),
    ({"CLIP_stop_at_last_layers": 2, "save_txt": "yes"}, "save_txt must be true or false"),
    ({"CLIP_stop_at_last_layers": 2, "samples_filename_pattern": "x" * 20_000}, "samples_filename_pattern must have at most"),
    ({"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "nope"}, 'no checkpoint called "nope"'),
    ({"CLIP_stop_at_last_layers": 2, "sd_vae": "nope"}, 'no VAE called "nope"'),
    ({"CLIP_stop_at_last_layers": 2, "sd_unet": "mine"}, "sd_unet cannot be changed")])
def test_one_wrong_option_leaves_all_as_they_were(client, backend, values, sentence):
    answer = client.post(OPTIONS, json=values)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]
    assert backend.engine.options == Options()


@pytest.mark.parametrize("body", [[], "x", None, 1])
def test_options_are_an_object(shared, body):
    assert shared.post(OPTIONS, json=body).status_code == 422


def test_texts_of_a1111s_settings_page_are_passed_over(client):
    assert client.post(OPTIONS, json={"infotext_explanation": "…", "save_txt": True}).status_code == 200
    assert client.get(OPTIONS).json()["save_txt"] is True


def test_what_may_be_fetched_cannot_be_set_from_afar(client):
    assert client.post(OPTIONS, json={"api_forbid_local_requests": False}).status_code == 200
    assert client.get(OPTIONS).json()["api_forbid_local_requests"] is True


def test_a_checkpoint_can_be_chosen_by_the_title_that_is_listed(client):
    title = client.get("/sdapi/v1/sd-models").json()[0]["title"]
    assert client.post(OPTIONS, json={"sd_model_checkpoint": title}).status_code == 200
    assert client.get(OPTIONS).json()["sd_model_checkpoint"].split(" [")[0] == title.split(" [")[0]  # its hash may have become known


def test_a_checkpoint_that_cannot_be_loaded_is_told_and_not_kept(client, backend, tmp_path, monkeypatch):
    (tmp_path / "models" / "damaged.safetensors").write_bytes(b"x" * 100)
    client.post("/sdapi/v1/refresh-checkpoints")
    answer = client.post(OPTIONS, json={"sd_model_checkpoint": "damaged"})
    assert answer.status_code == 422 and answer.json()["error"] == "ModelError" and "damaged" in answer.json()["detail"]
    assert backend.engine.options.sd_model_checkpoint == ""


def test_the_options_that_change_pixels_are_a1111s():
    assert PIXELS <= set(KEPT)
