"""Model files made to do harm: each is refused at once, in one sentence that names it."""

import inspect
import json
import os
import shutil
import signal
import struct

import pytest
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from pipeline import families
from pipeline.errors import ModelError
from pipeline.families import configs, tiny
from pipeline.families.vocabulary import clip_tokenizer
from pipeline.small_files import read_json
from tests.families.conftest import FLOAT32

AT_MOST = 20
"""Seconds that refusing a file may take, on a slow machine."""


@pytest.fixture(autouse=True)
def soon():
    """Ends a test that waits for ever."""
    def give_up(*_):
        pytest.fail(f"it took more than {AT_MOST} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(AT_MOST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A sound SD1 folder to be harmed."""
    return shutil.copytree(checkpoint("sd1")[0], tmp_path / "model")


@pytest.fixture
def file(checkpoint, tmp_path):
    """A sound SD1 file to be harmed."""
    return shutil.copy(checkpoint("sd1")[1], tmp_path / "my.safetensors")


def refusal(path):
    with pytest.raises(ModelError) as error:
        families.load(path, FLOAT32)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- configs

@pytest.mark.parametrize("part, values, said", [
    ("unet", {"layers_per_block": 5_000_000},
     'the unet of "model": layers_per_block must be a whole number from 1 to 8, or a list of 1 to 8 times a whole number '
     "from 1 to 8, got 5000000"),
    ("unet", {"layers_per_block": [2, 10**9, 2]}, "layers_per_block must be"),
    ("unet", {"transformer_layers_per_block": 10**6}, "transformer_layers_per_block must be"),
    ("unet", {"block_out_channels": [32] * 100_000}, "block_out_channels must be a list of 1 to 8 times"),
    ("unet", {"down_block_types": ["KDownBlock2D"] * 3}, "down_block_types must be"),
    ("unet", {"norm_num_groups": 0}, "norm_num_groups must be"),
    ("unet", {"class_embed_type": "timestep"}, "class_embed_type must be null, got 'timestep'"),
    ("unet", {"norm_eps": "1e-5"}, "norm_eps must be a number from 0 to 1, got '1e-5'"),
    ("unet", {"out_channels": True}, "out_channels must be a whole number from 1 to 64, got True"),
    ("vae", {"layers_per_block": 10**7}, 'the vae of "model": layers_per_block must be a whole number from 1 to 8, got 10000000'),
    ("vae", {"scaling_factor": 0}, "scaling_factor must be"),
    ("vae", {"scaling_factor": float("nan")}, "scaling_factor must be"),
    ("text_encoder", {"num_hidden_layers": 10**8}, 'the text_encoder of "model": num_hidden_layers must be'),
    ("text_encoder", {"max_position_embeddings": 10**12}, "max_position_embeddings must be"),
    ("text_encoder", {"hidden_act": "os.system"}, "hidden_act must be one of quick_gelu, gelu, got 'os.system'"),
])
def test_a_config_out_of_bounds_is_refused(folder, part, values, said):
    change(folder / part / "config.json", **values)
    assert said in refusal(folder)


@pytest.mark.parametrize("values, said", [
    ({"beta_start": -1}, "beta_start must be"), ({"beta_end": "many"}, "beta_end must be"),
    ({"beta_end": [1] * 10}, "beta_end must be a number from 1e-09 to 0.999, got a list of 10"),
    ({"prediction_type": {"a": 1}}, "prediction_type must be text, or null, got an object of 1"),
])
def test_a_schedule_out_of_bounds_is_refused(folder, values, said):
    change(folder / "scheduler" / "scheduler_config.json", **values)
    assert f'"scheduler/scheduler_config.json": {said}' in refusal(folder)


@pytest.mark.parametrize("values", [
    {"native_size": 10**9}, {"native_size": "large"}, {"latent_rgb_factors": [[1, 2]]}, {"latent_rgb_factors": [[[]] * 3] * 4},
    {"latent_rgb_bias": [1e300, 0, 0]}, {"latent_rgb_bias": 5},
])
def test_what_a_model_says_of_itself_is_checked(folder, values):
    (folder / "palimpsest.json").write_text(json.dumps(values))
    assert f'"model/palimpsest.json": {next(iter(values))} must be' in refusal(folder)


def test_keys_that_nobody_knows_reach_no_builder(folder, monkeypatch):
    """Among them the one by which transformers fetches code of the Hub, which fails here as nothing may be fetched."""
    harmful = {"_attn_implementation": "kernels-community/anything", "attn_implementation": "owner/name",
               "_attn_implementation_internal": "owner/name", "auto_map": {"AutoModel": "owner/name--a.B"},
               "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}, "torch_dtype": "nonsense",
               "id2label": {str(number): "" for number in range(10_000)}, "num_labels": 10**9}
    for part in ("unet", "vae", "text_encoder"):
        change(folder / part / "config.json", **harmful)
    change(folder / "tokenizer" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["owner/name--a.B", None]},
           tokenizer_class="owner/name", chat_template="{% for a in range(10**9) %}{% endfor %}", fix_mistral_regex=True)
    family = families.load(folder, FLOAT32)
    assert family.modules["text_encoder"].config._attn_implementation in ("eager", "sdpa")


