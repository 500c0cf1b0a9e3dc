"""How many of the steps are run, and what a sampler's and a schedule's name mean."""

import pytest

from pipeline.errors import UnknownName
from pipeline.geometry import Size
from pipeline.options import Options
from pipeline.samplers import SAMPLERS, SCHEDULES, create_sampler, resolve_names, schedule_label
from pipeline.samplers.sampler import img2img_steps


# steps

@pytest.mark.parametrize("strength, t_enc", [(0, 0), (0.05, 1), (0.3, 6), (0.5, 10), (0.75, 15), (0.95, 19), (1, 19)])
def test_the_strength_is_the_share_of_20_steps_that_are_run(strength, t_enc):
    assert img2img_steps(20, strength, fix_steps=False) == (20, t_enc)


@pytest.mark.parametrize("strength, steps", [(0.3, 66), (0.5, 40), (0.75, 26), (0.95, 21), (1, 20)])
def test_fixed_steps_make_the_schedule_longer_and_run_20(strength, steps):
    assert img2img_steps(20, strength, fix_steps=True) == (steps, 19)


@pytest.mark.parametrize("steps", [1, 2, 7, 150])
@pytest.mark.parametrize("strength", [0.01, 0.5, 0.999, 1])
@pytest.mark.parametrize("fix_steps", [True, False])
def test_no_more_steps_are_run_than_the_schedule_has(steps, strength, fix_steps):
    schedule, t_enc = img2img_steps(steps, strength, fix_steps=fix_steps)
    assert 0 <= t_enc < schedule


def test_a_single_step_is_run_whatever_the_strength():
    assert img2img_steps(1, 0.2, fix_steps=False) == (1, 0)


# names

@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda schedule: schedule.name)
def test_a_schedule_goes_by_its_name_and_its_label(name, schedule):
    assert resolve_names(name, schedule.name) == (name, schedule.label)
    assert resolve_names(name, schedule.label) == (name, schedule.label)


@pytest.mark.parametrize("asked, meant", [
    ((None, None), ("DPM++ 2M", "Automatic")),
    (("", ""), ("DPM++ 2M", "Automatic")),
    (("Euler", None), ("Euler", "Automatic")),
    (("DPM++ 2M Karras", None), ("DPM++ 2M", "Karras")),
    (("DPM++ 2M karras", None), ("DPM++ 2M", "Karras")),
    (("DPM++ 2M SGM Uniform", None), ("DPM++ 2M", "SGM Uniform")),
    (("DPM++ 2M SDE Exponential", None), ("DPM++ 2M SDE", "Exponential")),
    (("DPM++ 2M SGMUniform", None), ("DPM++ 2M", "SGM Uniform")),
    (("DPM++ 2M Karras", "Exponential"), ("DPM++ 2M", "Karras")),
])
def test_names_mean_what_they_mean_in_a1111(asked, meant):
    assert resolve_names(*asked) == meant


def refusal(act, *args):
    with pytest.raises(UnknownName) as error:
        act(*args)
    return error.value.field, str(error.value)


@pytest.mark.parametrize("act, rest", [(resolve_names, [None]), (create_sampler, [None, Options(), Size(64, 64)])])
def test_an_unknown_sampler_is_refused_with_the_nearest(act, rest):
    assert refusal(act, "Euler b", *rest) == (
        "sampler_name", 'sampler_name: no sampler called "Euler b"; did you mean "Euler a"?')


def test_a_sampler_like_no_other_is_refused_with_all_of_them():
    _, message = refusal(resolve_names, "42", None)
    assert message == f'sampler_name: no sampler called "42"; valid: {", ".join(SAMPLERS)}'


def test_an_unknown_sampler_with_a_schedule_is_refused_by_its_own_name():
    _, message = refusal(resolve_names, "Oiler Karras", None)
    assert message == 'sampler_name: no sampler called "Oiler"; did you mean "Euler"?'


def test_an_unknown_schedule_is_refused_with_the_nearest():
    assert refusal(resolve_names, "Euler", "Carras") == (
        "scheduler", 'scheduler: no schedule type called "Carras"; did you mean "Karras"?')


# what infotext calls the schedule

@pytest.mark.parametrize("name, label", [
    ("DPM++ 2M", "Karras"), ("DPM++ SDE", "Karras"), ("DPM++ 2M SDE", "Exponential"),
    ("Euler", "Automatic"), ("Euler a", "Automatic"), ("Heun", "Automatic"), ("DDIM", "Automatic"),
])
def test_automatic_is_called_by_the_sampler_s_own_schedule(name, label):
    assert schedule_label(name, "Automatic") == label


def test_a_chosen_schedule_keeps_its_name():
    assert schedule_label("DPM++ 2M", "Exponential") == "Exponential"


@pytest.mark.parametrize("row", SAMPLERS.values(), ids=lambda row: row.name)
def test_a_sampler_s_own_schedule_exists(row):
    assert row.scheduler is None or row.scheduler in SCHEDULES
