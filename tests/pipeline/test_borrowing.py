"""A worker's models are those of the machine that asks: by its names, with its hashes, from here or fetched."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline import families
from pipeline.borrowing import PIECE, BorrowedCatalog, Shelves, inside
from pipeline.errors import ModelError, UnknownName
from pipeline.families import placement
from pipeline.loading import ModelStore
from pipeline.models import Catalog, old_hash
from pipeline.options import Options
from tests.conftest import DEMO_MODEL


class Counted(Shelves):
    """Counts what is fetched, and spoils it on demand."""

    def __init__(self, catalog):
        super().__init__(catalog)
        self.fetched, self.spoilt = [], False

    def piece(self, sha256, start):
        self.fetched.append((sha256, start))
        piece = super().piece(sha256, start)
        return bytes([piece[0] ^ 1]) + piece[1:] if self.spoilt else piece


def weights(path, numbers=400_000, seed=0, **metadata):
    """A model's file of that many numbers, four bytes each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.from_numpy(np.random.default_rng(seed).random(numbers, np.float32))}, path, metadata or None)
    return path


@pytest.fixture
def theirs(tmp_path):
    """The folder of the machine that asks."""
    folder = tmp_path / "theirs"
    weights(folder / "Stable-diffusion" / "one.safetensors", seed=1)
    weights(folder / "Stable-diffusion" / "v1.5" / "two.safetensors", seed=2)
    (folder / "Stable-diffusion" / "one.yaml").write_text("model: {}")
    weights(folder / "Lora" / "style.safetensors", seed=3, ss_output_name="the trainer's")
    weights(folder / "adetailer" / "face.safetensors", seed=4)
    return folder


@pytest.fixture
def library(theirs):
    return Counted(Catalog(theirs, extra=[DEMO_MODEL]))


@pytest.fixture
def borrow(tmp_path, library):
    """Makes the catalog of the worker, whose machine has the models in "ours"."""
    return lambda: BorrowedCatalog(library, Catalog(tmp_path / "ours"), tmp_path / "store")


def test_a_file_that_is_here_by_another_name_is_not_fetched(tmp_path, theirs, library, borrow):
    ours = tmp_path / "ours" / "Stable-diffusion" / "renamed.safetensors"
    ours.parent.mkdir(parents=True)
    ours.write_bytes((theirs / "Stable-diffusion" / "one.safetensors").read_bytes())
    catalog = borrow()
    library.fetched.clear()
    file = catalog.find_checkpoint("one")
    assert file.path.resolve() == ours.resolve() and file.stem == "one" and [start for _, start in library.fetched] == [0]  # its .yaml
    assert file.path.with_suffix(".yaml").read_text() == "model: {}"


def test_another_file_of_the_same_name_here_is_never_taken(tmp_path, theirs, library, borrow):
    weights(tmp_path / "ours" / "Stable-diffusion" / "one.safetensors", seed=9)
    weights(tmp_path / "ours" / "Stable-diffusion" / "only here.safetensors", seed=9)
    catalog = borrow()
    found = catalog.find_checkpoint("one")
    assert found.path.read_bytes() == (theirs / "Stable-diffusion" / "one.safetensors").read_bytes()
    with pytest.raises(UnknownName, match="only here"):
        catalog.find_checkpoint("only here")


def test_a_file_is_fetched_once_in_pieces_and_has_the_hash_that_it_has_there(tmp_path, theirs, library, borrow):
    large = weights(theirs / "VAE" / "large.safetensors", numbers=PIECE // 4 + 10, seed=5)
    catalog = borrow()
    library.fetched.clear()
    file = catalog.find_vae("large")
    assert [start for _, start in library.fetched] == [0, PIECE]
    assert file.path.read_bytes() == large.read_bytes() and catalog.sha256(file) == Catalog(theirs).sha256(Catalog(theirs).find_vae("large"))
    library.fetched.clear()
    assert borrow().find_vae("large").path.exists() and library.fetched == []


def test_a_file_that_has_changed_there_changes_here(theirs, library, borrow):
    catalog = borrow()
    before = catalog.find_checkpoint("one").path.read_bytes()
    weights(theirs / "Stable-diffusion" / "one.safetensors", numbers=300_000, seed=7)
    catalog.refresh()
    after = catalog.find_checkpoint("one").path.read_bytes()
    assert after != before and after == (theirs / "Stable-diffusion" / "one.safetensors").read_bytes()


def test_what_arrives_damaged_is_not_kept(tmp_path, library, borrow):
    catalog = borrow()
    library.spoilt = True
    with pytest.raises(ModelError, match='"one.safetensors" arrived damaged'):
        catalog.find_checkpoint("one")
    library.spoilt = False
    assert catalog.find_checkpoint("one").path.exists() and not list((tmp_path / "store" / "files").glob("*.tmp"))


def test_names_mean_what_they_mean_there(theirs, library, borrow):
    catalog, own = borrow(), Catalog(theirs, extra=[DEMO_MODEL])
    assert [file.rel for file in catalog.checkpoints()] == [file.rel for file in own.checkpoints()]
    old = own.find_checkpoint("two")
    digits = old_hash(old.path)
    for text in ("v1.5/two", "v1.5_two", f"two [{digits}]", digits):
        assert catalog.find_checkpoint(text).path.read_bytes() == own.find_checkpoint(text).path.read_bytes() == old.path.read_bytes()
    assert catalog.find_lora("the trainer's").stem == "style"
    assert (catalog.root / "adetailer" / "face.safetensors").exists()  # named by no request's text alone


def test_a_folder_is_fetched_whole_and_makes_the_same_model(tmp_path, library, borrow):
    catalog = borrow()
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("demo-model"),
                        complete=lambda path, chosen, *offered: families.completed(path, chosen, *map(catalog.as_tried, offered)))
    there, here = Catalog(tmp_path, extra=[DEMO_MODEL]), models.load(Options())
    assert here.info.name == "demo-model" and here.info.sha256 == there.sha256(there.find_checkpoint("demo-model"))
    assert not Path(here.info.path).is_relative_to(DEMO_MODEL)


@pytest.mark.parametrize("place", ["../above", "/etc/passwd", "a/../../b"])
def test_a_library_cannot_write_elsewhere(tmp_path, place):
    with pytest.raises(ModelError, match="not a place for a model"):
        inside(tmp_path, place)