@pytest.mark.parametrize("rules, builder", [
    (configs.UNET, UNet2DConditionModel), (configs.VAE, AutoencoderKL), (configs.TINY, AutoencoderTiny)])
def test_every_argument_of_diffusers_has_a_rule(rules, builder):
    """And its default obeys it, so that what is left out is what diffusers itself would take."""
    arguments = {name: spec.default for name, spec in inspect.signature(builder.__init__).parameters.items() if name != "self"}
    assert rules.keys() == arguments.keys()
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    assert configs.valid_values("it", plain, rules) == plain


def test_a_config_of_a_preview_decoder_is_checked(tmp_path):
    (tmp_path / "config.json").write_text('{"num_decoder_blocks": [100000000, 3, 3, 1]}')
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="num_decoder_blocks must be"):
        tiny.read(tmp_path, FLOAT32)


# --- files that are not what they seem

CONFIGS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "palimpsest.json", "tokenizer/vocab.json", "tokenizer/merges.txt")
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("name", [*CONFIGS, WEIGHTS])
@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
def test_only_regular_files_are_read(folder, name, kind):
    path = folder / name
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "link to a device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    said = refusal(folder)
    assert "regular file" in said or "is a directory" in said.lower() or "holds no" in said


@pytest.mark.parametrize("kind", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_yaml_is_read(file, kind):
    kind(file.with_suffix(".yaml"))
    assert refusal(file) == '"my.yaml" beside the checkpoint cannot be read: it is not a regular file'


MALFORMED = {
    "nothing": b"", "no text": b"\xff\xfe\x00\xd8", "cut short": b'{"a": ', "no object": b"[1, 2]", "a word": b"null",
    "nested": b"[" * 100_000, "nested objects": b'{"a":' * 50_000, "a long number": b'{"in_channels": ' + b"9" * 100_000 + b"}",
    "too large": b" " * ((1 << 24) + 2),
}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.endswith(".json")])
@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_refused_in_a_sentence(folder, name, content):
    (folder / name).write_bytes(content)
    assert name.rpartition("/")[2] in refusal(folder)


