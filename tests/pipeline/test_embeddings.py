import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file

from pipeline.caches import Cache
from pipeline.embeddings import SOLE, Embedding, EmbeddingShelf, EmbeddingTable, read_embedding, ti_hashes
from pipeline.errors import ModelError
from pipeline.families.clip import ClipTextEncoder, build_chunks
from pipeline.families.cond import Encoding
from pipeline.infotext import parse
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tests.pipeline.test_clip import Words, text_model, words

WIDTH = 8


def vectors(count=2, width=WIDTH, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def embedding(name, count=2, seed=0):
    return Embedding(name, {SOLE: vectors(count, seed=seed)}, hash=name * 64)


def table(*embeddings, skipped=None):
    return EmbeddingTable(embeddings, skipped, Words().encode)


def write(path, tensors, **metadata):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata or None)
    return path


# files

@pytest.mark.parametrize("tensors, shapes", [
    ({"emb_params": vectors(3)}, {SOLE: (3, WIDTH)}),  # A1111
    ({"<cat-toy>": vectors(1)[0]}, {SOLE: (1, WIDTH)}),  # diffusers
    ({"anything": vectors(2).half()}, {SOLE: (2, WIDTH)}),
    ({"clip_l": vectors(2, 8), "clip_g": vectors(2, 12)}, {"clip_l": (2, 8), "clip_g": (2, 12)}),  # SDXL
    ({"emb_params": vectors(3), "emb_params_out": vectors(3, 4)}, {SOLE: (3, WIDTH)}),  # OneTrainer
    ({"clip_l": vectors(2, 8), "clip_l_out": vectors(2, 8)}, {SOLE: (2, WIDTH)}),
    ({"clip_l": vectors(2, 8), "clip_g": vectors(2, 12), "clip_l_out": vectors(2, 8), "clip_g_out": vectors(2, 12)},
     {"clip_l": (2, 8), "clip_g": (2, 12)}),
    ({"clip_l_out": vectors(2, 8)}, {SOLE: (2, WIDTH)}),  # whatever its name
    ({"clip_l": vectors(2, 8), "clip_g": vectors(2, 12), "other": vectors()}, {"clip_l": (2, 8), "clip_g": (2, 12)}),
])
def test_every_layout_is_read(tmp_path, tensors, shapes):
    read = read_embedding(write(tmp_path / "a.safetensors", tensors))
    assert {encoder: tuple(tensor.shape) for encoder, tensor in read.vectors.items()} == shapes
    assert {tensor.dtype for tensor in read.vectors.values()} == {torch.float32}
    assert read.name == "a"
    assert read.count == next(iter(shapes.values()))[0]
    assert read.width == sum(width for _, width in shapes.values())


@pytest.mark.parametrize("tensors, words", [
    ({"a": vectors(), "b": vectors()}, "it must hold one tensor, or clip_l and clip_g; it holds 2"),
    ({}, "it holds 0"),
    ({"a": vectors(76)}, "it must hold 1 to 75 vectors, it holds float32 of shape (76, 8)"),
    ({"a": vectors(0)}, "of shape (0, 8)"),
    ({"a": vectors()[None]}, "of shape (1, 2, 8)"),
    ({"a": torch.tensor(1.0)}, "of shape ()"),
    ({"a": torch.ones(2, 8, dtype=torch.int64)}, "int64"),
    ({"a": vectors() / 0}, "NaN or infinity"),
    ({"clip_l": vectors(2), "clip_g": vectors(3)}, "different numbers of vectors"),
])
def test_what_is_no_embedding_is_refused_in_one_sentence(tmp_path, tensors, words):
    with pytest.raises(ModelError) as caught:
        read_embedding(write(tmp_path / "a.safetensors", tensors))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_hash_is_the_files(tmp_path):
    path = write(tmp_path / "a.safetensors", {"emb_params": vectors()})
    assert read_embedding(path).hash == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("given, kept", [("ab" * 32, True), ("ab", False), ("x, Steps: 1" * 6, False)])
def test_a_converted_file_keeps_the_hash_of_its_pickle(tmp_path, given, kept):
    read = read_embedding(write(tmp_path / "a.safetensors", {"emb_params": vectors()}, source_sha256=given))
    assert (read.hash == given) == kept
    assert len(read.hash) == 64


def test_what_is_known_of_its_training_is_kept(tmp_path):
    read = read_embedding(write(tmp_path / "a.safetensors", {"a": vectors()}, step="10", sd_checkpoint="4bdfc29c",
                                sd_checkpoint_name="v1-5", name="other"))
    assert (read.name, read.step, read.sd_checkpoint, read.sd_checkpoint_name) == ("a", 10, "4bdfc29c", "v1-5")


