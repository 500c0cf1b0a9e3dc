from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from pipeline.caches import Cache
from pipeline.conditioning import (
    MAX_CHUNKS,
    MAX_SUBPROMPTS,
    PromptEncoder,
    negative_at,
    positive_at,
)
from pipeline.errors import InvalidRequest
from pipeline.families.base import ModelInfo
from pipeline.families.cond import Cond, Encoding
from pipeline.families.placement import Placement
from pipeline.geometry import Size
from pipeline.options import Options

CPU = Placement(torch.device("cpu"), torch.float32, torch.float32)


@dataclass
class Recording:
    """A family whose texts are numbers: each encodes to itself, in as many chunks as it has words."""

    info: ModelInfo = ModelInfo(name="a", path="a")
    placement: Placement = CPU
    calls: list = field(default_factory=list)
    how: Encoding | None = None
    knows_old_emphasis: bool = True
    text_encoders: list = field(default_factory=list)

    def encode_prompts(self, texts, how):
        self.calls.append(texts)
        self.how = how
        words = [[float(word) for word in text.split()] or [0.0] for text in texts]
        longest = max(map(len, words))
        return Cond(torch.tensor([row + [0.0] * (longest - len(row)) for row in words])
                    .repeat_interleave(77, dim=1)[..., None])


def encoder(family=None, *, calls=10, cache=None, **options):
    return PromptEncoder(family or Recording(), Options(**options), calls, cache or Cache())


def first_tokens(cond):
    return cond.tokens[:, 0, 0].tolist()


def tokens(*values, width=1):
    return torch.tensor(values)[None, :, None].expand(1, len(values), width)


# counting

class Words:
    """A text encoder for which every word is a token."""

    def count(self, text, how):
        return len(text.split())


@pytest.mark.parametrize("prompt, count", [
    ("", 0), ("a b c", 3), ("a b AND c d e", 3), ("[a b c:d:0.5] e", 4), ("a [b|c d]", 3)])
def test_of_all_that_a_prompt_is_in_turn_the_longest_text_counts(prompt, count):
    assert encoder(Recording(text_encoders=[Words()])).count_tokens(prompt) == count


# AND

def test_and_makes_parts_with_their_weights():
    cond, members = positive_at(encoder().positive(["1 :1.5 AND 2 AND 3 :-0.5"]), call=0)
    assert first_tokens(cond) == [1, 2, 3]
    assert members == [[(0, 1.5), (1, 1.0), (2, -0.5)]]


def test_each_picture_knows_its_rows():
    cond, members = positive_at(encoder().positive(["1", "2 AND 3", "4"]), call=0)
    assert first_tokens(cond) == [1, 2, 3, 4]
    assert members == [[(0, 1.0)], [(1, 1.0), (2, 1.0)], [(3, 1.0)]]


def test_a_single_prompt_can_have_a_weight():
    _, members = positive_at(encoder().positive(["1 :2"]), call=0)
    assert members == [[(0, 2.0)]]


def test_and_is_a_word_in_the_negative_prompt():
    class Anything(Recording):
        def encode_prompts(self, texts, how):
            self.calls.append(texts)
            return Cond(torch.zeros(len(texts), 77, 1))

    family = Anything()
    assert len(encoder(family).negative(["1 AND 2"])) == 1
    assert family.calls == [["1 AND 2"]]


# timelines

def test_a_prompt_switches_after_its_step():
    parts = encoder(calls=10).positive(["[1:2:0.5]"])
    assert [first_tokens(positive_at(parts, call)[0]) for call in range(8)] == [[1]] * 6 + [[2]] * 2


def test_a_negative_prompt_switches_too():
    timelines = encoder(calls=10).negative(["[1:2:3]", "5"])
    assert [first_tokens(negative_at(timelines, call)) for call in (3, 4)] == [[1, 5], [2, 5]]


def test_parts_switch_each_at_its_own_step():
    parts = encoder(calls=10).positive(["[1:2:3] AND [3:4:6]"])
    assert [first_tokens(positive_at(parts, call)[0]) for call in (3, 4, 7)] == [[1, 3], [2, 3], [2, 4]]


