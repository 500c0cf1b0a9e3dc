"""ControlNet in a request: the map that a network sees, and what it changes. The demo model, with a tiny random network."""

import json
import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pipeline import scripts
from pipeline.controlnet.store import ControlNets
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families import control_networks
from pipeline.infotext import parse
from pipeline.models import Catalog
from pipeline.originals import digest
from pipeline.receipt import read_receipt
from pipeline.scripts.controlnet import ControlHooks, kept_over, prepare
from pipeline.controlnet.units import read_unit, read_units
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import request_again
from tests.conftest import DEMO_MODEL
from tests.families import tiny_controls


@pytest.fixture(scope="session")
def networks(demo, tmp_path_factory):
    """A models folder with a ControlNet for the demo model, and what loads from it."""
    folder = tmp_path_factory.mktemp("models") / "ControlNet"
    tiny_controls.controlnet(demo._unet).save_pretrained(folder / "edges", safe_serialization=True)
    for kind in ("plain", "plus"):
        tiny_controls.saved(tiny_controls.flat(tiny_controls.ip_adapter(demo._unet, kind)), folder / f"ip-adapter-{kind}.safetensors")
    tiny_controls.clip_vision().save_pretrained(folder.parent / "clip_vision" / "vit-h", safe_serialization=True)
    catalog = Catalog(folder.parent)
    return ControlNets(catalog.find_control_network, catalog.sha256, control_networks.load, encoders=control_networks.encoders(catalog.clip_vision))


@pytest.fixture(scope="module")
def drawing():
    image = Image.new("RGB", (64, 64))
    ImageDraw.Draw(image).line((8, 8, 56, 40), fill="white", width=3)
    return image


@pytest.fixture
def controlled(request_for, networks, drawing):
    """A function: (unit, fields) → the result of a request with that unit."""
    def make(unit=None, *, kind=None, **fields):
        units = [{"enabled": True, "model": "edges", "image": drawing} | one for one in (unit if isinstance(unit, list) else [unit or {}])]
        p = request_for(**{"alwayson_scripts": {"ControlNet": {"args": units}}} | fields)
        if kind is not None:
            p = kind(**p.arguments() | {"init_images": []})
        p.control_networks = networks
        return scripts.run(p)
    return make


@pytest.fixture
def begun(request_for):
    """A function: fields → a request as it is when sampling begins."""
    def make(**fields):
        p = request_for(mask_blur=0, **fields)
        p.all_seeds = [1]
        p.init(["x"], [1], [1])
        return p
    return make


def pixels(result, index=0):
    return np.asarray(result.images[index]).astype(int)


def test_a_unit_changes_the_picture_and_a_unit_that_is_off_or_weighs_nothing_does_not(controlled, request_for):
    plain = pixels(scripts.run(request_for()))
    assert (pixels(controlled()) != plain).any()
    assert (pixels(controlled({"enabled": False})) == plain).all()
    assert (pixels(controlled({"weight": 0.0})) == plain).all()


def test_units_without_an_enabled_one_leave_receipt_and_infotext_alone(controlled):
    result = controlled({"enabled": False})
    assert "ControlNet" not in result.info and len(result.images) == 1


def test_the_result_says_how_it_was_guided_and_what_it_depends_on(controlled, drawing):
    result = controlled({"module": "canny"})
    assert parse(result.info)["ControlNet 0"].startswith("Module: canny, Model: edges, Weight: 1.0, ")
    receipt = read_receipt(result.images[0])
    assert list(receipt.files["ControlNet"]) == ["edges"] and len(receipt.files["ControlNet"]["edges"]) == 64
    unit, = receipt.request["alwayson_scripts"]["ControlNet"]["args"]
    assert unit["image"] == {"picture": digest(drawing)} and json.dumps(receipt.request)


def test_the_second_unit_is_recorded_under_its_own_number(controlled):
    said = parse(controlled([{"enabled": False}, {"weight": 0.5}]).info)
    assert "ControlNet 0" not in said and "Weight: 0.5" in said["ControlNet 1"]


def test_the_map_comes_back_with_the_pictures_unless_it_is_not_wanted(controlled, drawing):
    result = controlled({"module": "invert"})
    assert len(result.images) == len(result.infotexts) == len(result.paths) == 2 and result.infotexts[1] == ""
    assert (pixels(result, 1) == 255 - np.asarray(drawing)).all()
    assert len(controlled({"module": "invert", "save_detected_map": False}).images) == 1


def test_a_map_made_before_gives_the_same_picture_as_making_it_in_the_request(controlled):
    whole = controlled({"module": "canny", "processor_res": 64})
    again = controlled({"module": "none", "image": whole.images[1]})
    assert (pixels(whole) == pixels(again)).all()


