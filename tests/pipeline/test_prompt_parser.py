import random
import time

import pytest

from pipeline.errors import InvalidRequest
from pipeline.prompt_parser import (
    MAX_OPEN_BRACKETS, Network, at_step, extract_networks, parse_attention, parse_timeline, split_and, strip_comments,
)


def assert_pieces(text, expected):
    pieces = parse_attention(text)
    assert [piece for piece, _ in pieces] == [piece for piece, _ in expected]
    assert [weight for _, weight in pieces] == pytest.approx([weight for _, weight in expected])


def entries(text, steps=10, **rule):
    return [list(entry) for entry in parse_timeline(text, steps, **rule)]


# weights


def test_nested_brackets_multiply():
    assert_pieces(
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [("a ", 1), ("house", 1.573), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
         ("sky", 1.4641), (".", 1.1)],
    )


@pytest.mark.parametrize("text, expected", [
    ("", [("", 1)]),
    ("()", [("", 1)]),
    ("plain, text", [("plain, text", 1)]),
    ("time 12:30, ratio 3:1", [("time 12:30, ratio 3:1", 1)]),
    ("(a: -0.5 )", [("a", -0.5)]),
    ("(red:1.2:1.3)", [("red:1.2", 1.3)]),
    ("(a:1)b", [("ab", 1)]),
])
def test_weights_as_written(text, expected):
    assert_pieces(text, expected)


@pytest.mark.parametrize("text, expected", [
    ("(unbalanced", [("unbalanced", 1.1)]),
    ("a (red circle, [blue", [("a ", 1), ("red circle, ", 1.1), ("blue", 1)]),
    ("a) b] c:1.2)", [("a) b] c:1.2)", 1)]),
    ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
])
def test_an_unclosed_bracket_counts_as_closed_and_a_stray_closer_is_text(text, expected):
    assert_pieces(text, expected)


def test_square_brackets_take_no_weight():
    assert_pieces("[a:1.5]", [("a:1.5", 1 / 1.1)])


def test_a_backslash_makes_brackets_text_and_vanishes_elsewhere():
    assert_pieces(r"a red \(circle\) \[blue\] \\ s\quare\ ".rstrip(), [("a red (circle) [blue] \\ square", 1)])


@pytest.mark.parametrize("weight", ["1.2.3", ".", "+.", "1" * 5 + "." * 100_000])
def test_a_weight_that_is_no_number_is_refused_in_one_sentence(weight):
    with pytest.raises(InvalidRequest, match="^prompt: a weight must be a number.{,60}$") as refused:
        parse_attention(f"(a:{weight})")
    assert refused.value.field == "prompt"


def test_a_weight_closing_no_bracket_is_not_read_as_one():
    assert parse_attention("a:1.2.3)") == [("a:1.2.3)", 1.0)]


@pytest.mark.parametrize("text, expected", [
    ("a BREAK b", [("a", 1), ("BREAK", -1), ("b", 1)]),
    ("a\n BREAK\n", [("a", 1), ("BREAK", -1), ("", 1)]),
    ("a BREAK BREAK b", [("a", 1), ("BREAK", -1), ("", 1), ("BREAK", -1), ("b", 1)]),
    ("BREAKFAST break", [("BREAKFAST break", 1)]),
])
def test_break_stands_between_chunks(text, expected):
    assert_pieces(text, expected)


def test_break_inside_weighted_brackets_is_a_word():
    assert_pieces("(a BREAK b:1.5)", [("a", 1.5), ("BREAK", -1.5), ("b", 1.5)])


def test_brackets_deeper_than_any_picture_survives_are_refused():
    deepest = "(" * MAX_OPEN_BRACKETS + "a"
    assert_pieces(deepest, [("a", 1.1 ** MAX_OPEN_BRACKETS)])
    with pytest.raises(InvalidRequest, match="brackets may be open at once"):
        parse_attention("[" + deepest)


def test_plain_words_come_back_whole_whatever_the_weights():
    rnd = random.Random(7)
    for _ in range(300):
        words = [rnd.choice(["red", "circle, ", " x ", "BREAKER", "12"]) for _ in range(rnd.randint(1, 8))]
        weights = [rnd.choice([0.5, 1.0, 1.5, -1.25]) for _ in words]
        pieces = parse_attention("".join(f"({word}:{weight})" for word, weight in zip(words, weights)))
        assert "".join(piece for piece, _ in pieces) == "".join(words)
        assert all(left != right for (_, left), (_, right) in zip(pieces, pieces[1:]))