def test_a_step_that_is_no_number_is_no_step(tmp_path):
    assert read_embedding(write(tmp_path / "a.safetensors", {"a": vectors()}, step="-1e9")).step is None


# which model an embedding fits

SD1, SD2, SDXL, REFINER = {"clip_l": 768}, {"clip_l": 1024}, {"clip_l": 768, "clip_g": 1280}, {"clip_g": 1280}


@pytest.mark.parametrize("shapes, fitting", [
    ({SOLE: 768}, [SD1]),
    ({SOLE: 1024}, [SD2]),
    ({SOLE: 1280}, [REFINER]),
    ({SOLE: 2048}, []),
    ({"clip_l": 768, "clip_g": 1280}, [SDXL]),
    ({"clip_l": 1280, "clip_g": 768}, []),
])
def test_an_embedding_fits_models_of_its_widths_only(shapes, fitting):
    own = Embedding("a", {encoder: torch.zeros(1, width) for encoder, width in shapes.items()})
    assert [widths for widths in (SD1, SD2, SDXL, REFINER) if own.fits(widths)] == fitting


# where a prompt names one

def names(embeddings, tokens):
    return [found.name if found else token for token, found in embeddings.split(tokens)]


@pytest.mark.parametrize("known, tokens, expected", [
    (["5"], [5, 5], ["5", "5"]),
    (["5", "5 6"], [5, 6, 5], ["5 6", "5"]),  # the longest wins, in whichever order they came
    (["5 6", "5"], [5, 6, 5], ["5 6", "5"]),
    (["5 6 7", "5 6"], [5, 6, 8], ["5 6", 8]),
    (["5 6"], [5], [5]),  # not past the end
    (["6"], [5, 6], [5, "6"]),
    (["  "], [5], [5]),  # no tokens, no place
])
def test_the_longest_name_at_a_place_wins(known, tokens, expected):
    assert names(table(*map(embedding, known)), tokens) == expected


def chunks(text, *embeddings, emphasis="Original", comma_backtrack=20):
    return build_chunks(Words(), text, emphasis=emphasis, comma_backtrack=comma_backtrack, embeddings=table(*embeddings))


def places(chunk):
    return [(offset, found.name) for offset, found in chunk.embeddings]


def test_an_embedding_takes_the_place_of_its_name():
    (chunk,) = chunks("4 (5 6:1.5) 7", embedding("5 6", count=3))
    assert places(chunk) == [(1, "5 6")]
    assert chunk.tokens == [4, 0, 0, 0, 7]
    assert chunk.weights == [1.0, 1.5, 1.5, 1.5, 1.0]


@pytest.mark.parametrize("before, count, expected", [
    (72, 3, [75]),
    (73, 3, [73, 3]),
    (74, 1, [75]),
    (75, 1, [75, 1]),
    (1, 75, [1, 75]),
])
def test_an_embedding_that_does_not_fit_moves_to_the_next_chunk(before, count, expected):
    made = chunks(words(before) + " 6", embedding("6", count=count))
    assert [len(chunk.tokens) for chunk in made] == expected
    assert places(made[-1]) == [(expected[-1] - count, "6")]


def test_a_name_is_not_found_across_weights():
    (chunk,) = chunks("5 (6:1.5)", embedding("5 6"))
    assert places(chunk) == []


def test_an_embedding_behind_the_comma_of_a_cut_stays_in_its_chunk():
    first, second = chunks(words(60) + " , 6" + words(13), embedding("6", count=2))
    assert [len(first.tokens), len(second.tokens)] == [61, 15]
    assert places(first) == [(61, "6")]
    assert places(second) == []
    assert second.tokens[:2] == [0, 0]


# in the text encoder

@pytest.fixture(scope="module")
def model():
    return text_model(layers=2)


def encode(model, text, *embeddings, emphasis="Original", name="clip_l"):
    encoder = ClipTextEncoder(model, Words(), name=name)
    encoder.embeddings = table(*embeddings)
    return encoder.encode([text], Encoding(emphasis), clip_skip=1).tokens


def words_of(model, *ids):
    """An embedding that is nothing but the model's own words."""
    return Embedding("9", {SOLE: model.get_input_embeddings().weight[list(ids)]})