def test_without_a_picture_of_its_own_a_unit_takes_the_source_and_its_way_of_resizing(controlled, picture):
    result = controlled({"image": None}, resize_mode=0)
    assert (pixels(result, 1) == np.asarray(picture)).all()


def test_txt2img_is_guided_too_and_needs_a_picture(controlled):
    plain = controlled({"weight": 0.0}, kind=StableDiffusionProcessingTxt2Img)
    assert (pixels(controlled(kind=StableDiffusionProcessingTxt2Img)) != pixels(plain)).any()
    with pytest.raises(InvalidRequest, match="unit 0: image is missing: without a source picture"):
        controlled({"image": None}, kind=StableDiffusionProcessingTxt2Img)


def test_a_batch_is_guided_picture_by_picture_as_alone(controlled):
    both = controlled({"save_detected_map": False}, batch_size=2, do_not_save_grid=True)
    second = controlled({"save_detected_map": False}, seed=2)
    assert np.abs(pixels(both, 1) - pixels(second)).max() <= 1


def test_a_control_that_ends_at_once_acts_in_the_first_two_calls_only(controlled):
    never = controlled({"guidance_start": 0.99}, steps=4, denoising_strength=1.0)
    brief, whole = (controlled({"guidance_end": end}, steps=4, denoising_strength=1.0) for end in (0.0, 1.0))
    assert (pixels(brief) != pixels(never)).any() and (pixels(brief) != pixels(whole)).any()


@pytest.mark.parametrize("sampler", ["DDIM", "Heun", "UniPC"])
def test_every_kind_of_sampler_is_guided(sampler, controlled, request_for):
    plain = pixels(scripts.run(request_for(sampler_name=sampler, steps=6)))
    assert (pixels(controlled(sampler_name=sampler, steps=6)) != plain).any()


def test_and_and_prompt_editing_are_guided(controlled):
    prompt = "a forest AND a [red:blue:0.5] lake"
    assert (pixels(controlled(prompt=prompt)) != pixels(controlled({"weight": 0.0}, prompt=prompt))).any()


def test_a_script_runs_with_its_units(controlled):
    result = controlled(script_name="Prompt matrix", script_args=[False, False, "positive", "comma", 0], prompt="a forest|red", do_not_save_grid=True)
    assert all("ControlNet 0" in text for text in result.infotexts if text)


@pytest.mark.parametrize("model", ["ip-adapter-plain", "ip-adapter-plus"])
def test_an_ip_adapter_guides_by_a_picture_of_any_size(model, controlled, request_for, drawing):
    plain = pixels(scripts.run(request_for()))
    result = controlled({"model": model, "module": "CLIP-ViT-H (IPAdapter)", "image": drawing.resize((300, 90))})
    assert (pixels(result) != plain).any() and result.images[1].size == (224, 224)
    assert parse(result.info)["ControlNet 0"].startswith(f"Module: CLIP-ViT-H (IPAdapter), Model: {model}, Weight: 1.0, ")
    assert set(read_receipt(result.images[0]).files) >= {"ControlNet", "CLIP vision"}
    assert (pixels(controlled({"model": model, "weight": 0.0})) == plain).all()
    assert (pixels(scripts.run(request_for())) == plain).all()


def test_ip_adapters_and_a_controlnet_act_together_in_a_batch_and_an_inpainting(controlled, mask):
    units = [{"model": "ip-adapter-plain", "save_detected_map": False}, {"model": "ip-adapter-plus", "save_detected_map": False}, {"save_detected_map": False}]
    fields = {"mask": mask, "inpaint_full_res": True, "width": 32, "height": 32, "inpainting_fill": 1, "do_not_save_grid": True}
    both = controlled(units, batch_size=2, **fields)
    alone = [controlled(units, seed=seed, **fields) for seed in (1, 2)]
    assert all(np.abs(pixels(both, index) - pixels(one)).max() <= 1 for index, one in enumerate(alone))
    assert all((pixels(controlled(units[:2 - index] + units[3 - index:], **fields)) != pixels(alone[0])).any() for index in range(3))


def test_an_ip_adapter_acts_from_its_start_to_its_end(controlled):
    unit = {"model": "ip-adapter-plain", "save_detected_map": False}
    never = controlled(unit | {"guidance_start": 0.99}, steps=4, denoising_strength=1.0)
    brief, whole = (controlled(unit | {"guidance_end": end}, steps=4, denoising_strength=1.0) for end in (0.0, 1.0))
    assert (pixels(brief) != pixels(never)).any() and (pixels(brief) != pixels(whole)).any()


