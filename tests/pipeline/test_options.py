import math
from dataclasses import FrozenInstanceError, fields

import pytest

from pipeline.errors import InvalidRequest, UnknownName
from pipeline.options import Options, number


def refusal(**settings):
    with pytest.raises(InvalidRequest) as error:
        Options().override(settings)
    assert error.value.field in settings
    return str(error.value)


# the table

@pytest.mark.parametrize("name, default", [
    ("CLIP_stop_at_last_layers", 1), ("emphasis", "Original"), ("comma_padding_backtrack", 20), ("randn_source", "GPU"),
    ("eta_noise_seed_delta", 0), ("initial_noise_multiplier", 1.0), ("img2img_extra_noise", 0.0),
    ("img2img_fix_steps", False), ("img2img_color_correction", False), ("img2img_background_color", "#ffffff"),
    ("inpainting_mask_weight", 1.0), ("overlay_inpaint", True), ("return_mask", False),
    ("return_mask_composite", False), ("return_grid", True), ("eta_ancestral", 1.0), ("eta_ddim", 0.0),
    ("s_churn", 0.0), ("s_noise", 1.0), ("s_min_uncond", 0.0), ("skip_early_cond", 0.0), ("pad_cond_uncond", False),
    ("batch_cond_uncond", True), ("use_old_scheduling", False),
])
def test_defaults_are_those_of_a1111(name, default):
    assert getattr(Options(), name) == default


@pytest.mark.parametrize("spec", fields(Options), ids=lambda spec: spec.name)
def test_a_default_is_a_valid_value(spec):
    assert Options().override({spec.name: spec.default}) == Options()


@pytest.mark.parametrize("spec", fields(Options), ids=lambda spec: spec.name)
def test_an_option_explains_itself_in_a_sentence(spec):
    assert spec.metadata["sentence"].endswith(".")


# overriding

def test_an_override_is_a_new_value():
    options = Options()
    changed = options.override({"emphasis": "No norm", "s_churn": 3})
    assert (changed.emphasis, changed.s_churn) == ("No norm", 3.0)
    assert options == Options()


def test_an_override_keeps_the_rest():
    options = Options(return_grid=False)
    assert options.override({"s_churn": 3}) == Options(return_grid=False, s_churn=3.0)


@pytest.mark.parametrize("nothing", [None, {}])
def test_overriding_nothing_changes_nothing(nothing):
    assert Options(s_churn=2.0).override(nothing) == Options(s_churn=2.0)


def test_options_cannot_be_written_to():
    with pytest.raises(FrozenInstanceError):
        Options().s_churn = 1.0


@pytest.mark.parametrize("name, value, kept", [
    ("eta_noise_seed_delta", 31337.0, 31337), ("eta_noise_seed_delta", "31337", 31337), ("s_churn", 2, 2), ("s_noise", 1, 1.0),
    ("s_churn", "2.5", 2.5), ("return_grid", 0, False), ("return_grid", 1, True),
    ("img2img_background_color", "#123456", "#123456"), ("img2img_background_color", "teal", "teal"),
])
def test_a_value_becomes_the_option_s_type_and_whole_numbers_stay_whole(name, value, kept):
    result = getattr(Options().override({name: value}), name)
    assert result == kept
    assert type(result) is type(kept)


# what is refused

def test_an_unknown_option_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName) as error:
        Options().override({"eta_noise_seed": 1})
    assert error.value.field == "override_settings"
    assert str(error.value) == ('override_settings: no option called "eta_noise_seed"; '
                                'did you mean "eta_noise_seed_delta"?')


def test_an_unknown_choice_is_refused_with_the_nearest():
    assert refusal(randn_source="NVidia") == 'randn_source: no value called "NVidia"; did you mean "NV"?'


def test_a_choice_like_no_other_is_refused_with_all_of_them():
    assert refusal(emphasis=7) == 'emphasis: no value called "7"; valid: None, Ignore, Original, No norm'


@pytest.mark.parametrize("value", [-0.001, 10.001, "20", 1e308])
def test_a_number_out_of_range_is_refused(value):
    assert refusal(img2img_extra_noise=value) == f"img2img_extra_noise must be a number between 0 and 10, got {value!r}"


@pytest.mark.parametrize("value", [0, 10])
def test_the_ends_of_a_range_are_inside(value):
    assert Options().override({"img2img_extra_noise": value}).img2img_extra_noise == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf"])
def test_what_is_not_finite_is_refused(value):
    assert refusal(s_churn=value) == f"s_churn must be a number between 0 and 1000, got {value!r}"


@pytest.mark.parametrize("value", ["many", None, [1], {}, b"1", "", 10**400])
@pytest.mark.parametrize("name", ["s_churn", "CLIP_stop_at_last_layers"])
def test_what_is_no_number_is_refused(name, value):
    assert f"{name} must be a " in refusal(**{name: value})


@pytest.mark.parametrize("value", [1.5, "1.5", True])
def test_a_whole_number_is_wanted_for_a_count(value):
    message = refusal(CLIP_stop_at_last_layers=value)
    assert message == f"CLIP_stop_at_last_layers must be a whole number between 0 and 12, got {value!r}"


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_number(value):
    assert refusal(s_churn=value) == f"s_churn must be a number between 0 and 1000, got {value}"


@pytest.mark.parametrize("value", [2, "true", None, "", [True]])
def test_only_true_and_false_are_truth_values(value):
    assert refusal(return_grid=value) == f"return_grid must be true or false, got {value!r}"


@pytest.mark.parametrize("value", ["cat", "#12", "", 5, None, [255, 0, 0]])
def test_only_a_colour_is_a_background(value):
    assert refusal(img2img_background_color=value) == (
        f'img2img_background_color must be a colour such as "#ffffff", got {value!r}')


# number()

@pytest.mark.parametrize("kind, low, high, wanted", [
    (float, 0, 1, "a number between 0 and 1"),
    (int, 1, 150, "a whole number between 1 and 150"),
    (int, 8, None, "a whole number of at least 8"),
    (float, None, None, "a number"),
])
def test_the_sentence_says_what_is_wanted(kind, low, high, wanted):
    with pytest.raises(InvalidRequest) as error:
        number("steps", "x", kind, low, high)
    assert str(error.value) == f"steps must be {wanted}, got 'x'"


def test_without_bounds_any_finite_number_will_do():
    assert number("seed", -(2**80), int, None, None) == -(2**80)


def test_one_bound_is_enough():
    assert number("width", 8, int, 8, None) == 8
    with pytest.raises(InvalidRequest):
        number("width", 7, int, 8, None)