@pytest.mark.parametrize("emphasis", ["Original", "No norm", "Ignore"])
@pytest.mark.parametrize("text, spelled", [("4 9 7", "4 5 6 7"), ("9", "5 6"), (words(74) + " 9", words(74) + " BREAK 5 6")])
def test_vectors_act_as_the_words_that_they_are(model, text, spelled, emphasis):
    assert torch.allclose(encode(model, text, words_of(model, 5, 6), emphasis=emphasis),
                          encode(model, spelled, emphasis=emphasis), atol=1e-6)


def test_a_name_is_found_where_brackets_are_not_read(model):
    assert torch.allclose(encode(model, "4 9", words_of(model, 5, 6), emphasis="None"),
                          encode(model, "4 5 6", emphasis="None"), atol=1e-6)


def test_a_weight_acts_on_all_vectors(model):
    assert torch.allclose(encode(model, "4 (9:1.3)", words_of(model, 5, 6)), encode(model, "4 (5 6:1.3)"), atol=1e-6)


def test_each_encoder_takes_its_own_vectors(model):
    own = model.get_input_embeddings().weight
    both = Embedding("9", {"clip_l": own[[5]], "clip_g": own[[6]]})
    assert torch.allclose(encode(model, "9", both, name="clip_l"), encode(model, "5"), atol=1e-6)
    assert torch.allclose(encode(model, "9", both, name="clip_g"), encode(model, "6"), atol=1e-6)


def test_the_model_is_left_as_it_was(model):
    plain = encode(model, "9")
    encode(model, "9", words_of(model, 5, 6))
    assert torch.equal(encode(model, "9"), plain)
    assert not model.get_input_embeddings()._forward_hooks


# the shelf

class Encoder:
    """What the shelf needs of a text encoder."""

    tokens = Words()

    def __init__(self, name="clip_l", width=WIDTH):
        self.name, self.width, self.embeddings = name, width, EmbeddingTable()


def offered(shelf, *encoders):
    encoders = encoders or (Encoder(),)
    shelf.offer(list(encoders))
    return encoders[0].embeddings


def shelf_of(folder):
    return EmbeddingShelf(lambda: sorted(folder.iterdir()))


def test_what_fits_is_offered_and_what_does_not_is_told(tmp_path):
    write(tmp_path / "5.safetensors", {"a": vectors()})
    write(tmp_path / "6.safetensors", {"a": vectors(width=12)})
    write(tmp_path / "7.safetensors", {"clip_l": vectors(width=8), "clip_g": vectors(width=12)})
    (tmp_path / "8.pt").write_bytes(b"\x80\x02")
    (tmp_path / "9.safetensors").write_bytes(b"nonsense")
    shelf = shelf_of(tmp_path)
    assert shelf.known()[0].keys() == {"5", "6", "7"}
    known = offered(shelf)
    assert list(known.embeddings) == ["5"]
    assert known.skipped.keys() == {"6", "7", "8", "9"}
    assert "its vectors have 12 numbers, this model takes 8" in known.skipped["6"]
    assert "python -m tools.convert" in known.skipped["8"]
    assert list(offered(shelf, Encoder(), Encoder("clip_g", 12)).embeddings) == ["7"]


def test_a_prompt_that_names_what_cannot_be_used_is_told(tmp_path):
    skipped = {"5 6": "no 56", "7": "no 7", " ": "no name"}
    encoder = ClipTextEncoder.__new__(ClipTextEncoder)
    encoder.tokens, encoder.embeddings = Words(), table(embedding("7"), embedding("8"), skipped=skipped)
    found, missed = encoder.find_embeddings(["4 5 (8:1.2) 8", "5 6 7"], Encoding())
    assert [one.name for one in found] == ["8", "7"]
    assert missed == ["no 56"]


def test_all_encoders_of_a_model_get_it(tmp_path):
    write(tmp_path / "5.safetensors", {"clip_l": vectors(width=8), "clip_g": vectors(width=12)})
    first, second = Encoder(), Encoder("clip_g", 12)
    offered(shelf_of(tmp_path), first, second)
    assert first.embeddings.embeddings == second.embeddings.embeddings != {}


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    path = write(tmp_path / "5.safetensors", {"a": vectors()})
    shelf, encoder = shelf_of(tmp_path), Encoder()
    before = offered(shelf, encoder)
    assert offered(shelf, encoder) is before
    write(path, {"a": vectors(seed=1)})
    os.utime(path, ns=(1, 1))
    after = offered(shelf, encoder)
    assert after.key != before.key
    path.unlink()
    assert offered(shelf, encoder).embeddings == {}


