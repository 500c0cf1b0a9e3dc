"""ControlNet's section: a unit's widgets, the preview of what its network sees, and its request."""

import io
import urllib.request

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from pipeline.annotators import Annotators
from pipeline.errors import InvalidRequest
from pipeline.infotext import parse
from pipeline.processing import StableDiffusionProcessingImg2Img
from tests.families import tiny_controls
from tests.ui.steps import generate, open_tab, put, result, settle
from ui.controlnet import UNITS_OFF as OFF, module_choices, packed_units, ranges, spread_units, told_units, units_left_out
from ui.curl import payload


@pytest.fixture
def drawing(tmp_path):
    """A file: a white bar on black, 64x64."""
    image = Image.new("RGB", (64, 64))
    ImageDraw.Draw(image).rectangle((20, 8, 44, 56), fill="white")
    image.save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"


def values(index=0, **fields):
    given = {"enabled": True, "module": "canny", "model": "edges", "weight": 0.8, "threshold_a": 90, "pixel_perfect": True, "image": None} | fields
    return {f"ControlNet.{index}.{name}": value for name, value in given.items()}


def test_widgets_become_units_and_come_back(picture, drawing):
    widgets = OFF | values(1, image=str(drawing)) | {"prompt": "a house"}
    packed = packed_units(widgets)
    assert widgets == {"prompt": "a house"}
    first, second = packed["ControlNet"]["args"]
    assert first == {"enabled": False} and second["image"].size == (64, 64) and not second["save_detected_map"]
    p = StableDiffusionProcessingImg2Img(init_images=[picture], alwayson_scripts=packed)
    again = spread_units(p)
    assert again["ControlNet.1.threshold_a"] == 90 and again["ControlNet.1.model"] == "edges" and not again["ControlNet.0.enabled"]
    assert "ControlNet.1.image" not in again and not again["ControlNet.2.enabled"]
    assert isinstance(payload(p)["alwayson_scripts"]["ControlNet"]["args"][1]["image"], str)


def test_units_that_are_off_leave_the_request_alone():
    assert packed_units(OFF | {"ControlNet.0.model": "edges"}) == {}


def test_a_unit_that_cannot_be_is_refused_by_its_number_on_the_page():
    with pytest.raises(InvalidRequest, match="^ControlNet, unit 1: weight must be a number between 0 and 2, got 9"):
        packed_units(values(weight=9))


def test_infotext_sets_the_widgets_and_switches_the_others_off():
    read, _ = told_units({"ControlNet 1": "Weight: 9", "ControlNet 0": "Module: canny, Model: edges [0123abcd], Weight: 0.8, Resize Mode: Just Resize, Threshold A: 50"})
    assert read["ControlNet.0.enabled"] and read["ControlNet.0.resize_mode"] == "Just Resize" and read["ControlNet.0.threshold_a"] == 50
    assert not read["ControlNet.1.enabled"] and told_units({}) == (OFF, [])
    read, notes = told_units({"ControlNet 1": "Module: canny", "ControlNet 2": "Weight: 9", "ControlNet 3": "Module: canny"})
    assert read["ControlNet.1.enabled"] and not read["ControlNet.0.enabled"]
    assert notes == ["ControlNet unit 2 was left out: weight must be a number between 0 and 2, got 9.",
                     "ControlNet: the page has 3 units; those after it were left out."]


def test_fields_without_a_widget_of_their_own_come_back_too(picture):
    unit = {"enabled": True, "model": "edges", "union_control_type": "Tile", "hr_option": "High res only", "inpaint_crop_input_image": False,
            "advanced_weighting": [0.5, 1.0], "mask": picture.convert("L"), "image": picture}
    p = StableDiffusionProcessingImg2Img(init_images=[picture], alwayson_scripts={"ControlNet": {"args": [unit]}})
    packed, = packed_units(spread_units(p))["ControlNet"]["args"]
    assert {name: packed[name] for name in unit.keys() - {"image", "mask"}} == {name: unit[name] for name in unit.keys() - {"image", "mask"}}
    assert units_left_out(p) == ["ControlNet unit 1: its mask has no place on the page, and was left out."]


