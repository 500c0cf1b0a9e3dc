"""A request is run by the script that it names, in the engine too."""

import pytest

from pipeline import scripts
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts import ALWAYS_ON, SCRIPTS

LOOPBACK = [2, 0.4, "Linear", "None"]


def test_the_scripts_are_a1111s_in_its_order_and_then_ours():
    assert [script.title for script in SCRIPTS.values()] == [
        "img2img alternative test", "Loopback", "Outpainting mk2", "Poor man's outpainting", "Prompt matrix",
        "Prompts from file or textbox", "SD upscale", "X/Y/Z plot", "Each masked area by itself"]
    assert [script.title for script in ALWAYS_ON.values()] == ["Soft Inpainting", "ControlNet", "ADetailer"]


@pytest.mark.parametrize("title, count, second", [
    ("img2img alternative test", 11, ("Override `Sampling method` to Euler?(this method is built for it)", True)),
    ("Loopback", 4, ("Final denoising strength", 0.5)), ("Outpainting mk2", 6, ("Pixels to expand", 128)),
    ("Poor man's outpainting", 4, ("Mask blur", 4)), ("Prompt matrix", 5, ("Use different seed for each picture", False)),
    ("Prompts from file or textbox", 4, ("Use same random seed for all lines", False)), ("SD upscale", 4, ("Tile overlap", 64)),
    ("X/Y/Z plot", 18, ("X values", "")),
])
def test_arguments_are_described(title, count, second):
    arguments = SCRIPTS[title.lower()].arguments
    assert len(arguments) == count
    assert (arguments[1].label, arguments[1].value) == second


def test_a_title_may_have_any_case(request_for):
    assert len(scripts.run(request_for(script_name="LOOPback", script_args=LOOPBACK)).images) == 3


def test_without_a_script_a_request_is_run_once(watched):
    p = watched(n_iter=2)
    result = scripts.run(p)
    assert p.progress.batches == [2] and p.progress.done == 2
    again = process_images(watched(n_iter=2))
    assert [image.tobytes() for image in result.images] == [image.tobytes() for image in again.images]


@pytest.mark.parametrize("fields, field", [
    ({"script_name": "Loopbak", "script_args": LOOPBACK}, "script_name"),
    ({"script_name": "Soft Inpainting", "script_args": []}, "script_name"),
    ({"script_name": "Loopback", "script_args": [2]}, "script_args"),
    ({"script_name": "Loopback", "script_args": LOOPBACK, "prompt": ["a", "b"]}, "prompt"),
    ({"alwayson_scripts": {"Loopback": {"args": LOOPBACK}}}, "alwayson_scripts"),
    ({"alwayson_scripts": {"soft inpainting": {"args": {"soft_inpainting": True}}}}, "alwayson_scripts"),
    ({"alwayson_scripts": {"soft inpainting": {"args": [True, 99]}}}, "alwayson_scripts"),
    ({"alwayson_scripts": ["soft inpainting"]}, "alwayson_scripts"),
])
def test_what_cannot_be_run_is_refused_before_it_runs(request_for, fields, field):
    with pytest.raises(InvalidRequest) as caught:
        scripts.check(request_for(**fields))
    assert caught.value.field == field


def test_the_nearest_title_is_offered(request_for):
    with pytest.raises(UnknownName, match='did you mean "Loopback"'):
        scripts.check(request_for(script_name="Loopbak"))


def test_always_on_arguments_that_are_left_out_have_their_defaults_and_more_are_ignored(request_for):
    (_, short), = scripts.always_on({"soft inpainting": {"args": [True]}})
    (_, long), = scripts.always_on({"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2, "more"]}})
    assert short == long


def test_a_script_never_changes_the_request(request_for):
    p = request_for(script_name="Loopback", script_args=LOOPBACK)
    names = ("seed", "denoising_strength", "n_iter", "batch_size", "init_images", "options")
    before = {name: getattr(p, name) for name in names}
    scripts.run(p)
    assert {name: getattr(p, name) for name in before} == before and p.extra_generation_params == {}


def test_the_engine_runs_scripts_and_its_progress_never_goes_back(engine, picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], width=64, height=64, steps=3, script_name="Loopback",
                                         script_args=LOOPBACK, denoising_strength=0.9)
    job = engine.submit([p])
    shares = [event.fraction for event in job.events() if hasattr(event, "batches")]
    assert shares == sorted(shares) and max(shares) <= 1
    assert len(job.result()[0].images) == 3


# --- variants of a request

def test_a_variant_keeps_the_mask_and_the_binding_and_takes_the_changes(request_for, mask):
    p = request_for(mask=mask, mask_blur=6, override_settings={"return_grid": False})
    p.extra_generation_params["Note"] = 1
    other = p.variant(seed=7, override_settings={"return_mask": True})
    assert other.image_mask is mask and (other.mask_blur, other.seed, other.prompt) == (6, 7, "a forest")
    assert (other.options.return_grid, other.options.return_mask) == (False, True)
    assert other.progress is p.progress and other.comments is p.comments and other.sd_model is p.sd_model
    other.extra_generation_params["Note"] = 2
    assert p.extra_generation_params["Note"] == 1 and p.seed == 1 and not p.options.return_mask


def test_a_variant_is_checked(request_for):
    with pytest.raises(InvalidRequest, match="steps"):
        request_for().variant(steps=0)


def test_a_variant_of_another_checkpoint_asks_for_it(request_for, demo):
    p = request_for()
    other = p.variant(override_settings={"sd_model_checkpoint": "other"})
    with pytest.raises(InvalidRequest, match="sd_model_checkpoint"):
        process_images(other)
    asked = []
    p.load_model = lambda options: asked.append(options.sd_model_checkpoint) or demo
    process_images(p.variant(override_settings={"sd_model_checkpoint": "other"}))
    assert asked == ["other"]


# --- one prompt and seed for each picture

def test_prompts_and_seeds_may_be_given_for_each_picture(request_for):
    result = process_images(request_for(prompt=["a", "b", "c"], seed=[5, 5, 9], n_iter=2, batch_size=2, do_not_save_grid=True))
    assert (result.all_prompts, result.all_seeds, len(result.images)) == (["a", "b", "c"], [5, 5, 9], 3)
    alone = process_images(request_for(prompt="c", seed=9))
    assert abs(int(result.images[2].getpixel((9, 9))[0]) - int(alone.images[0].getpixel((9, 9))[0])) <= 1


def test_lists_must_have_the_same_length(request_for):
    with pytest.raises(InvalidRequest, match=r"seed must have one value per picture \(2\), got 1"):
        process_images(request_for(prompt=["a", "b"], seed=[5], n_iter=2))