def test_the_variants_of_a_timeline_are_encoded_in_one_call():
    family = Recording()
    encoder(family).positive(["[1:2:0.5]"])
    assert family.calls == [["1", "2"]]


def test_the_old_scheduling_is_an_option():
    new, old = (encoder(calls=10, use_old_scheduling=old).positive(["[1:2:2.0]"]) for old in (False, True))
    assert [first_tokens(positive_at(parts, 3)[0]) for parts in (new, old)] == [[1], [2]]


# lengths

def test_shorter_prompts_repeat_their_last_token():
    stacked = Cond.cat([Cond(tokens(1, 2)), Cond(tokens(3, 4, 5, 6))])
    assert stacked.tokens[..., 0].tolist() == [[1, 2, 2, 2], [3, 4, 5, 6]]


def test_prompts_of_one_length_stay():
    assert Cond.cat([Cond(tokens(1, 2)), Cond(tokens(3, 4))]).tokens[..., 0].tolist() == [[1, 2], [3, 4]]


def test_stacking_keeps_the_pooled_features_in_order():
    conds = [Cond(tokens(1), {"pooled": torch.tensor([[7.0]])}), Cond(tokens(2, 3), {"pooled": torch.tensor([[8.0]])})]
    assert Cond.cat(conds).extra["pooled"].tolist() == [[7], [8]]


def test_where_tokens_have_a_mask_shorter_prompts_end_in_tokens_that_do_not_count():
    conds = [Cond(tokens(1), mask=torch.ones(1, 1, dtype=torch.bool)), Cond(tokens(2, 3), mask=torch.ones(1, 2, dtype=torch.bool))]
    joined = Cond.cat(conds)
    assert joined.tokens[..., 0].tolist() == [[1, 0], [2, 3]] and joined.mask.tolist() == [[True, False], [True, True]]
    assert joined[:1].mask.tolist() == [[True, False]] and joined.cut(1).mask.tolist() == [[True], [True]]


def test_a_long_and_a_short_picture_fit_in_one_batch():
    cond, _ = positive_at(encoder().positive(["1", "2 3"]), call=0)
    assert cond.tokens.shape == (2, 154, 1)
    assert cond.tokens[:, 100, 0].tolist() == [1, 3]


def test_repeating_to_the_same_length_is_the_same():
    assert torch.equal(Cond(tokens(1, 2)).padded(2).tokens, tokens(1, 2))


def test_empty_prompts_fill_up():
    padded = Cond(tokens(1, 2), {"pooled": torch.tensor([[7.0]])}).followed_by(Cond(tokens(8, 9)), 6)
    assert padded.tokens[..., 0].tolist() == [[1, 2, 8, 9, 8, 9]]
    assert padded.extra["pooled"].tolist() == [[7]]


def test_empty_prompts_fill_up_every_row():
    padded = Cond(torch.cat([tokens(1), tokens(2)])).followed_by(Cond(tokens(9)), 2)
    assert padded.tokens[..., 0].tolist() == [[1, 9], [2, 9]]


@pytest.mark.parametrize("length", [1, 2])
def test_a_prompt_that_is_long_enough_needs_no_filling(length):
    cond = Cond(tokens(1, 2))
    assert cond.followed_by(Cond(tokens(9)), length) is cond


def test_the_empty_prompt_is_one_row_and_encoded_once_without_networks():
    asked, family, cache = [], Recording(), Cache()
    for networks in ((), ("a network",)):
        encoder_ = replace(encoder(family, cache=cache), networks=networks)
        assert encoder_.encode_empty(before=lambda: asked.append(networks)).tokens.shape == (1, 77, 1)
    assert asked == [()] and family.calls == [[""]]


def test_texts_are_those_of_all_steps_and_parts():
    assert encoder().texts(["a [b:c:0.5] AND d", "a [b:c:0.5] AND d"], ["e AND f"]) == [
        ["e AND f"], ["a b", "a c"], [" d"]]


# what the family is told