# prompt editing


@pytest.mark.parametrize("text, expected", [
    ("a [b:c:0.5]", [[5, "a b"], [10, "a c"]]),
    ("[x:3]", [[3, ""], [10, "x"]]),
    ("[x::3]", [[3, "x"], [10, ""]]),
    ("[a:b:+3]", [[3, "a"], [10, "b"]]),
    ("[a: b :.5 ]", [[5, "a"], [10, " b "]]),
    ("[a:b:2] [c:d:4]", [[2, "a c"], [4, "b c"], [10, "b d"]]),
])
def test_a_switch_shows_one_text_then_the_other(text, expected):
    assert entries(text) == expected


@pytest.mark.parametrize("text", ["a [b:c:0]", "a [b:c:-1]", "a [b:c:0.05]"])
def test_a_switch_before_the_first_step_shows_only_the_second_text(text):
    assert entries(text) == [[10, "a c"]]


@pytest.mark.parametrize("text", ["[a:b:1.0]", "[a:b:3.]", "[a:b:20]", "[a:b:1e1]", "[a:b:1e999]"])
def test_a_switch_past_the_last_step_never_comes(text):
    assert entries(text) == [[10, "a"]]


def test_the_old_rule_takes_a_share_below_one_and_a_step_from_one_on():
    assert entries("[a:b:1.0]", old_rule=True) == [[1, "a"], [10, "b"]]
    assert entries("[a:b:3.]", old_rule=True) == [[3, "a"], [10, "b"]]
    assert entries("[a:b:0.5]", old_rule=True) == [[5, "a"], [10, "b"]]


def test_switches_nest():
    assert entries("[[a:b:2]:c:5]") == [[2, "a"], [5, "b"], [10, "c"]]


def test_an_alternation_takes_turns():
    assert [text for _, text in entries("[a|b|]")] == ["a", "b", "", "a", "b", "", "a", "b", "", "a"]
    assert entries("[x|y]", steps=3) == [[1, "x"], [2, "y"], [3, "x"]]


def test_an_alternation_nests_in_a_switch():
    assert [text for _, text in entries("[[a|b]:c:3]")] == ["a", "b", "a"] + ["c"] * 7
    assert [text for _, text in entries("[a (red:1.4) circle:a [blue|green] square:0.5]", steps=4)] == [
        "a (red:1.4) circle", "a (red:1.4) circle", "a blue square", "a green square",
    ]


def test_weights_stay_in_the_text():
    assert entries("(a:[b:c:3])") == [[3, "(a:b)"], [10, "(a:c)"]]
    assert entries("[[a]] ([b:c:3]:1.2)") == [[3, "[[a]] (b:1.2)"], [10, "[[a]] (c:1.2)"]]


@pytest.mark.parametrize("text", [
    "", "a, b", r"\[b:c:3\]", "[a:b]", "[a]", "[a:b:c:3]", "[a|b:3]", "[a:b:c|d:3]", "[(a|b):3]", "[a:b:3", "[a::b:3]",
    "[a:b:3x]", "[a:b:(3)]", "[a (b:c:3]", "[a:b:\\3]", "[(a:b:c):d:3]",
])
def test_what_is_no_edit_is_text(text):
    assert entries(text) == [[10, text]]


@pytest.mark.parametrize("text", ["a|b [c:d:2]", "(a|b) [c:d:2]", "[a|b:3] [c:d:2]", "[c:d:2] \\"])
def test_a_bar_outside_an_alternation_or_a_last_backslash_makes_the_whole_prompt_text(text):
    assert entries(text) == [[10, text]]


@pytest.mark.parametrize("text, before, after", [
    ("x) [a:b:2]", "x) a", "x) b"),
    ("(x [a:b:2]", "(x a", "(x b"),
    ("[[a:b:2]", "[a", "[b"),
    ("[(a:b:c):[a:b:2]]", "[(a:b:c):a]", "[(a:b:c):b]"),
    ("[x [(] [a:b:2]", "[x [(] a", "[x [(] b"),
    # A1111 reads these now one way and now the other, by Python's hash seed
    ("[a:b:2]:c", "a:c", "b:c"),
    ("[a:b:2]]", "a]", "b]"),
    ("x [a:b:2]: y", "x a: y", "x b: y"),
])
def test_stray_brackets_and_colons_leave_edits_alone(text, before, after):
    assert entries(text) == [[2, before], [10, after]]


