"""Network files: what they are refused for, their hash, their settings, their trigger words."""

import hashlib
import json

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.networks.file import NetworkFile, trigger_words

CPU = torch.device("cpu")


def test_a_file_without_layers_is_no_lora(write):
    with pytest.raises(ModelError, match='"x.safetensors" is not a LoRA: none of its 1 tensors has the name of a LoRA tensor'):
        NetworkFile(write("x", {"model.diffusion_model.input_blocks.0.0.bias.x": torch.ones(1)}).path)


@pytest.mark.parametrize("metadata", [
    {"lora_adapter_metadata": '{"unet.lora_alpha": %s}' % ("9" * 400)}, {"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'},
    {"lora_adapter_metadata": '{"unet.lora_alpha": 1e999}'}, {"lora_adapter_metadata": '{"unet.lora_alpha": true}'},
    {"lora_adapter_metadata": '{"unet.alpha_pattern": {"conv_in": %s}}' % ("9" * 400)},
    {"lora_adapter_metadata": '{"unet.alpha_pattern": {"conv_in": []}}'}, {"lora_adapter_metadata": "[" * 100_000},
])
def test_metadata_that_cannot_be_computed_with_says_nothing(write, pair, metadata):
    tensors = {name: tensor for name, tensor in pair("unet.conv_in")[0].items() if "alpha" not in name}
    assert "scale" not in NetworkFile(write("x", tensors, metadata).path).parts("unet_conv_in", CPU)


@pytest.mark.parametrize("counts", ['{"a": %s, "b": 1.5}' % ("9" * 400), '{"a": NaN}', '{"a": true, "b": "many"}'])
def test_tags_without_a_count_are_none(counts):
    assert set(trigger_words({"ss_tag_frequency": '{"1_x": %s}' % counts})) <= {"b"}


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="is a pickle"):
        NetworkFile(path)


def test_the_hash_is_that_of_the_tensors_and_not_of_the_metadata(write, pair):
    tensors, _ = pair("lora_unet_conv_in")
    plain, renamed = write("a", tensors), write("b", tensors, {"ss_output_name": "another"})
    data = plain.path.read_bytes()
    wanted = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little"):]).hexdigest()[:12]
    assert NetworkFile(plain.path).short_hash == NetworkFile(renamed.path).short_hash == wanted


def test_the_trainers_own_hash_comes_first(write, pair):
    file = write("a", pair("lora_unet_conv_in")[0], {"sshs_model_hash": "0123456789abcdef"})
    assert NetworkFile(file.path).short_hash == "0123456789ab"


def test_embeddings_that_travel_along_are_no_layers(write, pair):
    file = write("a", pair("lora_unet_conv_in")[0] | {"bundle_emb.word.alpha": torch.ones(1)})
    assert NetworkFile(file.path).layers == ["lora_unet_conv_in"]


def test_parts_are_float32(write, pair):
    tensors = {name: tensor.half() for name, tensor in pair("lora_unet_conv_in")[0].items()}
    parts = NetworkFile(write("a", tensors).path).parts("lora_unet_conv_in", CPU)
    assert {name: part.dtype for name, part in parts.items()} == dict.fromkeys(("up", "down", "alpha"), torch.float32)


@pytest.mark.parametrize("config, wanted", [
    ({}, None),
    ({"unet.lora_alpha": 8}, 4.0),
    ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
    ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 1}}, 0.5),
    ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_q": 1}}, 4.0),
    ({"text_encoder.lora_alpha": 8}, None),
    ({"lora_alpha": 8}, 4.0),
    ({"unet.lora_alpha": "many"}, None),
    ([], None),
])
def test_pefts_settings_scale_what_has_no_alpha(write, config, wanted):
    names = {f"unet.mid_block.attn1.to_q.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    file = NetworkFile(write("a", names, {"lora_adapter_metadata": json.dumps(config)}).path)
    scale = file.parts("unet_mid_block_attn1_to_q", CPU).get("scale")
    assert (scale is None and wanted is None) or float(scale) == pytest.approx(wanted)


@pytest.mark.parametrize("metadata, words", [
    ({}, []),
    ({"ss_tag_frequency": json.dumps({"10_cat": {"cat": 5, " sitting": 2}, "3_dog": {"dog": 4, "sitting": 9, "": 99}})},
     ["sitting", "cat", "dog"]),
    ({"ss_tag_frequency": "{cut"}, []),
    ({"ss_tag_frequency": "[1]"}, []),
    ({"ss_tag_frequency": '{"a": ["cat"], "b": {"dog": "often", "fox": 1}}'}, ["fox"]),
])
def test_trigger_words_are_the_most_frequent_tags_first(metadata, words):
    assert trigger_words(metadata) == words
