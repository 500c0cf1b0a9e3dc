"""Prompts from file: a run per line."""

import pytest

from pipeline import scripts
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.scripts.prompts_from_file import read_line


def run_lines(make, text, iterate=False, same=False, at="start", **fields):
    return scripts.run(make(script_name="Prompts from file or textbox", script_args=[iterate, same, at, text], **fields))


@pytest.mark.parametrize("line, fields", [
    ("a red circle", {"prompt": "a red circle"}),
    ('--prompt "a blue square" --steps 4 --seed 7', {"prompt": "a blue square", "steps": 4, "seed": 7}),
    ("--prompt a blue square --negative_prompt not red --cfg_scale 5.5",
     {"prompt": "a blue square", "negative_prompt": "not red", "cfg_scale": 5.5}),
    ("--sampler_name EULER --width 32 --do_not_save_samples true --do_not_save_grid yes",
     {"sampler_name": "Euler", "width": 32, "do_not_save_samples": True, "do_not_save_grid": False}),
    ("--sampler_name k_euler_a", {"sampler_name": "Euler a"}),
    ("--sd_model other --prompt a", {"prompt": "a", "override_settings": {"sd_model_checkpoint": "other"}}),
    ("--styles bright", {"styles": ["bright"]}),
    ("--outpath_samples /tmp/x --outpath_grids /tmp/y --prompt_for_display b --prompt a", {"prompt": "a"}),
    ("a -- b", {"prompt": "a -- b"}),
    ("--steps many", {"prompt": "--steps many"}),
    ("--height", {"prompt": "--height"}),
    ("--colour red", {"prompt": "--colour red"}),
    ('--prompt "open', {"prompt": '--prompt "open'}),
])
def test_a_line_is_a_prompt_or_sets_fields(line, fields):
    assert read_line(line) == fields


def test_every_line_is_run_with_its_own_fields(watched):
    p = watched(script_name="Prompts from file or textbox", prompt="", n_iter=2,
                script_args=[False, False, "start", "a red circle\n\n --prompt square --n_iter 1 --width 32 --seed 9\n"])
    result = scripts.run(p)
    assert p.progress.batches == [3] and p.progress.done == 3
    assert [image.size for image in result.images] == [(64, 64), (64, 64), (32, 64)]
    assert result.all_prompts == ["a red circle", "a red circle", "square"]
    assert [text.splitlines()[0] for text in result.infotexts] == result.all_prompts
    assert result.all_seeds[2] == 9


@pytest.mark.parametrize("at, prompt, negative", [("start", "a b", "c d"), ("end", "b a", "d c")])
def test_the_requests_prompts_are_joined(request_for, at, prompt, negative):
    result = run_lines(request_for, "--prompt a --negative_prompt c", at=at, prompt="b", negative_prompt="d")
    assert (result.all_prompts, result.all_negative_prompts) == ([prompt], [negative])


@pytest.mark.parametrize("iterate, same, given, seeds", [
    (False, False, 5, [5, 5]), (True, False, 5, [5, 7]), (True, True, 5, [5, 7]), (False, True, 5, [5, 5]),
])
def test_seeds_count_on_by_the_pictures_of_a_line(request_for, iterate, same, given, seeds):
    result = run_lines(request_for, "a\nb", iterate, same, seed=given, n_iter=2)
    assert result.all_seeds[::2] == seeds


@pytest.mark.parametrize("iterate, same, step", [(True, False, 1), (False, True, 0)])
def test_a_random_seed_is_drawn_once(request_for, iterate, same, step):
    first, second = run_lines(request_for, "a\nb", iterate, same, seed=-1).all_seeds
    assert second - first == step


@pytest.mark.parametrize("text, error, sentence", [
    ("  \n", InvalidRequest, "List of prompt inputs is empty"),
    ("a\n--steps 0", InvalidRequest, "steps must be"),
    ("--sampler_name Eulr", UnknownName, 'did you mean "Euler"'),
    ("--restore_faces true", InvalidRequest, "a line uses \"--restore_faces\", which does not exist"),
])
def test_what_cannot_be_run_is_refused_before_the_first_line(watched, text, error, sentence):
    p = watched(script_name="Prompts from file or textbox", script_args=[False, False, "start", text])
    with pytest.raises(error, match=sentence):
        scripts.run(p)
    assert p.progress.done == 0


def test_what_is_not_there_may_be_switched_off(request_for):
    assert len(run_lines(request_for, "--prompt a --restore_faces false", False, False).images) == 1


def test_stopped_the_lines_so_far_are_given(watched):
    p = watched(stop_after=1, script_name="Prompts from file or textbox", script_args=[False, False, "start", "a\nb\nc"])
    result = scripts.run(p)
    assert result.interrupted and len(result.images) == 1
