"""Settings back in the widgets, from requests and from infotexts."""

import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.styles import StyleDatabase
from ui.restore import options_in, settings_in, settings_of, texts_of, updates
from ui.scripts import packed


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "VAE").mkdir()
    (tmp_path / "VAE" / "mine.safetensors").touch()
    return Catalog(tmp_path)


def pasted(controls, catalog, text: str, current=Options()) -> dict:
    values, _ = settings_in(text, controls, catalog, current, StyleDatabase())
    return values


@pytest.mark.parametrize("line, expected", [
    ("Sampler: DPM++ 2M Karras", {"steps": 7, "sampler_name": "DPM++ 2M", "scheduler": "Karras"}),
    ("Sampler: Euler a, Schedule type: Exponential", {"sampler_name": "Euler a", "scheduler": "Exponential"}),
    ("CFG scale: 3.5, Seed: 42, Size: 192x128", {"cfg_scale": 3.5, "seed": 42, "width": 192, "height": 128}),
    ("Denoising strength: 0.4, Mask blur: 9", {"denoising_strength": 0.4, "mask_blur": 9}),
    ("Mask mode: Inpaint not masked, Inpaint area: Only masked, Masked area padding: 12, Masked content: latent noise",
     {"inpainting_mask_invert": 1, "inpaint_full_res": 1, "inpaint_full_res_padding": 12, "inpainting_fill": 2}),
    ("Seed: 1", {"inpainting_mask_invert": 0, "inpaint_full_res": 0, "seed_enable_extras": False}),
    ("Variation seed: 5, Variation seed strength: 0.3",
     {"seed_enable_extras": True, "subseed": 5, "subseed_strength": 0.3}),
    ("Seed resize from: 512x256", {"seed_enable_extras": True, "seed_resize_from_w": 512, "seed_resize_from_h": 256}),
    ("Clip skip: 2, ENSD: 31337, VAE: mine", {"override_settings": ["Clip skip: 2", "ENSD: 31337"], "sd_vae": "mine.safetensors"}),
    ("Seed: 1234567890123456789, Variation seed: 18446744073709551615",
     {"seed": 1234567890123456789, "subseed": 18446744073709551615}),
    ("Steps: 200, CFG scale: 45, Size: 2560x1440, Mask blur: 100", {"steps": 200, "width": 2560, "height": 1440, "mask_blur": 100}),
    ("Clip skip: 1", {"override_settings": []}),
    ("Soft inpainting enabled: True, Soft inpainting schedule bias: 1.5, Image CFG scale: 1.2",
     {"Soft Inpainting.enabled": True, "Soft Inpainting.schedule_bias": 1.5, "image_cfg_scale": 1.2}),
    ("Distilled CFG Scale: 12.5", {"distilled_cfg_scale": 12.5}),
    ("Refiner switch at: 0.5", {"refiner_switch_at": 0.5, "refiner_checkpoint": "", "Soft Inpainting.enabled": False})])
def test_an_infotext_sets_the_widgets(controls, catalog, line, expected):
    values = pasted(controls, catalog, f"a boat\nNegative prompt: rain\nSteps: 7, CFG scale: 6, {line}")
    assert {name: values[name] for name in expected} == expected
    assert (values["prompt"], values["negative_prompt"]) == ("a boat", "rain")


def test_what_is_not_here_is_told_and_the_rest_is_taken(controls, catalog):
    values, notes = settings_in("a boat\nSteps: 7, Sampler: Dream, Model hash: 0123456789, Model: other", controls, catalog, Options(),
                                StyleDatabase())
    assert values["steps"] == 7 and "sampler_name" not in values and "sd_model_checkpoint" not in values
    assert "Dream" in notes[0] and "other [0123456789] was not found" in notes[1]


@pytest.mark.parametrize("said, told", [
    ("VAE: vae-ft-mse-840000-ema-pruned.safetensors", "The VAE vae-ft-mse-840000-ema-pruned.safetensors was not found"),
    ("VAE: default", "The VAE default was not found"),
    ("Refiner: xl-refiner [0123456789]", "The refiner xl-refiner [0123456789] was not found"),
    ("Model: other", "The checkpoint other was not found"), ("Model hash: 0123456789", "The checkpoint [0123456789] was not found"),
    ("Emphasis: Loud", 'emphasis: no value called "Loud"'),
    ("Clip skip: 900", "CLIP_stop_at_last_layers must be"),
    ("RNG: Dice", 'randn_source: no value called "Dice"'),
    ("Schedule type: Zigzag, Sampler: Euler", 'scheduler: no schedule type called "Zigzag"'),
    ("Masked content: glitter", 'Masked content: "glitter" cannot be used'),
    ("Denoising strength: strong", 'Denoising strength: "strong" cannot be used')])
def test_what_is_not_here_stays_as_it_was_whatever_it_is(controls, catalog, said, told):
    values, notes = settings_in(f"a boat\nSteps: 7, CFG scale: 6, Seed: 5, {said}", controls, catalog, Options(), StyleDatabase())
    assert len(notes) == 1 and told in notes[0] and " stays" in notes[0]
    assert values["seed"] == 5 and values["override_settings"] == [] and not values.get("refiner_checkpoint")
    assert not {"sd_vae", "scheduler", "inpainting_fill", "denoising_strength"} & (values.keys() - {"inpainting_fill"}) \
        and values.get("inpainting_fill", 1) == 1
    p = StableDiffusionProcessingImg2Img(init_images=[Image.new("RGB", (8, 8))], steps=values["steps"], seed=values["seed"],
                                         override_settings=options_in(values["override_settings"], Options()))
    assert p.steps == 7


