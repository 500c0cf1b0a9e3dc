"""Units as requests name them, and their infotext."""

import pytest
from PIL import Image

from pipeline.controlnet.units import Unit, read_told, read_unit, read_units, told, union_kind
from pipeline.errors import InvalidRequest

PICTURE, MASK = Image.new("RGB", (8, 8)), Image.new("L", (8, 8))


def test_an_empty_unit_has_the_extensions_defaults():
    assert read_unit({}) == Unit(enabled=False, module="none", model="None", weight=1.0, resize_mode="Crop and Resize", processor_res=-1,
                                 threshold_a=-1, threshold_b=-1, guidance_start=0.0, guidance_end=1.0, pixel_perfect=False,
                                 control_mode="Balanced", inpaint_crop_input_image=True, save_detected_map=True)


@pytest.mark.parametrize("given, field, value", [
    ({"resize_mode": 0}, "resize_mode", "Just Resize"), ({"resize_mode": 2}, "resize_mode", "Resize and Fill"),
    ({"resize_mode": 3}, "resize_mode", "Just Resize"), ({"resize_mode": "Just Resize"}, "resize_mode", "Just Resize"),
    ({"resize_mode": "Scale to Fit (Inner Fit)"}, "resize_mode", "Crop and Resize"),
    ({"resize_mode": "Envelope (Outer Fit)"}, "resize_mode", "Resize and Fill"),
    ({"control_mode": 2}, "control_mode", "ControlNet is more important"),
    ({"control_mode": "My prompt is more important"}, "control_mode", "My prompt is more important"),
    ({"guidance": 0.5}, "guidance_end", 0.5), ({"weight": "1.5"}, "weight", 1.5), ({"module": None}, "module", "none"),
    ({"model": None}, "model", "None"), ({"unheard_of": 1, "lowvram": True}, "enabled", False),
    ({"input_image": PICTURE}, "image", PICTURE), ({"image": {"image": PICTURE, "mask": None}}, "image", PICTURE),
    ({"image": {"image": PICTURE, "mask": MASK}}, "mask", MASK), ({"image": [PICTURE, MASK]}, "mask", MASK),
    ({"image": PICTURE, "mask": MASK}, "mask", MASK), ({"image": PICTURE, "mask_image": MASK}, "mask", MASK),
    ({"image": [{"image": PICTURE, "mask": MASK}]}, "mask", MASK), ({"image": ""}, "image", None),
])
def test_values_and_aliases_are_read_as_the_extension_reads_them(given, field, value):
    assert getattr(read_unit(given), field) == value


@pytest.mark.parametrize("given, sentence", [
    ({"weight": 2.5}, "weight must be a number between 0 and 2, got 2.5"),
    ({"guidance_start": 0.8, "guidance_end": 0.2}, "guidance_start must not be above guidance_end, got 0.8 and 0.2"),
    ({"resize_mode": "Squash"}, "resize_mode must be one of Just Resize, Crop and Resize, Resize and Fill, or 0 to 2, got 'Squash'"),
    ({"control_mode": 3}, "control_mode must be one of"),
    ({"module": "depth_leres"}, 'module: no preprocessor called "depth_leres"'),
    ({"ipadapter_input": "gASVC"}, "ipadapter_input is a pickle"),
    ({"image": 3}, "image must be a picture in base64, got int"),
    ({"image": [PICTURE, PICTURE, PICTURE]}, "image: one picture per unit, got 3"),
    ({"mask": MASK}, "mask: it needs an image"), ({"enabled": "maybe"}, "enabled must be true or false, got 'maybe'"),
    ({"union_control_type": "Poses"}, "union_control_type must be one of OpenPose"),
])
def test_bad_values_are_refused_in_a_sentence_that_names_the_unit(given, sentence):
    with pytest.raises(InvalidRequest) as error:
        read_units([{}, given])
    assert str(error.value).startswith('alwayson_scripts of "ControlNet", unit 1: ') and sentence in str(error.value)


def test_arguments_that_are_no_units_are_skipped_and_too_many_refused():
    assert len(read_units([True, {"enabled": True}, None]).units) == 1
    with pytest.raises(InvalidRequest, match="at most 10 units, got 11"):
        read_units([{}] * 11)
    with pytest.raises(InvalidRequest, match="args must be a list of units"):
        read_units("canny")


def test_a_unit_that_does_not_say_whether_it_is_on_is_off_and_says_so():
    units = read_units([{"model": "canny"}, {"model": "canny", "enabled": False}])
    assert not units.enabled and units.notes == ('ControlNet unit 0 does not say "enabled": true, so it was left out.',)


def test_infotext_is_the_extensions_and_comes_back():
    unit = read_unit({"enabled": True, "module": "canny", "model": "control_v11p_sd15_canny [d14c016b]", "pixel_perfect": True, "threshold_b": 150})
    text = told(unit)
    assert text == ("Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, Resize Mode: Crop and Resize, Processor Res: 512, "
                    "Threshold A: 100, Threshold B: 150.0, Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced")
    (again,), unread = read_told({"ControlNet 0": text, "Steps": "20"})
    assert read_unit(again) == unit.settled()


def test_settings_that_a_preprocessor_lacks_are_recorded_as_the_extension_does():
    assert "Processor Res: 512, Threshold A: 0.5, Threshold B: 0.5" in told(read_unit({"module": "invert"}))


def test_a_name_with_a_separator_is_not_recorded_and_damaged_infotext_gives_nothing():
    assert told(read_unit({"model": "a, b"})) is None
    read, unread = read_told({"ControlNet 0": "Module: no such thing", "ControlNet 1": "nonsense", "ControlNet": "preprocessor: canny",
                              "ControlNet 3": "Weight: 0.5", "ControlNet 12": "Weight: 0.5"})
    assert read == [{}, {}, {}, {"weight": 0.5, "enabled": True}]
    assert [sentence.split(" was left out: ")[0] for sentence in unread] == ["ControlNet unit 0", "ControlNet unit 1", "ControlNet unit 12"]


@pytest.mark.parametrize("given, types, kind", [
    ({"module": "canny"}, 6, 3), ({"module": "scribble_xdog"}, 6, 2), ({"module": "tile_resample"}, 8, 6), ({"module": "inpaint"}, 8, 7),
    ({"union_control_type": "Depth"}, 6, 1), ({"module": "depth_anything"}, 6, 1), ({"module": "segmentation"}, 6, 5), ({"union_control_type": "OpenPose", "module": "canny"}, 6, 0)])
def test_a_union_is_told_what_it_gets(given, types, kind):
    assert union_kind(read_unit(given), types) == kind


@pytest.mark.parametrize("option, acts", [(None, (True, True)), ("Both", (True, True)), ("Low res only", (True, False)), ("High res only", (False, True)),
                                          (1, (True, False)), (2, (False, True))])
def test_a_unit_acts_in_the_passes_of_hires_fix_that_it_names(option, acts):
    unit = read_unit({"enabled": True, "hr_option": option})
    assert tuple(unit.acts(hires=True, second_pass=second) for second in (False, True)) == acts
    assert unit.acts(hires=False, second_pass=False)


@pytest.mark.parametrize("given, types", [({}, 6), ({"module": "tile_resample"}, 6), ({"union_control_type": "Tile"}, 6)])
def test_a_union_that_cannot_take_it_is_refused(given, types):
    with pytest.raises(InvalidRequest, match="union_control_type must be one of OpenPose, Depth, Soft Edge, Hard Edge, Normal Map, Segmentation for"):
        union_kind(read_unit(given), types)
