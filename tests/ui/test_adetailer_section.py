"""ADetailer's section: a pass's widgets, what is found in the picture, and its request."""

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipeline.adetailer import SPECS, suffix
from pipeline.detectors.store import Detectors
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.infotext import parse
from pipeline.processing import StableDiffusionProcessingImg2Img
from tests.detectors import onnx_files
from tests.ui.steps import generate, put, result, settle, shares_page
from ui.adetailer import PASSES_OFF as OFF, WIDGETS, found, packed_passes, spread_passes, told_passes
from ui.curl import payload


def values(index=0, **fields):
    given = {"ad_tab_enable": True, "ad_model": "face_yolov8n.pt", "ad_confidence": 0.6, "ad_use_steps": False, "ad_steps": 28} | fields
    return {f"ADetailer.{index}.{name}": value for name, value in given.items()}


def test_widgets_become_passes_and_come_back(picture):
    widgets = OFF | values(1, ad_prompt="a face") | {"ADetailer.all.skip_img2img": True, "prompt": "a house"}
    packed = packed_passes(widgets)
    assert widgets == {"prompt": "a house"}
    assert packed == {"ADetailer": {"args": [True, True, {"ad_model": "None"}, {
        "ad_model": "face_yolov8n.pt", "ad_confidence": 0.6, "ad_prompt": "a face"}]}}
    p = StableDiffusionProcessingImg2Img(init_images=[picture], alwayson_scripts=packed)
    again = spread_passes(p)
    assert again["ADetailer.1.ad_tab_enable"] and not again["ADetailer.0.ad_tab_enable"] and again["ADetailer.all.skip_img2img"]
    assert again["ADetailer.1.ad_prompt"] == "a face" and again["ADetailer.1.ad_steps"] == 28
    assert packed_passes(again) == packed == payload(p)["alwayson_scripts"]


def test_passes_that_are_off_leave_the_request_alone(picture):
    assert packed_passes(OFF | {"ADetailer.0.ad_model": "face_yolov8n.pt"}) == {}
    assert spread_passes(StableDiffusionProcessingImg2Img(init_images=[picture])) == OFF


@pytest.mark.parametrize("fields, sentence", [({"ad_confidence": 3}, "ad_confidence must be a number between 0 and 1, got 3"), ({"ad_model": "None"}, "choose a detector")])
def test_a_pass_that_cannot_be_is_refused_by_its_number_on_the_page(fields, sentence):
    with pytest.raises(InvalidRequest, match=f"^ADetailer, pass 1: {sentence}"):
        packed_passes(values(**fields))


def test_infotext_sets_the_widgets_and_switches_the_others_off():
    read, _ = told_passes({"ADetailer model": "face_yolov8n.pt", "ADetailer confidence": "0.7", "ADetailer use separate steps": "True", "ADetailer steps": "9"})
    assert read["ADetailer.0.ad_tab_enable"] and read["ADetailer.0.ad_steps"] == 9 and read["ADetailer.0.ad_use_steps"] is True
    assert not read["ADetailer.1.ad_tab_enable"] and told_passes({}) == (OFF, [])


def test_every_widget_of_a_pass_is_restored(controls):
    assert set(controls.scripts.adetailer.passes[0].settings) == {*WIDGETS, "ad_tab_enable", "others"}


def test_fields_without_a_widget_of_their_own_come_back_too(picture):
    """All fields of a pass at other values than their defaults, to the page and back."""
    one = {name: not spec.default if spec.type is bool else spec.metadata["choices"][-1] if "choices" in spec.metadata
           else spec.default + 1 if spec.type is int else 0.7 if spec.type is float else "Euler" if name == "ad_sampler"
           else "Karras" if name == "ad_scheduler" else f"a {name}: 3" for name, spec in SPECS.items()} | {
        "ad_tab_enable": True, "ad_controlnet_module": "canny"}
    assert all(one[name] != spec.default for name, spec in SPECS.items() if name != "ad_tab_enable")
    p = StableDiffusionProcessingImg2Img(init_images=[picture], alwayson_scripts={"ADetailer": {"args": [True, False, one]}})
    shown = spread_passes(p)
    assert "ad_clip_skip: 2" in shown["ADetailer.0.others"].splitlines()
    del one["ad_tab_enable"]
    assert packed_passes(shown) == {"ADetailer": {"args": [True, False, one]}}


def test_a_further_field_that_there_is_not_is_refused():
    with pytest.raises(InvalidRequest, match='^ADetailer, pass 1: Further fields: "ad_steps: 3" is not a field with a value, such as ad_use_checkpoint'):
        packed_passes(values(others="ad_steps: 3"))


def test_passes_beyond_those_of_the_page_are_told():
    _, notes = told_passes({f"ADetailer model{suffix(index)}": "x" for index in range(3)})
    assert notes == ["ADetailer: the page has 2 passes; those after it were left out."]


def test_find_says_what_is_missing(picture, tmp_path):
    with pytest.raises(PalimpsestError, match="Choose a detector first. Put face_detection_yunet_2023mar.onnx"):
        found(Detectors(tmp_path), picture, {"ad_model": "None"})
    (tmp_path / "face.onnx").write_bytes(onnx_files.yolo())
    with pytest.raises(PalimpsestError, match="Nothing was found"):
        found(Detectors(tmp_path), Image.new("RGB", (64, 64)), {"ad_model": "face.onnx", "ad_confidence": 0.9})


@pytest.fixture(scope="module")
def detector(server):
    """The server has a detector of red squares."""
    folder = server.outputs.parent / "models" / "adetailer"
    folder.mkdir()
    (folder / "red squares.onnx").write_bytes(onnx_files.yolo())


@pytest.fixture(scope="module")
def square(tmp_path_factory):
    """A file: a red square on grey, 256x256."""
    image = Image.new("RGB", (256, 256), (60, 60, 60))
    image.paste((255, 0, 0), (64, 128, 128, 192))
    image.save(path := tmp_path_factory.mktemp("square") / "square.png")
    return path


@shares_page
def test_find_shows_boxes_on_the_picture_and_generate_details_them(page, detector, square):
    page.locator("#adetailer > button").click()
    page.locator("#refresh-models").click()
    settle(page)
    page.locator("#adetailer-find-0").click()
    expect(page.locator(".toast-body").last).to_contain_text("Add a picture first")
    put(page, "img2img-picture", square)
    page.locator("#adetailer-model-0 input").click()
    page.get_by_role("option", name="red squares.onnx").click()
    page.get_by_label("number input for Confidence").fill("0.8")
    page.locator("#adetailer-enabled-0 input").check()
    page.locator("#adetailer-skip input").check()
    page.locator("#adetailer-find-0").click()
    preview = page.locator("#adetailer-preview-0 img")
    preview.wait_for()
    settle(page)
    shown = np.asarray(Image.open(io.BytesIO(urllib.request.urlopen(preview.get_attribute("src")).read())).convert("RGB")).astype(int)
    # a green line around the square, whose inside is tinted; elsewhere the picture
    assert shown.shape == (256, 256, 3) and shown[128, 100].tolist() == [64, 220, 120] and shown[10, 10].tolist() == [60, 60, 60]
    assert shown[180, 120, 1] > 60 and shown[180, 120, 0] < 255
    generate(page, "img2img")
    made = result(page)
    told = parse(made.info["parameters"])
    assert told["ADetailer model"] == "red squares.onnx" and told["ADetailer confidence"] == "0.8"
    page.locator("#adetailer-enabled-0 input").uncheck()
    page.locator("#adetailer-skip input").uncheck()