@pytest.mark.parametrize("unit, sentence", [
    ({"model": "ip-adapter-plain", "module": "canny"}, 'module: "canny" does not suit "ip-adapter-plain", which is an IP-Adapter; use "ip-adapter-auto"'),
    ({"module": "CLIP-ViT-H (IPAdapter)"}, 'module: "CLIP-ViT-H .IPAdapter." does not suit "edges", which is not an IP-Adapter'),
    ({"model": "ip-adapter-plain", "advanced_weighting": [1, 1]}, "advanced_weighting: IP-Adapters take one weight for all layers"),
])
def test_a_preprocessor_that_does_not_suit_the_network_is_refused(unit, sentence, controlled):
    with pytest.raises(InvalidRequest, match=f"unit 0: {sentence}"):
        controlled(unit)


def test_a_missing_encoder_is_named_with_its_place(controlled, networks, monkeypatch):
    monkeypatch.setattr(networks, "_encoders", control_networks.encoders(list))
    with pytest.raises(ModelError, match='"ip-adapter-plain" needs a CLIP vision model with features of 24 numbers, which is not there: put its file'):
        controlled({"model": "ip-adapter-plain"})


def test_a_preprocessor_whose_network_is_missing_is_refused_before_anything_is_computed(controlled):
    with pytest.raises(ModelError, match='preprocessor "depth_midas": put the folder of DPT'):
        controlled({"module": "depth"})


def test_both_passes_of_hires_fix_are_guided_at_their_own_size(controlled):
    fields = {"kind": partial(StableDiffusionProcessingTxt2Img, enable_hr=True, hr_scale=2.0, hr_second_pass_steps=8), "width": 32, "height": 32}
    result = controlled({"module": "invert"}, **fields)
    assert result.images[0].size == (64, 64) and result.images[1].size == (64, 64)
    second_only = controlled({"module": "invert", "guidance_start": 0.4}, **fields)  # the first pass has only calls at 0
    assert (pixels(result) != pixels(second_only)).any() and (pixels(controlled({"weight": 0.0}, **fields)) != pixels(second_only)).any()


def test_step_cache_and_edit_reuse_are_at_rest_and_say_so(controlled, mask):
    exact = controlled(steps=4)
    cached = controlled(steps=4, override_settings={"step_cache_interval": 3})
    assert (pixels(exact) == pixels(cached)).all() and "With ControlNet, step cache and edit reuse are at rest." in cached.comments
    assert not exact.comments
    settings = {"mask": mask, "inpaint_full_res": False, "inpainting_fill": 1}
    first = controlled(override_settings={"edit_reuse": True}, **settings)
    assert (pixels(first) == pixels(controlled(**settings))).all()


def test_only_masked_crops_the_control_picture_like_the_source(begun, mask, drawing):
    p = begun(mask=mask, inpaint_full_res=True, width=32, height=32)
    assert p.paste_to == (24, 24, 16, 16)
    control = prepare(read_unit({"image": drawing}), p, p.size).control
    expected = drawing.crop((24, 24, 40, 40)).resize((32, 32), Image.Resampling.LANCZOS)
    assert control.shape == (32, 32, 3) and np.abs(control.astype(int) - np.asarray(expected)).mean() < 40
    whole = prepare(read_unit({"image": drawing, "inpaint_crop_input_image": False}), p, p.size).control
    assert whole.shape == (32, 32, 3) and (whole != control).any()


def test_a_size_that_is_no_multiple_of_8_is_rounded_down_like_the_pictures(controlled):
    result = controlled(width=68, height=70)
    assert result.images[1].size == (64, 64)


def test_pixel_perfect_sees_the_picture_at_the_results_size(begun):
    p = begun()
    big = Image.effect_noise((256, 256), 80).convert("RGB")
    perfect = prepare(read_unit({"image": big, "module": "threshold", "pixel_perfect": True}), p, p.size).control
    coarse = prepare(read_unit({"image": big, "module": "threshold", "processor_res": 64}), p, p.size).control
    fine = prepare(read_unit({"image": big, "module": "threshold"}), p, p.size).control
    assert (perfect == coarse).all() and (perfect != fine).any()


def test_a_mask_on_a_picture_is_the_map_unless_the_preprocessor_takes_masks(begun, mask, drawing):
    p = begun()
    scribble = prepare(read_unit({"image": drawing, "mask": mask, "module": "canny"}), p, p.size)
    assert scribble.preprocessor.name == "none" and (scribble.control == np.asarray(mask)[..., None]).all()
    inpaint = prepare(read_unit({"image": drawing, "mask": mask, "module": "inpaint_only"}), p, p.size)
    assert (inpaint.control[..., 3] == np.asarray(mask)).all() and (inpaint.control[..., :3] == np.asarray(drawing)).all()
    blank = prepare(read_unit({"image": drawing, "mask": Image.new("L", (64, 64)), "module": "none"}), p, p.size)
    assert (blank.control == np.asarray(drawing)).all()
    with pytest.raises(InvalidRequest, match="mask: it must have the image's size, 64x64, got 8x8"):
        prepare(read_unit({"image": drawing, "mask": Image.new("L", (8, 8), 3)}), p, p.size)


