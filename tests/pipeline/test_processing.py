"""The seeds' contracts: fields, what init() sets, what sample() returns, what process_images() gives."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import InvalidRequest, UnknownName
from pipeline.hooks import HookList, Hooks
from pipeline.infotext import parse
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img, create_binary_mask, process_images
from pipeline.progress import Progress
from pipeline.record import to_record
from pipeline.rng import ImageRNG


def request(demo, picture, **fields):
    """A small request: 64x64, 4 steps, seed 1."""
    settings = {"sd_model": demo, "init_images": [picture], "width": 64, "height": 64, "steps": 4, "seed": 1,
                "sampler_name": "Euler", "prompt": "a forest"} | fields
    return StableDiffusionProcessingImg2Img(**settings)


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def initialised(p):
    with torch.inference_mode():
        p.init(["a forest"] * p.batch_size, list(range(1, 1 + p.batch_size)), [0] * p.batch_size)
    return p


# --- the request


def test_defaults_are_those_of_a_bare_api_call(picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture])
    assert (p.steps, p.cfg_scale, p.width, p.height, p.denoising_strength) == (50, 7.0, 512, 512, 0.75)
    assert (p.resize_mode, p.inpainting_fill, p.inpaint_full_res, p.inpaint_full_res_padding) == (0, 0, True, 0)
    assert (p.mask_blur_x, p.mask_blur_y, p.mask_blur, p.mask_round, p.inpainting_mask_invert) == (4, 4, 4, True, 0)
    assert (p.seed, p.subseed, p.subseed_strength, p.initial_noise_multiplier) == (-1, -1, 0.0, 1.0)


def test_the_mask_moves_to_image_mask(picture, mask):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask)
    assert p.image_mask is mask and p.mask is None


def test_mask_blur_sets_both_axes_and_reads_as_none_when_they_differ(picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], mask_blur=9)
    assert (p.mask_blur_x, p.mask_blur_y, p.mask_blur) == (9, 9, 9)
    p.mask_blur_y = 2
    assert p.mask_blur is None


def test_initial_noise_multiplier_comes_from_the_options_where_the_request_is_silent(picture):
    options = Options(initial_noise_multiplier=0.9)
    assert StableDiffusionProcessingImg2Img(init_images=[picture], options=options).initial_noise_multiplier == 0.9
    p = StableDiffusionProcessingImg2Img(init_images=[picture], options=options, initial_noise_multiplier=1.1)
    assert p.initial_noise_multiplier == 1.1


def test_override_settings_make_new_options_and_leave_the_given_ones(picture):
    options = Options()
    p = StableDiffusionProcessingImg2Img(init_images=[picture], options=options, override_settings={"emphasis": "No norm"})
    assert p.options.emphasis == "No norm" and options.emphasis == "Original"


def test_an_unbound_request_can_be_pickled_and_keeps_its_mask(picture, mask):
    p = pickle.loads(pickle.dumps(StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask, prompt="a house")))
    assert p.prompt == "a house" and p.image_mask.tobytes() == mask.tobytes()


def test_a_pickled_request_is_the_same_one(picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], options=Options(emphasis="None"), width=60,
                                         override_settings={"emphasis": "No norm"}, seed_enable_extras=False, subseed=3)
    again = pickle.loads(pickle.dumps(p))
    assert (again.comments, again.standing, again.options) == (p.comments, p.standing, p.options)
    assert to_record(again, lambda image: "") == to_record(p, lambda image: "")


def test_a_request_that_brings_its_model_cannot_be_pickled(picture, demo):
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(StableDiffusionProcessingImg2Img(demo, init_images=[picture]))


@pytest.mark.parametrize("field, value, sentence", [
    ("denoising_strength", 1.3, "denoising_strength must be a number between 0 and 1, got 1.3"),
    ("denoising_strength", float("nan"), "denoising_strength must be a number between 0 and 1, got nan"),
    ("denoising_strength", None, "denoising_strength must be a number between 0 and 1, got None"),
    ("steps", 0, "steps must be a whole number between 1 and 1000, got 0"),
    ("steps", 2.5, "steps must be a whole number between 1 and 1000, got 2.5"),
    ("steps", True, "steps must be a whole number between 1 and 1000, got True"),
    ("width", -8, "width must be a whole number between 8 and 8192, got -8"),
    ("height", "tall", "height must be a whole number between 8 and 8192, got 'tall'"),
    ("batch_size", 10**6, "batch_size must be a whole number between 1 and 64, got 1000000"),
    ("cfg_scale", float("inf"), "cfg_scale must be a number between -100 and 1000, got inf"),
    ("seed", 2**70, f"seed must be a whole number between {-2**63} and {2**64 - 1}, got {2**70}"),
    ("inpainting_fill", 9, "inpainting_fill must be a whole number between 0 and 3, got 9"),
    ("mask_blur_x", -1, "mask_blur_x must be a whole number between 0 and 256, got -1"),
    ("prompt", None, "prompt must be text, got None"),
    ("prompt", "\ud800", "prompt contains a lone surrogate (half a character), which cannot be stored"),
])
def test_a_wrong_value_is_named_with_what_came_and_what_is_valid(picture, field, value, sentence):
    with pytest.raises(InvalidRequest) as error:
        StableDiffusionProcessingImg2Img(init_images=[picture], **{field: value})
    assert str(error.value) == sentence and error.value.field == field


def test_an_unknown_sampler_is_answered_with_the_nearest_name(picture):
    with pytest.raises(UnknownName, match='no sampler called "Euler b"; did you mean "Euler a"'):
        StableDiffusionProcessingImg2Img(init_images=[picture], sampler_name="Euler b")


@pytest.mark.parametrize("images", [[], [None], ["picture.png"]])
def test_no_picture_is_refused(images):
    with pytest.raises(InvalidRequest, match="init_images: no picture is given"):
        StableDiffusionProcessingImg2Img(init_images=images)


@pytest.mark.parametrize("seed", [None, ""])
def test_an_empty_seed_is_a_random_one(picture, seed):
    assert StableDiffusionProcessingImg2Img(init_images=[picture], seed=seed).seed == -1


def test_create_binary_mask_is_found_where_the_seed_imports_it_from():
    transparent = Image.new("RGBA", (4, 4), (255, 255, 255, 0))
    assert create_binary_mask(transparent).getextrema() == (0, 0)


# --- init()


def test_init_without_a_mask_sets_the_latent_and_blank_conditioning(demo, picture):
    p = initialised(request(demo, picture, batch_size=2))
    assert p.init_latent.shape == (2, 4, 8, 8) and p.init_latent.dtype == torch.float32
    assert p.image_conditioning.shape[:2] == (2, 0)
    assert p.mask is None and p.nmask is None and p.overlay_images == [] and p.paste_to is None


def test_init_with_a_mask_sets_the_two_latent_masks_and_the_overlay(demo, picture, mask):
    p = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, batch_size=2))
    assert p.nmask.shape == p.mask.shape == (4, 8, 8)
    assert torch.equal(p.mask + p.nmask, torch.ones(4, 8, 8)) and set(p.nmask.unique().tolist()) == {0, 1}
    assert [overlay.mode for overlay in p.overlay_images] == ["RGBA", "RGBA"]
    assert p.mask_for_overlay.size == (64, 64) and p.paste_to is None


def test_init_for_only_masked_says_where_the_crop_belongs(demo, picture, mask):
    p = initialised(request(demo, picture, mask=mask, mask_blur=0, inpaint_full_res_padding=4))
    assert p.paste_to == (20, 20, 24, 24)
    assert p.extra_generation_params["Inpaint area"] == "Only masked"


def test_a_blank_mask_falls_back_to_the_whole_picture_and_says_so(demo, picture):
    p = initialised(request(demo, picture, mask=Image.new("L", (64, 64))))
    assert p.mask is None and p.overlay_images == [] and "blank" in p.comments[0]


def test_init_may_run_twice_with_the_same_outcome(demo, picture, mask):
    p = initialised(request(demo, picture, mask=mask, inpainting_fill=2))
    first = p.init_latent.clone()
    assert torch.equal(initialised(p).init_latent, first) and len(p.overlay_images) == 1


def test_latent_noise_fill_is_each_seeds_first_noise(demo, picture, mask):
    plain = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, inpainting_fill=0))
    noisy = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, inpainting_fill=2))
    noise = ImageRNG((4, 8, 8), [1]).first()
    assert torch.equal(noisy.init_latent, plain.init_latent * plain.mask + noise * plain.nmask)


def test_latent_nothing_fill_is_zero_inside_the_mask(demo, picture, mask):
    p = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, inpainting_fill=3))
    assert not (p.init_latent * p.nmask).any() and (p.init_latent * p.mask).any()


def test_fill_replaces_the_masked_pixels_before_encoding(demo, picture, mask):
    original = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, inpainting_fill=1))
    filled = initialised(request(demo, picture, mask=mask, inpaint_full_res=False, inpainting_fill=0))
    assert not torch.equal(original.init_latent, filled.init_latent)


def test_latent_upscale_encodes_first_and_resizes_the_latent(demo, picture):
    p = initialised(request(demo, picture, resize_mode=3, width=128, height=96))
    assert p.init_latent.shape == (1, 4, 12, 16)


def test_several_pictures_make_the_batch_as_large_as_they_are_many(demo, picture):
    p = initialised(request(demo, picture, init_images=[picture, picture.rotate(90)], batch_size=3))
    assert p.init_latent.shape[0] == 2 and p.batch_size == 3


def test_more_pictures_than_the_batch_holds_are_refused(picture):
    with pytest.raises(InvalidRequest, match="2 pictures given for a batch_size of 1"):
        StableDiffusionProcessingImg2Img(init_images=[picture, picture])


def test_color_correction_keeps_a_target_per_picture(demo, picture):
    p = initialised(request(demo, picture, override_settings={"img2img_color_correction": True}, batch_size=2))
    assert len(p.color_corrections) == 2 and p.color_corrections[0].shape == (64, 64, 3)


# --- sample()


def test_sample_keeps_the_init_latent_exactly_where_the_mask_preserves(demo, picture, mask):
    p = request(demo, picture, mask=mask, inpaint_full_res=False)
    process_images(p)
    p.rng = ImageRNG((4, 8, 8), [1])
    with torch.inference_mode():
        samples = p.sample(p.encoder.positive(["a"]), p.encoder.negative([""]), [1], [0], 0.0, ["a"])
    assert samples.shape == (1, 4, 8, 8)
    assert torch.equal(samples * p.mask, p.init_latent * p.mask)
    assert not torch.equal(samples * p.nmask, p.init_latent * p.nmask)


class Recorder(Hooks):
    """Remembers what it was called with; `blended` replaces every final blend."""

    def __init__(self):
        self.before, self.blends = [], []

    def process_before_every_sampling(self, p, *, x, noise, c, uc):
        self.before.append((x.shape, noise.shape, len(c), len(uc)))

    def on_mask_blend(self, p, mba):
        self.blends.append((mba.is_final_blend, mba.sigma))
        if mba.is_final_blend:
            mba.blended_latent = mba.init_latent


def test_hooks_see_every_sampling_and_every_blend_and_may_override(demo, picture, mask):
    p, recorder = request(demo, picture, mask=mask, inpaint_full_res=False, n_iter=2), Recorder()
    p.scripts = HookList([recorder])
    result = process_images(p)
    assert recorder.before == [((1, 4, 8, 8), (1, 4, 8, 8), 1, 1)] * 2
    assert [final for final, _ in recorder.blends] == ([False] * 4 + [True]) * 2  # t_enc 3: 4 model calls
    assert all((sigma is None) == final for final, sigma in recorder.blends)
    untouched = request(demo, picture, mask=mask, inpaint_full_res=False, override_settings={"overlay_inpaint": False})
    untouched.scripts = HookList([Recorder()])
    replaced = process_images(untouched).images[0]
    with torch.inference_mode():
        from pipeline.images import to_image
        assert replaced.tobytes() == to_image(demo.decode(untouched.init_latent)[0]).tobytes()
    assert len(result.images) == 3


# --- process_images()


def test_the_same_request_gives_the_same_pixels(demo, picture):
    first, second = (process_images(request(demo, picture)).images[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ SDE", "LCM", "DDIM", "UniPC"])  # one of each kind
def test_every_sampler_makes_a_picture_that_depends_on_seed_and_prompt(demo, picture, sampler):
    one, other_seed, other_prompt = (
        process_images(request(demo, picture, sampler_name=sampler, **change)).images[0].tobytes()
        for change in ({}, {"seed": 2}, {"prompt": "a desert at night"}))
    assert one != other_seed and one != other_prompt


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE"])
def test_a_batch_equals_its_single_runs(demo, picture, sampler):
    batch = process_images(request(demo, picture, sampler_name=sampler, batch_size=2, do_not_save_grid=True)).images
    singles = [process_images(request(demo, picture, sampler_name=sampler, seed=seed)).images[0] for seed in (1, 2)]
    for together, alone in zip(batch, singles, strict=True):
        assert np.abs(pixels(together) - pixels(alone)).max() <= 1


def test_with_a_variation_strength_all_pictures_share_the_seed(demo, picture):
    result = process_images(request(demo, picture, n_iter=2, subseed=7, subseed_strength=0.3))
    assert result.all_seeds == [1, 1] and result.all_subseeds == [7, 8]
    assert result.images[1].tobytes() != result.images[2].tobytes()


def test_without_extras_the_variation_fields_do_nothing(demo, picture):
    plain = process_images(request(demo, picture)).images[0]
    off = process_images(request(demo, picture, subseed=7, subseed_strength=0.5, seed_enable_extras=False)).images[0]
    assert plain.tobytes() == off.tobytes()


@pytest.mark.parametrize("only_masked", [False, True])
def test_unmasked_pixels_outside_the_blur_are_exactly_the_sources(demo, picture, mask, only_masked):
    result = process_images(request(demo, picture, mask=mask, mask_blur=2, inpaint_full_res=only_masked,
                                    inpaint_full_res_padding=8, denoising_strength=1.0)).images[0]
    changed = np.abs(pixels(result) - pixels(picture)).max(axis=-1) > 0
    far = np.ones((64, 64), bool)
    far[18:46, 18:46] = False  # the mask, grown by the blur's reach of 5 pixels and one to spare
    assert not changed[far].any() and changed[26:38, 26:38].mean() > 0.9


def test_inverting_the_mask_keeps_its_inside(demo, picture, mask):
    result = process_images(request(demo, picture, mask=mask, mask_blur=0, inpaint_full_res=False, denoising_strength=1.0,
                                    inpainting_mask_invert=1)).images[0]
    assert (pixels(result)[24:40, 24:40] == pixels(picture)[24:40, 24:40]).all()
    assert (pixels(result)[:16] != pixels(picture)[:16]).any()


def test_a_size_that_is_no_multiple_of_8_gives_the_next_lower_one(demo, picture):
    assert process_images(request(demo, picture, width=100, height=75)).images[0].size == (96, 72)


def test_strength_0_still_runs_one_step(demo, picture):
    counted = Counter()
    p = request(demo, picture, denoising_strength=0.0)
    p.progress = counted
    process_images(p)
    assert counted.steps == [1]


class Counter(Progress):
    """Counts reported steps; interrupts at the model call of that number."""

    def __init__(self, stop_at=None):
        self.steps, self.calls, self.stop_at = [], 0, stop_at

    def checkpoint(self):
        from pipeline.errors import Interrupted
        if self.calls == self.stop_at:
            self.stopped = self.partial = True
            raise Interrupted
        self.calls += 1

    def report(self, step, denoised):
        self.steps.append(step)


def test_an_interrupted_job_keeps_the_last_latent_and_starts_no_other_batch(demo, picture):
    p = request(demo, picture, n_iter=3, steps=8)
    p.progress = Counter(stop_at=3)
    result = process_images(p)
    assert result.interrupted and len(result.images) == 1
    assert result.images[0].tobytes() != process_images(request(demo, picture, steps=8)).images[0].tobytes()


def test_interrupted_before_the_first_step_gives_the_source_back(demo, picture):
    p = request(demo, picture)
    p.progress = Counter(stop_at=0)
    result = process_images(p).images[0]
    with torch.inference_mode():
        from pipeline.images import to_image
        assert result.tobytes() == to_image(demo.decode(p.init_latent)[0]).tobytes()


def test_heun_can_be_interrupted_in_the_middle_of_a_step(demo, picture):
    p = request(demo, picture, sampler_name="Heun", steps=8)
    p.progress = Counter(stop_at=4)
    process_images(p)
    assert p.progress.steps == [1, 2]


def test_the_infotext_says_what_was_asked_in_a1111s_order(demo, picture, mask):
    result = process_images(request(demo, picture, mask=mask, inpaint_full_res_padding=32, negative_prompt="rain",
                                    sampler_name="DPM++ 2M", cfg_scale=5))
    lines = result.infotexts[0].split("\n")
    assert lines[:2] == ["a forest", "Negative prompt: rain"]
    assert lines[2].startswith("Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 1, Size: 64x64, Model hash: ")
    keys = [part.split(":")[0] for part in lines[2].split(", ")]
    assert keys[7:] == ["Model", "Denoising strength", "Mask blur", "Inpaint area", "Masked area padding", "Masked content", "Version"]


def test_the_saved_file_carries_the_infotext_and_the_very_pixels(demo, picture, tmp_path):
    result = process_images(request(demo, picture, outpath_samples=str(tmp_path)))
    with Image.open(result.paths[0]) as saved:
        assert saved.info["parameters"] == result.infotexts[0] and saved.tobytes() == result.images[0].tobytes()
    assert parse(result.infotexts[0])["Seed"] == "1"


def test_a_picture_that_cannot_be_saved_is_given_all_the_same(demo, picture, tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = process_images(request(demo, picture, outpath_samples=str(tmp_path / "file")))
    assert result.paths == [None] and result.images[0].size == (64, 64) and "could not be saved" in result.comments[0]
    assert str(tmp_path) not in " ".join(result.comments)  # which visitors read


def test_the_infotext_names_the_options_that_changed_the_prompt(demo, picture):
    plain = process_images(request(demo, picture, prompt="a (red) house")).infotexts[0]
    changed = process_images(request(demo, picture, prompt="a (red) house", override_settings={"emphasis": "No norm"}))
    assert "Emphasis" not in plain and "Emphasis: No norm" in changed.infotexts[0]
    edited = process_images(request(demo, picture, prompt="a [red:blue:1] house", override_settings={"emphasis": "No norm"}))
    assert "Emphasis" not in edited.infotexts[0]  # no bracket is left where it is encoded


def test_several_pictures_come_behind_their_grid(demo, picture):
    result = process_images(request(demo, picture, n_iter=2))
    assert result.index_of_first_image == 1 and [image.size for image in result.images] == [(128, 64), (64, 64), (64, 64)]


def test_mask_and_masked_part_are_given_when_asked_for(demo, picture, mask):
    options = {"return_mask": True, "return_mask_composite": True, "return_grid": False}
    result = process_images(request(demo, picture, mask=mask, inpaint_full_res=False, mask_blur=0, override_settings=options))
    assert [image.mode for image in result.images] == ["RGB", "RGB", "RGBA"]
    assert result.images[1].getpixel((30, 30)) == (255, 255, 255) and result.images[2].getpixel((0, 0))[3] == 0


def test_comments_are_left_out_of_the_prompt(demo, picture):
    assert process_images(request(demo, picture, prompt="a forest # not this")).all_prompts == ["a forest \n"]


def test_an_unknown_network_is_left_out_and_named(demo, picture):
    result = process_images(request(demo, picture, prompt="a forest<lora:nope:1>"))
    assert result.images[0].tobytes() == process_images(request(demo, picture)).images[0].tobytes()
    assert result.comments == ["Lora not found: nope."]


@pytest.mark.parametrize("prompt", ["", " ", "🌲", "a" * 2000, "((((", "a BREAK b", "a AND b:0.5", "[a:b:0.5]"])
def test_any_prompt_makes_a_picture(demo, picture, prompt):
    assert process_images(request(demo, picture, prompt=prompt)).images[0].size == (64, 64)


def test_a_picture_that_tiles_sees_its_edges_from_the_other_side(demo, picture):
    plain = process_images(request(demo, picture))
    tiled = process_images(request(demo, picture, tiling=True))
    by_option = process_images(request(demo, picture, override_settings={"tiling": True}))
    assert tiled.images[0].tobytes() == by_option.images[0].tobytes() != plain.images[0].tobytes()
    assert "Tiling: True" in tiled.info and "Tiling" not in plain.info
    assert process_images(request(demo, picture, tiling=False, override_settings={"tiling": True})).info == plain.info
    assert process_images(request(demo, picture)).images[0].tobytes() == plain.images[0].tobytes()  # nothing is left behind


def test_a_cheap_decoder_gives_an_eighth_of_the_size_and_is_named(demo, picture):
    result = process_images(request(demo, picture, override_settings={"sd_vae_decode_method": "Approx cheap",
                                                                      "sd_vae_encode_method": "Approx NN"}))
    assert result.images[0].size == (8, 8)
    assert "VAE Encoder: Approx NN, VAE Decoder: Approx cheap" in result.info


@pytest.mark.parametrize("method, attribute, size", [("TAESD", "tiny", 64), ("Approx NN", "approx", 16)])
def test_small_decoders_make_the_picture_where_their_files_are(demo, picture, monkeypatch, method, attribute, size):
    class Decoder:
        def decode(self, latent):
            return torch.full((len(latent), 3, size, size), 0.5)

    p = request(demo, picture, override_settings={"sd_vae_decode_method": method})
    with pytest.raises(InvalidRequest, match=f"sd_vae_decode_method: there is no {method} for demo-model"):
        process_images(p)
    monkeypatch.setattr(demo, attribute, Decoder())
    result = process_images(p.variant())
    assert result.images[0].size == (size, size) and result.images[0].getpixel((3, 3)) == (191, 191, 191)
    assert f"VAE Decoder: {method}" in result.info


@pytest.mark.parametrize("option, missing", [("add_model_hash_to_info", "Model hash"), ("add_model_name_to_info", "Model"),
                                             ("add_version_to_infotext", "Version")])
def test_the_infotext_leaves_out_what_it_is_told_to(demo, picture, option, missing):
    everything = parse(process_images(request(demo, picture)).info)
    less = parse(process_images(request(demo, picture, override_settings={option: False})).info)
    assert everything.keys() - less.keys() == {missing}


@pytest.mark.parametrize("options, size", [({"n_rows": 1}, (256, 64)), ({"n_rows": 3}, (128, 192)), ({"n_rows": 0}, (128, 128)),
                                           ({"grid_prevent_empty_spots": True}, (128, 128))])
def test_a_grid_has_the_rows_that_the_options_say(demo, picture, options, size):
    result = process_images(request(demo, picture, n_iter=2, batch_size=2, steps=1, override_settings=options))
    assert result.images[0].size == size


def test_a_grid_of_one_picture_only_where_it_is_asked_for(demo, picture):
    assert len(process_images(request(demo, picture, steps=1)).images) == 1
    assert len(process_images(request(demo, picture, steps=1, override_settings={"grid_only_if_multiple": False})).images) == 2


def test_masks_have_no_infotext(demo, picture, mask):
    result = process_images(request(demo, picture, mask=mask, steps=1, override_settings={"return_mask": True, "return_grid": False}))
    assert result.infotexts[0] and result.infotexts[1] == "" and "parameters" not in result.images[1].info