YAMLS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{name}: &{name} [{', '.join(f'*{last}' for _ in range(9))}]\n"
                                           for last, name in zip("abcdefgh", "bcdefghi")) + "model: {params: {cond_stage_config: *i}}",
    "merged aliases": "a: &a {x: 1}\n" + "".join(f"{name}: &{name} {{<<: [{', '.join(f'*{last}' for _ in range(9))}]}}\n"
                                                  for last, name in zip("abcdefgh", "bcdefghi")) + "model: {params: *i}",
    "an alias of itself": "model: &m {params: *m}",
    "nested": "model: " + "[" * 20_000,
    "a date that is none": "model: {params: {scale_factor: 2026-99-99}}",
    "a long number": "model: {params: {scale_factor: " + "9" * 6000 + "}}",
    "a number of 60s": "model: {params: {scale_factor: 1" + ":59" * 3000 + "}}",
    "another type": "model: !!python/object/apply:os.system [date]",
    "an unhashable key": "model: {? [a] : b}",
    "text that is none": "\ud800\x00",
    "too large": "#" * 100_000,
    "a scale of nothing": "model: {params: {scale_factor: 0}}",
    "a list": "model: {params: {linear_start: [1]}}",
    "heads": "model: {params: {unet_config: {params: {num_heads: 99999999999}}}}",
    "no object": "model: {params: {unet_config: {params: [1]}}}",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_a_harmful_yaml_is_refused(file, text):
    file.with_suffix(".yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refusal(file).startswith('"my.yaml" beside ')


@pytest.mark.parametrize("encoders", ["3", "[]", "[7]", "{}", "[{params: 4}]", "[{params: {version: {a: b}}}]",
                                      "[{params: {version: ../../etc}}]"])
def test_odd_text_encoders_in_a_yaml_are_as_good_as_none(file, encoders):
    file.with_suffix(".yaml").write_text(f"model: {{params: {{conditioner_config: {{params: {{emb_models: {encoders}}}}}}}}}")
    families.load(file, FLOAT32)


# --- names and headers of tensors

@pytest.mark.parametrize("name", ["input_blocks.5000000.0.op.weight", f"input_blocks.{'9' * 900}.0.op.weight"])
def test_names_do_not_make_a_network_deep(file, name):
    state = load_file(file)
    moved = {key: tensor for key, tensor in state.items() if ".0.op." not in key}
    save_file(moved | {f"model.diffusion_model.{name}": next(iter(state.values())).clone()}, file)
    assert "my.safetensors" in refusal(file)


def with_header(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize("header, said", [
    ({f"a{number}": EMPTY for number in range(100_001)}, "100001 tensors"),
    ({"a." * 600: EMPTY}, "the name of a tensor has 1200 characters"),
    ({"a": EMPTY | {"shape": [0, 2**40]}}, 'tensor "a" has more than 8 axes'),
    ({"a": EMPTY | {"shape": [0] * 9}}, 'tensor "a" has more than 8 axes'),
    ({"__metadata__": {"a": "b" * (1 << 25)}}, "its header has"),
    ({"a": []}, ""), ({"a": EMPTY | {"shape": [-1]}}, ""), ({"a": {}}, ""), ([], ""), ({"a": EMPTY | {"dtype": "F31"}}, ""),
])
def test_an_absurd_header_is_refused(tmp_path, header, said):
    path = tmp_path / "my.safetensors"
    with_header(path, header)
    assert said in refusal(path)


# --- tokenizers

@pytest.fixture
def words(folder):
    return folder / "tokenizer"


TOKENIZERS = {  # file: content
    "no merge": ("merges.txt", "a b c\n"), "merges of unknown words": ("merges.txt", "qq zz\n"),
    "no list": ("vocab.json", "[]"), "words without numbers": ("vocab.json", '{"<|startoftext|>": "a", "<|endoftext|>": "b"}'),
    "few words": ("vocab.json", '{"a": 0}'), "holes": ("vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": 2}'),
    "huge ids": ("vocab.json", f'{{"<|startoftext|>": 0, "<|endoftext|>": {2**70}}}'),
    "negative ids": ("vocab.json", '{"<|startoftext|>": -1, "<|endoftext|>": 0}'),
    "added words that follow no others": ("added_tokens.json", '{"<word>": 77}'),
    "added words without numbers": ("added_tokens.json", '{"<word>": null}'),
    "more words than vectors": ("added_tokens.json", '{"<word>": 49408}'),
}


@pytest.mark.parametrize("name, content", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_malformed_tokenizer_is_refused(folder, words, name, content):
    (words / name).write_text(content)
    said = refusal(folder)
    assert "tokenizer" in said


@pytest.mark.parametrize("content", ["{}", '{"model": 3}', '{"model": {"vocab": [], "merges": {}}}', '{"model": {"vocab": 5}}',
                                     '{"model": {"vocab": {"a": 0}, "merges": [["a"]]}}',
                                     '{"model": {"vocab": {}, "merges": []}, "added_tokens": [{"content": [], "id": 0}]}'])
def test_a_malformed_tokenizer_json_is_refused(folder, words, content):
    for name in ("vocab.json", "merges.txt"):
        (words / name).unlink()
    (words / "tokenizer.json").write_text(content)
    assert "tokenizer" in refusal(folder)


@pytest.mark.parametrize("text", ["a cat, (dog:1.2) <|endoftext|> x", "wörld 日本's", "a <word> b"])
def test_a_tokenizer_is_read_as_transformers_reads_it(words, tmp_path, text):
    """From vocab.json with merges.txt, with added words, and from the tokenizer.json that transformers writes today."""
    (words / "added_tokens.json").write_text('{"<word>": 49408}')
    usual = CLIPTokenizer.from_pretrained(words, local_files_only=True)
    usual.save_pretrained(tmp_path / "new" / "tokenizer")
    assert not (tmp_path / "new" / "tokenizer" / "vocab.json").exists()
    for tokenizer in (clip_tokenizer(words), clip_tokenizer(tmp_path / "new" / "tokenizer")):
        assert tokenizer([text], add_special_tokens=False)["input_ids"] == usual([text], add_special_tokens=False)["input_ids"]
        assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (usual.bos_token_id, usual.eos_token_id)


# --- whatever else a reader raises

class Odd(Exception):
    """As libraries raise that have their own kinds."""


@pytest.mark.parametrize("error", [Odd("first\nsecond"), AssertionError(), ImportError("no module"), StopIteration(),
                                   RecursionError("deep"), KeyError("x" * 10_000)])
def test_whatever_a_reader_raises_is_one_sentence(error):
    with pytest.raises(ModelError) as found, families.one_sentence("my.safetensors"):
        raise error
    assert str(found.value).startswith('model "my.safetensors" cannot be loaded: ') and "\n" not in str(found.value)
    assert len(str(found.value)) < 300


def test_no_json_file_is_none(tmp_path):
    assert read_json(tmp_path / "config.json") is None