def test_the_options_reach_the_text_encoder():
    family = Recording()
    encoder(family, emphasis="No norm", CLIP_stop_at_last_layers=2, comma_padding_backtrack=5,
            use_old_emphasis_implementation=True).positive(["1"])
    assert family.how == Encoding(emphasis="No norm", clip_skip=2, comma_backtrack=5, old_emphasis=True, size=Size(512, 512))


def test_sdxl_is_told_of_the_picture_and_which_prompt_it_is():
    family = Recording()
    asked = PromptEncoder(family, Options(sdxl_crop_top=8, sdxl_crop_left=4, sdxl_clip_l_skip=True), 10, Cache(), size=Size(96, 64))
    asked.positive(["1"])
    said = Encoding(size=Size(96, 64), crop_top=8, crop_left=4, aesthetic_score=6.0, clip_l_skip=True)
    assert family.how == said
    asked.negative(["1"])
    assert family.how == replace(said, aesthetic_score=2.5, negative=True)


# the cache

def test_a_prompt_is_encoded_once():
    family, cache = Recording(), Cache()
    for _ in range(2):
        encoder(family, cache=cache).positive(["1", "1 :0.5", "2"])
        encoder(family, cache=cache).negative(["1", "2"])
    assert family.calls == [["1"], ["2"], ["1"], ["2"]]


def test_a_picture_of_another_size_is_encoded_anew():
    family, cache = Recording(), Cache()
    for size in (Size(64, 64), Size(64, 96), Size(64, 64)):
        PromptEncoder(family, Options(), 10, cache, size=size).positive(["1"])
    assert family.calls == [["1"], ["1"]]


@pytest.mark.parametrize("options", [
    {"CLIP_stop_at_last_layers": 2}, {"emphasis": "Ignore"}, {"comma_padding_backtrack": 0},
])
def test_another_way_of_encoding_is_encoded_anew(options):
    family, cache = Recording(), Cache()
    encoder(family, cache=cache).positive(["1"])
    encoder(family, cache=cache, **options).positive(["1"])
    assert family.calls == [["1"], ["1"]]


@pytest.mark.parametrize("other", [
    Recording(info=ModelInfo(name="a", path="a", hash="0123456789")),
    Recording(placement=Placement(CPU.device, torch.bfloat16, torch.float32)),
])
def test_another_model_is_encoded_anew(other):
    cache = Cache()
    encoder(cache=cache).positive(["1"])
    encoder(other, cache=cache).positive(["1"])
    assert other.calls == [["1"]]


def test_the_same_switch_at_another_step_is_right():
    cache = Cache()
    encoder(cache=cache, calls=10).positive(["[1:2:0.5]"])
    later = encoder(cache=cache, calls=20).positive(["[1:2:0.5]"])
    assert [first_tokens(positive_at(later, call)[0]) for call in (10, 11)] == [[1], [2]]


def test_and_joins_only_so_many_parts():
    encoder().positive([" AND ".join(["1"] * MAX_SUBPROMPTS)])
    with pytest.raises(InvalidRequest, match=f"^prompt: AND may join at most {MAX_SUBPROMPTS} parts, got {MAX_SUBPROMPTS + 1}$"):
        encoder().positive([" AND ".join(["1"] * (MAX_SUBPROMPTS + 1))])


def test_what_editing_makes_of_a_prompt_is_bounded_over_a_batch():
    with pytest.raises(InvalidRequest, match=f"^prompt: over all steps it takes .* at most {MAX_CHUNKS}"):
        encoder(calls=100).positive(["[1|2]"] * (MAX_CHUNKS // 100 + 1))


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_a_long_prompt_with_many_edits_is_refused_before_it_is_encoded(name):
    family = Recording(text_encoders=[SimpleNamespace(count=lambda text, how: len(text.split()))])
    with pytest.raises(InvalidRequest, match=f"takes .* chunks of 75 tokens; at most {MAX_CHUNKS}"):
        getattr(encoder(family, calls=2000), name)(["[1|2]" + " 3" * 75 * 3])
    assert family.calls == []