def test_a_preprocessors_own_settings_are_shown():
    resolution, a, b = ranges("canny", False)
    assert resolution.visible and (a.label, a.minimum, a.maximum, b.label) == ("Low Threshold", 1, 255, "High Threshold")
    assert [slider.visible for slider in ranges("canny", True)] == [False, True, True]
    assert [slider.visible for slider in ranges("none", False)] == [False, False, False]
    assert [slider.visible for slider in ranges("tile_resample", False)] == [False, True, False]


def test_the_menu_says_which_network_is_missing_and_where_it_goes():
    labels = {name: label for label, name in module_choices(Annotators())}
    assert labels["canny"] == "canny" and labels["ip-adapter-auto"] == "ip-adapter-auto"
    assert labels["depth"].startswith("depth_midas (put the folder of DPT") and labels["depth"].endswith("into models/annotators)")


@pytest.fixture(scope="module")
def network(demo, server):
    """The server has a ControlNet for its model."""
    folder = server.outputs.parent / "models" / "ControlNet" / "edges"
    tiny_controls.controlnet(demo._unet).save_pretrained(folder, safe_serialization=True)


def pixels_at(page, name):
    picture = page.locator(f"#{name} img")
    picture.wait_for()
    return np.asarray(Image.open(io.BytesIO(urllib.request.urlopen(picture.get_attribute("src")).read())).convert("L"))


def paint(page, brush):
    """A stroke across the middle of the first unit's preview."""
    page.get_by_role("button", name=brush).first.click()
    preview = page.locator("#controlnet-preview-0 img")
    preview.scroll_into_view_if_needed()
    box = preview.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, y, steps=3)
    page.mouse.up()


def choose(page, name, text):
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=text, exact=True).first.click()
    settle(page)


def test_a_unit_shows_what_its_network_sees_and_guides_the_picture(page, network, picture_file, drawing):
    page.locator("#refresh-models").click()
    settle(page)
    put(page, "img2img-picture", picture_file)
    page.locator("#controlnet > button").click()
    page.locator("#controlnet-picture-0 input[type=file]").set_input_files(drawing)
    settle(page)
    choose(page, "controlnet-module-0", "canny")
    expect(page.get_by_label("number input for Low Threshold")).to_have_value("100")
    page.locator("#controlnet-look-0").click()
    preview = page.locator("#controlnet-preview-0 img")
    preview.wait_for()
    settle(page)
    shown = pixels_at(page, "controlnet-preview-0")
    # edges: thin and white, at the size of the result, which is the model's own
    assert set(np.unique(shown)) == {0, 255} and 0 < (shown > 0).mean() < 0.1
    choose(page, "controlnet-model-0", "edges")
    page.locator("#controlnet-enabled-0 input").check()
    generate(page, "img2img")
    told = parse(result(page).info["parameters"])
    assert told["ControlNet 0"].startswith("Module: canny, Model: edges, Weight: 1")
    paint(page, "Paint white")
    page.locator("#controlnet-use-0").click()
    settle(page)
    expect(page.locator("#controlnet-module-0 input")).to_have_value("none")
    sent = pixels_at(page, "controlnet-picture-0")
    height, width = sent.shape
    stripe = sent[height // 2, width // 4:width * 3 // 4]
    assert (stripe == 255).all() and sent.shape == shown.shape
    untouched = np.abs(np.arange(height) - height // 2) > height // 4
    assert (sent[untouched] == shown[untouched]).all()  # what is painted is what is sent, and nothing else
    page.reload()
    page.locator("#generate-img2img").wait_for()
    settle(page)
    page.locator("#controlnet > button").click()
    # its picture is not kept, so the unit is off, with its network still chosen
    expect(page.locator("#controlnet-enabled-0 input")).not_to_be_checked()
    expect(page.locator("#controlnet-model-0 input")).to_have_value("edges")
    open_tab(page, "History")
    page.locator("#history img").first.click()
    page.locator("#history-restore").click()
    settle(page)
    open_tab(page, "Make")
    expect(page.locator("#controlnet-enabled-0 input")).to_be_checked()
    expect(page.locator("#controlnet-module-0 input")).to_have_value("canny")
    assert (pixels_at(page, "controlnet-picture-0") == np.asarray(Image.open(drawing).convert("L"))).all()


def test_without_a_picture_there_is_a_sentence(page):
    page.locator("#controlnet > button").click()
    page.locator("#controlnet-look-0").click()
    expect(page.locator(".toast-body")).to_contain_text("Add a control picture first")