def test_an_inpaint_units_mask_is_the_requests_where_it_has_none(begun, mask):
    p = begun(mask=mask, inpaint_full_res=False)
    prepared = prepare(read_unit({"module": "inpaint_only"}), p, p.size)
    assert prepared.preprocessor.name == "inpaint" and (prepared.control[..., 3] == np.asarray(mask)).all()


def test_inpaint_only_keeps_the_control_picture_where_its_mask_does_not_paint(controlled, mask, drawing):
    result = controlled({"module": "inpaint_only", "mask": mask}, kind=StableDiffusionProcessingTxt2Img)
    kept = pixels(result)
    assert (kept[:16] == np.asarray(drawing)[:16]).all() and (kept[28:36, 28:36] != np.asarray(drawing)[28:36, 28:36]).any()
    assert result.images[1].mode == "RGBA"


def test_what_is_kept_fades_over_seven_pixels_outside_the_mask():
    control = np.zeros((40, 40, 4), np.uint8)
    control[10:30, 10:30, 3] = 255
    alpha = np.asarray(kept_over(control).getchannel("A"))
    # spread by 3 to 7..32, then averaged over 7: clear from 10 to 29, opaque up to 3
    assert (alpha[20, 10:30] == 0).all() and (alpha[20, :4] == 255).all() and 0 < alpha[20, 6] < 255


def test_tile_colorfix_pulls_the_colours_towards_the_control_picture(controlled):
    red = Image.new("RGB", (64, 64), (255, 0, 0))
    plain, fixed = (pixels(controlled({"module": module, "image": red})) for module in ("none", "tile_colorfix"))
    distance = [np.abs(one.mean(axis=(0, 1)) - (255, 0, 0)).sum() for one in (plain, fixed)]
    assert distance[1] < distance[0]


@pytest.mark.parametrize("unit, sentence", [
    ({"model": "None"}, 'unit 0: choose a model; "None" guides nothing'),
    ({"model": "nothing like it"}, 'no ControlNet called "nothing like it"'),
    ({"model": ""}, "no ControlNet called"),
])
def test_a_unit_that_cannot_act_is_refused_with_its_own_sentence(unit, sentence, controlled):
    with pytest.raises(InvalidRequest, match=sentence):
        controlled(unit)


def test_the_refiner_and_other_families_say_what_they_do_not_do(demo):
    class Other(torch.nn.Module):
        name = "flux-edges"

    from pipeline.families.controls import Control, Controls
    with pytest.raises(InvalidRequest, match='"flux-edges" was made for another kind of checkpoint'):
        with demo.controlled(Controls([Control(Other(), torch.zeros(1, 3, 8, 8))])):
            pass


def test_a_request_with_units_can_be_sent_to_another_process(request_for, drawing):
    p = request_for(sd_model=None, alwayson_scripts={"ControlNet": {"args": [{"enabled": True, "image": drawing}]}})
    there = pickle.loads(pickle.dumps(p))
    assert read_units(there.alwayson_scripts["ControlNet"]["args"]).units[0].image.size == (64, 64)


def test_hooks_are_made_only_for_units_that_are_on():
    _, _, hooks = scripts.resolve(type("P", (), {"script_name": None, "alwayson_scripts": {"controlnet": {"args": [{"enabled": True}, {}]}}})())
    assert len(hooks) == 1 and isinstance(hooks[0], ControlHooks)


def test_a_picture_is_made_again_from_its_receipt_with_a_renamed_network(controlled, networks, demo, drawing, picture, tmp_path):
    made = controlled({"module": "canny", "weight": 0.8}).images[0]
    shutil.copytree(networks.find("edges").path, tmp_path / "ControlNet" / "renamed")
    catalog = Catalog(tmp_path, extra=[DEMO_MODEL])
    known = {digest(image): image for image in (drawing, picture)}
    p = request_again(read_receipt(made), catalog, known.get, thorough=True)
    assert p.alwayson_scripts["ControlNet"]["args"][0]["model"] == "renamed"
    p.sd_model, p.control_networks = demo, ControlNets(catalog.find_control_network, catalog.sha256, control_networks.load)
    assert scripts.run(p).images[0].tobytes() == made.tobytes()
