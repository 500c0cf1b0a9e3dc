"""ControlNet over HTTP: the payloads that the extension documents, and those of the client package that its users have."""

import json
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import webuiapi
from PIL import Image, ImageDraw

from pipeline.infotext import parse
from pipeline.models import old_hash
from tests.api.conftest import base64_of, client_of, image_of, running_backend
from tests.families import tiny_controls

TITLE = "control_v11p_sd15_canny"


@pytest.fixture(scope="module")
def here(demo, tmp_path_factory):
    """A backend whose models folder has two ControlNets for the demo model."""
    with running_backend(demo, [], tmp_path_factory.mktemp("control")) as backend:
        folder = backend.models.catalog.root / "ControlNet"
        tiny_controls.controlnet(demo._unet).save_pretrained(folder / "other_depth", safe_serialization=True)
        tiny_controls.saved(tiny_controls.controlnet(demo._unet).state_dict(), folder / f"{TITLE}.safetensors")
        backend.models.catalog.refresh()
        yield backend


@pytest.fixture(scope="module")
def client(here):
    with client_of(here) as client:
        yield client


@pytest.fixture(scope="module")
def drawing():
    image = Image.new("RGB", (64, 64))
    ImageDraw.Draw(image).line((8, 8, 56, 40), fill="white", width=3)
    return image


PIXEL = base64_of(Image.new("RGB", (8, 8)))


def asked(unit, **fields):
    return {"width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler",
            "alwayson_scripts": {"controlnet": {"args": [{"enabled": True, "model": "other_depth"} | unit]}}} | fields


def made(client, body, path="txt2img"):
    answer = client.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client, body, path="txt2img"):
    answer = client.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 422, answer.text
    return answer.json()["detail"]


def test_a_unit_guides_txt2img_and_its_map_comes_back(client, drawing):
    answer = made(client, asked({"image": base64_of(drawing), "module": "invert"}))
    plain = made(client, asked({"enabled": False, "image": "not even base64"}))
    assert len(answer["images"]) == 2 and len(plain["images"]) == 1
    assert (np.asarray(image_of(answer["images"][1])) == 255 - np.asarray(drawing)).all()
    assert image_of(answer["images"][0]).tobytes() != image_of(plain["images"][0]).tobytes()
    told = parse(image_of(answer["images"][0]).info["parameters"])
    assert told["ControlNet 0"].startswith("Module: invert, Model: other_depth, Weight: 1.0")


@pytest.mark.parametrize("picture_of", [
    lambda text: {"image": text}, lambda text: {"input_image": text}, lambda text: {"image": "data:image/png;base64," + text},
    lambda text: {"image": {"image": text}}, lambda text: {"image": {"image": text, "mask": None}}, lambda text: {"image": [text, None]}])
def test_each_way_to_send_a_picture_means_the_same(picture_of, client, drawing):
    answer = made(client, asked({"module": "invert"} | picture_of(base64_of(drawing))))
    assert (np.asarray(image_of(answer["images"][1])) == 255 - np.asarray(drawing)).all()


def test_img2img_takes_the_source_where_a_unit_has_no_picture_and_drops_pictures_from_what_it_repeats(client, picture, drawing):
    answer = made(client, asked({}, init_images=[base64_of(picture)]), "img2img")
    assert (np.asarray(image_of(answer["images"][1])) == np.asarray(picture)).all()
    answer = made(client, asked({"image": base64_of(drawing)}, init_images=[base64_of(picture)]), "img2img")
    assert answer["parameters"]["alwayson_scripts"]["controlnet"]["args"][0]["image"] is None


@pytest.mark.parametrize("unit, sentence", [
    ({"model": "nothing"}, 'alwayson_scripts: no ControlNet called "nothing"'),
    ({"image": "/etc/passwd.png"}, "alwayson_scripts"), ({"image": "a/path/to.png"}, "alwayson_scripts"),
    ({"image": "%%%"}, "alwayson_scripts"), ({"image": 17}, "image must be a picture in base64, got int"),
    ({"ipadapter_input": ["gASV"]}, "ipadapter_input is a pickle"), ({"weight": 9}, "unit 0: weight must be a number between 0 and 2, got 9"),
    ({"module": "mlsd"}, 'unit 0: module: no preprocessor called "mlsd"'),
    ({"module": "openpose_full", "image": PIXEL}, 'preprocessor "openpose_full": put the folder of ViTPose, such as usyd-community/vitpose-base-simple'),
    ({}, "unit 0: image is missing"), ({"model": "None"}, 'unit 0: choose a model; "None" guides nothing'),
])
def test_what_cannot_be_done_is_refused_in_a_sentence(unit, sentence, client):
    assert sentence in refused(client, asked(unit))


def test_a_picture_is_limited_by_its_pixels_like_any_other(client):
    wide = base64_of(Image.new("1", (40_000, 40_000)))
    assert "pixels" in refused(client, asked({"image": wide}))