def test_every_timeline_rises_to_the_last_step():
    rnd = random.Random(11)
    parts = ["[", "[", "]", "]", ":", "|", "(", ")", "a", " ", ".5", "2", "[a:b:3]", "[a|b]", "\\["]
    for _ in range(2000):
        text = "".join(rnd.choice(parts) for _ in range(rnd.randint(1, 12)))
        ends = [end for end, _ in parse_timeline(text, 10)]
        assert ends == sorted(set(ends)) and ends[-1] == 10 and ends[0] >= 1, text


def test_an_entry_covers_one_call_more_than_its_end():
    timeline = parse_timeline("[a:b:0.5]", 10)
    assert [at_step(timeline, call)[1] for call in range(11)] == ["a"] * 6 + ["b"] * 5


def test_calls_past_the_timeline_use_its_first_entry():
    assert at_step([(5, "a"), (10, "b")], 11) == (5, "a")


def test_an_alternation_uses_its_first_option_for_two_calls():
    timeline = parse_timeline("[a|b]", 4)
    assert [at_step(timeline, call)[1] for call in range(5)] == ["a", "a", "b", "a", "b"]


# AND


@pytest.mark.parametrize("text, expected", [
    ("", [("", 1.0)]),
    ("cat : 2", [("cat", 2.0)]),
    ("a red circle AND noisy :-0.5", [("a red circle", 1.0), (" noisy", -0.5)]),
    ("a red circle :1.2 AND a blue square :0.6", [("a red circle", 1.2), (" a blue square", 0.6)]),
    ("a:.5 AND b:3. \n", [("a", 0.5), (" b", 3.0)]),
    ("a AND ANDY AND and", [("a", 1.0), (" ANDY", 1.0), (" and", 1.0)]),
    ("a:1.2.3", [("a:1.2.3", 1.0)]),
    ("(a:1.2)", [("(a:1.2)", 1.0)]),
    ("a:1:2", [("a:1", 2.0)]),
])
def test_and_splits_into_weighted_prompts(text, expected):
    assert split_and(text) == expected


# network tags


def test_network_tags_leave_the_prompt_with_their_arguments():
    text, networks = extract_networks("a <lora:tiny:0.4>red<lyco:b:te=1:unet=0.5:dyn=4:x=y=z> circle <3 <x:>")
    assert text == "a red circle <3 <x:>"
    assert networks == [
        Network("lora", ("tiny", "0.4"), {}),
        Network("lyco", ("b", "x=y=z"), {"te": "1", "unet": "0.5", "dyn": "4"}),
    ]


# comments


@pytest.mark.parametrize("text, expected", [
    ("a red circle # comment here\na blue square", "a red circle \na blue square"),
    ("# first\na", "\na"),
    ("a\n# whole line\nb", "a\nb"),
    ("a\n#\n#\nb", "a\n\nb"),
    ("a #", "a \n"),
    (r"a \# b", "a \\\n"),
    ("no comment", "no comment"),
])
def test_comments_go_to_the_end_of_their_line(text, expected):
    assert strip_comments(text) == expected


# hostile prompts

LENGTH = 200_000
HOSTILE = [
    piece * (LENGTH // len(piece))
    for piece in ["(", "[", "(a", "[a:", "[:", "[([(", ")", ":", ":  ", " ", "\\", "|", "<", "<a:", "#", "#\n", "\n",
                  "BREAK ", "AND ", ":1 ", "[a:b]", "[a|b]", "a", "1"]
] + [
    "(" * 10_000, "[" * 10_000,
    "[" * 40_000 + "a" + ":b:2]" * 40_000, "[" * 40_000 + "a" + "|b]" * 40_000, "(" * 90_000 + ")" * 90_000,
    "a" + " " * LENGTH + "b", ":" + " " * LENGTH, "(a:" + "1" * LENGTH + "x)", "[a:" + "1" * LENGTH + "x]",
    ":" + "1" * LENGTH + "x", "<a:" * 60_000 + ">", "(a" * 99 + "(a)" * 60_000,
]


@pytest.mark.parametrize("parse", [
    parse_attention, lambda text: parse_timeline(text, 20), split_and, extract_networks, strip_comments,
], ids=["parse_attention", "parse_timeline", "split_and", "extract_networks", "strip_comments"])
def test_no_prompt_takes_quadratic_time(parse):
    for text in HOSTILE:
        start = time.process_time()
        try:
            parse(text)
        except InvalidRequest:
            pass
        assert time.process_time() - start < 6, text[:20]  # under 1.5 s here; quadratic takes minutes
