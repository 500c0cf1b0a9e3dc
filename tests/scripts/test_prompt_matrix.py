"""Prompt matrix: all combinations of a prompt's parts."""

import pytest

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.scripts.prompt_matrix import PromptMatrix, combined, legends


def matrix(make, start=False, seeds=False, kind="positive", join="comma", margin=0, **fields):
    return scripts.run(make(script_name="Prompt matrix", script_args=[start, seeds, kind, join, margin], **fields))


@pytest.mark.parametrize("start, join, number, prompt", [
    (False, "comma", 0, "a cat"), (False, "comma", 1, "a cat, big"), (False, "comma", 3, "a cat, big, red"),
    (True, "comma", 2, "red, a cat"), (False, "space", 3, "a cat big red"),
])
def test_parts_are_joined_as_asked(start, join, number, prompt):
    assert combined("a cat", [" big,", "red "], number, PromptMatrix(start, False, "positive", join, 0)) == prompt


def test_there_is_a_picture_for_each_combination_in_binary_order(watched):
    args = [False, False, "positive", "comma", 0]
    p = watched(prompt="a cat|big|red", script_name="Prompt matrix", script_args=args, batch_size=3)
    result = scripts.run(p)
    assert result.all_prompts == ["a cat", "a cat, big", "a cat, red", "a cat, big, red"]
    assert result.all_seeds == [1] * 4 and p.progress.batches == [2] and p.progress.done == 2
    assert len(result.images) == len(result.infotexts) == len(result.paths) == 5 and result.index_of_first_image == 1


def test_the_grid_has_legends_and_margins(request_for):
    plain, wide = (matrix(request_for, prompt="a cat|big|red", margin=margin).images[0] for margin in (0, 10))
    assert plain.width == 2 * 64 + 48 and plain.height > 2 * 64
    assert (wide.width - plain.width, wide.height - plain.height) == (10, 10)


def test_the_negative_prompt_can_vary_and_seeds_too(request_for):
    result = matrix(request_for, kind="negative", seeds=True, negative_prompt="bad|ugly")
    assert result.all_negative_prompts == ["bad", "bad, ugly"] and result.all_prompts == ["a forest"] * 2
    assert result.all_seeds == [1, 2]


def test_what_is_left_out_is_struck_through():
    assert [[legend.active for legend in column] for column in legends(["a", "b"])] == [
        [False, False], [True, False], [False, True], [True, True]]


def test_a_plain_prompt_is_one_picture_below_a_blank_strip(request_for):
    assert [image.size for image in matrix(request_for).images] == [(64, 66), (64, 64)]


def test_there_is_an_end_to_the_combinations(request_for):
    with pytest.raises(InvalidRequest, match="at most 9 parts can be combined, got 10"):
        matrix(request_for, prompt="|".join("abcdefghijk"))