def test_a_file_that_does_not_fit_is_refused_with_its_name(client, drawing):
    # the demo model's group norms differ from all published models', which a bare file cannot say
    assert f'model "{TITLE}.safetensors" cannot be loaded' in refused(client, asked({"model": TITLE, "image": base64_of(drawing)}))


def test_models_are_listed_with_the_short_hash_that_units_may_repeat(client, here, drawing):
    listed = client.get("/controlnet/model_list").json()["model_list"]
    digits = old_hash(here.models.catalog.root / "ControlNet" / f"{TITLE}.safetensors")
    assert listed == [f"{TITLE} [{digits}]", "other_depth"]
    assert here.models.catalog.find_control_network(listed[0]).stem == TITLE
    assert here.models.catalog.find_control_network("depth").stem == "other_depth"
    assert client.get("/controlnet/model_list?update=false").json()["model_list"] == listed


def test_version_and_settings(client):
    assert client.get("/controlnet/version").json() == {"version": 3}
    assert client.get("/controlnet/settings").json() == {"control_net_unit_count": 3}


def test_modules_have_their_names_or_aliases_and_their_sliders(client):
    answer, aliased = (client.get(f"/controlnet/module_list?alias_names={value}").json() for value in ("false", "true"))
    assert "inpaint" in answer["module_list"] and "inpaint_global_harmonious" in aliased["module_list"]
    assert answer["module_list"][0] == "none" and set(answer["module_detail"]) == set(answer["module_list"])
    assert answer["module_detail"]["canny"] == {"model_free": False, "sliders": [
        {"name": "Resolution", "value": 512, "min": 64, "max": 2048, "step": 8},
        {"name": "Low Threshold", "value": 100, "min": 1, "max": 255, "step": 1},
        {"name": "High Threshold", "value": 200, "min": 1, "max": 255, "step": 1}]}


def test_control_types_choose_by_name(client):
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert list(types)[0] == "All" and {"Canny", "Depth", "OpenPose", "Tile", "Inpaint"} < set(types)
    canny = types["Canny"]
    assert canny["default_option"] == "canny" and canny["default_model"].startswith(TITLE) and "other_depth" not in canny["model_list"]
    assert canny["module_list"] == ["none", "canny", "invert (from white bg & black line)"]
    assert types["Depth"]["default_model"] == "other_depth" and types["Depth"]["default_option"] == "depth_midas"
    assert types["Tile"]["default_option"] == "tile_resample" and len(types["Tile"]["model_list"]) == 3


def test_detect_returns_the_maps(client, drawing, mask):
    body = {"controlnet_module": "canny", "controlnet_input_images": [base64_of(drawing)] * 2, "controlnet_processor_res": 128}
    answer = client.post("/controlnet/detect", json=body).json()
    assert answer["info"] == "Success" and [image_of(text).size for text in answer["images"]] == [(128, 128)] * 2
    body = {"controlnet_module": "inpaint_only", "controlnet_input_images": [base64_of(drawing)], "controlnet_masks": [base64_of(mask)]}
    shown = image_of(client.post("/controlnet/detect", json=body).json()["images"][0])
    assert shown.mode == "RGBA" and set(np.unique(shown.getchannel("A"))) == {128, 255}


@pytest.mark.parametrize("body, sentence", [
    ({"controlnet_module": "midas", "controlnet_input_images": ["x"]}, "Module not available; "),
    ({"controlnet_module": "canny"}, "No image selected"),
    ({"controlnet_module": "inpaint", "controlnet_input_images": ["x"]}, "requires `controlnet_masks` param"),
    ({"controlnet_module": "canny", "controlnet_input_images": ["%%"]}, "controlnet_input_images"),
    ({"controlnet_module": "canny", "controlnet_input_images": ["x"] * 65}, "at most 64 pictures, got 65"),
])
def test_detect_refuses_in_a_sentence(body, sentence, client):
    answer = client.post("/controlnet/detect", json=body)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_scripts_list_it_for_both(client):
    listed = client.get("/sdapi/v1/scripts").json()
    assert "controlnet" in listed["txt2img"] and "controlnet" in listed["img2img"] and "soft inpainting" not in listed["txt2img"]
    told = [item for item in client.get("/sdapi/v1/script-info").json() if item["name"] == "controlnet"]
    assert [item["is_img2img"] for item in told] == [False, True] and all(item["is_alwayson"] and item["args"] == [] for item in told)


@pytest.mark.parametrize("given", [
    {}, {"args": []}, {"args": [False, True, {"ad_model": "face_yolov8n.pt"}]}, {"args": [{"enabled": False}, {"enabled": False}]}, None,
    {"args": [{"ad_model": "None"}]}, {"args": [{"is_enabled": False, "x": 1}]}])
def test_scripts_of_other_extensions_that_are_empty_or_off_are_ignored(given, client):
    assert made(client, asked({"enabled": False}, alwayson_scripts={"Some Extension": given}))["images"]


