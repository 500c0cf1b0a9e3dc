"""An option is described once: what page, infotext and requests make of that description, there and back."""

from contextlib import nullcontext
from copy import copy
from dataclasses import asdict, replace

import pytest

from pipeline import families
from pipeline.engine import local_engine
from pipeline.families.base import Calls
from pipeline.fonts import FONT
from pipeline.infotext import DEFAULTS, apply_backcompat, parse
from pipeline.options import BY_INFOTEXT, SPECS, Options
from pipeline.pasting import FIELDS, pasted_options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.record import FILES, OF_LEGENDS, asked, essence, to_record
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from tests.families import tiny, toy
from ui.restore import options_in, texts_of

LONG = "a boat, " * 40
KARRAS, BETA, EULER_A = {"scheduler": "Karras"}, {"scheduler": "Beta"}, {"sampler_name": "Euler a"}
HIRES = {"init_images": None, "enable_hr": True, "hr_scale": 1.0}
TOLD = {  # a value, and the request in which it acts
    "sd_vae": ("mine.safetensors", {}),
    "sd_text_encoders": ("clip.safetensors, t5.safetensors", {}),
    "sd_model_kind": ("Edits by instruction", {}),
    "strength_as_noise": (True, {}),
    "flow_shift": (2.5, {}),
    "source_as_reference": (False, {}),
    "edit_freely": (True, {}),
    "fit_colors": (True, {}),
    "CLIP_stop_at_last_layers": (2, {}),
    "emphasis": ("No norm", {"prompt": "a (red:1.2) boat"}),
    "use_old_scheduling": (True, {"prompt": "a [red:green:1.5] boat"}),
    "randn_source": ("NV", {}),
    "eta_noise_seed_delta": (31337, EULER_A),
    "initial_noise_multiplier": (1.1, {}),
    "img2img_extra_noise": (0.1, {}),
    "inpainting_mask_weight": (0.5, {}),
    "tiling": (True, {}),
    "sd_vae_encode_method": ("Approx NN", {}),
    "sd_vae_decode_method": ("Approx cheap", {}),
    "eta_ancestral": (0.5, EULER_A),
    "eta_ddim": (0.5, {"sampler_name": "DDIM"}),
    "s_churn": (3.0, {}),
    "s_tmin": (0.1, {}),
    "s_tmax": (5.0, {}),
    "s_noise": (0.9, {}),
    "sigma_min": (0.1, KARRAS),
    "sigma_max": (10.0, KARRAS),
    "rho": (5.0, KARRAS),
    "beta_dist_alpha": (0.5, BETA),
    "beta_dist_beta": (0.5, BETA),
    "always_discard_next_to_last_sigma": (True, {}),
    "sd_noise_schedule": ("Zero Terminal SNR", {}),
    "use_downcasted_alpha_bar": (True, {}),
    "sgm_noise_multiplier": (True, {"init_images": None}),
    "refiner_switch_by_sample_steps": (True, {}),
    "s_min_uncond": (5.0, {}),
    "s_min_uncond_all": (True, {"s_min_uncond": 5.0}),
    "skip_early_cond": (0.5, {}),
    "pad_cond_uncond": (True, {"prompt": LONG}),
    "pad_cond_uncond_v0": (True, {"prompt": LONG}),
    "token_merging_ratio": (0.5, {}),
    "token_merging_ratio_hr": (0.5, HIRES),
    "hires_fix_refiner_pass": ("both passes", HIRES | {"refiner_checkpoint": "demo-model"}),
    "step_cache_interval": (3, {}),
    "step_cache_threshold": (1.0, {"steps": 12}),
    "guidance_start": (0.5, {}),
    "guidance_stop": (0.5, {}),
    "compile_networks": (True, {}),
    "edit_reuse": (True, {"width": 128, "height": 128, "inpaint_full_res": False, "inpainting_fill": 1}),
}
EXAMPLES = {"sd_model_checkpoint": "demo-model", "sd_vae": "mine.safetensors", "sd_text_encoders": "qwen.safetensors", "sd_lora": "ink", "upscaler_for_img2img": "Nearest",
            "font": str(FONT)}
"""Values of options that take any name."""


def another_value(spec):
    """A value that is not the default."""
    if isinstance(spec.default, bool):
        return not spec.default
    if spec.choices:
        return spec.choices[-1] if spec.default == spec.choices[0] else spec.choices[0]
    if isinstance(spec.default, int | float):
        return type(spec.default)(next(value for value in (spec.high, spec.low, 7) if value not in (None, spec.default)))
    return EXAMPLES.get(spec.name, "#123456")


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    """A tiny checkpoint for inpainting, which alone knows the weight of the conditioning mask."""
    folder, _ = tiny.make("sd1-inpainting", tmp_path_factory.mktemp("inpainting"))
    return families.load(folder, families.placement.choose("cpu", "float32"))


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A flow model, which alone has a shift."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.FAMILIES, "toy", toy.ROW)
        return families.load(toy.make(tmp_path_factory.mktemp("toy"))[0], families.placement.choose("cpu", "float32"))