def test_a_file_that_was_damaged_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "5.safetensors"
    path.write_bytes(b"")
    shelf, encoder = shelf_of(tmp_path), Encoder()
    assert list(offered(shelf, encoder).skipped) == ["5"]
    write(path, {"a": vectors()})
    assert list(offered(shelf, encoder).embeddings) == ["5"]


def test_a_file_that_goes_while_the_folder_is_listed_is_not_there(tmp_path):
    assert offered(EmbeddingShelf(lambda: [tmp_path / "gone.safetensors"])).skipped == {}


@pytest.mark.parametrize("pickle_first", [True, False])
def test_a_converted_file_stands_for_its_pickle(tmp_path, pickle_first):
    (tmp_path / "5.pt").write_bytes(b"\x80\x02")
    write(tmp_path / "5.safetensors", {"a": vectors()})
    files = sorted(tmp_path.iterdir(), reverse=not pickle_first)
    known = offered(EmbeddingShelf(lambda: files))
    assert (list(known.embeddings), known.skipped) == (["5"], {})


# infotext

def test_hashes_are_12_digits_and_names_lose_what_would_end_them():
    assert ti_hashes([[Embedding("a:b,c", {}, hash="0123456789abcdef")]]) == "abc: 0123456789ab"


def test_the_latest_encoding_comes_first_and_each_embedding_once():
    a, b, c = (Embedding(name, {}, hash=name * 12) for name in "abc")
    assert ti_hashes([[a], [b, a], [c]]) == f"c: {'c' * 12}, b: {'b' * 12}, a: {'a' * 12}"


def test_without_embeddings_nothing_is_said():
    assert ti_hashes([[], []]) is None


# in a job

@pytest.fixture
def job(demo, picture, tmp_path):
    """Runs a request of these fields with the embeddings in tmp_path."""
    cache = Cache()

    def run(**fields):
        p = StableDiffusionProcessingImg2Img(sd_model=demo, init_images=[picture], width=64, height=64, seed=1, steps=2, **fields)
        p.embeddings, p.cache = shelf_of(tmp_path), cache
        return process_images(p)

    yield run
    EmbeddingShelf().offer(demo.text_encoders)  # the model is shared


def test_infotext_and_comments_say_which_embeddings_a_job_used(job, demo, tmp_path):
    width = demo.text_encoders[0].width
    path = write(tmp_path / "zebrafish.safetensors", {"a": vectors(width=width)})
    other = write(tmp_path / "badness.safetensors", {"a": vectors(width=width, seed=1)})
    write(tmp_path / "toowide.safetensors", {"a": vectors(width=width + 1)})
    done = job(prompt="a (Zebrafish:1.2), toowide", negative_prompt="badness")
    hashes = ", ".join(f"{file.stem}: {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}" for file in (path, other))
    assert f'TI hashes: "{hashes}"' in done.info
    assert [comment for comment in done.comments if "toowide" in comment]
    assert not [comment for comment in done.comments if "fish" in comment]


@pytest.mark.parametrize("prompt, negative, order", [
    ("a (red) cat", "zebrafish", ["TI hashes", "Emphasis"]), ("zebrafish", "(dull)", ["Emphasis", "TI hashes"]),
    ("a cat", "(zebrafish)", ["TI hashes", "Emphasis"]), ("(zebrafish)", "fog", ["TI hashes", "Emphasis"]),
    ("zebrafish", "(zebrafish)", ["TI hashes", "Emphasis"]), ("(zebrafish)", "[dull]", ["Emphasis", "TI hashes"])])
def test_infotext_names_embeddings_and_emphasis_in_the_order_of_encoding(job, demo, tmp_path, prompt, negative, order):
    """As A1111, which encodes the negative prompt first and in each text looks at the embeddings before the emphasis."""
    write(tmp_path / "zebrafish.safetensors", {"a": vectors(width=demo.text_encoders[0].width)})
    told = parse(job(prompt=prompt, negative_prompt=negative, override_settings={"emphasis": "No norm"}).info)
    assert [name for name in told if name in order] == order


@pytest.mark.parametrize("fields", [{"prompt": "zebrafish"}, {"negative_prompt": "zebrafish"}])
def test_a_file_that_has_changed_changes_the_next_picture(job, demo, tmp_path, fields):
    pixels = []
    for seed in (0, 0, 1):
        path = write(tmp_path / "zebrafish.safetensors", {"a": 10 * vectors(width=demo.text_encoders[0].width, seed=seed)})
        os.utime(path, ns=(seed, seed))
        pixels.append(job(**fields).images[0].tobytes())
    assert pixels[0] == pixels[1] != pixels[2]
