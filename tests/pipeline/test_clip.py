from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pipeline.errors import InvalidRequest
from pipeline.families.clip import ClipTextEncoder, bracket_factor, build_chunks, emphasize, read_old
from pipeline.families.cond import Encoding
from pipeline.families.sd import SD1, SD2, prompt_readers, read_tokenizer
from pipeline.families.sdxl import BASE, REFINER

COMMA, START, END = 1, 2, 3


class Words:
    """Every word is its own token id, and so is a comma that stands apart; the word BREAK is 9."""

    start, end, comma = START, END, COMMA
    brackets = {10: 1.1, 11: 1 / 1.1}

    def encode(self, texts):
        return [[COMMA if word == "," else int(word) for word in text.replace("BREAK", "9").split()] for text in texts]


def words(count):
    return " 5" * count


def chunks(text, *, emphasis="Original", comma_backtrack=20):
    return build_chunks(Words(), text, emphasis=emphasis, comma_backtrack=comma_backtrack)


def lengths(text, **options):
    return [len(chunk.tokens) for chunk in chunks(text, **options)]


# chunks

@pytest.mark.parametrize("count, expected", [
    (0, [0]), (1, [1]), (75, [75]), (76, [75, 1]), (150, [75, 75]), (151, [75, 75, 1]),
])
def test_a_chunk_holds_75_tokens(count, expected):
    assert lengths(words(count)) == expected


@pytest.mark.parametrize("position, expected", [
    (74, [75, 1]),  # the comma ends the chunk
    (73, [74, 2]),
    (55, [56, 20]),  # 20 tokens from the end
    (54, [75, 1]),  # 21
    (0, [75, 1]),
])
def test_a_chunk_is_cut_behind_a_comma_among_its_last_20_tokens(position, expected):
    assert lengths(words(position) + " ," + words(75 - position)) == expected


@pytest.mark.parametrize("backtrack, expected", [(0, [75, 1]), (4, [75, 1]), (5, [71, 5]), (74, [71, 5])])
def test_the_backtrack_is_an_option(backtrack, expected):
    assert lengths(words(70) + " ," + words(5), comma_backtrack=backtrack) == expected


def test_the_last_of_several_commas_counts():
    assert lengths(words(60) + " ," + words(5) + " ," + words(9)) == [67, 9]


def test_a_comma_as_token_76_does_not_cut():
    assert lengths(words(70) + " ," + words(4) + " ,") == [75, 1]


def test_a_comma_of_an_earlier_chunk_is_forgotten():
    assert lengths(words(70) + " ," + words(5) + words(71)) == [71, 75, 1]


def test_a_short_prompt_is_not_cut_at_its_commas():
    assert lengths("5 , 5 , 5") == [5]