@pytest.fixture
def told_by(demo, engine_of, inpainting, flow, picture, mask):
    """The infotext of a picture that is made with an option at some value."""
    def told_by(name, value, fields):
        model = inpainting if name == "inpainting_mask_weight" else flow if name in ("flow_shift", "strength_as_noise") else demo
        if name == "sd_vae":
            model = copy(demo)
            model.info = replace(demo.info, vae=value)
        if name in ("source_as_reference", "edit_freely"):
            model = copy(demo)
            model.sees = "reference"
            model.image_conditioning = lambda pixels, latent, mask, mask_weight: latent[:, :0]
        if name == "compile_networks":
            model = copy(demo)
            model.compiled = lambda wanted: nullcontext(Calls(compiled=int(wanted)))
        if name == "sd_model_kind":
            model = copy(demo)
            model.info = replace(demo.info, may_edit=True)
        if name == "sd_text_encoders":
            model = copy(demo)
            model.info = replace(demo.info, text_encoders=tuple((file, "0" * 64) for file in value.split(", ")))
        request = {"prompt": "a boat", "negative_prompt": "rain", "width": 64, "height": 64, "steps": 4, "seed": 1,
                   "sampler_name": "Euler", "init_images": [picture], "override_settings": {name: value}} | fields
        kind = StableDiffusionProcessingImg2Img
        if request["init_images"] is None:
            kind, request = StableDiffusionProcessingTxt2Img, {key: given for key, given in request.items() if key != "init_images"}
        if name in ("edit_reuse", "inpainting_mask_weight", "edit_freely", "fit_colors"):
            request["mask"] = mask
        engine = engine_of(model)
        for _ in range(1 + (name == "edit_reuse")):  # the second edit is what takes over from the first
            text = engine.submit([kind(**request)]).result()[0].infotexts[0]
        return text
    return told_by


@pytest.fixture
def engine_of():
    """An engine that has one model for every request."""
    engines = []

    def engine_of(model):
        engines.append(local_engine(lambda options: model))
        return engines[-1]
    yield engine_of
    for engine in engines:
        engine.close()


# infotext

@pytest.mark.parametrize("name", [spec.name for spec in SPECS.values() if spec.infotext])
def test_what_infotext_says_of_an_option_is_read_back(told_by, name):
    value, fields = TOLD[name]
    params = apply_backcompat(parse(told_by(name, value, fields)))
    options, notes = pasted_options(params, asdict(Options()), lambda *asked: None)
    assert options.get(name) == value and type(options[name]) is type(value)
    assert notes == []


@pytest.mark.parametrize("label", [label for spec in SPECS.values() for label in spec.names_in_infotext])
def test_an_option_is_read_by_each_of_its_names(label):
    spec = BY_INFOTEXT[label]
    value = another_value(spec)
    options, notes = pasted_options({label: str(value)}, asdict(Options()), lambda *asked: None)
    assert options == {spec.name: value} and notes == []


@pytest.mark.parametrize("name", SPECS)
def test_an_option_comes_back_from_the_box_override_settings(name):
    value = another_value(SPECS[name])
    assert Options().override(options_in(texts_of({name: value}), Options())) == Options().override({name: value}) != Options()


def test_infotext_has_each_name_once():
    labels = [label for spec in SPECS.values() for label in spec.names_in_infotext]
    assert len(labels) == len(set(labels)) and not set(labels) & set(FIELDS)


def test_what_an_infotext_means_that_does_not_name_an_option_is_the_options_default():
    options, notes = pasted_options(DEFAULTS, asdict(Options()), lambda *asked: None)
    assert options == {} and notes == []
    assert {spec.infotext for spec in SPECS.values() if spec.if_absent is not None} < set(DEFAULTS)


# the description

@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_an_option_has_words_for_its_label_and_a_sentence(spec):
    assert spec.label and "_" not in spec.label and spec.label[0].isupper()
    assert spec.sentence[0].isupper() and spec.sentence.endswith(".") and spec.group


def test_no_two_options_go_by_one_label():
    labels = [(spec.group, spec.label) for spec in SPECS.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if spec.aliases], ids=lambda spec: spec.name)
def test_a_value_of_a1111s_stands_for_one_of_ours(spec):
    for alias, choice in spec.aliases.items():
        assert getattr(Options().override({spec.name: alias}), spec.name) == choice in spec.choices


@pytest.mark.parametrize("name", SPECS)
def test_receipts_leave_out_what_a_picture_does_not_depend_on(picture, name):
    p, usual = (StableDiffusionProcessingImg2Img(init_images=[picture], override_settings=settings)
                for settings in ({name: another_value(SPECS[name])}, {}))
    named = name not in FILES | OF_LEGENDS
    assert (asked(p) != asked(usual)) == (SPECS[name].in_picture and named)
    parts = [essence(to_record(request, request.digests.of)) for request in (p, usual)]
    assert (parts[0] != parts[1]) == SPECS[name].in_picture