@pytest.mark.parametrize("given", [{"args": [True, {}]}, {"args": [{"enabled": True}]}, {"args": [{"enabled": False}, {"enabled": True}]}, {"args": ["x"]}])
def test_scripts_of_other_extensions_that_act_are_refused_with_what_is_known(given, client):
    detail = refused(client, asked({}, alwayson_scripts={"Some Extension": given}))
    assert detail == "Script 'Some Extension' not found; known always-on scripts: Soft Inpainting, ControlNet, ADetailer"


def test_a_lenient_server_leaves_them_out_and_says_so(here):
    with client_of(replace(here, lenient_scripts=True)) as client:
        answer = made(client, asked({}, alwayson_scripts={"Some Extension": {"args": [True]}}))
    assert json.loads(answer["info"])["comments"] == ['The always-on script "Some Extension" is not known here and was left out.']


def test_nothing_else_is_under_its_path(client):
    assert client.get("/controlnet/nothing").status_code == 404 and client.get("/controlnet/detect").status_code == 405


def test_the_client_package_of_its_users_works(server, picture, drawing):
    address = urlsplit(server)
    api = webuiapi.WebUIApi(host=address.hostname, port=address.port, steps=2)
    assert api.controlnet_version() == 3 and "canny" in api.controlnet_module_list() and api.controlnet_model_list() == []
    assert api.controlnet_detect(images=[drawing], module="canny").image.size == (512, 512)
    unit = webuiapi.ControlNetUnit(image=drawing, module="canny", model="none to be found")
    with pytest.raises(RuntimeError, match="no ControlNet called .*none to be found"):
        # scripts of its own: the package's default is one dict, which would keep the unit for later calls
        api.txt2img(prompt="a", width=64, height=64, controlnet_units=[unit], alwayson_scripts={})


def test_a_unit_acts_in_the_passes_of_hires_fix_that_it_names(client, drawing):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 2, "denoising_strength": 0.7}
    made_with = {option: made(client, asked({"image": base64_of(drawing), "hr_option": option}, **hires)) for option in ("Both", "Low res only", "High res only")}
    made_with["off"] = made(client, asked({"enabled": False}, **hires))
    assert len({image_of(answer["images"][0]).tobytes() for answer in made_with.values()}) == 4
    # the map has the size of the last pass in which it guided
    assert [image_of(made_with[option]["images"][1]).width for option in ("Both", "Low res only", "High res only")] == [128, 64, 128]
    single = [made(client, asked({"image": base64_of(drawing)} | option)) for option in ({}, {"hr_option": "High res only"})]
    assert image_of(single[0]["images"][0]).tobytes() == image_of(single[1]["images"][0]).tobytes()
    assert 'hr_option must be one of Both, Low res only, High res only, or 0 to 2, got "x"'.replace('"', "'") in refused(client, asked({"hr_option": "x"}))


def test_a_request_is_completed_with_the_units_of_its_infotext(client, picture, drawing):
    unit = {"module": "canny", "weight": 0.5, "guidance_end": 0.8, "threshold_a": 50}
    first = made(client, asked(unit | {"image": base64_of(drawing)}, init_images=[base64_of(picture)]), "img2img")
    text = json.loads(first["info"])["infotexts"][0]
    plain = {name: value for name, value in asked({}, init_images=[base64_of(picture)], infotext=text).items() if name != "alwayson_scripts"}
    # the request's own picture with the infotext's settings, and one of its own
    with_picture = plain | {"alwayson_scripts": {"controlnet": {"args": [{"enabled": True, "input_image": base64_of(drawing), "guidance": 0.8}]}}}
    assert image_of(made(client, with_picture, "img2img")["images"][0]).tobytes() == image_of(first["images"][0]).tobytes()
    own = made(client, plain | {"alwayson_scripts": {"controlnet": {"args": [{"enabled": True, "image": base64_of(drawing), "weight": 1.5}]}}}, "img2img")
    told = parse(json.loads(own["info"])["infotexts"][0])["ControlNet 0"]
    assert "Weight: 1.5" in told and "Guidance End: 0.8" in told and "Module: canny" in told
    # without a picture the source counts; a unit that the request switches off stays off
    assert "ControlNet 0" in parse(json.loads(made(client, plain, "img2img")["info"])["infotexts"][0])
    off = made(client, plain | {"alwayson_scripts": {"ControlNet": {"args": [{"enabled": False}]}}}, "img2img")
    assert "ControlNet" not in json.loads(off["info"])["infotexts"][0] and len(off["images"]) == 1
    without = json.loads(made(client, {name: value for name, value in plain.items() if name != "init_images"})["info"])
    assert "ControlNet unit 0 of the infotext was left out: infotext holds no control pictures." in without["comments"]
    gone = json.loads(made(client, plain | {"infotext": text.replace("Model: other_depth", "Model: gone")}, "img2img")["info"])
    assert "ControlNet" not in gone["infotexts"][0] and any('no ControlNet called "gone"' in comment for comment in gone["comments"])