@pytest.mark.parametrize("line", ["Steps: many", "Steps: nan", "Steps: 1e999", "Steps: 7, Inpaint area: nowhere"])
def test_what_cannot_be_read_is_left_as_it_is(controls, catalog, line):
    values = pasted(controls, catalog, f"a boat\n{line}, Size: 64x64, CFG scale: 6")
    assert "steps" not in values or values["steps"] == 7
    assert "inpaint_full_res" not in values or values["inpaint_full_res"] == 0


def test_a_request_comes_back_whole(controls, catalog):
    p = StableDiffusionProcessingImg2Img(
        init_images=[Image.new("RGB", (8, 8))], prompt="a boat", steps=9, sampler_name="Euler", scheduler="Karras", mask_blur=7,
        inpainting_fill=2, inpaint_full_res=False, seed=-1, override_settings={"CLIP_stop_at_last_layers": 2, "sd_vae": "None"})
    values, notes = settings_of(p, controls, Options(), catalog, seed=5)
    assert not notes
    expected = {"prompt": "a boat", "steps": 9, "sampler_name": "Euler", "scheduler": "Karras", "mask_blur": 7, "inpainting_fill": 2,
                "inpaint_full_res": False, "seed": 5, "sd_vae": "None", "override_settings": ["Clip skip: 2"], "selected_scale_tab": 0}
    assert {name: values[name] for name in expected} == expected
    shown, left_out = updates(controls, values)
    assert not left_out
    assert shown[controls.inpainting_fill] == "latent noise" and shown[controls.inpaint_full_res] == "Whole picture"


def test_a_requests_scripts_come_back_whole(controls, catalog):
    p = StableDiffusionProcessingImg2Img(
        init_images=[Image.new("RGB", (8, 8))], script_name="outpainting mk2", script_args=["", 64, 8, ["left"], 1.0, 0.05],
        alwayson_scripts={"soft inpainting": {"args": [True, 2]}})
    values, _ = settings_of(p, controls, Options(), catalog)
    assert values["script_name"] == "Outpainting mk2" and values["Outpainting mk2.directions"] == ["left"]
    assert (values["Soft Inpainting.enabled"], values["Soft Inpainting.schedule_bias"]) == (True, 2)
    again = packed(values)
    assert again["script_name"] == "Outpainting mk2" and again["script_args"][1:] == [64, 8, ["left"], 1.0, 0.05]
    assert again["alwayson_scripts"] == {"Soft Inpainting": {"args": [True, 2, 0.5, 4, 0, 0.5, 2]}}
    assert not any("." in name for name in again)


def test_a_request_whose_files_are_gone_comes_back_with_those_that_are_chosen_now(controls, catalog):
    p = StableDiffusionProcessingImg2Img(
        init_images=[Image.new("RGB", (8, 8))], styles=["oil", "gone"], refiner_checkpoint="xl-refiner",
        override_settings={"sd_vae": "gone.safetensors", "sd_model_checkpoint": "gone"})
    values, notes = settings_of(p, controls, Options(), catalog)
    assert not {"sd_vae", "sd_model_checkpoint", "refiner_checkpoint"} & values.keys() and len(notes) == 3
    shown, left_out = updates(controls, values, {"styles": [("oil", "oil")]})
    assert shown[controls.styles]["value"] == ["oil"] and left_out == ['Styles: "gone" is not available; the current choice stays.']
    assert controls.sd_vae not in shown


def test_a_menu_takes_a_file_that_came_after_the_page_was_built(controls):
    shown, left_out = updates(controls, {"sd_vae": "new.safetensors"}, {"sd_vae": [("new.safetensors", "new.safetensors")]})
    assert not left_out and shown[controls.sd_vae]["value"] == "new.safetensors"
    assert updates(controls, {"sd_vae": "new.safetensors"}) == (
        {}, ['SD VAE: "new.safetensors" is not available; the current choice stays.'])


def test_styles_are_taken_out_of_a_pasted_prompt(controls, catalog, tmp_path):
    styles = StyleDatabase(tmp_path / "styles.csv")
    styles.put("oil", "oil painting of {prompt}", "photo")
    values, _ = settings_in("oil painting of a boat\nNegative prompt: rain, photo\nSteps: 7, CFG scale: 6, Seed: 1", controls, catalog,
                            Options(), styles)
    assert (values["styles"], values["prompt"], values["negative_prompt"]) == (["oil"], "a boat", "rain")


def test_override_settings_are_read_as_they_are_written():
    options = {"CLIP_stop_at_last_layers": 2, "tiling": True, "eta_ancestral": 0.5, "img2img_background_color": "#ff0000"}
    assert options_in(texts_of(options), Options()) == options


@pytest.mark.parametrize("text", ["Clip skip", "Nobody: 3", ""])
def test_what_names_no_option_is_refused(text):
    with pytest.raises(InvalidRequest, match="override_settings"):
        options_in([text], Options())
