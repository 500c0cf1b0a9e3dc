"""Which segmentation models there are, the one that is in memory, and where it looks at pictures."""

import threading

import numpy as np
import pytest
import torch

from pipeline.errors import ModelError, UnknownName
from pipeline.families.sam import Prompt, Segmenter
from pipeline.segmenters import Segmenters
from tests.families import tiny_sam

CLICK = Prompt(((10.0, 10.0, True),))
PICTURE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
PLENTY = 1 << 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sam"
    for name, kind in (("vit-10", "sam"), ("vit-2", "sam2")):
        tiny_sam.save(folder / name, kind)
    (folder / "notes").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": "bert"}')
    return folder


@pytest.fixture
def looks(monkeypatch):
    """On which device a picture was looked at, each time."""
    looks, embed = [], Segmenter.embed
    monkeypatch.setattr(Segmenter, "embed", lambda self, picture, device: looks.append(device.type) or embed(self, picture, torch.device("cpu")))
    return looks


def test_every_folder_with_a_config_is_offered_in_its_order(folder, tmp_path):
    assert Segmenters(folder).names() == ["other", "vit-2", "vit-10"]
    assert Segmenters(folder / "vit-2").names() == ["vit-2"]  # it may lie there itself
    assert Segmenters(tmp_path / "nowhere").names() == Segmenters().names() == []


def test_a_picture_is_looked_at_once(folder, looks):
    segmenters = Segmenters(folder)
    first = segmenters.segment("vit-10", PICTURE, "a", CLICK)
    segmenters.segment("vit-10", PICTURE, "a", Prompt(((10.0, 10.0, True), (50.0, 40.0, False))))
    assert len(looks) == 1 and (segmenters.segment("vit-10", PICTURE, "a", CLICK) == first).all()
    segmenters.segment("vit-10", PICTURE, "b", CLICK)
    assert len(looks) == 2
    segmenters.segment("vit-2", PICTURE, "a", CLICK)
    segmenters.release()
    segmenters.segment("vit-2", PICTURE, "a", CLICK)
    assert len(looks) == 4


def test_a_name_that_is_none_and_a_model_that_is_none_are_one_sentence(folder):
    with pytest.raises(UnknownName, match='no segmentation model called "vit"; did you mean "vit-2"'):
        Segmenters(folder).segment("vit", PICTURE, "a", CLICK)
    with pytest.raises(UnknownName):
        Segmenters(folder).segment("../sam/vit-2", PICTURE, "a", CLICK)
    with pytest.raises(ModelError, match='"other" is not SAM or SAM 2'):
        Segmenters(folder).segment("other", PICTURE, "a", CLICK)


def test_the_card_is_used_where_nobody_computes_there_and_it_has_room(folder, looks, monkeypatch):
    monkeypatch.setattr("pipeline.segmenters.collect", lambda device: None)
    room = {"cuda": PLENTY, "cpu": PLENTY}
    segmenters = Segmenters(folder, torch.device("cuda"), free=lambda device: room[device.type])
    segmenters.segment("vit-10", PICTURE, "a", CLICK)
    with segmenters.card:  # a request runs
        segmenters.segment("vit-10", PICTURE, "b", CLICK)
    room["cuda"] = 1000
    segmenters.segment("vit-10", PICTURE, "c", CLICK)
    assert looks == ["cuda", "cpu", "cpu"] and not segmenters.card.locked()


def test_where_the_cards_memory_runs_out_the_processor_looks(folder, monkeypatch):
    monkeypatch.setattr("pipeline.segmenters.collect", lambda device: None)
    embed, tried = Segmenter.embed, []

    def tight(self, picture, device):
        tried.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, picture, device)

    monkeypatch.setattr(Segmenter, "embed", tight)
    segmenters = Segmenters(folder, torch.device("cuda"), free=lambda device: PLENTY)
    assert segmenters.segment("vit-10", PICTURE, "a", CLICK).shape == (60, 80)
    assert tried == ["cuda", "cpu"] and not segmenters.card.locked()


@pytest.mark.parametrize("free", [[1000], [PLENTY, 1000]])  # for its weights, and for looking
def test_what_does_not_fit_is_one_sentence(folder, free):
    told = iter(free)
    with pytest.raises(ModelError, match='"vit-10" does not fit into free memory'):
        Segmenters(folder, free=lambda device: next(told)).segment("vit-10", PICTURE, "a", CLICK)


def test_a_model_that_is_replaced_is_read_again(folder, tmp_path):
    tiny_sam.save(tmp_path / "mine", "sam", seed=2)
    segmenters = Segmenters(tmp_path)
    first = segmenters.segment("mine", PICTURE, "a", CLICK)
    tiny_sam.save(tmp_path / "mine", "sam", seed=3)
    assert (segmenters.segment("mine", PICTURE, "a", CLICK) != first).any()


def test_several_may_ask_at_once(folder):
    segmenters, answers = Segmenters(folder), {}
    threads = [threading.Thread(target=lambda key=key, name=name: answers.update({(key, name): segmenters.segment(name, PICTURE, key, CLICK)}))
               for key in "ab" for name in ("vit-2", "vit-10")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and (answers["a", "vit-2"] == answers["b", "vit-2"]).all()
