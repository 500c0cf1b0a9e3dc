"""The widgets' names, labels, ranges and defaults."""

import inspect
from dataclasses import fields
from types import SimpleNamespace

import pytest

from pipeline.errors import PalimpsestError
from pipeline.families.base import ModelInfo
from pipeline.img2img import request_of
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import SAMPLERS
from tests.conftest import ROOT
from ui.controls import Controls, advice, suited_values, takes_guidance, with_ratio, within_range
from ui.making import SUITED
from ui.stream import ONLY_OPTIONS
from ui.tabs import read_samples


def test_every_widget_fills_a_keyword_of_img2img_a_field_of_the_request_or_an_option():
    request = {f.name for f in fields(StableDiffusionProcessingImg2Img)} | {"mask_blur"}
    assert {f.name for f in fields(Controls)} <= request | {"scripts"} | set(inspect.signature(request_of).parameters) | ONLY_OPTIONS


def test_an_option_that_is_a_field_of_the_request_too_is_the_field():
    assert ONLY_OPTIONS <= {f.name for f in fields(Options)} and "s_churn" not in ONLY_OPTIONS


@pytest.mark.parametrize("family, said", [
    ("flux2-klein", "m is made for other settings than Stable Diffusion: Euler, schedule type Simple, 4 steps, CFG scale 1 for distilled ones."),
    ("flux1-fill", "m is made for other settings than Stable Diffusion: Euler, schedule type Simple, 30 steps, CFG scale 1, distilled CFG scale 30."),
    ("qwen-image", "m is made for other settings than Stable Diffusion: Euler, schedule type Simple, 20 steps, CFG scale 2.5."),
    ("sdxl", None), ("unknown", None)])
def test_settings_that_suit_a_family_are_told_where_they_are_unusual(family, said):
    assert advice(SimpleNamespace(describe=lambda options: ModelInfo("m", "m", family=family)), "m") == said


def test_defaults_keep_the_picture_s_proportions_in_steps_that_the_model_takes():
    klein = SimpleNamespace(describe=lambda options: ModelInfo("m", "m", family="flux2-klein"))
    values = suited_values(klein, "m", "Automatic", 1000, 500)
    assert values == {"sampler_name": "Euler", "scheduler": "Simple", "steps": 4, "cfg_scale": 1.0, "denoising_strength": 1.0, "width": 1456, "height": 720}
    assert values.keys() <= set(SUITED) <= {f.name for f in fields(Controls)}
    with pytest.raises(PalimpsestError):
        suited_values(SimpleNamespace(describe=lambda options: ModelInfo("m", "m", family="sd1")), "m", "Automatic", 512, 512)


@pytest.mark.parametrize("family, shown", [("flux1-dev", True), ("flux1-kontext", True), ("flux1-schnell", False), ("z-image", False), ("sd1", False)])
def test_distilled_guidance_is_shown_where_a_family_has_it(family, shown):
    assert takes_guidance(SimpleNamespace(describe=lambda options: ModelInfo("m", "m", family=family)), "m") is shown


def test_the_menus_list_the_models_and_send_a_name_that_stays_when_the_title_gets_its_hash(controls):
    assert controls.sd_model_checkpoint.value == "demo-model" and controls.sd_vae.choices == [("Automatic",) * 2, ("None",) * 2]
    assert [value for _, value in controls.sd_model_checkpoint.choices] == ["demo-model"]


@pytest.mark.parametrize("name, label, low, high, step, default", [
    ("mask_blur", "Mask blur", 0, 64, 1, 4),
    ("mask_alpha", "Mask transparency", 0, 100, 1, 0),
    ("distilled_cfg_scale", "Distilled CFG Scale", 0, 30, 0.1, 3.5),
    ("image_cfg_scale", "Image CFG Scale", 0, 3, 0.05, 1.5),
    ("refiner_switch_at", "Switch at", 0.01, 1, 0.01, 0.8),
    ("Soft Inpainting.preservation_strength", "Preservation strength", 0, 8, 0.05, 0.5),
    ("Loopback.loops", "Loops", 1, 32, 1, 4),
    ("inpaint_full_res_padding", "Only masked padding, pixels", 0, 256, 4, 32),
    ("steps", "Sampling steps", 1, 150, 1, 20),
    ("width", "Width", 64, 2048, 8, 512),
    ("height", "Height", 64, 2048, 8, 512),
    ("scale_by", "Scale", 0.05, 4, 0.05, 1),
    ("n_iter", "Batch count", 1, 100, 1, 1),
    ("batch_size", "Batch size", 1, 8, 1, 1),
    ("cfg_scale", "CFG Scale", 1, 30, 0.5, 7),
    ("denoising_strength", "Denoising strength", 0, 1, 0.01, 0.75),
    ("subseed_strength", "Variation strength", 0, 1, 0.01, 0),
    ("seed_resize_from_w", "Resize seed from width", 0, 2048, 8, 0),
    ("seed_resize_from_h", "Resize seed from height", 0, 2048, 8, 0),
])
def test_sliders_are_a1111s(controls, name, label, low, high, step, default):
    slider = controls.named()[name]
    assert (slider.label, slider.minimum, slider.maximum, slider.step, slider.value) == (label, low, high, step, default)


@pytest.mark.parametrize("name, choices, default", [
    ("resize_mode", ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"], 0),
    ("selected_scale_tab", ["Resize to", "Resize by"], 0),
    ("inpainting_mask_invert", ["Inpaint masked", "Inpaint not masked"], 0),
    ("inpainting_fill", ["fill", "original", "latent noise", "latent nothing"], 1),
    ("inpaint_full_res", ["Whole picture", "Only masked"], 0),
])
def test_radios_are_a1111s_and_give_their_index(controls, name, choices, default):
    radio = controls.named()[name]
    assert [label for label, _ in radio.choices] == choices and radio.type == "index" and radio.value == choices[default]


def test_the_menus_begin_with_a1111s_defaults(controls):
    assert (controls.sampler_name.value, controls.scheduler.value, controls.seed.value) == ("DPM++ 2M", "Automatic", "-1")
    assert [name for name, _ in controls.sampler_name.choices] == list(SAMPLERS)


@pytest.mark.parametrize("ratio, size, expected", [
    ((1, 1), (512, 512), (512, 512)), ((16, 9), (512, 512), (680, 384)), ((16, 9), (384, 680), (384, 680)),
    ((4, 3), (600, 800), (600, 800)), ((16, 9), (64, 64), (112, 64)), ((3, 2), (2048, 2048), (2048, 1368))])
def test_a_ratio_keeps_the_number_of_pixels_the_orientation_and_the_sliders_ranges(ratio, size, expected):
    assert with_ratio(ratio, *size) == expected


@pytest.mark.parametrize("size, expected", [
    ((4032, 3024), (2048, 1536)), ((3024, 4032), (1536, 2048)), ((512, 512), (512, 512)), ((6000, 1000), (2048, 344)),
    ((1001, 667), (1000, 664)), ((32, 16), (128, 64)), ((1, 777), (64, 776)), ((3000, 2), (2048, 64))])
def test_a_pictures_size_keeps_its_proportions_where_the_sliders_end(size, expected):
    assert within_range(*size) == expected


def test_every_sample_names_files_and_settings_that_are_there():
    samples = read_samples(ROOT / "assets" / "samples")
    assert samples
    for sample in samples:
        assert sample.picture.exists() and (sample.mask is None or sample.mask.exists())
        assert set(sample.settings) <= {f.name for f in fields(Controls)}