def test_weights_move_with_their_tokens():
    first, second = chunks(words(69) + " ," + " (6 6 6:1.5)" + words(3))
    assert set(first.weights) == {1.0}
    assert second.tokens == [6, 6, 6, 5, 5, 5]
    assert second.weights == [1.5, 1.5, 1.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("typed, plain", [
    ("it\u2019s \u201cred\u201d", "it's \"red\""), ("a\uff0cb", "a,b"), ("\ufb01eld &amp; sea", "field & sea"),
    ("A\u00c9", "a\u00e9"), ("\u00e2\u20ac\u0153red", '"red'),
])
def test_texts_are_cleaned_as_clip_s_captions_were(tmp_path, typed, plain):
    tokens = read_tokenizer(tmp_path)
    assert tokens.encode([typed]) == tokens.encode([plain])


# BREAK and emphasis

def test_break_starts_a_chunk():
    assert [chunk.tokens for chunk in chunks("5 BREAK 6 7")] == [[5], [6, 7]]


def test_break_at_the_start_leaves_an_empty_chunk():
    assert [chunk.tokens for chunk in chunks("BREAK 5")] == [[], [5]]


def test_break_inside_weights_is_a_word():
    assert [chunk.tokens for chunk in chunks("(5 BREAK 6:1.2)")] == [[5, 9, 6]]


def test_brackets_become_weights():
    (chunk,) = chunks("5 (6:1.5) [7]")
    assert chunk.tokens == [5, 6, 7]
    assert chunk.weights == pytest.approx([1.0, 1.5, 1 / 1.1])


def test_emphasis_none_reads_no_grammar():
    class Letters(Words):
        def encode(self, texts):
            return [[4 + ord(letter) for letter in text] for text in texts]

    text = "(a:1.2) BREAK b"
    (chunk,) = build_chunks(Letters(), text, emphasis="None", comma_backtrack=20)
    assert len(chunk.tokens) == len(text)
    assert set(chunk.weights) == {1.0}


# emphasis on features

Z = torch.randn(2, 77, 8, generator=torch.Generator().manual_seed(0)) + 0.5
WEIGHTS = torch.ones(2, 77)
WEIGHTS[0, 1], WEIGHTS[1, 2] = 1.5, 0.5


@pytest.mark.parametrize("mode", ["None", "Ignore"])
def test_ignored_emphasis_changes_nothing(mode):
    assert torch.equal(emphasize(Z, WEIGHTS, mode), Z)


def test_no_norm_multiplies_each_token():
    assert torch.equal(emphasize(Z, WEIGHTS, "No norm")[0, 1], Z[0, 1] * 1.5)


def test_original_emphasis_keeps_the_mean_of_all_texts():
    emphasized = emphasize(Z, WEIGHTS, "Original")
    assert emphasized.mean().item() == pytest.approx(Z.mean().item(), rel=1e-5)
    assert emphasized[0].mean().item() != pytest.approx(Z[0].mean().item(), rel=1e-5)


def test_original_emphasis_keeps_the_proportions_of_the_weights():
    factor = emphasize(Z, WEIGHTS, "Original") / Z
    assert (factor[0, 1] / factor[0, 0]).tolist() == pytest.approx([1.5] * 8, rel=1e-5)
    assert (factor[1, 2] / factor[0, 0]).tolist() == pytest.approx([0.5] * 8, rel=1e-5)


# the text encoder

def text_model(layers, weights=None):
    config = CLIPTextConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=layers,
                            num_attention_heads=2, bos_token_id=START, eos_token_id=END, pad_token_id=END)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPTextModel(config).eval().requires_grad_(False)
        norm = model.final_layer_norm
        norm.weight.normal_()  # as made it is 1 and its bias 0, and its absence would hardly show
        norm.bias.normal_()
    if weights:
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model


@pytest.fixture(scope="module")
def model():
    return text_model(layers=3)


def encode(model, *texts, emphasis="Original", clip_skip=1):
    encoder = ClipTextEncoder(model, Words())
    return encoder.encode(list(texts), Encoding(emphasis), clip_skip=clip_skip).tokens


def test_a_text_becomes_77_features_a_chunk(model):
    assert encode(model, "5").shape == (1, 77, 8)
    assert encode(model, words(76), "5").shape == (2, 154, 8)


def test_ids_are_start_text_and_ends(model):
    seen = []
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    encode(model, "5 6")
    handle.remove()
    assert seen[0].tolist() == [[START, 5, 6] + [END] * 74]


def test_a_full_chunk_still_ends_with_the_end_token(model):
    seen = []
    handle = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    encode(model, words(75))
    handle.remove()
    assert seen[0].tolist() == [[START] + [5] * 75 + [END]]


