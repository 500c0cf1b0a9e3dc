"""ADetailer over HTTP: the payloads that its users send, and the extension's routes."""

import json

import pytest
import webuiapi
from jsonschema import Draft202012Validator
from PIL import Image

from pipeline.infotext import parse
from tests.api.conftest import base64_of, client_of, image_of, running_backend
from tests.detectors import onnx_files

PAYLOAD = {"ad_model": "face_yolov8n.pt", "ad_model_classes": "", "ad_tab_enable": True, "ad_prompt": "", "ad_negative_prompt": "",
           "ad_confidence": 0.9, "ad_mask_filter_method": "Area", "ad_mask_k": 0, "ad_mask_min_ratio": 0.0, "ad_mask_max_ratio": 1.0,
           "ad_dilate_erode": 4, "ad_x_offset": 0, "ad_y_offset": 0, "ad_mask_merge_invert": "None", "ad_mask_blur": 4,
           "ad_denoising_strength": 0.4, "ad_inpaint_only_masked": True, "ad_inpaint_only_masked_padding": 32,
           "ad_use_inpaint_width_height": False, "ad_inpaint_width": 512, "ad_inpaint_height": 512, "ad_use_steps": False, "ad_steps": 28,
           "ad_use_cfg_scale": False, "ad_cfg_scale": 7.0, "ad_use_checkpoint": False, "ad_checkpoint": "Use same checkpoint",
           "ad_use_vae": False, "ad_vae": "Use same VAE", "ad_use_sampler": False, "ad_sampler": "DPM++ 2M Karras",
           "ad_scheduler": "Use same scheduler", "ad_use_noise_multiplier": False, "ad_noise_multiplier": 1.0, "ad_use_clip_skip": False,
           "ad_clip_skip": 1, "ad_restore_face": False, "ad_controlnet_model": "None", "ad_controlnet_module": "None",
           "ad_controlnet_weight": 1.0, "ad_controlnet_guidance_start": 0.0, "ad_controlnet_guidance_end": 1.0, "is_api": []}
"""A whole pass as the extension's page sends it."""


@pytest.fixture(scope="module")
def client(demo, tmp_path_factory):
    with running_backend(demo, [], tmp_path_factory.mktemp("detailer")) as here, client_of(here) as client:
        folder = here.models.catalog.root / "adetailer"
        folder.mkdir()
        (folder / "face_yolov8n.onnx").write_bytes(onnx_files.yolo())
        yield client


@pytest.fixture(scope="module")
def source():
    image = Image.new("RGB", (64, 64), (50, 50, 50))
    image.paste((255, 0, 0), (16, 16, 32, 32))
    return image


def asked(args, source, **fields):
    return {"width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler", "init_images": [base64_of(source)],
            "alwayson_scripts": {"ADetailer": {"args": args}}} | fields


def post(client, body, path="img2img"):
    return client.post(f"/sdapi/v1/{path}", json=body)


@pytest.mark.parametrize("title", ["ADetailer", "adetailer", "ADETAILER"])
def test_the_extensions_payload_is_understood(title, client, source):
    body = asked([], source, alwayson_scripts={title: {"args": [True, True, PAYLOAD]}})
    answer = post(client, body).json()
    made = image_of(answer["images"][0])
    told = parse(made.info["parameters"])
    assert told["ADetailer model"] == "face_yolov8n.pt" and told["ADetailer version"] == "25.3.0"
    # img2img itself is skipped: only around the find
    assert made.getpixel((63, 63)) == (50, 50, 50) and made.getpixel((24, 24)) != (255, 0, 0)
    assert json.loads(answer["info"])["extra_generation_params"]["ADetailer mask blur"] == 4
    assert len(answer["images"]) == 1


def test_txt2img_takes_it_too(client, source):
    answer = post(client, asked([PAYLOAD | {"ad_confidence": 0.05, "ad_mask_k": 1}], source), "txt2img")
    assert answer.status_code == 200 and "ADetailer model: face_yolov8n.pt" in json.loads(answer.json()["info"])["infotexts"][0]


def test_switched_off_it_is_not_even_checked(client, source):
    plain = image_of(post(client, asked([], source)).json()["images"][0])
    for args in ([False, False, PAYLOAD], [True, False, PAYLOAD | {"ad_model": "None", "ad_steps": -5}]):
        made = image_of(post(client, asked(args, source)).json()["images"][0])
        assert made.tobytes() == plain.tobytes() and made.info["parameters"] == plain.info["parameters"]


@pytest.mark.parametrize("one, sentence", [
    ({"ad_confidence": 3}, 'alwayson_scripts of "ADetailer", pass 1: ad_confidence must be a number between 0 and 1, got 3'),
    ({"ad_model": "eyes.pt"}, 'no detector called "eyes.pt"; there is face_yolov8n.onnx'),
    ({"ad_use_checkpoint": True, "ad_checkpoint": "no such"}, 'of "ADetailer", pass 1: sd_model_checkpoint: no checkpoint called "no such"')])
def test_bad_values_are_refused_in_a_sentence(one, sentence, client, source):
    answer = post(client, asked([True, True, PAYLOAD | one], source))
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_the_extensions_routes(client):
    assert client.get("/adetailer/v1/version").json() == {"version": "25.3.0"}
    assert client.get("/adetailer/v1/ad_model").json() == {"ad_model": [
        "face_yolov8n.pt", "face_yolov8s.pt", "mediapipe_face_full", "mediapipe_face_short", "mediapipe_face_mesh", "face_yolov8n.onnx"]}
    schema = client.get("/adetailer/v1/schema").json()
    assert schema["properties"]["ad_denoising_strength"] == {
        "title": "Ad Denoising Strength", "type": "number", "default": 0.4, "minimum": 0, "maximum": 1}
    Draft202012Validator(schema).validate({name: value for name, value in PAYLOAD.items() if name != "is_api"})
    assert set(PAYLOAD) - {"is_api"} == set(schema["properties"])
    assert client.get("/adetailer/v1/nothing").status_code == 404


def test_scripts_list_it_for_both(client):
    listed = client.get("/sdapi/v1/scripts").json()
    assert "adetailer" in listed["txt2img"] and "adetailer" in listed["img2img"]


def test_the_client_package_of_its_users_sends_what_is_understood(client, source):
    sent = webuiapi.ADetailer(ad_model="face_yolov8n.pt").to_dict()
    assert post(client, asked([True, True, sent], source)).status_code == 200


def test_a_request_is_completed_with_the_passes_of_its_infotext(client, source):
    first = post(client, asked([PAYLOAD | {"ad_steps": 3, "ad_use_steps": True, "ad_clip_skip": 2, "ad_use_clip_skip": True}], source)).json()
    text = json.loads(first["info"])["infotexts"][0]
    plain = {name: value for name, value in asked([], source, infotext=text).items() if name != "alwayson_scripts"}
    again = post(client, plain).json()
    assert image_of(again["images"][0]).tobytes() == image_of(first["images"][0]).tobytes()
    off = post(client, plain | {"alwayson_scripts": {"adetailer": {"args": [False, False, {}]}}}).json()
    assert "ADetailer" not in json.loads(off["info"])["infotexts"][0]
    gone = json.loads(post(client, plain | {"infotext": text.replace("face_yolov8n.pt", "eyes.pt")}).json()["info"])
    assert "ADetailer" not in gone["infotexts"][0] and any('no detector called "eyes.pt"' in comment for comment in gone["comments"])
