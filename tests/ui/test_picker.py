"""The LoRAs and embeddings of the models folder, and what a click on one does to a prompt."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pipeline.models import Catalog
from ui.picker import listed, literally, with_tag, with_word


@pytest.fixture
def catalog(tmp_path):
    for rel, metadata in {"Lora/ink": {"ss_tag_frequency": json.dumps({"set": {"ink sketch": 2}})}, "Lora/people/face": {},
                          "embeddings/bad": {}}.items():
        path = tmp_path / f"{rel}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.zeros(1)}, path, metadata)
    return Catalog(tmp_path)


def shown(catalog, part):
    """(LoRAs, embeddings, whether a sentence stands in their place)."""
    loras, embeddings, target, nothing = listed(catalog, part)
    assert target.visible == embeddings.visible == bool(embeddings.raw_samples) and loras.visible == bool(loras.raw_samples)
    return [name for name, in loras.raw_samples], [name for name, in embeddings.raw_samples], nothing.visible


@pytest.mark.parametrize("part, lists", [
    ("", (["ink", "people/face"], ["bad"], False)),
    ("FACE", (["people/face"], [], False)),
    ("people", (["people/face"], [], False)),
    ("ba", ([], ["bad"], False)),
    ("zzz", ([], [], True)),
])
def test_the_lists_hold_the_files_whose_names_hold_what_is_typed(catalog, part, lists):
    assert shown(catalog, part) == lists


def test_listing_reads_no_file(catalog, monkeypatch):
    monkeypatch.setattr("pipeline.weights.Weights.__init__", None)
    assert shown(catalog, "")[0] == ["ink", "people/face"]


def test_an_empty_folder_is_told_where_files_go(tmp_path):
    assert shown(Catalog(tmp_path), "") == ([], [], True)
    assert str(tmp_path) in listed(Catalog(tmp_path))[-1].value


@pytest.mark.parametrize("before, after", [
    ("", "<lora:ink:1>"),
    ("a house", "a house <lora:ink:1>"),
    ("a house <lora:ink:1>", "a house"),
    ("a house <lora:ink:0.4:0.8>, night", "a house, night"),
    ("<lora:ink> a house", "a house"),
    ("<lora:inkling:1>", "<lora:inkling:1> <lora:ink:1>"),
    ("ink", "ink <lora:ink:1>"),
])
def test_a_click_puts_a_lora_at_the_end_and_a_second_one_takes_it_out(before, after):
    assert with_tag(before, "ink") == after


@pytest.mark.parametrize("before, after", [
    ("", "red (old)"),
    ("a house", "a house, red (old)"),
    ("a house, red (old)", "a house"),
    ("red (old), a house", "a house"),
    ("a,  red (old) ,b", "a,b"),
    ("dark red (old) house", "dark red (old) house, red (old)"),
])
def test_a_click_puts_a_word_behind_a_comma_and_a_second_one_takes_it_out(before, after):
    assert with_word(before, "red (old)") == after


def test_brackets_in_trigger_words_are_no_emphasis():
    assert literally(r"red (old) [x] \o/") == r"red \(old\) \[x\] \\o/"