def test_clip_skip_1_is_the_model_s_own_output(model):
    ids = torch.tensor([[START, 5, 6] + [END] * 74])
    assert torch.equal(encode(model, "5 6", emphasis="Ignore"), model(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize("clip_skip", [2, 3])
def test_clip_skip_is_the_output_of_a_model_without_its_last_layers(model, clip_skip):
    shorter = text_model(layers=4 - clip_skip, weights=model.state_dict())
    assert torch.allclose(encode(model, "5 6", clip_skip=clip_skip), encode(shorter, "5 6"), atol=1e-6)


def test_clip_skip_2_is_the_hidden_state_before_the_last_through_the_final_norm(model):
    hidden = model(input_ids=torch.tensor([[START, 5, 6] + [END] * 74]), output_hidden_states=True).hidden_states[-2]
    normed = torch.nn.functional.layer_norm(hidden, (8,), model.final_layer_norm.weight, model.final_layer_norm.bias)
    assert torch.allclose(encode(model, "5 6", emphasis="Ignore", clip_skip=2), normed, atol=1e-6)


def test_clip_skip_has_no_more_layers_to_skip_than_there_are(model):
    assert torch.equal(encode(model, "5", clip_skip=0), encode(model, "5", clip_skip=1))
    with pytest.raises(InvalidRequest) as error:
        encode(model, "5", clip_skip=5)
    assert str(error.value) == "CLIP_stop_at_last_layers must be at most 4 with this model's text encoder, got 5"


def test_chunks_are_encoded_apart_and_joined(model):
    together = encode(model, "5 6 BREAK 7", emphasis="Ignore")
    apart = torch.hstack([encode(model, "5 6", emphasis="Ignore"), encode(model, "7", emphasis="Ignore")])
    assert torch.allclose(together, apart, atol=1e-6)


def test_a_shorter_text_is_padded_with_empty_chunks(model):
    padded = encode(model, "5", words(76), emphasis="Ignore")[0]
    assert torch.allclose(padded[:77], encode(model, "5", emphasis="Ignore")[0], atol=1e-6)
    assert torch.allclose(padded[77:], encode(model, "", emphasis="Ignore")[0], atol=1e-6)


def test_a_weight_acts_on_its_own_token(model):
    factor = encode(model, "5 (6:1.5) 7", emphasis="No norm") / encode(model, "5 6 7", emphasis="No norm")
    assert factor[0, :5, 0].tolist() == pytest.approx([1, 1, 1.5, 1, 1], rel=1e-5)


def test_each_chunk_keeps_its_own_mean(model):
    weighted, plain = encode(model, "(5:1.5) 6 BREAK 7"), encode(model, "5 6 BREAK 7")
    assert weighted[:, :77].mean().item() == pytest.approx(plain[:, :77].mean().item(), rel=1e-4)
    assert torch.allclose(weighted[:, 77:], plain[:, 77:], atol=1e-6)


def test_features_are_float32_whatever_the_model_is():
    half = text_model(layers=2).to(torch.bfloat16)
    assert encode(half, "5").dtype == encode(half, "5", clip_skip=2).dtype == torch.float32


# what differs between the encoders of the families

def ids_of(encoder, model, text):
    seen = []
    with model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True):
        encoder.encode([text], Encoding())
    return torch.cat(seen).tolist()


@pytest.mark.parametrize("text, expected", [
    ("5 6", [[START, 5, 6, END] + [0] * 73]),
    (f"5 {END} 6", [[START, 5, END] + [0] * 74]),  # the first end token counts, also one of the prompt's own
    ("", [[START, END] + [0] * 75]),
    (words(75), [[START] + [5] * 75 + [END]]),
    ("5 BREAK 6", [[START, 5, END] + [0] * 74, [START, 6, END] + [0] * 74]),
])
def test_padding_of_its_own_begins_behind_the_first_end_token(model, text, expected):
    assert ids_of(ClipTextEncoder(model, Words(), padding=0), model, text) == expected


def hidden_states(model, *ids):
    return model(input_ids=torch.tensor([[START, *ids] + [END] * (76 - len(ids))]), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("layer, clip_skip, taken", [(1, None, 1), (2, None, 2), (2, 3, 3), (2, 1, 1), (1, 4, 4), (9, None, 4)])
@pytest.mark.parametrize("final_norm", [True, False])
def test_an_encoder_has_a_layer_of_its_own_that_clip_skip_replaces(model, layer, clip_skip, taken, final_norm):
    encoder = ClipTextEncoder(model, Words(), layer=layer, final_norm=final_norm)
    expected = hidden_states(model, 5, 6)[-taken]
    encoded = encoder.encode(["5 6"], Encoding("Ignore"), clip_skip=clip_skip).tokens
    assert torch.equal(encoded, model.final_layer_norm(expected) if final_norm else expected)


@pytest.fixture(scope="module")
def projecting():
    config = CLIPTextConfig(vocab_size=16, hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                            projection_dim=6, bos_token_id=START, eos_token_id=END, pad_token_id=0, hidden_act="gelu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIPTextModelWithProjection(config).eval().requires_grad_(False)


def encode_pooled(model, *texts, emphasis="Ignore"):
    encoder = ClipTextEncoder(model, Words(), name="clip_g", padding=0, layer=2, final_norm=False, pooled=True)
    return encoder.encode(list(texts), Encoding(emphasis))


def test_pooled_features_are_the_projection_of_the_first_end_token(projecting):
    ids = torch.tensor([[START, 5, 6, END] + [0] * 73])
    last = projecting.text_model(input_ids=ids).last_hidden_state
    cond = encode_pooled(projecting, "5 6")
    assert torch.allclose(cond.extra["pooled"], projecting.text_projection(last[:, 3]), atol=1e-6)
    assert torch.equal(cond.tokens, projecting(input_ids=ids, output_hidden_states=True).hidden_states[-2])


def test_pooled_features_come_from_the_first_chunk_and_know_no_weights(projecting):
    plain = encode_pooled(projecting, "5 6").extra["pooled"]
    assert torch.allclose(encode_pooled(projecting, "5 (6:1.5) BREAK 7", emphasis="Original").extra["pooled"], plain, atol=1e-6)
    assert encode_pooled(projecting, "5 6", words(76)).extra["pooled"].shape == (2, 6)


def test_an_encoder_that_is_not_pooled_gives_no_vector(model):
    assert ClipTextEncoder(model, Words()).encode(["5"], Encoding()).extra == {}


# the old reading

@pytest.mark.parametrize("text, factor", [("(", 1.1), ("((", 1.1**2), (")</w>", 1 / 1.1), ("[", 1 / 1.1), ("]", 1.1), ("()", 1.0),
                                          ("a", 1.0)])
def test_brackets_in_a_token_are_a_factor(text, factor):
    assert bracket_factor(text) == pytest.approx(factor)


@pytest.mark.parametrize("text, emphasis, tokens, weights", [
    ("5 10 6 11 7", "Original", [5, 6, 7], [1, 1.1, 1]),
    ("10 10 5", "Original", [5], [1.1**2]),
    ("11 5 9", "Original", [5, 9], [1 / 1.1, 1 / 1.1]),  # BREAK is a word
    ("5 10 6", "None", [5, 10, 6], [1, 1, 1]),
])
def test_of_old_brackets_were_read_among_the_tokens(text, emphasis, tokens, weights):
    chunk = read_old(Words(), text, emphasis=emphasis)
    assert chunk.tokens == tokens and chunk.weights == pytest.approx(weights)


def test_of_old_a_prompt_was_cut_at_75_tokens(model):
    assert read_old(Words(), words(80), emphasis="Original").tokens == [5] * 75
    cond = ClipTextEncoder(model, Words()).encode([words(80)], Encoding(old_emphasis=True))
    assert cond.tokens.shape == (1, 77, 8)


OPEN_CLIP = read_tokenizer(Path("nowhere")).as_open_clip()
PLAIN_CLIP = read_tokenizer(Path("nowhere"))
A, B = 320, 321


def plain(*words):
    return PLAIN_CLIP.encode([" ".join(words)])[0]


@pytest.mark.parametrize("text, ids", [
    ("a <end_of_text> b", [A, 49407, B]),
    ("a <start_of_text> b", [A, 49406, B]),
    ("a<END_of_text>b", [A, 49407, B]),
    ("<end_of_text><end_of_text>", [49407, 49407]),
    ("a !<end_of_text> b", plain("a", "!<", "end", "_", "of", "_", "text", ">", "b")),  # behind a mark it is not seen
    ("a <|endoftext|> b", plain("a", "<|", "endoftext", "|>", "b")),
    ("a <|startoftext|> b", plain("a", "<|", "startoftext", "|>", "b")),
    ("a < b &amp; c", plain("a", "<", "b", "&", "c")),  # where there is a "<", ftfy leaves entities alone
    ("a < b &amp;amp; c", plain("a", "<", "b", "&", "c")),
    ("a < b &amp;amp;amp; c", plain("a", "<", "b", "&", "amp", ";", "c")),  # twice and no more
    ("a &lt;end_of_text&gt; b", [A, 49407, B]),
    ("It's  a\nQUEEN’s don't 42nd café 猫", None),  # None: as CLIP reads it
    ("", []),
])
def test_open_clips_tokenizer_has_names_of_its_own_for_special_tokens_and_undoes_entities_twice(text, ids):
    assert OPEN_CLIP.encode([text]) == [ids] if ids is not None else OPEN_CLIP.encode([text]) == PLAIN_CLIP.encode([text])


@pytest.mark.parametrize("facts, open_clip", [(SD1, [False]), (SD2, [True]), (BASE, [False, True]), (REFINER, [True])])
def test_open_clips_towers_read_with_its_tokenizer(facts, open_clip):
    modules = {part: SimpleNamespace(config=SimpleNamespace(hidden_size=8)) for part in facts.text_encoders}
    readers = prompt_readers(facts, modules, PLAIN_CLIP)
    assert [type(reader.tokens).__name__ == "OpenClipTokens" for reader in readers] == open_clip
