"""The model that a request asks for: found, read once, kept while there is room, and no harm done where it fails."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ModelError, UnknownName
from pipeline.families.base import ModelInfo
from pipeline.families.checkpoint import PartSize
from pipeline.families.placement import Placement
from pipeline.loading import ModelStore
from pipeline.memory import working_memory
from pipeline.models import Catalog
from pipeline.options import Options

PLACE = Placement(torch.device("cpu"), torch.float32, torch.float32)
NUMBERS = {"unet": PartSize(1000, 100), "text_encoder": PartSize(200, 90), "vae": PartSize(50, 10)}
WEIGHTS = 4 * 1250
"""Bytes, in float32."""
WORKING = working_memory(64**2, torch.float32)
PLENTY = WORKING + WEIGHTS
CARD = Placement(torch.device("cuda"), torch.float32, torch.float32)


class Disk:
    """Stands for families: remembers what is read, and what of it is still in memory."""

    def __init__(self):
        self.read, self.alive, self.failing, self.crowded = [], weakref.WeakSet(), {}, set()
        self.places, self.changed = [], []
        self.besides: set[str] = set()
        """What was in memory when the latest one was read."""

    def describe(self, path, components):
        if path.stem in self.failing:
            raise self.failing[path.stem]
        return ModelInfo(name="given by the catalog", path=str(path), native_size=64, sizes=NUMBERS)

    def load(self, path, place, info, *, components, progress):
        vae = components.vae
        self.places.append(place.offload)
        if path.stem in self.crowded and self.alive or (path.stem, place.offload) in self.crowded:
            raise ModelError("cannot be loaded") from torch.OutOfMemoryError("CUDA out of memory")
        progress(0.5)
        self.besides = self.loaded()
        self.read.append((path.stem, vae and vae.name))
        family = SimpleFamily(info=info, notes=[])
        self.alive.add(family)
        return family

    def change_vae(self, family, path, info, components):
        vae = components.vae
        if vae is not None and vae.stem in self.failing:
            raise self.failing[vae.stem]
        self.changed.append((path.stem, vae and vae.name))
        family.info = info

    def loaded(self):
        gc.collect()
        return {family.info.name for family in self.alive}


class SimpleFamily(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def catalog(tmp_path):
    for rel in ("Stable-diffusion/a", "Stable-diffusion/b", "Stable-diffusion/c", "VAE/fine", "VAE/b.vae"):
        path = tmp_path / f"{rel}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file({"weight": torch.arange(8.0) + len(rel)}, path)
    return Catalog(tmp_path)


@pytest.fixture
def make_store(catalog, disk):
    def make(free=PLENTY, place=PLACE, **settings):
        return ModelStore(catalog, place, catalog.find_checkpoint("a"), load=disk.load, describe=disk.describe,
                          change_vae=disk.change_vae, complete=lambda path, chosen, *offered: chosen, free=lambda device: free, **settings)

    return make


def options(checkpoint="", vae="Automatic"):
    return Options(sd_model_checkpoint=checkpoint, sd_vae=vae)


def test_models_are_compiled_by_one_compiler_if_there_is_a_folder_for_code(make_store, tmp_path):
    store = make_store(code=tmp_path / "code")
    compiler = store.load(options()).compiler
    assert compiler.folder == tmp_path / "code" and store.load(options("b")).compiler is compiler
    assert make_store().load(options()).compiler is None


@pytest.mark.parametrize("place, free, refused", [
    (PLACE, PLENTY, True), (CARD, PLENTY, False), (CARD, WORKING + 4 * 1000, True)])
def test_weights_that_main_memory_cannot_hold_are_refused_before_anything_is_read(make_store, disk, place, free, refused):
    """On a card they need main memory only if they wait there."""
    store = make_store(free, place, main=lambda: WEIGHTS - 1)
    if not refused:
        store.load(options("a"))
        return
    with pytest.raises(ModelError, match=r'^model "a.safetensors" needs 0.0 GB of main memory in float32, and 0.0 GB are free$'):
        store.load(options("a"))
    assert disk.read == []


def test_without_a_name_the_default_is_loaded(make_store):
    store = make_store()
    assert store.current is None
    assert store.load(options()).info.name == "a" and store.current.name == "a"


def test_the_infotext_gets_the_files_name_and_hash(make_store, catalog):
    info = make_store().load(options("b", "fine.safetensors")).info
    files = catalog.find_checkpoint("b"), catalog.find_vae("fine")
    assert (info.name, info.hash, info.vae, info.vae_hash) == ("b", files[0].hash, "fine.safetensors", files[1].hash)
    assert info.native_size == 64


@pytest.mark.parametrize("checkpoint, vae, read", [
    ("a", "Automatic", None), ("b", "Automatic", "b.vae.safetensors"), ("b", "auto", "b.vae.safetensors"), ("b", "None", None),
    ("a", "fine", "fine.safetensors"), ("a", "b.vae.safetensors", "b.vae.safetensors"),
])
def test_the_vae_is_the_one_named_or_the_one_beside_the_checkpoint(make_store, disk, checkpoint, vae, read):
    make_store().load(options(checkpoint, vae))
    assert disk.read == [(checkpoint, read)]


def test_a_model_is_read_once_under_whatever_name(make_store, catalog, disk):
    store = make_store()
    family = store.load(options("a"))
    assert all(store.load(options(name)) is family for name in ("", "a.safetensors", catalog.find_checkpoint("a").title))
    assert len(disk.read) == 1


def test_a_file_that_was_replaced_is_read_again(make_store, catalog, disk):
    store = make_store()
    before = store.load(options("a"))
    save_file({"weight": torch.zeros(9)}, catalog.find_checkpoint("a").path)
    assert store.load(options("a")).info.hash != before.info.hash


def test_the_last_one_is_kept_besides_the_one_in_use(make_store, disk):
    store = make_store()
    for name in ("a", "b", "a", "c", "a"):
        store.load(options(name))
    assert [name for name, _ in disk.read] == ["a", "b", "c"] and disk.besides == {"a", "b"} and disk.loaded() == {"a", "c"}


def test_no_more_are_kept_than_asked_for(make_store, disk):
    store = make_store(keep=0)
    for name in ("a", "b"):
        store.load(options(name))
    assert disk.loaded() == {"b"}


@pytest.mark.parametrize("free", [PLENTY - 1, None])
def test_the_previous_one_is_let_go_first_where_room_is_short_or_not_known(make_store, disk, free):
    store = make_store(free)
    store.load(options("a"))
    store.load(options("b"))
    assert disk.besides == set() and disk.loaded() == {"b"}


def test_loading_tells_how_far_it_is_with_the_hash_counted_in(make_store):
    store, shares = make_store(), []
    store.tell = shares.append
    store.load(options("a"))
    assert shares == pytest.approx([0.0, 0.3, 0.65])
    shares.clear()
    store.load(options("a"))
    assert shares == []
    store.release()
    store.load(options("a"))
    assert shares == [0.0, 0.5]


@pytest.mark.parametrize("free", [PLENTY, PLENTY - 1])
def test_what_is_no_model_costs_nobody_theirs(make_store, disk, free):
    store = make_store(free)
    family = store.load(options("a"))
    disk.failing["b"] = ModelError("it is damaged")
    with pytest.raises(ModelError, match="it is damaged"):
        store.load(options("b"))
    assert store.load(options("a")) is family and store.current.name == "a"


@pytest.mark.parametrize("wrong", [{"checkpoint": "nobody's"}, {"vae": "nobody's"}, {"checkpoint": "../VAE/fine.safetensors"}])
def test_an_unknown_name_is_refused_before_anything_is_read(make_store, disk, wrong):
    with pytest.raises(UnknownName):
        make_store().load(options(**wrong))
    assert disk.read == []


def test_when_memory_runs_out_the_others_are_let_go_and_it_is_tried_again(make_store, disk):
    store = make_store()
    store.load(options("a"))
    disk.crowded.add("b")
    assert store.load(options("b")).info.name == "b" and disk.loaded() == {"b"}


def test_a_model_that_does_not_fit_alone_is_one_sentence(make_store, disk):
    store = make_store()
    disk.crowded.add("b")
    disk.alive.add(elsewhere := SimpleFamily(info=ModelInfo("elsewhere", "")))
    with pytest.raises(ModelError, match=r'model "b.safetensors" does not fit into the memory of cpu in float32'):
        store.load(options("b"))
    assert elsewhere


def test_room_is_made_for_the_one_in_use(make_store, disk):
    store = make_store()
    store.load(options("a"))
    store.load(options("b"))
    store.make_room()
    assert disk.loaded() == {"b"}
    store.release()
    assert disk.loaded() == set() and store.current is None


def test_a_model_can_be_described_without_loading_it(make_store, disk):
    info = make_store().describe(options("b"))
    assert (info.name, info.hash, info.vae, info.native_size) == ("b", None, "b.vae.safetensors", 64) and disk.read == []


# --- another VAE

def test_another_vae_is_changed_in_the_loaded_checkpoint_which_is_not_read_again(make_store, disk, catalog):
    store = make_store()
    family = store.load(options("a"))
    assert store.load(options("a", "fine")) is family and family.info.vae == "fine.safetensors" and family.info.vae_hash
    assert store.load(options("a", "fine")) is family and store.load(options("a")) is family
    assert (family.info.vae, family.info.vae_hash, family.info.name) == (None, None, "a")
    assert disk.read == [("a", None)] and disk.changed == [("a", "fine.safetensors"), ("a", None)]


def test_a_vae_that_cannot_be_used_leaves_the_model_as_it_was(make_store, disk):
    store = make_store()
    family = store.load(options("a"))
    disk.failing["fine"] = ModelError("it is no VAE")
    with pytest.raises(ModelError, match="it is no VAE"):
        store.load(options("a", "fine"))
    assert store.load(options("a")) is family and family.info.vae is None and disk.changed == []


# --- a card that is too small

@pytest.mark.parametrize("free, offload, sentence", [
    (PLENTY, "none", None),
    (PLENTY - 1, "encoders", "a.safetensors does not fit into the memory of cuda as a whole, so each layer of its text encoders is loaded only"),
    (WORKING + 4 * 1139, "model", "a.safetensors does not fit into the memory of cuda as a whole, so each of its networks is loaded only"),
    (WORKING + 3999, "sequential", "a.safetensors does not fit into the memory of cuda as a whole, so each of its layers is loaded"),
    (None, "none", None),
])
def test_what_does_not_fit_the_card_waits_in_main_memory_and_the_person_is_told(make_store, disk, free, offload, sentence):
    notes = make_store(free, CARD).load(options()).notes
    assert disk.places == [offload] and len(notes) == (sentence is not None)
    assert sentence is None or notes[0].startswith(sentence)


def test_what_not_even_fits_layer_by_layer_is_refused_before_anything_is_read(make_store, disk):
    with pytest.raises(ModelError, match=r'^model "a.safetensors" needs 0.6 GB of the memory of cuda in float32 even with one layer there at a '
                                         r"time, and 0.6 GB are free$"):
        make_store(WORKING + 399, CARD).load(options())
    assert disk.read == [] and make_store(WORKING + 400, CARD).load(options()).notes


def test_a_model_that_cannot_fit_costs_nobody_theirs(make_store, disk):
    store = make_store(place=CARD)
    family = store.load(options("a"))
    store._free = lambda device: WORKING + 399 - WEIGHTS
    with pytest.raises(ModelError, match="one layer there at a time"):
        store.load(options("b"))
    assert store.load(options("a")) is family and disk.loaded() == {"a"}


def test_the_plan_is_known_before_loading_and_counts_what_the_others_leave(make_store, disk):
    free = {CARD.device: PLENTY}
    store = make_store(place=CARD)
    store._free = free.get
    assert (store.plan(options("a")).offload, disk.read) == ("none", [])
    store.load(options("a"))
    free[CARD.device] = PLENTY - WEIGHTS
    assert (store.plan(options("b")).offload, store.plan(options("a")).offload) == ("none", "none")
    assert store.plan(options("b")).line == "0.0 GB on cuda"
    free[CARD.device] -= 1
    assert store.plan(options("b")).offload == "encoders" and store.plan(options("b")).waiting == {"text_encoder": 800}


def test_on_the_processor_weights_are_where_they_compute_anyway(make_store, disk):
    make_store(0).load(options())
    assert disk.places == ["none"]


def test_what_does_not_fit_the_card_in_spite_of_the_estimate_is_loaded_with_less(make_store, disk):
    disk.crowded.add(("a", "none"))
    assert make_store(place=CARD).load(options()).notes and disk.places == ["none", "sequential"]
