"""A request's list becomes a script's record, or one sentence."""

from dataclasses import dataclass

import pytest

from pipeline.errors import InvalidRequest
from pipeline.scripts.arguments import argument, describe, notice, read


@dataclass(frozen=True)
class Sample:
    text: str = notice("Read this.")
    loops: int = argument(4, "Loops", minimum=1, maximum=32, step=1)
    strength: float = argument(1, "Strength", minimum=0, maximum=8)
    curve: str = argument("Linear", "Curve", choices=("Linear", "Lazy"))
    sides: tuple[str, ...] = argument(("left",), "Sides", choices=("left", "right"))
    on: bool = argument(False, "On")
    words: str = argument("", "Words")


GIVEN = ["<p>", 3, 0.5, "lazy", ["right"], True, "a"]


def read_sample(given):
    return read(Sample, given, name="script_args", title="Sample")


def test_all_arguments_are_read_in_order():
    assert read_sample(GIVEN) == Sample("<p>", 3, 0.5, "Lazy", ("right",), True, "a")


@pytest.mark.parametrize("place, given, kept", [
    (0, None, None), (1, "3", 3), (2, 1, 1), (2, "1", 1.0), (3, 1, "Lazy"), (4, [], ()), (5, 0, False),
])
def test_a_value_may_come_in_another_form(place, given, kept):
    value = list(vars(read_sample([*GIVEN[:place], given, *GIVEN[place + 1:]])).values())[place]
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize("place, given, sentence", [
    (1, 33, "Loops must be a whole number between 1 and 32, got 33"),
    (1, 2.5, "Loops must be a whole number"),
    (2, "much", "Strength must be a number between 0 and 8, got 'much'"),
    (3, "Wild", "Curve must be one of Linear, Lazy, got 'Wild'"),
    (3, 2, "Curve must be one of Linear, Lazy, got 2"),
    (4, "left", "Sides must be a list of left, right, got 'left'"),
    (4, ["top"], "Sides must be a list of left, right"),
    (5, "yes", "On must be true or false, got 'yes'"),
    (6, 5, "Words must be text, got 5"),
])
def test_a_bad_value_is_refused_with_what_is_valid(place, given, sentence):
    with pytest.raises(InvalidRequest, match='^script_args of "Sample": ' + sentence) as caught:
        read_sample([*GIVEN[:place], given, *GIVEN[place + 1:]])
    assert caught.value.field == "script_args"


@pytest.mark.parametrize("given, came", [
    ([1], "1"), (GIVEN * 2, "14"), ({"loops": 1}, "{'loops': 1}"), ("abcdefg", "'abcdefg'"),
])
def test_the_number_of_values_is_told(given, came):
    with pytest.raises(InvalidRequest) as caught:
        read_sample(given)
    assert str(caught.value) == ('script_args: "Sample" takes a list of 7 values (a text, Loops, Strength, Curve, Sides, On, '
                                 f"Words), got {came}")


def test_programs_are_told_labels_ranges_choices_and_defaults():
    notice_, loops, *_, on, words = describe(Sample)
    assert (notice_.label, notice_.value) == ("", "Read this.")
    assert (loops.label, loops.value, loops.minimum, loops.maximum, loops.step, loops.choices) == ("Loops", 4, 1, 32, 1, None)
    assert (on.value, words.value) == (False, "")
